/* `auto-converge` on two machines: hart 0 walks its pages as fast as it can, hart 1 sleeps, and the cap is far too low for
 * that. Who is held, that all of it is taken back whatever the end, and that nothing is lost meanwhile. */
#include "tests/unit/migration/two_machines.h"

static const struct shape shape = { .harts = 2, .ram_bytes = 16 * MIB };

static int setup(void **state)
{
    (void)state;
    return make_both(&shape);
}

static int teardown(void **state)
{
    (void)state;
    return drop_both();
}

static struct migration_info info_of(struct side *side)
{
    struct migration_info info;

    migration_query(side->migration, &info);
    return info;
}

/* The guest runs, and a migration that cannot end: no pause is as short as the limit. */
static void begin(bool throttles)
{
    static char uri[128];
    struct err err = { 0 };

    assert_int_equal(machine_resume(a.machine, false, NULL), 0);
    let_it_walk(&a);
    set(&a, "compression", "none");
    set(&a, "max-bandwidth", "16M");
    set(&a, "downtime-limit", "0");
    set(&a, "on-stall", "continue");
    set(&a, "cpu-throttle-initial", "20");
    set(&a, "max-cpu-throttle", "90");
    assert_int_equal(capability_set(migration_params_of(a.migration), "auto-converge", throttles, NULL), 0);
    snprintf(uri, sizeof(uri), "unix:%s/socket", folder);
    if (migration_incoming(b.migration, uri, true, &err) < 0 || migration_start(a.migration, uri, &err) < 0)
        fail_msg("%s", err.text);
}

static void wait_until(bool (*met)(const struct migration_info *info), const char *what)
{
    int64_t until_ns = clock_now_ns() + PATIENCE_MS * (int64_t)NS_PER_MS;
    struct migration_info info = info_of(&a);

    for (; !met(&info); info = info_of(&a)) {
        if (clock_now_ns() > until_ns)
            fail_msg("waited for %s", what);
        if (info.state == MIGRATION_FAILED || info.state == MIGRATION_COMPLETED)
            fail_msg("it ended: %s", info.error.text);
        sched_yield();
    }
}

static bool held_a_while(const struct migration_info *info)
{
    return info->vcpus == 2 && info->quota[0].holds >= 100;
}

static bool in_its_fourth_round(const struct migration_info *info)
{
    return info->rounds >= 4;
}

static bool free_again(const struct migration_info *info)
{
    return info->quota[0].page_ns == 0;
}

static void assert_free(struct side *side)
{
    struct quota_stats stats[DIRTY_WRITERS_MAX];

    assert_int_equal(dirty_quota_stats(machine_ram(side->machine)->dirty, stats), 2);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(stats[i].page_ns, 0);
}

static void the_hart_that_walks_is_held_and_the_one_that_sleeps_is_not(void **state)
{
    (void)state;
    begin(true);
    wait_until(held_a_while, "the hart that walks to be held");
    struct migration_info info = info_of(&a);
    assert_int_equal(info.quota[1].holds, 0);
    assert_int_equal(info.quota[1].page_ns, 0);
    assert_true(info.quota[0].held_ns > 0);
    let_it_walk(&a); /* slower, but it does */

    set(&a, "downtime-limit", "2000");
    set(&a, "max-bandwidth", "0");
    assert_true(migration_wait(a.migration, PATIENCE_MS));
    assert_int_equal(info_of(&a).state, MIGRATION_COMPLETED);
    assert_true(migration_wait(b.migration, PATIENCE_MS));
    assert_free(&a);
    assert_int_equal(info_of(&a).throttle_percent, 0);
    assert_true(info_of(&a).quota[0].holds >= 100); /* the report keeps it */
    let_it_walk(&b);
    assert_staircase(&b);
}

static void nobody_is_held_without_the_capability(void **state)
{
    (void)state;
    begin(false);
    wait_until(in_its_fourth_round, "four rounds");
    struct migration_info info = info_of(&a);
    assert_int_equal(info.vcpus, 0);
    assert_int_equal(info.quota[0].holds, 0);
    assert_free(&a);
}

static void a_cancel_takes_it_back(void **state)
{
    (void)state;
    begin(true);
    wait_until(held_a_while, "the hart that walks to be held");
    assert_int_equal(migration_cancel(a.migration), 0);
    assert_true(migration_wait(a.migration, PATIENCE_MS));
    assert_int_equal(info_of(&a).state, MIGRATION_CANCELLED);
    assert_free(&a);
    let_it_walk(&a);
    assert_staircase(&a);
}

static void the_capability_can_be_taken_away_meanwhile(void **state)
{
    (void)state;
    begin(true);
    wait_until(held_a_while, "the hart that walks to be held");
    assert_int_equal(capability_set(migration_params_of(a.migration), "auto-converge", false, NULL), 0);
    wait_until(free_again, "the quota to go");
    let_it_walk(&a);
}

static void stalls(const char *on_stall)
{
    set(&a, "stall-rounds", "2");
    set(&a, "stall-time", "0");
    begin(true);
    set(&a, "on-stall", on_stall);
    assert_true(migration_wait(a.migration, PATIENCE_MS));
}

/* Nothing is as short as a limit of 0 ms: said with what is missing and what would help, and the guest goes on, free. */
static void what_cannot_fit_is_given_up_with_the_reason(void **state)
{
    (void)state;
    stalls("give-up");
    struct migration_info info = info_of(&a);
    assert_int_equal(info.state, MIGRATION_FAILED);
    assert_int_equal(info.where, GUEST_HERE);
    assert_non_null(strstr(info.error.text, "rounds no longer make the pause shorter"));
    assert_non_null(strstr(info.error.text, "0 are allowed"));
    assert_non_null(strstr(info.error.text, "ms of it"));
    unsigned long ms = 0;
    const char *help = strstr(info.error.text, "; downtime-limit ");
    assert_non_null(help);
    assert_int_equal(sscanf(help, "; downtime-limit %lu", &ms), 1);
    assert_in_range(ms, 1, 2000000);
    assert_non_null(strstr(help, "would do"));
    assert_free(&a);
    let_it_walk(&a);
    assert_staircase(&a);
}

static void or_ends_with_the_best_pause_that_there_is(void **state)
{
    (void)state;
    stalls("stop");
    struct migration_info info = info_of(&a);
    if (info.state != MIGRATION_COMPLETED)
        fail_msg("%s", info.error.text);
    assert_true(info.downtime_ms > 0);
    let_it_walk(&b);
    assert_staircase(&b);
}

static void a_failure_takes_it_back(void **state)
{
    (void)state;
    begin(true);
    wait_until(held_a_while, "the hart that walks to be held");
    drop_side(&b);
    assert_true(migration_wait(a.migration, PATIENCE_MS));
    assert_int_equal(info_of(&a).state, MIGRATION_FAILED);
    assert_free(&a);
    let_it_walk(&a);
    assert_staircase(&a);
    make_side(&b, true, &shape);
}

static void giving_up_says_what_would_allow_more(void **state)
{
    (void)state;
    begin(true);
    wait_until(held_a_while, "the hart that walks to be held");
    set(&a, "max-rounds", "1");
    assert_true(migration_wait(a.migration, PATIENCE_MS));
    struct migration_info info = info_of(&a);
    assert_int_equal(info.state, MIGRATION_FAILED);
    if (!strstr(info.error.text, "max-cpu-throttle"))
        fail_msg("%s", info.error.text);
    assert_free(&a);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_hart_that_walks_is_held_and_the_one_that_sleeps_is_not),
        TEST(nobody_is_held_without_the_capability),
        TEST(a_cancel_takes_it_back),
        TEST(the_capability_can_be_taken_away_meanwhile),
        TEST(a_failure_takes_it_back),
        TEST(what_cannot_fit_is_given_up_with_the_reason),
        TEST(or_ends_with_the_best_pause_that_there_is),
        TEST(giving_up_says_what_would_allow_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
