#include "tests/unit/test.h"

#include <stdatomic.h>

#include "base/clock.h"
#include "base/thread.h"

static void time_does_not_go_backwards(void **state)
{
    (void)state;
    int64_t last_ns = clock_now_ns();
    for (unsigned i = 0; i < 10000; i++) {
        int64_t now_ns = clock_now_ns();
        assert_true(now_ns >= last_ns);
        last_ns = now_ns;
    }
    assert_true(clock_realtime_ns() > INT64_C(1600000000) * NS_PER_S); /* later than 2020: it counts from 1970 */
}

static void wait_for_the_host_to_tick(void)
{
    for (int64_t from_ns = clock_now_ns(); clock_now_ns() == from_ns;)
        ;
}

static void a_new_clock_stands_at_zero(void **state)
{
    (void)state;
    struct guest_clock clock;
    guest_clock_init(&clock);
    wait_for_the_host_to_tick();
    assert_true(guest_clock_ns(&clock) == 0);
}

static void a_stopped_clock_stands_still_and_goes_on_from_there(void **state)
{
    (void)state;
    struct guest_clock clock;
    guest_clock_init(&clock);
    int64_t stood_at_ns = 0;
    for (unsigned i = 0; i < 100; i++) {
        guest_clock_start(&clock);
        wait_for_the_host_to_tick();
        int64_t running_ns = guest_clock_ns(&clock);
        assert_true(running_ns > stood_at_ns);
        guest_clock_stop(&clock);
        stood_at_ns = guest_clock_ns(&clock);
        assert_true(stood_at_ns >= running_ns);
        wait_for_the_host_to_tick();
        assert_true(guest_clock_ns(&clock) == stood_at_ns);
    }
}

/* What the guest was shown while running is never more than the host's time that went by. */
static void a_running_clock_counts_host_time_and_no_more(void **state)
{
    (void)state;
    struct guest_clock clock;
    guest_clock_init(&clock);
    int64_t before_ns = clock_now_ns();
    guest_clock_start(&clock);
    int64_t started_ns = clock_now_ns();
    wait_for_the_host_to_tick();
    int64_t inside_ns = clock_now_ns() - started_ns, guest_ns = guest_clock_ns(&clock);
    int64_t outside_ns = clock_now_ns() - before_ns;
    assert_true(guest_ns >= inside_ns && guest_ns <= outside_ns);
}

static void a_guest_that_arrives_goes_on_from_its_own_time(void **state)
{
    (void)state;
    static const int64_t times_ns[] = { 0, 99, 100, INT64_C(86400) * 365 * 100 * NS_PER_S };
    for (unsigned i = 0; i < sizeof(times_ns) / sizeof(times_ns[0]); i++) {
        struct guest_clock clock;
        guest_clock_init(&clock);
        guest_clock_set_ns(&clock, times_ns[i]);
        assert_true(guest_clock_ns(&clock) == times_ns[i]);
        assert_true(guest_clock_ticks(&clock) == (uint64_t)times_ns[i] / GUEST_TICK_NS);
        int64_t before_ns = clock_now_ns();
        guest_clock_start(&clock);
        int64_t guest_ns = guest_clock_ns(&clock);
        assert_true(guest_ns >= times_ns[i] && guest_ns <= times_ns[i] + (clock_now_ns() - before_ns));
    }
}

/* --- by TSC ----------------------------------------------------------------------------------------------- */

/* A host of 2.5 GHz whose clocks are `off` parts in a million apart, second by second. */
static struct tsc_time trimmed(int64_t ns_a_second, unsigned seconds)
{
    enum { HZ = 2500000000 };
    struct tsc_time time = { .tsc = 1000 };

    for (unsigned i = 1; i <= seconds; i++)
        assert_true(tsc_time_trim(&time, 1000 + (uint64_t)i * HZ, i * ns_a_second));
    return time;
}

static void a_tsc_is_trimmed_to_the_rate_of_the_hosts_clock(void **state)
{
    (void)state;
    static const int64_t ns_a_second[] = { NS_PER_S, NS_PER_S + 100000, NS_PER_S - 100000 };

    for (unsigned i = 0; i < 3; i++) {
        struct tsc_time time = trimmed(ns_a_second[i], 3);
        int64_t off_ns = tsc_time_ns(&time, time.tsc + 2500000000) - 4 * ns_a_second[i];
        assert_in_range(off_ns + 10, 0, 20);
        assert_in_range(time.limit, 2490000000, 2510000000);
    }
}

/* Ahead or behind, what was shown is never taken back, and after one more second the difference is gone. */
static void trimming_bends_time_and_never_turns_it_back(void **state)
{
    (void)state;
    for (int64_t off_ns = -400000; off_ns <= 400000; off_ns += 100000) {
        struct tsc_time time = trimmed(NS_PER_S, 2);
        uint64_t tsc = time.tsc + 2500000000;
        int64_t shown_ns = tsc_time_ns(&time, tsc);

        assert_true(tsc_time_trim(&time, tsc, 3 * NS_PER_S + off_ns));
        assert_true(tsc_time_ns(&time, tsc) == shown_ns);
        tsc += 2500000000; /* and the host's clock goes on at the rate of that second */
        int64_t left_ns = tsc_time_ns(&time, tsc) - (4 * NS_PER_S + 2 * off_ns);
        assert_in_range(left_ns + 1000, 0, 2000);
    }
}

static void a_tsc_that_leaps_is_not_trusted_and_time_goes_on_from_what_was_shown(void **state)
{
    (void)state;
    static const int64_t leap[] = { INT64_C(2500000000) * 3600, INT64_C(-2500000000) * 9, 250000000, -250000000 };

    for (unsigned i = 0; i < 4; i++) {
        struct tsc_time time = trimmed(NS_PER_S, 2);
        int64_t most_ns = tsc_time_ns(&time, time.tsc + time.limit);

        for (int64_t later_ns = NS_PER_S / 2; later_ns < 3 * NS_PER_S; later_ns += NS_PER_S) {
            struct tsc_time leapt = time;
            int64_t true_ns = 2 * NS_PER_S + later_ns;

            assert_false(tsc_time_trim(&leapt, time.tsc + (uint64_t)(later_ns / 2 * 5 + leap[i]), true_ns));
            assert_true(leapt.limit == 0);
            assert_true(leapt.base_ns == (true_ns > most_ns ? true_ns : most_ns));
        }
    }
}

enum { READERS = 4, READS = 40000 };

struct reader {
    struct thread thread;
    struct guest_clock *clock;
    _Atomic int64_t *latest_ns; /* that any reader has seen and told */
    _Atomic unsigned *left;
    unsigned backwards;
};

static void read_times(void *opaque)
{
    struct reader *reader = opaque;

    for (unsigned i = 0; i < READS; i++) {
        int64_t told_ns = atomic_load_explicit(reader->latest_ns, memory_order_acquire);
        int64_t now_ns = guest_clock_ns(reader->clock);
        if (now_ns < told_ns)
            reader->backwards++;
        while (told_ns < now_ns && !atomic_compare_exchange_weak_explicit(reader->latest_ns, &told_ns, now_ns,
                                                                          memory_order_acq_rel, memory_order_acquire))
            ;
    }
    atomic_fetch_sub_explicit(reader->left, 1, memory_order_release);
}

/* From its start on, so over the change from CLOCK_MONOTONIC to TSC; and the clock stays beside the host's. */
static void no_reader_sees_time_run_backwards_while_it_is_trimmed(void **state)
{
    (void)state;
    struct guest_clock clock;
    struct reader reader[READERS];
    _Atomic int64_t latest_ns = 0;
    _Atomic unsigned left = READERS;
    unsigned trims = 0;

    guest_clock_init(&clock);
    int64_t before_ns = clock_now_ns();
    guest_clock_start(&clock);
    int64_t after_ns = clock_now_ns();
    for (unsigned i = 0; i < READERS; i++) {
        reader[i] = (struct reader){ .clock = &clock, .latest_ns = &latest_ns, .left = &left };
        assert_int_equal(thread_start(&reader[i].thread, "reader", read_times, &reader[i], NULL), 0);
    }
    while (atomic_load_explicit(&left, memory_order_acquire)) {
        guest_clock_trim(&clock);
        trims++;
    }
    assert_true(trims > 0);
    int64_t least_ns = clock_now_ns() - after_ns, guest_ns = guest_clock_ns(&clock);
    int64_t most_ns = clock_now_ns() - before_ns;
    for (unsigned i = 0; i < READERS; i++) {
        thread_join(&reader[i].thread);
        assert_int_equal(reader[i].backwards, 0);
    }
    assert_true(guest_ns > least_ns - NS_PER_MS && guest_ns < most_ns + NS_PER_MS);
}

/* A rate is known and the clock stands: the next start goes on from there, by TSC at once. */
static void a_clock_that_goes_by_tsc_stops_and_goes_on(void **state)
{
    (void)state;
    struct guest_clock clock;

    guest_clock_init(&clock);
    guest_clock_start(&clock);
    while (guest_clock_ns(&clock) < 2 * NS_PER_MS)
        ;
    guest_clock_trim(&clock);
    assert_true(!clock.has_tsc || clock.limit > 0);
    guest_clock_stop(&clock);
    int64_t stood_at_ns = guest_clock_ns(&clock);
    wait_for_the_host_to_tick();
    assert_true(guest_clock_ns(&clock) == stood_at_ns);
    guest_clock_set_ns(&clock, stood_at_ns + NS_PER_S);
    guest_clock_start(&clock);
    assert_true(!clock.has_tsc || clock.limit > 0);
    int64_t ns = guest_clock_ns(&clock);
    assert_true(ns >= stood_at_ns + NS_PER_S);
    while (guest_clock_ns(&clock) == ns)
        ;
    assert_true(guest_clock_ns(&clock) > ns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(time_does_not_go_backwards),
        cmocka_unit_test(a_new_clock_stands_at_zero),
        cmocka_unit_test(a_stopped_clock_stands_still_and_goes_on_from_there),
        cmocka_unit_test(a_running_clock_counts_host_time_and_no_more),
        cmocka_unit_test(a_guest_that_arrives_goes_on_from_its_own_time),
        cmocka_unit_test(a_tsc_is_trimmed_to_the_rate_of_the_hosts_clock),
        cmocka_unit_test(trimming_bends_time_and_never_turns_it_back),
        cmocka_unit_test(a_tsc_that_leaps_is_not_trusted_and_time_goes_on_from_what_was_shown),
        cmocka_unit_test(no_reader_sees_time_run_backwards_while_it_is_trimmed),
        cmocka_unit_test(a_clock_that_goes_by_tsc_stops_and_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
