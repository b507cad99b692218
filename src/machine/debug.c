#include "machine/debug.h"

#include <assert.h>
#include <errno.h>

#include "machine/machine_impl.h"

/* --- who may do what, when --------------------------------------------------------------------------------- */

enum what { CONTROL, LOOK, CHANGE };

/* A guest on its way here is being loaded; one on its way out must stay as it was sent, and its RAM is sealed. */
static int may(const struct machine *m, enum what what)
{
    assert(lock_held(&m->lock));
    if (m->running)
        return -EBUSY;
    switch (atomic_load_explicit(&m->state, memory_order_relaxed)) { /* written under the lock */
    case RUN_INMIGRATE: return what == CONTROL ? 0 : -EPERM;
    case RUN_FINISH_MIGRATE:
    case RUN_POSTMIGRATE: return what == CHANGE ? -EPERM : 0;
    default: return 0;
    }
}

static int hold(struct machine *m, enum what what)
{
    lock(&m->lock);
    int rc = may(m, what);
    if (rc < 0)
        unlock(&m->lock);
    return rc;
}

static void let_go(struct machine *m)
{
    unlock(&m->lock);
}

/* --- running --------------------------------------------------------------------------------------------- */

static void attach_all(struct machine *m, const struct debug_client *client)
{
    for (unsigned i = 0; i < m->config.harts; i++)
        debug_attach(m->vcpu[i], client);
    m->debugged = client != NULL;
}

int machine_debug_attach(struct machine *m, void (*stopped)(void *opaque), void *opaque)
{
    const struct debug_client client = { .points = &m->points, .stopped = stopped, .opaque = opaque };
    int rc = hold(m, CONTROL);
    if (rc < 0)
        return rc;
    if (!m->debugged)
        attach_all(m, &client);
    let_go(m);
    return 0;
}

int machine_debug_detach(struct machine *m)
{
    int rc = hold(m, CONTROL);
    if (rc < 0)
        return rc;
    attach_all(m, NULL);
    m->points.count = 0;
    m->points.filter = 0;
    let_go(m);
    return 0;
}

int machine_debug_arm(struct machine *m, unsigned hart, enum debug_mode mode)
{
    int rc = hold(m, CONTROL);
    if (rc < 0)
        return rc;
    debug_arm(m->vcpu[hart], mode);
    let_go(m);
    return 0;
}

bool machine_debug_stopped(struct machine *m, unsigned from, unsigned *hart, enum debug_stop *why)
{
    for (unsigned i = 0; i < m->config.harts; i++) {
        *hart = (from + i) % m->config.harts;
        *why = debug_stopped(m->vcpu[*hart]);
        if (*why != DEBUG_RUNS)
            return true;
    }
    return false;
}

/* Whoever stopped and was not asked yet keeps that: arming them is how the new set reaches the others. */
int machine_debug_point(struct machine *m, uint64_t pc, unsigned kind, bool on)
{
    int rc = hold(m, CONTROL);
    if (rc < 0)
        return rc;
    if (on)
        rc = debug_points_set(&m->points, pc, kind);
    else
        debug_points_clear(&m->points, pc, kind);
    for (unsigned i = 0; i < m->config.harts; i++)
        if (debug_stopped(m->vcpu[i]) == DEBUG_RUNS)
            debug_arm(m->vcpu[i], DEBUG_GO);
    let_go(m);
    return rc;
}

/* --- looking and changing ---------------------------------------------------------------------------------- */

int machine_debug_register_read(struct machine *m, unsigned hart, unsigned number, uint64_t *value)
{
    int rc = hold(m, LOOK);
    if (rc < 0)
        return rc;
    rc = debug_register_read(vcpu_hart(m->vcpu[hart]), number, guest_clock_ticks(&m->clock), value);
    let_go(m);
    return rc;
}

int machine_debug_register_write(struct machine *m, unsigned hart, unsigned number, uint64_t value)
{
    int rc = hold(m, CHANGE);
    if (rc < 0)
        return rc;
    rc = debug_register_write(vcpu_hart(m->vcpu[hart]), number, value);
    let_go(m);
    return rc;
}

ssize_t machine_debug_memory_read(struct machine *m, unsigned hart, enum debug_space space, uint64_t at, void *out,
                                  size_t bytes)
{
    ssize_t rc = hold(m, LOOK);
    if (rc < 0)
        return rc;
    rc = debug_memory_read(m->vcpu[hart], space, at, out, bytes);
    let_go(m);
    return rc;
}

ssize_t machine_debug_memory_write(struct machine *m, unsigned hart, enum debug_space space, uint64_t at,
                                   const void *data, size_t bytes)
{
    ssize_t rc = hold(m, CHANGE);
    if (rc < 0)
        return rc;
    rc = debug_memory_write(m->vcpu[hart], space, at, data, bytes);
    let_go(m);
    return rc;
}

bool machine_debug_waits(struct machine *m, unsigned hart)
{
    if (hold(m, LOOK) < 0)
        return false;
    bool waits = vcpu_hart(m->vcpu[hart])->waiting;
    let_go(m);
    return waits;
}
