/* RAM (and one day disks) as sources of units for the street. The only place where the two meet. */
#pragma once
#include "memory/ram.h"
#include "migration/threads/source.h"

/* All blocks of `ram` as one source, named "godwit/ram". Kept by the migration object for the machine's life: it
 * remembers which pages of fresh memory a load has touched, over failed attempts too. */
int source_ram_new(struct ram *ram, uint32_t id, struct source **out, struct err *err);
void source_ram_free(struct source *source); /* NULL allowed */

/* What was loaded is not wanted: give memory that was fresh before the first load back to the host, zero again. */
void source_ram_forget(struct source *source);

uint64_t source_ram_bytes(const struct source *source); /* that exist: the sum over blocks */
