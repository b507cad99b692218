/* The floating-point unit's state and registers as generated code sees them. */
#include <string.h>

#include "vcpu/jit/gen_fp.h"

/* --- getting ready ------------------------------------------------------------------------------------------ */

static uint8_t *jump_unless_ready(struct gen *g)
{
    emit_op_imm(&g->e, 0x80, 7, GEN_FIELD(fp_ready), 0, 1); /* cmp byte, 0 */
    return emit_jcc(&g->e, CC_E);
}

void gen_fp_ready(struct gen *g)
{
    if (g->fp_ready)
        return;
    struct stub *stub = gen_stub(g, STUB_FP, jump_unless_ready(g));
    stub->b = g->retired;
    g->fp_ready = true;
}

void gen_fp_ready_read(struct gen *g)
{
    if (g->fp_ready)
        return;
    g->fp.read = gen_stub(g, STUB_FP_READ, jump_unless_ready(g));
    g->fp.read->b = g->retired;
}

bool gen_fp_mode_exists(const struct insn *insn)
{
    return insn->rm <= RM_RMM || insn->rm == RM_DYNAMIC;
}

bool gen_fp_rounds(const struct insn *insn)
{
    return insn->rm < RM_RMM || insn->rm == RM_DYNAMIC;
}

void gen_fp_check_mode(struct gen *g, unsigned rm)
{
    if (rm == RM_DYNAMIC)
        return;
    emit_op_imm(&g->e, 0x80, 7, GEN_FIELD(hart.frm), (int32_t)rm, 1); /* cmp byte; never RMM while the unit is ready */
    gen_fp_redo(g, emit_jcc(&g->e, CC_NE));
}

void gen_fp_begin(struct gen *g, const struct insn *insn)
{
    gen_fp_ready(g);
    gen_fp_check_mode(g, insn->rm);
}

void gen_fp_redo(struct gen *g, uint8_t *site)
{
    if (g->fp.redo)
        gen_also(g, g->fp.redo, site);
    else
        g->fp.redo = gen_rarely(g, site);
}

/* --- copies ------------------------------------------------------------------------------------------------- */

void gen_fp_forget(struct gen *g)
{
    memset(g->fp.f, GEN_FP_NONE, sizeof(g->fp.f));
    g->fp.boxed = 0;
}

void gen_fp_reload(struct gen *g, const struct stub *stub)
{
    for (int i = 0; i < GEN_FP_REGS; i++)
        if (stub->fp[i] != GEN_FP_NONE)
            emit_op(&g->e, SSE_LOAD64, GEN_FP_FIRST + i, gen_fhome((unsigned)stub->fp[i]));
}

static int find(const struct gen *g, unsigned f)
{
    for (int i = 0; i < GEN_FP_REGS; i++)
        if (g->fp.f[i] == (int)f)
            return i;
    return GEN_FP_NONE;
}

/* An instruction touches four at most, so what it has touched is never the oldest. */
static int take_oldest(struct gen *g, unsigned f)
{
    int oldest = 0;

    for (int i = 0; i < GEN_FP_REGS; i++) {
        if (g->fp.f[i] == GEN_FP_NONE) {
            oldest = i;
            break;
        }
        if (g->fp.used[i] < g->fp.used[oldest])
            oldest = i;
    }
    g->fp.f[oldest] = (int8_t)f;
    return oldest;
}

int gen_fp_copy(const struct gen *g, unsigned f, bool single)
{
    int i = find(g, f);

    return i == GEN_FP_NONE || (g->fp.single[i] && !single) ? GEN_FP_NONE : GEN_FP_FIRST + i;
}

/* What was stored in two halves is loaded by halves too where that does: the host forwards a store to its like. */
static void load(struct gen *g, int i, unsigned f, bool single)
{
    emit_op(&g->e, single ? SSE_LOAD32 : SSE_LOAD64, GEN_FP_FIRST + i, gen_fhome(f));
    g->fp.single[i] = single;
}

/* Memory always holds it, so whatever was in that place may go; and f has one place only. */
void gen_fp_put(struct gen *g, int i, unsigned f, bool single)
{
    int other = find(g, f);

    if (other != GEN_FP_NONE)
        g->fp.f[other] = GEN_FP_NONE;
    g->fp.f[i] = (int8_t)f;
    g->fp.used[i] = ++g->fp.now;
    load(g, i, f, single);
}

/* A register that once failed this test may fail it again: its redo ends where `boxed` would say otherwise. */
static void check_box(struct gen *g, unsigned f)
{
    struct operand upper = gen_fhome(f);

    if (g->fp.boxed >> f & 1)
        return;
    upper.disp += 4;
    emit_alu_imm32(&g->e, ALU_CMP, upper, -1);
    gen_fp_redo(g, emit_jcc(&g->e, CC_NE));
}

int gen_fp_use(struct gen *g, unsigned f, bool single)
{
    int i = find(g, f);

    if (single)
        check_box(g, f);
    if (i == GEN_FP_NONE) {
        i = take_oldest(g, f);
        load(g, i, f, single);
    } else if (g->fp.single[i] && !single) {
        load(g, i, f, false);
    }
    g->fp.used[i] = ++g->fp.now;
    return GEN_FP_FIRST + i;
}

int gen_fp_dest(struct gen *g, unsigned f)
{
    int i = find(g, f);

    if (i == GEN_FP_NONE)
        i = take_oldest(g, f);
    g->fp.used[i] = ++g->fp.now;
    return GEN_FP_FIRST + i;
}

static void box_home(struct gen *g, unsigned f)
{
    struct operand upper = gen_fhome(f);

    if (g->fp.boxed >> f & 1)
        return;
    upper.disp += 4;
    emit_op_imm(&g->e, 0xc7, 0, upper, -1, 4); /* mov dword */
    g->fp.boxed |= UINT32_C(1) << f;
}

void gen_fp_done(struct gen *g, unsigned f, int xmm, bool single)
{
    emit_op(&g->e, single ? SSE_STORE32 : SSE_STORE64, xmm, gen_fhome(f));
    g->fp.single[xmm - GEN_FP_FIRST] = single;
    if (single)
        box_home(g, f);
    else
        g->fp.boxed &= ~(UINT32_C(1) << f);
}

void gen_fp_set_home(struct gen *g, unsigned f, int reg, bool single)
{
    int xmm = gen_fp_dest(g, f);

    emit_op(&g->e, (single ? 0 : X_W) | 0x89u, reg, gen_fhome(f));
    emit_op(&g->e, (single ? 0 : X_W) | SSE_FROM_GPR, xmm, op_reg(reg));
    g->fp.single[xmm - GEN_FP_FIRST] = single;
    if (single)
        box_home(g, f);
    else
        g->fp.boxed &= ~(UINT32_C(1) << f);
}

void gen_fp_check_nan(struct gen *g, int xmm, bool single)
{
    emit_op(&g->e, (single ? 0 : X_66) | X_0F | 0x2e, xmm, op_reg(xmm)); /* ucomis */
    gen_fp_redo(g, emit_jcc(&g->e, CC_P));
}
