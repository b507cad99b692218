/* F and D. fpu.h decides what a result is; here are operands, NaN boxing, the status, and quick ways for the common
 * case: round to nearest, "inexact" already raised, and a result that proves that nothing else was to be raised. */
#include <math.h>

#include "vcpu/engine.h"
#include "vcpu/fpu.h"
#include "vcpu/guest_access.h"

#define FR(r) (v->hart.f[u->r])

/* --- status, boxing, rounding ---------------------------------------------------------------------------- */

static __attribute__((noinline)) bool fp_wake(struct vcpu *v)
{
    if (!(v->hart.mstatus & MSTATUS_FS))
        return false;
    v->hart.mstatus |= MSTATUS_FS; /* dirty; SD is computed when mstatus is read, never stored */
    return true;
}

/* May the unit be used, and changed? */
static inline bool fp_on(struct vcpu *v)
{
    return LIKELY((v->hart.mstatus & MSTATUS_FS) == MSTATUS_FS) || fp_wake(v);
}

static inline bool fp_readable(const struct vcpu *v)
{
    return v->hart.mstatus & MSTATUS_FS;
}

static inline uint64_t box(uint32_t value)
{
    return UINT64_C(0xffffffff00000000) | value;
}

static inline uint32_t unbox(uint64_t value)
{
    return LIKELY(value >> 32 == UINT32_MAX) ? (uint32_t)value : FPU_NAN32;
}

enum { RM_BAD = 8 };

static inline unsigned rounding(const struct vcpu *v, const struct uop *u)
{
    unsigned rm = u->raw >> 12 & 7;

    if (rm == 7)
        rm = v->hart.frm;
    return rm <= FPU_RMM ? rm : RM_BAD;
}

static inline double f64(uint64_t bits)
{
    double value;

    memcpy(&value, &bits, 8);
    return value;
}

static inline uint64_t raw64(double value)
{
    uint64_t bits;

    memcpy(&bits, &value, 8);
    return bits;
}

static inline float f32(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, 4);
    return value;
}

static inline uint32_t raw32(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, 4);
    return bits;
}

/* The quick ways' condition: of all flags only NX may be due, and it is up. */
static inline bool quick(const struct vcpu *v, unsigned rm)
{
    return LIKELY(rm == FPU_RNE && (v->hart.fflags & FPU_NX));
}

/* A sum that is finite had finite operands, and a tiny sum is exact. */
static inline bool plain_sum64(double r)
{
    return LIKELY(fabs(r) <= __DBL_MAX__);
}

static inline bool plain_sum32(float r)
{
    return LIKELY(fabsf(r) <= __FLT_MAX__);
}

/* Strictly above the least normal: that one may have been tiny before rounding. */
static inline bool plain64(double r)
{
    return LIKELY(fabs(r) <= __DBL_MAX__ && fabs(r) > __DBL_MIN__);
}

static inline bool plain32(float r)
{
    return LIKELY(fabsf(r) <= __FLT_MAX__ && fabsf(r) > __FLT_MIN__);
}

/* --- arithmetic ------------------------------------------------------------------------------------------ */

#define ARITHMETIC(name, slow, bits, plain, expression)                                                                \
    static __attribute__((noinline))                                                                                   \
    uint##bits##_t name##bits(struct vcpu *v, uint##bits##_t a, uint##bits##_t b, unsigned rm)                         \
    {                                                                                                                  \
        if (quick(v, rm)) {                                                                                            \
            __typeof__(f##bits(a)) x = f##bits(a), y = f##bits(b), r = expression;                                     \
            if (plain(r))                                                                                              \
                return raw##bits(r);                                                                                   \
        }                                                                                                              \
        unsigned flags = 0;                                                                                            \
        uint##bits##_t result = slow(a, b, rm, &flags);                                                                \
        v->hart.fflags |= (uint8_t)flags;                                                                              \
        return result;                                                                                                 \
    }

ARITHMETIC(add, fpu_add64, 64, plain_sum64, x + y)
ARITHMETIC(sub, fpu_sub64, 64, plain_sum64, x - y)
ARITHMETIC(mul, fpu_mul64, 64, plain64, x *y)
ARITHMETIC(div, fpu_div64, 64, plain64, x / y)
ARITHMETIC(add, fpu_add32, 32, plain_sum32, x + y)
ARITHMETIC(sub, fpu_sub32, 32, plain_sum32, x - y)
ARITHMETIC(mul, fpu_mul32, 32, plain32, x *y)
ARITHMETIC(div, fpu_div32, 32, plain32, x / y)

static __attribute__((noinline)) uint64_t sqrt64(struct vcpu *v, uint64_t a, unsigned rm)
{
    unsigned flags = 0;
    uint64_t result = fpu_sqrt64(a, rm, &flags);

    v->hart.fflags |= (uint8_t)flags;
    return result;
}

static __attribute__((noinline)) uint32_t sqrt32(struct vcpu *v, uint32_t a, unsigned rm)
{
    unsigned flags = 0;
    uint32_t result = fpu_sqrt32(a, rm, &flags);

    v->hart.fflags |= (uint8_t)flags;
    return result;
}

#if defined(__x86_64__)
/* The host's fused instruction, when it has one. */
static __attribute__((target("fma"))) double host_fma64(double a, double b, double c)
{
    return __builtin_fma(a, b, c);
}

static __attribute__((target("fma"))) float host_fma32(float a, float b, float c)
{
    return __builtin_fmaf(a, b, c);
}
#define HOST_HAS_FMA __builtin_cpu_supports("fma")
#else
#define HOST_HAS_FMA        0
#define host_fma64(a, b, c) ((a) * (b) + (c))
#define host_fma32(a, b, c) ((a) * (b) + (c))
#endif

#define FUSED(bits)                                                                                                    \
    static __attribute__((noinline))                                                                                   \
    uint##bits##_t fma##bits(struct vcpu *v, uint##bits##_t a, uint##bits##_t b, uint##bits##_t c, unsigned rm)        \
    {                                                                                                                  \
        if (quick(v, rm) && HOST_HAS_FMA) {                                                                            \
            __typeof__(f##bits(a)) r = host_fma##bits(f##bits(a), f##bits(b), f##bits(c));                             \
            if (plain##bits(r))                                                                                        \
                return raw##bits(r);                                                                                   \
        }                                                                                                              \
        unsigned flags = 0;                                                                                            \
        uint##bits##_t result = fpu_fma##bits(a, b, c, rm, &flags);                                                    \
        v->hart.fflags |= (uint8_t)flags;                                                                              \
        return result;                                                                                                 \
    }
FUSED(32)
FUSED(64)

#define FP_ROUNDED(name, ...)                                                                                          \
    OP(name)                                                                                                           \
    {                                                                                                                  \
        unsigned rm = rounding(v, u);                                                                                  \
        if (UNLIKELY(!fp_on(v) || rm == RM_BAD))                                                                       \
            return engine_illegal(v, u);                                                                               \
        __VA_ARGS__;                                                                                                   \
        NEXT;                                                                                                          \
    }
#define FP(name, ...)                                                                                                  \
    OP(name)                                                                                                           \
    {                                                                                                                  \
        if (UNLIKELY(!fp_on(v)))                                                                                       \
            return engine_illegal(v, u);                                                                               \
        __VA_ARGS__;                                                                                                   \
        NEXT;                                                                                                          \
    }

FP_ROUNDED(fadd_d, FR(rd) = add64(v, FR(rs1), FR(rs2), rm))
FP_ROUNDED(fsub_d, FR(rd) = sub64(v, FR(rs1), FR(rs2), rm))
FP_ROUNDED(fmul_d, FR(rd) = mul64(v, FR(rs1), FR(rs2), rm))
FP_ROUNDED(fdiv_d, FR(rd) = div64(v, FR(rs1), FR(rs2), rm))
FP_ROUNDED(fsqrt_d, FR(rd) = sqrt64(v, FR(rs1), rm))
FP_ROUNDED(fadd_s, FR(rd) = box(add32(v, unbox(FR(rs1)), unbox(FR(rs2)), rm)))
FP_ROUNDED(fsub_s, FR(rd) = box(sub32(v, unbox(FR(rs1)), unbox(FR(rs2)), rm)))
FP_ROUNDED(fmul_s, FR(rd) = box(mul32(v, unbox(FR(rs1)), unbox(FR(rs2)), rm)))
FP_ROUNDED(fdiv_s, FR(rd) = box(div32(v, unbox(FR(rs1)), unbox(FR(rs2)), rm)))
FP_ROUNDED(fsqrt_s, FR(rd) = box(sqrt32(v, unbox(FR(rs1)), rm)))

/* Negating an operand's sign is exact, also of a NaN, whose payload does not survive anyway. */
#define NEG64 (UINT64_C(1) << 63)
#define NEG32 (UINT32_C(1) << 31)
#define FMA_D(name, negate_product, negate_addend)                                                                     \
    FP_ROUNDED(name, FR(rd) = fma64(v, FR(rs1) ^ (negate_product), FR(rs2), FR(rs3) ^ (negate_addend), rm))
#define FMA_S(name, negate_product, negate_addend)                                                                     \
    FP_ROUNDED(name, FR(rd) = box(fma32(v, unbox(FR(rs1)) ^ (negate_product), unbox(FR(rs2)),                          \
                                        unbox(FR(rs3)) ^ (negate_addend), rm)))
FMA_D(fmadd_d, 0, 0)
FMA_D(fmsub_d, 0, NEG64)
FMA_D(fnmsub_d, NEG64, 0)
FMA_D(fnmadd_d, NEG64, NEG64)
FMA_S(fmadd_s, 0, 0)
FMA_S(fmsub_s, 0, NEG32)
FMA_S(fnmsub_s, NEG32, 0)
FMA_S(fnmadd_s, NEG32, NEG32)

/* --- signs, minimum, comparison, class ------------------------------------------------------------------- */

#define SIGN64(value) ((value)&NEG64)
#define SIGN32(value) ((value)&NEG32)

FP(fsgnj_d, FR(rd) = (FR(rs1) & ~NEG64) | SIGN64(FR(rs2)))
FP(fsgnjn_d, FR(rd) = (FR(rs1) & ~NEG64) | SIGN64(~FR(rs2)))
FP(fsgnjx_d, FR(rd) = FR(rs1) ^ SIGN64(FR(rs2)))
FP(fsgnj_s, FR(rd) = box((unbox(FR(rs1)) & ~NEG32) | SIGN32(unbox(FR(rs2)))))
FP(fsgnjn_s, FR(rd) = box((unbox(FR(rs1)) & ~NEG32) | SIGN32(~unbox(FR(rs2)))))
FP(fsgnjx_s, FR(rd) = box(unbox(FR(rs1)) ^ SIGN32(unbox(FR(rs2)))))

#define MINMAX(name, function, bits)                                                                                   \
    static __attribute__((noinline)) uint##bits##_t name##bits(struct vcpu *v, uint##bits##_t a, uint##bits##_t b)     \
    {                                                                                                                  \
        unsigned flags = 0;                                                                                            \
        uint##bits##_t result = function(a, b, &flags);                                                                \
        v->hart.fflags |= (uint8_t)flags;                                                                              \
        return result;                                                                                                 \
    }
MINMAX(min, fpu_min64, 64)
MINMAX(max, fpu_max64, 64)
MINMAX(min, fpu_min32, 32)
MINMAX(max, fpu_max32, 32)
FP(fmin_d, FR(rd) = min64(v, FR(rs1), FR(rs2)))
FP(fmax_d, FR(rd) = max64(v, FR(rs1), FR(rs2)))
FP(fmin_s, FR(rd) = box(min32(v, unbox(FR(rs1)), unbox(FR(rs2)))))
FP(fmax_s, FR(rd) = box(max32(v, unbox(FR(rs1)), unbox(FR(rs2)))))

#define COMPARE(name, slow, bits, operator)                                                                            \
    static __attribute__((noinline)) bool name##bits(struct vcpu *v, uint##bits##_t a, uint##bits##_t b)               \
    {                                                                                                                  \
        if (LIKELY(!isunordered(f##bits(a), f##bits(b))))                                                              \
            return f##bits(a) operator f##bits(b);                                                                     \
        unsigned flags = 0;                                                                                            \
        bool result = slow(a, b, &flags);                                                                              \
        v->hart.fflags |= (uint8_t)flags;                                                                              \
        return result;                                                                                                 \
    }
COMPARE(equal, fpu_eq64, 64, ==)
COMPARE(less, fpu_lt64, 64, <)
COMPARE(less_equal, fpu_le64, 64, <=)
COMPARE(equal, fpu_eq32, 32, ==)
COMPARE(less, fpu_lt32, 32, <)
COMPARE(less_equal, fpu_le32, 32, <=)

/* Integer results may go to x0, for their flags alone. */
#define SET_X(...) (v->hart.x[u->rd] = (__VA_ARGS__), v->hart.x[0] = 0)

FP(feq_d, SET_X(equal64(v, FR(rs1), FR(rs2))))
FP(flt_d, SET_X(less64(v, FR(rs1), FR(rs2))))
FP(fle_d, SET_X(less_equal64(v, FR(rs1), FR(rs2))))
FP(feq_s, SET_X(equal32(v, unbox(FR(rs1)), unbox(FR(rs2)))))
FP(flt_s, SET_X(less32(v, unbox(FR(rs1)), unbox(FR(rs2)))))
FP(fle_s, SET_X(less_equal32(v, unbox(FR(rs1)), unbox(FR(rs2)))))
FP(fclass_d, SET_X(fpu_class64(FR(rs1))))
FP(fclass_s, SET_X(fpu_class32(unbox(FR(rs1)))))

/* --- conversions ----------------------------------------------------------------------------------------- */

#define CONVERT(name, from, to, argument)                                                                              \
    static __attribute__((noinline)) to name(struct vcpu *v, from a, unsigned rm)                                      \
    {                                                                                                                  \
        unsigned flags = 0;                                                                                            \
        to result = fpu_##argument(a, rm, &flags);                                                                     \
        v->hart.fflags |= (uint8_t)flags;                                                                              \
        return result;                                                                                                 \
    }
CONVERT(f32_to_i32, uint32_t, uint64_t, f32_to_i32)
CONVERT(f32_to_u32, uint32_t, uint64_t, f32_to_u32)
CONVERT(f32_to_i64, uint32_t, uint64_t, f32_to_i64)
CONVERT(f32_to_u64, uint32_t, uint64_t, f32_to_u64)
CONVERT(f64_to_u32, uint64_t, uint64_t, f64_to_u32)
CONVERT(f64_to_u64, uint64_t, uint64_t, f64_to_u64)
CONVERT(slow_f64_to_i32, uint64_t, uint64_t, f64_to_i32)
CONVERT(slow_f64_to_i64, uint64_t, uint64_t, f64_to_i64)
CONVERT(i32_to_f32, uint64_t, uint32_t, i32_to_f32)
CONVERT(u32_to_f32, uint64_t, uint32_t, u32_to_f32)
CONVERT(i64_to_f32, uint64_t, uint32_t, i64_to_f32)
CONVERT(u64_to_f32, uint64_t, uint32_t, u64_to_f32)
CONVERT(i64_to_f64, uint64_t, uint64_t, i64_to_f64)
CONVERT(u64_to_f64, uint64_t, uint64_t, u64_to_f64)
CONVERT(slow_f64_to_f32, uint64_t, uint32_t, f64_to_f32)

/* Truncation is what C casts ask for; a value in range that comes back unchanged raised nothing. */
#define TRUNCATE(name, type, limit)                                                                                    \
    static uint64_t name(struct vcpu *v, uint64_t a, unsigned rm)                                                      \
    {                                                                                                                  \
        double value = f64(a);                                                                                         \
        if (LIKELY(fabs(value) < (limit))) {                                                                           \
            type whole = (type)value;                                                                                  \
            if ((double)whole == value || (rm == FPU_RTZ && (v->hart.fflags & FPU_NX)))                                \
                return (uint64_t)(int64_t)whole;                                                                       \
        }                                                                                                              \
        return slow_##name(v, a, rm);                                                                                  \
    }
TRUNCATE(f64_to_i32, int32_t, 0x1p31)
TRUNCATE(f64_to_i64, int64_t, 0x1p63)

static uint32_t f64_to_f32(struct vcpu *v, uint64_t a, unsigned rm)
{
    if (quick(v, rm)) {
        float r = (float)f64(a);
        if (plain32(r))
            return raw32(r);
    }
    return slow_f64_to_f32(v, a, rm);
}

static __attribute__((noinline)) uint64_t f32_to_f64(struct vcpu *v, uint32_t a)
{
    unsigned flags = 0;
    uint64_t result = fpu_f32_to_f64(a, &flags);

    v->hart.fflags |= (uint8_t)flags;
    return result;
}

FP_ROUNDED(fcvt_w_s, SET_X(f32_to_i32(v, unbox(FR(rs1)), rm)))
FP_ROUNDED(fcvt_wu_s, SET_X(f32_to_u32(v, unbox(FR(rs1)), rm)))
FP_ROUNDED(fcvt_l_s, SET_X(f32_to_i64(v, unbox(FR(rs1)), rm)))
FP_ROUNDED(fcvt_lu_s, SET_X(f32_to_u64(v, unbox(FR(rs1)), rm)))
FP_ROUNDED(fcvt_w_d, SET_X(f64_to_i32(v, FR(rs1), rm)))
FP_ROUNDED(fcvt_wu_d, SET_X(f64_to_u32(v, FR(rs1), rm)))
FP_ROUNDED(fcvt_l_d, SET_X(f64_to_i64(v, FR(rs1), rm)))
FP_ROUNDED(fcvt_lu_d, SET_X(f64_to_u64(v, FR(rs1), rm)))
FP_ROUNDED(fcvt_s_w, FR(rd) = box(i32_to_f32(v, XR(rs1), rm)))
FP_ROUNDED(fcvt_s_wu, FR(rd) = box(u32_to_f32(v, XR(rs1), rm)))
FP_ROUNDED(fcvt_s_l, FR(rd) = box(i64_to_f32(v, XR(rs1), rm)))
FP_ROUNDED(fcvt_s_lu, FR(rd) = box(u64_to_f32(v, XR(rs1), rm)))
FP_ROUNDED(fcvt_d_w, FR(rd) = raw64((double)(int32_t)XR(rs1)); (void)rm)
FP_ROUNDED(fcvt_d_wu, FR(rd) = raw64((double)(uint32_t)XR(rs1)); (void)rm)
FP_ROUNDED(fcvt_d_l, FR(rd) = i64_to_f64(v, XR(rs1), rm))
FP_ROUNDED(fcvt_d_lu, FR(rd) = u64_to_f64(v, XR(rs1), rm))
FP_ROUNDED(fcvt_s_d, FR(rd) = box(f64_to_f32(v, FR(rs1), rm)))
FP_ROUNDED(fcvt_d_s, FR(rd) = f32_to_f64(v, unbox(FR(rs1))); (void)rm)

/* --- moves and memory ------------------------------------------------------------------------------------ */

FP(fmv_w_x, FR(rd) = box((uint32_t)XR(rs1)))
FP(fmv_d_x, FR(rd) = XR(rs1))

OP(fmv_x_w)
{
    if (UNLIKELY(!fp_readable(v)))
        return engine_illegal(v, u);
    SET_X((uint64_t)(int64_t)(int32_t)FR(rs1)); /* the bits, boxed or not */
    NEXT;
}

OP(fmv_x_d)
{
    if (UNLIKELY(!fp_readable(v)))
        return engine_illegal(v, u);
    SET_X(FR(rs1));
    NEXT;
}

#define ADDRESS (XR(rs1) + (uint64_t)u->imm)
#define FP_LOAD(name, bytes, bits, boxed)                                                                              \
    static __attribute__((noinline, cold)) struct uop *slow_##name(struct vcpu *v, struct uop *u)                      \
    {                                                                                                                  \
        if (!fp_on(v))                                                                                                 \
            return engine_illegal(v, u);                                                                               \
        if (!engine_load(v, u, ADDRESS, bytes))                                                                        \
            return NULL;                                                                                               \
        FR(rd) = boxed((uint##bits##_t)v->value);                                                                      \
        NEXT;                                                                                                          \
    }                                                                                                                  \
    OP(name)                                                                                                           \
    {                                                                                                                  \
        uint64_t va = ADDRESS;                                                                                         \
        const struct tlb_entry *entry = &v->tlb->read[tlb_index(va)];                                                  \
        if (UNLIKELY((v->hart.mstatus & MSTATUS_FS) != MSTATUS_FS) || !tlb_hits(entry, va, bytes))                     \
            return slow_##name(v, u);                                                                                  \
        /* NOLINTNEXTLINE(performance-no-int-to-ptr) */                                                                \
        FR(rd) = boxed(guest_load_##bits((uint8_t *)(va + entry->addend)));                                            \
        NEXT;                                                                                                          \
    }
FP_LOAD(flw, 4, 32, box)
FP_LOAD(fld, 8, 64, (uint64_t))

#define FP_STORE(name, bytes, bits)                                                                                    \
    static __attribute__((noinline, cold)) struct uop *slow_##name(struct vcpu *v, struct uop *u)                      \
    {                                                                                                                  \
        if (!fp_readable(v))                                                                                           \
            return engine_illegal(v, u);                                                                               \
        if (!engine_store(v, u, ADDRESS, bytes, FR(rs2)))                                                              \
            return NULL;                                                                                               \
        NEXT;                                                                                                          \
    }                                                                                                                  \
    OP(name)                                                                                                           \
    {                                                                                                                  \
        uint64_t va = ADDRESS;                                                                                         \
        const struct tlb_entry *entry = &v->tlb->write[tlb_index(va)];                                                 \
        if (UNLIKELY(!fp_readable(v)) || !tlb_hits(entry, va, bytes))                                                  \
            return slow_##name(v, u);                                                                                  \
        /* NOLINTNEXTLINE(performance-no-int-to-ptr) */                                                                \
        guest_store_##bits((uint8_t *)(va + entry->addend), (uint##bits##_t)FR(rs2));                                  \
        NEXT;                                                                                                          \
    }
FP_STORE(fsw, 4, 32)
FP_STORE(fsd, 8, 64)
