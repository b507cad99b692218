/* Every function of vcpu/fpu.h against MPFR: results and flags, in all five rounding modes.
 *
 * MPFR computes with so many bits that sums, products and fused ones are exact, and quotients and roots cannot look like a
 * tie by accident. The number is then scaled so that the result's last place is 1, and rounded to an integer by MPFR's own
 * functions, which know ties-to-even and ties-away. Flags follow from comparing before and after (IEEE 754-2019, 7; tininess
 * after rounding, as the ISA wants it). Operands are all pairs of the edges, and random ones. */
#include "tests/unit/test.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <mpfr.h>

#include "vcpu/fpu.h"

enum { RANDOM = 6000, RANDOM_LONG = 600000, MODES = 5 };

struct format {
    int bits;     /* of the whole */
    int p;        /* of the significand, the hidden one included */
    int emin;     /* exponent of the least normal number */
    int emax;     /* of the largest */
    long exactly; /* bits in which everything but quotients and roots is exact */
    uint64_t inf, nan;
};

static const struct format singles = { 32, 24, -126, 127, 700, 0x7f800000, FPU_NAN32 };
static const struct format doubles = { 64, 53, -1022, 1023, 4600, UINT64_C(0x7ff0000000000000), FPU_NAN64 };

static mpfr_t ma, mb, mc, exact, scaled, whole, limit;

static int make_numbers(void **state)
{
    (void)state;
    mpfr_inits2(doubles.exactly, ma, mb, mc, exact, scaled, whole, limit, (mpfr_ptr)NULL);
    return 0;
}

static int drop_numbers(void **state)
{
    (void)state;
    mpfr_clears(ma, mb, mc, exact, scaled, whole, limit, (mpfr_ptr)NULL);
    mpfr_free_cache();
    return 0;
}

static void use_format(const struct format *f)
{
    mpfr_ptr all[] = { ma, mb, mc, exact, scaled, whole, limit };

    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        mpfr_set_prec(all[i], f->exactly);
}

/* --- bit patterns -------------------------------------------------------------------------------------------- */

static uint64_t sign_of(const struct format *f)
{
    return UINT64_C(1) << (f->bits - 1);
}

static bool is_nan(const struct format *f, uint64_t a)
{
    return (a & ~sign_of(f)) > f->inf;
}

static bool is_signalling(const struct format *f, uint64_t a)
{
    return is_nan(f, a) && !(a >> (f->p - 2) & 1);
}

static void number_of(mpfr_t out, const struct format *f, uint64_t a)
{
    uint64_t fraction = a & ((UINT64_C(1) << (f->p - 1)) - 1), size = a & ~sign_of(f);
    int exponent = (int)(size >> (f->p - 1));

    if (is_nan(f, a)) {
        mpfr_set_nan(out);
        return;
    }
    if (size == f->inf) {
        mpfr_set_inf(out, 1);
    } else {
        if (exponent)
            fraction |= UINT64_C(1) << (f->p - 1);
        mpfr_set_uj(out, fraction, MPFR_RNDN);
        mpfr_mul_2si(out, out, (exponent ? exponent : 1) - 1 + f->emin - (f->p - 1), MPFR_RNDN);
    }
    mpfr_setsign(out, out, (a & sign_of(f)) != 0, MPFR_RNDN);
}

/* Of a number that the format has. */
static uint64_t pattern_of(const struct format *f, mpfr_t number)
{
    uint64_t bits;

    if (f->bits == 32) {
        float single = mpfr_get_flt(number, MPFR_RNDN);
        uint32_t word;

        memcpy(&word, &single, 4);
        return word;
    }
    double d = mpfr_get_d(number, MPFR_RNDN);
    memcpy(&bits, &d, 8);
    return bits;
}

/* --- rounding -------------------------------------------------------------------------------------------------- */

static void round_whole(mpfr_t out, mpfr_t in, unsigned rm)
{
    switch (rm) {
    case FPU_RNE: mpfr_roundeven(out, in); break;
    case FPU_RTZ: mpfr_trunc(out, in); break;
    case FPU_RDN: mpfr_floor(out, in); break;
    case FPU_RUP: mpfr_ceil(out, in); break;
    default: mpfr_round(out, in); break; /* ties away from zero */
    }
}

/* whole = exact, rounded so that its last place is 2^place. */
static void round_at(long place, unsigned rm)
{
    mpfr_mul_2si(scaled, exact, -place, MPFR_RNDN);
    round_whole(whole, scaled, rm);
    mpfr_mul_2si(whole, whole, place, MPFR_RNDN);
}

static bool goes_to_infinity(unsigned rm, bool negative)
{
    return rm == FPU_RNE || rm == FPU_RMM || rm == (negative ? FPU_RDN : FPU_RUP);
}

/* `exact` (no NaN) in the format. `inexact`: it is short of the truth already. */
static uint64_t rounded(const struct format *f, unsigned rm, bool inexact, unsigned *flags)
{
    bool negative = mpfr_signbit(exact), tiny;
    uint64_t sign = negative ? sign_of(f) : 0;

    if (mpfr_inf_p(exact))
        return sign | f->inf;
    if (mpfr_zero_p(exact))
        return sign;
    long lead = (long)mpfr_get_exp(exact) - 1, place;

    round_at(lead - (f->p - 1), rm); /* as if exponents had no end */
    tiny = mpfr_cmpabs(whole, (mpfr_set_ui_2exp(limit, 1, f->emin, MPFR_RNDN), limit)) < 0;
    place = (lead > f->emin ? lead : f->emin) - (f->p - 1);
    round_at(place, rm);
    inexact = inexact || mpfr_cmp(whole, exact) != 0;
    mpfr_set_ui_2exp(limit, 1, f->emax + 1, MPFR_RNDN);
    if (mpfr_cmpabs(whole, limit) >= 0) {
        *flags |= FPU_OF | FPU_NX;
        return sign | (goes_to_infinity(rm, negative) ? f->inf : f->inf - 1);
    }
    if (inexact)
        *flags |= FPU_NX | (tiny ? FPU_UF : 0);
    return mpfr_zero_p(whole) ? sign : pattern_of(f, whole);
}

/* --- operations ------------------------------------------------------------------------------------------------ */

enum operation { ADD, SUB, MUL, DIV, SQRT, FMA, OPERATIONS };
static const char *const names[OPERATIONS] = { "add", "sub", "mul", "div", "sqrt", "fma" };

static uint64_t ours(const struct format *f, enum operation op, uint64_t a, uint64_t b, uint64_t c, unsigned rm,
                     unsigned *flags)
{
    bool d = f->bits == 64;
    uint32_t x = (uint32_t)a, y = (uint32_t)b, z = (uint32_t)c;

    switch (op) {
    case ADD: return d ? fpu_add64(a, b, rm, flags) : fpu_add32(x, y, rm, flags);
    case SUB: return d ? fpu_sub64(a, b, rm, flags) : fpu_sub32(x, y, rm, flags);
    case MUL: return d ? fpu_mul64(a, b, rm, flags) : fpu_mul32(x, y, rm, flags);
    case DIV: return d ? fpu_div64(a, b, rm, flags) : fpu_div32(x, y, rm, flags);
    case SQRT: return d ? fpu_sqrt64(a, rm, flags) : fpu_sqrt32(x, rm, flags);
    default: return d ? fpu_fma64(a, b, c, rm, flags) : fpu_fma32(x, y, z, rm, flags);
    }
}

static unsigned operands(enum operation op)
{
    return op == SQRT ? 1 : op == FMA ? 3 : 2;
}

static uint64_t theirs(const struct format *f, enum operation op, const uint64_t v[3], unsigned rm, unsigned *flags)
{
    mpfr_rnd_t zero = rm == FPU_RDN ? MPFR_RNDD : MPFR_RNDN; /* decides the sign of x - x */
    bool nan = false, inexact = false;

    for (unsigned i = 0; i < operands(op); i++) {
        nan = nan || is_nan(f, v[i]);
        if (is_signalling(f, v[i]))
            *flags |= FPU_NV;
    }
    number_of(ma, f, v[0]);
    number_of(mb, f, v[1]);
    number_of(mc, f, v[2]);
    switch (op) {
    case ADD: mpfr_add(exact, ma, mb, zero); break;
    case SUB: mpfr_sub(exact, ma, mb, zero); break;
    case MUL: mpfr_mul(exact, ma, mb, zero); break;
    case DIV:
        inexact = mpfr_div(exact, ma, mb, MPFR_RNDZ) != 0;
        if (mpfr_zero_p(mb) && mpfr_number_p(ma) && !mpfr_zero_p(ma))
            *flags |= FPU_DZ;
        break;
    case SQRT: inexact = mpfr_sqrt(exact, ma, MPFR_RNDZ) != 0; break;
    default:
        mpfr_fma(exact, ma, mb, mc, zero);
        /* Infinity times zero is invalid even when a quiet NaN is added (Unprivileged ISA, 20.6). */
        if ((mpfr_inf_p(ma) && mpfr_zero_p(mb)) || (mpfr_zero_p(ma) && mpfr_inf_p(mb)))
            *flags |= FPU_NV;
    }
    if (mpfr_nan_p(exact)) {
        if (!nan)
            *flags |= FPU_NV;
        return f->nan;
    }
    return rounded(f, rm, inexact, flags);
}

static void check(const struct format *f, enum operation op, uint64_t a, uint64_t b, uint64_t c)
{
    for (unsigned rm = 0; rm < MODES; rm++) {
        unsigned is_flags = 0, should_flags = 0;
        uint64_t is = ours(f, op, a, b, c, rm, &is_flags);
        uint64_t should = theirs(f, op, (const uint64_t[]){ a, b, c }, rm, &should_flags);

        if (is != should || is_flags != should_flags)
            fail_msg("%s%d(%" PRIx64 ", %" PRIx64 ", %" PRIx64 ") rm %u: %" PRIx64 " flags %x, should be %" PRIx64
                     " flags %x",
                     names[op], f->bits, a, b, c, rm, is, is_flags, should, should_flags);
    }
}

/* --- operands -------------------------------------------------------------------------------------------------- */

static uint64_t seed = UINT64_C(0x2545f4914f6cdd1d);

static uint64_t rnd(void) /* splitmix */
{
    uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

enum { EDGES = 64 };

/* Both sides of everything where something changes, made from the format itself. */
static unsigned edges_of(const struct format *f, uint64_t edge[EDGES])
{
    const int exponents[] = { 0, 1, 30, 31, 32, 62, 63, 64, -1, -f->p, f->p - 1, f->emin - f->emin / 2 };
    uint64_t hidden = UINT64_C(1) << (f->p - 1), bias = (uint64_t)(1 - f->emin);
    uint64_t fixed[] = { 0,
                         1,
                         2,
                         3,
                         hidden / 2,
                         hidden - 1,
                         hidden,
                         hidden + 1,
                         2 * hidden - 1,
                         f->inf - 1,
                         f->inf - 2,
                         f->inf - hidden,
                         f->inf,
                         f->inf + 1,
                         f->nan - 1,
                         f->nan,
                         f->nan | 0x1234 };
    unsigned n = 0;

    for (unsigned i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
        edge[n++] = fixed[i];
    for (unsigned i = 0; i < sizeof(exponents) / sizeof(exponents[0]); i++) {
        uint64_t one = (uint64_t)((int64_t)bias + exponents[i]) << (f->p - 1);

        edge[n++] = one;
        edge[n++] = one - 1;
        edge[n++] = one + (i % 3 == 0 ? hidden / 2 : 1);
    }
    return n;
}

static uint64_t any_edge(const struct format *f)
{
    uint64_t edge[EDGES];
    unsigned n = edges_of(f, edge);

    return edge[rnd() % n] | (rnd() & 1 ? sign_of(f) : 0);
}

/* near: another operand, to be close to. */
static uint64_t any_operand(const struct format *f, uint64_t near)
{
    uint64_t all = sign_of(f) * 2 - 1, hidden = UINT64_C(1) << (f->p - 1), r = rnd() & all;

    switch (rnd() % 8) {
    case 0: return r;
    case 1: return any_edge(f);
    case 2: return (r & (sign_of(f) | f->inf)) | (rnd() & rnd() & rnd() & (hidden - 1)); /* few bits: ties */
    case 3: return ((near & f->inf) + (rnd() % 7) * hidden - 3 * hidden + (r & (sign_of(f) | (hidden - 1)))) & all;
    case 4: return r & (sign_of(f) | (hidden - 1));             /* subnormal */
    case 5: return r & (sign_of(f) | (8 * hidden - 1));         /* about the least normal */
    case 6: return ((near ^ sign_of(f)) + rnd() % 5 - 2) & all; /* cancels */
    default: return (f->inf / 2 & f->inf) + (r & (sign_of(f) | (16 * hidden - 1))) - 8 * hidden; /* about 1 */
    }
}

static unsigned tries(void)
{
    const char *is_long = getenv("GODWIT_LONG");

    return is_long && *is_long ? RANDOM_LONG : RANDOM;
}

/* --- tests: arithmetic --------------------------------------------------------------------------------------------- */

static void arithmetic(const struct format *f, enum operation op)
{
    uint64_t edge[EDGES];
    unsigned n = edges_of(f, edge);

    use_format(f);
    for (unsigned i = 0; i < 2 * n; i++) {
        uint64_t a = edge[i / 2] | (i & 1 ? sign_of(f) : 0);

        for (unsigned k = 0; k < (op == SQRT ? 1 : 2 * n); k++)
            check(f, op, a, edge[k / 2] | (k & 1 ? sign_of(f) : 0), op == FMA ? any_edge(f) : 0);
    }
    for (unsigned i = 0; i < tries(); i++) {
        uint64_t a = any_operand(f, rnd()), b = any_operand(f, a), c = 0;

        if (op == FMA) { /* often near the product: cancellation is where fused matters */
            unsigned flags = 0;

            c = rnd() & 1 ? any_operand(f, a)
                          : any_operand(f, ours(f, MUL, a, b, 0, (unsigned)(rnd() % MODES), &flags));
        }
        check(f, op, a, b, c);
    }
}

static void every_operation_is_exact_and_rounded_once(void **state)
{
    (void)state;
    for (enum operation op = ADD; op < OPERATIONS; op++) {
        arithmetic(&singles, op);
        arithmetic(&doubles, op);
    }
}

/* --- tests: conversions ----------------------------------------------------------------------------------------------- */

struct to_int {
    const char *name;
    uint64_t (*from32)(uint32_t a, unsigned rm, unsigned *flags);
    uint64_t (*from64)(uint64_t a, unsigned rm, unsigned *flags);
    int bits;
    bool is_signed;
};

static const struct to_int to_ints[] = {
    { "i32", fpu_f32_to_i32, fpu_f64_to_i32, 32, true },
    { "u32", fpu_f32_to_u32, fpu_f64_to_u32, 32, false },
    { "i64", fpu_f32_to_i64, fpu_f64_to_i64, 64, true },
    { "u64", fpu_f32_to_u64, fpu_f64_to_u64, 64, false },
};

static uint64_t sign_extended(uint64_t value, int bits)
{
    return bits == 32 ? (uint64_t)(int64_t)(int32_t)value : value;
}

static uint64_t to_int(const struct format *f, const struct to_int *t, uint64_t a, unsigned rm, unsigned *flags)
{
    uint64_t top = UINT64_C(1) << (t->bits - 1), most = t->is_signed ? top - 1 : top - 1 + top;
    uint64_t least = t->is_signed ? top : 0;

    number_of(exact, f, a);
    if (!mpfr_nan_p(exact))
        round_whole(whole, exact, rm);
    mpfr_set_uj(limit, most, MPFR_RNDN);
    if (mpfr_nan_p(exact) || mpfr_cmp(whole, limit) > 0) {
        *flags |= FPU_NV;
        return sign_extended(most, t->bits);
    }
    mpfr_set_uj(limit, least, MPFR_RNDN);
    mpfr_neg(limit, limit, MPFR_RNDN);
    if (mpfr_cmp(whole, limit) < 0) {
        *flags |= FPU_NV;
        return sign_extended(least, t->bits);
    }
    if (mpfr_cmp(whole, exact) != 0)
        *flags |= FPU_NX;
    uint64_t value = t->is_signed ? (uint64_t)mpfr_get_sj(whole, MPFR_RNDN) : (uint64_t)mpfr_get_uj(whole, MPFR_RNDN);
    return sign_extended(value, t->bits);
}

static void check_to_int(const struct format *f, uint64_t a)
{
    for (unsigned i = 0; i < sizeof(to_ints) / sizeof(to_ints[0]); i++)
        for (unsigned rm = 0; rm < MODES; rm++) {
            unsigned is_flags = 0, should_flags = 0;
            uint64_t is =
                f->bits == 64 ? to_ints[i].from64(a, rm, &is_flags) : to_ints[i].from32((uint32_t)a, rm, &is_flags);
            uint64_t should = to_int(f, &to_ints[i], a, rm, &should_flags);

            if (is != should || is_flags != should_flags)
                fail_msg("f%d_to_%s(%" PRIx64 ") rm %u: %" PRIx64 " flags %x, should be %" PRIx64 " flags %x", f->bits,
                         to_ints[i].name, a, rm, is, is_flags, should, should_flags);
        }
}

static void numbers_become_integers_or_the_nearest_limit(void **state)
{
    const struct format *formats[] = { &singles, &doubles };

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        const struct format *f = formats[i];
        uint64_t edge[EDGES];
        unsigned n = edges_of(f, edge);

        use_format(f);
        for (unsigned k = 0; k < 2 * n; k++)
            check_to_int(f, edge[k / 2] | (k & 1 ? sign_of(f) : 0));
        for (unsigned k = 0; k < tries(); k++) { /* halves and thirds of what integers can be */
            uint64_t exponent = (uint64_t)(1 - f->emin) - 3 + rnd() % 70;

            check_to_int(f, any_operand(f, exponent << (f->p - 1)));
            check_to_int(f, exponent << (f->p - 1) | (rnd() & (sign_of(f) | ((sign_of(f) >> (f->bits - f->p)) - 1))));
        }
    }
}

struct from_int {
    uint32_t (*to32)(uint64_t a, unsigned rm, unsigned *flags);
    uint64_t (*to64)(uint64_t a, unsigned rm, unsigned *flags);
    int bits;
    bool is_signed;
};

static void check_from_int(const struct format *f, const struct from_int *t, uint64_t a)
{
    for (unsigned rm = 0; rm < MODES; rm++) {
        unsigned is_flags = 0, should_flags = 0;
        uint64_t is = f->bits == 64 ? t->to64(a, rm, &is_flags) : t->to32(a, rm, &is_flags);

        if (t->is_signed)
            mpfr_set_sj(exact, t->bits == 32 ? (int32_t)a : (int64_t)a, MPFR_RNDN);
        else
            mpfr_set_uj(exact, t->bits == 32 ? (uint32_t)a : a, MPFR_RNDN);
        uint64_t should = rounded(f, rm, false, &should_flags);
        if (is != should || is_flags != should_flags)
            fail_msg("%c%d_to_f%d(%" PRIx64 ") rm %u: %" PRIx64 " flags %x, should be %" PRIx64 " flags %x",
                     t->is_signed ? 'i' : 'u', t->bits, f->bits, a, rm, is, is_flags, should, should_flags);
    }
}

static void integers_become_the_nearest_number(void **state)
{
    static const struct from_int from_ints[] = {
        { fpu_i32_to_f32, fpu_i32_to_f64, 32, true },
        { fpu_u32_to_f32, fpu_u32_to_f64, 32, false },
        { fpu_i64_to_f32, fpu_i64_to_f64, 64, true },
        { fpu_u64_to_f32, fpu_u64_to_f64, 64, false },
    };
    const struct format *formats[] = { &singles, &doubles };

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        use_format(formats[i]);
        for (unsigned k = 0; k < sizeof(from_ints) / sizeof(from_ints[0]); k++) {
            check_from_int(formats[i], &from_ints[k], 0);
            for (unsigned n = 0; n < tries(); n++) {
                uint64_t a = rnd() >> rnd() % 64;

                if (n & 1) /* ties and their neighbours */
                    a = ((UINT64_C(1) << rnd() % 64) + (UINT64_C(1) << rnd() % 64)) + rnd() % 3 - 1;
                check_from_int(formats[i], &from_ints[k], n & 2 ? a : 0 - a);
            }
        }
    }
}

static void check_narrow(uint64_t a)
{
    for (unsigned rm = 0; rm < MODES; rm++) {
        unsigned is_flags = 0, should_flags = is_signalling(&doubles, a) ? FPU_NV : 0;
        uint32_t is = fpu_f64_to_f32(a, rm, &is_flags);

        number_of(exact, &doubles, a);
        uint64_t should = mpfr_nan_p(exact) ? FPU_NAN32 : rounded(&singles, rm, false, &should_flags);
        if (is != should || is_flags != should_flags)
            fail_msg("f64_to_f32(%" PRIx64 ") rm %u: %" PRIx32 " flags %x, should be %" PRIx64 " flags %x", a, rm, is,
                     is_flags, should, should_flags);
    }
}

static void doubles_become_singles_and_singles_doubles(void **state)
{
    uint64_t edge[EDGES];
    unsigned n = edges_of(&doubles, edge);

    (void)state;
    use_format(&doubles);
    for (unsigned k = 0; k < 2 * n; k++)
        check_narrow(edge[k / 2] | (k & 1 ? sign_of(&doubles) : 0));
    for (unsigned k = 0; k < 4 * tries(); k++) {
        /* Within and about the singles' range; many with all bits behind the last place equal. */
        uint64_t exponent = 1023 - 155 + rnd() % 290, tail = UINT64_C(0x1fffffff);
        uint64_t a = exponent << 52 | (rnd() & UINT64_C(0x800fffffffffffff));

        check_narrow(k % 4 == 0   ? a & ~tail
                     : k % 4 == 1 ? (a & ~tail) | UINT64_C(0x10000000)
                     : k % 4 == 2 ? a | tail
                                  : a);
        uint32_t single = (uint32_t)any_operand(&singles, rnd());
        unsigned flags = 0;
        uint64_t wide = fpu_f32_to_f64(single, &flags);

        number_of(exact, &singles, single);
        assert_int_equal(wide, mpfr_nan_p(exact) ? FPU_NAN64 : pattern_of(&doubles, exact));
        assert_int_equal(flags, is_signalling(&singles, single) ? FPU_NV : 0);
    }
}

/* --- tests: comparisons, minimum, class ----------------------------------------------------------------------------------- */

static uint64_t min_or_max(const struct format *f, uint64_t a, uint64_t b, bool max)
{
    if (is_nan(f, a) && is_nan(f, b))
        return f->nan;
    if (is_nan(f, a) || is_nan(f, b))
        return is_nan(f, a) ? b : a;
    int order = mpfr_cmp(ma, mb);
    bool a_is_less = order < 0 || (order == 0 && mpfr_signbit(ma) && !mpfr_signbit(mb)); /* -0 < +0 here */

    return a_is_less != max ? a : b;
}

static void check_compare(const struct format *f, uint64_t a, uint64_t b)
{
    bool d = f->bits == 64, nan = is_nan(f, a) || is_nan(f, b);
    unsigned flags[5] = { 0 }, signalling = is_signalling(f, a) || is_signalling(f, b) ? FPU_NV : 0;
    uint32_t x = (uint32_t)a, y = (uint32_t)b;

    number_of(ma, f, a);
    number_of(mb, f, b);
    assert_int_equal(d ? fpu_eq64(a, b, &flags[0]) : fpu_eq32(x, y, &flags[0]), mpfr_equal_p(ma, mb) != 0);
    assert_int_equal(d ? fpu_lt64(a, b, &flags[1]) : fpu_lt32(x, y, &flags[1]), mpfr_less_p(ma, mb) != 0);
    assert_int_equal(d ? fpu_le64(a, b, &flags[2]) : fpu_le32(x, y, &flags[2]), mpfr_lessequal_p(ma, mb) != 0);
    assert_int_equal(d ? fpu_min64(a, b, &flags[3]) : fpu_min32(x, y, &flags[3]), min_or_max(f, a, b, false));
    assert_int_equal(d ? fpu_max64(a, b, &flags[4]) : fpu_max32(x, y, &flags[4]), min_or_max(f, a, b, true));
    assert_int_equal(flags[0], signalling);
    assert_int_equal(flags[1], nan ? FPU_NV : 0);
    assert_int_equal(flags[2], nan ? FPU_NV : 0);
    assert_int_equal(flags[3], signalling);
    assert_int_equal(flags[4], signalling);
}

/* Table 29 of the Unprivileged ISA. */
static unsigned class_of(const struct format *f, uint64_t a)
{
    number_of(ma, f, a);
    if (mpfr_nan_p(ma))
        return is_signalling(f, a) ? 1 << 8 : 1 << 9;
    bool negative = mpfr_signbit(ma);
    if (mpfr_inf_p(ma))
        return negative ? 1 << 0 : 1 << 7;
    if (mpfr_zero_p(ma))
        return negative ? 1 << 3 : 1 << 4;
    if (mpfr_get_exp(ma) - 1 >= f->emin)
        return negative ? 1 << 1 : 1 << 6;
    return negative ? 1 << 2 : 1 << 5;
}

static void comparisons_minimum_and_class_know_every_kind(void **state)
{
    const struct format *formats[] = { &singles, &doubles };

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        const struct format *f = formats[i];

        use_format(f);
        for (unsigned k = 0; k < 4 * tries(); k++) {
            uint64_t a = k & 1 ? any_edge(f) : any_operand(f, rnd()), b = k & 2 ? any_edge(f) : any_operand(f, a);

            check_compare(f, a, k % 16 == 5 ? a : b);
            assert_int_equal(f->bits == 64 ? fpu_class64(a) : fpu_class32((uint32_t)a), class_of(f, a));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_is_exact_and_rounded_once),
        cmocka_unit_test(numbers_become_integers_or_the_nearest_limit),
        cmocka_unit_test(integers_become_the_nearest_number),
        cmocka_unit_test(doubles_become_singles_and_singles_doubles),
        cmocka_unit_test(comparisons_minimum_and_class_know_every_kind),
    };

    return cmocka_run_group_tests(tests, make_numbers, drop_numbers);
}
