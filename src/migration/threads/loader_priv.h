/* The inside of the receiving side: loader.c is its face and its workers, receive.c where frames come in. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/queue.h"
#include "base/thread.h"
#include "migration/threads/digest.h"
#include "migration/threads/fault.h"
#include "migration/threads/load.h"
#include "migration/threads/pipeline.h"
#include "migration/threads/pool.h"

struct source_state {
    struct digest digest;
    /* atomic */
    _Atomic uint64_t *seen; /* words framed in this round, a bit each: a second frame would race with the first */
    _Atomic uint64_t round_data, round_zero;
};

/* One data channel's receiving end. */
struct receiver {
    /* fixed after new */
    struct loader *loader;
    struct channel *channel;
    unsigned index; /* from 1 */
    struct thread thread;
    /* owner: its thread */
    struct frame_counts carried[PIPELINE_SOURCES_MAX]; /* units that came over it in this round */
    /* under fault.lock */
    uint32_t ended; /* rounds whose end it has told */
};

struct worker {
    struct loader *loader;
    struct thread thread;
    struct load_scratch scratch;
};

struct loader {
    /* fixed after new */
    struct source **sources;
    unsigned source_count, worker_count;
    struct channel *channel;
    bool confined;
    const struct digest_key *key; /* NULL: none */
    int silence_ms;               /* -1: for ever */
    uint64_t memory_bytes;
    struct worker *workers;
    struct source_state *states;
    struct pool pool;
    struct queue queue; /* of struct chunk, to load */
    struct fault fault;
    struct receiver *receivers; /* by data channel */
    unsigned receiver_count;
    int wake_fd; /* readable, for ever, from the first failure on; -1 where nothing but the main channel can fail */
    /* owner: receive thread */
    struct frame_counts told[PIPELINE_SOURCES_MAX]; /* the mark that was met on the main channel */
    bool marked;                                    /* its round is not closed yet */
    /* under fault.lock; written by the receive thread */
    uint32_t rounds; /* closed ones */
    bool resting;    /* no frame is taken in */
    /* atomic */
    _Atomic uint64_t outstanding;  /* chunks handed to workers and not stored yet */
    _Atomic uint64_t round_frames; /* that were taken in since a round was closed */
    _Atomic uint64_t units_data, units_zero, wire_bytes, chunks_loaded, rounds_done, load_ns, waited_ns;
    _Atomic uint64_t codec_units[CODECS], delta_units;
};

static inline void loader_add(_Atomic uint64_t *counter, uint64_t more)
{
    atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

static inline uint64_t loader_get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* Latches the first error and ends whatever waits, but for reads from the channels. Any thread. */
void loader_end_all(struct loader *l, int code, const char *why);
/* After loader_end_all() or a loader_new() that failed: cuts the data channels and ends their threads. */
void loader_join_receivers(struct loader *l);
