#include "tests/unit/hw/fixture.h"

enum { HARTS = 2, MSIP_PIN = 0, MTIP_PIN = 2, MTIMECMP = 0x4000, MTIME = 0xbff8 };

struct world {
    struct pins pins;
    struct guest_time time;
    struct device *aclint;
};

static struct device *make(struct world *w, unsigned first_pin)
{
    struct irq_line msip[HARTS], mtip[HARTS];
    for (unsigned i = 0; i < HARTS; i++) {
        msip[i] = pin(&w->pins, first_pin + MSIP_PIN + i);
        mtip[i] = pin(&w->pins, first_pin + MTIP_PIN + i);
    }
    struct device *aclint = aclint_new(HARTS, msip, mtip, &w->time.clock, w->time.timers, NULL);
    assert_non_null(aclint);
    return aclint;
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    pins_init(&w->pins);
    time_init(&w->time);
    w->aclint = make(w, 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    dev_free(w->aclint);
    timers_free(w->time.timers);
    free(w);
    return 0;
}

static void msip_pulls_its_own_hart(void **state)
{
    struct world *w = *state;
    dev_write(w->aclint, 4, 0xffffffff, 4);
    assert_false(pin_high(&w->pins, MSIP_PIN));
    assert_true(pin_high(&w->pins, MSIP_PIN + 1));
    assert_int_equal(dev_read(w->aclint, 4, 4), 1);
    assert_int_equal(dev_read(w->aclint, 0, 8), UINT64_C(1) << 32);
    dev_write(w->aclint, 4, 0, 4);
    assert_false(pin_high(&w->pins, MSIP_PIN + 1));
    dev_write(w->aclint, 4 * HARTS, 1, 4); /* no such hart */
    assert_int_equal(dev_read(w->aclint, 4 * HARTS, 4), 0);
}

static void mtime_is_the_guest_clock_in_ticks(void **state)
{
    struct world *w = *state;
    guest_clock_set_ns(&w->time.clock, INT64_C(0x123456789a) * GUEST_TICK_NS);
    assert_int_equal(dev_read(w->aclint, MTIME, 8), UINT64_C(0x123456789a));
    assert_int_equal(dev_read(w->aclint, MTIME, 4), 0x3456789a);
    assert_int_equal(dev_read(w->aclint, MTIME + 4, 4), 0x12);
    dev_write(w->aclint, MTIME, 0, 8);
    assert_int_equal(dev_read(w->aclint, MTIME, 8), UINT64_C(0x123456789a));
}

static void a_compare_in_the_past_is_due_at_once(void **state)
{
    struct world *w = *state;
    guest_clock_set_ns(&w->time.clock, 1000 * GUEST_TICK_NS);
    dev_write(w->aclint, MTIMECMP, 1001, 8);
    assert_false(pin_high(&w->pins, MTIP_PIN));
    dev_write(w->aclint, MTIMECMP, 1000, 8);
    assert_true(pin_high(&w->pins, MTIP_PIN));
    assert_false(pin_high(&w->pins, MTIP_PIN + 1));
    dev_write(w->aclint, MTIMECMP, UINT64_MAX, 8);
    assert_false(pin_high(&w->pins, MTIP_PIN));
}

static void halves_of_a_compare_can_be_written(void **state)
{
    struct world *w = *state;
    dev_write(w->aclint, MTIMECMP + 8 + 4, 0x1, 4);
    dev_write(w->aclint, MTIMECMP + 8, 0x80000000, 4);
    assert_int_equal(dev_read(w->aclint, MTIMECMP + 8, 8), UINT64_C(0x180000000));
    assert_int_equal(dev_read(w->aclint, MTIMECMP + 8 + 4, 4), 1);
    assert_int_equal(dev_read(w->aclint, MTIMECMP, 8), UINT64_MAX);
}

static void a_timer_fires_when_its_time_comes(void **state)
{
    struct world *w = *state;
    dev_write(w->aclint, MTIMECMP + 8, 20000, 8); /* 2 ms */
    time_start(&w->time);
    pin_wait_high(&w->pins, MTIP_PIN + 1);
    assert_true(dev_read(w->aclint, MTIME, 8) >= 20000);
    assert_false(pin_high(&w->pins, MTIP_PIN));
}

static void a_moved_timer_fires_on_the_other_side(void **state)
{
    struct world *w = *state;
    struct device *there = make(w, 8);
    dev_write(w->aclint, MTIMECMP, 20000, 8);
    dev_write(w->aclint, 4, 1, 4);
    w->aclint->ops->drain(w->aclint);
    dev_move(w->aclint, there);
    assert_true(pin_high(&w->pins, 8 + MSIP_PIN + 1));
    assert_false(pin_high(&w->pins, 8 + MTIP_PIN));
    there->ops->resume(there);
    time_start(&w->time);
    pin_wait_high(&w->pins, 8 + MTIP_PIN);
    time_stop(&w->time);
    dev_free(there);
}

static void a_drained_aclint_catches_up_at_resume(void **state)
{
    struct world *w = *state;
    w->aclint->ops->drain(w->aclint);
    dev_write(w->aclint, MTIMECMP, 10, 8);
    guest_clock_set_ns(&w->time.clock, 1000 * GUEST_TICK_NS);
    assert_false(pin_high(&w->pins, MTIP_PIN));
    w->aclint->ops->resume(w->aclint);
    assert_true(pin_high(&w->pins, MTIP_PIN));
}

static void reset_silences_both(void **state)
{
    struct world *w = *state;
    dev_write(w->aclint, 0, 1, 4);
    dev_write(w->aclint, MTIMECMP, 0, 8);
    w->aclint->ops->reset(w->aclint);
    assert_false(pin_high(&w->pins, MSIP_PIN));
    assert_false(pin_high(&w->pins, MTIP_PIN));
}

static void holes_read_as_zero(void **state)
{
    struct world *w = *state;
    for (uint64_t at = 0x100; at < 0x10000; at += 0x88)
        if (at < MTIMECMP || at >= MTIMECMP + 8 * HARTS)
            assert_int_equal(dev_read(w->aclint, at, 8), 0);
    assert_int_equal(dev_read(w->aclint, 0xc000, 8), 0);
    struct err err = { 0 };
    assert_null(aclint_new(65, NULL, NULL, &w->time.clock, w->time.timers, &err));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(msip_pulls_its_own_hart),
        T(mtime_is_the_guest_clock_in_ticks),
        T(a_compare_in_the_past_is_due_at_once),
        T(halves_of_a_compare_can_be_written),
        T(a_timer_fires_when_its_time_comes),
        T(a_moved_timer_fires_on_the_other_side),
        T(a_drained_aclint_catches_up_at_resume),
        T(reset_silences_both),
        T(holes_read_as_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
