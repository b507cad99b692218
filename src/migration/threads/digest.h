/* What a source looks like, in 128 bits, kept up while units travel.
 *
 * The sum over all units of mix(unit, XXH3 of its bytes): it does not depend on the order, and a table of the last
 * hash of each unit (8 bytes a unit, untouched where nothing but zeros was seen) lets a unit that is sent again
 * replace its old share. A unit of zeros has no share, so fresh memory is 0. The sender sums what it sent, the loader
 * what it reads back from RAM after the store; equal sums prove transport and load. Marks that were missed are not
 * seen here: the sender never looked.
 * A unit belongs to one thread at a time (once a round); sums are taken between rounds. */
#pragma once
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct digest {
    /* fixed after new */
    uint64_t units;
    /* owner: who has the unit in hand */
    uint64_t *hashes;
    /* atomic */
    _Atomic uint64_t sum[2];
};

enum { DIGEST_ZERO = 0 }; /* the hash of a unit of zeros */

/* One chunk's changes, applied at once: workers meet in the sums once a chunk, not once a unit. */
struct digest_change {
    uint64_t sum[2];
};

int digest_new(struct digest *digest, uint64_t units, struct err *err);
void digest_destroy(struct digest *digest);           /* zeroed is allowed */
uint64_t digest_hash(const void *unit, size_t bytes); /* never DIGEST_ZERO; not for a unit of zeros */
uint64_t digest_last(const struct digest *digest, uint64_t unit);
void digest_replace(struct digest *digest, struct digest_change *change, uint64_t unit, uint64_t hash);
void digest_apply(struct digest *digest, const struct digest_change *change);
void digest_get(const struct digest *digest, uint64_t out[2]);
