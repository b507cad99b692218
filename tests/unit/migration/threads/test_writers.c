#include "tests/unit/test.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>

#include "migration/threads/writers.h"
#include "tests/unit/migration/threads/road.h"

enum { UNITS = 5000 };

static void a_guest_that_keeps_changing_arrives_whole_over_any_number_of_channels(void **state)
{
    (void)state;
    for (unsigned channels = 1; channels <= PIPELINE_CHANNELS_MAX; channels = channels * 3 - 1) {
        struct road road;
        uint64_t seed = channels;
        struct pipeline_stats sent;
        struct loader_stats got;
        struct err err = { 0 };

        road_open_wide(&road, UNITS, 2, 2, 0, false, channels);
        for (unsigned round = 0; round < 6; round++) {
            if (pipeline_round(road.pipeline, round == 5, NULL, &err) < 0) {
                fail_msg("%s", err.text);
            }
            for (unsigned i = 0; round < 5 && i < 300; i++) { /* rounds follow at once: nobody waits for the loader */
                fake_write(road.here[0], fake_random(&seed) % UNITS, i % 512, fake_random(&seed));
            }
        }
        uint8_t end = ROAD_END;
        assert_int_equal(pipeline_send(road.pipeline, &end, 1, NULL), 0);
        road_join(&road);
        assert_int_equal(road.err.code, 0);
        assert_int_equal(road.marks, 6);
        assert_true(road_arrived_whole(&road));
        pipeline_stats(road.pipeline, &sent);
        loader_stats(road.loader, &got);
        assert_int_equal(sent.units_data, got.units_data);
        assert_int_equal(sent.units_zero, got.units_zero);
        assert_int_equal(got.wire_bytes + 1, sent.wire_bytes);
        assert_true(sent.data_bytes > sent.wire_bytes / 2); /* main: a mark a round */
        road_close(&road);
    }
}

/* Nobody reads: each channel swallows what its buffers hold. */
static void every_channel_gets_its_share(void **state)
{
    struct road road;
    (void)state;

    road_open_wide(&road, UNITS, 2, 0, 0, false, 4);
    assert_int_equal(pipeline_round_begin(road.pipeline, true, NULL), 0);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(channel_wait(road.data_in[i], POLLIN, -1), 1);
    }
    assert_int_equal(channel_wait(road.in, POLLIN, 0), 0);
    road_close(&road);
}

static void *drain_run(void *opaque)
{
    uint8_t nowhere[4096];
    struct channel *channel = opaque;
    for (;;) {
        ssize_t got = channel_read(channel, nowhere, sizeof(nowhere));
        if (got == -EAGAIN && channel_wait(channel, POLLIN, -1) >= 0) {
            continue;
        }
        if (got <= 0) {
            return NULL;
        }
    }
}

/* Three channels are read, one is not: what the others can take goes on. */
static void a_channel_that_stalls_stops_the_round_and_cancel_ends_it(void **state)
{
    struct road road;
    pthread_t drains[3];
    struct err err = { 0 };
    struct pipeline_stats stats;
    (void)state;

    road_open_wide(&road, UNITS, 2, 0, 0, false, 4);
    atomic_store(&road.tunables.codec, CODEC_RAW);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&drains[i], NULL, drain_run, road.data_in[i + 1]), 0);
    }
    assert_int_equal(pipeline_round_begin(road.pipeline, true, NULL), 0);
    do { /* it is frozen, and the others have nothing left that could go */
        pipeline_stats(road.pipeline, &stats);
        sched_yield();
    } while (stats.frozen_ns == 0);
    assert_false(pipeline_round_wait(road.pipeline, 0));
    pipeline_fail(road.pipeline, -ECANCELED, "migration cancelled");
    assert_true(pipeline_round_wait(road.pipeline, INT64_MAX));
    assert_int_equal(pipeline_round_end(road.pipeline, NULL, &err), -ECANCELED);
    for (unsigned i = 0; i < 3; i++) { /* every channel was shut down */
        pthread_join(drains[i], NULL);
    }
    road_close(&road);
}

static void a_channel_that_takes_nothing_for_too_long_has_failed(void **state)
{
    struct road road;
    struct err err = { 0 };
    pthread_t drains[3];
    (void)state;

    road_open_wide(&road, UNITS, 2, 0, 0, false, 4);
    atomic_store(&road.tunables.codec, CODEC_RAW);
    atomic_store(&road.tunables.frozen_limit_ns, 1);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&drains[i], NULL, drain_run, road.data_in[i < 2 ? i : i + 1]), 0);
    }
    assert_int_equal(pipeline_round_begin(road.pipeline, true, NULL), 0);
    assert_true(pipeline_round_wait(road.pipeline, INT64_MAX));
    assert_int_equal(pipeline_round_end(road.pipeline, NULL, &err), -ETIMEDOUT);
    assert_non_null(strstr(err.text, "data channel"));
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(drains[i], NULL);
    }
    road_close(&road);
}

/* 0: it ended; -errno. The other end shuts it down in its own time. */
static int read_to_end(struct channel *channel)
{
    uint8_t bytes[4096];
    ssize_t got;

    while ((got = channel_read(channel, bytes, sizeof(bytes))) > 0 || got == -EAGAIN) {
        if (got == -EAGAIN && channel_wait(channel, POLLIN, -1) < 0) {
            break;
        }
    }
    return (int)got;
}

static void a_channel_that_breaks_fails_the_round_and_ends_the_others(void **state)
{
    struct road road;
    struct err err = { 0 };
    (void)state;

    road_open_wide(&road, UNITS, 2, 0, 0, false, 2);
    channel_shutdown(road.data_in[1]);
    int ret = pipeline_round(road.pipeline, false, NULL, &err);
    ret = ret < 0 ? ret : pipeline_flush(road.pipeline, &err);
    assert_int_equal(ret, -EPIPE);
    assert_non_null(strstr(err.text, "data channel 2"));
    assert_int_equal(read_to_end(road.data_in[0]), 0);
    assert_int_equal(read_to_end(road.in), 0);
    road_close(&road);
}

/* --- the end of a street that fails while it is taken down ---------------------------------------------- */

static bool thread_is_there(const char *name)
{
    DIR *tasks = opendir("/proc/self/task");
    bool found = false;
    for (struct dirent *task; !found && (task = readdir(tasks));) {
        char path[64], text[32] = "";
        snprintf(path, sizeof(path), "/proc/self/task/%.20s/comm", task->d_name);
        FILE *file = fopen(path, "re");
        found = file && fgets(text, sizeof(text), file) && strncmp(text, name, strlen(name)) == 0;
        if (file) {
            fclose(file);
        }
    }
    closedir(tasks);
    return found;
}

struct falling {
    struct writers writers;
    struct fault fault;
    _Atomic bool failed;
};

/* On the thread of the one that fails: the others' queues are closed when the first of them has been joined already. */
static void fail_late(void *opaque, int code, const char *why)
{
    struct falling *f = opaque;
    atomic_store(&f->failed, true);
    fault_set(&f->fault, code, why);
    while (thread_is_there("write/0")) {
        sched_yield();
    }
    for (int i = 0; i < 1000; i++) { /* as long as it takes whoever waited for that thread to go on */
        writer_close(&f->writers.all[0]);
        sched_yield();
    }
}

static void a_writer_that_fails_last_may_still_close_the_others(void **state)
{
    struct falling f = { .failed = false };
    struct pipeline_tunables tunables = { .codec = CODEC_RAW };
    struct pool pool;
    struct writer like = { .tunables = &tunables, .pool = &pool, .fault = &f.fault, .fail = fail_late, .opaque = &f };
    struct channel *main_out, *main_in, *data_out, *data_in;
    (void)state;

    road_pair(&main_out, &main_in);
    road_pair(&data_out, &data_in);
    fault_init(&f.fault);
    assert_int_equal(pool_new(&pool, 1, 0, NULL), 0);
    assert_int_equal(writers_start(&f.writers, &like, main_out, &data_out, 1, NULL), 0);
    channel_shutdown(data_out);
    struct chunk *chunk = pool_take(&pool);
    chunk->wire_bytes = 1;
    writer_push(&f.writers.all[1], chunk);
    while (!atomic_load(&f.failed)) {
        sched_yield();
    }
    writers_join(&f.writers);
    assert_null(f.writers.all);
    pool_destroy(&pool);
    fault_destroy(&f.fault);
    channel_close(main_out);
    channel_close(main_in);
    channel_close(data_out);
    channel_close(data_in);
}

/* At a byte a second nothing can go for an hour, over whatever channel; without the cap all of it does. */
static void the_cap_binds_all_channels_and_can_be_taken_away(void **state)
{
    struct road road;
    struct pipeline_stats stats;
    struct err err = { 0 };
    (void)state;

    road_open_wide(&road, UNITS, 2, 2, 0, false, 4);
    atomic_store(&road.tunables.max_bytes_per_s, 1);
    assert_int_equal(pipeline_round_begin(road.pipeline, false, NULL), 0);
    do {
        pipeline_stats(road.pipeline, &stats);
        sched_yield();
    } while (stats.rate_wait_ns == 0);
    assert_int_equal(stats.wire_bytes, 0);
    atomic_store(&road.tunables.max_bytes_per_s, 0);
    assert_int_equal(pipeline_round_end(road.pipeline, NULL, &err), 0);
    uint8_t end = ROAD_END;
    assert_int_equal(pipeline_send(road.pipeline, &end, 1, NULL), 0);
    road_join(&road);
    assert_int_equal(road.err.code, 0);
    assert_true(road_arrived_whole(&road));
    road_close(&road);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_guest_that_keeps_changing_arrives_whole_over_any_number_of_channels),
        cmocka_unit_test(every_channel_gets_its_share),
        cmocka_unit_test(a_channel_that_stalls_stops_the_round_and_cancel_ends_it),
        cmocka_unit_test(a_channel_that_takes_nothing_for_too_long_has_failed),
        cmocka_unit_test(a_channel_that_breaks_fails_the_round_and_ends_the_others),
        cmocka_unit_test(a_writer_that_fails_last_may_still_close_the_others),
        cmocka_unit_test(the_cap_binds_all_channels_and_can_be_taken_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
