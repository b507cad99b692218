#include "migration/sources.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "migration/heat.h"

_Static_assert((int)SOURCE_UNIT_BYTES_MAX >= (int)PAGE_BYTES, "a page is one unit");
_Static_assert((int)CHUNK_UNITS == (int)DIRTY_WORD_PAGES, "a chunk is one dirty word");

enum { EXPECT_UNITS_MIN = CHUNK_UNITS / 4 };

struct source_ram {
    struct source source;
    /* fixed after new */
    struct ram *ram;
    uint64_t bytes;
    bool fresh[RAM_BLOCKS_MAX]; /* was known to be zero before the first load */
    /* one bit a page, set by the load thread that stored it: fresh memory that is fresh no longer */
    _Atomic uint64_t *stored;
    struct heat heat; /* as a source */
};

static struct source_ram *ram_of(struct source *source)
{
    return (struct source_ram *)source;
}

static const struct ram_block *block_of_word(const struct source_ram *self, uint64_t word)
{
    return ram_block_by_page(self->ram, word * DIRTY_WORD_PAGES);
}

static uint64_t op_exists(struct source *source, uint64_t word)
{
    const struct source_ram *self = ram_of(source);
    const struct ram_block *block = word < source->words ? block_of_word(self, word) : NULL;
    if (!block)
        return 0;
    uint64_t end = block->first_page + (block->bytes >> PAGE_SHIFT), first = word * DIRTY_WORD_PAGES;
    assert(first >= block->first_page && first < end);
    return end - first >= DIRTY_WORD_PAGES ? UINT64_MAX : (UINT64_C(1) << (end - first)) - 1;
}

static uint64_t op_next(struct source *source, uint64_t word)
{
    return dirty_next_word(ram_of(source)->ram->dirty, DIRTY_MIGRATION, word);
}

static uint64_t op_take(struct source *source, uint64_t word)
{
    struct source_ram *self = ram_of(source);
    uint64_t units = dirty_take_word(self->ram->dirty, DIRTY_MIGRATION, word) & op_exists(source, word);
    uint64_t keep = heat_keep(&self->heat, word, units);

    /* Back they go: a mark between the two is one of them, or stays beside them. */
    for (uint64_t left = keep; left; left &= left - 1)
        dirty_mark_client(self->ram->dirty, DIRTY_MIGRATION, word * DIRTY_WORD_PAGES + (unsigned)__builtin_ctzll(left),
                          1);
    return units & ~keep;
}

static uint64_t op_revoke_begin(struct source *source)
{
    return dirty_revoke_begin(ram_of(source)->ram->dirty);
}

static void op_revoke_wait(struct source *source, uint64_t token)
{
    dirty_revoke_wait(ram_of(source)->ram->dirty, token);
}

static int op_copy(struct source *source, uint64_t unit, void *out)
{
    const uint8_t *page = ram_page_host(ram_of(source)->ram, unit);
    assert(page); /* take() gives only pages that exist */
    ram_copy_page_out(out, page);
    return 0;
}

static uint64_t op_blank(struct source *source, uint64_t word)
{
    return ram_untouched(ram_of(source)->ram, word * DIRTY_WORD_PAGES);
}

static uint64_t op_dirty(struct source *source)
{
    return dirty_count(ram_of(source)->ram->dirty, DIRTY_MIGRATION);
}

/* The first touch of a page costs more than its contents: one call for 64 of them instead of 64 faults, and a huge page
 * at once where the host has one. Not for a few pages among many that are zero: those stay untouched. */
static void op_expect(struct source *source, uint64_t word, uint64_t units)
{
    struct source_ram *self = ram_of(source);
    struct ram_block *block = ram_block_by_page(self->ram, word * DIRTY_WORD_PAGES);
    uint64_t exists = op_exists(source, word);
    if (!block || __builtin_popcountll(units) < EXPECT_UNITS_MIN || !self->fresh[block - self->ram->block] ||
        atomic_load_explicit(&self->stored[word], memory_order_relaxed))
        return;
    uint64_t offset = (word * DIRTY_WORD_PAGES - block->first_page) << PAGE_SHIFT;
    ram_touch(block, offset, (uint64_t)__builtin_popcountll(exists) << PAGE_SHIFT);
}

/* No vCPU of this machine runs while it loads, and all of them start with empty TLBs and no translated code: so
 * there is nobody to mark for. */
static int op_store(struct source *source, uint64_t unit, const void *data)
{
    struct source_ram *self = ram_of(source);
    uint8_t *page = ram_page_host(self->ram, unit);
    if (!page)
        return -EPROTO;
    ram_copy_page_in(page, data);
    atomic_fetch_or_explicit(&self->stored[unit / CHUNK_UNITS], UINT64_C(1) << (unit % CHUNK_UNITS),
                             memory_order_relaxed);
    return 0;
}

static int op_zero(struct source *source, uint64_t unit)
{
    static const _Alignas(64) uint8_t zero[PAGE_BYTES];
    struct source_ram *self = ram_of(source);
    const struct ram_block *block = ram_block_by_page(self->ram, unit);
    if (!block)
        return -EPROTO;
    uint64_t stored = atomic_load_explicit(&self->stored[unit / CHUNK_UNITS], memory_order_relaxed);
    if (self->fresh[block - self->ram->block] && !(stored >> (unit % CHUNK_UNITS) & 1))
        return 0; /* the host gives zeroes to whoever touches it first */
    uint8_t *page = ram_page_host(self->ram, unit);
    if (!ram_page_is_zero(page))
        ram_copy_page_in(page, zero);
    return 0;
}

static const void *op_peek(struct source *source, uint64_t unit, void *scratch)
{
    (void)scratch;
    return ram_page_host(ram_of(source)->ram, unit);
}

static const struct source_ops ram_ops = {
    .next = op_next,
    .take = op_take,
    .revoke_begin = op_revoke_begin,
    .revoke_wait = op_revoke_wait,
    .copy = op_copy,
    .dirty = op_dirty,
    .blank = op_blank,
    .expect = op_expect,
    .store = op_store,
    .zero = op_zero,
    .peek = op_peek,
    .exists = op_exists,
};

int source_ram_new(struct ram *ram, uint32_t id, struct source **out, struct err *err)
{
    struct source_ram *self = calloc(1, sizeof(*self));
    uint64_t words = dirty_words(ram->dirty);
    if (self)
        self->stored = calloc(words ? words : 1, sizeof(*self->stored));
    if (!self || !self->stored || heat_init(&self->heat, words) < 0) {
        if (self)
            free(self->stored);
        free(self);
        return err_set(err, -ENOMEM, "no memory for the migration's page table");
    }
    self->source = (struct source){ .ops = &ram_ops, .id = id, .name = "godwit/ram", .unit_bytes = PAGE_BYTES };
    self->source.units = ram_pages(ram);
    self->source.words = words;
    self->ram = ram;
    for (unsigned i = 0; i < ram->blocks; i++) {
        self->bytes += ram->block[i].bytes;
        self->fresh[i] = ram->block[i].fresh;
    }
    *out = &self->source;
    return 0;
}

void source_ram_free(struct source *source)
{
    if (!source)
        return;
    heat_free(&ram_of(source)->heat);
    free(ram_of(source)->stored);
    free(source);
}

void source_ram_leave_hot(struct source *source, uint64_t pages)
{
    heat_round(&ram_of(source)->heat, pages);
}

void source_ram_take_all(struct source *source)
{
    heat_rest(&ram_of(source)->heat);
}

void source_ram_forget_hot(struct source *source)
{
    heat_forget(&ram_of(source)->heat);
}

bool source_ram_is_fresh(const struct source *source)
{
    const struct source_ram *self = (const struct source_ram *)source;

    for (unsigned i = 0; i < self->ram->blocks; i++)
        if (!self->fresh[i] || !__atomic_load_n(&self->ram->block[i].fresh, __ATOMIC_RELAXED))
            return false;
    for (uint64_t word = 0; word < source->words; word++)
        if (atomic_load_explicit(&self->stored[word], memory_order_relaxed))
            return false;
    return true;
}

void source_ram_forget(struct source *source)
{
    struct source_ram *self = ram_of(source);
    for (unsigned i = 0; i < self->ram->blocks; i++) {
        struct ram_block *block = &self->ram->block[i];
        if (!self->fresh[i] || !ram_forget(block))
            continue;
        uint64_t words =
            ((block->bytes >> PAGE_SHIFT) + CHUNK_UNITS - 1) / CHUNK_UNITS; /* a block begins with one of its own */
        for (uint64_t word = 0; word < words; word++)
            atomic_store_explicit(&self->stored[block->first_page / CHUNK_UNITS + word], 0, memory_order_relaxed);
    }
}

uint64_t source_ram_bytes(const struct source *source)
{
    return ((const struct source_ram *)source)->bytes;
}
