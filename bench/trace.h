/* Recorded migrations, replayed: when would have been the best moment to stop, and when does the controller stop?
 *
 * A trace is what bench/record.py saw of a real migration: slices, some 20 ms apart, of what was sent and what was dirty, and
 * the pause that it came to. That pause tells what a dirty page costs in it; so every slice has a pause that it would have
 * been, and the best stop is found by trying all of them. bench/README.md has the format. */
#pragma once
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migration/converge.h"

enum { TRACE_SLICES_MAX = 4096 };

struct trace_slice {
    double ms;                       /* since the migration began */
    uint64_t round;                  /* finished by then */
    uint64_t left, data, zero, wire; /* pages dirty now; pages and bytes sent since the beginning */
};

struct trace {
    double limit_ms, cap_bytes_per_s;    /* asked; cap 0: none */
    double total_ms, pause_ms, fixed_ms; /* as it went; fixed: of the pause, what was not memory */
    unsigned slices;
    struct trace_slice slice[TRACE_SLICES_MAX];
};

struct trace_stop {
    double at_ms, pause_ms, total_ms; /* total_ms: with the pause. INFINITY: there is none */
};

static inline double *trace_field(struct trace *trace, const char *name)
{
    const struct {
        const char *name;
        double *value;
    } fields[] = { { "limit-ms", &trace->limit_ms },
                   { "cap-bytes-per-s", &trace->cap_bytes_per_s },
                   { "total-ms", &trace->total_ms },
                   { "pause-ms", &trace->pause_ms },
                   { "fixed-ms", &trace->fixed_ms } };

    for (unsigned i = 0; i < sizeof(fields) / sizeof(*fields); i++)
        if (strcmp(fields[i].name, name) == 0)
            return fields[i].value;
    return NULL;
}

/* NULL, or what is wrong with the line. */
static inline const char *trace_line(struct trace *trace, const char *line)
{
    struct trace_slice *slice = &trace->slice[trace->slices], *before = slice - 1;
    char name[24], rest;
    double value;

    if (*line == '#' || *line == '\n')
        return NULL;
    if (sscanf(line, "%23[a-z-] %lf %c", name, &value, &rest) == 2) {
        double *field = trace_field(trace, name);
        if (!field || !(value >= 0))
            return "this is no field of a trace";
        *field = value;
        return NULL;
    }
    if (trace->slices == TRACE_SLICES_MAX)
        return "too many slices";
    if (sscanf(line, "%lf %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %c", &slice->ms, &slice->round,
               &slice->left, &slice->data, &slice->zero, &slice->wire, &rest) != 6)
        return "six numbers are wanted: ms, round, left, data, zero, wire";
    if (trace->slices && (!(slice->ms > before->ms) || slice->round < before->round || slice->data < before->data ||
                          slice->zero < before->zero || slice->wire < before->wire))
        return "time and what was sent must rise";
    trace->slices++;
    return NULL;
}

/* 0, or -1 with a sentence in `why`. */
static inline int trace_read(const char *path, struct trace *trace, char *why, size_t why_size)
{
    FILE *in = fopen(path, "r");
    const char *wrong = NULL;
    char line[512];
    unsigned n = 0;

    *trace = (struct trace){ 0 };
    if (!in) {
        snprintf(why, why_size, "%s: %s", path, strerror(errno));
        return -1;
    }
    while (!wrong && fgets(line, sizeof(line), in))
        wrong = n++ ? trace_line(trace, line) : strcmp(line, "godwit trace 1\n") ? "this is no trace" : NULL;
    fclose(in);
    if (!wrong && (trace->slices < 2 || trace->limit_ms <= 0 || trace->total_ms <= trace->pause_ms ||
                   trace->pause_ms <= trace->fixed_ms))
        wrong = "fields or slices are missing, or say nothing";
    if (wrong)
        snprintf(why, why_size, "%s: line %u: %s", path, n, wrong);
    return wrong ? -1 : 0;
}

/* What a dirty page cost in the pause that it came to. */
static inline double trace_page_ms(const struct trace *trace)
{
    double left = (double)trace->slice[trace->slices - 1].left;

    return (trace->pause_ms - trace->fixed_ms) / fmax(left, 1);
}

static inline struct trace_stop trace_stop_at(const struct trace *trace, const struct trace_slice *slice)
{
    double pause_ms = trace->fixed_ms + (double)slice->left * trace_page_ms(trace);

    return (struct trace_stop){ slice->ms, pause_ms, slice->ms + pause_ms };
}

/* Of all slices that keep the limit, the one after which it would have been over first. */
static inline struct trace_stop trace_best(const struct trace *trace)
{
    struct trace_stop best = { .total_ms = INFINITY };

    for (unsigned i = 0; i < trace->slices; i++) {
        struct trace_stop stop = trace_stop_at(trace, &trace->slice[i]);
        if (stop.pause_ms <= trace->limit_ms && stop.total_ms < best.total_ms)
            best = stop;
    }
    return best;
}

/* The controller as it is, given the recorded rounds one by one: where it stops. Where it goes on beyond the recording it is
 * the recording's end, as it went. */
static inline struct trace_stop trace_controller(const struct trace *trace)
{
    struct converge_policy policy = { .downtime_limit_ns = (int64_t)(trace->limit_ms * 1e6),
                                      .max_bytes_per_s = (uint64_t)trace->cap_bytes_per_s,
                                      .workers = 2 };
    struct trace_slice from = { 0 };
    struct converge_costs costs;
    struct converge converge;

    converge_init(&converge);
    converge_costs_init(&costs);
    for (unsigned i = 1; i < trace->slices; i++) {
        const struct trace_slice *now = &trace->slice[i];
        if (now->round == trace->slice[i - 1].round)
            continue;
        double pages = (double)(now->data - from.data), elapsed_ms = now->ms - from.ms;
        double busy_ms = pages * trace_page_ms(trace); /* the rest of it the cap was waited for */
        struct converge_sample sample = {
            .units_data = now->data - from.data,
            .units_zero = now->zero - from.zero,
            .wire_bytes = now->wire - from.wire,
            .elapsed_ns = (int64_t)(elapsed_ms * 1e6),
            .rate_wait_ns = policy.max_bytes_per_s ? (int64_t)(fmax(elapsed_ms - busy_ms, 0) * 1e6) : 0,
            .dirty_units = now->left,
        };
        from = *now;
        converge_add(&converge, &sample);
        if (converge_decide(&converge, &policy, &costs).action == CONVERGE_SWITCH_OVER)
            return trace_stop_at(trace, now);
    }
    return (struct trace_stop){ trace->total_ms - trace->pause_ms, trace->pause_ms, trace->total_ms };
}
