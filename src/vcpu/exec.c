/* The run loop: from hart.pc to a block, from a block to the next, and what happens at a safe point between two. */
#include <string.h>

#include "vcpu/engine.h"
#include "vcpu/trace.h"
#include "vcpu/jit/jit.h"
#include "vcpu/jit/lockstep.h"

const uop_fn engine_handlers[OP_COUNT] = {
#define X(name, mnemonic, format, match, mask, kind) [OP_##name] = op_##name,
    OPS(X)
#undef X
#define PSEUDO(name) [OP_PSEUDO_##name] = op_PSEUDO_##name,
        PSEUDO_OPS(PSEUDO)
#undef PSEUDO
};

/* --- leaving a block ------------------------------------------------------------------------------------- */

struct uop *engine_leave(struct vcpu *v, uint64_t pc, int64_t unrun)
{
    v->hart.pc = pc;
    engine_count(v, -unrun);
    return NULL;
}

struct uop *engine_end(struct vcpu *v, struct uop *u)
{
    engine_count(v, 1 - (int64_t)u->left);
    return NULL;
}

struct uop *engine_end_next(struct vcpu *v, struct uop *u)
{
    v->hart.pc = v->page_va + u->off + u->length;
    return engine_end(v, u);
}

void engine_sync_counters(struct vcpu *v, uint64_t unretired)
{
    uint64_t now = atomic_load_explicit(&v->icount, memory_order_relaxed) - unretired;
    uint64_t more = now - v->counted;

    if (!(v->hart.mcountinhibit & 1))
        v->hart.mcycle += more;
    if (!(v->hart.mcountinhibit & 4))
        v->hart.minstret += more;
    v->counted = now;
}

static void take_trap(struct vcpu *v, uint64_t cause, uint64_t tval)
{
    unsigned effects = 0;

    uint64_t pc = v->hart.pc;
    unsigned from = v->hart.priv;

    engine_sync_counters(v, 0);
    hart_trap(&v->hart, cause, tval, &effects);
    if (trace_on(TRACE_INT))
        trace_trap(v->index, cause, pc, tval, from, v->hart.priv);
    engine_apply(v, effects);
}

struct uop *engine_trap(struct vcpu *v, struct uop *u, uint64_t cause, uint64_t tval)
{
    if (UNLIKELY(v->dry)) {
        lockstep_end(v, u);
        return NULL;
    }
    v->hart.pc = v->page_va + u->off;
    engine_count(v, -(int64_t)u->left);
    take_trap(v, cause, tval);
    return NULL;
}

struct uop *engine_illegal(struct vcpu *v, struct uop *u)
{
    return engine_trap(v, u, CAUSE_ILLEGAL, u->raw);
}

OP(PSEUDO_illegal)
{
    return engine_illegal(v, u);
}

/* In front of every block while code can be generated. */
OP(PSEUDO_heat)
{
    if (LIKELY(--u->disp > 0))
        NEXT;
    u->disp = 1; /* ask each time, until there is code */
    v->promote = true;
    engine_stat(&v->promotions, 1);
    return engine_leave(v, v->page_va + u->off, u->left);
}

/* --- kicks ----------------------------------------------------------------------------------------------- */

/* Make the inline compare pass again, unless a kick came meanwhile: reading the kicker's 0 makes its request, which
 * it stored before, visible here. */
static void arm_entry(struct vcpu *v)
{
    atomic_exchange_explicit(&v->entry_generation, v->blocks.generation, memory_order_acq_rel);
    if (atomic_load_explicit(&v->exit_request, memory_order_seq_cst))
        atomic_store_explicit(&v->entry_generation, 0, memory_order_relaxed);
}

void engine_kick_self(struct vcpu *v)
{
    atomic_store_explicit(&v->exit_request, true, memory_order_relaxed);
    atomic_store_explicit(&v->entry_generation, 0, memory_order_relaxed);
}

void engine_fence_i(struct vcpu *v)
{
    if (v->jit)
        jit_fence_i(v);
    block_cache_next_generation(&v->blocks);
    arm_entry(v);
}

int64_t engine_timer_ns(const struct vcpu *v)
{
    uint64_t ticks = v->hart.stimecmp;
    bool on = (v->hart.menvcfg & MENVCFG_STCE) && ticks <= (uint64_t)INT64_MAX / GUEST_TICK_NS;

    return on ? (int64_t)ticks * GUEST_TICK_NS : TIMER_NEVER;
}

static void program_timer(struct vcpu *v)
{
    atomic_store_explicit(&v->timer_due, false, memory_order_seq_cst); /* before it may fire for the new deadline */
    timer_set_ns(v->timer, engine_timer_ns(v));
}

/* Worth a look at the clock and the masks? */
static bool may_be_interrupted(struct vcpu *v)
{
    uint64_t pending = atomic_load_explicit(&v->hart.pins, memory_order_relaxed) | v->hart.mip_soft;

    return (pending & v->hart.mie) || atomic_load_explicit(&v->timer_due, memory_order_relaxed);
}

bool engine_apply(struct vcpu *v, unsigned effects)
{
    bool leave = false;

    if (effects & EFFECT_FLUSH)
        engine_flush(v);
    if (effects & EFFECT_SPACE)
        engine_select_space(v);
    if (effects & (EFFECT_FLUSH | EFFECT_SPACE))
        leave = true;
    if (effects & (EFFECT_FLUSH | EFFECT_SPACE | EFFECT_MODE))
        engine_select_mode(v);
    if (effects & EFFECT_TIMER)
        program_timer(v);
    if ((effects & (EFFECT_INTERRUPTS | EFFECT_MODE)) && may_be_interrupted(v)) {
        engine_kick_self(v);
        leave = true;
    }
    return leave;
}

/* --- finding the next block ------------------------------------------------------------------------------ */

static struct block *get_block(struct vcpu *v, uint64_t gpa, const uint8_t *host)
{
    uint64_t emptied = v->blocks.emptied, made = v->blocks.made;
    struct block *block = block_get(&v->blocks, gpa, host);

    if (trace_on(TRACE_IN_ASM) && v->blocks.made != made)
        trace_block(v->index, gpa, host, block->bytes);
    if (v->blocks.emptied != emptied)
        engine_drop_blocks(v);
    return block;
}

/* The block a branch inside its page leads to: by physical address, no translation asked. */
static __attribute__((noinline)) struct block *link_block(struct vcpu *v, struct uop *u)
{
    uint64_t gpa = (v->page_block->gpa & TLB_PAGE_MASK) + (uint64_t)u->disp;
    uint64_t emptied = v->blocks.emptied;
    struct block *block = get_block(v, gpa, ram_ptr(v->ram, gpa, 2));

    if (block) {
        v->page_block = block;
        if (v->blocks.emptied == emptied) /* else u itself is gone */
            u->link = block;
    }
    return block;
}

struct uop *engine_unlinked(struct vcpu *v, struct uop *u, int64_t unrun)
{
    uint64_t target = v->page_va + (uint64_t)(int64_t)u->disp;

    if (v->page_block && (target & TLB_PAGE_MASK) == v->page_va) {
        if (atomic_load_explicit(&v->entry_generation, memory_order_relaxed) != v->blocks.generation)
            return engine_leave(v, target, unrun);
        struct block *block = link_block(v, u);
        if (!block)
            return engine_leave(v, target, unrun);
        engine_count(v, (int64_t)block->count - unrun);
        GO(block->uop);
    }
    GO_VIRTUAL(target, unrun);
}

static struct block *single_of(struct vcpu *v)
{
    return (struct block *)(void *)v->single;
}

/* One instruction that has no place in a page: it crosses the end, or PMP wants to be asked about each. */
static struct block *single_block(struct vcpu *v, uint64_t pc)
{
    uint64_t first_gpa = 0;
    uint32_t raw = 0;

    for (unsigned i = 0; i < 4; i += 2) {
        const uint8_t *host;
        uint64_t gpa, cause = engine_reach_code(v, pc + i, &host, &gpa);

        if (!cause && !mmu_pmp_allows(&v->pmp, v->code.priv, gpa, 2, MMU_FETCH))
            cause = CAUSE_FETCH_ACCESS;
        if (cause) {
            take_trap(v, cause, pc + i);
            return NULL;
        }
        first_gpa = i ? first_gpa : gpa;
        raw |= (uint32_t)__atomic_load_n((const uint16_t *)(const void *)host, __ATOMIC_RELAXED) << 8 * i;
        if (!insn_is_long((uint16_t)raw))
            break;
    }
    if (trace_on(TRACE_IN_ASM))
        trace_block(v->index, first_gpa, &raw, insn_is_long((uint16_t)raw) ? 4 : 2);
    block_make_single(single_of(v), raw, pc & ~TLB_PAGE_MASK);
    v->page_block = NULL;
    return single_of(v);
}

/* What hart.pc leads to; NULL: a trap was taken instead. */
static struct block *next_block(struct vcpu *v)
{
    uint64_t pc = v->hart.pc, gpa;
    struct jump *jump = engine_jump_slot(v, pc);
    const uint8_t *host;
    struct block *block;

    v->page_va = pc & TLB_PAGE_MASK;
    if (jump->va == pc && jump->mappings == v->mappings && jump->block->generation == v->blocks.generation) {
        v->page_block = jump->block;
        return jump->block;
    }
    uint64_t cause = engine_reach_code(v, pc, &host, &gpa);
    if (cause) {
        take_trap(v, cause, pc);
        return NULL;
    }
    if (v->tlb->fetch[tlb_fetch_index(pc)].tag != v->page_va)
        return single_block(v, pc);
    block = get_block(v, gpa, host);
    if (!block)
        return single_block(v, pc);
    *jump = (struct jump){ .va = pc, .block = block, .mappings = v->mappings };
    engine_note_jump(v, pc);
    v->page_block = block;
    return block;
}

/* --- the loop -------------------------------------------------------------------------------------------- */

void engine_reload(struct vcpu *v)
{
    v->counted = atomic_load_explicit(&v->icount, memory_order_relaxed);
    v->reserved_bytes = 0;
    v->hart.x[0] = 0;
    if (v->jit)
        jit_distrust(v);
    engine_flush(v);
    engine_fence_i(v);
    engine_select_space(v);
    engine_select_mode(v);
    program_timer(v);
    atomic_store_explicit(&v->timer_due, true, memory_order_relaxed); /* look at the clock once */
}

/* Between two instructions, hart.pc in place, no host pointer held. False: the thread is to end. */
static bool safe_point(struct vcpu *v)
{
    for (;;) {
        arm_entry(v);
        if (!atomic_exchange_explicit(&v->exit_request, false, memory_order_seq_cst) && !v->hart.waiting)
            return true;
        arm_entry(v);
        engine_poll_dirty(v);
        if (v->jit)
            jit_poll(v); /* a hart that goes to sleep holds up nobody who waits for memory */
        if (atomic_load_explicit(&v->quit, memory_order_seq_cst))
            return false;
        if (atomic_load_explicit(&v->pause_requested, memory_order_seq_cst)) {
            engine_sync_counters(v, 0);
            if (vcpu_wait_while_paused(v))
                engine_reload(v);
            atomic_store_explicit(&v->ran_ns, clock_now_ns(), memory_order_relaxed);
            engine_kick_self(v);
            continue;
        }
        uint64_t ticks = guest_clock_ticks(v->clock);
        if (v->hart.waiting && !hart_wakes(&v->hart, ticks)) {
            vcpu_sleep(v);
            engine_kick_self(v);
            continue;
        }
        v->hart.waiting = false;
        uint64_t cause = hart_pending_interrupt(&v->hart, ticks);
        if (cause) {
            take_trap(v, cause, 0);
            v->interrupted = true;
        } else if (v->writer.quota.owes) { /* an interrupt comes first, and its handler runs until it dirties */
            vcpu_hold(v);
            engine_kick_self(v);
        }
    }
}

void engine_step(struct vcpu *v)
{
    v->page_va = v->hart.pc & TLB_PAGE_MASK;
    struct block *block = single_block(v, v->hart.pc);
    if (block) {
        engine_count(v, block->count);
        struct uop *u = block->uop;
        do
            u = u->fn(v, u);
        while (!ENGINE_TAIL_CALLS && u);
    }
}

/* One instruction, by itself, or none where a debugger wants to stop. No single block is linked to another, and the
 * pause at which v->debug was raised has dropped all jumps: nothing runs past it. */
static void run_single(struct vcpu *v)
{
    if (engine_debug_stops(v))
        return;
    engine_step(v);
    engine_debug_ran(v);
}

/* False: there is none, or it is the interpreter's turn. */
static inline bool run_code(struct vcpu *v)
{
    if (!v->jit || v->interpret)
        return false;
    if (UNLIKELY(v->lockstep != NULL))
        return lockstep_run(v);
    const void *code = jit_find(v, v->promote);
    if (!code)
        return false;
    v->promote = false;
    engine_stat(&v->code_runs, 1);
    jit_run(v, code);
    return true;
}

void engine_run(struct vcpu *v)
{
    engine_kick_self(v);
    for (;;) {
        if (UNLIKELY(atomic_load_explicit(&v->entry_generation, memory_order_relaxed) != v->blocks.generation) &&
            !safe_point(v))
            return;
        if (UNLIKELY(atomic_load_explicit(&v->debug, memory_order_relaxed))) { /* this thread saw the pause's lock */
            run_single(v);
            continue;
        }
        if (run_code(v))
            continue;
        struct block *block = next_block(v);
        bool refused = v->promote, hot = refused || v->interpret; /* but not to be had: at least get on */
        v->promote = v->interpret = false;
        if (!block)
            continue;
        if (refused)
            block_cool(&v->blocks, block);
        engine_stat(&v->block_runs, 1);
        engine_count(v, block->count);
        struct uop *u = hot ? block_first(block) : block->uop;
        do
            u = u->fn(v, u);
        while (!ENGINE_TAIL_CALLS && u);
    }
}
