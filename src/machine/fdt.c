#include "machine/fdt.h"

#include <errno.h>
#include <libfdt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hw/devices.h"

enum { FDT_BYTES_MAX = 256 * 1024, UART_CLOCK_HZ = 3686400, BLOCK_BYTES = 64 };

/* References between nodes. Harts' interrupt controllers and the harts themselves are numbered behind these. */
enum { PHANDLE_PLIC = 1, PHANDLE_TEST, PHANDLE_HARTS };

/* What the engine implements, nothing else: kernels patch themselves after this list. */
static const char *const isa_single[] = { "i", "m", "a", "f", "d", "c" };
static const char *const isa_multi[] = {
    "zicbom", "zicboz", "zicntr", "zicsr", "zifencei", "zihpm",  "zba",
    "zbb",    "zbs",    "sstc",   "svadu", "svinval",  "svvptc",
};

struct fdt_out {
    const struct fdt_input *input;
    void *blob;
    int error; /* libfdt's first; the rest is skipped */
};

/* --- writing --------------------------------------------------------------------------------------------- */

static void note(struct fdt_out *fdt, int result)
{
    if (!fdt->error)
        fdt->error = result < 0 ? result : 0;
}

static void node_begin(struct fdt_out *fdt, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void node_begin(struct fdt_out *fdt, const char *format, ...)
{
    char name[64];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof(name), format, args);
    va_end(args);
    note(fdt, fdt->error ? 0 : fdt_begin_node(fdt->blob, name));
}

static void node_end(struct fdt_out *fdt)
{
    note(fdt, fdt->error ? 0 : fdt_end_node(fdt->blob));
}

static void put_bytes(struct fdt_out *fdt, const char *name, const void *data, size_t bytes)
{
    note(fdt, fdt->error ? 0 : fdt_property(fdt->blob, name, data, (int)bytes));
}

static void put_text(struct fdt_out *fdt, const char *name, const char *text)
{
    put_bytes(fdt, name, text, strlen(text) + 1);
}

static void put_flag(struct fdt_out *fdt, const char *name)
{
    put_bytes(fdt, name, NULL, 0);
}

static void put_cells(struct fdt_out *fdt, const char *name, const uint32_t *cells, unsigned count)
{
    fdt32_t out[4 * HART_MAX];
    if (count > sizeof(out) / sizeof(out[0])) {
        note(fdt, -FDT_ERR_NOSPACE);
        return;
    }
    for (unsigned i = 0; i < count; i++)
        out[i] = cpu_to_fdt32(cells[i]);
    put_bytes(fdt, name, out, count * sizeof(out[0]));
}

static void put_u32(struct fdt_out *fdt, const char *name, uint32_t value)
{
    put_cells(fdt, name, &value, 1);
}

static void put_u64(struct fdt_out *fdt, const char *name, uint64_t value)
{
    put_cells(fdt, name, (uint32_t[]){ (uint32_t)(value >> 32), (uint32_t)value }, 2);
}

static void put_reg(struct fdt_out *fdt, uint64_t gpa, uint64_t bytes)
{
    uint32_t cells[] = { (uint32_t)(gpa >> 32), (uint32_t)gpa, (uint32_t)(bytes >> 32), (uint32_t)bytes };
    put_cells(fdt, "reg", cells, 4);
}

static uint32_t phandle_hart(unsigned hart)
{
    return PHANDLE_HARTS + 2 * hart;
}

static uint32_t phandle_hart_interrupts(unsigned hart)
{
    return PHANDLE_HARTS + 2 * hart + 1;
}

/* --- rows of the board's table --------------------------------------------------------------------------- */

/* <hart's controller, pin> pairs: two pins of each hart. */
static void put_hart_pins(struct fdt_out *fdt, uint32_t first, uint32_t second)
{
    uint32_t cells[4 * HART_MAX];
    unsigned count = 0;
    for (unsigned hart = 0; hart < fdt->input->config->harts; hart++) {
        cells[count++] = phandle_hart_interrupts(hart);
        cells[count++] = first;
        cells[count++] = phandle_hart_interrupts(hart);
        cells[count++] = second;
    }
    put_cells(fdt, "interrupts-extended", cells, count);
}

void fdt_describe_plic(struct fdt_out *fdt, const struct board_row *row)
{
    (void)row;
    put_u32(fdt, "phandle", PHANDLE_PLIC);
    put_u32(fdt, "riscv,ndev", PLIC_SOURCES - 1);
    put_hart_pins(fdt, IRQ_M_EXT, IRQ_S_EXT);
    put_flag(fdt, "interrupt-controller");
    put_u32(fdt, "#address-cells", 0);
    put_u32(fdt, "#interrupt-cells", 1);
}

void fdt_describe_clint(struct fdt_out *fdt, const struct board_row *row)
{
    (void)row;
    put_hart_pins(fdt, IRQ_M_SOFT, IRQ_M_TIMER);
}

void fdt_describe_test(struct fdt_out *fdt, const struct board_row *row)
{
    (void)row;
    put_u32(fdt, "phandle", PHANDLE_TEST);
}

void fdt_describe_serial(struct fdt_out *fdt, const struct board_row *row)
{
    (void)row;
    put_u32(fdt, "clock-frequency", UART_CLOCK_HZ);
}

static void put_board(struct fdt_out *fdt)
{
    node_begin(fdt, "soc");
    put_u32(fdt, "#address-cells", 2);
    put_u32(fdt, "#size-cells", 2);
    put_text(fdt, "compatible", "simple-bus");
    put_flag(fdt, "ranges");
    for (unsigned i = 0; i < board_rows; i++) {
        const struct board_row *row = &board_table[i];
        node_begin(fdt, "%s@%llx", row->node, (unsigned long long)row->gpa);
        put_bytes(fdt, "compatible", row->compatible, row->compatible_bytes);
        put_reg(fdt, row->gpa, row->bytes);
        if (row->irq) {
            put_u32(fdt, "interrupts", row->irq);
            put_u32(fdt, "interrupt-parent", PHANDLE_PLIC);
        }
        if (row->describe)
            row->describe(fdt, row);
        node_end(fdt);
    }
    node_end(fdt);
}

/* --- harts ----------------------------------------------------------------------------------------------- */

static void put_isa(struct fdt_out *fdt)
{
    char joined[256] = "rv64", list[256];
    size_t used = 0;
    unsigned singles = sizeof(isa_single) / sizeof(isa_single[0]), multis = sizeof(isa_multi) / sizeof(isa_multi[0]);
    for (unsigned i = 0; i < singles + multis; i++) {
        const char *name = i < singles ? isa_single[i] : isa_multi[i - singles];
        if (i >= singles)
            strcat(joined, "_");
        strcat(joined, name);
        strcpy(list + used, name);
        used += strlen(name) + 1;
    }
    put_text(fdt, "riscv,isa", joined);
    put_text(fdt, "riscv,isa-base", "rv64i");
    put_bytes(fdt, "riscv,isa-extensions", list, used);
}

static void put_hart(struct fdt_out *fdt, unsigned hart)
{
    node_begin(fdt, "cpu@%x", hart);
    put_u32(fdt, "phandle", phandle_hart(hart));
    put_text(fdt, "device_type", "cpu");
    put_u32(fdt, "reg", hart);
    put_text(fdt, "status", "okay");
    put_text(fdt, "compatible", "riscv");
    put_u32(fdt, "riscv,cbom-block-size", BLOCK_BYTES);
    put_u32(fdt, "riscv,cboz-block-size", BLOCK_BYTES);
    put_isa(fdt);
    put_text(fdt, "mmu-type", "riscv,sv57");
    node_begin(fdt, "interrupt-controller");
    put_u32(fdt, "#interrupt-cells", 1);
    put_flag(fdt, "interrupt-controller");
    put_text(fdt, "compatible", "riscv,cpu-intc");
    put_u32(fdt, "phandle", phandle_hart_interrupts(hart));
    node_end(fdt);
    node_end(fdt);
}

static void put_harts(struct fdt_out *fdt)
{
    unsigned harts = fdt->input->config->harts;
    node_begin(fdt, "cpus");
    put_u32(fdt, "#address-cells", 1);
    put_u32(fdt, "#size-cells", 0);
    put_u32(fdt, "timebase-frequency", BOARD_TIMEBASE_HZ);
    for (unsigned hart = 0; hart < harts; hart++)
        put_hart(fdt, hart);
    node_begin(fdt, "cpu-map");
    node_begin(fdt, "cluster0");
    for (unsigned hart = 0; hart < harts; hart++) {
        node_begin(fdt, "core%u", hart);
        put_u32(fdt, "cpu", phandle_hart(hart));
        node_end(fdt);
    }
    node_end(fdt);
    node_end(fdt);
    node_end(fdt);
}

/* --- the rest -------------------------------------------------------------------------------------------- */

static void put_chosen(struct fdt_out *fdt)
{
    const struct fdt_input *input = fdt->input;
    node_begin(fdt, "chosen");
    if (input->config->append[0])
        put_text(fdt, "bootargs", input->config->append);
    if (input->initrd_bytes) {
        put_u64(fdt, "linux,initrd-start", input->initrd_gpa);
        put_u64(fdt, "linux,initrd-end", input->initrd_gpa + input->initrd_bytes);
    }
    put_text(fdt, "stdout-path", "/soc/serial@10000000");
    put_bytes(fdt, "rng-seed", input->seed, sizeof(input->seed));
    node_end(fdt);
}

static void put_syscon(struct fdt_out *fdt, const char *node, const char *compatible, uint32_t value)
{
    node_begin(fdt, "%s", node);
    put_text(fdt, "compatible", compatible);
    put_u32(fdt, "regmap", PHANDLE_TEST);
    put_u32(fdt, "offset", 0);
    put_u32(fdt, "value", value);
    node_end(fdt);
}

static void put_tree(struct fdt_out *fdt)
{
    node_begin(fdt, "%s", "");
    put_u32(fdt, "#address-cells", 2);
    put_u32(fdt, "#size-cells", 2);
    put_text(fdt, "compatible", "riscv-virtio");
    put_text(fdt, "model", "riscv-virtio,qemu");
    put_syscon(fdt, "poweroff", "syscon-poweroff", 0x5555);
    put_syscon(fdt, "reboot", "syscon-reboot", 0x7777);
    node_begin(fdt, "aliases");
    put_text(fdt, "serial0", "/soc/serial@10000000");
    node_end(fdt);
    put_chosen(fdt);
    node_begin(fdt, "memory@%llx", (unsigned long long)BOARD_RAM_BASE);
    put_text(fdt, "device_type", "memory");
    put_reg(fdt, BOARD_RAM_BASE, fdt->input->config->ram_bytes);
    node_end(fdt);
    put_harts(fdt);
    put_board(fdt);
    node_end(fdt);
}

int fdt_for_machine(const struct fdt_input *input, void **blob, size_t *bytes, struct err *err)
{
    struct fdt_out fdt = { .input = input, .blob = malloc(FDT_BYTES_MAX) };
    if (!fdt.blob)
        return err_set(err, -ENOMEM, "no memory for the device tree");
    note(&fdt, fdt_create(fdt.blob, FDT_BYTES_MAX));
    note(&fdt, fdt_finish_reservemap(fdt.blob));
    put_tree(&fdt);
    note(&fdt, fdt_finish(fdt.blob));
    if (fdt.error) {
        free(fdt.blob);
        return err_set(err, -EINVAL, "the device tree cannot be made: %s", fdt_strerror(fdt.error));
    }
    *bytes = fdt_totalsize(fdt.blob);
    *blob = fdt.blob;
    return 0;
}
