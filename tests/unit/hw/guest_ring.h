/* The driver's side of a split virtqueue, for tests: lays rings out in a small guest RAM and may lie about all of it. */
#pragma once
#include "tests/unit/hw/fixture.h"
#include "memory/ram.h"

enum {
    GUEST_RAM_BASE = 0x80000000,
    GUEST_RAM_BYTES = 1 << 20,
    GUEST_ROM_BASE = 0x1000,
    GUEST_RING = GUEST_RAM_BASE + 0x1000, /* ring n at + n * GUEST_RING_STRIDE */
    GUEST_RING_STRIDE = 0x4000,
    GUEST_DATA = GUEST_RAM_BASE + 0x40000,
};
enum { D_NEXT = 1, D_WRITE = 2, D_INDIRECT = 4 };

static inline struct ram *guest_ram(void)
{
    struct ram *ram = ram_new();
    struct ram_options options = { 0 };
    assert_non_null(ram);
    assert_int_equal(ram_add(ram, "ram", GUEST_RAM_BASE, GUEST_RAM_BYTES, false, &options, NULL), 0);
    assert_int_equal(ram_add(ram, "rom", GUEST_ROM_BASE, PAGE_BYTES, true, &options, NULL), 0);
    assert_int_equal(ram_seal_layout(ram, NULL), 0);
    return ram;
}

static inline void poke(struct ram *ram, uint64_t gpa, uint64_t value, unsigned bytes)
{
    assert_true(ram_write(ram, gpa, &value, bytes));
}

static inline uint64_t peek(struct ram *ram, uint64_t gpa, unsigned bytes)
{
    uint64_t value = 0;
    assert_true(ram_read(ram, gpa, &value, bytes));
    return value;
}

struct guest_ring {
    struct ram *ram;
    unsigned num;
    uint64_t desc, avail, used;
    uint16_t avail_idx, used_seen;
};

/* The legacy layout with 4 KiB alignment: it serves both kinds. */
static inline struct guest_ring guest_ring(struct ram *ram, unsigned number, unsigned num)
{
    struct guest_ring r = { .ram = ram, .num = num, .desc = GUEST_RING + (uint64_t)number * GUEST_RING_STRIDE };
    r.avail = r.desc + 16 * num;
    r.used = (r.avail + 6 + 2 * num + 4095) & ~UINT64_C(4095);
    return r;
}

static inline void put_desc(struct ram *ram, uint64_t table, unsigned index, uint64_t gpa, uint32_t bytes,
                            unsigned flags, unsigned next)
{
    poke(ram, table + 16 * index, gpa, 8);
    poke(ram, table + 16 * index + 8, bytes, 4);
    poke(ram, table + 16 * index + 12, flags, 2);
    poke(ram, table + 16 * index + 14, next, 2);
}

static inline void set_desc(struct guest_ring *r, unsigned index, uint64_t gpa, uint32_t bytes, unsigned flags,
                            unsigned next)
{
    put_desc(r->ram, r->desc, index, gpa, bytes, flags, next);
}

static inline void publish(struct guest_ring *r, unsigned head)
{
    poke(r->ram, r->avail + 4 + 2 * (r->avail_idx % r->num), head, 2);
    r->avail_idx++;
    poke(r->ram, r->avail + 2, r->avail_idx, 2);
}

/* The next used element, if there is one. */
static inline bool take_used(struct guest_ring *r, uint32_t *id, uint32_t *written)
{
    *id = *written = UINT32_MAX;
    if ((uint16_t)peek(r->ram, r->used + 2, 2) == r->used_seen)
        return false;
    uint64_t at = r->used + 4 + 8 * (uint64_t)(r->used_seen % r->num);
    *id = (uint32_t)peek(r->ram, at, 4);
    *written = (uint32_t)peek(r->ram, at + 4, 4);
    r->used_seen++;
    return true;
}

/* --- the driver's way through virtio-mmio ------------------------------------------------------------------ */

static inline uint32_t mmio_get(struct device *dev, uint64_t offset)
{
    return (uint32_t)dev_read(dev, offset, 4);
}

static inline void mmio_put(struct device *dev, uint64_t offset, uint32_t value)
{
    dev_write(dev, offset, value, 4);
}

static inline void driver_set_queue(struct device *dev, unsigned number, const struct guest_ring *r)
{
    mmio_put(dev, 0x030, number);
    mmio_put(dev, 0x038, r->num);
    mmio_put(dev, 0x080, (uint32_t)r->desc);
    mmio_put(dev, 0x084, (uint32_t)(r->desc >> 32));
    mmio_put(dev, 0x090, (uint32_t)r->avail);
    mmio_put(dev, 0x094, (uint32_t)(r->avail >> 32));
    mmio_put(dev, 0x0a0, (uint32_t)r->used);
    mmio_put(dev, 0x0a4, (uint32_t)(r->used >> 32));
    mmio_put(dev, 0x044, 1);
}

/* Reset, acknowledge, agree on `features` (ring features and VERSION_1 are the caller's). */
static inline void driver_begin(struct device *dev, uint64_t features)
{
    mmio_put(dev, 0x070, 0);
    mmio_put(dev, 0x070, 1);
    mmio_put(dev, 0x070, 3);
    for (unsigned half = 0; half < 2; half++) {
        mmio_put(dev, 0x024, half);
        mmio_put(dev, 0x020, (uint32_t)(features >> 32 * half));
    }
    mmio_put(dev, 0x070, 11);
}

static inline void driver_ready(struct device *dev)
{
    mmio_put(dev, 0x070, 15);
}

static inline void driver_notify(struct device *dev, unsigned queue)
{
    mmio_put(dev, 0x050, queue);
}
