#include "machine/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { IMAGE_STEP_BYTES = 1 << 20 };

int image_open(struct image *image, const char *what, const char *path, struct err *err)
{
    struct stat status;
    *image = (struct image){ .what = what, .path = path };
    image->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (image->fd < 0)
        return err_set_errno(err, -errno, "cannot open the %s %s", what, path);
    if (fstat(image->fd, &status) < 0 || !S_ISREG(status.st_mode) || status.st_size <= 0) {
        image_close(image);
        return err_set(err, -EINVAL, "the %s %s is not a file with anything in it", what, path);
    }
    image->bytes = (uint64_t)status.st_size;
    return 0;
}

void image_close(struct image *image)
{
    if (image->fd >= 0)
        close(image->fd);
    image->fd = -1;
}

int image_read(const struct image *image, uint64_t offset, void *out, uint64_t bytes, struct err *err)
{
    uint8_t *at = out;
    while (bytes > 0) {
        ssize_t got = pread(image->fd, at, bytes, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_set_errno(err, -errno, "cannot read the %s %s", image->what, image->path);
        if (got == 0)
            return err_set(err, -EINVAL, "the %s %s is cut short", image->what, image->path);
        at += got;
        offset += (uint64_t)got;
        bytes -= (uint64_t)got;
    }
    return 0;
}

int image_load(const struct image *image, struct ram *ram, uint64_t offset, uint64_t gpa, uint64_t bytes,
               struct err *err)
{
    uint8_t *step = malloc(IMAGE_STEP_BYTES);
    int result = step ? 0 : err_set(err, -ENOMEM, "no memory to load the %s", image->what);
    while (result == 0 && bytes > 0) {
        uint64_t now = bytes < IMAGE_STEP_BYTES ? bytes : IMAGE_STEP_BYTES;
        result = image_read(image, offset, step, now, err);
        if (result == 0 && !ram_load(ram, gpa, step, now))
            result = err_set(err, -EINVAL, "the %s %s does not lie in memory at 0x%llx", image->what, image->path,
                             (unsigned long long)gpa);
        offset += now;
        gpa += now;
        bytes -= now;
    }
    free(step);
    return result;
}
