#include "tests/unit/test.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "memory/dirty.h"

enum { PAGES = 64 * 64 * 3 + 100 }; /* a short last word under a short last summary */

static struct dirty *fresh(void)
{
    struct dirty *dirty = dirty_new(PAGES, NULL);
    assert_non_null(dirty);
    return dirty;
}

static void marks_reach_the_clients_that_track_and_no_other(void **state)
{
    (void)state;
    struct dirty *dirty = fresh();

    dirty_mark(dirty, 5);
    assert_false(dirty_tracking(dirty));
    dirty_start(dirty, DIRTY_MIGRATION, false);
    assert_true(dirty_tracking(dirty));
    assert_true(dirty_client_on(dirty, DIRTY_MIGRATION));
    assert_false(dirty_client_on(dirty, DIRTY_CODE));
    dirty_mark(dirty, 7);
    dirty_start(dirty, DIRTY_CODE, false);
    dirty_mark(dirty, PAGES - 1);
    assert_false(dirty_test(dirty, DIRTY_MIGRATION, 5));
    assert_true(dirty_test(dirty, DIRTY_MIGRATION, 7));
    assert_true(dirty_test(dirty, DIRTY_MIGRATION, PAGES - 1));
    assert_int_equal(dirty_count(dirty, DIRTY_MIGRATION), 2);
    assert_int_equal(dirty_count(dirty, DIRTY_CODE), 1);
    assert_int_equal(dirty_count(dirty, DIRTY_DISPLAY), 0);
    dirty_mark_client(dirty, DIRTY_DISPLAY, 9, 1);
    assert_int_equal(dirty_count(dirty, DIRTY_DISPLAY), 1);
    dirty_stop(dirty, DIRTY_MIGRATION);
    dirty_mark(dirty, 11);
    assert_int_equal(dirty_count(dirty, DIRTY_MIGRATION), 2);
    assert_int_equal(dirty_count(dirty, DIRTY_CODE), 2);
    dirty_stop(dirty, DIRTY_CODE);
    assert_false(dirty_tracking(dirty));
    dirty_free(dirty);
    dirty_free(NULL);
}

static void starting_marks_everything_or_nothing(void **state)
{
    (void)state;
    struct dirty *dirty = fresh();

    dirty_start(dirty, DIRTY_MIGRATION, true);
    assert_int_equal(dirty_count(dirty, DIRTY_MIGRATION), PAGES);
    uint64_t taken = 0, words = 0;
    for (uint64_t word = 0; (word = dirty_next_word(dirty, DIRTY_MIGRATION, word)) < dirty_words(dirty); words++)
        taken += (unsigned)__builtin_popcountll(dirty_take_word(dirty, DIRTY_MIGRATION, word));
    assert_int_equal(taken, PAGES);
    assert_int_equal(words, dirty_words(dirty));
    dirty_mark(dirty, 3);
    dirty_mark(dirty, 5000);
    dirty_stop(dirty, DIRTY_MIGRATION);
    dirty_start(dirty, DIRTY_MIGRATION, false); /* what the last use left behind is gone */
    assert_int_equal(dirty_count(dirty, DIRTY_MIGRATION), 0);
    assert_false(dirty_test(dirty, DIRTY_MIGRATION, 3));
    assert_int_equal(dirty_next_word(dirty, DIRTY_MIGRATION, 0), dirty_words(dirty));
    dirty_free(dirty);
}

static void a_marked_range_is_harvested_exactly_once(void **state)
{
    (void)state;
    struct dirty *dirty = fresh();
    static bool expect[PAGES], got[PAGES];

    srand(1);
    dirty_start(dirty, DIRTY_MIGRATION, false);
    for (int round = 0; round < 200; round++) {
        uint64_t page = (uint64_t)rand() % PAGES, count = (uint64_t)rand() % 300;
        if (round % 3 == 0)
            count %= 3;
        if (count > PAGES - page)
            count = PAGES - page;
        dirty_mark_range(dirty, page, count);
        for (uint64_t i = 0; i < count; i++)
            expect[page + i] = true;
        if (round % 20 != 19)
            continue;
        for (uint64_t word = 0; (word = dirty_next_word(dirty, DIRTY_MIGRATION, word)) < dirty_words(dirty);) {
            uint64_t bits = dirty_take_word(dirty, DIRTY_MIGRATION, word);
            for (; bits; bits &= bits - 1)
                got[word * 64 + (unsigned)__builtin_ctzll(bits)] = true;
        }
        assert_memory_equal(expect, got, sizeof(expect));
        memset(expect, 0, sizeof(expect));
        memset(got, 0, sizeof(got));
        assert_int_equal(dirty_count(dirty, DIRTY_MIGRATION), 0);
    }
    dirty_free(dirty);
}

static void a_mark_of_a_watched_page_is_one_for_code_too(void **state)
{
    (void)state;
    struct dirty *dirty = fresh();

    dirty_watch(dirty, 70);
    dirty_watch(dirty, 130);
    dirty_watch(dirty, 131);
    dirty_watch(dirty, PAGES - 1);
    assert_true(dirty_watched(dirty, 130));
    assert_false(dirty_watched(dirty, 129));
    assert_int_equal(dirty_count(dirty, DIRTY_CODE), 0);
    assert_false(dirty_tracking(dirty));
    dirty_mark_range(dirty, 60, 71); /* from the middle of a word, over the next one, to page 130 */
    dirty_mark(dirty, PAGES - 1);
    dirty_mark(dirty, PAGES - 2);
    assert_int_equal(dirty_take_word(dirty, DIRTY_CODE, 1), UINT64_C(1) << (70 - 64));
    assert_int_equal(dirty_take_word(dirty, DIRTY_CODE, 2), UINT64_C(1) << (130 - 128));
    assert_true(dirty_test(dirty, DIRTY_CODE, PAGES - 1));
    assert_int_equal(dirty_count(dirty, DIRTY_CODE), 1);
    assert_int_equal(dirty_count(dirty, DIRTY_MIGRATION), 0);

    dirty_unwatch(dirty, 130);
    dirty_start(dirty, DIRTY_MIGRATION, false); /* whoever else looks takes nothing from it */
    dirty_mark_range(dirty, 129, 3);
    assert_int_equal(dirty_take_word(dirty, DIRTY_CODE, 2), UINT64_C(1) << (131 - 128));
    assert_int_equal(dirty_count(dirty, DIRTY_MIGRATION), 3);
    dirty_stop(dirty, DIRTY_MIGRATION);
    dirty_free(dirty);
}

/* --- revoking: a writer that is driven by hand ---------------------------------------------------------- */

struct hand {
    struct dirty_writer writer;
    _Atomic unsigned kicks;
};

static void count_kick(void *opaque)
{
    struct hand *hand = opaque;
    atomic_fetch_add(&hand->kicks, 1);
}

static void hand_init(struct hand *hand, struct dirty *dirty)
{
    *hand = (struct hand){ .writer = { .kick = count_kick, .opaque = hand } };
    dirty_writer_register(dirty, &hand->writer);
}

static void a_revoke_is_done_when_every_writer_acknowledged(void **state)
{
    (void)state;
    struct dirty *dirty = fresh();
    struct hand a, b;

    hand_init(&a, dirty);
    hand_init(&b, dirty);
    assert_int_equal(dirty_writer_poll(dirty, &a.writer), 0);
    uint64_t token = dirty_revoke_begin(dirty);
    assert_int_equal(a.kicks, 1);
    assert_int_equal(b.kicks, 1);
    assert_int_equal(dirty_writer_poll(dirty, &a.writer), token);
    dirty_writer_ack(dirty, &a.writer, token);
    assert_false(dirty_revoke_done(dirty, token));
    assert_int_equal(dirty_writer_poll(dirty, &a.writer), 0);
    dirty_writer_ack(dirty, &b.writer, dirty_writer_poll(dirty, &b.writer));
    assert_true(dirty_revoke_done(dirty, token));
    dirty_revoke_wait(dirty, token);
    dirty_writer_unregister(dirty, &a.writer);
    dirty_writer_unregister(dirty, &b.writer);
    dirty_free(dirty);
}

static void an_older_acknowledgement_does_not_end_a_newer_revoke(void **state)
{
    (void)state;
    struct dirty *dirty = fresh();
    struct hand hand;

    hand_init(&hand, dirty);
    uint64_t first = dirty_revoke_begin(dirty);
    uint64_t seen = dirty_writer_poll(dirty, &hand.writer);
    uint64_t second = dirty_revoke_begin(dirty);
    dirty_writer_ack(dirty, &hand.writer, seen);
    assert_true(dirty_revoke_done(dirty, first));
    assert_false(dirty_revoke_done(dirty, second));
    assert_int_equal(dirty_writer_poll(dirty, &hand.writer), second);
    dirty_writer_ack(dirty, &hand.writer, second);
    assert_true(dirty_revoke_done(dirty, first));
    assert_true(dirty_revoke_done(dirty, second));
    dirty_writer_unregister(dirty, &hand.writer);
    dirty_free(dirty);
}

static void a_parked_writer_counts_but_must_poll_when_it_returns(void **state)
{
    (void)state;
    struct dirty *dirty = fresh();
    struct hand hand;

    hand_init(&hand, dirty);
    dirty_writer_park(dirty, &hand.writer);
    uint64_t token = dirty_revoke_begin(dirty);
    assert_int_equal(hand.kicks, 0);
    dirty_revoke_wait(dirty, token);
    dirty_writer_unpark(dirty, &hand.writer);
    assert_int_equal(dirty_writer_poll(dirty, &hand.writer), token);
    dirty_writer_ack(dirty, &hand.writer, token);
    uint64_t next = dirty_revoke_begin(dirty);
    assert_int_equal(hand.kicks, 1);
    assert_false(dirty_revoke_done(dirty, next));
    dirty_writer_unregister(dirty, &hand.writer);
    assert_true(dirty_revoke_done(dirty, next));
    dirty_free(dirty);
}

/* A writer that looks around at the very moment it is kicked, and answers. */
struct witness {
    struct dirty_writer writer;
    struct dirty *dirty;
    unsigned kicks;
    bool on_when_kicked;
    uint64_t count_when_kicked;
};

static void witness_kick(void *opaque)
{
    struct witness *witness = opaque;

    witness->kicks++;
    witness->on_when_kicked = dirty_client_on(witness->dirty, DIRTY_MIGRATION);
    witness->count_when_kicked = dirty_count(witness->dirty, DIRTY_MIGRATION);
    dirty_writer_ack(witness->dirty, &witness->writer, dirty_writer_poll(witness->dirty, &witness->writer));
}

static void tracking_begins_with_flag_then_revoke_then_marks(void **state)
{
    (void)state;
    struct dirty *dirty = fresh();
    struct witness witness = { .dirty = dirty, .writer = { .kick = witness_kick, .opaque = &witness } };

    dirty_writer_register(dirty, &witness.writer);
    dirty_start(dirty, DIRTY_MIGRATION, true);
    assert_int_equal(witness.kicks, 1);
    assert_true(witness.on_when_kicked);
    assert_int_equal(witness.count_when_kicked, 0);
    assert_int_equal(dirty_count(dirty, DIRTY_MIGRATION), PAGES);
    dirty_stop(dirty, DIRTY_MIGRATION);
    assert_int_equal(witness.kicks, 2);
    assert_false(witness.on_when_kicked);
    dirty_writer_unregister(dirty, &witness.writer);
    dirty_free(dirty);
}

struct waiting {
    struct dirty *dirty;
    uint64_t token;
    _Atomic bool returned;
};

static void *wait_thread(void *opaque)
{
    struct waiting *waiting = opaque;

    dirty_revoke_wait(waiting->dirty, waiting->token);
    atomic_store(&waiting->returned, true);
    return NULL;
}

enum wakeup { BY_ACK, BY_PARK, BY_UNREGISTER, WAKEUPS };

static void a_blocked_revoker_is_woken_by_ack_park_and_unregister(void **state)
{
    (void)state;
    for (int round = 0; round < 300; round++) {
        struct dirty *dirty = fresh();
        struct hand hand;
        hand_init(&hand, dirty);
        struct waiting waiting = { .dirty = dirty, .token = dirty_revoke_begin(dirty) };
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, wait_thread, &waiting), 0);
        /* At every moment of its life: before it looks, while it spins, while it sleeps. */
        for (volatile int i = 0; i < round * 1000; i = i + 1)
            ;
        assert_false(atomic_load(&waiting.returned));
        if (round % WAKEUPS == BY_ACK)
            dirty_writer_ack(dirty, &hand.writer, waiting.token);
        else if (round % WAKEUPS == BY_PARK)
            dirty_writer_park(dirty, &hand.writer);
        else
            dirty_writer_unregister(dirty, &hand.writer);
        pthread_join(thread, NULL);
        if (round % WAKEUPS != BY_UNREGISTER)
            dirty_writer_unregister(dirty, &hand.writer);
        dirty_free(dirty);
    }
}

/* --- what must not happen: in a child, which has to die of SIGABRT -------------------------------------- */

static void child_must_abort(void (*misuse)(struct dirty *dirty))
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        if (!freopen("/dev/null", "w", stderr))
            _exit(2);
        misuse(fresh());
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

static void mark_sealed(struct dirty *dirty)
{
    dirty_seal(dirty);
    dirty_mark(dirty, 1);
}

static void mark_outside(struct dirty *dirty)
{
    dirty_mark(dirty, PAGES);
}

static void start_twice(struct dirty *dirty)
{
    dirty_start(dirty, DIRTY_CODE, false);
    dirty_start(dirty, DIRTY_CODE, false);
}

static void a_mark_in_sealed_ram_is_a_bug(void **state)
{
    (void)state;
    struct dirty *dirty = fresh();

    child_must_abort(mark_sealed);
    child_must_abort(mark_outside);
    child_must_abort(start_twice);
    dirty_start(dirty, DIRTY_MIGRATION, false);
    dirty_seal(dirty);
    dirty_unseal(dirty);
    dirty_mark(dirty, 1);
    assert_int_equal(dirty_count(dirty, DIRTY_MIGRATION), 1);
    dirty_free(dirty);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks_reach_the_clients_that_track_and_no_other),
        cmocka_unit_test(starting_marks_everything_or_nothing),
        cmocka_unit_test(a_marked_range_is_harvested_exactly_once),
        cmocka_unit_test(a_mark_of_a_watched_page_is_one_for_code_too),
        cmocka_unit_test(a_revoke_is_done_when_every_writer_acknowledged),
        cmocka_unit_test(an_older_acknowledgement_does_not_end_a_newer_revoke),
        cmocka_unit_test(a_parked_writer_counts_but_must_poll_when_it_returns),
        cmocka_unit_test(tracking_begins_with_flag_then_revoke_then_marks),
        cmocka_unit_test(a_blocked_revoker_is_woken_by_ack_park_and_unregister),
        cmocka_unit_test(a_mark_in_sealed_ram_is_a_bug),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
