#include "migration/hello.h"

#include <errno.h>
#include <string.h>

void hello_fill(struct hello *hello, enum hello_role role, const struct machine_config *machine)
{
    memset(hello, 0, sizeof(*hello));
    hello->protocol = HELLO_PROTOCOL;
    hello->role = (uint8_t)role;
    hello->capabilities = HELLO_CAN_LZ4 | HELLO_CAN_ZSTD | HELLO_CAN_RETRACT | HELLO_CAN_RESUME | HELLO_CAN_HEAR_WAITS |
                          HELLO_CAN_CHANNELS | HELLO_CAN_DELTAS | HELLO_CAN_HEAR_RESULT | HELLO_CAN_REHEARSE |
                          HELLO_CAN_PROBE | HELLO_CAN_KEY | HELLO_CAN_VERIFY;
    hello->unit_bytes = PAGE_BYTES;
    hello->channels = 1;
    hello->machine = *machine;
}

void hello_encode(const struct hello *hello, struct buf *out)
{
    buf_put_be16(out, hello->protocol);
    buf_put_u8(out, hello->role);
    buf_put_be64(out, hello->capabilities);
    buf_put_be32(out, hello->unit_bytes);
    buf_put_be32(out, hello->channels);
    struct buf machine = { 0 };
    state_save(&machine_config_state, &hello->machine, &machine);
    buf_put_be32(out, machine_config_state.version);
    buf_put_be32(out, (uint32_t)machine.size);
    buf_put(out, machine.data, machine.size);
    buf_free(&machine);
    if (hello->role == HELLO_SOURCE && hello->capabilities & HELLO_CAN_KEY) {
        buf_put_be32(out, DIGEST_KEY_BYTES);
        buf_put(out, hello->key.secret, DIGEST_KEY_BYTES);
    }
    /* A later protocol appends here; the reader skips what it does not know. */
}

unsigned hello_codecs(const struct hello *hello)
{
    unsigned codecs = 1u << CODEC_RAW;
    if (hello->capabilities & HELLO_CAN_LZ4)
        codecs |= 1u << CODEC_LZ4;
    if (hello->capabilities & HELLO_CAN_ZSTD)
        codecs |= 1u << CODEC_ZSTD;
    return codecs;
}

static int decode_key(struct reader *in, struct hello *out, struct err *err)
{
    if (out->role != HELLO_SOURCE || !(out->capabilities & HELLO_CAN_KEY))
        return 0;
    uint32_t bytes = reader_be32(in);
    const uint8_t *key = in->failed || bytes != DIGEST_KEY_BYTES ? NULL : reader_take(in, bytes);
    if (!key)
        return err_set(err, -EPROTO, "the key in the peer's hello has %u bytes, or fewer are there; %d are needed",
                       bytes, DIGEST_KEY_BYTES);
    memcpy(out->key.secret, key, sizeof(out->key.secret));
    return 0;
}

int hello_decode(const struct message *message, enum hello_role role, struct hello *out, struct err *err)
{
    memset(out, 0, sizeof(*out));
    struct reader in = reader_of(message->payload, message->bytes);
    out->protocol = reader_be16(&in);
    out->role = reader_u8(&in);
    out->capabilities = reader_be64(&in);
    out->unit_bytes = reader_be32(&in);
    out->channels = reader_be32(&in);
    uint32_t version = reader_be32(&in), bytes = reader_be32(&in);
    if (in.failed)
        return err_set(err, -EPROTO, "the peer's hello is cut short");
    if (out->protocol < HELLO_PROTOCOL_MIN)
        return err_set(err, -EPROTO, "the peer speaks protocol %u, this godwit needs %d or newer", out->protocol,
                       HELLO_PROTOCOL_MIN);
    if (out->role != role)
        return err_set(err, -EPROTO, "the peer is %s too: one side migrates, the other waits with -incoming",
                       out->role == HELLO_SOURCE ? "a source" : "a destination");
    if (out->unit_bytes != PAGE_BYTES)
        return err_set(err, -EPROTO, "the peer's pages have %u bytes, ours %d", out->unit_bytes, PAGE_BYTES);
    if (out->channels < 1)
        return err_set(err, -EPROTO, "the peer's hello names no channel");
    if (out->channels > PIPELINE_CHANNELS_MAX)
        return err_set(err, -EPROTO, "the peer's hello names %u data channels, up to %d are possible", out->channels,
                       PIPELINE_CHANNELS_MAX);
    const uint8_t *machine = reader_take(&in, bytes);
    if (!machine)
        return err_set(err, -EPROTO, "the machine's description in the peer's hello is cut short");
    struct reader description = reader_of(machine, bytes);
    int rc = state_load(&machine_config_state, &out->machine, version, &description, err);
    return rc < 0 ? err_prefix(err, "the peer's hello") : decode_key(&in, out, err);
}
