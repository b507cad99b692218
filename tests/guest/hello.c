/* Every hart says hello, in turn; then the power goes off. */
#include "lib.h"

static unsigned harts, turn;
static struct barrier done;

static void hello(unsigned hart)
{
    while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) != hart)
        ;
    print("godwit: hello from hart %u of %u\n", hart, harts);
    __atomic_store_n(&turn, hart + 1, __ATOMIC_RELEASE);
    barrier_wait(&done, harts);
}

int main(unsigned hart, const void *dtb)
{
    harts = boot_scan(dtb).harts;
    harts_start(harts, hello);
    hello(hart);
    power_off();
}
