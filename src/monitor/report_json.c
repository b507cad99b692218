/* A migration's report as members of `__org.godwit_report`; docs/monitor.md says what each is. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "monitor/report_text.h"

static void put_ms(struct json_object *object, const char *name, int64_t ns)
{
    json_put_num(object, name, (double)ns / NS_PER_MS);
}

static struct json_object *pause_member(const struct migration_report *report)
{
    struct json_object *pause = json_object_new_object();
    struct pause_parts parts = report->pause;
    if (!report->disks) /* finding that out took a moment, too */
        parts.ns[PAUSE_DRAIN] += parts.ns[PAUSE_DISKS];
    for (unsigned i = 0; i < PAUSE_PARTS; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s-ms", pause_part_name((enum pause_part)i));
        if (i != PAUSE_DISKS || report->disks)
            put_ms(pause, name, parts.ns[i]);
    }
    put_ms(pause, "total-ms", pause_sum_ns(&report->pause));
    return pause;
}

static void put_duration(struct json_object *object, const char *least, const char *most, const struct duration *ms)
{
    put_ms(object, least, ms->low_ns);
    put_ms(object, most, ms->high_ns);
}

/* The same pause from where each stood. */
static struct json_object *seen_member(const struct migration_info *info, const struct migration_report *report)
{
    struct json_object *seen = json_object_new_object();
    if (!info->incoming)
        json_put_num(seen, "source-ms", info->downtime_ms);
    if (report->arrival_known)
        put_ms(seen, "destination-ms", report_arrival_parts(&report->arrival).seen_ns);
    if (report->gap.known) {
        put_duration(seen, "guest-at-least-ms", "guest-at-most-ms", &report->gap.all);
        json_put_int(seen, "slowest-cpu-index", report->gap.hart);
        put_duration(seen, "slowest-cpu-at-least-ms", "slowest-cpu-at-most-ms", &report->gap.longest);
    }
    return seen;
}

static struct json_object *destination_member(const struct report_arrival *arrival)
{
    struct arrival_parts parts = report_arrival_parts(arrival);
    struct json_object *object = json_object_new_object();
    put_ms(object, "receive-ms", parts.receive_ns);
    put_ms(object, "load-ms", parts.load_ns);
    put_ms(object, "wait-ms", parts.wait_ns);
    put_ms(object, "start-ms", parts.start_ns);
    return object;
}

static struct json_object *find_device(struct json_object *list, const struct report_device *device)
{
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *one = json_object_array_get_idx(list, i);
        if (!strcmp(json_get_str(one, "name"), device->name) && json_get_int(one, "instance") == device->instance)
            return one;
    }
    struct json_object *one = json_object_new_object();
    json_put_str(one, "name", device->name);
    json_put_int(one, "instance", device->instance);
    json_object_array_add(list, one);
    return one;
}

static struct json_object *devices_member(const struct migration_report *report)
{
    struct json_object *list = json_object_new_array();
    for (unsigned i = 0; i < report->saved.count; i++)
        put_ms(find_device(list, &report->saved.device[i]), "save-ms", report->saved.device[i].ns);
    for (unsigned i = 0; report->arrival_known && i < report->arrival.devices.count; i++)
        put_ms(find_device(list, &report->arrival.devices.device[i]), "load-ms", report->arrival.devices.device[i].ns);
    return list;
}

/* The guest's work in its first moments there, and in as long a time while it was copied. */
static struct json_object *after_member(const struct migration_report *report)
{
    const struct guest_work *after = &report->arrival.after, *before = &report->before;
    struct json_object *object = json_object_new_object();
    double usual = guest_work_per(before, after->elapsed_ns);
    put_ms(object, "elapsed-ms", after->elapsed_ns);
    json_put_u64(object, "instructions", after->instructions);
    put_ms(object, "cpu-ms", after->cpu_ns);
    if (before->elapsed_ns > 0) {
        json_put_num(object, "usual-instructions", usual);
        json_put_num(object, "usual-cpu-ms",
                     (double)before->cpu_ns / NS_PER_MS * ((double)after->elapsed_ns / (double)before->elapsed_ns));
    }
    if (usual > 0)
        json_put_num(object, "work-percent", 100.0 * (double)after->instructions / usual);
    return object;
}

static struct json_object *histogram_member(const struct histogram_counts *counts)
{
    struct json_object *object = json_object_new_object(), *buckets = json_object_new_array();
    json_put_u64(object, "count", counts->count);
    json_put_num(object, "total-ms", (double)counts->sum_ns / NS_PER_MS);
    json_put_num(object, "longest-ms", (double)counts->longest_ns / NS_PER_MS);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        if (!counts->bucket[i])
            continue;
        struct json_object *one = json_object_new_object();
        json_put_u64(one, "from-us", histogram_from_us(i));
        json_put_u64(one, "count", counts->bucket[i]);
        json_object_array_add(buckets, one);
    }
    json_put(object, "buckets", buckets);
    return object;
}

static struct json_object *stalls_member(const struct migration_report *report)
{
    static const char *const names[STALL_KINDS] = {
        [STALL_HELD] = "held", [STALL_DIRTY] = "dirty-protocol", [STALL_PAUSED] = "paused"
    };
    struct json_object *list = json_object_new_array();
    for (unsigned i = 0; i < report->harts; i++) {
        struct json_object *vcpu = json_object_new_object();
        json_put_int(vcpu, "cpu-index", i);
        for (unsigned kind = 0; kind < STALL_KINDS; kind++)
            json_put(vcpu, names[kind], histogram_member(&report->stall[i].kind[kind]));
        json_object_array_add(list, vcpu);
    }
    return list;
}

static struct json_object *round_member(const struct report_round *round)
{
    struct json_object *object = json_object_new_object();
    json_put_u64(object, "first-round", round->first);
    json_put_u64(object, "last-round", round->last);
    json_put_u64(object, "scanned-pages", round->units_scanned);
    json_put_u64(object, "data-pages", round->units_data);
    json_put_u64(object, "zero-pages", round->units_zero);
    json_put_u64(object, "delta-pages", round->units_delta);
    json_put_u64(object, "dirty-pages", round->units_dirty);
    json_put_u64(object, "wire-bytes", round->wire_bytes);
    put_ms(object, "elapsed-ms", round->elapsed_ns);
    json_put_num(object, "bytes-per-second",
                 round->elapsed_ns > 0 ? (double)round->wire_bytes * 1e9 / (double)round->elapsed_ns : 0);
    if (round->predicted_ns)
        put_ms(object, "predicted-pause-ms", round->predicted_ns);
    if (round->got_ns)
        put_ms(object, "pause-ms", round->got_ns);
    return object;
}

static struct json_object *eta_member(const struct eta *eta)
{
    static const char *const kinds[] = { [ETA_UNKNOWN] = "unknown", [ETA_KNOWN] = "known", [ETA_NEVER] = "never" };
    struct json_object *object = json_object_new_object();
    char text[ETA_TEXT_MAX];
    json_put_str(object, "kind", kinds[eta->kind]);
    if (eta->kind == ETA_KNOWN)
        put_ms(object, "p50-ms", eta->p50_ns);
    if (eta->kind == ETA_KNOWN && eta->p90_ns < INT64_MAX)
        put_ms(object, "p90-ms", eta->p90_ns);
    if (eta->kind == ETA_UNKNOWN && eta->round_ns)
        put_ms(object, "round-ms", eta->round_ns);
    if (eta->kind != ETA_KNOWN)
        json_put_str(object, "reason", eta->reason);
    eta_text(eta, text);
    json_put_str(object, "text", text);
    return object;
}

static void put_cost(struct json_object *own, const struct migration_info *info, const struct migration_report *report)
{
    if (info->state == MIGRATION_FAILED || info->state == MIGRATION_CANCELLED)
        json_put_str(own, "ended-in", migration_state_name(report->ended_in));
    if (!info->incoming) {
        json_put_u64(own, "pauses-taken-back", report->taken_back);
        put_ms(own, "stood-ms", report->stood_ns);
    }
}

static void put_copying(struct json_object *own, const struct migration_report *report)
{
    struct json_object *rounds = json_object_new_array();
    for (unsigned i = 0; i < report->rounds.rows; i++)
        json_object_array_add(rounds, round_member(&report->rounds.row[i]));
    put_ms(own, "copying-ms", report->copying_ns);
    json_put(own, "stalls", stalls_member(report));
    json_put(own, "rounds", rounds);
    json_put_u64(own, "other-wire-bytes", report->other_wire_bytes);
}

void report_json(struct json_object *own, const struct migration_info *info, const struct migration_report *report)
{
    put_cost(own, info, report);
    if (info->state == MIGRATION_SETUP || info->state == MIGRATION_ACTIVE)
        json_put(own, "eta", eta_member(&report->eta));
    if (!info->incoming)
        put_copying(own, report);
    if (report->paused)
        json_put(own, "pause", pause_member(report));
    if (report->arrival_due)
        json_put_bool(own, "result-due", true);
    if (info->state == MIGRATION_COMPLETED)
        json_put(own, "seen", seen_member(info, report));
    if (report->saved.count || report->arrival_known)
        json_put(own, "devices", devices_member(report));
    if (!report->arrival_known)
        return;
    json_put(own, "destination", destination_member(&report->arrival));
    if (report->arrival.after.elapsed_ns > 0)
        json_put(own, "after", after_member(report));
}
