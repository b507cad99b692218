/* The options that describe disks: -drive, -blockdev, -device virtio-blk-device. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "block/nbd_export.h"
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

static int format_word(struct parser *p, const struct part *part, enum block_format *out)
{
    static const char *const words[] = { "raw", "qcow2" };
    int word = word_of(p, part, words, 2);
    *out = word == 1 ? BLOCK_FORMAT_QCOW2 : BLOCK_FORMAT_RAW;
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
    if (drive->create && (drive->format == BLOCK_FORMAT_QCOW2 || nbd_export_is_uri(drive->file)))
        return option_bad(p, "the disk '%s': create=on makes raw images in files; qemu-img create makes others",
                          drive->id);
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

/* "backing.KEY": the image below, chosen here. 1: it was none of these. */
static int backing_part(struct parser *p, const struct part *part, struct machine_drive *drive)
{
    struct part file = *part;
    const char *key = part->key;
    if (strncmp(key, "backing.", 8) != 0)
        return 1;
    key += 8;
    drive->backing_said = true;
    if (strcmp(key, "driver") == 0)
        return format_word(p, part, &drive->backing_format);
    if (strcmp(key, "file.filename") == 0 || strcmp(key, "filename") == 0)
        return option_text(p, drive->backing, sizeof(drive->backing), file.value);
    if (strcmp(key, "file.driver") == 0)
        return only(p, part, "file");
    return no_property(p, part);
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
        return format_word(p, part, &drive->format);
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
    result = backing_part(p, part, drive);
    return result == 1 ? no_property(p, part) : result;
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
struct blockdev_words {
    bool direct, no_flush;
    bool is_format, is_file;
    char file[OPTION_ID_MAX], backing[OPTION_ID_MAX]; /* other nodes */
};

static int blockdev_driver(struct parser *p, const struct part *part, bool file, struct machine_drive *drive,
                           struct blockdev_words *words)
{
    static const char *const layers[] = { "raw", "qcow2", "file", "host_device" };
    int word = word_of(p, part, layers + (file ? 2 : 0), file ? 2 : 4);
    if (word < 0 || file)
        return word < 0 ? word : 0;
    words->is_file = word >= 2;
    drive->format = word == 1 ? BLOCK_FORMAT_QCOW2 : BLOCK_FORMAT_RAW;
    return 0;
}

static int blockdev_part(struct parser *p, const struct part *part, struct machine_drive *drive,
                         struct blockdev_words *words)
{
    const char *key = part->key;
    bool file = strncmp(key, "file.", 5) == 0; /* what the image lies in: the same things may be said of it */
    if (file)
        key += 5;
    if (strcmp(key, "filename") == 0)
        return option_text(p, drive->file, sizeof(drive->file), part->value);
    if (strcmp(key, "node-name") == 0)
        return file ? 0 : option_text(p, drive->id, sizeof(drive->id), part->value);
    if (strcmp(key, "driver") == 0)
        return blockdev_driver(p, part, file, drive, words);
    if (strcmp(key, "read-only") == 0)
        return option_bool(p, part, &drive->readonly);
    if (strcmp(key, "cache.direct") == 0)
        return option_bool(p, part, &words->direct);
    if (strcmp(key, "cache.no-flush") == 0)
        return option_bool(p, part, &words->no_flush);
    if (strcmp(key, "discard") == 0)
        return discard_word(p, part, &drive->discard);
    if (strcmp(key, "aio") == 0)
        return only(p, part, "threads");
    if (strcmp(key, "file") == 0)
        return option_text(p, words->file, sizeof(words->file), part->value);
    if (strcmp(key, "backing") == 0) {
        drive->backing_said = true; /* "": nothing below */
        return option_text(p, words->backing, sizeof(words->backing), part->value);
    }
    int result = file ? 1 : backing_part(p, part, drive);
    return result == 1 ? no_property(p, part) : result;
}

/* Node `number` becomes a part of the one that is being made, which is the last and moves up. */
static void absorb(struct parser *p, int number)
{
    struct machine_config *config = &p->out->machine;
    size_t behind = config->drives - (unsigned)number;
    memmove(&config->drive[number], &config->drive[number + 1], behind * sizeof(config->drive[0]));
    memmove(&p->drive[number], &p->drive[number + 1], behind * sizeof(p->drive[0]));
    config->drives--;
}

static int find_node(struct parser *p, const char *id, int *out)
{
    *out = drive_find(&p->out->machine, id);
    return *out < 0 ? option_bad(p, "there is no -blockdev '%s' in front of it", id) : 0;
}

/* file=NODE and backing=NODE: what is said there is said here. */
static int join_nodes(struct parser *p, const struct blockdev_words *words)
{
    struct machine_config *config = &p->out->machine;
    int number, result;
    if (words->file[0]) {
        struct machine_drive *drive = &config->drive[config->drives];
        result = find_node(p, words->file, &number);
        if (result < 0)
            return result;
        const struct machine_drive *node = &config->drive[number];
        if (!p->drive[number].is_file || drive->file[0])
            return option_bad(p, "file=%s: %s", words->file,
                              drive->file[0] ? "there is a filename, too" : "it is not a driver=file");
        memcpy(drive->file, node->file, sizeof(drive->file));
        drive->readonly |= node->readonly;
        drive->cache = node->cache;
        absorb(p, number);
    }
    if (words->backing[0]) {
        struct machine_drive *drive = &config->drive[config->drives];
        result = find_node(p, words->backing, &number);
        if (result < 0)
            return result;
        const struct machine_drive *node = &config->drive[number];
        if (node->backing_said)
            return option_bad(p, "backing=%s: what is below that is for its image to say", words->backing);
        memcpy(drive->backing, node->file, sizeof(drive->backing));
        drive->backing_format = node->format;
        absorb(p, number);
    }
    return 0;
}

static int blockdev_words(struct parser *p, const char *argument, struct machine_drive *drive,
                          struct blockdev_words *words)
{
    struct part part;
    int result;
    while ((result = part_next(p, &argument, &part)) > 0) {
        result = blockdev_part(p, &part, drive, words);
        if (result < 0)
            return result;
    }
    if (result < 0)
        return result;
    if (!drive->id[0])
        return option_bad(p, "node-name=ID is missing");
    if (words->direct && words->no_flush)
        return option_bad(p, "cache.direct=on and cache.no-flush=on together are not there");
    drive->cache = words->direct ? BLOCK_DIRECT : words->no_flush ? BLOCK_UNSAFE : BLOCK_WRITEBACK;
    return 0;
}

static int blockdev_add(struct parser *p, const char *argument)
{
    struct blockdev_words words = { 0 };
    int number = drive_new(p);
    if (number < 0)
        return number;
    struct machine_drive *drive = &p->out->machine.drive[number];
    drive->format_said = true; /* there is no driver that guesses */
    drive->format = BLOCK_FORMAT_RAW;
    int result = blockdev_words(p, argument, drive, &words);
    if (result < 0)
        return result;
    enum block_cache own = drive->cache;
    p->drive[number].is_file = words.is_file;
    result = join_nodes(p, &words);
    if (result < 0)
        return result;
    drive = &p->out->machine.drive[p->out->machine.drives];
    if (own != BLOCK_WRITEBACK)
        drive->cache = own;
    if (drive->backing_said && drive->format != BLOCK_FORMAT_QCOW2)
        return option_bad(p, "only driver=qcow2 has a backing image");
    return drive_add(p);
}

/* A JSON object as a list of parts: {"file": {"filename": "a"}} is file.filename=a. */
static void flatten(struct json_object *object, const char *prefix, struct buf *out)
{
    json_object_object_foreach(object, key, value)
    {
        char name[2 * OPTION_ID_MAX];
        bool text = json_object_is_type(value, json_type_string);
        snprintf(name, sizeof(name), "%s%s", prefix, key);
        if (json_object_is_type(value, json_type_object)) {
            snprintf(name, sizeof(name), "%s%s.", prefix, key);
            flatten(value, name, out);
            continue;
        }
        if (out->size)
            buf_put_u8(out, ',');
        buf_put(out, name, strlen(name));
        buf_put_u8(out, '=');
        if (!value) /* null: nothing */
            continue;
        for (const char *at = text ? json_object_get_string(value) : json_object_to_json_string(value); *at; at++)
            buf_put(out, *at == ',' ? ",," : at, *at == ',' ? 2 : 1);
    }
}

static int blockdev_json(struct parser *p, const char *argument)
{
    struct json_reader reader;
    struct json_object *value = NULL;
    struct buf text = { 0 };
    size_t bytes = strlen(argument);
    json_reader_init(&reader);
    int result = json_reader_next(&reader, &argument, &bytes, &value, NULL);
    json_reader_free(&reader);
    if (result != 1 || !json_object_is_type(value, json_type_object) || bytes) {
        json_object_put(value);
        return option_bad(p, "it begins like a JSON object, and is none");
    }
    flatten(value, "", &text);
    buf_put_u8(&text, 0);
    json_object_put(value);
    result = blockdev_add(p, (const char *)text.data);
    buf_free(&text);
    return result;
}

int option_blockdev(struct parser *p, const char *argument)
{
    return argument[0] == '{' ? blockdev_json(p, argument) : blockdev_add(p, argument);
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
