#include "tests/unit/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

static void assert_written(const char *in, const char *expected)
{
    struct json_object *value = json_tokener_parse(in);
    char *out = json_string(value);
    assert_string_equal(out, expected);
    free(out);
    json_object_put(value);
}

static void output_is_one_line_of_ascii(void **state)
{
    (void)state;
    assert_written("{\"a\":1,\"b\":[true,null,\"x\"],\"c\":{}}", "{\"a\": 1, \"b\": [true, null, \"x\"], \"c\": {}}");
    assert_written("[\"\\n\\t\\u0001\\\"\\\\\"]", "[\"\\n\\t\\u0001\\\"\\\\\"]");
    assert_written("[\"gr\xc3\xbc\xc3\x9f\"]", "[\"gr\\u00fc\\u00df\"]");
    assert_written("[\"\xf0\x9f\x90\xa6\"]", "[\"\\ud83d\\udc26\"]"); /* beyond 16 bits: a pair */
    assert_written("[18446744073709551615, -9223372036854775808]", "[18446744073709551615, -9223372036854775808]");
}

static void doubles_come_back_as_they_were(void **state)
{
    (void)state;
    assert_written("[0.1, 276.8955294117647, 0.0, 1e300]", "[0.1, 276.8955294117647, 0, 1e+300]");
}

static void what_is_not_utf8_is_replaced(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } rows[] = {
        { "a\xff z", "\"a\\ufffd z\"" },
        { "\xc3", "\"\\ufffd\"" },                       /* cut short */
        { "\xc0\x80", "\"\\ufffd\\ufffd\"" },            /* overlong */
        { "\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\"" }, /* a lone surrogate */
        { "\xf5\x80\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\"" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct json_object *value = json_object_new_string(rows[i].in);
        char *out = json_string(value);
        assert_string_equal(out, rows[i].out);
        free(out);
        json_object_put(value);
    }
}

/* Feed text in pieces of `step`; write what came out of it, one word a value or error. */
static void feed(const char *text, size_t length, size_t step, char *log, size_t log_size)
{
    struct json_reader reader;
    json_reader_init(&reader);
    log[0] = '\0';
    for (size_t at = 0; at < length; at += step) {
        const char *data = text + at;
        size_t bytes = length - at < step ? length - at : step;
        struct json_object *value;
        struct err err = { 0 };
        int rc;
        while ((rc = json_reader_next(&reader, &data, &bytes, &value, &err)) != 0) {
            char *out = rc < 0 ? strdup("error") : json_string(value);
            assert_true(rc > 0 || err.code == -EINVAL);
            strncat(log, out, log_size - strlen(log) - 1);
            strncat(log, ";", log_size - strlen(log) - 1);
            free(out);
            json_object_put(value);
            err_clear(&err);
        }
        assert_int_equal(bytes, 0);
    }
    json_reader_free(&reader);
}

static void values_come_out_however_the_stream_is_cut(void **state)
{
    (void)state;
    static const char text[] =
        "{\"execute\": \"stop\"}{'a':\r\n 'b'}\r\n\r\n  {bad json}\n{\"id\":[1,{\"x\":\"}\"}]}\n";
    char log[512];
    for (size_t step = 1; step < sizeof text; step++) {
        feed(text, sizeof text - 1, step, log, sizeof log);
        assert_string_equal(log, "{\"execute\": \"stop\"};{\"a\": \"b\"};error;{\"id\": [1, {\"x\": \"}\"}]};");
    }
}

static void a_bad_line_spoils_nothing_after_it(void **state)
{
    (void)state;
    static const char text[] = "{\"a\" 1}\n{\"b\": 2}\n\xff{\"c\": 3}\n{\"d\"\0: 4}\n{\"e\": 5}\n";
    char log[512];
    for (size_t step = 1; step < sizeof text; step++) {
        feed(text, sizeof text - 1, step, log, sizeof log);
        assert_string_equal(log, "error;{\"b\": 2};error;{\"c\": 3};error;{\"e\": 5};");
    }
}

static void depth_and_length_have_limits(void **state)
{
    (void)state;
    char log[64], deep[2 * JSON_DEPTH_MAX + 16];
    memset(deep, '[', sizeof deep);
    strcpy(deep + sizeof deep - 6, "\n{}\n");
    feed(deep, strlen(deep), 7, log, sizeof log);
    assert_string_equal(log, "error;{};");

    size_t size = JSON_MESSAGE_MAX + 4096;
    char *big = malloc(size);
    memset(big, 'x', size);
    memcpy(big, "{\"a\":\"", 6);
    memcpy(big + size - 5, "\"}\n1 ", 5);
    feed(big, size, 4096, log, sizeof log);
    assert_string_equal(log, "error;1;");
    free(big);
}

static void members_of_another_type_read_as_absent(void **state)
{
    (void)state;
    struct json_object *value = json_tokener_parse("{\"s\":\"x\",\"i\":7,\"b\":true,\"n\":1.5}");
    assert_string_equal(json_get_str(value, "s"), "x");
    assert_null(json_get_str(value, "i"));
    assert_int_equal(json_get_int(value, "i"), 7);
    assert_int_equal(json_get_int(value, "s"), 0);
    assert_true(json_get_bool(value, "b"));
    assert_false(json_get_bool(value, "i"));
    assert_true(json_get_num(value, "n") == 1.5 && json_get_num(value, "i") == 7);
    assert_null(json_get(NULL, "x"));
    json_object_put(value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(output_is_one_line_of_ascii),
        cmocka_unit_test(doubles_come_back_as_they_were),
        cmocka_unit_test(what_is_not_utf8_is_replaced),
        cmocka_unit_test(values_come_out_however_the_stream_is_cut),
        cmocka_unit_test(a_bad_line_spoils_nothing_after_it),
        cmocka_unit_test(depth_and_length_have_limits),
        cmocka_unit_test(members_of_another_type_read_as_absent),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
