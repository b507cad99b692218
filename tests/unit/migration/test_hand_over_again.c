/* After a line broke behind the point of no return: the source asks again over a new line, the destination answers by what it
 * is, and a guest that is refused comes back. */
#include "tests/unit/migration/cut_line.h"

/* --- asking again -------------------------------------------------------------------------------------------------------- */

static void assert_moved(void)
{
    wait_for_state(&a, MIGRATION_COMPLETED);
    wait_for_state(&b, MIGRATION_COMPLETED);
    wait_for_runner(&b);
    assert_false(runs(&a));
    assert_int_equal(machine_state(a.machine), RUN_POSTMIGRATE);
    assert_int_equal(written_down(), 0);
    assert_string_equal(why(&a), "");
    assert_string_equal(why(&b), "");
}

static void a_lost_go_is_sent_again_over_a_new_line(void **state)
{
    (void)state;
    start_with_a_cut(MESSAGE_GO, CUT_BEFORE, 1);
    assert_moved();
    proxy_end();
    assert_int_equal(proxy.done, 1);
    assert_int_equal(proxy.lines, 2);
}

static void a_go_that_is_lost_three_times_is_sent_a_fourth(void **state)
{
    (void)state;
    start_with_a_cut(MESSAGE_GO, CUT_BEFORE, 3);
    assert_moved();
    proxy_end();
    assert_int_equal(proxy.done, 3);
    assert_int_equal(proxy.lines, 4);
}

static void a_go_that_arrived_is_not_obeyed_twice(void **state)
{
    (void)state;
    start_with_a_cut(MESSAGE_GO, CUT_AFTER, 1);
    assert_moved();
}

static void a_lost_running_is_asked_for_again(void **state)
{
    (void)state;
    start_with_a_cut(MESSAGE_RUNNING, CUT_BEFORE, 1);
    assert_moved();
    proxy_end();
    assert_int_equal(proxy.done, 1);
}

/* The line stays, but what matters got lost: the destination must leave a line that it believes in. */
static void a_silent_line_is_left_for_a_new_one(void **state)
{
    (void)state;
    param_set_number(migration_params_of(a.migration), "peer-timeout", 2000, NULL);
    start_with_a_cut(MESSAGE_GO, SWALLOW, 1);
    assert_moved();
}

static void a_swallowed_running_is_asked_for_over_a_new_line(void **state)
{
    (void)state;
    param_set_number(migration_params_of(a.migration), "peer-timeout", 2000, NULL);
    start_with_a_cut(MESSAGE_RUNNING, SWALLOW, 1);
    assert_moved();
}

static void an_operator_may_ask_once_more(void **state)
{
    (void)state;
    move_with_a_cut(MESSAGE_GO, CUT_BEFORE);
    wait_for_state(&a, MIGRATION_UNRESOLVED);
    wait_for_state(&b, MIGRATION_UNRESOLVED);
    assert_int_equal(migration_resolve(b.migration, RESOLVE_ASK, NULL), -ENOTCONN); /* it is the source who asks */
    assert_int_equal(migration_resolve(a.migration, RESOLVE_ASK, NULL), 0);
    assert_moved();
}

/* GO arrives, and the source hears PREPARED once more for an answer: it must not wait for ever, nor be deaf to people. */
static void a_doubled_prepared_is_no_answer_to_go(void **state)
{
    (void)state;
    move_with_a_cut(MESSAGE_GO, CUT_BEFORE);
    wait_for_state(&a, MIGRATION_UNRESOLVED);
    proxy.twice = MESSAGE_PREPARED;
    assert_int_equal(migration_resolve(a.migration, RESOLVE_ASK, NULL), 0);
    wait_for_runner(&b);
    for (int64_t until_ns = clock_now_ns() + PATIENCE_MS * (int64_t)NS_PER_MS; !strstr(why(&a), "no answer to GO");) {
        if (clock_now_ns() > until_ns)
            fail_msg("%s", why(&a));
        sched_yield();
    }
    assert_int_equal(settled(&a), MIGRATION_UNRESOLVED);
    assert_int_equal(migration_resolve(a.migration, RESOLVE_THERE, NULL), 0);
    wait_for_state(&a, MIGRATION_COMPLETED);
    assert_false(runs(&a));
}

static void asking_somebody_who_is_gone_says_so_and_leaves_the_doubt(void **state)
{
    (void)state;
    move_with_a_cut(MESSAGE_GO, CUT_BEFORE);
    wait_for_state(&b, MIGRATION_UNRESOLVED);
    assert_int_equal(migration_resolve(b.migration, RESOLVE_THERE, NULL), 0);
    wait_for_state(&b, MIGRATION_FAILED);
    assert_non_null(strstr(why(&b), "an operator said"));
    proxy_end();
    assert_int_equal(migration_resolve(a.migration, RESOLVE_ASK, NULL), 0);
    for (int64_t until_ns = clock_now_ns() + PATIENCE_MS * (int64_t)NS_PER_MS; !strstr(why(&a), "cannot connect");) {
        if (clock_now_ns() > until_ns)
            fail_msg("%s", why(&a));
        sched_yield();
    }
    assert_int_equal(settled(&a), MIGRATION_UNRESOLVED);
    assert_false(runs(&a));
    assert_int_equal(migration_resolve(a.migration, RESOLVE_HERE, NULL), 0);
    wait_for_state(&a, MIGRATION_FAILED);
    assert_non_null(strstr(why(&a), "an operator said"));
    wait_for_runner(&a);
}

static int knock(enum message_type type, uint8_t id, uint8_t *answer, size_t answer_bytes)
{
    struct sockaddr_un to = address("there");
    struct message_key key = { .attempt = 1 };
    struct buf out = { 0 };
    memset(key.id, id, sizeof(key.id));
    message_put(&out, type, &key, NULL, 0);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    struct timeval patience = { .tv_sec = PATIENCE_MS / 1000 };
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    assert_true(forward(fd, out.data, out.size));
    buf_free(&out);
    size_t got = 0;
    for (ssize_t more; (more = read(fd, answer + got, answer_bytes - got)) > 0;)
        got += (size_t)more;
    close(fd);
    return (int)got;
}

static void a_stranger_is_sent_away_from_a_guest_that_is_held(void **state)
{
    (void)state;
    uint8_t answer[512];
    move_with_a_cut(MESSAGE_GO, CUT_BEFORE);
    wait_for_state(&b, MIGRATION_UNRESOLVED);
    static const enum message_type words[] = { MESSAGE_RESUME, MESSAGE_GO, MESSAGE_RETRACT, MESSAGE_HELLO };
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        int bytes = knock(words[i], 0x5a, answer, sizeof(answer));
        assert_true(bytes > MESSAGE_HEAD_BYTES);
        assert_int_equal(be16_get(answer + 4), MESSAGE_REFUSAL);
        assert_int_equal(settled(&b), MIGRATION_UNRESOLVED);
    }
    assert_false(runs(&b));
    assert_int_equal(migration_resolve(a.migration, RESOLVE_ASK, NULL), 0);
    assert_moved();
}

static _Atomic bool talk_ends;

/* Whole messages, one behind the other, of somebody who never listens and never stops. */
static void *talk_run(void *opaque)
{
    struct sockaddr_un to = address("there");
    struct message_key key = { .id = { 0x5a }, .attempt = 1 };
    struct buf out = { 0 };
    _Atomic bool *talks = opaque;
    for (unsigned i = 0; i < 100; i++)
        message_put(&out, MESSAGE_HELLO, &key, NULL, 0);
    while (!talk_ends) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0)
            while (forward(fd, out.data, out.size) && !talk_ends)
                *talks = true;
        close(fd);
    }
    buf_free(&out);
    return NULL;
}

static void a_stranger_who_never_stops_talking_does_not_keep_the_source_out(void **state)
{
    (void)state;
    pthread_t thread;
    _Atomic bool talks = false;
    move_with_a_cut(MESSAGE_GO, CUT_BEFORE);
    wait_for_state(&b, MIGRATION_UNRESOLVED);
    talk_ends = false;
    assert_int_equal(pthread_create(&thread, NULL, talk_run, &talks), 0);
    while (!talks)
        sched_yield();
    assert_int_equal(migration_resolve(a.migration, RESOLVE_ASK, NULL), 0);
    wait_for_runner(&b);
    talk_ends = true;
    pthread_join(thread, NULL);
    assert_moved();
}

/* The destination died, and another waits at its address: it is not disturbed by a source that looks for its guest. */
static void a_source_that_asks_a_new_destination_hears_that_it_holds_no_guest(void **state)
{
    (void)state;
    uint8_t answer[512];
    char uri[96];
    snprintf(uri, sizeof(uri), "unix:%s/there", folder);
    assert_int_equal(migration_incoming(b.migration, uri, true, NULL), 0);
    for (int i = 0; i < 2; i++) {
        assert_true(knock(MESSAGE_RESUME, 0x5a, answer, sizeof(answer)) > MESSAGE_HEAD_BYTES);
        assert_int_equal(be16_get(answer + 4), MESSAGE_REFUSAL);
    }
    assert_int_equal(machine_resume(a.machine, false, NULL), 0);
    assert_int_equal(migration_start(a.migration, uri, NULL), 0);
    assert_moved();
}

/* --- refused --------------------------------------------------------------------------------------------------------------- */

static int locked(void *opaque, struct err *err)
{
    (void)opaque;
    return err_set(err, -EBUSY, "the disk image is locked by somebody else");
}

static void assert_taken_back(void)
{
    wait_for_state(&a, MIGRATION_FAILED);
    wait_for_runner(&a);
    assert_false(runs(&b));
    assert_non_null(strstr(why(&a), "the disk image is locked by somebody else"));
    wait_for_state(&b, MIGRATION_FAILED);
    assert_non_null(strstr(why(&b), "the disk image is locked by somebody else"));
    assert_int_equal(machine_state(b.machine), RUN_INMIGRATE);
    assert_int_equal(written_down(), 0);
    bool force;
    assert_int_equal(migration_may_resume(a.migration, &force, NULL), 0);
}

static void a_guest_that_is_refused_after_go_runs_on_at_its_source(void **state)
{
    (void)state;
    migration_before_start(b.migration, locked, NULL);
    start_with_a_cut(MESSAGE_GO, CUT_BEFORE, 0);
    assert_taken_back();

    migration_before_start(b.migration, NULL, NULL); /* and may leave after all */
    char uri[96];
    snprintf(uri, sizeof(uri), "unix:%s/there", folder);
    assert_int_equal(migration_incoming(b.migration, uri, true, NULL), 0);
    assert_int_equal(migration_start(a.migration, uri, NULL), 0);
    assert_moved();
}

static void a_lost_refused_is_asked_for_again(void **state)
{
    (void)state;
    migration_before_start(b.migration, locked, NULL);
    start_with_a_cut(MESSAGE_REFUSED, CUT_BEFORE, 2);
    assert_taken_back();
    proxy_end();
    assert_int_equal(proxy.done, 2);
}

static void a_refused_guest_stays_refused_until_its_source_knows(void **state)
{
    (void)state;
    migration_before_start(b.migration, locked, NULL);
    move_with_a_cut(MESSAGE_REFUSED, CUT_BEFORE);
    wait_for_state(&a, MIGRATION_UNRESOLVED);
    wait_for_state(&b, MIGRATION_UNRESOLVED);
    assert_non_null(strstr(why(&b), "the disk image is locked by somebody else"));
    assert_int_equal(migration_resolve(b.migration, RESOLVE_HERE, NULL), -EPERM);
    assert_false(runs(&a) || runs(&b));
    assert_int_equal(written_down(), 2); /* RELEASED and REFUSED: both sides share this folder */
    assert_int_equal(migration_resolve(b.migration, RESOLVE_THERE, NULL), 0);
    wait_for_state(&b, MIGRATION_FAILED);
    assert_int_equal(migration_resolve(a.migration, RESOLVE_HERE, NULL), 0);
    wait_for_runner(&a);
    assert_false(runs(&b));
    assert_int_equal(written_down(), 0);
}

static void a_cut_off_destination_that_cannot_run_it_tells_its_source_later(void **state)
{
    (void)state;
    migration_before_start(b.migration, locked, NULL);
    move_with_a_cut(MESSAGE_GO, CUT_BEFORE);
    wait_for_state(&b, MIGRATION_UNRESOLVED);
    assert_int_equal(migration_resolve(b.migration, RESOLVE_HERE, NULL), 0);
    assert_int_equal(migration_resolve(a.migration, RESOLVE_ASK, NULL), 0);
    assert_taken_back();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_lost_go_is_sent_again_over_a_new_line),
        TEST(a_go_that_is_lost_three_times_is_sent_a_fourth),
        TEST(a_go_that_arrived_is_not_obeyed_twice),
        TEST(a_lost_running_is_asked_for_again),
        TEST(a_silent_line_is_left_for_a_new_one),
        TEST(a_swallowed_running_is_asked_for_over_a_new_line),
        TEST(an_operator_may_ask_once_more),
        TEST(a_doubled_prepared_is_no_answer_to_go),
        TEST(asking_somebody_who_is_gone_says_so_and_leaves_the_doubt),
        TEST(a_stranger_is_sent_away_from_a_guest_that_is_held),
        TEST(a_stranger_who_never_stops_talking_does_not_keep_the_source_out),
        TEST(a_source_that_asks_a_new_destination_hears_that_it_holds_no_guest),
        TEST(a_guest_that_is_refused_after_go_runs_on_at_its_source),
        TEST(a_lost_refused_is_asked_for_again),
        TEST(a_refused_guest_stays_refused_until_its_source_knows),
        TEST(a_cut_off_destination_that_cannot_run_it_tells_its_source_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
