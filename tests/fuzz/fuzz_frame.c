/* The loader against bytes that somebody made up. Each input is a row of sections: u8 flags, u8 section id, a head and a
 * payload as the stream has them. With flag 1 the magic, the reserved bits, the round and the checksum are put right
 * first, so that mutations get past the checks that would stop almost all of them, and so are what is around a block of
 * zstd and the versions that deltas name; without it the checks themselves are fed. Whatever comes, the loader ends with a sentence or goes on: it stores
 * only units that exist. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "base/channel.h"
#include "migration/threads/delta.h"
#include "migration/threads/frame.h"
#include "tests/unit/migration/threads/fake.h"

enum { UNITS = 200, SECTIONS_MAX = 64, FLAG_RIGHT = 1 };

struct memory_channel {
    struct channel channel;
    const uint8_t *at, *end;
};

static ssize_t memory_read(struct channel *channel, void *out, size_t bytes)
{
    struct memory_channel *c = (struct memory_channel *)channel;
    size_t left = (size_t)(c->end - c->at);
    bytes = bytes < left ? bytes : left;
    memcpy(out, c->at, bytes);
    c->at += bytes;
    return (ssize_t)bytes;
}

static void memory_shutdown(struct channel *channel)
{
    (void)channel;
}

static const struct channel_ops memory_ops = { .read = memory_read, .shutdown = memory_shutdown };

/* One part, which is one Zstandard frame (RFC 8878) of the size that it must have, with one block over the rest: what is
 * in that, and of which type it is, stays as it came. */
static void put_zstd_right(uint8_t *payload, uint32_t bytes, unsigned units)
{
    static const uint8_t magic_and_descriptor[] = { 0x28, 0xb5, 0x2f, 0xfd, 0xa0 };
    enum { SIZE_AT = 9, BLOCK_AT = 13, BLOCK_HEAD_BYTES = 3 };

    if (bytes < BLOCK_AT + BLOCK_HEAD_BYTES || units > FRAME_PART_UNITS) {
        return;
    }
    uint32_t content = units * FAKE_UNIT, type = payload[BLOCK_AT] & 6;
    bool repeat = type == 2;
    uint32_t block = (repeat ? content : bytes - BLOCK_AT - BLOCK_HEAD_BYTES) << 3 | type | 1;
    be32_put(payload, bytes - 4);
    memcpy(payload + 4, magic_and_descriptor, sizeof(magic_and_descriptor));
    for (unsigned i = 0; i < 4; i++) {
        payload[SIZE_AT + i] = (uint8_t)(content >> 8 * i);
    }
    for (unsigned i = 0; i < BLOCK_HEAD_BYTES; i++) {
        payload[BLOCK_AT + i] = (uint8_t)(block >> 8 * i);
    }
}

/* Deltas of the units that are there: the versions that they name, and where they begin. How many lines each has, and which
 * units they are for, stays as it came. */
static void put_deltas_right(const struct fake *fake, const uint8_t *head, uint8_t *payload, uint32_t bytes)
{
    uint64_t first = be64_get(head + 12), data = be64_get(head + 20), units;
    uint32_t at = 0;

    if (bytes < DELTA_TAIL_BYTES) {
        return;
    }
    uint8_t *tail = payload + bytes - DELTA_TAIL_BYTES;
    units = be64_get(tail);
    if (head[5] == CODEC_RAW) { /* the plain half has no lengths of its own */
        at = (uint32_t)__builtin_popcountll(data & ~units) * FAKE_UNIT;
        be32_put(tail + 8, bytes - DELTA_TAIL_BYTES - at);
    } else if (be32_get(tail + 8) <= bytes - DELTA_TAIL_BYTES) {
        at = bytes - DELTA_TAIL_BYTES - be32_get(tail + 8);
    }
    for (; units && at <= bytes && bytes - at >= DELTA_HEAD_BYTES + DELTA_TAIL_BYTES; units &= units - 1) {
        uint64_t unit = first + (unsigned)__builtin_ctzll(units);
        if (unit < fake->source.units) {
            be32_put(payload + at, (uint32_t)digest_hash(NULL, fake->pages + unit * FAKE_UNIT, FAKE_UNIT).word[0]);
        }
        at += DELTA_HEAD_BYTES + (uint32_t)__builtin_popcountll(be64_get(payload + at + 4)) * DELTA_LINE_BYTES;
    }
}

static void put_right(const struct fake *fake, uint8_t *head, uint32_t section_id, uint32_t round, size_t bytes)
{
    uint32_t payload = be32_get(head + 36);

    be32_put(head, FRAME_MAGIC);
    be16_put(head + 6, 0);
    be32_put(head + 8, round);
    if (payload > bytes - FRAME_HEAD_BYTES) {
        payload = (uint32_t)(bytes - FRAME_HEAD_BYTES);
        be32_put(head + 36, payload);
    }
    if (head[4] == FRAME_DELTAS && fake) {
        put_deltas_right(fake, head, head + FRAME_HEAD_BYTES, payload);
    } else if (head[5] == CODEC_ZSTD) {
        put_zstd_right(head + FRAME_HEAD_BYTES, payload, (unsigned)__builtin_popcountll(be64_get(head + 20)));
    }
    uint64_t seed = XXH3_64bits_withSeed(head, 40, section_id);
    be64_put(head + 40, XXH3_64bits_withSeed(head + FRAME_HEAD_BYTES, payload, seed));
}

static void drive(struct loader *loader, struct fake *const fakes[2], struct memory_channel *channel)
{
    uint8_t *at = (uint8_t *)(uintptr_t)channel->at;
    uint32_t round = 1;

    for (unsigned i = 0; i < SECTIONS_MAX && channel->end - at >= 2 + FRAME_HEAD_BYTES; i++) {
        struct err err = { 0 };
        bool mark;
        uint32_t id = at[1];
        if (at[0] & FLAG_RIGHT) {
            loader_barrier(loader, NULL); /* what a delta changes has been stored */
            put_right(id >= 1 && id <= 2 ? fakes[id - 1] : NULL, at + 2, id, round, (size_t)(channel->end - at - 2));
        }
        channel->at = at + 2;
        int ret = loader_frame(loader, id, &mark, &err);
        if (ret < 0) {
            if (!err.text[0]) {
                abort(); /* every refusal comes with its sentence */
            }
            return;
        }
        round += mark;
        at = (uint8_t *)(uintptr_t)channel->at;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct fake *fakes[2];
    struct source *sources[2];
    struct loader *loader;

    for (unsigned i = 0; i < 2; i++) {
        if (!fakes[i]) {
            fakes[i] = fake_new(i + 1, UNITS);
            fakes[i]->hole = 70; /* fake_store() aborts on it, and behind the last unit */
        }
        sources[i] = &fakes[i]->source;
    }
    uint8_t *copy = malloc(bytes ? bytes : 1);
    if (bytes) {
        memcpy(copy, data, bytes);
    }
    struct memory_channel channel = {
        .channel = { .ops = &memory_ops, .can_read = true, .name = "memory" },
        .at = copy,
        .end = copy + bytes,
    };
    struct loader_options options = {
        .workers = 1,
        .sources = sources,
        .source_count = 2,
        .channel = &channel.channel,
        .pool_bytes = 1, /* the fewest chunks that work */
    };
    if (loader_new(&options, &loader, NULL) == 0) {
        drive(loader, fakes, &channel);
        loader_barrier(loader, NULL);
        loader_free(loader);
    }
    free(copy);
    return 0;
}
