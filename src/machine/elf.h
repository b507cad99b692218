/* ELF executables (System V gABI, RISC-V psABI): 64-bit little-endian RISC-V, loaded by physical address. */
#pragma once
#include <stdbool.h>

#include "machine/boot.h"
#include "machine/image.h"

struct elf_loaded {
    uint64_t entry;     /* physical */
    uint64_t low, high; /* first byte, and one past the last */
};

bool elf_is(const void *head, uint64_t bytes); /* starts like one */
/* Every number of the file is checked; segments are claimed in the plan before anything is written. */
int elf_load(const struct image *image, struct boot_plan *plan, struct elf_loaded *out, struct err *err);
