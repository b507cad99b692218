/* Code that is hot here, told to another machine; and code made for a guest before it runs.
 *
 * Which code is hot nobody counts: generated code runs without leaving marks. So somebody who wants to know begins a turn: every
 * hart forgets where its jumps lead and which pages it knows, at its next safe point, and asks anew for what it enters, which notes
 * the turn in the translation. Inside a page regions are linked for good, so what is told is all code of each page that was
 * entered.
 *
 * Code that is made before its guest runs is made from physical addresses alone: no page table is walked, no A or D bit set, nobody's
 * TLB changed. Its page may be written again behind its back; so before any hart runs everything is compared (jit_settle). */
#include <string.h>

#include "vcpu/jit/jit_priv.h"

void jit_hot_begin(struct jit *jit)
{
    /* Relaxed: a hart that hears of it late tells less. */
    atomic_fetch_add_explicit(&jit->turn, 1, memory_order_relaxed);
    for (unsigned i = 0; i < jit->vcpus; i++) /* fixed while the machine runs */
        vcpu_kick(jit->vcpu[i]);
}

static bool entered(const struct jit *jit, const struct code_page *page)
{
    uint32_t turn = atomic_load_explicit(&jit->turn, memory_order_relaxed);

    for (const struct translation *t = page->first; t; t = t->page_next)
        if (!t->dead && atomic_load_explicit(&t->turn, memory_order_relaxed) == turn)
            return true;
    return false;
}

void jit_hot_list(struct jit *jit, void (*tell)(void *opaque, const struct jit_hot_page *page), void *opaque)
{
    lock(&jit->lock);
    for (unsigned i = 0; i < JIT_PAGE_BUCKETS; i++) {
        for (const struct code_page *page = jit->page_bucket[i]; page; page = page->next) {
            struct jit_hot_page hot = { .gpa = page->gpa };

            if (jit->flushing || !entered(jit, page))
                continue;
            for (const struct translation *t = page->first; t; t = t->page_next) {
                unsigned half = (unsigned)(t->gpa & (PAGE_BYTES - 1)) / 2;

                if (!t->dead && !t->tail_gpa) /* one that crosses depends on the mapping */
                    hot.entry[half / 64] |= UINT64_C(1) << half % 64;
            }
            tell(opaque, &hot);
        }
    }
    unlock(&jit->lock);
}

bool jit_settled(const struct jit *jit)
{
    return atomic_load_explicit(&jit->settled, memory_order_acquire);
}

void jit_settle(struct jit *jit)
{
    lock(&jit->lock);
    uint64_t killed = jit->stats.killed;

    pages_settle(jit);
    jit->stats.warm_dropped += jit->stats.killed - killed;
    unlock(&jit->lock);
    atomic_store_explicit(&jit->settled, true, memory_order_release);
}

void jit_unsettle(struct jit *jit)
{
    atomic_store_explicit(&jit->settled, false, memory_order_release);
}
