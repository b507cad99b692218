/* What a fence does to one TLB, the parts that generated code fills included. Whole machines: vcpu/test_translate.c. */
#include "tests/unit/test.h"

#include "memory/tlb.h"

static struct tlb tlb;
static const int CODE;
static const uint64_t PAGE = 0x7f0000403000, NEXT = 0x7f0000404000, KERNEL = 0xffffffff80002000;

static int make(void **state)
{
    (void)state;
    memset(&tlb, 0, sizeof(tlb));
    tlb_init(&tlb);
    return 0;
}

static void add(uint64_t va, struct tlb_leaf leaf)
{
    unsigned i = tlb_index(va);

    tlb.read[i] = tlb.write[i] = (struct tlb_entry){ .tag = va & TLB_PAGE_MASK };
    tlb.read_info[i] = tlb.write_info[i] = (struct tlb_info){ .leaf_bits = leaf.bits, .leaf_global = leaf.global };
    tlb_note_fill(&tlb, i);
    tlb_note_leaf(&tlb, va, leaf, false);
}

static void add_code(uint64_t va, struct tlb_leaf leaf)
{
    tlb.fetch[tlb_fetch_index(va)] = (struct tlb_fetch){ .tag = va & TLB_PAGE_MASK, .leaf = leaf };
    tlb.fetch_fills++;
    tlb_note_leaf(&tlb, va, leaf, true);
}

static unsigned number_of(uint64_t va)
{
    return (va >> TLB_PAGE_SHIFT) % 61;
}

static void add_jump(uint64_t va)
{
    tlb_jump_add(&tlb, va, &CODE);
    tlb_code_page_add(&tlb, number_of(va), va);
}

static bool has(uint64_t va)
{
    bool read = tlb_hits(&tlb.read[tlb_index(va)], va, 8), write = tlb_hits(&tlb.write[tlb_index(va)], va, 8);

    assert_int_equal(read, write);
    return read;
}

static bool has_jump(uint64_t va)
{
    bool jump = tlb.jump[tlb_jump_index(va)].va == va;

    assert_int_equal(tlb.code_page[number_of(va)] == (va & TLB_PAGE_MASK) + 1, jump);
    return jump;
}

static bool fence(uint64_t va, bool keep_global)
{
    return tlb_fence(&tlb, &(struct tlb_fence){ .has_va = va != 0, .va = va, .keep_global = keep_global });
}

static const struct tlb_leaf SMALL = { .bits = 12 }, BIG = { .bits = 21 }, GLOBAL = { .bits = 21, .global = true };

static void an_initialised_tlb_hits_nothing(void **state)
{
    (void)state;
    for (uint64_t page = 0; page < TLB_ENTRIES; page++) {
        assert_false(has(page << TLB_PAGE_SHIFT));
        assert_false(tlb_covers(&tlb.read[page], page << TLB_PAGE_SHIFT));
    }
    for (unsigned i = 0; i < TLB_NEAR; i++)
        assert_false(tlb_hits(&tlb.near_read[i], 0, 1) || tlb_hits(&tlb.near_write[i], 0, 1));
    assert_false(has_jump(0));
    assert_true(tlb.fetch[0].tag == TLB_INVALID);
}

static void a_fence_for_a_page_drops_the_jumps_into_it_and_no_others(void **state)
{
    (void)state;
    add_code(PAGE, SMALL);
    add_jump(PAGE + 0x10);
    add_jump(PAGE + 0xffe);
    add_jump(NEXT + 0x20);
    assert_true(fence(PAGE + 0x800, false));
    assert_false(has_jump(PAGE + 0x10));
    assert_false(has_jump(PAGE + 0xffe));
    assert_true(has_jump(NEXT + 0x20));
    assert_false(fence(PAGE, false)); /* known to be gone */
}

static void a_fence_for_data_asks_nobody_to_forget_jumps(void **state)
{
    (void)state;
    add(PAGE, SMALL);
    add_jump(NEXT);
    assert_false(fence(PAGE, false));
    assert_false(has(PAGE));
    assert_true(has_jump(NEXT));
}

static void near_slots_go_with_the_page_even_when_its_entry_went_before(void **state)
{
    (void)state;
    tlb.near_read[3] = tlb.near_write[5] = (struct tlb_entry){ .tag = PAGE };
    tlb.near_read[4] = (struct tlb_entry){ .tag = NEXT };
    fence(PAGE + 8, false);
    assert_true(tlb.near_read[3].tag == TLB_INVALID && tlb.near_write[5].tag == TLB_INVALID);
    assert_true(tlb.near_read[4].tag == NEXT);
}

static void a_fence_in_a_large_leaf_drops_jumps_and_near_slots_of_all_of_it(void **state)
{
    (void)state;
    add_code(PAGE, BIG);
    add(PAGE, BIG);
    add_jump(NEXT + 4);
    tlb.near_write[0] = (struct tlb_entry){ .tag = NEXT };
    assert_true(fence(PAGE & ~UINT64_C(0x1fffff), false));
    assert_false(has(PAGE));
    assert_false(has_jump(NEXT + 4));
    assert_true(tlb.near_write[0].tag == TLB_INVALID);
    assert_true(tlb.fetch[tlb_fetch_index(PAGE)].tag == TLB_INVALID);
}

static void global_code_and_its_jumps_outlive_a_fence_for_an_asid(void **state)
{
    (void)state;
    add_code(KERNEL, GLOBAL);
    add(KERNEL, GLOBAL);
    add_jump(KERNEL + 6);
    add(PAGE, SMALL);
    assert_false(fence(0, true));
    assert_false(has(PAGE));
    assert_true(has(KERNEL));
    assert_true(has_jump(KERNEL + 6));
    add_code(PAGE, SMALL); /* one jump that is not global, and none can be trusted */
    add_jump(PAGE);
    assert_true(fence(0, true));
    assert_false(has_jump(PAGE));
    assert_true(has(KERNEL));
    assert_true(fence(0, false));
    assert_false(has(KERNEL));
}

/* However many fills there were: their list overflows, and a fence then looks at every slot. */
static void many_entries_are_dropped_as_precisely_as_few(void **state)
{
    (void)state;
    for (uint64_t page = 0; page < TLB_ENTRIES; page++)
        add(0x40000000 + (page << TLB_PAGE_SHIFT), page < 512 ? BIG : SMALL);
    fence(0x40000000 + 0x1ff000, false);
    for (uint64_t page = 0; page < TLB_ENTRIES; page++)
        assert_int_equal(has(0x40000000 + (page << TLB_PAGE_SHIFT)), page >= 512);
    tlb_flush(&tlb);
    for (uint64_t page = 0; page < TLB_ENTRIES; page++)
        assert_false(has(0x40000000 + (page << TLB_PAGE_SHIFT)));
}

static void only_what_is_global_is_inherited(void **state)
{
    static struct tlb heir;
    const struct tlb_leaf global = { .bits = 12, .global = true }, own = { .bits = 12 };

    (void)state;
    tlb_init(&heir);
    heir.read[tlb_index(0x5000)].tag = 0x5000; /* what it had of its own is gone */
    tlb_note_fill(&heir, tlb_index(0x5000));
    add(0x1000, own);
    add(0x2000, global);
    add_code(0x3000, global);
    add_jump(0x3000);
    tlb_inherit(&heir, &tlb);
    assert_false(tlb_hits(&heir.read[tlb_index(0x1000)], 0x1000, 8));
    assert_false(tlb_hits(&heir.write[tlb_index(0x1000)], 0x1000, 8));
    assert_false(tlb_hits(&heir.read[tlb_index(0x5000)], 0x5000, 8));
    assert_true(tlb_hits(&heir.read[tlb_index(0x2000)], 0x2000, 8));
    assert_true(tlb_hits(&heir.write[tlb_index(0x2000)], 0x2000, 8));
    assert_ptr_equal(tlb_jump_find(&heir, 0x3000), &CODE);
    assert_int_equal(heir.code_page[number_of(0x3000)], 0x3001);
    add_code(0x4000, own);
    add_jump(0x4000);
    tlb_inherit(&heir, &tlb); /* a jump may lead into the page that is not global */
    assert_null(tlb_jump_find(&heir, 0x3000));
    assert_null(tlb_jump_find(&heir, 0x4000));
    assert_int_equal(heir.code_page[number_of(0x3000)], 0);
    assert_int_equal(heir.code_page[number_of(0x4000)], 0);
    for (uint64_t page = 0; page < TLB_FILLS_MAX + 10; page++) /* more than the list of fills holds */
        add(0x40000000 + (page << TLB_PAGE_SHIFT), page % 2 ? own : global);
    tlb_inherit(&heir, &tlb);
    for (uint64_t page = 0; page < TLB_FILLS_MAX + 10; page++) {
        uint64_t va = 0x40000000 + (page << TLB_PAGE_SHIFT);
        assert_int_equal(tlb_hits(&heir.write[tlb_index(va)], va, 8), page % 2 == 0);
    }
    tlb_flush(&heir);
    assert_false(tlb_hits(&heir.read[tlb_index(0x40000000)], 0x40000000, 8));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(an_initialised_tlb_hits_nothing, make),
        cmocka_unit_test_setup(a_fence_for_a_page_drops_the_jumps_into_it_and_no_others, make),
        cmocka_unit_test_setup(a_fence_for_data_asks_nobody_to_forget_jumps, make),
        cmocka_unit_test_setup(near_slots_go_with_the_page_even_when_its_entry_went_before, make),
        cmocka_unit_test_setup(a_fence_in_a_large_leaf_drops_jumps_and_near_slots_of_all_of_it, make),
        cmocka_unit_test_setup(global_code_and_its_jumps_outlive_a_fence_for_an_asid, make),
        cmocka_unit_test_setup(only_what_is_global_is_inherited, make),
        cmocka_unit_test_setup(many_entries_are_dropped_as_precisely_as_few, make),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
