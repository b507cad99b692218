/* Shifts put off until somebody wants them: two opposite ones of the same register, put together, are a rotation, which the
 * base ISA does not have and ciphers consist of; what they left in their own registers is mostly overwritten unread.
 *
 * A shift that is put off has been counted, and its source is as it was. It is made good in front of whatever reads its
 * result, writes its source, or may leave the region; where only the slow path of an access may leave, in the slow path. */
#include "vcpu/jit/gen.h"

#include <assert.h>
#include <string.h>

static bool is_shift(enum op op)
{
    return op == OP_slli || op == OP_srli || op == OP_slliw || op == OP_srliw;
}

static bool may_wait(const struct gen *g, const struct insn *insn)
{
    return is_shift(insn->op) && insn->rd && insn->rs1 && insn->rd != insn->rs1 && insn->imm && !g->in_skip &&
           g->lazies < GEN_LAZY_MAX;
}

static void forget(struct gen *g, unsigned k)
{
    memmove(&g->lazy[k], &g->lazy[k + 1], --g->lazies - k);
}

/* As if it stood here. */
static void make_good(struct gen *g, unsigned k)
{
    unsigned at = g->at;

    g->at = g->lazy[k];
    forget(g, k);
    gen_int(g, &g->insn[g->at]);
    g->at = at;
}

void gen_lazy_all(struct gen *g)
{
    while (g->lazies)
        make_good(g, 0);
}

/* The place of the shift whose result x is, or -1. */
static int waiting(const struct gen *g, unsigned x)
{
    for (unsigned k = 0; k < g->lazies; k++)
        if (g->insn[g->lazy[k]].rd == x)
            return (int)k;
    return -1;
}

/* The rotation that the two operands of insn make. */
static bool rotation(const struct gen *g, const struct insn *insn, struct insn *out)
{
    if (insn->op != OP_or && insn->op != OP_xor && insn->op != OP_add && insn->op != OP_addw)
        return false;
    int a = waiting(g, insn->rs1), b = waiting(g, insn->rs2);
    if (a < 0 || b < 0 || insn->rd == 0)
        return false;
    const struct insn *left = &g->insn[g->lazy[a]], *right = &g->insn[g->lazy[b]];
    if (left->op == OP_srli || left->op == OP_srliw) {
        const struct insn *other = left;

        left = right;
        right = other;
    }
    bool word = left->op == OP_slliw && right->op == OP_srliw;
    if (left->rs1 != right->rs1 || (!word && (left->op != OP_slli || right->op != OP_srli || insn->op == OP_addw)) ||
        left->imm + right->imm != (word ? 32 : 64))
        return false;
    *out = (struct insn){ .op = word ? OP_roriw : OP_rori, .rd = insn->rd, .rs1 = right->rs1, .imm = right->imm };
    return true;
}

static bool touches(const struct insn *shift, const struct insn *insn)
{
    unsigned x[2], count = gen_reads(insn, x);

    for (unsigned i = 0; i < count; i++)
        if (x[i] == shift->rd)
            return true;
    return gen_writes_x(insn, shift->rs1);
}

void gen_lazy_before(struct gen *g, const struct insn *insn)
{
    struct insn rotated;
    enum op_kind kind = insn->op < OP_ENCODED ? (enum op_kind)decode_ops[insn->op].kind : KIND_END;

    if (kind != KIND_ALU && kind != KIND_LOAD && kind != KIND_STORE) {
        gen_lazy_all(g);
        return;
    }
    bool rotates = rotation(g, insn, &rotated);
    for (unsigned k = 0; k < g->lazies;) {
        const struct insn *shift = &g->insn[g->lazy[k]];

        if (rotates ? gen_writes_x(insn, shift->rs1) && shift->rd != insn->rd : touches(shift, insn))
            make_good(g, k);
        else
            k++;
    }
}

bool gen_lazy(struct gen *g, const struct insn *insn)
{
    struct insn rotated;
    bool waits = may_wait(g, insn);

    if (!waits && !(rotation(g, insn, &rotated) && gen_bits(g, &rotated)))
        return false;
    gen_lazy_written(g, insn);
    if (waits)
        g->lazy[g->lazies++] = (uint8_t)g->at;
    return true;
}

void gen_lazy_written(struct gen *g, const struct insn *insn)
{
    for (unsigned k = 0; k < g->lazies; k++)
        if (gen_writes_x(insn, g->insn[g->lazy[k]].rd)) {
            forget(g, k);
            return;
        }
}

void gen_lazy_in_stub(struct gen *g, const struct stub *stub)
{
    assert(stub->lazies <= GEN_LAZY_MAX);
    g->lazies = stub->lazies;
    memcpy(g->lazy, stub->lazy, stub->lazies);
}
