/* What the transports share: a channel over one or two descriptors. Only base/channel*.c includes this. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "base/channel.h"

struct channel_fd {
    struct channel channel; /* first */
    /* fixed after open */
    int read_fd, write_fd; /* -1: not in this direction; may be the same */
    bool is_socket;
    int wake_fd; /* an eventfd that becomes readable, for ever, at shutdown */
    int pidfd;   /* exec: the command, -1 otherwise */
    pid_t pid;
    /* owner: whoever calls finish and close */
    bool reaped;
    /* atomic */
    _Atomic bool down;
};

/* Takes the descriptors over, also when it fails. They become non-blocking. name: the URI. */
int channel_fd_new(int read_fd, int write_fd, bool is_socket, const char *name, struct channel_fd **out,
                   struct err *err);

/* fd readable or writable (events) before abort_fd (-1: none) becomes readable: 0, -ECANCELED or -errno. */
int channel_wait_fd(int fd, short events, int abort_fd);

/* As channel_wait() on a channel over descriptors, and abort_fd (-1: none): 1, 0 timed out, -ECANCELED, -errno. */
int channel_fd_wait_abort(struct channel *channel, short events, int abort_fd, int timeout_ms);

struct channel_listener {
    /* fixed after listen */
    int fd;         /* a listening socket, or -1: then `made` is handed out once */
    char name[128]; /* the bound URI */
    char path[108]; /* of a unix socket that is ours to remove; "" otherwise */
    dev_t device;
    ino_t inode;
    struct channel *made;
};

int channel_tcp_connect(const char *rest, const char *uri, int abort_fd, struct channel **out, struct err *err);
/* guarded: other hosts may come, whoever they are. */
int channel_tcp_listen(const char *rest, const char *uri, bool guarded, struct channel_listener *out, struct err *err);
int channel_unix_connect(const char *rest, const char *uri, int abort_fd, struct channel **out, struct err *err);
int channel_unix_listen(const char *rest, const char *uri, struct channel_listener *out, struct err *err);
int channel_socket_accept(struct channel_listener *listener, int abort_fd, struct channel **out, struct err *err);
int channel_exec_open(const char *rest, const char *uri, struct channel **out, struct err *err);
int channel_fd_open(const char *rest, const char *uri, bool writing, struct channel **out, struct err *err);
int channel_file_open(const char *rest, const char *uri, bool writing, struct channel **out, struct err *err);
