/* Locks that know their rank and their holder, and assert both, in every build.
 *
 * A thread may take a lock only while every lock it holds has a lower rank. The list of ranks below is the one
 * place where lock order is decided. Two locks of one rank are never held together. */
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum lock_rank {
    LOCK_MIGRATION = 10, /* the migration object's public state */
    LOCK_MACHINE = 20,   /* run state, pause and resume */
    LOCK_DEVICE = 30,    /* one device's registers */
    LOCK_CHARDEV = 40,   /* a chardev's output queue */
    LOCK_IRQCHIP = 50,   /* PLIC: devices pull wires while they hold their own lock */
    LOCK_VCPU = 60,      /* one vCPU's sleep and park state */
    LOCK_TIMER = 70,     /* the timer list; callbacks run without it */
    LOCK_JIT = 75,       /* generated code and where it came from */
    LOCK_DIRTY = 80,     /* revoke: waiting for acknowledgements */
    LOCK_IMAGE = 85,     /* what of an image is allocated */
    LOCK_IMAGE_MAP = 87, /* a part of what is known of where its clusters are */
    LOCK_QUEUE = 90,     /* one queue */
    LOCK_CHANNEL = 95,   /* a channel's send side */
    LOCK_LEAF = 100,     /* statistics, logging: nothing is taken below it */
};

struct lock {
    pthread_mutex_t mutex;
    enum lock_rank rank;
    _Atomic uint64_t holder; /* thread number, 0 when free */
};

void lock_init(struct lock *lock, enum lock_rank rank);
void lock_destroy(struct lock *lock);
void lock(struct lock *lock);
void unlock(struct lock *lock);
bool lock_held(const struct lock *lock); /* by the calling thread; for assert() */

struct cond {
    pthread_cond_t cond; /* on CLOCK_MONOTONIC */
};

void cond_init(struct cond *cond);
void cond_destroy(struct cond *cond);
void cond_wait(struct cond *cond, struct lock *held);
/* Wait until deadline (clock_now_ns time); false when the deadline passed. */
bool cond_wait_until(struct cond *cond, struct lock *held, int64_t deadline_ns);
void cond_signal(struct cond *cond);
void cond_broadcast(struct cond *cond);
