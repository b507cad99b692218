/* What a migration cost, part by part: assembled here from moments and counters, pure; migration.h hands it out.
 *
 * Times are ns of clock_now_ns() of the side that the name says, durations ns of either. Nothing here asks the time. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

/* --- the pause ------------------------------------------------------------------------------------------ */

/* One after the other on the source's clock: their sum is the time from the wish to stop until RUNNING was heard. */
enum pause_part {
    PAUSE_STOP,    /* until the last vCPU stood at a safe point */
    PAUSE_DRAIN,   /* devices finish what they do */
    PAUSE_DISKS,   /* what the guest wrote becomes durable */
    PAUSE_HARVEST, /* the last look at the dirty bits: waiting until every vCPU has given its permissions up */
    PAUSE_RAM,     /* the rest of the last round: copy, compress, give to the link */
    PAUSE_DEVICES, /* device state is collected and given to the link */
    PAUSE_LOAD,    /* the destination, from the stream's end to PREPARED */
    PAUSE_RELEASE, /* RELEASED is written down */
    PAUSE_START,   /* the destination, from GO to the first instruction */
    PAUSE_TRIPS,   /* all else of the two waits for the destination: the link, what was queued on it, and wake-ups */
    PAUSE_PARTS,
};

/* On the source's clock, in this order; 0: it did not come to that. */
struct pause_moments {
    int64_t requested_ns; /* the wish to stop */
    int64_t stopped_ns;   /* the last vCPU stood */
    int64_t drained_ns, flushed_ns;
    int64_t harvest_ns;  /* a duration within the last round: waited for permissions */
    int64_t round_ns;    /* the last round was given to the link, RAM is sealed */
    int64_t sent_ns;     /* the devices too, and the EOF */
    int64_t prepared_ns; /* heard */
    int64_t go_ns;       /* is about to be sent */
    int64_t running_ns;  /* heard */
};

struct pause_parts {
    int64_t ns[PAUSE_PARTS];
};

/* How long the destination says that it took; a part of one of the source's waits. -1: it does not say. */
struct pause_told {
    int64_t load_ns, start_ns;
};

/* What the moments amount to. Parts that were not reached are 0; what the destination says is cut to the wait it was in. */
void pause_split(const struct pause_moments *at, const struct pause_told *told, struct pause_parts *out);
int64_t pause_sum_ns(const struct pause_parts *parts);
const char *pause_part_name(enum pause_part part); /* "stop", as in the member "stop-ms" */
const char *pause_part_text(enum pause_part part); /* "stopping the vCPUs", for people */
