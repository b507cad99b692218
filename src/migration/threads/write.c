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

/* "cannot write to tcp:...", and over which of several */
static void fail(struct writer *writer, int code, const char *what)
{
    char why[ERR_TEXT_MAX];

    if (writer->index) {
        snprintf(why, sizeof(why), "data channel %u: %.*s", writer->index, ERR_TEXT_MAX - 32, what);
    }
    writer->fail(writer->opaque, code, writer->index ? why : what);
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
        fail(writer, -ETIMEDOUT, why);
        return;
    }
    int ret = channel_wait(writer->channel, POLLOUT, WAIT_MAX_MS);
    add(&writer->frozen_ns, clock_now_ns() - since);
    if (ret < 0) {
        fail(writer, ret, "the channel cannot be waited for");
    }
}

/* --- the cap ------------------------------------------------------------------------------------------- */

void write_cap_init(struct write_cap *cap)
{
    *cap = (struct write_cap){ .waiting = 0 };
    lock_init(&cap->lock, LOCK_LEAF);
    rate_init(&cap->rate, clock_now_ns());
}

void write_cap_destroy(struct write_cap *cap)
{
    lock_destroy(&cap->lock);
}

uint64_t write_cap_waited_ns(struct write_cap *cap)
{
    lock(&cap->lock);
    int64_t waited = cap->waited_ns + (cap->waiting ? clock_now_ns() - cap->since_ns : 0);
    unlock(&cap->lock);
    return (uint64_t)waited;
}

/* Of several that wait at the same time each loses that time, and the street loses it once. */
static void count_waiting(struct write_cap *cap, int change, int64_t now_ns)
{
    lock(&cap->lock);
    if (cap->waiting) {
        cap->waited_ns += now_ns - cap->since_ns;
    }
    cap->waiting += (unsigned)change;
    cap->since_ns = now_ns;
    unlock(&cap->lock);
}

static void wait_rate(struct writer *writer, int64_t wait_ns)
{
    int64_t since = clock_now_ns();
    int64_t longest = (int64_t)WAIT_MAX_MS * NS_PER_MS;

    count_waiting(writer->cap, 1, since);
    fault_wait_until(writer->fault, since + (wait_ns < longest ? wait_ns : longest));
    int64_t now = clock_now_ns();
    count_waiting(writer->cap, -1, now);
    add(&writer->rate_wait_ns, now - since);
}

/* What may go now, as iov: 0, or after how many nanoseconds to ask again. */
static int64_t take_share(struct writer *writer, const struct batch *batch, struct iovec *iov, int *count,
                          uint64_t *bytes)
{
    struct pipeline_tunables *tunables = writer->tunables;
    bool uncapped = atomic_load_explicit(&tunables->uncapped, memory_order_relaxed);
    uint64_t limit = uncapped ? 0 : atomic_load_explicit(&tunables->max_bytes_per_s, memory_order_relaxed);
    struct rate *rate = &writer->cap->rate;

    lock(&writer->cap->lock); /* another writer must not set another cap between piece and take */
    int64_t now = clock_now_ns();
    rate_set(rate, limit, now);
    *bytes = fill_iov(batch, rate_piece(rate), iov, count);
    int64_t wait_ns = rate_take(rate, *bytes, now);
    unlock(&writer->cap->lock);
    return wait_ns;
}

static void give_back(struct writer *writer, uint64_t bytes)
{
    if (bytes) {
        lock(&writer->cap->lock);
        rate_give_back(&writer->cap->rate, bytes);
        unlock(&writer->cap->lock);
    }
}

/* --- the thread ---------------------------------------------------------------------------------------- */

static void write_error(struct writer *writer, int code)
{
    char why[ERR_TEXT_MAX];

    snprintf(why, sizeof(why), "cannot write to %s: %s", writer->channel->name, strerror(-code));
    fail(writer, code, why);
}

/* One attempt: at most what the cap allows now, as much as the channel takes. */
static void write_some(struct writer *writer, struct batch *batch)
{
    struct iovec iov[WRITE_BATCH];
    uint64_t bytes;
    int count;

    int64_t wait_ns = take_share(writer, batch, iov, &count, &bytes);
    if (wait_ns > 0) {
        wait_rate(writer, wait_ns);
        return;
    }
    failpoint(FAILPOINT_SOURCE_WRITE);
    ssize_t taken = channel_writev(writer->channel, iov, count);
    give_back(writer, bytes - (taken > 0 ? (uint64_t)taken : 0));
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
    char name[16];

    snprintf(name, sizeof(name), "write/%u", writer->index);
    queue_init(&writer->queue, writer->pool->count);
    int ret = thread_start(&writer->thread, name, write_run, writer, err);
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

void writer_close(struct writer *writer)
{
    queue_close(&writer->queue);
}

void writer_join(struct writer *writer)
{
    writer_close(writer);
    thread_join(&writer->thread);
}

void writer_destroy(struct writer *writer)
{
    queue_destroy(&writer->queue);
}
