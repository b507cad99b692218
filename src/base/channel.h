/* A byte channel: what a migration travels over. One small table of functions, five transports behind it.
 *
 * channel_connect() and channel_listen() understand
 *   tcp:HOST:PORT  tcp:[IPV6]:PORT  unix:PATH  exec:COMMAND  fd:N  file:PATH
 * and, to listen only, tcp:HOST:PORT,insecure=on. tcp::PORT and tcp:0:PORT listen on all addresses of this host.
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
struct channel_listener;

struct channel_ops {
    ssize_t (*writev)(struct channel *channel, const struct iovec *iov, int count); /* bytes or -errno, -EAGAIN */
    ssize_t (*read)(struct channel *channel, void *out, size_t bytes);  /* bytes, 0 = end, -errno, -EAGAIN */
    int (*wait)(struct channel *channel, short events, int timeout_ms); /* 1 ready, 0 timed out, -errno */
    void (*shutdown)(struct channel *channel);                          /* any thread; wakes wait, read, write */
    int (*finish)(struct channel *channel, struct err *err);       /* all is written: fsync, wait for the command */
    void (*close)(struct channel *channel);                        /* frees it */
    bool (*fate)(struct channel *channel, char *out, size_t size); /* see channel_explain(); may be NULL */
    /* Of a channel over another, NULL for others: is there something to read, its end or a failure? If not, which one to
     * wait for, and for what, before it is asked again. By whoever reads. */
    bool (*look)(struct channel *channel, struct channel **under, short *events);
};

struct channel {
    const struct channel_ops *ops;
    /* fixed after open */
    bool can_read, can_write; /* a two-way channel can both */
    bool stream_local;        /* a file: no peer at the other end */
    int silence_ms;           /* set by who reads: see channel_read_begun(); 0: no limit */
    char name[128];           /* for messages: "tcp:127.0.0.1:4444" */
};

/* Wait for several things at once. All may be NULL; only channels and listeners over descriptors can be waited for. */
enum { CHANNELS_MAX = 24 };
struct channel_ready {
    bool peer;                  /* somebody knocks at the listener */
    bool channel[CHANNELS_MAX]; /* something to read, its end, or shut down; false for NULL */
    bool abort;                 /* abort_fd is readable */
};
/* 0 with at least one of them, -ETIMEDOUT with none; timeout_ms -1 waits for ever. abort_fd: -1 none. */
int channel_wait_any(struct channel_listener *listener, struct channel *const *channels, unsigned count, int abort_fd,
                     int timeout_ms, struct channel_ready *out);

/* After a failure: adds what became of the other end where we can know it ("the command ended with status 3"). May wait a
 * moment for a command that is about to end. Returns err->code. */
int channel_explain(struct channel *channel, struct err *err);

/* Blocks until connected or refused; `*abort_fd`, when not -1, is polled too: readable ends it with -ECANCELED. */
int channel_connect(const char *uri, int abort_fd, struct channel **out, struct err *err);

/* The incoming side. Listens (tcp, unix) or opens (exec, fd, file); accept returns the next peer, or the one there is. */
int channel_listen(const char *uri, struct channel_listener **out, struct err *err);
/* As it, for somebody who lets nobody in without proof of who he is (TLS). channel_listen() refuses with -EPERM a tcp address
 * that other hosts can reach, unless the URI ends with ",insecure=on": the user knows who may come. */
int channel_listen_guarded(const char *uri, struct channel_listener **out, struct err *err);
int channel_accept(struct channel_listener *listener, int abort_fd, struct channel **out, struct err *err);
/* Where it listens, with the port the system chose when 0 was asked: "tcp:127.0.0.1:39215". */
const char *channel_listener_name(const struct channel_listener *listener);
bool channel_listener_open(const struct channel_listener *listener);      /* can another peer come? */
bool channel_listener_is_socket(const struct channel_listener *listener); /* many can call; else there is one line */
void channel_listener_close(struct channel_listener *listener); /* NULL allowed; removes a unix socket's path */

/* Helpers over ops, for either kind of caller. */
ssize_t channel_writev(struct channel *channel, const struct iovec *iov, int count);
ssize_t channel_read(struct channel *channel, void *out, size_t bytes);
int channel_wait(struct channel *channel, short events, int timeout_ms);
int channel_write_all(struct channel *channel, const void *data, size_t bytes, int timeout_ms, struct err *err);
/* Exactly bytes: 0; -EPIPE at end of stream (the text says after how many); timeout_ms -1 waits for ever. */
int channel_read_all(struct channel *channel, void *out, size_t bytes, int timeout_ms, struct err *err);
/* The same for the rest of something that has begun: it may take its time, but be silent for silence_ms at a stretch no
 * longer: -ETIMEDOUT. */
int channel_read_begun(struct channel *channel, void *out, size_t bytes, struct err *err);
void channel_shutdown(struct channel *channel);
int channel_finish(struct channel *channel, struct err *err);
void channel_close(struct channel *channel); /* NULL allowed */
