#include "tests/unit/test.h"

#include <elf.h>
#include <stdio.h>

#include "machine/board.h"
#include "machine/elf.h"
#include "tests/unit/machine/files.h"

enum { RAM_BYTES = 16 << 20, TEXT_BYTES = 0x1800, BSS_BYTES = 0x2345 };

struct file {
    Elf64_Ehdr header;
    Elf64_Phdr segment[2];
    uint8_t text[TEXT_BYTES];
};

static struct file good;
static struct ram *ram;
static struct err err;

static int setup(void **state)
{
    struct machine_config config = { .harts = 1, .ram_bytes = RAM_BYTES };
    (void)state;
    ram = ram_new();
    err_clear(&err);
    memset(&good, 0, sizeof(good));
    memcpy(good.header.e_ident, ELFMAG, SELFMAG);
    good.header.e_ident[EI_CLASS] = ELFCLASS64;
    good.header.e_ident[EI_DATA] = ELFDATA2LSB;
    good.header.e_type = ET_EXEC;
    good.header.e_machine = EM_RISCV;
    good.header.e_phoff = offsetof(struct file, segment);
    good.header.e_phentsize = sizeof(Elf64_Phdr);
    good.header.e_phnum = 2;
    good.header.e_entry = 0xffffffff80000010;
    good.segment[0] = (Elf64_Phdr){ .p_type = PT_NOTE, .p_offset = 1, .p_filesz = 2, .p_memsz = 2 };
    good.segment[1] = (Elf64_Phdr){
        .p_type = PT_LOAD,
        .p_offset = offsetof(struct file, text),
        .p_vaddr = 0xffffffff80000000,
        .p_paddr = BOARD_RAM_BASE + 0x1000,
        .p_filesz = TEXT_BYTES,
        .p_memsz = TEXT_BYTES + BSS_BYTES,
    };
    memset(good.text, 0xa5, sizeof(good.text));
    return board_add_ram(ram, &config, &err);
}

static int teardown(void **state)
{
    (void)state;
    ram_free(ram);
    return 0;
}

static int load(const struct file *file, size_t bytes, struct elf_loaded *out)
{
    char path[128];
    struct image image;
    struct boot_plan plan = { .ram = ram };
    err_clear(&err);
    file_write(path, "elf", file, bytes);
    if (image_open(&image, "kernel", path, &err) < 0)
        return err.code;
    int result = elf_load(&image, &plan, out, &err);
    image_close(&image);
    return result;
}

static void segments_go_to_physical_addresses_and_bss_is_cleared(void **state)
{
    struct elf_loaded loaded;
    uint8_t bytes[TEXT_BYTES + BSS_BYTES + 1];
    (void)state;
    memset(bytes, 0xff, sizeof(bytes));
    assert_true(ram_load(ram, BOARD_RAM_BASE + 0x1000, bytes, sizeof(bytes)));
    assert_int_equal(load(&good, sizeof(good), &loaded), 0);
    assert_int_equal(loaded.entry, BOARD_RAM_BASE + 0x1010);
    assert_int_equal(loaded.low, BOARD_RAM_BASE + 0x1000);
    assert_int_equal(loaded.high, BOARD_RAM_BASE + 0x1000 + TEXT_BYTES + BSS_BYTES);
    assert_true(ram_read(ram, BOARD_RAM_BASE + 0x1000, bytes, sizeof(bytes)));
    assert_int_equal(bytes[TEXT_BYTES - 1], 0xa5);
    for (unsigned i = 0; i < BSS_BYTES; i++)
        assert_int_equal(bytes[TEXT_BYTES + i], 0);
    assert_int_equal(bytes[TEXT_BYTES + BSS_BYTES], 0xff);
}

static void an_entry_that_is_physical_already_stays(void **state)
{
    struct elf_loaded loaded;
    (void)state;
    good.header.e_entry = BOARD_RAM_BASE + 0x1004;
    assert_int_equal(load(&good, sizeof(good), &loaded), 0);
    assert_int_equal(loaded.entry, BOARD_RAM_BASE + 0x1004);
}

#define BAD(change, words)                                                                                             \
    do {                                                                                                               \
        struct file bad = good;                                                                                        \
        struct elf_loaded loaded;                                                                                      \
        bad.change;                                                                                                    \
        assert_true(load(&bad, sizeof(bad), &loaded) < 0);                                                             \
        if (!strstr(err.text, words))                                                                                  \
            fail_msg("%s: %s", #change, err.text);                                                                     \
    } while (0)

static void what_is_wrong_with_a_file_is_said(void **state)
{
    (void)state;
    BAD(header.e_ident[EI_CLASS] = ELFCLASS32, "64-bit");
    BAD(header.e_ident[EI_DATA] = ELFDATA2MSB, "RISC-V");
    BAD(header.e_machine = EM_X86_64, "RISC-V");
    BAD(header.e_type = ET_REL, "executable");
    BAD(header.e_phentsize = 32, "program headers");
    BAD(header.e_phnum = 0, "program headers");
    BAD(header.e_phnum = 0xffff, "program headers");
    BAD(header.e_phoff = UINT64_MAX - 8, "outside");
    BAD(header.e_phoff = sizeof(good) - 8, "outside");
    BAD(segment[1].p_type = PT_NOTE, "nothing to load");
    BAD(segment[1].p_offset = UINT64_MAX, "outside");
    BAD(segment[1].p_filesz = UINT64_MAX, "larger");
    BAD(segment[1].p_offset += 1, "outside");
    BAD(segment[1].p_memsz = 1, "larger");
    BAD(segment[1].p_memsz = UINT64_MAX, "wraps");
    BAD(segment[1].p_memsz = RAM_BYTES, "does not fit");
    BAD(segment[1].p_paddr = 0x10000000, "does not fit");
    BAD(segment[1].p_paddr = UINT64_MAX - 0x1000, "wraps");
}

static void segments_that_overlap_are_refused(void **state)
{
    (void)state;
    BAD(segment[0] = bad.segment[1], "overlaps");
}

static void every_way_to_cut_the_file_short_is_noticed(void **state)
{
    struct elf_loaded loaded;
    (void)state;
    for (size_t bytes = 1; bytes < sizeof(good); bytes += bytes < 256 ? 1 : 511)
        assert_true(load(&good, bytes, &loaded) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(segments_go_to_physical_addresses_and_bss_is_cleared, setup, teardown),
        cmocka_unit_test_setup_teardown(an_entry_that_is_physical_already_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_wrong_with_a_file_is_said, setup, teardown),
        cmocka_unit_test_setup_teardown(segments_that_overlap_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(every_way_to_cut_the_file_short_is_noticed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, files_begin, files_end);
}
