#include "tests/unit/test.h"

#include <errno.h>
#include <libfdt.h>
#include <stdio.h>

#include "base/bytes.h"
#include "machine/board.h"
#include "machine/boot.h"
#include "tests/unit/machine/files.h"

enum { MIB = 1 << 20, KERNEL_NEEDS = 3 * MIB };

static struct machine_config config;
static struct ram *ram;
static struct boot_plan plan;
static struct err err;
static uint8_t kernel[4096], firmware[300000], initrd[5000];

static void file_for(char *out, const char *name, const void *data, size_t bytes)
{
    char path[128];
    file_write(path, name, data, bytes);
    strcpy(out, path);
}

static int setup_bytes(uint64_t ram_bytes)
{
    memset(&config, 0, sizeof(config));
    config.harts = 2;
    config.ram_bytes = ram_bytes;
    memset(firmware, 0xf1, sizeof(firmware));
    memset(initrd, 0x1d, sizeof(initrd));
    memset(kernel, 0x13, sizeof(kernel));
    le64_put(kernel + 8, 2 * MIB);
    le64_put(kernel + 16, KERNEL_NEEDS);
    memcpy(kernel + 0x30, "RISCV\0\0\0", 8);
    memcpy(kernel + 0x38, "RSC\x05", 4);
    file_for(config.bios, "firmware", firmware, sizeof(firmware));
    file_for(config.kernel, "kernel", kernel, sizeof(kernel));
    file_for(config.initrd, "initrd", initrd, sizeof(initrd));
    err_clear(&err);
    ram = ram_new();
    return board_add_ram(ram, &config, &err);
}

static int setup(void **state)
{
    (void)state;
    return setup_bytes(128 * MIB);
}

static int teardown(void **state)
{
    (void)state;
    ram_free(ram);
    return 0;
}

static void assert_boots(void)
{
    if (boot_load(&config, ram, &plan, &err) < 0)
        fail_msg("%s", err.text);
}

static void assert_refused(const char *words)
{
    err_clear(&err);
    assert_true(boot_load(&config, ram, &plan, &err) < 0);
    if (!strstr(err.text, words))
        fail_msg("says: %s", err.text);
}

static uint64_t word_at(uint64_t gpa)
{
    uint64_t word;
    assert_true(ram_read(ram, gpa, &word, sizeof(word)));
    return word;
}

static void everything_is_where_qemu_puts_it(void **state)
{
    (void)state;
    assert_boots();
    assert_int_equal(plan.start, 0x80000000);
    assert_int_equal(plan.kernel, 0x80200000);
    assert_int_equal((uint8_t)word_at(0x80000000), 0xf1);
    assert_int_equal((uint8_t)word_at(0x80200000), 0x13);
    assert_int_equal((uint8_t)word_at(0x84200000), 0x1d);
    assert_int_equal(plan.fdt, 0x87e00000);
}

static void the_rom_hands_over_to_the_firmware(void **state)
{
    (void)state;
    assert_boots();
    /* auipc t0, 0 and a2 = t0 + 40; csrr a0, mhartid */
    assert_int_equal(word_at(0x1000), 0x0282861300000297);
    assert_int_equal((uint32_t)word_at(0x1008), 0xf1402573);
    assert_int_equal(word_at(0x1018), 0x80000000);
    assert_int_equal(word_at(0x1020), plan.fdt);
    assert_int_equal(word_at(0x1028), 0x4942534f);
    assert_int_equal(word_at(0x1030), 2);
    assert_int_equal(word_at(0x1038), 0x80200000);
    assert_int_equal(word_at(0x1040), 1);
    assert_int_equal(word_at(0x1048), 0);
    assert_int_equal(word_at(0x1050), 0);
}

static void the_device_tree_in_memory_names_the_initrd(void **state)
{
    static uint8_t blob[64 * 1024];
    int length;
    (void)state;
    assert_boots();
    assert_true(ram_read(ram, plan.fdt, blob, sizeof(blob)));
    assert_int_equal(fdt_check_header(blob), 0);
    int chosen = fdt_path_offset(blob, "/chosen");
    const void *start = fdt_getprop(blob, chosen, "linux,initrd-start", &length);
    const void *end = fdt_getprop(blob, chosen, "linux,initrd-end", &length);
    assert_int_equal(fdt64_ld(start), 0x84200000);
    assert_int_equal(fdt64_ld(end), 0x84200000 + sizeof(initrd));
}

static void a_seed_is_never_used_twice(void **state)
{
    static uint8_t blob[2][64 * 1024];
    const uint8_t *seed[2];
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        int length;
        assert_boots();
        assert_true(ram_read(ram, plan.fdt, blob[i], sizeof(blob[i])));
        seed[i] = fdt_getprop(blob[i], fdt_path_offset(blob[i], "/chosen"), "rng-seed", &length);
        assert_int_equal(length, 32);
    }
    assert_memory_not_equal(seed[0], seed[1], 32);
}

static void without_firmware_the_kernel_starts_at_once(void **state)
{
    (void)state;
    strcpy(config.bios, "none");
    config.initrd[0] = 0;
    assert_boots();
    assert_int_equal(plan.start, 0x80000000);
    assert_int_equal((uint8_t)word_at(0x80000000), 0x13);
}

static void a_missing_file_is_named(void **state)
{
    (void)state;
    strcat(config.kernel, ".not");
    assert_refused("kernel.not");
    assert_int_equal(err.code, -ENOENT);
    strcpy(config.kernel, "/");
    assert_refused("not a file");
}

static void kernels_in_wrappings_are_refused_by_name(void **state)
{
    (void)state;
    kernel[0] = 0x1f, kernel[1] = 0x8b;
    file_for(config.kernel, "kernel", kernel, sizeof(kernel));
    assert_refused("gzip");
    memcpy(kernel, "MZ\0\0zimg", 8);
    file_for(config.kernel, "kernel", kernel, sizeof(kernel));
    assert_refused("zboot");
    memcpy(kernel, "MZ\0\0\0\0\0\0", 8);
    memcpy(kernel + 0x38, "ARM\x64", 4);
    file_for(config.kernel, "kernel", kernel, sizeof(kernel));
    assert_refused("not for RISC-V");
}

static void what_does_not_fit_is_refused_with_both_sizes(void **state)
{
    (void)state;
    le64_put(kernel + 16, 200 * MIB);
    file_for(config.kernel, "kernel", kernel, sizeof(kernel));
    assert_refused("the kernel (204800 KiB at 0x80200000) does not fit into RAM (128 MiB at 0x80000000)");
}

static void the_kernels_own_bss_counts_for_overlaps(void **state)
{
    (void)state;
    le64_put(kernel + 16, 65 * MIB); /* the initrd is at 64 MiB behind it */
    file_for(config.kernel, "kernel", kernel, sizeof(kernel));
    assert_refused("initrd");
    assert_non_null(strstr(err.text, "overlaps the kernel"));
}

static int setup_large(void **state)
{
    (void)state;
    return setup_bytes(6ULL << 30);
}

static void a_large_guest_has_its_device_tree_below_3_gib(void **state)
{
    (void)state;
    assert_boots();
    assert_int_equal(plan.fdt, 0xbfe00000);
    assert_int_equal((uint8_t)word_at(0x80200000 + (512 << 20)), 0x1d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(everything_is_where_qemu_puts_it, setup, teardown),
        cmocka_unit_test_setup_teardown(the_rom_hands_over_to_the_firmware, setup, teardown),
        cmocka_unit_test_setup_teardown(the_device_tree_in_memory_names_the_initrd, setup, teardown),
        cmocka_unit_test_setup_teardown(a_seed_is_never_used_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(without_firmware_the_kernel_starts_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_missing_file_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(kernels_in_wrappings_are_refused_by_name, setup, teardown),
        cmocka_unit_test_setup_teardown(what_does_not_fit_is_refused_with_both_sizes, setup, teardown),
        cmocka_unit_test_setup_teardown(the_kernels_own_bss_counts_for_overlaps, setup, teardown),
        cmocka_unit_test_setup_teardown(a_large_guest_has_its_device_tree_below_3_gib, setup_large, teardown),
    };
    return cmocka_run_group_tests(tests, files_begin, files_end);
}
