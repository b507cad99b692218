#include "tests/unit/vcpu/rig.h"

/* Where traps go: it ends the run, so that the test finds cause, pc and value in the hart. */
static const uint64_t TRAPS = RIG_RAM + 0x3000, DATA = RIG_RAM + 0x8000;

static int make_rig(void **state)
{
    struct rig *rig = test_calloc(1, sizeof(*rig));

    rig_new(rig, 1);
    put(rig, as(OP_csrrs, s11, zero, 0xb02)); /* what had retired */
    put_end(rig);
    assert_true(ram_load(rig->ram, TRAPS, rig->word, (uint64_t)rig->words * 4));
    rig->words = 0;
    rig_hart(rig)->mtvec = TRAPS;
    *state = rig;
    return 0;
}

static int drop_rig(void **state)
{
    rig_free(*state);
    test_free(*state);
    return 0;
}

static void a_loop_counts_and_every_instruction_retires_once(void **state)
{
    struct rig *rig = *state;

    put_li(rig, s0, 1000);
    put(rig, as(OP_csrrs, s2, zero, 0xb02)); /* minstret */
    put(rig, as(OP_addi, s1, s1, 1));
    put(rig, as(OP_andi, t0, s1, 1));
    put(rig, as(OP_beq, t0, zero, 8)); /* a forward branch in the middle of a block, taken every other time */
    put(rig, as(OP_addi, s3, s3, 1));
    put(rig, as(OP_bne, s1, s0, -16));
    put(rig, as(OP_csrrs, s4, zero, 0xb02));
    put(rig, as(OP_csrrs, s5, zero, 0xb00)); /* mcycle counts instructions, too */
    put_end(rig);
    struct hart *hart = rig_run(rig);

    assert_int_equal(hart->x[s1], 1000);
    assert_int_equal(hart->x[s3], 500);
    assert_int_equal(hart->x[s4] - hart->x[s2], 1 + 1000 * 4 + 500);
    assert_int_equal(hart->x[s5] - hart->x[s4], 1);
}

static void loads_extend_and_stores_truncate(void **state)
{
    struct rig *rig = *state;
    static const enum op loads[] = { OP_lb, OP_lbu, OP_lh, OP_lhu, OP_lw, OP_lwu, OP_ld };
    static const uint64_t want[] = { 0xffffffffffffff88, 0x88,       0xffffffffffff9988, 0x9988,
                                     0xffffffffbbaa9988, 0xbbaa9988, 0xffeeddccbbaa9988 };

    put_li(rig, s0, DATA);
    for (unsigned i = 0; i < 7; i++)
        put(rig, as(loads[i], a0 + i, s0, 0));
    put(rig, as(OP_sb, a6, s0, 8));
    put(rig, as(OP_sh, a6, s0, 16));
    put(rig, as(OP_sw, a6, s0, 24));
    put(rig, as(OP_sd, a6, s0, 32));
    put(rig, as(OP_ld, zero, s0, 0)); /* x0 stays 0 */
    put_end(rig);
    poke(rig, DATA, 0xffeeddccbbaa9988);
    struct hart *hart = rig_run(rig);

    for (unsigned i = 0; i < 7; i++)
        assert_int_equal(hart->x[a0 + i], want[i]);
    assert_int_equal(peek(rig, DATA + 8), 0x88);
    assert_int_equal(peek(rig, DATA + 16), 0x9988);
    assert_int_equal(peek(rig, DATA + 24), 0xbbaa9988);
    assert_int_equal(peek(rig, DATA + 32), 0xffeeddccbbaa9988);
    assert_int_equal(hart->x[0], 0);
}

static void misaligned_accesses_work_within_and_across_pages(void **state)
{
    struct rig *rig = *state;

    put_li(rig, s0, DATA + 0xffc);
    put_li(rig, s1, 0x1122334455667788);
    for (unsigned i = 0; i < 8; i++) { /* at 0xff9 ... 0x1000 of the page: the first ones inside, the others across */
        put(rig, as(OP_sd, s1, s0, -3 + (int)i));
        put(rig, as(OP_ld, a0 + i, s0, -3 + (int)i));
    }
    put(rig, as(OP_sw, s1, s0, 2));
    put(rig, as(OP_lhu, s2, s0, 3));
    put_end(rig);
    struct hart *hart = rig_run(rig);

    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(hart->x[a0 + i], 0x1122334455667788);
    assert_int_equal(hart->x[s2], 0x6677);
}

static void a_device_sees_its_own_size_and_refuses_others(void **state)
{
    struct rig *rig = *state;

    put_li(rig, s0, RIG_ODDS);
    put(rig, as(OP_addi, s1, zero, -1));
    put(rig, as(OP_lw, a0, s0, 4));
    put(rig, as(OP_lwu, a1, s0, 4));
    put(rig, as(OP_lw, zero, s0, 4)); /* to x0: the device is still read */
    put(rig, as(OP_sw, s1, s0, 8));
    put(rig, as(OP_sb, s1, s0, 8));
    put_end(rig);
    struct hart *hart = rig_run(rig);

    assert_int_equal(hart->x[a0], 0xffffffff89abcdef);
    assert_int_equal(hart->x[a1], 0x89abcdef);
    assert_int_equal(rig->odd_reads, 3);
    assert_int_equal(rig->odd_writes, 1);
    assert_int_equal(rig->odd_value, 0xffffffff);
    assert_int_equal(hart->mcause, CAUSE_STORE_ACCESS);
    assert_int_equal(hart->mtval, RIG_ODDS + 8);
}

static void lr_sc_stores_once_and_only_where_it_looked(void **state)
{
    struct rig *rig = *state;

    put_li(rig, s0, DATA);
    put(rig, as(OP_addi, s1, zero, 77));
    put(rig, as(OP_lr_w, a0, s0, 0));
    put(rig, as(OP_sc_w, a1, s0, s1)); /* good */
    put(rig, as(OP_sc_w, a2, s0, s1)); /* the reservation is gone */
    put(rig, as(OP_addi, s2, s0, 8));
    put(rig, as(OP_lr_w, zero, s0, 0));
    put(rig, as(OP_sc_w, a3, s2, s1)); /* elsewhere */
    put(rig, as(OP_sc_w, a4, s0, s1)); /* and that cleared it */
    put(rig, as(OP_lr_w, zero, s0, 0));
    put(rig, as(OP_sc_d, a5, s0, s1)); /* another size */
    put(rig, as(OP_lr_d, a6, s2, 0));
    put(rig, as(OP_sd, s1, s2, 0));
    put(rig, as(OP_sc_d, a7, s2, zero)); /* the value changed */
    put_end(rig);
    poke(rig, DATA, 0xfffffff0);
    poke(rig, DATA + 8, 5);
    struct hart *hart = rig_run(rig);

    assert_int_equal(hart->x[a0], 0xfffffffffffffff0);
    assert_int_equal(hart->x[a1], 0);
    for (unsigned i = a2; i <= a5; i++)
        assert_int_equal(hart->x[i], 1);
    assert_int_equal(hart->x[a6], 5);
    assert_int_equal(hart->x[a7], 1);
    assert_int_equal(peek(rig, DATA), 77);
    assert_int_equal(peek(rig, DATA + 8), 77);
}

static void amos_return_the_old_value_and_store_the_new(void **state)
{
    struct rig *rig = *state;
    static const struct {
        enum op op;
        uint64_t memory, operand, after;
    } row[] = {
        { OP_amoswap_d, 1, 2, 2 },
        { OP_amoadd_d, UINT64_MAX, 2, 1 },
        { OP_amoand_d, 0xff, 0x3c, 0x3c },
        { OP_amoor_d, 0xf0, 0x0f, 0xff },
        { OP_amoxor_d, 0xff, 0x0f, 0xf0 },
        { OP_amomin_d, UINT64_MAX, 1, UINT64_MAX },
        { OP_amomax_d, UINT64_MAX, 1, 1 },
        { OP_amominu_d, UINT64_MAX, 1, 1 },
        { OP_amomaxu_d, UINT64_MAX, 1, UINT64_MAX },
        { OP_amoadd_w, 0xaaaaaaaaffffffff, 1, 0xaaaaaaaa00000000 },
        { OP_amomin_w, 0x80000000, 1, 0x80000000 },
        { OP_amomaxu_w, 0x80000000, 1, 0x80000000 },
        { OP_amoswap_w, 0x80000000, 1, 1 },
    };
    enum { ROWS = sizeof(row) / sizeof(row[0]) };

    put_li(rig, s0, DATA);
    for (unsigned i = 0; i < ROWS; i++) {
        put_li(rig, s1, row[i].operand);
        put(rig, as(row[i].op, s2, s0, s1));
        put(rig, as(OP_sd, s2, s0, 1024));
        put(rig, as(OP_addi, s0, s0, 8));
        poke(rig, DATA + 8 * i, row[i].memory);
    }
    put_end(rig);
    rig_run(rig);
    for (unsigned i = 0; i < ROWS; i++) {
        uint64_t old = row[i].op >= OP_lr_d ? row[i].memory : (uint64_t)(int64_t)(int32_t)row[i].memory;

        assert_int_equal(peek(rig, DATA + 8 * i), row[i].after);
        assert_int_equal(peek(rig, DATA + 8 * i + 1024), old);
    }
}

static void a_trap_names_its_instruction_and_address(void **state)
{
    struct rig *rig = *state;
    static const struct {
        uint32_t word;
        uint64_t s0;
        uint64_t cause, tval;
    } row[] = {
        { 0xffffffff, 0, CAUSE_ILLEGAL, 0xffffffff },
        { 0x9c619c61, 0, CAUSE_ILLEGAL, 0x9c61 }, /* a compressed one shows its 16 bits */
        { 0x00100073, 0, CAUSE_BREAKPOINT, 1 /* pc */ },
        { 0x00000073, 0, CAUSE_ECALL_M, 0 },
        { 0x00043503 /* ld a0, 0(s0) */, 0x1000, CAUSE_LOAD_ACCESS, 0x1000 },
        { 0x00043003 /* ld x0, 0(s0) */, 0x1000, CAUSE_LOAD_ACCESS, 0x1000 },
        { 0x00a43023 /* sd a0, 0(s0) */, 0x1000, CAUSE_STORE_ACCESS, 0x1000 },
        { 0x1004252f /* lr.w */, 0x80008002, CAUSE_LOAD_MISALIGNED, 0x80008002 },
        { 0x18a4252f /* sc.w */, 0x80008002, CAUSE_STORE_MISALIGNED, 0x80008002 },
        { 0x00a4252f /* amoadd.w */, 0x80008001, CAUSE_STORE_MISALIGNED, 0x80008001 },
        { 0x00a4252f, 0x110000, CAUSE_STORE_ACCESS, 0x110000 }, /* no atomics on devices */
        { 0x00a4353b /* nothing */, 0, CAUSE_ILLEGAL, 0x00a4353b },
        { 0xfff02573 /* csr 0xfff */, 0, CAUSE_ILLEGAL, 0xfff02573 },
        { 0x00043507 /* fld with FS off */, 0x80008000, CAUSE_ILLEGAL, 0x00043507 },
    };

    for (unsigned i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        struct hart *hart = rig_hart(rig);

        hart_reset(hart, 0, RIG_RAM);
        hart->mtvec = TRAPS;
        hart->x[s0] = row[i].s0;
        rig->words = 0;
        put(rig, as(OP_addi, a1, zero, 5));
        put(rig, as(OP_addi, a2, zero, 6)); /* same block: must have happened */
        uint64_t pc = here(rig);
        put(rig, row[i].word);
        put(rig, as(OP_addi, a2, zero, 7)); /* must not */
        put_end(rig);
        put(rig, as(OP_fence_i, 0, 0, 0));
        hart = rig_run(rig);
        assert_int_equal(hart->mcause, row[i].cause);
        assert_int_equal(hart->mepc, pc);
        assert_int_equal(hart->mtval, row[i].tval == 1 ? pc : row[i].tval);
        assert_int_equal(hart->x[a2], 6);
        assert_int_equal(hart->x[a0], 0);
        assert_int_equal(hart->x[s11], 2);
    }
}

/* What the TLB knows about a page stands in the low bits of its tag: no address may pass for that. */
static void a_misaligned_amo_traps_on_pages_that_the_tlb_knows(void **state)
{
    struct rig *rig = *state;
    static const uint64_t pages[] = { RIG_ODDS, RIG_RAM + 0x9000 };

    dirty_start(rig->ram->dirty, DIRTY_MIGRATION, false); /* a page that was read only is not marked yet */
    for (unsigned i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
        for (unsigned by = 1; by < 8; by++) {
            struct hart *hart = rig_hart(rig);

            hart_reset(hart, 0, RIG_RAM);
            hart->mtvec = TRAPS;
            hart->x[s0] = pages[i];
            hart->x[s1] = pages[i] + by;
            rig->words = 0;
            put(rig, as(OP_lw, a0, s0, 0));
            put(rig, as(by == 4 ? OP_amoadd_d : OP_amoadd_w, a1, s1, s1));
            put_end(rig);
            hart = rig_run(rig);
            assert_int_equal(hart->mcause, CAUSE_STORE_MISALIGNED);
            assert_int_equal(hart->mtval, pages[i] + by);
        }
    assert_int_equal(peek(rig, RIG_RAM + 0x9000), 0);
    dirty_stop(rig->ram->dirty, DIRTY_MIGRATION);
}

static void a_fetch_from_nowhere_is_a_fetch_fault_at_its_target(void **state)
{
    struct rig *rig = *state;

    put_li(rig, s0, 0x4000);
    put(rig, as(OP_jalr, ra, s0, 1)); /* bit 0 is dropped */
    struct hart *hart = rig_run(rig);

    assert_int_equal(hart->mcause, CAUSE_FETCH_ACCESS);
    assert_int_equal(hart->mepc, 0x4000);
    assert_int_equal(hart->mtval, 0x4000);
    assert_int_equal(hart->x[ra], here(rig));
}

static void new_code_runs_after_fence_i(void **state)
{
    struct rig *rig = *state;
    uint64_t routine = RIG_RAM + 0x2000;
    uint32_t code[2] = { as(OP_addi, a0, a0, 1), as(OP_jalr, zero, ra, 0) };

    assert_true(ram_load(rig->ram, routine, code, sizeof(code)));
    put_li(rig, s0, routine);
    put_li(rig, s1, as(OP_addi, a0, a0, 100));
    put(rig, as(OP_jalr, ra, s0, 0));
    put(rig, as(OP_jalr, ra, s0, 0));
    put(rig, as(OP_sw, s1, s0, 0));
    put(rig, as(OP_fence_i, 0, 0, 0));
    put(rig, as(OP_jalr, ra, s0, 0));
    put(rig, as(OP_fence_i, 0, 0, 0)); /* nothing changed: the same code again */
    put(rig, as(OP_jalr, ra, s0, 0));
    put_end(rig);
    assert_int_equal(rig_run(rig)->x[a0], 1 + 1 + 100 + 100);
}

static void a_block_that_links_to_changed_code_finds_it_changed(void **state)
{
    struct rig *rig = *state;

    /* A loop in one page whose branch is linked to its head; the head is patched from inside. */
    put_li(rig, s1, as(OP_addi, a0, a0, 100));
    put_li(rig, s2, 10);
    put(rig, as(OP_auipc, s3, 0, 0)); /* the loop's head is 4 behind this */
    put(rig, as(OP_addi, a0, a0, 1));
    put(rig, as(OP_addi, s2, s2, -1));
    put(rig, as(OP_addi, t0, s2, -5));
    put(rig, as(OP_bne, t0, zero, 12));
    put(rig, as(OP_sw, s1, s3, 4));
    put(rig, as(OP_fence_i, 0, 0, 0));
    put(rig, as(OP_bne, s2, zero, -24));
    put_end(rig);
    assert_int_equal(rig_run(rig)->x[a0], 5 + 5 * 100);
}

static void an_instruction_across_two_pages_runs(void **state)
{
    struct rig *rig = *state;
    uint64_t at = RIG_RAM + 0x4ffe;
    uint32_t code[3] = { as(OP_addi, a0, a0, 0x55), as(OP_addi, s1, s1, -1), as(OP_bne, s1, zero, -8) };

    assert_true(ram_load(rig->ram, at, code, sizeof(code)));
    uint32_t back = as(OP_jalr, zero, ra, 0);
    assert_true(ram_load(rig->ram, at + 12, &back, 4));
    put_li(rig, s0, at);
    put_li(rig, s1, 3); /* the branch comes back to it from the second page */
    put(rig, as(OP_jalr, ra, s0, 0));
    put_end(rig);
    assert_int_equal(rig_run(rig)->x[a0], 3 * 0x55);
}

static void calls_and_returns_between_pages_link_where_they_should(void **state)
{
    struct rig *rig = *state;
    uint32_t leaf[2] = { as(OP_addi, a0, a0, 3), as(OP_jalr, zero, ra, 0) };

    assert_true(ram_load(rig->ram, RIG_RAM + 0x6000, leaf, sizeof(leaf)));
    put_li(rig, s1, 50);
    uint64_t head = here(rig);
    put(rig, as(OP_auipc, ra, 0, 0x6000));
    put(rig, as(OP_jalr, ra, ra, (int64_t)(RIG_RAM - head))); /* the usual far call, fused */
    put(rig, as(OP_addi, a1, ra, 0));
    uint64_t jal_at = here(rig);
    put(rig, as(OP_jal, ra, 0, (int64_t)(RIG_RAM + 0x6000 - jal_at)));
    put(rig, as(OP_addi, s1, s1, -1));
    put(rig, as(OP_bne, s1, zero, -20));
    put_end(rig);
    struct hart *hart = rig_run(rig);

    assert_int_equal(hart->x[a0], 50 * 2 * 3);
    assert_int_equal(hart->x[a1], head + 8);
    assert_int_equal(hart->x[ra], jal_at + 4);
}

static void fused_pairs_leave_what_both_halves_would(void **state)
{
    struct rig *rig = *state;

    put(rig, as(OP_lui, a0, 0, 0x12345000));
    put(rig, as(OP_addi, a0, a0, 0x678));
    put(rig, as(OP_lui, a1, 0, 0x7ffff000));
    put(rig, as(OP_addiw, a1, a1, 0x7ff));
    put(rig, as(OP_lui, a2, 0, (int64_t)0x80000000));
    put(rig, as(OP_addiw, a2, a2, -1)); /* wraps in 32 bits */
    put(rig, as(OP_addi, a3, zero, -1));
    put(rig, as(OP_slli, a3, a3, 40));
    put(rig, as(OP_srli, a3, a3, 44));
    put(rig, as(OP_addi, a4, zero, 5));
    put(rig, as(OP_addi, a4, a4, 5));
    put(rig, as(OP_addi, a5, a4, 1)); /* reads the one before */
    uint64_t at = here(rig);
    put(rig, as(OP_auipc, a6, 0, 0x1000));
    put(rig, as(OP_addi, a6, a6, -16));
    put_end(rig);
    struct hart *hart = rig_run(rig);

    assert_int_equal(hart->x[a0], 0x12345678);
    assert_int_equal(hart->x[a1], 0x7ffff7ff);
    assert_int_equal(hart->x[a2], 0x7fffffff);
    assert_int_equal(hart->x[a3], 0xfffff);
    assert_int_equal(hart->x[a4], 10);
    assert_int_equal(hart->x[a5], 11);
    assert_int_equal(hart->x[a6], at + 0x1000 - 16);
}

static void a_fused_load_that_traps_has_done_its_first_half(void **state)
{
    struct rig *rig = *state;

    put(rig, as(OP_addi, a1, zero, 1));
    uint64_t at = here(rig);
    put(rig, as(OP_auipc, a0, 0, (int64_t)0xf0000000)); /* nothing lives there */
    put(rig, as(OP_ld, a0, a0, 16));
    put_end(rig);
    struct hart *hart = rig_run(rig);

    assert_int_equal(hart->mcause, CAUSE_LOAD_ACCESS);
    assert_int_equal(hart->mepc, at + 4);
    assert_int_equal(hart->mtval, at - 0x10000000 + 16);
    assert_int_equal(hart->x[a0], at - 0x10000000);
}

static void the_float_unit_is_off_until_its_status_says_on(void **state)
{
    struct rig *rig = *state;

    put_li(rig, t0, MSTATUS_FS & (MSTATUS_FS >> 1)); /* Initial */
    put(rig, as(OP_csrrs, zero, t0, 0x300));
    put_li(rig, a0, 0x3ff8000000000000); /* 1.5 */
    put(rig, as(OP_fmv_d_x, 1, a0, 0));
    put(rig, as(OP_fadd_d, 2, 1, 1) | 7u << 12);
    put(rig, as(OP_fmv_x_d, a1, 2, 0));
    put(rig, as(OP_fmv_w_x, 3, a0, 0));
    put(rig, as(OP_fmv_x_d, a2, 3, 0)); /* boxed */
    put(rig, as(OP_fadd_s, 4, 1, 1));   /* not boxed: a NaN */
    put(rig, as(OP_fmv_x_w, a3, 4, 0));
    put(rig, as(OP_fadd_d, 2, 1, 1) | 5u << 12); /* a reserved rounding mode */
    put_end(rig);
    struct hart *hart = rig_run(rig);

    assert_int_equal(hart->x[a1], 0x4008000000000000);
    assert_int_equal(hart->x[a2], 0xffffffff00000000);
    assert_int_equal(hart->x[a3], 0x7fc00000);
    assert_int_equal(hart->mcause, CAUSE_ILLEGAL);
    assert_true((hart->mstatus & MSTATUS_FS) == MSTATUS_FS); /* dirty */
}

static void cbo_zero_clears_its_block_and_nothing_else(void **state)
{
    struct rig *rig = *state;

    for (unsigned i = 0; i < 24; i++)
        poke(rig, DATA + 8 * i, UINT64_MAX);
    put_li(rig, s0, DATA + 64 + 40);
    put(rig, as(OP_cbo_zero, 0, s0, 4)); /* 4 is part of the encoding */
    put(rig, as(OP_cbo_flush, 0, s0, 2));
    put_end(rig);
    rig_run(rig);
    for (unsigned i = 0; i < 24; i++)
        assert_int_equal(peek(rig, DATA + 8 * i), i >= 8 && i < 16 ? 0 : UINT64_MAX);
}

static void the_arena_may_fill_up_and_the_guest_does_not_notice(void **state)
{
    struct rig *rig = *state;
    struct hart *hart = rig_hart(rig);

    /* Rewrites a routine and calls it, over and over: every round makes a new block, until all are thrown away. */
    put_li(rig, s0, RIG_RAM + 0x2000);
    put_li(rig, s1, as(OP_addi, a0, zero, 0));
    put_li(rig, s2, as(OP_jalr, zero, ra, 0));
    put_li(rig, s3, 400000);
    put(rig, as(OP_sw, s2, s0, 4));
    put(rig, as(OP_andi, t0, s3, 1023));
    put(rig, as(OP_slli, t0, t0, 20));
    put(rig, as(OP_add, t0, t0, s1));
    put(rig, as(OP_sw, t0, s0, 0));
    put(rig, as(OP_fence_i, 0, 0, 0));
    put(rig, as(OP_jalr, ra, s0, 0));
    put(rig, as(OP_add, s4, s4, a0));
    put(rig, as(OP_addi, s3, s3, -1));
    put(rig, as(OP_bne, s3, zero, -32));
    put_end(rig);
    hart = rig_run(rig);
    uint64_t sum = 0;
    for (uint64_t i = 400000; i > 0; i--)
        sum += i & 1023;
    assert_int_equal(hart->x[s4], sum);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_rig, drop_rig)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_loop_counts_and_every_instruction_retires_once),
        TEST(loads_extend_and_stores_truncate),
        TEST(misaligned_accesses_work_within_and_across_pages),
        TEST(a_device_sees_its_own_size_and_refuses_others),
        TEST(lr_sc_stores_once_and_only_where_it_looked),
        TEST(amos_return_the_old_value_and_store_the_new),
        TEST(a_misaligned_amo_traps_on_pages_that_the_tlb_knows),
        TEST(a_trap_names_its_instruction_and_address),
        TEST(a_fetch_from_nowhere_is_a_fetch_fault_at_its_target),
        TEST(new_code_runs_after_fence_i),
        TEST(a_block_that_links_to_changed_code_finds_it_changed),
        TEST(an_instruction_across_two_pages_runs),
        TEST(calls_and_returns_between_pages_link_where_they_should),
        TEST(fused_pairs_leave_what_both_halves_would),
        TEST(a_fused_load_that_traps_has_done_its_first_half),
        TEST(the_float_unit_is_off_until_its_status_says_on),
        TEST(cbo_zero_clears_its_block_and_nothing_else),
        TEST(the_arena_may_fill_up_and_the_guest_does_not_notice),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
