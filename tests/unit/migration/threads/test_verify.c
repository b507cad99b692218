#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#include "migration/threads/verify.h"
#include "tests/unit/migration/threads/fake.h"

enum { UNITS = 3 * VERIFY_RANGE_UNITS + 100 };

static const struct digest_key key = { { "secret" } };

static struct fake *here, *there;

static int setup(void **state)
{
    (void)state;
    here = fake_new(1, UNITS);
    there = fake_new(1, UNITS);
    for (unsigned unit = 0; unit < UNITS; unit += 3) {
        here->pages[(size_t)unit * FAKE_UNIT] = there->pages[(size_t)unit * FAKE_UNIT] = (uint8_t)(unit | 1);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fake_free(here);
    fake_free(there);
    return 0;
}

/* Places at which the two differ, as a mask. */
static uint64_t differ(uint64_t first, uint32_t step, uint32_t count)
{
    struct verify_ranges ranges = { 1, first, step, count };
    static struct unit_hash ours[VERIFY_HASHES_MAX], theirs[VERIFY_HASHES_MAX];
    uint64_t mask = 0;

    assert_int_equal(verify_check(&ranges, &here->source, NULL), 0);
    assert_int_equal(verify_hash(&ranges, &here->source, &key, ours, NULL), 0);
    assert_int_equal(verify_hash(&ranges, &there->source, &key, theirs, NULL), 0);
    for (unsigned i = 0; i < count; i++) {
        mask |= (uint64_t)!unit_hash_equal(ours[i], theirs[i]) << i % 64;
    }
    return mask;
}

static void every_bit_of_every_range_counts_to_the_last_unit(void **state)
{
    (void)state;
    assert_int_equal(differ(0, VERIFY_RANGE_UNITS, 4), 0);
    for (unsigned unit = 0; unit < UNITS; unit += 37) {
        there->pages[(size_t)unit * FAKE_UNIT + unit % FAKE_UNIT] ^= 0x10;
        assert_int_equal(differ(0, VERIFY_RANGE_UNITS, 4), 1u << unit / VERIFY_RANGE_UNITS);
        uint64_t first = unit / VERIFY_RANGE_UNITS * VERIFY_RANGE_UNITS;
        assert_int_equal(differ(first, 1, VERIFY_RANGE_UNITS), UINT64_C(1) << (unit - first) % 64);
        there->pages[(size_t)unit * FAKE_UNIT + unit % FAKE_UNIT] ^= 0x10;
    }
    there->pages[(size_t)(UNITS - 1) * FAKE_UNIT] ^= 1;
    assert_int_equal(differ(0, VERIFY_RANGE_UNITS, 4), 8);
}

static void contents_that_changed_places_are_not_equal(void **state)
{
    (void)state;
    memset(there->pages + 7 * FAKE_UNIT, 5, FAKE_UNIT);
    memset(here->pages + 8 * FAKE_UNIT, 5, FAKE_UNIT);
    assert_int_equal(differ(0, VERIFY_RANGE_UNITS, 1), 1);
}

static uint64_t blank_word_2(struct source *source, uint64_t word)
{
    (void)source;
    return word == 2 ? UINT64_MAX : 0;
}

static void what_is_known_to_be_untouched_is_zero_without_a_look(void **state)
{
    (void)state;
    struct source_ops ops = *here->source.ops;
    struct verify_ranges ranges = { 1, 0, 1, 256 };
    struct unit_hash hash[256];
    ops.blank = blank_word_2;
    here->source.ops = &ops;
    assert_int_equal(verify_hash(&ranges, &here->source, &key, hash, NULL), 0);
    for (unsigned unit = 0; unit < 256; unit++) {
        assert_int_equal(unit_hash_is_zero(hash[unit]), unit / 64 == 2 || unit % 3 != 0);
    }
}

static void a_question_without_sense_is_refused(void **state)
{
    static const struct verify_ranges bad[] = {
        { 1, 0, VERIFY_RANGE_UNITS, 0 },
        { 1, 0, VERIFY_RANGE_UNITS, VERIFY_RANGES_MAX + 1 },
        { 1, 0, 1, VERIFY_HASHES_MAX + 1 },
        { 1, 0, 2, 1 },
        { 1, 0, 0, 1 },
        { 1, 1, 1, 1 },
        { 1, 4 * VERIFY_RANGE_UNITS, 1, 1 },
        { 1, UINT64_MAX - VERIFY_RANGE_UNITS + 1, VERIFY_RANGE_UNITS, UINT32_MAX },
    };
    (void)state;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct err err = { 0 };
        assert_int_equal(verify_check(&bad[i], &here->source, &err), -EPROTO);
        assert_true(err.text[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_bit_of_every_range_counts_to_the_last_unit, setup, teardown),
        cmocka_unit_test_setup_teardown(contents_that_changed_places_are_not_equal, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_known_to_be_untouched_is_zero_without_a_look, setup, teardown),
        cmocka_unit_test_setup_teardown(a_question_without_sense_is_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
