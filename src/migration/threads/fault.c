#include "migration/threads/fault.h"

#include <assert.h>

void fault_init(struct fault *fault)
{
    lock_init(&fault->lock, LOCK_LEAF);
    cond_init(&fault->cond);
    fault->err = (struct err){ 0 };
    atomic_init(&fault->failed, false);
}

void fault_destroy(struct fault *fault)
{
    cond_destroy(&fault->cond);
    lock_destroy(&fault->lock);
}

bool fault_set(struct fault *fault, int code, const char *why)
{
    assert(code < 0);
    lock(&fault->lock);
    bool first = !fault->err.code;
    if (first) {
        err_set(&fault->err, code, "%s", why);
        atomic_store_explicit(&fault->failed, true, memory_order_release);
        cond_broadcast(&fault->cond);
    }
    unlock(&fault->lock);
    return first;
}

bool fault_failed(const struct fault *fault)
{
    return atomic_load_explicit(&fault->failed, memory_order_acquire);
}

int fault_get(struct fault *fault, struct err *err)
{
    if (!fault_failed(fault)) {
        return 0;
    }
    lock(&fault->lock);
    int code = err_set(err, fault->err.code, "%s", fault->err.text);
    unlock(&fault->lock);
    return code;
}

void fault_wait_until(struct fault *fault, int64_t deadline_ns)
{
    lock(&fault->lock);
    while (!fault->err.code && cond_wait_until(&fault->cond, &fault->lock, deadline_ns)) {
    }
    unlock(&fault->lock);
}

void fault_wake(struct fault *fault)
{
    lock(&fault->lock);
    cond_broadcast(&fault->cond);
    unlock(&fault->lock);
}
