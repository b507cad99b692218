/* Code and mappings that change under harts which use them all the time.
 *
 * One hart changes, says "turn k" in a flag and waits until all have answered. The others, until they see the flag, use what
 * is there and may meet the old or the new; once they have seen it and done their fence, the new alone (Unprivileged ISA,
 * Zifencei; Privileged ISA, sfence.vma). Each hart counts in s11 what it should not have met. */
#include <stdlib.h>

#include "tests/unit/vcpu/rig.h"

enum {
    TURNS = 2000,
    TURNS_LONG = 20000,
    CONTROL = 0x100000, /* the flag; 64 bytes on for each hart: its answer */
    CODE_PAGES = 0x110000,
    DATA_PAGES = 0x120000,
    ROOT = 0x130000,
    L1 = 0x131000,
    L0 = 0x132000,
    PAGES = 8,
    FENCE_RW_RW = 0x33,
    INSN_RET = 0x00008067,
};
#define DATA_VA UINT64_C(0x40000000)
#define CODE_VA UINT64_C(0x40001000)

/* s0 flag, s1 own answer, s2 the turn (users: that they wait for), s3 last turn, s11 errors, a7 where to yield, a6 how
 * often it was waited */

static unsigned turns_for(unsigned harts)
{
    const char *is_long = getenv("GODWIT_LONG");

    return (is_long && *is_long ? TURNS_LONG : TURNS) / (harts - 1);
}

static void put_common(struct rig *rig, unsigned hart)
{
    put_li(rig, s0, RIG_RAM + CONTROL);
    put_li(rig, s1, RIG_RAM + CONTROL + 64 * hart);
    put_li(rig, s3, turns_for(rig->harts));
    put_li(rig, a7, RIG_ODDS);
    put(rig, as(OP_addi, s2, zero, 1));
    put(rig, as(OP_addi, s11, zero, 0));
}

/* s11 counts when `reg` is not 0. */
static void put_must_be_0(struct rig *rig, unsigned reg)
{
    put(rig, as(OP_sltu, reg, zero, reg));
    put(rig, as(OP_add, s11, s11, reg));
}

/* a0 must be this turn's value or that of the one before, both modulo the mask + 1. */
static void put_old_or_new(struct rig *rig, unsigned mask)
{
    put(rig, as(OP_sub, a0, s2, a0));
    put(rig, as(OP_andi, a0, a0, mask));
    put(rig, as(OP_srli, a0, a0, 1));
    put_must_be_0(rig, a0);
}

static void put_new(struct rig *rig, unsigned mask)
{
    put(rig, as(OP_sub, a0, s2, a0));
    put(rig, as(OP_andi, a0, a0, mask));
    put_must_be_0(rig, a0);
}

static void put_call(struct rig *rig, unsigned to)
{
    put(rig, as(OP_jalr, ra, to, 0));
}

static void put_say_turn(struct rig *rig, unsigned where)
{
    put(rig, as(OP_fence, 0, 0, FENCE_RW_RW));
    put(rig, as(OP_sw, s2, where, 0));
}

/* The changing hart, hart 0: until all others have answered. */
static void put_wait_answers(struct rig *rig, unsigned harts)
{
    for (unsigned h = 1; h < harts; h++) {
        put(rig, as(OP_lw, zero, a7, 0));
        put(rig, as(OP_lw, t0, s0, 64 * h));
        put(rig, as(OP_bne, t0, s2, -8));
    }
    put(rig, as(OP_fence, 0, 0, FENCE_RW_RW));
}

/* Branch back to `loop` while `op` holds. */
static void put_again(struct rig *rig, enum op op, unsigned r1, unsigned r2, uint64_t loop)
{
    put(rig, as(op, r1, r2, (int64_t)(loop - here(rig))));
}

/* Go on when the flag has this turn, else do `loop` again; now and then let others run. */
static void put_wait_turn(struct rig *rig, uint64_t loop)
{
    put(rig, as(OP_addi, a6, a6, 1));
    put(rig, as(OP_andi, t0, a6, 63));
    put(rig, as(OP_bne, t0, zero, 8));
    put(rig, as(OP_lw, zero, a7, 0));
    put(rig, as(OP_lw, t0, s0, 0));
    put_again(rig, OP_blt, t0, s2, loop);
    put(rig, as(OP_fence, 0, 0, FENCE_RW_RW));
}

static void put_next_turn(struct rig *rig, uint64_t loop)
{
    put(rig, as(OP_addi, s2, s2, 1));
    put_again(rig, OP_bge, s3, s2, loop);
    put_end(rig);
}

static void run_storm(struct rig *rig, const uint64_t entry[])
{
    rig_load(rig);
    for (unsigned h = 0; h < rig->harts; h++)
        vcpu_hart(rig->vcpu[h])->pc = entry[h];
    rig_resume(rig);
    rig_wait_ends(rig, rig->harts);
    rig_pause(rig);
    for (unsigned h = 0; h < rig->harts; h++)
        assert_int_equal(vcpu_hart(rig->vcpu[h])->x[s11], 0);
}

/* --- code ------------------------------------------------------------------------------------------------------ */

enum {
    NEAR_FUNCTION = 0x3000, /* one word that is replaced in one piece, so it may be called at any time */
    FAR_FUNCTION = CODE_PAGES + PAGE_BYTES - 2, /* its first word crosses a page */
    TURN_MASK = 0x7ff,
};

/* Hart 0: "addi a0, zero, turn" over both functions. */
static uint64_t put_rewriter(struct rig *rig, unsigned harts)
{
    uint64_t entry = here(rig);

    put_common(rig, 0);
    put_li(rig, s4, RIG_RAM + NEAR_FUNCTION);
    put_li(rig, s5, RIG_RAM + FAR_FUNCTION);
    put_li(rig, s6, as(OP_addi, a0, zero, 0));
    uint64_t loop = here(rig);
    put(rig, as(OP_andi, t0, s2, TURN_MASK));
    put(rig, as(OP_slli, t0, t0, 20));
    put(rig, as(OP_or, t0, t0, s6));
    put(rig, as(OP_sw, t0, s4, 0));
    put(rig, as(OP_sw, t0, s5, 0));
    put(rig, as(OP_fence_i, 0, 0, 0));
    put_call(rig, s4);
    put_new(rig, TURN_MASK);
    put_call(rig, s5);
    put_new(rig, TURN_MASK);
    put_say_turn(rig, s0);
    put_wait_answers(rig, harts);
    put_next_turn(rig, loop);
    return entry;
}

static uint64_t put_caller(struct rig *rig, unsigned hart)
{
    uint64_t entry = here(rig);

    put_common(rig, hart);
    put_li(rig, s4, RIG_RAM + NEAR_FUNCTION);
    put_li(rig, s5, RIG_RAM + FAR_FUNCTION);
    uint64_t wait = here(rig);
    if (hart % 2) /* by a register, or by a jump that may be linked */
        put_call(rig, s4);
    else
        put(rig, as(OP_jal, ra, 0, (int64_t)(RIG_RAM + NEAR_FUNCTION - here(rig))));
    put_old_or_new(rig, TURN_MASK);
    put_wait_turn(rig, wait);
    put(rig, as(OP_fence_i, 0, 0, 0));
    for (unsigned i = 0; i < 3; i++) {
        put_call(rig, i == 1 ? s5 : s4);
        put_new(rig, TURN_MASK);
    }
    put_say_turn(rig, s1);
    put_next_turn(rig, wait);
    return entry;
}

static void storm_code(unsigned harts)
{
    struct rig *rig = test_calloc(1, sizeof(*rig));
    const uint32_t function[] = { as(OP_addi, a0, zero, 0), INSN_RET };
    uint64_t entry[RIG_HARTS_MAX] = { 0 };

    rig_new_engine(rig, harts, RIG_JIT);
    entry[0] = put_rewriter(rig, harts);
    for (unsigned h = 1; h < harts; h++)
        entry[h] = put_caller(rig, h);
    assert_true(here(rig) < RIG_RAM + NEAR_FUNCTION);
    assert_true(ram_load(rig->ram, RIG_RAM + NEAR_FUNCTION, function, sizeof(function)));
    assert_true(ram_load(rig->ram, RIG_RAM + FAR_FUNCTION, function, sizeof(function)));
    run_storm(rig, entry);
    rig_free(rig);
    test_free(rig);
}

static void after_fence_i_only_the_new_code_runs(void **state)
{
    (void)state;
    storm_code(2);
    storm_code(3);
    storm_code(4);
}

/* --- mappings ----------------------------------------------------------------------------------------------------- */

enum { PTE_V = 1, PTE_R = 2, PTE_W = 4, PTE_X = 8, PTE_A = 64, PTE_D = 128, PTE_ALL = 0xcf, SLOTS_AT = 512 };

static uint64_t pte_of(uint64_t gpa, uint64_t flags)
{
    return gpa >> 12 << 10 | flags;
}

/* t0 = the turn's page: `base` + 4096 * (turn - back) mod 8 */
static void put_page(struct rig *rig, unsigned base, int back)
{
    put(rig, as(OP_addi, t0, s2, -back));
    put(rig, as(OP_andi, t0, t0, PAGES - 1));
    put(rig, as(OP_slli, t0, t0, 12));
    put(rig, as(OP_add, t0, t0, base));
}

/* t0's page table entry goes to `where`. */
static void put_map(struct rig *rig, unsigned where)
{
    put(rig, as(OP_srli, t0, t0, 2));
    put(rig, as(OP_ori, t0, t0, PTE_ALL));
    put(rig, as(OP_sd, t0, where, 0));
}

/* Each page by itself, or everything, turn by turn. */
static void put_sfence(struct rig *rig)
{
    put(rig, as(OP_andi, t0, s2, 1));
    put(rig, as(OP_beq, t0, zero, 16));
    put(rig, as(OP_sfence_vma, 0, s6, 0));
    put(rig, as(OP_sfence_vma, 0, s7, 0));
    put(rig, as(OP_jal, zero, 0, 8));
    put(rig, as(OP_sfence_vma, 0, 0, 0));
}

static void put_mapped_common(struct rig *rig, unsigned hart)
{
    put_common(rig, hart);
    put_li(rig, s4, RIG_RAM + DATA_PAGES);
    put_li(rig, s5, RIG_RAM + CODE_PAGES);
    put_li(rig, s6, DATA_VA);
    put_li(rig, s7, CODE_VA);
}

/* Hart 0. A page that has been left is poisoned, its slots are zeroed, and they must still be so when its turn comes. */
static uint64_t put_remapper(struct rig *rig, unsigned harts)
{
    uint64_t entry = here(rig);

    put_mapped_common(rig, 0);
    put_li(rig, s8, RIG_RAM + L0);
    put(rig, as(OP_addi, s9, s8, 8));
    put(rig, as(OP_addi, s10, zero, -1));
    uint64_t loop = here(rig);
    put_page(rig, s4, 0);
    for (unsigned h = 1; h < harts; h++) { /* did somebody store here after they had answered? */
        put(rig, as(OP_ld, t1, t0, SLOTS_AT + 64 * (int)h));
        put_must_be_0(rig, t1);
    }
    put(rig, as(OP_sd, s2, t0, 0));
    put(rig, as(OP_fence, 0, 0, FENCE_RW_RW));
    put_map(rig, s8);
    put_page(rig, s5, 0);
    put_map(rig, s9);
    put_sfence(rig);
    put(rig, as(OP_ld, a0, s6, 0));
    put_new(rig, TURN_MASK);
    put_call(rig, s7);
    put_new(rig, PAGES - 1);
    put_say_turn(rig, s0);
    put_wait_answers(rig, harts);
    put_page(rig, s4, 1);
    put(rig, as(OP_sd, s10, t0, 0));
    for (unsigned h = 1; h < harts; h++)
        put(rig, as(OP_sd, zero, t0, SLOTS_AT + 64 * (int)h));
    put_next_turn(rig, loop);
    return entry;
}

static uint64_t put_user(struct rig *rig, unsigned hart)
{
    uint64_t entry = here(rig);
    int slot = SLOTS_AT + 64 * (int)hart;

    put_mapped_common(rig, hart);
    uint64_t wait = here(rig);
    put(rig, as(OP_ld, a0, s6, 0));
    put_old_or_new(rig, TURN_MASK);
    put(rig, as(OP_sd, s2, s6, slot));
    put_call(rig, s7);
    put_old_or_new(rig, PAGES - 1);
    put_wait_turn(rig, wait);
    put_sfence(rig);
    put(rig, as(OP_ld, a0, s6, 0));
    put_new(rig, TURN_MASK);
    put_call(rig, s7);
    put_new(rig, PAGES - 1);
    put(rig, as(OP_xori, t2, s2, -1)); /* a store must arrive in the new page */
    put(rig, as(OP_sd, t2, s6, slot));
    put_page(rig, s4, 0);
    put(rig, as(OP_ld, t0, t0, slot));
    put(rig, as(OP_sub, t0, t0, t2));
    put_must_be_0(rig, t0);
    put_say_turn(rig, s1);
    put_next_turn(rig, wait);
    return entry;
}

static void set_tables(struct rig *rig)
{
    poke(rig, RIG_RAM + ROOT, pte_of(0, PTE_ALL));                             /* the device that ends the run */
    poke(rig, RIG_RAM + ROOT + 8 * (RIG_RAM >> 30), pte_of(RIG_RAM, PTE_ALL)); /* all of RAM at its own place */
    poke(rig, RIG_RAM + ROOT + 8 * (DATA_VA >> 30), pte_of(RIG_RAM + L1, PTE_V));
    poke(rig, RIG_RAM + L1, pte_of(RIG_RAM + L0, PTE_V));
    poke(rig, RIG_RAM + L0, pte_of(RIG_RAM + DATA_PAGES, PTE_ALL));
    poke(rig, RIG_RAM + L0 + 8, pte_of(RIG_RAM + CODE_PAGES, PTE_ALL));
    for (unsigned i = 0; i < PAGES; i++) {
        const uint32_t function[] = { as(OP_addi, a0, zero, i), INSN_RET };

        assert_true(ram_load(rig->ram, RIG_RAM + CODE_PAGES + i * PAGE_BYTES, function, sizeof(function)));
    }
}

static void storm_mappings(unsigned harts)
{
    struct rig *rig = test_calloc(1, sizeof(*rig));
    uint64_t entry[RIG_HARTS_MAX] = { 0 };

    rig_new_engine(rig, harts, RIG_JIT);
    entry[0] = put_remapper(rig, harts);
    for (unsigned h = 1; h < harts; h++)
        entry[h] = put_user(rig, h);
    set_tables(rig);
    for (unsigned h = 0; h < harts; h++) {
        struct hart *hart = vcpu_hart(rig->vcpu[h]);

        hart->priv = PRIV_S;
        hart->satp = UINT64_C(8) << 60 | (RIG_RAM + ROOT) >> 12;
        hart->pmpcfg[0] = 0x1f;
        hart->pmpaddr[0] = (UINT64_C(1) << 54) - 1;
    }
    run_storm(rig, entry);
    rig_free(rig);
    test_free(rig);
}

static void after_sfence_vma_only_the_new_page_is_met(void **state)
{
    (void)state;
    storm_mappings(2);
    storm_mappings(3);
    storm_mappings(4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(after_fence_i_only_the_new_code_runs),
        cmocka_unit_test(after_sfence_vma_only_the_new_page_is_met),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
