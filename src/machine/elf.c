#include "machine/elf.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ELF_SEGMENTS_MAX = 16, ELF_SECTIONS_MAX = 4096, ELF_TABLE_BYTES_MAX = 64 << 20 };

static int elf_bad(const struct image *image, const char *why, struct err *err)
{
    return err_set(err, -EINVAL, "the %s %s is an ELF file, but %s", image->what, image->path, why);
}

bool elf_is(const void *head, uint64_t bytes)
{
    return bytes >= SELFMAG && memcmp(head, ELFMAG, SELFMAG) == 0;
}

static int elf_check(const struct image *image, const Elf64_Ehdr *header, struct err *err)
{
    if (header->e_ident[EI_CLASS] != ELFCLASS64)
        return elf_bad(image, "not a 64-bit one", err);
    if (header->e_ident[EI_DATA] != ELFDATA2LSB || header->e_machine != EM_RISCV)
        return elf_bad(image, "not for RISC-V", err);
    if (header->e_type != ET_EXEC && header->e_type != ET_DYN)
        return elf_bad(image, "not an executable", err);
    if (header->e_phentsize != sizeof(Elf64_Phdr) || header->e_phnum == 0 || header->e_phnum > ELF_SEGMENTS_MAX)
        return elf_bad(image, "its program headers are not as they should be", err);
    if (header->e_phoff > image->bytes || image->bytes - header->e_phoff < header->e_phnum * sizeof(Elf64_Phdr))
        return elf_bad(image, "its program headers lie outside the file", err);
    return 0;
}

static int elf_check_segment(const struct image *image, const Elf64_Phdr *segment, struct err *err)
{
    if (segment->p_filesz > segment->p_memsz)
        return elf_bad(image, "a segment is larger in the file than in memory", err);
    if (segment->p_offset > image->bytes || image->bytes - segment->p_offset < segment->p_filesz)
        return elf_bad(image, "a segment lies outside the file", err);
    if (segment->p_paddr + segment->p_memsz < segment->p_paddr)
        return elf_bad(image, "a segment wraps around the address space", err);
    return 0;
}

static int elf_zero(struct ram *ram, uint64_t gpa, uint64_t bytes)
{
    static const uint8_t zeros[PAGE_BYTES];
    while (bytes > 0) {
        uint64_t now = bytes < sizeof(zeros) ? bytes : sizeof(zeros);
        if (!ram_load(ram, gpa, zeros, now))
            return -EINVAL;
        gpa += now;
        bytes -= now;
    }
    return 0;
}

static int elf_load_segment(const struct image *image, struct ram *ram, const Elf64_Phdr *segment, struct err *err)
{
    int result = image_load(image, ram, segment->p_offset, segment->p_paddr, segment->p_filesz, err);
    if (result < 0)
        return result;
    if (elf_zero(ram, segment->p_paddr + segment->p_filesz, segment->p_memsz - segment->p_filesz) < 0)
        return elf_bad(image, "a segment does not lie in memory", err);
    return 0;
}

/* The entry is a virtual address; kernels are linked high and loaded low. */
static uint64_t elf_physical(const Elf64_Phdr *segment, unsigned count, uint64_t va)
{
    for (unsigned i = 0; i < count; i++) {
        if (va >= segment[i].p_vaddr && va - segment[i].p_vaddr < segment[i].p_memsz)
            return va - segment[i].p_vaddr + segment[i].p_paddr;
    }
    return va;
}

/* --- symbols --------------------------------------------------------------------------------------------- */

/* Header of section `index`, when it and what it describes lie in the file and are of a size to be read. */
static bool elf_section(const struct image *image, const Elf64_Ehdr *header, uint32_t index, Elf64_Shdr *out)
{
    uint64_t at = header->e_shoff + (uint64_t)index * sizeof(*out);
    if (index >= header->e_shnum || header->e_shoff > image->bytes || at > image->bytes ||
        image->bytes - at < sizeof(*out) || image_read(image, at, out, sizeof(*out), NULL) < 0)
        return false;
    return out->sh_size > 0 && out->sh_size <= ELF_TABLE_BYTES_MAX && out->sh_offset <= image->bytes &&
           image->bytes - out->sh_offset >= out->sh_size;
}

/* A section's bytes with a NUL behind them; NULL: unreadable, or no memory. The caller frees. */
static char *elf_table(const struct image *image, const Elf64_Shdr *section)
{
    char *table = malloc(section->sh_size + 1);
    if (table && image_read(image, section->sh_offset, table, section->sh_size, NULL) < 0) {
        free(table);
        return NULL;
    }
    if (table)
        table[section->sh_size] = 0;
    return table;
}

static bool elf_find(const char *symbols, uint64_t bytes, const char *names, uint64_t names_bytes, const char *name,
                     uint64_t *va)
{
    Elf64_Sym symbol;
    for (uint64_t at = 0; bytes - at >= sizeof(symbol); at += sizeof(symbol)) {
        memcpy(&symbol, symbols + at, sizeof(symbol));
        if (symbol.st_shndx == SHN_UNDEF || symbol.st_name >= names_bytes || strcmp(names + symbol.st_name, name) != 0)
            continue;
        *va = symbol.st_value;
        return true;
    }
    return false;
}

static bool elf_symbol(const struct image *image, const Elf64_Ehdr *header, const char *name, uint64_t *va)
{
    Elf64_Shdr symtab, strtab;
    bool found = false;
    if (header->e_shentsize != sizeof(symtab) || header->e_shnum > ELF_SECTIONS_MAX)
        return false;
    for (uint32_t i = 0; !found && i < header->e_shnum; i++) {
        if (!elf_section(image, header, i, &symtab) || symtab.sh_type != SHT_SYMTAB ||
            !elf_section(image, header, symtab.sh_link, &strtab) || strtab.sh_type != SHT_STRTAB)
            continue;
        char *symbols = elf_table(image, &symtab), *names = elf_table(image, &strtab);
        found = symbols && names && elf_find(symbols, symtab.sh_size, names, strtab.sh_size, name, va);
        free(names);
        free(symbols);
    }
    return found;
}

/* --- the whole ------------------------------------------------------------------------------------------- */

int elf_load(const struct image *image, struct boot_plan *plan, struct elf_loaded *out, struct err *err)
{
    Elf64_Ehdr header;
    Elf64_Phdr file[ELF_SEGMENTS_MAX], segment[ELF_SEGMENTS_MAX];
    unsigned count = 0;
    if (image->bytes < sizeof(header))
        return elf_bad(image, "cut short", err);
    int result = image_read(image, 0, &header, sizeof(header), err);
    if (result == 0)
        result = elf_check(image, &header, err);
    if (result == 0)
        result = image_read(image, header.e_phoff, file, header.e_phnum * sizeof(file[0]), err);
    *out = (struct elf_loaded){ .low = UINT64_MAX };
    for (unsigned i = 0; result == 0 && i < header.e_phnum; i++) {
        const Elf64_Phdr *one = &file[i];
        if (one->p_type != PT_LOAD || one->p_memsz == 0)
            continue;
        result = elf_check_segment(image, one, err);
        if (result == 0)
            result = boot_claim(plan, image->what, one->p_paddr, one->p_memsz, err);
        if (result < 0)
            break;
        segment[count++] = *one;
        out->low = one->p_paddr < out->low ? one->p_paddr : out->low;
        out->high = one->p_paddr + one->p_memsz > out->high ? one->p_paddr + one->p_memsz : out->high;
    }
    if (result == 0 && count == 0)
        result = elf_bad(image, "has nothing to load", err);
    for (unsigned i = 0; result == 0 && i < count; i++)
        result = elf_load_segment(image, plan->ram, &segment[i], err);
    if (result < 0)
        return result;
    uint64_t va = 0;
    out->entry = elf_physical(segment, count, header.e_entry);
    if (elf_symbol(image, &header, "tohost", &va))
        out->tohost = elf_physical(segment, count, va);
    return 0;
}
