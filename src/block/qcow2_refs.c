/* Refcounts of an image's clusters, and so which are free. Everything here is under the image's lock.
 *
 * A count that is raised may be in the file at any time: at worst a cluster is lost. One that is lowered is so only after the
 * file does not name the cluster any more (qcow2_commit.c), and may then be in the file at any time, too. A new block is in the
 * file as zeros before a count is put into it; the table names it behind a barrier, and before the next tables are written. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "block/qcow2_impl.h"

static uint64_t per_block(const struct qcow2 *q)
{
    return (q->cluster_bytes * 8) >> q->header.refcount_order;
}

static uint64_t per_slice(const struct qcow2 *q)
{
    return (q->slice_bytes * 8) >> q->header.refcount_order;
}

/* --- one count in memory ------------------------------------------------------------------------------------ */

static uint64_t get(const struct qcow2 *q, const uint8_t *data, uint64_t index)
{
    unsigned order = q->header.refcount_order;
    switch (order) {
    case 3: return data[index];
    case 4: return be16_get(data + index * 2);
    case 5: return be32_get(data + index * 4);
    case 6: return be64_get(data + index * 8);
    default: {
        unsigned bits = 1U << order, shift = (unsigned)(index * bits % 8);
        return data[index * bits / 8] >> shift & ((1U << bits) - 1);
    }
    }
}

static void put(const struct qcow2 *q, uint8_t *data, uint64_t index, uint64_t value)
{
    unsigned order = q->header.refcount_order;
    switch (order) {
    case 3: data[index] = (uint8_t)value; break;
    case 4: be16_put(data + index * 2, (uint16_t)value); break;
    case 5: be32_put(data + index * 4, (uint32_t)value); break;
    case 6: be64_put(data + index * 8, value); break;
    default: {
        unsigned bits = 1U << order, shift = (unsigned)(index * bits % 8), mask = ((1U << bits) - 1) << shift;
        uint8_t *byte = data + index * bits / 8;
        *byte = (uint8_t)((*byte & ~mask) | (value << shift & mask));
    }
    }
}

/* --- slices ------------------------------------------------------------------------------------------------- */

static int write_slice(struct qcow2 *q, struct ref_slice *slice)
{
    int result = slice->dirty ? file_write(q, slice->at, slice->data, q->slice_bytes) : 0;
    if (result == 0)
        slice->dirty = false;
    return result;
}

static int get_slice(struct qcow2 *q, uint64_t at, struct ref_slice **out)
{
    struct refs *refs = &q->refs;
    struct ref_slice *oldest = &refs->slice[0];
    for (unsigned i = 0; i < QCOW2_REF_SLICES; i++) {
        struct ref_slice *slice = &refs->slice[i];
        if (slice->at == at) {
            slice->used = ++refs->clock;
            *out = slice;
            return 0;
        }
        if (slice->used < oldest->used)
            oldest = slice;
    }
    int result = oldest->at ? write_slice(q, oldest) : 0;
    if (result < 0)
        return result;
    oldest->at = 0;
    oldest->used = 0;
    if (!oldest->data)
        oldest->data = malloc(q->slice_bytes);
    if (!oldest->data)
        return -ENOMEM;
    result = file_read(q, at, oldest->data, q->slice_bytes);
    if (result < 0)
        return result;
    oldest->at = at;
    oldest->used = ++refs->clock;
    *out = oldest;
    return 0;
}

/* The slice and the place in it; NULL: no block is there, all its counts are zero. */
static int find(struct qcow2 *q, uint64_t cluster, struct ref_slice **out, uint64_t *index)
{
    uint64_t block = cluster / per_block(q), within = cluster % per_block(q);
    *out = NULL;
    if (block >= q->refs.entries || q->refs.table[block] == 0)
        return 0;
    *index = within % per_slice(q);
    return get_slice(q, q->refs.table[block] + within / per_slice(q) * q->slice_bytes, out);
}

static int count_of(struct qcow2 *q, uint64_t cluster, uint64_t *out)
{
    struct ref_slice *slice;
    uint64_t index;
    int result = find(q, cluster, &slice, &index);
    *out = slice ? get(q, slice->data, index) : 0;
    return result;
}

/* --- room for counts ---------------------------------------------------------------------------------------- */

static void table_set(struct qcow2 *q, uint64_t block, uint64_t offset)
{
    struct refs *refs = &q->refs;
    refs->table[block] = offset;
    refs->table_dirty[block * 8 / q->slice_bytes] = true;
    refs->changed = true;
}

/* What in_use() cannot undo where it fails half way: counts in memory are too low, and must not get into the file. */
static int lost_count(struct qcow2 *q, int result)
{
    q->failed = result;
    return result;
}

static int set_count(struct qcow2 *q, uint64_t cluster, uint64_t value)
{
    struct ref_slice *slice;
    uint64_t index;
    int result = find(q, cluster, &slice, &index);
    if (result < 0)
        return result;
    assert(slice);
    put(q, slice->data, index, value);
    slice->dirty = true;
    return 0;
}

static void used_until(struct qcow2 *q, uint64_t cluster)
{
    uint64_t offset = cluster * q->cluster_bytes;
    if (offset > atomic_load_explicit(&q->end, memory_order_relaxed))
        atomic_store_explicit(&q->end, offset, memory_order_relaxed);
}

/* A block for counts that are all zero; its own is the first one that it holds, as a rule. */
static int make_block(struct qcow2 *q, uint64_t block)
{
    unsigned long long first = block * per_block(q);
    uint64_t at = first, last = at + per_block(q);
    while (at < last && meta_has(&q->meta, at))
        at++;
    if (at == last)
        return qcow2_broken(q, "clusters from %llu of the file on are tables, and their refcounts are missing", first);
    int result = file_write_zeros(q, at * q->cluster_bytes, q->cluster_bytes);
    if (result == 0)
        result = meta_add(&q->meta, at);
    if (result < 0)
        return result;
    used_until(q, at + 1);
    table_set(q, block, at * q->cluster_bytes);
    result = set_count(q, at, 1);
    return result < 0 ? lost_count(q, result) : 0;
}

/* What a larger table and the blocks for it take, behind everything that is in use: [start, start + table + blocks). */
struct growth {
    uint64_t start, table, blocks;
};

static uint64_t blocks_missing(const struct qcow2 *q, const struct growth *g)
{
    uint64_t missing = 0, last = (g->start + g->table + g->blocks - 1) / per_block(q);
    for (uint64_t block = g->start / per_block(q); block <= last; block++)
        missing += block >= q->refs.entries || q->refs.table[block] == 0;
    return missing;
}

static int plan_growth(const struct qcow2 *q, uint64_t block, struct growth *g)
{
    uint64_t entries_per_cluster = q->cluster_bytes / 8;
    g->start = atomic_load_explicit(&q->end, memory_order_relaxed) / q->cluster_bytes;
    g->table = 2 * (block / entries_per_cluster + 1);
    for (;;) {
        uint64_t missing = blocks_missing(q, g), last = (g->start + g->table + g->blocks - 1) / per_block(q);
        if (g->table * q->cluster_bytes > QCOW2_REFTABLE_BYTES_MAX || g->start + g->table + missing > q->file_max)
            return -ENOSPC; /* in the format */
        if (last >= g->table * entries_per_cluster)
            g->table++;
        else if (missing != g->blocks)
            g->blocks = missing;
        else
            return 0;
    }
}

static int enlarge_table(struct qcow2 *q, uint64_t clusters)
{
    struct refs *refs = &q->refs;
    uint64_t bytes = clusters * q->cluster_bytes;
    uint64_t *table = calloc(1, bytes);
    bool *dirty = calloc(bytes / q->slice_bytes, sizeof(*dirty));
    if (!table || !dirty) {
        free(table);
        free(dirty);
        return -ENOMEM;
    }
    memcpy(table, refs->table, refs->entries * 8);
    free(refs->table);
    free(refs->table_dirty);
    refs->table = table;
    refs->table_dirty = dirty;
    refs->entries = bytes / 8;
    return 0;
}

/* The table becomes large enough for `block`, in a new place. The file learns of that by one write of its header. */
static int grow_table(struct qcow2 *q, uint64_t block)
{
    struct refs *refs = &q->refs;
    struct growth g = { 0 };
    if (refs->moved)
        return -EAGAIN; /* the header has to learn of the last time first */
    int result = plan_growth(q, block, &g);
    uint64_t place = g.start + g.table, end = place + g.blocks;
    if (result == 0)
        result = file_write_zeros(q, place * q->cluster_bytes, g.blocks * q->cluster_bytes);
    for (uint64_t i = g.start; result == 0 && i < end; i++)
        result = meta_add(&q->meta, i) == -ENOMEM ? -ENOMEM : 0;
    if (result == 0)
        result = enlarge_table(q, g.table);
    if (result < 0)
        return result;
    used_until(q, end);
    refs->old_at = refs->table_at;
    refs->old_clusters = refs->table_clusters;
    refs->table_at = g.start * q->cluster_bytes;
    refs->table_clusters = g.table;
    refs->moved = true;
    for (uint64_t i = g.start / per_block(q); i <= (end - 1) / per_block(q); i++) {
        if (refs->table[i] == 0)
            table_set(q, i, place++ * q->cluster_bytes);
    }
    assert(place == end);
    for (uint64_t i = g.start; result == 0 && i < end; i++)
        result = set_count(q, i, 1);
    refs->changed = true;
    return result < 0 ? lost_count(q, result) : 0;
}

static int need_block(struct qcow2 *q, uint64_t cluster)
{
    uint64_t block = cluster / per_block(q);
    if (cluster >= q->file_max)
        return -ENOSPC;
    if (block >= q->refs.entries) {
        int result = grow_table(q, block);
        if (result < 0)
            return result;
    }
    return q->refs.table[block] ? 0 : make_block(q, block);
}

/* --- for others --------------------------------------------------------------------------------------------- */

static int is_free(struct qcow2 *q, uint64_t cluster, bool *out)
{
    uint64_t count;
    int result = need_block(q, cluster);
    if (result == 0)
        result = count_of(q, cluster, &count);
    if (result == 0)
        *out = count == 0 && !meta_has(&q->meta, cluster);
    return result;
}

int refs_allocate(struct qcow2 *q, uint64_t most, uint64_t *cluster, uint64_t *count)
{
    struct refs *refs = &q->refs;
    uint64_t at = refs->next;
    bool yes = false;
    assert(lock_held(&q->lock) && most > 0);
    if (q->failed)
        return q->failed;
    for (;; at++) {
        int result = is_free(q, at, &yes);
        if (result < 0)
            return result;
        if (yes)
            break;
    }
    *cluster = at;
    for (*count = 0; yes && *count < most; ++*count) {
        int result = set_count(q, at, 1);
        if (result < 0)
            return result; /* lost, not more */
        used_until(q, ++at);
        /* Not as far as another block: making one may take the place. */
        if (at % per_block(q) == 0 || is_free(q, at, &yes) < 0)
            yes = false;
    }
    refs->next = at;
    return 0;
}

int refs_drop(struct qcow2 *q, uint64_t cluster, uint64_t count)
{
    uint64_t run = cluster, end = cluster + count;
    int first_error = 0;
    for (; cluster < end; cluster++) {
        uint64_t uses = 0;
        int result = count_of(q, cluster, &uses);
        if (result == 0 && uses == 0)
            result = qcow2_broken(q, "cluster %llu of the file was in use, and its refcount is 0",
                                  (unsigned long long)cluster);
        if (result == 0)
            result = set_count(q, cluster, uses - 1);
        if (result < 0 && first_error == 0)
            first_error = result;
        bool gone = result == 0 && uses == 1;
        if (gone) {
            meta_remove(&q->meta, cluster);
            if (cluster < q->refs.next)
                q->refs.next = cluster;
        }
        /* A hint: a host that cannot keeps its space. */
        if (q->discard && q->file->driver->discard && (!gone || cluster + 1 == end)) {
            uint64_t upto = gone ? end : cluster;
            if (upto > run)
                (void)q->file->driver->discard(q->file, run * q->cluster_bytes, (upto - run) * q->cluster_bytes);
        }
        if (!gone)
            run = cluster + 1;
    }
    return first_error;
}

int refs_write(struct qcow2 *q)
{
    int result = 0;
    for (unsigned i = 0; i < QCOW2_REF_SLICES && result == 0; i++)
        result = write_slice(q, &q->refs.slice[i]);
    return result;
}

static int write_table(struct qcow2 *q, bool all)
{
    struct refs *refs = &q->refs;
    uint64_t slices = refs->table_clusters * q->cluster_bytes / q->slice_bytes;
    uint8_t data[QCOW2_SLICE_BYTES];
    for (uint64_t i = 0; i < slices; i++) {
        if (!all && !refs->table_dirty[i])
            continue;
        for (uint64_t k = 0; k < q->slice_entries; k++)
            be64_put(data + k * 8, refs->table[i * q->slice_entries + k]);
        int result = file_write(q, refs->table_at + i * q->slice_bytes, data, q->slice_bytes);
        if (result < 0)
            return result;
    }
    return 0;
}

int refs_write_table(struct qcow2 *q)
{
    enum { TABLE_AT = 48, TABLE_BYTES = 12 };
    struct refs *refs = &q->refs;
    uint8_t where[TABLE_BYTES];
    if (!refs->changed)
        return 0;
    int result = refs->moved ? write_table(q, true) : 0;
    if (result == 0)
        result = file_sync(q); /* the blocks are there before the table names them, the table before the header does */
    if (result < 0)
        return result;
    be64_put(where, refs->table_at);
    be32_put(where + 8, (uint32_t)refs->table_clusters);
    result = refs->moved ? file_put(q, TABLE_AT, where, sizeof(where)) : write_table(q, false);
    if (result < 0)
        return result;
    memset(refs->table_dirty, 0, refs->entries * 8 / q->slice_bytes * sizeof(*refs->table_dirty));
    if (refs->moved) {
        for (uint64_t i = 0; i < refs->old_clusters; i++)
            pending_drop_cluster(q, refs->old_at + i * q->cluster_bytes);
    }
    refs->changed = refs->moved = false;
    return 0;
}

void refs_clear(struct refs *refs)
{
    for (unsigned i = 0; i < QCOW2_REF_SLICES; i++)
        free(refs->slice[i].data);
    free(refs->table);
    free(refs->table_dirty);
    *refs = (struct refs){ 0 };
}
