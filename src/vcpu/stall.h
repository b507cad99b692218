/* What keeps a vCPU from running while somebody migrates it: counted only then, and at safe points only, so that code that
 * runs pays nothing. The vCPU's thread adds, anybody looks. */
#pragma once
#include <stdatomic.h>
#include <stdint.h>

#include "base/histogram.h"

enum stall_kind {
    STALL_HELD,   /* by its quota of newly dirtied pages */
    STALL_DIRTY,  /* giving its write permissions up for a harvest */
    STALL_PAUSED, /* by the machine, until it ran on here */
    STALL_KINDS,
};

/* A counting has a number, so that the one who adds starts it from nothing by himself. */
struct stall {
    _Atomic uint32_t wanted;  /* 0: nobody wants to know; whoever asks for it */
    _Atomic uint32_t counted; /* what the histograms hold; the vCPU's thread */
    struct histogram kind[STALL_KINDS];
};
struct stall_counts {
    struct histogram_counts kind[STALL_KINDS];
};

void stall_add(struct stall *stall, enum stall_kind kind, int64_t ns);
/* Of one counting: all zero when this vCPU has added nothing to it, or counts for another by now. */
void stall_read(const struct stall *stall, uint32_t counting, struct stall_counts *out);

static inline int stall_wanted(const struct stall *stall)
{
    return atomic_load_explicit(&stall->wanted, memory_order_relaxed) != 0;
}
