#include "migration/threads/digest.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>

#include "migration/threads/hash.h"

int digest_new(struct digest *digest, uint64_t units, struct err *err)
{
    *digest = (struct digest){ .units = units };
    digest->hashes = calloc(units ? units : 1, sizeof(*digest->hashes));
    hash_prepare();
    return digest->hashes ? 0 : err_set(err, -ENOMEM, "no memory for the hashes of %" PRIu64 " units", units);
}

void digest_destroy(struct digest *digest)
{
    free(digest->hashes);
    digest->hashes = NULL;
}

uint64_t digest_hash(const void *unit, size_t bytes)
{
    uint64_t hash = hash_bytes(unit, bytes, 0);
    return hash == DIGEST_ZERO ? 1 : hash;
}

uint64_t digest_last(const struct digest *digest, uint64_t unit)
{
    assert(unit < digest->units);
    return digest->hashes[unit];
}

/* A finalizer whose every output bit depends on every input bit: without it two units that swapped their contents
 * would give the same sum. */
static uint64_t mix(uint64_t unit, uint64_t hash, uint64_t salt)
{
    uint64_t v = hash ^ ((unit + 1) * salt);

    v = (v ^ (v >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    v = (v ^ (v >> 27)) * UINT64_C(0x94d049bb133111eb);
    return v ^ (v >> 31);
}

static void add(struct digest_change *change, uint64_t unit, uint64_t hash, bool minus)
{
    static const uint64_t salts[2] = { UINT64_C(0x9e3779b97f4a7c15), UINT64_C(0xd1342543de82ef95) };

    for (unsigned i = 0; hash != DIGEST_ZERO && i < 2; i++) {
        uint64_t share = mix(unit, hash, salts[i]);
        change->sum[i] += minus ? -share : share;
    }
}

void digest_replace(struct digest *digest, struct digest_change *change, uint64_t unit, uint64_t hash)
{
    assert(unit < digest->units);
    uint64_t old = digest->hashes[unit];

    if (old == hash) {
        return; /* also keeps the table's pages of fresh memory untouched */
    }
    add(change, unit, old, true);
    add(change, unit, hash, false);
    digest->hashes[unit] = hash;
}

void digest_apply(struct digest *digest, const struct digest_change *change)
{
    for (unsigned i = 0; i < 2; i++) {
        if (change->sum[i]) {
            atomic_fetch_add_explicit(&digest->sum[i], change->sum[i], memory_order_relaxed);
        }
    }
}

void digest_get(const struct digest *digest, uint64_t out[2])
{
    out[0] = atomic_load_explicit(&digest->sum[0], memory_order_relaxed);
    out[1] = atomic_load_explicit(&digest->sum[1], memory_order_relaxed);
}
