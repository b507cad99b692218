/* The one number format behind both precisions: unpack, compute on wide integers, round and pack once.
 *
 * A finite value is sig * 2^(exp - 63) with bit 63 of sig set. What an operation cannot keep is or-ed into bit 0
 * ("jammed"), far below the lowest bit that rounding looks at, so that one rounding at the end is exact. Integers
 * only: the same bits on every host, and no host rounding mode to manage. fpu_arith.c has a short cut beside it. */
#pragma once
#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "vcpu/fpu.h"

typedef unsigned __int128 fpu_u128;

enum fpu_kind { FPU_ZERO, FPU_FINITE, FPU_INF, FPU_QNAN, FPU_SNAN };

struct fpu_format {
    unsigned bits;     /* 32, 64 */
    unsigned fraction; /* stored significand bits: 23, 52 */
    int bias;          /* 127, 1023 */
    uint64_t nan;      /* canonical */
};

static const struct fpu_format fpu_single = { 32, 23, 127, FPU_NAN32 };
static const struct fpu_format fpu_double = { 64, 52, 1023, FPU_NAN64 };

struct fpu_num {
    enum fpu_kind kind;
    bool sign;
    int exp;
    uint64_t sig;
};

static inline bool fpu_is_nan(const struct fpu_num *n)
{
    return n->kind >= FPU_QNAN;
}

static inline struct fpu_num fpu_unpack(const struct fpu_format *format, uint64_t bits)
{
    unsigned exp_bits = format->bits - 1 - format->fraction;
    uint64_t fraction = bits & ((UINT64_C(1) << format->fraction) - 1);
    int exp = (int)(bits >> format->fraction & ((UINT64_C(1) << exp_bits) - 1));
    struct fpu_num n = { .sign = bits >> (format->bits - 1) & 1 };
    if (exp == (1 << exp_bits) - 1) {
        n.kind = !fraction ? FPU_INF : fraction >> (format->fraction - 1) ? FPU_QNAN : FPU_SNAN;
    } else if (exp) {
        n.kind = FPU_FINITE;
        n.exp = exp - format->bias;
        n.sig = UINT64_C(1) << 63 | fraction << (63 - format->fraction);
    } else if (fraction) {
        int zeros = __builtin_clzll(fraction);
        n.kind = FPU_FINITE;
        n.exp = 1 - format->bias + (63 - zeros) - (int)format->fraction;
        n.sig = fraction << zeros;
    }
    return n;
}

static inline uint64_t fpu_zero(const struct fpu_format *format, bool sign)
{
    return sign ? UINT64_C(1) << (format->bits - 1) : 0;
}

static inline uint64_t fpu_inf(const struct fpu_format *format, bool sign)
{
    uint64_t ones = (UINT64_C(1) << (format->bits - 1 - format->fraction)) - 1;
    return fpu_zero(format, sign) | ones << format->fraction;
}

static inline uint64_t fpu_invalid(const struct fpu_format *format, unsigned *flags)
{
    *flags |= FPU_NV;
    return format->nan;
}

/* The result when at least one operand is a NaN. */
static inline uint64_t fpu_nan_result(const struct fpu_format *format, bool any_signalling, unsigned *flags)
{
    return any_signalling ? fpu_invalid(format, flags) : format->nan;
}

static inline uint64_t fpu_shift_jam(uint64_t sig, unsigned by)
{
    if (by == 0)
        return sig;
    if (by > 63)
        return sig != 0;
    return sig >> by | ((sig << (64 - by)) != 0);
}

static inline fpu_u128 fpu_shift_jam128(fpu_u128 sig, unsigned by)
{
    if (by == 0)
        return sig;
    if (by > 127)
        return sig != 0;
    return sig >> by | ((sig << (128 - by)) != 0);
}

/* Does rounding go up, away from zero? rest: what is cut off, half: half a unit in the last place. */
static inline bool fpu_round_up(unsigned rm, bool sign, bool odd, uint64_t rest, uint64_t half)
{
    switch (rm) {
    case FPU_RNE: return rest > half || (rest == half && odd);
    case FPU_RTZ: return false;
    case FPU_RDN: return sign && rest;
    case FPU_RUP: return !sign && rest;
    default: assert(rm == FPU_RMM); return rest >= half;
    }
}

static inline uint64_t fpu_overflow(const struct fpu_format *format, bool sign, unsigned rm, unsigned *flags)
{
    *flags |= FPU_OF | FPU_NX;
    bool to_inf = rm == FPU_RNE || rm == FPU_RMM || (rm == FPU_RDN && sign) || (rm == FPU_RUP && !sign);
    return fpu_inf(format, sign) - !to_inf; /* the largest finite number is the pattern just below */
}

/* Round sig * 2^(exp - 63), bit 63 of sig set, to the format. */
static inline uint64_t fpu_round_pack(const struct fpu_format *format, bool sign, int exp, uint64_t sig, unsigned rm,
                                      unsigned *flags)
{
    const unsigned cut = 63 - format->fraction; /* bits below the last place */
    const uint64_t half = UINT64_C(1) << (cut - 1), mask = (half << 1) - 1;
    const int top = 2 * format->bias + 1; /* the exponent of infinity */
    int biased = exp + format->bias;
    bool tiny = false;

    if (biased >= top)
        return fpu_overflow(format, sign, rm, flags);
    if (biased < 1) {
        /* Tininess after rounding: would it still be below the smallest normal number if exponents went on? Only
         * from just below can rounding reach it. */
        bool carries = (sig | mask) == UINT64_MAX && fpu_round_up(rm, sign, sig >> cut & 1, sig & mask, half);
        tiny = biased < 0 || !carries;
        sig = fpu_shift_jam(sig, (unsigned)(1 - biased));
        biased = 1; /* the fraction's missing bit 63 makes it 0 again below */
    }
    uint64_t rest = sig & mask;
    uint64_t kept = (sig >> cut) + fpu_round_up(rm, sign, sig >> cut & 1, rest, half);
    /* kept still holds the leading bit, which counts one into the exponent, as a carry does. */
    uint64_t packed = ((uint64_t)(biased - 1) << format->fraction) + kept;
    if (packed >> format->fraction >= (uint64_t)top)
        return fpu_overflow(format, sign, rm, flags);
    if (rest)
        *flags |= FPU_NX | (tiny ? FPU_UF : 0);
    return fpu_zero(format, sign) | packed;
}

/* As above from 128 bits, not 0 and not yet normalised: sig * 2^(exp - 127). */
static inline uint64_t fpu_round_pack128(const struct fpu_format *format, bool sign, int exp, fpu_u128 sig, unsigned rm,
                                         unsigned *flags)
{
    uint64_t high = (uint64_t)(sig >> 64);
    unsigned zeros = high ? (unsigned)__builtin_clzll(high) : 64 + (unsigned)__builtin_clzll((uint64_t)sig);
    sig <<= zeros;
    return fpu_round_pack(format, sign, exp - (int)zeros, (uint64_t)(sig >> 64) | ((uint64_t)sig != 0), rm, flags);
}
