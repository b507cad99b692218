/* The source's story, top to bottom: connect, hello, rounds, stop, hand over. On the migrate thread. */
#include "migration/outgoing.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/failpoint.h"
#include "migration/hello.h"
#include "migration/hot_code.h"
#include "migration/rehearse.h"

static uint64_t param(const _Atomic uint64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

int outgoing_cancelled(struct outgoing *o)
{
    return migration_cancelled(o->m) ? err_set(&o->err, -ECANCELED, "migration cancelled") : 0;
}

int64_t outgoing_silence_ms(struct outgoing *o)
{
    return (int64_t)param(&o->m->params.peer_timeout_ms);
}

/* --- connect and hello ---------------------------------------------------------------------------------- */

static void peer_lost(void *opaque, const struct err *why)
{
    struct migration *m = ((struct outgoing *)opaque)->m;
    lock(&m->lock);
    if (m->pipeline && !m->cancel_softly)
        pipeline_fail(m->pipeline, why->code, why->text);
    unlock(&m->lock);
}

static int say_hello(struct outgoing *o, unsigned channels)
{
    struct hello *hello = calloc(1, sizeof(*hello));
    struct message *answer = calloc(1, sizeof(*answer));
    struct buf payload = { 0 }, out = { 0 };
    assert(hello && answer);
    int timeout_ms = (int)outgoing_silence_ms(o);
    int64_t asked_ns = clock_now_ns();

    int rc = failpoint_err(FAILPOINT_SOURCE_HELLO, &o->err);
    hello_fill(hello, HELLO_SOURCE, machine_config_of(o->machine));
    hello->channels = channels ? channels : 1;
    if (o->rehearsal)
        hello->capabilities |= HELLO_REHEARSAL;
    if (o->plan)
        hello->capabilities |= HELLO_PROBE;
    if (!o->plan && o->m->disk_copy != DISK_SHARED)
        hello->capabilities |= HELLO_DISKS;
    hello->key = o->key_bytes;
    hello_encode(hello, &payload);
    message_put(&out, MESSAGE_HELLO, &o->key, payload.data, (uint32_t)payload.size);
    if (rc == 0)
        rc = channel_write_all(o->channel, out.data, out.size, timeout_ms, &o->err);
    if (rc == 0)
        rc = message_read(o->channel, false, answer, timeout_ms, &o->err);
    converge_trip(&o->converge, clock_now_ns() - asked_ns);
    if (rc < 0) {
        err_prefix(&o->err, "no hello from the destination");
    } else if (answer->type == MESSAGE_REFUSAL || answer->type == MESSAGE_ERROR) {
        char sentence[MESSAGE_SENTENCE_MAX + 1];
        message_sentence(answer, sentence, sizeof(sentence));
        rc = err_set(&o->err, -EREMOTEIO, "the destination refuses: %s", sentence);
    } else if (answer->type != MESSAGE_HELLO || !message_key_equal(&answer->key, &o->key)) {
        rc = err_set(&o->err, -EPROTO, "the destination answers the hello with message type %u", answer->type);
    } else {
        rc = hello_decode(answer, HELLO_DESTINATION, hello, &o->err);
        o->peer_can_resume = rc == 0 && hello->capabilities & HELLO_CAN_RESUME;
        o->peer_reads_deltas = rc == 0 && hello->capabilities & HELLO_CAN_DELTAS;
        o->peer_is_fresh = rc == 0 && hello->capabilities & HELLO_IS_FRESH;
        o->peer_can_warm = rc == 0 && hello->capabilities & HELLO_CAN_WARM;
        o->digest_key = rc == 0 && hello->capabilities & HELLO_CAN_KEY ? &o->key_bytes : NULL;
        o->peer_verifies = rc == 0 && hello->capabilities & HELLO_CAN_VERIFY;
        o->codecs = hello_codecs(hello);
        if (rc == 0 && channels && !(hello->capabilities & HELLO_CAN_CHANNELS))
            rc = err_set(&o->err, -EREMOTEIO, "the destination knows no data channels, and channels is %u", channels);
        o->peer_tells_result = rc == 0 && hello->capabilities & HELLO_CAN_HEAR_RESULT;
        if (rc == 0 && !o->plan && o->m->disk_copy != DISK_SHARED && !(hello->capabilities & HELLO_DISKS))
            rc = err_set(&o->err, -ENOTSUP, "the destination is an older godwit, and takes no disks");
        if (rc == 0 && outgoing_verifies(o) && !o->peer_verifies)
            rc = err_set(&o->err, -ENOTSUP, "verify=full: the destination is an older godwit that cannot be asked");
        uint64_t needed = o->rehearsal ? HELLO_CAN_REHEARSE : o->plan ? HELLO_CAN_PROBE : 0;
        if (rc == 0 && (hello->capabilities & needed) != needed)
            rc = err_set(&o->err, -ENOTSUP, "the destination is an older godwit, and knows of no rehearsals and plans");
    }
    buf_free(&payload);
    buf_free(&out);
    free(hello);
    free(answer);
    return rc;
}

static int connect_peer(struct outgoing *o)
{
    struct migration *m = o->m;
    if (getrandom(o->key.id, sizeof(o->key.id), 0) != (ssize_t)sizeof(o->key.id))
        return err_set_errno(&o->err, -errno, "no random bytes for the migration's id");
    if (getrandom(&o->key_bytes, sizeof(o->key_bytes), 0) != (ssize_t)sizeof(o->key_bytes))
        return err_set_errno(&o->err, -errno, "no random bytes for the migration's key");
    o->key.attempt = 1;
    int channels = o->plan ? 0 : channels_wanted(&m->params, m->uri, &o->err);
    if (channels < 0)
        return channels;
    int rc = failpoint_err(FAILPOINT_SOURCE_CONNECT, &o->err);
    if (rc == 0)
        rc = lines_connect(&m->lines, m->uri, m->abort_fd, (int)outgoing_silence_ms(o), &o->channel, &o->err);
    if (rc < 0)
        return rc;
    lines_bind(&m->lines, o->channel);
    migration_hold_channel(m, o->channel);

    /* A command may just store what it is given; only the user knows. */
    bool silent_command = strncmp(m->uri, "exec:", 5) == 0 &&
                          !atomic_load_explicit(&m->params.capability_return_path, memory_order_relaxed);
    o->to_file = o->channel->stream_local;
    o->one_way = o->to_file || !o->channel->can_read || silent_command;
    lock(&m->lock);
    m->one_way = o->one_way;
    unlock(&m->lock);
    if (o->one_way && m->purpose != PURPOSE_MOVE)
        return err_set(&o->err, -EINVAL,
                       "nobody answers at %.100s: a rehearsal or a plan needs a godwit that waits there", m->uri);
    if (o->one_way && outgoing_verifies(o))
        return err_set(&o->err, -EINVAL, "verify=full: nobody answers at %.100s, who could be asked what he holds",
                       m->uri);
    if (o->one_way)
        return outgoing_cancelled(o);

    rc = say_hello(o, (unsigned)channels);
    failpoint(FAILPOINT_SOURCE_MET);
    if (rc == 0)
        rc = channels_connect(&m->lines, m->uri, o->channel, m->abort_fd, &o->key, (unsigned)channels,
                              (int)outgoing_silence_ms(o), &o->data, &o->err);
    if (rc == 0)
        rc = return_path_start(&o->ear, o->channel, &o->key, peer_lost, o, &o->err);
    if (rc < 0)
        return rc;
    lock(&m->lock);
    m->ear = &o->ear;
    unlock(&m->lock);
    return outgoing_cancelled(o);
}

/* --- rounds --------------------------------------------------------------------------------------------- */

/* What binds the writer: outside the pause the cap, and the patience with somebody who answers; within it no cap, and
 * the same patience with everybody. */
void outgoing_binds(struct outgoing *o, bool paused)
{
    struct pipeline_tunables *live = &o->m->params.live;
    int64_t frozen_ns = paused || !o->one_way ? outgoing_silence_ms(o) * NS_PER_MS : 0;
    atomic_store_explicit(&live->uncapped, paused, memory_order_relaxed);
    atomic_store_explicit(&live->frozen_limit_ns, frozen_ns, memory_order_relaxed);
}

int outgoing_begin_street(struct outgoing *o)
{
    struct migration *m = o->m;
    /* A plan sends the same pages again and again, of which nothing would be left. */
    bool deltas =
        !o->plan && o->peer_reads_deltas && atomic_load_explicit(&m->params.capability_deltas, memory_order_relaxed);
    struct pipeline_options options = {
        .workers = (unsigned)param(&m->params.threads),
        .sources = o->sources,
        .source_count = o->source_count,
        .channel = o->channel,
        .data = o->data.data,
        .data_count = o->data.count,
        .tunables = &m->params.live,
        .codecs = o->codecs,
        .peer_is_fresh = o->peer_is_fresh,
        .key = o->digest_key,
        .settled = o->one_way,
        .delta_cache_bytes = deltas ? param(&m->params.delta_cache_bytes) : 0,
        .peer_waits_permille = o->one_way ? NULL : &o->ear.peer_waits_permille,
    };
    outgoing_binds(o, false);
    int rc = pipeline_new(&options, &o->pipeline, &o->err);
    if (rc < 0)
        return rc;
    migration_hold_pipeline(m, o->pipeline);
    return 0;
}

static int begin(struct outgoing *o)
{
    struct migration *m = o->m;
    int rc = outgoing_disks_begin(o);
    if (rc == 0)
        rc = outgoing_begin_street(o);
    if (rc < 0)
        return rc;
    if (outgoing_verifies(o) || param(&m->params.audit))
        dirty_trail_start(o->ram->dirty);
    o->tracking = o->disks.count == 0; /* else memory begins when it is due */
    if (o->tracking)
        dirty_start(o->ram->dirty, DIRTY_MIGRATION, true);
    outgoing_throttle_begin(o);
    outgoing_report_begin(o);
    migration_set_state(m, MIGRATION_ACTIVE);

    struct section_writer writer;
    sections_begin(&writer);
    if (o->one_way) /* nobody has read a hello: the first thing to check comes first */
        sections_put_full(&writer, &machine_config_state, 0, machine_config_of(o->machine));
    outgoing_disks_put_start(o, &writer);
    sections_put_start(&writer, o->sources[0], o->ram);
    rc = pipeline_send(o->pipeline, writer.out.data, writer.out.size, &o->err);
    o->full_sum = writer.full_sum;
    o->next_id = writer.next_id;
    sections_writer_free(&writer);
    return rc;
}

int outgoing_wait_loaded(struct outgoing *o, uint64_t round)
{
    if (o->one_way)
        return pipeline_flush(o->pipeline, &o->err);
    enum heard heard = return_path_wait(&o->ear, HEARD_ROUND, round, outgoing_silence_ms(o), &o->err);
    if (heard == HEARD_ROUND)
        return 0;
    return heard == HEARD_INTERRUPT ? err_set(&o->err, -ECANCELED, "migration cancelled") : o->err.code;
}

uint64_t outgoing_dirty_units(struct outgoing *o)
{
    uint64_t units = 0;
    for (unsigned i = 0; i < o->source_count; i++)
        units += o->sources[i]->ops->dirty(o->sources[i]);
    return units;
}

/* One round, until the destination has loaded it: only then is its time the truth. */
static int one_round(struct outgoing *o, struct converge_sample *sample)
{
    struct pipeline_stats before, after;
    struct round_result result;
    int64_t start_ns = clock_now_ns();
    pipeline_stats(o->pipeline, &before);
    if (!o->round_open)
        outgoing_leave_hot(o);
    int rc = failpoint_err(FAILPOINT_SOURCE_ROUND, &o->err);
    if (rc == 0 && !o->round_open)
        rc = pipeline_round_begin(o->pipeline, false, &o->err);
    o->round_open = false;
    if (rc == 0)
        rc = outgoing_hot_code(o);
    if (rc == 0)
        outgoing_throttle_round(o);
    if (rc == 0)
        rc = pipeline_round_end(o->pipeline, &result, &o->err);
    if (rc == 0)
        rc = outgoing_wait_loaded(o, before.rounds + 1);
    if (rc < 0)
        return rc;
    o->recall_owed = false; /* it loads, so it has heard of a RETRACT */
    failpoint(FAILPOINT_SOURCE_LOADED);
    pipeline_round_loaded(o->pipeline, &result, clock_now_ns() - start_ns);
    pipeline_stats(o->pipeline, &after);
    *sample = (struct converge_sample){
        .units_data = result.units_data,
        .units_zero = result.units_zero,
        .wire_bytes = after.wire_bytes - before.wire_bytes,
        .elapsed_ns = clock_now_ns() - start_ns,
        .rate_wait_ns = (int64_t)(after.rate_wait_ns - before.rate_wait_ns),
        .cpu_ns = (int64_t)(after.copy_ns + after.compress_ns - before.copy_ns - before.compress_ns),
    };
    return 0;
}

struct converge_policy outgoing_policy(struct outgoing *o)
{
    const struct migration_params *params = &o->m->params;
    return (struct converge_policy){
        .downtime_limit_ns = (int64_t)param(&params->downtime_limit_ms) * NS_PER_MS,
        .max_bytes_per_s = param(&params->max_bandwidth_bytes_per_s),
        .switchover_bytes_per_s = param(&params->avail_switchover_bandwidth),
        .max_rounds = param(&params->max_rounds),
        .on_stall = (enum converge_on_stall)param(&params->on_stall),
        .stall_rounds = param(&params->stall_rounds),
        .stall_ns = (int64_t)param(&params->stall_ms) * NS_PER_MS,
        .workers = (unsigned)param(&params->threads),
        .holds_more = outgoing_holds_more(o),
        .hurry = o->throttling,
        .guest_paused = machine_state(o->machine) != RUN_RUNNING,
    };
}

static struct converge_verdict decide(struct outgoing *o, const struct converge_sample *sample)
{
    if (o->ear.started) {
        lock(&o->ear.lock);
        o->converge.burst_bytes_per_s = o->ear.burst_bytes_per_s;
        unlock(&o->ear.lock);
    }
    struct converge_sample weighed = outgoing_disks_weigh(o, sample);
    converge_add(&o->converge, &weighed);
    struct converge_policy policy = outgoing_policy(o);
    struct converge_costs costs = outgoing_disks_costs(o);
    struct converge_verdict verdict = converge_decide(&o->converge, &policy, &costs);
    struct migration *m = o->m;
    lock(&m->lock);
    m->figures.expected_downtime_ms = (double)verdict.predicted_ns / NS_PER_MS;
    m->figures.expected_least_ms = (double)verdict.lower_ns / NS_PER_MS;
    m->figures.expected_most_ms = (double)verdict.upper_ns / NS_PER_MS;
    m->figures.dirty_pages_per_s =
        sample->elapsed_ns > 0 ? (uint64_t)((double)sample->dirty_units * 1e9 / (double)sample->elapsed_ns) : 0;
    unlock(&m->lock);
    return verdict;
}

int outgoing_wait(struct outgoing *o, int64_t wait_ns)
{
    struct migration *m = o->m;
    int64_t until_ns = clock_now_ns() + wait_ns;
    lock(&m->lock);
    while (!m->cancel && wait_ns > 0 && cond_wait_until(&m->changed, &m->lock, until_ns))
        continue;
    unlock(&m->lock);
    return outgoing_cancelled(o);
}

static uint64_t rounds_of(struct outgoing *o)
{
    struct pipeline_stats stats;
    pipeline_stats(o->pipeline, &stats);
    return stats.rounds;
}

static int move(struct outgoing *o)
{
    int began = outgoing_disks_bulk(o);
    if (began < 0)
        return began;
    for (;;) {
        struct converge_sample sample;
        int rc = one_round(o, &sample);
        if (rc == 0)
            rc = outgoing_audit(o, sample.units_data, false);
        if (rc == 0)
            rc = outgoing_cancelled(o);
        if (rc == 0)
            rc = outgoing_probe(o, &sample);
        if (rc < 0)
            return rc;
        sample.dirty_units = outgoing_dirty_units(o);
        struct converge_verdict verdict = decide(o, &sample);
        outgoing_report_round(o, &sample, &verdict);
        uint64_t round = rounds_of(o);
        migration_round_done(o->m, round);
        switch (verdict.action) {
        case CONVERGE_SWITCH_OVER:
            o->predicted_ns = verdict.predicted_ns;
            rc = outgoing_disks_postpone(o, &verdict);
            if (rc == 0)
                return 0;
            rc = rc < 0 ? rc : 0;
            break;
        case CONVERGE_GIVE_UP: return outgoing_give_up(o, &verdict, round);
        case CONVERGE_AGAIN:
            outgoing_disks_hold(o, &sample);
            rc = outgoing_wait(o, verdict.wait_ns);
            break;
        }
        if (rc < 0)
            return rc;
    }
}

/* --- stop, last round, devices ---------------------------------------------------------------------------- */

static int pause_guest(struct outgoing *o)
{
    struct converge_policy policy = outgoing_policy(o);
    policy.downtime_limit_ns = converge_limit_ns(&o->converge, policy.downtime_limit_ns);
    int64_t overrun_ns = o->rehearsal ? rehearse_pause_ns(&policy) : converge_overrun_ns(&policy);
    /* What the disks' images have not on them yet: most of it while the guest runs, the rest in its pause. */
    int rc = machine_flush_disks(o->machine, &o->err); /* copied or not: letting go of them shall not take long */
    if (rc == 0)
        rc = failpoint_err(FAILPOINT_SOURCE_PAUSE, &o->err);
    if (rc < 0)
        return rc;
    if (!o->to_file && !o->rehearsal)
        o->epoch = lease_count_up(machine_config_of(o->machine), &o->key, "offered");
    if (!o->to_file) /* one that fails is tried again, and told, when it is due */
        released_prepare(&o->key, "RELEASED", o->channel->name, machine_config_of(o->machine), o->note_path, NULL);
    o->time_ns.requested = clock_now_ns();
    o->overrun_at_ns = overrun_ns == INT64_MAX ? INT64_MAX : o->time_ns.requested + overrun_ns;
    enum run_state found = machine_hand_over(o->machine);
    if (found != RUN_RUNNING && found != RUN_PAUSED && found != RUN_PRELAUNCH)
        return err_set(&o->err, -EINVAL, "the guest went to state %s meanwhile", run_state_name(found));
    o->ran = found == RUN_RUNNING;
    o->paused = true;
    outgoing_feed(o, HANDOVER_STOPPED);
    o->time_ns.paused = clock_now_ns();
    migration_set_state(o->m, MIGRATION_DEVICE);
    outgoing_report_stopped(o);
    rc = outgoing_disks_flush(o);
    o->time_ns.flushed = clock_now_ns();
    if (rc == 0)
        rc = failpoint_err(FAILPOINT_SOURCE_PAUSED, &o->err);
    return rc < 0 ? rc : outgoing_cancelled(o);
}

/* Until its mark is sent the last round is a round like any other: when it takes too long the guest runs on in the
 * middle of it, what it writes then is dirty for the next one, and nothing is lost or sent in vain. */
static int last_round(struct outgoing *o)
{
    struct pipeline_stats before, after;
    pipeline_stats(o->pipeline, &before);
    o->wire_at_pause = before.wire_bytes;
    outgoing_binds(o, true);
    int rc = pipeline_round_begin(o->pipeline, true, &o->err);
    if (rc == 0 && !pipeline_round_wait(o->pipeline, o->overrun_at_ns)) {
        o->round_open = true;
        return outgoing_overrun(o);
    }
    if (rc == 0)
        rc = pipeline_round_end(o->pipeline, NULL, &o->err);
    if (rc < 0)
        return rc;
    dirty_seal(o->ram->dirty);
    o->sealed = true;
    rc = outgoing_disks_quiet(o);
    if (rc < 0)
        return rc;
    o->time_ns.round = clock_now_ns();
    pipeline_stats(o->pipeline, &after); /* workers wait side by side */
    o->harvest_ns = (int64_t)((after.revoke_wait_ns - before.revoke_wait_ns) / param(&o->m->params.threads));
    outgoing_report_last_round(o);
    rc = failpoint_err(FAILPOINT_SOURCE_SEALED, &o->err);
    return rc < 0 ? rc : outgoing_audit(o, after.units_data - before.units_data, true);
}

void outgoing_digest(struct outgoing *o, struct section_digest *digest)
{
    *digest = (struct section_digest){ .sources = o->source_count };
    for (unsigned i = 0; i < o->source_count; i++) {
        digest->source[i].id = o->sources[i]->id;
        pipeline_digest(o->pipeline, i, digest->source[i].digest);
    }
}

static void put_end(struct outgoing *o, struct section_writer *writer, uint64_t rounds)
{
    for (unsigned i = 0; i < o->source_count; i++)
        sections_put_end(writer, o->sources[i], rounds);
    struct section_handover handover = {
        .run = o->ran,
        .paused_ns = clock_realtime_ns() - (clock_now_ns() - o->time_ns.paused),
    };
    sections_put_full(writer, &section_handover_state, 0, &handover);

    outgoing_put_devices(o, writer);
    struct section_digest digest;
    outgoing_digest(o, &digest);
    sections_put_digest(writer, &digest);
}

void outgoing_put_devices(struct outgoing *o, struct section_writer *writer)
{
    struct machine_section section[MACHINE_SECTIONS_MAX];
    unsigned sections = machine_sections(o->machine, section);
    struct report_devices saved = { 0 };
    o->devices_sum[0] = o->devices_sum[1] = 0;
    for (unsigned i = 0; i < sections; i++) {
        int64_t start_ns = clock_now_ns();
        if (section[i].lock)
            lock(section[i].lock);
        sections_put_full(writer, section[i].desc, section[i].instance, section[i].object);
        if (section[i].lock)
            unlock(section[i].lock);
        sections_sum(o->digest_key, section[i].desc, section[i].instance, section[i].desc->version,
                     writer->out.data + writer->data_at, writer->data_bytes, o->devices_sum);
        report_add_device(&saved, section[i].desc->name, section[i].instance, clock_now_ns() - start_ns);
    }
    lock(&o->m->lock);
    o->m->report.saved = saved;
    unlock(&o->m->lock);
}

/* From the EOF on a cut line would leave the peer prepared and in doubt: cancel has to tell it. */
static int send_eof(struct outgoing *o)
{
    lock(&o->m->lock);
    bool cancel = o->m->cancel;
    o->m->cancel_softly = !cancel;
    unlock(&o->m->lock);
    if (cancel)
        return err_set(&o->err, -ECANCELED, "migration cancelled");
    uint8_t eof = ELEMENT_EOF;
    o->time_ns.eof = clock_now_ns();
    o->recall = o->key;
    o->recall_owed = !o->rehearsal; /* what was rehearsed is dropped when the line is lost */
    int rc = failpoint_err(FAILPOINT_SOURCE_EOF, &o->err);
    if (rc == 0)
        rc = pipeline_send(o->pipeline, &eof, 1, &o->err);
    if (rc == 0)
        outgoing_feed(o, HANDOVER_SENT);
    failpoint(FAILPOINT_SOURCE_ASKED);
    return rc;
}

static int send_devices(struct outgoing *o)
{
    struct pipeline_stats stats;
    struct section_writer writer = { .full_sum = o->full_sum, .next_id = o->next_id };
    pipeline_stats(o->pipeline, &stats);
    put_end(o, &writer, stats.rounds);
    /* On the wire, all of it, while a cancel may still cut the line: behind the EOF nothing may be waiting. In a rehearsal
     * nothing may hold the guest up; a line that is cut later leaves no doubt. */
    int rc = failpoint_err(FAILPOINT_SOURCE_DEVICES, &o->err);
    if (rc == 0)
        rc = pipeline_send(o->pipeline, writer.out.data, writer.out.size, &o->err);
    if (rc == 0 && !o->rehearsal)
        rc = pipeline_flush(o->pipeline, &o->err);
    sections_writer_free(&writer);
    if (rc == 0 && !o->one_way)
        rc = send_eof(o);
    o->time_ns.sent = clock_now_ns();
    return rc;
}

/* --- the end ------------------------------------------------------------------------------------------------ */

static void free_street(struct outgoing *o)
{
    pipeline_free(o->pipeline);
    o->pipeline = NULL;
    channels_close(&o->data); /* what came over them is loaded, or void */
}

/* A peer that got the EOF should hear RETRACT before the line is cut; a peer that failed has a sentence for us. */
static void hear_last_words(struct outgoing *o)
{
    if (o->stayed && o->rehearsal)
        rehearse_wait_dropped(o);
    else if (o->retract_sent && o->ear.started)
        return_path_wait_until(&o->ear, HEARD_RETRACTED | HEARD_CLOSED, clock_now_ns() + LAST_WORD_MS * NS_PER_MS);
    else if (o->at == SOURCE_HERE && o->ear.started && o->err.code != -ECANCELED &&
             return_path_wait_until(&o->ear, HEARD_ERROR | HEARD_CLOSED, clock_now_ns() + LAST_WORD_MS * NS_PER_MS) ==
                 HEARD_ERROR) {
        err_clear(&o->err);
        return_path_wait(&o->ear, HEARD_ERROR, 0, 0, &o->err);
    }
    if (o->pipeline && o->at != SOURCE_AWAY)
        pipeline_fail(o->pipeline, -ECONNABORTED, "the migration has ended");
}

/* What people see the end of: the guest, tracking. */
static void tear_down(struct outgoing *o)
{
    failpoint(FAILPOINT_SOURCE_END);
    if (!o->hears_later)
        hear_last_words(o);
    released_discard(o->note_path);
    outgoing_disks_end(o);
    migration_hold_pipeline(o->m, NULL);
    if (o->at == SOURCE_AWAY)
        free_street(o); /* its last word goes out */
    outgoing_throttle_end(o);
    outgoing_report_end(o);
    if (o->tracking)
        dirty_stop(o->ram->dirty, DIRTY_MIGRATION);
    dirty_trail_stop(o->ram->dirty);
    if (o->sealed)
        dirty_unseal(o->ram->dirty);
}

/* The end of the line; a destination that has the guest may have something to tell until then. */
static void hang_up(struct outgoing *o)
{
    struct migration *m = o->m;
    migration_hold_channel(m, NULL);
    lock(&m->lock);
    if (o->ear.started) {
        m->figures.loaded_bytes_per_s = 0;
        m->ear = NULL;
    }
    unlock(&m->lock);
    if (o->at != SOURCE_AWAY && o->err.code != -ECANCELED)
        channel_explain(o->channel, &o->err);
    if (o->channel)
        channel_shutdown(o->channel);
}

/* What may have to wait for a vCPU that the host does not run now; nobody else waits for it. */
static void join_all(struct outgoing *o)
{
    free_street(o);
    outgoing_disks_free(o);
    return_path_stop(&o->ear);
    channel_close(o->channel);
}

static void report_end(struct outgoing *o)
{
    struct migration *m = o->m;
    if (o->stayed) {
        migration_set_where(m, GUEST_HERE);
        migration_set_state(m, MIGRATION_COMPLETED);
        return;
    }
    if (o->at == SOURCE_AWAY) {
        migration_set_where(m, o->to_file ? GUEST_IN_FILE : GUEST_THERE);
        lock(&m->lock);
        err_clear(&m->error); /* a doubt that was resolved */
        unlock(&m->lock);
        migration_set_state(m, MIGRATION_COMPLETED);
        return;
    }
    migration_set_error(m, &o->err);
    if (o->at != SOURCE_HERE) { /* released, and nobody answered */
        if (!o->one_way)
            return;
        lock(&m->lock);
        memcpy(m->released_path, o->released_path, sizeof(m->released_path));
        unlock(&m->lock);
        migration_set_where(m, GUEST_UNKNOWN);
        migration_set_state(m, MIGRATION_UNRESOLVED);
        return;
    }
    migration_set_where(m, GUEST_HERE);
    bool cancel = o->err.code == -ECANCELED || (migration_cancelled(m) && !m->released);
    migration_set_state(m, cancel ? MIGRATION_CANCELLED : MIGRATION_FAILED);
}

static void say_more(struct migration *m, bool more)
{
    lock(&m->lock);
    m->last_words = more;
    cond_broadcast(&m->changed);
    unlock(&m->lock);
}

static int move_and_hand_over(struct outgoing *o)
{
    int rc = move(o);
    if (rc == 0)
        rc = pause_guest(o);
    if (rc == 0)
        rc = last_round(o);
    if (rc == 0)
        rc = send_devices(o);
    if (rc == 0)
        rc = o->one_way ? outgoing_end_one_way(o) : outgoing_hand_over(o);
    return rc;
}

/* The street's first failure shuts the channel down, which whoever waits on the way back sees as a cancel. */
static void tell_first_error(struct outgoing *o)
{
    struct err first = { 0 };
    if (o->err.code == -ECANCELED && !migration_cancelled(o->m) && o->pipeline &&
        pipeline_error(o->pipeline, &first) < 0 && first.code != -ECANCELED)
        o->err = first;
}

void outgoing_run(struct migration *m)
{
    struct outgoing *o = calloc(1, sizeof(*o));
    assert(o);
    o->m = m;
    o->machine = m->machine;
    o->ram = machine_ram(m->machine);
    o->sources[0] = m->ram;
    o->source_count = 1;
    o->rehearsal = m->purpose == PURPOSE_REHEARSAL;
    o->plan = m->purpose == PURPOSE_PLAN;
    o->at = SOURCE_MOVING;
    converge_init(&o->converge);
    o->converge.bias = m->bias;

    int rc = connect_peer(o);
    if (rc == 0)
        rc = o->plan ? plan_measure(o) : begin(o);
    o->stayed = o->plan && rc == 0;
    if (rc == 0 && !o->plan)
        do
            rc = move_and_hand_over(o);
        while (rc == OUTGOING_AGAIN);

    tell_first_error(o);
    if (rc < 0 && !handover_ended(o->at))
        outgoing_fail(o);
    bool stayed = o->stayed && o->rehearsal;
    if (stayed)
        rehearse_report(o);
    bool more = (o->at == SOURCE_AWAY || stayed) && outgoing_report_away(o);
    o->hears_later =
        o->retract_sent && o->at == SOURCE_HERE && o->err.code == -ECANCELED; /* who cancels does not wait */
    tear_down(o);
    if (!more && !o->hears_later)
        hang_up(o);
    say_more(o->m, o->hears_later);
    report_end(o);
    if (o->hears_later) {
        hear_last_words(o);
        say_more(o->m, false);
        hang_up(o);
    }
    if (more) {
        outgoing_report_result(o);
        hang_up(o);
    }
    join_all(o);
    outgoing_recall(o);
    plan_source_free(o->sample);
    free(o);
}
