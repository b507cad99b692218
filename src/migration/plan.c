/* A plan, made: measure the guest, then the link, then a pause; and let the forecast say what would come of it. */
#include "migration/plan.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "migration/outgoing.h"

enum {
    WARM_UNITS = 64, /* in the first round, which only tells how large the others may be */
    /* the samples: pages as RAM has them, pages that were just dirtied, pages that are zero */
    PLAIN_AT = 0,
    PLAIN_MAX = 3072,
    HOT_AT = PLAIN_AT + PLAIN_MAX,
    HOT_MAX = 3072,
    ZERO_AT = HOT_AT + HOT_MAX,
    ZERO_MAX = PLAN_UNITS_MAX - ZERO_AT,
    SCAN_WORDS = 256, /* of 64 pages: looked at for zeroes */
    EMPTY_ROUNDS = 8,
    PASSES_MIN = 3,
    PASSES_MAX = 12,
    TRAIN_MS = 15, /* of the cap, in one train without it */
    PASS_MS = 600,
    PASSES_MS = 1500, /* of repeated passes together */
    PAUSES = 3,
    PAUSE_EVERY_MS = 100,
    PAUSE_TRY_LIMIT_MS = 5 /* no pause is made just to look where less is allowed */
};
#define START_NS INT64_C(1000000) /* until the first instruction there; it is not tried */

static const double CURVE_MS[] = { 10, 20, 50, 100, 200, 500, 1000, 2000 };
enum { CURVE_POINTS = sizeof(CURVE_MS) / sizeof(CURVE_MS[0]) };

struct planner {
    struct outgoing *o;
    struct plan_result *result;
    struct forecast_input *in;
    struct source *sample;
    uint64_t page[PLAN_UNITS_MAX];
    unsigned plain, hot, zero;
    double empty_ns;                               /* what a round of samples has beside them */
    uint64_t found[SCAN_WORDS * DIRTY_WORD_PAGES]; /* that are not zero */
    uint64_t random;
};

struct pass {
    unsigned units;
    double ns, bytes, cpu_ns, wait_ns;
};

static uint64_t next_random(struct planner *p)
{
    p->random ^= p->random << 13;
    p->random ^= p->random >> 7;
    return p->random ^= p->random << 17;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *value, unsigned n)
{
    qsort(value, n, sizeof(*value), by_value);
    return n == 0 ? 0 : n % 2 ? value[n / 2] : (value[n / 2 - 1] + value[n / 2]) / 2;
}

static bool guest_runs(const struct planner *p)
{
    return machine_state(p->o->machine) == RUN_RUNNING;
}

/* --- the guest ---------------------------------------------------------------------------------------------- */

static void track(struct planner *p, bool on)
{
    struct outgoing *o = p->o;
    if (o->tracking == on)
        return;
    if (on)
        dirty_start(o->ram->dirty, DIRTY_MIGRATION, false);
    else
        dirty_stop(o->ram->dirty, DIRTY_MIGRATION);
    o->tracking = on;
}

static void count(struct planner *p, bool on)
{
    p->o->window = on; /* whoever tears down stops it */
    dirty_quota_window(p->o->ram->dirty, on);
}

static void shares(struct planner *p, const struct quota_stats *before)
{
    struct quota_stats now[DIRTY_WRITERS_MAX];
    unsigned harts = dirty_quota_stats(p->o->ram->dirty, now);
    double all = 0;
    p->in->harts = harts < 1 ? 1 : harts < THROTTLE_HARTS_MAX ? harts : THROTTLE_HARTS_MAX;
    for (unsigned i = 0; i < harts && i < THROTTLE_HARTS_MAX; i++)
        all += p->in->share[i] = (double)(now[i].fresh - before[i].fresh);
    for (unsigned i = 0; i < p->in->harts; i++)
        p->in->share[i] = all > 0 ? p->in->share[i] / all : 1.0 / p->in->harts;
}

/* Some of the pages that are dirty now, in runs as they lie in memory. */
static void pick_hot(struct planner *p)
{
    struct dirty *dirty = p->o->ram->dirty;
    uint64_t pages = dirty_count(dirty, DIRTY_MIGRATION), words = dirty_words(dirty), met = 0;
    uint64_t skip = pages / HOT_MAX; /* of so many runs one is taken */
    for (uint64_t word = 0; (word = dirty_next_word(dirty, DIRTY_MIGRATION, word)) < words; word++) {
        uint64_t bits = dirty_take_word(dirty, DIRTY_MIGRATION, word);
        if (met++ % (skip + 1))
            continue;
        for (; bits && p->hot < HOT_MAX; bits &= bits - 1)
            p->page[HOT_AT + p->hot++] = word * DIRTY_WORD_PAGES + (uint64_t)__builtin_ctzll(bits);
    }
}

/* W(t), with the line idle. */
static int measure_curve(struct planner *p)
{
    struct outgoing *o = p->o;
    struct quota_stats before[DIRTY_WRITERS_MAX];
    int rc = 0;
    p->in->harts = 1, p->in->share[0] = 1;
    if (!guest_runs(p))
        return 0;
    dirty_quota_stats(o->ram->dirty, before);
    count(p, true);
    track(p, true);
    int64_t from_ns = clock_now_ns();
    for (unsigned i = 0; i < CURVE_POINTS && rc == 0; i++) {
        rc = outgoing_wait(o, from_ns + (int64_t)(CURVE_MS[i] * NS_PER_MS) - clock_now_ns());
        double pages = (double)dirty_count(o->ram->dirty, DIRTY_MIGRATION);
        p->in->curve[i].ms = (double)(clock_now_ns() - from_ns) / NS_PER_MS; /* a busy host is late */
        p->in->curve[i].pages = fmax(pages, i ? p->in->curve[i - 1].pages : 0);
        p->in->points = i + 1;
    }
    count(p, false);
    shares(p, before);
    if (rc == 0)
        pick_hot(p);
    track(p, false);
    return rc;
}

/* Which pages are zero: of words of 64 pages, evenly spread. */
static int measure_content(struct planner *p)
{
    const struct ram *ram = p->o->ram;
    _Alignas(64) uint8_t copy[PAGE_BYTES];
    uint64_t words = 0, looked = 0, zero = 0, found = 0;
    int64_t zero_ns = 0;
    for (unsigned i = 0; i < ram->blocks; i++)
        words += ram->block[i].bytes / (PAGE_BYTES * DIRTY_WORD_PAGES);
    uint64_t step = words / SCAN_WORDS + 1, at = next_random(p) % step;
    uint64_t before = 0;
    for (unsigned i = 0; i < ram->blocks; i++) {
        uint64_t here = ram->block[i].bytes / (PAGE_BYTES * DIRTY_WORD_PAGES);
        for (; at < before + here; at += step)
            for (uint64_t n = 0; n < DIRTY_WORD_PAGES; n++) {
                uint64_t page = ram->block[i].first_page + (at - before) * DIRTY_WORD_PAGES + n;
                int64_t from_ns = clock_now_ns();
                ram_copy_page_out(copy, ram_page_host(p->o->ram, page));
                bool is_zero = ram_page_is_zero(copy);
                looked++;
                zero += is_zero;
                zero_ns += is_zero ? clock_now_ns() - from_ns : 0;
                if (!is_zero && found < SCAN_WORDS * DIRTY_WORD_PAGES)
                    p->found[found++] = page;
                else if (is_zero && p->zero < ZERO_MAX)
                    p->page[ZERO_AT + p->zero++] = page;
            }
        before += here;
    }
    uint64_t pages = words * DIRTY_WORD_PAGES;
    unsigned workers = p->in->policy.workers ? p->in->policy.workers : 1;
    p->in->zero_pages = looked ? (double)pages * (double)zero / (double)looked : 0;
    p->in->data_pages = (double)pages - p->in->zero_pages;
    p->in->zero_ns = zero ? (double)zero_ns / (double)zero / workers : 0;
    p->plain = found < PLAIN_MAX ? (unsigned)found : PLAIN_MAX;
    for (unsigned i = 0; i < p->plain; i++)
        p->page[PLAIN_AT + i] = p->found[(uint64_t)i * found / p->plain];
    if (p->plain == 0) {
        p->page[PLAIN_AT] = ram->block[0].first_page;
        p->plain = 1;
    }
    return outgoing_cancelled(p->o);
}

/* --- the link ------------------------------------------------------------------------------------------------ */

/* One round of samples, until the destination has them. */
static int send_pass(struct planner *p, unsigned from, unsigned units, struct pass *pass)
{
    struct outgoing *o = p->o;
    struct pipeline_stats before, after;
    struct round_result result;
    int64_t start_ns = clock_now_ns();
    plan_sample_mark(p->sample, from, units);
    pipeline_stats(o->pipeline, &before);
    int rc = pipeline_round(o->pipeline, false, &result, &o->err);
    if (rc == 0)
        rc = outgoing_wait_loaded(o, before.rounds + 1);
    if (rc < 0)
        return rc;
    int64_t ns = clock_now_ns() - start_ns;
    pipeline_round_loaded(o->pipeline, &result, ns);
    pipeline_stats(o->pipeline, &after);
    *pass = (struct pass){
        .units = units,
        .ns = (double)ns,
        .bytes = (double)(after.wire_bytes - before.wire_bytes),
        .cpu_ns = (double)(after.copy_ns + after.compress_ns - before.copy_ns - before.compress_ns),
        .wait_ns = (double)(after.rate_wait_ns - before.rate_wait_ns),
    };
    p->result->sampled_bytes += pass->bytes;
    return outgoing_cancelled(o);
}

/* A round without the cap; what went out too early is waited for. */
static int send_train(struct planner *p, unsigned from, unsigned units, struct pass *pass)
{
    struct outgoing *o = p->o;
    double cap = (double)outgoing_policy(o).max_bytes_per_s;
    outgoing_binds(o, true);
    int rc = send_pass(p, from, units, pass);
    outgoing_binds(o, false);
    if (rc == 0 && cap > 0)
        rc = outgoing_wait(o, (int64_t)(pass->bytes * 1e9 / cap - pass->ns));
    return rc;
}

static int measure_empty(struct planner *p)
{
    double ns[EMPTY_ROUNDS];
    struct pass pass;
    for (unsigned i = 0; i < EMPTY_ROUNDS; i++) {
        int rc = send_train(p, 0, 0, &pass);
        if (rc < 0)
            return rc;
        ns[i] = pass.ns;
    }
    /* The mean: a pause has several such ways in a row, and on a busy host some of them are long. */
    for (unsigned i = 0; i < EMPTY_ROUNDS; i++)
        p->in->round_ns += ns[i] / EMPTY_ROUNDS;
    p->empty_ns = median(ns, EMPTY_ROUNDS);
    return 0;
}

static void take_link(struct planner *p, const struct pass *pass, struct forecast_link *link)
{
    link->unit_bytes = pass->bytes / pass->units;
    link->unit_ns = fmax(pass->ns - pass->wait_ns - p->empty_ns, pass->ns * 0.2) / pass->units;
    link->cpu_ns = pass->cpu_ns / pass->units;
}

/* So many units that a pass of them takes PASS_MS. */
static unsigned fitting(const struct planner *p, const struct pass *warm, unsigned units, double cap)
{
    double each_ns = fmax(warm->ns - p->empty_ns, warm->ns * 0.2) / warm->units;
    if (cap > 0)
        each_ns = fmax(each_ns, warm->bytes / warm->units * 1e9 / cap);
    double fit = (double)PASS_MS * NS_PER_MS / each_ns;
    unsigned most = fit < WARM_UNITS ? WARM_UNITS : fit < units ? (unsigned)fit : units;
    return most < units ? most : units;
}

/* The same units again and again, for so long: the mean, since a round of the migration has slow moments and fast ones too. */
static int send_passes(struct planner *p, unsigned from, unsigned units, int ms, bool train, struct forecast_link *link)
{
    double ns[PASSES_MAX] = { 0 }, off[PASSES_MAX] = { 0 }, cpu_ns = 0, mean = 0;
    unsigned n = 0;
    int rc = 0;
    int64_t until_ns = clock_now_ns() + ms * (int64_t)NS_PER_MS;
    while (rc == 0 && n < PASSES_MAX && (n < PASSES_MIN || clock_now_ns() < until_ns)) {
        struct pass pass = { .units = 1 };
        rc = train ? send_train(p, from, units, &pass) : send_pass(p, from, units, &pass);
        take_link(p, &pass, link);
        cpu_ns += link->cpu_ns;
        mean += link->unit_ns;
        ns[n++] = link->unit_ns;
    }
    link->unit_ns = mean /= n;
    link->cpu_ns = cpu_ns / n;
    for (unsigned i = 0; i < n; i++)
        off[i] = fabs(ns[i] / mean - 1);
    p->in->spread = fmin(fmax(median(off, n), 0.05), 0.5);
    return rc;
}

/* Behind a cap: bytes as the rounds will have them, time as the pause will. */
static int measure_later(struct planner *p, unsigned from, unsigned units, bool capped)
{
    struct forecast_link *later = &p->in->later;
    struct pass pass = { .units = 1 };
    double cap = (double)outgoing_policy(p->o).max_bytes_per_s, train = cap * TRAIN_MS / 1000 / PAGE_BYTES;
    unsigned part = capped && train < units ? train < WARM_UNITS ? WARM_UNITS : (unsigned)train : units;
    int rc = send_pass(p, from, units, &pass); /* the codec settles, and there memory is touched first */
    if (rc == 0)
        rc = send_passes(p, from, part < units ? part : units, PASSES_MS, capped, later);
    if (rc < 0)
        return rc;
    p->result->link_bytes_per_s = later->unit_ns > 0 ? later->unit_bytes * 1e9 / later->unit_ns : 0;
    if (capped)
        later->unit_bytes = pass.bytes / pass.units;
    return 0;
}

static int measure_zero(struct planner *p)
{
    struct forecast_link zero = { 0 };
    if (p->zero < WARM_UNITS)
        return 0;
    int rc = send_passes(p, ZERO_AT, p->zero, PASS_MS, false, &zero);
    p->in->zero_ns = fmax(p->in->zero_ns, zero.unit_ns); /* a first look at untouched memory costs more */
    return rc;
}

/* The guest's pace while samples travel, against the one without: both share a host. */
static void measure_pace(struct planner *p, int64_t elapsed_ns)
{
    double pages = (double)dirty_count(p->o->ram->dirty, DIRTY_MIGRATION), ms = (double)elapsed_ns / NS_PER_MS;
    double low = 0.2, high = 1.25;
    for (int i = 0; i < 30; i++) { /* W rises: halve until it fits */
        double middle = (low + high) / 2;
        *(forecast_pages(p->in, ms * middle) < pages ? &low : &high) = middle;
    }
    bool tells = forecast_pages(p->in, ms * 1.25) > 1.1 * forecast_pages(p->in, ms * 0.8); /* not saturated */
    p->result->busy = tells ? low : 1;
    for (unsigned i = 0; i < p->in->points; i++)
        p->in->curve[i].ms /= p->result->busy;
}

static int measure_link(struct planner *p)
{
    struct outgoing *o = p->o;
    double cap = (double)outgoing_policy(o).max_bytes_per_s;
    struct pass warm = { .units = 1 }, pass = { .units = 1 };
    int rc = send_train(p, PLAIN_AT, p->plain < WARM_UNITS ? p->plain : WARM_UNITS, &warm);
    if (rc == 0)
        rc = measure_empty(p);
    if (rc == 0)
        rc = measure_zero(p);
    if (rc < 0)
        return rc;
    if (guest_runs(p))
        track(p, true);
    int64_t from_ns = clock_now_ns();
    unsigned plain = fitting(p, &warm, p->plain, cap), hot = fitting(p, &warm, p->hot, cap);
    rc = send_pass(p, PLAIN_AT, plain, &pass); /* memory there is touched for the first time, as in the first round */
    bool capped = cap > 0 && pass.wait_ns > pass.ns / 10;
    take_link(p, &pass, &p->in->first);
    struct forecast_link first = p->in->first;
    if (rc == 0 && !capped)
        rc = send_passes(p, PLAIN_AT, plain, PASSES_MS, false, &p->in->first);
    p->in->first.unit_ns = fmax(p->in->first.unit_ns, first.unit_ns);
    if (rc == 0)
        rc = hot ? measure_later(p, HOT_AT, hot, capped) : measure_later(p, PLAIN_AT, plain, capped);
    if (capped)
        p->in->first.unit_ns = p->in->later.unit_ns * p->in->first.unit_bytes / fmax(p->in->later.unit_bytes, 1);
    if (o->tracking && rc == 0)
        measure_pace(p, clock_now_ns() - from_ns);
    track(p, false);
    return rc;
}

static int begin_street(struct planner *p)
{
    struct outgoing *o = p->o;
    int rc = plan_sample_new(o->ram, p->page, PLAN_UNITS_MAX, &p->sample, &o->err);
    if (rc < 0)
        return rc;
    o->sources[0] = p->sample;
    return outgoing_begin_street(o);
}

/* What it answers, by hanging up, is of no interest any more. */
static void end_street(struct planner *p)
{
    uint8_t eof = ELEMENT_EOF;
    if (pipeline_send(p->o->pipeline, &eof, 1, NULL) == 0)
        pipeline_flush(p->o->pipeline, NULL);
}

/* --- the pause ------------------------------------------------------------------------------------------------- */

/* The guest stops, its devices are saved into memory, and it goes on. */
static int try_pause(struct planner *p)
{
    struct outgoing *o = p->o;
    struct converge_costs *real = &p->in->real;
    struct section_writer writer = { 0 };
    int rc = machine_flush_disks(o->machine, &o->err);
    if (rc < 0)
        return rc;
    int64_t requested_ns = clock_now_ns();
    enum run_state found = machine_hand_over(o->machine);
    int64_t paused_ns = clock_now_ns();
    if (found == RUN_RUNNING || found == RUN_PAUSED)
        outgoing_put_devices(o, &writer);
    int64_t saved_ns = clock_now_ns();
    machine_hand_back(o->machine);
    double pause_ms = (double)(clock_now_ns() - requested_ns) / NS_PER_MS, rate = p->result->link_bytes_per_s;
    p->result->tried_pause_ms = fmax(p->result->tried_pause_ms, pause_ms);
    p->result->device_bytes = (double)writer.out.size;
    real->pause_ns += (paused_ns - requested_ns) / PAUSES;
    real->device_ns += 2 * (saved_ns - paused_ns) / PAUSES; /* loading is like saving */
    real->device_ns += rate > 0 ? (int64_t)((double)writer.out.size * 1e9 / rate / PAUSES) : 0;
    sections_writer_free(&writer);
    return outgoing_wait(o, PAUSE_EVERY_MS * (int64_t)NS_PER_MS);
}

/* Where no pause may be made, what the last migration or rehearsal of this process took. */
static int measure_pause(struct planner *p)
{
    struct outgoing *o = p->o;
    struct converge_costs *real = &p->in->real;
    int rc = 0;
    *real = p->in->believed = o->m->costs;
    if (guest_runs(p) && p->in->policy.downtime_limit_ns >= PAUSE_TRY_LIMIT_MS * (int64_t)NS_PER_MS) {
        real->pause_ns = real->device_ns = 0;
        for (unsigned i = 0; i < PAUSES && rc == 0 && guest_runs(p); i++)
            rc = try_pause(p);
    }
    real->handover_ns = 2 * (int64_t)p->in->round_ns + START_NS;
    return rc < 0 ? rc : outgoing_cancelled(o);
}

/* --- all of it --------------------------------------------------------------------------------------------------- */

static void foretell(struct planner *p)
{
    struct plan_result *result = p->result;
    const struct migration_params *params = &p->o->m->params;
    p->in->bias = p->o->m->bias;
    p->in->auto_converge = atomic_load_explicit(&params->capability_auto_converge, memory_order_relaxed);
    p->in->share_max = (double)atomic_load_explicit(&params->max_cpu_throttle, memory_order_relaxed) / 100;
    forecast_make(p->in, &result->forecast);
    result->advices = result->forecast.ends ? 0 : forecast_advise(p->in, result->advice);
    result->ready = true;
    lock(&p->o->m->lock);
    p->o->m->plan = *result;
    unlock(&p->o->m->lock);
}

static int measure(struct planner *p)
{
    int rc = measure_content(p);
    if (rc == 0)
        rc = measure_curve(p);
    if (rc == 0)
        rc = begin_street(p);
    if (rc == 0)
        rc = measure_link(p);
    if (rc == 0)
        rc = measure_pause(p);
    if (rc == 0) {
        foretell(p);
        end_street(p);
    }
    p->o->sample = p->sample; /* the street ends before it */
    return rc;
}

int plan_measure(struct outgoing *o)
{
    struct planner *p = calloc(1, sizeof(*p));
    struct plan_result *result = calloc(1, sizeof(*result));
    int rc = -ENOMEM;
    if (p && result) {
        *p = (struct planner){ .o = o, .result = result, .in = &result->in, .random = (uint64_t)clock_now_ns() | 1 };
        result->busy = 1;
        result->in.policy = outgoing_policy(o);
        migration_set_state(o->m, MIGRATION_ACTIVE);
        rc = measure(p);
    } else {
        err_set(&o->err, rc, "no memory for a plan");
    }
    free(result);
    free(p);
    return rc;
}
