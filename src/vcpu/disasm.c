#include "vcpu/disasm.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#include "vcpu/decode.h"

/* --- names ----------------------------------------------------------------------------------------------- */

const char *disasm_x(unsigned reg)
{
    static const char *const names[32] = {
        "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0",  "a1",  "a2", "a3", "a4", "a5",
        "a6",   "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
    };
    return names[reg & 31];
}

const char *disasm_f(unsigned reg)
{
    static const char *const names[32] = {
        "ft0", "ft1", "ft2", "ft3", "ft4",  "ft5",  "ft6", "ft7", "fs0",  "fs1",  "fa0",
        "fa1", "fa2", "fa3", "fa4", "fa5",  "fa6",  "fa7", "fs2", "fs3",  "fs4",  "fs5",
        "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8", "ft9", "ft10", "ft11",
    };
    return names[reg & 31];
}

/* CSRs whose names end in a number. */
static const struct {
    uint16_t first, count, number; /* number: of the first */
    uint8_t step;
    const char *name;
} csr_ranges[] = {
    { 0xc03, 29, 3, 1, "hpmcounter" }, { 0xb03, 29, 3, 1, "mhpmcounter" }, { 0x323, 29, 3, 1, "mhpmevent" },
    { 0x3a0, 8, 0, 2, "pmpcfg" },      { 0x3b0, 64, 0, 1, "pmpaddr" },     { 0x7a1, 3, 1, 1, "tdata" },
};

static const struct {
    uint16_t csr;
    const char *name;
} csr_names[] = {
    { 0x001, "fflags" },     { 0x002, "frm" },        { 0x003, "fcsr" },       { 0x100, "sstatus" },
    { 0x104, "sie" },        { 0x105, "stvec" },      { 0x106, "scounteren" }, { 0x10a, "senvcfg" },
    { 0x140, "sscratch" },   { 0x141, "sepc" },       { 0x142, "scause" },     { 0x143, "stval" },
    { 0x144, "sip" },        { 0x14d, "stimecmp" },   { 0x180, "satp" },       { 0x300, "mstatus" },
    { 0x301, "misa" },       { 0x302, "medeleg" },    { 0x303, "mideleg" },    { 0x304, "mie" },
    { 0x305, "mtvec" },      { 0x306, "mcounteren" }, { 0x30a, "menvcfg" },    { 0x320, "mcountinhibit" },
    { 0x340, "mscratch" },   { 0x341, "mepc" },       { 0x342, "mcause" },     { 0x343, "mtval" },
    { 0x344, "mip" },        { 0x747, "mseccfg" },    { 0x7a0, "tselect" },    { 0xb00, "mcycle" },
    { 0xb02, "minstret" },   { 0xc00, "cycle" },      { 0xc01, "time" },       { 0xc02, "instret" },
    { 0xf11, "mvendorid" },  { 0xf12, "marchid" },    { 0xf13, "mimpid" },     { 0xf14, "mhartid" },
    { 0xf15, "mconfigptr" },
};

const char *disasm_csr(unsigned csr)
{
    for (unsigned i = 0; i < sizeof(csr_names) / sizeof(csr_names[0]); i++)
        if (csr_names[i].csr == csr)
            return csr_names[i].name;
    return NULL;
}

/* --- text that may be too long for its place ------------------------------------------------------------- */

struct line {
    char *at;
    size_t room; /* the NUL included */
    bool any;    /* an operand stands there already */
};

static __attribute__((format(printf, 2, 3))) void add(struct line *line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line->at, line->room, format, args);
    va_end(args);
    size_t used = n < 0 ? 0 : (size_t)n < line->room ? (size_t)n : line->room ? line->room - 1 : 0;
    line->at += used;
    line->room -= used;
}

static void comma(struct line *line)
{
    add(line, "%s", line->any ? "," : " ");
    line->any = true;
}

static void add_x(struct line *line, unsigned reg)
{
    comma(line);
    add(line, "%s", disasm_x(reg));
}

static void add_reg(struct line *line, unsigned reg, bool fp)
{
    comma(line);
    add(line, "%s", fp ? disasm_f(reg) : disasm_x(reg));
}

static void add_based(struct line *line, int64_t imm, unsigned base)
{
    comma(line);
    add(line, "%" PRId64 "(%s)", imm, disasm_x(base));
}

static void add_target(struct line *line, uint64_t va)
{
    comma(line);
    add(line, "0x%" PRIx64, va);
}

static void add_csr(struct line *line, unsigned csr)
{
    const char *name = disasm_csr(csr);
    comma(line);
    if (name) {
        add(line, "%s", name);
        return;
    }
    for (unsigned i = 0; i < sizeof(csr_ranges) / sizeof(csr_ranges[0]); i++) {
        unsigned distance = csr - csr_ranges[i].first;
        if (csr < csr_ranges[i].first || distance % csr_ranges[i].step ||
            distance / csr_ranges[i].step >= csr_ranges[i].count)
            continue;
        add(line, "%s%u", csr_ranges[i].name, csr_ranges[i].number + distance);
        return;
    }
    add(line, "0x%x", csr);
}

/* --- operands by opcode ---------------------------------------------------------------------------------- */

enum {
    OPCODE_LOAD = 0x03,
    OPCODE_LOAD_FP = 0x07,
    OPCODE_FENCE = 0x0f,
    OPCODE_STORE_FP = 0x27,
    OPCODE_AMO = 0x2f,
    OPCODE_FP = 0x53,
    OPCODE_JALR = 0x67,
    OPCODE_SYSTEM = 0x73,
    RS2_FIELD = 0x01f00000,
    RM_FIELD = 0x7000,
    RM_DYNAMIC = 7,
};

static void add_rounding(struct line *line, unsigned rm)
{
    static const char *const modes[] = { "rne", "rtz", "rdn", "rup", "rmm", "5", "6" };
    if (rm == RM_DYNAMIC)
        return;
    comma(line);
    add(line, "%s", modes[rm]);
}

/* funct5 (bits 31:27) says which side of the register file a result or a source is on. */
static void fp_operands(struct line *line, const struct insn *insn, const struct op_info *info)
{
    unsigned funct5 = info->match >> 27;
    bool to_x = funct5 == 0x14 || funct5 == 0x18 || funct5 == 0x1c; /* compare; convert; move and classify */
    bool from_x = funct5 == 0x1a || funct5 == 0x1e;
    add_reg(line, insn->rd, !to_x);
    add_reg(line, insn->rs1, !from_x);
    if (!(info->mask & RS2_FIELD))
        add_reg(line, insn->rs2, true);
    if (!(info->mask & RM_FIELD))
        add_rounding(line, insn->rm);
}

static void add_set(struct line *line, unsigned bits)
{
    comma(line);
    if (bits == 0)
        add(line, "0");
    for (unsigned i = 0; i < 4; i++)
        if (bits >> (3 - i) & 1)
            add(line, "%c", "iorw"[i]);
}

static void r_operands(struct line *line, const struct insn *insn, const struct op_info *info)
{
    switch (info->match & 0x7f) {
    case OPCODE_FP: fp_operands(line, insn, info); break;
    case OPCODE_FENCE: /* cache block operations */
        comma(line);
        add(line, "(%s)", disasm_x(insn->rs1));
        break;
    case OPCODE_SYSTEM: /* sfence.vma and its kin */
        add_x(line, insn->rs1);
        add_x(line, insn->rs2);
        break;
    case OPCODE_AMO:
        add_x(line, insn->rd);
        if (!(info->mask & RS2_FIELD))
            add_x(line, insn->rs2);
        comma(line);
        add(line, "(%s)", disasm_x(insn->rs1));
        break;
    default:
        add_x(line, insn->rd);
        add_x(line, insn->rs1);
        if (!(info->mask & RS2_FIELD))
            add_x(line, insn->rs2);
        break;
    }
}

static void i_operands(struct line *line, const struct insn *insn, const struct op_info *info)
{
    unsigned opcode = info->match & 0x7f;
    if (opcode == OPCODE_FENCE) {
        if (insn->op == OP_fence) {
            add_set(line, (unsigned)insn->imm >> 4 & 15);
            add_set(line, (unsigned)insn->imm & 15);
        }
        return;
    }
    add_reg(line, insn->rd, opcode == OPCODE_LOAD_FP);
    if (opcode == OPCODE_LOAD || opcode == OPCODE_LOAD_FP || opcode == OPCODE_JALR) {
        add_based(line, insn->imm, insn->rs1);
        return;
    }
    add_x(line, insn->rs1);
    comma(line);
    add(line, "%" PRId64, insn->imm);
}

static void csr_operands(struct line *line, const struct insn *insn, const struct op_info *info)
{
    add_x(line, insn->rd);
    add_csr(line, (unsigned)insn->imm);
    comma(line);
    if (info->match & 0x4000)
        add(line, "%u", insn->rs1);
    else
        add(line, "%s", disasm_x(insn->rs1));
}

static void operands(struct line *line, const struct insn *insn, const struct op_info *info, uint64_t pc)
{
    switch ((enum op_format)info->format) {
    case FMT_R: r_operands(line, insn, info); break;
    case FMT_R4:
        add_reg(line, insn->rd, true);
        add_reg(line, insn->rs1, true);
        add_reg(line, insn->rs2, true);
        add_reg(line, insn->rs3, true);
        add_rounding(line, insn->rm);
        break;
    case FMT_I: i_operands(line, insn, info); break;
    case FMT_S:
        add_reg(line, insn->rs2, (info->match & 0x7f) == OPCODE_STORE_FP);
        add_based(line, insn->imm, insn->rs1);
        break;
    case FMT_B:
        add_x(line, insn->rs1);
        add_x(line, insn->rs2);
        add_target(line, pc + (uint64_t)insn->imm);
        break;
    case FMT_U:
        add_x(line, insn->rd);
        add_target(line, (uint64_t)insn->imm >> 12 & 0xfffff);
        break;
    case FMT_J:
        add_x(line, insn->rd);
        add_target(line, pc + (uint64_t)insn->imm);
        break;
    case FMT_SH5:
    case FMT_SH6:
        add_x(line, insn->rd);
        add_x(line, insn->rs1);
        add_target(line, (uint64_t)insn->imm);
        break;
    case FMT_CSR: csr_operands(line, insn, info); break;
    case FMT_NONE: break;
    }
}

unsigned disasm(uint32_t raw, uint64_t pc, char *out, size_t size)
{
    static const char *const orders[] = { "", ".rl", ".aq", ".aqrl" };
    struct insn insn = decode(raw);
    struct line line = { .at = out, .room = size };

    if (insn.op >= OP_ENCODED) {
        add(&line, insn.length == 2 ? ".2byte 0x%04x" : ".4byte 0x%08x", insn.raw);
        return insn.length;
    }
    const struct op_info *info = &decode_ops[insn.op];
    add(&line, "%s", info->mnemonic);
    if ((info->match & 0x7f) == OPCODE_AMO)
        add(&line, "%s", orders[insn.raw >> 25 & 3]);
    operands(&line, &insn, info, pc);
    return insn.length;
}
