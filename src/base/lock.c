#include "base/lock.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <time.h>

#include "base/clock.h"

/* Deep enough for the longest chain of ranks; a thread that holds more is a bug. */
enum { LOCKS_HELD_MAX = 8 };

static _Thread_local const struct lock *held[LOCKS_HELD_MAX];
static _Thread_local unsigned held_count;
static _Thread_local uint64_t thread_number;
static _Atomic uint64_t threads_numbered;

static uint64_t self(void)
{
    if (thread_number == 0)
        thread_number = 1 + atomic_fetch_add_explicit(&threads_numbered, 1, memory_order_relaxed);
    return thread_number;
}

void lock_init(struct lock *lock, enum lock_rank rank)
{
    int failed = pthread_mutex_init(&lock->mutex, NULL);
    assert(failed == 0);
    (void)failed;
    lock->rank = rank;
    atomic_init(&lock->holder, 0);
}

void lock_destroy(struct lock *lock)
{
    assert(atomic_load_explicit(&lock->holder, memory_order_relaxed) == 0);
    pthread_mutex_destroy(&lock->mutex);
}

void lock(struct lock *lock)
{
    assert(!lock_held(lock));
    assert(held_count < LOCKS_HELD_MAX);
    /* Ranks only rise, so the last one taken is the highest. */
    assert(held_count == 0 || held[held_count - 1]->rank < lock->rank);
    int failed = pthread_mutex_lock(&lock->mutex);
    assert(failed == 0);
    (void)failed;
    atomic_store_explicit(&lock->holder, self(), memory_order_relaxed);
    held[held_count++] = lock;
}

static void forget(const struct lock *lock)
{
    unsigned at = held_count;
    while (at > 0 && held[at - 1] != lock)
        at--;
    assert(at > 0);
    for (; at < held_count; at++)
        held[at - 1] = held[at];
    held_count--;
}

void unlock(struct lock *lock)
{
    assert(lock_held(lock));
    forget(lock);
    atomic_store_explicit(&lock->holder, 0, memory_order_relaxed);
    int failed = pthread_mutex_unlock(&lock->mutex);
    assert(failed == 0);
    (void)failed;
}

bool lock_held(const struct lock *lock)
{
    /* Relaxed: only this thread can have written this thread's number. */
    return thread_number != 0 && atomic_load_explicit(&lock->holder, memory_order_relaxed) == thread_number;
}

void cond_init(struct cond *cond)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    int failed = pthread_cond_init(&cond->cond, &attr);
    assert(failed == 0);
    (void)failed;
    pthread_condattr_destroy(&attr);
}

void cond_destroy(struct cond *cond)
{
    pthread_cond_destroy(&cond->cond);
}

/* While waiting the lock is somebody else's: the holder is taken out and put back. */
static void wait_begin(struct lock *lock)
{
    assert(lock_held(lock));
    assert(held[held_count - 1] == lock);
    atomic_store_explicit(&lock->holder, 0, memory_order_relaxed);
}

void cond_wait(struct cond *cond, struct lock *lock)
{
    wait_begin(lock);
    pthread_cond_wait(&cond->cond, &lock->mutex);
    atomic_store_explicit(&lock->holder, self(), memory_order_relaxed);
}

bool cond_wait_until(struct cond *cond, struct lock *lock, int64_t deadline_ns)
{
    struct timespec until = { .tv_sec = deadline_ns / NS_PER_S, .tv_nsec = deadline_ns % NS_PER_S };
    wait_begin(lock);
    int result = pthread_cond_timedwait(&cond->cond, &lock->mutex, &until);
    atomic_store_explicit(&lock->holder, self(), memory_order_relaxed);
    return result != ETIMEDOUT;
}

void cond_signal(struct cond *cond)
{
    pthread_cond_signal(&cond->cond);
}

void cond_broadcast(struct cond *cond)
{
    pthread_cond_broadcast(&cond->cond);
}
