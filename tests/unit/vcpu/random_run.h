/* Where random programs run, and how two runs are compared.
 *
 * Memory, as offsets into RIG_RAM (the low 22 bits of any address of code stay the same in every mapping):
 *   HANDLER   catches every trap in M: notes it in LOG, skips the instruction; ecall also writes the next page table
 *             entry of a list and goes on in the next mode of a list
 *   CODE      the program; U runs it at U_CODE when there is paging. COPY: a second one that code pages are remapped to
 *   DATA      16 pages, what the base registers point to
 * The harness counts on the handler alone to end a program: its ebreak at the body's end stores to RIG_END. */
#pragma once
#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "tests/unit/vcpu/random_units.h"

enum {
    HANDLER = 0x1000,
    AREA = 0x8000, /* of the handler: mscratch */
    MODES = 0x9000,
    CHANGES = 0xa000,
    CODE = 0x10000,
    COPY = 0x20000,
    TABLES = 0x40000,
    DATA = 0x100000,
    LOG = 0x200000,
    DATA_PAGES = 16,
    CHANGE_ROWS = 64,
    MODE_ROWS = 256,
    RUN_PATIENCE_S = 60,
};
#define U_CODE UINT64_C(0x40000000)

/* Words of AREA. */
enum {
    AREA_X31 = 3, /* 0..2: x30, x29, x28 */
    AREA_LOG_AT,
    AREA_TRAPS,
    AREA_ALIAS, /* what is added to the low 22 bits to go on in the present mode */
    AREA_END,   /* low 22 bits of the ebreak that ends it all */
    AREA_RAM,
    AREA_MODE_AT,
    AREA_CHANGE_AT,
    AREA_LOG,
    AREA_MODES,
    AREA_CHANGES,
    AREA_MODE_MASK,
    AREA_NEXT,
    AREA_WORDS,
};

struct random_world {
    struct random_code code;
    uint64_t seed;
    unsigned turns;
    bool paged;
    uint64_t x[32], f[32];
    uint64_t area[AREA_WORDS];
    struct {
        uint64_t status, alias;
    } mode[MODE_ROWS];
    struct {
        uint64_t where, pte, va, unused; /* va: all ones: fence everything */
    } change[CHANGE_ROWS];
    uint64_t tables[7 * 512];
    uint8_t data[DATA_PAGES * 4096];
    bool removed[UNITS_MAX];
};

/* --- making a world ---------------------------------------------------------------------------------------- */

enum { PTE_V = 1, PTE_R = 2, PTE_W = 4, PTE_X = 8, PTE_U = 16, PTE_A = 64, PTE_D = 128 };

static inline uint64_t pte_of(uint64_t offset, unsigned flags)
{
    return (RIG_RAM + offset) >> 12 << 10 | flags;
}

/* Mostly all is allowed; A and D are often left to the hart. */
static inline uint64_t any_data_pte(struct random_code *p, unsigned page)
{
    unsigned flags = PTE_V | PTE_R | PTE_W | PTE_U | PTE_A | PTE_D;

    if (one_in(p, 8))
        flags &= ~(unsigned)PTE_W;
    if (one_in(p, 4))
        flags &= ~(unsigned)PTE_U;
    if (one_in(p, 3))
        flags &= ~(unsigned)PTE_D;
    if (one_in(p, 4))
        flags &= ~(unsigned)(PTE_A | PTE_D);
    if (one_in(p, 10))
        flags ^= PTE_X | PTE_R;
    if (one_in(p, 20))
        flags &= ~(unsigned)PTE_V;
    return pte_of(DATA + page * 4096, flags);
}

enum { ROOT, L1_RAM, L0_RAM, L1_USER, L0_USER, L1_DATA, L0_DATA };

static inline uint64_t table_at(unsigned table, unsigned row)
{
    return TABLES + table * 4096 + row * 8;
}

static inline void set_pte(struct random_world *w, unsigned table, unsigned row, uint64_t pte)
{
    w->tables[table * 512 + row] = pte;
}

static inline void random_change(struct random_world *w, unsigned i, uint64_t data_va)
{
    struct random_code *p = &w->code;
    unsigned what = below(p, 10), page = below(p, DATA_PAGES), row = (CODE >> 12) + below(p, CODE_BYTES >> 12);
    const unsigned code = PTE_V | PTE_R | PTE_W | PTE_X | PTE_A | PTE_D;

    if (what < 2) { /* code, for S or for U, here or in the copy */
        bool user = one_in(p, 2);

        w->change[i].where = RIG_RAM + table_at(user ? L0_USER : L0_RAM, row);
        w->change[i].pte = pte_of((one_in(p, 2) ? COPY - CODE : 0) + row * 4096, code | (user ? PTE_U : 0));
        w->change[i].va = (user ? U_CODE : RIG_RAM) + row * 4096;
    } else if (what == 2) { /* one large page for all, or the small ones again */
        unsigned l1 = data_va >> 21 & 511;

        w->change[i].where = RIG_RAM + table_at(L1_DATA, l1);
        w->change[i].pte = one_in(p, 2) ? pte_of(0, PTE_V | PTE_R | PTE_W | PTE_U | (one_in(p, 2) ? PTE_A | PTE_D : 0))
                                        : pte_of(TABLES + L0_DATA * 4096, PTE_V);
        w->change[i].va = UINT64_MAX;
    } else {
        w->change[i].where = RIG_RAM + table_at(L0_DATA, (DATA >> 12) + page);
        w->change[i].pte = any_data_pte(p, below(p, DATA_PAGES));
        w->change[i].va = data_va + DATA + page * 4096;
    }
    if (one_in(p, 4))
        w->change[i].va = UINT64_MAX;
}

static inline void random_tables(struct random_world *w, uint64_t data_va)
{
    const unsigned code = PTE_V | PTE_R | PTE_W | PTE_X | PTE_A | PTE_D;

    set_pte(w, ROOT, RIG_RAM >> 30, pte_of(TABLES + L1_RAM * 4096, PTE_V));
    set_pte(w, ROOT, U_CODE >> 30, pte_of(TABLES + L1_USER * 4096, PTE_V));
    set_pte(w, ROOT, data_va >> 30 & 511, pte_of(TABLES + L1_DATA * 4096, PTE_V));
    set_pte(w, L1_RAM, 0, pte_of(TABLES + L0_RAM * 4096, PTE_V));
    set_pte(w, L1_USER, 0, pte_of(TABLES + L0_USER * 4096, PTE_V));
    set_pte(w, L1_DATA, data_va >> 21 & 511, pte_of(TABLES + L0_DATA * 4096, PTE_V));
    for (unsigned row = CODE >> 12; row < (CODE + CODE_BYTES) >> 12; row++) {
        set_pte(w, L0_RAM, row, pte_of(row * 4096, code));
        set_pte(w, L0_USER, row, pte_of(row * 4096, code | PTE_U));
    }
    for (unsigned page = 0; page < DATA_PAGES; page++)
        set_pte(w, L0_DATA, (DATA >> 12) + page, any_data_pte(&w->code, below(&w->code, DATA_PAGES)));
    for (unsigned i = 0; i < CHANGE_ROWS; i++)
        random_change(w, i, data_va);
}

static inline void random_modes(struct random_world *w)
{
    for (unsigned i = 0; i < MODE_ROWS; i++) {
        struct random_code *p = &w->code;
        unsigned which = below(p, 8);
        uint64_t status = 0;
        bool user = which >= 5;

        if (which == 0)
            status = MSTATUS_MPP; /* M */
        else if (which == 1)
            status = MSTATUS_MPP | MSTATUS_MPRV; /* M, its loads and stores as U */
        else if (!user)
            status = UINT64_C(1) << 11;
        if (!one_in(p, 3))
            status |= MSTATUS_SUM;
        if (one_in(p, 5))
            status |= MSTATUS_MXR;
        w->mode[i].status = status;
        w->mode[i].alias = user && w->paged ? U_CODE : RIG_RAM;
    }
}

static inline void random_world(struct random_world *w, uint64_t seed, unsigned body, unsigned turns)
{
    static const uint64_t data_vas[] = { UINT64_C(0xc0000000), UINT64_C(0x3fffe00000), UINT64_C(0xffffffc000000000),
                                         UINT64_C(0xffffffffffe00000) };
    struct random_code *p = &w->code;
    uint64_t data = RIG_RAM;

    memset(w, 0, sizeof(*w));
    w->seed = seed;
    w->turns = turns;
    random_program(p, seed, body);
    w->paged = one_in(p, 2);
    if (w->paged)
        data = PICK(p, data_vas);
    random_tables(w, w->paged ? data : data_vas[0]);
    random_modes(w);
    for (unsigned i = 0; i < sizeof(w->data); i += 8) {
        uint64_t value = one_in(p, 2) ? any_integer(p) : any_number(p);

        memcpy(w->data + i, &value, 8);
    }
    for (unsigned r = 1; r < 32; r++) {
        w->x[r] = any_integer(p);
        if (is_base(r)) /* near the end of a page, or anywhere in it */
            w->x[r] = data + DATA + (2 + below(p, 11)) * 4096 +
                      (one_in(p, 2)   ? 4096 - 8 * below(p, 40)
                       : one_in(p, 2) ? below(p, 512) * 8
                                      : below(p, 4096));
    }
    w->x[COUNTER_OUTER] = turns;
    for (unsigned r = 0; r < 32; r++)
        w->f[r] = any_number(p);
    w->area[AREA_ALIAS] = RIG_RAM;
    w->area[AREA_END] = CODE + p->end;
    w->area[AREA_RAM] = RIG_RAM;
    w->area[AREA_LOG] = RIG_RAM + LOG;
    w->area[AREA_MODES] = RIG_RAM + MODES;
    w->area[AREA_CHANGES] = RIG_RAM + CHANGES;
    w->area[AREA_MODE_MASK] = MSTATUS_MPP | MSTATUS_MPRV | MSTATUS_SUM | MSTATUS_MXR;
}

/* --- the handler --------------------------------------------------------------------------------------------- */

static inline void put_patch(struct rig *rig, unsigned branch, uint32_t word)
{
    rig->word[branch] = word | (as(OP_beq, 0, 0, (int)(rig->words - branch) * 4) & 0xfe000f80);
}

static inline void put_ld(struct rig *rig, unsigned rd, unsigned word)
{
    put(rig, as(OP_ld, rd, t6, (int64_t)word * 8));
}

static inline void put_sd(struct rig *rig, unsigned rs, unsigned word)
{
    put(rig, as(OP_sd, rs, t6, (int64_t)word * 8));
}

/* t5 = area[base] + area[at], and area[at] moves on by `step`, round a ring of `bytes`. */
static inline void put_ring(struct rig *rig, unsigned at, unsigned base, unsigned step, unsigned log_bytes)
{
    put_ld(rig, t3, at);
    put_ld(rig, t5, base);
    put(rig, as(OP_add, t5, t5, t3));
    put(rig, as(OP_addi, t3, t3, step));
    put(rig, as(OP_slli, t3, t3, 64 - log_bytes));
    put(rig, as(OP_srli, t3, t3, 64 - log_bytes));
    put_sd(rig, t3, at);
}

static inline void put_enter(struct rig *rig)
{
    static const uint16_t noted[] = { 0x342, 0x341, 0x343, 0xb02, 0x300, 0x003 };

    put(rig, as(OP_csrrw, t6, t6, 0x340));
    put_sd(rig, t5, 0);
    put_sd(rig, t4, 1);
    put_sd(rig, t3, 2);
    put(rig, as(OP_csrrw, t5, t6, 0x340));
    put_sd(rig, t5, AREA_X31);
    put_ring(rig, AREA_LOG_AT, AREA_LOG, 64, 16);
    for (unsigned i = 0; i < sizeof(noted) / sizeof(noted[0]) - 1; i++) {
        put(rig, as(OP_csrrs, t3, zero, noted[i]));
        put(rig, as(OP_sd, t3, t5, (int64_t)i * 8));
    }
    put_ld(rig, t3, AREA_TRAPS);
    put(rig, as(OP_addi, t3, t3, 1));
    put_sd(rig, t3, AREA_TRAPS);
    put(rig, as(OP_sd, t3, t5, 40));
}

static inline void put_finish(struct rig *rig)
{
    put(rig, as(OP_csrrs, t3, zero, 0xb02));
    put_sd(rig, t3, AREA_LOG_AT);
    put(rig, as(OP_lui, t3, 0, (int64_t)RIG_END));
    put(rig, as(OP_sw, zero, t3, 0));
    put(rig, as(OP_wfi, 0, 0, 0)); /* nothing ever wakes it: the counters stand still */
    put(rig, as(OP_jal, 0, 0, -4));
}

/* The next change of a page table and the next mode; area's AREA_NEXT keeps the low bits of the next pc. */
static inline void put_ecall(struct rig *rig)
{
    put_sd(rig, t5, AREA_NEXT);
    put_ring(rig, AREA_CHANGE_AT, AREA_CHANGES, 32, 11);
    put(rig, as(OP_ld, t4, t5, 0));
    put(rig, as(OP_ld, t3, t5, 8));
    put(rig, as(OP_sd, t3, t4, 0));
    put(rig, as(OP_ld, t4, t5, 16));
    put(rig, as(OP_addi, t3, t4, 1));
    put(rig, as(OP_beq, t3, zero, 12));
    put(rig, as(OP_sfence_vma, 0, t4, 0));
    put(rig, as(OP_jal, zero, 0, 8));
    put(rig, as(OP_sfence_vma, 0, 0, 0));
    put_ring(rig, AREA_MODE_AT, AREA_MODES, 16, 12);
    put(rig, as(OP_ld, t3, t5, 8));
    put_sd(rig, t3, AREA_ALIAS);
    put_ld(rig, t4, AREA_MODE_MASK);
    put(rig, as(OP_csrrc, zero, t4, 0x300));
    put(rig, as(OP_ld, t4, t5, 0));
    put(rig, as(OP_csrrs, zero, t4, 0x300)); /* with MPRV, MPP is M until mret: what follows reads as M */
    put_ld(rig, t5, AREA_NEXT);
}

static inline void put_leave(struct rig *rig)
{
    put_ld(rig, t3, AREA_ALIAS);
    put(rig, as(OP_add, t5, t5, t3));
    put(rig, as(OP_csrrw, zero, t5, 0x341));
    put_ld(rig, t3, 2);
    put_ld(rig, t4, 1);
    put_ld(rig, t5, 0);
    put_ld(rig, t6, AREA_X31);
    put(rig, as(OP_mret, 0, 0, 0));
}

static inline unsigned put_branch(struct rig *rig)
{
    put(rig, 0);
    return rig->words - 1;
}

static inline void put_handler(struct rig *rig)
{
    unsigned goes_on, fetch[2], no_ecall, ours;

    rig->words = 0;
    put_enter(rig);
    put(rig, as(OP_csrrs, t3, zero, 0x341));
    put(rig, as(OP_slli, t3, t3, 42));
    put(rig, as(OP_srli, t5, t3, 42));
    put_ld(rig, t4, AREA_END);
    goes_on = put_branch(rig);
    put_finish(rig);
    put_patch(rig, goes_on, as(OP_bne, t5, t4, 0));

    put(rig, as(OP_csrrs, t4, zero, 0x342));
    put(rig, as(OP_addi, t3, t4, -CAUSE_FETCH_ACCESS));
    fetch[0] = put_branch(rig);
    put(rig, as(OP_addi, t3, t4, -CAUSE_FETCH_PAGE));
    fetch[1] = put_branch(rig);
    put_ld(rig, t3, AREA_RAM); /* how long was the instruction? */
    put(rig, as(OP_add, t3, t3, t5));
    put(rig, as(OP_lhu, t3, t3, 0));
    put(rig, as(OP_andi, t3, t3, 3));
    put(rig, as(OP_addi, t3, t3, -3));
    put(rig, as(OP_sltiu, t3, t3, 1));
    put(rig, as(OP_slli, t3, t3, 1));
    put(rig, as(OP_addi, t3, t3, 2));
    put(rig, as(OP_add, t5, t5, t3));
    put(rig, as(OP_addi, t3, t4, -CAUSE_ECALL_U));
    put(rig, as(OP_sltiu, t3, t3, 4));
    no_ecall = put_branch(rig);
    put_ecall(rig);
    put_patch(rig, no_ecall, as(OP_beq, t3, zero, 0));
    put_leave(rig);

    /* No code there: in a mapping of another mode, and then on in this one; or a jump to nowhere, and then back. */
    put_patch(rig, fetch[0], as(OP_beq, t3, zero, 0));
    put_patch(rig, fetch[1], as(OP_beq, t3, zero, 0));
    put(rig, as(OP_lui, t4, 0, CODE));
    put(rig, as(OP_sub, t3, t5, t4));
    put(rig, as(OP_lui, t4, 0, CODE_BYTES));
    ours = put_branch(rig);
    put(rig, as(OP_slli, t3, ra, 42));
    put(rig, as(OP_srli, t5, t3, 42));
    put_patch(rig, ours, as(OP_bltu, t3, t4, 0));
    put_leave(rig);
}

/* --- running -------------------------------------------------------------------------------------------------- */

static inline void remove_unit(uint8_t *code, const struct unit *unit)
{
    unsigned at = unit->at, end = at + unit->bytes;

    for (; end - at >= 4; at += 4)
        memcpy(code + at, &(uint32_t){ 0x00000013 }, 4);
    if (end != at)
        memcpy(code + at, &(uint16_t){ 0x0001 }, 2);
}

static inline void load_world(struct rig *rig, const struct random_world *w, int spoiled)
{
    static struct random_code image; /* too large for a stack */
    struct {
        uint64_t offset;
        const void *from;
        uint64_t bytes;
    } part[] = {
        { AREA, w->area, sizeof(w->area) },         { MODES, w->mode, sizeof(w->mode) },
        { CHANGES, w->change, sizeof(w->change) },  { CODE, image.code, sizeof(image.code) },
        { COPY, image.other, sizeof(image.other) }, { TABLES, w->tables, sizeof(w->tables) },
        { DATA, w->data, sizeof(w->data) },         { HANDLER, rig->word, 0 },
    };
    const unsigned parts = sizeof(part) / sizeof(part[0]);

    image = w->code;
    for (unsigned i = 0; i < image.units; i++)
        if (w->removed[i]) {
            remove_unit(image.code, &image.unit[i]);
            remove_unit(image.other, &image.unit[i]);
        } else if ((int)i == spoiled) {
            image.code[image.unit[i].at + 3] ^= 0x40; /* another immediate, another operation, or none */
        }
    put_handler(rig);
    part[parts - 1].bytes = (uint64_t)rig->words * 4;
    for (unsigned i = 0; i < parts; i++)
        assert_true(ram_load(rig->ram, RIG_RAM + part[i].offset, part[i].from, part[i].bytes));
}

static inline void set_hart(struct hart *hart, const struct random_world *w)
{
    memcpy(hart->x, w->x, sizeof(hart->x));
    memcpy(hart->f, w->f, sizeof(hart->f));
    hart->pc = RIG_RAM + CODE + w->code.start;
    hart->mtvec = RIG_RAM + HANDLER;
    hart->mscratch = RIG_RAM + AREA;
    hart->mstatus |= UINT64_C(1) << 13; /* FS: initial */
    hart->menvcfg |= MENVCFG_CBZE | MENVCFG_CBCFE | UINT64_C(1) << 4;
    hart->senvcfg = w->seed & 1 ? hart->menvcfg & 0xf0 : 0;
    hart->mcounteren = (uint32_t)(w->seed >> 1) | 7;
    hart->scounteren = (uint32_t)(w->seed >> 2);
    hart->pmpcfg[0] = 0x1f; /* everything, for all */
    hart->pmpaddr[0] = (UINT64_C(1) << 54) - 1;
    if (w->paged)
        hart->satp = UINT64_C(8) << 60 | UINT64_C(5) << 44 | (RIG_RAM + TABLES) >> 12;
}

/* Runs to the end, disturbed all the time if so wished; false: it did not end. */
static inline bool run_world(struct rig *rig, const struct random_world *w, int spoiled, bool disturb, int patience_s)
{
    int64_t deadline = clock_now_ns() + patience_s * NS_PER_S;
    bool ended = false;

    load_world(rig, w, spoiled);
    set_hart(rig_hart(rig), w);
    rig_resume(rig);
    while (!ended && clock_now_ns() < deadline) {
        int64_t until = disturb ? clock_now_ns() + 50 * NS_PER_US : deadline;

        ended = rig_wait_ends_until(rig, 1, until);
        if (disturb)
            vcpu_kick(rig->vcpu[0]);
    }
    rig_pause(rig);
    return ended;
}
