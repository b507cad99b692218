/* `verify=full` in the source's story: both sides stand still and hold the same, or the guest stays. Between the destination's
 * PREPARED and our acceptance of it, so that a difference is a retract like any other. On the migrate thread. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "migration/outgoing.h"
#include "migration/threads/verify.h"

struct difference {
    uint64_t unit;
    uint64_t ranges; /* that differ, of VERIFY_RANGE_UNITS */
};

/* --- one question --------------------------------------------------------------------------------------------- */

/* Both sides hash at the same time. PREPARED: the answer is in o->ear; else what came instead. */
static enum handover_event ask(struct outgoing *o, const struct verify_ranges *ranges, struct unit_hash *ours)
{
    struct buf payload = { 0 }, out = { 0 };
    lock(&o->ear.lock);
    o->ear.heard &= ~(unsigned)HEARD_VERIFIED;
    unlock(&o->ear.lock);
    message_verify_encode(ranges, &payload);
    message_put(&out, MESSAGE_VERIFY, &o->key, payload.data, (uint32_t)payload.size);
    int rc = pipeline_send(o->pipeline, out.data, out.size, &o->err);
    buf_free(&payload);
    buf_free(&out);
    if (rc < 0)
        return HANDOVER_LINK_LOST;
    if (verify_hash(ranges, o->sources[ranges->source - 1], o->digest_key, ours, &o->err) < 0)
        return HANDOVER_PREPARED_MISMATCH; /* the line is well: the other side hears that it is off */
    switch (return_path_wait(&o->ear, HEARD_VERIFIED, 0, outgoing_silence_ms(o), &o->err)) {
    case HEARD_VERIFIED: break;
    case HEARD_INTERRUPT: return HANDOVER_CANCEL;
    case HEARD_CLOSED: return HANDOVER_LINK_LOST;
    case HEARD_SILENCE: return HANDOVER_SILENCE;
    default: return HANDOVER_PEER_ERROR;
    }
    const struct verify_ranges *told = &o->ear.verified.ranges;
    if (told->source == ranges->source && told->first == ranges->first && told->step == ranges->step &&
        told->count == ranges->count && o->ear.verified.hashes == ranges->count)
        return HANDOVER_PREPARED;
    err_set(&o->err, -EREMOTEIO, "verify=full: the destination does not say what it holds of %s",
            o->sources[ranges->source - 1]->name);
    return HANDOVER_PREPARED_MISMATCH;
}

/* --- a source --------------------------------------------------------------------------------------------------- */

static enum handover_event compare(struct outgoing *o, const struct verify_ranges *ranges, struct difference *found)
{
    struct unit_hash ours[VERIFY_HASHES_MAX];
    enum handover_event event = ask(o, ranges, ours);
    for (uint32_t i = 0; event == HANDOVER_PREPARED && i < ranges->count; i++) {
        if (unit_hash_equal(ours[i], o->ear.verified.hash[i]))
            continue;
        if (found->ranges++ == 0)
            found->unit = ranges->first + (uint64_t)i * ranges->step;
    }
    return event;
}

static enum handover_event compare_all(struct outgoing *o, const struct source *source, struct difference *found)
{
    enum handover_event event = HANDOVER_PREPARED;
    for (uint64_t first = 0; first < source->units && event == HANDOVER_PREPARED;) {
        uint64_t left = (source->units - first + VERIFY_RANGE_UNITS - 1) / VERIFY_RANGE_UNITS;
        uint32_t count = left < VERIFY_RANGES_MAX ? (uint32_t)left : VERIFY_RANGES_MAX;
        event = compare(o, &(struct verify_ranges){ source->id, first, VERIFY_RANGE_UNITS, count }, found);
        first += (uint64_t)count * VERIFY_RANGE_UNITS;
    }
    return event;
}

static void tell_difference(struct outgoing *o, unsigned index, const struct difference *found)
{
    const struct ram_block *block = index == 0 ? ram_block_by_page(o->ram, found->unit) : NULL; /* RAM is the first */
    char more[64] = "";
    if (found->ranges > 1)
        snprintf(more, sizeof(more), "; so are places in %" PRIu64 " more ranges of 2 MiB", found->ranges - 1);
    if (!block) {
        err_set(&o->err, -EBADMSG, "verify=full: unit %" PRIu64 " of %s is not the same on both sides%s", found->unit,
                o->sources[index]->name, more);
        return;
    }
    uint64_t page = found->unit - block->first_page;
    err_set(&o->err, -EBADMSG,
            "verify=full: page %" PRIu64 " of %s at 0x%" PRIx64 " is not the same on both sides, last marked by %s%s",
            page, block->name, block->gpa + (page << PAGE_SHIFT), dirty_last_marker(o->ram->dirty, found->unit).text,
            more);
}

static enum handover_event verify_source(struct outgoing *o, unsigned index)
{
    const struct source *source = o->sources[index];
    struct difference found = { 0 };
    enum handover_event event = compare_all(o, source, &found);
    if (event != HANDOVER_PREPARED || !found.ranges)
        return event;
    struct difference unit = { .unit = found.unit };
    event = compare(o, &(struct verify_ranges){ source->id, found.unit, 1, VERIFY_RANGE_UNITS }, &unit);
    if (event != HANDOVER_PREPARED)
        return event;
    found.unit = unit.unit; /* the first of the range, should it be the same by now */
    tell_difference(o, index, &found);
    return HANDOVER_PREPARED_MISMATCH;
}

bool outgoing_verifies(const struct outgoing *o)
{
    return atomic_load_explicit(&o->m->params.verify, memory_order_relaxed) == VERIFY_FULL;
}

enum handover_event outgoing_verify(struct outgoing *o)
{
    if (!outgoing_verifies(o))
        return HANDOVER_PREPARED;
    if (!o->peer_verifies) { /* switched on since the hello, which would have refused */
        err_set(&o->err, -ENOTSUP, "verify=full: the destination is an older godwit that cannot be asked");
        return HANDOVER_PREPARED_MISMATCH;
    }
    return verify_source(o, 0); /* memory: disks that travel would have to be read once more, in the pause */
}
