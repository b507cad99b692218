/* Code that is made before its guest runs: of what the list of another machine says, and never of bytes that are others now. */
#include "memory/tlb.h"
#include "tests/unit/vcpu/page_rig.h"

enum { AGAIN = 100, CALLED = 0x1000, DEEPER = 0x2000 };

static unsigned pages_told;
static struct jit_hot_page told[16];

static void note(void *opaque, const struct jit_hot_page *page)
{
    (void)opaque;
    assert_true(pages_told < 16);
    told[pages_told++] = *page;
}

static const struct jit_hot_page *page_told(uint64_t gpa)
{
    for (unsigned i = 0; i < pages_told; i++)
        if (told[i].gpa == gpa)
            return &told[i];
    return NULL;
}

static struct jit_stats stats_of(const struct rig *rig)
{
    struct jit_stats stats;
    jit_stats(rig->jit, &stats);
    return stats;
}

static void put_function(struct rig *rig, uint64_t offset, unsigned value)
{
    const uint32_t function[] = { as(OP_addi, a0, zero, value), as(OP_jalr, zero, ra, 0) };
    assert_true(ram_load(rig->ram, RIG_RAM + offset, function, sizeof(function)));
}

/* Calls the function at `offset` again and again and ends; a1 is the sum of what it returned. */
static void put_calls(struct rig *rig, uint64_t offset, unsigned times)
{
    rig->words = 0;
    put(rig, as(OP_addi, a1, zero, 0));
    put(rig, as(OP_addi, s2, zero, times));
    put_li(rig, s0, RIG_RAM + offset);
    uint64_t again = here(rig);
    put(rig, as(OP_jalr, ra, s0, 0));
    put(rig, as(OP_add, a1, a1, a0));
    put(rig, as(OP_addi, s2, s2, -1));
    put(rig, as(OP_bne, s2, zero, (int64_t)(again - here(rig))));
    put_end(rig);
    rig_load(rig);
    rig_hart(rig)->pc = RIG_RAM;
}

/* As a loader does: nobody marks anything. */
static void store_behind_everybody(struct rig *rig, uint64_t offset, uint32_t word)
{
    uint32_t *at = (uint32_t *)(void *)(ram_page_host(rig->ram, offset / PAGE_BYTES) + offset % PAGE_BYTES);
    __atomic_store_n(at, word, __ATOMIC_RELAXED);
}

static struct rig *new_rig(void)
{
    struct rig *rig = test_calloc(1, sizeof(*rig));
    rig_new_engine(rig, 1, RIG_JIT);
    if (!rig->jit) { /* no code generator for this host */
        rig_free(rig);
        test_free(rig);
        skip();
    }
    return rig;
}

static void drop(struct rig *rig)
{
    rig_free(rig);
    test_free(rig);
}

static uint64_t run_once(struct rig *rig)
{
    unsigned ends = rig->ends;
    rig_resume(rig);
    rig_wait_ends(rig, ends + 1);
    rig_pause(rig);
    return rig_hart(rig)->x[a1];
}

static void code_made_ahead_is_what_runs(void **state)
{
    (void)state;
    struct rig *rig = new_rig();
    put_function(rig, CALLED, 5);
    put_calls(rig, CALLED, 1);
    assert_int_equal(jit_warm(rig->jit, RIG_RAM + CALLED), 1);
    assert_int_equal(jit_warm(rig->jit, RIG_RAM + CALLED), 0); /* there already */
    assert_int_equal(jit_warm(rig->jit, RIG_RAM + DEEPER), -EAGAIN);
    assert_int_equal(jit_warm(rig->jit, RIG_RAM + 1), 0);
    assert_int_equal(jit_warm(rig->jit, 0x1000), 0); /* no RAM */
    jit_settle(rig->jit);
    jit_hot_begin(rig->jit);
    assert_int_equal(run_once(rig), 5);
    pages_told = 0;
    jit_hot_list(rig->jit, note, NULL);
    assert_non_null(page_told(RIG_RAM + CALLED)); /* it was entered, though it ran but once */
    struct jit_stats stats = stats_of(rig);
    assert_int_equal(stats.warmed, 1);
    assert_int_equal(stats.warm_dropped, 0);
    drop(rig);
}

/* The dangerous one: its page was loaded again after the code was made, and a settled hart compares nothing. */
static void code_of_bytes_that_changed_is_dropped_before_a_hart_runs(void **state)
{
    (void)state;
    struct rig *rig = new_rig();
    put_function(rig, CALLED, 5);
    put_calls(rig, CALLED, AGAIN);
    assert_int_equal(jit_warm(rig->jit, RIG_RAM + CALLED), 1);
    store_behind_everybody(rig, CALLED, as(OP_addi, a0, zero, 7));
    jit_settle(rig->jit);
    assert_true(jit_settled(rig->jit));
    assert_int_equal(stats_of(rig).warm_dropped, 1);
    assert_int_equal(run_once(rig), 7 * AGAIN);
    drop(rig);
}

/* Without a settle harts believe nothing, as ever. */
static void a_hart_that_finds_nothing_settled_compares_by_itself(void **state)
{
    (void)state;
    struct rig *rig = new_rig();
    put_function(rig, CALLED, 5);
    put_calls(rig, CALLED, AGAIN);
    assert_int_equal(jit_warm(rig->jit, RIG_RAM + CALLED), 1);
    jit_settle(rig->jit);
    jit_unsettle(rig->jit);
    store_behind_everybody(rig, CALLED, as(OP_addi, a0, zero, 7));
    assert_int_equal(run_once(rig), 7 * AGAIN);
    drop(rig);
}

static void a_store_of_the_guest_to_settled_code_is_seen_at_its_fence(void **state)
{
    (void)state;
    struct rig *rig = new_rig();
    put_function(rig, CALLED, 5);
    rig->words = 0;
    put_li(rig, s0, RIG_RAM + CALLED);
    put_li(rig, t0, as(OP_addi, a0, zero, 9));
    put(rig, as(OP_sw, t0, s0, 0));
    put(rig, as(OP_fence_i, 0, 0, 0));
    put(rig, as(OP_jalr, ra, s0, 0));
    put(rig, as(OP_addi, a1, a0, 0));
    put_end(rig);
    rig_load(rig);
    assert_int_equal(jit_warm(rig->jit, RIG_RAM + CALLED), 1);
    jit_settle(rig->jit);
    assert_int_equal(run_once(rig), 9);
    drop(rig);
}

static void what_was_entered_since_the_begin_is_told_and_nothing_else(void **state)
{
    (void)state;
    struct rig *rig = new_rig();
    put_function(rig, CALLED, 1);
    put_function(rig, DEEPER, 2);
    put_calls(rig, DEEPER, AGAIN);
    assert_int_equal(run_once(rig), 2 * AGAIN);
    jit_hot_begin(rig->jit);
    put_calls(rig, CALLED, AGAIN);
    assert_int_equal(run_once(rig), AGAIN);
    pages_told = 0;
    jit_hot_list(rig->jit, note, NULL);
    const struct jit_hot_page *hot = page_told(RIG_RAM + CALLED);
    assert_non_null(hot);
    assert_int_equal(hot->entry[0] & 1, 1); /* at its first byte */
    assert_null(page_told(RIG_RAM + DEEPER));
    drop(rig);
}

/* Nobody walks a page table for it: neither A nor D appears, and no TLB knows more than before. */
static void making_code_ahead_leaves_no_trace_in_page_tables(void **state)
{
    (void)state;
    struct page_rig *p = test_calloc(1, sizeof(*p));
    page_rig_init_engine(p, RIG_JIT);
    if (!p->rig.jit) {
        rig_free(&p->rig);
        test_free(p);
        skip();
    }
    uint64_t va = UINT64_C(0x40000000);
    put_function(&p->rig, OTHER, 3);
    map(p, va, ram_at(OTHER), R | W | X, 0); /* neither A nor D */
    uint64_t before = peek(&p->rig, entry_at(p, va, 0));
    struct vcpu_stats stats;
    vcpu_stats(p->rig.vcpu[0], &stats);
    uint64_t refills = stats.tlb_refills;
    assert_int_equal(jit_warm(p->rig.jit, ram_at(OTHER)), 1);
    jit_settle(p->rig.jit);
    vcpu_stats(p->rig.vcpu[0], &stats);
    assert_int_equal(stats.tlb_refills, refills);
    assert_int_equal(peek(&p->rig, entry_at(p, va, 0)), before);
    assert_int_equal(before & (A | D), 0);
    rig_free(&p->rig);
    test_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(code_made_ahead_is_what_runs),
        cmocka_unit_test(code_of_bytes_that_changed_is_dropped_before_a_hart_runs),
        cmocka_unit_test(a_hart_that_finds_nothing_settled_compares_by_itself),
        cmocka_unit_test(a_store_of_the_guest_to_settled_code_is_seen_at_its_fence),
        cmocka_unit_test(what_was_entered_since_the_begin_is_told_and_nothing_else),
        cmocka_unit_test(making_code_ahead_leaves_no_trace_in_page_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
