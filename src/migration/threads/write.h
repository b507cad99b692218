/* The end of this side's street: one thread owns the channel and puts chunks into it in the order of its queue.
 *
 * Non-blocking: EAGAIN makes it frozen, and nothing more is put in until the channel is writable. The cap is a token
 * bucket over the bytes that the channel really took. */
#pragma once
#include <stdatomic.h>
#include <stdint.h>

#include "base/channel.h"
#include "base/queue.h"
#include "base/thread.h"
#include "migration/threads/fault.h"
#include "migration/threads/pipeline.h"
#include "migration/threads/pool.h"
#include "migration/threads/rate.h"

struct writer {
    /* fixed after start */
    struct channel *channel;
    struct pipeline_tunables *tunables;
    struct pool *pool;
    struct fault *fault;
    void (*fail)(void *opaque, int code, const char *why);
    void *opaque;
    struct thread thread;
    struct queue queue; /* of struct chunk */
    /* owner: write thread */
    struct rate rate;
    int64_t frozen_since_ns; /* 0: it is not */
    /* atomic */
    _Atomic uint64_t wire_bytes, queued_bytes, frozen_ns, rate_wait_ns, idle_ns;
};

/* The fields of the first group up to opaque are set by the caller. */
int writer_start(struct writer *writer, struct err *err);
void writer_push(struct writer *writer, struct chunk *chunk); /* any thread; the chunk comes home to its pool */
int writer_flush(struct writer *writer, struct err *err);     /* everything pushed was taken by the channel */
uint64_t writer_queued(const struct writer *writer);          /* bytes pushed and not taken yet; any thread */
void writer_close(struct writer *writer); /* any thread; ends after what is queued, or at once when failed */
void writer_join(struct writer *writer);  /* closes; frees its queue */
