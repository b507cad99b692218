/* Character devices: the host end of a serial line, a virtio console or a monitor.
 *
 *   stdio | file:PATH or file,path= | unix:PATH[,server=on][,wait=off] | tcp:HOST:PORT[,server=on,wait=off,insecure=on]
 *   | pty | null | none | and the -chardev forms socket,path=|host=,port=... stdio file,path= pty null
 * "mon:" in front, or mux=on behind, asks for a mux (Ctrl-a c switches to the monitor, Ctrl-a x quits): the caller
 * sees it with chardev_spec_mux(), opens the back end and joins it with chardev_mux(). "chardev:ID" is the caller's.
 *
 * Input arrives on the control loop's thread (libuv), never with a lock held. Output may come from any thread:
 * chardev_write() never blocks; what the host does not take at once is queued up to CHARDEV_QUEUE_MAX bytes,
 * more is refused (a UART then keeps its transmitter busy and tries again when told it is writable; a host end
 * that nobody is connected to swallows everything, as a serial line does). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { CHARDEV_QUEUE_MAX = 64 * 1024 };

typedef struct uv_loop_s uv_loop_t;
struct chardev;

struct chardev_client {                  /* whoever uses the guest-facing end */
    size_t (*can_receive)(void *opaque); /* bytes it takes now */
    void (*receive)(void *opaque, const uint8_t *data, size_t bytes);
    void (*writable)(void *opaque);          /* room again after a short chardev_write; may be NULL */
    void (*opened)(void *opaque, bool open); /* somebody connected or left; may be NULL */
};

/* Opens by specification; `id` may be NULL. All opens and frees on the loop's thread. */
int chardev_open(const char *id, const char *spec, uv_loop_t *loop, struct chardev **out, struct err *err);
/* Replaces the client; opened(true) is called from here when somebody is there already. NULL detaches. */
void chardev_attach(struct chardev *chardev, const struct chardev_client *client, void *opaque);
size_t chardev_write(struct chardev *chardev, const void *data, size_t bytes); /* bytes taken */
void chardev_accept_input(struct chardev *chardev);                            /* any thread: can_receive has grown */
bool chardev_is_open(struct chardev *chardev);
const char *chardev_describe(const struct chardev *chardev); /* "pty:/dev/pts/3" */
const char *chardev_id(const struct chardev *chardev);       /* "" when it has none */
void chardev_free(struct chardev *chardev);                  /* restores the terminal; NULL allowed */
bool chardev_spec_mux(const char *spec);
/* It listens on tcp, and nobody has said with insecure=on that whoever comes may come: not for a monitor. Beyond loopback
 * chardev_open() refuses it for everybody. */
bool chardev_spec_exposed(const char *text);
void chardev_walk(void (*visit)(void *opaque, struct chardev *chardev), void *opaque); /* every open one */

/* A mux: two front ends on one chardev, focus switched with Ctrl-a c. quit is called on Ctrl-a x. The back end is the
 * mux's from here on, also when this fails, and goes with the last of the two front ends. The serial line has the
 * focus first; a front end sees opened() when the focus comes and goes. */
int chardev_mux(struct chardev *back, void (*quit)(void *opaque), void *opaque, struct chardev **serial,
                struct chardev **monitor, struct err *err);
