/* The parcel. Whoever popped it owns it.
 *
 * A chunk is one word of a source on its way: 64 units, 256 KiB raw. It holds the wire form only: the raw bytes
 * live in the worker's own buffer, where one worker copies, tests and compresses them while they are in its cache.
 * Chunks also carry pieces of pipeline_send(), so that one pool bounds everything that waits. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "migration/threads/compress.h"
#include "migration/threads/frame.h"

enum {
    CHUNK_ALIGN = 64,
    CHUNK_HEAD_BYTES = FRAME_PREFIX_BYTES + FRAME_HEAD_BYTES,
    CHUNK_LEAD_BYTES = CHUNK_ALIGN - CHUNK_HEAD_BYTES, /* so that the payload is aligned */
    CHUNK_WIRE_MAX = CHUNK_HEAD_BYTES + COMPRESS_OUT_MAX + FRAME_FOOTER_BYTES,
    CHUNK_BYTES = (CHUNK_LEAD_BYTES + CHUNK_WIRE_MAX + CHUNK_ALIGN - 1) / CHUNK_ALIGN * CHUNK_ALIGN,
};

struct chunk {
    /* fixed after new */
    uint8_t *wire; /* CHUNK_WIRE_MAX bytes; wire + CHUNK_HEAD_BYTES is aligned to CHUNK_ALIGN */
    /* owner: whoever popped it */
    size_t wire_bytes;
    struct frame frame;    /* receiving: what the head said */
    struct source *source; /* receiving */
};

static inline uint8_t *chunk_head(struct chunk *chunk)
{
    return chunk->wire + FRAME_PREFIX_BYTES;
}

static inline uint8_t *chunk_payload(struct chunk *chunk)
{
    return chunk->wire + CHUNK_HEAD_BYTES;
}
