/* What the files of the qcow2 driver share.
 *
 * Three places hold the truth together: the file, `map` (L1 and a bounded number of L2 slices in memory, what requests see)
 * and `pending`, the changes of the map that are not in the file yet. A commit brings them there, in an order in which the
 * file is consistent at every moment: refcounts and data; a barrier; tables; a barrier where somebody asked for one or clusters
 * wait to be free. A cluster that was given up can be used again only after the file does not name it any more, and no request
 * that began before is under way. */
#pragma once
#include <stdatomic.h>

#include "base/lock.h"
#include "block/qcow2.h"

enum {
    QCOW2_CLUSTER_BITS_MIN = 9,
    QCOW2_CLUSTER_BITS_MAX = 21,
    QCOW2_SLICE_BYTES = 4096, /* of a table, read, kept and written at once; less where clusters are smaller */
    QCOW2_L1_BYTES_MAX = 32 << 20,
    QCOW2_REFTABLE_BYTES_MAX = 8 << 20,
    QCOW2_SNAPSHOTS_MAX = 65536,
    QCOW2_OFFSET_BITS = 56, /* a host offset is less */
    QCOW2_WAYS = 8,         /* more than requests that change the map at once */
    QCOW2_SETS_MAX = 512,   /* 16 MiB of slices: 128 GiB of a disk with clusters of 64 KiB */
    QCOW2_REF_SLICES = 64,
    QCOW2_PENDING_MAX = 8192,  /* entries changed before a commit comes by itself */
    QCOW2_FREED_MAX = 1024,    /* runs of clusters given up, likewise */
    QCOW2_RUN_BYTES = 2 << 20, /* allocated by one request at most */
    QCOW2_FIRST_BYTES = 112,   /* of the header, that are looked at before its cluster size is known */
};

enum { QCOW2_DIRTY = 1, QCOW2_CORRUPT = 2, QCOW2_DATA_FILE = 4, QCOW2_COMPRESSION = 8, QCOW2_EXTENDED_L2 = 16 };
enum qcow2_compression { QCOW2_ZLIB, QCOW2_ZSTD };

struct qcow2_header {
    uint32_t version, l1_entries, reftable_clusters, snapshots, header_bytes;
    unsigned cluster_bits, refcount_order;
    uint64_t bytes; /* of the disk */
    uint64_t l1_offset, reftable_offset, snapshots_offset;
    uint64_t incompatible, autoclear;
    enum qcow2_compression compression;
    struct qcow2_backing backing;
};

/* Entries of L1 and L2 tables. */
#define QCOW2_COPIED     (UINT64_C(1) << 63) /* its refcount is one: written in place */
#define QCOW2_COMPRESSED (UINT64_C(1) << 62)
#define QCOW2_ZERO       UINT64_C(1)
#define QCOW2_OFFSET     ((UINT64_C(1) << QCOW2_OFFSET_BITS) - 512)
#define QCOW2_BAD        UINT64_MAX /* in memory only: one that means nothing, or points where it must not */

struct map_slot {
    uint64_t key; /* slice + 1; 0: empty */
    uint64_t used;
    unsigned pins; /* not dropped: entries that are not in the file, requests that will change some */
    uint64_t *entry;
};

struct map_set {
    struct lock lock;
    /* under lock */
    uint64_t clock;
    struct map_slot slot[QCOW2_WAYS];
};

enum run_kind { RUN_HOLE, RUN_ZERO, RUN_DATA, RUN_COMPRESSED, RUN_BAD };

/* Clusters next to each other that are alike; DATA: also in the file. */
struct run {
    enum run_kind kind;
    bool copied;
    uint64_t entry; /* the first one's */
    uint64_t clusters;
};

struct pending {
    uint64_t at, value; /* this entry of the file becomes that */
    struct map_set *set;
    struct map_slot *slot; /* pinned; NULL: L1 */
};

struct extent {
    uint64_t cluster, count;
};

struct extents {
    struct extent *item;
    size_t count, room, sealed; /* sealed: so many grow no more, since a commit took their number */
};

struct ref_slice {
    uint64_t at; /* where it is in the file; 0: empty */
    uint64_t used;
    bool dirty;
    uint8_t *data;
};

/* Refcounts and what is allocated; all under qcow2.lock. */
struct refs {
    uint64_t *table; /* offsets of blocks, host order */
    uint64_t entries;
    uint64_t table_at, table_clusters, old_at, old_clusters; /* old: where it was, if the header does not know yet */
    bool *table_dirty;                                       /* a slice's */
    bool changed, moved;
    uint64_t clock, next; /* next: nothing is free below */
    struct ref_slice slice[QCOW2_REF_SLICES];
};

/* A set of cluster numbers: everything that is a table. */
struct meta {
    struct lock lock;
    uint64_t *slot; /* number + 1; 0: empty */
    size_t room, count;
};

struct busy { /* a run of the disk's clusters that is being allocated */
    struct busy *next;
    uint64_t first, end;
};

struct qcow2 {
    struct block_image image;
    /* fixed after new and set_backing */
    struct block_image *file, *backing;
    bool readonly, discard, nosync, backing_chosen;
    struct qcow2_backing backing_said;
    char *path;

    /* fixed while it is taken */
    bool loaded;
    struct qcow2_header header;
    uint64_t cluster_bytes, l2_entries, slice_bytes, slice_entries, l1_used;
    uint64_t file_max; /* clusters that the file can have */
    struct map_set *set;
    unsigned sets;

    _Atomic uint64_t *l1;        /* host order; changed under lock */
    _Atomic uint64_t end;        /* nothing of the file was ever used from here on */
    _Atomic unsigned epoch;      /* requests under way, counted by when they began: the lowest bit says where */
    _Atomic unsigned active[2];  /* each under way keeps what was given up since from being used again */
    _Atomic int trouble;         /* 1: trouble_text is there, and stays */
    _Atomic int trouble_writing; /* somebody writes it */
    char trouble_text[ERR_TEXT_MAX];

    struct meta meta;
    struct lock lock;
    struct cond changed; /* busy, committing */
    /* under lock */
    struct busy *busy;
    struct refs refs;
    struct pending *pending;
    size_t pendings, pending_room, pending_reserved;
    struct extents freed, aged; /* given up; and since when all who begin cannot know it */
    bool committing;
    int failed; /* the host lost what was written: nothing is committed any more */
    uint64_t commits_begun, commit_flushed;
};

/* --- the file ----------------------------------------------------------------------------------------------- */

int file_read(struct qcow2 *q, uint64_t offset, void *data, uint64_t bytes); /* behind its end are zeros */
int file_write(struct qcow2 *q, uint64_t offset, const void *data, uint64_t bytes);
int file_write_zeros(struct qcow2 *q, uint64_t offset, uint64_t bytes);
int file_put(struct qcow2 *q, uint64_t at, const void *data, size_t bytes); /* a few bytes in a slice */
int file_sync(struct qcow2 *q);
/* The image is not in order: said once, and it is not written any more. -EIO. */
int qcow2_broken(struct qcow2 *q, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* --- qcow2_header.c ----------------------------------------------------------------------------------------- */

/* `data`: the first cluster, or the first QCOW2_FIRST_BYTES with whole = false, which looks only as far as that goes. */
int qcow2_header_parse(const uint8_t *data, size_t bytes, bool whole, uint64_t file_bytes, struct qcow2_header *out,
                       const char *path, struct err *err);
int qcow2_header_writable(const struct qcow2_header *header, const char *path, struct err *err);

/* --- qcow2_meta.c: where tables are ------------------------------------------------------------------------- */

int meta_add(struct meta *meta, uint64_t cluster); /* -EEXIST, -ENOMEM */
void meta_remove(struct meta *meta, uint64_t cluster);
bool meta_has(struct meta *meta, uint64_t cluster);
void meta_clear(struct meta *meta);

/* --- qcow2_load.c ------------------------------------------------------------------------------------------- */

int qcow2_read_header(struct qcow2 *q, struct qcow2_header *out, struct err *err);
int qcow2_load(struct qcow2 *q, struct err *err);
void qcow2_unload(struct qcow2 *q);

/* --- qcow2_map.c -------------------------------------------------------------------------------------------- */

/* What is at `cluster` of the disk and up to `most` - 1 behind it, as far as one slice goes. */
int map_look(struct qcow2 *q, uint64_t cluster, uint64_t most, struct run *out);
/* All under lock: the table of `cluster` exists and is ours alone; its slice stays in memory until map_unpin() (-EAGAIN: when
 * a commit has made room); an entry is another. Room in `pending` is reserved before. */
int map_own(struct qcow2 *q, uint64_t cluster);
int map_pin(struct qcow2 *q, uint64_t cluster, struct map_set **set, struct map_slot **slot);
void map_unpin(struct map_set *set, struct map_slot *slot);
void map_change(struct qcow2 *q, struct map_set *set, struct map_slot *slot, uint64_t cluster, uint64_t entry);
void map_describe(const struct qcow2 *q, const uint64_t *entry, uint64_t most, struct run *out);
/* The bytes of a compressed cluster in the file. */
void map_compressed(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *bytes);

/* --- qcow2_refs.c: all under lock --------------------------------------------------------------------------- */

/* At most `most` clusters next to each other, at least one. */
int refs_allocate(struct qcow2 *q, uint64_t most, uint64_t *cluster, uint64_t *count);
/* One use less; where it was the last they are free at once, and the file's space is given back. */
int refs_drop(struct qcow2 *q, uint64_t cluster, uint64_t count);
int refs_write(struct qcow2 *q);       /* what changed, but for the table */
int refs_write_table(struct qcow2 *q); /* with the barriers that it needs */
void refs_clear(struct refs *refs);

/* --- qcow2_commit.c ----------------------------------------------------------------------------------------- */

int pending_reserve(struct qcow2 *q, uint64_t entries); /* under lock, like the next ones */
void pending_release(struct qcow2 *q, uint64_t entries);
void pending_add(struct qcow2 *q, uint64_t at, uint64_t value, struct map_set *set, struct map_slot *slot);
void pending_drop_cluster(struct qcow2 *q, uint64_t entry); /* what the entry named is given up */
bool pending_is_much(const struct qcow2 *q);
/* What has been changed until now is in the file; with `flush` it is durable. Without lock. */
int qcow2_commit(struct qcow2 *q, bool flush);
/* Nothing under way: also what waits to be free. */
int qcow2_settle(struct qcow2 *q);
unsigned qcow2_enter(struct qcow2 *q);
void qcow2_leave(struct qcow2 *q, unsigned epoch);

/* --- qcow2_inflate.c ---------------------------------------------------------------------------------------- */

/* Exactly out_bytes, or -EIO: they are not there. */
int qcow2_inflate(enum qcow2_compression how, const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes);
