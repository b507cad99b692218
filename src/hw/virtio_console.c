/* virtio console (virtio 1.2, 5.3): one port on a chardev; queue 0 towards the guest, queue 1 from it.
 *
 * Output that the host end refuses stays in the ring, `tx_done` bytes of its first chain already sent: the driver
 * feels the back-pressure, and a migrated guest loses no character and sees none twice. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hw/devices.h"
#include "hw/virtio.h"

enum { CONSOLE_RX, CONSOLE_TX, CONSOLE_QUEUES };
enum { CONSOLE_QUEUE_SIZE = 64, CONSOLE_INPUT_MAX = 1024, CONSOLE_PIECE_BYTES = 1024 };
enum { CONSOLE_OUTPUT_MAX = 1024 * 1024 }; /* one chain; what a vCPU may be held for */
enum { CONFIG_MAX_PORTS = 4, CONFIG_EMERGENCY = 8, CONFIG_BYTES = 12 };
#define CONSOLE_F_EMERGENCY_WRITE (UINT64_C(1) << 2)

struct console_state {
    struct virtio_state virtio;
    uint32_t tx_done; /* bytes of the oldest chain that the host end has */
    uint32_t spare;
};

struct console {
    struct virtio_backend backend;
    /* fixed after new */
    struct chardev *chardev;
    /* under the device's lock */
    struct console_state state;
    /* Input that was on its way when the machine paused or the driver took its buffers back. It stays on this side, as
     * bytes in the host's terminal do, so it is no part of the state. */
    uint8_t held[CONSOLE_INPUT_MAX];
    size_t held_bytes;
};

static const struct virtio_backend_ops console_ops;

static const struct field console_fields[] = {
    VIRTIO_STATE_ROW(struct console_state),
    FIELD_U32_MAX_OF(struct console_state, tx_done, CONSOLE_OUTPUT_MAX),
    FIELD_DERIVED_OF(struct console_state, spare),
    FIELD_TABLE_END,
};

static int console_validate(const void *object, struct err *err)
{
    return virtio_validate(&console_ops, &((const struct console_state *)object)->virtio, err);
}

static const struct state_desc console_desc = {
    .name = "godwit/virtio-console",
    .version = 1,
    .min_version = 1,
    .object_size = sizeof(struct console_state),
    .fields = console_fields,
    .validate = console_validate,
};

static struct console *console_of(struct virtio_backend *backend)
{
    return (struct console *)backend;
}

static bool queue_live(struct console *c, unsigned queue)
{
    return virtio_running(&c->backend) && c->state.virtio.queue[queue].ready;
}

/* --- from the guest ---------------------------------------------------------------------------------------- */

/* False: the host end is full, and will tell us. */
static bool send_chain(struct console *c, struct vring *ring, const struct vring_chain *chain)
{
    uint8_t piece[CONSOLE_PIECE_BYTES];
    while (c->state.tx_done < chain->readable_bytes) {
        size_t bytes = vring_copy_from(ring, chain, c->state.tx_done, piece, sizeof(piece));
        size_t taken = chardev_write(c->chardev, piece, bytes);
        c->state.tx_done += (uint32_t)taken;
        if (taken < bytes)
            return false;
        if (!bytes)
            break;
    }
    c->state.tx_done = 0;
    return true;
}

static void send_all(struct console *c)
{
    if (!queue_live(c, CONSOLE_TX))
        return;
    struct vring ring = virtio_ring(&c->backend, CONSOLE_TX);
    struct vring_chain chain;
    enum vring_result result = VRING_CHAIN;
    unsigned budget = ring.state->num;
    while (budget && (result = vring_peek(&ring, &chain)) == VRING_CHAIN) {
        if (chain.readable_bytes > CONSOLE_OUTPUT_MAX) {
            ring.why = "the driver writes more than 1 MiB at once";
            result = VRING_BROKEN;
            break;
        }
        if (!send_chain(c, &ring, &chain))
            break;
        vring_take(&ring);
        if (!vring_put(&ring, chain.head, 0)) {
            result = VRING_BROKEN;
            break;
        }
        budget--;
    }
    if (result == VRING_CHAIN)
        vring_ask_again(&ring);
    virtio_interrupt(&c->backend, &ring);
    if (result == VRING_BROKEN)
        virtio_break(&c->backend, ring.why);
}

static void console_writable(void *opaque)
{
    struct console *c = opaque;
    virtio_lock(&c->backend);
    send_all(c);
    virtio_unlock(&c->backend);
}

/* --- towards the guest ------------------------------------------------------------------------------------- */

/* Give the oldest buffer back with what of `data` fits, and say how much that was in *taken. An empty buffer of a
 * silly driver takes nothing. False: no buffer. */
static bool fill_buffer(struct console *c, struct vring *ring, const uint8_t *data, size_t bytes, size_t *taken)
{
    struct vring_chain chain;
    enum vring_result result = vring_peek(ring, &chain);
    *taken = 0;
    if (result == VRING_CHAIN) {
        *taken = vring_copy_to(ring, &chain, 0, data, bytes);
        vring_take(ring);
        if (vring_put(ring, chain.head, (uint32_t)*taken))
            return true;
        result = VRING_BROKEN;
    }
    if (result == VRING_BROKEN)
        virtio_break(&c->backend, ring->why);
    return false;
}

static size_t deliver(struct console *c, const uint8_t *data, size_t bytes)
{
    if (!queue_live(c, CONSOLE_RX))
        return 0;
    struct vring ring = virtio_ring(&c->backend, CONSOLE_RX);
    size_t done = 0, taken;
    for (unsigned budget = ring.state->num; done < bytes && budget; budget--) {
        bool filled = fill_buffer(c, &ring, data + done, bytes - done, &taken);
        done += taken;
        if (!filled)
            break;
    }
    if (done)
        virtio_interrupt(&c->backend, &ring);
    return done;
}

static void deliver_held(struct console *c)
{
    if (!c->held_bytes)
        return;
    size_t done = deliver(c, c->held, c->held_bytes);
    c->held_bytes -= done;
    memmove(c->held, c->held + done, c->held_bytes);
}

static size_t console_can_receive(void *opaque)
{
    struct console *c = opaque;
    size_t room = 0;
    virtio_lock(&c->backend);
    if (queue_live(c, CONSOLE_RX) && !c->held_bytes) {
        struct vring ring = virtio_ring(&c->backend, CONSOLE_RX);
        struct vring_chain chain;
        enum vring_result result = vring_peek(&ring, &chain);
        /* An empty buffer counts as one byte: receiving gets rid of it. */
        if (result == VRING_CHAIN)
            room = chain.writable_bytes ? (size_t)chain.writable_bytes : 1;
        else if (result == VRING_BROKEN)
            virtio_break(&c->backend, ring.why);
    }
    virtio_unlock(&c->backend);
    return room < CONSOLE_INPUT_MAX ? room : CONSOLE_INPUT_MAX;
}

static void console_receive(void *opaque, const uint8_t *data, size_t bytes)
{
    struct console *c = opaque;
    virtio_lock(&c->backend);
    size_t done = c->held_bytes ? 0 : deliver(c, data, bytes);
    /* What can_receive promised and a pause or the driver took back since. */
    size_t rest = bytes - done, room = sizeof(c->held) - c->held_bytes;
    if (rest > room)
        rest = room;
    memcpy(c->held + c->held_bytes, data + done, rest);
    c->held_bytes += rest;
    virtio_unlock(&c->backend);
}

/* --- the device's side ------------------------------------------------------------------------------------- */

static uint32_t console_config_read(struct virtio_backend *backend, unsigned offset, unsigned size)
{
    (void)backend;
    /* cols, rows: unknown; one port */
    uint8_t config[CONFIG_BYTES + 4] = { [CONFIG_MAX_PORTS] = 1 };
    uint32_t value = 0;
    memcpy(&value, config + offset, size);
    return value;
}

static void console_config_write(struct virtio_backend *backend, unsigned offset, uint32_t value, unsigned size)
{
    (void)size;
    uint8_t byte = (uint8_t)value;
    if (offset == CONFIG_EMERGENCY)
        chardev_write(console_of(backend)->chardev, &byte, 1); /* a cry for help; nobody waits for room */
}

static void console_notify(struct virtio_backend *backend, unsigned queue)
{
    struct console *c = console_of(backend);
    if (queue == CONSOLE_TX) {
        send_all(c);
    } else {
        deliver_held(c);
        chardev_accept_input(c->chardev);
    }
}

static void console_reset(struct virtio_backend *backend)
{
    struct console *c = console_of(backend);
    c->state.tx_done = 0;
    c->held_bytes = 0;
}

static void console_resume(struct virtio_backend *backend)
{
    struct console *c = console_of(backend);
    virtio_lock(backend);
    send_all(c);
    deliver_held(c);
    virtio_unlock(backend);
    chardev_accept_input(c->chardev);
}

static const struct chardev_client console_client = {
    .can_receive = console_can_receive,
    .receive = console_receive,
    .writable = console_writable,
};

static void console_attached(struct virtio_backend *backend)
{
    chardev_attach(console_of(backend)->chardev, &console_client, backend);
}

static void console_free(struct virtio_backend *backend)
{
    if (backend->dev)
        chardev_attach(console_of(backend)->chardev, NULL, NULL);
    free(backend);
}

static const struct virtio_backend_ops console_ops = {
    .name = "virtio-console",
    .device_id = VIRTIO_ID_CONSOLE,
    .features = CONSOLE_F_EMERGENCY_WRITE,
    .queues = CONSOLE_QUEUES,
    .queue_size_max = CONSOLE_QUEUE_SIZE,
    .config_bytes = CONFIG_BYTES,
    .state = &console_desc,
    .config_read = console_config_read,
    .config_write = console_config_write,
    .attached = console_attached,
    .notify = console_notify,
    .reset = console_reset,
    .resume = console_resume,
    .free = console_free,
};

struct virtio_backend *virtio_console_new(struct chardev *chardev, struct err *err)
{
    struct console *c = calloc(1, sizeof(*c));
    if (!c) {
        err_set(err, -ENOMEM, "no memory for virtio-console");
        return NULL;
    }
    c->backend.ops = &console_ops;
    c->backend.state = &c->state.virtio;
    c->chardev = chardev;
    return &c->backend;
}
