#include "block/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/image_lock.h"

enum { DIRECT_ALIGN = 4096, DIRECT_PIECE_BYTES = 1024 * 1024 };

struct raw {
    struct block_image image;
    /* fixed after new */
    bool readonly, direct, container;
    bool stays_open; /* take() does not open it again */
    int fd;          /* exchanged by take(), with nothing under way */
    char path[];
};

static struct raw *raw_of(struct block_image *image)
{
    return (struct raw *)image;
}

/* --- reading and writing ----------------------------------------------------------------------------------- */

/* Direct I/O wants memory aligned, too, and a guest's need not be. (Offsets are whole sectors: that is checked above.) */
static bool needs_bounce(const struct raw *raw, const struct iovec *iov, unsigned iovs)
{
    uintptr_t all = 0;
    if (!raw->direct)
        return false;
    for (unsigned i = 0; i < iovs; i++)
        all |= (uintptr_t)iov[i].iov_base | iov[i].iov_len;
    return all % raw->image.sector_bytes != 0;
}

static size_t copy_iov(const struct iovec *iov, unsigned iovs, uint8_t *bounce, size_t bytes, bool out)
{
    size_t done = 0;
    for (unsigned i = 0; i < iovs && done < bytes; i++) {
        size_t piece = iov[i].iov_len < bytes - done ? iov[i].iov_len : bytes - done;
        memcpy(out ? iov[i].iov_base : bounce + done, out ? bounce + done : iov[i].iov_base, piece);
        done += piece;
    }
    return done;
}

static ssize_t bounce(struct raw *raw, bool write, uint64_t offset, const struct iovec *iov, unsigned iovs)
{
    size_t bytes = 0;
    void *memory;
    for (unsigned i = 0; i < iovs; i++)
        bytes += iov[i].iov_len;
    if (bytes > DIRECT_PIECE_BYTES)
        bytes = DIRECT_PIECE_BYTES; /* the rest is asked for again */
    if (posix_memalign(&memory, DIRECT_ALIGN, bytes) != 0)
        return -ENOMEM;
    if (write)
        copy_iov(iov, iovs, memory, bytes, false);
    ssize_t done = write ? pwrite(raw->fd, memory, bytes, (off_t)offset) : pread(raw->fd, memory, bytes, (off_t)offset);
    if (done < 0)
        done = -errno;
    else if (!write)
        copy_iov(iov, iovs, memory, (size_t)done, true);
    free(memory);
    return done;
}

static ssize_t raw_read(struct block_image *image, uint64_t offset, const struct iovec *iov, unsigned iovs)
{
    struct raw *raw = raw_of(image);
    if (needs_bounce(raw, iov, iovs))
        return bounce(raw, false, offset, iov, iovs);
    ssize_t done = preadv(raw->fd, iov, (int)iovs, (off_t)offset);
    return done < 0 ? -errno : done;
}

static ssize_t raw_write(struct block_image *image, uint64_t offset, const struct iovec *iov, unsigned iovs)
{
    struct raw *raw = raw_of(image);
    if (needs_bounce(raw, iov, iovs))
        return bounce(raw, true, offset, iov, iovs);
    ssize_t done = pwritev(raw->fd, iov, (int)iovs, (off_t)offset);
    return done < 0 ? -errno : done;
}

static int raw_flush(struct block_image *image)
{
    int result;
    do
        result = fdatasync(raw_of(image)->fd);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : 0;
}

static int allocate(struct block_image *image, int mode, uint64_t offset, uint64_t bytes)
{
    int result;
    do
        result = fallocate(raw_of(image)->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes);
    while (result < 0 && errno == EINTR);
    if (result == 0)
        return 0;
    return errno == ENOSYS || errno == ENOTTY || errno == ENODEV || errno == EINVAL ? -EOPNOTSUPP : -errno;
}

static int raw_discard(struct block_image *image, uint64_t offset, uint64_t bytes)
{
    return allocate(image, FALLOC_FL_PUNCH_HOLE, offset, bytes);
}

static int raw_zero(struct block_image *image, uint64_t offset, uint64_t bytes, bool unmap)
{
    return allocate(image, unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE, offset, bytes);
}

static int raw_extent(struct block_image *image, uint64_t offset, uint64_t *bytes, bool *data)
{
    int fd = raw_of(image)->fd;
    off_t next = lseek(fd, (off_t)offset, SEEK_DATA);
    *data = true;
    if (next == (off_t)offset)
        next = lseek(fd, (off_t)offset, SEEK_HOLE);
    else if (next > (off_t)offset)
        *data = false;
    else if (errno == ENXIO) { /* nothing but a hole up to the end */
        *data = false;
        next = (off_t)image->bytes;
    }
    if (next <= (off_t)offset) { /* a file system or device that does not tell, or an image that was cut */
        *data = true;
        next = (off_t)image->bytes;
    }
    *bytes = (uint64_t)next - offset;
    return 0;
}

/* --- opening and taking ------------------------------------------------------------------------------------ */

static int open_file(const struct raw *raw, int *fd, struct err *err)
{
    int flags = (raw->readonly ? O_RDONLY : O_RDWR) | (raw->direct ? O_DIRECT : 0);
    /* Without O_NONBLOCK a FIFO of that name would hold us; it means nothing to files and block devices. */
    *fd = open(raw->path, flags | O_CLOEXEC | O_NONBLOCK);
    if (*fd >= 0)
        return 0;
    if (errno == EINVAL && raw->direct)
        return err_set(err, -EINVAL, "%s: its file system has no direct I/O, which cache=none needs", raw->path);
    return err_set_errno(err, -errno, "%s: it cannot be opened%s", raw->path, raw->readonly ? "" : " for writing");
}

static int sector_of_file(const struct raw *raw, int fd, uint32_t *out, struct err *err)
{
    void *memory;
    *out = BLOCK_SECTOR_BYTES;
    if (!raw->direct)
        return 0;
    if (posix_memalign(&memory, DIRECT_ALIGN, DIRECT_ALIGN) != 0)
        return err_set(err, -ENOMEM, "%s: no memory", raw->path);
    if (pread(fd, memory, BLOCK_SECTOR_BYTES, 0) < 0 && errno == EINVAL)
        *out = DIRECT_ALIGN;
    free(memory);
    return 0;
}

static int measure(struct raw *raw, int fd, struct err *err)
{
    struct stat st;
    int sector = BLOCK_SECTOR_BYTES;
    if (fstat(fd, &st) < 0)
        return err_set_errno(err, -errno, "%s: nothing can be learnt about it", raw->path);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return err_set(err, -EINVAL, "%s: it is neither a file nor a block device", raw->path);
    off_t end = lseek(fd, 0, SEEK_END);
    if (end < 0)
        return err_set_errno(err, -errno, "%s: its size cannot be learnt", raw->path);
    if (S_ISBLK(st.st_mode)) {
        if (ioctl(fd, BLKSSZGET, &sector) < 0)
            return err_set_errno(err, -errno, "%s: the size of its sectors cannot be learnt", raw->path);
        raw->image.sector_bytes = (uint32_t)sector;
    } else {
        int result = sector_of_file(raw, fd, &raw->image.sector_bytes, err);
        if (result < 0)
            return result;
    }
    if (raw->image.sector_bytes != BLOCK_SECTOR_BYTES && raw->image.sector_bytes != DIRECT_ALIGN)
        return err_set(err, -EINVAL, "%s: sectors of %u bytes are not possible", raw->path, raw->image.sector_bytes);
    raw->image.bytes = (uint64_t)end;
    if (!raw->container && (end == 0 || raw->image.bytes % raw->image.sector_bytes))
        return err_set(err, -EINVAL, "%s: its size, %llu bytes, is not a multiple of %u from there on", raw->path,
                       (unsigned long long)end, raw->image.sector_bytes);
    return 0;
}

static int take_open_one(struct raw *raw, struct err *err)
{
    int result = image_lock_take(raw->fd, !raw->readonly, raw->path, err);
    if (result < 0)
        return result;
    result = measure(raw, raw->fd, err);
    if (result < 0)
        image_lock_let_go(raw->fd);
    return result;
}

/* Another program may have written it since it was opened here, on another host even: what a network file system
 * remembers of it is only asked for again by opening it again. */
static int raw_take(struct block_image *image, struct err *err)
{
    struct raw *raw = raw_of(image);
    int fd;
    if (raw->stays_open)
        return take_open_one(raw, err);
    int result = open_file(raw, &fd, err);
    if (result < 0)
        return result;
    result = image_lock_take(fd, !raw->readonly, raw->path, err);
    if (result == 0)
        result = measure(raw, fd, err);
    if (result < 0) {
        close(fd);
        return result;
    }
    close(raw->fd);
    raw->fd = fd;
    return 0;
}

static void raw_let_go(struct block_image *image)
{
    image_lock_let_go(raw_of(image)->fd);
}

static bool raw_taken_elsewhere(struct block_image *image)
{
    return image_lock_elsewhere(raw_of(image)->fd);
}

static void raw_free(struct block_image *image)
{
    if (raw_of(image)->fd >= 0)
        close(raw_of(image)->fd);
    free(image);
}

static const struct block_driver raw_driver = {
    .name = "raw",
    .read = raw_read,
    .write = raw_write,
    .flush = raw_flush,
    .discard = raw_discard,
    .zero = raw_zero,
    .extent = raw_extent,
    .take = raw_take,
    .let_go = raw_let_go,
    .taken_elsewhere = raw_taken_elsewhere,
    .free = raw_free,
};

static int refuse_other_formats(const struct raw *raw, struct err *err)
{
    static const uint8_t qcow[4] = { 'Q', 'F', 'I', 0xfb };
    uint8_t begin[sizeof(qcow)] = { 0 };
    int fd = open(raw->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* direct I/O reads no four bytes */
    ssize_t got = fd >= 0 ? pread(fd, begin, sizeof(begin), 0) : 0;
    if (fd >= 0)
        close(fd);
    if (got == sizeof(begin) && memcmp(begin, qcow, sizeof(qcow)) == 0)
        return err_set(err, -EINVAL,
                       "%s: it looks like a qcow2 image: say format=qcow2, or format=raw to take it as it is",
                       raw->path);
    return 0;
}

static int open_as(const char *path, bool container, bool format_said, const struct block_options *options,
                   struct block_image **out, struct err *err)
{
    size_t path_bytes = strlen(path) + 1;
    struct raw *raw = calloc(1, sizeof(*raw) + path_bytes);
    *out = NULL;
    if (!raw)
        return err_set(err, -ENOMEM, "%s: no memory", path);
    raw->image.driver = &raw_driver;
    raw->readonly = options->readonly;
    raw->direct = options->cache == BLOCK_DIRECT;
    raw->container = container;
    memcpy(raw->path, path, path_bytes);
    int result = open_file(raw, &raw->fd, err);
    if (result == 0 && !format_said)
        result = refuse_other_formats(raw, err);
    if (result == 0)
        result = measure(raw, raw->fd, err);
    if (result < 0) {
        raw_free(&raw->image);
        return result;
    }
    *out = &raw->image;
    return 0;
}

int raw_create(const char *path, uint64_t bytes, struct err *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno == EEXIST ? 0 : err_set_errno(err, -errno, "%s: it cannot be made", path);
    int result = ftruncate(fd, (off_t)bytes) < 0 ? -errno : 0;
    close(fd);
    if (result == 0)
        return 0;
    unlink(path);
    return err_set_errno(err, result, "%s: it cannot be made with %llu bytes", path, (unsigned long long)bytes);
}

int raw_open(const char *path, bool format_said, const struct block_options *options, struct block_image **out,
             struct err *err)
{
    return open_as(path, false, format_said, options, out, err);
}

int raw_open_container(const char *path, const struct block_options *options, struct block_image **out, struct err *err)
{
    return open_as(path, true, true, options, out, err);
}

void raw_stays_open(struct block_image *image)
{
    raw_of(image)->stays_open = true;
}
