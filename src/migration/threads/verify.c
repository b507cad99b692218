#include "migration/threads/verify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>

#include "migration/threads/scan.h"

int verify_check(const struct verify_ranges *ranges, const struct source *source, struct err *err)
{
    bool by_range = ranges->step == VERIFY_RANGE_UNITS && ranges->count <= VERIFY_RANGES_MAX;
    bool by_unit = ranges->step == 1 && ranges->count <= VERIFY_HASHES_MAX;

    if (ranges->count < 1 || !(by_range || by_unit) || ranges->first >= source->units ||
        ranges->first % VERIFY_RANGE_UNITS) {
        return err_set(err, -EPROTO,
                       "%" PRIu32 " ranges of %" PRIu32 " units from %" PRIu64 " on cannot be asked of %s",
                       ranges->count, ranges->step, ranges->first, source->name);
    }
    return 0;
}

static int hash_unit(struct source *source, const struct digest_key *key, uint64_t unit, struct unit_hash *out,
                     struct err *err)
{
    _Alignas(64) uint8_t scratch[SOURCE_UNIT_BYTES_MAX];
    const void *now = source->ops->peek(source, unit, scratch);

    if (!now) {
        return err_set(err, -EIO, "cannot read unit %" PRIu64 " of %s", unit, source->name);
    }
    *out = unit_is_zero(now, source->unit_bytes) ? DIGEST_ZERO : digest_hash(key, now, source->unit_bytes);
    return 0;
}

int verify_hash(const struct verify_ranges *ranges, struct source *source, const struct digest_key *key,
                struct unit_hash *out, struct err *err)
{
    uint64_t end = ranges->first + (uint64_t)ranges->step * ranges->count, look = 0;

    for (uint32_t i = 0; i < ranges->count; i++) {
        out[i] = DIGEST_ZERO;
    }
    end = end < source->units ? end : source->units;
    for (uint64_t unit = ranges->first; unit < end; unit++) {
        if (unit % CHUNK_UNITS == 0) { /* the first is one: ranges begin with a word */
            uint64_t word = unit / CHUNK_UNITS;
            look = source->ops->exists(source, word);
            look &= look && source->ops->blank ? ~source->ops->blank(source, word) : UINT64_MAX;
        }
        struct unit_hash hash;
        if (!(look >> unit % CHUNK_UNITS & 1)) {
            continue;
        }
        int ret = hash_unit(source, key, unit, &hash, err);
        if (ret < 0) {
            return ret;
        }
        struct unit_hash *range = &out[(unit - ranges->first) / ranges->step];
        struct digest_change sum = { { range->word[0], range->word[1] } };
        digest_add(key, &sum, unit, hash);
        *range = (struct unit_hash){ { sum.sum[0], sum.sum[1] } };
    }
    return 0;
}
