#include "block/block.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/lock.h"
#include "base/thread.h"
#include "block/dirty_map.h"

enum { ZERO_PIECE_BYTES = 64 * 1024, ZERO_IOVS = 16 };
enum { HOLD_NS_MAX = 250 * 1000000 }; /* a guest waits seconds for a disk before it complains */

struct block {
    /* fixed after new */
    struct block_options options;
    struct block_image *image;
    struct thread thread[BLOCK_THREADS];

    /* owner: whoever owns the machine's state */
    bool taken;

    struct lock lock;
    struct cond work;
    /* under lock */
    struct block_request *first, **last;
    bool closing;
    bool flush_failed; /* pages that could not be written were dropped by the host: no later flush may say otherwise */
    struct block_stats stats;
    struct dirty_map *map; /* NULL: nobody copies this disk */
    uint64_t hold_bytes_per_s;
    int64_t hold_until_ns, held_ns;
};

/* --- performing, on a thread of the disk ------------------------------------------------------------------- */

static void advance(struct iovec **iov, unsigned *iovs, size_t bytes)
{
    while (*iovs > 0 && bytes >= (*iov)->iov_len) {
        bytes -= (*iov)->iov_len;
        ++*iov;
        --*iovs;
    }
    if (bytes > 0) {
        assert(*iovs > 0);
        (*iov)->iov_base = (uint8_t *)(*iov)->iov_base + bytes;
        (*iov)->iov_len -= bytes;
    }
}

/* All of it, however small the steps in which the host does it. */
static int transfer(struct block_image *image, bool write, uint64_t offset, uint64_t bytes, struct iovec *iov,
                    unsigned iovs)
{
    while (bytes > 0) {
        ssize_t done =
            write ? image->driver->write(image, offset, iov, iovs) : image->driver->read(image, offset, iov, iovs);
        if (done == -EINTR)
            continue;
        if (done <= 0) /* shorter than it was: somebody cut the image */
            return done < 0 ? (int)done : -EIO;
        assert((uint64_t)done <= bytes);
        advance(&iov, &iovs, (size_t)done);
        offset += (uint64_t)done;
        bytes -= (uint64_t)done;
    }
    return 0;
}

static int write_zeros(struct block_image *image, uint64_t offset, uint64_t bytes)
{
    static uint8_t zeros[ZERO_PIECE_BYTES] __attribute__((aligned(4096)));
    while (bytes > 0) {
        struct iovec iov[ZERO_IOVS];
        uint64_t piece = 0;
        unsigned iovs = 0;
        for (; iovs < ZERO_IOVS && piece < bytes; iovs++) {
            uint64_t left = bytes - piece;
            iov[iovs] = (struct iovec){ zeros, left < sizeof(zeros) ? left : sizeof(zeros) };
            piece += iov[iovs].iov_len;
        }
        int result = transfer(image, true, offset, piece, iov, iovs);
        if (result < 0)
            return result;
        offset += piece;
        bytes -= piece;
    }
    return 0;
}

/* By hand where the image cannot by itself; what is a hole is zero already, and stays one. */
static int zero_by_hand(struct block_image *image, uint64_t offset, uint64_t bytes)
{
    while (bytes > 0) {
        uint64_t piece = bytes;
        bool data = true;
        int result = image->driver->extent ? image->driver->extent(image, offset, &piece, &data) : 0;
        if (result < 0)
            return result;
        piece = piece < bytes ? piece : bytes;
        assert(piece > 0);
        result = data ? write_zeros(image, offset, piece) : 0;
        if (result < 0)
            return result;
        offset += piece;
        bytes -= piece;
    }
    return 0;
}

static int flush(struct block *block)
{
    lock(&block->lock);
    bool failed = block->flush_failed;
    unlock(&block->lock);
    int result = failed ? -EIO : block->image->driver->flush(block->image);
    if (result == -EIO) {
        lock(&block->lock);
        block->flush_failed = true;
        unlock(&block->lock);
    }
    return result;
}

static int perform(struct block *block, struct block_request *request)
{
    struct block_image *image = block->image;
    const struct block_driver *driver = image->driver;
    uint64_t offset = request->offset, bytes = request->bytes;
    if (request->op == BLOCK_FLUSH)
        return block->options.readonly || block->options.cache == BLOCK_UNSAFE ? 0 : flush(block);
    if (offset > image->bytes || bytes > image->bytes - offset)
        return -EINVAL;
    if (request->op == BLOCK_READ)
        return transfer(image, false, offset, bytes, request->iov, request->iovs);
    if (block->options.readonly)
        return -EROFS;
    if (request->op == BLOCK_WRITE)
        return transfer(image, true, offset, bytes, request->iov, request->iovs);
    if (bytes == 0)
        return 0;
    bool unmap = block->options.discard;
    int result = -EOPNOTSUPP;
    if (request->op == BLOCK_DISCARD) {
        if (unmap && driver->discard)
            result = driver->discard(image, offset, bytes);
        return result == -EOPNOTSUPP ? 0 : result; /* a hint */
    }
    if (driver->zero)
        result = driver->zero(image, offset, bytes, unmap && request->unmap);
    return result == -EOPNOTSUPP ? zero_by_hand(image, offset, bytes) : result;
}

static void count(struct block_stats *stats, enum block_op op, uint64_t bytes, int result)
{
    stats->failed += result < 0;
    if (op == BLOCK_READ) {
        stats->reads++;
        stats->read_bytes += bytes;
    } else if (op == BLOCK_WRITE) {
        stats->writes++;
        stats->written_bytes += bytes;
    } else if (op == BLOCK_FLUSH) {
        stats->flushes++;
    }
}

static bool writes(enum block_op op)
{
    return op == BLOCK_WRITE || op == BLOCK_ZERO || op == BLOCK_DISCARD;
}

/* A write that begins now pays for itself: the next one waits until then. With the lock held. */
static void pay(struct block *block, uint64_t bytes)
{
    int64_t now_ns = clock_now_ns(), from_ns = block->hold_until_ns > now_ns ? block->hold_until_ns : now_ns;
    double cost_ns = (double)bytes * 1e9 / (double)block->hold_bytes_per_s;
    int64_t until_ns = from_ns + (int64_t)(cost_ns < HOLD_NS_MAX ? cost_ns : HOLD_NS_MAX);
    block->hold_until_ns = until_ns < now_ns + HOLD_NS_MAX ? until_ns : now_ns + HOLD_NS_MAX;
    block->held_ns += block->hold_until_ns - now_ns;
}

/* The first request, or the first that is no write while writes are held; NULL: there is none now. With the lock held. */
static struct block_request *pick(struct block *block)
{
    bool held = block->hold_bytes_per_s && !block->closing && clock_now_ns() < block->hold_until_ns;
    struct block_request **at = &block->first;
    while (*at && held && writes((*at)->op))
        at = &(*at)->next;
    struct block_request *request = *at;
    if (!request)
        return NULL;
    *at = request->next;
    if (!*at)
        block->last = at;
    if (block->hold_bytes_per_s && writes(request->op))
        pay(block, request->bytes);
    return request;
}

static void block_thread(void *opaque)
{
    struct block *block = opaque;
    lock(&block->lock);
    for (;;) {
        struct block_request *request = pick(block);
        if (!request && !block->first && block->closing)
            break;
        if (!request && block->first) {
            cond_wait_until(&block->work, &block->lock, block->hold_until_ns);
            continue;
        }
        if (!request) {
            cond_wait(&block->work, &block->lock);
            continue;
        }
        enum block_op op = request->op;
        uint64_t offset = request->offset, bytes = request->bytes;
        if (block->first && block->hold_bytes_per_s) /* somebody else looks after what is held */
            cond_signal(&block->work);
        unlock(&block->lock);
        int result = perform(block, request);
        /* Before done(), after which it may be asked for; the request is its owner's again then. Of a write that failed nobody
         * knows which part was done: marked too. */
        lock(&block->lock);
        count(&block->stats, op, bytes, result);
        if (block->map && writes(op))
            dirty_map_mark(block->map, offset, bytes);
        unlock(&block->lock);
        request->done(request, result);
        lock(&block->lock);
    }
    unlock(&block->lock);
}

/* --- for owners -------------------------------------------------------------------------------------------- */

int block_new(struct block_image *image, const struct block_options *options, struct block **out, struct err *err)
{
    struct block *block = calloc(1, sizeof(*block));
    *out = NULL;
    if (!block) {
        image->driver->free(image);
        return err_set(err, -ENOMEM, "no memory for disk '%s'", options->name);
    }
    block->options = *options;
    block->image = image;
    block->last = &block->first;
    lock_init(&block->lock, LOCK_QUEUE);
    cond_init(&block->work);
    for (unsigned i = 0; i < BLOCK_THREADS; i++) {
        char name[BLOCK_NAME_MAX + 16];
        snprintf(name, sizeof(name), "io/%.10s.%u", options->name, i);
        int result = thread_start(&block->thread[i], name, block_thread, block, err);
        if (result < 0) {
            block_free(block);
            return result;
        }
    }
    *out = block;
    return 0;
}

void block_free(struct block *block)
{
    if (!block)
        return;
    lock(&block->lock);
    block->closing = true;
    cond_broadcast(&block->work);
    unlock(&block->lock);
    for (unsigned i = 0; i < BLOCK_THREADS; i++)
        thread_join(&block->thread[i]);
    block_let_go(block);
    block->image->driver->free(block->image);
    cond_destroy(&block->work);
    lock_destroy(&block->lock);
    free(block);
}

const struct block_options *block_options_of(const struct block *block)
{
    return &block->options;
}

uint64_t block_bytes(const struct block *block)
{
    return block->image->bytes;
}

uint32_t block_sector_bytes(const struct block *block)
{
    return block->image->sector_bytes;
}

void block_submit(struct block *block, struct block_request *request)
{
    assert(block->taken && request->done && request->iovs <= BLOCK_IOVS_MAX);
    request->next = NULL;
    lock(&block->lock);
    *block->last = request;
    block->last = &request->next;
    cond_signal(&block->work);
    unlock(&block->lock);
}

void block_stats(struct block *block, struct block_stats *out)
{
    lock(&block->lock);
    *out = block->stats;
    unlock(&block->lock);
}

int block_take(struct block *block, struct err *err)
{
    const struct block_driver *driver = block->image->driver;
    uint64_t before = block->image->bytes;
    if (block->taken)
        return 0;
    int result = driver->take ? driver->take(block->image, err) : 0;
    if (result < 0)
        return err_prefix(err, "disk '%s'", block->options.name);
    if (block->image->bytes != before) {
        if (driver->let_go)
            driver->let_go(block->image);
        result = err_set(err, -ESTALE, "disk '%s' had %llu bytes when it was opened, and has %llu now",
                         block->options.name, (unsigned long long)before, (unsigned long long)block->image->bytes);
        block->image->bytes = before;
        return result;
    }
    block->taken = true;
    return 0;
}

void block_let_go(struct block *block)
{
    if (block->taken && block->image->driver->let_go)
        block->image->driver->let_go(block->image);
    block->taken = false;
}

bool block_taken(const struct block *block)
{
    return block->taken;
}

bool block_excludes(const struct block *block)
{
    return block->image->driver->take != NULL;
}

bool block_taken_elsewhere(struct block *block)
{
    return block->image->driver->taken_elsewhere && block->image->driver->taken_elsewhere(block->image);
}

int block_flush(struct block *block, struct err *err)
{
    if (block->options.readonly || !block->taken)
        return 0;
    int result = flush(block);
    return result < 0 ? err_set_errno(err, result, "disk '%s' cannot be flushed", block->options.name) : 0;
}

/* --- for whoever copies it ---------------------------------------------------------------------------------- */

void block_track(struct block *block, struct dirty_map *map)
{
    lock(&block->lock);
    block->map = map;
    unlock(&block->lock);
}

int block_copy_out(struct block *block, uint64_t offset, void *out, uint64_t bytes)
{
    uint64_t there = offset < block->image->bytes ? block->image->bytes - offset : 0;
    struct iovec iov = { out, there < bytes ? there : bytes };
    if (there < bytes)
        memset((uint8_t *)out + there, 0, bytes - there);
    return transfer(block->image, false, offset, iov.iov_len, &iov, 1);
}

static int check_write(const struct block *block, uint64_t offset, uint64_t bytes)
{
    if (offset > block->image->bytes || bytes > block->image->bytes - offset)
        return -EINVAL;
    return block->options.readonly || !block->taken ? -EROFS : 0;
}

int block_copy_in(struct block *block, uint64_t offset, const void *data, uint64_t bytes)
{
    struct iovec iov = { (void *)(uintptr_t)data, bytes };
    int result = check_write(block, offset, bytes);
    return result < 0 ? result : transfer(block->image, true, offset, bytes, &iov, 1);
}

int block_make_zero(struct block *block, uint64_t offset, uint64_t bytes)
{
    const struct block_driver *driver = block->image->driver;
    int result = check_write(block, offset, bytes);
    if (result < 0 || bytes == 0)
        return result;
    result = driver->zero ? driver->zero(block->image, offset, bytes, true) : -EOPNOTSUPP;
    return result == -EOPNOTSUPP ? zero_by_hand(block->image, offset, bytes) : result;
}

int block_extent(struct block *block, uint64_t offset, uint64_t *bytes, bool *data)
{
    const struct block_driver *driver = block->image->driver;
    *data = true;
    *bytes = block->image->bytes - offset;
    return driver->extent ? driver->extent(block->image, offset, bytes, data) : 0;
}

int block_own_extent(struct block *block, uint64_t offset, uint64_t *bytes, bool *own)
{
    const struct block_driver *driver = block->image->driver;
    return driver->own_extent ? driver->own_extent(block->image, offset, bytes, own) : -EOPNOTSUPP;
}

void block_hold_writes(struct block *block, uint64_t bytes_per_s)
{
    lock(&block->lock);
    block->hold_bytes_per_s = bytes_per_s;
    if (bytes_per_s == 0)
        block->hold_until_ns = 0;
    cond_broadcast(&block->work);
    unlock(&block->lock);
}

uint64_t block_held_ns(struct block *block)
{
    lock(&block->lock);
    uint64_t held_ns = (uint64_t)block->held_ns;
    unlock(&block->lock);
    return held_ns;
}
