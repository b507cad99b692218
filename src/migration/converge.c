#include "migration/converge.h"

#include <math.h>
#include <string.h>

#define MS INT64_C(1000000)

enum {
    WINDOW = 4,              /* rounds that speak for what is left: the newest, they had the hottest pages */
    TRAIN_BYTES_MIN = 65536, /* a shorter train measures the clock, not the link */
    STALL_ROUNDS = 5,
    SPIN_NS = 20 * 1000000,           /* rounds shorter than this and without progress are slowed down to it */
    EXTRA_ROUNDS = 5,                 /* rounds that may still be spent after the limit fits */
    OVERRUN_SLACK_NS = 100 * 1000000, /* a host that is busy for a moment is no reason to throw a pause away */
};
static const double EXTRA_SHARE = 0.15; /* and so much of the time that it took to fit */
static const double KEEP_SHARE = 0.85;
static const double ZERO_COSTS = 1.0 / 64;
static const double LINE_MIN = 0.05; /* variance of rounds' sizes over their mean square */
static const double TRAIN_WEIGHT = 0.4;
static const double TRAIN_SHARE = 0.02; /* of the time, may be lost by trains */
static const int64_t TRAIN_EVERY_NS = 700 * MS;
static const double CAP_BINDS = 0.1;    /* of a round's time spent waiting for the cap */
static const double SPREAD_MIN = 0.15;  /* no measurement is better than this */
static const double SPREAD_FIRST = 0.3; /* before there are rounds to compare */
static const double FIXED_SPREAD = 0.25;
static const double PROGRESS = 0.04; /* a pause that is shorter by less is noise */
static const double ACCEPT_MORE =
    1.05; /* the best pause was luck: with every round that is worse, a longer one is accepted */
static const double ACCEPT_MOST = 2.0; /* times the best; a guest that has become busier than that is not moved by it */
static const double BIAS_GAIN = 0.5, BIAS_MIN = 0.5, BIAS_MAX = 4.0;
static const double BIAS_FORGET_NS = 4e9; /* half of it: one pause that went wrong must not forbid the next for ever */

void converge_init(struct converge *c)
{
    memset(c, 0, sizeof(*c));
    c->bias = 1.0;
    c->best_ns = c->best_upper_ns = INT64_MAX;
}

void converge_costs_init(struct converge_costs *costs)
{
    *costs =
        (struct converge_costs){ .pause_ns = 1 * MS, .round_ns = 1 * MS, .device_ns = 1 * MS, .handover_ns = 3 * MS };
}

void converge_add(struct converge *c, const struct converge_sample *sample)
{
    c->sample[c->rounds % CONVERGE_HISTORY] = *sample;
    c->rounds++;
    c->elapsed_ns += sample->elapsed_ns;
    c->stalled_ns += sample->elapsed_ns + c->wait_ns;
    c->wait_ns = 0;
    if (c->trip_ns) /* an upper bound on it; by itself, with all that it sent, it is no measurement */
        converge_trip(c, sample->elapsed_ns);
    c->bias = 1 + (c->bias - 1) * exp2(-(double)sample->elapsed_ns / BIAS_FORGET_NS);
}

void converge_trip(struct converge *c, int64_t elapsed_ns)
{
    if (elapsed_ns > 0 && (c->trip_ns == 0 || elapsed_ns < c->trip_ns))
        c->trip_ns = elapsed_ns;
}

void converge_burst(struct converge *c, uint64_t bytes, int64_t elapsed_ns)
{
    if (bytes < TRAIN_BYTES_MIN || elapsed_ns <= 0)
        return;
    double rate = (double)bytes * 1e9 / (double)elapsed_ns;
    if (rate > c->burst_bytes_per_s)
        c->burst_bytes_per_s = rate;
}

void converge_train(struct converge *c, uint64_t bytes, int64_t elapsed_ns)
{
    if (bytes < TRAIN_BYTES_MIN || elapsed_ns <= 0)
        return;
    double rate = (double)bytes * 1e9 / (double)elapsed_ns;
    if (c->train_bytes_per_s <= 0) {
        c->train_bytes_per_s = rate;
        c->train_spread = SPREAD_FIRST;
        return;
    }
    c->train_spread += (fabs(rate / c->train_bytes_per_s - 1) - c->train_spread) * TRAIN_WEIGHT;
    c->train_bytes_per_s += (rate - c->train_bytes_per_s) * TRAIN_WEIGHT;
}

static unsigned window_of(const struct converge *c)
{
    return c->rounds < WINDOW ? (unsigned)c->rounds : WINDOW;
}

static const struct converge_sample *nth_newest(const struct converge *c, unsigned n)
{
    return &c->sample[(c->rounds - 1 - n) % CONVERGE_HISTORY];
}

/* In units of those with data: the others cost next to nothing, and what is left was written a moment ago. */
static double units_of(const struct converge_sample *s)
{
    return (double)s->units_data + (double)s->units_zero * ZERO_COSTS;
}

struct fit {
    double units, wire_bytes, busy_ns, elapsed_ns, wait_ns, cpu_ns;
    double unit_ns, empty_ns; /* a round's time is empty_ns + units * unit_ns, outside the cap's waits */
    double spread;            /* relative deviation of rounds from that line */
};

static double busy_ns(const struct converge_sample *s)
{
    return fmax((double)(s->elapsed_ns - s->rate_wait_ns), 1);
}

/* A round has a cost of its own (harvest, mark, round trip) and a cost per unit. Both come from a line through the
 * newest rounds, weighted so that every round's error counts relative to its length: rounds shrink by orders of
 * magnitude, and what is asked is about the small end. */
static void fit_line(const struct converge *c, struct fit *fit)
{
    double w = 0, wu = 0, wuu = 0, we = 0, wue = 0;
    for (unsigned i = 0; i < window_of(c); i++) {
        double u = units_of(nth_newest(c, i)), e = busy_ns(nth_newest(c, i)), weight = 1 / (e * e);
        w += weight, wu += weight * u, wuu += weight * u * u, we += weight * e, wue += weight * u * e;
    }
    double determinant = w * wuu - wu * wu;
    fit->unit_ns = fit->busy_ns / fit->units;
    fit->empty_ns = 0;
    if (window_of(c) < 2 || determinant < LINE_MIN * w * wuu)
        return; /* about one size only: no line to draw, blame the units for all of it */
    double slope = (w * wue - wu * we) / determinant, base = (we - slope * wu) / w;
    if (slope <= 0)
        return;
    fit->unit_ns = base >= 0 ? slope : wue / wuu;
    fit->empty_ns = fmax(base, 0);
}

static struct fit fit_window(const struct converge *c)
{
    struct fit fit = { 0 };
    for (unsigned i = 0; i < window_of(c); i++) {
        const struct converge_sample *s = nth_newest(c, i);
        fit.units += units_of(s);
        fit.wire_bytes += (double)s->wire_bytes;
        fit.busy_ns += busy_ns(s);
        fit.elapsed_ns += (double)s->elapsed_ns;
        fit.wait_ns += (double)s->rate_wait_ns;
        fit.cpu_ns += (double)s->cpu_ns;
    }
    fit.spread = SPREAD_FIRST;
    if (fit.units < 1)
        return fit;
    fit_line(c, &fit);
    double squares = 0;
    for (unsigned i = 0; i < window_of(c); i++) {
        const struct converge_sample *s = nth_newest(c, i);
        double off = (fit.empty_ns + units_of(s) * fit.unit_ns) / busy_ns(s) - 1;
        squares += off * off;
    }
    double least = window_of(c) < 3 ? SPREAD_FIRST : SPREAD_MIN;
    fit.spread = fmin(fmax(sqrt(squares / window_of(c)), least), 1.0);
    return fit;
}

static bool capped(const struct converge_policy *policy, const struct fit *fit)
{
    return policy->max_bytes_per_s && fit->wait_ns > CAP_BINDS * fit->elapsed_ns;
}

static double spread_of(const struct converge *c, const struct converge_policy *policy, const struct fit *fit)
{
    bool trains = c->train_bytes_per_s > 0 && !policy->switchover_bytes_per_s && capped(policy, fit);
    return trains ? fmin(fmax(c->train_spread, SPREAD_MIN), 1.0) : fit->spread;
}

static double unit_ns(const struct converge *c, const struct converge_policy *policy, const struct fit *fit)
{
    if (fit->units < 1)
        return 0;
    double wire_bytes = fit->wire_bytes / fit->units;
    double cpu_ns = fit->cpu_ns / fit->units / (policy->workers ? policy->workers : 1);
    if (policy->switchover_bytes_per_s)
        return fmax(wire_bytes * 1e9 / (double)policy->switchover_bytes_per_s, cpu_ns);

    if (!capped(policy, fit))
        return fit->unit_ns;
    double rate = c->train_bytes_per_s > 0 ? c->train_bytes_per_s : c->burst_bytes_per_s;
    if (rate <= 0) /* no train was long enough: what went out while the cap did not bind */
        rate = fit->busy_ns > 0 ? fit->wire_bytes * 1e9 / fit->busy_ns : 0;
    rate = fmax(rate, (double)policy->max_bytes_per_s); /* the link has carried the cap */
    return fmax(wire_bytes * 1e9 / rate, cpu_ns);
}

double converge_unit_ns(const struct converge *c, const struct converge_policy *policy)
{
    struct fit fit = fit_window(c);
    return unit_ns(c, policy, &fit);
}

/* An empty round waits for one round trip as well, where rounds have shown how long it takes. */
static double fixed_ns_of(const struct converge *c, const struct converge_costs *costs, const struct fit *fit)
{
    return (double)(costs->pause_ns + costs->device_ns + costs->handover_ns + c->trip_ns) +
           fmax((double)(costs->round_ns + c->trip_ns), fit->empty_ns);
}

int64_t converge_limit_ns(const struct converge *c, int64_t downtime_limit_ns)
{
    return c->accepted_ns > downtime_limit_ns ? c->accepted_ns : downtime_limit_ns;
}

double converge_fit_units(const struct converge *c, const struct converge_policy *policy,
                          const struct converge_costs *costs)
{
    if (c->rounds == 0)
        return 0;
    struct fit fit = fit_window(c);
    double each_ns = unit_ns(c, policy, &fit) * (1 + spread_of(c, policy, &fit));
    double left_ns = (double)converge_limit_ns(c, policy->downtime_limit_ns) / c->bias -
                     fixed_ns_of(c, costs, &fit) * (1 + FIXED_SPREAD);
    return left_ns > 0 && each_ns > 0 ? left_ns / each_ns : 0;
}

int64_t converge_train_every_ns(int64_t lost_ns)
{
    double every_ns = (double)lost_ns / TRAIN_SHARE;

    return every_ns > (double)TRAIN_EVERY_NS ? (int64_t)fmin(every_ns, 9e18) : TRAIN_EVERY_NS;
}

double converge_keep_units(const struct converge *c, const struct converge_policy *policy,
                           const struct converge_costs *costs)
{
    double fit = c->rounds && !policy->guest_paused ? converge_fit_units(c, policy, costs) : 0;

    return fit > 0 && (double)nth_newest(c, 0)->dirty_units > fit ? fit * KEEP_SHARE : 0;
}

double converge_clear_units_per_s(const struct converge *c)
{
    if (c->rounds == 0 || nth_newest(c, 0)->elapsed_ns <= 0)
        return 0;
    return (double)nth_newest(c, 0)->units_data * 1e9 / (double)nth_newest(c, 0)->elapsed_ns;
}

static bool asks_the_same(const struct converge_policy *a, const struct converge_policy *b)
{
    return a->downtime_limit_ns == b->downtime_limit_ns && a->max_bytes_per_s == b->max_bytes_per_s &&
           a->switchover_bytes_per_s == b->switchover_bytes_per_s && a->on_stall == b->on_stall &&
           a->holds_more == b->holds_more;
}

/* Rounds and time since a better pause was foreseen than ever before. */
static void watch_progress(struct converge *c, const struct converge_policy *policy,
                           const struct converge_verdict *verdict)
{
    if (!asks_the_same(&c->asked, policy)) {
        c->best_ns = c->best_upper_ns = INT64_MAX;
        c->accepted_ns = 0;
        c->asked = *policy;
    }
    c->best_upper_ns = verdict->upper_ns < c->best_upper_ns ? verdict->upper_ns : c->best_upper_ns;
    if ((double)verdict->predicted_ns < (double)c->best_ns * (1 - PROGRESS) || policy->holds_more) {
        c->stalled_rounds = 0;
        c->stalled_ns = 0;
    } else {
        c->stalled_rounds++;
    }
    if (c->stalled_rounds == 0) {
        c->best_ns = verdict->predicted_ns;
        c->best = verdict->parts;
        c->best_units = nth_newest(c, 0)->dirty_units;
    }
}

static bool stall_ends_it(const struct converge *c, const struct converge_policy *policy)
{
    return policy->on_stall != CONVERGE_STALL_CONTINUE && !policy->guest_paused &&
           c->stalled_rounds >= policy->stall_rounds && c->stalled_ns >= policy->stall_ns;
}

static struct converge_verdict again(struct converge *c, struct converge_verdict verdict, const char *reason)
{
    c->wait_ns = verdict.wait_ns;
    verdict.action = CONVERGE_AGAIN;
    verdict.reason = reason;
    return verdict;
}

/* The limit fits. Is another round worth it all the same? Only while what is left halves from round to round, while
 * memory is a good part of the pause, and while all that is spent on it is little beside what was spent so far: what fits
 * now may not fit then. */
static bool worth_another(const struct converge *c, const struct converge_policy *policy, double ram_ns,
                          double fixed_ns)
{
    const struct converge_sample *last = nth_newest(c, 0);
    if (c->rounds > EXTRA_ROUNDS || policy->guest_paused || policy->hurry)
        return false;
    double before = c->rounds > 1 ? (double)nth_newest(c, 1)->dirty_units : units_of(last);
    bool halves = (double)last->dirty_units * 2 < fmin(before, units_of(last));
    double next_ns = (double)last->dirty_units * (double)last->elapsed_ns / fmax(units_of(last), 1);
    double spent_ns = (double)(c->elapsed_ns - c->fits_at_ns);
    return halves && ram_ns > fixed_ns / 2 && spent_ns + next_ns <= (double)c->fits_at_ns * EXTRA_SHARE;
}

struct converge_verdict converge_decide(struct converge *c, const struct converge_policy *policy,
                                        const struct converge_costs *costs)
{
    struct converge_verdict verdict = { 0 };
    if (c->rounds == 0)
        return again(c, verdict, "nothing was sent yet");

    const struct converge_sample *last = nth_newest(c, 0);
    struct fit fit = fit_window(c);
    double ram_ns = (double)last->dirty_units * unit_ns(c, policy, &fit);
    double fixed_ns = fixed_ns_of(c, costs, &fit);
    double predicted = c->bias * (ram_ns + fixed_ns);
    double spread = spread_of(c, policy, &fit);
    double upper = c->bias * (ram_ns * (1 + spread) + fixed_ns * (1 + FIXED_SPREAD));
    double lower = c->bias * (ram_ns * (1 - spread) + fixed_ns * (1 - FIXED_SPREAD));
    verdict.predicted_ns = (int64_t)fmin(predicted, 9e18);
    verdict.upper_ns = (int64_t)fmin(upper, 9e18);
    verdict.lower_ns = (int64_t)fmin(lower, 9e18);

    double trips_ns = fmin(2 * (double)c->trip_ns, fixed_ns);
    verdict.parts = (struct converge_parts){ .ram_ns = (int64_t)fmin(c->bias * ram_ns, 9e18),
                                             .trips_ns = (int64_t)(c->bias * trips_ns),
                                             .fixed_ns = (int64_t)(c->bias * (fixed_ns - trips_ns)) };
    watch_progress(c, policy, &verdict);
    verdict.stalled = c->stalled_rounds >= STALL_ROUNDS;

    int64_t limit_ns = converge_limit_ns(c, policy->downtime_limit_ns);
    bool fits = verdict.upper_ns <= limit_ns || (policy->guest_paused && last->dirty_units == 0);
    if (fits && !c->fits_at_ns)
        c->fits_at_ns = c->elapsed_ns;
    if (fits && !worth_another(c, policy, ram_ns, fixed_ns)) {
        verdict.action = CONVERGE_SWITCH_OVER;
        verdict.reason = verdict.upper_ns <= policy->downtime_limit_ns || policy->guest_paused
                             ? "the pause fits its limit"
                             : "no better pause is to be had";
        return verdict;
    }
    if (!fits && policy->max_rounds && c->rounds >= policy->max_rounds) {
        verdict.action = CONVERGE_GIVE_UP;
        verdict.reason = "max-rounds did not bring the pause under its limit";
        return verdict;
    }
    if (!fits && stall_ends_it(c, policy)) {
        if (policy->on_stall == CONVERGE_STALL_GIVE_UP) {
            verdict.action = CONVERGE_GIVE_UP;
            verdict.by_policy = true;
            verdict.reason = "rounds no longer make the pause shorter";
            return verdict;
        }
        double more = c->accepted_ns ? (double)c->accepted_ns * ACCEPT_MORE : (double)c->best_upper_ns;
        c->accepted_ns = (int64_t)fmin(more, fmin(ACCEPT_MOST * (double)c->best_upper_ns, 9e18));
    }
    if (!fits && c->stalled_rounds && last->elapsed_ns < SPIN_NS)
        verdict.wait_ns = SPIN_NS - last->elapsed_ns;
    if (fits)
        return again(c, verdict, "the pause fits, and another round halves it");
    if ((double)policy->downtime_limit_ns < fixed_ns)
        return again(c, verdict, "the downtime limit is below what any pause costs");
    return again(c, verdict, verdict.stalled ? "the guest dirties memory as fast as it is sent" : "too much is left");
}

int64_t converge_overrun_ns(const struct converge_policy *policy)
{
    if (policy->guest_paused || policy->downtime_limit_ns > INT64_MAX / 2 - OVERRUN_SLACK_NS)
        return INT64_MAX;
    return 2 * policy->downtime_limit_ns + OVERRUN_SLACK_NS;
}

void converge_learn(struct converge *c, int64_t predicted_ns, int64_t measured_ns)
{
    if (predicted_ns <= 0 || measured_ns <= 0)
        return;
    double ratio = c->bias * (double)measured_ns / (double)predicted_ns;
    c->bias += BIAS_GAIN * (ratio - c->bias);
    c->bias = fmin(fmax(c->bias, BIAS_MIN), BIAS_MAX);
}
