#include "migration/threads/write.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/failpoint.h"

/* WAIT_MAX: how late a new cap, or a statistic about waiting, may be noticed. */
enum { WRITE_BATCH = 16, WAIT_MAX_MS = 50 };

struct batch {
    struct chunk *chunks[WRITE_BATCH];
    unsigned first, count;
    size_t done; /* bytes of the first that are written */
};

static void add(_Atomic uint64_t *counter, int64_t more)
{
    atomic_fetch_add_explicit(counter, (uint64_t)more, memory_order_relaxed);
}

static void send_home(struct writer *writer, struct chunk *chunk)
{
    size_t bytes = chunk->wire_bytes;

    pool_give(writer->pool, chunk);
    /* acq_rel: who sees 0 also sees wire_bytes; the lock inside fault_wake makes the flusher's wait safe. */
    if (atomic_fetch_sub_explicit(&writer->queued_bytes, bytes, memory_order_acq_rel) == bytes) {
        fault_wake(writer->fault);
    }
}

static uint64_t fill_iov(const struct batch *batch, uint64_t limit, struct iovec *iov, int *count)
{
    uint64_t bytes = 0;

    *count = 0;
    for (unsigned i = batch->first; i < batch->count && bytes < limit; i++) {
        size_t skip = i == batch->first ? batch->done : 0;
        size_t part = batch->chunks[i]->wire_bytes - skip;
        part = part < limit - bytes ? part : (size_t)(limit - bytes);
        iov[(*count)++] = (struct iovec){ .iov_base = batch->chunks[i]->wire + skip, .iov_len = part };
        bytes += part;
    }
    return bytes;
}

static void advance(struct writer *writer, struct batch *batch, size_t bytes)
{
    add(&writer->wire_bytes, (int64_t)bytes);
    batch->done += bytes;
    while (batch->first < batch->count && batch->done >= batch->chunks[batch->first]->wire_bytes) {
        struct chunk *chunk = batch->chunks[batch->first++];
        batch->done -= chunk->wire_bytes;
        send_home(writer, chunk);
    }
}

static void wait_frozen(struct writer *writer)
{
    int64_t since = clock_now_ns();
    int64_t limit = atomic_load_explicit(&writer->tunables->frozen_limit_ns, memory_order_relaxed);

    if (!writer->frozen_since_ns) {
        writer->frozen_since_ns = since;
    }
    if (limit && since - writer->frozen_since_ns > limit) {
        char why[ERR_TEXT_MAX];
        snprintf(why, sizeof(why), "%s: the peer has taken nothing for %" PRId64 " ms", writer->channel->name,
                 (since - writer->frozen_since_ns) / NS_PER_MS);
        writer->fail(writer->opaque, -ETIMEDOUT, why);
        return;
    }
    int ret = channel_wait(writer->channel, POLLOUT, WAIT_MAX_MS);
    add(&writer->frozen_ns, clock_now_ns() - since);
    if (ret < 0) {
        writer->fail(writer->opaque, ret, "the channel cannot be waited for");
    }
}

static void wait_rate(struct writer *writer, int64_t wait_ns)
{
    int64_t since = clock_now_ns();
    int64_t longest = (int64_t)WAIT_MAX_MS * NS_PER_MS;

    fault_wait_until(writer->fault, since + (wait_ns < longest ? wait_ns : longest));
    add(&writer->rate_wait_ns, clock_now_ns() - since);
}

static void write_error(struct writer *writer, int code)
{
    char why[ERR_TEXT_MAX];

    snprintf(why, sizeof(why), "cannot write to %s: %s", writer->channel->name, strerror(-code));
    writer->fail(writer->opaque, code, why);
}

/* One attempt: at most what the cap allows now, as much as the channel takes. */
static void write_some(struct writer *writer, struct batch *batch)
{
    struct pipeline_tunables *tunables = writer->tunables;
    bool uncapped = atomic_load_explicit(&tunables->uncapped, memory_order_relaxed);
    uint64_t cap = uncapped ? 0 : atomic_load_explicit(&tunables->max_bytes_per_s, memory_order_relaxed);
    int64_t now = clock_now_ns();
    struct iovec iov[WRITE_BATCH];
    int count;

    rate_set(&writer->rate, cap, now);
    uint64_t bytes = fill_iov(batch, rate_piece(&writer->rate), iov, &count);
    int64_t wait_ns = rate_take(&writer->rate, bytes, now);
    if (wait_ns > 0) {
        wait_rate(writer, wait_ns);
        return;
    }
    failpoint(FAILPOINT_SOURCE_WRITE);
    ssize_t taken = channel_writev(writer->channel, iov, count);
    rate_give_back(&writer->rate, bytes - (taken > 0 ? (uint64_t)taken : 0));
    if (taken > 0) {
        writer->frozen_since_ns = 0;
        advance(writer, batch, (size_t)taken);
    } else if (taken == -EAGAIN || taken == 0) {
        wait_frozen(writer);
    } else {
        write_error(writer, (int)taken);
    }
}

static struct chunk *next_chunk(struct writer *writer)
{
    struct chunk *chunk = queue_try_pop(&writer->queue);

    if (!chunk) {
        int64_t since = clock_now_ns();
        chunk = queue_pop(&writer->queue);
        add(&writer->idle_ns, clock_now_ns() - since);
    }
    return chunk;
}

static void write_run(void *opaque)
{
    struct writer *writer = opaque;
    struct batch batch = { .count = 0 };

    while ((batch.chunks[0] = next_chunk(writer))) {
        batch.first = 0;
        batch.done = 0;
        batch.count = 1;
        while (batch.count < WRITE_BATCH && (batch.chunks[batch.count] = queue_try_pop(&writer->queue))) {
            batch.count++;
        }
        while (batch.first < batch.count && !fault_failed(writer->fault)) {
            write_some(writer, &batch);
        }
        while (batch.first < batch.count) { /* failed: nothing of it will be written */
            send_home(writer, batch.chunks[batch.first++]);
        }
    }
}

int writer_start(struct writer *writer, struct err *err)
{
    queue_init(&writer->queue, writer->pool->count);
    rate_init(&writer->rate, clock_now_ns());
    int ret = thread_start(&writer->thread, "write/0", write_run, writer, err);
    if (ret < 0) {
        queue_destroy(&writer->queue);
    }
    return ret;
}

void writer_push(struct writer *writer, struct chunk *chunk)
{
    add(&writer->queued_bytes, (int64_t)chunk->wire_bytes);
    if (!queue_push(&writer->queue, chunk)) { /* closed: the street has failed */
        send_home(writer, chunk);
    }
}

uint64_t writer_queued(const struct writer *writer)
{
    return atomic_load_explicit(&writer->queued_bytes, memory_order_acquire);
}

int writer_flush(struct writer *writer, struct err *err)
{
    struct fault *fault = writer->fault;

    lock(&fault->lock);
    while (!fault->err.code && writer_queued(writer)) {
        cond_wait(&fault->cond, &fault->lock);
    }
    unlock(&fault->lock);
    return fault_get(fault, err);
}

void writer_close(struct writer *writer)
{
    queue_close(&writer->queue);
}

void writer_join(struct writer *writer)
{
    if (writer->thread.started) {
        writer_close(writer);
        thread_join(&writer->thread);
        queue_destroy(&writer->queue);
    }
}
