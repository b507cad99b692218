#include "vcpu/fpu_core.h"

/* An integer type of the ISA: its width, and whether it is signed. */
struct int_type {
    unsigned bits;
    bool is_signed;
};

static const struct int_type type_i32 = { 32, true }, type_u32 = { 32, false };
static const struct int_type type_i64 = { 64, true }, type_u64 = { 64, false };

static uint64_t sign_extend(uint64_t value, unsigned bits)
{
    return bits == 32 ? (uint64_t)(int64_t)(int32_t)(uint32_t)value : value;
}

/* The largest magnitude with this sign. */
static uint64_t limit(const struct int_type *type, bool negative)
{
    uint64_t all = UINT64_MAX >> (64 - type->bits);
    if (!type->is_signed)
        return negative ? 0 : all;
    return (all >> 1) + negative;
}

static uint64_t saturate(const struct int_type *type, bool negative, unsigned *flags)
{
    *flags |= FPU_NV;
    uint64_t magnitude = limit(type, negative);
    return sign_extend(negative ? -magnitude : magnitude, type->bits);
}

/* |n| rounded to an integer; false when it does not fit 64 bits. */
static bool round_to_int(const struct fpu_num *n, unsigned rm, uint64_t *magnitude, bool *inexact)
{
    if (n->exp > 63)
        return false;
    unsigned drop = (unsigned)(63 - n->exp); /* bits below the point */
    uint64_t whole = drop < 64 ? n->sig >> drop : 0;
    uint64_t rest = 0; /* the fraction, in units of 2^-64 */
    if (drop > 64)
        rest = 1;
    else if (drop > 0)
        rest = n->sig << (64 - drop);
    *inexact = rest != 0;
    *magnitude = whole + fpu_round_up(rm, n->sign, whole & 1, rest, UINT64_C(1) << 63);
    return true;
}

static uint64_t to_int(const struct fpu_format *format, uint64_t bits, const struct int_type *type, unsigned rm,
                       unsigned *flags)
{
    struct fpu_num n = fpu_unpack(format, bits);
    uint64_t magnitude;
    bool inexact;
    if (n.kind == FPU_ZERO)
        return 0;
    if (fpu_is_nan(&n))
        return saturate(type, false, flags);
    if (n.kind == FPU_INF || !round_to_int(&n, rm, &magnitude, &inexact) || magnitude > limit(type, n.sign))
        return saturate(type, n.sign, flags);
    if (inexact)
        *flags |= FPU_NX;
    return sign_extend(n.sign ? -magnitude : magnitude, type->bits);
}

static uint64_t from_int(const struct fpu_format *format, uint64_t value, const struct int_type *type, unsigned rm,
                         unsigned *flags)
{
    if (type->bits == 32)
        value = type->is_signed ? sign_extend(value, 32) : (uint32_t)value;
    bool negative = type->is_signed && value >> 63;
    uint64_t magnitude = negative ? -value : value;
    if (!magnitude)
        return 0;
    int zeros = __builtin_clzll(magnitude);
    return fpu_round_pack(format, negative, 63 - zeros, magnitude << zeros, rm, flags);
}

uint64_t fpu_f32_to_i32(uint32_t a, unsigned rm, unsigned *flags)
{
    return to_int(&fpu_single, a, &type_i32, rm, flags);
}

uint64_t fpu_f32_to_u32(uint32_t a, unsigned rm, unsigned *flags)
{
    return to_int(&fpu_single, a, &type_u32, rm, flags);
}

uint64_t fpu_f32_to_i64(uint32_t a, unsigned rm, unsigned *flags)
{
    return to_int(&fpu_single, a, &type_i64, rm, flags);
}

uint64_t fpu_f32_to_u64(uint32_t a, unsigned rm, unsigned *flags)
{
    return to_int(&fpu_single, a, &type_u64, rm, flags);
}

uint64_t fpu_f64_to_i32(uint64_t a, unsigned rm, unsigned *flags)
{
    return to_int(&fpu_double, a, &type_i32, rm, flags);
}

uint64_t fpu_f64_to_u32(uint64_t a, unsigned rm, unsigned *flags)
{
    return to_int(&fpu_double, a, &type_u32, rm, flags);
}

uint64_t fpu_f64_to_i64(uint64_t a, unsigned rm, unsigned *flags)
{
    return to_int(&fpu_double, a, &type_i64, rm, flags);
}

uint64_t fpu_f64_to_u64(uint64_t a, unsigned rm, unsigned *flags)
{
    return to_int(&fpu_double, a, &type_u64, rm, flags);
}

uint32_t fpu_i32_to_f32(uint64_t a, unsigned rm, unsigned *flags)
{
    return (uint32_t)from_int(&fpu_single, a, &type_i32, rm, flags);
}

uint32_t fpu_u32_to_f32(uint64_t a, unsigned rm, unsigned *flags)
{
    return (uint32_t)from_int(&fpu_single, a, &type_u32, rm, flags);
}

uint32_t fpu_i64_to_f32(uint64_t a, unsigned rm, unsigned *flags)
{
    return (uint32_t)from_int(&fpu_single, a, &type_i64, rm, flags);
}

uint32_t fpu_u64_to_f32(uint64_t a, unsigned rm, unsigned *flags)
{
    return (uint32_t)from_int(&fpu_single, a, &type_u64, rm, flags);
}

uint64_t fpu_i32_to_f64(uint64_t a, unsigned rm, unsigned *flags)
{
    return from_int(&fpu_double, a, &type_i32, rm, flags);
}

uint64_t fpu_u32_to_f64(uint64_t a, unsigned rm, unsigned *flags)
{
    return from_int(&fpu_double, a, &type_u32, rm, flags);
}

uint64_t fpu_i64_to_f64(uint64_t a, unsigned rm, unsigned *flags)
{
    return from_int(&fpu_double, a, &type_i64, rm, flags);
}

uint64_t fpu_u64_to_f64(uint64_t a, unsigned rm, unsigned *flags)
{
    return from_int(&fpu_double, a, &type_u64, rm, flags);
}

static uint64_t reformat(const struct fpu_format *from, const struct fpu_format *to, uint64_t bits, unsigned rm,
                         unsigned *flags)
{
    struct fpu_num n = fpu_unpack(from, bits);
    switch (n.kind) {
    case FPU_ZERO: return fpu_zero(to, n.sign);
    case FPU_INF: return fpu_inf(to, n.sign);
    case FPU_FINITE: return fpu_round_pack(to, n.sign, n.exp, n.sig, rm, flags);
    default: return fpu_nan_result(to, n.kind == FPU_SNAN, flags);
    }
}

uint64_t fpu_f32_to_f64(uint32_t a, unsigned *flags)
{
    return reformat(&fpu_single, &fpu_double, a, FPU_RNE, flags); /* always exact */
}

uint32_t fpu_f64_to_f32(uint64_t a, unsigned rm, unsigned *flags)
{
    return (uint32_t)reformat(&fpu_double, &fpu_single, a, rm, flags);
}
