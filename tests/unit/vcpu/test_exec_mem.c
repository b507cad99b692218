/* Virtual memory as a program sees it: modes, faults, fences, pages side by side that are not neighbours. */
#include "tests/unit/vcpu/page_rig.h"

static void neighbours_in_virtual_memory_need_not_be_in_physical(void **state)
{
    struct page_rig *p = *state;
    struct rig *rig = &p->rig;
    uint32_t code[3] = { as(OP_addi, a0, a0, 0x55), as(OP_addi, a0, a0, 0x100), as(OP_jalr, zero, ra, 0) };
    uint16_t half[6];

    map(p, 0x40000000, ram_at(0xa000), RWX, 0);
    map(p, 0x40001000, ram_at(0xd000), RWX, 0);
    memcpy(half, code, sizeof(half));
    assert_true(ram_load(rig->ram, ram_at(0xaffe), half, 2)); /* the first instruction lies across */
    assert_true(ram_load(rig->ram, ram_at(0xd000), half + 1, 10));
    put_li(rig, s0, 0x40000ffe);
    put(rig, as(OP_jalr, ra, s0, 0));
    put_li(rig, s1, 0x1122334455667788); /* and data: a store and a load across the same two */
    put(rig, as(OP_sd, s1, s0, -3));
    put(rig, as(OP_ld, a1, s0, -3));
    put_end(rig);
    struct hart *hart = rig_run(rig);

    assert_int_equal(hart->x[a0], 0x155);
    assert_int_equal(hart->x[a1], 0x1122334455667788);
    assert_int_equal(peek(rig, ram_at(0xd000)) & 0xffffff, 0x112233);
}

static void half_a_store_is_never_done(void **state)
{
    struct page_rig *p = *state;
    struct rig *rig = &p->rig;

    map(p, 0x40000000, ram_at(DATA), R | W | A | D, 0);
    map(p, 0x40001000, ram_at(OTHER), R | A, 0); /* not writable */
    poke(rig, ram_at(DATA + 0xff8), 0x7777777777777777);
    put_li(rig, s0, 0x40000ffc);
    put(rig, as(OP_addi, s1, zero, -1));
    put(rig, as(OP_sd, s1, s0, 0));
    put_end(rig);
    struct hart *hart = rig_run(rig);

    assert_int_equal(hart->mcause, CAUSE_STORE_PAGE);
    assert_int_equal(hart->mtval, 0x40001000);
    assert_int_equal(peek(rig, ram_at(DATA + 0xff8)), 0x7777777777777777);
}

static void an_instruction_half_of_which_is_missing_faults_at_the_missing_half(void **state)
{
    struct page_rig *p = *state;
    struct rig *rig = &p->rig;
    uint16_t half = 0x0513;

    map(p, 0x40000000, ram_at(0xa000), RWX, 0);
    assert_true(ram_load(rig->ram, ram_at(0xaffe), &half, 2));
    put_li(rig, s0, 0x40000ffe);
    put(rig, as(OP_jalr, ra, s0, 0));
    struct hart *hart = rig_run(rig);

    assert_int_equal(hart->mcause, CAUSE_FETCH_PAGE);
    assert_int_equal(hart->mepc, 0x40000ffe);
    assert_int_equal(hart->mtval, 0x40001000);
}

/* Reads 0x40000000 before and after its mapping changes and a fence. */
static void check_fence(struct page_rig *p, int level, bool by_address)
{
    struct rig *rig = &p->rig;
    uint64_t first = level ? RIG_RAM : ram_at(DATA), second = level ? RIG_RAM + (2 << 20) : ram_at(OTHER);
    uint64_t where = level ? DATA : 0;

    map(p, 0x40000000, first, R | A, level);
    poke(rig, first + where, 111);
    poke(rig, second + where, 222);
    uint64_t slot = entry_at(p, 0x40000000, level);
    for (uint64_t page = 0; page < 8; page++) /* the tables, for the program to write */
        map(p, 0x50000000 + (page << 12), ram_at(TABLES) + (page << 12), R | W | A | D, 0);
    put_li(rig, s0, 0x40000000 + where);
    put_li(rig, s1, 0x50000000 + slot - ram_at(TABLES));
    put_li(rig, s2, second >> 2 | R | A | 1);
    put(rig, as(OP_ld, a0, s0, 0));
    put(rig, as(OP_sd, s2, s1, 0));
    put(rig, as(OP_sfence_vma, 0, by_address ? s0 : zero, zero));
    put(rig, as(OP_ld, a1, s0, 0));
    put_end(rig);
    struct hart *hart = rig_run(rig);

    assert_int_equal(hart->x[a0], 111);
    assert_int_equal(hart->x[a1], 222);
}

static void a_fence_for_everything_ends_old_translations(void **state)
{
    check_fence(*state, 0, false);
}

static void a_fence_for_one_page_ends_that_page(void **state)
{
    check_fence(*state, 0, true);
}

static void a_fence_inside_a_large_page_ends_all_of_it(void **state)
{
    check_fence(*state, 1, true);
}

static void user_pages_open_and_close_with_sum(void **state)
{
    struct page_rig *p = *state;
    struct rig *rig = &p->rig;

    map(p, 0x40000000, ram_at(DATA), R | W | U | A | D, 0);
    poke(rig, ram_at(DATA), 99);
    put_li(rig, s0, 0x40000000);
    put_li(rig, s1, MSTATUS_SUM);
    put(rig, as(OP_csrrs, zero, s1, 0x100));
    put(rig, as(OP_ld, a0, s0, 0));
    put(rig, as(OP_sd, a0, s0, 8));
    put(rig, as(OP_csrrc, zero, s1, 0x100));
    put(rig, as(OP_ld, a1, s0, 0)); /* what SUM let in must not stay */
    put_end(rig);
    struct hart *hart = rig_run(rig);

    assert_int_equal(hart->x[a0], 99);
    assert_int_equal(peek(rig, ram_at(DATA + 8)), 99);
    assert_int_equal(hart->x[a1], 0);
    assert_int_equal(hart->mcause, CAUSE_LOAD_PAGE);
    assert_int_equal(hart->mtval, 0x40000000);
}

static void mprv_lends_machine_mode_the_eyes_of_another(void **state)
{
    struct page_rig *p = *state;
    struct rig *rig = &p->rig;
    struct hart *hart = rig_hart(rig);

    map(p, 0x40000000, ram_at(DATA), R | W | A | D, 0);
    poke(rig, ram_at(DATA), 1234);
    hart->priv = PRIV_M;
    hart->mstatus = (hart->mstatus & ~MSTATUS_MPP) | UINT64_C(1) << 11; /* MPP = S */
    put_li(rig, s0, 0x40000000);
    put_li(rig, s1, MSTATUS_MPRV);
    put(rig, as(OP_csrrs, zero, s1, 0x300));
    put(rig, as(OP_ld, a0, s0, 0));
    put(rig, as(OP_csrrc, zero, s1, 0x300));
    put(rig, as(OP_ld, a1, s0, 0)); /* physical again: nothing there */
    put_end(rig);
    hart = rig_run(rig);
    assert_int_equal(hart->x[a0], 1234);
    assert_int_equal(hart->mcause, CAUSE_LOAD_ACCESS);
}

static void one_page_of_code_runs_at_two_addresses(void **state)
{
    struct page_rig *p = *state;
    struct rig *rig = &p->rig;
    uint32_t code[4] = { as(OP_auipc, a0, 0, 0), as(OP_jal, zero, 0, 8), 0, as(OP_jalr, zero, ra, 0) };

    assert_true(ram_load(rig->ram, ram_at(0xa010), code, sizeof(code)));
    map(p, 0x40000000, ram_at(0xa000), RWX, 0);
    map(p, 0x48000000, ram_at(0xa000), RWX, 0);
    put_li(rig, s0, 0x40000010);
    put_li(rig, s1, 0x48000010);
    put(rig, as(OP_jalr, ra, s0, 0));
    put(rig, as(OP_addi, a1, a0, 0));
    put(rig, as(OP_jalr, ra, s1, 0));
    put_end(rig);
    struct hart *hart = rig_run(rig);

    assert_int_equal(hart->x[a1], 0x40000010);
    assert_int_equal(hart->x[a0], 0x48000010);
}

static void code_that_may_not_run_does_not(void **state)
{
    struct page_rig *p = *state;
    struct rig *rig = &p->rig;

    map(p, 0x40000000, ram_at(DATA), R | W | A | D, 0);
    put_li(rig, s0, 0x40000000);
    put(rig, as(OP_ld, a0, s0, 0)); /* readable, and now in the TLB */
    put(rig, as(OP_jalr, ra, s0, 0));
    struct hart *hart = rig_run(rig);

    assert_int_equal(hart->mcause, CAUSE_FETCH_PAGE);
    assert_int_equal(hart->mepc, 0x40000000);
}

static void a_locked_quarter_page_is_asked_about_each_time(void **state)
{
    struct page_rig *p = *state;
    struct rig *rig = &p->rig;
    struct hart *hart = rig_hart(rig);

    /* Entry 0: 64 bytes of the data page that nobody may touch; entry 1: the rest. */
    hart->pmpcfg[0] = 0x18;
    hart->pmpaddr[0] = ram_at(DATA + 0x40) >> 2 | 7;
    hart->pmpcfg[1] = 0x1f;
    hart->pmpaddr[1] = UINT64_MAX >> 10;
    put_li(rig, s0, ram_at(DATA));
    put(rig, as(OP_addi, s1, zero, 5));
    put(rig, as(OP_sd, s1, s0, 0x38));
    put(rig, as(OP_ld, a0, s0, 0x38));
    put(rig, as(OP_sd, s1, s0, 0x80));
    put(rig, as(OP_ld, a1, s0, 0x80));
    put(rig, as(OP_ld, a2, s0, 0x40));
    put_end(rig);
    hart = rig_run(rig);
    assert_int_equal(hart->x[a0], 5);
    assert_int_equal(hart->x[a1], 5);
    assert_int_equal(hart->mcause, CAUSE_LOAD_ACCESS);
    assert_int_equal(hart->mtval, ram_at(DATA + 0x40));
}

/* --- a watched word -------------------------------------------------------------------------------------- */

struct seen {
    struct rig *rig;
    uint64_t value[8];
    unsigned stores;
};

static void saw_store(void *opaque)
{
    struct seen *seen = opaque;

    if (seen->stores < 8)
        ram_read(seen->rig->ram, ram_at(DATA + 0x40), &seen->value[seen->stores], 8);
    seen->stores++;
}

static void every_store_to_a_watched_word_is_told_and_none_beside_it(void **state)
{
    struct page_rig *p = *state;
    struct rig *rig = &p->rig;
    struct seen seen = { .rig = rig };

    rig->bus.watch = (struct bus_watch){ ram_at(DATA + 0x40), saw_store, &seen };
    rig_hart(rig)->priv = PRIV_M;
    put_li(rig, s0, ram_at(DATA));
    put_li(rig, s1, 0x1100000022);
    put(rig, as(OP_ld, a0, s0, 0x40)); /* a read brings the page into the TLB: the stores are still seen */
    put(rig, as(OP_sd, s1, s0, 0x38));
    put(rig, as(OP_sd, s1, s0, 0x40));
    put(rig, as(OP_sw, zero, s0, 0x44));
    put(rig, as(OP_sb, zero, s0, 0x40));
    put(rig, as(OP_sd, s1, s0, 0x48));
    put_end(rig);
    rig_run(rig);

    assert_int_equal(seen.stores, 3);
    assert_int_equal(seen.value[0], 0x1100000022);
    assert_int_equal(seen.value[1], 0x22);
    assert_int_equal(seen.value[2], 0);
    assert_int_equal(peek(rig, ram_at(DATA + 0x48)), 0x1100000022);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_rig, drop_rig)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(neighbours_in_virtual_memory_need_not_be_in_physical),
        TEST(half_a_store_is_never_done),
        TEST(an_instruction_half_of_which_is_missing_faults_at_the_missing_half),
        TEST(a_fence_for_everything_ends_old_translations),
        TEST(a_fence_for_one_page_ends_that_page),
        TEST(a_fence_inside_a_large_page_ends_all_of_it),
        TEST(user_pages_open_and_close_with_sum),
        TEST(mprv_lends_machine_mode_the_eyes_of_another),
        TEST(one_page_of_code_runs_at_two_addresses),
        TEST(code_that_may_not_run_does_not),
        TEST(a_locked_quarter_page_is_asked_about_each_time),
        TEST(every_store_to_a_watched_word_is_told_and_none_beside_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
