/* Address translation: Sv39, Sv48, Sv57 and PMP as pure functions of their arguments (Privileged ISA, 3.7 and 12).
 *
 * No state, no TLB, no trap: the vCPU's slow path calls these and keeps the answer. Page-table entries are read
 * with relaxed atomics; A and D are set by a compare-and-swap on the entry, and the page that holds the entry is
 * marked dirty like any other store. An invalid entry is never worth caching. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "memory/bus.h"

enum mmu_access { MMU_READ = 0, MMU_WRITE = 1, MMU_FETCH = 2 };

enum { MMU_PMP_ENTRIES = 16 };

/* The entries that are on, lowest first, as the ranges of bytes that they cover: a walk asks at every step. */
struct mmu_pmp {
    struct {
        uint64_t first, last;
        uint8_t cfg;
    } range[MMU_PMP_ENTRIES];
    unsigned ranges;
};

/* What translation depends on, gathered by the vCPU for the access's effective privilege (MPRV applied). */
struct mmu_context {
    uint64_t satp;
    uint8_t priv; /* effective: 0 U, 1 S, 3 M */
    bool sum, mxr;
    bool adue; /* hardware updates A and D; else a page fault asks software to */
    bool pbmte;
    const struct mmu_pmp *pmp;
};

enum mmu_result { MMU_OK = 0, MMU_PAGE_FAULT, MMU_ACCESS_FAULT };

struct mmu_mapping {
    uint64_t gpa;                        /* physical address of the byte asked for */
    bool readable, writable, executable; /* what else this leaf + context allows without another walk: writable
                                                only when D is already set (or bare/M) */
    bool global;
    uint64_t leaf_va, leaf_bytes; /* the leaf that covers it: 4 KiB ... 256 TiB; for precise fences */
    uint64_t pmp_bytes; /* 4096 when one PMP decision holds for the whole page; less when it does not: then every
                             access asks mmu_pmp_allows() with its true size, and nothing is cached */
};

/* Walk. Canonical-address check, leaf rules, misaligned superpages, U/SUM/MXR, A/D, reserved bits, Svnapot, Svpbmt. */
enum mmu_result mmu_translate(const struct mmu_context *context, struct bus *bus, uint64_t va, enum mmu_access access,
                              struct mmu_mapping *out);

/* Where va leads by the tables of satp, for somebody who looks from outside: no rights, no PMP, no A and D, nothing is
 * changed. False: nowhere. */
bool mmu_look(uint64_t satp, struct bus *bus, uint64_t va, uint64_t *gpa);

/* From the registers, whenever one of them changes. */
void mmu_pmp_load(struct mmu_pmp *pmp, const uint8_t cfg[MMU_PMP_ENTRIES], const uint64_t addr[MMU_PMP_ENTRIES]);

/* PMP alone, for a physical access of `bytes` that does not cross a page. */
bool mmu_pmp_allows(const struct mmu_pmp *pmp, uint8_t priv, uint64_t gpa, uint64_t bytes, enum mmu_access access);

/* Can PMP refuse anything? M: only when a locked entry is on. S and U: always, as they may do nothing that no entry
 * allows. */
bool mmu_pmp_active(const struct mmu_pmp *pmp, uint8_t priv);
