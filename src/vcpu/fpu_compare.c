#include "vcpu/fpu_core.h"

/* Finite numbers and infinities of one sign order as their bit patterns do. */
static bool less(const struct fpu_format *format, uint64_t a, uint64_t b, bool zeros_differ)
{
    uint64_t sign = UINT64_C(1) << (format->bits - 1);
    bool negative_a = a & sign, negative_b = b & sign;
    if (!zeros_differ && ((a | b) & ~sign) == 0)
        return false;
    if (negative_a != negative_b)
        return negative_a;
    return negative_a ? a > b : a < b;
}

/* True when neither is a NaN. A signalling NaN is always invalid, a quiet one where `quiet` is false. */
static bool ordered(const struct fpu_format *format, uint64_t a, uint64_t b, bool quiet, unsigned *flags)
{
    struct fpu_num na = fpu_unpack(format, a), nb = fpu_unpack(format, b);
    if (!fpu_is_nan(&na) && !fpu_is_nan(&nb))
        return true;
    if (!quiet || na.kind == FPU_SNAN || nb.kind == FPU_SNAN)
        *flags |= FPU_NV;
    return false;
}

static bool equal(const struct fpu_format *format, uint64_t a, uint64_t b, unsigned *flags)
{
    uint64_t sign = UINT64_C(1) << (format->bits - 1);
    return ordered(format, a, b, true, flags) && (a == b || ((a | b) & ~sign) == 0);
}

static uint64_t minimum(const struct fpu_format *format, uint64_t a, uint64_t b, bool maximum, unsigned *flags)
{
    struct fpu_num na = fpu_unpack(format, a), nb = fpu_unpack(format, b);
    if (na.kind == FPU_SNAN || nb.kind == FPU_SNAN)
        *flags |= FPU_NV;
    if (fpu_is_nan(&na))
        return fpu_is_nan(&nb) ? format->nan : b;
    if (fpu_is_nan(&nb))
        return a;
    return less(format, a, b, true) != maximum ? a : b;
}

static unsigned classify(const struct fpu_format *format, uint64_t bits)
{
    enum {
        NEG_INF = 1 << 0,
        NEG_NORMAL = 1 << 1,
        NEG_SUBNORMAL = 1 << 2,
        NEG_ZERO = 1 << 3,
        POS_ZERO = 1 << 4,
        POS_SUBNORMAL = 1 << 5,
        POS_NORMAL = 1 << 6,
        POS_INF = 1 << 7,
        SIGNALLING = 1 << 8,
        QUIET = 1 << 9,
    };
    struct fpu_num n = fpu_unpack(format, bits);
    switch (n.kind) {
    case FPU_ZERO: return n.sign ? NEG_ZERO : POS_ZERO;
    case FPU_INF: return n.sign ? NEG_INF : POS_INF;
    case FPU_SNAN: return SIGNALLING;
    case FPU_QNAN: return QUIET;
    case FPU_FINITE: break;
    }
    if (n.exp < 1 - format->bias)
        return n.sign ? NEG_SUBNORMAL : POS_SUBNORMAL;
    return n.sign ? NEG_NORMAL : POS_NORMAL;
}

uint32_t fpu_min32(uint32_t a, uint32_t b, unsigned *flags)
{
    return (uint32_t)minimum(&fpu_single, a, b, false, flags);
}

uint32_t fpu_max32(uint32_t a, uint32_t b, unsigned *flags)
{
    return (uint32_t)minimum(&fpu_single, a, b, true, flags);
}

uint64_t fpu_min64(uint64_t a, uint64_t b, unsigned *flags)
{
    return minimum(&fpu_double, a, b, false, flags);
}

uint64_t fpu_max64(uint64_t a, uint64_t b, unsigned *flags)
{
    return minimum(&fpu_double, a, b, true, flags);
}

bool fpu_eq32(uint32_t a, uint32_t b, unsigned *flags)
{
    return equal(&fpu_single, a, b, flags);
}

bool fpu_eq64(uint64_t a, uint64_t b, unsigned *flags)
{
    return equal(&fpu_double, a, b, flags);
}

bool fpu_lt32(uint32_t a, uint32_t b, unsigned *flags)
{
    return ordered(&fpu_single, a, b, false, flags) && less(&fpu_single, a, b, false);
}

bool fpu_lt64(uint64_t a, uint64_t b, unsigned *flags)
{
    return ordered(&fpu_double, a, b, false, flags) && less(&fpu_double, a, b, false);
}

bool fpu_le32(uint32_t a, uint32_t b, unsigned *flags)
{
    return ordered(&fpu_single, a, b, false, flags) && !less(&fpu_single, b, a, false);
}

bool fpu_le64(uint64_t a, uint64_t b, unsigned *flags)
{
    return ordered(&fpu_double, a, b, false, flags) && !less(&fpu_double, b, a, false);
}

unsigned fpu_class32(uint32_t a)
{
    return classify(&fpu_single, a);
}

unsigned fpu_class64(uint64_t a)
{
    return classify(&fpu_double, a);
}
