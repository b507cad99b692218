#include "migration/channels.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"

/* Who has not said who he is: so many at a time, and for so long. */
enum { KNOCKS_MAX = PIPELINE_CHANNELS_MAX + 4, KNOCK_MS = 1000, HELLO_BYTES = 8 };
enum { WORD_BYTES_MAX = MESSAGE_HEAD_BYTES + HELLO_BYTES + CHANNEL_TLS_TAG_BYTES + 8 };
_Static_assert(1 + KNOCKS_MAX <= CHANNELS_MAX, "they are waited for together");

int channels_wanted(struct migration_params *params, const char *uri, struct err *err)
{
    uint64_t count = atomic_load_explicit(&params->channels, memory_order_relaxed);
    if (atomic_load_explicit(&params->capability_multifd, memory_order_relaxed) && count < 2)
        count = 2;
    if (count < 2)
        return 0;
    if (strncmp(uri, "tcp:", 4) != 0 && strncmp(uri, "unix:", 5) != 0)
        return err_set(err, -EINVAL,
                       "%llu channels: '%.128s' is one connection, only tcp: and unix: can be called again",
                       (unsigned long long)count, uri);
    return (int)count;
}

void channels_close(struct channels *channels)
{
    for (unsigned i = 0; i < PIPELINE_CHANNELS_MAX; i++)
        channel_close(channels->data[i]);
    *channels = (struct channels){ 0 };
}

static int say(struct lines *lines, struct channel *channel, const struct message_key *key, unsigned number,
               unsigned count, int timeout_ms, struct err *err)
{
    uint8_t payload[HELLO_BYTES];
    struct buf out = { 0 };
    be32_put(payload, number);
    be32_put(payload + 4, count);
    lines_put(lines, channel, &out, MESSAGE_CHANNEL, key, payload, sizeof(payload));
    int rc = channel_write_all(channel, out.data, out.size, timeout_ms, err);
    buf_free(&out);
    return rc;
}

static int left_ms(int64_t until_ns)
{
    int64_t left_ns = until_ns - clock_now_ns();
    return left_ns <= 0 ? 0 : (int)((left_ns + NS_PER_MS - 1) / NS_PER_MS);
}

/* --- the source ------------------------------------------------------------------------------------------------ */

/* The answer on `channel`, or what the main one says instead. */
static int read_answer(struct lines *lines, struct channel *main, struct channel *channel, unsigned number,
                       int abort_fd, int patience_ms, struct message *message, struct err *err)
{
    struct channel *const both[] = { main, channel };
    struct channel_ready ready;
    int rc = channel_wait_any(NULL, both, 2, abort_fd, patience_ms, &ready);
    if (rc < 0)
        return err_set_errno(err, rc, "data channel %u: no answer from the destination", number);
    if (ready.abort)
        return err_set(err, -ECANCELED, "migration cancelled");
    rc = message_read(ready.channel[1] ? channel : main, false, message, patience_ms, err);
    if (rc < 0)
        return err_prefix(err, "data channel %u: no answer from the destination", number);
    if (message->type == MESSAGE_REFUSAL || message->type == MESSAGE_ERROR) {
        char sentence[MESSAGE_SENTENCE_MAX + 1];
        message_sentence(message, sentence, sizeof(sentence));
        return err_set(err, -EREMOTEIO, "the destination refuses: %s", sentence);
    }
    if (message->type != MESSAGE_CHANNEL || !ready.channel[1])
        return err_set(err, -EPROTO, "data channel %u: the destination answers with message type %u", number,
                       message->type);
    if (!lines_check(lines, channel, message))
        return err_set(err, -EACCES, "data channel %u ends somewhere else than the main one", number);
    return 0;
}

int channels_connect(struct lines *lines, const char *uri, struct channel *main, int abort_fd,
                     const struct message_key *key, unsigned count, int patience_ms, struct channels *out,
                     struct err *err)
{
    struct message *message = malloc(sizeof(*message));
    int rc = 0;
    assert(message && count <= PIPELINE_CHANNELS_MAX);
    for (unsigned i = 0; rc == 0 && i < count; i++) {
        rc = lines_connect(lines, uri, abort_fd, patience_ms, &out->data[i], err);
        if (rc == 0)
            rc = say(lines, out->data[i], key, i + 1, count, patience_ms, err);
        if (rc < 0)
            err_prefix(err, "data channel %u of %u", i + 1, count);
    }
    for (unsigned i = 0; rc == 0 && i < count; i++)
        rc = read_answer(lines, main, out->data[i], i + 1, abort_fd, patience_ms, message, err);
    out->count = rc == 0 ? count : 0;
    free(message);
    return rc;
}

/* --- the destination --------------------------------------------------------------------------------------------- */

/* What somebody has said so far. It is read as it comes: nobody is waited for in the middle of a word. */
struct word {
    struct channel channel; /* reads it again, as a message */
    uint8_t data[WORD_BYTES_MAX];
    size_t have, at;
};

static ssize_t word_read(struct channel *channel, void *out, size_t bytes)
{
    struct word *word = (struct word *)channel;
    bytes = bytes < word->have - word->at ? bytes : word->have - word->at;
    memcpy(out, word->data + word->at, bytes);
    word->at += bytes;
    return (ssize_t)bytes;
}

static const struct channel_ops word_ops = { .read = word_read };

struct gathering {
    struct lines *calls; /* how they call */
    struct channel_listener *listener;
    struct channel *lines[1 + KNOCKS_MAX]; /* the main channel, and those that have not said who they are; NULL: free */
    int64_t until_ns[1 + KNOCKS_MAX];
    struct word word[1 + KNOCKS_MAX];
    int abort_fd;
    const struct message_key *key;
    unsigned count, come, hello_bytes;
    struct channels *out;
    struct message *message;
    struct err refused; /* the last one that was sent away, and why */
};

static void send_away(struct gathering *g, unsigned at, const char *why)
{
    struct buf out = { 0 };
    struct message_key key = g->message->key; /* its own: it is not told ours */
    err_clear(&g->refused);
    err_set(&g->refused, -EPROTO, "%s", why);
    message_put_sentence(&out, MESSAGE_REFUSAL, &key, why);
    channel_write_all(g->lines[at], out.data, out.size, KNOCK_MS, NULL);
    buf_free(&out);
    channel_close(g->lines[at]);
    g->lines[at] = NULL;
}

/* A message of another length is none of ours: its head is all that there is to be read. */
static bool is_other_word(struct gathering *g, struct word *word)
{
    if (word->have < MESSAGE_HEAD_BYTES || be32_get(word->data) != MESSAGE_MAGIC ||
        be32_get(word->data + 8) == g->hello_bytes)
        return false;
    g->message->key.attempt = be32_get(word->data + 12);
    memcpy(g->message->key.id, word->data + 16, MESSAGE_ID_BYTES);
    return true;
}

/* Somebody says who he is, or some of it. */
static void meet(struct gathering *g, unsigned at)
{
    char why[128];
    struct message *message = g->message;
    struct word *word = &g->word[at];
    size_t bytes = MESSAGE_HEAD_BYTES + g->hello_bytes + 8;
    ssize_t got = channel_read(g->lines[at], word->data + word->have, bytes - word->have);
    word->have += got > 0 ? (size_t)got : 0;
    if (got == -EAGAIN || (got > 0 && word->have < bytes && !is_other_word(g, word)))
        return; /* its second is not over */
    if (got > 0 && is_other_word(g, word)) {
        uint8_t rest[4096]; /* closing with unread bytes would take the sentence away from under its eyes */
        for (unsigned i = 0; i < MESSAGE_PAYLOAD_MAX / sizeof(rest) && got > 0; i++)
            got = channel_read(g->lines[at], rest, sizeof(rest));
        send_away(g, at, "it waits for the data channels of another migration");
        return;
    }
    if (got <= 0 || message_read(&word->channel, false, message, 0, NULL) < 0) {
        channel_close(g->lines[at]);
        g->lines[at] = NULL;
        return;
    }
    bool genuine = lines_check(g->calls, g->lines[at], message);
    struct reader in = reader_of(message->payload, message->bytes);
    uint32_t number = reader_be32(&in), count = reader_be32(&in);
    if (message->type != MESSAGE_CHANNEL || !message_key_equal(&message->key, g->key) || !genuine) {
        send_away(g, at, "it waits for the data channels of another migration");
        return;
    }
    if (in.failed || in.at != in.size || count != g->count || number < 1 || number > g->count) {
        snprintf(why, sizeof(why), "data channel %u of %u: there are to be %u", number, count, g->count);
        send_away(g, at, why);
        return;
    }
    if (g->out->data[number - 1]) {
        snprintf(why, sizeof(why), "data channel %u of %u came twice", number, count);
        send_away(g, at, why);
        return;
    }
    if (say(g->calls, g->lines[at], g->key, number, count, KNOCK_MS, NULL) < 0) {
        channel_close(g->lines[at]);
    } else {
        g->out->data[number - 1] = g->lines[at];
        g->come++;
    }
    g->lines[at] = NULL;
}

/* Whoever has knocked longest makes room: others may be waiting behind a crowd that says nothing. */
static void let_in(struct gathering *g)
{
    unsigned at = 1;
    for (unsigned i = 1; i <= KNOCKS_MAX && g->lines[at]; i++)
        if (!g->lines[i] || g->until_ns[i] < g->until_ns[at])
            at = i;
    channel_close(g->lines[at]);
    g->lines[at] = NULL;
    g->word[at] = (struct word){ .channel = { .ops = &word_ops, .can_read = true, .name = "a knock" } };
    if (lines_accept(g->calls, g->listener, g->abort_fd, &g->lines[at], NULL) == 0)
        g->until_ns[at] = clock_now_ns() + KNOCK_MS * NS_PER_MS;
}

/* One look at everybody: 0, or -errno when it cannot succeed any more. */
static int look(struct gathering *g, int64_t until_ns, struct err *err)
{
    int64_t wake_ns = until_ns, now_ns = clock_now_ns();
    for (unsigned i = 1; i <= KNOCKS_MAX; i++) {
        if (g->lines[i] && g->until_ns[i] <= now_ns) {
            channel_close(g->lines[i]);
            g->lines[i] = NULL;
        }
        if (g->lines[i] && g->until_ns[i] < wake_ns)
            wake_ns = g->until_ns[i];
    }
    struct channel_ready ready;
    int rc = channel_wait_any(g->listener, g->lines, 1 + KNOCKS_MAX, g->abort_fd, left_ms(wake_ns), &ready);
    if (rc == -ETIMEDOUT && clock_now_ns() < until_ns)
        return 0;
    if (rc == 0 && now_ns >= until_ns)
        rc = -ETIMEDOUT; /* strangers who come and go do not make it longer */
    if (rc < 0)
        return err_set(err, rc, "%u of %u data channels came%s%s", g->come, g->count,
                       g->refused.code ? "; the last that was refused: " : "", g->refused.text);
    if (ready.abort)
        return err_set(err, -ECANCELED, "migration cancelled");
    if (ready.channel[0]) /* it has nothing to say before it has its answers */
        return err_set(err, -EPIPE, "%s: the source went when %u of %u data channels had come", g->lines[0]->name,
                       g->come, g->count);
    for (unsigned i = 1; i <= KNOCKS_MAX; i++)
        if (ready.channel[i])
            meet(g, i);
    if (ready.peer)
        let_in(g);
    return 0;
}

int channels_gather(struct lines *lines, struct channel_listener *listener, struct channel *main, int abort_fd,
                    const struct message_key *key, unsigned count, int patience_ms, struct channels *out,
                    struct err *err)
{
    struct gathering g = {
        .calls = lines,
        .listener = listener,
        .lines = { main },
        .abort_fd = abort_fd,
        .key = key,
        .count = count,
        .hello_bytes = HELLO_BYTES + lines_tag_bytes(lines),
        .out = out,
        .message = calloc(1, sizeof(*g.message)),
    };
    int64_t until_ns = clock_now_ns() + (int64_t)patience_ms * NS_PER_MS;
    int rc = 0;
    assert(g.message && count <= PIPELINE_CHANNELS_MAX);
    while (rc == 0 && g.come < count)
        rc = look(&g, until_ns, err);
    for (unsigned i = 1; i <= KNOCKS_MAX; i++)
        channel_close(g.lines[i]);
    out->count = rc == 0 ? count : 0;
    free(g.message);
    return rc;
}
