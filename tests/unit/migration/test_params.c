#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#include "migration/params.h"

static void sizes_are_read_as_a_person_types_them(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t value;
    } good[] = {
        { "0", 0 },
        { "300", 300 },
        { "64K", 64 << 10 },
        { "64k", 64 << 10 },
        { "1.5G", UINT64_C(3) << 29 },
        { "0.5M", 512 << 10 },
        { "16777215T", UINT64_C(16777215) << 40 },
        { "18446744073709551615", UINT64_MAX },
        { "7b", 7 },
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        uint64_t value = 1;
        assert_int_equal(parse_size(good[i].text, &value), 0);
        assert_int_equal(value, good[i].value);
    }
}

static void garbage_and_overflow_are_no_sizes(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",          "K",   "-1",  "+1", " 1", "1 ", "1KK", "1.", "1.x", "0x10", "1.5", "18446744073709551616",
        "16777216P", "1e3", "nan",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint64_t value = 1;
        assert_int_equal(parse_size(bad[i], &value), -EINVAL);
    }
}

static void every_row_accepts_its_start_and_its_bounds_and_nothing_beyond(void **state)
{
    (void)state;
    struct migration_params params;
    params_init(&params);
    for (unsigned i = 0; i < param_rows; i++) {
        const struct param_row *row = &param_table[i];
        struct err err = { 0 };
        assert_int_equal(param_set_number(&params, row->name, row->max, &err), 0);
        assert_int_equal(param_get(&params, row), row->max);
        assert_int_equal(param_set_number(&params, row->name, row->start, &err), 0);
        assert_int_equal(param_set_number(&params, row->name, row->max + 1, &err), -EINVAL);
        assert_non_null(strstr(err.text, row->name));
        if (row->min > 0)
            assert_int_equal(param_set_number(&params, row->name, row->min - 1, NULL), -EINVAL);
        if (row->alias)
            assert_ptr_equal(param_find(row->alias), row);
    }
}

static void a_refused_value_changes_nothing(void **state)
{
    (void)state;
    struct migration_params params;
    params_init(&params);
    const struct param_row *row = param_find("downtime-limit");
    assert_int_equal(param_set_text(&params, "downtime-limit", "30", NULL), 0);
    assert_int_equal(param_set_text(&params, "downtime-limit", "2000001", NULL), -EINVAL);
    assert_int_equal(param_set_text(&params, "downtime-limit", "1K", NULL), -EINVAL);
    assert_int_equal(param_set_text(&params, "downtime-limit", "soon", NULL), -EINVAL);
    assert_int_equal(param_get(&params, row), 30);
}

static void a_bare_bandwidth_is_mebibytes_for_a_person_and_bytes_for_a_program(void **state)
{
    (void)state;
    struct migration_params params;
    params_init(&params);
    const struct param_row *row = param_find("max-bandwidth");
    assert_int_equal(param_set_text(&params, "max-bandwidth", "100", NULL), 0);
    assert_int_equal(param_get(&params, row), 100 << 20);
    assert_int_equal(param_set_text(&params, "max-bandwidth", "100K", NULL), 0);
    assert_int_equal(param_get(&params, row), 100 << 10);
    assert_int_equal(param_set_number(&params, "max-bandwidth", 100, NULL), 0);
    assert_int_equal(param_get(&params, row), 100);
    assert_int_equal(param_set_text(&params, "max-bandwidth", "18446744073709551615", NULL), -EINVAL);
}

static void a_set_reaches_a_running_street_at_once(void **state)
{
    (void)state;
    struct migration_params params;
    params_init(&params);
    assert_int_equal(atomic_load(&params.live.codec), CODEC_AUTO);
    for (unsigned codec = 0; codec < CODECS; codec++) {
        assert_int_equal(param_set_text(&params, "compression", param_codec_name((enum codec)codec), NULL), 0);
        assert_int_equal(atomic_load(&params.live.codec), codec);
    }
    assert_int_equal(param_set_text(&params, "compression", "none", NULL), 0);
    assert_int_equal(param_set_text(&params, "max-bandwidth", "7M", NULL), 0);
    assert_int_equal(param_set_text(&params, "compression-acceleration", "9", NULL), 0);
    assert_int_equal(atomic_load(&params.live.codec), CODEC_RAW);
    assert_int_equal(atomic_load(&params.live.max_bytes_per_s), 7 << 20);
    assert_int_equal(atomic_load(&params.live.acceleration), 9);
}

static void unknown_names_are_refused_by_name(void **state)
{
    (void)state;
    struct migration_params params;
    struct err err = { 0 };
    params_init(&params);
    assert_int_equal(param_set_text(&params, "max-bandwith", "1", &err), -EINVAL);
    assert_non_null(strstr(err.text, "max-bandwith"));
    err_clear(&err);
    assert_int_equal(param_set_text(&params, "compression", "zip", &err), -EINVAL);
    assert_non_null(strstr(err.text, "lz4"));
    err_clear(&err);
    assert_int_equal(capability_set(&params, "telepathy", true, &err), -EINVAL);
    assert_non_null(strstr(err.text, "telepathy"));
}

static void capabilities_start_off_and_can_be_switched(void **state)
{
    (void)state;
    struct migration_params params;
    params_init(&params);
    for (unsigned i = 0; i < capability_rows; i++) {
        assert_int_equal(capability_get(&params, &capability_table[i]), capability_table[i].start);
        assert_int_equal(capability_set(&params, capability_table[i].name, true, NULL), 0);
        assert_true(capability_get(&params, &capability_table[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_read_as_a_person_types_them),
        cmocka_unit_test(garbage_and_overflow_are_no_sizes),
        cmocka_unit_test(every_row_accepts_its_start_and_its_bounds_and_nothing_beyond),
        cmocka_unit_test(a_refused_value_changes_nothing),
        cmocka_unit_test(a_bare_bandwidth_is_mebibytes_for_a_person_and_bytes_for_a_program),
        cmocka_unit_test(a_set_reaches_a_running_street_at_once),
        cmocka_unit_test(unknown_names_are_refused_by_name),
        cmocka_unit_test(capabilities_start_off_and_can_be_switched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
