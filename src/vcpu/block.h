/* Predecoded code of one vCPU: basic blocks by guest-physical address, so that processes share them.
 *
 * A block lies in one page. It may hold conditional branches that it usually falls through; it ends where the
 * next instruction is not known, at the end of the page, or when it is long enough. Block memory is one arena that is
 * emptied as a whole when full. A block keeps the bytes it was made from: fence.i raises the generation, and a
 * block of an older one is compared with memory before it runs again. So stale code may run until fence.i, as
 * the ISA allows, and translation needs no write protection at all.
 *
 * Owner: the vCPU's thread. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "vcpu/decode.h"

struct vcpu;
struct uop;
typedef struct uop *(*uop_fn)(struct vcpu *vcpu, struct uop *uop);

/* One instruction (or a fused pair) ready to run. */
struct uop {
    uop_fn fn;
    union {
        int64_t imm;
        struct block *link; /* branches and jumps inside the page: where they lead, once known */
    };
    int32_t disp; /* branches and jumps: target; others: second immediate. Relative to the page */
    uint16_t off; /* of the instruction in its page */
    uint8_t left; /* instructions of the block from this one on */
    uint8_t length;
    uint8_t rd, rs1, rs2, rs3;
    uint32_t raw;
};
_Static_assert(sizeof(struct uop) == 32, "two to a cache line");

struct block {
    uint64_t gpa;        /* of its first byte */
    uint32_t generation; /* it was found equal to memory in */
    uint32_t hash_next;  /* arena slot, 0 at the end */
    uint16_t count;      /* instructions */
    uint16_t uops;
    uint16_t bytes; /* of source; a copy stands behind the uops */
    _Alignas(32) struct uop uop[];
};

enum {
    BLOCK_INSNS_MAX = 48,
    BLOCK_SIDE_EXITS_MAX = 3,
    BLOCK_ARENA_SLOTS = 1 << 18, /* of 32 bytes: 8 MiB of address space, touched as used */
    BLOCK_BUCKETS = 1 << 15,
};
#define BLOCK_DEAD UINT32_MAX /* generation of a block that must not run; no real generation reaches it */

struct block_cache {
    uint8_t *arena;
    uint32_t next_slot; /* slot 0 stays free */
    uint32_t generation;
    uint32_t *bucket;
    unsigned heat;                               /* executions before a block asks to be translated; 0: never */
    uint64_t made, emptied, reverified, changed; /* statistics */
};

extern struct block block_dead; /* what a link points to while it leads nowhere */

int block_cache_init(struct block_cache *cache, struct err *err);
void block_cache_free(struct block_cache *cache);
void block_cache_empty(struct block_cache *cache);

/* The block at gpa that agrees with the bytes at `host` (its address there), made when there is none. NULL: the first
 * instruction crosses the end of the page. When `emptied` has risen, every block and uop pointer from before is void. */
struct block *block_get(struct block_cache *cache, uint64_t gpa, const uint8_t *host);

enum { BLOCK_SINGLE_BYTES = sizeof(struct block) + 3 * sizeof(struct uop) };
/* One instruction at page offset `off` into caller's memory: for what has no place in a page. Its generation is never
 * checked, since nothing links to it. */
void block_make_single(struct block *block, uint32_t raw, uint16_t off);

/* It asks for a translation again when it has run as often as at first. */
void block_cool(const struct block_cache *cache, struct block *block);

/* Past the counter in front of it, if it has one. */
struct uop *block_first(struct block *block);

/* After fence.i. */
static inline void block_cache_next_generation(struct block_cache *cache)
{
    cache->generation++;
}

static inline struct block *block_at_slot(const struct block_cache *cache, uint32_t slot)
{
    return (struct block *)(void *)(cache->arena + (uint64_t)slot * 32);
}

static inline uint32_t block_slot(const struct block_cache *cache, const struct block *block)
{
    return (uint32_t)(((const uint8_t *)block - cache->arena) / 32);
}
