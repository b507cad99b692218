/* THE command table. A command is added here, as one row. */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "base/json.h"
#include "monitor/commands.h"
#include "monitor/monitor_priv.h"

/* clang-format off */
const struct command command_table[] = {
    { .hmp = "help", .alias = "?", .args = { { "name", ARG_TEXT, .optional = true } }, .run = cmd_help,
      .help = "show this list, or one command" },
    { .qmp = "query-commands", .run = cmd_query_commands, .help = "every QMP command" },
    { .qmp = "query-events", .run = cmd_query_events, .help = "every QMP event" },
    { .qmp = "human-monitor-command", .run = cmd_human_monitor_command,
      .args = { { "command-line", ARG_STRING }, { "cpu-index", ARG_INT, .optional = true } },
      .help = "run one HMP line" },

    { .qmp = "stop", .hmp = "stop", .alias = "s", .run = cmd_stop, .help = "pause the guest" },
    { .qmp = "cont", .hmp = "cont", .alias = "c", .run = cmd_cont, .help = "let the guest run" },
    { .qmp = "quit", .hmp = "quit", .alias = "q", .run = cmd_quit, .help = "end godwit; a guest that runs here is lost" },
    { .qmp = "system_reset", .hmp = "system_reset", .run = cmd_system_reset, .help = "reset the machine" },
    { .qmp = "system_powerdown", .hmp = "system_powerdown", .run = cmd_system_powerdown,
      .help = "press the power button (virt has none: only the event is sent)" },

    { .qmp = "query-status", .hmp = "info status", .run = cmd_query_status, .print = print_status,
      .help = "does the guest run" },
    { .qmp = "query-version", .hmp = "info version", .run = cmd_query_version, .print = print_version,
      .help = "versions" },
    { .qmp = "query-name", .hmp = "info name", .run = cmd_query_name, .print = print_name, .help = "the guest's name" },
    { .qmp = "query-uuid", .hmp = "info uuid", .run = cmd_query_uuid, .print = print_uuid, .help = "the guest's UUID" },
    { .qmp = "query-cpus-fast", .hmp = "info cpus", .run = cmd_query_cpus, .print = print_cpus,
      .help = "virtual CPUs and their host threads" },
    { .qmp = "query-target", .run = cmd_query_target, .help = "the guest's architecture" },
    { .qmp = "query-chardev", .hmp = "info chardev", .run = cmd_query_chardev, .print = print_chardev,
      .help = "character devices" },
    { .qmp = "query-kvm", .hmp = "info kvm", .run = cmd_query_kvm, .print = print_kvm, .help = "never: godwit emulates" },
    { .qmp = "query-machines", .run = cmd_query_machines, .help = "machine types" },
    { .qmp = "x-query-jit", .hmp = "info jit", .run = cmd_query_jit, .print = print_jit,
      .help = "generated code: how much, how often, what it cost" },
    { .hmp = "info registers", .run = cmd_info_registers,
      .args = { { "all", ARG_FLAG, .optional = true, .flag = 'a' }, { "vcpu", ARG_INT, .optional = true } },
      .help = "registers of a hart, or of all with -a" },
    { .hmp = "info memory", .run = cmd_info_memory, .help = "guest RAM, and the host memory godwit takes" },
    { .hmp = "info qtree", .run = cmd_info_qtree, .help = "devices" },
    { .hmp = "info mtree", .run = cmd_info_mtree, .help = "the guest-physical map" },

    { .qmp = "migrate", .hmp = "migrate", .run = cmd_migrate,
      .args = { { "detach", ARG_FLAG, .optional = true, .flag = 'd' },
                { "__org.godwit_rehearse", ARG_FLAG, .optional = true, .word = "rehearse" },
                { "uri", ARG_STRING, .optional = true },
                { "channels", ARG_ARRAY, .optional = true, .qmp_only = true },
                { "blk", ARG_FLAG, .optional = true, .flag = 'b' },
                { "inc", ARG_FLAG, .optional = true, .flag = 'i' },
                { "resume", ARG_BOOL, .optional = true, .qmp_only = true } },
      .help = "move the guest to URI (tcp:HOST:PORT unix:PATH exec:COMMAND fd:N file:PATH); -d: do not wait; "
              "-b: with its disks, all of them, -i: what is not in the backing file that both sides have; "
              "-rehearse: all of it, but there it is dropped, and the guest runs on here" },
    { .qmp = "__org.godwit_migrate-plan", .hmp = "migrate_plan", .run = cmd_migrate_plan,
      .args = { { "detach", ARG_FLAG, .optional = true, .flag = 'd' }, { "uri", ARG_STRING } },
      .help = "how a migration to URI would go: measures for some seconds, moves nothing; -d: do not wait" },
    { .qmp = "migrate_cancel", .hmp = "migrate_cancel", .run = cmd_migrate_cancel, .help = "stay here after all" },
    { .qmp = "migrate-incoming", .hmp = "migrate_incoming", .run = cmd_migrate_incoming,
      .args = { { "uri", ARG_STRING, .optional = true }, { "channels", ARG_ARRAY, .optional = true, .qmp_only = true },
                { "exit-on-error", ARG_BOOL, .optional = true, .qmp_only = true } },
      .help = "wait for a guest on URI (-incoming defer)" },
    { .qmp = "migrate-continue", .hmp = "migrate_continue", .run = cmd_migrate_continue,
      .args = { { "state", ARG_STRING } }, .help = "there is no state that waits for it" },
    { .qmp = "__org.godwit_migrate-resolve", .hmp = "migrate_resolve", .run = cmd_migrate_resolve,
      .args = { { "answer", ARG_STRING, .optional = true } },
      .help = "end the doubt of a hand-over: ask the peer, or say that the guest is 'here' or 'there'" },
    { .qmp = "query-migrate", .hmp = "info migrate", .run = cmd_query_migrate, .print = print_migrate,
      .help = "how the migration stands" },
    { .qmp = "object-add", .open_args = true, .run = cmd_object_add,
      .help = "make credentials, or a list of who may come, for migrations over TLS" },
    { .hmp = "object_add", .args = { { "object", ARG_TEXT } }, .run = cmd_hmp_object_add,
      .help = "the same, as -object takes it: tls-creds-psk | tls-creds-x509 | authz-simple | authz-list,id=ID,..." },
    { .qmp = "object-del", .hmp = "object_del", .args = { { "id", ARG_STRING } }, .run = cmd_object_del,
      .help = "forget one; a migration that uses it keeps it" },
    { .qmp = "migrate-set-parameters", .open_args = true, .run = cmd_set_parameters, .help = "set migration parameters" },
    { .qmp = "query-migrate-parameters", .hmp = "info migrate_parameters", .run = cmd_query_parameters,
      .print = print_parameters, .help = "migration parameters" },
    { .qmp = "migrate-set-capabilities", .args = { { "capabilities", ARG_ARRAY } }, .run = cmd_set_capabilities,
      .help = "set migration capabilities" },
    { .qmp = "query-migrate-capabilities", .hmp = "info migrate_capabilities", .run = cmd_query_capabilities,
      .print = print_capabilities, .help = "migration capabilities" },
    { .hmp = "migrate_set_parameter", .args = { { "parameter", ARG_STRING }, { "value", ARG_STRING } },
      .run = cmd_set_parameter, .help = "set one migration parameter" },
    { .hmp = "migrate_set_capability", .args = { { "capability", ARG_STRING }, { "state", ARG_BOOL } },
      .run = cmd_set_capability, .help = "set one migration capability" },
    { .qmp = "migrate_set_speed", .hmp = "migrate_set_speed", .args = { { "value", ARG_SIZE } }, .run = cmd_set_speed,
      .help = "bandwidth limit, bytes a second (old spelling)" },
    { .qmp = "migrate_set_downtime", .hmp = "migrate_set_downtime", .args = { { "value", ARG_NUMBER } },
      .run = cmd_set_downtime, .help = "downtime limit, seconds (old spelling)" },
};
/* clang-format on */
const unsigned command_rows = sizeof command_table / sizeof *command_table;

const struct command *command_find_qmp(const char *name)
{
    for (unsigned i = 0; i < command_rows; i++)
        if (command_table[i].qmp && !strcmp(command_table[i].qmp, name))
            return &command_table[i];
    return NULL;
}

/* Does line begin with the words of name (any white space between them)? Where it goes on, or NULL. */
static const char *match_words(const char *name, const char *line)
{
    while (isspace((unsigned char)*line))
        line++;
    for (; *name; name++) {
        if (*name == ' ') {
            if (!isspace((unsigned char)*line))
                return NULL;
            while (isspace((unsigned char)*line))
                line++;
        } else if (*name != *line++) {
            return NULL;
        }
    }
    return *line == '\0' || isspace((unsigned char)*line) ? line : NULL;
}

const struct command *command_find_hmp(const char *line, const char **rest)
{
    for (unsigned i = 0; i < command_rows; i++) {
        const struct command *command = &command_table[i];
        const char *names[] = { command->hmp, command->alias };
        for (unsigned n = 0; n < 2; n++)
            if (names[n] && (*rest = match_words(names[n], line)))
                return command;
    }
    return NULL;
}

static const char *type_name(enum arg_type type)
{
    switch (type) {
    case ARG_INT:
    case ARG_SIZE: return "integer";
    case ARG_NUMBER: return "number";
    case ARG_BOOL:
    case ARG_FLAG: return "boolean";
    case ARG_ARRAY: return "array";
    default: return "string";
    }
}

static bool type_fits(enum arg_type type, struct json_object *value)
{
    enum json_type have = json_object_get_type(value);
    switch (type) {
    case ARG_INT:
    case ARG_SIZE: return have == json_type_int;
    case ARG_NUMBER: return have == json_type_int || have == json_type_double;
    case ARG_BOOL:
    case ARG_FLAG: return have == json_type_boolean;
    case ARG_ARRAY: return have == json_type_array;
    default: return have == json_type_string;
    }
}

static const struct command_arg *find_arg(const struct command *command, const char *name)
{
    for (const struct command_arg *arg = command->args; arg->type != ARG_END; arg++)
        if (!strcmp(arg->name, name))
            return arg;
    return NULL;
}

int command_check_args(const struct command *command, struct json_object *args, struct err *err)
{
    if (command->open_args)
        return 0;
    for (const struct command_arg *arg = command->args; arg->type != ARG_END; arg++) {
        struct json_object *value = NULL;
        bool there = json_object_object_get_ex(args, arg->name, &value);
        if (!there && !arg->optional)
            return err_set(err, -EINVAL, "Parameter '%s' is missing", arg->name);
        if (there && !type_fits(arg->type, value))
            return err_set(err, -EINVAL, "Invalid parameter type for '%s', expected: %s", arg->name,
                           type_name(arg->type));
    }
    json_object_object_foreach(args, name, value)
    {
        (void)value;
        if (!find_arg(command, name))
            return err_set(err, -EINVAL, "Parameter '%s' is unexpected", name);
    }
    return 0;
}

int cmd_query_commands(struct call *call)
{
    call->result = json_object_new_array();
    for (unsigned i = 0; i < command_rows; i++) {
        if (!command_table[i].qmp)
            continue;
        struct json_object *entry = json_object_new_object();
        json_put_str(entry, "name", command_table[i].qmp);
        json_object_array_add(call->result, entry);
    }
    struct json_object *negotiate = json_object_new_object(); /* belongs to the session, hence has no row */
    json_put_str(negotiate, "name", "qmp_capabilities");
    json_object_array_add(call->result, negotiate);
    return 0;
}
