#include "tests/unit/test.h"

#include "vcpu/stall.h"

static uint64_t count(struct stall *stall, uint32_t counting, enum stall_kind kind)
{
    struct stall_counts now;
    stall_read(stall, counting, &now);
    return now.kind[kind].count;
}

static void nothing_is_counted_while_nobody_wants_to_know(void **state)
{
    (void)state;
    struct stall stall = { 0 };
    stall_add(&stall, STALL_HELD, 5000);
    assert_int_equal(count(&stall, 0, STALL_HELD), 0);
    stall.wanted = 7;
    assert_int_equal(count(&stall, 7, STALL_HELD), 0);
    stall_add(&stall, STALL_HELD, 5000);
    stall_add(&stall, STALL_DIRTY, -5); /* a clock that was set */
    stall.wanted = 0;
    stall_add(&stall, STALL_HELD, 5000);
    assert_int_equal(count(&stall, 7, STALL_HELD), 1); /* what was counted stays to be read */
    assert_int_equal(count(&stall, 7, STALL_DIRTY), 1);
    assert_int_equal(count(&stall, 7, STALL_PAUSED), 0);
}

static void another_counting_starts_from_nothing(void **state)
{
    (void)state;
    struct stall stall = { .wanted = 1 };
    stall_add(&stall, STALL_PAUSED, 9000000);
    stall.wanted = 2;
    assert_int_equal(count(&stall, 2, STALL_PAUSED), 0); /* nothing was added to it yet */
    assert_int_equal(count(&stall, 1, STALL_PAUSED), 1);
    stall_add(&stall, STALL_HELD, 1000);
    assert_int_equal(count(&stall, 2, STALL_PAUSED), 0);
    assert_int_equal(count(&stall, 2, STALL_HELD), 1);
    assert_int_equal(count(&stall, 1, STALL_PAUSED), 0); /* gone, and not mixed up */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_counted_while_nobody_wants_to_know),
        cmocka_unit_test(another_counting_starts_from_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
