/* Words over a new line, when the first one is gone. On the migrate thread.
 *
 * The source in doubt: RELEASED is written, and the peer fell silent. The guest stands still here until somebody knows
 * where it runs. The peer knows, so it is asked over a new line: again and again for reconnect-time, and whenever an
 * operator wishes. Otherwise the operator says.
 *
 * The source that took its guest back, and cannot say so: a peer that has the EOF may be prepared and would hold its copy
 * until a person comes. It is found over a new line and told. */
#include "migration/outgoing.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/failpoint.h"

enum { CONNECT_MS = 5000, INTERVAL_MIN_MS = 50, INTERVAL_MAX_MS = 5000 };

struct doubt {
    struct outgoing *o;
    bool old_line;                          /* still open, and may speak up */
    int64_t until_ns, next_ns, interval_ns; /* asking by ourselves; next_ns INT64_MAX: no more */
    int stop_fd, timer_fd;                  /* readable: the migration's abort_fd is, or a connect takes too long */
    struct message *message;
    struct err last; /* what came of the last try */
};

struct call { /* what ends a wait */
    enum heard heard;
    enum resolve_wish wish;
    bool ask, quitting;
    struct err why; /* of heard */
};

/* --- what people see ------------------------------------------------------------------------------------- */

static void tell(struct doubt *d)
{
    struct migration *m = d->o->m;
    struct err err = d->last;
    err_prefix(&err, "the guest is released and the peer does not say whether it runs (migrate_resolve ends this)");
    lock(&m->lock);
    m->error = err;
    m->reconnecting = d->next_ns != INT64_MAX;
    unlock(&m->lock);
}

static void set_last(struct doubt *d, const struct err *why)
{
    d->last = *why;
    if (d->last.code == 0)
        err_set(&d->last, -ENOTCONN, "the line is gone");
}

/* Whose word it was. */
static void settle(struct outgoing *o, enum handover_event event, const char *by)
{
    outgoing_feed(o, event);
    if (!handover_ended(o->at))
        return;
    lock(&o->m->lock);
    o->m->settled_by = by;
    unlock(&o->m->lock);
}

/* --- waiting --------------------------------------------------------------------------------------------- */

static void look(struct doubt *d, struct call *call)
{
    struct migration *m = d->o->m;
    eventfd_t ignored;
    eventfd_read(m->abort_fd, &ignored); /* before the look: what comes after it wakes us again */
    lock(&m->lock);
    call->wish = m->wish;
    call->ask = m->ask;
    call->quitting = m->quitting;
    m->ask = false;
    unlock(&m->lock);
}

/* Until an operator speaks, the old line does, or it is time to ask again. */
static struct call wait_for_call(struct doubt *d)
{
    struct migration *m = d->o->m;
    struct call call = { 0 };
    if (d->old_line) {
        int64_t left_ns = d->next_ns == INT64_MAX ? -1 : d->next_ns - clock_now_ns();
        int64_t left_ms = left_ns < 0 ? (d->next_ns == INT64_MAX ? -1 : 0) : left_ns / NS_PER_MS + 1;
        call.heard = return_path_wait(&d->o->ear, HEARD_RUNNING | HEARD_REFUSED, 0, left_ms, &call.why);
        d->old_line = !(call.heard & (HEARD_CLOSED | HEARD_ERROR));
    } else {
        lock(&m->lock);
        while (m->wish == WISH_NONE && !m->ask && !m->quitting)
            if (!cond_wait_until(&m->changed, &m->lock, d->next_ns))
                break;
        unlock(&m->lock);
    }
    look(d, &call);
    return call;
}

/* --- asking ---------------------------------------------------------------------------------------------- */

static int connect_again(struct doubt *d, struct channel **out, struct err *why)
{
    struct itimerspec limit = { .it_value = { .tv_sec = CONNECT_MS / 1000, .tv_nsec = CONNECT_MS % 1000 * 1000000 } };
    timerfd_settime(d->timer_fd, 0, &limit, NULL);
    int rc = lines_connect(&d->o->m->lines, d->o->m->uri, d->stop_fd, CONNECT_MS, out, why);
    return rc == -ECANCELED ? err_set(why, rc, "nobody answers") : rc;
}

static int read_word(struct doubt *d, struct channel *line, struct err *why)
{
    int limit_ms = (int)outgoing_silence_ms(d->o);
    for (;;) {
        struct channel_ready ready;
        int rc = channel_wait_any(NULL, &line, 1, d->o->m->abort_fd, limit_ms, &ready);
        if (rc < 0)
            return err_set_errno(why, rc, "%s: no answer", line->name);
        if (ready.abort && !ready.channel[0])
            return err_set(why, -ECANCELED, "interrupted");
        rc = message_read(line, false, d->message, limit_ms, why);
        if (rc < 0 || message_key_equal(&d->message->key, &d->o->key))
            return rc;
    }
}

/* What the peer says, as an event; LINK_LOST with a sentence for everything that settles nothing. */
static enum handover_event hear(struct doubt *d, struct channel *line, struct err *why)
{
    char sentence[MESSAGE_SENTENCE_MAX + 1];
    if (read_word(d, line, why) < 0)
        return HANDOVER_LINK_LOST;
    message_sentence(d->message, sentence, sizeof(sentence));
    switch (d->message->type) {
    case MESSAGE_PREPARED: return HANDOVER_PREPARED;
    case MESSAGE_RUNNING: return HANDOVER_RUNNING;
    case MESSAGE_REFUSED:
        err_clear(&d->o->err);
        err_set(&d->o->err, -EREMOTEIO, "the destination does not start it: %s", sentence);
        return HANDOVER_REFUSED;
    case MESSAGE_REFUSAL: err_set(why, -EREMOTEIO, "the peer: %s", sentence); return HANDOVER_LINK_LOST;
    default:
        err_set(why, -EPROTO, "the peer answers with message type %u", d->message->type);
        return HANDOVER_LINK_LOST;
    }
}

/* The lease has counted on: the guest ran there, or further on by now. Nobody's word makes it run here as well, beside a disk that
 * went on. */
static bool ran_there(struct outgoing *o)
{
    return lease_went_on(machine_config_of(o->machine), o->epoch);
}

static void operator_says(struct outgoing *o, enum resolve_wish wish)
{
    if (wish == WISH_HERE && ran_there(o)) {
        settle(o, HANDOVER_RESOLVE_THERE, "lease");
        return;
    }
    if (wish == WISH_HERE) {
        if (o->epoch) /* first: a copy that is still held there is stale from here on */
            o->epoch = lease_count_up(machine_config_of(o->machine), &o->key, "back");
        o->lease_back = true;
        channel_shutdown(o->channel); /* a GO that still waits to be sent must not leave after the guest runs here */
        err_clear(&o->err);
        err_set(&o->err, -ECONNABORTED,
                "the line was lost in the hand-over, and an operator said that the guest is here");
    }
    settle(o, wish == WISH_HERE ? HANDOVER_RESOLVE_HERE : HANDOVER_RESOLVE_THERE, "operator");
}

/* The peer holds the guest and waits: GO again, unless an operator was quicker. While that is under way the doubt is
 * none that an operator can end: a word that crosses with GO could start the guest twice. */
static void tell_to_start(struct doubt *d, struct channel *line, struct err *why)
{
    struct outgoing *o = d->o;
    struct call call = { 0 };
    migration_set_state(o->m, MIGRATION_DEVICE);
    look(d, &call);
    if (call.wish != WISH_NONE) {
        operator_says(o, call.wish);
        return;
    }
    outgoing_feed(o, HANDOVER_PREPARED);
    enum handover_event answer = hear(d, line, why);
    if (answer == HANDOVER_PREPARED) { /* said before GO came, or by somebody confused: the question is open again */
        err_set(why, -EPROTO, "%s: PREPARED is no answer to GO", line->name);
        answer = HANDOVER_LINK_LOST;
    }
    settle(o, answer, "peer");
    if (!handover_ended(o->at))
        migration_set_state(o->m, MIGRATION_UNRESOLVED);
}

static void ask_peer(struct doubt *d)
{
    struct outgoing *o = d->o;
    struct err why = { 0 };
    struct buf out = { 0 };
    struct channel *line = NULL;
    int rc = failpoint_err(FAILPOINT_SOURCE_AGAIN, &why);
    if (rc == 0)
        rc = connect_again(d, &line, &why);
    if (rc == 0) {
        lines_put(&o->m->lines, line, &out, MESSAGE_RESUME, &o->key, NULL, 0);
        rc = channel_write_all(line, out.data, out.size, (int)outgoing_silence_ms(o), &why);
        buf_free(&out);
    }
    if (rc == 0) {
        enum handover_event event = hear(d, line, &why);
        o->again = line;
        if (event != HANDOVER_LINK_LOST)
            channel_shutdown(o->channel); /* the peer has left the old line too */
        if (event == HANDOVER_PREPARED)
            tell_to_start(d, line, &why);
        else
            settle(o, event, "peer");
        o->again = NULL;
    }
    channel_close(line);
    if (!handover_ended(o->at)) {
        set_last(d, &why);
        tell(d);
    }
}

/* The lease beside the disk's image says so when the guest was started there. It is written a moment behind the start, the lock
 * on the image is taken before: taken, the guest runs. Free, and the lease is still ours, it may not have been started yet, which
 * only a person can tell. */
static void read_lease(struct doubt *d)
{
    struct outgoing *o = d->o;
    struct err why = { 0 };
    if (ran_there(o)) {
        settle(o, HANDOVER_RESOLVE_THERE, "lease");
        return;
    }
    int rc = machine_take_disks(o->machine, &why);
    if (rc == -EBUSY) {
        settle(o, HANDOVER_RESOLVE_THERE, "lease");
        return;
    }
    machine_pause(o->machine, RUN_POSTMIGRATE); /* let go again */
    if (o->epoch) {
        err_clear(&why);
        err_set(&why, -EAGAIN,
                "%s; and the lease beside the disk, at epoch %llu, does not say that the guest was started: somebody "
                "who has looked there must say here or there",
                d->last.text, (unsigned long long)o->epoch);
        set_last(d, &why);
        tell(d);
    }
}

/* --- the doubt -------------------------------------------------------------------------------------------- */

static bool can_reconnect(struct outgoing *o)
{
    return o->peer_can_resume && (strncmp(o->m->uri, "tcp:", 4) == 0 || strncmp(o->m->uri, "unix:", 5) == 0);
}

static int open_fds(struct doubt *d)
{
    d->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    d->stop_fd = epoll_create1(EPOLL_CLOEXEC);
    if (d->timer_fd < 0 || d->stop_fd < 0)
        return -errno;
    struct epoll_event any = { .events = EPOLLIN };
    if (epoll_ctl(d->stop_fd, EPOLL_CTL_ADD, d->timer_fd, &any) < 0 ||
        epoll_ctl(d->stop_fd, EPOLL_CTL_ADD, d->o->m->abort_fd, &any) < 0)
        return -errno;
    return 0;
}

static void close_fds(struct doubt *d)
{
    if (d->timer_fd >= 0)
        close(d->timer_fd);
    if (d->stop_fd >= 0)
        close(d->stop_fd);
}

/* When to ask by ourselves: at once, then at growing intervals, and a last time when the time is over. */
static void plan(struct doubt *d)
{
    int64_t now_ns = clock_now_ns();
    if (now_ns >= d->until_ns) {
        d->next_ns = INT64_MAX;
        return;
    }
    d->next_ns = now_ns + d->interval_ns < d->until_ns ? now_ns + d->interval_ns : d->until_ns;
    int64_t most_ns = (int64_t)INTERVAL_MAX_MS * NS_PER_MS;
    d->interval_ns = 2 * d->interval_ns < most_ns ? 2 * d->interval_ns : most_ns;
}

static void doubt(struct doubt *d, bool askable)
{
    struct outgoing *o = d->o;
    while (!handover_ended(o->at)) {
        struct call call = wait_for_call(d);
        bool due = askable && clock_now_ns() >= d->next_ns;
        if (call.heard == HEARD_RUNNING) {
            settle(o, HANDOVER_RUNNING, "peer");
        } else if (call.heard == HEARD_REFUSED) {
            o->err = call.why;
            settle(o, HANDOVER_REFUSED, "peer");
        } else if (call.wish != WISH_NONE) {
            operator_says(o, call.wish);
        } else if (call.quitting) {
            return;
        } else if (askable && (due || call.ask)) {
            if (due)
                plan(d);
            ask_peer(d);
            if (call.ask && !handover_ended(o->at))
                read_lease(d);
        }
    }
}

bool outgoing_in_doubt(struct outgoing *o)
{
    struct migration *m = o->m;
    struct doubt d = { .o = o, .old_line = true, .interval_ns = INTERVAL_MIN_MS * NS_PER_MS };
    int64_t window_ms = (int64_t)atomic_load_explicit(&m->params.reconnect_ms, memory_order_relaxed);
    bool askable = open_fds(&d) == 0 && can_reconnect(o);
    d.message = calloc(1, sizeof(*d.message));
    assert(d.message);
    d.until_ns = clock_now_ns() + window_ms * NS_PER_MS;
    d.next_ns = askable && window_ms > 0 ? clock_now_ns() : INT64_MAX;
    set_last(&d, &o->err);
    tell(&d);
    lock(&m->lock);
    m->askable = askable;
    unlock(&m->lock);
    migration_set_state(m, MIGRATION_UNRESOLVED);
    failpoint(FAILPOINT_SOURCE_DOUBT);

    doubt(&d, askable);

    lock(&m->lock);
    m->askable = m->reconnecting = false;
    if (handover_ended(o->at))
        err_clear(&m->error); /* the doubt is none any more; what is left of it is in o->err */
    unlock(&m->lock);
    close_fds(&d);
    free(d.message);
    return handover_ended(o->at);
}

/* --- the guest is here ----------------------------------------------------------------------------------------- */

/* Has the peer said that it holds nothing? The ear's thread has ended. */
static bool peer_holds_nothing(const struct outgoing *o)
{
    unsigned heard = o->ear.heard;
    return heard & (HEARD_RETRACTED | HEARD_REFUSED) || (heard & HEARD_ERROR && o->ear.why.code == -EREMOTEIO);
}

/* True: it has heard, or has never held it. */
static bool recall_over(struct doubt *d, struct channel *line)
{
    struct buf out = { 0 };
    lines_put(&d->o->m->lines, line, &out, MESSAGE_RESUME, &d->o->key, NULL, 0);
    message_put(&out, MESSAGE_RETRACT, &d->o->key, NULL, 0);
    int rc = channel_write_all(line, out.data, out.size, (int)outgoing_silence_ms(d->o), NULL);
    buf_free(&out);
    while (rc == 0) {
        rc = read_word(d, line, NULL);
        if (rc == 0 && d->message->type != MESSAGE_PREPARED)
            return true;
    }
    return false;
}

/* False: this thread is wanted back. */
static bool recall_may_wait(struct doubt *d)
{
    struct migration *m = d->o->m;
    eventfd_t ignored;
    lock(&m->lock);
    while (!m->quitting && cond_wait_until(&m->changed, &m->lock, d->next_ns))
        continue;
    bool go_on = !m->quitting;
    if (go_on)
        eventfd_read(m->abort_fd, &ignored); /* a cancel's: who wants this thread back says so above */
    unlock(&m->lock);
    return go_on;
}

void outgoing_recall(struct outgoing *o)
{
    int64_t window_ms = (int64_t)atomic_load_explicit(&o->m->params.reconnect_ms, memory_order_relaxed);
    /* The guest is here again, and its disks go on: a copy that is held without having heard of it is stale from now on. */
    if (o->at == SOURCE_HERE && o->recall_owed && o->epoch && !o->lease_back)
        o->epoch = lease_count_up(machine_config_of(o->machine), &o->key, "back");
    if (o->at != SOURCE_HERE || !o->recall_owed || peer_holds_nothing(o) || !can_reconnect(o) || window_ms == 0)
        return;
    struct doubt d = { .o = o, .interval_ns = INTERVAL_MIN_MS * NS_PER_MS, .timer_fd = -1, .stop_fd = -1 };
    d.next_ns = clock_now_ns();
    d.until_ns = d.next_ns + window_ms * NS_PER_MS;
    d.message = calloc(1, sizeof(*d.message));
    assert(d.message);
    o->key = o->recall;
    bool over = open_fds(&d) < 0;
    while (!over && d.next_ns != INT64_MAX && recall_may_wait(&d)) {
        struct channel *line = NULL;
        plan(&d);
        if (failpoint(FAILPOINT_SOURCE_RECALL) == 0 && connect_again(&d, &line, NULL) == 0)
            over = recall_over(&d, line);
        channel_close(line);
    }
    close_fds(&d);
    free(d.message);
}
