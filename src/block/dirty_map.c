#include "block/dirty_map.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

struct dirty_map {
    /* fixed after new */
    uint64_t units, words, summaries;
    /* atomic: a bit for each unit, one for each word that may have one, and how many units there are */
    _Atomic uint64_t *word, *summary;
    _Atomic uint64_t count;
};

static uint64_t div_up(uint64_t n, uint64_t by)
{
    return n / by + (n % by != 0);
}

int dirty_map_new(uint64_t bytes, struct dirty_map **out, struct err *err)
{
    struct dirty_map *map = calloc(1, sizeof(*map));
    *out = NULL;
    if (map) {
        map->units = div_up(bytes, DIRTY_MAP_UNIT_BYTES);
        map->words = div_up(map->units, DIRTY_MAP_WORD_UNITS);
        map->summaries = div_up(map->words, 64);
        map->word = calloc(map->words + 1, sizeof(*map->word));
        map->summary = calloc(map->summaries + 1, sizeof(*map->summary));
    }
    if (!map || !map->word || !map->summary) {
        dirty_map_free(map);
        return err_set(err, -ENOMEM, "no memory to follow the writes of a disk of %llu bytes",
                       (unsigned long long)bytes);
    }
    *out = map;
    return 0;
}

void dirty_map_free(struct dirty_map *map)
{
    if (!map)
        return;
    free(map->word);
    free(map->summary);
    free(map);
}

uint64_t dirty_map_words(const struct dirty_map *map)
{
    return map->words;
}

/* Word first, then summary: whoever takes clears the summary first, so a mark that he does not see has its summary bit still to
 * come. Release: what was written lies before the mark for whoever takes it. */
static void mark_word(struct dirty_map *map, uint64_t word, uint64_t bits)
{
    uint64_t old = atomic_fetch_or_explicit(&map->word[word], bits, memory_order_seq_cst);
    uint64_t fresh = (uint64_t)__builtin_popcountll(bits & ~old);
    if (fresh)
        atomic_fetch_add_explicit(&map->count, fresh, memory_order_relaxed);
    atomic_fetch_or_explicit(&map->summary[word / 64], UINT64_C(1) << word % 64, memory_order_seq_cst);
}

void dirty_map_mark(struct dirty_map *map, uint64_t offset, uint64_t bytes)
{
    uint64_t first = offset / DIRTY_MAP_UNIT_BYTES;
    if (bytes == 0 || first >= map->units)
        return;
    uint64_t end = bytes > UINT64_MAX - offset ? map->units : div_up(offset + bytes, DIRTY_MAP_UNIT_BYTES);
    end = end < map->units ? end : map->units;
    while (first < end) {
        uint64_t word = first / DIRTY_MAP_WORD_UNITS, from = first % DIRTY_MAP_WORD_UNITS;
        uint64_t count = end - first < DIRTY_MAP_WORD_UNITS - from ? end - first : DIRTY_MAP_WORD_UNITS - from;
        uint64_t bits = count == DIRTY_MAP_WORD_UNITS ? UINT64_MAX : (UINT64_C(1) << count) - 1;
        mark_word(map, word, bits << from);
        first += count;
    }
}

uint64_t dirty_map_next(struct dirty_map *map, uint64_t word)
{
    while (word < map->words) {
        uint64_t bits = atomic_load_explicit(&map->summary[word / 64], memory_order_acquire) >> word % 64;
        if (bits)
            return word + (unsigned)__builtin_ctzll(bits);
        word = (word / 64 + 1) * 64;
    }
    return map->words;
}

/* Summary first (see mark_word). Sequentially consistent, as there: a mark between the two finds its word, or its summary, behind. */
uint64_t dirty_map_take(struct dirty_map *map, uint64_t word)
{
    if (word >= map->words)
        return 0;
    atomic_fetch_and_explicit(&map->summary[word / 64], ~(UINT64_C(1) << word % 64), memory_order_seq_cst);
    uint64_t bits = atomic_exchange_explicit(&map->word[word], 0, memory_order_seq_cst);
    uint64_t taken = (uint64_t)__builtin_popcountll(bits);
    if (taken)
        atomic_fetch_sub_explicit(&map->count, taken, memory_order_relaxed);
    return bits;
}

/* A taker may be ahead of the marker's count for a moment. */
uint64_t dirty_map_count(struct dirty_map *map)
{
    uint64_t count = atomic_load_explicit(&map->count, memory_order_relaxed);
    return count > map->units ? 0 : count;
}
