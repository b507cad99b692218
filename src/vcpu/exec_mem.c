/* Loads and stores: the inline hit, and the slow path behind it.
 *
 * The one order to keep: the page is marked dirty before the store, and no safe point lies between the two. */
#include <assert.h>

#include "vcpu/engine.h"
#include "vcpu/guest_access.h"
#include "vcpu/jit/lockstep.h"

/* --- translation and refill ------------------------------------------------------------------------------ */

static uint64_t fault_cause(enum mmu_result result, enum mmu_access access)
{
    static const uint8_t page[] = { CAUSE_LOAD_PAGE, CAUSE_STORE_PAGE, CAUSE_FETCH_PAGE };
    static const uint8_t denied[] = { CAUSE_LOAD_ACCESS, CAUSE_STORE_ACCESS, CAUSE_FETCH_ACCESS };

    return result == MMU_PAGE_FAULT ? page[access] : denied[access];
}

static struct tlb_leaf leaf_of(const struct mmu_mapping *map)
{
    return (struct tlb_leaf){ .bits = (uint8_t)__builtin_ctzll(map->leaf_bytes), .global = map->global };
}

static void set_entry(struct tlb_entry *entry, struct tlb_info *info, uint64_t va, const struct ram_block *block,
                      const struct mmu_mapping *map, uint64_t flags)
{
    uint64_t gpa = map->gpa & TLB_PAGE_MASK;
    struct tlb_leaf leaf = leaf_of(map);

    va &= TLB_PAGE_MASK;
    entry->tag = va | flags;
    entry->addend = block ? (uintptr_t)(block->host + (gpa - block->gpa)) - va : 0;
    *info = (struct tlb_info){
        .gpa = gpa,
        .page = block ? ram_page_of(block, gpa) : 0,
        .leaf_bits = leaf.bits,
        .leaf_global = leaf.global,
    };
}

/* Does a first store to this page have to be noted? */
static bool must_mark(struct vcpu *v, uint64_t page)
{
    return dirty_tracking(v->dirty) || dirty_watched(v->dirty, page);
}

/* Remember a translation, for the other kind of access too when this walk allows it. */
static void remember(struct vcpu *v, uint64_t va, const struct mmu_mapping *map, const struct ram_block *block)
{
    unsigned i = tlb_index(va);
    struct tlb *tlb = v->tlb;

    if (map->readable)
        set_entry(&tlb->read[i], &tlb->read_info[i], va, block, map, block ? 0 : TLB_DEVICE);
    if (map->writable && !(block && block->rom) && !bus_watches_page(v->bus, map->gpa)) {
        uint64_t flags = !block ? TLB_DEVICE : must_mark(v, ram_page_of(block, map->gpa)) ? TLB_TRACKED : 0;

        flags |= v->lockstep ? TLB_LISTED : 0;
        set_entry(&tlb->write[i], &tlb->write_info[i], va, block, map, flags);
    }
    tlb_note_fill(tlb, i);
    tlb_note_leaf(tlb, va, leaf_of(map), false);
}

/* In front of a store. Who has used up its quota is held at the next safe point: here host pointers are in use. */
static void mark_ahead(struct vcpu *v, uint64_t page)
{
    if (UNLIKELY(dirty_mark_ahead(v->dirty, &v->writer, page)))
        engine_kick_self(v);
}

static void reach_entry(struct vcpu *v, uint64_t va, struct tlb_entry *entry, const struct tlb_info *info,
                        struct reach *out)
{
    out->gpa = info->gpa + (va & ~TLB_PAGE_MASK);
    if (entry->tag & TLB_TRACKED) {
        engine_stat(&v->slow_stores, 1);
        mark_ahead(v, info->page);
        entry->tag &= ~(uint64_t)TLB_TRACKED;
    }
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): that is what an addend is */
    out->host = entry->tag & TLB_DEVICE ? NULL : (uint8_t *)(va + entry->addend);
}

uint64_t engine_reach(struct vcpu *v, uint64_t va, unsigned bytes, enum mmu_access access, struct reach *out)
{
    unsigned i = tlb_index(va);
    bool write = access == MMU_WRITE;
    struct tlb_entry *entry = write ? &v->tlb->write[i] : &v->tlb->read[i];
    struct tlb_info *info = write ? &v->tlb->write_info[i] : &v->tlb->read_info[i];
    struct mmu_mapping map;

    if (tlb_covers(entry, va)) {
        reach_entry(v, va, entry, info, out);
        return 0;
    }
    engine_stat(&v->tlb_refills, 1);
    enum mmu_result result = mmu_translate(&v->data, v->bus, va, access, &map);
    if (result != MMU_OK)
        return fault_cause(result, access);

    const struct ram_block *block = ram_block_at(v->ram, map.gpa & TLB_PAGE_MASK, PAGE_BYTES);
    if (write && block && block->rom)
        return CAUSE_STORE_ACCESS;
    if (map.pmp_bytes >= PAGE_BYTES) {
        remember(v, va, &map, block);
        if (tlb_covers(entry, va)) {
            reach_entry(v, va, entry, info, out);
            return 0;
        }
    } else if (!mmu_pmp_allows(&v->pmp, v->data.priv, map.gpa, bytes, access)) {
        return fault_cause(MMU_ACCESS_FAULT, access);
    }
    /* For this access only. */
    out->gpa = map.gpa;
    out->host = block ? block->host + (map.gpa - block->gpa) : NULL;
    if (write && block)
        mark_ahead(v, ram_page_of(block, map.gpa));
    return 0;
}

uint64_t engine_reach_code(struct vcpu *v, uint64_t pc, const uint8_t **host, uint64_t *gpa)
{
    struct tlb_fetch *entry = &v->tlb->fetch[tlb_fetch_index(pc)];
    uint64_t offset = pc & ~TLB_PAGE_MASK;
    struct mmu_mapping map;

    if (entry->tag == (pc & TLB_PAGE_MASK)) {
        *host = entry->host + offset;
        *gpa = entry->gpa + offset;
        return 0;
    }
    engine_stat(&v->tlb_refills, 1);
    enum mmu_result result = mmu_translate(&v->code, v->bus, pc, MMU_FETCH, &map);
    if (result != MMU_OK)
        return fault_cause(result, MMU_FETCH);
    const struct ram_block *block = ram_block_at(v->ram, map.gpa & TLB_PAGE_MASK, PAGE_BYTES);
    if (!block)
        return CAUSE_FETCH_ACCESS;
    *host = block->host + (map.gpa - block->gpa);
    *gpa = map.gpa;
    if (map.pmp_bytes < PAGE_BYTES) /* the caller goes by single instructions here */
        return 0;
    *entry = (struct tlb_fetch){
        .tag = pc & TLB_PAGE_MASK, .gpa = map.gpa - offset, .host = *host - offset, .leaf = leaf_of(&map)
    };
    v->tlb->fetch_fills++;
    tlb_note_leaf(v->tlb, pc, entry->leaf, true);
    return 0;
}

/* --- the dirty protocol's vCPU side ---------------------------------------------------------------------- */

void engine_poll_dirty(struct vcpu *v)
{
    uint64_t epoch = dirty_writer_poll(v->dirty, &v->writer);

    if (!epoch)
        return;
    int64_t began_ns = stall_wanted(&v->stall) ? clock_now_ns() : 0;
    engine_rearm(v);
    dirty_writer_ack(v->dirty, &v->writer, epoch);
    if (began_ns)
        stall_add(&v->stall, STALL_DIRTY, clock_now_ns() - began_ns);
}

/* A device may block on its lock for as long as it likes: that is no time to hold up a harvest. No host pointer is
 * held here, so this is a safe point. */
static bool device_read(struct vcpu *v, uint64_t gpa, unsigned bytes)
{
    dirty_writer_park(v->dirty, &v->writer);
    bool done = bus_device_read(v->bus, gpa, bytes, &v->value);
    dirty_writer_unpark(v->dirty, &v->writer);
    engine_poll_dirty(v);
    return done;
}

static bool device_write(struct vcpu *v, uint64_t gpa, unsigned bytes, uint64_t value)
{
    dirty_writer_park(v->dirty, &v->writer);
    bool done = bus_device_write(v->bus, gpa, bytes, value);
    dirty_writer_unpark(v->dirty, &v->writer);
    engine_poll_dirty(v);
    return done;
}

/* --- any access ------------------------------------------------------------------------------------------ */

static unsigned bytes_to_page_end(uint64_t va)
{
    return PAGE_BYTES - (unsigned)(va & (PAGE_BYTES - 1));
}

static inline uint64_t low_bytes(uint64_t value, unsigned bytes)
{
    return bytes == 8 ? value : value & ((UINT64_C(1) << bytes * 8) - 1);
}

/* Both pages are translated before either is touched; a device at either end is no place for half an access. */
static bool reach_both(struct vcpu *v, struct uop *u, uint64_t va, unsigned bytes, enum mmu_access access,
                       struct reach half[2])
{
    half[0] = half[1] = (struct reach){ 0 };
    unsigned first = bytes_to_page_end(va);
    uint64_t tval = va;

    half[0] = half[1] = (struct reach){ 0 };
    uint64_t cause = engine_reach(v, va, first, access, &half[0]);

    if (!cause && !half[0].host)
        cause = fault_cause(MMU_ACCESS_FAULT, access);
    if (!cause) {
        tval = va + first;
        cause = engine_reach(v, va + first, bytes - first, access, &half[1]);
        if (!cause && !half[1].host)
            cause = fault_cause(MMU_ACCESS_FAULT, access);
    }
    if (cause)
        engine_trap(v, u, cause, tval);
    return !cause;
}

bool engine_load(struct vcpu *v, struct uop *u, uint64_t va, unsigned bytes)
{
    unsigned first = bytes_to_page_end(va);
    struct reach at, half[2];

    if (UNLIKELY(v->dry))
        return lockstep_load(v, u, va, bytes);
    if (first < bytes) {
        if (!reach_both(v, u, va, bytes, MMU_READ, half))
            return false;
        v->value = 0;
        for (unsigned i = 0; i < bytes; i++) {
            const uint8_t *host = i < first ? half[0].host + i : half[1].host + (i - first);
            v->value |= (uint64_t)guest_load_8(host) << i * 8;
        }
        return true;
    }
    uint64_t cause = engine_reach(v, va, bytes, MMU_READ, &at);
    if (!cause && !at.host && !device_read(v, at.gpa, bytes))
        cause = CAUSE_LOAD_ACCESS;
    if (cause) {
        engine_trap(v, u, cause, va);
        return false;
    }
    v->value = at.host ? guest_load(at.host, bytes) : low_bytes(v->value, bytes);
    return true;
}

bool engine_store(struct vcpu *v, struct uop *u, uint64_t va, unsigned bytes, uint64_t value)
{
    unsigned first = bytes_to_page_end(va);
    struct reach at, half[2];

    if (UNLIKELY(v->dry))
        return lockstep_store(v, u, va, bytes, value);
    if (first < bytes) {
        if (!reach_both(v, u, va, bytes, MMU_WRITE, half))
            return false;
        for (unsigned i = 0; i < bytes; i++)
            guest_store_8(i < first ? half[0].host + i : half[1].host + (i - first), (uint8_t)(value >> i * 8));
        return true;
    }
    uint64_t cause = engine_reach(v, va, bytes, MMU_WRITE, &at);
    if (!cause && !at.host && !device_write(v, at.gpa, bytes, low_bytes(value, bytes)))
        cause = CAUSE_STORE_ACCESS;
    if (cause) {
        engine_trap(v, u, cause, va);
        return false;
    }
    if (at.host) {
        guest_store(at.host, bytes, value);
        bus_stored(v->bus, at.gpa, bytes);
    }
    return true;
}

/* --- handlers -------------------------------------------------------------------------------------------- */

/* NOLINTBEGIN(performance-no-int-to-ptr) */
#define HOST(entry) ((uint8_t *)(va + (entry)->addend))
#define ADDRESS     (XR(rs1) + (uint64_t)u->imm)

/* The slow half is a function of its own, tail-called, so that the fast half needs no frame. */
#define LOAD_AT(name, bytes, address, before, extend, bits)                                                            \
    static __attribute__((noinline, cold)) struct uop *slow_##name(struct vcpu *v, struct uop *u)                      \
    {                                                                                                                  \
        if (!engine_load(v, u, address, bytes))                                                                        \
            return NULL;                                                                                               \
        XR(rd) = (uint64_t)(int64_t)(extend)v->value;                                                                  \
        NEXT;                                                                                                          \
    }                                                                                                                  \
    OP(name)                                                                                                           \
    {                                                                                                                  \
        before;                                                                                                        \
        uint64_t va = address;                                                                                         \
        const struct tlb_entry *entry = &v->tlb->read[tlb_index(va)];                                                  \
        if (!tlb_hits(entry, va, bytes))                                                                               \
            return slow_##name(v, u);                                                                                  \
        XR(rd) = (uint64_t)(int64_t)(extend)guest_load_##bits(HOST(entry));                                            \
        NEXT;                                                                                                          \
    }
#define LOAD(name, bytes, extend, bits) LOAD_AT(name, bytes, ADDRESS, (void)0, extend, bits)

LOAD(lb, 1, int8_t, 8)
LOAD(lbu, 1, uint8_t, 8)
LOAD(lh, 2, int16_t, 16)
LOAD(lhu, 2, uint16_t, 16)
LOAD(lw, 4, int32_t, 32)
LOAD(lwu, 4, uint32_t, 32)
LOAD(ld, 8, uint64_t, 64)

/* auipc has retired when the load traps, so its result goes to the register first. */
#define LA_ADDRESS (v->page_va + (uint64_t)u->imm + (uint64_t)(int64_t)u->disp)
LOAD_AT(PSEUDO_la_ld, 8, LA_ADDRESS, XR(rd) = v->page_va + (uint64_t)u->imm, uint64_t, 64)
LOAD_AT(PSEUDO_la_lw, 4, LA_ADDRESS, XR(rd) = v->page_va + (uint64_t)u->imm, int32_t, 32)

OP(PSEUDO_load_x0)
{
    if (!engine_load(v, u, ADDRESS, u->rs3))
        return NULL;
    NEXT;
}

#define STORE(name, bytes, bits)                                                                                       \
    static __attribute__((noinline, cold)) struct uop *slow_##name(struct vcpu *v, struct uop *u)                      \
    {                                                                                                                  \
        if (!engine_store(v, u, ADDRESS, bytes, XR(rs2)))                                                              \
            return NULL;                                                                                               \
        NEXT;                                                                                                          \
    }                                                                                                                  \
    OP(name)                                                                                                           \
    {                                                                                                                  \
        uint64_t va = ADDRESS;                                                                                         \
        const struct tlb_entry *entry = &v->tlb->write[tlb_index(va)];                                                 \
        if (!tlb_hits(entry, va, bytes))                                                                               \
            return slow_##name(v, u);                                                                                  \
        guest_store_##bits(HOST(entry), (uint##bits##_t)XR(rs2));                                                      \
        NEXT;                                                                                                          \
    }

STORE(sb, 1, 8)
STORE(sh, 2, 16)
STORE(sw, 4, 32)
STORE(sd, 8, 64)
/* NOLINTEND(performance-no-int-to-ptr) */
