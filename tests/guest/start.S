/* First instructions of every bare-metal guest: M mode, a0 = hart id, a1 = device tree, all harts at once.
 *
 * Hart 0 clears .bss and calls main(hart, dtb); the others sleep until hart 0 has set guest_hart_entry and raised
 * their MSIP (harts_start() in lib.c), then call it with their number. */
#define STACK_SHIFT 14
#define TRAP_STACK_SHIFT 13
#define HARTS_MAX 64

    .section .text.start, "ax"
    .global _start
_start:
    .option push
    .option norelax
    la      gp, __global_pointer$
    .option pop
    li      t0, HARTS_MAX
    bgeu    a0, t0, 9f
    csrw    mie, zero
    csrci   mstatus, 8
    li      t0, 0x6000              /* floating point on, clean or not */
    csrs    mstatus, t0
    csrw    fcsr, zero
    addi    t0, a0, 1
    slli    t1, t0, STACK_SHIFT
    la      sp, guest_stacks
    add     sp, sp, t1
    slli    t1, t0, TRAP_STACK_SHIFT
    la      t2, guest_trap_stacks
    add     t2, t2, t1
    csrw    mscratch, t2
    la      t0, trap_entry
    csrw    mtvec, t0
    mv      tp, a0
    bnez    a0, 3f

    la      t0, __bss_start
    la      t1, __bss_end
1:  bgeu    t0, t1, 2f
    sd      zero, 0(t0)
    addi    t0, t0, 8
    j       1b
2:  call    main
    call    power_off

3:  csrwi   mie, 8                  /* MSIE; mstatus.MIE stays off: wfi wakes, nothing traps */
4:  wfi
    csrr    t0, mip
    andi    t0, t0, 8
    beqz    t0, 4b
    li      t0, 0x2000000           /* take the wake-up back */
    slli    t1, tp, 2
    add     t0, t0, t1
    sw      zero, 0(t0)
    fence   rw, rw
    csrw    mie, zero
    la      t0, guest_hart_entry
    ld      t0, 0(t0)
    mv      a0, tp
    jalr    t0
9:  csrw    mie, zero
    wfi
    j       9b

/* All integer registers to the hart's trap stack, then trap(frame) in C; what it leaves in the frame is restored. */
    .align  2
    .global trap_entry
trap_entry:
    csrrw   sp, mscratch, sp
    addi    sp, sp, -288
    .irp    n, 1,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    sd      x\n, 8*\n(sp)
    .endr
    csrr    t0, mscratch
    sd      t0, 16(sp)
    addi    t0, sp, 288
    csrw    mscratch, t0
    csrr    t0, mepc
    sd      t0, 0(sp)
    csrr    t0, mcause
    sd      t0, 256(sp)
    csrr    t0, mtval
    sd      t0, 264(sp)
    csrr    t0, mstatus
    sd      t0, 272(sp)
    .option push
    .option norelax
    la      gp, __global_pointer$
    .option pop
    csrr    tp, mhartid
    mv      a0, sp
    call    trap
    ld      t0, 0(sp)
    csrw    mepc, t0
    ld      t0, 272(sp)
    csrw    mstatus, t0
    .irp    n, 1,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    ld      x\n, 8*\n(sp)
    .endr
    ld      sp, 16(sp)
    mret

/* uint64_t call_in_mode(unsigned mode, uint64_t (*function)(uint64_t), uint64_t arg)
 * Runs function(arg) in U (0), S (1) or M (3) mode on the same stack. It comes back by the ecall below, which
 * trap() in lib.c turns into a return to mode_return in M mode; a trap that the test expected to end the call
 * comes back the same way. */
    .global call_in_mode, mode_ecall, mode_return
call_in_mode:
    addi    sp, sp, -128
    sd      ra, 0(sp)
    .irp    n, 0,1,2,3,4,5,6,7,8,9,10,11
    sd      s\n, 8*\n+8(sp)
    .endr
    csrr    t0, mhartid
    slli    t0, t0, 3
    la      t1, guest_mode_sp
    add     t1, t1, t0
    sd      sp, 0(t1)
    li      t0, 0x1800
    csrc    mstatus, t0
    slli    a0, a0, 11
    csrs    mstatus, a0
    csrw    mepc, a1
    mv      a0, a2
    la      ra, mode_ecall
    mret
    .align  2
mode_ecall:
    ecall
mode_return:
    csrr    t0, mhartid
    slli    t0, t0, 3
    la      t1, guest_mode_sp
    add     t1, t1, t0
    ld      sp, 0(t1)
    ld      ra, 0(sp)
    .irp    n, 0,1,2,3,4,5,6,7,8,9,10,11
    ld      s\n, 8*\n+8(sp)
    .endr
    addi    sp, sp, 128
    ret

    .section .noinit, "aw", @nobits
    .align  12
guest_stacks:
    .space  HARTS_MAX << STACK_SHIFT
guest_trap_stacks:
    .space  HARTS_MAX << TRAP_STACK_SHIFT
