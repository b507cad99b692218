/* The quota by itself, with harts that follow a script and a clock that is made up. */
#include "tests/unit/test.h"

#include "memory/quota.h"

#define MS INT64_C(1000000)

struct script { /* a hart: touches a page every `each_ns` that it runs, one of `per_fresh` of them fresh */
    struct quota quota;
    int64_t each_ns, now_ns, worst_hold_ns;
    unsigned per_fresh;
    uint64_t touched, fresh;
};

static struct script hart(int64_t each_ns, unsigned per_fresh)
{
    return (struct script){ .each_ns = each_ns, .per_fresh = per_fresh, .now_ns = 5000 * MS };
}

/* As the engine does it: a mark, and a hold at the safe point behind it. */
static void touch(struct script *s)
{
    bool fresh = s->touched++ % s->per_fresh == 0;

    s->fresh += fresh;
    s->now_ns += s->each_ns;
    quota_window(&s->quota, (uint32_t)(s->now_ns / (100 * MS)) + 1);
    bool counted = quota_count(&s->quota, s->touched, fresh);
    if (!quota_is_set(&s->quota) || !quota_spend(&s->quota, counted, fresh, s->now_ns))
        return;
    int64_t until_ns = quota_hold_until(&s->quota, s->now_ns);
    if (!until_ns)
        return;
    s->worst_hold_ns = until_ns - s->now_ns > s->worst_hold_ns ? until_ns - s->now_ns : s->worst_hold_ns;
    quota_held(&s->quota, s->now_ns, until_ns, until_ns);
    s->now_ns = until_ns;
}

static void run_until(struct script *s, int64_t until_ns)
{
    while (s->now_ns < until_ns)
        touch(s);
}

static void run_for(struct script *s, int64_t ns)
{
    run_until(s, s->now_ns + ns);
}

static void without_a_quota_marks_are_counted_and_nobody_is_held(void **state)
{
    (void)state;
    struct script s = hart(10000, 4);
    struct quota_stats stats;

    run_for(&s, 100 * MS);
    quota_stats(&s.quota, &stats);
    assert_int_equal(stats.touched, s.touched);
    assert_int_equal(stats.fresh, s.fresh);
    assert_int_equal(stats.holds, 0);
}

static void a_page_is_touched_once_in_a_window(void **state)
{
    (void)state;
    struct quota quota = { 0 };
    struct quota_stats stats;

    assert_false(quota_count(&quota, 7, true)); /* nobody wants to know */
    quota_window(&quota, 1);
    assert_true(quota_count(&quota, 7, true));
    for (int i = 0; i < 5; i++)
        assert_false(quota_count(&quota, 7, false));
    assert_true(quota_count(&quota, 7, true)); /* harvested meanwhile */
    assert_true(quota_count(&quota, 8, false));
    quota_window(&quota, 2);
    assert_true(quota_count(&quota, 7, false));
    assert_true(quota_count(&quota, 0, false));
    quota_stats(&quota, &stats);
    assert_int_equal(stats.touched, 5);
    assert_int_equal(stats.fresh, 2);
    quota_window(&quota, 0);
    assert_false(quota_count(&quota, 9, true));
    quota_stats(&quota, &stats);
    assert_int_equal(stats.fresh, 2);
}

static void a_hart_below_its_quota_is_never_held(void **state)
{
    (void)state;
    struct script s = hart(100000, 1);
    struct quota_stats stats;

    quota_set(&s.quota, 10100, 0); /* it wants 10,000 a second */
    run_for(&s, 1000 * MS);
    quota_stats(&s.quota, &stats);
    assert_int_equal(stats.holds, 0);
    /* and one that comes in bursts is not either */
    quota_set(&s.quota, 5000, 0);
    for (int i = 0; i < 20; i++) {
        s.now_ns += 60 * MS;
        for (int page = 0; page < 200; page++)
            touch(&s);
    }
    quota_stats(&s.quota, &stats);
    assert_int_equal(stats.holds, 0);
}

static void one_above_it_gets_its_quota_in_holds_below_a_millisecond(void **state)
{
    (void)state;
    struct script s = hart(20000, 1);
    struct quota_stats stats;

    quota_set(&s.quota, 12800, 0);
    run_for(&s, 100 * MS); /* what was saved up goes */
    uint64_t before = s.fresh;
    run_for(&s, 1000 * MS);
    assert_in_range(s.fresh - before, 12600, 12900);
    quota_stats(&s.quota, &stats);
    assert_true(s.worst_hold_ns <= QUOTA_HOLD_MAX_NS);
    assert_int_equal(stats.longest_ns, s.worst_hold_ns);
    assert_int_equal(stats.long_ns, 0);
    assert_int_equal(stats.cut_short, 0);
    assert_true(stats.held_ns / stats.holds >= QUOTA_HOLD_MIN_NS);
}

static void a_hart_behind_with_its_work_is_not_held(void **state)
{
    (void)state;
    for (unsigned per_fresh = 1; per_fresh <= 4; per_fresh++) {
        struct script s = hart(20000, per_fresh); /* 50,000 touches a second */
        quota_set(&s.quota, 100, 25000);
        run_for(&s, 100 * MS);
        for (int i = 0; i < 20; i++) {
            uint64_t before = s.touched;
            run_for(&s, 100 * MS);
            assert_in_range(s.touched - before, 2490, 2900); /* half, in any 100 ms */
        }
    }
}

/* A hart that was above its share, which only pages slowed down, owes nothing for that when it comes to the floor: the least
 * of any 100 ms, from wherever they begin. */
static void work_done_before_is_not_held_against_it(void **state)
{
    (void)state;
    enum { SLOTS = 400, SLOT_NS = 1000000, WINDOW = 100 };
    struct script s = hart(20000, 4); /* 50,000 touches a second, 12,500 fresh */
    uint64_t at[SLOTS];

    quota_set(&s.quota, 9000, 25000); /* by pages it keeps 72 % */
    run_for(&s, 200 * MS);
    for (int64_t i = 0, from_ns = s.now_ns; i < SLOTS; i++) {
        if (i == SLOTS / 2)
            s.per_fresh = 1; /* its places change: by pages it would keep 18 % */
        run_until(&s, from_ns + (i + 1) * SLOT_NS);
        at[i] = s.touched;
    }
    for (int i = WINDOW; i < SLOTS; i++)
        assert_true(at[i] - at[i - WINDOW] >= 2450);
}

static void holds_are_sorted_by_their_length(void **state)
{
    (void)state;
    struct quota quota = { 0 };
    struct quota_stats stats, before;

    quota_window(&quota, 1);
    quota_held(&quota, 0, MS, 62500);
    quota_held(&quota, 0, MS, 62501);
    quota_stats(&quota, &before);
    quota_held(&quota, 0, MS, MS);
    quota_held(&quota, 0, MS, 3600 * 1000 * MS);
    quota_stats(&quota, &stats);
    assert_int_equal(stats.length[0], 1);
    assert_int_equal(stats.length[1], 1);
    assert_int_equal(quota_length_ns(4), MS); /* where long ones begin is where a class ends */
    assert_int_equal(stats.length[4], 1);
    assert_int_equal(stats.length[QUOTA_LENGTHS - 1], 1);
    quota_since(&stats, &before);
    assert_int_equal(stats.length[0] + stats.length[1], 0);
    assert_int_equal(stats.holds, 2);
    assert_int_equal(stats.held_ns, MS + 3600 * 1000 * MS);
    quota_window(&quota, 0);
    quota_window(&quota, 1); /* the next migration's longest */
    quota_stats(&quota, &stats);
    assert_int_equal(stats.longest_ns, 0);
}

static void the_tightest_quota_leaves_a_page_per_hold(void **state)
{
    (void)state;
    struct script s = hart(10000, 1);

    quota_set(&s.quota, 1, 0);
    run_for(&s, 1000 * MS);
    assert_true(s.fresh >= 1000 * MS / (QUOTA_HOLD_MAX_NS + 10000));
    assert_true(s.worst_hold_ns <= QUOTA_HOLD_MAX_NS);
}

static void a_quota_taken_back_ends_what_was_owed(void **state)
{
    (void)state;
    struct script s = hart(10000, 1);

    quota_set(&s.quota, 1, 0);
    run_for(&s, 100 * MS);
    while (!quota_spend(&s.quota, true, true, s.now_ns))
        continue;
    quota_set(&s.quota, 0, 0);
    assert_int_equal(quota_hold_until(&s.quota, s.now_ns), 0);
    assert_false(quota_is_set(&s.quota));
    quota_set(&s.quota, 1e6, 0); /* and a later, wider one does not remember it for long */
    s.now_ns += 20 * MS;
    assert_false(quota_spend(&s.quota, true, true, s.now_ns));
}

static void long_holds_and_short_ones_are_told_apart(void **state)
{
    (void)state;
    struct quota quota = { 0 };
    struct quota_stats stats;

    quota_held(&quota, 0, MS / 2, MS / 4);
    quota_held(&quota, 0, MS / 2, 3 * MS);
    quota_stats(&quota, &stats);
    assert_int_equal(stats.holds, 2);
    assert_int_equal(stats.cut_short, 1);
    assert_int_equal(stats.long_ns, 3 * MS);
    assert_int_equal(stats.longest_ns, 3 * MS);
    assert_int_equal(stats.held_ns, 3 * MS + MS / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_quota_marks_are_counted_and_nobody_is_held),
        cmocka_unit_test(a_page_is_touched_once_in_a_window),
        cmocka_unit_test(a_hart_below_its_quota_is_never_held),
        cmocka_unit_test(one_above_it_gets_its_quota_in_holds_below_a_millisecond),
        cmocka_unit_test(a_hart_behind_with_its_work_is_not_held),
        cmocka_unit_test(work_done_before_is_not_held_against_it),
        cmocka_unit_test(holds_are_sorted_by_their_length),
        cmocka_unit_test(the_tightest_quota_leaves_a_page_per_hold),
        cmocka_unit_test(a_quota_taken_back_ends_what_was_owed),
        cmocka_unit_test(long_holds_and_short_ones_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
