#include "base/bytes.h"

#include <assert.h>
#include <stdlib.h>

void buf_free(struct buf *buf)
{
    free(buf->data);
    *buf = (struct buf){ 0 };
}

uint8_t *buf_grow(struct buf *buf, size_t bytes)
{
    assert(bytes <= SIZE_MAX / 4 - buf->size);
    size_t need = buf->size + bytes;
    if (need > buf->capacity) {
        size_t capacity = buf->capacity ? buf->capacity : 256;
        while (capacity < need)
            capacity *= 2;
        buf->data = realloc(buf->data, capacity);
        assert(buf->data); /* our own bookkeeping, bounded by limits elsewhere */
        buf->capacity = capacity;
    }
    uint8_t *room = buf->data + buf->size;
    buf->size = need;
    return room;
}

void buf_put(struct buf *buf, const void *data, size_t bytes)
{
    if (bytes > 0)
        memcpy(buf_grow(buf, bytes), data, bytes);
}

void buf_put_u8(struct buf *buf, uint8_t value)
{
    *buf_grow(buf, 1) = value;
}

void buf_put_be16(struct buf *buf, uint16_t value)
{
    be16_put(buf_grow(buf, 2), value);
}

void buf_put_be32(struct buf *buf, uint32_t value)
{
    be32_put(buf_grow(buf, 4), value);
}

void buf_put_be64(struct buf *buf, uint64_t value)
{
    be64_put(buf_grow(buf, 8), value);
}

void buf_put_str8(struct buf *buf, const char *text)
{
    size_t length = strlen(text);
    assert(length <= 255);
    buf_put_u8(buf, (uint8_t)length);
    buf_put(buf, text, length);
}

const uint8_t *reader_take(struct reader *reader, size_t bytes)
{
    if (reader->failed || bytes > reader->size - reader->at) {
        reader->failed = true;
        return NULL;
    }
    const uint8_t *here = reader->data + reader->at;
    reader->at += bytes;
    return here;
}

uint8_t reader_u8(struct reader *reader)
{
    const uint8_t *p = reader_take(reader, 1);
    return p ? *p : 0;
}

uint16_t reader_be16(struct reader *reader)
{
    const uint8_t *p = reader_take(reader, 2);
    return p ? be16_get(p) : 0;
}

uint32_t reader_be32(struct reader *reader)
{
    const uint8_t *p = reader_take(reader, 4);
    return p ? be32_get(p) : 0;
}

uint64_t reader_be64(struct reader *reader)
{
    const uint8_t *p = reader_take(reader, 8);
    return p ? be64_get(p) : 0;
}

void reader_str8(struct reader *reader, char *out, size_t out_size)
{
    assert(out_size > 0);
    size_t length = reader_u8(reader);
    const uint8_t *text = reader_take(reader, length);
    out[0] = '\0';
    if (!text)
        return;
    if (length >= out_size || memchr(text, '\0', length)) {
        reader->failed = true;
        return;
    }
    memcpy(out, text, length);
    out[length] = '\0';
}
