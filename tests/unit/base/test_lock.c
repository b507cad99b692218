#include "tests/unit/test.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/lock.h"
#include "base/thread.h"

enum { WORKERS = 4, ROUNDS = 5000 };

/* --- what is asserted ----------------------------------------------------------------------------------- */

/* Runs `misuse` in a process of its own: true when an assert ended it. */
static bool is_caught(void (*misuse)(void))
{
    pid_t pid = fork();
    if (pid == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
        signal(SIGABRT, SIG_DFL); /* cmocka catches it otherwise */
        dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
        misuse();
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static struct lock low, high, other_high;

static void locks_init(void)
{
    lock_init(&low, LOCK_DEVICE);
    lock_init(&high, LOCK_QUEUE);
    lock_init(&other_high, LOCK_QUEUE);
}

static void in_rank_order(void)
{
    locks_init();
    lock(&low);
    lock(&high);
    unlock(&low); /* any order of unlocking will do */
    unlock(&high);
    lock(&low);
    lock(&other_high);
    unlock(&other_high);
    unlock(&low);
}

static void against_the_rank(void)
{
    locks_init();
    lock(&high);
    lock(&low);
}

static void two_of_one_rank(void)
{
    locks_init();
    lock(&high);
    lock(&other_high);
}

static void twice(void)
{
    locks_init();
    lock(&low);
    lock(&low);
}

static void unlock_what_is_free(void)
{
    locks_init();
    unlock(&low);
}

static void destroy_what_is_held(void)
{
    locks_init();
    lock(&low);
    lock_destroy(&low);
}

static void wait_without_the_lock(void)
{
    struct cond cond;
    locks_init();
    cond_init(&cond);
    cond_wait_until(&cond, &low, 0);
}

static void against_the_rank_after_a_wait(void)
{
    struct cond cond;
    locks_init();
    cond_init(&cond);
    lock(&high);
    cond_wait_until(&cond, &high, 0);
    lock(&low);
}

static void unlock_for_somebody(void *opaque)
{
    (void)opaque;
    unlock(&low);
}

static void unlock_what_another_holds(void)
{
    struct thread thread = { 0 };
    locks_init();
    lock(&low);
    thread_start(&thread, "stranger", unlock_for_somebody, NULL, NULL);
    thread_join(&thread);
}

static void misuse_is_caught_and_use_is_not(void **state)
{
    (void)state;
    assert_false(is_caught(in_rank_order));
    assert_true(is_caught(against_the_rank));
    assert_true(is_caught(two_of_one_rank));
    assert_true(is_caught(twice));
    assert_true(is_caught(unlock_what_is_free));
    assert_true(is_caught(unlock_what_another_holds));
    assert_true(is_caught(destroy_what_is_held));
    assert_true(is_caught(wait_without_the_lock));
    assert_true(is_caught(against_the_rank_after_a_wait));
}

/* --- what it does ----------------------------------------------------------------------------------------- */

struct shared {
    struct lock lock;
    struct cond cond;
    /* under lock */
    uint64_t count;
    unsigned waiting, woken;
    bool go;
    bool held_elsewhere, held_here;
};

static void shared_init(struct shared *shared)
{
    *shared = (struct shared){ 0 };
    lock_init(&shared->lock, LOCK_LEAF);
    cond_init(&shared->cond);
}

static void shared_destroy(struct shared *shared)
{
    cond_destroy(&shared->cond);
    lock_destroy(&shared->lock);
}

static void in_threads(unsigned count, struct thread *thread, void (*run)(void *opaque), void *opaque)
{
    for (unsigned i = 0; i < count; i++) {
        thread[i] = (struct thread){ 0 };
        assert_int_equal(thread_start(&thread[i], "worker", run, opaque, NULL), 0);
    }
}

static void join_all(unsigned count, struct thread *thread)
{
    for (unsigned i = 0; i < count; i++)
        thread_join(&thread[i]);
}

static void count_up(void *opaque)
{
    struct shared *shared = opaque;
    for (unsigned i = 0; i < ROUNDS; i++) {
        lock(&shared->lock);
        shared->count++;
        unlock(&shared->lock);
    }
}

static void one_thread_at_a_time_is_inside(void **state)
{
    (void)state;
    struct shared shared;
    struct thread thread[WORKERS];
    shared_init(&shared);
    in_threads(WORKERS, thread, count_up, &shared);
    join_all(WORKERS, thread);
    assert_true(shared.count == (uint64_t)WORKERS * ROUNDS);
    shared_destroy(&shared);
}

static void ask_who_holds(void *opaque)
{
    struct shared *shared = opaque;
    shared->held_elsewhere = lock_held(&shared->lock);
}

static void a_lock_knows_its_holder(void **state)
{
    (void)state;
    struct shared shared;
    struct thread thread[1];
    shared_init(&shared);
    assert_false(lock_held(&shared.lock));
    lock(&shared.lock);
    assert_true(lock_held(&shared.lock));
    in_threads(1, thread, ask_who_holds, &shared);
    join_all(1, thread);
    assert_false(shared.held_elsewhere);
    unlock(&shared.lock);
    assert_false(lock_held(&shared.lock));
    shared_destroy(&shared);
}

static void wait_for_go(void *opaque)
{
    struct shared *shared = opaque;
    lock(&shared->lock);
    shared->waiting++;
    cond_broadcast(&shared->cond);
    while (!shared->go)
        cond_wait(&shared->cond, &shared->lock);
    shared->woken++;
    shared->held_here = lock_held(&shared->lock);
    unlock(&shared->lock);
}

static void a_broadcast_wakes_all_and_each_holds_the_lock(void **state)
{
    (void)state;
    struct shared shared;
    struct thread thread[WORKERS];
    shared_init(&shared);
    in_threads(WORKERS, thread, wait_for_go, &shared);
    lock(&shared.lock);
    while (shared.waiting < WORKERS) /* waiting gives the lock away, or nobody could count */
        cond_wait(&shared.cond, &shared.lock);
    shared.go = true;
    cond_broadcast(&shared.cond);
    unlock(&shared.lock);
    join_all(WORKERS, thread);
    assert_int_equal(shared.woken, WORKERS);
    assert_true(shared.held_here);
    shared_destroy(&shared);
}

static void a_wait_ends_at_its_deadline_and_says_so(void **state)
{
    (void)state;
    struct shared shared;
    shared_init(&shared);
    lock(&shared.lock);
    int64_t deadline_ns = clock_now_ns() + 2 * NS_PER_MS;
    while (cond_wait_until(&shared.cond, &shared.lock, deadline_ns))
        ; /* woken for nothing, which conditions may be */
    assert_true(clock_now_ns() >= deadline_ns);
    assert_false(cond_wait_until(&shared.cond, &shared.lock, 0));
    assert_true(lock_held(&shared.lock));
    unlock(&shared.lock);
    shared_destroy(&shared);
}

static void a_wait_that_is_signalled_ends_before_its_deadline(void **state)
{
    (void)state;
    struct shared shared;
    struct thread thread[1];
    bool in_time = true;
    shared_init(&shared);
    lock(&shared.lock);
    in_threads(1, thread, wait_for_go, &shared);
    while (shared.waiting == 0 && in_time)
        in_time = cond_wait_until(&shared.cond, &shared.lock, clock_now_ns() + 600 * NS_PER_S);
    shared.go = true;
    cond_signal(&shared.cond);
    unlock(&shared.lock);
    join_all(1, thread);
    assert_true(in_time);
    shared_destroy(&shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(misuse_is_caught_and_use_is_not),
        cmocka_unit_test(one_thread_at_a_time_is_inside),
        cmocka_unit_test(a_lock_knows_its_holder),
        cmocka_unit_test(a_broadcast_wakes_all_and_each_holds_the_lock),
        cmocka_unit_test(a_wait_ends_at_its_deadline_and_says_so),
        cmocka_unit_test(a_wait_that_is_signalled_ends_before_its_deadline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
