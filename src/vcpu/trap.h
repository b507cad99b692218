/* CSRs, traps, interrupts and privilege: everything that changes what the hart may do. Pure over struct hart.
 *
 * Called on the vCPU's thread only. Functions here never touch the TLB: they say in `effects` what the engine
 * has to do before the next instruction. */
#pragma once
#include "vcpu/hart.h"

enum hart_effect {
    EFFECT_NONE = 0,
    EFFECT_MODE = 1,       /* priv, SUM, MXR, MPRV or MPP changed: choose the TLB again */
    EFFECT_FLUSH = 2,      /* PMP, menvcfg.PBMTE/ADUE changed: drop every translation */
    EFFECT_INTERRUPTS = 4, /* look for pending interrupts before the next instruction */
    EFFECT_TIMER = 8,      /* stimecmp or menvcfg.STCE changed: program the hart's timer */
    EFFECT_FRM = 16,       /* frm changed */
    EFFECT_SPACE = 32,     /* satp changed: choose the address space, what is in others stays */
};

/* CSR instructions. csr is the 12-bit number. ticks is guest `time`.
 * hart_csr_read: false = illegal instruction. `writes` says whether the instruction will also write (read-only
 * CSRs then fault). hart_csr_write: false = illegal instruction. */
bool hart_csr_read(struct hart *hart, unsigned csr, bool writes, uint64_t ticks, uint64_t *value);
bool hart_csr_write(struct hart *hart, unsigned csr, uint64_t value, unsigned *effects);

/* What csrrs and csrrc set and clear bits of, given what hart_csr_read() gave for rd. The same value but for mip
 * and sip, whose wires are seen in rd and must not be written back: a wire that is high at that moment would stick in
 * the software bit beside it. */
uint64_t hart_csr_rmw_base(const struct hart *hart, unsigned csr, uint64_t read);

/* Take an exception or an interrupt at hart->pc (already the pc that mepc/sepc gets): delegation, cause, tval,
 * status stack, vector. Sets pc and priv. Effects: EFFECT_MODE always. */
void hart_trap(struct hart *hart, uint64_t cause, uint64_t tval, unsigned *effects);

/* mret, sret: false = illegal instruction. Clears no reservation. */
bool hart_mret(struct hart *hart, unsigned *effects);
bool hart_sret(struct hart *hart, unsigned *effects);

/* The interrupt to take now (cause with CAUSE_INTERRUPT set), or 0. Priority MEI MSI MTI SEI SSI STI. */
uint64_t hart_pending_interrupt(const struct hart *hart, uint64_t ticks);

/* Does wfi end: any bit of mip & mie, whatever mstatus and delegation say. */
bool hart_wakes(const struct hart *hart, uint64_t ticks);

/* Legality of wfi, sfence.vma and friends, sret, cbo.* in the present mode; true = allowed. */
bool hart_may_wfi(const struct hart *hart);
bool hart_may_sfence(const struct hart *hart);
bool hart_may_cbo_zero(const struct hart *hart);
bool hart_may_cbo_clean(const struct hart *hart);
bool hart_may_cbo_inval(const struct hart *hart, bool *acts_as_flush);
