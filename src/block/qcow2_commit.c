/* Changes on their way into the file, and clusters on their way to be free.
 *
 * A commit takes the changes of the map that are there when it begins:
 *     refcounts, new blocks of them          (raised counts; lowered ones of clusters that no table names)
 *     barrier, the refcount table            only where there are new blocks
 *     barrier                                data, refcounts and new tables are durable
 *     L2 and L1 entries
 *     barrier                                where a flush asked for it, or clusters wait for it
 * Whatever of the entries between two barriers gets to the disk, in whatever order: all that they name is there. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "block/qcow2_impl.h"

/* --- requests under way -------------------------------------------------------------------------------------- */

unsigned qcow2_enter(struct qcow2 *q)
{
    for (;;) {
        unsigned epoch = atomic_load_explicit(&q->epoch, memory_order_seq_cst) & 1;
        /* Count, then look whether the epoch is still that one; who ends it does so first and then looks at the counter.
         * Sequentially consistent, since each side writes one and reads the other. */
        atomic_fetch_add_explicit(&q->active[epoch], 1, memory_order_seq_cst);
        if ((atomic_load_explicit(&q->epoch, memory_order_seq_cst) & 1) == epoch)
            return epoch;
        qcow2_leave(q, epoch);
    }
}

void qcow2_leave(struct qcow2 *q, unsigned epoch)
{
    atomic_fetch_sub_explicit(&q->active[epoch], 1, memory_order_seq_cst); /* behind all that it did */
}

/* --- lists ---------------------------------------------------------------------------------------------------- */

int pending_reserve(struct qcow2 *q, uint64_t entries)
{
    size_t need = q->pendings + q->pending_reserved + (size_t)entries;
    assert(lock_held(&q->lock));
    if (need > q->pending_room) {
        struct pending *more = realloc(q->pending, 2 * need * sizeof(*more));
        if (!more)
            return -ENOMEM;
        q->pending = more;
        q->pending_room = 2 * need;
    }
    q->pending_reserved += (size_t)entries;
    return 0;
}

void pending_release(struct qcow2 *q, uint64_t entries)
{
    assert(q->pending_reserved >= entries);
    q->pending_reserved -= (size_t)entries;
}

void pending_add(struct qcow2 *q, uint64_t at, uint64_t value, struct map_set *set, struct map_slot *slot)
{
    assert(lock_held(&q->lock) && q->pendings < q->pending_room);
    q->pending[q->pendings++] = (struct pending){ .at = at, .value = value, .set = set, .slot = slot };
}

/* Without memory they are lost for the image until somebody checks it, no more. */
static void extents_add(struct extents *list, uint64_t cluster, uint64_t count)
{
    struct extent *last = list->count > list->sealed ? &list->item[list->count - 1] : NULL;
    if (last && last->cluster + last->count == cluster) {
        last->count += count;
        return;
    }
    if (list->count == list->room) {
        size_t room = list->room ? 2 * list->room : 64;
        struct extent *more = realloc(list->item, room * sizeof(*more));
        if (!more)
            return;
        list->item = more;
        list->room = room;
    }
    list->item[list->count++] = (struct extent){ .cluster = cluster, .count = count };
}

void pending_drop_cluster(struct qcow2 *q, uint64_t entry)
{
    uint64_t offset = entry & QCOW2_OFFSET, bytes = q->cluster_bytes;
    if (entry & QCOW2_COMPRESSED)
        map_compressed(q, entry, &offset, &bytes);
    if (offset == 0)
        return;
    if (entry & QCOW2_COMPRESSED) { /* it has one use in each cluster that one of its sectors is in */
        bytes += offset % 512;
        offset -= offset % 512;
    }
    uint64_t first = offset / q->cluster_bytes, last = (offset + bytes - 1) / q->cluster_bytes;
    extents_add(&q->freed, first, last - first + 1);
}

bool pending_is_much(const struct qcow2 *q)
{
    return q->pendings > QCOW2_PENDING_MAX || q->freed.count > QCOW2_FREED_MAX;
}

/* --- clusters become free ------------------------------------------------------------------------------------- */

static void drop_all(struct qcow2 *q, struct extents *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        refs_drop(q, list->item[i].cluster, list->item[i].count);
    if (count == 0)
        return;
    memmove(list->item, list->item + count, (list->count - count) * sizeof(*list->item));
    list->count -= count;
}

static bool nobody_left(struct qcow2 *q)
{
    unsigned before = (atomic_load_explicit(&q->epoch, memory_order_relaxed) - 1) & 1;
    return atomic_load_explicit(&q->active[before], memory_order_seq_cst) == 0;
}

/* The file does not name the first `count` of `freed` any more, and that is durable; nor any of `aged`. */
static void ripen(struct qcow2 *q, size_t count)
{
    if (q->aged.count && nobody_left(q))
        drop_all(q, &q->aged, q->aged.count);
    if (q->aged.count || count == 0)
        return;
    struct extents all = q->freed;
    q->freed = (struct extents){ 0 };
    for (size_t i = count; i < all.count; i++)
        extents_add(&q->freed, all.item[i].cluster, all.item[i].count);
    all.count = all.sealed = count;
    free(q->aged.item);
    q->aged = all;
    atomic_fetch_add_explicit(&q->epoch, 1, memory_order_seq_cst); /* from here on nobody finds them in the map */
    if (nobody_left(q))
        drop_all(q, &q->aged, q->aged.count);
}

/* --- commit ---------------------------------------------------------------------------------------------------- */

static int by_place(const void *a, const void *b)
{
    const struct pending *x = a, *y = b;
    return x->at != y->at ? (x->at < y->at ? -1 : 1) : 0;
}

/* Of several changes of one entry the last counts; so they go by place, and keep their order there. */
static void sort(struct pending *item, size_t count, struct pending *scratch)
{
    if (count < 2)
        return;
    size_t half = count / 2, a = 0, b = half, out = 0;
    sort(item, half, scratch);
    sort(item + half, count - half, scratch);
    while (out < count)
        scratch[out++] = b == count || (a < half && by_place(&item[a], &item[b]) <= 0) ? item[a++] : item[b++];
    memcpy(item, scratch, count * sizeof(*item));
}

static int write_entries(struct qcow2 *q, const struct pending *item, size_t count)
{
    uint8_t data[QCOW2_SLICE_BYTES];
    for (size_t i = 0; i < count;) {
        uint64_t at = item[i].at - item[i].at % q->slice_bytes;
        int result = file_read(q, at, data, q->slice_bytes);
        if (result < 0)
            return result;
        for (; i < count && item[i].at - at < q->slice_bytes; i++)
            be64_put(data + (item[i].at - at), item[i].value);
        result = file_write(q, at, data, q->slice_bytes);
        if (result < 0)
            return result;
    }
    return 0;
}

static int barrier(struct qcow2 *q)
{
    int result = file_sync(q);
    /* A host that was full may have room later. Anything else: it may have dropped what was written, and never say so again. */
    if (result < 0 && result != -ENOSPC && result != -EDQUOT) {
        lock(&q->lock);
        q->failed = result;
        unlock(&q->lock);
    }
    return result;
}

/* Without lock; `batch` and its second half are this one's. */
static int write_batch(struct qcow2 *q, struct pending *batch, size_t count, bool last_barrier)
{
    int result = 0;
    if (count) {
        sort(batch, count, batch + count);
        result = barrier(q);
        if (result == 0)
            result = write_entries(q, batch, count);
    }
    return result == 0 && last_barrier ? barrier(q) : result;
}

static void committed(struct qcow2 *q, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (q->pending[i].slot)
            map_unpin(q->pending[i].set, q->pending[i].slot);
    }
    if (count == 0)
        return;
    memmove(q->pending, q->pending + count, (q->pendings - count) * sizeof(*q->pending));
    q->pendings -= count;
}

static int commit_locked(struct qcow2 *q, bool flush)
{
    size_t count = q->pendings, freed = q->freed.count;
    bool last_barrier = flush || freed || q->aged.count;
    q->freed.sealed = freed;
    struct pending *batch = malloc((count ? count : 1) * 2 * sizeof(*batch));
    int result = batch ? q->failed : -ENOMEM;
    if (result == 0)
        result = refs_write(q);
    if (result == 0)
        result = refs_write_table(q);
    if (result == 0) {
        if (count)
            memcpy(batch, q->pending, count * sizeof(*batch));
        unlock(&q->lock);
        result = write_batch(q, batch, count, last_barrier);
        lock(&q->lock);
    }
    free(batch);
    if (result < 0)
        return result;
    committed(q, count);
    ripen(q, freed);
    return 0;
}

int qcow2_commit(struct qcow2 *q, bool flush)
{
    lock(&q->lock);
    uint64_t enough = q->commits_begun + 1; /* one that begins from now on */
    while (q->committing)
        cond_wait(&q->changed, &q->lock);
    int result = 0;
    if (!flush || q->commit_flushed < enough) {
        uint64_t number = ++q->commits_begun;
        q->committing = true;
        result = commit_locked(q, flush);
        if (result == 0 && flush)
            q->commit_flushed = number;
        q->committing = false;
        cond_broadcast(&q->changed);
    }
    unlock(&q->lock);
    return result;
}

int qcow2_settle(struct qcow2 *q)
{
    int result = 0;
    /* The first makes durable that clusters are given up, the next one says that they are free, for which there is no hurry. */
    for (unsigned i = 0; i < 3 && result == 0; i++) {
        lock(&q->lock);
        bool flush = q->pendings || q->freed.count || q->aged.count;
        unlock(&q->lock);
        result = qcow2_commit(q, flush);
    }
    return result;
}
