#include "migration/outgoing_disks.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "migration/outgoing.h"

#define TICK_NS (100 * NS_PER_MS)

static struct source *disk_source(struct outgoing *o, unsigned disk)
{
    return o->sources[1 + disk];
}

static uint64_t left_units(struct outgoing *o)
{
    uint64_t units = 0;
    for (unsigned i = 0; i < o->disks.count; i++)
        units += disk_source(o, i)->ops->dirty(disk_source(o, i));
    return units;
}

/* --- beginning ---------------------------------------------------------------------------------------------- */

int outgoing_disks_begin(struct outgoing *o)
{
    struct outgoing_disks *disks = &o->disks;
    disks->copy = o->plan ? DISK_SHARED : o->m->disk_copy;
    /* A guest that came back while it was paused may not have its images yet. */
    int taken = disks->copy == DISK_SHARED ? 0 : machine_take_disks(o->machine, &o->err);
    if (taken < 0)
        return taken;
    for (unsigned slot = 0; slot < MACHINE_SLOTS && disks->copy != DISK_SHARED; slot++) {
        struct block *block = machine_disk(o->machine, slot);
        if (!block || block_options_of(block)->readonly)
            continue; /* nobody could store it either */
        struct source **source = &o->sources[o->source_count];
        int rc = source_disk_new(block, o->source_count + 1, disks->copy, source, &o->err);
        if (rc < 0)
            return rc;
        o->source_count++;
        disks->held_before_ns[disks->count] = block_held_ns(block);
        disks->slot[disks->count++] = slot;
        rc = source_disk_track(*source, &o->err);
        if (rc < 0)
            return rc;
    }
    lock(&o->m->lock);
    o->m->ram_waits = disks->count > 0;
    o->m->copying = o;
    unlock(&o->m->lock);
    return 0;
}

void outgoing_disks_put_start(struct outgoing *o, struct section_writer *writer)
{
    for (unsigned i = 0; i < o->disks.count; i++) {
        struct source *source = disk_source(o, i);
        struct section_disk disk = {
            .slot = o->disks.slot[i],
            .bytes = source_disk_bytes(source),
            .copy = (uint8_t)o->disks.copy,
        };
        snprintf(disk.name, sizeof(disk.name), "%s", block_options_of(source_disk_block(source))->name);
        sections_put_disk(writer, source->id, &disk);
    }
}

/* --- bulk --------------------------------------------------------------------------------------------------- */

/* Pages that memory's bulk will really send: the others were never touched. */
static uint64_t ram_units(struct outgoing *o)
{
    struct source *ram = o->sources[0];
    uint64_t units = 0;
    for (uint64_t word = 0; word < ram->words; word++)
        units += (uint64_t)__builtin_popcountll(ram->ops->exists(ram, word) & ~ram->ops->blank(ram, word));
    return units;
}

/* One round of disks alone, cut when memory is due. That is also when a round left hardly less than there was before it: from
 * there on the rounds are of both, and what ends them is the policy. */
static int bulk_round(struct outgoing *o, uint64_t ram, uint64_t *left, bool *due)
{
    struct pipeline_stats before, after;
    struct round_result result = { 0 };
    int64_t start_ns = clock_now_ns();
    pipeline_stats(o->pipeline, &before);
    int rc = pipeline_round_begin(o->pipeline, false, &o->err);
    while (rc == 0 && !pipeline_round_wait(o->pipeline, clock_now_ns() + TICK_NS))
        if (disks_ram_is_due(left_units(o), 1, ram))
            pipeline_round_cut(o->pipeline);
    if (rc == 0)
        rc = pipeline_round_end(o->pipeline, &result, &o->err);
    if (rc == 0)
        rc = outgoing_wait_loaded(o, before.rounds + 1);
    if (rc < 0)
        return rc;
    pipeline_round_loaded(o->pipeline, &result, clock_now_ns() - start_ns);
    pipeline_stats(o->pipeline, &after);
    struct converge_sample sample = {
        .units_data = result.units_data,
        .units_zero = result.units_zero,
        .wire_bytes = after.wire_bytes - before.wire_bytes,
        .elapsed_ns = clock_now_ns() - start_ns,
        .dirty_units = left_units(o),
    };
    struct converge_verdict none = { .action = CONVERGE_AGAIN };
    outgoing_disks_weigh(o, &sample);
    *due = disks_ram_is_due(sample.dirty_units, 1, ram) || left_units(o) > *left / 10 * 9;
    *left = left_units(o);
    if (!*due)
        outgoing_disks_hold(o, &sample);
    sample.dirty_units += ram;
    outgoing_report_round(o, &sample, &none);
    migration_round_done(o->m, after.rounds);
    return outgoing_cancelled(o);
}

int outgoing_disks_bulk(struct outgoing *o)
{
    uint64_t ram = o->disks.count && !o->disks.bulk_done ? ram_units(o) : 0;
    uint64_t left = left_units(o);
    bool due = o->disks.bulk_done || disks_ram_is_due(left, 1, ram);
    int rc = 0;
    while (rc == 0 && !due)
        rc = bulk_round(o, ram, &left, &due);
    if (rc < 0 || o->tracking)
        return rc;
    o->disks.bulk_done = true;
    dirty_start(o->ram->dirty, DIRTY_MIGRATION, true);
    o->tracking = true;
    o->all_units = outgoing_dirty_units(o);
    lock(&o->m->lock);
    o->m->ram_waits = false;
    unlock(&o->m->lock);
    return 0;
}

/* --- rounds of both ------------------------------------------------------------------------------------------- */

struct converge_sample outgoing_disks_weigh(struct outgoing *o, const struct converge_sample *sample)
{
    struct outgoing_disks *disks = &o->disks;
    struct converge_sample weighed = *sample;
    double data = 0, dirty = 0, all = 0, raw_dirty = 0;
    for (unsigned i = 0; i <= disks->count && disks->count; i++) {
        struct pipeline_source_stats now, *seen = &disks->seen[i];
        pipeline_source_stats(o->pipeline, i, &now);
        uint64_t units = now.units_data - seen->units_data;
        disks_cost_add(&disks->cost[i], units, now.wire_bytes - seen->wire_bytes, now.work_ns - seen->work_ns);
        *seen = now;
        double weight = i ? disks_weight(&disks->cost[i], &disks->cost[0]) : 1;
        double left = (double)o->sources[i]->ops->dirty(o->sources[i]);
        data += weight * (double)units;
        dirty += weight * left;
        all += (double)units;
        raw_dirty += left;
    }
    /* In shares, since the round's own counts, and what was left when it ended, are the truth. */
    if (all >= 1)
        weighed.units_data = (uint64_t)((double)sample->units_data * data / all);
    if (raw_dirty >= 1)
        weighed.dirty_units = (uint64_t)((double)sample->dirty_units * dirty / raw_dirty);
    return weighed;
}

static int64_t sync_ns(struct outgoing *o)
{
    if (!o->ear.started || !o->disks.count)
        return 0;
    lock(&o->ear.lock);
    int64_t ns = o->ear.sync_ns;
    unlock(&o->ear.lock);
    return ns;
}

struct converge_costs outgoing_disks_costs(struct outgoing *o)
{
    struct converge_costs costs = o->m->costs;
    costs.device_ns += o->disks.flush_ns + sync_ns(o);
    return costs;
}

/* Where images are copied none of ours is flushed in the pause. */
int outgoing_disks_postpone(struct outgoing *o, const struct converge_verdict *verdict)
{
    struct converge_policy policy = outgoing_policy(o);
    if (o->disks.count || machine_config_of(o->machine)->drives == 0 || policy.guest_paused)
        return 0;
    int64_t believed_ns = o->disks.flush_ns;
    int rc = machine_flush_disks(o->machine, &o->err); /* what has gathered: most of it */
    int64_t start_ns = clock_now_ns();
    if (rc == 0)
        rc = machine_flush_disks(o->machine, &o->err);
    o->disks.flush_ns = clock_now_ns() - start_ns;
    int64_t more_ns = o->disks.flush_ns - believed_ns;
    return rc < 0
               ? rc
               : more_ns > 0 && verdict->upper_ns + more_ns > converge_limit_ns(&o->converge, policy.downtime_limit_ns);
}

void outgoing_disks_hold(struct outgoing *o, const struct converge_sample *sample)
{
    struct outgoing_disks *disks = &o->disks;
    disks->flush_ns /= 2; /* or one slow flush would never be tried again */
    bool holds = atomic_load_explicit(&o->m->params.capability_auto_converge, memory_order_relaxed);
    for (unsigned i = 0; i < disks->count; i++) {
        struct source *source = disk_source(o, i);
        struct pipeline_source_stats now;
        pipeline_source_stats(o->pipeline, 1 + i, &now);
        uint64_t sent = (now.units_data + now.units_zero - disks->seen_units[i]) * source->unit_bytes;
        uint64_t left = source->ops->dirty(source) * source->unit_bytes;
        disks->seen_units[i] = now.units_data + now.units_zero;
        uint64_t quota = holds ? disks_quota(sent, sample->elapsed_ns, left, disks->quota[i]) : 0;
        if (quota || disks->quota[i])
            block_hold_writes(source_disk_block(source), quota);
        disks->quota[i] = quota;
    }
}

/* --- the pause, the end --------------------------------------------------------------------------------------- */

int outgoing_disks_flush(struct outgoing *o)
{
    return o->disks.count ? 0 : machine_flush_disks(o->machine, &o->err);
}

int outgoing_disks_quiet(struct outgoing *o)
{
    uint64_t units = left_units(o);
    return units ? err_set(&o->err, -EBADE, "%" PRIu64 " units of the disks were written while the guest stood still",
                           units)
                 : 0;
}

void outgoing_disks_end(struct outgoing *o)
{
    struct migration *m = o->m;
    for (unsigned i = 0; i < o->disks.count; i++)
        if (o->disks.quota[i])
            block_hold_writes(source_disk_block(disk_source(o, i)), 0);
    lock(&m->lock);
    struct migration_info last;
    outgoing_disks_query(m, &last);
    m->copying = NULL;
    m->ram_waits = false;
    unlock(&m->lock);
}

void outgoing_disks_free(struct outgoing *o)
{
    for (unsigned i = 1; i < o->source_count; i++)
        source_disk_free(o->sources[i]);
    o->source_count = 1;
}

void outgoing_disks_query(struct migration *m, struct migration_info *out)
{
    struct outgoing *o = m->copying;
    for (unsigned i = 0; o && m->pipeline && i < o->disks.count; i++) {
        struct source *source = disk_source(o, i);
        struct block *block = source_disk_block(source);
        struct migration_disk *disk = &m->disk[i];
        struct pipeline_source_stats stats;
        pipeline_source_stats(m->pipeline, 1 + i, &stats);
        snprintf(disk->name, sizeof(disk->name), "%s", block_options_of(block)->name);
        disk->total = source_disk_bytes(source);
        disk->remaining = source->ops->dirty(source) * source->unit_bytes;
        disk->copied = (stats.units_data + stats.units_zero) * source->unit_bytes;
        disk->wire_bytes = stats.wire_bytes;
        disk->held_ns = (int64_t)(block_held_ns(block) - o->disks.held_before_ns[i]);
        m->disks = i + 1;
    }
    out->disks = m->disks;
    memcpy(out->disk, m->disk, sizeof(out->disk));
}
