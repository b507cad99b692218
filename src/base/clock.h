/* Time: the host's clocks, and the guest's clock that stands still while the machine is paused.
 *
 * Functions that decide never call these; they take "now" as an argument. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* 64 bits wide, so that a product with an int does not overflow. */
#define NS_PER_US INT64_C(1000)
#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S  INT64_C(1000000000)

/* Guest time base: `time` and `mtime` count at 10 MHz, as the device tree says. */
enum { GUEST_TICK_NS = 100 };

int64_t clock_now_ns(void);      /* CLOCK_MONOTONIC; any thread */
int64_t clock_thread_ns(void);   /* CLOCK_THREAD_CPUTIME_ID: a system call, half a microsecond */
int64_t clock_realtime_ns(void); /* CLOCK_REALTIME, since 1970; any thread */

/* The guest's clock. start/stop/set only by the machine, with all vCPUs parked; read by anybody.
 *
 * It is CLOCK_MONOTONIC and an offset. Where the host's kernel keeps its own time by a TSC that is constant, so does this one, in
 * between: counts since `tsc` times `rate`, which generated code reads inline. About once a second, at a read, that is
 * held against CLOCK_MONOTONIC, and `rate` is bent so that the difference goes away in the next second: no reader sees time
 * run backwards. A TSC that leaps is not asked again.
 *
 * `sequence` is a seqlock: a reader loads it, then the rest, then looks whether it is still the same, and even. All other
 * loads are acquires and all stores releases, so that none passes `sequence`. */
enum { GUEST_CLOCK_RATE_BITS = 32 };
struct guest_clock {
    _Atomic uint32_t sequence; /* odd: somebody changes the rest, which is his */
    _Atomic bool running;
    _Atomic bool has_tsc;
    _Atomic int64_t offset_ns;  /* guest = CLOCK_MONOTONIC + offset, while running */
    _Atomic int64_t stopped_ns; /* the value it stands at, while stopped */
    _Atomic uint64_t tsc;       /* the count at which it was base_ns */
    _Atomic uint64_t limit;     /* counts from there on that may be reckoned with; 0: not by TSC now */
    _Atomic uint64_t rate;      /* ns a count, with GUEST_CLOCK_RATE_BITS binary places */
    _Atomic int64_t base_ns;
    _Atomic int64_t held_ns; /* what CLOCK_MONOTONIC and the offset said at `tsc` */
};

void guest_clock_init(struct guest_clock *clock); /* stopped, at 0 */
void guest_clock_start(struct guest_clock *clock);
void guest_clock_stop(struct guest_clock *clock);
void guest_clock_set_ns(struct guest_clock *clock, int64_t ns); /* only while stopped */
int64_t guest_clock_ns(struct guest_clock *clock);
void guest_clock_trim(struct guest_clock *clock); /* hold it against CLOCK_MONOTONIC now; any thread */

/* What the trimming decides, pure: at count `tsc` the time should be `true_ns`. False: this TSC is not to be trusted; then
 * `base_ns` is the least that the guest's clock may go on from. */
struct tsc_time {
    uint64_t tsc, limit, rate;
    int64_t base_ns, held_ns;
};
bool tsc_time_trim(struct tsc_time *time, uint64_t tsc, int64_t true_ns);
int64_t tsc_time_ns(const struct tsc_time *time, uint64_t tsc);

/* The host's time (clock_now_ns) at which a clock that runs will show guest_ns, at least 1, at most an hour from now: whoever
 * waited until then looks at the guest's clock again. */
int64_t guest_clock_reaches_ns(struct guest_clock *clock, int64_t guest_ns);
uint64_t guest_clock_ticks(struct guest_clock *clock); /* ns / GUEST_TICK_NS */
