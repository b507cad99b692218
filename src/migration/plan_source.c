/* The two ends of a plan's samples: pages of RAM, by list, as a source; and memory that takes them and is given back. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "migration/plan.h"

enum { WORDS_MAX = PLAN_UNITS_MAX / CHUNK_UNITS, SINK_BYTES = PLAN_UNITS_MAX * PAGE_BYTES };
_Static_assert(PLAN_UNITS_MAX % CHUNK_UNITS == 0, "whole words");

struct plan_source {
    struct source source;
    struct ram *ram;                     /* sample */
    uint64_t page[PLAN_UNITS_MAX];       /* sample */
    _Atomic uint64_t bits[WORDS_MAX];    /* sample: dirty */
    uint8_t *memory;                     /* sink */
    _Atomic bool stored[PLAN_UNITS_MAX]; /* sink: not zero any more */
};

static struct plan_source *of(struct source *source)
{
    return (struct plan_source *)source;
}

static uint64_t op_exists(struct source *source, uint64_t word)
{
    if (word >= source->words)
        return 0;
    uint64_t left = source->units - word * CHUNK_UNITS;
    return left >= CHUNK_UNITS ? UINT64_MAX : (UINT64_C(1) << left) - 1;
}

/* Relaxed: bits are set before the round that takes them begins, which orders enough. */
static uint64_t op_next(struct source *source, uint64_t word)
{
    while (word < source->words && !atomic_load_explicit(&of(source)->bits[word], memory_order_relaxed))
        word++;
    return word;
}

static uint64_t op_take(struct source *source, uint64_t word)
{
    return atomic_exchange_explicit(&of(source)->bits[word], 0, memory_order_relaxed);
}

/* What the guest writes meanwhile is of no interest. */
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
    ram_copy_page_out(out, ram_page_host(of(source)->ram, of(source)->page[unit]));
    return 0;
}

static uint64_t op_dirty(struct source *source)
{
    uint64_t units = 0;
    for (uint64_t word = 0; word < source->words; word++)
        units += (uint64_t)__builtin_popcountll(atomic_load_explicit(&of(source)->bits[word], memory_order_relaxed));
    return units;
}

static int op_store(struct source *source, uint64_t unit, const void *data)
{
    if (unit >= source->units)
        return -EPROTO;
    memcpy(of(source)->memory + unit * PAGE_BYTES, data, PAGE_BYTES);
    atomic_store_explicit(&of(source)->stored[unit], true, memory_order_relaxed);
    return 0;
}

static int op_zero(struct source *source, uint64_t unit)
{
    if (unit >= source->units)
        return -EPROTO;
    if (atomic_load_explicit(&of(source)->stored[unit], memory_order_relaxed)) /* else it is, and stays untouched */
        memset(of(source)->memory + unit * PAGE_BYTES, 0, PAGE_BYTES);
    return 0;
}

static const void *op_peek(struct source *source, uint64_t unit, void *scratch)
{
    (void)scratch;
    return of(source)->memory + unit * PAGE_BYTES;
}

static const struct source_ops sample_ops = {
    .next = op_next,
    .take = op_take,
    .revoke_begin = op_revoke_begin,
    .revoke_wait = op_revoke_wait,
    .copy = op_copy,
    .dirty = op_dirty,
    .exists = op_exists,
};

static const struct source_ops sink_ops = {
    .store = op_store,
    .zero = op_zero,
    .peek = op_peek,
    .dirty = op_dirty,
    .exists = op_exists,
};

static struct plan_source *make(const struct source_ops *ops)
{
    struct plan_source *self = calloc(1, sizeof(*self));
    if (self)
        self->source = (struct source){ .ops = ops,
                                        .id = 1,
                                        .name = "godwit/sample",
                                        .unit_bytes = PAGE_BYTES,
                                        .units = PLAN_UNITS_MAX,
                                        .words = WORDS_MAX };
    return self;
}

int plan_sample_new(struct ram *ram, const uint64_t *page, unsigned pages, struct source **out, struct err *err)
{
    struct plan_source *self = make(&sample_ops);
    if (!self)
        return err_set(err, -ENOMEM, "no memory for the plan's samples");
    self->ram = ram;
    memcpy(self->page, page, pages * sizeof(*page));
    *out = &self->source;
    return 0;
}

void plan_sample_mark(struct source *sample, unsigned from, unsigned count)
{
    for (unsigned unit = from; unit < from + count; unit++)
        atomic_fetch_or_explicit(&of(sample)->bits[unit / CHUNK_UNITS], UINT64_C(1) << unit % CHUNK_UNITS,
                                 memory_order_relaxed);
}

/* Fresh from the host, like the memory of a machine that waits for its guest: the first touch is part of the cost. */
int plan_sink_new(struct source **out, struct err *err)
{
    struct plan_source *self = make(&sink_ops);
    void *memory = mmap(NULL, SINK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!self || memory == MAP_FAILED) {
        free(self);
        if (memory != MAP_FAILED)
            munmap(memory, SINK_BYTES);
        return err_set(err, -ENOMEM, "no memory for a plan's samples");
    }
    self->memory = memory;
    *out = &self->source;
    return 0;
}

void plan_source_free(struct source *source)
{
    if (!source)
        return;
    if (of(source)->memory)
        munmap(of(source)->memory, SINK_BYTES);
    free(source);
}
