/* virtio over MMIO (virtio 1.2, 4.2): modern register layout (version 2) and legacy (version 1, 4.2.4). */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "hw/devices.h"
#include "hw/virtio.h"

enum { VIRTIO_MMIO_BYTES = 0x1000, MMIO_MAGIC = 0x74726976, MMIO_VENDOR = 0x54574447 };
enum {
    REG_MAGIC = 0x000,
    REG_VERSION = 0x004,
    REG_DEVICE_ID = 0x008,
    REG_VENDOR_ID = 0x00c,
    REG_DEVICE_FEATURES = 0x010,
    REG_DEVICE_FEATURES_SEL = 0x014,
    REG_DRIVER_FEATURES = 0x020,
    REG_DRIVER_FEATURES_SEL = 0x024,
    REG_LEGACY_PAGE_BYTES = 0x028,
    REG_QUEUE_SEL = 0x030,
    REG_QUEUE_NUM_MAX = 0x034,
    REG_QUEUE_NUM = 0x038,
    REG_LEGACY_ALIGN = 0x03c,
    REG_LEGACY_PFN = 0x040,
    REG_QUEUE_READY = 0x044,
    REG_QUEUE_NOTIFY = 0x050,
    REG_INTERRUPT_STATUS = 0x060,
    REG_INTERRUPT_ACK = 0x064,
    REG_STATUS = 0x070,
    REG_DESC_LOW = 0x080,
    REG_DESC_HIGH = 0x084,
    REG_AVAIL_LOW = 0x090,
    REG_AVAIL_HIGH = 0x094,
    REG_USED_LOW = 0x0a0,
    REG_USED_HIGH = 0x0a4,
    REG_SHM_FIRST = 0x0b0,
    REG_SHM_LAST = 0x0bc,
    REG_CONFIG_GENERATION = 0x0fc,
    REG_CONFIG = 0x100,
};

struct virtio_mmio {
    struct device dev;
    struct device_ops ops;          /* fixed after new: name and state are the backend's */
    struct virtio_backend *backend; /* NULL: an empty slot */
    bool legacy;
};

/* --- reading ----------------------------------------------------------------------------------------------- */

static const struct vring_state *selected_queue(const struct virtio_backend *b)
{
    return b->state->queue_sel < b->ops->queues ? &b->state->queue[b->state->queue_sel] : NULL;
}

static uint32_t feature_word(uint64_t features, uint32_t sel)
{
    return sel < 2 ? (uint32_t)(features >> 32 * sel) : 0;
}

static uint32_t read_modern(const struct virtio_backend *b, uint64_t offset)
{
    const struct vring_state *queue = selected_queue(b);
    if (offset >= REG_SHM_FIRST && offset <= REG_SHM_LAST)
        return UINT32_MAX; /* no shared memory regions: length and base are all ones */
    switch (offset) {
    case REG_QUEUE_READY: return queue ? queue->ready : 0;
    case REG_CONFIG_GENERATION: return b->state->config_generation;
    default: return 0;
    }
}

static uint32_t read_legacy(const struct virtio_backend *b, uint64_t offset)
{
    const struct vring_state *queue = selected_queue(b);
    return offset == REG_LEGACY_PFN && queue ? queue->legacy_pfn : 0;
}

static uint32_t read_register(const struct virtio_mmio *m, uint64_t offset)
{
    const struct virtio_backend *b = m->backend;
    switch (offset) {
    case REG_MAGIC: return MMIO_MAGIC;
    case REG_VERSION: return m->legacy ? 1 : 2;
    case REG_DEVICE_ID: return b ? b->ops->device_id : 0;
    case REG_VENDOR_ID: return MMIO_VENDOR;
    default: break;
    }
    if (!b)
        return 0;
    switch (offset) {
    case REG_DEVICE_FEATURES: return feature_word(virtio_device_features(b), b->state->device_features_sel);
    case REG_QUEUE_NUM_MAX: return selected_queue(b) ? b->ops->queue_size_max : 0;
    case REG_INTERRUPT_STATUS: return b->state->isr;
    case REG_STATUS: return b->state->status;
    default: return m->legacy ? read_legacy(b, offset) : read_modern(b, offset);
    }
}

static bool in_config(const struct virtio_mmio *m, uint64_t offset, unsigned size)
{
    return m->backend && offset >= REG_CONFIG && offset - REG_CONFIG + size <= m->backend->ops->config_bytes;
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
    struct virtio_mmio *m = opaque;
    uint32_t value = 0;
    lock(&m->dev.lock);
    if (in_config(m, offset, size) && m->backend->ops->config_read)
        value = m->backend->ops->config_read(m->backend, (unsigned)(offset - REG_CONFIG), size);
    else if (offset < REG_CONFIG && size == 4)
        value = read_register(m, offset);
    unlock(&m->dev.lock);
    return value;
}

/* --- writing ----------------------------------------------------------------------------------------------- */

static void set_half(uint64_t *address, bool high, uint32_t value)
{
    *address = high ? (*address & UINT32_MAX) | (uint64_t)value << 32 : (*address & ~(uint64_t)UINT32_MAX) | value;
}

static void write_driver_features(struct virtio_backend *b, uint32_t value)
{
    struct virtio_state *s = b->state;
    /* Settled features stay settled. */
    if (s->driver_features_sel > 1 || (s->status & (VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK)))
        return;
    set_half(&s->driver_features, s->driver_features_sel == 1, value);
    if (b->legacy) /* nothing judges a legacy driver's choice later */
        s->driver_features &= virtio_device_features(b);
}

static void write_queue_num(struct virtio_backend *b, struct vring_state *queue, uint32_t value)
{
    if (value == 0 || value > b->ops->queue_size_max || (value & (value - 1)))
        virtio_break(b, "the driver chose an impossible queue size");
    else
        queue->num = (uint16_t)value;
}

static void disable_queue(struct virtio_backend *b, struct vring_state *queue)
{
    if (queue->ready && b->ops->quiesce)
        b->ops->quiesce(b, (unsigned)(queue - b->state->queue));
    queue->ready = 0;
    queue->last_avail = queue->used_idx = queue->signalled_used = 0;
}

static void write_modern(struct virtio_backend *b, struct vring_state *queue, uint64_t offset, uint32_t value)
{
    if (!queue)
        return;
    if (offset == REG_QUEUE_READY) {
        if (!(value & 1))
            disable_queue(b, queue);
        else if (!queue->ready)
            virtio_enable_queue(b, b->state->queue_sel);
        return;
    }
    if (queue->ready)
        return; /* the layout of a live queue cannot be changed */
    switch (offset) {
    case REG_DESC_LOW:
    case REG_DESC_HIGH: set_half(&queue->desc, offset == REG_DESC_HIGH, value); break;
    case REG_AVAIL_LOW:
    case REG_AVAIL_HIGH: set_half(&queue->avail, offset == REG_AVAIL_HIGH, value); break;
    case REG_USED_LOW:
    case REG_USED_HIGH: set_half(&queue->used, offset == REG_USED_HIGH, value); break;
    default: break;
    }
}

static void write_pfn(struct virtio_backend *b, struct vring_state *queue, uint32_t pfn)
{
    uint64_t align = queue->legacy_align;
    disable_queue(b, queue);
    queue->legacy_pfn = pfn;
    if (!pfn)
        return;
    if (!b->state->legacy_page_bytes || !align || (align & (align - 1))) {
        virtio_break(b, "the driver gave no page size or an impossible alignment");
        return;
    }
    queue->desc = (uint64_t)pfn * b->state->legacy_page_bytes;
    queue->avail = queue->desc + 16 * (uint64_t)queue->num;
    queue->used = (queue->avail + 6 + 2 * (uint64_t)queue->num + align - 1) & ~(align - 1);
    virtio_enable_queue(b, b->state->queue_sel);
}

static void write_legacy(struct virtio_backend *b, struct vring_state *queue, uint64_t offset, uint32_t value)
{
    if (offset == REG_LEGACY_PAGE_BYTES)
        b->state->legacy_page_bytes = value;
    else if (offset == REG_LEGACY_ALIGN && queue && !queue->ready)
        queue->legacy_align = value;
    else if (offset == REG_LEGACY_PFN && queue)
        write_pfn(b, queue, value);
}

static void write_register(struct virtio_mmio *m, uint64_t offset, uint32_t value)
{
    struct virtio_backend *b = m->backend;
    struct virtio_state *s = b->state;
    struct vring_state *queue = s->queue_sel < b->ops->queues ? &s->queue[s->queue_sel] : NULL;
    switch (offset) {
    case REG_DEVICE_FEATURES_SEL: s->device_features_sel = value; break;
    case REG_DRIVER_FEATURES_SEL: s->driver_features_sel = value; break;
    case REG_DRIVER_FEATURES: write_driver_features(b, value); break;
    case REG_QUEUE_SEL: s->queue_sel = value; break;
    case REG_QUEUE_NUM:
        if (queue && !queue->ready)
            write_queue_num(b, queue, value);
        break;
    case REG_QUEUE_NOTIFY: virtio_notify(b, value); break;
    case REG_INTERRUPT_ACK:
        s->isr &= ~value;
        virtio_update_irq(b);
        break;
    case REG_STATUS: virtio_set_status(b, (uint8_t)value); break;
    default:
        if (m->legacy)
            write_legacy(b, queue, offset, value);
        else
            write_modern(b, queue, offset, value);
    }
}

static void mmio_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct virtio_mmio *m = opaque;
    if (!m->backend)
        return;
    lock(&m->dev.lock);
    if (in_config(m, offset, size) && m->backend->ops->config_write)
        m->backend->ops->config_write(m->backend, (unsigned)(offset - REG_CONFIG), (uint32_t)value, size);
    else if (offset < REG_CONFIG && size == 4)
        write_register(m, offset, (uint32_t)value);
    unlock(&m->dev.lock);
}

/* --- life -------------------------------------------------------------------------------------------------- */

static struct virtio_backend *backend_of(struct device *dev)
{
    return ((struct virtio_mmio *)dev)->backend;
}

static void *mmio_state_object(struct device *dev)
{
    return backend_of(dev) ? backend_of(dev)->state : NULL;
}

static void mmio_reset(struct device *dev)
{
    if (!backend_of(dev))
        return;
    lock(&dev->lock);
    virtio_reset(backend_of(dev));
    unlock(&dev->lock);
}

static void mmio_loaded(struct device *dev)
{
    lock(&dev->lock);
    backend_of(dev)->broken_why = NULL;
    virtio_update_irq(backend_of(dev));
    unlock(&dev->lock);
}

static void mmio_drain(struct device *dev)
{
    struct virtio_backend *b = backend_of(dev);
    lock(&dev->lock);
    b->drained = true;
    unlock(&dev->lock);
    if (b->ops->drain)
        b->ops->drain(b);
}

static void mmio_resume(struct device *dev)
{
    struct virtio_backend *b = backend_of(dev);
    lock(&dev->lock);
    b->drained = false;
    unlock(&dev->lock);
    if (b->ops->resume)
        b->ops->resume(b);
}

static void mmio_free(struct device *dev)
{
    if (backend_of(dev))
        backend_of(dev)->ops->free(backend_of(dev));
    lock_destroy(&dev->lock);
    free(dev);
}

static const struct bus_ops mmio_bus = { .read = mmio_read, .write = mmio_write, .min_bytes = 1, .max_bytes = 4 };

static const struct device_ops empty_ops = {
    .name = "virtio-mmio",
    .bus = &mmio_bus,
    .reset = mmio_reset,
    .free = mmio_free,
};

static struct device_ops occupied_ops(const struct virtio_backend_ops *backend)
{
    return (struct device_ops){
        .name = backend->name,
        .state = backend->state,
        .bus = &mmio_bus,
        .state_object = mmio_state_object,
        .reset = mmio_reset,
        .loaded = mmio_loaded,
        .drain = mmio_drain,
        .resume = mmio_resume,
        .free = mmio_free,
    };
}

/* Owns the backend from here on, also when it fails. */
struct device *virtio_mmio_new(unsigned slot, struct ram *ram, struct irq_line irq, struct virtio_backend *backend,
                               bool legacy, struct err *err)
{
    struct virtio_mmio *m = calloc(1, sizeof(*m));
    if (!m) {
        if (backend)
            backend->ops->free(backend);
        err_set(err, -ENOMEM, "no memory for virtio-mmio slot %u", slot);
        return NULL;
    }
    m->ops = backend ? occupied_ops(backend->ops) : empty_ops;
    device_init(&m->dev, &m->ops, LOCK_DEVICE);
    m->dev.bytes = VIRTIO_MMIO_BYTES;
    m->dev.instance = slot;
    m->legacy = legacy;
    m->backend = backend;
    if (backend) {
        assert(backend->ops->queues <= VIRTIO_QUEUES_MAX && backend->ops->queue_size_max <= VRING_SIZE_MAX);
        backend->dev = &m->dev;
        backend->ram = ram;
        backend->irq = irq;
        backend->legacy = legacy;
        mmio_reset(&m->dev);
        if (backend->ops->attached)
            backend->ops->attached(backend);
    }
    return &m->dev;
}
