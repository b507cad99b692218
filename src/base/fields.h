/* State as a table: a struct plus a field table saves, loads, prints and describes itself.
 *
 * A row says where a field lies, how wide it is on the wire, and what values are legal. Loading is strict: a
 * value outside its limits, a short section or a newer version is an error that names section and field, and
 * nothing of the object has been changed when state_load() fails (fields are loaded into a copy first; so
 * objects described here are plain data: `object_size` bytes that may be copied with memcpy).
 * A table names every byte of its struct: what does not travel is a FIELD_DERIVED row, and room that a compiler would
 * leave between members is a member (`spare`). So a member that somebody adds and forgets here is found by counting:
 * tests/unit/machine/test_state_complete.c does.
 * Used with the machine paused: plain accesses, also to _Atomic members. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/bytes.h"
#include "base/err.h"

enum field_type {
    FIELD_U8 = 1, /* also bool: limit max to 1 */
    FIELD_U16,
    FIELD_U32,
    FIELD_U64,
    FIELD_I64,
    FIELD_BYTES,  /* count raw bytes */
    FIELD_STRUCT, /* count times the rows of `sub`, stride bytes apart */
    FIELD_DERIVED, /* count bytes that do not travel: made from the rest, or nothing at all (room up to the next member) */
    FIELD_END,     /* closes a table */
};

struct field {
    const char *name;
    enum field_type type;
    size_t offset;
    uint32_t count;          /* elements; 1 for a scalar */
    uint32_t since;          /* first version that has it; absent in older streams: stays as it is */
    uint64_t min, max;       /* inclusive; unsigned integers only; max 0 with min 0 means "any" */
    const struct field *sub; /* FIELD_STRUCT */
    size_t stride;           /* FIELD_STRUCT: size of one element */
};

struct state_desc {
    const char *name;     /* section name on the wire, at most 64 bytes */
    uint32_t version;     /* written */
    uint32_t min_version; /* oldest that is understood */
    size_t object_size;
    const struct field *fields;
    int (*validate)(const void *object,
                    struct err *err); /* what fields mean together; on the loaded copy; may be NULL */
};

/* Rows. STRUCT is the struct type, member its member; since 1. */
/* clang-format off */
#define FIELD_U8_OF(S, m)           { #m, FIELD_U8, offsetof(S, m), 1, 1, 0, 0, NULL, 0 }
#define FIELD_BOOL_OF(S, m)         { #m, FIELD_U8, offsetof(S, m), 1, 1, 0, 1, NULL, 0 }
#define FIELD_U16_OF(S, m)          { #m, FIELD_U16, offsetof(S, m), 1, 1, 0, 0, NULL, 0 }
#define FIELD_U32_OF(S, m)          { #m, FIELD_U32, offsetof(S, m), 1, 1, 0, 0, NULL, 0 }
#define FIELD_U64_OF(S, m)          { #m, FIELD_U64, offsetof(S, m), 1, 1, 0, 0, NULL, 0 }
#define FIELD_I64_OF(S, m)          { #m, FIELD_I64, offsetof(S, m), 1, 1, 0, 0, NULL, 0 }
#define FIELD_U8_MAX_OF(S, m, top)  { #m, FIELD_U8, offsetof(S, m), 1, 1, 0, (top), NULL, 0 }
#define FIELD_U16_MAX_OF(S, m, top) { #m, FIELD_U16, offsetof(S, m), 1, 1, 0, (top), NULL, 0 }
#define FIELD_U32_MAX_OF(S, m, top) { #m, FIELD_U32, offsetof(S, m), 1, 1, 0, (top), NULL, 0 }
#define FIELD_U64_MAX_OF(S, m, top) { #m, FIELD_U64, offsetof(S, m), 1, 1, 0, (top), NULL, 0 }
#define FIELD_U8_ARRAY_OF(S, m)     { #m, FIELD_U8, offsetof(S, m), sizeof(((S *)0)->m), 1, 0, 0, NULL, 0 }
#define FIELD_U32_ARRAY_OF(S, m)    { #m, FIELD_U32, offsetof(S, m), sizeof(((S *)0)->m) / 4, 1, 0, 0, NULL, 0 }
#define FIELD_U64_ARRAY_OF(S, m)    { #m, FIELD_U64, offsetof(S, m), sizeof(((S *)0)->m) / 8, 1, 0, 0, NULL, 0 }
#define FIELD_BYTES_OF(S, m)        { #m, FIELD_BYTES, offsetof(S, m), sizeof(((S *)0)->m), 1, 0, 0, NULL, 0 }
#define FIELD_STRUCTS_OF(S, m, n, subtable) \
    { #m, FIELD_STRUCT, offsetof(S, m), (n), 1, 0, 0, (subtable), sizeof(((S *)0)->m[0]) }
#define FIELD_DERIVED_OF(S, m)      { #m, FIELD_DERIVED, offsetof(S, m), sizeof(((S *)0)->m), 1, 0, 0, NULL, 0 }
#define FIELD_TABLE_END             { NULL, FIELD_END, 0, 0, 0, 0, 0, NULL, 0 }
/* clang-format on */

void state_save(const struct state_desc *desc, const void *object, struct buf *out);

/* Load one object from exactly the reader's bytes (bytes left over are an error). -EPROTO with a sentence. */
int state_load(const struct state_desc *desc, void *object, uint32_t version, struct reader *in, struct err *err);

/* Bytes that `version` of this state takes on the wire. */
size_t state_wire_bytes(const struct state_desc *desc, uint32_t version);

/* One line a field, as `info registers` and debugging want it. */
void state_print(const struct state_desc *desc, const void *object, FILE *out);
