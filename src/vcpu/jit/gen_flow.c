/* Branches and jumps, and how they lead out of a region. */
#include "vcpu/jit/gen.h"

#include <assert.h>
#include <string.h>

/* --- links ----------------------------------------------------------------------------------------------- */

static void align(struct emit *e, uintptr_t ahead, unsigned bytes)
{
    unsigned off = ((uintptr_t)e->at + ahead) % bytes;

    if (off)
        emit_nop(e, bytes - off);
}

static void link_inside(struct gen *g, int64_t page_off)
{
    struct emit *e = &g->e;

    align(e, 1, 4);              /* the displacement is patched by one aligned store */
    uint8_t *site = emit_jmp(e); /* to the next instruction, for now */
    emit_rip(e, X_W | 0x8d, RAX, site);
    emit_mov_imm(e, RCX, page_off);
    emit_jmp_to(e, g->code->thunks.exit_link);
}

/* The code that asks whether the page `distance` away is the one that the link leads to, and goes there. The address comes
 * out of the TLB and not from page_va: what was stored there a few instructions ago is slow to load. */
static void link_across(struct gen *g, int64_t page_off)
{
    struct emit *e = &g->e;
    int32_t distance = (int32_t)(page_off & -PAGE_BYTES);

    align(e, 0, 8);
    uint8_t *head = e->at, *out = emit_jmp(e); /* becomes a load of the TLB's code_page into RAX */
    emit_nop(e, LINK_HEAD_BYTES - 5);
    emit_lea(e, RCX, op_mem(RAX, -distance - 1));
    emit_alu(e, ALU_CMP, RCX, GEN_FIELD(page_va));
    uint8_t *elsewhere = emit_jcc(e, CC_NE), *wanted = NULL;
    emit_alu_imm(e, ALU_SUB, op_reg(RAX), 1);
    emit_store(e, GEN_FIELD(page_va), RAX);
    if (distance < 0) { /* around a loop there is a way back: here the hart can be stopped */
        emit_op_imm(e, 0x80, 7, GEN_FIELD(exit_request), 0, 1); /* cmp byte, 0 */
        wanted = emit_jcc(e, CC_NE);
    }
    align(e, 1, 4);
    uint8_t *tail = emit_jmp(e);
    emit_bind(e, out, e->at);
    emit_rip(e, X_W | 0x8d, RAX, head);
    uint8_t *far = e->at;
    emit_bind(e, elsewhere, far);
    emit_mov_imm(e, RCX, page_off);
    emit_jmp_to(e, g->code->thunks.across);
    emit_bind(e, tail, e->at); /* nobody comes by before it is patched */
    if (wanted)
        emit_bind(e, wanted, e->at);
    emit_mov_imm(e, RCX, page_off - distance);
    emit_jmp_to(e, g->code->thunks.exit_at);
    assert(e->full || e->at - head < 128);
    if (!e->full) {
        head[LINK_TAIL] = (uint8_t)(tail - head);
        head[LINK_FAR] = (uint8_t)(far - head);
    }
}

void gen_link(struct gen *g, int64_t page_off)
{
    gen_to_common(g);
    if (page_off >= 0 && page_off < PAGE_BYTES)
        link_inside(g, page_off);
    else
        link_across(g, page_off);
}

/* --- instructions ---------------------------------------------------------------------------------------- */

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
