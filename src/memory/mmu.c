#include "memory/mmu.h"

#include <stdatomic.h>
#include <stddef.h>

/* Page-table entry */
#define PTE_V      (UINT64_C(1) << 0)
#define PTE_R      (UINT64_C(1) << 1)
#define PTE_W      (UINT64_C(1) << 2)
#define PTE_X      (UINT64_C(1) << 3)
#define PTE_U      (UINT64_C(1) << 4)
#define PTE_G      (UINT64_C(1) << 5)
#define PTE_A      (UINT64_C(1) << 6)
#define PTE_D      (UINT64_C(1) << 7)
#define PTE_PBMT   (UINT64_C(3) << 61)
#define PTE_N      (UINT64_C(1) << 63)
#define PTE_RSVD   (UINT64_C(0x7f) << 54)
#define PTE_PPN(p) ((p) >> 10 & ((UINT64_C(1) << 44) - 1))

enum {
    PRIV_USER = 0,
    PRIV_SUPERVISOR = 1,
    PRIV_MACHINE = 3,
    LEVEL_BITS = 9,   /* 512 entries in a table */
    NAPOT_PAGES = 16, /* the one Svnapot size: 64 KiB */
    NAPOT_MARK = 8,   /* its low PPN bits */
    PA_BITS = 56,
};

/* --- physical memory protection -------------------------------------------------------------------------- */

enum { PMP_R = 1, PMP_W = 2, PMP_X = 4, PMP_L = 0x80, PMP_TOR = 1, PMP_NA4 = 2, PMP_NAPOT = 3 };

static unsigned pmp_mode(uint8_t cfg)
{
    return cfg >> 3 & 3;
}

/* The bytes [*first, *last] that the entry covers whose address is addr; false: none. `before` is the entry's before. */
static bool pmp_range(uint8_t cfg, uint64_t addr, uint64_t before, uint64_t *first, uint64_t *last)
{
    switch (pmp_mode(cfg)) {
    case PMP_TOR:
        *first = before << 2;
        *last = (addr << 2) - 1;
        return addr != 0 && *first <= *last;
    case PMP_NA4:
        *first = addr << 2;
        *last = *first + 3;
        return true;
    case PMP_NAPOT: {
        uint64_t ones = addr ^ (addr + 1); /* the trailing ones and the zero above them: size / 4 - 1 */
        *first = (addr & ~ones) << 2;
        *last = *first + (ones << 2 | 3);
        return true;
    }
    default: return false;
    }
}

void mmu_pmp_load(struct mmu_pmp *pmp, const uint8_t cfg[MMU_PMP_ENTRIES], const uint64_t addr[MMU_PMP_ENTRIES])
{
    pmp->ranges = 0;
    for (unsigned i = 0; i < MMU_PMP_ENTRIES; i++) {
        uint64_t first, last;
        if (!pmp_range(cfg[i], addr[i], i ? addr[i - 1] : 0, &first, &last))
            continue;
        pmp->range[pmp->ranges].first = first;
        pmp->range[pmp->ranges].last = last;
        pmp->range[pmp->ranges++].cfg = cfg[i];
    }
}

enum { PMP_ALL = PMP_R | PMP_W | PMP_X, PMP_SPLIT = -1 };

/* What may be done with all bytes of [first, last]: a set of PMP_R/W/X, or PMP_SPLIT when the entry that decides
 * covers only a part of them (such an access fails whatever the entry allows). */
static int pmp_decide(const struct mmu_pmp *pmp, uint8_t priv, uint64_t first, uint64_t last)
{
    for (unsigned i = 0; i < pmp->ranges; i++) {
        if (last < pmp->range[i].first || first > pmp->range[i].last)
            continue;
        if (first < pmp->range[i].first || last > pmp->range[i].last)
            return PMP_SPLIT;
        if (priv == PRIV_MACHINE && !(pmp->range[i].cfg & PMP_L))
            return PMP_ALL;
        return pmp->range[i].cfg & PMP_ALL;
    }
    return priv == PRIV_MACHINE ? PMP_ALL : 0;
}

static int pmp_need(enum mmu_access access)
{
    return access == MMU_FETCH ? PMP_X : access == MMU_WRITE ? PMP_W : PMP_R;
}

bool mmu_pmp_allows(const struct mmu_pmp *pmp, uint8_t priv, uint64_t gpa, uint64_t bytes, enum mmu_access access)
{
    int may = pmp_decide(pmp, priv, gpa, gpa + bytes - 1);
    return may != PMP_SPLIT && (may & pmp_need(access));
}

bool mmu_pmp_active(const struct mmu_pmp *pmp, uint8_t priv)
{
    if (priv != PRIV_MACHINE)
        return true; /* entries exist, so S and U may do nothing that no entry allows */
    for (unsigned i = 0; i < pmp->ranges; i++)
        if (pmp->range[i].cfg & PMP_L)
            return true;
    return false;
}

/* Narrow a finished mapping by PMP: for the whole page when one entry decides it, else for the byte asked for. */
static enum mmu_result apply_pmp(const struct mmu_context *context, enum mmu_access access, struct mmu_mapping *out)
{
    uint64_t page = out->gpa & ~(uint64_t)(PAGE_BYTES - 1);
    out->pmp_bytes = PAGE_BYTES;
    int may = pmp_decide(context->pmp, context->priv, page, page + PAGE_BYTES - 1);
    if (may == PMP_SPLIT) {
        out->pmp_bytes = 4; /* the grain of PMP */
        may = pmp_decide(context->pmp, context->priv, out->gpa, out->gpa);
    }
    out->readable = out->readable && (may & PMP_R);
    out->writable = out->writable && (may & PMP_W);
    out->executable = out->executable && (may & PMP_X);
    return may & pmp_need(access) ? MMU_OK : MMU_ACCESS_FAULT;
}

/* --- the walk ---------------------------------------------------------------------------------------------- */

static enum mmu_result translate_bare(const struct mmu_context *context, uint64_t va, enum mmu_access access,
                                      struct mmu_mapping *out)
{
    *out = (struct mmu_mapping){
        .gpa = va,
        .readable = true,
        .writable = true,
        .executable = true,
        .leaf_va = va & ~(uint64_t)(PAGE_BYTES - 1),
        .leaf_bytes = PAGE_BYTES,
    };
    if (va >> PA_BITS)
        return MMU_ACCESS_FAULT;
    return apply_pmp(context, access, out);
}

static unsigned satp_levels(uint64_t satp)
{
    switch (satp >> 60) {
    case 8: return 3;
    case 9: return 4;
    case 10: return 5;
    default: return 0;
    }
}

/* A table entry in guest RAM, for this walk only. */
struct pte_at {
    struct ram_block *block;
    uint64_t gpa;
    _Atomic uint64_t *host;
};

static bool pte_find(const struct mmu_context *context, struct bus *bus, uint64_t gpa, struct pte_at *at)
{
    if (!mmu_pmp_allows(context->pmp, PRIV_SUPERVISOR, gpa, 8, MMU_READ))
        return false;
    at->block = ram_block_at(bus->ram, gpa, 8);
    if (!at->block)
        return false;
    at->gpa = gpa;
    at->host = (_Atomic uint64_t *)(void *)(at->block->host + (gpa - at->block->gpa));
    return true;
}

/* Is it well-formed at this level (0 = 4 KiB pages)? */
static bool pte_legal(const struct mmu_context *context, uint64_t pte, unsigned level)
{
    if (!(pte & PTE_V) || (pte & (PTE_R | PTE_W)) == PTE_W || (pte & PTE_RSVD))
        return false;
    if (!(pte & (PTE_R | PTE_X))) /* a pointer to the next table: everything else in it is reserved */
        return !(pte & (PTE_N | PTE_PBMT | PTE_D | PTE_A | PTE_U)) && level > 0;
    if ((pte & PTE_PBMT) == PTE_PBMT || ((pte & PTE_PBMT) && !context->pbmte))
        return false;
    if (PTE_PPN(pte) & ((UINT64_C(1) << (LEVEL_BITS * level)) - 1)) /* misaligned superpage */
        return false;
    return !(pte & PTE_N) || (level == 0 && PTE_PPN(pte) % NAPOT_PAGES == NAPOT_MARK);
}

/* R, W and X as this context may use them. */
static uint64_t pte_rights(const struct mmu_context *context, uint64_t pte)
{
    uint64_t rights = pte & (PTE_R | PTE_W | PTE_X);
    if (context->mxr && (pte & PTE_X))
        rights |= PTE_R;
    if (context->priv == PRIV_USER)
        return pte & PTE_U ? rights : 0;
    if (pte & PTE_U)
        return context->sum ? rights & ~PTE_X : 0;
    return rights;
}

static uint64_t rights_need(enum mmu_access access)
{
    return access == MMU_FETCH ? PTE_X : access == MMU_WRITE ? PTE_W : PTE_R;
}

/* Set the missing A and D. MMU_OK and *changed: done, or lost to another writer; look at the entry again. */
static enum mmu_result pte_update(const struct mmu_context *context, struct bus *bus, const struct pte_at *at,
                                  uint64_t pte, uint64_t want)
{
    if (!context->adue)
        return MMU_PAGE_FAULT;
    if (at->block->rom || !mmu_pmp_allows(context->pmp, PRIV_SUPERVISOR, at->gpa, 8, MMU_WRITE))
        return MMU_ACCESS_FAULT;
    /* Relaxed, as the entry's reader is: the ISA orders A and D with nothing but sfence.vma. */
    if (atomic_compare_exchange_strong_explicit(at->host, &pte, pte | want, memory_order_relaxed, memory_order_relaxed))
        dirty_mark(bus->ram->dirty, ram_page_of(at->block, at->gpa));
    return MMU_OK;
}

static void fill_mapping(uint64_t va, uint64_t pte, unsigned level, uint64_t rights, struct mmu_mapping *out)
{
    uint64_t bytes = (uint64_t)PAGE_BYTES << (LEVEL_BITS * level);
    uint64_t base = PTE_PPN(pte) << PAGE_SHIFT;
    if (pte & PTE_N) {
        bytes = (uint64_t)NAPOT_PAGES * PAGE_BYTES;
        base &= ~(bytes - 1);
    }
    out->gpa = base | (va & (bytes - 1));
    out->readable = rights & PTE_R;
    out->writable = (rights & PTE_W) && (pte & PTE_D);
    out->executable = rights & PTE_X;
    out->leaf_va = va & ~(bytes - 1);
    out->leaf_bytes = bytes;
}

/* The bits above those that are translated must repeat the highest of them. */
static bool is_canonical(uint64_t va, unsigned levels)
{
    unsigned unused = 64 - (PAGE_SHIFT + LEVEL_BITS * levels);
    return (uint64_t)((int64_t)(va << unused) >> unused) == va;
}

enum mmu_result mmu_translate(const struct mmu_context *context, struct bus *bus, uint64_t va, enum mmu_access access,
                              struct mmu_mapping *out)
{
    unsigned levels = satp_levels(context->satp);
    if (context->priv == PRIV_MACHINE || levels == 0)
        return translate_bare(context, va, access, out);

    if (!is_canonical(va, levels))
        return MMU_PAGE_FAULT;

    *out = (struct mmu_mapping){ 0 };
    uint64_t table = (context->satp & ((UINT64_C(1) << 44) - 1)) << PAGE_SHIFT;
    for (unsigned level = levels - 1;; level--) {
        uint64_t index = va >> (PAGE_SHIFT + LEVEL_BITS * level) & 511;
        struct pte_at at;
        if (!pte_find(context, bus, table + index * 8, &at))
            return MMU_ACCESS_FAULT;
        for (;;) {
            uint64_t pte = atomic_load_explicit(at.host, memory_order_relaxed);
            if (!pte_legal(context, pte, level))
                return MMU_PAGE_FAULT;
            if (!(pte & (PTE_R | PTE_X))) {
                out->global |= (pte & PTE_G) != 0;
                table = PTE_PPN(pte) << PAGE_SHIFT;
                break;
            }
            uint64_t rights = pte_rights(context, pte);
            if (!(rights & rights_need(access)))
                return MMU_PAGE_FAULT;
            uint64_t want = PTE_A | (access == MMU_WRITE ? PTE_D : 0);
            if ((pte & want) == want) {
                out->global |= (pte & PTE_G) != 0;
                fill_mapping(va, pte, level, rights, out);
                return apply_pmp(context, access, out);
            }
            enum mmu_result updated = pte_update(context, bus, &at, pte, want);
            if (updated != MMU_OK)
                return updated;
        }
    }
}

bool mmu_look(uint64_t satp, struct bus *bus, uint64_t va, uint64_t *gpa)
{
    const struct mmu_context anything = { .satp = satp, .pbmte = true };
    unsigned levels = satp_levels(satp);
    *gpa = va;
    if (levels == 0)
        return va >> PA_BITS == 0;
    if (!is_canonical(va, levels))
        return false;

    uint64_t table = (satp & ((UINT64_C(1) << 44) - 1)) << PAGE_SHIFT;
    for (unsigned level = levels - 1;; level--) {
        uint64_t pte;
        if (!ram_read(bus->ram, table + (va >> (PAGE_SHIFT + LEVEL_BITS * level) & 511) * 8, &pte, sizeof(pte)) ||
            !pte_legal(&anything, pte, level))
            return false;
        if (pte & (PTE_R | PTE_X)) {
            struct mmu_mapping map;
            fill_mapping(va, pte, level, 0, &map);
            *gpa = map.gpa;
            return true;
        }
        table = PTE_PPN(pte) << PAGE_SHIFT;
    }
}
