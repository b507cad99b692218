/* A machine under a debugger: what one may ask of it, refused whenever the guest runs or is somebody else's.
 *
 * One debugger at a time. Called on the control loop's thread; each function holds the machine's lock, so that nobody
 * resumes the guest meanwhile. -EBUSY: it runs; -EPERM: it has not arrived, or is on its way and must not be changed. */
#pragma once
#include "machine/machine.h"
#include "vcpu/debug.h"

/* Pause as a person's `stop` does, but from any state: a guest that runs, or would run on after a hand-over that fails.
 * Every other state stays what it is. */
void machine_stop(struct machine *m);

/* `stopped` is called on the thread of a vCPU that stops by itself, and must only wake the loop; machine_stop() then stops
 * the others. Attaching again changes nothing. -EBUSY. */
int machine_debug_attach(struct machine *m, void (*stopped)(void *opaque), void *opaque);
int machine_debug_detach(struct machine *m); /* all breakpoints go, every hart runs when the machine does. -EBUSY */

/* How a hart goes on at the next resume. Also forgets why it stopped. -EBUSY */
int machine_debug_arm(struct machine *m, unsigned hart, enum debug_mode mode);
/* The first hart from `from` on, round all of them, that stopped by itself since it was armed. False: none. */
bool machine_debug_stopped(struct machine *m, unsigned from, unsigned *hart, enum debug_stop *why);
/* kind: see debug_points_set(). -EINVAL, -ENOSPC, -EBUSY. */
int machine_debug_point(struct machine *m, uint64_t pc, unsigned kind, bool on);

/* debug.h has the numbers. -ENOENT, -EACCES, -EINVAL, -EBUSY, -EPERM. */
int machine_debug_register_read(struct machine *m, unsigned hart, unsigned number, uint64_t *value);
int machine_debug_register_write(struct machine *m, unsigned hart, unsigned number, uint64_t value);
/* Bytes moved, which may be fewer than asked for; -EFAULT for none, -EBUSY, -EPERM. */
ssize_t machine_debug_memory_read(struct machine *m, unsigned hart, enum debug_space space, uint64_t at, void *out,
                                  size_t bytes);
ssize_t machine_debug_memory_write(struct machine *m, unsigned hart, enum debug_space space, uint64_t at,
                                   const void *data, size_t bytes);
/* Executed wfi and waits. False too while the guest runs: nobody looks. */
bool machine_debug_waits(struct machine *m, unsigned hart);
