#include "tests/unit/test.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/thread.h"

/* Written by the thread, read after the join. */
struct seen {
    char name[16];
    bool int_blocked, usr1_blocked;
    pthread_t self;
};

static void look(void *opaque)
{
    struct seen *seen = opaque;
    sigset_t mask;
    pthread_getname_np(pthread_self(), seen->name, sizeof(seen->name));
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    seen->int_blocked = sigismember(&mask, SIGINT);
    seen->usr1_blocked = sigismember(&mask, SIGUSR1);
    seen->self = pthread_self();
}

static void a_thread_runs_under_its_name_cut_to_what_the_system_holds(void **state)
{
    (void)state;
    static const char *const names[][2] = { { "vcpu/3", "vcpu/3" },
                                            { "fifteen-letters", "fifteen-letters" },
                                            { "more-than-fifteen", "more-than-fifte" } };
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct thread thread = { 0 };
        struct seen seen = { 0 };
        assert_int_equal(thread_start(&thread, names[i][0], look, &seen, NULL), 0);
        thread_join(&thread);
        assert_string_equal(seen.name, names[i][1]);
        assert_false(pthread_equal(seen.self, pthread_self()));
    }
}

static void only_the_main_thread_takes_signals(void **state)
{
    (void)state;
    sigset_t before, after;
    struct thread thread = { 0 };
    struct seen seen = { 0 };
    pthread_sigmask(SIG_BLOCK, NULL, &before);
    assert_int_equal(thread_start(&thread, "quiet", look, &seen, NULL), 0);
    thread_join(&thread);
    pthread_sigmask(SIG_BLOCK, NULL, &after);
    assert_true(seen.int_blocked && seen.usr1_blocked);
    assert_false(sigismember(&before, SIGINT) || sigismember(&after, SIGINT));
}

static void joining_what_was_never_started_or_has_been_joined_is_nothing(void **state)
{
    (void)state;
    struct thread thread = { 0 };
    struct seen seen = { 0 };
    thread_join(&thread);
    assert_int_equal(thread_start(&thread, "once", look, &seen, NULL), 0);
    assert_true(thread.started);
    thread_join(&thread);
    assert_false(thread.started);
    thread_join(&thread);
}

static void there_is_at_least_one_cpu_and_not_more_than_the_host_has(void **state)
{
    (void)state;
    assert_in_range(thread_host_cpus(), 1, sysconf(_SC_NPROCESSORS_CONF));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_runs_under_its_name_cut_to_what_the_system_holds),
        cmocka_unit_test(only_the_main_thread_takes_signals),
        cmocka_unit_test(joining_what_was_never_started_or_has_been_joined_is_nothing),
        cmocka_unit_test(there_is_at_least_one_cpu_and_not_more_than_the_host_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
