/* Sessions: who is connected, what they have not read yet; and events that other threads report. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "monitor/monitor_priv.h"

/* --- output --------------------------------------------------------------------------------------------- */

size_t session_backlog(const struct session *session)
{
    return session->out.size - session->out_at;
}

static void session_flush(struct session *session)
{
    while (session_backlog(session) > 0) {
        size_t taken = chardev_write(session->chardev, session->out.data + session->out_at, session_backlog(session));
        if (taken == 0)
            return;
        session->out_at += taken;
    }
    session->out.size = session->out_at = 0;
}

void session_write(struct session *session, const void *data, size_t bytes)
{
    if (!session->open || session_backlog(session) + bytes > SESSION_BACKLOG_MAX)
        return;
    if (session->out_at > 0 && session->out_at == session->out.size)
        session->out.size = session->out_at = 0;
    buf_put(&session->out, data, bytes);
    session_flush(session);
}

void session_text(struct session *session, const char *text, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        const char *feed = memchr(text + done, '\n', bytes - done);
        size_t piece = (feed ? (size_t)(feed - text) : bytes) - done;
        session_write(session, text + done, piece);
        if (feed)
            session_write(session, "\r\n", 2);
        done += piece + (feed ? 1 : 0);
    }
}

/* --- the chardev's client ------------------------------------------------------------------------------- */

static size_t session_can_receive(void *opaque)
{
    struct session *session = opaque;
    if (session->monitor->quitting || session_backlog(session) > SESSION_BUSY_BYTES)
        return 0;
    return session->mode == MONITOR_HMP ? hmp_room(session) : SESSION_LINE_MAX;
}

void monitor_finish_quit(struct monitor *monitor)
{
    if (monitor->quitting && monitor->context.quit)
        monitor->context.quit(monitor->context.opaque);
}

static void session_receive(void *opaque, const uint8_t *data, size_t bytes)
{
    struct session *session = opaque;
    struct monitor *monitor = session->monitor;
    if (session->mode == MONITOR_QMP)
        qmp_receive(session, (const char *)data, bytes);
    else
        hmp_receive(session, (const char *)data, bytes);
    monitor_finish_quit(monitor);
}

static void session_writable(void *opaque)
{
    struct session *session = opaque;
    session_flush(session);
    chardev_accept_input(session->chardev);
}

static void session_opened(void *opaque, bool open)
{
    struct session *session = opaque;
    session->open = open;
    session->out.size = session->out_at = 0;
    if (!open && session->mode == MONITOR_HMP)
        hmp_closed(session);
    if (!open)
        return;
    if (session->mode == MONITOR_QMP)
        qmp_opened(session);
    else
        hmp_opened(session);
}

static const struct chardev_client session_client = {
    .can_receive = session_can_receive,
    .receive = session_receive,
    .writable = session_writable,
    .opened = session_opened,
};

/* --- events --------------------------------------------------------------------------------------------- */

static void emit_at(struct monitor *monitor, const char *name, struct json_object *data, int64_t when_ns)
{
    for (struct session *session = monitor->sessions; session; session = session->next)
        if (session->mode == MONITOR_QMP)
            qmp_event(session, name, data, when_ns);
    json_object_put(data);
}

void monitor_emit(struct monitor *monitor, const char *name, struct json_object *data)
{
    monitor_deliver_notes(monitor);
    emit_at(monitor, name, data, clock_realtime_ns());
}

static void emit_machine(struct monitor *monitor, const struct note *note)
{
    static const struct {
        const char *name, *by_guest, *by_host; /* reasons, where the event has one */
    } events[] = {
        [EVENT_STOP] = { "STOP", NULL, NULL },
        [EVENT_RESUME] = { "RESUME", NULL, NULL },
        [EVENT_RESET] = { "RESET", "guest-reset", "host-qmp-system-reset" },
        [EVENT_SHUTDOWN] = { "SHUTDOWN", "guest-shutdown", "host-signal" },
        [EVENT_POWERDOWN] = { "POWERDOWN", NULL, NULL },
    };
    struct json_object *data = NULL;
    if (events[note->event].by_guest) {
        data = json_object_new_object();
        json_put_bool(data, "guest", note->by_guest);
        json_put_str(data, "reason", note->by_guest ? events[note->event].by_guest : events[note->event].by_host);
    }
    emit_at(monitor, events[note->event].name, data, note->when_ns);
}

static void emit_migration(struct monitor *monitor, const struct note *note)
{
    struct json_object *data = json_object_new_object();
    if (note->kind == NOTE_MIGRATION_STATE)
        json_put_str(data, "status", migration_state_name(note->state));
    else
        json_put_u64(data, "pass", note->round);
    emit_at(monitor, note->kind == NOTE_MIGRATION_STATE ? "MIGRATION" : "MIGRATION_PASS", data, note->when_ns);
}

static bool take_note(struct monitor *monitor, struct note *out)
{
    lock(&monitor->lock);
    bool some = monitor->notes > 0;
    if (some) {
        *out = monitor->note[monitor->note_first];
        monitor->note_first = (monitor->note_first + 1) % NOTES_MAX;
        monitor->notes--;
    }
    unlock(&monitor->lock);
    return some;
}

void monitor_deliver_notes(struct monitor *monitor)
{
    struct note note;
    while (take_note(monitor, &note)) {
        if (note.kind == NOTE_MACHINE)
            emit_machine(monitor, &note);
        else
            emit_migration(monitor, &note);
    }
}

/* A loop that is that far behind loses the newest events rather than its memory. */
static void leave_note(struct monitor *monitor, struct note note)
{
    note.when_ns = clock_realtime_ns();
    lock(&monitor->lock);
    if (monitor->notes < NOTES_MAX)
        monitor->note[(monitor->note_first + monitor->notes++) % NOTES_MAX] = note;
    unlock(&monitor->lock);
    uv_async_send(monitor->wake);
}

void monitor_machine_event(void *opaque, enum machine_event event, bool by_guest)
{
    struct monitor *monitor = opaque;
    if (atomic_load_explicit(&monitor->muted, memory_order_relaxed))
        return;
    leave_note(monitor, (struct note){ .kind = NOTE_MACHINE, .event = event, .by_guest = by_guest });
}

void monitor_migration_event(void *opaque, enum migration_event event, enum migration_state state, uint64_t round)
{
    struct monitor *monitor = opaque;
    const struct migration_params *params = migration_params_of(monitor->context.migration);
    /* Asked here and not when it is told: the last ones are told after the migration is gone. */
    if (!atomic_load_explicit(&params->capability_events, memory_order_relaxed))
        return;
    leave_note(monitor,
               (struct note){ .kind = event == MIGRATION_EVENT_STATE ? NOTE_MIGRATION_STATE : NOTE_MIGRATION_ROUND,
                              .state = state,
                              .round = round });
}

static void on_wake(uv_async_t *wake)
{
    monitor_deliver_notes(wake->data);
}

void monitor_quit(struct monitor *monitor)
{
    if (monitor->quitting)
        return;
    struct json_object *data = json_object_new_object();
    json_put_bool(data, "guest", false);
    json_put_str(data, "reason", "host-qmp-quit");
    monitor_emit(monitor, "SHUTDOWN", data);
    monitor->quitting = true;
}

void monitor_command(struct monitor *monitor, const char *line, FILE *out)
{
    hmp_run_line(monitor, NULL, line, out);
    monitor_finish_quit(monitor);
}

/* --- life ----------------------------------------------------------------------------------------------- */

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

int monitor_new(const struct monitor_context *context, struct monitor **out, struct err *err)
{
    struct monitor *monitor = calloc(1, sizeof *monitor);
    uv_async_t *wake = malloc(sizeof *wake);
    int rc = monitor && wake ? uv_async_init(context->loop, wake, on_wake) : -ENOMEM;
    if (rc < 0) {
        free(monitor);
        free(wake);
        return err_set_errno(err, rc, "cannot set up the monitors");
    }
    monitor->context = *context;
    monitor->run_on_arrival = context->run_on_arrival;
    monitor->wake = wake;
    wake->data = monitor;
    lock_init(&monitor->lock, LOCK_LEAF);
    *out = monitor;
    return 0;
}

int monitor_add(struct monitor *monitor, struct chardev *chardev, enum monitor_mode mode, struct err *err)
{
    struct session *session = calloc(1, sizeof *session);
    if (!session)
        return err_set(err, -ENOMEM, "no memory for a monitor");
    *session = (struct session){ .monitor = monitor, .chardev = chardev, .mode = mode, .history_at = -1 };
    json_reader_init(&session->reader);
    struct session **tail = &monitor->sessions;
    while (*tail)
        tail = &(*tail)->next;
    *tail = session;
    chardev_attach(chardev, &session_client, session);
    return 0;
}

static void session_free(struct session *session)
{
    session_flush(session);
    chardev_attach(session->chardev, NULL, NULL);
    hmp_closed(session);
    for (unsigned i = 0; i < SESSION_HISTORY; i++)
        free(session->history[i]);
    json_reader_free(&session->reader);
    buf_free(&session->out);
    free(session);
}

void monitor_free(struct monitor *monitor)
{
    if (!monitor)
        return;
    monitor_deliver_notes(monitor);
    while (monitor->sessions) {
        struct session *session = monitor->sessions;
        monitor->sessions = session->next;
        session_free(session);
    }
    uv_close((uv_handle_t *)monitor->wake, free_handle);
    lock_destroy(&monitor->lock);
    free(monitor);
}
