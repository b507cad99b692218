/* Disks beside memory, the decisions: when memory begins, what a disk's unit weighs, how fast a disk may be written. Pure. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

/* What a unit of one source has cost lately, on the wire and in workers' time (reading, compressing). */
struct disks_cost {
    double wire_bytes, work_ns; /* 0: nothing was sent of it yet */
};

void disks_cost_add(struct disks_cost *cost, uint64_t units, uint64_t wire_bytes, uint64_t work_ns);
/* A unit of a disk in units of RAM, for whoever reckons with one kind of unit (converge.h): by the stage for which it is
 * dearer, since that one may be the one that binds in the pause. 1 as long as one of both is unknown. */
double disks_weight(const struct disks_cost *disk, const struct disks_cost *ram);

/* May memory begin? When the disks' rest takes no longer than memory's bulk: beginning earlier only makes memory wait, dirty, for
 * the disks; later, the disks for memory. */
bool disks_ram_is_due(uint64_t disk_units_left, double weight, uint64_t ram_units);

/* auto-converge: a round has sent so many bytes of a disk in elapsed_ns, and left so many. How many a second may the guest
 * write? 0: as many as it likes. What is left shall halve from round to round. */
uint64_t disks_quota(uint64_t sent_bytes, int64_t elapsed_ns, uint64_t left_bytes, uint64_t quota_now);
