#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>
#include <uv.h>

#include "base/chardev.h"
#include "base/thread.h"

enum { TURNS_MAX = 20000 };

static char folder[] = "/tmp/godwit-test-XXXXXX";
static uv_loop_t loop;

struct user {
    char text[256 * 1024];
    size_t bytes, room;
    int opened, closed, writable;
};

static size_t user_can_receive(void *opaque)
{
    return ((struct user *)opaque)->room;
}

static void user_receive(void *opaque, const uint8_t *data, size_t bytes)
{
    struct user *user = opaque;
    assert_true(bytes > 0 && bytes <= user->room && user->bytes + bytes < sizeof user->text);
    memcpy(user->text + user->bytes, data, bytes);
    user->bytes += bytes;
    user->room -= bytes;
    user->text[user->bytes] = '\0';
}

static void user_opened(void *opaque, bool open)
{
    struct user *user = opaque;
    open ? user->opened++ : user->closed++;
}

static void user_writable(void *opaque)
{
    ((struct user *)opaque)->writable++;
}

static const struct chardev_client client = { user_can_receive, user_receive, user_writable, user_opened };

static struct user *user_new(void)
{
    struct user *user = calloc(1, sizeof *user);
    user->room = sizeof user->text - 1;
    return user;
}

/* Turn the loop until the condition holds; false when it never did. */
#define turn_until(condition)                                                                                          \
    ({                                                                                                                 \
        bool met_;                                                                                                     \
        for (int turns_ = 0; !(met_ = (condition)) && turns_ < TURNS_MAX; turns_++) {                                  \
            uv_run(&loop, UV_RUN_NOWAIT);                                                                              \
            poll(NULL, 0, turns_ < 100 ? 0 : 1);                                                                       \
        }                                                                                                              \
        met_;                                                                                                          \
    })

static struct chardev *open_ok(const char *spec)
{
    struct chardev *chardev;
    struct err err = { 0 };
    int rc = chardev_open("c0", spec, &loop, &chardev, &err);
    if (rc < 0)
        fail_msg("%s: %s", spec, err.text);
    return chardev;
}

static void assert_refused(const char *spec, int code, const char *why)
{
    struct chardev *chardev;
    struct err err = { 0 };
    int rc = chardev_open("c0", spec, &loop, &chardev, &err);
    if (rc >= 0 || rc != code || !strstr(err.text, why))
        fail_msg("%s: %d '%s', not %d '%s'", spec, rc, err.text, code, why);
}

static const char *path_of(const char *name)
{
    static _Thread_local char path[100];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static const char *spec_of(const char *format, const char *name)
{
    static _Thread_local char spec[256];
    snprintf(spec, sizeof spec, format, path_of(name));
    return spec;
}

static int dial(const char *name)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path_of(name));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        close(fd);
        return -errno;
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

/* --- specifications ------------------------------------------------------------------------------------- */

static void a_bad_specification_is_named(void **state)
{
    (void)state;
    assert_refused("telepathy", -EINVAL, "telepathy");
    assert_refused("tcp:localhost", -EINVAL, "no port");
    assert_refused("unix:", -EINVAL, "neither a path");
    assert_refused("socket,server=on", -EINVAL, "neither a path");
    assert_refused("socket,host=localhost", -EINVAL, "no port");
    assert_refused("socket,path=/x,port=1", -EINVAL, "both");
    assert_refused("null,server=on", -EINVAL, "server");
    assert_refused("unix:/x,server=maybe", -EINVAL, "maybe");
    assert_refused("unix:/x,telnet=on", -EINVAL, "telnet");
    assert_refused("file,append=on", -EINVAL, "no path");
    assert_refused("file:/nonexistent/x", -ENOENT, "/nonexistent/x");
    assert_refused("unix:/nonexistent/x", -ENOENT, "/nonexistent/x");
    char deep[300] = "unix:/";
    memset(deep + 6, 'x', 150);
    strcpy(deep + 156, ",server=on,wait=off");
    assert_refused(deep, -ENAMETOOLONG, "longer than 107");
}

static void a_mux_is_asked_for_in_two_ways(void **state)
{
    (void)state;
    assert_true(chardev_spec_mux("mon:stdio"));
    assert_true(chardev_spec_mux("socket,path=/x,server=on,mux=on"));
    assert_false(chardev_spec_mux("stdio"));
    assert_false(chardev_spec_mux("stdio,mux=off"));
}

static void a_doubled_comma_is_one_in_the_path(void **state)
{
    (void)state;
    struct chardev *chardev = open_ok(spec_of("file,path=%s/../a,,b", "."));
    assert_non_null(strstr(chardev_describe(chardev), "/a,b"));
    chardev_free(chardev);
    unlink(path_of("a,b"));
}

/* --- files and null ------------------------------------------------------------------------------------- */

static void null_swallows_everything(void **state)
{
    (void)state;
    struct chardev *chardev = open_ok("null");
    assert_false(chardev_is_open(chardev));
    assert_int_equal(chardev_write(chardev, "abc", 3), 3);
    assert_string_equal(chardev_describe(chardev), "null");
    assert_string_equal(chardev_id(chardev), "c0");
    chardev_free(chardev);
    chardev_free(NULL);
}

static void assert_file(const char *name, const char *expected)
{
    char text[64] = "";
    FILE *file = fopen(path_of(name), "r");
    assert_non_null(file);
    size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[n] = '\0';
    assert_string_equal(text, expected);
}

static void a_file_gets_what_is_written_and_starts_anew_unless_appended(void **state)
{
    (void)state;
    static const char *const specs[] = { "file:%s", "file,path=%s,append=on", "file:%s" };
    static const char *const after[] = { "abc", "abcabc", "abc" };
    for (int i = 0; i < 3; i++) {
        struct chardev *chardev = open_ok(spec_of(specs[i], "out"));
        assert_int_equal(chardev_write(chardev, "abc", 3), 3);
        assert_file("out", after[i]);
        chardev_free(chardev);
    }
}

/* --- sockets -------------------------------------------------------------------------------------------- */

static void a_server_serves_one_peer_after_the_other(void **state)
{
    (void)state;
    struct user *user = user_new();
    struct chardev *chardev = open_ok(spec_of("unix:%s,server=on,wait=off", "sock"));
    chardev_attach(chardev, &client, user);
    assert_false(chardev_is_open(chardev));
    assert_int_equal(chardev_write(chardev, "lost", 4), 4); /* nobody there: swallowed */
    for (int round = 1; round <= 3; round++) {
        char got[16] = "";
        int fd = dial("sock"), second = dial("sock");
        assert_true(fd >= 0 && second >= 0);
        assert_true(turn_until(user->opened == 2 * round - 1));
        assert_int_equal(write(fd, "hello", 5), 5);
        assert_true(turn_until(user->bytes == 5));
        assert_string_equal(user->text, "hello");
        user->bytes = 0;
        assert_int_equal(chardev_write(chardev, "world", 5), 5);
        assert_int_equal(read(fd, got, sizeof got), 5);
        assert_int_equal(read(second, got, sizeof got), -1); /* still in the backlog */
        close(fd);
        assert_true(turn_until(user->opened == 2 * round));
        assert_int_equal(user->closed, 2 * round - 1);
        assert_int_equal(chardev_write(chardev, "next", 4), 4);
        assert_int_equal(read(second, got, sizeof got), 4);
        assert_memory_equal(got, "next", 4);
        close(second);
        assert_true(turn_until(user->closed == 2 * round));
    }
    chardev_free(chardev);
    assert_int_equal(access(path_of("sock"), F_OK), -1);
    free(user);
}

static void what_a_peer_said_before_it_left_is_heard(void **state)
{
    (void)state;
    struct user *user = user_new();
    user->room = 0;
    struct chardev *chardev = open_ok(spec_of("unix:%s,server,nowait", "sock"));
    chardev_attach(chardev, &client, user);
    int fd = dial("sock");
    assert_int_equal(write(fd, "last words", 10), 10);
    assert_true(turn_until(user->opened == 1));
    close(fd);
    for (int i = 0; i < 20; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    assert_int_equal(user->bytes, 0); /* no room, nothing delivered */
    assert_int_equal(user->closed, 0);
    chardev_write(chardev, "x", 1); /* fails, and must not lose the input */
    user->room = 4;
    chardev_accept_input(chardev);
    assert_true(turn_until(user->bytes == 4));
    user->room = 100;
    chardev_accept_input(chardev);
    assert_true(turn_until(user->closed == 1));
    assert_string_equal(user->text, "last words");
    chardev_free(chardev);
    free(user);
}

static void a_slow_reader_fills_the_queue_and_is_told_apart_when_it_empties(void **state)
{
    (void)state;
    struct user *user = user_new();
    struct chardev *chardev = open_ok(spec_of("unix:%s,server=on,wait=off", "sock"));
    chardev_attach(chardev, &client, user);
    int fd = dial("sock");
    assert_true(turn_until(user->opened == 1));
    static uint8_t block[4096];
    size_t written = 0, taken;
    while ((taken = chardev_write(chardev, block, sizeof block)) == sizeof block) {
        written += taken;
        for (size_t i = 0; i < sizeof block; i++)
            block[i] = (uint8_t)((written + i) * 7 >> 3);
        assert_true(written < 64 * 1024 * 1024);
    }
    written += taken;
    assert_int_equal(chardev_write(chardev, block, 1), 0); /* full is full */
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_int_equal(user->writable, 0);
    size_t got = 0;
    bool good = true;
    assert_true(turn_until(({
        static uint8_t in[65536];
        ssize_t n = read(fd, in, sizeof in);
        for (ssize_t i = 0; i < n; i++, got++)
            good &= got < sizeof block ? in[i] == 0 : in[i] == (uint8_t)(got * 7 >> 3);
        got == written;
    })));
    assert_true(good);
    assert_int_equal(user->writable, 1);
    assert_int_equal(chardev_write(chardev, block, 1), 1);
    close(fd);
    chardev_free(chardev);
    free(user);
}

struct writer {
    struct chardev *chardev;
    uint8_t mark;
    size_t left;
    struct thread thread;
};

static void writer_run(void *opaque)
{
    struct writer *writer = opaque;
    uint8_t record[16];
    memset(record, writer->mark, sizeof record);
    while (writer->left > 0)
        writer->left -= chardev_write(writer->chardev, record, sizeof record) == sizeof record ? 1 : 0;
}

/* A record that does not fit is taken in part, so each writer here keeps within the queue. */
static void many_threads_write_and_nothing_is_torn_or_lost(void **state)
{
    (void)state;
    enum { WRITERS = 4, RECORDS = 500 };
    struct user *user = user_new();
    struct chardev *chardev = open_ok(spec_of("unix:%s,server=on,wait=off", "sock"));
    chardev_attach(chardev, &client, user);
    int fd = dial("sock");
    assert_true(turn_until(user->opened == 1));
    struct writer writers[WRITERS];
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){ .chardev = chardev, .mark = (uint8_t)('a' + i), .left = RECORDS };
        assert_int_equal(thread_start(&writers[i].thread, "writer", writer_run, &writers[i], NULL), 0);
    }
    size_t got = 0, seen[WRITERS] = { 0 };
    static uint8_t all[WRITERS * RECORDS * 16];
    assert_true(turn_until(({
        ssize_t n = read(fd, all + got, sizeof all - got);
        got += n > 0 ? (size_t)n : 0;
        got == sizeof all;
    })));
    for (int i = 0; i < WRITERS; i++)
        thread_join(&writers[i].thread);
    for (size_t at = 0; at < sizeof all; at += 16) {
        for (int i = 1; i < 16; i++)
            assert_int_equal(all[at], all[at + (size_t)i]);
        seen[all[at] - 'a']++;
    }
    for (int i = 0; i < WRITERS; i++)
        assert_int_equal(seen[i], RECORDS);
    close(fd);
    chardev_free(chardev);
    free(user);
}

static void a_stale_path_is_taken_over_and_a_live_one_is_not(void **state)
{
    (void)state;
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path_of("sock"));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_refused(spec_of("unix:%s,server=on,wait=off", "sock"), -EADDRINUSE, "in use");
    close(fd);
    chardev_free(open_ok(spec_of("unix:%s,server=on,wait=off", "sock")));
    close(open(path_of("plain"), O_CREAT | O_WRONLY, 0600));
    assert_refused(spec_of("unix:%s,server=on,wait=off", "plain"), -EADDRINUSE, "not a socket");
    assert_int_equal(access(path_of("plain"), F_OK), 0);
}

static void other_hosts_come_only_when_that_was_said(void **state)
{
    (void)state;
    assert_refused("tcp:0.0.0.0:0,server=on,wait=off", -EPERM, "insecure=on");
    assert_refused("tcp::0,server=on,wait=off", -EPERM, "insecure=on");
    assert_refused("socket,host=::,port=0,server=on,wait=off", -EPERM, "insecure=on");
    assert_refused("tcp:0.0.0.0:0,server=on,wait=off,insecure=off", -EPERM, "insecure=on");
    chardev_free(open_ok("tcp:0.0.0.0:0,server=on,wait=off,insecure=on"));
    chardev_free(open_ok("tcp:127.0.0.1:0,server=on,wait=off"));

    assert_true(chardev_spec_exposed("tcp:127.0.0.1:0,server=on,wait=off"));
    assert_false(chardev_spec_exposed("tcp:127.0.0.1:0,server=on,wait=off,insecure=on"));
    assert_false(chardev_spec_exposed("tcp:127.0.0.1:1"));
    assert_false(chardev_spec_exposed("unix:/x,server=on"));
}

static void a_socket_in_the_file_system_is_its_owner_s_alone(void **state)
{
    (void)state;
    struct stat stat;
    mode_t mask = umask(0);
    struct chardev *server = open_ok(spec_of("unix:%s,server=on,wait=off", "closed"));
    umask(mask);
    assert_int_equal(lstat(path_of("closed"), &stat), 0);
    assert_int_equal(stat.st_mode & 07777, 0600);
    chardev_free(server);
}

static void tcp_tells_its_port_and_a_client_connects(void **state)
{
    (void)state;
    struct user *a = user_new(), *b = user_new();
    struct chardev *server = open_ok("tcp:127.0.0.1:0,server=on,wait=off");
    int port;
    char spec[64];
    assert_int_equal(sscanf(chardev_describe(server), "tcp:127.0.0.1:%d,server=on", &port), 1);
    assert_true(port > 0);
    snprintf(spec, sizeof spec, "socket,host=127.0.0.1,port=%d", port);
    struct chardev *other = open_ok(spec);
    chardev_attach(server, &client, a);
    chardev_attach(other, &client, b);
    assert_int_equal(b->opened, 1); /* it was there already */
    assert_true(turn_until(a->opened == 1));
    chardev_write(other, "ping", 4);
    assert_true(turn_until(a->bytes == 4));
    chardev_write(server, "pong!", 5);
    assert_true(turn_until(b->bytes == 5));
    chardev_free(server);
    assert_true(turn_until(b->closed == 1));
    assert_false(chardev_is_open(other));
    chardev_free(other);
    assert_refused(spec, -ECONNREFUSED, "cannot connect");
    free(a);
    free(b);
}

static void dial_later(void *opaque)
{
    int fd;
    while ((fd = dial("sock")) < 0)
        poll(NULL, 0, 1);
    *(int *)opaque = fd;
}

static void wait_on_holds_open_until_somebody_connects(void **state)
{
    (void)state;
    int fd = -1;
    struct thread thread = { 0 };
    unlink(path_of("sock"));
    assert_int_equal(thread_start(&thread, "dial", dial_later, &fd, NULL), 0);
    struct chardev *chardev = open_ok(spec_of("unix:%s,server=on", "sock"));
    assert_true(chardev_is_open(chardev));
    thread_join(&thread);
    close(fd);
    chardev_free(chardev);
}

/* --- terminals ------------------------------------------------------------------------------------------ */

static void a_pty_is_open_while_somebody_has_it_open(void **state)
{
    (void)state;
    struct user *user = user_new();
    struct chardev *chardev = open_ok("pty");
    chardev_attach(chardev, &client, user);
    assert_int_equal(strncmp(chardev_describe(chardev), "pty:/dev/", 9), 0);
    assert_int_equal(chardev_write(chardev, "lost", 4), 4);
    for (int round = 1; round <= 2; round++) {
        char got[8] = "";
        int fd = open(chardev_describe(chardev) + 4, O_RDWR | O_NOCTTY | O_NONBLOCK);
        assert_true(fd >= 0);
        assert_true(turn_until(user->opened == round));
        assert_int_equal(write(fd, "in\r", 3), 3);
        assert_true(turn_until(user->bytes == 3));
        assert_string_equal(user->text, "in\r"); /* raw: nothing was translated */
        user->bytes = 0;
        chardev_write(chardev, "out", 3);
        assert_true(turn_until(read(fd, got, sizeof got) == 3));
        assert_string_equal(got, "out");
        close(fd);
        assert_true(turn_until(user->closed == round));
    }
    chardev_free(chardev);
    free(user);
}

/* Standard input and output replaced for the length of one test. */
static struct {
    int saved[2];
} std;

static void std_replace(int in, int out)
{
    fflush(stdout);
    for (int fd = 0; fd < 2; fd++)
        std.saved[fd] = dup(fd);
    dup2(in, 0);
    dup2(out, 1);
}

static void std_restore(void)
{
    for (int fd = 0; fd < 2; fd++) {
        dup2(std.saved[fd], fd);
        close(std.saved[fd]);
    }
}

static void stdio_reads_pipes_and_files_to_their_end_and_goes_on_writing(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        struct user *user = user_new();
        int in[2], out[2];
        assert_int_equal(pipe(in), 0);
        assert_int_equal(pipe(out), 0);
        if (kind == 1) {
            close(in[0]);
            close(in[1]);
            in[1] = open(path_of("input"), O_CREAT | O_TRUNC | O_WRONLY, 0600);
            in[0] = open(path_of("input"), O_RDONLY);
        }
        assert_int_equal(write(in[1], "typed", 5), 5);
        close(in[1]);
        std_replace(in[0], out[1]);
        struct chardev *chardev = open_ok("stdio"), *second;
        struct err err = { 0 };
        int rc = chardev_open(NULL, "stdio", &loop, &second, &err);
        chardev_attach(chardev, &client, user);
        bool heard = turn_until(user->bytes == 5);
        uv_run(&loop, UV_RUN_NOWAIT);
        size_t taken = chardev_write(chardev, "shown", 5);
        chardev_free(chardev);
        std_restore();
        char got[8] = "";
        assert_int_equal(rc, -EBUSY);
        assert_true(heard && taken == 5);
        assert_string_equal(user->text, "typed");
        assert_int_equal(read(out[0], got, sizeof got), 5);
        assert_int_equal(fcntl(out[1], F_GETFL) & O_NONBLOCK, 0); /* the shell's description is as it was */
        close(in[0]);
        close(out[0]);
        close(out[1]);
        free(user);
    }
}

static void a_terminal_is_raw_while_open_and_given_back(void **state)
{
    (void)state;
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    int tty = open(ptsname(master), O_RDWR | O_NOCTTY);
    struct termios before = { 0 }, during, muxed, after = { 0 };
    tcgetattr(tty, &before);
    std_replace(tty, tty);
    struct chardev *chardev = open_ok("stdio"), *serial, *monitor;
    tcgetattr(tty, &during);
    int rc = chardev_mux(chardev, NULL, NULL, &serial, &monitor, NULL);
    tcgetattr(tty, &muxed);
    chardev_free(serial);
    chardev_free(monitor);
    tcgetattr(tty, &after);
    std_restore();
    assert_int_equal(rc, 0);
    assert_true(before.c_lflag & ECHO);
    assert_false(during.c_lflag & (ECHO | ICANON));
    assert_true(during.c_lflag & ISIG);
    assert_false(muxed.c_lflag & ISIG); /* Ctrl-C is the guest's */
    assert_memory_equal(&before, &after, sizeof before);
    close(tty);
    close(master);
}

/* --- the mux -------------------------------------------------------------------------------------------- */

static void count_quit(void *opaque)
{
    ++*(int *)opaque;
}

static void a_mux_gives_input_to_the_one_with_the_focus(void **state)
{
    (void)state;
    struct user *line = user_new(), *person = user_new();
    struct chardev *back = open_ok(spec_of("unix:%s,server=on,wait=off", "sock")), *serial, *monitor;
    int quits = 0;
    assert_int_equal(chardev_mux(back, count_quit, &quits, &serial, &monitor, NULL), 0);
    chardev_attach(serial, &client, line);
    chardev_attach(monitor, &client, person);
    int fd = dial("sock");
    assert_true(turn_until(line->opened == 1));
    assert_int_equal(person->opened, 0);
    assert_int_equal(write(fd, "ab\x01", 3), 3);
    assert_true(turn_until(line->bytes == 2));
    assert_int_equal(write(fd,
                           "chelp\x01\x01\x01"
                           "a\x01"
                           "cz",
                           12),
                     12); /* split inside the escape */
    assert_true(turn_until(line->bytes == 3));
    assert_string_equal(line->text, "abz");
    assert_string_equal(person->text, "help\x01\x01");
    assert_int_equal(person->opened, 1);
    assert_int_equal(person->closed, 1);
    assert_int_equal(line->opened, 2);
    char got[16] = "";
    chardev_write(monitor, "M", 1); /* both are heard, focus or not */
    chardev_write(serial, "S", 1);
    assert_int_equal(read(fd, got, sizeof got), 2);
    assert_string_equal(got, "MS");
    assert_int_equal(write(fd, "\x01x", 2), 2);
    assert_true(turn_until(quits == 1));
    close(fd);
    chardev_free(monitor);
    chardev_free(serial);
    free(line);
    free(person);
}

static void the_keys_work_while_the_guest_does_not_read(void **state)
{
    (void)state;
    struct user *line = user_new(), *person = user_new();
    struct chardev *back = open_ok(spec_of("unix:%s,server=on,wait=off", "sock")), *serial, *monitor;
    assert_int_equal(chardev_mux(back, NULL, NULL, &serial, &monitor, NULL), 0);
    line->room = 0;
    chardev_attach(serial, &client, line);
    chardev_attach(monitor, &client, person);
    int fd = dial("sock");
    assert_int_equal(write(fd,
                           "waits\x01"
                           "cinfo",
                           11),
                     11);
    assert_true(turn_until(person->bytes == 4));
    assert_int_equal(line->bytes, 0);
    line->room = 100;
    chardev_accept_input(serial);
    assert_true(turn_until(line->bytes == 5));
    assert_string_equal(line->text, "waits");
    close(fd);
    chardev_free(monitor);
    chardev_free(serial);
    free(line);
    free(person);
}

static void count_one(void *opaque, struct chardev *chardev)
{
    (void)chardev;
    ++*(int *)opaque;
}

static void the_list_knows_every_open_one(void **state)
{
    (void)state;
    int before = 0, during = 0, after = 0;
    struct chardev *a, *b;
    chardev_walk(count_one, &before);
    a = open_ok("null");
    b = open_ok("pty");
    chardev_walk(count_one, &during);
    chardev_free(a);
    chardev_free(b);
    chardev_walk(count_one, &after);
    assert_int_equal(during, before + 2);
    assert_int_equal(after, before);
}

/* --- the frame ------------------------------------------------------------------------------------------ */

static int group_setup(void **state)
{
    (void)state;
    return mkdtemp(folder) && uv_loop_init(&loop) == 0 ? 0 : -1;
}

static int group_teardown(void **state)
{
    (void)state;
    static const char *const names[] = { "out", "sock", "plain", "input" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(path_of(names[i]));
    rmdir(folder);
    return 0;
}

/* Every handle a chardev had must be gone with it: the loop has nothing left to do. */
static int no_handle_left(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    return uv_loop_alive(&loop) ? -1 : 0;
}

#define chardev_test(name) cmocka_unit_test_teardown(name, no_handle_left)

int main(void)
{
    const struct CMUnitTest tests[] = {
        chardev_test(a_bad_specification_is_named),
        chardev_test(a_mux_is_asked_for_in_two_ways),
        chardev_test(a_doubled_comma_is_one_in_the_path),
        chardev_test(null_swallows_everything),
        chardev_test(a_file_gets_what_is_written_and_starts_anew_unless_appended),
        chardev_test(a_server_serves_one_peer_after_the_other),
        chardev_test(what_a_peer_said_before_it_left_is_heard),
        chardev_test(a_slow_reader_fills_the_queue_and_is_told_apart_when_it_empties),
        chardev_test(many_threads_write_and_nothing_is_torn_or_lost),
        chardev_test(a_stale_path_is_taken_over_and_a_live_one_is_not),
        chardev_test(other_hosts_come_only_when_that_was_said),
        chardev_test(a_socket_in_the_file_system_is_its_owner_s_alone),
        chardev_test(tcp_tells_its_port_and_a_client_connects),
        chardev_test(wait_on_holds_open_until_somebody_connects),
        chardev_test(a_pty_is_open_while_somebody_has_it_open),
        chardev_test(stdio_reads_pipes_and_files_to_their_end_and_goes_on_writing),
        chardev_test(a_terminal_is_raw_while_open_and_given_back),
        chardev_test(a_mux_gives_input_to_the_one_with_the_focus),
        chardev_test(the_keys_work_while_the_guest_does_not_read),
        chardev_test(the_list_knows_every_open_one),
    };
    return cmocka_run_group_tests_name("chardev", tests, group_setup, group_teardown);
}
