#include "tests/unit/test.h"

#include "vcpu/trap.h"

enum {
    FFLAGS = 0x001,
    FRM = 0x002,
    FCSR = 0x003,
    SSTATUS = 0x100,
    SIE = 0x104,
    STVEC = 0x105,
    SCOUNTEREN = 0x106,
    SENVCFG = 0x10a,
    SEPC = 0x141,
    SIP = 0x144,
    STIMECMP = 0x14d,
    SATP = 0x180,
    MSTATUS = 0x300,
    MISA = 0x301,
    MEDELEG = 0x302,
    MIDELEG = 0x303,
    MIE = 0x304,
    MTVEC = 0x305,
    MCOUNTEREN = 0x306,
    MENVCFG = 0x30a,
    MCOUNTINHIBIT = 0x320,
    MHPMEVENT3 = 0x323,
    MEPC = 0x341,
    MIP = 0x344,
    PMPCFG0 = 0x3a0,
    PMPADDR0 = 0x3b0,
    MSECCFG = 0x747,
    MCYCLE = 0xb00,
    MINSTRET = 0xb02,
    MHPMCOUNTER3 = 0xb03,
    CYCLE = 0xc00,
    TIME = 0xc01,
    INSTRET = 0xc02,
    HPMCOUNTER3 = 0xc03,
    MHARTID = 0xf14,
};

#define ALL UINT64_MAX

static struct hart hart;
static uint64_t ticks;
static unsigned effects;

static int setup(void **state)
{
    (void)state;
    hart = (struct hart){ 0 };
    hart_reset(&hart, 3, 0x1000);
    ticks = 0;
    effects = 0;
    return 0;
}

static bool readable(unsigned csr)
{
    uint64_t value;
    return hart_csr_read(&hart, csr, false, ticks, &value);
}

static uint64_t get(unsigned csr)
{
    uint64_t value = 0;
    assert_true(hart_csr_read(&hart, csr, false, ticks, &value));
    return value;
}

/* Writes and returns the effects of this write alone. */
static unsigned put(unsigned csr, uint64_t value)
{
    effects = 0;
    assert_true(hart_csr_write(&hart, csr, value, &effects));
    return effects;
}

static bool writable(unsigned csr, uint64_t value)
{
    unsigned ignored = 0;
    return hart_csr_write(&hart, csr, value, &ignored);
}

static void every_csr_needs_its_privilege(void **state)
{
    (void)state;
    hart.mcounteren = hart.scounteren = UINT32_MAX;
    hart.mstatus |= MSTATUS_FS;
    hart.menvcfg |= MENVCFG_STCE;
    for (unsigned priv = PRIV_U; priv <= PRIV_M; priv++)
        for (unsigned csr = 0; csr < 4096 && priv != 2; csr++) {
            hart.priv = PRIV_M;
            bool exists = readable(csr);
            hart.priv = (uint8_t)priv;
            assert_int_equal(readable(csr), exists && priv >= (csr >> 8 & 3));
        }
}

static void read_only_csrs_refuse_every_write(void **state)
{
    (void)state;
    for (unsigned csr = 0xc00; csr < 4096; csr++)
        assert_false(writable(csr, 0));
    uint64_t value;
    assert_true(hart_csr_read(&hart, MHARTID, false, 0, &value));
    assert_int_equal(value, 3);
    assert_false(hart_csr_read(&hart, MHARTID, true, 0, &value));
}

static void csrs_of_absent_extensions_are_illegal(void **state)
{
    (void)state;
    hart.mstatus |= MSTATUS_FS;
    static const uint16_t absent[] = {
        0x008, 0x015, 0x017, 0x10c, 0x120, 0x150, 0x200, 0x240, 0x280, 0x308, 0x30c, 0x310, 0x312,
        0x31a, 0x321, 0x34a, 0x34b, 0x350, 0x3a1, 0x3a3, 0x3a4, 0x3c0, 0x5a8, 0x600, 0x680, 0x721,
        0x7a4, 0x7a5, 0x7a8, 0x7b0, 0xb01, 0xb20, 0xb80, 0xc20, 0xc80, 0xda0, 0xe12, 0xfb0,
    };
    for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++) {
        assert_false(readable(absent[i]));
        assert_false(writable(absent[i], 0));
    }
}

static void trigger_registers_say_that_there_is_no_trigger(void **state)
{
    (void)state;
    for (unsigned csr = 0x7a0; csr <= 0x7a3; csr++) {
        put(csr, ALL);
        assert_int_equal(get(csr), 0);
    }
    hart.priv = PRIV_S;
    assert_false(readable(0x7a0));
}

static void misa_says_rv64imafdcsu_and_ignores_writes(void **state)
{
    (void)state;
    uint64_t want = UINT64_C(2) << 62;
    for (const char *letter = "IMAFDCSU"; *letter; letter++)
        want |= UINT64_C(1) << (*letter - 'A');
    assert_true(get(MISA) == want);
    put(MISA, 0);
    assert_true(get(MISA) == want);
}

static void mstatus_keeps_xlen_and_refuses_mpp_2(void **state)
{
    (void)state;
    put(MSTATUS, ALL & ~MSTATUS_MPP);
    uint64_t all = get(MSTATUS);
    assert_true((all & (MSTATUS_UXL | MSTATUS_SXL)) == (UINT64_C(2) << 32 | UINT64_C(2) << 34));
    assert_true(!(all & (MSTATUS_UBE | MSTATUS_XS | UINT64_C(3) << 9))); /* no big-endian U, no XS, no VS */
    put(MSTATUS, 0);
    assert_true(get(MSTATUS) == (UINT64_C(2) << 32 | UINT64_C(2) << 34));
    put(MSTATUS, UINT64_C(1) << 11);
    put(MSTATUS, UINT64_C(2) << 11);
    assert_true((get(MSTATUS) & MSTATUS_MPP) == UINT64_C(1) << 11); /* the illegal write changed nothing */
    put(MSTATUS, UINT64_C(3) << 11);
    assert_true((get(MSTATUS) & MSTATUS_MPP) == UINT64_C(3) << 11);
}

static void sd_says_that_fs_is_dirty(void **state)
{
    (void)state;
    for (uint64_t fs = 0; fs < 4; fs++) {
        put(MSTATUS, fs << 13);
        assert_int_equal(get(MSTATUS) >> 63, fs == 3);
        assert_int_equal(get(SSTATUS) >> 63, fs == 3);
    }
}

static void sstatus_is_a_narrow_view_of_mstatus(void **state)
{
    (void)state;
    put(MSTATUS, ALL);
    uint64_t view = get(SSTATUS);
    assert_true(view == (MSTATUS_SIE | MSTATUS_SPIE | MSTATUS_SPP | MSTATUS_FS | MSTATUS_SUM | MSTATUS_MXR |
                         MSTATUS_SD | UINT64_C(2) << 32));
    put(SSTATUS, 0);
    assert_true(get(MSTATUS) & MSTATUS_MIE);
    assert_true(get(MSTATUS) & MSTATUS_TVM);
    assert_true(!(get(MSTATUS) & (MSTATUS_SIE | MSTATUS_SUM | MSTATUS_FS)));
}

static void status_writes_name_their_effects(void **state)
{
    (void)state;
    assert_int_equal(put(MSTATUS, 0), EFFECT_NONE);
    assert_int_equal(put(MSTATUS, MSTATUS_SUM), EFFECT_MODE);
    assert_int_equal(put(MSTATUS, MSTATUS_SUM | MSTATUS_MXR), EFFECT_MODE);
    assert_int_equal(put(MSTATUS, MSTATUS_MPRV), EFFECT_MODE);
    assert_int_equal(put(MSTATUS, MSTATUS_MPRV | MSTATUS_MPP), EFFECT_MODE);
    assert_int_equal(put(MSTATUS, MSTATUS_MPRV | MSTATUS_MPP | MSTATUS_MIE), EFFECT_INTERRUPTS);
    assert_int_equal(put(SSTATUS, MSTATUS_SIE), EFFECT_INTERRUPTS);
    assert_int_equal(put(SSTATUS, MSTATUS_SIE | MSTATUS_FS), EFFECT_NONE);
}

static void delegation_registers_hold_only_what_can_be_delegated(void **state)
{
    (void)state;
    put(MEDELEG, ALL);
    assert_true(get(MEDELEG) == 0xb3ff);
    assert_int_equal(put(MIDELEG, ALL), EFFECT_INTERRUPTS);
    assert_true(get(MIDELEG) == 0x222);
    put(MIE, ALL);
    assert_true(get(MIE) == 0xaaa);
}

static void sie_and_sip_show_only_delegated_interrupts(void **state)
{
    (void)state;
    put(MIE, ALL);
    put(MIP, ALL);
    assert_true(get(SIE) == 0);
    assert_true(get(SIP) == 0);
    put(SIE, 0);
    assert_true(get(MIE) == 0xaaa); /* nothing delegated: nothing writable */
    put(MIDELEG, 0x202);
    assert_true(get(SIE) == 0x202);
    assert_true(get(SIP) == 0x202);
    assert_int_equal(put(SIE, 0), EFFECT_INTERRUPTS);
    assert_true(get(MIE) == 0x8a8);
}

static void sip_lets_s_write_ssip_alone(void **state)
{
    (void)state;
    put(MIDELEG, ALL);
    put(SIP, ALL);
    assert_true(get(MIP) == 0x002);
    put(MIDELEG, 0x220);
    put(SIP, 0); /* SSIP is not delegated now */
    assert_true(get(MIP) == 0x002);
}

static void mip_writes_reach_the_software_bits_of_s(void **state)
{
    (void)state;
    assert_int_equal(put(MIP, ALL), EFFECT_INTERRUPTS);
    assert_true(get(MIP) == 0x222);
    put(MIP, 0);
    hart.pins = IRQ_BIT(IRQ_M_TIMER) | IRQ_BIT(IRQ_S_EXT);
    put(MIP, 0);
    assert_true(get(MIP) == 0x280); /* wires are not writable */
}

static void setting_a_bit_of_mip_does_not_latch_a_wire(void **state)
{
    (void)state;
    hart.pins = IRQ_BIT(IRQ_S_EXT);
    uint64_t read = get(MIP);
    assert_true(read & IRQ_BIT(IRQ_S_EXT)); /* rd sees the wire */
    put(MIP, hart_csr_rmw_base(&hart, MIP, read) | IRQ_BIT(IRQ_S_SOFT));
    hart.pins = 0;
    assert_true(get(MIP) == IRQ_BIT(IRQ_S_SOFT));
    put(MIDELEG, 0x222);
    hart.mip_soft = 0;
    hart.pins = IRQ_BIT(IRQ_S_SOFT);
    put(SIP, hart_csr_rmw_base(&hart, SIP, get(SIP)) | IRQ_BIT(IRQ_S_TIMER));
    hart.pins = 0;
    assert_true(get(MIP) == 0);
    assert_int_equal(hart_csr_rmw_base(&hart, MIE, 0x20), 0x20); /* all others: what was read */
}

static void stip_follows_stimecmp_when_stce_is_set(void **state)
{
    (void)state;
    put(MIP, IRQ_BIT(IRQ_S_TIMER));
    assert_int_equal(put(MENVCFG, MENVCFG_STCE), EFFECT_FLUSH | EFFECT_TIMER | EFFECT_INTERRUPTS); /* ADUE went */
    assert_true(get(MIP) == 0);
    assert_int_equal(put(STIMECMP, 100), EFFECT_TIMER | EFFECT_INTERRUPTS);
    ticks = 99;
    assert_true(get(MIP) == 0);
    ticks = 100;
    assert_true(get(MIP) == IRQ_BIT(IRQ_S_TIMER));
    put(MIP, 0); /* read-only now */
    assert_true(get(MIP) == IRQ_BIT(IRQ_S_TIMER));
    put(STIMECMP, 101);
    assert_true(get(MIP) == 0);
    put(MIP, ALL);
    assert_true(get(MIP) == (IRQ_BIT(IRQ_S_SOFT) | IRQ_BIT(IRQ_S_EXT))); /* the others stay writable */
}

static void s_reaches_stimecmp_only_with_stce_and_tm(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        hart.priv = PRIV_M;
        put(MENVCFG, i & 1 ? MENVCFG_STCE : 0);
        put(MCOUNTEREN, i & 2 ? 2 : ~UINT64_C(2));
        assert_true(readable(STIMECMP));
        hart.priv = PRIV_S;
        assert_int_equal(readable(STIMECMP), i == 3);
        assert_int_equal(writable(STIMECMP, 5), i == 3);
        hart.priv = PRIV_U;
        assert_false(readable(STIMECMP));
    }
}

static void counters_are_gated_by_both_counteren_registers(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 32; n++)
        for (unsigned i = 0; i < 4; i++) {
            hart.priv = PRIV_M;
            put(MCOUNTEREN, i & 1 ? UINT64_C(1) << n : ~(UINT64_C(1) << n));
            put(SCOUNTEREN, i & 2 ? UINT64_C(1) << n : ~(UINT64_C(1) << n));
            assert_true(readable(CYCLE + n));
            hart.priv = PRIV_S;
            assert_int_equal(readable(CYCLE + n), i & 1);
            hart.priv = PRIV_U;
            assert_int_equal(readable(CYCLE + n), i == 3);
        }
}

static void counters_show_the_harts_own_counts(void **state)
{
    (void)state;
    ticks = 77;
    assert_int_equal(get(TIME), 77);
    put(MCYCLE, 5);
    put(MINSTRET, 6);
    put(MHPMCOUNTER3, 7);
    put(MHPMCOUNTER3 + 28, 8);
    put(MHPMEVENT3, 9);
    assert_int_equal(get(CYCLE), 5);
    assert_int_equal(get(INSTRET), 6);
    assert_int_equal(get(HPMCOUNTER3), 7);
    assert_int_equal(get(HPMCOUNTER3 + 28), 8);
    assert_int_equal(get(MHPMEVENT3), 9);
    put(MCOUNTINHIBIT, ALL);
    assert_int_equal(get(MCOUNTINHIBIT), UINT32_MAX - 2); /* time has no inhibit bit */
}

static void float_csrs_need_fs_and_make_it_dirty(void **state)
{
    (void)state;
    for (unsigned csr = FFLAGS; csr <= FCSR; csr++) {
        put(MSTATUS, 0);
        assert_false(readable(csr));
        assert_false(writable(csr, 0));
        put(MSTATUS, UINT64_C(1) << 13);
        assert_int_equal(get(csr), 0);
        assert_true((get(MSTATUS) & MSTATUS_FS) == UINT64_C(1) << 13); /* reading leaves it */
        put(csr, 0);
        assert_true((get(MSTATUS) & MSTATUS_FS) == MSTATUS_FS);
    }
}

static void fcsr_is_frm_over_fflags(void **state)
{
    (void)state;
    put(MSTATUS, MSTATUS_FS);
    assert_int_equal(put(FCSR, ALL), EFFECT_FRM);
    assert_int_equal(get(FCSR), 0xff);
    assert_int_equal(put(FRM, 2), EFFECT_FRM);
    assert_int_equal(put(FFLAGS, 0x21), EFFECT_NONE);
    assert_int_equal(get(FCSR), 0x41);
    assert_int_equal(put(FRM, 4), EFFECT_FRM);
    assert_int_equal(get(FFLAGS), 1);
    put(FRM, 2);
    assert_int_equal(put(FRM, 2), EFFECT_NONE);
}

static void trap_vectors_take_direct_and_vectored_only(void **state)
{
    (void)state;
    static const unsigned csrs[] = { MTVEC, STVEC };
    for (int i = 0; i < 2; i++) {
        put(csrs[i], 0x80001001);
        assert_int_equal(get(csrs[i]), 0x80001001);
        put(csrs[i], 0x90000002);
        assert_int_equal(get(csrs[i]) & 3, 1);
        put(csrs[i], 0x90000000);
        assert_int_equal(get(csrs[i]), 0x90000000);
    }
    put(MEPC, ALL);
    put(SEPC, ALL);
    assert_true(get(MEPC) == ALL - 1 && get(SEPC) == ALL - 1);
}

static void satp_ignores_a_write_with_an_unsupported_mode(void **state)
{
    (void)state;
    for (uint64_t mode = 0; mode < 16; mode++) {
        bool supported = mode == 0 || (mode >= 8 && mode <= 10);
        uint64_t before = get(SATP), value = mode << 60 | UINT64_C(0xffff) << 44 | (0x1234 + mode);
        assert_int_equal(put(SATP, value), supported ? EFFECT_SPACE : EFFECT_NONE);
        assert_true(get(SATP) == (supported ? value : before)); /* all 16 bits of ASID hold */
    }
}

static void tvm_takes_satp_from_s(void **state)
{
    (void)state;
    put(MSTATUS, MSTATUS_TVM);
    assert_true(readable(SATP));
    hart.priv = PRIV_S;
    assert_false(readable(SATP));
    assert_false(writable(SATP, 0));
    hart.priv = PRIV_M;
    put(MSTATUS, 0);
    hart.priv = PRIV_S;
    assert_true(readable(SATP));
}

static void envcfg_holds_its_fields_and_refuses_cbie_2(void **state)
{
    (void)state;
    put(MENVCFG, ALL);
    assert_true(get(MENVCFG) == (UINT64_C(7) << 61 | 0xf1));
    put(MENVCFG, 0x20);
    assert_true(get(MENVCFG) == 0x30);
    put(SENVCFG, ALL);
    assert_true(get(SENVCFG) == 0xf1);
    assert_int_equal(put(MENVCFG, MENVCFG_PBMTE), EFFECT_FLUSH);
    assert_int_equal(put(MENVCFG, MENVCFG_PBMTE | MENVCFG_ADUE), EFFECT_FLUSH);
    assert_int_equal(put(SENVCFG, 0), EFFECT_NONE);
}

static void pmp_registers_are_warl(void **state)
{
    (void)state;
    assert_int_equal(put(PMPCFG0, UINT64_C(0x7f7a7978)), EFFECT_FLUSH);
    /* Reserved bits 5 and 6 stay 0, and W without R becomes no W. */
    assert_true(get(PMPCFG0) == UINT64_C(0x1f181918));
    assert_int_equal(put(PMPCFG0, UINT64_C(0x7f7a7978)), EFFECT_NONE);
    put(PMPADDR0 + 15, ALL);
    assert_true(get(PMPADDR0 + 15) == (UINT64_C(1) << 54) - 1);
    put(PMPCFG0 + 2, UINT64_C(0x1f) << 56);
    assert_int_equal(hart.pmpcfg[15], 0x1f);
    put(PMPCFG0 + 2, 0x1f); /* each register is eight entries and no more */
    assert_true(get(PMPCFG0) == UINT64_C(0x1f181918));
    put(PMPCFG0, 0);
    assert_int_equal(hart.pmpcfg[8], 0x1f);
    assert_int_equal(get(MSECCFG), 0);
}

static void a_locked_pmp_entry_stays_until_reset(void **state)
{
    (void)state;
    put(PMPADDR0, 0x100);
    put(PMPADDR0 + 1, 0x200);
    put(PMPADDR0 + 2, 0x300);
    put(PMPCFG0, UINT64_C(0x8900)); /* entry 1: locked, top of range, R */
    assert_int_equal(put(PMPCFG0, 0x1f1f1f), EFFECT_FLUSH);
    assert_true(get(PMPCFG0) == 0x1f891f);
    assert_int_equal(put(PMPADDR0 + 1, 0), EFFECT_NONE);
    assert_int_equal(put(PMPADDR0, 0), EFFECT_NONE); /* the bottom of a locked range is locked too */
    assert_int_equal(put(PMPADDR0 + 2, 0), EFFECT_FLUSH);
    assert_int_equal(get(PMPADDR0), 0x100);
    assert_int_equal(get(PMPADDR0 + 1), 0x200);
    put(PMPCFG0, UINT64_C(0x0f991f) | UINT64_C(0x9f) << 24);
    put(PMPADDR0 + 4, 4);
    assert_int_equal(get(PMPADDR0 + 4), 4); /* below nothing that is locked */
    put(PMPADDR0 + 2, 2);
    assert_int_equal(get(PMPADDR0 + 2), 2); /* below one that is locked, but no top of a range */
    put(PMPCFG0, UINT64_C(0x0f) << 32);
    put(PMPADDR0 + 3, 3);
    assert_int_equal(get(PMPADDR0 + 3), 0); /* locked itself */
    put(PMPCFG0 + 2, 0x0f00);
    put(PMPADDR0 + 8, 8);
    assert_int_equal(get(PMPADDR0 + 8), 8); /* below a top of a range that is not locked */
    put(PMPADDR0 + 15, 15);
    assert_int_equal(get(PMPADDR0 + 15), 15);
    hart_reset(&hart, 3, 0x1000);
    put(PMPADDR0 + 1, 0x400);
    assert_int_equal(get(PMPADDR0 + 1), 0x400);
}

/* Whatever is written anywhere, what stays is a state that a migration would accept. */
static void no_sequence_of_csr_writes_makes_an_invalid_hart(void **state)
{
    (void)state;
    uint64_t r = 88172645463325252;
    for (int i = 0; i < 200000; i++) {
        r ^= r << 13;
        r ^= r >> 7;
        r ^= r << 17;
        unsigned csr = r >> 50 & 0xfff;
        writable(csr, r * UINT64_C(0x2545f4914f6cdd1d) >> (r & 31));
        if (i % 64 == 0) {
            struct err err = { 0 };
            if (hart_state.validate(&hart, &err))
                fail_msg("%s", err.text);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(every_csr_needs_its_privilege, setup),
        cmocka_unit_test_setup(read_only_csrs_refuse_every_write, setup),
        cmocka_unit_test_setup(csrs_of_absent_extensions_are_illegal, setup),
        cmocka_unit_test_setup(trigger_registers_say_that_there_is_no_trigger, setup),
        cmocka_unit_test_setup(misa_says_rv64imafdcsu_and_ignores_writes, setup),
        cmocka_unit_test_setup(mstatus_keeps_xlen_and_refuses_mpp_2, setup),
        cmocka_unit_test_setup(sd_says_that_fs_is_dirty, setup),
        cmocka_unit_test_setup(sstatus_is_a_narrow_view_of_mstatus, setup),
        cmocka_unit_test_setup(status_writes_name_their_effects, setup),
        cmocka_unit_test_setup(delegation_registers_hold_only_what_can_be_delegated, setup),
        cmocka_unit_test_setup(sie_and_sip_show_only_delegated_interrupts, setup),
        cmocka_unit_test_setup(sip_lets_s_write_ssip_alone, setup),
        cmocka_unit_test_setup(mip_writes_reach_the_software_bits_of_s, setup),
        cmocka_unit_test_setup(setting_a_bit_of_mip_does_not_latch_a_wire, setup),
        cmocka_unit_test_setup(stip_follows_stimecmp_when_stce_is_set, setup),
        cmocka_unit_test_setup(s_reaches_stimecmp_only_with_stce_and_tm, setup),
        cmocka_unit_test_setup(counters_are_gated_by_both_counteren_registers, setup),
        cmocka_unit_test_setup(counters_show_the_harts_own_counts, setup),
        cmocka_unit_test_setup(float_csrs_need_fs_and_make_it_dirty, setup),
        cmocka_unit_test_setup(fcsr_is_frm_over_fflags, setup),
        cmocka_unit_test_setup(trap_vectors_take_direct_and_vectored_only, setup),
        cmocka_unit_test_setup(satp_ignores_a_write_with_an_unsupported_mode, setup),
        cmocka_unit_test_setup(tvm_takes_satp_from_s, setup),
        cmocka_unit_test_setup(envcfg_holds_its_fields_and_refuses_cbie_2, setup),
        cmocka_unit_test_setup(pmp_registers_are_warl, setup),
        cmocka_unit_test_setup(a_locked_pmp_entry_stays_until_reset, setup),
        cmocka_unit_test_setup(no_sequence_of_csr_writes_makes_an_invalid_hart, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
