#include "migration/forecast.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MS 1e6
static const double PATIENCE_NS = 180e9; /* what takes longer never ends */
static const double TRAIN_OF_CAP_S = 0.015, TRAIN_BYTES_MIN = 256 * 1024;
static const double DIRTY_SPREAD = 0.08, FIXED_SPREAD = 0.2;
static const double FAR = 1.7; /* deviations: one of twenty is farther */

enum { ROUNDS_MAX = 600, OVERRUNS_MAX = 4, LIMIT_MS_MAX = 20000, LINK_STEPS = 44 };
static const double STEP = 1.1;

struct forecaster {
    const struct forecast_input *in;
    struct forecast_run *run;
    double link, dirty, fixed;
    double now_ns, tick_ns, train_ns;
    double life_ms[THROTTLE_HARTS_MAX]; /* of each hart, as far as it was let */
    double pace[THROTTLE_HARTS_MAX];    /* 1: not held */
    double harvested[THROTTLE_HARTS_MAX], held_ns[THROTTLE_HARTS_MAX], touched[THROTTLE_HARTS_MAX];
    double seen_ms[FORECAST_PARTS][THROTTLE_HARTS_MAX]; /* life of each hart when a round came by */
    bool seen[FORECAST_PARTS];
    bool cut;
    struct converge converge;
    struct throttle throttle;
    struct converge_policy policy;
};

/* --- the guest --------------------------------------------------------------------------------------------- */

static double power_between(const struct forecast_input *in, unsigned a, unsigned b, double ms)
{
    double from = fmax(in->curve[a].pages, 1e-3), to = fmax(in->curve[b].pages, from);
    double power = log(to / from) / log(in->curve[b].ms / in->curve[a].ms);
    return from * pow(ms / in->curve[a].ms, fmin(power, 1));
}

double forecast_pages(const struct forecast_input *in, double ms)
{
    unsigned n = in->points;
    double all = in->data_pages + in->zero_pages;
    if (n == 0 || ms <= 0)
        return 0;
    if (ms <= in->curve[0].ms)
        return fmin(in->curve[0].pages * ms / in->curve[0].ms, all);
    for (unsigned i = 1; i < n; i++)
        if (ms <= in->curve[i].ms) {
            double part = (ms - in->curve[i - 1].ms) / (in->curve[i].ms - in->curve[i - 1].ms);
            return fmin(in->curve[i - 1].pages + part * (in->curve[i].pages - in->curve[i - 1].pages), all);
        }
    return fmin(n < 2 ? in->curve[0].pages * ms / in->curve[0].ms : power_between(in, n - 2, n - 1, ms), all);
}

static double dirty_by(const struct forecaster *f, unsigned part, unsigned hart)
{
    double ms = (f->life_ms[hart] - f->seen_ms[part][hart]) * f->dirty;
    return f->in->share[hart] * forecast_pages(f->in, ms) / FORECAST_PARTS;
}

static double dirty_in(const struct forecaster *f, unsigned part)
{
    double pages = 0, all = (f->in->data_pages + f->in->zero_pages) / FORECAST_PARTS;
    if (!f->seen[part])
        return all;
    for (unsigned hart = 0; hart < f->in->harts; hart++)
        pages += dirty_by(f, part, hart);
    return fmin(pages, all);
}

static double dirty_now(const struct forecaster *f)
{
    double pages = 0;
    for (unsigned part = 0; part < FORECAST_PARTS; part++)
        pages += dirty_in(f, part);
    return pages;
}

/* --- holding back -------------------------------------------------------------------------------------------- */

static double fresh_of(const struct forecaster *f, unsigned hart)
{
    double pages = f->harvested[hart];
    for (unsigned part = 0; part < FORECAST_PARTS; part++)
        pages += f->seen[part] ? dirty_by(f, part, hart) : 0;
    return pages;
}

static void tick(struct forecaster *f, double elapsed_ns)
{
    struct quota_stats stats[THROTTLE_HARTS_MAX] = { { 0 } };
    const struct forecast_input *in = f->in;
    double fresh_before[THROTTLE_HARTS_MAX] = { 0 };
    for (unsigned hart = 0; hart < in->harts; hart++) {
        fresh_before[hart] = (double)f->throttle.hart[hart].before.fresh;
        stats[hart].fresh = (uint64_t)fresh_of(f, hart);
        stats[hart].touched = (uint64_t)f->touched[hart];
        stats[hart].held_ns = (uint64_t)f->held_ns[hart];
    }
    struct throttle_need need = {
        .wanted = f->converge.rounds > 0,
        .clear_units_per_s = converge_clear_units_per_s(&f->converge),
        .fit_units = converge_fit_units(&f->converge, &f->policy, &in->believed),
        .left_units = dirty_now(f),
        .share_max = in->share_max,
    };
    f->policy.hurry = throttle_tick(&f->throttle, (int64_t)elapsed_ns, stats, in->harts, &need);
    f->cut = f->policy.hurry && throttle_cuts(&need);
    for (unsigned hart = 0; hart < in->harts; hart++) {
        const struct throttle_order *order = &f->throttle.order[hart];
        double fresh_per_s = ((double)stats[hart].fresh - fresh_before[hart]) * 1e9 / elapsed_ns / f->pace[hart];
        double touch_per_s = f->throttle.hart[hart].touched_per_s;
        f->pace[hart] = 1;
        if (order->pages_per_s > 0 && fresh_per_s > order->pages_per_s && touch_per_s > 0)
            f->pace[hart] = fmin(fmax(order->pages_per_s / fresh_per_s, order->work_per_s / touch_per_s), 1);
        f->pace[hart] = fmax(f->pace[hart], 0.01);
    }
}

/* The guest lives on for so long. */
static void pass(struct forecaster *f, double ns)
{
    const struct forecast_input *in = f->in;
    for (double end_ns = f->now_ns + ns; f->now_ns < end_ns;) {
        double step_ns = fmin(end_ns, f->tick_ns + (double)THROTTLE_TICK_NS) - f->now_ns;
        for (unsigned hart = 0; hart < in->harts; hart++) {
            double most = in->share[hart] * forecast_pages(in, (double)THROTTLE_TICK_NS / MS) /
                          ((double)THROTTLE_TICK_NS / MS); /* distinct pages by ms of a tick */
            f->life_ms[hart] += step_ns / MS * f->pace[hart];
            f->touched[hart] += most * step_ns / MS * f->pace[hart];
            f->held_ns[hart] += step_ns * (1 - f->pace[hart]);
        }
        f->now_ns += fmax(step_ns, 1);
        if (f->now_ns - f->tick_ns >= (double)THROTTLE_TICK_NS) {
            double elapsed_ns = f->now_ns - f->tick_ns;
            f->tick_ns = f->now_ns;
            if (in->auto_converge)
                tick(f, elapsed_ns);
        }
    }
}

/* --- rounds ---------------------------------------------------------------------------------------------------- */

struct sums {
    double data, zero, bytes, wait_ns, cpu_ns;
};

static void send_part(struct forecaster *f, unsigned part, struct sums *sums)
{
    const struct forecast_input *in = f->in;
    double pages = dirty_in(f, part), all = in->data_pages + in->zero_pages;
    bool first = !f->seen[part];
    const struct forecast_link *link = first ? &in->first : &in->later;
    double data = first ? pages * in->data_pages / fmax(all, 1) : pages, zero = pages - data;
    double bytes = data * link->unit_bytes + zero * 0.2;
    double free_ns = (data * link->unit_ns + zero * in->zero_ns) / f->link;
    double cap = (double)f->policy.max_bytes_per_s, ns = cap > 0 ? fmax(free_ns, bytes * 1e9 / cap) : free_ns;
    for (unsigned hart = 0; hart < in->harts; hart++) {
        f->harvested[hart] += first ? 0 : dirty_by(f, part, hart);
        f->seen_ms[part][hart] = f->life_ms[hart];
    }
    f->seen[part] = true;
    pass(f, ns);
    sums->data += data, sums->zero += zero, sums->bytes += bytes;
    sums->wait_ns += ns - free_ns;
    sums->cpu_ns += data * link->cpu_ns;
}

static void one_round(struct forecaster *f)
{
    struct sums sums = { 0 };
    double from_ns = f->now_ns;
    f->cut = false;
    for (unsigned part = 0; part < FORECAST_PARTS && !f->cut; part++)
        send_part(f, part, &sums);
    pass(f, f->in->round_ns * f->fixed);
    struct converge_sample sample = {
        .units_data = (uint64_t)sums.data,
        .units_zero = (uint64_t)sums.zero,
        .wire_bytes = (uint64_t)sums.bytes,
        .elapsed_ns = (int64_t)(f->now_ns - from_ns),
        .rate_wait_ns = (int64_t)sums.wait_ns,
        .cpu_ns = (int64_t)sums.cpu_ns,
        .dirty_units = (uint64_t)dirty_now(f),
    };
    /* Behind rounds that the cap bound, a train without it tells what the link gives. */
    bool capped =
        f->policy.max_bytes_per_s && !f->policy.switchover_bytes_per_s && sample.rate_wait_ns > sample.elapsed_ns / 10;
    double every_ns = (double)converge_train_every_ns((int64_t)f->in->round_ns);
    if (capped && (f->train_ns == 0 || f->now_ns - f->train_ns > every_ns)) {
        double bytes = fmax((double)f->policy.max_bytes_per_s * TRAIN_OF_CAP_S, TRAIN_BYTES_MIN);
        double ns = bytes / fmax(f->in->later.unit_bytes, 1) * f->in->later.unit_ns / f->link;
        converge_train(&f->converge, (uint64_t)bytes, (int64_t)ns);
        pass(f, bytes * 1e9 / (double)f->policy.max_bytes_per_s);
        sample.dirty_units = (uint64_t)dirty_now(f);
        f->train_ns = f->now_ns;
        sums.bytes += bytes;
    }
    converge_add(&f->converge, &sample);
    f->run->wire_bytes += sums.bytes;
    f->run->rounds++;
}

/* The guest stands still; true: it fits what a pause may last at the very most. */
static bool stop(struct forecaster *f)
{
    const struct converge_costs *real = &f->in->real;
    double pages = dirty_now(f);
    double ns =
        f->fixed * ((double)real->pause_ns + f->in->round_ns + (double)real->device_ns + (double)real->handover_ns) +
        pages * f->in->later.unit_ns / f->link;
    struct converge_policy policy = f->policy;
    policy.downtime_limit_ns = converge_limit_ns(&f->converge, policy.downtime_limit_ns);
    int64_t overrun_ns = converge_overrun_ns(&policy);
    if (overrun_ns != INT64_MAX && ns > (double)overrun_ns) {
        f->now_ns += (double)overrun_ns;
        converge_learn(&f->converge, (int64_t)(f->run->predicted_ms * MS), overrun_ns);
        f->run->overruns++;
        return false;
    }
    f->now_ns += ns;
    f->run->pause_ms = ns / MS;
    f->run->wire_bytes += pages * f->in->later.unit_bytes;
    return true;
}

static void begin(struct forecaster *f, const struct forecast_input *in, struct forecast_run *run)
{
    *f = (struct forecaster){ .in = in, .run = run, .policy = in->policy };
    *run = (struct forecast_run){ .kept = 1 };
    converge_init(&f->converge);
    f->converge.bias = in->bias > 0 ? in->bias : 1;
    throttle_init(&f->throttle, NULL, 0);
    for (unsigned hart = 0; hart < in->harts; hart++)
        f->pace[hart] = 1;
}

void forecast_play(const struct forecast_input *in, double link, double dirty, double fixed, struct forecast_run *out)
{
    struct forecaster *f = malloc(sizeof(*f));
    if (!f) {
        *out = (struct forecast_run){ .reason = "no memory" };
        return;
    }
    begin(f, in, out);
    f->link = link, f->dirty = dirty, f->fixed = fixed;
    out->reason = "the guest dirties memory as fast as it is sent";
    while (!out->ends && f->now_ns < PATIENCE_NS && out->rounds < ROUNDS_MAX) {
        one_round(f);
        struct converge_verdict verdict = converge_decide(&f->converge, &f->policy, &in->believed);
        out->predicted_ms = (double)verdict.predicted_ns / MS;
        if (verdict.action == CONVERGE_SWITCH_OVER) {
            out->ends = stop(f);
            if (!out->ends && out->overruns > OVERRUNS_MAX) {
                out->reason = "the pause overruns its limit again and again";
                break;
            }
        } else if (verdict.action == CONVERGE_GIVE_UP) {
            out->reason = verdict.reason;
            break;
        } else {
            out->reason = verdict.reason;
            pass(f, (double)verdict.wait_ns);
        }
    }
    if (out->ends)
        out->reason = "the pause fits its limit";
    for (unsigned hart = 0; hart < in->harts && f->now_ns > 0; hart++)
        out->kept = fmin(out->kept, 1 - f->held_ns[hart] / f->now_ns);
    out->total_ms = f->now_ns / MS;
    free(f);
}

/* --- bands ------------------------------------------------------------------------------------------------------ */

/* About a standard normal, the same ones every time. */
static double deviation(uint64_t *random)
{
    double sum = -6;
    for (int i = 0; i < 12; i++) {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        sum += (double)(*random >> 11) / 9007199254740992.0;
    }
    return sum;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct forecast_band band_of(double *value, unsigned n)
{
    if (n == 0)
        return (struct forecast_band){ 0 };
    qsort(value, n, sizeof(*value), by_value);
    return (struct forecast_band){ value[n / 2], value[(n * 9 + 9) / 10 - 1] };
}

void forecast_make(const struct forecast_input *in, struct forecast *out)
{
    double total[FORECAST_RUNS], pause[FORECAST_RUNS], wire[FORECAST_RUNS];
    struct forecast_run run, middle;
    uint64_t random = 88172645463325252;
    unsigned n = 0;
    forecast_play(in, 1, 1, 1, &middle);
    for (unsigned i = 0; i < FORECAST_RUNS; i++) {
        double link = exp(deviation(&random) * in->spread), dirty = exp(deviation(&random) * DIRTY_SPREAD);
        forecast_play(in, link, dirty, exp(deviation(&random) * FIXED_SPREAD), &run);
        if (run.ends)
            total[n] = run.total_ms, pause[n] = run.pause_ms, wire[n++] = run.wire_bytes;
        else if (middle.ends)
            middle.reason = run.reason;
    }
    *out = (struct forecast){
        .ends_of = (double)n / FORECAST_RUNS,
        .ends = n * 10 >= FORECAST_RUNS * 9,
        .reason = middle.reason,
        .total_ms = band_of(total, n),
        .pause_ms = band_of(pause, n),
        .wire_bytes = band_of(wire, n),
        .predicted_ms = middle.predicted_ms,
        .kept = middle.kept,
        .rounds = middle.rounds,
    };
}

/* --- advice ----------------------------------------------------------------------------------------------------- */

static bool ends(const struct forecast_input *in, struct forecast_run *then)
{
    struct forecast_run worse;
    forecast_play(in, 1, 1, 1, then);
    if (!then->ends)
        return false;
    /* Not by a hair's breadth: nine of ten are to end. */
    forecast_play(in, exp(-FAR * in->spread), exp(FAR * DIRTY_SPREAD), exp(FIXED_SPREAD), &worse);
    return worse.ends;
}

static bool try_codecs(const struct forecast_input *in, struct forecast_advice *advice)
{
    struct forecast_input other = *in;
    for (unsigned i = 0; i < in->codecs; i++) {
        other.later = other.first = in->codec[i].later;
        if (ends(&other, &advice->then)) {
            advice->change = CHANGE_CODEC;
            advice->codec = in->codec[i].name;
            return true;
        }
    }
    return false;
}

static double link_bytes_per_s(const struct forecast_input *in)
{
    return in->later.unit_ns > 0 ? in->later.unit_bytes * 1e9 / in->later.unit_ns : 0;
}

/* A higher cap, as far as this link goes; 0 for none. */
static bool try_caps(const struct forecast_input *in, struct forecast_advice *advice)
{
    struct forecast_input other = *in;
    double most = link_bytes_per_s(in), cap = (double)in->policy.max_bytes_per_s;
    advice->change = CHANGE_CAP;
    while (cap > 0 && other.policy.max_bytes_per_s) {
        cap *= STEP;
        other.policy.max_bytes_per_s = cap < most ? (uint64_t)cap : 0;
        advice->value = (double)other.policy.max_bytes_per_s;
        if (ends(&other, &advice->then))
            return true;
    }
    return false;
}

/* A faster link: all that is spent on a page but what the processors do. */
static bool try_links(const struct forecast_input *in, struct forecast_advice *advice)
{
    struct forecast_input other = *in;
    unsigned workers = in->policy.workers ? in->policy.workers : 1;
    double factor = 1;
    advice->change = CHANGE_LINK;
    other.policy.max_bytes_per_s = 0;
    for (int i = 0; i < LINK_STEPS; i++) {
        factor *= STEP;
        other.first.unit_ns = fmax(in->first.unit_ns / factor, in->first.cpu_ns / workers);
        other.later.unit_ns = fmax(in->later.unit_ns / factor, in->later.cpu_ns / workers);
        advice->value = link_bytes_per_s(&other);
        if (ends(&other, &advice->then))
            return true;
    }
    return false;
}

static bool try_limits(const struct forecast_input *in, struct forecast_advice *advice)
{
    struct forecast_input other = *in;
    double ms = fmax((double)in->policy.downtime_limit_ns / MS, 1);
    advice->change = CHANGE_LIMIT;
    while (ms < LIMIT_MS_MAX) {
        ms *= 1.15;
        double round = ms < 20 ? 1 : ms < 200 ? 10 : 50;
        advice->value = ceil(ms / round) * round;
        other.policy.downtime_limit_ns = (int64_t)(advice->value * MS);
        if (ends(&other, &advice->then))
            return true;
    }
    return false;
}

static bool try_quotas(const struct forecast_input *in, struct forecast_advice *advice)
{
    static const unsigned char percents[] = { 50, 60, 70, 80, 90, 95 };
    struct forecast_input other = *in;
    other.auto_converge = true;
    advice->change = CHANGE_QUOTA;
    for (unsigned hart = 1; hart < in->harts; hart++)
        advice->hart = in->share[hart] > in->share[advice->hart] ? hart : advice->hart;
    advice->pages_per_s = in->share[advice->hart] * forecast_pages(in, 1000);
    for (unsigned i = 0; i < sizeof(percents); i++) {
        if (in->auto_converge && percents[i] <= in->share_max * 100 + 0.5)
            continue; /* it is allowed already */
        other.share_max = percents[i] / 100.0;
        advice->value = percents[i];
        if (ends(&other, &advice->then))
            return true;
    }
    return false;
}

unsigned forecast_advise(const struct forecast_input *in, struct forecast_advice out[FORECAST_ADVICE_MAX])
{
    bool (*const tries[])(const struct forecast_input *, struct forecast_advice *) = { try_codecs, try_caps, try_links,
                                                                                       try_limits, try_quotas };
    unsigned n = 0;
    for (unsigned i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
        out[n] = (struct forecast_advice){ 0 };
        bool link = tries[i] == try_links, cap_helps = n > 0 && out[n - 1].change == CHANGE_CAP;
        if (!(link && cap_helps) && tries[i](in, &out[n]))
            n++;
    }
    return n;
}
