#include "migration/threads/delta.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bytes.h"

enum {
    KEEP_ROUNDS = 3,      /* a copy that was not looked at for so many rounds makes room for others */
    PAYS_UNITS_MIN = 512, /* fewer say nothing */
    PAYS_HITS = 8, /* one hit in so many looks is worth them: a look is a hundredth of what packing a unit takes */
    REST_ROUNDS_MAX = 64,
    KEEPER_MEAN_CHUNKS = 8,
};

/* A copy. Written by the worker that has its unit in hand, read by nobody else until the round's end. */
struct entry {
    uint64_t unit;
    uint32_t source, round; /* round: of the last look; 0: free */
    uint32_t base;          /* of the copy */
};

struct delta_cache {
    /* fixed after new */
    struct source *const *sources;
    unsigned source_count;
    uint32_t entries; /* at most; numbered from 1 */
    uint8_t *copies;  /* SOURCE_UNIT_BYTES_MAX each */
    size_t copies_bytes;
    struct entry *entry;
    uint32_t *free; /* entries that were given up */
    uint32_t *of_unit[PIPELINE_SOURCES_MAX];
    uint64_t table_bytes;
    /* owner: between rounds */
    uint32_t round, rest_rounds, resume_round;
    uint32_t free_count;
    bool paid, last; /* the round before had hits; this one is the last */
    /* atomic */
    _Atomic uint32_t taken;       /* of the free ones; may run past their number */
    _Atomic uint32_t used;        /* entries that were ever taken; likewise */
    _Atomic bool off;             /* copies may be stale: nobody looks until the next round empties the cache */
    _Atomic uint32_t looks, hits; /* in this round */
    _Atomic uint64_t units, bytes, misses;
};

/* --- one delta ------------------------------------------------------------------------------------------- */

static bool line_differs(const uint8_t *a, const uint8_t *b)
{
    uint64_t x[DELTA_LINE_BYTES / 8], y[DELTA_LINE_BYTES / 8], differs = 0;

    memcpy(x, a, sizeof(x));
    memcpy(y, b, sizeof(y));
    for (unsigned i = 0; i < DELTA_LINE_BYTES / 8; i++) {
        differs |= x[i] ^ y[i];
    }
    return differs;
}

size_t delta_encode(const uint8_t *was, const uint8_t *now, uint32_t unit_bytes, uint32_t base, uint8_t *out)
{
    uint64_t mask = 0;
    uint8_t *at = out + DELTA_HEAD_BYTES;

    for (unsigned line = 0; line < unit_bytes / DELTA_LINE_BYTES; line++) {
        size_t offset = (size_t)line * DELTA_LINE_BYTES;
        if (!line_differs(was + offset, now + offset)) {
            continue;
        }
        if (at == out + DELTA_BYTES_MAX) {
            return 0;
        }
        mask |= UINT64_C(1) << line;
        memcpy(at, now + offset, DELTA_LINE_BYTES);
        at += DELTA_LINE_BYTES;
    }
    be32_put(out, base);
    be64_put(out + 4, mask);
    return (size_t)(at - out);
}

/* --- the cache ------------------------------------------------------------------------------------------- */

static uint8_t *copy_of(const struct delta_cache *cache, uint32_t number)
{
    return cache->copies + (size_t)(number - 1) * SOURCE_UNIT_BYTES_MAX;
}

/* A free entry's number, 0 when there is none before the next round. */
static uint32_t take_entry(struct delta_cache *cache)
{
    /* Relaxed: numbers are handed out; what lies behind them was ordered by the round's beginning. */
    if (atomic_load_explicit(&cache->taken, memory_order_relaxed) < cache->free_count) {
        uint32_t i = atomic_fetch_add_explicit(&cache->taken, 1, memory_order_relaxed);
        if (i < cache->free_count) {
            return cache->free[i];
        }
    }
    if (atomic_load_explicit(&cache->used, memory_order_relaxed) >= cache->entries) {
        return 0;
    }
    uint32_t i = atomic_fetch_add_explicit(&cache->used, 1, memory_order_relaxed);
    return i < cache->entries ? i + 1 : 0;
}

/* The copy is what was sent: the worker's own, not what the guest has made of it since. */
static void keep_copy(struct delta_cache *cache, unsigned source, uint64_t unit, uint32_t base, const uint8_t *sent)
{
    uint32_t *number = &cache->of_unit[source][unit];

    if (!*number) {
        *number = take_entry(cache);
    }
    if (*number) {
        cache->entry[*number - 1] =
            (struct entry){ .unit = unit, .source = source, .round = cache->round, .base = base };
        memcpy(copy_of(cache, *number), sent, cache->sources[source]->unit_bytes);
    }
}

/* Only what differs is written: most of the copy is in nobody's cache line then. */
static void patch_copy(uint8_t *copy, uint64_t mask, const uint8_t *lines)
{
    for (; mask; mask &= mask - 1, lines += DELTA_LINE_BYTES) {
        memcpy(copy + (size_t)__builtin_ctzll(mask) * DELTA_LINE_BYTES, lines, DELTA_LINE_BYTES);
    }
}

static void add(_Atomic uint64_t *counter, uint64_t more)
{
    if (more) {
        atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
    }
}

/* One unit against its copy: the delta's bytes, 0 when it is sent whole. */
static size_t look(struct delta_cache *cache, uint32_t number, uint32_t base, const uint8_t *sent, uint32_t unit_bytes,
                   uint8_t *out)
{
    struct entry *entry = &cache->entry[number - 1];
    size_t bytes = delta_encode(copy_of(cache, number), sent, unit_bytes, entry->base, out);

    if (bytes) {
        patch_copy(copy_of(cache, number), be64_get(out + 4), out + DELTA_HEAD_BYTES);
        entry->base = base;
        entry->round = cache->round;
    }
    return bytes;
}

/* Behind each chunk: does it pay in this round so far? */
static void weigh(struct delta_cache *cache, unsigned looks, unsigned hits)
{
    uint32_t all = atomic_fetch_add_explicit(&cache->looks, looks, memory_order_relaxed) + looks;
    uint32_t good = atomic_fetch_add_explicit(&cache->hits, hits, memory_order_relaxed) + hits;

    if (all >= PAYS_UNITS_MIN && (uint64_t)good * PAYS_HITS < all) {
        atomic_store_explicit(&cache->off, true, memory_order_relaxed);
    }
}

static void put_tail(uint8_t *out, struct delta_made *made)
{
    be64_put(out + made->bytes, made->units);
    be32_put(out + made->bytes + 8, (uint32_t)made->bytes);
    made->bytes += DELTA_TAIL_BYTES;
}

void delta_step(struct delta_cache *cache, unsigned source, uint64_t word, const struct digest *digest,
                const struct scanned *scanned, bool keep, uint8_t *raw, uint8_t *out, struct delta_made *made)
{
    uint32_t unit_bytes = cache->sources[source]->unit_bytes;
    uint8_t *unit_raw = raw, *rest = raw;
    unsigned looks = 0, hits = 0, whole = 0;

    *made = (struct delta_made){ .rest = scanned->units, .unit_bytes = unit_bytes };
    /* Who misses that it was just turned off makes one more chunk of deltas, each on the right version: its units are its own. */
    if (atomic_load_explicit(&cache->off, memory_order_relaxed)) {
        return;
    }
    for (uint64_t left = scanned->zero; left; left &= left - 1) { /* zeros are cheaper than any delta */
        cache->of_unit[source][word * CHUNK_UNITS + (unsigned)__builtin_ctzll(left)] = 0;
    }
    for (uint64_t left = scanned->data; left; left &= left - 1, unit_raw += unit_bytes) {
        unsigned bit = (unsigned)__builtin_ctzll(left);
        uint64_t unit = word * CHUNK_UNITS + bit;
        uint32_t number = cache->of_unit[source][unit], base = (uint32_t)digest_last(digest, unit).word[0];
        size_t bytes = number ? look(cache, number, base, unit_raw, unit_bytes, out + made->bytes) : 0;
        looks += number != 0;
        if (bytes) {
            hits++;
            made->units |= UINT64_C(1) << bit;
            made->bytes += bytes;
            continue;
        }
        whole++;
        if (number || keep) {
            keep_copy(cache, source, unit, base, unit_raw);
        }
        if (rest != unit_raw) {
            memcpy(rest, unit_raw, unit_bytes);
        }
        rest += unit_bytes;
    }
    made->rest = whole;
    add(&cache->units, hits);
    add(&cache->bytes, made->bytes);
    add(&cache->misses, cache->round > 1 ? whole : 0);
    if (made->units) {
        put_tail(out, made);
    }
    if (looks) {
        weigh(cache, looks, hits);
    }
}

bool delta_keeps(struct delta_keeper *keeper, const struct delta_cache *cache, int64_t waited_ns)
{
    keeper->waited_ns += (waited_ns - keeper->waited_ns) / KEEPER_MEAN_CHUNKS;
    if (keeper->round != cache->round) {
        keeper->round = cache->round;
        keeper->sampled = 0;
    }
    if (keeper->waited_ns >= DELTA_SLOW_NS || cache->paid) {
        return !cache->last;
    }
    return cache->round > 1 && !cache->last && keeper->sampled++ < DELTA_SAMPLE_CHUNKS;
}

static void empty(struct delta_cache *cache)
{
    for (unsigned i = 0; i < cache->source_count; i++) {
        memset(cache->of_unit[i], 0, cache->sources[i]->units * sizeof(uint32_t));
    }
    uint32_t used = atomic_load_explicit(&cache->used, memory_order_relaxed);
    memset(cache->entry, 0, (used < cache->entries ? used : cache->entries) * sizeof(*cache->entry));
    cache->free_count = 0;
    atomic_store_explicit(&cache->taken, 0, memory_order_relaxed);
    atomic_store_explicit(&cache->used, 0, memory_order_relaxed);
    if (cache->copies_bytes) {
        madvise(cache->copies, cache->copies_bytes, MADV_DONTNEED); /* it only gives memory back */
    }
}

/* Entries whose unit was sent as zeros, or not at all for some rounds. */
static void sweep(struct delta_cache *cache, uint32_t round)
{
    uint32_t used = atomic_load_explicit(&cache->used, memory_order_relaxed);

    used = used < cache->entries ? used : cache->entries;
    cache->free_count = 0;
    atomic_store_explicit(&cache->taken, 0, memory_order_relaxed);
    for (uint32_t i = 0; i < used; i++) {
        struct entry *entry = &cache->entry[i];
        uint32_t *number = entry->round ? &cache->of_unit[entry->source][entry->unit] : NULL;
        if (number && *number == i + 1 && round - entry->round <= KEEP_ROUNDS) {
            continue;
        }
        if (number && *number == i + 1) {
            *number = 0;
        }
        entry->round = 0;
        cache->free[cache->free_count++] = i + 1;
    }
}

static bool none_is_free(const struct delta_cache *cache)
{
    return atomic_load_explicit(&cache->used, memory_order_relaxed) >= cache->entries &&
           atomic_load_explicit(&cache->taken, memory_order_relaxed) >= cache->free_count;
}

void delta_round(struct delta_cache *cache, uint32_t round, bool last)
{
    cache->round = round;
    cache->last = last;
    cache->paid = atomic_load_explicit(&cache->hits, memory_order_relaxed) > 0;
    atomic_store_explicit(&cache->looks, 0, memory_order_relaxed);
    atomic_store_explicit(&cache->hits, 0, memory_order_relaxed);
    bool off = atomic_load_explicit(&cache->off, memory_order_relaxed);
    if (off && !cache->resume_round) { /* since the round that has ended */
        if (last)
            return; /* the guest stands, and nobody looks at the copies */
        empty(cache);
        cache->rest_rounds = cache->rest_rounds ? cache->rest_rounds * 2 : 2;
        cache->rest_rounds = cache->rest_rounds < REST_ROUNDS_MAX ? cache->rest_rounds : REST_ROUNDS_MAX;
        cache->resume_round = round + cache->rest_rounds;
    } else if (off && round >= cache->resume_round) {
        cache->resume_round = 0;
        atomic_store_explicit(&cache->off, false, memory_order_relaxed);
    } else if (!off && !last && none_is_free(cache)) {
        sweep(cache, round);
    }
}

void delta_stats(const struct delta_cache *cache, struct delta_stats *out)
{
    uint64_t used = atomic_load_explicit(&cache->used, memory_order_relaxed);

    used = used < cache->entries ? used : cache->entries;
    *out = (struct delta_stats){
        .units = atomic_load_explicit(&cache->units, memory_order_relaxed),
        .bytes = atomic_load_explicit(&cache->bytes, memory_order_relaxed),
        .misses = atomic_load_explicit(&cache->misses, memory_order_relaxed),
        .held_bytes = cache->table_bytes + used * SOURCE_UNIT_BYTES_MAX,
        .off = atomic_load_explicit(&cache->off, memory_order_relaxed),
    };
}

/* No more copies than there are units; memory that is never touched costs nothing. */
static int get_memory(struct delta_cache *cache, uint64_t bytes)
{
    uint64_t units = 0;

    for (unsigned i = 0; i < cache->source_count; i++) {
        units += cache->sources[i]->units;
        cache->of_unit[i] = calloc(cache->sources[i]->units + 1, sizeof(uint32_t));
        cache->table_bytes += cache->sources[i]->units * sizeof(uint32_t);
        if (!cache->of_unit[i]) {
            return -ENOMEM;
        }
    }
    uint64_t entries = bytes / SOURCE_UNIT_BYTES_MAX;
    entries = entries < units ? entries : units;
    cache->entries = entries < UINT32_MAX / 2 ? (uint32_t)entries : UINT32_MAX / 2;
    cache->entry = calloc((size_t)cache->entries + 1, sizeof(*cache->entry));
    cache->free = calloc((size_t)cache->entries + 1, sizeof(*cache->free));
    cache->table_bytes += cache->entries * (sizeof(*cache->entry) + sizeof(*cache->free));
    if (!cache->entry || !cache->free || !cache->entries) {
        return cache->entries ? -ENOMEM : 0;
    }
    size_t size = (size_t)cache->entries * SOURCE_UNIT_BYTES_MAX;
    void *copies = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (copies == MAP_FAILED) {
        return -ENOMEM;
    }
    cache->copies = copies;
    cache->copies_bytes = size;
    return 0;
}

int delta_cache_new(struct source *const *sources, unsigned count, uint64_t bytes, struct delta_cache **out,
                    struct err *err)
{
    assert(count <= PIPELINE_SOURCES_MAX);
    struct delta_cache *cache = calloc(1, sizeof(*cache));
    if (!cache) {
        return err_set(err, -ENOMEM, "no memory for deltas");
    }
    cache->sources = sources;
    cache->source_count = count;
    if (get_memory(cache, bytes) < 0) {
        delta_cache_free(cache);
        return err_set(err, -ENOMEM, "no memory for copies of what was sent: delta-cache-size says %" PRIu64 " bytes",
                       bytes);
    }
    *out = cache;
    return 0;
}

void delta_cache_free(struct delta_cache *cache)
{
    if (!cache) {
        return;
    }
    for (unsigned i = 0; i < cache->source_count; i++) {
        free(cache->of_unit[i]);
    }
    if (cache->copies) {
        munmap(cache->copies, cache->copies_bytes);
    }
    free(cache->entry);
    free(cache->free);
    free(cache);
}

/* --- the destination ------------------------------------------------------------------------------------- */

int delta_open(struct delta_split *split, const struct source *source, const struct frame *frame,
               const uint8_t *payload, struct err *err)
{
    uint32_t left = frame->payload_bytes; /* frame_check(): a tail and a delta at least */
    const uint8_t *tail = payload + left - DELTA_TAIL_BYTES;
    uint64_t units = be64_get(tail);
    uint32_t bytes = be32_get(tail + 8);
    unsigned count = (unsigned)__builtin_popcountll(units);

    left -= DELTA_TAIL_BYTES;
    if (!units || (units & ~frame->data)) {
        return err_set(err, -EPROTO,
                       "byte %" PRIu32 " of the payload: deltas of units %016" PRIx64
                       ", the frame's data units are %016" PRIx64,
                       left, units, frame->data);
    }
    if (bytes > left || bytes < count * (uint32_t)DELTA_HEAD_BYTES) {
        return err_set(err, -EPROTO,
                       "byte %" PRIu32 " of the payload: %u deltas in %" PRIu32 " bytes, with %" PRIu32 " before",
                       left + 8, count, bytes, left);
    }
    *split = (struct delta_split){ .rest = *frame, .units = units, .begin = payload, .at = tail - bytes, .end = tail };
    split->rest.kind = FRAME_CHUNK;
    split->rest.data &= ~units;
    split->rest.payload_bytes = left - bytes;
    return frame_fits(&split->rest, source, err);
}

int delta_apply(struct delta_split *split, const struct source *source, uint64_t unit, struct unit_hash hash,
                uint8_t *now, struct err *err)
{
    size_t offset = (size_t)(split->at - split->begin), left = (size_t)(split->end - split->at);
    unsigned lines = source->unit_bytes / DELTA_LINE_BYTES;

    if (left < DELTA_HEAD_BYTES) {
        return err_set(err, -EPROTO, "byte %zu of the payload: the delta of unit %" PRIu64 " is cut short", offset,
                       unit);
    }
    uint32_t base = be32_get(split->at);
    uint64_t mask = be64_get(split->at + 4);
    size_t bytes = (size_t)__builtin_popcountll(mask) * DELTA_LINE_BYTES;
    if (lines < 64 && mask >> lines) {
        return err_set(err, -EPROTO, "byte %zu of the payload: the delta of unit %" PRIu64 " names lines behind its %u",
                       offset + 4, unit, lines);
    }
    if (bytes > left - DELTA_HEAD_BYTES) {
        return err_set(err, -EPROTO,
                       "byte %zu of the payload: the delta of unit %" PRIu64 " has %zu bytes of lines, %zu "
                       "are left",
                       offset + 4, unit, bytes, left - DELTA_HEAD_BYTES);
    }
    if (unit_hash_is_zero(hash) || base != (uint32_t)hash.word[0]) {
        return err_set(err, -EPROTO,
                       "byte %zu of the payload: the delta of unit %" PRIu64 " changes version %08" PRIx32
                       ", here is %s%08" PRIx32,
                       offset, unit, base, unit_hash_is_zero(hash) ? "none, " : "", (uint32_t)hash.word[0]);
    }
    patch_copy(now, mask, split->at + DELTA_HEAD_BYTES);
    split->at += DELTA_HEAD_BYTES + bytes;
    return 0;
}
