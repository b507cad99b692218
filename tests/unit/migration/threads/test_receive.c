#include "tests/unit/test.h"

#include <errno.h>
#include <sched.h>

#include "migration/threads/compress.h"
#include "tests/unit/migration/threads/road.h"

enum { MAIN = 0, UNITS = 200 };

static uint8_t wire[FRAME_AROUND_BYTES + COMPRESS_OUT_MAX];
static uint8_t *const payload = wire + FRAME_PREFIX_BYTES + FRAME_HEAD_BYTES;

/* A loader with two data channels and nobody who reads the main one: the test is its receive thread. */
static void open_patient(struct road *road, int silence_ms)
{
    road_open_wide(road, UNITS, 0, 0, 0, false, 2);
    struct loader_options options = {
        .workers = 2,
        .sources = road->sources_there,
        .source_count = ROAD_SOURCES,
        .channel = road->in,
        .data = road->data_in,
        .data_count = 2,
        .silence_ms = silence_ms,
    };
    assert_int_equal(loader_new(&options, &road->loader, NULL), 0);
    assert_int_equal(loader_receive(road->loader, NULL), 0);
}

static void open_here(struct road *road)
{
    open_patient(road, -1);
}

static void say(struct road *road, unsigned channel, size_t bytes)
{
    struct channel *to = channel == MAIN ? road->out : road->data_out[channel - 1];
    assert_int_equal(channel_write_all(to, wire, bytes, -1, NULL), 0);
}

/* One page of the first source, full of `byte`. */
static void say_page(struct road *road, unsigned channel, uint32_t round, uint64_t word, uint8_t byte)
{
    struct frame frame = {
        .kind = FRAME_CHUNK, .round = round, .first_unit = word * CHUNK_UNITS, .data = 1, .payload_bytes = FAKE_UNIT
    };
    memset(payload, byte, FAKE_UNIT);
    say(road, channel, frame_seal(wire, 1, &frame));
}

static void say_mark(struct road *road, unsigned channel, uint32_t round, uint64_t data)
{
    struct frame_counts counts[ROAD_SOURCES] = { { data, 0 } };
    struct frame frame = { .kind = FRAME_MARK, .round = round };
    frame.payload_bytes = (uint32_t)frame_mark_put(payload, road->sources_there, ROAD_SOURCES, counts);
    say(road, channel, frame_seal(wire, 1, &frame));
}

/* What was said over the main channel, without waiting for anything else. */
static int hear(struct road *road, bool *mark)
{
    uint8_t around[FRAME_PREFIX_BYTES];
    int ret = channel_read_all(road->in, around, sizeof(around), -1, &road->err);
    ret = ret < 0 ? ret : loader_frame(road->loader, be32_get(around + 1), mark, &road->err);
    return ret < 0 ? ret : channel_read_all(road->in, around, FRAME_FOOTER_BYTES, -1, &road->err);
}

static int hear_round(struct road *road)
{
    bool mark = false, closed = false;
    int ret = hear(road, &mark);
    while (ret == 0 && !closed) {
        ret = loader_round_wait(road->loader, -1, &closed, &road->err);
    }
    return ret;
}

static uint8_t page(const struct road *road, uint64_t word)
{
    return road->there[0]->pages[word * CHUNK_UNITS * FAKE_UNIT + 100];
}

static void fails(struct road *road, int ret, const char *part_of_text)
{
    assert_int_equal(ret, -EPROTO);
    if (!strstr(road->err.text, part_of_text)) {
        fail_msg("\"%s\" is not about \"%s\"", road->err.text, part_of_text);
    }
    road_close(road);
}

/* Until the load has failed: nothing else will come over the main channel. */
static int failure(struct road *road)
{
    while (loader_wait(road->loader, -1) >= 0) {
    }
    return loader_error(road->loader, &road->err);
}

/* A channel whose sender stops in the middle of a frame, after each part of it; between frames it may wait as long as it likes. */
static void silence_in_the_middle_of_a_frame_ends_the_load(void **state)
{
    static const size_t cuts[] = { 1, FRAME_PREFIX_BYTES, FRAME_PREFIX_BYTES + 7,
                                   FRAME_PREFIX_BYTES + FRAME_HEAD_BYTES + 9 };
    (void)state;
    for (unsigned i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        struct road road;
        struct frame frame = { .kind = FRAME_CHUNK, .round = 1, .data = 1, .payload_bytes = FAKE_UNIT };
        open_patient(&road, 20);
        say_page(&road, 2, 1, 1, 0xaa);
        memset(payload, 0xbb, FAKE_UNIT);
        frame_seal(wire, 1, &frame);
        say(&road, 1, cuts[i]);
        assert_int_equal(failure(&road), -ETIMEDOUT);
        assert_non_null(strstr(road.err.text, "nothing came for 20 ms in the middle of a frame"));
        road_close(&road);
    }
}

static void a_round_comes_over_all_channels(void **state)
{
    struct road road;
    struct loader_stats stats;
    (void)state;

    open_here(&road);
    for (uint32_t round = 1; round <= 3; round++) {
        say_page(&road, 1, round, 0, (uint8_t)(10 * round));
        say_page(&road, 2, round, 1, (uint8_t)(10 * round + 1));
        say_mark(&road, MAIN, round, 2);
        say_mark(&road, 1, round, 1);
        say_mark(&road, 2, round, 1);
        assert_int_equal(hear_round(&road), 0);
        assert_int_equal(page(&road, 0), 10 * round);
        assert_int_equal(page(&road, 1), 10 * round + 1);
    }
    loader_stats(road.loader, &stats);
    assert_int_equal(stats.rounds, 3);
    assert_int_equal(stats.units_data, 6);
    road_close(&road);
}

/* One channel runs ahead into the next round with a page that the other still has to bring for this one. */
static void a_page_of_the_next_round_waits_for_this_ones(void **state)
{
    (void)state;
    for (unsigned turn = 0; turn < 50; turn++) {
        struct road road;
        bool mark = false, closed = false;

        open_here(&road);
        say_mark(&road, 1, 1, 0);
        say_page(&road, 1, 2, 0, 0xbb);
        say_mark(&road, 1, 2, 1);
        say_mark(&road, MAIN, 1, 1);
        assert_int_equal(hear(&road, &mark), 0);
        assert_true(mark);
        for (unsigned i = 0; i < turn; i++) {
            sched_yield(); /* whoever runs ahead may do so by another distance each time */
        }
        assert_int_equal(loader_round_wait(road.loader, 0, &closed, NULL), 0);
        assert_false(closed);
        assert_int_equal(road.there[0]->stores, 0);
        say_page(&road, 2, 1, 0, 0xaa);
        say_mark(&road, 2, 1, 1);
        while (!closed) {
            assert_int_equal(loader_round_wait(road.loader, -1, &closed, &road.err), 0);
        }
        say_mark(&road, 2, 2, 0);
        say_mark(&road, MAIN, 2, 1);
        assert_int_equal(hear_round(&road), 0);
        assert_int_equal(page(&road, 0), 0xbb);
        road_close(&road);
    }
}

static void a_round_does_not_end_before_its_slowest_channel(void **state)
{
    struct road road;
    bool mark = false, closed = true;
    (void)state;

    open_here(&road);
    say_page(&road, 1, 1, 0, 1);
    say_mark(&road, 1, 1, 1);
    say_mark(&road, MAIN, 1, 1); /* as if that were all; the second channel has not said so yet */
    assert_int_equal(hear(&road, &mark), 0);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(loader_round_wait(road.loader, 1, &closed, NULL), 0);
        assert_false(closed);
    }
    say_mark(&road, 2, 1, 0);
    while (!closed) {
        assert_int_equal(loader_round_wait(road.loader, -1, &closed, NULL), 0);
    }
    road_close(&road);
}

static void a_frame_that_one_channel_lost_is_noticed_by_its_mark(void **state)
{
    struct road road;
    (void)state;

    open_here(&road);
    say_page(&road, 1, 1, 0, 1);
    say_mark(&road, 1, 1, 1);
    say_mark(&road, 2, 1, 1);
    fails(&road, failure(&road), "data channel 2: round 1 of fake/ram should have had 1 data and 0 zero units");
}

static void sums_that_differ_from_what_the_channels_brought_are_refused(void **state)
{
    struct road road;
    (void)state;

    open_here(&road);
    say_page(&road, 1, 1, 0, 1);
    say_mark(&road, 1, 1, 1);
    say_mark(&road, 2, 1, 0);
    say_mark(&road, MAIN, 1, 2);
    fails(&road, hear_round(&road), "should have had 2 data");
}

static void a_word_that_comes_over_two_channels_is_refused(void **state)
{
    struct road road;
    (void)state;

    open_here(&road);
    say_page(&road, 1, 1, 0, 1);
    say_page(&road, 2, 1, 0, 2);
    fails(&road, failure(&road), "came twice in round 1");
}

static void a_channel_that_skips_a_round_is_refused(void **state)
{
    struct road road;
    (void)state;

    open_here(&road);
    say_page(&road, 2, 2, 0, 1);
    fails(&road, failure(&road), "data channel 2: a frame of round 2 came in round 1");
}

static void chunks_have_no_business_on_the_main_channel(void **state)
{
    struct road road;
    bool mark = false;
    (void)state;

    open_here(&road);
    say_page(&road, MAIN, 1, 0, 1);
    fails(&road, hear(&road, &mark), "over the main channel");
}

static void words_have_no_business_on_a_data_channel(void **state)
{
    struct road road;
    (void)state;

    open_here(&road);
    memset(wire, 0, FRAME_PREFIX_BYTES);
    say(&road, 1, FRAME_PREFIX_BYTES);
    fails(&road, failure(&road), "data channel 1: element 0x00 where a frame must stand");
}

static void a_flipped_bit_on_a_data_channel_is_found(void **state)
{
    struct road road;
    struct frame frame = { .kind = FRAME_CHUNK, .round = 1, .data = 1, .payload_bytes = FAKE_UNIT };
    (void)state;

    open_here(&road);
    memset(payload, 7, FAKE_UNIT);
    size_t bytes = frame_seal(wire, 1, &frame);
    payload[1000] ^= 4;
    say(&road, 2, bytes);
    fails(&road, failure(&road), "checksum");
    open_here(&road);
    bytes = frame_seal(wire, 1, &frame);
    wire[bytes - 1] ^= 4;
    say(&road, 2, bytes);
    fails(&road, failure(&road), "data channel 2: section 1: wrong footer");
}

static void a_channel_that_is_cut_wakes_whoever_waits_for_the_main_one(void **state)
{
    struct road road;
    (void)state;

    for (unsigned part = 0; part < 3; part++) { /* between frames, within one, behind its round */
        open_here(&road);
        say_page(&road, 1, 1, 0, 1);
        if (part == 1) {
            say_page(&road, 2, 1, 1, 1);
            say(&road, 2, 20); /* the beginning of the same again */
        } else if (part == 2) {
            say_mark(&road, 2, 1, 0);
            say_mark(&road, 1, 1, 1);
            say_mark(&road, MAIN, 1, 1);
            assert_int_equal(hear_round(&road), 0);
        }
        assert_int_equal(channel_finish(road.data_out[1], NULL), 0);
        assert_int_equal(failure(&road), -ENOLINK);
        assert_non_null(strstr(road.err.text, "data channel 2"));
        road_close(&road);
    }
}

static void a_channel_that_is_cut_ends_the_wait_for_its_round(void **state)
{
    struct road road;
    (void)state;

    open_here(&road);
    say_mark(&road, 1, 1, 0);
    say_mark(&road, MAIN, 1, 0);
    assert_int_equal(channel_finish(road.data_out[1], NULL), 0);
    assert_int_equal(hear_round(&road), -ENOLINK);
    assert_non_null(strstr(road.err.text, "data channel 2"));
    road_close(&road);
}

static void cancel_ends_channels_wherever_they_wait(void **state)
{
    struct road road;
    bool mark = false, closed = false;
    (void)state;

    open_here(&road); /* one at its round's end, the other in the middle of a frame */
    say_mark(&road, 1, 1, 0);
    say_page(&road, 1, 2, 0, 1);
    memset(wire, FRAME_SECTION_PART, 1);
    say(&road, 2, 3);
    say_mark(&road, MAIN, 1, 0);
    assert_int_equal(hear(&road, &mark), 0);
    loader_fail(road.loader, -ECANCELED, "migration cancelled");
    assert_int_equal(loader_round_wait(road.loader, -1, &closed, NULL), -ECANCELED);
    loader_free(road.loader); /* joins them */
    road.loader = NULL;
    road_close(&road);
}

static void nothing_is_taken_in_while_it_rests(void **state)
{
    struct road road;
    bool closed = false;
    (void)state;

    open_here(&road);
    say_mark(&road, 1, 1, 0);
    say_mark(&road, 2, 1, 0);
    say_mark(&road, MAIN, 1, 0);
    assert_int_equal(hear_round(&road), 0);
    assert_int_equal(loader_rest(road.loader, true, NULL), 0);
    for (unsigned round = 2, i = 0; i < 2; i++) { /* early: the guest is taken back, and the source goes on at once */
        say_page(&road, i + 1, round, i, 9);
        say_mark(&road, i + 1, round, 1);
    }
    say_mark(&road, MAIN, 2, 2);
    bool mark = false;
    assert_int_equal(hear(&road, &mark), 0);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(loader_round_wait(road.loader, 1, &closed, NULL), 0);
        assert_false(closed);
    }
    assert_int_equal(road.there[0]->stores, 0);
    assert_int_equal(loader_rest(road.loader, false, NULL), 0);
    while (!closed) {
        assert_int_equal(loader_round_wait(road.loader, -1, &closed, NULL), 0);
    }
    assert_int_equal(road.there[0]->stores, 2);
    road_close(&road);
}

static void a_round_that_nothing_ended_is_no_place_to_rest(void **state)
{
    struct road road;
    (void)state;

    open_here(&road);
    say_page(&road, 2, 1, 0, 9);
    while (atomic_load(&road.there[0]->stores) == 0) {
        sched_yield();
    }
    fails(&road, loader_rest(road.loader, true, &road.err), "1 frames of round 1 came, and nothing ended it");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_round_comes_over_all_channels),
        cmocka_unit_test(silence_in_the_middle_of_a_frame_ends_the_load),
        cmocka_unit_test(a_page_of_the_next_round_waits_for_this_ones),
        cmocka_unit_test(a_round_does_not_end_before_its_slowest_channel),
        cmocka_unit_test(a_frame_that_one_channel_lost_is_noticed_by_its_mark),
        cmocka_unit_test(sums_that_differ_from_what_the_channels_brought_are_refused),
        cmocka_unit_test(a_word_that_comes_over_two_channels_is_refused),
        cmocka_unit_test(a_channel_that_skips_a_round_is_refused),
        cmocka_unit_test(chunks_have_no_business_on_the_main_channel),
        cmocka_unit_test(words_have_no_business_on_a_data_channel),
        cmocka_unit_test(a_flipped_bit_on_a_data_channel_is_found),
        cmocka_unit_test(a_channel_that_is_cut_wakes_whoever_waits_for_the_main_one),
        cmocka_unit_test(a_channel_that_is_cut_ends_the_wait_for_its_round),
        cmocka_unit_test(cancel_ends_channels_wherever_they_wait),
        cmocka_unit_test(nothing_is_taken_in_while_it_rests),
        cmocka_unit_test(a_round_that_nothing_ended_is_no_place_to_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
