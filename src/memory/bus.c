#include "memory/bus.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>

void bus_init(struct bus *bus, struct ram *ram)
{
    *bus = (struct bus){ .ram = ram };
}

static bool overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

static int check_free(const struct bus *bus, const char *name, uint64_t gpa, uint64_t bytes, struct err *err)
{
    const char *other = NULL;

    for (unsigned i = 0; i < bus->regions; i++)
        if (overlap(gpa, bytes, bus->region[i].gpa, bus->region[i].bytes))
            other = bus->region[i].name;
    for (unsigned i = 0; bus->ram && i < bus->ram->blocks; i++)
        if (overlap(gpa, bytes, bus->ram->block[i].gpa, bus->ram->block[i].bytes))
            other = bus->ram->block[i].name;
    if (other)
        return err_set(err, -EEXIST, "%s at 0x%" PRIx64 " would lie on top of %s", name, gpa, other);
    return 0;
}

int bus_add(struct bus *bus, const char *name, uint64_t gpa, uint64_t bytes, const struct bus_ops *ops, void *device,
            struct err *err)
{
    assert(ops->min_bytes >= 1 && ops->min_bytes <= ops->max_bytes && ops->max_bytes <= 8);
    if (bytes == 0 || gpa + bytes < gpa)
        return err_set(err, -EINVAL, "%s at 0x%" PRIx64 " cannot have 0x%" PRIx64 " bytes", name, gpa, bytes);
    if (bus->regions == BUS_REGIONS_MAX)
        return err_set(err, -ENOSPC, "no room for %s: the bus holds at most %d regions", name, BUS_REGIONS_MAX);
    int failed = check_free(bus, name, gpa, bytes, err);
    if (failed)
        return failed;

    unsigned at = bus->regions++;
    for (; at > 0 && bus->region[at - 1].gpa > gpa; at--)
        bus->region[at] = bus->region[at - 1];
    bus->region[at] = (struct bus_region){ name, gpa, bytes, ops, device };
    return 0;
}

const struct bus_region *bus_find(const struct bus *bus, uint64_t gpa)
{
    unsigned low = 0, high = bus->regions; /* the last region that begins at or below gpa lies in [low - 1, high) */

    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (bus->region[middle].gpa <= gpa)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return NULL;
    const struct bus_region *region = &bus->region[low - 1];
    return gpa - region->gpa < region->bytes ? region : NULL;
}

/* The region that may answer an access of this address and size, or NULL. */
static const struct bus_region *find_for(const struct bus *bus, uint64_t gpa, unsigned size)
{
    bool natural = (size == 1 || size == 2 || size == 4 || size == 8) && gpa % size == 0;
    const struct bus_region *region = natural ? bus_find(bus, gpa) : NULL;

    if (!region || size < region->ops->min_bytes || size > region->ops->max_bytes)
        return NULL;
    return size <= region->bytes - (gpa - region->gpa) ? region : NULL;
}

bool bus_device_read(const struct bus *bus, uint64_t gpa, unsigned size, uint64_t *value)
{
    const struct bus_region *region = find_for(bus, gpa, size);

    if (!region || !region->ops->read)
        return false;
    *value = region->ops->read(region->device, gpa - region->gpa, size);
    return true;
}

bool bus_device_write(const struct bus *bus, uint64_t gpa, unsigned size, uint64_t value)
{
    const struct bus_region *region = find_for(bus, gpa, size);

    if (!region || !region->ops->write)
        return false;
    region->ops->write(region->device, gpa - region->gpa, value, size);
    return true;
}
