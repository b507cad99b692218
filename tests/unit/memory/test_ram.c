#include "tests/unit/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memory/ram.h"

enum { MIB = 1 << 20 };

static const uint64_t BASE = 0x80000000;

static struct ram *two_blocks(void)
{
    struct ram *ram = ram_new();
    assert_non_null(ram);
    assert_int_equal(ram_add(ram, "rom", 0x1000, 0xf000, true, NULL, NULL), 0);
    assert_int_equal(ram_add(ram, "ram", BASE, 4 * MIB, false, NULL, NULL), 0);
    assert_int_equal(ram_seal_layout(ram, NULL), 0);
    return ram;
}

static void blocks_share_no_dirty_word(void **state)
{
    (void)state;
    struct ram *ram = two_blocks();

    assert_int_equal(ram->block[0].first_page, 0);
    assert_int_equal(ram->block[1].first_page, 64);
    assert_int_equal(ram_pages(ram), 64 + 1024);
    assert_ptr_equal(ram_block_by_page(ram, 14), &ram->block[0]);
    assert_null(ram_block_by_page(ram, 15));
    assert_null(ram_page_host(ram, 63));
    assert_ptr_equal(ram_block_by_page(ram, 64), &ram->block[1]);
    assert_ptr_equal(ram_page_host(ram, 65), ram->block[1].host + PAGE_BYTES);
    assert_null(ram_block_by_page(ram, 64 + 1024));
    assert_ptr_equal(ram_block_by_name(ram, "ram"), &ram->block[1]);
    assert_null(ram_block_by_name(ram, "ra"));
    ram_free(ram);
}

static void mark_all_leaves_the_hole_between_blocks_out(void **state)
{
    (void)state;
    struct ram *ram = two_blocks();

    dirty_start(ram->dirty, DIRTY_MIGRATION, true);
    assert_int_equal(dirty_count(ram->dirty, DIRTY_MIGRATION), 15 + 1024);
    for (uint64_t page = 0; page < ram_pages(ram); page++)
        assert_int_equal(dirty_test(ram->dirty, DIRTY_MIGRATION, page), ram_page_host(ram, page) != NULL);
    ram_free(ram);
}

static void ranges_that_leave_a_block_are_refused_whole(void **state)
{
    (void)state;
    struct ram *ram = two_blocks();
    uint8_t bytes[16] = { 1 };

    assert_non_null(ram_ptr(ram, BASE + 4 * MIB - 16, 16));
    assert_null(ram_ptr(ram, BASE + 4 * MIB - 15, 16));
    assert_null(ram_ptr(ram, BASE, UINT64_MAX));
    assert_null(ram_ptr(ram, BASE - 1, 2));
    assert_null(ram_ptr(ram, UINT64_MAX, 1));
    assert_false(ram_read(ram, BASE + 4 * MIB - 15, bytes, 16));
    assert_false(ram_write(ram, BASE + 4 * MIB - 15, bytes, 16));
    uint8_t last = 0xff;
    assert_true(ram_read(ram, BASE + 4 * MIB - 15, &last, 1));
    assert_int_equal(last, 0);
    ram_free(ram);
}

static void only_a_loader_writes_rom(void **state)
{
    (void)state;
    struct ram *ram = two_blocks();
    uint32_t word = 0x12345678, back = 0;

    assert_false(ram_write(ram, 0x1000, &word, 4));
    assert_null(ram_write_begin(ram, 0x1000, 4));
    assert_true(ram_load(ram, 0x1000, &word, 4));
    assert_true(ram_read(ram, 0x1000, &back, 4));
    assert_int_equal(back, word);
    ram_free(ram);
}

static void a_write_marks_every_page_it_touches(void **state)
{
    (void)state;
    struct ram *ram = two_blocks();
    uint8_t *data = malloc(3 * PAGE_BYTES), *back = malloc(3 * PAGE_BYTES);

    for (int i = 0; i < 3 * PAGE_BYTES; i++)
        data[i] = (uint8_t)(i * 7);
    dirty_start(ram->dirty, DIRTY_MIGRATION, false);
    dirty_start(ram->dirty, DIRTY_CODE, false);
    assert_true(ram_write(ram, BASE + 2 * PAGE_BYTES - 1, data, 2 * PAGE_BYTES + 1));
    assert_true(ram_read(ram, BASE + 2 * PAGE_BYTES - 1, back, 2 * PAGE_BYTES + 1));
    assert_memory_equal(data, back, 2 * PAGE_BYTES + 1);
    assert_int_equal(dirty_take_word(ram->dirty, DIRTY_MIGRATION, 1), 0xe);
    assert_int_equal(dirty_take_word(ram->dirty, DIRTY_CODE, 1), 0xe);
    assert_int_equal(dirty_count(ram->dirty, DIRTY_DISPLAY), 0);
    assert_true(ram_write(ram, BASE, data, 0));
    assert_int_equal(dirty_count(ram->dirty, DIRTY_MIGRATION), 0);
    free(data);
    free(back);
    ram_free(ram);
}

static void copies_of_any_alignment_and_length_are_exact(void **state)
{
    (void)state;
    struct ram *ram = two_blocks();
    uint8_t data[64], back[64], all[128], zero[128] = { 0 };

    for (unsigned i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i + 1);
    for (unsigned at = 0; at < 16; at++)
        for (unsigned bytes = 0; bytes <= 40; bytes++)
            for (unsigned own = 0; own < 8; own++) {
                assert_true(ram_write(ram, BASE, zero, sizeof(zero)));
                assert_true(ram_write(ram, BASE + 8 + at, data + own, bytes));
                memset(back, 0, sizeof(back));
                assert_true(ram_read(ram, BASE + 8 + at, back + own, bytes));
                assert_memory_equal(back + own, data + own, bytes);
                assert_true(ram_read(ram, BASE, all, sizeof(all)));
                assert_memory_equal(all, zero, 8 + at);
                assert_memory_equal(all + 8 + at + bytes, zero, sizeof(all) - 8 - at - bytes);
            }
    ram_free(ram);
}

static void pages_copy_out_and_in(void **state)
{
    (void)state;
    struct ram *ram = two_blocks();
    uint64_t page[PAGE_BYTES / 8], back[PAGE_BYTES / 8];

    for (unsigned i = 0; i < PAGE_BYTES / 8; i++)
        page[i] = i * UINT64_C(0x9e3779b97f4a7c15);
    ram_copy_page_in(ram_page_host(ram, 70), page);
    ram_copy_page_out(back, ram_page_host(ram, 70));
    assert_memory_equal(page, back, PAGE_BYTES);
    ram_copy_page_out(back, ram_page_host(ram, 71));
    assert_true(ram_page_is_zero(back));
    ram_copy_page_out(back, ram_page_host(ram, 69));
    assert_true(ram_page_is_zero(back));
    ram_free(ram);
}

static void a_page_with_one_bit_set_anywhere_is_not_zero(void **state)
{
    (void)state;
    uint64_t page[PAGE_BYTES / 8 + 1] = { 0 };
    uint8_t *odd = (uint8_t *)page + 8; /* only 8-byte aligned */

    assert_true(ram_page_is_zero(odd));
    for (unsigned bit = 0; bit < PAGE_BYTES * 8; bit++) {
        odd[bit / 8] = (uint8_t)(1u << bit % 8);
        assert_false(ram_page_is_zero(odd));
        odd[bit / 8] = 0;
    }
    assert_true(ram_page_is_zero(odd));
}

static void bad_layouts_are_refused_with_a_sentence(void **state)
{
    (void)state;
    struct ram *ram = ram_new();
    struct err err;
    char name[RAM_NAME_MAX + 1];

    memset(name, 'n', RAM_NAME_MAX);
    name[RAM_NAME_MAX] = '\0';
    struct {
        const char *name;
        uint64_t gpa, bytes;
        int code;
    } row[] = {
        { "a", BASE + 1, PAGE_BYTES, -EINVAL },
        { "a", BASE, PAGE_BYTES + 1, -EINVAL },
        { "a", BASE, 0, -EINVAL },
        { "", BASE, PAGE_BYTES, -EINVAL },
        { name, BASE, PAGE_BYTES, -EINVAL },
        { "a", UINT64_MAX << 12, 2 * PAGE_BYTES, -EINVAL },
        { "there", 0, PAGE_BYTES, -EEXIST },
        { "a", 0x100000, PAGE_BYTES, -EEXIST },
        { "a", 0xff000, 2 * PAGE_BYTES, -EEXIST },
        { "a", 0, UINT64_MAX << 12, -EINVAL },
    };
    assert_int_equal(ram_add(ram, "there", 0x100000, MIB, false, NULL, NULL), 0);
    for (unsigned i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        err_clear(&err);
        assert_int_equal(ram_add(ram, row[i].name, row[i].gpa, row[i].bytes, false, NULL, &err), row[i].code);
        assert_int_not_equal(err.text[0], '\0');
    }
    for (unsigned i = 1; i < RAM_BLOCKS_MAX; i++) {
        char own[] = { 'b', (char)('0' + i), '\0' };
        assert_int_equal(ram_add(ram, own, BASE + i * PAGE_BYTES, PAGE_BYTES, false, NULL, NULL), 0);
    }
    assert_int_equal(ram_add(ram, "more", 0, PAGE_BYTES, false, NULL, NULL), -ENOSPC);
    ram_free(ram);
    ram_free(NULL);
}

static void more_ram_than_the_host_has_can_be_promised(void **state)
{
    (void)state;
    struct ram *ram = ram_new();
    const uint64_t bytes = UINT64_C(4) << 40;

#ifdef __SANITIZE_THREAD__
    skip(); /* its shadow memory leaves no such room */
#endif
    assert_int_equal(ram_add(ram, "ram", BASE, bytes, false, NULL, NULL), 0);
    assert_int_equal(ram_seal_layout(ram, NULL), 0);
    uint32_t word = 7, back = 0;
    assert_true(ram_write(ram, BASE + bytes - 4, &word, 4));
    assert_true(ram_read(ram, BASE + bytes - 4, &back, 4));
    assert_int_equal(back, 7);
    ram_free(ram);
}

static void check_shared(const struct ram_options *options)
{
    struct ram *ram = ram_new();
    struct err err = { 0 };
    uint32_t word = 7, back = 0;

    assert_int_equal(ram_add(ram, "ram", BASE, MIB, false, options, &err), 0);
    assert_int_equal(ram_seal_layout(ram, &err), 0);
    assert_true(ram->block[0].fd >= 0);
    assert_true(ram_write(ram, BASE + 0x1234, &word, 4));
    assert_int_equal(pread(ram->block[0].fd, &back, 4, 0x1234), 4);
    assert_int_equal(back, 7);
    ram_free(ram);
}

static void shared_ram_is_seen_through_its_file(void **state)
{
    (void)state;
    check_shared(&(struct ram_options){ .share = true });
    check_shared(&(struct ram_options){ .share = true, .mem_path = "/tmp" });

    struct ram *ram = ram_new();
    struct err err = { 0 };
    struct ram_options nowhere = { .mem_path = "/nowhere/at/all" };
    assert_int_equal(ram_add(ram, "ram", BASE, MIB, false, &nowhere, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nowhere/at/all"));
    ram_free(ram);
}

static void a_block_stops_being_fresh_when_somebody_gets_at_it(void **state)
{
    (void)state;
    struct ram *ram = two_blocks();
    uint8_t byte = 0;

    assert_true(ram->block[1].fresh);
    assert_true(ram_read(ram, BASE, &byte, 1));
    assert_non_null(ram_page_host(ram, 64));
    assert_true(ram->block[1].fresh);
    assert_non_null(ram_ptr(ram, BASE, 1));
    assert_false(ram->block[1].fresh);
    assert_true(ram->block[0].fresh);
    assert_false(ram_write(ram, 0x1000, &byte, 1));
    assert_true(ram->block[0].fresh);
    assert_true(ram_load(ram, 0x1000, &byte, 1));
    assert_false(ram->block[0].fresh);
    ram_free(ram);
}

static void touching_keeps_what_is_there(void **state)
{
    (void)state;
    struct ram *ram = two_blocks();
    uint32_t word = 7, back = 0;

    assert_true(ram_write(ram, BASE + 5 * PAGE_BYTES, &word, 4));
    ram_touch(&ram->block[1], 1, 4 * MIB - 1);
    assert_true(ram_read(ram, BASE + 5 * PAGE_BYTES, &back, 4));
    assert_int_equal(back, 7);
    ram_free(ram);
}

/* Small blocks: the host gives no huge pages, of which one touch is 512. */
static void pages_that_nobody_touched_are_known_without_a_look(void **state)
{
    (void)state;
    struct ram_options plain = { 0 }, shared = { .share = true };
    struct ram *ram = ram_new();
    uint64_t word = 7;
    assert_int_equal(ram_add(ram, "a", BASE, 70 * PAGE_BYTES, false, &plain, NULL), 0);
    assert_int_equal(ram_add(ram, "b", 2 * BASE, 64 * PAGE_BYTES, false, &shared, NULL), 0);
    assert_int_equal(ram_seal_layout(ram, NULL), 0);
    if (ram->pagemap < 0)
        skip();
    assert_true(ram_untouched(ram, 0) == UINT64_MAX);
    assert_true(ram_write(ram, BASE + 3 * PAGE_BYTES, &word, 8));
    assert_true(ram_write(ram, BASE + 65 * PAGE_BYTES, &word, 8));
    assert_true(ram_untouched(ram, 0) == ~(UINT64_C(1) << 3));
    assert_true(ram_untouched(ram, 64) == (0x3f & ~2)); /* and no page behind the end */
    assert_true(ram_untouched(ram, 128) == 0);          /* what is behind a file is the file's */
    assert_true(ram_untouched(ram, 1 << 20) == 0);
    ram_free(ram);
}

static void where_the_host_tells_nothing_no_page_is_known_to_be_untouched(void **state)
{
    (void)state;
    struct ram *ram = two_blocks();
    close(ram->pagemap);
    ram->pagemap = -1;
    assert_true(ram_untouched(ram, 0) == 0);
    ram_free(ram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_share_no_dirty_word),
        cmocka_unit_test(mark_all_leaves_the_hole_between_blocks_out),
        cmocka_unit_test(ranges_that_leave_a_block_are_refused_whole),
        cmocka_unit_test(only_a_loader_writes_rom),
        cmocka_unit_test(a_write_marks_every_page_it_touches),
        cmocka_unit_test(copies_of_any_alignment_and_length_are_exact),
        cmocka_unit_test(pages_copy_out_and_in),
        cmocka_unit_test(a_page_with_one_bit_set_anywhere_is_not_zero),
        cmocka_unit_test(bad_layouts_are_refused_with_a_sentence),
        cmocka_unit_test(more_ram_than_the_host_has_can_be_promised),
        cmocka_unit_test(shared_ram_is_seen_through_its_file),
        cmocka_unit_test(a_block_stops_being_fresh_when_somebody_gets_at_it),
        cmocka_unit_test(touching_keeps_what_is_there),
        cmocka_unit_test(pages_that_nobody_touched_are_known_without_a_look),
        cmocka_unit_test(where_the_host_tells_nothing_no_page_is_known_to_be_untouched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
