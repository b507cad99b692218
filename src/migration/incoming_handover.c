/* The destination in the hand-over: what handover.c decides, performed; and the waiting between. On the migrate thread.
 *
 * From PREPARED on the guest is held until the source, or an operator, says what becomes of it. A source that lost its
 * line comes back over another: the listener stays open for it until it has heard how it ended. */
#include "migration/incoming.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "machine/warm.h"

enum {
    KNOCK_MS = 1000,            /* for saying who one is */
    LAST_WORD_MS = 2000,        /* for a source that does not say that it has heard */
    LINGER_MS = 10 * 60 * 1000, /* how long a source that was cut off at the end may come back and ask */
};

int incoming_timeout_ms(struct incoming *i)
{
    return (int)atomic_load_explicit(&i->m->params.peer_timeout_ms, memory_order_relaxed);
}

/* --- performing what the hand-over decides ----------------------------------------------------------------- */

int incoming_say(struct incoming *i, enum message_type type, const void *payload, uint32_t bytes)
{
    if (i->one_way || !i->line)
        return 0;
    struct buf out = { 0 };
    message_put(&out, type, &i->key, payload, bytes);
    int rc = channel_write_all(i->line, out.data, out.size, incoming_timeout_ms(i), &i->err);
    buf_free(&out);
    return rc;
}

static void sentence_to(struct incoming *i, struct channel *line, const struct message_key *key, enum message_type type,
                        const char *sentence)
{
    struct buf out = { 0 };
    message_put_sentence(&out, type, key, sentence);
    channel_write_all(line, out.data, out.size, incoming_timeout_ms(i), NULL);
    buf_free(&out);
}

void incoming_say_sentence(struct incoming *i, enum message_type type, const char *sentence)
{
    if (!i->one_way && i->line)
        sentence_to(i, i->line, &i->key, type, sentence);
}

static void say_prepared(struct incoming *i)
{
    struct buf payload = { 0 };
    if (!i->arrival.prepared_ns)
        i->arrival.prepared_ns = clock_now_ns();
    failpoint(FAILPOINT_TARGET_PREPARED);
    buf_put_be32(&payload, i->source_count);
    for (unsigned s = 0; s < i->source_count; s++) {
        uint64_t digest[2];
        loader_digest(i->loader, s, digest);
        buf_put_be32(&payload, i->sources[s]->id);
        buf_put_be64(&payload, digest[0]);
        buf_put_be64(&payload, digest[1]);
    }
    if (i->digest_key) { /* an older source would not know what it is */
        buf_put_be64(&payload, i->devices_sum[0]);
        buf_put_be64(&payload, i->devices_sum[1]);
    }
    incoming_say(i, MESSAGE_PREPARED, payload.data, (uint32_t)payload.size);
    buf_free(&payload);
    failpoint(FAILPOINT_TARGET_WAIT);
}

static void say_running(struct incoming *i)
{
    uint8_t payload[9];
    failpoint(FAILPOINT_TARGET_RUNNING);
    int64_t start_ns = machine_last_resume_ns(i->machine) - i->go_ns;
    be64_put(payload, start_ns > 0 ? (uint64_t)start_ns : 0);
    payload[8] = machine_state(i->machine) == RUN_RUNNING;
    if (!i->arrival.told_ns)
        i->arrival.told_ns = clock_now_ns();
    incoming_say(i, MESSAGE_RUNNING, payload, sizeof(payload));
    failpoint(FAILPOINT_TARGET_TOLD);
}

static void unload(struct incoming *i)
{
    failpoint(FAILPOINT_TARGET_UNLOAD);
    if (i->machine_touched)
        machine_unload(i->machine);
    i->machine_touched = false;
    if (i->collector)
        sections_collect_reset(i->collector);
    for (unsigned s = 0; s < i->source_count; s++)
        i->progress[s].ended = false;
}

static void start_guest(struct incoming *i)
{
    struct migration *m = i->m;
    assert(!i->rehearsal); /* the table has no way here: two guests would run */
    i->go_ns = clock_now_ns();
    i->arrival.go_ns = i->go_ns;
    incoming_result_begin(i);
    err_clear(&i->err); /* of a line that was lost before */
    failpoint(FAILPOINT_TARGET_GO);
    int rc = failpoint_err(FAILPOINT_TARGET_TAKE, &i->err);
    if (rc == 0)
        rc = lease_check(&i->lease, machine_config_of(i->machine), &i->err);
    if (rc == 0 && m->take)
        rc = m->take(m->take_opaque, &i->err);
    if (rc < 0)
        ;
    else if (i->collector->handover.run && atomic_load_explicit(&m->run_on_arrival, memory_order_relaxed))
        rc = machine_resume(i->machine, true, &i->err);
    else if ((rc = machine_take_disks(i->machine, &i->err)) == 0)
        machine_pause(i->machine, RUN_PAUSED);
    lock(&m->lock);
    m->refused = m->refused || rc < 0;
    unlock(&m->lock);
    if (rc == 0)
        failpoint(FAILPOINT_TARGET_STARTED);
    if (rc == 0)
        ram_want_huge_pages(i->ram);
    if (rc == 0 && machine_state(i->machine) == RUN_RUNNING)
        machine_warm_arrived(i->machine);
    incoming_feed(i, rc < 0 ? HANDOVER_START_FAILED : HANDOVER_STARTED);
    if (rc == 0 &&
        !i->one_way) /* not in the pause, nor in what the source sees of it: whoever asks before finds the lock */
        lease_count_up(machine_config_of(i->machine), &i->key, "runs");
}

void incoming_feed(struct incoming *i, enum handover_event event)
{
    struct handover_step step = handover_step(i->at, event);
    i->at = step.state;
    if (step.actions & DO_UNLOAD)
        unload(i);
    if (event == HANDOVER_LOADED) /* once: what counts up from here on makes this copy stale */
        lease_read(machine_config_of(i->machine), &i->lease);
    if (step.actions & DO_SEND_PREPARED)
        say_prepared(i);
    if (step.actions & DO_START)
        start_guest(i);
    if (step.actions & DO_SEND_RUNNING)
        say_running(i);
    if (step.actions & DO_WRITE_REFUSED)
        released_write(&i->key, "REFUSED", i->channel->name, machine_config_of(i->machine), i->refused_path, NULL);
    if (step.actions & DO_SEND_REFUSED)
        failpoint(FAILPOINT_TARGET_REFUSE);
    if (step.actions & DO_SEND_REFUSED)
        incoming_say_sentence(i, MESSAGE_REFUSED, i->err.text);
    if (step.actions & DO_SEND_RETRACTED)
        failpoint(FAILPOINT_TARGET_RETRACTED);
    if (step.actions & DO_SEND_RETRACTED)
        incoming_say(i, MESSAGE_RETRACTED, NULL, 0);
    if (step.actions & DO_SEND_ERROR)
        incoming_say_sentence(i, MESSAGE_ERROR, i->err.text);
}

/* --- lines -------------------------------------------------------------------------------------------------- */

static void drop_line(struct incoming *i)
{
    migration_hold_channel(i->m, NULL);
    if (i->line == i->channel)
        channel_shutdown(i->line);
    else
        channel_close(i->line);
    i->line = NULL;
}

static void tell_doubt(struct incoming *i)
{
    struct migration *m = i->m;
    struct err err = i->err;
    if (err.code == 0)
        err_set(&err, -ENOTCONN, "the line is gone");
    err_prefix(&err, i->at == TARGET_REFUSED
                         ? "the guest cannot run here, and its source has not heard that (migrate_resolve ends this)"
                         : "the guest is loaded and the source is gone or silent (migrate_resolve ends this)");
    if (i->at != TARGET_REFUSED)
        err_clear(&i->err); /* what becomes of the guest now is another story */
    lock(&m->lock);
    m->error = err;
    m->where = GUEST_UNKNOWN;
    unlock(&m->lock);
    if (!i->in_doubt)
        migration_set_state(m, MIGRATION_UNRESOLVED);
    i->in_doubt = true;
    failpoint(FAILPOINT_TARGET_DOUBT);
}

/* The source is back. From DEVICE on an operator's word is refused: it could cross with GO. One that came before counts. */
static bool take_line(struct incoming *i)
{
    struct migration *m = i->m;
    if (i->in_doubt) {
        migration_set_state(m, MIGRATION_DEVICE);
        i->in_doubt = false;
        lock(&m->lock);
        bool spoken = m->wish != WISH_NONE;
        if (!spoken) {
            err_clear(&m->error);
            m->where = GUEST_THERE;
        }
        unlock(&m->lock);
        if (spoken) {
            tell_doubt(i);
            return false;
        }
    }
    if (i->line)
        drop_line(i);
    incoming_feed(i,
                  HANDOVER_LINK_LOST); /* the old one, if nobody had noticed: this one carries words, but no memory */
    if (i->at != TARGET_REFUSED)
        err_clear(&i->err);
    i->line = i->knock;
    i->knock = NULL;
    migration_hold_channel(m, i->line);
    return true;
}

/* Who is it? True: the source, which has a line again. Everybody else is sent away, and not told the guest's id. */
static bool answer_knock(struct incoming *i)
{
    int rc = message_read(i->knock, false, i->message, KNOCK_MS, NULL);
    if (rc == 0 && i->message->type == MESSAGE_RESUME && message_key_equal(&i->message->key, &i->key) &&
        lines_check(&i->m->lines, i->knock, i->message) && take_line(i))
        return true;
    if (rc == 0) {
        struct message_key key = i->message->key;
        sentence_to(i, i->knock, &key, MESSAGE_REFUSAL, "it has to do with another guest already");
        struct channel_ready ignored; /* closing with unread bytes would take the sentence away from under its eyes */
        while (clock_now_ns() < i->knock_until_ns && /* it may talk for ever, and the source wants to be heard */
               channel_wait_any(NULL, &i->knock, 1, i->m->abort_fd, 0, &ignored) == 0 && ignored.channel[0] &&
               message_read(i->knock, false, i->message, 0, NULL) == 0)
            continue;
    }
    channel_close(i->knock);
    i->knock = NULL;
    return false;
}

/* --- waiting ------------------------------------------------------------------------------------------------ */

/* What is held, told to the source before it lets its guest go. It waits for us, and we for it from now on. A question that
 * makes no sense is answered without a hash. */
static void answer_verify(struct incoming *i)
{
    static struct unit_hash hash[VERIFY_HASHES_MAX]; /* one migrate thread per process */
    struct verify_ranges ranges = { 0 };
    struct buf payload = { 0 };
    bool held = i->at == TARGET_PREPARED || i->at == TARGET_REHEARSED || i->at == TARGET_UNRESOLVED;
    int rc = held ? message_verify_decode(i->message, &ranges) : -EPROTO;
    if (rc == 0 && (ranges.source != 1))
        rc = -EPROTO;
    if (rc == 0)
        rc = verify_check(&ranges, i->sources[ranges.source - 1], NULL);
    if (rc == 0)
        rc = verify_hash(&ranges, i->sources[ranges.source - 1], i->digest_key, hash, NULL);
    message_verified_encode(&ranges, hash, rc == 0 ? ranges.count : 0, &payload);
    incoming_say(i, MESSAGE_VERIFIED, payload.data, (uint32_t)payload.size);
    buf_free(&payload);
    i->asked_ns = clock_now_ns();
}

static int64_t patience_until(struct incoming *i, int64_t until_ns)
{
    int64_t asked_ns = i->asked_ns ? i->asked_ns + incoming_timeout_ms(i) * NS_PER_MS : 0;
    return asked_ns > until_ns ? asked_ns : until_ns;
}

static enum handover_event read_event(struct incoming *i)
{
    struct err why = { 0 };
    int rc = message_read(i->line, false, i->message, incoming_timeout_ms(i), &why);
    if (rc < 0) {
        if (i->at != TARGET_REFUSED)
            err_set(&i->err, rc, "%s", why.text);
        return HANDOVER_LINK_LOST;
    }
    if (!message_key_equal(&i->message->key, &i->key))
        return HANDOVER_EVENTS;
    switch (i->message->type) {
    case MESSAGE_GO: return HANDOVER_GO;
    case MESSAGE_RETRACT: return HANDOVER_RETRACT;
    case MESSAGE_VERIFY: answer_verify(i); return HANDOVER_EVENTS;
    case MESSAGE_DONE: i->done = handover_ended(i->at); return HANDOVER_EVENTS;
    default: return HANDOVER_EVENTS;
    }
}

/* An operator's word counts while people see a doubt. */
static bool operator_says(struct incoming *i, enum handover_event *event, bool *quitting)
{
    struct migration *m = i->m;
    lock(&m->lock);
    enum resolve_wish wish = i->in_doubt ? m->wish : WISH_NONE;
    if (i->in_doubt)
        m->wish = WISH_NONE;
    if (wish != WISH_NONE)
        m->settled_by = "operator";
    *quitting = m->quitting;
    unlock(&m->lock);
    if (wish == WISH_NONE)
        return false;
    *event = wish == WISH_HERE ? HANDOVER_RESOLVE_HERE : HANDOVER_RESOLVE_THERE;
    err_clear(&i->err);
    if (wish == WISH_THERE)
        err_set(&i->err, -ECONNABORTED,
                "the line was lost in the hand-over, and an operator said that the guest is there");
    return true;
}

static int left_ms(struct incoming *i, int64_t until_ns)
{
    if (i->knock && i->knock_until_ns < until_ns)
        until_ns = i->knock_until_ns;
    if (until_ns == INT64_MAX)
        return -1;
    int64_t left_ns = until_ns - clock_now_ns();
    return left_ns <= 0 ? 0 : (int)(left_ns / NS_PER_MS + 1);
}

/* One look at the lines; true with an event, HANDOVER_EVENTS for none. False: somebody wants this thread back. */
static bool look(struct incoming *i, int64_t until_ns, enum handover_event *event)
{
    struct migration *m = i->m;
    struct channel *const lines[] = { i->line, i->knock };
    struct channel_listener *listener = i->peer_can_resume && !i->knock ? m->listener : NULL;
    struct channel_ready ready;
    *event = HANDOVER_EVENTS;
    int rc = channel_wait_any(listener, lines, 2, m->abort_fd, left_ms(i, until_ns), &ready);
    if (i->knock && (rc < 0 || !ready.channel[1]) && clock_now_ns() >= i->knock_until_ns) {
        channel_close(i->knock);
        i->knock = NULL;
    }
    if (rc < 0)
        return rc == -ETIMEDOUT;
    if (ready.abort)
        return i->at != TARGET_RUNS;
    if (ready.channel[0]) {
        *event = read_event(i);
    } else if (i->knock && ready.channel[1]) {
        if (answer_knock(i))
            *event = HANDOVER_ASK;
    } else if (ready.peer && lines_accept(&m->lines, m->listener, m->abort_fd, &i->knock, NULL) == 0) {
        i->knock_until_ns = clock_now_ns() + (int64_t)KNOCK_MS * NS_PER_MS;
        failpoint(FAILPOINT_TARGET_KNOCK);
    }
    return true;
}

/* SILENCE when the time is up. False: this thread is wanted back. */
static bool next_event(struct incoming *i, int64_t until_ns, enum handover_event *event)
{
    *event = HANDOVER_EVENTS;
    while (*event == HANDOVER_EVENTS && !i->done) {
        eventfd_t ignored;
        bool quitting;
        if (i->at != TARGET_RUNS) /* before the look at what it announces */
            eventfd_read(i->m->abort_fd, &ignored);
        if (operator_says(i, event, &quitting))
            return true;
        if (quitting && (!i->line || handover_ended(i->at)))
            return false;
        if (clock_now_ns() >= patience_until(i, until_ns)) {
            *event = HANDOVER_SILENCE;
            return true;
        }
        if (!look(i, patience_until(i, until_ns), event))
            return false;
    }
    return true;
}

bool incoming_hold(struct incoming *i)
{
    incoming_feed(i, i->rehearsal ? HANDOVER_REHEARSED : HANDOVER_LOADED);
    machine_warm_settle(i->machine); /* while PREPARED and GO are on their way */
    while (!handover_ended(i->at) && i->at != TARGET_LOADING) {
        int silence_ms = incoming_timeout_ms(i);
        int64_t until_ns = i->in_doubt ? INT64_MAX : clock_now_ns() + (int64_t)silence_ms * NS_PER_MS;
        enum handover_event event = HANDOVER_GO; /* one way: nobody is there to say it, the last byte did */
        if (!i->one_way && !next_event(i, until_ns, &event))
            return false;
        if (event == HANDOVER_SILENCE)
            err_set(&i->err, -ETIMEDOUT, "%s: it has said nothing for %d ms", i->channel->name, silence_ms);
        incoming_feed(i, event);
        if (event == HANDOVER_LINK_LOST)
            drop_line(i);
        if (!i->rehearsal && (event == HANDOVER_LINK_LOST || event == HANDOVER_SILENCE))
            tell_doubt(i); /* the source may come back, over a new line, or after a silence over the old one */
    }
    i->in_doubt = i->in_doubt && i->at != TARGET_RUNS; /* GO came after a silence, and a question may come yet */
    lock(&i->m->lock);
    i->m->released = i->at != TARGET_LOADING && !i->rehearsal; /* nothing is left to cancel, or everything */
    unlock(&i->m->lock);
    return true;
}

/* --- after the end ------------------------------------------------------------------------------------------ */

/* Let the source read our last word: closing with unread bytes would take it away from under its eyes. */
static void drain_line(struct incoming *i)
{
    static uint8_t ignored[65536]; /* one migrate thread per process */
    int64_t until_ns = clock_now_ns() + (int64_t)LAST_WORD_MS * NS_PER_MS;
    while (clock_now_ns() < until_ns && !migration_cancelled(i->m)) {
        ssize_t got = channel_read(i->line, ignored, sizeof(ignored));
        if (got == -EAGAIN)
            got = channel_wait(i->line, POLLIN, LAST_WORD_MS) == 1 ? 1 : 0;
        if (got <= 0)
            return;
    }
}

void incoming_linger(struct incoming *i)
{
    bool answers = i->peer_can_resume && (i->at == TARGET_RUNS || i->at == TARGET_REFUSED);
    if (i->one_way || !answers)
        incoming_result(i);
    if (i->one_way)
        return;
    if (!answers) {
        if (i->line)
            drain_line(i);
        return;
    }
    if (i->at == TARGET_REFUSED && i->in_doubt) /* by an operator's word it was to run here, and does not: why */
        tell_doubt(i);
    int64_t until_ns = clock_now_ns() + (int64_t)LINGER_MS * NS_PER_MS;
    enum handover_event event;
    while (!i->done && (i->line || i->m->listener) &&
           next_event(i, i->measure_at_ns ? i->measure_at_ns : until_ns, &event)) {
        if (event == HANDOVER_SILENCE && i->measure_at_ns) {
            incoming_result(i);
            continue;
        }
        if (event == HANDOVER_SILENCE)
            break;
        if (event == HANDOVER_RESOLVE_THERE)
            i->done = true; /* it was refused, and an operator told the source */
        incoming_feed(i, event);
        if (event != HANDOVER_LINK_LOST)
            continue;
        drop_line(i);
        if (i->at == TARGET_REFUSED && i->m->listener)
            tell_doubt(i);
    }
    if (i->done)
        incoming_stop_listening(i);
    incoming_result(i);
    if (i->done)
        released_forget(i->refused_path);
}
