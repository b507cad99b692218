/* Two machines in one process, a guest that writes memory all the time, and every way of moving it or failing to. */
#include "tests/unit/test.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "base/clock.h"
#include "machine/board.h"
#include "migration/migration.h"

enum { MIB = 1 << 20, PATIENCE_MS = 60000, WALKED_PAGES = 1024 };
#define WALKED (BOARD_RAM_BASE + MIB)

/* Adds one to the first word of each of 1024 pages, in order, for ever: at any moment the counters are a staircase of
 * one step, and a page that travelled stale or twice breaks it. */
static const uint32_t walks[] = {
    0x02051e63, /*       bnez  a0, sleep      : one hart walks, the others sleep */
    0x00001437, /*       lui   s0, 0x1        */
    0x8014041b, /*       addiw s0, s0, -2047  */
    0x01441413, /*       slli  s0, s0, 20     : 0x80100000 */
    0x40000493, /*       li    s1, 1024       */
    0x00001a37, /*       lui   s4, 1          */
    0x00040293, /* again: mv   t0, s0         */
    0x00048313, /*       mv    t1, s1         */
    0x0002b383, /* next: ld    t2, 0(t0)      */
    0x00138393, /*       addi  t2, t2, 1      */
    0x0072b023, /*       sd    t2, 0(t0)      */
    0x014282b3, /*       add   t0, t0, s4     */
    0xfff30313, /*       addi  t1, t1, -1     */
    0xfe0316e3, /*       bnez  t1, next       */
    0xfe1ff06f, /*       j     again          */
    0x10500073, /* sleep: wfi                 */
    0xffdff06f, /*       j     sleep          */
};

struct side {
    struct chardev *serial;
    struct machine *machine;
    struct migration *migration;
};

static char folder[64];
static struct side a, b;

static void make_side(struct side *side, bool incoming, uint64_t ram_bytes)
{
    struct err err = { 0 };
    struct machine_config config = { .harts = 2, .ram_bytes = ram_bytes, .serial = 1, .bios = "none" };
    config.incoming = incoming;
    if (chardev_open("serial0", "null", uv_default_loop(), &side->serial, &err) < 0)
        fail_msg("chardev: %s", err.text);
    struct machine_hosts hosts = { .serial = side->serial };
    if (machine_new(&config, &hosts, &side->machine, &err) < 0)
        fail_msg("machine_new: %s", err.text);
    if (!incoming) {
        assert_true(ram_load(machine_ram(side->machine), BOARD_RAM_BASE, walks, sizeof(walks)));
        if (machine_boot(side->machine, &err) < 0)
            fail_msg("machine_boot: %s", err.text);
    }
    if (migration_new(side->machine, &side->migration, &err) < 0)
        fail_msg("migration_new: %s", err.text);
}

static void drop_side(struct side *side)
{
    migration_free(side->migration);
    machine_free(side->machine);
    chardev_free(side->serial);
    *side = (struct side){ 0 };
}

static int setup(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/godwit-test-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    setenv("XDG_STATE_HOME", folder, 1);
    make_side(&a, false, 32 * MIB);
    make_side(&b, true, 32 * MIB);
    return 0;
}

static int teardown(void **state)
{
    char command[128];
    (void)state;
    drop_side(&a);
    drop_side(&b);
    snprintf(command, sizeof(command), "rm -r '%s'", folder);
    return system(command);
}

static uint64_t counter(struct side *side, unsigned page)
{
    uint64_t value;
    assert_true(ram_read(machine_ram(side->machine), WALKED + (uint64_t)page * PAGE_BYTES, &value, 8));
    return value;
}

static void let_it_walk(struct side *side)
{
    int64_t until_ns = clock_now_ns() + PATIENCE_MS * (int64_t)NS_PER_MS;
    uint64_t from = counter(side, WALKED_PAGES - 1);
    while (counter(side, WALKED_PAGES - 1) < from + 2) {
        if (clock_now_ns() > until_ns)
            fail_msg("the guest does not run");
        sched_yield();
    }
}

static void run(struct side *side)
{
    assert_int_equal(machine_resume(side->machine, false, NULL), 0);
    let_it_walk(side);
}

static void assert_staircase(struct side *side)
{
    machine_pause(side->machine, RUN_PAUSED);
    unsigned steps = 0;
    for (unsigned page = 1; page < WALKED_PAGES; page++) {
        uint64_t before = counter(side, page - 1), here = counter(side, page);
        if (here == before)
            continue;
        steps++;
        assert_int_equal(here + 1, before);
    }
    assert_true(steps <= 1);
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

static void set(struct side *side, const char *name, const char *value)
{
    assert_int_equal(param_set_text(migration_params_of(side->migration), name, value, NULL), 0);
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
        print_message(
            "  rounds %d, %.1f ms pause (predicted %.1f): pause %.2f, last round %.2f, devices %.2f, prepared "
            "%.2f, go %.2f; total %d ms, wire %d KiB\n",
            (int)info.rounds, info.downtime_ms, info.predicted_downtime_ms, info.pause_ms, info.last_round_ms,
            info.device_ms, info.prepared_ms, info.go_ms, (int)info.total_ms, (int)(info.wire_bytes >> 10));
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
        make_side(&b, true, 32 * MIB);
    }
}

static void a_paused_guest_arrives_paused(void **state)
{
    (void)state;
    run(&a);
    machine_pause(a.machine, RUN_PAUSED);
    uint64_t before = counter(&a, 0);
    listen_on(&b, socket_uri());
    send_to(&a, socket_uri());
    assert_state(&a, MIGRATION_COMPLETED);
    assert_state(&b, MIGRATION_COMPLETED);
    assert_int_equal(machine_state(b.machine), RUN_PAUSED);
    assert_int_equal(counter(&b, 0), before);
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
    make_side(&b, true, 64 * MIB);
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
    listen_on(&b, socket_uri());
    send_to(&a, socket_uri());
    wait_for_round(&a);
    drop_side(&b);
    assert_state(&a, MIGRATION_FAILED);
    assert_true(info_of(&a).error.text[0]);
    assert_still_here();
    make_side(&b, true, 32 * MIB);
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
    uint64_t saved = counter(&a, 0);

    listen_on(&b, file_uri());
    assert_state(&b, MIGRATION_COMPLETED);
    assert_int_equal(machine_state(b.machine), RUN_RUNNING);
    assert_true(counter(&b, 0) >= saved);
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
    assert_int_equal(counter(&b, 0), counter(&a, 0));
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
