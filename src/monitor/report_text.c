#include "monitor/report_text.h"

#include <inttypes.h>
#include <string.h>

/* How many a list has; 0 for what is no list. */
static size_t length(struct json_object *list)
{
    return json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
}

/* --- the pause ------------------------------------------------------------------------------------------ */

static void print_pause(struct json_object *own, FILE *out)
{
    struct json_object *pause = json_get(own, "pause");
    if (!pause)
        return;
    fprintf(out, "the pause, part by part:\n");
    for (unsigned i = 0; i < PAUSE_PARTS; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s-ms", pause_part_name((enum pause_part)i));
        if (json_get(pause, name))
            fprintf(out, "  %9.3f ms  %s\n", json_get_num(pause, name), pause_part_text((enum pause_part)i));
    }
    fprintf(out, "  %9.3f ms  in all, from the wish to stop\n", json_get_num(pause, "total-ms"));
}

static void print_seen(struct json_object *own, FILE *out)
{
    struct json_object *seen = json_get(own, "seen");
    if (!json_object_is_type(seen, json_type_object) || json_object_object_length(seen) == 0)
        return;
    fprintf(out, "the pause as it was seen:\n");
    if (json_get(seen, "source-ms"))
        fprintf(out, "  %9.3f ms  by the source: from the last instruction here to the word that it runs there\n",
                json_get_num(seen, "source-ms"));
    if (json_get(seen, "destination-ms"))
        fprintf(out, "  %9.3f ms  by the destination: from the first news of it to the first instruction there\n",
                json_get_num(seen, "destination-ms"));
    if (json_get(seen, "guest-at-most-ms"))
        fprintf(out,
                "  %9.3f ms  by the guest, at least, and at most %.3f ms: no vCPU ran\n"
                "  %9.3f ms  by vCPU %" PRId64 ", which stood longest, and at most %.3f ms\n",
                json_get_num(seen, "guest-at-least-ms"), json_get_num(seen, "guest-at-most-ms"),
                json_get_num(seen, "slowest-cpu-at-least-ms"), json_get_int(seen, "slowest-cpu-index"),
                json_get_num(seen, "slowest-cpu-at-most-ms"));
}

static void print_destination(struct json_object *own, FILE *out)
{
    static const char *const parts[][2] = { { "receive-ms", "receiving what else came in the pause" },
                                            { "load-ms", "loading devices, checking everything" },
                                            { "wait-ms", "waiting for GO" },
                                            { "start-ms", "from GO to the first instruction" } };
    struct json_object *destination = json_get(own, "destination");
    if (!destination)
        return;
    fprintf(out, "the destination's share:\n");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        fprintf(out, "  %9.3f ms  %s\n", json_get_num(destination, parts[i][0]), parts[i][1]);
}

static void print_ms_or_none(struct json_object *object, const char *name, FILE *out)
{
    if (json_get(object, name))
        fprintf(out, "  %9.3f", json_get_num(object, name));
    else
        fprintf(out, "  %9s", "-");
}

static void print_devices(struct json_object *own, FILE *out)
{
    struct json_object *list = json_get(own, "devices");
    size_t count = length(list);
    if (!count)
        return;
    fprintf(out, "device state:\n  %9s  %9s\n", "save ms", "load ms");
    for (size_t i = 0; i < count; i++) {
        struct json_object *device = json_object_array_get_idx(list, i);
        print_ms_or_none(device, "save-ms", out);
        print_ms_or_none(device, "load-ms", out);
        fprintf(out, "  %s, %" PRId64 "\n", json_get_str(device, "name") ? json_get_str(device, "name") : "?",
                json_get_int(device, "instance"));
    }
}

static void print_after(struct json_object *own, FILE *out)
{
    struct json_object *after = json_get(own, "after");
    if (!after)
        return;
    fprintf(out, "the guest's first %.0f ms there:\n", json_get_num(after, "elapsed-ms"));
    fprintf(out, "  %9.0f thousand instructions", json_get_num(after, "instructions") / 1e3);
    if (json_get(after, "work-percent"))
        fprintf(out, ", %.0f %% of what it did in as long a time while it was copied",
                json_get_num(after, "work-percent"));
    fprintf(out, "\n  %9.1f ms of host CPU time", json_get_num(after, "cpu-ms"));
    if (json_get(after, "usual-cpu-ms"))
        fprintf(out, ", %.1f ms while it was copied", json_get_num(after, "usual-cpu-ms"));
    fprintf(out, "\n");
}

/* --- copying -------------------------------------------------------------------------------------------- */

static void print_stall(struct json_object *stall, const char *what, FILE *out)
{
    struct json_object *buckets = json_get(stall, "buckets");
    fprintf(out, "  %9" PRId64 " times, %.3f ms in all, longest %.3f ms: %s\n", json_get_int(stall, "count"),
            json_get_num(stall, "total-ms"), json_get_num(stall, "longest-ms"), what);
    for (size_t i = 0; i < length(buckets); i++) {
        struct json_object *bucket = json_object_array_get_idx(buckets, i);
        fprintf(out, "  %9" PRId64 "   from %" PRId64 " us on\n", json_get_int(bucket, "count"),
                json_get_int(bucket, "from-us"));
    }
}

static void print_stalls(struct json_object *own, FILE *out)
{
    static const char *const kinds[][2] = { { "held", "held back by its quota" },
                                            { "dirty-protocol", "giving write permissions up for a harvest" },
                                            { "paused", "paused, and let go again here" } };
    struct json_object *list = json_get(own, "stalls");
    for (size_t i = 0; i < length(list); i++) {
        struct json_object *vcpu = json_object_array_get_idx(list, i);
        bool heading = false;
        for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
            struct json_object *stall = json_get(vcpu, kinds[kind][0]);
            if (!stall || !json_get_int(stall, "count"))
                continue;
            if (!heading)
                fprintf(out, "what kept vCPU %" PRId64 " from running in %.0f ms of copying:\n",
                        json_get_int(vcpu, "cpu-index"), json_get_num(own, "copying-ms"));
            heading = true;
            print_stall(stall, kinds[kind][1], out);
        }
    }
}

static void print_round(struct json_object *round, FILE *out)
{
    char name[48];
    int64_t first = json_get_int(round, "first-round"), last = json_get_int(round, "last-round");
    if (first == last)
        snprintf(name, sizeof name, "%" PRId64, first);
    else
        snprintf(name, sizeof name, "%" PRId64 "-%" PRId64, first, last);
    fprintf(out, "  %7s %9" PRId64 " %9" PRId64 " %9" PRId64 " %7" PRId64 " %9" PRId64 " %10.0f %9.1f %8.1f", name,
            json_get_int(round, "scanned-pages"), json_get_int(round, "data-pages"), json_get_int(round, "zero-pages"),
            json_get_int(round, "delta-pages"), json_get_int(round, "dirty-pages"),
            json_get_num(round, "wire-bytes") / 1024, json_get_num(round, "elapsed-ms"),
            json_get_num(round, "bytes-per-second") / 1e6);
    static const char *const pauses[] = { "predicted-pause-ms", "pause-ms" };
    for (size_t i = 0; i < sizeof pauses / sizeof *pauses; i++) {
        if (json_get(round, pauses[i]))
            fprintf(out, " %9.1f", json_get_num(round, pauses[i]));
        else
            fprintf(out, " %9s", "-");
    }
    fprintf(out, "\n");
}

static void print_rounds(struct json_object *own, FILE *out)
{
    struct json_object *rounds = json_get(own, "rounds");
    size_t count = length(rounds);
    if (!count)
        return;
    fprintf(out, "rounds, in pages:\n  %7s %9s %9s %9s %7s %9s %10s %9s %8s %9s %9s\n", "round", "scanned", "data",
            "zero", "delta", "left", "wire KiB", "ms", "MB/s", "predicted", "got ms");
    for (size_t i = 0; i < count; i++)
        print_round(json_object_array_get_idx(rounds, i), out);
    fprintf(out, "  %" PRId64 " KiB more on the wire: greetings, device state, words\n",
            json_get_int(own, "other-wire-bytes") >> 10);
}

static void print_cost(struct json_object *own, FILE *out)
{
    const char *phase = json_get_str(own, "ended-in");
    if (phase)
        fprintf(out, "it ended while it was in: %s\n", phase);
    if (json_get_int(own, "pauses-taken-back"))
        fprintf(out, "pauses taken back: %" PRId64 ", in which the guest stood %.1f ms\n",
                json_get_int(own, "pauses-taken-back"), json_get_num(own, "stood-ms"));
}

void report_text(struct json_object *own, FILE *out)
{
    struct json_object *eta = json_get(own, "eta");
    if (eta && json_get_str(eta, "text"))
        fprintf(out, "until it runs there: %s\n", json_get_str(eta, "text"));
    print_cost(own, out);
    print_pause(own, out);
    print_seen(own, out);
    print_destination(own, out);
    print_devices(own, out);
    print_after(own, out);
    print_stalls(own, out);
    print_rounds(own, out);
}
