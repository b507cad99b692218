/* Address spaces side by side: what a switch keeps, what each kind of fence drops in them and what it leaves.
 *
 * Dropping too little is wrong and dropping too much is slow; both show in the same way. A program looks at some
 * places, changes all their page-table entries, fences, and looks again: where it still sees the old page, the entry
 * was kept. */
#include <sched.h>

#include "tests/unit/vcpu/page_rig.h"
#include "vcpu/translate.h"

enum { ASID_A = 1, ASID_B = 2, FRAMES = 0x40000, RESULTS = DATA, FLAG = OTHER, TABLE_PAGES = 24, SPOTS_MAX = 8 };
enum { BEFORE = 111, AFTER = 222, CSR_SSTATUS = 0x100, CSR_STVEC = 0x105, CSR_SEPC = 0x141, CSR_SATP = 0x180 };

/* No two of these, of the places below and of the program's pages meet in a slot of the TLB. */
static const uint64_t WINDOW = 0x50180000, STUB = 0x48030000, METER = 0x2c0000, HALF = RIG_RAM_BYTES / 2;

enum how { LOAD, STORE, CALL, HOWS };
enum mode { MODE_S, MODE_S_SUM, MODE_U, MODES };

struct spaces {
    struct page_rig p; /* first */
    uint64_t root_b;
    enum how how;
    enum mode mode;
    uint64_t refills[16]; /* at each store to METER */
    unsigned samples;
};

/* A place to look at: in space A or B, in a leaf of level 0 or 1. */
struct spot {
    bool b;
    uint64_t va;
    int level;
    unsigned flags;
};

static uint64_t root_of(const struct spaces *s, bool b)
{
    return b ? s->root_b : ram_at(TABLES);
}

static uint64_t satp_of(const struct spaces *s, bool b)
{
    return UINT64_C(8) << 60 | (uint64_t)(b ? ASID_B : ASID_A) << 44 | root_of(s, b) >> 12;
}

/* --- the machine ----------------------------------------------------------------------------------------- */

static uint64_t meter_read(void *device, uint64_t offset, unsigned size)
{
    (void)device, (void)offset, (void)size;
    return 0;
}

static void meter_write(void *device, uint64_t offset, uint64_t value, unsigned size)
{
    struct spaces *s = device;
    struct vcpu_stats stats;

    (void)offset, (void)value, (void)size;
    vcpu_stats(s->p.rig.vcpu[0], &stats);
    if (s->samples < 16)
        s->refills[s->samples++] = stats.tlb_refills;
}

static const struct bus_ops METER_OPS = { meter_read, meter_write, 1, 8 };

static struct spaces *spaces_new(enum how how, enum mode mode)
{
    struct spaces *s = test_calloc(1, sizeof(*s));
    const uint32_t stub[HOWS][3] = {
        [LOAD] = { as(OP_ld, a0, s0, 0), as(OP_ecall, 0, 0, 0) },
        [STORE] = { as(OP_sd, a1, s0, 0), as(OP_ecall, 0, 0, 0) },
        [CALL] = { as(OP_jalr, ra, s0, 0), as(OP_ecall, 0, 0, 0) },
    };
    struct err err = { 0 };

    s->how = how;
    s->mode = mode;
    page_rig_init(&s->p);
    assert_int_equal(bus_add(&s->p.rig.bus, "meter", METER, PAGE_BYTES, &METER_OPS, s, &err), 0);
    s->root_b = s->p.next_table;
    s->p.next_table += PAGE_BYTES;
    for (int b = 0; b < 2; b++) {
        uint64_t root = root_of(s, b);

        for (uint64_t page = 0; page < 0x10; page++)
            map_in(&s->p, root, ram_at(page << 12), ram_at(page << 12), RWX, 0);
        map_in(&s->p, root, RIG_END, RIG_END, R | W | A | D, 0);
        map_in(&s->p, root, METER, METER, R | W | A | D, 0);
        map_in(&s->p, root, STUB, ram_at(0xc000), R | X | U | A, 0);
        for (uint64_t page = 0; page < TABLE_PAGES; page++)
            map_in(&s->p, root, WINDOW + (page << 12), ram_at(TABLES) + (page << 12), R | W | A | D, 0);
    }
    assert_true(ram_load(s->p.rig.ram, ram_at(0xc000), stub[how], sizeof(stub[how])));
    struct hart *hart = rig_hart(&s->p.rig);
    hart->satp = satp_of(s, false);
    hart->medeleg = 1 << CAUSE_ECALL_U | 1 << CAUSE_LOAD_PAGE | 1 << CAUSE_STORE_PAGE | 1 << CAUSE_FETCH_PAGE;
    if (mode == MODE_S_SUM)
        hart->mstatus |= MSTATUS_SUM;
    return s;
}

static void spaces_free(struct spaces *s)
{
    rig_free(&s->p.rig);
    test_free(s);
}

/* --- writing programs ------------------------------------------------------------------------------------ */

static void put_switch(struct spaces *s, uint64_t satp)
{
    put_li(&s->p.rig, t0, satp);
    put(&s->p.rig, as(OP_csrrw, zero, t0, CSR_SATP));
}

/* Traps taken in S mode go to `ahead` instructions behind the next one. */
static void put_stvec(struct rig *rig, unsigned ahead)
{
    put(rig, as(OP_auipc, t1, 0, 0));
    put(rig, as(OP_addi, t1, t1, 4 * (3 + (int64_t)ahead)));
    put(rig, as(OP_csrrw, zero, t1, CSR_STVEC));
}

/* Look at va; a0: what a load or a call found. A store puts `value` there. */
static void put_look(struct spaces *s, uint64_t va, int64_t value)
{
    struct rig *rig = &s->p.rig;

    put_li(rig, s0, va);
    put(rig, as(OP_addi, a1, zero, value));
    if (s->mode != MODE_U) {
        put(rig, s->how == LOAD    ? as(OP_ld, a0, s0, 0)
                 : s->how == STORE ? as(OP_sd, a1, s0, 0)
                                   : as(OP_jalr, ra, s0, 0));
        return;
    }
    put_li(rig, t0, STUB);
    put(rig, as(OP_csrrw, zero, t0, CSR_SEPC));
    put(rig, as(OP_addi, t0, zero, MSTATUS_SPP));
    put(rig, as(OP_csrrc, zero, t0, CSR_SSTATUS));
    put_stvec(rig, 1);
    put(rig, as(OP_sret, 0, 0, 0));
}

static void put_result(struct spaces *s, unsigned i)
{
    put_li(&s->p.rig, t0, ram_at(RESULTS) + 8 * i);
    put(&s->p.rig, as(OP_sd, a0, t0, 0));
}

/* Let va's entry in that space mean gpa. */
static void put_remap(struct spaces *s, const struct spot *spot, uint64_t pte)
{
    struct rig *rig = &s->p.rig;

    put_li(rig, t0, WINDOW + entry_in(&s->p, root_of(s, spot->b), spot->va, spot->level) - ram_at(TABLES));
    put_li(rig, t1, pte);
    put(rig, as(OP_sd, t1, t0, 0));
}

static void put_meter(struct rig *rig)
{
    put_li(rig, t0, METER);
    put(rig, as(OP_sd, zero, t0, 0));
}

/* --- places ---------------------------------------------------------------------------------------------- */

static uint64_t frame_of(const struct spot *spots, unsigned i, bool after)
{
    if (spots[i].level)
        return RIG_RAM + (after ? HALF : 0);
    return ram_at(FRAMES) + 2 * i * PAGE_BYTES + (after ? PAGE_BYTES : 0);
}

static uint64_t seen_at(const struct spot *spots, unsigned i, bool after)
{
    return frame_of(spots, i, after) + (spots[i].va & ((spots[i].level ? HALF : PAGE_BYTES) - 1));
}

static uint64_t pte_of(const struct spaces *s, const struct spot *spots, unsigned i, bool after)
{
    return frame_of(spots, i, after) >> 2 | RWX | spots[i].flags | (s->mode == MODE_U ? U : 0) | 1;
}

static void fill_frame(struct spaces *s, uint64_t gpa, int64_t value)
{
    const uint32_t code[2] = { as(OP_addi, a0, zero, value), as(OP_jalr, zero, ra, 0) };

    if (s->how == CALL)
        assert_true(ram_load(s->p.rig.ram, gpa, code, sizeof(code)));
    else
        poke(&s->p.rig, gpa, (uint64_t)value);
}

/* The operands of a fence; asid < 0, va 0: none. */
struct order {
    uint64_t va;
    int asid;
};

static void put_fence(struct rig *rig, const struct order *order)
{
    put_li(rig, s0, order->va);
    put(rig, as(OP_addi, s1, zero, order->asid));
    put(rig, as(OP_sfence_vma, 0, order->va ? s0 : zero, order->asid < 0 ? zero : s1));
}

/* One bit for each spot: was what it had dropped by this fence, given in space A? */
static unsigned dropped(const struct spot *spots, unsigned count, const struct order *order, enum how how,
                        enum mode mode)
{
    struct spaces *s = spaces_new(how, mode);
    unsigned mask = 0;

    for (unsigned i = 0; i < count; i++) {
        map_in(&s->p, root_of(s, spots[i].b), spots[i].va, frame_of(spots, i, false), 0, spots[i].level);
        poke(&s->p.rig, entry_in(&s->p, root_of(s, spots[i].b), spots[i].va, spots[i].level),
             pte_of(s, spots, i, false));
        fill_frame(s, seen_at(spots, i, false), BEFORE);
        fill_frame(s, seen_at(spots, i, true), AFTER);
    }
    assert_true(s->p.next_table <= ram_at(TABLES) + TABLE_PAGES * PAGE_BYTES);
    for (unsigned i = 0; i < count; i++) {
        put_switch(s, satp_of(s, spots[i].b));
        put_look(s, spots[i].va, BEFORE);
    }
    put_switch(s, satp_of(s, false));
    for (unsigned i = 0; i < count; i++)
        put_remap(s, &spots[i], pte_of(s, spots, i, true));
    if (order)
        put_fence(&s->p.rig, order);
    for (unsigned i = 0; i < count; i++) {
        put_switch(s, satp_of(s, spots[i].b));
        put_look(s, spots[i].va, 77);
        put_result(s, i);
    }
    put_end(&s->p.rig);
    rig_run(&s->p.rig);
    for (unsigned i = 0; i < count; i++) {
        uint64_t old = how == STORE ? peek(&s->p.rig, seen_at(spots, i, false)) : 0;
        uint64_t new = how == STORE ? peek(&s->p.rig, seen_at(spots, i, true)) : 0;
        uint64_t result = how == STORE ? (old == 77   ? BEFORE
                                          : new == 77 ? AFTER
                                                      : 0)
                                       : peek(&s->p.rig, ram_at(RESULTS) + 8 * i);
        assert_true(result == BEFORE || result == AFTER);
        mask |= (unsigned)(result == AFTER) << i;
    }
    spaces_free(s);
    return mask;
}

static void check_fence(const struct spot *spots, unsigned count, const struct order *order, unsigned wanted)
{
    for (enum how how = 0; how < HOWS; how++) {
        for (enum mode mode = 0; mode < MODES; mode++) {
            unsigned mask = dropped(spots, count, order, how, mode);
            if (mask != wanted)
                fail_msg("access %d in mode %d: dropped %#x instead of %#x", (int)how, (int)mode, mask, wanted);
        }
    }
}

static const uint64_t P = 0x40040000, Q = 0x40050000, GLOBAL = 0x40060000;
static const struct spot TWO_SPACES[] = {
    { false, 0x40040000, 0, 0 }, { false, 0x40050000, 0, 0 }, { false, 0x40060000, 0, G },
    { true, 0x40040000, 0, 0 },  { true, 0x40050000, 0, 0 },  { true, 0x40060000, 0, G },
};
enum { A_P = 1, A_Q = 2, A_G = 4, B_P = 8, B_Q = 16, B_G = 32, EVERYTHING = 63 };

static void check_two(uint64_t va, int asid, unsigned wanted)
{
    check_fence(TWO_SPACES, 6, &(struct order){ .va = va, .asid = asid }, wanted);
}

static void a_switch_of_address_spaces_drops_nothing(void **state)
{
    (void)state;
    check_fence(TWO_SPACES, 6, NULL, 0);
}

static void a_fence_for_everything_reaches_every_space(void **state)
{
    (void)state;
    check_two(0, -1, EVERYTHING);
}

static void a_fence_for_an_address_reaches_it_in_every_space(void **state)
{
    (void)state;
    check_two(P, -1, A_P | B_P);
    check_two(GLOBAL, -1, A_G | B_G);
}

static void a_fence_for_an_asid_leaves_others_and_what_is_global(void **state)
{
    (void)state;
    check_two(0, ASID_A, A_P | A_Q);
    check_two(0, ASID_B, B_P | B_Q);
    check_two(0, 3, 0);
}

static void a_fence_for_both_drops_one_page_of_one_space(void **state)
{
    (void)state;
    check_two(Q, ASID_A, A_Q);
    check_two(Q, ASID_B, B_Q);
    check_two(GLOBAL, ASID_A, 0);
    check_two(P, 3, 0);
}

/* Two leaves of 2 MiB, two pieces seen of the first, and a page between that a range from one to the other covers. */
static const struct spot LARGE[] = {
    { false, 0x40080000, 1, 0 }, { false, 0x40090000, 1, 0 }, { false, 0x40260000, 0, 0 }, { false, 0x404a0000, 1, 0 }
};

static void a_fence_in_a_large_page_drops_its_pieces_and_no_others(void **state)
{
    (void)state;
    check_fence(LARGE, 4, &(struct order){ .va = 0x40005000, .asid = -1 }, 3);
    check_fence(LARGE, 4, &(struct order){ .va = 0x40005000, .asid = ASID_A }, 3);
    check_fence(LARGE, 4, &(struct order){ .va = 0x40260000, .asid = -1 }, 4);
    check_fence(LARGE, 4, &(struct order){ .va = 0x40261000, .asid = -1 }, 0);
    check_fence(LARGE, 4, &(struct order){ .va = 0x40005000, .asid = ASID_B }, 0);
}

/* --- more ------------------------------------------------------------------------------------------------ */

static void going_back_and_forth_refills_nothing(void **state)
{
    struct spaces *s = spaces_new(LOAD, MODE_S);
    struct rig *rig = &s->p.rig;

    (void)state;
    map_in(&s->p, root_of(s, false), P, ram_at(FRAMES), RWX, 0);
    map_in(&s->p, root_of(s, true), P, ram_at(FRAMES) + PAGE_BYTES, RWX, 0);
    poke(rig, ram_at(FRAMES), BEFORE);
    poke(rig, ram_at(FRAMES) + PAGE_BYTES, AFTER);
    put(rig, as(OP_addi, s2, zero, 50));
    put(rig, as(OP_addi, s3, zero, 0));
    put_li(rig, s4, 0);
    uint64_t loop = here(rig);
    for (int b = 0; b < 2; b++) {
        put_switch(s, satp_of(s, b));
        put_look(s, P, 0);
        put(rig, as(OP_add, s3, s3, a0));
        put(rig, as(OP_sd, s3, s0, 8));
        put_meter(rig);
    }
    put(rig, as(OP_addi, s2, s2, -1));
    put(rig, as(OP_bne, s2, zero, (int64_t)(loop - here(rig))));
    put_end(rig);
    struct hart *hart = rig_run(rig);

    assert_int_equal(hart->x[s3], 50 * (BEFORE + AFTER));
    assert_int_equal(s->samples, 16);
    assert_true(s->refills[0] > 0);
    assert_int_equal(s->refills[15], s->refills[1]); /* after each space was seen once */
    spaces_free(s);
}

/* More spaces than are remembered, and each takes the place of one with the other root: what is reused must not show
 * what it was. */
static void a_space_that_makes_room_leaves_nothing_behind(void **state)
{
    enum { LOOKS = 3 * TLB_SPACES };
    struct spaces *s = spaces_new(LOAD, MODE_S);
    struct rig *rig = &s->p.rig;

    (void)state;
    for (int b = 0; b < 2; b++) {
        map_in(&s->p, root_of(s, b), P, ram_at(FRAMES) + (uint64_t)b * PAGE_BYTES, RWX, 0);
        poke(rig, ram_at(FRAMES) + (uint64_t)b * PAGE_BYTES, b ? AFTER : BEFORE);
    }
    for (unsigned i = 0; i < LOOKS; i++) {
        put_switch(s, (satp_of(s, i / TLB_SPACES & 1) & ~(UINT64_C(0xffff) << 44)) | (uint64_t)(10 + i) << 44);
        put_look(s, P, 0);
        put_result(s, i);
    }
    put_end(rig);
    rig_run(rig);
    for (unsigned i = 0; i < LOOKS; i++)
        assert_int_equal(peek(rig, ram_at(RESULTS) + 8 * i), i / TLB_SPACES & 1 ? AFTER : BEFORE);
    spaces_free(s);
}

/* Its memory is all zero, and so is that page's tag. */
static void page_zero_is_not_in_a_tlb_that_was_never_used(void **state)
{
    (void)state;
    for (enum how how = 0; how < HOWS; how++) {
        struct spaces *s = spaces_new(how, MODE_S);
        struct rig *rig = &s->p.rig;

        put_switch(s, satp_of(s, true));
        put_stvec(rig, 14);
        put_look(s, 0, 0);
        put(rig, as(OP_jal, zero, 0, 0)); /* not reached */
        put_end(rig);
        struct hart *hart = rig_run(rig);

        assert_int_equal(hart->scause, how == LOAD    ? CAUSE_LOAD_PAGE
                                       : how == STORE ? CAUSE_STORE_PAGE
                                                      : CAUSE_FETCH_PAGE);
        spaces_free(s);
    }
}

/* Both roots had this ASID; one fence must reach both. */
static void a_fence_for_an_asid_reaches_every_root_it_had(void **state)
{
    struct spaces *s = spaces_new(LOAD, MODE_S);
    struct rig *rig = &s->p.rig;
    const struct spot a = { false, P, 0, 0 };
    uint64_t other = (satp_of(s, true) & ~(UINT64_C(0xffff) << 44)) | (uint64_t)ASID_A << 44;

    (void)state;
    map_in(&s->p, root_of(s, false), P, ram_at(FRAMES), RWX, 0);
    poke(rig, ram_at(FRAMES), BEFORE);
    poke(rig, ram_at(FRAMES) + PAGE_BYTES, AFTER);
    put_look(s, P, 0);
    put_result(s, 0);
    put_switch(s, other);
    put_remap(s, &a, (ram_at(FRAMES) + PAGE_BYTES) >> 2 | RWX | 1);
    put_fence(rig, &(struct order){ .asid = ASID_A });
    put_switch(s, satp_of(s, false));
    put_look(s, P, 0);
    put_result(s, 1);
    put_end(rig);
    rig_run(rig);
    assert_int_equal(peek(rig, ram_at(RESULTS)), BEFORE);
    assert_int_equal(peek(rig, ram_at(RESULTS) + 8), AFTER);
    spaces_free(s);
}

/* Svvptc: an entry that becomes valid needs no fence, in no mode, for no access. */
static void an_invalid_entry_is_looked_at_again_without_a_fence(void **state)
{
    (void)state;
    for (enum how how = 0; how < HOWS; how++) {
        struct spaces *s = spaces_new(how, MODE_S);
        struct rig *rig = &s->p.rig;
        const struct spot spot = { false, P, 0, 0 };

        map_in(&s->p, root_of(s, false), P, 0, 0, 0);
        poke(rig, entry_in(&s->p, root_of(s, false), P, 0), 0);
        fill_frame(s, ram_at(FRAMES), AFTER);
        put(rig, as(OP_addi, a0, zero, 5));
        for (int i = 0; i < 3; i++) { /* seen invalid more than once */
            put_stvec(rig, 14);
            put_look(s, P, AFTER);
            put(rig, as(OP_jal, zero, 0, 0)); /* not reached */
        }
        put_remap(s, &spot, ram_at(FRAMES) >> 2 | RWX | 1);
        put_stvec(rig, 14);
        put_look(s, P, 33);
        put(rig, as(OP_addi, a5, zero, 1));
        put_end(rig);
        struct hart *hart = rig_run(rig);

        assert_int_equal(hart->x[a5], 1);
        assert_int_equal(hart->stval, P);
        if (how == STORE)
            assert_int_equal(peek(rig, ram_at(FRAMES)), 33);
        else
            assert_int_equal(hart->x[a0], AFTER);
        spaces_free(s);
    }
}

static void new_pmp_rules_hold_in_every_space(void **state)
{
    struct spaces *s = spaces_new(LOAD, MODE_S);
    struct rig *rig = &s->p.rig;
    struct hart *hart = rig_hart(rig);

    (void)state;
    /* A looks, B calls M, which takes the page away, and back in A the look must fail. */
    map_in(&s->p, root_of(s, false), P, ram_at(FRAMES), RWX, 0);
    hart->pmpcfg[0] = 0x1f; /* entry 0 will become the one page; entry 1 is everything */
    hart->pmpcfg[1] = 0x1f;
    hart->pmpaddr[1] = UINT64_MAX >> 10;
    put_look(s, P, 0);
    put_switch(s, satp_of(s, true));
    put(rig, as(OP_ecall, 0, 0, 0));
    uint64_t back = here(rig);
    put_switch(s, satp_of(s, false));
    put_look(s, P, 0);
    put(rig, as(OP_addi, a5, zero, 1)); /* not reached */
    put_end(rig);
    uint64_t monitor = here(rig);
    put_li(rig, t0, (ram_at(FRAMES) >> 2) | 0x1ff);
    put(rig, as(OP_csrrw, zero, t0, 0x3b0));
    put_li(rig, t0, 0x1f18); /* nothing in that page */
    put(rig, as(OP_csrrw, zero, t0, 0x3a0));
    put_li(rig, t0, back);
    put(rig, as(OP_csrrw, zero, t0, 0x341));
    put_li(rig, t0, ram_at(TRAPS));
    put(rig, as(OP_csrrw, zero, t0, 0x305));
    put(rig, as(OP_mret, 0, 0, 0));
    hart->mtvec = monitor;
    hart = rig_run(rig);

    assert_int_equal(hart->x[a5], 0);
    assert_int_equal(hart->mcause, CAUSE_LOAD_ACCESS);
    assert_int_equal(hart->mtval, P);
    spaces_free(s);
}

/* B holds the permission to store without marking; the harvest comes while A runs. */
static void a_harvest_takes_permissions_back_in_spaces_that_do_not_run(void **state)
{
    struct spaces *s = spaces_new(STORE, MODE_S);
    struct rig *rig = &s->p.rig;
    struct dirty *dirty = rig->ram->dirty;
    uint64_t page = ram_page_of(&rig->ram->block[0], ram_at(FRAMES));

    (void)state;
    for (int b = 0; b < 2; b++)
        map_in(&s->p, root_of(s, b), P, ram_at(FRAMES), RWX, 0);
    put_switch(s, satp_of(s, true));
    put_look(s, P, 1);
    put_switch(s, satp_of(s, false));
    put_look(s, P, 2);
    put(rig, as(OP_lui, t6, 0, (int64_t)RIG_END));
    put(rig, as(OP_sw, zero, t6, 0)); /* "ready": harvest now */
    put_li(rig, t0, ram_at(FLAG));
    put(rig, as(OP_ld, t1, t0, 0));
    put(rig, as(OP_beq, t1, zero, -4));
    put_switch(s, satp_of(s, true));
    put_look(s, P, 3);
    put_end(rig);
    rig_load(rig);
    dirty_start(dirty, DIRTY_MIGRATION, false);
    rig_resume(rig);
    rig_wait_ends(rig, 1);
    assert_true(dirty_test(dirty, DIRTY_MIGRATION, page));
    dirty_take_word(dirty, DIRTY_MIGRATION, page / DIRTY_WORD_PAGES);
    dirty_revoke_wait(dirty, dirty_revoke_begin(dirty));
    assert_false(dirty_test(dirty, DIRTY_MIGRATION, page));
    poke(rig, ram_at(FLAG), 1);
    rig_wait_ends(rig, 2);
    assert_int_equal(peek(rig, ram_at(FRAMES)), 3);
    assert_true(dirty_test(dirty, DIRTY_MIGRATION, page));
    dirty_stop(dirty, DIRTY_MIGRATION);
    spaces_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_switch_of_address_spaces_drops_nothing),
        cmocka_unit_test(a_fence_for_everything_reaches_every_space),
        cmocka_unit_test(a_fence_for_an_address_reaches_it_in_every_space),
        cmocka_unit_test(a_fence_for_an_asid_leaves_others_and_what_is_global),
        cmocka_unit_test(a_fence_for_both_drops_one_page_of_one_space),
        cmocka_unit_test(a_fence_in_a_large_page_drops_its_pieces_and_no_others),
        cmocka_unit_test(going_back_and_forth_refills_nothing),
        cmocka_unit_test(a_space_that_makes_room_leaves_nothing_behind),
        cmocka_unit_test(page_zero_is_not_in_a_tlb_that_was_never_used),
        cmocka_unit_test(a_fence_for_an_asid_reaches_every_root_it_had),
        cmocka_unit_test(an_invalid_entry_is_looked_at_again_without_a_fence),
        cmocka_unit_test(new_pmp_rules_hold_in_every_space),
        cmocka_unit_test(a_harvest_takes_permissions_back_in_spaces_that_do_not_run),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
