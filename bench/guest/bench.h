/* What the guest programs of bench/cpu.py share: a table of kernels, each run in whole rounds until enough time has
 * passed, so that the time of a run is bounded on any engine and its work is not.
 *
 *   PROGRAM [NAME...]              all kernels, or those named
 *
 * On standard output, which is the console:
 *   BEGIN name                     the clock starts after this line
 *   BENCH name value unit checksum took_ns rounds best
 *
 * best is the value of the fastest stretch of some 4 ms, or 0 where there is none: what a busy host did not interrupt.
 * took_ns is what the guest's clock says went by between the two lines; the host compares it with its own. checksum is what a
 * round returned; a round that returns something else than the table says makes the line read WRONG instead of BENCH.
 * Environment: BENCH_MS, the least milliseconds a kernel runs (500). */
#pragma once

#include <stdint.h>

struct kernel {
    const char *name;
    uint64_t (*round)(void); /* does one round, returns its checksum */
    uint64_t checksum;       /* what it must be; 0: not known beforehand */
    double ops;              /* per round; the value printed is nanoseconds per op */
    void (*begin)(void);     /* before the clock starts; may be NULL */
    void (*end)(void);
};

uint64_t bench_now_ns(void);
double bench_least_ns(void);

/* Ends the program: exit code 0, or 1 when a checksum was wrong or a name is not in the table (ended by .name NULL). */
int bench_main(int argc, char **argv, const struct kernel *kernels);

/* Prints the line of one result; for programs whose rounds are not functions. */
void bench_begin(const char *name);
void bench_end(const char *name, double value, double best, const char *unit, uint64_t checksum, uint64_t took_ns,
               uint64_t rounds);

/* Says what failed, with errno, and ends the program. */
_Noreturn void bench_fail(const char *what);

extern const struct kernel INTEGER_KERNELS[]; /* integer.c; smp.c runs them on several harts */

static inline uint64_t bench_mix(uint64_t sum, uint64_t value)
{
    return (sum ^ value) * UINT64_C(0x9e3779b97f4a7c15) + (sum >> 29);
}

/* Same numbers everywhere: xorshift64. *state must not be 0. */
static inline uint64_t bench_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}
