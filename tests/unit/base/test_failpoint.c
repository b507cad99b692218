#include "tests/unit/test.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/failpoint.h"

static void refused(const char *text, const char *why)
{
    struct err err = { 0 };
    assert_int_equal(failpoint_arm(text, &err), -EINVAL);
    assert_non_null(strstr(err.text, why));
}

static void what_is_no_fault_point_is_refused_by_name(void **state)
{
    (void)state;
    refused("source-nowhere", "no fault point 'source-nowhere'");
    refused("", "no fault point ''");
    refused("source-go:0", "the time is not a number from 1 on");
    refused("source-go:3x:kill", "the time is not a number from 1 on");
    refused("source-go:explode", "'explode' is not one of kill");
    refused("source-go:1:", "'' is not one of kill");
    refused("source-go:error", "nothing can fail at source-go");
    assert_int_equal(failpoint(FAILPOINT_SOURCE_GO), 0);
}

/* How a child that arms `text` and meets the point three times ends, or is stopped. */
static int child(const char *text, enum failpoint point)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        close(STDERR_FILENO); /* it says what it does */
        if (failpoint_arm(text, NULL) < 0)
            _exit(99);
        for (int i = 0; i < 3; i++)
            if (failpoint(point) < 0)
                _exit(10 + i);
        _exit(0);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    if (WIFSTOPPED(status)) {
        int after = 0;
        kill(pid, SIGCONT);
        assert_int_equal(waitpid(pid, &after, 0), pid);
        assert_true(WIFEXITED(after) && WEXITSTATUS(after) == 0);
    }
    return status;
}

static void it_happens_the_nth_time_and_once(void **state)
{
    (void)state;
    int status = child("source-note:2:error", FAILPOINT_SOURCE_NOTE);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 11);
    status = child("source-note:4:error", FAILPOINT_SOURCE_NOTE);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    status = child("source-note:error", FAILPOINT_SOURCE_GO);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void a_process_is_killed_or_stopped_there(void **state)
{
    (void)state;
    int status = child("source-go", FAILPOINT_SOURCE_GO);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    status = child("source-go:3:kill", FAILPOINT_SOURCE_GO);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    status = child("source-go:stop", FAILPOINT_SOURCE_GO);
    assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
}

static void an_error_names_its_point(void **state)
{
    (void)state;
    struct err err = { 0 };
    assert_int_equal(failpoint_arm("target-apply:error", &err), 0);
    assert_int_equal(failpoint_err(FAILPOINT_TARGET_APPLY, &err), -EIO);
    assert_non_null(strstr(err.text, "target-apply"));
    assert_int_equal(failpoint_err(FAILPOINT_TARGET_APPLY, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_no_fault_point_is_refused_by_name),
        cmocka_unit_test(it_happens_the_nth_time_and_once),
        cmocka_unit_test(a_process_is_killed_or_stopped_there),
        cmocka_unit_test(an_error_names_its_point),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
