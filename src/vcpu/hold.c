/* Holding a hart that dirties more new pages than its quota allows (memory/quota.h): it sleeps at a safe point for less than
 * a millisecond. It counts as parked, so a harvest does not wait for it, and whoever kicks it ends the hold: a pause, an
 * interrupt, its timer. */
#include "vcpu/engine.h"

void vcpu_hold(struct vcpu *v)
{
    struct quota *quota = &v->writer.quota;
    int64_t began_ns = clock_now_ns(), until_ns = quota_hold_until(quota, began_ns);

    if (!until_ns)
        return;
    engine_sync_counters(v, 0);
    dirty_writer_park(v->dirty, &v->writer);
    lock(&v->lock);
    atomic_store_explicit(&v->sleeping, true, memory_order_seq_cst); /* as in wfi: see vcpu.c on kicks */
    while (!atomic_load_explicit(&v->exit_request, memory_order_seq_cst) &&
           cond_wait_until(&v->wake, &v->lock, until_ns))
        continue;
    atomic_store_explicit(&v->sleeping, false, memory_order_seq_cst);
    unlock(&v->lock);
    dirty_writer_unpark(v->dirty, &v->writer); /* and the safe point polls next */
    int64_t ended_ns = clock_now_ns();
    quota_held(quota, began_ns, until_ns, ended_ns);
    stall_add(&v->stall, STALL_HELD, ended_ns - began_ns);
}
