/* The header of a qcow2 image and its extensions: bytes in, limits checked, sentences out. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "block/qcow2_impl.h"

enum { V2_BYTES = 72, V3_BYTES = 104, COMPRESSION_AT = 104, FEATURE_BYTES = 48, FEATURE_NAME_BYTES = 46 };
enum { EXT_END = 0, EXT_FEATURES = 0x6803f857 };
#define EXT_BACKING_FORMAT UINT32_C(0xe2792aca)
#define KNOWN              (QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_DATA_FILE | QCOW2_COMPRESSION | QCOW2_EXTENDED_L2)

struct parse {
    const uint8_t *data;
    size_t bytes;
    uint64_t file_bytes;
    const char *path;
    struct err *err;
};

static uint64_t cluster_bytes(const struct qcow2_header *h)
{
    return UINT64_C(1) << h->cluster_bits;
}

/* A table of so many bytes from `offset` on: at a cluster's begin, behind the header, in the file. */
static int check_table(const struct parse *p, const struct qcow2_header *h, const char *what, uint64_t offset,
                       uint64_t bytes)
{
    uint64_t cluster = cluster_bytes(h), end = (p->file_bytes + cluster - 1) / cluster * cluster;
    if (offset % cluster || offset < cluster)
        return err_set(p->err, -EINVAL, "%s: %s at offset %#llx, which cannot be", p->path, what,
                       (unsigned long long)offset);
    if (offset > end || bytes > end - offset)
        return err_set(p->err, -EINVAL, "%s: %s, %llu bytes at offset %#llx, is outside of the file", p->path, what,
                       (unsigned long long)bytes, (unsigned long long)offset);
    return 0;
}

static int parse_fixed(const struct parse *p, struct qcow2_header *h)
{
    const uint8_t *d = p->data;
    static const uint8_t magic[4] = { 'Q', 'F', 'I', 0xfb };
    if (p->bytes < V2_BYTES || memcmp(d, magic, sizeof(magic)) != 0)
        return err_set(p->err, -EINVAL, "%s: it is not a qcow2 image", p->path);
    h->version = be32_get(d + 4);
    if (h->version != 2 && h->version != 3)
        return err_set(p->err, -EINVAL, "%s: version %u of qcow2 is not known here", p->path, h->version);
    uint32_t bits = be32_get(d + 20);
    if (bits < QCOW2_CLUSTER_BITS_MIN || bits > QCOW2_CLUSTER_BITS_MAX)
        return err_set(p->err, -EINVAL, "%s: clusters of 2^%u bytes are not possible", p->path, bits);
    h->cluster_bits = bits;
    h->bytes = be64_get(d + 24);
    if (be32_get(d + 32) != 0)
        return err_set(p->err, -ENOTSUP, "%s: it is encrypted, which cannot be read here", p->path);
    h->l1_entries = be32_get(d + 36);
    h->l1_offset = be64_get(d + 40);
    h->reftable_offset = be64_get(d + 48);
    h->reftable_clusters = be32_get(d + 56);
    h->snapshots = be32_get(d + 60);
    h->snapshots_offset = be64_get(d + 64);
    h->refcount_order = 4;
    h->header_bytes = V2_BYTES;
    if (h->version == 2)
        return 0;
    if (p->bytes < V3_BYTES)
        return err_set(p->err, -EINVAL, "%s: its header is cut off", p->path);
    h->incompatible = be64_get(d + 72);
    h->autoclear = be64_get(d + 88);
    h->refcount_order = be32_get(d + 96);
    h->header_bytes = be32_get(d + 100);
    if (h->refcount_order > 6)
        return err_set(p->err, -EINVAL, "%s: refcounts of 2^%u bits are not possible", p->path, h->refcount_order);
    if (h->header_bytes < V3_BYTES || h->header_bytes % 8 || h->header_bytes > cluster_bytes(h))
        return err_set(p->err, -EINVAL, "%s: a header of %u bytes is not possible", p->path, h->header_bytes);
    return 0;
}

/* The name that the image itself gives to an incompatible feature, or its number. */
static void feature_name(const struct parse *p, const struct qcow2_header *h, unsigned bit, char *out, size_t out_size)
{
    snprintf(out, out_size, "bit %u", bit);
    for (size_t at = h->header_bytes; at + 8 <= p->bytes;) {
        uint32_t type = be32_get(p->data + at), bytes = be32_get(p->data + at + 4);
        at += 8;
        if (type == EXT_END || bytes > p->bytes - at)
            return;
        for (size_t i = at; type == EXT_FEATURES && i + FEATURE_BYTES <= at + bytes; i += FEATURE_BYTES) {
            char name[4 * FEATURE_NAME_BYTES + 1];
            if (p->data[i] != 0 || p->data[i + 1] != bit)
                continue;
            err_printable(p->data + i + 2, FEATURE_NAME_BYTES, name, sizeof(name));
            snprintf(out, out_size, "'%s'", name);
            return;
        }
        at += ((size_t)bytes + 7) / 8 * 8;
    }
}

static int check_features(const struct parse *p, struct qcow2_header *h)
{
    uint64_t unknown = h->incompatible & ~(uint64_t)KNOWN;
    char name[4 * FEATURE_NAME_BYTES + 8];
    if (h->incompatible & QCOW2_DATA_FILE)
        return err_set(p->err, -ENOTSUP, "%s: its data is in another file (external data file), which is not there",
                       p->path);
    if (h->incompatible & QCOW2_EXTENDED_L2)
        return err_set(p->err, -ENOTSUP, "%s: it has extended L2 entries, which are not known here", p->path);
    if (unknown) {
        feature_name(p, h, (unsigned)__builtin_ctzll(unknown), name, sizeof(name));
        return err_set(p->err, -ENOTSUP, "%s: it has an incompatible feature that is not known here: %s", p->path,
                       name);
    }
    unsigned type = 0;
    if (h->version >= 3 && h->header_bytes > COMPRESSION_AT && p->bytes > COMPRESSION_AT)
        type = p->data[COMPRESSION_AT];
    if (!(h->incompatible & QCOW2_COMPRESSION) != (type == 0))
        return err_set(p->err, -EINVAL, "%s: compression type %u and its feature bit do not agree", p->path, type);
    if (type > QCOW2_ZSTD)
        return err_set(p->err, -ENOTSUP, "%s: compression type %u is not known here", p->path, type);
    h->compression = (enum qcow2_compression)type;
    return 0;
}

static int check_sizes(const struct parse *p, const struct qcow2_header *h)
{
    uint64_t cluster = cluster_bytes(h), table = cluster * (cluster / 8);
    uint64_t needed = h->bytes / table + (h->bytes % table != 0);
    if (h->bytes == 0 || h->bytes % BLOCK_SECTOR_BYTES)
        return err_set(p->err, -EINVAL, "%s: a disk of %llu bytes is not possible", p->path,
                       (unsigned long long)h->bytes);
    if (h->l1_entries > QCOW2_L1_BYTES_MAX / 8 || needed > QCOW2_L1_BYTES_MAX / 8)
        return err_set(p->err, -EFBIG, "%s: its L1 table has %u entries and needs %llu, more than %d", p->path,
                       h->l1_entries, (unsigned long long)needed, QCOW2_L1_BYTES_MAX / 8);
    if (h->l1_entries < needed)
        return err_set(p->err, -EINVAL, "%s: its L1 table has %u entries, and its size needs %llu", p->path,
                       h->l1_entries, (unsigned long long)needed);
    int result = check_table(p, h, "the L1 table", h->l1_offset, (uint64_t)h->l1_entries * 8);
    if (result < 0)
        return result;
    if (h->reftable_clusters == 0 || h->reftable_clusters > QCOW2_REFTABLE_BYTES_MAX / cluster)
        return err_set(p->err, -EINVAL, "%s: a refcount table of %u clusters is not possible", p->path,
                       h->reftable_clusters);
    result = check_table(p, h, "the refcount table", h->reftable_offset, h->reftable_clusters * cluster);
    if (result < 0)
        return result;
    if (h->snapshots > QCOW2_SNAPSHOTS_MAX)
        return err_set(p->err, -EINVAL, "%s: %u snapshots are more than there can be", p->path, h->snapshots);
    return h->snapshots ? check_table(p, h, "the table of snapshots", h->snapshots_offset, h->snapshots * UINT64_C(40))
                        : 0;
}

static int parse_backing(const struct parse *p, struct qcow2_header *h)
{
    uint64_t offset = be64_get(p->data + 8);
    uint32_t bytes = be32_get(p->data + 16);
    if (offset == 0)
        return 0;
    if (offset < h->header_bytes || offset > p->bytes || bytes > p->bytes - offset || bytes == 0 ||
        bytes >= QCOW2_NAME_MAX || memchr(p->data + offset, 0, bytes))
        return err_set(p->err, -EINVAL, "%s: the name of its backing file (%u bytes at %#llx) cannot be", p->path,
                       bytes, (unsigned long long)offset);
    memcpy(h->backing.file, p->data + offset, bytes);
    h->backing.file[bytes] = 0;
    return 0;
}

static int parse_extensions(const struct parse *p, struct qcow2_header *h)
{
    uint64_t name_at = be64_get(p->data + 8);
    size_t end = h->backing.file[0] ? (size_t)name_at : p->bytes;
    for (size_t at = h->header_bytes; at + 8 <= end;) {
        uint32_t type = be32_get(p->data + at), bytes = be32_get(p->data + at + 4);
        if (type == EXT_END)
            break;
        at += 8;
        if (bytes > end - at)
            return err_set(p->err, -EINVAL, "%s: a header extension of %u bytes at %#zx is larger than its place",
                           p->path, bytes, at);
        if (type == EXT_BACKING_FORMAT) {
            if (bytes >= sizeof(h->backing.format) || memchr(p->data + at, 0, bytes))
                return err_set(p->err, -EINVAL, "%s: the format of its backing file cannot be", p->path);
            memcpy(h->backing.format, p->data + at, bytes);
            h->backing.format[bytes] = 0;
        }
        at += ((size_t)bytes + 7) / 8 * 8;
    }
    return 0;
}

int qcow2_header_parse(const uint8_t *data, size_t bytes, bool whole, uint64_t file_bytes, struct qcow2_header *out,
                       const char *path, struct err *err)
{
    struct parse p = { .data = data, .bytes = bytes, .file_bytes = file_bytes, .path = path, .err = err };
    *out = (struct qcow2_header){ 0 };
    int result = parse_fixed(&p, out);
    if (result < 0 || !whole)
        return result;
    result = check_features(&p, out);
    if (result == 0)
        result = check_sizes(&p, out);
    if (result == 0)
        result = parse_backing(&p, out);
    return result == 0 ? parse_extensions(&p, out) : result;
}

int qcow2_header_writable(const struct qcow2_header *header, const char *path, struct err *err)
{
    if (header->incompatible & QCOW2_CORRUPT)
        return err_set(err, -EROFS,
                       "%s: it is marked as corrupt and must not be written: qemu-img check -r all, or readonly=on",
                       path);
    if (header->incompatible & QCOW2_DIRTY)
        return err_set(err, -EROFS,
                       "%s: its refcounts are not up to date (dirty) and must not be relied on: qemu-img check -r all, "
                       "or readonly=on",
                       path);
    return 0;
}
