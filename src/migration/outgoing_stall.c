/* A migration that cannot keep its limit ends with a sentence: what is missing, and the cheapest change that would do. The
 * changes are tried as a plan tries them (forecast.h), on what the rounds have shown. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "migration/forecast.h"
#include "migration/outgoing.h"

enum { WORDS_MAX = 160, MISSING_MAX = 160 };
static const double SPREAD = 0.15;                /* of what rounds show of a link */
static const int64_t TRY_STALL_NS = 2 * NS_PER_S; /* on paper nobody has to be waited for */

static double ms_of(int64_t ns)
{
    return (double)ns / NS_PER_MS;
}

/* --- what is missing -------------------------------------------------------------------------------------------- */

/* The parts of the best pause that was foreseen, the largest first. */
static void missing(const struct converge *c, char out[MISSING_MAX])
{
    struct {
        double ms;
        const char *what;
    } part[] = { { ms_of(c->best.ram_ns), "memory that is dirtied again" },
                 { ms_of(c->best.trips_ns), "round trips" },
                 { ms_of(c->best.fixed_ns), "stopping, devices and start" } };
    enum { PARTS = sizeof(part) / sizeof(part[0]) };

    for (unsigned i = 0; i + 1 < PARTS; i++)
        for (unsigned j = i + 1; j < PARTS; j++)
            if (part[j].ms > part[i].ms) {
                double ms = part[i].ms;
                const char *what = part[i].what;
                part[i] = part[j];
                part[j].ms = ms;
                part[j].what = what;
            }
    int used = snprintf(out, MISSING_MAX, "%s %.0f ms of it", part[0].what, part[0].ms);
    for (unsigned i = 1; i < PARTS && used < MISSING_MAX; i++)
        if (part[i].ms >= 0.5)
            used += snprintf(out + used, (size_t)(MISSING_MAX - used), ", %s %.0f", part[i].what, part[i].ms);
}

/* --- what would help -------------------------------------------------------------------------------------------- */

/* W(t) from the rounds that are known: their time, and what was dirty behind them. Held vCPUs lived so much slower. */
static void take_curve(const struct outgoing *o, double pace, struct forecast_input *in)
{
    const struct converge *c = &o->converge;
    unsigned known = c->rounds < CONVERGE_HISTORY ? (unsigned)c->rounds : CONVERGE_HISTORY;

    for (unsigned i = 0; i < known && in->points < FORECAST_POINTS; i++) {
        double ms = ms_of(c->sample[i].elapsed_ns) * pace, pages = (double)c->sample[i].dirty_units;
        unsigned at = in->points;
        if (ms <= 0)
            continue;
        for (; at > 0 && in->curve[at - 1].ms > ms; at--)
            in->curve[at] = in->curve[at - 1];
        in->curve[at].ms = ms;
        in->curve[at].pages = pages;
        in->points++;
    }
    for (unsigned i = 1; i < in->points; i++) { /* both rise */
        in->curve[i].ms = fmax(in->curve[i].ms, in->curve[i - 1].ms * 1.001);
        in->curve[i].pages = fmax(in->curve[i].pages, in->curve[i - 1].pages);
    }
}

static void take_shares(const struct outgoing *o, struct forecast_input *in)
{
    double all = 0;

    in->harts = machine_harts(o->machine);
    for (unsigned i = 0; i < in->harts; i++)
        all += in->share[i] = o->throttle.hart[i].touched_per_s;
    for (unsigned i = 0; i < in->harts; i++)
        in->share[i] = all > 0 ? in->share[i] / all : 1.0 / in->harts;
}

static void take_all(struct outgoing *o, struct forecast_input *in)
{
    const struct migration_params *params = &o->m->params;
    const struct converge_costs *costs = &o->m->costs;
    const struct converge *c = &o->converge;
    double data = 0, wire = 0, cpu_ns = 0;

    for (unsigned i = 0; i < CONVERGE_HISTORY && i < c->rounds; i++) {
        data += (double)c->sample[i].units_data;
        wire += (double)c->sample[i].wire_bytes;
        cpu_ns += (double)c->sample[i].cpu_ns;
    }
    in->policy = outgoing_policy(o);
    in->auto_converge = atomic_load_explicit(&params->capability_auto_converge, memory_order_relaxed);
    in->share_max = (double)atomic_load_explicit(&params->max_cpu_throttle, memory_order_relaxed) / 100;
    in->later.unit_ns = converge_unit_ns(c, &in->policy);
    in->later.unit_bytes = data > 0 ? wire / data : PAGE_BYTES;
    in->later.cpu_ns = data > 0 ? cpu_ns / data : 0;
    in->first = in->later;
    in->data_pages = (double)o->all_units;
    in->real = *costs;
    in->real.round_ns += c->trip_ns;
    in->real.handover_ns += c->trip_ns;
    in->believed = in->real;
    in->round_ns = (double)in->real.round_ns;
    in->bias = 1;
    in->spread = SPREAD;
    in->policy.on_stall = CONVERGE_STALL_GIVE_UP;
    in->policy.stall_ns = TRY_STALL_NS;
    in->policy.max_rounds = 0;
    take_shares(o, in);
    take_curve(o, o->throttling ? 1 - in->share_max : 1, in);
}

static double round_up(double ms)
{
    double step = ms < 20 ? 1 : ms < 200 ? 10 : 50;
    return ceil(ms / step) * step;
}

static void words_of(const struct forecast_advice *advice, char out[WORDS_MAX])
{
    switch (advice->change) {
    case CHANGE_CODEC: snprintf(out, WORDS_MAX, "compression %s", advice->codec); break;
    case CHANGE_CAP:
        if (advice->value > 0)
            snprintf(out, WORDS_MAX, "max-bandwidth %.0fM", ceil(advice->value / (1 << 20)));
        else
            snprintf(out, WORDS_MAX, "max-bandwidth 0 (no cap)");
        break;
    case CHANGE_LINK: snprintf(out, WORDS_MAX, "a link that carries %.0f MB/s", advice->value / 1e6); break;
    case CHANGE_LIMIT: snprintf(out, WORDS_MAX, "downtime-limit %.0f", advice->value); break;
    case CHANGE_QUOTA:
        snprintf(out, WORDS_MAX, "auto-converge with max-cpu-throttle %.0f (vCPU %u dirties most)", advice->value,
                 advice->hart);
        break;
    }
}

/* The limit first, which needs nobody else: one that the best round would have met, whatever a forecast says. Then the cheapest
 * of the other changes that a forecast ends with. */
static void would_help(struct outgoing *o, char *out, size_t size)
{
    struct forecast_advice advice[FORECAST_ADVICE_MAX];
    struct forecast_input *in = calloc(1, sizeof(*in));
    double limit_ms = round_up(ms_of(o->converge.best_upper_ns) * 1.1);
    char other[WORDS_MAX] = "";
    unsigned n = 0;

    if (in) {
        take_all(o, in);
        n = forecast_advise(in, advice);
    }
    for (unsigned i = 0; i < n; i++)
        if (advice[i].change == CHANGE_LIMIT && advice[i].value > limit_ms)
            limit_ms = advice[i].value;
    for (unsigned i = 0; i < n && !other[0]; i++)
        if (advice[i].change != CHANGE_LIMIT)
            words_of(&advice[i], other);
    snprintf(out, size, "downtime-limit %.0f%s%s would do", limit_ms, other[0] ? ", or " : "", other);
    free(in);
}

int outgoing_give_up(struct outgoing *o, const struct converge_verdict *verdict, uint64_t rounds)
{
    const struct converge *c = &o->converge;
    char parts[MISSING_MAX], help[2 * WORDS_MAX], held[64] = "";
    uint64_t most = atomic_load_explicit(&o->m->params.max_cpu_throttle, memory_order_relaxed);

    if (o->throttling)
        snprintf(held, sizeof(held), " (vCPUs held as max-cpu-throttle %" PRIu64 " allows)", most);
    missing(c, parts);
    would_help(o, help, sizeof(help));
    return err_set(&o->err, -ETIME,
                   "given up after %" PRIu64
                   " rounds: %s%s; the pause would take %.0f ms at best, up to %.0f, and %.0f are "
                   "allowed: %s; %" PRIu64 " pages were left; %s",
                   rounds, verdict->reason, held, ms_of(c->best_ns), ms_of(c->best_upper_ns),
                   ms_of(outgoing_policy(o).downtime_limit_ns), parts, c->best_units, help);
}
