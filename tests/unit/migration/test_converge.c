/* Synthetic guests: a curve of how many pages they dirty in a given time, and a link. The simulator plays rounds until
 * the controller stops them, and then looks at what the pause would really have been. */
#include "tests/unit/test.h"

#include <math.h>
#include <string.h>

#include "migration/converge.h"

#define MS 1000000.0

struct guest {
    double pages;          /* all of them */
    double writes_per_s;   /* page writes */
    double set;            /* pages they spread over, evenly */
    double bytes_per_page; /* on the wire, of a page that is not zero */
    double link;           /* wire bytes a second */
    double cap;            /* 0: none */
    double noise;          /* relative, of a round's time */
};

static double dirtied(const struct guest *g, double ns)
{
    if (g->writes_per_s <= 0)
        return 0;
    return g->set * (1 - exp(-g->writes_per_s * (ns / 1e9) / g->set));
}

struct outcome {
    unsigned rounds;
    double pause_ns; /* real, with the fixed costs as they are */
    struct converge_verdict verdict;
};

static double jitter(const struct guest *g, unsigned round)
{
    unsigned x = round * 2654435761u; /* the same every time */
    return 1 + g->noise * ((double)((x >> 16) & 0xff) / 127.5 - 1);
}

static struct outcome play(const struct guest *g, struct converge_policy policy, double fixed_ns, unsigned max)
{
    struct converge c;
    struct converge_costs costs;
    struct outcome outcome = { 0 };
    converge_init(&c);
    converge_costs_init(&costs);
    policy.max_bytes_per_s = (uint64_t)g->cap;
    policy.workers = 2;
    double left = g->pages;
    for (unsigned round = 1; round <= max; round++) {
        double units = floor(left), wire = units * g->bytes_per_page;
        double busy = (wire / g->link * 1e9 + 0.3 * MS) * jitter(g, round);
        double capped = g->cap > 0 ? fmax(wire / g->cap * 1e9, busy) : busy;
        left = dirtied(g, capped);
        struct converge_sample sample = {
            .units_data = (uint64_t)units,
            .wire_bytes = (uint64_t)wire,
            .elapsed_ns = (int64_t)capped,
            .rate_wait_ns = (int64_t)(capped - busy),
            .cpu_ns = (int64_t)(units * 3000),
            .dirty_units = (uint64_t)left,
        };
        converge_burst(&c, (uint64_t)(g->link / 100), 10000000);
        converge_add(&c, &sample);
        outcome.verdict = converge_decide(&c, &policy, &costs);
        outcome.rounds = round;
        outcome.pause_ns = left * g->bytes_per_page / g->link * 1e9 + fixed_ns;
        if (outcome.verdict.action != CONVERGE_AGAIN)
            break;
        left = fmin(left + dirtied(g, (double)outcome.verdict.wait_ns), g->pages);
    }
    return outcome;
}

static const struct converge_policy limit_300 = { .downtime_limit_ns = 300000000 };
static const struct converge_policy limit_30 = { .downtime_limit_ns = 30000000 };
static const double FIXED = 5 * MS;

static void an_idle_guest_is_gone_within_three_rounds(void **state)
{
    (void)state;
    struct guest g = { .pages = 262144, .writes_per_s = 300, .set = 2000, .bytes_per_page = 1500, .link = 110e6 };
    struct outcome o = play(&g, limit_300, FIXED, 20);
    assert_int_equal(o.verdict.action, CONVERGE_SWITCH_OVER);
    assert_in_range(o.rounds, 1, 3);
    assert_true(o.pause_ns < 15 * MS);
}

static void a_guest_slower_than_the_link_stops_within_either_limit(void **state)
{
    (void)state;
    for (double share = 0.1; share < 0.85; share += 0.1) {
        struct guest g = { .pages = 131072, .set = 100000, .bytes_per_page = 4100, .link = 1e9, .noise = 0.1 };
        g.writes_per_s = share * g.link / g.bytes_per_page;
        struct outcome o = play(&g, limit_300, FIXED, 60);
        assert_int_equal(o.verdict.action, CONVERGE_SWITCH_OVER);
        assert_true(o.pause_ns <= 300 * MS);
        o = play(&g, limit_30, FIXED, 100);
        assert_int_equal(o.verdict.action, CONVERGE_SWITCH_OVER);
        assert_true(o.pause_ns <= 30 * MS);
    }
}

/* Before any pause was taken: the shortest answer is a round trip, and a pause takes two of them. */
static void round_trips_are_in_the_first_forecast(void **state)
{
    (void)state;
    struct converge c;
    struct converge_costs costs;
    struct converge_policy policy = { .downtime_limit_ns = 100000000, .workers = 2 };
    /* 200 pages of 4 KB at 100 MB/s */
    struct converge_sample round = { .units_data = 200, .wire_bytes = 820000, .elapsed_ns = 58200000 };
    struct converge_verdict near, far;

    converge_costs_init(&costs);
    converge_init(&c);
    round.elapsed_ns = 8200000;
    converge_add(&c, &round);
    near = converge_decide(&c, &policy, &costs);
    assert_int_equal(near.action, CONVERGE_SWITCH_OVER);
    converge_init(&c);
    converge_trip(&c, 900000000); /* the peer was slow to say hello */
    converge_trip(&c, 50000000);
    converge_trip(&c, 60000000);
    round.elapsed_ns = 58200000;
    converge_add(&c, &round);
    assert_int_equal(c.trip_ns, 50000000);
    far = converge_decide(&c, &policy, &costs);
    assert_in_range(far.predicted_ns - near.predicted_ns, 90000000, 110000000);
    assert_int_equal(far.action, CONVERGE_AGAIN);
    assert_true(far.lower_ns < far.predicted_ns && far.predicted_ns < far.upper_ns);
    round.elapsed_ns = 9000000; /* it was not the way that took so long */
    converge_add(&c, &round);
    assert_int_equal(c.trip_ns, 9000000);
}

static void a_small_hot_set_fits_whatever_its_rate(void **state)
{
    (void)state;
    /* 4000 pages of 2000 bytes over 100 MB/s: 80 ms, though they are written a million times a second. */
    struct guest g = { .pages = 131072, .writes_per_s = 1e6, .set = 4000, .bytes_per_page = 2000, .link = 100e6 };
    struct outcome o = play(&g, limit_300, FIXED, 20);
    assert_int_equal(o.verdict.action, CONVERGE_SWITCH_OVER);
    assert_true(o.pause_ns <= 300 * MS);
}

static void a_guest_faster_than_the_link_goes_on_and_is_reported_as_stalled(void **state)
{
    (void)state;
    struct guest g = { .pages = 131072, .writes_per_s = 1e6, .set = 100000, .bytes_per_page = 4100, .link = 100e6 };
    struct outcome o = play(&g, limit_300, FIXED, 40);
    assert_int_equal(o.verdict.action, CONVERGE_AGAIN);
    assert_true(o.verdict.stalled);
    assert_int_equal(o.rounds, 40);
    assert_true(o.verdict.predicted_ns > 300 * MS);
}

static void max_rounds_gives_up_with_a_reason(void **state)
{
    (void)state;
    struct guest g = { .pages = 131072, .writes_per_s = 1e6, .set = 100000, .bytes_per_page = 4100, .link = 100e6 };
    struct converge_policy policy = limit_300;
    policy.max_rounds = 7;
    struct outcome o = play(&g, policy, FIXED, 40);
    assert_int_equal(o.verdict.action, CONVERGE_GIVE_UP);
    assert_int_equal(o.rounds, 7);
    assert_non_null(strstr(o.verdict.reason, "max-rounds"));
}

static struct converge_sample stuck(int64_t elapsed_ns, uint64_t dirty_units)
{
    return (struct converge_sample){ .units_data = dirty_units,
                                     .wire_bytes = dirty_units * 4100,
                                     .elapsed_ns = elapsed_ns,
                                     .dirty_units = dirty_units };
}

static struct converge_verdict next(struct converge *c, const struct converge_policy *policy,
                                    const struct converge_sample *sample)
{
    struct converge_costs costs;

    converge_costs_init(&costs);
    converge_add(c, sample);
    return converge_decide(c, policy, &costs);
}

static const struct converge_policy gives_up = { .downtime_limit_ns = 100000000,
                                                 .on_stall = CONVERGE_STALL_GIVE_UP,
                                                 .stall_rounds = 5,
                                                 .stall_ns = 10000000000,
                                                 .workers = 2 };

/* Rounds of a second, each leaving what takes a second: not before the fifth, and not before ten seconds. */
static void a_stall_is_given_up_after_its_rounds_and_its_time(void **state)
{
    (void)state;
    struct converge c;
    struct converge_sample slow = stuck(1000000000, 20000), quick = stuck(1000000000, 20000);
    struct converge_policy policy = gives_up;
    unsigned rounds = 1;

    converge_init(&c);
    for (; rounds < 100 && next(&c, &policy, &slow).action == CONVERGE_AGAIN; rounds++)
        continue;
    assert_int_equal(rounds, 11); /* the first one was better than nothing */
    policy.stall_ns = 0;
    converge_init(&c);
    for (rounds = 1; rounds < 100 && next(&c, &policy, &quick).action == CONVERGE_AGAIN; rounds++)
        continue;
    assert_int_equal(rounds, 6);
    struct converge_verdict verdict = next(&c, &policy, &quick);
    assert_true(verdict.by_policy);
    assert_true(verdict.parts.ram_ns > verdict.parts.fixed_ns && verdict.parts.trips_ns == 0);
    assert_in_range(c.best.ram_ns, 900000000, 1100000000);
    assert_int_equal(c.best_units, 20000);
    policy.on_stall = CONVERGE_STALL_CONTINUE;
    for (rounds = 0; rounds < 100; rounds++)
        assert_int_equal(next(&c, &policy, &slow).action, CONVERGE_AGAIN);
}

static void waits_between_short_rounds_are_time_too(void **state)
{
    (void)state;
    struct converge c;
    struct converge_sample sample = stuck(1000000, 100);
    struct converge_policy policy = gives_up;
    unsigned rounds = 1;

    policy.downtime_limit_ns = 1000000;
    converge_init(&c);
    for (; rounds < 20000 && next(&c, &policy, &sample).action == CONVERGE_AGAIN; rounds++)
        continue;
    assert_in_range(rounds, 490, 520); /* 20 ms each, and not one */
}

static void another_question_and_a_quota_that_grows_begin_the_count_anew(void **state)
{
    (void)state;
    struct converge c;
    struct converge_sample sample = stuck(2000000000, 20000);
    struct converge_policy policy = gives_up;

    converge_init(&c);
    for (unsigned i = 0; i < 6; i++)
        if (next(&c, &policy, &sample).action != CONVERGE_AGAIN)
            assert_int_equal(i, 5);
    policy.downtime_limit_ns /= 2;
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(next(&c, &policy, &sample).action, CONVERGE_AGAIN);
    policy.holds_more = true;
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(next(&c, &policy, &sample).action, CONVERGE_AGAIN);
    policy.holds_more = false;
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(next(&c, &policy, &sample).action, CONVERGE_AGAIN);
    assert_int_equal(next(&c, &policy, &sample).action, CONVERGE_GIVE_UP);
    policy.guest_paused = true; /* nobody sees this pause */
    assert_int_equal(next(&c, &policy, &sample).action, CONVERGE_AGAIN);
}

static void a_guest_that_gets_better_is_not_given_up(void **state)
{
    (void)state;
    struct converge c;
    struct converge_policy policy = gives_up;

    policy.stall_ns = 0;
    converge_init(&c);
    for (uint64_t units = 1000000; units > 20000; units -= units / 12) {
        struct converge_sample sample = stuck(3000000000, units); /* 4 % in two rounds, say */
        sample.units_data = 60000;
        struct converge_verdict verdict = next(&c, &policy, &sample);
        assert_int_equal(verdict.action, CONVERGE_AGAIN);
    }
}

/* on-stall stop: the best that was seen, or a little more when that was luck. */
static void a_stall_may_be_ended_by_the_best_pause(void **state)
{
    (void)state;
    struct converge c;
    struct converge_policy policy = gives_up;
    struct converge_sample sample = stuck(1000000000, 20000), lucky = sample;
    struct converge_verdict verdict = { .action = CONVERGE_AGAIN };
    unsigned rounds = 0;

    policy.on_stall = CONVERGE_STALL_STOP;
    lucky.dirty_units = 16000;
    converge_init(&c);
    assert_int_equal(next(&c, &policy, &lucky).action, CONVERGE_AGAIN);
    for (; rounds < 100 && verdict.action == CONVERGE_AGAIN; rounds++)
        verdict = next(&c, &policy, &sample);
    assert_int_equal(verdict.action, CONVERGE_SWITCH_OVER);
    assert_in_range(rounds, 11, 20);
    assert_non_null(strstr(verdict.reason, "no better pause"));
    assert_true(converge_limit_ns(&c, policy.downtime_limit_ns) >= verdict.upper_ns);
    assert_true(converge_limit_ns(&c, policy.downtime_limit_ns) < verdict.upper_ns * 11 / 10);
    assert_int_equal(converge_limit_ns(&c, INT64_MAX), INT64_MAX);
    policy.downtime_limit_ns--; /* asked anew, and nothing is accepted any more */
    assert_int_equal(next(&c, &policy, &sample).action, CONVERGE_AGAIN);
    assert_int_equal(converge_limit_ns(&c, policy.downtime_limit_ns), policy.downtime_limit_ns);
}

static void a_cap_that_binds_the_rounds_does_not_bind_the_forecast(void **state)
{
    (void)state;
    /* 20 MB dirty every round; over the capped 50 MB/s that is 400 ms and never fits, over the link 20 ms. */
    struct guest g = {
        .pages = 131072, .writes_per_s = 1e6, .set = 5000, .bytes_per_page = 4100, .link = 1e9, .cap = 50e6
    };
    struct outcome o = play(&g, limit_300, FIXED, 10);
    assert_int_equal(o.verdict.action, CONVERGE_SWITCH_OVER);
    assert_true(o.pause_ns <= 300 * MS);
    /* and the user's word is taken for it */
    struct converge_policy policy = limit_300;
    policy.switchover_bytes_per_s = 40000000;
    o = play(&g, policy, FIXED, 10);
    assert_int_equal(o.verdict.action, CONVERGE_AGAIN);
}

static void trains_sent_to_find_out_count_for_more_than_what_came_by(void **state)
{
    (void)state;
    struct converge c;
    struct converge_policy policy = { .max_bytes_per_s = 50000000, .workers = 1 };
    struct converge_sample capped = { .units_data = 10000,
                                      .wire_bytes = 40000000,
                                      .elapsed_ns = 800000000,
                                      .rate_wait_ns = 700000000,
                                      .dirty_units = 1000 };
    converge_init(&c);
    converge_add(&c, &capped);
    converge_burst(&c, 1000000, 10000000); /* 100 MB/s */
    assert_float_equal(converge_unit_ns(&c, &policy), 40000, 100);
    converge_train(&c, 1000000, 2500000); /* 400 */
    assert_float_equal(converge_unit_ns(&c, &policy), 10000, 100);
    converge_train(&c, 1000000, 5000000); /* one slow one does not undo it */
    assert_true(converge_unit_ns(&c, &policy) < 15000);
    converge_train(&c, 1000, 5000000); /* nothing that could be measured */
    converge_train(&c, 1000000, 0);
    assert_true(converge_unit_ns(&c, &policy) < 15000);
}

static void trains_are_rarer_where_they_cost_more(void **state)
{
    (void)state;
    assert_int_equal(converge_train_every_ns(0), converge_train_every_ns(1000000));
    assert_true(converge_train_every_ns(0) > 0);
    for (int64_t lost_ns = 50000000; lost_ns < 1000000000; lost_ns *= 2)
        assert_true(converge_train_every_ns(lost_ns) >= 20 * lost_ns);
    assert_true(converge_train_every_ns(INT64_MAX) > 1000000000);
}

static void the_forecast_is_near_what_the_pause_would_be(void **state)
{
    (void)state;
    struct guest g = { .pages = 131072, .writes_per_s = 15000, .set = 50000, .bytes_per_page = 2500, .link = 100e6 };
    struct outcome o = play(&g, limit_300, FIXED, 40);
    assert_int_equal(o.verdict.action, CONVERGE_SWITCH_OVER);
    assert_true(fabs((double)o.verdict.predicted_ns - o.pause_ns) < 0.3 * o.pause_ns + 6 * MS);
}

static void a_guest_that_stands_still_is_taken_even_with_no_downtime_allowed(void **state)
{
    (void)state;
    struct guest g = { .pages = 1000, .bytes_per_page = 4100, .link = 1e9 };
    struct converge_policy policy = { .downtime_limit_ns = 0, .guest_paused = true };
    struct outcome o = play(&g, policy, FIXED, 5);
    assert_int_equal(o.verdict.action, CONVERGE_SWITCH_OVER);
    assert_int_equal(o.rounds, 1);
}

static void rounds_without_progress_do_not_spin(void **state)
{
    (void)state;
    struct guest g = { .pages = 100, .writes_per_s = 1e6, .set = 50, .bytes_per_page = 4100, .link = 1e9 };
    struct converge_policy policy = { .downtime_limit_ns = 1000000 }; /* no pause is that short */
    struct outcome o = play(&g, policy, FIXED, 10);
    assert_int_equal(o.verdict.action, CONVERGE_AGAIN);
    assert_true(o.verdict.wait_ns > 0);
    assert_non_null(strstr(o.verdict.reason, "any pause costs"));
}

static void what_happened_corrects_what_is_said_next(void **state)
{
    (void)state;
    struct converge c;
    converge_init(&c);
    converge_learn(&c, 100000000, 200000000);
    assert_true(c.bias > 1.2 && c.bias < 2.01);
    double once = c.bias;
    converge_learn(&c, (int64_t)(100000000 * once), 200000000);
    assert_true(c.bias > once);
    for (int i = 0; i < 20; i++)
        converge_learn(&c, 1000000, 900000000);
    assert_true(c.bias <= 4.0); /* one bad day must not forbid every migration */
    converge_learn(&c, 0, 5);
    assert_true(c.bias <= 4.0);
}

/* A guest whose pause would fit, after one that went wrong for another reason: it is tried again, not asked for ever. */
static void what_went_wrong_once_is_forgotten(void **state)
{
    (void)state;
    struct converge c;
    struct converge_costs costs;
    struct converge_policy policy = { .downtime_limit_ns = 200 * MS, .workers = 2 };
    struct converge_sample sample = {
        .units_data = 1000, .wire_bytes = 4100000, .elapsed_ns = 90 * MS, .dirty_units = 1000
    };
    converge_init(&c);
    converge_costs_init(&costs);
    for (int i = 0; i < 20; i++)
        converge_learn(&c, 1000000, 900000000);
    converge_add(&c, &sample);
    assert_int_equal(converge_decide(&c, &policy, &costs).action, CONVERGE_AGAIN);
    unsigned rounds = 1;
    for (; rounds < 1000 && converge_decide(&c, &policy, &costs).action != CONVERGE_SWITCH_OVER; rounds++)
        converge_add(&c, &sample);
    assert_in_range(rounds, 2, 500);
    while (c.bias > 0.8) /* and what was better than foreseen, too */
        converge_learn(&c, 1000000000, 1000000);
    for (rounds = 0; rounds < 500; rounds++)
        converge_add(&c, &sample);
    assert_true(c.bias > 0.95 && c.bias <= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_went_wrong_once_is_forgotten),
        cmocka_unit_test(an_idle_guest_is_gone_within_three_rounds),
        cmocka_unit_test(a_guest_slower_than_the_link_stops_within_either_limit),
        cmocka_unit_test(a_small_hot_set_fits_whatever_its_rate),
        cmocka_unit_test(a_guest_faster_than_the_link_goes_on_and_is_reported_as_stalled),
        cmocka_unit_test(max_rounds_gives_up_with_a_reason),
        cmocka_unit_test(a_stall_is_given_up_after_its_rounds_and_its_time),
        cmocka_unit_test(waits_between_short_rounds_are_time_too),
        cmocka_unit_test(another_question_and_a_quota_that_grows_begin_the_count_anew),
        cmocka_unit_test(a_guest_that_gets_better_is_not_given_up),
        cmocka_unit_test(a_stall_may_be_ended_by_the_best_pause),
        cmocka_unit_test(a_cap_that_binds_the_rounds_does_not_bind_the_forecast),
        cmocka_unit_test(trains_sent_to_find_out_count_for_more_than_what_came_by),
        cmocka_unit_test(trains_are_rarer_where_they_cost_more),
        cmocka_unit_test(the_forecast_is_near_what_the_pause_would_be),
        cmocka_unit_test(a_guest_that_stands_still_is_taken_even_with_no_downtime_allowed),
        cmocka_unit_test(round_trips_are_in_the_first_forecast),
        cmocka_unit_test(rounds_without_progress_do_not_spin),
        cmocka_unit_test(what_happened_corrects_what_is_said_next),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
