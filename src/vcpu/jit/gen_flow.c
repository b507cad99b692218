/* Branches and jumps. */
#include "vcpu/jit/gen.h"

#include <string.h>

/* cmp rs1, rs2 */
static void compare(struct gen *g, unsigned rs1, unsigned rs2)
{
    struct emit *e = &g->e;
    int left;

    if (rs2 == 0) {
        if (rs1 != 0 && g->host_of[rs1] == HOST_NONE) {
            emit_alu_imm(e, ALU_CMP, gen_loc(g, rs1), 0);
        } else {
            left = gen_use(g, rs1, RAX);
            emit_test(e, left, left);
        }
    } else if (rs1 != 0 && g->host_of[rs1] == HOST_NONE && g->host_of[rs2] != HOST_NONE) {
        emit_alu_to(e, ALU_CMP, gen_loc(g, rs1), g->host_of[rs2]);
    } else {
        left = gen_use(g, rs1, RAX);
        emit_alu(e, ALU_CMP, left, gen_loc(g, rs2));
    }
}

static enum host_cond condition(enum op op)
{
    switch (op) {
    case OP_beq: return CC_E;
    case OP_bne: return CC_NE;
    case OP_blt: return CC_L;
    case OP_bge: return CC_GE;
    case OP_bltu: return CC_B;
    default: return CC_AE;
    }
}

/* The displacement at `site` to a label of the region. */
static void to_label(struct gen *g, uint8_t *site, int label)
{
    if (g->label[label]) {
        emit_bind(&g->e, site, g->label[label]);
    } else if (!g->e.full) {
        int32_t before = g->forward[label] ? (int32_t)(site - g->forward[label]) : 0;

        memcpy(site, &before, 4);
        g->forward[label] = site;
    }
}

enum host_cond gen_compare(struct gen *g, const struct insn *branch)
{
    compare(g, branch->rs1, branch->rs2);
    return condition(branch->op);
}

static void branch(struct gen *g, const struct insn *insn)
{
    struct emit *e = &g->e;
    int64_t target = g->off[g->at] + insn->imm;
    int label = gen_label_of(g, target);

    g->retired++;
    if (label >= 0) {
        gen_flush_count(g); /* both ways count alike */
        gen_fp_settle(g, (unsigned)label);
    }
    enum host_cond cc = gen_compare(g, insn);
    if (label < 0) {
        struct stub *stub = gen_stub(g, STUB_SIDE, emit_jcc(e, cc));
        stub->a = (uint32_t)(int32_t)target;
        stub->b = g->retired;
    } else if (insn->imm > 0) {
        to_label(g, emit_jcc(e, cc), label);
    } else { /* around a loop: here the hart can be stopped */
        uint8_t *over = emit_jcc_short(e, cc ^ 1);
        gen_leave_check(g, target, 0);
        to_label(g, emit_jmp(e), label);
        emit_bind_short(e, over);
    }
}

static void jump(struct gen *g, int64_t target)
{
    int label = gen_label_of(g, target);
    bool back = target <= g->off[g->at] && target >= 0;

    gen_flush_count(g);
    if (back)
        gen_leave_check(g, target, 0);
    if (label >= 0 && g->target[label]) {
        gen_fp_settle(g, (unsigned)label);
        to_label(g, emit_jmp(&g->e), label);
    } else {
        gen_link(g, target);
    }
}

/* rd = address of the next instruction */
static void link_register(struct gen *g, unsigned rd)
{
    int d = gen_dest(g, rd, RCX);

    gen_page_va(g, d);
    emit_alu_imm(&g->e, ALU_ADD, op_reg(d), g->off[g->at + 1]);
    gen_done(g, rd, d);
}

static void jump_register(struct gen *g, const struct insn *insn)
{
    struct emit *e = &g->e;

    gen_flush_count(g);
    if (insn->rs1 != 0 && g->host_of[insn->rs1] != HOST_NONE && insn->imm != 0) {
        emit_lea(e, RAX, op_mem(g->host_of[insn->rs1], (int32_t)insn->imm));
    } else {
        gen_load(g, RAX, insn->rs1);
        if (insn->imm)
            emit_alu_imm(e, ALU_ADD, op_reg(RAX), (int32_t)insn->imm);
    }
    emit_alu_imm(e, ALU_AND, op_reg(RAX), -2);
    if (insn->rd)
        link_register(g, insn->rd);
    gen_jump_far(g);
}

bool gen_flow(struct gen *g, const struct insn *insn)
{
    if (insn->op == OP_jal) {
        g->retired++;
        if (insn->rd)
            link_register(g, insn->rd);
        jump(g, g->off[g->at] + insn->imm);
    } else if (insn->op == OP_jalr) {
        g->retired++;
        jump_register(g, insn);
    } else {
        branch(g, insn);
    }
    return true;
}
