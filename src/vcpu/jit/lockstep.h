/* Both engines on the same code, compared (-accel jit,lockstep=on): slow, for finding what generated code gets wrong in
 * a guest that no test has.
 *
 * Each translated region runs twice from the same state, once as generated code and once instruction by instruction in the
 * interpreter, until it leaves: at a jump backwards, out of the region, or in front of what is the interpreter's anyway.
 * Both runs are *dry*: a store goes to a list, a load sees memory with that list on top of it, and whatever cannot be
 * undone (a device, a trap, an atomic, most CSRs) ends the run before it. So nothing happens twice and nothing needs
 * undoing. When hart and list agree, the list is written to memory and the guest goes on; when not, and not again when
 * asked twice more (a device may have written to memory meanwhile), both are printed and the process aborts.
 *
 * One hart only: another's stores between the two runs would pass for a difference. Owner: the vCPU's thread. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct lockstep;
struct uop;
struct vcpu;

struct lockstep_stats {
    uint64_t runs, instructions; /* that were compared */
    uint64_t repeats;            /* differences that were none when looked at again */
};

struct lockstep *lockstep_new(void); /* NULL: no memory */
void lockstep_free(struct lockstep *lockstep);
void lockstep_stats(const struct lockstep *lockstep, struct lockstep_stats *out); /* any thread */

/* From hart.pc, and past what ended the run. False: there is no generated code. */
bool lockstep_run(struct vcpu *vcpu);

/* While vcpu->dry, in place of engine_load() and engine_store(); false: the run ends before u. */
bool lockstep_load(struct vcpu *vcpu, struct uop *u, uint64_t va, unsigned bytes);
bool lockstep_store(struct vcpu *vcpu, struct uop *u, uint64_t va, unsigned bytes, uint64_t value);
void lockstep_end(struct vcpu *vcpu, struct uop *u); /* before u, which was counted with u->left that follow it */
/* System, atomics, fences end a dry run. Floating point's CSRs are registers like others. */
bool lockstep_refuses(uint32_t raw);
