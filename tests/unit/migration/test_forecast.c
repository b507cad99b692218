/* The forecast, on guests and links whose answer is known; and its advice, followed. */
#include "tests/unit/test.h"

#include <math.h>
#include <string.h>

#include "migration/forecast.h"

#define MS INT64_C(1000000)
enum { MIB_PAGES = 256 };

/* So many MiB of data, 118 MB/s, and a guest that dirties `mib_per_s` over `mib`, evenly and at random. */
static struct forecast_input guest(double data_mib, double mib, double mib_per_s, double limit_ms)
{
    static const double at_ms[] = { 10, 30, 100, 300, 1000, 2000 };
    struct forecast_input in = { .harts = 1, .share = { 1 }, .bias = 1, .spread = 0.05, .share_max = 0.5 };
    double pages = mib * MIB_PAGES;
    for (unsigned i = 0; i < sizeof(at_ms) / sizeof(at_ms[0]) && mib_per_s > 0; i++) {
        in.curve[in.points].ms = at_ms[i];
        in.curve[in.points++].pages = pages * (1 - exp(-mib_per_s * at_ms[i] / 1000 / mib));
    }
    in.data_pages = data_mib * MIB_PAGES;
    in.zero_pages = 65536;
    in.first = in.later = (struct forecast_link){ .unit_bytes = 4100, .unit_ns = 4100e9 / 118e6, .cpu_ns = 3000 };
    in.zero_ns = 100;
    in.round_ns = 0.5e6;
    converge_costs_init(&in.real);
    converge_costs_init(&in.believed);
    in.policy = (struct converge_policy){ .downtime_limit_ns = (int64_t)(limit_ms * (double)MS), .workers = 2 };
    return in;
}

static void assert_near(double value, double expected, double share)
{
    if (fabs(value - expected) > expected * share)
        fail_msg("%g, and %g is expected, give or take %g %%", value, expected, share * 100);
}

static void a_guest_that_writes_nothing_takes_what_its_memory_takes(void **state)
{
    (void)state;
    struct forecast_input in = guest(512, 64, 0, 300);
    struct forecast out;
    forecast_make(&in, &out);
    assert_true(out.ends);
    assert_near(out.total_ms.p50, 512 * 1.048576e3 / 118 * 1.001, 0.1);
    assert_true(out.total_ms.p90 >= out.total_ms.p50);
    assert_true(out.pause_ms.p90 < 20);
    assert_near(out.wire_bytes.p50, 512.0 * 256 * 4100, 0.02);
}

/* 50 MiB/s against 112: each round is about half of the one before, so all of it is about the sum of a series. */
static void a_guest_that_is_slower_than_the_link_takes_the_sum_of_its_rounds(void **state)
{
    (void)state;
    struct forecast_input in = guest(512, 256, 50, 100);
    struct forecast out;
    forecast_make(&in, &out);
    assert_true(out.ends);
    double first_s = 512 * 1.048576 / 118, ratio = 50.0 / 112.5,
           second_s = 256 * (1 - (1 - exp(-50 * first_s / 256)) / (50 * first_s / 256)) / 112.5;
    assert_near(out.total_ms.p50, (first_s + second_s / (1 - ratio)) * 1000, 0.25);
    assert_true(out.pause_ms.p90 <= 100 * 1.1);
    assert_true(out.rounds >= 3);
}

static void a_cap_makes_it_slower_and_not_the_pause_longer(void **state)
{
    (void)state;
    struct forecast_input in = guest(512, 64, 10, 100);
    struct forecast free, capped;
    forecast_make(&in, &free);
    in.policy.max_bytes_per_s = 59000000;
    forecast_make(&in, &capped);
    assert_true(free.ends && capped.ends);
    assert_near(capped.total_ms.p50, 2 * free.total_ms.p50, 0.2);
    assert_true(capped.pause_ms.p90 <= 110);
}

static void the_same_input_gives_the_same_answer(void **state)
{
    (void)state;
    struct forecast_input in = guest(128, 64, 50, 100);
    struct forecast one, two;
    forecast_make(&in, &one);
    forecast_make(&in, &two);
    assert_true(one.total_ms.p50 == two.total_ms.p50 && one.total_ms.p90 == two.total_ms.p90);
    assert_true(one.pause_ms.p50 == two.pause_ms.p50 && one.rounds == two.rounds);
}

static void beyond_what_was_measured_a_curve_goes_on_as_it_went(void **state)
{
    (void)state;
    struct forecast_input in = guest(512, 64, 0, 100);
    in.points = 2;
    in.curve[0].ms = 500, in.curve[0].pages = 1000;
    in.curve[1].ms = 1000, in.curve[1].pages = 2000;
    assert_near(forecast_pages(&in, 250), 500, 0.01);
    assert_near(forecast_pages(&in, 750), 1500, 0.01);
    assert_near(forecast_pages(&in, 4000), 8000, 0.01);
    in.curve[1].pages = 1000; /* it has seen all that it writes */
    assert_near(forecast_pages(&in, 60000), 1000, 0.01);
    in.curve[1].pages = 2000;
    assert_near(forecast_pages(&in, 1e9), in.data_pages + in.zero_pages, 0.01); /* no more than there are */
}

/* --- advice ------------------------------------------------------------------------------------------------- */

static const struct forecast_advice *find(const struct forecast_advice *advice, unsigned n, enum forecast_change change)
{
    for (unsigned i = 0; i < n; i++)
        if (advice[i].change == change)
            return &advice[i];
    return NULL;
}

/* Whatever is advised, the forecast with it ends. */
static void follow(struct forecast_input in, const struct forecast_advice *advice)
{
    struct forecast out;
    switch (advice->change) {
    case CHANGE_CODEC: in.first = in.later = in.codec[0].later; break;
    case CHANGE_CAP: in.policy.max_bytes_per_s = (uint64_t)advice->value; break;
    case CHANGE_LINK: in.first.unit_ns = in.later.unit_ns = in.later.unit_bytes * 1e9 / advice->value; break;
    case CHANGE_LIMIT: in.policy.downtime_limit_ns = (int64_t)(advice->value * (double)MS); break;
    case CHANGE_QUOTA: in.auto_converge = true, in.share_max = advice->value / 100; break;
    }
    forecast_make(&in, &out);
    if (!out.ends)
        fail_msg("advice %d, %g: %.0f %% of the runs end: %s", advice->change, advice->value, out.ends_of * 100,
                 out.reason);
}

static void what_never_ends_is_told_and_what_would_help(void **state)
{
    (void)state;
    struct forecast_input in = guest(256, 256, 200, 100);
    struct forecast_advice advice[FORECAST_ADVICE_MAX];
    struct forecast out;
    forecast_make(&in, &out);
    assert_false(out.ends);
    assert_true(out.ends_of == 0);
    assert_non_null(strstr(out.reason, "dirties"));
    unsigned n = forecast_advise(&in, advice);
    assert_true(n >= 3);
    for (unsigned i = 0; i < n; i++)
        follow(in, &advice[i]);
    const struct forecast_advice *link = find(advice, n, CHANGE_LINK), *quota = find(advice, n, CHANGE_QUOTA);
    assert_non_null(link);
    assert_true(link->value > 150e6 && link->value < 1000e6); /* 210 MB/s are dirtied */
    assert_non_null(find(advice, n, CHANGE_LIMIT));
    assert_non_null(quota);
    assert_true(quota->then.kept < 0.8 && quota->then.kept > 0.1);
    assert_near(quota->pages_per_s, 256 * 256 * (1 - exp(-200.0 / 256)), 0.05);
}

static void a_cap_that_is_too_low_is_what_is_to_be_raised(void **state)
{
    (void)state;
    struct forecast_input in = guest(256, 256, 50, 100);
    struct forecast_advice advice[FORECAST_ADVICE_MAX];
    struct forecast out;
    in.policy.max_bytes_per_s = 30 << 20;
    forecast_make(&in, &out);
    assert_false(out.ends);
    unsigned n = forecast_advise(&in, advice);
    assert_true(n >= 1);
    assert_int_equal(advice[0].change, CHANGE_CAP);
    assert_true(advice[0].value > 30 << 20 && advice[0].value < 118e6);
    follow(in, &advice[0]);
}

static void a_codec_that_packs_well_comes_first(void **state)
{
    (void)state;
    struct forecast_input in = guest(256, 256, 200, 100);
    struct forecast_advice advice[FORECAST_ADVICE_MAX];
    in.codecs = 1;
    in.codec[0].name = "lz4";
    in.codec[0].later = (struct forecast_link){ .unit_bytes = 400, .unit_ns = 5000, .cpu_ns = 5000 };
    unsigned n = forecast_advise(&in, advice);
    assert_true(n >= 1);
    assert_int_equal(advice[0].change, CHANGE_CODEC);
    assert_string_equal(advice[0].codec, "lz4");
    follow(in, &advice[0]);
}

static void the_hart_that_dirties_most_is_named(void **state)
{
    (void)state;
    struct forecast_input in = guest(256, 256, 200, 100);
    struct forecast_advice advice[FORECAST_ADVICE_MAX];
    in.harts = 4;
    in.share[0] = 0.02, in.share[1] = 0.02, in.share[2] = 0.94, in.share[3] = 0.02;
    unsigned n = forecast_advise(&in, advice);
    const struct forecast_advice *quota = find(advice, n, CHANGE_QUOTA);
    assert_non_null(quota);
    assert_int_equal(quota->hart, 2);
    follow(in, quota);
}

static void a_limit_below_what_any_pause_costs_is_told(void **state)
{
    (void)state;
    struct forecast_input in = guest(64, 16, 1, 1);
    struct forecast_advice advice[FORECAST_ADVICE_MAX];
    struct forecast out;
    forecast_make(&in, &out);
    assert_false(out.ends);
    assert_non_null(strstr(out.reason, "below what any pause costs"));
    unsigned n = forecast_advise(&in, advice);
    assert_true(n >= 1);
    assert_int_equal(advice[n - 1].change, CHANGE_LIMIT); /* neither a link nor a quota helps */
    follow(in, &advice[n - 1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_guest_that_writes_nothing_takes_what_its_memory_takes),
        cmocka_unit_test(a_guest_that_is_slower_than_the_link_takes_the_sum_of_its_rounds),
        cmocka_unit_test(a_cap_makes_it_slower_and_not_the_pause_longer),
        cmocka_unit_test(the_same_input_gives_the_same_answer),
        cmocka_unit_test(beyond_what_was_measured_a_curve_goes_on_as_it_went),
        cmocka_unit_test(what_never_ends_is_told_and_what_would_help),
        cmocka_unit_test(a_cap_that_is_too_low_is_what_is_to_be_raised),
        cmocka_unit_test(a_codec_that_packs_well_comes_first),
        cmocka_unit_test(the_hart_that_dirties_most_is_named),
        cmocka_unit_test(a_limit_below_what_any_pause_costs_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
