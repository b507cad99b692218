/* Tight loops for random programs (random_code.h): what engines do once for a loop instead of each time around. Few
 * registers, mostly such as compilers keep temporaries in; 32 and 64 bits mixed; a pointer that strides over the ends of
 * pages; floating point that goes around; another page table or mode between. One loop is one unit. */
#pragma once
#include "tests/unit/vcpu/random_code.h"

/* Address of a random constant of the pool goes to `to`, another one for every turn of the outermost loop. Returns the
 * offset for the load. */
static inline int put_pool_address(struct random_code *p, unsigned to, unsigned t)
{
    unsigned distance, high;

    code_put(p, as(OP_andi, t, COUNTER_OUTER, 63));
    do { /* until there is room for some words more */
        distance = POOL_AT + below(p, POOL_WORDS - 80) * 8 - p->bytes;
        high = (distance + 0x800) & ~0xfffu;
    } while ((int)(distance - high) > 0x780);
    code_put(p, as(OP_auipc, to, 0, high));
    code_put(p, as(OP_sh3add, to, t, to));
    return (int)(distance - high);
}

static inline void two_temps(struct random_code *p, unsigned *a, unsigned *b)
{
    *a = any_temp(p);
    do
        *b = any_temp(p);
    while (*b == *a);
}

struct tight {
    unsigned counter, pointer, own[5], f[4];
    int step;
};

/* Mostly what engines know most about. */
static inline uint32_t tight_alu(struct random_code *p, const struct tight *t)
{
    static const enum op ops[] = { OP_add,  OP_sub,  OP_and,  OP_or,    OP_xor,   OP_mul,   OP_addi,  OP_andi,
                                   OP_ori,  OP_xori, OP_slli, OP_srli,  OP_srai,  OP_addw,  OP_subw,  OP_addiw,
                                   OP_mulw, OP_sllw, OP_srlw, OP_sraw,  OP_slliw, OP_srliw, OP_sraiw, OP_sltu,
                                   OP_slt,  OP_lui,  OP_sll,  OP_addiw, OP_addiw, OP_addw };
    enum op op = one_in(p, 4) ? any_op_of(p, KIND_ALU) : PICK(p, ops);
    unsigned rd = PICK(p, t->own), rs1 = PICK(p, t->own), rs2 = PICK(p, t->own);

    if (one_in(p, 6))
        rs2 = any_rs(p);
    if (one_in(p, 8))
        rs1 = any_rs(p);
    switch ((enum op_format)decode_ops[op].format) {
    case FMT_I: return as(op, rd, rs1, one_in(p, 3) ? 0 : any_imm12(p));
    case FMT_U: return as(op, rd, 0, (int64_t)(any(p) & 0xfffff000));
    case FMT_SH5: return as(op, rd, rs1, below(p, 32));
    case FMT_SH6: return as(op, rd, rs1, below(p, 64));
    default: return fill(p, op, rd, rs1, rs2);
    }
}

static inline uint32_t tight_access(struct random_code *p, const struct tight *t)
{
    static const enum op ops[] = { OP_lb, OP_lbu, OP_lh, OP_lhu, OP_lw, OP_lwu, OP_ld, OP_sb, OP_sh, OP_sw, OP_sd };
    static const enum op fp[] = { OP_flw, OP_fld, OP_fsw, OP_fsd };
    unsigned base = one_in(p, 4) ? any_base(p) : t->pointer;
    int imm = one_in(p, 8) ? any_imm12(p) : (int)below(p, 8) * 8 - 24;

    if (one_in(p, 3))
        return as(PICK(p, fp), PICK(p, t->f), base, imm);
    return as(PICK(p, ops), PICK(p, t->own), base, imm);
}

/* As compilers choose: all of one format and the mode of frm, or anything. */
static inline uint32_t tight_fp(struct random_code *p, const struct tight *t)
{
    uint32_t w = any_fp(p, PICK(p, t->f), PICK(p, t->f));
    enum op op = decode(w).op;

    if (op >= OP_ENCODED)
        return w;
    w = (w & ~0xf80u) | (fp_writes_x(op) ? PICK(p, t->own) : PICK(p, t->f)) << 7;
    if (decode_ops[op].format == FMT_R4)
        w = (w & 0x07ffffff) | PICK(p, t->f) << 27;
    if (fp_has_mode(op) && !one_in(p, 6))
        w |= 7u << 12;
    return w;
}

/* A branch over a few instructions that write one register, as a compiler without conditional moves does; now and then
 * one of them writes another, or is an access, or another branch leads into them. Then somebody wants to know whether what
 * came of it is a sign-extended word. Nothing of it is compressed, so that distances are known. */
static inline void tight_skip(struct random_code *p, const struct tight *t)
{
    static const enum op branches[] = { OP_beq, OP_bne, OP_blt, OP_bge, OP_bltu, OP_bgeu };
    unsigned count = 1 + below(p, 4), rd = PICK(p, t->own);

    if (one_in(p, 6))
        code_put(p, as(OP_bltu, PICK(p, t->own), PICK(p, t->own), 8 + 4 * (int)below(p, count)));
    code_put(p, as(PICK(p, branches), PICK(p, t->own), one_in(p, 3) ? 0 : PICK(p, t->own), (int)(count + 1) * 4));
    for (unsigned i = 0; i < count; i++) {
        uint32_t w = tight_alu(p, t);

        if (!one_in(p, 12))
            w = (w & ~0xf80u) | rd << 7;
        code_put(p, one_in(p, 20) ? tight_access(p, t) : w);
    }
    if (one_in(p, 2))
        code_put(p, as(OP_addiw, PICK(p, t->own), rd, 0));
}

/* A rotation as the base ISA spells it: two opposite shifts and what puts them together; or nearly one, and with other
 * things in between. */
static inline void tight_rotate(struct random_code *p, const struct tight *t)
{
    static const enum op joins[] = { OP_or, OP_or, OP_xor, OP_add, OP_addw, OP_and };
    bool word = one_in(p, 2);
    unsigned bits = word ? 32 : 64, by = one_in(p, 12) ? 0 : 1 + below(p, bits - 1), rs = PICK(p, t->own);
    unsigned a = one_in(p, 6) ? rs : any_temp(p), b = PICK(p, t->own);
    uint32_t left = as(word ? OP_slliw : OP_slli, a, rs, (int)by),
             right =
                 as(one_in(p, 8) ? OP_srli
                    : word       ? OP_srliw
                                 : OP_srli,
                    b, one_in(p, 6) ? PICK(p, t->own) : rs, (int)(one_in(p, 6) ? below(p, bits) : (bits - by) % bits));
    bool swap = one_in(p, 2);

    if (a == t->counter || a == t->pointer || a == b)
        return;
    code_put(p, swap ? right : left);
    while (one_in(p, 2))
        code_put(p, one_in(p, 3) ? tight_access(p, t) : tight_alu(p, t));
    code_put(p, swap ? left : right);
    while (one_in(p, 2))
        code_put(p, one_in(p, 3) ? tight_access(p, t) : tight_alu(p, t));
    code_put(p, as(PICK(p, joins), one_in(p, 4) ? rs : PICK(p, t->own), swap ? a : b, swap ? b : a));
}

static inline void tight_piece(struct random_code *p, const struct tight *t, bool floating)
{
    switch (below(p, 16)) {
    case 0:
    case 1:
    case 2: code_put(p, tight_access(p, t)); break;
    case 3: code_put(p, as(OP_addi, t->pointer, t->pointer, t->step)); break;
    case 4: /* one base, several accesses */
        code_put(p, tight_access(p, t));
        code_put(p, tight_alu(p, t));
        code_put(p, tight_access(p, t));
        break;
    case 5:
        if (!p->calm && one_in(p, 6))
            code_put(p, as(OP_ecall, 0, 0, 0));
        else if (one_in(p, 2))
            code_put(p, as(one_in(p, 2) ? OP_amoadd_w : OP_amoxor_d, PICK(p, t->own), t->pointer, PICK(p, t->own)));
        else
            code_put(p, as(OP_csrrs, PICK(p, t->own), 0, one_in(p, 2) ? 3 : 0x100));
        break;
    case 6:
    case 7: tight_skip(p, t); break;
    case 8:
    case 9: tight_rotate(p, t); break;
    default: code_put(p, floating && !one_in(p, 4) ? tight_fp(p, t) : tight_alu(p, t)); break;
    }
}

static inline void tight_choose(struct random_code *p, struct tight *t)
{
    static const int steps[] = { 8, -8, 4, 1, 3, -5, 16, 64, -64, 256, 500, -512, 512, 0 };

    two_temps(p, &t->counter, &t->pointer);
    for (unsigned i = 0; i < 5; i++)
        do
            t->own[i] = any_temp(p);
        while (t->own[i] == t->counter || t->own[i] == t->pointer || (t->own[i] == t->own[0] && i == 1) ||
               (t->own[i] >= 8 && t->own[i] < 16 && !one_in(p, 4)));
    for (unsigned i = 0; i < 4; i++)
        t->f[i] = below(p, 32);
    t->step = PICK(p, steps);
}

static inline void tight_body(struct random_code *p, const struct tight *t, bool floating)
{
    unsigned branch = 0;

    for (unsigned i = 3 + below(p, 12); i > 0; i--) {
        if (!branch && one_in(p, 10)) {
            branch = p->bytes;
            code_put(p, as(OP_beq, 0, 0, 8)); /* to be another one */
        }
        tight_piece(p, t, floating);
    }
    if (branch)
        code_patch(p, branch,
                   as(one_in(p, 2) ? OP_bltu : OP_bge, PICK(p, t->own), PICK(p, t->own), (int)(p->bytes - branch)));
}

static inline void tight_close(struct random_code *p, unsigned counter, unsigned top)
{
    code_put(p, as(OP_addi, counter, counter, -1));
    int distance = (int)top - (int)p->bytes;
    code_put(p, one_in(p, 2) ? as(OP_bne, counter, 0, distance) : as(OP_blt, 0, counter, distance));
}

static inline void unit_tight(struct random_code *p)
{
    unsigned at = p->bytes;
    bool floating = one_in(p, 2);
    struct tight t;

    tight_choose(p, &t);
    if (floating) {
        int offset = put_pool_address(p, t.own[0], t.own[1]);

        for (unsigned i = 0; i < 4; i++)
            code_put(p, as(one_in(p, 3) ? OP_flw : OP_fld, t.f[i], t.own[0], offset + 8 * (int)below(p, 8)));
    }
    code_put(p, as(OP_addi, t.pointer, any_base(p), any_imm12(p) & (one_in(p, 4) ? -1 : -8)));
    code_put(p, as(OP_addi, t.counter, 0, 1 + (int)below(p, one_in(p, 3) ? 40 : 8)));
    unsigned top = p->bytes;
    tight_body(p, &t, floating);
    tight_close(p, t.counter, top);
    code_unit(p, at, UNIT_PLAIN);
}
