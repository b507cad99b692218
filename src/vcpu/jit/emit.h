/* An assembler for what the code generator needs of x86-64 (Intel 64 and IA-32 SDM, volume 2).
 *
 * Every function appends one instruction at e->at. When the buffer is full nothing more is written and `full` is set: the
 * caller looks once, at the end. Owner: whoever translates. Nothing here knows of guests. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum host_reg {
    RAX,
    RCX,
    RDX,
    RBX,
    RSP,
    RBP,
    RSI,
    RDI,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
    HOST_REGS,
    HOST_NONE = -1
};

struct emit {
    uint8_t *at, *end;
    bool full;
};

/* A register or a memory operand: base + index << scale + disp. base HOST_NONE: relative to the instruction's end (the
 * displacement is then counted from e->at as it will be after the instruction; see emit_rip). */
struct operand {
    int8_t reg; /* HOST_NONE: memory */
    int8_t base, index;
    uint8_t scale;
    int32_t disp;
};

static inline struct operand op_reg(int reg)
{
    return (struct operand){ .reg = (int8_t)reg, .base = HOST_NONE, .index = HOST_NONE };
}

static inline struct operand op_mem(int base, int32_t disp)
{
    return (struct operand){ .reg = HOST_NONE, .base = (int8_t)base, .index = HOST_NONE, .disp = disp };
}

static inline struct operand op_index(int base, int index, unsigned scale, int32_t disp)
{
    return (struct operand){
        .reg = HOST_NONE, .base = (int8_t)base, .index = (int8_t)index, .scale = (uint8_t)scale, .disp = disp
    };
}

static inline bool op_is_reg(struct operand o)
{
    return o.reg != HOST_NONE;
}

/* An opcode: its byte, with where and how it is encoded above it. */
enum {
    X_0F = 0x100,   /* two-byte map */
    X_0F38 = 0x200, /* three-byte maps */
    X_0F3A = 0x300,
    X_MAP = 0x300,
    X_66 = 0x1000, /* mandatory prefixes */
    X_F2 = 0x2000,
    X_F3 = 0x4000,
    X_W = 0x10000,        /* 64-bit operands */
    X_BYTE_REG = 0x20000, /* reg field names a byte register: spl..dil need a REX prefix */
    X_BYTE_RM = 0x40000,  /* so does the r/m field */
    X_LOCK = 0x80000,
};

/* The ALU group: op r, r/m is 03 + 8 * op; r/m, imm is /op. */
enum alu { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP };
enum shift { SHIFT_ROL, SHIFT_ROR, SHIFT_SHL = 4, SHIFT_SHR, SHIFT_SAR = 7 };
enum host_cond {
    CC_O,
    CC_NO,
    CC_B,
    CC_AE,
    CC_E,
    CC_NE,
    CC_BE,
    CC_A,
    CC_S,
    CC_NS,
    CC_P,
    CC_NP,
    CC_L,
    CC_GE,
    CC_LE,
    CC_G
};

void emit_u8(struct emit *e, unsigned byte);
void emit_u32(struct emit *e, uint32_t value);
void emit_u64(struct emit *e, uint64_t value);

/* opcode reg, r/m */
void emit_op(struct emit *e, unsigned opcode, int reg, struct operand rm);
/* the same, followed by an immediate of `bytes` (1 or 4) */
void emit_op_imm(struct emit *e, unsigned opcode, int reg, struct operand rm, int32_t imm, unsigned bytes);
/* VEX: opcode reg, vvvv, r/m (BMI2, FMA); X_F2/X_F3/X_66 give the pp field, 128 bits */
void emit_vex(struct emit *e, unsigned opcode, int reg, int vvvv, struct operand rm);
/* opcode reg, [rip + ...]: `target` is an address in the same buffer */
void emit_rip(struct emit *e, unsigned opcode, int reg, const uint8_t *target);

void emit_mov(struct emit *e, int dst, struct operand src);             /* 64 bits; nothing for a move to itself */
void emit_mov32(struct emit *e, int dst, struct operand src);           /* zero-extends */
void emit_store(struct emit *e, struct operand dst, int src);           /* 64 bits */
void emit_mov_imm(struct emit *e, int dst, int64_t value);              /* keeps the flags */
void emit_store_imm(struct emit *e, struct operand dst, int32_t value); /* 64 bits, sign-extended */
void emit_lea(struct emit *e, int dst, struct operand address);
void emit_alu(struct emit *e, enum alu op, int dst, struct operand src); /* 64 bits */
void emit_alu32(struct emit *e, enum alu op, int dst, struct operand src);
void emit_alu_to(struct emit *e, enum alu op, struct operand dst, int src); /* 64 bits */
void emit_alu_imm(struct emit *e, enum alu op, struct operand dst, int32_t imm);
void emit_alu_imm32(struct emit *e, enum alu op, struct operand dst, int32_t imm);
void emit_test(struct emit *e, int a, int b);
void emit_movsxd(struct emit *e, int dst, struct operand src);            /* 32 to 64 bits */
void emit_shift_imm(struct emit *e, enum shift op, int reg, unsigned by); /* 64 bits */
void emit_shift_imm32(struct emit *e, enum shift op, int reg, unsigned by);
void emit_shift_cl(struct emit *e, enum shift op, int reg, bool wide);
void emit_setcc(struct emit *e, enum host_cond cc, int reg);                    /* the low byte only */
void emit_cmov(struct emit *e, enum host_cond cc, int dst, struct operand src); /* 64 bits */
void emit_read_tsc(struct emit *e);            /* RDX:RAX, not before what was loaded before: lfence, rdtsc */
void emit_nop(struct emit *e, unsigned bytes); /* one instruction, 1 to 9 bytes */

/* Jumps with a 32-bit displacement; returned: where it stands, for emit_bind. */
uint8_t *emit_jmp(struct emit *e);
uint8_t *emit_jcc(struct emit *e, enum host_cond cc);
uint8_t *emit_call(struct emit *e);
void emit_jmp_to(struct emit *e, const uint8_t *target);
void emit_jcc_to(struct emit *e, enum host_cond cc, const uint8_t *target);
void emit_call_to(struct emit *e, const uint8_t *target);
/* Make the displacement at `site` lead to `target`; both in the same buffer, nobody runs it yet. */
void emit_bind(const struct emit *e, uint8_t *site, const uint8_t *target);
/* Short forward jumps over a few instructions. */
uint8_t *emit_jcc_short(struct emit *e, enum host_cond cc);
uint8_t *emit_jmp_short(struct emit *e);
void emit_bind_short(const struct emit *e, uint8_t *site);
