#include "vcpu/hart.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "vcpu/warl.h"

static const struct field hart_fields[] = {
    FIELD_U64_ARRAY_OF(struct hart, x),
    FIELD_U64_ARRAY_OF(struct hart, f),
    FIELD_U64_OF(struct hart, pc),
    FIELD_U8_MAX_OF(struct hart, priv, PRIV_M),
    FIELD_U8_MAX_OF(struct hart, fflags, 31),
    FIELD_U8_MAX_OF(struct hart, frm, 7),
    FIELD_BOOL_OF(struct hart, waiting),
    FIELD_BOOL_OF(struct hart, stopped),
    FIELD_BOOL_OF(struct hart, reserved),
    FIELD_U64_OF(struct hart, reserved_gpa),
    FIELD_U64_OF(struct hart, reserved_value),
    FIELD_U64_MAX_OF(struct hart, hartid, HART_MAX - 1),
    FIELD_U64_OF(struct hart, mstatus),
    FIELD_U64_OF(struct hart, medeleg),
    FIELD_U64_OF(struct hart, mideleg),
    FIELD_U64_OF(struct hart, mie),
    FIELD_U64_OF(struct hart, mtvec),
    FIELD_U64_OF(struct hart, mscratch),
    FIELD_U64_OF(struct hart, mepc),
    FIELD_U64_OF(struct hart, mcause),
    FIELD_U64_OF(struct hart, mtval),
    FIELD_U64_OF(struct hart, menvcfg),
    FIELD_U64_OF(struct hart, mseccfg),
    FIELD_U64_OF(struct hart, mip_soft),
    FIELD_U64_OF(struct hart, stvec),
    FIELD_U64_OF(struct hart, sscratch),
    FIELD_U64_OF(struct hart, sepc),
    FIELD_U64_OF(struct hart, scause),
    FIELD_U64_OF(struct hart, stval),
    FIELD_U64_OF(struct hart, satp),
    FIELD_U64_OF(struct hart, senvcfg),
    FIELD_U64_OF(struct hart, stimecmp),
    FIELD_U32_OF(struct hart, mcounteren),
    FIELD_U32_OF(struct hart, scounteren),
    FIELD_U32_OF(struct hart, mcountinhibit),
    FIELD_U8_ARRAY_OF(struct hart, pmpcfg),
    FIELD_U64_ARRAY_OF(struct hart, pmpaddr),
    FIELD_U64_OF(struct hart, mcycle),
    FIELD_U64_OF(struct hart, minstret),
    FIELD_U64_ARRAY_OF(struct hart, mhpmcounter),
    FIELD_U64_ARRAY_OF(struct hart, mhpmevent),
    FIELD_U64_OF(struct hart, pins),
    FIELD_DERIVED_OF(struct hart, spare),
    FIELD_DERIVED_OF(struct hart, spare_32),
    FIELD_TABLE_END,
};

static int refuse(struct err *err, const char *field, uint64_t value)
{
    return err_set(err, -EPROTO, "field %s holds 0x%" PRIx64 ", which this hart cannot hold", field, value);
}

static int validate_pmp(const struct hart *hart, struct err *err)
{
    for (unsigned i = 0; i < HART_PMP_ENTRIES; i++) {
        if (!warl_pmpcfg_ok(hart->pmpcfg[i]))
            return err_set(err, -EPROTO, "field pmpcfg[%u] holds 0x%x, which this hart cannot hold", i,
                           (unsigned)hart->pmpcfg[i]);
        if (hart->pmpaddr[i] & ~WARL_PMPADDR)
            return err_set(err, -EPROTO, "field pmpaddr[%u] holds 0x%" PRIx64 ", which this hart cannot hold", i,
                           hart->pmpaddr[i]);
    }
    return 0;
}

/* A register's name, its value, and the bits it may have set. */
static int validate_masks(const struct hart *hart, struct err *err)
{
    const struct {
        const char *name;
        uint64_t value, legal;
    } row[] = {
        { "x[0]", hart->x[0], 0 },
        { "pc", hart->pc, ~UINT64_C(1) },
        { "fflags", hart->fflags, 31 },
        { "frm", hart->frm, 7 },
        { "stopped", hart->stopped, 0 },
        { "reserved_gpa", hart->reserved_gpa, (UINT64_C(1) << 56) - 4 },
        { "mstatus", hart->mstatus, WARL_MSTATUS_WRITE | WARL_MSTATUS_FIXED },
        { "medeleg", hart->medeleg, WARL_MEDELEG },
        { "mideleg", hart->mideleg, WARL_S_INTERRUPTS },
        { "mie", hart->mie, WARL_S_INTERRUPTS | WARL_M_INTERRUPTS },
        { "mepc", hart->mepc, ~UINT64_C(1) },
        { "menvcfg", hart->menvcfg, WARL_MENVCFG },
        { "mseccfg", hart->mseccfg, 0 },
        { "mip_soft", hart->mip_soft, WARL_S_INTERRUPTS },
        { "sepc", hart->sepc, ~UINT64_C(1) },
        { "senvcfg", hart->senvcfg, WARL_SENVCFG },
        { "mcountinhibit", hart->mcountinhibit, WARL_MCOUNTINHIBIT },
        { "pins", hart->pins, WARL_PINS },
    };
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++)
        if (row[i].value & ~row[i].legal)
            return refuse(err, row[i].name, row[i].value);
    for (unsigned i = 0; i < 3; i++) /* cycle, time and instret have registers of their own */
        if (hart->mhpmcounter[i] || hart->mhpmevent[i])
            return err_set(err, -EPROTO, "fields mhpmcounter[%u] and mhpmevent[%u] must be 0", i, i);
    return 0;
}

static int validate_hart(const void *object, struct err *err)
{
    const struct hart *hart = object;
    int failed = validate_masks(hart, err);
    if (failed)
        return failed;
    if (hart->priv != PRIV_U && hart->priv != PRIV_S && hart->priv != PRIV_M)
        return refuse(err, "priv", hart->priv);
    if (hart->hartid >= HART_MAX)
        return refuse(err, "hartid", hart->hartid);
    if ((hart->mstatus & (MSTATUS_UXL | MSTATUS_SXL)) != WARL_MSTATUS_FIXED || !warl_mpp_ok(hart->mstatus))
        return refuse(err, "mstatus", hart->mstatus);
    if (!warl_tvec_ok(hart->mtvec))
        return refuse(err, "mtvec", hart->mtvec);
    if (!warl_tvec_ok(hart->stvec))
        return refuse(err, "stvec", hart->stvec);
    if (!warl_cbie_ok(hart->menvcfg))
        return refuse(err, "menvcfg", hart->menvcfg);
    if (!warl_cbie_ok(hart->senvcfg))
        return refuse(err, "senvcfg", hart->senvcfg);
    if (!warl_satp_ok(hart->satp))
        return refuse(err, "satp", hart->satp);
    return validate_pmp(hart, err);
}

const struct state_desc hart_state = {
    .name = "godwit/hart",
    .version = 1,
    .min_version = 1,
    .object_size = sizeof(struct hart),
    .fields = hart_fields,
    .validate = validate_hart,
};

void hart_reset(struct hart *hart, uint64_t hartid, uint64_t pc)
{
    /* The wires belong to the devices, which go through their own reset. */
    uint64_t pins = atomic_load_explicit(&hart->pins, memory_order_relaxed);
    memset(hart, 0, sizeof(*hart));
    atomic_store_explicit(&hart->pins, pins, memory_order_relaxed);

    hart->hartid = hartid;
    hart->pc = pc;
    hart->priv = PRIV_M;
    hart->mstatus = WARL_MSTATUS_FIXED;
    /* The ISA leaves ADUE's reset value open. Set: a guest whose device tree names neither Svade nor Svadu expects
     * the hardware to update A and D, as machines of this kind did before menvcfg existed. */
    hart->menvcfg = MENVCFG_ADUE;
    hart->stimecmp = UINT64_MAX; /* open as well; this way no timer is pending when STCE is first set */
}

uint64_t hart_mip(const struct hart *hart, uint64_t ticks)
{
    /* Acquire: a device that stored data before it pulled the wire is seen to have done so. */
    uint64_t mip = hart->mip_soft | atomic_load_explicit(&hart->pins, memory_order_acquire);
    if (hart->menvcfg & MENVCFG_STCE) {
        mip &= ~IRQ_BIT(IRQ_S_TIMER);
        if (ticks >= hart->stimecmp)
            mip |= IRQ_BIT(IRQ_S_TIMER);
    }
    return mip;
}

static const char *const x_names[32] = {
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0",  "a1",  "a2", "a3", "a4", "a5",
    "a6",   "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
};

static const char *const f_names[32] = {
    "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0", "fs1", "fa0",  "fa1",  "fa2", "fa3", "fa4",  "fa5",
    "fa6", "fa7", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8", "ft9", "ft10", "ft11",
};

static void print_bank(const char *const names[32], char letter, const uint64_t *value, FILE *out)
{
    for (unsigned i = 0; i < 32; i++) {
        char name[16];
        snprintf(name, sizeof(name), "%c%u/%s", letter, i, names[i]);
        fprintf(out, " %-8s %016" PRIx64 "%s", name, value[i], i % 4 == 3 ? "\n" : "");
    }
}

void hart_print(const struct hart *hart, FILE *out)
{
    const struct {
        const char *name;
        uint64_t value;
    } csr[] = {
        { "mhartid", hart->hartid },    { "mstatus", hart->mstatus },   { "mip_soft", hart->mip_soft },
        { "pins", hart->pins },         { "mie", hart->mie },           { "mideleg", hart->mideleg },
        { "medeleg", hart->medeleg },   { "mtvec", hart->mtvec },       { "stvec", hart->stvec },
        { "mepc", hart->mepc },         { "sepc", hart->sepc },         { "mcause", hart->mcause },
        { "scause", hart->scause },     { "mtval", hart->mtval },       { "stval", hart->stval },
        { "mscratch", hart->mscratch }, { "sscratch", hart->sscratch }, { "satp", hart->satp },
        { "menvcfg", hart->menvcfg },   { "stimecmp", hart->stimecmp },
    };
    static const char priv_letter[4] = { 'U', 'S', '?', 'M' };
    fprintf(out, " pc       %016" PRIx64 "  %c%s\n", hart->pc, priv_letter[hart->priv & 3],
            hart->waiting ? "  waiting for an interrupt" : "");
    for (size_t i = 0; i < sizeof(csr) / sizeof(csr[0]); i++)
        fprintf(out, " %-8s %016" PRIx64 "\n", csr[i].name, csr[i].value);
    print_bank(x_names, 'x', hart->x, out);
    fprintf(out, " fflags   %02x  frm %u\n", hart->fflags, hart->frm);
    print_bank(f_names, 'f', hart->f, out);
}
