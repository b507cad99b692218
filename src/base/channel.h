/* A byte channel: what a migration travels over. One small table of functions, five transports behind it.
 *
 * channel_connect() and channel_listen() understand
 *   tcp:HOST:PORT  tcp:[IPV6]:PORT  unix:PATH  exec:COMMAND  fd:N  file:PATH
 * tcp, unix, fd (a socket) and exec (a socketpair to the command) are two-way; file, and fd of a pipe, one-way.
 *
 * One thread writes, one thread reads; shutdown may come from any thread and ends both at once. Writes never
 * block: -EAGAIN means frozen, and the writer waits with channel_wait(). */
#pragma once
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/err.h"

struct channel;

struct channel_ops {
    ssize_t (*writev)(struct channel *channel, const struct iovec *iov, int count); /* bytes or -errno, -EAGAIN */
    ssize_t (*read)(struct channel *channel, void *out, size_t bytes);  /* bytes, 0 = end, -errno, -EAGAIN */
    int (*wait)(struct channel *channel, short events, int timeout_ms); /* 1 ready, 0 timed out, -errno */
    void (*shutdown)(struct channel *channel);                          /* any thread; wakes wait, read, write */
    int (*finish)(struct channel *channel, struct err *err);       /* all is written: fsync, wait for the command */
    void (*close)(struct channel *channel);                        /* frees it */
    bool (*fate)(struct channel *channel, char *out, size_t size); /* see channel_explain(); may be NULL */
};

struct channel {
    const struct channel_ops *ops;
    /* fixed after open */
    bool can_read, can_write; /* a two-way channel can both */
    bool stream_local;        /* a file: no peer at the other end */
    char name[128];           /* for messages: "tcp:127.0.0.1:4444" */
};

/* After a failure: adds what became of the other end where we can know it ("the command ended with status 3"). May wait a
 * moment for a command that is about to end. Returns err->code. */
int channel_explain(struct channel *channel, struct err *err);

/* Blocks until connected or refused; `*abort_fd`, when not -1, is polled too: readable ends it with -ECANCELED. */
int channel_connect(const char *uri, int abort_fd, struct channel **out, struct err *err);

/* The incoming side. Listens (tcp, unix) or opens (exec, fd, file); accept returns the one peer. */
struct channel_listener;
int channel_listen(const char *uri, struct channel_listener **out, struct err *err);
int channel_accept(struct channel_listener *listener, int abort_fd, struct channel **out, struct err *err);
/* Where it listens, with the port the system chose when 0 was asked: "tcp:127.0.0.1:39215". */
const char *channel_listener_name(const struct channel_listener *listener);
void channel_listener_close(struct channel_listener *listener); /* NULL allowed; removes a unix socket's path */

/* Helpers over ops, for either kind of caller. */
ssize_t channel_writev(struct channel *channel, const struct iovec *iov, int count);
ssize_t channel_read(struct channel *channel, void *out, size_t bytes);
int channel_wait(struct channel *channel, short events, int timeout_ms);
int channel_write_all(struct channel *channel, const void *data, size_t bytes, int timeout_ms, struct err *err);
/* Exactly bytes: 0; -EPIPE at end of stream (the text says after how many); timeout_ms -1 waits for ever. */
int channel_read_all(struct channel *channel, void *out, size_t bytes, int timeout_ms, struct err *err);
void channel_shutdown(struct channel *channel);
int channel_finish(struct channel *channel, struct err *err);
void channel_close(struct channel *channel); /* NULL allowed */
