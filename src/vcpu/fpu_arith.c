#include "vcpu/fpu_core.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* The short way through the host's FPU, which is in its default state on every thread of this program.
 *
 * When NX has already accrued, nobody can see whether this operation raises it. If then the result to nearest is a
 * normal number above the smallest one, no other flag can have been raised: NaNs and infinities come out as such,
 * and what underflows comes out at or below the smallest normal number. So one look at the result's exponent is
 * enough, and operands need no look at all. */
static inline bool host_may(unsigned rm, const unsigned *flags)
{
    return FLT_EVAL_METHOD == 0 && rm == FPU_RNE && (*flags & FPU_NX);
}

static inline bool host_did64(double result, uint64_t *bits)
{
    memcpy(bits, &result, sizeof(*bits));
    return (*bits >> 52 & 0x7ff) - 2 < 0x7ff - 2;
}

static inline bool host_did32(float result, uint32_t *bits)
{
    memcpy(bits, &result, sizeof(*bits));
    return (*bits >> 23 & 0xff) - 2 < 0xff - 2;
}

static inline double f64_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static inline float f32_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* Every operation is written once, over a format the compiler knows at each of its two callers. */
#define FOR_FORMAT static inline __attribute__((always_inline))

/* The sign of an exact zero sum of opposite signs. */
static bool zero_sign(unsigned rm)
{
    return rm == FPU_RDN;
}

/* Magnitudes: |a| >= |b| by exponent at least; both finite and not 0. */
FOR_FORMAT uint64_t add_finite(const struct fpu_format *format, struct fpu_num a, struct fpu_num b, unsigned rm,
                               unsigned *flags)
{
    if (a.exp < b.exp || (a.exp == b.exp && a.sig < b.sig)) {
        struct fpu_num larger = b;
        b = a;
        a = larger;
    }
    /* Operands have at least 11 low zero bits: one makes room for the carry, the rest hold guard and sticky. */
    uint64_t big = a.sig >> 1, small = fpu_shift_jam(b.sig >> 1, (unsigned)(a.exp - b.exp));
    uint64_t sum = a.sign == b.sign ? big + small : big - small;
    if (!sum)
        return fpu_zero(format, zero_sign(rm));
    int zeros = __builtin_clzll(sum);
    return fpu_round_pack(format, a.sign, a.exp + 1 - zeros, sum << zeros, rm, flags);
}

FOR_FORMAT uint64_t add(const struct fpu_format *format, uint64_t bits_a, uint64_t bits_b, unsigned rm, unsigned *flags)
{
    struct fpu_num a = fpu_unpack(format, bits_a), b = fpu_unpack(format, bits_b);
    if (a.kind == FPU_FINITE && b.kind == FPU_FINITE)
        return add_finite(format, a, b, rm, flags);
    if (fpu_is_nan(&a) || fpu_is_nan(&b))
        return fpu_nan_result(format, a.kind == FPU_SNAN || b.kind == FPU_SNAN, flags);
    if (a.kind == FPU_INF)
        return b.kind == FPU_INF && a.sign != b.sign ? fpu_invalid(format, flags) : bits_a;
    if (b.kind == FPU_INF)
        return bits_b;
    if (a.kind == FPU_FINITE)
        return bits_a;
    if (b.kind == FPU_FINITE)
        return bits_b;
    return fpu_zero(format, a.sign == b.sign ? a.sign : zero_sign(rm));
}

FOR_FORMAT uint64_t mul(const struct fpu_format *format, uint64_t bits_a, uint64_t bits_b, unsigned rm, unsigned *flags)
{
    struct fpu_num a = fpu_unpack(format, bits_a), b = fpu_unpack(format, bits_b);
    bool sign = a.sign != b.sign;
    if (a.kind == FPU_FINITE && b.kind == FPU_FINITE)
        return fpu_round_pack128(format, sign, a.exp + b.exp + 1, (fpu_u128)a.sig * b.sig, rm, flags);
    if (fpu_is_nan(&a) || fpu_is_nan(&b))
        return fpu_nan_result(format, a.kind == FPU_SNAN || b.kind == FPU_SNAN, flags);
    if (a.kind == FPU_INF || b.kind == FPU_INF)
        return a.kind == FPU_ZERO || b.kind == FPU_ZERO ? fpu_invalid(format, flags) : fpu_inf(format, sign);
    return fpu_zero(format, sign);
}

FOR_FORMAT uint64_t divide(const struct fpu_format *format, uint64_t bits_a, uint64_t bits_b, unsigned rm,
                           unsigned *flags)
{
    struct fpu_num a = fpu_unpack(format, bits_a), b = fpu_unpack(format, bits_b);
    bool sign = a.sign != b.sign;
    if (a.kind == FPU_FINITE && b.kind == FPU_FINITE) {
        /* a.sig / b.sig lies between 1/2 and 2: with 62 more bits the quotient has 62 to 63 of them. */
        fpu_u128 dividend = (fpu_u128)a.sig << 62;
        uint64_t quotient = (uint64_t)(dividend / b.sig);
        uint64_t rest = (uint64_t)(dividend - (fpu_u128)quotient * b.sig);
        int zeros = __builtin_clzll(quotient);
        quotient = quotient << zeros | (rest != 0);
        return fpu_round_pack(format, sign, a.exp - b.exp + 1 - zeros, quotient, rm, flags);
    }
    if (fpu_is_nan(&a) || fpu_is_nan(&b))
        return fpu_nan_result(format, a.kind == FPU_SNAN || b.kind == FPU_SNAN, flags);
    if (a.kind == b.kind) /* 0/0, inf/inf */
        return fpu_invalid(format, flags);
    if (a.kind == FPU_INF || b.kind == FPU_ZERO) {
        if (a.kind == FPU_FINITE)
            *flags |= FPU_DZ;
        return fpu_inf(format, sign);
    }
    return fpu_zero(format, sign);
}

/* The integer square root of a number of 127 or 128 bits, its last bit jammed with the remainder. The host's root is
 * an estimate good to about 50 bits; one of Newton's steps makes it good to a unit and never too small (the mean of
 * root and n / root is at least the true root), and the loop makes it exact. */
static uint64_t sqrt_jam(fpu_u128 n)
{
    double estimate = sqrt((double)(uint64_t)(n >> 64)) * 0x1p32;
    uint64_t root = estimate >= 0x1p64 ? UINT64_MAX : (uint64_t)estimate;
    fpu_u128 next = (root + n / root) >> 1;
    root = next > UINT64_MAX ? UINT64_MAX : (uint64_t)next;
    while ((fpu_u128)root * root > n)
        root--;
    return root | ((fpu_u128)root * root != n);
}

FOR_FORMAT uint64_t square_root(const struct fpu_format *format, uint64_t bits, unsigned rm, unsigned *flags)
{
    struct fpu_num a = fpu_unpack(format, bits);
    if (fpu_is_nan(&a))
        return fpu_nan_result(format, a.kind == FPU_SNAN, flags);
    if (a.kind == FPU_ZERO)
        return bits;
    if (a.sign)
        return fpu_invalid(format, flags);
    if (a.kind == FPU_INF)
        return bits;
    /* An even exponent halves; an odd one lends a bit to the significand. */
    int half = a.exp >> 1;
    return fpu_round_pack(format, false, half, sqrt_jam((fpu_u128)a.sig << (a.exp & 1 ? 64 : 63)), rm, flags);
}

FOR_FORMAT uint64_t fma_finite(const struct fpu_format *format, bool sign, int exp, fpu_u128 product, struct fpu_num c,
                               unsigned rm, unsigned *flags)
{
    /* Both as sig * 2^(exp - 127) with one free bit above. The low 22 bits of a product of two significands are 0,
     * so neither shift loses anything, and a jammed bit stays far below the rounding position. */
    fpu_u128 big = product >> 1, small = (fpu_u128)c.sig << 63;
    int big_exp = exp + 1, small_exp = c.exp + 1;
    bool big_sign = sign, small_sign = c.sign;
    if (small_exp > big_exp) {
        fpu_u128 sig = big;
        big = small;
        small = sig;
        int e = big_exp;
        big_exp = small_exp;
        small_exp = e;
        big_sign = c.sign;
        small_sign = sign;
    }
    small = fpu_shift_jam128(small, (unsigned)(big_exp - small_exp));
    fpu_u128 sum;
    if (big_sign == small_sign) {
        sum = big + small;
    } else if (big >= small) {
        sum = big - small;
    } else {
        sum = small - big;
        big_sign = small_sign;
    }
    if (!sum)
        return fpu_zero(format, zero_sign(rm));
    return fpu_round_pack128(format, big_sign, big_exp, sum, rm, flags);
}

FOR_FORMAT uint64_t fma_round_once(const struct fpu_format *format, uint64_t bits_a, uint64_t bits_b, uint64_t bits_c,
                                   unsigned rm, unsigned *flags)
{
    struct fpu_num a = fpu_unpack(format, bits_a), b = fpu_unpack(format, bits_b), c = fpu_unpack(format, bits_c);
    bool sign = a.sign != b.sign;
    if (a.kind == FPU_FINITE && b.kind == FPU_FINITE) {
        fpu_u128 product = (fpu_u128)a.sig * b.sig;
        if (c.kind == FPU_FINITE)
            return fma_finite(format, sign, a.exp + b.exp + 1, product, c, rm, flags);
        if (c.kind == FPU_ZERO)
            return fpu_round_pack128(format, sign, a.exp + b.exp + 1, product, rm, flags);
    }
    /* Infinity times 0 is invalid even when a quiet NaN is to be added. */
    bool invalid = (a.kind == FPU_INF && b.kind == FPU_ZERO) || (a.kind == FPU_ZERO && b.kind == FPU_INF);
    if (invalid)
        return fpu_invalid(format, flags);
    if (fpu_is_nan(&a) || fpu_is_nan(&b) || fpu_is_nan(&c))
        return fpu_nan_result(format, a.kind == FPU_SNAN || b.kind == FPU_SNAN || c.kind == FPU_SNAN, flags);
    if (a.kind == FPU_INF || b.kind == FPU_INF)
        return c.kind == FPU_INF && c.sign != sign ? fpu_invalid(format, flags) : fpu_inf(format, sign);
    if (c.kind != FPU_ZERO) /* the product is 0, or c is infinite */
        return bits_c;
    return fpu_zero(format, c.sign == sign ? sign : zero_sign(rm));
}

uint32_t fpu_add32(uint32_t a, uint32_t b, unsigned rm, unsigned *flags)
{
    uint32_t bits;
    if (host_may(rm, flags) && host_did32(f32_of(a) + f32_of(b), &bits))
        return bits;
    return (uint32_t)add(&fpu_single, a, b, rm, flags);
}

uint64_t fpu_add64(uint64_t a, uint64_t b, unsigned rm, unsigned *flags)
{
    uint64_t bits;
    if (host_may(rm, flags) && host_did64(f64_of(a) + f64_of(b), &bits))
        return bits;
    return add(&fpu_double, a, b, rm, flags);
}

/* A NaN's sign does not matter: the result is canonical. */
uint32_t fpu_sub32(uint32_t a, uint32_t b, unsigned rm, unsigned *flags)
{
    return fpu_add32(a, b ^ UINT32_C(1) << 31, rm, flags);
}

uint64_t fpu_sub64(uint64_t a, uint64_t b, unsigned rm, unsigned *flags)
{
    return fpu_add64(a, b ^ UINT64_C(1) << 63, rm, flags);
}

uint32_t fpu_mul32(uint32_t a, uint32_t b, unsigned rm, unsigned *flags)
{
    uint32_t bits;
    if (host_may(rm, flags) && host_did32(f32_of(a) * f32_of(b), &bits))
        return bits;
    return (uint32_t)mul(&fpu_single, a, b, rm, flags);
}

uint64_t fpu_mul64(uint64_t a, uint64_t b, unsigned rm, unsigned *flags)
{
    uint64_t bits;
    if (host_may(rm, flags) && host_did64(f64_of(a) * f64_of(b), &bits))
        return bits;
    return mul(&fpu_double, a, b, rm, flags);
}

uint32_t fpu_div32(uint32_t a, uint32_t b, unsigned rm, unsigned *flags)
{
    uint32_t bits;
    if (host_may(rm, flags) && host_did32(f32_of(a) / f32_of(b), &bits))
        return bits;
    return (uint32_t)divide(&fpu_single, a, b, rm, flags);
}

uint64_t fpu_div64(uint64_t a, uint64_t b, unsigned rm, unsigned *flags)
{
    uint64_t bits;
    if (host_may(rm, flags) && host_did64(f64_of(a) / f64_of(b), &bits))
        return bits;
    return divide(&fpu_double, a, b, rm, flags);
}

uint32_t fpu_sqrt32(uint32_t a, unsigned rm, unsigned *flags)
{
    uint32_t bits;
    if (host_may(rm, flags) && host_did32(sqrtf(f32_of(a)), &bits))
        return bits;
    return (uint32_t)square_root(&fpu_single, a, rm, flags);
}

uint64_t fpu_sqrt64(uint64_t a, unsigned rm, unsigned *flags)
{
    uint64_t bits;
    if (host_may(rm, flags) && host_did64(sqrt(f64_of(a)), &bits))
        return bits;
    return square_root(&fpu_double, a, rm, flags);
}

uint32_t fpu_fma32(uint32_t a, uint32_t b, uint32_t c, unsigned rm, unsigned *flags)
{
    uint32_t bits;
    if (host_may(rm, flags) && host_did32(fmaf(f32_of(a), f32_of(b), f32_of(c)), &bits))
        return bits;
    return (uint32_t)fma_round_once(&fpu_single, a, b, c, rm, flags);
}

uint64_t fpu_fma64(uint64_t a, uint64_t b, uint64_t c, unsigned rm, unsigned *flags)
{
    uint64_t bits;
    if (host_may(rm, flags) && host_did64(fma(f64_of(a), f64_of(b), f64_of(c)), &bits))
        return bits;
    return fma_round_once(&fpu_double, a, b, c, rm, flags);
}
