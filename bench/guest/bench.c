/* The clock, the rounds and the lines of the guest programs: bench.h says what they look like. */
#include "bench.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LEAST_MS = 500, STRETCH_NS = 4000000 };

uint64_t bench_now_ns(void)
{
    struct timespec now;

    if (clock_gettime(CLOCK_MONOTONIC, &now) < 0)
        bench_fail("clock_gettime");
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

double bench_least_ns(void)
{
    const char *text = getenv("BENCH_MS");
    double ms = text ? strtod(text, NULL) : LEAST_MS;

    return (ms > 0 ? ms : LEAST_MS) * 1e6;
}

_Noreturn void bench_fail(const char *what)
{
    fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
    exit(1);
}

void bench_begin(const char *name)
{
    printf("BEGIN %s\n", name);
    fflush(stdout);
}

void bench_end(const char *name, double value, double best, const char *unit, uint64_t checksum, uint64_t took_ns,
               uint64_t rounds)
{
    printf("BENCH %s %.6g %s %016" PRIx64 " %" PRIu64 " %" PRIu64 " %.6g\n", name, value, unit, checksum, took_ns,
           rounds, best);
    fflush(stdout);
}

/* The first round is not in the value: caches and translations are the engine's, pages of data the kernel's. */
static int run(const struct kernel *kernel)
{
    uint64_t rounds = 0, wrong_round = 0;
    double least_ns = bench_least_ns(), fastest_ns = INFINITY;

    if (kernel->begin)
        kernel->begin();
    bench_begin(kernel->name);
    uint64_t begun = bench_now_ns(), first = kernel->round(), warm = bench_now_ns(), now = warm;
    int wrong = kernel->checksum && first != kernel->checksum;
    while (!wrong && (double)(now - warm) < least_ns) {
        uint64_t stretch = now, stretch_rounds = 0;
        do {
            wrong = kernel->round() != first;
            stretch_rounds++;
            now = bench_now_ns();
        } while (!wrong && now - stretch < STRETCH_NS);
        fastest_ns = fmin(fastest_ns, (double)(now - stretch) / (double)stretch_rounds);
        rounds += stretch_rounds;
        wrong_round = rounds;
    }
    if (wrong)
        printf("WRONG %s: %016" PRIx64 " at first, %016" PRIx64 " is right, wrong in round %" PRIu64 "\n", kernel->name,
               first, kernel->checksum, wrong_round);
    else
        bench_end(kernel->name, (double)(now - warm) / (double)rounds / kernel->ops, fastest_ns / kernel->ops, "ns",
                  first, now - begun, rounds);
    if (kernel->end)
        kernel->end();
    return wrong;
}

int bench_main(int argc, char **argv, const struct kernel *kernels)
{
    int wrong = 0;

    setvbuf(stdout, NULL, _IOLBF, 0);
    for (const struct kernel *kernel = kernels; argc < 2 && kernel->name; kernel++)
        wrong |= run(kernel);
    for (int i = 1; i < argc; i++) {
        const struct kernel *kernel = kernels;
        while (kernel->name && strcmp(kernel->name, argv[i]) != 0)
            kernel++;
        if (!kernel->name) {
            fprintf(stderr, "bench: no kernel %s\n", argv[i]);
            return 1;
        }
        wrong |= run(kernel);
    }
    return wrong;
}
