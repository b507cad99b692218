/* Floating point in generated code: what the files gen_fp*.c share. */
#pragma once
#include "vcpu/jit/gen.h"

/* SSE opcodes; packed ones work on any part of a register, and raise nothing. */
enum {
    SSE_AND = X_0F | 0x54,
    SSE_ANDN = X_0F | 0x55, /* dst = ~dst & src */
    SSE_OR = X_0F | 0x56,
    SSE_XOR = X_0F | 0x57,
    SSE_ZERO = X_66 | X_0F | 0xef, /* pxor */
    SSE_ONES = X_66 | X_0F | 0x76, /* pcmpeqd */
    SSE_COPY = X_0F | 0x28,        /* movaps */
    SSE_LOAD64 = X_F3 | X_0F | 0x7e,
    SSE_STORE64 = X_66 | X_0F | 0xd6,
    SSE_LOAD32 = X_F3 | X_0F | 0x10,
    SSE_STORE32 = X_F3 | X_0F | 0x11,
    SSE_FROM_GPR = X_66 | X_0F | 0x6e, /* with X_W: 64 bits */
    SSE_TO_GPR = X_66 | X_0F | 0x7e,
};

/* A scalar operation's prefix. */
static inline unsigned gen_fp_scalar(bool single)
{
    return (single ? X_F3 : X_F2) | X_0F;
}

enum { RM_RNE, RM_RTZ, RM_RDN, RM_RUP, RM_RMM, RM_DYNAMIC = 7 };

/* --- getting ready ------------------------------------------------------------------------------------------ */

void gen_fp_ready(struct gen *g);                          /* MXCSR is the guest's, FS dirty */
void gen_fp_ready_read(struct gen *g);                     /* FS is not off; for what changes nothing of the unit's */
bool gen_fp_mode_exists(const struct insn *insn);          /* rm is none that makes the instruction illegal */
bool gen_fp_rounds(const struct insn *insn);               /* ... and one that MXCSR can hold */
void gen_fp_check_mode(struct gen *g, unsigned rm);        /* MXCSR rounds so, or redo */
void gen_fp_begin(struct gen *g, const struct insn *insn); /* ready, and MXCSR rounds as insn wants */

/* The interpreter does the instruction instead when this jump is taken. Its operands must be as they were in memory; which
 * flags may have been raised: see gen_fp.c. */
void gen_fp_redo(struct gen *g, uint8_t *site);

/* --- f registers -------------------------------------------------------------------------------------------- */

int gen_fp_copy(const struct gen *g, unsigned f, bool single);     /* XMM that holds f, or GEN_FP_NONE */
int gen_fp_use(struct gen *g, unsigned f, bool single);            /* XMM that holds f; a single that is none: redo */
int gen_fp_dest(struct gen *g, unsigned f);                        /* XMM where to compute f; then gen_fp_done() */
void gen_fp_done(struct gen *g, unsigned f, int xmm, bool single); /* also puts the box around a single */
/* The same for a value that is in a general register. */
void gen_fp_set_home(struct gen *g, unsigned f, int reg, bool single);
void gen_fp_check_nan(struct gen *g, int xmm, bool single); /* the result is one: redo */

void gen_fp_put(struct gen *g, int i, unsigned f, bool single); /* a copy of f in place i, from memory */

bool gen_fp_csr(struct gen *g, const struct insn *insn); /* fflags, frm, fcsr */
bool gen_fp_convert(struct gen *g, const struct insn *insn);
bool gen_fp_move(struct gen *g, const struct insn *insn); /* moves, loads, stores */
