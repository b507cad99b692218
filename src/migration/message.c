#include "migration/message.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

bool message_key_equal(const struct message_key *a, const struct message_key *b)
{
    return a->attempt == b->attempt && memcmp(a->id, b->id, MESSAGE_ID_BYTES) == 0;
}

/* The payload's hash, seeded with the head's. */
static uint64_t message_sum(const uint8_t head[MESSAGE_HEAD_BYTES], const void *payload, size_t bytes)
{
    return XXH3_64bits_withSeed(payload, bytes, XXH3_64bits(head, MESSAGE_HEAD_BYTES));
}

void message_put(struct buf *out, enum message_type type, const struct message_key *key, const void *payload,
                 uint32_t bytes)
{
    assert(bytes <= MESSAGE_PAYLOAD_MAX);
    size_t start = out->size;
    buf_put_be32(out, MESSAGE_MAGIC);
    buf_put_be16(out, (uint16_t)type);
    buf_put_be16(out, 0);
    buf_put_be32(out, bytes);
    buf_put_be32(out, key->attempt);
    buf_put(out, key->id, MESSAGE_ID_BYTES);
    if (bytes)
        buf_put(out, payload, bytes);
    const uint8_t *head = out->data + start;
    buf_put_be64(out, message_sum(head, head + MESSAGE_HEAD_BYTES, bytes));
}

void message_put_sentence(struct buf *out, enum message_type type, const struct message_key *key, const char *sentence)
{
    message_put(out, type, key, sentence, (uint32_t)strnlen(sentence, MESSAGE_SENTENCE_MAX));
}

int message_read(struct channel *channel, bool magic_seen, struct message *out, int timeout_ms, struct err *err)
{
    uint8_t head[MESSAGE_HEAD_BYTES];
    be32_put(head, MESSAGE_MAGIC);
    size_t have = magic_seen ? 4 : 0;
    int rc = channel_read_all(channel, head + have, sizeof(head) - have, timeout_ms, err);
    if (rc < 0)
        return rc;
    if (be32_get(head) >> 16 == 0x1503) /* an alert record, RFC 8446 section 5.1 */
        return err_set(err, -EPROTO, "%s: the peer speaks TLS, and tls-creds is not set here", channel->name);
    if (be32_get(head) != MESSAGE_MAGIC)
        return err_set(err, -EPROTO, "%s: a message begins with 0x%08x: no godwit answers there", channel->name,
                       be32_get(head));
    out->type = be16_get(head + 4);
    out->bytes = be32_get(head + 8);
    out->key.attempt = be32_get(head + 12);
    memcpy(out->key.id, head + 16, MESSAGE_ID_BYTES);
    if (out->bytes > MESSAGE_PAYLOAD_MAX)
        return err_set(err, -EPROTO, "%s: message type %u: payload of %u bytes is beyond the limit of %d",
                       channel->name, out->type, out->bytes, MESSAGE_PAYLOAD_MAX);

    uint8_t sum[8];
    rc = channel_read_all(channel, out->payload, out->bytes, timeout_ms, err);
    if (rc == 0)
        rc = channel_read_all(channel, sum, sizeof(sum), timeout_ms, err);
    if (rc < 0)
        return rc;
    if (message_sum(head, out->payload, out->bytes) != be64_get(sum))
        return err_set(err, -EPROTO, "%s: message type %u: wrong checksum", channel->name, out->type);
    return 0;
}

void message_sentence(const struct message *message, char *out, size_t out_size)
{
    size_t bytes = message->bytes < MESSAGE_SENTENCE_MAX ? message->bytes : MESSAGE_SENTENCE_MAX;
    err_printable(message->payload, bytes, out, out_size);
}

void message_loaded_encode(const struct message_loaded *loaded, uint8_t out[MESSAGE_LOADED_BYTES])
{
    be64_put(out, loaded->units);
    be64_put(out + 8, loaded->wire_bytes);
    be64_put(out + 16, loaded->rounds);
    be64_put(out + 24, loaded->now_ns);
    be64_put(out + 32, loaded->waited_ns);
}

int message_loaded_decode(const struct message *message, struct message_loaded *out)
{
    struct reader in = reader_of(message->payload, message->bytes);
    out->units = reader_be64(&in);
    out->wire_bytes = reader_be64(&in);
    out->rounds = reader_be64(&in);
    out->now_ns = reader_be64(&in);
    out->waited_ns = in.size == MESSAGE_LOADED_BYTES_SHORT ? MESSAGE_UNTOLD : reader_be64(&in);
    return in.failed || in.at != in.size ? -EPROTO : 0;
}

void message_verify_encode(const struct verify_ranges *ranges, struct buf *out)
{
    buf_put_be32(out, ranges->source);
    buf_put_be64(out, ranges->first);
    buf_put_be32(out, ranges->step);
    buf_put_be32(out, ranges->count);
}

static void read_ranges(struct reader *in, struct verify_ranges *out)
{
    out->source = reader_be32(in);
    out->first = reader_be64(in);
    out->step = reader_be32(in);
    out->count = reader_be32(in);
}

int message_verify_decode(const struct message *message, struct verify_ranges *out)
{
    struct reader in = reader_of(message->payload, message->bytes);
    read_ranges(&in, out);
    return in.failed || in.at != in.size ? -EPROTO : 0;
}

void message_verified_encode(const struct verify_ranges *ranges, const struct unit_hash *hash, unsigned hashes,
                             struct buf *out)
{
    _Static_assert(VERIFY_HASHES_MAX * sizeof(*hash) + 64 <= MESSAGE_PAYLOAD_MAX, "an answer is one message");
    message_verify_encode(ranges, out);
    for (unsigned i = 0; i < hashes; i++) {
        buf_put_be64(out, hash[i].word[0]);
        buf_put_be64(out, hash[i].word[1]);
    }
}

int message_verified_decode(const struct message *message, struct verify_ranges *out, struct unit_hash *hash)
{
    struct reader in = reader_of(message->payload, message->bytes);
    read_ranges(&in, out);
    size_t hashes = in.failed ? 0 : (in.size - in.at) / sizeof(*hash);
    if (hashes > VERIFY_HASHES_MAX)
        return -EPROTO;
    for (size_t i = 0; i < hashes; i++) {
        hash[i].word[0] = reader_be64(&in);
        hash[i].word[1] = reader_be64(&in);
    }
    return in.failed || in.at != in.size ? -EPROTO : (int)hashes;
}
