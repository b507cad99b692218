/* The ways a guest ends: -append power=off | fail | reset, code=N for fail. Prints what it does, once a boot. */
#include "lib.h"

static volatile uint32_t *const finisher = (volatile uint32_t *)0x100000;

int main(unsigned hart, const void *dtb)
{
    struct boot boot = boot_scan(dtb);

    (void)hart;
    if (arg_is(boot.args, "power", "fail")) {
        print("power: fail %lu\n", arg_number(boot.args, "code", 1));
        *finisher = 0x3333 | (uint32_t)arg_number(boot.args, "code", 1) << 16;
    } else if (arg_is(boot.args, "power", "reset")) {
        print("power: reset\n");
        *finisher = 0x7777;
    } else if (arg_is(boot.args, "power", "off")) {
        print("power: off\n");
        power_off();
    }
    print("power: waiting\n");
    for (;;)
        __asm__ volatile("wfi");
}
