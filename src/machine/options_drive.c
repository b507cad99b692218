/* The options that describe disks: -drive, -blockdev, -device virtio-blk-device. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "machine/options_impl.h"

enum { NOT_SAID = -1 };
#define IMAGE_BYTES_MAX (UINT64_C(1) << 60)

/* --- words ------------------------------------------------------------------------------------------------- */

/* The place of `text` in `words`, or -EINVAL. */
static int word_of(struct parser *p, const struct part *part, const char *const *words, unsigned count)
{
    char list[128] = "";
    for (unsigned i = 0; i < count; i++) {
        if (strcmp(part->value, words[i]) == 0)
            return (int)i;
        strncat(list, i ? ", " : "", sizeof(list) - strlen(list) - 1);
        strncat(list, words[i], sizeof(list) - strlen(list) - 1);
    }
    return option_bad(p, "%s must be one of %s, not '%s'", part->key, list, part->value);
}

static int error_word(struct parser *p, const struct part *part, int *out)
{
    static const char *const words[] = {
        [BLK_REPORT] = "report",
        [BLK_STOP] = "stop",
        [BLK_IGNORE] = "ignore",
        [BLK_ENOSPC] = "enospc",
    };
    int word = word_of(p, part, words, sizeof(words) / sizeof(words[0]));
    if (word == BLK_ENOSPC && part->key[0] == 'r')
        return option_bad(p, "reading needs no room: rerror must be one of report, stop, ignore");
    *out = word;
    return word < 0 ? word : 0;
}

static int discard_word(struct parser *p, const struct part *part, bool *out)
{
    static const char *const words[] = { "ignore", "off", "unmap", "on" };
    int word = word_of(p, part, words, 4);
    *out = word >= 2;
    return word < 0 ? word : 0;
}

static int cache_word(struct parser *p, const struct part *part, enum block_cache *out)
{
    static const char *const words[] = {
        [BLOCK_WRITEBACK] = "writeback",
        [BLOCK_DIRECT] = "none",
        [BLOCK_UNSAFE] = "unsafe",
    };
    int word = word_of(p, part, words, 3);
    if (word >= 0)
        *out = (enum block_cache)word;
    return word < 0 ? word : 0;
}

static int only(struct parser *p, const struct part *part, const char *word)
{
    return word_of(p, part, &word, 1);
}

static int no_property(struct parser *p, const struct part *part)
{
    return option_bad(p, "no property '%s' here", part->key);
}

/* --- -drive and -blockdev ---------------------------------------------------------------------------------- */

static int drive_find(const struct machine_config *config, const char *id)
{
    for (unsigned i = 0; i < config->drives; i++) {
        if (strcmp(config->drive[i].id, id) == 0)
            return (int)i;
    }
    return -1;
}

/* The next one, to be filled in; its number, or -EINVAL. */
static int drive_new(struct parser *p)
{
    struct machine_config *config = &p->out->machine;
    if (config->drives == MACHINE_DRIVES_MAX)
        return option_bad(p, "more than %d disks", MACHINE_DRIVES_MAX);
    config->drive[config->drives] = (struct machine_drive){ 0 };
    p->drive[config->drives] = (struct parser_drive){ .on_read_error = NOT_SAID, .on_write_error = NOT_SAID };
    return (int)config->drives;
}

static int drive_add(struct parser *p)
{
    struct machine_config *config = &p->out->machine;
    struct machine_drive *drive = &config->drive[config->drives];
    if (!drive->file[0])
        return option_bad(p, "the disk '%s' needs a file", drive->id);
    if (drive->create != (drive->size_bytes != 0))
        return option_bad(p, "the disk '%s': create=on and size=BYTES belong together", drive->id);
    if (drive_find(config, drive->id) >= 0)
        return option_bad(p, "the id '%s' is used twice", drive->id);
    config->drives++;
    return 0;
}

/* As qemu-img reads it: bytes, or K, M, G, T of 1024. */
static int image_size(struct parser *p, const struct part *part, uint64_t *out)
{
    static const char units[] = "KMGT";
    size_t digits = strspn(part->value, "0123456789");
    const char *unit = part->value + digits, *known = *unit ? strchr(units, toupper((unsigned char)*unit)) : NULL;
    unsigned shift = known ? 10 * (unsigned)(known - units + 1) : 0;
    uint64_t value = strtoull(part->value, NULL, 10);
    if (digits < 1 || digits > 18 || (*unit && (!known || unit[1])) || value > IMAGE_BYTES_MAX >> shift || value == 0)
        return option_bad(p, "size must be a number of bytes, or of K, M, G or T, not '%s'", part->value);
    *out = value << shift;
    return *out % BLOCK_SECTOR_BYTES ? option_bad(p, "size must be a multiple of %d", BLOCK_SECTOR_BYTES) : 0;
}

static int drive_part(struct parser *p, const struct part *part, struct machine_drive *drive, struct parser_drive *how)
{
    static const char *const interfaces[] = { "none", "virtio" };
    const char *key = part->key;
    int result = 0;
    if (strcmp(key, "file") == 0 || strcmp(key, "file.filename") == 0)
        return option_text(p, drive->file, sizeof(drive->file), part->value);
    if (strcmp(key, "id") == 0)
        return option_text(p, drive->id, sizeof(drive->id), part->value);
    if (strcmp(key, "format") == 0 || strcmp(key, "driver") == 0) {
        drive->format_said = true;
        return only(p, part, "raw");
    }
    if (strcmp(key, "if") == 0) {
        result = word_of(p, part, interfaces, 2);
        how->on_virtio = result == 1;
        return result < 0 ? result : 0;
    }
    if (strcmp(key, "cache") == 0)
        return cache_word(p, part, &drive->cache);
    if (strcmp(key, "discard") == 0)
        return discard_word(p, part, &drive->discard);
    if (strcmp(key, "readonly") == 0 || strcmp(key, "read-only") == 0)
        return option_bool(p, part, &drive->readonly);
    if (strcmp(key, "werror") == 0)
        return error_word(p, part, &how->on_write_error);
    if (strcmp(key, "rerror") == 0)
        return error_word(p, part, &how->on_read_error);
    if (strcmp(key, "media") == 0)
        return only(p, part, "disk");
    if (strcmp(key, "aio") == 0)
        return only(p, part, "threads");
    if (strcmp(key, "create") == 0)
        return option_bool(p, part, &drive->create);
    if (strcmp(key, "size") == 0)
        return image_size(p, part, &drive->size_bytes);
    return no_property(p, part);
}

int option_drive(struct parser *p, const char *argument)
{
    struct part part;
    int result, number = drive_new(p);
    if (number < 0)
        return number;
    struct machine_drive *drive = &p->out->machine.drive[number];
    struct parser_drive *how = &p->drive[number];
    how->on_virtio = true; /* as on QEMU's virt */
    while ((result = part_next(p, &argument, &part)) > 0) {
        result = drive_part(p, &part, drive, how);
        if (result < 0)
            return result;
    }
    if (result < 0)
        return result;
    if (!drive->id[0])
        snprintf(drive->id, sizeof(drive->id), "%s%d", how->on_virtio ? "virtio" : "none", number);
    return drive_add(p);
}

/* cache.direct and cache.no-flush are two halves of what -drive calls cache. */
struct blockdev_cache {
    bool direct, no_flush;
};

static int blockdev_part(struct parser *p, const struct part *part, struct machine_drive *drive,
                         struct blockdev_cache *cache)
{
    static const char *const layers[] = { "raw", "file", "host_device" };
    const char *key = part->key;
    bool file = strncmp(key, "file.", 5) == 0; /* what the image lies in: the same things may be said of it */
    if (file)
        key += 5;
    if (strcmp(key, "filename") == 0)
        return option_text(p, drive->file, sizeof(drive->file), part->value);
    if (strcmp(key, "node-name") == 0)
        return file ? 0 : option_text(p, drive->id, sizeof(drive->id), part->value);
    if (strcmp(key, "driver") == 0) {
        int result = word_of(p, part, layers, 3);
        return result < 0 ? result : 0;
    }
    if (strcmp(key, "read-only") == 0)
        return option_bool(p, part, &drive->readonly);
    if (strcmp(key, "cache.direct") == 0)
        return option_bool(p, part, &cache->direct);
    if (strcmp(key, "cache.no-flush") == 0)
        return option_bool(p, part, &cache->no_flush);
    if (strcmp(key, "discard") == 0)
        return discard_word(p, part, &drive->discard);
    if (strcmp(key, "aio") == 0)
        return only(p, part, "threads");
    return no_property(p, part);
}

int option_blockdev(struct parser *p, const char *argument)
{
    struct blockdev_cache cache = { 0 };
    struct part part;
    int result, number = drive_new(p);
    if (number < 0)
        return number;
    struct machine_drive *drive = &p->out->machine.drive[number];
    drive->format_said = true; /* there is no driver that guesses */
    while ((result = part_next(p, &argument, &part)) > 0) {
        result = blockdev_part(p, &part, drive, &cache);
        if (result < 0)
            return result;
    }
    if (result < 0)
        return result;
    if (!drive->id[0])
        return option_bad(p, "node-name=ID is missing");
    if (cache.direct && cache.no_flush)
        return option_bad(p, "cache.direct=on and cache.no-flush=on together are not there");
    drive->cache = cache.direct ? BLOCK_DIRECT : cache.no_flush ? BLOCK_UNSAFE : BLOCK_WRITEBACK;
    return drive_add(p);
}

/* --- -device virtio-blk-device ----------------------------------------------------------------------------- */

struct disk_words {
    struct machine_slot_disk disk;
    char id[OPTION_ID_MAX];
    int bus, on_read_error, on_write_error;
};

static int disk_part(struct parser *p, const struct part *part, struct disk_words *out)
{
    struct machine_slot_disk *disk = &out->disk;
    uint64_t queues;
    if (strcmp(part->key, "drive") == 0)
        return option_text(p, disk->drive, sizeof(disk->drive), part->value);
    if (strcmp(part->key, "id") == 0)
        return option_text(p, out->id, sizeof(out->id), part->value);
    if (strcmp(part->key, "bus") == 0)
        return option_slot_number(p, part->value, &out->bus);
    if (strcmp(part->key, "serial") == 0)
        return option_text(p, disk->serial, sizeof(disk->serial), part->value);
    if (strcmp(part->key, "num-queues") == 0) {
        int result = option_number(p, part->value, 1, VIRTIO_BLK_QUEUES_MAX, &queues);
        disk->queues = result == 0 ? (uint8_t)queues : 0;
        return result;
    }
    if (strcmp(part->key, "werror") == 0)
        return error_word(p, part, &out->on_write_error);
    if (strcmp(part->key, "rerror") == 0)
        return error_word(p, part, &out->on_read_error);
    return option_bad(p, "virtio-blk-device has no property '%s' here", part->key);
}

static int disk_plug(struct parser *p, const struct disk_words *words)
{
    int number = option_slot_take(p, words->bus);
    if (number < 0)
        return number;
    struct machine_slot *slot = &p->out->machine.slot[number];
    snprintf(slot->model, sizeof(slot->model), "virtio-blk-device");
    snprintf(slot->id, sizeof(slot->id), "%s", words->id);
    slot->disk = words->disk;
    /* Until option_drives_done() has seen the drive: -1 is "what the drive says". */
    slot->disk.on_read_error = (enum virtio_blk_error)words->on_read_error;
    slot->disk.on_write_error = (enum virtio_blk_error)words->on_write_error;
    return 0;
}

int option_disk_device(struct parser *p, const char *argument)
{
    struct disk_words words = { .disk.queues = 1, .bus = -1, .on_read_error = NOT_SAID, .on_write_error = NOT_SAID };
    struct part part;
    int result;
    while ((result = part_next(p, &argument, &part)) > 0) {
        result = disk_part(p, &part, &words);
        if (result < 0)
            return result;
    }
    if (result < 0)
        return result;
    return words.disk.drive[0] ? disk_plug(p, &words) : option_bad(p, "virtio-blk-device needs drive=ID");
}

/* --- together ---------------------------------------------------------------------------------------------- */

/* Writing that finds the host full stops the guest, anything else is the guest's to know. */
static enum virtio_blk_error settle(int device, int drive, enum virtio_blk_error usual)
{
    return device != NOT_SAID  ? (enum virtio_blk_error)device
           : drive != NOT_SAID ? (enum virtio_blk_error)drive
                               : usual;
}

static int disk_join(struct parser *p, struct machine_slot *slot)
{
    const struct machine_config *config = &p->out->machine;
    int number = drive_find(config, slot->disk.drive);
    if (number < 0)
        return option_bad(p, "there is no -drive or -blockdev '%s'", slot->disk.drive);
    struct parser_drive *how = &p->drive[number];
    if (how->used)
        return option_bad(p, "the drive '%s' has a device already", slot->disk.drive);
    how->used = true;
    slot->disk.on_read_error = settle((int)slot->disk.on_read_error, how->on_read_error, BLK_REPORT);
    slot->disk.on_write_error = settle((int)slot->disk.on_write_error, how->on_write_error, BLK_ENOSPC);
    return 0;
}

int option_drives_done(struct parser *p)
{
    struct machine_config *config = &p->out->machine;
    for (unsigned i = 0; i < config->drives; i++) {
        struct disk_words words = {
            .disk.queues = 1, .bus = -1, .on_read_error = NOT_SAID, .on_write_error = NOT_SAID
        };
        p->option = "drive";
        if (!p->drive[i].on_virtio)
            continue;
        memcpy(words.disk.drive, config->drive[i].id, sizeof(words.disk.drive));
        int result = disk_plug(p, &words);
        if (result < 0)
            return result;
    }
    for (int i = MACHINE_SLOTS - 1; i >= 0; i--) {
        p->option = "device";
        int result = config->slot[i].disk.drive[0] ? disk_join(p, &config->slot[i]) : 0;
        if (result < 0)
            return result;
    }
    for (unsigned i = 0; i < config->drives; i++) {
        p->option = "drive";
        if (!p->drive[i].used)
            return option_bad(p, "'%s' has no device: add -device virtio-blk-device,drive=%s", config->drive[i].id,
                              config->drive[i].id);
    }
    return 0;
}
