/* Where frames come in: over the main channel on the caller's thread, or over data channels, each with a receive/N thread.
 *
 * With data channels frames of one round come in any order, and only within it. Each channel ends its round by a mark with
 * what went over it, and nothing more is taken from it until the round is closed: when all of them have ended it, all of it is
 * stored, and it is what the mark on the main channel says. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "migration/threads/loader_priv.h"

static struct source *source_of(struct loader *l, uint32_t section_id)
{
    return section_id >= 1 && section_id <= l->source_count ? l->sources[section_id - 1] : NULL;
}

/* --- reading ------------------------------------------------------------------------------------------- */

static int wait_for_bytes(struct loader *l, struct channel *channel, int timeout_ms)
{
    int64_t start = clock_now_ns();
    int ret = channel_wait(channel, POLLIN, timeout_ms);

    loader_add(&l->waited_ns, (uint64_t)(clock_now_ns() - start));
    return ret;
}

int loader_wait(struct loader *l, int timeout_ms)
{
    if (l->receiver_count) { /* what it waits for here are few bytes, and there may be other news */
        struct channel_ready ready;
        int ret = channel_wait_any(NULL, &l->channel, 1, l->wake_fd, timeout_ms, &ready);
        return ret == 0 ? (ready.channel[0] ? 1 : -ECANCELED) : ret == -ETIMEDOUT ? 0 : ret;
    }
    int64_t start = clock_now_ns();
    int ret = channel_wait(l->channel, POLLIN, timeout_ms);

    loader_add(&l->waited_ns, (uint64_t)(clock_now_ns() - start));
    return ret;
}

/* As channel_read_all(), but it knows how long there was nothing to read. begun: these are not the first bytes of something,
 * for which there is no limit. */
static int read_all(struct loader *l, struct channel *channel, bool begun, void *out, size_t bytes, struct err *err)
{
    size_t done = 0;

    while (done < bytes) {
        ssize_t got = channel_read(channel, (uint8_t *)out + done, bytes - done);
        int waited = got == -EAGAIN ? wait_for_bytes(l, channel, begun || done ? l->silence_ms : -1) : 1;
        if (waited == 0) {
            return err_set(err, -ETIMEDOUT, "%s: nothing came for %d ms in the middle of a frame", channel->name,
                           l->silence_ms);
        }
        if (got > 0) {
            done += (size_t)got;
        } else if (got != -EAGAIN || waited < 0) {
            /* Its end, or a failure, and it stays so: this has the words for all of them. */
            return channel_read_all(channel, (uint8_t *)out + done, bytes - done, -1, err);
        }
    }
    return 0;
}

/* Head and payload into a chunk, each length checked before it is used. */
static int read_frame(struct loader *l, struct channel *channel, struct chunk *chunk, uint32_t section_id,
                      uint32_t round, struct err *err)
{
    int ret = read_all(l, channel, true, chunk_head(chunk), FRAME_HEAD_BYTES, err);

    if (ret == 0) {
        ret = frame_get(chunk_head(chunk), &chunk->frame, err);
    }
    if (ret == 0 && chunk->frame.round != round) {
        ret = err_set(err, -EPROTO, "a frame of round %" PRIu32 " came in round %" PRIu32, chunk->frame.round, round);
    }
    chunk->source = source_of(l, section_id);
    if (ret == 0 && !chunk->source) {
        ret = err_set(err, -EPROTO, "a frame came under section %" PRIu32 ", which is no source", section_id);
    }
    if (ret == 0 && chunk->frame.kind != FRAME_MARK) {
        ret = frame_check(&chunk->frame, chunk->source, err);
    }
    if (ret == 0 && chunk->frame.payload_bytes) {
        ret = read_all(l, channel, true, chunk_payload(chunk), chunk->frame.payload_bytes, err);
    }
    return ret;
}

/* --- chunks -------------------------------------------------------------------------------------------- */

/* The chunk is a worker's then; with an error it still is the caller's. */
static int hand_in(struct loader *l, struct chunk *chunk, struct err *err)
{
    struct fault *fault = &l->fault;
    uint64_t word = chunk->frame.first_unit / CHUNK_UNITS;
    uint64_t bit = UINT64_C(1) << word % 64;

    /* Relaxed: one bit, one winner; rounds are divided by the lock below. */
    if (atomic_fetch_or_explicit(&l->states[chunk->source->id - 1].seen[word / 64], bit, memory_order_relaxed) & bit) {
        return err_set(err, -EPROTO, "%s: the chunk at unit %" PRIu64 " came twice in round %" PRIu32,
                       chunk->source->name, chunk->frame.first_unit, chunk->frame.round);
    }
    lock(&fault->lock);
    while (l->resting && !fault->err.code) {
        cond_wait(&fault->cond, &fault->lock);
    }
    loader_add(&l->outstanding, 1);
    loader_add(&l->round_frames, 1);
    unlock(&fault->lock);
    if (!queue_push(&l->queue, chunk)) {
        atomic_fetch_sub_explicit(&l->outstanding, 1, memory_order_relaxed);
        pool_give(&l->pool, chunk);
    }
    return 0;
}

/* --- rounds -------------------------------------------------------------------------------------------- */

static int read_mark(struct loader *l, struct chunk *chunk, uint32_t section_id, struct frame_counts *told,
                     struct err *err)
{
    int ret = frame_verify(chunk_head(chunk), section_id, chunk_payload(chunk), err);

    if (ret == 0 && section_id != l->sources[0]->id) {
        ret = err_set(err, -EPROTO, "an end-of-round mark came under section %" PRIu32, section_id);
    }
    if (ret == 0 && chunk->frame.round > LOADER_ROUNDS_MAX) {
        ret = err_set(err, -EDQUOT, "round %" PRIu32 " ends, the limit is %d", chunk->frame.round, LOADER_ROUNDS_MAX);
    }
    if (ret == 0) {
        ret = frame_mark_get(chunk_payload(chunk), chunk->frame.payload_bytes, l->sources, l->source_count, told, err);
    }
    if (ret == 0) {
        loader_add(&l->wire_bytes, chunk->frame.payload_bytes + FRAME_AROUND_BYTES);
    }
    return ret;
}

static int compare_counts(struct loader *l, uint32_t round, const struct frame_counts *told,
                          const struct frame_counts *came, struct err *err)
{
    for (unsigned i = 0; i < l->source_count; i++) {
        if (told[i].data != came[i].data || told[i].zero != came[i].zero) {
            return err_set(err, -EPROTO,
                           "round %" PRIu32 " of %s should have had %" PRIu64 " data and %" PRIu64
                           " zero units, and %" PRIu64 " and %" PRIu64 " came",
                           round, l->sources[i]->name, told[i].data, told[i].zero, came[i].data, came[i].zero);
        }
    }
    return 0;
}

/* Everything of the marked round is stored, and nothing else was taken in. */
static int close_round(struct loader *l, struct err *err)
{
    struct frame_counts came[PIPELINE_SOURCES_MAX] = { { 0 } };

    for (unsigned i = 0; i < l->source_count; i++) {
        struct source_state *state = &l->states[i];
        came[i] = (struct frame_counts){ loader_get(&state->round_data), loader_get(&state->round_zero) };
    }
    int ret = compare_counts(l, l->rounds + 1, l->told, came, err);
    if (ret < 0) {
        return ret;
    }
    for (unsigned i = 0; i < l->source_count; i++) {
        struct source_state *state = &l->states[i];
        atomic_store_explicit(&state->round_data, 0, memory_order_relaxed);
        atomic_store_explicit(&state->round_zero, 0, memory_order_relaxed);
        for (uint64_t word = 0; word < (l->sources[i]->words + 63) / 64; word++) {
            atomic_store_explicit(&state->seen[word], 0, memory_order_relaxed);
        }
    }
    atomic_store_explicit(&l->round_frames, 0, memory_order_relaxed);
    l->marked = false;
    lock(&l->fault.lock);
    l->rounds++;
    cond_broadcast(&l->fault.cond);
    unlock(&l->fault.lock);
    loader_add(&l->rounds_done, 1);
    return 0;
}

/* With the lock held. */
static bool round_is_stored(const struct loader *l)
{
    for (unsigned i = 0; i < l->receiver_count; i++) {
        if (l->receivers[i].ended <= l->rounds) {
            return false;
        }
    }
    return atomic_load_explicit(&l->outstanding, memory_order_acquire) == 0;
}

int loader_round_wait(struct loader *l, int timeout_ms, bool *closed, struct err *err)
{
    struct fault *fault = &l->fault;
    struct err local = { 0 };
    int64_t until_ns = timeout_ms < 0 ? INT64_MAX : clock_now_ns() + (int64_t)timeout_ms * NS_PER_MS;
    bool in_time = true;

    *closed = !l->marked;
    lock(&fault->lock);
    while (!fault->err.code && l->marked && !round_is_stored(l) && in_time) {
        in_time = cond_wait_until(&fault->cond, &fault->lock, until_ns);
    }
    bool stored = l->marked && !fault->err.code && round_is_stored(l);
    unlock(&fault->lock);
    if (stored) {
        int ret = close_round(l, &local);
        *closed = ret == 0;
        if (ret < 0) {
            loader_end_all(l, ret, local.text);
        }
    }
    return fault_get(fault, err);
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

int loader_rest(struct loader *l, bool rest, struct err *err)
{
    lock(&l->fault.lock);
    l->resting = rest;
    uint64_t frames = loader_get(&l->round_frames);
    uint32_t rounds = l->rounds;
    cond_broadcast(&l->fault.cond);
    unlock(&l->fault.lock);
    if (rest && frames) {
        return err_set(err, -EPROTO, "%" PRIu64 " frames of round %" PRIu32 " came, and nothing ended it", frames,
                       rounds + 1);
    }
    return rest ? loader_barrier(l, err) : fault_get(&l->fault, err);
}

/* --- the main channel ---------------------------------------------------------------------------------- */

int loader_frame(struct loader *l, uint32_t section_id, bool *mark, struct err *err)
{
    struct err local = { 0 };
    struct chunk *chunk = pool_take(&l->pool);

    *mark = false;
    if (!chunk || fault_failed(&l->fault)) {
        pool_give(&l->pool, chunk);
        return fault_get(&l->fault, err);
    }
    int ret = read_frame(l, l->channel, chunk, section_id, l->rounds + 1, &local);
    if (ret == 0 && chunk->frame.kind != FRAME_MARK && l->receiver_count) {
        ret = err_set(&local, -EPROTO, "a chunk came over the main channel of a migration with %u data channels",
                      l->receiver_count);
    } else if (ret == 0 && chunk->frame.kind != FRAME_MARK) {
        ret = hand_in(l, chunk, &local);
        chunk = ret < 0 ? chunk : NULL;
    } else if (ret == 0) {
        ret = read_mark(l, chunk, section_id, l->told, &local);
        *mark = l->marked = ret == 0;
    }
    pool_give(&l->pool, chunk);
    if (ret < 0) {
        loader_end_all(l, ret, local.text); /* one that came first stays the answer */
    }
    if (*mark && !l->receiver_count) {
        bool closed;
        return loader_round_wait(l, -1, &closed, err);
    }
    return fault_get(&l->fault, err);
}

/* --- data channels ------------------------------------------------------------------------------------- */

/* Everything of this round that comes over this channel has been handed in. What follows belongs to the next one, and stays
 * where it is until that begins: a unit of two rounds must not be stored in the wrong order. */
static void end_round(struct receiver *r)
{
    struct loader *l = r->loader;

    memset(r->carried, 0, sizeof(r->carried));
    lock(&l->fault.lock);
    r->ended++;
    cond_broadcast(&l->fault.cond);
    while (l->rounds < r->ended && !l->fault.err.code) {
        cond_wait(&l->fault.cond, &l->fault.lock);
    }
    unlock(&l->fault.lock);
}

static int take_mark(struct receiver *r, struct chunk *chunk, uint32_t section_id, struct err *err)
{
    struct frame_counts told[PIPELINE_SOURCES_MAX] = { { 0 } };
    int ret = read_mark(r->loader, chunk, section_id, told, err);

    return ret < 0 ? ret : compare_counts(r->loader, r->ended + 1, told, r->carried, err);
}

static int take_chunk(struct receiver *r, struct chunk *chunk, struct err *err)
{
    struct frame_counts *carried = &r->carried[chunk->source->id - 1];

    carried->data += (uint64_t)__builtin_popcountll(chunk->frame.data);
    carried->zero += (uint64_t)__builtin_popcountll(chunk->frame.zero);
    return hand_in(r->loader, chunk, err);
}

static int read_footer(struct receiver *r, uint32_t section_id, struct err *err)
{
    uint8_t footer[FRAME_FOOTER_BYTES];
    int ret = read_all(r->loader, r->channel, true, footer, sizeof(footer), err);

    if (ret == 0 && (footer[0] != FRAME_SECTION_FOOTER || be32_get(footer + 1) != section_id)) {
        ret = err_set(err, -EPROTO, "section %" PRIu32 ": wrong footer", section_id);
    }
    return ret;
}

static int receive_frame(struct receiver *r, struct err *err)
{
    struct loader *l = r->loader;
    uint8_t prefix[FRAME_PREFIX_BYTES];
    int ret = read_all(l, r->channel, false, prefix, sizeof(prefix), err);

    if (ret == 0 && prefix[0] != FRAME_SECTION_PART) {
        ret = err_set(err, -EPROTO, "element 0x%02x where a frame must stand", prefix[0]);
    }
    if (ret < 0) {
        return ret;
    }
    uint32_t section_id = be32_get(prefix + 1);
    struct chunk *chunk = pool_take(&l->pool);
    if (!chunk) {
        return err_set(err, -ECANCELED, "the load has ended"); /* which is not the first error */
    }
    ret = read_frame(l, r->channel, chunk, section_id, r->ended + 1, err);
    ret = ret < 0 ? ret : read_footer(r, section_id, err);
    if (ret == 0 && chunk->frame.kind != FRAME_MARK) {
        ret = take_chunk(r, chunk, err);
        chunk = ret < 0 ? chunk : NULL;
    } else if (ret == 0) {
        ret = take_mark(r, chunk, section_id, err);
        pool_give(&l->pool, chunk);
        chunk = NULL;
        if (ret == 0) {
            end_round(r);
        }
    }
    pool_give(&l->pool, chunk);
    return ret;
}

static void receive_run(void *opaque)
{
    struct receiver *r = opaque;
    struct err err = { 0 };

    while (!fault_failed(&r->loader->fault)) {
        int ret = receive_frame(r, &err);
        if (ret < 0) {
            char why[ERR_TEXT_MAX];
            bool cut = ret == -EPIPE || ret == -ECONNRESET; /* this line, and perhaps not the one that words go over */
            snprintf(why, sizeof(why), "data channel %u: %.*s", r->index, ERR_TEXT_MAX - 32, err.text);
            loader_end_all(r->loader, cut ? -ENOLINK : ret, why);
        }
    }
}

int loader_receive(struct loader *l, struct err *err)
{
    int ret = 0;

    for (unsigned i = 0; ret == 0 && i < l->receiver_count; i++) {
        char name[16];
        snprintf(name, sizeof(name), "receive/%u", l->receivers[i].index);
        ret = thread_start(&l->receivers[i].thread, name, receive_run, &l->receivers[i], err);
    }
    return ret;
}

void loader_join_receivers(struct loader *l)
{
    for (unsigned i = 0; l->receivers && i < l->receiver_count; i++) {
        channel_shutdown(l->receivers[i].channel);
    }
    for (unsigned i = 0; l->receivers && i < l->receiver_count; i++) {
        thread_join(&l->receivers[i].thread);
    }
}
