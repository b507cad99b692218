/* The beginning of the street: which units, and what is in them. Pure but for the source that it is given.
 *
 * Clear, wait for every vCPU, then copy. A slice is a handful of words that one worker took (cleared) together, with
 * one revoke for all of them. The next slice is claimed, and its revoke is in flight, before this one is copied; and
 * slices grow until waiting for the revoke is a few per cent of the work. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "migration/threads/digest.h"
#include "migration/threads/source.h"

enum { SCAN_SLICE_START = 4, SCAN_SLICE_MAX = 64, SCAN_WAIT_HIGH_PERCENT = 4, SCAN_WAIT_LOW_PERCENT = 1 };
enum { SCAN_SOURCES_MAX = 16 };

/* Where the round is: every word of every source is passed once, in order; sources take turns. Shared by the workers. */
struct scan_cursor {
    /* fixed after new */
    struct source *const *sources;
    unsigned source_count;
    /* atomic: the next word, by source; whose turn it is */
    _Atomic uint64_t at[SCAN_SOURCES_MAX];
    _Atomic unsigned turn;
};

struct scan_slice {
    struct source *source;
    unsigned index; /* of the source */
    uint64_t token; /* of the revoke that was begun after the take */
    unsigned count;
    uint64_t words[SCAN_SLICE_MAX], units[SCAN_SLICE_MAX];
};

void scan_begin(struct scan_cursor *cursor); /* a new round; no worker may be in it */
/* Take up to max words and begin their revoke. False: the round has passed the last word. Any worker. */
bool scan_claim(struct scan_cursor *cursor, unsigned max, struct scan_slice *out);
/* The next slice's size, after this one waited wait_ns within total_ns. */
unsigned scan_slice_words(unsigned words, int64_t wait_ns, int64_t total_ns);

struct scanned {
    uint64_t data, zero; /* masks */
    uint64_t cleared;    /* of zero: those that were last sent as something else */
    unsigned units;      /* copied to raw, one behind the other */
    struct digest_change change;
};

/* One word whose revoke was waited for: copy its units, tell zeros from data, note both in the digest. raw takes 64
 * units, aligned to 64 bytes. 0, or -errno when the source could not be read. */
int scan_step(struct source *source, struct digest *digest, uint64_t word, uint64_t units, uint8_t *raw,
              struct scanned *out, struct err *err);
bool unit_is_zero(const void *unit, uint32_t bytes); /* aligned to 64; a multiple of 64 bytes */
