/* What the chardev files share. Private to base/chardev*.c.
 *
 *   chardev.c         the public face, the list of all, null
 *   chardev_spec.c    specifications: text -> struct chardev_spec
 *   chardev_stream.c  everything that is a descriptor: polls, the output queue, accepting one peer after the other
 *   chardev_open.c    opening descriptors: files, sockets, pty, and standard input and output
 *   chardev_mux.c     two front ends on one back end */
#pragma once
#include <stdatomic.h>
#include <sys/types.h>
#include <uv.h>

#include "base/chardev.h"

enum { CHARDEV_ID_MAX = 64, CHARDEV_ADDRESS_MAX = 256, CHARDEV_READ_BYTES = 4096 };

struct chardev_kind {
    size_t (*write)(struct chardev *chardev, const uint8_t *data, size_t bytes); /* any thread */
    void (*accept_input)(struct chardev *chardev);                               /* any thread */
    bool (*is_open)(struct chardev *chardev);                                    /* any thread */
    void (*attached)(struct chardev *chardev);
    void (*no_signals)(struct chardev *chardev); /* the keys for signals are input too; may be NULL */
    void (*free)(struct chardev *chardev);
};

struct chardev {
    /* fixed after open */
    const struct chardev_kind *kind;
    char id[CHARDEV_ID_MAX];
    char describe[CHARDEV_ADDRESS_MAX + 64];
    /* owner: the loop's thread */
    const struct chardev_client *client;
    void *opaque;
    void (*resumed)(void *opaque); /* the mux on top: chardev_accept_input() has reached the loop */
    struct chardev *next;
};

enum chardev_type { CHARDEV_NULL, CHARDEV_STDIO, CHARDEV_FILE, CHARDEV_PTY, CHARDEV_UNIX, CHARDEV_TCP };

struct chardev_spec {
    enum chardev_type type;
    char path[CHARDEV_ADDRESS_MAX];
    char host[CHARDEV_ADDRESS_MAX];
    char port[16];
    bool server, wait, append, mux;
    bool insecure; /* tcp: the user knows who may come */
    bool signal;   /* stdio: Ctrl-C is a signal */
};

int chardev_spec_parse(const char *text, struct chardev_spec *out, struct err *err);

void chardev_register(struct chardev *chardev, const struct chardev_kind *kind, const char *id);
void chardev_unregister(struct chardev *chardev);
size_t chardev_client_room(struct chardev *chardev);
void chardev_deliver(struct chardev *chardev, const uint8_t *data, size_t bytes);
void chardev_tell_open(struct chardev *chardev, bool open);
void chardev_tell_writable(struct chardev *chardev);

/* Descriptors ready for a stream. Not used ones are -1; in and out may be the same (a socket, a pty). */
struct chardev_fds {
    int in, out, listener;
    bool socket;                           /* send(), and a peer that may leave */
    bool pty;                              /* leaving shows as a hang-up that ends when the next one comes */
    char unlink_path[CHARDEV_ADDRESS_MAX]; /* removed at the end; "" nothing */
    void (*restore)(void);                 /* the terminal; may be NULL */
    void (*no_signals)(void);
};

int chardev_fds_open(const struct chardev_spec *spec, struct chardev_fds *fds, char *describe, size_t describe_size,
                     struct err *err);
int chardev_stream_new(const char *id, const struct chardev_fds *fds, uv_loop_t *loop, struct chardev **out,
                       struct err *err); /* takes the descriptors, also when it fails */
