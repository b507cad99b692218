#include "migration/rehearse.h"

#include <errno.h>
#include <string.h>

enum { LIMIT_SHARE_NUM = 7, LIMIT_SHARE_DEN = 8 }; /* of the limit; the rest is for letting the guest run again */

int rehearse_possible(struct migration *m, const char *uri, struct err *err)
{
    bool answers = atomic_load_explicit(&m->params.capability_return_path, memory_order_relaxed);
    if (strncmp(uri, "file:", 5) == 0 || (strncmp(uri, "exec:", 5) == 0 && !answers))
        return err_set(
            err, -EINVAL,
            "nobody answers at %.100s: a rehearsal or a plan needs a godwit that waits there (tcp: or unix:)", uri);
    return 0;
}

int64_t rehearse_pause_ns(const struct converge_policy *policy)
{
    return policy->guest_paused ? INT64_MAX : policy->downtime_limit_ns / LIMIT_SHARE_DEN * LIMIT_SHARE_NUM;
}

/* GO, the start there and its answer are what no rehearsal has: they count as what earlier ones took, or are expected to. */
void rehearse_report(struct outgoing *o)
{
    struct migration *m = o->m;
    int64_t stopped_ns = machine_last_pause_ns(o->machine), resumed_ns = machine_last_resume_ns(o->machine);
    bool stopped = stopped_ns >= o->time_ns.requested && resumed_ns > stopped_ns;
    lock(&o->ear.lock);
    if (o->ear.prepared_ns)
        o->time_ns.prepared = o->ear.prepared_ns;
    unlock(&o->ear.lock);
    o->time_ns.running = o->time_ns.prepared + m->costs.handover_ns;
    lock(&m->lock);
    m->figures.held_ms = o->ran && stopped ? (double)(resumed_ns - stopped_ns) / NS_PER_MS : 0;
    unlock(&m->lock);
}

void rehearse_wait_dropped(struct outgoing *o)
{
    enum heard heard = return_path_wait_until(&o->ear, HEARD_RETRACTED | HEARD_ERROR | HEARD_CLOSED | HEARD_INTERRUPT,
                                              clock_now_ns() + ANSWER_MS * NS_PER_MS);
    lock(&o->m->lock);
    o->m->figures.dropped = heard == HEARD_RETRACTED;
    unlock(&o->m->lock);
}

bool rehearse_again(struct incoming *i)
{
    struct migration *m = i->m;
    if (!i->rehearsal || !m->listener)
        return false;
    lock(&m->lock);
    bool again = !m->cancel && !m->quitting;
    if (again) {
        m->released = false;
        m->figures = (struct migration_info){ .rehearsals = m->figures.rehearsals + 1 };
        m->report = (struct migration_report){ 0 };
        m->got = (struct loader_stats){ 0 };
        m->rounds = 0;
        m->start_ns = clock_now_ns();
        m->active_ns = 0;
    }
    unlock(&m->lock);
    return again;
}
