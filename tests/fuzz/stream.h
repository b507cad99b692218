/* A stream taken apart into elements, and put together again so that a reader gets deep into it: lengths, footers, rounds,
 * marks, checksums and the digests are made right for whatever stands between them. For fuzz_stream. */
#pragma once
#include <xxhash.h>

#include "migration/message.h"
#include "migration/sections.h"
#include "migration/threads/compress.h"
#include "migration/threads/digest.h"
#include "migration/threads/frame.h"
#include "tests/fuzz/fuzz.h"

#define CALL_MAGIC UINT32_C(0x4757434c) /* "GWCL": what follows is said over another connection */
enum { PIECES_MAX = 256, TALLY_ROUNDS = 8, DIGEST_UNITS = FUZZ_RAM_BYTES / PAGE_BYTES + 64 };

enum piece_kind {
    PIECE_RAW,
    PIECE_MESSAGE,
    PIECE_BEGIN,
    PIECE_START,
    PIECE_PART,
    PIECE_END,
    PIECE_FULL,
    PIECE_EOF,
    PIECE_CALL
};

struct piece {
    enum piece_kind kind;
    struct section_head head; /* START to FULL */
    uint16_t type;            /* a message's */
    struct message_key key;
    struct buf body; /* what is between head and footer, without a length in front */
};

struct pieces {
    struct piece piece[PIECES_MAX];
    unsigned count;
};

static inline void pieces_free(struct pieces *p)
{
    for (unsigned i = 0; i < p->count; i++)
        buf_free(&p->piece[i].body);
    p->count = 0;
}

static inline void piece_copy(struct piece *to, const struct piece *from)
{
    *to = *from;
    to->body = (struct buf){ 0 };
    buf_put(&to->body, from->body.data, from->body.size);
}

/* --- apart ------------------------------------------------------------------------------------------------------ */

static inline void take_head(struct reader *in, struct section_head *head)
{
    head->id = reader_be32(in);
    if (head->type == ELEMENT_START || head->type == ELEMENT_FULL) {
        reader_str8(in, head->name, sizeof(head->name));
        head->instance = reader_be32(in);
        head->version = reader_be32(in);
    }
}

static inline size_t table_bytes(const struct reader *from)
{
    struct reader in = *from;
    for (uint32_t n = reader_be32(&in); n && !in.failed && n < 64; n--) {
        reader_take(&in, reader_u8(&in));
        reader_take(&in, 16);
    }
    return in.failed ? 0 : in.at - from->at;
}

static inline size_t frame_bytes(const struct reader *in)
{
    size_t left = in->size - in->at;
    return left < FRAME_HEAD_BYTES ? left : FRAME_HEAD_BYTES + be32_get(in->data + in->at + 36);
}

static inline void take_element(struct reader *in, struct piece *out)
{
    static const enum piece_kind kinds[] = { PIECE_EOF, PIECE_START, PIECE_PART, PIECE_END, PIECE_FULL };
    size_t bytes = 0;
    out->head.type = reader_u8(in);
    if (out->head.type > ELEMENT_FULL) {
        in->failed = true;
        return;
    }
    out->kind = kinds[out->head.type];
    if (out->kind == PIECE_EOF)
        return;
    take_head(in, &out->head);
    switch (out->kind) {
    case PIECE_START: bytes = table_bytes(in); break;
    case PIECE_PART: bytes = frame_bytes(in); break;
    case PIECE_END: bytes = 8; break;
    default: bytes = reader_be32(in);
    }
    const uint8_t *body = reader_take(in, bytes);
    if (body)
        buf_put(&out->body, body, bytes);
    reader_take(in, 5);
}

static inline void take_message(struct reader *in, struct piece *out)
{
    out->kind = PIECE_MESSAGE;
    reader_be32(in);
    out->type = reader_be16(in);
    reader_be16(in);
    uint32_t bytes = reader_be32(in);
    out->key.attempt = reader_be32(in);
    const uint8_t *id = reader_take(in, MESSAGE_ID_BYTES), *body = reader_take(in, bytes);
    if (id)
        memcpy(out->key.id, id, MESSAGE_ID_BYTES);
    if (body)
        buf_put(&out->body, body, bytes);
    reader_take(in, 8);
}

static inline void pieces_of(const uint8_t *data, size_t size, struct pieces *out)
{
    struct reader in = reader_of(data, size);
    out->count = 0;
    while (in.at < in.size && out->count < PIECES_MAX) {
        struct piece *piece = &out->piece[out->count++];
        struct reader before = in;
        uint32_t word = in.size - in.at >= 4 ? be32_get(in.data + in.at) : 0;
        memset(piece, 0, sizeof(*piece));
        if (word == MESSAGE_MAGIC) {
            take_message(&in, piece);
        } else if (word == CALL_MAGIC) {
            reader_be32(&in);
            piece->kind = PIECE_CALL;
        } else if (word == STREAM_MAGIC) {
            piece->kind = PIECE_BEGIN;
            reader_take(&in, 9);
            uint32_t bytes = reader_be32(&in);
            const uint8_t *name = reader_take(&in, bytes);
            if (name)
                buf_put(&piece->body, name, bytes);
        } else {
            take_element(&in, piece);
        }
        if (in.failed) { /* the rest is what it is */
            buf_free(&piece->body);
            memset(piece, 0, sizeof(*piece));
            buf_put(&piece->body, before.data + before.at, before.size - before.at);
            return;
        }
    }
}

/* --- together --------------------------------------------------------------------------------------------------- */

/* What a reader will have counted and summed up to here. */
struct tally {
    uint32_t round;
    uint64_t rounds;                          /* closed */
    struct frame_counts counts;               /* of this line, in this round */
    struct frame_counts beside[TALLY_ROUNDS]; /* of all data channels, by round */
    uint64_t full_sum;
    struct digest digest;
    struct unpacker unpacker;
};

static inline bool is_zero(const uint8_t *data, size_t bytes)
{
    return bytes == 0 || (data[0] == 0 && memcmp(data, data + 1, bytes - 1) == 0);
}

static inline void tally_units(struct tally *t, const uint8_t *head, const uint8_t *payload, uint32_t bytes)
{
    uint64_t first = be64_get(head + 12), data = be64_get(head + 20), zero = be64_get(head + 28);
    struct digest_change change = { { 0 } };
    struct frame frame = {
        .kind = FRAME_CHUNK, .codec = head[5], .first_unit = first, .data = data, .payload_bytes = bytes
    };
    struct unpack unpack;
    const uint8_t *unit = NULL;
    int left = 0;
    t->counts.data += (uint64_t)__builtin_popcountll(data);
    t->counts.zero += (uint64_t)__builtin_popcountll(zero);
    if (head[4] != FRAME_CHUNK || head[5] > CODEC_ZSTD || first > DIGEST_UNITS - CHUNK_UNITS || first % CHUNK_UNITS)
        return;
    for (uint64_t bits = zero & ~data; bits; bits &= bits - 1)
        digest_replace(&t->digest, &change, first + (unsigned)__builtin_ctzll(bits), DIGEST_ZERO);
    if (frame.codec == CODEC_RAW && bytes != (uint32_t)__builtin_popcountll(data) * PAGE_BYTES)
        data = 0;
    if (data)
        unpack_begin(&unpack, &t->unpacker, &frame, payload, PAGE_BYTES);
    for (uint64_t bits = data; bits; bits &= bits - 1, left--, unit += PAGE_BYTES) {
        if (left == 0 && (left = unpack_next(&unpack, &unit, NULL)) <= 0)
            break;
        digest_replace(&t->digest, &change, first + (unsigned)__builtin_ctzll(bits),
                       is_zero(unit, PAGE_BYTES) ? DIGEST_ZERO : digest_hash(NULL, unit, PAGE_BYTES));
    }
    digest_apply(&t->digest, &change);
}

static inline void put_frame_right(struct tally *t, struct piece *piece, bool main)
{
    if (piece->body.size < FRAME_HEAD_BYTES)
        return;
    uint8_t *head = piece->body.data, *payload = head + FRAME_HEAD_BYTES;
    uint32_t bytes = (uint32_t)(piece->body.size - FRAME_HEAD_BYTES);
    struct frame_counts *beside = &t->beside[t->round % TALLY_ROUNDS];
    if (head[4] == FRAME_MARK && bytes >= 24) {
        if (main) {
            t->counts.data += beside->data;
            t->counts.zero += beside->zero;
        } else {
            beside->data += t->counts.data;
            beside->zero += t->counts.zero;
        }
        be64_put(payload + 8, t->counts.data);
        be64_put(payload + 16, t->counts.zero);
    } else {
        tally_units(t, head, payload, bytes);
    }
    be32_put(head, FRAME_MAGIC);
    be16_put(head + 6, 0);
    be32_put(head + 8, t->round);
    be32_put(head + 36, bytes);
    uint64_t seed = XXH3_64bits_withSeed(head, 40, piece->head.id);
    be64_put(head + 40, XXH3_64bits_withSeed(payload, bytes, seed));
    if (head[4] == FRAME_MARK) {
        t->round++;
        t->rounds++;
        t->counts = (struct frame_counts){ 0 };
    }
}

static inline void put_digest_right(struct tally *t, struct piece *piece)
{
    size_t row = 4, last = piece->body.size - 8;
    uint64_t sum[2];
    if (piece->body.size < 4 + 20 + 8)
        return;
    digest_get(&t->digest, sum);
    be64_put(piece->body.data + row + 4, sum[0]);
    be64_put(piece->body.data + row + 12, sum[1]);
    be64_put(piece->body.data + last, t->full_sum);
}

static inline void tally_full(struct tally *t, const struct piece *piece)
{
    uint8_t head[SECTION_NAME_MAX + 8] = { 0 };
    memcpy(head, piece->head.name, strnlen(piece->head.name, SECTION_NAME_MAX));
    be32_put(head + SECTION_NAME_MAX, piece->head.instance);
    be32_put(head + SECTION_NAME_MAX + 4, piece->head.version);
    if (strcmp(piece->head.name, "godwit/hot-code") != 0)
        t->full_sum = XXH3_64bits_withSeed(piece->body.data, piece->body.size,
                                           XXH3_64bits_withSeed(head, sizeof(head), t->full_sum));
}

static inline void put_piece(struct buf *out, const struct piece *piece)
{
    switch (piece->kind) {
    case PIECE_RAW: buf_put(out, piece->body.data, piece->body.size); return;
    case PIECE_MESSAGE:
        if (piece->body.size <= MESSAGE_PAYLOAD_MAX)
            message_put(out, piece->type, &piece->key, piece->body.data, (uint32_t)piece->body.size);
        return;
    case PIECE_BEGIN:
        buf_put_be32(out, STREAM_MAGIC);
        buf_put_be32(out, STREAM_VERSION);
        buf_put_u8(out, ELEMENT_CONFIGURATION);
        buf_put_be32(out, (uint32_t)piece->body.size);
        buf_put(out, piece->body.data, piece->body.size);
        return;
    case PIECE_EOF: buf_put_u8(out, ELEMENT_EOF); return;
    case PIECE_CALL: buf_put_be32(out, CALL_MAGIC); return;
    default: break;
    }
    buf_put_u8(out, piece->head.type);
    buf_put_be32(out, piece->head.id);
    if (piece->kind == PIECE_START || piece->kind == PIECE_FULL) {
        buf_put_str8(out, piece->head.name);
        buf_put_be32(out, piece->head.instance);
        buf_put_be32(out, piece->head.version);
    }
    if (piece->kind == PIECE_FULL)
        buf_put_be32(out, (uint32_t)piece->body.size);
    buf_put(out, piece->body.data, piece->body.size);
    buf_put_u8(out, ELEMENT_FOOTER);
    buf_put_be32(out, piece->head.id);
}

/* right: also what hangs together across elements, and not only within one. */
static inline void pieces_put(struct pieces *p, bool right, struct buf *out)
{
    static struct tally tally;
    if (!tally.unpacker.part)
        FUZZ_CHECK(unpacker_init(&tally.unpacker, NULL) == 0);
    tally = (struct tally){ .round = 1, .unpacker = tally.unpacker };
    FUZZ_CHECK(digest_new(&tally.digest, DIGEST_UNITS, NULL, NULL) == 0);
    unsigned first = 0; /* the main line comes first, and says what the others bring */
    while (first < p->count && p->piece[first].kind != PIECE_CALL)
        first++;
    for (unsigned i = first; right && i < p->count; i++) {
        if (p->piece[i].kind == PIECE_CALL)
            tally.round = 1;
        else if (p->piece[i].kind == PIECE_PART)
            put_frame_right(&tally, &p->piece[i], false);
    }
    tally.round = 1;
    tally.rounds = 0;
    tally.counts = (struct frame_counts){ 0 };
    for (unsigned i = 0; i < p->count; i++) {
        struct piece *piece = &p->piece[i];
        bool digest = piece->kind == PIECE_FULL && strcmp(piece->head.name, section_digest_state.name) == 0;
        if (right && i < first && piece->kind == PIECE_PART)
            put_frame_right(&tally, piece, true);
        if (right && piece->kind == PIECE_END && piece->body.size == 8)
            be64_put(piece->body.data, tally.rounds);
        if (right && digest)
            put_digest_right(&tally, piece);
        else if (piece->kind == PIECE_FULL)
            tally_full(&tally, piece);
        put_piece(out, piece);
    }
    digest_destroy(&tally.digest);
}
