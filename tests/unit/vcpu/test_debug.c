/* The vCPU under a debugger: breakpoints, steps, harts that are held, registers and memory. */
#include "tests/unit/vcpu/rig.h"

#include <errno.h>

#include "vcpu/debug.h"

static struct debug_points points;
static unsigned stops; /* under the rig's lock */

static void note_stop(void *opaque)
{
    struct rig *rig = opaque;

    lock(&rig->lock);
    stops++;
    cond_broadcast(&rig->cond);
    unlock(&rig->lock);
}

static void wait_stops(struct rig *rig, unsigned count)
{
    lock(&rig->lock);
    while (stops < count)
        cond_wait(&rig->cond, &rig->lock);
    unlock(&rig->lock);
}

static int make_rig(void **state, unsigned harts)
{
    struct rig *rig = test_calloc(1, sizeof(*rig));

    rig_new(rig, harts);
    points = (struct debug_points){ 0 };
    stops = 0;
    for (unsigned i = 0; i < harts; i++)
        debug_attach(rig->vcpu[i], &(struct debug_client){ &points, note_stop, rig });
    *state = rig;
    return 0;
}

static int one_hart(void **state)
{
    return make_rig(state, 1);
}

static int two_harts(void **state)
{
    return make_rig(state, 2);
}

static int drop_rig(void **state)
{
    rig_free(*state);
    test_free(*state);
    return 0;
}

static void set_point(struct rig *rig, uint64_t pc)
{
    assert_int_equal(debug_points_set(&points, pc, 0), 0);
    for (unsigned i = 0; i < rig->harts; i++)
        debug_arm(rig->vcpu[i], DEBUG_GO);
}

/* Resume, wait until a hart has stopped by itself, pause. */
static void run_to_stop(struct rig *rig)
{
    unsigned before = stops;

    rig_resume(rig);
    wait_stops(rig, before + 1);
    rig_pause(rig);
}

static void step(struct rig *rig)
{
    debug_arm(rig->vcpu[0], DEBUG_STEP);
    run_to_stop(rig);
    assert_int_equal(debug_stopped(rig->vcpu[0]), DEBUG_STEPPED);
}

/* --- the set ---------------------------------------------------------------------------------------------- */

static void a_set_of_points_has_what_was_set_and_nothing_else(void **state)
{
    struct debug_points *set = &points;

    (void)state;
    *set = (struct debug_points){ 0 };
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(debug_points_set(set, 0x1000 + (i * 37 % 100) * 2, 0), 0);
    for (uint64_t pc = 0xf00; pc < 0x1200; pc += 2)
        assert_int_equal(debug_points_have(set, pc), pc >= 0x1000 && pc < 0x10c8);
    for (unsigned i = 0; i < 100; i += 2)
        debug_points_clear(set, 0x1000 + i * 2, 0);
    for (uint64_t pc = 0x1000; pc < 0x10c8; pc += 2)
        assert_int_equal(debug_points_have(set, pc), (pc & 2) != 0);
    assert_int_equal(debug_points_set(set, 0x1001, 0), -EINVAL);
}

static void a_point_of_two_kinds_stays_until_both_are_gone(void **state)
{
    (void)state;
    points = (struct debug_points){ 0 };
    debug_points_set(&points, 0x1000, 0);
    debug_points_set(&points, 0x1000, 1);
    debug_points_set(&points, 0x1000, 1);
    debug_points_clear(&points, 0x1000, 1);
    assert_true(debug_points_have(&points, 0x1000));
    debug_points_clear(&points, 0x1000, 0);
    assert_false(debug_points_have(&points, 0x1000));
    debug_points_clear(&points, 0x1000, 0);
    assert_int_equal(points.count, 0);
}

static void a_full_set_says_so(void **state)
{
    (void)state;
    points = (struct debug_points){ 0 };
    for (uint64_t i = 0; i < DEBUG_POINTS_MAX; i++)
        assert_int_equal(debug_points_set(&points, i * 2, 0), 0);
    assert_int_equal(debug_points_set(&points, 0x100000, 0), -ENOSPC);
    assert_int_equal(debug_points_set(&points, 0, 1), 0);
}

/* --- breakpoints ------------------------------------------------------------------------------------------ */

static void a_breakpoint_stops_before_its_instruction(void **state)
{
    struct rig *rig = *state;

    put(rig, as(OP_addi, s1, s1, 1));
    put(rig, as(OP_addi, s1, s1, 2));
    uint64_t at = here(rig);
    put(rig, as(OP_addi, s1, s1, 4));
    put_end(rig);
    rig_load(rig);
    set_point(rig, at);
    run_to_stop(rig);
    assert_int_equal(debug_stopped(rig->vcpu[0]), DEBUG_BREAKPOINT);
    assert_int_equal(rig_hart(rig)->pc, at);
    assert_int_equal(rig_hart(rig)->x[s1], 3);
    assert_int_equal(rig_hart(rig)->minstret, 2);

    debug_arm(rig->vcpu[0], DEBUG_GO); /* where it stands it stops again */
    run_to_stop(rig);
    assert_int_equal(rig_hart(rig)->minstret, 2);

    step(rig); /* a step goes over it */
    assert_int_equal(rig_hart(rig)->x[s1], 7);
    debug_arm(rig->vcpu[0], DEBUG_GO);
    rig_resume(rig);
    rig_wait_ends(rig, 1);
    rig_pause(rig);
    assert_int_equal(debug_stopped(rig->vcpu[0]), DEBUG_RUNS);
}

/* Decoded, linked and remembered code ran there before: none of it may run past a breakpoint that came later. */
static void a_breakpoint_in_a_hot_loop_is_seen(void **state)
{
    struct rig *rig = *state;

    put_li(rig, s3, RIG_RAM);
    uint64_t loop = here(rig), hit = loop + 8;
    put(rig, as(OP_addi, s1, s1, 1));
    put(rig, as(OP_addi, s4, zero, 1));
    put(rig, as(OP_addi, s1, s1, 1));
    put(rig, as(OP_jalr, ra, s3, (int64_t)(loop - RIG_RAM)));
    rig_load(rig);
    for (unsigned i = 0; i < 100; i++) {
        rig_resume(rig);
        vcpu_kick(rig->vcpu[0]);
        rig_pause(rig); /* somewhere in it */
        set_point(rig, hit);
        run_to_stop(rig);
        assert_int_equal(rig_hart(rig)->pc, hit);
        assert_int_equal(rig_hart(rig)->x[s1] % 2, 1);
        debug_points_clear(&points, hit, 0);
        debug_arm(rig->vcpu[0], DEBUG_GO);
    }
}

static void an_ebreak_is_the_guests_own(void **state)
{
    struct rig *rig = *state;
    enum { HANDLER = 0x100 };

    put(rig, as(OP_ebreak, 0, 0, 0));
    while (rig->words < HANDLER / 4)
        put(rig, as(OP_addi, zero, zero, 0));
    put_end(rig);
    rig_hart(rig)->mtvec = RIG_RAM + HANDLER;
    set_point(rig, RIG_RAM + 0x800);
    struct hart *hart = rig_run(rig);
    assert_int_equal(hart->mcause, CAUSE_BREAKPOINT);
    assert_int_equal(debug_stopped(rig->vcpu[0]), DEBUG_RUNS);
}

/* --- steps ------------------------------------------------------------------------------------------------ */

static void a_step_is_one_instruction(void **state)
{
    struct rig *rig = *state;

    put(rig, as(OP_addi, s1, zero, 5));
    put(rig, as(OP_beq, zero, zero, 8));
    put(rig, as(OP_addi, s1, zero, 6));
    put(rig, as(OP_jal, ra, 0, -12));
    rig_load(rig);
    static const uint64_t pcs[] = { 4, 12, 0, 4, 12, 0 };
    for (unsigned i = 0; i < 6; i++) {
        step(rig);
        assert_int_equal(rig_hart(rig)->pc, RIG_RAM + pcs[i]);
        assert_int_equal(rig_hart(rig)->minstret, i + 1);
    }
    assert_int_equal(rig_hart(rig)->x[s1], 5);
    assert_int_equal(rig_hart(rig)->x[ra], RIG_RAM + 16);
}

static void a_step_into_a_trap_ends_at_the_handler(void **state)
{
    struct rig *rig = *state;

    put(rig, as(OP_ecall, 0, 0, 0));
    rig_load(rig);
    rig_hart(rig)->mtvec = RIG_RAM + 0x400;
    step(rig);
    assert_int_equal(rig_hart(rig)->pc, RIG_RAM + 0x400);
    assert_int_equal(rig_hart(rig)->mepc, RIG_RAM);

    rig_hart(rig)->pc = 0x10; /* nothing is there to be fetched */
    step(rig);
    assert_int_equal(rig_hart(rig)->pc, RIG_RAM + 0x400);
    assert_int_equal(rig_hart(rig)->mcause, CAUSE_FETCH_ACCESS);
}

static void a_step_with_an_interrupt_pending_ends_at_the_handler(void **state)
{
    struct rig *rig = *state;
    struct irq_line wire = vcpu_irq(rig->vcpu[0], IRQ_M_SOFT);

    put(rig, as(OP_addi, s1, s1, 1));
    put(rig, as(OP_addi, s1, s1, 1));
    rig_load(rig);
    rig_hart(rig)->mtvec = RIG_RAM + 0x400;
    rig_hart(rig)->mie = IRQ_BIT(IRQ_M_SOFT);
    rig_hart(rig)->mstatus |= MSTATUS_MIE;
    step(rig);
    assert_int_equal(rig_hart(rig)->pc, RIG_RAM + 4);
    irq_set(&wire, true);
    step(rig);
    assert_int_equal(rig_hart(rig)->pc, RIG_RAM + 0x400);
    assert_int_equal(rig_hart(rig)->mepc, RIG_RAM + 4);
    assert_int_equal(rig_hart(rig)->x[s1], 1);
}

static void a_step_over_wfi_does_not_wait(void **state)
{
    struct rig *rig = *state;

    put(rig, as(OP_wfi, 0, 0, 0));
    rig_load(rig);
    step(rig);
    assert_int_equal(rig_hart(rig)->pc, RIG_RAM + 4);
    assert_true(rig_hart(rig)->waiting);
}

static void stepping_and_running_come_to_the_same(void **state)
{
    struct rig *rig = *state;

    put_li(rig, s1, 0x123456789abcdef);
    put_li(rig, s2, RIG_RAM + 0x1ffd); /* a store across two pages */
    put(rig, as(OP_sd, s1, s2, 0));
    put(rig, as(OP_ld, s3, s2, 0));
    put(rig, as(OP_addi, s0, zero, 20));
    put(rig, as(OP_add, s4, s4, s3));
    put(rig, as(OP_addi, s0, s0, -1));
    put(rig, as(OP_bne, s0, zero, -8));
    uint64_t end = here(rig);
    put_end(rig);
    struct hart ran = *rig_run(rig);

    hart_reset(rig_hart(rig), 0, RIG_RAM);
    while (rig_hart(rig)->pc != end)
        step(rig);
    assert_memory_equal(&rig_hart(rig)->x[s0], &ran.x[s0], 16);
    assert_memory_equal(&rig_hart(rig)->x[s2], &ran.x[s2], 24);
}

/* --- several harts ---------------------------------------------------------------------------------------- */

static void a_hart_that_is_to_stay_stays(void **state)
{
    struct rig *rig = *state;

    put(rig, as(OP_addi, s1, s1, 1));
    put(rig, as(OP_addi, s1, s1, 1));
    put(rig, as(OP_jal, zero, 0, -8));
    rig_load(rig);
    debug_arm(rig->vcpu[1], DEBUG_STAY);
    for (unsigned i = 1; i < 50; i++) {
        step(rig);
        assert_int_equal(rig_hart(rig)->minstret, i);
    }
    assert_int_equal(vcpu_hart(rig->vcpu[1])->minstret, 0);
    assert_int_equal(debug_stopped(rig->vcpu[1]), DEBUG_RUNS);
    debug_arm(rig->vcpu[0], DEBUG_STAY);
    debug_arm(rig->vcpu[1], DEBUG_STEP);
    run_to_stop(rig);
    assert_int_equal(vcpu_hart(rig->vcpu[1])->minstret, 1);
    assert_int_equal(rig_hart(rig)->minstret, 49);
}

/* Somebody else resumes the machine before the debugger has looked. */
static void a_stopped_hart_waits_for_the_debuggers_word(void **state)
{
    struct rig *rig = *state;

    put(rig, as(OP_addi, s1, s1, 1));
    put_end(rig);
    rig_load(rig);
    set_point(rig, RIG_RAM + 4);
    debug_arm(rig->vcpu[1], DEBUG_STAY);
    run_to_stop(rig);
    for (unsigned i = 0; i < 10; i++) {
        rig_resume(rig);
        rig_pause(rig);
        assert_int_equal(debug_stopped(rig->vcpu[0]), DEBUG_BREAKPOINT);
        assert_int_equal(rig_hart(rig)->pc, RIG_RAM + 4);
    }
    assert_int_equal(stops, 1);
}

static void detaching_lets_everything_go(void **state)
{
    struct rig *rig = *state;

    put(rig, as(OP_addi, s1, s1, 1));
    put_end(rig);
    rig_load(rig);
    set_point(rig, RIG_RAM + 4);
    debug_arm(rig->vcpu[1], DEBUG_STAY);
    run_to_stop(rig);
    for (unsigned i = 0; i < 2; i++)
        debug_attach(rig->vcpu[i], NULL);
    rig_resume(rig);
    rig_wait_ends(rig, 2);
    rig_pause(rig);
    assert_int_equal(debug_stopped(rig->vcpu[0]), DEBUG_RUNS);
}

/* --- registers -------------------------------------------------------------------------------------------- */

static uint64_t reg(struct hart *hart, unsigned number)
{
    uint64_t value = 0;

    assert_int_equal(debug_register_read(hart, number, 77, &value), 0);
    return value;
}

static void registers_are_read_and_written_by_number(void **state)
{
    struct rig *rig = *state;
    struct hart *hart = rig_hart(rig);

    for (unsigned n = 0; n < DEBUG_REG_CSR; n++)
        assert_int_equal(debug_register_write(hart, n, 0x1000 + n), 0);
    for (unsigned n = 1; n < DEBUG_REG_CSR; n++)
        assert_int_equal(reg(hart, n), 0x1000 + n);
    assert_int_equal(reg(hart, 0), 0);
    assert_int_equal(hart->f[3], 0x1000 + DEBUG_REG_F + 3);
    assert_int_equal(hart->pc, 0x1020);
    assert_int_equal(reg(hart, DEBUG_REG_PRIV), PRIV_M);
    assert_int_equal(debug_register_write(hart, DEBUG_REG_PRIV, 2), -EINVAL);
    assert_int_equal(debug_register_write(hart, DEBUG_REG_PRIV, PRIV_U), 0);
    assert_int_equal(hart->priv, PRIV_U);
    assert_int_equal(debug_register_read(hart, DEBUG_REGS, 0, &(uint64_t){ 0 }), -ENOENT);
    assert_int_equal(debug_register_write(hart, DEBUG_REGS, 0), -ENOENT);
}

static void csrs_are_those_of_machine_mode_and_keep_their_rules(void **state)
{
    struct rig *rig = *state;
    struct hart *hart = rig_hart(rig);
    enum { CSR = DEBUG_REG_CSR };

    hart->priv = PRIV_U;
    hart->mstatus &= ~MSTATUS_FS;
    assert_int_equal(debug_register_write(hart, CSR + 0x341, 0x1235), 0); /* mepc: bit 0 cannot be */
    assert_int_equal(reg(hart, CSR + 0x341), 0x1234);
    assert_int_equal(debug_register_write(hart, CSR + 3, 0xff), 0); /* fcsr, floating point off */
    assert_int_equal(hart->fflags, 31);
    assert_int_equal(reg(hart, CSR + 1), 31);
    assert_int_equal(hart->frm, 7);
    assert_int_equal(hart->mstatus & MSTATUS_FS, 0);
    assert_int_equal(reg(hart, CSR + 0xc01), 77); /* time */
    assert_int_equal(debug_register_write(hart, CSR + 0xf14, 5), -EACCES);
    assert_int_equal(debug_register_write(hart, CSR + 0x7c0, 5), -ENOENT);
    assert_int_equal(debug_register_read(hart, CSR + 0x7c0, 0, &(uint64_t){ 0 }), -ENOENT);
    assert_int_equal(hart->priv, PRIV_U);
}

/* --- memory ----------------------------------------------------------------------------------------------- */

/* Sv39: one gigabyte at 0 that is the RAM's, and 4 KiB at 0x40000000 which nobody may read, A and D clear. */
static void map(struct rig *rig)
{
    uint64_t root = RIG_RAM + 0x10000, middle = root + 0x1000, last = root + 0x2000;

    poke(rig, root, RIG_RAM >> 2 | 0xcf);
    poke(rig, root + 8, middle >> 2 | 1);
    poke(rig, middle, last >> 2 | 1);
    poke(rig, last, (RIG_RAM + 0x5000) >> 2 | 0x9); /* V, X */
    rig_hart(rig)->satp = UINT64_C(8) << 60 | root >> 12;
    rig_hart(rig)->priv = PRIV_S;
}

static void memory_is_seen_as_the_hart_sees_it(void **state)
{
    struct rig *rig = *state;
    uint64_t value = 0;

    map(rig);
    poke(rig, RIG_RAM + 0x5008, 0xabcdef);
    assert_int_equal(debug_memory_read(rig->vcpu[0], DEBUG_VIRTUAL, 0x40000008, &value, 8), 8);
    assert_int_equal(value, 0xabcdef);
    assert_int_equal(debug_memory_read(rig->vcpu[0], DEBUG_VIRTUAL, 0x5008, &value, 8), 8);
    assert_int_equal(value, 0xabcdef);
    assert_int_equal(debug_memory_read(rig->vcpu[0], DEBUG_PHYSICAL, RIG_RAM + 0x5008, &value, 8), 8);
    assert_int_equal(debug_memory_read(rig->vcpu[0], DEBUG_VIRTUAL, RIG_RAM + 0x5008, &value, 8), -EFAULT);
    assert_int_equal(peek(rig, RIG_RAM + 0x12000), (RIG_RAM + 0x5000) >> 2 | 0x9); /* A and D as they were */

    rig_hart(rig)->priv = PRIV_M; /* physical first, then by the tables */
    assert_int_equal(debug_memory_read(rig->vcpu[0], DEBUG_VIRTUAL, RIG_RAM + 0x5008, &value, 8), 8);
    value = 0;
    assert_int_equal(debug_memory_read(rig->vcpu[0], DEBUG_VIRTUAL, 0x40000008, &value, 8), 8);
    assert_int_equal(value, 0xabcdef);
}

static void memory_that_ends_is_read_up_to_there(void **state)
{
    struct rig *rig = *state;
    static uint8_t bytes[3 * 4096];
    uint64_t value = 0x1122334455667788;

    map(rig);
    assert_int_equal(debug_memory_read(rig->vcpu[0], DEBUG_VIRTUAL, 0x40000ffc, bytes, 8), 4);
    assert_int_equal(debug_memory_read(rig->vcpu[0], DEBUG_VIRTUAL, 0x40001000, bytes, 8), -EFAULT);
    assert_int_equal(debug_memory_write(rig->vcpu[0], DEBUG_VIRTUAL, 0x40000ffc, &value, 8), 4);
    assert_int_equal(peek(rig, RIG_RAM + 0x5ff8) >> 32, 0x55667788);
    assert_int_equal(debug_memory_write(rig->vcpu[0], DEBUG_VIRTUAL, 0x2ffd, &value, 8), 8); /* two pages */
    assert_int_equal(debug_memory_read(rig->vcpu[0], DEBUG_VIRTUAL, 0x1000, bytes, sizeof(bytes)), sizeof(bytes));
    assert_memory_equal(bytes + 0x1ffd, &value, 8);
    assert_int_equal(debug_memory_read(rig->vcpu[0], DEBUG_PHYSICAL, RIG_END, bytes, 8), -EFAULT);
    assert_int_equal(debug_memory_read(rig->vcpu[0], DEBUG_VIRTUAL, UINT64_MAX - 3, bytes, 8), -EFAULT);
    assert_int_equal(debug_memory_write(rig->vcpu[0], DEBUG_PHYSICAL, RIG_ODDS, &value, 4), -EFAULT);
    assert_int_equal(rig->odd_writes, 0);
}

static void code_that_a_debugger_writes_runs(void **state)
{
    struct rig *rig = *state;
    uint32_t other = as(OP_addi, s1, zero, 9);

    put(rig, as(OP_addi, s1, zero, 8));
    put_end(rig);
    assert_int_equal(rig_run(rig)->x[s1], 8);
    assert_int_equal(debug_memory_write(rig->vcpu[0], DEBUG_VIRTUAL, RIG_RAM, &other, 4), 4);
    rig_hart(rig)->pc = RIG_RAM;
    rig_resume(rig);
    rig_wait_ends(rig, 2);
    rig_pause(rig);
    assert_int_equal(rig_hart(rig)->x[s1], 9);
}

#define ONE(name) cmocka_unit_test_setup_teardown(name, one_hart, drop_rig)
#define TWO(name) cmocka_unit_test_setup_teardown(name, two_harts, drop_rig)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_set_of_points_has_what_was_set_and_nothing_else),
        cmocka_unit_test(a_point_of_two_kinds_stays_until_both_are_gone),
        cmocka_unit_test(a_full_set_says_so),
        ONE(a_breakpoint_stops_before_its_instruction),
        ONE(a_breakpoint_in_a_hot_loop_is_seen),
        ONE(an_ebreak_is_the_guests_own),
        ONE(a_step_is_one_instruction),
        ONE(a_step_into_a_trap_ends_at_the_handler),
        ONE(a_step_with_an_interrupt_pending_ends_at_the_handler),
        ONE(a_step_over_wfi_does_not_wait),
        ONE(stepping_and_running_come_to_the_same),
        TWO(a_hart_that_is_to_stay_stays),
        TWO(a_stopped_hart_waits_for_the_debuggers_word),
        TWO(detaching_lets_everything_go),
        ONE(registers_are_read_and_written_by_number),
        ONE(csrs_are_those_of_machine_mode_and_keep_their_rules),
        ONE(memory_is_seen_as_the_hart_sees_it),
        ONE(memory_that_ends_is_read_up_to_there),
        ONE(code_that_a_debugger_writes_runs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
