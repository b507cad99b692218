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
    UNSEEN_NS = 500 * 1000000, /* when nothing was learned about it */
    PROBE_COST = 30,           /* a probe is due after this many times what it takes, of the time that is measured */
    CARRIED_BYTES_MIN = 256 * 1024,
    CARRIED_NS_MIN = 1000000,
    UNITS_MIN = 8,   /* fewer measure the clock */
    PRIOR_NS = 3000, /* a probe whose cost nobody knows */
};
static const double GAIN = 0.25;          /* weight of a new measurement of costs */
static const double SETTLE_NS = 0.06e9;   /* of a time or a rate that was half as high, half is believed after this */
static const double AS_FAST = 0.97;       /* within this of the best: the cheaper one wins */
static const double CLEARLY_FASTER = 0.8; /* what a dearer gear must promise */
static const double MUCH_SLOWER = 1.5;    /* than what was left for it: no need to look any longer */
static const double FULL = 0.1;           /* of its busy time that the channel was full: this is what it carries */
static const double BUSY = 0.5;           /* of a window: how fast the writer is shows */
static const double RISE_NS = 0.5e9;      /* a link that is never full is thought twice as fast every so often */
static const double FORGET_NS = 2e9;      /* half of what a gear did is forgotten */
static const double FORGET_MAX_NS = 32e9; /* when it was tried in vain again and again */
static const double TRIAL_NS = 1e9;       /* a gear that was left sooner was tried in vain */
static const double OTHER_CONTENT = 1.5;  /* times more or fewer bytes: what a gear did tells nothing any more */
static const double CONTENDED = 0.7;      /* a worker that packs has a CPU for less of its time than this */
static const double CONTENDED_MAX = 3;    /* and a unit takes no more than this times what a worker needs */
static const double LINK_MAX_BYTES_PER_S = 2e9; /* what one thread hands over at best, until it is seen */
static const double SHARE_MIN = 0.05, BEHIND_MAX = 8;

void choose_init(struct choose *c, unsigned codecs)
{
    memset(c, 0, sizeof(*c));
    c->codecs = codecs | 1u << CODEC_RAW;
    c->share_plain = c->share_packing = 1;
    c->bytes_per_s = LINK_MAX_BYTES_PER_S;
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
    double *share = gear == GEAR_NONE ? &c->share_plain : &c->share_packing;
    c->worked_ns += cpu_ns;
    if (units < UNITS_MIN || wall_ns <= 0) {
        return;
    }
    blend(&c->copy_ns, (double)copy_ns / units, c->copy_ns > 0);
    blend(share, fmin((double)cpu_ns / (double)wall_ns, 1), true);
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

static bool contended(const struct choose *c)
{
    return c->gear != GEAR_NONE && c->share_packing < CONTENDED;
}

/* It was full, and took so much in so long: no faster than that, now. Up at once, down slowly: a peer that waits for its
 * CPU looks like a slow link, but not all the time. */
static void link_full(struct choose *c, double through)
{
    double weight = through > c->bytes_per_s ? 0.5 : 0.25;
    c->bytes_per_s = c->full ? c->bytes_per_s + weight * (through - c->bytes_per_s) : through;
    c->full = true;
}

/* What the link carries. While the channel is full now and then that is what goes through; while it never is, it may be
 * anything up to what the writer can hand over, and is believed to be more only step by step. */
static void learn_link(struct choose *c, const struct choose_window *w)
{
    /* A wait that began before the window is counted where it ended. */
    double busy_ns = (double)(w->elapsed_ns - w->idle_ns - w->rate_wait_ns);
    busy_ns = fmax(fmax(busy_ns, (double)w->frozen_ns), 1);
    double through = (double)w->sent_bytes * 1e9 / busy_ns, top = LINK_MAX_BYTES_PER_S;
    if (w->sent_bytes && (double)w->frozen_ns > FULL * busy_ns) {
        link_full(c, through);
        return;
    }
    if (w->sent_bytes && busy_ns > BUSY * (double)w->elapsed_ns) { /* else most of that was waking up */
        top = fmin(top, through);
    }
    /* With CPUs that short what was thought of the link may have been theirs. */
    double rise = contended(c) && w->steady ? INFINITY : exp2((double)w->elapsed_ns / RISE_NS);
    c->bytes_per_s = fmin(c->bytes_per_s * rise, top);
    c->full = false;
}

void choose_carried(struct choose *c, uint64_t bytes, int64_t made_ns, int64_t loaded_ns)
{
    int64_t tail_ns = loaded_ns - made_ns;
    c->tail_min_ns = c->tail_min_ns && c->tail_min_ns < tail_ns ? c->tail_min_ns : tail_ns;
    int64_t drain_ns = tail_ns - c->tail_min_ns; /* beyond the round trip and the loading */
    if (bytes >= CARRIED_BYTES_MIN && drain_ns > made_ns / 4 && drain_ns > CARRIED_NS_MIN) {
        link_full(c, (double)bytes * 1e9 / (double)(made_ns + drain_ns));
    }
}

static void learn_gear(struct choose *c, const struct choose_window *w)
{
    struct choose_cost *cost = &c->cost[c->gear];
    if (!w->steady || c->now_ns - c->since_ns < 2 * w->elapsed_ns || w->units < UNITS_MIN) {
        return;
    }
    double unit_ns = (double)w->elapsed_ns / (double)w->units;
    bool fresh = cost->seen_ns > 0 && cost->seen_at_ns > c->since_ns;
    double weight = 1 - exp2(-(double)w->elapsed_ns / SETTLE_NS);
    cost->seen_ns = fresh ? cost->seen_ns + weight * (unit_ns - cost->seen_ns) : unit_ns;
    cost->seen_bytes = cost->wire_bytes;
    cost->seen_at_ns = c->now_ns;
}

static double work_ns(const struct choose *c, unsigned gear, const struct choose_window *w)
{
    double share = fmax(gear == GEAR_NONE ? c->share_plain : c->share_packing, SHARE_MIN);
    return (c->copy_ns + c->cost[gear].cpu_ns) / (share * (w->workers ? w->workers : 1));
}

static double link_ns(const struct choose *c, unsigned gear)
{
    return c->cost[gear].wire_bytes * 1e9 / c->bytes_per_s;
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

/* The link may be slower than it was just thought to be, or the peer: by how much, as a factor. */
static double behind(const struct choose *c, const struct choose_window *w)
{
    double thought_ns = link_ns(c, c->gear), seen_ns = c->cost[c->gear].seen_ns;
    double weight = memory(c, c->gear);
    if (!c->full || seen_ns <= work_ns(c, c->gear, w) || thought_ns <= 0 || seen_ns <= thought_ns) {
        return 1;
    }
    return 1 + weight * (fmin(seen_ns / thought_ns, BEHIND_MAX) - 1);
}

/* Is it the CPUs that are short, here or there, although the channel is full? Then fewer bytes gain nothing that
 * packing them would not lose, and what is cheaper is worth a look. */
static bool doubted(const struct choose *c, const struct choose_window *w)
{
    bool explains = c->cost[c->gear].seen_ns < CONTENDED_MAX * work_ns(c, c->gear, w);
    return w->peer_lags || (contended(c) && explains);
}

double choose_unit_ns(const struct choose *c, unsigned gear, const struct choose_window *w)
{
    const struct choose_cost *cost = &c->cost[gear];
    double weight = memory(c, gear), seen_ns = c->cost[c->gear].seen_ns;
    double cap_ns = w->max_bytes_per_s ? cost->wire_bytes * 1e9 / (double)w->max_bytes_per_s : 0;
    double by_link_ns = link_ns(c, gear) * behind(c, w);
    if (c->full && seen_ns > 0 && gear != c->gear && doubted(c, w)) {
        if (gear < c->gear) {
            by_link_ns = fmin(by_link_ns, seen_ns);
        } else if (w->peer_lags) {
            by_link_ns = fmax(by_link_ns, seen_ns);
        }
    }
    double model_ns = fmax(fmax(by_link_ns, cap_ns), work_ns(c, gear, w));
    return weight * cost->seen_ns + (1 - weight) * model_ns;
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
    return best > c->gear && best_ns > CLEARLY_FASTER * now_ns ? c->gear : best;
}

/* A gear was just taken: is it so much worse than the one before, or than was thought, that a look is enough? */
static bool much_worse(const struct choose *c)
{
    const struct choose_cost *now = &c->cost[c->gear], *before = &c->cost[c->before];
    bool by_link = c->full && c->gear < c->before && link_ns(c, c->gear) > MUCH_SLOWER * c->promised_ns;
    bool by_sight = now->seen_at_ns > c->since_ns && memory(c, c->before) > 0;
    return by_link || (by_sight && now->seen_ns > MUCH_SLOWER * before->seen_ns);
}

/* A gear is kept for a while, or nothing is learned about it. The one that it began with is left for a dearer one as soon
 * as the channel is full; but that it is not full yet may be a socket's buffer. */
static bool may_shift(const struct choose *c)
{
    int64_t in_gear_ns = c->now_ns - c->since_ns;
    if (c->since_ns == 0) {
        return c->full || in_gear_ns >= START_NS;
    }
    bool learned = c->full || c->cost[c->gear].seen_at_ns > c->since_ns;
    return in_gear_ns >= (learned ? DWELL_NS : UNSEEN_NS) || much_worse(c);
}

static void shift(struct choose *c, unsigned gear, double promised_ns)
{
    struct choose_cost *left = &c->cost[c->gear];
    bool in_vain = c->since_ns > 0 && (double)(c->now_ns - c->since_ns) < TRIAL_NS;
    left->forget_ns = in_vain ? fmin(2 * left->forget_ns, FORGET_MAX_NS) : FORGET_NS;
    if (c->full && left->seen_at_ns <= c->since_ns) { /* left at a glance: the link's word counts as seen */
        left->seen_ns = link_ns(c, c->gear);
        left->seen_bytes = left->wire_bytes;
        left->seen_at_ns = c->now_ns;
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
    learn_gear(c, w);
    if (c->gear == GEAR_NONE) { /* nobody looks whether packing would get its CPUs now */
        c->share_packing = 1 - (1 - c->share_packing) * exp2(-(double)w->elapsed_ns / FORGET_NS);
    }
    unsigned gear = may_shift(c) ? decide(c, w) : c->gear;
    if (gear != c->gear) {
        shift(c, gear, choose_unit_ns(c, gear, w));
    }
    return c->gear;
}
