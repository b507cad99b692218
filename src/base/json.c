/* json-c glue: writing one line of ASCII, and reading values from a stream. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

/* --- writing -------------------------------------------------------------------------------------------- */

static void put_text(struct buf *out, const char *text)
{
    buf_put(out, text, strlen(text));
}

/* One UTF-8 sequence (RFC 3629); what is none yields U+FFFD and eats one byte. */
static uint32_t take_code_point(const uint8_t **at, const uint8_t *end)
{
    static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
    uint8_t first = *(*at)++;
    unsigned length = first < 0x80 ? 1 : (first >> 5) == 6 ? 2 : (first >> 4) == 14 ? 3 : (first >> 3) == 30 ? 4 : 0;
    if (length == 1)
        return first;
    if (length == 0 || (size_t)(end - *at) < length - 1)
        return 0xfffd;
    uint32_t code = first & (0x7fu >> length);
    for (unsigned i = 0; i < length - 1; i++) {
        if (((*at)[i] & 0xc0) != 0x80)
            return 0xfffd;
        code = code << 6 | ((*at)[i] & 0x3f);
    }
    if (code < smallest[length] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
        return 0xfffd;
    *at += length - 1;
    return code;
}

static void put_escaped(struct buf *out, uint32_t code)
{
    static const char plain[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    const char *hit = code && code < 0x80 ? strchr(plain, (int)code) : NULL;
    char text[16];
    if (hit)
        snprintf(text, sizeof text, "\\%c", letters[hit - plain]);
    else if (code >= 0x20 && code < 0x7f)
        snprintf(text, sizeof text, "%c", (char)code);
    else if (code < 0x10000)
        snprintf(text, sizeof text, "\\u%04x", (unsigned)code);
    else
        snprintf(text, sizeof text, "\\u%04x\\u%04x", (unsigned)(0xd800 + ((code - 0x10000) >> 10)),
                 (unsigned)(0xdc00 + ((code - 0x10000) & 0x3ff)));
    put_text(out, text);
}

static void put_string(struct buf *out, const char *text, size_t length)
{
    const uint8_t *at = (const uint8_t *)text, *end = at + length;
    put_text(out, "\"");
    while (at < end)
        put_escaped(out, take_code_point(&at, end));
    put_text(out, "\"");
}

static void put_double(struct buf *out, double number)
{
    char text[40];
    if (!isfinite(number))
        number = 0; /* JSON has no word for it */
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, number);
        if (strtod(text, NULL) == number)
            break;
    }
    put_text(out, text);
}

static void put_object(struct json_object *value, struct buf *out)
{
    const char *comma = "";
    put_text(out, "{");
    json_object_object_foreach(value, name, member)
    {
        put_text(out, comma);
        put_string(out, name, strlen(name));
        put_text(out, ": ");
        json_write(member, out);
        comma = ", ";
    }
    put_text(out, "}");
}

static void put_array(struct json_object *value, struct buf *out)
{
    put_text(out, "[");
    for (size_t i = 0; i < json_object_array_length(value); i++) {
        if (i)
            put_text(out, ", ");
        json_write(json_object_array_get_idx(value, i), out);
    }
    put_text(out, "]");
}

void json_write(struct json_object *value, struct buf *out)
{
    switch (json_object_get_type(value)) {
    case json_type_null: put_text(out, "null"); break;
    case json_type_boolean: put_text(out, json_object_get_boolean(value) ? "true" : "false"); break;
    case json_type_double: put_double(out, json_object_get_double(value)); break;
    case json_type_int: put_text(out, json_object_to_json_string(value)); break;
    case json_type_string:
        put_string(out, json_object_get_string(value), (size_t)json_object_get_string_len(value));
        break;
    case json_type_object: put_object(value, out); break;
    case json_type_array: put_array(value, out); break;
    }
}

char *json_string(struct json_object *value)
{
    struct buf out = { 0 };
    json_write(value, &out);
    buf_put_u8(&out, 0);
    return (char *)out.data;
}

/* --- members -------------------------------------------------------------------------------------------- */

struct json_object *json_get(struct json_object *object, const char *name)
{
    struct json_object *member = NULL;
    if (json_object_is_type(object, json_type_object))
        json_object_object_get_ex(object, name, &member);
    return member;
}

const char *json_get_str(struct json_object *object, const char *name)
{
    struct json_object *member = json_get(object, name);
    return json_object_is_type(member, json_type_string) ? json_object_get_string(member) : NULL;
}

int64_t json_get_int(struct json_object *object, const char *name)
{
    struct json_object *member = json_get(object, name);
    return json_object_is_type(member, json_type_int) ? json_object_get_int64(member) : 0;
}

double json_get_num(struct json_object *object, const char *name)
{
    struct json_object *member = json_get(object, name);
    bool number = json_object_is_type(member, json_type_double) || json_object_is_type(member, json_type_int);
    return number ? json_object_get_double(member) : 0;
}

bool json_get_bool(struct json_object *object, const char *name)
{
    struct json_object *member = json_get(object, name);
    return json_object_is_type(member, json_type_boolean) && json_object_get_boolean(member);
}

/* --- reading -------------------------------------------------------------------------------------------- */

void json_reader_init(struct json_reader *reader)
{
    *reader = (struct json_reader){ .tokener = json_tokener_new_ex(JSON_DEPTH_MAX) };
}

void json_reader_reset(struct json_reader *reader)
{
    json_tokener_reset(reader->tokener);
    reader->bytes = 0;
    reader->skipping = false;
}

void json_reader_free(struct json_reader *reader)
{
    if (reader->tokener)
        json_tokener_free(reader->tokener);
    *reader = (struct json_reader){ 0 };
}

static void advance(const char **data, size_t *bytes, size_t count)
{
    *data += count;
    *bytes -= count;
}

static void skip_line(struct json_reader *reader, const char **data, size_t *bytes)
{
    while (reader->skipping && *bytes > 0) {
        reader->skipping = **data != '\n' && (uint8_t) * *data != 0xff;
        advance(data, bytes, 1);
    }
}

static int fail(struct json_reader *reader, const char **data, size_t *bytes, const char *why, struct err *err)
{
    json_reader_reset(reader);
    reader->skipping = true;
    skip_line(reader, data, bytes);
    return err_set(err, -EINVAL, "JSON parse error, %s", why);
}

int json_reader_next(struct json_reader *reader, const char **data, size_t *bytes, struct json_object **out,
                     struct err *err)
{
    *out = NULL;
    skip_line(reader, data, bytes);
    while (*bytes > 0 && reader->bytes == 0 && isspace((unsigned char)**data))
        advance(data, bytes, 1); /* between values */
    if (*bytes == 0)
        return 0;
    if (**data == '\0')
        return fail(reader, data, bytes, "stray NUL byte", err);

    size_t room = JSON_MESSAGE_MAX - reader->bytes, length = *bytes < room ? *bytes : room;
    const char *nul = memchr(*data, '\0', length); /* the tokener would take it for the end of all text */
    if (nul)
        length = (size_t)(nul - *data);
    struct json_object *value = length ? json_tokener_parse_ex(reader->tokener, *data, (int)length) : NULL;
    enum json_tokener_error status = length ? json_tokener_get_error(reader->tokener) : json_tokener_continue;
    size_t used = length ? json_tokener_get_parse_end(reader->tokener) : 0;
    if (status == json_tokener_success) {
        advance(data, bytes, used);
        json_reader_reset(reader);
        *out = value;
        return 1;
    }
    advance(data, bytes, used < *bytes ? used : *bytes);
    if (status != json_tokener_continue)
        return fail(reader, data, bytes, json_tokener_error_desc(status), err);
    reader->bytes += length;
    if (nul)
        return fail(reader, data, bytes, "stray NUL byte", err);
    if (reader->bytes >= JSON_MESSAGE_MAX)
        return fail(reader, data, bytes, "the message is too long", err);
    return 0;
}
