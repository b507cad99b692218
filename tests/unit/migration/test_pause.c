/* A pause that lasts too long: a proxy between two machines stops forwarding while the guest stands still. The guest
 * must run on, here, and the move must still succeed, or end as asked, with nothing lost. */
#include "tests/unit/migration/two_machines.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>

/* --- the proxy ------------------------------------------------------------------------------------------------ */

static struct {
    int listener, wake[2];
    pthread_t thread;
    _Atomic bool stalled[2]; /* from source; from destination */
    _Atomic bool end;
} proxy;

static _Atomic unsigned pauses, returns; /* times the source came to DEVICE, and back to ACTIVE */
static bool stall_at_pause[2], rehearses;

static struct sockaddr_un address(const char *name)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    snprintf(at.sun_path, sizeof(at.sun_path), "%s/%s", folder, name);
    return at;
}

static void proxy_wake(void)
{
    assert_int_equal(write(proxy.wake[1], "", 1), 1);
}

static bool forward(int from, int to)
{
    static uint8_t data[1 << 16];
    ssize_t got = read(from, data, sizeof(data));
    for (ssize_t done = 0, sent; done < got; done += sent) {
        sent = send(to, data + done, (size_t)(got - done), MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
    }
    return got > 0;
}

static void *proxy_run(void *opaque)
{
    (void)opaque;
    struct sockaddr_un to = address("there");
    int end[2] = { accept(proxy.listener, NULL, NULL), socket(AF_UNIX, SOCK_STREAM, 0) };
    bool open = connect(end[1], (struct sockaddr *)&to, sizeof(to)) == 0;
    while (open && !atomic_load(&proxy.end)) {
        struct pollfd wait[3] = { { .fd = proxy.wake[0], .events = POLLIN } };
        for (int from = 0; from < 2; from++)
            wait[1 + from] =
                (struct pollfd){ .fd = atomic_load(&proxy.stalled[from]) ? -1 : end[from], .events = POLLIN };
        poll(wait, 3, -1);
        char ignored;
        if (wait[0].revents && read(proxy.wake[0], &ignored, 1) < 0)
            open = false;
        for (int from = 0; from < 2 && open; from++)
            if (wait[1 + from].revents && !atomic_load(&proxy.stalled[from]))
                open = forward(end[from], end[!from]);
    }
    close(end[0]);
    close(end[1]);
    return NULL;
}

static void proxy_stall(bool from_source, bool from_destination)
{
    atomic_store(&proxy.stalled[0], from_source);
    atomic_store(&proxy.stalled[1], from_destination);
    proxy_wake();
}

/* --- the two sides ---------------------------------------------------------------------------------------------- */

static void on_event(void *opaque, enum migration_event event, enum migration_state state, uint64_t round)
{
    (void)opaque, (void)round;
    if (event != MIGRATION_EVENT_STATE)
        return;
    if (state == MIGRATION_DEVICE && atomic_fetch_add(&pauses, 1) == 0)
        proxy_stall(stall_at_pause[0], stall_at_pause[1]);
    if (state == MIGRATION_ACTIVE && atomic_load(&pauses))
        atomic_fetch_add(&returns, 1);
}

static int setup(void **state)
{
    (void)state;
    if (make_both(&(struct shape){ .harts = 1, .ram_bytes = 16 * MIB }) < 0)
        return -1;
    migration_on_event(a.migration, on_event, NULL);
    rehearses = false;
    atomic_store(&pauses, 0);
    atomic_store(&returns, 0);
    atomic_store(&proxy.end, false);
    atomic_store(&proxy.stalled[0], false);
    atomic_store(&proxy.stalled[1], false);
    struct sockaddr_un here = address("here");
    proxy.listener = socket(AF_UNIX, SOCK_STREAM, 0);
    return pipe(proxy.wake) < 0 || bind(proxy.listener, (struct sockaddr *)&here, sizeof(here)) < 0 ||
           listen(proxy.listener, 1) < 0;
}

static int teardown(void **state)
{
    (void)state;
    atomic_store(&proxy.end, true);
    proxy_wake();
    pthread_join(proxy.thread, NULL);
    int ret = drop_both();
    close(proxy.listener);
    close(proxy.wake[0]);
    close(proxy.wake[1]);
    return ret;
}

static void wait_for(const _Atomic unsigned *what, const char *why)
{
    int64_t until_ns = clock_now_ns() + PATIENCE_MS * (int64_t)NS_PER_MS;
    while (atomic_load(what) == 0) {
        if (clock_now_ns() > until_ns)
            fail_msg("%s", why);
        sched_yield();
    }
}

static void begin(bool stall_source, bool stall_destination, const char *compression)
{
    struct err err = { 0 };
    char uri[96];
    stall_at_pause[0] = stall_source;
    stall_at_pause[1] = stall_destination;
    set(&a, "compression", compression);
    set(&a, "peer-timeout", "600000");
    snprintf(uri, sizeof(uri), "unix:%s/there", folder);
    if (migration_incoming(b.migration, uri, true, &err) < 0)
        fail_msg("incoming: %s", err.text);
    assert_int_equal(pthread_create(&proxy.thread, NULL, proxy_run, NULL), 0);
    assert_int_equal(machine_resume(a.machine, false, NULL), 0);
    let_it_walk(&a);
    snprintf(uri, sizeof(uri), "unix:%s/here", folder);
    int rc = rehearses ? migration_rehearse(a.migration, uri, &err) : migration_start(a.migration, uri, &err);
    if (rc < 0)
        fail_msg("migrate: %s", err.text);
}

static void assert_end(struct side *side, enum migration_state state)
{
    bool ended = migration_wait(side->migration, PATIENCE_MS);
    struct migration_info info;
    migration_query(side->migration, &info);
    if (!ended)
        fail_msg("the migration does not end: %s after %llu rounds, %llu bytes left, %.0f ms foreseen of %.0f",
                 migration_state_name(info.state), (unsigned long long)info.rounds,
                 (unsigned long long)info.ram_remaining, info.expected_downtime_ms, info.downtime_limit_ms);
    if (info.state != state)
        fail_msg("%s, expected %s: %s", migration_state_name(info.state), migration_state_name(state), info.error.text);
}

/* --- promises ------------------------------------------------------------------------------------------------- */

static void assert_comes_back_and_moves(bool stall_source, const char *compression)
{
    set(&a, "downtime-limit", "200");
    begin(stall_source, true, compression);
    wait_for(&returns, "the pause goes on for ever");
    assert_int_equal(machine_state(a.machine), RUN_RUNNING);
    let_it_walk(&a);
    proxy_stall(false, false);
    assert_end(&a, MIGRATION_COMPLETED);
    assert_end(&b, MIGRATION_COMPLETED);
    let_it_walk(&b);
    assert_staircase(&b);
}

static void a_last_round_that_lasts_too_long_lets_the_guest_run_on(void **state)
{
    (void)state;
    assert_comes_back_and_moves(true, "none"); /* more than the line holds */
}

static void a_peer_that_does_not_say_prepared_in_time_gets_a_retract(void **state)
{
    (void)state;
    assert_comes_back_and_moves(false, "lz4"); /* all of it arrives; the answer does not */
}

/* No PREPARED within the limit: another round, and at last the good end, all of it here. */
static void a_rehearsal_lets_the_guest_go_and_tries_again(void **state)
{
    (void)state;
    rehearses = true;
    set(&a, "downtime-limit", "400");
    begin(false, true, "lz4");
    wait_for(&returns, "the pause goes on for ever");
    let_it_walk(&a);
    proxy_stall(false, false);
    assert_end(&a, MIGRATION_COMPLETED);
    assert_int_equal(machine_state(a.machine), RUN_RUNNING);
    assert_int_equal(machine_state(b.machine), RUN_INMIGRATE);
    let_it_walk(&a);
    assert_staircase(&a);
}

static void wait_until_prepared(struct side *side)
{
    struct migration_info info = { 0 };
    int64_t until_ns = clock_now_ns() + PATIENCE_MS * (int64_t)NS_PER_MS;
    while (info.state != MIGRATION_DEVICE && clock_now_ns() < until_ns) {
        migration_query(side->migration, &info);
        sched_yield();
    }
    assert_int_equal(info.state, MIGRATION_DEVICE);
}

static void assert_cancel_ends_the_pause(bool stall_source, const char *compression)
{
    set(&a, "downtime-limit", "600000");
    begin(stall_source, true, compression);
    wait_for(&pauses, "no pause comes");
    if (!stall_source)
        wait_until_prepared(&b);
    assert_int_equal(migration_cancel(a.migration), 0);
    assert_end(&a, MIGRATION_CANCELLED);
    assert_int_equal(machine_state(a.machine), RUN_RUNNING);
    let_it_walk(&a);
}

static void a_cancel_while_the_line_is_full_lets_the_guest_run_on(void **state)
{
    (void)state;
    assert_cancel_ends_the_pause(true, "none");
}

static void a_cancel_while_the_answer_is_awaited_lets_the_guest_run_on(void **state)
{
    (void)state;
    assert_cancel_ends_the_pause(false, "lz4");
}

static void a_peer_that_takes_nothing_any_more_is_given_up(void **state)
{
    (void)state;
    set(&a, "downtime-limit", "600000");
    begin(true, true, "none");
    set(&a, "peer-timeout", "200");
    assert_end(&a, MIGRATION_FAILED);
    assert_int_equal(machine_state(a.machine), RUN_RUNNING);
    let_it_walk(&a);
}

static void hold_with_a_silent_source(void)
{
    set(&a, "downtime-limit", "600000");
    set(&b, "peer-timeout", "200");
    begin(false, true, "lz4");
    assert_end(&b, MIGRATION_UNRESOLVED);
    assert_int_equal(machine_state(b.machine), RUN_INMIGRATE);
}

static void wait_until_it_runs_on_the_other_side(void)
{
    int64_t until_ns = clock_now_ns() + PATIENCE_MS * (int64_t)NS_PER_MS;
    while (machine_state(b.machine) != RUN_RUNNING) {
        if (clock_now_ns() > until_ns)
            fail_msg("the guest does not start");
        sched_yield();
    }
    let_it_walk(&b);
}

static void a_source_that_was_silent_for_long_may_still_say_go(void **state)
{
    (void)state;
    hold_with_a_silent_source();
    proxy_stall(false, false); /* PREPARED gets through at last */
    assert_end(&a, MIGRATION_COMPLETED);
    wait_until_it_runs_on_the_other_side();
    assert_staircase(&b);
}

static void an_operator_may_end_the_wait_for_a_silent_source(void **state)
{
    (void)state;
    hold_with_a_silent_source();
    assert_int_equal(migration_resolve(b.migration, RESOLVE_HERE, NULL), 0);
    wait_until_it_runs_on_the_other_side();
    assert_staircase(&b);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_last_round_that_lasts_too_long_lets_the_guest_run_on),
        TEST(a_peer_that_does_not_say_prepared_in_time_gets_a_retract),
        TEST(a_rehearsal_lets_the_guest_go_and_tries_again),
        TEST(a_cancel_while_the_line_is_full_lets_the_guest_run_on),
        TEST(a_cancel_while_the_answer_is_awaited_lets_the_guest_run_on),
        TEST(a_peer_that_takes_nothing_any_more_is_given_up),
        TEST(a_source_that_was_silent_for_long_may_still_say_go),
        TEST(an_operator_may_end_the_wait_for_a_silent_source),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
