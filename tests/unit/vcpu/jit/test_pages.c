/* Code whose page is known to be unwritten is not compared at fence.i: no store may get past that proof, whoever makes it
 * and whatever permission he has from before. */
#include "memory/tlb.h"
#include "tests/unit/vcpu/rig.h"

enum {
    FUNCTIONS = 40, /* one a page, more than it takes for a revocation */
    FUNCTIONS_AT = 0x100000,
    PARAMETERS = 0x10000, /* of a turn: its number, the stores, what to call; and its result */
    PAGE = 4096,
    WARM_TURNS = 8,  /* enough for every function to be translated */
    PROOF_TURNS = 8, /* enough for a batch that waits and the one behind it */
    INSN_RET = 0x00008067,
};

_Static_assert((RIG_RAM + FUNCTIONS_AT - RIG_END) / PAGE % TLB_ENTRIES == 0, "a slot for both");
static const uint64_t AT = RIG_RAM + PARAMETERS;
static struct rig *rig;
static unsigned turns;

static uint64_t function_at(unsigned i)
{
    return RIG_RAM + FUNCTIONS_AT + (uint64_t)i * PAGE;
}

static uint32_t returns(unsigned value)
{
    return as(OP_addi, a0, zero, value);
}

/* s2 to s3: the pages to store to, t2: the instruction, a6: what it changes by from page to page. Each is stored twice, by
 * an access of its own: the second has a permission to store without a mark, and keeps it where generated code looks
 * first (s0 is such a base). */
static void put_stores(void)
{
    uint64_t loop = here(rig);
    put(rig, as(OP_beq, s2, s3, 4 * 8));
    put(rig, as(OP_addi, s0, s2, 0));
    put(rig, as(OP_sw, t2, s0, 0));
    put(rig, as(OP_mul, t5, t5, t5)); /* ends what one check is enough for */
    put(rig, as(OP_sw, t2, s0, 0));
    put(rig, as(OP_add, t2, t2, a6));
    put(rig, as(OP_add, s2, s2, a7));
    put(rig, as(OP_jal, zero, 0, (int64_t)(loop - here(rig))));
}

/* s4 to s5: the functions to call; s7: the sum of what they return. */
static void put_calls(void)
{
    put(rig, as(OP_addi, s7, zero, 0));
    uint64_t loop = here(rig);
    put(rig, as(OP_beq, s4, s5, 4 * 5));
    put(rig, as(OP_jalr, ra, s4, 0));
    put(rig, as(OP_add, s7, s7, a0));
    put(rig, as(OP_add, s4, s4, a7));
    put(rig, as(OP_jal, zero, 0, (int64_t)(loop - here(rig))));
}

static void put_turns(void)
{
    put_li(rig, s1, AT);
    put_li(rig, s9, RIG_ODDS);
    put_li(rig, s10, RIG_END);
    put_li(rig, a7, PAGE);
    put(rig, as(OP_addi, s6, zero, 0));
    uint64_t turn = here(rig);
    put(rig, as(OP_lw, t0, s9, 0)); /* lets others run, and is a safe point */
    put(rig, as(OP_ld, t0, s1, 0));
    put(rig, as(OP_beq, t0, s6, -8));
    put(rig, as(OP_addi, s6, t0, 0));
    put(rig, as(OP_ld, s2, s1, 8));
    put(rig, as(OP_ld, s3, s1, 16));
    put(rig, as(OP_ld, t2, s1, 24));
    put(rig, as(OP_ld, a6, s1, 32));
    put(rig, as(OP_ld, s4, s1, 40));
    put(rig, as(OP_ld, s5, s1, 48));
    put_stores();
    put(rig, as(OP_fence_i, 0, 0, 0));
    put_calls();
    put(rig, as(OP_sd, s7, s1, 56));
    put(rig, as(OP_sw, zero, s10, 0));
    put(rig, as(OP_jal, zero, 0, (int64_t)(turn - here(rig))));
}

/* --- turns ------------------------------------------------------------------------------------------------ */

struct stores {
    unsigned first, count;
    uint32_t insn, step;
};

/* The hart stores, does its fence, and calls `count` functions: what do they return together? */
static uint64_t turn(struct stores stores, unsigned first, unsigned count)
{
    poke(rig, AT + 8, function_at(stores.first));
    poke(rig, AT + 16, function_at(stores.first + stores.count));
    poke(rig, AT + 24, stores.insn);
    poke(rig, AT + 32, stores.step);
    poke(rig, AT + 40, function_at(first));
    poke(rig, AT + 48, function_at(first + count));
    poke(rig, AT, ++turns);
    rig_wait_ends(rig, turns);
    return peek(rig, AT + 56);
}

static uint64_t call(unsigned i)
{
    return turn((struct stores){ 0 }, i, 1);
}

static uint64_t store_and_call(unsigned i, unsigned value)
{
    return turn((struct stores){ .first = i, .count = 1, .insn = returns(value) }, i, 1);
}

static uint64_t pages_compared(void)
{
    struct jit_stats stats = { 0 }; /* no code generator here */
    if (rig->jit)
        jit_stats(rig->jit, &stats);
    return stats.compared;
}

static void some_turns(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(turn((struct stores){ 0 }, 0, FUNCTIONS), FUNCTIONS * (FUNCTIONS - 1) / 2);
}

/* The same again: all pages are marked, and are proven unwritten only by a revocation that begins now. */
static void store_all(void)
{
    turn((struct stores){ .count = FUNCTIONS, .insn = returns(0), .step = 1 << 20 }, 0, FUNCTIONS);
}

/* Every function was stored, with the permission to go on, and translated. */
static int begin(void **state)
{
    (void)state;
    rig = test_calloc(1, sizeof(*rig));
    turns = 0;
    rig_new_engine(rig, 1, RIG_JIT);
    put_turns();
    rig_load(rig);
    for (unsigned i = 0; i < FUNCTIONS; i++)
        poke(rig, function_at(i), (uint64_t)INSN_RET << 32);
    rig_resume(rig);
    store_all();
    some_turns(WARM_TURNS);
    store_all();
    return 0;
}

static int end(void **state)
{
    (void)state;
    rig_pause(rig);
    rig_free(rig);
    test_free(rig);
    return 0;
}

/* Until nothing of theirs is compared any more: the pages are known to be unwritten. The program's own may be young. */
static void await_proof(void)
{
    some_turns(PROOF_TURNS);
    uint64_t before = pages_compared();
    some_turns(1);
    assert_in_range(pages_compared() - before, 0, 2);
}

/* --- who stores ------------------------------------------------------------------------------------------- */

static void a_hart_that_stored_there_before_is_seen(void **state)
{
    (void)state;
    await_proof();
    assert_int_equal(store_and_call(3, 1003), 1003);
}

/* RIG_END has the TLB slot of function 0's page, and is stored to at the end of each turn. */
static void a_hart_that_comes_there_anew_is_seen(void **state)
{
    (void)state;
    await_proof();
    assert_int_equal(store_and_call(0, 1000), 1000);
}

/* Its page is the last that generated code stored to: no way to it is shorter. */
static void a_hart_that_stored_there_last_is_seen(void **state)
{
    (void)state;
    await_proof();
    assert_int_equal(store_and_call(FUNCTIONS - 1, 1004), 1004);
}

/* The first store marks, and the next ones need not. */
static void a_hart_that_goes_on_storing_is_seen_each_time(void **state)
{
    (void)state;
    await_proof();
    for (unsigned i = 0; i < 2 * WARM_TURNS; i++) {
        assert_int_equal(store_and_call(5, 500 + i), 500 + i);
        for (unsigned j = 0; j < WARM_TURNS; j++) /* translated again */
            assert_int_equal(call(5), 500 + i);
    }
}

static void a_device_is_seen(void **state)
{
    (void)state;
    await_proof();
    poke(rig, function_at(7), (uint64_t)INSN_RET << 32 | returns(1007));
    assert_int_equal(call(7), 1007);
}

/* A hart that may store without a mark, and does not come to its safe point for long: nothing is proven. */
static void a_hart_that_does_not_answer_is_seen(void **state)
{
    (void)state;
    struct dirty_writer slow = { 0 };
    dirty_writer_register(rig->ram->dirty, &slow);
    store_all();
    some_turns(PROOF_TURNS);
    uint32_t *code = (uint32_t *)(void *)ram_ptr(rig->ram, function_at(9), 4);
    __atomic_store_n(code, returns(1009), __ATOMIC_RELAXED);
    uint64_t first = call(9);
    dirty_writer_ack(rig->ram->dirty, &slow, dirty_writer_poll(rig->ram->dirty, &slow));
    __atomic_store_n(code, returns(9), __ATOMIC_RELAXED); /* and was not, so this is its old code */
    dirty_mark(rig->ram->dirty, ram_page_of(&rig->ram->block[0], function_at(9)));
    uint64_t second = call(9);
    dirty_writer_unregister(rig->ram->dirty, &slow);
    assert_int_equal(first, 1009);
    assert_int_equal(second, 9);
}

#define PAGES_TEST(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PAGES_TEST(a_hart_that_stored_there_before_is_seen),
        PAGES_TEST(a_hart_that_stored_there_last_is_seen),
        PAGES_TEST(a_hart_that_comes_there_anew_is_seen),
        PAGES_TEST(a_hart_that_goes_on_storing_is_seen_each_time),
        PAGES_TEST(a_device_is_seen),
        PAGES_TEST(a_hart_that_does_not_answer_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
