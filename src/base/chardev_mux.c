/* A mux: the serial line and the monitor share one terminal. Output of both is shown; input goes to the one that
 * has the focus. Ctrl-a c switches, Ctrl-a x quits, Ctrl-a Ctrl-a (or Ctrl-a a) types a Ctrl-a, Ctrl-a h helps.
 *
 * Input that a front end does not take yet waits in a small buffer of its own, so that the keys above work while
 * the guest does not read its serial line. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/chardev_priv.h"

enum { MUX_FRONTS = 2, MUX_BUFFER_BYTES = 4096, MUX_ESCAPE = 0x01 };

struct mux;

struct front {
    struct chardev chardev;
    struct mux *mux;
    /* owner: the loop's thread */
    uint8_t buffer[MUX_BUFFER_BYTES];
    size_t count;
    bool freed;
};

struct mux {
    /* fixed after new */
    struct chardev *back;
    void (*quit)(void *opaque);
    void *opaque;
    /* owner: the loop's thread */
    struct front front[MUX_FRONTS]; /* serial, monitor */
    unsigned focus;
    bool escaped; /* the last byte was Ctrl-a */
};

static struct front *front_of(struct chardev *chardev)
{
    return (struct front *)chardev;
}

static void say(struct mux *mux, const char *text)
{
    chardev_write(mux->back, text, strlen(text));
}

/* --- input ---------------------------------------------------------------------------------------------- */

static void deliver(struct front *front)
{
    while (front->count > 0) {
        size_t room = chardev_client_room(&front->chardev), take = room < front->count ? room : front->count;
        if (take == 0)
            return;
        uint8_t bytes[MUX_BUFFER_BYTES];
        memcpy(bytes, front->buffer, take);
        front->count -= take;
        memmove(front->buffer, front->buffer + take, front->count);
        chardev_deliver(&front->chardev, bytes, take);
    }
}

static void keep(struct mux *mux, uint8_t byte)
{
    struct front *front = &mux->front[mux->focus];
    if (front->count < sizeof front->buffer)
        front->buffer[front->count++] = byte;
}

static void switch_focus(struct mux *mux)
{
    struct front *from = &mux->front[mux->focus];
    deliver(from);
    mux->focus = (mux->focus + 1) % MUX_FRONTS;
    struct front *to = &mux->front[mux->focus];
    if (!from->freed)
        chardev_tell_open(&from->chardev, false);
    if (!to->freed)
        chardev_tell_open(&to->chardev, true);
}

static void escape_key(struct mux *mux, uint8_t key)
{
    switch (key) {
    case 'c': switch_focus(mux); break;
    case 'x':
        say(mux, "\r\ngodwit: terminated\r\n");
        if (mux->quit)
            mux->quit(mux->opaque);
        break;
    case 'a':
    case MUX_ESCAPE: keep(mux, MUX_ESCAPE); break;
    case 'h':
    case '?':
        say(mux, "\r\nCtrl-a h  this help\r\nCtrl-a c  switch between serial line and monitor\r\n"
                 "Ctrl-a x  quit\r\nCtrl-a a  type Ctrl-a\r\n");
        break;
    default: break;
    }
}

static void back_receive(void *opaque, const uint8_t *data, size_t bytes)
{
    struct mux *mux = opaque;
    for (size_t i = 0; i < bytes; i++) {
        if (mux->escaped) {
            mux->escaped = false;
            escape_key(mux, data[i]);
        } else if (data[i] == MUX_ESCAPE) {
            mux->escaped = true;
        } else {
            keep(mux, data[i]);
        }
    }
    deliver(&mux->front[mux->focus]);
}

static size_t back_can_receive(void *opaque)
{
    struct mux *mux = opaque;
    return sizeof mux->front[0].buffer - mux->front[mux->focus].count;
}

static void back_writable(void *opaque)
{
    struct mux *mux = opaque;
    for (unsigned i = 0; i < MUX_FRONTS; i++)
        chardev_tell_writable(&mux->front[i].chardev);
}

static void back_opened(void *opaque, bool open)
{
    struct mux *mux = opaque;
    mux->escaped = false;
    chardev_tell_open(&mux->front[mux->focus].chardev, open);
}

/* A front end takes more again: what it left in its buffer comes first. */
static void back_resumed(void *opaque)
{
    struct mux *mux = opaque;
    for (unsigned i = 0; i < MUX_FRONTS; i++)
        deliver(&mux->front[i]);
}

static const struct chardev_client back_client = {
    .can_receive = back_can_receive,
    .receive = back_receive,
    .writable = back_writable,
    .opened = back_opened,
};

/* --- the front ends ------------------------------------------------------------------------------------- */

static size_t front_write(struct chardev *chardev, const uint8_t *data, size_t bytes)
{
    return chardev_write(front_of(chardev)->mux->back, data, bytes);
}

/* Any thread: the back end wakes the loop, which comes back as back_resumed(). */
static void front_accept_input(struct chardev *chardev)
{
    chardev_accept_input(front_of(chardev)->mux->back);
}

static bool front_is_open(struct chardev *chardev)
{
    struct front *front = front_of(chardev);
    return front == &front->mux->front[front->mux->focus] && chardev_is_open(front->mux->back);
}

static void front_attached(struct chardev *chardev)
{
    struct front *front = front_of(chardev);
    deliver(front);
    chardev_accept_input(front->mux->back);
}

static void front_free(struct chardev *chardev)
{
    struct front *front = front_of(chardev);
    struct mux *mux = front->mux;
    front->freed = true;
    front->chardev.client = NULL;
    if (!mux->front[0].freed || !mux->front[1].freed)
        return;
    chardev_free(mux->back);
    free(mux);
}

static const struct chardev_kind front_kind = {
    .write = front_write,
    .accept_input = front_accept_input,
    .is_open = front_is_open,
    .attached = front_attached,
    .free = front_free,
};

int chardev_mux(struct chardev *back, void (*quit)(void *opaque), void *opaque, struct chardev **serial,
                struct chardev **monitor, struct err *err)
{
    struct mux *mux = calloc(1, sizeof *mux);
    if (!mux) {
        chardev_free(back);
        return err_set(err, -ENOMEM, "no memory for a chardev mux");
    }
    *mux = (struct mux){ .back = back, .quit = quit, .opaque = opaque };
    for (unsigned i = 0; i < MUX_FRONTS; i++) {
        struct front *front = &mux->front[i];
        front->mux = mux;
        front->chardev.kind = &front_kind; /* not registered: one terminal is one entry in the list */
        snprintf(front->chardev.describe, sizeof front->chardev.describe, "mux:%.300s", back->describe);
        snprintf(front->chardev.id, sizeof front->chardev.id, "%s", back->id);
    }
    if (back->kind->no_signals)
        back->kind->no_signals(back);
    *serial = &mux->front[0].chardev;
    *monitor = &mux->front[1].chardev;
    back->resumed = back_resumed;
    chardev_attach(back, &back_client, mux);
    return 0;
}
