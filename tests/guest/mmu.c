/* Sv39 as software sees it: permissions, superpages, SUM, MXR, MPRV, fences, bad tables. */
#include "lib.h"

#define TEST_NAME "mmu"

enum { PTE_V = 1, PTE_R = 2, PTE_W = 4, PTE_X = 8, PTE_U = 16, PTE_G = 32, PTE_A = 64, PTE_D = 128 };
enum { RW = PTE_V | PTE_R | PTE_W | PTE_A | PTE_D, RWX = RW | PTE_X };
enum { FETCH_PAGE = 12, LOAD_PAGE = 13, STORE_PAGE = 15, LOAD_ACCESS = 5 };
enum { ENTRIES = 512 };

static uint64_t root[ENTRIES] __attribute__((aligned(4096)));
static uint64_t middle[ENTRIES] __attribute__((aligned(4096)));
static uint64_t leaf[ENTRIES] __attribute__((aligned(4096)));
static uint64_t data[4][ENTRIES] __attribute__((aligned(4096)));
static struct trap_record *const record = &trap_record[0];

/* Root entry 5 leads to `middle`, its entry 3 to `leaf`: page n of the window is leaf[n]. */
static const uint64_t WINDOW = UINT64_C(5) << 30 | UINT64_C(3) << 21;
static const uint64_t SUPER = UINT64_C(5) << 30 | UINT64_C(4) << 21;

static uint64_t page_va(unsigned n)
{
    return WINDOW + n * 4096;
}

static uint64_t pte(const void *at, uint64_t bits)
{
    return (uint64_t)at >> 12 << 10 | bits;
}

static void fence(void)
{
    __asm__ volatile("sfence.vma" : : : "memory");
}

static uint64_t do_load(uint64_t va)
{
    return *(volatile uint64_t *)va;
}

static uint64_t do_store(uint64_t va)
{
    *(volatile uint64_t *)va = 0x1234;
    return 0x1234;
}

static uint64_t jump(uint64_t va)
{
    return ((uint64_t(*)(void))va)();
}

/* These hold a tiny function of their own: li a0, 7; ret. */
static void put_code(uint64_t *page)
{
    page[0] = UINT64_C(0x00008067) << 32 | 0x00700513;
    __asm__ volatile("fence.i" : : : "memory");
}

enum { NONE = 0 };

static uint64_t in_mode(unsigned mode, uint64_t (*function)(uint64_t), uint64_t va, uint64_t cause, int line)
{
    expect_traps(true);
    uint64_t result = call_in_mode(mode, function, va);
    if (record->count != (cause != NONE) || (cause && (record->cause != cause || record->value != va))) {
        print("%lu traps, cause %lu (%lu) value 0x%lx (0x%lx)\n", record->count, record->cause, cause, record->value,
              va);
        test_failed(TEST_NAME, line);
    }
    expect_traps(false);
    return result;
}

#define IN_S(function, va, cause) in_mode(MODE_S, function, va, cause, __LINE__)
/* For loads and stores of U pages: code cannot be one for S and U at once, so M does it in U's name. */
#define AS(mode, function, va, cause) as_mode(mode, function, va, cause, __LINE__)

static uint64_t as_mode(unsigned mode, uint64_t (*function)(uint64_t), uint64_t va, uint64_t cause, int line)
{
    uint64_t result = 0;
    bool store = function == do_store;

    expect_traps(true);
    csr_clear(mstatus, MSTATUS_MPP);
    csr_set(mstatus, (uint64_t)mode << 11);
    if (store)
        __asm__ volatile("csrs mstatus, %1\n sd %2, 0(%0)\n csrc mstatus, %1"
                         :
                         : "r"(va), "r"((uint64_t)MSTATUS_MPRV), "r"(UINT64_C(0x1234))
                         : "memory");
    else
        __asm__ volatile("csrs mstatus, %2\n ld %0, 0(%1)\n csrc mstatus, %2"
                         : "=&r"(result)
                         : "r"(va), "r"((uint64_t)MSTATUS_MPRV)
                         : "memory");
    if (record->count != (cause != NONE) || (cause && (record->cause != cause || record->value != va))) {
        print("%lu traps, cause %lu (%lu) value 0x%lx (0x%lx)\n", record->count, record->cause, cause, record->value,
              va);
        test_failed(TEST_NAME, line);
    }
    expect_traps(false);
    return result;
}

static void permissions(void)
{
    static const struct {
        unsigned bits;
        bool r, w, x;
    } row[] = {
        { 0, 0, 0, 0 },
        { PTE_V | PTE_R, 1, 0, 0 },
        { PTE_V | PTE_X, 0, 0, 1 },
        { PTE_V | PTE_R | PTE_X, 1, 0, 1 },
        { PTE_V | PTE_R | PTE_W, 1, 1, 0 },
        { PTE_V | PTE_R | PTE_W | PTE_X, 1, 1, 1 },
        { PTE_V | PTE_W, 0, 0, 0 },         /* reserved */
        { PTE_V | PTE_W | PTE_X, 0, 0, 0 }, /* reserved */
        { PTE_V, 0, 0, 0 },                 /* a pointer in the last level */
        { PTE_R | PTE_W | PTE_X, 0, 0, 0 }, /* not valid */
    };
    for (unsigned i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        put_code(data[0]);
        leaf[0] = pte(data[0], row[i].bits | PTE_A | PTE_D);
        if (row[i].bits == PTE_V)
            leaf[0] = pte(data[0], PTE_V);
        fence();
        IN_S(do_load, page_va(0), row[i].r ? NONE : LOAD_PAGE);
        if (row[i].x)
            CHECK_EQ(IN_S(jump, page_va(0), NONE), 7);
        else
            IN_S(jump, page_va(0), FETCH_PAGE);
        IN_S(do_store, page_va(0) + 8, row[i].w ? NONE : STORE_PAGE);
        /* What a page forbids stays forbidden after a load has brought it into the TLB. */
        IN_S(do_store, page_va(0) + 8, row[i].w ? NONE : STORE_PAGE);
    }
}

static void user_pages(void)
{
    put_code(data[0]);
    leaf[0] = pte(data[0], RWX | PTE_U);
    fence();
    csr_clear(mstatus, MSTATUS_SUM);
    IN_S(do_load, page_va(0), LOAD_PAGE);
    AS(MODE_U, do_load, page_va(0), NONE);
    csr_set(mstatus, MSTATUS_SUM);
    IN_S(do_load, page_va(0), NONE);
    IN_S(do_store, page_va(0) + 8, NONE);
    IN_S(jump, page_va(0), FETCH_PAGE); /* SUM is for data */
    csr_clear(mstatus, MSTATUS_SUM);
    IN_S(do_load, page_va(0), LOAD_PAGE); /* at once, no fence */
    leaf[0] = pte(data[0], RWX);
    fence();
    AS(MODE_U, do_load, page_va(0), LOAD_PAGE);
    AS(MODE_S, do_load, page_va(0), NONE);
    /* MXR lets loads read what may only be executed. */
    leaf[0] = pte(data[0], PTE_V | PTE_X | PTE_A);
    fence();
    IN_S(do_load, page_va(0), LOAD_PAGE);
    csr_set(mstatus, MSTATUS_MXR);
    IN_S(do_load, page_va(0), NONE);
    IN_S(do_store, page_va(0), STORE_PAGE);
    csr_clear(mstatus, MSTATUS_MXR);
    IN_S(do_load, page_va(0), LOAD_PAGE);
}

/* MPRV: M's loads go the way of MPP; its fetches never do. */
static void borrowed_privilege(void)
{
    data[1][0] = 111;
    leaf[1] = pte(data[1], RW);
    fence();
    CHECK_EQ(AS(MODE_S, do_load, page_va(1), NONE), 111);
    AS(MODE_S, do_store, page_va(1), NONE);
    CHECK_EQ(data[1][0], 0x1234);
    AS(MODE_U, do_store, page_va(1), STORE_PAGE);
    CHECK_EQ(AS(MODE_M, do_load, (uint64_t)&data[1][0], NONE), 0x1234); /* MPP = M: no translation */
}

static void remapping(void)
{
    for (unsigned i = 0; i < 4; i++)
        data[i][1] = 100 + i;
    for (unsigned i = 0; i < 64; i++) {
        leaf[2] = pte(data[i % 4], RW);
        __asm__ volatile("sfence.vma %0, zero" : : "r"(page_va(2)) : "memory");
        CHECK_EQ(IN_S(do_load, page_va(2) + 8, NONE), 100 + i % 4);
    }
    /* Two names for one page. */
    leaf[2] = pte(data[0], RW);
    leaf[3] = pte(data[0], RW);
    fence();
    IN_S(do_store, page_va(2) + 16, NONE);
    CHECK_EQ(IN_S(do_load, page_va(3) + 16, NONE), 0x1234);
    /* An access across two pages that are neighbours only here. */
    data[3][511] = 0x1122334455667788;
    data[1][0] = 0x99aabbccddeeff00;
    leaf[4] = pte(data[3], RW);
    leaf[5] = pte(data[1], RW);
    fence();
    CHECK_EQ(IN_S(do_load, page_va(5) - 4, NONE), 0xddeeff0011223344);
    leaf[5] = 0;
    fence();
    data[3][511] = 5;
    expect_traps(true);
    call_in_mode(MODE_S, do_store, page_va(5) - 4);
    CHECK_EQ(record->cause, STORE_PAGE);
    CHECK_EQ(data[3][511], 5); /* nothing of it is stored */
    expect_traps(false);
}

static void superpages(void)
{
    uint64_t at = (uint64_t)data & ~UINT64_C(0x1fffff), offset = (uint64_t)data - at;

    data[0][3] = 42;
    middle[4] = pte((void *)at, RWX);
    fence();
    CHECK_EQ(IN_S(do_load, SUPER + offset + 24, NONE), 42);
    middle[4] = pte((void *)at, RWX) | 1 << 10; /* not aligned */
    fence();
    IN_S(do_load, SUPER + offset + 24, LOAD_PAGE);
    middle[4] = pte(leaf, PTE_V | PTE_A); /* A in a pointer is reserved */
    fence();
    IN_S(do_load, SUPER, LOAD_PAGE);
    middle[4] = 0;
    fence();
}

static void addresses(void)
{
    IN_S(do_load, UINT64_C(1) << 38, LOAD_PAGE); /* bits 63..39 must equal bit 38 */
    IN_S(do_load, WINDOW | UINT64_C(1) << 63, LOAD_PAGE);
    IN_S(do_store, WINDOW | UINT64_C(1) << 39, STORE_PAGE);
    IN_S(jump, WINDOW | UINT64_C(1) << 40, FETCH_PAGE);
    root[511] = pte((void *)0x80000000, RWX); /* the top of the negative half */
    fence();
    data[0][5] = 99;
    CHECK_EQ(IN_S(do_load, (uint64_t)&data[0][5] - 0x80000000 - (UINT64_C(1) << 30), NONE), 99);
    root[511] = 0;
    leaf[6] = pte((void *)0x18000000, RW); /* nothing there */
    fence();
    IN_S(do_load, page_va(6), LOAD_ACCESS);
}

/* What the specification says and some machines do not do: -append strict=1. */
static void strict(void)
{
    root[6] = pte((void *)0x18000000, PTE_V); /* a table where nothing is */
    fence();
    IN_S(do_load, UINT64_C(6) << 30, LOAD_ACCESS);
    root[6] = 0;
    fence();
}

/* A and D: hardware sets them, or raises a page fault for software to do so. Never neither. */
static void accessed_and_dirty(void)
{
    leaf[7] = pte(data[0], PTE_V | PTE_R | PTE_W);
    fence();
    expect_traps(true);
    call_in_mode(MODE_S, do_load, page_va(7));
    if (record->count) {
        CHECK_EQ(record->cause, LOAD_PAGE);
        CHECK_EQ(leaf[7] & (PTE_A | PTE_D), 0);
    } else {
        CHECK_EQ(*(volatile uint64_t *)&leaf[7] & (PTE_A | PTE_D), PTE_A);
    }
    leaf[7] = pte(data[0], PTE_V | PTE_R | PTE_W | PTE_A);
    fence();
    expect_traps(true);
    call_in_mode(MODE_S, do_load, page_va(7));
    CHECK_EQ(record->count, 0);
    CHECK_EQ(*(volatile uint64_t *)&leaf[7] & PTE_D, 0); /* a load is no store */
    call_in_mode(MODE_S, do_store, page_va(7));
    if (record->count)
        CHECK_EQ(record->cause, STORE_PAGE);
    else
        CHECK_EQ(*(volatile uint64_t *)&leaf[7] & PTE_D, PTE_D);
    expect_traps(false);
}

/* A page of code is replaced under its address by another. */
static void code_pages(void)
{
    for (unsigned i = 0; i < 40; i++) {
        *(volatile uint64_t *)data[i % 2] = UINT64_C(0x00008067) << 32 | 0x00000513 | i << 20; /* li a0, i; ret */
        leaf[8] = pte(data[i % 2], PTE_V | PTE_X | PTE_A);
        fence();
        __asm__ volatile("fence.i" : : : "memory");
        CHECK_EQ(IN_S(jump, page_va(8), NONE), i);
    }
}

int main(unsigned hart, const void *dtb)
{
    bool be_strict = arg_number(boot_scan(dtb).args, "strict", 0);

    (void)hart;
    root[0] = pte((void *)0, RW); /* devices */
    root[2] = pte((void *)0x80000000, RWX | PTE_G);
    root[5] = pte(middle, PTE_V);
    middle[3] = pte(leaf, PTE_V);
    pmp_open();
    csr_write(satp, UINT64_C(8) << 60 | (uint64_t)root >> 12);
    CHECK_EQ(csr_read(satp) >> 60, 8);
    fence();
    permissions();
    user_pages();
    borrowed_privilege();
    remapping();
    superpages();
    addresses();
    accessed_and_dirty();
    code_pages();
    if (be_strict)
        strict();
    test_passed(TEST_NAME);
}
