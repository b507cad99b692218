/* A destination that must be confined, on a host that does not have it: no stranger's guest is read, however often one calls.
 * And a plan, whose samples are the same pages again and again, sends them whole. */
#include "tests/unit/migration/two_machines.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "migration/internal.h"

static char uri[128];

/* For this process and for good: no thread of it confines itself. */
static void forbid_confinement(void)
{
    struct sock_filter rule[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_landlock_create_ruleset, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
    };
    struct sock_fprog program = { sizeof(rule) / sizeof(rule[0]), rule };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        skip();
}

static int setup(void **state)
{
    (void)state;
    if (make_both(&(struct shape){ .harts = 1, .ram_bytes = 16 * MIB }) < 0)
        return -1;
    snprintf(uri, sizeof(uri), "unix:%s/socket", folder);
    assert_int_equal(machine_resume(a.machine, false, NULL), 0);
    let_it_walk(&a);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return drop_both();
}

static struct migration_info end_of(int started, struct err *err)
{
    struct migration_info info;
    if (started < 0)
        fail_msg("%s", err->text);
    assert_true(migration_wait(a.migration, PATIENCE_MS));
    migration_query(a.migration, &info);
    return info;
}

static void a_plan_sends_its_samples_whole(void **state)
{
    struct err err = { 0 };
    (void)state;
    assert_int_equal(migration_incoming(b.migration, uri, true, &err), 0);
    struct migration_info info = end_of(migration_plan(a.migration, uri, &err), &err);
    if (info.state != MIGRATION_COMPLETED)
        fail_msg("%s: %s", migration_state_name(info.state), info.error.text);
    assert_true(info.pages_data > 0);
    assert_int_equal(info.delta_pages, 0);
}

/* Last: this process cannot take it back. */
static void who_could_not_be_confined_tries_again_with_the_next_caller(void **state)
{
    struct err err = { 0 };
    (void)state;
    forbid_confinement();
    migration_sandbox(b.migration, MIGRATION_SANDBOX_MUST);
    assert_int_equal(migration_incoming(b.migration, uri, true, &err), 0);
    struct migration_info info = end_of(migration_plan(a.migration, uri, &err), &err);
    assert_int_equal(info.state, MIGRATION_FAILED);
    info = end_of(migration_start(a.migration, uri, &err), &err);
    assert_int_equal(info.state, MIGRATION_FAILED);
    assert_non_null(strstr(info.error.text, "sandbox"));
    assert_int_equal(info.where, GUEST_HERE);
    assert_true(migration_wait(b.migration, PATIENCE_MS));
    assert_false(b.migration->confined);
    let_it_walk(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_plan_sends_its_samples_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(who_could_not_be_confined_tries_again_with_the_next_caller, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
