/* The destination's story, top to bottom: accept, hello, load, prepare, wait for GO, run. On the migrate thread.
 *
 * Every byte is hostile until it was checked. From PREPARED on the guest is held until the source, or an operator,
 * says what becomes of it. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "migration/hello.h"
#include "migration/internal.h"
#include "migration/released.h"
#include "migration/sections.h"

enum {
    SOURCES = 1,
    LOADED_EVERY_NS = 10 * 1000000,
    KEEP_ALIVE_MS = 500,
    LOADED_EVERY_MS = 10,
    LAST_WORD_MS = 2000,
    WISH_EVERY_MS = 100
};

struct incoming {
    struct migration *m;
    struct machine *machine;
    struct ram *ram;
    struct source *sources[SOURCES];
    struct channel *channel;
    struct loader *loader;
    struct section_collector *collector;
    struct message *message;
    struct message_key key;
    bool one_way;

    enum handover_state at;
    struct {
        bool started, ended, open_round;
        uint64_t rounds;
    } progress[SOURCES];
    uint64_t told_units, told_rounds; /* in the last LOADED */
    int64_t told_ns, go_ns;
    bool machine_touched;
    char refused_path[RELEASED_PATH_MAX];
    struct err err;
};

static int timeout_ms(struct incoming *i)
{
    return (int)atomic_load_explicit(&i->m->params.peer_timeout_ms, memory_order_relaxed);
}

/* --- talking back ------------------------------------------------------------------------------------------- */

static int say(struct incoming *i, enum message_type type, const void *payload, uint32_t bytes)
{
    if (i->one_way || !i->channel)
        return 0;
    struct buf out = { 0 };
    message_put(&out, type, &i->key, payload, bytes);
    int rc = channel_write_all(i->channel, out.data, out.size, timeout_ms(i), &i->err);
    buf_free(&out);
    return rc;
}

static void say_sentence(struct incoming *i, enum message_type type, const char *sentence)
{
    if (i->one_way || !i->channel)
        return;
    struct buf out = { 0 };
    message_put_sentence(&out, type, &i->key, sentence);
    channel_write_all(i->channel, out.data, out.size, timeout_ms(i), NULL);
    buf_free(&out);
}

static int say_loaded(struct incoming *i)
{
    struct loader_stats stats;
    uint8_t payload[MESSAGE_LOADED_BYTES];
    loader_stats(i->loader, &stats);
    i->told_units = stats.units_data + stats.units_zero;
    i->told_rounds = stats.rounds;
    i->told_ns = clock_now_ns();
    struct message_loaded loaded = {
        .units = i->told_units,
        .wire_bytes = stats.wire_bytes,
        .rounds = stats.rounds,
        .now_ns = (uint64_t)i->told_ns,
    };
    message_loaded_encode(&loaded, payload);
    return say(i, MESSAGE_LOADED, payload, sizeof(payload));
}

/* --- accept and hello ----------------------------------------------------------------------------------------- */

static int accept_peer(struct incoming *i)
{
    struct migration *m = i->m;
    int rc = channel_accept(m->listener, m->abort_fd, &i->channel, &i->err);
    channel_listener_close(m->listener); /* one peer; and the address is free for the next attempt */
    m->listener = NULL;
    if (rc < 0)
        return rc;
    i->one_way = i->channel->stream_local || !i->channel->can_write;
    migration_hold_channel(m, i->channel);
    return migration_cancelled(m) ? err_set(&i->err, -ECANCELED, "migration cancelled") : 0;
}

static int answer_hello(struct incoming *i)
{
    struct hello *hello = calloc(1, sizeof(*hello));
    assert(hello);
    int rc = message_read(i->channel, true, i->message, timeout_ms(i), &i->err);
    if (rc == 0) {
        i->key = i->message->key;
        if (i->message->type != MESSAGE_HELLO)
            rc = err_set(&i->err, -EPROTO, "message type %u where the hello must stand", i->message->type);
    }
    if (rc == 0)
        rc = hello_decode(i->message, HELLO_SOURCE, hello, &i->err);
    if (rc == 0)
        rc = machine_config_match(machine_config_of(i->machine), &hello->machine, &i->err);
    if (rc == 0) {
        struct buf payload = { 0 };
        hello_fill(hello, HELLO_DESTINATION, machine_config_of(i->machine));
        hello_encode(hello, &payload);
        rc = say(i, MESSAGE_HELLO, payload.data, (uint32_t)payload.size);
        buf_free(&payload);
    }
    free(hello);
    return rc;
}

/* A godwit says hello; a file, a pipe or another kind of peer begins with the stream itself. */
static int meet(struct incoming *i)
{
    uint8_t raw[4];
    int rc = channel_read_all(i->channel, raw, sizeof(raw), i->one_way ? -1 : timeout_ms(i), &i->err);
    if (rc < 0)
        return err_prefix(&i->err, "nobody said anything");
    bool magic_seen = be32_get(raw) == STREAM_MAGIC;
    if (magic_seen) {
        i->one_way = true;
    } else if (be32_get(raw) == MESSAGE_MAGIC && !i->one_way) {
        rc = answer_hello(i);
        if (rc < 0)
            return rc;
    } else {
        return err_set(&i->err, -EPROTO, "the stream begins with 0x%08x: it is no migration stream", be32_get(raw));
    }
    return sections_read_begin(i->channel, magic_seen, &i->err);
}

static int begin(struct incoming *i)
{
    struct migration *m = i->m;
    struct loader_options options = {
        .workers = (unsigned)atomic_load_explicit(&m->params.threads, memory_order_relaxed),
        .sources = i->sources,
        .source_count = SOURCES,
        .channel = i->channel,
    };
    int rc = loader_new(&options, &i->loader, &i->err);
    if (rc == 0)
        rc = sections_collect_new(i->machine, &i->collector, &i->err);
    if (rc < 0)
        return rc;
    migration_hold_loader(m, i->loader);
    migration_set_state(m, MIGRATION_ACTIVE);
    return migration_cancelled(m) ? err_set(&i->err, -ECANCELED, "migration cancelled") : 0;
}

/* --- loading ------------------------------------------------------------------------------------------------------ */

/* Until the next element's first byte is there, tell what is loaded: promptly when there is news, slowly when not. */
static int wait_element(struct incoming *i, uint8_t *type)
{
    while (!i->one_way) {
        struct loader_stats stats;
        loader_stats(i->loader, &stats);
        bool news = stats.units_data + stats.units_zero != i->told_units || stats.rounds != i->told_rounds;
        int rc = channel_wait(i->channel, POLLIN, news ? LOADED_EVERY_MS : KEEP_ALIVE_MS);
        if (rc < 0)
            return err_set_errno(&i->err, rc, "waiting for the stream");
        if (rc > 0)
            break;
        rc = say_loaded(i);
        if (rc < 0)
            return rc;
    }
    int rc = channel_read_all(i->channel, type, 1, -1, &i->err);
    return rc < 0 ? err_prefix(&i->err, "the stream ended before its EOF element") : 0;
}

static int find_source(struct incoming *i, const struct section_head *head)
{
    for (int s = 0; s < SOURCES; s++)
        if (i->sources[s]->id == head->id)
            return s;
    return err_set(&i->err, -EPROTO, "section %u: element 0x%02x for a source that was never started", head->id,
                   head->type);
}

static int read_start(struct incoming *i, const struct section_head *head)
{
    int s = 0;
    while (s < SOURCES && strcmp(i->sources[s]->name, head->name) != 0)
        s++;
    if (s == SOURCES || head->instance != 0)
        return err_set(&i->err, -EPROTO, "section %s, instance %u: this machine has no such source", head->name,
                       head->instance);
    if (head->id != i->sources[s]->id)
        return err_set(&i->err, -EPROTO, "section %s: id %u, expected %u", head->name, head->id, i->sources[s]->id);
    if (i->progress[s].started)
        return err_set(&i->err, -EPROTO, "section %s: it was started twice", head->name);
    i->progress[s].started = true;
    return sections_read_blocks(i->channel, head, i->ram, &i->err);
}

static int read_part(struct incoming *i, const struct section_head *head)
{
    int s = find_source(i, head);
    if (s < 0)
        return s;
    if (!i->progress[s].started || i->progress[s].ended)
        return err_set(&i->err, -EPROTO, "section %s: a part %s", i->sources[s]->name,
                       i->progress[s].ended ? "after its end" : "before its start");
    bool mark = false;
    int rc = loader_frame(i->loader, head->id, &mark, &i->err);
    if (rc < 0)
        return rc;
    /* A mark closes the round of all sources: its counts were checked for each of them. */
    for (int each = 0; each < SOURCES; each++) {
        i->progress[each].open_round = mark ? false : i->progress[each].open_round || each == s;
        i->progress[each].rounds += mark;
    }
    if (i->one_way || (!mark && clock_now_ns() - i->told_ns < LOADED_EVERY_NS))
        return 0;
    return say_loaded(i);
}

static int read_end(struct incoming *i, const struct section_head *head)
{
    uint64_t rounds;
    int s = find_source(i, head);
    int rc = s < 0 ? s : sections_read_end(i->channel, head, &rounds, &i->err);
    if (rc < 0)
        return rc;
    const char *name = i->sources[s]->name;
    if (!i->progress[s].started || i->progress[s].ended)
        return err_set(&i->err, -EPROTO, "section %s: an end %s", name,
                       i->progress[s].ended ? "for the second time" : "before its start");
    if (i->progress[s].open_round || i->progress[s].rounds == 0 || i->progress[s].rounds != rounds)
        return err_set(&i->err, -EPROTO, "section %s: its end names %" PRIu64 " rounds, %" PRIu64 " were closed%s",
                       name, rounds, i->progress[s].rounds, i->progress[s].open_round ? " and one is open" : "");
    i->progress[s].ended = true;
    return 0;
}

static int read_element(struct incoming *i, uint8_t type)
{
    struct section_head head;
    if (type != ELEMENT_START && type != ELEMENT_PART && type != ELEMENT_END && type != ELEMENT_FULL)
        return err_set(&i->err, -EPROTO, "element 0x%02x: it has no meaning here", type);
    int rc = sections_read_head(i->channel, type, &head, &i->err);
    if (rc < 0)
        return rc;
    switch (type) {
    case ELEMENT_START: rc = read_start(i, &head); break;
    case ELEMENT_PART: rc = read_part(i, &head); break;
    case ELEMENT_END: rc = read_end(i, &head); break;
    default: rc = sections_collect(i->collector, i->channel, &head, machine_config_of(i->machine), &i->err);
    }
    return rc < 0 ? rc : sections_read_footer(i->channel, &head, &i->err);
}

static int check_digest(struct incoming *i)
{
    const struct section_digest *theirs = &i->collector->digest;
    if (theirs->sources != SOURCES)
        return err_set(&i->err, -EPROTO, "section %s: %u sources, this machine has %d", section_digest_state.name,
                       theirs->sources, SOURCES);
    for (unsigned s = 0; s < SOURCES; s++) {
        uint64_t ours[2];
        loader_digest(i->loader, s, ours);
        if (theirs->source[s].id != i->sources[s]->id || memcmp(theirs->source[s].digest, ours, sizeof(ours)) != 0)
            return err_set(&i->err, -EPROTO, "section %s: what was loaded of %s is not what was sent",
                           section_digest_state.name, i->sources[s]->name);
    }
    return 0;
}

/* EOF: everything that can fail happens here, before PREPARED. */
static int complete(struct incoming *i)
{
    for (int s = 0; s < SOURCES; s++)
        if (!i->progress[s].ended)
            return err_set(&i->err, -EPROTO, "section %s: the stream ended without its end", i->sources[s]->name);
    int rc = sections_complete(i->collector, &i->err);
    if (rc == 0)
        rc = loader_barrier(i->loader, &i->err);
    if (rc == 0)
        rc = check_digest(i);
    if (rc < 0)
        return rc;
    i->machine_touched = true;
    rc = sections_apply(i->collector, &i->err);
    if (rc == 0)
        machine_loaded(i->machine);
    return rc;
}

static int load(struct incoming *i)
{
    for (;;) {
        uint8_t type = ELEMENT_EOF;
        int rc = wait_element(i, &type);
        if (rc == 0 && type == ELEMENT_EOF)
            return complete(i);
        if (rc == 0)
            rc = read_element(i, type);
        if (rc < 0)
            return rc;
    }
}

/* --- performing what the hand-over decides ------------------------------------------------------------------------- */

static void feed(struct incoming *i, enum handover_event event);

static void say_prepared(struct incoming *i)
{
    struct buf payload = { 0 };
    buf_put_be32(&payload, SOURCES);
    for (unsigned s = 0; s < SOURCES; s++) {
        uint64_t digest[2];
        loader_digest(i->loader, s, digest);
        buf_put_be32(&payload, i->sources[s]->id);
        buf_put_be64(&payload, digest[0]);
        buf_put_be64(&payload, digest[1]);
    }
    say(i, MESSAGE_PREPARED, payload.data, (uint32_t)payload.size);
    buf_free(&payload);
}

static void say_running(struct incoming *i)
{
    uint8_t payload[9];
    int64_t start_ns = machine_last_resume_ns(i->machine) - i->go_ns;
    be64_put(payload, start_ns > 0 ? (uint64_t)start_ns : 0);
    payload[8] = machine_state(i->machine) == RUN_RUNNING;
    say(i, MESSAGE_RUNNING, payload, sizeof(payload));
}

static void unload(struct incoming *i)
{
    if (i->machine_touched)
        machine_unload(i->machine);
    i->machine_touched = false;
    if (i->collector)
        sections_collect_reset(i->collector);
    for (int s = 0; s < SOURCES; s++)
        i->progress[s].ended = false;
}

static void start_guest(struct incoming *i)
{
    int rc = 0;
    i->go_ns = clock_now_ns();
    if (i->collector->handover.run && atomic_load_explicit(&i->m->run_on_arrival, memory_order_relaxed))
        rc = machine_resume(i->machine, true, &i->err);
    else
        machine_pause(i->machine, RUN_PAUSED);
    feed(i, rc < 0 ? HANDOVER_START_FAILED : HANDOVER_STARTED);
}

static void feed(struct incoming *i, enum handover_event event)
{
    struct handover_step step = handover_step(i->at, event);
    i->at = step.state;
    if (step.actions & DO_UNLOAD)
        unload(i);
    if (step.actions & DO_SEND_PREPARED)
        say_prepared(i);
    if (step.actions & DO_START)
        start_guest(i);
    if (step.actions & DO_SEND_RUNNING)
        say_running(i);
    if (step.actions & DO_WRITE_REFUSED)
        released_write(&i->key, "REFUSED", i->channel->name, i->refused_path, NULL);
    if (step.actions & DO_SEND_REFUSED)
        say_sentence(i, MESSAGE_REFUSED, i->err.text);
    if (step.actions & DO_SEND_RETRACTED)
        say(i, MESSAGE_RETRACTED, NULL, 0);
    if (step.actions & DO_SEND_ERROR)
        say_sentence(i, MESSAGE_ERROR, i->err.text);
}

/* --- holding the guest ------------------------------------------------------------------------------------------------ */

static enum handover_event read_event(struct incoming *i)
{
    for (;;) {
        struct err why = { 0 };
        int rc = message_read(i->channel, false, i->message, timeout_ms(i), &why);
        if (rc < 0) {
            err_set(&i->err, rc, "%s", why.text);
            return HANDOVER_LINK_LOST;
        }
        if (!message_key_equal(&i->message->key, &i->key))
            continue;
        switch (i->message->type) {
        case MESSAGE_GO: return HANDOVER_GO;
        case MESSAGE_RETRACT: return HANDOVER_RETRACT;
        case MESSAGE_ASK: return HANDOVER_ASK;
        default: continue;
        }
    }
}

/* While there is a line nobody signals what an operator says: look now and then. Without one, wait for it. False: this
 * process ends. */
static bool wish_of(struct incoming *i, bool wait, enum resolve_wish *wish)
{
    struct migration *m = i->m;
    lock(&m->lock);
    while (wait && m->wish == WISH_NONE && !m->quitting)
        cond_wait(&m->changed, &m->lock);
    *wish = i->at == TARGET_UNRESOLVED ? m->wish : WISH_NONE;
    bool quitting = m->quitting;
    unlock(&m->lock);
    return *wish != WISH_NONE || !quitting;
}

/* What happens next to a guest that is held. HANDOVER_EVENTS: the end of this process. */
static enum handover_event held_event(struct incoming *i, bool *line)
{
    int64_t since_ns = clock_now_ns();
    for (;;) {
        enum resolve_wish wish;
        if (!wish_of(i, !*line, &wish))
            return HANDOVER_EVENTS;
        if (wish != WISH_NONE)
            return wish == WISH_HERE ? HANDOVER_RESOLVE_HERE : HANDOVER_RESOLVE_THERE;
        if (channel_wait(i->channel, POLLIN, WISH_EVERY_MS) != 0) {
            enum handover_event event = read_event(i);
            *line = event != HANDOVER_LINK_LOST;
            return event;
        }
        if (i->at == TARGET_PREPARED && clock_now_ns() - since_ns > timeout_ms(i) * NS_PER_MS) {
            err_set(&i->err, -ETIMEDOUT, "%s: it has said nothing for %d ms", i->channel->name, timeout_ms(i));
            return HANDOVER_SILENCE;
        }
    }
}

/* The guest is whole, and whose it is cannot be said here: for an operator, or for a source that comes back to life. */
static void say_unresolved(struct incoming *i)
{
    struct err err = i->err;
    err_clear(&i->err);
    err_prefix(&err, "the guest is loaded and the source is gone or silent (migrate_resolve ends this)");
    migration_set_error(i->m, &err);
    migration_set_where(i->m, GUEST_UNKNOWN);
    migration_set_state(i->m, MIGRATION_UNRESOLVED);
}

/* From PREPARED on a cancel would drop what may be the only copy: refused before that is said. */
static bool seal(struct incoming *i)
{
    lock(&i->m->lock);
    bool cancel = i->m->cancel;
    i->m->released = !cancel;
    unlock(&i->m->lock);
    return !cancel;
}

/* From PREPARED to an end, or back to loading. False: this process ends while in doubt. */
static bool hold(struct incoming *i)
{
    bool line = true;
    while (!handover_ended(i->at) && i->at != TARGET_LOADING) {
        /* Where nobody is there to say GO, the last byte did. */
        enum handover_event event = i->one_way ? HANDOVER_GO : held_event(i, &line);
        if (event == HANDOVER_EVENTS)
            return false;
        enum handover_state before = i->at;
        feed(i, event);
        if (i->at == TARGET_UNRESOLVED && before != TARGET_UNRESOLVED)
            say_unresolved(i);
    }
    lock(&i->m->lock);
    i->m->released = false;
    unlock(&i->m->lock);
    return true;
}

/* --- the end ---------------------------------------------------------------------------------------------------------- */

/* Let the source read our last word: closing with unread bytes would take it away from under its eyes. */
static void drain_line(struct incoming *i)
{
    static uint8_t ignored[65536]; /* one migrate thread per process */
    int64_t until_ns = clock_now_ns() + LAST_WORD_MS * NS_PER_MS;
    while (!i->one_way && clock_now_ns() < until_ns && !migration_cancelled(i->m)) {
        ssize_t got = channel_read(i->channel, ignored, sizeof(ignored));
        if (got == -EAGAIN)
            got = channel_wait(i->channel, POLLIN, LAST_WORD_MS) == 1 ? 1 : 0;
        if (got <= 0)
            return;
    }
}

static void report_end(struct incoming *i)
{
    struct migration *m = i->m;
    if (i->at == TARGET_RUNS) {
        lock(&m->lock);
        err_clear(&m->error);
        m->where = GUEST_HERE;
        m->rounds = i->progress[0].rounds;
        unlock(&m->lock);
        migration_set_state(m, MIGRATION_COMPLETED);
        return;
    }
    bool in_doubt = !handover_ended(i->at);
    if (in_doubt)
        return; /* UNRESOLVED was said already */
    migration_set_error(m, &i->err);
    migration_set_where(m, GUEST_THERE);
    migration_set_state(m, i->err.code == -ECANCELED ? MIGRATION_CANCELLED : MIGRATION_FAILED);
}

static enum handover_event failure_of(const struct err *err)
{
    switch (err->code) {
    case -ECANCELED: return HANDOVER_CANCEL;
    case -EPIPE:
    case -ECONNRESET: return HANDOVER_LINK_LOST;
    default: return HANDOVER_LOAD_FAILED;
    }
}

/* Load and hold until the guest is here, refused, or gone. */
static void arrive(struct incoming *i)
{
    while (!handover_ended(i->at)) {
        int rc = load(i);
        if ((rc < 0 && migration_cancelled(i->m)) || (rc == 0 && !seal(i))) {
            err_clear(&i->err);
            rc = err_set(&i->err, -ECANCELED, "migration cancelled");
        }
        if (rc < 0) {
            feed(i, failure_of(&i->err));
            return;
        }
        migration_set_state(i->m, MIGRATION_DEVICE);
        feed(i, HANDOVER_LOADED);
        if (!hold(i))
            return;
        if (i->at == TARGET_LOADING) { /* RETRACT: the source goes on, and so do we, under the next number */
            i->key.attempt++;
            migration_set_state(i->m, MIGRATION_ACTIVE);
        }
    }
    if (i->err.code == 0 && i->at == TARGET_EMPTY)
        err_set(&i->err, -ECONNABORTED, "the source took the guest back");
}

void incoming_run(struct migration *m)
{
    struct incoming *i = calloc(1, sizeof(*i));
    assert(i);
    i->m = m;
    i->machine = m->machine;
    i->ram = machine_ram(m->machine);
    i->sources[0] = m->ram;
    i->at = TARGET_LOADING;
    i->message = calloc(1, sizeof(*i->message));
    assert(i->message);

    int rc = accept_peer(i);
    if (rc == 0)
        rc = meet(i);
    if (rc == 0)
        rc = begin(i);
    if (rc == 0) {
        arrive(i);
    } else {
        i->at = TARGET_EMPTY;
        say_sentence(i, MESSAGE_REFUSAL, i->err.text);
    }
    /* A failure is told when the source has heard of it: who hears of it here may end this process. */
    bool runs = i->at == TARGET_RUNS;
    if (runs)
        report_end(i);
    else if (i->err.code != -ECANCELED)
        channel_explain(i->channel, &i->err);
    if (i->channel && i->err.code != -ECANCELED && handover_ended(i->at))
        drain_line(i);
    if (!runs)
        report_end(i);
    migration_hold_loader(m, NULL);
    loader_free(i->loader);
    sections_collect_free(i->collector);
    migration_hold_channel(m, NULL);
    channel_close(i->channel);
    free(i->message);
    free(i);
}
