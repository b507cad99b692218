#include "memory/dirty.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

/* Looks at the writers before the revoker blocks: long enough for a vCPU in generated code to reach its next block,
 * short enough to cost nothing on a machine with more vCPUs than CPUs. */
enum { REVOKE_SPINS = 100, REVOKE_SPIN_PAUSES = 20 };

struct dirty_map {
    _Atomic uint64_t *word;    /* one bit per page */
    _Atomic uint64_t *summary; /* one bit per word: it may hold a bit */
};

struct dirty_range {
    uint64_t page, count;
};

struct dirty {
    /* fixed after new */
    uint64_t pages, words, summaries;
    struct dirty_map map[DIRTY_CLIENTS];
    _Atomic uint64_t *watched; /* bit per page: a mark of it is one for CODE too */

    /* fixed before the first dirty_start(): the pages that exist */
    struct dirty_range range[DIRTY_RANGES_MAX];
    unsigned ranges;

    /* atomic */
    _Atomic unsigned on;      /* bit per client */
    _Atomic bool sealed;      /* a mark is a bug */
    _Atomic uint64_t epoch;   /* raised by every revoke; starts at 1, so that 0 means "nothing new" */
    _Atomic unsigned waiters; /* revokers that sleep on `acked`; written under lock, read by the writers without */

    struct lock lock;
    struct cond acked;
    struct cond kicked;
    struct dirty_writer *writer[DIRTY_WRITERS_MAX]; /* under lock */
    unsigned writers;                               /* under lock */
    unsigned kickers;                               /* under lock: revokers that call kick() without it */

    struct trail trail;
};

static uint64_t div_up(uint64_t n, uint64_t by)
{
    return n / by + (n % by != 0);
}

/* --- making and freeing ------------------------------------------------------------------------------- */

/* calloc of something this big is untouched zero pages: a map costs host memory only where the guest writes. */
static int map_init(struct dirty_map *map, uint64_t words, uint64_t summaries)
{
    map->word = calloc(words, sizeof(*map->word));
    map->summary = calloc(summaries, sizeof(*map->summary));
    return map->word && map->summary ? 0 : -ENOMEM;
}

struct dirty *dirty_new(uint64_t pages, struct err *err)
{
    struct dirty *dirty = calloc(1, sizeof(*dirty));
    if (!dirty) {
        err_set(err, -ENOMEM, "no memory for the dirty maps");
        return NULL;
    }
    dirty->pages = pages;
    dirty->words = div_up(pages, DIRTY_WORD_PAGES);
    dirty->summaries = div_up(dirty->words, 64);
    lock_init(&dirty->lock, LOCK_DIRTY);
    cond_init(&dirty->acked);
    cond_init(&dirty->kicked);
    atomic_init(&dirty->epoch, 1);
    for (int client = 0; client < DIRTY_CLIENTS; client++) {
        if (map_init(&dirty->map[client], dirty->words + 1, dirty->summaries + 1) < 0) {
            err_set(err, -ENOMEM, "no memory for the dirty maps of %llu pages", (unsigned long long)pages);
            dirty_free(dirty);
            return NULL;
        }
    }
    dirty->watched = calloc(dirty->words + 1, sizeof(*dirty->watched));
    if (!dirty->watched) {
        err_set(err, -ENOMEM, "no memory for the dirty maps of %llu pages", (unsigned long long)pages);
        dirty_free(dirty);
        return NULL;
    }
    return dirty;
}

void dirty_free(struct dirty *dirty)
{
    if (!dirty)
        return;
    assert(dirty->writers == 0);
    for (int client = 0; client < DIRTY_CLIENTS; client++) {
        free(dirty->map[client].word);
        free(dirty->map[client].summary);
    }
    free(dirty->watched);
    trail_free(&dirty->trail);
    cond_destroy(&dirty->kicked);
    cond_destroy(&dirty->acked);
    lock_destroy(&dirty->lock);
    free(dirty);
}

void dirty_add_range(struct dirty *dirty, uint64_t page, uint64_t count)
{
    assert(dirty->ranges < DIRTY_RANGES_MAX);
    assert(page % DIRTY_WORD_PAGES == 0);
    assert(page <= dirty->pages && count <= dirty->pages - page);
    dirty->range[dirty->ranges++] = (struct dirty_range){ page, count };
}

uint64_t dirty_pages(const struct dirty *dirty)
{
    return dirty->pages;
}

uint64_t dirty_words(const struct dirty *dirty)
{
    return dirty->words;
}

/* --- marking ------------------------------------------------------------------------------------------ */

/* Between a device's data and its look at "who tracks?": if that look says "nobody", then a harvester that turns
 * tracking on sees the data. Needs a full barrier, or the look overtakes the data on every host there is.
 * ThreadSanitizer knows no fences; for it a read-modify-write of the same variable does the same. */
static unsigned clients_after_data(struct dirty *dirty)
{
#ifdef __SANITIZE_THREAD__
    return atomic_fetch_or_explicit(&dirty->on, 0, memory_order_seq_cst);
#else
    atomic_thread_fence(memory_order_seq_cst);
    return atomic_load_explicit(&dirty->on, memory_order_seq_cst);
#endif
}

/* Word first, then summary, as the harvester clears them the other way round: so a set bit is always found. The
 * look at the summary is allowed, unlike one at the word: it follows a sequentially consistent read-modify-write
 * of the word, and a summary bit that is seen set will be cleared before the word is taken. */
static uint64_t map_or(struct dirty_map *map, uint64_t word, uint64_t bits)
{
    uint64_t bit = UINT64_C(1) << word % 64;
    uint64_t before = atomic_fetch_or_explicit(&map->word[word], bits, memory_order_seq_cst);

    if (!(atomic_load_explicit(&map->summary[word / 64], memory_order_seq_cst) & bit))
        atomic_fetch_or_explicit(&map->summary[word / 64], bit, memory_order_seq_cst);
    return before;
}

static uint64_t low_bits(uint64_t count)
{
    return count >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << count) - 1;
}

static void map_or_range(struct dirty_map *map, uint64_t page, uint64_t count)
{
    while (count > 0) {
        uint64_t skip = page % DIRTY_WORD_PAGES;
        uint64_t some = DIRTY_WORD_PAGES - skip < count ? DIRTY_WORD_PAGES - skip : count;

        map_or(map, page / DIRTY_WORD_PAGES, low_bits(some) << skip);
        page += some;
        count -= some;
    }
}

bool dirty_tracking(const struct dirty *dirty)
{
    return atomic_load_explicit(&dirty->on, memory_order_seq_cst) != 0;
}

bool dirty_client_on(const struct dirty *dirty, enum dirty_client client)
{
    return atomic_load_explicit(&dirty->on, memory_order_seq_cst) & 1u << client;
}

void dirty_watch(struct dirty *dirty, uint64_t page)
{
    /* Before the page's bytes are read: the watcher's half of a Dekker pair with whoever writes and then marks. */
    atomic_fetch_or_explicit(&dirty->watched[page / DIRTY_WORD_PAGES], UINT64_C(1) << page % DIRTY_WORD_PAGES,
                             memory_order_seq_cst);
}

void dirty_unwatch(struct dirty *dirty, uint64_t page)
{
    atomic_fetch_and_explicit(&dirty->watched[page / DIRTY_WORD_PAGES], ~(UINT64_C(1) << page % DIRTY_WORD_PAGES),
                              memory_order_relaxed); /* a mark too many does no harm */
}

bool dirty_watched(const struct dirty *dirty, uint64_t page)
{
    return atomic_load_explicit(&dirty->watched[page / DIRTY_WORD_PAGES], memory_order_seq_cst) >>
               page % DIRTY_WORD_PAGES &
           1;
}

void dirty_trail_start(struct dirty *dirty)
{
    trail_start(&dirty->trail, dirty->pages);
}

void dirty_trail_stop(struct dirty *dirty)
{
    trail_stop(&dirty->trail);
}

struct trail_text dirty_last_marker(const struct dirty *dirty, uint64_t page)
{
    return trail_text(&dirty->trail, page);
}

/* After clients_after_data()'s barrier. */
static void mark_watched(struct dirty *dirty, uint64_t page, uint64_t count)
{
    while (count > 0) {
        uint64_t skip = page % DIRTY_WORD_PAGES;
        uint64_t some = DIRTY_WORD_PAGES - skip < count ? DIRTY_WORD_PAGES - skip : count;
        uint64_t watched = atomic_load_explicit(&dirty->watched[page / DIRTY_WORD_PAGES], memory_order_seq_cst) &
                           low_bits(some) << skip;

        if (watched)
            map_or(&dirty->map[DIRTY_CODE], page / DIRTY_WORD_PAGES, watched);
        page += some;
        count -= some;
    }
}

void dirty_mark_range(struct dirty *dirty, uint64_t page, uint64_t count)
{
    assert(page <= dirty->pages && count <= dirty->pages - page);
    assert(!atomic_load_explicit(&dirty->sealed, memory_order_relaxed));
    unsigned on = clients_after_data(dirty);

    for (int client = 0; client < DIRTY_CLIENTS; client++)
        if (on & 1u << client)
            map_or_range(&dirty->map[client], page, count);
    mark_watched(dirty, page, count);
    if (trail_on(&dirty->trail))
        trail_note(&dirty->trail, page, count);
}

void dirty_mark(struct dirty *dirty, uint64_t page)
{
    dirty_mark_range(dirty, page, 1);
}

/* A look is allowed here, though what it sees may be old: older than the writer's last ack it is not, since the poll in
 * front of that acquired all that was cleared before; and whoever clears the bit from now on waits for the next ack, which
 * follows the store. Both bits must be seen: who has set the first may take its time over the second, and the writer's
 * own fence.i, which looks for marks by summary, may come before that. True: it was not set. */
static bool map_or_unless_set(struct dirty_map *map, uint64_t word, uint64_t bit)
{
    if (!(atomic_load_explicit(&map->word[word], memory_order_relaxed) & bit) ||
        !(atomic_load_explicit(&map->summary[word / 64], memory_order_relaxed) & UINT64_C(1) << word % 64))
        return !(map_or(map, word, bit) & bit);
    return false;
}

bool dirty_mark_ahead(struct dirty *dirty, struct dirty_writer *writer, uint64_t page)
{
    uint64_t word = page / DIRTY_WORD_PAGES, bit = UINT64_C(1) << page % DIRTY_WORD_PAGES;
    unsigned on = atomic_load_explicit(&dirty->on, memory_order_relaxed); /* as of the last poll, at least */
    bool fresh = false;

    assert(page < dirty->pages);
    assert(!atomic_load_explicit(&dirty->sealed, memory_order_relaxed));
    if (trail_on(&dirty->trail))
        trail_note_vcpu(&dirty->trail, page, writer->number);
    for (int client = 0; client < DIRTY_CLIENTS; client++)
        if (on & 1u << client)
            fresh |= map_or_unless_set(&dirty->map[client], word, bit) && client == DIRTY_MIGRATION;
    if (dirty_watched(dirty, page))
        map_or_unless_set(&dirty->map[DIRTY_CODE], word, bit);
    if (!(on & 1u << DIRTY_MIGRATION))
        return false;
    bool touch = quota_count(&writer->quota, page, fresh);
    return quota_is_set(&writer->quota) && quota_spend(&writer->quota, touch, fresh, clock_now_ns());
}

void dirty_mark_client(struct dirty *dirty, enum dirty_client client, uint64_t page, uint64_t count)
{
    assert(page <= dirty->pages && count <= dirty->pages - page);
    map_or_range(&dirty->map[client], page, count);
}

/* --- writers ------------------------------------------------------------------------------------------ */

void dirty_writer_register(struct dirty *dirty, struct dirty_writer *writer)
{
    lock(&dirty->lock);
    assert(dirty->writers < DIRTY_WRITERS_MAX);
    /* It has no write entries yet, so there is nothing to re-arm. */
    atomic_store_explicit(&writer->acked, atomic_load_explicit(&dirty->epoch, memory_order_seq_cst),
                          memory_order_seq_cst);
    dirty->writer[dirty->writers++] = writer;
    unlock(&dirty->lock);
}

static void wake_revokers(struct dirty *dirty)
{
    /* Sequentially consistent against revoke_wait: either it sees our acknowledgement, or we see it waiting. */
    if (atomic_load_explicit(&dirty->waiters, memory_order_seq_cst) == 0)
        return;
    lock(&dirty->lock);
    cond_broadcast(&dirty->acked);
    unlock(&dirty->lock);
}

void dirty_writer_unregister(struct dirty *dirty, struct dirty_writer *writer)
{
    lock(&dirty->lock);
    unsigned at = 0;
    while (at < dirty->writers && dirty->writer[at] != writer)
        at++;
    assert(at < dirty->writers);
    dirty->writer[at] = dirty->writer[--dirty->writers];
    /* A revoker may hold a copy of the list; the caller is about to free what it points to. */
    while (dirty->kickers > 0)
        cond_wait(&dirty->kicked, &dirty->lock);
    cond_broadcast(&dirty->acked);
    unlock(&dirty->lock);
}

uint64_t dirty_writer_poll(struct dirty *dirty, struct dirty_writer *writer)
{
    /* Sequentially consistent: the other half of unpark's Dekker pair, and whoever sees the new epoch also sees
     * the client flags and the cleared words from before it. */
    uint64_t epoch = atomic_load_explicit(&dirty->epoch, memory_order_seq_cst);

    return epoch == atomic_load_explicit(&writer->acked, memory_order_relaxed) ? 0 : epoch;
}

void dirty_writer_ack(struct dirty *dirty, struct dirty_writer *writer, uint64_t epoch)
{
    assert(epoch <= atomic_load_explicit(&dirty->epoch, memory_order_relaxed));
    assert(epoch >= atomic_load_explicit(&writer->acked, memory_order_relaxed));
    /* Release part: every store of the old window happens before the revoker's copy. */
    atomic_store_explicit(&writer->acked, epoch, memory_order_seq_cst);
    wake_revokers(dirty);
}

void dirty_writer_park(struct dirty *dirty, struct dirty_writer *writer)
{
    assert(!atomic_load_explicit(&writer->parked, memory_order_relaxed));
    atomic_store_explicit(&writer->parked, true, memory_order_seq_cst);
    wake_revokers(dirty);
}

void dirty_writer_unpark(struct dirty *dirty, struct dirty_writer *writer)
{
    (void)dirty;
    assert(atomic_load_explicit(&writer->parked, memory_order_relaxed));
    /* Before the poll that follows: a revoker that still saw us parked had raised the epoch before. */
    atomic_store_explicit(&writer->parked, false, memory_order_seq_cst);
}

/* --- quotas --------------------------------------------------------------------------------------------- */

void dirty_quota_set(struct dirty *dirty, unsigned number, double pages_per_s, double work_per_s)
{
    lock(&dirty->lock);
    for (unsigned i = 0; i < dirty->writers; i++)
        if (dirty->writer[i]->number == number)
            quota_set(&dirty->writer[i]->quota, pages_per_s, work_per_s);
    unlock(&dirty->lock);
}

void dirty_quota_window(struct dirty *dirty, uint32_t window)
{
    lock(&dirty->lock);
    for (unsigned i = 0; i < dirty->writers; i++)
        quota_window(&dirty->writer[i]->quota, window);
    unlock(&dirty->lock);
}

void dirty_quota_clear(struct dirty *dirty)
{
    lock(&dirty->lock);
    for (unsigned i = 0; i < dirty->writers; i++)
        quota_set(&dirty->writer[i]->quota, 0, 0);
    unlock(&dirty->lock);
}

unsigned dirty_quota_stats(struct dirty *dirty, struct quota_stats out[DIRTY_WRITERS_MAX])
{
    unsigned count = 0;

    memset(out, 0, DIRTY_WRITERS_MAX * sizeof(*out));
    lock(&dirty->lock);
    for (unsigned i = 0; i < dirty->writers; i++) {
        unsigned number = dirty->writer[i]->number;
        quota_stats(&dirty->writer[i]->quota, &out[number]);
        count = number >= count ? number + 1 : count;
    }
    unlock(&dirty->lock);
    return count;
}

/* --- revoking ----------------------------------------------------------------------------------------- */

/* Sequentially consistent: the acquire part makes the writer's stores ours to copy. */
static bool writer_answered(const struct dirty_writer *writer, uint64_t token)
{
    return atomic_load_explicit(&writer->acked, memory_order_seq_cst) >= token ||
           atomic_load_explicit(&writer->parked, memory_order_seq_cst);
}

static bool all_answered(struct dirty *dirty, uint64_t token)
{
    assert(lock_held(&dirty->lock));
    for (unsigned i = 0; i < dirty->writers; i++)
        if (!writer_answered(dirty->writer[i], token))
            return false;
    return true;
}

uint64_t dirty_revoke_begin(struct dirty *dirty)
{
    struct dirty_writer *late[DIRTY_WRITERS_MAX];
    unsigned lates = 0;

    /* Before the look at who is parked: the revoker's half of the Dekker pair. */
    uint64_t token = atomic_fetch_add_explicit(&dirty->epoch, 1, memory_order_seq_cst) + 1;

    lock(&dirty->lock);
    for (unsigned i = 0; i < dirty->writers; i++)
        if (!writer_answered(dirty->writer[i], token))
            late[lates++] = dirty->writer[i];
    dirty->kickers++;
    unlock(&dirty->lock);

    /* Without the lock: a kick takes the vCPU's lock, which ranks lower. */
    for (unsigned i = 0; i < lates; i++)
        if (late[i]->kick)
            late[i]->kick(late[i]->opaque);

    lock(&dirty->lock);
    if (--dirty->kickers == 0)
        cond_broadcast(&dirty->kicked);
    unlock(&dirty->lock);
    return token;
}

bool dirty_revoke_done(struct dirty *dirty, uint64_t token)
{
    assert(token <= atomic_load_explicit(&dirty->epoch, memory_order_relaxed));
    lock(&dirty->lock);
    bool done = all_answered(dirty, token);
    unlock(&dirty->lock);
    return done;
}

static void spin_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

void dirty_revoke_wait(struct dirty *dirty, uint64_t token)
{
    for (int spin = 0; spin < REVOKE_SPINS; spin++) {
        if (dirty_revoke_done(dirty, token))
            return;
        for (int pause = 0; pause < REVOKE_SPIN_PAUSES; pause++)
            spin_pause();
    }
    lock(&dirty->lock);
    atomic_fetch_add_explicit(&dirty->waiters, 1, memory_order_seq_cst); /* before the look: see wake_revokers */
    while (!all_answered(dirty, token))
        cond_wait(&dirty->acked, &dirty->lock);
    atomic_fetch_sub_explicit(&dirty->waiters, 1, memory_order_seq_cst);
    unlock(&dirty->lock);
}

static void revoke(struct dirty *dirty)
{
    dirty_revoke_wait(dirty, dirty_revoke_begin(dirty));
}

/* --- starting and stopping ---------------------------------------------------------------------------- */

/* What an earlier use left behind. A mark that comes in meanwhile and goes under is harmless: the client is off,
 * and its first harvest comes after a revoke. */
static void map_clear(struct dirty *dirty, struct dirty_map *map)
{
    for (uint64_t summary = 0; summary < dirty->summaries; summary++) {
        uint64_t bits = atomic_exchange_explicit(&map->summary[summary], 0, memory_order_seq_cst);
        for (; bits; bits &= bits - 1)
            atomic_store_explicit(&map->word[summary * 64 + (unsigned)__builtin_ctzll(bits)], 0, memory_order_seq_cst);
    }
}

/* Plain stores of whole words: a mark that they overwrite says nothing that they do not say as well. */
static void map_fill(struct dirty_map *map, uint64_t page, uint64_t count)
{
    uint64_t first = page / DIRTY_WORD_PAGES, words = div_up(count, DIRTY_WORD_PAGES);

    for (uint64_t i = 0; i < words; i++)
        atomic_store_explicit(&map->word[first + i], low_bits(count - i * DIRTY_WORD_PAGES), memory_order_relaxed);
    for (uint64_t word = first; word < first + words;) {
        uint64_t skip = word % 64, some = 64 - skip < first + words - word ? 64 - skip : first + words - word;
        /* After the words that it stands for (a read-modify-write with release is enough for that). */
        atomic_fetch_or_explicit(&map->summary[word / 64], low_bits(some) << skip, memory_order_seq_cst);
        word += some;
    }
}

void dirty_start(struct dirty *dirty, enum dirty_client client, bool all)
{
    struct dirty_map *map = &dirty->map[client];

    assert(!dirty_client_on(dirty, client));
    map_clear(dirty, map);
    atomic_fetch_or_explicit(&dirty->on, 1u << client, memory_order_seq_cst);
    /* With all of it marked each page's first copy waits for a revoke of its own, behind which permissions know of this
     * client: no need to wait here, for a vCPU that the host does not run now. */
    if (!all) {
        revoke(dirty);
        return;
    }
    dirty_revoke_begin(dirty);
    if (dirty->ranges == 0)
        map_fill(map, 0, dirty->pages);
    for (unsigned i = 0; i < dirty->ranges; i++)
        map_fill(map, dirty->range[i].page, dirty->range[i].count);
}

void dirty_stop(struct dirty *dirty, enum dirty_client client)
{
    assert(dirty_client_on(dirty, client));
    atomic_fetch_and_explicit(&dirty->on, ~(1u << client), memory_order_seq_cst);
    /* Not waited for: a permission that is given back late costs its vCPU a slow path, and a mark that comes late finds
     * the client off (map_clear). */
    dirty_revoke_begin(dirty);
}

void dirty_seal(struct dirty *dirty)
{
    bool was = atomic_exchange_explicit(&dirty->sealed, true, memory_order_seq_cst);
    assert(!was);
    (void)was;
}

void dirty_unseal(struct dirty *dirty)
{
    bool was = atomic_exchange_explicit(&dirty->sealed, false, memory_order_seq_cst);
    assert(was);
    (void)was;
}

/* --- harvesting --------------------------------------------------------------------------------------- */

uint64_t dirty_next_word(const struct dirty *dirty, enum dirty_client client, uint64_t word)
{
    const struct dirty_map *map = &dirty->map[client];
    uint64_t mask = ~UINT64_C(0) << word % 64;

    for (uint64_t summary = word / 64; summary < dirty->summaries; summary++) {
        uint64_t bits = atomic_load_explicit(&map->summary[summary], memory_order_acquire) & mask;
        if (bits)
            return summary * 64 + (unsigned)__builtin_ctzll(bits);
        mask = ~UINT64_C(0);
    }
    return dirty->words;
}

uint64_t dirty_take_word(struct dirty *dirty, enum dirty_client client, uint64_t word)
{
    struct dirty_map *map = &dirty->map[client];

    assert(word < dirty->words);
    /* Sequentially consistent and in this order: see map_or. */
    atomic_fetch_and_explicit(&map->summary[word / 64], ~(UINT64_C(1) << word % 64), memory_order_seq_cst);
    return atomic_exchange_explicit(&map->word[word], 0, memory_order_seq_cst);
}

bool dirty_test(const struct dirty *dirty, enum dirty_client client, uint64_t page)
{
    assert(page < dirty->pages);
    return atomic_load_explicit(&dirty->map[client].word[page / DIRTY_WORD_PAGES], memory_order_seq_cst) >>
               page % DIRTY_WORD_PAGES &
           1;
}

uint64_t dirty_count(const struct dirty *dirty, enum dirty_client client)
{
    const struct dirty_map *map = &dirty->map[client];
    uint64_t count = 0;

    for (uint64_t summary = 0; summary < dirty->summaries; summary++) {
        uint64_t bits = atomic_load_explicit(&map->summary[summary], memory_order_acquire);
        for (; bits; bits &= bits - 1) {
            uint64_t word = summary * 64 + (unsigned)__builtin_ctzll(bits);
            count += (unsigned)__builtin_popcountll(atomic_load_explicit(&map->word[word], memory_order_relaxed));
        }
    }
    return count;
}
