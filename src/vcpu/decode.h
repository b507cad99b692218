/* What an instruction word means: pure, from the one table in ops.h. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "vcpu/ops.h"

enum op {
#define X(name, mnemonic, format, match, mask, kind) OP_##name,
    OPS(X)
#undef X
        OP_ENCODED, /* those above have an encoding of their own */
    OP_PSEUDO_BEFORE = OP_ENCODED - 1,
#define PSEUDO(name) OP_PSEUDO_##name,
    PSEUDO_OPS(PSEUDO)
#undef PSEUDO
        OP_COUNT,
};

enum op_format { FMT_R, FMT_R4, FMT_I, FMT_S, FMT_B, FMT_U, FMT_J, FMT_SH5, FMT_SH6, FMT_CSR, FMT_NONE };
enum op_kind { KIND_ALU, KIND_LOAD, KIND_STORE, KIND_BRANCH, KIND_JUMP, KIND_OTHER, KIND_END };

struct op_info {
    const char *mnemonic;
    uint32_t match, mask;
    uint8_t format; /* enum op_format */
    uint8_t kind;   /* enum op_kind */
};

extern const struct op_info decode_ops[OP_ENCODED];

struct insn {
    enum op op;     /* OP_PSEUDO_illegal when it is none */
    uint32_t raw;   /* as it lies in memory: what an illegal instruction's tval shows */
    uint8_t length; /* 2 or 4 */
    uint8_t rd, rs1, rs2, rs3;
    uint8_t rm;  /* the rounding mode field; only FP reads it */
    int64_t imm; /* sign-extended; shift amounts and csr numbers unsigned; csr*i: csr number, zimm in rs1 */
};

static inline bool insn_is_long(uint16_t first_half)
{
    return (first_half & 3) == 3;
}

/* raw: the instruction in its low 16 or 32 bits. */
struct insn decode(uint32_t raw);

/* A compressed instruction's 32-bit equivalent; 0 (never legal) when it has none. */
uint32_t decode_expand(uint16_t raw);
