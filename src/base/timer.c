#include "base/timer.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

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
    struct lock lock;
    struct cond changed;
    /* under lock */
    struct timer *armed;
    struct timer *firing;   /* its callback runs now, without the lock */
    unsigned count;         /* timers that exist */
    int64_t waiting_for_ns; /* guest time the thread sleeps towards; 0: it is awake */
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

/* Wait for the first deadline, for a change of the list, or for the clock to start. */
static void wait_for_work(struct timers *timers, const struct timer *first)
{
    bool ticking = atomic_load_explicit(&timers->clock->running, memory_order_acquire);
    if (!first || !ticking) {
        timers->waiting_for_ns = TIMER_NEVER;
        cond_wait(&timers->changed, &timers->lock);
    } else {
        /* The order of the two clock reads can only make us wake a little early; then we look again. */
        int64_t host_ns = clock_now_ns();
        int64_t ahead_ns = first->deadline_ns - guest_clock_ns(timers->clock);
        timers->waiting_for_ns = first->deadline_ns;
        if (ahead_ns > 0) {
            int64_t limit_ns = 3600 * NS_PER_S; /* a deadline in the far future must not overflow */
            cond_wait_until(&timers->changed, &timers->lock, host_ns + (ahead_ns < limit_ns ? ahead_ns : limit_ns));
        }
    }
    timers->waiting_for_ns = 0;
}

static void timers_run(void *opaque)
{
    struct timers *timers = opaque;
    lock(&timers->lock);
    while (!timers->quit) {
        struct timer *first = earliest(timers);
        bool ticking = atomic_load_explicit(&timers->clock->running, memory_order_acquire);
        if (!first || !ticking || guest_clock_ns(timers->clock) < first->deadline_ns) {
            wait_for_work(timers, first);
            continue;
        }
        unlink_timer(first);
        timers->firing = first;
        unlock(&timers->lock);
        first->fire(first->opaque);
        lock(&timers->lock);
        timers->firing = NULL;
        cond_broadcast(&timers->changed); /* timer_free may be waiting for us */
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
    lock_init(&timers->lock, LOCK_TIMER);
    cond_init(&timers->changed);
    if (thread_start(&timers->thread, "timers", timers_run, timers, err) < 0) {
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
    cond_broadcast(&timers->changed);
    unlock(&timers->lock);
    thread_join(&timers->thread);
    cond_destroy(&timers->changed);
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
    cond_broadcast(&timers->changed);
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
        /* Waking the thread costs a system call: only when it would oversleep. A guest moves its next tick into
         * the future hundreds of times a second. */
        if (deadline_ns < timers->waiting_for_ns)
            cond_broadcast(&timers->changed);
    }
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
        cond_wait(&timers->changed, &timers->lock);
    unlink_timer(timer); /* the callback may have set it again */
    timers->count--;
    unlock(&timers->lock);
    free(timer);
}
