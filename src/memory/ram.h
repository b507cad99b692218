/* Guest RAM: named blocks, and the only functions that touch them.
 *
 * Blocks are host memory (private anonymous with huge pages advised; memfd when shared). Pages of all blocks are
 * numbered together: block->first_page is a multiple of DIRTY_WORD_PAGES, so a dirty word never spans blocks.
 * Blocks are added before the first vCPU starts and stay until ram_free().
 *
 * Guest accesses and page copies are relaxed atomics of their natural size (another hart may be writing), so that
 * ThreadSanitizer stays useful everywhere else. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "memory/dirty.h"

enum { PAGE_SHIFT = 12, PAGE_BYTES = 1 << PAGE_SHIFT, RAM_BLOCKS_MAX = 8, RAM_NAME_MAX = 64 };

struct ram_block {
    char name[RAM_NAME_MAX]; /* "riscv_virt_board.ram", "riscv_virt_board.mrom" */
    uint64_t gpa, bytes;     /* both page aligned */
    uint8_t *host;
    uint64_t first_page; /* global number of its first page */
    bool rom;            /* guest stores raise access faults; loaders may write */
    bool fresh;          /* no ram_ptr(), ram_write() or ram_load() so far: all zero, but for what the
                                    caller itself stored through ram_page_host(). Relaxed atomic */
    uint64_t map_bytes;  /* of the host mapping: bytes, rounded up to the file system's pages */
    int fd;              /* of shared memory, for another process to map; else -1 */
    bool anonymous;      /* no file behind it: what nobody touched is zero */
};

struct ram {
    struct ram_block block[RAM_BLOCKS_MAX];
    unsigned blocks;
    int pagemap;              /* the host's word on what was touched; -1: it does not say */
    struct dirty *dirty;      /* made by ram_seal_layout() */
    _Atomic uint64_t writing; /* low half: brackets that are open now; high half: how often the last one ended */
};

struct ram_options {
    bool share;           /* memfd, so that another process may map it */
    const char *mem_path; /* a hugetlbfs or tmpfs folder, or NULL */
};

struct ram *ram_new(void);
int ram_add(struct ram *ram, const char *name, uint64_t gpa, uint64_t bytes, bool rom,
            const struct ram_options *options, struct err *err);
int ram_seal_layout(struct ram *ram, struct err *err); /* all blocks are there: makes the dirty maps (which then
                                                           never hold a page between blocks) */
void ram_free(struct ram *ram);
/* From now on the host may back it by huge pages. Where a guest arrives not before it runs: making room for one can take the host
 * longer than loading what belongs into it, and the guest that is loaded touches few of its pages at once. */
void ram_want_huge_pages(struct ram *ram);

uint64_t ram_pages(const struct ram *ram); /* highest page number + 1, holes between blocks included */
struct ram_block *ram_block_by_name(struct ram *ram, const char *name);
struct ram_block *ram_block_by_page(struct ram *ram, uint64_t page);           /* NULL: a hole */
struct ram_block *ram_block_at(struct ram *ram, uint64_t gpa, uint64_t bytes); /* wholly inside one, or NULL */

/* Host address of a guest-physical range, or NULL when it is not wholly inside one block. For vCPU slow paths and
 * TLB refills: no pointer is kept across a safe point. */
uint8_t *ram_ptr(struct ram *ram, uint64_t gpa, uint64_t bytes);
/* Global page number; gpa must lie in `block`. */
static inline uint64_t ram_page_of(const struct ram_block *block, uint64_t gpa)
{
    return block->first_page + ((gpa - block->gpa) >> PAGE_SHIFT);
}
uint8_t *ram_page_host(struct ram *ram, uint64_t page); /* NULL: a hole */

/* Reading by devices and loaders. False: not RAM. Any thread. */
bool ram_read(struct ram *ram, uint64_t gpa, void *out, uint64_t bytes);

/* Writing by everybody who is not a vCPU store: permission, data, mark. A write that does not lie in one RAM block
 * is refused whole. ram_write() is begin + copy + end. `loader` may write ROM blocks. Any thread. */
uint8_t *ram_write_begin(struct ram *ram, uint64_t gpa, uint64_t bytes);
void ram_write_end(struct ram *ram, uint64_t gpa, uint64_t bytes);
bool ram_write(struct ram *ram, uint64_t gpa, const void *data, uint64_t bytes);
/* Did all brackets that were open at ram_writing(), which gives the token, come to their end, with their marks made?
 * Newer ones may be open. False may also mean that since then one was always open, though not the same. Any thread; to
 * learn about data that was seen, take the token after the look at it (acquire). */
uint64_t ram_writing(const struct ram *ram);
bool ram_written_since(const struct ram *ram, uint64_t token);
bool ram_load(struct ram *ram, uint64_t gpa, const void *data, uint64_t bytes); /* loader: ROM too */

/* Copy a page that the guest may be writing at this moment, in or out. dst/src need 8-byte alignment. */
void ram_copy_page_out(void *dst, const uint8_t *host_page);
void ram_copy_page_in(uint8_t *host_page, const void *src);
bool ram_page_is_zero(const void *page); /* of a private copy, PAGE_BYTES */

/* Which of the 64 pages from `page` on (a multiple of 64) hold zeroes because nobody has touched them since they were mapped: a
 * bit each, asked of the host without a look at the pages, which would make them touched. 0 where the host does not say.
 * A store that was visible before the call is seen. Any thread. */
uint64_t ram_untouched(const struct ram *ram, uint64_t page);

/* Zero all of a block by giving its memory back to the host. False where that cannot be: shared, or of a file; then nothing
 * has changed. No vCPU and no device runs. */
bool ram_forget(struct ram_block *block);

/* Touch a range in parallel-friendly pieces (the load workers' way of getting huge pages ahead of the stream). */
void ram_touch(struct ram_block *block, uint64_t offset, uint64_t bytes);
