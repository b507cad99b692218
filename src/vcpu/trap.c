#include "vcpu/trap.h"

#include <assert.h>

#include "vcpu/warl.h"

static bool delegated(const struct hart *hart, uint64_t cause)
{
    if (hart->priv == PRIV_M) /* a trap never goes to a less privileged mode */
        return false;
    uint64_t deleg = cause & CAUSE_INTERRUPT ? hart->mideleg : hart->medeleg;
    unsigned code = (unsigned)(cause & 63);
    return deleg >> code & 1;
}

static uint64_t vector(uint64_t tvec, uint64_t cause)
{
    uint64_t base = tvec & ~UINT64_C(3);
    if ((tvec & 3) == 1 && (cause & CAUSE_INTERRUPT))
        base += 4 * (cause & ~CAUSE_INTERRUPT);
    return base;
}

static void trap_to_s(struct hart *hart, uint64_t cause, uint64_t tval)
{
    uint64_t status = hart->mstatus & ~(MSTATUS_SPIE | MSTATUS_SPP | MSTATUS_SIE);
    if (hart->mstatus & MSTATUS_SIE)
        status |= MSTATUS_SPIE;
    if (hart->priv == PRIV_S)
        status |= MSTATUS_SPP;
    hart->mstatus = status;
    hart->sepc = hart->pc;
    hart->scause = cause;
    hart->stval = tval;
    hart->pc = vector(hart->stvec, cause);
    hart->priv = PRIV_S;
}

static void trap_to_m(struct hart *hart, uint64_t cause, uint64_t tval)
{
    uint64_t status = hart->mstatus & ~(MSTATUS_MPIE | MSTATUS_MPP | MSTATUS_MIE);
    if (hart->mstatus & MSTATUS_MIE)
        status |= MSTATUS_MPIE;
    hart->mstatus = status | (uint64_t)hart->priv << 11;
    hart->mepc = hart->pc;
    hart->mcause = cause;
    hart->mtval = tval;
    hart->pc = vector(hart->mtvec, cause);
    hart->priv = PRIV_M;
}

void hart_trap(struct hart *hart, uint64_t cause, uint64_t tval, unsigned *effects)
{
    assert((cause & ~CAUSE_INTERRUPT) < 64);
    if (delegated(hart, cause))
        trap_to_s(hart, cause, tval);
    else
        trap_to_m(hart, cause, tval);
    /* Also look again: taking an S interrupt leaves those of M enabled, which outrank it. */
    *effects |= EFFECT_MODE | EFFECT_INTERRUPTS;
}

bool hart_mret(struct hart *hart, unsigned *effects)
{
    if (hart->priv != PRIV_M)
        return false;
    uint64_t status = hart->mstatus;
    uint8_t to = (uint8_t)((status & MSTATUS_MPP) >> 11);
    uint64_t next = status & ~(MSTATUS_MIE | MSTATUS_MPP); /* MPP becomes U */
    if (status & MSTATUS_MPIE)
        next |= MSTATUS_MIE;
    next |= MSTATUS_MPIE;
    if (to != PRIV_M)
        next &= ~MSTATUS_MPRV;
    hart->mstatus = next;
    hart->priv = to;
    hart->pc = hart->mepc;
    *effects |= EFFECT_MODE | EFFECT_INTERRUPTS;
    return true;
}

bool hart_sret(struct hart *hart, unsigned *effects)
{
    if (hart->priv == PRIV_U || (hart->priv == PRIV_S && (hart->mstatus & MSTATUS_TSR)))
        return false;
    uint64_t status = hart->mstatus;
    uint64_t next = status & ~(MSTATUS_SIE | MSTATUS_SPP | MSTATUS_MPRV); /* the new mode is never M */
    if (status & MSTATUS_SPIE)
        next |= MSTATUS_SIE;
    next |= MSTATUS_SPIE;
    hart->mstatus = next;
    hart->priv = status & MSTATUS_SPP ? PRIV_S : PRIV_U;
    hart->pc = hart->sepc;
    *effects |= EFFECT_MODE | EFFECT_INTERRUPTS;
    return true;
}

static uint64_t highest(uint64_t pending)
{
    static const uint8_t order[] = { IRQ_M_EXT, IRQ_M_SOFT, IRQ_M_TIMER, IRQ_S_EXT, IRQ_S_SOFT, IRQ_S_TIMER };
    for (unsigned i = 0; i < sizeof(order); i++)
        if (pending & IRQ_BIT(order[i]))
            return CAUSE_INTERRUPT | order[i];
    return 0;
}

uint64_t hart_pending_interrupt(const struct hart *hart, uint64_t ticks)
{
    uint64_t pending = hart_mip(hart, ticks) & hart->mie;
    if (!pending)
        return 0;
    if (hart->priv < PRIV_M || (hart->mstatus & MSTATUS_MIE)) {
        uint64_t cause = highest(pending & ~hart->mideleg);
        if (cause)
            return cause;
    }
    if (hart->priv < PRIV_S || (hart->priv == PRIV_S && (hart->mstatus & MSTATUS_SIE)))
        return highest(pending & hart->mideleg);
    return 0;
}

bool hart_wakes(const struct hart *hart, uint64_t ticks)
{
    return (hart_mip(hart, ticks) & hart->mie) != 0;
}

bool hart_may_wfi(const struct hart *hart)
{
    /* U never: with S implemented, wfi there may only be a bounded wait, and this machine has none. */
    return hart->priv == PRIV_M || (hart->priv == PRIV_S && !(hart->mstatus & MSTATUS_TW));
}

bool hart_may_sfence(const struct hart *hart)
{
    return hart->priv == PRIV_M || (hart->priv == PRIV_S && !(hart->mstatus & MSTATUS_TVM));
}

/* An enable bit in menvcfg rules S and U, the same one in senvcfg rules U. */
static bool enabled_below(const struct hart *hart, uint64_t bit)
{
    if (hart->priv == PRIV_M)
        return true;
    if (!(hart->menvcfg & bit))
        return false;
    return hart->priv == PRIV_S || (hart->senvcfg & bit);
}

bool hart_may_cbo_zero(const struct hart *hart)
{
    return enabled_below(hart, MENVCFG_CBZE);
}

bool hart_may_cbo_clean(const struct hart *hart)
{
    return enabled_below(hart, MENVCFG_CBCFE);
}

bool hart_may_cbo_inval(const struct hart *hart, bool *acts_as_flush)
{
    const uint64_t flush = UINT64_C(1) << 4; /* CBIE 0 is illegal, 1 flushes, 3 invalidates */
    *acts_as_flush = false;
    if (hart->priv == PRIV_M)
        return true;
    if (!(hart->menvcfg & MENVCFG_CBIE) || (hart->priv == PRIV_U && !(hart->senvcfg & MENVCFG_CBIE)))
        return false;
    *acts_as_flush =
        (hart->menvcfg & MENVCFG_CBIE) == flush || (hart->priv == PRIV_U && (hart->senvcfg & MENVCFG_CBIE) == flush);
    return true;
}
