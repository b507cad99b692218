#include "machine/warm.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "machine/machine_impl.h"
#include "vcpu/jit/jit.h"

static const int64_t look_after_ns[MACHINE_STARTS] = { 10 * NS_PER_MS, 100 * NS_PER_MS };

struct warm {
    struct machine *machine;
    struct thread thread;
    _Atomic bool stop; /* make no more */

    struct lock lock; /* QUEUE: nothing is called with it held */
    struct cond changed;
    /* under lock */
    uint64_t *place; /* guest-physical addresses that were not made yet; the thread's while it is `busy` */
    unsigned places;
    bool again, busy, quit;
    int64_t ran_ns;
    struct machine_arrival arrival;
    struct machine_start before; /* counts when the guest had not run yet */
};

/* --- the list -------------------------------------------------------------------------------------------- */

struct gathering {
    struct jit_hot_page *page;
    unsigned pages, room;
};

static void gather(void *opaque, const struct jit_hot_page *page)
{
    struct gathering *g = opaque;

    if (g->pages == g->room) {
        unsigned room = g->room ? 2 * g->room : 256;
        struct jit_hot_page *grown = reallocarray(g->page, room, sizeof(*grown));

        if (!grown)
            return; /* a shorter list is a list */
        g->page = grown;
        g->room = room;
    }
    g->page[g->pages++] = *page;
}

static int by_address(const void *one, const void *other)
{
    uint64_t a = ((const struct jit_hot_page *)one)->gpa, b = ((const struct jit_hot_page *)other)->gpa;

    return (a > b) - (a < b);
}

static unsigned entries_of(const struct jit_hot_page *page)
{
    unsigned entries = 0;

    for (unsigned i = 0; i < JIT_PAGE_HALVES / 64; i++)
        entries += (unsigned)__builtin_popcountll(page->entry[i]);
    return entries;
}

static void put_page(const struct jit_hot_page *page, struct buf *out)
{
    buf_put_be64(out, page->gpa);
    buf_put_be16(out, (uint16_t)entries_of(page));
    for (unsigned i = 0; i < JIT_PAGE_HALVES / 64; i++)
        for (uint64_t left = page->entry[i]; left; left &= left - 1)
            buf_put_be16(out, (uint16_t)(i * 64 + (unsigned)__builtin_ctzll(left)));
}

bool machine_hot_begin(struct machine *m)
{
    if (m->jit)
        jit_hot_begin(m->jit);
    return m->jit != NULL;
}

void machine_hot_put(struct machine *m, struct buf *out)
{
    struct gathering hot = { 0 };
    size_t count_at = out->size;
    unsigned pages = 0, entries = 0;

    buf_put_be32(out, 0);
    if (m->jit)
        jit_hot_list(m->jit, gather, &hot);
    if (hot.pages)
        qsort(hot.page, hot.pages, sizeof(hot.page[0]), by_address);
    for (unsigned i = 0; i < hot.pages && pages < WARM_PAGES_MAX; i++) {
        unsigned more = entries_of(&hot.page[i]);

        if (!more || entries + more > WARM_ENTRIES_MAX)
            continue;
        put_page(&hot.page[i], out);
        pages++;
        entries += more;
    }
    be32_put(out->data + count_at, pages);
    free(hot.page);
}

static int read_page(struct reader *in, const struct ram *ram, uint64_t *last, struct warm *w, struct err *err)
{
    uint64_t gpa = reader_be64(in);
    unsigned entries = reader_be16(in);

    if (in->failed)
        return err_set(err, -EPROTO, "the list of hot code is cut short");
    if (gpa % PAGE_BYTES || !ram_block_at((struct ram *)(uintptr_t)ram, gpa, PAGE_BYTES))
        return err_set(err, -EPROTO, "the list of hot code names 0x%" PRIx64 ", which is no page of RAM", gpa);
    if (*last && gpa <= *last)
        return err_set(err, -EPROTO, "the list of hot code names 0x%" PRIx64 " behind 0x%" PRIx64, gpa, *last);
    if (entries < 1 || entries > JIT_PAGE_HALVES || w->places + entries > WARM_ENTRIES_MAX)
        return err_set(err, -EPROTO, "the list of hot code has %u entries for page 0x%" PRIx64, entries, gpa);
    *last = gpa;
    for (unsigned i = 0, before = 0; i < entries; i++) {
        unsigned half = reader_be16(in);

        if (in->failed)
            return err_set(err, -EPROTO, "the list of hot code is cut short");
        if (half >= JIT_PAGE_HALVES || (i && half <= before))
            return err_set(err, -EPROTO, "the list of hot code has entry %u in page 0x%" PRIx64, half, gpa);
        w->place[w->places++] = gpa + 2 * (uint64_t)half;
        before = half;
    }
    return 0;
}

static int read_list(const void *list, size_t bytes, struct warm *w, struct err *err)
{
    struct reader in = reader_of(list, bytes);
    uint32_t pages = reader_be32(&in);
    uint64_t last = 0;
    int rc = 0;

    if (in.failed || pages > WARM_PAGES_MAX)
        return err_set(err, -EPROTO, "the list of hot code has %u pages, the limit is %d", pages, WARM_PAGES_MAX);
    for (uint32_t i = 0; i < pages && rc == 0; i++)
        rc = read_page(&in, w->machine->ram, &last, w, err);
    if (rc == 0 && in.at != in.size)
        rc = err_set(err, -EPROTO, "the list of hot code goes on behind its %u pages", pages);
    return rc;
}

/* --- the thread ------------------------------------------------------------------------------------------ */

static void look(struct machine *m, struct machine_start *out)
{
    struct jit_stats jit = { 0 };

    *out = (struct machine_start){ 0 };
    for (unsigned i = 0; i < m->config.harts; i++) {
        struct vcpu_stats stats;

        vcpu_stats(m->vcpu[i], &stats);
        out->instructions += stats.instructions;
        out->tlb_refills += stats.tlb_refills;
        out->block_runs += stats.block_runs;
        out->cpu_ns += stats.cpu_ns;
    }
    if (m->jit)
        jit_stats(m->jit, &jit);
    out->translated = jit.blocks;
    out->translate_ns = (int64_t)jit.translate_ns;
}

static void look_since(struct warm *w, struct machine_start *out)
{
    struct machine_start now;

    look(w->machine, &now);
    *out = (struct machine_start){
        .after_ns = clock_now_ns() - w->ran_ns,
        .instructions = now.instructions - w->before.instructions,
        .tlb_refills = now.tlb_refills - w->before.tlb_refills,
        .block_runs = now.block_runs - w->before.block_runs,
        .translated = now.translated - w->before.translated,
        .cpu_ns = now.cpu_ns - w->before.cpu_ns,
        .translate_ns = now.translate_ns - w->before.translate_ns,
    };
}

/* Keeps what has not arrived for the next time. */
static unsigned make_code(struct warm *w, unsigned places, uint64_t *warmed)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < places; i++) {
        bool stop = atomic_load_explicit(&w->stop, memory_order_relaxed);
        int made = stop ? -ENOSPC : jit_warm(w->machine->jit, w->place[i]);

        if (made == -ENOSPC)
            break;
        if (made == -EAGAIN)
            w->place[kept++] = w->place[i];
        *warmed += made > 0;
    }
    return kept;
}

static void warm_run(void *opaque)
{
    struct warm *w = opaque;
    unsigned looks = 0;

    lock(&w->lock);
    while (!w->quit && looks < MACHINE_STARTS) {
        bool stop = atomic_load_explicit(&w->stop, memory_order_relaxed);
        if (w->again && w->places && !stop) {
            unsigned places = w->places;
            uint64_t warmed = 0;

            w->again = false;
            w->busy = true;
            unlock(&w->lock);
            places = make_code(w, places, &warmed);
            lock(&w->lock);
            w->places = places;
            w->arrival.warmed += warmed;
            w->busy = false;
            cond_broadcast(&w->changed);
        } else if (!w->ran_ns) {
            cond_wait(&w->changed, &w->lock);
        } else if (!cond_wait_until(&w->changed, &w->lock, w->ran_ns + look_after_ns[looks])) {
            struct machine_start start;

            unlock(&w->lock);
            look_since(w, &start);
            lock(&w->lock);
            w->arrival.start[looks++] = start;
        }
    }
    unlock(&w->lock);
}

int machine_warm_begin(struct machine *m, struct err *err)
{
    machine_warm_end(m);
    struct warm *w = calloc(1, sizeof(*w));
    if (!w)
        return err_set(err, -ENOMEM, "no memory for a warm arrival");
    w->machine = m;
    lock_init(&w->lock, LOCK_QUEUE);
    cond_init(&w->changed);
    lock(&m->lock);
    m->warm = w;
    unlock(&m->lock);
    int rc = thread_start(&w->thread, "warm", warm_run, w, err);
    if (rc < 0)
        machine_warm_end(m);
    return rc;
}

void machine_warm_end(struct machine *m)
{
    struct warm *w = m->warm;

    if (!w)
        return;
    atomic_store_explicit(&w->stop, true, memory_order_relaxed);
    lock(&w->lock);
    w->quit = true;
    cond_broadcast(&w->changed);
    unlock(&w->lock);
    thread_join(&w->thread);
    lock(&m->lock);
    m->warm = NULL;
    unlock(&m->lock);
    free(w->place);
    cond_destroy(&w->changed);
    lock_destroy(&w->lock);
    free(w);
}

int machine_warm_take(struct machine *m, const void *list, size_t bytes, struct err *err)
{
    struct warm *w = m->warm, read = { .machine = m };
    read.place = calloc(WARM_ENTRIES_MAX, sizeof(read.place[0]));
    if (!read.place)
        return err_set(err, -ENOMEM, "no memory for a list of hot code");
    int rc = read_list(list, bytes, &read, err);
    if (rc == 0 && w && m->jit) {
        lock(&w->lock);
        while (w->busy)
            cond_wait(&w->changed, &w->lock);
        uint64_t *old = w->place;
        w->place = read.place;
        w->places = read.places;
        w->arrival.listed = read.places;
        read.place = old;
        w->again = true;
        cond_broadcast(&w->changed);
        unlock(&w->lock);
    }
    free(read.place);
    return rc;
}

void machine_warm_again(struct machine *m)
{
    struct warm *w = m->warm;

    if (!w)
        return;
    lock(&w->lock);
    w->again = true;
    if (w->places)
        cond_broadcast(&w->changed);
    unlock(&w->lock);
}

void machine_warm_stop(struct machine *m)
{
    if (m->warm)
        atomic_store_explicit(&m->warm->stop, true, memory_order_relaxed);
}

void machine_warm_settle(struct machine *m)
{
    struct warm *w = m->warm;
    int64_t began_ns = clock_now_ns();

    if (!w)
        return;
    machine_warm_stop(m);
    lock(&w->lock);
    while (w->busy)
        cond_wait(&w->changed, &w->lock);
    unlock(&w->lock);
    struct jit_stats jit = { 0 };
    if (m->jit) {
        jit_settle(m->jit);
        jit_stats(m->jit, &jit);
    }
    struct machine_start before;
    look(m, &before);
    lock(&w->lock);
    w->before = before;
    w->arrival.dropped = jit.warm_dropped;
    w->arrival.settle_ns = clock_now_ns() - began_ns;
    unlock(&w->lock);
}

void machine_warm_arrived(struct machine *m)
{
    struct warm *w = m->warm;

    if (!w)
        return;
    lock(&w->lock);
    w->ran_ns = machine_last_resume_ns(m);
    cond_broadcast(&w->changed);
    unlock(&w->lock);
}

void machine_arrival(struct machine *m, struct machine_arrival *out)
{
    *out = (struct machine_arrival){ 0 };
    lock(&m->lock); /* it may be another thread's to free */
    if (m->warm) {
        lock(&m->warm->lock);
        *out = m->warm->arrival;
        unlock(&m->warm->lock);
    }
    unlock(&m->lock);
}
