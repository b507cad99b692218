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
    Elf64_Sym symbol[3];
    char names[32];
    Elf64_Shdr section[3];
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

/* What a linker puts there for a program with the symbols `to` and `tohost`. */
static void add_symbols(struct file *file, uint64_t tohost)
{
    file->header.e_shoff = offsetof(struct file, section);
    file->header.e_shentsize = sizeof(Elf64_Shdr);
    file->header.e_shnum = 3;
    memcpy(file->names, "\0to\0tohost", 11);
    file->symbol[1] = (Elf64_Sym){ .st_name = 1, .st_shndx = 1, .st_value = tohost + 64 };
    file->symbol[2] = (Elf64_Sym){ .st_name = 4, .st_shndx = 1, .st_value = tohost };
    file->section[1] = (Elf64_Shdr){
        .sh_type = SHT_SYMTAB, .sh_offset = offsetof(struct file, symbol), .sh_size = sizeof(file->symbol), .sh_link = 2
    };
    file->section[2] = (Elf64_Shdr){ .sh_type = SHT_STRTAB,
                                     .sh_offset = offsetof(struct file, names),
                                     .sh_size = sizeof(file->names) };
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

static void tohost_is_found_by_its_name_at_its_physical_address(void **state)
{
    struct elf_loaded loaded;
    (void)state;
    assert_int_equal(load(&good, sizeof(good), &loaded), 0);
    assert_int_equal(loaded.tohost, 0);
    add_symbols(&good, good.segment[1].p_vaddr + 0x40);
    assert_int_equal(load(&good, sizeof(good), &loaded), 0);
    assert_int_equal(loaded.tohost, BOARD_RAM_BASE + 0x1040);
    good.symbol[2].st_shndx = SHN_UNDEF;
    assert_int_equal(load(&good, sizeof(good), &loaded), 0);
    assert_int_equal(loaded.tohost, 0);
}

#define NO_TOHOST(change)                                                                                              \
    do {                                                                                                               \
        struct file bad = good;                                                                                        \
        struct elf_loaded loaded;                                                                                      \
        bad.change;                                                                                                    \
        assert_int_equal(load(&bad, sizeof(bad), &loaded), 0);                                                         \
        assert_int_equal(loaded.tohost, 0);                                                                            \
    } while (0)

static void a_symbol_table_that_lies_counts_as_none(void **state)
{
    (void)state;
    add_symbols(&good, BOARD_RAM_BASE + 0x1040);
    NO_TOHOST(header.e_shoff = UINT64_MAX - 64);
    NO_TOHOST(header.e_shoff = sizeof(struct file) - 80);
    NO_TOHOST(header.e_shnum = 0xffff);
    NO_TOHOST(header.e_shentsize = 8);
    NO_TOHOST(section[1].sh_offset = UINT64_MAX);
    NO_TOHOST(section[1].sh_size = UINT64_MAX);
    NO_TOHOST(section[1].sh_size = 40);
    NO_TOHOST(section[1].sh_link = 0xffffffff);
    NO_TOHOST(section[2].sh_size = 8);
    NO_TOHOST(section[2].sh_offset = sizeof(struct file) - 8);
    NO_TOHOST(symbol[2].st_name = UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(segments_go_to_physical_addresses_and_bss_is_cleared, setup, teardown),
        cmocka_unit_test_setup_teardown(an_entry_that_is_physical_already_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_wrong_with_a_file_is_said, setup, teardown),
        cmocka_unit_test_setup_teardown(segments_that_overlap_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(tohost_is_found_by_its_name_at_its_physical_address, setup, teardown),
        cmocka_unit_test_setup_teardown(a_symbol_table_that_lies_counts_as_none, setup, teardown),
        cmocka_unit_test_setup_teardown(every_way_to_cut_the_file_short_is_noticed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, files_begin, files_end);
}
