/* The guest-physical map: RAM or device. And interrupt wires. A CPU and a device meet only here.
 *
 * Regions are added before the first vCPU starts and never change. Device functions are called on a vCPU's
 * thread, with no lock held; the device takes its own. A device that writes guest memory uses ram_write_*(). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "memory/ram.h"

struct bus_ops {
    /* offset < region size, naturally aligned, size 1, 2, 4 or 8 and within [min_bytes, max_bytes]: the bus
     * answers everything else with an access fault. */
    uint64_t (*read)(void *device, uint64_t offset, unsigned size);
    void (*write)(void *device, uint64_t offset, uint64_t value, unsigned size);
    unsigned min_bytes, max_bytes; /* 1..8 */
};

enum { BUS_REGIONS_MAX = 64 };

struct bus_region {
    const char *name;
    uint64_t gpa, bytes;
    const struct bus_ops *ops;
    void *device;
};

/* Eight bytes of RAM whose stores somebody wants to hear of. The vCPUs keep no write permission for their page, so that
 * each store there goes the slow way; no other page pays. */
struct bus_watch {
    uint64_t gpa;                 /* a multiple of 8 */
    void (*stored)(void *opaque); /* after a hart's plain store to any of them, on its thread; NULL: nobody watches */
    void *opaque;
};

struct bus {
    struct ram *ram;
    struct bus_watch watch;                    /* changed only while every vCPU is paused */
    struct bus_region region[BUS_REGIONS_MAX]; /* sorted by gpa */
    unsigned regions;
};

void bus_init(struct bus *bus, struct ram *ram);
int bus_add(struct bus *bus, const char *name, uint64_t gpa, uint64_t bytes, const struct bus_ops *ops, void *device,
            struct err *err); /* -EEXIST when it overlaps a region or a RAM block */
const struct bus_region *bus_find(const struct bus *bus, uint64_t gpa); /* NULL: nothing there */

static inline bool bus_watches_page(const struct bus *bus, uint64_t gpa)
{
    return bus->watch.stored && (bus->watch.gpa ^ gpa) >> PAGE_SHIFT == 0;
}

/* A hart has stored `size` bytes at gpa, all within one page. */
static inline void bus_stored(const struct bus *bus, uint64_t gpa, unsigned size)
{
    if (bus->watch.stored && gpa < bus->watch.gpa + 8 && bus->watch.gpa < gpa + size)
        bus->watch.stored(bus->watch.opaque);
}

/* Device access; false means access fault. RAM is reached through ram.h, not here. */
bool bus_device_read(const struct bus *bus, uint64_t gpa, unsigned size, uint64_t *value);
bool bus_device_write(const struct bus *bus, uint64_t gpa, unsigned size, uint64_t value);

/* An interrupt wire: pulled by a device (with its lock held), felt by a PLIC input or a hart's pin. */
struct irq_line {
    void (*set)(void *opaque, unsigned number, bool level);
    void *opaque;
    unsigned number;
};

static inline void irq_set(const struct irq_line *line, bool level)
{
    if (line->set)
        line->set(line->opaque, line->number, level);
}
