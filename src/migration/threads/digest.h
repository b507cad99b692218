/* What a source looks like, in 128 bits, kept up while units travel.
 *
 * The sum over all units of mix(unit, XXH3 of its bytes), in two lanes: it does not depend on the order, and a table of
 * the last hash of each unit (16 bytes a unit, untouched where nothing but zeros was seen) lets a unit that is sent again
 * replace its old share. A unit of zeros has no share, so fresh memory is 0. The sender sums what it sent, the loader
 * what it reads back from RAM after the store; equal sums prove transport and load. Marks that were missed are not
 * seen here: the sender never looked.
 *
 * Keyed: XXH3-128 of each unit with a secret of the migration's own, agreed in the hello, which a guest that chooses what is
 * in its pages does not know. Without a key, for files and peers that know none: 64 bits of XXH3 in both lanes.
 * A unit belongs to one thread at a time (once a round); sums are taken between rounds. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { DIGEST_KEY_BYTES = 192 };
struct digest_key {
    uint8_t secret[DIGEST_KEY_BYTES];
};

struct unit_hash {
    uint64_t word[2];
};
#define DIGEST_ZERO ((struct unit_hash){ { 0, 0 } }) /* the hash of a unit of zeros */

static inline bool unit_hash_equal(struct unit_hash a, struct unit_hash b)
{
    return a.word[0] == b.word[0] && a.word[1] == b.word[1];
}

static inline bool unit_hash_is_zero(struct unit_hash hash)
{
    return unit_hash_equal(hash, DIGEST_ZERO);
}

struct digest {
    /* fixed after new */
    uint64_t units;
    const struct digest_key *key; /* NULL: none */
    /* owner: who has the unit in hand */
    struct unit_hash *hashes;
    /* atomic */
    _Atomic uint64_t sum[2];
};

/* One chunk's changes, applied at once: workers meet in the sums once a chunk, not once a unit. */
struct digest_change {
    uint64_t sum[2];
};

int digest_new(struct digest *digest, uint64_t units, const struct digest_key *key, struct err *err); /* key: kept */
void digest_destroy(struct digest *digest); /* zeroed is allowed */
struct unit_hash digest_hash(const struct digest_key *key, const void *unit,
                             size_t bytes); /* never DIGEST_ZERO; not for a
                                                                                              unit of zeros */
struct unit_hash digest_last(const struct digest *digest, uint64_t unit);
void digest_replace(struct digest *digest, struct digest_change *change, uint64_t unit, struct unit_hash hash);
void digest_apply(struct digest *digest, const struct digest_change *change);
void digest_get(const struct digest *digest, uint64_t out[2]);

/* A unit's share alone, for sums of other extent than a source's. */
void digest_add(const struct digest_key *key, struct digest_change *sum, uint64_t unit, struct unit_hash hash);
