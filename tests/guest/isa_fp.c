/* F and D: rounding, flags, not-a-numbers, boxing, conversions. Operands and results are bit patterns. */
#include "lib.h"

#define TEST_NAME "isa_fp"

enum { NX = 1, UF = 2, OF = 4, DZ = 8, NV = 16 };
enum { RNE, RTZ, RDN, RUP, RMM };

static const uint64_t D_ONE = 0x3ff0000000000000, D_TWO = 0x4000000000000000, D_THREE = 0x4008000000000000,
                      D_INF = 0x7ff0000000000000, D_NAN = 0x7ff8000000000000, D_SNAN = 0x7ff0000000000001,
                      D_MAX = 0x7fefffffffffffff, D_MIN_SUB = 1, D_MINUS = UINT64_C(1) << 63;
static const uint64_t S_BOX = 0xffffffff00000000, S_ONE = 0xffffffff3f800000, S_NAN = 0xffffffff7fc00000,
                      S_SNAN = 0xffffffff7f800001;

static uint64_t flags;

#define FP_RUN(code, ...)                                                                                              \
    ({                                                                                                                 \
        uint64_t fp_result, fp_flags;                                                                                  \
        __asm__ volatile("csrw fflags, zero\n fmv.d.x ft0, %2\n fmv.d.x ft1, %3\n fmv.d.x ft2, %4\n" code              \
                         "\n csrr %1, fflags"                                                                          \
                         : "=&r"(fp_result), "=&r"(fp_flags)                                                           \
                         : __VA_ARGS__                                                                                 \
                         : "ft0", "ft1", "ft2", "ft3");                                                                \
        flags = fp_flags;                                                                                              \
        fp_result;                                                                                                     \
    })
#define R(x)              "r"((uint64_t)(x))
#define F3(name, a, b, c) FP_RUN(name " ft3, ft0, ft1, ft2\n fmv.x.d %0, ft3", R(a), R(b), R(c))
#define F2(name, a, b)    FP_RUN(name " ft3, ft0, ft1\n fmv.x.d %0, ft3", R(a), R(b), R(0))
#define F1(name, a)       FP_RUN(name " ft3, ft0\n fmv.x.d %0, ft3", R(a), R(0), R(0))
#define F2X(name, a, b)   FP_RUN(name " %0, ft0, ft1", R(a), R(b), R(0))
#define F1X(name, a)      FP_RUN(name " %0, ft0", R(a), R(0), R(0))
#define F1XR(name, a, rm) FP_RUN(name " %0, ft0, " rm, R(a), R(0), R(0))
#define FX(name, a)       FP_RUN(name " ft3, %2\n fmv.x.d %0, ft3", R(a), R(0), R(0))

#define IS(expression, value, raised)                                                                                  \
    do {                                                                                                               \
        CHECK_EQ(expression, value);                                                                                   \
        CHECK_EQ(flags, raised);                                                                                       \
    } while (0)

static void rounding(void)
{
    static const struct {
        uint64_t mode, third, minus_third;
    } row[] = {
        { RNE, 0x3fd5555555555555, 0xbfd5555555555555 }, { RTZ, 0x3fd5555555555555, 0xbfd5555555555555 },
        { RDN, 0x3fd5555555555555, 0xbfd5555555555556 }, { RUP, 0x3fd5555555555556, 0xbfd5555555555555 },
        { RMM, 0x3fd5555555555555, 0xbfd5555555555555 },
    };
    for (unsigned i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        csr_write(frm, row[i].mode);
        IS(F2("fdiv.d", D_ONE, D_THREE), row[i].third, NX);
        IS(F2("fdiv.d", D_ONE | D_MINUS, D_THREE), row[i].minus_third, NX);
    }
    /* A tie: 1 + 2^-53. */
    const uint64_t tie = 0x3ca0000000000000;
    csr_write(frm, RNE);
    IS(F2("fadd.d", D_ONE, tie), D_ONE, NX);
    csr_write(frm, RMM);
    IS(F2("fadd.d", D_ONE, tie), D_ONE + 1, NX);
    csr_write(frm, RUP);
    IS(F2("fadd.d", D_ONE, tie), D_ONE + 1, NX);
    csr_write(frm, RDN);
    IS(F2("fsub.d", D_ONE, D_ONE), D_MINUS, 0); /* the zero of an exact difference rounds down to -0 */
    csr_write(frm, RNE);
    IS(F2("fsub.d", D_ONE, D_ONE), 0, 0);
    /* Static rounding wins over frm. */
    IS(FP_RUN("fdiv.d ft3, ft0, ft1, rup\n fmv.x.d %0, ft3", R(D_ONE), R(D_THREE), R(0)), 0x3fd5555555555556, NX);
    IS(F1XR("fcvt.l.d", 0x3ff8000000000000, "rne"), 2, NX);
    IS(F1XR("fcvt.l.d", 0x3ff8000000000000, "rtz"), 1, NX);
    IS(F1XR("fcvt.l.d", 0x4004000000000000, "rne"), 2, NX);
    IS(F1XR("fcvt.l.d", 0x4004000000000000, "rmm"), 3, NX);
    IS(F1XR("fcvt.l.d", 0xbff8000000000000, "rdn"), (uint64_t)-2, NX);
    /* A reserved mode is an illegal instruction. */
    csr_write(frm, 5);
    expect_traps(true);
    (void)F2("fadd.d", D_ONE, D_ONE);
    CHECK_EQ(trap_record[0].count, 1);
    CHECK_EQ(trap_record[0].cause, 2);
    expect_traps(false);
    csr_write(frm, RNE);
}

static void exceptions(void)
{
    IS(F2("fdiv.d", D_ONE, 0), D_INF, DZ);
    IS(F2("fdiv.d", D_ONE, D_MINUS), D_INF | D_MINUS, DZ);
    IS(F2("fdiv.d", 0, 0), D_NAN, NV);
    IS(F2("fsub.d", D_INF, D_INF), D_NAN, NV);
    IS(F2("fmul.d", D_INF, 0), D_NAN, NV);
    IS(F2("fmul.d", D_MAX, D_TWO), D_INF, OF | NX);
    IS(FP_RUN("fmul.d ft3, ft0, ft1, rtz\n fmv.x.d %0, ft3", R(D_MAX), R(D_TWO), R(0)), D_MAX, OF | NX);
    IS(F2("fmul.d", D_MIN_SUB, 0x3fe0000000000000), 0, UF | NX);
    IS(F2("fmul.d", 0x0010000000000000, 0x3fe0000000000000), 0x0008000000000000, 0); /* exact: no underflow */
    /* Tininess is judged after rounding, as if the exponent had no limit: the first product is exact there and below
     * the smallest normal number, the second rounds up to it. */
    IS(F2("fmul.d", 0x0010000000000000, 0x3fefffffffffffff), 0x0010000000000000, UF | NX);
    IS(F2("fmul.d", 0x0010000000000001, 0x3feffffffffffffe), 0x0010000000000000, NX);
    IS(F1("fsqrt.d", D_TWO), 0x3ff6a09e667f3bcd, NX);
    IS(F1("fsqrt.d", D_MINUS), D_MINUS, 0);
    IS(F1("fsqrt.d", D_ONE | D_MINUS), D_NAN, NV);
    IS(F2("fadd.d", D_NAN | 0x1234, D_ONE), D_NAN, 0); /* the canonical one, whatever came in */
    IS(F2("fadd.d", D_SNAN, D_ONE), D_NAN, NV);
    /* Flags accumulate. */
    uint64_t all;
    __asm__ volatile("csrw fflags, zero\n fmv.d.x ft0, %1\n fmv.d.x ft1, zero\n fdiv.d ft2, ft0, ft1\n"
                     "fdiv.d ft2, ft1, ft1\n csrr %0, fcsr"
                     : "=r"(all)
                     : R(D_ONE)
                     : "ft0", "ft1", "ft2");
    CHECK_EQ(all, DZ | NV);
}

static void fused(void)
{
    /* 1 - (1 + 2^-52)(1 - 2^-52) is 2^-104 only if the product is not rounded. */
    IS(F3("fnmsub.d", D_ONE + 1, 0x3feffffffffffffe, D_ONE), 0x3970000000000000, 0);
    IS(F3("fmadd.d", D_TWO, D_THREE, D_ONE), 0x401c000000000000, 0);
    IS(F3("fmsub.d", D_TWO, D_THREE, D_ONE), 0x4014000000000000, 0);
    IS(F3("fnmadd.d", D_TWO, D_THREE, D_ONE), 0xc01c000000000000, 0);
    IS(F3("fnmsub.d", D_TWO, D_THREE, D_ONE), 0xc014000000000000, 0);
    IS(F3("fmadd.d", D_INF, 0, D_NAN), D_NAN, NV); /* infinity times zero, even plus a quiet NaN */
    IS(F3("fmadd.s", S_ONE, S_ONE, S_ONE), S_BOX | 0x40000000, 0);
}

static void selecting(void)
{
    IS(F2("fmin.d", 0, D_MINUS), D_MINUS, 0);
    IS(F2("fmax.d", D_MINUS, 0), 0, 0);
    IS(F2("fmin.d", D_NAN, D_ONE), D_ONE, 0);
    IS(F2("fmax.d", D_SNAN, D_ONE), D_ONE, NV);
    IS(F2("fmin.d", D_NAN | 5, D_NAN | 7), D_NAN, 0);
    IS(F2("fsgnj.d", D_ONE, D_MINUS), D_ONE | D_MINUS, 0);
    IS(F2("fsgnjn.d", D_SNAN, D_ONE), D_SNAN | D_MINUS, 0);
    IS(F2("fsgnjx.d", D_ONE | D_MINUS, D_MINUS), D_ONE, 0);
    IS(F2X("feq.d", 0, D_MINUS), 1, 0);
    IS(F2X("feq.d", D_NAN, D_NAN), 0, 0);
    IS(F2X("feq.d", D_SNAN, D_ONE), 0, NV);
    IS(F2X("flt.d", D_ONE, D_NAN), 0, NV);
    IS(F2X("fle.d", D_ONE, D_ONE), 1, 0);
    IS(F2X("flt.d", D_INF | D_MINUS, D_INF), 1, 0);
    static const struct {
        uint64_t value, class;
    } row[] = { { D_INF | D_MINUS, 0 },
                { D_ONE | D_MINUS, 1 },
                { D_MIN_SUB | D_MINUS, 2 },
                { D_MINUS, 3 },
                { 0, 4 },
                { D_MIN_SUB, 5 },
                { D_ONE, 6 },
                { D_INF, 7 },
                { D_SNAN, 8 },
                { D_NAN, 9 } };
    for (unsigned i = 0; i < sizeof(row) / sizeof(row[0]); i++)
        IS(F1X("fclass.d", row[i].value), UINT64_C(1) << row[i].class, 0);
    IS(F1X("fclass.s", D_ONE), 1 << 9, 0); /* not boxed: a quiet NaN */
}

static void conversions(void)
{
    IS(F1XR("fcvt.w.d", D_NAN, "rtz"), 0x7fffffff, NV);
    IS(F1XR("fcvt.w.d", D_INF | D_MINUS, "rtz"), 0xffffffff80000000, NV);
    IS(F1XR("fcvt.wu.d", D_INF, "rtz"), ~UINT64_C(0), NV); /* sign-extended */
    IS(F1XR("fcvt.wu.d", D_ONE | D_MINUS, "rtz"), 0, NV);
    IS(F1XR("fcvt.wu.d", 0xbfe0000000000000, "rtz"), 0, NX); /* -0.5 rounds to 0: in range */
    IS(F1XR("fcvt.l.d", 0x43e0000000000000, "rtz"), INT64_MAX, NV);
    IS(F1XR("fcvt.lu.d", 0x43e0000000000000, "rtz"), UINT64_C(1) << 63, 0);
    IS(F1XR("fcvt.lu.d", D_NAN | D_MINUS, "rtz"), ~UINT64_C(0), NV);
    IS(FX("fcvt.d.l", INT64_MAX), 0x43e0000000000000, NX);
    IS(FX("fcvt.d.lu", UINT64_MAX), 0x43f0000000000000, NX);
    IS(FX("fcvt.d.w", 0x1ffffffff), 0xbff0000000000000, 0);
    IS(FX("fcvt.d.wu", 0xffffffff80000000), 0x41e0000000000000, 0);
    IS(FX("fcvt.s.w", 0x1000001), S_BOX | 0x4b800000, NX);
    IS(F1("fcvt.s.d", 0x47efffffffffffff), S_BOX | 0x7f800000, OF | NX);
    IS(F1("fcvt.s.d", D_SNAN), S_NAN, NV);
    IS(F1("fcvt.d.s", S_SNAN), D_NAN, NV);
    IS(F1("fcvt.d.s", S_BOX | 1), 0x36a0000000000000, 0);
    IS(F1("fcvt.d.s", D_ONE), D_NAN, 0); /* not boxed */
    IS(F1X("fmv.x.w", 0xffffffff80000000), 0xffffffff80000000, 0);
    IS(F1X("fmv.x.w", 0x1234567880000000), 0xffffffff80000000, 0); /* moves look at no box */
    IS(FX("fmv.w.x", 0x1234567812345678), S_BOX | 0x12345678, 0);
}

static void single(void)
{
    IS(F2("fadd.s", S_ONE, S_ONE), S_BOX | 0x40000000, 0);
    IS(F2("fadd.s", S_ONE, D_ONE), S_NAN, 0); /* the second one is not boxed */
    IS(F2("fdiv.s", S_ONE, S_BOX | 0x40400000), S_BOX | 0x3eaaaaab, NX);
    IS(F1("fsqrt.s", S_BOX | 0x40000000), S_BOX | 0x3fb504f3, NX);
    IS(F2("fmin.s", S_BOX, S_BOX | 0x80000000), S_BOX | 0x80000000, 0);
    IS(F2("fsgnjn.s", D_ONE, D_ONE), S_BOX | 0xffc00000, 0); /* of the canonical NaN */
    static uint64_t cell;
    uint64_t loaded;
    cell = 0x3f8000003fc00000;
    __asm__ volatile("flw ft0, 4(%1)\n fmv.x.d %0, ft0\n fsw ft0, 0(%1)"
                     : "=&r"(loaded)
                     : "r"(&cell)
                     : "ft0", "memory");
    CHECK_EQ(loaded, S_ONE);
    CHECK_EQ(cell, 0x3f8000003f800000);
}

static void state(void)
{
    uint64_t old;

    csr_clear(mstatus, 0x6000);
    csr_set(mstatus, 0x2000); /* initial */
    (void)F2("fadd.d", D_ONE, D_ONE);
    CHECK_EQ(csr_read(mstatus) >> 13 & 3, 3);
    CHECK_EQ(csr_read(mstatus) >> 63, 1);
    csr_write(fcsr, 0xff);
    CHECK_EQ(csr_read(fflags), 0x1f);
    CHECK_EQ(csr_read(frm), 7);
    __asm__ volatile("fsrmi %0, 2" : "=r"(old));
    CHECK_EQ(old, 7);
    CHECK_EQ(csr_read(fcsr), 2 << 5 | 0x1f);
    csr_write(fcsr, 0);
    csr_clear(mstatus, 0x6000);
    CHECK_EQ(csr_read(mstatus) >> 63, 0);
    expect_traps(true);
    __asm__ volatile("fadd.d ft0, ft0, ft0");
    CHECK_EQ(trap_record[0].count, 1);
    CHECK_EQ(trap_record[0].cause, 2);
    (void)csr_read(fcsr);
    CHECK_EQ(trap_record[0].count, 2);
    expect_traps(false);
    csr_set(mstatus, 0x6000);
}

int main(void)
{
    rounding();
    exceptions();
    fused();
    selecting();
    conversions();
    single();
    state();
    test_passed(TEST_NAME);
}
