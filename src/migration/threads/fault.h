/* The first error of any stage, latched, and the one condition that everything in the street waits on beside its
 * queues: so that nothing that waits outlives a failure. Workers report here; only the owner decides. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/lock.h"

struct fault {
    struct lock lock; /* also guards what its users wait for */
    struct cond cond;
    /* under lock */
    struct err err;
    /* atomic: set once, released after err */
    _Atomic bool failed;
};

void fault_init(struct fault *fault);
void fault_destroy(struct fault *fault);
bool fault_set(struct fault *fault, int code, const char *why); /* true: this was the first; wakes everybody */
bool fault_failed(const struct fault *fault);
int fault_get(struct fault *fault, struct err *err); /* 0, or the code, with its sentence in err */
/* Sleep until deadline unless something failed or fails. */
void fault_wait_until(struct fault *fault, int64_t deadline_ns);
void fault_wake(struct fault *fault); /* what is waited for under the lock may have come true */
