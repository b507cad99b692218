/* The qcow2 driver on images that somebody made up. An input is an image, and behind it, if its last byte says so, requests:
 * that many of 4 bytes each. With clusters of 512 bytes a whole image fits. Whatever comes, opening ends with a sentence or an
 * image; reading, writing and flushing end; and no table is written over: what was free of errors stays so. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "block/qcow2.h"
#include "tests/unit/block/memory_image.h"

enum { REQUEST_BYTES = 4, REQUESTS_MAX = 32, DATA_BYTES = 128 * 1024, SECTOR = 512 };

static void transfer(struct block_image *image, bool write, uint64_t offset, uint64_t bytes)
{
    static uint8_t data[DATA_BYTES];
    while (bytes > 0) {
        struct iovec iov = { data, bytes };
        ssize_t done =
            write ? image->driver->write(image, offset, &iov, 1) : image->driver->read(image, offset, &iov, 1);
        if (done == -EINTR)
            continue;
        if (done < 0)
            return;
        if (done == 0 || (uint64_t)done > bytes)
            abort(); /* at least one byte, and never more than asked for */
        offset += (uint64_t)done;
        bytes -= (uint64_t)done;
    }
}

static void request(struct block_image *image, const uint8_t *r)
{
    uint64_t sectors = image->bytes / SECTOR, sector = be16_get(r + 1), bytes = (r[3] % 64 + 1) * (uint64_t)SECTOR;
    /* The whole disk in steps of 1/65536 where it is large, and each sector where it is small. */
    uint64_t offset = (sectors > 65536 ? sectors / 65536 * sector : sector % sectors) * SECTOR;
    bytes = bytes < image->bytes - offset ? bytes : image->bytes - offset;
    uint64_t extent = 0;
    bool data;
    switch (r[0] % 8) {
    case 0:
    case 1: transfer(image, false, offset, bytes); break;
    case 2:
    case 3: transfer(image, true, offset, bytes); break;
    case 4: image->driver->flush(image); break;
    case 5: image->driver->discard(image, offset, bytes); break;
    case 6: image->driver->zero(image, offset, bytes, r[0] & 8); break;
    default:
        if (image->driver->extent(image, offset, &extent, &data) == 0 &&
            (extent == 0 || extent > image->bytes - offset))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct block_options options = { .name = "disk", .discard = true };
    struct qcow2_backing said;
    struct block_image *image;
    struct err err = { 0 };
    size_t requests = bytes ? data[bytes - 1] % REQUESTS_MAX : 0;
    if (bytes < requests * REQUEST_BYTES + 1)
        requests = 0;
    size_t image_bytes = bytes ? bytes - 1 - requests * REQUEST_BYTES : 0;
    options.readonly = bytes && data[bytes - 1] & 128;

    struct memory_image *file = memory_new(data, image_bytes);
    file->bytes_max = 16 << 20;
    if (qcow2_new(&file->image, "image", &options, &image, &said, &err) == 0) {
        if (image->driver->take(image, &err) == 0) {
            for (size_t i = 0; i < requests; i++)
                request(image, data + image_bytes + i * REQUEST_BYTES);
            image->driver->let_go(image);
        }
        image->driver->free(image);
    }
    if (err.code && !err.text[0])
        abort(); /* every refusal comes with its sentence */
    return 0;
}
