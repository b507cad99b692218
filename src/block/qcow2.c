#include "block/qcow2.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/qcow2_impl.h"

static struct qcow2 *qcow2_of(struct block_image *image)
{
    return (struct qcow2 *)image;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static bool in_trouble(const struct qcow2 *q)
{
    return atomic_load_explicit(&q->trouble, memory_order_relaxed) != 0;
}

/* --- pieces of memory ----------------------------------------------------------------------------------------- */

static uint64_t iov_bytes(const struct iovec *iov, unsigned iovs)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < iovs; i++)
        bytes += iov[i].iov_len;
    return bytes;
}

/* The part of `iov` from `skip` on, `bytes` long, in out[BLOCK_IOVS_MAX]. */
static unsigned iov_part(const struct iovec *iov, unsigned iovs, uint64_t skip, uint64_t bytes, struct iovec *out)
{
    unsigned count = 0;
    for (unsigned i = 0; i < iovs && bytes > 0; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        uint64_t piece = least(iov[i].iov_len - skip, bytes);
        out[count++] = (struct iovec){ (uint8_t *)iov[i].iov_base + skip, piece };
        bytes -= piece;
        skip = 0;
    }
    return count;
}

/* `data`, or zeros where it is NULL, into the first `bytes`. */
static void iov_fill(const struct iovec *iov, unsigned iovs, const uint8_t *data, uint64_t bytes)
{
    for (unsigned i = 0; i < iovs && bytes > 0; i++) {
        uint64_t piece = least(iov[i].iov_len, bytes);
        if (data)
            memcpy(iov[i].iov_base, data, piece);
        else
            memset(iov[i].iov_base, 0, piece);
        data = data ? data + piece : NULL;
        bytes -= piece;
    }
}

/* --- reading -------------------------------------------------------------------------------------------------- */

static ssize_t read_below(struct block_image *below, uint64_t offset, const struct iovec *iov, unsigned iovs,
                          uint64_t bytes)
{
    struct iovec part[BLOCK_IOVS_MAX];
    return below->driver->read(below, offset, part, iov_part(iov, iovs, 0, bytes, part));
}

static int read_compressed(struct qcow2 *q, uint64_t entry, uint8_t *out)
{
    uint64_t offset, bytes;
    map_compressed(q, entry, &offset, &bytes);
    uint64_t unit = q->file->sector_bytes, skip = offset % unit;
    uint64_t whole = (skip + bytes + unit - 1) / unit * unit;
    uint8_t *in = malloc(whole);
    if (!in)
        return -ENOMEM;
    int result = file_read(q, offset - skip, in, whole);
    if (result == 0)
        result = qcow2_inflate(q->header.compression, in + skip, bytes, out, q->cluster_bytes);
    free(in);
    if (result == -EIO)
        qcow2_broken(q, "the compressed cluster at %#llx of the file cannot be unpacked", (unsigned long long)offset);
    return result;
}

static ssize_t read_from_compressed(struct qcow2 *q, uint64_t entry, uint64_t within, const struct iovec *iov,
                                    unsigned iovs, uint64_t bytes)
{
    uint8_t *cluster = malloc(q->cluster_bytes);
    int result = cluster ? read_compressed(q, entry, cluster) : -ENOMEM;
    if (result == 0)
        iov_fill(iov, iovs, cluster + within, bytes);
    free(cluster);
    return result < 0 ? result : (ssize_t)bytes;
}

static ssize_t read_run(struct qcow2 *q, const struct run *run, uint64_t offset, const struct iovec *iov, unsigned iovs,
                        uint64_t bytes)
{
    uint64_t within = offset % q->cluster_bytes;
    ssize_t done;
    switch (run->kind) {
    case RUN_DATA:
        done = read_below(q->file, (run->entry & QCOW2_OFFSET) + within, iov, iovs, bytes);
        if (done != 0)
            return done;
        break; /* the file ends in front of it: nothing was ever written there */
    case RUN_COMPRESSED: return read_from_compressed(q, run->entry, within, iov, iovs, bytes);
    case RUN_BAD: return -EIO;
    case RUN_HOLE:
        if (!q->backing || offset >= q->backing->bytes)
            break;
        done = read_below(q->backing, offset, iov, iovs, least(bytes, q->backing->bytes - offset));
        return done == 0 ? -EIO : done;
    case RUN_ZERO: break;
    }
    iov_fill(iov, iovs, NULL, bytes);
    return (ssize_t)bytes;
}

static uint64_t clusters_of(const struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    return (offset + bytes - 1) / q->cluster_bytes - offset / q->cluster_bytes + 1;
}

/* What of [offset, offset + bytes) is in the run that begins with its first cluster. */
static uint64_t bytes_in(const struct qcow2 *q, const struct run *run, uint64_t offset, uint64_t bytes)
{
    return least(bytes, run->clusters * q->cluster_bytes - offset % q->cluster_bytes);
}

static ssize_t read_piece(struct qcow2 *q, uint64_t offset, const struct iovec *iov, unsigned iovs)
{
    struct run run;
    uint64_t bytes = least(iov_bytes(iov, iovs), q->image.bytes - offset);
    int result = map_look(q, offset / q->cluster_bytes, clusters_of(q, offset, bytes), &run);
    return result < 0 ? result : read_run(q, &run, offset, iov, iovs, bytes_in(q, &run, offset, bytes));
}

static ssize_t qcow2_read(struct block_image *image, uint64_t offset, const struct iovec *iov, unsigned iovs)
{
    struct qcow2 *q = qcow2_of(image);
    assert(offset < image->bytes);
    if (!q->loaded) /* somebody else has it */
        return -EPERM;
    unsigned epoch = qcow2_enter(q);
    ssize_t done = read_piece(q, offset, iov, iovs);
    qcow2_leave(q, epoch);
    return done;
}

/* --- allocating ----------------------------------------------------------------------------------------------- */

/* Clusters of the disk that become new ones of the file. Pinned and busy until it has ended. */
struct fresh {
    struct busy busy;
    struct map_set *set;
    struct map_slot *slot;
    uint64_t first, count; /* of the disk */
    uint64_t to;           /* cluster of the file */
    bool virgin;           /* nothing was ever written there: it reads as zeros */
};

static bool is_busy(const struct qcow2 *q, uint64_t first, uint64_t count)
{
    for (const struct busy *b = q->busy; b; b = b->next) {
        if (first < b->end && b->first < first + count)
            return true;
    }
    return false;
}

/* Under lock: somebody was waited for. -EINTR: what was known is not true any more. */
static int wait_for_others(struct qcow2 *q, uint64_t first, uint64_t count)
{
    if (!is_busy(q, first, count))
        return 0;
    cond_wait(&q->changed, &q->lock);
    return -EINTR;
}

static bool needs_new(const struct qcow2 *q, uint64_t entry)
{
    struct run run;
    map_describe(q, &entry, 1, &run);
    return run.kind != RUN_BAD && !run.copied;
}

/* How many from `first` on are to be new ones, under lock; the slot is pinned, and changed under lock only. */
static uint64_t count_new(const struct qcow2 *q, const struct fresh *f, uint64_t most)
{
    uint64_t at = f->first % q->slice_entries, count = 0;
    while (count < most && at + count < q->slice_entries && needs_new(q, f->slot->entry[at + count]))
        count++;
    return count;
}

static int fresh_begin_pinned(struct qcow2 *q, struct fresh *f, uint64_t most)
{
    uint64_t got = count_new(q, f, most);
    if (got == 0)
        return -EINTR;
    int result = pending_reserve(q, got);
    if (result < 0)
        return result;
    uint64_t end = atomic_load_explicit(&q->end, memory_order_relaxed);
    result = refs_allocate(q, got, &f->to, &f->count);
    pending_release(q, result < 0 ? got : got - f->count);
    if (result < 0)
        return result;
    f->virgin = f->to * q->cluster_bytes >= end;
    f->busy = (struct busy){ .next = q->busy, .first = f->first, .end = f->first + f->count };
    q->busy = &f->busy;
    return 0;
}

/* 0, -EINTR: look again; -EAGAIN: after a commit; others. */
static int fresh_begin(struct qcow2 *q, struct fresh *f, uint64_t first, uint64_t most)
{
    *f = (struct fresh){ .first = first };
    lock(&q->lock);
    int result = in_trouble(q) ? -EIO : q->failed;
    if (result == 0)
        result = wait_for_others(q, first, most);
    if (result == 0)
        result = map_own(q, first);
    if (result == 0)
        result = map_pin(q, first, &f->set, &f->slot);
    if (result == 0) {
        result = fresh_begin_pinned(q, f, most);
        if (result < 0)
            map_unpin(f->set, f->slot);
    }
    unlock(&q->lock);
    return result;
}

static bool fresh_end(struct qcow2 *q, struct fresh *f, bool written)
{
    lock(&q->lock);
    for (uint64_t i = 0; i < f->count && written; i++) {
        uint64_t before = f->slot->entry[f->first % q->slice_entries + i];
        map_change(q, f->set, f->slot, f->first + i, (f->to + i) * q->cluster_bytes | QCOW2_COPIED);
        pending_drop_cluster(q, before);
    }
    if (!written) /* nobody has seen them */
        refs_drop(q, f->to, f->count);
    pending_release(q, f->count);
    struct busy **at = &q->busy;
    while (*at != &f->busy)
        at = &(*at)->next;
    *at = f->busy.next;
    map_unpin(f->set, f->slot);
    bool much = pending_is_much(q);
    cond_broadcast(&q->changed);
    unlock(&q->lock);
    return much;
}

/* What the disk has at [offset, offset + bytes), at most a cluster of it, goes to the file at `to`. */
static int copy_old(struct qcow2 *q, const struct fresh *f, uint64_t offset, uint64_t bytes, uint64_t to)
{
    uint64_t inside = offset < q->image.bytes ? least(bytes, q->image.bytes - offset) : 0;
    struct run run = { .kind = RUN_ZERO };
    if (bytes == 0)
        return 0;
    int result = inside ? map_look(q, offset / q->cluster_bytes, 1, &run) : 0;
    if (result < 0)
        return result;
    if (run.kind == RUN_ZERO || (run.kind == RUN_HOLE && (!q->backing || offset >= q->backing->bytes)))
        return f->virgin ? 0 : file_write_zeros(q, to, bytes);
    uint8_t *data = calloc(1, bytes);
    if (!data)
        return -ENOMEM;
    for (uint64_t at = 0; at < inside && result == 0;) {
        struct iovec iov = { data + at, inside - at };
        ssize_t done = read_piece(q, offset + at, &iov, 1);
        if (done > 0)
            at += (uint64_t)done;
        else if (done != -EINTR)
            result = done < 0 ? (int)done : -EIO;
    }
    if (result == 0)
        result = file_write(q, to, data, bytes);
    free(data);
    return result;
}

static int write_all(struct qcow2 *q, uint64_t to, const struct iovec *iov, unsigned iovs, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes;) {
        struct iovec part[BLOCK_IOVS_MAX];
        unsigned parts = iov_part(iov, iovs, at, bytes - at, part);
        ssize_t done = q->file->driver->write(q->file, to + at, part, parts);
        if (done == -EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? (int)done : -EIO;
        at += (uint64_t)done;
    }
    return 0;
}

static int fresh_write(struct qcow2 *q, const struct fresh *f, uint64_t offset, uint64_t bytes, const struct iovec *iov,
                       unsigned iovs)
{
    uint64_t begin = f->first * q->cluster_bytes, end = begin + f->count * q->cluster_bytes;
    uint64_t to = f->to * q->cluster_bytes;
    int result = copy_old(q, f, begin, offset - begin, to);
    if (result == 0)
        result = copy_old(q, f, offset + bytes, end - offset - bytes, to + (offset + bytes - begin));
    return result == 0 ? write_all(q, to + (offset - begin), iov, iovs, bytes) : result;
}

static ssize_t write_new(struct qcow2 *q, uint64_t offset, const struct iovec *iov, unsigned iovs, uint64_t bytes)
{
    struct fresh f;
    uint64_t within = offset % q->cluster_bytes;
    uint64_t most = least(clusters_of(q, offset, bytes), QCOW2_RUN_BYTES / q->cluster_bytes);
    int result = fresh_begin(q, &f, offset / q->cluster_bytes, most);
    if (result == -EAGAIN) {
        result = qcow2_commit(q, false);
        return result < 0 ? result : -EINTR;
    }
    if (result < 0)
        return result;
    bytes = least(bytes, f.count * q->cluster_bytes - within);
    result = fresh_write(q, &f, offset, bytes, iov, iovs);
    if (fresh_end(q, &f, result == 0) && result == 0)
        result = qcow2_commit(q, false);
    return result < 0 ? result : (ssize_t)bytes;
}

static ssize_t write_piece(struct qcow2 *q, uint64_t offset, const struct iovec *iov, unsigned iovs)
{
    struct iovec part[BLOCK_IOVS_MAX];
    struct run run;
    uint64_t bytes = least(iov_bytes(iov, iovs), q->image.bytes - offset);
    int result = in_trouble(q) ? -EIO : map_look(q, offset / q->cluster_bytes, clusters_of(q, offset, bytes), &run);
    if (result < 0)
        return result;
    if (run.kind == RUN_BAD)
        return -EIO;
    if (!run.copied)
        return write_new(q, offset, iov, iovs, bytes);
    bytes = bytes_in(q, &run, offset, bytes);
    return q->file->driver->write(q->file, (run.entry & QCOW2_OFFSET) + offset % q->cluster_bytes, part,
                                  iov_part(iov, iovs, 0, bytes, part));
}

static ssize_t qcow2_write(struct block_image *image, uint64_t offset, const struct iovec *iov, unsigned iovs)
{
    struct qcow2 *q = qcow2_of(image);
    assert(q->loaded && offset < image->bytes);
    if (q->readonly)
        return -EROFS;
    unsigned epoch = qcow2_enter(q);
    ssize_t done = write_piece(q, offset, iov, iovs);
    qcow2_leave(q, epoch);
    return done;
}

static int qcow2_flush(struct block_image *image)
{
    struct qcow2 *q = qcow2_of(image);
    return q->loaded && !q->readonly ? qcow2_commit(q, true) : 0;
}

/* --- giving back, zeros --------------------------------------------------------------------------------------- */

enum zero_how { ZERO_FREE, ZERO_KEEP };

/* What an entry becomes; itself where nothing is to be done. */
static uint64_t zero_entry(const struct qcow2 *q, uint64_t cluster, uint64_t entry, enum zero_how how)
{
    struct run run;
    bool below = q->backing && cluster * q->cluster_bytes < q->backing->bytes;
    map_describe(q, &entry, 1, &run);
    if (run.kind == RUN_BAD || (run.kind == RUN_HOLE && !below))
        return entry;
    if (run.copied && how == ZERO_KEEP)
        return entry | QCOW2_ZERO;
    if (run.kind == RUN_ZERO && (how == ZERO_KEEP || (entry & QCOW2_OFFSET) == 0))
        return entry;
    return below ? QCOW2_ZERO : 0;
}

static int zero_pinned(struct qcow2 *q, struct fresh *f, uint64_t most, enum zero_how how)
{
    uint64_t at = f->first % q->slice_entries;
    f->count = least(most, q->slice_entries - at);
    int result = pending_reserve(q, f->count);
    if (result < 0)
        return result;
    for (uint64_t i = 0; i < f->count; i++) {
        uint64_t before = f->slot->entry[at + i], after = zero_entry(q, f->first + i, before, how);
        if (after == before)
            continue;
        map_change(q, f->set, f->slot, f->first + i, after);
        if ((after & QCOW2_OFFSET) == 0)
            pending_drop_cluster(q, before);
    }
    pending_release(q, f->count);
    return 0;
}

/* Some clusters from `first` on: how many, or -EINTR, -EAGAIN, others. */
static int64_t zero_some(struct qcow2 *q, uint64_t first, uint64_t most, enum zero_how how)
{
    struct fresh f = { .first = first };
    struct run run;
    int result = map_look(q, first, most, &run);
    if (result < 0)
        return result;
    most = least(most, q->slice_entries - first % q->slice_entries);
    if (run.kind == RUN_HOLE && (!q->backing || first * q->cluster_bytes >= q->backing->bytes))
        return (int64_t)run.clusters;
    lock(&q->lock);
    result = in_trouble(q) ? -EIO : q->failed;
    if (result == 0)
        result = wait_for_others(q, first, most);
    if (result == 0)
        result = map_own(q, first);
    if (result == 0)
        result = map_pin(q, first, &f.set, &f.slot);
    if (result == 0) {
        result = zero_pinned(q, &f, most, how);
        map_unpin(f.set, f.slot);
    }
    bool much = pending_is_much(q);
    unlock(&q->lock);
    if (result == 0 && much)
        result = qcow2_commit(q, false);
    return result < 0 ? result : (int64_t)f.count;
}

static int zero_clusters(struct qcow2 *q, uint64_t first, uint64_t end, enum zero_how how)
{
    while (first < end) {
        unsigned epoch = qcow2_enter(q);
        int64_t done = zero_some(q, first, end - first, how);
        qcow2_leave(q, epoch);
        int result = done == -EAGAIN ? qcow2_commit(q, false) : 0;
        if (result < 0)
            return result;
        if (done < 0 && done != -EINTR && done != -EAGAIN)
            return (int)done;
        first += done > 0 ? (uint64_t)done : 0;
    }
    return 0;
}

/* The clusters that are in [offset, offset + bytes) as a whole; the last one of the disk may be a short one. */
static void whole_clusters(const struct qcow2 *q, uint64_t offset, uint64_t bytes, uint64_t *first, uint64_t *end)
{
    *first = (offset + q->cluster_bytes - 1) / q->cluster_bytes;
    *end = offset + bytes == q->image.bytes ? (offset + bytes + q->cluster_bytes - 1) / q->cluster_bytes
                                            : (offset + bytes) / q->cluster_bytes;
    if (*end < *first)
        *end = *first;
}

static int qcow2_discard(struct block_image *image, uint64_t offset, uint64_t bytes)
{
    struct qcow2 *q = qcow2_of(image);
    uint64_t first, end;
    if (q->readonly)
        return -EROFS;
    if (q->header.version == 2 && q->backing)
        return -EOPNOTSUPP; /* what is below would appear */
    whole_clusters(q, offset, bytes, &first, &end);
    return zero_clusters(q, first, end, ZERO_FREE);
}

static int write_zeros(struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    static uint8_t zeros[64 * 1024] __attribute__((aligned(4096)));
    while (bytes > 0) {
        struct iovec iov = { zeros, least(bytes, sizeof(zeros)) };
        ssize_t done = qcow2_write(&q->image, offset, &iov, 1);
        if (done == -EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? (int)done : -EIO;
        offset += (uint64_t)done;
        bytes -= (uint64_t)done;
    }
    return 0;
}

static int qcow2_zero(struct block_image *image, uint64_t offset, uint64_t bytes, bool unmap)
{
    struct qcow2 *q = qcow2_of(image);
    uint64_t first, end, stop = offset + bytes;
    if (q->readonly)
        return -EROFS;
    if (q->header.version == 2 && (q->backing || !unmap))
        return -EOPNOTSUPP; /* there is no flag that says zero */
    whole_clusters(q, offset, bytes, &first, &end);
    uint64_t head = least(first * q->cluster_bytes, stop), tail = end * q->cluster_bytes;
    int result = write_zeros(q, offset, head - offset);
    if (result == 0)
        result = zero_clusters(q, first, end, unmap ? ZERO_FREE : ZERO_KEEP);
    return result == 0 && end > first && tail < stop    ? write_zeros(q, tail, stop - tail)
           : result == 0 && end == first && head < stop ? write_zeros(q, head, stop - head)
                                                        : result;
}

/* --- what is where -------------------------------------------------------------------------------------------- */

static int extent_of(struct qcow2 *q, const struct run *run, uint64_t offset, uint64_t *bytes, bool *data)
{
    struct block_image *below = run->kind == RUN_DATA ? q->file : run->kind == RUN_HOLE ? q->backing : NULL;
    uint64_t at = offset, piece = *bytes;
    *data = run->kind == RUN_DATA || run->kind == RUN_COMPRESSED || run->kind == RUN_BAD;
    if (!below || (run->kind == RUN_HOLE && offset >= below->bytes))
        return 0;
    if (run->kind == RUN_HOLE)
        piece = least(piece, below->bytes - offset);
    else
        at = (run->entry & QCOW2_OFFSET) + offset % q->cluster_bytes;
    *data = true;
    if (below->driver->extent) {
        uint64_t there = piece;
        int result = below->driver->extent(below, at, &there, data);
        if (result < 0)
            return result;
        /* A file that has grown since it was measured says so in a way of its own: at least a sector. */
        piece = least(piece, there ? there : BLOCK_SECTOR_BYTES);
    }
    *bytes = piece;
    return 0;
}

/* Of this image alone: what it does not have is the backing file's to say. */
static int own_extent_of(struct qcow2 *q, const struct run *run, uint64_t offset, uint64_t *bytes, bool *own)
{
    (void)q;
    (void)offset;
    (void)bytes;
    *own = run->kind != RUN_HOLE;
    return 0;
}

typedef int (*extent_question)(struct qcow2 *q, const struct run *run, uint64_t offset, uint64_t *bytes, bool *yes);

/* As far as the answer stays the same, or some way towards that. */
static int ask_extents(struct qcow2 *q, extent_question ask, uint64_t offset, uint64_t *bytes, bool *data)
{
    enum { LOOKS = 256 };
    struct block_image *image = &q->image;
    uint64_t at = offset;
    int result = 0;
    assert(offset < image->bytes);
    if (!q->loaded) /* somebody else has it */
        return -EPERM;
    unsigned epoch = qcow2_enter(q);
    for (unsigned i = 0; i < LOOKS && at < image->bytes; i++) {
        struct run run;
        uint64_t left = image->bytes - at, piece;
        bool here;
        result = map_look(q, at / q->cluster_bytes, clusters_of(q, at, left), &run);
        if (result < 0)
            break;
        piece = bytes_in(q, &run, at, left);
        result = ask(q, &run, at, &piece, &here);
        if (result < 0 || (at > offset && here != *data))
            break;
        *data = here;
        at += piece;
    }
    qcow2_leave(q, epoch);
    if (at > offset)
        result = 0; /* what comes behind is for the next call to say */
    *bytes = at - offset;
    return result;
}

static int qcow2_extent(struct block_image *image, uint64_t offset, uint64_t *bytes, bool *data)
{
    return ask_extents(qcow2_of(image), extent_of, offset, bytes, data);
}

static int qcow2_own_extent(struct block_image *image, uint64_t offset, uint64_t *bytes, bool *own)
{
    struct qcow2 *q = qcow2_of(image);
    if (!q->backing)
        return -EOPNOTSUPP;
    return ask_extents(q, own_extent_of, offset, bytes, own);
}

/* --- opening and taking --------------------------------------------------------------------------------------- */

static int qcow2_take(struct block_image *image, struct err *err)
{
    struct qcow2 *q = qcow2_of(image);
    const struct block_driver *file = q->file->driver, *backing = q->backing ? q->backing->driver : NULL;
    int result = file->take ? file->take(q->file, err) : 0;
    if (result < 0)
        return result;
    atomic_store_explicit(&q->trouble, 0, memory_order_relaxed); /* nothing is under way, and all is looked at anew */
    atomic_store_explicit(&q->trouble_writing, 0, memory_order_relaxed);
    result = backing && backing->take ? backing->take(q->backing, err) : 0;
    if (result == 0) {
        result = qcow2_load(q, err);
        if (result == 0)
            return 0;
        if (backing && backing->let_go)
            backing->let_go(q->backing);
    }
    if (file->let_go)
        file->let_go(q->file);
    return result;
}

static void qcow2_let_go(struct block_image *image)
{
    struct qcow2 *q = qcow2_of(image);
    /* Whoever needs to know has flushed before; what fails here loses what was not flushed, and clusters. */
    if (q->loaded && !q->readonly)
        (void)qcow2_settle(q);
    qcow2_unload(q);
    if (q->file->driver->let_go)
        q->file->driver->let_go(q->file);
    if (q->backing && q->backing->driver->let_go)
        q->backing->driver->let_go(q->backing);
}

static bool qcow2_taken_elsewhere(struct block_image *image)
{
    struct block_image *file = qcow2_of(image)->file;
    return file->driver->taken_elsewhere && file->driver->taken_elsewhere(file);
}

static void qcow2_free(struct block_image *image)
{
    struct qcow2 *q = qcow2_of(image);
    qcow2_unload(q);
    q->file->driver->free(q->file);
    if (q->backing)
        q->backing->driver->free(q->backing);
    cond_destroy(&q->changed);
    lock_destroy(&q->lock);
    lock_destroy(&q->meta.lock);
    free(q->path);
    free(q);
}

static const struct block_driver qcow2_driver = {
    .name = "qcow2",
    .read = qcow2_read,
    .write = qcow2_write,
    .flush = qcow2_flush,
    .discard = qcow2_discard,
    .zero = qcow2_zero,
    .extent = qcow2_extent,
    .own_extent = qcow2_own_extent,
    .take = qcow2_take,
    .let_go = qcow2_let_go,
    .taken_elsewhere = qcow2_taken_elsewhere,
    .free = qcow2_free,
};

int qcow2_new(struct block_image *file, const char *path, const struct block_options *options, struct block_image **out,
              struct qcow2_backing *backing, struct err *err)
{
    struct qcow2 *q = calloc(1, sizeof(*q));
    struct qcow2_header header;
    *out = NULL;
    if (q)
        q->path = strdup(path);
    if (!q || !q->path) {
        free(q);
        file->driver->free(file);
        return err_set(err, -ENOMEM, "%s: no memory", path);
    }
    q->image.driver = &qcow2_driver;
    q->file = file;
    q->readonly = options->readonly;
    q->discard = options->discard;
    q->nosync = options->cache == BLOCK_UNSAFE;
    lock_init(&q->lock, LOCK_IMAGE);
    lock_init(&q->meta.lock, LOCK_LEAF);
    cond_init(&q->changed);
    int result = qcow2_read_header(q, &header, err);
    if (result == 0 && !q->readonly)
        result = qcow2_header_writable(&header, path, err);
    if (result < 0) {
        qcow2_free(&q->image);
        return result;
    }
    q->image.bytes = header.bytes;
    q->image.sector_bytes = file->sector_bytes;
    q->backing_said = header.backing;
    *backing = header.backing;
    *out = &q->image;
    return 0;
}

void qcow2_set_backing(struct block_image *image, struct block_image *backing, bool chosen)
{
    qcow2_of(image)->backing = backing;
    qcow2_of(image)->backing_chosen = chosen;
}

const char *qcow2_trouble(struct block_image *image)
{
    struct qcow2 *q = qcow2_of(image);
    return atomic_load_explicit(&q->trouble, memory_order_acquire) ? q->trouble_text : NULL;
}

bool qcow2_is(const struct block_image *image)
{
    return image->driver == &qcow2_driver;
}
