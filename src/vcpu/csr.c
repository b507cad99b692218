/* The CSR table: one row per register or range of registers; a number without a row is an illegal instruction. */
#include <assert.h>
#include <stddef.h>

#include "vcpu/trap.h"
#include "vcpu/warl.h"

enum {
    CSR_NUMBERS = 4096,
    CSR_CYCLE = 0xc00,
    CSR_TIME = 0xc01,
    CSR_SIP = 0x144,
    CSR_MIP = 0x344,
    CSR_PMPCFG0 = 0x3a0,
    CSR_PMPADDR0 = 0x3b0,
    CSR_MCYCLE = 0xb00,
    CSR_MHPMEVENT0 = 0x320,
};

struct csr_row {
    /* Access beyond what the number itself says (bits 9:8 privilege, 11:10 read-only); NULL: none. */
    bool (*allowed)(const struct hart *hart, unsigned csr);
    uint64_t (*read)(const struct hart *hart, unsigned csr, uint64_t ticks);
    void (*write)(struct hart *hart, unsigned csr, uint64_t value, unsigned *effects); /* NULL: writes are ignored */
};

/* --- floating point ------------------------------------------------------------------------------------ */

static bool fp_on(const struct hart *hart, unsigned csr)
{
    (void)csr;
    return hart->mstatus & MSTATUS_FS;
}

static uint64_t read_fp(const struct hart *hart, unsigned csr, uint64_t ticks)
{
    (void)ticks;
    switch (csr) {
    case 1: return hart->fflags;
    case 2: return hart->frm;
    default: return (uint64_t)hart->frm << 5 | hart->fflags;
    }
}

static void write_fp(struct hart *hart, unsigned csr, uint64_t value, unsigned *effects)
{
    uint8_t frm = hart->frm;
    if (csr & 1)
        hart->fflags = value & 31;
    if (csr == 2)
        hart->frm = value & 7;
    if (csr == 3)
        hart->frm = value >> 5 & 7;
    hart->mstatus |= MSTATUS_FS; /* dirty */
    if (hart->frm != frm)
        *effects |= EFFECT_FRM;
}

/* --- counters ------------------------------------------------------------------------------------------ */

static bool counter_allowed(const struct hart *hart, unsigned csr)
{
    uint32_t bit = UINT32_C(1) << (csr & 31);
    if (hart->priv == PRIV_M)
        return true;
    if (!(hart->mcounteren & bit))
        return false;
    return hart->priv == PRIV_S || (hart->scounteren & bit);
}

/* Both the user's read-only views (0xc00) and the machine's registers (0xb00). */
static uint64_t read_counter(const struct hart *hart, unsigned csr, uint64_t ticks)
{
    switch (csr & 31) {
    case 0: return hart->mcycle;
    case 1: return ticks;
    case 2: return hart->minstret;
    default: return hart->mhpmcounter[csr & 31];
    }
}

static void write_counter(struct hart *hart, unsigned csr, uint64_t value, unsigned *effects)
{
    (void)effects;
    switch (csr & 31) {
    case 0: hart->mcycle = value; break;
    case 2: hart->minstret = value; break;
    default: hart->mhpmcounter[csr & 31] = value; break;
    }
}

static uint64_t read_event(const struct hart *hart, unsigned csr, uint64_t ticks)
{
    (void)ticks;
    return hart->mhpmevent[csr - CSR_MHPMEVENT0];
}

static void write_event(struct hart *hart, unsigned csr, uint64_t value, unsigned *effects)
{
    (void)effects;
    hart->mhpmevent[csr - CSR_MHPMEVENT0] = value;
}

/* --- status -------------------------------------------------------------------------------------------- */

static uint64_t status_read(uint64_t mstatus)
{
    return mstatus | ((mstatus & MSTATUS_FS) == MSTATUS_FS ? MSTATUS_SD : 0);
}

static void status_write(struct hart *hart, uint64_t value, uint64_t mask, unsigned *effects)
{
    uint64_t old = hart->mstatus;
    if (!warl_mpp_ok(value))
        mask &= ~MSTATUS_MPP;
    hart->mstatus = (old & ~mask) | (value & mask);
    uint64_t changed = old ^ hart->mstatus;
    if (changed & (MSTATUS_SUM | MSTATUS_MXR | MSTATUS_MPRV | MSTATUS_MPP))
        *effects |= EFFECT_MODE;
    if (changed & (MSTATUS_SIE | MSTATUS_MIE))
        *effects |= EFFECT_INTERRUPTS;
}

static uint64_t read_mstatus(const struct hart *hart, unsigned csr, uint64_t ticks)
{
    (void)csr, (void)ticks;
    return status_read(hart->mstatus);
}

static void write_mstatus(struct hart *hart, unsigned csr, uint64_t value, unsigned *effects)
{
    (void)csr;
    status_write(hart, value, WARL_MSTATUS_WRITE, effects);
}

static uint64_t read_sstatus(const struct hart *hart, unsigned csr, uint64_t ticks)
{
    (void)csr, (void)ticks;
    return status_read(hart->mstatus & (WARL_SSTATUS_WRITE | MSTATUS_UXL));
}

static void write_sstatus(struct hart *hart, unsigned csr, uint64_t value, unsigned *effects)
{
    (void)csr;
    status_write(hart, value, WARL_SSTATUS_WRITE, effects);
}

/* --- interrupts ---------------------------------------------------------------------------------------- */

static uint64_t read_mip(const struct hart *hart, unsigned csr, uint64_t ticks)
{
    (void)csr;
    return hart_mip(hart, ticks);
}

static void mip_write(struct hart *hart, uint64_t value, uint64_t mask, unsigned *effects)
{
    hart->mip_soft = (hart->mip_soft & ~mask) | (value & mask);
    *effects |= EFFECT_INTERRUPTS;
}

static void write_mip(struct hart *hart, unsigned csr, uint64_t value, unsigned *effects)
{
    (void)csr;
    uint64_t mask = WARL_S_INTERRUPTS;
    if (hart->menvcfg & MENVCFG_STCE) /* STIP then follows stimecmp alone */
        mask &= ~IRQ_BIT(IRQ_S_TIMER);
    mip_write(hart, value, mask, effects);
}

static uint64_t read_sip(const struct hart *hart, unsigned csr, uint64_t ticks)
{
    (void)csr;
    return hart_mip(hart, ticks) & hart->mideleg;
}

static void write_sip(struct hart *hart, unsigned csr, uint64_t value, unsigned *effects)
{
    (void)csr;
    mip_write(hart, value, hart->mideleg & IRQ_BIT(IRQ_S_SOFT), effects);
}

static uint64_t read_sie(const struct hart *hart, unsigned csr, uint64_t ticks)
{
    (void)csr, (void)ticks;
    return hart->mie & hart->mideleg;
}

static void write_sie(struct hart *hart, unsigned csr, uint64_t value, unsigned *effects)
{
    (void)csr;
    hart->mie = (hart->mie & ~hart->mideleg) | (value & hart->mideleg);
    *effects |= EFFECT_INTERRUPTS;
}

static void write_mie(struct hart *hart, unsigned csr, uint64_t value, unsigned *effects)
{
    (void)csr;
    hart->mie = value & (WARL_S_INTERRUPTS | WARL_M_INTERRUPTS);
    *effects |= EFFECT_INTERRUPTS;
}

static void write_mideleg(struct hart *hart, unsigned csr, uint64_t value, unsigned *effects)
{
    (void)csr;
    hart->mideleg = value & WARL_S_INTERRUPTS;
    *effects |= EFFECT_INTERRUPTS;
}

/* --- environment, timer, translation -------------------------------------------------------------------- */

static uint64_t envcfg_warl(uint64_t old, uint64_t value, uint64_t mask)
{
    if (!warl_cbie_ok(value))
        mask &= ~MENVCFG_CBIE;
    return (old & ~mask) | (value & mask);
}

static void write_menvcfg(struct hart *hart, unsigned csr, uint64_t value, unsigned *effects)
{
    (void)csr;
    uint64_t old = hart->menvcfg;
    hart->menvcfg = envcfg_warl(old, value, WARL_MENVCFG);
    uint64_t changed = old ^ hart->menvcfg;
    if (changed & (MENVCFG_PBMTE | MENVCFG_ADUE))
        *effects |= EFFECT_FLUSH;
    if (changed & MENVCFG_STCE)
        *effects |= EFFECT_TIMER | EFFECT_INTERRUPTS;
}

static void write_senvcfg(struct hart *hart, unsigned csr, uint64_t value, unsigned *effects)
{
    (void)csr, (void)effects;
    hart->senvcfg = envcfg_warl(hart->senvcfg, value, WARL_SENVCFG);
}

static bool stimecmp_allowed(const struct hart *hart, unsigned csr)
{
    (void)csr;
    return hart->priv == PRIV_M || ((hart->menvcfg & MENVCFG_STCE) && (hart->mcounteren & 2));
}

static void write_stimecmp(struct hart *hart, unsigned csr, uint64_t value, unsigned *effects)
{
    (void)csr;
    hart->stimecmp = value;
    *effects |= EFFECT_TIMER | EFFECT_INTERRUPTS;
}

static bool satp_allowed(const struct hart *hart, unsigned csr)
{
    (void)csr;
    return hart->priv == PRIV_M || !(hart->mstatus & MSTATUS_TVM);
}

static void write_satp(struct hart *hart, unsigned csr, uint64_t value, unsigned *effects)
{
    (void)csr;
    if (!warl_satp_ok(value) || value == hart->satp)
        return;
    hart->satp = value;
    *effects |= EFFECT_SPACE;
}

/* --- physical memory protection -------------------------------------------------------------------------- */

static uint64_t read_pmpcfg(const struct hart *hart, unsigned csr, uint64_t ticks)
{
    (void)ticks;
    unsigned first = (csr - CSR_PMPCFG0) * 4; /* RV64: even numbers only, eight entries each */
    uint64_t value = 0;
    for (unsigned i = 0; i < 8; i++)
        value |= (uint64_t)hart->pmpcfg[first + i] << (8 * i);
    return value;
}

static void write_pmpcfg(struct hart *hart, unsigned csr, uint64_t value, unsigned *effects)
{
    unsigned first = (csr - CSR_PMPCFG0) * 4;
    for (unsigned i = 0; i < 8; i++) {
        uint8_t *cfg = &hart->pmpcfg[first + i];
        uint8_t next = value >> (8 * i) & WARL_PMPCFG;
        if (*cfg & PMP_L)
            continue;
        if (!(next & PMP_R)) /* W without R is reserved */
            next &= (uint8_t)~PMP_W;
        if (next != *cfg)
            *effects |= EFFECT_FLUSH;
        *cfg = next;
    }
}

static uint64_t read_pmpaddr(const struct hart *hart, unsigned csr, uint64_t ticks)
{
    (void)ticks;
    return hart->pmpaddr[csr - CSR_PMPADDR0];
}

static void write_pmpaddr(struct hart *hart, unsigned csr, uint64_t value, unsigned *effects)
{
    unsigned i = csr - CSR_PMPADDR0;
    if (hart->pmpcfg[i] & PMP_L)
        return;
    /* A locked top-of-range entry also locks its bottom, the address before it. */
    if (i + 1 < HART_PMP_ENTRIES && (hart->pmpcfg[i + 1] & PMP_L) && (hart->pmpcfg[i + 1] & PMP_A) == PMP_A_TOR)
        return;
    value &= WARL_PMPADDR;
    if (value != hart->pmpaddr[i])
        *effects |= EFFECT_FLUSH;
    hart->pmpaddr[i] = value;
}

/* --- plain registers -------------------------------------------------------------------------------------- */

static uint64_t read_zero(const struct hart *hart, unsigned csr, uint64_t ticks)
{
    (void)hart, (void)csr, (void)ticks;
    return 0;
}

static uint64_t read_misa(const struct hart *hart, unsigned csr, uint64_t ticks)
{
    (void)hart, (void)csr, (void)ticks;
    return WARL_MISA;
}

#define PLAIN_READ(member)                                                                                             \
    static uint64_t read_##member(const struct hart *hart, unsigned csr, uint64_t ticks)                               \
    {                                                                                                                  \
        (void)csr, (void)ticks;                                                                                        \
        return hart->member;                                                                                           \
    }
#define PLAIN_WRITE(member, expression)                                                                                \
    static void write_##member(struct hart *hart, unsigned csr, uint64_t value, unsigned *effects)                     \
    {                                                                                                                  \
        (void)csr, (void)effects;                                                                                      \
        hart->member = (expression);                                                                                   \
    }
#define PLAIN(member, expression) PLAIN_READ(member) PLAIN_WRITE(member, expression)

PLAIN_READ(hartid)
PLAIN_READ(mideleg)
PLAIN_READ(mie)
PLAIN_READ(menvcfg)
PLAIN_READ(senvcfg)
PLAIN_READ(stimecmp)
PLAIN_READ(satp)
PLAIN(medeleg, value &WARL_MEDELEG)
PLAIN(mtvec, warl_tvec_ok(value) ? value : hart->mtvec)
PLAIN(stvec, warl_tvec_ok(value) ? value : hart->stvec)
PLAIN(mscratch, value)
PLAIN(sscratch, value)
PLAIN(mepc, value & ~UINT64_C(1))
PLAIN(sepc, value & ~UINT64_C(1))
PLAIN(mcause, value)
PLAIN(scause, value)
PLAIN(mtval, value)
PLAIN(stval, value)
PLAIN(mcounteren, (uint32_t)value)
PLAIN(scounteren, (uint32_t)value)
PLAIN(mcountinhibit, (uint32_t)value &WARL_MCOUNTINHIBIT)

/* --- the table -------------------------------------------------------------------------------------------- */

static const struct csr_row table[CSR_NUMBERS] = {
    [0x001 ... 0x003] = { fp_on, read_fp, write_fp },

    [0x100] = { NULL, read_sstatus, write_sstatus },
    [0x104] = { NULL, read_sie, write_sie },
    [0x105] = { NULL, read_stvec, write_stvec },
    [0x106] = { NULL, read_scounteren, write_scounteren },
    [0x10a] = { NULL, read_senvcfg, write_senvcfg },
    [0x140] = { NULL, read_sscratch, write_sscratch },
    [0x141] = { NULL, read_sepc, write_sepc },
    [0x142] = { NULL, read_scause, write_scause },
    [0x143] = { NULL, read_stval, write_stval },
    [CSR_SIP] = { NULL, read_sip, write_sip },
    [0x14d] = { stimecmp_allowed, read_stimecmp, write_stimecmp },
    [0x180] = { satp_allowed, read_satp, write_satp },

    [0x300] = { NULL, read_mstatus, write_mstatus },
    [0x301] = { NULL, read_misa, NULL },
    [0x302] = { NULL, read_medeleg, write_medeleg },
    [0x303] = { NULL, read_mideleg, write_mideleg },
    [0x304] = { NULL, read_mie, write_mie },
    [0x305] = { NULL, read_mtvec, write_mtvec },
    [0x306] = { NULL, read_mcounteren, write_mcounteren },
    [0x30a] = { NULL, read_menvcfg, write_menvcfg },
    [0x320] = { NULL, read_mcountinhibit, write_mcountinhibit },
    [0x323 ... 0x33f] = { NULL, read_event, write_event },
    [0x340] = { NULL, read_mscratch, write_mscratch },
    [0x341] = { NULL, read_mepc, write_mepc },
    [0x342] = { NULL, read_mcause, write_mcause },
    [0x343] = { NULL, read_mtval, write_mtval },
    [CSR_MIP] = { NULL, read_mip, write_mip },
    [CSR_PMPCFG0] = { NULL, read_pmpcfg, write_pmpcfg },
    [CSR_PMPCFG0 + 2] = { NULL, read_pmpcfg, write_pmpcfg },
    [CSR_PMPADDR0... CSR_PMPADDR0 + HART_PMP_ENTRIES - 1] = { NULL, read_pmpaddr, write_pmpaddr },
    [0x747] = { NULL, read_zero, NULL }, /* mseccfg */
    /* tselect, tdata1 to 3: one slot, of type 0, which says that no trigger is there (RISC-V Debug, Sdtrig) */
    [0x7a0 ... 0x7a3] = { NULL, read_zero, NULL },

    [CSR_MCYCLE] = { NULL, read_counter, write_counter },
    [CSR_MCYCLE + 2 ... CSR_MCYCLE + 31] = { NULL, read_counter, write_counter },
    [CSR_CYCLE... CSR_CYCLE + 31] = { counter_allowed, read_counter, NULL },

    [0xf11 ... 0xf13] = { NULL, read_zero, NULL }, /* mvendorid, marchid, mimpid: not a commercial core */
    [0xf14] = { NULL, read_hartid, NULL },
    [0xf15] = { NULL, read_zero, NULL }, /* mconfigptr */
};

static const struct csr_row *find(const struct hart *hart, unsigned csr, bool writes)
{
    assert(csr < CSR_NUMBERS);
    const struct csr_row *row = &table[csr];
    if (!row->read || hart->priv < (csr >> 8 & 3) || (writes && csr >> 10 == 3))
        return NULL;
    if (row->allowed && !row->allowed(hart, csr))
        return NULL;
    return row;
}

bool hart_csr_read(struct hart *hart, unsigned csr, bool writes, uint64_t ticks, uint64_t *value)
{
    const struct csr_row *row = find(hart, csr, writes);
    if (!row)
        return false;
    *value = row->read(hart, csr, ticks);
    return true;
}

uint64_t hart_csr_rmw_base(const struct hart *hart, unsigned csr, uint64_t read)
{
    return csr == CSR_MIP || csr == CSR_SIP ? (read & ~WARL_PINS) | (hart->mip_soft & WARL_PINS) : read;
}

bool hart_csr_write(struct hart *hart, unsigned csr, uint64_t value, unsigned *effects)
{
    const struct csr_row *row = find(hart, csr, true);
    if (!row)
        return false;
    if (row->write)
        row->write(hart, csr, value, effects);
    return true;
}
