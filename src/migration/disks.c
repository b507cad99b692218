#include "migration/disks.h"

#include <math.h>

enum { COST_UNITS_MIN = 16 }; /* fewer say more about the clock than about units */
enum { LEFT_BYTES_MIN = 1 << 20, QUOTA_MIN = 256 * 1024 };
static const double COST_WEIGHT = 0.5;
static const double WEIGHT_MIN = 1.0 / 16, WEIGHT_MAX = 64;

static double smooth(double was, double now)
{
    return was > 0 ? was + (now - was) * COST_WEIGHT : now;
}

void disks_cost_add(struct disks_cost *cost, uint64_t units, uint64_t wire_bytes, uint64_t work_ns)
{
    if (units < COST_UNITS_MIN)
        return;
    cost->wire_bytes = smooth(cost->wire_bytes, (double)wire_bytes / (double)units);
    cost->work_ns = smooth(cost->work_ns, (double)work_ns / (double)units);
}

double disks_weight(const struct disks_cost *disk, const struct disks_cost *ram)
{
    if (disk->wire_bytes <= 0 || disk->work_ns <= 0 || ram->wire_bytes <= 0 || ram->work_ns <= 0)
        return 1;
    double weight = fmax(disk->wire_bytes / ram->wire_bytes, disk->work_ns / ram->work_ns);
    return fmin(fmax(weight, WEIGHT_MIN), WEIGHT_MAX);
}

bool disks_ram_is_due(uint64_t disk_units_left, double weight, uint64_t ram_units)
{
    return (double)disk_units_left * weight <= (double)ram_units;
}

/* In a round the link carried what the guest had written in the one before: so at half the rate half as much is left. */
uint64_t disks_quota(uint64_t sent_bytes, int64_t elapsed_ns, uint64_t left_bytes, uint64_t quota_now)
{
    bool shrinks = left_bytes <= sent_bytes / 2;
    if (left_bytes < LEFT_BYTES_MIN || elapsed_ns <= 0)
        return quota_now && left_bytes >= LEFT_BYTES_MIN / 4 ? quota_now : 0;
    if (shrinks)
        return quota_now;
    double rate = (double)sent_bytes * 1e9 / (double)elapsed_ns / 2;
    uint64_t quota = rate > QUOTA_MIN ? (uint64_t)rate : QUOTA_MIN;
    return quota_now && quota_now < quota ? quota_now : quota;
}
