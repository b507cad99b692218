/* What a migration cost, put together from moments by script. */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "migration/report.h"

#define MS INT64_C(1000000)

static struct pause_moments a_pause(void)
{
    return (struct pause_moments){ .requested_ns = 1000 * MS,
                                   .stopped_ns = 1001 * MS,
                                   .drained_ns = 1003 * MS,
                                   .flushed_ns = 1006 * MS,
                                   .harvest_ns = 4 * MS,
                                   .round_ns = 1016 * MS,
                                   .sent_ns = 1018 * MS,
                                   .prepared_ns = 1028 * MS,
                                   .go_ns = 1029 * MS,
                                   .running_ns = 1034 * MS };
}

static void the_parts_of_a_pause_add_up_to_it(void **state)
{
    (void)state;
    static const int64_t want_ms[PAUSE_PARTS] = { 1, 2, 3, 4, 6, 2, 1, 7, 1, 2, 5 };
    struct pause_moments at = a_pause();
    struct pause_told told = { .arrive_ns = 1 * MS, .load_ns = 7 * MS, .start_ns = 2 * MS };
    struct pause_parts parts;
    pause_split(&at, &told, &parts);
    for (unsigned i = 0; i < PAUSE_PARTS; i++)
        assert_int_equal(parts.ns[i], want_ms[i] * MS);
    assert_int_equal(pause_sum_ns(&parts), 34 * MS);
    /* Whatever the peer says, and whatever the workers waited: the sum is ours. */
    static const int64_t odd[] = { -1, 0, 1, 5 * MS, 1000000 * MS, INT64_MAX, INT64_MIN };
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        for (size_t k = 0; k < sizeof odd / sizeof *odd; k++) {
            told = (struct pause_told){ .arrive_ns = odd[(i + k) % 7], .load_ns = odd[i], .start_ns = odd[k] };
            at.harvest_ns = odd[k];
            pause_split(&at, &told, &parts);
            assert_int_equal(pause_sum_ns(&parts), 34 * MS);
            for (unsigned part = 0; part < PAUSE_PARTS; part++)
                assert_true(parts.ns[part] >= 0);
        }
}

static void a_pause_that_was_broken_off_has_the_parts_it_came_to(void **state)
{
    (void)state;
    struct pause_moments at = a_pause();
    struct pause_told told = { -1, -1, -1 };
    struct pause_parts parts;
    at.sent_ns = at.prepared_ns = at.go_ns = at.running_ns = 0;
    pause_split(&at, &told, &parts);
    assert_int_equal(pause_sum_ns(&parts), 16 * MS);
    assert_int_equal(parts.ns[PAUSE_TRIPS] + parts.ns[PAUSE_LOAD] + parts.ns[PAUSE_DEVICES], 0);
    pause_split(&(struct pause_moments){ 0 }, &told, &parts);
    assert_int_equal(pause_sum_ns(&parts), 0);
}

/* PREPARED may have come before the thread that sent the devices noted that it had. */
static void an_answer_that_overtakes_its_question_adds_nothing(void **state)
{
    (void)state;
    struct pause_moments at = a_pause();
    struct pause_told told = { -1, -1, -1 };
    struct pause_parts parts;
    at.prepared_ns = at.sent_ns - 1 * MS;
    pause_split(&at, &told, &parts);
    assert_int_equal(pause_sum_ns(&parts), 34 * MS);
    at.running_ns = at.go_ns - 1;
    pause_split(&at, &told, &parts);
    assert_int_equal(pause_sum_ns(&parts), 29 * MS);
}

static void every_part_has_its_names(void **state)
{
    (void)state;
    for (unsigned i = 0; i < PAUSE_PARTS; i++) {
        assert_true(strlen(pause_part_name((enum pause_part)i)) > 2);
        assert_true(strlen(pause_part_text((enum pause_part)i)) > 3);
    }
}

/* A destination whose clock is `off_ns` behind: the bounds hold the truth, and are as narrow as the quickest messages. */
static void messages_both_ways_bound_the_other_clock(void **state)
{
    (void)state;
    static const int64_t offs[] = { 0, 5, -5 * MS, 77777 * MS, -77777 * MS };
    for (size_t i = 0; i < sizeof offs / sizeof *offs; i++) {
        int64_t off = offs[i], here = 100000 * MS;
        struct clock_bounds bounds = { 0 };
        struct duration gap;
        assert_false(clock_between(&bounds, here, here, &gap));
        clock_sent(&bounds, here, here + 3 * MS - off); /* 3 ms on its way */
        assert_false(clock_between(&bounds, here, here, &gap));
        clock_sent(&bounds, here + 10 * MS, here + 11 * MS - off);
        clock_heard(&bounds, here + 20 * MS, here + 15 * MS - off);
        clock_heard(&bounds, here + 30 * MS, here + 28 * MS - off);
        clock_sent(&bounds, 0, here); /* did not happen */
        clock_heard(&bounds, here, 0);
        assert_true(clock_between(&bounds, here, here + 50 * MS - off, &gap));
        assert_int_equal(gap.low_ns, 49 * MS);
        assert_int_equal(gap.high_ns, 52 * MS);
        clock_same(&bounds); /* only where it is possible at all */
        assert_true(clock_between(&bounds, here, here + 50 * MS - off, &gap));
        assert_int_equal(gap.low_ns == gap.high_ns, off > -1 * MS && off < 2 * MS);
    }
}

static void a_peer_that_lies_about_its_clock_gets_no_figure(void **state)
{
    (void)state;
    struct clock_bounds bounds = { 0 };
    struct duration gap = { 0 };
    clock_sent(&bounds, 1000, 500); /* arrived before */
    clock_heard(&bounds, 2000, 1900);
    assert_false(clock_between(&bounds, 1000, 1000, &gap));
    bounds = (struct clock_bounds){ 0 };
    clock_sent(&bounds, 1, INT64_MAX);
    clock_heard(&bounds, INT64_MAX, 1);
    assert_true(clock_between(&bounds, 1, INT64_MAX, &gap));
    assert_true(gap.low_ns >= 0 && gap.high_ns >= gap.low_ns);
}

static struct report_round some_round(uint64_t number)
{
    return (struct report_round){ .first = number,
                                  .last = number,
                                  .units_scanned = 10 * number,
                                  .units_data = 7 * number,
                                  .units_zero = 3 * number,
                                  .units_delta = number,
                                  .wire_bytes = 4096 * number,
                                  .elapsed_ns = (int64_t)number * MS,
                                  .units_dirty = number,
                                  .predicted_ns = MS };
}

static void a_table_of_rounds_never_loses_a_unit(void **state)
{
    (void)state;
    struct report_rounds *rounds = calloc(1, sizeof(*rounds));
    uint64_t units = 0, bytes = 0;
    for (uint64_t number = 1; number <= 5000; number++) {
        struct report_round round = some_round(number);
        report_add_round(rounds, &round);
        units += round.units_data;
        bytes += round.wire_bytes;
        struct report_round sum = report_sum(rounds);
        assert_int_equal(sum.units_data, units);
        assert_int_equal(sum.wire_bytes, bytes);
        assert_int_equal(sum.units_scanned, sum.units_data + sum.units_zero);
        assert_int_equal(sum.first, 1);
        assert_int_equal(sum.last, number);
        assert_int_equal(sum.units_dirty, number);
        assert_true(rounds->rows <= REPORT_ROUNDS_MAX);
        for (unsigned i = 1; i < rounds->rows; i++)
            assert_int_equal(rounds->row[i].first, rounds->row[i - 1].last + 1);
    }
    for (unsigned i = 1; i <= 32; i++) { /* the newest stand by themselves */
        const struct report_round *row = &rounds->row[rounds->rows - i];
        assert_int_equal(row->first, row->last);
    }
    free(rounds);
}

static struct report_arrival some_arrival(void)
{
    struct report_arrival arrival = { .stopped_ns = 2000 * MS,
                                      .eof_ns = 2010 * MS,
                                      .prepared_ns = 2013 * MS,
                                      .go_ns = 2015 * MS,
                                      .told_ns = 2016 * MS,
                                      .harts = 3,
                                      .resumed_ns = { 2017 * MS, 0, 2019 * MS },
                                      .after = { 100 * MS, 123456789, 90 * MS } };
    memset(arrival.host, 7, sizeof(arrival.host));
    report_add_device(&arrival.devices, "godwit/uart", 0, 1000);
    report_add_device(&arrival.devices, "godwit/virtio-blk", 3, 70000);
    return arrival;
}

static void what_the_destination_tells_arrives_as_it_was(void **state)
{
    (void)state;
    struct report_arrival arrival = some_arrival(), got;
    struct buf out = { 0 };
    report_arrival_encode(&arrival, &out);
    buf_put(&out, "of a newer peer", 15);
    struct reader in = reader_of(out.data, out.size);
    assert_int_equal(report_arrival_decode(&in, &got), 0);
    assert_memory_equal(&got, &arrival, sizeof(got));
    buf_free(&out);

    struct report_arrival *full = calloc(1, sizeof(*full)), *back = calloc(1, sizeof(*back));
    full->harts = REPORT_HARTS_MAX;
    for (unsigned i = 0; i < REPORT_DEVICES_MAX + 5; i++)
        report_add_device(&full->devices, "a name that is longer than any device that there could ever be", i, 1);
    report_arrival_encode(full, &out);
    assert_true(out.size <= REPORT_ARRIVAL_BYTES_MAX);
    in = reader_of(out.data, out.size);
    assert_int_equal(report_arrival_decode(&in, back), 0);
    assert_int_equal(back->devices.count, REPORT_DEVICES_MAX);
    buf_free(&out);
    free(full);
    free(back);
}

static void no_bytes_of_a_peer_break_the_reader(void **state)
{
    (void)state;
    struct report_arrival arrival = some_arrival(), got;
    struct buf out = { 0 };
    report_arrival_encode(&arrival, &out);
    for (size_t size = 0; size < out.size; size++) { /* cut short anywhere */
        struct reader in = reader_of(out.data, size);
        assert_int_equal(report_arrival_decode(&in, &got), -EPROTO);
    }
    uint64_t random = 99;
    for (int i = 0; i < 100000; i++) { /* and with wrong bytes in it */
        uint8_t wrong[512];
        assert_true(out.size <= sizeof(wrong));
        memcpy(wrong, out.data, out.size);
        for (int k = 0; k < 3; k++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            wrong[(random >> 40) % out.size] = (uint8_t)(random >> 32);
        }
        struct reader in = reader_of(wrong, out.size);
        if (report_arrival_decode(&in, &got) < 0)
            continue;
        assert_true(got.harts <= REPORT_HARTS_MAX && got.devices.count <= REPORT_DEVICES_MAX);
        assert_true(got.after.elapsed_ns >= 0 && got.go_ns >= 0);
        for (unsigned d = 0; d < got.devices.count; d++)
            for (const char *at = got.devices.device[d].name; *at; at++)
                assert_in_range(*at, ' ', '~');
        struct arrival_parts parts = report_arrival_parts(&got);
        assert_true(parts.seen_ns >= 0 && parts.load_ns >= 0 && guest_work_per(&got.after, 100 * MS) >= 0);
    }
    buf_free(&out);
}

static void the_destination_sees_its_own_share(void **state)
{
    (void)state;
    struct report_arrival arrival = some_arrival();
    struct arrival_parts parts = report_arrival_parts(&arrival);
    assert_int_equal(parts.seen_ns, 17 * MS);
    assert_int_equal(parts.receive_ns + parts.load_ns + parts.wait_ns + parts.start_ns, parts.seen_ns);
    assert_int_equal(parts.load_ns, 3 * MS);
    memset(arrival.resumed_ns, 0, sizeof(arrival.resumed_ns)); /* it stays paused there */
    parts = report_arrival_parts(&arrival);
    assert_int_equal(parts.seen_ns + parts.start_ns, 0);
}

static void a_guest_sees_the_gap_of_its_slowest_vcpu(void **state)
{
    (void)state;
    struct report_arrival arrival = some_arrival();
    static const int64_t paused_ns[] = { 1001 * MS, 1002 * MS, 1000 * MS };
    struct clock_bounds bounds = { .low_ns = -999 * MS, .high_ns = -997 * MS, .has_low = true, .has_high = true };
    struct guest_gap gap;
    report_gap(&bounds, paused_ns, 3, &arrival, &gap);
    assert_true(gap.known);
    assert_int_equal(gap.all.low_ns, 16 * MS); /* 1002 to 2017 - 999 */
    assert_int_equal(gap.all.high_ns, 18 * MS);
    assert_int_equal(gap.hart, 2); /* hart 1 did not go on, and has no gap */
    assert_int_equal(gap.longest.low_ns, 20 * MS);
    assert_int_equal(gap.longest.high_ns, 22 * MS);
    report_gap(&(struct clock_bounds){ 0 }, paused_ns, 3, &arrival, &gap);
    assert_false(gap.known);
}

static void work_is_compared_over_the_same_time(void **state)
{
    (void)state;
    struct guest_work work = { .elapsed_ns = 2000 * MS, .instructions = 4000 };
    assert_true(guest_work_per(&work, 100 * MS) == 200);
    work.elapsed_ns = 0;
    assert_true(guest_work_per(&work, 100 * MS) == 0);
    work = (struct guest_work){ .elapsed_ns = 1, .instructions = UINT64_MAX };
    assert_true(guest_work_per(&work, INT64_MAX) > 1e37);
    assert_true(guest_work_per(&work, -1) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_parts_of_a_pause_add_up_to_it),
        cmocka_unit_test(a_pause_that_was_broken_off_has_the_parts_it_came_to),
        cmocka_unit_test(an_answer_that_overtakes_its_question_adds_nothing),
        cmocka_unit_test(every_part_has_its_names),
        cmocka_unit_test(messages_both_ways_bound_the_other_clock),
        cmocka_unit_test(a_peer_that_lies_about_its_clock_gets_no_figure),
        cmocka_unit_test(a_table_of_rounds_never_loses_a_unit),
        cmocka_unit_test(what_the_destination_tells_arrives_as_it_was),
        cmocka_unit_test(no_bytes_of_a_peer_break_the_reader),
        cmocka_unit_test(the_destination_sees_its_own_share),
        cmocka_unit_test(a_guest_sees_the_gap_of_its_slowest_vcpu),
        cmocka_unit_test(work_is_compared_over_the_same_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
