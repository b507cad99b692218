#include "tests/unit/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fields.h"

struct line {
    uint16_t number;
    uint8_t used;
};

struct device {
    uint8_t mode; /* 0..3 */
    bool on;
    uint16_t port;
    uint32_t mask;
    uint64_t base;  /* 16..4096 */
    int64_t offset; /* any */
    uint8_t name[5];
    uint32_t table[3];
    struct line line[2]; /* number at most 9 */
    uint32_t since_2;
    int not_saved;
};

static const struct field line_fields[] = {
    FIELD_U16_MAX_OF(struct line, number, 9),
    FIELD_BOOL_OF(struct line, used),
    FIELD_TABLE_END,
};

static const struct field device_fields[] = {
    FIELD_U8_MAX_OF(struct device, mode, 3),
    FIELD_BOOL_OF(struct device, on),
    FIELD_U16_OF(struct device, port),
    FIELD_U32_OF(struct device, mask),
    { "base", FIELD_U64, offsetof(struct device, base), 1, 1, 16, 4096, NULL, 0 },
    FIELD_I64_OF(struct device, offset),
    FIELD_BYTES_OF(struct device, name),
    FIELD_U32_ARRAY_OF(struct device, table),
    FIELD_STRUCTS_OF(struct device, line, 2, line_fields),
    { "since_2", FIELD_U32, offsetof(struct device, since_2), 1, 2, 0, 0, NULL, 0 },
    FIELD_TABLE_END,
};

static int validate(const void *object, struct err *err)
{
    const struct device *device = object;
    if (device->on && device->port == 0)
        return err_set(err, -EPROTO, "it is on without a port");
    return 0;
}

static const struct state_desc desc = { "dev", 2, 1, sizeof(struct device), device_fields, validate };

static const struct device example = {
    .mode = 3,
    .on = true,
    .port = 0x1234,
    .mask = 0x89abcdef,
    .base = 4096,
    .offset = -2,
    .name = "abcde",
    .table = { 1, 2, 0xffffffff },
    .line = { { 9, 1 }, { 0, 0 } },
    .since_2 = 77,
    .not_saved = 5,
};

static const uint8_t example_wire[] = {
    3,    1,    0x12, 0x34, 0x89, 0xab, 0xcd, 0xef, 0,   0,   0,   0,   0, 0, 0x10, 0, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 'a',  'b', 'c', 'd', 'e', 0, 0, 0,    1, 0,
    0,    0,    2,    0xff, 0xff, 0xff, 0xff, 0,    9,   1,   0,   0,   0, 0, 0,    0, 77,
};

enum { WIRE_BYTES = sizeof(example_wire), WIRE_BYTES_1 = WIRE_BYTES - 4 };

/* From the heap, exactly long enough: ASan sees any byte read too many. */
static int load(struct device *device, uint32_t version, const uint8_t *wire, size_t bytes, struct err *err)
{
    uint8_t *copy = malloc(bytes ? bytes : 1);
    if (bytes)
        memcpy(copy, wire, bytes);
    struct reader in = reader_of(copy, bytes);
    int result = state_load(&desc, device, version, &in, err);
    free(copy);
    return result;
}

static void the_wire_is_the_fields_in_table_order_big_endian(void **state)
{
    (void)state;
    struct buf out = { 0 };
    state_save(&desc, &example, &out);
    assert_int_equal(out.size, WIRE_BYTES);
    assert_memory_equal(out.data, example_wire, WIRE_BYTES);
    assert_int_equal(state_wire_bytes(&desc, 2), WIRE_BYTES);
    assert_int_equal(state_wire_bytes(&desc, 1), WIRE_BYTES_1);
    buf_free(&out);
}

static void what_was_saved_is_loaded_and_nothing_else_is_touched(void **state)
{
    (void)state;
    struct device device;
    memset(&device, 0x11, sizeof(device));
    int not_saved = device.not_saved;
    assert_int_equal(load(&device, 2, example_wire, WIRE_BYTES, NULL), 0);
    assert_int_equal(device.not_saved, not_saved);
    struct buf again = { 0 };
    state_save(&desc, &device, &again);
    assert_memory_equal(again.data, example_wire, WIRE_BYTES);
    buf_free(&again);
}

static void a_field_that_an_older_version_lacks_stays_as_it_is(void **state)
{
    (void)state;
    struct device device = { .since_2 = 42 };
    assert_int_equal(load(&device, 1, example_wire, WIRE_BYTES_1, NULL), 0);
    assert_int_equal(device.since_2, 42);
    assert_int_equal(device.port, 0x1234);
}

static void every_length_but_the_right_one_is_refused(void **state)
{
    (void)state;
    uint8_t longer[WIRE_BYTES + 1] = { 0 };
    memcpy(longer, example_wire, WIRE_BYTES);
    for (size_t bytes = 0; bytes <= sizeof(longer); bytes++) {
        struct err err = { 0 };
        struct device device = { .mode = 1, .not_saved = 9 }, before = device;
        int result = load(&device, 2, longer, bytes, &err);
        if (bytes == WIRE_BYTES) {
            assert_int_equal(result, 0);
            continue;
        }
        assert_int_equal(result, -EPROTO);
        assert_non_null(strstr(err.text, "section dev"));
        assert_memory_equal(&device, &before, sizeof(device));
    }
}

static void a_value_outside_its_limits_is_refused_by_name_and_changes_nothing(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint8_t byte;
        const char *names;
    } rows[] = {
        { 0, 4, "field mode[0] is 4, outside 0..3" },
        { 0, 255, "field mode[0] is 255, outside 0..3" },
        { 1, 2, "field on[0] is 2, outside 0..1" },
        { 14, 0x00, "field base[0] is 0, outside 16..4096" },
        { 15, 1, "field base[0] is 4097, outside 16..4096" },
        { 8, 0x80, "field base[0] is 9223372036854779904, outside 16..4096" },
        { 42, 10, "field number[0] is 10, outside 0..9" },
        { 41, 1, "field number[0] is 265, outside 0..9" },
        { 46, 2, "field used[0] is 2, outside 0..1" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint8_t wire[WIRE_BYTES];
        memcpy(wire, example_wire, WIRE_BYTES);
        wire[rows[i].at] = rows[i].byte;
        struct err err = { 0 };
        struct device device = { .mode = 1 }, before = device;
        assert_int_equal(load(&device, 2, wire, WIRE_BYTES, &err), -EPROTO);
        if (!strstr(err.text, rows[i].names))
            fail_msg("\"%s\" does not say \"%s\"", err.text, rows[i].names);
        assert_memory_equal(&device, &before, sizeof(device));
    }
}

static void fields_that_contradict_each_other_are_refused_too(void **state)
{
    (void)state;
    uint8_t wire[WIRE_BYTES];
    memcpy(wire, example_wire, WIRE_BYTES);
    wire[2] = wire[3] = 0;
    struct err err = { 0 };
    struct device device = { .mode = 1 }, before = device;
    assert_int_equal(load(&device, 2, wire, WIRE_BYTES, &err), -EPROTO);
    assert_string_equal(err.text, "section dev: it is on without a port");
    assert_memory_equal(&device, &before, sizeof(device));
    assert_true(load(&device, 2, wire, WIRE_BYTES, NULL) < 0);
}

static void versions_that_nobody_here_knows_are_refused(void **state)
{
    (void)state;
    static const uint32_t versions[] = { 0, 3, UINT32_MAX };
    for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
        struct err err = { 0 };
        struct device device = { 0 };
        assert_int_equal(load(&device, versions[i], example_wire, WIRE_BYTES, &err), -EPROTO);
        assert_non_null(strstr(err.text, "section dev has version"));
    }
}

/* Whatever byte is spoiled: refused and unchanged, or loaded so that saving gives the same bytes again. */
static void any_spoiled_byte_is_either_refused_or_kept_exactly(void **state)
{
    (void)state;
    unsigned refused = 0, taken = 0;
    for (size_t at = 0; at < WIRE_BYTES; at++) {
        for (unsigned value = 0; value < 256; value++) {
            uint8_t wire[WIRE_BYTES];
            memcpy(wire, example_wire, WIRE_BYTES);
            wire[at] = (uint8_t)value;
            struct device device = { .mode = 1 }, before = device;
            if (load(&device, 2, wire, WIRE_BYTES, NULL) < 0) {
                refused++;
                assert_memory_equal(&device, &before, sizeof(device));
                continue;
            }
            taken++;
            struct buf out = { 0 };
            state_save(&desc, &device, &out);
            assert_memory_equal(out.data, wire, WIRE_BYTES);
            buf_free(&out);
        }
    }
    assert_true(refused > 1000 && taken > 1000);
}

static void every_field_is_printed_by_its_name(void **state)
{
    (void)state;
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    state_print(&desc, &example, out);
    fclose(out);
    static const char *const lines[] = {
        "dev version 2\n",          "  mode: 03\n",         "  offset: fffffffffffffffe\n", "  name: 61 62 63 64 65\n",
        "  line[0].number: 0009\n", "  line[1].used: 00\n", "  since_2: 0000004d\n"
    };
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        if (!strstr(text, lines[i]))
            fail_msg("no \"%s\" in:\n%s", lines[i], text);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_wire_is_the_fields_in_table_order_big_endian),
        cmocka_unit_test(what_was_saved_is_loaded_and_nothing_else_is_touched),
        cmocka_unit_test(a_field_that_an_older_version_lacks_stays_as_it_is),
        cmocka_unit_test(every_length_but_the_right_one_is_refused),
        cmocka_unit_test(a_value_outside_its_limits_is_refused_by_name_and_changes_nothing),
        cmocka_unit_test(fields_that_contradict_each_other_are_refused_too),
        cmocka_unit_test(versions_that_nobody_here_knows_are_refused),
        cmocka_unit_test(any_spoiled_byte_is_either_refused_or_kept_exactly),
        cmocka_unit_test(every_field_is_printed_by_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
