/* What a source holds now, hashed by ranges: two sides that stand still compare all they have, roughly first, and then by
 * units where they differ. Units known to be untouched count as zeros without a look. */
#pragma once
#include <stdint.h>

#include "base/err.h"
#include "migration/threads/digest.h"
#include "migration/threads/source.h"

enum {
    VERIFY_RANGE_UNITS = 512, /* 2 MiB of pages */
    VERIFY_HASHES_MAX = 1024, /* of one question: also how narrow a range becomes */
    VERIFY_RANGES_MAX = 256,  /* a question's units are bounded: who is asked says something soon */
};

/* `count` ranges of `step` units each, from unit `first` on; what lies behind the source's end is nothing. */
struct verify_ranges {
    uint32_t source;
    uint64_t first;
    uint32_t step, count;
};

/* Can that be asked of a source? -EPROTO with a sentence. */
int verify_check(const struct verify_ranges *ranges, const struct source *source, struct err *err);
/* One hash a range into out; DIGEST_ZERO of a range that is all zeros or nothing. Checked ranges. Nobody writes meanwhile.
 * -EIO when a unit cannot be read. */
int verify_hash(const struct verify_ranges *ranges, struct source *source, const struct digest_key *key,
                struct unit_hash *out, struct err *err);
