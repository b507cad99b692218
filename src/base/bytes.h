/* Bytes in an order that does not depend on the host: big-endian (streams), little-endian (guest memory).
 *
 * struct buf grows; struct reader never reads past its end: once it ran short, `failed` stays set and every
 * further get returns zero, so that a caller may check once, at the end. Neither is shared between threads. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* clang-format off */
static inline uint16_t be16_get(const void *p) { uint16_t v; memcpy(&v, p, 2); return __builtin_bswap16(v); }
static inline uint32_t be32_get(const void *p) { uint32_t v; memcpy(&v, p, 4); return __builtin_bswap32(v); }
static inline uint64_t be64_get(const void *p) { uint64_t v; memcpy(&v, p, 8); return __builtin_bswap64(v); }
static inline void be16_put(void *p, uint16_t v) { v = __builtin_bswap16(v); memcpy(p, &v, 2); }
static inline void be32_put(void *p, uint32_t v) { v = __builtin_bswap32(v); memcpy(p, &v, 4); }
static inline void be64_put(void *p, uint64_t v) { v = __builtin_bswap64(v); memcpy(p, &v, 8); }
static inline uint16_t le16_get(const void *p) { uint16_t v; memcpy(&v, p, 2); return v; }
static inline uint32_t le32_get(const void *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static inline uint64_t le64_get(const void *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static inline void le16_put(void *p, uint16_t v) { memcpy(p, &v, 2); }
static inline void le32_put(void *p, uint32_t v) { memcpy(p, &v, 4); }
static inline void le64_put(void *p, uint64_t v) { memcpy(p, &v, 8); }
/* clang-format on */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "godwit runs on little-endian hosts");

struct buf {
    uint8_t *data;
    size_t size, capacity;
};

void buf_free(struct buf *buf);
uint8_t *buf_grow(struct buf *buf, size_t bytes); /* room at the end, counted in size; the caller fills it */
void buf_put(struct buf *buf, const void *data, size_t bytes);
void buf_put_u8(struct buf *buf, uint8_t value);
void buf_put_be16(struct buf *buf, uint16_t value);
void buf_put_be32(struct buf *buf, uint32_t value);
void buf_put_be64(struct buf *buf, uint64_t value);
void buf_put_str8(struct buf *buf, const char *text); /* length byte and bytes, no NUL; at most 255 */

struct reader {
    const uint8_t *data;
    size_t size, at;
    bool failed;
};

static inline struct reader reader_of(const void *data, size_t size)
{
    return (struct reader){ .data = data, .size = size };
}
const uint8_t *reader_take(struct reader *reader, size_t bytes); /* NULL when short */
uint8_t reader_u8(struct reader *reader);
uint16_t reader_be16(struct reader *reader);
uint32_t reader_be32(struct reader *reader);
uint64_t reader_be64(struct reader *reader);
/* At most out_size - 1 bytes and a NUL; a longer string or an embedded NUL fails the reader. */
void reader_str8(struct reader *reader, char *out, size_t out_size);
