/* Every hart says hello, in turn; then the power goes off. Who waits sleeps: 64 that spin would starve the one in turn. */
#include "lib.h"

static unsigned harts, turn;

static void hello(unsigned hart)
{
    csr_set(mie, MIP_MSIP);
    msip_set(hart, false); /* what started us */
    while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) != hart)
        __asm__ volatile("wfi" : : : "memory"); /* interrupts are off in mstatus: it only wakes */
    print("godwit: hello from hart %u of %u\n", hart, harts);
    __atomic_store_n(&turn, hart + 1, __ATOMIC_RELEASE);
    if (hart + 1 == harts)
        power_off();
    msip_set(hart + 1, true);
    for (;;)
        __asm__ volatile("wfi" : : : "memory");
}

int main(unsigned hart, const void *dtb)
{
    harts = boot_scan(dtb).harts;
    harts_start(harts, hello);
    hello(hart);
    return 0;
}
