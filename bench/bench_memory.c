/* What dirty tracking costs: stores, harvests, page copies. Prints a small table; numbers are for one thread. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "memory/ram.h"

enum { RAM_PAGES_16G = 4 << 20, STORE_PAGES = 4096, COPY_PAGES = 16384 };

static const uint64_t BASE = 0x80000000;

static void row(const char *what, double value, const char *unit)
{
    printf("%-58s %10.2f %s\n", what, value, unit);
}

/* A store as generated code does it: one compare of a word that carries address and tracked bit together. */
static uint64_t stores(struct ram *ram, uint64_t *entry, uint64_t count)
{
    uint8_t *host = ram->block[0].host;
    uint64_t slow = 0;

    for (uint64_t i = 0; i < count; i++) {
        uint64_t page = i * 7 % STORE_PAGES;
        if (__builtin_expect(entry[page] != page << PAGE_SHIFT, 0)) {
            dirty_mark(ram->dirty, page);
            entry[page] = page << PAGE_SHIFT;
            slow++;
        }
        __atomic_store_n((uint64_t *)(void *)(host + (page << PAGE_SHIFT) + i % 512 * 8), i, __ATOMIC_RELAXED);
    }
    return slow;
}

static void bench_stores(void)
{
    static uint64_t entry[STORE_PAGES];
    const uint64_t count = 1 << 24;
    struct ram *ram = ram_new();

    if (!ram || ram_add(ram, "ram", BASE, (uint64_t)STORE_PAGES * PAGE_BYTES, false, NULL, NULL) < 0 ||
        ram_seal_layout(ram, NULL) < 0)
        abort();
    for (uint64_t page = 0; page < STORE_PAGES; page++)
        entry[page] = page << PAGE_SHIFT;
    ram_touch(&ram->block[0], 0, ram->block[0].bytes);
    stores(ram, entry, count);
    int64_t start = clock_now_ns();
    stores(ram, entry, count);
    row("store, nobody tracks", (double)(clock_now_ns() - start) / (double)count, "ns");

    dirty_start(ram->dirty, DIRTY_MIGRATION, false);
    start = clock_now_ns();
    stores(ram, entry, count);
    row("store, tracked, page marked before", (double)(clock_now_ns() - start) / (double)count, "ns");
    for (uint64_t page = 0; page < STORE_PAGES; page++)
        entry[page] |= 1;
    start = clock_now_ns();
    uint64_t slow = stores(ram, entry, STORE_PAGES);
    row("first store to a page after a harvest", (double)(clock_now_ns() - start) / (double)slow, "ns");
    ram_free(ram);
}

static uint64_t harvest(struct dirty *dirty)
{
    uint64_t pages = 0, words = dirty_words(dirty);

    for (uint64_t word = 0; (word = dirty_next_word(dirty, DIRTY_MIGRATION, word)) < words; word++)
        pages += (unsigned)__builtin_popcountll(dirty_take_word(dirty, DIRTY_MIGRATION, word));
    dirty_revoke_wait(dirty, dirty_revoke_begin(dirty));
    return pages;
}

static void bench_harvest(void)
{
    struct dirty *dirty = dirty_new(RAM_PAGES_16G, NULL);

    if (!dirty)
        abort();
    int64_t start = clock_now_ns();
    dirty_start(dirty, DIRTY_MIGRATION, true);
    row("mark all of 16 GiB", (double)(clock_now_ns() - start) / 1e6, "ms");
    start = clock_now_ns();
    uint64_t count = dirty_count(dirty, DIRTY_MIGRATION);
    row("count, 16 GiB all dirty", (double)(clock_now_ns() - start) / 1e6, "ms");
    start = clock_now_ns();
    if (harvest(dirty) != count)
        abort();
    row("harvest, 16 GiB all dirty (bitmap only)", (double)(clock_now_ns() - start) / 1e6, "ms");
    for (uint64_t i = 0; i < 5; i++)
        dirty_mark(dirty, i * 800000);
    start = clock_now_ns();
    if (harvest(dirty) != 5)
        abort();
    row("harvest, 16 GiB with 5 dirty pages", (double)(clock_now_ns() - start) / 1e3, "us");
    dirty_free(dirty);
}

static double gb_per_s(int64_t start)
{
    return (double)COPY_PAGES * PAGE_BYTES / (double)(clock_now_ns() - start);
}

static void bench_pages(void)
{
    static uint64_t own[PAGE_BYTES / 8];
    struct ram *ram = ram_new();
    uint64_t zero = 0;

    if (!ram || ram_add(ram, "ram", BASE, (uint64_t)COPY_PAGES * PAGE_BYTES, false, NULL, NULL) < 0)
        abort();
    ram_touch(&ram->block[0], 0, ram->block[0].bytes);
    int64_t start = clock_now_ns();
    for (uint64_t page = 0; page < COPY_PAGES; page++)
        ram_copy_page_out(own, ram_page_host(ram, page));
    row("page copy out of 64 MiB", gb_per_s(start), "GB/s");
    start = clock_now_ns();
    for (uint64_t page = 0; page < COPY_PAGES; page++) {
        memcpy(own, ram_page_host(ram, page), PAGE_BYTES);
        __asm__ volatile("" : : "r"(own) : "memory");
    }
    row("  the same with memcpy", gb_per_s(start), "GB/s");
    start = clock_now_ns();
    for (uint64_t page = 0; page < COPY_PAGES; page++)
        ram_copy_page_in(ram_page_host(ram, page), own);
    row("page copy into 64 MiB", gb_per_s(start), "GB/s");
    memset(own, 0, sizeof(own));
    start = clock_now_ns();
    for (uint64_t page = 0; page < COPY_PAGES; page++)
        zero += ram_page_is_zero(own);
    row("zero test of a page in the cache", gb_per_s(start), "GB/s");
    if (zero != COPY_PAGES)
        abort();
    ram_free(ram);
}

int main(void)
{
    bench_stores();
    bench_harvest();
    bench_pages();
    return 0;
}
