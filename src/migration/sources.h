/* RAM (and one day disks) as sources of units for the street. The only place where the two meet. */
#pragma once
#include "memory/ram.h"
#include "migration/threads/source.h"

/* All blocks of `ram` as one source, named "godwit/ram". Kept by the migration object for the machine's life: it
 * remembers which pages of fresh memory a load has touched, over failed attempts too. */
int source_ram_new(struct ram *ram, uint32_t id, struct source **out, struct err *err);
void source_ram_free(struct source *source); /* NULL allowed */

/* Pages that are dirtied again at once may be left to a later round (heat.h). leave_hot: in the round that is about to begin, so
 * many. take_all: from now on none, as at the start; also in a round that runs, for what it has not come by yet. forget_hot: before a migration. */
void source_ram_leave_hot(struct source *source, uint64_t pages);
void source_ram_take_all(struct source *source);
void source_ram_forget_hot(struct source *source);

/* Is all of it zero, as no load and nobody else has touched it? Before a load. */
bool source_ram_is_fresh(const struct source *source);

/* What was loaded is not wanted: give memory that was fresh before the first load back to the host, zero again. */
void source_ram_forget(struct source *source);

uint64_t source_ram_bytes(const struct source *source); /* that exist: the sum over blocks */
