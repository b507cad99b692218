/* Timers on the guest's clock: one thread, a list of deadlines, callbacks.
 *
 * A timer fires once when the guest clock reaches its deadline; none fires while the clock stands still. The
 * callback runs on the timer thread with no lock held, and may set the timer again. Deadlines are guest time and
 * belong to the device's own state: after a load the device sets its timers again from its registers. */
#pragma once
#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"

struct timers;
struct timer;

#define TIMER_NEVER INT64_MAX

struct timers *timers_new(struct guest_clock *clock, struct err *err);
void timers_free(struct timers *timers);            /* every timer must be gone */
int64_t timers_now_ns(const struct timers *timers); /* guest time, to count deadlines from */
void timers_clock_changed(struct timers *timers);   /* the machine started or stopped the clock */

struct timer *timer_new(struct timers *timers, void (*fire)(void *opaque), void *opaque);
void timer_set_ns(struct timer *timer, int64_t deadline_ns); /* guest ns; TIMER_NEVER disarms; any thread */
void timer_free(struct timer *timer); /* when it returns, fire() is not running and will not run; NULL allowed */
