/* Commands about migration: start, cancel, wait for a guest. */
#include <errno.h>
#include <string.h>

#include "monitor/monitor_priv.h"

enum { URI_MAX = 1024 };

static struct migration *migration_of(struct call *call)
{
    return call->monitor->context.migration;
}

/* --- where to: a URI, or the newer list of channels ----------------------------------------------------- */

static int put_uri(char *uri, const char *text, struct err *err)
{
    if (strlen(uri) + strlen(text) >= URI_MAX)
        return err_set(err, -ENAMETOOLONG, "The address is longer than %d characters", URI_MAX - 1);
    strcat(uri, text);
    return 0;
}

/* An argument vector as one shell command: every word in single quotes. */
static int put_command(char *uri, struct json_object *args, struct err *err)
{
    size_t count = json_object_is_type(args, json_type_array) ? json_object_array_length(args) : 0;
    int rc = count ? put_uri(uri, "exec:", err) : err_set(err, -EINVAL, "Parameter 'addr.args' is missing");
    for (size_t i = 0; i < count && rc == 0; i++) {
        struct json_object *word = json_object_array_get_idx(args, i);
        if (!json_object_is_type(word, json_type_string))
            return err_set(err, -EINVAL, "Invalid parameter type for 'addr.args', expected: array of strings");
        rc = put_uri(uri, i ? " '" : "'", err);
        for (const char *at = json_object_get_string(word); *at && rc == 0; at++)
            rc = put_uri(uri, *at == '\'' ? "'\\''" : (char[]){ *at, '\0' }, err);
        if (rc == 0)
            rc = put_uri(uri, "'", err);
    }
    return rc;
}

static int uri_of_address(struct json_object *addr, char *uri, struct err *err)
{
    const char *transport = json_get_str(addr, "transport"), *type = json_get_str(addr, "type");
    const char *host = json_get_str(addr, "host"), *port = json_get_str(addr, "port");
    const char *path = json_get_str(addr, "path"), *str = json_get_str(addr, "str");
    const char *filename = json_get_str(addr, "filename");
    int length = -1;
    if (!transport)
        return err_set(err, -EINVAL, "Parameter 'addr.transport' is missing");
    if (!strcmp(transport, "exec"))
        return put_command(uri, json_get(addr, "args"), err);
    if (!strcmp(transport, "file") && filename && json_get_int(addr, "offset") == 0)
        length = snprintf(uri, URI_MAX, "file:%s", filename);
    else if (!strcmp(transport, "socket") && type && !strcmp(type, "inet") && host && port)
        length = snprintf(uri, URI_MAX, strchr(host, ':') ? "tcp:[%s]:%s" : "tcp:%s:%s", host, port);
    else if (!strcmp(transport, "socket") && type && !strcmp(type, "unix") && path)
        length = snprintf(uri, URI_MAX, "unix:%s", path);
    else if (!strcmp(transport, "socket") && type && !strcmp(type, "fd") && str)
        length = snprintf(uri, URI_MAX, "fd:%s", str);
    if (length < 0)
        return err_set(err, -EINVAL, "Channel address with transport '%s' and type '%s' is not supported", transport,
                       type ? type : "");
    return length < URI_MAX ? 0 : err_set(err, -ENAMETOOLONG, "The address is longer than %d characters", URI_MAX - 1);
}

static int take_uri(struct call *call, char *uri)
{
    const char *text = json_get_str(call->args, "uri");
    struct json_object *channels = json_get(call->args, "channels");
    uri[0] = '\0';
    if (text && channels)
        return err_set(&call->err, -EINVAL, "'uri' and 'channels' arguments are mutually exclusive");
    if (text)
        return put_uri(uri, text, &call->err);
    if (!channels)
        return err_set(&call->err, -EINVAL, "Parameter 'uri' is missing");
    struct json_object *channel = json_object_array_get_idx(channels, 0);
    const char *type = json_get_str(channel, "channel-type");
    if (json_object_array_length(channels) != 1 || !type || strcmp(type, "main"))
        return err_set(&call->err, -EINVAL, "Parameter 'channels' takes exactly one channel, of type 'main'");
    return uri_of_address(json_get(channel, "addr"), uri, &call->err);
}

/* --- starting and ending -------------------------------------------------------------------------------- */

static int movable(struct call *call)
{
    switch (machine_state(call->monitor->context.machine)) {
    case RUN_INMIGRATE: return err_set(&call->err, -EINVAL, "Guest is waiting for an incoming migration");
    case RUN_POSTMIGRATE:
        return err_set(&call->err, -EINVAL, "Can't migrate the vm that was paused due to previous migration");
    default: return 0;
    }
}

static void wait_in_monitor(struct call *call)
{
    if (call->out && call->session && !json_get_bool(call->args, "detach"))
        hmp_wait_for_migration(call->session);
}

int cmd_migrate_plan(struct call *call)
{
    int rc = movable(call);
    if (rc == 0)
        rc = migration_plan(migration_of(call), json_get_str(call->args, "uri"), &call->err);
    if (rc == 0)
        wait_in_monitor(call);
    return rc < 0 ? rc : 0;
}

int cmd_migrate(struct call *call)
{
    if (json_get_bool(call->args, "resume"))
        return err_set(&call->err, -ENOTSUP, "Resuming a paused migration is not supported");
    char uri[URI_MAX];
    int rc = take_uri(call, uri);
    if (rc == 0)
        rc = movable(call);
    if (rc < 0)
        return rc;
    /* Both together mean "with the disks, and only what is above", as they always did. */
    enum disk_copy copy = json_get_bool(call->args, "inc")   ? DISK_TOP
                          : json_get_bool(call->args, "blk") ? DISK_FULL
                                                             : DISK_SHARED;
    rc = migration_copy_disks(migration_of(call), copy, &call->err);
    if (rc < 0)
        return rc;
    bool rehearse = json_get_bool(call->args, "__org.godwit_rehearse");
    rc = rehearse ? migration_rehearse(migration_of(call), uri, &call->err)
                  : migration_start(migration_of(call), uri, &call->err);
    if (rc == 0)
        wait_in_monitor(call);
    return rc < 0 ? rc : 0;
}

int cmd_migrate_cancel(struct call *call)
{
    int rc = migration_cancel(migration_of(call));
    return rc < 0 ? err_set(&call->err, rc, "The guest has been handed over: it is too late to cancel") : 0;
}

int cmd_migrate_incoming(struct call *call)
{
    char uri[URI_MAX];
    if (json_get(call->args, "exit-on-error") && json_get_bool(call->args, "exit-on-error"))
        return err_set(&call->err, -ENOTSUP, "Parameter 'exit-on-error' can only be off: a failed load never exits");
    int rc = take_uri(call, uri);
    if (rc < 0)
        return rc;
    if (machine_state(call->monitor->context.machine) != RUN_INMIGRATE)
        return err_set(&call->err, -EINVAL, "'-incoming' was not specified on the command line");
    rc = migration_incoming(migration_of(call), uri, call->monitor->run_on_arrival, &call->err);
    return rc < 0 ? rc : 0;
}

int cmd_migrate_continue(struct call *call)
{
    return err_set(&call->err, -EINVAL,
                   "Migration does not pause before switch-over: there is no state '%s' to continue from",
                   json_get_str(call->args, "state"));
}

int cmd_migrate_resolve(struct call *call)
{
    static const char *const words[] = { [RESOLVE_ASK] = "ask", [RESOLVE_HERE] = "here", [RESOLVE_THERE] = "there" };
    const char *answer = json_get_str(call->args, "answer");
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(answer ? answer : "ask", words[i])) {
            int rc = migration_resolve(migration_of(call), (enum migration_answer)i, &call->err);
            return rc < 0 ? rc : 0;
        }
    return err_set(&call->err, -EINVAL, "Parameter 'answer' is 'here', 'there' or 'ask', not '%s'", answer);
}
