/* Units to payload and back. Pure: a test calls both without a thread.
 *
 * A codec is one case in pack_part() and one in unpack_part(). */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "migration/threads/frame.h"

/* What compress_chunk() may write: the payload, and behind it room to try the last part in (LZ4 is fastest when its
 * output cannot overflow). */
enum { COMPRESS_OUT_MAX = FRAME_PAYLOAD_MAX + FRAME_PART_MAX / 255 + 16 };
enum { COMPRESS_ZSTD_LEVEL = 1 };

struct compressor { /* owner: one worker */
    void *lz4_state;
    struct ZSTD_CCtx_s *zstd;
};

int compressor_init(struct compressor *compressor, struct err *err);
void compressor_destroy(struct compressor *compressor);

/* `units` units of unit_bytes at raw, into out (COMPRESS_OUT_MAX bytes); returns the payload's bytes. */
size_t compress_chunk(struct compressor *compressor, enum codec codec, int acceleration, const uint8_t *raw,
                      unsigned units, uint32_t unit_bytes, uint8_t *out);

/* The way back, part by part: a frame that frame_check() let pass, and a payload of its size. */
struct unpacker { /* owner: one load worker */
    struct ZSTD_DCtx_s *zstd;
    uint8_t *part; /* FRAME_PART_MAX, aligned to 64 */
};

int unpacker_init(struct unpacker *unpacker, struct err *err);
void unpacker_destroy(struct unpacker *unpacker); /* zeroed is allowed */

struct unpack {
    const struct unpacker *unpacker;
    const uint8_t *at, *end;
    enum codec codec;
    unsigned units_left;
    uint32_t unit_bytes;
};

void unpack_begin(struct unpack *unpack, const struct unpacker *unpacker, const struct frame *frame,
                  const uint8_t *payload, uint32_t unit_bytes);
/* The next run of plain units, in the unpacker's part or in the payload: how many, 0 at the end (then nothing is left
 * over), -EPROTO. *out is aligned if the payload is. */
int unpack_next(struct unpack *unpack, const uint8_t **out, struct err *err);
