/* `auto-converge`: quotas for the harts that dirty too fast, set anew every tick while a round is sent. */
#include "migration/outgoing.h"

#include <string.h>

#include "migration/sources.h"

static double share_max(struct outgoing *o)
{
    const struct migration_params *params = &o->m->params;
    uint64_t most = atomic_load_explicit(&params->max_cpu_throttle, memory_order_relaxed);
    uint64_t share = atomic_load_explicit(&params->cpu_throttle_initial, memory_order_relaxed);
    uint64_t more = atomic_load_explicit(&params->cpu_throttle_increment, memory_order_relaxed);
    uint64_t rounds = o->throttle.ticks ? o->converge.rounds - o->throttled_at_round : 0;

    share += rounds < most ? rounds * more : most;
    return (double)(share < most ? share : most) / 100;
}

bool outgoing_holds_more(struct outgoing *o)
{
    uint64_t most = atomic_load_explicit(&o->m->params.max_cpu_throttle, memory_order_relaxed);

    return o->throttling && share_max(o) * 100 + 0.5 < (double)most;
}

static void take_back(struct outgoing *o)
{
    if (o->throttling)
        dirty_quota_clear(o->ram->dirty);
    o->throttling = false;
}

/* The next tick's counts begin; never 0, which would stop them. */
static void next_window(struct outgoing *o)
{
    o->window = o->window % 0xffff + 1;
    dirty_quota_window(o->ram->dirty, o->window);
}

static void stop_counting(struct outgoing *o)
{
    if (o->window)
        dirty_quota_window(o->ram->dirty, 0);
    o->window = 0;
}

void outgoing_throttle_begin(struct outgoing *o)
{
    struct migration *m = o->m;
    struct quota_stats now[DIRTY_WRITERS_MAX];

    dirty_quota_stats(o->ram->dirty, now);
    throttle_init(&o->throttle, now, DIRTY_WRITERS_MAX);
    o->tick_ns = clock_now_ns();
    o->all_units = outgoing_dirty_units(o);
    source_ram_forget_hot(m->ram);
    lock(&m->lock);
    memcpy(m->quota_base, now, sizeof(m->quota_base));
    unlock(&m->lock);
}

void outgoing_leave_hot(struct outgoing *o)
{
    struct converge_policy policy = outgoing_policy(o);

    source_ram_leave_hot(o->m->ram, (uint64_t)converge_keep_units(&o->converge, &policy, &o->m->costs));
}

void outgoing_throttle_end(struct outgoing *o)
{
    take_back(o);
    stop_counting(o);
    lock(&o->m->lock);
    o->m->figures.throttle_percent = 0;
    unlock(&o->m->lock);
}

static void report(struct outgoing *o, unsigned harts)
{
    double most = 0;
    for (unsigned i = 0; i < harts; i++)
        most = o->throttle.hart[i].held > most ? o->throttle.hart[i].held : most;
    lock(&o->m->lock);
    o->m->figures.throttle_percent = o->throttling ? (unsigned)(most * 100 + 0.5) : 0;
    unlock(&o->m->lock);
}

/* Of the round that is being sent. */
static struct converge_sample so_far(struct outgoing *o)
{
    struct pipeline_stats now;

    pipeline_stats(o->pipeline, &now);
    return (struct converge_sample){
        .units_data = now.units_data - o->round_from.units_data,
        .units_zero = now.units_zero - o->round_from.units_zero,
        .wire_bytes = now.wire_bytes - o->round_from.wire_bytes,
        .elapsed_ns = clock_now_ns() - o->round_from_ns,
        .rate_wait_ns = (int64_t)(now.rate_wait_ns - o->round_from.rate_wait_ns),
        .cpu_ns = (int64_t)(now.copy_ns + now.compress_ns - o->round_from.copy_ns - o->round_from.compress_ns),
        .dirty_units = outgoing_dirty_units(o),
    };
}

static struct throttle_need need_now(struct outgoing *o, const struct converge_policy *policy)
{
    struct converge_sample running = so_far(o);
    uint64_t taken = running.units_data + running.units_zero;
    uint64_t ahead = o->all_units > taken ? o->all_units - taken : 0;

    return throttle_need(&o->throttle, &o->converge, policy, &o->m->costs, &running, ahead, share_max(o));
}

/* Every 100 ms. `throttles`: auto-converge. */
static void tick(struct outgoing *o, int64_t elapsed_ns, bool throttles)
{
    struct quota_stats now[DIRTY_WRITERS_MAX];
    struct converge_policy policy = outgoing_policy(o);
    bool changed = throttle_limit_changed(&o->round_policy, &policy);

    if (!throttles && !changed)
        return; /* to look at what is left is not free */
    unsigned harts = dirty_quota_stats(o->ram->dirty, now);
    struct throttle_need need = need_now(o, &policy);
    bool cut = changed && throttle_cuts(&need);
    if (!throttles || !throttle_tick(&o->throttle, elapsed_ns, now, harts, &need)) {
        take_back(o);
    } else {
        if (o->throttle.ticks == 1)
            o->throttled_at_round = o->converge.rounds;
        o->throttling = true;
        for (unsigned i = 0; i < harts; i++)
            dirty_quota_set(o->ram->dirty, i, o->throttle.order[i].pages_per_s, o->throttle.order[i].work_per_s);
        cut = cut || throttle_cuts(&need);
    }
    if (cut)
        pipeline_round_cut(o->pipeline);
    report(o, harts);
}

/* Of the running tick, once. */
static void middle(struct outgoing *o, int64_t elapsed_ns)
{
    struct quota_stats now[DIRTY_WRITERS_MAX];
    unsigned harts = dirty_quota_stats(o->ram->dirty, now);

    throttle_middle(&o->throttle, elapsed_ns, now, harts);
    o->middle_seen = true;
}

void outgoing_throttle_round(struct outgoing *o)
{
    pipeline_stats(o->pipeline, &o->round_from);
    o->round_from_ns = clock_now_ns();
    o->round_policy = outgoing_policy(o);
    do {
        int64_t now_ns = clock_now_ns();
        bool throttles = atomic_load_explicit(&o->m->params.capability_auto_converge, memory_order_relaxed);
        bool over = now_ns - o->tick_ns >= THROTTLE_TICK_NS;
        if (o->window && !over && !o->middle_seen && now_ns - o->tick_ns >= THROTTLE_TICK_NS / 2)
            middle(o, now_ns - o->tick_ns);
        if (throttles == (o->window != 0) && !over)
            continue;
        if (over && throttles == (o->window != 0))
            tick(o, now_ns - o->tick_ns, throttles);
        if (throttles) {
            next_window(o);
        } else {
            take_back(o);
            stop_counting(o);
        }
        o->tick_ns = now_ns;
        o->middle_seen = false;
    } while (!pipeline_round_wait(
        o->pipeline, o->tick_ns + (o->window && !o->middle_seen ? THROTTLE_TICK_NS / 2 : THROTTLE_TICK_NS)));
    source_ram_take_all(o->m->ram); /* whatever comes next */
}
