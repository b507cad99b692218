/* What device tests share: interrupt pins that remember, a guest clock with timers, register access, moving state. */
#pragma once
#include "tests/unit/test.h"

#include <stdlib.h>
#include <string.h>

#include "base/fields.h"
#include "hw/devices.h"

enum { PINS = 16 };

/* Pins are pulled by the test and by the timer thread. */
struct pins {
    struct lock lock;
    struct cond changed;
    bool level[PINS];
    unsigned rises[PINS];
};

static inline void pin_set(void *opaque, unsigned number, bool level)
{
    struct pins *pins = opaque;
    lock(&pins->lock);
    if (level && !pins->level[number])
        pins->rises[number]++;
    pins->level[number] = level;
    cond_broadcast(&pins->changed);
    unlock(&pins->lock);
}

static inline void pins_init(struct pins *pins)
{
    memset(pins, 0, sizeof(*pins));
    lock_init(&pins->lock, LOCK_VCPU); /* where a hart's pin stands */
    cond_init(&pins->changed);
}

static inline struct irq_line pin(struct pins *pins, unsigned number)
{
    return (struct irq_line){ .set = pin_set, .opaque = pins, .number = number };
}

static inline bool pin_high(struct pins *pins, unsigned number)
{
    lock(&pins->lock);
    bool level = pins->level[number];
    unlock(&pins->lock);
    return level;
}

static inline void pin_wait_high(struct pins *pins, unsigned number)
{
    lock(&pins->lock);
    while (!pins->level[number])
        cond_wait(&pins->changed, &pins->lock);
    unlock(&pins->lock);
}

/* A guest clock, standing still until started. */
struct guest_time {
    struct guest_clock clock;
    struct timers *timers;
};

static inline void time_init(struct guest_time *time)
{
    guest_clock_init(&time->clock);
    time->timers = timers_new(&time->clock, NULL);
    assert_non_null(time->timers);
}

static inline void time_start(struct guest_time *time)
{
    guest_clock_start(&time->clock);
    timers_clock_changed(time->timers);
}

static inline void time_stop(struct guest_time *time)
{
    guest_clock_stop(&time->clock);
    timers_clock_changed(time->timers);
}

static inline uint64_t dev_read(struct device *dev, uint64_t offset, unsigned size)
{
    return dev->ops->bus->read(dev, offset, size);
}

static inline void dev_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    dev->ops->bus->write(dev, offset, value, size);
}

static inline struct buf dev_save(struct device *dev)
{
    struct buf out = { 0 };
    state_save(dev->ops->state, dev->ops->state_object(dev), &out);
    assert_int_equal(out.size, state_wire_bytes(dev->ops->state, dev->ops->state->version));
    return out;
}

/* Load bytes as a stream would, and let the device pull its wires. */
static inline int dev_load(struct device *dev, const struct buf *bytes)
{
    struct reader in = reader_of(bytes->data, bytes->size);
    struct err err = { 0 };
    int result = state_load(dev->ops->state, dev->ops->state_object(dev), dev->ops->state->version, &in, &err);
    if (result < 0)
        assert_true(err.text[0] != '\0');
    else
        dev->ops->loaded(dev);
    return result;
}

/* Everything `from` is, `to` becomes; and saying it again gives the same bytes. */
static inline void dev_move(struct device *from, struct device *to)
{
    struct buf sent = dev_save(from);
    assert_int_equal(dev_load(to, &sent), 0);
    struct buf again = dev_save(to);
    assert_int_equal(sent.size, again.size);
    assert_memory_equal(sent.data, again.data, sent.size);
    buf_free(&sent);
    buf_free(&again);
}

static inline void dev_free(struct device *dev)
{
    dev->ops->free(dev);
}
