/* A source without a guest: an array of pages, dirty words with the litmus' obligations reduced to what a test can
 * hold in its head. Writers store through fake_write(), which marks after the data, unconditionally. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "migration/threads/source.h"

enum { FAKE_UNIT = 4096 };

struct fake {
    struct source source;
    uint8_t *pages;
    _Atomic uint64_t *dirty;
    uint64_t hole; /* this unit does not exist; UINT64_MAX: none */
    _Atomic uint64_t stores, zeros, revokes, waits;
    _Atomic int copy_error, store_error;
};

static inline struct fake *fake_of(struct source *source)
{
    return (struct fake *)source;
}

static uint64_t fake_next(struct source *source, uint64_t word)
{
    while (word < source->words && !atomic_load_explicit(&fake_of(source)->dirty[word], memory_order_relaxed)) {
        word++;
    }
    return word < source->words ? word : source->words;
}

static uint64_t fake_take(struct source *source, uint64_t word)
{
    return atomic_exchange(&fake_of(source)->dirty[word], 0);
}

static uint64_t fake_revoke_begin(struct source *source)
{
    return atomic_fetch_add(&fake_of(source)->revokes, 1) + 1;
}

static void fake_revoke_wait(struct source *source, uint64_t token)
{
    if (token == 0 || token > atomic_load(&fake_of(source)->revokes)) {
        abort();
    }
    atomic_fetch_add(&fake_of(source)->waits, 1);
}

static void fake_move(uint8_t *to, const uint8_t *from)
{
    for (unsigned i = 0; i < FAKE_UNIT; i += 8) {
        uint64_t v = atomic_load_explicit((const _Atomic uint64_t *)(const void *)(from + i), memory_order_relaxed);
        atomic_store_explicit((_Atomic uint64_t *)(void *)(to + i), v, memory_order_relaxed);
    }
}

static int fake_copy(struct source *source, uint64_t unit, void *out)
{
    int error = atomic_load(&fake_of(source)->copy_error);
    if (unit >= source->units || unit == fake_of(source)->hole || (uintptr_t)out % 64) {
        abort();
    }
    fake_move(out, fake_of(source)->pages + unit * FAKE_UNIT);
    return error;
}

static uint64_t fake_exists(struct source *source, uint64_t word)
{
    uint64_t left = source->units - word * 64;
    uint64_t mask = left >= 64 ? UINT64_MAX : (UINT64_C(1) << left) - 1;
    uint64_t hole = fake_of(source)->hole;
    return hole / 64 == word ? mask & ~(UINT64_C(1) << hole % 64) : mask;
}

static uint64_t fake_dirty(struct source *source)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < source->words; i++) {
        count += (uint64_t)__builtin_popcountll(atomic_load(&fake_of(source)->dirty[i]));
    }
    return count;
}

static int fake_store(struct source *source, uint64_t unit, const void *data)
{
    if (unit >= source->units || unit == fake_of(source)->hole) {
        abort();
    }
    memcpy(fake_of(source)->pages + unit * FAKE_UNIT, data, FAKE_UNIT);
    atomic_fetch_add(&fake_of(source)->stores, 1);
    return atomic_load(&fake_of(source)->store_error);
}

static int fake_zero(struct source *source, uint64_t unit)
{
    if (unit >= source->units || unit == fake_of(source)->hole) {
        abort();
    }
    memset(fake_of(source)->pages + unit * FAKE_UNIT, 0, FAKE_UNIT);
    atomic_fetch_add(&fake_of(source)->zeros, 1);
    return 0;
}

static const void *fake_peek(struct source *source, uint64_t unit, void *scratch)
{
    (void)scratch;
    return fake_of(source)->pages + unit * FAKE_UNIT;
}

static const struct source_ops fake_ops = {
    .next = fake_next,
    .take = fake_take,
    .revoke_begin = fake_revoke_begin,
    .revoke_wait = fake_revoke_wait,
    .copy = fake_copy,
    .dirty = fake_dirty,
    .store = fake_store,
    .zero = fake_zero,
    .peek = fake_peek,
    .exists = fake_exists,
};

static inline struct fake *fake_new(uint32_t id, uint64_t units)
{
    struct fake *fake = calloc(1, sizeof(*fake));
    fake->source = (struct source){ .ops = &fake_ops, .id = id, .units = units, .words = (units + 63) / 64 };
    fake->source.unit_bytes = FAKE_UNIT;
    strcpy(fake->source.name, "fake/ram");
    fake->pages = aligned_alloc(FAKE_UNIT, units * FAKE_UNIT);
    memset(fake->pages, 0, units * FAKE_UNIT);
    fake->dirty = calloc(fake->source.words, sizeof(*fake->dirty));
    fake->hole = UINT64_MAX;
    return fake;
}

static inline void fake_free(struct fake *fake)
{
    free(fake->pages);
    free(fake->dirty);
    free(fake);
}

static inline void fake_mark_all(struct fake *fake)
{
    for (uint64_t i = 0; i < fake->source.words; i++) {
        atomic_store(&fake->dirty[i], fake_exists(&fake->source, i));
    }
}

static inline uint64_t fake_random(uint64_t *seed)
{
    uint64_t v = *seed += UINT64_C(0x9e3779b97f4a7c15);
    v = (v ^ (v >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    v = (v ^ (v >> 27)) * UINT64_C(0x94d049bb133111eb);
    return v ^ (v >> 31);
}

/* A mixture as a guest has it: a third zeros, a third that compresses, a third noise. */
static inline void fake_fill(struct fake *fake, uint64_t seed)
{
    for (uint64_t unit = 0; unit < fake->source.units; unit++) {
        uint64_t *at = (uint64_t *)(void *)(fake->pages + unit * FAKE_UNIT);
        uint64_t kind = fake_random(&seed) % 3;
        for (unsigned i = 0; kind && i < FAKE_UNIT / 8; i++) {
            at[i] = kind == 1 ? unit * 77 + i / 16 : fake_random(&seed);
        }
    }
    fake_mark_all(fake);
}

static inline void fake_write(struct fake *fake, uint64_t unit, unsigned word, uint64_t value)
{
    _Atomic uint64_t *at = (_Atomic uint64_t *)(void *)(fake->pages + unit * FAKE_UNIT) + word;
    atomic_store_explicit(at, value, memory_order_relaxed);
    atomic_fetch_or(&fake->dirty[unit / 64], UINT64_C(1) << unit % 64);
}

static inline bool fake_same(const struct fake *a, const struct fake *b)
{
    return a->source.units == b->source.units && memcmp(a->pages, b->pages, a->source.units * FAKE_UNIT) == 0;
}
