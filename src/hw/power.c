/* sifive_test: one register through which the guest asks for power off, reset, or failure with a code. */
#include <errno.h>
#include <stdlib.h>

#include "hw/devices.h"

enum { POWER_BYTES = 0x1000, FINISH_PASS = 0x5555, FINISH_RESET = 0x7777, FINISH_FAIL = 0x3333 };

struct power {
    struct device dev;
    /* fixed after new */
    void (*act)(void *opaque, enum power_action action, unsigned code);
    void *opaque;
};

static uint64_t power_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque, (void)offset, (void)size;
    return 0;
}

static void power_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    (void)size;
    struct power *p = opaque;
    if (offset != 0)
        return;
    switch (value & 0xffff) {
    case FINISH_PASS: p->act(p->opaque, POWER_OFF, 0); break;
    case FINISH_RESET: p->act(p->opaque, POWER_RESET, 0); break;
    case FINISH_FAIL: p->act(p->opaque, POWER_FAIL, value >> 16 & 0xffff); break;
    default: break;
    }
}

static void power_reset(struct device *dev)
{
    (void)dev;
}

static void power_free(struct device *dev)
{
    lock_destroy(&dev->lock);
    free(dev);
}

static const struct bus_ops power_bus = { .read = power_read, .write = power_write, .min_bytes = 2, .max_bytes = 4 };

static const struct device_ops power_ops = {
    .name = "sifive,test1",
    .bus = &power_bus,
    .reset = power_reset,
    .free = power_free,
};

struct device *power_new(void (*act)(void *opaque, enum power_action action, unsigned code), void *opaque,
                         struct err *err)
{
    struct power *p = calloc(1, sizeof(*p));
    if (!p) {
        err_set(err, -ENOMEM, "no memory for the power device");
        return NULL;
    }
    device_init(&p->dev, &power_ops, LOCK_DEVICE);
    p->dev.bytes = POWER_BYTES;
    p->act = act;
    p->opaque = opaque;
    return &p->dev;
}
