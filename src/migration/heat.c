#include "migration/heat.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int heat_init(struct heat *heat, uint64_t words)
{
    *heat = (struct heat){ .words = words };
    heat->word = calloc(words ? words : 1, sizeof(*heat->word));
    heat_rest(heat);
    return heat->word ? 0 : -ENOMEM;
}

void heat_free(struct heat *heat)
{
    free(heat->word);
    *heat = (struct heat){ 0 };
}

void heat_forget(struct heat *heat)
{
    for (uint64_t i = 0; i < heat->words; i++)
        heat->word[i] = (struct heat_word){ 0 };
    heat->round = 0;
    heat_rest(heat);
}

void heat_round(struct heat *heat, uint64_t may_keep)
{
    int64_t most = may_keep < INT64_MAX ? (int64_t)may_keep : INT64_MAX;

    heat->round++;
    /* Relaxed, here and below: workers are started behind it, and nothing hangs on the count's order. */
    atomic_store_explicit(&heat->may_keep, most, memory_order_relaxed);
    atomic_store_explicit(&heat->rests, false, memory_order_relaxed);
}

void heat_rest(struct heat *heat)
{
    atomic_store_explicit(&heat->rests, true, memory_order_relaxed);
}

uint64_t heat_keep(struct heat *heat, uint64_t word, uint64_t dirty)
{
    assert(word < heat->words);
    struct heat_word *at = &heat->word[word];

    if (!dirty || atomic_load_explicit(&heat->rests, memory_order_relaxed))
        return 0;
    uint64_t again = dirty & at->taken, left = dirty & at->hot & ~at->taken, keep = (again & at->hot) | left;
    if ((heat->round + word) % HEAT_TAKEN_EVERY == 0 ||
        atomic_load_explicit(&heat->may_keep, memory_order_relaxed) <= 0)
        keep = 0;
    if (keep)
        atomic_fetch_sub_explicit(&heat->may_keep, __builtin_popcountll(keep), memory_order_relaxed);
    at->hot = again | left;
    at->taken = dirty & ~keep;
    return keep;
}
