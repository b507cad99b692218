/* Code that rewrites itself, as programs that compile while they run do: written, fence.i, run. What runs must be what was written
 * last, or the row is WRONG. One hart: the thread stays on it, so that its own fence.i is enough. */
#include "bench.h"

#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAGE = 4096, TIMES = 64, CALLS = 100, FUNCTIONS = 32, FUNCTION_WORDS = PAGE / 4 / FUNCTIONS };

static uint32_t *code; /* two pages: written and run; only run */

static uint32_t li_a0(unsigned value) /* addi a0, zero, value */
{
    return (value & 0x7ff) << 20 | 0x513;
}

static uint32_t add_a0(unsigned value) /* addi a0, a0, value */
{
    return (value & 0x7ff) << 20 | 0x50513;
}

static const uint32_t RET = 0x8067;

static uint64_t run(const uint32_t *function)
{
    uint64_t (*call)(void);

    memcpy(&call, &function, sizeof(call));
    return call();
}

static void fence_here(void)
{
    __asm__ volatile("fence.i" : : : "memory");
}

static void fence_everywhere(void) /* as libraries do it: the kernel's part, for all threads */
{
    if (syscall(SYS_riscv_flush_icache, code, code + PAGE / 4, 0) < 0)
        bench_fail("riscv_flush_icache");
}

static void begin(void)
{
    cpu_set_t cpus;

    CPU_ZERO(&cpus);
    CPU_SET(0, &cpus);
    code = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (code == MAP_FAILED || sched_setaffinity(0, sizeof(cpus), &cpus) < 0)
        bench_fail("rewrite");
    code[PAGE / 4] = li_a0(7);
    code[PAGE / 4 + 1] = RET;
    fence_here();
}

static void end(void)
{
    munmap(code, 2 * PAGE);
}

/* One instruction, and one call of it each time. */
static uint64_t one_round(void (*fence)(void))
{
    uint64_t sum = 0;

    code[1] = RET;
    for (unsigned i = 0; i < TIMES; i++) {
        code[0] = li_a0(i);
        fence();
        sum += run(code) == i;
    }
    return sum;
}

static uint64_t patch_round(void)
{
    return one_round(fence_here);
}

static uint64_t flush_round(void)
{
    return one_round(fence_everywhere);
}

/* The written code runs often before it is written again: a patched call in a loop. */
static uint64_t patch_hot_round(void)
{
    uint64_t sum = 0;

    code[1] = add_a0(1);
    code[2] = RET;
    for (unsigned i = 0; i < TIMES; i++) {
        code[0] = li_a0(i);
        fence_here();
        for (unsigned n = 0; n < CALLS; n++)
            sum += run(code) == i + 1;
    }
    return sum;
}

/* Code beside it is left alone, and runs on. */
static uint64_t neighbour_round(void)
{
    uint64_t sum = 0;

    code[1] = RET;
    for (unsigned i = 0; i < TIMES; i++) {
        code[0] = li_a0(i);
        fence_here();
        sum += run(code) == i;
        for (unsigned n = 0; n < CALLS; n++)
            sum += run(code + PAGE / 4) == 7;
    }
    return sum;
}

/* A page of functions, new each time; each runs once. */
static uint64_t page_round(void)
{
    static unsigned turn;
    uint64_t sum = 0;

    turn++;
    for (unsigned f = 0; f < FUNCTIONS; f++) {
        uint32_t *to = code + f * FUNCTION_WORDS;
        *to++ = li_a0(f);
        for (unsigned i = 2; i < FUNCTION_WORDS; i++)
            *to++ = add_a0((turn + i) & 15);
        *to = RET;
    }
    fence_here();
    for (unsigned f = 0; f < FUNCTIONS; f++) {
        uint64_t wanted = f;
        for (unsigned i = 2; i < FUNCTION_WORDS; i++)
            wanted += (turn + i) & 15;
        sum += run(code + f * FUNCTION_WORDS) == wanted;
    }
    return sum;
}

static const struct kernel REWRITE_KERNELS[] = {
    { "rewrite", patch_round, TIMES, TIMES, begin, end },
    { "rewrite-run-100", patch_hot_round, TIMES *CALLS, TIMES, begin, end },
    { "rewrite-neighbour", neighbour_round, TIMES *(CALLS + 1), TIMES, begin, end },
    { "rewrite-flush", flush_round, TIMES, TIMES, begin, end },
    { "rewrite-page", page_round, FUNCTIONS, 1, begin, end },
    { 0 },
};

int main(int argc, char **argv)
{
    return bench_main(argc, argv, REWRITE_KERNELS);
}
