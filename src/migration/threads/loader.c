/* The receiving side as a whole, and its load/N workers, which store what receive.c takes in. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/sandbox.h"
#include "migration/threads/delta.h"
#include "migration/threads/loader_priv.h"

void loader_end_all(struct loader *l, int code, const char *why)
{
    if (fault_set(&l->fault, code, why) && l->wake_fd >= 0) {
        eventfd_write(l->wake_fd, 1);
    }
    pool_close(&l->pool);
    queue_close(&l->queue);
}

static struct source_state *state_of(struct loader *l, const struct source *source)
{
    return &l->states[source->id - 1];
}

/* --- load workers -------------------------------------------------------------------------------------- */

/* Of one that was loaded. */
static uint64_t frame_deltas(const struct chunk *chunk)
{
    const uint8_t *end = chunk->wire + CHUNK_HEAD_BYTES + chunk->frame.payload_bytes;
    return chunk->frame.kind == FRAME_DELTAS ? (uint64_t)__builtin_popcountll(be64_get(end - DELTA_TAIL_BYTES)) : 0;
}

static void count_chunk(struct loader *l, const struct chunk *chunk)
{
    uint64_t data = (uint64_t)__builtin_popcountll(chunk->frame.data);
    uint64_t zero = (uint64_t)__builtin_popcountll(chunk->frame.zero);

    loader_add(&state_of(l, chunk->source)->round_data, data);
    loader_add(&state_of(l, chunk->source)->round_zero, zero);
    loader_add(&l->units_data, data);
    uint64_t deltas = frame_deltas(chunk);
    loader_add(&l->delta_units, deltas);
    loader_add(&l->codec_units[chunk->frame.codec], data - deltas);
    loader_add(&l->units_zero, zero);
    loader_add(&l->wire_bytes, chunk->frame.payload_bytes + FRAME_AROUND_BYTES);
    loader_add(&l->chunks_loaded, 1);
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
                loader_end_all(l, ret, err.text);
            } else {
                count_chunk(l, chunk);
            }
        }
        loader_add(&l->load_ns, (uint64_t)(clock_now_ns() - start));
        pool_give(&l->pool, chunk);
        /* release: whoever sees 0 sees what was stored, and the counts. */
        if (atomic_fetch_sub_explicit(&l->outstanding, 1, memory_order_acq_rel) == 1) {
            fault_wake(&l->fault);
        }
    }
}

/* --- asked from anywhere ------------------------------------------------------------------------------- */

void loader_stats(const struct loader *l, struct loader_stats *out)
{
    *out = (struct loader_stats){
        .units_data = loader_get(&l->units_data),
        .units_zero = loader_get(&l->units_zero),
        .wire_bytes = loader_get(&l->wire_bytes),
        .chunks_loaded = loader_get(&l->chunks_loaded),
        .rounds = loader_get(&l->rounds_done),
        .delta_units = loader_get(&l->delta_units),
        .load_ns = loader_get(&l->load_ns),
        .waited_ns = loader_get(&l->waited_ns) / (l->receiver_count ? l->receiver_count : 1),
        .pool_wait_ns = loader_get(&l->pool.wait_ns),
        .pool_bytes = l->memory_bytes,
    };
    for (unsigned i = 0; i < CODECS; i++) {
        out->codec_units[i] = loader_get(&l->codec_units[i]);
    }
}

int loader_error(struct loader *l, struct err *err)
{
    return fault_get(&l->fault, err);
}

void loader_fail(struct loader *l, int code, const char *why)
{
    loader_end_all(l, code, why);
    channel_shutdown(l->channel);
    for (unsigned i = 0; i < l->receiver_count; i++) {
        channel_shutdown(l->receivers[i].channel);
    }
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
        worker->scratch.merged = aligned_alloc(CHUNK_ALIGN, SOURCE_UNIT_BYTES_MAX);
        if (!worker->scratch.unit || !worker->scratch.merged) {
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

int loader_add_source(struct loader *l, struct source *source, struct err *err)
{
    uint64_t seen = (source->words + 63) / 64;

    assert(l->source_count < PIPELINE_SOURCES_MAX && source->id == l->source_count + 1);
    assert(source->unit_bytes && source->unit_bytes <= SOURCE_UNIT_BYTES_MAX);
    struct source_state *state = &l->states[l->source_count];
    int ret = digest_new(&state->digest, source->units, l->key, err);
    state->seen = calloc(seen + 1, sizeof(*state->seen));
    l->sources[l->source_count++] = source; /* workers see it with the first chunk of it: the queue's lock */
    if (ret < 0 || !state->seen) {
        return err_set(err, -ENOMEM, "no memory to follow %s", source->name);
    }
    l->memory_bytes += source->units * sizeof(struct unit_hash) + seen * sizeof(uint64_t);
    return 0;
}

static int start(struct loader *l, const struct loader_options *options, struct err *err)
{
    if (!l->sources || !l->states || !l->workers || !l->receivers) {
        return err_set(err, -ENOMEM, "no memory for a loader");
    }
    l->wake_fd = l->receiver_count ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
    if (l->receiver_count && l->wake_fd < 0) {
        return err_set_errno(err, -errno, "no eventfd for a loader");
    }
    for (unsigned i = 0; i < l->receiver_count; i++) {
        l->receivers[i].loader = l;
        l->receivers[i].channel = options->data[i];
        l->receivers[i].index = i + 1;
    }
    for (unsigned i = 0; i < options->source_count; i++) {
        int ret = loader_add_source(l, options->sources[i], err);
        if (ret < 0) {
            return ret;
        }
    }
    l->memory_bytes += pool_bytes(&l->pool) + l->worker_count * (uint64_t)(FRAME_PART_MAX + 2 * SOURCE_UNIT_BYTES_MAX);
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
    assert(options->data_count <= PIPELINE_CHANNELS_MAX);
    int ret = pool_new(&l->pool, options->workers + options->data_count, options->pool_bytes, err);
    if (ret < 0) {
        free(l);
        return ret;
    }
    fault_init(&l->fault);
    queue_init(&l->queue, l->pool.count);
    l->worker_count = options->workers;
    l->channel = options->channel;
    l->confined = options->confined;
    l->key = options->key;
    l->silence_ms = options->silence_ms > 0 ? options->silence_ms : -1;
    l->receiver_count = options->data_count;
    l->wake_fd = -1;
    l->sources = calloc(PIPELINE_SOURCES_MAX, sizeof(*l->sources));
    l->states = calloc(PIPELINE_SOURCES_MAX, sizeof(*l->states));
    l->workers = calloc(l->worker_count, sizeof(*l->workers));
    l->receivers = calloc(l->receiver_count + 1, sizeof(*l->receivers));
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
    if (l->receiver_count) {
        loader_end_all(l, -ECANCELED, "the load has ended");
        loader_join_receivers(l);
    }
    queue_close(&l->queue);
    for (unsigned i = 0; l->workers && i < l->worker_count; i++) {
        thread_join(&l->workers[i].thread);
        unpacker_destroy(&l->workers[i].scratch.unpacker);
        free(l->workers[i].scratch.unit);
        free(l->workers[i].scratch.merged);
    }
    for (unsigned i = 0; l->states && i < l->source_count; i++) {
        digest_destroy(&l->states[i].digest);
        free(l->states[i].seen);
    }
    queue_destroy(&l->queue);
    pool_destroy(&l->pool);
    fault_destroy(&l->fault);
    if (l->wake_fd >= 0) {
        close(l->wake_fd);
    }
    free(l->receivers);
    free(l->workers);
    free(l->states);
    free(l->sources);
    free(l);
}
