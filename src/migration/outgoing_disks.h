/* The disks of a migration that copies them (`migrate -b`), in the source's story. On the migrate thread, but for query.
 *
 * A disk is a source of the street like memory, whose writes are marked behind the data (block/dirty_map.h). Disks go first,
 * and memory joins them when they take no longer than it will: from then on every round is of both, and the last one too. */
#pragma once
#include "machine/machine.h"
#include "migration/disks.h"
#include "migration/source_disk.h"
#include "migration/threads/pipeline.h"

struct outgoing;
struct migration;
struct migration_info;
struct section_writer;
struct converge_sample;
struct converge_costs;
struct converge_verdict;

struct outgoing_disks {
    enum disk_copy copy;
    unsigned count; /* sources 1 .. count of the street */
    uint32_t slot[MACHINE_DRIVES_MAX];
    uint64_t quota[MACHINE_DRIVES_MAX], held_before_ns[MACHINE_DRIVES_MAX];
    uint64_t seen_units[MACHINE_DRIVES_MAX]; /* at the last look at what outruns the link */
    bool bulk_done;
    struct pipeline_source_stats seen[1 + MACHINE_DRIVES_MAX]; /* at the last weighing; RAM first */
    struct disks_cost cost[1 + MACHINE_DRIVES_MAX];
    int64_t flush_ns; /* of a flush that follows another at once: what the pause's will take */
};

/* Before the street: sources for the disks to be copied, whose writes are marked from now on. 0 or -errno in o->err. */
int outgoing_disks_begin(struct outgoing *o);
void outgoing_disks_put_start(struct outgoing *o, struct section_writer *writer);
/* The disks' bulk, until memory is due. 0 or -errno; at once where there is none. */
int outgoing_disks_bulk(struct outgoing *o);
/* A round's units, and what is left, in units of RAM, each source by its own costs. */
struct converge_sample outgoing_disks_weigh(struct outgoing *o, const struct converge_sample *sample);
/* What a pause costs here, with the disks' flushes, at either end. */
struct converge_costs outgoing_disks_costs(struct outgoing *o);
/* The verdict is to stop. Would the flush in the pause make it too long? 1: go on with rounds, 0: stop, or -errno. */
int outgoing_disks_postpone(struct outgoing *o, const struct converge_verdict *verdict);
/* A round has ended, more are to come: hold back the writes of a disk that outruns the link, with auto-converge. */
void outgoing_disks_hold(struct outgoing *o, const struct converge_sample *sample);
/* In the pause, devices drained: what is not in the stream must be on the image for whoever opens it next. 0 or -errno. */
int outgoing_disks_flush(struct outgoing *o);
int outgoing_disks_quiet(struct outgoing *o); /* behind the last round: nothing was written since. 0 or -errno */
/* What people see the end of: nothing is held, nothing asked. free: after the street. */
void outgoing_disks_end(struct outgoing *o);
void outgoing_disks_free(struct outgoing *o);

/* Any thread, with m->lock held. */
void outgoing_disks_query(struct migration *m, struct migration_info *out);
