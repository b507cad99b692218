#include "base/timer.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/lock.h"
#include "base/thread.h"

struct timer {
    /* fixed after new */
    struct timers *owner;
    void (*fire)(void *opaque);
    void *opaque;
    /* under the owner's lock */
    int64_t deadline_ns;       /* TIMER_NEVER: not in the list */
    struct timer *next, *prev; /* in the list of armed timers, unsorted: there are few */
};

struct timers {
    /* fixed after new */
    struct guest_clock *clock;
    struct thread thread;
    int alarm; /* a timerfd on CLOCK_MONOTONIC: all that the thread waits for */
    struct lock lock;
    struct cond fired; /* a callback has returned */
    /* under lock */
    struct timer *armed;
    struct timer *firing; /* its callback runs now, without the lock */
    unsigned count;       /* timers that exist */
    int64_t alarm_ns;     /* guest time the alarm is set for, at most the first deadline while the thread waits */
    bool waiting;         /* the thread waits for the alarm: else it looks at the list by itself */
    bool quit;
};

static void unlink_timer(struct timer *timer)
{
    if (timer->deadline_ns == TIMER_NEVER)
        return;
    if (timer->prev)
        timer->prev->next = timer->next;
    else
        timer->owner->armed = timer->next;
    if (timer->next)
        timer->next->prev = timer->prev;
    timer->deadline_ns = TIMER_NEVER;
}

static struct timer *earliest(const struct timers *timers)
{
    struct timer *first = NULL;
    for (struct timer *t = timers->armed; t; t = t->next)
        if (!first || t->deadline_ns < first->deadline_ns)
            first = t;
    return first;
}

/* The alarm is set by whoever changes the first deadline: a system call, but it wakes nobody. */
static void set_alarm(struct timers *timers, int64_t deadline_ns)
{
    struct itimerspec at = { 0 }; /* off */

    if (deadline_ns != TIMER_NEVER) {
        int64_t host_ns = guest_clock_reaches_ns(timers->clock, deadline_ns);
        at.it_value = (struct timespec){ .tv_sec = host_ns / NS_PER_S, .tv_nsec = host_ns % NS_PER_S };
    }
    timers->alarm_ns = deadline_ns;
    int failed = timerfd_settime(timers->alarm, TFD_TIMER_ABSTIME, &at, NULL);
    assert(failed == 0);
    (void)failed;
}

static bool ticking(const struct timers *timers)
{
    return atomic_load_explicit(&timers->clock->running, memory_order_acquire);
}

static int64_t first_deadline_ns(const struct timers *timers)
{
    const struct timer *first = ticking(timers) ? earliest(timers) : NULL;
    return first ? first->deadline_ns : TIMER_NEVER;
}

static void wait_for_alarm(struct timers *timers)
{
    int64_t deadline_ns = first_deadline_ns(timers);
    uint64_t expired;

    if (deadline_ns != timers->alarm_ns)
        set_alarm(timers, deadline_ns);
    timers->waiting = true;
    unlock(&timers->lock);
    ssize_t got = read(timers->alarm, &expired, sizeof(expired));
    assert(got == sizeof(expired)); /* threads take no signals */
    (void)got;
    lock(&timers->lock);
    timers->waiting = false;
    timers->alarm_ns = TIMER_NEVER; /* it rang. If it was set again meanwhile: what for is in the list */
}

static void timers_run(void *opaque)
{
    struct timers *timers = opaque;
    lock(&timers->lock);
    while (!timers->quit) {
        struct timer *first = earliest(timers);
        if (!first || !ticking(timers) || guest_clock_ns(timers->clock) < first->deadline_ns) {
            wait_for_alarm(timers);
            continue;
        }
        unlink_timer(first);
        timers->firing = first;
        unlock(&timers->lock);
        first->fire(first->opaque);
        lock(&timers->lock);
        timers->firing = NULL;
        cond_broadcast(&timers->fired); /* timer_free may be waiting for us */
    }
    unlock(&timers->lock);
}

struct timers *timers_new(struct guest_clock *clock, struct err *err)
{
    struct timers *timers = calloc(1, sizeof(*timers));
    if (!timers) {
        err_set(err, -ENOMEM, "no memory for timers");
        return NULL;
    }
    timers->clock = clock;
    timers->alarm_ns = TIMER_NEVER;
    lock_init(&timers->lock, LOCK_TIMER);
    cond_init(&timers->fired);
    timers->alarm = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    if (timers->alarm < 0)
        err_set_errno(err, -errno, "cannot make an alarm for the timers");
    if (timers->alarm < 0 || thread_start(&timers->thread, "timers", timers_run, timers, err) < 0) {
        timers_free(timers);
        return NULL;
    }
    return timers;
}

void timers_free(struct timers *timers)
{
    if (!timers)
        return;
    assert(timers->count == 0);
    lock(&timers->lock);
    timers->quit = true;
    if (timers->thread.started)
        set_alarm(timers, 0);
    unlock(&timers->lock);
    thread_join(&timers->thread);
    if (timers->alarm >= 0)
        close(timers->alarm);
    cond_destroy(&timers->fired);
    lock_destroy(&timers->lock);
    free(timers);
}

int64_t timers_now_ns(const struct timers *timers)
{
    return guest_clock_ns(timers->clock);
}

void timers_clock_changed(struct timers *timers)
{
    lock(&timers->lock);
    set_alarm(timers, first_deadline_ns(timers)); /* the same deadline is another moment of the host's now */
    unlock(&timers->lock);
}

struct timer *timer_new(struct timers *timers, void (*fire)(void *opaque), void *opaque)
{
    struct timer *timer = calloc(1, sizeof(*timer));
    assert(timer); /* a handful, made at start-up */
    *timer = (struct timer){ .owner = timers, .fire = fire, .opaque = opaque, .deadline_ns = TIMER_NEVER };
    lock(&timers->lock);
    timers->count++;
    unlock(&timers->lock);
    return timer;
}

/* A deadline that is later leaves the alarm too early, which costs less than setting it: a guest moves its next tick into
 * the future hundreds of times a second. But who disarms a timer may be going to wait by himself, and wants no company. */
static void set_sooner_or_off(struct timers *timers, int64_t deadline_ns)
{
    if (!timers->waiting || !ticking(timers))
        return; /* the thread, or timers_clock_changed(), will look at the whole list */
    if (deadline_ns == TIMER_NEVER)
        deadline_ns = first_deadline_ns(timers);
    else if (deadline_ns >= timers->alarm_ns)
        return;
    if (deadline_ns != timers->alarm_ns)
        set_alarm(timers, deadline_ns);
}

void timer_set_ns(struct timer *timer, int64_t deadline_ns)
{
    struct timers *timers = timer->owner;
    lock(&timers->lock);
    unlink_timer(timer);
    if (deadline_ns != TIMER_NEVER) {
        timer->deadline_ns = deadline_ns;
        timer->prev = NULL;
        timer->next = timers->armed;
        if (timers->armed)
            timers->armed->prev = timer;
        timers->armed = timer;
    }
    set_sooner_or_off(timers, deadline_ns);
    unlock(&timers->lock);
}

void timer_free(struct timer *timer)
{
    if (!timer)
        return;
    struct timers *timers = timer->owner;
    lock(&timers->lock);
    unlink_timer(timer);
    while (timers->firing == timer)
        cond_wait(&timers->fired, &timers->lock);
    unlink_timer(timer); /* the callback may have set it again */
    timers->count--;
    unlock(&timers->lock);
    free(timer);
}
