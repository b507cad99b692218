/* The auditor: it finds a writer that forgot to mark.
 *
 * Between rounds a page whose dirty bit is clear must still be what was sent: it was cleared, every vCPU gave its write
 * permission up, and only then was it copied. So sampled clean pages are hashed again. A vCPU marks before its data; a
 * device marks after it, so a difference is only a suspicion until everybody who was writing has come to his mark:
 * every vCPU to a safe point, every bracket (ram_write_begin/end) to its end. Suspicions that cannot be settled yet
 * are kept for the next time. In the pause, sealed and drained, there is nothing to wait for.
 *
 * A writer that forgot and whose page was marked by somebody else meanwhile is not seen; nor is one that put back
 * what was there: neither lost anything. */
#pragma once
#include "memory/ram.h"
#include "migration/threads/digest.h"

enum { AUDIT_SUSPECTS_MAX = 64, AUDIT_SEALED_TIMES = 4 /* as many pages in the last round */ };

struct audit {
    /* fixed after init */
    struct ram *ram;
    struct unit_hash (*sent)(const void *opaque, uint64_t page); /* the page when it was last sent: its digest_hash() */
    const void *opaque;
    const struct digest_key *key; /* by which it was hashed */
    /* owner: who calls audit_round() */
    uint64_t random;
    uint64_t suspect[AUDIT_SUSPECTS_MAX];
    unsigned suspects;
    uint64_t pages, misses; /* looked at, found: so far */
};

enum { AUDIT_PAGES_MIN = 4, AUDIT_ALL = 1000 };
/* So many pages to look at after a round that sent `units` that were not zero: looking costs less than sending, so it takes less
 * than `permille` of the round. AUDIT_ALL: all there are. 0: none. */
uint64_t audit_sample(uint64_t permille, uint64_t units);

void audit_init(struct audit *audit, struct ram *ram, struct unit_hash (*sent)(const void *opaque, uint64_t page),
                const void *opaque, const struct digest_key *key, uint64_t seed);

/* After every page was sent once, and while no harvest runs: look at `sample` pages (all there are, each once, when it
 * is as many), half of them among those that were not zero. sealed: nobody writes any more, and a bit that is set is a
 * page that nobody will send. -EBADE and a sentence that names the first miss. */
int audit_round(struct audit *audit, uint64_t sample, bool sealed, struct err *err);
