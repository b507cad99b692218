/* The auditor of audit.h in the source's story: a look between rounds, and one in the pause. */
#include <string.h>

#include "migration/outgoing.h"

/* Some 16 ms at a time, 64 in the pause: whoever cancels waits for it. */
enum { SAMPLE_MAX = 8192 };

static struct unit_hash page_sent(const void *opaque, uint64_t page)
{
    return pipeline_last_hash(opaque, 0, page); /* RAM is the first source */
}

int outgoing_audit(struct outgoing *o, uint64_t units, bool sealed)
{
    struct migration *m = o->m;
    uint64_t permille = atomic_load_explicit(&m->params.audit, memory_order_relaxed), seed;
    if (!o->audit.ram) {
        memcpy(&seed, o->key.id, sizeof(seed));
        audit_init(&o->audit, o->ram, page_sent, o->pipeline, o->digest_key, seed);
    }
    uint64_t sample = audit_sample(permille, units);
    if (permille < AUDIT_ALL && sample > SAMPLE_MAX)
        sample = SAMPLE_MAX;
    int rc = audit_round(&o->audit, sample, sealed, &o->err);
    lock(&m->lock);
    m->figures.audited_pages = o->audit.pages;
    m->figures.audit_misses = o->audit.misses;
    unlock(&m->lock);
    return rc;
}
