/* Who marked a page last: one byte a page, written where pages are marked dirty, while somebody wants to know.
 *
 * For the sentence that names a page which changed without a mark: who marked it before is the first to look at. vCPUs are
 * known by number; everybody else says who he is on his thread, before he writes. Any thread, no lock: a byte that is torn
 * between two writers at once names one of them. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { TRAIL_VCPUS_MAX = 64, TRAIL_NAMES_MAX = 64, TRAIL_TEXT_MAX = 48 };

struct trail {
    _Atomic bool on;
    _Atomic(_Atomic uint8_t *) by; /* made once; 0: nobody, then vCPUs, then names */
    uint64_t pages;                /* fixed before */
    const char *_Atomic name[TRAIL_NAMES_MAX];
};

struct trail_text {
    char text[TRAIL_TEXT_MAX];
};

/* Forget all, and follow from now on; without memory for it nothing is known. One thread starts and stops. */
void trail_start(struct trail *trail, uint64_t pages);
void trail_stop(struct trail *trail);
void trail_free(struct trail *trail);

/* This thread writes as `name` from now on: a string that stays. */
void trail_as(const char *name);

void trail_note(struct trail *trail, uint64_t page, uint64_t count); /* slow path of the two below */
void trail_note_vcpu(struct trail *trail, uint64_t page, unsigned number);
static inline bool trail_on(const struct trail *trail)
{
    /* Relaxed: what is noted too late is not noted. */
    return __builtin_expect(atomic_load_explicit(&trail->on, memory_order_relaxed), false);
}

/* "vCPU 3", "virtio-blk-device", "nobody since the migration began". */
struct trail_text trail_text(const struct trail *trail, uint64_t page);
