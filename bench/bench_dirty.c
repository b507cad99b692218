/* What a guest's stores cost while dirty pages are tracked, through the real engine: one hart in machine mode stores to
 * many pages, once with nobody tracking and once with, in turns; the medians of the pairs are shown. Time is the CPU
 * time of the vCPU's thread, so that a busy host spoils little.
 *
 *   bench_dirty [PAIRS [interp]]     5 pairs for each row, about 40 seconds in all; generated code where there is some */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/thread.h"
#include "vcpu/jit/jit.h"
#include "vcpu/vcpu.h"

enum { PAIRS = 5, PAIRS_MAX = 99, RUN_MS = 200, TRIAL_STORES = 1 << 21, DATA_OFFSET = 1 << 20 };

static const uint64_t RAM_AT = 0x80000000, RAM_SIZE = 64 << 20, EXIT_AT = 0x100000;

/* a0: first page, a1: pages, a2: stores in each, a3: times over, a4: page bytes */
static const uint32_t STORES[] = {
    0x00050293, /* pass: mv   t0, a0       */
    0x00058313, /*       mv   t1, a1       */
    0x00028393, /* page: mv   t2, t0       */
    0x00060e13, /*       mv   t3, a2       */
    0x01c3b023, /* next: sd   t3, 0(t2)    */
    0x00838393, /*       addi t2, t2, 8    */
    0xfffe0e13, /*       addi t3, t3, -1   */
    0xfe0e1ae3, /*       bnez t3, next     */
    0x00e282b3, /*       add  t0, t0, a4   */
    0xfff30313, /*       addi t1, t1, -1   */
    0xfe0310e3, /*       bnez t1, page     */
    0xfff68693, /*       addi a3, a3, -1   */
    0xfc0698e3, /*       bnez a3, pass     */
    0x001002b7, /*       lui  t0, 0x100    */
    0x0002a023, /*       sw   zero, 0(t0)  */
    0x0000006f, /*       j    .            */
};

struct pattern {
    const char *name;
    uint64_t pages, stores;
};
static const struct pattern PATTERNS[] = {
    { "16 pages, 512 stores each", 16, 512 },
    { "512 pages, 8 stores each", 512, 8 },
    { "512 pages, 1 store each", 512, 1 },
    { "8192 pages, 1 store each", 8192, 1 }, /* more than the TLB holds */
};

enum mode { MODE_OFF, MODE_ONCE, MODE_100MS, MODE_10MS, MODE_1MS, MODES };
static const char *const MODE_NAMES[] = { "off", "on, no harvest", "harvest each 100 ms", "harvest each 10 ms",
                                          "harvest each 1 ms" };
static const int64_t MODE_NS[] = { 0, 0, 100 * NS_PER_MS, 10 * NS_PER_MS, 1 * NS_PER_MS };

static struct {
    /* fixed after start */
    struct ram *ram;
    struct vcpu *vcpu;
    /* under lock */
    struct lock lock;
    struct cond cond;
    bool reached;
    int64_t cpu_ns; /* of the vCPU's thread when it reached the end */
    bool ended;     /* the harvester's */
    uint64_t harvests, taken;
    int64_t interval_ns;
} bench;

/* --- the guest ---------------------------------------------------------------------------------------------- */

static uint64_t end_read(void *device, uint64_t offset, unsigned size)
{
    (void)device, (void)offset, (void)size;
    return 0;
}

/* On the vCPU's thread. */
static void end_write(void *device, uint64_t offset, uint64_t value, unsigned size)
{
    struct timespec now;
    (void)device, (void)offset, (void)value, (void)size;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    lock(&bench.lock);
    bench.reached = true;
    bench.cpu_ns = now.tv_sec * NS_PER_S + now.tv_nsec;
    cond_broadcast(&bench.cond);
    unlock(&bench.lock);
}

static const struct bus_ops END_OPS = { end_read, end_write, 1, 8 };

/* --- the harvester: clear, wait, and what would then be copied is counted --------------------------------------- */

static uint64_t harvest(struct dirty *dirty)
{
    uint64_t words = dirty_words(dirty), taken = 0;
    for (uint64_t word = 0; (word = dirty_next_word(dirty, DIRTY_MIGRATION, word)) < words; word++)
        taken += (uint64_t)__builtin_popcountll(dirty_take_word(dirty, DIRTY_MIGRATION, word));
    dirty_revoke_wait(dirty, dirty_revoke_begin(dirty));
    return taken;
}

static void harvester_run(void *opaque)
{
    (void)opaque;
    lock(&bench.lock);
    for (int64_t next_ns = clock_now_ns() + bench.interval_ns; !bench.ended;) {
        if (cond_wait_until(&bench.cond, &bench.lock, next_ns))
            continue;
        unlock(&bench.lock);
        uint64_t taken = harvest(bench.ram->dirty);
        lock(&bench.lock);
        bench.taken += taken;
        bench.harvests++;
        next_ns += bench.interval_ns;
    }
    unlock(&bench.lock);
}

/* --- measuring ------------------------------------------------------------------------------------------------ */

struct figures {
    double store_ns;
    uint64_t slow_stores, harvests;
};

static struct figures run_guest(const struct pattern *pattern, uint64_t times)
{
    struct vcpu_stats before, after;
    struct hart *hart = vcpu_hart(bench.vcpu);
    hart_reset(hart, 0, RAM_AT);
    const uint64_t arguments[] = { RAM_AT + DATA_OFFSET, pattern->pages, pattern->stores, times, PAGE_BYTES };
    for (unsigned i = 0; i < sizeof(arguments) / sizeof(*arguments); i++)
        hart->x[10 + i] = arguments[i];
    bench.reached = false;
    vcpu_stats(bench.vcpu, &before);
    vcpu_resume(bench.vcpu);
    lock(&bench.lock);
    while (!bench.reached)
        cond_wait(&bench.cond, &bench.lock);
    unlock(&bench.lock);
    vcpu_pause_request(bench.vcpu);
    vcpu_pause_wait(bench.vcpu);
    vcpu_stats(bench.vcpu, &after);
    double stores = (double)(pattern->pages * pattern->stores * times);
    return (struct figures){ .store_ns = (double)(bench.cpu_ns - before.cpu_ns) / stores,
                             .slow_stores = after.slow_stores - before.slow_stores };
}

static struct figures measure(const struct pattern *pattern, uint64_t times, enum mode mode)
{
    struct dirty *dirty = bench.ram->dirty;
    struct thread harvester;
    struct err err = { 0 };
    if (mode == MODE_OFF)
        return run_guest(pattern, times);

    dirty_start(dirty, DIRTY_MIGRATION, false);
    bench.ended = false;
    bench.harvests = bench.taken = 0;
    bench.interval_ns = MODE_NS[mode];
    bool harvests = mode != MODE_ONCE && thread_start(&harvester, "harvest", harvester_run, NULL, &err) == 0;
    struct figures figures = run_guest(pattern, times);
    lock(&bench.lock);
    bench.ended = true;
    cond_broadcast(&bench.cond);
    unlock(&bench.lock);
    if (harvests)
        thread_join(&harvester);
    dirty_stop(dirty, DIRTY_MIGRATION);
    figures.harvests = bench.harvests;
    return figures;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, unsigned count)
{
    qsort(values, count, sizeof(*values), by_value);
    return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

static void rows(const struct pattern *pattern, unsigned pairs)
{
    uint64_t round = pattern->pages * pattern->stores, trial = TRIAL_STORES / round + 1;
    run_guest(pattern, trial); /* touches the memory */
    double store_ns = run_guest(pattern, trial).store_ns;
    uint64_t times = (uint64_t)(RUN_MS * (double)NS_PER_MS / store_ns / (double)round) + 1;

    for (enum mode mode = MODE_ONCE; mode < MODES; mode++) {
        double off[PAIRS_MAX] = { 0 }, on[PAIRS_MAX] = { 0 }, ratio[PAIRS_MAX] = { 0 };
        uint64_t slow = 0, harvests = 0;
        for (unsigned i = 0; i < pairs; i++) {
            bool first = i % 2;
            if (first)
                off[i] = measure(pattern, times, MODE_OFF).store_ns;
            struct figures figures = measure(pattern, times, mode);
            if (!first)
                off[i] = measure(pattern, times, MODE_OFF).store_ns;
            on[i] = figures.store_ns;
            ratio[i] = on[i] / off[i];
            slow += figures.slow_stores;
            harvests += figures.harvests;
        }
        printf("%-26s %-20s %8.2f %8.2f %+8.1f%% %10.0f %9.1f\n", pattern->name, MODE_NAMES[mode], median(off, pairs),
               median(on, pairs), (median(ratio, pairs) - 1) * 100, (double)slow / pairs, (double)harvests / pairs);
    }
}

int main(int argc, char **argv)
{
    struct guest_clock clock;
    struct bus bus;
    struct err err = { 0 };
    int pairs = argc > 1 ? atoi(argv[1]) : PAIRS;

    if (pairs < 1 || pairs > PAIRS_MAX) {
        fprintf(stderr, "bench_dirty: 1 to %d pairs\n", PAIRS_MAX);
        return 1;
    }
    bench.ram = ram_new();
    guest_clock_init(&clock);
    lock_init(&bench.lock, LOCK_DEVICE);
    cond_init(&bench.cond);
    struct timers *timers = timers_new(&clock, &err);
    if (!timers || ram_add(bench.ram, "ram", RAM_AT, RAM_SIZE, false, &(struct ram_options){ 0 }, &err) < 0 ||
        ram_seal_layout(bench.ram, &err) < 0)
        goto failed;
    bus_init(&bus, bench.ram);
    if (bus_add(&bus, "end", EXIT_AT, 0x1000, &END_OPS, NULL, &err) < 0)
        goto failed;
    ram_load(bench.ram, RAM_AT, STORES, sizeof(STORES));
    struct jit *jit = NULL;
    bool interpret = argc > 2 && !strcmp(argv[2], "interp");
    if (!interpret && jit_new(&jit, &(struct jit_config){ .ram = bench.ram }, &err) < 0)
        fprintf(stderr, "bench_dirty: interpreted: %s\n", err.text);
    struct vcpu_config config = { .bus = &bus, .clock = &clock, .timers = timers, .jit = jit };
    bench.vcpu = vcpu_new(&config, &err);
    if (!bench.vcpu || vcpu_start(bench.vcpu, &err) < 0)
        goto failed;
    vcpu_pause_wait(bench.vcpu);
    guest_clock_start(&clock);
    timers_clock_changed(timers);
    printf("%-26s %-20s %8s %8s %9s %10s %9s\n", "the guest stores to", "dirty tracking", "off ns", "on ns", "cost",
           "slow/run", "harv./run");
    for (unsigned i = 0; i < sizeof(PATTERNS) / sizeof(*PATTERNS); i++)
        rows(&PATTERNS[i], (unsigned)pairs);
    vcpu_free(bench.vcpu);
    jit_free(jit);
    timers_free(timers);
    ram_free(bench.ram);
    return 0;
failed:
    fprintf(stderr, "bench_dirty: %s\n", err.text);
    return 1;
}
