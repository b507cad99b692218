/* ACLINT in CLINT layout (RISC-V ACLINT specification 1.0): MSWI at 0, MTIMER compares at 0x4000, mtime at 0xbff8.
 *
 * mtime is the guest's clock: it stands still while the machine is paused, and cannot be written. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hw/devices.h"

enum { ACLINT_HARTS_MAX = 64, ACLINT_BYTES = 0x10000 };
enum { REG_MSIP = 0x0, REG_MTIMECMP = 0x4000, REG_MTIME = 0xbff8 };

struct aclint_state {
    uint8_t msip[ACLINT_HARTS_MAX];
    uint64_t mtimecmp[ACLINT_HARTS_MAX]; /* ticks */
};

struct aclint;

struct aclint_hart {
    struct aclint *aclint;
    unsigned index;
    struct timer *timer;
    struct irq_line msip, mtip;
};

struct aclint {
    struct device dev;
    /* fixed after new */
    unsigned harts;
    struct guest_clock *clock;
    struct aclint_hart hart[ACLINT_HARTS_MAX];
    /* under dev.lock */
    struct aclint_state state;
    bool drained;
};

static const struct field aclint_fields[] = {
    { "msip", FIELD_U8, offsetof(struct aclint_state, msip), ACLINT_HARTS_MAX, 1, 0, 1, NULL, 0 },
    FIELD_U64_ARRAY_OF(struct aclint_state, mtimecmp),
    FIELD_TABLE_END,
};

static const struct state_desc aclint_desc = {
    .name = "godwit/aclint",
    .version = 1,
    .min_version = 1,
    .object_size = sizeof(struct aclint_state),
    .fields = aclint_fields,
};

static int64_t deadline_of(uint64_t ticks)
{
    return ticks < (uint64_t)TIMER_NEVER / GUEST_TICK_NS ? (int64_t)(ticks * GUEST_TICK_NS) : TIMER_NEVER;
}

/* Drive one hart's timer pin by what the clock says, and wake up when that changes. */
static void update_timer(struct aclint *a, unsigned index)
{
    struct aclint_hart *hart = &a->hart[index];
    uint64_t compare = a->state.mtimecmp[index];
    bool due = guest_clock_ticks(a->clock) >= compare;
    irq_set(&hart->mtip, due);
    timer_set_ns(hart->timer, due ? TIMER_NEVER : deadline_of(compare));
}

static void timer_fired(void *opaque)
{
    struct aclint_hart *hart = opaque;
    struct aclint *a = hart->aclint;
    lock(&a->dev.lock);
    if (!a->drained) /* else resume looks again */
        update_timer(a, hart->index);
    unlock(&a->dev.lock);
}

static uint64_t part_of(uint64_t whole, uint64_t offset, unsigned size)
{
    return size == 8 ? whole : (uint32_t)(whole >> 8 * (offset & 4));
}

static uint64_t with_part(uint64_t whole, uint64_t offset, uint64_t value, unsigned size)
{
    if (size == 8)
        return value;
    unsigned shift = 8 * (unsigned)(offset & 4);
    return (whole & ~(UINT64_C(0xffffffff) << shift)) | (uint64_t)(uint32_t)value << shift;
}

static uint64_t aclint_read(void *opaque, uint64_t offset, unsigned size)
{
    struct aclint *a = opaque;
    if (offset >= REG_MTIME)
        return offset < REG_MTIME + 8 ? part_of(guest_clock_ticks(a->clock), offset, size) : 0;
    uint64_t value = 0;
    lock(&a->dev.lock);
    if (offset >= REG_MTIMECMP) {
        uint64_t index = (offset - REG_MTIMECMP) / 8;
        if (index < a->harts)
            value = part_of(a->state.mtimecmp[index], offset, size);
    } else {
        uint64_t index = offset / 4;
        for (unsigned i = 0; i < size / 4 && index + i < a->harts; i++)
            value |= (uint64_t)a->state.msip[index + i] << 32 * i;
    }
    unlock(&a->dev.lock);
    return value;
}

static void aclint_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct aclint *a = opaque;
    lock(&a->dev.lock);
    if (offset >= REG_MTIMECMP) {
        uint64_t index = (offset - REG_MTIMECMP) / 8;
        if (index < a->harts) {
            a->state.mtimecmp[index] = with_part(a->state.mtimecmp[index], offset, value, size);
            update_timer(a, (unsigned)index);
        }
    } else {
        uint64_t index = offset / 4;
        for (unsigned i = 0; i < size / 4 && index + i < a->harts; i++) {
            a->state.msip[index + i] = value >> 32 * i & 1;
            irq_set(&a->hart[index + i].msip, a->state.msip[index + i]);
        }
    }
    unlock(&a->dev.lock);
}

static void *aclint_state_object(struct device *dev)
{
    return &((struct aclint *)dev)->state;
}

static void update_all(struct aclint *a)
{
    for (unsigned i = 0; i < a->harts; i++) {
        irq_set(&a->hart[i].msip, a->state.msip[i]);
        update_timer(a, i);
    }
}

static void aclint_loaded(struct device *dev)
{
    struct aclint *a = (struct aclint *)dev;
    lock(&dev->lock);
    update_all(a);
    unlock(&dev->lock);
}

static void aclint_reset(struct device *dev)
{
    struct aclint *a = (struct aclint *)dev;
    lock(&dev->lock);
    memset(a->state.msip, 0, sizeof(a->state.msip));
    memset(a->state.mtimecmp, 0xff, sizeof(a->state.mtimecmp)); /* never, until firmware says when */
    update_all(a);
    unlock(&dev->lock);
}

static void aclint_drain(struct device *dev)
{
    struct aclint *a = (struct aclint *)dev;
    lock(&dev->lock);
    a->drained = true;
    unlock(&dev->lock);
}

static void aclint_resume(struct device *dev)
{
    struct aclint *a = (struct aclint *)dev;
    lock(&dev->lock);
    a->drained = false;
    update_all(a);
    unlock(&dev->lock);
}

static void aclint_free(struct device *dev)
{
    struct aclint *a = (struct aclint *)dev;
    for (unsigned i = 0; i < a->harts; i++)
        timer_free(a->hart[i].timer);
    lock_destroy(&dev->lock);
    free(a);
}

static const struct bus_ops aclint_bus = {
    .read = aclint_read,
    .write = aclint_write,
    .min_bytes = 4,
    .max_bytes = 8,
};

static const struct device_ops aclint_ops = {
    .name = "riscv,aclint",
    .state = &aclint_desc,
    .bus = &aclint_bus,
    .state_object = aclint_state_object,
    .reset = aclint_reset,
    .loaded = aclint_loaded,
    .drain = aclint_drain,
    .resume = aclint_resume,
    .free = aclint_free,
};

struct device *aclint_new(unsigned harts, const struct irq_line *msip, const struct irq_line *mtip,
                          struct guest_clock *clock, struct timers *timers, struct err *err)
{
    if (harts == 0 || harts > ACLINT_HARTS_MAX) {
        err_set(err, -EINVAL, "an ACLINT serves 1 to %d harts, not %u", ACLINT_HARTS_MAX, harts);
        return NULL;
    }
    struct aclint *a = calloc(1, sizeof(*a));
    if (!a) {
        err_set(err, -ENOMEM, "no memory for the ACLINT");
        return NULL;
    }
    device_init(&a->dev, &aclint_ops, LOCK_DEVICE);
    a->dev.bytes = ACLINT_BYTES;
    a->harts = harts;
    a->clock = clock;
    memset(a->state.mtimecmp, 0xff, sizeof(a->state.mtimecmp));
    for (unsigned i = 0; i < harts; i++) {
        struct aclint_hart *hart = &a->hart[i];
        *hart = (struct aclint_hart){ .aclint = a, .index = i, .msip = msip[i], .mtip = mtip[i] };
        hart->timer = timer_new(timers, timer_fired, hart);
    }
    return &a->dev;
}
