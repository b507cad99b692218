/* Code that changes. Stale code may run until fence.i; there, the regions of pages that may have been written are compared
 * with memory, and those that differ die.
 *
 * The proof that a page was not written is its CODE bit: the page is watched (memory/dirty.h) before its bytes are read
 * for the first time, and a watched page is marked by every writer, unless a hart still holds a write entry
 * from before. So a page stays young, and is compared whatever its bit says, until a revocation that began later is over;
 * a page that was found marked is young again, since its writer's entry stays good. Nothing is write-protected: a page that
 * mixes code and data costs one comparison for each fence.i, and its stores nothing. */
#include <stdlib.h>

#include "vcpu/jit/jit_priv.h"

static struct code_page **bucket_of(struct jit *jit, uint64_t gpa)
{
    return &jit->page_bucket[(gpa >> PAGE_SHIFT) % JIT_PAGE_BUCKETS];
}

static struct code_page *find(struct jit *jit, uint64_t gpa)
{
    struct code_page *page = *bucket_of(jit, gpa & ~(uint64_t)(PAGE_BYTES - 1));

    while (page && page->gpa != (gpa & ~(uint64_t)(PAGE_BYTES - 1)))
        page = page->next;
    return page;
}

static bool append(struct page_list *list, struct code_page *page)
{
    if (list->count == list->room) {
        unsigned room = list->room ? 2 * list->room : 64;
        struct code_page **grown = reallocarray(list->page, room, sizeof(struct code_page *));

        if (!grown)
            return false;
        list->page = grown;
        list->room = room;
    }
    list->page[list->count++] = page;
    return true;
}

/* No memory to remember that a page must be looked at: then it has no code any more, and gets none before there is. */
static void make_young(struct jit *jit, struct code_page *page)
{
    if (page->young)
        return;
    page->young = append(&jit->young, page);
    page->lost = !page->young;
    for (struct translation *t = page->first; !page->young && t; t = t->page_next)
        if (!t->dead)
            jit_kill(jit, t);
    for (struct translation *t = page->tails; !page->young && t; t = t->tail_next)
        if (!t->dead)
            jit_kill(jit, t);
}

bool pages_watch(struct jit *jit, uint64_t gpa)
{
    struct code_page *page = find(jit, gpa);

    if (page) {
        if (page->lost)
            make_young(jit, page);
        return !page->lost;
    }
    struct ram_block *block = ram_block_at(jit->ram, gpa & ~(uint64_t)(PAGE_BYTES - 1), PAGE_BYTES);
    page = calloc(1, sizeof(*page));
    if (!page || !block || !append(&jit->young, page)) {
        free(page);
        return false;
    }
    page->gpa = gpa & ~(uint64_t)(PAGE_BYTES - 1);
    page->number = ram_page_of(block, page->gpa);
    page->young = true;
    page->index = (uint16_t)(jit->code_pages < TLB_CODE_PAGES ? jit->code_pages++ : TLB_CODE_PAGES);
    page->next = *bucket_of(jit, gpa);
    *bucket_of(jit, gpa) = page;
    dirty_watch(jit->ram->dirty, page->number);
    return true;
}

/* Code that dies young, again and again, must become hotter each time before it is translated: what is written anew for
 * every hundred runs is the interpreter's. Each refusal is as many runs as make a block hot. */
enum { DIES_YOUNG_FENCES = 64, CHANGES_FREE = 2, REFUSALS_MAX = 64 };

static void note_death(const struct jit *jit, struct code_page *page, const struct translation *t)
{
    if (jit->stats.fences - t->made > DIES_YOUNG_FENCES)
        page->changed /= 2;
    else if (page->changed < CHANGES_FREE + REFUSALS_MAX)
        page->changed++;
    page->refused = 0;
}

bool pages_worth(struct jit *jit, uint64_t gpa)
{
    struct code_page *page = find(jit, gpa);

    if (!page || page->refused + CHANGES_FREE >= page->changed)
        return true;
    page->refused++;
    return false;
}

unsigned pages_index(struct jit *jit, uint64_t gpa)
{
    const struct code_page *page = find(jit, gpa);

    return page ? page->index : TLB_CODE_PAGES;
}

/* Only the living are compared at fence.i. */
static void bury(struct code_page *page)
{
    for (struct translation **at = &page->first; *at;) {
        struct translation *t = *at;

        if (!t->dead) {
            at = &t->page_next;
            continue;
        }
        *at = t->page_next;
        t->page_next = page->buried;
        page->buried = t;
    }
}

bool pages_add(struct jit *jit, struct translation *t)
{
    struct code_page *page = find(jit, t->gpa), *tail = t->tail_gpa ? find(jit, t->tail_gpa) : NULL;

    if (!page || (t->tail_gpa && !tail))
        return false;
    if (tail) {
        t->tail_next = tail->tails;
        tail->tails = t;
    }
    bury(page);
    for (struct translation *old = page->buried; old; old = old->page_next)
        if (old->gpa == t->gpa) /* what leads there still finds its successor */
            code_patch_head(&jit->code, old->near_entry, t->near_entry);
    t->made = jit->stats.fences;
    t->page_next = page->first;
    page->first = t;
    return true;
}

void pages_forget(struct jit *jit)
{
    for (unsigned i = 0; i < JIT_PAGE_BUCKETS; i++) {
        while (jit->page_bucket[i]) {
            struct code_page *page = jit->page_bucket[i];

            jit->page_bucket[i] = page->next;
            dirty_unwatch(jit->ram->dirty, page->number);
            free(page);
        }
    }
    jit->young.count = jit->waiting.count = 0;
    jit->code_pages = 0;
}

/* --- fence.i --------------------------------------------------------------------------------------------- */

static bool same_halves(const uint16_t *source, const uint8_t *host, unsigned count)
{
    const uint16_t *now = (const uint16_t *)(const void *)host;

    for (unsigned i = 0; i < count; i++)
        if (source[i] != __atomic_load_n(&now[i], __ATOMIC_RELAXED)) /* harts may be writing it */
            return false;
    return true;
}

static void compare(struct jit *jit, struct code_page *page)
{
    const uint8_t *host = ram_page_host(jit->ram, page->number);

    jit->stats.compared++;
    for (struct translation *t = page->first; t; t = t->page_next)
        if (!t->dead && !same_halves(t->source, host + (t->gpa & (PAGE_BYTES - 1)), t->tail_gpa ? 1 : t->bytes / 2u)) {
            note_death(jit, page, t);
            jit_kill(jit, t);
        }
    for (struct translation *t = page->tails; t; t = t->tail_next)
        if (!t->dead && !same_halves(t->source + 1, host, 1))
            jit_kill(jit, t);
    bury(page);
}

static void gather_marked(struct jit *jit)
{
    struct dirty *dirty = jit->ram->dirty;
    uint64_t words = dirty_words(dirty);

    for (uint64_t word = dirty_next_word(dirty, DIRTY_CODE, 0); word < words;
         word = dirty_next_word(dirty, DIRTY_CODE, word + 1)) {
        for (uint64_t bits = dirty_take_word(dirty, DIRTY_CODE, word); bits; bits &= bits - 1) {
            uint64_t number = word * DIRTY_WORD_PAGES + (unsigned)__builtin_ctzll(bits);
            struct ram_block *block = ram_block_by_page(jit->ram, number);
            struct code_page *page =
                block ? find(jit, block->gpa + ((number - block->first_page) << PAGE_SHIFT)) : NULL;

            if (page)
                make_young(jit, page);
        }
    }
}

/* What `waiting` waited for is over, and it was compared since: from now on the bits speak. */
static void release_waiting(struct jit *jit)
{
    for (unsigned i = 0; i < jit->waiting.count; i++)
        jit->waiting.page[i]->waiting = false;
    jit->waiting.count = 0;
}

static bool start_waiting(struct jit *jit)
{
    if (jit->waiting.count > 0 || jit->young.count < JIT_YOUNG_MAX)
        return false;
    struct page_list list = jit->waiting;

    jit->waiting = jit->young;
    jit->young = list;
    jit->young.count = 0;
    for (unsigned i = 0; i < jit->waiting.count; i++) {
        jit->waiting.page[i]->young = false;
        jit->waiting.page[i]->waiting = true;
    }
    atomic_store_explicit(&jit->token, 0, memory_order_relaxed);
    return true;
}

void jit_fence_i(struct vcpu *v)
{
    struct jit *jit = v->jit;

    lock(&jit->lock);
    uint64_t token = atomic_load_explicit(&jit->token, memory_order_acquire);
    bool over = jit->waiting.count && token && dirty_revoke_done(jit->ram->dirty, token);

    jit->stats.fences++;
    gather_marked(jit);
    for (unsigned i = 0; i < jit->young.count; i++)
        compare(jit, jit->young.page[i]);
    for (unsigned i = 0; i < jit->waiting.count; i++)
        if (!jit->waiting.page[i]->young)
            compare(jit, jit->waiting.page[i]);
    if (over)
        release_waiting(jit);
    bool begin = start_waiting(jit);
    unlock(&jit->lock);
    if (begin) /* kicks, and so without the lock; acquired by whoever asks whether it is over */
        atomic_store_explicit(&jit->token, dirty_revoke_begin(jit->ram->dirty), memory_order_release);
}

/* First the marks go, then memory is looked at: whoever writes later marks anew. */
void pages_settle(struct jit *jit)
{
    struct dirty *dirty = jit->ram->dirty;
    uint64_t words = dirty_words(dirty);

    for (uint64_t word = dirty_next_word(dirty, DIRTY_CODE, 0); word < words;
         word = dirty_next_word(dirty, DIRTY_CODE, word + 1))
        dirty_take_word(dirty, DIRTY_CODE, word);
    for (unsigned i = 0; i < JIT_PAGE_BUCKETS; i++) {
        for (struct code_page *page = jit->page_bucket[i]; page; page = page->next) {
            compare(jit, page);
            page->young = page->waiting = false;
        }
    }
    jit->young.count = jit->waiting.count = 0;
}

/* A settled jit has compared everything, and the loaders have written nothing since. */
void jit_distrust(struct vcpu *v)
{
    struct jit *jit = v->jit;

    if (jit_settled(jit))
        return;
    lock(&jit->lock);
    for (unsigned i = 0; i < JIT_PAGE_BUCKETS; i++)
        for (struct code_page *page = jit->page_bucket[i]; page; page = page->next)
            make_young(jit, page);
    unlock(&jit->lock);
}
