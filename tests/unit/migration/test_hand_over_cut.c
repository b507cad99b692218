/* A line that breaks at a chosen message. A proxy between two machines forwards bytes, and cuts both ways just before
 * or just after the n-th message of the destination, or GO. Whatever it does: never two runners, never a lost guest. */
#include "tests/unit/test.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <poll.h>
#include <uv.h>

#include "base/clock.h"
#include "machine/board.h"
#include "migration/message.h"
#include "migration/migration.h"

enum { MIB = 1 << 20, PATIENCE_MS = 60000 };
#define COUNTER (BOARD_RAM_BASE + MIB)

static const uint32_t counts[] = {
    0x00100297, /* auipc t0, 0x100: COUNTER */
    0x0002b303, /* ld    t1, 0(t0) */
    0x00130313, /* addi  t1, t1, 1 */
    0x0062b023, /* sd    t1, 0(t0) */
    0xff5ff06f, /* j     -12 */
};

struct side {
    struct chardev *serial;
    struct machine *machine;
    struct migration *migration;
};
static struct side a, b;
static char folder[64];

static void make_side(struct side *side, bool incoming)
{
    struct err err = { 0 };
    struct machine_config config = { .harts = 1, .ram_bytes = 8 * MIB, .serial = 1, .bios = "none" };
    config.incoming = incoming;
    if (chardev_open("serial0", "null", uv_default_loop(), &side->serial, &err) < 0)
        fail_msg("chardev: %s", err.text);
    struct machine_hosts hosts = { .serial = side->serial };
    if (machine_new(&config, &hosts, &side->machine, &err) < 0)
        fail_msg("machine_new: %s", err.text);
    if (!incoming) {
        assert_true(ram_load(machine_ram(side->machine), BOARD_RAM_BASE, counts, sizeof(counts)));
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

/* --- the proxy ------------------------------------------------------------------------------------------------ */

struct proxy {
    /* fixed while it runs */
    int listener;
    enum message_type cut_at;
    bool after; /* forward it, then cut; else cut before */
    pthread_t thread;
    /* of the thread, read after the join */
    bool cut;
};

static struct sockaddr_un address(const char *name)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    snprintf(at.sun_path, sizeof(at.sun_path), "%s/%s", folder, name);
    return at;
}

static bool forward(int to, const uint8_t *data, size_t bytes)
{
    while (bytes) {
        ssize_t sent = send(to, data, bytes, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        data += sent, bytes -= (size_t)sent;
    }
    return true;
}

/* The message begins anywhere in the bytes; a payload that looks like its head would only cut somewhere else. */
static const uint8_t *find(const struct proxy *p, const uint8_t *data, size_t bytes, size_t *message_bytes)
{
    for (size_t at = 0; at + MESSAGE_HEAD_BYTES <= bytes; at++)
        if (be32_get(data + at) == MESSAGE_MAGIC && be16_get(data + at + 4) == p->cut_at &&
            be16_get(data + at + 6) == 0) {
            *message_bytes = MESSAGE_HEAD_BYTES + be32_get(data + at + 8) + 8;
            if (*message_bytes > bytes - at)
                *message_bytes = bytes - at;
            return data + at;
        }
    return NULL;
}

static void *proxy_run(void *opaque)
{
    struct proxy *p = opaque;
    static uint8_t data[1 << 16];
    struct sockaddr_un to = address("there");
    int end[2] = { accept(p->listener, NULL, NULL), socket(AF_UNIX, SOCK_STREAM, 0) };
    bool open = connect(end[1], (struct sockaddr *)&to, sizeof(to)) == 0;
    while (open) {
        struct pollfd wait[2] = { { .fd = end[0], .events = POLLIN }, { .fd = end[1], .events = POLLIN } };
        poll(wait, 2, -1);
        for (int from = 0; from < 2 && open; from++) {
            if (!wait[from].revents)
                continue;
            ssize_t got = read(end[from], data, sizeof(data));
            if (got <= 0) {
                open = false;
                break;
            }
            size_t bytes = (size_t)got, message_bytes;
            const uint8_t *found = find(p, data, bytes, &message_bytes);
            if (found) {
                bytes = (size_t)(found - data) + (p->after ? message_bytes : 0);
                p->cut = true;
                open = false;
            }
            open = forward(end[!from], data, bytes) && open;
        }
    }
    close(end[0]);
    close(end[1]);
    return NULL;
}

static void proxy_start(struct proxy *p, enum message_type cut_at, bool after)
{
    struct sockaddr_un here = address("here");
    *p = (struct proxy){ .cut_at = cut_at, .after = after };
    p->listener = socket(AF_UNIX, SOCK_STREAM, 0);
    unlink(here.sun_path);
    assert_int_equal(bind(p->listener, (struct sockaddr *)&here, sizeof(here)), 0);
    assert_int_equal(listen(p->listener, 1), 0);
    assert_int_equal(pthread_create(&p->thread, NULL, proxy_run, p), 0);
}

static void proxy_end(struct proxy *p)
{
    pthread_join(p->thread, NULL);
    close(p->listener);
}

/* --- helpers -------------------------------------------------------------------------------------------------------- */

static int setup(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/godwit-test-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    setenv("XDG_STATE_HOME", folder, 1);
    make_side(&a, false);
    make_side(&b, true);
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

static enum migration_state settled(struct side *side)
{
    struct migration_info info;
    assert_true(migration_wait(side->migration, PATIENCE_MS));
    migration_query(side->migration, &info);
    return info.state;
}

static bool runs(struct side *side)
{
    return machine_state(side->machine) == RUN_RUNNING;
}

static uint64_t counter(struct side *side)
{
    uint64_t value;
    assert_true(ram_read(machine_ram(side->machine), COUNTER, &value, 8));
    return value;
}

static void let_it_count(struct side *side)
{
    uint64_t from = counter(side);
    for (int64_t until_ns = clock_now_ns() + PATIENCE_MS * (int64_t)NS_PER_MS; counter(side) < from + 100;) {
        if (clock_now_ns() > until_ns)
            fail_msg("the guest does not run");
        sched_yield();
    }
}

static void move_with_a_cut(enum message_type cut_at, bool after)
{
    struct proxy proxy;
    char uri[96];
    struct err err = { 0 };
    assert_int_equal(machine_resume(a.machine, false, NULL), 0);
    let_it_count(&a);
    snprintf(uri, sizeof(uri), "unix:%s/there", folder);
    if (migration_incoming(b.migration, uri, true, &err) < 0)
        fail_msg("%s", err.text);
    proxy_start(&proxy, cut_at, after);
    snprintf(uri, sizeof(uri), "unix:%s/here", folder);
    assert_int_equal(migration_start(a.migration, uri, NULL), 0);
    settled(&a);
    settled(&b);
    proxy_end(&proxy);
    assert_true(proxy.cut);
    assert_false(runs(&a) && runs(&b));
}

static unsigned written_down(void)
{
    char command[160];
    snprintf(command, sizeof(command), "exit $(ls '%s/godwit' 2>/dev/null | wc -l)", folder);
    return (unsigned)WEXITSTATUS(system(command));
}

static void wait_for_runner(struct side *side)
{
    for (int64_t until_ns = clock_now_ns() + PATIENCE_MS * (int64_t)NS_PER_MS; !runs(side);) {
        if (clock_now_ns() > until_ns)
            fail_msg("nobody runs the guest");
        sched_yield();
    }
    let_it_count(side);
}

/* --- the promises ------------------------------------------------------------------------------------------------------ */

static void a_line_cut_before_prepared_leaves_the_guest_here_and_the_peer_holding(void **state)
{
    (void)state;
    move_with_a_cut(MESSAGE_PREPARED, false);
    assert_int_equal(settled(&a), MIGRATION_FAILED);
    assert_int_equal(settled(&b), MIGRATION_UNRESOLVED);
    wait_for_runner(&a);
    assert_int_equal(written_down(), 0);
    bool force;
    assert_int_equal(migration_may_resume(b.migration, &force, NULL), -EPERM);
    assert_int_equal(migration_resolve(b.migration, RESOLVE_THERE, NULL), 0);
    for (int64_t until_ns = clock_now_ns() + PATIENCE_MS * (int64_t)NS_PER_MS;
         settled(&b) != MIGRATION_FAILED && clock_now_ns() < until_ns;)
        sched_yield();
    assert_int_equal(machine_state(b.machine), RUN_INMIGRATE);
}

static void a_line_cut_at_the_hello_is_a_plain_failure(void **state)
{
    (void)state;
    move_with_a_cut(MESSAGE_HELLO, false);
    assert_int_equal(settled(&a), MIGRATION_FAILED);
    assert_int_equal(settled(&b), MIGRATION_FAILED);
    wait_for_runner(&a);
}

static void a_line_cut_while_loading_is_a_plain_failure(void **state)
{
    (void)state;
    move_with_a_cut(MESSAGE_LOADED, true);
    assert_int_equal(settled(&a), MIGRATION_FAILED);
    assert_int_equal(settled(&b), MIGRATION_FAILED);
    wait_for_runner(&a);
}

static void a_lost_go_leaves_both_in_doubt_until_an_operator_says_here(void **state)
{
    (void)state;
    move_with_a_cut(MESSAGE_GO, false);
    assert_int_equal(settled(&a), MIGRATION_UNRESOLVED);
    assert_int_equal(settled(&b), MIGRATION_UNRESOLVED);
    assert_false(runs(&a) || runs(&b));
    assert_int_equal(written_down(), 1);
    bool force;
    assert_int_equal(migration_may_resume(a.migration, &force, NULL), -EPERM);
    assert_int_equal(machine_resume(a.machine, false, NULL), -EPERM);
    assert_int_equal(migration_start(a.migration, "unix:/nowhere", NULL), -EBUSY);
    assert_int_equal(migration_resolve(a.migration, RESOLVE_ASK, NULL), -ENOTCONN);

    assert_int_equal(migration_resolve(b.migration, RESOLVE_THERE, NULL), 0);
    assert_int_equal(migration_resolve(a.migration, RESOLVE_HERE, NULL), 0);
    wait_for_runner(&a);
    assert_false(runs(&b));
    assert_int_equal(written_down(), 0);
}

static void a_lost_go_may_also_be_settled_on_the_other_side(void **state)
{
    (void)state;
    move_with_a_cut(MESSAGE_GO, false);
    assert_int_equal(migration_resolve(b.migration, RESOLVE_HERE, NULL), 0);
    wait_for_runner(&b);
    assert_int_equal(migration_resolve(a.migration, RESOLVE_THERE, NULL), 0);
    for (int64_t until_ns = clock_now_ns() + PATIENCE_MS * (int64_t)NS_PER_MS;
         settled(&a) != MIGRATION_COMPLETED && clock_now_ns() < until_ns;)
        sched_yield();
    assert_int_equal(settled(&a), MIGRATION_COMPLETED);
    assert_false(runs(&a));
    assert_int_equal(written_down(), 0);
}

static void a_lost_running_leaves_the_source_in_doubt_and_the_guest_there(void **state)
{
    (void)state;
    move_with_a_cut(MESSAGE_RUNNING, false);
    assert_int_equal(settled(&a), MIGRATION_UNRESOLVED);
    assert_int_equal(settled(&b), MIGRATION_COMPLETED);
    wait_for_runner(&b);
    assert_false(runs(&a));
    assert_int_equal(migration_cancel(a.migration), 0); /* nothing left to cancel, and it does not bring it back */
    assert_false(runs(&a));
    assert_int_equal(migration_resolve(a.migration, RESOLVE_THERE, NULL), 0);
}

static void a_line_cut_after_running_has_done_no_harm(void **state)
{
    (void)state;
    move_with_a_cut(MESSAGE_RUNNING, true);
    assert_int_equal(settled(&a), MIGRATION_COMPLETED);
    assert_int_equal(settled(&b), MIGRATION_COMPLETED);
    wait_for_runner(&b);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_line_cut_at_the_hello_is_a_plain_failure),
        TEST(a_line_cut_while_loading_is_a_plain_failure),
        TEST(a_line_cut_before_prepared_leaves_the_guest_here_and_the_peer_holding),
        TEST(a_lost_go_leaves_both_in_doubt_until_an_operator_says_here),
        TEST(a_lost_go_may_also_be_settled_on_the_other_side),
        TEST(a_lost_running_leaves_the_source_in_doubt_and_the_guest_there),
        TEST(a_line_cut_after_running_has_done_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
