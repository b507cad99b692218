/* The vCPU: one hart, one host thread. Runs, parks, is kicked, sleeps in wfi.
 *
 * The thread owns its hart, its TLB and its decoded code. Others may: pull its interrupt wires (any thread), kick
 * it, ask it to pause and wait for that (the machine, under its lock), and touch the hart while it is paused. */
#pragma once
#include "base/clock.h"
#include "base/timer.h"
#include "memory/bus.h"
#include "vcpu/hart.h"

struct vcpu;

struct vcpu_config {
    unsigned index;  /* 0 .. HART_MAX-1; also the hart id */
    struct bus *bus; /* and through it the RAM */
    struct guest_clock *clock;
    struct timers *timers; /* for stimecmp */
    struct jit *jit;       /* the machine's generated code; NULL: interpret everything */
    bool debug_threads;    /* name the host thread "vcpu/N" (always done; kept for -name) */
};

struct vcpu *vcpu_new(const struct vcpu_config *config, struct err *err); /* no thread yet; hart is all zero */
int vcpu_start(struct vcpu *vcpu, struct err *err);                       /* creates the thread, paused */
void vcpu_free(struct vcpu *vcpu);                                        /* ends the thread; NULL allowed */

/* Pausing. request() asks and returns; wait() returns when the thread sits at a safe point between two
 * instructions, out of any device. resume() lets it go on from hart.pc. Nested requests do not count: the machine
 * keeps count. Not from a vCPU thread. */
void vcpu_pause_request(struct vcpu *vcpu);
void vcpu_pause_wait(struct vcpu *vcpu);
void vcpu_resume(struct vcpu *vcpu); /* also re-reads everything from the hart: flushes TLB and decoded code. One that
                                       a debugger keeps (debug.h) stays where it is */

void vcpu_kick(struct vcpu *vcpu); /* leave at the next safe point and look around; any thread */

struct hart *vcpu_hart(struct vcpu *vcpu);                 /* only while paused */
struct irq_line vcpu_irq(struct vcpu *vcpu, unsigned irq); /* wire to a pin: IRQ_M_SOFT, IRQ_S_EXT, ... */

/* All harts of one machine see each other's fence.i only through IPIs, as the ISA says; nothing to do here. */

struct vcpu_stats {
    uint64_t instructions; /* retired */
    uint64_t sleeps_ns;    /* in wfi */
    uint64_t tlb_refills, slow_stores, kicks;
    /* What the run loop did; neither engine counts while it goes from block to block by itself. */
    uint64_t code_lookups, code_jump_hits; /* asked for generated code; known by its virtual address already */
    uint64_t code_runs, block_runs;        /* into generated code, into the interpreter's blocks */
    uint64_t promotions;                   /* blocks that the interpreter found hot */
    int64_t cpu_ns;                        /* host CPU time of the thread */
    int64_t ran_ns;                        /* clock_now_ns() of when it went on after its last pause */
    int tid;                               /* host thread id, for query-cpus-fast */
};
void vcpu_stats(struct vcpu *vcpu, struct vcpu_stats *out); /* any thread; values may be a moment old */
