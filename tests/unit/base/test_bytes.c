#include "tests/unit/test.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

static void numbers_lie_in_the_order_that_the_name_says(void **state)
{
    (void)state;
    uint8_t at[9];
    static const uint8_t big[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, little[8] = { 8, 7, 6, 5, 4, 3, 2, 1 };

    be64_put(at + 1, UINT64_C(0x0102030405060708)); /* unaligned on purpose */
    assert_memory_equal(at + 1, big, 8);
    assert_true(be64_get(at + 1) == UINT64_C(0x0102030405060708));
    le64_put(at + 1, UINT64_C(0x0102030405060708));
    assert_memory_equal(at + 1, little, 8);
    assert_true(le64_get(at + 1) == UINT64_C(0x0102030405060708));

    be32_put(at + 1, 0x01020304);
    assert_memory_equal(at + 1, big, 4);
    assert_int_equal(be32_get(at + 1), 0x01020304);
    assert_int_equal(le32_get(at + 1), 0x04030201);
    le32_put(at + 1, 0x05060708);
    assert_memory_equal(at + 1, little, 4);

    be16_put(at + 1, 0x0102);
    assert_memory_equal(at + 1, big, 2);
    assert_int_equal(be16_get(at + 1), 0x0102);
    assert_int_equal(le16_get(at + 1), 0x0201);
    le16_put(at + 1, 0x0708);
    assert_memory_equal(at + 1, little, 2);
}

static void what_was_put_is_read_back_in_order(void **state)
{
    (void)state;
    struct buf buf = { 0 };
    char text[8];
    buf_put_u8(&buf, 0xff);
    buf_put_be16(&buf, 0x8001);
    buf_put_be32(&buf, 0x80000001);
    buf_put_be64(&buf, UINT64_C(0x8000000000000001));
    buf_put_str8(&buf, "name");
    buf_put(&buf, "raw", 3);

    struct reader reader = reader_of(buf.data, buf.size);
    assert_int_equal(reader_u8(&reader), 0xff);
    assert_int_equal(reader_be16(&reader), 0x8001);
    assert_true(reader_be32(&reader) == 0x80000001);
    assert_true(reader_be64(&reader) == UINT64_C(0x8000000000000001));
    reader_str8(&reader, text, sizeof(text));
    assert_string_equal(text, "name");
    assert_memory_equal(reader_take(&reader, 3), "raw", 3);
    assert_false(reader.failed);
    assert_int_equal(reader.at, reader.size);
    buf_free(&buf);
}

static void a_buffer_keeps_its_bytes_while_it_grows(void **state)
{
    (void)state;
    struct buf buf = { 0 };
    for (unsigned i = 0; i < 100000; i++)
        buf_put_u8(&buf, (uint8_t)(i * 7));
    assert_int_equal(buf.size, 100000);
    for (unsigned i = 0; i < 100000; i++)
        assert_int_equal(buf.data[i], (uint8_t)(i * 7));
    buf_put(&buf, NULL, 0);
    assert_int_equal(buf.size, 100000);
    buf_free(&buf);
    assert_null(buf.data);
    buf_put_u8(&buf, 1); /* a freed buffer is an empty one */
    assert_int_equal(buf.size, 1);
    buf_free(&buf);
}

/* On the heap and exactly long enough, so that ASan sees a read of one byte more. */
static void no_read_passes_the_end(void **state)
{
    (void)state;
    for (size_t have = 0; have < 8; have++) {
        uint8_t *bytes = malloc(have ? have : 1);
        memset(bytes, 0xaa, have ? have : 1);
        struct reader reader = reader_of(bytes, have);
        assert_true(reader_be64(&reader) == 0);
        assert_true(reader.failed);
        reader = reader_of(bytes, have);
        assert_true(have >= 4 ? reader_be32(&reader) == 0xaaaaaaaa : reader_be32(&reader) == 0);
        assert_int_equal(reader.failed, have < 4);
        reader = reader_of(bytes, have);
        assert_true(have >= 2 ? reader_be16(&reader) == 0xaaaa : reader_be16(&reader) == 0);
        assert_int_equal(reader.failed, have < 2);
        free(bytes);
    }
}

static void a_reader_that_ran_short_gives_nothing_more(void **state)
{
    (void)state;
    static const uint8_t bytes[4] = { 1, 2, 3, 4 };
    struct reader reader = reader_of(bytes, sizeof(bytes));
    assert_int_equal(reader_u8(&reader), 1);
    assert_true(reader_be32(&reader) == 0);
    assert_int_equal(reader_u8(&reader), 0); /* three bytes are there, but nobody knows what they mean */
    assert_null(reader_take(&reader, 1));
    assert_null(reader_take(&reader, 0));
    assert_true(reader.failed);
}

static void a_length_that_overflows_is_short(void **state)
{
    (void)state;
    static const uint8_t bytes[4] = { 1, 2, 3, 4 };
    struct reader reader = reader_of(bytes, sizeof(bytes));
    assert_int_equal(reader_u8(&reader), 1);
    assert_null(reader_take(&reader, SIZE_MAX));
    assert_true(reader.failed);
}

static void strings_that_lie_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        uint8_t bytes[8];
        size_t size;
        bool good;
    } rows[] = {
        { "as long as the room allows", { 3, 'a', 'b', 'c' }, 4, true },
        { "empty", { 0 }, 1, true },
        { "one too long for the room", { 4, 'a', 'b', 'c', 'd' }, 5, false },
        { "a NUL inside", { 3, 'a', 0, 'c' }, 4, false },
        { "shorter than it says", { 3, 'a', 'b' }, 3, false },
        { "without even a length", { 0 }, 0, false },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[4] = "???";
        struct reader reader = reader_of(rows[i].bytes, rows[i].size);
        reader_str8(&reader, text, sizeof(text));
        if (reader.failed == rows[i].good)
            fail_msg("%s: %s", rows[i].what, reader.failed ? "refused" : "taken");
        if (!rows[i].good)
            assert_string_equal(text, "");
        else
            assert_int_equal(strlen(text), rows[i].bytes[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_lie_in_the_order_that_the_name_says),
        cmocka_unit_test(what_was_put_is_read_back_in_order),
        cmocka_unit_test(a_buffer_keeps_its_bytes_while_it_grows),
        cmocka_unit_test(no_read_passes_the_end),
        cmocka_unit_test(a_reader_that_ran_short_gives_nothing_more),
        cmocka_unit_test(a_length_that_overflows_is_short),
        cmocka_unit_test(strings_that_lie_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
