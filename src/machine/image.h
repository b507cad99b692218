/* A file to be loaded into the guest: opened once, read in pieces, never trusted about its sizes. */
#pragma once
#include <stdint.h>

#include "base/err.h"
#include "memory/ram.h"

struct image {
    const char *what; /* "kernel", "initrd", "firmware": for messages */
    const char *path;
    int fd;
    uint64_t bytes;
};

int image_open(struct image *image, const char *what, const char *path, struct err *err);
void image_close(struct image *image);
int image_read(const struct image *image, uint64_t offset, void *out, uint64_t bytes,
               struct err *err); /* all or -errno */
int image_load(const struct image *image, struct ram *ram, uint64_t offset, uint64_t gpa, uint64_t bytes,
               struct err *err);
