/* An image by its format, and what it says is below it.
 *
 * Nothing is guessed that a guest could have written: where nobody says what the lowest image of a chain is, it is raw, and
 * refused if it looks like qcow2. */
#pragma once
#include "block/block.h"

enum image_format { IMAGE_FORMAT_ANY, IMAGE_FORMAT_RAW, IMAGE_FORMAT_QCOW2 }; /* ANY: not said */

enum { IMAGE_CHAIN_MAX = 32 };

struct image_source {
    const char *file;
    enum image_format format;
    /* What is below, in place of what the image says; NULL: as it says. "" : nothing. */
    const char *backing;
    enum image_format backing_format;
};

/* Opened, not taken. Images below are read only, and nobody may write them while this one is taken. -errno and a sentence with
 * the path. */
int image_open(const struct image_source *source, const struct block_options *options, struct block_image **out,
               struct err *err);
