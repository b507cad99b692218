#include "tests/unit/test.h"

#include <errno.h>

#include "base/clock.h"
#include "migration/threads/choose.h"
#include "tests/unit/migration/threads/road.h"

static const unsigned worker_counts[] = { 1, 2, 4 };
enum { COUNTS = sizeof(worker_counts) / sizeof(worker_counts[0]), WRITERS = 2 };

static int end_of_stream(struct road *road)
{
    uint8_t end = ROAD_END;
    int ret = pipeline_send(road->pipeline, &end, 1, NULL);
    return ret < 0 ? ret : pipeline_flush(road->pipeline, NULL);
}

static void a_still_guest_arrives_whole_whatever_the_threads_and_the_codec(void **state)
{
    (void)state;
    static const uint32_t codecs[] = { CODEC_RAW, CODEC_LZ4, CODEC_ZSTD, CODEC_AUTO };
    for (unsigned i = 0; i < COUNTS * 4; i++) {
        struct road road;
        struct round_result result;
        struct pipeline_stats stats;
        struct loader_stats loaded;

        road_open(&road, 64 * 20 + 7, worker_counts[i / 4], worker_counts[COUNTS - 1 - i / 4]);
        road.here[0]->hole = road.there[0]->hole = 70;
        memset(road.here[0]->pages + 70 * FAKE_UNIT, 0, FAKE_UNIT);
        fake_mark_all(road.here[0]);
        atomic_store(&road.tunables.codec, codecs[i % 4]);
        assert_int_equal(pipeline_round(road.pipeline, true, &result, NULL), 0);
        assert_int_equal(end_of_stream(&road), 0);
        road_join(&road);
        assert_int_equal(road.err.code, 0);
        assert_int_equal(road.marks, 1);
        assert_true(road_arrived_whole(&road));
        pipeline_stats(road.pipeline, &stats);
        loader_stats(road.loader, &loaded);
        uint64_t units = road.here[0]->source.units - 1 + road.here[1]->source.units;
        assert_int_equal(result.units_data + result.units_zero, units);
        assert_int_equal(stats.units_taken, units);
        assert_int_equal(loaded.units_data, stats.units_data);
        assert_int_equal(loaded.units_zero, stats.units_zero);
        assert_memory_equal(loaded.codec_units, stats.codec_units, sizeof(stats.codec_units));
        if (codecs[i % 4] != CODEC_AUTO) {
            assert_int_equal(stats.codec_units[codecs[i % 4]], stats.units_data);
        }
        assert_int_equal(stats.wire_bytes, result.wire_bytes + 1);
        assert_int_equal(loaded.wire_bytes, result.wire_bytes);
        assert_int_equal(stats.queued_bytes, 0);
        assert_int_equal(road.here[0]->revokes, road.here[0]->waits); /* every revoke was waited for */
        road_close(&road);
    }
}

static void a_codec_set_between_chunks_is_the_next_ones(void **state)
{
    static const uint32_t codecs[] = { CODEC_ZSTD, CODEC_RAW, CODEC_AUTO, CODEC_LZ4, CODEC_ZSTD };
    struct pipeline_stats stats, before = { 0 };
    struct round_result result;
    struct road road;
    (void)state;

    road_open(&road, 64 * 20 + 7, 2, 2);
    for (unsigned i = 0; i < sizeof(codecs) / sizeof(codecs[0]); i++) {
        atomic_store(&road.tunables.codec, codecs[i]);
        fake_mark_all(road.here[0]);
        assert_int_equal(pipeline_round(road.pipeline, false, &result, NULL), 0);
        pipeline_stats(road.pipeline, &stats);
        if (codecs[i] != CODEC_AUTO) {
            assert_int_equal(stats.codec, codecs[i]);
            assert_int_equal(stats.codec_units[codecs[i]] - before.codec_units[codecs[i]], result.units_data);
        }
        before = stats;
    }
    assert_int_equal(end_of_stream(&road), 0);
    road_join(&road);
    assert_int_equal(road.err.code, 0);
    assert_true(road_arrived_whole(&road));
    road_close(&road);
}

static void a_peer_gets_no_codec_that_it_does_not_read(void **state)
{
    static const struct {
        unsigned reads;
        enum codec wanted, got;
    } rows[] = {
        { 1u << CODEC_RAW | 1u << CODEC_LZ4, CODEC_ZSTD, CODEC_LZ4 },
        { 1u << CODEC_RAW, CODEC_ZSTD, CODEC_RAW },
        { 1u << CODEC_RAW, CODEC_LZ4, CODEC_RAW },
        { 1u << CODEC_RAW | 1u << CODEC_ZSTD, CODEC_ZSTD, CODEC_ZSTD },
    };
    (void)state;

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct pipeline_stats stats;
        struct road road;
        road_open_for(&road, 64 * 8, 1, 1, rows[i].reads, false);
        atomic_store(&road.tunables.codec, rows[i].wanted);
        assert_int_equal(pipeline_round(road.pipeline, true, NULL, NULL), 0);
        pipeline_stats(road.pipeline, &stats);
        assert_int_equal(stats.codec_units[rows[i].got], stats.units_data);
        assert_int_equal(stats.codec, rows[i].got);
        road_close(&road);
    }
}

/* Zeroes it has already, until something else was sent: then they are news. */
static uint64_t zero_units(const struct fake *fake)
{
    static const uint8_t zeros[FAKE_UNIT];
    uint64_t count = 0;
    for (uint64_t unit = 0; unit < fake->source.units; unit++)
        count += memcmp(fake->pages + unit * FAKE_UNIT, zeros, FAKE_UNIT) == 0;
    return count;
}

/* Of the first source, which is memory: a disk may lie over something that is not zero. */
static void a_peer_with_fresh_memory_is_sent_no_zeroes_that_it_has(void **state)
{
    struct loader_stats loaded;
    struct pipeline_stats sent;
    struct round_result result;
    struct road road;
    (void)state;

    road_open_fresh(&road, 64 * 20 + 7, 2, 2, 0, false, 2, 0, true);
    memset(road.here[0]->pages, 0, 64 * 10 * FAKE_UNIT);
    fake_mark_all(road.here[0]);
    assert_int_equal(pipeline_round(road.pipeline, false, &result, NULL), 0);
    uint64_t others = zero_units(road.here[1]);
    assert_true(others > 0);
    assert_int_equal(result.units_zero, others);
    memset(road.here[0]->pages + 64 * 10 * FAKE_UNIT, 0, 64 * FAKE_UNIT);
    fake_mark_all(road.here[0]);
    assert_int_equal(pipeline_round(road.pipeline, true, &result, NULL), 0);
    assert_int_equal(end_of_stream(&road), 0);
    road_join(&road);
    assert_int_equal(road.err.code, 0);
    assert_true(road_arrived_whole(&road));
    loader_stats(road.loader, &loaded);
    pipeline_stats(road.pipeline, &sent);
    assert_int_equal(loaded.units_zero, others + result.units_zero);
    assert_in_range(result.units_zero, 1, 64);
    assert_true(sent.units_zero >= 2 * 64 * 10); /* counted all the same */
    road_close(&road);
}

/* What the forecast of the pause was made with: nothing is measured, nothing changes. */
static void the_last_round_keeps_its_codec(void **state)
{
    struct pipeline_stats stats;
    struct road road;
    (void)state;

    road_open(&road, 64 * 150, 2, 2);
    atomic_store(&road.tunables.codec, CODEC_AUTO);
    assert_int_equal(pipeline_round(road.pipeline, true, NULL, NULL), 0);
    pipeline_stats(road.pipeline, &stats);
    assert_int_equal(stats.codec_units[gears[GEAR_START].codec], stats.units_data);
    road_close(&road);
}

static void where_nobody_waits_auto_is_lz4(void **state)
{
    struct pipeline_stats stats;
    struct road road;
    (void)state;

    road_open_for(&road, 64 * 8, 1, 1, 0, true);
    atomic_store(&road.tunables.codec, CODEC_AUTO);
    assert_int_equal(pipeline_round(road.pipeline, true, NULL, NULL), 0);
    pipeline_stats(road.pipeline, &stats);
    assert_int_equal(stats.codec_units[CODEC_LZ4], stats.units_data);
    road_close(&road);
}

struct storm {
    struct road *road;
    _Atomic bool stop;
    _Atomic uint64_t stores;
    pthread_t threads[WRITERS];
};

static void *storm_run(void *opaque)
{
    struct storm *storm = opaque;
    uint64_t seed = (uint64_t)(uintptr_t)&seed;

    while (!atomic_load_explicit(&storm->stop, memory_order_acquire)) {
        struct fake *fake = storm->road->here[fake_random(&seed) % ROAD_SOURCES];
        uint64_t unit = fake_random(&seed) % fake->source.units;
        bool clear = fake_random(&seed) % 8 == 0; /* units also become zero again */
        for (unsigned word = 0; word < (clear ? FAKE_UNIT / 8 : 1); word++) {
            fake_write(fake, unit, clear ? word : (unsigned)(fake_random(&seed) % 512), clear ? 0 : seed);
        }
        atomic_fetch_add_explicit(&storm->stores, 1, memory_order_relaxed);
    }
    return NULL;
}

static void a_guest_that_keeps_writing_arrives_whole(void **state)
{
    (void)state;
    for (unsigned i = 0; i < COUNTS; i++) {
        struct road road;
        struct storm storm = { .road = &road };

        road_open(&road, 64 * 12, worker_counts[i], worker_counts[i]);
        for (unsigned w = 0; w < WRITERS; w++) {
            assert_int_equal(pthread_create(&storm.threads[w], NULL, storm_run, &storm), 0);
        }
        int failed = 0;
        unsigned rounds = 0;
        while (!failed && (rounds < 6 || atomic_load(&storm.stores) < 1000)) {
            failed = pipeline_round(road.pipeline, false, NULL, NULL);
            rounds++;
        }
        atomic_store_explicit(&storm.stop, true, memory_order_release);
        for (unsigned w = 0; w < WRITERS; w++) {
            pthread_join(storm.threads[w], NULL);
        }
        assert_int_equal(failed, 0);
        assert_int_equal(pipeline_round(road.pipeline, true, NULL, NULL), 0);
        assert_int_equal(end_of_stream(&road), 0);
        road_join(&road);
        assert_int_equal(road.err.code, 0);
        assert_int_equal(road.marks, rounds + 1);
        assert_true(road_arrived_whole(&road));
        assert_true(fake_dirty(&road.here[0]->source) == 0);
        road_close(&road);
    }
}

static void a_clean_guest_costs_a_round_only_its_mark(void **state)
{
    struct road road;
    struct round_result result;
    (void)state;

    road_open(&road, 64, 2, 1);
    assert_int_equal(pipeline_round(road.pipeline, false, NULL, NULL), 0);
    assert_int_equal(pipeline_round(road.pipeline, true, &result, NULL), 0);
    assert_int_equal(result.units_data + result.units_zero, 0);
    assert_int_equal(result.wire_bytes, FRAME_AROUND_BYTES + 4 + ROAD_SOURCES * FRAME_MARK_ROW_BYTES);
    assert_int_equal(end_of_stream(&road), 0);
    road_join(&road);
    assert_int_equal(road.marks, 2);
    road_close(&road);
}

static void a_round_that_is_cut_leaves_the_rest_to_the_next(void **state)
{
    (void)state;
    for (unsigned i = 0; i < COUNTS; i++) {
        struct road road;
        struct round_result first, second;

        road_open(&road, 64 * 200, worker_counts[i], 2);
        fake_mark_all(road.here[0]);
        fake_mark_all(road.here[1]);
        uint64_t units = fake_dirty(&road.here[0]->source) + fake_dirty(&road.here[1]->source);
        atomic_store(&road.tunables.max_bytes_per_s, 1 << 20); /* so that it is not over before it is cut */
        assert_int_equal(pipeline_round_begin(road.pipeline, false, NULL), 0);
        assert_false(pipeline_round_wait(road.pipeline, clock_now_ns()));
        pipeline_round_cut(road.pipeline);
        atomic_store(&road.tunables.max_bytes_per_s, 0);
        assert_int_equal(pipeline_round_end(road.pipeline, &first, NULL), 0);
        uint64_t left = fake_dirty(&road.here[0]->source) + fake_dirty(&road.here[1]->source);
        assert_true(left > 0);
        assert_int_equal(first.units_data + first.units_zero, units - left);
        assert_int_equal(pipeline_round(road.pipeline, true, &second, NULL), 0);
        assert_int_equal(second.units_data + second.units_zero, left);
        assert_int_equal(end_of_stream(&road), 0);
        road_join(&road);
        assert_int_equal(road.err.code, 0);
        assert_int_equal(road.marks, 2);
        assert_true(road_arrived_whole(&road));
        road_close(&road);
    }
}

static void a_train_ends_by_itself(void **state)
{
    (void)state;
    struct road road;
    struct round_result empty, train, rest;

    road_open(&road, 64 * 400, 2, 2);
    atomic_store(&road.tunables.codec, CODEC_RAW);
    fake_mark_all(road.here[0]);
    assert_int_equal(pipeline_train_begin(road.pipeline, 0, NULL), 0);
    assert_int_equal(pipeline_round_end(road.pipeline, &empty, NULL), 0);
    assert_int_equal(empty.units_data + empty.units_zero, 0);
    assert_int_equal(pipeline_train_begin(road.pipeline, 1 << 20, NULL), 0);
    assert_int_equal(pipeline_round_end(road.pipeline, &train, NULL), 0);
    assert_true(train.wire_bytes >= 1 << 20 && fake_dirty(&road.here[0]->source) > 0);
    assert_int_equal(pipeline_round(road.pipeline, true, &rest, NULL), 0);
    assert_int_equal(end_of_stream(&road), 0);
    road_join(&road);
    assert_int_equal(road.err.code, 0);
    assert_true(road_arrived_whole(&road));
    road_close(&road);
}

static void what_is_sent_between_rounds_keeps_its_place(void **state)
{
    struct road road;
    (void)state;

    road_open(&road, 64 * 4, 2, 2);
    for (uint32_t n = 1; n <= 300; n++) {
        uint8_t word[5] = { ROAD_WORD };
        be32_put(word + 1, n);
        assert_int_equal(pipeline_send(road.pipeline, word, sizeof(word), NULL), 0);
        if (n % 50 == 0) {
            fake_write(road.here[0], n % 64, 0, n);
            assert_int_equal(pipeline_round(road.pipeline, false, NULL, NULL), 0);
        }
    }
    size_t bytes = 5 * 200000; /* more than a chunk takes, in one call */
    uint8_t *many = malloc(bytes);
    for (uint32_t n = 0; n < 200000; n++) {
        many[n * 5] = ROAD_WORD;
        be32_put(many + n * 5 + 1, 301 + n);
    }
    assert_int_equal(pipeline_send(road.pipeline, many, bytes, NULL), 0);
    free(many);
    assert_int_equal(end_of_stream(&road), 0);
    road_join(&road);
    assert_int_equal(road.err.code, 0);
    assert_int_equal(road.words, 200300);
    road_close(&road);
}

struct canceller {
    struct road *road;
    int64_t returned_ns; /* when the round came back */
    int ret;
    struct err err;
};

static void *round_run(void *opaque)
{
    struct canceller *c = opaque;
    c->ret = pipeline_round(c->road->pipeline, false, NULL, &c->err);
    c->returned_ns = clock_now_ns();
    return NULL;
}

static bool stuck(struct road *road)
{
    struct pipeline_stats stats;
    pipeline_stats(road->pipeline, &stats);
    return stats.queued_bytes > 0 && stats.frozen_ns + stats.rate_wait_ns > 0;
}

static void cancel_while_stuck(uint64_t cap, bool destination)
{
    struct road road;
    struct canceller c = { .road = &road };
    pthread_t thread;

    road_open(&road, 64 * 40, 2, destination ? 1 : 0);
    atomic_store(&road.tunables.max_bytes_per_s, cap);
    assert_int_equal(pthread_create(&thread, NULL, round_run, &c), 0);
    while (!stuck(&road)) {
        sched_yield();
    }
    pipeline_fail(road.pipeline, -ECANCELED, "the operator changed their mind");
    pipeline_fail(road.pipeline, -EIO, "this one is too late");
    pthread_join(thread, NULL);
    assert_int_equal(c.ret, -ECANCELED);
    assert_string_equal(c.err.text, "the operator changed their mind");
    assert_int_equal(pipeline_round(road.pipeline, false, NULL, NULL), -ECANCELED);
    assert_int_equal(pipeline_send(road.pipeline, "x", 1, NULL), -ECANCELED);
    assert_int_equal(pipeline_flush(road.pipeline, NULL), -ECANCELED);
    assert_int_equal(channel_wait(road.out, POLLOUT, 0), -ECANCELED); /* whoever else waits for the channel is woken */

    road_close(&road);
}

static void cancel_ends_a_round_whose_peer_does_not_read(void **state)
{
    (void)state;
    cancel_while_stuck(0, false);
}

static void cancel_ends_a_round_that_waits_for_the_cap(void **state)
{
    (void)state;
    cancel_while_stuck(5000, true);
}

static void a_peer_that_closes_fails_the_round_with_the_reason(void **state)
{
    struct road road;
    struct err err = { 0 };
    (void)state;

    road_open(&road, 64 * 40, 1, 0);
    channel_shutdown(road.in);
    int ret = pipeline_round(road.pipeline, false, NULL, &err);
    ret = ret < 0 ? ret : pipeline_flush(road.pipeline, &err);
    assert_int_equal(ret, -EPIPE);
    assert_non_null(strstr(err.text, "cannot write to"));
    road_close(&road);
}

static void a_disk_that_cannot_be_read_fails_the_round(void **state)
{
    struct road road;
    struct err err = { 0 };
    (void)state;

    road_open(&road, 64 * 4, 2, 1);
    atomic_store(&road.here[1]->copy_error, -EIO);
    assert_int_equal(pipeline_round(road.pipeline, false, NULL, &err), -EIO);
    assert_non_null(strstr(err.text, "cannot read unit"));
    road_close(&road);
}

static void options_out_of_range_are_refused(void **state)
{
    struct fake *fake = fake_new(1, 64);
    struct source *sources[] = { &fake->source };
    struct pipeline_options options = { .workers = 0, .sources = sources, .source_count = 1 };
    struct pipeline *pipeline;
    (void)state;

    assert_int_equal(pipeline_new(&options, &pipeline, NULL), -EINVAL);
    options.workers = PIPELINE_WORKERS_MAX + 1;
    assert_int_equal(pipeline_new(&options, &pipeline, NULL), -EINVAL);
    options.workers = 1;
    options.source_count = 0;
    assert_int_equal(pipeline_new(&options, &pipeline, NULL), -EINVAL);
    pipeline_free(NULL);
    loader_free(NULL);
    fake_free(fake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_still_guest_arrives_whole_whatever_the_threads_and_the_codec),
        cmocka_unit_test(a_codec_set_between_chunks_is_the_next_ones),
        cmocka_unit_test(a_peer_gets_no_codec_that_it_does_not_read),
        cmocka_unit_test(a_peer_with_fresh_memory_is_sent_no_zeroes_that_it_has),
        cmocka_unit_test(the_last_round_keeps_its_codec),
        cmocka_unit_test(where_nobody_waits_auto_is_lz4),
        cmocka_unit_test(a_guest_that_keeps_writing_arrives_whole),
        cmocka_unit_test(a_clean_guest_costs_a_round_only_its_mark),
        cmocka_unit_test(a_round_that_is_cut_leaves_the_rest_to_the_next),
        cmocka_unit_test(a_train_ends_by_itself),
        cmocka_unit_test(what_is_sent_between_rounds_keeps_its_place),
        cmocka_unit_test(cancel_ends_a_round_whose_peer_does_not_read),
        cmocka_unit_test(cancel_ends_a_round_that_waits_for_the_cap),
        cmocka_unit_test(a_peer_that_closes_fails_the_round_with_the_reason),
        cmocka_unit_test(a_disk_that_cannot_be_read_fails_the_round),
        cmocka_unit_test(options_out_of_range_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
