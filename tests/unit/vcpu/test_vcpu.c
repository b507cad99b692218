/* The vCPU as others see it: pausing, kicks, wires, sleep. */
#include "tests/unit/vcpu/rig.h"

static const uint64_t TRAPS = RIG_RAM + 0x3000;

static int make_rig(void **state)
{
    struct rig *rig = test_calloc(1, sizeof(*rig));

    rig_new(rig, 1);
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

/* Pause and look until the hart sleeps; leaves it paused. */
static void pause_asleep(struct rig *rig)
{
    for (;;) {
        rig_pause(rig);
        if (rig_hart(rig)->waiting)
            return;
        rig_resume(rig);
    }
}

static void pausing_loses_and_repeats_no_instruction(void **state)
{
    struct rig *rig = *state;
    enum { LOOPS = 2000000, PAUSES = 200 };
    uint64_t seen = 0;

    put_li(rig, s0, LOOPS);
    put(rig, as(OP_addi, s1, s1, 1));
    put(rig, as(OP_add, s2, s2, s1));
    put(rig, as(OP_addi, s0, s0, -1));
    put(rig, as(OP_bne, s0, zero, -12));
    put_end(rig);
    rig_load(rig);
    for (int i = 0; i < PAUSES; i++) {
        rig_resume(rig);
        rig_pause(rig);
        uint64_t count = rig_hart(rig)->minstret, loops = rig_hart(rig)->x[s1];
        assert_true(count >= seen); /* and while paused it stands still */
        assert_int_equal(rig_hart(rig)->minstret, count);
        assert_true(loops <= LOOPS && count + 4 >= loops * 4);
        seen = count;
        if (rig->ends)
            break;
    }
    rig_resume(rig);
    rig_wait_ends(rig, 1);
    rig_pause(rig);
    assert_int_equal(rig_hart(rig)->x[s1], LOOPS);
    assert_int_equal(rig_hart(rig)->x[s2], (uint64_t)LOOPS * (LOOPS + 1) / 2);
}

static void an_endless_loop_still_pauses_at_once(void **state)
{
    struct rig *rig = *state;

    put(rig, as(OP_jal, zero, 0, 0)); /* one instruction, linked to itself */
    rig_load(rig);
    for (int i = 0; i < 50; i++) {
        rig_resume(rig);
        rig_pause(rig);
        assert_int_equal(rig_hart(rig)->pc, RIG_RAM);
    }
}

static void an_interrupt_is_taken_between_two_instructions(void **state)
{
    struct rig *rig = *state;
    struct irq_line wire = vcpu_irq(rig->vcpu[0], IRQ_M_SOFT);

    uint64_t first = here(rig);
    put(rig, as(OP_addi, s1, s1, 1));
    put(rig, as(OP_addi, s2, s2, 1));
    put(rig, as(OP_jal, zero, 0, -8));
    rig_hart(rig)->mie = IRQ_BIT(IRQ_M_SOFT);
    rig_hart(rig)->mstatus |= MSTATUS_MIE;
    rig_load(rig);
    rig_resume(rig);
    irq_set(&wire, true);
    rig_wait_ends(rig, 1);
    rig_pause(rig);
    struct hart *hart = rig_hart(rig);
    assert_int_equal(hart->mcause, CAUSE_INTERRUPT | IRQ_M_SOFT);
    assert_in_range(hart->mepc, first, first + 8);
    assert_int_equal(hart->x[s1] - hart->x[s2], hart->mepc == first + 4 ? 1 : 0);
}

static void a_wire_wakes_a_sleeper_however_close_they_meet(void **state)
{
    struct rig *rig = *state;
    struct irq_line wire = vcpu_irq(rig->vcpu[0], IRQ_M_EXT);

    put_li(rig, s0, RIG_END);
    put_li(rig, s1, IRQ_BIT(IRQ_M_EXT));
    put(rig, as(OP_csrrw, zero, s1, 0x304)); /* mie; MIE stays off: wfi wakes all the same */
    put(rig, as(OP_wfi, 0, 0, 0));
    put(rig, as(OP_sw, zero, s0, 0));
    put(rig, as(OP_csrrs, t0, zero, 0x344)); /* until the wire is down */
    put(rig, as(OP_and, t0, t0, s1));
    put(rig, as(OP_bne, t0, zero, -8));
    put(rig, as(OP_sw, zero, s0, 0));
    put(rig, as(OP_jal, zero, 0, -24));
    rig_load(rig);
    rig_resume(rig);
    for (unsigned i = 0; i < 2000; i++) {
        irq_set(&wire, true);
        rig_wait_ends(rig, 2 * i + 1);
        irq_set(&wire, false);
        rig_wait_ends(rig, 2 * i + 2);
    }
    pause_asleep(rig);
    assert_int_equal(rig->ends, 4000);
}

static void a_sleeper_is_still_asleep_after_a_pause(void **state)
{
    struct rig *rig = *state;
    struct irq_line wire = vcpu_irq(rig->vcpu[0], IRQ_M_EXT);
    struct vcpu_stats stats;

    put_li(rig, s1, IRQ_BIT(IRQ_M_EXT));
    put(rig, as(OP_csrrw, zero, s1, 0x304));
    put(rig, as(OP_wfi, 0, 0, 0));
    uint64_t behind = here(rig);
    put_end(rig);
    rig_load(rig);
    rig_resume(rig);
    pause_asleep(rig);
    for (int i = 0; i < 20; i++) {
        assert_true(rig_hart(rig)->waiting);
        assert_int_equal(rig_hart(rig)->pc, behind);
        rig_resume(rig);
        vcpu_kick(rig->vcpu[0]); /* nothing to see: sleeps on */
        rig_pause(rig);
    }
    vcpu_stats(rig->vcpu[0], &stats);
    uint64_t retired = stats.instructions;
    rig_resume(rig);
    irq_set(&wire, true);
    rig_wait_ends(rig, 1);
    rig_pause(rig);
    assert_false(rig_hart(rig)->waiting);
    vcpu_stats(rig->vcpu[0], &stats);
    assert_true(stats.instructions > retired);
}

static void the_timer_compare_register_wakes_a_sleeper(void **state)
{
    struct rig *rig = *state;

    put_li(rig, s1, IRQ_BIT(IRQ_S_TIMER));
    put(rig, as(OP_csrrw, zero, s1, 0x304));
    put_li(rig, t0, MENVCFG_STCE);
    put(rig, as(OP_csrrs, zero, t0, 0x30a));
    put(rig, as(OP_csrrs, s2, zero, 0xc01)); /* time */
    put(rig, as(OP_addi, s3, s2, 2000));     /* 200 us */
    put(rig, as(OP_csrrw, zero, s3, 0x14d)); /* stimecmp */
    put(rig, as(OP_wfi, 0, 0, 0));
    put(rig, as(OP_csrrs, s4, zero, 0xc01));
    put_end(rig);
    struct hart *hart = rig_run(rig);

    assert_true(hart->x[s4] >= hart->x[s3]);
    assert_true(hart->x[s3] > hart->x[s2]);
}

static void a_timer_that_passed_while_the_hart_was_elsewhere_fires_after_resume(void **state)
{
    struct rig *rig = *state;
    struct hart *hart = rig_hart(rig);

    /* As an incoming guest arrives: asleep, its deadline in the past, no timer of ours ever set. */
    put_end(rig);
    hart->menvcfg |= MENVCFG_STCE;
    hart->mie = IRQ_BIT(IRQ_S_TIMER);
    hart->stimecmp = 0;
    hart->waiting = true;
    hart = rig_run(rig);
    assert_false(hart->waiting);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_rig, drop_rig)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(pausing_loses_and_repeats_no_instruction),
        TEST(an_endless_loop_still_pauses_at_once),
        TEST(an_interrupt_is_taken_between_two_instructions),
        TEST(a_wire_wakes_a_sleeper_however_close_they_meet),
        TEST(a_sleeper_is_still_asleep_after_a_pause),
        TEST(the_timer_compare_register_wakes_a_sleeper),
        TEST(a_timer_that_passed_while_the_hart_was_elsewhere_fires_after_resume),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
