#include "migration/eta.h"

#include <math.h>
#include <stdio.h>

enum { ROUNDS_MAX = 400, STUCK_ROUNDS = 3 };     /* more rounds than that cannot be told from never */
static const double NEVER_NS = 30 * 24 * 3600e9; /* nobody waits for a month */
static const double SHRINKS = 0.98; /* a round that leaves more than this of the one before is no progress */
static const double SPREAD_LEAST = 0.1, SPREAD_MOST = 1;
static const double UNITS_MOST = 1e15;

static double sane(double value, double most)
{
    return value > 0 ? fmin(value, most) : 0; /* nor is a NaN greater than 0 */
}

void eta_learn(struct eta_model *model, double elapsed_ns, double units)
{
    elapsed_ns = sane(elapsed_ns, NEVER_NS);
    units = sane(units, UNITS_MOST);
    if (elapsed_ns <= 0)
        return;
    if (model->points == 0 || elapsed_ns >= model->curve[0].elapsed_ns) {
        double longest_ns = model->curve[0].elapsed_ns, then = model->curve[0].units;
        model->curve[0].elapsed_ns = elapsed_ns;
        model->curve[0].units = units;
        if (model->points++ == 0)
            return;
        model->points--;
        elapsed_ns = longest_ns;
        units = then;
    }
    for (unsigned i = ETA_CURVE_MAX - 1; i > 1; i--)
        model->curve[i] = model->curve[i - 1];
    model->curve[1].elapsed_ns = elapsed_ns;
    model->curve[1].units = units;
    model->points += model->points < ETA_CURVE_MAX;
}

/* How many distinct units a time dirties rises with it, ever slower. So a time shorter than all that were seen dirties its share of
 * the shortest, one longer than all as many as the longest; between two the curve is a power of time, below 1. */
static double dirtied_in(const struct eta_model *model, double elapsed_ns)
{
    double from_ns = 0, from = 0, to_ns = INFINITY, to = 0;
    for (unsigned i = 0; i < model->points; i++) {
        double at_ns = model->curve[i].elapsed_ns, units = model->curve[i].units;
        if (at_ns <= elapsed_ns && at_ns >= from_ns) {
            from_ns = at_ns;
            from = units;
        } else if (at_ns > elapsed_ns && at_ns < to_ns) {
            to_ns = at_ns;
            to = units;
        }
    }
    if (isinf(to_ns))
        return from;
    double share = to * elapsed_ns / to_ns;
    if (from < 1 || to <= from)
        return fmax(from, share);
    return fmax(from * pow(elapsed_ns / from_ns, fmin(log(to / from) / log(to_ns / from_ns), 1)), share);
}

/* Until the guest runs there; NEVER_NS: never, and *reason says why. `worse`: everything is off by so much. */
static double play(const struct eta_model *model, const struct eta_position *at, double worse, const char **reason)
{
    double unit_ns = sane(model->unit_ns, NEVER_NS) * worse, left = sane(at->left_units, UNITS_MOST);
    double round_ns = sane(at->elapsed_ns, NEVER_NS), total_ns = 0;
    unsigned stuck = 0;
    for (uint64_t round = 0; round < ROUNDS_MAX; round++) {
        total_ns += left * unit_ns;
        round_ns += left * unit_ns;
        double next = model->paused ? 0 : dirtied_in(model, round_ns) * worse;
        if (next <= sane(model->fit_units, UNITS_MOST) || model->paused)
            return fmin(total_ns + sane(model->pause_ns, NEVER_NS) * worse, NEVER_NS);
        if (round >= model->rounds_left) {
            *reason = "max-rounds will end it before the pause fits its limit";
            return NEVER_NS;
        }
        stuck = next > left * SHRINKS ? stuck + 1 : 0;
        if (stuck > STUCK_ROUNDS || total_ns >= NEVER_NS)
            break;
        left = next;
        round_ns = 0;
    }
    *reason = "the guest dirties memory as fast as it is sent";
    return NEVER_NS;
}

static struct eta unknown(const char *reason, double round_ns)
{
    return (struct eta){ .reason = reason, .round_ns = (int64_t)fmin(round_ns, NEVER_NS) };
}

static struct eta forecast(const struct eta_model *model, const struct eta_position *at)
{
    double left_ns = sane(at->left_units, UNITS_MOST) * sane(model->unit_ns, NEVER_NS);
    if (sane(model->unit_ns, NEVER_NS) <= 0)
        return unknown("nothing was measured yet", 0);
    if (model->points == 0 && !model->paused)
        return unknown("what the guest dirties shows when the first round is over", left_ns);

    if (sane(model->fit_units, UNITS_MOST) <= 0 && !model->paused)
        return (struct eta){ .kind = ETA_NEVER, .reason = "the downtime limit is below what any pause costs" };

    double spread = fmin(fmax(sane(model->spread, SPREAD_MOST), SPREAD_LEAST), SPREAD_MOST);
    const char *reason = NULL, *maybe = NULL;
    double p50_ns = play(model, at, 1, &reason), p90_ns = play(model, at, 1 + spread, &maybe);
    if (p50_ns >= NEVER_NS && model->holding)
        return unknown("vCPUs are being held back, what that brings shows in the next rounds", left_ns);
    if (p50_ns >= NEVER_NS)
        return (struct eta){ .kind = ETA_NEVER, .reason = reason ? reason : "it would take more than a month" };
    return (struct eta){
        .kind = ETA_KNOWN,
        .p50_ns = (int64_t)p50_ns,
        .p90_ns = p90_ns >= NEVER_NS ? INT64_MAX : (int64_t)fmax(p50_ns, p90_ns),
    };
}

void eta_settle(struct eta_model *model, const struct eta_position *at)
{
    if (forecast(model, at).kind != ETA_NEVER)
        model->never_rounds = 0;
    else if (model->never_rounds < ETA_NEVER_ROUNDS)
        model->never_rounds++;
}

struct eta eta_forecast(const struct eta_model *model, const struct eta_position *at)
{
    struct eta eta = forecast(model, at);
    if (eta.kind == ETA_NEVER && model->never_rounds < ETA_NEVER_ROUNDS)
        return unknown("as the last round went it would not end, some more will show", 0);
    return eta;
}

/* --- for people ----------------------------------------------------------------------------------------- */

struct scale {
    double ns;
    const char *unit;
};

static struct scale scale_of(double ns)
{
    if (ns < 1e9)
        return (struct scale){ 1e6, "ms" };
    return ns < 180e9 ? (struct scale){ 1e9, "s" } : (struct scale){ 60e9, "min" };
}

static int places(double value)
{
    return value < 10 ? 1 : 0;
}

void eta_text(const struct eta *eta, char out[ETA_TEXT_MAX])
{
    if (eta->kind == ETA_NEVER) {
        snprintf(out, ETA_TEXT_MAX, "never at this rate (%s)", eta->reason);
    } else if (eta->kind == ETA_UNKNOWN && eta->round_ns > 0) {
        struct scale scale = scale_of((double)eta->round_ns);
        double more = (double)eta->round_ns / scale.ns;
        snprintf(out, ETA_TEXT_MAX, "unknown, this round %.*f %s more (%s)", places(more), more, scale.unit,
                 eta->reason);
    } else if (eta->kind == ETA_UNKNOWN) {
        snprintf(out, ETA_TEXT_MAX, "unknown (%s)", eta->reason);
    } else if (eta->p90_ns == INT64_MAX) {
        struct scale scale = scale_of((double)eta->p50_ns);
        double low = (double)eta->p50_ns / scale.ns;
        snprintf(out, ETA_TEXT_MAX, "%.*f %s or much longer", places(low), low, scale.unit);
    } else {
        struct scale scale = scale_of((double)eta->p90_ns);
        double low = (double)eta->p50_ns / scale.ns, high = (double)eta->p90_ns / scale.ns;
        snprintf(out, ETA_TEXT_MAX, "%.*f to %.*f %s", places(high), low, places(high), high, scale.unit);
    }
}
