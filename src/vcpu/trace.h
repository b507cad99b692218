/* -d: what the engine does, as text, for people. Off, each place that could say something tests one word.
 *
 * trace_flags is set by trace_start() before the first vCPU runs and stays until trace_stop(), after the last has ended;
 * the functions that say something may then be called from any thread, and what one call writes stays together. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

enum {
    TRACE_IN_ASM = 1,  /* guest code, as it is decoded or translated */
    TRACE_OUT_ASM = 2, /* the host code made of it */
    TRACE_INT = 4,     /* traps and interrupts, as they are taken */
};

extern unsigned trace_flags; /* of the above; 0: nothing is said */

static inline bool trace_on(unsigned what)
{
    return __builtin_expect(trace_flags & what, 0);
}

/* "in_asm,int" to flags. -EINVAL with a sentence that names the word; also for what this build lacks. */
int trace_parse(const char *list, unsigned *flags, struct err *err);
void trace_help(FILE *out);

/* path: a file to write anew, "" for stderr. */
int trace_start(unsigned flags, const char *path, struct err *err);
int trace_stop(struct err *err); /* -errno when not everything could be written; 0 when nothing was started */

/* Each is for `if (trace_on(...))`. Addresses of code are guest-physical: so are the targets of branches shown. */
void trace_block(unsigned hart, uint64_t gpa, const void *source, size_t bytes);
void trace_host_code(uint64_t gpa, const void *code, size_t bytes);
/* cause as mcause holds it, the interrupt bit included; privileges before and after: PRIV_U, PRIV_S, PRIV_M */
void trace_trap(unsigned hart, uint64_t cause, uint64_t pc, uint64_t tval, unsigned from, unsigned to);
