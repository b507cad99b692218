/* What is in memory when the harts come out of reset: boot ROM, firmware, kernel, initrd, device tree.
 *
 * Places are those of QEMU's virt: firmware at the start of RAM, the kernel behind it on a 2 MiB boundary, the
 * initrd half the RAM (at most 512 MiB) above the kernel, the device tree at the end of RAM, below 3 GiB. */
#pragma once
#include <stdint.h>

#include "base/err.h"
#include "machine/machine.h"

#define MACHINE_RAM_MIN_BYTES     (8ULL << 20)
#define MACHINE_RAM_MAX_BYTES     (1024ULL << 30)
#define MACHINE_RAM_DEFAULT_BYTES (128ULL << 20)

#define BOOT_RESET_PC   UINT64_C(0x1000)
#define BOOT_STEP_BYTES (UINT64_C(2) << 20) /* kernels and device trees are aligned to this */

enum { BOOT_PIECES_MAX = 32 };

/* One thing that was put somewhere. */
struct boot_piece {
    const char *what;
    uint64_t gpa, bytes;
};

struct boot_plan {
    struct ram *ram;
    struct boot_piece piece[BOOT_PIECES_MAX];
    unsigned pieces;
    uint64_t start;       /* where the ROM jumps */
    uint64_t kernel;      /* what fw_dynamic is told, 0: none */
    uint64_t kernel_base; /* lowest address of it */
    uint64_t fdt;
    uint64_t tohost; /* of a kernel that runs without firmware, 0: none (tohost.h) */
};

/* Loads everything; guest memory is written, nothing else. *plan (may be NULL) tells what went where. */
int boot_load(const struct machine_config *config, struct ram *ram, struct boot_plan *plan, struct err *err);

/* Claim a range: must lie in one RAM block and overlap nothing that is there. */
int boot_claim(struct boot_plan *plan, const char *what, uint64_t gpa, uint64_t bytes, struct err *err);
