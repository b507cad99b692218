/* A rig with one hart in S mode under Sv39 page tables that the test writes; traps end the run. */
#pragma once
#include "tests/unit/vcpu/rig.h"

/* Pages, by offset in RAM. Programs run at RIG_RAM, which is mapped one to one. */
enum { TRAPS = 0x3000, DATA = 0x8000, OTHER = 0x9000, TABLES = 0x100000 };
enum { R = 2, W = 4, X = 8, U = 16, G = 32, A = 64, D = 128, RWX = R | W | X | A | D };

struct page_rig {
    struct rig rig; /* first */
    uint64_t next_table;
};

static inline uint64_t ram_at(uint64_t offset)
{
    return RIG_RAM + offset;
}

/* An Sv39 mapping below the table `root`: level 0 is a 4 KiB page, 1 a 2 MiB one. */
static inline void map_in(struct page_rig *p, uint64_t root, uint64_t va, uint64_t gpa, uint64_t flags, int level)
{
    uint64_t table = root;

    for (int at = 2; at > level; at--) {
        uint64_t slot = table + 8 * (va >> (12 + 9 * at) & 511), entry = peek(&p->rig, slot);

        if (!(entry & 1)) {
            entry = p->next_table >> 2 | 1;
            poke(&p->rig, slot, entry);
            p->next_table += PAGE_BYTES;
        }
        table = entry >> 10 << 12;
    }
    poke(&p->rig, table + 8 * (va >> (12 + 9 * level) & 511), gpa >> 2 | flags | 1);
}

/* In the address space that a rig starts in. */
static inline void map(struct page_rig *p, uint64_t va, uint64_t gpa, uint64_t flags, int level)
{
    map_in(p, ram_at(TABLES), va, gpa, flags, level);
}

/* Where the entry that maps va lies. */
static inline uint64_t entry_in(struct page_rig *p, uint64_t root, uint64_t va, int level)
{
    uint64_t table = root;

    for (int at = 2; at > level; at--)
        table = peek(&p->rig, table + 8 * (va >> (12 + 9 * at) & 511)) >> 10 << 12;
    return table + 8 * (va >> (12 + 9 * level) & 511);
}

static inline uint64_t entry_at(struct page_rig *p, uint64_t va, int level)
{
    return entry_in(p, ram_at(TABLES), va, level);
}

/* The rig is new. */
static inline void page_rig_prepare(struct page_rig *p)
{
    struct hart *hart;

    put_end(&p->rig);
    assert_true(ram_load(p->rig.ram, ram_at(TRAPS), p->rig.word, (uint64_t)p->rig.words * 4));
    p->rig.words = 0;
    p->next_table = ram_at(TABLES) + PAGE_BYTES;
    for (uint64_t page = 0; page < 0x10; page++)
        map(p, ram_at(page << 12), ram_at(page << 12), RWX, 0);
    map(p, RIG_END, RIG_END, R | W | A | D, 0);
    hart = rig_hart(&p->rig);
    hart->mtvec = ram_at(TRAPS);
    hart->priv = PRIV_S;
    hart->satp = UINT64_C(8) << 60 | ram_at(TABLES) >> 12;
    hart->pmpcfg[0] = 0x1f; /* everything, for everybody */
    hart->pmpaddr[0] = UINT64_MAX >> 10;
}

static inline void page_rig_init(struct page_rig *p)
{
    rig_new(&p->rig, 1);
    page_rig_prepare(p);
}

static inline void page_rig_init_engine(struct page_rig *p, enum rig_engine engine)
{
    rig_new_engine(&p->rig, 1, engine);
    page_rig_prepare(p);
}

static inline int make_rig(void **state)
{
    *state = test_calloc(1, sizeof(struct page_rig));
    page_rig_init(*state);
    return 0;
}

static inline int drop_rig(void **state)
{
    rig_free(*state);
    test_free(*state);
    return 0;
}
