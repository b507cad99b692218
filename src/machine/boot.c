#include "machine/boot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/bytes.h"
#include "machine/board.h"
#include "machine/elf.h"
#include "machine/fdt.h"
#include "machine/image.h"

/* Where distributions keep OpenSBI's fw_dynamic for this board. */
static const char *const boot_firmware_paths[] = {
    "/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin",
    "/usr/share/opensbi/lp64/generic/firmware/fw_dynamic.bin",
    "/usr/share/qemu/opensbi-riscv64-generic-fw_dynamic.bin",
};

#define BOOT_FDT_LIMIT       UINT64_C(0xc0000000) /* 32-bit firmware must reach the device tree */
#define BOOT_INITRD_DISTANCE (UINT64_C(512) << 20)
#define FW_DYNAMIC_MAGIC     0x4942534f /* "OSBI" */

enum { FW_DYNAMIC_VERSION = 2, FW_DYNAMIC_NEXT_S = 1 };

/* RISC-V boot image header (Linux, Documentation/arch/riscv/boot-image-header). */
enum { KERNEL_HEADER_BYTES = 64, KERNEL_IMAGE_SIZE_AT = 16, KERNEL_MAGIC2_AT = 56 };

static uint64_t round_up(uint64_t value, uint64_t step)
{
    return (value + step - 1) / step * step;
}

/* --- ranges ---------------------------------------------------------------------------------------------- */

int boot_claim(struct boot_plan *plan, const char *what, uint64_t gpa, uint64_t bytes, struct err *err)
{
    if (!ram_block_at(plan->ram, gpa, bytes)) {
        struct ram_block *block = ram_block_by_name(plan->ram, BOARD_RAM_NAME);
        return err_set(err, -ENOSPC,
                       "the %s (%" PRIu64 " KiB at 0x%" PRIx64 ") does not fit into RAM (%" PRIu64 " MiB at 0x%" PRIx64
                       ")",
                       what, (bytes + 1023) / 1024, gpa, block ? block->bytes >> 20 : 0, block ? block->gpa : 0);
    }
    for (unsigned i = 0; i < plan->pieces; i++) {
        const struct boot_piece *other = &plan->piece[i];
        if (gpa < other->gpa + other->bytes && other->gpa < gpa + bytes)
            return err_set(err, -ENOSPC,
                           "the %s (0x%" PRIx64 " to 0x%" PRIx64 ") overlaps the %s (0x%" PRIx64 " to 0x%" PRIx64
                           "): give the guest more RAM",
                           what, gpa, gpa + bytes, other->what, other->gpa, other->gpa + other->bytes);
    }
    if (plan->pieces == BOOT_PIECES_MAX)
        return err_set(err, -ENOSPC, "more than %d pieces to load", BOOT_PIECES_MAX);
    plan->piece[plan->pieces++] = (struct boot_piece){ what, gpa, bytes };
    return 0;
}

/* --- firmware -------------------------------------------------------------------------------------------- */

static const char *boot_firmware_path(const char *bios, struct err *err)
{
    if (strcmp(bios, "default") != 0 && bios[0])
        return bios;
    for (unsigned i = 0; i < sizeof(boot_firmware_paths) / sizeof(boot_firmware_paths[0]); i++) {
        if (access(boot_firmware_paths[i], R_OK) == 0)
            return boot_firmware_paths[i];
    }
    err_set(err, -ENOENT, "no OpenSBI firmware is installed (looked for %s): name one with -bios",
            boot_firmware_paths[0]);
    return NULL;
}

static int boot_firmware(struct boot_plan *plan, const char *path, uint64_t *end, struct err *err)
{
    uint8_t head[4];
    struct image image;
    struct elf_loaded loaded;
    int result = image_open(&image, "firmware", path, err);
    if (result < 0)
        return result;
    if (image.bytes >= sizeof(head))
        result = image_read(&image, 0, head, sizeof(head), err);
    if (result == 0 && image.bytes >= sizeof(head) && elf_is(head, sizeof(head))) {
        result = elf_load(&image, plan, &loaded, err);
        plan->start = loaded.entry;
        *end = loaded.high;
    } else if (result == 0) {
        plan->start = BOARD_RAM_BASE;
        *end = BOARD_RAM_BASE + image.bytes;
        result = boot_claim(plan, "firmware", plan->start, image.bytes, err);
        if (result == 0)
            result = image_load(&image, plan->ram, 0, plan->start, image.bytes, err);
    }
    image_close(&image);
    return result;
}

/* --- kernel ---------------------------------------------------------------------------------------------- */

static int boot_kernel_refuse(const struct image *image, const uint8_t *head, uint64_t bytes, struct err *err)
{
    if (bytes >= 2 && head[0] == 0x1f && head[1] == 0x8b)
        return err_set(err, -EINVAL, "the kernel %s is compressed with gzip: unpack it first", image->path);
    if (bytes >= 8 && memcmp(head, "MZ", 2) == 0 && memcmp(head + 4, "zimg", 4) == 0)
        return err_set(err, -EINVAL, "the kernel %s is an EFI zboot image: only firmware with EFI can start it",
                       image->path);
    if (bytes >= KERNEL_HEADER_BYTES && memcmp(head, "MZ", 2) == 0 &&
        memcmp(head + KERNEL_MAGIC2_AT, "RSC\x05", 4) != 0)
        return err_set(err, -EINVAL, "the kernel %s is not for RISC-V", image->path);
    return 0;
}

/* Bytes of memory the image needs: its header says how much the kernel clears behind it. */
static uint64_t boot_kernel_bytes(const struct image *image, const uint8_t *head, uint64_t bytes)
{
    uint64_t needs = 0;
    if (bytes >= KERNEL_HEADER_BYTES && memcmp(head + KERNEL_MAGIC2_AT, "RSC\x05", 4) == 0)
        needs = le64_get(head + KERNEL_IMAGE_SIZE_AT);
    return needs > image->bytes ? needs : image->bytes;
}

static int boot_tohost(struct boot_plan *plan, const struct image *image, uint64_t gpa, struct err *err)
{
    const struct ram_block *block = ram_block_at(plan->ram, gpa, 8);
    if (gpa && (gpa % 8 || !block || block->rom))
        return err_set(err, -EINVAL,
                       "the kernel %s has its tohost at 0x%" PRIx64 ": that is not 8 aligned bytes of RAM", image->path,
                       gpa);
    plan->tohost = gpa;
    return 0;
}

static int boot_kernel(struct boot_plan *plan, const char *path, uint64_t base, bool bare, struct err *err)
{
    uint8_t head[KERNEL_HEADER_BYTES] = { 0 };
    struct image image;
    struct elf_loaded loaded;
    int result = image_open(&image, "kernel", path, err);
    if (result < 0)
        return result;
    uint64_t bytes = image.bytes < sizeof(head) ? image.bytes : sizeof(head);
    result = image_read(&image, 0, head, bytes, err);
    if (result == 0 && elf_is(head, bytes)) {
        result = elf_load(&image, plan, &loaded, err);
        plan->kernel = loaded.entry;
        plan->kernel_base = loaded.low;
        if (result == 0 && bare)
            result = boot_tohost(plan, &image, loaded.tohost, err);
    } else if (result == 0) {
        result = boot_kernel_refuse(&image, head, bytes, err);
        if (result == 0)
            result = boot_claim(plan, "kernel", base, boot_kernel_bytes(&image, head, bytes), err);
        if (result == 0)
            result = image_load(&image, plan->ram, 0, base, image.bytes, err);
        plan->kernel = base;
        plan->kernel_base = base;
    }
    image_close(&image);
    return result;
}

/* --- initrd, device tree, ROM ---------------------------------------------------------------------------- */

static int boot_initrd(struct boot_plan *plan, const char *path, uint64_t ram_bytes, uint64_t *gpa, uint64_t *bytes,
                       struct err *err)
{
    struct image image;
    int result = image_open(&image, "initrd", path, err);
    if (result < 0)
        return result;
    uint64_t distance = ram_bytes / 2 < BOOT_INITRD_DISTANCE ? ram_bytes / 2 : BOOT_INITRD_DISTANCE;
    *gpa = round_up(plan->kernel_base + distance, PAGE_BYTES);
    *bytes = image.bytes;
    result = boot_claim(plan, "initrd", *gpa, *bytes, err);
    if (result == 0)
        result = image_load(&image, plan->ram, 0, *gpa, *bytes, err);
    image_close(&image);
    return result;
}

static int boot_fdt(struct boot_plan *plan, const struct machine_config *config, uint64_t initrd_gpa,
                    uint64_t initrd_bytes, struct err *err)
{
    struct fdt_input input = { .config = config, .initrd_gpa = initrd_gpa, .initrd_bytes = initrd_bytes };
    void *blob;
    size_t bytes;
    if (getrandom(input.seed, sizeof(input.seed), 0) != sizeof(input.seed))
        return err_set(err, -EIO, "the host has no random numbers");
    int result = fdt_for_machine(&input, &blob, &bytes, err);
    if (result < 0)
        return result;
    uint64_t end = BOARD_RAM_BASE + config->ram_bytes;
    end = end < BOOT_FDT_LIMIT ? end : BOOT_FDT_LIMIT;
    plan->fdt = (end - bytes) / BOOT_STEP_BYTES * BOOT_STEP_BYTES;
    result = boot_claim(plan, "device tree", plan->fdt, bytes, err);
    if (result == 0 && !ram_load(plan->ram, plan->fdt, blob, bytes))
        result = err_set(err, -EINVAL, "the device tree does not lie in memory");
    free(blob);
    return result;
}

/* What the harts execute first (fw_dynamic hand-over as OpenSBI's documentation has it):
 * a0 hart id, a1 device tree, a2 the structure that tells the firmware what comes next. */
static int boot_rom(struct boot_plan *plan, struct err *err)
{
    enum { CODE_BYTES = 24, START_AT = CODE_BYTES, FDT_AT = START_AT + 8, INFO_AT = FDT_AT + 8 };
    static const uint32_t code[CODE_BYTES / 4] = {
        0x00000297,                  /* auipc t0, 0 */
        0x00028613 | INFO_AT << 20,  /* addi  a2, t0, INFO_AT */
        0xf1402573,                  /* csrr  a0, mhartid */
        0x0002b583 | FDT_AT << 20,   /* ld    a1, FDT_AT(t0) */
        0x0002b283 | START_AT << 20, /* ld    t0, START_AT(t0) */
        0x00028067,                  /* jr    t0 */
    };
    const uint64_t words[] = {
        plan->start, plan->fdt, FW_DYNAMIC_MAGIC, FW_DYNAMIC_VERSION, plan->kernel, FW_DYNAMIC_NEXT_S,
        0,           0, /* options, boot hart */
    };
    uint8_t rom[CODE_BYTES + sizeof(words)];
    for (unsigned i = 0; i < CODE_BYTES / 4; i++)
        le32_put(rom + 4 * i, code[i]);
    for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        le64_put(rom + CODE_BYTES + 8 * i, words[i]);
    if (!ram_load(plan->ram, BOARD_ROM_BASE, rom, sizeof(rom)))
        return err_set(err, -EINVAL, "there is no boot ROM at 0x%" PRIx64, BOARD_ROM_BASE);
    return 0;
}

int boot_load(const struct machine_config *config, struct ram *ram, struct boot_plan *plan_out, struct err *err)
{
    struct boot_plan plan = { .ram = ram, .start = BOARD_RAM_BASE };
    bool firmware = strcmp(config->bios, "none") != 0;
    uint64_t end = BOARD_RAM_BASE, initrd_gpa = 0, initrd_bytes = 0;
    int result = 0;
    if (firmware) {
        const char *path = boot_firmware_path(config->bios, err);
        result = path ? boot_firmware(&plan, path, &end, err) : -ENOENT;
    }
    if (result == 0 && config->kernel[0])
        result = boot_kernel(&plan, config->kernel, round_up(end, BOOT_STEP_BYTES), !firmware, err);
    if (result == 0 && config->kernel[0] && !firmware)
        plan.start = plan.kernel;
    if (result == 0 && config->initrd[0])
        result = boot_initrd(&plan, config->initrd, config->ram_bytes, &initrd_gpa, &initrd_bytes, err);
    if (result == 0)
        result = boot_fdt(&plan, config, initrd_gpa, initrd_bytes, err);
    if (result == 0)
        result = boot_rom(&plan, err);
    if (plan_out)
        *plan_out = plan;
    return result;
}
