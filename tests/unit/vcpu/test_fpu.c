/* The host's own FPU is the oracle for four rounding modes, flags included; round-to-nearest-away, NaNs and integer
 * limits are checked by reasoning. Operands and results are volatile so that no operation leaves its bracket of
 * fesetround and fetestexcept. */
#include "tests/unit/test.h"

#include <fenv.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "vcpu/fpu.h"

enum { ROUNDS = 60000 };

#define SIGN32 UINT32_C(0x80000000)
#define SIGN64 UINT64_C(0x8000000000000000)
#define INF32  UINT32_C(0x7f800000)
#define INF64  UINT64_C(0x7ff0000000000000)
#define SNAN32 UINT32_C(0x7f800001)
#define SNAN64 UINT64_C(0x7ff0000000000001)

static uint64_t seed = 0x9e3779b97f4a7c15;

static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed * UINT64_C(0x2545f4914f6cdd1d);
}

static const uint64_t edges64[] = {
    0,
    1,
    2,
    UINT64_C(0x000fffffffffffff),
    UINT64_C(0x0010000000000000),
    UINT64_C(0x0010000000000001),
    UINT64_C(0x001fffffffffffff),
    UINT64_C(0x3cb0000000000000),
    UINT64_C(0x3fe0000000000000),
    UINT64_C(0x3fefffffffffffff),
    UINT64_C(0x3ff0000000000000),
    UINT64_C(0x3ff0000000000001),
    UINT64_C(0x3ff8000000000000),
    UINT64_C(0x4000000000000000),
    UINT64_C(0x41dfffffffc00000),
    UINT64_C(0x41e0000000000000),
    UINT64_C(0x41efffffffe00000),
    UINT64_C(0x43dfffffffffffff),
    UINT64_C(0x43e0000000000000),
    UINT64_C(0x43efffffffffffff),
    UINT64_C(0x43f0000000000000),
    UINT64_C(0x47efffffe0000000),
    UINT64_C(0x47effffff0000000),
    UINT64_C(0x380fffffffffffff),
    UINT64_C(0x7fe0000000000000),
    UINT64_C(0x7fefffffffffffff),
    INF64,
    SNAN64,
    UINT64_C(0x7ff7ffffffffffff),
    UINT64_C(0x7ff8000000000000),
    UINT64_C(0x7fffffffffffffff),
};

static const uint32_t edges32[] = {
    0,          1,          2,          0x007fffff, 0x00800000, 0x00800001, 0x00ffffff, 0x33800000,
    0x3f000000, 0x3f7fffff, 0x3f800000, 0x3f800001, 0x3fc00000, 0x40000000, 0x4effffff, 0x4f000000,
    0x4f7fffff, 0x4f800000, 0x5effffff, 0x5f000000, 0x5f7fffff, 0x5f800000, 0x7f000000, 0x7f7fffff,
    INF32,      SNAN32,     0x7fbfffff, 0x7fc00000, 0x7fffffff,
};

/* A mixture: anything, edges, few significand bits (ties), exponents near each other and near both ends. */
static uint64_t any64(uint64_t near)
{
    uint64_t r = rnd();
    switch (rnd() % 8) {
    case 0: return r;
    case 1: return edges64[r % (sizeof(edges64) / sizeof(edges64[0]))] | (r & SIGN64);
    case 2: return (r & (SIGN64 | INF64)) | (rnd() & rnd() & rnd() & UINT64_C(0x000fffff00000003));
    case 3: return (near & INF64) + ((r >> 40 & 7) << 52) - (UINT64_C(3) << 52) + (r & UINT64_C(0x800fffffffffffff));
    case 4: return r & (SIGN64 | UINT64_C(0x000fffffffffffff));                        /* subnormal */
    case 5: return (r & (SIGN64 | UINT64_C(0x003fffffffffffff)));                      /* tiny */
    case 6: return (near ^ SIGN64) + (r & 3);                                          /* cancels */
    default: return (r & UINT64_C(0x807fffffffffffff)) + UINT64_C(0x3fc0000000000000); /* about 1 */
    }
}

static uint32_t any32(uint32_t near)
{
    uint32_t r = (uint32_t)rnd();
    switch (rnd() % 8) {
    case 0: return r;
    case 1: return edges32[(r & 0xffff) % (sizeof(edges32) / sizeof(edges32[0]))] | (r & SIGN32);
    case 2: return (r & (SIGN32 | INF32)) | ((uint32_t)(rnd() & rnd() & rnd()) & 0x007ff003);
    case 3: return (near & INF32) + ((uint32_t)(rnd() & 7) << 23) - (UINT32_C(3) << 23) + (r & 0x807fffff);
    case 4: return r & (SIGN32 | 0x007fffff);
    case 5: return r & (SIGN32 | 0x01ffffff);
    case 6: return (near ^ SIGN32) + (r & 3);
    default: return (r & 0x83ffffff) + 0x3e000000;
    }
}

static double d_of(uint64_t bits)
{
    double d;
    memcpy(&d, &bits, 8);
    return d;
}
static uint64_t bits_d(double d)
{
    uint64_t bits;
    memcpy(&bits, &d, 8);
    return bits;
}
static float f_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
static uint32_t bits_f(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}

static bool is_nan64(uint64_t a)
{
    return (a & ~SIGN64) > INF64;
}
static bool is_nan32(uint32_t a)
{
    return (a & ~SIGN32) > INF32;
}

static const int host_mode[4] = { FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD };

static void host_begin(unsigned rm)
{
    fesetround(host_mode[rm]);
    feclearexcept(FE_ALL_EXCEPT);
}

static unsigned host_end(void)
{
    int raised = fetestexcept(FE_ALL_EXCEPT);
    fesetround(FE_TONEAREST);
    return (raised & FE_INEXACT ? FPU_NX : 0) | (raised & FE_UNDERFLOW ? FPU_UF : 0) |
           (raised & FE_OVERFLOW ? FPU_OF : 0) | (raised & FE_DIVBYZERO ? FPU_DZ : 0) |
           (raised & FE_INVALID ? FPU_NV : 0);
}

enum op { ADD, SUB, MUL, DIV, SQRT, FMA, OPS };
static const char *const op_names[OPS] = { "add", "sub", "mul", "div", "sqrt", "fma" };

static uint64_t host64(enum op op, unsigned rm, uint64_t a, uint64_t b, uint64_t c, unsigned *flags)
{
    volatile double x = d_of(a), y = d_of(b), z = d_of(c), r = 0;
    host_begin(rm);
    switch (op) {
    case ADD: r = x + y; break;
    case SUB: r = x - y; break;
    case MUL: r = x * y; break;
    case DIV: r = x / y; break;
    case SQRT: r = sqrt(x); break;
    default: r = fma(x, y, z); break;
    }
    *flags = host_end();
    uint64_t bits = bits_d(r);
    return is_nan64(bits) ? FPU_NAN64 : bits;
}

static uint32_t host32(enum op op, unsigned rm, uint32_t a, uint32_t b, uint32_t c, unsigned *flags)
{
    volatile float x = f_of(a), y = f_of(b), z = f_of(c), r = 0;
    host_begin(rm);
    switch (op) {
    case ADD: r = x + y; break;
    case SUB: r = x - y; break;
    case MUL: r = x * y; break;
    case DIV: r = x / y; break;
    case SQRT: r = sqrtf(x); break;
    default: r = fmaf(x, y, z); break;
    }
    *flags = host_end();
    uint32_t bits = bits_f(r);
    return is_nan32(bits) ? FPU_NAN32 : bits;
}

static uint64_t ours64(enum op op, unsigned rm, uint64_t a, uint64_t b, uint64_t c, unsigned *flags)
{
    switch (op) {
    case ADD: return fpu_add64(a, b, rm, flags);
    case SUB: return fpu_sub64(a, b, rm, flags);
    case MUL: return fpu_mul64(a, b, rm, flags);
    case DIV: return fpu_div64(a, b, rm, flags);
    case SQRT: return fpu_sqrt64(a, rm, flags);
    default: return fpu_fma64(a, b, c, rm, flags);
    }
}

static uint32_t ours32(enum op op, unsigned rm, uint32_t a, uint32_t b, uint32_t c, unsigned *flags)
{
    switch (op) {
    case ADD: return fpu_add32(a, b, rm, flags);
    case SUB: return fpu_sub32(a, b, rm, flags);
    case MUL: return fpu_mul32(a, b, rm, flags);
    case DIV: return fpu_div32(a, b, rm, flags);
    case SQRT: return fpu_sqrt32(a, rm, flags);
    default: return fpu_fma32(a, b, c, rm, flags);
    }
}

/* Hosts may leave NV alone for inf * 0 + quiet NaN; the ISA does not. */
static bool inf_times_zero(uint64_t a, uint64_t b, uint64_t inf, uint64_t sign)
{
    a &= ~sign;
    b &= ~sign;
    return (a == inf && b == 0) || (a == 0 && b == inf);
}

/* Flags accrue: both ways of calling, with nothing and with everything set before. */
static void compare64(enum op op, unsigned rm, uint64_t a, uint64_t b, uint64_t c)
{
    unsigned host_flags, flags = 0, full = 31;
    uint64_t want = host64(op, rm, a, b, c, &host_flags), got = ours64(op, rm, a, b, c, &flags);
    if (op == FMA && inf_times_zero(a, b, INF64, SIGN64))
        host_flags |= FPU_NV;
    uint64_t again = ours64(op, rm, a, b, c, &full);
    unsigned nx = FPU_NX; /* a path that need not find out about inexactness must not lose other flags */
    uint64_t third = ours64(op, rm, a, b, c, &nx);
    if (got != want || flags != host_flags || again != want || full != 31 || third != want ||
        nx != (host_flags | FPU_NX))
        fail_msg("%s64 rm %u: %016lx %016lx %016lx gives %016lx flags %02x, not %016lx flags %02x", op_names[op], rm, a,
                 b, c, got, flags, want, host_flags);
}

static void compare32(enum op op, unsigned rm, uint32_t a, uint32_t b, uint32_t c)
{
    unsigned host_flags, flags = 0, full = 31;
    uint32_t want = host32(op, rm, a, b, c, &host_flags), got = ours32(op, rm, a, b, c, &flags);
    if (op == FMA && inf_times_zero(a, b, INF32, SIGN32))
        host_flags |= FPU_NV;
    uint32_t again = ours32(op, rm, a, b, c, &full);
    unsigned nx = FPU_NX;
    uint32_t third = ours32(op, rm, a, b, c, &nx);
    if (got != want || flags != host_flags || again != want || full != 31 || third != want ||
        nx != (host_flags | FPU_NX))
        fail_msg("%s32 rm %u: %08x %08x %08x gives %08x flags %02x, not %08x flags %02x", op_names[op], rm, a, b, c,
                 got, flags, want, host_flags);
}

static void arithmetic_agrees_with_the_host_in_four_modes(void **state)
{
    (void)state;
    for (int op = ADD; op < OPS; op++)
        for (int i = 0; i < ROUNDS; i++) {
            uint64_t a = any64(rnd()), b = any64(a), c = any64(b);
            uint32_t x = any32((uint32_t)rnd()), y = any32(x), z = any32(y);
            if (op == FMA && i % 2) { /* an addend close to the product: cancellation */
                unsigned ignored;
                c = host64(MUL, FPU_RNE, a, b, 0, &ignored) ^ SIGN64;
                z = host32(MUL, FPU_RNE, x, y, 0, &ignored) ^ SIGN32;
            }
            compare64(op, (unsigned)i % 4, a, b, c);
            compare32(op, (unsigned)i % 4, x, y, z);
        }
}

static void every_pair_of_edge_values_agrees_with_the_host(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * sizeof(edges64) / 8; i++)
        for (size_t j = 0; j < 2 * sizeof(edges64) / 8; j++)
            for (unsigned rm = 0; rm < 4; rm++)
                for (int op = ADD; op < FMA; op++)
                    compare64(op, rm, edges64[i / 2] | (i & 1 ? SIGN64 : 0), edges64[j / 2] | (j & 1 ? SIGN64 : 0), 0);
    for (size_t i = 0; i < 2 * sizeof(edges32) / 4; i++)
        for (size_t j = 0; j < 2 * sizeof(edges32) / 4; j++)
            for (unsigned rm = 0; rm < 4; rm++)
                for (int op = ADD; op < FMA; op++)
                    compare32(op, rm, edges32[i / 2] | (i & 1 ? SIGN32 : 0), edges32[j / 2] | (j & 1 ? SIGN32 : 0), 0);
}

static void every_triple_of_edge_values_fuses_as_the_host_does(void **state)
{
    (void)state;
    const size_t n64 = 2 * sizeof(edges64) / 8, n32 = 2 * sizeof(edges32) / 4;
    for (size_t i = 0; i < n64 * n64 * n64; i++) {
        size_t at[3] = { i % n64, i / n64 % n64, i / n64 / n64 };
        uint64_t v[3];
        for (int k = 0; k < 3; k++)
            v[k] = edges64[at[k] / 2] | (at[k] & 1 ? SIGN64 : 0);
        compare64(FMA, (unsigned)i % 4, v[0], v[1], v[2]);
    }
    for (size_t i = 0; i < n32 * n32 * n32; i++) {
        size_t at[3] = { i % n32, i / n32 % n32, i / n32 / n32 };
        uint32_t v[3];
        for (int k = 0; k < 3; k++)
            v[k] = edges32[at[k] / 2] | (at[k] & 1 ? SIGN32 : 0);
        compare32(FMA, (unsigned)i % 4, v[0], v[1], v[2]);
    }
}

/* --- nearest, ties away ------------------------------------------------------------------------------------ */

/* The float nearest to x, ties away, for an x that is exact: between the neighbours that the host's directed modes
 * give, whose distances are exact here. */
static uint32_t nearest_away32(double exact)
{
    unsigned ignored;
    volatile double x = exact;
    volatile float low, high;
    host_begin(FPU_RDN);
    low = (float)x;
    ignored = host_end();
    host_begin(FPU_RUP);
    high = (float)x;
    ignored = host_end();
    (void)ignored;
    if (low == high)
        return bits_f(low);
    if (isinf(low) || isinf(high)) { /* half way past the largest finite number overflows */
        double limit = 0x1.ffffffp127;
        return fabs(exact) >= limit ? bits_f(isinf(low) ? low : high) : bits_f(isinf(low) ? high : low);
    }
    double below = exact - (double)low, above = (double)high - exact;
    if (below == above)
        return bits_f(exact > 0 ? high : low);
    return bits_f(below < above ? low : high);
}

static void products_round_half_away_in_mode_rmm(void **state)
{
    (void)state;
    int ties = 0;
    for (int i = 0; i < ROUNDS; i++) {
        uint32_t a = any32((uint32_t)rnd()), b = any32(a);
        if (i % 2) { /* few bits: many ties */
            a &= ~UINT32_C(0x3ff);
            b &= ~UINT32_C(0x7ff);
        }
        if (is_nan32(a) || is_nan32(b) || (a & ~SIGN32) == INF32 || (b & ~SIGN32) == INF32)
            continue;
        double exact = (double)f_of(a) * (double)f_of(b); /* 48 bits, and no exponent too small for a double */
        if (exact == 0)
            continue;
        unsigned flags = 0, rne = 0;
        uint32_t got = fpu_mul32(a, b, FPU_RMM, &flags), want = nearest_away32(exact);
        if (got != want)
            fail_msg("mul32 rmm: %08x %08x gives %08x, not %08x", a, b, got, want);
        ties += got != fpu_mul32(a, b, FPU_RNE, &rne);
        assert_int_equal(flags & FPU_NX, rne & FPU_NX);
    }
    assert_true(ties > 50); /* or this test shows nothing */
}

static void conversions_to_single_round_half_away_in_mode_rmm(void **state)
{
    (void)state;
    int ties = 0;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t a = (any64(rnd()) & UINT64_C(0x8fffffffffffffff)) | UINT64_C(0x3000000000000000);
        if (rnd() & 1)
            a = (a & ~UINT64_C(0x3fffffff)) | UINT64_C(0x10000000); /* exactly half a place */
        unsigned flags = 0, rne = 0;
        if (is_nan64(a) || (a & ~SIGN64) == INF64)
            continue;
        uint32_t got = fpu_f64_to_f32(a, FPU_RMM, &flags), want = nearest_away32(d_of(a));
        if (got != want)
            fail_msg("f64_to_f32 rmm: %016lx gives %08x, not %08x", a, got, want);
        ties += got != fpu_f64_to_f32(a, FPU_RNE, &rne);
    }
    assert_true(ties > 50);
}

static void sums_and_fused_products_round_half_away_in_mode_rmm(void **state)
{
    (void)state;
    unsigned flags = 0;
    const uint64_t one = UINT64_C(0x3ff0000000000000), half_ulp = UINT64_C(0x3ca0000000000000);
    assert_true(fpu_add64(one, half_ulp, FPU_RNE, &flags) == one);
    assert_true(fpu_add64(one, half_ulp, FPU_RMM, &flags) == one + 1);
    assert_true(fpu_add64(one, half_ulp - 1, FPU_RMM, &flags) == one);
    assert_true(fpu_sub64(one | SIGN64, half_ulp, FPU_RMM, &flags) == ((one + 1) | SIGN64));
    assert_true(fpu_fma64(half_ulp, one, one, FPU_RMM, &flags) == one + 1);
    assert_true(fpu_fma64(half_ulp, one, one, FPU_RNE, &flags) == one);
    /* The smallest subnormal divided by 2 is half a place below everything. */
    const uint64_t two = UINT64_C(0x4000000000000000), four = UINT64_C(0x4010000000000000);
    flags = 0;
    assert_true(fpu_div64(1, two, FPU_RMM, &flags) == 1);
    assert_int_equal(flags, FPU_NX | FPU_UF);
    assert_true(fpu_div64(1, two, FPU_RNE, &flags) == 0);
    assert_true(fpu_div64(1, four, FPU_RMM, &flags) == 0);
    /* Beyond the largest number RMM overflows to infinity, as nearest-even does. */
    assert_true(fpu_add64(INF64 - 1, INF64 - 1, FPU_RMM, &flags) == INF64);
}

/* A square root is never half way between two numbers, so both nearest modes agree; and so does a quotient above the
 * subnormals. */
static void roots_and_normal_quotients_have_no_ties(void **state)
{
    (void)state;
    for (int i = 0; i < ROUNDS / 4; i++) {
        unsigned away = 0, even = 0;
        uint64_t a = any64(rnd()), b = any64(a);
        assert_true(fpu_sqrt64(a, FPU_RMM, &away) == fpu_sqrt64(a, FPU_RNE, &even));
        assert_int_equal(away, even);
        uint64_t q = fpu_div64(a, b, FPU_RNE, &even);
        if ((q & INF64) >= UINT64_C(0x0020000000000000))
            assert_true(fpu_div64(a, b, FPU_RMM, &away) == q);
    }
}

/* --- NaN and flags ----------------------------------------------------------------------------------------- */

static void nan_results_are_canonical(void **state)
{
    (void)state;
    unsigned flags = 0;
    assert_true(fpu_add64(UINT64_C(0xfff8000000001234), edges64[10], FPU_RNE, &flags) == FPU_NAN64);
    assert_true(fpu_mul32(UINT32_C(0xffc01234), 0, FPU_RNE, &flags) == FPU_NAN32);
    assert_true(fpu_f32_to_f64(UINT32_C(0xffc01234), &flags) == FPU_NAN64);
    assert_true(fpu_f64_to_f32(UINT64_C(0xfff8000000001234), FPU_RNE, &flags) == FPU_NAN32);
    assert_int_equal(flags, 0); /* quiet all the way */
    assert_true(fpu_f32_to_f64(SNAN32, &flags) == FPU_NAN64);
    assert_int_equal(flags, FPU_NV);
    flags = 0;
    assert_true(fpu_sqrt64(UINT64_C(0xbff0000000000000), FPU_RNE, &flags) == FPU_NAN64);
    assert_int_equal(flags, FPU_NV);
}

static void infinity_times_zero_is_invalid_even_plus_a_quiet_nan(void **state)
{
    (void)state;
    unsigned flags = 0;
    assert_true(fpu_fma64(INF64, 0, FPU_NAN64, FPU_RNE, &flags) == FPU_NAN64);
    assert_int_equal(flags, FPU_NV);
    flags = 0;
    assert_true(fpu_fma32(0, INF32 | SIGN32, FPU_NAN32, FPU_RNE, &flags) == FPU_NAN32);
    assert_int_equal(flags, FPU_NV);
}

static void tininess_is_detected_after_rounding(void **state)
{
    (void)state;
    unsigned flags = 0;
    /* Just below the smallest normal double; rounding with an unbounded exponent reaches it: not tiny. */
    const uint64_t just_below_one = UINT64_C(0x3fefffffffffffff), min_normal = UINT64_C(0x0010000000000000);
    assert_true(fpu_mul64(min_normal, just_below_one, FPU_RNE, &flags) == min_normal);
    assert_int_equal(flags, FPU_NX | FPU_UF); /* 53 bits hold it exactly below: it was tiny */
    flags = 0;
    const uint64_t a = UINT64_C(0x3fe0000000000001), b = UINT64_C(0x001ffffffffffffe);
    assert_true(fpu_mul64(a, b, FPU_RNE, &flags) == min_normal); /* (1/2 + 2^-53)(2 - 2^-51): above after rounding */
    assert_int_equal(flags, FPU_NX);
}

static void minimum_and_maximum_prefer_numbers_and_order_zeros(void **state)
{
    (void)state;
    unsigned flags = 0;
    assert_true(fpu_min64(0, SIGN64, &flags) == SIGN64);
    assert_true(fpu_max64(SIGN64, 0, &flags) == 0);
    assert_true(fpu_min32(SIGN32, 0, &flags) == SIGN32);
    assert_true(fpu_max32(0, SIGN32, &flags) == 0);
    assert_true(fpu_min64(FPU_NAN64, 5, &flags) == 5);
    assert_true(fpu_max32(5, FPU_NAN32 | SIGN32, &flags) == 5);
    assert_true(fpu_min64(FPU_NAN64 | 7, FPU_NAN64 | 9, &flags) == FPU_NAN64);
    assert_int_equal(flags, 0);
    assert_true(fpu_min64(SNAN64, 5, &flags) == 5);
    assert_int_equal(flags, FPU_NV);
    for (int i = 0; i < ROUNDS / 4; i++) {
        uint64_t a = any64(rnd()), b = any64(a);
        if (is_nan64(a) || is_nan64(b) || ((a | b) & ~SIGN64) == 0)
            continue;
        assert_true(d_of(fpu_min64(a, b, &flags)) == fmin(d_of(a), d_of(b)));
        assert_true(d_of(fpu_max64(a, b, &flags)) == fmax(d_of(a), d_of(b)));
    }
}

static void comparisons_agree_with_the_host(void **state)
{
    (void)state;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t a = any64(rnd()), b = i % 5 ? any64(a) : a;
        uint32_t x = any32((uint32_t)rnd()), y = i % 5 ? any32(x) : x;
        volatile double da = d_of(a), db = d_of(b);
        volatile float fx = f_of(x), fy = f_of(y);
        unsigned flags, host;
        host_begin(FPU_RNE);
        volatile bool eq = da == db;
        host = host_end();
        flags = 0;
        assert_true(fpu_eq64(a, b, &flags) == eq);
        assert_int_equal(flags, host);
        host_begin(FPU_RNE);
        volatile bool lt = da < db;
        host = host_end();
        flags = 0;
        assert_true(fpu_lt64(a, b, &flags) == lt);
        assert_int_equal(flags, host);
        host_begin(FPU_RNE);
        volatile bool le = da <= db;
        host = host_end();
        flags = 0;
        assert_true(fpu_le64(a, b, &flags) == le);
        assert_int_equal(flags, host);
        host_begin(FPU_RNE);
        eq = fx == fy;
        host = host_end();
        flags = 0;
        assert_true(fpu_eq32(x, y, &flags) == eq);
        assert_int_equal(flags, host);
        host_begin(FPU_RNE);
        lt = fx < fy;
        host = host_end();
        flags = 0;
        assert_true(fpu_lt32(x, y, &flags) == lt);
        assert_int_equal(flags, host);
        host_begin(FPU_RNE);
        le = fx <= fy;
        host = host_end();
        flags = 0;
        assert_true(fpu_le32(x, y, &flags) == le);
        assert_int_equal(flags, host);
    }
}

static void classes_are_one_bit_each(void **state)
{
    (void)state;
    static const struct {
        uint64_t bits;
        unsigned mask;
    } row[] = {
        { INF64 | SIGN64, 1 },
        { UINT64_C(0xbff0000000000000), 2 },
        { SIGN64 | 1, 4 },
        { SIGN64, 8 },
        { 0, 16 },
        { UINT64_C(0x000fffffffffffff), 32 },
        { UINT64_C(0x0010000000000000), 64 },
        { INF64, 128 },
        { SNAN64, 256 },
        { FPU_NAN64 | SIGN64, 512 },
    };
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++)
        assert_int_equal(fpu_class64(row[i].bits), row[i].mask);
    assert_int_equal(fpu_class32(SIGN32 | 0x007fffff), 4);
    assert_int_equal(fpu_class32(0x00800000), 64);
    assert_int_equal(fpu_class32(SNAN32), 256);
    assert_int_equal(fpu_class32(FPU_NAN32), 512);
}

/* --- conversions ------------------------------------------------------------------------------------------- */

struct int_case {
    uint64_t (*from64)(uint64_t, unsigned, unsigned *);
    uint64_t (*from32)(uint32_t, unsigned, unsigned *);
    long double min, max; /* x87 long double holds every 64-bit integer */
    uint64_t at_min, at_max;
    bool narrow; /* results are sign-extended from 32 bits */
};

static const struct int_case int_cases[] = {
    { fpu_f64_to_i32, fpu_f32_to_i32, -0x1p31L, 0x1p31L - 1, UINT64_C(0xffffffff80000000), 0x7fffffff, true },
    { fpu_f64_to_u32, fpu_f32_to_u32, 0, 0x1p32L - 1, 0, UINT64_MAX, true },
    { fpu_f64_to_i64, fpu_f32_to_i64, -0x1p63L, 0x1p63L - 1, SIGN64, INT64_MAX, false },
    { fpu_f64_to_u64, fpu_f32_to_u64, 0, 0x1p64L - 1, 0, UINT64_MAX, false },
};

static long double round_by_reasoning(long double x, unsigned rm)
{
    long double low = floorl(x), high = ceill(x);
    switch (rm) {
    case FPU_RTZ: return x < 0 ? high : low;
    case FPU_RDN: return low;
    case FPU_RUP: return high;
    default: break;
    }
    if (low == high)
        return low;
    if (x - low != high - x)
        return x - low < high - x ? low : high;
    if (rm == FPU_RMM)
        return x < 0 ? low : high;
    return fmodl(low, 2) == 0 ? low : high;
}

static void expect_int(const struct int_case *c, long double x, unsigned rm, uint64_t got, unsigned flags)
{
    long double whole = isnan(x) || isinf(x) ? x : round_by_reasoning(x, rm);
    uint64_t want;
    unsigned want_flags = 0;
    if (isnan(x) || whole > c->max) {
        want = c->at_max;
        want_flags = FPU_NV;
    } else if (whole < c->min) {
        want = c->at_min;
        want_flags = FPU_NV;
    } else {
        want = whole < 0 ? (uint64_t)(int64_t)whole : (uint64_t)whole;
        if (c->narrow)
            want = (uint64_t)(int64_t)(int32_t)(uint32_t)want;
        want_flags = whole == x ? 0 : FPU_NX;
    }
    if (got != want || flags != want_flags)
        fail_msg("to integer %d rm %u: %.20Lg gives %016lx flags %02x, not %016lx flags %02x", (int)(c - int_cases), rm,
                 x, got, flags, want, want_flags);
}

static void conversions_to_integers_saturate_and_round_in_five_modes(void **state)
{
    (void)state;
    for (int i = 0; i < ROUNDS; i++)
        for (size_t k = 0; k < sizeof(int_cases) / sizeof(int_cases[0]); k++) {
            unsigned rm = (unsigned)i % 5, flags = 0;
            uint64_t a = any64(rnd());
            uint32_t x = any32((uint32_t)rnd());
            if (i % 3) { /* exponents from 1/4 to 2^66, often with halves */
                a = (a & UINT64_C(0x800fffffffffffff)) | (UINT64_C(1021) + rnd() % 68) << 52;
                x = (x & 0x807fffff) | (UINT32_C(125) + (uint32_t)(rnd() % 68)) << 23;
            }
            if (i % 7 == 0)
                a = bits_d((double)(int64_t)(rnd() % 64) / 2 - 8);
            uint64_t got = int_cases[k].from64(a, rm, &flags);
            expect_int(&int_cases[k], (long double)d_of(a), rm, got, flags);
            flags = 0;
            got = int_cases[k].from32(x, rm, &flags);
            expect_int(&int_cases[k], (long double)f_of(x), rm, got, flags);
        }
}

static uint64_t any_int(void)
{
    uint64_t r = rnd() >> (rnd() & 63);
    switch (rnd() % 4) {
    case 0: return r;
    case 1: return -r;
    case 2: return (UINT64_C(1) << (rnd() & 63)) + (rnd() % 3) - 1;
    default: return (r << 11) + (UINT64_C(1) << 10); /* half a place of a double, at 64 bits */
    }
}

static void conversions_from_integers_agree_with_the_host(void **state)
{
    (void)state;
#define CHECK(type, ours, floating, bits_of)                                                                           \
    do {                                                                                                               \
        volatile type value = (type)n;                                                                                 \
        volatile floating result;                                                                                      \
        host_begin(rm);                                                                                                \
        result = (floating)value;                                                                                      \
        unsigned want_flags = host_end(), flags = 0;                                                                   \
        assert_true(ours(n, rm, &flags) == bits_of(result));                                                           \
        assert_int_equal(flags, want_flags);                                                                           \
    } while (0)
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t n = any_int();
        unsigned rm = (unsigned)i % 4;
        CHECK(int32_t, fpu_i32_to_f32, float, bits_f);
        CHECK(uint32_t, fpu_u32_to_f32, float, bits_f);
        CHECK(int64_t, fpu_i64_to_f32, float, bits_f);
        CHECK(int32_t, fpu_i32_to_f64, double, bits_d);
        CHECK(uint32_t, fpu_u32_to_f64, double, bits_d);
        CHECK(int64_t, fpu_i64_to_f64, double, bits_d);
    }
#undef CHECK
    unsigned flags = 0;
    /* Unsigned 64-bit has no host instruction to lean on. */
    assert_true(fpu_u64_to_f64(UINT64_MAX, FPU_RNE, &flags) == UINT64_C(0x43f0000000000000));
    assert_true(fpu_u64_to_f64(UINT64_MAX, FPU_RTZ, &flags) == UINT64_C(0x43efffffffffffff));
    assert_true(fpu_u64_to_f32(UINT64_C(0xffffff8000000000), FPU_RNE, &flags) == UINT32_C(0x5f800000));
    assert_true(fpu_u64_to_f32(UINT64_C(0xffffff0000000000), FPU_RNE, &flags) == UINT32_C(0x5f7fffff));
    assert_int_equal(flags, FPU_NX);
    for (int i = 0; i < ROUNDS / 4; i++) {
        uint64_t n = any_int() >> 1;
        unsigned rm = (unsigned)i % 5, a = 0, b = 0;
        assert_true(fpu_u64_to_f64(n, rm, &a) == fpu_i64_to_f64(n, rm, &b));
        assert_true(fpu_u64_to_f32(n, rm, &a) == fpu_i64_to_f32(n, rm, &b));
        assert_int_equal(a, b);
        n |= SIGN64; /* the upper half: exact in a long double, whose halves are exact as well */
        a = 0;
        long double x = (long double)n;
        uint64_t got = fpu_u64_to_f64(n, rm, &a);
        long double unit = 2048, want = round_by_reasoning(x / unit, rm) * unit;
        assert_true((long double)d_of(got) == want);
        assert_int_equal(a, want == x ? 0 : FPU_NX);
    }
}

static void conversions_between_formats_agree_with_the_host(void **state)
{
    (void)state;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t a = any64(rnd());
        uint32_t x = any32((uint32_t)rnd());
        unsigned rm = (unsigned)i % 4, flags = 0;
        if (i % 2) /* around the limits of a single */
            a = (a & UINT64_C(0x800fffffffffffff)) | (rnd() % 2 ? 868 + rnd() % 30 : 1146 + rnd() % 6) << 52;
        volatile double da = d_of(a), wide;
        volatile float fx = f_of(x), narrow;
        host_begin(rm);
        narrow = (float)da;
        unsigned want = host_end();
        uint32_t got = fpu_f64_to_f32(a, rm, &flags), expected = is_nan64(a) ? FPU_NAN32 : bits_f(narrow);
        if (got != expected || flags != want)
            fail_msg("f64_to_f32 rm %u: %016lx gives %08x flags %02x, not %08x flags %02x", rm, a, got, flags, expected,
                     want);
        flags = 0;
        host_begin(rm);
        wide = (double)fx;
        want = host_end();
        assert_true(fpu_f32_to_f64(x, &flags) == (is_nan32(x) ? FPU_NAN64 : bits_d(wide)));
        assert_int_equal(flags, want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arithmetic_agrees_with_the_host_in_four_modes),
        cmocka_unit_test(every_pair_of_edge_values_agrees_with_the_host),
        cmocka_unit_test(every_triple_of_edge_values_fuses_as_the_host_does),
        cmocka_unit_test(products_round_half_away_in_mode_rmm),
        cmocka_unit_test(conversions_to_single_round_half_away_in_mode_rmm),
        cmocka_unit_test(sums_and_fused_products_round_half_away_in_mode_rmm),
        cmocka_unit_test(roots_and_normal_quotients_have_no_ties),
        cmocka_unit_test(nan_results_are_canonical),
        cmocka_unit_test(infinity_times_zero_is_invalid_even_plus_a_quiet_nan),
        cmocka_unit_test(tininess_is_detected_after_rounding),
        cmocka_unit_test(minimum_and_maximum_prefer_numbers_and_order_zeros),
        cmocka_unit_test(comparisons_agree_with_the_host),
        cmocka_unit_test(classes_are_one_bit_each),
        cmocka_unit_test(conversions_to_integers_saturate_and_round_in_five_modes),
        cmocka_unit_test(conversions_from_integers_agree_with_the_host),
        cmocka_unit_test(conversions_between_formats_agree_with_the_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
