/* The walk over a region: entries, instructions, out-of-line pieces. */
#include "vcpu/jit/gen.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <assert.h>
#include <string.h>

struct gen_features gen_features;

#if defined(__x86_64__)
/* Not every compiler's __builtin_cpu_supports() knows its name. */
static bool has_lzcnt(void)
{
    unsigned a, b, c, d;

    return __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & bit_LZCNT);
}
#endif

void gen_find_features(void)
{
#if defined(__x86_64__)
    gen_features = (struct gen_features){
        .bmi2 = __builtin_cpu_supports("bmi2"),
        .bmi = __builtin_cpu_supports("bmi"),
        .lzcnt = has_lzcnt(),
        .popcnt = __builtin_cpu_supports("popcnt"),
        .fma = __builtin_cpu_supports("fma"),
        .sse41 = __builtin_cpu_supports("sse4.1"),
    };
#endif
}

/* --- registers ------------------------------------------------------------------------------------------- */

void gen_page_va(struct gen *g, int reg)
{
    emit_mov(&g->e, reg, GEN_FIELD(page_va));
}

/* --- counting -------------------------------------------------------------------------------------------- */

static const uint8_t *count_of(const struct gen *g, unsigned instructions)
{
    assert(instructions < CODE_COUNTS);
    return g->code->counts + 16 * (size_t)instructions;
}

void gen_add_count(struct gen *g, unsigned instructions)
{
    if (instructions) /* paddq */
        emit_rip(&g->e, X_66 | X_0F | 0xd4, GEN_COUNT, count_of(g, instructions));
}

void gen_lea_count(struct gen *g, int reg, unsigned instructions)
{
    emit_rip(&g->e, X_W | 0x8d, reg, count_of(g, instructions));
}

void gen_flush_count(struct gen *g)
{
    gen_add_count(g, g->retired);
    g->retired = 0;
}

/* --- leaving --------------------------------------------------------------------------------------------- */

struct stub *gen_stub(struct gen *g, enum stub_kind kind, uint8_t *site)
{
    assert(g->stubs < GEN_STUBS_MAX);
    struct stub *stub = &g->stub[g->stubs++];

    /* Any other way out is behind gen_lazy_before(). */
    assert(!g->lazies || kind == STUB_ACCESS || kind == STUB_NEAR || kind == STUB_RUN);
    *stub = (struct stub){ .kind = kind, .site = site, .at = g->at, .lazies = g->lazies };
    memcpy(stub->lazy, g->lazy, g->lazies);
    gen_back(g, stub);
    return stub;
}

struct stub *gen_rarely(struct gen *g, uint8_t *site)
{
    struct stub *stub = gen_stub(g, STUB_INTERP, site);

    stub->b = g->retired + 1;
    return stub;
}

void gen_also(struct gen *g, struct stub *stub, uint8_t *site)
{
    int32_t before = (int32_t)(site - stub->site);

    if (!g->e.full)
        memcpy(site, &before, 4);
    stub->site = site;
}

void gen_back(struct gen *g, struct stub *stub)
{
    stub->back = g->e.at;
    g->kept_at = NULL; /* who comes back has other things in RAX */
    memcpy(stub->fp, g->fp.f, sizeof(stub->fp));
}

/* Jumps that wait for the same place hang in a chain through their displacements; the first one's is 0. */
static void bind_chain(const struct emit *e, uint8_t *site)
{
    while (site && !e->full) {
        int32_t before;

        memcpy(&before, site, 4);
        emit_bind(e, site, e->at);
        site = before ? site - before : NULL;
    }
}

void gen_leave_check(struct gen *g, int64_t page_off, unsigned retired)
{
    emit_op_imm(&g->e, 0x80, 7, GEN_FIELD(exit_request), 0, 1); /* cmp byte, 0 */
    struct stub *stub = gen_stub(g, STUB_LEAVE, emit_jcc(&g->e, CC_NE));
    stub->a = (uint32_t)page_off;
    stub->b = retired;
}

void gen_jump_far(struct gen *g)
{
    struct emit *e = &g->e;
    int32_t table = (int32_t)offsetof(struct tlb, jump);

    gen_to_common(g);
    emit_mov32(e, RCX, op_reg(RAX)); /* tlb_jump_index() * 2 */
    emit_shift_imm32(e, SHIFT_SHR, RCX, TLB_PAGE_SHIFT - 1);
    emit_alu32(e, ALU_XOR, RCX, op_reg(RAX));
    emit_alu_imm32(e, ALU_AND, op_reg(RCX), 2 * (TLB_JUMP_ENTRIES - 1));
    emit_alu(e, ALU_CMP, RAX, op_index(GEN_TLB, RCX, 3, table));
    emit_jcc_to(e, CC_NE, g->code->thunks.exit_far);
    emit_op(e, 0xff, 4, op_index(GEN_TLB, RCX, 3, table + (int32_t)offsetof(struct tlb_jump, code)));
}

void gen_link(struct gen *g, int64_t page_off)
{
    struct emit *e = &g->e;

    if (page_off < 0 || page_off >= PAGE_BYTES) {
        gen_page_va(g, RAX);
        emit_alu_imm(e, ALU_ADD, op_reg(RAX), (int32_t)page_off);
        gen_jump_far(g);
        return;
    }
    gen_to_common(g);
    while (((uintptr_t)e->at + 1) % 4 && !e->full) /* the displacement is patched by one aligned store */
        emit_nop(e, 4 - (unsigned)(((uintptr_t)e->at + 1) % 4));
    uint8_t *site = emit_jmp(e); /* to the next instruction, for now */
    emit_rip(e, X_W | 0x8d, RAX, site);
    emit_mov_imm(e, RCX, page_off);
    emit_jmp_to(e, g->code->thunks.exit_link);
}

/* --- the interpreter's instructions ---------------------------------------------------------------------- */

void gen_call_interp(struct gen *g, unsigned index)
{
    assert(g->uops < GEN_STUBS_MAX);
    gen_to_common(g);
    emit_rip(&g->e, X_W | 0x8d, RDX, g->e.at);
    g->uop[g->uops].site = g->e.at - 4;
    g->uop[g->uops++].index = index;
    emit_call_to(&g->e, g->code->thunks.interp);
    gen_to_own(g);
    gen_fp_forget(g);
}

void gen_interp(struct gen *g)
{
    g->retired++;
    gen_flush_count(g);
    gen_call_interp(g, g->at);
    g->fp_ready = false;
}

static void fill_uop(struct gen *g, unsigned index, struct uop uop[2])
{
    const struct insn *insn = &g->insn[index];

    uop[0] = (struct uop){ .fn = engine_handlers[insn->op],
                           .off = g->off[index],
                           .length = insn->length,
                           .left = 1,
                           .raw = insn->raw,
                           .rd = insn->rd,
                           .rs1 = insn->rs1,
                           .rs2 = insn->rs2,
                           .rs3 = insn->rs3,
                           .imm = insn->imm };
    if (insn->op < OP_ENCODED && decode_ops[insn->op].kind == KIND_LOAD && insn->rd == 0) {
        uop[0].rs3 = (uint8_t)(1u << (insn->rm & 3));
        uop[0].fn = engine_handlers[OP_PSEUDO_load_x0];
    }
    uop[1] = (struct uop){ .fn = engine_handlers[OP_PSEUDO_jit_return] };
}

static void place_uops(struct gen *g)
{
    while ((uintptr_t)g->e.at % sizeof(struct uop) && !g->e.full)
        emit_u8(&g->e, 0xcc);
    for (unsigned i = 0; i < g->uops; i++) {
        struct uop uop[2];

        fill_uop(g, g->uop[i].index, uop);
        emit_bind(&g->e, g->uop[i].site, g->e.at);
        if (g->e.end - g->e.at < (ptrdiff_t)sizeof(uop))
            g->e.full = true;
        if (g->e.full)
            return;
        memcpy(g->e.at, uop, sizeof(uop));
        g->e.at += sizeof(uop);
    }
}

/* --- decoding -------------------------------------------------------------------------------------------- */

static uint32_t load_half(const uint8_t *host)
{
    return __atomic_load_n((const uint16_t *)(const void *)host, __ATOMIC_RELAXED); /* harts may be writing it */
}

static enum op_kind kind_of(const struct insn *insn)
{
    return insn->op < OP_ENCODED ? (enum op_kind)decode_ops[insn->op].kind : KIND_END;
}

static bool leads(const struct gen *g, unsigned i, int64_t *target)
{
    if (kind_of(&g->insn[i]) != KIND_BRANCH && (g->insn[i].op != OP_jal || g->insn[i].rd != 0))
        return false;
    *target = g->off[i] + g->insn[i].imm;
    return true;
}

int gen_leads(const struct gen *g, unsigned i)
{
    int64_t target;

    return leads(g, i, &target) ? gen_label_of(g, target) : -1;
}

static bool is_target(const struct gen *g, unsigned off)
{
    int64_t target;

    for (unsigned i = 0; i < g->count; i++)
        if (leads(g, i, &target) && target == off)
            return true;
    return false;
}

int gen_label_of(const struct gen *g, int64_t page_off)
{
    for (unsigned i = 0; i < g->count; i++)
        if (g->off[i] == page_off)
            return (int)i;
    return -1;
}

bool gen_decode(struct gen *g, const uint8_t *host, unsigned page_off)
{
    unsigned off = page_off;
    bool ended = false;

    g->count = 0;
    g->page_off = page_off;
    while (g->count < GEN_INSNS_MAX && PAGE_BYTES - off >= 2) {
        uint32_t raw = load_half(host + (off - page_off));

        if (insn_is_long((uint16_t)raw)) {
            if (PAGE_BYTES - off < 4)
                break;
            raw |= load_half(host + (off - page_off) + 2) << 16;
        }
        g->insn[g->count] = decode(raw);
        g->off[g->count] = (uint16_t)off;
        off += g->insn[g->count].length;
        enum op_kind kind = kind_of(&g->insn[g->count++]);
        ended = kind == KIND_JUMP || kind == KIND_END;
        /* Behind a jump the region goes on only where one of its own branches leads. */
        if (ended && !is_target(g, off))
            break;
    }
    g->off[g->count] = (uint16_t)off;
    g->bytes = off - page_off;
    g->falls_off = !ended;
    for (unsigned i = 0; i < g->count; i++) {
        g->target[i] = false;
        g->label[i] = g->forward[i] = NULL;
    }
    for (unsigned i = 0; i < g->count; i++) {
        int label = gen_leads(g, i);

        if (label >= 0)
            g->target[label] = true;
    }
    return g->count > 0;
}

/* --- generating ------------------------------------------------------------------------------------------ */

static bool one(struct gen *g, const struct insn *insn)
{
    switch (kind_of(insn)) {
    case KIND_ALU: return insn->rd == 0 || gen_int(g, insn) || gen_bits(g, insn);
    case KIND_LOAD:
    case KIND_STORE: return gen_mem(g, insn);
    case KIND_BRANCH:
    case KIND_JUMP: return gen_flow(g, insn);
    case KIND_OTHER: return gen_fp(g, insn) || (!g->lockstep && (gen_atomic(g, insn) || gen_system(g, insn)));
    case KIND_END: break;
    }
    return false;
}

static void single(struct gen *g)
{
    const struct insn *insn = &g->insn[g->at];

    gen_lazy_before(g, insn);
    if (gen_lazy(g, insn)) {
        g->retired++;
        gen_note_written(g, insn);
        return;
    }
    if (!one(g, insn)) {
        gen_lazy_all(g);
        gen_interp(g);
    } else if (kind_of(insn) != KIND_BRANCH && kind_of(insn) != KIND_JUMP) /* those count themselves */
        g->retired++;
    gen_lazy_written(g, insn);
    gen_note_written(g, insn);
}

static void run(struct gen *g, unsigned end)
{
    struct stub *stub = &g->stub[g->stubs - 1]; /* gen_run's own */

    stub->a = end;
    stub->b = g->retired;
    g->in_run = true;
    for (; g->at < end; g->at++)
        single(g);
    g->in_run = false;
    g->at--;
    g->kept_at = NULL;
    stub->back = g->e.at;
}

static void instruction(struct gen *g);

static void skip(struct gen *g)
{
    unsigned end = g->at + 1 + g->skip[g->at];
    struct gen_skip over;

    gen_skip_begin(g, &over);
    for (g->at++; g->at < end; g->at++)
        instruction(g);
    g->at--;
    gen_skip_end(g, &over);
}

static void instruction(struct gen *g)
{
    unsigned length;

    gen_lazy_before(g, &g->insn[g->at]);
    if (g->skip[g->at]) {
        skip(g);
    } else if (g->at + 1 < g->count && !g->target[g->at + 1] && gen_pair(g, &g->insn[g->at], &g->insn[g->at + 1])) {
        g->retired += 2;
        gen_lazy_written(g, &g->insn[g->at]);
        g->words &= ~(UINT32_C(1) << g->insn[g->at].rd);
        g->at++;
    } else if ((length = gen_run(g)) > 0) {
        run(g, g->at + length);
    } else {
        single(g);
    }
}

static void place_label(struct gen *g)
{
    gen_lazy_all(g);
    gen_flush_count(g);
    g->fp_ready = false;
    g->words = 0;
    g->kept_at = NULL;
    gen_fp_settle(g, g->at);
    gen_fp_arrive(g, g->at);
    g->label[g->at] = g->e.at;
    bind_chain(&g->e, g->forward[g->at]);
}

static void entries(struct gen *g)
{
    struct emit *e = &g->e;

    while ((uintptr_t)e->at % 16 && !e->full)
        emit_u8(e, 0xcc);
    g->far_entry = e->at;
    emit_alu_imm(e, ALU_AND, op_reg(RAX), -PAGE_BYTES);
    emit_store(e, GEN_FIELD(page_va), RAX);
    gen_leave_check(g, g->page_off, 0);
    while ((uintptr_t)e->at % 8 && !e->full)
        emit_nop(e, 8 - (unsigned)((uintptr_t)e->at % 8));
    g->near_entry = e->at;
    emit_nop(e, 5); /* becomes a jump when the region dies; see code_patch_head */
    gen_choose_registers(g);
    gen_to_own(g);
}

static void call_and_go_back(struct gen *g, const struct stub *stub, const uint8_t *thunk)
{
    gen_to_common(g);
    emit_call_to(&g->e, thunk);
    gen_to_own(g);
    gen_fp_reload(g, stub);
    emit_jmp_to(&g->e, stub->back);
}

static void stub_access(struct gen *g, const struct stub *stub)
{
    struct emit *e = &g->e;
    int reg = stub->reg;

    if (stub->lazies) { /* RAX is what shifts may use */
        if (reg == RAX) {
            reg = RCX;
            emit_mov(e, RCX, op_reg(RAX));
        }
        gen_lazy_in_stub(g, stub);
        gen_lazy_all(g);
    }
    emit_mov(e, RAX, op_reg(reg));
    emit_mov_imm(e, RDX, stub->a);
    call_and_go_back(g, stub, g->code->thunks.access);
}

/* One by one, each with its own check. The straight path's copies of f registers are what they were. */
static void stub_run(struct gen *g, const struct stub *stub)
{
    memcpy(g->fp.f, stub->fp, sizeof(stub->fp));
    g->words = 0;
    g->retired = stub->b;
    gen_lazy_in_stub(g, stub);
    for (g->at = stub->at; g->at < stub->a; g->at++)
        single(g);
    g->retired = 0;
    g->lazies = 0;
    emit_jmp_to(&g->e, stub->back);
}

static void stub_interp(struct gen *g, const struct stub *stub, uint8_t *back)
{
    gen_add_count(g, stub->b);
    gen_call_interp(g, stub->at);
    emit_rip(&g->e, X_66 | X_0F | 0xfb, GEN_COUNT, count_of(g, stub->b)); /* psubq: `back` counts later */
    gen_fp_reload(g, stub);
    emit_jmp_to(&g->e, back);
}

static void stub_fp(struct gen *g, const struct stub *stub)
{
    struct emit *e = &g->e;

    emit_mov_imm(e, RCX, g->off[stub->at]);
    emit_mov_imm(e, RDX, stub->b);
    call_and_go_back(g, stub, g->code->thunks.fp);
}

/* What only looks at f registers leaves FS as it is: only when it says dirty already, readiness changes nothing. */
static void stub_fp_read(struct gen *g, const struct stub *stub)
{
    struct emit *e = &g->e;

    emit_mov32(e, RCX, GEN_FIELD(hart.mstatus));
    emit_alu_imm32(e, ALU_AND, op_reg(RCX), (int32_t)MSTATUS_FS);
    emit_alu_imm32(e, ALU_CMP, op_reg(RCX), (int32_t)MSTATUS_FS);
    uint8_t *other = emit_jcc(e, CC_NE);
    stub_fp(g, stub);
    emit_bind(e, other, e->at);
    struct stub itself = *stub;
    itself.b++;
    stub_interp(g, &itself, stub->end);
}

static void place_stub(struct gen *g, const struct stub *stub)
{
    struct emit *e = &g->e;

    g->at = stub->at;
    bind_chain(e, stub->site);
    switch (stub->kind) {
    case STUB_NEAR:
        gen_near(g, stub);
        stub_access(g, stub);
        break;
    case STUB_ACCESS: stub_access(g, stub); break;
    case STUB_RUN: stub_run(g, stub); break;
    case STUB_SIDE:
        gen_add_count(g, stub->b);
        if ((int32_t)stub->a <= g->off[stub->at] && (int32_t)stub->a >= 0)
            gen_leave_check(g, (int32_t)stub->a, 0);
        gen_link(g, (int32_t)stub->a);
        break;
    case STUB_LEAVE:
        gen_add_count(g, stub->b);
        emit_mov_imm(e, RCX, (int32_t)stub->a);
        gen_to_common(g);
        emit_jmp_to(e, g->code->thunks.exit_at);
        break;
    case STUB_FP: stub_fp(g, stub); break;
    case STUB_FP_READ: stub_fp_read(g, stub); break;
    case STUB_INTERP: stub_interp(g, stub, stub->back); break;
    }
}

bool gen_region(struct gen *g)
{
    g->stubs = g->uops = g->retired = 0;
    g->at = 0;
    g->fp_ready = g->in_run = g->in_skip = false;
    g->lazies = 0;
    g->words = 0;
    g->kept_at = NULL;
    gen_find_unseen(g);
    gen_find_skips(g);
    gen_choose_near(g);
    gen_fp_choose_loops(g);
    gen_fp_forget(g);
    gen_common_registers(g);
    entries(g);
    for (g->at = 0; g->at < g->count; g->at++) {
        if (g->target[g->at] && !g->bridged[g->at])
            place_label(g);
        instruction(g);
    }
    g->at = g->count - 1;
    if (g->falls_off) {
        gen_lazy_all(g);
        gen_flush_count(g);
        gen_link(g, g->off[g->count]);
    }
    for (unsigned i = 1; i < g->stubs; i++) {
        struct stub stub = g->stub[i];

        place_stub(g, &stub);
    }
    gen_common_registers(g); /* the entry's own stub is left from in front of the exchange */
    g->leave = g->e.at;
    place_stub(g, &g->stub[0]);
    place_uops(g);
    return !g->e.full;
}
