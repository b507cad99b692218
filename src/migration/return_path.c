#include "migration/return_path.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

enum { TRAIN_NS_MIN = 5 * 1000000, TRAIN_BYTES_MIN = 65536 };

static void hear_loaded(struct return_path *path, const struct message_loaded *loaded)
{
    uint64_t bytes = loaded->wire_bytes - path->train.wire_bytes;
    uint64_t elapsed = loaded->now_ns - path->train.now_ns;
    if (path->train.now_ns == 0 || loaded->now_ns < path->train.now_ns || loaded->wire_bytes < path->train.wire_bytes) {
        path->train = *loaded;
    } else if (elapsed >= TRAIN_NS_MIN) {
        double rate = (double)bytes * 1e9 / (double)elapsed;
        if (bytes >= TRAIN_BYTES_MIN && rate > path->burst_bytes_per_s)
            path->burst_bytes_per_s = rate;
        double weight = elapsed > UINT64_C(1000000000) ? 1.0 : (double)elapsed / 1e9;
        path->loaded_bytes_per_s += weight * (rate - path->loaded_bytes_per_s);
        if (loaded->waited_ns != MESSAGE_UNTOLD && loaded->waited_ns >= path->train.waited_ns) {
            uint64_t waited = loaded->waited_ns - path->train.waited_ns;
            /* Relaxed: a number, nothing behind it. */
            atomic_store_explicit(&path->peer_waits_permille,
                                  waited < elapsed ? (int32_t)((double)waited * 1000 / (double)elapsed) : 1000,
                                  memory_order_relaxed);
        }
        path->train = *loaded;
    }
    path->loaded = *loaded;
}

static int hear_prepared(struct return_path *path, const struct message *message)
{
    struct reader in = reader_of(message->payload, message->bytes);
    uint32_t count = reader_be32(&in);
    if (count > PIPELINE_SOURCES_MAX)
        return -EPROTO;
    for (uint32_t i = 0; i < count; i++) {
        path->digest[i].id = reader_be32(&in);
        path->digest[i].digest[0] = reader_be64(&in);
        path->digest[i].digest[1] = reader_be64(&in);
    }
    path->devices_told = in.at < in.size;
    path->devices[0] = path->devices_told ? reader_be64(&in) : 0;
    path->devices[1] = path->devices_told ? reader_be64(&in) : 0;
    if (in.failed)
        return -EPROTO;
    path->digests = count;
    path->prepared_ns = clock_now_ns();
    path->heard |= HEARD_PREPARED;
    return 0;
}

static int hear_verified(struct return_path *path, const struct message *message)
{
    if (path->heard & HEARD_VERIFIED) /* somebody may be reading the one that was asked for */
        return 0;
    int hashes = message_verified_decode(message, &path->verified.ranges, path->verified.hash);
    if (hashes < 0)
        return hashes;
    path->verified.hashes = (unsigned)hashes;
    path->heard |= HEARD_VERIFIED;
    return 0;
}

static int hear_running(struct return_path *path, const struct message *message)
{
    struct reader in = reader_of(message->payload, message->bytes);
    path->start_ns = reader_be64(&in);
    path->runs = reader_u8(&in);
    if (in.failed)
        return -EPROTO;
    path->running_ns = clock_now_ns();
    path->heard |= HEARD_RUNNING;
    return 0;
}

/* One that makes no sense is none: the guest is there, and a figure less is no reason to doubt it. */
static void hear_result(struct return_path *path, const struct message *message)
{
    struct reader in = reader_of(message->payload, message->bytes);
    if (path->heard & HEARD_RUNNING && report_arrival_decode(&in, &path->arrival) == 0)
        path->heard |= HEARD_RESULT;
}

static void hear_synced(struct return_path *path, const struct message *message)
{
    struct reader in = reader_of(message->payload, message->bytes);
    uint64_t sync_ns = reader_be64(&in);
    if (!in.failed && sync_ns <= INT64_MAX)
        path->sync_ns = (int64_t)sync_ns;
}

static void hear_sentence(struct return_path *path, const struct message *message, enum heard what, const char *who)
{
    char text[MESSAGE_SENTENCE_MAX + 1];
    message_sentence(message, text, sizeof(text));
    path->heard |= what;
    err_clear(&path->why);
    err_set(&path->why, -EREMOTEIO, "%s: %s", who, text);
}

/* One message of this attempt; called with the lock held. */
static int hear(struct return_path *path, const struct message *message)
{
    struct message_loaded loaded;
    switch (message->type) {
    case MESSAGE_LOADED:
        if (message_loaded_decode(message, &loaded) < 0)
            return -EPROTO;
        hear_loaded(path, &loaded);
        return 0;
    case MESSAGE_PREPARED: return hear_prepared(path, message);
    case MESSAGE_RUNNING: return hear_running(path, message);
    case MESSAGE_SYNCED: hear_synced(path, message); return 0;
    case MESSAGE_RESULT: hear_result(path, message); return 0;
    case MESSAGE_VERIFIED: return hear_verified(path, message);
    case MESSAGE_RETRACTED: path->heard |= HEARD_RETRACTED; return 0;
    case MESSAGE_REFUSED: hear_sentence(path, message, HEARD_REFUSED, "the destination does not start it"); return 0;
    case MESSAGE_REFUSAL:
    case MESSAGE_ERROR: hear_sentence(path, message, HEARD_ERROR, "the destination"); return 0;
    default: return 0; /* a newer peer may say more than we know */
    }
}

static void listen_on(void *opaque)
{
    struct return_path *path = opaque;
    struct message *message = malloc(sizeof(*message));
    assert(message);
    for (bool open = true; open;) {
        struct err err = { 0 };
        int rc = message_read(path->channel, false, message, -1, &err);
        lock(&path->lock);
        path->heard_ns = clock_now_ns();
        if (rc == 0 && message_key_equal(&message->key, &path->key))
            if (hear(path, message) < 0)
                rc = err_set(&err, -EPROTO, "%s: message type %u makes no sense", path->channel->name, message->type);
        if (rc < 0) {
            /* A sentence that came before the end says more than the end. */
            if (!(path->heard & (HEARD_ERROR | HEARD_REFUSED)))
                path->why = err;
            path->heard |= rc == -EPROTO ? HEARD_ERROR : HEARD_CLOSED;
            open = false;
        }
        bool lost = path->heard & (HEARD_ERROR | HEARD_CLOSED);
        struct err why = path->why;
        cond_broadcast(&path->changed);
        unlock(&path->lock);
        if (lost)
            path->lost(path->opaque, &why);
    }
    free(message);
}

int return_path_start(struct return_path *path, struct channel *channel, const struct message_key *key,
                      void (*lost)(void *opaque, const struct err *why), void *opaque, struct err *err)
{
    memset(path, 0, sizeof(*path));
    path->channel = channel;
    path->key = *key;
    path->lost = lost;
    path->opaque = opaque;
    path->heard_ns = clock_now_ns();
    atomic_init(&path->peer_waits_permille, -1);
    lock_init(&path->lock, LOCK_LEAF);
    cond_init(&path->changed);
    int rc = thread_start(&path->thread, "return", listen_on, path, err);
    if (rc < 0) {
        cond_destroy(&path->changed);
        lock_destroy(&path->lock);
        return rc;
    }
    path->started = true;
    return 0;
}

void return_path_stop(struct return_path *path)
{
    if (!path->started)
        return;
    thread_join(&path->thread);
    cond_destroy(&path->changed);
    lock_destroy(&path->lock);
    path->started = false;
}

void return_path_interrupt(struct return_path *path)
{
    lock(&path->lock);
    path->heard |= HEARD_INTERRUPT;
    cond_broadcast(&path->changed);
    unlock(&path->lock);
}

void return_path_new_attempt(struct return_path *path, uint32_t attempt)
{
    lock(&path->lock);
    path->key.attempt = attempt;
    path->heard &= ~(unsigned)(HEARD_PREPARED | HEARD_RETRACTED | HEARD_VERIFIED);
    unlock(&path->lock);
}

static enum heard heard_of(struct return_path *path, unsigned wanted, uint64_t round)
{
    unsigned heard = path->heard;
    if (path->loaded.rounds >= round)
        heard |= HEARD_ROUND;
    heard &= wanted;
    return heard ? (enum heard)(heard & -heard) : 0; /* the lowest bit is the most important */
}

enum heard return_path_wait(struct return_path *path, unsigned wanted, uint64_t round, int64_t silence_ms,
                            struct err *err)
{
    enum heard heard;
    wanted |= HEARD_ERROR | HEARD_CLOSED | HEARD_INTERRUPT;
    lock(&path->lock);
    int64_t since_ns = clock_now_ns(); /* silence counts from when somebody listens for an answer */
    while ((heard = heard_of(path, wanted, round)) == 0) {
        int64_t from_ns = path->heard_ns > since_ns ? path->heard_ns : since_ns;
        if (silence_ms < 0) {
            cond_wait(&path->changed, &path->lock);
        } else if (!cond_wait_until(&path->changed, &path->lock, from_ns + silence_ms * NS_PER_MS) &&
                   (path->heard_ns > from_ns ? path->heard_ns : from_ns) + silence_ms * NS_PER_MS <= clock_now_ns()) {
            heard = heard_of(path, wanted, round);
            if (!heard)
                heard = HEARD_SILENCE;
            break;
        }
    }
    if (heard == HEARD_INTERRUPT)
        path->heard &= ~(unsigned)HEARD_INTERRUPT;
    if (heard & (HEARD_ERROR | HEARD_REFUSED | HEARD_CLOSED))
        err_set(err, path->why.code, "%s", path->why.text);
    unlock(&path->lock);
    if (heard == HEARD_SILENCE)
        err_set(err, -ETIMEDOUT, "%s: the peer has said nothing for %lld ms", path->channel->name,
                (long long)silence_ms);
    return heard;
}

enum heard return_path_wait_until(struct return_path *path, unsigned wanted, int64_t deadline_ns)
{
    enum heard heard;
    lock(&path->lock);
    while ((heard = heard_of(path, wanted, UINT64_MAX)) == 0)
        if (!cond_wait_until(&path->changed, &path->lock, deadline_ns))
            break;
    unlock(&path->lock);
    return heard;
}
