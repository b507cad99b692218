/* A file in memory that grows, and tells somebody of every write and flush: what a qcow2 image lies in, for tests. */
#pragma once
#include "block/block.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct memory_image {
    struct block_image image;
    pthread_mutex_t mutex;
    uint8_t *data; /* zeros from `bytes` to `room` */
    size_t bytes, room;
    size_t bytes_max;     /* a larger file is refused with -ENOSPC; 0: no limit */
    size_t step_bytes;    /* at most so much in one call; 0: no limit */
    unsigned fail_writes; /* so many writes from now on fail with -EIO */
    unsigned fail_flushes;
    unsigned writes, flushes, frees;
    void (*wrote)(void *opaque, uint64_t offset, const void *data, size_t bytes); /* after it is there */
    void (*flushed)(void *opaque);
    void *opaque;
    bool keep; /* free() leaves it to the test */
};

static inline struct memory_image *memory_of(struct block_image *image)
{
    return (struct memory_image *)image;
}

static inline int memory_resize(struct memory_image *m, size_t bytes)
{
    if (m->bytes_max && bytes > m->bytes_max)
        return -ENOSPC;
    if (bytes > m->room) {
        size_t room = 2 * bytes;
        uint8_t *data = realloc(m->data, room);
        if (!data)
            return -ENOMEM;
        memset(data + m->room, 0, room - m->room);
        m->data = data;
        m->room = room;
    }
    m->bytes = bytes;
    return 0;
}

static inline ssize_t memory_read(struct block_image *image, uint64_t offset, const struct iovec *iov, unsigned iovs)
{
    struct memory_image *m = memory_of(image);
    size_t done = 0;
    pthread_mutex_lock(&m->mutex);
    for (unsigned i = 0; i < iovs && offset + done < m->bytes; i++) {
        size_t piece = m->bytes - offset - done;
        piece = piece < iov[i].iov_len ? piece : iov[i].iov_len;
        memcpy(iov[i].iov_base, m->data + offset + done, piece);
        done += piece;
    }
    pthread_mutex_unlock(&m->mutex);
    return (ssize_t)done;
}

static inline ssize_t memory_write(struct block_image *image, uint64_t offset, const struct iovec *iov, unsigned iovs)
{
    struct memory_image *m = memory_of(image);
    size_t bytes = 0, done = 0;
    for (unsigned i = 0; i < iovs; i++)
        bytes += iov[i].iov_len;
    bytes = m->step_bytes && bytes > m->step_bytes ? m->step_bytes : bytes;
    pthread_mutex_lock(&m->mutex);
    int result = m->fail_writes ? -EIO : 0;
    m->fail_writes -= m->fail_writes > 0;
    if (result == 0 && offset + bytes > m->bytes)
        result = memory_resize(m, offset + bytes);
    for (unsigned i = 0; result == 0 && i < iovs && done < bytes; i++) {
        size_t piece = bytes - done < iov[i].iov_len ? bytes - done : iov[i].iov_len;
        memcpy(m->data + offset + done, iov[i].iov_base, piece);
        done += piece;
    }
    m->writes++;
    if (result == 0 && m->wrote)
        m->wrote(m->opaque, offset, m->data + offset, bytes);
    pthread_mutex_unlock(&m->mutex);
    return result < 0 ? result : (ssize_t)bytes;
}

static inline int memory_flush(struct block_image *image)
{
    struct memory_image *m = memory_of(image);
    pthread_mutex_lock(&m->mutex);
    int result = m->fail_flushes ? -EIO : 0;
    m->fail_flushes -= m->fail_flushes > 0;
    m->flushes++;
    if (result == 0 && m->flushed)
        m->flushed(m->opaque);
    pthread_mutex_unlock(&m->mutex);
    return result;
}

static inline int memory_take(struct block_image *image, struct err *err)
{
    (void)err;
    image->bytes = memory_of(image)->bytes;
    return 0;
}

static inline void memory_free(struct block_image *image)
{
    struct memory_image *m = memory_of(image);
    m->frees++;
    if (m->keep)
        return;
    pthread_mutex_destroy(&m->mutex);
    free(m->data);
    free(m);
}

static inline struct memory_image *memory_new(const void *data, size_t bytes)
{
    static const struct block_driver driver = {
        .name = "memory",
        .read = memory_read,
        .write = memory_write,
        .flush = memory_flush,
        .take = memory_take,
        .free = memory_free,
    };
    struct memory_image *m = calloc(1, sizeof(*m));
    if (!m || memory_resize(m, bytes) < 0)
        abort();
    if (data && bytes)
        memcpy(m->data, data, bytes);
    m->image = (struct block_image){ .driver = &driver, .bytes = bytes, .sector_bytes = BLOCK_SECTOR_BYTES };
    pthread_mutex_init(&m->mutex, NULL);
    return m;
}
