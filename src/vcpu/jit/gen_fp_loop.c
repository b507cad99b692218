/* Copies of f registers across the labels of loops. Elsewhere a label begins with none, since nobody knows which ways lead
 * to it; a loop that sums up would then wait for its sum to come out of memory each time around. So the head of a loop says
 * beforehand which registers it expects where, and whoever goes there sees to it. */
#include "vcpu/jit/gen_fp.h"

enum { MADD = 0x43, NMADD = 0x4f, OP_FP = 0x53, FROM_INTEGER = 0x1a, MOVE_FROM = 0x1e };

static unsigned opcode_of(const struct insn *insn)
{
    return insn->op < OP_ENCODED ? decode_ops[insn->op].match & 127 : 0;
}

/* The f registers that it reads into XMM, and whether as singles. */
static unsigned reads_f(const struct insn *insn, unsigned f[3], bool *single)
{
    unsigned opcode = opcode_of(insn);
    uint32_t match = opcode ? decode_ops[insn->op].match : 0, funct5 = match >> 27;

    *single = (match >> 25 & 3) == 0;
    f[0] = insn->rs1;
    f[1] = insn->rs2;
    f[2] = insn->rs3;
    if (opcode >= MADD && opcode <= NMADD)
        return 3;
    if (opcode != OP_FP || funct5 == FROM_INTEGER || funct5 == MOVE_FROM)
        return 0;
    return decode_ops[insn->op].mask >> 20 & 31 ? 1 : 2; /* a fixed rs2 is part of the opcode */
}

static void expect(struct gen_fp_loop *loop, unsigned f, bool single)
{
    for (unsigned i = 0; i < loop->count; i++)
        if (loop->f[i] == f)
            return;
    if (loop->count == GEN_FP_LOOP_REGS)
        return;
    loop->single[loop->count] = single;
    loop->f[loop->count++] = (uint8_t)f;
}

/* What the loop reads before it writes it. */
static void choose(const struct gen *g, unsigned first, unsigned last, struct gen_fp_loop *loop)
{
    uint32_t written = 0;

    for (unsigned i = first; i <= last; i++) {
        const struct insn *insn = &g->insn[i];
        unsigned f[3];
        bool single;

        for (unsigned k = 0, count = reads_f(insn, f, &single); k < count; k++)
            if (!(written >> f[k] & 1))
                expect(loop, f[k], single);
        if (gen_writes_f(insn))
            written |= UINT32_C(1) << insn->rd;
    }
}

void gen_fp_choose_loops(struct gen *g)
{
    for (unsigned i = 0; i < g->count; i++)
        g->loop[i].count = 0;
    for (unsigned i = 0; i < g->count; i++) {
        int label = gen_leads(g, i);

        if (label >= 0 && (unsigned)label <= i)
            choose(g, (unsigned)label, i, &g->loop[label]);
    }
}

void gen_fp_settle(struct gen *g, unsigned label)
{
    const struct gen_fp_loop *loop = &g->loop[label];

    for (unsigned i = 0; i < loop->count; i++)
        if (g->fp.f[i] != (int)loop->f[i] || g->fp.single[i] != loop->single[i])
            gen_fp_put(g, (int)i, loop->f[i], loop->single[i]);
}

void gen_fp_arrive(struct gen *g, unsigned label)
{
    const struct gen_fp_loop *loop = &g->loop[label];

    gen_fp_forget(g);
    for (unsigned i = 0; i < loop->count; i++) {
        g->fp.f[i] = (int8_t)loop->f[i];
        g->fp.single[i] = loop->single[i];
        g->fp.used[i] = ++g->fp.now;
    }
}
