/* The board: where everything is, on the bus and in the device tree. The layout is that of QEMU's `virt`. */
#pragma once
#include "hw/device.h"
#include "machine/machine.h"

#define BOARD_RAM_NAME    "riscv_virt_board.ram"
#define BOARD_ROM_NAME    "riscv_virt_board.mrom"
#define BOARD_ROM_BASE    UINT64_C(0x1000)
#define BOARD_ROM_BYTES   UINT64_C(0xf000)
#define BOARD_RAM_BASE    UINT64_C(0x80000000)
#define BOARD_TIMEBASE_HZ (NS_PER_S / GUEST_TICK_NS)

struct board;
struct drives;
struct fdt_out;

/* One row is all it takes to add a device: it is made, mapped, and described from this. */
struct board_row {
    const char *node;       /* in the device tree, the address is appended */
    const char *compatible; /* strings, each with its NUL */
    size_t compatible_bytes;
    uint64_t gpa, bytes;
    unsigned irq; /* PLIC source, 0: none */
    struct device *(*make)(struct board *board, const struct board_row *row, struct err *err);
    void (*describe)(struct fdt_out *fdt, const struct board_row *row); /* further properties; may be NULL */
    unsigned slot;                                                      /* virtio-mmio: 0..7 */
};
extern const struct board_row board_table[];
extern const unsigned board_rows;

struct board {
    /* fixed after board_add_devices() */
    const struct machine_config *config;
    const struct machine_hosts *hosts;
    struct ram *ram;
    struct bus *bus;
    struct guest_clock *clock;
    struct timers *timers;
    struct drives *drives;
    struct vcpu **vcpu;                                                       /* config->harts of them */
    void (*power)(void *opaque, enum machine_request request, unsigned code); /* what the guest wants; any thread */
    void *opaque;
    struct device *plic;
    struct device *device[MACHINE_DEVICES_MAX];
    unsigned devices;
};

int board_add_ram(struct ram *ram, const struct machine_config *config, struct err *err);
int board_add_devices(struct board *board, struct err *err);
void board_free_devices(struct board *board); /* while the vCPUs are paused and still there */
