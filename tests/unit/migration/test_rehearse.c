/* A rehearsal between two machines: the guest is loaded, checked and dropped there, and runs on here; then it moves. */
#include "tests/unit/migration/two_machines.h"

#include "memory/dirty.h"
#include "migration/rehearse.h"

static const struct shape shape = { .harts = 2, .ram_bytes = 16 * MIB };
static char address[96];

static int setup(void **state)
{
    (void)state;
    if (make_both(&shape) < 0)
        return -1;
    snprintf(address, sizeof(address), "unix:%s/there", folder);
    return machine_resume(a.machine, false, NULL);
}

static int teardown(void **state)
{
    (void)state;
    return drop_both();
}

static void wait_there(void)
{
    struct err err = { 0 };
    if (migration_incoming(b.migration, address, true, &err) < 0)
        fail_msg("incoming: %s", err.text);
}

static struct migration_info ends(enum migration_state state)
{
    struct migration_info info;
    assert_true(migration_wait(a.migration, PATIENCE_MS));
    migration_query(a.migration, &info);
    if (info.state != state)
        fail_msg("%s, expected %s: %s", migration_state_name(info.state), migration_state_name(state), info.error.text);
    return info;
}

static struct migration_info rehearse(void)
{
    struct err err = { 0 };
    if (migration_rehearse(a.migration, address, &err) < 0)
        fail_msg("rehearse: %s", err.text);
    return ends(MIGRATION_COMPLETED);
}

static struct migration_info there(void)
{
    struct migration_info info;
    migration_query(b.migration, &info);
    return info;
}

static void wait_rehearsals(unsigned count)
{
    int64_t until_ns = clock_now_ns() + PATIENCE_MS * (int64_t)NS_PER_MS;
    while (there().rehearsals < count || there().state != MIGRATION_SETUP) {
        if (clock_now_ns() > until_ns)
            fail_msg("%u rehearsals, %s, and %u are expected", there().rehearsals, migration_state_name(there().state),
                     count);
        sched_yield();
    }
}

static void assert_as_if_nothing_had_been(void)
{
    assert_int_equal(machine_state(a.machine), RUN_RUNNING);
    assert_false(dirty_client_on(machine_ram(a.machine)->dirty, DIRTY_MIGRATION));
    assert_int_equal(written_down(), 0);
    let_it_walk(&a);
}

static void the_guest_runs_on_here_and_what_was_loaded_there_is_dropped(void **state)
{
    (void)state;
    wait_there();
    let_it_walk(&a);
    struct migration_info info = rehearse();
    assert_int_equal(info.where, GUEST_HERE);
    assert_true(info.dropped);
    assert_true(info.predicted_downtime_ms > 0 && info.downtime_ms > 0 && info.held_ms > 0);
    assert_as_if_nothing_had_been();
    wait_rehearsals(1);
    assert_int_equal(machine_state(b.machine), RUN_INMIGRATE);
    assert_int_equal(page_counter(&b, 0), 0); /* its memory too */
}

static void the_next_ones_find_the_destination_as_the_first_did(void **state)
{
    (void)state;
    wait_there();
    let_it_walk(&a);
    for (unsigned i = 1; i <= 3; i++) {
        rehearse();
        assert_as_if_nothing_had_been();
        wait_rehearsals(i);
    }
    assert_int_equal(migration_start(a.migration, address, NULL), 0);
    ends(MIGRATION_COMPLETED);
    assert_true(migration_wait(b.migration, PATIENCE_MS));
    assert_int_equal(there().state, MIGRATION_COMPLETED);
    assert_int_equal(machine_state(a.machine), RUN_POSTMIGRATE);
    let_it_walk(&b);
    assert_staircase(&b);
}

static void a_guest_that_stands_still_may_be_rehearsed(void **state)
{
    (void)state;
    wait_there();
    let_it_walk(&a);
    machine_pause(a.machine, RUN_PAUSED);
    struct migration_info info = rehearse();
    assert_true(info.held_ms == 0);
    assert_int_equal(machine_state(a.machine), RUN_PAUSED);
    wait_rehearsals(1);
}

static void where_nobody_answers_it_is_refused(void **state)
{
    (void)state;
    struct err err = { 0 };
    assert_int_equal(migration_rehearse(a.migration, "exec:cat >/dev/null", &err), -EINVAL);
    assert_non_null(strstr(err.text, "nobody answers"));
    err_clear(&err);
    assert_int_equal(migration_rehearse(a.migration, "file:/dev/null", &err), -EINVAL);
    assert_non_null(strstr(err.text, "nobody answers"));
    assert_as_if_nothing_had_been();
}

/* The limit is kept by letting the guest go, not by hoping. */
static void a_limit_that_cannot_be_kept_ends_it_with_the_guest_here(void **state)
{
    (void)state;
    wait_there();
    let_it_walk(&a);
    set(&a, "downtime-limit", "0");
    set(&a, "max-rounds", "3");
    assert_int_equal(migration_rehearse(a.migration, address, NULL), 0);
    struct migration_info info = ends(MIGRATION_FAILED);
    assert_non_null(strstr(info.error.text, "given up"));
    assert_as_if_nothing_had_been();
    wait_rehearsals(1);
    set(&a, "downtime-limit", "2000");
    set(&a, "max-rounds", "0");
    rehearse();
    wait_rehearsals(2);
}

static void the_guest_is_let_go_before_its_limit_and_a_migrations_only_after(void **state)
{
    (void)state;
    struct converge_policy policy = { .downtime_limit_ns = 30 * NS_PER_MS };
    assert_true(rehearse_pause_ns(&policy) > 0);
    assert_true(rehearse_pause_ns(&policy) < policy.downtime_limit_ns);
    assert_true(converge_overrun_ns(&policy) > policy.downtime_limit_ns);
    policy.guest_paused = true; /* nobody feels it */
    assert_true(rehearse_pause_ns(&policy) == INT64_MAX);
}

static void a_cancel_at_the_destination_ends_its_waiting(void **state)
{
    (void)state;
    wait_there();
    rehearse();
    wait_rehearsals(1);
    assert_int_equal(migration_cancel(b.migration), 0);
    assert_true(migration_wait(b.migration, PATIENCE_MS));
    assert_int_equal(there().state, MIGRATION_CANCELLED);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_guest_runs_on_here_and_what_was_loaded_there_is_dropped),
        TEST(the_next_ones_find_the_destination_as_the_first_did),
        TEST(a_guest_that_stands_still_may_be_rehearsed),
        TEST(where_nobody_answers_it_is_refused),
        TEST(a_limit_that_cannot_be_kept_ends_it_with_the_guest_here),
        TEST(a_cancel_at_the_destination_ends_its_waiting),
        cmocka_unit_test(the_guest_is_let_go_before_its_limit_and_a_migrations_only_after),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
