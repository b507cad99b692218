/* Memory for generated code: one file of memory mapped twice, writable here and executable there (W^X), never both
 * in one mapping. Filled from the bottom; emptied as a whole.
 *
 * Everything inside is addressed relative to the instruction pointer, so code is made at its writable address and runs
 * at the other. Owner: struct jit, under its lock; reading and running need none. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { CODE_COUNTS = 256, CODE_FLAGS = 64, CODE_HEAD_BYTES = 32 << 10 };

/* Entry points of the pieces that all code shares; addresses in the writable mapping. */
struct code_thunks {
    uint8_t *enter;     /* (vcpu, code, va): from C into generated code */
    uint8_t *exit_at;   /* RCX: place in the page, or relative to it */
    uint8_t *exit_link; /* and RAX: the jump to patch once the target is known */
    uint8_t *exit_far;  /* RAX: virtual address, RCX: twice its place in the TLB's jump[] */
    uint8_t *across;    /* RCX: place in another page, RAX: the link's head (then as exit_link), 0 or odd */
    uint8_t *access;    /* RAX: virtual address, EDX: descriptor; comes back when the access is done */
    uint8_t *interp;    /* RDX: uop; comes back when the next instruction follows */
    uint8_t *fp;        /* ECX: place, EDX: retired; comes back when floating point may be used */
};

struct code {
    uint8_t *writable;
    const uint8_t *executable;
    size_t bytes, used;
    uint8_t *counts; /* 16 bytes per number 0..255: what XMM15 is increased by */
    uint8_t *flags;  /* a byte for each state of MXCSR's flags: fflags */
    struct code_thunks thunks;
};

int code_init(struct code *code, size_t bytes, struct err *err);
void code_free(struct code *code);

static inline const void *code_executable(const struct code *code, const uint8_t *writable)
{
    return code->executable + (writable - code->writable);
}

static inline uint8_t *code_writable(const struct code *code, const void *executable)
{
    return code->writable + ((const uint8_t *)executable - code->executable);
}

/* Replace the four aligned bytes of a jump's displacement, or the eight of a head, while harts may run them. */
void code_patch_jump(const struct code *code, const void *site, const void *target);
void code_patch_head(const struct code *code, const void *head, const void *target);
