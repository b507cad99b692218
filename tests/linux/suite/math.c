/* The C library's mathematics. No standard says the last bit, so two checksums: "math" of results rounded to single, which every
 * good library gives alike, and "math-exact" of all bits, which is this library's compiled for this machine. */
#include <math.h>
#include "suite.h"

static uint64_t rounded, exact;

static void both(double value)
{
    if (isnan(value))
        value = 4711;
    take_double(&rounded, (float)value);
    take_double(&exact, value);
}

int main(void)
{
    uint64_t state = 3935559000370003845u;

    for (int i = 0; i < 12000; i++) {
        volatile double x = (double)(int64_t)next_number(&state) / 0x1p60,
                        y = (double)(int32_t)next_number(&state) / 0x1p27;
        volatile double small = (double)(next_number(&state) >> 11) * 0x1p-53;

        both(sin(x));
        both(cos(y));
        both(tan(x));
        both(atan(y));
        both(atan2(x, y));
        both(asin(small));
        both(exp(x));
        both(log(fabs(y) + small));
        both(log2(small + 1e-9));
        both(pow(fabs(x) + 0.001, y / 4));
        both(sinh(x));
        both(tanh(y));
        both(cbrt(y));
        both(hypot(x, y));
        both(fmod(y * 1000, x));
        both(erf(small));
        both(lgamma(small + 1.5));
        both(ldexp(small, (int)(x * 8)));
    }
    return say("math", rounded) | say("math-exact", exact);
}
