/* Atomics: what each computes, and that all harts together lose nothing. */
#include "lib.h"

#define TEST_NAME "isa_amo"

enum { ROUNDS = 20000 };

static unsigned harts;
static struct barrier barrier;
static struct spin spin;
static volatile uint64_t by_lock;
static uint64_t by_add, by_lrsc, by_max, lrsc_failures;
static uint32_t by_lrsc_w;
static uint8_t by_byte[8] __attribute__((aligned(8)));

#define AMO(name, memory, value)                                                                                       \
    ({                                                                                                                 \
        uint64_t amo_old;                                                                                              \
        __asm__ volatile(name " %0, %2, (%1)" : "=r"(amo_old) : "r"(memory), "r"((uint64_t)(value)) : "memory");       \
        amo_old;                                                                                                       \
    })

static void one(const char *what, uint64_t is_old, uint64_t should_old, uint64_t is_new, uint64_t should_new)
{
    if (is_old == should_old && is_new == should_new)
        return;
    print("%s: old 0x%lx (0x%lx) new 0x%lx (0x%lx)\n", what, is_old, should_old, is_new, should_new);
    test_failed(TEST_NAME, __LINE__);
}

#define ONE_D(name, before, value, after)                                                                              \
    do {                                                                                                               \
        uint64_t cell = (uint64_t)(before), old = AMO(name ".d.aqrl", &cell, value);                                   \
        one(name ".d", old, (uint64_t)(before), cell, (uint64_t)(after));                                              \
    } while (0)
/* The word above must stay as it is, and the old value is sign-extended. */
#define ONE_W(name, before, value, after)                                                                              \
    do {                                                                                                               \
        uint64_t cell = 0xabcdef0100000000 | (uint32_t)(before), old = AMO(name ".w", &cell, value);                   \
        one(name ".w", old, (uint64_t)(int64_t)(int32_t)(before), cell, 0xabcdef0100000000 | (uint32_t)(after));       \
    } while (0)

static void each(void)
{
    ONE_D("amoswap", 5, 7, 7);
    ONE_D("amoadd", -1, 3, 2);
    ONE_D("amoand", 0xff00ff, 0x0ff0, 0x0f0);
    ONE_D("amoor", 0xf0, 0x0f, 0xff);
    ONE_D("amoxor", 0xff, 0x0f, 0xf0);
    ONE_D("amomin", -5, 3, -5);
    ONE_D("amomax", -5, 3, 3);
    ONE_D("amominu", -5, 3, 3);
    ONE_D("amomaxu", -5, 3, -5);
    ONE_W("amoswap", 0x80000000, 7, 7);
    ONE_W("amoadd", 0xffffffff, 2, 1);
    ONE_W("amoand", 0xf0f0f0f0, 0x80008000, 0x80008000);
    ONE_W("amoor", 0x80000000, 1, 0x80000001);
    ONE_W("amoxor", 0xffffffff, 0xf, 0xfffffff0);
    ONE_W("amomin", 0x80000000, 0x17fffffff, 0x80000000);
    ONE_W("amomax", 0x80000000, 0x17fffffff, 0x7fffffff);
    ONE_W("amominu", 0x80000000, 0x17fffffff, 0x7fffffff);
    ONE_W("amomaxu", 0x80000000, 0x17fffffff, 0x80000000);
}

static void reservation(void)
{
    static uint64_t cell[1024] = { 10, 20 };
    uint64_t value, failed;

    __asm__ volatile("lr.d %0, (%2); addi %0, %0, 1; sc.d %1, %0, (%2)"
                     : "=&r"(value), "=&r"(failed)
                     : "r"(&cell[0])
                     : "memory");
    CHECK_EQ(failed, 0);
    CHECK_EQ(cell[0], 11);
    /* The reservation is spent. */
    __asm__ volatile("sc.d %0, %1, (%2)" : "=&r"(failed) : "r"(99L), "r"(&cell[0]) : "memory");
    CHECK(failed != 0);
    CHECK_EQ(cell[0], 11);
    /* One elsewhere does not count. */
    __asm__ volatile("lr.d %0, (%2); sc.d %1, %0, (%3)"
                     : "=&r"(value), "=&r"(failed)
                     : "r"(&cell[0]), "r"(&cell[512])
                     : "memory");
    CHECK(failed != 0);
    /* A failed one still gives the reservation up. */
    __asm__ volatile("sc.d %0, %1, (%2)" : "=&r"(failed) : "r"(99L), "r"(&cell[0]) : "memory");
    CHECK(failed != 0);
    CHECK_EQ(cell[0], 11);
    cell[1] = 0x80000000;
    __asm__ volatile("lr.w %0, (%2); sc.w %1, %3, (%2)"
                     : "=&r"(value), "=&r"(failed)
                     : "r"(&cell[1]), "r"(0x500000001L)
                     : "memory");
    CHECK_EQ(value, 0xffffffff80000000);
    CHECK_EQ(failed, 0);
    CHECK_EQ(cell[1], 1);
}

/* strict: the specification says store; some machines with one hart do a load first. */
static void misaligned_traps(bool strict)
{
    uint64_t cell[2] = { 0 };

    expect_traps(true);
    AMO("amoadd.w", (char *)cell + 2, 1);
    CHECK_EQ(trap_record[0].count, 1);
    CHECK(trap_record[0].cause == 6 || trap_record[0].cause == 7 || (trap_record[0].cause == 4 && !strict));
    CHECK_EQ(trap_record[0].value, (uint64_t)cell + 2);
    uint64_t value;
    __asm__ volatile("lr.d %0, (%1)" : "=r"(value) : "r"((char *)cell + 4) : "memory");
    CHECK_EQ(trap_record[0].count, 2);
    CHECK(trap_record[0].cause == 4 || trap_record[0].cause == 5);
    expect_traps(false);
}

static void contend(unsigned hart)
{
    uint64_t failures = 0;

    barrier_wait(&barrier, harts);
    for (unsigned i = 0; i < ROUNDS; i++) {
        spin_lock(&spin);
        by_lock = by_lock + 1;
        spin_unlock(&spin);
        AMO("amoadd.d", &by_add, 3);
        AMO("amomaxu.d", &by_max, (uint64_t)i * harts + hart);
        uint64_t value, failed;
        do {
            __asm__ volatile("lr.d.aq %0, (%2); addi %0, %0, 1; sc.d.rl %1, %0, (%2)"
                             : "=&r"(value), "=&r"(failed)
                             : "r"(&by_lrsc)
                             : "memory");
            failures += failed != 0;
        } while (failed);
        do {
            __asm__ volatile("lr.w %0, (%2); addi %0, %0, 5; sc.w %1, %0, (%2)"
                             : "=&r"(value), "=&r"(failed)
                             : "r"(&by_lrsc_w)
                             : "memory");
        } while (failed);
        /* Neighbours in one word do not overwrite each other. */
        if (hart < 8)
            *(volatile uint8_t *)&by_byte[hart] = (uint8_t)(by_byte[hart] + 1);
    }
    AMO("amoadd.d", &lrsc_failures, failures);
    barrier_wait(&barrier, harts);
}

int main(unsigned hart, const void *dtb)
{
    struct boot boot = boot_scan(dtb);

    harts = boot.harts;
    each();
    reservation();
    misaligned_traps(arg_number(boot.args, "strict", 0));
    harts_start(harts, contend);
    contend(hart);
    CHECK_EQ(by_lock, (uint64_t)ROUNDS * harts);
    CHECK_EQ(by_add, (uint64_t)ROUNDS * harts * 3);
    CHECK_EQ(by_lrsc, (uint64_t)ROUNDS * harts);
    CHECK_EQ(by_lrsc_w, (uint32_t)(ROUNDS * harts * 5));
    CHECK_EQ(by_max, (uint64_t)ROUNDS * harts - 1);
    for (unsigned i = 0; i < harts && i < 8; i++)
        CHECK_EQ(by_byte[i], (uint8_t)ROUNDS);
    print("%u harts, %lu lr/sc failures\n", harts, lrsc_failures);
    test_passed(TEST_NAME);
}
