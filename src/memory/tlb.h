/* The per-vCPU software TLB: what the slow path remembers so that the next access is a compare and an add.
 *
 * One struct tlb per mode and address space (vcpu/translate.h says how many and which), so a change of either swaps a
 * pointer and flushes nothing. A tag is the page's virtual address; flags below that make the inline compare fail, and
 * only the slow path looks at them:
 *   TRACKED  a write entry whose page is not yet marked dirty: mark, clear the flag, go on (no page walk)
 *   DEVICE   not RAM: the gpa is remembered, the access goes to the bus
 *   LISTED   a write entry while the engines are compared: every store is the slow path's (vcpu/jit/lockstep.h)
 *
 * Every entry is of one 4 KiB page and knows how large the leaf is that it is a fragment of and whether that is global,
 * so that a fence for an address or an ASID (Privileged ISA, 12.2.1) drops what it must and leaves the rest.
 *
 * Owner: the vCPU's thread. Invalid translations are never kept, nor pages that one PMP decision does not cover. A
 * zeroed struct tlb is not an empty one: tlb_init(). */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "memory/dirty.h"

enum {
    TLB_ENTRIES = 2048,
    TLB_FETCH_ENTRIES = 256,
    TLB_FILLS_MAX = 192,
    TLB_PAGE_SHIFT = 12,
    TLB_NEAR = 8,              /* slots of their own for the base registers that are used most */
    TLB_JUMP_ENTRIES = 4096,   /* where indirect jumps lead */
    TLB_JUMP_PAGE_BITS = 4096, /* pages that jumps lead to, hashed */
};
#define TLB_PAGE_MASK (~(uint64_t)0 << TLB_PAGE_SHIFT)

/* Clear of the lowest bits, which an address may keep in a compare that also asks whether it is aligned. */
enum { TLB_TRACKED = 0x100, TLB_DEVICE = 0x200, TLB_LISTED = 0x400, TLB_FLAGS = TLB_TRACKED | TLB_DEVICE | TLB_LISTED };
#define TLB_INVALID UINT64_MAX

struct tlb_entry {
    uint64_t tag;
    uintptr_t addend; /* host address = guest virtual address + addend; 0 for a device */
};

/* The leaf that an entry is a fragment of. */
struct tlb_leaf {
    uint8_t bits; /* its size is 1 << bits bytes */
    bool global;  /* in all address spaces: a fence for one ASID leaves it */
};

struct tlb_info {       /* what only the slow path wants to know */
    uint64_t gpa;       /* of the page */
    uint64_t page : 48; /* its number in the dirty maps; not for devices */
    uint64_t leaf_bits : 8, leaf_global : 1;
};

struct tlb_fetch {
    uint64_t tag;
    uint64_t gpa;
    const uint8_t *host;
    struct tlb_leaf leaf;
};

/* Where a virtual address leads in generated code. */
struct tlb_jump {
    uint64_t va; /* odd: none */
    const void *code;
};

/* Virtual addresses; first > last: none. */
struct tlb_range {
    uint64_t first, last;
};

struct tlb {
    /* Generated code knows where these five are. */
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
    bool has_global;    /* an entry of a global leaf may be here */
    bool jumps_private; /* a jump may lead to a page that is not global */
    /* What leaves larger than a page cover, at most: a fence in there looks at every entry. */
    struct tlb_range large, large_code;
    /* Jumps, those of the interpreter too: a fence for a page without any need not look for them. */
    uint64_t jump_pages[TLB_JUMP_PAGE_BITS / 64];
};

static inline unsigned tlb_index(uint64_t va)
{
    return (va >> TLB_PAGE_SHIFT) & (TLB_ENTRIES - 1);
}

static inline unsigned tlb_fetch_index(uint64_t va)
{
    return (va >> TLB_PAGE_SHIFT) & (TLB_FETCH_ENTRIES - 1);
}

static inline unsigned tlb_jump_index(uint64_t va)
{
    return (va >> 1 ^ va >> TLB_PAGE_SHIFT) & (TLB_JUMP_ENTRIES - 1);
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

/* --- filling --------------------------------------------------------------------------------------------- */

static inline void tlb_note_fill(struct tlb *tlb, unsigned index)
{
    if (tlb->fills < TLB_FILLS_MAX)
        tlb->fill[tlb->fills] = (uint16_t)index;
    tlb->fills++;
}

static inline void tlb_range_add(struct tlb_range *range, uint64_t va, unsigned bits)
{
    uint64_t size = UINT64_C(1) << bits, first = va & -size, last = first + (size - 1);

    if (first < range->first)
        range->first = first;
    if (last > range->last)
        range->last = last;
}

static inline bool tlb_range_has(const struct tlb_range *range, uint64_t va)
{
    return va >= range->first && va <= range->last;
}

/* Something of this leaf at va was put into read[] or write[], or (code) into fetch[]. */
static inline void tlb_note_leaf(struct tlb *tlb, uint64_t va, struct tlb_leaf leaf, bool code)
{
    if (leaf.global)
        tlb->has_global = true;
    if (leaf.bits > TLB_PAGE_SHIFT) {
        tlb_range_add(&tlb->large, va, leaf.bits);
        if (code)
            tlb_range_add(&tlb->large_code, va, leaf.bits);
    }
}

static inline unsigned tlb_jump_page_bit(uint64_t va)
{
    return (va >> TLB_PAGE_SHIFT) & (TLB_JUMP_PAGE_BITS - 1);
}

/* Somebody remembers where the jump to va leads, outside of this struct or in it. */
static inline void tlb_note_jump_page(struct tlb *tlb, uint64_t va)
{
    const struct tlb_fetch *fetch = &tlb->fetch[tlb_fetch_index(va)];
    unsigned bit = tlb_jump_page_bit(va);

    tlb->jump_pages[bit / 64] |= UINT64_C(1) << bit % 64;
    if (fetch->tag != (va & TLB_PAGE_MASK) || !fetch->leaf.global)
        tlb->jumps_private = true;
}

/* Two ways: an index and its neighbour. NULL: not known. */
static inline const void *tlb_jump_find(const struct tlb *tlb, uint64_t va)
{
    unsigned i = tlb_jump_index(va);

    return tlb->jump[i].va == va ? tlb->jump[i].code : tlb->jump[i ^ 1].va == va ? tlb->jump[i ^ 1].code : NULL;
}

/* The newest is where generated code looks first. */
static inline void tlb_jump_add(struct tlb *tlb, uint64_t va, const void *code)
{
    unsigned i = tlb_jump_index(va);

    tlb->jump[i ^ 1] = tlb->jump[i];
    tlb->jump[i] = (struct tlb_jump){ .va = va, .code = code };
    tlb->jump_fills++;
    tlb_note_jump_page(tlb, va);
}

/* --- forgetting all -------------------------------------------------------------------------------------- */

static inline void tlb_drop_near(struct tlb *tlb)
{
    memset(tlb->near_read, 0xff, sizeof(tlb->near_read));
    memset(tlb->near_write, 0xff, sizeof(tlb->near_write));
}

/* Those of jump[] alone: the code that they lead to is gone. */
static inline void tlb_drop_jumps(struct tlb *tlb)
{
    if (tlb->jump_fills)
        memset(tlb->jump, 0xff, sizeof(tlb->jump));
    tlb->jump_fills = 0;
}

/* And those that others remember: they are told, and forget theirs. */
static inline void tlb_drop_all_jumps(struct tlb *tlb)
{
    tlb_drop_jumps(tlb);
    memset(tlb->jump_pages, 0, sizeof(tlb->jump_pages));
    tlb->jumps_private = false;
}

/* Everything; who remembers jumps elsewhere forgets those of this TLB. */
static inline void tlb_flush(struct tlb *tlb)
{
    tlb_drop_all_jumps(tlb);
    tlb_drop_near(tlb);
    if (tlb->fills > TLB_FILLS_MAX) {
        memset(tlb->read, 0xff, sizeof(tlb->read));
        memset(tlb->write, 0xff, sizeof(tlb->write));
    } else {
        for (unsigned i = 0; i < tlb->fills; i++)
            tlb->read[tlb->fill[i]].tag = tlb->write[tlb->fill[i]].tag = TLB_INVALID;
    }
    if (tlb->fetch_fills)
        memset(tlb->fetch, 0xff, sizeof(tlb->fetch));
    tlb->fills = tlb->fetch_fills = 0;
    tlb->has_global = false;
    tlb->large = tlb->large_code = (struct tlb_range){ .first = UINT64_MAX, .last = 0 };
}

/* From whatever it was. */
static inline void tlb_init(struct tlb *tlb)
{
    tlb->fills = TLB_FILLS_MAX + 1;
    tlb->fetch_fills = tlb->jump_fills = 1;
    tlb_flush(tlb);
}

/* What is true in all address spaces, from a TLB of another one: a new process need not find the kernel again. */
static inline void tlb_inherit(struct tlb *to, const struct tlb *from)
{
    memcpy(to, from, sizeof(*to));
    tlb_drop_near(to);
    for (unsigned i = 0; i < TLB_ENTRIES; i++) {
        if (!to->read_info[i].leaf_global)
            to->read[i].tag = TLB_INVALID;
        if (!to->write_info[i].leaf_global)
            to->write[i].tag = TLB_INVALID;
    }
    for (unsigned i = 0; i < TLB_FETCH_ENTRIES; i++)
        if (to->fetch[i].tag != TLB_INVALID && !to->fetch[i].leaf.global) /* an empty one's leaf says nothing */
            to->fetch[i].tag = TLB_INVALID;
    if (to->jumps_private) /* jumps do not know their leaf */
        tlb_drop_all_jumps(to);
}

/* --- forgetting some ------------------------------------------------------------------------------------- */

/* What to drop: everything whose leaf covers va, or (no has_va) everything; keep_global: but not global leaves. */
struct tlb_fence {
    bool has_va, keep_global;
    uint64_t va;
};

static inline bool tlb_fence_meets(const struct tlb_fence *fence, uint64_t tag, struct tlb_leaf leaf)
{
    return tag != TLB_INVALID && !(fence->keep_global && leaf.global) &&
           (!fence->has_va || (tag ^ fence->va) >> leaf.bits == 0);
}

static inline void tlb_fence_slot(struct tlb *tlb, const struct tlb_fence *fence, unsigned i)
{
    const struct tlb_info *read = &tlb->read_info[i], *write = &tlb->write_info[i];

    if (tlb_fence_meets(fence, tlb->read[i].tag, (struct tlb_leaf){ read->leaf_bits, read->leaf_global }))
        tlb->read[i].tag = TLB_INVALID;
    if (tlb_fence_meets(fence, tlb->write[i].tag, (struct tlb_leaf){ write->leaf_bits, write->leaf_global }))
        tlb->write[i].tag = TLB_INVALID;
}

static inline void tlb_fence_fetch_slot(struct tlb *tlb, const struct tlb_fence *fence, unsigned i)
{
    if (tlb_fence_meets(fence, tlb->fetch[i].tag, tlb->fetch[i].leaf))
        tlb->fetch[i].tag = TLB_INVALID;
}

/* Look at every entry that may be one. */
static inline void tlb_fence_sweep(struct tlb *tlb, const struct tlb_fence *fence)
{
    bool many = tlb->fills > TLB_FILLS_MAX;

    tlb_drop_near(tlb);
    for (unsigned i = 0; i < (many ? TLB_ENTRIES : tlb->fills); i++)
        tlb_fence_slot(tlb, fence, many ? i : tlb->fill[i]);
    for (unsigned i = 0; tlb->fetch_fills && i < TLB_FETCH_ENTRIES; i++)
        tlb_fence_fetch_slot(tlb, fence, i);
}

static inline void tlb_fence_near(struct tlb *tlb, uint64_t va)
{
    uint64_t tag = va & TLB_PAGE_MASK;

    for (unsigned i = 0; i < TLB_NEAR; i++) {
        if (tlb->near_read[i].tag == tag)
            tlb->near_read[i].tag = TLB_INVALID;
        if (tlb->near_write[i].tag == tag)
            tlb->near_write[i].tag = TLB_INVALID;
    }
}

/* Drop jump[]'s entries for va's page, and others that happen to share its bit. True: there may have been jumps. */
static inline bool tlb_fence_jump_page(struct tlb *tlb, uint64_t va)
{
    unsigned bit = tlb_jump_page_bit(va);

    if (!(tlb->jump_pages[bit / 64] >> bit % 64 & 1))
        return false;
    for (unsigned i = 0; tlb->jump_fills && i < TLB_JUMP_ENTRIES; i++)
        if (tlb_jump_page_bit(tlb->jump[i].va) == bit)
            tlb->jump[i].va = UINT64_MAX;
    tlb->jump_pages[bit / 64] &= ~(UINT64_C(1) << bit % 64);
    return true;
}

/* True: jumps were among it, and whoever remembers jumps elsewhere has to forget those of this TLB. */
static inline bool tlb_fence(struct tlb *tlb, const struct tlb_fence *fence)
{
    bool private_jumps = tlb->jumps_private;

    if (!fence->has_va && !(fence->keep_global && tlb->has_global)) {
        tlb_flush(tlb);
        return true;
    }
    if (!fence->has_va) {
        tlb_fence_sweep(tlb, fence);
        if (private_jumps)
            tlb_drop_all_jumps(tlb);
        return private_jumps;
    }
    if (tlb_range_has(&tlb->large, fence->va)) {
        tlb_fence_sweep(tlb, fence);
        if (tlb_range_has(&tlb->large_code, fence->va)) { /* jumps do not know their leaf */
            tlb_drop_all_jumps(tlb);
            return true;
        }
    } else {
        tlb_fence_near(tlb, fence->va);
        tlb_fence_slot(tlb, fence, tlb_index(fence->va));
        tlb_fence_fetch_slot(tlb, fence, tlb_fetch_index(fence->va));
    }
    return tlb_fence_jump_page(tlb, fence->va);
}

/* --- the dirty protocol ---------------------------------------------------------------------------------- */

static inline void tlb_rearm_entry(struct tlb_entry *entry, const struct tlb_info *info, bool tracking,
                                   struct dirty *dirty)
{
    if (entry->tag == TLB_INVALID || (entry->tag & TLB_DEVICE))
        return;
    bool track = tracking || dirty_watched(dirty, info->page);
    entry->tag = (entry->tag & ~(uint64_t)TLB_TRACKED) | (track ? TLB_TRACKED : 0);
}

/* Give up every write permission (tracking), or need none (nobody tracks any more) but for watched pages. */
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
