#include "memory/trail.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NOBODY = 0, FIRST_VCPU = 1, FIRST_NAME = FIRST_VCPU + TRAIL_VCPUS_MAX };
_Static_assert((int)FIRST_NAME + (int)TRAIL_NAMES_MAX <= 256, "all of them in a byte");

static _Thread_local const char *writer;

void trail_as(const char *name)
{
    writer = name;
}

void trail_start(struct trail *trail, uint64_t pages)
{
    _Atomic uint8_t *by = atomic_load_explicit(&trail->by, memory_order_relaxed);
    if (by) /* whoever still notes for the last one spoils a name, no more */
        for (uint64_t page = 0; page < trail->pages; page++)
            atomic_store_explicit(&by[page], NOBODY, memory_order_relaxed);
    else
        by = calloc(pages ? pages : 1, sizeof(*by));
    if (!by)
        return;
    trail->pages = pages;
    atomic_store_explicit(&trail->by, by, memory_order_release); /* with zeroes in it */
    atomic_store_explicit(&trail->on, true, memory_order_release);
}

void trail_stop(struct trail *trail)
{
    atomic_store_explicit(&trail->on, false, memory_order_relaxed);
}

void trail_free(struct trail *trail)
{
    free(atomic_load_explicit(&trail->by, memory_order_relaxed));
}

/* Names are string constants, few, and never taken back. */
static uint8_t number_of(struct trail *trail, const char *name)
{
    for (unsigned i = 0; i < TRAIL_NAMES_MAX; i++) {
        const char *there = atomic_load_explicit(&trail->name[i], memory_order_acquire);
        if (!there && atomic_compare_exchange_strong_explicit(&trail->name[i], &there, name, memory_order_acq_rel,
                                                              memory_order_acquire))
            there = name;
        if (there == name)
            return (uint8_t)(FIRST_NAME + i);
    }
    return NOBODY;
}

static void note(struct trail *trail, uint64_t page, uint64_t count, uint8_t who)
{
    _Atomic uint8_t *by = atomic_load_explicit(&trail->by, memory_order_acquire);
    for (uint64_t i = 0; by && i < count; i++)
        atomic_store_explicit(&by[page + i], who, memory_order_relaxed);
}

void trail_note(struct trail *trail, uint64_t page, uint64_t count)
{
    note(trail, page, count, number_of(trail, writer ? writer : "a device or a loader"));
}

void trail_note_vcpu(struct trail *trail, uint64_t page, unsigned number)
{
    note(trail, page, 1, number < TRAIL_VCPUS_MAX ? (uint8_t)(FIRST_VCPU + number) : NOBODY);
}

struct trail_text trail_text(const struct trail *trail, uint64_t page)
{
    struct trail_text out;
    _Atomic uint8_t *by = atomic_load_explicit(&trail->by, memory_order_acquire);
    unsigned who = by && page < trail->pages ? atomic_load_explicit(&by[page], memory_order_relaxed) : NOBODY;
    const char *name = who >= FIRST_NAME ? trail->name[who - FIRST_NAME] : NULL;
    if (name)
        snprintf(out.text, sizeof(out.text), "%s", name);
    else if (who >= FIRST_VCPU && who < FIRST_NAME)
        snprintf(out.text, sizeof(out.text), "vCPU %u", who - FIRST_VCPU);
    else
        snprintf(out.text, sizeof(out.text), "nobody since the migration began");
    return out;
}
