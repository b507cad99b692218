/* The destination's story, top to bottom: accept, hello, load, prepare, wait for GO, run. On the migrate thread.
 *
 * Every byte is hostile until it was checked. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/sandbox.h"
#include "machine/warm.h"
#include "migration/hello.h"
#include "migration/hot_code.h"
#include "migration/rehearse.h"
#include "migration/sources.h"

enum { LOADED_EVERY_NS = 10 * 1000000, KEEP_ALIVE_MS = 500, LOADED_EVERY_MS = 10 };
enum { TLS_HELLO_MAGIC = 0x1603 };       /* a handshake record, RFC 8446 section 5.1 */
enum { MET_ANOTHER = 1, MET_PROBE = 2 }; /* instead of 0: not the source that is waited for; one that only asks */

/* --- talking back ------------------------------------------------------------------------------------------- */

int incoming_say_loaded(struct incoming *i)
{
    struct loader_stats stats;
    uint8_t payload[MESSAGE_LOADED_BYTES];
    loader_stats(i->loader, &stats);
    i->told_units = stats.units_data + stats.units_zero;
    i->told_rounds = stats.rounds;
    i->told_ns = clock_now_ns();
    int rc = failpoint_err(FAILPOINT_TARGET_LOADED, &i->err);
    struct message_loaded loaded = {
        .units = i->told_units,
        .wire_bytes = stats.wire_bytes,
        .rounds = stats.rounds,
        .now_ns = (uint64_t)i->told_ns,
        .waited_ns = stats.waited_ns,
    };
    incoming_disks_say(i);
    message_loaded_encode(&loaded, payload);
    uint32_t bytes = i->peer_hears_waits ? MESSAGE_LOADED_BYTES : MESSAGE_LOADED_BYTES_SHORT;
    return rc < 0 ? rc : incoming_say(i, MESSAGE_LOADED, payload, bytes);
}

/* --- accept and hello ----------------------------------------------------------------------------------------- */

static int accept_peer(struct incoming *i)
{
    struct migration *m = i->m;
    /* On an inherited line nobody has called yet, as little as where we listen. */
    int patience_ms = strncmp(m->uri, "fd:", 3) == 0 ? -1 : incoming_timeout_ms(i);
    int rc = lines_answer(&m->lines, m->listener, m->abort_fd, patience_ms, &i->channel, migration_refused, m, &i->err);
    if (rc < 0)
        return rc;
    lines_bind(&m->lines, i->channel);
    i->line = i->channel;
    i->one_way = i->channel->stream_local || !i->channel->can_write;
    migration_hold_channel(m, i->channel);
    return migration_cancelled(m) ? err_set(&i->err, -ECANCELED, "migration cancelled") : 0;
}

static int answer_hello(struct incoming *i)
{
    struct hello *hello = calloc(1, sizeof(*hello));
    assert(hello);
    int rc = failpoint_err(FAILPOINT_TARGET_HELLO, &i->err);
    if (rc == 0)
        rc = message_read(i->channel, true, i->message, incoming_timeout_ms(i), &i->err);
    if (rc == 0) {
        i->key = i->message->key;
        if (i->message->type == MESSAGE_RESUME || i->message->type == MESSAGE_CHANNEL)
            rc = MET_ANOTHER;
        else if (i->message->type != MESSAGE_HELLO)
            rc = err_set(&i->err, -EPROTO, "message type %u where the hello must stand", i->message->type);
    }
    if (rc == 0)
        rc = hello_decode(i->message, HELLO_SOURCE, hello, &i->err);
    i->peer_can_resume = rc == 0 && hello->capabilities & HELLO_CAN_RESUME;
    i->peer_hears_waits = rc == 0 && hello->capabilities & HELLO_CAN_HEAR_WAITS;
    i->peer_hears_result = rc == 0 && hello->capabilities & HELLO_CAN_HEAR_RESULT;
    i->key_bytes = hello->key;
    i->digest_key = rc == 0 && hello->capabilities & HELLO_CAN_KEY ? &i->key_bytes : NULL;
    i->rehearsal = rc == 0 && hello->capabilities & HELLO_REHEARSAL;
    i->probe = rc == 0 && hello->capabilities & HELLO_PROBE;
    i->peer_sends_disks = rc == 0 && hello->capabilities & HELLO_DISKS;
    if ((i->rehearsal || i->probe) && !channel_listener_open(i->m->listener))
        rc = err_set(&i->err, -EINVAL, "%s can be called once only: nobody could come after a rehearsal or a plan",
                     i->m->uri);
    if (rc == 0)
        rc = machine_config_match(machine_config_of(i->machine), &hello->machine, &i->err);
    if (rc == 0)
        rc = failpoint_err(FAILPOINT_TARGET_MET, &i->err);
    i->data_wanted = rc == 0 && hello->channels > 1 ? hello->channels : 0;
    if (rc == 0 && i->data_wanted && !channel_listener_open(i->m->listener))
        rc = err_set(&i->err, -ENOTCONN, "%s is one connection, and the source wants %u data channels beside it",
                     i->channel->name, i->data_wanted);
    if (rc == 0) {
        struct buf payload = { 0 };
        hello_fill(hello, HELLO_DESTINATION, machine_config_of(i->machine));
        hello->capabilities |= HELLO_DISKS;
        if (source_ram_is_fresh(i->sources[0]))
            hello->capabilities |= HELLO_IS_FRESH;
        if (machine_jit(i->machine))
            hello->capabilities |= HELLO_CAN_WARM;
        hello_encode(hello, &payload);
        rc = incoming_say(i, MESSAGE_HELLO, payload.data, (uint32_t)payload.size);
        buf_free(&payload);
    }
    free(hello);
    return rc;
}

/* A source that looks for its guest, which somebody held at this address before us. It hears so, and we wait on. */
static void send_away(struct incoming *i)
{
    incoming_say_sentence(i, MESSAGE_REFUSAL, "it holds no guest, and waits for one");
    migration_hold_channel(i->m, NULL);
    channel_close(i->channel);
    i->channel = i->line = NULL;
    err_clear(&i->err);
}

/* A godwit says hello; a file, a pipe or another kind of peer begins with the stream itself. */
static int meet(struct incoming *i)
{
    uint8_t raw[4];
    /* On an inherited line nobody has called yet, as little as where we listen: waiting for the call has no limit. */
    bool called = !i->one_way && strncmp(i->m->uri, "fd:", 3) != 0;
    int rc = channel_read_all(i->channel, raw, sizeof(raw), called ? incoming_timeout_ms(i) : -1, &i->err);
    if (rc < 0)
        return err_prefix(&i->err, "nobody said anything");
    bool magic_seen = be32_get(raw) == STREAM_MAGIC;
    if (magic_seen) {
        /* A file, a pipe or a command is this user's own, and may take its time; who calls here may be anybody. */
        i->channel->silence_ms = channel_listener_open(i->m->listener) ? incoming_timeout_ms(i) : 0;
        i->one_way = true;
    } else if (be32_get(raw) == MESSAGE_MAGIC && !i->one_way) {
        i->channel->silence_ms = incoming_timeout_ms(i);
        rc = answer_hello(i);
        if (rc == 0 && i->probe)
            rc = MET_PROBE;
        if (rc == 0)
            rc = channels_gather(&i->m->lines, i->m->listener, i->channel, i->m->abort_fd, &i->key, i->data_wanted,
                                 incoming_timeout_ms(i), &i->data, &i->err);
        if (rc != 0)
            return rc;
    } else if (be32_get(raw) >> 16 == TLS_HELLO_MAGIC) {
        return err_set(&i->err, -EPROTO, "the peer speaks TLS, and tls-creds is not set here");
    } else {
        return err_set(&i->err, -EPROTO, "the stream begins with 0x%08x: it is no migration stream", be32_get(raw));
    }
    return sections_read_begin(i->channel, magic_seen, &i->err);
}

void incoming_stop_listening(struct incoming *i)
{
    channel_listener_close(i->m->listener);
    i->m->listener = NULL;
}

/* Where the socket that it listens on lies, which it removes in the end; "" nowhere. */
static void socket_folder(struct migration *m, char *out, size_t out_size)
{
    const char *path = strncmp(m->listening, "unix:", 5) == 0 ? m->listening + 5 : NULL;
    const char *slash = path ? strrchr(path, '/') : NULL;
    if (!path)
        out[0] = '\0';
    else if (!slash)
        snprintf(out, out_size, ".");
    else
        snprintf(out, out_size, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

/* From here on this thread, and those that it starts, can open nothing but notes and the guest's disks. */
static int confine(struct incoming *i)
{
    const struct machine_config *config = machine_config_of(i->machine);
    struct sandbox_kept kept = { 0 };
    char folder[RELEASED_PATH_MAX], lease[MACHINE_DRIVES_MAX][LEASE_PATH_MAX];
    struct err err = { 0 };
    _Static_assert(2 * (int)MACHINE_DRIVES_MAX <= (int)SANDBOX_FILES_MAX,
                   "images that are opened to write at the hand-over, and what is beside them");
    if (i->one_way || i->m->confined || i->m->sandbox == MIGRATION_SANDBOX_OFF)
        return 0;
    if (released_folder(folder, sizeof(folder)) == 0)
        kept.folder = folder;
    for (unsigned d = 0; d < config->drives; d++)
        kept.file[kept.files++] = config->drive[d].file;
    for (unsigned d = 0; d < config->drives; d++)
        if (lease_make(&config->drive[d], lease[d]) == 0)
            kept.file[kept.files++] = lease[d];
    socket_folder(i->m, kept.remove_in, sizeof(kept.remove_in));
    int rc = sandbox_enter(SANDBOX_READER, &kept, &err);
    if (rc < 0 && i->m->sandbox == MIGRATION_SANDBOX_MUST)
        return err_set(&i->err, rc, "%s", err.text);
    i->m->confined = true;
    return 0;
}

static int begin(struct incoming *i)
{
    struct migration *m = i->m;
    if (!i->rehearsal && (!i->peer_can_resume || !channel_listener_open(m->listener)))
        incoming_stop_listening(i); /* one peer, which will not come back: the address is free for the next */
    struct loader_options options = {
        .workers = (unsigned)atomic_load_explicit(&m->params.threads, memory_order_relaxed),
        .sources = i->sources,
        .source_count = i->source_count,
        .channel = i->channel,
        .confined = !i->one_way && m->sandbox != MIGRATION_SANDBOX_OFF,
        .silence_ms = i->channel->silence_ms,
        .data = i->data.data,
        .data_count = i->data.count,
        .key = i->digest_key,
    };
    /* The source has its disks until it lets the guest go. A file's or a pipe's need not be there any more. */
    int rc = i->one_way || i->peer_sends_disks ? 0 : machine_disks_shared(i->machine, &i->err);
    if (rc == 0)
        rc = confine(i);
    if (rc == 0)
        rc = loader_new(&options, &i->loader, &i->err);
    if (rc == 0)
        rc = sections_collect_new(i->machine, &i->collector, &i->err);
    if (rc == 0)
        rc = machine_warm_begin(i->machine, &i->err);
    if (rc < 0)
        return rc;
    migration_hold_loader(m, i->loader);
    migration_set_state(m, MIGRATION_ACTIVE);
    return migration_cancelled(m) ? err_set(&i->err, -ECANCELED, "migration cancelled") : 0;
}

/* --- loading ------------------------------------------------------------------------------------------------------ */

/* Is there something that the source has not been told, or has it heard nothing for long? */
static bool has_news(struct incoming *i)
{
    struct loader_stats stats;
    loader_stats(i->loader, &stats);
    return stats.units_data + stats.units_zero != i->told_units || stats.rounds != i->told_rounds ||
           clock_now_ns() - i->told_ns >= KEEP_ALIVE_MS * NS_PER_MS - LOADED_EVERY_NS; /* poll() may be early */
}

/* Until the next element's first byte is there, tell what is loaded: promptly when there is news, slowly when not. */
static int wait_element(struct incoming *i, uint8_t *type)
{
    while (!i->one_way) {
        bool told = !has_news(i);
        /* What comes over data channels is no news here until somebody looks. */
        int rc = loader_wait(i->loader, told && !i->data.count ? KEEP_ALIVE_MS : LOADED_EVERY_MS);
        if (rc < 0)
            return loader_error(i->loader, &i->err) < 0 ? i->err.code
                                                        : err_set_errno(&i->err, rc, "waiting for the stream");
        if (rc > 0)
            break;
        rc = has_news(i) ? incoming_say_loaded(i) : 0;
        if (rc < 0)
            return rc;
    }
    int rc = channel_read_all(i->channel, type, 1, -1, &i->err);
    return rc < 0 ? err_prefix(&i->err, "the stream ended before its EOF element") : 0;
}

static int find_source(struct incoming *i, const struct section_head *head)
{
    for (unsigned s = 0; s < i->source_count; s++)
        if (i->sources[s]->id == head->id)
            return (int)s;
    return err_set(&i->err, -EPROTO, "section %u: element 0x%02x for a source that was never started", head->id,
                   head->type);
}

static int read_start(struct incoming *i, const struct section_head *head)
{
    const int s = 0; /* disks are announced in front of it */
    if (strcmp(head->name, SECTION_DISK_NAME) == 0)
        return incoming_disk_start(i, head);
    if (strcmp(i->sources[s]->name, head->name) != 0 || head->instance != 0)
        return err_set(&i->err, -EPROTO, "section %s, instance %u: this machine has no such source", head->name,
                       head->instance);
    if (head->id != i->sources[s]->id)
        return err_set(&i->err, -EPROTO, "section %s: id %u, expected %u", head->name, head->id, i->sources[s]->id);
    if (i->progress[s].started)
        return err_set(&i->err, -EPROTO, "section %s: it was started twice", head->name);
    i->progress[s].started = true;
    int rc = sections_read_blocks(i->channel, head, i->ram, &i->err);
    if (rc == 0)
        rc = incoming_disks_all(i);
    return rc == 0 ? loader_receive(i->loader, &i->err) : rc;
}

/* The mark may be here long before what it closes, which comes over the data channels: the source hears how that goes. */
static int close_round(struct incoming *i)
{
    bool closed = false;
    uint64_t loaded = 0;
    int64_t since_ns = clock_now_ns();
    for (;;) {
        int rc = loader_round_wait(i->loader, LOADED_EVERY_MS, &closed, &i->err);
        if (rc == 0 && !closed && !i->one_way && has_news(i))
            rc = incoming_say_loaded(i);
        if (rc < 0 || closed)
            return rc;
        /* One of several lines may be dead, and nobody but us can notice: what it carries was sent long ago. */
        struct loader_stats stats;
        loader_stats(i->loader, &stats);
        if (stats.wire_bytes != loaded)
            since_ns = clock_now_ns();
        loaded = stats.wire_bytes;
        if (clock_now_ns() - since_ns > incoming_timeout_ms(i) * NS_PER_MS)
            return err_set(&i->err, -ETIMEDOUT,
                           "a round has ended, and for %d ms nothing came of what is missing of it",
                           incoming_timeout_ms(i));
    }
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
    if (rc == 0 && mark)
        rc = close_round(i);
    if (rc < 0)
        return rc;
    /* A mark closes the round of all sources: its counts were checked for each of them. */
    for (unsigned each = 0; each < i->source_count; each++) {
        i->progress[each].open_round = mark ? false : i->progress[each].open_round || (int)each == s;
        i->progress[each].rounds += mark;
    }
    if (mark)
        machine_warm_again(i->machine);
    if (mark)
        incoming_disks_round(i);
    if (i->one_way || (!mark && clock_now_ns() - i->told_ns < LOADED_EVERY_NS))
        return 0;
    return incoming_say_loaded(i);
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
    case ELEMENT_END: /* the first that a source sends when the guest stands */
        if (!i->arrival.stopped_ns)
            i->arrival.stopped_ns = clock_now_ns();
        rc = read_end(i, &head);
        break;
    default:
        rc = incoming_is_hot_code(&head)
                 ? incoming_hot_code(i, &head)
                 : sections_collect(i->collector, i->channel, &head, machine_config_of(i->machine), &i->err);
    }
    return rc < 0 ? rc : sections_read_footer(i->channel, &head, &i->err);
}

static int check_digest(struct incoming *i)
{
    const struct section_digest *theirs = &i->collector->digest;
    if (theirs->sources != i->source_count)
        return err_set(&i->err, -EPROTO, "section %s: %u sources, %u were started", section_digest_state.name,
                       theirs->sources, i->source_count);
    for (unsigned s = 0; s < i->source_count; s++) {
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
    for (unsigned s = 0; s < i->source_count; s++)
        if (!i->progress[s].ended)
            return err_set(&i->err, -EPROTO, "section %s: the stream ended without its end", i->sources[s]->name);
    machine_warm_stop(i->machine);
    int rc = failpoint_err(FAILPOINT_TARGET_EOF, &i->err);
    if (rc == 0)
        rc = sections_complete(i->collector, &i->err);
    if (rc == 0)
        rc = loader_rest(i->loader, true, &i->err);
    if (rc == 0)
        rc = check_digest(i);
    if (rc == 0)
        rc = incoming_disks_durable(i);
    if (rc < 0)
        return rc;
    i->machine_touched = true;
    rc = failpoint_err(FAILPOINT_TARGET_APPLY, &i->err);
    if (rc == 0)
        rc = sections_apply(i->collector, &i->err);
    if (rc == 0)
        rc = sections_confirm(i->collector, i->digest_key, i->devices_sum, &i->err);
    if (rc == 0)
        machine_loaded(i->machine);
    return rc < 0 ? rc : failpoint_err(FAILPOINT_TARGET_APPLIED, &i->err);
}

static int load(struct incoming *i)
{
    int awake = loader_rest(i->loader, false, &i->err);
    if (awake < 0)
        return awake;
    for (;;) {
        uint8_t type = ELEMENT_EOF;
        int rc = wait_element(i, &type);
        if (rc == 0 && type == ELEMENT_EOF) {
            i->arrival.eof_ns = clock_now_ns();
            return complete(i);
        }
        if (rc == 0)
            rc = read_element(i, type);
        if (rc < 0)
            return rc;
    }
}

/* Before PREPARED: a cancel from here on would drop what may be the only copy. */
static int commit(struct incoming *i)
{
    lock(&i->m->lock);
    bool cancel = i->m->cancel;
    i->m->released = !cancel && !i->rehearsal;
    unlock(&i->m->lock);
    return cancel ? -ECANCELED : 0;
}

/* --- samples for a plan ------------------------------------------------------------------------------------------------ */

/* One element, or its end: 1. */
static int load_sample(struct incoming *i, int64_t until_ns)
{
    for (;;) {
        struct loader_stats stats;
        loader_stats(i->loader, &stats);
        bool news = stats.units_data + stats.units_zero != i->told_units || stats.rounds != i->told_rounds;
        int rc = loader_wait(i->loader, news ? LOADED_EVERY_MS : KEEP_ALIVE_MS);
        if (rc < 0)
            return err_set_errno(&i->err, rc, "waiting for samples");
        if (clock_now_ns() > until_ns || stats.wire_bytes > PLAN_WIRE_BYTES_MAX)
            return err_set(&i->err, -EDQUOT, "a plan may take %d s and %d MiB", PLAN_SECONDS_MAX,
                           PLAN_WIRE_BYTES_MAX >> 20);
        if (rc > 0)
            break;
        rc = incoming_say_loaded(i);
        if (rc < 0)
            return rc;
    }
    uint8_t type;
    int rc = channel_read_all(i->channel, &type, 1, incoming_timeout_ms(i), &i->err);
    if (rc == 0 && type == ELEMENT_EOF)
        return 1;
    if (rc == 0 && type != ELEMENT_PART)
        rc = err_set(&i->err, -EPROTO, "element 0x%02x: samples come in parts", type);
    return rc < 0 ? rc : read_element(i, type);
}

/* What comes is unpacked into memory of its own, told, and forgotten. */
static int load_samples(struct incoming *i, struct source *sink)
{
    struct source *ram = i->sources[0];
    struct loader_options options = {
        .workers = (unsigned)atomic_load_explicit(&i->m->params.threads, memory_order_relaxed),
        .sources = i->sources,
        .source_count = i->source_count,
        .channel = i->channel,
        .confined = !i->one_way && i->m->sandbox != MIGRATION_SANDBOX_OFF,
        .key = i->digest_key,
        .silence_ms = i->channel->silence_ms,
    };
    i->sources[0] = sink;
    i->progress[0].started = true;
    int64_t until_ns = clock_now_ns() + PLAN_SECONDS_MAX * NS_PER_S;
    int rc = loader_new(&options, &i->loader, &i->err);
    if (rc == 0) {
        migration_hold_loader(i->m, i->loader);
        do
            rc = load_sample(i, until_ns);
        while (rc == 0);
        migration_hold_loader(i->m, NULL);
        loader_free(i->loader);
        i->loader = NULL;
    }
    i->sources[0] = ram;
    memset(i->progress, 0, sizeof(i->progress));
    i->told_units = i->told_rounds = 0;
    return rc;
}

/* It ends as it likes: this end waits on. */
static void serve_probe(struct incoming *i, int rc)
{
    struct source *sink = NULL;
    if (rc >= 0)
        rc = confine(i);
    if (rc == 0)
        rc = plan_sink_new(&sink, &i->err);
    if (rc == 0)
        rc = load_samples(i, sink);
    if (rc < 0)
        incoming_say_sentence(i, MESSAGE_ERROR, i->err.text);
    plan_source_free(sink);
    migration_hold_channel(i->m, NULL);
    channel_close(i->channel);
    i->channel = i->line = NULL;
    i->probe = i->rehearsal = false;
    lock(&i->m->lock);
    i->m->got = (struct loader_stats){ 0 };
    unlock(&i->m->lock);
    err_clear(&i->err);
}

/* --- the end ---------------------------------------------------------------------------------------------------------- */

static void report_end(struct incoming *i)
{
    struct migration *m = i->m;
    if (i->at == TARGET_RUNS) {
        lock(&m->lock);
        err_clear(&m->error);
        m->where = GUEST_HERE;
        m->rounds = i->progress[0].rounds;
        m->report.arrival_due = i->measure_at_ns != 0;
        unlock(&m->lock);
        migration_set_state(m, MIGRATION_COMPLETED);
        return;
    }
    if (!handover_ended(i->at))
        return; /* UNRESOLVED was said already */
    lock(&m->lock);
    err_clear(&m->error); /* of a doubt that has ended */
    unlock(&m->lock);
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

/* A worker that fails shuts the channel down, which whoever reads on sees as a cancel. */
static void tell_first_error(struct incoming *i)
{
    struct err first = { 0 };
    if (i->err.code == -ECANCELED && !migration_cancelled(i->m) && loader_error(i->loader, &first) < 0)
        i->err = first;
}

/* Load and hold until the guest is here, refused, or gone. */
static void arrive(struct incoming *i)
{
    while (!handover_ended(i->at)) {
        int rc = load(i);
        if (rc == 0)
            rc = commit(i);
        if (rc < 0 && migration_cancelled(i->m)) {
            err_clear(&i->err);
            rc = err_set(&i->err, -ECANCELED, "migration cancelled");
        }
        if (rc < 0) {
            tell_first_error(i);
            incoming_feed(i, failure_of(&i->err));
            return;
        }
        migration_set_state(i->m, MIGRATION_DEVICE);
        if (!incoming_hold(i))
            return;
        if (i->at == TARGET_LOADING) { /* RETRACT: the source goes on, and so do we, under the next number */
            if (++i->recalls > INCOMING_RECALLS_MAX) {
                err_set(&i->err, -EDQUOT, "the source took its guest back for the %uth time", i->recalls);
                incoming_feed(i, HANDOVER_LOAD_FAILED);
                return;
            }
            i->key.attempt++;
            incoming_result_reset(i);
            migration_set_state(i->m, MIGRATION_ACTIVE);
        }
    }
    if (i->at == TARGET_EMPTY && migration_cancelled(i->m)) {
        err_clear(&i->err);
        err_set(&i->err, -ECANCELED, "migration cancelled");
    }
    if (i->err.code == 0 && i->at == TARGET_EMPTY)
        err_set(&i->err, -ECONNABORTED, "the source took the guest back");
}

/* True: it was a rehearsal, and the next one may come. */
static bool run_once(struct migration *m)
{
    struct incoming *i = calloc(1, sizeof(*i));
    assert(i);
    i->m = m;
    i->machine = m->machine;
    i->ram = machine_ram(m->machine);
    i->sources[0] = m->ram;
    i->source_count = 1;
    i->at = TARGET_LOADING;
    i->message = calloc(1, sizeof(*i->message));
    assert(i->message);

    int rc = accept_peer(i);
    while (rc == 0 && ((rc = meet(i)) == MET_ANOTHER || i->probe)) {
        if (i->probe)
            serve_probe(i, rc);
        else
            send_away(i);
        rc = accept_peer(i);
    }
    if (rc == 0)
        rc = begin(i);
    if (rc == 0) {
        arrive(i);
    } else {
        i->at = TARGET_EMPTY;
        incoming_say_sentence(i, MESSAGE_REFUSAL, i->err.text);
    }
    bool runs = i->at == TARGET_RUNS;
    eventfd_t ignored;
    eventfd_read(m->abort_fd, &ignored); /* from the end on it means that this thread is wanted back */
    if (runs)
        report_end(i);
    else if (i->err.code != -ECANCELED && i->channel)
        channel_explain(i->channel, &i->err);
    if (i->err.code != -ECANCELED && handover_ended(i->at))
        incoming_linger(i);
    bool again = rehearse_again(i);
    /* A failure is told when the source has heard of it: who hears of it here may end this process. */
    if (!runs && !again)
        report_end(i);

    failpoint(FAILPOINT_TARGET_END);
    if (!again)
        incoming_stop_listening(i);
    migration_hold_loader(m, NULL);
    loader_free(i->loader);
    incoming_disks_end(i);
    channels_close(&i->data);
    if (again)
        source_ram_forget(m->ram);
    sections_collect_free(i->collector);
    migration_hold_channel(m, NULL);
    if (i->line != i->channel)
        channel_close(i->line);
    channel_close(i->knock);
    channel_close(i->channel);
    free(i->message);
    free(i);
    return again;
}

void incoming_run(struct migration *m)
{
    m->confined = false;
    while (run_once(m))
        migration_set_state(m, MIGRATION_SETUP);
}
