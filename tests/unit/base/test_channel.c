#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/channel.h"

static char dir[] = "/tmp/godwit-channel-XXXXXX";

static const char *in_dir(const char *scheme, const char *name)
{
    static char text[4][160];
    static unsigned next;
    char *out = text[next++ % 4];
    snprintf(out, sizeof(text[0]), "%s%s/%s", scheme, dir, name);
    return out;
}

static int set_up(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN); /* as main does: a pipe has no MSG_NOSIGNAL */
    return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return rmdir(dir);
}

/* There and back, more than any buffer holds, while nobody answers on the other side for a while. */
static void talk(struct channel *a, struct channel *b)
{
    char got[6] = { 0 };
    assert_true(a->can_read && a->can_write && b->can_read && b->can_write);
    assert_int_equal(channel_write_all(a, "hello", 5, 1000, NULL), 0);
    assert_int_equal(channel_read_all(b, got, 5, 1000, NULL), 0);
    assert_string_equal(got, "hello");
    assert_int_equal(channel_write_all(b, "there", 5, 1000, NULL), 0);
    assert_int_equal(channel_read_all(a, got, 5, 1000, NULL), 0);
    assert_string_equal(got, "there");
    assert_int_equal(channel_read(a, got, 1), -EAGAIN);
    assert_int_equal(channel_wait(a, POLLIN, 0), 0);
    assert_int_equal(channel_finish(a, NULL), 0); /* half-closes: the other direction stays */
    assert_int_equal(channel_read(b, got, 1), 0);
    assert_int_equal(channel_write_all(b, "after", 5, 1000, NULL), 0);
    assert_int_equal(channel_read_all(a, got, 5, 1000, NULL), 0);
    struct err err = { 0 };
    assert_int_equal(channel_read_all(b, got, 5, 1000, &err), -EPIPE);
    assert_non_null(strstr(err.text, "0 of 5"));
}

static void pair_over(const char *uri, struct channel **a, struct channel **b, char *bound, size_t bound_size)
{
    struct channel_listener *listener = NULL;
    struct err err = { 0 };
    int ret = channel_listen(uri, &listener, &err);
    if (ret < 0) {
        print_error("%s\n", err.text);
    }
    assert_int_equal(ret, 0);
    snprintf(bound, bound_size, "%s", channel_listener_name(listener));
    assert_int_equal(channel_connect(bound, -1, a, &err), 0);
    assert_int_equal(channel_accept(listener, -1, b, &err), 0);
    channel_listener_close(listener);
}

static void sockets_are_two_way(void **state)
{
    const char *uris[] = { "tcp:127.0.0.1:0", "tcp:[::1]:0", "tcp:localhost:0", in_dir("unix:", "s") };
    static const char *names[] = { "tcp:127.0.0.1:", "tcp:[::1]:", "tcp:", "unix:" };
    (void)state;

    for (unsigned i = 0; i < sizeof(uris) / sizeof(uris[0]); i++) {
        struct channel *a, *b;
        char bound[160];
        int probe = i == 1 ? open("/proc/net/if_inet6", O_RDONLY) : 0;
        if (probe < 0) {
            print_message("no IPv6 on this host: %s left out\n", uris[i]);
            continue;
        }
        if (probe > 0) {
            close(probe);
        }
        struct addrinfo *known = NULL;
        if (i == 2 && getaddrinfo("localhost", NULL, NULL, &known) != 0) {
            print_message("this host has no name for itself: %s left out\n", uris[i]);
            continue;
        }
        if (known)
            freeaddrinfo(known);
        pair_over(uris[i], &a, &b, bound, sizeof(bound));
        assert_memory_equal(bound, names[i], strlen(names[i]));
        talk(a, b);
        channel_close(a);
        channel_close(b);
    }
    assert_int_equal(access(in_dir("", "s"), F_OK), -1); /* the listener took its path away */
}

static void a_full_channel_says_again_and_becomes_writable(void **state)
{
    struct channel *a, *b;
    char bound[160];
    static uint8_t block[65536];
    size_t in = 0, out = 0;
    (void)state;

    pair_over(in_dir("unix:", "full"), &a, &b, bound, sizeof(bound));
    for (;;) {
        struct iovec iov[2] = { { block, sizeof(block) / 2 }, { block, sizeof(block) / 2 } };
        ssize_t ret = channel_writev(a, iov, 2);
        if (ret < 0) {
            assert_int_equal(ret, -EAGAIN);
            break;
        }
        in += (size_t)ret;
    }
    assert_int_equal(channel_wait(a, POLLOUT, 0), 0);
    struct err err = { 0 };
    assert_int_equal(channel_write_all(a, block, 10, 1, &err), -ETIMEDOUT);
    while (out < in) {
        ssize_t ret = channel_read(b, block, sizeof(block));
        assert_true(ret > 0);
        out += (size_t)ret;
    }
    assert_int_equal(channel_wait(a, POLLOUT, 1000), 1);
    channel_close(b);
    err_clear(&err);
    assert_int_equal(channel_write_all(a, block, sizeof(block), 1000, &err), -EPIPE); /* and no signal */
    channel_close(a);
}

struct waiter {
    struct channel *channel;
    int ret;
};

static void *wait_run(void *opaque)
{
    struct waiter *waiter = opaque;
    uint8_t byte;
    waiter->ret = channel_read_all(waiter->channel, &byte, 1, -1, NULL);
    return NULL;
}

static void shutdown_wakes(struct channel *channel)
{
    struct waiter waiter = { .channel = channel };
    struct iovec iov = { (void *)(uintptr_t) "x", 1 };
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, wait_run, &waiter), 0);
    channel_shutdown(channel);
    pthread_join(thread, NULL);
    assert_true(waiter.ret == -ECANCELED || waiter.ret == -EPIPE);
    assert_int_equal(channel_wait(channel, POLLIN, -1), -ECANCELED);
    if (channel->can_write) {
        assert_int_equal(channel_writev(channel, &iov, 1), -ECANCELED);
    }
}

static void shutdown_from_another_thread_ends_every_wait(void **state)
{
    struct channel *a, *b;
    struct channel_listener *listener;
    char bound[160], uri[32];
    int ends[2];
    (void)state;

    pair_over("tcp:127.0.0.1:0", &a, &b, bound, sizeof(bound));
    shutdown_wakes(a);
    channel_close(a);
    channel_close(b);
    assert_int_equal(pipe(ends), 0);
    snprintf(uri, sizeof(uri), "fd:%d", ends[0]);
    assert_int_equal(channel_listen(uri, &listener, NULL), 0);
    assert_int_equal(channel_accept(listener, -1, &a, NULL), 0);
    channel_listener_close(listener);
    shutdown_wakes(a);
    channel_close(a);
    close(ends[1]);
    assert_int_equal(channel_connect("exec:exec sleep 1000", -1, &a, NULL), 0);
    shutdown_wakes(a);
    channel_close(a); /* kills the command: else this test would not end */
}

static void abort_fd_ends_accept_and_connect(void **state)
{
    struct channel_listener *listener;
    struct channel *channel;
    int stop = eventfd(1, 0);
    (void)state;

    assert_int_equal(channel_listen("tcp:127.0.0.1:0", &listener, NULL), 0);
    assert_int_equal(channel_accept(listener, stop, &channel, NULL), -ECANCELED);

    /* Nobody accepts and the backlog is full: the next handshake stays unanswered. */
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    const char *bound = channel_listener_name(listener);
    int queue[16];
    address.sin_port = htons((uint16_t)atoi(strrchr(bound, ':') + 1));
    for (unsigned i = 0; i < 16; i++) {
        queue[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(queue[i], (struct sockaddr *)&address, sizeof(address));
    }
    assert_int_equal(channel_connect(bound, stop, &channel, NULL), -ECANCELED);
    for (unsigned i = 0; i < 16; i++) {
        close(queue[i]);
    }
    channel_listener_close(listener);
    close(stop);
}

static void nobody_there_is_refused_with_a_sentence(void **state)
{
    struct channel_listener *listener;
    struct channel *channel;
    struct err err = { 0 };
    char bound[160];
    (void)state;

    assert_int_equal(channel_listen("tcp:127.0.0.1:0", &listener, NULL), 0);
    snprintf(bound, sizeof(bound), "%s", channel_listener_name(listener));
    assert_int_equal(channel_listen(bound, &(struct channel_listener *){ NULL }, &err), -EADDRINUSE);
    channel_listener_close(listener);
    err_clear(&err);
    assert_int_equal(channel_connect(bound, -1, &channel, &err), -ECONNREFUSED);
    assert_non_null(strstr(err.text, bound));
    err_clear(&err);
    assert_int_equal(channel_connect(in_dir("unix:", "nobody"), -1, &channel, &err), -ENOENT);
}

static void addresses_of_nonsense_are_refused(void **state)
{
    static const char *const bad[] = { "",         "tcp:", "tcp:host",       "tcp:::1:4444",   "unix:",
                                       "exec:",    "fd:",  "fd:x",           "fd:-1",          "fd:1x",
                                       "http://x", "file", "tcp:127.0.0.1:", "tcp:1.2.3.4:nix" };
    struct channel_listener *listener;
    struct channel *channel;
    char longest[300];
    (void)state;

    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct err err = { 0 };
        assert_int_equal(channel_connect(bad[i], -1, &channel, &err), -EINVAL);
        assert_true(err.text[0] != 0);
        assert_int_equal(channel_listen(bad[i], &listener, NULL), -EINVAL);
    }
    memset(longest, 'x', sizeof(longest));
    memcpy(longest, "unix:", 5);
    longest[sizeof(longest) - 1] = 0;
    assert_int_equal(channel_connect(longest, -1, &channel, NULL), -EINVAL);
    assert_int_equal(channel_connect("fd:999", -1, &channel, NULL), -EBADF);
}

static void a_dead_sockets_path_is_taken_over_and_a_living_ones_is_not(void **state)
{
    struct channel_listener *first, *second;
    struct stat stat_now;
    const char *uri = in_dir("unix:", "stale");
    char dead[200], path[160];
    (void)state;

    snprintf(path, sizeof(path), "%s", uri + 5);
    snprintf(dead, sizeof(dead), "%s.dead", path);
    assert_int_equal(channel_listen(uri, &first, NULL), 0);
    assert_int_equal(stat(path, &stat_now), 0);
    assert_int_equal(stat_now.st_mode & 0777, 0600);
    assert_int_equal(channel_listen(uri, &second, NULL), -EADDRINUSE);
    assert_int_equal(rename(path, dead), 0); /* so that close leaves it behind */
    channel_listener_close(first);
    assert_int_equal(rename(dead, path), 0);
    assert_int_equal(channel_listen(uri, &second, NULL), 0);
    channel_listener_close(second);
    assert_int_equal(access(path, F_OK), -1);

    int fd = open(path, O_CREAT | O_WRONLY, 0600); /* somebody's file */
    close(fd);
    assert_int_equal(channel_listen(uri, &second, NULL), -EADDRINUSE);
    assert_int_equal(unlink(path), 0);
}

static void a_file_is_written_whole_and_read_again(void **state)
{
    struct channel_listener *listener;
    struct channel *channel;
    char got[8];
    struct stat stat_now;
    const char *uri = in_dir("file:", "f");
    (void)state;

    assert_int_equal(channel_connect(uri, -1, &channel, NULL), 0);
    assert_true(channel->can_write && !channel->can_read && channel->stream_local);
    assert_int_equal(channel_read(channel, got, 1), -EBADF);
    assert_int_equal(channel_write_all(channel, "content", 7, -1, NULL), 0);
    assert_int_equal(channel_finish(channel, NULL), 0);
    channel_close(channel);
    assert_int_equal(stat(uri + 5, &stat_now), 0);
    assert_int_equal(stat_now.st_mode & 0777, 0600);
    assert_int_equal(channel_listen(uri, &listener, NULL), 0);
    assert_int_equal(channel_accept(listener, -1, &channel, NULL), 0);
    assert_int_equal(channel_read_all(channel, got, 7, -1, NULL), 0);
    assert_memory_equal(got, "content", 7);
    assert_int_equal(channel_read(channel, got, 1), 0);
    channel_close(channel);
    assert_int_equal(channel_accept(listener, -1, &channel, NULL), -ENOTCONN);
    channel_listener_close(listener);
    assert_int_equal(unlink(uri + 5), 0);
    assert_int_equal(channel_listen(uri, &listener, NULL), -ENOENT);
}

static void a_command_is_two_way_and_its_status_counts(void **state)
{
    struct channel *channel;
    struct channel_listener *listener;
    struct err err = { 0 };
    char got[6] = { 0 };
    (void)state;

    assert_int_equal(channel_connect("exec:exec cat", -1, &channel, NULL), 0);
    assert_int_equal(channel_write_all(channel, "again", 5, -1, NULL), 0);
    assert_int_equal(channel_read_all(channel, got, 5, -1, NULL), 0);
    assert_string_equal(got, "again");
    assert_int_equal(channel_finish(channel, NULL), 0);
    channel_close(channel);

    assert_int_equal(channel_connect("exec:cat >/dev/null; exit 3", -1, &channel, NULL), 0);
    assert_int_equal(channel_finish(channel, &err), -EPIPE);
    assert_non_null(strstr(err.text, "status 3"));
    channel_close(channel);

    assert_int_equal(channel_listen("exec:echo hello", &listener, NULL), 0);
    assert_int_equal(channel_accept(listener, -1, &channel, NULL), 0);
    channel_listener_close(listener);
    assert_int_equal(channel_read_all(channel, got, 5, -1, NULL), 0);
    assert_string_equal(got, "hello");
    channel_close(channel);
}

/* It ends well, after everything was written and before anything was read. */
static void a_command_that_leaves_something_unread_has_failed(void **state)
{
    struct channel *channel;
    struct err err = { 0 };
    char fifo[64], uri[128];
    (void)state;

    snprintf(fifo, sizeof(fifo), "%s/fifo", dir);
    snprintf(uri, sizeof(uri), "exec:read go <%s; exit 0", fifo);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(channel_connect(uri, -1, &channel, NULL), 0);
    assert_int_equal(channel_write_all(channel, "again", 5, -1, NULL), 0);
    int fd = open(fifo, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "\n", 1), 1);
    close(fd);
    assert_int_equal(channel_finish(channel, &err), -EPIPE);
    assert_non_null(strstr(err.text, "status 0 before it had read everything"));
    channel_close(channel);
    unlink(fifo);
}

static void a_pipe_is_one_way_and_a_descriptor_must_fit(void **state)
{
    struct channel *channel;
    struct channel_listener *listener;
    char in[32], out[32], got[3];
    int ends[2];
    (void)state;

    assert_int_equal(pipe(ends), 0);
    snprintf(in, sizeof(in), "fd:%d", ends[0]);
    snprintf(out, sizeof(out), "fd:%d", ends[1]);
    assert_int_equal(channel_connect(in, -1, &channel, NULL), -EINVAL); /* the reading end cannot be written */
    assert_int_equal(channel_listen(out, &listener, NULL), -EINVAL);
    assert_int_equal(channel_connect(out, -1, &channel, NULL), 0);
    assert_true(channel->can_write && !channel->can_read && !channel->stream_local);
    assert_int_equal(channel_write_all(channel, "abc", 3, -1, NULL), 0);
    assert_int_equal(read(ends[0], got, 3), 3);
    close(ends[0]);
    assert_int_equal(channel_write_all(channel, "abc", 3, -1, NULL), -EPIPE);
    channel_close(channel);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sockets_are_two_way),
        cmocka_unit_test(a_full_channel_says_again_and_becomes_writable),
        cmocka_unit_test(shutdown_from_another_thread_ends_every_wait),
        cmocka_unit_test(abort_fd_ends_accept_and_connect),
        cmocka_unit_test(nobody_there_is_refused_with_a_sentence),
        cmocka_unit_test(addresses_of_nonsense_are_refused),
        cmocka_unit_test(a_dead_sockets_path_is_taken_over_and_a_living_ones_is_not),
        cmocka_unit_test(a_file_is_written_whole_and_read_again),
        cmocka_unit_test(a_command_is_two_way_and_its_status_counts),
        cmocka_unit_test(a_command_that_leaves_something_unread_has_failed),
        cmocka_unit_test(a_pipe_is_one_way_and_a_descriptor_must_fit),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
