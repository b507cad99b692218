/* A disk as a source of units for the street: 4 KiB each, the last one filled up with zeros. */
#pragma once
#include "block/block.h"
#include "migration/threads/source.h"

/* What of a disk travels. TOP: what its image itself holds, for a destination that has the same backing file below. */
enum disk_copy { DISK_SHARED, DISK_FULL, DISK_TOP };

/* Of a disk that stays open. `name` is for messages. -ENOMEM with a sentence. */
int source_disk_new(struct block *block, uint32_t id, enum disk_copy copy, struct source **out, struct err *err);
void source_disk_free(struct source *source); /* ends the tracking too; NULL allowed */

/* Sending: from now on writes are marked, and everything that has to travel is: neither holes nor, for TOP, what the backing
 * file says. Once. -errno with a sentence. */
int source_disk_track(struct source *source, struct err *err);

/* Loading: what the stream does not name must read as the source has it. FULL: as zeros, so what is there is given up;
 * TOP: as the backing file, so there must be nothing on top of it. The disk is taken. Calls alive() now and then, and ends with what
 * that returns below 0. */
int source_disk_prepare(struct source *source, int (*alive)(void *opaque), void *opaque, struct err *err);

uint64_t
source_disk_stored(const struct source *source); /* bytes that were loaded so far, repetitions included; any thread */
uint64_t source_disk_bytes(const struct source *source); /* of the disk */
struct block *source_disk_block(const struct source *source);
