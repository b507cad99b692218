#include "vcpu/stall.h"

#include <string.h>

void stall_add(struct stall *stall, enum stall_kind kind, int64_t ns)
{
    uint32_t wanted = atomic_load_explicit(&stall->wanted, memory_order_relaxed);

    if (!wanted)
        return;
    if (atomic_load_explicit(&stall->counted, memory_order_relaxed) != wanted) {
        for (unsigned i = 0; i < STALL_KINDS; i++)
            histogram_clear(&stall->kind[i]);
        atomic_store_explicit(&stall->counted, wanted, memory_order_release); /* whoever sees it sees them empty */
    }
    histogram_add(&stall->kind[kind], ns > 0 ? (uint64_t)ns : 0);
}

void stall_read(const struct stall *stall, uint32_t counting, struct stall_counts *out)
{
    memset(out, 0, sizeof(*out));
    if (counting == 0 || atomic_load_explicit(&stall->counted, memory_order_acquire) != counting)
        return;
    for (unsigned i = 0; i < STALL_KINDS; i++)
        histogram_read(&stall->kind[i], &out->kind[i]);
}
