#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#include "memory/bus.h"

struct probe {
    uint64_t offset, value;
    unsigned size, reads, writes;
};

static uint64_t probe_read(void *device, uint64_t offset, unsigned size)
{
    struct probe *probe = device;

    probe->offset = offset;
    probe->size = size;
    probe->reads++;
    return 0xabcd;
}

static void probe_write(void *device, uint64_t offset, uint64_t value, unsigned size)
{
    struct probe *probe = device;

    probe->offset = offset;
    probe->size = size;
    probe->value = value;
    probe->writes++;
}

static const struct bus_ops any_size = { probe_read, probe_write, 1, 8 };
static const struct bus_ops words_only = { probe_read, probe_write, 4, 4 };

static void an_access_reaches_its_device_with_an_offset(void **state)
{
    (void)state;
    struct bus bus;
    struct probe a = { 0 }, b = { 0 };
    uint64_t value = 0;

    bus_init(&bus, NULL);
    assert_int_equal(bus_add(&bus, "b", 0x3000, 0x100, &any_size, &b, NULL), 0);
    assert_int_equal(bus_add(&bus, "a", 0x1000, 0x1000, &any_size, &a, NULL), 0);
    assert_true(bus_device_read(&bus, 0x1ff8, 8, &value));
    assert_int_equal(value, 0xabcd);
    assert_int_equal(a.offset, 0xff8);
    assert_int_equal(a.size, 8);
    assert_true(bus_device_write(&bus, 0x3002, 2, 0x55));
    assert_int_equal(b.offset, 2);
    assert_int_equal(b.value, 0x55);
    assert_int_equal(a.reads, 1);
    assert_int_equal(a.writes, 0);
    assert_int_equal(b.writes, 1);
}

static void every_address_finds_its_region_and_no_other(void **state)
{
    (void)state;
    struct bus bus;

    bus_init(&bus, NULL);
    /* In an order that is neither rising nor falling. */
    for (unsigned i = 0; i < BUS_REGIONS_MAX; i++) {
        uint64_t at = i * 37 % BUS_REGIONS_MAX;
        assert_int_equal(bus_add(&bus, "r", at * 0x100 + 0x10, 0x80, &any_size, NULL, NULL), 0);
    }
    for (uint64_t gpa = 0; gpa < BUS_REGIONS_MAX * 0x100 + 0x100; gpa++) {
        const struct bus_region *region = bus_find(&bus, gpa);
        bool inside = gpa % 0x100 >= 0x10 && gpa % 0x100 < 0x90 && gpa / 0x100 < BUS_REGIONS_MAX;
        assert_int_equal(region != NULL, inside);
        if (region)
            assert_int_equal(region->gpa, gpa / 0x100 * 0x100 + 0x10);
    }
    assert_null(bus_find(&bus, UINT64_MAX));
    struct err err = { 0 };
    assert_int_equal(bus_add(&bus, "more", 0x100000, 8, &any_size, NULL, &err), -ENOSPC);
}

static void odd_accesses_are_faults_and_reach_no_device(void **state)
{
    (void)state;
    struct bus bus;
    struct probe probe = { 0 };
    uint64_t value;

    bus_init(&bus, NULL);
    assert_int_equal(bus_add(&bus, "words", 0x1000, 0x100, &words_only, &probe, NULL), 0);
    assert_int_equal(bus_add(&bus, "short", 0x2000, 4, &any_size, &probe, NULL), 0);
    struct {
        uint64_t gpa;
        unsigned size;
    } bad[] = { { 0x1000, 1 }, { 0x1000, 2 }, { 0x1000, 8 }, { 0x1002, 4 },    { 0x1001, 1 },
                { 0x2000, 8 }, { 0x2001, 2 }, { 0x2000, 3 }, { 0x2000, 0 },    { 0x2000, 16 },
                { 0x0ffc, 4 }, { 0x1100, 4 }, { 0, 1 },      { UINT64_MAX, 1 } };
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(bus_device_read(&bus, bad[i].gpa, bad[i].size, &value));
        assert_false(bus_device_write(&bus, bad[i].gpa, bad[i].size, 0));
    }
    assert_int_equal(probe.reads + probe.writes, 0);
    assert_true(bus_device_read(&bus, 0x10fc, 4, &value));
    assert_true(bus_device_read(&bus, 0x2003, 1, &value));
}

static void nothing_lies_on_top_of_anything(void **state)
{
    (void)state;
    struct bus bus;
    struct ram *ram = ram_new();
    struct err err = { 0 };

    assert_int_equal(ram_add(ram, "main ram", 0x80000000, 0x10000, false, NULL, NULL), 0);
    bus_init(&bus, ram);
    assert_int_equal(bus_add(&bus, "uart", 0x1000, 0x100, &any_size, NULL, NULL), 0);
    assert_int_equal(bus_add(&bus, "x", 0x10ff, 1, &any_size, NULL, &err), -EEXIST);
    assert_non_null(strstr(err.text, "uart"));
    err_clear(&err);
    assert_int_equal(bus_add(&bus, "x", 0x0fff, 2, &any_size, NULL, &err), -EEXIST);
    assert_int_equal(bus_add(&bus, "x", 0, 0x10000, &any_size, NULL, &err), -EEXIST);
    err_clear(&err);
    assert_int_equal(bus_add(&bus, "x", 0x8000ffff, 1, &any_size, NULL, &err), -EEXIST);
    assert_non_null(strstr(err.text, "main ram"));
    assert_int_equal(bus_add(&bus, "x", 0x5000, 0, &any_size, NULL, NULL), -EINVAL);
    assert_int_equal(bus_add(&bus, "x", UINT64_MAX, 2, &any_size, NULL, NULL), -EINVAL);
    assert_int_equal(bus_add(&bus, "x", 0x1100, 1, &any_size, NULL, NULL), 0);
    assert_int_equal(bus_add(&bus, "x", 0x0fff, 1, &any_size, NULL, NULL), 0);
    assert_int_equal(bus_add(&bus, "x", 0x80010000, 1, &any_size, NULL, NULL), 0);
    ram_free(ram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_access_reaches_its_device_with_an_offset),
        cmocka_unit_test(every_address_finds_its_region_and_no_other),
        cmocka_unit_test(odd_accesses_are_faults_and_reach_no_device),
        cmocka_unit_test(nothing_lies_on_top_of_anything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
