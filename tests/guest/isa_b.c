/* Zba, Zbb, Zbs: what each instruction computes. */
#include "lib.h"

#define TEST_NAME "isa_b"

__asm__(".option arch, +zba, +zbb, +zbs");

static const uint64_t MIN64 = UINT64_C(1) << 63, ONES = ~UINT64_C(0), MIXED = 0x8123456789abcdef;

static void addresses(void)
{
    CHECK_EQ(INSN2("sh1add", MIN64 | 3, 5), 11);
    CHECK_EQ(INSN2("sh2add", 3, 5), 17);
    CHECK_EQ(INSN2("sh3add", 3, -24), 0);
    CHECK_EQ(INSN2("add.uw", 0xffffffff80000000, 1), 0x80000001);
    CHECK_EQ(INSN2("sh1add.uw", 0xffffffff80000000, 1), 0x100000001);
    CHECK_EQ(INSN2("sh2add.uw", 0xffffffff80000000, 1), 0x200000001);
    CHECK_EQ(INSN2("sh3add.uw", 0xffffffff80000000, 1), 0x400000001);
    CHECK_EQ(INSNI("slli.uw", 0xffffffff80000001, 4), 0x800000010);
    CHECK_EQ(INSNI("slli.uw", 1, 63), MIN64);
}

static void logic(void)
{
    CHECK_EQ(INSN2("andn", 0xff, 0x0f), 0xf0);
    CHECK_EQ(INSN2("orn", 0xf0, ~0x0fL), 0xff);
    CHECK_EQ(INSN2("xnor", 0xff, 0x0f), ~0xf0L);
    CHECK_EQ(INSN1("clz", 0), 64);
    CHECK_EQ(INSN1("clz", 1), 63);
    CHECK_EQ(INSN1("clz", MIN64), 0);
    CHECK_EQ(INSN1("clzw", 0xf00000000), 32);
    CHECK_EQ(INSN1("clzw", 0xf00000010), 27);
    CHECK_EQ(INSN1("ctz", 0), 64);
    CHECK_EQ(INSN1("ctz", MIN64), 63);
    CHECK_EQ(INSN1("ctzw", 0x100000000), 32);
    CHECK_EQ(INSN1("ctzw", 0x180000000), 31);
    CHECK_EQ(INSN1("cpop", ONES), 64);
    CHECK_EQ(INSN1("cpopw", 0xff00000003), 2);
    CHECK_EQ(INSN2("max", ONES, 1), 1);
    CHECK_EQ(INSN2("min", ONES, 1), ONES);
    CHECK_EQ(INSN2("maxu", ONES, 1), ONES);
    CHECK_EQ(INSN2("minu", ONES, 1), 1);
    CHECK_EQ(INSN1("sext.b", 0x180), 0xffffffffffffff80);
    CHECK_EQ(INSN1("sext.h", 0x18000), 0xffffffffffff8000);
    CHECK_EQ(INSN1("zext.h", ONES), 0xffff);
    CHECK_EQ(INSN1("orc.b", 0x0100008000000200), 0xff0000ff0000ff00);
    CHECK_EQ(INSN1("rev8", MIXED), 0xefcdab8967452381);
}

static void rotations(void)
{
    CHECK_EQ(INSN2("rol", MIXED, 8), 0x23456789abcdef81);
    CHECK_EQ(INSN2("rol", MIXED, 64), MIXED);
    CHECK_EQ(INSN2("ror", MIXED, 8), 0xef8123456789abcd);
    CHECK_EQ(INSN2("ror", MIXED, 0), MIXED);
    CHECK_EQ(INSNI("rori", MIXED, 60), 0x123456789abcdef8);
    CHECK_EQ(INSN2("rolw", 0xffffffff40000001, 1), 0xffffffff80000002);
    CHECK_EQ(INSN2("rolw", 0x12345678, 32), 0x12345678);
    CHECK_EQ(INSN2("rorw", 0xffffffff00000001, 1), 0xffffffff80000000);
    CHECK_EQ(INSN2("rorw", 0x80000000, 32), 0xffffffff80000000);
    CHECK_EQ(INSNI("roriw", 0x12345678, 4), 0xffffffff81234567);
}

static void single_bits(void)
{
    CHECK_EQ(INSN2("bset", 0, 63), MIN64);
    CHECK_EQ(INSN2("bset", 0, 64), 1);
    CHECK_EQ(INSN2("bclr", ONES, 127), ~MIN64);
    CHECK_EQ(INSN2("binv", 5, 2), 1);
    CHECK_EQ(INSN2("bext", MIN64, 63), 1);
    CHECK_EQ(INSN2("bext", MIN64, 62), 0);
    CHECK_EQ(INSNI("bseti", 0, 33), UINT64_C(1) << 33);
    CHECK_EQ(INSNI("bclri", ONES, 0), ONES - 1);
    CHECK_EQ(INSNI("binvi", 0, 63), MIN64);
    CHECK_EQ(INSNI("bexti", MIN64, 63), 1);
}

int main(void)
{
    addresses();
    logic();
    rotations();
    single_bits();
    test_passed(TEST_NAME);
}
