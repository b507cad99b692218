#include "machine/board.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hw/devices.h"
#include "machine/drives.h"
#include "machine/fdt.h"

/* --- makers ---------------------------------------------------------------------------------------------- */

static struct irq_line board_irq(struct board *board, const struct board_row *row)
{
    return row->irq ? plic_input(board->plic, row->irq) : (struct irq_line){ 0 };
}

/* Contexts M then S of each hart. */
static struct device *make_plic(struct board *board, const struct board_row *row, struct err *err)
{
    struct irq_line out[PLIC_CONTEXTS_MAX] = { 0 };
    (void)row;
    _Static_assert(2 * HART_MAX <= PLIC_CONTEXTS_MAX, "every hart has two contexts");
    for (unsigned hart = 0; hart < board->config->harts; hart++) {
        out[2 * hart] = vcpu_irq(board->vcpu[hart], IRQ_M_EXT);
        out[2 * hart + 1] = vcpu_irq(board->vcpu[hart], IRQ_S_EXT);
    }
    board->plic = plic_new(2 * board->config->harts, out, err);
    return board->plic;
}

static struct device *make_aclint(struct board *board, const struct board_row *row, struct err *err)
{
    struct irq_line msip[HART_MAX] = { 0 }, mtip[HART_MAX] = { 0 };
    (void)row;
    for (unsigned hart = 0; hart < board->config->harts; hart++) {
        msip[hart] = vcpu_irq(board->vcpu[hart], IRQ_M_SOFT);
        mtip[hart] = vcpu_irq(board->vcpu[hart], IRQ_M_TIMER);
    }
    return aclint_new(board->config->harts, msip, mtip, board->clock, board->timers, err);
}

static struct device *make_uart(struct board *board, const struct board_row *row, struct err *err)
{
    return uart_new(board_irq(board, row), board->hosts->serial, board->timers, err);
}

static struct device *make_rtc(struct board *board, const struct board_row *row, struct err *err)
{
    return rtc_new(board_irq(board, row), board->timers, err);
}

static void board_power(void *opaque, enum power_action action, unsigned code)
{
    static const enum machine_request request[] = {
        [POWER_OFF] = REQUEST_SHUTDOWN,
        [POWER_RESET] = REQUEST_RESET,
        [POWER_FAIL] = REQUEST_FAIL,
    };
    struct board *board = opaque;
    board->power(board->opaque, request[action], code);
}

static struct device *make_power(struct board *board, const struct board_row *row, struct err *err)
{
    (void)row;
    return power_new(board_power, board, err);
}

static struct chardev *console_chardev(struct board *board, const struct machine_slot *slot, struct err *err)
{
    struct chardev *chardev = NULL;
    if (board->hosts->find_chardev)
        chardev = board->hosts->find_chardev(board->hosts->opaque, slot->chardev);
    if (!chardev)
        err_set(err, -ENOENT, "virtconsole: there is no chardev '%s'", slot->chardev);
    return chardev;
}

static void board_disk_failed(void *opaque)
{
    struct board *board = opaque;
    board->power(board->opaque, REQUEST_IO_ERROR, 0);
}

static struct virtio_backend *make_disk(struct board *board, const struct machine_slot *slot, struct err *err)
{
    struct virtio_blk_options options = {
        .block = drives_find(board->drives, board->config, slot->disk.drive),
        .queues = slot->disk.queues,
        .on_read_error = slot->disk.on_read_error,
        .on_write_error = slot->disk.on_write_error,
        .stop = board_disk_failed,
        .opaque = board,
    };
    memcpy(options.serial, slot->disk.serial, sizeof(options.serial));
    if (options.block)
        return virtio_blk_new(&options, err);
    err_set(err, -ENOENT, "virtio-blk-device: there is no drive '%s'", slot->disk.drive);
    return NULL;
}

static struct device *make_virtio(struct board *board, const struct board_row *row, struct err *err)
{
    const struct machine_slot *slot = &board->config->slot[row->slot];
    struct virtio_backend *backend = NULL;
    if (strcmp(slot->model, "virtio-rng-device") == 0) {
        backend = virtio_rng_new(err);
    } else if (strcmp(slot->model, "virtio-console") == 0) {
        struct chardev *chardev = console_chardev(board, slot, err);
        backend = chardev ? virtio_console_new(chardev, err) : NULL;
    } else if (strcmp(slot->model, "virtio-blk-device") == 0) {
        backend = make_disk(board, slot, err);
    } else if (slot->model[0]) {
        err_set(err, -EINVAL, "there is no device model '%s'", slot->model);
    }
    if (slot->model[0] && !backend)
        return NULL;
    return virtio_mmio_new(row->slot, board->ram, board_irq(board, row), backend, slot->legacy, err);
}

/* --- THE device table ------------------------------------------------------------------------------------ */

#define STRINGS(text) (text), sizeof(text)
#define VIRTIO_ROW(n)                                                                                                  \
    {                                                                                                                  \
        "virtio_mmio", STRINGS("virtio,mmio"), 0x10001000 + (n)*0x1000, 0x1000, 1 + (n), make_virtio, NULL, (n)        \
    }

/* The PLIC comes first: the others pull its wires. Sections travel in this order. */
/* clang-format off */
const struct board_row board_table[] = {
    /* node      compatible                                            gpa         bytes     irq make         describe */
    { "plic",   STRINGS("sifive,plic-1.0.0\0riscv,plic0"),            0xc000000,  0x600000, 0,  make_plic,   fdt_describe_plic, 0 },
    { "clint",  STRINGS("sifive,clint0\0riscv,clint0"),               0x2000000,  0x10000,  0,  make_aclint, fdt_describe_clint, 0 },
    { "test",   STRINGS("sifive,test1\0sifive,test0\0syscon"),        0x100000,   0x1000,   0,  make_power,  fdt_describe_test, 0 },
    { "rtc",    STRINGS("google,goldfish-rtc"),                       0x101000,   0x1000,   11, make_rtc,    NULL, 0 },
    { "serial", STRINGS("ns16550a"),                                  0x10000000, 0x100,    10, make_uart,   fdt_describe_serial, 0 },
    VIRTIO_ROW(7), VIRTIO_ROW(6), VIRTIO_ROW(5), VIRTIO_ROW(4), VIRTIO_ROW(3), VIRTIO_ROW(2), VIRTIO_ROW(1), VIRTIO_ROW(0),
};
/* clang-format on */
const unsigned board_rows = sizeof(board_table) / sizeof(board_table[0]);
_Static_assert(sizeof(board_table) / sizeof(board_table[0]) <= MACHINE_DEVICES_MAX, "room for every row");

/* --- building -------------------------------------------------------------------------------------------- */

int board_add_ram(struct ram *ram, const struct machine_config *config, struct err *err)
{
    struct ram_options options = {
        .share = config->ram_share,
        .mem_path = config->mem_path[0] ? config->mem_path : NULL,
    };
    int result = ram_add(ram, BOARD_RAM_NAME, BOARD_RAM_BASE, config->ram_bytes, false, &options, err);
    if (result < 0)
        return result;
    result = ram_add(ram, BOARD_ROM_NAME, BOARD_ROM_BASE, BOARD_ROM_BYTES, true, &(struct ram_options){ 0 }, err);
    return result < 0 ? result : ram_seal_layout(ram, err);
}

static int board_add_device(struct board *board, const struct board_row *row, struct err *err)
{
    struct device *device = row->make(board, row, err);
    if (!device)
        return err_prefix(err, "%s@%llx", row->node, (unsigned long long)row->gpa);
    board->device[board->devices++] = device;
    device->gpa = row->gpa;
    device->bytes = row->bytes;
    device->irq = row->irq;
    device->instance = row->slot;
    if (row->make == make_virtio)
        memcpy(device->id, board->config->slot[row->slot].id, sizeof(device->id));
    return bus_add(board->bus, row->node, row->gpa, row->bytes, device->ops->bus, device, err);
}

int board_add_devices(struct board *board, struct err *err)
{
    struct err local = { 0 };
    for (unsigned i = 0; i < board_rows; i++) {
        if (board_add_device(board, &board_table[i], err ? err : &local) < 0)
            return err ? err->code : local.code;
    }
    return 0;
}

void board_free_devices(struct board *board)
{
    while (board->devices > 0) {
        struct device *device = board->device[--board->devices];
        device->ops->free(device);
    }
    board->plic = NULL;
}
