#include "machine/drives.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "block/format.h"
#include "block/raw.h"

static int open_one(struct block **out, const struct machine_drive *drive, struct err *err)
{
    struct block_options options = {
        .cache = drive->cache,
        .readonly = drive->readonly,
        .discard = drive->discard,
    };
    struct format_source source = {
        .file = drive->file,
        .format = drive->format,
        .backing = drive->backing_said ? drive->backing : NULL,
        .backing_format = drive->backing_format,
    };
    struct block_image *image = NULL;
    snprintf(options.name, sizeof(options.name), "%s", drive->id);
    int result = drive->create ? raw_create(drive->file, drive->size_bytes, err) : 0;
    if (result == 0)
        result = format_open(&source, &options, &image, err);
    return result < 0 ? err_prefix(err, "disk '%s'", drive->id) : block_new(image, &options, out, err);
}

int drives_open(struct drives *drives, const struct machine_config *config, struct err *err)
{
    for (unsigned i = 0; i < config->drives; i++) {
        int result = open_one(&drives->block[i], &config->drive[i], err);
        if (result < 0)
            return result;
        drives->count++;
    }
    return config->incoming ? 0 : drives_take(drives, err);
}

void drives_close(struct drives *drives)
{
    while (drives->count > 0)
        block_free(drives->block[--drives->count]);
}

struct block *drives_find(struct drives *drives, const struct machine_config *config, const char *id)
{
    for (unsigned i = 0; i < drives->count; i++) {
        if (strcmp(config->drive[i].id, id) == 0)
            return drives->block[i];
    }
    return NULL;
}

int drives_take(struct drives *drives, struct err *err)
{
    for (unsigned i = 0; i < drives->count; i++) {
        int result = block_take(drives->block[i], err);
        if (result < 0) {
            drives_let_go(drives);
            return result;
        }
    }
    return 0;
}

void drives_let_go(struct drives *drives)
{
    for (unsigned i = 0; i < drives->count; i++)
        block_let_go(drives->block[i]);
}

void drives_hurry(struct drives *drives)
{
    for (unsigned i = 0; i < drives->count; i++)
        block_hold_writes(drives->block[i], 0);
}

int drives_flush(struct drives *drives, struct err *err)
{
    int result = 0;
    for (unsigned i = 0; i < drives->count && result == 0; i++)
        result = block_flush(drives->block[i], err);
    return result;
}

int drives_taken_elsewhere(struct drives *drives, struct err *err)
{
    for (unsigned i = 0; i < drives->count; i++) {
        if (!block_taken_elsewhere(drives->block[i]))
            return err_set(err, -EINVAL,
                           "disk '%s' is not the source's: nobody has its image open (both sides need the same one, on "
                           "storage that carries locks)",
                           block_options_of(drives->block[i])->name);
    }
    return 0;
}
