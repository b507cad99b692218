#include "migration/threads/load.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "migration/threads/compress.h"
#include "migration/threads/delta.h"
#include "migration/threads/scan.h"

static int store_unit(struct source *source, struct digest *digest, struct digest_change *change, uint64_t unit,
                      const uint8_t *data, const struct load_scratch *scratch, struct err *err)
{
    int ret = source->ops->store(source, unit, data);
    const void *now = ret < 0 ? NULL : source->ops->peek(source, unit, scratch->unit);

    if (!now) {
        return err_set_errno(err, ret < 0 ? ret : -EIO, "cannot store unit %" PRIu64 " of %s", unit, source->name);
    }
    digest_replace(digest, change, unit, digest_hash(digest->key, now, source->unit_bytes));
    return 0;
}

/* How many of `most` bits from the lowest on stand side by side. */
static unsigned side_by_side(uint64_t units, unsigned most)
{
    uint64_t from = units >> __builtin_ctzll(units);
    unsigned count = ~from ? (unsigned)__builtin_ctzll(~from) : 64;
    return count < most ? count : most;
}

/* A run of units that came, where the source takes more than one at once; then each is read back. */
static int store_run(struct source *source, struct digest *digest, struct digest_change *change, uint64_t unit,
                     unsigned count, const uint8_t *data, const struct load_scratch *scratch, struct err *err)
{
    int ret = source->ops->store_run(source, unit, count, data);

    for (unsigned i = 0; ret == 0 && i < count; i++) {
        const void *now = source->ops->peek(source, unit + i, scratch->unit);
        if (!now) {
            ret = -EIO;
        } else {
            digest_replace(digest, change, unit + i, digest_hash(digest->key, now, source->unit_bytes));
        }
    }
    return ret < 0
               ? err_set_errno(err, ret, "cannot store %u units from %" PRIu64 " on of %s", count, unit, source->name)
               : 0;
}

static int store_units(struct source *source, struct digest *digest, struct digest_change *change, struct chunk *chunk,
                       const struct frame *frame, const struct load_scratch *scratch, struct err *err)
{
    struct unpack unpack;
    uint64_t left = frame->data;
    const uint8_t *run = NULL;
    int units;

    unpack_begin(&unpack, &scratch->unpacker, frame, chunk_payload(chunk), source->unit_bytes);
    while ((units = unpack_next(&unpack, &run, err)) > 0) {
        for (int i = 0, count; i < units; i += count) {
            uint64_t unit = chunk->frame.first_unit + (unsigned)__builtin_ctzll(left);
            const uint8_t *data = run + (size_t)i * source->unit_bytes;
            count = source->ops->store_run ? (int)side_by_side(left, (unsigned)(units - i)) : 1;
            int ret = source->ops->store_run
                          ? store_run(source, digest, change, unit, (unsigned)count, data, scratch, err)
                          : store_unit(source, digest, change, unit, data, scratch, err);
            if (ret < 0) {
                return ret;
            }
            for (int done = 0; done < count; done++) {
                left &= left - 1;
            }
        }
    }
    return units;
}

/* Deltas go onto what memory holds: the round before was loaded by all threads before this one began. */
static int change_units(struct source *source, struct digest *digest, struct digest_change *change, struct chunk *chunk,
                        struct delta_split *split, const struct load_scratch *scratch, struct err *err)
{
    for (uint64_t left = split->units; left; left &= left - 1) {
        uint64_t unit = chunk->frame.first_unit + (unsigned)__builtin_ctzll(left);
        const void *was = source->ops->peek(source, unit, scratch->unit);

        if (!was) {
            return err_set(err, -EIO, "cannot read unit %" PRIu64 " of %s", unit, source->name);
        }
        memcpy(scratch->merged, was, source->unit_bytes);
        int ret = delta_apply(split, source, unit, digest_last(digest, unit), scratch->merged, err);
        if (ret == 0) {
            ret = store_unit(source, digest, change, unit, scratch->merged, scratch, err);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return split->at == split->end ? 0
                                   : err_set(err, -EPROTO, "byte %zu of the payload: bytes behind the last delta",
                                             (size_t)(split->at - split->begin));
}

static int data_units(struct source *source, struct digest *digest, struct digest_change *change, struct chunk *chunk,
                      const struct load_scratch *scratch, struct err *err)
{
    struct delta_split split;

    if (chunk->frame.kind != FRAME_DELTAS) {
        return store_units(source, digest, change, chunk, &chunk->frame, scratch, err);
    }
    int ret = delta_open(&split, source, &chunk->frame, chunk_payload(chunk), err);
    if (ret == 0) {
        ret = store_units(source, digest, change, chunk, &split.rest, scratch, err);
    }
    if (ret == 0) {
        ret = change_units(source, digest, change, chunk, &split, scratch, err);
    }
    return ret;
}

static int zero_units(struct source *source, struct digest *digest, struct digest_change *change, struct chunk *chunk,
                      const struct load_scratch *scratch, struct err *err)
{
    for (uint64_t left = chunk->frame.zero; left; left &= left - 1) {
        uint64_t unit = chunk->frame.first_unit + (unsigned)__builtin_ctzll(left);
        int ret = source->ops->zero(source, unit);

        if (ret < 0) {
            return err_set_errno(err, ret, "cannot clear unit %" PRIu64 " of %s", unit, source->name);
        }
        if (unit_hash_is_zero(digest_last(digest, unit))) {
            continue; /* nothing was ever stored here: looking would touch fresh memory */
        }
        const void *now = source->ops->peek(source, unit, scratch->unit);
        if (!now) {
            return err_set(err, -EIO, "cannot read back unit %" PRIu64 " of %s", unit, source->name);
        }
        struct unit_hash hash =
            unit_is_zero(now, source->unit_bytes) ? DIGEST_ZERO : digest_hash(digest->key, now, source->unit_bytes);
        digest_replace(digest, change, unit, hash);
    }
    return 0;
}

int load_chunk(struct source *source, struct digest *digest, struct chunk *chunk, const struct load_scratch *scratch,
               struct err *err)
{
    struct digest_change change = { { 0 } };
    int ret = frame_verify(chunk_head(chunk), source->id, chunk_payload(chunk), err);

    if (ret == 0 && source->ops->expect && chunk->frame.data) {
        source->ops->expect(source, chunk->frame.first_unit / CHUNK_UNITS, chunk->frame.data);
    }
    if (ret == 0) {
        ret = data_units(source, digest, &change, chunk, scratch, err);
    }
    if (ret == 0) {
        ret = zero_units(source, digest, &change, chunk, scratch, err);
    }
    digest_apply(digest, &change);
    return ret < 0 && err ? err_prefix(err, "%s, chunk at unit %" PRIu64, source->name, chunk->frame.first_unit) : ret;
}
