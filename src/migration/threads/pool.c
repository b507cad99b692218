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
    pool->free = calloc(count, sizeof(struct chunk *));
    pool->memory = aligned_alloc(CHUNK_ALIGN, count * CHUNK_BYTES);
    if (!pool->chunks || !pool->free || !pool->memory) {
        free(pool->chunks);
        free(pool->free);
        free(pool->memory);
        *pool = (struct pool){ 0 };
        return err_set(err, -ENOMEM, "no memory for %u chunks", (unsigned)count);
    }
    lock_init(&pool->lock, LOCK_QUEUE);
    cond_init(&pool->given);
    for (unsigned i = 0; i < count; i++) {
        pool->chunks[i].wire = pool->memory + (size_t)i * CHUNK_BYTES + CHUNK_LEAD_BYTES;
        pool->free[pool->free_count++] = &pool->chunks[i];
    }
    return 0;
}

void pool_destroy(struct pool *pool)
{
    if (!pool->chunks) {
        return;
    }
    cond_destroy(&pool->given);
    lock_destroy(&pool->lock);
    free(pool->free);
    free(pool->chunks);
    free(pool->memory);
    *pool = (struct pool){ 0 };
}

struct chunk *pool_take(struct pool *pool)
{
    lock(&pool->lock);
    if (!pool->free_count && !pool->closed) {
        int64_t since = clock_now_ns();
        while (!pool->free_count && !pool->closed) {
            cond_wait(&pool->given, &pool->lock);
        }
        atomic_fetch_add_explicit(&pool->wait_ns, (uint64_t)(clock_now_ns() - since), memory_order_relaxed);
    }
    struct chunk *chunk = pool->free_count ? pool->free[--pool->free_count] : NULL;
    unlock(&pool->lock);
    return chunk;
}

void pool_give(struct pool *pool, struct chunk *chunk)
{
    if (!chunk) {
        return;
    }
    lock(&pool->lock);
    if (!pool->closed) { /* else nobody takes it any more */
        pool->free[pool->free_count++] = chunk;
        cond_signal(&pool->given);
    }
    unlock(&pool->lock);
}

void pool_close(struct pool *pool)
{
    lock(&pool->lock);
    pool->closed = true;
    cond_broadcast(&pool->given);
    unlock(&pool->lock);
}

uint64_t pool_bytes(const struct pool *pool)
{
    return (uint64_t)pool->count * (CHUNK_BYTES + sizeof(struct chunk) + sizeof(void *));
}
