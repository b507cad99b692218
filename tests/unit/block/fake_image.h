/* An image in memory that fails, dawdles and stalls as a script says. */
#pragma once
#include "tests/unit/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/lock.h"
#include "block/block.h"

enum { FAKE_BYTES = 64 * 1024 };

struct fake_image {
    struct block_image image;
    struct lock lock;
    struct cond changed;
    /* the script; under lock */
    size_t step_bytes;   /* at most so much in one call; 0: no limit */
    unsigned interrupts; /* so many calls end with -EINTR first */
    unsigned fail_call;  /* this call of read, write and flush (counted from 1), 0: none */
    int fail_code;
    bool stall; /* a call that comes while this is true waits for fake_set_stall(false) */
    unsigned releases;
    bool can_discard, can_zero, taken_away;
    uint64_t hole, hole_bytes, cut; /* `cut`: the image ends there; 0: nowhere */
    /* what happened; under lock */
    unsigned calls, stalled, flushes, discards, zeros, writes, frees;
    uint8_t data[FAKE_BYTES];
};

static inline struct fake_image *fake_of(struct block_image *image)
{
    return (struct fake_image *)image;
}

/* The beginning of every call; the lock stays held. */
static inline int fake_enter(struct fake_image *fake, bool counts)
{
    lock(&fake->lock);
    bool stall = fake->stall;
    unsigned releases = fake->releases;
    fake->stalled += stall;
    cond_broadcast(&fake->changed);
    while (stall && fake->releases == releases)
        cond_wait(&fake->changed, &fake->lock);
    fake->stalled -= stall;
    if (!counts)
        return 0;
    if (fake->interrupts > 0) {
        fake->interrupts--;
        return -EINTR;
    }
    return ++fake->calls == fake->fail_call ? fake->fail_code : 0;
}

static inline ssize_t fake_move(struct block_image *image, bool write, uint64_t offset, const struct iovec *iov,
                                unsigned iovs)
{
    struct fake_image *fake = fake_of(image);
    ssize_t result = fake_enter(fake, true);
    size_t room = fake->step_bytes ? fake->step_bytes : FAKE_BYTES, done = 0;
    if (fake->cut && offset + room > fake->cut)
        room = fake->cut > offset ? (size_t)(fake->cut - offset) : 0;
    fake->writes += write;
    for (unsigned i = 0; result == 0 && i < iovs && done < room; i++) {
        size_t piece = iov[i].iov_len < room - done ? iov[i].iov_len : room - done;
        if (write)
            memcpy(fake->data + offset + done, iov[i].iov_base, piece);
        else
            memcpy(iov[i].iov_base, fake->data + offset + done, piece);
        done += piece;
    }
    unlock(&fake->lock);
    return result < 0 ? result : (ssize_t)done;
}

static inline ssize_t fake_read(struct block_image *image, uint64_t offset, const struct iovec *iov, unsigned iovs)
{
    return fake_move(image, false, offset, iov, iovs);
}

static inline ssize_t fake_write(struct block_image *image, uint64_t offset, const struct iovec *iov, unsigned iovs)
{
    return fake_move(image, true, offset, iov, iovs);
}

static inline int fake_flush(struct block_image *image)
{
    int result = fake_enter(fake_of(image), true);
    fake_of(image)->flushes++;
    unlock(&fake_of(image)->lock);
    return result;
}

static inline int fake_clear(struct block_image *image, bool can, unsigned *counter, uint64_t offset, uint64_t bytes)
{
    struct fake_image *fake = fake_of(image);
    fake_enter(fake, false);
    if (can) {
        memset(fake->data + offset, 0, bytes);
        ++*counter;
    }
    unlock(&fake->lock);
    return can ? 0 : -EOPNOTSUPP;
}

static inline int fake_discard(struct block_image *image, uint64_t offset, uint64_t bytes)
{
    return fake_clear(image, fake_of(image)->can_discard, &fake_of(image)->discards, offset, bytes);
}

static inline int fake_zero(struct block_image *image, uint64_t offset, uint64_t bytes, bool unmap)
{
    (void)unmap;
    return fake_clear(image, fake_of(image)->can_zero, &fake_of(image)->zeros, offset, bytes);
}

static inline int fake_extent(struct block_image *image, uint64_t offset, uint64_t *bytes, bool *data)
{
    const struct fake_image *fake = fake_of(image);
    uint64_t hole_end = fake->hole + fake->hole_bytes;
    *data = offset < fake->hole || offset >= hole_end;
    uint64_t end = !*data ? hole_end : offset < fake->hole ? fake->hole : image->bytes;
    *bytes = end - offset;
    return 0;
}

static inline int fake_take(struct block_image *image, struct err *err)
{
    return fake_of(image)->taken_away ? err_set(err, -EBUSY, "another program has it") : 0;
}

/* The test frees it: it wants to look afterwards. */
static inline void fake_free(struct block_image *image)
{
    fake_of(image)->frees++;
}

static const struct block_driver fake_driver = {
    .name = "fake",
    .read = fake_read,
    .write = fake_write,
    .flush = fake_flush,
    .discard = fake_discard,
    .zero = fake_zero,
    .extent = fake_extent,
    .take = fake_take,
    .free = fake_free,
};

static inline struct fake_image *fake_image_new(void)
{
    struct fake_image *fake = calloc(1, sizeof(*fake));
    assert_non_null(fake);
    fake->image = (struct block_image){ .driver = &fake_driver, .bytes = FAKE_BYTES, .sector_bytes = 512 };
    lock_init(&fake->lock, LOCK_LEAF);
    cond_init(&fake->changed);
    for (unsigned i = 0; i < FAKE_BYTES; i++)
        fake->data[i] = (uint8_t)(i / 512 + i);
    return fake;
}

static inline void fake_image_free(struct fake_image *fake)
{
    cond_destroy(&fake->changed);
    lock_destroy(&fake->lock);
    free(fake);
}

static inline void fake_set_stall(struct fake_image *fake, bool stall)
{
    lock(&fake->lock);
    fake->stall = stall;
    fake->releases += !stall;
    cond_broadcast(&fake->changed);
    unlock(&fake->lock);
}

/* Those who wait go on waiting, who comes from now on does not. */
static inline void fake_let_others_pass(struct fake_image *fake)
{
    lock(&fake->lock);
    fake->stall = false;
    unlock(&fake->lock);
}

/* Until so many calls are in there, waiting. */
static inline void fake_wait_stalled(struct fake_image *fake, unsigned calls)
{
    lock(&fake->lock);
    while (fake->stalled < calls)
        cond_wait(&fake->changed, &fake->lock);
    unlock(&fake->lock);
}
