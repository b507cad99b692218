#include "base/clock.h"

#include <assert.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <x86intrin.h>
#endif

static int64_t read_ns(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

int64_t clock_now_ns(void)
{
    return read_ns(CLOCK_MONOTONIC);
}

int64_t clock_thread_ns(void)
{
    return read_ns(CLOCK_THREAD_CPUTIME_ID);
}

int64_t clock_realtime_ns(void)
{
    return read_ns(CLOCK_REALTIME);
}

/* --- the TSC ---------------------------------------------------------------------------------------------- */

#if defined(__x86_64__)
/* Constant, and the kernel, which watches it on all CPUs, keeps time by it. */
static bool find_tsc(void)
{
    enum { CPUID_POWER = 0x80000007, INVARIANT_TSC = 1 << 8 };
    unsigned a, b, c, d;
    char name[16] = "";
    FILE *file = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");

    if (!file)
        return false;
    bool named = fgets(name, sizeof(name), file) != NULL;
    fclose(file);
    return named && strcmp(name, "tsc\n") == 0 && __get_cpuid(CPUID_POWER, &a, &b, &c, &d) && (d & INVARIANT_TSC);
}

/* Not before what was loaded before: another's time may be among it. */
static uint64_t read_tsc(void)
{
    _mm_lfence();
    return __rdtsc();
}
#else
static bool find_tsc(void)
{
    return false;
}

static uint64_t read_tsc(void)
{
    return 0;
}
#endif

static const int64_t CALIBRATE_NS = 100 * NS_PER_MS, TRIM_LEAST_NS = NS_PER_MS, TRIM_EVERY_NS = NS_PER_S;
static const int64_t BEND_MAX_NS = NS_PER_MS / 2; /* in a second: what is more is leapt over, if it is ahead */

int64_t tsc_time_ns(const struct tsc_time *time, uint64_t tsc)
{
    return time->base_ns + (int64_t)((unsigned __int128)(tsc - time->tsc) * time->rate >> GUEST_CLOCK_RATE_BITS);
}

static uint64_t limit_of(uint64_t rate)
{
    return (uint64_t)(((unsigned __int128)TRIM_EVERY_NS << GUEST_CLOCK_RATE_BITS) / rate);
}

static int64_t between(int64_t value, int64_t least, int64_t most)
{
    return value < least ? least : value > most ? most : value;
}

bool tsc_time_trim(struct tsc_time *time, uint64_t tsc, int64_t true_ns)
{
    int64_t went_by_ns = true_ns - time->held_ns, shown_ns = true_ns;
    uint64_t counts = tsc - time->tsc;

    if (counts == 0 || counts > INT64_MAX || went_by_ns <= 0)
        goto distrusted;
    uint64_t rate = (uint64_t)(((unsigned __int128)went_by_ns << GUEST_CLOCK_RATE_BITS) / counts);
    if (rate == 0 || rate >> (GUEST_CLOCK_RATE_BITS + 8)) /* no faster than 4 THz, no slower than 4 MHz */
        goto distrusted;
    if (time->rate) {
        shown_ns = tsc_time_ns(time, tsc);
        int64_t ahead_ns = true_ns - shown_ns, tolerance_ns = NS_PER_MS + went_by_ns / 1000;
        if (ahead_ns < -tolerance_ns || ahead_ns > tolerance_ns)
            goto distrusted;
        if (ahead_ns > BEND_MAX_NS)
            shown_ns = true_ns;
        ahead_ns = between(true_ns - shown_ns, -BEND_MAX_NS, BEND_MAX_NS);
        rate = (uint64_t)((__int128)rate * (NS_PER_S + ahead_ns) / NS_PER_S);
    }
    *time =
        (struct tsc_time){ .tsc = tsc, .limit = limit_of(rate), .rate = rate, .base_ns = shown_ns, .held_ns = true_ns };
    return true;

distrusted:
    shown_ns = tsc_time_ns(time, time->tsc + time->limit); /* no reader went further */
    *time = (struct tsc_time){ .base_ns = shown_ns > true_ns ? shown_ns : true_ns };
    return false;
}

/* --- the guest's clock ------------------------------------------------------------------------------------ */

static bool find_tsc_once(void)
{
    static _Atomic int found; /* 1: no, 2: yes. Two who look at once find the same */
    int was = atomic_load_explicit(&found, memory_order_relaxed);

    if (!was) {
        was = find_tsc() ? 2 : 1;
        atomic_store_explicit(&found, was, memory_order_relaxed);
    }
    return was == 2;
}

void guest_clock_init(struct guest_clock *clock)
{
    *clock = (struct guest_clock){ .has_tsc = find_tsc_once() };
}

#define LOAD(member)         atomic_load_explicit(&clock->member, memory_order_acquire)
#define STORE(member, value) atomic_store_explicit(&clock->member, (value), memory_order_release)

/* False: somebody else is changing it, or has. */
static bool change_begin(struct guest_clock *clock, uint32_t sequence)
{
    return !(sequence & 1) && atomic_compare_exchange_strong_explicit(&clock->sequence, &sequence, sequence + 1,
                                                                      memory_order_acq_rel, memory_order_relaxed);
}

static void change_end(struct guest_clock *clock)
{
    STORE(sequence, atomic_load_explicit(&clock->sequence, memory_order_relaxed) + 1);
}

static void change_begin_for_sure(struct guest_clock *clock)
{
    while (!change_begin(clock, atomic_load_explicit(&clock->sequence, memory_order_relaxed)))
        sched_yield();
}

/* A count, and the host's time at it or a moment later: the quickest of some pairs. */
static uint64_t read_both(const struct guest_clock *clock, int64_t *host_ns)
{
    uint64_t best = 0, best_took = UINT64_MAX;

    *host_ns = clock_now_ns();
    for (unsigned i = 0; LOAD(has_tsc) && i < 4; i++) {
        uint64_t tsc = read_tsc();
        int64_t now_ns = clock_now_ns();
        uint64_t took = read_tsc() - tsc;

        if (took < best_took) {
            best_took = took;
            best = tsc;
            *host_ns = now_ns;
        }
    }
    return best;
}

static struct tsc_time get_time(const struct guest_clock *clock)
{
    return (struct tsc_time){
        .tsc = LOAD(tsc), .limit = LOAD(limit), .rate = LOAD(rate), .base_ns = LOAD(base_ns), .held_ns = LOAD(held_ns)
    };
}

static void put_time(struct guest_clock *clock, const struct tsc_time *time)
{
    STORE(tsc, time->tsc);
    STORE(limit, time->limit);
    STORE(rate, time->rate);
    STORE(base_ns, time->base_ns);
    STORE(held_ns, time->held_ns);
}

static void trim(struct guest_clock *clock, uint32_t sequence)
{
    struct tsc_time time;
    int64_t host_ns;

    if (!change_begin(clock, sequence))
        return;
    uint64_t tsc = read_both(clock, &host_ns);
    int64_t true_ns = host_ns + LOAD(offset_ns);
    time = get_time(clock);
    if (LOAD(running) && LOAD(has_tsc) && (true_ns - time.held_ns >= TRIM_LEAST_NS || tsc - time.tsc >= time.limit)) {
        if (!tsc_time_trim(&time, tsc, true_ns)) {
            STORE(has_tsc, false);
            STORE(offset_ns, time.base_ns - host_ns);
        }
        put_time(clock, &time);
    }
    change_end(clock);
}

void guest_clock_trim(struct guest_clock *clock)
{
    trim(clock, LOAD(sequence));
}

/* A rate that was found earlier holds on; without one, half of what it takes to find it is here. */
void guest_clock_start(struct guest_clock *clock)
{
    int64_t host_ns;

    assert(!atomic_load_explicit(&clock->running, memory_order_relaxed));
    change_begin_for_sure(clock);
    struct tsc_time time = { .rate = LOAD(rate), .base_ns = LOAD(stopped_ns), .held_ns = LOAD(stopped_ns) };
    time.tsc = read_both(clock, &host_ns);
    if (time.rate && LOAD(has_tsc))
        time.limit = limit_of(time.rate);
    put_time(clock, &time);
    STORE(offset_ns, time.base_ns - host_ns);
    STORE(running, true);
    change_end(clock);
}

void guest_clock_stop(struct guest_clock *clock)
{
    assert(atomic_load_explicit(&clock->running, memory_order_relaxed));
    int64_t ns = guest_clock_ns(clock);
    change_begin_for_sure(clock);
    STORE(stopped_ns, ns);
    STORE(limit, 0);
    STORE(running, false);
    change_end(clock);
}

void guest_clock_set_ns(struct guest_clock *clock, int64_t ns)
{
    assert(!atomic_load_explicit(&clock->running, memory_order_relaxed));
    change_begin_for_sure(clock);
    STORE(stopped_ns, ns);
    change_end(clock);
}

/* By what `sequence` promised, or false: read again, perhaps after a trim. */
static bool read_once(struct guest_clock *clock, uint32_t sequence, int64_t *ns)
{
    if (!LOAD(running)) {
        *ns = LOAD(stopped_ns);
    } else if (LOAD(limit)) {
        struct tsc_time time = get_time(clock);
        uint64_t tsc = read_tsc();
        if (tsc - time.tsc >= time.limit) {
            trim(clock, sequence);
            return false;
        }
        *ns = tsc_time_ns(&time, tsc);
    } else {
        int64_t offset_ns = LOAD(offset_ns), held_ns = LOAD(held_ns);
        *ns = clock_now_ns() + offset_ns;
        if (LOAD(has_tsc) && *ns - held_ns >= CALIBRATE_NS) {
            trim(clock, sequence);
            return false;
        }
    }
    return atomic_load_explicit(&clock->sequence, memory_order_relaxed) == sequence;
}

int64_t guest_clock_ns(struct guest_clock *clock)
{
    for (;;) {
        uint32_t sequence = LOAD(sequence);
        int64_t ns;

        if (sequence & 1)
            sched_yield(); /* some hundred ns, unless the host took that thread's CPU away */
        else if (read_once(clock, sequence, &ns))
            return ns;
    }
}

int64_t guest_clock_reaches_ns(struct guest_clock *clock, int64_t guest_ns)
{
    static const int64_t longest_ns = 3600 * NS_PER_S; /* the sum must not overflow */
    int64_t host_ns = clock_now_ns(); /* first: the order of the two reads can only make the answer a little early */
    int64_t ahead_ns = (guest_ns > 0 ? guest_ns : 0) - guest_clock_ns(clock);

    if (ahead_ns > longest_ns)
        ahead_ns = longest_ns;
    return host_ns + ahead_ns > 0 ? host_ns + ahead_ns : 1;
}

uint64_t guest_clock_ticks(struct guest_clock *clock)
{
    return (uint64_t)guest_clock_ns(clock) / GUEST_TICK_NS;
}
