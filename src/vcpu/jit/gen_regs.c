/* Guest registers: where they live, and what is known of their values.
 *
 * Between regions ten of them live in host registers, always the same (gen_pinned), and the others in struct hart. Code that
 * works on others more than on those, as ciphers and decoders do, exchanges some for the length of its region: on the
 * way in, on every way out, and around every call of C. */
#include "vcpu/jit/gen.h"

/* The ten that carry four fifths of all register traffic; the hottest survive calls into C. */
const int gen_pinned[32] = {
    HOST_NONE, R11,       RDI,       HOST_NONE, HOST_NONE, HOST_NONE, HOST_NONE, HOST_NONE, /* zero ra sp gp tp t0-t2 */
    RSI,       R10,       R14,       R9,        R8,        R13,       R12,       RBX,       /* s0 s1 a0-a5 */
    HOST_NONE, HOST_NONE, HOST_NONE, HOST_NONE, HOST_NONE, HOST_NONE, HOST_NONE, HOST_NONE,
    HOST_NONE, HOST_NONE, HOST_NONE, HOST_NONE, HOST_NONE, HOST_NONE, HOST_NONE, HOST_NONE,
};

void gen_load(struct gen *g, int reg, unsigned x)
{
    if (x == 0)
        emit_mov_imm(&g->e, reg, 0);
    else
        emit_mov(&g->e, reg, gen_is_kept(g, x) ? op_reg(RAX) : gen_loc(g, x));
}

int gen_use(struct gen *g, unsigned x, int temp)
{
    if (x != 0 && g->host_of[x] != HOST_NONE)
        return g->host_of[x];
    gen_load(g, temp, x);
    return temp;
}

void gen_done(struct gen *g, unsigned x, int reg)
{
    emit_store(&g->e, gen_loc(g, x), reg);
}

/* What was just stored is at hand for as long as nothing else is emitted: some hosts take eight cycles from a store to a
 * load of it. */
void gen_keep(struct gen *g, unsigned x)
{
    g->kept = x;
    g->kept_at = g->e.at;
}

bool gen_is_kept(const struct gen *g, unsigned x)
{
    return x != 0 && g->kept == x && g->kept_at == g->e.at && g->host_of[x] == HOST_NONE;
}

/* --- which instruction touches what ----------------------------------------------------------------------- */

/* Loads, fused operations, and of the rest all but comparisons, moves and conversions to x registers (the unprivileged
 * ISA's opcode map, and funct5 of OP-FP). */
bool gen_writes_f(const struct insn *insn)
{
    enum { LOAD_FP = 0x07, OP_FP = 0x53, MADD = 0x43, NMADD = 0x4f, COMPARE = 0x14, TO_INTEGER = 0x18, MOVE = 0x1c };
    uint32_t match = insn->op < OP_ENCODED ? decode_ops[insn->op].match : 0, opcode = match & 127, funct5 = match >> 27;

    if (opcode == OP_FP)
        return funct5 != COMPARE && funct5 != TO_INTEGER && funct5 != MOVE;
    return opcode == LOAD_FP || (opcode >= MADD && opcode <= NMADD);
}

static bool writes_rd(const struct insn *insn)
{
    if (insn->op >= OP_ENCODED || gen_writes_f(insn))
        return false;
    unsigned format = decode_ops[insn->op].format;

    return format != FMT_S && format != FMT_B && format != FMT_NONE;
}

bool gen_writes_x(const struct insn *insn, unsigned x)
{
    return writes_rd(insn) && insn->rd == x;
}

unsigned gen_reads(const struct insn *insn, unsigned x[2])
{
    if (insn->op >= OP_ENCODED)
        return 0;
    x[0] = insn->rs1;
    x[1] = insn->rs2;
    switch (decode_ops[insn->op].format) {
    case FMT_R:
    case FMT_S:
    case FMT_B: return 2;
    case FMT_I:
    case FMT_SH5:
    case FMT_SH6: return 1;
    default: return 0;
    }
}

static bool is_plain(const struct insn *insn)
{
    return insn->op < OP_ENCODED && decode_ops[insn->op].kind <= KIND_JUMP;
}

/* --- sign-extended words ---------------------------------------------------------------------------------- */

/* Its low 32 bits of operands give a result that is sign-extended from 32 bits. */
static bool is_word_op(enum op op)
{
    switch (op) {
    case OP_addw:
    case OP_subw:
    case OP_addiw:
    case OP_mulw:
    case OP_sllw:
    case OP_srlw:
    case OP_sraw:
    case OP_slliw:
    case OP_srliw:
    case OP_sraiw: return true;
    default: return false;
    }
}

static bool makes_word(const struct insn *insn)
{
    switch (insn->op) {
    case OP_lb:
    case OP_lbu:
    case OP_lh:
    case OP_lhu:
    case OP_lw:
    case OP_slt:
    case OP_sltu:
    case OP_slti:
    case OP_sltiu:
    case OP_lui: return true;
    case OP_andi: return insn->imm >= 0;
    case OP_addi: return insn->rs1 == 0;
    default: return is_word_op(insn->op);
    }
}

bool gen_is_word(const struct gen *g, unsigned x)
{
    return x == 0 || g->words >> x & 1;
}

void gen_note_written(struct gen *g, const struct insn *insn)
{
    if (!writes_rd(insn))
        return;
    g->words &= ~(UINT32_C(1) << insn->rd);
    if (makes_word(insn) && !g->unseen[g->at])
        g->words |= UINT32_C(1) << insn->rd;
}

/* The upper half of what `insn` computes depends on the upper halves of its operands, the lower half does not. */
static bool keeps_halves_apart(const struct insn *insn)
{
    switch (insn->op) {
    case OP_add:
    case OP_sub:
    case OP_and:
    case OP_or:
    case OP_xor:
    case OP_mul:
    case OP_addi:
    case OP_andi:
    case OP_ori:
    case OP_xori:
    case OP_slli: return true;
    default: return false;
    }
}

/* From the end backwards: `wanted` are the registers whose upper halves somebody may look at later. Only arithmetic is
 * certain to get to what follows; all else, and whoever comes by a label, may look at everything. */
void gen_find_unseen(struct gen *g)
{
    uint32_t wanted = UINT32_MAX;

    for (unsigned i = g->count; i-- > 0;) {
        const struct insn *insn = &g->insn[i];
        unsigned x[2], count = gen_reads(insn, x);
        bool plain = insn->op < OP_ENCODED && decode_ops[insn->op].kind == KIND_ALU;

        g->unseen[i] = plain && !(wanted >> insn->rd & 1);
        if (plain) {
            bool halves = is_word_op(insn->op) || (keeps_halves_apart(insn) && g->unseen[i]);

            wanted &= ~(UINT32_C(1) << insn->rd);
            for (unsigned k = 0; k < count && !halves; k++)
                wanted |= UINT32_C(1) << x[k];
        }
        if (!plain || g->target[i])
            wanted = UINT32_MAX;
    }
}

/* --- a region's own choice -------------------------------------------------------------------------------- */

enum { WEIGHT = 64, WEIGHT_MAX = 1 << 20, LOOP = 8, GAIN_MIN = 8 * WEIGHT };

/* What WEIGHT_MAX allows, three times for each instruction, is still a number of 32 bits. */
_Static_assert((uint64_t)WEIGHT_MAX *LOOP * 3 * GEN_INSNS_MAX + GAIN_MIN <= UINT32_MAX, "weights must not wrap");

/* How often each instruction may run when the region is entered once, as far as its shape tells. */
static void guess_runs(const struct gen *g, unsigned runs[GEN_INSNS_MAX])
{
    unsigned now = WEIGHT;

    for (unsigned i = 0; i < g->count; i++) {
        runs[i] = now;
        if (is_plain(&g->insn[i]) && decode_ops[g->insn[i].op].kind == KIND_BRANCH)
            now -= now / 8;
    }
    for (unsigned i = 0; i < g->count; i++) {
        int label = gen_leads(g, i);

        for (unsigned k = label >= 0 ? (unsigned)label : i + 1; k <= i; k++)
            if (runs[k] < WEIGHT_MAX)
                runs[k] *= LOOP;
    }
}

static void weigh(const struct gen *g, unsigned weight[32])
{
    unsigned runs[GEN_INSNS_MAX];

    guess_runs(g, runs);
    for (unsigned x = 0; x < 32; x++)
        weight[x] = 0;
    for (unsigned i = 0; i < g->count; i++) {
        const struct insn *insn = &g->insn[i];
        unsigned x[2], count = is_plain(insn) ? gen_reads(insn, x) : 0;

        for (unsigned k = 0; k < count; k++)
            weight[x[k]] += runs[i];
        if (is_plain(insn) && writes_rd(insn))
            weight[insn->rd] += runs[i];
    }
}

void gen_choose_registers(struct gen *g)
{
    unsigned weight[32];

    weigh(g, weight);
    for (;;) {
        unsigned in = 0, out = 0;

        for (unsigned x = 1; x < 32; x++) {
            if (g->host_of[x] == HOST_NONE && (!in || weight[x] > weight[in]))
                in = x;
            if (g->host_of[x] != HOST_NONE && gen_pinned[x] != HOST_NONE && (!out || weight[x] < weight[out]))
                out = x;
        }
        if (!in || !out || weight[in] < weight[out] + GAIN_MIN)
            return;
        g->exchange[g->exchanges++] = (struct gen_exchange){ .host = g->host_of[out], .common = out, .own = in };
        g->host_of[in] = g->host_of[out];
        g->host_of[out] = HOST_NONE;
    }
}

void gen_common_registers(struct gen *g)
{
    for (unsigned x = 0; x < 32; x++)
        g->host_of[x] = gen_pinned[x];
    g->exchanges = 0;
}

void gen_to_own(struct gen *g)
{
    for (unsigned i = 0; i < g->exchanges; i++) {
        emit_store(&g->e, gen_home(g->exchange[i].common), g->exchange[i].host);
        emit_mov(&g->e, g->exchange[i].host, gen_home(g->exchange[i].own));
    }
}

void gen_to_common(struct gen *g)
{
    for (unsigned i = 0; i < g->exchanges; i++) {
        emit_store(&g->e, gen_home(g->exchange[i].own), g->exchange[i].host);
        emit_mov(&g->e, g->exchange[i].host, gen_home(g->exchange[i].common));
    }
}
