/* A migration foretold: the controller itself (converge.h, throttle.h) on a guest and a link that were measured before. Pure:
 * nothing here sleeps or asks the time, and the same input gives the same answer.
 *
 * What is known of the guest is its curve W(t), how many distinct pages it dirties within t, and each vCPU's share of it.
 * RAM is played as FORECAST_PARTS parts that a round goes through in order: what a part has dirty when the round comes to it is
 * W(time since the round before came by). A vCPU that is held lives slower, by the share of its work that it keeps. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "migration/converge.h"
#include "migration/throttle.h"

enum {
    FORECAST_POINTS = 16,
    FORECAST_PARTS = 64,
    FORECAST_RUNS = 21,
    FORECAST_ADVICE_MAX = 6,
    FORECAST_CODECS_MAX = 4
};

struct forecast_link { /* of one page that is not zero, end to end: scanned, packed, carried, loaded; no cap */
    double unit_ns, unit_bytes, cpu_ns;
};

struct forecast_input {
    unsigned points;
    struct {
        double ms, pages;
    } curve[FORECAST_POINTS]; /* both rising; (0, 0) is not in it */
    unsigned harts;
    double share[THROTTLE_HARTS_MAX];  /* of the curve, sum 1 */
    double data_pages, zero_pages;     /* in RAM */
    struct forecast_link first, later; /* pages as the first round finds them; pages that were written a moment ago */
    double zero_ns;                    /* of a page that is zero */
    double round_ns;                   /* a round with nothing in it */
    struct converge_costs real;        /* what a pause's parts will take */
    struct converge_costs believed;    /* what the controller takes them for */
    double bias;                       /* the controller's, 1 at first */
    double spread;                     /* relative, of the link's measurements */
    struct converge_policy policy;
    bool auto_converge;
    double share_max; /* of its work, that may be taken from a vCPU */
    /* other codecs than the one that was chosen by hand, to say whether one would help */
    unsigned codecs;
    struct {
        const char *name;
        struct forecast_link later;
    } codec[FORECAST_CODECS_MAX];
};

struct forecast_run {
    bool ends;
    const char *reason; /* static; why not */
    double total_ms, pause_ms, predicted_ms, wire_bytes;
    double kept; /* of its work, by the vCPU that was held most */
    unsigned rounds, overruns;
};

/* One run on these figures times `link`, `dirty` and `fixed`: 1 is what was measured. */
void forecast_play(const struct forecast_input *in, double link, double dirty, double fixed, struct forecast_run *out);

struct forecast_band {
    double p50, p90;
};
struct forecast {
    bool ends;      /* in at least nine of ten */
    double ends_of; /* share of the runs, 0 to 1 */
    const char *reason;
    struct forecast_band total_ms, pause_ms, wire_bytes; /* of the runs that end; 0 where none does */
    double predicted_ms, kept;
    unsigned rounds; /* of the middle run */
};
void forecast_make(const struct forecast_input *in, struct forecast *out);

/* What would make it end, the cheapest first: what costs nothing, then the link, then the pause, then the guest's work. Each
 * was tried: a forecast with it ends. */
enum forecast_change { CHANGE_CODEC, CHANGE_CAP, CHANGE_LINK, CHANGE_LIMIT, CHANGE_QUOTA };
struct forecast_advice {
    enum forecast_change change;
    double value;       /* CAP, LINK: bytes a second; LIMIT: ms; QUOTA: percent of its work that may be taken */
    const char *codec;  /* CODEC */
    unsigned hart;      /* QUOTA: the one that dirties most */
    double pages_per_s; /* QUOTA: what it dirties newly now */
    struct forecast_run then;
};
unsigned forecast_advise(const struct forecast_input *in, struct forecast_advice out[FORECAST_ADVICE_MAX]);

/* How many distinct pages are dirtied within ms. Beyond the last point it goes on as between the last two, by a power of the
 * time. */
double forecast_pages(const struct forecast_input *in, double ms);
