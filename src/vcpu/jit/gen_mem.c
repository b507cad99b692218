/* Loads and stores: the inline hit in the software TLB, and the way out when it misses (memory/tlb.h).
 *
 * The compare is with the page of the access's last byte in the slot of its first one, so an access that leaves its
 * page misses, and one that is merely misaligned hits. */
#include "vcpu/jit/gen.h"

/* Registers that point to the same page for long have a slot of their own: no index to compute. */
static int near_slot(unsigned base)
{
    switch (base) {
    case 2: return 0; /* sp */
    case 8: return 1; /* s0 */
    case 3: return 2; /* gp */
    case 4: return 3; /* tp */
    default: return -1;
    }
}

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
    if (gen_pinned[base] != HOST_NONE) {
        if (imm == 0)
            return gen_pinned[base];
        emit_lea(e, RAX, op_mem(gen_pinned[base], (int32_t)imm));
        return RAX;
    }
    gen_load(g, RAX, base);
    if (imm)
        emit_alu_imm(e, ALU_ADD, op_reg(RAX), (int32_t)imm);
    return RAX;
}

static struct operand reach_array(struct gen *g, int va, unsigned bytes, bool store, uint32_t access,
                                  struct stub **stub)
{
    struct emit *e = &g->e;
    int32_t table = (int32_t)(store ? offsetof(struct tlb, write) : offsetof(struct tlb, read));

    emit_mov32(e, RCX, op_reg(va));
    emit_shift_imm32(e, SHIFT_SHR, RCX, TLB_PAGE_SHIFT - 4);
    emit_alu_imm32(e, ALU_AND, op_reg(RCX), (TLB_ENTRIES - 1) << 4);
    if (bytes > 1)
        emit_lea(e, RDX, op_mem(va, (int32_t)bytes - 1));
    else
        emit_mov(e, RDX, op_reg(va));
    emit_alu_imm(e, ALU_AND, op_reg(RDX), -PAGE_BYTES);
    emit_alu(e, ALU_CMP, RDX, op_index(GEN_TLB, RCX, 0, table));
    *stub = gen_stub(g, STUB_ACCESS, emit_jcc(e, CC_NE));
    (*stub)->a = access;
    (*stub)->reg = va;
    emit_mov(e, RDX, op_index(GEN_TLB, RCX, 0, table + (int32_t)offsetof(struct tlb_entry, addend)));
    return op_index(va, RDX, 0, 0);
}

/* A near slot holds one page; a misaligned access always goes the long way. */
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
    return op_index(va, RDX, 0, 0);
}

struct operand gen_reach(struct gen *g, const struct insn *insn, unsigned bytes, bool store, uint32_t access,
                         struct stub **stub)
{
    int va = address(g, insn->rs1, insn->imm), slot = near_slot(insn->rs1);

    return slot < 0 ? reach_array(g, va, bytes, store, access, stub)
                    : reach_near(g, va, (unsigned)slot, bytes, store, access, stub);
}

static void load(struct gen *g, const struct insn *insn, unsigned size, bool is_signed, unsigned opcode)
{
    struct stub *stub;
    int d = gen_dest(insn->rd, RAX);
    struct operand host =
        gen_reach(g, insn, 1u << size, false, gen_access(g, size, is_signed, false, false, insn->rd), &stub);

    emit_op(&g->e, opcode, d, host);
    gen_done(g, insn->rd, d);
    gen_back(g, stub);
}

static void store(struct gen *g, const struct insn *insn, unsigned size, unsigned opcode)
{
    struct stub *stub;
    struct operand host = gen_reach(g, insn, 1u << size, true, gen_access(g, size, false, true, false, insn->rs2), &stub);

    emit_op(&g->e, opcode, gen_use(g, insn->rs2, RCX), host);
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
