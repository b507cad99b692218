#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#include "migration/threads/scan.h"
#include "tests/unit/migration/threads/fake.h"

static uint8_t raw[64 * FAKE_UNIT] __attribute__((aligned(64)));

static void zeros_are_told_from_data_and_data_lies_together(void **state)
{
    struct fake *fake = fake_new(1, 128);
    struct digest digest;
    struct scanned scanned;
    (void)state;

    digest_new(&digest, 128, NULL, NULL);
    fake->pages[65 * FAKE_UNIT + 4095] = 1; /* the last byte counts */
    fake->pages[67 * FAKE_UNIT] = 2;
    assert_int_equal(scan_step(&fake->source, &digest, 1, 0xf, raw, &scanned, NULL), 0);
    assert_true(scanned.data == 0xa && scanned.zero == 0x5 && scanned.units == 2);
    assert_int_equal(raw[4095], 1);
    assert_int_equal(raw[4096], 2);
    assert_true(unit_hash_is_zero(digest_last(&digest, 64)) && !unit_hash_is_zero(digest_last(&digest, 65)));
    digest_destroy(&digest);
    fake_free(fake);
}

static uint64_t all_but_the_first(struct source *source, uint64_t word)
{
    (void)source, (void)word;
    return ~UINT64_C(1);
}

/* The last one is beside the source, whose copy() would abort. */
static void units_known_to_be_blank_are_not_read_and_news_only_where_something_was_sent(void **state)
{
    struct fake *fake = fake_new(1, 64);
    struct source_ops ops = *fake->source.ops;
    struct digest digest;
    struct scanned scanned;
    uint64_t sum[2];
    (void)state;

    digest_new(&digest, 64, NULL, NULL);
    fake->pages[0] = fake->pages[9 * FAKE_UNIT] = 1;
    assert_int_equal(scan_step(&fake->source, &digest, 0, UINT64_MAX, raw, &scanned, NULL), 0);
    assert_true(scanned.data == (1 | 1 << 9) && scanned.zero == ~scanned.data && scanned.cleared == 0);
    digest_apply(&digest, &scanned.change);
    ops.blank = all_but_the_first;
    fake->source.ops = &ops;
    fake->hole = 33;
    assert_int_equal(scan_step(&fake->source, &digest, 0, UINT64_MAX, raw, &scanned, NULL), 0);
    assert_true(scanned.data == 1 && scanned.zero == ~UINT64_C(1) && scanned.cleared == 1 << 9);
    digest_apply(&digest, &scanned.change);
    fake->pages[0] = 0;
    assert_int_equal(scan_step(&fake->source, &digest, 0, 1, raw, &scanned, NULL), 0);
    assert_true(scanned.data == 0 && scanned.zero == 1 && scanned.cleared == 1);
    digest_apply(&digest, &scanned.change);
    digest_get(&digest, sum);
    assert_true(sum[0] == 0 && sum[1] == 0);
    digest_destroy(&digest);
    fake_free(fake);
}

static void a_source_that_cannot_be_read_says_so(void **state)
{
    struct fake *fake = fake_new(1, 64);
    struct digest digest;
    struct scanned scanned;
    struct err err = { 0 };
    (void)state;

    digest_new(&digest, 64, NULL, NULL);
    atomic_store(&fake->copy_error, -EIO);
    assert_int_equal(scan_step(&fake->source, &digest, 0, 1, raw, &scanned, &err), -EIO);
    assert_non_null(strstr(err.text, "fake/ram"));
    digest_destroy(&digest);
    fake_free(fake);
}

static void every_dirty_word_of_every_source_is_claimed_once_a_round(void **state)
{
    struct fake *a = fake_new(1, 64 * 10), *b = fake_new(2, 64 * 5 - 1);
    struct source *sources[] = { &a->source, &b->source };
    struct scan_cursor cursor = { .sources = sources, .source_count = 2 };
    struct scan_slice slice;
    uint64_t units = 0;
    unsigned words = 0;
    (void)state;

    fake_mark_all(a);
    fake_mark_all(b);
    atomic_store(&a->dirty[4], 0);
    scan_begin(&cursor);
    while (scan_claim(&cursor, 3, &slice)) {
        assert_true(slice.count >= 1 && slice.count <= 3 && slice.token > 0);
        for (unsigned i = 0; i < slice.count; i++) {
            units += (uint64_t)__builtin_popcountll(slice.units[i]);
            words++;
            fake_write(fake_of(slice.source), slice.words[i] * 64, 0, 1); /* dirty again: for the next round */
        }
    }
    assert_int_equal(words, 14);
    assert_int_equal(units, 64 * 9 + 64 * 5 - 1);
    assert_false(scan_claim(&cursor, 3, &slice));
    assert_int_equal(fake_dirty(&a->source) + fake_dirty(&b->source), 14);
    scan_begin(&cursor);
    assert_true(scan_claim(&cursor, SCAN_SLICE_MAX, &slice));
    assert_int_equal(slice.count, 9);
    fake_free(a);
    fake_free(b);
}

static void slices_grow_while_waiting_costs_and_shrink_when_it_is_free(void **state)
{
    (void)state;
    assert_int_equal(scan_slice_words(4, 100, 1000), 8);
    assert_int_equal(scan_slice_words(4, 20, 1000), 4);
    assert_int_equal(scan_slice_words(4, 0, 1000), 3);
    assert_int_equal(scan_slice_words(1, 0, 1000), 1);
    assert_int_equal(scan_slice_words(SCAN_SLICE_MAX, 1000, 1000), SCAN_SLICE_MAX);
    assert_int_equal(scan_slice_words(SCAN_SLICE_MAX - 1, 1000, 1000), SCAN_SLICE_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zeros_are_told_from_data_and_data_lies_together),
        cmocka_unit_test(units_known_to_be_blank_are_not_read_and_news_only_where_something_was_sent),
        cmocka_unit_test(a_source_that_cannot_be_read_says_so),
        cmocka_unit_test(every_dirty_word_of_every_source_is_claimed_once_a_round),
        cmocka_unit_test(slices_grow_while_waiting_costs_and_shrink_when_it_is_free),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
