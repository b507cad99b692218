/* RV64I and M arithmetic.
 *
 * 32-bit results are computed in 32 bits, which zero-extends, and then sign-extended as the ISA wants them, unless
 * nobody can see the upper half. */
#include "vcpu/jit/gen.h"

/* The end of an instruction: the next one may find x in RAX still. */
static void finish(struct gen *g, unsigned x, int reg)
{
    gen_done(g, x, reg);
    if (reg == RAX)
        gen_keep(g, x);
}

static void sign_extend(struct gen *g, int reg)
{
    if (!g->unseen[g->at])
        emit_movsxd(&g->e, reg, op_reg(reg));
}

static void move(struct gen *g, unsigned rd, unsigned rs)
{
    if (rd == rs)
        return;
    if (rs == 0) {
        int d = gen_dest(g, rd, RAX);

        if (d == RAX) {
            emit_store_imm(&g->e, gen_home(rd), 0);
            return;
        }
        emit_mov_imm(&g->e, d, 0);
        return;
    }
    int s = gen_use(g, rs, gen_dest(g, rd, RAX));
    finish(g, rd, s);
}

/* d = rs1 op rs2. RAX may be used; RCX holds a zero operand. */
static void binary(struct gen *g, const struct insn *insn, enum alu op, bool commutes, bool word)
{
    struct emit *e = &g->e;
    unsigned rs1 = insn->rs1, rs2 = insn->rs2;
    void (*alu)(struct emit *, enum alu, int, struct operand) = word ? emit_alu32 : emit_alu;

    int d = gen_dest(g, insn->rd, RAX);
    bool kept = gen_is_kept(g, rs2);
    if (commutes && (rs2 == insn->rd || (kept && d == RAX))) {
        rs2 = rs1;
        rs1 = insn->rs2;
        kept = gen_is_kept(g, rs2);
    }
    if (rs2 == insn->rd && rs1 != rs2)
        d = RAX; /* the second operand must live until the end */
    if (d == RAX && rs1 != rs2)
        kept = false;
    gen_load(g, d, rs1);
    if (rs2 == 0)
        emit_mov_imm(e, RCX, 0);
    alu(e, op, d, kept ? op_reg(RAX) : rs2 ? gen_loc(g, rs2) : op_reg(RCX));
    if (word)
        sign_extend(g, d);
    finish(g, insn->rd, d);
}

static void add(struct gen *g, const struct insn *insn)
{
    int a = g->host_of[insn->rs1], b = g->host_of[insn->rs2], d = g->host_of[insn->rd];

    if (insn->rs1 == 0 || insn->rs2 == 0) {
        move(g, insn->rd, insn->rs1 | insn->rs2);
        return;
    }
    if (a != HOST_NONE && b != HOST_NONE && d != HOST_NONE && d != a && d != b) {
        emit_lea(&g->e, d, op_index(a, b, 0, 0));
        return;
    }
    binary(g, insn, ALU_ADD, true, false);
}

static void subtract(struct gen *g, const struct insn *insn, bool word)
{
    struct emit *e = &g->e;

    if (insn->rs1 != 0) {
        binary(g, insn, ALU_SUB, false, word);
        return;
    }
    int d = gen_dest(g, insn->rd, RAX);
    gen_load(g, d, insn->rs2);
    emit_op(e, (word ? 0 : X_W) | 0xf7, 3, op_reg(d)); /* neg */
    if (word)
        sign_extend(g, d);
    finish(g, insn->rd, d);
}

static void add_imm(struct gen *g, const struct insn *insn)
{
    struct emit *e = &g->e;
    int s = insn->rs1 ? g->host_of[insn->rs1] : HOST_NONE, d = gen_dest(g, insn->rd, RAX);

    if (insn->imm == 0) {
        move(g, insn->rd, insn->rs1);
        return;
    }
    if (insn->rs1 == 0) {
        if (g->host_of[insn->rd] == HOST_NONE) {
            emit_store_imm(e, gen_home(insn->rd), (int32_t)insn->imm);
            return;
        }
        emit_mov_imm(e, d, insn->imm);
    } else if (insn->rs1 == insn->rd) {
        emit_alu_imm(e, ALU_ADD, gen_loc(g, insn->rd), (int32_t)insn->imm);
        return;
    } else if (s != HOST_NONE) {
        emit_lea(e, d, op_mem(s, (int32_t)insn->imm));
    } else {
        gen_load(g, d, insn->rs1);
        emit_alu_imm(e, ALU_ADD, op_reg(d), (int32_t)insn->imm);
    }
    finish(g, insn->rd, d);
}

static void add_imm_word(struct gen *g, const struct insn *insn)
{
    struct emit *e = &g->e;
    int d = gen_dest(g, insn->rd, RAX);

    if (insn->rs1 == 0) {
        emit_mov_imm(e, d, insn->imm);
    } else if (insn->imm == 0 && gen_is_word(g, insn->rs1)) {
        move(g, insn->rd, insn->rs1);
        return;
    } else if (insn->imm == 0) {
        emit_movsxd(e, d, gen_loc(g, insn->rs1));
    } else {
        int s = gen_use(g, insn->rs1, RAX);

        emit_op(e, 0x8d, d, op_mem(s, (int32_t)insn->imm)); /* lea, 32 bits */
        sign_extend(g, d);
    }
    finish(g, insn->rd, d);
}

static void logic_imm(struct gen *g, const struct insn *insn, enum alu op)
{
    struct emit *e = &g->e;
    int d = gen_dest(g, insn->rd, RAX);

    if (insn->op == OP_andi && insn->imm == 0xff && insn->rs1) { /* zext.b */
        emit_op(e, X_0F | X_BYTE_RM | 0xb6, d, gen_loc(g, insn->rs1));
    } else if (insn->rs1 == insn->rd) {
        emit_alu_imm(e, op, gen_loc(g, insn->rd), (int32_t)insn->imm);
        return;
    } else {
        gen_load(g, d, insn->rs1);
        emit_alu_imm(e, op, op_reg(d), (int32_t)insn->imm);
    }
    finish(g, insn->rd, d);
}

static void shift_imm(struct gen *g, const struct insn *insn, enum shift op, bool word)
{
    struct emit *e = &g->e;
    int d = gen_dest(g, insn->rd, RAX);

    gen_load(g, d, insn->rs1);
    if (word) {
        if (insn->imm)
            emit_shift_imm32(e, op, d, (unsigned)insn->imm);
        if (op != SHIFT_SHR || insn->imm == 0) /* else bit 31 is 0 */
            sign_extend(g, d);
    } else if (insn->imm) {
        emit_shift_imm(e, op, d, (unsigned)insn->imm);
    }
    finish(g, insn->rd, d);
}

static void shift(struct gen *g, const struct insn *insn, enum shift op, bool word)
{
    struct emit *e = &g->e;
    int d = gen_dest(g, insn->rd, RAX), count = gen_features.bmi2 ? gen_use(g, insn->rs2, RCX) : RCX;
    unsigned wide = word ? 0 : X_W;

    if (gen_features.bmi2) { /* shlx, shrx, sarx: any register counts */
        unsigned pp = op == SHIFT_SHL ? X_66 : op == SHIFT_SHR ? X_F2 : X_F3;
        int s = gen_use(g, insn->rs1, RAX);

        emit_vex(e, wide | X_0F38 | pp | 0xf7, d, count, op_reg(s));
    } else {
        gen_load(g, RCX, insn->rs2);
        gen_load(g, RAX, insn->rs1);
        emit_shift_cl(e, op, RAX, !word);
        d = RAX;
    }
    if (word)
        sign_extend(g, d);
    finish(g, insn->rd, d);
}

/* rd = rs1 < (rs2 or imm) */
static void set_less(struct gen *g, const struct insn *insn, enum host_cond cc, bool immediate)
{
    struct emit *e = &g->e;
    int d = gen_dest(g, insn->rd, RAX);

    if (!immediate && insn->rs1 == 0 && insn->rs2 != 0 && cc == CC_B) { /* snez */
        emit_alu_imm(e, ALU_CMP, gen_loc(g, insn->rs2), 0);
        cc = CC_NE;
    } else if (immediate && insn->rs1 && g->host_of[insn->rs1] == HOST_NONE) {
        emit_alu_imm(e, ALU_CMP, gen_loc(g, insn->rs1), (int32_t)insn->imm);
    } else {
        int s = gen_use(g, insn->rs1, RAX);

        if (immediate) {
            emit_alu_imm(e, ALU_CMP, op_reg(s), (int32_t)insn->imm);
        } else if (insn->rs2 == 0) {
            emit_alu_imm(e, ALU_CMP, op_reg(s), 0);
        } else {
            emit_alu(e, ALU_CMP, s, gen_loc(g, insn->rs2));
        }
    }
    emit_setcc(e, cc, d);
    emit_op(e, X_0F | X_BYTE_RM | 0xb6, d, op_reg(d)); /* movzx */
    finish(g, insn->rd, d);
}

/* --- M --------------------------------------------------------------------------------------------------- */

static void multiply(struct gen *g, const struct insn *insn, bool word)
{
    struct emit *e = &g->e;
    int d = gen_dest(g, insn->rd, RAX);
    unsigned rs1 = insn->rs1, rs2 = insn->rs2;

    if (rs2 == insn->rd) {
        rs2 = rs1;
        rs1 = insn->rd;
    }
    gen_load(g, d, rs1);
    if (rs2 == 0)
        emit_mov_imm(e, RCX, 0);
    emit_op(e, (word ? 0 : X_W) | X_0F | 0xaf, d, rs2 ? gen_loc(g, rs2) : op_reg(RCX));
    if (word)
        sign_extend(g, d);
    finish(g, insn->rd, d);
}

static void multiply_high(struct gen *g, const struct insn *insn)
{
    struct emit *e = &g->e;
    bool is_signed = insn->op == OP_mulh;

    gen_load(g, RAX, insn->rs1);
    gen_load(g, RCX, insn->rs2);
    emit_op(e, X_W | 0xf7, is_signed ? 5 : 4, op_reg(RCX));
    if (insn->op == OP_mulhsu) { /* the unsigned product counted rs1's sign as 2^64 */
        gen_load(g, RAX, insn->rs1);
        emit_shift_imm(e, SHIFT_SAR, RAX, 63);
        emit_alu(e, ALU_AND, RAX, op_reg(RCX));
        emit_alu(e, ALU_SUB, RDX, op_reg(RAX));
    }
    finish(g, insn->rd, RDX);
}

/* RAX and RDX from RAX / RCX, neither of RISC-V's special cases at hand. Small operands are worth a look: 64-bit
 * division takes several times as long on many CPUs. */
static void divide_plain(struct gen *g, bool is_signed, bool word)
{
    struct emit *e = &g->e;

    if (word) {
        if (is_signed)
            emit_u8(e, 0x99); /* cdq */
        else
            emit_mov_imm(e, RDX, 0);
        emit_op(e, 0xf7, is_signed ? 7 : 6, op_reg(RCX));
        return;
    }
    emit_mov(e, RDX, op_reg(RAX));
    emit_alu(e, ALU_OR, RDX, op_reg(RCX));
    emit_shift_imm(e, SHIFT_SHR, RDX, 32);
    uint8_t *large = emit_jcc_short(e, CC_NE);
    emit_op(e, 0xf7, 6, op_reg(RCX)); /* RDX is 0 */
    uint8_t *done = emit_jmp_short(e);
    emit_bind_short(e, large);
    if (is_signed) {
        emit_u8(e, 0x48); /* cqo */
        emit_u8(e, 0x99);
    } else {
        emit_mov_imm(e, RDX, 0);
    }
    emit_op(e, X_W | 0xf7, is_signed ? 7 : 6, op_reg(RCX));
    emit_bind_short(e, done);
}

/* Division by 0 gives all ones and the dividend; the one overflow gives the dividend and 0. */
static void divide(struct gen *g, const struct insn *insn, bool is_signed, bool remainder, bool word)
{
    struct emit *e = &g->e;
    unsigned wide = word ? 0 : X_W;
    uint8_t *minus = NULL, *done[2];
    int result = remainder ? RDX : RAX;

    gen_load(g, RAX, insn->rs1);
    gen_load(g, RCX, insn->rs2);
    emit_op(e, wide | 0x85, RCX, op_reg(RCX)); /* test */
    uint8_t *zero = emit_jcc_short(e, CC_E);
    if (is_signed) {
        emit_op_imm(e, wide | 0x83, ALU_CMP, op_reg(RCX), -1, 1);
        minus = emit_jcc_short(e, CC_E);
    }
    divide_plain(g, is_signed, word);
    done[0] = emit_jmp_short(e);
    if (is_signed) { /* by -1: negate, which is right for the least number too */
        emit_bind_short(e, minus);
        if (remainder)
            emit_mov_imm(e, RDX, 0);
        else
            emit_op(e, wide | 0xf7, 3, op_reg(RAX));
    }
    done[1] = is_signed ? emit_jmp_short(e) : NULL;
    emit_bind_short(e, zero);
    if (remainder)
        emit_mov(e, RDX, op_reg(RAX));
    else
        emit_mov_imm(e, RAX, -1);
    emit_bind_short(e, done[0]);
    if (done[1])
        emit_bind_short(e, done[1]);
    if (word)
        emit_movsxd(e, result, op_reg(result));
    finish(g, insn->rd, result);
}

/* --- all of it ------------------------------------------------------------------------------------------- */

static void load_imm(struct gen *g, unsigned rd, int64_t value)
{
    int d = gen_dest(g, rd, RAX);

    if (d == RAX && value == (int32_t)value) {
        emit_store_imm(&g->e, gen_home(rd), (int32_t)value);
        return;
    }
    emit_mov_imm(&g->e, d, value);
    finish(g, rd, d);
}

static void load_pc(struct gen *g, unsigned rd, int64_t page_off)
{
    int d = gen_dest(g, rd, RAX);

    gen_page_va(g, d);
    if (page_off)
        emit_alu_imm(&g->e, ALU_ADD, op_reg(d), (int32_t)page_off);
    finish(g, rd, d);
}

bool gen_int(struct gen *g, const struct insn *insn)
{
    switch (insn->op) {
    case OP_lui: load_imm(g, insn->rd, insn->imm); return true;
    case OP_auipc:
        if (insn->imm + g->off[g->at] != (int32_t)(insn->imm + g->off[g->at]))
            return false;
        load_pc(g, insn->rd, insn->imm + g->off[g->at]);
        return true;
    case OP_addi: add_imm(g, insn); return true;
    case OP_addiw: add_imm_word(g, insn); return true;
    case OP_xori: logic_imm(g, insn, ALU_XOR); return true;
    case OP_ori: logic_imm(g, insn, ALU_OR); return true;
    case OP_andi: logic_imm(g, insn, ALU_AND); return true;
    case OP_slti: set_less(g, insn, CC_L, true); return true;
    case OP_sltiu: set_less(g, insn, CC_B, true); return true;
    case OP_slli: shift_imm(g, insn, SHIFT_SHL, false); return true;
    case OP_srli: shift_imm(g, insn, SHIFT_SHR, false); return true;
    case OP_srai: shift_imm(g, insn, SHIFT_SAR, false); return true;
    case OP_slliw: shift_imm(g, insn, SHIFT_SHL, true); return true;
    case OP_srliw: shift_imm(g, insn, SHIFT_SHR, true); return true;
    case OP_sraiw: shift_imm(g, insn, SHIFT_SAR, true); return true;
    case OP_add: add(g, insn); return true;
    case OP_sub: subtract(g, insn, false); return true;
    case OP_xor: binary(g, insn, ALU_XOR, true, false); return true;
    case OP_or: binary(g, insn, ALU_OR, true, false); return true;
    case OP_and: binary(g, insn, ALU_AND, true, false); return true;
    case OP_addw: binary(g, insn, ALU_ADD, true, true); return true;
    case OP_subw: subtract(g, insn, true); return true;
    case OP_sll: shift(g, insn, SHIFT_SHL, false); return true;
    case OP_srl: shift(g, insn, SHIFT_SHR, false); return true;
    case OP_sra: shift(g, insn, SHIFT_SAR, false); return true;
    case OP_sllw: shift(g, insn, SHIFT_SHL, true); return true;
    case OP_srlw: shift(g, insn, SHIFT_SHR, true); return true;
    case OP_sraw: shift(g, insn, SHIFT_SAR, true); return true;
    case OP_slt: set_less(g, insn, CC_L, false); return true;
    case OP_sltu: set_less(g, insn, CC_B, false); return true;
    case OP_mul: multiply(g, insn, false); return true;
    case OP_mulw: multiply(g, insn, true); return true;
    case OP_mulh:
    case OP_mulhu:
    case OP_mulhsu: multiply_high(g, insn); return true;
    case OP_div: divide(g, insn, true, false, false); return true;
    case OP_divu: divide(g, insn, false, false, false); return true;
    case OP_rem: divide(g, insn, true, true, false); return true;
    case OP_remu: divide(g, insn, false, true, false); return true;
    case OP_divw: divide(g, insn, true, false, true); return true;
    case OP_divuw: divide(g, insn, false, false, true); return true;
    case OP_remw: divide(g, insn, true, true, true); return true;
    case OP_remuw: divide(g, insn, false, true, true); return true;
    default: return false;
    }
}

/* --- pairs ----------------------------------------------------------------------------------------------- */

static bool same_register(const struct insn *first, const struct insn *second)
{
    return first->rd && second->rs1 == first->rd && second->rd == first->rd;
}

/* Zero-extensions without Zba: a shift left and back. */
static bool pair_extend(struct gen *g, const struct insn *first, const struct insn *second)
{
    if (first->op != OP_slli || second->op != OP_srli || first->imm != second->imm || first->rs1 == 0)
        return false;
    int d = gen_dest(g, first->rd, RAX);
    if (first->imm == 32)
        emit_mov32(&g->e, d, gen_loc(g, first->rs1));
    else if (first->imm == 48)
        emit_op(&g->e, X_0F | 0xb7, d, gen_loc(g, first->rs1));
    else if (first->imm == 56)
        emit_op(&g->e, X_0F | X_BYTE_RM | 0xb6, d, gen_loc(g, first->rs1));
    else
        return false;
    finish(g, first->rd, d);
    return true;
}

bool gen_pair(struct gen *g, const struct insn *first, const struct insn *second)
{
    if (!same_register(first, second))
        return false;
    if (first->op == OP_lui && (second->op == OP_addi || second->op == OP_addiw)) {
        int64_t sum = first->imm + second->imm;

        load_imm(g, first->rd, second->op == OP_addi ? sum : (int32_t)sum);
        return true;
    }
    if (first->op == OP_auipc && second->op == OP_addi) {
        int64_t page_off = first->imm + g->off[g->at] + second->imm;

        if (page_off != (int32_t)page_off)
            return false;
        load_pc(g, first->rd, page_off);
        return true;
    }
    return pair_extend(g, first, second);
}
