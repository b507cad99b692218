#include "vcpu/jit/lockstep.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "vcpu/guest_access.h"
#include "vcpu/jit/jit_priv.h"
#include "vcpu/jit/lockstep_priv.h"

enum { ATTEMPTS = 3, SINGLES = 1 << 13 };

/* A decoded instruction that lies alone, for the interpreter. Depends on nothing but its key. */
struct single {
    uint64_t key; /* raw and place in the page, and a bit that makes it other than 0 */
    bool refused; /* touches more than a dry run may */
    _Alignas(32) uint8_t block[BLOCK_SINGLE_BYTES];
};

struct lockstep {
    struct lockstep_run before, generated, interpreted;
    struct lockstep_run *run; /* whose stores are listed now */
    struct tlb *tlb;          /* the hart's own; v->tlb is `blind` once a store is listed, so that each load asks */
    bool ended;               /* in front of an instruction that is not for a dry run */
    struct tlb blind;
    struct single single[SINGLES];
    _Atomic uint64_t runs, instructions, repeats;
};

struct lockstep *lockstep_new(void)
{
    struct lockstep *l = aligned_alloc(64, (sizeof(*l) + 63) & ~(size_t)63);

    if (!l)
        return NULL;
    memset(l, 0, sizeof(*l));
    tlb_init(&l->blind);
    return l;
}

void lockstep_free(struct lockstep *l)
{
    free(l);
}

void lockstep_stats(const struct lockstep *l, struct lockstep_stats *out)
{
    out->runs = atomic_load_explicit(&l->runs, memory_order_relaxed);
    out->instructions = atomic_load_explicit(&l->instructions, memory_order_relaxed);
    out->repeats = atomic_load_explicit(&l->repeats, memory_order_relaxed);
}

/* --- what a dry run may do --------------------------------------------------------------------------------- */

bool lockstep_refuses(uint32_t raw)
{
    enum { FFLAGS = 1, FCSR = 3 };
    struct insn insn = decode(raw);
    uint32_t opcode = insn.op < OP_ENCODED ? decode_ops[insn.op].match & 127 : 0x73;
    bool is_csr = insn.op >= OP_csrrw && insn.op <= OP_csrrci;

    if (is_csr && insn.imm >= FFLAGS && insn.imm <= FCSR)
        return false;
    return opcode == 0x73 || opcode == 0x2f || opcode == 0x0f;
}

/* --- memory, during a dry run ---------------------------------------------------------------------------- */

void lockstep_end(struct vcpu *v, struct uop *u)
{
    v->lockstep->ended = true;
    v->hart.pc = v->page_va + u->off;
    engine_count(v, -(int64_t)u->left);
}

/* Plain memory that nobody watches, or false: the run is over. Page tables get their A and D bits, as they would for an
 * access that was only tried, and the page its dirty mark: no safe point lies before the store itself. */
static bool reach(struct vcpu *v, struct uop *u, uint64_t va, unsigned bytes, enum mmu_access access, struct reach *at)
{
    struct tlb *seen = v->tlb;
    bool one_page = (va & (PAGE_BYTES - 1)) + bytes <= PAGE_BYTES;

    v->tlb = v->lockstep->tlb;
    bool plain = one_page && engine_reach(v, va, bytes, access, at) == 0 && at->host &&
                 !(access == MMU_WRITE && bus_watches_page(v->bus, at->gpa));
    v->tlb = seen;
    if (!plain)
        lockstep_end(v, u);
    return plain;
}

bool lockstep_load(struct vcpu *v, struct uop *u, uint64_t va, unsigned bytes)
{
    const struct lockstep_run *run = v->lockstep->run;
    struct reach at;

    if (!reach(v, u, va, bytes, MMU_READ, &at))
        return false;
    v->value = guest_load(at.host, bytes);
    for (unsigned i = 0; i < run->stores; i++) {
        const struct lockstep_store *store = &run->store[i];

        for (unsigned byte = 0; byte < store->bytes; byte++) {
            ptrdiff_t to = store->host + byte - at.host;

            if (to >= 0 && to < (ptrdiff_t)bytes)
                v->value = (v->value & ~(UINT64_C(255) << 8 * to)) | (store->value >> 8 * byte & 255) << 8 * to;
        }
    }
    return true;
}

bool lockstep_store(struct vcpu *v, struct uop *u, uint64_t va, unsigned bytes, uint64_t value)
{
    struct lockstep_run *run = v->lockstep->run;
    struct reach at;

    if (!reach(v, u, va, bytes, MMU_WRITE, &at))
        return false;
    if (run->stores == LOCKSTEP_STORES_MAX) {
        lockstep_end(v, u);
        return false;
    }
    run->store[run->stores++] =
        (struct lockstep_store){ .host = at.host,
                                 .va = va,
                                 .bytes = bytes,
                                 .value = bytes == 8 ? value : value & ((UINT64_C(1) << 8 * bytes) - 1) };
    v->tlb = &v->lockstep->blind;
    return true;
}

/* --- the two runs ---------------------------------------------------------------------------------------- */

/* All but the wires, which are not the hart's. */
static void copy_hart(struct hart *to, const struct hart *from)
{
    memcpy(to, from, offsetof(struct hart, pins));
}

static void begin(struct vcpu *v, struct lockstep_run *run)
{
    struct lockstep *l = v->lockstep;

    copy_hart(&v->hart, &l->before.hart);
    atomic_store_explicit(&v->icount, l->before.icount, memory_order_relaxed);
    v->counted = l->before.icount;
    run->stores = 0;
    l->run = run;
    l->tlb = v->tlb;
    l->ended = false;
    v->page_va = v->hart.pc & TLB_PAGE_MASK;
    v->dry = true;
}

static void end(struct vcpu *v)
{
    struct lockstep *l = v->lockstep;

    v->dry = false;
    v->tlb = l->tlb;
    engine_sync_counters(v, 0); /* reading a CSR does so in one engine and not in the other */
    copy_hart(&l->run->hart, &v->hart);
    l->run->icount = atomic_load_explicit(&v->icount, memory_order_relaxed);
}

/* exit_request is up, no jump is known and none is linked: whatever leads out of the region or back comes here. */
static bool run_generated(struct vcpu *v, const struct translation *t)
{
    begin(v, &v->lockstep->generated);
    jit_enter(v, t->near_entry);
    end(v);
    bool ended = v->lockstep->ended || v->interpret; /* the latter: floating point is off */
    v->interpret = false;
    return ended;
}

static struct single *single_of(struct lockstep *l, uint32_t raw, uint64_t off)
{
    uint64_t key = (uint64_t)raw << 13 | off << 1 | 1;
    struct single *single = &l->single[(key * UINT64_C(0x9e3779b97f4a7c15) >> 40) % SINGLES];

    if (single->key != key) {
        block_make_single((struct block *)(void *)single->block, raw, (uint16_t)off);
        single->refused = lockstep_refuses(raw);
        single->key = key;
    }
    return single;
}

/* As it was translated, whatever memory says by now: stale code may run until fence.i. False: it did not run. */
static bool interpret_one(struct vcpu *v, const struct translation *t)
{
    struct lockstep *l = v->lockstep;
    uint64_t at = v->hart.pc - l->before.hart.pc;

    if (at >= t->bytes)
        return false;
    uint32_t raw = t->source[at / 2];
    if (insn_is_long((uint16_t)raw) && at + 4 <= t->bytes)
        raw |= (uint32_t)t->source[at / 2 + 1] << 16;
    struct single *single = single_of(l, raw, v->hart.pc & (PAGE_BYTES - 1));
    if (single->refused)
        return false;
    v->page_block = NULL;
    engine_count(v, 1);
    struct uop *u = ((struct block *)(void *)single->block)->uop;
    do
        u = u->fn(v, u);
    while (!ENGINE_TAIL_CALLS && u);
    return !l->ended;
}

/* As many instructions as the other run had. */
static void run_interpreted(struct vcpu *v, const struct translation *t)
{
    struct lockstep *l = v->lockstep;

    begin(v, &l->interpreted);
    while (atomic_load_explicit(&v->icount, memory_order_relaxed) < l->generated.icount)
        if (!interpret_one(v, t))
            break;
    end(v);
}

/* --- comparing ------------------------------------------------------------------------------------------- */

/* FS may become dirty earlier than it must (Privileged ISA, 3.1.6.6): generated code asks once for a region. */
static void forgive_fs(struct hart *generated, const struct hart *interpreted)
{
    if ((generated->mstatus & MSTATUS_FS) == MSTATUS_FS && (interpreted->mstatus & MSTATUS_FS))
        generated->mstatus = (generated->mstatus & ~MSTATUS_FS) | (interpreted->mstatus & MSTATUS_FS);
}

static bool same_stores(const struct lockstep_run *a, const struct lockstep_run *b)
{
    if (a->stores != b->stores)
        return false;
    for (unsigned i = 0; i < a->stores; i++)
        if (a->store[i].host != b->store[i].host || a->store[i].bytes != b->store[i].bytes ||
            a->store[i].value != b->store[i].value)
            return false;
    return true;
}

static bool same(struct lockstep_run *generated, const struct lockstep_run *interpreted)
{
    forgive_fs(&generated->hart, &interpreted->hart);
    return generated->icount == interpreted->icount &&
           memcmp(&generated->hart, &interpreted->hart, offsetof(struct hart, pins)) == 0 &&
           same_stores(generated, interpreted);
}

static void write_stores(const struct lockstep_run *run)
{
    for (unsigned i = 0; i < run->stores; i++)
        guest_store(run->store[i].host, run->store[i].bytes, run->store[i].value);
}

/* True: the run ended in front of an instruction that has yet to run. */
static bool run_both(struct vcpu *v, const struct translation *t)
{
    struct lockstep *l = v->lockstep;

    engine_sync_counters(v, 0);
    copy_hart(&l->before.hart, &v->hart);
    l->before.icount = atomic_load_explicit(&v->icount, memory_order_relaxed);
    for (unsigned attempt = 0; attempt < ATTEMPTS; attempt++) {
        bool ended = run_generated(v, t);

        run_interpreted(v, t);
        if (same(&l->generated, &l->interpreted)) {
            write_stores(&l->interpreted);
            engine_stat(&l->runs, 1);
            engine_stat(&l->instructions, l->interpreted.icount - l->before.icount);
            engine_stat(&l->repeats, attempt);
            return ended || l->interpreted.icount == l->before.icount;
        }
    }
    lockstep_report(v, t, &l->before, &l->generated, &l->interpreted, stderr);
    abort(); /* one of the two is wrong, and nobody knows which state is the guest's */
}

bool lockstep_run(struct vcpu *v)
{
    const struct translation *t = jit_translation(v, v->promote);

    if (!t)
        return false;
    engine_kick_self(v); /* generated code leaves wherever it looks, the interpreter behind each instruction */
    engine_stat(&v->code_runs, 1);
    if (run_both(v, t))
        engine_step(v);
    v->promote = true; /* or a region's end would be found hot only later, and run uncompared until then */
    return true;
}
