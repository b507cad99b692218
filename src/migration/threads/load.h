/* The far end of the street: one received chunk into a source. Pure but for the source that it is given. */
#pragma once
#include <stdint.h>

#include "base/err.h"
#include "migration/threads/chunk.h"
#include "migration/threads/digest.h"

/* A chunk whose head passed frame_check(). The checksum is verified before anything of it is stored; then its units
 * are stored, changed or cleared, and the digest is brought up from what memory holds after the store. */
struct load_scratch {
    struct unpacker unpacker;
    uint8_t *unit;   /* SOURCE_UNIT_BYTES_MAX, for peek */
    uint8_t *merged; /* SOURCE_UNIT_BYTES_MAX: a unit with its delta applied */
};

int load_chunk(struct source *source, struct digest *digest, struct chunk *chunk, const struct load_scratch *scratch,
               struct err *err);
