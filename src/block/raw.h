/* Raw images: a file or a block device of the host, byte for byte what the guest sees. */
#pragma once
#include "block/block.h"

/* Opened, not taken. `format_said`: the user says that it is raw; else one that begins like a qcow2 image is refused, since
 * a guest could make a disk of ours look like one that names other files. -errno and a sentence with the path. */
int raw_open(const char *path, bool format_said, const struct block_options *options, struct block_image **out,
             struct err *err);

/* A file of so many bytes, all of it a hole, that only this user may read. Nothing where there is one of that name already. */
int raw_create(const char *path, uint64_t bytes, struct err *err);
/* The same for what an image of another format lies in: of any size, and it grows where it is written behind its end. `bytes`
 * is what it had when it was opened or taken. */
int raw_open_container(const char *path, const struct block_options *options, struct block_image **out,
                       struct err *err);

/* Whatever is below another image does not change, and a thread that may open nothing any more has to take it: it is locked as it
 * was opened. */
void raw_stays_open(struct block_image *image);
