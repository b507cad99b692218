/* What each CSR of this hart can hold. One place for both ways in: CSR writes drop what is not here, and a loaded
 * hart that holds it is refused.
 *
 * The machine is RV64IMAFDC with M, S and U, Sstc, Zicntr, Zihpm, Svinval, Svnapot, Svpbmt, Svvptc and Svadu. */
#pragma once
#include "vcpu/hart.h"

#define WARL_MISA_BIT(letter) (UINT64_C(1) << ((letter) - 'A'))
#define WARL_MISA                                                                                                      \
    (UINT64_C(2) << 62 | WARL_MISA_BIT('I') | WARL_MISA_BIT('M') | WARL_MISA_BIT('A') | WARL_MISA_BIT('F') |           \
     WARL_MISA_BIT('D') | WARL_MISA_BIT('C') | WARL_MISA_BIT('S') | WARL_MISA_BIT('U'))

#define WARL_S_INTERRUPTS (IRQ_BIT(IRQ_S_SOFT) | IRQ_BIT(IRQ_S_TIMER) | IRQ_BIT(IRQ_S_EXT))
#define WARL_M_INTERRUPTS (IRQ_BIT(IRQ_M_SOFT) | IRQ_BIT(IRQ_M_TIMER) | IRQ_BIT(IRQ_M_EXT))
#define WARL_PINS         (WARL_M_INTERRUPTS | IRQ_BIT(IRQ_S_EXT) | IRQ_BIT(IRQ_S_SOFT))

/* Everything but ecall from M and the reserved codes 10 and 14. */
#define WARL_MEDELEG UINT64_C(0xb3ff)

/* Both XLEN fields are read-only 2 (64 bits); stored as such. SD is computed when mstatus is read, never stored. */
#define WARL_MSTATUS_FIXED (UINT64_C(2) << 32 | UINT64_C(2) << 34)
#define WARL_SSTATUS_WRITE (MSTATUS_SIE | MSTATUS_SPIE | MSTATUS_SPP | MSTATUS_FS | MSTATUS_SUM | MSTATUS_MXR)
#define WARL_MSTATUS_WRITE                                                                                             \
    (WARL_SSTATUS_WRITE | MSTATUS_MIE | MSTATUS_MPIE | MSTATUS_MPP | MSTATUS_MPRV | MSTATUS_TVM | MSTATUS_TW |         \
     MSTATUS_TSR)

#define WARL_SENVCFG (MENVCFG_FIOM | MENVCFG_CBIE | MENVCFG_CBCFE | MENVCFG_CBZE)
#define WARL_MENVCFG (WARL_SENVCFG | MENVCFG_ADUE | MENVCFG_PBMTE | MENVCFG_STCE)

#define WARL_MCOUNTINHIBIT (~UINT32_C(2)) /* `time` cannot be inhibited */

/* PMP: 4-byte grain, 56-bit physical addresses. */
#define WARL_PMPADDR ((UINT64_C(1) << 54) - 1)
enum { PMP_R = 1, PMP_W = 2, PMP_X = 4, PMP_A = 0x18, PMP_A_TOR = 0x08, PMP_L = 0x80, WARL_PMPCFG = 0x9f };

enum { SATP_BARE = 0, SATP_SV39 = 8, SATP_SV48 = 9, SATP_SV57 = 10 };

static inline bool warl_satp_ok(uint64_t satp)
{
    unsigned mode = (unsigned)(satp >> 60);
    return mode == SATP_BARE || (mode >= SATP_SV39 && mode <= SATP_SV57);
}

static inline bool warl_tvec_ok(uint64_t tvec)
{
    return (tvec & 3) <= 1;
}

static inline bool warl_mpp_ok(uint64_t mstatus)
{
    return (mstatus & MSTATUS_MPP) != UINT64_C(2) << 11;
}

static inline bool warl_cbie_ok(uint64_t envcfg)
{
    return (envcfg & MENVCFG_CBIE) != UINT64_C(2) << 4;
}

static inline bool warl_pmpcfg_ok(uint8_t cfg)
{
    return (cfg & ~WARL_PMPCFG) == 0 && (cfg & (PMP_R | PMP_W)) != PMP_W;
}
