/* CSRs that can be read or written without a change of what the hart may do, and the changes of sstatus that kernels
 * make all the time. In which mode the code runs is asked each time; too low a one is the interpreter's, as is every
 * write that changes more than it says here. */
#include "vcpu/jit/gen.h"
#include "vcpu/warl.h"

enum csr_how { CSR_WRITE, CSR_SET, CSR_CLEAR };

/* What to read is one field, what to write is kept as it is but for the lowest bits. */
struct plain {
    unsigned csr;
    uint16_t at;      /* in struct vcpu */
    uint8_t bytes;    /* 8 or 4 */
    bool may_write;   /* without anything else to be done */
    uint8_t low_bits; /* read as 0 */
};

#define PLAIN(number, member, may_write, low_bits)                                                                     \
    {                                                                                                                  \
        number, offsetof(struct vcpu, hart.member), sizeof(((struct hart *)0)->member), may_write, low_bits            \
    }

static const struct plain PLAINS[] = {
    PLAIN(0x105, stvec, false, 0),   PLAIN(0x106, scounteren, false, 0), PLAIN(0x10a, senvcfg, false, 0),
    PLAIN(0x140, sscratch, true, 0), PLAIN(0x141, sepc, true, 1),        PLAIN(0x142, scause, true, 0),
    PLAIN(0x143, stval, true, 0),    PLAIN(0x302, medeleg, false, 0),    PLAIN(0x303, mideleg, false, 0),
    PLAIN(0x304, mie, false, 0),     PLAIN(0x305, mtvec, false, 0),      PLAIN(0x306, mcounteren, false, 0),
    PLAIN(0x30a, menvcfg, false, 0), PLAIN(0x340, mscratch, true, 0),    PLAIN(0x341, mepc, true, 1),
    PLAIN(0x342, mcause, true, 0),   PLAIN(0x343, mtval, true, 0),       PLAIN(0xf14, hartid, false, 0),
};
enum { PLAIN_COUNT = sizeof(PLAINS) / sizeof(PLAINS[0]), CSR_SSTATUS = 0x100, CSR_SIE = 0x104, CSR_TIME = 0xc01 };

static const struct plain *find_plain(unsigned csr)
{
    for (unsigned i = 0; i < PLAIN_COUNT; i++)
        if (PLAINS[i].csr == csr)
            return &PLAINS[i];
    return NULL;
}

/* One of the six instructions, taken apart. */
struct access {
    unsigned csr;
    enum csr_how how;
    bool immediate, writes;
    unsigned rd, operand; /* a register, or the value itself */
};

static bool parse(const struct insn *insn, struct access *a)
{
    *a = (struct access){ .csr = (unsigned)insn->imm, .rd = insn->rd, .operand = insn->rs1, .writes = true };
    switch (insn->op) {
    case OP_csrrw: a->how = CSR_WRITE; return true;
    case OP_csrrs: a->how = CSR_SET; break;
    case OP_csrrc: a->how = CSR_CLEAR; break;
    case OP_csrrwi:
        a->how = CSR_WRITE;
        a->immediate = true;
        return true;
    case OP_csrrsi:
        a->how = CSR_SET;
        a->immediate = true;
        break;
    case OP_csrrci:
        a->how = CSR_CLEAR;
        a->immediate = true;
        break;
    default: return false;
    }
    a->writes = insn->rs1 != 0;
    return true;
}

static struct stub *check_privilege(struct gen *g, unsigned csr)
{
    emit_op_imm(&g->e, 0x80, ALU_CMP, GEN_FIELD(hart.priv), (int32_t)(csr >> 8 & 3), 1);
    return gen_rarely(g, emit_jcc(&g->e, CC_B));
}

static void load_operand(struct gen *g, int reg, const struct access *a)
{
    if (a->immediate)
        emit_mov_imm(&g->e, reg, a->operand);
    else
        gen_load(g, reg, a->operand);
}

static bool plain(struct gen *g, const struct access *a)
{
    struct emit *e = &g->e;
    const struct plain *p = find_plain(a->csr);

    if (!p || (a->writes && !p->may_write))
        return false;
    struct operand home = op_mem(GEN_VCPU, p->at - GEN_VCPU_BIAS);
    struct stub *rare = check_privilege(g, a->csr);
    if (a->rd || a->how != CSR_WRITE)
        emit_op(e, (p->bytes == 8 ? X_W : 0) | 0x8b, RAX, home);
    if (a->writes) {
        load_operand(g, RCX, a);
        if (a->how == CSR_SET) {
            emit_alu(e, ALU_OR, RCX, op_reg(RAX));
        } else if (a->how == CSR_CLEAR) {
            emit_op(e, X_W | 0xf7, 2, op_reg(RCX)); /* not */
            emit_alu(e, ALU_AND, RCX, op_reg(RAX));
        }
        if (p->low_bits)
            emit_alu_imm(e, ALU_AND, op_reg(RCX), ~p->low_bits);
        emit_store(e, home, RCX);
    }
    if (a->rd)
        gen_done(g, a->rd, RAX);
    gen_back(g, rare);
    return true;
}

static bool read_sie(struct gen *g, const struct access *a)
{
    if (a->writes)
        return false;
    struct stub *rare = check_privilege(g, a->csr);
    emit_mov(&g->e, RAX, GEN_FIELD(hart.mie));
    emit_alu(&g->e, ALU_AND, RAX, GEN_FIELD(hart.mideleg));
    if (a->rd)
        gen_done(g, a->rd, RAX);
    gen_back(g, rare);
    return true;
}

/* --- sstatus ---------------------------------------------------------------------------------------------- */

/* rd = sstatus as it is read, from mstatus in RAX */
static void read_status(struct gen *g, unsigned rd)
{
    struct emit *e = &g->e;

    emit_mov_imm(e, RCX, (int64_t)(WARL_SSTATUS_WRITE | MSTATUS_UXL));
    emit_alu(e, ALU_AND, RAX, op_reg(RCX));
    emit_mov32(e, RCX, op_reg(RAX)); /* SD: adding 1 to FS overflows if both its bits are set */
    emit_alu_imm32(e, ALU_AND, op_reg(RCX), (int32_t)MSTATUS_FS);
    emit_alu_imm32(e, ALU_ADD, op_reg(RCX), (int32_t)(MSTATUS_FS & -MSTATUS_FS));
    emit_shift_imm32(e, SHIFT_SHR, RCX, 15);
    emit_shift_imm(e, SHIFT_SHL, RCX, 63);
    emit_alu(e, ALU_OR, RAX, op_reg(RCX));
    gen_done(g, rd, RAX);
}

/* RCX = the new mstatus, from the old one in RAX */
static void new_status(struct gen *g, const struct access *a)
{
    struct emit *e = &g->e;

    load_operand(g, RCX, a);
    emit_alu_imm32(e, ALU_AND, op_reg(RCX), (int32_t)WARL_SSTATUS_WRITE);
    if (a->how == CSR_CLEAR) {
        emit_op(e, X_W | 0xf7, 2, op_reg(RCX)); /* not */
        emit_alu(e, ALU_AND, RCX, op_reg(RAX));
        return;
    }
    emit_mov(e, RDX, op_reg(RAX));
    if (a->how == CSR_WRITE)
        emit_alu_imm(e, ALU_AND, op_reg(RDX), ~(int32_t)WARL_SSTATUS_WRITE);
    emit_alu(e, ALU_OR, RCX, op_reg(RDX));
}

/* RDX: what changes. Interrupts that become enabled may be pending: the same question as engine_apply()'s. */
static void check_interrupts(struct gen *g, struct stub *rare)
{
    struct emit *e = &g->e;

    emit_alu32(e, ALU_AND, RDX, op_reg(RCX));
    emit_op_imm(e, 0xf7, 0, op_reg(RDX), (int32_t)MSTATUS_SIE, 4); /* test */
    uint8_t *stays = emit_jcc_short(e, CC_E);
    emit_mov(e, RDX, GEN_FIELD(hart.pins));
    emit_alu(e, ALU_OR, RDX, GEN_FIELD(hart.mip_soft));
    emit_op(e, X_W | 0x85, RDX, GEN_FIELD(hart.mie)); /* test */
    gen_also(g, rare, emit_jcc(e, CC_NE));
    emit_op_imm(e, 0x80, ALU_CMP, GEN_FIELD(timer_due), 0, 1);
    gen_also(g, rare, emit_jcc(e, CC_NE));
    emit_bind_short(e, stays);
}

/* FS is above what an immediate operand reaches; but a write of one clears it. */
static bool leaves_fs_alone(const struct access *a)
{
    return !a->writes || (a->immediate && a->how != CSR_WRITE);
}

/* SIE, SPIE, SPP and FS change here. SUM and MXR choose another TLB, and a change of FS under floating point that is
 * ready must undo that: both are the interpreter's. */
static void write_status(struct gen *g, const struct access *a, struct stub *rare)
{
    struct emit *e = &g->e;

    if (!leaves_fs_alone(a)) {
        emit_op_imm(e, 0x80, ALU_CMP, GEN_FIELD(fp_ready), 0, 1);
        gen_also(g, rare, emit_jcc(e, CC_NE));
    }
    new_status(g, a);
    emit_mov32(e, RDX, op_reg(RCX));
    emit_alu32(e, ALU_XOR, RDX, op_reg(RAX));
    emit_op_imm(e, 0xf7, 0, op_reg(RDX), (int32_t)(MSTATUS_SUM | MSTATUS_MXR), 4); /* test */
    gen_also(g, rare, emit_jcc(e, CC_NE));
    if (a->how != CSR_CLEAR)
        check_interrupts(g, rare);
    emit_store(e, GEN_FIELD(hart.mstatus), RCX);
}

static bool status(struct gen *g, const struct access *a)
{
    struct stub *rare = check_privilege(g, a->csr);

    emit_mov(&g->e, RAX, GEN_FIELD(hart.mstatus));
    if (a->writes)
        write_status(g, a, rare);
    if (a->rd)
        read_status(g, a->rd);
    gen_back(g, rare);
    if (!leaves_fs_alone(a))
        g->fp_ready = false;
    return true;
}

/* --- time ------------------------------------------------------------------------------------------------- */

/* RDX = RAX / GUEST_TICK_NS, which is 100: by 4, then by 25 as a product with (2^66 + 11) / 25. Exact: what
 * the 11 adds, RAX / 4 * 11 / 2^66 of a 25th, stays below 1 of them. */
static void divide_by_tick(struct emit *e)
{
    _Static_assert(GUEST_TICK_NS == 100, "the constants below are for 100");
    emit_shift_imm(e, SHIFT_SHR, RAX, 2);
    emit_mov_imm(e, RDX, INT64_C(0x28f5c28f5c28f5c3));
    emit_op(e, X_W | 0xf7, 4, op_reg(RDX)); /* mul */
    emit_shift_imm(e, SHIFT_SHR, RDX, 2);
}

#define CLOCK_FIELD(member) op_mem(RCX, (int32_t)offsetof(struct guest_clock, member))

/* guest_clock_ns() of a clock that goes by TSC, base/clock.h; all else is the interpreter's: a clock that is being changed, that
 * wants to be trimmed, that has no TSC. So is a mode that may not read it, and M mode where the others may not. */
static bool read_time(struct gen *g, const struct access *a)
{
    enum { TM = 2 };
    struct emit *e = &g->e;

    if (a->writes)
        return false;
    emit_op_imm(e, 0xf6, 0, GEN_FIELD(hart.mcounteren), TM, 1); /* test */
    struct stub *rare = gen_rarely(g, emit_jcc(e, CC_E));
    emit_op_imm(e, 0xf6, 0, GEN_FIELD(hart.scounteren), TM, 1);
    gen_also(g, rare, emit_jcc(e, CC_E));
    emit_mov(e, RCX, GEN_FIELD(clock));
    emit_mov32(e, RAX, CLOCK_FIELD(sequence));
    emit_op_imm(e, 0xf6, 0, op_reg(RAX), 1, 1);
    gen_also(g, rare, emit_jcc(e, CC_NE));
    emit_store(e, GEN_FIELD(value), RAX);
    emit_read_tsc(e);
    emit_shift_imm(e, SHIFT_SHL, RDX, 32);
    emit_alu(e, ALU_OR, RAX, op_reg(RDX));
    emit_alu(e, ALU_SUB, RAX, CLOCK_FIELD(tsc));
    emit_alu(e, ALU_CMP, RAX, CLOCK_FIELD(limit));
    gen_also(g, rare, emit_jcc(e, CC_AE));
    emit_op(e, X_W | 0xf7, 4, CLOCK_FIELD(rate));                                  /* mul: ns with 32 binary places */
    emit_op_imm(e, X_W | X_0F | 0xac, RDX, op_reg(RAX), GUEST_CLOCK_RATE_BITS, 1); /* shrd */
    emit_alu(e, ALU_ADD, RAX, CLOCK_FIELD(base_ns));
    divide_by_tick(e);
    emit_mov32(e, RAX, CLOCK_FIELD(sequence));
    emit_alu32(e, ALU_CMP, RAX, GEN_FIELD(value));
    gen_also(g, rare, emit_jcc(e, CC_NE));
    if (a->rd)
        gen_done(g, a->rd, RDX);
    gen_back(g, rare);
    return true;
}

bool gen_system(struct gen *g, const struct insn *insn)
{
    struct access a;

    if (!parse(insn, &a))
        return false;
    switch (a.csr) {
    case CSR_SSTATUS: return status(g, &a);
    case CSR_TIME: return read_time(g, &a);
    case CSR_SIE: return read_sie(g, &a);
    default: return plain(g, &a);
    }
}
