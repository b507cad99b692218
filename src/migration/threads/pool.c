#include "migration/threads/pool.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"

int pool_new(struct pool *pool, unsigned workers, uint64_t bytes, struct err *err)
{
    uint64_t count = bytes ? bytes / CHUNK_BYTES : (uint64_t)workers * POOL_CHUNKS_PER_WORKER + POOL_CHUNKS_BASE;

    if (count < workers + 2) {
        count = workers + 2;
    }
    if (count > POOL_CHUNKS_MAX) {
        count = POOL_CHUNKS_MAX;
    }
    *pool = (struct pool){ .count = (unsigned)count };
    pool->chunks = calloc(count, sizeof(*pool->chunks));
    pool->memory = aligned_alloc(CHUNK_ALIGN, count * CHUNK_BYTES);
    if (!pool->chunks || !pool->memory) {
        free(pool->chunks);
        free(pool->memory);
        *pool = (struct pool){ 0 };
        return err_set(err, -ENOMEM, "no memory for %u chunks", (unsigned)count);
    }
    queue_init(&pool->free, count);
    for (unsigned i = 0; i < count; i++) {
        pool->chunks[i].wire = pool->memory + (size_t)i * CHUNK_BYTES + CHUNK_LEAD_BYTES;
        queue_push(&pool->free, &pool->chunks[i]);
    }
    return 0;
}

void pool_destroy(struct pool *pool)
{
    if (!pool->chunks) {
        return;
    }
    queue_destroy(&pool->free);
    free(pool->chunks);
    free(pool->memory);
    *pool = (struct pool){ 0 };
}

struct chunk *pool_take(struct pool *pool)
{
    struct chunk *chunk = queue_try_pop(&pool->free);

    if (!chunk) {
        int64_t since = clock_now_ns();
        chunk = queue_pop(&pool->free);
        atomic_fetch_add_explicit(&pool->wait_ns, (uint64_t)(clock_now_ns() - since), memory_order_relaxed);
    }
    return chunk;
}

void pool_give(struct pool *pool, struct chunk *chunk)
{
    if (chunk) {
        queue_push(&pool->free, chunk); /* never full: it has room for all; closed: nobody takes it any more */
    }
}

void pool_close(struct pool *pool)
{
    queue_close(&pool->free);
}

uint64_t pool_bytes(const struct pool *pool)
{
    return (uint64_t)pool->count * (CHUNK_BYTES + sizeof(struct chunk) + sizeof(void *));
}
