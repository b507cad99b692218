/* What lock-step's two files share: one run's outcome, and how a difference is told. */
#pragma once
#include "vcpu/jit/jit_priv.h"

enum { LOCKSTEP_STORES_MAX = GEN_INSNS_MAX }; /* an instruction stores at most once, and none runs twice */

struct lockstep_store {
    uint8_t *host;
    uint64_t va, value; /* its low bytes */
    unsigned bytes;
};

struct lockstep_run {
    struct hart hart; /* behind it; without its pins */
    uint64_t icount;
    unsigned stores;
    struct lockstep_store store[LOCKSTEP_STORES_MAX];
};

/* Everything that a person needs to find it, to out. */
void lockstep_report(const struct vcpu *vcpu, const struct translation *t, const struct lockstep_run *before,
                     const struct lockstep_run *generated, const struct lockstep_run *interpreted, FILE *out);
