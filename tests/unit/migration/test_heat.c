/* Which pages are left to a later round because they are dirtied again at once (migration/heat.h), word by word; and that the
 * source leaves them dirty. */
#include "tests/unit/test.h"

#include "memory/dirty.h"
#include "migration/heat.h"
#include "migration/sources.h"

enum { WORDS = 8, MANY = 1000000 };

static struct heat heat;

static int setup(void **state)
{
    (void)state;
    return heat_init(&heat, WORDS);
}

static int teardown(void **state)
{
    (void)state;
    heat_free(&heat);
    return 0;
}

/* Rounds in which these pages of word 1 are dirty; what was left in each goes to `left`. */
static void rounds(unsigned count, uint64_t dirty, uint64_t may_keep, uint64_t *left)
{
    for (unsigned i = 0; i < count; i++) {
        heat_round(&heat, may_keep);
        left[i] = heat_keep(&heat, 1, dirty);
        assert_int_equal(left[i] & ~dirty, 0);
    }
}

static void what_is_dirty_in_three_rounds_is_left_but_not_for_ever(void **state)
{
    (void)state;
    uint64_t left[40];
    unsigned in_a_row = 0, kept = 0;

    rounds(2, 0xff, MANY, left);
    assert_int_equal(left[0] | left[1], 0);
    rounds(40, 0xff, MANY, left);
    for (unsigned i = 0; i < 40; i++) {
        assert_true(left[i] == 0 || left[i] == 0xff);
        in_a_row = left[i] ? in_a_row + 1 : 0;
        kept += left[i] != 0;
        assert_true(in_a_row < HEAT_TAKEN_EVERY);
    }
    assert_true(kept >= 20);
}

static void what_was_clean_meanwhile_is_taken(void **state)
{
    (void)state;
    uint64_t left[1];

    for (unsigned i = 0; i < 40; i++) { /* each page is dirty in every other round */
        rounds(1, i % 2 ? 0xf0 : 0x0f, MANY, left);
        assert_int_equal(left[0], 0);
    }
}

static void at_rest_nothing_is_left(void **state)
{
    (void)state;
    uint64_t left[16];

    assert_int_equal(heat_keep(&heat, 1, ~UINT64_C(0)), 0); /* it rests at first */
    rounds(16, 0xff, MANY, left);
    for (unsigned i = 0; i < 16; i++) {
        heat_rest(&heat);
        assert_int_equal(heat_keep(&heat, 1, 0xff), 0);
    }
    rounds(16, 0xff, 0, left); /* nor when nothing may be */
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(left[i], 0);
}

static void no_more_are_left_than_may_be(void **state)
{
    (void)state;
    bool some = false;

    for (unsigned i = 0; i < 40; i++) {
        unsigned kept = 0;
        heat_round(&heat, 100);
        for (unsigned word = 0; word < WORDS; word++)
            kept += (unsigned)__builtin_popcountll(heat_keep(&heat, word, ~UINT64_C(0)));
        assert_true(kept < 100 + 64); /* a word more than what is over */
        some = some || kept;
    }
    assert_true(some);
}

static void another_migration_knows_nothing_of_it(void **state)
{
    (void)state;
    uint64_t left[8];

    rounds(8, 0xff, MANY, left);
    heat_forget(&heat);
    assert_int_equal(heat_keep(&heat, 1, 0xff), 0);
    rounds(2, 0xff, MANY, left);
    assert_int_equal(left[0] | left[1], 0);
}

static void the_source_leaves_them_dirty(void **state)
{
    (void)state;
    struct ram_options options = { 0 };
    struct ram *ram = ram_new();
    struct source *source;
    unsigned left = 0;

    assert_int_equal(ram_add(ram, "ram", 0x80000000, 64 * PAGE_BYTES, false, &options, NULL), 0);
    assert_int_equal(ram_seal_layout(ram, NULL), 0);
    assert_int_equal(source_ram_new(ram, 1, &source, NULL), 0);
    dirty_start(ram->dirty, DIRTY_MIGRATION, false);
    for (unsigned i = 0; i < 16; i++) {
        source_ram_leave_hot(source, MANY);
        dirty_mark_client(ram->dirty, DIRTY_MIGRATION, 3, 2);
        uint64_t taken = source->ops->take(source, 0);
        uint64_t still = dirty_count(ram->dirty, DIRTY_MIGRATION);
        assert_true(taken == 0x18 ? still == 0 : taken == 0 && still == 2);
        if (still) {
            left++;
            assert_int_equal(source->ops->next(source, 0), 0); /* and finds them */
            if (i % 2) {
                source_ram_take_all(source);
                assert_int_equal(source->ops->take(source, 0), 0x18);
            }
        }
    }
    assert_true(left > 4);
    dirty_stop(ram->dirty, DIRTY_MIGRATION);
    source_ram_free(source);
    ram_free(ram);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_is_dirty_in_three_rounds_is_left_but_not_for_ever),
        TEST(what_was_clean_meanwhile_is_taken),
        TEST(at_rest_nothing_is_left),
        TEST(no_more_are_left_than_may_be),
        TEST(another_migration_knows_nothing_of_it),
        cmocka_unit_test(the_source_leaves_them_dirty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
