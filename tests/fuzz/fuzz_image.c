/* Files that a guest is booted from: u8 what it is given as (kernel, firmware, initrd; with flag 4 the bytes get the head
 * that an ELF file for this machine has), and the file. */
#include <elf.h>

#include "machine/board.h"
#include "machine/boot.h"
#include "tests/fuzz/fuzz.h"

enum { AS_KERNEL = 0, AS_FIRMWARE = 1, AS_INITRD = 2, FLAG_ELF = 4, FLAG_BESIDE = 8 };

static void put_elf_right(uint8_t *file, size_t bytes)
{
    Elf64_Ehdr head;
    if (bytes < sizeof(head))
        return;
    memcpy(&head, file, sizeof(head));
    memcpy(head.e_ident, ELFMAG, SELFMAG);
    head.e_ident[EI_CLASS] = ELFCLASS64;
    head.e_ident[EI_DATA] = ELFDATA2LSB;
    head.e_machine = EM_RISCV;
    head.e_type = ET_EXEC;
    head.e_phentsize = sizeof(Elf64_Phdr);
    head.e_phnum = (uint16_t)(1 + head.e_phnum % 16);
    head.e_shentsize = sizeof(Elf64_Shdr);
    head.e_shnum %= 8;
    head.e_phoff %= bytes;
    head.e_shoff %= bytes;
    memcpy(file, &head, sizeof(head));
    for (unsigned i = 0; i < head.e_phnum; i++) { /* segments where memory is, more often than not */
        Elf64_Phdr segment;
        size_t at = head.e_phoff + i * sizeof(segment);
        if (at > bytes || bytes - at < sizeof(segment))
            break;
        memcpy(&segment, file + at, sizeof(segment));
        segment.p_type %= 8;
        if (segment.p_flags & 1)
            segment.p_paddr = BOARD_RAM_BASE + segment.p_paddr % (FUZZ_RAM_BYTES + PAGE_BYTES);
        if (segment.p_flags & 2)
            segment.p_offset %= bytes, segment.p_filesz %= bytes - segment.p_offset + 1;
        if (segment.p_flags & 4)
            segment.p_memsz = segment.p_filesz + segment.p_memsz % (64 * 1024);
        memcpy(file + at, &segment, sizeof(segment));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct machine_config config; /* large */
    static struct ram *ram;
    static int fd = -1;
    struct err err = { 0 };
    char path[64];
    if (size < 1)
        return 0;
    if (!ram) {
        config = (struct machine_config){ .harts = 1, .ram_bytes = FUZZ_RAM_BYTES };
        ram = ram_new();
        FUZZ_CHECK(ram && board_add_ram(ram, &config, NULL) == 0);
    }
    uint8_t *file = malloc(size);
    memcpy(file, data + 1, size - 1);
    if (data[0] & FLAG_ELF)
        put_elf_right(file, size - 1);
    fuzz_file(&fd, path, file, size - 1);
    config = (struct machine_config){ .harts = 1, .ram_bytes = FUZZ_RAM_BYTES, .bios = "none" };
    unsigned as = data[0] & 3;
    if (as == AS_FIRMWARE || data[0] & FLAG_BESIDE)
        snprintf(config.bios, sizeof(config.bios), "%s", path);
    if (as == AS_INITRD)
        snprintf(config.initrd, sizeof(config.initrd), "%s", path);
    if (as != AS_FIRMWARE)
        snprintf(config.kernel, sizeof(config.kernel), "%s", path);
    struct boot_plan plan = { 0 };
    if (boot_load(&config, ram, &plan, &err) < 0)
        FUZZ_CHECK(err.text[0]);
    for (unsigned i = 0; i < plan.pieces; i++)
        for (unsigned j = 0; j < i; j++)
            FUZZ_CHECK(plan.piece[i].gpa >= plan.piece[j].gpa + plan.piece[j].bytes ||
                       plan.piece[j].gpa >= plan.piece[i].gpa + plan.piece[i].bytes);
    free(file);
    return 0;
}
