/* Disks: an image that a driver reads and writes, and the threads that wait for it.
 *
 * Whoever owns a `struct block` submits requests from any thread and never waits: each disk has threads of its own, so
 * that one that is slow holds up neither a vCPU, nor the monitor, nor another disk. done() is called on one of those
 * threads, with no lock held, exactly once. Requests end in any order; who needs an order waits for done().
 * How many are under way is bounded by the submitter, who owns their memory.
 *
 * A disk is taken or not. Only a taken one may be written, and it is taken by at most one program: locks on the
 * image see to that (image_lock.h). One that waits for a guest to arrive is open, but not taken. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/err.h"

enum { BLOCK_SECTOR_BYTES = 512, BLOCK_THREADS = 4, BLOCK_IOVS_MAX = 1024, BLOCK_NAME_MAX = 64 };

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_ZERO };

struct block_request {
    /* the submitter's; not touched by it between submit and done */
    enum block_op op;
    uint64_t offset, bytes; /* multiples of the sector; nothing for FLUSH */
    struct iovec *iov;      /* READ, WRITE: `bytes` together; used up on the way */
    unsigned iovs;          /* at most BLOCK_IOVS_MAX */
    bool unmap;             /* ZERO: need not stay allocated */
    /* 0: all of it was done. -errno: it is not known which part was. */
    void (*done)(struct block_request *request, int result);
    /* block.c's */
    struct block_request *next;
};

/* --- drivers ----------------------------------------------------------------------------------------------- */

struct block_image;

/* Called by several of a disk's threads at once, each until it is done. All return -errno when they fail. */
struct block_driver {
    const char *name; /* "raw" */
    /* Bytes done, at least 1 but maybe fewer than asked for; 0 from read: the image has ended. -EINTR: again. */
    ssize_t (*read)(struct block_image *image, uint64_t offset, const struct iovec *iov, unsigned iovs);
    ssize_t (*write)(struct block_image *image, uint64_t offset, const struct iovec *iov, unsigned iovs);
    int (*flush)(struct block_image *image); /* whatever has been written is durable */
    /* -EOPNOTSUPP: this image cannot. Either may be NULL, which means the same. */
    int (*discard)(struct block_image *image, uint64_t offset, uint64_t bytes);
    int (*zero)(struct block_image *image, uint64_t offset, uint64_t bytes, bool unmap);
    /* Is there data at `offset`, or a hole that reads as zeros, and how far does that go? At least a byte. NULL: all
     * of it is data. */
    int (*extent)(struct block_image *image, uint64_t offset, uint64_t *bytes, bool *data);
    /* As extent(), of this image alone: is it here, or does the one below it (a backing file) say what is there? NULL, or
     * -EOPNOTSUPP: there is none below. */
    int (*own_extent)(struct block_image *image, uint64_t offset, uint64_t *bytes, bool *own);
    /* Become the image's only writer (or a reader without writers), and stop being it. NULL: nobody else is there. */
    int (*take)(struct block_image *image, struct err *err);
    void (*let_go)(struct block_image *image);
    bool (*taken_elsewhere)(struct block_image *image);
    void (*free)(struct block_image *image);
};

/* First member of the driver's own struct. Fixed after new, but for `bytes`, which take() may look at again. */
struct block_image {
    const struct block_driver *driver;
    uint64_t bytes;        /* a multiple of sector_bytes */
    uint32_t sector_bytes; /* what the host reads and writes at least: 512 or 4096 */
};

/* --- disks ------------------------------------------------------------------------------------------------- */

enum block_cache { BLOCK_WRITEBACK, BLOCK_DIRECT, BLOCK_UNSAFE };

struct block_options {
    char name[BLOCK_NAME_MAX]; /* for messages and threads' names */
    enum block_cache cache;    /* UNSAFE: a flush does nothing */
    bool readonly;
    bool discard; /* DISCARD, and ZERO with unmap, give space back; else they are a hint that is not taken */
};

struct block_stats {
    uint64_t reads, writes, flushes, read_bytes, written_bytes, failed;
};

struct block;
struct dirty_map;

/* Starts the threads; not taken. Owns `image` from here on, also when it fails. */
int block_new(struct block_image *image, const struct block_options *options, struct block **out, struct err *err);
void block_free(struct block *block); /* waits for what was submitted; NULL allowed */

const struct block_options *block_options_of(const struct block *block);
uint64_t block_bytes(const struct block *block);
uint32_t block_sector_bytes(const struct block *block);
void block_submit(struct block *block, struct block_request *request); /* taken, or it is a bug */
void block_stats(struct block *block, struct block_stats *out);        /* any thread */

/* The rest only with nothing under way, on the thread that owns the machine's state. */
int block_take(struct block *block, struct err *err); /* 0 also when it is taken; -EBUSY: another program has it */
void block_let_go(struct block *block);
bool block_taken(const struct block *block);
bool block_taken_elsewhere(struct block *block); /* another program has it at this moment */
bool block_excludes(const struct block *block);  /* a taken one is nobody else's; else nothing says so */
/* On the calling thread: everything written so far is durable, whatever the cache. May be under way beside requests. */
int block_flush(struct block *block, struct err *err);

/* --- for whoever copies a disk, while the guest uses it or before (migration) --------------------------------- */

/* Every write, discard and zeroing that ends from now on is marked, behind the data and before done(); also those that are under
 * way, and those that fail. Until block_track(block, NULL), after which nobody marks any more. Any thread, one at a time. */
void block_track(struct block *block, struct dirty_map *map);
/* On the calling thread, which waits; any thread, beside requests. Whole, or -errno. Not counted in block_stats(). A read may tear
 * with a write that is under way, and one that reaches behind the disk's end finds zeros there. Writing: taken and not readonly, or it is -EROFS;
 * what lies behind the end must not be written. zero: need not stay allocated. */
int block_copy_out(struct block *block, uint64_t offset, void *out, uint64_t bytes);
int block_copy_in(struct block *block, uint64_t offset, const void *data, uint64_t bytes);
int block_make_zero(struct block *block, uint64_t offset, uint64_t bytes);
/* As the driver's. extent: all is data where it does not say. own_extent: -EOPNOTSUPP where there is nothing below. */
int block_extent(struct block *block, uint64_t offset, uint64_t *bytes, bool *data);
int block_own_extent(struct block *block, uint64_t offset, uint64_t *bytes, bool *own);
/* Writes wait in the queue, other requests pass them, while more than so many bytes a second would be written; each for a
 * quarter of a second at most. 0: none waits, not even those that do. Any thread. */
void block_hold_writes(struct block *block, uint64_t bytes_per_s);
uint64_t block_held_ns(struct block *block); /* so long writes waited for that, since the disk was opened */
