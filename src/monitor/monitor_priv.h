/* What the monitor's files share. Private to src/monitor/.
 *
 *   monitor.c   sessions and their output, events from other threads
 *   commands.c  THE command table, and what arguments a command takes
 *   control.c   stop, cont, quit, reset, power
 *   migrate.c   everything about migration
 *   object.c    credentials, and who may come
 *   info.c      questions about the machine
 *   qmp.c hmp.c the two languages
 *
 * Everything belongs to the control loop's thread, except the notes, which are under their lock. */
#pragma once
#include <json-c/json.h>
#include <stdio.h>
#include <uv.h>

#include "base/bytes.h"
#include "base/json.h"
#include "base/lock.h"
#include "monitor/commands.h"
#include "monitor/monitor.h"

enum {
    SESSION_BACKLOG_MAX = 4 * 1024 * 1024, /* unread output of one session: more ends up nowhere */
    SESSION_BUSY_BYTES = 256 * 1024,       /* with that much unread, we do not listen either */
    SESSION_LINE_MAX = 4096,               /* one HMP command line */
    SESSION_HISTORY = 16,
    NOTES_MAX = 1024, /* events that wait for the loop */
};

enum note_kind { NOTE_MACHINE, NOTE_MIGRATION_STATE, NOTE_MIGRATION_ROUND };

struct note {
    enum note_kind kind;
    enum machine_event event;
    bool by_guest;
    enum migration_state state;
    uint64_t round;
    int64_t when_ns; /* CLOCK_REALTIME */
};

struct session {
    /* fixed after add */
    struct monitor *monitor;
    struct chardev *chardev;
    enum monitor_mode mode;
    /* owner: the loop's thread */
    struct session *next;
    bool open;
    struct buf out; /* not yet taken by the chardev */
    size_t out_at;
    /* QMP */
    struct json_reader reader;
    bool negotiated;
    /* HMP */
    char line[SESSION_LINE_MAX];
    size_t length;
    char *history[SESSION_HISTORY]; /* newest first */
    int history_at;                 /* -1: the line being typed */
    int escape;                     /* inside an escape sequence of a cursor key */
    bool after_return;              /* a line feed that follows belongs to it */
    bool waiting;                   /* a foreground migrate has the terminal */
    uv_timer_t *wait_timer;
    char held[SESSION_LINE_MAX]; /* typed meanwhile */
    size_t held_bytes;
};

struct monitor {
    /* fixed after new */
    struct monitor_context context;
    uv_async_t *wake;
    /* owner: the loop's thread */
    struct session *sessions;
    bool run_on_arrival;
    _Atomic bool muted; /* a pause that is nobody's business (`info registers`); read by any thread */
    bool quitting;
    /* under lock */
    struct lock lock;
    struct note note[NOTES_MAX];
    unsigned note_first, notes;
};

/* --- sessions ------------------------------------------------------------------------------------------- */

void session_write(struct session *session, const void *data, size_t bytes);
void session_text(struct session *session, const char *text, size_t bytes); /* HMP: line feeds become CR LF */
size_t session_backlog(const struct session *session);

void monitor_deliver_notes(struct monitor *monitor); /* what happened until now, before the answer that follows it */
/* An event of the monitor's own making; data may be NULL and is taken. */
void monitor_emit(struct monitor *monitor, const char *name, struct json_object *data);
void monitor_quit(struct monitor *monitor); /* SHUTDOWN event; the context's quit comes once the answer is out: */
void monitor_finish_quit(struct monitor *monitor);

/* --- the two languages ---------------------------------------------------------------------------------- */

void qmp_opened(struct session *session);
void qmp_receive(struct session *session, const char *data, size_t bytes);
void qmp_event(struct session *session, const char *name, struct json_object *data, int64_t when_ns);

void hmp_opened(struct session *session);
void hmp_closed(struct session *session);
void hmp_receive(struct session *session, const char *data, size_t bytes);
size_t hmp_room(const struct session *session);
/* Run one line; the text goes to out. session is NULL inside human-monitor-command. */
void hmp_run_line(struct monitor *monitor, struct session *session, const char *line, FILE *out);
void hmp_wait_for_migration(struct session *session); /* the prompt comes back when it is over */

/* --- commands; see commands.h --------------------------------------------------------------------------- */

struct json_object *monitor_version(const struct monitor *monitor);

typedef int command_run(struct call *call);
command_run cmd_stop, cmd_cont, cmd_quit, cmd_system_reset, cmd_system_powerdown;
command_run cmd_query_status, cmd_query_version, cmd_query_name, cmd_query_uuid, cmd_query_cpus, cmd_query_target,
    cmd_query_events, cmd_query_chardev, cmd_query_kvm, cmd_query_machines, cmd_query_jit, cmd_info_registers,
    cmd_info_memory, cmd_info_qtree, cmd_info_mtree;
command_run cmd_migrate, cmd_migrate_plan, cmd_migrate_cancel, cmd_migrate_incoming, cmd_migrate_continue,
    cmd_object_add, cmd_hmp_object_add, cmd_object_del, cmd_migrate_resolve, cmd_query_migrate, cmd_set_parameters,
    cmd_query_parameters, cmd_set_capabilities, cmd_query_capabilities, cmd_set_parameter, cmd_set_capability,
    cmd_set_speed, cmd_set_downtime;
command_run cmd_query_commands, cmd_human_monitor_command, cmd_help;

typedef void command_print(struct call *call);
command_print print_status, print_version, print_name, print_uuid, print_cpus, print_chardev, print_kvm, print_jit,
    print_migrate, print_parameters, print_capabilities;
