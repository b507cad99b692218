#include "migration/threads/scan.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/failpoint.h"

void scan_begin(struct scan_cursor *cursor)
{
    assert(cursor->source_count <= SCAN_SOURCES_MAX);
    for (unsigned i = 0; i < cursor->source_count; i++) {
        atomic_store_explicit(&cursor->at[i], 0, memory_order_relaxed);
    }
    atomic_store_explicit(&cursor->turn, 0, memory_order_relaxed);
}

/* Walk a source's dirty words without taking them; the summary makes clean stretches cheap. */
static uint64_t list_words(struct source *source, uint64_t word, unsigned max, struct scan_slice *out)
{
    out->count = 0;
    while (out->count < max) {
        word = source->ops->next(source, word);
        if (word >= source->words) {
            return source->words;
        }
        out->words[out->count++] = word++;
    }
    return word;
}

static void take_words(struct source *source, struct scan_slice *slice)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < slice->count; i++) {
        uint64_t units = source->ops->take(source, slice->words[i]);
        if (units) {
            slice->words[kept] = slice->words[i];
            slice->units[kept++] = units;
        }
    }
    slice->count = kept;
}

static bool claim_of(struct scan_cursor *cursor, unsigned index, unsigned max, struct scan_slice *out)
{
    struct source *source = cursor->sources[index];
    uint64_t at = atomic_load_explicit(&cursor->at[index], memory_order_relaxed);

    while (at < source->words) {
        uint64_t end = list_words(source, at, max, out);

        /* Relaxed: the cursor hands out numbers; what lies behind them is ordered by take and revoke. */
        if (!atomic_compare_exchange_weak_explicit(&cursor->at[index], &at, end, memory_order_relaxed,
                                                   memory_order_relaxed)) {
            continue; /* another worker was faster; at is where it left off */
        }
        at = end;
        take_words(source, out);
        if (out->count) {
            out->source = source;
            out->index = index;
            out->token = source->ops->revoke_begin(source);
            failpoint(FAILPOINT_SOURCE_HARVEST);
            return true;
        }
    }
    return false;
}

/* Sources take turns, so that what one costs most (a disk's reading, the link) is paid while another is at work. */
bool scan_claim(struct scan_cursor *cursor, unsigned max, struct scan_slice *out)
{
    assert(max > 0 && max <= SCAN_SLICE_MAX);
    unsigned turn = cursor->source_count > 1 ? atomic_fetch_add_explicit(&cursor->turn, 1, memory_order_relaxed) : 0;

    for (unsigned i = 0; i < cursor->source_count; i++) {
        if (claim_of(cursor, (turn + i) % cursor->source_count, max, out)) {
            return true;
        }
    }
    out->count = 0;
    return false;
}

unsigned scan_slice_words(unsigned words, int64_t wait_ns, int64_t total_ns)
{
    int64_t high = total_ns / 100 * SCAN_WAIT_HIGH_PERCENT, low = total_ns / 100 * SCAN_WAIT_LOW_PERCENT;

    if (wait_ns > high) {
        return words < SCAN_SLICE_MAX / 2 ? words * 2 : SCAN_SLICE_MAX;
    }
    if (wait_ns < low && words > 1) {
        return words - 1; /* late clearing means fewer re-sends: try again how small it may be, but slowly */
    }
    return words;
}

bool unit_is_zero(const void *unit, uint32_t bytes)
{
    const uint64_t *at = __builtin_assume_aligned(unit, 64);
    const uint64_t *end = at + bytes / 8;

    /* Early out: a unit with data mostly shows it within its first line. */
    for (; at < end; at += 8) {
        if (at[0] | at[1] | at[2] | at[3] | at[4] | at[5] | at[6] | at[7]) {
            return false;
        }
    }
    return true;
}

/* Asking costs about as much as looking at so many units. */
enum { BLANK_UNITS_MIN = 8 };

static void note_zero(struct digest *digest, struct scanned *out, uint64_t word, unsigned bit)
{
    uint64_t unit = word * CHUNK_UNITS + bit;

    out->zero |= UINT64_C(1) << bit;
    if (!unit_hash_is_zero(digest_last(digest, unit))) {
        out->cleared |= UINT64_C(1) << bit;
        digest_replace(digest, &out->change, unit, DIGEST_ZERO);
    }
}

static void note_copied(struct digest *digest, struct scanned *out, uint64_t word, unsigned bit, const uint8_t *copy,
                        uint32_t unit_bytes)
{
    if (unit_is_zero(copy, unit_bytes)) {
        note_zero(digest, out, word, bit); /* the next copy overwrites it */
    } else {
        out->data |= UINT64_C(1) << bit;
        out->units++;
        digest_replace(digest, &out->change, word * CHUNK_UNITS + bit, digest_hash(digest->key, copy, unit_bytes));
    }
}

/* All of them by one call; what is zero leaves a gap, which the next ones close. */
static int scan_fetched(struct source *source, struct digest *digest, uint64_t word, uint64_t units, uint8_t *raw,
                        struct scanned *out, struct err *err)
{
    const uint8_t *from = raw;
    int ret = units ? source->ops->fetch(source, word, units, raw) : 0;

    if (ret < 0) {
        return err_set_errno(err, ret, "cannot read %s from unit %" PRIu64 " on", source->name, word * CHUNK_UNITS);
    }
    for (uint64_t left = units; left; left &= left - 1, from += source->unit_bytes) {
        uint8_t *copy = raw + (size_t)out->units * source->unit_bytes;
        if (copy != from) {
            memcpy(copy, from, source->unit_bytes);
        }
        note_copied(digest, out, word, (unsigned)__builtin_ctzll(left), copy, source->unit_bytes);
    }
    return 0;
}

int scan_step(struct source *source, struct digest *digest, uint64_t word, uint64_t units, uint8_t *raw,
              struct scanned *out, struct err *err)
{
    bool ask = source->ops->blank && __builtin_popcountll(units) >= BLANK_UNITS_MIN;
    uint64_t blank = ask ? source->ops->blank(source, word) & units : 0;

    *out = (struct scanned){ 0 };
    for (uint64_t left = blank; left; left &= left - 1) {
        note_zero(digest, out, word, (unsigned)__builtin_ctzll(left));
    }
    if (source->ops->fetch) {
        return scan_fetched(source, digest, word, units & ~blank, raw, out, err);
    }
    for (uint64_t left = units & ~blank; left; left &= left - 1) {
        unsigned bit = (unsigned)__builtin_ctzll(left);
        uint64_t unit = word * CHUNK_UNITS + bit;
        uint8_t *copy = raw + (size_t)out->units * source->unit_bytes;
        int ret = source->ops->copy(source, unit, copy);

        if (ret < 0) {
            return err_set_errno(err, ret, "cannot read unit %" PRIu64 " of %s", unit, source->name);
        }
        note_copied(digest, out, word, bit, copy, source->unit_bytes);
    }
    return 0;
}
