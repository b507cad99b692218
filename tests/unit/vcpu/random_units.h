/* The units that random programs are made of (random_code.h), and a program made of them. */
#pragma once
#include "tests/unit/vcpu/random_code.h"
#include "tests/unit/vcpu/random_tight.h"

static inline void random_sequence(struct random_code *p, unsigned units);

/* --- straight-line units -------------------------------------------------------------------------------------- */

static inline void unit_alu(struct random_code *p)
{
    unsigned at = p->bytes;

    code_put(p, any_alu(p));
    code_unit(p, at, UNIT_VARIABLE);
}

static inline void unit_compressed(struct random_code *p)
{
    for (unsigned i = 1 + below(p, 3); i > 0; i--) {
        unsigned at = p->bytes;
        uint16_t c = any_compressed(p);

        if (c)
            code_put16(p, c);
        code_unit(p, at, UNIT_PLAIN);
    }
}

/* Pairs that an engine may make one of. */
static inline void unit_pair(struct random_code *p)
{
    unsigned at = p->bytes, rd = any_temp(p), shift = below(p, 64);

    switch (below(p, 5)) {
    case 0:
        code_put(p, as(OP_lui, rd, 0, (int64_t)(any(p) & 0xfffff000)));
        code_put(p, as(one_in(p, 2) ? OP_addi : OP_addiw, rd, rd, any_imm12(p)));
        break;
    case 1:
        code_put(p, as(OP_slli, rd, any_rs(p), shift));
        code_put(p, as(one_in(p, 2) ? OP_srli : OP_srai, rd, rd, one_in(p, 2) ? shift : below(p, 64)));
        break;
    case 2:
        code_put(p, as(OP_addi, rd, rd, any_imm12(p)));
        code_put(p, as(OP_addi, any_temp(p), any_rs(p), any_imm12(p)));
        break;
    case 3: /* the data area when there is no paging, nothing at all else */
        code_put(p, as(OP_auipc, rd, 0, 0xf0000 + (int64_t)below(p, 14) * 0x1000));
        code_put(p, as(one_in(p, 2) ? OP_ld : OP_lw, rd, rd, any_imm12(p)));
        break;
    default: code_put(p, as(OP_addi, rd, any_rs(p), any_imm12(p))); code_put(p, any_alu(p));
    }
    code_unit(p, at, UNIT_PLAIN);
}

/* A run of accesses off one base, which moves a little before and back after. */
static inline void unit_memory(struct random_code *p)
{
    unsigned base = any_base(p), at = p->bytes;
    int by = one_in(p, 3) ? (int)below(p, 128) * 16 - 1024 : 0;

    if (base == 2 && by >= -512 && by < 512 && by != 0) { /* c.addi16sp takes these */
        unsigned d = (unsigned)by;

        code_put16(p, (uint16_t)(0x6101 | (d >> 9 & 1) << 12 | (d >> 4 & 1) << 6 | (d >> 6 & 1) << 5 |
                                 (d >> 7 & 3) << 3 | (d >> 5 & 1) << 2));
    } else if (by) {
        code_put(p, as(OP_addi, base, base, by));
    }
    for (unsigned i = 1 + below(p, 6); i > 0; i--) {
        unsigned from = p->bytes;
        uint16_t c = one_in(p, 3) ? any_compressed(p) : 0;

        if (c)
            code_put16(p, c);
        else
            code_put(p, any_access(p, base));
        if (!by)
            code_unit(p, from, UNIT_PLAIN);
    }
    if (by) {
        code_put(p, as(OP_addi, base, base, -by));
        code_unit(p, at, UNIT_PLAIN);
    }
}

/* Over the end of the base's page. */
static inline void unit_crossing(struct random_code *p)
{
    static const enum op ops[] = { OP_lh, OP_lhu, OP_lw, OP_lwu, OP_ld, OP_sh, OP_sw, OP_sd };
    unsigned at = p->bytes, t = any_temp(p), op = below(p, 8);

    code_put(p, as(OP_srli, t, any_base(p), 12));
    code_put(p, as(OP_addi, t, t, 1));
    code_put(p, as(OP_slli, t, t, 12));
    code_put(p, as(ops[op], op < 5 ? any_rd(p) : any_rs(p), t, (int)below(p, 20) - 10));
    code_unit(p, at, UNIT_PLAIN);
}

static inline void unit_fresh(struct random_code *p)
{
    unsigned at = p->bytes, a, t;

    two_temps(p, &a, &t);
    int offset = put_pool_address(p, a, t);
    code_put(p, as(OP_fld, below(p, 32), a, offset));
    code_put(p, as(OP_ld, any_rd(p), a, offset));
    code_unit(p, at, UNIT_PLAIN);
}

/* Two fresh operands, one operation, and perhaps a look at the flags. */
static inline void unit_fp(struct random_code *p)
{
    unsigned f1 = below(p, 32), f2 = below(p, 32), at = p->bytes, a, t;

    if (one_in(p, 2)) {
        two_temps(p, &a, &t);
        int offset = put_pool_address(p, a, t);
        code_put(p, as(OP_fld, f1, a, offset));
        code_put(p, as(OP_fld, f2, a, offset + 8 * (int)below(p, 8)));
        code_unit(p, at, UNIT_PLAIN);
    }
    for (unsigned i = 1 + below(p, 3); i > 0; i--) {
        at = p->bytes;
        code_put(p, any_fp(p, f1, f2));
        code_unit(p, at, UNIT_PLAIN);
    }
    at = p->bytes;
    if (one_in(p, 3))
        code_put(p, as(OP_csrrs, any_rd(p), 0, 3));
    if (one_in(p, 3))
        code_put(p, as(OP_csrrw, any_rd(p), below(p, 2), 1));
    code_unit(p, at, UNIT_PLAIN);
}

/* Many operations over a few registers, with what they may hold mixed, loads, stores and looks at the flags between: what an
 * engine keeps in host registers, it must drop and fetch again at the right moments. */
static inline void unit_fp_run(struct random_code *p)
{
    unsigned f[4], at = p->bytes, a, t;

    for (unsigned i = 0; i < 4; i++)
        f[i] = below(p, 32);
    if (one_in(p, 4))
        code_put(p, as(OP_csrrwi, 0, below(p, 5), 2));
    two_temps(p, &a, &t);
    int offset = put_pool_address(p, a, t);
    for (unsigned i = 0; i < 4; i++) {
        if (one_in(p, 3))
            code_put(p, as(OP_flw, f[i], a, offset + 8 * (int)below(p, 8)));
        else if (one_in(p, 2))
            code_put(p, as(OP_fld, f[i], a, offset + 8 * (int)below(p, 8)));
    }
    code_unit(p, at, UNIT_PLAIN);
    for (unsigned i = 4 + below(p, 16); i > 0; i--) {
        unsigned base = any_base(p);

        at = p->bytes;
        switch (below(p, 13)) {
        case 3:
            code_put(p, as(OP_ld, any_temp(p), base, any_imm12(p) & -8));
            code_put(p, as(OP_lw, any_temp(p), base, any_imm12(p) & -8));
            break;
        case 0: code_put(p, as(one_in(p, 2) ? OP_fld : OP_flw, PICK(p, f), base, any_imm12(p) & -8)); break;
        case 1: code_put(p, as(one_in(p, 2) ? OP_fsd : OP_fsw, PICK(p, f), base, any_imm12(p) & -8)); break;
        case 2: /* any of the flags and modes, read; flags also written */
            if (one_in(p, 2))
                code_put(p, as(OP_csrrs, any_rd(p), 0, (int64_t)(1 + below(p, 3))));
            else if (one_in(p, 2))
                code_put(p, as(OP_csrrw, any_rd(p), 0, 1));
            else
                code_put(p, as((enum op)(OP_csrrw + below(p, 6)), any_rd(p), any_rs(p), 1));
            break;
        default: { /* rd and rs3 among the few, too; mostly the mode that compilers choose */
            uint32_t w = any_fp(p, PICK(p, f), PICK(p, f));
            enum op op = decode(w).op;

            if (op < OP_ENCODED && !fp_writes_x(op))
                w = (w & ~0xf80u) | PICK(p, f) << 7;
            if (op < OP_ENCODED && decode_ops[op].format == FMT_R4)
                w = (w & 0x07ffffff) | PICK(p, f) << 27;
            if (op < OP_ENCODED && fp_has_mode(op) && !one_in(p, 4))
                w |= 7u << 12;
            code_put(p, w);
        }
        }
        code_unit(p, at, UNIT_PLAIN);
    }
}

static inline void unit_muldiv(struct random_code *p)
{
    unsigned at = p->bytes, a, b;

    two_temps(p, &a, &b);
    int offset = put_pool_address(p, a, b);
    code_put(p, as(OP_ld, b, a, offset + 8 * (int)below(p, 8)));
    code_put(p, as(OP_ld, a, a, offset));
    for (unsigned i = 1 + below(p, 3); i > 0; i--) {
        enum op op = (enum op)(OP_mul + below(p, OP_remuw - OP_mul + 1));

        code_put(p, fill(p, op, one_in(p, 4) ? a : any_rd(p), one_in(p, 3) ? any_rs(p) : a, one_in(p, 3) ? a : b));
    }
    code_unit(p, at, UNIT_PLAIN);
}

static inline void unit_atomic(struct random_code *p)
{
    unsigned at = p->bytes, size = one_in(p, 2) ? 8 : 4, a, b, order = below(p, 4) << 25;
    bool d = size == 8;

    two_temps(p, &a, &b);
    int offset = one_in(p, 12) ? any_imm12(p) : any_imm12(p) & -8;
    code_put(p, as(OP_addi, a, any_base(p), offset));
    switch (below(p, 4)) {
    case 0: /* the usual loop's body, without the loop; sometimes spoiled */
        code_put(p, as(d ? OP_lr_d : OP_lr_w, b, a, 0) | order);
        code_put(p, as(OP_addi, b, b, any_imm12(p)));
        if (one_in(p, 4))
            code_put(p, as(one_in(p, 2) ? OP_sd : OP_sb, any_rs(p), a, 0));
        if (one_in(p, 6))
            code_put(p, as(OP_addi, a, a, 8));
        if (one_in(p, 6))
            d = !d;
        code_put(p, as(d ? OP_sc_d : OP_sc_w, any_rd(p), a, b) | order);
        break;
    case 1: /* only one of the two */
        if (one_in(p, 2))
            code_put(p, as(d ? OP_sc_d : OP_sc_w, any_rd(p), a, any_rs(p)) | order);
        else
            code_put(p, as(d ? OP_lr_d : OP_lr_w, any_rd(p), a, 0) | order);
        break;
    default: {
        enum op first = d ? OP_amoswap_d : OP_amoswap_w;
        unsigned rd = one_in(p, 6) ? a : any_rd(p), rs2 = one_in(p, 6) ? rd : any_rs(p);

        code_put(p, as((enum op)(first + below(p, 9)), rd, a, rs2) | order);
    }
    }
    code_unit(p, at, UNIT_PLAIN);
}

/* --- control and status ---------------------------------------------------------------------------------------- */

static inline void unit_csr(struct random_code *p)
{
    static const enum op ops[] = { OP_csrrw, OP_csrrs, OP_csrrc, OP_csrrwi, OP_csrrsi, OP_csrrci };
    /* What is written freely; minstret and what counts it are the point. */
    static const uint16_t writable[] = { 0x001, 0x001, 0x002, 0x003, 0x140, 0xb02, 0xb00,
                                         0xb03, 0x306, 0x106, 0x320, 0x141, 0x142, 0x143 };
    static const uint16_t readable[] = { 0x001, 0x002, 0x003, 0xc00, 0xc02, 0xb00, 0xb02, 0xc02, 0xb02, 0x300, 0x100,
                                         0x340, 0x341, 0x342, 0x343, 0xf14, 0x5c0, 0x301, 0x320, 0xc03, 0x100, 0x104,
                                         0x105, 0x106, 0x10a, 0x140, 0x302, 0x303, 0x304, 0x305, 0x30a };
    unsigned at = p->bytes;

    if (one_in(p, 3)) {
        unsigned csr = PICK(p, writable);
        enum op op = PICK(p, ops);
        /* Rounding modes that there are not make every dynamic operation a trap: rare, and not for long. */
        if (csr == 2 || csr == 3)
            code_put(p, as(OP_csrrwi, any_rd(p), one_in(p, 12) ? 5 : below(p, 5), 2));
        else
            code_put(p, as(op, any_rd(p), op >= OP_csrrwi ? below(p, 32) : any_rs(p), csr));
        if (csr == 0x320 && one_in(p, 2)) /* go on counting, sooner or later */
            code_put(p, as(OP_csrrw, any_rd(p), 0, 0x320));
    } else {
        code_put(p, as(one_in(p, 2) ? OP_csrrs : OP_csrrci, any_rd(p), 0, PICK(p, readable)));
    }
    code_unit(p, at, UNIT_PLAIN);
}

static inline void unit_misc(struct random_code *p)
{
    static const enum op ops[] = { OP_csrrw, OP_csrrs, OP_csrrc };
    static const enum op cbo[] = { OP_cbo_inval, OP_cbo_clean, OP_cbo_flush, OP_cbo_zero, OP_cbo_zero };
    unsigned at = p->bytes, t = any_temp(p);

    switch (below(p, 10)) {
    case 0: code_put(p, as(OP_fence, 0, 0, 0x33)); break;
    case 1: code_put(p, as(OP_fence, 0, 0, (int64_t)below(p, 256))); break;
    case 2: code_put(p, as(OP_fence_i, 0, 0, 0)); break;
    case 3: code_put(p, fill(p, PICK(p, cbo), 0, any_base(p), 0)); break;
    case 4: code_put(p, as(OP_sfence_vma, 0, one_in(p, 2) ? 0 : any_base(p), one_in(p, 2) ? 0 : any_rs(p))); break;
    case 5: /* FP off, an operation, FP "clean" */
        code_put(p, as(OP_lui, t, 0, 0x6000));
        code_put(p, as(OP_csrrc, 0, t, 0x100));
        if (one_in(p, 2))
            code_put(p, any_fp(p, below(p, 32), below(p, 32)));
        code_put(p, as(OP_lui, t, 0, 0x2000 << below(p, 2)));
        code_put(p, as(OP_csrrs, 0, t, 0x100));
        switch (below(p, 4)) { /* what leaves FP clean */
        case 0: code_put(p, as(one_in(p, 2) ? OP_fsd : OP_fsw, below(p, 32), any_base(p), any_imm12(p) & -8)); break;
        case 1: code_put(p, as(one_in(p, 2) ? OP_fmv_x_d : OP_fmv_x_w, any_rd(p), below(p, 32), 0)); break;
        case 2: code_put(p, as(OP_csrrs, any_rd(p), 0, (int64_t)(1 + below(p, 3)))); break;
        default: break;
        }
        code_put(p, as(OP_csrrs, any_rd(p), 0, 0x100));
        break;
    case 6: /* sret to the next instruction, in S: illegal in U */
        code_put(p, as(OP_addi, t, 0, 0x100));
        code_put(p, as(OP_csrrs, 0, t, 0x100));
        code_put(p, as(OP_auipc, t, 0, 0));
        code_put(p, as(OP_addi, t, t, 16));
        code_put(p, as(OP_csrrw, 0, t, 0x141));
        code_put(p, as(OP_sret, 0, 0, 0));
        break;
    case 7: /* sstatus: what kernels do around user copies and critical sections, and more */
        code_put(p, as(OP_lui, t, 0, (int64_t)below(p, 256) << 12));
        code_put(p, as(OP_ori, t, t, any_imm12(p) & 0x7ff));
        code_put(p, as(PICK(p, ops), any_rd(p), t, 0x100));
        code_put(p, as(OP_lui, t, 0, 0x6000)); /* floating point stays on */
        code_put(p, as(OP_csrrs, any_rd(p), t, 0x100));
        break;
    case 8:
        if (one_in(p, 2)) {
            code_put(p, as(one_in(p, 2) ? OP_csrrsi : OP_csrrci, any_rd(p), below(p, 32), 0x100));
            break;
        }
        code_put(p, as(OP_csrrwi, any_rd(p), below(p, 32), 0x100)); /* FP off, too */
        code_put(p, any_fp(p, below(p, 32), below(p, 32)));
        code_put(p, as(OP_lui, t, 0, 0x6000));
        code_put(p, as(OP_csrrs, any_rd(p), t, 0x100));
        break;
    default: /* mret to the next instruction, in M: illegal elsewhere */
        code_put(p, as(OP_lui, t, 0, 0x2000));
        code_put(p, as(OP_addiw, t, t, -0x800));
        code_put(p, as(OP_csrrs, 0, t, 0x300));
        code_put(p, as(OP_auipc, t, 0, 0));
        code_put(p, as(OP_addi, t, t, 16));
        code_put(p, as(OP_csrrw, 0, t, 0x341));
        code_put(p, as(OP_mret, 0, 0, 0));
    }
    code_unit(p, at, UNIT_PLAIN);
}

static inline uint32_t any_illegal(struct random_code *p)
{
    for (;;) {
        uint32_t w = (uint32_t)any(p);

        if (decode(w).op == OP_PSEUDO_illegal)
            return w;
    }
}

/* Another mode, another page table entry: random_run.h. */
static inline void unit_mode(struct random_code *p)
{
    unsigned at = p->bytes;

    code_put(p, as(OP_ecall, 0, 0, 0));
    code_unit(p, at, UNIT_PLAIN);
}

static inline void unit_trap(struct random_code *p)
{
    unsigned at = p->bytes;

    switch (below(p, 12)) {
    case 0: code_put(p, any_illegal(p)); break;
    case 1: code_put16(p, 0); break;
    case 2: code_put16(p, 0x9002); break; /* c.ebreak */
    case 3: code_put(p, as(OP_ebreak, 0, 0, 0)); break;
    case 4: /* nothing at the first pages */
        code_put(p, as(OP_lui, 31, 0, 0x1000));
        code_put(p, as(one_in(p, 2) ? OP_ld : OP_lbu, any_rd(p), 31, any_imm12(p)));
        break;
    case 5: code_put(p, as(OP_sd, any_rs(p), 0, any_imm12(p))); break;
    case 6: /* a device that takes words: anything else is refused */
        code_put(p, as(OP_lui, 31, 0, (int64_t)RIG_ODDS));
        code_put(p, any_access(p, 31));
        break;
    case 7: /* a jump to where nothing is; the way back is in x1 */
        if (p->in_function)
            break;
        code_put(p, as(OP_lui, 31, 0, 0x1000));
        code_put(p, as(OP_jalr, 1, 31, (int64_t)below(p, 1024) * 2));
        break;
    case 8: code_put(p, as(OP_csrrw, any_rd(p), any_rs(p), 0xc02)); break; /* read-only */
    default: unit_mode(p); return;
    }
    code_unit(p, at, UNIT_PLAIN);
}

/* --- control flow --------------------------------------------------------------------------------------------- */

enum { BRANCH_REACH = 4094 };

static inline uint32_t branch_word(uint32_t without, int distance)
{
    return without | (as(OP_beq, 0, 0, distance) & 0xfe000f80);
}

static inline uint32_t any_branch(struct random_code *p)
{
    static const enum op ops[] = { OP_beq, OP_bne, OP_blt, OP_bge, OP_bltu, OP_bgeu };
    unsigned rs2 = one_in(p, 3) ? 0 : any_rs(p);

    return as(PICK(p, ops), any_rs(p), rs2, 0);
}

/* Over a few units, forward; long or compressed. */
static inline void unit_branch(struct random_code *p)
{
    unsigned at = p->bytes;
    bool compressed = one_in(p, 3), not_zero = one_in(p, 2);
    unsigned rs1 = 8 + below(p, 8);
    uint32_t w = any_branch(p);

    if (compressed)
        code_put16(p, 1);
    else
        code_put(p, w);
    code_unit(p, at, UNIT_PLAIN);
    random_sequence(p, 1 + below(p, 4));
    int distance = (int)(p->bytes - at);
    assert_in_range(distance, 0, BRANCH_REACH);
    if (!compressed)
        code_patch(p, at, branch_word(w, distance));
    else if (distance < 256) /* else it stays a nop */
        code_patch(p, at, one_in(p, 4) ? as_c_j(distance) : as_c_branch(not_zero, rs1, distance));
}

/* Forward over a piece, back to it, and forward to behind it all. */
static inline void unit_backward(struct random_code *p)
{
    unsigned over = p->bytes;

    code_put(p, as(OP_jal, 0, 0, 0));
    code_unit(p, over, UNIT_FIXED);
    unsigned piece = p->bytes;
    random_sequence(p, 1 + below(p, 3));
    unsigned out = p->bytes;
    code_put(p, as(OP_jal, 0, 0, 0));
    code_unit(p, out, UNIT_FIXED);
    unsigned back = p->bytes;
    code_patch(p, over, as(OP_jal, 0, 0, (int)(back - over)));
    int distance = (int)piece - (int)back;
    if (distance >= -2048 && one_in(p, 2))
        code_put16(p, as_c_j(distance));
    else
        code_put(p, as(OP_jal, 0, 0, distance));
    code_unit(p, back, UNIT_FIXED);
    code_patch(p, out, as(OP_jal, 0, 0, (int)(p->bytes - out)));
}

/* A loop of a few turns; the branch that closes it may be fused with the addi before it. */
static inline void unit_loop(struct random_code *p)
{
    unsigned counter = p->in_function ? COUNTER_INNER : COUNTER_BODY, at = p->bytes;

    code_put(p, as(OP_addi, counter, 0, (int64_t)(1 + below(p, 6))));
    code_unit(p, at, UNIT_FIXED);
    unsigned top = p->bytes;
    random_sequence(p, 1 + below(p, 5));
    at = p->bytes;
    code_put(p, as(OP_addi, counter, counter, -1));
    int distance = (int)top - (int)p->bytes;
    assert_in_range(-distance, 0, BRANCH_REACH);
    code_put(p, one_in(p, 2) ? as(OP_bne, counter, 0, distance) : as(OP_blt, 0, counter, distance));
    code_unit(p, at, UNIT_FIXED);
}

static inline void unit_call(struct random_code *p, unsigned function)
{
    unsigned at = p->bytes, target = p->function[function], t;

    switch (below(p, 3)) {
    case 0: code_put(p, as(OP_jal, 1, 0, (int)target - (int)at)); break;
    case 1: { /* auipc and jalr, through the link itself or another register */
        unsigned distance = target - at, high = (distance + 0x800) & ~0xfffu;

        t = one_in(p, 2) ? 1 : any_temp(p);
        code_put(p, as(OP_auipc, t, 0, high));
        code_put(p, as(OP_jalr, 1, t, (int)(distance - high)));
        break;
    }
    default: { /* c.jalr */
        unsigned distance = target - at, high = (distance + 0x800) & ~0xfffu;

        t = any_temp(p);
        code_put(p, as(OP_auipc, t, 0, high));
        code_put(p, as(OP_addi, t, t, (int)(distance - high)));
        code_put16(p, (uint16_t)(0x9002 | t << 7));
    }
    }
    code_unit(p, at, UNIT_PLAIN);
}

/* Into the middle of a straight run, by a register. */
static inline void unit_computed(struct random_code *p)
{
    unsigned at = p->bytes, a, b;

    two_temps(p, &a, &b);
    code_put(p, as(OP_andi, a, any_rs(p), 12));
    code_put(p, as(OP_auipc, b, 0, 0));
    code_put(p, as(OP_add, a, a, b));
    code_put(p, as(OP_jalr, 0, a, 12));
    for (unsigned i = 0; i < 4; i++)
        code_put(p, any_alu(p));
    code_unit(p, at, UNIT_PLAIN);
}

/* A store over an instruction that is hot already, then fence.i. Which of two it becomes changes from turn to turn. */
static inline void unit_modifying(struct random_code *p)
{
    unsigned at = p->bytes, a, b;
    uint32_t one = any_alu(p), other = any_alu(p), change = one ^ other;
    bool behind = one_in(p, 2);

    two_temps(p, &a, &b);
    if (behind) { /* the target comes first: what was changed runs in the next turn */
        code_put(p, one);
        at = p->bytes;
    }
    /* a: where; b: what is there, with the bits flipped in which the two differ */
    code_put(p, as(OP_auipc, a, 0, 0));
    unsigned here_at = at;
    int to_patch = behind ? -4 : 0;
    unsigned load_at = p->bytes;
    code_put(p, as(OP_lwu, b, a, to_patch));
    unsigned t = a == 31 || b == 31 ? (a == 30 || b == 30 ? 29 : 30) : 31;
    code_put(p, as(OP_lui, t, 0, (int64_t)(int32_t)((change + 0x800) & 0xfffff000)));
    code_put(p, as(OP_addiw, t, t, (int)(change << 20) >> 20));
    code_put(p, as(OP_xor, b, b, t));
    unsigned store_at = p->bytes;
    code_put(p, as(OP_sw, b, a, to_patch));
    code_put(p, as(OP_fence_i, 0, 0, 0));
    if (!behind) {
        to_patch = (int)(p->bytes - here_at);
        code_patch(p, load_at, as(OP_lwu, b, a, to_patch));
        code_patch(p, store_at, as(OP_sw, b, a, to_patch));
        code_put(p, one);
    }
    code_unit(p, behind ? at - 4 : at, UNIT_PLAIN);
}

/* --- a program ------------------------------------------------------------------------------------------------- */

static inline void random_unit(struct random_code *p)
{
    static const struct {
        void (*make)(struct random_code *p);
        unsigned weight;
    } kinds[] = {
        { unit_alu, 34 },     { unit_compressed, 12 }, { unit_pair, 6 },   { unit_memory, 14 },
        { unit_crossing, 3 }, { unit_fresh, 4 },       { unit_fp, 12 },    { unit_muldiv, 4 },
        { unit_atomic, 5 },   { unit_csr, 4 },         { unit_misc, 2 },   { unit_trap, 3 },
        { unit_computed, 2 }, { unit_modifying, 2 },   { unit_fp_run, 8 }, { unit_tight, 9 },
    };
    unsigned which = below(p, 124), i = 0;

    while (which >= kinds[i].weight)
        which -= kinds[i++].weight;
    bool upsets = kinds[i].make == unit_misc || kinds[i].make == unit_trap || kinds[i].make == unit_modifying;
    if (!p->calm || !upsets)
        kinds[i].make(p);
    else if (one_in(p, 4))
        unit_mode(p);
    else
        unit_alu(p);
}

static inline void random_sequence(struct random_code *p, unsigned units)
{
    p->depth++;
    while (units--) {
        unsigned what = p->depth < 4 ? below(p, 24) : 24;

        if (what < 2)
            unit_branch(p);
        else if (what == 2)
            unit_backward(p);
        else if (what == 3 && p->depth < 2)
            unit_loop(p);
        else if (what == 4 && !p->in_function && p->functions)
            unit_call(p, below(p, p->functions));
        else
            random_unit(p);
    }
    p->depth--;
}

static inline void random_function(struct random_code *p)
{
    unsigned at;

    p->function[p->functions] = p->bytes;
    p->in_function = true;
    p->depth = 0;
    random_sequence(p, 3 + below(p, 10));
    p->in_function = false;
    at = p->bytes;
    if (one_in(p, 2))
        code_put16(p, 0x8082); /* ret */
    else
        code_put(p, as(OP_jalr, 0, 1, 0));
    code_unit(p, at, UNIT_FIXED);
    p->functions++;
}

static inline void leave_gap(struct random_code *p, unsigned from, unsigned to)
{
    p->bytes = ((p->bytes + 0xfff) & ~0xfffu) + from + below(p, (to - from) / 2) * 2;
}

static inline void random_second_copy(struct random_code *p)
{
    memcpy(p->other, p->code, sizeof(p->other));
    for (unsigned i = 0; i < p->units; i++)
        if (p->unit[i].kind == UNIT_VARIABLE && one_in(p, 4)) {
            uint32_t w;

            do
                w = any_alu(p);
            while ((w & 0xf80) == 0x080 || (w & 0xf80) == 0x280); /* x1, x5: this may stand in a function */
            memcpy(p->other + p->unit[i].at, &w, 4);
        }
}

/* A whole program of some `body` units. */
static inline void random_program(struct random_code *p, uint64_t seed, unsigned body)
{
    memset(p, 0, sizeof(*p));
    p->state = seed;
    p->calm = one_in(p, 3);
    for (unsigned i = 0; i < POOL_WORDS; i++) {
        uint64_t value = one_in(p, 3) ? any_integer(p) : any_number(p);

        if (i && one_in(p, 12)) { /* the same with the other sign */
            memcpy(&value, p->code + POOL_AT + (i - 1) * 8, 8);
            value ^= one_in(p, 2) ? UINT64_C(1) << 63 : UINT64_C(1) << 31;
        }
        memcpy(p->code + POOL_AT + i * 8, &value, 8);
    }
    for (unsigned i = 0; i < 1 + below(p, CODE_FUNCTIONS); i++) {
        leave_gap(p, 0xf80, 0x1000);
        random_function(p);
    }
    leave_gap(p, 0xe00, 0xff0);
    p->start = p->bytes;
    random_sequence(p, body);
    unsigned at = p->bytes;
    code_put(p, as(OP_addi, COUNTER_OUTER, COUNTER_OUTER, -1));
    code_put(p, as(OP_beq, COUNTER_OUTER, 0, 8));
    code_put(p, as(OP_jal, 0, 0, (int)p->start - (int)p->bytes));
    code_unit(p, at, UNIT_FIXED);
    p->end = p->bytes;
    code_put(p, as(OP_ebreak, 0, 0, 0));
    code_unit(p, p->end, UNIT_FIXED);
    random_second_copy(p);
}
