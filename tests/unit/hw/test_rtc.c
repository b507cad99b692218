#include "tests/unit/hw/fixture.h"

enum {
    LOW = 0x00,
    HIGH = 0x04,
    ALARM_LOW = 0x08,
    ALARM_HIGH = 0x0c,
    ENABLED = 0x10,
    CLEAR = 0x14,
    STATUS = 0x18,
    CLEAR_INTERRUPT = 0x1c
};

struct world {
    struct pins pins;
    struct guest_time time;
    struct device *rtc;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    pins_init(&w->pins);
    time_init(&w->time);
    w->rtc = rtc_new(pin(&w->pins, 0), w->time.timers, NULL);
    assert_non_null(w->rtc);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    dev_free(w->rtc);
    timers_free(w->time.timers);
    free(w);
    return 0;
}

static uint64_t now(struct device *rtc)
{
    uint64_t low = dev_read(rtc, LOW, 4);
    return dev_read(rtc, HIGH, 4) << 32 | low;
}

static void alarm_at(struct device *rtc, uint64_t ns)
{
    dev_write(rtc, ALARM_HIGH, ns >> 32, 4);
    dev_write(rtc, ALARM_LOW, (uint32_t)ns, 4);
}

static void time_is_the_hosts(void **state)
{
    struct world *w = *state;
    uint64_t before = (uint64_t)clock_realtime_ns(), read = now(w->rtc), after = (uint64_t)clock_realtime_ns();
    assert_true(before <= read && read <= after);
}

static void the_high_half_belongs_to_the_last_low_read(void **state)
{
    struct world *w = *state;
    dev_read(w->rtc, LOW, 4);
    uint64_t high = dev_read(w->rtc, HIGH, 4);
    dev_write(w->rtc, HIGH, high + 100, 4);
    assert_int_equal(dev_read(w->rtc, HIGH, 4), high);
    dev_read(w->rtc, LOW, 4);
    assert_true(dev_read(w->rtc, HIGH, 4) >= high + 100);
}

static void a_time_that_was_set_goes_on_from_there(void **state)
{
    struct world *w = *state;
    uint64_t wanted = UINT64_C(5000000000000000000);
    dev_write(w->rtc, HIGH, wanted >> 32, 4);
    dev_write(w->rtc, LOW, (uint32_t)wanted, 4);
    uint64_t read = now(w->rtc);
    assert_true(read >= wanted && read < wanted + (UINT64_C(1) << 40));
}

static void an_alarm_in_the_past_fires_at_once_if_enabled(void **state)
{
    struct world *w = *state;
    alarm_at(w->rtc, 1);
    assert_false(pin_high(&w->pins, 0));
    assert_int_equal(dev_read(w->rtc, STATUS, 4), 0);
    dev_write(w->rtc, ENABLED, 1, 4);
    assert_true(pin_high(&w->pins, 0));
    dev_write(w->rtc, CLEAR_INTERRUPT, 1, 4);
    assert_false(pin_high(&w->pins, 0));
}

static void an_alarm_fires_when_its_time_comes(void **state)
{
    struct world *w = *state;
    time_start(&w->time);
    dev_write(w->rtc, ENABLED, 1, 4);
    uint64_t wanted = now(w->rtc) + 3 * NS_PER_MS;
    alarm_at(w->rtc, wanted);
    pin_wait_high(&w->pins, 0);
    assert_true(now(w->rtc) >= wanted);
    assert_int_equal(dev_read(w->rtc, STATUS, 4), 0);
}

static void a_cleared_alarm_stays_silent(void **state)
{
    struct world *w = *state;
    dev_write(w->rtc, ENABLED, 1, 4);
    alarm_at(w->rtc, UINT64_MAX);
    assert_int_equal(dev_read(w->rtc, STATUS, 4), 1);
    assert_int_equal(dev_read(w->rtc, ALARM_LOW, 4), UINT32_MAX);
    assert_int_equal(dev_read(w->rtc, ALARM_HIGH, 4), UINT32_MAX);
    dev_write(w->rtc, CLEAR, 1, 4);
    assert_int_equal(dev_read(w->rtc, STATUS, 4), 0);
    assert_false(pin_high(&w->pins, 0));
}

static void an_alarm_that_passed_on_the_way_fires_on_the_other_side(void **state)
{
    struct world *w = *state;
    struct device *there = rtc_new(pin(&w->pins, 1), w->time.timers, NULL);
    dev_write(w->rtc, ENABLED, 1, 4);
    alarm_at(w->rtc, now(w->rtc) + 2 * NS_PER_MS);
    w->rtc->ops->drain(w->rtc);
    dev_move(w->rtc, there);
    assert_false(pin_high(&w->pins, 1));
    there->ops->resume(there);
    time_start(&w->time);
    pin_wait_high(&w->pins, 1);
    dev_free(there);
}

static void the_set_time_moves_with_the_guest(void **state)
{
    struct world *w = *state;
    struct device *there = rtc_new(pin(&w->pins, 1), w->time.timers, NULL);
    uint64_t wanted = UINT64_C(7000000000000000000);
    dev_write(w->rtc, HIGH, wanted >> 32, 4);
    dev_write(w->rtc, LOW, (uint32_t)wanted, 4);
    uint64_t here = now(w->rtc);
    dev_move(w->rtc, there);
    uint64_t later = now(there);
    assert_true(later >= here && later - here < (UINT64_C(1) << 40));
    dev_free(there);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(time_is_the_hosts),
        T(the_high_half_belongs_to_the_last_low_read),
        T(a_time_that_was_set_goes_on_from_there),
        T(an_alarm_in_the_past_fires_at_once_if_enabled),
        T(an_alarm_fires_when_its_time_comes),
        T(a_cleared_alarm_stays_silent),
        T(an_alarm_that_passed_on_the_way_fires_on_the_other_side),
        T(the_set_time_moves_with_the_guest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
