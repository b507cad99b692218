/* virtio entropy source (virtio 1.2, 5.4): fills the driver's buffers from the host's random pool.
 *
 * Done right in the notification, on the vCPU's thread: getrandom() does not block and a buffer gets at most
 * RNG_BUFFER_MAX bytes, which the driver is told. */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "hw/devices.h"
#include "hw/virtio.h"

enum { RNG_QUEUE_SIZE = 64, RNG_BUFFER_MAX = 1024 };

struct rng_state {
    struct virtio_state virtio;
};

struct rng {
    struct virtio_backend backend;
    /* under the device's lock */
    struct rng_state state;
};

static const struct virtio_backend_ops rng_ops;

static const struct field rng_fields[] = { VIRTIO_STATE_ROW(struct rng_state), FIELD_TABLE_END };

static int rng_validate(const void *object, struct err *err)
{
    return virtio_validate(&rng_ops, &((const struct rng_state *)object)->virtio, err);
}

static const struct state_desc rng_desc = {
    .name = "godwit/virtio-rng",
    .version = 1,
    .min_version = 1,
    .object_size = sizeof(struct rng_state),
    .fields = rng_fields,
    .validate = rng_validate,
};

/* False: the host has no randomness yet; the chain stays where it is. */
static bool fill(struct vring *ring, const struct vring_chain *chain, uint32_t *written)
{
    uint8_t random[RNG_BUFFER_MAX];
    size_t wanted = chain->writable_bytes < sizeof(random) ? (size_t)chain->writable_bytes : sizeof(random);
    ssize_t got = wanted ? getrandom(random, wanted, GRND_NONBLOCK) : 0;
    if (got < 0)
        return false;
    *written = (uint32_t)vring_copy_to(ring, chain, 0, random, (size_t)got);
    return true;
}

static void rng_notify(struct virtio_backend *backend, unsigned queue)
{
    struct vring ring = virtio_ring(backend, queue);
    struct vring_chain chain;
    enum vring_result result = VRING_CHAIN;
    unsigned budget = ring.state->num; /* a driver that adds as fast as we fill must not keep its vCPU in here */
    while (budget && (result = vring_peek(&ring, &chain)) == VRING_CHAIN) {
        uint32_t written = 0;
        if (!fill(&ring, &chain, &written))
            break;
        vring_take(&ring);
        if (!vring_put(&ring, chain.head, written)) {
            result = VRING_BROKEN;
            break;
        }
        budget--;
    }
    if (result == VRING_CHAIN)
        vring_ask_again(&ring);
    virtio_interrupt(backend, &ring);
    if (result == VRING_BROKEN)
        virtio_break(backend, ring.why);
}

static void rng_resume(struct virtio_backend *backend)
{
    virtio_lock(backend);
    virtio_notify(backend, 0);
    virtio_unlock(backend);
}

static void rng_free(struct virtio_backend *backend)
{
    free(backend);
}

static const struct virtio_backend_ops rng_ops = {
    .name = "virtio-rng-device",
    .device_id = VIRTIO_ID_RNG,
    .queues = 1,
    .queue_size_max = RNG_QUEUE_SIZE,
    .state = &rng_desc,
    .notify = rng_notify,
    .resume = rng_resume,
    .free = rng_free,
};

struct virtio_backend *virtio_rng_new(struct err *err)
{
    struct rng *rng = calloc(1, sizeof(*rng));
    if (!rng) {
        err_set(err, -ENOMEM, "no memory for virtio-rng");
        return NULL;
    }
    rng->backend.ops = &rng_ops;
    rng->backend.state = &rng->state.virtio;
    return &rng->backend;
}
