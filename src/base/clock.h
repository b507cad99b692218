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

/* The guest's clock. start/stop/set only by the machine, with all vCPUs parked; read by anybody. */
struct guest_clock {
    _Atomic int64_t offset_ns;  /* guest = host + offset, while running */
    _Atomic int64_t stopped_ns; /* the value it stands at, while stopped */
    _Atomic bool running;
};

void guest_clock_init(struct guest_clock *clock); /* stopped, at 0 */
void guest_clock_start(struct guest_clock *clock);
void guest_clock_stop(struct guest_clock *clock);
void guest_clock_set_ns(struct guest_clock *clock, int64_t ns); /* only while stopped */
int64_t guest_clock_ns(const struct guest_clock *clock);
uint64_t guest_clock_ticks(const struct guest_clock *clock); /* ns / GUEST_TICK_NS */
