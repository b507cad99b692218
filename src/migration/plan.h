/* `migrate_plan`: what a migration would be, without one. Nothing moves but samples of pages, which the destination unpacks and
 * forgets.
 *
 * Measured are W(t), how many distinct pages are dirtied within t, once with the line idle and once while it carries samples, and
 * each vCPU's part of it; what a page costs from its scan to the destination's word that it is loaded, for pages as RAM
 * has them and for those that were just dirtied, by the street itself and with the codec it chooses; what an empty round
 * costs; and how long the guest takes to stop and its devices to be saved, in a pause of that length, about a millisecond.
 * Not tried: the devices' load and the start there. forecast.h does the rest. */
#pragma once
#include "memory/ram.h"
#include "migration/forecast.h"
#include "migration/threads/source.h"

struct plan_result {
    bool ready;
    struct forecast_input in; /* what was measured */
    struct forecast forecast;
    unsigned advices;
    struct forecast_advice advice[FORECAST_ADVICE_MAX];
    double link_bytes_per_s; /* as the pause would have it: wire bytes loaded, no cap */
    double busy;             /* the guest's pace of dirtying while samples travel, 1: as without */
    double sampled_bytes;    /* on the wire, for this plan */
    double tried_pause_ms;   /* the longest of the pauses that were made to find out; 0: none was */
    double device_bytes;
};

enum {
    PLAN_UNITS_MAX = 8192,            /* of one probe's source */
    PLAN_SECONDS_MAX = 60,            /* the destination ends one that lasts longer */
    PLAN_WIRE_BYTES_MAX = 1024 << 20, /* or that brings more */
};

struct outgoing;
/* All of it, on the migrate thread: 0, or -errno with the sentence in o->err. The channel is open and the hello was said. */
int plan_measure(struct outgoing *o);

/* Source: these pages of `ram` (PLAN_UNITS_MAX at most, copied) as units of a source, none of them dirty. */
int plan_sample_new(struct ram *ram, const uint64_t *page, unsigned pages, struct source **out, struct err *err);
void plan_sample_mark(struct source *sample, unsigned from, unsigned count); /* dirty: for the next round */
/* Destination: takes what comes, and looks as if it were loaded. */
int plan_sink_new(struct source **out, struct err *err);
void plan_source_free(struct source *source); /* either; NULL allowed */
