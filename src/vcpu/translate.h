/* Which software TLBs a vCPU has, and what is in each.
 *
 * An address space is a value of satp (mode, ASID and root); the most recent TLB_SPACES of them keep their TLBs, one for
 * each of U, S and S with SUM, so that going back to a process finds its translations. That is what the ISA's ASIDs are
 * for; two roots under one ASID get a space each, and a fence for the ASID reaches both. M translates nothing and knows no
 * satp; MPRV and MXR share one TLB that is emptied each time it is chosen.
 *
 * Only the chosen TLB is ever looked up or stored through, so work on the others waits until they are chosen: a flushed
 * one is STALE, one that a dirty harvest has passed is UNARMED. Nothing of it is done for a space that never runs again. */
#pragma once
#include <stdint.h>

enum { TLB_SPACES = 8 };

/* In a space; then those outside of any. */
enum tlb_mode { TLB_U, TLB_S, TLB_S_SUM, TLB_SPACE_MODES };
enum { TLB_M = TLB_SPACES * TLB_SPACE_MODES, TLB_OTHER, TLB_COUNT };

enum translate_state {
    TLB_UNBORN,  /* memory never touched */
    TLB_STALE,   /* what it holds is void */
    TLB_UNARMED, /* it may hold write permissions that a harvest took back */
    TLB_READY,
};

/* Owner: the vCPU's thread. All zero: nothing chosen yet. */
struct translate {
    uint8_t state[TLB_COUNT];     /* enum translate_state */
    uint64_t mappings[TLB_COUNT]; /* generations, no two TLBs' the same */
    uint64_t satp[TLB_SPACES];
    uint64_t used[TLB_SPACES]; /* value of `uses` when it was last chosen; 0: none is here */
    uint64_t uses, last_mappings;
    unsigned space;  /* the present one */
    unsigned chosen; /* index of vcpu.tlb */
};
