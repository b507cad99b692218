/* When to stop: a pure decision over what the rounds so far have shown.
 *
 * It thinks in time: how long would the pause be if the guest were stopped now? That is the dirty units times what
 * one unit costs end to end (scan, compress, link, load), at the bandwidth of the pause and not at a cap, plus the
 * fixed parts. It stops when the upper bound of that fits the limit and another round would not make it much better.
 * Nothing here sleeps, logs, or asks the time. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { CONVERGE_HISTORY = 16 };

struct converge_sample { /* one finished and acknowledged round */
    uint64_t units_data, units_zero;
    uint64_t wire_bytes;
    int64_t elapsed_ns;   /* from its start to the destination's word that all of it is loaded */
    int64_t rate_wait_ns; /* of that, the writer waited for the bandwidth cap */
    int64_t cpu_ns;       /* workers' copying and compressing, summed; 0: unknown */
    uint64_t dirty_units; /* left when it was over */
};

/* The parts of a pause that do not grow with memory. Measured where a pause has happened, else start values. */
struct converge_costs {
    int64_t pause_ns;    /* ask the vCPUs to stop until they have, and devices drained */
    int64_t round_ns;    /* a last round with nothing in it */
    int64_t device_ns;   /* device state, saved, sent, loaded */
    int64_t handover_ns; /* PREPARED, RELEASED, GO, RUNNING, beyond the round trip: written down, and the start there */
};

/* When no better pause is to be had. STOP: the best one that was seen is as good as one within the limit. */
enum converge_on_stall { CONVERGE_STALL_CONTINUE, CONVERGE_STALL_GIVE_UP, CONVERGE_STALL_STOP };

struct converge_policy {
    int64_t downtime_limit_ns;
    uint64_t max_bytes_per_s;        /* the cap that bound the rounds; 0: none */
    uint64_t switchover_bytes_per_s; /* the user's word for the pause's bandwidth; 0: measure */
    uint64_t max_rounds;             /* 0: no bound */
    enum converge_on_stall on_stall; /* once so many rounds and so much time, both, have foreseen no better pause */
    uint64_t stall_rounds;
    int64_t stall_ns;
    unsigned workers;
    bool holds_more;   /* from vCPUs more may be taken soon than now: no round is called stalled before */
    bool hurry;        /* rounds cost the guest its work: stop as soon as it fits */
    bool guest_paused; /* nobody sees this pause: the limit does not bind */
};

struct converge_parts { /* of a pause that is foreseen */
    int64_t ram_ns, trips_ns, fixed_ns;
};

struct converge {
    struct converge_sample sample[CONVERGE_HISTORY]; /* ring, the newest at (rounds - 1) % CONVERGE_HISTORY */
    uint64_t rounds;
    double burst_bytes_per_s; /* best rate seen loaded over a short train; 0: none */
    double train_bytes_per_s; /* of trains that were sent to find out, smoothed; 0: none. Counts for more */
    double train_spread;      /* how far they were off, relative, smoothed */
    double bias;              /* what pauses took / what was predicted, smoothed; 1 at first, and again after a while */
    /* under one policy: another limit, link or quota is another question */
    struct converge_policy asked;
    int64_t best_ns, best_upper_ns; /* smallest prediction so far, smallest upper bound */
    struct converge_parts best;     /* of best_ns */
    uint64_t best_units;            /* dirty then */
    uint64_t stalled_rounds;        /* since then */
    int64_t stalled_ns, wait_ns;    /* time since then; to be waited before the next round */
    int64_t accepted_ns;            /* on_stall STOP: a pause that is taken although it is over the limit; 0: none */
    int64_t elapsed_ns;             /* all rounds */
    int64_t fits_at_ns;             /* elapsed_ns when the pause fitted for the first time; 0: it never did */
    int64_t trip_ns;                /* the least that a round trip may have taken so far; 0: none was seen */
};

enum converge_action { CONVERGE_AGAIN, CONVERGE_SWITCH_OVER, CONVERGE_GIVE_UP };

struct converge_verdict {
    enum converge_action action;
    int64_t predicted_ns;        /* of the pause, were it now */
    int64_t lower_ns, upper_ns;  /* its band, from how far rounds and trains were off: about two in three land inside */
    int64_t wait_ns;             /* AGAIN: not before this much time, or rounds would spin on nothing */
    bool stalled;                /* rounds no longer help: for the report */
    bool by_policy;              /* GIVE_UP: on_stall, not max_rounds */
    struct converge_parts parts; /* of predicted_ns */
    const char *reason;          /* one static sentence */
};

void converge_init(struct converge *c);
void converge_costs_init(struct converge_costs *costs);
void converge_add(struct converge *c, const struct converge_sample *sample);
/* Something was asked and answered in so long: the hello, an empty round. The shortest counts, and no round is shorter: so
 * a host that was busy for the first one is forgotten. A pause takes two: the last round's mark with PREPARED, GO with RUNNING. */
void converge_trip(struct converge *c, int64_t elapsed_ns);
void converge_burst(struct converge *c, uint64_t bytes, int64_t elapsed_ns); /* one train, as loaded */
void converge_train(struct converge *c, uint64_t bytes, int64_t elapsed_ns); /* one without the cap, to find out */

/* Behind a cap: how long after the last train another is worth what it costs the rounds. `lost_ns`: what the last one held them up,
 * beyond the time that its bytes have anyway. A guest that is held just below the link's pace gains little on it, and
 * trains that take a tenth of the time would eat that up. */
int64_t converge_train_every_ns(int64_t lost_ns);

/* What one dirty unit costs during the pause, in ns; 0 before the first round. */
double converge_unit_ns(const struct converge *c, const struct converge_policy *policy);

/* For whoever holds harts back (throttle.h): how many dirty units fit the limit, and how many that are not zero the link
 * clears a second while the guest runs; both 0 before the first round. */
double converge_fit_units(const struct converge *c, const struct converge_policy *policy,
                          const struct converge_costs *costs);
/* How many may be left to the last round because they are dirtied again at once (heat.h): most of what
 * fits; 0 when what is left fits already, since a round after that is to make the pause shorter, or when the guest stands still. */
double converge_keep_units(const struct converge *c, const struct converge_policy *policy,
                           const struct converge_costs *costs);
double converge_clear_units_per_s(const struct converge *c);

struct converge_verdict converge_decide(struct converge *c, const struct converge_policy *policy,
                                        const struct converge_costs *costs);

/* The limit that counts: the one that is asked for, or a longer pause that was accepted since there is no better one. */
int64_t converge_limit_ns(const struct converge *c, int64_t downtime_limit_ns);

/* How long a pause may last before the guest is let go again: by far too long, whatever was predicted. INT64_MAX when
 * nobody sees the pause. */
int64_t converge_overrun_ns(const struct converge_policy *policy);

/* What really happened, next to what was predicted: corrects later predictions, less and less. */
void converge_learn(struct converge *c, int64_t predicted_ns, int64_t measured_ns);
