/* When will it be over? A pure forecast for people: rounds are played on from where they are, over what the guest was seen
 * to dirty. Twice: as measured, and with every measurement off by its spread to the bad side. Nothing here sleeps, logs, or
 * asks the time. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { ETA_CURVE_MAX = 4, ETA_TEXT_MAX = 160 };
enum { ETA_NEVER_ROUNDS = 3 }; /* one round that went badly, on a busy host, is no reason to say never */

/* Units are those that have data; 0, less, and what is no number at all are no measurement. */
struct eta_model {
    unsigned points; /* of the curve: in such a time so many distinct units were dirtied */
    struct {
        double elapsed_ns, units;
    } curve[ETA_CURVE_MAX]; /* the longest time first, then the newest */
    double unit_ns;         /* a unit takes so long in a round, cap included */
    double spread;          /* how far that is off, relative */
    double fit_units;       /* so many may be left for the pause */
    double pause_ns;        /* predicted */
    uint64_t rounds_left;   /* max-rounds allows so many more; UINT64_MAX: as many as it takes */
    bool holding;           /* vCPUs are held back: the curve is no longer what it was */
    bool paused;            /* the guest stands: nothing becomes dirty */
    unsigned never_rounds;  /* so many in a row looked as if there was no end: eta_settle() */
};

struct eta_position {
    double left_units; /* of the round that goes on */
    double elapsed_ns; /* since it began */
};

enum eta_kind { ETA_UNKNOWN, ETA_KNOWN, ETA_NEVER };

struct eta {
    enum eta_kind kind;
    const char *reason;     /* unknown, never: a static sentence */
    int64_t p50_ns, p90_ns; /* known: until the guest runs there. p90 of INT64_MAX: perhaps never */
    int64_t round_ns;       /* unknown: the rest of this round, at its present pace; 0: not even that */
};

/* A finished round took so long, and so many units were dirty behind it. */
void eta_learn(struct eta_model *model, double elapsed_ns, double units);

/* Behind each finished round, when the model is up to date: does it still look as it did? */
void eta_settle(struct eta_model *model, const struct eta_position *at);

struct eta eta_forecast(const struct eta_model *model, const struct eta_position *at);

/* As people read it: "3.1 to 4.0 s", "unknown, this round 12 s more (...)", "never at this rate (...)". */
void eta_text(const struct eta *eta, char out[ETA_TEXT_MAX]);
