/* The debugger's stub: a chardev, a machine, and the session between them.
 *
 * Everything runs on the control loop's thread but gdb_wake(). A debugger that connects stops the guest; one that is lost
 * leaves it as it is, without breakpoints. */
#pragma once
#include "base/chardev.h"
#include "machine/machine.h"
#include "monitor/monitor.h"

struct gdb;

/* Attaches to the chardev, which stays the caller's: free it after this. The monitor runs what `monitor` lines say. */
int gdb_new(uv_loop_t *loop, struct machine *machine, struct monitor *monitor, struct chardev *chardev,
            struct gdb **out, struct err *err);
/* Something happened to the machine or the migration: looks whether the debugger waits for that. Any thread; NULL allowed. */
void gdb_wake(struct gdb *gdb);
/* Tells a debugger that waits that the guest ends with this code. Before the machine and the monitor go. NULL allowed. */
void gdb_free(struct gdb *gdb, int exit_code);
