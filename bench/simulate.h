/* A migration played on paper: the controller itself (migration/converge.c, migration/throttle.c) and the quota itself
 * (memory/quota.c), on guests and links that are made up or recorded. No thread and no clock: the same every time.
 *
 * A guest's harts write pages of groups: `pages` that are written evenly, `writes_per_s` altogether. That is enough for any
 * W(t), how many distinct pages are dirtied within t: a recorded curve becomes groups as well. A hart has a pace, and makes
 * up for `late_ms` at most of what it was held up; pages that it writes go by at `write_ns` each then.
 * Steps of 100 us: in each the harts write, then the link carries. */
#pragma once
#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory/quota.h"
#include "migration/converge.h"
#include "migration/heat.h"
#include "migration/throttle.h"

enum { SIM_GROUPS = 24, SIM_PHASES = 2, SIM_HARTS = 4, SIM_OVERRUNS = 4, SIM_STALL_ROUNDS = 5 };
#define SIM_MS         INT64_C(1000000)
#define SIM_STALL_NS   (10000 * SIM_MS) /* as params.c has it */
#define SIM_STEP_NS    INT64_C(100000)
#define SIM_MIB        1048576.0
#define SIM_DEVICES_MS 1.5
#define SIM_START_MS   1.0

struct sim_group {
    double pages, writes_per_s;
};

struct sim_phase {
    unsigned groups;
    struct sim_group group[SIM_GROUPS];
};

struct sim_hart {
    unsigned phases;
    double phase_s;
    struct sim_phase phase[SIM_PHASES];
};

struct sim_guest {
    unsigned harts;
    struct sim_hart hart[SIM_HARTS];
    double still_pages, zero_pages; /* beside those that are written */
    double page_bytes;              /* of a written page on the wire */
    double write_ns, late_ms;
};

struct sim_link {
    double bytes_per_s, cap_bytes_per_s; /* cap 0: none; it does not bind the pause */
    double rtt_ms, jitter;               /* jitter: share of the rate, by 10 ms */
    double stall_every_ms, stall_ms;
    double probe_ms; /* a train that is sent to find out holds rounds up for so long */
};

struct sim_case {
    const char *name, *about;
    struct sim_guest guest;
    struct sim_link link;
    double limit_ms, share_max; /* share_max 0: 0.5 */
    double patience_s;          /* played no longer; 0: 30 */
    enum converge_on_stall on_stall;
    /* what is expected, without throttling and with it: the most seconds, 0: never ends */
    double alone_s, held_s;
    double ratio; /* of the total to the best stop's, at most; 0: 1.2 */
};

struct sim_result {
    bool completed, gave_up; /* gave_up: by policy, on_stall */
    unsigned rounds, overruns;
    double
        best_s; /* the least total of all moments at which the pause would have kept the limit; INFINITY: there was none */
    double total_s, predicted_ms, lower_ms, upper_ms, got_ms, wire_mib;
    double work[SIM_HARTS];  /* of its pace, from start to pause */
    double worst[SIM_HARTS]; /* in the worst 100 ms */
    double held[SIM_HARTS];  /* share of the time */
};

/* --- working sets ---------------------------------------------------------------------------------------------- */

static inline struct sim_phase sim_uniform(double mib, double mib_per_s)
{
    return (struct sim_phase){ .groups = 1, .group = { { mib * 256, mib_per_s * 256 } } };
}

/* Of the writes `share` go to the first `hot_mib`. */
static inline struct sim_phase sim_hot_set(double mib, double hot_mib, double share, double mib_per_s)
{
    double writes = mib_per_s * 256;
    return (struct sim_phase){
        .groups = 2, .group = { { hot_mib * 256, writes * share }, { (mib - hot_mib) * 256, writes * (1 - share) } }
    };
}

/* Rank r is written in proportion to 1/r, so every octave of ranks gets the same. */
static inline struct sim_phase sim_zipf(double mib, double writes_per_s)
{
    struct sim_phase phase = { 0 };
    double left = mib * 256;

    for (double pages = 1; left > 0 && phase.groups < SIM_GROUPS; pages *= 2) {
        phase.group[phase.groups++].pages = fmin(pages, left);
        left -= pages;
    }
    for (unsigned i = 0; i < phase.groups; i++)
        phase.group[i].writes_per_s = writes_per_s / phase.groups;
    return phase;
}

/* From a recorded curve: `points` pairs of ms and pages, both rising. What comes new between two points is written about
 * once in the time that lies between them and the start. */
static inline struct sim_phase sim_curve(const double (*point)[2], unsigned points)
{
    struct sim_phase phase = { 0 };
    double before = 0, from_ms = 0;

    for (unsigned i = 0; i < points && phase.groups < SIM_GROUPS; i++) {
        double pages = fmax(point[i][1] - before, 0), mean_ms = (from_ms + point[i][0]) / 2;
        if (pages >= 1)
            phase.group[phase.groups++] = (struct sim_group){ pages, pages * 1000 / fmax(mean_ms, 0.01) };
        before = point[i][1];
        from_ms = point[i][0];
    }
    return phase;
}

/* --- the state ------------------------------------------------------------------------------------------------- */

struct sim_runner { /* one hart at work */
    const struct sim_hart *hart;
    struct quota quota;
    uint64_t first_page, pages;
    double backlog, written, wanted;
    double window_written, window_wanted;
    int64_t at_ns, held_from_ns, held_until_ns;
};

struct sim {
    const struct sim_case *c;
    struct sim_result *result;
    struct sim_runner runner[SIM_HARTS];
    uint64_t pages, words, random;
    uint64_t data_pages; /* the rest is zero */
    uint64_t *dirty;
    uint32_t *touched, epoch; /* of each page: the harvest since which it needs no mark */
    int64_t now_ns, tick_ns, probed_ns;
    uint64_t left;                   /* dirty pages */
    uint64_t round_data, round_zero; /* of the running round */
    double round_bytes;
    int64_t round_from_ns;
    bool throttles, cut;
    struct converge converge;
    struct converge_costs costs;
    struct converge_policy policy;
    struct throttle throttle;
    struct heat heat;
};

static inline uint64_t sim_random(struct sim *s)
{
    s->random ^= s->random << 13;
    s->random ^= s->random >> 7;
    return s->random ^= s->random << 17;
}

static inline const struct sim_phase *sim_phase_now(const struct sim *s, const struct sim_hart *hart)
{
    if (hart->phases < 2)
        return &hart->phase[0];
    return &hart->phase[(uint64_t)((double)s->now_ns / 1e9 / hart->phase_s) % hart->phases];
}

static inline double sim_pace(const struct sim_phase *phase)
{
    double sum = 0;
    for (unsigned i = 0; i < phase->groups; i++)
        sum += phase->group[i].writes_per_s;
    return sum;
}

static inline void sim_start(struct sim *s, const struct sim_case *c, bool throttles, struct sim_result *result)
{
    *s = (struct sim){ .c = c, .result = result, .random = 88172645463325252, .throttles = throttles, .epoch = 1 };
    for (unsigned i = 0; i < c->guest.harts; i++) {
        const struct sim_hart *hart = &c->guest.hart[i];
        struct sim_runner *runner = &s->runner[i];
        *runner = (struct sim_runner){ .hart = hart, .first_page = s->pages };
        for (unsigned p = 0; p < hart->phases; p++) {
            uint64_t pages = 0;
            for (unsigned g = 0; g < hart->phase[p].groups; g++)
                pages += (uint64_t)ceil(hart->phase[p].group[g].pages);
            runner->pages = pages > runner->pages ? pages : runner->pages;
        }
        s->pages += runner->pages;
    }
    s->data_pages = s->pages += (uint64_t)c->guest.still_pages;
    s->pages += (uint64_t)c->guest.zero_pages;
    s->words = (s->pages + 63) / 64;
    s->left = s->pages;
    s->dirty = calloc(s->words, sizeof(*s->dirty));
    s->touched = calloc(s->pages, sizeof(*s->touched));
    assert(s->dirty && s->touched && heat_init(&s->heat, s->words) == 0);
    for (uint64_t page = 0; page < s->pages; page++)
        s->dirty[page / 64] |= UINT64_C(1) << page % 64;
    converge_init(&s->converge);
    converge_costs_init(&s->costs);
    throttle_init(&s->throttle, NULL, 0);
    s->policy = (struct converge_policy){ .downtime_limit_ns = (int64_t)(c->limit_ms * (double)SIM_MS),
                                          .max_bytes_per_s = (uint64_t)c->link.cap_bytes_per_s,
                                          .on_stall = c->on_stall,
                                          .stall_rounds = SIM_STALL_ROUNDS,
                                          .stall_ns = SIM_STALL_NS,
                                          .workers = 2 };
}

/* --- harts ----------------------------------------------------------------------------------------------------- */

/* One page; true: to be held. */
static inline bool sim_write(struct sim *s, struct sim_runner *runner, const struct sim_phase *phase, double pace)
{
    double throw = (double)(sim_random(s) >> 11) / 9007199254740992.0 * pace;
    uint64_t page = runner->first_page;
    unsigned g = 0;

    for (; g + 1 < phase->groups && throw >= phase->group[g].writes_per_s; g++) {
        throw -= phase->group[g].writes_per_s;
        page += (uint64_t)ceil(phase->group[g].pages);
    }
    page += sim_random(s) % (uint64_t)ceil(phase->group[g].pages);
    if (s->touched[page] == s->epoch)
        return false;
    s->touched[page] = s->epoch;
    bool fresh = !(s->dirty[page / 64] >> page % 64 & 1);
    s->dirty[page / 64] |= UINT64_C(1) << page % 64;
    s->left += fresh;
    bool touch = quota_count(&runner->quota, page, fresh);
    return quota_is_set(&runner->quota) && quota_spend(&runner->quota, touch, fresh, runner->at_ns);
}

static inline void sim_hart_runs(struct sim *s, struct sim_runner *runner, int64_t until_ns)
{
    const int64_t WAKE_NS = 50000; /* a host's timers */
    const struct sim_phase *phase = sim_phase_now(s, runner->hart);
    double pace = sim_pace(phase), more = pace * (double)(until_ns - s->now_ns) / 1e9;

    runner->wanted += more;
    runner->window_wanted += more;
    runner->backlog = fmin(runner->backlog + more, fmax(pace * s->c->guest.late_ms / 1e3, more));
    runner->at_ns = runner->at_ns > s->now_ns ? runner->at_ns : s->now_ns;
    for (;;) {
        if (runner->held_until_ns) {
            if (runner->held_until_ns > until_ns)
                return;
            quota_held(&runner->quota, runner->held_from_ns, runner->held_until_ns, runner->held_until_ns);
            runner->at_ns = runner->held_until_ns;
            runner->held_until_ns = 0;
        }
        if (runner->backlog < 1 || runner->at_ns >= until_ns)
            return;
        runner->backlog--;
        runner->written++;
        runner->window_written++;
        bool owes = sim_write(s, runner, phase, pace);
        runner->at_ns += (int64_t)s->c->guest.write_ns;
        int64_t hold_ns = owes ? quota_hold_until(&runner->quota, runner->at_ns) : 0;
        if (hold_ns) {
            runner->held_from_ns = runner->at_ns;
            runner->held_until_ns = hold_ns + WAKE_NS;
        }
    }
}

static inline void sim_window_ends(struct sim *s, double *worst, struct sim_runner *runner)
{
    (void)s;
    if (runner->window_wanted >= 1)
        *worst = fmin(*worst, runner->window_written / runner->window_wanted);
    runner->window_written = runner->window_wanted = 0;
}

/* Of the round that is being sent, as it is now. */
static inline struct converge_sample sim_sample(const struct sim *s)
{
    double elapsed_ns = (double)(s->now_ns - s->round_from_ns), busy_ns = s->round_bytes / s->c->link.bytes_per_s * 1e9;

    return (struct converge_sample){
        .units_data = s->round_data,
        .units_zero = s->round_zero,
        .wire_bytes = (uint64_t)s->round_bytes,
        .elapsed_ns = (int64_t)elapsed_ns,
        .rate_wait_ns = s->c->link.cap_bytes_per_s > 0 && busy_ns < elapsed_ns ? (int64_t)(elapsed_ns - busy_ns) : 0,
        .cpu_ns = (int64_t)(s->round_data * 3000),
        .dirty_units = s->left,
    };
}

static inline void sim_tick(struct sim *s)
{
    struct quota_stats stats[SIM_HARTS];
    unsigned harts = s->c->guest.harts;

    for (unsigned i = 0; i < harts; i++) {
        sim_window_ends(s, &s->result->worst[i], &s->runner[i]);
        quota_stats(&s->runner[i].quota, &stats[i]);
        quota_window(&s->runner[i].quota, (uint32_t)(s->now_ns / THROTTLE_TICK_NS % 0xffff + 1));
    }
    if (!s->throttles)
        return;
    struct converge_sample running = sim_sample(s);
    struct throttle_need need = throttle_need(&s->throttle, &s->converge, &s->policy, &s->costs, &running,
                                              s->pages - (running.units_data + running.units_zero),
                                              s->c->share_max > 0 ? s->c->share_max : 0.5);
    s->policy.hurry = throttle_tick(&s->throttle, THROTTLE_TICK_NS, stats, harts, &need);
    s->cut = s->policy.hurry && throttle_cuts(&need);
    for (unsigned i = 0; i < harts; i++)
        quota_set(&s->runner[i].quota, s->throttle.order[i].pages_per_s, s->throttle.order[i].work_per_s);
}

static inline double sim_link_rate(const struct sim *s, bool paused)
{
    const struct sim_link *link = &s->c->link;
    double rate = link->bytes_per_s, ms = (double)s->now_ns / (double)SIM_MS;
    unsigned x = (unsigned)(ms / 10) * 2654435761u;

    if (link->stall_every_ms > 0 && fmod(ms, link->stall_every_ms) < link->stall_ms)
        return 0;
    rate *= 1 + link->jitter * ((double)((x >> 16) & 0xff) / 127.5 - 1);
    return link->cap_bytes_per_s > 0 && !paused ? fmin(rate, link->cap_bytes_per_s) : rate;
}

/* Were the guest stopped now, as if the link's rate stayed as it is: would it be over first of all? */
static inline void sim_try_stop(struct sim *s)
{
    double rate = sim_link_rate(s, true), pause_ms = SIM_DEVICES_MS + SIM_START_MS + 2 * s->c->link.rtt_ms;
    uint64_t data = 0;

    for (uint64_t word = 0; word < (s->data_pages + 63) / 64; word++)
        data += (unsigned)__builtin_popcountll(s->dirty[word]);
    pause_ms += rate > 0 ? (double)data * s->c->guest.page_bytes / rate * 1e3 : INFINITY;
    if (pause_ms <= s->c->limit_ms)
        s->result->best_s = fmin(s->result->best_s, (double)s->now_ns / 1e9 + pause_ms / 1e3);
}

/* The harts run, or not, for a step; ticks come by. */
static inline void sim_step(struct sim *s, bool paused)
{
    int64_t until_ns = s->now_ns + SIM_STEP_NS;

    for (unsigned i = 0; i < s->c->guest.harts && !paused; i++)
        sim_hart_runs(s, &s->runner[i], until_ns);
    s->now_ns = until_ns;
    if (!paused && s->now_ns % SIM_MS == 0)
        sim_try_stop(s);
    if (!paused && s->throttles && until_ns - s->tick_ns == THROTTLE_TICK_NS / 2) {
        struct quota_stats stats[SIM_HARTS];
        for (unsigned i = 0; i < s->c->guest.harts; i++)
            quota_stats(&s->runner[i].quota, &stats[i]);
        throttle_middle(&s->throttle, until_ns - s->tick_ns, stats, s->c->guest.harts);
    }
    if (!paused && until_ns - s->tick_ns >= THROTTLE_TICK_NS) {
        s->tick_ns = until_ns;
        sim_tick(s);
    }
}

static inline void sim_wait(struct sim *s, double ms, bool paused)
{
    for (int64_t until_ns = s->now_ns + (int64_t)(ms * (double)SIM_MS); s->now_ns < until_ns;)
        sim_step(s, paused);
}

/* --- the link -------------------------------------------------------------------------------------------------- */

/* Bytes on the wire. */
static inline double sim_take(struct sim *s, uint64_t word)
{
    double bytes = 0;
    uint64_t keep = heat_keep(&s->heat, word, s->dirty[word]);

    for (uint64_t bits = s->dirty[word] & ~keep; bits; bits &= bits - 1) {
        bool data = word * 64 + (unsigned)__builtin_ctzll(bits) < s->data_pages;
        s->round_data += data;
        s->round_zero += !data;
        s->left--;
        bytes += data ? s->c->guest.page_bytes : 0.2;
    }
    s->dirty[word] = keep;
    s->round_bytes += bytes;
    return bytes;
}

/* Once over all words; false: not over when `until_ns` came. */
static inline bool sim_round(struct sim *s, bool paused, int64_t until_ns, struct converge_sample *sample)
{
    double budget = 0;

    s->cut = false;
    s->round_data = s->round_zero = 0;
    s->round_bytes = 0;
    if (paused)
        heat_rest(&s->heat);
    else
        heat_round(&s->heat, (uint64_t)converge_keep_units(&s->converge, &s->policy, &s->costs));
    s->round_from_ns = s->now_ns;
    for (uint64_t word = 0; word < s->words && !s->cut;) {
        if (s->now_ns >= until_ns)
            return false;
        sim_step(s, paused);
        budget = fmin(budget, 0) + sim_link_rate(s, paused) * (double)SIM_STEP_NS / 1e9;
        s->epoch += s->now_ns % SIM_MS < SIM_STEP_NS; /* a slice is harvested */
        for (; word < s->words && budget > 0; word++)
            budget -= sim_take(s, word);
    }
    struct converge_sample sent = sim_sample(s);
    if (!paused) /* the last one's word comes with PREPARED */
        sim_wait(s, s->c->link.rtt_ms + 0.3, paused);
    *sample = sim_sample(s);
    sample->rate_wait_ns = sent.rate_wait_ns; /* to wait for the peer's word is not to wait for the cap */
    s->result->wire_mib += s->round_bytes / SIM_MIB;
    return true;
}

/* --- the story ------------------------------------------------------------------------------------------------- */

/* True: the guest is there. */
static inline bool sim_pause(struct sim *s)
{
    struct converge_policy policy = s->policy;
    policy.downtime_limit_ns = converge_limit_ns(&s->converge, policy.downtime_limit_ns);
    int64_t from_ns = s->now_ns, overrun_ns = from_ns + converge_overrun_ns(&policy);
    struct converge_sample last;

    if (!sim_round(s, true, overrun_ns, &last)) {
        s->result->overruns++;
        return false;
    }
    sim_wait(s, SIM_DEVICES_MS + SIM_START_MS + 2 * s->c->link.rtt_ms, true);
    s->result->got_ms = (double)(s->now_ns - from_ns) / (double)SIM_MS;
    return true;
}

static inline void sim_count_work(struct sim *s)
{
    for (unsigned i = 0; i < s->c->guest.harts; i++) {
        struct sim_runner *runner = &s->runner[i];
        struct quota_stats stats;
        quota_stats(&runner->quota, &stats);
        s->result->work[i] = runner->wanted >= 1 ? runner->written / runner->wanted : 1;
        s->result->held[i] = s->now_ns ? (double)stats.held_ns / (double)s->now_ns : 0;
    }
}

/* Trains that are sent to find out what the link gives: as outgoing_probe.c does. */
static inline void sim_probe(struct sim *s, struct converge_sample *sample)
{
    int64_t every_ns = converge_train_every_ns((int64_t)(s->c->link.probe_ms * (double)SIM_MS));

    if (s->probed_ns && s->now_ns - s->probed_ns < every_ns)
        return;
    for (unsigned i = 0; i < (s->probed_ns ? 1 : 3); i++) {
        converge_train(&s->converge, (uint64_t)(sim_link_rate(s, true) / 100), 10 * SIM_MS);
        sim_wait(s, s->c->link.probe_ms, false);
    }
    s->probed_ns = s->now_ns;
    sample->dirty_units = s->left;
}

static inline struct sim_result sim_play(const struct sim_case *c, bool throttles)
{
    struct sim_result result = { .best_s = INFINITY };
    struct sim s;
    double patience_s = c->patience_s > 0 ? c->patience_s : 30;

    sim_start(&s, c, throttles, &result);
    for (unsigned i = 0; i < SIM_HARTS; i++)
        result.worst[i] = 1;
    converge_trip(&s.converge, (int64_t)((c->link.rtt_ms + 0.3) * (double)SIM_MS)); /* the hello */
    while (!result.completed && (double)s.now_ns / 1e9 < patience_s && result.overruns <= SIM_OVERRUNS) {
        struct converge_sample sample;
        if (!sim_round(&s, false, (int64_t)(patience_s * 1e9), &sample))
            break;
        result.rounds++;
        converge_burst(&s.converge, (uint64_t)(c->link.bytes_per_s / 100),
                       10 * SIM_MS); /* the train the writer saved up */
        if (sample.rate_wait_ns > sample.elapsed_ns / 10)
            sim_probe(&s, &sample);
        converge_add(&s.converge, &sample);
        struct converge_verdict verdict = converge_decide(&s.converge, &s.policy, &s.costs);
        result.predicted_ms = (double)verdict.predicted_ns / (double)SIM_MS;
        result.lower_ms = (double)verdict.lower_ns / (double)SIM_MS;
        result.upper_ms = (double)verdict.upper_ns / (double)SIM_MS;
        if (verdict.action == CONVERGE_GIVE_UP) {
            result.gave_up = true;
            break;
        }
        if (verdict.action == CONVERGE_SWITCH_OVER) {
            sim_count_work(&s);
            result.completed = sim_pause(&s);
        } else {
            sim_wait(&s, (double)verdict.wait_ns / (double)SIM_MS, false);
        }
    }
    if (!result.completed)
        sim_count_work(&s);
    result.total_s = (double)s.now_ns / 1e9;
    free(s.dirty);
    free(s.touched);
    heat_free(&s.heat);
    return result;
}
