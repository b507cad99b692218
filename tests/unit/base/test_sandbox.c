/* From within a sandbox: what was given up is refused, what is needed still works, and the thread beside it is free. */
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/sandbox.h"
#include "base/thread.h"

/* What a thread found, each 0 or an errno. */
struct tried {
    enum sandbox_kind kind;
    struct sandbox_kept kept;
    int entered; /* -errno */
    int read_file, write_file, write_kept_file, write_in_folder, remove_in_folder;
    int remove_elsewhere, run_program, make_process, make_socket, trace, signal_other, signal_self, start_thread,
        memory;
};

static char folder[] = "/tmp/godwit-test-XXXXXX", kept_file[] = "/tmp/godwit-test-XXXXXX";
static pid_t parent;

static int code_of(int fd)
{
    int code = fd < 0 ? errno : 0;
    if (fd >= 0)
        close(fd);
    return code;
}

static int try_process(void)
{
    pid_t child = fork();
    if (child < 0)
        return errno;
    if (child == 0)
        _exit(0);
    waitpid(child, NULL, 0);
    return 0;
}

static void nothing(void *opaque)
{
    *(int *)opaque = 1;
}

static int try_thread(void)
{
    struct thread thread = { 0 };
    struct err err = { 0 };
    int ran = 0;
    int result = thread_start(&thread, "within", nothing, &ran, &err);
    thread_join(&thread);
    return result < 0 ? -result : ran ? 0 : EINVAL;
}

static int try_memory(void)
{
    size_t bytes = 64 << 20;
    char *memory = malloc(bytes);
    if (!memory)
        return ENOMEM;
    memset(memory, 1, bytes);
    free(memory);
    return 0;
}

static void try_all(void *opaque)
{
    struct tried *t = opaque;
    struct err err = { 0 };
    char path[64], other[64];
    snprintf(path, sizeof(path), "%s/note", folder);
    snprintf(other, sizeof(other), "%s-elsewhere", folder);
    t->entered = sandbox_enter(t->kind, &t->kept, &err);
    t->read_file = code_of(open("/etc/passwd", O_RDONLY | O_CLOEXEC));
    t->write_file = code_of(open(other, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    t->write_kept_file = code_of(open(kept_file, O_RDWR | O_CLOEXEC));
    t->write_in_folder = code_of(open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    t->remove_in_folder = unlink(path) < 0 ? errno : 0;
    char *const none[] = { NULL };
    t->run_program = execve("/nonexistent", none, none) < 0 ? errno : 0;
    t->make_process = try_process();
    t->make_socket = code_of(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    t->trace = ptrace(PTRACE_PEEKDATA, parent, NULL, NULL) < 0 ? errno : 0;
    t->signal_other = kill(parent, 0) < 0 ? errno : 0;
    t->signal_self = kill(getpid(), 0) < 0 ? errno : 0;
    t->start_thread = try_thread();
    t->memory = try_memory();
    unlink(other);
}

static void try_within(struct tried *t)
{
    struct thread thread = { 0 };
    struct err err = { 0 };
    assert_int_equal(thread_start(&thread, "sandboxed", try_all, t, &err), 0);
    thread_join(&thread);
    if (t->entered == -ENOSYS || t->entered == -EOPNOTSUPP || t->entered == -EPERM)
        skip(); /* not on this host */
    assert_int_equal(t->entered, 0);
}

static struct tried within(enum sandbox_kind kind, const char *folder_kept)
{
    struct tried t = { .kind = kind, .kept = { .folder = folder_kept } };
    try_within(&t);
    return t;
}

static void check_common(const struct tried *t)
{
    assert_int_equal(t->read_file, t->kind == SANDBOX_WORKER ? EPERM : EACCES);
    assert_int_equal(t->write_file, t->kind == SANDBOX_WORKER ? EPERM : EACCES);
    assert_int_equal(t->run_program, EPERM); /* and not ENOENT */
    assert_int_equal(t->make_process, EPERM);
    assert_int_equal(t->make_socket, EPERM);
    assert_int_equal(t->trace, EPERM);
    assert_int_equal(t->signal_other, EPERM);
    assert_int_equal(t->signal_self, 0);
    assert_int_equal(t->start_thread, 0);
    assert_int_equal(t->memory, 0);
}

static void a_reader_has_one_folder_and_no_way_out(void **state)
{
    (void)state;
    struct tried t = within(SANDBOX_READER, folder);
    check_common(&t);
    assert_int_equal(t.write_in_folder, 0);
    assert_int_equal(t.remove_in_folder, 0);
}

static void a_reader_without_a_folder_has_no_files(void **state)
{
    (void)state;
    struct tried t = within(SANDBOX_READER, NULL);
    check_common(&t);
    assert_int_equal(t.write_in_folder, EACCES);
    assert_int_equal(t.write_kept_file, EACCES);
}

static void a_reader_keeps_the_files_that_it_names(void **state)
{
    (void)state;
    struct tried t = { .kind = SANDBOX_READER, .kept = { .file = { kept_file, "/nonexistent" }, .files = 2 } };
    try_within(&t);
    check_common(&t);
    assert_int_equal(t.write_kept_file, 0);
    assert_int_equal(t.write_in_folder, EACCES);
}

static void a_worker_has_no_files(void **state)
{
    (void)state;
    struct tried t = within(SANDBOX_WORKER, NULL);
    check_common(&t);
    assert_int_equal(t.write_in_folder, EPERM);
}

static void threads_beside_it_are_free(void **state)
{
    (void)state;
    within(SANDBOX_WORKER, NULL);
    assert_int_equal(code_of(open("/etc/passwd", O_RDONLY | O_CLOEXEC)), 0);
    assert_int_equal(code_of(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)), 0);
    assert_int_equal(try_process(), 0);
}

static int setup(void **state)
{
    (void)state;
    parent = getppid();
    int fd = mkstemp(kept_file);
    close(fd);
    return fd >= 0 && mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return unlink(kept_file) | rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reader_has_one_folder_and_no_way_out),
        cmocka_unit_test(a_reader_without_a_folder_has_no_files),
        cmocka_unit_test(a_reader_keeps_the_files_that_it_names),
        cmocka_unit_test(a_worker_has_no_files),
        cmocka_unit_test(threads_beside_it_are_free),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
