#include "tests/unit/test.h"

#include <errno.h>

#include "base/bytes.h"
#include "migration/threads/frame.h"
#include "tests/unit/migration/threads/fake.h"

static uint8_t wire[FRAME_AROUND_BYTES + FRAME_PAYLOAD_MAX];
static uint8_t *const head = wire + FRAME_PREFIX_BYTES;
static uint8_t *const payload = wire + FRAME_PREFIX_BYTES + FRAME_HEAD_BYTES;

static struct frame sample(void)
{
    return (struct frame){
        .kind = FRAME_CHUNK,
        .codec = CODEC_RAW,
        .round = 7,
        .first_unit = 128,
        .data = 0x5,
        .zero = 0xa,
        .payload_bytes = 2 * FAKE_UNIT,
    };
}

static size_t seal_sample(void)
{
    struct frame frame = sample();
    for (unsigned i = 0; i < frame.payload_bytes; i++) {
        payload[i] = (uint8_t)(i * 31);
    }
    return frame_seal(wire, 3, &frame);
}

static void a_frame_comes_back_as_it_was(void **state)
{
    struct frame want = sample(), got;
    struct err err = { 0 };
    (void)state;

    size_t bytes = seal_sample();
    assert_int_equal(bytes, 5 + 48 + 8192 + 5);
    assert_int_equal(wire[0], 0x02);
    assert_int_equal(be32_get(wire + 1), 3);
    assert_memory_equal(head, "GWFR", 4);
    assert_int_equal(wire[bytes - 5], 0x7e);
    assert_int_equal(be32_get(wire + bytes - 4), 3);
    assert_int_equal(frame_get(head, &got, &err), 0);
    assert_int_equal(got.kind, want.kind);
    assert_int_equal(got.codec, want.codec);
    assert_int_equal(got.round, want.round);
    assert_true(got.first_unit == want.first_unit && got.data == want.data && got.zero == want.zero);
    assert_int_equal(got.payload_bytes, want.payload_bytes);
    assert_int_equal(frame_verify(head, 3, payload, &err), 0);
}

static void every_flipped_bit_is_noticed(void **state)
{
    (void)state;
    size_t bytes = seal_sample() - FRAME_FOOTER_BYTES - FRAME_PREFIX_BYTES;

    for (size_t bit = 0; bit < bytes * 8; bit += bit < FRAME_HEAD_BYTES * 8 ? 1 : 997) {
        struct frame frame;
        struct err err = { 0 };
        head[bit / 8] ^= (uint8_t)(1 << bit % 8);
        int ret = frame_get(head, &frame, &err);
        ret = ret < 0 ? ret : frame_verify(head, 3, payload, &err);
        assert_int_equal(ret, -EPROTO);
        assert_true(err.text[0] != 0);
        head[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    struct err err = { 0 };
    assert_int_equal(frame_verify(head, 2, payload, &err), -EPROTO); /* a frame of another section */
}

static void refused(const struct source *source, struct frame frame)
{
    struct err err = { 0 };
    assert_int_equal(frame_check(&frame, source, &err), -EPROTO);
    assert_true(err.text[0] != 0);
}

static void a_head_beyond_its_limits_is_refused(void **state)
{
    struct fake *fake = fake_new(1, 64 * 3 + 10);
    struct frame f;
    (void)state;

    fake->hole = 130;
    const struct source *source = &fake->source;
    f = sample();
    f.data = 0x3, f.zero = 0x8;
    assert_int_equal(frame_check(&f, source, NULL), 0);
    f = sample(), f.first_unit = 129, refused(source, f);
    f = sample(), f.first_unit = 256, refused(source, f);
    f = sample(), f.first_unit = UINT64_MAX - 63, refused(source, f);
    f = sample(), f.data = f.zero = f.payload_bytes = 0, refused(source, f);
    f = sample(), f.zero = 1, refused(source, f);
    f = sample(), f.data = 0x6, f.zero = 0, refused(source, f);                       /* the hole */
    f = sample(), f.first_unit = 192, f.data = 0x401, f.zero = 0, refused(source, f); /* the short last word */
    f = sample(), f.data = 0x3, f.zero = 0, f.payload_bytes = 8191, refused(source, f);
    f = sample(), f.data = 0x3, f.zero = 0, f.payload_bytes = 8193, refused(source, f);
    f.codec = CODEC_LZ4, f.payload_bytes = 8197, refused(source, f);
    f.payload_bytes = 4, refused(source, f);
    f.payload_bytes = 5, assert_int_equal(frame_check(&f, source, NULL), 0);
    f.codec = CODEC_ZSTD, assert_int_equal(frame_check(&f, source, NULL), 0);
    f.payload_bytes = 4, refused(source, f);
    f.payload_bytes = 8197, refused(source, f);
    f = sample(), f.data = 0, f.zero = 2, f.payload_bytes = 1, refused(source, f);
    fake_free(fake);
}

static void heads_of_nonsense_are_refused(void **state)
{
    struct frame frame;
    (void)state;

    seal_sample();
    static const struct {
        unsigned at;
        uint8_t value;
    } bad[] = { { 0, 0x46 }, { 4, 0 }, { 4, 4 }, { 5, CODECS }, { 5, 0x10 }, { 6, 1 }, { 7, 1 }, { 36, 1 }, { 37, 5 } };
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint8_t was = head[bad[i].at];
        head[bad[i].at] = bad[i].value;
        assert_int_equal(frame_get(head, &frame, NULL), -EPROTO);
        head[bad[i].at] = was;
    }
    head[4] = FRAME_MARK; /* a mark names no units */
    assert_int_equal(frame_get(head, &frame, NULL), -EPROTO);
}

static void a_mark_names_every_source_and_its_counts(void **state)
{
    struct fake *a = fake_new(1, 64), *b = fake_new(2, 64);
    struct source *sources[] = { &a->source, &b->source };
    struct frame_counts counts[2] = { { 1, 2 }, { UINT64_C(1) << 40, 4 } }, got[2];
    (void)state;

    size_t bytes = frame_mark_put(payload, sources, 2, counts);
    assert_int_equal(frame_mark_get(payload, bytes, sources, 2, got, NULL), 0);
    assert_memory_equal(counts, got, sizeof(counts));
    assert_int_equal(frame_mark_get(payload, bytes - 1, sources, 2, got, NULL), -EPROTO);
    assert_int_equal(frame_mark_get(payload, bytes, sources, 1, got, NULL), -EPROTO);
    assert_int_equal(frame_mark_get(payload, 0, sources, 2, got, NULL), -EPROTO);
    payload[7] = 2; /* the first row's id */
    assert_int_equal(frame_mark_get(payload, bytes, sources, 2, got, NULL), -EPROTO);
    fake_free(a);
    fake_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frame_comes_back_as_it_was),
        cmocka_unit_test(every_flipped_bit_is_noticed),
        cmocka_unit_test(a_head_beyond_its_limits_is_refused),
        cmocka_unit_test(heads_of_nonsense_are_refused),
        cmocka_unit_test(a_mark_names_every_source_and_its_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
