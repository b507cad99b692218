/* The device tree (Devicetree Specification 0.4), made from the machine's description and the board's table. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "machine/board.h"
#include "machine/machine.h"

enum { FDT_SEED_BYTES = 32 };

struct fdt_input {
    const struct machine_config *config;
    uint64_t initrd_gpa, initrd_bytes; /* bytes 0: none */
    uint8_t seed[FDT_SEED_BYTES];      /* the kernel's first entropy; new at each reset */
};

/* A blob from malloc(), exactly *bytes long. */
int fdt_for_machine(const struct fdt_input *input, void **blob, size_t *bytes, struct err *err);

/* Properties of rows of the board's table, beyond reg, compatible and interrupts. */
void fdt_describe_plic(struct fdt_out *fdt, const struct board_row *row);
void fdt_describe_clint(struct fdt_out *fdt, const struct board_row *row);
void fdt_describe_test(struct fdt_out *fdt, const struct board_row *row);
void fdt_describe_serial(struct fdt_out *fdt, const struct board_row *row);
