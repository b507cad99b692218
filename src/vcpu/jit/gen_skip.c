/* A branch over a few plain instructions that all write one register: they are computed aside, and taken over by a
 * conditional move. Compilers for a CPU without such moves write a branch for every minimum, carry and sign, and no
 * host predicts those that depend on data. */
#include "vcpu/jit/gen.h"

enum { SKIP_MAX = 3 };

/* The register that instructions first..last write, if they are of the kind that may run in vain; else 0. */
static unsigned only_written(const struct gen *g, unsigned first, unsigned last)
{
    unsigned rd = g->insn[first].rd;

    for (unsigned i = first; i <= last; i++)
        if (g->target[i] || !gen_keeps_rdx(&g->insn[i]) || g->insn[i].rd != rd)
            return 0;
    return rd;
}

static unsigned ways_to(const struct gen *g, unsigned label)
{
    unsigned ways = 0;

    for (unsigned i = 0; i < g->count; i++)
        ways += gen_leads(g, i) == (int)label;
    return ways;
}

void gen_find_skips(struct gen *g)
{
    for (unsigned i = 0; i < g->count; i++) {
        g->skip[i] = 0;
        g->bridged[i] = false;
    }
    for (unsigned i = 0; i < g->count; i++) {
        const struct insn *insn = &g->insn[i];
        int label = gen_leads(g, i);

        if (insn->op == OP_jal || label <= (int)i + 1 || label - (int)i - 1 > SKIP_MAX ||
            !only_written(g, i + 1, (unsigned)label - 1))
            continue;
        g->skip[i] = (uint8_t)((unsigned)label - i - 1);
        g->bridged[label] = ways_to(g, (unsigned)label) == 1;
    }
}

void gen_skip_begin(struct gen *g, struct gen_skip *skip)
{
    unsigned rd = g->insn[g->at + 1].rd;

    *skip = (struct gen_skip){
        .branch = g->at, .rd = rd, .host = g->host_of[rd], .retired = g->retired + 1, .words = g->words
    };
    gen_load(g, RDX, rd);
    g->kept_at = NULL;
    g->host_of[rd] = RDX;
    g->in_skip = true;
}

void gen_skip_end(struct gen *g, const struct gen_skip *skip)
{
    struct emit *e = &g->e;
    unsigned skipped = g->skip[skip->branch];

    g->in_skip = false;
    g->host_of[skip->rd] = skip->host;
    g->kept_at = NULL;
    enum host_cond taken = gen_compare(g, &g->insn[skip->branch]);
    if (skip->host != HOST_NONE)
        emit_cmov(e, taken ^ 1, skip->host, op_reg(RDX));
    else
        emit_cmov(e, taken, RDX, gen_home(skip->rd));
    gen_lea_count(g, RAX, skip->retired + skipped);
    gen_lea_count(g, RCX, skip->retired);
    emit_cmov(e, taken, RAX, op_reg(RCX));
    emit_op(e, X_66 | X_0F | 0xd4, GEN_COUNT, op_mem(RAX, 0)); /* paddq */
    if (skip->host == HOST_NONE)
        gen_done(g, skip->rd, RDX);
    g->retired = 0;
    g->words &= skip->words | ~(UINT32_C(1) << skip->rd);
}
