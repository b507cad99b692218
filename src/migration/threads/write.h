/* The end of this side's street: one thread owns a channel and puts chunks into it in the order of its queue.
 *
 * Non-blocking: EAGAIN makes it frozen, and nothing more is put in until the channel is writable. The cap is a token
 * bucket over the bytes that the channels really took, one for all writers of a street. */
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

/* What all channels of a street may send together. */
struct write_cap {
    struct lock lock;
    /* under lock */
    struct rate rate;
    unsigned waiting; /* writers that want tokens and get none */
    int64_t since_ns; /* since then */
    int64_t waited_ns;
};

struct writer {
    /* fixed after start */
    unsigned index; /* 0: the main channel, else the number of the data channel */
    struct channel *channel;
    struct write_cap *cap;
    struct pipeline_tunables *tunables;
    struct pool *pool;
    struct fault *fault;
    void (*fail)(void *opaque, int code, const char *why);
    void *opaque;
    struct thread thread;
    struct queue queue; /* of struct chunk */
    /* owner: write thread */
    int64_t frozen_since_ns; /* 0: it is not */
    /* atomic */
    struct {
        _Atomic uint64_t data, zero;
    } carried[PIPELINE_SOURCES_MAX]; /* units of this round that were pushed here, by source */
    _Atomic uint64_t wire_bytes, queued_bytes, frozen_ns, rate_wait_ns, idle_ns;
};

void write_cap_init(struct write_cap *cap);
void write_cap_destroy(struct write_cap *cap);
uint64_t write_cap_waited_ns(struct write_cap *cap); /* that some writer wanted to send and might not; any thread */

/* The fields of the first group up to opaque are set by the caller. */
int writer_start(struct writer *writer, struct err *err);
void writer_push(struct writer *writer, struct chunk *chunk); /* any thread; the chunk comes home to its pool */
uint64_t writer_queued(const struct writer *writer);          /* bytes pushed and not taken yet; any thread */
void writer_close(struct writer *writer); /* any thread; ends after what is queued, or at once when failed */
void writer_join(struct writer *writer);  /* one that was started: closes, and waits for its end */
/* Its queue. When all of them have been joined: one that fails closes the others' on its way out. */
void writer_destroy(struct writer *writer);
