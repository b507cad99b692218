#include "tests/unit/test.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "migration/sources.h"

static struct ram *two_blocks(void)
{
    struct ram_options options = { 0 };
    struct ram *ram = ram_new();
    assert_non_null(ram);
    assert_int_equal(ram_add(ram, "rom", 0x1000, 15 * PAGE_BYTES, true, &options, NULL), 0);
    assert_int_equal(ram_add(ram, "ram", 0x80000000, 200 * PAGE_BYTES, false, &options, NULL), 0);
    assert_int_equal(ram_seal_layout(ram, NULL), 0);
    return ram;
}

static uint64_t bits(uint64_t mask)
{
    return (uint64_t)__builtin_popcountll(mask);
}

static void units_that_exist_are_the_pages_of_all_blocks_and_no_hole(void **state)
{
    (void)state;
    struct ram *ram = two_blocks();
    struct source *source;
    assert_int_equal(source_ram_new(ram, 1, &source, NULL), 0);
    assert_int_equal(source_ram_bytes(source), 215 * PAGE_BYTES);
    uint64_t count = 0;
    for (uint64_t word = 0; word < source->words; word++) {
        uint64_t mask = source->ops->exists(source, word);
        count += bits(mask);
        for (unsigned bit = 0; bit < 64; bit++)
            assert_int_equal(mask >> bit & 1, ram_page_host(ram, word * 64 + bit) != NULL);
    }
    assert_int_equal(count, 215);
    assert_int_equal(source->ops->exists(source, source->words), 0);
    assert_int_equal(source->ops->exists(source, UINT64_MAX / 64), 0);
    source_ram_free(source);
    ram_free(ram);
}

static void everything_is_dirty_at_the_start_and_taken_once(void **state)
{
    (void)state;
    struct ram *ram = two_blocks();
    struct source *source;
    assert_int_equal(source_ram_new(ram, 1, &source, NULL), 0);
    dirty_start(ram->dirty, DIRTY_MIGRATION, true);
    uint64_t count = 0;
    for (uint64_t word = source->ops->next(source, 0); word < source->words; word = source->ops->next(source, word + 1))
        count += bits(source->ops->take(source, word));
    assert_int_equal(count, 215);
    assert_int_equal(source->ops->dirty(source), 0);

    const struct ram_block *block = ram_block_by_name(ram, "ram");
    assert_true(ram_write(ram, 0x80000000 + 70 * PAGE_BYTES + 5, "x", 1));
    assert_int_equal(source->ops->dirty(source), 1);
    uint64_t page = block->first_page + 70;
    assert_int_equal(source->ops->next(source, 0), page / 64);
    assert_int_equal(source->ops->take(source, page / 64), UINT64_C(1) << page % 64);
    assert_int_equal(source->ops->dirty(source), 0);
    dirty_stop(ram->dirty, DIRTY_MIGRATION);
    source_ram_free(source);
    ram_free(ram);
}

static void memory_is_fresh_until_somebody_stores_to_it(void **state)
{
    (void)state;
    static uint8_t page[PAGE_BYTES] = { 1 };
    struct ram *ram = two_blocks();
    struct source *source;
    assert_int_equal(source_ram_new(ram, 1, &source, NULL), 0);
    assert_true(source_ram_is_fresh(source));
    assert_int_equal(source->ops->store(source, 64 + 5, page), 0);
    assert_false(source_ram_is_fresh(source));
    source_ram_free(source);
    assert_int_equal(source_ram_new(ram, 1, &source, NULL), 0);
    assert_true(ram_write(ram, 0x80000000, "x", 1));
    assert_false(source_ram_is_fresh(source));
    source_ram_free(source);
    ram_free(ram);
}

/* A rehearsal's copy is dropped: the blocks' last pages, which fill no word, as well. */
static void memory_is_fresh_again_when_what_was_loaded_is_forgotten(void **state)
{
    (void)state;
    static uint8_t page[PAGE_BYTES] = { 1 };
    struct ram *ram = two_blocks();
    struct source *source;
    assert_int_equal(source_ram_new(ram, 1, &source, NULL), 0);
    for (uint64_t unit = 0; unit < source->units; unit++)
        if (source->ops->exists(source, unit / 64) >> unit % 64 & 1)
            assert_int_equal(source->ops->store(source, unit, page), 0);
    source_ram_forget(source);
    assert_true(source_ram_is_fresh(source));
    for (uint64_t unit = 0; unit < source->units; unit++)
        assert_true(!ram_page_host(ram, unit) || ram_page_is_zero(ram_page_host(ram, unit)));
    source_ram_free(source);
    ram_free(ram);
}

static void a_copy_is_the_page_and_a_store_is_found_again(void **state)
{
    (void)state;
    _Alignas(64) uint8_t out[PAGE_BYTES], in[PAGE_BYTES];
    struct ram *ram = two_blocks();
    struct source *source;
    assert_int_equal(source_ram_new(ram, 1, &source, NULL), 0);
    const struct ram_block *rom = ram_block_by_name(ram, "rom");
    for (unsigned i = 0; i < PAGE_BYTES; i++)
        in[i] = (uint8_t)(i * 7 + 3);
    assert_int_equal(source->ops->store(source, rom->first_page + 14, in), 0); /* ROM arrives like RAM */
    assert_int_equal(source->ops->copy(source, rom->first_page + 14, out), 0);
    assert_memory_equal(in, out, PAGE_BYTES);
    assert_memory_equal(source->ops->peek(source, rom->first_page + 14, out), in, PAGE_BYTES);
    source_ram_free(source);
    ram_free(ram);
}

static void a_zero_clears_what_a_store_left_there(void **state)
{
    (void)state;
    _Alignas(64) uint8_t in[PAGE_BYTES];
    memset(in, 0x5a, sizeof(in));
    struct ram *ram = two_blocks();
    struct source *source;
    assert_int_equal(source_ram_new(ram, 1, &source, NULL), 0);
    uint64_t unit = ram_block_by_name(ram, "ram")->first_page + 3;
    assert_int_equal(source->ops->zero(source, unit), 0); /* fresh */
    assert_true(ram_page_is_zero(ram_page_host(ram, unit)));
    assert_int_equal(source->ops->store(source, unit, in), 0);
    assert_int_equal(source->ops->zero(source, unit), 0);
    assert_true(ram_page_is_zero(ram_page_host(ram, unit)));
    source_ram_free(source);
    ram_free(ram);
}

static void a_zero_clears_what_was_there_before_the_source_was_made(void **state)
{
    (void)state;
    struct ram *ram = two_blocks();
    struct source *source;
    assert_true(ram_load(ram, 0x80000000, "image", 5));
    assert_int_equal(source_ram_new(ram, 1, &source, NULL), 0);
    uint64_t unit = ram_block_by_name(ram, "ram")->first_page;
    assert_int_equal(source->ops->zero(source, unit), 0);
    assert_true(ram_page_is_zero(ram_page_host(ram, unit)));
    source_ram_free(source);
    ram_free(ram);
}

static unsigned touched(struct ram *ram)
{
    const struct ram_block *block = ram_block_by_name(ram, "ram");
    unsigned char page[200];
    unsigned count = 0;
    assert_int_equal(mincore(block->host, sizeof(page) * PAGE_BYTES, page), 0);
    for (unsigned i = 0; i < sizeof(page); i++)
        count += page[i] & 1;
    return count;
}

static void memory_for_much_data_is_got_at_once_and_for_little_not_at_all(void **state)
{
    (void)state;
    struct ram *ram = two_blocks();
    struct source *source;
    assert_int_equal(source_ram_new(ram, 1, &source, NULL), 0);
    assert_int_equal(touched(ram), 0);
    source->ops->expect(source, 1, 0xff);
    assert_int_equal(touched(ram), 0);
    source->ops->expect(source, 4, 0xff); /* the last word is short */
    source->ops->expect(source, 1, UINT64_MAX);
    assert_true(touched(ram) >= 64); /* more where huge pages are */
    source_ram_free(source);
    ram_free(ram);
}

static void a_unit_in_a_hole_is_refused(void **state)
{
    (void)state;
    _Alignas(64) uint8_t in[PAGE_BYTES] = { 1 };
    struct ram *ram = two_blocks();
    struct source *source;
    assert_int_equal(source_ram_new(ram, 1, &source, NULL), 0);
    assert_true(source->ops->store(source, 20, in) < 0); /* behind the ROM's 15 pages */
    assert_true(source->ops->zero(source, 20) < 0);
    source_ram_free(source);
    ram_free(ram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(units_that_exist_are_the_pages_of_all_blocks_and_no_hole),
        cmocka_unit_test(everything_is_dirty_at_the_start_and_taken_once),
        cmocka_unit_test(a_copy_is_the_page_and_a_store_is_found_again),
        cmocka_unit_test(memory_is_fresh_until_somebody_stores_to_it),
        cmocka_unit_test(memory_is_fresh_again_when_what_was_loaded_is_forgotten),
        cmocka_unit_test(a_zero_clears_what_a_store_left_there),
        cmocka_unit_test(a_zero_clears_what_was_there_before_the_source_was_made),
        cmocka_unit_test(memory_for_much_data_is_got_at_once_and_for_little_not_at_all),
        cmocka_unit_test(a_unit_in_a_hole_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
