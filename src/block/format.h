/* An image by its format, and what it says is below it.
 *
 * Nothing is guessed that a guest could have written: where nobody says what the lowest image of a chain is, it is raw, and
 * refused if it looks like qcow2. */
#pragma once
#include "block/block.h"

enum block_format { BLOCK_FORMAT_ANY, BLOCK_FORMAT_RAW, BLOCK_FORMAT_QCOW2 }; /* ANY: not said */

enum { FORMAT_CHAIN_MAX = 32 };

struct format_source {
    const char *file;
    enum block_format format;
    /* What is below, in place of what the image says; NULL: as it says. "" : nothing. */
    const char *backing;
    enum block_format backing_format;
};

/* Opened, not taken. Images below are read only, and nobody may write them while this one is taken. -errno and a sentence with
 * the path. */
int format_open(const struct format_source *source, const struct block_options *options, struct block_image **out,
                struct err *err);
