/* Glue around json-c: one line of ASCII out, a stream of values in. Values are not shared between threads.
 *
 * Output is spaced as {"a": 1, "b": [2, 3]} because scripts grep for it; everything that is not ASCII becomes \uXXXX,
 * and what is not UTF-8 becomes \ufffd. Doubles are written with as few digits as give them back. */
#pragma once
#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/bytes.h"
#include "base/err.h"

enum { JSON_DEPTH_MAX = 32, JSON_MESSAGE_MAX = 1024 * 1024 };

void json_write(struct json_object *value, struct buf *out); /* no newline, no NUL */
char *json_string(struct json_object *value);                /* the same, malloc'ed and terminated */

static inline void json_put(struct json_object *object, const char *name, struct json_object *value)
{
    json_object_object_add(object, name, value); /* takes value */
}
static inline void json_put_str(struct json_object *object, const char *name, const char *text)
{
    json_put(object, name, json_object_new_string(text));
}
static inline void json_put_int(struct json_object *object, const char *name, int64_t number)
{
    json_put(object, name, json_object_new_int64(number));
}
static inline void json_put_u64(struct json_object *object, const char *name, uint64_t number)
{
    json_put(object, name, json_object_new_uint64(number));
}
static inline void json_put_num(struct json_object *object, const char *name, double number)
{
    json_put(object, name, json_object_new_double(number));
}
static inline void json_put_bool(struct json_object *object, const char *name, bool on)
{
    json_put(object, name, json_object_new_boolean(on));
}
/* Members, or NULL / 0 when absent or of another type. */
struct json_object *json_get(struct json_object *object, const char *name);
const char *json_get_str(struct json_object *object, const char *name);
int64_t json_get_int(struct json_object *object, const char *name);
double json_get_num(struct json_object *object, const char *name); /* integers too */
bool json_get_bool(struct json_object *object, const char *name);

/* A stream of values, cut anywhere. After an error the rest of the line (or up to a 0xFF byte) is skipped. */
struct json_reader {
    struct json_tokener *tokener;
    size_t bytes;  /* of the value being read */
    bool skipping; /* to the end of a bad line */
};

void json_reader_init(struct json_reader *reader);
void json_reader_reset(struct json_reader *reader);
void json_reader_free(struct json_reader *reader);

/* Consumes from *data until a value is complete. 1: *out is a value (yours; NULL is JSON's null); 0: all consumed,
 * more is needed; -EINVAL: bad text, err says how; call again for what comes after. */
int json_reader_next(struct json_reader *reader, const char **data, size_t *bytes, struct json_object **out,
                     struct err *err);
