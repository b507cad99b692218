#include "base/clock.h"

#include <assert.h>
#include <time.h>

static int64_t read_ns(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

int64_t clock_now_ns(void)
{
    return read_ns(CLOCK_MONOTONIC);
}

int64_t clock_thread_ns(void)
{
    return read_ns(CLOCK_THREAD_CPUTIME_ID);
}

int64_t clock_realtime_ns(void)
{
    return read_ns(CLOCK_REALTIME);
}

void guest_clock_init(struct guest_clock *clock)
{
    atomic_init(&clock->offset_ns, 0);
    atomic_init(&clock->stopped_ns, 0);
    atomic_init(&clock->running, false);
}

/* Release and acquire on `running` carry the value that belongs to it: a reader that sees the new state sees the new
 * offset. A reader that still sees the old state gets a time a moment old, which is what any clock read is. */
void guest_clock_start(struct guest_clock *clock)
{
    assert(!atomic_load_explicit(&clock->running, memory_order_relaxed));
    int64_t stood_at = atomic_load_explicit(&clock->stopped_ns, memory_order_relaxed);
    atomic_store_explicit(&clock->offset_ns, stood_at - clock_now_ns(), memory_order_relaxed);
    atomic_store_explicit(&clock->running, true, memory_order_release);
}

void guest_clock_stop(struct guest_clock *clock)
{
    assert(atomic_load_explicit(&clock->running, memory_order_relaxed));
    atomic_store_explicit(&clock->stopped_ns, guest_clock_ns(clock), memory_order_relaxed);
    atomic_store_explicit(&clock->running, false, memory_order_release);
}

void guest_clock_set_ns(struct guest_clock *clock, int64_t ns)
{
    assert(!atomic_load_explicit(&clock->running, memory_order_relaxed));
    atomic_store_explicit(&clock->stopped_ns, ns, memory_order_relaxed);
}

int64_t guest_clock_ns(const struct guest_clock *clock)
{
    if (atomic_load_explicit(&clock->running, memory_order_acquire))
        return clock_now_ns() + atomic_load_explicit(&clock->offset_ns, memory_order_relaxed);
    return atomic_load_explicit(&clock->stopped_ns, memory_order_relaxed);
}

uint64_t guest_clock_ticks(const struct guest_clock *clock)
{
    return (uint64_t)guest_clock_ns(clock) / GUEST_TICK_NS;
}
