/* F and D: conversions, moves, loads and stores. Which flags the host may raise: gen_fp.c. */
#include "vcpu/jit/gen_fp.h"

/* --- to integer --------------------------------------------------------------------------------------------- */

enum int_type { INT_W, INT_WU, INT_L, INT_LU };

/* Redo unless 0 <= a < limit, as bits. The limits are such that no rounding leads out of the type's range. */
static void check_unsigned(struct gen *g, int a, bool single, enum int_type type)
{
    struct emit *e = &g->e;

    if (single) {
        emit_op(e, SSE_TO_GPR, a, op_reg(RAX));
        emit_alu_imm32(e, ALU_CMP, op_reg(RAX), type == INT_WU ? 0x4f800000 : 0x5f000000); /* 2^32, 2^63 */
    } else {
        emit_op(e, X_W | SSE_TO_GPR, a, op_reg(RAX)); /* 2^32 - 1, 2^63 */
        emit_mov_imm(e, RCX, type == INT_WU ? 0x41efffffffe00000 : 0x43e0000000000000);
        emit_alu(e, ALU_CMP, RAX, op_reg(RCX));
    }
    gen_fp_redo(g, emit_jcc(e, CC_AE));
}

/* RAX = a, which the static mode rounds, not MXCSR's. */
static void round_and_convert(struct gen *g, int a, bool single, unsigned wide, unsigned rm)
{
    static const uint8_t rounding[] = { [RM_RNE] = 0, [RM_RDN] = 1, [RM_RUP] = 2 };
    const unsigned silent = 8;
    struct emit *e = &g->e;

    emit_op_imm(e, X_66 | X_0F3A | (single ? 0x0a : 0x0b), 0, op_reg(a), (int32_t)(rounding[rm] | silent), 1);
    emit_op(e, gen_fp_scalar(single) | wide | 0x2c, RAX, op_reg(0));
}

static bool to_int(struct gen *g, const struct insn *insn, bool single, enum int_type type)
{
    struct emit *e = &g->e;
    bool is_signed = type == INT_W || type == INT_L, truncates = insn->rm == RM_RTZ;
    bool rounds_apart = insn->rm != RM_DYNAMIC && !truncates && gen_features.sse41;
    unsigned wide = type == INT_W ? 0 : X_W;

    if (!gen_fp_rounds(insn))
        return false;
    gen_fp_ready(g);
    if (!truncates && !rounds_apart)
        gen_fp_check_mode(g, insn->rm);
    int a = gen_fp_use(g, insn->rs1, single);
    if (!is_signed)
        check_unsigned(g, a, single, type);
    if (rounds_apart)
        round_and_convert(g, a, single, wide, insn->rm);
    else
        emit_op(e, gen_fp_scalar(single) | wide | (truncates ? 0x2c : 0x2d), RAX, op_reg(a)); /* cvtt, cvt */
    if (is_signed) {
        emit_op_imm(e, wide | 0x83, ALU_CMP, op_reg(RAX), 1, 1); /* overflows for the least integer only */
        gen_fp_redo(g, emit_jcc(e, CC_O));
    }
    if (rounds_apart) /* in range: for PE alone */
        emit_op(e, gen_fp_scalar(single) | X_W | 0x2c, RCX, op_reg(a));
    if (insn->rd == 0)
        return true;
    int d = gen_dest(g, insn->rd, RAX);
    if (type == INT_W || type == INT_WU)
        emit_movsxd(e, d, op_reg(RAX));
    else
        emit_mov(e, d, op_reg(RAX));
    gen_done(g, insn->rd, d);
    return true;
}

/* --- from integer, between formats -------------------------------------------------------------------------- */

/* RAX that fits the significand is exact whatever the mode. */
static void check_exact(struct gen *g, bool single, unsigned rm)
{
    struct emit *e = &g->e;
    unsigned bits = single ? 24 : 53;

    if (rm == RM_DYNAMIC)
        return;
    emit_mov_imm(e, RCX, INT64_C(1) << bits);
    emit_alu(e, ALU_ADD, RCX, op_reg(RAX));
    emit_shift_imm(e, SHIFT_SHR, RCX, bits + 1);
    uint8_t *exact = emit_jcc_short(e, CC_E);
    gen_fp_check_mode(g, rm);
    emit_bind_short(e, exact);
}

static bool from_int(struct gen *g, const struct insn *insn, bool single, enum int_type type)
{
    struct emit *e = &g->e;
    bool exact = !single && (type == INT_W || type == INT_WU);

    if (!gen_fp_mode_exists(insn))
        return false;
    gen_fp_ready(g);
    gen_load(g, RAX, insn->rs1);
    if (type == INT_W) {
        emit_movsxd(e, RAX, op_reg(RAX));
    } else if (type == INT_WU) {
        emit_mov32(e, RAX, op_reg(RAX));
    } else if (type == INT_LU) {
        emit_test(e, RAX, RAX);
        gen_fp_redo(g, emit_jcc(e, CC_S));
    }
    if (!exact)
        check_exact(g, single, insn->rm);
    int d = gen_fp_dest(g, insn->rd);
    emit_op(e, SSE_ZERO, d, op_reg(d)); /* the upper part is merged: not to wait for what d was */
    emit_op(e, gen_fp_scalar(single) | X_W | 0x2a, d, op_reg(RAX));
    gen_fp_done(g, insn->rd, d, single);
    return true;
}

static bool between(struct gen *g, const struct insn *insn, bool to_single)
{
    if (to_single ? !gen_fp_rounds(insn) : !gen_fp_mode_exists(insn))
        return false;
    if (to_single)
        gen_fp_begin(g, insn);
    else
        gen_fp_ready(g);
    int a = gen_fp_use(g, insn->rs1, !to_single), d = gen_fp_dest(g, insn->rd);
    if (d != a)
        emit_op(&g->e, SSE_COPY, d, op_reg(a));
    emit_op(&g->e, gen_fp_scalar(!to_single) | 0x5a, d, op_reg(d));
    gen_fp_check_nan(g, d, to_single);
    gen_fp_done(g, insn->rd, d, to_single);
    return true;
}

bool gen_fp_convert(struct gen *g, const struct insn *insn)
{
    switch (insn->op) {
    case OP_fcvt_w_s: return to_int(g, insn, true, INT_W);
    case OP_fcvt_wu_s: return to_int(g, insn, true, INT_WU);
    case OP_fcvt_l_s: return to_int(g, insn, true, INT_L);
    case OP_fcvt_lu_s: return to_int(g, insn, true, INT_LU);
    case OP_fcvt_w_d: return to_int(g, insn, false, INT_W);
    case OP_fcvt_wu_d: return to_int(g, insn, false, INT_WU);
    case OP_fcvt_l_d: return to_int(g, insn, false, INT_L);
    case OP_fcvt_lu_d: return to_int(g, insn, false, INT_LU);
    case OP_fcvt_s_w: return from_int(g, insn, true, INT_W);
    case OP_fcvt_s_wu: return from_int(g, insn, true, INT_WU);
    case OP_fcvt_s_l: return from_int(g, insn, true, INT_L);
    case OP_fcvt_s_lu: return from_int(g, insn, true, INT_LU);
    case OP_fcvt_d_w: return from_int(g, insn, false, INT_W);
    case OP_fcvt_d_wu: return from_int(g, insn, false, INT_WU);
    case OP_fcvt_d_l: return from_int(g, insn, false, INT_L);
    case OP_fcvt_d_lu: return from_int(g, insn, false, INT_LU);
    case OP_fcvt_s_d: return between(g, insn, true);
    case OP_fcvt_d_s: return between(g, insn, false);
    default: return false;
    }
}

/* --- moves -------------------------------------------------------------------------------------------------- */

static bool move_from_x(struct gen *g, const struct insn *insn, bool single)
{
    gen_fp_ready(g);
    gen_fp_set_home(g, insn->rd, gen_use(g, insn->rs1, RAX), single);
    return true;
}

/* The bits, boxed or not. */
static bool move_to_x(struct gen *g, const struct insn *insn, bool single)
{
    struct emit *e = &g->e;

    gen_fp_ready_read(g);
    if (insn->rd == 0)
        return true;
    int copy = gen_fp_copy(g, insn->rs1, single), d = gen_dest(g, insn->rd, RAX);
    if (copy != GEN_FP_NONE)
        emit_op(e, (single ? 0 : X_W) | SSE_TO_GPR, copy, op_reg(d));
    else if (!single)
        emit_mov(e, d, gen_fhome(insn->rs1));
    if (single)
        emit_movsxd(e, d, copy != GEN_FP_NONE ? op_reg(d) : gen_fhome(insn->rs1));
    gen_done(g, insn->rd, d);
    return true;
}

/* --- memory ------------------------------------------------------------------------------------------------- */

static bool load(struct gen *g, const struct insn *insn, bool single)
{
    struct stub *stub;

    gen_fp_ready(g);
    unsigned size = single ? 2 : 3;
    struct operand host =
        gen_reach(g, insn, 1u << size, false, gen_access(g, size, false, false, true, insn->rd), &stub);
    int d = gen_fp_dest(g, insn->rd);
    emit_op(&g->e, single ? SSE_LOAD32 : SSE_LOAD64, d, host);
    gen_fp_done(g, insn->rd, d, single);
    gen_back(g, stub);
    return true;
}

static bool store(struct gen *g, const struct insn *insn, bool single)
{
    struct emit *e = &g->e;
    struct stub *stub;

    gen_fp_ready_read(g);
    unsigned size = single ? 2 : 3;
    struct operand host =
        gen_reach(g, insn, 1u << size, true, gen_access(g, size, false, true, true, insn->rs2), &stub);
    int copy = gen_fp_copy(g, insn->rs2, single);
    if (copy != GEN_FP_NONE) {
        emit_op(e, single ? SSE_STORE32 : SSE_STORE64, copy, host);
    } else {
        emit_op(e, (single ? 0 : X_W) | 0x8b, RCX, gen_fhome(insn->rs2));
        emit_op(e, (single ? 0 : X_W) | 0x89, RCX, host);
    }
    gen_back(g, stub);
    return true;
}

bool gen_fp_move(struct gen *g, const struct insn *insn)
{
    switch (insn->op) {
    case OP_fmv_x_w: return move_to_x(g, insn, true);
    case OP_fmv_x_d: return move_to_x(g, insn, false);
    case OP_fmv_w_x: return move_from_x(g, insn, true);
    case OP_fmv_d_x: return move_from_x(g, insn, false);
    case OP_flw: return load(g, insn, true);
    case OP_fld: return load(g, insn, false);
    case OP_fsw: return store(g, insn, true);
    case OP_fsd: return store(g, insn, false);
    default: return false;
    }
}
