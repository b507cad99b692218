#include "tests/unit/test.h"

#include <errno.h>

#include "migration/threads/compress.h"
#include "migration/threads/loader_priv.h"
#include "tests/unit/migration/threads/road.h"

static uint8_t wire[FRAME_AROUND_BYTES + COMPRESS_OUT_MAX];
static uint8_t *const payload = wire + FRAME_PREFIX_BYTES + FRAME_HEAD_BYTES;

/* Sections made by hand, written to a loader; the code that its receive thread ended with. */
static int deliver(struct road *road, const void *bytes, size_t count)
{
    static const uint8_t end = ROAD_END;
    int ret = channel_write_all(road->out, bytes, count, -1, NULL);
    ret = ret < 0 ? ret : channel_write_all(road->out, &end, 1, -1, NULL);
    if (ret < 0) {
        return ret;
    }
    road_join(road);
    return road->err.code;
}

static size_t chunk(uint32_t id, struct frame frame)
{
    memset(payload, 0x41, frame.payload_bytes);
    frame.kind = FRAME_CHUNK;
    return frame_seal(wire, id, &frame);
}

static size_t mark(uint8_t *at, struct road *road, uint32_t id, uint32_t round, uint64_t data, uint64_t zero)
{
    struct frame_counts counts[ROAD_SOURCES] = { { data, zero } };
    struct frame frame = { .kind = FRAME_MARK, .round = round };
    uint8_t *body = at + FRAME_PREFIX_BYTES + FRAME_HEAD_BYTES;
    frame.payload_bytes = (uint32_t)frame_mark_put(body, road->sources_there, ROAD_SOURCES, counts);
    return frame_seal(at, id, &frame);
}

static const struct frame one_page = { .round = 1, .data = 1, .zero = 6, .payload_bytes = FAKE_UNIT };

static void expect(int code, size_t bytes, const char *part_of_text)
{
    struct road road;
    road_open(&road, 200, 0, 2);
    assert_int_equal(deliver(&road, wire, bytes), code);
    if (code < 0) {
        assert_non_null(strstr(road.err.text, part_of_text));
        assert_int_equal(road.marks, 0);
    }
    road_close(&road);
}

static void a_frame_and_its_mark_are_loaded(void **state)
{
    struct road road;
    (void)state;

    road_open(&road, 200, 0, 1);
    memset(road.there[0]->pages, 0xff, 3 * FAKE_UNIT); /* a zero record clears whatever is there */
    size_t bytes = chunk(1, one_page);
    bytes += mark(wire + bytes, &road, 1, 1, 1, 2);
    assert_int_equal(deliver(&road, wire, bytes), 0);
    assert_int_equal(road.marks, 1);
    assert_int_equal(road.there[0]->pages[0], 0x41);
    assert_int_equal(road.there[0]->pages[FAKE_UNIT - 1], 0x41);
    assert_int_equal(road.there[0]->pages[FAKE_UNIT], 0);
    assert_int_equal(road.there[0]->pages[3 * FAKE_UNIT], 0);
    road_close(&road);
}

static void waiting_for_bytes_is_counted(void **state)
{
    struct loader_stats stats;
    struct loader *loader;
    struct road road;
    uint8_t prefix[FRAME_PREFIX_BYTES];
    bool is_mark;
    (void)state;

    road_open(&road, 200, 0, 0);
    struct loader_options options = {
        .workers = 1, .sources = road.sources_there, .source_count = ROAD_SOURCES, .channel = road.in
    };
    assert_int_equal(loader_new(&options, &loader, NULL), 0);
    loader_stats(loader, &stats);
    assert_int_equal(stats.waited_ns, 0);
    assert_int_equal(loader_wait(loader, 1), 0);
    loader_stats(loader, &stats);
    assert_true(stats.waited_ns > 0);
    assert_int_equal(channel_write_all(road.out, wire, chunk(1, one_page), -1, NULL), 0);
    assert_int_equal(loader_wait(loader, 1000), 1);
    assert_int_equal(channel_read_all(road.in, prefix, sizeof(prefix), -1, NULL), 0);
    assert_int_equal(loader_frame(loader, 1, &is_mark, NULL), 0);
    assert_int_equal(loader_barrier(loader, NULL), 0);
    loader_stats(loader, &stats);
    assert_int_equal(stats.codec_units[CODEC_RAW], 1);
    loader_free(loader);
    road_close(&road);
}

/* A peer that sends rounds of nothing for ever is given up in the end. */
static void rounds_have_a_limit(void **state)
{
    struct loader *loader;
    struct road road;
    struct err err = { 0 };
    bool is_mark;
    (void)state;

    road_open(&road, 200, 0, 0);
    struct loader_options options = {
        .workers = 1, .sources = road.sources_there, .source_count = ROAD_SOURCES, .channel = road.in
    };
    assert_int_equal(loader_new(&options, &loader, NULL), 0);
    loader->rounds = LOADER_ROUNDS_MAX - 1; /* as many were closed */
    for (unsigned i = 0; i < 2; i++) {
        uint8_t around[FRAME_PREFIX_BYTES];
        size_t bytes = mark(wire, &road, 1, LOADER_ROUNDS_MAX + i, 0, 0);
        assert_int_equal(channel_write_all(road.out, wire, bytes, -1, NULL), 0);
        assert_int_equal(channel_read_all(road.in, around, FRAME_PREFIX_BYTES, -1, NULL), 0);
        assert_int_equal(loader_frame(loader, 1, &is_mark, &err), i ? -EDQUOT : 0);
        assert_int_equal(is_mark, !i);
        assert_true(i || channel_read_all(road.in, around, FRAME_FOOTER_BYTES, -1, NULL) == 0);
    }
    assert_non_null(strstr(err.text, "the limit is 16777216"));
    loader_free(loader);
    road_close(&road);
}

static void a_forged_mark_is_refused(void **state)
{
    struct road road;
    (void)state;

    road_open(&road, 200, 0, 1);
    size_t bytes = mark(wire, &road, 1, 1, 0, 1); /* one more than came */
    road_close(&road);
    expect(-EPROTO, bytes, "should have had");
    road_open(&road, 200, 0, 1);
    bytes = mark(wire, &road, 2, 1, 0, 0);
    road_close(&road);
    expect(-EPROTO, bytes, "under section 2");
    road_open(&road, 200, 0, 1);
    bytes = mark(wire, &road, 1, 2, 0, 0);
    road_close(&road);
    expect(-EPROTO, bytes, "round 2");
    road_open(&road, 200, 0, 1);
    bytes = mark(wire, &road, 1, 1, 0, 0);
    road_close(&road);
    wire[FRAME_PREFIX_BYTES + FRAME_HEAD_BYTES + 8] ^= 1; /* a count's bit */
    expect(-EPROTO, bytes, "checksum");
}

static void frames_that_lie_are_refused(void **state)
{
    struct frame frame = one_page;
    (void)state;

    expect(-EPROTO, chunk(3, frame), "no source");
    expect(-EPROTO, chunk(0, frame), "no source");
    frame = one_page, frame.round = 2;
    expect(-EPROTO, chunk(1, frame), "round 2");
    frame = one_page, frame.first_unit = 256;
    expect(-EPROTO, chunk(1, frame), "begin a chunk");
    frame = one_page, frame.first_unit = 192, frame.zero = 1 << 8;
    expect(-EPROTO, chunk(1, frame), "do not exist");
    size_t bytes = chunk(1, one_page);
    memcpy(wire + bytes, wire, bytes); /* the same word again */
    expect(-EPROTO, bytes * 2, "came twice");
    frame = one_page, frame.codec = CODEC_LZ4, frame.payload_bytes = 100;
    bytes = chunk(1, frame); /* its part says 0x41414141 bytes; a worker finds that out, the mark tells */
    struct road road;
    road_open(&road, 200, 0, 1);
    bytes += mark(wire + bytes, &road, 1, 1, 1, 2);
    road_close(&road);
    expect(-EPROTO, bytes, "is said to come in");
}

static void a_flipped_bit_stores_nothing(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 64; i++) {
        struct road road;
        road_open(&road, 200, 0, 1);
        size_t bytes = chunk(1, one_page);
        payload[i * 64] ^= (uint8_t)(1 << i % 8);
        bytes += mark(wire + bytes, &road, 1, 1, 1, 2);
        assert_int_equal(deliver(&road, wire, bytes), -EPROTO);
        assert_non_null(strstr(road.err.text, "checksum"));
        assert_int_equal(road.there[0]->stores, 0);
        assert_int_equal(road.marks, 0);
        road_close(&road);
    }
}

static void a_stream_cut_anywhere_ends_with_a_sentence(void **state)
{
    (void)state;
    size_t whole = chunk(1, one_page);
    for (size_t cut = 1; cut < whole; cut += cut < 64 ? 1 : 509) {
        struct road road;
        road_open(&road, 200, 0, 1);
        chunk(1, one_page);
        assert_int_equal(channel_write_all(road.out, wire, cut, -1, NULL), 0);
        assert_int_equal(channel_finish(road.out, NULL), 0);
        road_join(&road);
        assert_int_equal(road.err.code, -EPIPE);
        assert_non_null(strstr(road.err.text, "ended after"));
        road_close(&road);
    }
}

static void a_full_disk_fails_the_round_at_its_mark(void **state)
{
    struct road road;
    (void)state;

    road_open(&road, 200, 0, 1);
    atomic_store(&road.there[0]->store_error, -ENOSPC);
    size_t bytes = chunk(1, one_page);
    bytes += mark(wire + bytes, &road, 1, 1, 1, 2);
    assert_int_equal(deliver(&road, wire, bytes), -ENOSPC);
    assert_non_null(strstr(road.err.text, "cannot store unit 0"));
    road_close(&road);
}

static void zeros_on_fresh_memory_are_neither_read_nor_counted_in_the_digest(void **state)
{
    struct road road;
    uint64_t digest[2];
    struct frame frame = { .round = 1, .zero = UINT64_MAX };
    (void)state;

    road_open(&road, 200, 0, 1);
    size_t bytes = chunk(1, frame);
    bytes += mark(wire + bytes, &road, 1, 1, 0, 64);
    assert_int_equal(deliver(&road, wire, bytes), 0);
    loader_digest(road.loader, 0, digest);
    assert_true(digest[0] == 0 && digest[1] == 0);
    assert_int_equal(road.there[0]->zeros, 64);
    road_close(&road);
}

static void fail_ends_a_loader_that_waits_for_its_peer(void **state)
{
    struct road road;
    (void)state;

    road_open(&road, 200, 0, 1);
    chunk(1, one_page);
    assert_int_equal(channel_write_all(road.out, wire, 20, -1, NULL), 0);
    loader_fail(road.loader, -ECANCELED, "enough");
    road_join(&road);
    assert_int_equal(road.err.code, -ECANCELED);
    road_close(&road);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frame_and_its_mark_are_loaded),
        cmocka_unit_test(waiting_for_bytes_is_counted),
        cmocka_unit_test(rounds_have_a_limit),
        cmocka_unit_test(a_forged_mark_is_refused),
        cmocka_unit_test(frames_that_lie_are_refused),
        cmocka_unit_test(a_flipped_bit_stores_nothing),
        cmocka_unit_test(a_stream_cut_anywhere_ends_with_a_sentence),
        cmocka_unit_test(a_full_disk_fails_the_round_at_its_mark),
        cmocka_unit_test(zeros_on_fresh_memory_are_neither_read_nor_counted_in_the_digest),
        cmocka_unit_test(fail_ends_a_loader_that_waits_for_its_peer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
