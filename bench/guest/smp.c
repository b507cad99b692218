/* All harts against one: each integer kernel for a while on one hart, then on all at once, three times in turn, in processes of
 * their own. The value is how many times the work of one they all did in the same time. */
#include "bench.h"

#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HARTS_MAX = 64, TURNS = 3 };

static struct shared {
    atomic_int ready, go;
    double rounds_per_ns[HARTS_MAX];
    uint64_t checksum[HARTS_MAX];
} * shared;

static void child(const struct kernel *kernel, int hart)
{
    cpu_set_t cpus;
    uint64_t begun, now, rounds = 0;

    CPU_ZERO(&cpus);
    CPU_SET(hart, &cpus);
    if (sched_setaffinity(0, sizeof(cpus), &cpus) < 0)
        bench_fail("sched_setaffinity");
    if (kernel->begin)
        kernel->begin();
    shared->checksum[hart] = kernel->round();
    atomic_fetch_add_explicit(&shared->ready, 1, memory_order_release); /* our checksum is visible with it */
    while (!atomic_load_explicit(&shared->go, memory_order_acquire))
        sched_yield();
    begun = now = bench_now_ns();
    while ((double)(now - begun) < bench_least_ns() / TURNS) {
        if (kernel->round() != shared->checksum[hart])
            _exit(1);
        rounds++;
        now = bench_now_ns();
    }
    shared->rounds_per_ns[hart] = (double)rounds / (double)(now - begun);
    _exit(0);
}

/* Rounds per nanosecond over all harts, minus infinity when a checksum was wrong. */
static double run(const struct kernel *kernel, int harts)
{
    double sum = 0;

    *shared = (struct shared){ 0 };
    for (int hart = 0; hart < harts; hart++) {
        pid_t pid = fork();
        if (pid < 0)
            bench_fail("fork");
        if (pid == 0)
            child(kernel, hart);
    }
    while (atomic_load_explicit(&shared->ready, memory_order_acquire) < harts)
        sched_yield();
    atomic_store_explicit(&shared->go, 1, memory_order_release); /* all begin with what they have */
    for (int hart = 0; hart < harts; hart++) {
        int status;
        if (wait(&status) < 0)
            bench_fail("wait");
        if (status != 0)
            return -INFINITY;
    }
    for (int hart = 0; hart < harts; hart++) {
        sum += shared->rounds_per_ns[hart];
        if (kernel->checksum && shared->checksum[hart] != kernel->checksum)
            return -INFINITY;
    }
    return sum;
}

int main(int argc, char **argv)
{
    int wrong = 0;
    long harts = sysconf(_SC_NPROCESSORS_ONLN);

    setvbuf(stdout, NULL, _IOLBF, 0);
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || harts < 2 || harts > HARTS_MAX)
        bench_fail("2 to 64 harts");
    for (const struct kernel *kernel = INTEGER_KERNELS; kernel->name; kernel++) {
        int wanted = argc < 2;
        for (int i = 1; i < argc; i++)
            wanted |= strcmp(argv[i], kernel->name) == 0;
        if (!wanted)
            continue;
        char name[64];
        snprintf(name, sizeof(name), "%ld-harts-%s", harts, kernel->name);
        bench_begin(name);
        uint64_t begun = bench_now_ns();
        double one = 0, all = 0;
        for (int i = 0; i < TURNS && one >= 0 && all >= 0; i++) {
            one += run(kernel, 1);
            all += run(kernel, (int)harts);
        }
        if (one <= 0 || all <= 0) {
            printf("WRONG %s: a checksum\n", name);
            wrong = 1;
            continue;
        }
        bench_end(name, all / one, 0, "x", shared->checksum[0], bench_now_ns() - begun, 1);
    }
    return wrong;
}
