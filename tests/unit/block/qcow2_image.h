/* qcow2 images for tests: made, given a snapshot, and looked through, without a line of the driver. */
#pragma once
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

struct made {
    unsigned version, cluster_bits, refcount_order;
    uint64_t bytes;
};

struct bytes {
    uint8_t *data;
    size_t bytes;
};

static inline uint64_t refcount_get(const uint8_t *block, unsigned order, uint64_t index)
{
    uint64_t value = 0;
    if (order < 3)
        return block[(index << order) / 8] >> ((index << order) % 8) & ((1U << (1U << order)) - 1);
    for (unsigned i = 0; i < 1U << (order - 3); i++)
        value = value << 8 | block[(index << (order - 3)) + i];
    return value;
}

static inline void refcount_put(uint8_t *block, unsigned order, uint64_t index, uint64_t value)
{
    if (order < 3) {
        unsigned bits = 1U << order, shift = (unsigned)(index * bits % 8);
        block[index * bits / 8] &= (uint8_t) ~(((1U << bits) - 1) << shift);
        block[index * bits / 8] |= (uint8_t)(value << shift);
        return;
    }
    for (unsigned i = 1U << (order - 3); i-- > 0; value >>= 8)
        block[(index << (order - 3)) + i] = (uint8_t)value;
}

/* Empty: header, refcount table, one block of refcounts, L1. */
static inline struct bytes image_make(const struct made *how)
{
    uint64_t cluster = UINT64_C(1) << how->cluster_bits, table = cluster * (cluster / 8);
    uint64_t entries = (how->bytes + table - 1) / table, l1_clusters = (entries * 8 + cluster - 1) / cluster;
    struct bytes image = { calloc(3 + l1_clusters, cluster), (3 + l1_clusters) * cluster };
    uint8_t *d = image.data;
    memcpy(d, "QFI\xfb", 4);
    be32_put(d + 4, how->version);
    be32_put(d + 20, how->cluster_bits);
    be64_put(d + 24, how->bytes);
    be32_put(d + 36, (uint32_t)entries);
    be64_put(d + 40, 3 * cluster);
    be64_put(d + 48, cluster);
    be32_put(d + 56, 1);
    if (how->version >= 3) {
        be32_put(d + 96, how->refcount_order);
        be32_put(d + 100, 104);
    }
    be64_put(d + cluster, 2 * cluster);
    for (uint64_t i = 0; i < 3 + l1_clusters; i++)
        refcount_put(d + 2 * cluster, how->version >= 3 ? how->refcount_order : 4, i, 1);
    return image;
}

/* --- looked through ------------------------------------------------------------------------------------------- */

struct look {
    const uint8_t *d;
    size_t bytes;
    uint64_t cluster, clusters, bytes_of_disk, l1_at, reftable_at, reftable_entries;
    unsigned order;
    uint32_t l1_entries;
    uint32_t *uses; /* of each cluster of the file */
    char bad[256];  /* "": nothing */
};

static inline uint64_t look_u64(const struct look *l, uint64_t at)
{
    return at + 8 <= l->bytes ? be64_get(l->d + at) : 0;
}

#define LOOK_BAD(l, ...) ((l)->bad[0] ? 0 : snprintf((l)->bad, sizeof((l)->bad), __VA_ARGS__))
#define LOOK_OFFSET      (((UINT64_C(1) << 56) - 1) & ~UINT64_C(511))

static inline void look_use(struct look *l, const char *what, uint64_t offset, uint64_t clusters)
{
    if (offset % l->cluster || offset / l->cluster + clusters > l->clusters) {
        LOOK_BAD(l, "%s at %#llx", what, (unsigned long long)offset);
        return;
    }
    for (uint64_t i = 0; i < clusters; i++)
        l->uses[offset / l->cluster + i]++;
}

static inline uint64_t look_refcount(const struct look *l, uint64_t cluster)
{
    uint64_t per_block = (l->cluster * 8) >> l->order;
    uint64_t block =
        cluster / per_block < l->reftable_entries ? look_u64(l, l->reftable_at + cluster / per_block * 8) : 0;
    return block && block + l->cluster <= l->bytes ? refcount_get(l->d + block, l->order, cluster % per_block) : 0;
}

static inline bool look_inside(const struct look *l, uint64_t offset)
{
    return offset % l->cluster == 0 && offset >= l->cluster && offset < l->clusters * l->cluster;
}

static inline void look_l2(struct look *l, uint64_t table)
{
    for (uint64_t i = 0; i < l->cluster / 8; i++) {
        uint64_t entry = look_u64(l, table + i * 8);
        if (entry & UINT64_C(1) << 62)
            continue; /* none are made here */
        if (entry & LOOK_OFFSET)
            look_use(l, "data", entry & LOOK_OFFSET, 1);
        else if (entry >> 63)
            LOOK_BAD(l, "an entry without a place is said to be copied");
    }
}

static inline void look_l1(struct look *l, uint64_t at, uint32_t entries)
{
    for (uint32_t i = 0; i < entries; i++) {
        uint64_t entry = look_u64(l, at + i * 8);
        if ((entry & LOOK_OFFSET) == 0)
            continue;
        look_use(l, "an L2 table", entry & LOOK_OFFSET, 1);
        if (look_inside(l, entry & LOOK_OFFSET))
            look_l2(l, entry & LOOK_OFFSET);
    }
}

static inline void look_copied(struct look *l, uint64_t entry)
{
    if (entry >> 63 && !(entry >> 62 & 1) && look_inside(l, entry & LOOK_OFFSET)) {
        uint64_t cluster = (entry & LOOK_OFFSET) / l->cluster;
        if (l->uses[cluster] != 1 || look_refcount(l, cluster) != 1)
            LOOK_BAD(l, "cluster %llu is said to be copied: %u uses, refcount %llu", (unsigned long long)cluster,
                     l->uses[cluster], (unsigned long long)look_refcount(l, cluster));
    }
}

static inline void look_all(struct look *l)
{
    const uint8_t *d = l->d;
    uint32_t snapshots = be32_get(d + 60);
    uint64_t at = be64_get(d + 64);
    look_use(l, "the header", 0, 1);
    look_use(l, "L1", l->l1_at, (l->l1_entries * UINT64_C(8) + l->cluster - 1) / l->cluster);
    look_use(l, "the refcount table", l->reftable_at, l->reftable_entries * 8 / l->cluster);
    for (uint64_t i = 0; i < l->reftable_entries; i++) {
        if (look_u64(l, l->reftable_at + i * 8))
            look_use(l, "a refcount block", look_u64(l, l->reftable_at + i * 8), 1);
    }
    if (snapshots)
        look_use(l, "the snapshots", at, 1);
    for (uint32_t i = 0; i < snapshots; i++, at += 64) {
        uint64_t l1 = look_u64(l, at), entries = be32_get(d + at + 8);
        look_use(l, "a snapshot's L1", l1, (entries * 8 + l->cluster - 1) / l->cluster);
        look_l1(l, l1, (uint32_t)entries);
    }
    look_l1(l, l->l1_at, l->l1_entries);
    for (uint64_t i = 0; i < l->clusters; i++) {
        if (look_refcount(l, i) < l->uses[i])
            LOOK_BAD(l, "cluster %llu has %u uses and refcount %llu", (unsigned long long)i, l->uses[i],
                     (unsigned long long)look_refcount(l, i));
    }
    for (uint32_t i = 0; i < l->l1_entries; i++) {
        uint64_t entry = look_u64(l, l->l1_at + i * 8);
        look_copied(l, entry);
        for (uint64_t k = 0; look_inside(l, entry & LOOK_OFFSET) && k < l->cluster / 8; k++)
            look_copied(l, look_u64(l, (entry & LOOK_OFFSET) + k * 8));
    }
}

/* look->bad: the first thing that is wrong; free look->uses. Leaks are none. */
static inline void image_look(const uint8_t *data, size_t bytes, struct look *l)
{
    *l = (struct look){ .d = data, .bytes = bytes, .order = 4 };
    l->cluster = UINT64_C(1) << be32_get(data + 20);
    l->clusters = (bytes + l->cluster - 1) / l->cluster;
    l->uses = calloc(l->clusters, sizeof(*l->uses));
    l->bytes_of_disk = be64_get(data + 24);
    l->l1_entries = be32_get(data + 36);
    l->l1_at = be64_get(data + 40);
    l->reftable_at = be64_get(data + 48);
    l->reftable_entries = be32_get(data + 56) * l->cluster / 8;
    if (be32_get(data + 4) >= 3)
        l->order = be32_get(data + 96);
    look_all(l);
}

static inline uint64_t image_leaks(const struct look *l)
{
    uint64_t leaks = 0;
    for (uint64_t i = 0; i < l->clusters; i++)
        leaks += look_refcount(l, i) > l->uses[i];
    return leaks;
}

/* Where the file has this byte of the disk; 0: it is a hole, 1: zeros. */
static inline uint64_t look_place(const struct look *l, uint64_t offset)
{
    uint64_t per_table = l->cluster * (l->cluster / 8);
    uint64_t table = look_u64(l, l->l1_at + offset / per_table * 8) & LOOK_OFFSET;
    uint64_t entry = table ? look_u64(l, table + offset / l->cluster % (l->cluster / 8) * 8) : 0;
    if (entry & 1)
        return 1;
    return entry & LOOK_OFFSET ? (entry & LOOK_OFFSET) + offset % l->cluster : 0;
}

/* --- a snapshot ----------------------------------------------------------------------------------------------- */

static inline void snapshot_share(uint8_t *d, const struct look *l, uint64_t entry_at)
{
    uint64_t entry = be64_get(d + entry_at), per_block = (l->cluster * 8) >> l->order;
    uint64_t cluster = (entry & LOOK_OFFSET) / l->cluster;
    if (cluster == 0)
        return;
    be64_put(d + entry_at, entry & ~(UINT64_C(1) << 63));
    uint8_t *block = d + be64_get(d + l->reftable_at + cluster / per_block * 8);
    refcount_put(block, l->order, cluster % per_block, look_refcount(l, cluster) + 1);
}

/* All that the disk has now is a snapshot, too. At the end of the file, which is `bytes` long and has room for 2 clusters; its
 * refcounts have to fit the blocks that are there, and its L1 one cluster. The new size. */
static inline size_t image_snapshot(uint8_t *d, size_t bytes)
{
    struct look l;
    image_look(d, bytes, &l);
    assert_string_equal(l.bad, "");
    uint64_t l1 = l.clusters, table = l.clusters + 1, per_block = (l.cluster * 8) >> l.order;
    for (uint32_t i = 0; i < l.l1_entries; i++) {
        uint64_t l2 = look_u64(&l, l.l1_at + i * 8) & LOOK_OFFSET;
        for (uint64_t k = 0; l2 && k < l.cluster / 8; k++)
            snapshot_share(d, &l, l2 + k * 8);
        snapshot_share(d, &l, l.l1_at + i * 8);
    }
    memcpy(d + l1 * l.cluster, d + l.l1_at, l.l1_entries * 8);
    be64_put(d + table * l.cluster, l1 * l.cluster);
    be32_put(d + table * l.cluster + 8, l.l1_entries);
    be16_put(d + table * l.cluster + 12, 1);
    be32_put(d + table * l.cluster + 36, 16);
    be64_put(d + table * l.cluster + 48, l.bytes_of_disk);
    d[table * l.cluster + 56] = '1';
    be32_put(d + 60, 1);
    be64_put(d + 64, table * l.cluster);
    for (uint64_t i = l1; i <= table; i++) {
        uint64_t block = be64_get(d + l.reftable_at + i / per_block * 8);
        assert_true(block != 0);
        refcount_put(d + block, l.order, i % per_block, 1);
    }
    free(l.uses);
    return (table + 1) * l.cluster;
}
