#include "tests/unit/test.h"

#include <stdio.h>
#include <string.h>

#include "memory/dirty.h"
#include "memory/ram.h"

static const uint64_t BASE = 0x80000000;

static struct ram *ram;

static int setup(void **state)
{
    (void)state;
    ram = ram_new();
    return ram && ram_add(ram, "a", BASE, 70 * PAGE_BYTES, false, NULL, NULL) == 0 ? ram_seal_layout(ram, NULL) : -1;
}

static int teardown(void **state)
{
    (void)state;
    ram_free(ram);
    return 0;
}

static void assert_marker(uint64_t page, const char *name)
{
    assert_string_equal(dirty_last_marker(ram->dirty, page).text, name);
}

static void who_marked_last_is_known_by_page(void **state)
{
    struct dirty_writer writer = { .number = 3 };
    (void)state;
    atomic_init(&writer.parked, true);
    dirty_writer_register(ram->dirty, &writer);
    dirty_trail_start(ram->dirty);
    dirty_start(ram->dirty, DIRTY_MIGRATION, true);
    assert_marker(5, "nobody since the migration began");
    dirty_mark_ahead(ram->dirty, &writer, 5);
    assert_true(ram_write(ram, BASE + 6 * PAGE_BYTES - 4, "12345678", 8)); /* pages 5 and 6 */
    dirty_mark_ahead(ram->dirty, &writer, 6);
    trail_as("some-device");
    assert_true(ram_write(ram, BASE + 7 * PAGE_BYTES, "x", 1));
    assert_true(ram_load(ram, BASE + 8 * PAGE_BYTES, "x", 1));
    assert_marker(4, "nobody since the migration began");
    assert_marker(5, "a device or a loader");
    assert_marker(6, "vCPU 3");
    assert_marker(7, "some-device");
    assert_marker(8, "a loader");
    dirty_trail_stop(ram->dirty);
    dirty_mark_ahead(ram->dirty, &writer, 7);
    assert_marker(7, "some-device");
    dirty_trail_start(ram->dirty); /* the next migration's */
    assert_marker(7, "nobody since the migration began");
    dirty_trail_stop(ram->dirty);
    dirty_writer_unregister(ram->dirty, &writer);
    dirty_stop(ram->dirty, DIRTY_MIGRATION);
}

static void more_names_than_there_is_room_for_are_nobody(void **state)
{
    static char names[TRAIL_NAMES_MAX + 1][8];
    (void)state;
    dirty_trail_start(ram->dirty);
    for (unsigned i = 0; i <= TRAIL_NAMES_MAX; i++) {
        snprintf(names[i], sizeof(names[i]), "d%u", i);
        trail_as(names[i]);
        dirty_mark(ram->dirty, i);
    }
    assert_marker(TRAIL_NAMES_MAX - 1, names[TRAIL_NAMES_MAX - 1]);
    assert_marker(TRAIL_NAMES_MAX, "nobody since the migration began");
    dirty_trail_stop(ram->dirty);
    trail_as(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(who_marked_last_is_known_by_page, setup, teardown),
        cmocka_unit_test_setup_teardown(more_names_than_there_is_room_for_are_nobody, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
