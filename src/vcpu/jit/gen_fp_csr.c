/* fflags, frm and fcsr in generated code: what MXCSR has gathered belongs to fflags. Other modes are the interpreter's. */
#include "vcpu/jit/gen_fp.h"

enum { CSR_FFLAGS = 1, CSR_FRM, CSR_FCSR };
enum how { HOW_WRITE, HOW_SET, HOW_CLEAR, HOW_NONE };

static enum how how_of(enum op op, bool *immediate)
{
    *immediate = op == OP_csrrwi || op == OP_csrrsi || op == OP_csrrci;
    switch (op) {
    case OP_csrrw:
    case OP_csrrwi: return HOW_WRITE;
    case OP_csrrs:
    case OP_csrrsi: return HOW_SET;
    case OP_csrrc:
    case OP_csrrci: return HOW_CLEAR;
    default: return HOW_NONE;
    }
}

static void load_byte(struct gen *g, int reg, struct operand byte)
{
    emit_op(&g->e, X_0F | 0xb6, reg, byte); /* movzx */
}

/* RAX = MXCSR's flags, RCX = all of them; MXCSR is in jit_operand */
static void load_flags(struct gen *g)
{
    struct emit *e = &g->e;

    emit_op(e, X_0F | 0xae, 3, GEN_FIELD(jit_operand)); /* stmxcsr */
    load_byte(g, RAX, GEN_FIELD(jit_operand));
    emit_alu_imm32(e, ALU_AND, op_reg(RAX), CODE_FLAGS - 1);
    emit_rip(e, X_W | 0x8d, RCX, g->code->flags); /* lea */
    load_byte(g, RAX, op_index(RCX, RAX, 0, 0));
    load_byte(g, RCX, GEN_FIELD(hart.fflags));
    emit_alu32(e, ALU_OR, RCX, op_reg(RAX));
}

static bool read(struct gen *g, const struct insn *insn)
{
    struct emit *e = &g->e;

    gen_fp_ready_read(g);
    if (insn->rd == 0)
        return true;
    if (insn->imm != CSR_FRM)
        load_flags(g);
    if (insn->imm != CSR_FFLAGS) {
        load_byte(g, RAX, GEN_FIELD(hart.frm));
        if (insn->imm == CSR_FCSR) {
            emit_shift_imm32(e, SHIFT_SHL, RAX, 5);
            emit_alu32(e, ALU_OR, RCX, op_reg(RAX));
        } else {
            emit_mov(e, RCX, op_reg(RAX));
        }
    }
    gen_done(g, insn->rd, RCX);
    return true;
}

/* What MXCSR has and fflags is to have may stay there: most writes put back what was read before, and need no ldmxcsr. */
static bool write_flags(struct gen *g, const struct insn *insn, enum how how, bool immediate)
{
    struct emit *e = &g->e;

    gen_fp_ready(g);
    load_flags(g);
    if (immediate)
        emit_mov_imm(e, RDX, insn->rs1);
    else
        gen_load(g, RDX, insn->rs1);
    if (how == HOW_CLEAR)
        emit_op(e, 0xf7, 2, op_reg(RDX)); /* not */
    if (how != HOW_WRITE)
        emit_alu32(e, how == HOW_SET ? ALU_OR : ALU_AND, RDX, op_reg(RCX));
    emit_alu_imm32(e, ALU_AND, op_reg(RDX), 31);
    emit_op(e, X_BYTE_REG | 0x88, RDX, GEN_FIELD(hart.fflags));
    if (insn->rd)
        gen_done(g, insn->rd, RCX);
    emit_op(e, 0xf7, 2, op_reg(RDX));
    emit_op(e, 0x85, RDX, op_reg(RAX)); /* test */
    uint8_t *stays = emit_jcc_short(e, CC_E);
    emit_alu_imm32(e, ALU_AND, GEN_FIELD(jit_operand), -CODE_FLAGS);
    emit_op(e, X_0F | 0xae, 2, GEN_FIELD(jit_operand)); /* ldmxcsr */
    emit_bind_short(e, stays);
    return true;
}

bool gen_fp_csr(struct gen *g, const struct insn *insn)
{
    bool immediate;
    enum how how = how_of(insn->op, &immediate);

    if (how == HOW_NONE || insn->imm < CSR_FFLAGS || insn->imm > CSR_FCSR)
        return false;
    if (how != HOW_WRITE && insn->rs1 == 0)
        return read(g, insn);
    return insn->imm == CSR_FFLAGS && write_flags(g, insn, how, immediate);
}
