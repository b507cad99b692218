/* Page tables built in a small RAM, and what the ISA says about each of their bits. */
#include "tests/unit/test.h"

#include <string.h>

#include "memory/mmu.h"

enum {
    V = 1,
    R = 2,
    W = 4,
    X = 8,
    U = 16,
    G = 32,
    A = 64,
    D = 128,
    USER = 0,
    SUPER = 1,
    MACHINE = 3,
};
#define RAM_AT  UINT64_C(0x80000000)
#define ROOT    (RAM_AT + 0x10000)
#define TABLES  (RAM_AT + 0x20000) /* lower tables are taken from here */
#define TARGET  (RAM_AT + 0x100000)
#define ROM_AT  UINT64_C(0x1000)
#define PBMT(n) ((uint64_t)(n) << 61)
#define N       (UINT64_C(1) << 63)
#define KIB     UINT64_C(1024)
#define MIB     (KIB * KIB)
#define GIB     (KIB * MIB)

static struct ram *ram;
static struct bus bus;
static struct mmu_pmp pmp;
static uint8_t pmpcfg[MMU_PMP_ENTRIES];
static uint64_t pmpaddr[MMU_PMP_ENTRIES];
static struct mmu_context context;
static struct mmu_mapping map;
static uint64_t next_table;

static uint64_t *pte_host(uint64_t gpa)
{
    uint64_t *host = (uint64_t *)(void *)ram_ptr(ram, gpa, 8);
    assert_non_null(host);
    return host;
}

static void set_pmp(unsigned i, uint8_t cfg, uint64_t addr)
{
    pmpcfg[i] = cfg;
    pmpaddr[i] = addr;
    mmu_pmp_load(&pmp, pmpcfg, pmpaddr);
}

static void no_pmp(void)
{
    memset(pmpcfg, 0, sizeof(pmpcfg));
    memset(pmpaddr, 0, sizeof(pmpaddr));
    mmu_pmp_load(&pmp, pmpcfg, pmpaddr);
}

static int setup(void **state)
{
    (void)state;
    struct err err = { 0 };
    ram = ram_new();
    assert_int_equal(ram_add(ram, "rom", ROM_AT, 0x1000, true, NULL, &err), 0);
    assert_int_equal(ram_add(ram, "ram", RAM_AT, 4 * MIB, false, NULL, &err), 0);
    assert_int_equal(ram_seal_layout(ram, &err), 0);
    bus_init(&bus, ram);
    no_pmp();
    set_pmp(0, 0x1f, (UINT64_C(1) << 54) - 1); /* everything, for everybody */
    context = (struct mmu_context){ .satp = UINT64_C(8) << 60 | ROOT >> 12, .priv = SUPER, .adue = true, .pmp = &pmp };
    next_table = TABLES;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ram_free(ram);
    return 0;
}

static unsigned levels(void)
{
    return (unsigned)(context.satp >> 60) - 5;
}

static uint64_t pte_of(uint64_t gpa, uint64_t bits)
{
    return gpa >> 12 << 10 | bits;
}

/* Where the entry for va at this level stands; makes the tables above it. */
static uint64_t entry(uint64_t va, unsigned level)
{
    uint64_t table = ROOT;
    for (unsigned at = levels() - 1;; at--) {
        uint64_t gpa = table + (va >> (12 + 9 * at) & 511) * 8;
        if (at == level)
            return gpa;
        if (!*pte_host(gpa)) {
            *pte_host(gpa) = pte_of(next_table, V);
            next_table += PAGE_BYTES;
        }
        table = *pte_host(gpa) >> 10 << 12;
    }
}

static uint64_t put(uint64_t va, unsigned level, uint64_t pte)
{
    uint64_t gpa = entry(va, level);
    *pte_host(gpa) = pte;
    return gpa;
}

static enum mmu_result go(uint64_t va, enum mmu_access access)
{
    return mmu_translate(&context, &bus, va, access, &map);
}

/* Which of read, write and fetch work, as bits 1, 2, 4; the others must be page faults. */
static unsigned works(uint64_t va)
{
    unsigned bits = 0;
    for (int access = MMU_READ; access <= MMU_FETCH; access++) {
        enum mmu_result result = go(va, access);
        assert_true(result == MMU_OK || result == MMU_PAGE_FAULT);
        if (result == MMU_OK)
            bits |= 1u << access;
    }
    return bits;
}

static void bare_mode_and_machine_mode_are_the_identity(void **state)
{
    (void)state;
    context.satp = 0;
    assert_int_equal(go(TARGET + 5, MMU_WRITE), MMU_OK);
    assert_true(map.gpa == TARGET + 5 && map.readable && map.writable && map.executable);
    assert_true(map.leaf_va == TARGET && map.leaf_bytes == PAGE_BYTES);
    context.satp = UINT64_C(8) << 60 | ROOT >> 12; /* an empty table: nothing would translate */
    assert_int_equal(go(TARGET, MMU_READ), MMU_PAGE_FAULT);
    context.priv = MACHINE;
    assert_int_equal(go(TARGET, MMU_READ), MMU_OK);
    assert_int_equal(go(UINT64_C(1) << 56, MMU_READ), MMU_ACCESS_FAULT);
}

static void pages_of_every_mode_and_size_translate(void **state)
{
    (void)state;
    for (uint64_t mode = 8; mode <= 10; mode++) {
        for (unsigned level = 0; level < mode - 5; level++) {
            teardown(NULL);
            setup(NULL);
            context.satp = mode << 60 | ROOT >> 12;
            uint64_t bytes = UINT64_C(4096) << (9 * level);
            uint64_t base = level ? bytes & ((UINT64_C(1) << 56) - 1) : TARGET;
            uint64_t va = (UINT64_C(1) << (11 + 9 * levels())) - bytes; /* the highest positive page */
            put(va, level, pte_of(base, V | R | W | X | A | D));
            assert_int_equal(go(va + bytes - 3, MMU_READ), MMU_OK);
            assert_true(map.gpa == base + bytes - 3);
            assert_true(map.leaf_va == va && map.leaf_bytes == bytes);
            assert_true(map.readable && map.writable && map.executable && !map.global);
        }
    }
}

static void negative_addresses_translate(void **state)
{
    (void)state;
    uint64_t va = UINT64_C(0xffffffc000000000);
    put(va, 0, pte_of(TARGET, V | R | A));
    assert_int_equal(go(va + 8, MMU_READ), MMU_OK);
    assert_true(map.gpa == TARGET + 8);
}

static void addresses_that_are_not_sign_extended_fault(void **state)
{
    (void)state;
    for (uint64_t mode = 8; mode <= 10; mode++) {
        context.satp = mode << 60 | ROOT >> 12;
        for (int i = 0; i < 512; i++) /* every entry of the root maps something */
            *pte_host(ROOT + (uint64_t)i * 8) = pte_of(0, V | R | W | X | A | D);
        unsigned used = 12 + 9 * levels();
        assert_int_equal(go((UINT64_C(1) << (used - 1)) - 1, MMU_READ), MMU_OK);
        assert_int_equal(go(UINT64_C(1) << (used - 1), MMU_READ), MMU_PAGE_FAULT);
        assert_int_equal(go(-(UINT64_C(1) << (used - 1)), MMU_READ), MMU_OK);
        assert_int_equal(go(-(UINT64_C(1) << (used - 1)) - 1, MMU_READ), MMU_PAGE_FAULT);
        assert_int_equal(go(UINT64_C(1) << 63, MMU_READ), MMU_PAGE_FAULT);
    }
}

static void rights_follow_r_w_x(void **state)
{
    (void)state;
    static const struct {
        unsigned bits, works;
    } row[] = {
        { R, 1 }, { R | W, 3 }, { X, 4 }, { R | X, 5 }, { R | W | X, 7 }, { W, 0 }, { W | X, 0 },
    };
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        put(0, 0, pte_of(TARGET, V | A | D | row[i].bits));
        assert_int_equal(works(0), row[i].works);
        put(0, 0, pte_of(TARGET, A | D | row[i].bits)); /* not valid */
        assert_int_equal(works(0), 0);
    }
}

static void a_mapping_says_what_else_is_allowed(void **state)
{
    (void)state;
    put(0, 0, pte_of(TARGET, V | R | W | A));
    assert_int_equal(go(0, MMU_READ), MMU_OK);
    assert_true(map.readable && !map.writable && !map.executable); /* D is not set: a store must walk again */
    assert_int_equal(go(0, MMU_WRITE), MMU_OK);
    assert_true(map.readable && map.writable);
    assert_int_equal(go(0, MMU_READ), MMU_OK);
    assert_true(map.writable);
    put(0, 0, pte_of(TARGET, V | R | A | D)); /* D alone gives no right */
    assert_int_equal(go(0, MMU_READ), MMU_OK);
    assert_true(!map.writable);
}

static void user_pages_are_for_u_and_with_sum_for_s_but_never_its_fetches(void **state)
{
    (void)state;
    put(0, 0, pte_of(TARGET, V | R | W | X | U | A | D));
    assert_int_equal(works(0), 0);
    context.sum = true;
    assert_int_equal(works(0), 3);
    assert_int_equal(go(0, MMU_READ), MMU_OK);
    assert_false(map.executable);
    context.priv = USER;
    assert_int_equal(works(0), 7);
    put(0, 0, pte_of(TARGET, V | R | W | X | A | D));
    assert_int_equal(works(0), 0);
}

static void mxr_makes_executable_pages_readable(void **state)
{
    (void)state;
    put(0, 0, pte_of(TARGET, V | X | A));
    assert_int_equal(works(0), 4);
    assert_true(map.executable && !map.readable);
    context.mxr = true;
    assert_int_equal(works(0), 5);
    put(0, 0, pte_of(TARGET, V | X | U | A));
    assert_int_equal(works(0), 0);
    context.sum = true;
    assert_int_equal(works(0), 1); /* S may read it, not run it */
}

static void misaligned_superpages_fault(void **state)
{
    (void)state;
    put(0, 1, pte_of(2 * MIB + RAM_AT, V | R | A));
    assert_int_equal(works(0), 1);
    put(0, 1, pte_of(TARGET + 4096, V | R | A));
    assert_int_equal(works(0), 0);
    put(0, 2, pte_of(GIB + 2 * MIB, V | R | A));
    assert_int_equal(works(0), 0);
}

static void reserved_bits_fault(void **state)
{
    (void)state;
    for (unsigned bit = 54; bit <= 60; bit++) {
        put(0, 0, pte_of(TARGET, V | R | A) | UINT64_C(1) << bit);
        assert_int_equal(works(0), 0);
    }
    put(0, 0, pte_of(TARGET, V | R | A | 0x300)); /* bits 8 and 9 belong to software */
    assert_int_equal(works(0), 1);
}

static void pointers_to_tables_may_hold_nothing_but_v_and_g(void **state)
{
    (void)state;
    put(0, 0, pte_of(TARGET, V | R | A));
    uint64_t *pointer = pte_host(entry(0, 1)), plain = *pointer;
    const uint64_t bad[] = { U, A, D, N, PBMT(1), PBMT(2), UINT64_C(1) << 54 };
    context.pbmte = true;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        *pointer = plain | bad[i];
        assert_int_equal(works(0), 0);
    }
    *pointer = plain | G;
    assert_int_equal(works(0), 1);
    put(0, 0, pte_of(TARGET, V)); /* a pointer where no table can follow */
    assert_int_equal(works(0), 0);
}

static void global_counts_at_any_level(void **state)
{
    (void)state;
    put(0, 0, pte_of(TARGET, V | R | A));
    *pte_host(entry(0, 2)) |= G;
    assert_int_equal(go(0, MMU_READ), MMU_OK);
    assert_true(map.global);
    *pte_host(entry(0, 2)) &= ~(uint64_t)G;
    put(0, 0, pte_of(TARGET, V | R | A | G));
    assert_int_equal(go(0, MMU_READ), MMU_OK);
    assert_true(map.global);
}

static void page_based_memory_types_need_pbmte(void **state)
{
    (void)state;
    for (unsigned type = 0; type < 4; type++) {
        put(0, 0, pte_of(TARGET, V | R | A) | PBMT(type));
        context.pbmte = false;
        assert_int_equal(works(0), type == 0);
        context.pbmte = true;
        assert_int_equal(works(0), type != 3); /* 3 is reserved */
    }
}

static void napot_pages_are_64_kib_and_nothing_else(void **state)
{
    (void)state;
    uint64_t base = TARGET & ~(64 * KIB - 1);
    for (uint64_t low = 0; low < 16; low++) {
        put(0x5000, 0, pte_of(base + low * 4096, V | R | A) | N);
        assert_int_equal(works(0x5000), low == 8);
    }
    put(0x5000, 0, pte_of(base + 8 * 4096, V | R | A) | N);
    assert_int_equal(go(0x5123, MMU_READ), MMU_OK);
    assert_true(map.gpa == base + 0x5123);
    assert_true(map.leaf_va == 0 && map.leaf_bytes == 64 * KIB);
    put(0, 1, (pte_of(RAM_AT, V | R | A) | N)); /* at a higher level N is reserved */
    assert_int_equal(works(0), 0);
}

static void a_and_d_are_set_by_hardware_and_mark_the_tables_page(void **state)
{
    (void)state;
    uint64_t gpa = put(0, 0, pte_of(TARGET, V | R | W));
    uint64_t page = ram_page_of(ram_block_at(ram, gpa, 8), gpa);
    dirty_start(ram->dirty, DIRTY_MIGRATION, false);
    assert_int_equal(go(0, MMU_READ), MMU_OK);
    assert_true(*pte_host(gpa) == pte_of(TARGET, V | R | W | A));
    assert_true(dirty_test(ram->dirty, DIRTY_MIGRATION, page));
    assert_int_equal(dirty_count(ram->dirty, DIRTY_MIGRATION), 1);
    dirty_take_word(ram->dirty, DIRTY_MIGRATION, page / DIRTY_WORD_PAGES);
    assert_int_equal(go(0, MMU_READ), MMU_OK); /* nothing left to set: nothing marked */
    assert_int_equal(dirty_count(ram->dirty, DIRTY_MIGRATION), 0);
    assert_int_equal(go(0, MMU_WRITE), MMU_OK);
    assert_true(*pte_host(gpa) == pte_of(TARGET, V | R | W | A | D));
    assert_true(dirty_test(ram->dirty, DIRTY_MIGRATION, page));
    dirty_stop(ram->dirty, DIRTY_MIGRATION);
}

static void without_adue_missing_a_and_d_are_page_faults(void **state)
{
    (void)state;
    context.adue = false;
    uint64_t gpa = put(0, 0, pte_of(TARGET, V | R | W | X));
    assert_int_equal(works(0), 0);
    put(0, 0, pte_of(TARGET, V | R | W | X | A));
    assert_int_equal(works(0), 5);
    put(0, 0, pte_of(TARGET, V | R | W | X | D));
    assert_int_equal(works(0), 0);
    assert_true(*pte_host(gpa) == pte_of(TARGET, V | R | W | X | D)); /* and nothing was written */
}

static void a_refused_access_leaves_a_and_d_alone(void **state)
{
    (void)state;
    uint64_t gpa = put(0, 0, pte_of(TARGET, V | R));
    assert_int_equal(go(0, MMU_WRITE), MMU_PAGE_FAULT);
    assert_int_equal(go(0, MMU_FETCH), MMU_PAGE_FAULT);
    assert_true(*pte_host(gpa) == pte_of(TARGET, V | R));
}

static void tables_outside_ram_are_access_faults(void **state)
{
    (void)state;
    put(0, 1, pte_of(UINT64_C(0x10000000), V)); /* where devices live */
    for (int access = MMU_READ; access <= MMU_FETCH; access++)
        assert_int_equal(go(0, access), MMU_ACCESS_FAULT);
    context.satp = UINT64_C(8) << 60 | UINT64_C(0xfffffffffff);
    assert_int_equal(go(0, MMU_READ), MMU_ACCESS_FAULT);
}

static void a_table_may_end_where_ram_ends(void **state)
{
    (void)state;
    uint64_t last = RAM_AT + 4 * MIB - PAGE_BYTES; /* an odd page number */
    context.satp = UINT64_C(8) << 60 | last >> 12;
    *pte_host(last + 511 * 8) = pte_of(0, V | R | A);
    assert_int_equal(go(-4096, MMU_READ), MMU_OK);
    assert_true(map.gpa == GIB - 4096);
}

static void tables_in_rom_can_be_read_but_not_updated(void **state)
{
    (void)state;
    uint64_t pte[2] = { pte_of(TARGET, V | R | A), pte_of(TARGET, V | R) };
    assert_true(ram_load(ram, ROM_AT, pte, sizeof(pte)));
    put(0, 1, pte_of(ROM_AT, V));
    assert_int_equal(go(0, MMU_READ), MMU_OK);
    assert_int_equal(go(4096, MMU_READ), MMU_ACCESS_FAULT);
}

/* --- PMP ----------------------------------------------------------------------------------------------------- */

static bool allows(uint8_t priv, uint64_t gpa, uint64_t bytes, enum mmu_access access)
{
    return mmu_pmp_allows(&pmp, priv, gpa, bytes, access);
}

static void without_a_matching_entry_only_m_may(void **state)
{
    (void)state;
    no_pmp();
    assert_true(allows(MACHINE, TARGET, 8, MMU_WRITE));
    assert_false(allows(SUPER, TARGET, 8, MMU_READ));
    assert_false(allows(USER, TARGET, 8, MMU_READ));
    assert_false(mmu_pmp_active(&pmp, MACHINE));
    assert_true(mmu_pmp_active(&pmp, SUPER));
    context.satp = 0;
    assert_int_equal(go(TARGET, MMU_READ), MMU_ACCESS_FAULT);
}

static void entries_bind_m_only_when_locked(void **state)
{
    (void)state;
    set_pmp(0, 0x18 | 1, TARGET >> 2 | 0x1ff); /* 4 KiB, R */
    assert_true(allows(MACHINE, TARGET, 8, MMU_WRITE));
    assert_false(allows(SUPER, TARGET, 8, MMU_WRITE));
    assert_true(allows(SUPER, TARGET, 8, MMU_READ));
    assert_false(mmu_pmp_active(&pmp, MACHINE));
    set_pmp(0, pmpcfg[0] | 0x80, pmpaddr[0]);
    assert_false(allows(MACHINE, TARGET, 8, MMU_WRITE));
    assert_true(allows(MACHINE, TARGET, 8, MMU_READ));
    assert_true(mmu_pmp_active(&pmp, MACHINE));
}

static void the_three_kinds_of_ranges_end_where_they_should(void **state)
{
    (void)state;
    no_pmp();
    set_pmp(0, 0x10 | 1, TARGET >> 2); /* four bytes */
    assert_true(allows(USER, TARGET, 4, MMU_READ));
    assert_true(allows(USER, TARGET + 3, 1, MMU_READ));
    assert_false(allows(USER, TARGET + 4, 1, MMU_READ));
    assert_false(allows(USER, TARGET - 1, 1, MMU_READ));
    assert_false(allows(USER, TARGET, 5, MMU_READ));
    set_pmp(0, 0x18 | 1, TARGET >> 2); /* naturally aligned, eight bytes */
    assert_true(allows(USER, TARGET, 8, MMU_READ));
    assert_false(allows(USER, TARGET + 8, 1, MMU_READ));
    set_pmp(0, 0, TARGET >> 2);
    set_pmp(1, 0x08 | 1, (TARGET + 12) >> 2); /* from entry 0's address, which need not be on */
    assert_true(allows(USER, TARGET, 8, MMU_READ));
    assert_true(allows(USER, TARGET + 8, 4, MMU_READ));
    assert_false(allows(USER, TARGET + 12, 1, MMU_READ));
    assert_false(allows(USER, TARGET - 1, 1, MMU_READ));
    set_pmp(0, 0x08 | 2 | 1, 0x100 >> 2); /* the first entry's range begins at 0 */
    assert_true(allows(USER, 0, 8, MMU_WRITE));
    set_pmp(1, 0x08 | 1, 0); /* an empty range matches nothing */
    assert_true(allows(USER, 0, 8, MMU_WRITE));
    assert_false(allows(USER, TARGET, 8, MMU_READ));
}

static void the_lowest_matching_entry_decides(void **state)
{
    (void)state;
    set_pmp(1, pmpcfg[0], pmpaddr[0]);
    set_pmp(0, 0x18, TARGET >> 2 | 0x1ff); /* nothing in this page */
    assert_false(allows(SUPER, TARGET + 8, 8, MMU_READ));
    assert_true(allows(SUPER, TARGET + 4096, 8, MMU_READ));
}

static void an_access_that_a_range_covers_in_part_fails(void **state)
{
    (void)state;
    set_pmp(1, pmpcfg[0], pmpaddr[0]);
    set_pmp(0, 0x10 | 7, TARGET >> 2);
    assert_true(allows(SUPER, TARGET, 4, MMU_READ));
    assert_true(allows(SUPER, TARGET + 4, 4, MMU_READ));
    assert_false(allows(SUPER, TARGET, 8, MMU_READ)); /* whatever both entries allow */
    assert_false(allows(MACHINE, TARGET - 4, 8, MMU_READ));
}

static void a_page_that_pmp_divides_says_so(void **state)
{
    (void)state;
    put(0, 0, pte_of(TARGET, V | R | W | A | D));
    assert_int_equal(go(0, MMU_READ), MMU_OK);
    assert_int_equal(map.pmp_bytes, 4096);
    set_pmp(1, pmpcfg[0], pmpaddr[0]);
    set_pmp(0, 0x10 | 1, (TARGET + 16) >> 2);
    assert_int_equal(go(16, MMU_READ), MMU_OK);
    assert_true(map.pmp_bytes < 4096);
    assert_int_equal(go(16, MMU_WRITE), MMU_ACCESS_FAULT);
    assert_int_equal(go(20, MMU_WRITE), MMU_OK);
    assert_true(map.pmp_bytes < 4096);
}

static void pmp_narrows_what_a_mapping_allows(void **state)
{
    (void)state;
    put(0, 0, pte_of(TARGET, V | R | W | X | A | D));
    set_pmp(1, pmpcfg[0], pmpaddr[0]);
    set_pmp(0, 0x18 | 1, TARGET >> 2 | 0x1ff);
    assert_int_equal(go(0, MMU_READ), MMU_OK);
    assert_true(map.readable && !map.writable && !map.executable);
    assert_int_equal(go(0, MMU_WRITE), MMU_ACCESS_FAULT);
    assert_int_equal(go(0, MMU_FETCH), MMU_ACCESS_FAULT);
}

static void page_tables_are_checked_by_pmp_as_supervisor_accesses(void **state)
{
    (void)state;
    put(0, 0, pte_of(TARGET, V | R | W | X | U));
    context.priv = USER;
    set_pmp(1, pmpcfg[0], pmpaddr[0]);
    set_pmp(0, 0x18 | 1, TABLES >> 2 | 0x1fff); /* 64 KiB of tables: readable only */
    for (int access = MMU_READ; access <= MMU_FETCH; access++)
        assert_int_equal(go(0, access), MMU_ACCESS_FAULT); /* A cannot be set */
    put(0, 0, pte_of(TARGET, V | R | W | X | U | A | D));
    assert_int_equal(go(0, MMU_WRITE), MMU_OK);
    set_pmp(0, 0x18, pmpaddr[0]);
    assert_int_equal(go(0, MMU_WRITE), MMU_ACCESS_FAULT);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(bare_mode_and_machine_mode_are_the_identity),
        T(pages_of_every_mode_and_size_translate),
        T(negative_addresses_translate),
        T(addresses_that_are_not_sign_extended_fault),
        T(rights_follow_r_w_x),
        T(a_mapping_says_what_else_is_allowed),
        T(user_pages_are_for_u_and_with_sum_for_s_but_never_its_fetches),
        T(mxr_makes_executable_pages_readable),
        T(misaligned_superpages_fault),
        T(reserved_bits_fault),
        T(pointers_to_tables_may_hold_nothing_but_v_and_g),
        T(global_counts_at_any_level),
        T(page_based_memory_types_need_pbmte),
        T(napot_pages_are_64_kib_and_nothing_else),
        T(a_and_d_are_set_by_hardware_and_mark_the_tables_page),
        T(without_adue_missing_a_and_d_are_page_faults),
        T(a_refused_access_leaves_a_and_d_alone),
        T(tables_outside_ram_are_access_faults),
        T(a_table_may_end_where_ram_ends),
        T(tables_in_rom_can_be_read_but_not_updated),
        T(without_a_matching_entry_only_m_may),
        T(entries_bind_m_only_when_locked),
        T(the_three_kinds_of_ranges_end_where_they_should),
        T(the_lowest_matching_entry_decides),
        T(an_access_that_a_range_covers_in_part_fails),
        T(a_page_that_pmp_divides_says_so),
        T(pmp_narrows_what_a_mapping_allows),
        T(page_tables_are_checked_by_pmp_as_supervisor_accesses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
