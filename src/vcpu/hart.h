/* A hart's architectural state (RISC-V Unprivileged and Privileged ISA), and the tables that carry it.
 *
 * Owner: the vCPU's own thread while it runs; anybody while the machine is paused. The one exception is `pins`,
 * which device threads change. Nothing in here is cached or derived: this struct is what migrates. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/fields.h"

enum hart_priv { PRIV_U = 0, PRIV_S = 1, PRIV_M = 3 };

enum { HART_PMP_ENTRIES = 16, HART_MAX = 64, HART_COUNTERS = 32 };

/* mip / mie bits */
enum {
    IRQ_S_SOFT = 1,
    IRQ_M_SOFT = 3,
    IRQ_S_TIMER = 5,
    IRQ_M_TIMER = 7,
    IRQ_S_EXT = 9,
    IRQ_M_EXT = 11,
};
#define IRQ_BIT(irq) (UINT64_C(1) << (irq))

/* mcause / scause exception codes */
enum trap_cause {
    CAUSE_FETCH_MISALIGNED = 0,
    CAUSE_FETCH_ACCESS = 1,
    CAUSE_ILLEGAL = 2,
    CAUSE_BREAKPOINT = 3,
    CAUSE_LOAD_MISALIGNED = 4,
    CAUSE_LOAD_ACCESS = 5,
    CAUSE_STORE_MISALIGNED = 6,
    CAUSE_STORE_ACCESS = 7,
    CAUSE_ECALL_U = 8,
    CAUSE_ECALL_S = 9,
    CAUSE_ECALL_M = 11,
    CAUSE_FETCH_PAGE = 12,
    CAUSE_LOAD_PAGE = 13,
    CAUSE_STORE_PAGE = 15,
};
#define CAUSE_INTERRUPT (UINT64_C(1) << 63)

/* mstatus fields (RV64); sstatus is the masked view */
#define MSTATUS_SIE  (UINT64_C(1) << 1)
#define MSTATUS_MIE  (UINT64_C(1) << 3)
#define MSTATUS_SPIE (UINT64_C(1) << 5)
#define MSTATUS_UBE  (UINT64_C(1) << 6)
#define MSTATUS_MPIE (UINT64_C(1) << 7)
#define MSTATUS_SPP  (UINT64_C(1) << 8)
#define MSTATUS_MPP  (UINT64_C(3) << 11)
#define MSTATUS_FS   (UINT64_C(3) << 13)
#define MSTATUS_XS   (UINT64_C(3) << 15)
#define MSTATUS_MPRV (UINT64_C(1) << 17)
#define MSTATUS_SUM  (UINT64_C(1) << 18)
#define MSTATUS_MXR  (UINT64_C(1) << 19)
#define MSTATUS_TVM  (UINT64_C(1) << 20)
#define MSTATUS_TW   (UINT64_C(1) << 21)
#define MSTATUS_TSR  (UINT64_C(1) << 22)
#define MSTATUS_UXL  (UINT64_C(3) << 32)
#define MSTATUS_SXL  (UINT64_C(3) << 34)
#define MSTATUS_SD   (UINT64_C(1) << 63)

#define MENVCFG_FIOM  (UINT64_C(1) << 0)
#define MENVCFG_CBIE  (UINT64_C(3) << 4)
#define MENVCFG_CBCFE (UINT64_C(1) << 6)
#define MENVCFG_CBZE  (UINT64_C(1) << 7)
#define MENVCFG_ADUE  (UINT64_C(1) << 61)
#define MENVCFG_PBMTE (UINT64_C(1) << 62)
#define MENVCFG_STCE  (UINT64_C(1) << 63)

struct hart {
    uint64_t x[32]; /* x[0] is always 0 */
    uint64_t f[32]; /* NaN-boxed when single */
    uint64_t pc;
    uint8_t priv;   /* enum hart_priv */
    uint8_t fflags; /* NX 1, UF 2, OF 4, DZ 8, NV 16 */
    uint8_t frm;
    bool waiting;  /* executed wfi and sleeps; wakes when mip & mie is not 0 */
    bool stopped;  /* never started: used by nobody on virt (all harts start at reset), kept 0 */
    bool reserved; /* LR/SC reservation */
    uint8_t spare[2];
    uint64_t reserved_gpa; /* physical, what LR read */
    uint64_t reserved_value;

    uint64_t hartid;
    uint64_t mstatus, medeleg, mideleg, mie, mtvec, mscratch, mepc, mcause, mtval, menvcfg, mseccfg;
    uint64_t mip_soft; /* the bits of mip that software wrote (SSIP, STIP without Sstc, SEIP) */
    uint64_t stvec, sscratch, sepc, scause, stval, satp, senvcfg, stimecmp;
    uint32_t mcounteren, scounteren, mcountinhibit;
    uint32_t spare_32;
    uint8_t pmpcfg[HART_PMP_ENTRIES];
    uint64_t pmpaddr[HART_PMP_ENTRIES];
    uint64_t mcycle, minstret;           /* counted up by the engine */
    uint64_t mhpmcounter[HART_COUNTERS]; /* 3..31 read and write as plain registers that stay */
    uint64_t mhpmevent[HART_COUNTERS];

    _Atomic uint64_t pins; /* level of the wires: MSIP, MTIP, MEIP, SEIP, SSIP bits; devices write, any thread */
};

extern const struct state_desc hart_state; /* "godwit/hart", field by field; validate() checks WARL rules */

/* Reset values of the Privileged ISA, 3.4; pc is where the boot ROM starts. x and f become 0. */
void hart_reset(struct hart *hart, uint64_t hartid, uint64_t pc);

/* mip as a CSR read sees it. ticks is the guest's `time` (for STIP under Sstc). */
uint64_t hart_mip(const struct hart *hart, uint64_t ticks);

/* `info registers` */
void hart_print(const struct hart *hart, FILE *out);
