/* Finding, making, linking and dropping translations. */
#include "vcpu/jit/jit.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "vcpu/jit/jit_priv.h"
#include "vcpu/jit/lockstep.h"
#include "vcpu/jit/perf.h"
#include "vcpu/trace.h"

#if defined(__x86_64__)
enum { HOST_CAN = true };
#else
enum { HOST_CAN = false };
#endif

/* --- making and freeing ---------------------------------------------------------------------------------- */

static void *map_lazily(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

int jit_new(struct jit **out, const struct jit_config *config, struct err *err)
{
    *out = NULL;
    if (!HOST_CAN)
        return err_set(err, -ENOTSUP, "code can be generated for x86-64 hosts only");
    struct jit *jit = calloc(1, sizeof(*jit));
    if (!jit)
        return err_set(err, -ENOMEM, "no memory for generated code");
    gen_find_features();
    if (config->plain)
        gen_features = (struct gen_features){ 0 };
    lock_init(&jit->lock, LOCK_JIT);
    jit->ram = config->ram;
    jit->plain = config->plain;
    jit->threshold = config->threshold ? config->threshold : JIT_THRESHOLD;
    jit->gen = calloc(1, sizeof(*jit->gen));
    jit->meta = map_lazily(JIT_META_BYTES);
    jit->bucket = map_lazily(JIT_BUCKETS * sizeof(*jit->bucket));
    atomic_init(&jit->generation, 1);
    int failed = code_init(&jit->code, config->code_bytes ? config->code_bytes : JIT_CODE_BYTES, err);
    if (!failed && config->lockstep)
        jit->lockstep = lockstep_new();
    if (!failed && ((config->lockstep && !jit->lockstep) || !jit->gen || !jit->meta || !jit->bucket)) {
        err_set(err, -ENOMEM, "no memory for generated code");
        failed = -ENOMEM;
    }
    if (failed) {
        jit_free(jit);
        return failed;
    }
    jit->gen->code = &jit->code;
    jit->stats.capacity_bytes = jit->code.bytes;
    *out = jit;
    return 0;
}

void jit_free(struct jit *jit)
{
    if (!jit)
        return;
    assert(jit->vcpus == 0);
    pages_forget(jit);
    code_free(&jit->code);
    free(jit->gen);
    lockstep_free(jit->lockstep);
    free(jit->young.page);
    free(jit->waiting.page);
    free(jit->by_address);
    if (jit->meta)
        munmap(jit->meta, JIT_META_BYTES);
    if (jit->bucket)
        munmap(jit->bucket, JIT_BUCKETS * sizeof(*jit->bucket));
    lock_destroy(&jit->lock);
    free(jit);
}

void jit_attach(struct jit *jit, struct vcpu *v)
{
    lock(&jit->lock);
    assert(jit->vcpus < HART_MAX && !jit->flushing && !jit->translations); /* code knows whether a hart is alone */
    assert(!jit->lockstep || jit->vcpus == 0);
    jit->vcpu[jit->vcpus++] = v;
    v->jit = jit;
    v->lockstep = jit->lockstep;
    v->jit_generation = atomic_load_explicit(&jit->generation, memory_order_relaxed);
    unlock(&jit->lock);
}

void jit_detach(struct jit *jit, struct vcpu *v)
{
    lock(&jit->lock);
    unsigned at = 0;
    while (jit->vcpu[at] != v)
        at++;
    jit->vcpu[at] = jit->vcpu[--jit->vcpus];
    v->jit = NULL;
    v->lockstep = NULL;
    unlock(&jit->lock);
}

void jit_stats(struct jit *jit, struct jit_stats *out)
{
    lock(&jit->lock);
    *out = jit->stats;
    out->host_bytes = jit->code.used;
    unlock(&jit->lock);
    if (jit->lockstep) {
        struct lockstep_stats lockstep;

        lockstep_stats(jit->lockstep, &lockstep);
        out->lockstep_runs = lockstep.runs;
        out->lockstep_instructions = lockstep.instructions;
        out->lockstep_repeats = lockstep.repeats;
    }
}

unsigned jit_threshold(const struct jit *jit)
{
    return jit->threshold;
}

/* --- flushing everything --------------------------------------------------------------------------------- */

/* Memory is used again only after every hart has been in its run loop and has forgotten every address. Until the last has
 * said so, all of them interpret. */
static void begin_flush(struct jit *jit)
{
    jit->flushing = true;
    jit->stats.flushes++;
    jit->unacknowledged = jit->vcpus;
    for (unsigned i = 0; i < JIT_BUCKETS; i++)
        atomic_store_explicit(&jit->bucket[i], NULL, memory_order_relaxed);
    atomic_fetch_add_explicit(&jit->generation, 1, memory_order_release);
}

static void end_flush(struct jit *jit)
{
    pages_forget(jit);
    jit->code.used = CODE_HEAD_BYTES;
    jit->meta_used = 0;
    jit->translations = 0;
    jit->stats.blocks = jit->stats.guest_bytes = 0;
    jit->flushing = false;
}

static __attribute__((noinline)) void acknowledge(struct vcpu *v)
{
    struct jit *jit = v->jit;

    lock(&jit->lock);
    engine_drop_code_jumps(v);
    engine_drop_code_pages(v);
    v->jit_generation = atomic_load_explicit(&jit->generation, memory_order_relaxed);
    if (--jit->unacknowledged == 0)
        end_flush(jit);
    unlock(&jit->lock);
}

static void kick_all(struct jit *jit)
{
    for (unsigned i = 0; i < jit->vcpus; i++) /* fixed while the machine runs */
        vcpu_kick(jit->vcpu[i]);
}

/* --- finding --------------------------------------------------------------------------------------------- */

static _Atomic(struct translation *) *bucket_of(struct jit *jit, uint64_t gpa)
{
    return &jit->bucket[(gpa >> 1) * UINT64_C(0x9e3779b97f4a7c15) >> 32 & (JIT_BUCKETS - 1)];
}

/* Acquire: what a translation says is there when it is found. */
static struct translation *lookup(struct jit *jit, uint64_t gpa)
{
    struct translation *t = atomic_load_explicit(bucket_of(jit, gpa), memory_order_acquire);

    while (t && t->gpa != gpa)
        t = atomic_load_explicit(&t->next, memory_order_acquire);
    return t;
}

void jit_kill(struct jit *jit, struct translation *t)
{
    _Atomic(struct translation *) *from = bucket_of(jit, t->gpa);

    assert(lock_held(&jit->lock) && !t->dead);
    while (atomic_load_explicit(from, memory_order_relaxed) != t)
        from = &atomic_load_explicit(from, memory_order_relaxed)->next;
    atomic_store_explicit(from, atomic_load_explicit(&t->next, memory_order_relaxed), memory_order_release);
    t->dead = true;
    code_patch_head(&jit->code, t->near_entry, t->leave);
    jit->stats.killed++;
    atomic_fetch_add_explicit(&jit->kills, 1, memory_order_release);
}

/* Where guest code is. tail: the second half of an instruction that crosses the end of its page; 0 and NULL without. */
struct place {
    uint64_t gpa, tail_gpa;
    const uint8_t *host, *tail_host;
};

static bool crosses(uint64_t pc)
{
    return (pc & (PAGE_BYTES - 1)) == PAGE_BYTES - 2;
}

static uint16_t load_half(const uint8_t *host)
{
    return __atomic_load_n((const uint16_t *)(const void *)host, __ATOMIC_RELAXED); /* harts may be writing it */
}

/* --- making ---------------------------------------------------------------------------------------------- */

static struct translation *new_translation(struct jit *jit, const struct gen *g, const struct place *at)
{
    size_t bytes = (sizeof(struct translation) + g->bytes + 15) & ~(size_t)15;

    if (jit->translations == jit->by_address_room) {
        unsigned room = jit->by_address_room ? 2 * jit->by_address_room : 1024;
        struct translation **grown = reallocarray(jit->by_address, room, sizeof(struct translation *));

        if (!grown)
            return NULL;
        jit->by_address = grown;
        jit->by_address_room = room;
    }
    struct translation *t = (struct translation *)(void *)(jit->meta + jit->meta_used);
    memset(t, 0, sizeof(*t));
    t->gpa = at->gpa;
    t->tail_gpa = at->tail_gpa;
    t->page = (uint16_t)pages_index(jit, at->gpa);
    t->tail_page = (uint16_t)g->tail_page;
    t->bytes = (uint16_t)g->bytes;
    t->far_entry = code_executable(&jit->code, g->far_entry);
    t->near_entry = code_executable(&jit->code, g->near_entry);
    t->leave = code_executable(&jit->code, g->leave);
    t->end = code_executable(&jit->code, g->e.at);
    for (unsigned i = 0; i < g->count; i++) { /* as decoded: memory may be another by now */
        uint32_t raw = g->insn[i].raw;

        memcpy((uint8_t *)t->source + (g->off[i] - g->page_off), &raw, g->insn[i].length);
    }
    jit->meta_used += bytes;
    jit->by_address[jit->translations++] = t;
    return t;
}

/* For people and profilers, who see code where it runs. Code that no hart has asked for has no virtual address. */
static void tell(struct jit *jit, const struct vcpu *v, const struct translation *t, size_t first, size_t bytes)
{
    const void *code = jit->code.executable + first;

    if (trace_on(TRACE_IN_ASM))
        trace_block(v ? v->index : 0, t->gpa, t->source, t->bytes);
    if (trace_on(TRACE_OUT_ASM))
        trace_host_code(t->gpa, code, bytes);
    if (perf_on())
        perf_code(code, bytes, t->gpa, v ? v->hart.pc : t->gpa);
}

static bool decode_at(struct jit *jit, struct gen *g, const struct place *at)
{
    if (!pages_watch(jit, at->gpa) || (at->tail_gpa && !pages_watch(jit, at->tail_gpa)))
        return false;
    if (!at->tail_gpa)
        return gen_decode(g, at->host, at->gpa & (PAGE_BYTES - 1));
    uint32_t raw = load_half(at->host) | (uint32_t)load_half(at->tail_host) << 16;
    unsigned tail_page = pages_index(jit, at->tail_gpa);
    if (!insn_is_long((uint16_t)raw) || tail_page >= TLB_CODE_PAGES) /* the former: it was, a moment ago */
        return false;
    gen_decode_crossing(g, raw, tail_page);
    return true;
}

static bool is_full(const struct jit *jit)
{
    return jit->code.bytes - jit->code.used < JIT_REGION_BYTES_MAX ||
           JIT_META_BYTES - jit->meta_used < sizeof(struct translation) + PAGE_BYTES;
}

/* There is none yet, and there is room. v: who asks, or NULL. */
static struct translation *make(struct jit *jit, const struct vcpu *v, const struct place *at)
{
    struct gen *g = jit->gen;
    struct translation *t;

    if (!pages_worth(jit, at->gpa) || !decode_at(jit, g, at))
        return NULL;
    g->one_hart = jit->vcpus == 1 && !jit->plain;
    g->lockstep = jit->lockstep != NULL;
    g->e = (struct emit){ .at = jit->code.writable + jit->code.used, .end = jit->code.writable + jit->code.bytes };
    if (!gen_region(g) || !(t = new_translation(jit, g, at)) || !pages_add(jit, t))
        return NULL;
    size_t first = jit->code.used;
    jit->code.used = (size_t)(g->e.at - jit->code.writable);
    tell(jit, v, t, first, jit->code.used - first);
    jit->stats.blocks++;
    jit->stats.guest_bytes += g->bytes;
    _Atomic(struct translation *) *bucket = bucket_of(jit, at->gpa);
    atomic_store_explicit(&t->next, atomic_load_explicit(bucket, memory_order_relaxed), memory_order_relaxed);
    atomic_store_explicit(bucket, t, memory_order_release);
    return t;
}

static struct translation *translate_locked(struct vcpu *v, const struct place *at, bool *full)
{
    struct jit *jit = v->jit;
    struct translation *t = lookup(jit, at->gpa); /* another hart was quicker? */

    if (t || jit->flushing || v->jit_generation != atomic_load_explicit(&jit->generation, memory_order_relaxed))
        return t;
    *full = is_full(jit);
    if (!*full)
        return make(jit, v, at);
    begin_flush(jit);
    return NULL;
}

static struct translation *translate(struct vcpu *v, const struct place *at)
{
    struct jit *jit = v->jit;
    int64_t began = clock_now_ns();
    bool full = false;

    lock(&jit->lock);
    struct translation *t = translate_locked(v, at, &full);
    jit->stats.translate_ns += (uint64_t)(clock_now_ns() - began);
    unlock(&jit->lock);
    if (full)
        kick_all(jit);
    return t;
}

int jit_warm(struct jit *jit, uint64_t gpa)
{
    struct ram_block *block = ram_block_at(jit->ram, gpa, sizeof(uint16_t));

    if (!block || gpa % sizeof(uint16_t))
        return 0;
    struct place at = { .gpa = gpa, .host = block->host + (gpa - block->gpa) };
    uint16_t first = load_half(at.host);
    if (!first)
        return -EAGAIN; /* no instruction begins so */
    if (insn_is_long(first) && crosses(gpa))
        return 0;
    lock(&jit->lock);
    bool full = jit->flushing || is_full(jit);
    bool made = !full && !lookup(jit, gpa) && make(jit, NULL, &at);
    jit->stats.warmed += made;
    unlock(&jit->lock);
    return full ? -ENOSPC : made;
}

/* --- the run loop's side --------------------------------------------------------------------------------- */

void jit_poll(struct vcpu *v)
{
    struct jit *jit = v->jit;
    uint32_t kills;

    if (UNLIKELY(v->jit_generation != atomic_load_explicit(&jit->generation, memory_order_acquire)))
        acknowledge(v);
    kills = atomic_load_explicit(&jit->kills, memory_order_acquire);
    if (UNLIKELY(v->jit_kills != kills)) {
        engine_drop_code_jumps(v);
        v->jit_kills = kills;
    }
    uint32_t turn = atomic_load_explicit(&jit->turn, memory_order_relaxed);
    if (UNLIKELY(v->jit_turn != turn)) {
        engine_drop_code_jumps(v);
        engine_drop_code_pages(v);
        v->jit_turn = turn;
    }
}

/* The physical address of pc, if its whole page may be executed; false: the interpreter finds out what is up. */
static bool reach(struct vcpu *v, uint64_t pc, uint64_t *gpa, const uint8_t **host)
{
    return engine_reach_code(v, pc, host, gpa) == 0 && v->tlb->fetch[tlb_fetch_index(pc)].tag == (pc & TLB_PAGE_MASK);
}

static bool locate(struct vcpu *v, struct place *at)
{
    uint64_t pc = v->hart.pc;

    *at = (struct place){ 0 };
    if (!reach(v, pc, &at->gpa, &at->host))
        return false;
    return !insn_is_long(load_half(at->host)) || !crosses(pc) || reach(v, pc + 2, &at->tail_gpa, &at->tail_host);
}

/* Blocks of single instructions are not kept, so their heat is nowhere else. A few may share one place here. */
static bool is_hot(struct vcpu *v)
{
    uint8_t *heat = &v->jit_heat[v->hart.pc / PAGE_BYTES % JIT_HEATS];

    if (*heat < v->jit->threshold && *heat < UINT8_MAX)
        (*heat)++;
    return *heat >= v->jit->threshold || *heat == UINT8_MAX;
}

static void note_page(struct vcpu *v, unsigned page, uint64_t va)
{
    if (page < TLB_CODE_PAGES && v->tlb->code_page[page] != (va & TLB_PAGE_MASK) + 1)
        tlb_code_page_add(v->tlb, page, va);
}

struct translation *jit_lookup(struct vcpu *v, bool promote)
{
    struct place at;

    if (!locate(v, &at))
        return NULL;
    struct translation *t = lookup(v->jit, at.gpa);
    if (!t && (promote || (at.tail_gpa && is_hot(v))))
        t = translate(v, &at);
    if (!t || t->tail_gpa != at.tail_gpa) /* the page behind is another one here, or has changed */
        return NULL;
    if (atomic_load_explicit(&t->turn, memory_order_relaxed) != v->jit_turn)
        atomic_store_explicit(&t->turn, v->jit_turn, memory_order_relaxed);
    note_page(v, t->page, v->hart.pc);
    if (t->tail_gpa)
        note_page(v, t->tail_page, v->hart.pc + 2);
    return t;
}

struct translation *jit_translation(struct vcpu *v, bool promote)
{
    jit_poll(v);
    engine_stat(&v->code_lookups, 1);
    return jit_lookup(v, promote);
}

const void *jit_find(struct vcpu *v, bool promote)
{
    uint64_t pc = v->hart.pc;

    jit_poll(v);
    engine_stat(&v->code_lookups, 1);
    const void *known = crosses(pc) ? NULL : tlb_jump_find(v->tlb, pc); /* it may have left since its page is unknown */
    if (known) {
        engine_stat(&v->code_jump_hits, 1);
        return known;
    }
    struct translation *t = jit_lookup(v, promote);
    if (!t)
        return NULL;
    tlb_jump_add(v->tlb, pc, t->far_entry);
    return t->far_entry;
}

void jit_enter(struct vcpu *v, const void *code)
{
    void (*enter)(struct vcpu *, const void *, uint64_t);
    const void *entry = code_executable(&v->jit->code, v->jit->code.thunks.enter);

    memcpy(&enter, &entry, sizeof(enter)); /* ISO C knows no cast from an object's address to a function's */
    v->jit_site = NULL;
    enter(v, code, v->hart.pc);
    jit_fp_park(v);
}

void jit_run(struct vcpu *v, const void *code)
{
    jit_enter(v, code);
    if (v->jit_site)
        links_make(v);
}
