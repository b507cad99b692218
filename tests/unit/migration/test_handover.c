/* Single promises of the table; test_handover_model.c walks all that can happen with it. */
#include "tests/unit/test.h"

#include "migration/handover.h"

static void nothing_after_released_lets_the_source_run_by_itself(void **state)
{
    (void)state;
    static const enum handover_state past[] = { SOURCE_RELEASED, SOURCE_UNRESOLVED, SOURCE_AWAY };
    for (size_t s = 0; s < sizeof(past) / sizeof(past[0]); s++)
        for (int event = 0; event < HANDOVER_EVENTS; event++) {
            struct handover_step step = handover_step(past[s], (enum handover_event)event);
            bool told = event == HANDOVER_REFUSED || (past[s] == SOURCE_UNRESOLVED && event == HANDOVER_RESOLVE_HERE);
            if (step.actions & DO_RESUME || step.state == SOURCE_HERE)
                assert_true(told);
        }
}

static void a_prepared_destination_drops_the_guest_only_when_told(void **state)
{
    (void)state;
    static const enum handover_state holding[] = { TARGET_PREPARED, TARGET_UNRESOLVED };
    for (size_t s = 0; s < 2; s++)
        for (int event = 0; event < HANDOVER_EVENTS; event++) {
            struct handover_step step = handover_step(holding[s], (enum handover_event)event);
            if (step.actions & DO_UNLOAD)
                assert_true(event == HANDOVER_RETRACT || event == HANDOVER_RESOLVE_THERE);
            if (step.actions & DO_START)
                assert_true(event == HANDOVER_GO || event == HANDOVER_RESOLVE_HERE);
        }
}

static void go_is_sent_only_when_released_is_written(void **state)
{
    (void)state;
    for (int s = 0; s < HANDOVER_STATES; s++)
        for (int event = 0; event < HANDOVER_EVENTS; event++) {
            struct handover_step step = handover_step((enum handover_state)s, (enum handover_event)event);
            if (step.actions & DO_SEND_GO) /* for the first time, or over a new line */
                assert_true((s == SOURCE_RELEASING && event == HANDOVER_WRITTEN) ||
                            (s == SOURCE_UNRESOLVED && event == HANDOVER_PREPARED));
        }
}

static void every_failure_before_released_brings_the_guest_back(void **state)
{
    (void)state;
    static const enum handover_state before[] = { SOURCE_MOVING, SOURCE_STOPPED, SOURCE_ASKED };
    static const enum handover_event trouble[] = { HANDOVER_PEER_ERROR, HANDOVER_LINK_LOST, HANDOVER_SILENCE,
                                                   HANDOVER_CANCEL };
    for (size_t s = 0; s < 3; s++)
        for (size_t e = 0; e < 4; e++) {
            struct handover_step step = handover_step(before[s], trouble[e]);
            assert_int_equal(step.state, SOURCE_HERE);
            assert_true(step.actions & DO_RESUME);
        }
    struct handover_step step = handover_step(SOURCE_ASKED, HANDOVER_PREPARED_MISMATCH);
    assert_int_equal(step.state, SOURCE_HERE);
    assert_true(step.actions & DO_RESUME);
}

static void events_that_a_state_does_not_expect_change_nothing(void **state)
{
    (void)state;
    struct handover_step step = handover_step(SOURCE_MOVING, HANDOVER_PREPARED);
    assert_int_equal(step.state, SOURCE_MOVING);
    assert_int_equal(step.actions, 0);
    step = handover_step(TARGET_LOADING, HANDOVER_GO);
    assert_int_equal(step.state, TARGET_LOADING);
    assert_int_equal(step.actions, 0);
    step = handover_step(TARGET_EMPTY, HANDOVER_GO);
    assert_int_equal(step.actions, 0);
}

/* No peer: test_handover_model.c has nobody to put there. */
static void a_file_runs_nothing_and_leaves_no_note(void **state)
{
    (void)state;
    struct handover_step step = handover_step(SOURCE_STOPPED, HANDOVER_STORED);
    assert_int_equal(step.state, SOURCE_AWAY);
    assert_int_equal(step.actions, 0);
}

static void every_state_and_event_has_a_name(void **state)
{
    (void)state;
    for (int s = 0; s < HANDOVER_STATES; s++)
        assert_non_null(handover_state_name((enum handover_state)s));
    for (int e = 0; e < HANDOVER_EVENTS; e++)
        assert_non_null(handover_event_name((enum handover_event)e));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_after_released_lets_the_source_run_by_itself),
        cmocka_unit_test(a_prepared_destination_drops_the_guest_only_when_told),
        cmocka_unit_test(go_is_sent_only_when_released_is_written),
        cmocka_unit_test(every_failure_before_released_brings_the_guest_back),
        cmocka_unit_test(events_that_a_state_does_not_expect_change_nothing),
        cmocka_unit_test(every_state_and_event_has_a_name),
        cmocka_unit_test(a_file_runs_nothing_and_leaves_no_note),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
