#include "tests/unit/test.h"

#include <sched.h>
#include <stdatomic.h>

#include "base/lock.h"
#include "base/timer.h"

enum { TIMERS = 5 };

struct alarm {
    struct bench *bench;
    struct timer *timer;
    unsigned number;
    int64_t again_ns; /* set again for this much later, while `repeats` lasts */
    unsigned repeats;
    /* under the bench's lock */
    unsigned fired;
    int64_t deadline_ns; /* of the last setting */
    bool early;          /* fired before its time, or while time stood still */
};

struct bench {
    struct guest_clock clock;
    struct timers *timers;
    struct lock lock;
    struct cond changed;
    struct alarm alarm[TIMERS];
    /* under lock */
    unsigned order[16], fired;
};

static void fire(void *opaque)
{
    struct alarm *alarm = opaque;
    struct bench *bench = alarm->bench;
    int64_t now_ns = timers_now_ns(bench->timers);
    bool ticking = atomic_load_explicit(&bench->clock.running, memory_order_acquire);
    lock(&bench->lock);
    alarm->fired++;
    alarm->early |= now_ns < alarm->deadline_ns || !ticking;
    if (bench->fired < sizeof(bench->order) / sizeof(bench->order[0]))
        bench->order[bench->fired] = alarm->number;
    bench->fired++;
    bool again = alarm->repeats > 0;
    if (again) {
        alarm->repeats--;
        alarm->deadline_ns = now_ns + alarm->again_ns;
    }
    cond_broadcast(&bench->changed);
    unlock(&bench->lock);
    if (again)
        timer_set_ns(alarm->timer, now_ns + alarm->again_ns);
}

static void bench_init(struct bench *bench)
{
    *bench = (struct bench){ 0 };
    guest_clock_init(&bench->clock);
    lock_init(&bench->lock, LOCK_LEAF);
    cond_init(&bench->changed);
    bench->timers = timers_new(&bench->clock, NULL);
    assert_non_null(bench->timers);
    for (unsigned i = 0; i < TIMERS; i++) {
        bench->alarm[i] = (struct alarm){ .bench = bench, .number = i };
        bench->alarm[i].timer = timer_new(bench->timers, fire, &bench->alarm[i]);
    }
}

static void bench_destroy(struct bench *bench)
{
    for (unsigned i = 0; i < TIMERS; i++) {
        timer_free(bench->alarm[i].timer);
        assert_false(bench->alarm[i].early);
    }
    timers_free(bench->timers);
    cond_destroy(&bench->changed);
    lock_destroy(&bench->lock);
}

static void set(struct alarm *alarm, int64_t deadline_ns)
{
    lock(&alarm->bench->lock);
    alarm->deadline_ns = deadline_ns == TIMER_NEVER ? 0 : deadline_ns;
    unlock(&alarm->bench->lock);
    timer_set_ns(alarm->timer, deadline_ns);
}

static void clock_start(struct bench *bench)
{
    guest_clock_start(&bench->clock);
    timers_clock_changed(bench->timers);
}

static void clock_stop(struct bench *bench)
{
    guest_clock_stop(&bench->clock);
    timers_clock_changed(bench->timers);
}

static void wait_fired(struct bench *bench, unsigned count)
{
    lock(&bench->lock);
    while (bench->fired < count)
        cond_wait(&bench->changed, &bench->lock);
    unlock(&bench->lock);
}

static void timers_fire_in_the_order_of_their_deadlines(void **state)
{
    (void)state;
    static const int64_t deadline_ns[TIMERS] = { 3000, 1000, 5000, 4000, 2000 };
    static const unsigned order[TIMERS] = { 1, 4, 0, 3, 2 };
    struct bench bench;
    bench_init(&bench);
    for (unsigned i = 0; i < TIMERS; i++)
        set(&bench.alarm[i], deadline_ns[i]);
    clock_start(&bench);
    wait_fired(&bench, TIMERS);
    assert_memory_equal(bench.order, order, sizeof(order));
    for (unsigned i = 0; i < TIMERS; i++)
        assert_int_equal(bench.alarm[i].fired, 1);
    bench_destroy(&bench);
}

/* The deadline is over when the clock stops; alarm->early sees a callback that does not wait for it to start. */
static void none_fires_while_the_clock_stands_still(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench);
    for (unsigned i = 0; i < 200; i++) {
        set(&bench.alarm[i % TIMERS], guest_clock_ns(&bench.clock));
        timers_clock_changed(bench.timers);
        sched_yield();
        lock(&bench.lock);
        assert_int_equal(bench.fired, i);
        unlock(&bench.lock);
        clock_start(&bench);
        wait_fired(&bench, i + 1);
        clock_stop(&bench);
    }
    bench_destroy(&bench);
}

static void a_deadline_that_arrives_with_the_guest_is_met_after_the_start(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench);
    int64_t there_ns = INT64_C(86400) * NS_PER_S;
    guest_clock_set_ns(&bench.clock, there_ns);
    set(&bench.alarm[0], there_ns + 1000);
    clock_start(&bench);
    wait_fired(&bench, 1);
    bench_destroy(&bench);
}

static void a_callback_may_set_its_timer_again(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench);
    bench.alarm[0].again_ns = 1000;
    bench.alarm[0].repeats = 9;
    clock_start(&bench);
    set(&bench.alarm[0], 0);
    wait_fired(&bench, 10);
    bench_destroy(&bench);
}

/* Timer 0 sleeps far away when timer 1 comes with less: the thread must not oversleep, and a moved one fires once. */
static void an_earlier_deadline_wakes_the_thread(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench);
    clock_start(&bench);
    for (unsigned i = 0; i < 100; i++) {
        set(&bench.alarm[0], TIMER_NEVER - 1); /* far away, and not so far that a sum overflows */
        set(&bench.alarm[1], timers_now_ns(bench.timers) + 500000 * (i % 2));
        wait_fired(&bench, i + 1);
        assert_int_equal(bench.alarm[1].fired, i + 1);
    }
    set(&bench.alarm[0], 0);
    wait_fired(&bench, 101);
    assert_int_equal(bench.alarm[0].fired, 1);
    bench_destroy(&bench);
}

static void a_timer_set_to_never_does_not_fire(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench);
    set(&bench.alarm[0], 1000);
    set(&bench.alarm[0], TIMER_NEVER);
    set(&bench.alarm[1], 2000);
    clock_start(&bench);
    wait_fired(&bench, 1);
    assert_int_equal(bench.alarm[0].fired, 0);
    assert_int_equal(bench.alarm[1].fired, 1);
    bench_destroy(&bench);
}

struct slow {
    _Atomic bool inside, about_to_free, done;
};

static void fire_slowly(void *opaque)
{
    struct slow *slow = opaque;
    atomic_store_explicit(&slow->inside, true, memory_order_release);
    while (!atomic_load_explicit(&slow->about_to_free, memory_order_acquire))
        sched_yield();
    for (unsigned i = 0; i < 1000; i++)
        sched_yield();
    atomic_store_explicit(&slow->done, true, memory_order_relaxed);
}

static void freeing_waits_for_a_callback_that_runs(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench);
    clock_start(&bench);
    for (unsigned i = 0; i < 20; i++) {
        struct slow slow = { 0 };
        struct timer *timer = timer_new(bench.timers, fire_slowly, &slow);
        timer_set_ns(timer, 0);
        while (!atomic_load_explicit(&slow.inside, memory_order_acquire))
            sched_yield();
        atomic_store_explicit(&slow.about_to_free, true, memory_order_release);
        timer_free(timer);
        assert_true(atomic_load_explicit(&slow.done, memory_order_relaxed));
    }
    timer_free(NULL);
    bench_destroy(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timers_fire_in_the_order_of_their_deadlines),
        cmocka_unit_test(none_fires_while_the_clock_stands_still),
        cmocka_unit_test(a_deadline_that_arrives_with_the_guest_is_met_after_the_start),
        cmocka_unit_test(a_callback_may_set_its_timer_again),
        cmocka_unit_test(an_earlier_deadline_wakes_the_thread),
        cmocka_unit_test(a_timer_set_to_never_does_not_fire),
        cmocka_unit_test(freeing_waits_for_a_callback_that_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
