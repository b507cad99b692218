/* Commands about migration: start, cancel, wait for a guest, tunables, and how it stands. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "memory/ram.h"
#include "monitor/monitor_priv.h"

enum { URI_MAX = 1024, RATIO_BYTES_MIN = 1 << 20 }; /* of less data, the marks of zero pages would be the ratio */

static struct migration *migration_of(struct call *call)
{
    return call->monitor->context.migration;
}

static struct migration_params *params_of(struct call *call)
{
    return migration_params_of(migration_of(call));
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

int cmd_migrate(struct call *call)
{
    static const char *const refused[][2] = { { "blk", "Block migration" },
                                              { "inc", "Incremental block migration" },
                                              { "resume", "Resuming a paused migration" } };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (json_get_bool(call->args, refused[i][0]))
            return err_set(&call->err, -ENOTSUP, "%s is not supported", refused[i][1]);
    char uri[URI_MAX];
    int rc = take_uri(call, uri);
    if (rc < 0)
        return rc;
    switch (machine_state(call->monitor->context.machine)) {
    case RUN_INMIGRATE: return err_set(&call->err, -EINVAL, "Guest is waiting for an incoming migration");
    case RUN_POSTMIGRATE:
        return err_set(&call->err, -EINVAL, "Can't migrate the vm that was paused due to previous migration");
    default: break;
    }
    rc = migration_start(migration_of(call), uri, &call->err);
    if (rc == 0 && call->out && call->session && !json_get_bool(call->args, "detach"))
        hmp_wait_for_migration(call->session);
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

/* --- how it stands -------------------------------------------------------------------------------------- */

static const char *where_name(enum migration_where where)
{
    static const char *const names[] = { "here", "there", "unknown", "file" };
    return names[where];
}

static struct json_object *ram_member(const struct migration_info *info)
{
    struct json_object *ram = json_object_new_object();
    uint64_t pause_bytes = info->downtime_bytes < info->wire_bytes ? info->downtime_bytes : info->wire_bytes;
    json_put_u64(ram, "total", info->ram_total);
    json_put_int(ram, "postcopy-requests", 0);
    json_put_u64(ram, "dirty-sync-count", info->rounds);
    json_put_u64(ram, "multifd-bytes", info->data_bytes);
    json_put_u64(ram, "pages-per-second", info->pages_per_s);
    json_put_u64(ram, "downtime-bytes", pause_bytes);
    json_put_int(ram, "page-size", PAGE_BYTES);
    json_put_u64(ram, "remaining", info->ram_remaining);
    json_put_int(ram, "postcopy-bytes", 0);
    json_put_num(ram, "mbps", info->mbps);
    json_put_u64(ram, "transferred", info->wire_bytes);
    json_put_int(ram, "dirty-sync-missed-zero-copy", 0);
    json_put_u64(ram, "precopy-bytes", info->wire_bytes - pause_bytes);
    json_put_u64(ram, "duplicate", info->pages_zero);
    json_put_u64(ram, "dirty-pages-rate", info->dirty_pages_per_s);
    json_put_int(ram, "skipped", 0);
    json_put_u64(ram, "normal-bytes", info->pages_data * PAGE_BYTES);
    json_put_u64(ram, "normal", info->pages_data);
    return ram;
}

/* Why it failed, in a word that a script can act on. */
static const char *reason_name(int code)
{
    switch (code) {
    case -ETIME: return "gave-up";     /* the policy's own decision */
    case -EREMOTEIO: return "refused"; /* the destination looked, and said no */
    case -EBADE: return "audit";       /* a page changed without a mark: a bug here */
    default: return "failed";
    }
}

/* By vCPU: its quota now, and how it was held since the migration began. */
static struct json_object *throttle_member(const struct migration_info *info)
{
    struct json_object *list = json_object_new_array();
    for (unsigned i = 0; i < info->vcpus; i++) {
        const struct quota_stats *stats = &info->quota[i];
        struct json_object *vcpu = json_object_new_object();
        json_put_int(vcpu, "cpu-index", i);
        if (stats->page_ns)
            json_put_int(vcpu, "quota-pages-per-second", NS_PER_S / stats->page_ns);
        json_put_u64(vcpu, "new-pages", stats->fresh);
        json_put_num(vcpu, "held-ms", (double)stats->held_ns / NS_PER_MS);
        json_put_u64(vcpu, "holds", stats->holds);
        json_put_num(vcpu, "long-holds-ms", (double)stats->long_ns / NS_PER_MS);
        json_object_array_add(list, vcpu);
    }
    return list;
}

/* What QEMU has no words for. */
static struct json_object *own_member(const struct migration_info *info)
{
    struct json_object *own = json_object_new_object(), *pause = json_object_new_object(),
                       *codecs = json_object_new_object();
    json_put_str(own, "where", where_name(info->where));
    if (info->error.code)
        json_put_str(own, "reason", reason_name(info->error.code));
    json_put_str(own, "uri", info->uri);
    if (info->state == MIGRATION_UNRESOLVED)
        json_put_bool(own, "reconnecting", info->reconnecting);
    if (info->settled_by)
        json_put_str(own, "settled-by", info->settled_by);
    json_put_bool(own, "incoming", info->incoming);
    json_put_u64(own, "raw-bytes", info->raw_bytes);
    if (!info->incoming) {
        json_put_str(own, "codec", param_codec_name(info->codec));
        json_put_int(own, "codec-acceleration", info->codec_acceleration);
    }
    for (unsigned i = 0; i < CODECS; i++)
        json_put_u64(codecs, param_codec_name((enum codec)i), info->codec_pages[i]);
    json_put(own, "codec-pages", codecs);
    json_put_u64(own, "delta-pages", info->delta_pages);
    if (!info->incoming) {
        json_put_u64(own, "delta-bytes", info->delta_bytes);
        json_put_u64(own, "delta-misses", info->delta_misses);
    }
    json_put_u64(own, "pipeline-bytes", info->pipeline_bytes);
    json_put_u64(own, "audited-pages", info->audited_pages);
    json_put_u64(own, "audit-misses", info->audit_misses);
    json_put_num(own, "loaded-bytes-per-second", info->loaded_bytes_per_s);
    json_put_num(own, "downtime-limit-ms", info->downtime_limit_ms);
    json_put_num(own, "expected-downtime-ms", info->expected_downtime_ms);
    json_put_num(own, "predicted-downtime-ms", info->predicted_downtime_ms);
    json_put_num(own, "downtime-ms", info->downtime_ms);
    if (info->vcpus)
        json_put(own, "throttle", throttle_member(info));
    json_put_num(pause, "pause-ms", info->pause_ms);
    json_put_num(pause, "last-round-ms", info->last_round_ms);
    json_put_num(pause, "device-ms", info->device_ms);
    json_put_num(pause, "prepared-ms", info->prepared_ms);
    json_put_num(pause, "go-ms", info->go_ms);
    json_put(own, "pause", pause);
    return own;
}

/* Where an incoming side listens, with the port that the system chose: a list of one, as QEMU has it. */
static struct json_object *socket_address(const char *listening)
{
    struct json_object *list = json_object_new_array(), *address = json_object_new_object();
    const char *port = strrchr(listening, ':');
    char host[URI_MAX] = "";
    if (!strncmp(listening, "tcp:", 4) && port > listening + 3) {
        bool brackets = listening[4] == '[' && port[-1] == ']';
        snprintf(host, sizeof host, "%.*s", (int)(port - listening - 4 - 2 * brackets), listening + 4 + brackets);
        json_put_str(address, "type", "inet");
        json_put_str(address, "host", host);
        json_put_str(address, "port", port + 1);
    } else {
        json_put_str(address, "type", "unix");
        json_put_str(address, "path", listening + strlen("unix:"));
    }
    json_object_array_add(list, address);
    return list;
}

static struct json_object *describe(const struct migration_info *info, const char *listening)
{
    struct json_object *result = json_object_new_object();
    if (info->state == MIGRATION_NONE)
        return result;
    bool moving = info->state == MIGRATION_ACTIVE || info->state == MIGRATION_DEVICE ||
                  info->state == MIGRATION_CANCELLING || info->state == MIGRATION_UNRESOLVED;
    json_put_str(result, "status", migration_state_name(info->state));
    if (moving || info->state == MIGRATION_COMPLETED) {
        json_put_int(result, "setup-time", info->setup_ms);
        json_put_int(result, "total-time", info->total_ms);
        if (moving)
            json_put_int(result, "expected-downtime", llround(info->expected_downtime_ms));
        else
            json_put_int(result, "downtime", llround(info->downtime_ms));
        json_put(result, "ram", ram_member(info));
        if (info->throttle_percent)
            json_put_int(result, "cpu-throttle-percentage", info->throttle_percent);
    }
    if (info->error.code && (info->state == MIGRATION_FAILED || info->state == MIGRATION_UNRESOLVED))
        json_put_str(result, "error-desc", info->error.text);
    if (info->incoming && (!strncmp(listening, "tcp:", 4) || !strncmp(listening, "unix:", 5)))
        json_put(result, "socket-address", socket_address(listening));
    json_put(result, "__org.godwit_report", own_member(info));
    return result;
}

int cmd_query_migrate(struct call *call)
{
    struct migration_info info;
    migration_query(migration_of(call), &info);
    call->result = describe(&info, migration_listening(migration_of(call)));
    return 0;
}

static void print_ram(struct json_object *ram, FILE *out)
{
    static const struct {
        const char *label, *name, *unit;
        int shift;
    } lines[] = {
        { "transferred ram", "transferred", " kbytes", 10 },
        { "remaining ram", "remaining", " kbytes", 10 },
        { "total ram", "total", " kbytes", 10 },
        { "duplicate", "duplicate", " pages", 0 },
        { "normal", "normal", " pages", 0 },
        { "normal bytes", "normal-bytes", " kbytes", 10 },
        { "dirty sync count", "dirty-sync-count", "", 0 },
        { "page size", "page-size", " kbytes", 10 },
        { "pages-per-second", "pages-per-second", "", 0 },
        { "dirty pages rate", "dirty-pages-rate", " pages", 0 },
        { "downtime ram", "downtime-bytes", " kbytes", 10 },
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        fprintf(out, "%s: %" PRId64 "%s\n", lines[i].label, json_get_int(ram, lines[i].name) >> lines[i].shift,
                lines[i].unit);
        if (i == 0)
            fprintf(out, "throughput: %.2f mbps\n", json_get_num(ram, "mbps"));
    }
}

static void print_throttle(struct json_object *result, FILE *out)
{
    struct json_object *own = json_get(result, "__org.godwit_report"), *list = json_get(own, "throttle");
    if (json_get(result, "cpu-throttle-percentage"))
        fprintf(out, "cpu throttle percentage: %" PRId64 "\n", json_get_int(result, "cpu-throttle-percentage"));
    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        struct json_object *vcpu = json_object_array_get_idx(list, i);
        fprintf(out, "vcpu %" PRId64 ": held %.1f ms in %" PRId64 " pieces", json_get_int(vcpu, "cpu-index"),
                json_get_num(vcpu, "held-ms"), json_get_int(vcpu, "holds"));
        if (json_get_num(vcpu, "long-holds-ms") > 0)
            fprintf(out, ", %.1f ms of it in pieces longer than 1 ms", json_get_num(vcpu, "long-holds-ms"));
        if (json_get(vcpu, "quota-pages-per-second"))
            fprintf(out, ", quota %" PRId64 " pages/s", json_get_int(vcpu, "quota-pages-per-second"));
        fprintf(out, "\n");
    }
}

static void print_codecs(struct json_object *own, FILE *out)
{
    const char *separator = "codec: ", *now = json_get_str(own, "codec");
    json_object_object_foreach(json_get(own, "codec-pages"), name, pages)
    {
        fprintf(out, "%s%s %" PRId64 " pages", separator, name, json_object_get_int64(pages));
        separator = ", ";
    }
    if (now && !strcmp(now, "lz4"))
        fprintf(out, "; now lz4 with acceleration %" PRId64 "\n", json_get_int(own, "codec-acceleration"));
    else
        fprintf(out, now ? "; now %s\n" : "\n", now);
    if (json_get_int(own, "delta-pages"))
        fprintf(out, "deltas: %" PRId64 " pages, %" PRId64 " kbytes, %" PRId64 " misses\n",
                json_get_int(own, "delta-pages"), json_get_int(own, "delta-bytes") >> 10,
                json_get_int(own, "delta-misses"));
}

void print_migrate(struct call *call)
{
    FILE *out = call->out;
    struct json_object *own = json_get(call->result, "__org.godwit_report"), *ram = json_get(call->result, "ram");
    const char *status = json_get_str(call->result, "status"), *error = json_get_str(call->result, "error-desc");
    if (!status)
        return;
    fprintf(out, error ? "Migration status: %s (%s)\n" : "Migration status: %s\n", status, error);
    struct json_object *addresses = json_get(call->result, "socket-address");
    struct json_object *address = addresses ? json_object_array_get_idx(addresses, 0) : NULL;
    if (address && json_get(address, "path"))
        fprintf(out, "listening on: unix:%s\n", json_get_str(address, "path"));
    else if (address)
        fprintf(out,
                strchr(json_get_str(address, "host"), ':') ? "listening on: tcp:[%s]:%s\n"
                                                           : "listening on: tcp:%s:%s\n",
                json_get_str(address, "host"), json_get_str(address, "port"));
    if (!ram) {
        fprintf(out, "the guest is: %s\n", json_get_str(own, "where"));
        return;
    }
    fprintf(out, "total time: %" PRId64 " ms\n", json_get_int(call->result, "total-time"));
    if (json_get(call->result, "downtime"))
        fprintf(out, "downtime: %" PRId64 " ms\n", json_get_int(call->result, "downtime"));
    else
        fprintf(out, "expected downtime: %" PRId64 " ms\n", json_get_int(call->result, "expected-downtime"));
    fprintf(out, "setup: %" PRId64 " ms\n", json_get_int(call->result, "setup-time"));
    print_ram(ram, out);
    struct json_object *pause = json_get(own, "pause");
    double wire = json_get_num(ram, "transferred");
    fprintf(out, "the guest is: %s\n", json_get_str(own, "where"));
    if (wire > 0 && json_get_num(own, "raw-bytes") >= RATIO_BYTES_MIN)
        fprintf(out, "compression ratio: %.2f\n", json_get_num(own, "raw-bytes") / wire);
    print_codecs(own, out);
    if (json_get_int(own, "audited-pages"))
        fprintf(out, "audited: %" PRId64 " pages, %" PRId64 " misses\n", json_get_int(own, "audited-pages"),
                json_get_int(own, "audit-misses"));
    print_throttle(call->result, out);
    fprintf(out, "pipeline memory: %" PRId64 " kbytes\n", json_get_int(own, "pipeline-bytes") >> 10);
    if (json_get(call->result, "downtime"))
        fprintf(out,
                "predicted downtime: %.1f ms, limit %.0f ms\n"
                "pause: %.1f ms stopping, %.1f ms last round, %.1f ms devices, %.1f ms prepared, %.1f ms go\n",
                json_get_num(own, "predicted-downtime-ms"), json_get_num(own, "downtime-limit-ms"),
                json_get_num(pause, "pause-ms"), json_get_num(pause, "last-round-ms"), json_get_num(pause, "device-ms"),
                json_get_num(pause, "prepared-ms"), json_get_num(pause, "go-ms"));
}

/* --- parameters ----------------------------------------------------------------------------------------- */

/* One member of migrate-set-parameters. */
static int set_one(struct migration_params *params, const char *name, struct json_object *value, struct err *err)
{
    const struct param_row *row = param_find(name);
    if (!row)
        return err_set(err, -EINVAL, "Parameter '%s' is unexpected", name);
    bool choice = row->kind == PARAM_CHOICE;
    if (!json_object_is_type(value, choice ? json_type_string : json_type_int))
        return err_set(err, -EINVAL, "Invalid parameter type for '%s', expected: %s", name,
                       choice ? "string" : "integer");
    if (choice)
        return param_set_text(params, name, json_object_get_string(value), err);
    if (json_object_get_int64(value) < 0)
        return err_set(err, -EINVAL, "Parameter '%s' cannot be negative", name);
    return param_set_number(params, name, json_object_get_uint64(value), err);
}

static int set_all(struct migration_params *params, struct json_object *args, struct err *err)
{
    json_object_object_foreach(args, name, value)
    {
        int rc = set_one(params, name, value, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* All or nothing: everything is tried on a copy first. */
int cmd_set_parameters(struct call *call)
{
    struct migration_params trial;
    params_init(&trial);
    int rc = set_all(&trial, call->args, &call->err);
    return rc < 0 ? rc : set_all(params_of(call), call->args, &call->err);
}

int cmd_query_parameters(struct call *call)
{
    call->result = json_object_new_object();
    for (unsigned i = 0; i < param_rows; i++) {
        const struct param_row *row = &param_table[i];
        uint64_t value = param_get(params_of(call), row);
        if (row->kind == PARAM_CHOICE)
            json_put_str(call->result, row->name, row->choices[value]);
        else
            json_put_u64(call->result, row->name, value);
    }
    return 0;
}

void print_parameters(struct call *call)
{
    static const char *const units[] = {
        [PARAM_SIZE] = " bytes", [PARAM_MS] = " ms", [PARAM_SIZE_PER_S] = " bytes/second"
    };
    json_object_object_foreach(call->result, name, value)
    {
        const struct param_row *row = param_find(name);
        const char *unit = row && row->kind < sizeof units / sizeof *units && units[row->kind] ? units[row->kind] : "";
        fprintf(call->out, "%s: %s%s\n", name, json_object_get_string(value), unit);
    }
}

int cmd_set_parameter(struct call *call)
{
    const char *name = json_get_str(call->args, "parameter");
    if (!param_find(name))
        return err_set(&call->err, -EINVAL, "invalid parameter value: %s", name);
    return param_set_text(params_of(call), name, json_get_str(call->args, "value"), &call->err);
}

int cmd_set_speed(struct call *call)
{
    int64_t value = json_get_int(call->args, "value");
    if (value < 0)
        return err_set(&call->err, -EINVAL, "Parameter 'value' cannot be negative");
    return param_set_number(params_of(call), "max-bandwidth", (uint64_t)value, &call->err);
}

int cmd_set_downtime(struct call *call)
{
    double seconds = json_get_num(call->args, "value");
    if (!(seconds >= 0 && seconds <= 1e6))
        return err_set(&call->err, -EINVAL, "Parameter 'value' is a number of seconds, not negative");
    return param_set_number(params_of(call), "downtime-limit", (uint64_t)llround(seconds * 1e3), &call->err);
}

/* --- capabilities --------------------------------------------------------------------------------------- */

/* Names that tools send although they want nothing: switching off what is not there is no lie. */
static const char *const absent_capabilities[] = {
    "rdma-pin-all",
    "zero-blocks",
    "compress",
    "postcopy-ram",
    "x-colo",
    "release-ram",
    "block",
    "pause-before-switchover",
    "dirty-bitmaps",
    "postcopy-blocktime",
    "late-block-activate",
    "x-ignore-shared",
    "validate-uuid",
    "background-snapshot",
    "zero-copy-send",
    "postcopy-preempt",
    "switchover-ack",
    "dirty-limit",
    "mapped-ram",
};

static int set_capability(struct migration_params *params, const char *name, bool on, struct err *err)
{
    if (capability_find(name))
        return capability_set(params, name, on, err);
    for (size_t i = 0; i < sizeof absent_capabilities / sizeof *absent_capabilities; i++)
        if (!strcmp(absent_capabilities[i], name))
            return on ? err_set(err, -ENOTSUP, "Capability '%s' is not supported", name) : 0;
    return err_set(err, -EINVAL, "Parameter 'capability' does not accept value '%s'", name);
}

static int set_capabilities(struct migration_params *params, struct json_object *list, struct err *err)
{
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *entry = json_object_array_get_idx(list, i);
        const char *name = json_get_str(entry, "capability");
        if (!name || !json_object_is_type(json_get(entry, "state"), json_type_boolean))
            return err_set(err, -EINVAL, "Parameter 'capabilities' is a list of {capability, state}");
        json_object_object_foreach(entry, member, value)
        {
            (void)value;
            if (strcmp(member, "capability") && strcmp(member, "state"))
                return err_set(err, -EINVAL, "Parameter 'capabilities[%zu].%s' is unexpected", i, member);
        }
        int rc = set_capability(params, name, json_get_bool(entry, "state"), err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int cmd_set_capabilities(struct call *call)
{
    struct json_object *list = json_get(call->args, "capabilities");
    struct migration_params trial;
    params_init(&trial);
    int rc = set_capabilities(&trial, list, &call->err);
    return rc < 0 ? rc : set_capabilities(params_of(call), list, &call->err);
}

int cmd_set_capability(struct call *call)
{
    return set_capability(params_of(call), json_get_str(call->args, "capability"), json_get_bool(call->args, "state"),
                          &call->err);
}

int cmd_query_capabilities(struct call *call)
{
    call->result = json_object_new_array();
    for (unsigned i = 0; i < capability_rows; i++) {
        struct json_object *entry = json_object_new_object();
        json_put_bool(entry, "state", capability_get(params_of(call), &capability_table[i]));
        json_put_str(entry, "capability", capability_table[i].name);
        json_object_array_add(call->result, entry);
    }
    return 0;
}

void print_capabilities(struct call *call)
{
    for (size_t i = 0; i < json_object_array_length(call->result); i++) {
        struct json_object *entry = json_object_array_get_idx(call->result, i);
        fprintf(call->out, "%s: %s\n", json_get_str(entry, "capability"), json_get_bool(entry, "state") ? "on" : "off");
    }
}
