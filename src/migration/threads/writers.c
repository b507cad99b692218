#include "migration/threads/writers.h"

#include <errno.h>
#include <stdlib.h>

static uint64_t get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

int writers_start(struct writers *writers, const struct writer *like, struct channel *channel,
                  struct channel *const *data, unsigned data_count, struct err *err)
{
    int ret = 0;

    writers->fault = like->fault;
    writers->all = calloc(data_count + 1, sizeof(*writers->all));
    if (!writers->all) {
        return err_set(err, -ENOMEM, "no memory for %u writers", data_count + 1);
    }
    write_cap_init(&writers->cap);
    for (unsigned i = 0; ret == 0 && i <= data_count; i++) {
        struct writer *writer = &writers->all[i];
        writer->index = i;
        writer->channel = i ? data[i - 1] : channel;
        writer->cap = &writers->cap;
        writer->tunables = like->tunables;
        writer->pool = like->pool;
        writer->fault = like->fault;
        writer->fail = like->fail;
        writer->opaque = like->opaque;
        ret = writer_start(writer, err);
        writers->count += ret == 0;
    }
    return ret;
}

const struct writer *writers_carriers(const struct writers *writers, unsigned *count)
{
    bool alone = writers->count <= 1;

    *count = alone ? 1 : writers->count - 1;
    return alone ? writers->all : writers->all + 1;
}

void writers_push(struct writers *writers, struct chunk *chunk)
{
    writer_push(&writers->all[0], chunk);
}

static struct writer *least_busy(struct writers *writers)
{
    unsigned count;
    struct writer *of = (struct writer *)(uintptr_t)writers_carriers(writers, &count);
    unsigned turn = atomic_fetch_add_explicit(&writers->turn, 1, memory_order_relaxed);
    struct writer *best = &of[turn % count];
    uint64_t least = UINT64_MAX;

    for (unsigned i = 0; count > 1 && i < count; i++) {
        struct writer *one = &of[(turn + i) % count];
        uint64_t queued = writer_queued(one);
        if (queued < least) {
            best = one;
            least = queued;
        }
    }
    return best;
}

void writers_carry(struct writers *writers, unsigned source, uint64_t data, uint64_t zero, struct chunk *chunk)
{
    struct writer *writer = least_busy(writers);

    /* Relaxed: read when the round's workers have been waited for. */
    atomic_fetch_add_explicit(&writer->carried[source].data, data, memory_order_relaxed);
    atomic_fetch_add_explicit(&writer->carried[source].zero, zero, memory_order_relaxed);
    writer_push(writer, chunk);
}

/* --- rounds -------------------------------------------------------------------------------------------- */

void writers_begin_round(struct writers *writers)
{
    for (unsigned i = 0; i < writers->count; i++) {
        for (unsigned s = 0; s < PIPELINE_SOURCES_MAX; s++) {
            atomic_store_explicit(&writers->all[i].carried[s].data, 0, memory_order_relaxed);
            atomic_store_explicit(&writers->all[i].carried[s].zero, 0, memory_order_relaxed);
        }
    }
}

static int push_mark(struct writer *writer, uint32_t round, struct source *const *sources, unsigned source_count,
                     const struct frame_counts *counts, uint64_t *wire_bytes, struct err *err)
{
    struct chunk *chunk = pool_take(writer->pool);

    if (!chunk || fault_failed(writer->fault)) {
        pool_give(writer->pool, chunk);
        return fault_get(writer->fault, err);
    }
    struct frame frame = { .kind = FRAME_MARK, .codec = CODEC_RAW, .round = round };
    frame.payload_bytes = (uint32_t)frame_mark_put(chunk_payload(chunk), sources, source_count, counts);
    chunk->wire_bytes = frame_seal(chunk->wire, sources[0]->id, &frame);
    *wire_bytes += chunk->wire_bytes;
    writer_push(writer, chunk);
    return 0;
}

int writers_end_round(struct writers *writers, uint32_t round, struct source *const *sources, unsigned source_count,
                      struct frame_counts *sums, uint64_t *wire_bytes, struct err *err)
{
    int ret = 0;

    for (unsigned s = 0; s < source_count; s++) {
        sums[s] = (struct frame_counts){ 0 };
    }
    for (unsigned i = writers->count; ret == 0 && i-- > 0;) { /* the main channel comes last, when the sums are known */
        struct frame_counts counts[PIPELINE_SOURCES_MAX];
        for (unsigned s = 0; s < source_count; s++) {
            counts[s].data = get(&writers->all[i].carried[s].data);
            counts[s].zero = get(&writers->all[i].carried[s].zero);
            sums[s].data += counts[s].data;
            sums[s].zero += counts[s].zero;
        }
        ret = push_mark(&writers->all[i], round, sources, source_count, i ? counts : sums, wire_bytes, err);
    }
    return ret;
}

/* --- all of them --------------------------------------------------------------------------------------- */

bool writers_idle(const struct writers *writers)
{
    for (unsigned i = 0; i < writers->count; i++) {
        if (writer_queued(&writers->all[i])) {
            return false;
        }
    }
    return true;
}

int writers_flush(struct writers *writers, struct err *err)
{
    struct fault *fault = writers->fault;

    lock(&fault->lock);
    while (!fault->err.code && !writers_idle(writers)) {
        cond_wait(&fault->cond, &fault->lock);
    }
    unlock(&fault->lock);
    return fault_get(fault, err);
}

void writers_totals(const struct writers *writers, struct writer_totals *out)
{
    unsigned carriers;

    writers_carriers(writers, &carriers);
    *out = (struct writer_totals){ 0 };
    for (unsigned i = 0; i < writers->count; i++) {
        const struct writer *writer = &writers->all[i];
        out->wire_bytes += get(&writer->wire_bytes);
        out->data_bytes += i ? get(&writer->wire_bytes) : 0;
        out->queued_bytes += get(&writer->queued_bytes);
        out->frozen_ns += get(&writer->frozen_ns) / carriers;
    }
    out->rate_wait_ns = write_cap_waited_ns((struct write_cap *)(uintptr_t)&writers->cap);
}

void writers_close(struct writers *writers)
{
    for (unsigned i = 0; i < writers->count; i++) {
        writer_close(&writers->all[i]);
        channel_shutdown(writers->all[i].channel);
    }
}

void writers_join(struct writers *writers)
{
    for (unsigned i = 0; i < writers->count; i++) {
        writer_join(&writers->all[i]);
    }
    for (unsigned i = 0; i < writers->count; i++) {
        writer_destroy(&writers->all[i]);
    }
    if (writers->all) {
        write_cap_destroy(&writers->cap);
    }
    free(writers->all);
    writers->all = NULL;
    writers->count = 0;
}
