/* RV64I and M, compressed forms, loads and stores: what each instruction computes, at its corners. */
#include "lib.h"

#define TEST_NAME "isa_int"

static const uint64_t MIN64 = UINT64_C(1) << 63, MAX64 = ~(UINT64_C(1) << 63), ONES = ~UINT64_C(0);

static void arithmetic(void)
{
    CHECK_EQ(INSN2("add", MAX64, 1), MIN64);
    CHECK_EQ(INSN2("sub", MIN64, 1), MAX64);
    CHECK_EQ(INSN2("addw", 0x7fffffff, 1), 0xffffffff80000000);
    CHECK_EQ(INSN2("addw", 0x1ffffffff, 1), 0);
    CHECK_EQ(INSN2("subw", 0x80000000, 1), 0x7fffffff);
    CHECK_EQ(INSNI("addi", 5, -2048), (uint64_t)-2043);
    CHECK_EQ(INSNI("addiw", 0x7fffffff, 1), 0xffffffff80000000);
    CHECK_EQ(INSN2("slt", ONES, 0), 1);
    CHECK_EQ(INSN2("sltu", ONES, 0), 0);
    CHECK_EQ(INSNI("slti", MIN64, -1), 1);
    CHECK_EQ(INSNI("sltiu", 5, -1), 1);
    CHECK_EQ(INSNI("sltiu", ONES, -1), 0);
    CHECK_EQ(INSNI("xori", 0xff, -1), ~UINT64_C(0xff));
    CHECK_EQ(INSNI("ori", 0x100, -2048), (uint64_t)-2048 | 0x100);
    CHECK_EQ(INSNI("andi", 0xfff, -16), 0xff0);
    CHECK_EQ(INSN2("xor", 0xf0f0, 0xff00), 0x0ff0);
}

static void shifts(void)
{
    CHECK_EQ(INSN2("sll", 1, 63), MIN64);
    CHECK_EQ(INSN2("sll", 1, 64), 1); /* six bits count */
    CHECK_EQ(INSN2("srl", MIN64, 63), 1);
    CHECK_EQ(INSN2("sra", MIN64, 63), ONES);
    CHECK_EQ(INSN2("sllw", 1, 31), 0xffffffff80000000);
    CHECK_EQ(INSN2("sllw", 1, 32), 1); /* five bits count */
    CHECK_EQ(INSN2("srlw", 0xffffffff80000000, 31), 1);
    CHECK_EQ(INSN2("srlw", 0x80000000, 0), 0xffffffff80000000);
    CHECK_EQ(INSN2("sraw", 0x80000000, 31), ONES);
    CHECK_EQ(INSNI("slli", 3, 62), MIN64 | MIN64 >> 1);
    CHECK_EQ(INSNI("srai", MIN64, 1), MIN64 | MIN64 >> 1);
    CHECK_EQ(INSNI("srliw", 0xf00000000, 4), 0);
    CHECK_EQ(INSNI("slliw", 0x80000001, 1), 2);
    CHECK_EQ(INSNI("sraiw", 0x80000000, 4), 0xfffffffff8000000);
}

static void multiply(void)
{
    CHECK_EQ(INSN2("mul", ONES, ONES), 1);
    CHECK_EQ(INSN2("mulh", ONES, ONES), 0);
    CHECK_EQ(INSN2("mulh", MIN64, MIN64), UINT64_C(1) << 62);
    CHECK_EQ(INSN2("mulhu", ONES, ONES), ONES - 1);
    CHECK_EQ(INSN2("mulhsu", ONES, ONES), ONES);
    CHECK_EQ(INSN2("mulhsu", MIN64, 2), ONES);
    CHECK_EQ(INSN2("mulhsu", 2, MIN64), 1);
    CHECK_EQ(INSN2("mulw", 0x10000, 0x8000), 0xffffffff80000000);
    CHECK_EQ(INSN2("mulw", 0x100000001, 3), 3);
}

static void divide(void)
{
    CHECK_EQ(INSN2("div", 7, -2), (uint64_t)-3);
    CHECK_EQ(INSN2("rem", 7, -2), 1);
    CHECK_EQ(INSN2("rem", -7, 2), ONES);
    CHECK_EQ(INSN2("div", 7, 0), ONES);
    CHECK_EQ(INSN2("rem", 7, 0), 7);
    CHECK_EQ(INSN2("divu", 7, 0), ONES);
    CHECK_EQ(INSN2("remu", MIN64, 0), MIN64);
    CHECK_EQ(INSN2("div", MIN64, -1), MIN64);
    CHECK_EQ(INSN2("rem", MIN64, -1), 0);
    CHECK_EQ(INSN2("divu", MIN64, -1), 0);
    CHECK_EQ(INSN2("divw", 0x80000000, -1), 0xffffffff80000000);
    CHECK_EQ(INSN2("remw", 0x80000000, -1), 0);
    CHECK_EQ(INSN2("divw", 5, 0x100000000), ONES);
    CHECK_EQ(INSN2("remw", 0x80000005, 0), 0xffffffff80000005);
    CHECK_EQ(INSN2("divuw", 0x80000000, 1), 0xffffffff80000000);
    CHECK_EQ(INSN2("divuw", 1, 0), ONES);
    CHECK_EQ(INSN2("remuw", 0xffffffff, 0x10), 0xf);
    CHECK_EQ(INSN2("remuw", 0x80000005, 0), 0xffffffff80000005);
}

#define LOAD(name, at)                                                                                                 \
    ({                                                                                                                 \
        uint64_t load_result;                                                                                          \
        __asm__ volatile(name " %0, 0(%1)" : "=r"(load_result) : "r"(at) : "memory");                                  \
        load_result;                                                                                                   \
    })
#define STORE(name, at, value) __asm__ volatile(name " %0, 0(%1)" : : "r"((uint64_t)(value)), "r"(at) : "memory")

static void memory(void)
{
    static uint8_t window[32] __attribute__((aligned(16)));

    STORE("sd", window, 0x8182838485868788);
    CHECK_EQ(LOAD("lb", window), 0xffffffffffffff88);
    CHECK_EQ(LOAD("lbu", window), 0x88);
    CHECK_EQ(LOAD("lh", window + 2), 0xffffffffffff8586);
    CHECK_EQ(LOAD("lhu", window + 2), 0x8586);
    CHECK_EQ(LOAD("lw", window + 4), 0xffffffff81828384);
    CHECK_EQ(LOAD("lwu", window + 4), 0x81828384);
    STORE("sb", window + 1, 0x1ff);
    STORE("sh", window + 6, 0x12345);
    CHECK_EQ(LOAD("ld", window), 0x234583848586ff88);
    STORE("sw", window, 0x1122334455);
    CHECK_EQ(LOAD("ld", window), 0x2345838422334455);
    /* An address is a sum that wraps. */
    uint64_t value;
    __asm__ volatile("ld %0, -8(%1)" : "=r"(value) : "r"(window + 8) : "memory");
    CHECK_EQ(value, 0x2345838422334455);
    /* x0 stays zero, whatever is put there. */
    __asm__ volatile("ld x0, 0(%1); addi x0, x0, 5; mv %0, x0" : "=r"(value) : "r"(window) : "memory");
    CHECK_EQ(value, 0);
}

/* Misaligned accesses work, across words and across pages. */
static void misaligned(void)
{
    static uint8_t window[8192 + 64] __attribute__((aligned(4096)));

    for (unsigned i = 0; i < sizeof(window); i++)
        window[i] = (uint8_t)i;
    for (unsigned at = 4096 - 9; at < 4096 + 2; at++) {
        uint64_t should = 0;
        for (unsigned i = 0; i < 8; i++)
            should |= (uint64_t)(uint8_t)(at + i) << 8 * i;
        CHECK_EQ(LOAD("ld", window + at), should);
        CHECK_EQ(LOAD("lwu", window + at), should & 0xffffffff);
        CHECK_EQ(LOAD("lhu", window + at), should & 0xffff);
        STORE("sd", window + at, ~should);
        CHECK_EQ(LOAD("ld", window + at), ~should);
        CHECK_EQ(window[at - 1], (uint8_t)(at - 1));
        CHECK_EQ(window[at + 8], (uint8_t)(at + 8));
        STORE("sd", window + at, should);
    }
}

static void branches(void)
{
#define TAKEN(name, a, b)                                                                                              \
    ({                                                                                                                 \
        uint64_t taken;                                                                                                \
        __asm__ volatile("li %0, 1; " name " %1, %2, 1f; li %0, 0; 1:"                                                 \
                         : "=&r"(taken)                                                                                \
                         : "r"((uint64_t)(a)), "r"((uint64_t)(b)));                                                    \
        taken;                                                                                                         \
    })
    CHECK(TAKEN("beq", 5, 5) && !TAKEN("beq", 5, 0x100000005));
    CHECK(TAKEN("bne", 5, 0x100000005) && !TAKEN("bne", 5, 5));
    CHECK(TAKEN("blt", -1, 0) && !TAKEN("blt", 0, -1) && !TAKEN("blt", 3, 3));
    CHECK(TAKEN("bge", 0, -1) && TAKEN("bge", 3, 3) && !TAKEN("bge", -1, 0));
    CHECK(TAKEN("bltu", 0, -1) && !TAKEN("bltu", -1, 0) && !TAKEN("bltu", 3, 3));
    CHECK(TAKEN("bgeu", -1, 0) && TAKEN("bgeu", 3, 3) && !TAKEN("bgeu", 0, -1));

    uint64_t a, b, sum = 0, n = 1000;
    __asm__ volatile("1: add %0, %0, %1; addi %1, %1, -1; bnez %1, 1b" : "+r"(sum), "+r"(n));
    CHECK_EQ(sum, 500500);
    __asm__ volatile("auipc %0, 0; jal %1, 1f; 1:" : "=&r"(a), "=&r"(b));
    CHECK(b > a && b - a <= 8);
    /* jalr clears bit 0 of the sum, and reads its base before it writes its link. */
    __asm__ volatile("la %0, 1f; addi %0, %0, 1; jalr %0, 0(%0); .word 0; 1: auipc %1, 0" : "=&r"(a), "=r"(b));
    CHECK_EQ(b - a, 4);
    __asm__ volatile("lui %0, 0x80000" : "=r"(a));
    CHECK_EQ(a, 0xffffffff80000000);
}

static void compressed(void)
{
    static uint64_t window[40];
    uint64_t value, other;

    window[31] = 0x1122334455667788;
    __asm__ volatile(".option push; .option rvc\n"
                     "mv a5, %2\n c.ld a4, 248(a5)\n c.addi a4, -8\n c.mv %0, a4\n c.lw a3, 124(a5)\n"
                     "c.sd a4, 240(a5)\n c.sw a4, 120(a5)\n c.mv %1, a3\n .option pop"
                     : "=&r"(value), "=&r"(other)
                     : "r"(window)
                     : "a3", "a4", "a5", "memory");
    CHECK_EQ(value, 0x1122334455667780);
    CHECK_EQ(window[30], 0x1122334455667780);
    CHECK_EQ(window[15], 0x55667780);
    CHECK_EQ(other, 0);
    __asm__ volatile("c.li a0, -32\n c.lui a1, 0xfffe0\n c.slli a1, 1\n c.srli a0, 60\n c.mv a2, a1\n c.srai a2, 13\n"
                     "c.andi a0, 7\n c.addiw a2, 1\n c.sub a2, a0\n c.mv %0, a2"
                     : "=r"(value)
                     :
                     : "a0", "a1", "a2");
    CHECK_EQ(value, (uint64_t)-38); /* (-0x40000 >> 13) + 1 - 7 */
    __asm__ volatile("c.li a0, 12\n c.li a1, 10\n c.xor a0, a1\n c.or a1, a0\n c.and a1, a0\n c.addw a1, a0\n"
                     "c.subw a1, a0\n c.slli a1, 40\n c.mv %0, a1"
                     : "=r"(value)
                     :
                     : "a0", "a1");
    CHECK_EQ(value, UINT64_C(6) << 40);
    __asm__ volatile("c.mv a4, sp\n c.addi4spn a5, sp, 1020\n c.addi16sp sp, -512\n c.sdsp a5, 504(sp)\n"
                     "c.swsp a5, 0(sp)\n c.ldsp %0, 504(sp)\n c.lwsp a3, 0(sp)\n c.addi16sp sp, 496\n c.addi sp, 16\n"
                     "sub %0, %0, a4\n c.subw a3, a5\n c.mv %1, a3"
                     : "=&r"(value), "=&r"(other)
                     :
                     : "a3", "a4", "a5", "memory");
    CHECK_EQ(value, 1020);
    CHECK_EQ(other, 0);
    __asm__ volatile("la a0, 1f\n c.jalr a0\n c.j 2f\n 1: c.li a1, 9\n c.jr ra\n 2: c.beqz a1, 3f\n c.bnez a1, 4f\n"
                     "3: c.li a1, 0\n 4: c.mv %0, a1"
                     : "=r"(value)
                     :
                     : "a0", "a1", "ra");
    CHECK_EQ(value, 9);
}

/* Code that was just written runs after fence.i, not before it matters. */
static void self_modifying(void)
{
    static uint32_t code[2] __attribute__((aligned(8)));
    uint64_t (*function)(void) = (uint64_t(*)(void))code;

    for (uint32_t i = 0; i < 100; i++) {
        *(volatile uint32_t *)&code[0] = 0x00000513 | i << 20; /* li a0, i */
        *(volatile uint32_t *)&code[1] = 0x00008067;           /* ret */
        __asm__ volatile("fence.i" : : : "memory");
        CHECK_EQ(function(), i);
    }
}

int main(void)
{
    arithmetic();
    shifts();
    multiply();
    divide();
    memory();
    misaligned();
    branches();
    compressed();
    self_modifying();
    test_passed(TEST_NAME);
}
