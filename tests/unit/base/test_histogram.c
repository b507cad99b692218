#include "tests/unit/test.h"

#include "base/histogram.h"
#include "base/thread.h"

static void buckets_are_powers_of_two_in_microseconds(void **state)
{
    (void)state;
    static const struct {
        uint64_t ns;
        unsigned bucket;
    } rows[] = { { 0, 0 },        { 999, 0 },         { 1000, 1 },        { 1999, 1 },
                 { 2000, 2 },     { 3999, 2 },        { 4000, 3 },        { 1024000, 11 },
                 { 1023999, 10 }, { 4194304000, 23 }, { 4194303999, 22 }, { UINT64_MAX, HISTOGRAM_BUCKETS - 1 } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(histogram_bucket(rows[i].ns), rows[i].bucket);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) { /* each begins where it says */
        uint64_t from_ns = histogram_from_us(i) * 1000;
        assert_int_equal(histogram_bucket(from_ns), i);
        assert_true(i == 0 || histogram_bucket(from_ns - 1) == i - 1);
    }
}

static void buckets_add_up_to_the_count(void **state)
{
    (void)state;
    struct histogram h = { 0 };
    struct histogram_counts now, twice = { 0 };
    uint64_t sum_ns = 0, buckets = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        histogram_add(&h, i * i * 37);
        sum_ns += i * i * 37;
    }
    histogram_read(&h, &now);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        buckets += now.bucket[i];
    assert_int_equal(now.count, 1000);
    assert_int_equal(buckets, 1000);
    assert_int_equal(now.sum_ns, sum_ns);
    assert_int_equal(now.longest_ns, 999 * 999 * 37);
    histogram_join(&twice, &now);
    histogram_join(&twice, &now);
    assert_int_equal(twice.count, 2000);
    assert_int_equal(twice.longest_ns, now.longest_ns);
    now.sum_ns = UINT64_MAX;
    histogram_join(&twice, &now);
    assert_true(twice.sum_ns == UINT64_MAX);
    histogram_clear(&h);
    histogram_read(&h, &now);
    assert_int_equal(now.count + now.sum_ns + now.longest_ns + now.bucket[0] + now.bucket[5], 0);
}

static struct histogram shared;

static void add_many(void *opaque)
{
    (void)opaque;
    for (uint64_t i = 0; i < 200000; i++)
        histogram_add(&shared, i);
}

static void a_reader_never_sees_a_count_without_its_buckets(void **state)
{
    (void)state;
    struct thread thread = { 0 };
    struct histogram_counts now = { 0 };
    unsigned behind = 0;
    assert_int_equal(thread_start(&thread, "adds", add_many, NULL, NULL), 0);
    while (now.count < 200000) {
        uint64_t buckets = 0;
        histogram_read(&shared, &now);
        for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
            buckets += now.bucket[i];
        behind += buckets < now.count;
    }
    thread_join(&thread);
    assert_int_equal(behind, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_are_powers_of_two_in_microseconds),
        cmocka_unit_test(buckets_add_up_to_the_count),
        cmocka_unit_test(a_reader_never_sees_a_count_without_its_buckets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
