#include "migration/threads/compress.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <lz4.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

_Static_assert(COMPRESS_OUT_MAX - FRAME_PAYLOAD_MAX >= LZ4_COMPRESSBOUND(FRAME_PART_MAX) - FRAME_PART_MAX,
               "the last part needs room to fail in");

int compressor_init(struct compressor *compressor, struct err *err)
{
    compressor->lz4_state = aligned_alloc(64, ((size_t)LZ4_sizeofState() + 63) / 64 * 64);
    return compressor->lz4_state ? 0 : err_set(err, -ENOMEM, "no memory for a compressor");
}

void compressor_destroy(struct compressor *compressor)
{
    free(compressor->lz4_state);
    compressor->lz4_state = NULL;
}

static size_t lz4_parts(struct compressor *compressor, int acceleration, const uint8_t *raw, size_t bytes,
                        size_t part_max, uint8_t *out)
{
    uint8_t *at = out;

    while (bytes) {
        size_t part = bytes < part_max ? bytes : part_max;
        int packed = LZ4_compress_fast_extState(compressor->lz4_state, (const char *)raw, (char *)at + 4, (int)part,
                                                LZ4_COMPRESSBOUND(FRAME_PART_MAX), acceleration);
        if (packed <= 0 || (size_t)packed >= part) { /* nothing saved: the length says so */
            memcpy(at + 4, raw, part);
            packed = (int)part;
        }
        be32_put(at, (uint32_t)packed);
        at += 4 + packed;
        raw += part;
        bytes -= part;
    }
    return (size_t)(at - out);
}

size_t compress_chunk(struct compressor *compressor, enum codec codec, int acceleration, const uint8_t *raw,
                      unsigned units, uint32_t unit_bytes, uint8_t *out)
{
    size_t bytes = (size_t)units * unit_bytes;

    assert(units <= CHUNK_UNITS && unit_bytes <= SOURCE_UNIT_BYTES_MAX);
    switch (codec) {
    case CODEC_LZ4: return lz4_parts(compressor, acceleration, raw, bytes, (size_t)FRAME_PART_UNITS * unit_bytes, out);
    case CODEC_RAW: break;
    }
    if (out != raw) { /* a worker may have scanned straight into the payload */
        memcpy(out, raw, bytes);
    }
    return bytes;
}

void unpack_begin(struct unpack *unpack, const struct frame *frame, const uint8_t *payload, uint32_t unit_bytes)
{
    *unpack = (struct unpack){
        .at = payload,
        .end = payload + frame->payload_bytes,
        .codec = frame->codec,
        .units_left = (unsigned)__builtin_popcountll(frame->data),
        .unit_bytes = unit_bytes,
    };
}

static int unpack_lz4(struct unpack *unpack, size_t raw, uint8_t *scratch, struct err *err)
{
    size_t left = (size_t)(unpack->end - unpack->at);
    uint32_t packed = left >= 4 ? be32_get(unpack->at) : 0;

    if (left < 4 || packed == 0 || packed > raw || packed > left - 4) {
        return err_set(err, -EPROTO, "a part of %zu bytes is said to come in %" PRIu32 ", with %zu left", raw, packed,
                       left);
    }
    unpack->at += 4;
    if (packed == raw) {
        memcpy(scratch, unpack->at, raw);
    } else if (LZ4_decompress_safe((const char *)unpack->at, (char *)scratch, (int)packed, (int)raw) != (int)raw) {
        return err_set(err, -EPROTO, "a part of %zu bytes does not unpack to its length", raw);
    }
    unpack->at += packed;
    return 0;
}

int unpack_next(struct unpack *unpack, uint8_t *scratch, const uint8_t **out, struct err *err)
{
    unsigned units = unpack->units_left;

    if (!units) {
        return unpack->at == unpack->end ? 0 : err_set(err, -EPROTO, "a payload goes on behind its last unit");
    }
    if (unpack->codec == CODEC_RAW) {
        *out = unpack->at;
        unpack->at += (size_t)units * unpack->unit_bytes;
    } else {
        units = units < FRAME_PART_UNITS ? units : FRAME_PART_UNITS;
        int ret = unpack_lz4(unpack, (size_t)units * unpack->unit_bytes, scratch, err);
        if (ret < 0) {
            return ret;
        }
        *out = scratch;
    }
    unpack->units_left -= units;
    return (int)units;
}
