/* qcow2 images (versions 2 and 3 of the format): a file in which a disk's clusters lie as they come.
 *
 * Read: everything but encryption, external data files and extended L2 entries. Written: all of that, but for images that
 * say of themselves that they are not in order. What an image's snapshots use is never changed.
 *
 * The image is consistent at every moment, whether this process is killed or the host loses power: refcounts that are
 * too high (leaked clusters) are all that can be left. What the guest flushed is there; what it did not may be missing. */
#pragma once
#include "block/block.h"

enum { QCOW2_NAME_MAX = 1024 };

/* What an image says of the one below it. */
struct qcow2_backing {
    char file[QCOW2_NAME_MAX]; /* "": none */
    char format[16];           /* "": not said */
};

/* An image in `file`, of which it becomes the owner, also when it fails. Not taken: its tables are looked at when it is. `path`
 * is for messages. *backing: what has to be given to qcow2_set_backing(). -EINVAL and a sentence that names what is wrong,
 * and where. */
int qcow2_new(struct block_image *file, const char *path, const struct block_options *options, struct block_image **out,
              struct qcow2_backing *backing, struct err *err);

/* Before it is taken: what reads for clusters that the image does not have. It becomes the image's. `chosen`: by the user, and
 * what the image says of it is not looked at. */
void qcow2_set_backing(struct block_image *image, struct block_image *backing, bool chosen);
/* What was found wrong with the image while it was used, which is not written any more then; NULL: nothing. Any thread. */
const char *qcow2_trouble(struct block_image *image);
bool qcow2_is(const struct block_image *image);
