/* Ends through its tohost word: -append value=N stores N there, size=4 in two halves; text=1 prints a line through it
 * before. */
#include "lib.h"

volatile uint64_t tohost __attribute__((aligned(64)));
static volatile uint64_t neighbour;

static void to_host(uint64_t value)
{
    while (tohost)
        continue;
    tohost = value;
}

int main(unsigned hart, const void *dtb)
{
    struct boot boot = boot_scan(dtb);
    uint64_t value = arg_number(boot.args, "value", 1);

    (void)hart;
    neighbour = 3; /* the same page, and another word of it */
    if (arg_number(boot.args, "text", 0)) {
        for (const char *at = "by tohost\n"; *at; at++)
            to_host((uint64_t)0x0101 << 48 | (unsigned char)*at);
    }
    to_host(2); /* a request that nobody answers is taken */
    while (tohost)
        continue;
    if (arg_number(boot.args, "size", 8) == 4) {
        volatile uint32_t *half = (volatile uint32_t *)(uintptr_t)&tohost;
        half[0] = (uint32_t)value;
        half[1] = 0;
    } else {
        tohost = value;
    }
    for (;;)
        __asm__ volatile("wfi");
}
