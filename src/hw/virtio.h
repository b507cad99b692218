/* A virtio device (virtio 1.2, 2): what all of them share, whatever the transport. A backend is one file: a table
 * of functions, a state struct that begins with struct virtio_state, and virtio_*() below to reach the driver.
 *
 * Locking: the device's lock is held during notify, reset, quiesce and config_*; it is not during attached, drain, resume and free
 * nor in a backend's own callbacks (chardev, threads), which take it with virtio_lock(). */
#pragma once
#include "hw/device.h"
#include "hw/vring.h"

enum { VIRTIO_QUEUES_MAX = 4 };
enum { VIRTIO_ID_BLOCK = 2, VIRTIO_ID_CONSOLE = 3, VIRTIO_ID_RNG = 4 };
enum {
    VIRTIO_STATUS_DRIVER_OK = 0x04,
    VIRTIO_STATUS_FEATURES_OK = 0x08,
    VIRTIO_STATUS_NEEDS_RESET = 0x40,
    VIRTIO_STATUS_DRIVER_BITS = 0x8f, /* ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, FAILED */
};
enum { VIRTIO_ISR_QUEUE = 1, VIRTIO_ISR_CONFIG = 2 };
#define VIRTIO_F_ANY_LAYOUT    (UINT64_C(1) << 27)
#define VIRTIO_F_INDIRECT_DESC (UINT64_C(1) << 28)
#define VIRTIO_F_EVENT_IDX     (UINT64_C(1) << 29)
#define VIRTIO_F_VERSION_1     (UINT64_C(1) << 32)

/* Plain data: driver-visible state of transport and rings. First member of every backend's state. */
struct virtio_state {
    uint64_t driver_features;
    uint32_t device_features_sel, driver_features_sel, queue_sel;
    uint32_t isr;
    uint32_t config_generation;
    uint32_t legacy_page_bytes; /* 0 until the driver says */
    uint8_t status;
    uint8_t broken; /* the driver broke a rule: deaf until it resets the device */
    uint8_t spare[6];
    struct vring_state queue[VIRTIO_QUEUES_MAX];
};
extern const struct field virtio_fields[];
#define VIRTIO_STATE_ROW(S)                                                                                            \
    {                                                                                                                  \
        "virtio", FIELD_STRUCT, offsetof(S, virtio), 1, 1, 0, 0, virtio_fields, sizeof(struct virtio_state)            \
    }

struct virtio_backend;

struct virtio_backend_ops {
    const char *name; /* "virtio-rng-device" */
    uint32_t device_id;
    uint64_t features; /* the device's own; rings and versions are added */
    unsigned queues;
    uint16_t queue_size_max; /* a power of two up to VRING_SIZE_MAX */
    unsigned config_bytes;
    const struct state_desc *state; /* its validate calls virtio_validate() */
    uint32_t (*config_read)(struct virtio_backend *backend, unsigned offset, unsigned size); /* within config_bytes */
    void (*config_write)(struct virtio_backend *backend, unsigned offset, uint32_t value, unsigned size);
    void (*attached)(struct virtio_backend *backend); /* the transport is there: open for host events; may be NULL */
    void (*notify)(struct virtio_backend *backend, unsigned queue); /* the driver added buffers, or became ready */
    void (*reset)(struct virtio_backend *backend);                  /* drop what is under way; may be NULL */
    /* The driver takes a queue back: nothing of it may be under way when this returns. It may let go of the lock while it
     * waits. NULL: nothing ever is. */
    void (*quiesce)(struct virtio_backend *backend, unsigned queue);
    void (*drain)(struct virtio_backend *backend);  /* may be NULL */
    void (*resume)(struct virtio_backend *backend); /* do what was put off; may be NULL */
    void (*free)(struct virtio_backend *backend);
};

struct virtio_backend {
    /* fixed after new */
    const struct virtio_backend_ops *ops;
    struct virtio_state *state; /* the state object; under dev->lock */
    struct device *dev;         /* these four are the transport's to set */
    struct ram *ram;
    struct irq_line irq;
    bool legacy;
    /* under dev->lock */
    bool drained;
    const char *broken_why; /* for the operator; NULL after a load */
};

/* --- for backends; the lock is held, but for lock and unlock ---------------------------------------------- */

static inline void virtio_lock(struct virtio_backend *backend)
{
    lock(&backend->dev->lock);
}
static inline void virtio_unlock(struct virtio_backend *backend)
{
    unlock(&backend->dev->lock);
}

/* May the device look at its rings now? DRIVER_OK, not broken, not drained. */
bool virtio_running(const struct virtio_backend *backend);
bool virtio_has_feature(const struct virtio_backend *backend, uint64_t feature);
struct vring virtio_ring(struct virtio_backend *backend, unsigned queue);
void virtio_interrupt(struct virtio_backend *backend, struct vring *ring); /* after puts, if the driver wants it */
void virtio_break(struct virtio_backend *backend, const char *why);        /* the driver broke a rule */

/* Joint rules of a loaded state; `legacy` is not known there, so both kinds' features pass. */
int virtio_validate(const struct virtio_backend_ops *ops, const struct virtio_state *state, struct err *err);

/* --- for transports ---------------------------------------------------------------------------------------- */

uint64_t virtio_device_features(const struct virtio_backend *backend);
void virtio_reset(struct virtio_backend *backend);
void virtio_set_status(struct virtio_backend *backend, uint8_t status);
void virtio_enable_queue(struct virtio_backend *backend, unsigned queue); /* checks the layout; breaks the device */
void virtio_notify(struct virtio_backend *backend, uint32_t queue);
void virtio_update_irq(struct virtio_backend *backend);
