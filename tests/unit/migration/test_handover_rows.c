/* tests/model/handover_rows.pml, which SPIN walks over, and handover_step() say the same of every state and event. */
#include "tests/unit/test.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migration/handover.h"

#define NAME(what) [what] = #what

static const char *const states[HANDOVER_STATES] = {
    NAME(SOURCE_MOVING),     NAME(SOURCE_STOPPED),    NAME(SOURCE_ASKED),    NAME(SOURCE_RELEASING),
    NAME(SOURCE_RELEASED),   NAME(SOURCE_UNRESOLVED), NAME(SOURCE_AWAY),     NAME(SOURCE_HERE),
    NAME(TARGET_LOADING),    NAME(TARGET_PREPARED),   NAME(TARGET_STARTING), NAME(TARGET_REHEARSED),
    NAME(TARGET_UNRESOLVED), NAME(TARGET_RUNS),       NAME(TARGET_REFUSED),  NAME(TARGET_EMPTY),
};

static const char *const events[HANDOVER_EVENTS] = {
    NAME(HANDOVER_STOPPED),
    NAME(HANDOVER_OVERRUN),
    NAME(HANDOVER_SENT),
    NAME(HANDOVER_PREPARED),
    NAME(HANDOVER_PREPARED_MISMATCH),
    NAME(HANDOVER_WRITTEN),
    NAME(HANDOVER_WRITE_FAILED),
    NAME(HANDOVER_RUNNING),
    NAME(HANDOVER_REFUSED),
    NAME(HANDOVER_UNANSWERED),
    NAME(HANDOVER_TAKEN),
    NAME(HANDOVER_STORED),
    NAME(HANDOVER_LOADED),
    NAME(HANDOVER_LOAD_FAILED),
    NAME(HANDOVER_GO),
    NAME(HANDOVER_RETRACT),
    NAME(HANDOVER_STARTED),
    NAME(HANDOVER_START_FAILED),
    NAME(HANDOVER_ASK),
    NAME(HANDOVER_REHEARSED),
    NAME(HANDOVER_PEER_ERROR),
    NAME(HANDOVER_LINK_LOST),
    NAME(HANDOVER_SILENCE),
    NAME(HANDOVER_CANCEL),
    NAME(HANDOVER_RESOLVE_HERE),
    NAME(HANDOVER_RESOLVE_THERE),
};

static const struct {
    unsigned bit;
    const char *name;
} actions[] = {
#define ACTION(what)                                                                                                   \
    {                                                                                                                  \
        what, #what                                                                                                    \
    }
    ACTION(DO_FORGET_RELEASED), ACTION(DO_SEND_RETRACT),  ACTION(DO_RESUME),        ACTION(DO_WRITE_RELEASED),
    ACTION(DO_SEND_GO),         ACTION(DO_UNLOAD),        ACTION(DO_SEND_PREPARED), ACTION(DO_START),
    ACTION(DO_SEND_RUNNING),    ACTION(DO_WRITE_REFUSED), ACTION(DO_SEND_REFUSED),  ACTION(DO_SEND_RETRACTED),
    ACTION(DO_SEND_ERROR),      ACTION(DO_SEND_DONE),
};

enum { ACTIONS = sizeof(actions) / sizeof(actions[0]), TEXT_BYTES = 256 };

static struct handover_step said[HANDOVER_STATES][HANDOVER_EVENTS]; /* by the model */

static int find(const char *const *names, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (names[i] && strcmp(names[i], name) == 0)
            return i;
    fail_msg("handover_rows.pml: '%s' is no name of handover.h", name);
    return 0;
}

/* "0", or names with " | " between them. */
static unsigned read_actions(char *text)
{
    unsigned bits = 0;
    if (strcmp(text, "0") == 0)
        return 0;
    char *rest = text;
    for (char *name; (name = strtok_r(rest, " |", &rest));) {
        unsigned bit = 0;
        for (int i = 0; i < ACTIONS; i++)
            bit |= strcmp(actions[i].name, name) == 0 ? actions[i].bit : 0;
        if (!bit)
            fail_msg("handover_rows.pml: '%s' is no action of handover.h", name);
        bits |= bit;
    }
    return bits;
}

static unsigned read_rows(void)
{
    char line[TEXT_BYTES], state[TEXT_BYTES], event[TEXT_BYTES], next[TEXT_BYTES], todo[TEXT_BYTES];
    unsigned rows = 0;
    for (int s = 0; s < HANDOVER_STATES; s++)
        for (int e = 0; e < HANDOVER_EVENTS; e++)
            said[s][e] = (struct handover_step){ (enum handover_state)s, 0 };
    FILE *file = fopen("tests/model/handover_rows.pml", "r");
    if (!file)
        fail_msg("tests/model/handover_rows.pml cannot be read: run this from the top folder");
    while (fgets(line, sizeof(line), file)) {
        if (strncmp(line, "ROW(", 4) != 0)
            continue;
        assert_int_equal(sscanf(line, "ROW(%[^,], %[^,], %[^,], %[^)])", state, event, next, todo), 4);
        int at = find(states, HANDOVER_STATES, state), when = find(events, HANDOVER_EVENTS, event);
        said[at][when].state = (enum handover_state)find(states, HANDOVER_STATES, next);
        said[at][when].actions = read_actions(todo);
        rows++;
    }
    fclose(file);
    return rows;
}

static void the_model_has_the_rows_of_the_table(void **state)
{
    (void)state;
    unsigned rows = read_rows(), expected = 0;
    for (int s = 0; s < HANDOVER_STATES; s++)
        for (int e = 0; e < HANDOVER_EVENTS; e++) {
            struct handover_step step = handover_step((enum handover_state)s, (enum handover_event)e);
            expected += (int)step.state != s || step.actions;
            if (step.state != said[s][e].state || step.actions != said[s][e].actions)
                fail_msg("%s, %s: to %s with actions 0x%x, and in the model to %s with 0x%x", states[s], events[e],
                         states[step.state], step.actions, states[said[s][e].state], said[s][e].actions);
        }
    assert_int_equal(rows, expected); /* none twice */
}

/* It performs them by the numbers that it gives them. */
static void the_model_has_the_bits_of_the_actions(void **state)
{
    (void)state;
    char line[TEXT_BYTES], name[TEXT_BYTES];
    char bit[TEXT_BYTES];
    unsigned seen = 0;
    FILE *file = fopen("tests/model/handover.pml", "r");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file)) {
        if (sscanf(line, "#define %s %s", name, bit) != 2 || strncmp(name, "DO_", 3) != 0)
            continue;
        for (int i = 0; i < ACTIONS; i++)
            if (strcmp(actions[i].name, name) == 0) {
                assert_int_equal(strtoul(bit, NULL, 10), actions[i].bit);
                seen++;
            }
    }
    fclose(file);
    assert_int_equal(seen, ACTIONS);
}

static void every_name_is_known(void **state)
{
    (void)state;
    for (int s = 0; s < HANDOVER_STATES; s++)
        assert_non_null(states[s]);
    for (int e = 0; e < HANDOVER_EVENTS; e++)
        assert_non_null(events[e]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_name_is_known),
        cmocka_unit_test(the_model_has_the_rows_of_the_table),
        cmocka_unit_test(the_model_has_the_bits_of_the_actions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
