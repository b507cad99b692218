/* Harts that do nothing but sleep on their timers: the guest whose timers must survive a migration.
 *
 * Every hart sleeps in wfi on mtimecmp in M mode; the last one, where it has Sstc, on stimecmp in S mode. A wake-up
 * must never come early, and guest time never goes back. Prints "tick N hart H" at each wake-up.
 * Arguments: period_ms=500, ticks=0 (when every hart had so many, print PASS and power off; 0: for ever).
 * Console: q prints "OK ticks=N" and powers off. */
#include "lib.h"

static struct {
    unsigned harts;
    uint64_t period, ticks;
    struct barrier leaving;
    bool stop;
} config;

static uint64_t late_most[HARTS_MAX];

static void early(unsigned hart, uint64_t due, uint64_t now)
{
    print("EARLY hart %u due %lu woke %lu\n", hart, due, now);
    power_off_failed();
}

static void tick(unsigned hart, uint64_t n, uint64_t due, uint64_t now, uint64_t before)
{
    if (now < due)
        early(hart, due, now);
    if (now < before) {
        print("BACKWARDS hart %u from %lu to %lu\n", hart, before, now);
        power_off_failed();
    }
    if (now - due > late_most[hart])
        late_most[hart] = now - due;
    print("tick %lu hart %u\n", n, hart);
    if (hart == 0 && get_char() == 'q')
        __atomic_store_n(&config.stop, true, __ATOMIC_RELEASE);
}

static uint64_t sleep_m(unsigned hart, uint64_t due)
{
    sleep_until(hart, due);
    return mtime();
}

static void supervisor_timer(uint64_t due)
{
    csr_write(0x14d, due); /* stimecmp */
}

/* In S mode: sip.STIP follows stimecmp; interrupts are off, so wfi returns and nothing traps. */
static uint64_t sleep_s(unsigned hart, uint64_t due)
{
    (void)hart;
    supervisor_timer(due);
    csr_write(sie, MIP_STIP);
    while (!(csr_read(sip) & MIP_STIP))
        __asm__ volatile("wfi" : : : "memory");
    supervisor_timer(UINT64_MAX);
    return csr_read(time);
}

static void sleep_on(unsigned hart, uint64_t (*nap)(unsigned hart, uint64_t due), uint64_t now)
{
    uint64_t before = now, due = now;

    for (uint64_t n = 1; !__atomic_load_n(&config.stop, __ATOMIC_ACQUIRE); n++) {
        due += config.period;
        if (due < now)
            due = now + config.period;
        now = nap(hart, due);
        tick(hart, n, due, now, before);
        before = now;
        if (n == config.ticks)
            break;
    }
}

static uint64_t supervisor(uint64_t hart)
{
    sleep_on((unsigned)hart, sleep_s, csr_read(time));
    return 0;
}

/* Has this hart Sstc? menvcfg.STCE keeps a one only where it has. */
static bool sstc_on(void)
{
    expect_traps(true);
    csr_set(0x30a, UINT64_C(1) << 63); /* menvcfg.STCE */
    bool on = csr_read(0x30a) >> 63;
    if (trap_record[hart_self()].count)
        on = false;
    expect_traps(false);
    return on;
}

static void sleeper(unsigned hart)
{
    if (hart > 0 && hart == config.harts - 1 && sstc_on()) {
        print("hart %u sleeps on stimecmp\n", hart);
        pmp_open();
        csr_write(mcounteren, 7);
        csr_write(mideleg, MIP_STIP);
        call_in_mode(MODE_S, supervisor, hart);
    } else {
        sleep_on(hart, sleep_m, mtime());
    }
    barrier_wait(&config.leaving, config.harts);
}

int main(unsigned hart, const void *dtb)
{
    struct boot boot = boot_scan(dtb);

    config.harts = boot.harts;
    config.period = arg_number(boot.args, "period_ms", 500) * (TICKS_PER_S / 1000);
    config.ticks = arg_number(boot.args, "ticks", 0);
    harts_start(config.harts, sleeper);
    sleeper(hart);
    uint64_t late = 0;
    for (unsigned i = 0; i < config.harts; i++)
        late = late_most[i] > late ? late_most[i] : late;
    print("latest_us %lu\n", late / (TICKS_PER_S / 1000000));
    if (config.ticks > 0)
        test_passed("sleeper");
    print("OK\n");
    power_off();
}
