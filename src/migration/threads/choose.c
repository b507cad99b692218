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
    DWELL_WINDOWS = 3, /* in a gear before the next: in the first the road still holds the old gear's chunks */
    PROBE_COST = 30,   /* a probe is due after this many times what it takes, of the time that is measured */
    UNITS_MIN = 8,     /* fewer measure the clock */
    PRIOR_NS = 3000,   /* a probe whose cost nobody knows */
};
static const double GAIN = 0.25;           /* weight of a new measurement */
static const double AS_FAST = 0.97;        /* within this of the best: the cheaper one wins */
static const double CLEARLY_FASTER = 0.87; /* what a dearer gear must promise */
static const double FULL = 0.1;            /* of its busy time that the channel was full: this is what it carries */
static const double RISE_NS = 0.5e9;       /* a link that is never full is thought twice as fast every so often */
static const double FORGET_NS = 2e9;       /* half of what a gear did is forgotten */
static const double OTHER_CONTENT = 1.5;   /* times more or fewer bytes: what a gear did tells nothing any more */
static const double SHARE_MIN = 0.05;

void choose_init(struct choose *c, unsigned codecs)
{
    memset(c, 0, sizeof(*c));
    c->codecs = codecs | 1u << CODEC_RAW;
    c->share = 1;
    c->gear = GEAR_START;
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

void choose_worked(struct choose *c, unsigned units, int64_t copy_ns, int64_t cpu_ns, int64_t wall_ns)
{
    c->worked_ns += cpu_ns;
    if (units < UNITS_MIN || wall_ns <= 0) {
        return;
    }
    blend(&c->copy_ns, (double)copy_ns / units, c->copy_ns > 0);
    blend(&c->share, fmin((double)cpu_ns / (double)wall_ns, 1), true);
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

/* What the link carries. While the channel is full now and then that is what goes through; while it never is, it may be
 * anything up to what the writer can hand over, and is believed to be more only step by step. */
static void learn_link(struct choose *c, const struct choose_window *w)
{
    double busy_ns = (double)(w->elapsed_ns - w->idle_ns - w->rate_wait_ns);
    busy_ns = fmax(fmax(busy_ns, (double)w->frozen_ns), 1);
    if (!w->sent_bytes) {
        return;
    }
    double through = (double)w->sent_bytes * 1e9 / busy_ns;
    if (c->bytes_per_s <= 0) {
        c->bytes_per_s = through;
    } else if ((double)w->frozen_ns > FULL * busy_ns) {
        c->bytes_per_s += 0.5 * (through - c->bytes_per_s);
    } else {
        c->bytes_per_s = fmin(through, c->bytes_per_s * exp2((double)w->elapsed_ns / RISE_NS));
    }
    double seen = (double)w->sent_bytes * 1e9 / (double)w->elapsed_ns; /* it has carried this */
    c->bytes_per_s = fmax(c->bytes_per_s, seen);
}

static void learn_gear(struct choose *c, const struct choose_window *w)
{
    struct choose_cost *cost = &c->cost[c->gear];
    if (!w->steady || c->now_ns - c->since_ns < 2 * w->elapsed_ns || w->units < UNITS_MIN) {
        return;
    }
    double unit_ns = (double)w->elapsed_ns / (double)w->units;
    bool fresh = cost->seen_ns > 0 && c->now_ns - cost->seen_at_ns <= 2 * w->elapsed_ns;
    cost->seen_ns = fresh ? cost->seen_ns + 0.5 * (unit_ns - cost->seen_ns) : unit_ns;
    cost->seen_bytes = cost->wire_bytes;
    cost->seen_at_ns = c->now_ns;
}

double choose_unit_ns(const struct choose *c, unsigned gear, unsigned workers, uint64_t max_bytes_per_s)
{
    const struct choose_cost *cost = &c->cost[gear];
    double cap_ns = max_bytes_per_s ? cost->wire_bytes * 1e9 / (double)max_bytes_per_s : 0;
    double link_ns = c->bytes_per_s > 0 ? cost->wire_bytes * 1e9 / c->bytes_per_s : 0;
    double work_ns = (c->copy_ns + cost->cpu_ns) / (fmax(c->share, SHARE_MIN) * (workers ? workers : 1));
    double model = fmax(fmax(link_ns, cap_ns), work_ns);
    double content = cost->seen_bytes / fmax(cost->wire_bytes, 1);
    if (cost->seen_ns <= 0 || content > OTHER_CONTENT || content < 1 / OTHER_CONTENT) {
        return model;
    }
    double weight = exp2(-(double)(c->now_ns - cost->seen_at_ns) / FORGET_NS);
    return weight * fmax(cost->seen_ns, cap_ns) + (1 - weight) * model;
}

static bool usable(const struct choose *c, unsigned gear)
{
    return c->cost[gear].known && c->codecs & 1u << gears[gear].codec;
}

static unsigned decide(const struct choose *c, const struct choose_window *w)
{
    unsigned best = GEARS;
    double best_ns = 0;
    for (unsigned gear = 0; gear < GEARS; gear++) {
        if (!usable(c, gear)) {
            continue;
        }
        double unit_ns = choose_unit_ns(c, gear, w->workers, w->max_bytes_per_s);
        if (best == GEARS || unit_ns < AS_FAST * best_ns) {
            best = gear, best_ns = unit_ns;
        }
    }
    if (best == GEARS || !usable(c, c->gear)) {
        return c->gear;
    }
    double now_ns = choose_unit_ns(c, c->gear, w->workers, w->max_bytes_per_s);
    return best > c->gear && best_ns > CLEARLY_FASTER * now_ns ? c->gear : best;
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
    bool first = c->since_ns == 0;
    if (!first && c->now_ns - c->since_ns < (int64_t)DWELL_WINDOWS * CHOOSE_WINDOW_NS) {
        return c->gear;
    }
    unsigned gear = decide(c, w);
    if (gear != c->gear || first) {
        c->gear = gear;
        c->since_ns = c->now_ns;
    }
    return c->gear;
}
