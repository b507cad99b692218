/* Which clusters of the file are tables: a hash set with linear probing. */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_impl.h"

enum { META_ROOM_MIN = 64 };

static size_t place_of(const struct meta *meta, uint64_t cluster)
{
    return (size_t)(cluster * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (meta->room - 1);
}

/* Where it is, or would be. */
static size_t find(const struct meta *meta, uint64_t cluster)
{
    size_t at = place_of(meta, cluster);
    while (meta->slot[at] && meta->slot[at] != cluster + 1)
        at = (at + 1) & (meta->room - 1);
    return at;
}

static int grow(struct meta *meta)
{
    struct meta more = { .room = meta->room ? 2 * meta->room : META_ROOM_MIN };
    more.slot = calloc(more.room, sizeof(*more.slot));
    if (!more.slot)
        return -ENOMEM;
    for (size_t i = 0; i < meta->room; i++) {
        if (meta->slot[i])
            more.slot[find(&more, meta->slot[i] - 1)] = meta->slot[i];
    }
    free(meta->slot);
    meta->slot = more.slot;
    meta->room = more.room;
    return 0;
}

int meta_add(struct meta *meta, uint64_t cluster)
{
    lock(&meta->lock);
    int result = 2 * meta->count >= meta->room ? grow(meta) : 0;
    if (result == 0) {
        size_t at = find(meta, cluster);
        if (meta->slot[at]) {
            result = -EEXIST;
        } else {
            meta->slot[at] = cluster + 1;
            meta->count++;
        }
    }
    unlock(&meta->lock);
    return result;
}

void meta_remove(struct meta *meta, uint64_t cluster)
{
    lock(&meta->lock);
    size_t hole = meta->room ? find(meta, cluster) : 0;
    if (meta->room && meta->slot[hole]) {
        size_t mask = meta->room - 1;
        /* Whoever stands behind the hole because its place was taken moves up. */
        for (size_t at = (hole + 1) & mask; meta->slot[at]; at = (at + 1) & mask) {
            size_t wants = place_of(meta, meta->slot[at] - 1);
            if (((at - wants) & mask) >= ((at - hole) & mask)) {
                meta->slot[hole] = meta->slot[at];
                hole = at;
            }
        }
        meta->slot[hole] = 0;
        meta->count--;
    }
    unlock(&meta->lock);
}

bool meta_has(struct meta *meta, uint64_t cluster)
{
    lock(&meta->lock);
    bool has = meta->room && meta->slot[find(meta, cluster)];
    unlock(&meta->lock);
    return has;
}

void meta_clear(struct meta *meta)
{
    free(meta->slot);
    meta->slot = NULL;
    meta->room = meta->count = 0;
}
