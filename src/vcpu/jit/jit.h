/* Generated code for x86-64: what the run loop and the machine see of it.
 *
 * One struct jit serves all harts of a machine: code is kept by guest-physical address and refers to nothing absolute,
 * so harts and processes share it. A hart runs it from its run loop and is back there at every safe point. What
 * generated code cannot do it asks the interpreter for, one instruction at a time, so the interpreter's meaning is the
 * only one. Stale code may run until fence.i (see pages.c and docs/architecture.md). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct jit;
struct vcpu;
struct ram;

struct jit_config {
    struct ram *ram;
    size_t code_bytes;  /* 0: the default */
    unsigned threshold; /* executions before a block is translated; 0: the default */
    bool lockstep;      /* compare with the interpreter (lockstep.h): slow, and for one hart */
    bool plain; /* for tests: no more of the CPU than x86-64's base, and a lone hart's atomics like any other's */
};

struct jit_stats {
    uint64_t blocks, killed; /* translated; found changed */
    uint64_t guest_bytes, host_bytes, capacity_bytes;
    uint64_t flushes;          /* of everything, since the memory was full */
    uint64_t fences, compared; /* fence.i; pages compared for them */
    uint64_t translate_ns;
    uint64_t warmed, warm_dropped; /* made before the guest ran; of them, those whose bytes were others at last */
    uint64_t links, crossing;      /* jumps made direct; of them, those to another page */
    uint64_t lockstep_runs, lockstep_instructions, lockstep_repeats; /* lockstep.h */
};

/* -ENOTSUP where the host is not one that code can be generated for: run without. Any thread. */
int jit_new(struct jit **jit, const struct jit_config *config, struct err *err);
void jit_free(struct jit *jit);                         /* after the last vCPU; NULL allowed */
void jit_stats(struct jit *jit, struct jit_stats *out); /* any thread */
unsigned jit_threshold(const struct jit *jit);

/* --- arrivals (warm.c) ------------------------------------------------------------------------------------ */

enum { JIT_PAGE_HALVES = 2048 };

/* Places of one page where regions of code begin: bit n is 2 n bytes into it. */
struct jit_hot_page {
    uint64_t gpa;
    uint64_t entry[JIT_PAGE_HALVES / 64];
};

void jit_hot_begin(struct jit *jit); /* from now on note what is entered; costs each hart its known jumps. Any thread */
/* The pages that were entered since the last begin, with all their code. tell() may not call the jit. Any thread. */
void jit_hot_list(struct jit *jit, void (*tell)(void *opaque, const struct jit_hot_page *page), void *opaque);
/* Make code for what lies at gpa now, for a guest that does not run yet: 1, 0 when it is there already or nothing can be made of
 * it, -EAGAIN where memory is zero: it has not arrived, -ENOSPC when the memory for code is full. While others store to memory. */
int jit_warm(struct jit *jit, uint64_t gpa);
/* All harts are paused, hold no permission to write and read everything from their harts before they run; nobody stores any more
 * without a mark. Compare all code with memory, and drop what differs: harts need not do so when they start. */
void jit_settle(struct jit *jit);
void jit_unsettle(struct jit *jit); /* harts have run, or memory is to be loaded anew */
bool jit_settled(const struct jit *jit);

/* --- for the run loop; on the vCPU's thread --------------------------------------------------------------- */

void jit_attach(struct jit *jit, struct vcpu *vcpu); /* before its thread runs */
void jit_detach(struct jit *jit, struct vcpu *vcpu);

/* Code for hart.pc, or NULL: the interpreter's turn. `promote`: make it, if there is none. */
const void *jit_find(struct vcpu *vcpu, bool promote);
void jit_run(struct vcpu *vcpu, const void *code); /* until something wants C; hart.pc says where */

/* At a safe point, before a hart sleeps too: forgets code that is gone, which others may be waiting for. */
void jit_poll(struct vcpu *vcpu);

void jit_fence_i(struct vcpu *vcpu);
void jit_distrust(struct vcpu *vcpu); /* memory may be another guest's: compare everything at the next fence */
