#include "migration/threads/hash.h"

#include <assert.h>
#include <pthread.h>
#ifdef __x86_64__
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

uint64_t hash_bytes(const void *data, size_t bytes, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, bytes, seed);
}

void hash_bytes_keyed(const void *data, size_t bytes, const void *secret, size_t secret_bytes, uint64_t out[2])
{
    assert(secret_bytes >= XXH3_SECRET_SIZE_MIN);
    XXH128_hash_t both = XXH3_128bits_withSecret(data, bytes, secret, secret_bytes);
    out[0] = both.low64;
    out[1] = both.high64;
}

static void prepare(void)
{
    static const uint8_t long_enough[1024]; /* short ones need no wide registers, and are hashed without asking */
    static volatile uint64_t sink;
    uint64_t both[2];

    hash_bytes_keyed(long_enough, sizeof(long_enough), long_enough, 256, both);
    sink = hash_bytes(long_enough, sizeof(long_enough), 0) + both[0];
    (void)sink;
}

void hash_prepare(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT; /* two migrations of a process may begin at once: a test's */

    pthread_once(&once, prepare);
}
