/* A line that breaks at a chosen message. A proxy between two machines forwards bytes, and cuts both ways just before
 * or just after the n-th message of the destination, or GO. Whatever it does: never two runners, never a lost guest. */
#include "tests/unit/migration/cut_line.h"

/* --- the promises ------------------------------------------------------------------------------------------------------ */

static void a_line_cut_before_prepared_leaves_the_guest_here_and_the_peer_holding(void **state)
{
    (void)state;
    move_with_a_cut(MESSAGE_PREPARED, CUT_BEFORE);
    assert_int_equal(settled(&a), MIGRATION_FAILED);
    assert_int_equal(settled(&b), MIGRATION_UNRESOLVED);
    wait_for_runner(&a);
    assert_int_equal(written_down(), 0);
    bool force;
    assert_int_equal(migration_may_resume(b.migration, &force, NULL), -EPERM);
    assert_int_equal(migration_resolve(b.migration, RESOLVE_THERE, NULL), 0);
    wait_for_state(&b, MIGRATION_FAILED);
    assert_int_equal(machine_state(b.machine), RUN_INMIGRATE);
}

static void a_line_cut_at_the_hello_is_a_plain_failure(void **state)
{
    (void)state;
    move_with_a_cut(MESSAGE_HELLO, CUT_BEFORE);
    assert_int_equal(settled(&a), MIGRATION_FAILED);
    assert_int_equal(settled(&b), MIGRATION_FAILED);
    wait_for_runner(&a);
}

static void a_line_cut_while_loading_is_a_plain_failure(void **state)
{
    (void)state;
    move_with_a_cut(MESSAGE_LOADED, CUT_AFTER);
    assert_int_equal(settled(&a), MIGRATION_FAILED);
    assert_int_equal(settled(&b), MIGRATION_FAILED);
    wait_for_runner(&a);
}

static void a_lost_go_leaves_both_in_doubt_until_an_operator_says_here(void **state)
{
    (void)state;
    move_with_a_cut(MESSAGE_GO, CUT_BEFORE);
    assert_int_equal(settled(&a), MIGRATION_UNRESOLVED);
    assert_int_equal(settled(&b), MIGRATION_UNRESOLVED);
    assert_false(runs(&a) || runs(&b));
    assert_int_equal(written_down(), 1);
    bool force;
    assert_int_equal(migration_may_resume(a.migration, &force, NULL), -EPERM);
    assert_int_equal(machine_resume(a.machine, false, NULL), -EPERM);
    assert_int_equal(migration_start(a.migration, "unix:/nowhere", NULL), -EBUSY);

    assert_int_equal(migration_resolve(b.migration, RESOLVE_THERE, NULL), 0);
    assert_int_equal(migration_resolve(a.migration, RESOLVE_HERE, NULL), 0);
    wait_for_runner(&a);
    assert_false(runs(&b));
    assert_int_equal(written_down(), 0);
}

static void a_lost_go_may_also_be_settled_on_the_other_side(void **state)
{
    (void)state;
    move_with_a_cut(MESSAGE_GO, CUT_BEFORE);
    assert_int_equal(migration_resolve(b.migration, RESOLVE_HERE, NULL), 0);
    wait_for_runner(&b);
    assert_int_equal(migration_resolve(a.migration, RESOLVE_THERE, NULL), 0);
    wait_for_state(&a, MIGRATION_COMPLETED);
    assert_false(runs(&a));
    assert_int_equal(written_down(), 0);
}

static void a_lost_running_leaves_the_source_in_doubt_and_the_guest_there(void **state)
{
    (void)state;
    move_with_a_cut(MESSAGE_RUNNING, CUT_BEFORE);
    assert_int_equal(settled(&a), MIGRATION_UNRESOLVED);
    assert_int_equal(settled(&b), MIGRATION_COMPLETED);
    wait_for_runner(&b);
    assert_false(runs(&a));
    assert_int_equal(migration_cancel(a.migration), 0); /* nothing left to cancel, and it does not bring it back */
    assert_false(runs(&a));
    assert_int_equal(migration_resolve(a.migration, RESOLVE_THERE, NULL), 0);
}

static void a_line_cut_after_running_has_done_no_harm(void **state)
{
    (void)state;
    move_with_a_cut(MESSAGE_RUNNING, CUT_AFTER);
    assert_int_equal(settled(&a), MIGRATION_COMPLETED);
    assert_int_equal(settled(&b), MIGRATION_COMPLETED);
    wait_for_runner(&b);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_line_cut_at_the_hello_is_a_plain_failure),
        TEST(a_line_cut_while_loading_is_a_plain_failure),
        TEST(a_line_cut_before_prepared_leaves_the_guest_here_and_the_peer_holding),
        TEST(a_lost_go_leaves_both_in_doubt_until_an_operator_says_here),
        TEST(a_lost_go_may_also_be_settled_on_the_other_side),
        TEST(a_lost_running_leaves_the_source_in_doubt_and_the_guest_there),
        TEST(a_line_cut_after_running_has_done_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
