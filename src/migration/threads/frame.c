#include "migration/threads/frame.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "migration/threads/hash.h"

enum { HEAD_CHECKSUM_AT = 40, CODEC_MASK = 0x0f };

/* Two steps rather than one hash over both: the payload needs no copy next to the head on the receiving side. */
static uint64_t checksum_of(const uint8_t *head, uint32_t section_id, const uint8_t *payload, size_t bytes)
{
    uint64_t seed = hash_bytes(head, HEAD_CHECKSUM_AT, section_id);
    return hash_bytes(payload, bytes, seed);
}

size_t frame_seal(uint8_t *wire, uint32_t section_id, const struct frame *frame)
{
    uint8_t *head = wire + FRAME_PREFIX_BYTES;
    uint8_t *payload = head + FRAME_HEAD_BYTES;
    uint8_t *footer = payload + frame->payload_bytes;

    assert(frame->payload_bytes <= FRAME_PAYLOAD_MAX);
    wire[0] = FRAME_SECTION_PART;
    be32_put(wire + 1, section_id);
    be32_put(head, FRAME_MAGIC);
    head[4] = (uint8_t)frame->kind;
    head[5] = (uint8_t)frame->codec;
    be16_put(head + 6, 0);
    be32_put(head + 8, frame->round);
    be64_put(head + 12, frame->first_unit);
    be64_put(head + 20, frame->data);
    be64_put(head + 28, frame->zero);
    be32_put(head + 36, frame->payload_bytes);
    be64_put(head + HEAD_CHECKSUM_AT, checksum_of(head, section_id, payload, frame->payload_bytes));
    footer[0] = FRAME_SECTION_FOOTER;
    be32_put(footer + 1, section_id);
    return FRAME_AROUND_BYTES + frame->payload_bytes;
}

int frame_get(const uint8_t head[FRAME_HEAD_BYTES], struct frame *out, struct err *err)
{
    if (be32_get(head) != FRAME_MAGIC) {
        return err_set(err, -EPROTO, "a frame begins with magic %08" PRIx32, be32_get(head));
    }
    if (head[4] != FRAME_CHUNK && head[4] != FRAME_MARK && head[4] != FRAME_DELTAS) {
        return err_set(err, -EPROTO, "unknown frame kind %u", head[4]);
    }
    if ((head[5] & ~CODEC_MASK) || head[5] >= CODECS) {
        return err_set(err, -EPROTO, "unknown frame codec 0x%02x", head[5]);
    }
    if (be16_get(head + 6)) {
        return err_set(err, -EPROTO, "reserved bits are set in a frame: %04x", be16_get(head + 6));
    }
    *out = (struct frame){
        .kind = head[4],
        .codec = head[5],
        .round = be32_get(head + 8),
        .first_unit = be64_get(head + 12),
        .data = be64_get(head + 20),
        .zero = be64_get(head + 28),
        .payload_bytes = be32_get(head + 36),
        .checksum = be64_get(head + HEAD_CHECKSUM_AT),
    };
    if (out->payload_bytes > FRAME_PAYLOAD_MAX) {
        return err_set(err, -EPROTO, "a frame's payload of %" PRIu32 " bytes is longer than %d", out->payload_bytes,
                       FRAME_PAYLOAD_MAX);
    }
    if (out->kind == FRAME_MARK &&
        (out->first_unit || out->data || out->zero || out->codec != CODEC_RAW || out->payload_bytes > FRAME_MARK_MAX)) {
        return err_set(err, -EPROTO, "an end-of-round mark names units");
    }
    return 0;
}

int frame_fits(const struct frame *frame, const struct source *source, struct err *err)
{
    unsigned units = (unsigned)__builtin_popcountll(frame->data);
    uint64_t raw = (uint64_t)units * source->unit_bytes;
    unsigned parts = (units + FRAME_PART_UNITS - 1) / FRAME_PART_UNITS;
    /* A packed part is never empty, so that each is a byte or more behind its length. */
    bool fits = frame->codec == CODEC_RAW
                    ? frame->payload_bytes == raw
                    : frame->payload_bytes >= parts * 5u && frame->payload_bytes <= raw + parts * 4u;

    if (frame->kind == FRAME_DELTAS) { /* each is a delta, or else as it is above: its two halves are looked at apart */
        fits = units && frame->payload_bytes >= FRAME_DELTAS_MIN && frame->payload_bytes <= FRAME_PAYLOAD_MAX;
    }
    if (!fits) {
        return err_set(err, -EPROTO, "%s: %u units cannot have come in %" PRIu32 " bytes", source->name, units,
                       frame->payload_bytes);
    }
    return 0;
}

int frame_check(const struct frame *frame, const struct source *source, struct err *err)
{
    if (frame->first_unit % CHUNK_UNITS || frame->first_unit / CHUNK_UNITS >= source->words) {
        return err_set(err, -EPROTO, "%s: unit %" PRIu64 " does not begin a chunk of its %" PRIu64 " units",
                       source->name, frame->first_unit, source->units);
    }
    if (!(frame->data | frame->zero) || (frame->data & frame->zero)) {
        return err_set(err, -EPROTO, "%s: masks of the chunk at unit %" PRIu64 " contradict each other", source->name,
                       frame->first_unit);
    }
    uint64_t exists = source->ops->exists((struct source *)(uintptr_t)source, frame->first_unit / CHUNK_UNITS);
    if ((frame->data | frame->zero) & ~exists) {
        return err_set(err, -EPROTO, "%s: the chunk at unit %" PRIu64 " holds units that do not exist", source->name,
                       frame->first_unit);
    }
    return frame_fits(frame, source, err);
}

int frame_verify(const uint8_t head[FRAME_HEAD_BYTES], uint32_t section_id, const uint8_t *payload, struct err *err)
{
    uint64_t got = checksum_of(head, section_id, payload, be32_get(head + 36));
    uint64_t want = be64_get(head + HEAD_CHECKSUM_AT);

    if (got != want) {
        return err_set(err, -EPROTO,
                       "a frame of section %" PRIu32 " has checksum %016" PRIx64 ", its bytes have %016" PRIx64,
                       section_id, want, got);
    }
    return 0;
}

size_t frame_mark_put(uint8_t *payload, struct source *const *sources, unsigned count,
                      const struct frame_counts *counts)
{
    uint8_t *at = payload + 4;

    assert(count <= PIPELINE_SOURCES_MAX);
    be32_put(payload, count);
    for (unsigned i = 0; i < count; i++, at += FRAME_MARK_ROW_BYTES) {
        be32_put(at, sources[i]->id);
        be64_put(at + 4, counts[i].data);
        be64_put(at + 12, counts[i].zero);
    }
    return (size_t)(at - payload);
}

int frame_mark_get(const uint8_t *payload, size_t bytes, struct source *const *sources, unsigned count,
                   struct frame_counts *counts, struct err *err)
{
    struct reader in = reader_of(payload, bytes);
    uint32_t told = reader_be32(&in);

    if (told != count || bytes != 4 + (size_t)count * FRAME_MARK_ROW_BYTES) {
        return err_set(err, -EPROTO, "an end-of-round mark of %zu bytes counts %" PRIu32 " sources, not %u", bytes,
                       told, count);
    }
    for (unsigned i = 0; i < count; i++) {
        uint32_t id = reader_be32(&in);
        counts[i].data = reader_be64(&in);
        counts[i].zero = reader_be64(&in);
        if (id != sources[i]->id) {
            return err_set(err, -EPROTO, "an end-of-round mark names section %" PRIu32 " where %" PRIu32 " belongs", id,
                           sources[i]->id);
        }
    }
    return 0;
}
