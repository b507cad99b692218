#include "migration/audit.h"

#include <errno.h>
#include <inttypes.h>

#include "migration/threads/digest.h"
#include "migration/threads/scan.h"

enum { PICKS_FOR_DATA = 8 }; /* most of a young guest is zeros: tries to find a page that is not */

void audit_init(struct audit *audit, struct ram *ram, struct unit_hash (*sent)(const void *opaque, uint64_t page),
                const void *opaque, const struct digest_key *key, uint64_t seed)
{
    *audit = (struct audit){ .ram = ram, .sent = sent, .opaque = opaque, .key = key, .random = seed };
}

uint64_t audit_sample(uint64_t permille, uint64_t units)
{
    if (permille == 0 || permille >= AUDIT_ALL)
        return permille ? UINT64_MAX : 0;
    uint64_t some = units / AUDIT_ALL * permille + units % AUDIT_ALL * permille / AUDIT_ALL;
    return some < AUDIT_PAGES_MIN ? AUDIT_PAGES_MIN : some;
}

/* --- which pages ------------------------------------------------------------------------------------------ */

static uint64_t existing(const struct ram *ram)
{
    uint64_t pages = 0;
    for (unsigned i = 0; i < ram->blocks; i++)
        pages += ram->block[i].bytes >> PAGE_SHIFT;
    return pages;
}

/* The n-th page that exists. */
static uint64_t page_at(const struct ram *ram, uint64_t n)
{
    unsigned i = 0;
    for (; n >= ram->block[i].bytes >> PAGE_SHIFT; i++)
        n -= ram->block[i].bytes >> PAGE_SHIFT;
    return ram->block[i].first_page + n;
}

/* A Weyl sequence behind a finalizer: any seed will do. */
static uint64_t next_random(struct audit *audit)
{
    uint64_t v = audit->random += UINT64_C(0x9e3779b97f4a7c15);
    v = (v ^ (v >> 32)) * UINT64_C(0xd6e8feb86659fd93);
    v = (v ^ (v >> 32)) * UINT64_C(0xd6e8feb86659fd93);
    return v ^ (v >> 32);
}

static uint64_t pick(struct audit *audit, uint64_t pages, bool data)
{
    uint64_t page = page_at(audit->ram, next_random(audit) % pages);
    for (int i = 1; data && i < PICKS_FOR_DATA && unit_hash_is_zero(audit->sent(audit->opaque, page)); i++)
        page = page_at(audit->ram, next_random(audit) % pages);
    return page;
}

/* --- one page --------------------------------------------------------------------------------------------- */

static bool marked(const struct audit *audit, uint64_t page)
{
    return dirty_test(audit->ram->dirty, DIRTY_MIGRATION, page);
}

static struct unit_hash hash_now(const struct audit *audit, uint64_t page)
{
    _Alignas(64) uint8_t copy[PAGE_BYTES];
    ram_copy_page_out(copy, ram_page_host(audit->ram, page));
#ifndef __SANITIZE_THREAD__                    /* it knows no fences */
    atomic_thread_fence(memory_order_acquire); /* whoever wrote what was read: his mark, his bracket, come after */
#endif
    return unit_is_zero(copy, PAGE_BYTES) ? DIGEST_ZERO : digest_hash(audit->key, copy, PAGE_BYTES);
}

static bool as_sent(const struct audit *audit, uint64_t page)
{
    return unit_hash_equal(hash_now(audit, page), audit->sent(audit->opaque, page));
}

/* Different from what was sent, and nobody has said so. */
static bool suspicious(const struct audit *audit, uint64_t page)
{
    return !marked(audit, page) && !as_sent(audit, page) && !marked(audit, page);
}

/* Zero when it was sent, and nobody has touched it since: a look would touch it. */
static bool untouched(const struct audit *audit, uint64_t page)
{
    uint64_t bit = page % DIRTY_WORD_PAGES;
    return unit_hash_is_zero(audit->sent(audit->opaque, page)) && ram_untouched(audit->ram, page - bit) >> bit & 1;
}

static void look(struct audit *audit, uint64_t page)
{
    audit->pages++;
    if (untouched(audit, page))
        return;
    for (unsigned i = 0; i < audit->suspects; i++)
        if (audit->suspect[i] == page)
            return;
    if (audit->suspects < AUDIT_SUSPECTS_MAX && suspicious(audit, page))
        audit->suspect[audit->suspects++] = page;
}

/* --- judging ---------------------------------------------------------------------------------------------- */

static void name_miss(const struct audit *audit, uint64_t page, struct err *err)
{
    const struct ram_block *block = ram_block_by_page(audit->ram, page);
    uint64_t index = page - block->first_page;
    err_set(err, -EBADE,
            "the auditor found a page that changed without a mark: page %" PRIu64 " of %s at 0x%" PRIx64
            ", last marked by %s, sent as %016" PRIx64 ", now %016" PRIx64,
            index, block->name, block->gpa + (index << PAGE_SHIFT), dirty_last_marker(audit->ram->dirty, page).text,
            audit->sent(audit->opaque, page).word[0], hash_now(audit, page).word[0]);
}

/* Kept suspects may have been marked, or sent again, since. */
static void look_again(struct audit *audit)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < audit->suspects; i++)
        if (suspicious(audit, audit->suspect[i]))
            audit->suspect[kept++] = audit->suspect[i];
    audit->suspects = kept;
}

/* Everybody who wrote what made a page suspicious has come to his mark. A bit that is clear now was forgotten; what
 * others write from here on does not matter, so this look at the bit comes before the one at the page. */
static int judge(struct audit *audit, struct err *err)
{
    int rc = 0;
    for (unsigned i = 0; i < audit->suspects; i++) {
        uint64_t page = audit->suspect[i];
        if (marked(audit, page) || as_sent(audit, page))
            continue;
        audit->misses++;
        if (rc == 0)
            name_miss(audit, page, err);
        rc = -EBADE;
    }
    audit->suspects = 0;
    return rc;
}

int audit_round(struct audit *audit, uint64_t sample, bool sealed, struct err *err)
{
    struct dirty *dirty = audit->ram->dirty;
    uint64_t pages = existing(audit->ram);
    look_again(audit);
    if (sealed && sample)
        sample = sample > pages / AUDIT_SEALED_TIMES ? pages : sample * AUDIT_SEALED_TIMES;
    for (uint64_t i = 0; i < sample && i < pages; i++)
        look(audit, sample >= pages ? page_at(audit->ram, i) : pick(audit, pages, i % 2));

    if (audit->suspects) {
        uint64_t writing = ram_writing(audit->ram); /* whose data was read above is in it, or has marked */
        dirty_revoke_wait(dirty, dirty_revoke_begin(dirty));
        if (sealed || ram_written_since(audit->ram, writing)) {
            int rc = judge(audit, err);
            if (rc < 0)
                return rc;
        }
    }
    uint64_t unsent = sealed && sample ? dirty_count(dirty, DIRTY_MIGRATION) : 0;
    if (unsent) {
        audit->misses += unsent;
        return err_set(err, -EBADE, "the auditor found %" PRIu64 " pages that were marked after the last harvest",
                       unsent);
    }
    return 0;
}
