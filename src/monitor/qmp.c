/* QMP: JSON commands, answers and events for programs. One message is one line and ends in CR LF. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "monitor/monitor_priv.h"

static void send_message(struct session *session, struct json_object *message)
{
    struct buf out = { 0 };
    json_write(message, &out);
    buf_put(&out, "\r\n", 2);
    session_write(session, out.data, out.size);
    buf_free(&out);
    json_object_put(message);
}

static void send_error(struct session *session, const char *class, const char *text, struct json_object *id)
{
    struct json_object *message = json_object_new_object(), *error = json_object_new_object();
    if (id)
        json_put(message, "id", json_object_get(id));
    json_put_str(error, "class", class);
    json_put_str(error, "desc", text);
    json_put(message, "error", error);
    monitor_deliver_notes(session->monitor);
    send_message(session, message);
}

static void send_return(struct session *session, struct json_object *result, struct json_object *id)
{
    struct json_object *message = json_object_new_object();
    json_put(message, "return", result ? result : json_object_new_object());
    if (id)
        json_put(message, "id", json_object_get(id));
    monitor_deliver_notes(session->monitor); /* what the command made happen comes before its answer */
    send_message(session, message);
}

struct json_object *monitor_version(const struct monitor *monitor)
{
    struct json_object *version = json_object_new_object(), *qemu = json_object_new_object();
    char package[64];
    snprintf(package, sizeof package, "godwit %s", monitor->context.version ? monitor->context.version : "");
    json_put_int(qemu, "micro", MONITOR_QEMU_MICRO);
    json_put_int(qemu, "minor", MONITOR_QEMU_MINOR);
    json_put_int(qemu, "major", MONITOR_QEMU_MAJOR);
    json_put(version, "qemu", qemu);
    json_put_str(version, "package", package);
    return version;
}

void qmp_opened(struct session *session)
{
    json_reader_reset(&session->reader);
    session->negotiated = false;
    struct json_object *message = json_object_new_object(), *hello = json_object_new_object();
    json_put(hello, "version", monitor_version(session->monitor));
    json_put(hello, "capabilities", json_object_new_array());
    json_put(message, "QMP", hello);
    send_message(session, message);
}

void qmp_event(struct session *session, const char *name, struct json_object *data, int64_t when_ns)
{
    if (!session->open || !session->negotiated || session_backlog(session) > SESSION_BUSY_BYTES)
        return;
    struct json_object *message = json_object_new_object(), *stamp = json_object_new_object();
    json_put_int(stamp, "seconds", when_ns / NS_PER_S);
    json_put_int(stamp, "microseconds", when_ns % NS_PER_S / NS_PER_US);
    json_put(message, "timestamp", stamp);
    json_put_str(message, "event", name);
    if (data)
        json_put(message, "data", json_object_get(data));
    send_message(session, message);
}

/* Only the capability list may follow, and we have none to give. */
static int negotiate(struct session *session, struct json_object *args, struct err *err)
{
    json_object_object_foreach(args, name, value)
    {
        if (strcmp(name, "enable"))
            return err_set(err, -EINVAL, "Parameter '%s' is unexpected", name);
        if (!json_object_is_type(value, json_type_array))
            return err_set(err, -EINVAL, "Invalid parameter type for 'enable', expected: array");
        if (json_object_array_length(value) > 0)
            return err_set(err, -EINVAL, "This monitor has none of the capabilities asked for");
    }
    session->negotiated = true;
    return 0;
}

static void execute(struct session *session, const char *name, struct json_object *args, struct json_object *id)
{
    char text[256];
    struct call call = { .monitor = session->monitor, .session = session, .args = args };
    const struct command *command = command_find_qmp(name);
    if (!strcmp(name, "qmp_capabilities")) {
        if (session->negotiated) {
            send_error(session, "CommandNotFound", "Capabilities negotiation is already complete, command ignored", id);
            return;
        }
        if (negotiate(session, args, &call.err) < 0)
            send_error(session, "GenericError", call.err.text, id);
        else
            send_return(session, NULL, id);
        return;
    }
    if (!session->negotiated) {
        send_error(session, "CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'", id);
        return;
    }
    if (!command) {
        snprintf(text, sizeof text, "The command %.200s has not been found", name);
        send_error(session, "CommandNotFound", text, id);
        return;
    }
    if (command_check_args(command, args, &call.err) < 0 || command->run(&call) < 0) {
        json_object_put(call.result);
        send_error(session, "GenericError", call.err.text, id);
        return;
    }
    send_return(session, call.result, id);
}

/* What every command must look like; the sentence in err otherwise. */
static int check_request(struct json_object *request, struct err *err)
{
    if (!json_object_is_type(request, json_type_object))
        return err_set(err, -EINVAL, "QMP input must be a JSON object");
    bool execute_seen = false;
    json_object_object_foreach(request, name, value)
    {
        if (!strcmp(name, "execute")) {
            if (!json_object_is_type(value, json_type_string))
                return err_set(err, -EINVAL, "QMP input member 'execute' must be a string");
            execute_seen = true;
        } else if (!strcmp(name, "arguments")) {
            if (!json_object_is_type(value, json_type_object))
                return err_set(err, -EINVAL, "QMP input member 'arguments' must be an object");
        } else if (strcmp(name, "id")) {
            return err_set(err, -EINVAL, "QMP input member '%.100s' is unexpected", name);
        }
    }
    return execute_seen ? 0 : err_set(err, -EINVAL, "QMP input lacks member 'execute'");
}

static void handle_request(struct session *session, struct json_object *request)
{
    struct err err = { 0 };
    struct json_object *id = json_get(request, "id");
    if (check_request(request, &err) < 0) {
        send_error(session, "GenericError", err.text, id);
        return;
    }
    struct json_object *args = json_get(request, "arguments");
    args = args ? json_object_get(args) : json_object_new_object();
    execute(session, json_get_str(request, "execute"), args, id);
    json_object_put(args);
}

void qmp_receive(struct session *session, const char *data, size_t bytes)
{
    struct json_object *request;
    struct err err = { 0 };
    int rc;
    while (!session->monitor->quitting &&
           (rc = json_reader_next(&session->reader, &data, &bytes, &request, &err)) != 0) {
        if (rc < 0)
            send_error(session, "GenericError", err.text, NULL);
        else
            handle_request(session, request);
        json_object_put(request);
        err_clear(&err);
    }
}

int cmd_human_monitor_command(struct call *call)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return err_set(&call->err, -ENOMEM, "no memory for the answer");
    hmp_run_line(call->monitor, NULL, json_get_str(call->args, "command-line"), out);
    fclose(out);
    struct buf lines = { 0 };
    for (size_t i = 0; i < bytes; i++) { /* a terminal's line ends, here too */
        if (text[i] == '\n')
            buf_put_u8(&lines, '\r');
        buf_put_u8(&lines, (uint8_t)text[i]);
    }
    call->result = json_object_new_string_len(lines.size ? (const char *)lines.data : "", (int)lines.size);
    buf_free(&lines);
    free(text);
    return 0;
}
