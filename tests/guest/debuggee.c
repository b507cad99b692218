/* The guest that a debugger looks at: hart 0 calls work(1), work(2), ..., the others count, the last one sleeps.
 *
 * work() adds its argument to `sum`; a debugger that changes a0 changes that. Ends, with "OK sum=N", when `leave` is not
 * 0, which only a debugger makes it. An ebreak of its own, once in a round, is the guest's business: it counts them. */
#include "lib.h"

volatile uint64_t leave, sum, ebreaks, counts[HARTS_MAX];
volatile double half = 0.5;

static bool count_ebreak(struct trap_words *words)
{
    if (words->cause != 3)
        return false;
    ebreaks++;
    words->reg[0] += 4;
    return true;
}

__attribute__((noinline)) void work(uint64_t n)
{
    sum += n;
}

static void count(unsigned hart)
{
    while (!leave)
        counts[hart]++;
}

static void sleep(unsigned hart)
{
    counts[hart] = 1;
    csr_write(mie, 0);
    for (;;)
        __asm__ volatile("wfi");
}

static void other(unsigned hart)
{
    if (hart == 1)
        count(hart);
    sleep(hart);
}

int main(unsigned hart, const void *dtb)
{
    struct boot boot = boot_scan(dtb);
    double x = half;

    trap_hook = count_ebreak;
    harts_start(boot.harts, other);
    for (unsigned other_hart = 1; other_hart < boot.harts; other_hart++)
        while (!counts[other_hart])
            ;
    print("ready\n");
    for (uint64_t n = 1; !leave; n++) {
        __asm__ volatile(".option push\n.option norvc\nebreak\n.option pop\nfmv.d fs11, %0" : : "f"(x) : "fs11");
        work(n);
        counts[hart]++;
    }
    print("OK sum=%lu\n", sum);
    power_off();
}
