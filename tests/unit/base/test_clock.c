#include "tests/unit/test.h"

#include "base/clock.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(time_does_not_go_backwards),
        cmocka_unit_test(a_new_clock_stands_at_zero),
        cmocka_unit_test(a_stopped_clock_stands_still_and_goes_on_from_there),
        cmocka_unit_test(a_running_clock_counts_host_time_and_no_more),
        cmocka_unit_test(a_guest_that_arrives_goes_on_from_its_own_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
