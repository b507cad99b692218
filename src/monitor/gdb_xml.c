#include "monitor/gdb_xml.h"

#include <assert.h>
#include <stdio.h>

#include "machine/debug.h"

/* By the psABI's names, as debuggers want them. */
static const char *const x_names[32] = { "zero", "ra", "sp", "gp", "tp",  "t0",  "t1", "t2", "fp", "s1", "a0",
                                         "a1",   "a2", "a3", "a4", "a5",  "a6",  "a7", "s2", "s3", "s4", "s5",
                                         "s6",   "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6" };
static const char *const f_names[32] = { "ft0", "ft1", "ft2", "ft3", "ft4",  "ft5",  "ft6", "ft7", "fs0",  "fs1", "fa0",
                                         "fa1", "fa2", "fa3", "fa4", "fa5",  "fa6",  "fa7", "fs2", "fs3",  "fs4", "fs5",
                                         "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8", "ft9", "ft10", "ft11" };

static const struct {
    const char *name;
    unsigned number;
} csrs[] = {
    { "cycle", 0xc00 },     { "time", 0xc01 },      { "instret", 0xc02 },       { "sstatus", 0x100 },
    { "sie", 0x104 },       { "stvec", 0x105 },     { "senvcfg", 0x10a },       { "scounteren", 0x106 },
    { "sscratch", 0x140 },  { "sepc", 0x141 },      { "scause", 0x142 },        { "stval", 0x143 },
    { "sip", 0x144 },       { "stimecmp", 0x14d },  { "satp", 0x180 },          { "mvendorid", 0xf11 },
    { "marchid", 0xf12 },   { "mimpid", 0xf13 },    { "mhartid", 0xf14 },       { "mconfigptr", 0xf15 },
    { "mstatus", 0x300 },   { "misa", 0x301 },      { "medeleg", 0x302 },       { "mideleg", 0x303 },
    { "mie", 0x304 },       { "mtvec", 0x305 },     { "menvcfg", 0x30a },       { "mcounteren", 0x306 },
    { "mscratch", 0x340 },  { "mepc", 0x341 },      { "mcause", 0x342 },        { "mtval", 0x343 },
    { "mip", 0x344 },       { "mseccfg", 0x747 },   { "mcycle", 0xb00 },        { "minstret", 0xb02 },
    { "pmpcfg0", 0x3a0 },   { "pmpcfg2", 0x3a2 },   { "pmpaddr0", 0x3b0 },      { "pmpaddr1", 0x3b1 },
    { "pmpaddr2", 0x3b2 },  { "pmpaddr3", 0x3b3 },  { "pmpaddr4", 0x3b4 },      { "pmpaddr5", 0x3b5 },
    { "pmpaddr6", 0x3b6 },  { "pmpaddr7", 0x3b7 },  { "pmpaddr8", 0x3b8 },      { "pmpaddr9", 0x3b9 },
    { "pmpaddr10", 0x3ba }, { "pmpaddr11", 0x3bb }, { "pmpaddr12", 0x3bc },     { "pmpaddr13", 0x3bd },
    { "pmpaddr14", 0x3be }, { "pmpaddr15", 0x3bf }, { "mcountinhibit", 0x320 },
};

static void put(struct buf *out, const char *text)
{
    buf_put(out, text, strlen(text));
}

/* All are 64 bits wide: that is how they travel, whatever a register can hold. */
static void put_register(struct buf *out, const char *name, unsigned number, const char *type)
{
    char line[160];
    int length = snprintf(line, sizeof(line), "<reg name=\"%s\" bitsize=\"64\" regnum=\"%u\" type=\"%s\"/>\n", name,
                          number, type);
    assert(length > 0 && (size_t)length < sizeof(line));
    put(out, line);
}

static void put_cpu(struct buf *out)
{
    put(out, "<feature name=\"org.gnu.gdb.riscv.cpu\">\n");
    for (unsigned i = 0; i < 32; i++) {
        bool data = i == 2 || i == 3 || i == 4 || i == 8; /* sp, gp, tp, fp point to data */
        put_register(out, x_names[i], DEBUG_REG_X + i, i == 1 ? "code_ptr" : data ? "data_ptr" : "int");
    }
    put_register(out, "pc", DEBUG_REG_PC, "code_ptr");
    put(out, "</feature>\n");
}

static void put_fpu(struct buf *out)
{
    put(out, "<feature name=\"org.gnu.gdb.riscv.fpu\">\n"
             "<union id=\"single_or_double\">\n"
             "<field name=\"float\" type=\"ieee_single\"/>\n"
             "<field name=\"double\" type=\"ieee_double\"/>\n"
             "</union>\n");
    for (unsigned i = 0; i < 32; i++)
        put_register(out, f_names[i], DEBUG_REG_F + i, "single_or_double");
    put_register(out, "fflags", DEBUG_REG_CSR + 1, "int");
    put_register(out, "frm", DEBUG_REG_CSR + 2, "int");
    put_register(out, "fcsr", DEBUG_REG_CSR + 3, "int");
    put(out, "</feature>\n");
}

void gdb_xml_put(struct buf *out)
{
    put(out, "<?xml version=\"1.0\"?>\n"
             "<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n"
             "<target>\n"
             "<architecture>riscv:rv64</architecture>\n");
    put_cpu(out);
    put_fpu(out);
    put(out, "<feature name=\"org.gnu.gdb.riscv.csr\">\n");
    for (unsigned i = 0; i < sizeof(csrs) / sizeof(csrs[0]); i++)
        put_register(out, csrs[i].name, DEBUG_REG_CSR + csrs[i].number, "int");
    put(out, "</feature>\n<feature name=\"org.gnu.gdb.riscv.virtual\">\n");
    put_register(out, "priv", DEBUG_REG_PRIV, "int");
    put(out, "</feature>\n</target>\n");
}
