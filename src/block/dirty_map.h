/* Which 4 KiB of a disk were written: a bit for each, while somebody copies the disk (2 MiB for 64 GiB).
 *
 * Marked behind the write, before it is told to whoever asked for it. So of a reader that clears a bit and reads then:
 *   - a write that was done before the bit was cleared is in what is read;
 *   - one that is done later marks later, and the unit is read again, whole: however torn the first reading was;
 *   - one that was told to nobody when all writers stand still, there is none.
 * No fence between the data and the mark is ours to make: the data goes through the kernel, or through a lock of the driver.
 *
 * All calls: any thread. */
#pragma once
#include <stdint.h>

#include "base/err.h"

enum { DIRTY_MAP_UNIT_BYTES = 4096, DIRTY_MAP_WORD_UNITS = 64 };
enum { DIRTY_MAP_WORD_BYTES = DIRTY_MAP_UNIT_BYTES * DIRTY_MAP_WORD_UNITS };

struct dirty_map;

/* Of a disk of so many bytes, all clean. -ENOMEM with a sentence. */
int dirty_map_new(uint64_t bytes, struct dirty_map **out, struct err *err);
void dirty_map_free(struct dirty_map *map); /* NULL allowed; nobody may be marking */

uint64_t dirty_map_words(const struct dirty_map *map);
/* Every unit that these bytes touch; what lies behind the disk's end is nothing. */
void dirty_map_mark(struct dirty_map *map, uint64_t offset, uint64_t bytes);
uint64_t dirty_map_next(struct dirty_map *map,
                        uint64_t word); /* the first >= word that may have a bit, or their number */
uint64_t dirty_map_take(struct dirty_map *map, uint64_t word); /* clear them; which they were */
uint64_t dirty_map_count(struct dirty_map *map); /* units that are marked; right when nobody marks or takes */
