/* Traps, privilege, interrupts: what the privileged architecture promises to software. */
#include "lib.h"

#define TEST_NAME "traps"

enum {
    FETCH_ACCESS = 1,
    ILLEGAL = 2,
    BREAK = 3,
    LOAD_ACCESS = 5,
    STORE_ACCESS = 7,
    ECALL_U = 8,
    ECALL_S = 9,
    ECALL_M = 11,
};
enum { MSTATUS_SIE = 1 << 1, MSTATUS_SPIE = 1 << 5, MSTATUS_MPIE = 1 << 7, MSTATUS_SPP = 1 << 8 };
enum { MSTATUS_TVM = 1 << 20, MSTATUS_TW = 1 << 21, MSTATUS_TSR = 1 << 22 };

/* Nothing of the board's lies there. */
static const uint64_t NOWHERE = 0x18000000;
static struct trap_record *const record = &trap_record[0];

static void trapped(uint64_t cause, uint64_t value)
{
    CHECK_EQ(record->count, 1);
    CHECK_EQ(record->cause, cause);
    CHECK_EQ(record->value, value);
    expect_traps(true);
}

static void synchronous(void)
{
    uint64_t pc, value;

    expect_traps(true);
    __asm__ volatile("la %0, 1f\n 1: ecall" : "=r"(pc));
    CHECK_EQ(record->pc, pc);
    CHECK_EQ(record->status >> 11 & 3, MODE_M);
    trapped(ECALL_M, 0);
    __asm__ volatile(".option push\n .option norvc\n la %0, 1f\n 1: ebreak\n .option pop" : "=r"(pc));
    CHECK_EQ(record->pc, pc);
    CHECK(record->value == pc || record->value == 0);
    trapped(BREAK, record->value);
    __asm__ volatile("c.ebreak");
    trapped(BREAK, record->value);
    __asm__ volatile(".word 0xffffffff");
    CHECK(record->value == 0xffffffff || record->value == 0);
    trapped(ILLEGAL, record->value);
    __asm__ volatile(".half 0");
    trapped(ILLEGAL, 0);
    __asm__ volatile("li %0, 77\n ld %0, 0(%1)" : "=&r"(value) : "r"(NOWHERE) : "memory");
    CHECK_EQ(value, 77); /* a trapping load writes nothing */
    trapped(LOAD_ACCESS, NOWHERE);
    __asm__ volatile("sw zero, 4(%0)" : : "r"(NOWHERE) : "memory");
    trapped(STORE_ACCESS, NOWHERE + 4);
    call_in_mode(MODE_M, (uint64_t(*)(uint64_t))NOWHERE, 0);
    trapped(FETCH_ACCESS, NOWHERE);
    csr_write(mhartid, 0); /* read-only */
    CHECK_EQ(record->cause, ILLEGAL);
    expect_traps(true);
    (void)csr_read(0x5c0); /* nobody's */
    CHECK_EQ(record->cause, ILLEGAL);
    expect_traps(false);
}

/* --- lower modes --------------------------------------------------------------------------------------- */

static uint64_t do_ecall(uint64_t unused)
{
    (void)unused;
    __asm__ volatile("ecall" : : : "memory");
    return 1;
}

static uint64_t touch_mstatus(uint64_t unused)
{
    (void)unused;
    return csr_read(mstatus);
}

static uint64_t touch_sstatus(uint64_t unused)
{
    (void)unused;
    return csr_read(sstatus);
}

static uint64_t touch_satp(uint64_t unused)
{
    (void)unused;
    return csr_read(satp);
}

static uint64_t do_fence(uint64_t unused)
{
    (void)unused;
    __asm__ volatile("sfence.vma");
    return 0;
}

static uint64_t do_sret(uint64_t unused)
{
    (void)unused;
    __asm__ volatile("sret");
    return 0;
}

static uint64_t do_mret(uint64_t unused)
{
    (void)unused;
    __asm__ volatile("mret");
    return 0;
}

static uint64_t read_cycle(uint64_t unused)
{
    (void)unused;
    return csr_read(cycle);
}

static uint64_t load(uint64_t at)
{
    return *(volatile uint64_t *)at;
}

static uint64_t twice(uint64_t x)
{
    return 2 * x;
}

/* Runs the function in a mode: did it trap as said, or (cause 0) not at all? */
static void in_mode(unsigned mode, uint64_t (*function)(uint64_t), uint64_t arg, uint64_t cause)
{
    expect_traps(true);
    call_in_mode(mode, function, arg);
    if (cause == 0) {
        CHECK_EQ(record->count, 0);
    } else {
        CHECK_EQ(record->count, 1);
        CHECK_EQ(record->cause, cause);
        CHECK_EQ(record->status >> 11 & 3, mode);
    }
    expect_traps(false);
}

static void privilege(void)
{
    CHECK_EQ(call_in_mode(MODE_U, twice, 21), 42);
    CHECK_EQ(call_in_mode(MODE_S, twice, 21), 42);
    in_mode(MODE_U, do_ecall, 0, ECALL_U);
    in_mode(MODE_S, do_ecall, 0, ECALL_S);
    in_mode(MODE_S, touch_mstatus, 0, ILLEGAL);
    in_mode(MODE_U, touch_sstatus, 0, ILLEGAL);
    in_mode(MODE_S, touch_sstatus, 0, 0);
    in_mode(MODE_S, do_mret, 0, ILLEGAL);
    in_mode(MODE_U, do_sret, 0, ILLEGAL);
    in_mode(MODE_U, do_fence, 0, ILLEGAL);
    in_mode(MODE_S, do_fence, 0, 0);
    csr_set(mstatus, MSTATUS_TVM);
    in_mode(MODE_S, do_fence, 0, ILLEGAL);
    in_mode(MODE_S, touch_satp, 0, ILLEGAL);
    csr_clear(mstatus, MSTATUS_TVM);
    in_mode(MODE_S, touch_satp, 0, 0);
    csr_set(mstatus, MSTATUS_TSR);
    in_mode(MODE_S, do_sret, 0, ILLEGAL);
    csr_clear(mstatus, MSTATUS_TSR);
    csr_write(mcounteren, 0);
    csr_write(scounteren, 0);
    in_mode(MODE_S, read_cycle, 0, ILLEGAL);
    csr_write(mcounteren, 7);
    in_mode(MODE_S, read_cycle, 0, 0);
    in_mode(MODE_U, read_cycle, 0, ILLEGAL);
    csr_write(scounteren, 7);
    in_mode(MODE_U, read_cycle, 0, 0);
}

/* PMP: one entry takes a page from S and U; M goes on unless it is locked. */
static void protection(void)
{
    static uint64_t page[1024] __attribute__((aligned(8192)));
    uint64_t at = (uint64_t)page;

    page[0] = 5;
    csr_write(pmpaddr0, at >> 2 | 511); /* NAPOT: 4 KiB */
    csr_write(pmpaddr1, UINT64_MAX);
    csr_write(pmpcfg0, 0x1f18);
    in_mode(MODE_S, load, at, LOAD_ACCESS);
    in_mode(MODE_S, load, at + 4088, LOAD_ACCESS);
    in_mode(MODE_S, load, at + 4096, 0);
    in_mode(MODE_S, load, at - 8, 0);
    CHECK_EQ(load(at), 5);
    csr_write(pmpcfg0, 0x1f19); /* R */
    in_mode(MODE_S, load, at, 0);
    in_mode(MODE_U, load, at, 0);
    csr_write(pmpcfg0, 0x1f00);
    CHECK_EQ(csr_read(pmpcfg0), 0x1f00);
    pmp_open();
}

/* --- delegation ---------------------------------------------------------------------------------------- */

extern char supervisor_trap[];
uint64_t supervisor_cause, supervisor_value, supervisor_status;
__asm__(".align 2\n supervisor_trap:\n"
        "csrw sscratch, t0\n csrr t0, scause\n la t1, supervisor_cause\n sd t0, 0(t1)\n"
        "csrr t0, stval\n la t1, supervisor_value\n sd t0, 0(t1)\n"
        "csrr t0, sstatus\n la t1, supervisor_status\n sd t0, 0(t1)\n"
        "csrr t0, scause\n bltz t0, 1f\n csrr t0, sepc\n addi t0, t0, 4\n csrw sepc, t0\n j 2f\n"
        "1: csrw sie, zero\n 2: csrr t0, sscratch\n sret\n");

static uint64_t illegal_in_s(uint64_t unused)
{
    (void)unused;
    register uint64_t result __asm__("a0");
    __asm__ volatile("li a0, 1\n .word 0xffffffff\n addi a0, a0, 1" : "=r"(result) : : "t0", "t1", "memory");
    return result;
}

static void delegation(void)
{
    csr_write(stvec, supervisor_trap);
    csr_write(medeleg, 1 << ILLEGAL);
    CHECK_EQ(csr_read(medeleg), 1 << ILLEGAL);
    for (unsigned mode = MODE_U; mode <= MODE_S; mode++) {
        csr_set(mstatus, MSTATUS_SIE);
        CHECK_EQ(call_in_mode(mode, illegal_in_s, 0), 2);
        CHECK_EQ(supervisor_cause, ILLEGAL);
        CHECK_EQ(!!(supervisor_status & MSTATUS_SPP), mode == MODE_S);
        CHECK_EQ(!!(supervisor_status & MSTATUS_SPIE), 1);
        CHECK_EQ(!!(supervisor_status & MSTATUS_SIE), 0);
        CHECK_EQ(!!(csr_read(mstatus) & MSTATUS_SIE), 1);
        supervisor_cause = 0;
    }
    /* In M mode it is M's, delegated or not. */
    expect_traps(true);
    __asm__ volatile(".word 0xffffffff");
    CHECK_EQ(record->cause, ILLEGAL);
    CHECK_EQ(supervisor_cause, 0);
    expect_traps(false);
    csr_write(medeleg, 0);
}

/* --- interrupts ---------------------------------------------------------------------------------------- */

static volatile uint64_t interrupts, last_interrupt;

static bool take_interrupt(struct trap_words *words)
{
    if (!(words->cause >> 63))
        return false;
    interrupts++;
    last_interrupt = words->cause & 63;
    if (last_interrupt == 3)
        msip_set(0, false);
    if (last_interrupt == 7)
        mtimecmp_set(0, UINT64_MAX);
    /* A wire takes a moment; no interrupt may come twice. */
    while (csr_read(mip) & 1u << last_interrupt)
        ;
    return true;
}

/* Interrupts are on only after the sleep: one that came between the look and wfi would be slept through. */
static void wait_for(uint64_t count)
{
    csr_clear(mstatus, MSTATUS_MIE);
    while (interrupts < count) {
        __asm__ volatile("wfi" : : : "memory");
        csr_set(mstatus, MSTATUS_MIE);
        csr_clear(mstatus, MSTATUS_MIE);
    }
}

static uint64_t wait_in_mode(uint64_t count)
{
    while (interrupts < count)
        ;
    return 0;
}

static uint64_t spin_until_supervisor_cause(uint64_t unused)
{
    (void)unused;
    while (__atomic_load_n(&supervisor_cause, __ATOMIC_RELAXED) == 0)
        ;
    return 0;
}

static void machine_interrupts(void)
{
    trap_hook = take_interrupt;
    csr_clear(mstatus, MSTATUS_MIE | MSTATUS_MPIE); /* mret and traps have left them as they like */
    mtimecmp_set(0, UINT64_MAX);
    while (csr_read(mip) & MIP_MTIP)
        ;
    csr_write(mie, MIP_MSIP | MIP_MTIP);
    msip_set(0, true);
    while (!(csr_read(mip) & MIP_MSIP))
        ;
    CHECK_EQ(interrupts, 0); /* pending, not taken: MIE is off */
    csr_set(mstatus, MSTATUS_MIE);
    wait_for(1);
    CHECK_EQ(last_interrupt, 3);
    CHECK_EQ(csr_read(mip) & MIP_MSIP, 0);
    mtimecmp_set(0, mtime() + TICKS_PER_S / 100);
    wait_for(2);
    CHECK_EQ(last_interrupt, 7);

    /* Lower modes take M's interrupts whatever MIE says. */
    csr_clear(mstatus, MSTATUS_MIE | MSTATUS_MPIE);
    mtimecmp_set(0, mtime() + TICKS_PER_S / 100);
    call_in_mode(MODE_U, wait_in_mode, 3);
    CHECK_EQ(interrupts, 3);
    CHECK_EQ(last_interrupt, 7);
    csr_write(mie, 0);

    /* S's software interrupt: delegated, raised by M, taken in S only with SIE, in U always. */
    csr_write(mideleg, 1 << 1);
    csr_write(sie, 1 << 1);
    csr_set(mip, 1 << 1);
    csr_clear(mstatus, MSTATUS_SIE);
    supervisor_cause = 0;
    CHECK_EQ(call_in_mode(MODE_S, twice, 4), 8);
    CHECK_EQ(supervisor_cause, 0);
    call_in_mode(MODE_U, spin_until_supervisor_cause, 0);
    CHECK_EQ(supervisor_cause, UINT64_C(1) << 63 | 1);
    csr_write(sie, 1 << 1);
    csr_set(mstatus, MSTATUS_SIE);
    supervisor_cause = 0;
    call_in_mode(MODE_S, spin_until_supervisor_cause, 0);
    CHECK_EQ(supervisor_cause, UINT64_C(1) << 63 | 1);
    CHECK_EQ(interrupts, 3);
    csr_clear(mip, 1 << 1);
    csr_write(mideleg, 0);
    trap_hook = NULL;
}

/* Vectored mode: interrupts enter at base + 4 x cause, exceptions at base. */
extern char vector_table[];
uint64_t vector_entered;
__asm__(".option push\n .option norvc\n .align 8\n vector_table:\n"
        " j trap_entry\n j 9f\n j 9f\n j vector_software\n j 9f\n j 9f\n j 9f\n j 9f\n"
        "9: j 9b\n"
        "vector_software:\n csrw mscratch, t0\n la t0, vector_entered\n sd t0, 0(t0)\n li t0, 0x2000000\n"
        " sw zero, 0(t0)\n csrw mie, zero\n csrr t0, mscratch\n mret\n .option pop\n");

static void vectored(void)
{
    uint64_t before = csr_read(mtvec), scratch = csr_read(mscratch);

    csr_write(mtvec, (uint64_t)vector_table | 1);
    csr_write(mie, MIP_MSIP);
    csr_set(mstatus, MSTATUS_MIE);
    msip_set(0, true);
    while (__atomic_load_n(&vector_entered, __ATOMIC_RELAXED) == 0)
        ;
    csr_clear(mstatus, MSTATUS_MIE);
    csr_write(mscratch, scratch);
    expect_traps(true);
    __asm__ volatile("ecall");
    CHECK_EQ(record->cause, ECALL_M);
    expect_traps(false);
    csr_write(mtvec, before);
}

static void registers(void)
{
    CHECK_EQ(csr_read(misa) >> 62, 2);
    CHECK_EQ(csr_read(misa) & 0x14112d, 0x14112d); /* A C D F I M S U */
    csr_write(sscratch, 0x123456789abcdef0);
    CHECK_EQ(csr_read(sscratch), 0x123456789abcdef0);
    /* sstatus is a window on mstatus. */
    csr_set(sstatus, MSTATUS_SUM);
    CHECK(csr_read(mstatus) & MSTATUS_SUM);
    csr_clear(mstatus, MSTATUS_SUM);
    CHECK(!(csr_read(sstatus) & MSTATUS_SUM));
    uint64_t a = csr_read(minstret), b = csr_read(minstret);
    CHECK(b > a);
    a = mtime();
    b = csr_read(time);
    CHECK(b >= a && b - a < TICKS_PER_S);
    CHECK(mtime() >= b);
}

/* What the specification says and some machines do not do: -append strict=1. */
static void strict(void)
{
    uint64_t value;

    expect_traps(true);
    __asm__ volatile("amoadd.w %0, zero, (%1)" : "=r"(value) : "r"(NOWHERE) : "memory");
    trapped(STORE_ACCESS, NOWHERE);
    expect_traps(false);
    csr_write(pmpcfg0, 0);
    in_mode(MODE_S, twice, 0, FETCH_ACCESS); /* no entry matches: nothing is allowed */
    csr_write(mepc, 0x1001);
    CHECK_EQ(csr_read(mepc), 0x1000);
    csr_set(mstatus, MSTATUS_MPP);
    csr_clear(mstatus, 1 << 11);
    CHECK((csr_read(mstatus) & MSTATUS_MPP) >> 11 != 2); /* a reserved mode */
}

int main(unsigned hart, const void *dtb)
{
    (void)hart;
    registers();
    if (arg_number(boot_scan(dtb).args, "strict", 0))
        strict();
    synchronous();
    pmp_open();
    privilege();
    protection();
    delegation();
    machine_interrupts();
    vectored();
    test_passed(TEST_NAME);
}
