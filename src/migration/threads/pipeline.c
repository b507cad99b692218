#include "migration/threads/pipeline.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/thread.h"
#include "migration/threads/compress.h"
#include "migration/threads/delta.h"
#include "migration/threads/digest.h"
#include "migration/threads/fault.h"
#include "migration/threads/frame.h"
#include "migration/threads/pool.h"
#include "migration/threads/scan.h"
#include "migration/threads/steer.h"
#include "migration/threads/writers.h"

struct source_state {
    struct digest digest;
    _Atomic uint64_t units_data, units_zero, wire_bytes, work_ns;
};

struct worker {
    /* fixed after new */
    struct pipeline *pipeline;
    struct thread thread;
    /* owner: its thread */
    struct compressor compressor;
    uint8_t *raw;    /* FRAME_RAW_MAX */
    uint8_t *probe;  /* PROBE_BYTES */
    uint8_t *deltas; /* DELTA_OUT_MAX; NULL: none are made */
    struct delta_keeper keeper;
    int64_t waited_ns;   /* for the spare chunk */
    struct chunk *spare; /* held before anything is taken, so that units are cleared as late as possible */
    unsigned slice_words;
    struct scan_slice slices[2];
    int64_t sampled_ns; /* when it measured a chunk last */
    uint64_t units_since, zeros_since, chunks_since;
};

enum { PROBE_BYTES = CHUNK_HEAD_BYTES + FRAME_PART_MAX + FRAME_PART_MAX / 255 + 32 + FRAME_FOOTER_BYTES };
_Static_assert(CHOOSE_PROBE_UNITS == (int)FRAME_PART_UNITS, "a probe is one part");

struct pipeline {
    /* fixed after new */
    struct source **sources;
    unsigned source_count, worker_count;
    bool peer_is_fresh;
    struct pipeline_tunables *tunables;
    uint64_t memory_bytes;
    struct worker *workers;
    struct source_state *states; /* by source */
    unsigned delta_sources;      /* so many, the first ones, may travel as deltas */
    struct pool pool;
    struct writers writers;
    struct steer steer;
    struct delta_cache *delta_cache; /* NULL: no deltas */
    struct scan_cursor cursor;
    /* under fault.lock: the owner and the workers meet here */
    struct fault fault;
    uint32_t round; /* the running or the last one */
    unsigned busy;  /* workers in it */
    bool last, ended;
    /* owner */
    int64_t round_start_ns;
    uint64_t round_made; /* made_bytes when it began */
    /* atomic */
    _Atomic uint64_t cut_bytes; /* this round takes nothing more once it has made so many */
    _Atomic uint64_t rounds, units_data, units_zero, units_taken, raw_bytes, made_bytes;
    _Atomic uint64_t revoke_wait_ns, copy_ns, compress_ns, codec_units[CODECS];
};

static void add(_Atomic uint64_t *counter, uint64_t more)
{
    atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

static uint64_t get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* --- a worker ------------------------------------------------------------------------------------------ */

static bool claim(struct worker *worker, struct scan_slice *slice, bool last)
{
    struct pipeline *p = worker->pipeline;

    /* In the last round nobody stores, a revoke is free, and the work must be spread evenly. */
    if (fault_failed(&p->fault) || get(&p->made_bytes) - p->round_made >= get(&p->cut_bytes) ||
        !scan_claim(&p->cursor, last ? 1 : worker->slice_words, slice)) {
        return false;
    }
    uint64_t taken = 0;
    for (unsigned i = 0; i < slice->count; i++) {
        taken += (uint64_t)__builtin_popcountll(slice->units[i]);
    }
    add(&p->units_taken, taken);
    return true;
}

static void count_chunk(struct pipeline *p, const struct scan_slice *slice, const struct scanned *scanned,
                        unsigned whole, enum codec codec)
{
    struct source_state *state = &p->states[slice->index];

    digest_apply(&state->digest, &scanned->change);
    add(&state->units_data, scanned->units);
    add(&state->units_zero, (uint64_t)__builtin_popcountll(scanned->zero));
    add(&p->units_data, scanned->units);
    add(&p->units_zero, (uint64_t)__builtin_popcountll(scanned->zero));
    add(&p->codec_units[codec], whole);
    add(&p->raw_bytes, (uint64_t)scanned->units * slice->source->unit_bytes);
}

/* What another codec would cost, and make of these units. Nothing of it is sent. */
static void probe(struct worker *worker, const struct source *source, const uint8_t *raw)
{
    struct steer *steer = &worker->pipeline->steer;
    unsigned gear = steer_probe(steer);
    struct frame frame = { .kind = FRAME_CHUNK };

    if (gear == GEARS) {
        return;
    }
    int64_t start = clock_thread_ns();
    frame.payload_bytes =
        (uint32_t)compress_chunk(&worker->compressor, gears[gear].codec, gears[gear].acceleration, raw,
                                 CHOOSE_PROBE_UNITS, source->unit_bytes, worker->probe + CHUNK_HEAD_BYTES);
    uint64_t wire_bytes = frame_seal(worker->probe, source->id, &frame);
    steer_probed(steer, gear, clock_thread_ns() - start, wire_bytes);
}

/* What changed little leaves raw. */
static void make_deltas(struct worker *worker, const struct scan_slice *slice, unsigned i,
                        const struct scanned *scanned, uint8_t *raw, struct delta_made *made)
{
    struct pipeline *p = worker->pipeline;

    *made = (struct delta_made){ .rest = scanned->units };
    if (p->delta_cache && slice->index < p->delta_sources) {
        bool keep = delta_keeps(&worker->keeper, p->delta_cache, worker->waited_ns);
        delta_step(p->delta_cache, slice->index, slice->words[i], &p->states[slice->index].digest, scanned, keep, raw,
                   worker->deltas, made);
    }
    worker->waited_ns = 0;
}

/* A chunk with its times: at its start, when it was copied, and now. */
static void sample(struct worker *worker, unsigned gear, unsigned units, uint64_t wire_bytes, const int64_t cpu_ns[2],
                   int64_t start_ns)
{
    int64_t cpu_now_ns = clock_thread_ns(), now_ns = clock_now_ns();
    struct steer_sample measured = {
        .gear = gear,
        .units = units,
        .wire_bytes = wire_bytes,
        .copy_ns = cpu_ns[1] - cpu_ns[0],
        .pack_ns = cpu_now_ns - cpu_ns[1],
        .wall_ns = now_ns - start_ns,
        .units_since = worker->units_since,
        .zeros_since = worker->zeros_since,
        .chunks_since = worker->chunks_since,
    };

    worker->sampled_ns = now_ns;
    worker->units_since = worker->zeros_since = worker->chunks_since = 0;
    steer_measured(&worker->pipeline->steer, &measured);
}

/* Copy, zero test, compress and frame one word, back to back. */
static int make_chunk(struct worker *worker, const struct scan_slice *slice, unsigned i, uint32_t round, bool last)
{
    struct pipeline *p = worker->pipeline;
    struct chunk *chunk = worker->spare;
    struct gear with;
    unsigned gear = steer_pick(&p->steer, &with);
    uint8_t *raw = with.codec == CODEC_RAW ? chunk_payload(chunk) : worker->raw;
    struct scanned scanned;
    struct err err = { 0 };

    int64_t start = clock_now_ns();
    /* The last round keeps the gear that the forecast was made with, and has no time to measure. */
    bool measure = gear < GEARS && !last && start - worker->sampled_ns >= STEER_SAMPLE_NS;
    int64_t cpu_ns[2] = { measure ? clock_thread_ns() : 0, 0 };
    int ret = scan_step(slice->source, &p->states[slice->index].digest, slice->words[i], slice->units[i], raw, &scanned,
                        &err);
    if (ret < 0) {
        pipeline_fail(p, ret, err.text);
        return ret;
    }
    struct delta_made deltas;
    make_deltas(worker, slice, i, &scanned, raw, &deltas);
    int64_t copied = clock_now_ns();
    cpu_ns[1] = measure ? clock_thread_ns() : 0;
    struct frame frame = {
        .kind = deltas.units ? FRAME_DELTAS : FRAME_CHUNK,
        .codec = with.codec,
        .round = round,
        .first_unit = slice->words[i] * CHUNK_UNITS,
        .data = scanned.data,
        .zero = p->peer_is_fresh && slice->index == 0 ? scanned.cleared : scanned.zero,
    };
    if (!frame.data && !frame.zero) { /* nothing that the peer has not got */
        count_chunk(p, slice, &scanned, 0, with.codec);
        add(&p->copy_ns, (uint64_t)(copied - start));
        worker->zeros_since += (uint64_t)__builtin_popcountll(scanned.zero);
        return 0;
    }
    frame.payload_bytes = (uint32_t)compress_chunk(&worker->compressor, with.codec, with.acceleration, raw, deltas.rest,
                                                   slice->source->unit_bytes, chunk_payload(chunk));
    if (deltas.bytes) {
        memcpy(chunk_payload(chunk) + frame.payload_bytes, worker->deltas, deltas.bytes);
        frame.payload_bytes += (uint32_t)deltas.bytes;
    }
    chunk->wire_bytes = frame_seal(chunk->wire, slice->source->id, &frame);
    count_chunk(p, slice, &scanned, deltas.rest, with.codec);
    add(&p->made_bytes, chunk->wire_bytes);
    add(&p->copy_ns, (uint64_t)(copied - start));
    int64_t made = clock_now_ns();
    add(&p->compress_ns, (uint64_t)(made - copied));
    add(&p->states[slice->index].wire_bytes, chunk->wire_bytes);
    add(&p->states[slice->index].work_ns, (uint64_t)(made - start));
    worker->units_since += scanned.units;
    worker->zeros_since += (uint64_t)__builtin_popcountll(scanned.zero);
    worker->chunks_since++;
    if (measure) {
        sample(worker, gear, deltas.rest, chunk->wire_bytes - deltas.bytes, cpu_ns, start);
        if (deltas.rest >= CHOOSE_PROBE_UNITS) {
            probe(worker, slice->source, raw);
        }
    }
    worker->spare = NULL;
    writers_carry(&p->writers, slice->index, scanned.units, (uint64_t)__builtin_popcountll(frame.zero), chunk);
    return 0;
}

/* Every word of a slice whose successor is already claimed, so that its revoke is in flight meanwhile. */
static int make_slice(struct worker *worker, const struct scan_slice *slice, uint32_t round, bool last)
{
    struct pipeline *p = worker->pipeline;
    int64_t start = clock_now_ns();

    slice->source->ops->revoke_wait(slice->source, slice->token);
    int64_t waited = clock_now_ns() - start;
    add(&p->revoke_wait_ns, (uint64_t)waited);
    for (unsigned i = 0; i < slice->count; i++) {
        if (fault_failed(&p->fault) || make_chunk(worker, slice, i, round, last) < 0) {
            return -ECANCELED;
        }
        if (!worker->spare) {
            int64_t asked = clock_now_ns();
            worker->spare = pool_take(&p->pool);
            worker->waited_ns = clock_now_ns() - asked;
        }
        if (!worker->spare) {
            return -ECANCELED;
        }
    }
    worker->slice_words = scan_slice_words(worker->slice_words, waited, clock_now_ns() - start);
    return 0;
}

static void work_round(struct worker *worker, uint32_t round, bool last)
{
    struct pipeline *p = worker->pipeline;
    unsigned now = 0;

    worker->spare = pool_take(&p->pool);
    bool more = worker->spare && claim(worker, &worker->slices[now], last);
    while (more) {
        more = claim(worker, &worker->slices[!now], last);
        if (make_slice(worker, &worker->slices[now], round, last) < 0) {
            break;
        }
        now = !now;
    }
    pool_give(&p->pool, worker->spare);
    worker->spare = NULL;
}

static void work_run(void *opaque)
{
    struct worker *worker = opaque;
    struct pipeline *p = worker->pipeline;
    uint32_t seen = 0;

    lock(&p->fault.lock);
    for (;;) {
        while (p->round == seen && !p->ended) {
            cond_wait(&p->fault.cond, &p->fault.lock);
        }
        if (p->ended) {
            break;
        }
        seen = p->round;
        bool last = p->last;
        unlock(&p->fault.lock);
        work_round(worker, seen, last);
        lock(&p->fault.lock);
        if (--p->busy == 0) {
            cond_broadcast(&p->fault.cond);
        }
    }
    unlock(&p->fault.lock);
}

/* --- the owner ----------------------------------------------------------------------------------------- */

static void fail_from_writer(void *opaque, int code, const char *why)
{
    pipeline_fail(opaque, code, why);
}

static int start_workers(struct pipeline *p, struct err *err)
{
    for (unsigned i = 0; i < p->worker_count; i++) {
        struct worker *worker = &p->workers[i];
        char name[16];

        worker->pipeline = p;
        worker->slice_words = SCAN_SLICE_START;
        worker->raw = aligned_alloc(CHUNK_ALIGN, FRAME_RAW_MAX);
        worker->probe = aligned_alloc(CHUNK_ALIGN, (PROBE_BYTES + CHUNK_ALIGN - 1) / CHUNK_ALIGN * CHUNK_ALIGN);
        worker->deltas = p->delta_cache ? malloc(DELTA_OUT_MAX) : NULL;
        if (!worker->raw || !worker->probe || (p->delta_cache && !worker->deltas)) {
            return err_set(err, -ENOMEM, "no memory for worker %u", i);
        }
        int ret = compressor_init(&worker->compressor, err);
        if (ret < 0) {
            return ret;
        }
        snprintf(name, sizeof(name), "work/%u", i);
        ret = thread_start(&worker->thread, name, work_run, worker, err);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static int start_writers(struct pipeline *p, const struct pipeline_options *options, struct err *err)
{
    struct writer like = { .tunables = p->tunables, .pool = &p->pool, .fault = &p->fault };
    unsigned carriers;

    like.fail = fail_from_writer;
    like.opaque = p;
    int ret = writers_start(&p->writers, &like, options->channel, options->data, options->data_count, err);
    if (ret == 0) {
        const struct writer *first = writers_carriers(&p->writers, &carriers);
        steer_follow(&p->steer, first, carriers);
    }
    return ret;
}

static int start(struct pipeline *p, const struct pipeline_options *options, struct err *err)
{
    p->workers = calloc(p->worker_count, sizeof(*p->workers));
    p->states = calloc(p->source_count, sizeof(*p->states));
    if (!p->workers || !p->states || !p->sources) {
        return err_set(err, -ENOMEM, "no memory for %u workers", p->worker_count);
    }
    for (unsigned i = 0; i < p->source_count; i++) {
        struct source *source = p->sources[i];
        int ret = digest_new(&p->states[i].digest, source->units, options->key, err);
        if (ret < 0) {
            return err_set(err, -ENOMEM, "no memory to follow %s", source->name);
        }
        p->memory_bytes += source->units * sizeof(struct unit_hash);
    }
    int ret = pool_new(&p->pool, p->worker_count + options->data_count, options->pool_bytes, err);
    if (ret < 0) {
        return ret;
    }
    p->memory_bytes += pool_bytes(&p->pool) + p->worker_count * (FRAME_RAW_MAX + PROBE_BYTES + sizeof(*p->workers));
    ret = start_writers(p, options, err);
    if (ret == 0 && options->delta_cache_bytes) {
        ret = delta_cache_new(p->sources, p->delta_sources, options->delta_cache_bytes, &p->delta_cache, err);
        p->memory_bytes += p->worker_count * (uint64_t)DELTA_OUT_MAX;
    }
    return ret < 0 ? ret : start_workers(p, err);
}

static int check_options(const struct pipeline_options *options, struct err *err)
{
    if (options->workers < 1 || options->workers > PIPELINE_WORKERS_MAX) {
        return err_set(err, -EINVAL, "%u workers; from 1 to %d are possible", options->workers, PIPELINE_WORKERS_MAX);
    }
    if (options->source_count < 1 || options->source_count > PIPELINE_SOURCES_MAX) {
        return err_set(err, -EINVAL, "%u sources; from 1 to %d are possible", options->source_count,
                       PIPELINE_SOURCES_MAX);
    }
    assert(options->data_count <= PIPELINE_CHANNELS_MAX);
    if (options->plain_pages) {
        return err_set(err, -ENOTSUP, "plain page records are not written yet");
    }
    return 0;
}

int pipeline_new(const struct pipeline_options *options, struct pipeline **out, struct err *err)
{
    int ret = check_options(options, err);
    if (ret < 0) {
        return ret;
    }
    struct pipeline *p = calloc(1, sizeof(*p));
    if (!p) {
        return err_set(err, -ENOMEM, "no memory for a pipeline");
    }
    fault_init(&p->fault);
    steer_init(&p->steer, options);
    p->source_count = options->source_count;
    p->worker_count = options->workers;
    p->peer_is_fresh = options->peer_is_fresh;
    p->tunables = options->tunables;
    p->sources = calloc(p->source_count, sizeof(*p->sources));
    if (p->sources) {
        memcpy(p->sources, options->sources, p->source_count * sizeof(*p->sources));
        for (unsigned i = 0; i < p->source_count; i++) {
            assert(p->sources[i]->id == i + 1);
            assert(p->sources[i]->unit_bytes && p->sources[i]->unit_bytes <= SOURCE_UNIT_BYTES_MAX);
            assert(p->sources[i]->unit_bytes % CHUNK_ALIGN == 0);
            p->delta_sources += i == p->delta_sources && !p->sources[i]->ops->fetch;
        }
    }
    p->cursor = (struct scan_cursor){ .sources = p->sources, .source_count = p->source_count };
    ret = start(p, options, err);
    if (ret < 0) {
        pipeline_free(p);
        return ret;
    }
    *out = p;
    return 0;
}

static int send_marks(struct pipeline *p, struct round_result *result, struct err *err)
{
    struct frame_counts counts[PIPELINE_SOURCES_MAX];
    uint64_t bytes = 0;
    int ret = writers_end_round(&p->writers, p->round, p->sources, p->source_count, counts, &bytes, err);

    for (unsigned i = 0; i < p->source_count; i++) {
        result->units_data += counts[i].data;
        result->units_zero += counts[i].zero;
    }
    add(&p->made_bytes, bytes);
    return ret;
}

static int begin_round(struct pipeline *p, bool last, uint64_t cut_bytes, struct err *err)
{
    if (fault_failed(&p->fault)) {
        return fault_get(&p->fault, err);
    }
    p->round_start_ns = clock_now_ns();
    p->round_made = get(&p->made_bytes);
    writers_begin_round(&p->writers);
    scan_begin(&p->cursor);
    if (p->delta_cache) {
        delta_round(p->delta_cache, p->round + 1, last);
    }
    atomic_store_explicit(&p->cut_bytes, cut_bytes, memory_order_relaxed); /* seen with the new round: the lock */
    steer_round_begins(&p->steer);
    lock(&p->fault.lock);
    p->round++;
    p->last = last;
    p->busy = p->worker_count;
    cond_broadcast(&p->fault.cond);
    unlock(&p->fault.lock);
    return 0;
}

int pipeline_round_begin(struct pipeline *p, bool last, struct err *err)
{
    return begin_round(p, last, UINT64_MAX, err);
}

int pipeline_train_begin(struct pipeline *p, uint64_t bytes, struct err *err)
{
    return begin_round(p, false, bytes, err);
}

bool pipeline_round_wait(struct pipeline *p, int64_t deadline_ns)
{
    bool in_time = true;

    lock(&p->fault.lock);
    /* After a failure workers notice it within a chunk, but what is queued goes nowhere any more. */
    while (in_time && !p->fault.err.code && (p->busy || !writers_idle(&p->writers))) {
        in_time = cond_wait_until(&p->fault.cond, &p->fault.lock, deadline_ns);
    }
    bool done = p->fault.err.code || !(p->busy || !writers_idle(&p->writers));
    unlock(&p->fault.lock);
    return done;
}

void pipeline_round_cut(struct pipeline *p)
{
    atomic_store_explicit(&p->cut_bytes, 0, memory_order_relaxed);
}

int pipeline_round_end(struct pipeline *p, struct round_result *out, struct err *err)
{
    struct round_result result = { 0 };

    lock(&p->fault.lock);
    /* After a failure pipeline_free() waits for them: one of them may wait for a vCPU that the host does not run now. */
    while (p->busy && !p->fault.err.code) {
        cond_wait(&p->fault.cond, &p->fault.lock);
    }
    unlock(&p->fault.lock);
    int ret = fault_get(&p->fault, err);
    if (ret == 0) {
        ret = send_marks(p, &result, err);
    }
    if (ret < 0) {
        return ret;
    }
    add(&p->rounds, 1);
    result.wire_bytes = get(&p->made_bytes) - p->round_made;
    result.elapsed_ns = clock_now_ns() - p->round_start_ns;
    if (out) {
        *out = result;
    }
    return 0;
}

int pipeline_round(struct pipeline *p, bool last, struct round_result *out, struct err *err)
{
    int ret = pipeline_round_begin(p, last, err);

    return ret < 0 ? ret : pipeline_round_end(p, out, err);
}

void pipeline_round_loaded(struct pipeline *p, const struct round_result *round, int64_t loaded_ns)
{
    steer_carried(&p->steer, round->wire_bytes, round->elapsed_ns, loaded_ns);
}

int pipeline_send(struct pipeline *p, const void *data, size_t bytes, struct err *err)
{
    const uint8_t *at = data;

    while (bytes && !fault_failed(&p->fault)) {
        struct chunk *chunk = pool_take(&p->pool);
        if (!chunk) {
            break;
        }
        chunk->wire_bytes = bytes < CHUNK_WIRE_MAX ? bytes : CHUNK_WIRE_MAX;
        memcpy(chunk->wire, at, chunk->wire_bytes);
        at += chunk->wire_bytes;
        bytes -= chunk->wire_bytes;
        writers_push(&p->writers, chunk);
    }
    return fault_get(&p->fault, err);
}

int pipeline_flush(struct pipeline *p, struct err *err)
{
    return writers_flush(&p->writers, err);
}

void pipeline_stats(const struct pipeline *p, struct pipeline_stats *out)
{
    struct writer_totals written;

    writers_totals(&p->writers, &written);
    *out = (struct pipeline_stats){
        .rounds = get(&p->rounds),
        .units_data = get(&p->units_data),
        .units_zero = get(&p->units_zero),
        .units_taken = get(&p->units_taken),
        .raw_bytes = get(&p->raw_bytes),
        .wire_bytes = written.wire_bytes,
        .data_bytes = written.data_bytes,
        .queued_bytes = written.queued_bytes,
        .frozen_ns = written.frozen_ns,
        .rate_wait_ns = written.rate_wait_ns,
        .pool_wait_ns = get(&p->pool.wait_ns),
        .revoke_wait_ns = get(&p->revoke_wait_ns),
        .copy_ns = get(&p->copy_ns),
        .compress_ns = get(&p->compress_ns),
        .pool_bytes = p->memory_bytes,
    };
    if (p->delta_cache) {
        struct delta_stats deltas;
        delta_stats(p->delta_cache, &deltas);
        out->delta_units = deltas.units;
        out->delta_bytes = deltas.bytes;
        out->delta_misses = deltas.misses;
        out->pool_bytes += deltas.held_bytes;
    }
    struct gear gear;
    steer_pick((struct steer *)(uintptr_t)&p->steer, &gear);
    out->codec = gear.codec;
    out->acceleration = gear.acceleration;
    for (unsigned i = 0; i < CODECS; i++) {
        out->codec_units[i] = get(&p->codec_units[i]);
    }
}

void pipeline_source_stats(const struct pipeline *p, unsigned source, struct pipeline_source_stats *out)
{
    assert(source < p->source_count);
    const struct source_state *state = &p->states[source];
    *out = (struct pipeline_source_stats){
        .units_data = get(&state->units_data),
        .units_zero = get(&state->units_zero),
        .wire_bytes = get(&state->wire_bytes),
        .work_ns = get(&state->work_ns),
    };
}

void pipeline_fail(struct pipeline *p, int code, const char *why)
{
    if (fault_set(&p->fault, code, why)) {
        pool_close(&p->pool);
        writers_close(&p->writers);
    }
}

int pipeline_error(struct pipeline *p, struct err *err)
{
    return fault_get(&p->fault, err);
}

void pipeline_digest(const struct pipeline *p, unsigned source, uint64_t out[2])
{
    assert(source < p->source_count);
    digest_get(&p->states[source].digest, out);
}

struct unit_hash pipeline_last_hash(const struct pipeline *p, unsigned source, uint64_t unit)
{
    assert(source < p->source_count);
    return digest_last(&p->states[source].digest, unit);
}

void pipeline_free(struct pipeline *p)
{
    if (!p) {
        return;
    }
    lock(&p->fault.lock);
    p->ended = true;
    cond_broadcast(&p->fault.cond);
    unlock(&p->fault.lock);
    for (unsigned i = 0; p->workers && i < p->worker_count; i++) {
        thread_join(&p->workers[i].thread);
        compressor_destroy(&p->workers[i].compressor);
        free(p->workers[i].raw);
        free(p->workers[i].probe);
        free(p->workers[i].deltas);
    }
    writers_join(&p->writers);
    for (unsigned i = 0; p->states && i < p->source_count; i++) {
        digest_destroy(&p->states[i].digest);
    }
    delta_cache_free(p->delta_cache);
    pool_destroy(&p->pool);
    steer_destroy(&p->steer);
    fault_destroy(&p->fault);
    free(p->workers);
    free(p->states);
    free(p->sources);
    free(p);
}
