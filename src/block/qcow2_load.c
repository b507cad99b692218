/* Reading an image's tables when it is taken, and forgetting them when it is let go: another program may write it in between. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "block/qcow2_impl.h"

enum { SNAPSHOT_BYTES = 40, SNAPSHOT_TABLE_MAX = 64 << 20 };

static uint64_t round_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

/* --- the header --------------------------------------------------------------------------------------------- */

int qcow2_read_header(struct qcow2 *q, struct qcow2_header *out, struct err *err)
{
    uint8_t first[QCOW2_FIRST_BYTES];
    int result = file_read(q, 0, first, sizeof(first));
    if (result < 0)
        return err_set_errno(err, result, "%s: its header cannot be read", q->path);
    result = qcow2_header_parse(first, sizeof(first), false, q->file->bytes, out, q->path, err);
    if (result < 0)
        return result;
    size_t bytes = (size_t)1 << out->cluster_bits;
    if (bytes > q->file->bytes)
        bytes = (size_t)q->file->bytes;
    uint8_t *whole = malloc(bytes ? bytes : 1);
    if (!whole)
        return err_set(err, -ENOMEM, "%s: no memory", q->path);
    result = file_read(q, 0, whole, bytes);
    result = result < 0 ? err_set_errno(err, result, "%s: its header cannot be read", q->path)
                        : qcow2_header_parse(whole, bytes, true, q->file->bytes, out, q->path, err);
    free(whole);
    return result;
}

static int check_geometry(const struct qcow2 *q, struct err *err)
{
    if (q->cluster_bytes < q->file->sector_bytes)
        return err_set(
            err, -EINVAL,
            "%s: its clusters of %llu bytes are smaller than the %u that direct I/O needs: not with cache=none",
            q->path, (unsigned long long)q->cluster_bytes, q->file->sector_bytes);
    if (q->header.bytes % q->file->sector_bytes)
        return err_set(err, -EINVAL,
                       "%s: its size is not a multiple of the %u bytes that direct I/O needs: not with cache=none",
                       q->path, q->file->sector_bytes);
    return 0;
}

/* --- tables ------------------------------------------------------------------------------------------------- */

static int claim(struct qcow2 *q, const char *what, uint64_t offset, uint64_t bytes, struct err *err)
{
    uint64_t first = offset / q->cluster_bytes, count = round_up(bytes, q->cluster_bytes) / q->cluster_bytes;
    for (uint64_t i = 0; i < count; i++) {
        unsigned long long at = (first + i) * q->cluster_bytes;
        int result = meta_add(&q->meta, first + i);
        if (result == -EEXIST)
            return err_set(err, -EINVAL, "%s: %s at offset %#llx overlaps another table", q->path, what, at);
        if (result < 0)
            return err_set(err, result, "%s: no memory for its tables", q->path);
    }
    return 0;
}

/* One cluster each, at a cluster's begin, in the file, and nobody else's. */
static int claim_all(struct qcow2 *q, const char *what, const uint64_t *entry, uint64_t entries, uint64_t flags,
                     struct err *err)
{
    uint64_t end = atomic_load_explicit(&q->end, memory_order_relaxed);
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t offset = entry[i] & ~flags;
        if (entry[i] == 0)
            continue;
        if (offset % q->cluster_bytes || offset == 0 || offset >= end)
            return err_set(err, -EINVAL, "%s: %s %llu is said to be at offset %#llx, which cannot be", q->path, what,
                           (unsigned long long)i, (unsigned long long)offset);
        int result = claim(q, what, offset, q->cluster_bytes, err);
        if (result < 0)
            return result;
    }
    return 0;
}

static int read_table(struct qcow2 *q, const char *what, uint64_t offset, uint64_t bytes, uint64_t **out,
                      struct err *err)
{
    uint64_t *table = malloc(bytes);
    *out = table;
    if (!table)
        return err_set(err, -ENOMEM, "%s: no memory for %s", q->path, what);
    int result = file_read(q, offset, table, bytes);
    if (result < 0)
        return err_set_errno(err, result, "%s: %s cannot be read", q->path, what);
    for (uint64_t i = 0; i < bytes / 8; i++)
        table[i] = be64_get(&table[i]);
    return 0;
}

static int load_l1(struct qcow2 *q, struct err *err)
{
    uint64_t *table;
    uint64_t per_table = q->cluster_bytes * q->l2_entries;
    q->l1_used = (q->header.bytes - 1) / per_table + 1;
    int result = read_table(q, "the L1 table", q->header.l1_offset, q->l1_used * 8, &table, err);
    if (result == 0)
        result = claim_all(q, "L2 table", table, q->l1_used, QCOW2_COPIED, err);
    if (result == 0) {
        q->l1 = malloc(q->l1_used * sizeof(*q->l1));
        if (!q->l1)
            result = err_set(err, -ENOMEM, "%s: no memory for the L1 table", q->path);
    }
    for (uint64_t i = 0; result == 0 && i < q->l1_used; i++)
        atomic_init(&q->l1[i], table[i]);
    free(table);
    return result;
}

static int load_refs(struct qcow2 *q, struct err *err)
{
    struct refs *refs = &q->refs;
    uint64_t bytes = q->header.reftable_clusters * q->cluster_bytes;
    refs->entries = bytes / 8;
    refs->table_at = q->header.reftable_offset;
    refs->table_clusters = q->header.reftable_clusters;
    int result = read_table(q, "the refcount table", refs->table_at, bytes, &refs->table, err);
    if (result == 0)
        result = claim_all(q, "refcount block", refs->table, refs->entries, 0, err);
    if (result < 0)
        return result;
    refs->table_dirty = calloc(bytes / q->slice_bytes, sizeof(*refs->table_dirty));
    return refs->table_dirty ? 0 : err_set(err, -ENOMEM, "%s: no memory for the refcount table", q->path);
}

/* Snapshots are kept as they are; here it is only seen to it that they do not lie in other tables. */
static int load_snapshots(struct qcow2 *q, struct err *err)
{
    uint64_t at = q->header.snapshots_offset, start = at;
    for (uint32_t i = 0; i < q->header.snapshots; i++) {
        uint8_t head[SNAPSHOT_BYTES];
        int result = file_read(q, at, head, sizeof(head));
        if (result < 0)
            return err_set_errno(err, result, "%s: the table of snapshots cannot be read", q->path);
        uint64_t l1_at = be64_get(head), l1_bytes = be32_get(head + 8) * UINT64_C(8);
        uint64_t entry = SNAPSHOT_BYTES + (uint64_t)be32_get(head + 36) + be16_get(head + 12) + be16_get(head + 14);
        at += round_up(entry, 8);
        if (at > q->file->bytes || at - start > SNAPSHOT_TABLE_MAX)
            return err_set(err, -EINVAL, "%s: the table of snapshots does not end in the file", q->path);
        if (l1_at % q->cluster_bytes || l1_bytes > QCOW2_L1_BYTES_MAX || l1_at > q->file->bytes ||
            l1_bytes > q->file->bytes - l1_at)
            return err_set(err, -EINVAL, "%s: snapshot %u says that its L1 table is at %#llx, which cannot be", q->path,
                           i, (unsigned long long)l1_at);
        result = claim(q, "the L1 table of a snapshot", l1_at, l1_bytes, err);
        if (result < 0)
            return result;
    }
    return claim(q, "the table of snapshots", start, at - start, err);
}

static int make_cache(struct qcow2 *q, struct err *err)
{
    uint64_t slices = (q->header.bytes - 1) / q->cluster_bytes / q->slice_entries + 1;
    q->sets = 1;
    while (q->sets < QCOW2_SETS_MAX && (uint64_t)q->sets * QCOW2_WAYS < slices)
        q->sets *= 2;
    q->set = calloc(q->sets, sizeof(*q->set));
    if (!q->set)
        return err_set(err, -ENOMEM, "%s: no memory for its tables", q->path);
    for (unsigned i = 0; i < q->sets; i++)
        lock_init(&q->set[i].lock, LOCK_IMAGE_MAP);
    return 0;
}

/* What a writer does not keep up, it has to take back before it writes. */
static int clear_autoclear(struct qcow2 *q, struct err *err)
{
    uint8_t none[8] = { 0 };
    enum { AUTOCLEAR_AT = 88 };
    if (!q->header.autoclear)
        return 0;
    int result = file_put(q, AUTOCLEAR_AT, none, sizeof(none));
    if (result == 0)
        result = file_sync(q);
    return result < 0 ? err_set_errno(err, result, "%s: its header cannot be written", q->path) : 0;
}

static int load(struct qcow2 *q, struct err *err)
{
    struct qcow2_header *h = &q->header;
    int result = qcow2_read_header(q, h, err);
    if (result < 0)
        return result;
    if (!q->backing_chosen && strcmp(h->backing.file, q->backing_said.file) != 0)
        return err_set(err, -ESTALE, "%s: its backing file is another one than when it was opened", q->path);
    q->cluster_bytes = UINT64_C(1) << h->cluster_bits;
    q->l2_entries = q->cluster_bytes / 8;
    q->slice_bytes = q->cluster_bytes < QCOW2_SLICE_BYTES ? q->cluster_bytes : QCOW2_SLICE_BYTES;
    q->slice_entries = q->slice_bytes / 8;
    q->file_max = (UINT64_C(1) << QCOW2_OFFSET_BITS) / q->cluster_bytes;
    q->image.bytes = h->bytes;
    q->image.sector_bytes = q->file->sector_bytes;
    atomic_store_explicit(&q->end, round_up(q->file->bytes, q->cluster_bytes), memory_order_relaxed);
    result = check_geometry(q, err);
    if (result == 0 && !q->readonly)
        result = qcow2_header_writable(h, q->path, err);
    if (result == 0)
        result = claim(q, "the header", 0, q->cluster_bytes, err);
    if (result == 0)
        result = claim(q, "the L1 table", h->l1_offset, (uint64_t)h->l1_entries * 8, err);
    if (result == 0)
        result = claim(q, "the refcount table", h->reftable_offset, h->reftable_clusters * q->cluster_bytes, err);
    if (result == 0 && h->snapshots)
        result = load_snapshots(q, err);
    if (result == 0)
        result = load_l1(q, err);
    if (result == 0 && !q->readonly)
        result = load_refs(q, err);
    if (result == 0)
        result = make_cache(q, err);
    return result == 0 && !q->readonly ? clear_autoclear(q, err) : result;
}

int qcow2_load(struct qcow2 *q, struct err *err)
{
    int result = load(q, err);
    if (result < 0) {
        qcow2_unload(q);
        return result;
    }
    q->loaded = true;
    return 0;
}

void qcow2_unload(struct qcow2 *q)
{
    for (unsigned i = 0; q->set && i < q->sets; i++) {
        for (unsigned way = 0; way < QCOW2_WAYS; way++)
            free(q->set[i].slot[way].entry);
        lock_destroy(&q->set[i].lock);
    }
    free(q->set);
    q->set = NULL;
    free(q->l1);
    q->l1 = NULL;
    refs_clear(&q->refs);
    meta_clear(&q->meta);
    free(q->pending);
    q->pending = NULL;
    q->pendings = q->pending_room = q->pending_reserved = 0;
    free(q->freed.item);
    free(q->aged.item);
    q->freed = q->aged = (struct extents){ 0 };
    q->failed = 0;
    q->loaded = false;
}
