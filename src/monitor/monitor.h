/* Monitors: people (HMP) and programs (QMP) who ask about the machine and tell it what to do.
 *
 * One struct monitor per process, any number of sessions, each on its own chardev. Everything runs on the control
 * loop's thread; only the two event functions may be called from any thread: they leave a note and wake the loop,
 * so that events reach every session in the order in which they happened. No command blocks the loop. */
#pragma once
#include <stdbool.h>
#include <stdio.h>

#include "base/chardev.h"
#include "base/err.h"
#include "machine/machine.h"
#include "migration/migration.h"

#define MONITOR_QEMU_MAJOR 10 /* the version whose monitors we speak, as the greeting says it */
#define MONITOR_QEMU_MINOR 0
#define MONITOR_QEMU_MICRO 0

struct monitor;

struct monitor_context {
    uv_loop_t *loop;
    struct machine *machine;
    struct migration *migration;
    /* `quit`, and Ctrl-a x: the answer has been written; end the loop soon (uv_stop), do not free anything here */
    void (*quit)(void *opaque);
    /* `system_reset`: carry out what the machine was asked for, so that the next command finds it done. NULL allowed */
    void (*settle)(void *opaque);
    void *opaque;
    bool run_on_arrival; /* false with -S: `migrate-incoming` leaves the guest paused; `cont` and `stop` change it */
    const char *version; /* godwit's own version, "0.1" */
};

enum monitor_mode { MONITOR_HMP, MONITOR_QMP };

int monitor_new(const struct monitor_context *context, struct monitor **out, struct err *err);
/* The chardev is attached here and stays the caller's: free it after the monitor. */
int monitor_add(struct monitor *monitor, struct chardev *chardev, enum monitor_mode mode, struct err *err);
void monitor_free(
    struct monitor *monitor); /* writes what it can; memory goes on the next turn of the loop; NULL allowed */

/* For others on the loop's thread who let the guest run or hold it back: what `cont` does; whether a guest on its way
 * here runs when it has arrived; a line of HMP, whose text goes to out. */
int monitor_cont(struct monitor *monitor, struct err *err);
void monitor_run_on_arrival(struct monitor *monitor, bool run);
void monitor_command(struct monitor *monitor, const char *line, FILE *out);

/* For machine_on_event() and migration_on_event(), with the monitor as opaque. Any thread. */
void monitor_machine_event(void *monitor, enum machine_event event, bool by_guest);
void monitor_migration_event(void *monitor, enum migration_event event, enum migration_state state, uint64_t round);
