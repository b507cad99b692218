#include "migration/outgoing_disks.h"
#include "migration/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "migration/channels.h"
#include "migration/rehearse.h"
#include "migration/sources.h"

static const char *const state_names[] = {
    [MIGRATION_NONE] = "none",
    [MIGRATION_SETUP] = "setup",
    [MIGRATION_ACTIVE] = "active",
    [MIGRATION_DEVICE] = "device",
    [MIGRATION_COMPLETED] = "completed",
    [MIGRATION_FAILED] = "failed",
    [MIGRATION_CANCELLING] = "cancelling",
    [MIGRATION_CANCELLED] = "cancelled",
    [MIGRATION_UNRESOLVED] = "unresolved",
};

#define TO(state) (1u << (state))

/* THE transition table. CANCELLING is what a query shows between a cancel and the thread's CANCELLED. */
static const unsigned transitions[] = {
    [MIGRATION_NONE] = TO(MIGRATION_SETUP),
    [MIGRATION_SETUP] = TO(MIGRATION_SETUP) | TO(MIGRATION_ACTIVE) | TO(MIGRATION_FAILED) | TO(MIGRATION_CANCELLED),
    [MIGRATION_ACTIVE] = TO(MIGRATION_SETUP) | TO(MIGRATION_COMPLETED) | TO(MIGRATION_DEVICE) | TO(MIGRATION_FAILED) |
                         TO(MIGRATION_CANCELLED),
    [MIGRATION_DEVICE] = TO(MIGRATION_SETUP) | TO(MIGRATION_ACTIVE) | TO(MIGRATION_COMPLETED) | TO(MIGRATION_FAILED) |
                         TO(MIGRATION_CANCELLED) | TO(MIGRATION_UNRESOLVED),
    [MIGRATION_UNRESOLVED] = TO(MIGRATION_DEVICE) | TO(MIGRATION_COMPLETED) | TO(MIGRATION_FAILED),
    [MIGRATION_COMPLETED] = TO(MIGRATION_SETUP),
    [MIGRATION_FAILED] = TO(MIGRATION_SETUP),
    [MIGRATION_CANCELLED] = TO(MIGRATION_SETUP),
    [MIGRATION_CANCELLING] = 0,
};

const char *migration_state_name(enum migration_state state)
{
    return state_names[state];
}

static bool state_is_over(enum migration_state state)
{
    return state == MIGRATION_NONE || state == MIGRATION_COMPLETED || state == MIGRATION_FAILED ||
           state == MIGRATION_CANCELLED || state == MIGRATION_UNRESOLVED;
}

/* --- for the two stories -------------------------------------------------------------------------------- */

void migration_set_state(struct migration *m, enum migration_state state)
{
    lock(&m->lock);
    assert(transitions[m->state] & TO(state));
    if (state == MIGRATION_FAILED || state == MIGRATION_CANCELLED)
        m->report.ended_in = m->state;
    m->state = state;
    int64_t now_ns = clock_now_ns();
    if (state == MIGRATION_ACTIVE && m->active_ns == 0)
        m->active_ns = now_ns;
    m->end_ns = state_is_over(state) ? now_ns : 0; /* a doubt may turn into a hand-over again */
    cond_broadcast(&m->changed);
    uint64_t rounds = m->rounds;
    unlock(&m->lock);
    if (m->event)
        m->event(m->event_opaque, MIGRATION_EVENT_STATE, state, rounds);
}

void migration_set_error(struct migration *m, const struct err *err)
{
    lock(&m->lock);
    if (m->error.code == 0)
        m->error = *err;
    unlock(&m->lock);
}

bool migration_cancelled(struct migration *m)
{
    lock(&m->lock);
    bool cancel = m->cancel;
    unlock(&m->lock);
    return cancel;
}

void migration_round_done(struct migration *m, uint64_t rounds)
{
    lock(&m->lock);
    m->rounds = rounds;
    enum migration_state state = m->state;
    unlock(&m->lock);
    if (m->event)
        m->event(m->event_opaque, MIGRATION_EVENT_ROUND, state, rounds);
}

void migration_set_where(struct migration *m, enum migration_where where)
{
    lock(&m->lock);
    m->where = where;
    unlock(&m->lock);
}

void migration_refused(void *opaque, const struct err *why)
{
    struct migration *m = opaque;
    lock(&m->lock);
    m->error = *why;
    unlock(&m->lock);
    migration_set_state(m, MIGRATION_SETUP);
}

void migration_hold_channel(struct migration *m, struct channel *channel)
{
    lock(&m->lock);
    m->channel = channel;
    if (channel && m->cancel)
        channel_shutdown(channel);
    unlock(&m->lock);
}

void migration_hold_pipeline(struct migration *m, struct pipeline *pipeline)
{
    lock(&m->lock);
    if (m->pipeline)
        pipeline_stats(m->pipeline, &m->sent);
    m->pipeline = pipeline;
    if (pipeline && m->cancel)
        pipeline_fail(pipeline, -ECANCELED, "migration cancelled");
    unlock(&m->lock);
}

void migration_hold_loader(struct migration *m, struct loader *loader)
{
    lock(&m->lock);
    if (m->loader)
        loader_stats(m->loader, &m->got);
    m->loader = loader;
    unlock(&m->lock);
}

/* --- life ----------------------------------------------------------------------------------------------- */

int migration_new(struct machine *machine, struct migration **out, struct err *err)
{
    struct migration *m = calloc(1, sizeof(*m));
    if (!m)
        return err_set(err, -ENOMEM, "no memory for the migration object");
    m->machine = machine;
    m->abort_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (m->abort_fd < 0) {
        int code = -errno;
        free(m);
        return err_set_errno(err, code, "no eventfd for the migration");
    }
    int rc = source_ram_new(machine_ram(machine), 1, &m->ram, err);
    if (rc == 0 && (rc = tls_store_new(&m->objects, err)) < 0)
        source_ram_free(m->ram);
    if (rc < 0) {
        close(m->abort_fd);
        free(m);
        return rc;
    }
    lock_init(&m->lock, LOCK_MIGRATION);
    cond_init(&m->changed);
    params_init(&m->params);
    converge_costs_init(&m->costs);
    migration_host_id(m->host);
    m->bias = 1.0;
    *out = m;
    return 0;
}

static void abort_fd_clear(struct migration *m)
{
    eventfd_t ignored;
    while (eventfd_read(m->abort_fd, &ignored) == 0)
        continue;
}

/* With the lock held: end whatever the thread may be blocked in. */
static void interrupt(struct migration *m, bool cut)
{
    eventfd_write(m->abort_fd, 1);
    if (m->ear)
        return_path_interrupt(m->ear);
    cond_broadcast(&m->changed);
    if (!cut)
        return;
    if (m->pipeline)
        pipeline_fail(m->pipeline, -ECANCELED, "migration cancelled");
    if (m->loader)
        loader_fail(m->loader, -ECANCELED, "migration cancelled");
    if (m->channel)
        channel_shutdown(m->channel);
}

void migration_free(struct migration *m)
{
    if (!m)
        return;
    lock(&m->lock);
    if (m->thread_runs) {
        m->cancel = m->cancel || !m->released;
        m->quitting = true;
        interrupt(m, !m->cancel_softly);
    }
    unlock(&m->lock);
    thread_join(&m->thread);
    channel_listener_close(m->listener);
    lines_end(&m->lines);
    tls_store_free(m->objects);
    source_ram_free(m->ram);
    close(m->abort_fd);
    cond_destroy(&m->changed);
    lock_destroy(&m->lock);
    free(m);
}

struct migration_params *migration_params_of(struct migration *m)
{
    return &m->params;
}

struct tls_store *migration_objects(struct migration *m)
{
    return m->objects;
}

void migration_on_event(struct migration *m,
                        void (*event)(void *opaque, enum migration_event event, enum migration_state state,
                                      uint64_t round),
                        void *opaque)
{
    m->event = event;
    m->event_opaque = opaque;
}

void migration_before_start(struct migration *m, int (*take)(void *opaque, struct err *err), void *opaque)
{
    m->take = take;
    m->take_opaque = opaque;
}

void migration_sandbox(struct migration *m, enum migration_sandbox sandbox)
{
    m->sandbox = sandbox;
}

/* --- starting ------------------------------------------------------------------------------------------- */

static void thread_main(void *opaque)
{
    struct migration *m = opaque;
    if (m->incoming)
        incoming_run(m);
    else
        outgoing_run(m);
    lock(&m->lock);
    m->thread_runs = false;
    m->ear = NULL;
    cond_broadcast(&m->changed);
    unlock(&m->lock);
}

static int check_idle(struct migration *m, const char *uri, struct err *err)
{
    if (strlen(uri) >= sizeof(m->uri))
        return err_set(err, -EINVAL, "the address is longer than %zu bytes", sizeof(m->uri) - 1);
    lock(&m->lock);
    bool unresolved = m->state == MIGRATION_UNRESOLVED;
    bool busy = !state_is_over(m->state);
    while (m->last_words) /* or a peer that is prepared would not hear that it is off */
        cond_wait(&m->changed, &m->lock);
    if (!busy && !unresolved &&
        m->thread_runs) { /* only its last word is still on its way; shutting down delivers it */
        m->quitting = true;
        cond_broadcast(&m->changed);
        eventfd_write(m->abort_fd, 1);
        if (m->channel)
            channel_shutdown(m->channel);
    }
    unlock(&m->lock);
    if (unresolved)
        return err_set(err, -EBUSY, "a migration is unresolved: migrate_resolve first");
    if (busy)
        return err_set(err, -EBUSY, "a migration is running");
    thread_join(&m->thread); /* it has ended, is about to, or was never started */
    m->thread = (struct thread){ 0 };
    return 0;
}

static int launch(struct migration *m, const char *uri, bool incoming, enum migration_purpose purpose, struct err *err)
{
    abort_fd_clear(m);
    lock(&m->lock);
    strcpy(m->uri, uri);
    m->incoming = incoming;
    m->purpose = purpose;
    m->thread_runs = true;
    m->cancel = m->quitting = m->released = m->cancel_softly = m->one_way = false;
    m->refused = m->askable = m->ask = m->reconnecting = false;
    m->settled_by = NULL;
    m->wish = WISH_NONE;
    m->where = incoming ? GUEST_THERE : GUEST_HERE;
    m->figures = (struct migration_info){ 0 };
    m->report = (struct migration_report){ 0 };
    m->eta = (struct eta_model){ 0 };
    memset(&m->round, 0, sizeof(m->round));
    m->disks = 0;
    m->ram_waits = !incoming && m->disk_copy != DISK_SHARED;
    m->plan.ready = false;
    memset(m->quota_base, 0, sizeof(m->quota_base));
    m->sent = (struct pipeline_stats){ 0 };
    m->got = (struct loader_stats){ 0 };
    m->rounds = 0;
    m->start_ns = clock_now_ns();
    m->active_ns = m->end_ns = 0;
    err_clear(&m->error);
    unlock(&m->lock);
    migration_set_state(m, MIGRATION_SETUP);

    int rc = thread_start(&m->thread, "migrate", thread_main, m, err);
    if (rc < 0) {
        lock(&m->lock);
        m->thread_runs = false;
        unlock(&m->lock);
        migration_set_state(m, MIGRATION_FAILED);
    }
    return rc;
}

int migration_copy_disks(struct migration *m, enum disk_copy copy, struct err *err)
{
    for (unsigned slot = 0; copy == DISK_TOP && slot < MACHINE_SLOTS; slot++) {
        struct block *block = machine_disk(m->machine, slot);
        uint64_t bytes = block ? block_bytes(block) : 0;
        bool own;
        if (block && !block_options_of(block)->readonly && block_own_extent(block, 0, &bytes, &own) == -EOPNOTSUPP)
            return err_set(
                err, -EINVAL,
                "disk '%s' has no backing file, of which the destination could have the same: copy all of it (-b)",
                block_options_of(block)->name);
    }
    m->next_copy = copy;
    return 0;
}

static int start(struct migration *m, const char *uri, enum migration_purpose purpose, struct err *err)
{
    enum disk_copy copy = m->next_copy;
    m->next_copy = DISK_SHARED;
    if (copy == DISK_SHARED && atomic_load_explicit(&m->params.capability_block, memory_order_relaxed))
        copy = DISK_FULL;
    static const char *const known[] = { "tcp:", "unix:", "exec:", "fd:", "file:" };
    int rc = check_idle(m, uri, err);
    if (rc < 0)
        return rc;
    bool fits = false;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        fits = fits || (strncmp(uri, known[i], strlen(known[i])) == 0 && uri[strlen(known[i])]);
    if (!fits)
        return err_set(err, -EINVAL, "'%.128s' is none of tcp:HOST:PORT, unix:PATH, exec:COMMAND, fd:N, file:PATH",
                       uri);
    rc = channels_wanted(&m->params, uri, err);
    if (rc < 0)
        return rc;
    enum run_state state = machine_state(m->machine);
    if (state != RUN_RUNNING && state != RUN_PAUSED && state != RUN_PRELAUNCH)
        return err_set(err, -EINVAL, "a guest in state %s cannot migrate", run_state_name(state));
    if (purpose != PURPOSE_MOVE && (rc = rehearse_possible(m, uri, err)) < 0)
        return rc;
    if (purpose == PURPOSE_REHEARSAL && copy == DISK_TOP)
        return err_set(err, -EINVAL,
                       "a rehearsal would leave its blocks above the destination's backing file: no -rehearse with -i");
    m->disk_copy = purpose == PURPOSE_PLAN ? DISK_SHARED : copy;
    rc = lines_begin(&m->lines, m->objects, &m->params, uri, false, err);
    return rc < 0 ? rc : launch(m, uri, false, purpose, err);
}

int migration_start(struct migration *m, const char *uri, struct err *err)
{
    return start(m, uri, PURPOSE_MOVE, err);
}

int migration_rehearse(struct migration *m, const char *uri, struct err *err)
{
    return start(m, uri, PURPOSE_REHEARSAL, err);
}

int migration_plan(struct migration *m, const char *uri, struct err *err)
{
    return start(m, uri, PURPOSE_PLAN, err);
}

void migration_plan_of(struct migration *m, struct plan_result *out)
{
    lock(&m->lock);
    *out = m->plan;
    unlock(&m->lock);
}

int migration_incoming(struct migration *m, const char *uri, bool run, struct err *err)
{
    int rc = check_idle(m, uri, err);
    if (rc < 0)
        return rc;
    if (machine_state(m->machine) != RUN_INMIGRATE)
        return err_set(err, -EINVAL, "the machine is not waiting for a guest: start it with -incoming");
    channel_listener_close(m->listener);
    m->listener = NULL;
    rc = lines_begin(&m->lines, m->objects, &m->params, uri, true, err);
    if (rc == 0)
        rc = m->lines.creds ? channel_listen_guarded(uri, &m->listener, err) : channel_listen(uri, &m->listener, err);
    if (rc < 0)
        return rc;
    migration_run_on_arrival(m, run);
    lock(&m->lock);
    snprintf(m->listening, sizeof(m->listening), "%s", channel_listener_name(m->listener));
    unlock(&m->lock);
    return launch(m, uri, true, PURPOSE_MOVE, err);
}

void migration_run_on_arrival(struct migration *m, bool run)
{
    atomic_store_explicit(&m->run_on_arrival, run, memory_order_relaxed);
}

const char *migration_listening(struct migration *m)
{
    return m->listening; /* written by the main thread before the migrate thread exists */
}

/* --- ending --------------------------------------------------------------------------------------------- */

int migration_cancel(struct migration *m)
{
    int rc = 0;
    lock(&m->lock);
    if (m->thread_runs && !state_is_over(m->state)) {
        if (m->released) {
            rc = -EBUSY; /* the guest may be running there already */
        } else if (!m->cancel) {
            m->cancel = true;
            interrupt(m, !m->cancel_softly);
        }
    }
    unlock(&m->lock);
    return rc;
}

int migration_resolve(struct migration *m, enum migration_answer answer, struct err *err)
{
    struct err text = { 0 };
    char note[RELEASED_PATH_MAX] = "";
    lock(&m->lock);
    bool unresolved = m->state == MIGRATION_UNRESOLVED;
    bool believed_away = m->state == MIGRATION_COMPLETED && !m->incoming && m->one_way && m->where != GUEST_HERE;
    if (!unresolved && !believed_away)
        err_set(&text, -EINVAL, "there is nothing to resolve: the migration is %s", migration_state_name(m->state));
    else if (answer == RESOLVE_ASK && unresolved && m->askable)
        m->ask = true;
    else if (answer == RESOLVE_ASK)
        err_set(&text, -ENOTCONN,
                "the peer at %s cannot be asked: look there, then say whether the guest is here or "
                "there",
                m->uri);
    else if (answer == RESOLVE_HERE && m->refused)
        err_set(&text, -EPERM, "the guest was refused here, its source may have taken it back already");
    else if (unresolved)
        m->wish = answer == RESOLVE_HERE ? WISH_HERE : WISH_THERE;
    else if (answer == RESOLVE_HERE)
        m->where = GUEST_HERE; /* the operator's word: migration_may_resume() lets `cont` through */
    if (unresolved && text.code == 0 && m->thread_runs)
        interrupt(m, false);
    bool asks_nobody = m->one_way && !m->incoming; /* a thread that said so last, and is about to end */
    bool alone = unresolved && (!m->thread_runs || asks_nobody) && text.code == 0; /* nobody else changes the state */
    if (alone) {
        m->settled_by = "operator";
        m->where = answer == RESOLVE_HERE ? GUEST_HERE : GUEST_THERE;
        memcpy(note, m->released_path, sizeof(note));
        m->released_path[0] = '\0';
    }
    unlock(&m->lock);
    released_forget(note);
    if (alone)
        migration_set_state(m, answer == RESOLVE_HERE ? MIGRATION_FAILED : MIGRATION_COMPLETED);
    return text.code ? err_set(err, text.code, "%s", text.text) : 0;
}

int migration_may_resume(struct migration *m, bool *force, struct err *err)
{
    enum run_state run = machine_state(m->machine);
    lock(&m->lock);
    enum migration_where where = m->where;
    bool incoming = m->incoming;
    enum migration_state state = m->state;
    unlock(&m->lock);
    *force = false;
    if (state == MIGRATION_DEVICE)
        return err_set(err, -EBUSY, "the guest is being handed over");
    if (state == MIGRATION_UNRESOLVED)
        return err_set(err, -EPERM, "it is not known where the guest runs: migrate_resolve first");
    if (run != RUN_POSTMIGRATE || incoming)
        return 0;
    if (where == GUEST_THERE)
        return err_set(err, -EPERM, "the guest has moved to %s", m->uri);
    *force = true; /* it is in a file, or an operator said that it is here */
    return 0;
}

bool migration_wait(struct migration *m, int timeout_ms)
{
    int64_t deadline_ns = clock_now_ns() + (int64_t)timeout_ms * NS_PER_MS;
    lock(&m->lock);
    while (!state_is_over(m->state))
        if (!cond_wait_until(&m->changed, &m->lock, deadline_ns))
            break;
    bool over = state_is_over(m->state);
    unlock(&m->lock);
    return over;
}

/* --- asking --------------------------------------------------------------------------------------------- */

static double per_second(uint64_t amount, int64_t ns)
{
    return ns > 0 ? (double)amount * 1e9 / (double)ns : 0;
}

static void query_quotas(struct migration *m, struct migration_info *out)
{
    uint64_t holds = 0, long_ns = 0;
    unsigned vcpus = dirty_quota_stats(machine_ram(m->machine)->dirty, out->quota);
    for (unsigned i = 0; i < vcpus; i++) {
        struct quota_stats *stats = &out->quota[i];
        quota_since(stats, &m->quota_base[i]);
        long_ns = stats->long_ns > long_ns ? stats->long_ns : long_ns;
        holds += stats->holds;
    }
    out->held_pause_ms = (double)long_ns / NS_PER_MS;
    out->vcpus = holds || out->throttle_percent ? vcpus : 0;
}

static void query_outgoing(struct migration *m, int64_t now_ns, struct migration_info *out)
{
    if (m->pipeline)
        pipeline_stats(m->pipeline, &m->sent);
    const struct pipeline_stats *sent = &m->sent;
    out->pages_data = sent->units_data;
    out->pages_zero = sent->units_zero;
    out->wire_bytes = sent->wire_bytes;
    out->data_bytes = sent->data_bytes;
    out->raw_bytes = sent->raw_bytes;
    memcpy(out->codec_pages, sent->codec_units, sizeof(out->codec_pages));
    out->delta_pages = sent->delta_units;
    out->delta_bytes = sent->delta_bytes;
    out->delta_misses = sent->delta_misses;
    out->codec = sent->codec;
    out->codec_acceleration = sent->acceleration;
    out->pipeline_bytes = sent->pool_bytes;
    int64_t moving_ns = m->active_ns ? now_ns - m->active_ns : 0;
    out->mbps = per_second(sent->wire_bytes * 8, moving_ns) / 1e6;
    out->pages_per_s = (uint64_t)per_second(sent->units_data + sent->units_zero, moving_ns);
    if (m->pipeline)
        out->ram_remaining = m->ram_waits ? out->ram_total : m->ram->ops->dirty(m->ram) * m->ram->unit_bytes;
    outgoing_disks_query(m, out);
    query_quotas(m, out);
    if (m->ear) {
        lock(&m->ear->lock);
        out->loaded_bytes_per_s = m->ear->loaded_bytes_per_s;
        unlock(&m->ear->lock);
    }
}

static void query_incoming(struct migration *m, int64_t now_ns, struct migration_info *out)
{
    if (m->loader)
        loader_stats(m->loader, &m->got);
    machine_arrival(m->machine, &out->arrival);
    const struct loader_stats *got = &m->got;
    out->disks = m->disks;
    memcpy(out->disk, m->disk, sizeof(out->disk));
    out->pages_data = got->units_data;
    out->pages_zero = got->units_zero;
    out->wire_bytes = got->wire_bytes;
    out->raw_bytes = got->units_data * m->ram->unit_bytes;
    memcpy(out->codec_pages, got->codec_units, sizeof(out->codec_pages));
    out->delta_pages = got->delta_units;
    out->pipeline_bytes = got->pool_bytes;
    int64_t moving_ns = m->active_ns ? now_ns - m->active_ns : 0;
    out->mbps = per_second(got->wire_bytes * 8, moving_ns) / 1e6;
    out->loaded_bytes_per_s = per_second(got->wire_bytes, moving_ns);
    out->rounds = got->rounds;
    /* Of the first round: what later ones bring again is not known here. */
    uint64_t come = (got->units_data + got->units_zero) * m->ram->unit_bytes;
    out->ram_remaining = got->rounds || come > out->ram_total ? 0 : out->ram_total - come;
}

void migration_query(struct migration *m, struct migration_info *out)
{
    lock(&m->lock);
    int64_t now_ns = m->end_ns ? m->end_ns : clock_now_ns();
    *out = m->figures;
    out->state = m->cancel && !state_is_over(m->state) ? MIGRATION_CANCELLING : m->state;
    out->where = m->where;
    out->incoming = m->incoming;
    out->purpose = m->purpose;
    memcpy(out->uri, m->uri, sizeof(out->uri));
    out->error = m->error;
    out->reconnecting = m->reconnecting;
    out->settled_by = m->settled_by;
    out->rounds = m->rounds;
    out->ram_total = source_ram_bytes(m->ram);
    out->downtime_limit_ms = (double)atomic_load_explicit(&m->params.downtime_limit_ms, memory_order_relaxed);
    if (m->start_ns) {
        out->setup_ms = ((m->active_ns ? m->active_ns : now_ns) - m->start_ns) / NS_PER_MS;
        out->total_ms = (now_ns - m->start_ns) / NS_PER_MS;
        if (m->incoming)
            query_incoming(m, now_ns, out);
        else
            query_outgoing(m, now_ns, out);
    }
    unlock(&m->lock);
}
