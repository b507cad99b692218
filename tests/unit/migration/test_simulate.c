/* The controller on paper: every case of bench/simulate_cases.h ends, or does not, as it says there, alone and throttled;
 * within the limit; and harts keep what is promised to them. And the parts of the controller by themselves. */
#include "tests/unit/test.h"

#include "bench/simulate_cases.h"

static void check_end(const struct sim_case *c, bool throttles)
{
    struct sim_result r = sim_play(c, throttles);
    double within_s = throttles ? c->held_s : c->alone_s;
    double least =
        0.99 - (c->share_max > 0 ? c->share_max : 0.5); /* work is known by the pages that it touches: +-1 % */

    if (r.completed != (within_s > 0) || (r.completed && r.total_s > within_s))
        fail_msg("%s: %s after %.2f s; expected: %.0f s", throttles ? "throttled" : "alone",
                 r.completed ? "moved" : "given up", r.total_s, within_s);
    if (r.completed && r.got_ms > c->limit_ms)
        fail_msg("a pause of %.1f ms, and %.0f was the limit", r.got_ms, c->limit_ms);
    /* The best of all moments, found by trying every millisecond; short ones are not asked for hundredths of a second. */
    double most_s = r.best_s * (c->ratio > 0 ? c->ratio : 1.2) + 0.3;
    if (r.completed && r.total_s > most_s)
        fail_msg("over after %.2f s, and at best %.2f", r.total_s, r.best_s);
    /* One round, most of it zeroes, says too little of what a page costs; and a line that stands still may do so in the pause. */
    bool foreseeable = r.completed && r.rounds > 1 && c->link.stall_ms <= 0;
    if (foreseeable && (r.got_ms < r.lower_ms - 5 || r.got_ms > r.upper_ms + 5))
        fail_msg("a pause of %.1f ms, and %.1f to %.1f were foreseen", r.got_ms, r.lower_ms, r.upper_ms);
    for (unsigned i = 0; i < c->guest.harts; i++) {
        bool hot = r.held[i] > 0;
        if (!throttles && hot)
            fail_msg("hart %u was held, and nobody throttles", i);
        if (i > 0 && r.work[i] < 0.95)
            fail_msg("hart %u, which dirties little, kept %.0f %%", i, r.work[i] * 100);
        if (r.worst[i] < least)
            fail_msg("hart %u kept %.0f %% in some 100 ms", i, r.worst[i] * 100);
    }
}

static void a_case_ends_as_it_says(void **state)
{
    check_end(*state, false);
    check_end(*state, true);
}

/* --- the throttle by itself ------------------------------------------------------------------------------------ */

struct scene {
    struct throttle throttle;
    struct quota_stats stats[3];
    struct throttle_need need;
};

static struct scene *scene(void)
{
    static struct scene s;

    s = (struct scene){ .need = { .wanted = true, .clear_units_per_s = 20000, .left_units = 50000, .share_max = 0.5 } };
    throttle_init(&s.throttle, NULL, 0);
    return &s;
}

static bool tick(struct scene *s, const double fresh_per_s[3])
{
    for (unsigned i = 0; i < 3; i++) {
        s->stats[i].fresh += (uint64_t)(fresh_per_s[i] / 10);
        s->stats[i].touched += (uint64_t)(fresh_per_s[i] / 5);
    }
    return throttle_tick(&s->throttle, THROTTLE_TICK_NS, s->stats, 3, &s->need);
}

static void only_harts_above_the_level_get_a_quota(void **state)
{
    (void)state;
    struct scene *s = scene();

    s->need.share_max = 0.95;
    assert_true(tick(s, (double[]){ 1000, 30000, 2000 }));
    assert_true(s->throttle.order[0].pages_per_s == 0 && s->throttle.order[2].pages_per_s == 0);
    /* 10,000 for all, of which the others take 3,000 */
    assert_float_equal(s->throttle.order[1].pages_per_s, 7000, 1);
    assert_true(s->throttle.order[1].work_per_s >= 3000); /* it touches 60,000 */

    s = scene();
    s->need.share_max = 0.95;
    assert_true(tick(s, (double[]){ 1000, 30000, 40000 }));
    assert_true(s->throttle.order[0].pages_per_s == 0);
    assert_float_equal(s->throttle.order[1].pages_per_s, 4500, 1);
    assert_float_equal(s->throttle.order[2].pages_per_s, 4500, 1);
}

/* Half of its pace is more than its share of the link by far: it is held to that half at once, and not when little is left. */
static void who_cannot_be_held_to_the_level_is_held_as_far_as_may_be_at_once(void **state)
{
    (void)state;
    struct scene *s = scene();

    assert_true(tick(s, (double[]){ 1000, 30000, 2000 }));
    assert_float_equal(s->throttle.order[1].pages_per_s, 1, 0);
    assert_true(s->throttle.order[1].work_per_s >= 30000);
    assert_true(s->throttle.order[0].pages_per_s == 0 && s->throttle.order[2].pages_per_s == 0);
}

/* One that touches the same pages again and again: in half of a tick three quarters of what it touches in all of it. */
static void a_hart_keeps_what_it_touches_in_its_share_of_a_tick(void **state)
{
    (void)state;
    struct scene *s = scene();

    for (unsigned late = 0; late < 2; late++) {
        s->stats[1].touched += 4500;
        throttle_middle(&s->throttle, late ? 90000000 : 50000000, s->stats, 3);
        s->stats[1].touched += 1500;
        s->stats[1].fresh += 4000;
        assert_true(throttle_tick(&s->throttle, THROTTLE_TICK_NS, s->stats, 3, &s->need));
        assert_float_equal(s->throttle.order[1].work_per_s, 45000 * 1.02, 100);
    }
}

/* A quarter of memory was sent: what a hart dirties anew in that is a quarter of what it will. */
static void in_the_first_round_a_hart_is_known_by_what_can_be_fresh(void **state)
{
    (void)state;
    for (unsigned sent = 0; sent < 2; sent++) {
        struct scene *s = scene();
        s->need.sent_share = sent ? 0.25 : 0;
        assert_true(tick(s, (double[]){ 100, 6000, 200 }) == (sent > 0));
        assert_true((s->throttle.order[1].pages_per_s > 0) == (sent > 0));
        assert_true(s->throttle.order[0].pages_per_s == 0 && s->throttle.order[2].pages_per_s == 0);
    }
}

/* Let go for a tick it makes up for what it was held back from: looking again and again must not raise what it keeps. */
static void what_is_made_up_for_is_no_wish(void **state)
{
    (void)state;
    struct scene *s = scene();

    assert_true(tick(s, (double[]){ 0, 30000, 0 }));
    double wish = s->throttle.hart[1].touched_per_s;
    for (unsigned i = 0; i < 20 * THROTTLE_FREE_TICKS; i++) {
        bool held = s->throttle.order[1].pages_per_s > 0;
        s->stats[1].held_ns += held ? 50000000 : 0;
        tick(s, (double[]){ 0, held ? 15000 : 32500, 0 });
    }
    assert_float_equal(s->throttle.hart[1].touched_per_s, wish, 1);
}

static void nobody_gets_one_while_the_link_keeps_up(void **state)
{
    (void)state;
    struct scene *s = scene();

    assert_false(tick(s, (double[]){ 3000, 3000, 3000 }));
    s->need.wanted = false;
    assert_false(tick(s, (double[]){ 90000, 90000, 90000 }));
    s->need.wanted = true;
    s->need.clear_units_per_s = 0; /* before the first round is over */
    assert_false(tick(s, (double[]){ 90000, 90000, 90000 }));
}

static void it_ends_when_the_guest_calms_down(void **state)
{
    (void)state;
    struct scene *s = scene();
    unsigned ticks = 0;

    assert_true(tick(s, (double[]){ 0, 90000, 0 }));
    s->stats[1].held_ns += 50000000;
    while (tick(s, (double[]){ 0, 100, 0 }) && ticks < 30)
        ticks++;
    assert_in_range(ticks, 1, 10);
    for (unsigned i = 0; i < 3; i++)
        assert_true(s->throttle.order[i].pages_per_s == 0);
}

static void a_held_hart_is_let_go_now_and_then_to_see_what_it_wants(void **state)
{
    (void)state;
    struct scene *s = scene();
    unsigned free = 0;

    for (unsigned i = 0; i < 3 * THROTTLE_FREE_TICKS; i++) {
        if (s->throttle.order[1].pages_per_s > 0)
            s->stats[1].held_ns += 50000000;
        free += !tick(s, (double[]){ 0, s->throttle.order[1].pages_per_s > 0 ? 10000.0 : 80000.0, 0 });
    }
    assert_in_range(free, 2, 3);
    /* One tick in which it does far more is not believed, but it stays free for a second. */
    double before = s->throttle.hart[1].touched_per_s;
    tick(s, (double[]){ 0, 300000, 0 });
    assert_float_equal(s->throttle.hart[1].touched_per_s, before, 1);
    assert_true(s->throttle.order[1].pages_per_s == 0);
    tick(s, (double[]){ 0, 200000, 0 });
    assert_float_equal(s->throttle.hart[1].touched_per_s, 400000, 10);
    assert_true(s->throttle.order[1].pages_per_s > 0);
    tick(s, (double[]){ 0, 0, 0 });
    assert_float_equal(s->throttle.hart[1].touched_per_s, 300000, 10);
}

static void nobody_is_let_go_when_the_end_is_near(void **state)
{
    (void)state;
    struct scene *s = scene();
    unsigned free = 0;

    s->need.fit_units = s->need.left_units / 2;
    for (unsigned i = 0; i < THROTTLE_FREE_LATEST + 2; i++) {
        if (s->throttle.order[1].pages_per_s > 0)
            s->stats[1].held_ns += 50000000;
        bool held = tick(s, (double[]){ 0, s->throttle.order[1].pages_per_s > 0 ? 10000.0 : 80000.0, 0 });
        free += !held;
        assert_true(held || i >= THROTTLE_FREE_LATEST - 1);
    }
    assert_int_equal(free, 1); /* and the end does not come for ever */
}

static void the_first_round_holds_harts_when_its_end_would_not_fit(void **state)
{
    (void)state;
    struct scene *s = scene();
    struct converge c;
    struct converge_costs costs;
    struct converge_policy policy = { .downtime_limit_ns = 100000000, .max_bytes_per_s = 100000000, .workers = 2 };
    /* 25,000 pages a second are sent, and a pause of 100 ms takes about 1,800 */
    struct converge_sample running = { .units_data = 25000, .wire_bytes = 25000 * 4100, .elapsed_ns = 1000000000 };

    converge_init(&c);
    converge_costs_init(&costs);
    s->need.wanted = false;
    tick(s, (double[]){ 0, 20000, 0 }); /* touches 40,000 a second */
    for (unsigned fits = 0; fits < 2; fits++) {
        /* sent, and dirty again: 150 more with every tick, or the same ones for ever */
        for (uint64_t behind = 100; behind <= 400; behind += 150) {
            running.dirty_units = 100000 + (fits ? 400 : behind);
            s->need = throttle_need(&s->throttle, &c, &policy, &costs, &running, 100000, 0.5);
        }
        assert_true(s->need.fit_units > 1000 && s->need.fit_units < 1900);
        assert_float_equal(s->need.clear_units_per_s, 25000, 1);
        assert_true(s->need.wanted == !fits);
    }
    running.dirty_units = 100000 + 5000;
    assert_true(throttle_need(&s->throttle, &c, &policy, &costs, &running, 100000, 0.5).wanted);
    running.elapsed_ns /= 2; /* 50,000 a second: the link keeps up */
    assert_false(throttle_need(&s->throttle, &c, &policy, &costs, &running, 100000, 0.5).wanted);
    running = (struct converge_sample){ .dirty_units = 100000 }; /* nothing was sent yet */
    assert_false(throttle_need(&s->throttle, &c, &policy, &costs, &running, 100000, 0.5).wanted);
}

static void a_round_is_cut_for_what_fits_and_asked_anew_for_a_changed_limit(void **state)
{
    (void)state;
    struct converge_policy begun = { .downtime_limit_ns = 10000000 }, now = begun;
    struct throttle_need need = { .fit_units = 1000, .left_units = 500, .clear_units_per_s = 20000 };

    assert_true(throttle_cuts(&need));
    need.left_units = 999; /* nearly, and more is dirtied until the pause */
    assert_false(throttle_cuts(&need));
    need.fit_units = 100000; /* so many that it hardly matters */
    need.left_units = 99000;
    assert_true(throttle_cuts(&need));
    need.left_units = 99500;
    assert_false(throttle_cuts(&need));
    assert_false(throttle_limit_changed(&begun, &now)); /* another round halves what is left */
    now.downtime_limit_ns = 300000000;
    assert_true(throttle_limit_changed(&begun, &now));
    now = begun;
    now.switchover_bytes_per_s = 1000000000;
    assert_true(throttle_limit_changed(&begun, &now));
    now = begun;
    now.max_bytes_per_s = 5; /* the writer heeds that by itself */
    assert_false(throttle_limit_changed(&begun, &now));
}

/* --- and what the controller says of the need ------------------------------------------------------------------- */

static void zero_pages_do_not_make_the_others_look_cheap(void **state)
{
    (void)state;
    struct converge c;
    struct converge_costs costs;
    struct converge_policy policy = { .downtime_limit_ns = 300000000, .workers = 2 };

    converge_init(&c);
    converge_costs_init(&costs);
    assert_true(converge_fit_units(&c, &policy, &costs) == 0 && converge_clear_units_per_s(&c) == 0);
    struct converge_sample sample = {
        .units_data = 2048, .units_zero = 65536, .wire_bytes = 2048 * 4100, .elapsed_ns = 70000000, .dirty_units = 2000
    };
    converge_add(&c, &sample);
    struct converge_verdict verdict = converge_decide(&c, &policy, &costs);
    assert_in_range(verdict.predicted_ns, 40000000, 90000000); /* 2000 times 34 us, not times 1 us */
    assert_float_equal(converge_clear_units_per_s(&c), 2048 / 0.07, 1);
    double fit = converge_fit_units(&c, &policy, &costs);
    assert_true(fit > 2000 && fit < 10000);
    policy.downtime_limit_ns = 1000000; /* below what any pause costs */
    assert_true(converge_fit_units(&c, &policy, &costs) == 0);
}

int main(void)
{
    static struct sim_case cases[SIM_CASES_MAX];
    static const struct CMUnitTest parts[] = {
        cmocka_unit_test(only_harts_above_the_level_get_a_quota),
        cmocka_unit_test(who_cannot_be_held_to_the_level_is_held_as_far_as_may_be_at_once),
        cmocka_unit_test(a_hart_keeps_what_it_touches_in_its_share_of_a_tick),
        cmocka_unit_test(in_the_first_round_a_hart_is_known_by_what_can_be_fresh),
        cmocka_unit_test(what_is_made_up_for_is_no_wish),
        cmocka_unit_test(nobody_gets_one_while_the_link_keeps_up),
        cmocka_unit_test(it_ends_when_the_guest_calms_down),
        cmocka_unit_test(a_held_hart_is_let_go_now_and_then_to_see_what_it_wants),
        cmocka_unit_test(nobody_is_let_go_when_the_end_is_near),
        cmocka_unit_test(the_first_round_holds_harts_when_its_end_would_not_fit),
        cmocka_unit_test(a_round_is_cut_for_what_fits_and_asked_anew_for_a_changed_limit),
        cmocka_unit_test(zero_pages_do_not_make_the_others_look_cheap),
    };
    enum { PARTS = sizeof(parts) / sizeof(*parts) };
    struct CMUnitTest tests[SIM_CASES_MAX + PARTS];
    char names[SIM_CASES_MAX][80];
    unsigned count = sim_cases(cases);

    memcpy(tests, parts, sizeof(parts));
    for (unsigned i = 0; i < count; i++) {
        snprintf(names[i], sizeof(names[i]), "%s: %s", cases[i].name, cases[i].about);
        tests[PARTS + i] =
            (struct CMUnitTest){ .name = names[i], .test_func = a_case_ends_as_it_says, .initial_state = &cases[i] };
    }
    return _cmocka_run_group_tests("simulate", tests, PARTS + count, NULL, NULL);
}
