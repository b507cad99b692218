#include "base/fields.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

static size_t width_of(enum field_type type)
{
    switch (type) {
    case FIELD_U8:
    case FIELD_BYTES: return 1;
    case FIELD_U16: return 2;
    case FIELD_U32: return 4;
    case FIELD_U64:
    case FIELD_I64: return 8;
    case FIELD_STRUCT:
    case FIELD_DERIVED:
    case FIELD_END: break;
    }
    return 0;
}

static uint64_t member_get(const uint8_t *at, enum field_type type)
{
    uint64_t value = 0; /* little-endian host: the low bytes are the value */
    memcpy(&value, at, width_of(type));
    return value;
}

static void member_set(uint8_t *at, enum field_type type, uint64_t value)
{
    memcpy(at, &value, width_of(type));
}

static void save_rows(const struct field *row, const uint8_t *object, struct buf *out)
{
    for (; row->type != FIELD_END; row++) {
        const uint8_t *at = object + row->offset;
        if (row->type == FIELD_DERIVED)
            continue;
        if (row->type == FIELD_BYTES) {
            buf_put(out, at, row->count);
            continue;
        }
        for (uint32_t i = 0; i < row->count; i++) {
            switch (row->type) {
            case FIELD_STRUCT: save_rows(row->sub, at + i * row->stride, out); break;
            case FIELD_U8: buf_put_u8(out, at[i]); break;
            case FIELD_U16: buf_put_be16(out, (uint16_t)member_get(at + i * 2, row->type)); break;
            case FIELD_U32: buf_put_be32(out, (uint32_t)member_get(at + i * 4, row->type)); break;
            default: buf_put_be64(out, member_get(at + i * 8, row->type)); break;
            }
        }
    }
}

void state_save(const struct state_desc *desc, const void *object, struct buf *out)
{
    save_rows(desc->fields, object, out);
}

static uint64_t wire_get(struct reader *in, enum field_type type)
{
    switch (width_of(type)) {
    case 1: return reader_u8(in);
    case 2: return reader_be16(in);
    case 4: return reader_be32(in);
    default: return reader_be64(in);
    }
}

static bool within(const struct field *row, uint64_t value)
{
    return (row->min == 0 && row->max == 0) || (value >= row->min && value <= row->max);
}

static int load_rows(const struct state_desc *desc, const struct field *row, uint8_t *object, uint32_t version,
                     struct reader *in, struct err *err)
{
    for (; row->type != FIELD_END; row++) {
        if (row->since > version || row->type == FIELD_DERIVED)
            continue;
        uint8_t *at = object + row->offset;
        if (row->type == FIELD_BYTES) {
            const uint8_t *bytes = reader_take(in, row->count);
            if (bytes)
                memcpy(at, bytes, row->count);
        }
        for (uint32_t i = 0; i < row->count && row->type != FIELD_BYTES; i++) {
            if (row->type == FIELD_STRUCT) {
                int failed = load_rows(desc, row->sub, at + i * row->stride, version, in, err);
                if (failed)
                    return failed;
                continue;
            }
            uint64_t value = wire_get(in, row->type);
            if (!in->failed && !within(row, value))
                return err_set(err, -EPROTO, "section %s: field %s[%u] is %" PRIu64 ", outside %" PRIu64 "..%" PRIu64,
                               desc->name, row->name, i, value, row->min, row->max);
            member_set(at + i * width_of(row->type), row->type, value);
        }
        if (in->failed)
            return err_set(err, -EPROTO, "section %s ends within field %s", desc->name, row->name);
    }
    return 0;
}

int state_load(const struct state_desc *desc, void *object, uint32_t version, struct reader *in, struct err *err)
{
    if (version > desc->version)
        return err_set(err, -EPROTO, "section %s has version %u, newer than %u", desc->name, version, desc->version);
    if (version < desc->min_version)
        return err_set(err, -EPROTO, "section %s has version %u, older than %u", desc->name, version,
                       desc->min_version);
    uint8_t *copy = malloc(desc->object_size);
    if (!copy)
        return err_set(err, -ENOMEM, "no memory to load section %s", desc->name);
    memcpy(copy, object, desc->object_size);
    int failed = load_rows(desc, desc->fields, copy, version, in, err);
    if (!failed && in->at != in->size)
        failed = err_set(err, -EPROTO, "section %s has %zu bytes too many", desc->name, in->size - in->at);
    if (!failed && desc->validate) {
        failed = desc->validate(copy, err);
        if (failed)
            err_prefix(err, "section %s", desc->name);
    }
    if (!failed)
        memcpy(object, copy, desc->object_size);
    free(copy);
    return failed;
}

static size_t rows_bytes(const struct field *row, uint32_t version)
{
    size_t bytes = 0;
    for (; row->type != FIELD_END; row++) {
        if (row->since > version)
            continue;
        size_t one = row->type == FIELD_STRUCT ? rows_bytes(row->sub, version) : width_of(row->type);
        bytes += one * row->count;
    }
    return bytes;
}

size_t state_wire_bytes(const struct state_desc *desc, uint32_t version)
{
    return rows_bytes(desc->fields, version);
}

static void print_rows(const struct field *row, const uint8_t *object, const char *prefix, FILE *out)
{
    for (; row->type != FIELD_END; row++) {
        const uint8_t *at = object + row->offset;
        for (uint32_t i = 0; i < row->count && row->type == FIELD_STRUCT; i++) {
            char path[160];
            snprintf(path, sizeof(path), "%s%s[%u].", prefix, row->name, i);
            print_rows(row->sub, at + i * row->stride, path, out);
        }
        if (row->type == FIELD_STRUCT || row->type == FIELD_DERIVED)
            continue;
        fprintf(out, "%s%s:", prefix, row->name);
        for (uint32_t i = 0; i < row->count; i++)
            fprintf(out, " %0*" PRIx64, (int)width_of(row->type) * 2,
                    member_get(at + i * width_of(row->type), row->type));
        fputc('\n', out);
    }
}

void state_print(const struct state_desc *desc, const void *object, FILE *out)
{
    fprintf(out, "%s version %u\n", desc->name, desc->version);
    print_rows(desc->fields, object, "  ", out);
}
