/* What the two halves of the command line's parser share. */
#pragma once
#include "machine/options.h"

/* What a -drive says that is not the image's: for the device that it is given to. */
struct parser_drive {
    bool on_virtio; /* if=virtio: makes its own device */
    bool used;
    bool is_file;                      /* -blockdev driver=file: what an image lies in, which another may name */
    int on_read_error, on_write_error; /* enum virtio_blk_error, or -1: not said */
};

struct parser {
    struct options *out;
    const char *option; /* the one being read, without its dash */
    struct err *err;
    bool nographic, display_none;
    bool serial_given, monitor_given;
    bool modern;       /* -global virtio-mmio.force-legacy=false */
    int serial_device; /* slot of a virtio-serial-device that waits for its virtconsole, or -1 */
    bool slot_used[MACHINE_SLOTS];
    struct parser_drive drive[MACHINE_DRIVES_MAX]; /* as in machine_config.drive */
};

/* One part of a comma list: "key=value", or a bare word (has_value false). ",," stands for a comma. */
struct part {
    char key[OPTION_ID_MAX];
    char value[MACHINE_TEXT_MAX];
    bool has_value;
};

/* 1 a part, 0 the end, -EINVAL too long. */
int part_next(struct parser *p, const char **at, struct part *out);

/* -EINVAL with "-OPTION: ..." */
int option_bad(struct parser *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
int option_text(struct parser *p, char *out, size_t out_size, const char *text); /* copies, refuses what is too long */
int option_number(struct parser *p, const char *text, uint64_t min, uint64_t max, uint64_t *out);
int option_bool(struct parser *p, const struct part *part, bool *out); /* on/off, true/false, yes/no, bare */

/* The number of the slot that a device gets: `wanted`, or with -1 the next one. As on QEMU's virt slots fill from the
 * top, so that the first device sits at 0x10008000. */
int option_slot_take(struct parser *p, int wanted);
int option_slot_number(struct parser *p, const char *bus, int *out);

int option_device(struct parser *p, const char *argument);
int option_disk_device(struct parser *p, const char *argument); /* what follows "virtio-blk-device" */
int option_drive(struct parser *p, const char *argument);
int option_blockdev(struct parser *p, const char *argument);
int option_drives_done(struct parser *p); /* after the last option, before option_devices_done */
int option_object(struct parser *p, const char *argument);
int option_global(struct parser *p, const char *argument);
int option_chardev(struct parser *p, const char *argument);
int option_mon(struct parser *p, const char *argument);
int option_gdb(struct parser *p, const char *argument);
int option_monitor_add(struct parser *p, const char *spec, bool qmp);
int option_devices_done(struct parser *p); /* after the last option */
