/* F and D: arithmetic, comparison, signs. Moves and conversions: gen_fp_convert.c; CSRs: gen_fp_csr.c; registers: gen_fp_regs.c.
 *
 * Before the first of these on every path MXCSR is made the guest's: its rounding mode, all exceptions masked, FTZ and DAZ
 * off. It gathers flags, which jit_fp_park() ORs into fflags. So an instruction may run on the host's unit if the host
 * raises no flag that the ISA does not; a flag that the host omits is added when the interpreter does the instruction
 * again (gen_fp_redo: every operand is still in memory, since only the last step writes the result there).
 *
 * - add, sub, mul, div, sqrt: IEEE 754 leaves no choice but the NaN and when tininess is detected; SSE detects it after
 *   rounding, as the ISA does, and signals underflow only for what is also inexact (masked response). IE, ZE, OE, UE, PE
 *   are NV, DZ, OF, UF, NX. DE (denormal operand) is nobody's, and not gathered. A NaN result is done again: the ISA has
 *   one NaN only. To find it, ucomis of the result raises nothing, since no result is a signalling NaN.
 * - fused: as above. inf * 0 + quiet NaN is invalid for the ISA and not on the host; its result is a NaN, so it is done
 *   again. Both negate the product before the one rounding, so the sign of an exact zero is the same.
 * - min, max: ucomis first: IE for a signalling NaN only, as the ISA has it; unordered is done again. minss and maxss then see
 *   numbers only, and raise nothing. Of two zeros they return the second operand, hence both orders, ORed or ANDed.
 * - feq: cmpeqss raises IE for a signalling NaN only; flt, fle: cmpltss, cmpless do for any NaN. Unordered gives 0.
 * - sign operations: packed logic, which raises nothing.
 * - to integer: IE when the rounded value is out of the host type's range, or NaN, and then no PE: as NV without NX. The
 *   result is then the least integer, which is done again. Unsigned: only what is known to be in range before (a compare
 *   of the bits, which raises nothing) is converted, by the wider signed conversion. PE is NX.
 *   A static rounding mode is carried out by roundss, which is told to raise no PE; converting the operand itself then
 *   raises PE if it is no integer.
 * - from integer, between formats: as arithmetic. Integers that fit the significand need no rounding mode.
 * - singles: an operand that is not boxed is done again before anything is computed. */
#include "vcpu/jit/gen_fp.h"

/* --- arithmetic --------------------------------------------------------------------------------------------- */

enum { OPCODE_SQRT = 0x51, OPCODE_ADD = 0x58, OPCODE_MUL, OPCODE_SUB = 0x5c, OPCODE_MIN, OPCODE_DIV, OPCODE_MAX };

static bool arithmetic(struct gen *g, const struct insn *insn, bool single, unsigned opcode)
{
    struct emit *e = &g->e;
    bool commutes = opcode == OPCODE_ADD || opcode == OPCODE_MUL;

    if (!gen_fp_rounds(insn))
        return false;
    gen_fp_begin(g, insn);
    opcode |= gen_fp_scalar(single);
    int a = gen_fp_use(g, insn->rs1, single), b = gen_fp_use(g, insn->rs2, single), d = gen_fp_dest(g, insn->rd);
    if (d == a) {
        emit_op(e, opcode, d, op_reg(b));
    } else if (d == b && commutes) {
        emit_op(e, opcode, d, op_reg(a));
    } else if (d == b) {
        emit_op(e, SSE_COPY, 0, op_reg(a));
        emit_op(e, opcode, 0, op_reg(b));
        emit_op(e, SSE_COPY, d, op_reg(0));
    } else {
        emit_op(e, SSE_COPY, d, op_reg(a));
        emit_op(e, opcode, d, op_reg(b));
    }
    gen_fp_check_nan(g, d, single);
    gen_fp_done(g, insn->rd, d, single);
    return true;
}

static bool square_root(struct gen *g, const struct insn *insn, bool single)
{
    if (!gen_fp_rounds(insn))
        return false;
    gen_fp_begin(g, insn);
    int a = gen_fp_use(g, insn->rs1, single), d = gen_fp_dest(g, insn->rd);
    if (d != a) /* the upper part is merged: not to wait for what d was */
        emit_op(&g->e, SSE_COPY, d, op_reg(a));
    emit_op(&g->e, gen_fp_scalar(single) | OPCODE_SQRT, d, op_reg(d));
    gen_fp_check_nan(g, d, single);
    gen_fp_done(g, insn->rd, d, single);
    return true;
}

/* vfmadd213 (d = b * d + c) and its kin; 231, which is d = a * b + d, has an opcode higher by 16. The ISA's fnmsub, -(a*b)+c,
 * is the host's vfnmadd; its fnmadd, -(a*b)-c, the host's vfnmsub. */
enum { FUSED_ADD = 0xa9, FUSED_SUB = 0xab, FUSED_NEGATED_ADD = 0xad, FUSED_NEGATED_SUB = 0xaf, FUSED_231 = 0x10 };

static bool fused(struct gen *g, const struct insn *insn, bool single, unsigned opcode)
{
    struct emit *e = &g->e;

    if (!gen_fp_rounds(insn) || !gen_features.fma)
        return false;
    gen_fp_begin(g, insn);
    opcode |= X_66 | X_0F38 | (single ? 0 : X_W);
    int a = gen_fp_use(g, insn->rs1, single), b = gen_fp_use(g, insn->rs2, single),
        c = gen_fp_use(g, insn->rs3, single), d = gen_fp_dest(g, insn->rd);
    if (d == a) {
        emit_vex(e, opcode, d, b, op_reg(c));
    } else if (d == b) {
        emit_vex(e, opcode, d, a, op_reg(c));
    } else {
        if (d != c)
            emit_op(e, SSE_COPY, d, op_reg(c));
        emit_vex(e, opcode + FUSED_231, d, a, op_reg(b));
    }
    gen_fp_check_nan(g, d, single);
    gen_fp_done(g, insn->rd, d, single);
    return true;
}

/* --- minimum, comparison ------------------------------------------------------------------------------------ */

static bool minimum(struct gen *g, const struct insn *insn, bool single, unsigned opcode)
{
    struct emit *e = &g->e;

    gen_fp_ready(g);
    int a = gen_fp_use(g, insn->rs1, single), b = gen_fp_use(g, insn->rs2, single), d = gen_fp_dest(g, insn->rd);
    emit_op(e, (single ? 0 : X_66) | X_0F | 0x2e, a, op_reg(b)); /* ucomis */
    gen_fp_redo(g, emit_jcc(e, CC_P));
    emit_op(e, SSE_COPY, 0, op_reg(a));
    emit_op(e, SSE_COPY, 1, op_reg(b));
    emit_op(e, gen_fp_scalar(single) | opcode, 0, op_reg(b));
    emit_op(e, gen_fp_scalar(single) | opcode, 1, op_reg(a));
    emit_op(e, opcode == OPCODE_MIN ? SSE_OR : SSE_AND, 0, op_reg(1));
    emit_op(e, SSE_COPY, d, op_reg(0));
    gen_fp_done(g, insn->rd, d, single);
    return true;
}

enum { COMPARE_EQUAL, COMPARE_LESS, COMPARE_LESS_EQUAL }; /* predicates of cmpss, cmpsd */

static bool compare(struct gen *g, const struct insn *insn, bool single, int predicate)
{
    struct emit *e = &g->e;

    gen_fp_ready(g);
    int a = gen_fp_use(g, insn->rs1, single), b = gen_fp_use(g, insn->rs2, single), d = gen_dest(g, insn->rd, RAX);
    emit_op(e, SSE_COPY, 0, op_reg(a));
    emit_op_imm(e, gen_fp_scalar(single) | 0xc2, 0, op_reg(b), predicate, 1);
    if (insn->rd == 0)
        return true;
    emit_op(e, SSE_TO_GPR, 0, op_reg(d)); /* all ones or zeros */
    emit_alu_imm32(e, ALU_AND, op_reg(d), 1);
    gen_done(g, insn->rd, d);
    return true;
}

/* --- signs -------------------------------------------------------------------------------------------------- */

enum sign { SIGN_TAKE, SIGN_NEGATE, SIGN_XOR };

/* XMM `reg` = the sign bit, or all others. */
static void sign_mask(struct gen *g, int reg, bool single, bool others)
{
    emit_op(&g->e, SSE_ONES, reg, op_reg(reg)); /* then psll or psrl */
    emit_op_imm(&g->e, X_66 | X_0F | (single ? 0x72 : 0x73), others ? 2 : 6, op_reg(reg),
                others   ? 1
                : single ? 31
                         : 63,
                1);
}

/* fmv, fneg, fabs */
static void sign_of_itself(struct gen *g, int d, int a, bool single, enum sign sign)
{
    if (sign != SIGN_TAKE)
        sign_mask(g, 0, single, sign == SIGN_XOR);
    if (d != a)
        emit_op(&g->e, SSE_COPY, d, op_reg(a));
    if (sign != SIGN_TAKE)
        emit_op(&g->e, sign == SIGN_XOR ? SSE_AND : SSE_XOR, d, op_reg(0));
}

static void sign_of_other(struct gen *g, int d, int a, int b, bool single, enum sign sign)
{
    struct emit *e = &g->e;

    sign_mask(g, 0, single, false);
    emit_op(e, SSE_COPY, 1, op_reg(b));
    if (sign == SIGN_NEGATE)
        emit_op(e, SSE_ANDN, 1, op_reg(0));
    else
        emit_op(e, SSE_AND, 1, op_reg(0));
    if (sign == SIGN_XOR) {
        emit_op(e, SSE_XOR, 1, op_reg(a));
    } else {
        emit_op(e, SSE_ANDN, 0, op_reg(a));
        emit_op(e, SSE_OR, 1, op_reg(0));
    }
    emit_op(e, SSE_COPY, d, op_reg(1));
}

static bool inject_sign(struct gen *g, const struct insn *insn, bool single, enum sign sign)
{
    gen_fp_ready(g);
    int a = gen_fp_use(g, insn->rs1, single), b = gen_fp_use(g, insn->rs2, single), d = gen_fp_dest(g, insn->rd);
    if (a == b)
        sign_of_itself(g, d, a, single, sign);
    else
        sign_of_other(g, d, a, b, single, sign);
    gen_fp_done(g, insn->rd, d, single);
    return true;
}

/* --- all of it ---------------------------------------------------------------------------------------------- */

static bool operation(struct gen *g, const struct insn *insn)
{
    switch (insn->op) {
    case OP_fadd_s: return arithmetic(g, insn, true, OPCODE_ADD);
    case OP_fsub_s: return arithmetic(g, insn, true, OPCODE_SUB);
    case OP_fmul_s: return arithmetic(g, insn, true, OPCODE_MUL);
    case OP_fdiv_s: return arithmetic(g, insn, true, OPCODE_DIV);
    case OP_fsqrt_s: return square_root(g, insn, true);
    case OP_fmadd_s: return fused(g, insn, true, FUSED_ADD);
    case OP_fmsub_s: return fused(g, insn, true, FUSED_SUB);
    case OP_fnmsub_s: return fused(g, insn, true, FUSED_NEGATED_ADD);
    case OP_fnmadd_s: return fused(g, insn, true, FUSED_NEGATED_SUB);
    case OP_fmin_s: return minimum(g, insn, true, OPCODE_MIN);
    case OP_fmax_s: return minimum(g, insn, true, OPCODE_MAX);
    case OP_feq_s: return compare(g, insn, true, COMPARE_EQUAL);
    case OP_flt_s: return compare(g, insn, true, COMPARE_LESS);
    case OP_fle_s: return compare(g, insn, true, COMPARE_LESS_EQUAL);
    case OP_fsgnj_s: return inject_sign(g, insn, true, SIGN_TAKE);
    case OP_fsgnjn_s: return inject_sign(g, insn, true, SIGN_NEGATE);
    case OP_fsgnjx_s: return inject_sign(g, insn, true, SIGN_XOR);
    case OP_fadd_d: return arithmetic(g, insn, false, OPCODE_ADD);
    case OP_fsub_d: return arithmetic(g, insn, false, OPCODE_SUB);
    case OP_fmul_d: return arithmetic(g, insn, false, OPCODE_MUL);
    case OP_fdiv_d: return arithmetic(g, insn, false, OPCODE_DIV);
    case OP_fsqrt_d: return square_root(g, insn, false);
    case OP_fmadd_d: return fused(g, insn, false, FUSED_ADD);
    case OP_fmsub_d: return fused(g, insn, false, FUSED_SUB);
    case OP_fnmsub_d: return fused(g, insn, false, FUSED_NEGATED_ADD);
    case OP_fnmadd_d: return fused(g, insn, false, FUSED_NEGATED_SUB);
    case OP_fmin_d: return minimum(g, insn, false, OPCODE_MIN);
    case OP_fmax_d: return minimum(g, insn, false, OPCODE_MAX);
    case OP_feq_d: return compare(g, insn, false, COMPARE_EQUAL);
    case OP_flt_d: return compare(g, insn, false, COMPARE_LESS);
    case OP_fle_d: return compare(g, insn, false, COMPARE_LESS_EQUAL);
    case OP_fsgnj_d: return inject_sign(g, insn, false, SIGN_TAKE);
    case OP_fsgnjn_d: return inject_sign(g, insn, false, SIGN_NEGATE);
    case OP_fsgnjx_d: return inject_sign(g, insn, false, SIGN_XOR);
    default: return gen_fp_convert(g, insn) || gen_fp_move(g, insn) || gen_fp_csr(g, insn);
    }
}

bool gen_fp(struct gen *g, const struct insn *insn)
{
    g->fp.redo = g->fp.read = NULL;
    if (!operation(g, insn))
        return false;
    if (g->fp.redo)
        gen_back(g, g->fp.redo);
    if (g->fp.read)
        g->fp.read->end = g->e.at;
    return true;
}
