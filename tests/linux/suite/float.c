/* Floating point whose every result IEEE 754 fixes: the four operations, square root, fused multiply-add, conversions, in both
 * widths, in four rounding modes, with the flags that they raise; bodies that move, a product of matrices. */
#include <fenv.h>
#include <math.h>
#include "suite.h"

static const int modes[] = { FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD };
static const int flags[] = { FE_INEXACT, FE_UNDERFLOW, FE_OVERFLOW, FE_DIVBYZERO, FE_INVALID };

/* Raised since the last call; the bits' places are each machine's own, their order here is ours. */
static uint64_t raised(void)
{
    int now = fetestexcept(FE_ALL_EXCEPT);
    uint64_t own = 0;

    for (unsigned i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
        own |= (uint64_t)((now & flags[i]) != 0) << i;
    feclearexcept(FE_ALL_EXCEPT);
    return own;
}

static void keep(uint64_t *sum, volatile double *value)
{
    double seen = *value;

    take(sum, raised());
    if (isnan(seen))
        take(sum, 0x4e614e);
    else
        take_double(sum, seen);
}

/* From bits, so that subnormals, infinities and NaNs come up. */
static double any_double(uint64_t bits)
{
    double value;

    switch (bits & 7) {
    case 0: bits = (bits >> 12) | (bits & 1ull << 63); break;          /* subnormal */
    case 1: bits |= 0x7fe0000000000000u; break;                        /* huge, infinite, none */
    case 2: bits = (bits & 0x8000000000000000u) | 0x3ff0000000000000u; /* one */
    }
    memcpy(&value, &bits, sizeof(value));
    return isnan(value) ? -1e300 : value;
}

#define KEEP(expression)                                                                                               \
    do {                                                                                                               \
        r = (expression);                                                                                              \
        keep(sum, &r);                                                                                                 \
    } while (0)

static void operations(uint64_t *sum, uint64_t *state)
{
    volatile double a = any_double(next_number(state)), b = any_double(next_number(state)),
                    c = any_double(next_number(state)), r;
    volatile float fa = (float)a, fb = (float)b, fc = (float)c;

    (void)raised();
    KEEP(a + b);
    KEEP(a - b);
    KEEP(a * b);
    KEEP(a / b);
    KEEP(sqrt(fabs(a)));
    KEEP(fma(a, b, c));
    KEEP(fa + fb);
    KEEP(fa * fb);
    KEEP(fa / fb);
    KEEP(sqrtf(fabsf(fb)));
    KEEP(fmaf(fa, fb, fc));
    KEEP((float)a);
    KEEP((double)(a < b) + 2 * (a == b) + 4 * (double)(b <= c));
}

static void conversions(uint64_t *sum, uint64_t *state)
{
    volatile int64_t whole = (int64_t)next_number(state) >> (next_number(state) & 63);
    volatile uint64_t natural = (uint64_t)whole;
    volatile double r, part = (double)(int32_t)next_number(state) / 1024;

    (void)raised();
    KEEP((double)whole);
    KEEP((double)natural);
    KEEP((float)whole);
    KEEP((float)natural);
    KEEP((double)(int32_t)whole);
    KEEP((double)(int64_t)part);
    KEEP((double)(int32_t)part);
    KEEP((double)lrint(part));
    KEEP((double)llrintf((float)part));
    KEEP(floor(part) + ceil(part / 3) + trunc(part / 7) + rint(part));
}

static void bodies(uint64_t *sum)
{
    double at[5][3], speed[5][3], mass[5];

    for (int i = 0; i < 5; i++) {
        mass[i] = 1.0 / (1 + i);
        for (int k = 0; k < 3; k++) {
            at[i][k] = (i * 7 + k * 3) % 11 - 5.0;
            speed[i][k] = ((i + k * 5) % 7 - 3.0) / 50;
        }
    }
    for (int step = 0; step < 20000; step++) {
        for (int i = 0; i < 5; i++)
            for (int j = i + 1; j < 5; j++) {
                double d[3], square = 0.01, pull;

                for (int k = 0; k < 3; k++) {
                    d[k] = at[i][k] - at[j][k];
                    square += d[k] * d[k];
                }
                pull = 0.001 / (square * sqrt(square));
                for (int k = 0; k < 3; k++) {
                    speed[i][k] -= d[k] * mass[j] * pull;
                    speed[j][k] += d[k] * mass[i] * pull;
                }
            }
        for (int i = 0; i < 5; i++)
            for (int k = 0; k < 3; k++)
                at[i][k] += 0.001 * speed[i][k];
    }
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < 3; k++)
            take_double(sum, at[i][k] + speed[i][k]);
}

enum { N = 72 };

static void matrices(uint64_t *sum, uint64_t *state)
{
    static double a[N][N], b[N][N], c[N][N];
    static float f[N];

    for (int i = 0; i < N; i++)
        for (int k = 0; k < N; k++) {
            a[i][k] = (double)(int32_t)next_number(state) / 65536;
            b[i][k] = (double)(int16_t)next_number(state) / 3;
        }
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            c[i][j] = 0;
            for (int k = 0; k < N; k++)
                c[i][j] += a[i][k] * b[k][j];
            f[j] = f[j] * 0.5f + (float)c[i][j];
        }
    for (int i = 0; i < N; i++) {
        take_double(sum, c[i][N - 1 - i]);
        take_double(sum, f[i]);
    }
}

int main(void)
{
    uint64_t sum = 0, state = 1442695040888963407u;

    for (int i = 0; i < 8000; i++) {
        if (fesetround(modes[i & 3]))
            return 1;
        operations(&sum, &state);
        conversions(&sum, &state);
    }
    fesetround(FE_TONEAREST);
    bodies(&sum);
    matrices(&sum, &state);
    return say("float", sum);
}
