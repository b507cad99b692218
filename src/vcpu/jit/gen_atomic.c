/* Atomics and fences.
 *
 * Guest atomics are host atomics on guest RAM. Where the machine has one hart they are plain loads and stores: `aq` and
 * `rl` order what other harts see, and no device of this machine expects a guest's access to be one. What is not a hit
 * is the interpreter's, before anything has changed. */
#include "vcpu/jit/gen.h"

/* The host keeps every order but store before load. */
static void fence(struct gen *g, const struct insn *insn)
{
    const uint32_t pred_write = 1u << 24, succ_read = 1u << 21, tso = 8;

    if (insn->raw == 0x0100000f) { /* pause */
        emit_u8(&g->e, 0xf3);
        emit_u8(&g->e, 0x90);
    } else if ((insn->raw & pred_write) && (insn->raw & succ_read) && insn->raw >> 28 != tso) {
        emit_op_imm(&g->e, X_LOCK | 0x83, ALU_OR, op_mem(RSP, 0), 0, 1); /* dearer fences order no more than this */
    }
}

/* --- the way to memory ----------------------------------------------------------------------------------- */

/* An access that hits: RCX is its slot's place in the table, RDX what makes `va` a host address. */
struct atomic {
    int va;
    unsigned bytes, wide; /* X_W for 8 bytes */
    struct stub *rare;
};

/* A misaligned address keeps low bits that no tag has, and misses. */
static struct atomic reach(struct gen *g, const struct insn *insn, unsigned bytes, bool write)
{
    struct emit *e = &g->e;
    struct atomic at = { .va = gen_use(g, insn->rs1, RAX), .bytes = bytes, .wide = bytes == 8 ? X_W : 0 };
    int32_t table = (int32_t)(write ? offsetof(struct tlb, write) : offsetof(struct tlb, read));

    emit_mov32(e, RCX, op_reg(at.va));
    emit_shift_imm32(e, SHIFT_SHR, RCX, TLB_PAGE_SHIFT - 4);
    emit_alu_imm32(e, ALU_AND, op_reg(RCX), (TLB_ENTRIES - 1) << 4);
    emit_mov(e, RDX, op_reg(at.va));
    emit_alu_imm(e, ALU_AND, op_reg(RDX), (int32_t)(bytes - 1) - PAGE_BYTES);
    emit_alu(e, ALU_CMP, RDX, op_index(GEN_TLB, RCX, 0, table));
    at.rare = gen_rarely(g, emit_jcc(e, CC_NE));
    emit_mov(e, RDX, op_index(GEN_TLB, RCX, 0, table + (int32_t)offsetof(struct tlb_entry, addend)));
    return at;
}

/* RDX = host address, RCX = guest-physical address; RAX is free then. */
static void find_gpa(struct gen *g, const struct atomic *at, bool write)
{
    struct emit *e = &g->e;
    int32_t info = (int32_t)(write ? offsetof(struct tlb, write_info) : offsetof(struct tlb, read_info));

    _Static_assert(sizeof(struct tlb_info) == sizeof(struct tlb_entry), "one index for both");
    emit_mov(e, RCX, op_index(GEN_TLB, RCX, 0, info + (int32_t)offsetof(struct tlb_info, gpa)));
    emit_alu(e, ALU_ADD, RDX, op_reg(at->va));
    if (at->va != RAX)
        emit_mov32(e, RAX, op_reg(at->va));
    emit_alu_imm32(e, ALU_AND, op_reg(RAX), PAGE_BYTES - 1);
    emit_alu(e, ALU_ADD, RCX, op_reg(RAX));
}

/* rd = the old value in `reg`, sign-extended */
static void done(struct gen *g, const struct insn *insn, const struct atomic *at, int reg)
{
    if (insn->rd && at->wide) {
        gen_done(g, insn->rd, reg);
    } else if (insn->rd) {
        int d = gen_dest(g, insn->rd, reg);

        emit_movsxd(&g->e, d, op_reg(reg));
        gen_done(g, insn->rd, d);
    }
    gen_back(g, at->rare);
}

/* --- AMOs ------------------------------------------------------------------------------------------------- */

enum amo { AMO_ADD, AMO_AND, AMO_OR, AMO_XOR, AMO_SWAP, AMO_MIN, AMO_MAX, AMO_MINU, AMO_MAXU };

static enum alu alu_of(enum amo op)
{
    switch (op) {
    case AMO_AND: return ALU_AND;
    case AMO_OR: return ALU_OR;
    case AMO_XOR: return ALU_XOR;
    default: return ALU_ADD;
    }
}

/* between the old value and the operand: the old one stays */
static enum host_cond keeps(enum amo op)
{
    switch (op) {
    case AMO_MIN: return CC_L;
    case AMO_MAX: return CC_G;
    case AMO_MINU: return CC_B;
    default: return CC_A;
    }
}

/* reg = what is to be stored, from the value in `old`; another register */
static void combine(struct gen *g, const struct insn *insn, const struct atomic *at, enum amo op, int reg, int old)
{
    struct emit *e = &g->e;

    gen_load(g, reg, insn->rs2);
    if (op >= AMO_MIN) {
        emit_op(e, at->wide | (0x03 + 8 * ALU_CMP), old, op_reg(reg));
        emit_cmov(e, keeps(op), reg, op_reg(old));
    } else if (op != AMO_SWAP) {
        emit_alu(e, alu_of(op), reg, op_reg(old));
    }
}

/* Nobody wants the old value. */
static void update(struct gen *g, const struct insn *insn, const struct atomic *at, enum amo op)
{
    unsigned locked = g->one_hart ? 0 : X_LOCK;
    int b = gen_use(g, insn->rs2, RCX);

    emit_op(&g->e, locked | at->wide | (0x01u + 8 * alu_of(op)), b, op_index(at->va, RDX, 0, 0));
    gen_back(g, at->rare);
}

static void fetch_alone(struct gen *g, const struct insn *insn, const struct atomic *at, enum amo op)
{
    struct emit *e = &g->e;

    emit_op(e, at->wide | 0x8b, RCX, op_index(at->va, RDX, 0, 0));
    emit_alu(e, ALU_ADD, RDX, op_reg(at->va)); /* which may be RAX */
    combine(g, insn, at, op, RAX, RCX);
    emit_op(e, at->wide | 0x89, RAX, op_mem(RDX, 0));
    done(g, insn, at, RCX);
}

static void fetch_shared(struct gen *g, const struct insn *insn, const struct atomic *at, enum amo op)
{
    struct emit *e = &g->e;

    if (op == AMO_ADD || op == AMO_SWAP) {
        gen_load(g, RCX, insn->rs2);
        emit_op(e, at->wide | (op == AMO_ADD ? X_LOCK | X_0F | 0xc1 : 0x87), RCX, op_index(at->va, RDX, 0, 0));
        done(g, insn, at, RCX); /* xadd; xchg, which is locked anyway */
        return;
    }
    emit_alu(e, ALU_ADD, RDX, op_reg(at->va));
    emit_op(e, at->wide | 0x8b, RAX, op_mem(RDX, 0));
    const uint8_t *again = e->at;
    combine(g, insn, at, op, RCX, RAX);
    emit_op(e, X_LOCK | at->wide | X_0F | 0xb1, RCX,
            op_mem(RDX, 0)); /* cmpxchg: RAX is the new old value if not equal */
    emit_jcc_to(e, CC_NE, again);
    done(g, insn, at, RAX);
}

static void amo(struct gen *g, const struct insn *insn, unsigned bytes, enum amo op)
{
    struct atomic at = reach(g, insn, bytes, true);

    if (insn->rd == 0 && op <= AMO_XOR)
        update(g, insn, &at, op);
    else if (g->one_hart)
        fetch_alone(g, insn, &at, op);
    else
        fetch_shared(g, insn, &at, op);
}

/* --- LR and SC -------------------------------------------------------------------------------------------- */

static void load_reserved(struct gen *g, const struct insn *insn, unsigned bytes)
{
    struct emit *e = &g->e;
    struct atomic at = reach(g, insn, bytes, false);
    int d = gen_dest(g, insn->rd, RDX);

    find_gpa(g, &at, false);
    emit_op(e, X_W | (bytes == 8 ? 0x8b : 0x63), d, op_mem(RDX, 0));
    emit_store(e, GEN_FIELD(hart.reserved_gpa), RCX);
    emit_store(e, GEN_FIELD(hart.reserved_value), d);
    emit_op_imm(e, 0xc6, 0, GEN_FIELD(hart.reserved), true, 1);
    emit_op_imm(e, 0xc7, 0, GEN_FIELD(reserved_bytes), (int32_t)bytes, 4);
    if (insn->rd)
        gen_done(g, insn->rd, d);
    gen_back(g, at.rare);
}

/* What an SC knows of the LR in front of it. */
struct held {
    bool is_held;   /* it reserved this address, in this size, and nothing but arithmetic lies in between */
    unsigned value; /* the register that still holds what it read, or 0 */
};

static struct held look_back(const struct gen *g, const struct insn *sc, unsigned bytes)
{
    const enum op lr = bytes == 8 ? OP_lr_d : OP_lr_w;
    uint32_t written = 0;

    for (unsigned i = g->at; i > 0 && !g->target[i]; i--) {
        const struct insn *before = &g->insn[i - 1];
        bool branches = before->op < OP_ENCODED && decode_ops[before->op].kind == KIND_BRANCH;

        if (before->op >= OP_ENCODED || (before->rd == sc->rs1 && !branches))
            break;
        if (before->op == lr)
            return (struct held){ .is_held = before->rs1 == sc->rs1,
                                  .value = written >> before->rd & 1 ? 0 : before->rd };
        if (decode_ops[before->op].kind != KIND_ALU && !branches)
            break;
        if (!branches)
            written |= UINT32_C(1) << before->rd;
    }
    return (struct held){ 0 };
}

/* Is there a reservation of this size, for the address in RCX? Whatever is found, it ends. Flags: equal; or the jumps in
 * `end` are taken, with not equal. */
static void end_reservation(struct gen *g, unsigned bytes, uint8_t *end[2])
{
    struct emit *e = &g->e;

    emit_op_imm(e, 0x80, ALU_CMP, GEN_FIELD(hart.reserved), true, 1);
    emit_op_imm(e, 0xc6, 0, GEN_FIELD(hart.reserved), false, 1);
    end[0] = emit_jcc_short(e, CC_NE);
    emit_op_imm(e, 0x83, ALU_CMP, GEN_FIELD(reserved_bytes), (int32_t)bytes, 1);
    end[1] = emit_jcc_short(e, CC_NE);
    emit_alu(e, ALU_CMP, RCX, GEN_FIELD(hart.reserved_gpa));
}

/* At RDX, if it is still the value that LR read. The flags say equal: stored. */
static void store_if_same(struct gen *g, const struct insn *insn, const struct atomic *at, unsigned value)
{
    struct emit *e = &g->e;

    if (value)
        gen_load(g, RAX, value);
    else
        emit_mov(e, RAX, GEN_FIELD(hart.reserved_value));
    if (!g->one_hart) {
        emit_op(e, X_LOCK | at->wide | X_0F | 0xb1, gen_use(g, insn->rs2, RCX), op_mem(RDX, 0)); /* cmpxchg */
        return;
    }
    emit_op(e, at->wide | (0x03 + 8 * ALU_CMP), RAX, op_mem(RDX, 0));
    uint8_t *changed = emit_jcc_short(e, CC_NE);
    emit_op(e, at->wide | 0x89, gen_use(g, insn->rs2, RCX), op_mem(RDX, 0));
    emit_bind_short(e, changed);
}

static void store_conditional(struct gen *g, const struct insn *insn, unsigned bytes)
{
    struct emit *e = &g->e;
    struct held held = look_back(g, insn, bytes);
    struct atomic at = reach(g, insn, bytes, true);
    uint8_t *end[3];

    if (held.is_held) {
        emit_alu(e, ALU_ADD, RDX, op_reg(at.va));
        emit_op_imm(e, 0xc6, 0, GEN_FIELD(hart.reserved), false, 1);
        store_if_same(g, insn, &at, held.value);
    } else {
        find_gpa(g, &at, true);
        end_reservation(g, bytes, end);
        end[2] = emit_jcc_short(e, CC_NE);
        store_if_same(g, insn, &at, 0);
        for (unsigned i = 0; i < 3; i++) /* not equal */
            emit_bind_short(e, end[i]);
    }
    if (insn->rd) {
        int d = gen_dest(g, insn->rd, RAX);

        emit_setcc(e, CC_NE, d);
        emit_op(e, X_0F | X_BYTE_RM | 0xb6, d, op_reg(d)); /* movzx */
        gen_done(g, insn->rd, d);
    }
    gen_back(g, at.rare);
}

bool gen_atomic(struct gen *g, const struct insn *insn)
{
    switch (insn->op) {
    case OP_fence: fence(g, insn); return true;
    case OP_lr_w: load_reserved(g, insn, 4); return true;
    case OP_lr_d: load_reserved(g, insn, 8); return true;
    case OP_sc_w: store_conditional(g, insn, 4); return true;
    case OP_sc_d: store_conditional(g, insn, 8); return true;
#define AMO(name, op)                                                                                                  \
    case OP_##name##_w: amo(g, insn, 4, op); return true;                                                              \
    case OP_##name##_d: amo(g, insn, 8, op); return true
        AMO(amoadd, AMO_ADD);
        AMO(amoand, AMO_AND);
        AMO(amoor, AMO_OR);
        AMO(amoxor, AMO_XOR);
        AMO(amoswap, AMO_SWAP);
        AMO(amomin, AMO_MIN);
        AMO(amomax, AMO_MAX);
        AMO(amominu, AMO_MINU);
        AMO(amomaxu, AMO_MAXU);
#undef AMO
    default: return false;
    }
}
