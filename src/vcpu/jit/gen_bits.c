/* Zba, Zbb and Zbs.
 *
 * The destination is computed where it lives, unless an operand that is still wanted lives there too. */
#include "vcpu/jit/gen.h"

/* reg = low half of rs1, zero-extended */
static void load_word(struct gen *g, int reg, unsigned rs1)
{
    if (rs1 == 0)
        emit_mov_imm(&g->e, reg, 0);
    else
        emit_mov32(&g->e, reg, gen_loc(g, rs1));
}

/* rs1 as the r/m operand of an instruction that only reads it */
static struct operand source(struct gen *g, unsigned rs1)
{
    return rs1 ? gen_loc(g, rs1) : op_reg(gen_use(g, 0, RAX));
}

/* rd = rs2 + (rs1 << by) */
static void shift_add(struct gen *g, const struct insn *insn, unsigned by, bool word)
{
    int a = RCX, b, d = gen_dest(g, insn->rd, RAX);

    if (word)
        load_word(g, RCX, insn->rs1);
    else
        a = gen_use(g, insn->rs1, RCX);
    b = gen_use(g, insn->rs2, RAX);
    emit_lea(&g->e, d, op_index(b, a, by, 0));
    gen_done(g, insn->rd, d);
}

static void shift_word(struct gen *g, const struct insn *insn)
{
    int d = gen_dest(g, insn->rd, RAX);

    load_word(g, d, insn->rs1);
    if (insn->imm)
        emit_shift_imm(&g->e, SHIFT_SHL, d, (unsigned)insn->imm);
    gen_done(g, insn->rd, d);
}

static void not(struct gen * g, int reg)
{
    emit_op(&g->e, X_W | 0xf7, 2, op_reg(reg));
}

/* rd = rs1 op ~rs2 */
static void logic_not(struct gen *g, const struct insn *insn, enum alu op)
{
    struct emit *e = &g->e;
    int d = gen_dest(g, insn->rd, RAX);

    if (op == ALU_AND && gen_features.bmi) { /* andn */
        emit_vex(e, X_W | X_0F38 | 0xf2, d, gen_use(g, insn->rs2, RCX), source(g, insn->rs1));
    } else {
        if (insn->rd == insn->rs1)
            d = RCX;
        gen_load(g, d, insn->rs2);
        not(g, d);
        emit_alu(e, op, d, insn->rs1 ? gen_loc(g, insn->rs1) : op_reg(gen_use(g, 0, RDX)));
    }
    gen_done(g, insn->rd, d);
}

/* Both orders mean the same: take the one whose first operand may be overwritten. */
static int load_first(struct gen *g, const struct insn *insn, struct operand *second)
{
    int d = gen_dest(g, insn->rd, RAX);
    bool swap = insn->rs2 == insn->rd;
    unsigned other = swap ? insn->rs1 : insn->rs2;

    gen_load(g, d, swap ? insn->rs2 : insn->rs1);
    *second = other ? gen_loc(g, other) : op_reg(gen_use(g, 0, RCX));
    return d;
}

static void xnor(struct gen *g, const struct insn *insn)
{
    struct operand second;
    int d = load_first(g, insn, &second);

    emit_alu(&g->e, ALU_XOR, d, second);
    not(g, d);
    gen_done(g, insn->rd, d);
}

/* rd = the second operand if `cc` holds between the first and it */
static void choose(struct gen *g, const struct insn *insn, enum host_cond cc)
{
    struct operand second;
    int d = load_first(g, insn, &second);

    emit_alu(&g->e, ALU_CMP, d, second);
    emit_cmov(&g->e, cc, d, second);
    gen_done(g, insn->rd, d);
}

static void rotate(struct gen *g, const struct insn *insn, enum shift op, bool word)
{
    int d = gen_dest(g, insn->rd, RAX);

    gen_load(g, RCX, insn->rs2);
    gen_load(g, d, insn->rs1);
    emit_shift_cl(&g->e, op, d, !word);
    if (word)
        emit_movsxd(&g->e, d, op_reg(d));
    gen_done(g, insn->rd, d);
}

static void rotate_imm(struct gen *g, const struct insn *insn, bool word)
{
    struct emit *e = &g->e;
    int d = gen_dest(g, insn->rd, RAX);

    if (gen_features.bmi2 && insn->rs1 && insn->rs1 != insn->rd) { /* rorx */
        emit_vex(e, (word ? 0 : X_W) | X_0F3A | X_F2 | 0xf0, d, 0, gen_loc(g, insn->rs1));
        emit_u8(e, (unsigned)insn->imm);
    } else {
        gen_load(g, d, insn->rs1);
        if (word)
            emit_shift_imm32(e, SHIFT_ROR, d, (unsigned)insn->imm);
        else
            emit_shift_imm(e, SHIFT_ROR, d, (unsigned)insn->imm);
    }
    if (word && !g->unseen[g->at])
        emit_movsxd(e, d, op_reg(d));
    gen_done(g, insn->rd, d);
}

/* Where the operand is 0, the older instructions leave no number behind. */
static void count_zeros(struct gen *g, const struct insn *insn, bool leading, bool word)
{
    struct emit *e = &g->e;
    unsigned wide = word ? 0 : X_W;
    int d = gen_dest(g, insn->rd, RAX), bits = word ? 32 : 64;
    struct operand s = source(g, insn->rs1);

    if (leading ? gen_features.lzcnt : gen_features.bmi) { /* lzcnt, tzcnt */
        emit_op(e, wide | X_F3 | X_0F | (leading ? 0xbd : 0xbc), d, s);
    } else {
        d = RAX;
        emit_mov_imm(e, RCX, leading ? 2 * bits - 1 : bits);
        emit_op(e, wide | X_0F | (leading ? 0xbd : 0xbc), RAX, s); /* bsr, bsf */
        emit_cmov(e, CC_E, RAX, op_reg(RCX));
        if (leading)
            emit_alu_imm(e, ALU_XOR, op_reg(RAX), bits - 1);
    }
    gen_done(g, insn->rd, d);
}

static void extract(struct gen *g, const struct insn *insn, unsigned opcode)
{
    int d = gen_dest(g, insn->rd, RAX);

    emit_op(&g->e, opcode, d, source(g, insn->rs1));
    gen_done(g, insn->rd, d);
}

static bool count_ones(struct gen *g, const struct insn *insn, bool word)
{
    if (!gen_features.popcnt)
        return false;
    extract(g, insn, (word ? 0 : X_W) | X_F3 | X_0F | 0xb8);
    return true;
}

/* Each byte that is not 0 carries into its highest bit, which is then spread: 2 * 0x80 - 0x80 / 0x80. */
static void or_combine(struct gen *g, const struct insn *insn)
{
    struct emit *e = &g->e;

    gen_load(g, RAX, insn->rs1);
    emit_mov_imm(e, RCX, INT64_C(0x7f7f7f7f7f7f7f7f));
    emit_mov(e, RDX, op_reg(RAX));
    emit_alu(e, ALU_AND, RDX, op_reg(RCX));
    emit_alu(e, ALU_ADD, RDX, op_reg(RCX));
    emit_alu(e, ALU_OR, RDX, op_reg(RAX));
    not(g, RCX);
    emit_alu(e, ALU_AND, RDX, op_reg(RCX));
    emit_lea(e, RAX, op_index(RDX, RDX, 0, 0));
    emit_shift_imm(e, SHIFT_SHR, RDX, 7);
    emit_alu(e, ALU_SUB, RAX, op_reg(RDX));
    gen_done(g, insn->rd, RAX);
}

static void reverse_bytes(struct gen *g, const struct insn *insn)
{
    int d = gen_dest(g, insn->rd, RAX);

    gen_load(g, d, insn->rs1);
    emit_u8(&g->e, d >= R8 ? 0x49 : 0x48); /* bswap */
    emit_u8(&g->e, 0x0f);
    emit_u8(&g->e, 0xc8 + ((unsigned)d & 7));
    gen_done(g, insn->rd, d);
}

enum bit_op { BIT_SET = 5, BIT_CLEAR = 6, BIT_INVERT = 7 }; /* as bts, btr, btc with an immediate number them */

static void change_bit(struct gen *g, const struct insn *insn, enum bit_op op)
{
    int d = gen_dest(g, insn->rd, RAX), bit = gen_use(g, insn->rs2, RCX);

    if (d == bit)
        d = RAX;
    gen_load(g, d, insn->rs1);
    emit_op(&g->e, X_W | X_0F | (0x83u + 8 * op), bit, op_reg(d));
    gen_done(g, insn->rd, d);
}

static void change_bit_imm(struct gen *g, const struct insn *insn, enum bit_op op)
{
    int d = gen_dest(g, insn->rd, RAX);

    gen_load(g, d, insn->rs1);
    emit_op_imm(&g->e, X_W | X_0F | 0xba, (int)op, op_reg(d), (int32_t)insn->imm, 1);
    gen_done(g, insn->rd, d);
}

static void extract_bit(struct gen *g, const struct insn *insn)
{
    struct emit *e = &g->e;
    int d = gen_dest(g, insn->rd, RAX), s = gen_use(g, insn->rs1, RAX);

    emit_op(e, X_W | X_0F | 0xa3, gen_use(g, insn->rs2, RCX), op_reg(s)); /* bt */
    emit_setcc(e, CC_B, d);
    emit_op(e, X_0F | X_BYTE_RM | 0xb6, d, op_reg(d));
    gen_done(g, insn->rd, d);
}

static void extract_bit_imm(struct gen *g, const struct insn *insn)
{
    int d = gen_dest(g, insn->rd, RAX);

    gen_load(g, d, insn->rs1);
    if (insn->imm)
        emit_shift_imm(&g->e, SHIFT_SHR, d, (unsigned)insn->imm);
    if (insn->imm < 63)
        emit_alu_imm32(&g->e, ALU_AND, op_reg(d), 1);
    gen_done(g, insn->rd, d);
}

bool gen_bits(struct gen *g, const struct insn *insn)
{
    switch (insn->op) {
    case OP_add_uw: shift_add(g, insn, 0, true); return true;
    case OP_sh1add: shift_add(g, insn, 1, false); return true;
    case OP_sh2add: shift_add(g, insn, 2, false); return true;
    case OP_sh3add: shift_add(g, insn, 3, false); return true;
    case OP_sh1add_uw: shift_add(g, insn, 1, true); return true;
    case OP_sh2add_uw: shift_add(g, insn, 2, true); return true;
    case OP_sh3add_uw: shift_add(g, insn, 3, true); return true;
    case OP_slli_uw: shift_word(g, insn); return true;
    case OP_andn: logic_not(g, insn, ALU_AND); return true;
    case OP_orn: logic_not(g, insn, ALU_OR); return true;
    case OP_xnor: xnor(g, insn); return true;
    case OP_max: choose(g, insn, CC_L); return true;
    case OP_maxu: choose(g, insn, CC_B); return true;
    case OP_min: choose(g, insn, CC_G); return true;
    case OP_minu: choose(g, insn, CC_A); return true;
    case OP_rol: rotate(g, insn, SHIFT_ROL, false); return true;
    case OP_ror: rotate(g, insn, SHIFT_ROR, false); return true;
    case OP_rolw: rotate(g, insn, SHIFT_ROL, true); return true;
    case OP_rorw: rotate(g, insn, SHIFT_ROR, true); return true;
    case OP_rori: rotate_imm(g, insn, false); return true;
    case OP_roriw: rotate_imm(g, insn, true); return true;
    case OP_clz: count_zeros(g, insn, true, false); return true;
    case OP_ctz: count_zeros(g, insn, false, false); return true;
    case OP_clzw: count_zeros(g, insn, true, true); return true;
    case OP_ctzw: count_zeros(g, insn, false, true); return true;
    case OP_cpop: return count_ones(g, insn, false);
    case OP_cpopw: return count_ones(g, insn, true);
    case OP_sext_b: extract(g, insn, X_W | X_0F | X_BYTE_RM | 0xbe); return true;
    case OP_sext_h: extract(g, insn, X_W | X_0F | 0xbf); return true;
    case OP_zext_h: extract(g, insn, X_0F | 0xb7); return true;
    case OP_orc_b: or_combine(g, insn); return true;
    case OP_rev8: reverse_bytes(g, insn); return true;
    case OP_bset: change_bit(g, insn, BIT_SET); return true;
    case OP_bclr: change_bit(g, insn, BIT_CLEAR); return true;
    case OP_binv: change_bit(g, insn, BIT_INVERT); return true;
    case OP_bext: extract_bit(g, insn); return true;
    case OP_bseti: change_bit_imm(g, insn, BIT_SET); return true;
    case OP_bclri: change_bit_imm(g, insn, BIT_CLEAR); return true;
    case OP_binvi: change_bit_imm(g, insn, BIT_INVERT); return true;
    case OP_bexti: extract_bit_imm(g, insn); return true;
    default: return false;
    }
}
