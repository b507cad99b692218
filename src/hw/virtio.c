#include "hw/virtio.h"

#include <errno.h>
#include <string.h>

enum { VIRTIO_ISR_MASK = VIRTIO_ISR_QUEUE | VIRTIO_ISR_CONFIG, VIRTIO_LEGACY_ALIGN = 4096 };
#define RING_FEATURES (VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX)

const struct field virtio_fields[] = {
    FIELD_U64_OF(struct virtio_state, driver_features),
    FIELD_U32_OF(struct virtio_state, device_features_sel),
    FIELD_U32_OF(struct virtio_state, driver_features_sel),
    FIELD_U32_OF(struct virtio_state, queue_sel),
    FIELD_U32_MAX_OF(struct virtio_state, isr, VIRTIO_ISR_MASK),
    FIELD_U32_OF(struct virtio_state, config_generation),
    FIELD_U32_OF(struct virtio_state, legacy_page_bytes),
    FIELD_U8_OF(struct virtio_state, status),
    FIELD_BOOL_OF(struct virtio_state, broken),
    FIELD_DERIVED_OF(struct virtio_state, spare),
    FIELD_STRUCTS_OF(struct virtio_state, queue, VIRTIO_QUEUES_MAX, vring_fields),
    FIELD_TABLE_END,
};

int virtio_validate(const struct virtio_backend_ops *ops, const struct virtio_state *state, struct err *err)
{
    uint64_t known = ops->features | RING_FEATURES | VIRTIO_F_VERSION_1 | VIRTIO_F_ANY_LAYOUT;
    /* A modern driver may leave nonsense there until FEATURES_OK has judged it. */
    if ((state->status & VIRTIO_STATUS_FEATURES_OK) && (state->driver_features & ~known))
        return err_set(err, -EPROTO, "features %#llx were accepted but do not exist",
                       (unsigned long long)(state->driver_features & ~known));
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        if (i >= ops->queues && (state->queue[i].ready || state->queue[i].num))
            return err_set(err, -EPROTO, "queue %u is in use, but %s has %u", i, ops->name, ops->queues);
        if (vring_validate(&state->queue[i], ops->queue_size_max, err) < 0)
            return err_prefix(err, "queue %u", i);
    }
    return 0;
}

uint64_t virtio_device_features(const struct virtio_backend *backend)
{
    return backend->ops->features | RING_FEATURES | (backend->legacy ? VIRTIO_F_ANY_LAYOUT : VIRTIO_F_VERSION_1);
}

bool virtio_has_feature(const struct virtio_backend *backend, uint64_t feature)
{
    return backend->state->driver_features & feature;
}

bool virtio_running(const struct virtio_backend *backend)
{
    return (backend->state->status & VIRTIO_STATUS_DRIVER_OK) && !backend->state->broken && !backend->drained;
}

struct vring virtio_ring(struct virtio_backend *backend, unsigned queue)
{
    trail_as(backend->ops->name);
    return (struct vring){
        .ram = backend->ram,
        .state = &backend->state->queue[queue],
        .event_idx = virtio_has_feature(backend, VIRTIO_F_EVENT_IDX),
        .indirect = virtio_has_feature(backend, VIRTIO_F_INDIRECT_DESC),
    };
}

void virtio_update_irq(struct virtio_backend *backend)
{
    irq_set(&backend->irq, backend->state->isr != 0);
}

void virtio_interrupt(struct virtio_backend *backend, struct vring *ring)
{
    if (!vring_wants_interrupt(ring))
        return;
    backend->state->isr |= VIRTIO_ISR_QUEUE;
    virtio_update_irq(backend);
}

void virtio_break(struct virtio_backend *backend, const char *why)
{
    struct virtio_state *s = backend->state;
    if (s->broken)
        return;
    s->broken = 1;
    backend->broken_why = why;
    if (backend->legacy)
        return; /* older drivers know no such bit: the device just falls silent */
    s->status |= VIRTIO_STATUS_NEEDS_RESET;
    if (s->status & VIRTIO_STATUS_DRIVER_OK) {
        s->isr |= VIRTIO_ISR_CONFIG;
        virtio_update_irq(backend);
    }
}

void virtio_reset(struct virtio_backend *backend)
{
    if (backend->ops->reset)
        backend->ops->reset(backend);
    memset(backend->state, 0, sizeof(*backend->state));
    for (unsigned i = 0; i < backend->ops->queues; i++) {
        backend->state->queue[i].num = backend->ops->queue_size_max;
        backend->state->queue[i].legacy_align = VIRTIO_LEGACY_ALIGN;
    }
    backend->broken_why = NULL;
    virtio_update_irq(backend);
}

void virtio_set_status(struct virtio_backend *backend, uint8_t status)
{
    struct virtio_state *s = backend->state;
    uint8_t was = s->status;
    if (status == 0) {
        /* The page size belongs to the transport: drivers set it once and reset the device afterwards. */
        uint32_t page_bytes = s->legacy_page_bytes;
        virtio_reset(backend);
        s->legacy_page_bytes = page_bytes;
        return;
    }
    status &= VIRTIO_STATUS_DRIVER_BITS;
    if (!backend->legacy) {
        bool agreed =
            (s->driver_features & VIRTIO_F_VERSION_1) && !(s->driver_features & ~virtio_device_features(backend));
        if (!agreed)
            status &= (uint8_t)~VIRTIO_STATUS_FEATURES_OK;
        if (!(status & VIRTIO_STATUS_FEATURES_OK))
            status &= (uint8_t)~VIRTIO_STATUS_DRIVER_OK;
    }
    s->status = status | (was & VIRTIO_STATUS_NEEDS_RESET);
    if (status & ~was & VIRTIO_STATUS_DRIVER_OK)
        for (unsigned i = 0; i < backend->ops->queues; i++)
            virtio_notify(backend, i); /* a driver may have filled its queues before it was ready */
}

void virtio_enable_queue(struct virtio_backend *backend, unsigned queue)
{
    struct vring ring = virtio_ring(backend, queue);
    if (vring_check_layout(&ring))
        ring.state->ready = 1;
    else
        virtio_break(backend, ring.why);
}

void virtio_notify(struct virtio_backend *backend, uint32_t queue)
{
    if (queue < backend->ops->queues && virtio_running(backend) && backend->state->queue[queue].ready)
        backend->ops->notify(backend, queue);
}
