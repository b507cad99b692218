/* The command line: QEMU's option names, one row each, into a machine's description and what this run wants.
 *
 * Nothing is opened, created or printed here; what godwit lacks is refused by name. Fault points are armed as they are
 * read (base/failpoint.h). */
#pragma once
#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"
#include "machine/machine.h"

enum {
    OPTION_ID_MAX = 64,
    OPTION_SPEC_MAX = 1024,
    OPTION_CHARDEVS_MAX = 16,
    OPTION_MONITORS_MAX = 8,
    OPTION_TUNABLES_MAX = 32,
    OPTION_OBJECTS_MAX = 16,
    OPTION_VALUE_MAX = 256,
};

struct option_chardev {
    char id[OPTION_ID_MAX];
    char spec[OPTION_SPEC_MAX]; /* as chardev_open() takes it, or "chardev:ID" */
    bool mux;                   /* a serial line and a monitor share it */
};

struct option_monitor {
    char spec[OPTION_SPEC_MAX]; /* as above */
    bool qmp;
};

/* A migration parameter as typed; the migration's own table knows its range. */
struct option_tunable {
    char option[OPTION_ID_MAX]; /* what the user wrote, for messages */
    char name[OPTION_ID_MAX];
    char value[OPTION_VALUE_MAX];
};

struct options {
    struct machine_config machine;

    char serial[OPTION_SPEC_MAX]; /* "mon:stdio" also brings a monitor */
    struct option_chardev chardev[OPTION_CHARDEVS_MAX];
    unsigned chardevs;
    struct option_monitor monitor[OPTION_MONITORS_MAX];
    unsigned monitors;

    char gdb[OPTION_SPEC_MAX]; /* where a debugger may come: as serial; "" nowhere */

    char incoming[OPTION_SPEC_MAX]; /* URI, "defer", or "" */
    char migrate[OPTION_SPEC_MAX];  /* URI to go to, or "" */
    bool migrate_on_signal;         /* wait for SIGUSR1 with that */
    struct option_tunable tunable[OPTION_TUNABLES_MAX];
    unsigned tunables;
    char object[OPTION_OBJECTS_MAX][OPTION_SPEC_MAX]; /* for migrations, as typed: base/tls_object.h */
    unsigned objects;

    char pidfile[MACHINE_TEXT_MAX];
    char state_dir[MACHINE_TEXT_MAX];  /* of this guest alone; "": beside the pid file, or where all are */
    unsigned trace;                    /* -d: TRACE_* of vcpu/trace.h */
    char trace_path[MACHINE_TEXT_MAX]; /* "": stderr */
    bool trace_help;                   /* print what -d takes and leave */
    bool fault_help;                   /* print the table of -fault and leave */
    bool perf_map, jit_dump;           /* names of generated code for profilers */
    char sandbox[8];                   /* "on", "off" or "" */
    bool start_paused, daemonize, nodefaults;
    bool help, version; /* print that and leave */
};

/* -EINVAL with one sentence that names the option. argv[0] is the program's name. */
int options_parse(int argc, char **argv, struct options *out, struct err *err);
void options_help(FILE *out);
