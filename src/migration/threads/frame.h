/* What the street puts on the wire. The one place where its wire numbers are written.
 *
 * Every parcel travels as one savevm PART section, so that sections of several sources, and whatever else the
 * migration sends, may interleave. All numbers big-endian:
 *
 *   prefix    u8 0x02 (PART)   be32 section id of the source
 *   head      be32 magic "GWFR"
 *             u8   kind        1 chunk, 2 end-of-round mark, 3 chunk with deltas
 *             u8   codec       low four bits: enum codec; the others are 0
 *             be16 0
 *             be32 round       from 1
 *             be64 first unit  a multiple of 64
 *             be64 data mask   units whose bytes follow, bit 0 = first unit
 *             be64 zero mask   units that are all zero
 *             be32 payload bytes
 *             be64 checksum    XXH3(payload, seed XXH3(head up to here, seed section id))
 *   payload   chunk, raw:  the data units, in order
 *             chunk, LZ4:  the same in parts of 16 units (the last may be short), each be32 length and that many
 *                          bytes: an LZ4 block, or the plain bytes when length says that nothing was saved
 *             chunk, zstd: likewise; one Zstandard frame (RFC 8878) that says its content's size
 *             deltas:      delta.h
 *             mark:        be32 number of sources, and for each in id order be32 section id,
 *                          be64 data units and be64 zero units of this round
 *   footer    u8 0x7e   be32 section id
 *
 * A word is framed at most once a round and rounds do not overlap, so frames of one round may arrive in any order;
 * the mark, under the first source's id, closes the round. frame_get() and frame_check() refuse everything that
 * does not fit these limits, before any of it is used. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "migration/threads/pipeline.h"
#include "migration/threads/source.h"

enum frame_kind { FRAME_CHUNK = 1, FRAME_MARK = 2, FRAME_DELTAS = 3 };

#define FRAME_MAGIC UINT32_C(0x47574652)

enum {
    FRAME_SECTION_PART = 0x02,
    FRAME_SECTION_FOOTER = 0x7e,
    FRAME_PREFIX_BYTES = 5,
    FRAME_HEAD_BYTES = 48,
    FRAME_FOOTER_BYTES = 5,
    FRAME_AROUND_BYTES = FRAME_PREFIX_BYTES + FRAME_HEAD_BYTES + FRAME_FOOTER_BYTES,
    FRAME_RAW_MAX = CHUNK_UNITS * SOURCE_UNIT_BYTES_MAX,
    FRAME_PART_UNITS = 16,
    FRAME_PART_MAX = FRAME_PART_UNITS * SOURCE_UNIT_BYTES_MAX,
    FRAME_PARTS_MAX = CHUNK_UNITS / FRAME_PART_UNITS,
    FRAME_PAYLOAD_MAX = FRAME_RAW_MAX + FRAME_PARTS_MAX * 4,
    FRAME_MARK_ROW_BYTES = 20,
    FRAME_MARK_MAX = 4 + PIPELINE_SOURCES_MAX * FRAME_MARK_ROW_BYTES,
    FRAME_DELTAS_MIN = 24, /* the tail and one delta of no lines */
};

struct frame {
    enum frame_kind kind;
    enum codec codec;
    uint32_t round;
    uint64_t first_unit;
    uint64_t data, zero; /* masks */
    uint32_t payload_bytes;
    uint64_t checksum;
};

struct frame_counts {
    uint64_t data, zero; /* units of one source in one round */
};

/* Around a payload that already lies at wire + FRAME_PREFIX_BYTES + FRAME_HEAD_BYTES: prefix, head with its checksum,
 * footer. Returns the bytes of the whole section. */
size_t frame_seal(uint8_t *wire, uint32_t section_id, const struct frame *frame);

/* Read a head: magic, kind, codec, what must be 0, sizes against the limits above. -EPROTO and a sentence. */
int frame_get(const uint8_t head[FRAME_HEAD_BYTES], struct frame *out, struct err *err);
/* A chunk against the source that it is for: units in range, masks apart, every unit exists, payload size possible. */
int frame_check(const struct frame *frame, const struct source *source, struct err *err);
/* Can a chunk's data units have come in so many bytes? frame_check() has asked; for the plain half of one with deltas. */
int frame_fits(const struct frame *frame, const struct source *source, struct err *err);
/* Head and payload as they arrived: 0, or -EPROTO when the checksum is another. */
int frame_verify(const uint8_t head[FRAME_HEAD_BYTES], uint32_t section_id, const uint8_t *payload, struct err *err);

/* A mark's payload. get checks that it names exactly these sources. */
size_t frame_mark_put(uint8_t *payload, struct source *const *sources, unsigned count,
                      const struct frame_counts *counts);
int frame_mark_get(const uint8_t *payload, size_t bytes, struct source *const *sources, unsigned count,
                   struct frame_counts *counts, struct err *err);
