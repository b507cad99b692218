/* What a debugger may ask of a vCPU: stop at an address, run one instruction, show registers and memory.
 *
 * Breakpoints are a set of addresses beside the guest, not patches in its memory: an ebreak is always the guest's own.
 * While there is one, or a step is asked for, the run loop goes instruction by instruction; without a debugger that
 * costs nothing. A vCPU that is to stop asks for its own pause, says so by `stopped`, and stays, whoever resumes it,
 * until debug_arm() says how it goes on.
 *
 * Unless it says otherwise a function here is for whoever holds the vCPU paused (the machine, under its lock). */
#pragma once
#include <stddef.h>
#include <sys/types.h>

#include "vcpu/vcpu.h"

/* --- breakpoints ----------------------------------------------------------------------------------------- */

enum { DEBUG_POINTS_MAX = 1024, DEBUG_KINDS = 2 };

struct debug_points {
    uint64_t filter; /* bit (pc >> 1) % 64 of every address: most questions end there */
    unsigned count;
    struct debug_point {
        uint64_t pc;
        uint8_t kinds; /* bit per kind that was set */
    } point[DEBUG_POINTS_MAX];
};

/* A kind (0 .. DEBUG_KINDS - 1) at an address counts once. -EINVAL: odd address; -ENOSPC: full. */
int debug_points_set(struct debug_points *points, uint64_t pc, unsigned kind);
void debug_points_clear(struct debug_points *points, uint64_t pc, unsigned kind); /* nothing where there is none */
bool debug_points_have(const struct debug_points *points, uint64_t pc);

/* --- running --------------------------------------------------------------------------------------------- */

enum debug_mode {
    DEBUG_GO,   /* until a breakpoint, also one where it stands */
    DEBUG_STEP, /* one instruction, a breakpoint there or not; a trap or interrupt ends at the handler's first one */
    DEBUG_STAY, /* not at all: resuming it changes nothing */
};
enum debug_stop { DEBUG_RUNS, DEBUG_BREAKPOINT, DEBUG_STEPPED };

struct debug_client {
    const struct debug_points *points; /* changed only while every vCPU is paused; debug_arm() after it */
    void (*stopped)(void *opaque);     /* on the vCPU's thread, which is about to pause: must only wake somebody */
    void *opaque;
};

/* NULL ends it: the vCPU forgets why it stopped and what it was to do. The client stays the caller's. */
void debug_attach(struct vcpu *vcpu, const struct debug_client *client);
/* How it goes on when it is resumed next, and at every later time; forgets why it stopped. */
void debug_arm(struct vcpu *vcpu, enum debug_mode mode);
/* Why it stopped by itself since debug_arm(). Any thread, running or not. */
enum debug_stop debug_stopped(struct vcpu *vcpu);

/* --- registers ------------------------------------------------------------------------------------------- */

/* As debuggers number them: x0 .. x31, pc, f0 .. f31, 4096 CSRs, the privilege mode. */
enum {
    DEBUG_REG_X = 0,
    DEBUG_REG_PC = 32,
    DEBUG_REG_F = 33,
    DEBUG_REG_CSR = 65,
    DEBUG_REG_PRIV = DEBUG_REG_CSR + 4096,
    DEBUG_REGS,
};

/* ticks is guest `time`. -ENOENT: no such register. A CSR is seen as in M mode; fcsr and its parts whatever FS says. */
int debug_register_read(struct hart *hart, unsigned number, uint64_t ticks, uint64_t *value);
/* As a CSR write does it: what the register cannot hold is dropped. -EACCES: read-only. x0 takes anything, silently. */
int debug_register_write(struct hart *hart, unsigned number, uint64_t value);

/* --- memory ---------------------------------------------------------------------------------------------- */

enum debug_space { DEBUG_VIRTUAL, DEBUG_PHYSICAL };

/* As the hart sees memory in its present mode, rights, PMP, A and D bits aside; in M mode an address that is no RAM is
 * tried by satp. Devices are not touched. Bytes moved, which may be fewer than asked for, or -EFAULT for none. Writing
 * marks pages dirty (RAM must not be sealed) and refuses ROM. */
ssize_t debug_memory_read(struct vcpu *vcpu, enum debug_space space, uint64_t at, void *out, size_t bytes);
ssize_t debug_memory_write(struct vcpu *vcpu, enum debug_space space, uint64_t at, const void *data, size_t bytes);
