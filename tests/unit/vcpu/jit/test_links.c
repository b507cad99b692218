/* Jumps from page to page are made direct, and lead where the mapping says of whoever runs them. */
#include "tests/unit/vcpu/page_rig.h"
#include "vcpu/jit/jit_priv.h"

enum {
    CALLS = 8, /* a turn; enough for everything to be translated and linked */
    FLUSH_TURNS = 12,
    ROUNDS = 1000,  /* of a loop */
    FILLERS = 1024, /* functions that fill the memory for code */
    FILLER_BYTES = 64,
    SATP = 0x180,
    INSN_RET = 0x00008067,
};

/* Physical pages. Those that FRONT's code leads to come twice, for other values. */
static const uint64_t PARAMETERS = RIG_RAM + DATA, FRONT = RIG_RAM + 0x200000, AHEAD = RIG_RAM + 0x201000,
                      BEHIND = RIG_RAM + 0x203000, TWICE = 0x10000, ROOT_2 = RIG_RAM + 0x180000,
                      FILL = RIG_RAM + 0x300000, SAME = RIG_RAM + 0x205000;
/* Where FRONT is, with BEHIND in front of it and AHEAD behind. */
static const uint64_t AT = 0x40001000, LOOP_AT = 0x50001000, SAME_AT = 0x60001000;

/* What FRONT's three functions return, when the other pages are of the first kind; of the second, 1000 more. */
enum { JUMP = 11, CROSSING = 22, BACK = 33, SECOND = 1000 };
enum { FRONT_JUMP = 0, FRONT_BACK = 8, FRONT_CROSSING = 4090, AHEAD_JUMP = 64, BEHIND_BACK = 32 };

enum fence { FENCE_ADDRESS = 1, FENCE_ALL = 2, FENCE_CODE = 4, FILL_CODE = 8 };

static struct page_rig p;
static unsigned turns;

static void poke_insn(uint64_t gpa, uint32_t insn)
{
    assert_true(ram_load(p.rig.ram, gpa, &insn, 4));
}

static void poke_half(uint64_t gpa, uint32_t half)
{
    uint16_t low = (uint16_t)half;

    assert_true(ram_load(p.rig.ram, gpa, &low, 2));
}

/* --- the guest ------------------------------------------------------------------------------------------- */

static void put_if(unsigned flag, unsigned instructions)
{
    put(&p.rig, as(OP_andi, t1, s4, flag));
    put(&p.rig, as(OP_beq, t1, zero, 4 * (instructions + 1)));
}

static void put_call(uint64_t va, unsigned result_at)
{
    put_li(&p.rig, a2, va);
    put(&p.rig, as(OP_addi, a0, zero, 0));
    put(&p.rig, as(OP_jalr, ra, a2, 0));
    put(&p.rig, as(OP_sd, a0, s1, result_at));
}

static void put_fill(void)
{
    put_li(&p.rig, a2, FILL);
    put_li(&p.rig, a3, FILL + FILLERS * FILLER_BYTES);
    uint64_t call = here(&p.rig);
    put(&p.rig, as(OP_jalr, ra, a2, 0));
    put(&p.rig, as(OP_addi, a2, a2, FILLER_BYTES));
    put(&p.rig, as(OP_bne, a2, a3, (int64_t)(call - here(&p.rig))));
}

static void put_turns(void)
{
    struct rig *rig = &p.rig;

    put_li(rig, s1, PARAMETERS);
    put_li(rig, s9, RIG_ODDS);
    put_li(rig, s10, RIG_END);
    put(rig, as(OP_addi, s6, zero, 0));
    uint64_t turn = here(rig);
    put(rig, as(OP_lw, t0, s9, 0)); /* lets others run, and is a safe point */
    put(rig, as(OP_ld, t0, s1, 0));
    put(rig, as(OP_beq, t0, s6, -8));
    put(rig, as(OP_addi, s6, t0, 0));
    put(rig, as(OP_ld, s3, s1, 8));
    put(rig, as(OP_ld, s4, s1, 16));
    put(rig, as(OP_ld, t2, s1, 24));
    put(rig, as(OP_csrrw, zero, t2, SATP));
    put_if(FENCE_ADDRESS, 1);
    put(rig, as(OP_sfence_vma, 0, s3, zero));
    put_if(FENCE_ALL, 1);
    put(rig, as(OP_sfence_vma, 0, zero, zero));
    put_if(FENCE_CODE, 1);
    put(rig, as(OP_fence_i, 0, 0, 0));
    put(rig, as(OP_addi, s5, zero, CALLS));
    uint64_t again = here(rig);
    put_call(AT + FRONT_JUMP, 40);
    put_call(AT + FRONT_CROSSING, 48);
    put_call(AT + FRONT_BACK, 56);
    put_call(SAME_AT, 64);
    put(rig, as(OP_andi, t1, s4, FILL_CODE));
    uint64_t branch = rig->words;
    put(rig, 0);
    put_fill();
    rig->word[branch] = as(OP_beq, t1, zero, 4 * (int64_t)(rig->words - branch));
    put(rig, as(OP_addi, s5, s5, -1));
    put(rig, as(OP_bne, s5, zero, (int64_t)(again - here(rig))));
    put(rig, as(OP_sw, zero, s10, 0));
    put(rig, as(OP_jal, zero, 0, (int64_t)(turn - here(rig))));
}

static void load_others(uint64_t more, unsigned values)
{
    uint32_t crossing = as(OP_addi, a0, zero, CROSSING + values);

    poke_half(AHEAD + more, crossing >> 16);
    poke_insn(AHEAD + more + 2, INSN_RET);
    poke_insn(AHEAD + more + AHEAD_JUMP, as(OP_addi, a0, zero, JUMP + values));
    poke_insn(AHEAD + more + AHEAD_JUMP + 4, INSN_RET);
    poke_insn(BEHIND + more + BEHIND_BACK, as(OP_addi, a0, zero, BACK + values));
    poke_insn(BEHIND + more + BEHIND_BACK + 4, INSN_RET);
}

static void load_functions(void)
{
    poke_insn(FRONT + FRONT_JUMP, as(OP_jal, zero, 0, PAGE_BYTES + AHEAD_JUMP - FRONT_JUMP));
    poke_insn(FRONT + FRONT_BACK, as(OP_jal, zero, 0, -PAGE_BYTES + BEHIND_BACK - FRONT_BACK));
    poke_insn(FRONT + FRONT_CROSSING, as(OP_addi, a1, a1, 1));
    poke_half(FRONT + PAGE_BYTES - 2, as(OP_addi, a0, zero, CROSSING));
    load_others(0, 0);
    load_others(TWICE, SECOND);
    /* once through the same page in four places */
    poke_insn(SAME, as(OP_addi, a0, a0, 1));
    poke_insn(SAME + 4, as(OP_jal, zero, 0, PAGE_BYTES - 4));
    poke_insn(SAME + PAGE_BYTES, INSN_RET);
    for (unsigned i = 0; i < FILLERS; i++) {
        poke_insn(FILL + i * FILLER_BYTES, as(OP_ld, t0, s1, 128));
        poke_insn(FILL + i * FILLER_BYTES + 4, as(OP_sd, t0, s1, 128));
        poke_insn(FILL + i * FILLER_BYTES + 8, INSN_RET);
    }
}

static void map_functions(uint64_t root, uint64_t more)
{
    map_in(&p, root, AT, FRONT, RWX, 0);
    map_in(&p, root, AT + PAGE_BYTES, AHEAD + more, RWX, 0);
    map_in(&p, root, AT - PAGE_BYTES, BEHIND + more, RWX, 0);
    for (unsigned i = 0; i < 4; i++)
        map_in(&p, root, SAME_AT + i * PAGE_BYTES, SAME, RWX, 0);
    map_in(&p, root, SAME_AT + 4 * PAGE_BYTES, SAME + PAGE_BYTES, RWX, 0);
}

static void map_rest(uint64_t root)
{
    for (uint64_t page = 0; page < 0x10; page++)
        map_in(&p, root, ram_at(page << 12), ram_at(page << 12), RWX, 0);
    for (uint64_t page = 0; page < FILLERS * FILLER_BYTES / PAGE_BYTES; page++)
        map_in(&p, root, FILL + (page << 12), FILL + (page << 12), RWX, 0);
    map_in(&p, root, RIG_END, RIG_END, R | W | A | D, 0);
    map_in(&p, root, RIG_ODDS, RIG_ODDS, R | W | A | D, 0);
}

static uint64_t satp_of(uint64_t root)
{
    return UINT64_C(8) << 60 | (root == ROOT_2 ? UINT64_C(2) << 44 : 0) | root >> 12;
}

/* --- turns ----------------------------------------------------------------------------------------------- */

static int begin_with(enum rig_engine engine, bool numbers)
{
    memset(&p, 0, sizeof(p));
    turns = 0;
    page_rig_init_engine(&p, engine);
    put_turns();
    rig_load(&p.rig);
    load_functions();
    map_rest(ram_at(TABLES));
    map_functions(ram_at(TABLES), 0);
    map_rest(ROOT_2);
    map_functions(ROOT_2, TWICE);
    if (p.rig.jit && !numbers)
        p.rig.jit->code_pages = TLB_CODE_PAGES;
    rig_resume(&p.rig);
    return 0;
}

static int begin(void **state)
{
    (void)state;
    return begin_with(RIG_JIT, true);
}

static int begin_without_numbers(void **state)
{
    (void)state;
    return begin_with(RIG_JIT, false);
}

static int begin_small(void **state)
{
    (void)state;
    return begin_with(RIG_JIT_SMALL, true);
}

static int begin_lockstep(void **state)
{
    (void)state;
    return begin_with(RIG_LOCKSTEP, true);
}

static int end(void **state)
{
    (void)state;
    rig_pause(&p.rig);
    rig_free(&p.rig);
    return 0;
}

static void turn(uint64_t root, unsigned fences, uint64_t va)
{
    poke(&p.rig, PARAMETERS + 8, va);
    poke(&p.rig, PARAMETERS + 16, fences);
    poke(&p.rig, PARAMETERS + 24, satp_of(root));
    poke(&p.rig, PARAMETERS, ++turns);
    rig_wait_ends(&p.rig, turns);
}

static void assert_results(unsigned ahead, unsigned behind)
{
    assert_int_equal(peek(&p.rig, PARAMETERS + 40), JUMP + ahead);
    assert_int_equal(peek(&p.rig, PARAMETERS + 48), CROSSING + ahead);
    assert_int_equal(peek(&p.rig, PARAMETERS + 56), BACK + behind);
    assert_int_equal(peek(&p.rig, PARAMETERS + 64), 4);
}

/* --- who maps -------------------------------------------------------------------------------------------- */

static uint64_t crossing_links(void)
{
    struct jit_stats stats = { .crossing = UINT64_MAX }; /* no code generator here */

    if (p.rig.jit)
        jit_stats(p.rig.jit, &stats);
    return stats.crossing;
}

static void jumps_to_other_pages_are_linked(void **state)
{
    (void)state;
    turn(ram_at(TABLES), 0, 0);
    turn(ram_at(TABLES), 0, 0);
    assert_results(0, 0);
    uint64_t links = crossing_links();
    assert_in_range(links, 3, UINT64_MAX);
    turn(ram_at(TABLES), 0, 0);
    assert_int_equal(crossing_links(), links);
}

static void pages_mapped_anew_are_found_after_a_fence(unsigned fences)
{
    uint64_t root = ram_at(TABLES);

    for (unsigned i = 0; i < 4; i++) {
        uint64_t ahead = i & 1 ? 0 : TWICE, behind = i & 2 ? 0 : TWICE;

        turn(root, 0, 0);
        map(&p, AT + PAGE_BYTES, AHEAD + ahead, RWX, 0);
        turn(root, fences, AT + PAGE_BYTES);
        map(&p, AT - PAGE_BYTES, BEHIND + behind, RWX, 0);
        turn(root, fences, AT - PAGE_BYTES);
        assert_results(ahead ? SECOND : 0, behind ? SECOND : 0);
    }
}

static void a_fence_for_the_page_is_heard(void **state)
{
    (void)state;
    pages_mapped_anew_are_found_after_a_fence(FENCE_ADDRESS);
}

static void a_fence_for_everything_is_heard(void **state)
{
    (void)state;
    pages_mapped_anew_are_found_after_a_fence(FENCE_ALL);
}

static void address_spaces_have_neighbours_of_their_own(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        turn(ram_at(TABLES), 0, 0);
        assert_results(0, 0);
        turn(ROOT_2, 0, 0);
        assert_results(SECOND, SECOND);
    }
}

static void code_that_changes_is_found_where_links_lead(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        turn(ram_at(TABLES), 0, 0);
        load_others(0, 100 * i);
        turn(ram_at(TABLES), FENCE_CODE, 0);
        assert_results(100 * i, 100 * i);
    }
}

/* Numbers of pages are given anew; a link asks for the new one. */
static void links_of_code_that_is_gone_mislead_nobody(void **state)
{
    struct jit_stats stats = { .flushes = UINT64_MAX };

    (void)state;
    for (unsigned i = 0; i < FLUSH_TURNS; i++) {
        turn(ram_at(TABLES), FILL_CODE, 0);
        turn(ram_at(TABLES), 0, 0);
        assert_results(0, 0);
        turn(ROOT_2, 0, 0);
        assert_results(SECOND, SECOND);
    }
    if (p.rig.jit)
        jit_stats(p.rig.jit, &stats);
    assert_in_range(stats.flushes, 2, UINT64_MAX);
}

/* --- being stopped --------------------------------------------------------------------------------------- */

/* Around a loop over two pages, by `ahead` and `back`, for ever. */
static void stop_in_loop(uint64_t first, uint32_t ahead, uint64_t second, uint32_t back)
{
    memset(&p, 0, sizeof(p));
    page_rig_init(&p);
    map(&p, LOOP_AT, FRONT, RWX, 0);
    map(&p, LOOP_AT + PAGE_BYTES, FRONT + PAGE_BYTES, RWX, 0);
    map(&p, RIG_ODDS, RIG_ODDS, R | W | A | D, 0);
    poke_insn(FRONT + first, as(OP_amoadd_d, zero, s1, t0));
    poke_insn(FRONT + first + 4, ahead);
    poke_insn(FRONT + second, back);
    rig_hart(&p.rig)->pc = LOOP_AT + first;
    rig_hart(&p.rig)->x[s1] = PARAMETERS;
    rig_hart(&p.rig)->x[t0] = 1;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t before = peek(&p.rig, PARAMETERS);

        rig_resume(&p.rig);
        while (peek(&p.rig, PARAMETERS) < before + ROUNDS)
            sched_yield();
        rig_pause(&p.rig);
        assert_in_range(rig_hart(&p.rig)->pc, LOOP_AT, LOOP_AT + 2 * PAGE_BYTES);
    }
    rig_free(&p.rig);
}

static void a_hart_can_be_stopped_in_a_loop_of_jumps(void **state)
{
    (void)state;
    stop_in_loop(0, as(OP_jal, zero, 0, PAGE_BYTES - 4), PAGE_BYTES, as(OP_jal, zero, 0, -PAGE_BYTES));
}

static void a_hart_can_be_stopped_in_a_loop_of_branches(void **state)
{
    (void)state;
    stop_in_loop(PAGE_BYTES - 8, as(OP_beq, zero, zero, 8), PAGE_BYTES + 4, as(OP_beq, zero, zero, -12));
}

static void a_hart_can_be_stopped_in_a_loop_that_crosses(void **state)
{
    (void)state;
    stop_in_loop(PAGE_BYTES - 6, as(OP_addi, a1, a1, 1), PAGE_BYTES + 2, as(OP_bne, t0, zero, -8));
}

#define TURNS_TEST(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TURNS_TEST(jumps_to_other_pages_are_linked),
        TURNS_TEST(a_fence_for_the_page_is_heard),
        TURNS_TEST(a_fence_for_everything_is_heard),
        TURNS_TEST(address_spaces_have_neighbours_of_their_own),
        TURNS_TEST(code_that_changes_is_found_where_links_lead),
        cmocka_unit_test_setup_teardown(jumps_to_other_pages_are_linked, begin_without_numbers, end),
        cmocka_unit_test_setup_teardown(address_spaces_have_neighbours_of_their_own, begin_without_numbers, end),
        cmocka_unit_test_setup_teardown(address_spaces_have_neighbours_of_their_own, begin_lockstep, end),
        cmocka_unit_test_setup_teardown(code_that_changes_is_found_where_links_lead, begin_lockstep, end),
        cmocka_unit_test_setup_teardown(links_of_code_that_is_gone_mislead_nobody, begin_small, end),
        cmocka_unit_test(a_hart_can_be_stopped_in_a_loop_of_jumps),
        cmocka_unit_test(a_hart_can_be_stopped_in_a_loop_of_branches),
        cmocka_unit_test(a_hart_can_be_stopped_in_a_loop_that_crosses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
