#include "migration/threads/compress.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "base/bytes.h"

_Static_assert(COMPRESS_OUT_MAX - FRAME_PAYLOAD_MAX >= LZ4_COMPRESSBOUND(FRAME_PART_MAX) - FRAME_PART_MAX,
               "the last part needs room to fail in");

int compressor_init(struct compressor *compressor, struct err *err)
{
    *compressor = (struct compressor){
        .lz4_state = aligned_alloc(64, ((size_t)LZ4_sizeofState() + 63) / 64 * 64),
        .zstd = ZSTD_createCCtx(),
    };
    if (!compressor->lz4_state || !compressor->zstd) {
        compressor_destroy(compressor);
        return err_set(err, -ENOMEM, "no memory for a compressor");
    }
    return 0;
}

void compressor_destroy(struct compressor *compressor)
{
    free(compressor->lz4_state);
    ZSTD_freeCCtx(compressor->zstd);
    *compressor = (struct compressor){ 0 };
}

/* The packed bytes, 0 when nothing would be saved: zstd gets no room to save nothing in, and also finds none when it
 * has no memory, which makes the part longer and loses nothing. */
static size_t pack_part(struct compressor *compressor, enum codec codec, int acceleration, const uint8_t *raw,
                        size_t bytes, uint8_t *out)
{
    size_t packed = 0;

    switch (codec) {
    case CODEC_LZ4:
        packed = (size_t)LZ4_compress_fast_extState(compressor->lz4_state, (const char *)raw, (char *)out, (int)bytes,
                                                    LZ4_COMPRESSBOUND(FRAME_PART_MAX), acceleration);
        break;
    case CODEC_ZSTD:
        packed = ZSTD_compressCCtx(compressor->zstd, out, bytes - 1, raw, bytes, COMPRESS_ZSTD_LEVEL);
        packed = ZSTD_isError(packed) ? 0 : packed;
        break;
    case CODEC_RAW: break;
    }
    return packed < bytes ? packed : 0;
}

static size_t pack_parts(struct compressor *compressor, enum codec codec, int acceleration, const uint8_t *raw,
                         size_t bytes, size_t part_max, uint8_t *out)
{
    uint8_t *at = out;

    while (bytes) {
        size_t part = bytes < part_max ? bytes : part_max;
        size_t packed = pack_part(compressor, codec, acceleration, raw, part, at + 4);
        if (!packed) { /* nothing saved: the length says so */
            memcpy(at + 4, raw, part);
            packed = part;
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
    if (codec != CODEC_RAW) {
        size_t part_max = (size_t)FRAME_PART_UNITS * unit_bytes;
        return pack_parts(compressor, codec, acceleration, raw, bytes, part_max, out);
    }
    if (out != raw) { /* a worker may have scanned straight into the payload */
        memcpy(out, raw, bytes);
    }
    return bytes;
}

int unpacker_init(struct unpacker *unpacker, struct err *err)
{
    *unpacker = (struct unpacker){ .zstd = ZSTD_createDCtx(), .part = aligned_alloc(64, FRAME_PART_MAX) };
    if (!unpacker->zstd || !unpacker->part) {
        unpacker_destroy(unpacker);
        return err_set(err, -ENOMEM, "no memory to unpack in");
    }
    return 0;
}

void unpacker_destroy(struct unpacker *unpacker)
{
    ZSTD_freeDCtx(unpacker->zstd);
    free(unpacker->part);
    *unpacker = (struct unpacker){ 0 };
}

void unpack_begin(struct unpack *unpack, const struct unpacker *unpacker, const struct frame *frame,
                  const uint8_t *payload, uint32_t unit_bytes)
{
    *unpack = (struct unpack){
        .unpacker = unpacker,
        .at = payload,
        .end = payload + frame->payload_bytes,
        .codec = frame->codec,
        .units_left = (unsigned)__builtin_popcountll(frame->data),
        .unit_bytes = unit_bytes,
    };
}

/* What a frame says of itself is compared before the library does anything with it: one frame, no more behind it, of
 * exactly these bytes. */
static bool unpack_zstd(const struct unpacker *unpacker, const uint8_t *packed, size_t bytes, size_t raw)
{
    return ZSTD_getFrameContentSize(packed, bytes) == raw && ZSTD_findFrameCompressedSize(packed, bytes) == bytes &&
           ZSTD_decompressDCtx(unpacker->zstd, unpacker->part, raw, packed, bytes) == raw;
}

static bool unpack_part(const struct unpack *unpack, const uint8_t *packed, size_t bytes, size_t raw)
{
    uint8_t *out = unpack->unpacker->part;

    if (bytes == raw) {
        memcpy(out, packed, raw);
        return true;
    }
    switch (unpack->codec) {
    case CODEC_LZ4: return LZ4_decompress_safe((const char *)packed, (char *)out, (int)bytes, (int)raw) == (int)raw;
    case CODEC_ZSTD: return unpack_zstd(unpack->unpacker, packed, bytes, raw);
    case CODEC_RAW: break; /* has no parts */
    }
    return false;
}

static int next_part(struct unpack *unpack, size_t raw, struct err *err)
{
    size_t left = (size_t)(unpack->end - unpack->at);
    uint32_t packed = left >= 4 ? be32_get(unpack->at) : 0;

    if (left < 4 || packed == 0 || packed > raw || packed > left - 4) {
        return err_set(err, -EPROTO, "a part of %zu bytes is said to come in %" PRIu32 ", with %zu left", raw, packed,
                       left);
    }
    if (!unpack_part(unpack, unpack->at + 4, packed, raw)) {
        return err_set(err, -EPROTO, "a part of %zu bytes does not unpack to its length", raw);
    }
    unpack->at += 4 + packed;
    return 0;
}

int unpack_next(struct unpack *unpack, const uint8_t **out, struct err *err)
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
        int ret = next_part(unpack, (size_t)units * unpack->unit_bytes, err);
        if (ret < 0) {
            return ret;
        }
        *out = unpack->unpacker->part;
    }
    unpack->units_left -= units;
    return (int)units;
}
