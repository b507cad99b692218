#include "base/thread.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

struct thread_start_info {
    void (*run)(void *opaque);
    void *opaque;
    char name[16];
};

static void *thread_main(void *arg)
{
    struct thread_start_info info = *(struct thread_start_info *)arg;
    free(arg);
    pthread_setname_np(pthread_self(), info.name);
    info.run(info.opaque);
    return NULL;
}

int thread_start(struct thread *thread, const char *name, void (*run)(void *opaque), void *opaque, struct err *err)
{
    struct thread_start_info *info = malloc(sizeof(*info));
    if (!info)
        return err_set(err, -ENOMEM, "no memory to start thread %s", name);
    *info = (struct thread_start_info){ .run = run, .opaque = opaque };
    snprintf(info->name, sizeof(info->name), "%s", name);

    /* The new thread inherits the mask: block everything around its creation. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int failed = pthread_create(&thread->handle, NULL, thread_main, info);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        free(info);
        return err_set_errno(err, -failed, "cannot start thread %s", name);
    }
    thread->started = true;
    return 0;
}

void thread_join(struct thread *thread)
{
    if (!thread->started)
        return;
    pthread_join(thread->handle, NULL);
    thread->started = false;
}

int thread_host_cpus(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return 1;
    int count = CPU_COUNT(&set);
    return count > 0 ? count : 1;
}
