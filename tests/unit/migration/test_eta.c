/* The forecast by itself: inputs by script, against guests and links that are played beside it, and against nonsense. */
#include "tests/unit/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "migration/eta.h"

#define S  1e9
#define MS 1e6

/* Rounds over a link of `units_per_s` with a guest that dirties `dirty_per_s` of `set` units, as they would be. */
static double really(double left, double units_per_s, double dirty_per_s, double set, double fit)
{
    double total_s = 0;
    for (int round = 0; round < 10000; round++) {
        double round_s = left / units_per_s;
        total_s += round_s;
        left = fmin(set, round_s * dirty_per_s);
        if (left <= fit)
            return total_s * S;
    }
    return INFINITY;
}

static struct eta_model guest(double units_per_s, double dirty_per_s, double set, double fit)
{
    struct eta_model model = { .unit_ns = S / units_per_s,
                               .spread = 0.2,
                               .fit_units = fit,
                               .pause_ns = 10 * MS,
                               .rounds_left = UINT64_MAX,
                               .never_rounds = ETA_NEVER_ROUNDS };
    eta_learn(&model, 10 * S, fmin(set, 10 * dirty_per_s));
    eta_learn(&model, 1 * S, fmin(set, dirty_per_s));
    eta_learn(&model, 0.1 * S, fmin(set, 0.1 * dirty_per_s));
    return model;
}

static void a_guest_slower_than_the_link_is_forecast_within_its_band(void **state)
{
    (void)state;
    static const double dirty[] = { 0, 100, 1000, 5000, 8000 };
    for (size_t i = 0; i < sizeof dirty / sizeof *dirty; i++) {
        struct eta_model model = guest(10000, dirty[i], 50000, 200);
        struct eta_position at = { .left_units = 20000 };
        struct eta eta = eta_forecast(&model, &at);
        double truth = really(20000, 10000, dirty[i], 50000, 200) + 10 * MS;
        assert_int_equal(eta.kind, ETA_KNOWN);
        assert_true((double)eta.p50_ns > 0.8 * truth && (double)eta.p50_ns < 1.2 * truth);
        assert_true((double)eta.p90_ns >= 1.1 * truth && (eta.p90_ns == INT64_MAX || (double)eta.p90_ns < 5 * truth));
    }
}

static void a_small_hot_set_ends_however_fast_it_is_written(void **state)
{
    (void)state;
    struct eta_model model = guest(10000, 1e6, 150, 200);
    struct eta_position at = { .left_units = 10000 };
    struct eta eta = eta_forecast(&model, &at);
    assert_int_equal(eta.kind, ETA_KNOWN);
    assert_true((double)eta.p50_ns > 0.9 * S && (double)eta.p50_ns < 1.2 * S);
}

static void a_guest_faster_than_the_link_never_ends_and_says_why(void **state)
{
    (void)state;
    struct eta_model model = guest(10000, 20000, 50000, 200);
    struct eta_position at = { .left_units = 50000 };
    struct eta eta = eta_forecast(&model, &at);
    char text[ETA_TEXT_MAX];
    assert_int_equal(eta.kind, ETA_NEVER);
    assert_non_null(strstr(eta.reason, "as fast as it is sent"));
    eta_text(&eta, text);
    assert_non_null(strstr(text, "never at this rate (the guest dirties"));

    model.holding = true; /* somebody does something about it */
    eta = eta_forecast(&model, &at);
    assert_int_equal(eta.kind, ETA_UNKNOWN);
    assert_non_null(strstr(eta.reason, "held back"));
    assert_true(eta.round_ns >= 4 * S);

    model.holding = false;
    model.paused = true; /* nobody dirties anything */
    eta = eta_forecast(&model, &at);
    assert_int_equal(eta.kind, ETA_KNOWN);
    assert_true((double)eta.p50_ns > 5 * S && (double)eta.p50_ns < 5.1 * S);
}

/* A busy host makes one round look as if there was no end. */
static void never_is_said_only_when_several_rounds_say_so(void **state)
{
    (void)state;
    struct eta_model slow = guest(10000, 20000, 50000, 200), fast = guest(10000, 1000, 50000, 200);
    struct eta_position at = { .left_units = 50000 };
    slow.never_rounds = 0;
    for (int i = 0; i < ETA_NEVER_ROUNDS; i++) {
        assert_int_equal(eta_forecast(&slow, &at).kind, ETA_UNKNOWN);
        assert_non_null(strstr(eta_forecast(&slow, &at).reason, "as the last round went"));
        eta_settle(&slow, &at);
    }
    assert_int_equal(eta_forecast(&slow, &at).kind, ETA_NEVER);
    eta_settle(&slow, &at);
    assert_int_equal(eta_forecast(&slow, &at).kind, ETA_NEVER);
    fast.never_rounds = slow.never_rounds;
    eta_settle(&fast, &at); /* one that goes well, and all is forgotten */
    slow.never_rounds = fast.never_rounds;
    assert_int_equal(eta_forecast(&slow, &at).kind, ETA_UNKNOWN);
}

static void max_rounds_is_known_to_end_it(void **state)
{
    (void)state;
    struct eta_model model = guest(10000, 5000, 50000, 20);
    struct eta_position at = { .left_units = 20000 };
    assert_int_equal(eta_forecast(&model, &at).kind, ETA_KNOWN);
    model.rounds_left = 2;
    assert_int_equal(eta_forecast(&model, &at).kind, ETA_NEVER);
    assert_non_null(strstr(eta_forecast(&model, &at).reason, "max-rounds"));
}

static void before_the_first_round_is_over_only_the_least_is_said(void **state)
{
    (void)state;
    struct eta_model model = { .rounds_left = UINT64_MAX };
    struct eta_position at = { .left_units = 10000, .elapsed_ns = 1 * S };
    struct eta eta = eta_forecast(&model, &at);
    char text[ETA_TEXT_MAX];
    assert_int_equal(eta.kind, ETA_UNKNOWN);
    assert_int_equal(eta.round_ns, 0);
    eta_text(&eta, text);
    assert_non_null(strstr(text, "unknown (nothing was measured yet)"));
    model.unit_ns = 1 * MS;
    eta = eta_forecast(&model, &at);
    assert_int_equal(eta.kind, ETA_UNKNOWN);
    assert_int_equal(eta.round_ns, 10000000000);
    eta_text(&eta, text);
    assert_non_null(strstr(text, "unknown, this round 10 s more ("));
}

/* More to send, a slower link, a faster guest, a tighter limit: never sooner. */
static void what_makes_it_harder_never_makes_it_shorter(void **state)
{
    (void)state;
    struct eta_position at = { .left_units = 20000 };
    int64_t before[4] = { 0 };
    for (int i = 1; i <= 40; i++) {
        struct eta_position more = { .left_units = 1000.0 * i };
        struct eta_model models[] = { guest(10000, 2000, 50000, 200), guest(40000.0 / i, 500, 50000, 200),
                                      guest(10000, 200.0 * i, 50000, 200), guest(10000, 2000, 50000, 2000.0 / i) };
        for (int k = 0; k < 4; k++) {
            struct eta eta = eta_forecast(&models[k], k == 0 ? &more : &at);
            int64_t now = eta.kind == ETA_KNOWN ? eta.p50_ns : INT64_MAX;
            if (now < before[k])
                fail_msg("row %d, step %d: %lld after %lld", k, i, (long long)now, (long long)before[k]);
            assert_true(eta.kind != ETA_KNOWN || eta.p90_ns >= eta.p50_ns);
            before[k] = now;
        }
    }
}

static void no_measurement_however_absurd_gives_an_absurd_answer(void **state)
{
    (void)state;
    static const double odd[] = { 0, -1, 1e-300, 0.5, 1, 1e6, 1e18, 1e300, INFINITY, -INFINITY, NAN };
    enum { ODDS = sizeof odd / sizeof *odd };
    uint64_t random = 1;
    for (int i = 0; i < 200000; i++) {
        double pick[10];
        for (int k = 0; k < 10; k++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            pick[k] = odd[(random >> 33) % ODDS];
        }
        struct eta_model model = { .unit_ns = pick[0],
                                   .spread = pick[1],
                                   .fit_units = pick[2],
                                   .pause_ns = pick[3],
                                   .rounds_left = i % 3 ? UINT64_MAX : (uint64_t)i,
                                   .holding = i % 5 == 0,
                                   .paused = i % 7 == 0,
                                   .never_rounds = (unsigned)i % 4 };
        eta_learn(&model, pick[4], pick[5]);
        eta_learn(&model, pick[6], pick[7]);
        struct eta_position at = { .left_units = pick[8], .elapsed_ns = pick[9] };
        struct eta eta = eta_forecast(&model, &at);
        char text[ETA_TEXT_MAX];
        assert_true(eta.p50_ns >= 0 && eta.p90_ns >= eta.p50_ns && eta.round_ns >= 0);
        assert_true(eta.kind == ETA_KNOWN || eta.reason);
        assert_true(eta.kind != ETA_KNOWN || eta.p50_ns < INT64_C(30) * 24 * 3600 * 1000000000);
        eta_text(&eta, text);
        assert_null(strstr(text, "nan"));
        assert_null(strstr(text, "inf"));
        assert_true(eta.kind != ETA_KNOWN || !strchr(text, '-'));
    }
}

static void the_curve_keeps_the_longest_time_and_the_newest(void **state)
{
    (void)state;
    struct eta_model model = { 0 };
    static const double times[] = { 5, 1, 9, 2, 3, 4, 1 };
    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        eta_learn(&model, times[i], 10 * times[i]);
    assert_int_equal(model.points, ETA_CURVE_MAX);
    static const double kept[] = { 9, 1, 4, 3 };
    for (unsigned i = 0; i < ETA_CURVE_MAX; i++) {
        assert_true(model.curve[i].elapsed_ns == kept[i]);
        assert_true(model.curve[i].units == 10 * kept[i]);
    }
}

static void people_read_it_with_a_unit(void **state)
{
    (void)state;
    static const struct {
        int64_t p50_ns, p90_ns;
        const char *text;
    } rows[] = {
        { 850000000, 900000000, "850 to 900 ms" },         { 3100000000, 4000000000, "3.1 to 4.0 s" },
        { 900000000, 12000000000, "1 to 12 s" },           { 240000000000, 600000000000, "4 to 10 min" },
        { 5000000000, INT64_MAX, "5.0 s or much longer" },
    };
    char text[ETA_TEXT_MAX];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct eta eta = { .kind = ETA_KNOWN, .p50_ns = rows[i].p50_ns, .p90_ns = rows[i].p90_ns };
        eta_text(&eta, text);
        assert_string_equal(text, rows[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_guest_slower_than_the_link_is_forecast_within_its_band),
        cmocka_unit_test(a_small_hot_set_ends_however_fast_it_is_written),
        cmocka_unit_test(a_guest_faster_than_the_link_never_ends_and_says_why),
        cmocka_unit_test(never_is_said_only_when_several_rounds_say_so),
        cmocka_unit_test(max_rounds_is_known_to_end_it),
        cmocka_unit_test(before_the_first_round_is_over_only_the_least_is_said),
        cmocka_unit_test(what_makes_it_harder_never_makes_it_shorter),
        cmocka_unit_test(no_measurement_however_absurd_gives_an_absurd_answer),
        cmocka_unit_test(the_curve_keeps_the_longest_time_and_the_newest),
        cmocka_unit_test(people_read_it_with_a_unit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
