/* Units to payload and back. Pure: a test calls both without a thread.
 *
 * A codec is one case in compress_chunk() and one in unpack_next(). */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "migration/threads/frame.h"

/* What compress_chunk() may write: the payload, and behind it room to try the last part in (LZ4 is fastest when its
 * output cannot overflow). */
enum { COMPRESS_OUT_MAX = FRAME_PAYLOAD_MAX + FRAME_PART_MAX / 255 + 16 };

struct compressor {
    void *lz4_state; /* owner: one worker */
};

int compressor_init(struct compressor *compressor, struct err *err);
void compressor_destroy(struct compressor *compressor);

/* `units` units of unit_bytes at raw, into out (COMPRESS_OUT_MAX bytes); returns the payload's bytes. */
size_t compress_chunk(struct compressor *compressor, enum codec codec, int acceleration, const uint8_t *raw,
                      unsigned units, uint32_t unit_bytes, uint8_t *out);

/* The way back, part by part: a frame that frame_check() let pass, and a payload of its size. */
struct unpack {
    const uint8_t *at, *end;
    enum codec codec;
    unsigned units_left;
    uint32_t unit_bytes;
};

void unpack_begin(struct unpack *unpack, const struct frame *frame, const uint8_t *payload, uint32_t unit_bytes);
/* The next run of plain units, in scratch (FRAME_PART_MAX bytes) or in the payload: how many, 0 at the end (then
 * nothing is left over), -EPROTO. *out is aligned if scratch and payload are. */
int unpack_next(struct unpack *unpack, uint8_t *scratch, const uint8_t **out, struct err *err);
