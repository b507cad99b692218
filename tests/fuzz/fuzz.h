/* What the fuzz targets share: the fuzzer's bytes as numbers, and machines to try them on. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <uv.h>

#include "machine/machine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A promise was broken: what libFuzzer keeps as a crash. */
#define FUZZ_CHECK(promise)                                                                                            \
    do {                                                                                                               \
        if (!(promise)) {                                                                                              \
            fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #promise);                                      \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* The fuzzer's bytes; zeros when they run out. */
struct input {
    const uint8_t *data;
    size_t size;
};

static inline uint64_t take(struct input *in, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes && in->size; i++, in->data++, in->size--)
        value |= (uint64_t)*in->data << 8 * i;
    return value;
}

/* At most so many of them, where they are. */
static inline const uint8_t *take_bytes(struct input *in, size_t most, size_t *bytes)
{
    const uint8_t *at = in->data;
    *bytes = in->size < most ? in->size : most;
    in->data += *bytes;
    in->size -= *bytes;
    return at;
}

/* --- a file with such bytes --------------------------------------------------------------------------------- */

/* The path is valid until the next one is made with the same descriptor. */
static inline void fuzz_file(int *fd, char path[64], const void *data, size_t bytes)
{
    if (*fd < 0)
        *fd = memfd_create("fuzz", MFD_CLOEXEC);
    FUZZ_CHECK(*fd >= 0 && ftruncate(*fd, 0) == 0 && pwrite(*fd, data, bytes, 0) == (ssize_t)bytes);
    lseek(*fd, 0, SEEK_SET);
    snprintf(path, 64, "/proc/self/fd/%d", *fd);
}

/* --- a machine ------------------------------------------------------------------------------------------------ */

enum { FUZZ_RAM_BYTES = 8 << 20, FUZZ_DISK_BYTES = 64 * 1024, FUZZ_HARTS = 2 };

struct fuzz_machine {
    struct chardev *serial, *console;
    struct machine *machine;
};

static inline struct chardev *fuzz_find_console(void *opaque, const char *id)
{
    (void)id;
    return ((struct fuzz_machine *)opaque)->console;
}

/* One of every device, or only what a board always has; its harts stand still. */
static inline void fuzz_machine_new(struct fuzz_machine *out, bool incoming, bool devices, bool jit)
{
    static struct machine_config config; /* large */
    struct err err = { 0 };
    config = (struct machine_config){ .harts = FUZZ_HARTS,
                                      .ram_bytes = FUZZ_RAM_BYTES,
                                      .serial = 1,
                                      .bios = "none",
                                      .incoming = incoming,
                                      .interpret = !jit };
    if (devices) {
        static int disk = -1;
        if (disk < 0) {
            disk = memfd_create("disk", MFD_CLOEXEC);
            FUZZ_CHECK(disk >= 0 && ftruncate(disk, FUZZ_DISK_BYTES) == 0);
        }
        config.slot[7] = (struct machine_slot){ .model = "virtio-rng-device", .legacy = 1 };
        config.slot[6] = (struct machine_slot){ .model = "virtio-console", .chardev = "console" };
        config.slot[5] =
            (struct machine_slot){ .model = "virtio-blk-device", .disk = { .drive = "disk", .queues = 2 } };
        config.drive[0] = (struct machine_drive){ .id = "disk", .format_said = true };
        config.drives = 1;
        snprintf(config.drive[0].file, sizeof(config.drive[0].file), "/proc/self/fd/%d", disk);
    }
    *out = (struct fuzz_machine){ 0 };
    FUZZ_CHECK(chardev_open("serial", "null", uv_default_loop(), &out->serial, &err) == 0);
    FUZZ_CHECK(chardev_open("console", "null", uv_default_loop(), &out->console, &err) == 0);
    struct machine_hosts hosts = { .serial = out->serial, .find_chardev = fuzz_find_console, .opaque = out };
    if (machine_new(&config, &hosts, &out->machine, &err) < 0) {
        fprintf(stderr, "machine_new: %s\n", err.text);
        abort();
    }
}

static inline void fuzz_machine_free(struct fuzz_machine *m)
{
    machine_free(m->machine);
    chardev_free(m->console);
    chardev_free(m->serial);
    *m = (struct fuzz_machine){ 0 };
}
