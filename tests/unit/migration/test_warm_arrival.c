/* Two machines: what the guest runs is told to the other side before it is there, when that is wanted; and the steps of the
 * hand-over, which both sides note. */
#include "tests/unit/migration/two_machines.h"

enum { MOVES_MAX = 20 };

static int setup(void **state)
{
    (void)state;
    if (make_both(&(struct shape){ .harts = 2, .ram_bytes = 32 * MIB }) < 0)
        return -1;
    assert_int_equal(machine_resume(a.machine, false, NULL), 0);
    let_it_walk(&a);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return drop_both();
}

static struct migration_info moved(const char *warm)
{
    struct migration_info info;
    struct err err = { 0 };
    char uri[128];
    snprintf(uri, sizeof(uri), "unix:%s/socket", folder);
    set(&a, "warm-arrival", warm);
    assert_int_equal(migration_incoming(b.migration, uri, true, &err), 0);
    assert_int_equal(migration_start(a.migration, uri, &err), 0);
    assert_true(migration_wait(a.migration, PATIENCE_MS) && migration_wait(b.migration, PATIENCE_MS));
    migration_query(b.migration, &info);
    if (info.state != MIGRATION_COMPLETED)
        fail_msg("%s: %s", migration_state_name(info.state), info.error.text);
    let_it_walk(&b);
    migration_query(b.migration, &info);
    assert_staircase(&b);
    return info;
}

/* How much of it is made in the time there is, is not said; test_warm_list.c says what is made. */
static void what_the_guest_runs_is_told_before_it_arrives(void **state)
{
    (void)state;
    struct migration_info info = moved("on");
    if (!machine_jit(b.machine))
        skip();
    /* It is watched for 10 ms, and a busy host may not run it at all in so little: then it moves again. */
    for (unsigned more = 0; more < MOVES_MAX && info.arrival.listed == 0; more++) {
        assert_int_equal(drop_both(), 0);
        assert_int_equal(setup(state), 0);
        info = moved("on");
    }
    assert_true(info.arrival.listed > 0);
    assert_true(info.arrival.warmed <= info.arrival.listed);
    assert_int_equal(info.arrival.dropped, 0);
}

static void nothing_goes_ahead_when_it_is_not_wanted(void **state)
{
    (void)state;
    struct migration_info info = moved("off");
    assert_int_equal(info.arrival.listed, 0);
    assert_int_equal(info.arrival.warmed, 0);
}

static void how_it_started_is_looked_at(void **state)
{
    (void)state;
    struct migration_info info = moved("on");
    int64_t until_ns = clock_now_ns() + PATIENCE_MS * (int64_t)NS_PER_MS;
    while (!info.arrival.start[MACHINE_STARTS - 1].after_ns && clock_now_ns() < until_ns) {
        sched_yield();
        migration_query(b.migration, &info);
    }
    assert_true(info.arrival.start[MACHINE_STARTS - 1].after_ns > info.arrival.start[0].after_ns);
    assert_true(info.arrival.start[MACHINE_STARTS - 1].instructions >= info.arrival.start[0].instructions);
    assert_true(info.arrival.start[MACHINE_STARTS - 1].cpu_ns > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_the_guest_runs_is_told_before_it_arrives, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_goes_ahead_when_it_is_not_wanted, setup, teardown),
        cmocka_unit_test_setup_teardown(how_it_started_is_looked_at, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
