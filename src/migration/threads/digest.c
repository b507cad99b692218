#include "migration/threads/digest.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "migration/threads/hash.h"

int digest_new(struct digest *digest, uint64_t units, const struct digest_key *key, struct err *err)
{
    *digest = (struct digest){ .units = units, .key = key };
    digest->hashes = calloc(units ? units : 1, sizeof(*digest->hashes));
    hash_prepare();
    return digest->hashes ? 0 : err_set(err, -ENOMEM, "no memory for the hashes of %" PRIu64 " units", units);
}

void digest_destroy(struct digest *digest)
{
    free(digest->hashes);
    digest->hashes = NULL;
}

struct unit_hash digest_hash(const struct digest_key *key, const void *unit, size_t bytes)
{
    struct unit_hash hash = DIGEST_ZERO;

    if (key) {
        hash_bytes_keyed(unit, bytes, key->secret, sizeof(key->secret), hash.word);
    } else {
        uint64_t one = hash_bytes(unit, bytes, 0);
        hash = (struct unit_hash){ { one, one } };
    }
    if (unit_hash_is_zero(hash)) {
        hash = (struct unit_hash){ { 1, 1 } };
    }
    return hash;
}

struct unit_hash digest_last(const struct digest *digest, uint64_t unit)
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

static void add(const struct digest_key *key, struct digest_change *change, uint64_t unit, struct unit_hash hash,
                bool minus)
{
    uint64_t salt[2] = { UINT64_C(0x9e3779b97f4a7c15), UINT64_C(0xd1342543de82ef95) };

    if (unit_hash_is_zero(hash)) {
        return;
    }
    if (key) { /* odd, so that no two units have the same product */
        salt[0] = le64_get(key->secret);
        salt[1] = le64_get(key->secret + 8);
    }
    for (unsigned i = 0; i < 2; i++) {
        uint64_t share = mix(unit, hash.word[i], salt[i] | 1);
        change->sum[i] += minus ? -share : share;
    }
}

void digest_add(const struct digest_key *key, struct digest_change *sum, uint64_t unit, struct unit_hash hash)
{
    add(key, sum, unit, hash, false);
}

void digest_replace(struct digest *digest, struct digest_change *change, uint64_t unit, struct unit_hash hash)
{
    assert(unit < digest->units);
    struct unit_hash old = digest->hashes[unit];

    if (unit_hash_equal(old, hash)) {
        return; /* also keeps the table's pages of fresh memory untouched */
    }
    add(digest->key, change, unit, old, true);
    add(digest->key, change, unit, hash, false);
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
