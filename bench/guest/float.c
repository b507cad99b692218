/* Floating-point kernels. Each starts from the same numbers every round; the checksum is of the bits of what it computed, so a
 * wrong last digit shows. Contraction to fused multiply-add is left to the compiler, as in ordinary programs. */
#include "bench.h"

#include <math.h>
#include <string.h>

#define CLEAN __attribute__((noinline, noclone))

static uint64_t bits(double value)
{
    uint64_t word;

    memcpy(&word, &value, sizeof(word));
    return word;
}

/* --- five bodies under gravity ------------------------------------------------------------------------------------------ */

struct body {
    double x[3], v[3], mass;
};

enum { BODIES = 5, STEPS = 200 };

static CLEAN void nbody_step(struct body *bodies, double dt)
{
    for (int i = 0; i < BODIES; i++) {
        for (int j = i + 1; j < BODIES; j++) {
            double d[3], square = 0.01;
            for (int k = 0; k < 3; k++) {
                d[k] = bodies[i].x[k] - bodies[j].x[k];
                square += d[k] * d[k];
            }
            double pull = dt / (square * sqrt(square));
            for (int k = 0; k < 3; k++) {
                bodies[i].v[k] -= d[k] * bodies[j].mass * pull;
                bodies[j].v[k] += d[k] * bodies[i].mass * pull;
            }
        }
    }
    for (int i = 0; i < BODIES; i++)
        for (int k = 0; k < 3; k++)
            bodies[i].x[k] += dt * bodies[i].v[k];
}

static uint64_t nbody_round(void)
{
    struct body bodies[BODIES];
    uint64_t sum = 0;

    for (int i = 0; i < BODIES; i++)
        bodies[i] = (struct body){ .x = { i * 1.5, i * i * 0.25 - 1, 0.5 * i },
                                   .v = { 0.01 * i, 0.5 / (i + 1), -0.125 * i },
                                   .mass = 4.0 / (i * i + 1) };
    for (int step = 0; step < STEPS; step++)
        nbody_step(bodies, 0.001);
    for (int i = 0; i < BODIES; i++)
        for (int k = 0; k < 3; k++)
            sum = bench_mix(sum, bits(bodies[i].x[k]));
    return sum;
}

/* --- matrices, double and single -------------------------------------------------------------------------------------------- */

enum { SIDE = 48 };
static double da[SIDE][SIDE], db[SIDE][SIDE], dc[SIDE][SIDE];
static float fa[SIDE][SIDE], fb[SIDE][SIDE], fc[SIDE][SIDE];

static void matmul_begin(void)
{
    uint64_t state = 8;

    for (int i = 0; i < SIDE; i++) {
        for (int j = 0; j < SIDE; j++) {
            da[i][j] = (double)(bench_random(&state) & 0xffff) / 777;
            db[i][j] = (double)(bench_random(&state) & 0xffff) / 999;
            fa[i][j] = (float)da[i][j];
            fb[i][j] = (float)db[i][j];
        }
    }
}

static uint64_t matmul_round(void)
{
    uint64_t sum = 0;

    for (int i = 0; i < SIDE; i++) {
        for (int j = 0; j < SIDE; j++) {
            double total = 0;
            for (int k = 0; k < SIDE; k++)
                total += da[i][k] * db[k][j];
            dc[i][j] = total;
        }
    }
    for (int i = 0; i < SIDE; i++)
        sum = bench_mix(sum, bits(dc[i][(i * 7) % SIDE]));
    return sum;
}

static uint64_t matmul_single_round(void)
{
    uint64_t sum = 0;

    for (int i = 0; i < SIDE; i++) {
        for (int j = 0; j < SIDE; j++) {
            float total = 0;
            for (int k = 0; k < SIDE; k++)
                total += fa[i][k] * fb[k][j];
            fc[i][j] = total;
        }
    }
    for (int i = 0; i < SIDE; i++)
        sum = bench_mix(sum, bits(fc[i][(i * 7) % SIDE]));
    return sum;
}

/* --- Mandelbrot's set in single precision: compares and branches between the sums --------------------------------------- */

static uint64_t mandelbrot_round(void)
{
    uint64_t sum = 0;

    for (int row = 0; row < 24; row++) {
        for (int column = 0; column < 24; column++) {
            float cx = (float)column / 12 - 1.5f, cy = (float)row / 12 - 1.0f, x = 0, y = 0;
            int count = 0;
            while (count < 100 && x * x + y * y <= 4.0f) {
                float next = x * x - y * y + cx;
                y = 2 * x * y + cy;
                x = next;
                count++;
            }
            sum = bench_mix(sum, (uint64_t)count);
        }
    }
    return sum;
}

/* --- conversions, divisions, roots and the C library's functions ---------------------------------------------------------- */

static uint64_t math_round(void)
{
    double x = 0.25;
    uint64_t sum = 0;

    for (int i = 0; i < 400; i++, x += 0.027) {
        double y = sin(x) * exp(-x / 8) + log(x) / sqrt(x) + fmax(x, floor(x * 3)) + pow(x, 0.3);
        sum = bench_mix(sum, (uint64_t)(int64_t)(y * 1e9));
    }
    return sum;
}

static const struct kernel FLOAT_KERNELS[] = {
    { "nbody", nbody_round, 0, STEPS, NULL, NULL },
    { "matmul", matmul_round, 0, (double)SIDE *SIDE *SIDE, matmul_begin, NULL },
    { "matmul-single", matmul_single_round, 0, (double)SIDE *SIDE *SIDE, matmul_begin, NULL },
    { "mandelbrot-single", mandelbrot_round, 0, 1, NULL, NULL },
    { "math", math_round, 0, 400, NULL, NULL },
    { 0 },
};

int main(int argc, char **argv)
{
    return bench_main(argc, argv, FLOAT_KERNELS);
}
