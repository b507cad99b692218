/* Units that changed little: their lines of 64 bytes that differ from what was sent last.
 *
 * The source keeps copies of what it sent (the cache), the destination has its RAM: both hold the same version, because a unit
 * travels at most once a round and a round begins when the one before it was loaded. A delta names its version by its
 * hash, so that one that would be applied to another is refused. On the wire (frame.h, kind FRAME_DELTAS):
 *
 *   payload   the data units that are no deltas, as in a chunk
 *             for each delta, in order: be32 base, be64 mask of changed lines, those lines
 *             be64 mask of the units that are deltas
 *             be32 bytes of the deltas, without these twelve
 *
 * base: the low 32 bits of digest_hash() of the unit that the delta changes.
 *
 * Threads: a unit belongs to one worker at a time, and its entry with it; entries come from a counter and are given up only
 * between rounds. So there is no lock. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "migration/threads/digest.h"
#include "migration/threads/frame.h"
#include "migration/threads/scan.h"
#include "migration/threads/source.h"

enum {
    DELTA_LINE_BYTES = 64,
    DELTA_HEAD_BYTES = 12,
    DELTA_TAIL_BYTES = 12,
    DELTA_LINES_MAX = 16, /* of one unit; with more it is sent whole, and packed */
    DELTA_BYTES_MAX = DELTA_HEAD_BYTES + DELTA_LINES_MAX * DELTA_LINE_BYTES,
    DELTA_OUT_MAX = CHUNK_UNITS * DELTA_BYTES_MAX + DELTA_TAIL_BYTES,
};
_Static_assert((int)SOURCE_UNIT_BYTES_MAX / (int)DELTA_LINE_BYTES <= 64, "a unit's lines have a bit each");
_Static_assert((int)DELTA_OUT_MAX + (int)FRAME_RAW_MAX - (int)CHUNK_UNITS * (int)SOURCE_UNIT_BYTES_MAX <=
                   (int)FRAME_PAYLOAD_MAX,
               "deltas of all units fit into a payload");

/* --- one delta; pure ------------------------------------------------------------------------------------ */

/* What turns `was` into `now` (unit_bytes each, a multiple of 64), into out (DELTA_BYTES_MAX). The bytes, 0 when more than
 * DELTA_LINES_MAX lines differ. */
size_t delta_encode(const uint8_t *was, const uint8_t *now, uint32_t unit_bytes, uint32_t base, uint8_t *out);

/* --- the source's cache --------------------------------------------------------------------------------- */

struct delta_stats {
    uint64_t units, bytes; /* sent as deltas, and what they took */
    uint64_t misses;       /* units sent whole that had been sent before: changed too much, or no copy was kept */
    uint64_t held_bytes;   /* host memory: copies and tables */
    bool off;              /* it does not pay now */
};

struct delta_cache;

/* Copies of at most `bytes`, touched as they are needed. Empty: a cache belongs to one attempt to migrate. */
int delta_cache_new(struct source *const *sources, unsigned count, uint64_t bytes, struct delta_cache **out,
                    struct err *err);
void delta_cache_free(struct delta_cache *cache); /* NULL allowed */
/* No worker may be in a round. Copies that were not needed in the last rounds make room; when deltas did not pay in the
 * last one all of them do, and for some rounds there are none. The last round waits for nothing of that. The workers see it with
 * the lock that begins their round. */
void delta_round(struct delta_cache *cache, uint32_t round, bool last);

/* Whether a chunk leaves copies of what was not sent before. A copy's memory, touched for the first time, costs several times what
 * sending a unit over a fast link does: so where chunks wait for a slow link, where deltas were of use in the round before, and
 * else of a sample, which tells whether they would be. The last round, while the guest stands, keeps none. */
struct delta_keeper { /* owner: one worker */
    uint32_t round;
    unsigned sampled;  /* chunks of this round */
    int64_t waited_ns; /* for one chunk, mean of the last ones */
};

enum { DELTA_SAMPLE_CHUNKS = 32, DELTA_SLOW_NS = 2000000 };

/* waited_ns: what this worker waited for the chunk. The first round takes no sample: nothing of it is compared yet. */
bool delta_keeps(struct delta_keeper *keeper, const struct delta_cache *cache, int64_t waited_ns);

struct delta_made {
    uint64_t units;      /* that became deltas, mask */
    unsigned rest;       /* units that are still whole, at the beginning of raw */
    size_t bytes;        /* written to out: the payload's end; 0 when units is 0 */
    uint32_t unit_bytes; /* of the source */
};

/* One word as scan_step() left it: what changed little becomes deltas in out (DELTA_OUT_MAX bytes), the others close up in
 * raw. Copies are kept of all that was sent before, and of the others when `keep` is set. digest: as it is behind
 * scan_step(). Any worker. */
void delta_step(struct delta_cache *cache, unsigned source, uint64_t word, const struct digest *digest,
                const struct scanned *scanned, bool keep, uint8_t *raw, uint8_t *out, struct delta_made *made);
void delta_stats(const struct delta_cache *cache, struct delta_stats *out); /* any thread */

/* --- the destination ------------------------------------------------------------------------------------ */

/* A payload's halves, each of exactly its size. */
struct delta_split {
    struct frame rest; /* a plain chunk: frame_check() let it pass */
    uint64_t units;    /* mask */
    const uint8_t *at, *begin, *end;
};

/* Take a FRAME_DELTAS apart. -EPROTO with a sentence. */
int delta_open(struct delta_split *split, const struct source *source, const struct frame *frame,
               const uint8_t *payload, struct err *err);
/* The next delta, of `unit`, applied to now (unit_bytes; what is there), whose digest_hash() is hash, DIGEST_ZERO when it was
 * never sent. -EPROTO with a sentence that names the byte of the payload. */
int delta_apply(struct delta_split *split, const struct source *source, uint64_t unit, struct unit_hash hash,
                uint8_t *now, struct err *err);
