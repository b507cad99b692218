#include "base/channel.h"

#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/channel_private.h"
#include "base/clock.h"

enum transport { TCP, UNIX, EXEC, FD, FILE_PATH, UNKNOWN };

static enum transport transport_of(const char *uri, const char **rest)
{
    static const char *const prefixes[] = { "tcp:", "unix:", "exec:", "fd:", "file:" };

    for (unsigned i = 0; i < UNKNOWN; i++) {
        size_t length = strlen(prefixes[i]);
        if (strncmp(uri, prefixes[i], length) == 0) {
            *rest = uri + length;
            return (enum transport)i;
        }
    }
    return UNKNOWN;
}

static int unknown(const char *uri, struct err *err)
{
    return err_set(err, -EINVAL, "\"%s\" is none of tcp:HOST:PORT unix:PATH exec:COMMAND fd:N file:PATH", uri);
}

int channel_connect(const char *uri, int abort_fd, struct channel **out, struct err *err)
{
    const char *rest;

    switch (transport_of(uri, &rest)) {
    case TCP: return channel_tcp_connect(rest, uri, abort_fd, out, err);
    case UNIX: return channel_unix_connect(rest, uri, abort_fd, out, err);
    case EXEC: return channel_exec_open(rest, uri, out, err);
    case FD: return channel_fd_open(rest, uri, true, out, err);
    case FILE_PATH: return channel_file_open(rest, uri, true, out, err);
    case UNKNOWN: break;
    }
    return unknown(uri, err);
}

static int listen_on(const char *uri, bool guarded, struct channel_listener **out, struct err *err)
{
    struct channel_listener *listener = calloc(1, sizeof(*listener));
    const char *rest;
    int ret = -EINVAL;

    if (!listener) {
        return err_set(err, -ENOMEM, "no memory to listen");
    }
    listener->fd = -1;
    strncpy(listener->name, uri, sizeof(listener->name) - 1);
    switch (transport_of(uri, &rest)) {
    case TCP: ret = channel_tcp_listen(rest, uri, guarded, listener, err); break;
    case UNIX: ret = channel_unix_listen(rest, uri, listener, err); break;
    case EXEC: ret = channel_exec_open(rest, uri, &listener->made, err); break;
    case FD: ret = channel_fd_open(rest, uri, false, &listener->made, err); break;
    case FILE_PATH: ret = channel_file_open(rest, uri, false, &listener->made, err); break;
    case UNKNOWN: ret = unknown(uri, err); break;
    }
    if (ret < 0) {
        channel_listener_close(listener);
        return ret;
    }
    *out = listener;
    return 0;
}

int channel_listen(const char *uri, struct channel_listener **out, struct err *err)
{
    return listen_on(uri, false, out, err);
}

int channel_listen_guarded(const char *uri, struct channel_listener **out, struct err *err)
{
    return listen_on(uri, true, out, err);
}

int channel_accept(struct channel_listener *listener, int abort_fd, struct channel **out, struct err *err)
{
    if (listener->fd >= 0) {
        return channel_socket_accept(listener, abort_fd, out, err);
    }
    if (!listener->made) {
        return err_set(err, -ENOTCONN, "%s has one peer, and it was accepted already", listener->name);
    }
    *out = listener->made;
    listener->made = NULL;
    return 0;
}

const char *channel_listener_name(const struct channel_listener *listener)
{
    return listener->name;
}

bool channel_listener_open(const struct channel_listener *listener)
{
    return listener->fd >= 0 || listener->made;
}

bool channel_listener_is_socket(const struct channel_listener *listener)
{
    return listener->fd >= 0;
}

void channel_listener_close(struct channel_listener *listener)
{
    struct stat now;

    if (!listener) {
        return;
    }
    if (listener->fd >= 0) {
        close(listener->fd);
    }
    /* Only while it is still ours: somebody may have put another socket there. */
    if (listener->path[0] && lstat(listener->path, &now) == 0 && now.st_dev == listener->device &&
        now.st_ino == listener->inode) {
        unlink(listener->path);
    }
    channel_close(listener->made);
    free(listener);
}

/* --- over ops ------------------------------------------------------------------------------------------ */

int channel_explain(struct channel *channel, struct err *err)
{
    char fate[128], text[ERR_TEXT_MAX];
    if (!channel || !channel->ops->fate || !err->code || !channel->ops->fate(channel, fate, sizeof(fate))) {
        return err->code;
    }
    int code = err->code;
    snprintf(text, sizeof(text), "%s", err->text);
    err_clear(err);
    return err_set(err, code, "%s (%s)", text, fate);
}

ssize_t channel_writev(struct channel *channel, const struct iovec *iov, int count)
{
    return channel->can_write ? channel->ops->writev(channel, iov, count) : -EBADF;
}

ssize_t channel_read(struct channel *channel, void *out, size_t bytes)
{
    return channel->can_read ? channel->ops->read(channel, out, bytes) : -EBADF;
}

int channel_wait(struct channel *channel, short events, int timeout_ms)
{
    return channel->ops->wait(channel, events, timeout_ms);
}

/* Wait for the rest of a deadline; -1 for none. 0: try again. */
static int wait_until(struct channel *channel, short events, int64_t deadline_ns)
{
    int64_t left = deadline_ns < 0 ? -1 : deadline_ns - clock_now_ns();
    int left_ms = -1;

    if (deadline_ns >= 0) {
        if (left <= 0) {
            return -ETIMEDOUT;
        }
        left_ms = (int)((left + NS_PER_MS - 1) / NS_PER_MS);
    }
    int ret = channel_wait(channel, events, left_ms);
    return ret < 0 ? ret : 0;
}

static int64_t deadline_of(int timeout_ms)
{
    return timeout_ms < 0 ? -1 : clock_now_ns() + (int64_t)timeout_ms * NS_PER_MS;
}

int channel_write_all(struct channel *channel, const void *data, size_t bytes, int timeout_ms, struct err *err)
{
    int64_t deadline_ns = deadline_of(timeout_ms);
    size_t done = 0;

    while (done < bytes) {
        struct iovec iov = { .iov_base = (uint8_t *)(uintptr_t)data + done, .iov_len = bytes - done };
        ssize_t ret = channel_writev(channel, &iov, 1);
        if (ret == -EAGAIN) {
            ret = wait_until(channel, POLLOUT, deadline_ns);
        }
        if (ret < 0) {
            return err_set_errno(err, (int)ret, "cannot write to %s", channel->name);
        }
        done += (size_t)ret;
    }
    return 0;
}

int channel_read_all(struct channel *channel, void *out, size_t bytes, int timeout_ms, struct err *err)
{
    int64_t deadline_ns = deadline_of(timeout_ms);
    size_t done = 0;

    while (done < bytes) {
        ssize_t ret = channel_read(channel, (uint8_t *)out + done, bytes - done);
        if (ret == 0) {
            return err_set(err, -EPIPE, "%s ended after %zu of %zu bytes", channel->name, done, bytes);
        }
        if (ret == -EAGAIN) {
            ret = wait_until(channel, POLLIN, deadline_ns);
        }
        if (ret < 0) {
            return err_set_errno(err, (int)ret, "cannot read from %s", channel->name);
        }
        done += (size_t)ret;
    }
    return 0;
}

int channel_read_begun(struct channel *channel, void *out, size_t bytes, struct err *err)
{
    int waited = 1;

    for (size_t done = 0; done < bytes && waited > 0;) {
        ssize_t got = channel_read(channel, (uint8_t *)out + done, bytes - done);
        if (got == -EAGAIN) {
            waited = channel_wait(channel, POLLIN, channel->silence_ms > 0 ? channel->silence_ms : -1);
        } else if (got > 0) {
            done += (size_t)got;
        } else { /* its end, or a failure, and it stays so: this has the words */
            return channel_read_all(channel, (uint8_t *)out + done, bytes - done, -1, err);
        }
    }
    if (waited == 0) {
        return err_set(err, -ETIMEDOUT, "%s: nothing came for %d ms in the middle of something", channel->name,
                       channel->silence_ms);
    }
    return waited < 0 ? err_set_errno(err, waited, "cannot read from %s", channel->name) : 0;
}

void channel_shutdown(struct channel *channel)
{
    channel->ops->shutdown(channel);
}

int channel_finish(struct channel *channel, struct err *err)
{
    return channel->ops->finish(channel, err);
}

void channel_close(struct channel *channel)
{
    if (channel) {
        channel->ops->close(channel);
    }
}
