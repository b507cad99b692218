/* Compressed clusters: raw DEFLATE (RFC 1951) or Zstandard (RFC 8878). */
#include <errno.h>
#include <zlib.h>
#include <zstd.h>

#include "block/qcow2_impl.h"

static int inflate_deflate(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes)
{
    z_stream stream = {
        .next_in = (Bytef *)(uintptr_t)in,
        .avail_in = (uInt)in_bytes,
        .next_out = out,
        .avail_out = (uInt)out_bytes,
    };
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK)
        return -ENOMEM;
    int result = inflate(&stream, Z_FINISH);
    inflateEnd(&stream);
    /* What follows in the last sector is another cluster's: whether the stream ends is not looked at, as long as all came. */
    return stream.avail_out == 0 && (result == Z_STREAM_END || result == Z_BUF_ERROR || result == Z_OK) ? 0 : -EIO;
}

static int inflate_zstd(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes)
{
    ZSTD_inBuffer from = { in, in_bytes, 0 };
    ZSTD_outBuffer to = { out, out_bytes, 0 };
    ZSTD_DStream *stream = ZSTD_createDStream();
    if (!stream)
        return -ENOMEM;
    while (to.pos < to.size) {
        size_t in_before = from.pos, out_before = to.pos;
        if (ZSTD_isError(ZSTD_decompressStream(stream, &to, &from)))
            break;
        if (from.pos == in_before && to.pos == out_before)
            break;
    }
    ZSTD_freeDStream(stream);
    return to.pos == to.size ? 0 : -EIO;
}

int qcow2_inflate(enum qcow2_compression how, const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes)
{
    return how == QCOW2_ZSTD ? inflate_zstd(in, in_bytes, out, out_bytes)
                             : inflate_deflate(in, in_bytes, out, out_bytes);
}
