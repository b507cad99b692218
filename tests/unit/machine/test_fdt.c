#include "tests/unit/test.h"

#include <libfdt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "machine/fdt.h"

static struct machine_config config;
static void *blob;
static size_t bytes;

static int make(void **state)
{
    struct fdt_input input = { .config = &config, .initrd_gpa = 0x84200000, .initrd_bytes = 0x1234 };
    (void)state;
    config = (struct machine_config){ .harts = 3, .ram_bytes = 5ULL << 30, .append = "console=ttyS0 quiet" };
    memset(input.seed, 0x5a, sizeof(input.seed));
    return fdt_for_machine(&input, &blob, &bytes, NULL);
}

static int drop(void **state)
{
    (void)state;
    free(blob);
    blob = NULL;
    return 0;
}

static int node(const char *path)
{
    int offset = fdt_path_offset(blob, path);
    if (offset < 0)
        fail_msg("no node %s", path);
    return offset;
}

static uint32_t cell(const char *path, const char *name, int index)
{
    int length;
    const fdt32_t *value = fdt_getprop(blob, node(path), name, &length);
    if (!value || length < 4 * (index + 1))
        fail_msg("%s has no %s[%d]", path, name, index);
    return fdt32_to_cpu(value[index]);
}

static const char *text(const char *path, const char *name)
{
    const char *value = fdt_getprop(blob, node(path), name, NULL);
    if (!value)
        fail_msg("%s has no %s", path, name);
    return value;
}

static void the_blob_is_a_whole_device_tree(void **state)
{
    (void)state;
    assert_int_equal(fdt_check_full(blob, bytes), 0);
    assert_int_equal(fdt_totalsize(blob), bytes);
    assert_string_equal(text("/", "compatible"), "riscv-virtio");
}

static void memory_says_where_and_how_much(void **state)
{
    (void)state;
    assert_int_equal(cell("/memory@80000000", "reg", 1), 0x80000000);
    assert_int_equal(cell("/memory@80000000", "reg", 2), 1);
    assert_int_equal(cell("/memory@80000000", "reg", 3), 0x40000000);
}

static void every_hart_has_a_node_and_a_place_in_the_map(void **state)
{
    (void)state;
    assert_int_equal(cell("/cpus", "timebase-frequency", 0), 10000000);
    for (unsigned hart = 0; hart < 3; hart++) {
        char path[64];
        snprintf(path, sizeof(path), "/cpus/cpu@%u", hart);
        assert_int_equal(cell(path, "reg", 0), hart);
        assert_string_equal(text(path, "mmu-type"), "riscv,sv57");
        uint32_t handle = cell(path, "phandle", 0);
        snprintf(path, sizeof(path), "/cpus/cpu-map/cluster0/core%u", hart);
        assert_int_equal(cell(path, "cpu", 0), handle);
    }
    assert_true(fdt_path_offset(blob, "/cpus/cpu@3") < 0);
}

static void both_ways_of_naming_extensions_agree(void **state)
{
    int length, count = 0;
    const char *isa = text("/cpus/cpu@0", "riscv,isa");
    const char *list = fdt_getprop(blob, node("/cpus/cpu@0"), "riscv,isa-extensions", &length);
    (void)state;
    assert_non_null(list);
    assert_int_equal(strncmp(isa, "rv64imafdc_", 11), 0);
    for (const char *one = list; one < list + length; one += strlen(one) + 1, count++) {
        char wanted[32];
        if (strlen(one) == 1)
            continue;
        snprintf(wanted, sizeof(wanted), "_%s", one);
        assert_non_null(strstr(isa, wanted));
    }
    assert_true(count > 12);
    assert_non_null(strstr(isa, "_sstc"));
    assert_non_null(strstr(isa, "_svvptc")); /* held by a test in vcpu/test_translate.c */
    assert_string_equal(text("/cpus/cpu@0", "riscv,isa-base"), "rv64i");
}

static void chosen_carries_what_the_kernel_is_told(void **state)
{
    int length;
    (void)state;
    assert_string_equal(text("/chosen", "bootargs"), "console=ttyS0 quiet");
    assert_int_equal(cell("/chosen", "linux,initrd-start", 1), 0x84200000);
    assert_int_equal(cell("/chosen", "linux,initrd-end", 1), 0x84201234);
    assert_true(fdt_path_offset(blob, text("/chosen", "stdout-path")) >= 0);
    const uint8_t *seed = fdt_getprop(blob, node("/chosen"), "rng-seed", &length);
    assert_int_equal(length, FDT_SEED_BYTES);
    assert_int_equal(seed[31], 0x5a);
}

/* The property's phandle must be that of a node with this path. */
static void assert_leads_to(const char *from, const char *property, int index, const char *to)
{
    assert_int_equal(fdt_node_offset_by_phandle(blob, cell(from, property, index)), node(to));
}

static void interrupts_lead_from_devices_over_the_plic_to_the_harts(void **state)
{
    (void)state;
    assert_leads_to("/soc/serial@10000000", "interrupt-parent", 0, "/soc/plic@c000000");
    assert_int_equal(cell("/soc/serial@10000000", "interrupts", 0), 10);
    assert_int_equal(cell("/soc/rtc@101000", "interrupts", 0), 11);
    assert_int_equal(cell("/soc/plic@c000000", "riscv,ndev", 0), 95);
    for (unsigned hart = 0; hart < 3; hart++) {
        static const int pins[2][2] = { { 11, 9 }, { 3, 7 } };
        static const char *const chips[2] = { "/soc/plic@c000000", "/soc/clint@2000000" };
        char path[64];
        snprintf(path, sizeof(path), "/cpus/cpu@%u/interrupt-controller", hart);
        for (unsigned chip = 0; chip < 2; chip++) {
            int at = (int)hart * 4;
            assert_leads_to(chips[chip], "interrupts-extended", at, path);
            assert_leads_to(chips[chip], "interrupts-extended", at + 2, path);
            assert_int_equal(cell(chips[chip], "interrupts-extended", at + 1), pins[chip][0]);
            assert_int_equal(cell(chips[chip], "interrupts-extended", at + 3), pins[chip][1]);
        }
    }
}

static void virtio_slots_are_where_qemu_has_them(void **state)
{
    (void)state;
    for (unsigned slot = 0; slot < MACHINE_SLOTS; slot++) {
        char path[64];
        snprintf(path, sizeof(path), "/soc/virtio_mmio@%x", 0x10001000 + slot * 0x1000);
        assert_int_equal(cell(path, "interrupts", 0), slot + 1);
        assert_int_equal(cell(path, "reg", 3), 0x1000);
        assert_string_equal(text(path, "compatible"), "virtio,mmio");
    }
}

static void power_goes_through_the_test_device(void **state)
{
    (void)state;
    assert_leads_to("/poweroff", "regmap", 0, "/soc/test@100000");
    assert_int_equal(cell("/poweroff", "value", 0), 0x5555);
    assert_leads_to("/reboot", "regmap", 0, "/soc/test@100000");
    assert_int_equal(cell("/reboot", "value", 0), 0x7777);
}

static void the_largest_machine_still_fits(void **state)
{
    struct fdt_input input = { .config = &config };
    void *large;
    size_t large_bytes;
    (void)state;
    config.harts = HART_MAX;
    memset(config.append, 'a', sizeof(config.append) - 1);
    assert_int_equal(fdt_for_machine(&input, &large, &large_bytes, NULL), 0);
    assert_int_equal(fdt_check_full(large, large_bytes), 0);
    free(large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_blob_is_a_whole_device_tree),
        cmocka_unit_test(memory_says_where_and_how_much),
        cmocka_unit_test(every_hart_has_a_node_and_a_place_in_the_map),
        cmocka_unit_test(both_ways_of_naming_extensions_agree),
        cmocka_unit_test(chosen_carries_what_the_kernel_is_told),
        cmocka_unit_test(interrupts_lead_from_devices_over_the_plic_to_the_harts),
        cmocka_unit_test(virtio_slots_are_where_qemu_has_them),
        cmocka_unit_test(power_goes_through_the_test_device),
        cmocka_unit_test(the_largest_machine_still_fits),
    };
    return cmocka_run_group_tests(tests, make, drop);
}
