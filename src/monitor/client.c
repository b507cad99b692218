/* `godwit migrate`: one migration, watched by a person or a script, over the monitor of a running process. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "migration/params.h"
#include "base/json.h"
#include "monitor/client.h"
#include "monitor/plan.h"
#include "monitor/qmp_client.h"
#include "monitor/report_text.h"

enum {
    POLL_MS = 100,
    RESULT_POLLS = 60,
    RATIO_BYTES_MIN = 1 << 20
}; /* of less data, the marks of zero pages would be the ratio */
enum progress { PROGRESS_AUTO, PROGRESS_PLAIN, PROGRESS_NONE, PROGRESS_TTY };

struct options {
    const char *monitor, *uri;
    int64_t downtime_limit_ms, threads, channels; /* -1: as it is */
    int64_t bandwidth_bytes_per_s;
    bool json, auto_converge, rehearse, plan, disks, disks_top;
    enum progress progress;
};

struct watch {
    const struct options *options;
    struct qmp_client *client;
    int signals; /* a signalfd for SIGINT and SIGTERM */
    bool cancelling;
    int asked_again;
    char phase[32];
    int64_t round;
};

/* --- the command line ----------------------------------------------------------------------------------- */

static void print_usage(FILE *out)
{
    fprintf(out, "usage: godwit migrate --monitor PATH|tcp:HOST:PORT [options] URI\n"
                 "  --downtime-limit MS    pause that the guest may see\n"
                 "  --max-bandwidth SIZE   bytes a second on the wire: 100M, 1.5G; 0: no cap\n"
                 "  --auto-converge        hold vCPUs back that dirty memory too fast\n"
                 "  -b, --disks            copy the disks too\n"
                 "  -i, --disks-top        copy of the disks what is above a backing file that both sides have\n"
                 "  --rehearse             all of it, but there it is dropped, and the guest runs on here\n"
                 "  --plan                 say how it would go, and move nothing\n"
                 "  --threads N            threads that scan and compress\n"
                 "  --channels N           connections that memory travels over\n"
                 "  --json                 print the final query-migrate object\n"
                 "  --progress WHEN        auto, plain or none\n"
                 "URI: tcp:HOST:PORT unix:PATH exec:COMMAND fd:N file:PATH\n"
                 "exit: 0 moved (or rehearsed, or planned: it will end), 1 not started, 2 usage, 3 failed, 4 gave up, "
                 "5 refused by the destination (3-5: the\n"
                 "guest still runs on the source), 6 outcome unknown, 130 cancelled\n");
}

static bool parse_number(const char *text, int64_t *out)
{
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    *out = number;
    return *text && !*end && !errno && number >= 0;
}

static bool parse_progress(const char *text, enum progress *out)
{
    static const char *const names[] = { "auto", "plain", "none", "tty" };
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(text, names[i])) {
            *out = (enum progress)i;
            return true;
        }
    return false;
}

static bool parse_bandwidth(const char *text, int64_t *out)
{
    uint64_t bytes;
    if (parse_size(text, &bytes) < 0 || bytes > INT64_MAX)
        return false;
    *out = (int64_t)bytes;
    return true;
}

/* 0, or the exit code to leave with (-1: leave with success). */
static int parse_options(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {
        { "monitor", required_argument, NULL, 'm' },
        { "downtime-limit", required_argument, NULL, 'd' },
        { "max-bandwidth", required_argument, NULL, 'w' },
        { "auto-converge", no_argument, NULL, 'a' },
        { "disks", no_argument, NULL, 'D' },
        { "disks-top", no_argument, NULL, 'i' },
        { "rehearse", no_argument, NULL, 'r' },
        { "plan", no_argument, NULL, 'P' },
        { "threads", required_argument, NULL, 't' },
        { "channels", required_argument, NULL, 'c' },
        { "json", no_argument, NULL, 'j' },
        { "progress", required_argument, NULL, 'p' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    *o = (struct options){ .downtime_limit_ms = -1, .threads = -1, .channels = -1, .bandwidth_bytes_per_s = -1 };
    int key;
    bool good = true;
    optind = 1;
    while (good && (key = getopt_long(argc, argv, "m:hbi", longs, NULL)) != -1) {
        switch (key) {
        case 'm': o->monitor = optarg; break;
        case 'd': good = parse_number(optarg, &o->downtime_limit_ms); break;
        case 'w': good = parse_bandwidth(optarg, &o->bandwidth_bytes_per_s); break;
        case 'a': o->auto_converge = true; break;
        case 'b':
        case 'D': o->disks = true; break;
        case 'i': o->disks_top = true; break;
        case 'r': o->rehearse = true; break;
        case 'P': o->plan = true; break;
        case 't': good = parse_number(optarg, &o->threads); break;
        case 'c': good = parse_number(optarg, &o->channels); break;
        case 'j': o->json = true; break;
        case 'p': good = parse_progress(optarg, &o->progress); break;
        case 'h': print_usage(stdout); return -1;
        default: print_usage(stderr); return CLIENT_USAGE;
        }
    }
    if (!good)
        fprintf(stderr, "godwit migrate: '%s' is not a value for this option\n", optarg);
    if (o->rehearse && o->plan)
        fprintf(stderr, "godwit migrate: --rehearse and --plan are two things\n");
    if ((o->rehearse && o->plan) || !good || !o->monitor || optind + 1 != argc) {
        print_usage(stderr);
        return CLIENT_USAGE;
    }
    o->uri = argv[optind];
    if (o->progress == PROGRESS_AUTO)
        o->progress = isatty(2) ? PROGRESS_TTY : PROGRESS_PLAIN;
    return 0;
}

/* --- showing it ----------------------------------------------------------------------------------------- */

static const char *size_text(double bytes, char *out, size_t size)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    unsigned unit = 0;
    for (; bytes >= 1024 && unit + 1 < sizeof units / sizeof *units; unit++)
        bytes /= 1024;
    snprintf(out, size, unit ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
    return out;
}

static void progress_text(struct json_object *info, char *out, size_t size)
{
    struct json_object *ram = json_get(info, "ram");
    if (!ram) {
        snprintf(out, size, "%s", json_get_str(info, "status"));
        return;
    }
    double total = json_get_num(ram, "total"), left = json_get_num(ram, "remaining"),
           page = json_get_num(ram, "page-size");
    struct json_object *disks = json_get(json_get(info, "disk"), "__org.godwit_disks");
    for (size_t i = 0; disks && i < json_object_array_length(disks); i++) { /* of what they hold, not of their holes */
        struct json_object *disk = json_object_array_get_idx(disks, i);
        left += json_get_num(disk, "remaining");
        total += json_get_num(disk, "remaining") + json_get_num(disk, "copied");
    }
    double wire = json_get_num(ram, "mbps") / 8;
    const char *eta = json_get_str(json_get(json_get(info, "__org.godwit_report"), "eta"), "text");
    snprintf(out, size, "%-8s round %" PRId64 " %3.0f%%  %.1f MB/s  dirty %.1f MB/s  downtime ~%" PRId64 " ms  ETA %s",
             json_get_str(info, "status"), json_get_int(ram, "dirty-sync-count"),
             total > 0 ? 100 * (1 - left / total) : 0, wire, json_get_num(ram, "dirty-pages-rate") * page / 1e6,
             json_get_int(info, "expected-downtime"), eta ? eta : "-");
}

static void show_progress(struct watch *watch, struct json_object *info)
{
    char text[384];
    const char *status = json_get_str(info, "status");
    int64_t round = json_get_int(json_get(info, "ram"), "dirty-sync-count");
    bool news = strcmp(status, watch->phase) || round != watch->round;
    progress_text(info, text, sizeof text);
    if (watch->options->progress == PROGRESS_TTY)
        fprintf(stderr, "\r%s\033[K", text);
    else if (watch->options->progress == PROGRESS_PLAIN && news)
        fprintf(stderr, "%s\n", text);
    snprintf(watch->phase, sizeof watch->phase, "%s", status);
    watch->round = round;
}

static void print_row(const char *label, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void print_row(const char *label, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("  %-20s ", label);
    vprintf(format, args);
    printf("\n");
    va_end(args);
}

static void print_held(struct json_object *own)
{
    struct json_object *list = json_get(own, "throttle");
    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        struct json_object *vcpu = json_object_array_get_idx(list, i);
        if (json_get_int(vcpu, "holds"))
            print_row("held back", "vCPU %" PRId64 ", %.1f ms in %" PRId64 " pieces", json_get_int(vcpu, "cpu-index"),
                      json_get_num(vcpu, "held-ms"), json_get_int(vcpu, "holds"));
    }
}

static void print_table(struct json_object *info)
{
    char text[32];
    struct json_object *ram = json_get(info, "ram"), *own = json_get(info, "__org.godwit_report");
    double wire = json_get_num(ram, "transferred");
    double raw = own ? json_get_num(own, "raw-bytes") : json_get_num(ram, "normal-bytes");
    bool rehearsal = json_get_bool(own, "rehearsal");
    printf(rehearsal ? "rehearsal completed, the guest runs on here\n" : "migration completed\n");
    print_row("total time", "%" PRId64 " ms", json_get_int(info, "total-time"));
    print_row("rounds", "%" PRId64, json_get_int(ram, "dirty-sync-count"));
    print_row("data pages", "%" PRId64, json_get_int(ram, "normal"));
    print_row("zero pages", "%" PRId64, json_get_int(ram, "duplicate"));
    print_row("on the wire", "%s", size_text(wire, text, sizeof text));
    if (wire > 0 && raw >= RATIO_BYTES_MIN)
        print_row("compression ratio", "%.2f", raw / wire);
    if (!own) {
        print_row("downtime", "%" PRId64 " ms", json_get_int(info, "downtime"));
        return;
    }
    print_row("downtime", "%.1f ms (predicted %.1f ms, limit %.0f ms)", json_get_num(own, "downtime-ms"),
              json_get_num(own, "predicted-downtime-ms"), json_get_num(own, "downtime-limit-ms"));
    if (rehearsal)
        print_row("stood still here", "%.1f ms, the copy there %s", json_get_num(own, "held-ms"),
                  json_get_bool(own, "dropped") ? "was dropped" : "may not be dropped yet");
    print_held(own);
    report_text(own, stdout);
}

/* --- what came of it ------------------------------------------------------------------------------------ */

static int failed_code(struct json_object *own)
{
    const char *where = json_get_str(own, "where"), *reason = json_get_str(own, "reason");
    if (where && strcmp(where, "here"))
        return CLIENT_UNKNOWN;
    if (reason && !strcmp(reason, "gave-up"))
        return CLIENT_GAVE_UP;
    return reason && !strcmp(reason, "refused") ? CLIENT_REFUSED : CLIENT_FAILED;
}

/* -1 while it goes on. */
static int outcome(struct json_object *info)
{
    const char *status = json_get_str(info, "status");
    if (!status)
        return CLIENT_UNKNOWN; /* we started one, and it knows of none */
    if (!strcmp(status, "cancelled"))
        return CLIENT_CANCELLED;
    struct json_object *plan = json_get(info, "__org.godwit_plan");
    if (!strcmp(status, "completed") && plan)
        return json_get_bool(plan, "converges") ? CLIENT_MOVED : CLIENT_GAVE_UP;
    if (!strcmp(status, "completed"))
        return CLIENT_MOVED;
    if (!strcmp(status, "failed"))
        return failed_code(json_get(info, "__org.godwit_report"));
    bool asks = json_get_bool(json_get(info, "__org.godwit_report"), "reconnecting"); /* it may still find out */
    return !strcmp(status, "unresolved") && !asks ? CLIENT_UNKNOWN : -1;
}

static void tell_end(struct watch *watch, struct json_object *info, int code)
{
    const char *error = json_get_str(info, "error-desc");
    if (watch->options->progress == PROGRESS_TTY)
        fprintf(stderr, "\r\033[K");
    if (watch->options->json) {
        char *line = json_string(info);
        printf("%s\n", line);
        free(line);
    } else if (json_get(info, "__org.godwit_plan")) {
        plan_print(json_get(info, "__org.godwit_plan"), stdout);
    } else if (code == CLIENT_MOVED) {
        print_table(info);
    }
    if (!watch->options->json && code != CLIENT_MOVED)
        report_text(json_get(info, "__org.godwit_report"), stdout);
    if (code == CLIENT_CANCELLED)
        fprintf(stderr, "godwit migrate: cancelled, the guest runs on the source\n");
    else if (code == CLIENT_UNKNOWN)
        fprintf(stderr, "godwit migrate: it is not known where the guest is%s%s; migrate_resolve ends the doubt\n",
                error ? ": " : "", error ? error : "");
    else if (code != CLIENT_MOVED && !json_get(info, "__org.godwit_plan"))
        fprintf(stderr, "godwit migrate: %s; the guest runs on the source\n", error ? error : "failed");
}

/* Ctrl-C: once asks the source to cancel; if that is too late the migration is watched to its end. */
static void on_signal(struct watch *watch)
{
    struct signalfd_siginfo info;
    struct err err = { 0 };
    if (read(watch->signals, &info, sizeof info) < 0 || watch->cancelling)
        return;
    watch->cancelling = true;
    if (qmp_client_call(watch->client, "migrate_cancel", NULL, NULL, &err) < 0)
        fprintf(stderr, "\ngodwit migrate: %s\n", err.text);
}

static int lost(struct watch *watch, const struct err *err)
{
    if (watch->options->progress == PROGRESS_TTY)
        fprintf(stderr, "\n");
    fprintf(stderr, "godwit migrate: lost the source's monitor (%s): it is not known where the guest is\n", err->text);
    return CLIENT_UNKNOWN;
}

static int watch_it(struct watch *watch)
{
    for (;;) {
        struct json_object *info = NULL;
        struct err err = { 0 };
        if (qmp_client_call(watch->client, "query-migrate", NULL, &info, &err) < 0)
            return lost(watch, &err);
        int code = outcome(info);
        /* What the destination measured comes a moment behind the end. */
        if (code == CLIENT_MOVED && json_get_bool(json_get(info, "__org.godwit_report"), "result-due") &&
            ++watch->asked_again <= RESULT_POLLS) {
            json_object_put(info);
            poll(NULL, 0, POLL_MS / 4);
            continue;
        }
        if (code >= 0)
            tell_end(watch, info, code);
        else
            show_progress(watch, info);
        json_object_put(info);
        if (code >= 0)
            return code;
        struct pollfd pfd = { .fd = watch->signals, .events = POLLIN };
        if (poll(&pfd, 1, POLL_MS) > 0)
            on_signal(watch);
    }
}

/* --- starting it ---------------------------------------------------------------------------------------- */

static int set_parameters(struct watch *watch, struct err *err)
{
    const struct options *o = watch->options;
    struct json_object *args = json_object_new_object();
    if (o->downtime_limit_ms >= 0)
        json_put_int(args, "downtime-limit", o->downtime_limit_ms);
    if (o->bandwidth_bytes_per_s >= 0)
        json_put_int(args, "max-bandwidth", o->bandwidth_bytes_per_s);
    if (o->threads >= 0)
        json_put_int(args, "threads", o->threads);
    if (o->channels >= 0)
        json_put_int(args, "channels", o->channels);
    int rc = 0;
    if (json_object_object_length(args) > 0)
        rc = qmp_client_call(watch->client, "migrate-set-parameters", args, NULL, err);
    json_object_put(args);
    return rc;
}

static int set_auto_converge(struct watch *watch, struct err *err)
{
    struct json_object *args = json_object_new_object(), *list = json_object_new_array();
    struct json_object *one = json_object_new_object();
    json_put_str(one, "capability", "auto-converge");
    json_put_bool(one, "state", true);
    json_object_array_add(list, one);
    json_put(args, "capabilities", list);
    int rc = qmp_client_call(watch->client, "migrate-set-capabilities", args, NULL, err);
    json_object_put(args);
    return rc;
}

static int start(struct watch *watch, struct err *err)
{
    int rc = set_parameters(watch, err);
    if (rc == 0 && watch->options->auto_converge)
        rc = set_auto_converge(watch, err);
    if (rc < 0)
        return rc;
    struct json_object *args = json_object_new_object();
    json_put_str(args, "uri", watch->options->uri);
    if (watch->options->rehearse)
        json_put_bool(args, "__org.godwit_rehearse", true);
    if (watch->options->disks)
        json_put_bool(args, "blk", true);
    if (watch->options->disks_top)
        json_put_bool(args, "inc", true);
    const char *command = watch->options->plan ? "__org.godwit_migrate-plan" : "migrate";
    rc = qmp_client_call(watch->client, command, args, NULL, err);
    json_object_put(args);
    return rc;
}

int client_main(int argc, char **argv)
{
    struct options options;
    struct err err = { 0 };
    int code = parse_options(argc, argv, &options);
    if (code != 0)
        return code < 0 ? 0 : code;
    struct watch watch = { .options = &options };
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    watch.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (qmp_client_connect(options.monitor, &watch.client, &err) < 0 || start(&watch, &err) < 0) {
        fprintf(stderr, "godwit migrate: %s\n", err.text);
        code = CLIENT_NOT_STARTED;
    } else {
        code = watch_it(&watch);
    }
    qmp_client_close(watch.client);
    close(watch.signals);
    return code;
}
