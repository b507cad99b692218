/* The inside of a vCPU: for the files of the execution engine only.
 *
 * Handlers (op_*) run one uop and go on to the next by a tail call, so a block runs without ever returning; they return
 * NULL to leave, with hart.pc set. Where tail calls cannot be had (sanitizers, -O0) the same handlers return the next
 * uop to a loop. Nothing in a handler's frame may have its address taken, or the compiler keeps the frame. */
#pragma once
#include <stdatomic.h>

#include "base/lock.h"
#include "base/thread.h"
#include "memory/mmu.h"
#include "memory/tlb.h"
#include "vcpu/block.h"
#include "vcpu/debug.h"
#include "vcpu/hart.h"
#include "vcpu/translate.h"
#include "vcpu/trap.h"
#include "vcpu/vcpu.h"

enum { JUMP_ENTRIES = 2048, JIT_HEATS = 64 };

/* Where a virtual address leads: an indirect jump's short cut. Valid for one generation of its TLB's mappings. */
struct jump {
    uint64_t va;
    struct block *block;
    uint64_t mappings;
};

struct vcpu {
    struct hart hart; /* first: handlers reach registers at small offsets */

    /* owner: the vCPU's thread */
    _Atomic uint32_t entry_generation; /* == blocks.generation, or 0 after a kick: one compare at block entry for both.
                                          Kickers store 0; the owner restores it */
    struct tlb *tlb;
    struct jump *jump;
    uint64_t mappings;        /* generation of *tlb's mappings, no other TLB's: raised by what drops jumps */
    uint64_t page_va;         /* virtual address of the running block's page */
    _Atomic uint64_t icount;  /* instructions retired, whole blocks ahead; only the owner stores */
    uint64_t value;           /* a slow path's result */
    uint64_t counted;         /* icount when mcycle and minstret were last brought up to date */
    struct block *page_block; /* a block of the page that runs now, for its physical address; NULL: a single runs */
    struct block_cache blocks;
    struct mmu_pmp pmp;
    struct mmu_context data, code; /* for walks in the present mode */
    struct translate translate;
    unsigned reserved_bytes; /* of the last LR; not migrated: a lost one is legal */
    int64_t lead_ns;         /* so much before stimecmp the host is asked to end a sleep */
    bool interrupted;        /* an interrupt was taken since debug_arm() */
    /* statistics: others read them */
    _Atomic uint64_t sleeps_ns, tlb_refills, slow_stores;
    _Atomic uint64_t code_lookups, code_jump_hits, code_runs, block_runs, promotions;

    /* generated code (jit/); it stores here too */
    uint64_t jit_operand;                         /* an argument of C that it calls; `value` is another */
    const void *jit_site;                         /* the jump that led out, to be linked; NULL: another way out */
    uint32_t jit_generation, jit_kills, jit_turn; /* of what this hart remembers */
    uint8_t jit_heat[JIT_HEATS];                  /* of instructions that cross the end of a page */
    bool fp_ready;                                /* MXCSR is the guest's */
    bool interpret;                               /* the next block is the interpreter's, hot or not */
    bool promote;                                 /* the interpreter found hart.pc hot */
    bool dry;                                     /* lock-step (jit/lockstep.h): nobody may see yet what is done now */

    _Alignas(32) uint8_t single[BLOCK_SINGLE_BYTES]; /* block for one instruction */

    /* fixed after new */
    unsigned index;
    struct bus *bus;
    struct ram *ram;
    struct dirty *dirty;
    struct guest_clock *clock;
    struct timer *timer;
    struct tlb *tlbs;   /* TLB_COUNT, each initialised when it is first chosen */
    struct jump *jumps; /* TLB_COUNT * JUMP_ENTRIES */
    struct thread thread;
    struct jit *jit;           /* NULL: everything is interpreted */
    struct lockstep *lockstep; /* NULL: engines are not compared */

    /* atomic */
    _Atomic bool exit_request; /* look around at the next safe point */
    _Atomic bool sleeping;     /* in wfi: a kick must signal */
    _Atomic bool pause_requested, quit;
    _Atomic bool timer_due; /* stimecmp was reached */
    _Atomic bool debug;     /* a debugger wants to see every instruction; changed only while paused */
    _Atomic uint64_t kicks;
    _Atomic int tid;
    _Atomic int64_t paused_ns, resumed_ns; /* its own pauses; the owner stores */
    struct stall stall;
    struct dirty_writer writer;

    /* under lock */
    struct lock lock;
    struct cond wake;    /* the thread waits */
    struct cond settled; /* somebody waits for it to pause */
    bool paused;
    enum debug_stop debug_stop;
    /* and changed only while paused, so that the thread itself may read them without */
    enum debug_mode debug_mode;
    struct debug_client debugger;
};

/* --- going on ------------------------------------------------------------------------------------------- */

#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) &&                        \
    !defined(GODWIT_NO_TAIL_CALLS)
#define ENGINE_TAIL_CALLS 1
#define GO(uop_)          return (uop_)->fn(v, (uop_))
#else
#define ENGINE_TAIL_CALLS 0
#define GO(uop_)          return (void)v, (uop_)
#endif

#define NEXT            GO(u + 1)
#define OP(name)        struct uop *op_##name(struct vcpu *v, struct uop *u)
#define PSEUDO_OP(name) struct uop *op_PSEUDO_##name(struct vcpu *v, struct uop *u)
#define LIKELY(x)       __builtin_expect(!!(x), 1)
#define UNLIKELY(x)     __builtin_expect(!!(x), 0)
#define XR(r)           (v->hart.x[u->r])

#define X(name, mnemonic, format, match, mask, kind) OP(name);
OPS(X)
#undef X
#define PSEUDO(name) PSEUDO_OP(name);
PSEUDO_OPS(PSEUDO)
#undef PSEUDO

extern const uop_fn engine_handlers[OP_COUNT];

/* A statistic: its owner adds, others may look. */
static inline void engine_stat(_Atomic uint64_t *stat, uint64_t add)
{
    atomic_store_explicit(stat, atomic_load_explicit(stat, memory_order_relaxed) + add, memory_order_relaxed);
}

static inline void engine_count(struct vcpu *v, int64_t instructions)
{
    uint64_t now = atomic_load_explicit(&v->icount, memory_order_relaxed);

    atomic_store_explicit(&v->icount, now + (uint64_t)instructions, memory_order_relaxed);
}

/* May this block run: neither a fence.i nor a kick since? */
static inline bool engine_enters(struct vcpu *v, const struct block *block)
{
    return LIKELY(block->generation == atomic_load_explicit(&v->entry_generation, memory_order_relaxed));
}

static inline struct jump *engine_jump_slot(struct vcpu *v, uint64_t pc)
{
    return &v->jump[(pc >> 1 ^ pc >> 13) & (JUMP_ENTRIES - 1)];
}

/* Leave the block's straight line for a virtual address. `unrun`: instructions that block entry counted and that do not
 * run. A macro, since GO must be a tail call of the handler itself. */
#define GO_VIRTUAL(pc_, unrun_)                                                                                        \
    do {                                                                                                               \
        uint64_t go_pc = (pc_);                                                                                        \
        struct jump *go_jump = engine_jump_slot(v, go_pc);                                                             \
        if (LIKELY(go_jump->va == go_pc && go_jump->mappings == v->mappings) && engine_enters(v, go_jump->block)) {    \
            struct block *go_block = go_jump->block;                                                                   \
            v->page_va = go_pc & TLB_PAGE_MASK;                                                                        \
            v->page_block = go_block;                                                                                  \
            engine_count(v, (int64_t)go_block->count - (unrun_));                                                      \
            GO(go_block->uop);                                                                                         \
        }                                                                                                              \
        return engine_leave(v, go_pc, (unrun_));                                                                       \
    } while (0)

/* Take u's branch: by its link, which never leaves the page. */
#define GO_LINK(unrun_)                                                                                                \
    do {                                                                                                               \
        struct block *go_block = u->link;                                                                              \
        if (engine_enters(v, go_block)) {                                                                              \
            engine_count(v, (int64_t)go_block->count - (unrun_));                                                      \
            GO(go_block->uop);                                                                                         \
        }                                                                                                              \
        return engine_unlinked(v, u, (unrun_));                                                                        \
    } while (0)

struct uop *engine_leave(struct vcpu *v, uint64_t pc, int64_t unrun);
struct uop *engine_unlinked(struct vcpu *v, struct uop *u, int64_t unrun);

/* --- exec.c ----------------------------------------------------------------------------------------------- */

void engine_run(struct vcpu *v); /* until the thread is to quit */

/* u does not retire: take the trap. Returns NULL, for the handler to return. */
struct uop *engine_trap(struct vcpu *v, struct uop *u, uint64_t cause, uint64_t tval);
struct uop *engine_illegal(struct vcpu *v, struct uop *u);

/* Do what trap.h's functions asked for; true: leave the block, the code ahead may mean something else. */
bool engine_apply(struct vcpu *v, unsigned effects);
/* u retired: leave for the instruction behind it, or for where hart.pc points already. */
struct uop *engine_end_next(struct vcpu *v, struct uop *u);
struct uop *engine_end(struct vcpu *v, struct uop *u);

void engine_sync_counters(struct vcpu *v, uint64_t unretired); /* mcycle, minstret up to now */
void engine_fence_i(struct vcpu *v);
void engine_reload(struct vcpu *v);            /* everything derived from the hart */
void engine_kick_self(struct vcpu *v);         /* the next safe point looks around, and no block is entered before it */
int64_t engine_timer_ns(const struct vcpu *v); /* guest time of stimecmp; TIMER_NEVER: out of reach, or not in use */
void engine_step(struct vcpu *v); /* one instruction; no jump may be remembered, or the kick be under way */

/* --- translate.c ------------------------------------------------------------------------------------------ */

void engine_select_mode(struct vcpu *v);  /* priv, SUM, MXR, MPRV, MPP changed: v->tlb and what walks depend on */
void engine_select_space(struct vcpu *v); /* satp changed; engine_select_mode() is to follow */
void engine_flush(struct vcpu *v);        /* every translation of every address space; PMP is read again */
/* sfence.vma (Privileged ISA, 12.2.1) with rs1 (has_va) and rs2 (has_asid). */
void engine_fence(struct vcpu *v, bool has_va, uint64_t va, bool has_asid, uint64_t asid);
void engine_drop_blocks(struct vcpu *v);            /* the interpreter's blocks are gone: no jump may lead to one */
void engine_drop_code_jumps(struct vcpu *v);        /* generated code is gone: no tlb.jump of any TLB may lead to it */
void engine_drop_code_pages(struct vcpu *v);        /* and the numbers of its pages: no TLB may know where they are */
void engine_note_jump(struct vcpu *v, uint64_t va); /* v->jump got an entry for va */
void engine_rearm(struct vcpu *v);                  /* every write permission, before the dirty epoch is acknowledged */

/* --- exec_mem.c ------------------------------------------------------------------------------------------- */

/* A guest address within one page, ready to be used now; void at the next safe point. */
struct reach {
    uint8_t *host; /* NULL: a device */
    uint64_t gpa;
};

/* Translate; for MMU_WRITE the page is marked dirty. The access must not leave its page. 0, or the cause. */
uint64_t engine_reach(struct vcpu *v, uint64_t va, unsigned bytes, enum mmu_access access, struct reach *out);
/* Code: the page that holds pc. 0, or the cause. *gpa is pc's own. */
uint64_t engine_reach_code(struct vcpu *v, uint64_t pc, const uint8_t **host, uint64_t *gpa);

/* Any size, any alignment. False: trapped. A load's bytes come in v->value, zero-extended. */
bool engine_load(struct vcpu *v, struct uop *u, uint64_t va, unsigned bytes);
bool engine_store(struct vcpu *v, struct uop *u, uint64_t va, unsigned bytes, uint64_t value);

/* What a vCPU does at a safe point for the dirty protocol; cheap when nothing changed. */
void engine_poll_dirty(struct vcpu *v);

/* --- vcpu.c: called by the run loop at a safe point ------------------------------------------------------- */

bool vcpu_wait_while_paused(struct vcpu *v); /* true: was paused, the hart may be another */
/* A host wakes a thread late by what it takes to leave its idle state, and by what else it does. The least of that is asked
 * for in advance: the new lead, quickly down and slowly up, so that little is left to wait awake. */
enum { VCPU_LEAD_MAX_NS = 50000 };
int64_t vcpu_learn_lead_ns(int64_t lead_ns, int64_t late_ns);
void vcpu_sleep(struct vcpu *v); /* until kicked, or until a stimecmp that ends wfi */

/* --- hold.c ----------------------------------------------------------------------------------------------- */

void vcpu_hold(struct vcpu *v); /* at a safe point: as long as its quota says, or until kicked */

/* --- debug.c ---------------------------------------------------------------------------------------------- */

bool engine_debug_stops(struct vcpu *v);       /* before each instruction; true: it is to pause instead */
void engine_debug_ran(struct vcpu *v);         /* and behind each */
bool engine_debug_stays(const struct vcpu *v); /* under lock: a resume is not for this vCPU */
