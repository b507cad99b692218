/* What the source writes down for the report: rounds as they end, the pause, what the destination tells of it. */
#include "migration/outgoing.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

enum { RESULT_MS = 1000 }; /* so long the destination may take to tell what it measured in the first 100 ms */
static const double ZERO_COSTS = 1.0 / 64; /* of a unit with data */

/* --- copying -------------------------------------------------------------------------------------------- */

static struct guest_work work_so_far(struct outgoing *o)
{
    struct guest_work work = { .elapsed_ns = clock_now_ns() };
    for (unsigned i = 0; i < machine_harts(o->machine); i++) {
        struct vcpu_stats stats;
        vcpu_stats(machine_vcpu(o->machine, i), &stats);
        work.instructions += stats.instructions;
        work.cpu_ns += stats.cpu_ns;
    }
    return work;
}

static void count_stalls(struct outgoing *o, uint32_t counting)
{
    for (unsigned i = 0; i < machine_harts(o->machine); i++)
        vcpu_count_stalls(machine_vcpu(o->machine, i), counting);
}

/* What is dirty now is what the next round has to do. */
static void next_round(struct outgoing *o, uint64_t units)
{
    struct migration *m = o->m;
    m->round.start_ns = clock_now_ns();
    m->round.taken = o->written.units_taken;
    m->round.units = units;
}

void outgoing_report_begin(struct outgoing *o)
{
    struct migration *m = o->m;
    uint64_t units = outgoing_dirty_units(o);
    o->work_before = work_so_far(o);
    lock(&m->lock);
    m->counting += m->counting == UINT32_MAX ? 2 : 1; /* 0 is none */
    m->report.disks = machine_config_of(o->machine)->drives > 0;
    m->eta.rounds_left = UINT64_MAX;
    next_round(o, units);
    unlock(&m->lock);
    count_stalls(o, m->counting);
}

/* What the street did since the last row; o->written is what is in rows. The lock is held. */
static struct report_round row_since(struct outgoing *o, const struct pipeline_stats *now)
{
    const struct pipeline_stats *before = &o->written;
    int64_t now_ns = clock_now_ns();
    struct report_round row = {
        .first = before->rounds + 1,
        .last = now->rounds > before->rounds ? now->rounds : before->rounds + 1,
        .units_scanned = now->units_taken - before->units_taken,
        .units_data = now->units_data - before->units_data,
        .units_zero = now->units_zero - before->units_zero,
        .units_delta = now->delta_units - before->delta_units,
        .wire_bytes = now->wire_bytes - before->wire_bytes,
        .elapsed_ns = now_ns - o->m->round.start_ns,
    };
    o->written = *now;
    return row;
}

/* The newest rounds together: a unit's time, with what the cap takes, and how far they are apart. */
static void pace(const struct converge *converge, struct eta_model *eta)
{
    double units = 0, elapsed_ns = 0, last_ns = 0;
    uint64_t rounds = converge->rounds < ETA_CURVE_MAX ? converge->rounds : ETA_CURVE_MAX;
    for (uint64_t i = 0; i < rounds; i++) {
        const struct converge_sample *sample = &converge->sample[(converge->rounds - 1 - i) % CONVERGE_HISTORY];
        double more = (double)sample->units_data + (double)sample->units_zero * ZERO_COSTS;
        units += more;
        elapsed_ns += (double)sample->elapsed_ns;
        if (i == 0 && more >= 1)
            last_ns = (double)sample->elapsed_ns / more;
    }
    if (units < 1)
        return;
    eta->unit_ns = elapsed_ns / units;
    double apart = last_ns > 0 ? last_ns / eta->unit_ns - 1 : 0;
    eta->spread = rounds < 2 ? 0.3 : apart < 0 ? -apart : apart;
}

void outgoing_report_round(struct outgoing *o, const struct converge_sample *sample,
                           const struct converge_verdict *verdict)
{
    struct migration *m = o->m;
    struct converge_policy policy = outgoing_policy(o);
    struct pipeline_stats now;
    pipeline_stats(o->pipeline, &now);
    lock(&m->lock);
    struct report_round row = row_since(o, &now);
    row.units_dirty = sample->dirty_units;
    row.predicted_ns = verdict->predicted_ns;
    report_add_round(&m->report.rounds, &row);
    eta_learn(&m->eta, (double)row.elapsed_ns, (double)sample->dirty_units);
    pace(&o->converge, &m->eta);
    m->eta.fit_units = converge_fit_units(&o->converge, &policy, &m->costs);
    m->eta.pause_ns = (double)verdict->predicted_ns;
    m->eta.holding = o->throttling;
    m->eta.paused = policy.guest_paused;
    m->eta.rounds_left = !policy.max_rounds                       ? UINT64_MAX
                         : policy.max_rounds > o->converge.rounds ? policy.max_rounds - o->converge.rounds
                                                                  : 0;
    next_round(o, sample->dirty_units);
    struct eta_position at = { .left_units = (double)sample->dirty_units };
    eta_settle(&m->eta, &at);
    unlock(&m->lock);
}

/* --- the pause ------------------------------------------------------------------------------------------ */

/* A guest that stood still before has lost nothing. */
static int64_t stopped_ns(struct outgoing *o)
{
    int64_t stopped = machine_last_pause_ns(o->machine);
    return stopped < o->time_ns.requested ? o->time_ns.paused : stopped;
}

void outgoing_report_stopped(struct outgoing *o)
{
    struct migration *m = o->m;
    lock(&m->lock);
    m->report.paused = true;
    m->report.copying_ns = o->time_ns.requested - m->active_ns;
    unlock(&m->lock);
}

/* The vCPUs stand since the pause, so there is time for it now; in a rehearsal they run again, and a little of that is counted.
 * The lock is held. */
static void note_work(struct outgoing *o)
{
    struct guest_work now = work_so_far(o);
    for (unsigned i = 0; i < machine_harts(o->machine); i++) {
        struct vcpu_stats stats;
        vcpu_stats(machine_vcpu(o->machine, i), &stats);
        o->hart_paused_ns[i] = stats.paused_ns;
    }
    o->m->report.before = (struct guest_work){
        .elapsed_ns = o->time_ns.requested - o->work_before.elapsed_ns,
        .instructions = now.instructions - o->work_before.instructions,
        .cpu_ns = now.cpu_ns - o->work_before.cpu_ns,
    };
}

static struct pause_moments moments(struct outgoing *o)
{
    return (struct pause_moments){
        .requested_ns = o->time_ns.requested,
        .stopped_ns = stopped_ns(o),
        .drained_ns = o->time_ns.paused,
        .flushed_ns = o->time_ns.flushed,
        .harvest_ns = o->harvest_ns,
        .round_ns = o->time_ns.round,
        .sent_ns = o->time_ns.sent,
        .prepared_ns = o->time_ns.prepared,
        .go_ns = o->one_way ? o->time_ns.running : o->time_ns.go, /* no word is said, the last byte is GO */
        .running_ns = o->time_ns.running,
    };
}

/* The newest prediction in the table is the one that was believed. The lock is held. */
static void note_got(struct migration *m, int64_t got_ns)
{
    struct report_rounds *rounds = &m->report.rounds;
    for (unsigned i = rounds->rows; i-- > 0;)
        if (rounds->row[i].predicted_ns) {
            rounds->row[i].got_ns = got_ns;
            return;
        }
}

void outgoing_report_last_round(struct outgoing *o)
{
    struct migration *m = o->m;
    struct pipeline_stats now;
    pipeline_stats(o->pipeline, &now);
    lock(&m->lock);
    m->round.start_ns = o->time_ns.flushed;
    struct report_round row = row_since(o, &now);
    report_add_round(&m->report.rounds, &row);
    next_round(o, 0);
    unlock(&m->lock);
}

void outgoing_report_taken_back(struct outgoing *o)
{
    struct migration *m = o->m;
    int64_t stood_ns = machine_last_resume_ns(o->machine) - stopped_ns(o);
    uint64_t units = outgoing_dirty_units(o);
    /* Nobody has noticed, or it was stopped by somebody else meanwhile; or it is a rehearsal's good end. */
    if (o->stayed || !o->ran || stood_ns <= 0)
        return;
    struct pause_moments at = moments(o);
    struct pause_told told = { -1, -1, -1 };
    lock(&m->lock);
    pause_split(&at, &told, &m->report.pause);
    m->report.taken_back++;
    m->report.stood_ns += stood_ns;
    note_got(m, stood_ns);
    if (!o->round_open)
        next_round(o, units);
    unlock(&m->lock);
    memset(&o->time_ns, 0, sizeof(o->time_ns));
    o->harvest_ns = 0;
}

static void learn(struct outgoing *o, int64_t downtime_ns)
{
    struct migration *m = o->m;
    if (!o->ran || o->one_way)
        return;
    converge_learn(&o->converge, o->predicted_ns, downtime_ns);
    m->bias = o->converge.bias;
    m->costs.pause_ns = (m->costs.pause_ns + o->time_ns.paused - o->time_ns.requested) / 2;
    m->costs.device_ns = (m->costs.device_ns + o->time_ns.sent - o->time_ns.round) / 2;
    if (o->stayed)
        return; /* the start there was made up */
    int64_t handover_ns = o->time_ns.running - o->time_ns.prepared - o->converge.trip_ns;
    m->costs.handover_ns = (m->costs.handover_ns + (handover_ns > 0 ? handover_ns : 0)) / 2;
}

static void hear_times(struct outgoing *o, struct pause_told *told)
{
    *told = (struct pause_told){ -1, -1, -1 };
    if (!o->ear.started)
        return;
    lock(&o->ear.lock);
    if (o->ear.running_ns) {
        o->time_ns.running = o->ear.running_ns;
        told->start_ns = o->ear.start_ns < INT64_MAX ? (int64_t)o->ear.start_ns : -1;
    }
    if (o->ear.prepared_ns)
        o->time_ns.prepared = o->ear.prepared_ns;
    unlock(&o->ear.lock);
}

bool outgoing_report_away(struct outgoing *o)
{
    struct migration *m = o->m;
    struct pipeline_stats stats;
    struct pause_told told;
    hear_times(o, &told);
    struct pause_moments at = moments(o);
    int64_t downtime_ns = o->ran && at.running_ns > at.stopped_ns ? at.running_ns - at.stopped_ns : 0;
    pipeline_stats(o->pipeline, &stats);
    lock(&m->lock);
    m->figures.downtime_ms = (double)downtime_ns / NS_PER_MS;
    m->figures.predicted_downtime_ms = (double)o->predicted_ns / NS_PER_MS;
    m->figures.downtime_bytes = stats.wire_bytes - o->wire_at_pause;
    pause_split(&at, &told, &m->report.pause);
    note_work(o);
    note_got(m, downtime_ns);
    bool due = m->report.arrival_due = o->peer_tells_result && o->ear.started && !o->doubted && !o->stayed;
    unlock(&m->lock);
    learn(o, downtime_ns);
    return due;
}

void outgoing_report_end(struct outgoing *o)
{
    struct migration *m = o->m;
    count_stalls(o, 0);
    lock(&m->lock);
    if (!o->plan && (m->sent.units_taken != o->written.units_taken || m->sent.units_data != o->written.units_data ||
                     m->sent.units_zero != o->written.units_zero)) { /* a round that was broken off */
        struct report_round row = row_since(o, &m->sent);
        report_add_round(&m->report.rounds, &row);
    }
    if (o->at != SOURCE_AWAY && m->active_ns)
        m->report.copying_ns = clock_now_ns() - m->active_ns;
    unlock(&m->lock);
}

/* --- what the destination tells ------------------------------------------------------------------------- */

/* Whatever it says is of use only where it fits what was seen here. */
static void take_arrival(struct outgoing *o, const struct report_arrival *arrival)
{
    struct migration *m = o->m;
    struct arrival_parts parts = report_arrival_parts(arrival);
    struct pause_moments at = moments(o);
    /* On a busy host RUNNING is said before a vCPU's thread has had its turn: the rest is the guest's, and not of the wait. */
    int64_t told_ns = arrival->told_ns - arrival->go_ns, start_ns = parts.start_ns ? parts.start_ns : -1;
    struct pause_told told = { -1, parts.load_ns, start_ns < told_ns ? start_ns : told_ns };
    struct duration arriving;
    struct clock_bounds bounds = { 0 };
    static const uint8_t nowhere[REPORT_HOST_BYTES];
    clock_sent(&bounds, o->time_ns.eof, arrival->eof_ns);
    clock_sent(&bounds, o->time_ns.go, arrival->go_ns);
    clock_heard(&bounds, o->time_ns.prepared, arrival->prepared_ns);
    clock_heard(&bounds, o->time_ns.running, arrival->told_ns);
    if (memcmp(m->host, nowhere, sizeof(nowhere)) != 0 && memcmp(m->host, arrival->host, sizeof(m->host)) == 0)
        clock_same(&bounds);
    if (clock_between(&bounds, o->time_ns.sent, arrival->stopped_ns, &arriving))
        told.arrive_ns = arriving.low_ns;
    lock(&m->lock);
    m->report.arrival = *arrival;
    m->report.arrival_known = true;
    pause_split(&at, &told, &m->report.pause);
    if (o->ran)
        report_gap(&bounds, o->hart_paused_ns, machine_harts(o->machine), arrival, &m->report.gap);
    unlock(&m->lock);
}

void outgoing_report_result(struct outgoing *o)
{
    struct migration *m = o->m;
    struct report_arrival *arrival = calloc(1, sizeof(*arrival));
    lock(&m->lock);
    bool wait = arrival && m->report.arrival_due && !m->quitting;
    unlock(&m->lock);
    if (wait)
        return_path_wait_until(&o->ear, HEARD_RESULT | HEARD_ERROR | HEARD_CLOSED | HEARD_INTERRUPT,
                               clock_now_ns() + RESULT_MS * NS_PER_MS);
    bool heard = false;
    if (wait) {
        lock(&o->ear.lock);
        heard = o->ear.heard & HEARD_RESULT;
        *arrival = o->ear.arrival;
        unlock(&o->ear.lock);
    }
    if (heard)
        take_arrival(o, arrival);
    free(arrival);
    lock(&m->lock);
    m->report.arrival_due = false;
    unlock(&m->lock);
}
