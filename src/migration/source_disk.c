#include "migration/source_disk.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/dirty_map.h"

_Static_assert((int)SOURCE_UNIT_BYTES_MAX >= (int)DIRTY_MAP_UNIT_BYTES, "a unit of the map is one of the street");
_Static_assert((int)CHUNK_UNITS == (int)DIRTY_MAP_WORD_UNITS, "a chunk is one word of the map");

enum { UNIT = DIRTY_MAP_UNIT_BYTES };
#define CLEAR_PIECE_BYTES (UINT64_C(16) << 20)

struct source_disk {
    struct source source;
    /* fixed after new */
    struct block *block;
    uint64_t bytes;
    enum disk_copy copy;
    /* sending */
    struct dirty_map *map;
    /* loading: a bit for each unit that was stored, by the load thread that has it in hand */
    _Atomic uint64_t *stored;
    _Atomic uint64_t stored_units;
};

static struct source_disk *disk_of(struct source *source)
{
    return (struct source_disk *)source;
}

static uint64_t bytes_of(const struct source_disk *self, uint64_t unit, uint64_t count)
{
    uint64_t at = unit * UNIT;
    assert(at < self->bytes);
    return self->bytes - at < count * UNIT ? self->bytes - at : count * UNIT;
}

static uint64_t op_exists(struct source *source, uint64_t word)
{
    if (word >= source->words)
        return 0;
    uint64_t left = source->units - word * CHUNK_UNITS;
    return left >= CHUNK_UNITS ? UINT64_MAX : (UINT64_C(1) << left) - 1;
}

/* --- sending ------------------------------------------------------------------------------------------------ */

static uint64_t op_next(struct source *source, uint64_t word)
{
    return dirty_map_next(disk_of(source)->map, word);
}

static uint64_t op_take(struct source *source, uint64_t word)
{
    return dirty_map_take(disk_of(source)->map, word);
}

static uint64_t op_dirty(struct source *source)
{
    return disk_of(source)->map ? dirty_map_count(disk_of(source)->map) : 0;
}

/* Nobody holds a permission to write unmarked: whoever has not marked yet will, behind what he writes (dirty_map.h). */
static uint64_t op_revoke_begin(struct source *source)
{
    (void)source;
    return 0;
}

static void op_revoke_wait(struct source *source, uint64_t token)
{
    (void)source, (void)token;
}

static int op_copy(struct source *source, uint64_t unit, void *out)
{
    return block_copy_out(disk_of(source)->block, unit * UNIT, out, UNIT);
}

/* How many of these units stand side by side, from the lowest on. */
static unsigned run_of(uint64_t units, unsigned *from)
{
    *from = (unsigned)__builtin_ctzll(units);
    uint64_t rest = ~(units >> *from);
    return rest ? (unsigned)__builtin_ctzll(rest) : CHUNK_UNITS;
}

static int op_fetch(struct source *source, uint64_t word, uint64_t units, void *out)
{
    uint8_t *at = out;
    int result = 0;
    while (units && result == 0) {
        unsigned from, count = run_of(units, &from);
        result = block_copy_out(disk_of(source)->block, (word * CHUNK_UNITS + from) * UNIT, at, (uint64_t)count * UNIT);
        at += (size_t)count * UNIT;
        units = from + count < CHUNK_UNITS ? units & UINT64_MAX << (from + count) : 0;
    }
    return result;
}

/* Whole units of bytes [at, end) of a word that begins at `base`. */
static uint64_t units_between(uint64_t base, uint64_t at, uint64_t end)
{
    uint64_t first = (at - base + UNIT - 1) / UNIT, last = (end - base) / UNIT;
    uint64_t below = last >= CHUNK_UNITS ? UINT64_MAX : (UINT64_C(1) << last) - 1;
    return first >= CHUNK_UNITS ? 0 : below & UINT64_MAX << first;
}

static uint64_t op_blank(struct source *source, uint64_t word)
{
    struct source_disk *self = disk_of(source);
    uint64_t base = word * CHUNK_UNITS * UNIT, at = base, blank = 0;
    uint64_t end = self->bytes - base < DIRTY_MAP_WORD_BYTES ? self->bytes : base + DIRTY_MAP_WORD_BYTES;
    while (at < end) {
        uint64_t bytes = end - at;
        bool data = true;
        if (block_extent(self->block, at, &bytes, &data) < 0 || bytes == 0)
            return blank; /* reading it will tell what is wrong */
        bytes = bytes < end - at ? bytes : end - at;
        if (!data)
            blank |= units_between(base, at, at + bytes);
        at += bytes;
    }
    return blank;
}

int source_disk_track(struct source *source, struct err *err)
{
    struct source_disk *self = disk_of(source);
    assert(!self->map);
    int result = dirty_map_new(self->bytes, &self->map, err);
    if (result < 0)
        return result;
    /* First: what is written while we look is marked by whoever writes it. What was written before is seen here. */
    block_track(self->block, self->map);
    for (uint64_t at = 0; at < self->bytes;) {
        uint64_t bytes = self->bytes - at;
        bool travels = true;
        result = self->copy == DISK_TOP ? block_own_extent(self->block, at, &bytes, &travels)
                                        : block_extent(self->block, at, &bytes, &travels);
        if (result == -EOPNOTSUPP)
            return err_set(err, result,
                           "%s has no backing file, of which the destination could have the same: -b copies all of it",
                           source->name);
        if (result < 0 || bytes == 0)
            return err_set_errno(err, result ? result : -EIO, "%s: it cannot be learnt where its data is",
                                 source->name);
        bytes = bytes < self->bytes - at ? bytes : self->bytes - at;
        if (travels)
            dirty_map_mark(self->map, at, bytes);
        at += bytes;
    }
    return 0;
}

/* --- loading ------------------------------------------------------------------------------------------------ */

static void note_stored(struct source_disk *self, uint64_t unit, unsigned count)
{
    atomic_fetch_add_explicit(&self->stored_units, count, memory_order_relaxed);
    for (uint64_t i = unit; i < unit + count; i++) /* relaxed: each bit is its owner's */
        atomic_fetch_or_explicit(&self->stored[i / 64], UINT64_C(1) << i % 64, memory_order_relaxed);
}

static int op_store_run(struct source *source, uint64_t unit, unsigned count, const void *data)
{
    struct source_disk *self = disk_of(source);
    int result = block_copy_in(self->block, unit * UNIT, data, bytes_of(self, unit, count));
    if (result == 0)
        note_stored(self, unit, count);
    return result;
}

static int op_store(struct source *source, uint64_t unit, const void *data)
{
    return op_store_run(source, unit, 1, data);
}

static int op_zero(struct source *source, uint64_t unit)
{
    struct source_disk *self = disk_of(source);
    uint64_t stored = atomic_load_explicit(&self->stored[unit / 64], memory_order_relaxed);
    /* Nothing was stored here: zeros, since prepare(), or what the backing file has. */
    if (self->copy == DISK_FULL && !(stored >> unit % 64 & 1))
        return 0;
    int result = block_make_zero(self->block, unit * UNIT, bytes_of(self, unit, 1));
    if (result == 0)
        note_stored(self, unit, 1);
    return result;
}

static const void *op_peek(struct source *source, uint64_t unit, void *scratch)
{
    return op_copy(source, unit, scratch) < 0 ? NULL : scratch;
}

static int clear(struct source_disk *self, uint64_t at, uint64_t bytes, int (*alive)(void *opaque), void *opaque)
{
    int result = 0;
    while (bytes > 0 && result == 0) {
        uint64_t piece = bytes < CLEAR_PIECE_BYTES ? bytes : CLEAR_PIECE_BYTES;
        result = block_make_zero(self->block, at, piece);
        at += piece;
        bytes -= piece;
        if (result == 0)
            result = alive(opaque);
    }
    return result;
}

int source_disk_prepare(struct source *source, int (*alive)(void *opaque), void *opaque, struct err *err)
{
    struct source_disk *self = disk_of(source);
    bool top = self->copy == DISK_TOP;
    int result = 0;
    self->stored = calloc(source->words + 1, sizeof(*self->stored));
    if (!self->stored)
        return err_set(err, -ENOMEM, "%s: no memory to follow what is loaded", source->name);
    for (uint64_t at = 0; at < self->bytes && result == 0;) {
        uint64_t bytes = self->bytes - at;
        bool there = true;
        result =
            top ? block_own_extent(self->block, at, &bytes, &there) : block_extent(self->block, at, &bytes, &there);
        if (result == 0 && there && top)
            return err_set(err, -EEXIST, "%s: there is something in it, above the backing file that both sides share",
                           source->name);
        bytes = bytes < self->bytes - at ? bytes : self->bytes - at;
        if (result == 0 && bytes == 0)
            result = -EIO;
        if (result == 0 && there)
            result = clear(self, at, bytes, alive, opaque);
        at += bytes;
    }
    if (result == -EOPNOTSUPP && top)
        return err_set(err, result, "%s has no backing file here, and the source sends only what is above it",
                       source->name);
    return result < 0 ? err_set_errno(err, result, "%s cannot be emptied", source->name) : 0;
}

/* --- both --------------------------------------------------------------------------------------------------- */

static const struct source_ops disk_ops = {
    .next = op_next,
    .take = op_take,
    .revoke_begin = op_revoke_begin,
    .revoke_wait = op_revoke_wait,
    .copy = op_copy,
    .fetch = op_fetch,
    .dirty = op_dirty,
    .blank = op_blank,
    .store = op_store,
    .store_run = op_store_run,
    .zero = op_zero,
    .peek = op_peek,
    .exists = op_exists,
};

int source_disk_new(struct block *block, uint32_t id, enum disk_copy copy, struct source **out, struct err *err)
{
    struct source_disk *self = calloc(1, sizeof(*self));
    *out = NULL;
    if (!self)
        return err_set(err, -ENOMEM, "no memory for disk '%s'", block_options_of(block)->name);
    assert(copy != DISK_SHARED);
    self->block = block;
    self->bytes = block_bytes(block);
    self->copy = copy;
    self->source = (struct source){ .ops = &disk_ops, .id = id, .unit_bytes = UNIT };
    snprintf(self->source.name, sizeof(self->source.name), "disk '%.50s'", block_options_of(block)->name);
    self->source.units = (self->bytes + UNIT - 1) / UNIT;
    self->source.words = (self->source.units + CHUNK_UNITS - 1) / CHUNK_UNITS;
    *out = &self->source;
    return 0;
}

void source_disk_free(struct source *source)
{
    if (!source)
        return;
    struct source_disk *self = disk_of(source);
    if (self->map)
        block_track(self->block, NULL);
    dirty_map_free(self->map);
    free(self->stored);
    free(self);
}

uint64_t source_disk_stored(const struct source *source)
{
    const struct source_disk *self = (const struct source_disk *)source;
    return atomic_load_explicit(&self->stored_units, memory_order_relaxed) * UNIT;
}

uint64_t source_disk_bytes(const struct source *source)
{
    return ((const struct source_disk *)source)->bytes;
}

struct block *source_disk_block(const struct source *source)
{
    return ((const struct source_disk *)source)->block;
}
