/* A fixed pool of chunks. Taking a free one is the only place where the street waits. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/lock.h"
#include "migration/threads/chunk.h"

enum { POOL_CHUNKS_PER_WORKER = 4, POOL_CHUNKS_BASE = 8, POOL_CHUNKS_MAX = 4096 };

struct pool {
    /* fixed after new */
    unsigned count;
    struct chunk *chunks;
    uint8_t *memory;
    /* under lock */
    struct lock lock;
    struct cond given;
    struct chunk **free; /* a stack: who takes gets what was given last, which is in some cache still */
    unsigned free_count;
    bool closed;
    /* atomic */
    _Atomic uint64_t wait_ns;
};

/* bytes 0: a default from workers. At least workers + 2 chunks, whatever bytes says: fewer cannot move. */
int pool_new(struct pool *pool, unsigned workers, uint64_t bytes, struct err *err);
void pool_destroy(struct pool *pool);                   /* every chunk may be anywhere; zeroed is allowed */
struct chunk *pool_take(struct pool *pool);             /* waits; NULL once closed and empty */
void pool_give(struct pool *pool, struct chunk *chunk); /* NULL allowed */
void pool_close(struct pool *pool);                     /* any thread */
uint64_t pool_bytes(const struct pool *pool);
