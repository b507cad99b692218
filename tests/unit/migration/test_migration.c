/* Two machines in one process, a guest that writes memory all the time, and every way of moving it or failing to. */
#include "tests/unit/migration/two_machines.h"

#include <errno.h>

static const struct shape shape = { .harts = 2, .ram_bytes = 32 * MIB };

static int setup(void **state)
{
    (void)state;
    return make_both(&shape);
}

static int teardown(void **state)
{
    (void)state;
    return drop_both();
}

static void run(struct side *side)
{
    assert_int_equal(machine_resume(side->machine, false, NULL), 0);
    let_it_walk(side);
}

static struct migration_info info_of(struct side *side)
{
    struct migration_info info;
    migration_query(side->migration, &info);
    return info;
}

static void assert_state(struct side *side, enum migration_state state)
{
    assert_true(migration_wait(side->migration, PATIENCE_MS));
    struct migration_info info = info_of(side);
    if (info.state != state)
        fail_msg("%s, expected %s: %s", migration_state_name(info.state), migration_state_name(state), info.error.text);
}

static void listen_on(struct side *side, const char *uri)
{
    struct err err = { 0 };
    if (migration_incoming(side->migration, uri, true, &err) < 0)
        fail_msg("incoming: %s", err.text);
}

static void send_to(struct side *side, const char *uri)
{
    struct err err = { 0 };
    if (migration_start(side->migration, uri, &err) < 0)
        fail_msg("migrate: %s", err.text);
}

static const char *socket_uri(void)
{
    static char uri[128];
    snprintf(uri, sizeof(uri), "unix:%s/socket", folder);
    return uri;
}

static const char *file_uri(void)
{
    static char uri[128];
    snprintf(uri, sizeof(uri), "file:%s/guest", folder);
    return uri;
}

/* --- moving -------------------------------------------------------------------------------------------------- */

static void assert_moved(void)
{
    assert_state(&a, MIGRATION_COMPLETED);
    assert_state(&b, MIGRATION_COMPLETED);
    assert_int_equal(machine_state(a.machine), RUN_POSTMIGRATE);
    assert_int_equal(machine_state(b.machine), RUN_RUNNING);
    let_it_walk(&b);
    assert_staircase(&b);
    bool force;
    assert_int_equal(migration_may_resume(a.migration, &force, NULL), -EPERM);
    struct migration_info info = info_of(&a);
    assert_int_equal(info.where, GUEST_THERE);
    assert_true(info.downtime_ms > 0);
    assert_true(info.rounds > 0);
    assert_int_equal(info_of(&b).where, GUEST_HERE);
    if (getenv("TEST_FIGURES"))
        print_message("  rounds %d, %.1f ms pause (predicted %.1f); total %d ms, wire %d KiB\n", (int)info.rounds,
                      info.downtime_ms, info.predicted_downtime_ms, (int)info.total_ms, (int)(info.wire_bytes >> 10));
}

static void a_running_guest_moves_over_a_unix_socket(void **state)
{
    (void)state;
    run(&a);
    listen_on(&b, socket_uri());
    send_to(&a, socket_uri());
    assert_moved();
}

static void a_running_guest_moves_over_tcp_to_the_port_that_was_found(void **state)
{
    (void)state;
    run(&a);
    listen_on(&b, "tcp:127.0.0.1:0");
    send_to(&a, migration_listening(b.migration));
    assert_moved();
}

static void a_guest_moves_ten_times_and_loses_nothing(void **state)
{
    (void)state;
    run(&a);
    for (int hop = 0; hop < 10; hop++) {
        listen_on(&b, socket_uri());
        send_to(&a, socket_uri());
        assert_moved();
        assert_int_equal(machine_resume(b.machine, false, NULL), 0);
        drop_side(&a);
        a = b;
        make_side(&b, true, &shape);
    }
}

static void a_paused_guest_arrives_paused(void **state)
{
    (void)state;
    run(&a);
    machine_pause(a.machine, RUN_PAUSED);
    uint64_t before = page_counter(&a, 0);
    listen_on(&b, socket_uri());
    send_to(&a, socket_uri());
    assert_state(&a, MIGRATION_COMPLETED);
    assert_state(&b, MIGRATION_COMPLETED);
    assert_int_equal(machine_state(b.machine), RUN_PAUSED);
    assert_int_equal(page_counter(&b, 0), before);
    assert_int_equal(machine_resume(b.machine, false, NULL), 0);
    let_it_walk(&b);
    assert_staircase(&b);
}

static void whoever_waits_for_a_guest_may_still_say_that_it_is_not_to_run(void **state)
{
    (void)state;
    run(&a);
    listen_on(&b, socket_uri());
    migration_run_on_arrival(b.migration, false);
    send_to(&a, socket_uri());
    assert_state(&a, MIGRATION_COMPLETED);
    assert_state(&b, MIGRATION_COMPLETED);
    assert_int_equal(machine_state(b.machine), RUN_PAUSED);
    assert_staircase(&b);
}

static void nothing_stays_written_down_after_a_clean_hand_over(void **state)
{
    (void)state;
    char command[160];
    run(&a);
    listen_on(&b, socket_uri());
    send_to(&a, socket_uri());
    assert_moved();
    snprintf(command, sizeof(command), "test -z \"$(ls '%s/godwit')\"", folder);
    assert_int_equal(system(command), 0);
}

/* --- not moving ------------------------------------------------------------------------------------------------ */

static void assert_still_here(void)
{
    assert_int_equal(machine_state(a.machine), RUN_RUNNING);
    assert_int_equal(info_of(&a).where, GUEST_HERE);
    let_it_walk(&a);
    assert_staircase(&a);
    assert_int_equal(machine_resume(a.machine, false, NULL), 0);
}

static void a_machine_of_another_size_is_refused_with_a_sentence_and_the_guest_runs_on(void **state)
{
    (void)state;
    drop_side(&b);
    make_side(&b, true, &(struct shape){ .harts = 2, .ram_bytes = 64 * MIB });
    run(&a);
    listen_on(&b, socket_uri());
    send_to(&a, socket_uri());
    assert_state(&a, MIGRATION_FAILED);
    assert_state(&b, MIGRATION_FAILED);
    assert_non_null(strstr(info_of(&a).error.text, "the destination refuses: "));
    assert_non_null(strstr(info_of(&a).error.text, info_of(&b).error.text));
    assert_still_here();
}

static void a_refused_connection_is_a_failure_with_the_address(void **state)
{
    (void)state;
    run(&a);
    send_to(&a, socket_uri());
    assert_state(&a, MIGRATION_FAILED);
    assert_non_null(strstr(info_of(&a).error.text, folder));
    assert_still_here();
}

static void wait_for_round(struct side *side)
{
    int64_t until_ns = clock_now_ns() + PATIENCE_MS * (int64_t)NS_PER_MS;
    while (info_of(side).wire_bytes < 100000) {
        if (clock_now_ns() > until_ns)
            fail_msg("nothing is sent");
        sched_yield();
    }
}

static void a_cancelled_migration_leaves_the_guest_running_and_may_be_tried_again(void **state)
{
    (void)state;
    run(&a);
    set(&a, "max-bandwidth", "1M");
    set(&a, "compression", "none");
    set(&a, "downtime-limit", "1");
    set(&a, "on-stall", "continue");
    listen_on(&b, socket_uri());
    send_to(&a, socket_uri());
    wait_for_round(&a);
    assert_int_equal(migration_start(a.migration, socket_uri(), NULL), -EBUSY);
    assert_int_equal(migration_cancel(a.migration), 0);
    assert_state(&a, MIGRATION_CANCELLED);
    assert_state(&b, MIGRATION_FAILED);
    assert_still_here();

    set(&a, "max-bandwidth", "0");
    set(&a, "downtime-limit", "300");
    listen_on(&b, socket_uri());
    send_to(&a, socket_uri());
    assert_moved();
}

static void a_cancel_before_anybody_answers_ends_the_wait(void **state)
{
    (void)state;
    run(&a);
    listen_on(&b, socket_uri());
    assert_int_equal(migration_cancel(b.migration), 0);
    assert_state(&b, MIGRATION_CANCELLED);
    listen_on(&b, socket_uri());
    send_to(&a, socket_uri());
    assert_moved();
}

static void a_destination_that_dies_gives_the_guest_back(void **state)
{
    (void)state;
    run(&a);
    set(&a, "max-bandwidth", "1M");
    set(&a, "compression", "none");
    set(&a, "downtime-limit", "1");
    set(&a, "on-stall", "continue");
    listen_on(&b, socket_uri());
    send_to(&a, socket_uri());
    wait_for_round(&a);
    drop_side(&b);
    assert_state(&a, MIGRATION_FAILED);
    assert_true(info_of(&a).error.text[0]);
    assert_still_here();
    make_side(&b, true, &shape);
}

static void a_cancel_with_nothing_running_is_no_error(void **state)
{
    (void)state;
    assert_int_equal(migration_cancel(a.migration), 0);
    assert_int_equal(info_of(&a).state, MIGRATION_NONE);
}

static void addresses_that_are_none_are_refused_at_once(void **state)
{
    (void)state;
    struct err err = { 0 };
    run(&a);
    assert_int_equal(migration_start(a.migration, "rdma:host:1", &err), -EINVAL);
    assert_non_null(strstr(err.text, "rdma:host:1"));
    assert_int_equal(migration_start(a.migration, "tcp:", NULL), -EINVAL);
    assert_int_equal(migration_incoming(a.migration, socket_uri(), true, NULL), -EINVAL);
    assert_int_equal(info_of(&a).state, MIGRATION_NONE);
}

/* --- files ------------------------------------------------------------------------------------------------------- */

static void a_guest_in_a_file_goes_on_here_and_there(void **state)
{
    (void)state;
    run(&a);
    send_to(&a, file_uri());
    assert_state(&a, MIGRATION_COMPLETED);
    assert_int_equal(machine_state(a.machine), RUN_POSTMIGRATE);
    assert_int_equal(info_of(&a).where, GUEST_IN_FILE);
    uint64_t saved = page_counter(&a, 0);

    listen_on(&b, file_uri());
    assert_state(&b, MIGRATION_COMPLETED);
    assert_int_equal(machine_state(b.machine), RUN_RUNNING);
    assert_true(page_counter(&b, 0) >= saved);
    let_it_walk(&b);
    assert_staircase(&b);

    bool force = false;
    assert_int_equal(migration_may_resume(a.migration, &force, NULL), 0);
    assert_true(force);
    assert_int_equal(machine_resume(a.machine, force, NULL), 0);
    let_it_walk(&a);
    assert_staircase(&a);
}

static size_t read_file(uint8_t **out)
{
    FILE *file = fopen(file_uri() + strlen("file:"), "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    size_t bytes = (size_t)ftell(file);
    rewind(file);
    *out = malloc(bytes);
    assert_int_equal(fread(*out, 1, bytes, file), bytes);
    fclose(file);
    return bytes;
}

static void write_file(const uint8_t *data, size_t bytes)
{
    FILE *file = fopen(file_uri() + strlen("file:"), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    fclose(file);
}

static void assert_refused_file(void)
{
    listen_on(&b, file_uri());
    assert_state(&b, MIGRATION_FAILED);
    assert_true(info_of(&b).error.text[0]);
    assert_int_equal(machine_state(b.machine), RUN_INMIGRATE);
    bool force;
    (void)force;
    assert_int_equal(machine_resume(b.machine, false, NULL), -EPERM);
}

static void a_file_that_lies_or_ends_early_is_refused_and_the_next_one_loads(void **state)
{
    (void)state;
    uint8_t *data;
    run(&a);
    machine_pause(a.machine, RUN_PAUSED); /* a small stream */
    send_to(&a, file_uri());
    assert_state(&a, MIGRATION_COMPLETED);
    size_t bytes = read_file(&data);
    srand(1);
    for (int trial = 0; trial < 40; trial++) {
        size_t at = trial < 30 ? bytes - 1 - (size_t)rand() % 4000 : (size_t)rand() % bytes;
        uint8_t bit = (uint8_t)(1 << rand() % 8);
        data[at] ^= bit;
        write_file(data, bytes);
        data[at] ^= bit;
        assert_refused_file();
    }
    for (int trial = 0; trial < 10; trial++) {
        write_file(data, trial ? (size_t)rand() % bytes : bytes - 1);
        assert_refused_file();
    }
    write_file(data, bytes);
    free(data);
    listen_on(&b, file_uri());
    assert_state(&b, MIGRATION_COMPLETED);
    assert_int_equal(machine_state(b.machine), RUN_PAUSED);
    assert_staircase(&b);
    assert_int_equal(page_counter(&b, 0), page_counter(&a, 0));
}

static void a_command_that_stores_the_stream_is_a_one_way_trip(void **state)
{
    (void)state;
    char uri[160];
    run(&a);
    snprintf(uri, sizeof(uri), "exec:cat > '%s/guest'", folder);
    send_to(&a, uri);
    assert_state(&a, MIGRATION_COMPLETED);
    bool force;
    assert_int_equal(migration_may_resume(a.migration, &force, NULL), -EPERM);
    assert_int_equal(migration_resolve(a.migration, RESOLVE_HERE, NULL), 0);
    assert_int_equal(migration_may_resume(a.migration, &force, NULL), 0);
    snprintf(uri, sizeof(uri), "exec:cat '%s/guest'", folder);
    listen_on(&b, uri);
    assert_state(&b, MIGRATION_COMPLETED);
    let_it_walk(&b);
    assert_staircase(&b);
}

/* It took the last byte and said that it failed: only a person knows whether the guest runs somewhere. */
static void a_command_that_fails_at_the_end_leaves_a_doubt_that_a_person_ends(void **state)
{
    (void)state;
    static const enum migration_answer answers[] = { RESOLVE_THERE, RESOLVE_HERE };
    char uri[160];
    bool force;
    for (int i = 0; i < 2; i++) {
        if (i == 0)
            run(&a);
        snprintf(uri, sizeof(uri), "exec:cat > '%s/guest'; exit 3", folder);
        send_to(&a, uri);
        assert_state(&a, MIGRATION_UNRESOLVED);
        assert_int_equal(machine_state(a.machine), RUN_POSTMIGRATE);
        assert_int_equal(written_down(), 1);
        assert_int_equal(migration_may_resume(a.migration, &force, NULL), -EPERM);
        assert_int_equal(migration_resolve(a.migration, answers[i], NULL), 0);
        assert_int_equal(written_down(), 0);
        assert_int_equal(migration_may_resume(a.migration, &force, NULL), i ? 0 : -EPERM);
        if (i == 0) { /* he was mistaken: one way, so he may say so */
            assert_int_equal(migration_resolve(a.migration, RESOLVE_HERE, NULL), 0);
            assert_int_equal(migration_may_resume(a.migration, &force, NULL), 0);
        }
        assert_int_equal(machine_resume(a.machine, force, NULL), 0);
    }
    let_it_walk(&a);
    assert_staircase(&a);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_running_guest_moves_over_a_unix_socket),
        TEST(a_running_guest_moves_over_tcp_to_the_port_that_was_found),
        TEST(a_guest_moves_ten_times_and_loses_nothing),
        TEST(a_paused_guest_arrives_paused),
        TEST(whoever_waits_for_a_guest_may_still_say_that_it_is_not_to_run),
        TEST(nothing_stays_written_down_after_a_clean_hand_over),
        TEST(a_machine_of_another_size_is_refused_with_a_sentence_and_the_guest_runs_on),
        TEST(a_refused_connection_is_a_failure_with_the_address),
        TEST(a_cancelled_migration_leaves_the_guest_running_and_may_be_tried_again),
        TEST(a_cancel_before_anybody_answers_ends_the_wait),
        TEST(a_destination_that_dies_gives_the_guest_back),
        TEST(a_cancel_with_nothing_running_is_no_error),
        TEST(addresses_that_are_none_are_refused_at_once),
        TEST(a_guest_in_a_file_goes_on_here_and_there),
        TEST(a_file_that_lies_or_ends_early_is_refused_and_the_next_one_loads),
        TEST(a_command_that_stores_the_stream_is_a_one_way_trip),
        TEST(a_command_that_fails_at_the_end_leaves_a_doubt_that_a_person_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
