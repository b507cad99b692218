/* CSRs, environment calls, returns, wfi, fences of the privileged kind. What they mean stands in trap.h. */
#include "vcpu/engine.h"

enum csr_how { CSR_WRITE, CSR_SET, CSR_CLEAR };

/* CSRs that this file must know by number. */
enum {
    CSR_SIP = 0x144,
    CSR_MCOUNTINHIBIT = 0x320,
    CSR_MIP = 0x344,
    CSR_MCYCLE = 0xb00,
    CSR_MINSTRET = 0xb02,
    CSR_TIME = 0xc01
};

static uint64_t ticks_for(struct vcpu *v, unsigned csr)
{
    return csr == CSR_TIME || csr == CSR_SIP || csr == CSR_MIP ? guest_clock_ticks(v->clock) : 0;
}

static bool counts_instructions(unsigned csr)
{
    return csr == CSR_MCYCLE || csr == CSR_MINSTRET || csr == CSR_MCOUNTINHIBIT;
}

/* false: trapped. *leave: what follows may mean something else. */
static bool csr_access(struct vcpu *v, struct uop *u, enum csr_how how, uint64_t operand, bool writes, bool *leave)
{
    unsigned csr = (unsigned)u->imm, effects = 0;
    uint64_t old = 0;

    engine_sync_counters(v, u->left);
    if (!hart_csr_read(&v->hart, csr, writes, ticks_for(v, csr), &old)) {
        engine_illegal(v, u);
        return false;
    }
    if (writes) {
        uint64_t base = hart_csr_rmw_base(&v->hart, csr, old);
        uint64_t value = how == CSR_WRITE ? operand : how == CSR_SET ? base | operand : base & ~operand;

        if (!hart_csr_write(&v->hart, csr, value, &effects)) {
            engine_illegal(v, u);
            return false;
        }
        if (counts_instructions(csr))
            v->counted++; /* a write takes the place of this instruction's own count */
    }
    v->hart.x[u->rd] = old;
    v->hart.x[0] = 0;
    *leave = effects && engine_apply(v, effects);
    return true;
}

static __attribute__((noinline)) int csr_run(struct vcpu *v, struct uop *u, enum csr_how how, uint64_t operand,
                                             bool writes)
{
    bool leave = false;

    if (!csr_access(v, u, how, operand, writes, &leave))
        return -1;
    return leave;
}

#define CSR(name, how, operand, writes)                                                                                \
    OP(name)                                                                                                           \
    {                                                                                                                  \
        int left = csr_run(v, u, how, operand, writes);                                                                \
        if (left < 0)                                                                                                  \
            return NULL;                                                                                               \
        if (left)                                                                                                      \
            return engine_end_next(v, u);                                                                              \
        NEXT;                                                                                                          \
    }

CSR(csrrw, CSR_WRITE, XR(rs1), true)
CSR(csrrs, CSR_SET, XR(rs1), u->rs1 != 0)
CSR(csrrc, CSR_CLEAR, XR(rs1), u->rs1 != 0)
CSR(csrrwi, CSR_WRITE, u->rs1, true)
CSR(csrrsi, CSR_SET, u->rs1, u->rs1 != 0)
CSR(csrrci, CSR_CLEAR, u->rs1, u->rs1 != 0)

OP(ecall)
{
    uint64_t cause = v->hart.priv == PRIV_U ? CAUSE_ECALL_U : v->hart.priv == PRIV_S ? CAUSE_ECALL_S : CAUSE_ECALL_M;

    return engine_trap(v, u, cause, 0);
}

OP(ebreak)
{
    return engine_trap(v, u, CAUSE_BREAKPOINT, v->page_va + u->off);
}

static struct uop *trap_return(struct vcpu *v, struct uop *u, bool (*how)(struct hart *hart, unsigned *effects))
{
    unsigned effects = 0;

    if (!how(&v->hart, &effects))
        return engine_illegal(v, u);
    engine_end(v, u); /* hart.pc is set */
    engine_apply(v, effects);
    return NULL;
}

OP(mret)
{
    return trap_return(v, u, hart_mret);
}

OP(sret)
{
    return trap_return(v, u, hart_sret);
}

OP(wfi)
{
    if (!hart_may_wfi(&v->hart))
        return engine_illegal(v, u);
    v->hart.waiting = true;
    atomic_store_explicit(&v->exit_request, true, memory_order_relaxed);
    atomic_store_explicit(&v->entry_generation, 0, memory_order_relaxed);
    return engine_end_next(v, u);
}

static struct uop *fence_vma(struct vcpu *v, struct uop *u)
{
    if (!hart_may_sfence(&v->hart))
        return engine_illegal(v, u);
    engine_fence(v, u->rs1 != 0, XR(rs1), u->rs2 != 0, XR(rs2));
    return engine_end_next(v, u);
}

OP(sfence_vma)
{
    return fence_vma(v, u);
}

OP(sinval_vma)
{
    return fence_vma(v, u);
}

/* The two that order sinval.vma: every sinval.vma here is complete when it ends. TVM does not apply; U may not. */
OP(sfence_w_inval)
{
    if (v->hart.priv == PRIV_U)
        return engine_illegal(v, u);
    return engine_end_next(v, u);
}

OP(sfence_inval_ir)
{
    if (v->hart.priv == PRIV_U)
        return engine_illegal(v, u);
    return engine_end_next(v, u);
}

OP(fence_i)
{
    engine_fence_i(v);
    return engine_end_next(v, u);
}
