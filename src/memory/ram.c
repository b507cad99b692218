#include "memory/ram.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

static const uint64_t HUGE_BYTES = UINT64_C(2) << 20;

#define WRITING_NONE (UINT64_C(1) << 32) /* in ram->writing: the last open bracket ended once more */

/* --- making and freeing ------------------------------------------------------------------------------- */

struct ram *ram_new(void)
{
    struct ram *ram = calloc(1, sizeof(*ram));

    if (ram)
        /* None, or of other pages than ours: they are looked at. */
        ram->pagemap = sysconf(_SC_PAGESIZE) == PAGE_BYTES ? open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC) : -1;
    return ram;
}

static uint64_t round_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

static int check_block(const struct ram *ram, const char *name, uint64_t gpa, uint64_t bytes, struct err *err)
{
    if (ram->blocks == RAM_BLOCKS_MAX)
        return err_set(err, -ENOSPC, "no room for RAM block %s: at most %d", name, RAM_BLOCKS_MAX);
    if (name[0] == '\0' || strlen(name) >= RAM_NAME_MAX)
        return err_set(err, -EINVAL, "the RAM block name '%s' must have 1 to %d bytes", name, RAM_NAME_MAX - 1);
    if (bytes == 0 || bytes > INT64_MAX || gpa % PAGE_BYTES || bytes % PAGE_BYTES || gpa + bytes < gpa)
        return err_set(err, -EINVAL, "RAM block %s cannot lie at 0x%" PRIx64 " with 0x%" PRIx64 " bytes", name, gpa,
                       bytes);
    for (unsigned i = 0; i < ram->blocks; i++) {
        const struct ram_block *other = &ram->block[i];
        if (strcmp(other->name, name) == 0)
            return err_set(err, -EEXIST, "there are two RAM blocks named %s", name);
        if (gpa < other->gpa + other->bytes && other->gpa < gpa + bytes)
            return err_set(err, -EEXIST, "RAM block %s would lie on top of %s", name, other->name);
    }
    return 0;
}

/* Where the block starts within a huge page on the host decides whether huge pages can back it at all. Nothing is
 * reserved: a guest may be given more than the host has, as long as it does not touch it. */
static int map_private(struct ram_block *block, struct err *err)
{
    uint64_t room = block->bytes + (block->bytes >= HUGE_BYTES ? HUGE_BYTES : 0);
    uint8_t *map = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (map == MAP_FAILED)
        return err_set_errno(err, -errno, "mapping %" PRIu64 " MiB for RAM block %s", block->bytes >> 20, block->name);
    block->host = map;
    if (room > block->bytes) {
        uint64_t head = (block->gpa - (uintptr_t)map) % HUGE_BYTES;
        block->host = map + head;
        if (head > 0)
            munmap(map, head);
        if (HUGE_BYTES > head)
            munmap(block->host + block->bytes, HUGE_BYTES - head);
    }
    block->map_bytes = block->bytes;
    return 0;
}

/* A file of its own, with no name left: in mem_path (hugetlbfs or tmpfs), or anonymous in memory. */
static int open_file(const struct ram_block *block, const char *mem_path, struct err *err)
{
    char path[4096];

    if (!mem_path) {
        int fd = memfd_create(block->name, MFD_CLOEXEC);
        return fd >= 0 ? fd : err_set_errno(err, -errno, "making memory to share for RAM block %s", block->name);
    }
    if (snprintf(path, sizeof(path), "%s/godwit-ram-XXXXXX", mem_path) >= (int)sizeof(path))
        return err_set(err, -ENAMETOOLONG, "the memory path is longer than %zu bytes", sizeof(path));
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return err_set_errno(err, -errno, "making a memory file in %s", mem_path);
    unlink(path);
    return fd;
}

static int map_file(struct ram_block *block, const struct ram_options *options, struct err *err)
{
    struct statfs fs;
    int fd = open_file(block, options->mem_path, err);

    if (fd < 0)
        return fd;
    /* Huge page file systems want whole huge pages, and say their size as the block size. */
    uint64_t granule = fstatfs(fd, &fs) == 0 && fs.f_bsize > PAGE_BYTES ? (uint64_t)fs.f_bsize : PAGE_BYTES;
    block->map_bytes = round_up(block->bytes, granule);

    void *map = MAP_FAILED;
    /* Reserved, if it comes from a limited pool: better a sentence now than SIGBUS later. */
    if (ftruncate(fd, (off_t)block->map_bytes) == 0)
        map = mmap(NULL, block->map_bytes, PROT_READ | PROT_WRITE,
                   (options->share ? MAP_SHARED : MAP_PRIVATE) | (options->mem_path ? 0 : MAP_NORESERVE), fd, 0);
    int failed = map == MAP_FAILED ? -errno : 0;
    if (options->share && !failed)
        block->fd = fd;
    else
        close(fd);
    if (failed)
        return err_set_errno(err, failed, "mapping %" PRIu64 " MiB for RAM block %s", block->bytes >> 20, block->name);
    block->host = map;
    return 0;
}

int ram_add(struct ram *ram, const char *name, uint64_t gpa, uint64_t bytes, bool rom,
            const struct ram_options *options, struct err *err)
{
    static const struct ram_options plain;
    const struct ram_options *how = options ? options : &plain;

    assert(!ram->dirty);
    int failed = check_block(ram, name, gpa, bytes, err);
    if (failed)
        return failed;

    uint64_t first_page = round_up(ram_pages(ram), DIRTY_WORD_PAGES);
    struct ram_block *block = &ram->block[ram->blocks];
    *block = (struct ram_block){ .gpa = gpa, .bytes = bytes, .first_page = first_page, .rom = rom, .fd = -1 };
    memcpy(block->name, name, strlen(name) + 1);
    failed = how->share || how->mem_path ? map_file(block, how, err) : map_private(block, err);
    if (failed)
        return failed;
    block->anonymous = !how->share && !how->mem_path;
    block->fresh = true;
    /* Advice: a forked helper (an exec: channel) must not hold, nor copy on write, what the guest writes. */
    madvise(block->host, block->map_bytes, MADV_DONTFORK);
    ram->blocks++;
    return 0;
}

void ram_want_huge_pages(struct ram *ram)
{
    for (unsigned i = 0; i < ram->blocks; i++) /* advice: a kernel without them runs the guest as well, only slower */
        madvise(ram->block[i].host, ram->block[i].map_bytes, MADV_HUGEPAGE);
}

int ram_seal_layout(struct ram *ram, struct err *err)
{
    assert(!ram->dirty);
    ram->dirty = dirty_new(ram_pages(ram), err);
    if (!ram->dirty)
        return -ENOMEM;
    for (unsigned i = 0; i < ram->blocks; i++)
        dirty_add_range(ram->dirty, ram->block[i].first_page, ram->block[i].bytes >> PAGE_SHIFT);
    return 0;
}

void ram_free(struct ram *ram)
{
    if (!ram)
        return;
    dirty_free(ram->dirty);
    for (unsigned i = 0; i < ram->blocks; i++) {
        munmap(ram->block[i].host, ram->block[i].map_bytes);
        if (ram->block[i].fd >= 0)
            close(ram->block[i].fd);
    }
    if (ram->pagemap >= 0)
        close(ram->pagemap);
    free(ram);
}

/* --- finding ------------------------------------------------------------------------------------------ */

uint64_t ram_pages(const struct ram *ram)
{
    if (ram->blocks == 0)
        return 0;
    const struct ram_block *last = &ram->block[ram->blocks - 1];
    return last->first_page + (last->bytes >> PAGE_SHIFT);
}

struct ram_block *ram_block_by_name(struct ram *ram, const char *name)
{
    for (unsigned i = 0; i < ram->blocks; i++)
        if (strcmp(ram->block[i].name, name) == 0)
            return &ram->block[i];
    return NULL;
}

struct ram_block *ram_block_by_page(struct ram *ram, uint64_t page)
{
    for (unsigned i = 0; i < ram->blocks; i++)
        if (page - ram->block[i].first_page < ram->block[i].bytes >> PAGE_SHIFT)
            return &ram->block[i];
    return NULL;
}

struct ram_block *ram_block_at(struct ram *ram, uint64_t gpa, uint64_t bytes)
{
    for (unsigned i = 0; i < ram->blocks; i++) {
        uint64_t offset = gpa - ram->block[i].gpa;
        if (offset < ram->block[i].bytes)
            return bytes <= ram->block[i].bytes - offset ? &ram->block[i] : NULL;
    }
    return NULL;
}

/* Several threads may say so at once; none of them needs an order for it. */
static void no_longer_fresh(struct ram_block *block)
{
    if (__atomic_load_n(&block->fresh, __ATOMIC_RELAXED))
        __atomic_store_n(&block->fresh, false, __ATOMIC_RELAXED);
}

uint8_t *ram_ptr(struct ram *ram, uint64_t gpa, uint64_t bytes)
{
    struct ram_block *block = ram_block_at(ram, gpa, bytes);

    if (!block)
        return NULL;
    no_longer_fresh(block);
    return block->host + (gpa - block->gpa);
}

uint8_t *ram_page_host(struct ram *ram, uint64_t page)
{
    struct ram_block *block = ram_block_by_page(ram, page);

    return block ? block->host + ((page - block->first_page) << PAGE_SHIFT) : NULL;
}

/* --- reading and writing ------------------------------------------------------------------------------ */

/* The guest's side of a copy is accessed in naturally aligned pieces, the biggest that fit, so that an aligned ring
 * index is never torn. Acquire and release cost nothing on x86 and give devices the order they need: what was read
 * or written first through these functions is first. */
#define COPY_PIECE(type, guest, load_it)                                                                               \
    do {                                                                                                               \
        type piece;                                                                                                    \
        if (load_it) {                                                                                                 \
            piece = __atomic_load_n((const type *)(const void *)(guest), __ATOMIC_ACQUIRE);                            \
            memcpy(own, &piece, sizeof(piece));                                                                        \
        } else {                                                                                                       \
            memcpy(&piece, own, sizeof(piece));                                                                        \
            __atomic_store_n((type *)(void *)(guest), piece, __ATOMIC_RELEASE);                                        \
        }                                                                                                              \
    } while (0)

static inline __attribute__((always_inline)) void copy(uint8_t *guest, uint8_t *own, uint64_t bytes, bool load)
{
    while (bytes > 0) {
        uintptr_t at = (uintptr_t)guest;
        unsigned step = at % 8 == 0 && bytes >= 8   ? 8
                        : at % 4 == 0 && bytes >= 4 ? 4
                        : at % 2 == 0 && bytes >= 2 ? 2
                                                    : 1;
        switch (step) {
        case 8:
            for (; bytes >= 16; guest += 8, own += 8, bytes -= 8)
                COPY_PIECE(uint64_t, guest, load);
            COPY_PIECE(uint64_t, guest, load);
            break;
        case 4: COPY_PIECE(uint32_t, guest, load); break;
        case 2: COPY_PIECE(uint16_t, guest, load); break;
        default: COPY_PIECE(uint8_t, guest, load); break;
        }
        guest += step;
        own += step;
        bytes -= step;
    }
}

bool ram_read(struct ram *ram, uint64_t gpa, void *out, uint64_t bytes)
{
    struct ram_block *block = ram_block_at(ram, gpa, bytes);

    if (!block)
        return false;
    copy(block->host + (gpa - block->gpa), out, bytes, true);
    return true;
}

static uint8_t *write_begin(struct ram *ram, uint64_t gpa, uint64_t bytes, bool loader)
{
    struct ram_block *block = ram_block_at(ram, gpa, bytes);

    if (!block || (block->rom && !loader))
        return NULL;
    no_longer_fresh(block);
    atomic_fetch_add_explicit(&ram->writing, 1, memory_order_seq_cst); /* the data after it: see copy() */
    return block->host + (gpa - block->gpa);
}

uint8_t *ram_write_begin(struct ram *ram, uint64_t gpa, uint64_t bytes)
{
    return write_begin(ram, gpa, bytes, false);
}

void ram_write_end(struct ram *ram, uint64_t gpa, uint64_t bytes)
{
    const struct ram_block *block = ram_block_at(ram, gpa, bytes);

    assert(block);
    if (bytes > 0 && ram->dirty) {
        uint64_t first = ram_page_of(block, gpa), last = ram_page_of(block, gpa + bytes - 1);
        dirty_mark_range(ram->dirty, first, last - first + 1);
    }
    /* Released after the mark. That it was the last one is said in the same step: said later, it would be taken
     * for the end of a bracket that began in between. */
    uint64_t was = atomic_load_explicit(&ram->writing, memory_order_relaxed), now;
    do {
        assert((uint32_t)was > 0);
        now = was - 1 + ((uint32_t)was == 1 ? WRITING_NONE : 0);
    } while (
        !atomic_compare_exchange_weak_explicit(&ram->writing, &was, now, memory_order_release, memory_order_relaxed));
}

uint64_t ram_writing(const struct ram *ram)
{
    return atomic_load_explicit(&ram->writing, memory_order_acquire);
}

bool ram_written_since(const struct ram *ram, uint64_t token)
{
    uint64_t now = atomic_load_explicit(&ram->writing, memory_order_acquire);

    return (uint32_t)now == 0 || now / WRITING_NONE != token / WRITING_NONE;
}

static bool write_all(struct ram *ram, uint64_t gpa, const void *data, uint64_t bytes, bool loader)
{
    uint8_t *host = write_begin(ram, gpa, bytes, loader);

    if (!host)
        return false;
    copy(host, (uint8_t *)(uintptr_t)data, bytes, false);
    ram_write_end(ram, gpa, bytes);
    return true;
}

bool ram_write(struct ram *ram, uint64_t gpa, const void *data, uint64_t bytes)
{
    return write_all(ram, gpa, data, bytes, false);
}

bool ram_load(struct ram *ram, uint64_t gpa, const void *data, uint64_t bytes)
{
    trail_as("a loader");
    return write_all(ram, gpa, data, bytes, true);
}

/* --- pages -------------------------------------------------------------------------------------------- */

/* Atomics are not vectorised, so these loops move 8 bytes per cycle at best; unrolled they reach that. */
enum { WORDS_PER_PAGE = PAGE_BYTES / 8 };

void ram_copy_page_out(void *dst, const uint8_t *host_page)
{
    uint64_t *restrict to = dst;
    const uint64_t *restrict from = (const uint64_t *)(const void *)host_page;

#pragma GCC unroll 16
    for (unsigned i = 0; i < WORDS_PER_PAGE; i++)
        to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}

void ram_copy_page_in(uint8_t *host_page, const void *src)
{
    uint64_t *restrict to = (uint64_t *)(void *)host_page;
    const uint64_t *restrict from = src;

#pragma GCC unroll 16
    for (unsigned i = 0; i < WORDS_PER_PAGE; i++)
        __atomic_store_n(&to[i], from[i], __ATOMIC_RELAXED);
}

/* Two 16-byte lanes per step fill the load ports of any x86-64; the compiler makes plain words of it elsewhere. */
typedef uint64_t lanes __attribute__((vector_size(16), aligned(8), may_alias));

bool ram_page_is_zero(const void *page)
{
    const lanes *at = page;
    enum { LANES = PAGE_BYTES / sizeof(lanes), STEP = 8 };

    for (unsigned i = 0; i < LANES; i += STEP) {
        lanes all = at[i] | at[i + 1] | at[i + 2] | at[i + 3] | at[i + 4] | at[i + 5] | at[i + 6] | at[i + 7];
        if (all[0] | all[1])
            return false;
    }
    return true;
}

/* Of each page of this process the host tells 64 bits; the two highest are "in memory" and "swapped out". */
uint64_t ram_untouched(const struct ram *ram, uint64_t page)
{
    const struct ram_block *block = ram_block_by_page((struct ram *)(uintptr_t)ram, page);
    uint64_t told[DIRTY_WORD_PAGES], untouched = 0;

    assert(page % DIRTY_WORD_PAGES == 0);
    if (!block || !block->anonymous || ram->pagemap < 0)
        return 0;
    uint64_t first = page - block->first_page, pages = (block->bytes >> PAGE_SHIFT) - first;
    size_t bytes = (pages < DIRTY_WORD_PAGES ? pages : DIRTY_WORD_PAGES) * sizeof(told[0]);
    uintptr_t host = (uintptr_t)block->host + (first << PAGE_SHIFT);

    if (pread(ram->pagemap, told, bytes, (off_t)(host / PAGE_BYTES * sizeof(told[0]))) != (ssize_t)bytes)
        return 0;
    for (unsigned i = 0; i < bytes / sizeof(told[0]); i++)
        untouched |= (uint64_t)(told[i] >> 62 == 0) << i;
    return untouched;
}

bool ram_forget(struct ram_block *block)
{
    return block->fd < 0 && madvise(block->host, block->map_bytes, MADV_DONTNEED) == 0;
}

void ram_touch(struct ram_block *block, uint64_t offset, uint64_t bytes)
{
    assert(offset <= block->bytes && bytes <= block->bytes - offset);
    uint64_t begin = offset / PAGE_BYTES * PAGE_BYTES, end = round_up(offset + bytes, PAGE_BYTES);

#ifdef MADV_POPULATE_WRITE
    if (madvise(block->host + begin, end - begin, MADV_POPULATE_WRITE) == 0)
        return;
#endif
    /* An add of nothing is a write that takes no other writer's data away. */
    for (uint64_t at = begin; at < end; at += PAGE_BYTES)
        __atomic_fetch_add(&block->host[at], 0, __ATOMIC_RELAXED);
}
