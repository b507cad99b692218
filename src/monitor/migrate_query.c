/* How a migration stands, or what came of it: `query-migrate` and `info migrate`. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "memory/ram.h"
#include "monitor/monitor_priv.h"
#include "monitor/plan.h"
#include "monitor/report_text.h"

enum { HOST_MAX = 1024, RATIO_BYTES_MIN = 1 << 20 }; /* of less data, the marks of zero pages would be the ratio */

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

/* All disks that are copied together, in the words that there were for it, and each by name. */
static void put_disks(struct json_object *result, const struct migration_info *info)
{
    struct json_object *all = json_object_new_object(), *list = json_object_new_array();
    uint64_t total = 0, remaining = 0, wire = 0;
    for (unsigned i = 0; i < info->disks; i++) {
        const struct migration_disk *disk = &info->disk[i];
        struct json_object *row = json_object_new_object();
        json_put_str(row, "device", disk->name);
        json_put_u64(row, "total", disk->total);
        json_put_u64(row, "remaining", disk->remaining);
        json_put_u64(row, "copied", disk->copied);
        json_put_u64(row, "transferred", disk->wire_bytes);
        if (disk->held_ns)
            json_put_num(row, "writes-held-ms", (double)disk->held_ns / NS_PER_MS);
        json_object_array_add(list, row);
        total += disk->total;
        remaining += disk->remaining;
        wire += disk->wire_bytes;
    }
    json_put_u64(all, "transferred", wire);
    json_put_u64(all, "remaining", remaining);
    json_put_u64(all, "total", total);
    json_put(all, "__org.godwit_disks", list);
    json_put(result, "disk", all);
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
        json_put_num(vcpu, "longest-hold-ms", (double)stats->longest_ns / NS_PER_MS);
        json_object_array_add(list, vcpu);
    }
    return list;
}

/* How the guest got going here, and what was ready for it. */
static struct json_object *arrival_member(const struct machine_arrival *arrival)
{
    struct json_object *own = json_object_new_object(), *list = json_object_new_array();
    json_put_u64(own, "hot-code", arrival->listed);
    json_put_u64(own, "warmed", arrival->warmed);
    json_put_u64(own, "dropped", arrival->dropped);
    json_put_num(own, "settle-ms", (double)arrival->settle_ns / NS_PER_MS);
    for (unsigned i = 0; i < MACHINE_STARTS && arrival->start[i].after_ns; i++) {
        const struct machine_start *start = &arrival->start[i];
        struct json_object *row = json_object_new_object();
        json_put_num(row, "after-ms", (double)start->after_ns / NS_PER_MS);
        json_put_u64(row, "instructions", start->instructions);
        json_put_u64(row, "tlb-refills", start->tlb_refills);
        json_put_u64(row, "interpreted-blocks", start->block_runs);
        json_put_u64(row, "translated", start->translated);
        json_put_num(row, "cpu-ms", (double)start->cpu_ns / NS_PER_MS);
        json_put_num(row, "translate-ms", (double)start->translate_ns / NS_PER_MS);
        json_object_array_add(list, row);
    }
    json_put(own, "start", list);
    return own;
}

/* What QEMU has no words for. */
static struct json_object *own_member(const struct migration_info *info, const struct migration_report *report)
{
    struct json_object *own = json_object_new_object(), *codecs = json_object_new_object();
    json_put_str(own, "where", where_name(info->where));
    if (info->error.code)
        json_put_str(own, "reason", reason_name(info->error.code));
    json_put_str(own, "uri", info->uri);
    if (info->state == MIGRATION_UNRESOLVED)
        json_put_bool(own, "reconnecting", info->reconnecting);
    if (info->settled_by)
        json_put_str(own, "settled-by", info->settled_by);
    json_put_bool(own, "incoming", info->incoming);
    if (info->purpose == PURPOSE_PLAN)
        json_put_bool(own, "plan", true);
    if (info->purpose == PURPOSE_REHEARSAL) {
        json_put_bool(own, "rehearsal", true);
        json_put_bool(own, "dropped", info->dropped);
        json_put_num(own, "held-ms", info->held_ms);
    }
    if (info->rehearsals)
        json_put_int(own, "rehearsals", info->rehearsals);
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
    json_put_num(own, "expected-downtime-least-ms", info->expected_least_ms);
    json_put_num(own, "expected-downtime-most-ms", info->expected_most_ms);
    json_put_num(own, "predicted-downtime-ms", info->predicted_downtime_ms);
    json_put_num(own, "downtime-ms", info->downtime_ms);
    if (info->vcpus) {
        json_put(own, "throttle", throttle_member(info));
        json_put_num(own, "held-pause-ms", info->held_pause_ms);
    }
    if (info->incoming)
        json_put(own, "arrival", arrival_member(&info->arrival));
    report_json(own, info, report);
    return own;
}

/* Where an incoming side listens, with the port that the system chose: a list of one, as QEMU has it. */
static struct json_object *socket_address(const char *listening)
{
    struct json_object *list = json_object_new_array(), *address = json_object_new_object();
    const char *port = strrchr(listening, ':');
    char host[HOST_MAX] = "";
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

static struct json_object *describe(const struct migration_info *info, const struct migration_report *report,
                                    const char *listening)
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
        if (info->disks)
            put_disks(result, info);
        if (info->throttle_percent)
            json_put_int(result, "cpu-throttle-percentage", info->throttle_percent);
    }
    if (info->error.code && (info->state == MIGRATION_FAILED || info->state == MIGRATION_UNRESOLVED))
        json_put_str(result, "error-desc", info->error.text);
    if (info->incoming && (!strncmp(listening, "tcp:", 4) || !strncmp(listening, "unix:", 5)))
        json_put(result, "socket-address", socket_address(listening));
    json_put(result, "__org.godwit_report", own_member(info, report));
    return result;
}

int cmd_query_migrate(struct call *call)
{
    struct migration *migration = call->monitor->context.migration;
    struct migration_report *report = malloc(sizeof(*report));
    struct migration_info info;
    if (!report)
        return err_set(&call->err, -ENOMEM, "no memory for the answer");
    migration_query(migration, &info);
    migration_report(migration, report);
    call->result = describe(&info, report, migration_listening(migration));
    free(report);
    struct plan_result plan;
    migration_plan_of(migration, &plan);
    if (plan.ready)
        json_put(call->result, "__org.godwit_plan", plan_json(&plan));
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

static void print_disks(struct json_object *disk, FILE *out)
{
    struct json_object *list = json_get(disk, "__org.godwit_disks");
    if (!disk)
        return;
    fprintf(out, "transferred disk: %" PRId64 " kbytes\n", json_get_int(disk, "transferred") >> 10);
    fprintf(out, "remaining disk: %" PRId64 " kbytes\n", json_get_int(disk, "remaining") >> 10);
    fprintf(out, "total disk: %" PRId64 " kbytes\n", json_get_int(disk, "total") >> 10);
    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        struct json_object *row = json_object_array_get_idx(list, i);
        fprintf(out, "disk %s: %" PRId64 " of %" PRId64 " kbytes copied, %" PRId64 " remaining",
                json_get_str(row, "device"), json_get_int(row, "copied") >> 10, json_get_int(row, "total") >> 10,
                json_get_int(row, "remaining") >> 10);
        if (json_get(row, "writes-held-ms"))
            fprintf(out, "; its writes waited %.0f ms for the link", json_get_num(row, "writes-held-ms"));
        fprintf(out, "\n");
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
    if (json_get(call->result, "__org.godwit_plan")) {
        plan_print(json_get(call->result, "__org.godwit_plan"), out);
        return;
    }
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
    if (json_get(own, "rehearsals"))
        fprintf(out, "rehearsals so far: %" PRId64 "\n", json_get_int(own, "rehearsals"));
    if (json_get_bool(own, "rehearsal"))
        fprintf(
            out, "rehearsal: the guest stood still for %.1f ms, %s; the start there is what it is expected to take\n",
            json_get_num(own, "held-ms"),
            json_get_bool(own, "dropped") ? "the destination dropped its copy" : "the copy's end was not confirmed");
    if (!ram) {
        fprintf(out, "the guest is: %s\n", json_get_str(own, "where"));
        report_text(own, out);
        return;
    }
    fprintf(out, "total time: %" PRId64 " ms\n", json_get_int(call->result, "total-time"));
    if (json_get(call->result, "downtime"))
        fprintf(out, "downtime: %" PRId64 " ms\n", json_get_int(call->result, "downtime"));
    else
        fprintf(out, "expected downtime: %" PRId64 " ms\n", json_get_int(call->result, "expected-downtime"));
    fprintf(out, "setup: %" PRId64 " ms\n", json_get_int(call->result, "setup-time"));
    print_ram(ram, out);
    print_disks(json_get(call->result, "disk"), out);
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
        fprintf(out, "predicted downtime: %.1f ms, limit %.0f ms\n", json_get_num(own, "predicted-downtime-ms"),
                json_get_num(own, "downtime-limit-ms"));
    report_text(own, out);
}
