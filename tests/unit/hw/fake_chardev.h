/* A chardev for device tests: what the device writes is kept, `room` says how much more it takes, and input is handed
 * over as the control loop would. Defines the chardev_*() that devices call, so the real ones are not linked. */
#pragma once
#include <assert.h>
#include <string.h>

#include "base/chardev.h"

enum { FAKE_OUT_MAX = 8192 };

struct chardev {
    const struct chardev_client *client;
    void *opaque;
    char out[FAKE_OUT_MAX + 1];
    size_t out_bytes;
    size_t room;       /* bytes it takes before it refuses */
    unsigned accepted; /* chardev_accept_input calls */
};

void chardev_attach(struct chardev *chardev, const struct chardev_client *client, void *opaque)
{
    chardev->client = client;
    chardev->opaque = opaque;
}

size_t chardev_write(struct chardev *chardev, const void *data, size_t bytes)
{
    size_t taken = bytes < chardev->room ? bytes : chardev->room;
    assert(chardev->out_bytes + taken <= FAKE_OUT_MAX);
    memcpy(chardev->out + chardev->out_bytes, data, taken);
    chardev->out_bytes += taken;
    chardev->room -= taken;
    return taken;
}

void chardev_accept_input(struct chardev *chardev)
{
    chardev->accepted++;
}

static inline void fake_open(struct chardev *chardev)
{
    memset(chardev, 0, sizeof(*chardev));
    chardev->room = FAKE_OUT_MAX;
}

/* As much of `text` as the device takes; how much that was. */
static inline size_t fake_type(struct chardev *chardev, const char *text)
{
    size_t bytes = strlen(text), room = chardev->client->can_receive(chardev->opaque);
    if (bytes > room)
        bytes = room;
    if (bytes)
        chardev->client->receive(chardev->opaque, (const uint8_t *)text, bytes);
    return bytes;
}

static inline void fake_make_room(struct chardev *chardev, size_t room)
{
    chardev->room = room;
    chardev->client->writable(chardev->opaque);
}
