/* The vCPU as others see it: pausing, kicks, wires, sleep. */
#include "tests/unit/vcpu/rig.h"
#include "vcpu/engine.h"

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

/* mie = the timer and what else is in it; stimecmp can be used */
static void put_timer_on(struct rig *rig, uint64_t also)
{
    put_li(rig, s1, IRQ_BIT(IRQ_S_TIMER) | also);
    put(rig, as(OP_csrrw, zero, s1, 0x304));
    put_li(rig, t0, MENVCFG_STCE);
    put(rig, as(OP_csrrs, zero, t0, 0x30a));
}

/* s3 = stimecmp = time + ticks, a register: three instructions */
static void put_timer_in(struct rig *rig, unsigned ticks)
{
    put(rig, as(OP_csrrs, s2, zero, 0xc01)); /* time */
    put(rig, as(OP_add, s3, s2, ticks));
    put(rig, as(OP_csrrw, zero, s3, 0x14d));
}

struct busy_thread {
    struct rig *rig;
    bool inside, leave; /* under the rig's lock */
};

static void keep_busy(void *opaque)
{
    struct busy_thread *busy = opaque;

    lock(&busy->rig->lock);
    busy->inside = true;
    cond_broadcast(&busy->rig->cond);
    while (!busy->leave)
        cond_wait(&busy->rig->cond, &busy->rig->lock);
    unlock(&busy->rig->lock);
}

/* The timers' thread is kept in another timer's callback all the while. */
static void a_sleeper_hears_its_timer_without_the_timers_thread(void **state)
{
    struct rig *rig = *state;
    struct busy_thread busy = { .rig = rig };
    struct timer *timer = timer_new(rig->timers, keep_busy, &busy);

    timer_set_ns(timer, 0);
    lock(&rig->lock);
    while (!busy.inside)
        cond_wait(&rig->cond, &rig->lock);
    unlock(&rig->lock);

    put_timer_on(rig, 0);
    put(rig, as(OP_addi, s0, zero, 100));
    put(rig, as(OP_addi, s6, zero, 300)); /* 30 us */
    put_timer_in(rig, s6);
    put(rig, as(OP_wfi, 0, 0, 0));
    put(rig, as(OP_csrrs, s4, zero, 0xc01));
    put(rig, as(OP_sltu, s4, s4, s3));
    put(rig, as(OP_add, s5, s5, s4)); /* too early */
    put(rig, as(OP_addi, s0, s0, -1));
    put(rig, as(OP_bne, s0, zero, -32));
    put(rig, as(OP_csrrsi, zero, 8, 0x300)); /* MIE: that the timer is due is not forgotten */
    put(rig, as(OP_jal, zero, 0, 0));        /* the trap ends it */
    struct hart *hart = rig_run(rig);
    assert_int_equal(hart->x[s5], 0);
    assert_int_equal(hart->mcause, CAUSE_INTERRUPT | IRQ_S_TIMER);

    lock(&rig->lock);
    busy.leave = true;
    cond_broadcast(&rig->cond);
    unlock(&rig->lock);
    timer_free(timer);
}

/* Woken by a wire before its time: its timer must reach it although it sleeps no more. */
static void a_sleeper_that_was_woken_early_still_gets_its_timer(void **state)
{
    struct rig *rig = *state;
    struct irq_line wire = vcpu_irq(rig->vcpu[0], IRQ_M_EXT);

    put_timer_on(rig, IRQ_BIT(IRQ_M_EXT));
    put_li(rig, s0, RIG_END);
    put_li(rig, s4, IRQ_BIT(IRQ_M_EXT));
    put_li(rig, s5, IRQ_BIT(IRQ_S_TIMER));
    put_li(rig, s6, 10000); /* 1 ms */
    put(rig, as(OP_auipc, s7, 0, 0));
    put(rig, as(OP_addi, s7, s7, 48));
    put(rig, as(OP_csrrw, zero, s7, 0x305)); /* mtvec: behind the endless loop */
    uint64_t again = here(rig);
    put(rig, as(OP_csrrw, zero, s1, 0x304));
    put_timer_in(rig, s6);
    put(rig, as(OP_sw, zero, s0, 0));
    put(rig, as(OP_wfi, 0, 0, 0));
    put(rig, as(OP_csrrw, zero, s5, 0x304)); /* the timer alone */
    put(rig, as(OP_csrrsi, zero, 8, 0x300)); /* MIE */
    put(rig, as(OP_jal, zero, 0, 0));
    put(rig, as(OP_sw, zero, s0, 0));
    put(rig, as(OP_csrrs, t0, zero, 0x344)); /* until the wire is down */
    put(rig, as(OP_and, t0, t0, s4));
    put(rig, as(OP_bne, t0, zero, -8));
    put(rig, as(OP_jal, zero, 0, (int64_t)(again - here(rig))));
    rig_load(rig);
    rig_resume(rig);
    for (unsigned i = 0; i < 50; i++) {
        rig_wait_ends(rig, 2 * i + 1);
        for (unsigned yields = 0; yields < 4 * i; yields++)
            sched_yield();
        irq_set(&wire, true);
        rig_wait_ends(rig, 2 * i + 2);
        irq_set(&wire, false);
    }
    rig_pause(rig);
}

/* Its mie leaves the timer out, so the hart sleeps past it; when it lets the timer in, that is pending. */
static void a_timer_that_ends_no_sleep_is_pending_afterwards(void **state)
{
    struct rig *rig = *state;
    struct irq_line wire = vcpu_irq(rig->vcpu[0], IRQ_M_EXT);

    put_timer_on(rig, 0);
    put_li(rig, s6, 10);
    put_timer_in(rig, s6);
    put_li(rig, t0, IRQ_BIT(IRQ_M_EXT));
    put(rig, as(OP_csrrw, zero, t0, 0x304));
    put(rig, as(OP_wfi, 0, 0, 0));
    uint64_t behind = here(rig);
    put(rig, as(OP_csrrw, zero, s1, 0x304));
    put(rig, as(OP_csrrsi, zero, 8, 0x300)); /* MIE */
    put(rig, as(OP_jal, zero, 0, 0));        /* the trap ends it */
    rig_load(rig);
    rig_resume(rig);
    for (bool passed = false; !passed;) {
        pause_asleep(rig);
        assert_int_equal(rig_hart(rig)->pc, behind);
        passed = guest_clock_ticks(&rig->clock) > rig_hart(rig)->stimecmp;
        rig_resume(rig);
    }
    irq_set(&wire, true);
    rig_wait_ends(rig, 1);
    rig_pause(rig);
    assert_int_equal(rig_hart(rig)->mcause, CAUSE_INTERRUPT | IRQ_S_TIMER);
}

/* Harts that sleep to short deadlines, again and again, while they are kicked, paused, and time stands still. */
static void sleepers_meet_their_timers_whatever_comes_between(void **state)
{
    struct rig *rig = test_calloc(1, sizeof(*rig));
    enum { HARTS = 3, SLEEPS = 400 };

    (void)state;
    rig_new(rig, HARTS);
    put_timer_on(rig, 0);
    put(rig, as(OP_addi, s0, zero, SLEEPS));
    put(rig, as(OP_andi, s6, s0, 255)); /* up to 25 us */
    put_timer_in(rig, s6);
    put(rig, as(OP_wfi, 0, 0, 0));
    put(rig, as(OP_csrrs, s4, zero, 0xc01));
    put(rig, as(OP_sltu, s4, s4, s3));
    put(rig, as(OP_add, s5, s5, s4)); /* too early */
    put(rig, as(OP_addi, s0, s0, -1));
    put(rig, as(OP_bne, s0, zero, -36));
    put_end(rig);
    rig_load(rig);
    rig_resume(rig);
    for (unsigned turn = 0; !rig_wait_ends_until(rig, HARTS, 0); turn++) {
        for (unsigned yields = 0; yields < turn % 16; yields++)
            sched_yield();
        vcpu_kick(rig->vcpu[turn % HARTS]);
        if (turn % 4)
            continue;
        rig_pause(rig);
        guest_clock_stop(&rig->clock);
        timers_clock_changed(rig->timers);
        guest_clock_start(&rig->clock);
        timers_clock_changed(rig->timers);
        rig_resume(rig);
    }
    rig_pause(rig);
    for (unsigned i = 0; i < HARTS; i++) {
        assert_int_equal(vcpu_hart(rig->vcpu[i])->x[s0], 0);
        assert_int_equal(vcpu_hart(rig->vcpu[i])->x[s5], 0);
    }
    rig_free(rig);
    test_free(rig);
}

static void the_lead_follows_the_least_that_a_host_is_late(void **state)
{
    (void)state;
    int64_t lead_ns = 0;

    for (unsigned i = 0; i < 10000; i++) /* 20 us at least, now and then 3 ms */
        lead_ns = vcpu_learn_lead_ns(lead_ns, i % 16 == 0 ? 3000000 : 20000 + i % 16 * 1000);
    assert_in_range(lead_ns, 15000, 30000);
    for (unsigned i = 0; i < 20; i++) /* a host that is awake anyway */
        lead_ns = vcpu_learn_lead_ns(lead_ns, 0);
    assert_in_range(lead_ns, 0, 10);
    for (unsigned i = 0; i < 10000; i++)
        lead_ns = vcpu_learn_lead_ns(lead_ns, INT64_MAX / 2);
    assert_int_equal(lead_ns, VCPU_LEAD_MAX_NS);
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
        TEST(a_sleeper_hears_its_timer_without_the_timers_thread),
        TEST(a_sleeper_that_was_woken_early_still_gets_its_timer),
        TEST(a_timer_that_ends_no_sleep_is_pending_afterwards),
        cmocka_unit_test(the_lead_follows_the_least_that_a_host_is_late),
        cmocka_unit_test(sleepers_meet_their_timers_whatever_comes_between),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
