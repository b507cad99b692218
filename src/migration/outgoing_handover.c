/* The source in the hand-over: what handover.c decides, performed; and the waiting between. On the migrate thread. */
#include "migration/outgoing.h"

#include <errno.h>
#include <string.h>

#include "base/failpoint.h"

/* --- performing what the hand-over decides --------------------------------------------------------------- */

static void resume_guest(struct outgoing *o)
{
    if (o->sealed)
        dirty_unseal(o->ram->dirty);
    o->sealed = false;
    if (!o->paused)
        return;
    o->paused = false;
    failpoint(FAILPOINT_SOURCE_RESUME);
    machine_hand_back(o->machine);
    outgoing_report_taken_back(o);
}

/* In doubt the old line decides nothing any more: such words go over the new one, or nowhere. */
static int send_word(struct outgoing *o, enum message_type type)
{
    struct buf out = { 0 };
    int rc;
    if (o->one_way)
        return 0; /* it reads a stream, and no words */
    message_put(&out, type, &o->key, NULL, 0);
    if (type != MESSAGE_GO)
        failpoint(type == MESSAGE_RETRACT ? FAILPOINT_SOURCE_RETRACT : FAILPOINT_SOURCE_DONE);
    if (o->again)
        rc = channel_write_all(o->again, out.data, out.size, (int)outgoing_silence_ms(o), NULL);
    else
        rc = o->doubted && type != MESSAGE_DONE ? -ENOTCONN : pipeline_send(o->pipeline, out.data, out.size, NULL);
    buf_free(&out);
    return rc;
}

static void write_released(struct outgoing *o)
{
    struct err why = { 0 };
    int rc;
    failpoint(FAILPOINT_SOURCE_PREPARED);
    if (o->note_path[0]) { /* made before the pause */
        memcpy(o->released_path, o->note_path, sizeof(o->released_path));
        o->note_path[0] = '\0';
        rc = released_commit(machine_config_of(o->machine), o->released_path, &why);
    } else { /* which failed: now it counts */
        rc = released_write(&o->key, "RELEASED", o->channel->name, machine_config_of(o->machine), o->released_path,
                            &why);
    }
    if (rc < 0) {
        err_set(&o->err, rc, "RELEASED could not be written down: %s", why.text);
        outgoing_feed(o, HANDOVER_WRITE_FAILED);
        return;
    }
    failpoint(FAILPOINT_SOURCE_NOTED);
    machine_pause(o->machine, RUN_POSTMIGRATE); /* from here `cont` is refused */
    outgoing_feed(o, HANDOVER_WRITTEN);
}

static int end_stream(struct outgoing *o)
{
    uint8_t eof = ELEMENT_EOF;
    int rc = pipeline_send(o->pipeline, &eof, 1, &o->err);
    if (rc == 0)
        rc = pipeline_flush(o->pipeline, &o->err);
    return rc < 0 ? rc : channel_finish(o->channel, &o->err);
}

/* Lost or not, only the answer tells. A peer that cannot answer starts at the last byte. */
static void send_go(struct outgoing *o)
{
    failpoint(FAILPOINT_SOURCE_GO);
    if (o->time_ns.go == 0)
        o->time_ns.go = clock_now_ns();
    if (!o->one_way) {
        send_word(o, MESSAGE_GO);
    } else
        outgoing_feed(o, end_stream(o) == 0 ? HANDOVER_TAKEN : HANDOVER_LINK_LOST);
    failpoint(FAILPOINT_SOURCE_GONE);
}

void outgoing_feed(struct outgoing *o, enum handover_event event)
{
    struct handover_step step = handover_step(o->at, event);
    o->at = step.state;
    o->doubted = o->doubted || step.state == SOURCE_UNRESOLVED;
    if (step.actions & DO_FORGET_RELEASED)
        released_forget(o->released_path);
    if (step.actions & DO_SEND_RETRACT)
        o->retract_sent = send_word(o, MESSAGE_RETRACT) == 0;
    if (step.actions & DO_RESUME)
        resume_guest(o);
    if (step.actions & DO_SEND_GO)
        send_go(o);
    if (step.actions & DO_SEND_DONE)
        send_word(o, MESSAGE_DONE); /* lost: the peer waits a while for a question, in vain */
    if (step.actions & DO_WRITE_RELEASED)
        write_released(o);
}

/* Frames of the next round come over lines of their own, and must not be there before the RETRACT. The guest runs
 * meanwhile. False: it has failed. */
static bool wait_retracted(struct outgoing *o)
{
    enum heard heard = return_path_wait(&o->ear, HEARD_RETRACTED, 0, outgoing_silence_ms(o), &o->err);
    o->recall_owed = o->recall_owed && heard != HEARD_RETRACTED;
    return heard == HEARD_RETRACTED || heard == HEARD_INTERRUPT;
}

int outgoing_overrun(struct outgoing *o)
{
    int64_t pause_ns = clock_now_ns() - o->time_ns.requested;
    if (++o->overruns > OVERRUNS_MAX) {
        outgoing_feed(o, HANDOVER_SILENCE);
        return err_set(&o->err, -ETIME, "given up: the pause overran its limit %u times, at last after %.0f ms",
                       o->overruns, (double)pause_ns / NS_PER_MS);
    }
    bool asked = o->at == SOURCE_ASKED;
    outgoing_feed(o, HANDOVER_OVERRUN);
    outgoing_binds(o, false);
    converge_learn(&o->converge, o->predicted_ns, pause_ns);
    o->retract_sent = false;
    migration_set_state(o->m, MIGRATION_ACTIVE);
    lock(&o->m->lock);
    o->m->cancel_softly = false;
    unlock(&o->m->lock);
    bool gone = asked && o->data.count && !wait_retracted(o);
    if (gone && migration_cancelled(o->m))
        err_clear(&o->err); /* of the line that the cancel has cut */
    else if (gone)
        return o->err.code ? o->err.code : -ECONNABORTED;
    if (asked) /* what the peer says to the RETRACT, or said before, is the old attempt's */
        return_path_new_attempt(&o->ear, ++o->key.attempt);
    int rc = outgoing_cancelled(o); /* a soft one has cut nothing that would end the next round */
    return rc < 0 ? rc : OUTGOING_AGAIN;
}

/* --- hand over ---------------------------------------------------------------------------------------------- */

static bool digests_match(struct outgoing *o)
{
    struct section_digest ours;
    outgoing_digest(o, &ours);
    bool match = true;
    lock(&o->ear.lock);
    for (unsigned i = 0; i < ours.sources && match; i++) {
        match = i < o->ear.digests && o->ear.digest[i].id == ours.source[i].id &&
                memcmp(o->ear.digest[i].digest, ours.source[i].digest, sizeof(ours.source[i].digest)) == 0;
        if (!match)
            err_set(&o->err, -EBADMSG, "source %s: what the destination loaded is not what was sent",
                    o->sources[i]->name);
    }
    if (match && o->digest_key) {
        match = o->ear.devices_told && memcmp(o->ear.devices, o->devices_sum, sizeof(o->devices_sum)) == 0;
        if (!match)
            err_set(&o->err, -EBADMSG, "the devices' state that the destination has loaded is not what was sent");
    }
    unlock(&o->ear.lock);
    return match;
}

/* PREPARED is there: from `released` on cancel is refused, so both are decided under one lock. */
static enum handover_event prepared(struct outgoing *o)
{
    o->time_ns.prepared = clock_now_ns();
    if (!digests_match(o))
        return HANDOVER_PREPARED_MISMATCH;
    enum handover_event verified = outgoing_verify(o);
    if (verified != HANDOVER_PREPARED)
        return verified;
    lock(&o->m->lock);
    bool cancel = o->m->cancel;
    o->stayed = o->rehearsal && !cancel;
    if (o->stayed) {
        unlock(&o->m->lock);
        return HANDOVER_REHEARSED;
    }
    o->m->released = !cancel;
    if (!cancel)
        o->m->where = GUEST_UNKNOWN;
    unlock(&o->m->lock);
    return cancel ? HANDOVER_CANCEL : HANDOVER_PREPARED;
}

static enum handover_event event_of(struct outgoing *o, enum heard heard)
{
    switch (heard) {
    case HEARD_PREPARED: return prepared(o);
    case HEARD_RUNNING: failpoint(FAILPOINT_SOURCE_RUNNING); return HANDOVER_RUNNING;
    case HEARD_REFUSED: return HANDOVER_REFUSED;
    case HEARD_CLOSED: return HANDOVER_LINK_LOST;
    case HEARD_SILENCE: return HANDOVER_SILENCE;
    case HEARD_INTERRUPT: return HANDOVER_CANCEL;
    default: return HANDOVER_PEER_ERROR;
    }
}

/* Is PREPARED, or an end of waiting for it, there before the pause has become too long? */
static bool prepared_in_time(struct outgoing *o)
{
    unsigned wanted = HEARD_PREPARED | HEARD_ERROR | HEARD_CLOSED | HEARD_INTERRUPT;
    if (o->overrun_at_ns > clock_now_ns() + outgoing_silence_ms(o) * NS_PER_MS)
        return true; /* a silent peer is noticed first */
    return return_path_wait_until(&o->ear, wanted, o->overrun_at_ns) != 0;
}

int outgoing_hand_over(struct outgoing *o)
{
    while (!handover_ended(o->at)) {
        unsigned wanted = o->at == SOURCE_ASKED ? HEARD_PREPARED : HEARD_RUNNING | HEARD_REFUSED;
        if (o->at == SOURCE_ASKED && !prepared_in_time(o))
            return outgoing_overrun(o);
        if (o->at == SOURCE_UNRESOLVED) {
            if (!outgoing_in_doubt(o))
                return -ECONNABORTED;
            break;
        }
        enum heard heard = return_path_wait(&o->ear, wanted, 0, outgoing_silence_ms(o), &o->err);
        enum handover_event event = event_of(o, heard);
        if (event == HANDOVER_CANCEL && o->at == SOURCE_ASKED)
            err_set(&o->err, -ECANCELED, "migration cancelled");
        if (event == HANDOVER_CANCEL && o->at == SOURCE_RELEASED) {
            /* Only the end of this process interrupts here. GO is on its way: that a peer which is well answers it
             * leaves nobody in doubt. */
            heard = return_path_wait_until(&o->ear, wanted | HEARD_ERROR | HEARD_CLOSED,
                                           clock_now_ns() + ANSWER_MS * NS_PER_MS);
            event = heard ? event_of(o, heard) : HANDOVER_SILENCE;
        }
        outgoing_feed(o, event);
    }
    o->time_ns.running = clock_now_ns();
    return o->at == SOURCE_AWAY || o->stayed ? 0 : o->err.code ? o->err.code : -EREMOTEIO;
}

/* A file is nobody's runner. */
static int end_file(struct outgoing *o)
{
    int rc = end_stream(o);
    if (rc == 0)
        rc = outgoing_cancelled(o);
    if (rc < 0)
        return rc;
    machine_pause(o->machine, RUN_POSTMIGRATE);
    outgoing_feed(o, HANDOVER_STORED);
    return 0;
}

static int end_unanswered(struct outgoing *o)
{
    lock(&o->m->lock);
    bool cancel = o->m->cancel;
    o->m->released = !cancel;
    unlock(&o->m->lock);
    if (cancel)
        return err_set(&o->err, -ECANCELED, "migration cancelled");
    outgoing_feed(o, HANDOVER_UNANSWERED);
    return o->at == SOURCE_AWAY ? 0 : o->err.code;
}

int outgoing_end_one_way(struct outgoing *o)
{
    int rc = o->to_file ? end_file(o) : end_unanswered(o);
    if (rc == 0)
        o->time_ns.prepared = o->time_ns.running = clock_now_ns();
    return rc;
}

/* The failure as a hand-over event: the table says whether the guest may run here again. */
void outgoing_fail(struct outgoing *o)
{
    enum handover_event event = HANDOVER_PEER_ERROR;
    if (o->err.code == -ECANCELED)
        event = HANDOVER_CANCEL;
    else if (o->err.code != -EPROTO)
        event = HANDOVER_LINK_LOST;
    outgoing_feed(o, event);
}
