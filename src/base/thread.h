/* Named threads with all signals blocked (only the main thread takes signals). */
#pragma once
#include <pthread.h>
#include <stdbool.h>

#include "base/err.h"

struct thread {
    pthread_t handle;
    bool started; /* owner: whoever calls start and join */
};

/* name as `ps -T` shows it, at most 15 bytes: "vcpu/3", "work/0". */
int thread_start(struct thread *thread, const char *name, void (*run)(void *opaque), void *opaque, struct err *err);
void thread_join(struct thread *thread); /* nothing when it was never started */
int thread_host_cpus(void);              /* CPUs this process may run on, at least 1 */
