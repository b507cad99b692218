#include "tests/unit/test.h"

#include "base/clock.h"
#include "migration/threads/steer.h"

/* A writer of which only the counters are there. */
struct bench {
    struct writer writer;
    struct pipeline_tunables tunables;
    struct steer steer;
};

static void begin(struct bench *bench, uint32_t codec, unsigned codecs, bool settled)
{
    *bench = (struct bench){ .tunables = { .codec = codec, .acceleration = 5 } };
    struct pipeline_options options = {
        .workers = 2, .tunables = &bench->tunables, .codecs = codecs, .settled = settled
    };
    steer_init(&bench->steer, &options);
    steer_follow(&bench->steer, &bench->writer, 1);
}

static void the_users_word_is_taken_at_the_next_chunk(void **state)
{
    struct bench bench;
    struct gear gear;
    (void)state;

    begin(&bench, CODEC_LZ4, 0, false);
    assert_int_equal(steer_pick(&bench.steer, &gear), GEARS);
    assert_int_equal(gear.codec, CODEC_LZ4);
    assert_int_equal(gear.acceleration, 5);
    atomic_store(&bench.tunables.codec, CODEC_ZSTD);
    steer_pick(&bench.steer, &gear);
    assert_int_equal(gear.codec, CODEC_ZSTD);
    atomic_store(&bench.tunables.codec, CODEC_AUTO);
    assert_int_equal(steer_pick(&bench.steer, &gear), GEAR_START);
    assert_int_equal(gear.acceleration, gears[GEAR_START].acceleration);
    steer_destroy(&bench.steer);
}

static void where_nobody_waits_auto_is_lz4_as_the_user_set_it(void **state)
{
    struct bench bench;
    struct gear gear;
    (void)state;

    begin(&bench, CODEC_AUTO, 0, true);
    assert_int_equal(steer_pick(&bench.steer, &gear), GEARS);
    assert_int_equal(gear.codec, CODEC_LZ4);
    assert_int_equal(gear.acceleration, 5);
    steer_destroy(&bench.steer);
}

/* Pages on which no codec saves anything, until plain ones are sent. */
static void what_workers_measure_decides(void **state)
{
    int64_t deadline_ns = clock_now_ns() + 30 * NS_PER_S;
    struct bench bench;
    struct gear with;
    unsigned gear;
    (void)state;

    begin(&bench, CODEC_AUTO, 0, false);
    while ((gear = steer_pick(&bench.steer, &with)) != GEAR_NONE && clock_now_ns() < deadline_ns) {
        struct steer_sample sample = {
            .gear = gear,
            .units = 64,
            .wire_bytes = 64 * 4100,
            .copy_ns = 64 * 700,
            .pack_ns = 64 * 3000,
            .wall_ns = 64 * 3700,
            .units_since = 64,
            .chunks_since = 1,
        };
        atomic_fetch_add(&bench.writer.wire_bytes, 64 * 4100);
        steer_disturb(&bench.steer); /* how fast this loop turns says nothing of a street */
        steer_measured(&bench.steer, &sample);
        unsigned probe = steer_probe(&bench.steer);
        if (probe < GEARS) {
            steer_probed(&bench.steer, probe, CHOOSE_PROBE_UNITS * 3000, CHOOSE_PROBE_UNITS * 4100);
        }
    }
    assert_int_equal(gear, GEAR_NONE);
    assert_int_equal(with.codec, CODEC_RAW);
    steer_destroy(&bench.steer);
}

static void a_peer_that_reads_no_codec_starts_with_plain_pages(void **state)
{
    struct bench bench;
    struct gear gear;
    (void)state;

    begin(&bench, CODEC_AUTO, 1u << CODEC_RAW, false);
    assert_int_equal(steer_pick(&bench.steer, &gear), GEAR_NONE);
    assert_int_equal(steer_probe(&bench.steer), GEARS);
    steer_destroy(&bench.steer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_users_word_is_taken_at_the_next_chunk),
        cmocka_unit_test(where_nobody_waits_auto_is_lz4_as_the_user_set_it),
        cmocka_unit_test(what_workers_measure_decides),
        cmocka_unit_test(a_peer_that_reads_no_codec_starts_with_plain_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
