#include "tests/unit/test.h"

#include "vcpu/trap.h"

static struct hart hart;
static unsigned effects;

static int setup(void **state)
{
    (void)state;
    hart = (struct hart){ 0 };
    hart_reset(&hart, 0, 0x1000);
    hart.pc = 0x8000;
    hart.mtvec = 0x10000;
    hart.stvec = 0x20000;
    effects = 0;
    return 0;
}

static unsigned mpp(void)
{
    return hart.mstatus >> 11 & 3;
}

static void an_exception_goes_to_m_and_stacks_the_status(void **state)
{
    (void)state;
    hart.priv = PRIV_S;
    hart.mstatus |= MSTATUS_MIE;
    hart_trap(&hart, CAUSE_ILLEGAL, 0x1234, &effects);
    assert_int_equal(hart.priv, PRIV_M);
    assert_int_equal(hart.pc, 0x10000);
    assert_int_equal(hart.mepc, 0x8000);
    assert_int_equal(hart.mcause, CAUSE_ILLEGAL);
    assert_int_equal(hart.mtval, 0x1234);
    assert_int_equal(mpp(), PRIV_S);
    assert_true(hart.mstatus & MSTATUS_MPIE);
    assert_false(hart.mstatus & MSTATUS_MIE);
    assert_true(effects & EFFECT_MODE);
    assert_int_equal(hart.sepc, 0);
    hart_trap(&hart, CAUSE_ILLEGAL, 0, &effects); /* and again, from M */
    assert_int_equal(mpp(), PRIV_M);
    assert_false(hart.mstatus & (MSTATUS_MPIE | MSTATUS_MIE));
}

static void a_delegated_exception_goes_to_s(void **state)
{
    (void)state;
    hart.medeleg = 1 << CAUSE_LOAD_PAGE;
    hart.priv = PRIV_U;
    hart.mstatus |= MSTATUS_SIE;
    hart_trap(&hart, CAUSE_LOAD_PAGE, 0xdead, &effects);
    assert_int_equal(hart.priv, PRIV_S);
    assert_int_equal(hart.pc, 0x20000);
    assert_int_equal(hart.sepc, 0x8000);
    assert_int_equal(hart.scause, CAUSE_LOAD_PAGE);
    assert_int_equal(hart.stval, 0xdead);
    assert_false(hart.mstatus & (MSTATUS_SPP | MSTATUS_SIE));
    assert_true(hart.mstatus & MSTATUS_SPIE);
    hart.pc = 0x9000; /* and again, from S */
    hart_trap(&hart, CAUSE_LOAD_PAGE, 0, &effects);
    assert_true(hart.mstatus & MSTATUS_SPP);
    assert_false(hart.mstatus & MSTATUS_SPIE);
}

static void delegation_never_lowers_the_privilege(void **state)
{
    (void)state;
    hart.medeleg = 0xb3ff;
    hart_trap(&hart, CAUSE_LOAD_PAGE, 0, &effects);
    assert_int_equal(hart.priv, PRIV_M);
    assert_int_equal(mpp(), PRIV_M);
}

static void only_interrupts_are_vectored(void **state)
{
    (void)state;
    hart.mtvec |= 1;
    hart.stvec |= 1;
    hart.mideleg = IRQ_BIT(IRQ_S_EXT);
    hart.medeleg = 1 << CAUSE_ECALL_U;
    hart.priv = PRIV_U;
    hart_trap(&hart, CAUSE_ECALL_U, 0, &effects);
    assert_int_equal(hart.pc, 0x20000);
    hart_trap(&hart, CAUSE_INTERRUPT | IRQ_S_EXT, 0, &effects);
    assert_int_equal(hart.pc, 0x20000 + 4 * IRQ_S_EXT);
    assert_true(hart.scause == (CAUSE_INTERRUPT | IRQ_S_EXT));
    hart_trap(&hart, CAUSE_INTERRUPT | IRQ_M_TIMER, 0, &effects);
    assert_int_equal(hart.pc, 0x10000 + 4 * IRQ_M_TIMER);
    hart_trap(&hart, CAUSE_BREAKPOINT, 0, &effects);
    assert_int_equal(hart.pc, 0x10000);
}

static void mret_unstacks_and_clears_mprv_below_m(void **state)
{
    (void)state;
    static const uint8_t to[] = { PRIV_U, PRIV_S, PRIV_M };
    for (int i = 0; i < 3; i++) {
        setup(NULL);
        hart.mepc = 0x4444;
        hart.mstatus |= MSTATUS_MPRV | MSTATUS_MPIE | (uint64_t)to[i] << 11;
        assert_true(hart_mret(&hart, &effects));
        assert_int_equal(hart.priv, to[i]);
        assert_int_equal(hart.pc, 0x4444);
        assert_int_equal(mpp(), PRIV_U);
        assert_true(hart.mstatus & MSTATUS_MIE);
        assert_true(hart.mstatus & MSTATUS_MPIE);
        assert_int_equal((hart.mstatus & MSTATUS_MPRV) != 0, to[i] == PRIV_M);
        assert_int_equal(effects & (EFFECT_MODE | EFFECT_INTERRUPTS), EFFECT_MODE | EFFECT_INTERRUPTS);
    }
    hart.priv = PRIV_S;
    assert_false(hart_mret(&hart, &effects));
}

static void sret_unstacks_and_clears_mprv(void **state)
{
    (void)state;
    hart.priv = PRIV_S;
    hart.sepc = 0x6666;
    hart.mstatus |= MSTATUS_SPP | MSTATUS_SIE | MSTATUS_MPRV; /* SPIE is 0 */
    assert_true(hart_sret(&hart, &effects));
    assert_int_equal(hart.priv, PRIV_S);
    assert_int_equal(hart.pc, 0x6666);
    assert_false(hart.mstatus & (MSTATUS_SIE | MSTATUS_SPP | MSTATUS_MPRV));
    assert_true(hart.mstatus & MSTATUS_SPIE);
    assert_true(hart_sret(&hart, &effects));
    assert_int_equal(hart.priv, PRIV_U);
    assert_true(hart.mstatus & MSTATUS_SIE);
    assert_false(hart_sret(&hart, &effects)); /* U may not */
}

static void tsr_takes_sret_from_s_only(void **state)
{
    (void)state;
    hart.mstatus |= MSTATUS_TSR;
    assert_true(hart_sret(&hart, &effects)); /* from M */
    hart.priv = PRIV_S;
    assert_false(hart_sret(&hart, &effects));
}

static void interrupts_come_in_the_order_of_the_isa(void **state)
{
    (void)state;
    static const uint8_t order[] = { IRQ_M_EXT, IRQ_M_SOFT, IRQ_M_TIMER, IRQ_S_EXT, IRQ_S_SOFT, IRQ_S_TIMER };
    for (int delegated = 0; delegated < 2; delegated++) {
        setup(NULL);
        hart.priv = PRIV_U;
        hart.mie = 0xaaa;
        hart.mideleg = delegated ? 0x222 : 0;
        hart.mip_soft = 0x222;
        hart.pins = 0x888;
        for (int i = 0; i < 6; i++) {
            assert_true(hart_pending_interrupt(&hart, 0) == (CAUSE_INTERRUPT | order[i]));
            hart.mip_soft &= ~IRQ_BIT(order[i]);
            hart.pins &= ~IRQ_BIT(order[i]);
        }
        assert_true(hart_pending_interrupt(&hart, 0) == 0);
    }
}

/* An interrupt for mode x is taken below x always, in x with its enable bit, above x never. */
static void an_interrupt_is_taken_as_mode_and_enable_say(void **state)
{
    (void)state;
    static const uint8_t privs[] = { PRIV_U, PRIV_S, PRIV_M };
    hart.mie = 0xaaa;
    for (int i = 0; i < 3; i++)
        for (unsigned enables = 0; enables < 4; enables++) {
            bool sie = enables & 1, mie = enables & 2;
            hart.priv = privs[i];
            hart.mstatus &= ~(MSTATUS_SIE | MSTATUS_MIE);
            hart.mstatus |= (sie ? MSTATUS_SIE : 0) | (mie ? MSTATUS_MIE : 0);
            hart.mip_soft = IRQ_BIT(IRQ_S_SOFT);
            hart.mideleg = 0x222;
            bool s_taken = privs[i] == PRIV_U || (privs[i] == PRIV_S && sie);
            assert_int_equal(hart_pending_interrupt(&hart, 0) != 0, s_taken);
            hart.mideleg = 0;
            bool m_taken = privs[i] != PRIV_M || mie;
            assert_int_equal(hart_pending_interrupt(&hart, 0) != 0, m_taken);
            hart.mie = 0;
            assert_true(hart_pending_interrupt(&hart, 0) == 0);
            hart.mie = 0xaaa;
        }
}

static void an_m_interrupt_outranks_a_delegated_one(void **state)
{
    (void)state;
    hart.priv = PRIV_S;
    hart.mstatus |= MSTATUS_SIE;
    hart.mie = 0xaaa;
    hart.mideleg = IRQ_BIT(IRQ_S_EXT);
    hart.mip_soft = IRQ_BIT(IRQ_S_EXT) | IRQ_BIT(IRQ_S_TIMER); /* the timer is not delegated: it is M's */
    assert_true(hart_pending_interrupt(&hart, 0) == (CAUSE_INTERRUPT | IRQ_S_TIMER));
}

static void the_supervisor_timer_is_pending_from_its_tick_on(void **state)
{
    (void)state;
    hart.priv = PRIV_U;
    hart.menvcfg = MENVCFG_STCE;
    hart.mideleg = hart.mie = IRQ_BIT(IRQ_S_TIMER);
    hart.stimecmp = 1000;
    assert_true(hart_pending_interrupt(&hart, 999) == 0);
    assert_false(hart_wakes(&hart, 999));
    assert_true(hart_pending_interrupt(&hart, 1000) == (CAUSE_INTERRUPT | IRQ_S_TIMER));
    assert_true(hart_wakes(&hart, 1000));
}

static void wfi_ends_for_enabled_interrupts_that_cannot_be_taken(void **state)
{
    (void)state;
    hart.pins = IRQ_BIT(IRQ_M_SOFT);
    assert_false(hart_wakes(&hart, 0));
    hart.mie = IRQ_BIT(IRQ_M_SOFT);
    assert_true(hart_pending_interrupt(&hart, 0) == 0); /* MIE is off */
    assert_true(hart_wakes(&hart, 0));
}

static void tw_and_tvm_take_wfi_and_sfence_from_s(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        if (i)
            hart.mstatus |= MSTATUS_TW | MSTATUS_TVM;
        hart.priv = PRIV_M;
        assert_true(hart_may_wfi(&hart) && hart_may_sfence(&hart));
        hart.priv = PRIV_S;
        assert_int_equal(hart_may_wfi(&hart), !i);
        assert_int_equal(hart_may_sfence(&hart), !i);
        hart.priv = PRIV_U;
        assert_false(hart_may_wfi(&hart) || hart_may_sfence(&hart));
    }
}

static void cache_block_operations_need_their_enables(void **state)
{
    (void)state;
    const uint64_t both = MENVCFG_CBZE | MENVCFG_CBCFE;
    for (unsigned i = 0; i < 4; i++) {
        hart.menvcfg = i & 1 ? both : 0;
        hart.senvcfg = i & 2 ? both : 0;
        hart.priv = PRIV_M;
        assert_true(hart_may_cbo_zero(&hart) && hart_may_cbo_clean(&hart));
        hart.priv = PRIV_S;
        assert_int_equal(hart_may_cbo_zero(&hart), i & 1);
        assert_int_equal(hart_may_cbo_clean(&hart), i & 1);
        hart.priv = PRIV_U;
        assert_int_equal(hart_may_cbo_zero(&hart), i == 3);
        assert_int_equal(hart_may_cbo_clean(&hart), i == 3);
    }
}

static void cbo_inval_is_a_flush_where_cbie_says_so(void **state)
{
    (void)state;
    static const uint64_t cbie[] = { 0, 1, 3 };
    bool flush = true;
    assert_true(hart_may_cbo_inval(&hart, &flush));
    assert_false(flush);
    for (int m = 0; m < 3; m++)
        for (int s = 0; s < 3; s++) {
            hart.menvcfg = cbie[m] << 4;
            hart.senvcfg = cbie[s] << 4;
            hart.priv = PRIV_S;
            assert_int_equal(hart_may_cbo_inval(&hart, &flush), m != 0);
            assert_int_equal(flush, m == 1);
            hart.priv = PRIV_U;
            assert_int_equal(hart_may_cbo_inval(&hart, &flush), m != 0 && s != 0);
            assert_int_equal(flush, m != 0 && s != 0 && (m == 1 || s == 1));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(an_exception_goes_to_m_and_stacks_the_status, setup),
        cmocka_unit_test_setup(a_delegated_exception_goes_to_s, setup),
        cmocka_unit_test_setup(delegation_never_lowers_the_privilege, setup),
        cmocka_unit_test_setup(only_interrupts_are_vectored, setup),
        cmocka_unit_test_setup(mret_unstacks_and_clears_mprv_below_m, setup),
        cmocka_unit_test_setup(sret_unstacks_and_clears_mprv, setup),
        cmocka_unit_test_setup(tsr_takes_sret_from_s_only, setup),
        cmocka_unit_test_setup(interrupts_come_in_the_order_of_the_isa, setup),
        cmocka_unit_test_setup(an_interrupt_is_taken_as_mode_and_enable_say, setup),
        cmocka_unit_test_setup(an_m_interrupt_outranks_a_delegated_one, setup),
        cmocka_unit_test_setup(the_supervisor_timer_is_pending_from_its_tick_on, setup),
        cmocka_unit_test_setup(wfi_ends_for_enabled_interrupts_that_cannot_be_taken, setup),
        cmocka_unit_test_setup(tw_and_tvm_take_wfi_and_sfence_from_s, setup),
        cmocka_unit_test_setup(cache_block_operations_need_their_enables, setup),
        cmocka_unit_test_setup(cbo_inval_is_a_flush_where_cbie_says_so, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
