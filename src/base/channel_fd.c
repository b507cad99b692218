/* A channel over descriptors: what sockets, pipes, files and commands have in common. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/channel_private.h"
#include "base/clock.h"

enum { FATE_WAIT_MS = 200 };

static struct channel_fd *fd_of(struct channel *channel)
{
    return (struct channel_fd *)channel;
}

static ssize_t fd_writev(struct channel *channel, const struct iovec *iov, int count)
{
    struct channel_fd *c = fd_of(channel);
    ssize_t bytes;

    do {
        if (atomic_load_explicit(&c->down, memory_order_acquire)) {
            return -ECANCELED;
        }
        if (c->is_socket) {
            struct msghdr message = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count };
            bytes = sendmsg(c->write_fd, &message, MSG_NOSIGNAL);
        } else {
            bytes = writev(c->write_fd, iov, count);
        }
    } while (bytes < 0 && errno == EINTR);
    return bytes < 0 ? -errno : bytes;
}

static ssize_t fd_read(struct channel *channel, void *out, size_t bytes)
{
    struct channel_fd *c = fd_of(channel);
    ssize_t got;

    do {
        if (atomic_load_explicit(&c->down, memory_order_acquire)) {
            return -ECANCELED;
        }
        got = read(c->read_fd, out, bytes);
    } while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

static int fd_wait(struct channel *channel, short events, int timeout_ms)
{
    struct channel_fd *c = fd_of(channel);
    struct pollfd fds[3] = {
        { .fd = c->wake_fd, .events = POLLIN },
        { .fd = events & POLLIN ? c->read_fd : -1, .events = POLLIN },
        { .fd = events & POLLOUT ? c->write_fd : -1, .events = POLLOUT },
    };
    int ready = poll(fds, 3, timeout_ms);

    if (ready < 0) {
        return errno == EINTR ? 0 : -errno; /* the caller asks again */
    }
    return fds[0].revents ? -ECANCELED : ready > 0;
}

static void fd_shutdown(struct channel *channel)
{
    struct channel_fd *c = fd_of(channel);
    uint64_t one = 1;

    atomic_store_explicit(&c->down, true, memory_order_release);
    if (c->is_socket) {
        shutdown(c->write_fd, SHUT_RDWR);
    }
    ssize_t ignored = write(c->wake_fd, &one, sizeof(one)); /* full is as good: it is readable */
    (void)ignored;
}

/* A command that closed its end is about to end: give it a moment. close() reaps it. */
static bool fd_fate(struct channel *channel, char *out, size_t size)
{
    struct channel_fd *c = fd_of(channel);
    struct pollfd ended = { .fd = c->pidfd, .events = POLLIN };
    siginfo_t info = { 0 };

    if (c->pid <= 0 || c->reaped || poll(&ended, 1, FATE_WAIT_MS) <= 0 ||
        waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) {
        return false;
    }
    snprintf(out, size,
             info.si_code == CLD_EXITED ? "the command ended with status %d" : "the command was killed by signal %d",
             info.si_status);
    return true;
}

/* A short stream fits into the socket: it was written without an error, and may still not have been read. A socket whose
 * peer closed it with something left in it says so (unix(7), ECONNRESET). */
static int check_all_read(const struct channel_fd *c, struct err *err)
{
    int failed = 0;
    socklen_t bytes = sizeof(failed);

    if (c->is_socket && getsockopt(c->write_fd, SOL_SOCKET, SO_ERROR, &failed, &bytes) == 0 && failed != 0)
        return err_set(err, -EPIPE, "%s: the command ended with status 0 before it had read everything",
                       c->channel.name);
    return 0;
}

static int finish_command(struct channel_fd *c, struct err *err)
{
    int ret = channel_wait_fd(c->pidfd, POLLIN, c->wake_fd);
    int status;

    if (ret < 0) {
        return err_set_errno(err, ret, "%s: gave up waiting for the command", c->channel.name);
    }
    if (waitpid(c->pid, &status, 0) != c->pid) {
        return err_set_errno(err, -errno, "%s: cannot wait for the command", c->channel.name);
    }
    c->reaped = true;
    if (WIFSIGNALED(status)) {
        return err_set(err, -EPIPE, "%s: the command was killed by signal %d", c->channel.name, WTERMSIG(status));
    }
    if (WEXITSTATUS(status)) {
        return err_set(err, -EPIPE, "%s: the command ended with status %d", c->channel.name, WEXITSTATUS(status));
    }
    return check_all_read(c, err);
}

static int fd_finish(struct channel *channel, struct err *err)
{
    struct channel_fd *c = fd_of(channel);

    if (c->is_socket && shutdown(c->write_fd, SHUT_WR) != 0 && errno != ENOTCONN) {
        return err_set_errno(err, -errno, "cannot end %s", channel->name);
    }
    if (channel->stream_local && channel->can_write && fsync(c->write_fd) != 0 && errno != EINVAL) {
        return err_set_errno(err, -errno, "cannot bring %s to the disk", channel->name);
    }
    return c->pid > 0 && !c->reaped ? finish_command(c, err) : 0;
}

static void fd_close(struct channel *channel)
{
    struct channel_fd *c = fd_of(channel);

    if (c->read_fd >= 0) {
        close(c->read_fd);
    }
    if (c->write_fd >= 0 && c->write_fd != c->read_fd) {
        close(c->write_fd);
    }
    if (c->pid > 0 && !c->reaped) {
        kill(-c->pid, SIGKILL); /* its process group: the shell and what it started */
        while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    if (c->pidfd >= 0) {
        close(c->pidfd);
    }
    if (c->wake_fd >= 0) {
        close(c->wake_fd);
    }
    free(c);
}

static const struct channel_ops fd_ops = {
    .writev = fd_writev,
    .read = fd_read,
    .wait = fd_wait,
    .shutdown = fd_shutdown,
    .finish = fd_finish,
    .close = fd_close,
    .fate = fd_fate,
};

static int set_flags(int fd)
{
    int flags = fd < 0 ? 0 : fcntl(fd, F_GETFL);

    if (fd < 0) {
        return 0;
    }
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        return -errno;
    }
    return 0;
}

int channel_fd_new(int read_fd, int write_fd, bool is_socket, const char *name, struct channel_fd **out,
                   struct err *err)
{
    struct channel_fd *c = calloc(1, sizeof(*c));
    int ret = c ? 0 : -ENOMEM;

    if (c) {
        *c = (struct channel_fd){ .read_fd = read_fd, .write_fd = write_fd, .is_socket = is_socket, .pidfd = -1 };
        c->channel.ops = &fd_ops;
        c->channel.can_read = read_fd >= 0;
        c->channel.can_write = write_fd >= 0;
        snprintf(c->channel.name, sizeof(c->channel.name), "%s", name);
        c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        ret = c->wake_fd < 0 ? -errno : set_flags(read_fd);
        ret = ret < 0 ? ret : set_flags(write_fd);
    }
    if (ret < 0) {
        err_set_errno(err, ret, "cannot open %s", name);
        if (c) {
            fd_close(&c->channel);
        } else {
            close(read_fd >= 0 ? read_fd : write_fd);
        }
        return ret;
    }
    *out = c;
    return 0;
}

int channel_wait_fd(int fd, short events, int abort_fd)
{
    struct pollfd fds[2] = { { .fd = fd, .events = events }, { .fd = abort_fd, .events = POLLIN } };

    for (;;) {
        int ready = poll(fds, 2, -1);
        if (ready < 0 && errno != EINTR) {
            return -errno;
        }
        if (ready > 0) {
            return fds[1].revents ? -ECANCELED : 0;
        }
    }
}

int channel_fd_wait_abort(struct channel *channel, short events, int abort_fd, int timeout_ms)
{
    struct channel_fd *c = fd_of(channel);
    struct pollfd fds[3] = {
        { .fd = c->wake_fd, .events = POLLIN },
        { .fd = abort_fd, .events = POLLIN },
        { .fd = events & POLLOUT ? c->write_fd : c->read_fd, .events = events },
    };

    assert(channel->ops == &fd_ops);
    int ready = poll(fds, 3, timeout_ms);
    if (ready < 0) {
        return errno == EINTR ? 1 : -errno; /* the caller looks again */
    }
    return fds[0].revents || fds[1].revents ? -ECANCELED : ready > 0;
}

/* What to poll for a channel; true: no need to, it is ready. */
static bool set_polls(struct channel *channel, struct pollfd fds[2])
{
    short events = POLLIN;
    bool ready = channel && channel->ops->look && channel->ops->look(channel, &channel, &events);

    assert(!channel || channel->ops == &fd_ops);
    struct channel_fd *c = channel ? fd_of(channel) : NULL;
    fds[0] = (struct pollfd){ .fd = !c ? -1 : events & POLLOUT ? c->write_fd : c->read_fd, .events = events };
    fds[1] = (struct pollfd){ .fd = c ? c->wake_fd : -1, .events = POLLIN };
    return ready;
}

/* One poll: 1 when there is something, 0 when the time is up or nothing is known yet. */
static int poll_any(struct channel_listener *listener, struct channel *const *channels, unsigned count, int abort_fd,
                    int timeout_ms, struct channel_ready *out)
{
    struct pollfd fds[2 + 2 * CHANNELS_MAX];
    bool any = false;

    *out = (struct channel_ready){ .abort = false };
    fds[0] = (struct pollfd){ .fd = abort_fd, .events = POLLIN };
    fds[1] = (struct pollfd){ .fd = listener ? listener->fd : -1, .events = POLLIN };
    for (unsigned i = 0; i < count; i++) {
        out->channel[i] = set_polls(channels[i], &fds[2 + 2 * i]);
        any = any || out->channel[i];
    }
    if (poll(fds, 2 + 2 * count, any ? 0 : timeout_ms) < 0) {
        return errno == EINTR && !any ? 0 : any ? 1 : -errno;
    }
    out->abort = fds[0].revents;
    out->peer = fds[1].revents;
    any = any || out->abort || out->peer;
    for (unsigned i = 0; i < count; i++) {
        bool plain =
            channels[i] && !channels[i]->ops->look; /* of others bytes are news only when something is in them */
        out->channel[i] = out->channel[i] || fds[3 + 2 * i].revents || (plain && fds[2 + 2 * i].revents);
        any = any || out->channel[i];
    }
    return any;
}

int channel_wait_any(struct channel_listener *listener, struct channel *const *channels, unsigned count, int abort_fd,
                     int timeout_ms, struct channel_ready *out)
{
    int64_t deadline_ns = timeout_ms < 0 ? INT64_MAX : clock_now_ns() + (int64_t)timeout_ms * NS_PER_MS;
    bool last = false;

    assert(count <= CHANNELS_MAX);
    for (;;) {
        int64_t left_ns = deadline_ns == INT64_MAX ? -1 : deadline_ns - clock_now_ns();
        int left_ms = left_ns < 0 ? (timeout_ms < 0 ? -1 : 0) : (int)((left_ns + NS_PER_MS - 1) / NS_PER_MS);
        int ready = poll_any(listener, channels, count, abort_fd, left_ms, out);
        if (ready != 0) {
            return ready < 0 ? ready : 0;
        }
        /* Once more after the time is up: what came in its last moment may have been a whole record. */
        if (last) {
            return -ETIMEDOUT;
        }
        last = left_ms == 0 || (timeout_ms >= 0 && clock_now_ns() >= deadline_ns);
    }
}
