/* Where a disk's clusters are: L1 whole, L2 in slices of which a bounded number is in memory.
 *
 * Slices are kept by their number in the disk, in sets of a few with a lock each, so that requests for different places do not
 * meet. A slice that has entries which are not in the file is pinned: so one that is not in memory is in the file as it is.
 * Who changes the map holds the image's lock; who looks holds only a set's. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "block/qcow2_impl.h"

/* --- entries ------------------------------------------------------------------------------------------------ */

void map_compressed(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *bytes)
{
    unsigned bits = 62 - (q->header.cluster_bits - 8);
    uint64_t mask = (UINT64_C(1) << bits) - 1;
    uint64_t sectors = (entry & ~QCOW2_COMPRESSED) >> bits;
    *offset = entry & mask;
    *bytes = (sectors + 1) * 512 - *offset % 512;
}

static bool is_right(struct qcow2 *q, uint64_t entry)
{
    uint64_t end = atomic_load_explicit(&q->end, memory_order_relaxed);
    uint64_t offset = entry & QCOW2_OFFSET, bytes;
    if (entry & QCOW2_COMPRESSED) {
        map_compressed(q, entry, &offset, &bytes);
        return !(entry & QCOW2_COPIED) && offset >> QCOW2_OFFSET_BITS == 0 && offset >= q->cluster_bytes &&
               offset < end && bytes <= end - offset;
    }
    if (entry & ~(QCOW2_OFFSET | QCOW2_COPIED | QCOW2_ZERO) || (entry & QCOW2_ZERO && q->header.version == 2))
        return false;
    if (offset == 0)
        return !(entry & QCOW2_COPIED);
    return offset % q->cluster_bytes == 0 && offset < end && !meta_has(&q->meta, offset / q->cluster_bytes);
}

static enum run_kind kind_of(uint64_t entry)
{
    return entry == QCOW2_BAD         ? RUN_BAD
           : entry & QCOW2_COMPRESSED ? RUN_COMPRESSED
           : entry & QCOW2_ZERO       ? RUN_ZERO
           : entry & QCOW2_OFFSET     ? RUN_DATA
                                      : RUN_HOLE;
}

void map_describe(const struct qcow2 *q, const uint64_t *entry, uint64_t most, struct run *out)
{
    uint64_t count = 1, step = kind_of(entry[0]) == RUN_DATA ? q->cluster_bytes : 0;
    *out = (struct run){ .kind = kind_of(entry[0]), .entry = entry[0], .clusters = 1 };
    if (out->kind == RUN_COMPRESSED || out->kind == RUN_BAD)
        return;
    out->copied = out->kind == RUN_DATA && entry[0] & QCOW2_COPIED;
    while (count < most &&
           (out->kind == RUN_ZERO ? kind_of(entry[count]) == RUN_ZERO : entry[count] == entry[0] + count * step))
        count++;
    out->clusters = count;
}

/* --- slices ------------------------------------------------------------------------------------------------- */

static uint64_t slice_offset(const struct qcow2 *q, uint64_t slice, uint64_t l1)
{
    uint64_t per_table = q->l2_entries / q->slice_entries;
    return (l1 & QCOW2_OFFSET) + slice % per_table * q->slice_bytes;
}

static int load_slice(struct qcow2 *q, uint64_t slice, uint64_t l1, uint64_t *entry)
{
    int result = file_read(q, slice_offset(q, slice, l1), entry, q->slice_bytes);
    if (result < 0)
        return result;
    for (uint64_t i = 0; i < q->slice_entries; i++) {
        uint64_t value = be64_get(&entry[i]);
        unsigned long long cluster = slice * q->slice_entries + i;
        entry[i] = value;
        if (value && !is_right(q, value)) {
            qcow2_broken(q, "cluster %llu of the disk: its L2 entry %#llx points where it must not", cluster,
                         (unsigned long long)value);
            entry[i] = QCOW2_BAD;
        }
    }
    return 0;
}

static struct map_slot *find(struct map_set *set, uint64_t slice)
{
    for (unsigned i = 0; i < QCOW2_WAYS; i++) {
        if (set->slot[i].key == slice + 1) {
            set->slot[i].used = ++set->clock;
            return &set->slot[i];
        }
    }
    return NULL;
}

/* The one that nobody asked for the longest, emptied; NULL when all are pinned, or there is no memory. */
static struct map_slot *make_room(const struct qcow2 *q, struct map_set *set)
{
    struct map_slot *oldest = NULL;
    for (unsigned i = 0; i < QCOW2_WAYS; i++) {
        struct map_slot *slot = &set->slot[i];
        if (slot->pins == 0 && (!oldest || slot->used < oldest->used))
            oldest = slot;
    }
    if (oldest) {
        oldest->key = 0;
        oldest->used = 0;
        if (!oldest->entry)
            oldest->entry = malloc(q->slice_bytes);
    }
    return oldest && oldest->entry ? oldest : NULL;
}

/* Under the set's lock. NULL and 0: there is no room. */
static int get_slot(struct qcow2 *q, struct map_set *set, uint64_t slice, uint64_t l1, struct map_slot **out)
{
    *out = find(set, slice);
    if (*out)
        return 0;
    struct map_slot *slot = make_room(q, set);
    if (!slot)
        return 0;
    int result = load_slice(q, slice, l1, slot->entry);
    if (result < 0)
        return result;
    slot->key = slice + 1;
    slot->used = ++set->clock;
    *out = slot;
    return 0;
}

int map_look(struct qcow2 *q, uint64_t cluster, uint64_t most, struct run *out)
{
    uint64_t slice = cluster / q->slice_entries, at = cluster % q->slice_entries;
    struct map_set *set = &q->set[slice % q->sets];
    struct map_slot *slot = NULL;
    assert(cluster / q->l2_entries < q->l1_used && most > 0);
    if (most > q->slice_entries - at)
        most = q->slice_entries - at;
    lock(&set->lock);
    /* Under the set's lock: a table that is exchanged meanwhile has the same content until the set is asked for again. */
    uint64_t l1 = atomic_load_explicit(&q->l1[cluster / q->l2_entries], memory_order_acquire);
    int result = l1 & QCOW2_OFFSET ? get_slot(q, set, slice, l1, &slot) : 0;
    if (slot)
        map_describe(q, slot->entry + at, most, out);
    unlock(&set->lock);
    if (result < 0 || slot)
        return result;
    if (!(l1 & QCOW2_OFFSET)) {
        *out = (struct run){ .kind = RUN_HOLE, .clusters = most };
        return 0;
    }
    /* Everything there waits for a commit; what is not in memory is in the file. */
    uint64_t own[QCOW2_SLICE_BYTES / 8];
    result = load_slice(q, slice, l1, own);
    if (result == 0)
        map_describe(q, own + at, most, out);
    return result;
}

/* --- changes: under the image's lock ------------------------------------------------------------------------ */

static bool all_pinned(const struct map_set *set)
{
    for (unsigned i = 0; i < QCOW2_WAYS; i++) {
        if (set->slot[i].pins == 0)
            return false;
    }
    return true;
}

int map_pin(struct qcow2 *q, uint64_t cluster, struct map_set **set, struct map_slot **slot)
{
    uint64_t slice = cluster / q->slice_entries;
    uint64_t l1 = atomic_load_explicit(&q->l1[cluster / q->l2_entries], memory_order_relaxed);
    assert(lock_held(&q->lock) && l1 & QCOW2_COPIED);
    *set = &q->set[slice % q->sets];
    lock(&(*set)->lock);
    int result = get_slot(q, *set, slice, l1, slot);
    if (*slot)
        (*slot)->pins++;
    else if (result == 0)
        result = all_pinned(*set) ? -EAGAIN : -ENOMEM;
    unlock(&(*set)->lock);
    return result;
}

void map_unpin(struct map_set *set, struct map_slot *slot)
{
    lock(&set->lock);
    assert(slot->pins > 0);
    slot->pins--;
    unlock(&set->lock);
}

void map_change(struct qcow2 *q, struct map_set *set, struct map_slot *slot, uint64_t cluster, uint64_t entry)
{
    uint64_t slice = cluster / q->slice_entries, at = cluster % q->slice_entries;
    uint64_t l1 = atomic_load_explicit(&q->l1[cluster / q->l2_entries], memory_order_relaxed);
    lock(&set->lock);
    assert(slot->key == slice + 1);
    slot->entry[at] = entry;
    slot->pins++;
    unlock(&set->lock);
    pending_add(q, slice_offset(q, slice, l1) + at * 8, entry, set, slot);
}

static int copy_table(struct qcow2 *q, uint64_t from, uint64_t to)
{
    uint8_t *table = malloc(q->cluster_bytes);
    if (!table)
        return -ENOMEM;
    int result = file_read(q, from, table, q->cluster_bytes);
    if (result == 0)
        result = file_write(q, to, table, q->cluster_bytes);
    free(table);
    return result;
}

int map_own(struct qcow2 *q, uint64_t cluster)
{
    uint64_t index = cluster / q->l2_entries, table, count;
    uint64_t l1 = atomic_load_explicit(&q->l1[index], memory_order_relaxed);
    assert(lock_held(&q->lock));
    if (l1 & QCOW2_COPIED)
        return 0;
    int result = pending_reserve(q, 1);
    if (result < 0)
        return result;
    result = refs_allocate(q, 1, &table, &count);
    if (result == 0) {
        uint64_t to = table * q->cluster_bytes;
        /* Whole, before anything names it: the barrier of the next commit comes before L1. */
        result = l1 ? copy_table(q, l1 & QCOW2_OFFSET, to) : file_write_zeros(q, to, q->cluster_bytes);
        if (result == 0)
            result = meta_add(&q->meta, table);
        if (result == -EEXIST)
            result = qcow2_broken(q, "cluster %llu of the file is free and a table at once", (unsigned long long)table);
        if (result < 0)
            refs_drop(q, table, 1);
    }
    if (result == 0) {
        uint64_t entry = table * q->cluster_bytes | QCOW2_COPIED;
        atomic_store_explicit(&q->l1[index], entry, memory_order_release); /* behind the table's content */
        pending_add(q, q->header.l1_offset + index * 8, entry, NULL, NULL);
        if (l1)
            pending_drop_cluster(q, l1 & QCOW2_OFFSET);
    }
    pending_release(q, 1);
    return result;
}
