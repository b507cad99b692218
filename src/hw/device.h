/* What every device has in common. A device is one file in hw/, and one row in machine/board.c.
 *
 * `struct device` is the first member of the device's own struct. Register functions run on vCPU threads, input
 * functions on the control loop's thread, timer callbacks on the timer thread: each takes dev.lock. A device never
 * sees a CPU or the machine: it pulls a wire (bus.h), writes RAM through ram_write_*(), and asks for a power
 * action through a function it was given. */
#pragma once
#include "base/fields.h"
#include "base/lock.h"
#include "base/timer.h"
#include "memory/bus.h"

struct device;

struct device_ops {
    const char *name;                          /* for `info qtree` and messages: "ns16550a" */
    const struct state_desc *state;            /* NULL: no state of its own */
    const struct bus_ops *bus;                 /* registers; NULL: none */
    void *(*state_object)(struct device *dev); /* the plain struct that `state` describes */
    void (*reset)(struct device *dev);         /* machine paused */
    /* State was loaded into the object: pull wires, set timers. Machine paused, dev.lock not held. */
    void (*loaded)(struct device *dev);
    /* Machine is pausing: finish or stop everything that writes guest RAM or raises wires by itself, and return
     * when that is true. resume undoes it. May be NULL. */
    void (*drain)(struct device *dev);
    void (*resume)(struct device *dev);
    void (*free)(struct device *dev); /* everything, the struct included */
};

struct device {
    /* fixed after new */
    const struct device_ops *ops;
    uint64_t gpa, bytes; /* where its registers are */
    unsigned irq;        /* PLIC source, 0: none */
    unsigned instance;   /* section instance id */
    char id[64];         /* -device ...,id= */
    struct lock lock;    /* rank DEVICE; guards the state object */
};

static inline void device_init(struct device *dev, const struct device_ops *ops, enum lock_rank rank)
{
    dev->ops = ops;
    lock_init(&dev->lock, rank);
}
