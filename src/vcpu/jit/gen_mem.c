/* Loads and stores: the inline hit in the software TLB, and the way out when it misses (memory/tlb.h).
 *
 * The compare is with the page of the access's last byte in the slot of its first one, so an access that leaves its
 * page misses, and one that is merely misaligned hits. */
#include "vcpu/jit/gen.h"

/* --- near slots ------------------------------------------------------------------------------------------- */

/* Registers that point to the same page for long have a slot of their own: no index to compute. Some always do; in a loop
 * it is those that it leaves alone or steps through memory with. */
enum { NEAR_FIXED = 4, STEP_MAX = 512 };

static int fixed_slot(unsigned base)
{
    switch (base) {
    case 2: return 0; /* sp */
    case 8: return 1; /* s0 */
    case 3: return 2; /* gp */
    case 4: return 3; /* tp */
    default: return GEN_NEAR_NONE;
    }
}

static bool is_memory(const struct insn *insn)
{
    if (insn->op == OP_flw || insn->op == OP_fld || insn->op == OP_fsw || insn->op == OP_fsd)
        return true;
    return insn->op < OP_ENCODED && (decode_ops[insn->op].kind == KIND_LOAD || decode_ops[insn->op].kind == KIND_STORE);
}

/* The smallest loop of the region around instruction i: from *first on; *last < *first when there is none. */
static void find_loop(const struct gen *g, unsigned i, unsigned *first, unsigned *last)
{
    *first = 1;
    *last = 0;
    for (unsigned k = i; k < g->count; k++) {
        int label = gen_leads(g, k);

        if (label >= 0 && (unsigned)label <= i && (*last < *first || k - (unsigned)label < *last - *first)) {
            *first = (unsigned)label;
            *last = k;
        }
    }
}

static bool stays_near(const struct gen *g, unsigned base, unsigned first, unsigned last)
{
    for (unsigned i = first; i <= last; i++) {
        const struct insn *insn = &g->insn[i];
        bool step = insn->op == OP_addi && insn->rs1 == base && insn->imm >= -STEP_MAX && insn->imm <= STEP_MAX;

        if (gen_writes_x(insn, base) && !step)
            return false;
    }
    return first <= last;
}

void gen_choose_near(struct gen *g)
{
    int next = NEAR_FIXED;

    for (unsigned x = 0; x < 32; x++)
        g->near[x] = fixed_slot(x);
    for (unsigned i = 0; i < g->count && next < TLB_NEAR; i++) {
        unsigned base = g->insn[i].rs1, first, last;

        if (!is_memory(&g->insn[i]) || base == 0 || g->near[base] != GEN_NEAR_NONE)
            continue;
        find_loop(g, i, &first, &last);
        if (stays_near(g, base, first, last))
            g->near[base] = next++;
    }
}

/* --- one access ------------------------------------------------------------------------------------------- */

uint32_t gen_access(const struct gen *g, unsigned size, bool is_signed, bool store, bool fp, unsigned reg)
{
    return g->off[g->at] | g->retired << ACCESS_RETIRED | size << ACCESS_SIZE | (uint32_t)is_signed << ACCESS_SIGNED |
           (uint32_t)store << ACCESS_STORE | (uint32_t)fp << ACCESS_FP | reg << ACCESS_REG;
}

/* The virtual address in a register: the base's own, or RAX. */
static int address(struct gen *g, unsigned base, int64_t imm)
{
    struct emit *e = &g->e;

    if (base == 0) {
        emit_mov_imm(e, RAX, imm);
        return RAX;
    }
    if (g->host_of[base] != HOST_NONE) {
        if (imm == 0)
            return g->host_of[base];
        emit_lea(e, RAX, op_mem(g->host_of[base], (int32_t)imm));
        return RAX;
    }
    gen_load(g, RAX, base);
    if (imm)
        emit_alu_imm(e, ALU_ADD, op_reg(RAX), (int32_t)imm);
    return RAX;
}

/* Compares the page of the last byte with the entry for the first one, whose offset in the table is then in RCX. */
static void look_up(struct gen *g, int va, int32_t bytes, int32_t table)
{
    struct emit *e = &g->e;

    emit_mov32(e, RCX, op_reg(va));
    emit_shift_imm32(e, SHIFT_SHR, RCX, TLB_PAGE_SHIFT - 4);
    emit_alu_imm32(e, ALU_AND, op_reg(RCX), (TLB_ENTRIES - 1) << 4);
    if (bytes > 1)
        emit_lea(e, RDX, op_mem(va, bytes - 1));
    else
        emit_mov(e, RDX, op_reg(va));
    emit_alu_imm(e, ALU_AND, op_reg(RDX), -PAGE_BYTES);
    emit_alu(e, ALU_CMP, RDX, op_index(GEN_TLB, RCX, 0, table));
}

static struct operand reach_array(struct gen *g, int va, unsigned bytes, bool store, uint32_t access,
                                  struct stub **stub)
{
    struct emit *e = &g->e;
    int32_t table = (int32_t)(store ? offsetof(struct tlb, write) : offsetof(struct tlb, read));

    look_up(g, va, (int32_t)bytes, table);
    *stub = gen_stub(g, STUB_ACCESS, emit_jcc(e, CC_NE));
    (*stub)->a = access;
    (*stub)->reg = va;
    emit_mov(e, RDX, op_index(GEN_TLB, RCX, 0, table + (int32_t)offsetof(struct tlb_entry, addend)));
    return op_index(va, RDX, 0, 0);
}

/* A near slot holds one page, and says nothing of where a misaligned access ends: that one asks the array. */
static struct operand reach_near(struct gen *g, int va, unsigned slot, unsigned bytes, bool store, uint32_t access,
                                 struct stub **stub)
{
    struct emit *e = &g->e;
    int32_t table = (int32_t)(store ? offsetof(struct tlb, near_write) : offsetof(struct tlb, near_read));
    int32_t at = table + (int32_t)(slot * sizeof(struct tlb_entry));

    emit_mov(e, RDX, op_reg(va));
    emit_alu_imm(e, ALU_AND, op_reg(RDX), (int32_t)(bytes - 1) - PAGE_BYTES);
    emit_alu(e, ALU_CMP, RDX, op_mem(GEN_TLB, at));
    *stub = gen_stub(g, STUB_NEAR, emit_jcc(e, CC_NE));
    (*stub)->a = access;
    (*stub)->b = slot;
    (*stub)->reg = va;
    emit_mov(e, RDX, op_mem(GEN_TLB, at + (int32_t)offsetof(struct tlb_entry, addend)));
    (*stub)->hit = e->at;
    return op_index(va, RDX, 0, 0);
}

/* Out of line: does the array have it? Then the slot gets it. */
void gen_near(struct gen *g, const struct stub *stub)
{
    struct emit *e = &g->e;
    bool store = stub->a >> ACCESS_STORE & 1;
    int32_t table = (int32_t)(store ? offsetof(struct tlb, write) : offsetof(struct tlb, read));
    int32_t near = (int32_t)(store ? offsetof(struct tlb, near_write) : offsetof(struct tlb, near_read)) +
                   (int32_t)(stub->b * sizeof(struct tlb_entry));
    int32_t addend = (int32_t)offsetof(struct tlb_entry, addend), bytes = 1 << (stub->a >> ACCESS_SIZE & 3);

    look_up(g, stub->reg, bytes, table);
    uint8_t *miss = emit_jcc_short(e, CC_NE);
    emit_store(e, op_mem(GEN_TLB, near), RDX);
    emit_mov(e, RDX, op_index(GEN_TLB, RCX, 0, table + addend));
    emit_store(e, op_mem(GEN_TLB, near + addend), RDX);
    emit_jmp_to(e, stub->hit);
    emit_bind_short(e, miss);
}

struct operand gen_reach(struct gen *g, const struct insn *insn, unsigned bytes, bool store, uint32_t access,
                         struct stub **stub)
{
    if (g->in_run) {
        *stub = NULL;
        return op_index(gen_use(g, insn->rs1, RAX), RDX, 0, (int32_t)insn->imm);
    }
    int va = address(g, insn->rs1, insn->imm), slot = g->near[insn->rs1];

    return slot == GEN_NEAR_NONE ? reach_array(g, va, bytes, store, access, stub)
                                 : reach_near(g, va, (unsigned)slot, bytes, store, access, stub);
}

static void load(struct gen *g, const struct insn *insn, unsigned size, bool is_signed, unsigned opcode)
{
    struct stub *stub;
    int d = gen_dest(g, insn->rd, RAX);
    struct operand host =
        gen_reach(g, insn, 1u << size, false, gen_access(g, size, is_signed, false, false, insn->rd), &stub);

    emit_op(&g->e, opcode, d, host);
    gen_done(g, insn->rd, d);
    if (stub)
        gen_back(g, stub);
}

static void store(struct gen *g, const struct insn *insn, unsigned size, unsigned opcode)
{
    struct stub *stub;
    struct operand host =
        gen_reach(g, insn, 1u << size, true, gen_access(g, size, false, true, false, insn->rs2), &stub);

    emit_op(&g->e, opcode, gen_use(g, insn->rs2, RCX), host);
    if (stub)
        gen_back(g, stub);
}

bool gen_mem(struct gen *g, const struct insn *insn)
{
    if (decode_ops[insn->op].kind == KIND_LOAD && insn->rd == 0)
        return false;
    switch (insn->op) {
    case OP_lb: load(g, insn, 0, true, X_W | X_0F | 0xbe); return true;
    case OP_lbu: load(g, insn, 0, false, X_0F | 0xb6); return true;
    case OP_lh: load(g, insn, 1, true, X_W | X_0F | 0xbf); return true;
    case OP_lhu: load(g, insn, 1, false, X_0F | 0xb7); return true;
    case OP_lw: load(g, insn, 2, true, X_W | 0x63); return true;
    case OP_lwu: load(g, insn, 2, false, 0x8b); return true;
    case OP_ld: load(g, insn, 3, false, X_W | 0x8b); return true;
    case OP_sb: store(g, insn, 0, X_BYTE_REG | 0x88); return true;
    case OP_sh: store(g, insn, 1, X_66 | 0x89); return true;
    case OP_sw: store(g, insn, 2, 0x89); return true;
    case OP_sd: store(g, insn, 3, X_W | 0x89); return true;
    default: return false;
    }
}

/* --- runs ------------------------------------------------------------------------------------------------ */

/* Accesses off one base that does not change in between lie in one page more often than not: then one check is enough
 * for all of them. A run that begins with a load has only loads, since the page may be one that cannot be written. */
struct run {
    unsigned base, length, accesses;
    int64_t first, last; /* bytes, relative to the base */
    bool store;
};

bool gen_keeps_rdx(const struct insn *insn)
{
    switch (insn->op) {
    case OP_lui:
    case OP_auipc:
    case OP_addi:
    case OP_addiw:
    case OP_andi:
    case OP_ori:
    case OP_xori:
    case OP_slli:
    case OP_srli:
    case OP_srai:
    case OP_add:
    case OP_sub:
    case OP_and:
    case OP_or:
    case OP_xor:
    case OP_addw:
    case OP_subw:
    case OP_slliw:
    case OP_srliw:
    case OP_sraiw: return true;
    default: return false;
    }
}

static bool is_access(const struct insn *insn, bool *store, unsigned *bytes)
{
    switch (insn->op) {
    case OP_sb:
    case OP_sh:
    case OP_sw:
    case OP_sd: *store = true; break;
    case OP_lb:
    case OP_lh:
    case OP_lw:
    case OP_ld:
    case OP_lbu:
    case OP_lhu:
    case OP_lwu: *store = false; break;
    default: return false;
    }
    *bytes = 1u << (insn->rm & 3); /* funct3 says so */
    return *store || insn->rd != 0;
}

/* Can the instruction be part of the run? *ends: it is, but nothing behind it. */
static bool joins(struct run *run, const struct insn *insn, bool *ends)
{
    unsigned bytes;
    bool store;

    *ends = false;
    if (!is_access(insn, &store, &bytes))
        return gen_keeps_rdx(insn) && insn->rd != run->base;
    if (insn->rs1 != run->base || (store && !run->store))
        return false;
    int64_t first = insn->imm < run->first ? insn->imm : run->first;
    int64_t last = insn->imm + bytes - 1 > run->last ? insn->imm + bytes - 1 : run->last;
    if (last - first >= 2048) /* likely to cross a page */
        return false;
    run->first = first;
    run->last = last;
    run->accesses++;
    *ends = !store && insn->rd == run->base;
    return true;
}

static bool find_run(const struct gen *g, struct run *run)
{
    const struct insn *insn = &g->insn[g->at];
    unsigned bytes, useful = 0;
    bool ends = false;

    if (!is_access(insn, &run->store, &bytes) || insn->rs1 == 0)
        return false;
    *run = (struct run){ .base = insn->rs1, .store = run->store, .first = insn->imm, .last = insn->imm };
    for (unsigned i = g->at; i < g->count && !ends && (i == g->at || !g->target[i]); i++) {
        unsigned before = run->accesses;

        if (!joins(run, &g->insn[i], &ends))
            break;
        if (run->accesses > before)
            useful = i + 1 - g->at;
    }
    run->length = useful;
    return run->accesses >= 2;
}

unsigned gen_run(struct gen *g)
{
    struct emit *e = &g->e;
    struct run run;

    if (!find_run(g, &run))
        return 0;
    int32_t table = (int32_t)(run.store ? offsetof(struct tlb, write) : offsetof(struct tlb, read));
    int base = gen_use(g, run.base, RAX);

    emit_lea(e, RDX, op_mem(base, (int32_t)run.last));
    if (run.first)
        emit_op(e, 0x8d, RCX, op_mem(base, (int32_t)run.first)); /* lea, 32 bits */
    else
        emit_mov32(e, RCX, op_reg(base));
    emit_shift_imm32(e, SHIFT_SHR, RCX, TLB_PAGE_SHIFT - 4);
    emit_alu_imm32(e, ALU_AND, op_reg(RCX), (TLB_ENTRIES - 1) << 4);
    emit_alu_imm(e, ALU_AND, op_reg(RDX), -PAGE_BYTES);
    emit_alu(e, ALU_CMP, RDX, op_index(GEN_TLB, RCX, 0, table));
    gen_stub(g, STUB_RUN, emit_jcc(e, CC_NE));
    emit_mov(e, RDX, op_index(GEN_TLB, RCX, 0, table + (int32_t)offsetof(struct tlb_entry, addend)));
    return run.length;
}
