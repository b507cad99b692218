/* Which codec the next chunks get: a pure decision over what was measured. No clock, no lock, no thread.
 *
 * A unit passes two stages that work at the same time, the workers and the link; the slower one is what clears it.
 * What a codec costs in either is known from its chunks and from small probes; what the link carries, from how long the
 * writer was busy with how many bytes. What a codec really did when it was last in use outranks that for a while: the
 * destination's CPUs are in it, and how much the guest wants of ours. Of codecs that are about as fast the one with the
 * least CPU wins, and one that costs more must promise clearly more before it is tried. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "migration/threads/pipeline.h"

/* A codec with its acceleration, in the order of what they cost. */
struct gear {
    enum codec codec;
    int acceleration; /* LZ4 */
};
enum { GEAR_NONE, GEAR_LZ4_FAST, GEAR_LZ4, GEAR_ZSTD, GEARS, GEAR_START = GEAR_LZ4 };
extern const struct gear gears[GEARS];

enum {
    CHOOSE_WINDOW_NS = 20 * 1000000, /* what is looked at together, at least */
    CHOOSE_CHUNKS_MIN = 4,           /* and this many */
    CHOOSE_PROBE_UNITS = 16,
};

/* What happened since the last decision. */
struct choose_window {
    int64_t elapsed_ns;
    int64_t idle_ns, frozen_ns, rate_wait_ns; /* of the writer: no chunk there; the channel was full; the cap */
    uint64_t sent_bytes;                      /* the channel took */
    uint64_t units;                           /* data units that workers made */
    bool peer_lags;                           /* the peer had bytes to read all the time */
    bool one_round;                           /* all of it, without a pause */
    bool steady;                              /* and in one gear */
    uint64_t max_bytes_per_s;                 /* the cap; 0: none */
    unsigned workers;
};

struct choose_cost {
    double cpu_ns, wire_bytes; /* of a unit: packing and framing, not the copy */
    bool known;
    double seen_ns;       /* a unit took in all when this gear was last in use; 0: it was not */
    double seen_bytes;    /* wire_bytes then */
    int64_t seen_at_ns;   /* on the choice's own clock */
    bool of_peer;         /* it was the peer that took so long */
    double forget_ns;     /* half of that is forgotten in so long */
    int64_t probe_due_ns; /* of the workers' time */
};

struct choose {
    unsigned gear, before;
    unsigned codecs; /* mask of 1 << enum codec: what may be chosen */
    struct choose_cost cost[GEARS];
    double copy_ns; /* CPU of a unit before it is packed; 0: unknown */
    struct choose_share {
        double cpu_ns, wall_ns; /* sums; what is older counts less */
    } plain, packing;           /* of its time that a working worker had a CPU, by gear NONE and the others */
    double relax_ns;            /* in gear NONE half of what packing lacked is forgotten in so long */
    double lag;                 /* of the time, lately, that the peer lagged */
    double bytes_per_s;         /* what the link carries */
    bool full;                  /* it is */
    double rise_ns;             /* while it is not, it is thought twice as fast every so often */
    int64_t tail_min_ns;        /* from a round's end here to the word that it is loaded, at best; 0: unknown */
    uint64_t cap;               /* as it was */
    int64_t now_ns;             /* sum of windows */
    double promised_ns;         /* what a unit should have taken in it */
    int64_t since_ns;           /* when this gear was taken */
    int64_t worked_ns;          /* workers' CPU time */
};

void choose_init(struct choose *c, unsigned codecs);
/* A chunk or a probe was made: CPU time for packing and framing `units` units, and the bytes that came of them. */
void choose_packed(struct choose *c, unsigned gear, unsigned units, int64_t cpu_ns, uint64_t wire_bytes);
/* A worker in this gear had a CPU for cpu_ns of wall_ns, of which it copied `units` units in copy_ns. */
void choose_worked(struct choose *c, unsigned gear, unsigned units, int64_t copy_ns, int64_t cpu_ns, int64_t wall_ns);
/* The gear whose cost should be looked at on CHOOSE_PROBE_UNITS units now, or GEARS. All of it takes one per cent of the
 * workers' CPU time, beyond the first look at each. */
unsigned choose_probe(struct choose *c);
/* A round was made in made_ns and loaded by the peer in loaded_ns, both since its beginning: what a socket's buffer took at
 * once, and the channel was never full for, shows here. */
void choose_carried(struct choose *c, uint64_t bytes, int64_t made_ns, int64_t loaded_ns);
/* The gear from now on. */
unsigned choose_next(struct choose *c, const struct choose_window *window);
/* What a unit would take in a gear, ns, by all that is known. */
double choose_unit_ns(const struct choose *c, unsigned gear, const struct choose_window *window);
