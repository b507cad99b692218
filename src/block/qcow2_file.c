/* The file that a qcow2 image is in: whole pieces, whatever steps the host does them in. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/qcow2_impl.h"

enum { ZERO_PIECE_BYTES = 64 * 1024 };

int file_read(struct qcow2 *q, uint64_t offset, void *data, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes;) {
        struct iovec iov = { (uint8_t *)data + at, bytes - at };
        ssize_t done = q->file->driver->read(q->file, offset + at, &iov, 1);
        if (done == -EINTR)
            continue;
        if (done < 0)
            return (int)done;
        if (done == 0) {
            memset((uint8_t *)data + at, 0, bytes - at);
            return 0;
        }
        at += (uint64_t)done;
    }
    return 0;
}

int file_write(struct qcow2 *q, uint64_t offset, const void *data, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes;) {
        struct iovec iov = { (uint8_t *)(uintptr_t)data + at, bytes - at };
        ssize_t done = q->file->driver->write(q->file, offset + at, &iov, 1);
        if (done == -EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? (int)done : -EIO;
        at += (uint64_t)done;
    }
    return 0;
}

int file_write_zeros(struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    static const uint8_t zeros[ZERO_PIECE_BYTES] __attribute__((aligned(4096)));
    int result = 0;
    for (uint64_t at = 0; at < bytes && result == 0; at += sizeof(zeros)) {
        uint64_t left = bytes - at;
        result = file_write(q, offset + at, zeros, left < sizeof(zeros) ? left : sizeof(zeros));
    }
    return result;
}

int file_put(struct qcow2 *q, uint64_t at, const void *data, size_t bytes)
{
    uint8_t slice[QCOW2_SLICE_BYTES];
    uint64_t within = at % q->slice_bytes;
    if (within + bytes > q->slice_bytes)
        return -EINVAL;
    int result = file_read(q, at - within, slice, q->slice_bytes);
    if (result < 0)
        return result;
    memcpy(slice + within, data, bytes);
    return file_write(q, at - within, slice, q->slice_bytes);
}

int file_sync(struct qcow2 *q)
{
    return q->nosync ? 0 : q->file->driver->flush(q->file);
}

int qcow2_broken(struct qcow2 *q, const char *format, ...)
{
    va_list args;
    if (atomic_exchange_explicit(&q->trouble_writing, 1, memory_order_relaxed) == 0) {
        char what[ERR_TEXT_MAX / 2];
        va_start(args, format);
        vsnprintf(what, sizeof(what), format, args);
        va_end(args);
        snprintf(q->trouble_text, sizeof(q->trouble_text), "%.*s: %s", ERR_TEXT_MAX / 2 - 4, q->path, what);
        atomic_store_explicit(&q->trouble, 1, memory_order_release); /* behind the text */
    }
    return -EIO;
}
