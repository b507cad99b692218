/* THE command table: HMP and QMP have a command, its arguments and its help from one row.
 *
 * A row's run() takes checked arguments as JSON and leaves JSON; HMP shows it with the row's print(). Commands that
 * only people use write text in run(). Nothing here may block: it runs on the control loop. */
#pragma once
#include <json-c/json.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"

struct monitor;
struct session;

enum arg_type {
    ARG_END = 0, /* closes a row's list */
    ARG_STRING,
    ARG_INT,
    ARG_NUMBER,
    ARG_BOOL,  /* HMP: on, off */
    ARG_SIZE,  /* QMP: an integer, bytes; HMP: "32", "32M", "1G", without a letter MiB */
    ARG_FLAG,  /* QMP: a boolean; HMP: -x, with the letter of the argument's `flag`, or -word */
    ARG_ARRAY, /* QMP only */
    ARG_TEXT,  /* HMP takes the rest of the line */
};

struct command_arg {
    const char *name;
    enum arg_type type;
    bool optional;
    char flag;
    const char *word; /* ARG_FLAG: -WORD instead of a letter */
    bool qmp_only;
};

enum { COMMAND_ARGS_MAX = 8 };

struct call {
    struct monitor *monitor;
    struct session *session;    /* NULL inside human-monitor-command */
    struct json_object *args;   /* an object, checked against the row */
    struct json_object *result; /* left by run(); NULL means {} */
    FILE *out;                  /* text for a person; NULL in QMP */
    struct err err;
};

struct command {
    const char *qmp; /* NULL: HMP only */
    const char *hmp; /* NULL: QMP only; may be two words, "info status" */
    const char *alias;
    struct command_arg args[COMMAND_ARGS_MAX];
    bool open_args; /* run() checks the names itself, before it changes anything */
    int (*run)(struct call *call);
    void (*print)(struct call *call);
    const char *help;
};

extern const struct command command_table[];
extern const unsigned command_rows;

const struct command *command_find_qmp(const char *name);
/* Matches the longest name at the beginning of line; *rest is what follows it. */
const struct command *command_find_hmp(const char *line, const char **rest);

/* Before any side effect: nothing unexpected, nothing missing, every type right. */
int command_check_args(const struct command *command, struct json_object *args, struct err *err);
