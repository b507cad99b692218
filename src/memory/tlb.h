/* The per-vCPU software TLB: what the slow path remembers so that the next access is a compare and an add.
 *
 * One struct tlb per mode (U, S, S with SUM, M, and one for MPRV and MXR that is emptied each time it is chosen), so
 * a change of mode swaps a pointer and flushes nothing. A tag is the page's virtual address; flags in its low bits make
 * the inline compare fail, and only the slow path looks at them:
 *   TRACKED  a write entry whose page is not yet marked dirty: mark, clear the flag, go on (no page walk)
 *   DEVICE   not RAM: the gpa is remembered, the access goes to the bus
 *
 * Owner: the vCPU's thread. Invalid translations are never kept, nor pages that one PMP decision does not cover. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "memory/dirty.h"

enum {
    TLB_ENTRIES = 1024,
    TLB_FETCH_ENTRIES = 256,
    TLB_FILLS_MAX = 192,
    TLB_PAGE_SHIFT = 12,
    TLB_NEAR = 8,            /* slots of their own for the base registers that are used most */
    TLB_JUMP_ENTRIES = 2048, /* where indirect jumps lead */
};
#define TLB_PAGE_MASK (~(uint64_t)0 << TLB_PAGE_SHIFT)

enum tlb_mode { TLB_U, TLB_S, TLB_S_SUM, TLB_M, TLB_OTHER, TLB_MODES };

enum { TLB_TRACKED = 1, TLB_DEVICE = 2, TLB_FLAGS = TLB_TRACKED | TLB_DEVICE };
#define TLB_INVALID UINT64_MAX

struct tlb_entry {
    uint64_t tag;
    uintptr_t addend; /* host address = guest virtual address + addend; 0 for a device */
};

struct tlb_info {  /* what only the slow path wants to know */
    uint64_t gpa;  /* of the page */
    uint64_t page; /* its number in the dirty maps; not for devices */
};

struct tlb_fetch {
    uint64_t tag;
    uint64_t gpa;
    const uint8_t *host;
};

/* Where a virtual address leads in generated code. */
struct tlb_jump {
    uint64_t va; /* odd: none */
    const void *code;
};

struct tlb {
    /* One slot per much-used base register (generated code says which), whatever page it points to: no index to
     * compute. Copies of read[] and write[] entries, never TRACKED; dropped whenever those may be. */
    struct tlb_entry near_read[TLB_NEAR], near_write[TLB_NEAR];
    struct tlb_entry read[TLB_ENTRIES], write[TLB_ENTRIES];
    struct tlb_jump jump[TLB_JUMP_ENTRIES];
    struct tlb_fetch fetch[TLB_FETCH_ENTRIES];
    struct tlb_info read_info[TLB_ENTRIES], write_info[TLB_ENTRIES];
    /* Slots filled since the last flush, as long as they are few: flushing and re-arming then cost what was used. */
    unsigned fills, fetch_fills, jump_fills;
    uint16_t fill[TLB_FILLS_MAX];
    /* Virtual addresses that leaves larger than a page cover: a fence in there must flush everything. */
    uint64_t large_first, large_last;
};

static inline unsigned tlb_index(uint64_t va)
{
    return (va >> TLB_PAGE_SHIFT) & (TLB_ENTRIES - 1);
}

static inline unsigned tlb_fetch_index(uint64_t va)
{
    return (va >> TLB_PAGE_SHIFT) & (TLB_FETCH_ENTRIES - 1);
}

/* Does an access of `bytes` at va hit? The last byte's page is compared, so an access that leaves the page misses (its
 * slot is the first byte's), and one that is merely misaligned hits. */
static inline bool tlb_hits(const struct tlb_entry *entry, uint64_t va, unsigned bytes)
{
    return __builtin_expect(((va + (bytes - 1)) & TLB_PAGE_MASK) == entry->tag, 1);
}

/* For the slow path: is it this page, whatever its flags say? */
static inline bool tlb_covers(const struct tlb_entry *entry, uint64_t va)
{
    return entry->tag != TLB_INVALID && (entry->tag & ~(uint64_t)TLB_FLAGS) == (va & TLB_PAGE_MASK);
}

static inline void tlb_note_fill(struct tlb *tlb, unsigned index)
{
    if (tlb->fills < TLB_FILLS_MAX)
        tlb->fill[tlb->fills] = (uint16_t)index;
    tlb->fills++;
}

static inline void tlb_note_large(struct tlb *tlb, uint64_t va, uint64_t bytes)
{
    if (va < tlb->large_first)
        tlb->large_first = va;
    if (va + (bytes - 1) > tlb->large_last)
        tlb->large_last = va + (bytes - 1);
}

static inline unsigned tlb_jump_index(uint64_t va)
{
    return (va >> 1 ^ va >> TLB_PAGE_SHIFT) & (TLB_JUMP_ENTRIES - 1);
}

static inline void tlb_drop_near(struct tlb *tlb)
{
    memset(tlb->near_read, 0xff, sizeof(tlb->near_read));
    memset(tlb->near_write, 0xff, sizeof(tlb->near_write));
}

static inline void tlb_drop_jumps(struct tlb *tlb)
{
    if (tlb->jump_fills)
        memset(tlb->jump, 0xff, sizeof(tlb->jump));
    tlb->jump_fills = 0;
}

/* A jump entry was filled in for va. */
static inline void tlb_note_jump(struct tlb *tlb, uint64_t va)
{
    (void)va;
    tlb->jump_fills++;
}

static inline void tlb_flush_all(struct tlb *tlb)
{
    tlb->jump_fills = 1;
    tlb_drop_jumps(tlb);
    tlb_drop_near(tlb);
    memset(tlb->read, 0xff, sizeof(tlb->read));
    memset(tlb->write, 0xff, sizeof(tlb->write));
    memset(tlb->fetch, 0xff, sizeof(tlb->fetch));
    tlb->fills = tlb->fetch_fills = 0;
    tlb->large_first = UINT64_MAX;
    tlb->large_last = 0;
}

static inline void tlb_flush(struct tlb *tlb)
{
    if (tlb->fills > TLB_FILLS_MAX) {
        tlb_flush_all(tlb);
        return;
    }
    tlb_drop_jumps(tlb);
    tlb_drop_near(tlb);
    for (unsigned i = 0; i < tlb->fills; i++)
        tlb->read[tlb->fill[i]].tag = tlb->write[tlb->fill[i]].tag = TLB_INVALID;
    if (tlb->fetch_fills)
        memset(tlb->fetch, 0xff, sizeof(tlb->fetch));
    tlb->fills = tlb->fetch_fills = 0;
    tlb->large_first = UINT64_MAX;
    tlb->large_last = 0;
}

/* Forget one page. False: large leaves may cover it, so this was not enough: flush. */
static inline bool tlb_flush_page(struct tlb *tlb, uint64_t va)
{
    if (va >= tlb->large_first && va <= tlb->large_last)
        return false;
    tlb_drop_near(tlb);
    tlb_drop_jumps(tlb);
    tlb->read[tlb_index(va)].tag = tlb->write[tlb_index(va)].tag = TLB_INVALID;
    tlb->fetch[tlb_fetch_index(va)].tag = TLB_INVALID;
    return true;
}

static inline void tlb_rearm_entry(struct tlb_entry *entry, const struct tlb_info *info, bool tracking,
                                   struct dirty *dirty)
{
    if (entry->tag == TLB_INVALID || (entry->tag & TLB_DEVICE))
        return;
    bool track = tracking || dirty_watched(dirty, info->page);
    entry->tag = (entry->tag & ~(uint64_t)TLB_TRACKED) | (track ? TLB_TRACKED : 0);
}

/* Give up every write permission (tracking), or need none (nobody tracks any more). */
static inline void tlb_rearm(struct tlb *tlb, bool tracking, struct dirty *dirty)
{
    memset(tlb->near_write, 0xff, sizeof(tlb->near_write));
    if (tlb->fills > TLB_FILLS_MAX) {
        for (unsigned i = 0; i < TLB_ENTRIES; i++)
            tlb_rearm_entry(&tlb->write[i], &tlb->write_info[i], tracking, dirty);
        return;
    }
    for (unsigned i = 0; i < tlb->fills; i++)
        tlb_rearm_entry(&tlb->write[tlb->fill[i]], &tlb->write_info[tlb->fill[i]], tracking, dirty);
}
