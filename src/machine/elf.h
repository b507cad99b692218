/* ELF executables (System V gABI, RISC-V psABI): 64-bit little-endian RISC-V, loaded by physical address. */
#pragma once
#include <stdbool.h>

#include "machine/boot.h"
#include "machine/image.h"

struct elf_loaded {
    uint64_t entry;     /* physical */
    uint64_t low, high; /* first byte, and one past the last */
    uint64_t tohost;    /* physical address of the symbol `tohost`, 0: it has none */
};

bool elf_is(const void *head, uint64_t bytes); /* starts like one */
/* Every number of the file is checked; a symbol table that is not as it should be counts as none, since nothing but
 * `tohost` depends on it; segments are claimed in the plan before anything is written. */
int elf_load(const struct image *image, struct boot_plan *plan, struct elf_loaded *out, struct err *err);
