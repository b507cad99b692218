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
    PAUSE_ARRIVE,  /* RAM that was still on the link, or being loaded, when the devices were sent; at least so long */
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
    int64_t arrive_ns, load_ns, start_ns;
};

/* What the moments amount to. Parts that were not reached are 0; what the destination says is cut to the wait it was in. */
void pause_split(const struct pause_moments *moments, const struct pause_told *told, struct pause_parts *out);
int64_t pause_sum_ns(const struct pause_parts *parts);
const char *pause_part_name(enum pause_part part); /* "stop", as in the member "stop-ms" */
const char *pause_part_text(enum pause_part part); /* "stopping the vCPUs", for people */

/* --- two clocks ----------------------------------------------------------------------------------------- */

/* What a time of the destination's clock is on the source's: it plus something between low_ns and high_ns. Nothing arrives before it
 * was sent, so every message that was timed at both ends narrows that; within a pause no clock drifts far. */
struct clock_bounds {
    int64_t low_ns, high_ns;
    bool has_low, has_high;
};

void clock_sent(struct clock_bounds *bounds, int64_t here_ns, int64_t there_ns);  /* from here, arrived there */
void clock_heard(struct clock_bounds *bounds, int64_t here_ns, int64_t there_ns); /* sent there, arrived here */
/* Both ends read one clock, if they say so truly: then the bounds meet, and a time of there is a time of here. */
void clock_same(struct clock_bounds *bounds);

/* A duration that began here and ended there: at least, at most. False: no bounds. */
struct duration {
    int64_t low_ns, high_ns;
};
bool clock_between(const struct clock_bounds *bounds, int64_t from_here_ns, int64_t to_there_ns, struct duration *out);

/* --- rounds --------------------------------------------------------------------------------------------- */

enum { REPORT_ROUNDS_MAX = 64 };

struct report_round {       /* one round, or several in a row, added up */
    uint64_t first, last;   /* their numbers, from 1 */
    uint64_t units_scanned; /* taken from the dirty bits */
    uint64_t units_data, units_zero, units_delta;
    uint64_t units_dirty; /* left when it, the last of them, was over */
    uint64_t wire_bytes;
    int64_t elapsed_ns;
    int64_t predicted_ns; /* behind it: of the pause, were it now; 0: not asked */
    int64_t got_ns;       /* a pause that followed: it took so long; 0: none did */
};

/* Rounds have no bound, the table has one: when it is full, older ones are added up in pairs. No sum changes by that. */
struct report_rounds {
    unsigned rows;
    struct report_round row[REPORT_ROUNDS_MAX];
};

void report_add_round(struct report_rounds *rounds, const struct report_round *round);
struct report_round report_sum(const struct report_rounds *rounds);

/* --- work ----------------------------------------------------------------------------------------------- */

struct guest_work { /* of all vCPUs, in some time */
    int64_t elapsed_ns;
    uint64_t instructions; /* retired */
    int64_t cpu_ns;        /* of the host, that their threads had */
};

/* Instructions in `now_ns` at the pace of `work`; 0 when there is nothing to go by. */
double guest_work_per(const struct guest_work *work, int64_t now_ns);

/* --- what the destination tells ------------------------------------------------------------------------- */

enum { REPORT_DEVICES_MAX = 96, REPORT_NAME_BYTES = 48, REPORT_HARTS_MAX = 64, REPORT_HOST_BYTES = 16 };

struct report_device {
    char name[REPORT_NAME_BYTES];
    uint32_t instance;
    int64_t ns; /* to save, or to load */
};
struct report_devices {
    unsigned count;
    struct report_device device[REPORT_DEVICES_MAX];
};

void report_add_device(struct report_devices *devices, const char *name, uint32_t instance, int64_t ns);

/* The destination's own measurements. Times are its clock's; 0: did not happen. */
struct report_arrival {
    uint8_t host[REPORT_HOST_BYTES]; /* the same for all processes that read one CLOCK_MONOTONIC; zeroes: not known */
    int64_t stopped_ns;              /* the first element came that a source sends when the guest stands */
    int64_t eof_ns;                  /* the stream's end came */
    int64_t prepared_ns;             /* all loaded and checked, about to say so */
    int64_t go_ns;                   /* GO came */
    int64_t told_ns;                 /* about to say RUNNING */
    unsigned harts;
    int64_t resumed_ns[REPORT_HARTS_MAX]; /* went on; 0: it did not */
    struct guest_work after;              /* from when the first went on; its elapsed_ns is some 100 ms */
    struct report_devices devices;        /* to load */
};

enum { REPORT_ARRIVAL_BYTES_MAX = 16 * 1024 };
struct buf;
struct reader;
void report_arrival_encode(const struct report_arrival *arrival, struct buf *out);
/* Every byte is hostile: -EPROTO, and nothing in *out counts. A newer peer may append. */
int report_arrival_decode(struct reader *in, struct report_arrival *out);

/* What the first vCPU to go on, and the vCPU that stood longest, saw: from here to there. */
struct guest_gap {
    bool known;
    struct duration all;     /* no vCPU ran: from the last that stopped to the first that went on */
    struct duration longest; /* the longest of any one vCPU */
    unsigned hart;           /* that one */
};
void report_gap(const struct clock_bounds *bounds, const int64_t *paused_ns, unsigned harts,
                const struct report_arrival *arrival, struct guest_gap *out);

/* The destination's share of the pause, on its own clock: what it saw of it, and the parts. Parts that did not happen are 0. */
struct arrival_parts {
    int64_t seen_ns;    /* from the first that told of the pause to the first vCPU that went on */
    int64_t receive_ns; /* until the stream's end */
    int64_t load_ns;    /* until all was loaded and checked */
    int64_t wait_ns;    /* for GO */
    int64_t start_ns;   /* until the first vCPU went on */
};
struct arrival_parts report_arrival_parts(const struct report_arrival *arrival);
int64_t report_first_resumed_ns(const struct report_arrival *arrival); /* 0: none did */
