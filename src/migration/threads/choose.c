#include "migration/threads/choose.h"

#include <math.h>
#include <string.h>

const struct gear gears[GEARS] = {
    [GEAR_NONE] = { CODEC_RAW, 1 },
    [GEAR_LZ4_FAST] = { CODEC_LZ4, 8 },
    [GEAR_LZ4] = { CODEC_LZ4, 1 },
    [GEAR_ZSTD] = { CODEC_ZSTD, 1 },
};

enum {
    DWELL_NS = 100 * 1000000, /* in a gear before the next: the road holds chunks of the old one for some of that */
    START_NS = 60 * 1000000,
    SETTLED_NS = 150 * 1000000, /* what was on the road before it has arrived */
    PROBE_COST = 30,            /* a probe is due after this many times what it takes, of the time that is measured */
    CARRIED_BYTES_MIN = 256 * 1024,
    CARRIED_NS_MIN = 1000000,
    UNITS_MIN = 8,   /* fewer measure the clock */
    PRIOR_NS = 3000, /* a probe whose cost nobody knows */
};
static const double GAIN = 0.25;          /* weight of a new measurement of costs */
static const double AS_FAST = 0.97;       /* within this of the best: the cheaper one wins */
static const double CLEARLY_FASTER = 0.8; /* what a dearer gear must promise */
static const double FASTER_AGAIN = 0.9;   /* one of which it is known what it really does */
static const double MUCH_SLOWER = 1.5;    /* than what was left for it: no need to look any longer */
static const double FULL = 0.1;           /* of its busy time that the channel was full: this is what it carries */
static const double BUSY = 0.5;           /* of a window: how fast the writer is shows */
static const double RISE_NS = 0.5e9;      /* a link that is never full is thought twice as fast every so often */
static const double RISE_MAX_NS = 8e9;    /* when that was wrong again and again */
static const double LAG_NS = 0.1e9, LAGGING = 0.6, DOUBTED = 0.3;
static const double FORGET_NS = 2e9;      /* half of what a gear did is forgotten */
static const double FORGET_MAX_NS = 32e9; /* when it was tried in vain again and again */
static const double TRIAL_NS = 1e9;       /* a gear that was left sooner was tried in vain */
static const double OTHER_CONTENT = 1.5;  /* times more or fewer bytes: what a gear did tells nothing any more */
static const double SHARE_NS = 0.1e9, SHARE_PRIOR_NS = 1e6;
static const double LINK_MAX_BYTES_PER_S = 2e9; /* what one thread hands over at best, until it is seen */
static const double SHARE_MIN = 0.05;

void choose_init(struct choose *c, unsigned codecs)
{
    memset(c, 0, sizeof(*c));
    c->codecs = codecs | 1u << CODEC_RAW;
    c->plain = c->packing = (struct choose_share){ SHARE_PRIOR_NS, SHARE_PRIOR_NS };
    c->bytes_per_s = LINK_MAX_BYTES_PER_S;
    c->rise_ns = RISE_NS;
    c->relax_ns = FORGET_NS;
    c->gear = GEAR_START;
    for (unsigned gear = 0; gear < GEARS; gear++) {
        c->cost[gear].forget_ns = FORGET_NS;
    }
    if (!(c->codecs & 1u << gears[c->gear].codec)) {
        c->gear = GEAR_NONE;
    }
}

static void blend(double *value, double measured, bool known)
{
    *value = known ? *value + GAIN * (measured - *value) : measured;
}

void choose_packed(struct choose *c, unsigned gear, unsigned units, int64_t cpu_ns, uint64_t wire_bytes)
{
    struct choose_cost *cost = &c->cost[gear];
    if (units < UNITS_MIN) {
        return;
    }
    blend(&cost->cpu_ns, (double)cpu_ns / units, cost->known);
    blend(&cost->wire_bytes, (double)wire_bytes / units, cost->known);
    cost->known = true;
}

void choose_worked(struct choose *c, unsigned gear, unsigned units, int64_t copy_ns, int64_t cpu_ns, int64_t wall_ns)
{
    struct choose_share *share = gear == GEAR_NONE ? &c->plain : &c->packing;
    c->worked_ns += cpu_ns;
    if (units < UNITS_MIN || wall_ns <= 0) {
        return;
    }
    blend(&c->copy_ns, (double)copy_ns / units, c->copy_ns > 0);
    share->cpu_ns += (double)(cpu_ns < wall_ns ? cpu_ns : wall_ns);
    share->wall_ns += (double)wall_ns;
}

unsigned choose_probe(struct choose *c)
{
    for (unsigned gear = 0; gear < GEARS; gear++) {
        struct choose_cost *cost = &c->cost[gear];
        if (gear == c->gear || !(c->codecs & 1u << gears[gear].codec) || c->worked_ns < cost->probe_due_ns) {
            continue;
        }
        double cpu_ns = cost->known ? cost->cpu_ns : PRIOR_NS;
        cost->probe_due_ns = c->worked_ns + (int64_t)(cpu_ns * CHOOSE_PROBE_UNITS * PROBE_COST * (GEARS - 1));
        return gear;
    }
    return GEARS;
}

/* By sums, not as a mean of chunks: one that was preempted took ten times as long, and is one of ten. */
static double share_of(const struct choose *c, unsigned gear)
{
    const struct choose_share *share = gear == GEAR_NONE ? &c->plain : &c->packing;
    return fmax(share->cpu_ns / share->wall_ns, SHARE_MIN);
}

static void fade(struct choose_share *share, int64_t elapsed_ns)
{
    double left = exp2(-(double)elapsed_ns / SHARE_NS);
    share->cpu_ns *= left;
    share->wall_ns *= left;
}

/* It took so much in so long and was full all the while. */
static void link_carried(struct choose *c, double through)
{
    c->bytes_per_s += (c->full ? GAIN : 1) * (through - c->bytes_per_s);
    c->full = true;
}

/* What the link carries. Sockets swallow megabytes at once: only between two moments at which the channel was full did
 * as much leave them as came in. A window in which it became full says no more than that the link is not faster; one in
 * which it never was, that it may be faster than was thought, which is believed step by step. */
static void learn_link(struct choose *c, const struct choose_window *w)
{
    /* A wait that began before the window is counted where it ended. */
    double elapsed_ns = (double)w->elapsed_ns;
    double busy_ns = (double)(w->elapsed_ns - w->idle_ns - w->rate_wait_ns);
    busy_ns = fmax(fmax(busy_ns, (double)w->frozen_ns), 1);
    double through = (double)w->sent_bytes * 1e9 / busy_ns;
    /* Between rounds the writer may be waiting still, uncounted: only one that mostly was frozen says something then. */
    bool tells = w->one_round || (double)w->frozen_ns > BUSY * elapsed_ns;
    if (w->sent_bytes && (double)w->frozen_ns > FULL * busy_ns) {
        bool throughout = c->full && w->frozen_ns > w->idle_ns + w->rate_wait_ns; /* and did not run empty between */
        through = throughout ? (double)w->sent_bytes * 1e9 / elapsed_ns : through;
        if (tells && (throughout || through < c->bytes_per_s)) {
            link_carried(c, through);
        }
        c->full = true;
        return;
    }
    if (c->gear == GEAR_NONE && w->one_round && w->sent_bytes && busy_ns > BUSY * elapsed_ns &&
        through < c->bytes_per_s) {
        blend(&c->bytes_per_s, through, true); /* what the writer itself can do; else most of that was waking up */
    } else {
        c->bytes_per_s = fmin(c->bytes_per_s * exp2(elapsed_ns / c->rise_ns), LINK_MAX_BYTES_PER_S);
    }
    c->full = false;
}

void choose_carried(struct choose *c, uint64_t bytes, int64_t made_ns, int64_t loaded_ns)
{
    int64_t tail_ns = loaded_ns - made_ns;
    c->tail_min_ns = c->tail_min_ns && c->tail_min_ns < tail_ns ? c->tail_min_ns : tail_ns;
    int64_t drain_ns = tail_ns - c->tail_min_ns; /* beyond the round trip and the loading */
    if (bytes >= CARRIED_BYTES_MIN && drain_ns > made_ns / 4 && drain_ns > CARRIED_NS_MIN) {
        link_carried(c, (double)bytes * 1e9 / (double)(made_ns + drain_ns));
    }
}

static bool lagging(const struct choose *c)
{
    return c->full && c->lag > LAGGING;
}

static double link_ns(const struct choose *c, unsigned gear)
{
    return c->cost[gear].wire_bytes * 1e9 / c->bytes_per_s;
}

static void remember(struct choose *c)
{
    struct choose_cost *cost = &c->cost[c->gear];
    cost->seen_ns = link_ns(c, c->gear);
    cost->seen_bytes = cost->wire_bytes;
    cost->seen_at_ns = c->now_ns;
    cost->of_peer = lagging(c);
}

/* The peer's own time for a unit, while it is what everybody waits for. Of the first moments in a gear nothing can be
 * told: what arrives there then are chunks of the gear before. */
static void learn_peer(struct choose *c, const struct choose_window *w)
{
    c->lag += (w->peer_lags - c->lag) * (1 - exp2(-(double)w->elapsed_ns / LAG_NS));
    if (!w->steady || !lagging(c) || c->now_ns - c->since_ns < SETTLED_NS) {
        return;
    }
    remember(c);
}

static double work_ns(const struct choose *c, unsigned gear, const struct choose_window *w)
{
    return (c->copy_ns + c->cost[gear].cpu_ns) / (share_of(c, gear) * (w->workers ? w->workers : 1));
}

/* How much of what a gear did still counts, 0 to 1. */
static double memory(const struct choose *c, unsigned gear)
{
    const struct choose_cost *cost = &c->cost[gear];
    double content = cost->seen_bytes / fmax(cost->wire_bytes, 1);
    if (cost->seen_ns <= 0 || content > OTHER_CONTENT || content < 1 / OTHER_CONTENT) {
        return 0;
    }
    return exp2(-(double)(c->now_ns - cost->seen_at_ns) / cost->forget_ns);
}

/* What is known of how long it really takes: of this gear, and what a peer needs for one that is easier to unpack. */
static double known_ns(const struct choose *c, unsigned gear)
{
    double ns = memory(c, gear) * c->cost[gear].seen_ns;
    for (unsigned easier = GEAR_NONE + 1; easier < gear; easier++) {
        if (c->cost[easier].of_peer) {
            ns = fmax(ns, memory(c, easier) * c->cost[easier].seen_ns);
        }
    }
    return ns;
}

double choose_unit_ns(const struct choose *c, unsigned gear, const struct choose_window *w)
{
    const struct choose_cost *cost = &c->cost[gear];
    double cap_ns = w->max_bytes_per_s ? cost->wire_bytes * 1e9 / (double)w->max_bytes_per_s : 0;
    double by_link_ns = link_ns(c, gear), now_ns = link_ns(c, c->gear);
    /* Where it is not the link fewer bytes gain nothing, and what is easier to unpack is worth a look. */
    if (gear < c->gear && lagging(c)) {
        by_link_ns = fmin(by_link_ns, now_ns);
    } else if (gear > c->gear && c->full && c->lag > DOUBTED) {
        by_link_ns = fmax(by_link_ns, now_ns);
    }
    return fmax(fmax(by_link_ns, cap_ns), fmax(work_ns(c, gear, w), known_ns(c, gear)));
}

static unsigned decide(const struct choose *c, const struct choose_window *w)
{
    unsigned best = GEARS;
    double best_ns = 0;
    for (unsigned gear = 0; gear < GEARS; gear++) {
        if (!c->cost[gear].known) { /* only what the peer reads is ever looked at */
            continue;
        }
        double unit_ns = choose_unit_ns(c, gear, w);
        if (best == GEARS || unit_ns < AS_FAST * best_ns) {
            best = gear, best_ns = unit_ns;
        }
    }
    if (best == GEARS || !c->cost[c->gear].known) {
        return c->gear;
    }
    double now_ns = choose_unit_ns(c, c->gear, w);
    double margin = memory(c, best) > 0.5 ? FASTER_AGAIN : CLEARLY_FASTER;
    return best > c->gear && best_ns > margin * now_ns ? c->gear : best;
}

/* What carries the bytes, link or peer, is so much slower than was thought when the gear was taken that a look is enough. */
static bool much_worse(const struct choose *c)
{
    return c->full && link_ns(c, c->gear) > MUCH_SLOWER * c->promised_ns;
}

/* A gear is kept for a while, or nothing is learned about it. The one that it began with is left for a dearer one as soon
 * as the channel is full; but that it is not full yet may be a socket's buffer. */
static bool may_shift(const struct choose *c)
{
    int64_t in_gear_ns = c->now_ns - c->since_ns;
    if (c->since_ns == 0) {
        return c->full || in_gear_ns >= START_NS;
    }
    bool learned = !lagging(c) || c->cost[c->gear].seen_at_ns > c->since_ns;
    return (learned && in_gear_ns >= DWELL_NS) || much_worse(c);
}

static void shift(struct choose *c, unsigned gear, double promised_ns)
{
    struct choose_cost *left = &c->cost[c->gear];
    bool in_vain = c->since_ns > 0 && (double)(c->now_ns - c->since_ns) < TRIAL_NS;
    left->forget_ns = in_vain ? fmin(2 * left->forget_ns, FORGET_MAX_NS) : FORGET_NS;
    if (gear == GEAR_NONE) { /* nobody will look whether packing gets its CPUs */
        c->relax_ns = in_vain ? fmin(2 * c->relax_ns, FORGET_MAX_NS) : FORGET_NS;
    }
    bool too_cheap = c->gear < c->before && gear > c->gear;
    if (too_cheap) { /* the link was believed to carry more than it does */
        c->rise_ns = in_vain ? fmin(2 * c->rise_ns, RISE_MAX_NS) : RISE_NS;
    }
    if (c->full && left->seen_at_ns <= c->since_ns && (too_cheap || lagging(c))) { /* left at a glance */
        remember(c);
    }
    c->before = c->gear;
    c->gear = gear;
    c->since_ns = c->now_ns;
    c->promised_ns = promised_ns;
}

unsigned choose_next(struct choose *c, const struct choose_window *w)
{
    if (w->elapsed_ns <= 0) {
        return c->gear;
    }
    c->now_ns += w->elapsed_ns;
    if (w->max_bytes_per_s != c->cap) {
        for (unsigned gear = 0; gear < GEARS; gear++) {
            c->cost[gear].seen_ns = 0;
        }
        c->cap = w->max_bytes_per_s;
    }
    learn_link(c, w);
    learn_peer(c, w);
    fade(c->gear == GEAR_NONE ? &c->plain : &c->packing, w->elapsed_ns);
    if (c->gear == GEAR_NONE) { /* it may get them again */
        c->packing.cpu_ns +=
            (c->packing.wall_ns - c->packing.cpu_ns) * (1 - exp2(-(double)w->elapsed_ns / c->relax_ns));
    }
    unsigned gear = may_shift(c) ? decide(c, w) : c->gear;
    if (gear != c->gear) {
        shift(c, gear, choose_unit_ns(c, gear, w));
    }
    return c->gear;
}
