/* Memory for generated code that fills: everything goes, and all harts make theirs anew. And time, read inline. */
#include "tests/unit/vcpu/rig.h"

#include <inttypes.h>
#include <sched.h>

#define ENOUGH (RIG_RAM + 0x80000) /* not 0: callers end after this round */
enum { FUNCTIONS = 2048, FUNCTION_BYTES = 64, FUNCTIONS_AT = 0x100000, PATIENCE_S = 60, INSN_RET = 0x00008067 };

/* Function i: a0 = 3 * a0 + i. */
static void load_functions(struct rig *rig)
{
    for (unsigned i = 0; i < FUNCTIONS; i++) {
        const uint32_t function[] = { as(OP_slli, t0, a0, 1), as(OP_add, a0, a0, t0), as(OP_addi, a0, a0, i),
                                      INSN_RET };

        assert_true(ram_load(rig->ram, RIG_RAM + FUNCTIONS_AT + i * FUNCTION_BYTES, function, sizeof(function)));
    }
}

static uint64_t expected(uint64_t rounds)
{
    uint64_t a = 0;

    for (uint64_t round = 0; round < rounds; round++)
        for (unsigned i = 0; i < FUNCTIONS; i++)
            a = 3 * a + i;
    return a;
}

/* Calls all of them until somebody says that it is enough; s2: how often. */
static uint64_t put_caller(struct rig *rig)
{
    uint64_t entry = here(rig);

    put(rig, as(OP_addi, a0, zero, 0));
    put(rig, as(OP_addi, s2, zero, 0));
    put_li(rig, s3, ENOUGH);
    uint64_t round = here(rig);
    put_li(rig, s0, RIG_RAM + FUNCTIONS_AT);
    put_li(rig, s1, RIG_RAM + FUNCTIONS_AT + FUNCTIONS * FUNCTION_BYTES);
    uint64_t call = here(rig);
    put(rig, as(OP_jalr, ra, s0, 0));
    put(rig, as(OP_addi, s0, s0, FUNCTION_BYTES));
    put(rig, as(OP_bne, s0, s1, (int64_t)(call - here(rig))));
    put(rig, as(OP_addi, s2, s2, 1));
    put(rig, as(OP_ld, t0, s3, 0));
    put(rig, as(OP_beq, t0, zero, (int64_t)(round - here(rig))));
    put_end(rig);
    return entry;
}

static uint64_t put_sleeper(struct rig *rig)
{
    uint64_t entry = here(rig);

    put(rig, as(OP_wfi, 0, 0, 0));
    put(rig, as(OP_jal, zero, 0, -4));
    return entry;
}

/* Waits until everything was dropped `flushes` times. */
static void wait_flushes(struct rig *rig, uint64_t flushes)
{
    struct jit_stats stats = { .flushes = flushes }; /* no code generator here: at once */
    int64_t until_ns = clock_now_ns() + PATIENCE_S * NS_PER_S;

    while (rig->jit && (jit_stats(rig->jit, &stats), stats.flushes < flushes))
        if (clock_now_ns() > until_ns)
            fail_msg("%" PRIu64 " flushes within %d s, not %" PRIu64, stats.flushes, PATIENCE_S, flushes);
        else
            sched_yield();
}

/* While `callers` harts run and `sleepers` sleep, everything is dropped `flushes` times, and nobody miscounts. */
static void flush(unsigned callers, unsigned sleepers, uint64_t flushes)
{
    static const uint64_t enough = 1;
    struct rig *rig = test_calloc(1, sizeof(*rig));

    rig_new_engine(rig, callers + sleepers, RIG_JIT_SMALL);
    uint64_t caller = put_caller(rig), sleeper = put_sleeper(rig);
    load_functions(rig);
    rig_load(rig);
    for (unsigned h = 0; h < rig->harts; h++)
        vcpu_hart(rig->vcpu[h])->pc = h < callers ? caller : sleeper;
    rig_resume(rig);
    wait_flushes(rig, flushes);
    assert_true(ram_write(rig->ram, ENOUGH, &enough, sizeof(enough)));
    rig_wait_ends(rig, callers);
    rig_pause(rig);
    for (unsigned h = 0; h < callers; h++)
        assert_int_equal(vcpu_hart(rig->vcpu[h])->x[a0], expected(vcpu_hart(rig->vcpu[h])->x[s2]));
    rig_free(rig);
    test_free(rig);
}

static void code_memory_that_fills_is_used_again(void **state)
{
    (void)state;
    flush(1, 0, 2);
}

static void harts_that_run_agree_when_all_code_goes(void **state)
{
    (void)state;
    flush(4, 0, 2);
}

/* The second time is only possible when the first has come to its end. */
static void a_hart_that_sleeps_holds_up_nobody(void **state)
{
    (void)state;
    flush(1, 3, 2);
}

/* Each hart takes the latest time that any has told, then its own, which must not be before. This thread does
 * the same by C, and trims the clock. */
static void time_runs_backwards_for_no_hart(void **state)
{
    struct rig *rig = test_calloc(1, sizeof(*rig));
    enum { HARTS = 3, READS = 20000, LATEST = RIG_RAM + 0x100000 };
    uint64_t backwards = 0;

    (void)state;
    rig_new_engine(rig, HARTS, RIG_JIT);
    _Atomic uint64_t *latest = (_Atomic uint64_t *)(void *)ram_ptr(rig->ram, LATEST, 8);
    for (unsigned h = 0; h < HARTS; h++) { /* M mode may always; generated code asks nobody if all may */
        vcpu_hart(rig->vcpu[h])->mcounteren = 7;
        vcpu_hart(rig->vcpu[h])->scounteren = 7;
    }
    put_li(rig, s0, READS);
    put_li(rig, s1, LATEST);
    uint64_t again = here(rig);
    put(rig, as(OP_ld, t0, s1, 0));
    put(rig, as(OP_csrrs, t1, zero, 0xc01));
    put(rig, as(OP_sltu, t2, t1, t0));
    put(rig, as(OP_add, s5, s5, t2));
    put(rig, as(OP_amomaxu_d, zero, s1, t1));
    put(rig, as(OP_addi, s0, s0, -1));
    put(rig, as(OP_bne, s0, zero, (int64_t)(again - here(rig))));
    put_end(rig);
    rig_load(rig);
    rig_resume(rig);
    while (!rig_wait_ends_until(rig, HARTS, 0)) {
        for (unsigned i = 0; i < 1000; i++) {
            uint64_t told = atomic_load_explicit(latest, memory_order_acquire);
            uint64_t now = guest_clock_ticks(&rig->clock);
            backwards += now < told;
            while (told < now && !atomic_compare_exchange_weak_explicit(latest, &told, now, memory_order_acq_rel,
                                                                        memory_order_acquire))
                ;
        }
        guest_clock_trim(&rig->clock);
    }
    rig_pause(rig);
    for (unsigned h = 0; h < HARTS; h++) {
        assert_int_equal(vcpu_hart(rig->vcpu[h])->x[s0], 0);
        assert_int_equal(vcpu_hart(rig->vcpu[h])->x[s5], 0);
    }
    assert_int_equal(backwards, 0);
    rig_free(rig);
    test_free(rig);
}

/* What generated code reads is what C reads, to the tick, in places far apart in time. */
static void time_read_inline_is_the_clocks(void **state)
{
    struct rig *rig = test_calloc(1, sizeof(*rig));

    (void)state;
    rig_new_engine(rig, 1, RIG_JIT);
    rig_hart(rig)->mcounteren = 7;
    rig_hart(rig)->scounteren = 7;
    while (guest_clock_ns(&rig->clock) < 2 * NS_PER_MS)
        ;
    guest_clock_trim(&rig->clock);
    put(rig, as(OP_addi, s0, zero, 200));
    put(rig, as(OP_csrrs, s2, zero, 0xc01));
    put(rig, as(OP_addi, s0, s0, -1));
    put(rig, as(OP_bne, s0, zero, -8));
    put_end(rig);
    for (int64_t years = 0; years < 290; years += 29) {
        guest_clock_stop(&rig->clock);
        guest_clock_set_ns(&rig->clock, years * 365 * 86400 * NS_PER_S + 12345);
        uint64_t before = guest_clock_ticks(&rig->clock);
        guest_clock_start(&rig->clock);
        timers_clock_changed(rig->timers);
        rig_hart(rig)->pc = RIG_RAM;
        uint64_t time = rig_run(rig)->x[s2];
        assert_in_range(time, before, guest_clock_ticks(&rig->clock));
    }
    rig_free(rig);
    test_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(code_memory_that_fills_is_used_again),
        cmocka_unit_test(harts_that_run_agree_when_all_code_goes),
        cmocka_unit_test(a_hart_that_sleeps_holds_up_nobody),
        cmocka_unit_test(time_runs_backwards_for_no_hart),
        cmocka_unit_test(time_read_inline_is_the_clocks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
