#include "tests/unit/test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "block/dirty_map.h"

enum { UNIT = DIRTY_MAP_UNIT_BYTES };

static struct dirty_map *map_of(uint64_t bytes)
{
    struct dirty_map *map;
    assert_int_equal(dirty_map_new(bytes, &map, NULL), 0);
    return map;
}

static void bytes_mark_every_unit_that_they_touch(void **state)
{
    (void)state;
    struct dirty_map *map = map_of(200 * UNIT);
    assert_int_equal(dirty_map_words(map), 4);
    assert_int_equal(dirty_map_next(map, 0), 4);
    dirty_map_mark(map, 3 * UNIT - 1, 2);         /* 2 and 3 */
    dirty_map_mark(map, 62 * UNIT + 5, 4 * UNIT); /* 62 to 66 */
    assert_int_equal(dirty_map_count(map), 7);
    assert_int_equal(dirty_map_next(map, 0), 0);
    assert_true(dirty_map_take(map, 0) == (UINT64_C(0xc) | UINT64_C(3) << 62));
    assert_int_equal(dirty_map_next(map, 0), 1);
    assert_true(dirty_map_take(map, 1) == 7);
    assert_int_equal(dirty_map_next(map, 0), 4);
    assert_int_equal(dirty_map_count(map), 0);
    dirty_map_mark(map, 64 * UNIT, 64 * UNIT);
    assert_true(dirty_map_take(map, 1) == UINT64_MAX);
    dirty_map_free(map);
}

static void what_lies_behind_the_end_is_nothing(void **state)
{
    (void)state;
    struct dirty_map *map = map_of(65 * UNIT + 512);
    dirty_map_mark(map, 66 * UNIT, UNIT);
    dirty_map_mark(map, UINT64_MAX - 5, 100);
    dirty_map_mark(map, 0, 0);
    assert_int_equal(dirty_map_count(map), 0);
    dirty_map_mark(map, 64 * UNIT, UINT64_MAX);
    assert_int_equal(dirty_map_count(map), 2); /* the last one is a piece of a unit */
    assert_true(dirty_map_take(map, 1) == 3);
    assert_int_equal(dirty_map_take(map, 2), 0);
    dirty_map_free(map);
}

static void words_far_apart_are_found_by_their_summary(void **state)
{
    (void)state;
    struct dirty_map *map = map_of(UINT64_C(64) << 30);
    uint64_t words = dirty_map_words(map);
    assert_int_equal(words, UINT64_C(64) << 30 >> 18);
    dirty_map_mark(map, (UINT64_C(64) << 30) - 1, 1);
    dirty_map_mark(map, UINT64_C(100) << 18, 1);
    assert_int_equal(dirty_map_next(map, 0), 100);
    assert_int_equal(dirty_map_next(map, 101), words - 1);
    assert_int_equal(dirty_map_take(map, words - 1), UINT64_C(1) << 63);
    assert_int_equal(dirty_map_next(map, 101), words);
    dirty_map_free(map);
}

/* --- a storm: what a marker wrote before its mark is seen by whoever takes the mark, or marked again ------------------ */

enum { CELLS = 256, ROUNDS = 20000 };

struct storm {
    struct dirty_map *map;
    _Atomic uint32_t cell[CELLS];
    uint32_t copy[CELLS];
    _Atomic bool over;
};

static void *write_cells(void *opaque)
{
    struct storm *storm = opaque;
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        unsigned at = i * 7 % CELLS;
        atomic_store_explicit(&storm->cell[at], i, memory_order_relaxed);
        dirty_map_mark(storm->map, (uint64_t)at * UNIT, 1);
    }
    atomic_store_explicit(&storm->over, true, memory_order_release);
    return NULL;
}

static void harvest(struct storm *storm)
{
    uint64_t words = dirty_map_words(storm->map);
    for (uint64_t word = dirty_map_next(storm->map, 0); word < words; word = dirty_map_next(storm->map, word + 1))
        for (uint64_t left = dirty_map_take(storm->map, word); left; left &= left - 1) {
            unsigned at = (unsigned)(word * 64 + (unsigned)__builtin_ctzll(left));
            storm->copy[at] = atomic_load_explicit(&storm->cell[at], memory_order_relaxed);
        }
}

static void no_mark_is_lost_between_markers_and_a_taker(void **state)
{
    (void)state;
    struct storm storm = { .map = map_of(CELLS * UNIT) };
    pthread_t writer;
    assert_int_equal(pthread_create(&writer, NULL, write_cells, &storm), 0);
    while (!atomic_load_explicit(&storm.over, memory_order_acquire))
        harvest(&storm);
    pthread_join(writer, NULL);
    harvest(&storm);
    assert_int_equal(dirty_map_count(storm.map), 0);
    for (unsigned i = 0; i < CELLS; i++)
        assert_int_equal(storm.copy[i], atomic_load(&storm.cell[i]));
    dirty_map_free(storm.map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_mark_every_unit_that_they_touch),
        cmocka_unit_test(what_lies_behind_the_end_is_nothing),
        cmocka_unit_test(words_far_apart_are_found_by_their_summary),
        cmocka_unit_test(no_mark_is_lost_between_markers_and_a_taker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
