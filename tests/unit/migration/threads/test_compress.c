#include "tests/unit/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "base/bytes.h"
#include "migration/threads/compress.h"
#include "tests/unit/migration/threads/fake.h"

enum { SPARE = 64, CANARY = 0xc5 };

static struct compressor compressor;
static uint8_t raw[FRAME_RAW_MAX] __attribute__((aligned(64)));
static uint8_t out[COMPRESS_OUT_MAX + SPARE];
static struct unpacker unpacker;
static uint8_t back[FRAME_RAW_MAX];

static int set_up(void **state)
{
    (void)state;
    return compressor_init(&compressor, NULL) | unpacker_init(&unpacker, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    compressor_destroy(&compressor);
    unpacker_destroy(&unpacker);
    return 0;
}

static void fill(unsigned kind, uint64_t seed)
{
    uint64_t *at = (uint64_t *)(void *)raw;
    for (unsigned i = 0; i < sizeof(raw) / 8; i++) {
        bool noise = kind == 1 || (kind == 2 && i / 4096 % 2); /* kind 2: every other 32 KiB */
        at[i] = noise ? fake_random(&seed) : i / 50;
    }
}

/* Unpack to back; the bytes, or -EPROTO. */
static int unpack(enum codec codec, unsigned units, size_t payload_bytes)
{
    struct frame frame = { .kind = FRAME_CHUNK, .codec = codec, .payload_bytes = (uint32_t)payload_bytes };
    struct unpack unpack;
    const uint8_t *run;
    int done = 0, got;

    frame.data = units == 64 ? UINT64_MAX : (UINT64_C(1) << units) - 1;
    unpack_begin(&unpack, &unpacker, &frame, out, FAKE_UNIT);
    while ((got = unpack_next(&unpack, &run, NULL)) > 0) {
        memcpy(back + done, run, (size_t)got * FAKE_UNIT);
        done += got * FAKE_UNIT;
    }
    return got < 0 ? got : done;
}

static void everything_comes_back_from_every_codec(void **state)
{
    static const unsigned units[] = { 0, 1, 15, 16, 17, 32, 63, 64 };
    (void)state;

    for (unsigned kind = 0; kind < 3; kind++) {
        fill(kind, kind + 99);
        for (unsigned i = 0; i < CODECS * sizeof(units) / sizeof(units[0]); i++) {
            enum codec codec = i % CODECS;
            unsigned n = units[i / CODECS];
            memset(out, CANARY, sizeof(out));
            size_t bytes = compress_chunk(&compressor, codec, 1, raw, n, FAKE_UNIT, out);
            assert_true(bytes <= n * FAKE_UNIT + (n + 15) / 16 * 4);
            for (unsigned c = COMPRESS_OUT_MAX; c < sizeof(out); c++) {
                assert_int_equal(out[c], CANARY);
            }
            assert_int_equal(unpack(codec, n, bytes), n * FAKE_UNIT);
            assert_memory_equal(raw, back, n * FAKE_UNIT);
        }
    }
}

static void what_compresses_gets_smaller_and_noise_hardly_larger(void **state)
{
    (void)state;
    for (unsigned codec = CODEC_LZ4; codec < CODECS; codec++) {
        fill(0, 1);
        assert_true(compress_chunk(&compressor, codec, 1, raw, 64, FAKE_UNIT, out) < FRAME_RAW_MAX / 8);
        fill(1, 1);
        assert_int_equal(compress_chunk(&compressor, codec, 1, raw, 64, FAKE_UNIT, out), FRAME_RAW_MAX + 16);
    }
}

static void a_payload_cut_short_or_with_a_tail_is_refused(void **state)
{
    (void)state;
    fill(2, 3);
    for (unsigned codec = CODEC_LZ4; codec < CODECS; codec++) {
        size_t bytes = compress_chunk(&compressor, codec, 1, raw, 64, FAKE_UNIT, out);
        for (size_t cut = 0; cut < bytes; cut += cut < 64 ? 1 : 1777) {
            assert_int_equal(unpack(codec, 64, cut), -EPROTO);
        }
        assert_int_equal(unpack(codec, 64, bytes + 1), -EPROTO);
        assert_int_equal(unpack(codec, 48, bytes), -EPROTO);
    }
}

static void part_lengths_that_lie_are_refused(void **state)
{
    static const uint32_t lies[] = { 0, 1, FRAME_PART_MAX + 1, 0x7fffffff, 0x80000000, 0xffffffff };
    (void)state;

    fill(0, 3);
    for (unsigned codec = CODEC_LZ4; codec < CODECS; codec++) {
        size_t bytes = compress_chunk(&compressor, codec, 1, raw, 64, FAKE_UNIT, out);
        for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
            uint32_t was = be32_get(out);
            be32_put(out, lies[i]);
            assert_int_equal(unpack(codec, 64, bytes), -EPROTO);
            be32_put(out, was);
        }
    }
}

/* As one part of 16 units: what a stream may claim to be one. */
static int unpack_as_part(const void *packed, size_t bytes)
{
    be32_put(out, (uint32_t)bytes);
    memcpy(out + 4, packed, bytes);
    return unpack(CODEC_ZSTD, 16, 4 + bytes);
}

static size_t zstd_frame(uint8_t *to, size_t room, size_t bytes, bool tell_size)
{
    ZSTD_CCtx *zstd = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_contentSizeFlag, tell_size);
    size_t packed = ZSTD_compress2(zstd, to, room, raw, bytes);
    ZSTD_freeCCtx(zstd);
    assert_false(ZSTD_isError(packed));
    return packed;
}

static void a_zstd_part_is_one_frame_that_says_exactly_its_size(void **state)
{
    static uint8_t frames[FRAME_PART_MAX];
    (void)state;

    fill(0, 3);
    size_t whole = zstd_frame(frames, sizeof(frames), FRAME_PART_MAX, true);
    assert_int_equal(unpack_as_part(frames, whole), FRAME_PART_MAX);
    assert_int_equal(unpack_as_part(frames, whole - 1), -EPROTO);
    size_t silent = zstd_frame(frames, sizeof(frames), FRAME_PART_MAX, false);
    assert_int_equal(unpack_as_part(frames, silent), -EPROTO);
    size_t more = zstd_frame(frames, sizeof(frames), FRAME_RAW_MAX, true);
    assert_int_equal(unpack_as_part(frames, more), -EPROTO);
    /* Two that add up, or one and an empty one: a part is one frame. */
    size_t half = zstd_frame(frames, sizeof(frames), FRAME_PART_MAX / 2, true);
    memcpy(frames + half, frames, half);
    assert_int_equal(unpack_as_part(frames, 2 * half), -EPROTO);
    whole = zstd_frame(frames, sizeof(frames), FRAME_PART_MAX, true);
    size_t empty = zstd_frame(frames + whole, sizeof(frames) - whole, 0, true);
    assert_int_equal(unpack_as_part(frames, whole + empty), -EPROTO);
}

static void scanning_straight_into_the_payload_needs_no_copy(void **state)
{
    (void)state;
    memset(out, 7, sizeof(out));
    assert_int_equal(compress_chunk(&compressor, CODEC_RAW, 1, out, 3, FAKE_UNIT, out), 3 * FAKE_UNIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_comes_back_from_every_codec),
        cmocka_unit_test(what_compresses_gets_smaller_and_noise_hardly_larger),
        cmocka_unit_test(a_payload_cut_short_or_with_a_tail_is_refused),
        cmocka_unit_test(part_lengths_that_lie_are_refused),
        cmocka_unit_test(a_zstd_part_is_one_frame_that_says_exactly_its_size),
        cmocka_unit_test(scanning_straight_into_the_payload_needs_no_copy),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
