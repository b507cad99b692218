/* The receiving side: the caller's thread reads frames, load/N workers store them. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/queue.h"
#include "base/sandbox.h"
#include "base/thread.h"
#include "migration/threads/digest.h"
#include "migration/threads/fault.h"
#include "migration/threads/load.h"
#include "migration/threads/pipeline.h"
#include "migration/threads/pool.h"

struct source_state {
    struct digest digest;
    /* owner: receive thread */
    uint64_t *seen; /* words framed in this round, a bit each: a second frame would race with the first */
    /* atomic */
    _Atomic uint64_t round_data, round_zero;
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
    uint64_t memory_bytes;
    struct worker *workers;
    struct source_state *states;
    struct pool pool;
    struct queue queue; /* of struct chunk, to load */
    struct fault fault;
    /* owner: receive thread */
    uint32_t rounds;
    /* atomic */
    _Atomic uint64_t outstanding; /* chunks handed to workers and not stored yet */
    _Atomic uint64_t units_data, units_zero, wire_bytes, chunks_loaded, rounds_done, load_ns, waited_ns;
    _Atomic uint64_t codec_units[CODECS];
};

static void add(_Atomic uint64_t *counter, uint64_t more)
{
    atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

static uint64_t get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static void end_all(struct loader *l, int code, const char *why)
{
    fault_set(&l->fault, code, why);
    pool_close(&l->pool);
    queue_close(&l->queue);
}

static struct source_state *state_of(struct loader *l, const struct source *source)
{
    return &l->states[source->id - 1];
}

/* --- load workers -------------------------------------------------------------------------------------- */

static void count_chunk(struct loader *l, const struct chunk *chunk)
{
    uint64_t data = (uint64_t)__builtin_popcountll(chunk->frame.data);
    uint64_t zero = (uint64_t)__builtin_popcountll(chunk->frame.zero);

    add(&state_of(l, chunk->source)->round_data, data);
    add(&state_of(l, chunk->source)->round_zero, zero);
    add(&l->units_data, data);
    add(&l->codec_units[chunk->frame.codec], data);
    add(&l->units_zero, zero);
    add(&l->wire_bytes, chunk->frame.payload_bytes + FRAME_AROUND_BYTES);
    add(&l->chunks_loaded, 1);
}

static void load_run(void *opaque)
{
    struct worker *worker = opaque;
    struct loader *l = worker->loader;
    struct chunk *chunk;
    struct err none = { 0 };

    if (l->confined) { /* the receive thread is too: what this host does not have was said there */
        sandbox_enter(SANDBOX_WORKER, NULL, &none);
    }
    while ((chunk = queue_pop(&l->queue))) {
        struct err err = { 0 };
        int64_t start = clock_now_ns();
        if (!fault_failed(&l->fault)) {
            int ret = failpoint_err(FAILPOINT_TARGET_LOAD, &err);
            if (ret == 0) {
                ret = load_chunk(chunk->source, &state_of(l, chunk->source)->digest, chunk, &worker->scratch, &err);
            }
            if (ret < 0) {
                end_all(l, ret, err.text);
            } else {
                count_chunk(l, chunk);
            }
        }
        add(&l->load_ns, (uint64_t)(clock_now_ns() - start));
        pool_give(&l->pool, chunk);
        /* release: whoever sees 0 sees what was stored, and the counts. */
        if (atomic_fetch_sub_explicit(&l->outstanding, 1, memory_order_acq_rel) == 1) {
            fault_wake(&l->fault);
        }
    }
}

/* --- the receive thread -------------------------------------------------------------------------------- */

static struct source *source_of(struct loader *l, uint32_t section_id)
{
    return section_id >= 1 && section_id <= l->source_count ? l->sources[section_id - 1] : NULL;
}

static int close_round(struct loader *l, const struct chunk *chunk, uint32_t section_id, struct err *err)
{
    struct frame_counts told[PIPELINE_SOURCES_MAX];

    if (section_id != l->sources[0]->id) {
        return err_set(err, -EPROTO, "an end-of-round mark came under section %" PRIu32, section_id);
    }
    int ret = frame_mark_get(chunk_payload((struct chunk *)(uintptr_t)chunk), chunk->frame.payload_bytes, l->sources,
                             l->source_count, told, err);
    if (ret == 0) {
        ret = loader_barrier(l, err);
    }
    for (unsigned i = 0; ret == 0 && i < l->source_count; i++) {
        struct source_state *state = &l->states[i];
        uint64_t data = get(&state->round_data), zero = get(&state->round_zero);
        if (told[i].data != data || told[i].zero != zero) {
            return err_set(err, -EPROTO,
                           "round %" PRIu32 " of %s should have had %" PRIu64 " data and %" PRIu64
                           " zero units, and %" PRIu64 " and %" PRIu64 " came",
                           chunk->frame.round, l->sources[i]->name, told[i].data, told[i].zero, data, zero);
        }
        atomic_store_explicit(&state->round_data, 0, memory_order_relaxed);
        atomic_store_explicit(&state->round_zero, 0, memory_order_relaxed);
        memset(state->seen, 0, (l->sources[i]->words + 63) / 64 * sizeof(uint64_t));
    }
    if (ret == 0) {
        add(&l->wire_bytes, chunk->frame.payload_bytes + FRAME_AROUND_BYTES);
        l->rounds++;
        add(&l->rounds_done, 1);
    }
    return ret;
}

static int hand_in(struct loader *l, struct chunk *chunk, struct err *err)
{
    struct source_state *state = state_of(l, chunk->source);
    uint64_t word = chunk->frame.first_unit / CHUNK_UNITS;
    uint64_t bit = UINT64_C(1) << word % 64;

    if (state->seen[word / 64] & bit) {
        return err_set(err, -EPROTO, "%s: the chunk at unit %" PRIu64 " came twice in round %" PRIu32,
                       chunk->source->name, chunk->frame.first_unit, chunk->frame.round);
    }
    state->seen[word / 64] |= bit;
    atomic_fetch_add_explicit(&l->outstanding, 1, memory_order_relaxed);
    if (!queue_push(&l->queue, chunk)) {
        atomic_fetch_sub_explicit(&l->outstanding, 1, memory_order_relaxed);
        pool_give(&l->pool, chunk);
    }
    return 0;
}

int loader_wait(struct loader *l, int timeout_ms)
{
    int64_t start = clock_now_ns();
    int ret = channel_wait(l->channel, POLLIN, timeout_ms);

    add(&l->waited_ns, (uint64_t)(clock_now_ns() - start));
    return ret;
}

/* As channel_read_all(), but it knows how long there was nothing to read. */
static int read_all(struct loader *l, void *out, size_t bytes, struct err *err)
{
    size_t done = 0;

    while (done < bytes) {
        ssize_t got = channel_read(l->channel, (uint8_t *)out + done, bytes - done);
        if (got > 0) {
            done += (size_t)got;
        } else if (got != -EAGAIN || loader_wait(l, -1) < 0) {
            /* Its end, or a failure, and it stays so: this has the words for all of them. */
            return channel_read_all(l->channel, (uint8_t *)out + done, bytes - done, -1, err);
        }
    }
    return 0;
}

/* Head and payload into a chunk, each length checked before it is used. */
static int receive(struct loader *l, struct chunk *chunk, uint32_t section_id, struct err *err)
{
    int ret = read_all(l, chunk_head(chunk), FRAME_HEAD_BYTES, err);

    if (ret == 0) {
        ret = frame_get(chunk_head(chunk), &chunk->frame, err);
    }
    if (ret == 0 && chunk->frame.round != l->rounds + 1) {
        ret = err_set(err, -EPROTO, "a frame of round %" PRIu32 " came in round %" PRIu32, chunk->frame.round,
                      l->rounds + 1);
    }
    chunk->source = source_of(l, section_id);
    if (ret == 0 && !chunk->source) {
        ret = err_set(err, -EPROTO, "a frame came under section %" PRIu32 ", which is no source", section_id);
    }
    if (ret == 0 && chunk->frame.kind == FRAME_CHUNK) {
        ret = frame_check(&chunk->frame, chunk->source, err);
    }
    if (ret == 0 && chunk->frame.payload_bytes) {
        ret = read_all(l, chunk_payload(chunk), chunk->frame.payload_bytes, err);
    }
    return ret;
}

int loader_frame(struct loader *l, uint32_t section_id, bool *mark, struct err *err)
{
    struct err local = { 0 };
    struct chunk *chunk = pool_take(&l->pool);
    int ret;

    *mark = false;
    if (!chunk || fault_failed(&l->fault)) {
        pool_give(&l->pool, chunk);
        return fault_get(&l->fault, err);
    }
    ret = receive(l, chunk, section_id, &local);
    if (ret == 0 && chunk->frame.kind == FRAME_MARK) {
        *mark = true;
        ret = frame_verify(chunk_head(chunk), section_id, chunk_payload(chunk), &local);
        ret = ret < 0 ? ret : close_round(l, chunk, section_id, &local);
        pool_give(&l->pool, chunk);
    } else if (ret == 0) {
        ret = hand_in(l, chunk, &local);
        if (ret < 0) {
            pool_give(&l->pool, chunk);
        }
    } else {
        pool_give(&l->pool, chunk);
    }
    if (ret < 0) {
        end_all(l, ret, local.text); /* one that came first stays the answer */
    }
    return fault_get(&l->fault, err);
}

int loader_barrier(struct loader *l, struct err *err)
{
    struct fault *fault = &l->fault;

    lock(&fault->lock);
    while (!fault->err.code && atomic_load_explicit(&l->outstanding, memory_order_acquire)) {
        cond_wait(&fault->cond, &fault->lock);
    }
    unlock(&fault->lock);
    return fault_get(fault, err);
}

void loader_stats(const struct loader *l, struct loader_stats *out)
{
    *out = (struct loader_stats){
        .units_data = get(&l->units_data),
        .units_zero = get(&l->units_zero),
        .wire_bytes = get(&l->wire_bytes),
        .chunks_loaded = get(&l->chunks_loaded),
        .rounds = get(&l->rounds_done),
        .load_ns = get(&l->load_ns),
        .waited_ns = get(&l->waited_ns),
        .pool_wait_ns = get(&l->pool.wait_ns),
        .pool_bytes = l->memory_bytes,
    };
    for (unsigned i = 0; i < CODECS; i++) {
        out->codec_units[i] = get(&l->codec_units[i]);
    }
}

int loader_error(struct loader *l, struct err *err)
{
    return fault_get(&l->fault, err);
}

void loader_fail(struct loader *l, int code, const char *why)
{
    end_all(l, code, why);
    channel_shutdown(l->channel);
}

void loader_digest(const struct loader *l, unsigned source, uint64_t out[2])
{
    assert(source < l->source_count);
    digest_get(&l->states[source].digest, out);
}

/* --- new and free -------------------------------------------------------------------------------------- */

static int start_workers(struct loader *l, struct err *err)
{
    for (unsigned i = 0; i < l->worker_count; i++) {
        struct worker *worker = &l->workers[i];
        char name[16];

        worker->loader = l;
        int ret = unpacker_init(&worker->scratch.unpacker, err);
        if (ret < 0) {
            return ret;
        }
        worker->scratch.unit = aligned_alloc(CHUNK_ALIGN, SOURCE_UNIT_BYTES_MAX);
        if (!worker->scratch.unit) {
            return err_set(err, -ENOMEM, "no memory for load worker %u", i);
        }
        snprintf(name, sizeof(name), "load/%u", i);
        ret = thread_start(&worker->thread, name, load_run, worker, err);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static int start(struct loader *l, const struct loader_options *options, struct err *err)
{
    if (!l->sources || !l->states || !l->workers) {
        return err_set(err, -ENOMEM, "no memory for a loader");
    }
    for (unsigned i = 0; i < l->source_count; i++) {
        struct source *source = options->sources[i];
        uint64_t seen = (source->words + 63) / 64;
        assert(source->id == i + 1);
        assert(source->unit_bytes && source->unit_bytes <= SOURCE_UNIT_BYTES_MAX);
        l->sources[i] = source;
        int ret = digest_new(&l->states[i].digest, source->units, err);
        l->states[i].seen = calloc(seen + 1, sizeof(uint64_t));
        if (ret < 0 || !l->states[i].seen) {
            return err_set(err, -ENOMEM, "no memory to follow %s", source->name);
        }
        l->memory_bytes += source->units * sizeof(uint64_t) + seen * sizeof(uint64_t);
    }
    l->memory_bytes += pool_bytes(&l->pool) + l->worker_count * (uint64_t)(FRAME_PART_MAX + SOURCE_UNIT_BYTES_MAX);
    return start_workers(l, err);
}

int loader_new(const struct loader_options *options, struct loader **out, struct err *err)
{
    if (options->workers < 1 || options->workers > PIPELINE_WORKERS_MAX || options->source_count < 1 ||
        options->source_count > PIPELINE_SOURCES_MAX) {
        return err_set(err, -EINVAL, "%u load workers for %u sources are not possible", options->workers,
                       options->source_count);
    }
    struct loader *l = calloc(1, sizeof(*l));
    if (!l) {
        return err_set(err, -ENOMEM, "no memory for a loader");
    }
    int ret = pool_new(&l->pool, options->workers, options->pool_bytes, err);
    if (ret < 0) {
        free(l);
        return ret;
    }
    fault_init(&l->fault);
    queue_init(&l->queue, l->pool.count);
    l->source_count = options->source_count;
    l->worker_count = options->workers;
    l->channel = options->channel;
    l->confined = options->confined;
    l->sources = calloc(l->source_count, sizeof(*l->sources));
    l->states = calloc(l->source_count, sizeof(*l->states));
    l->workers = calloc(l->worker_count, sizeof(*l->workers));
    ret = start(l, options, err);
    if (ret < 0) {
        loader_free(l);
        return ret;
    }
    *out = l;
    return 0;
}

void loader_free(struct loader *l)
{
    if (!l) {
        return;
    }
    queue_close(&l->queue);
    for (unsigned i = 0; l->workers && i < l->worker_count; i++) {
        thread_join(&l->workers[i].thread);
        unpacker_destroy(&l->workers[i].scratch.unpacker);
        free(l->workers[i].scratch.unit);
    }
    for (unsigned i = 0; l->states && i < l->source_count; i++) {
        digest_destroy(&l->states[i].digest);
        free(l->states[i].seen);
    }
    queue_destroy(&l->queue);
    pool_destroy(&l->pool);
    fault_destroy(&l->fault);
    free(l->workers);
    free(l->states);
    free(l->sources);
    free(l);
}
