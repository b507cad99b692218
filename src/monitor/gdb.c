#include "monitor/gdb.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "machine/debug.h"
#include "monitor/gdb_session.h"

enum { BACKLOG_BUSY_BYTES = 256 * 1024 }; /* with that much unread, we do not listen */

struct gdb {
    /* fixed after new */
    struct machine *machine;
    struct monitor *monitor;
    struct chardev *chardev;
    uv_async_t *wake;
    /* owner: the loop's thread */
    struct gdb_session session;
    bool open;        /* somebody is connected: the session is open */
    bool interrupted; /* the debugger stopped the guest itself: that is reported in any state */
    unsigned next;    /* the hart to ask first who stopped, so that none is always overlooked */
    struct buf out;   /* not yet taken by the chardev */
    size_t out_at;
};

/* --- output ----------------------------------------------------------------------------------------------- */

static void flush(struct gdb *g)
{
    while (g->out_at < g->out.size) {
        size_t taken = chardev_write(g->chardev, g->out.data + g->out_at, g->out.size - g->out_at);
        if (taken == 0)
            return;
        g->out_at += taken;
    }
    g->out.size = g->out_at = 0;
}

static void target_send(void *opaque, const void *data, size_t bytes)
{
    struct gdb *g = opaque;
    buf_put(&g->out, data, bytes);
    flush(g);
}

/* --- the guest as the session sees it ---------------------------------------------------------------------- */

static unsigned target_harts(void *opaque)
{
    struct gdb *g = opaque;
    return machine_harts(g->machine);
}

static void on_hart_stopped(void *opaque)
{
    struct gdb *g = opaque;
    uv_async_send(g->wake);
}

/* Until it stands still with us attached; a guest that arrives at this moment may need a second time. */
static void stop_guest(struct gdb *g)
{
    do {
        if (machine_state(g->machine) == RUN_INMIGRATE)
            monitor_run_on_arrival(g->monitor, false);
        machine_stop(g->machine);
    } while (machine_debug_attach(g->machine, on_hart_stopped, g) == -EBUSY);
}

static void target_stop(void *opaque)
{
    struct gdb *g = opaque;
    stop_guest(g);
    g->interrupted = true;
}

/* -EBUSY, somebody else lets the guest run at this moment, changes nothing: it runs. */
static void arm_all(struct gdb *g)
{
    for (unsigned i = 0; i < machine_harts(g->machine); i++)
        machine_debug_arm(g->machine, i, DEBUG_GO);
}

static int target_resume(void *opaque, const enum debug_mode *modes, struct err *err)
{
    struct gdb *g = opaque;
    for (unsigned i = 0; i < machine_harts(g->machine); i++)
        machine_debug_arm(g->machine, i, modes[i]);
    g->interrupted = false;
    int rc = monitor_cont(g->monitor, err);
    if (rc < 0)
        arm_all(g);
    return rc;
}

static int target_read_register(void *opaque, unsigned hart, unsigned number, uint64_t *value)
{
    struct gdb *g = opaque;
    return machine_debug_register_read(g->machine, hart, number, value);
}

static int target_write_register(void *opaque, unsigned hart, unsigned number, uint64_t value)
{
    struct gdb *g = opaque;
    return machine_debug_register_write(g->machine, hart, number, value);
}

static ssize_t target_read_memory(void *opaque, unsigned hart, enum debug_space space, uint64_t at, void *out,
                                  size_t bytes)
{
    struct gdb *g = opaque;
    return machine_debug_memory_read(g->machine, hart, space, at, out, bytes);
}

static ssize_t target_write_memory(void *opaque, unsigned hart, enum debug_space space, uint64_t at, const void *data,
                                   size_t bytes)
{
    struct gdb *g = opaque;
    return machine_debug_memory_write(g->machine, hart, space, at, data, bytes);
}

static int target_point(void *opaque, uint64_t pc, unsigned kind, bool on)
{
    struct gdb *g = opaque;
    return machine_debug_point(g->machine, pc, kind, on);
}

static const char *target_hart_state(void *opaque, unsigned hart)
{
    struct gdb *g = opaque;
    if (machine_state(g->machine) == RUN_RUNNING)
        return "running";
    return machine_debug_waits(g->machine, hart) ? "wfi" : "paused";
}

static void target_command(void *opaque, const char *line, struct buf *out)
{
    struct gdb *g = opaque;
    char *text = NULL;
    size_t bytes = 0;
    FILE *file = open_memstream(&text, &bytes);
    if (!file)
        return;
    monitor_command(g->monitor, line, file);
    if (fclose(file) == 0)
        buf_put(out, text, bytes);
    free(text);
}

/* Breakpoints go. True: the guest ran and was stopped for that. */
static bool detach(struct gdb *g)
{
    bool ran = false;
    while (machine_debug_detach(g->machine) == -EBUSY) {
        machine_stop(g->machine);
        ran = true;
    }
    return ran;
}

static void target_detach(void *opaque)
{
    struct gdb *g = opaque;
    detach(g);
    monitor_cont(g->monitor, NULL); /* in a state in which no guest may run this one does not, either */
}

static void target_kill(void *opaque)
{
    struct gdb *g = opaque;
    machine_request(g->machine, REQUEST_QUIT, 0);
}

static const struct gdb_target target = {
    .harts = target_harts,
    .stop = target_stop,
    .resume = target_resume,
    .read_register = target_read_register,
    .write_register = target_write_register,
    .read_memory = target_read_memory,
    .write_memory = target_write_memory,
    .point = target_point,
    .hart_state = target_hart_state,
    .command = target_command,
    .detach = target_detach,
    .kill = target_kill,
    .send = target_send,
};

/* --- stops ------------------------------------------------------------------------------------------------ */

/* What a person at the debugger should know beside the stop; NULL: nothing. */
static const char *note_of(enum run_state state)
{
    switch (state) {
    case RUN_INMIGRATE: return "The guest has not arrived yet.";
    case RUN_FINISH_MIGRATE: return "The guest is being handed over.";
    case RUN_POSTMIGRATE: return "The guest has left: it may be running elsewhere.";
    case RUN_SHUTDOWN: return "The guest has powered off.";
    case RUN_INTERNAL_ERROR: return "The guest cannot go on: reset it first.";
    default: return NULL;
    }
}

/* A guest on its way may yet run without anybody's word: that is no stop. */
static bool is_settled(enum run_state state)
{
    return state != RUN_RUNNING && state != RUN_INMIGRATE && state != RUN_FINISH_MIGRATE;
}

static void look_for_stop(struct gdb *g)
{
    unsigned hart;
    enum debug_stop why;
    if (!g->open || g->session.done)
        return;
    bool itself = machine_debug_stopped(g->machine, g->next, &hart, &why);
    if (itself)
        machine_stop(g->machine);
    enum run_state state = machine_state(g->machine);
    if (!is_settled(state) && !g->interrupted)
        return;
    if (!itself)
        hart = g->session.hart;
    else
        g->next = (hart + 1) % machine_harts(g->machine);
    if (itself || gdb_session_waiting(&g->session))
        arm_all(g);
    gdb_session_stopped(&g->session, hart, itself ? GDB_SIGNAL_TRAP : GDB_SIGNAL_INT, note_of(state));
}

static void on_wake(uv_async_t *wake)
{
    look_for_stop(wake->data);
}

void gdb_wake(struct gdb *g)
{
    if (g)
        uv_async_send(g->wake);
}

/* --- the chardev's client ---------------------------------------------------------------------------------- */

static size_t client_can_receive(void *opaque)
{
    const struct gdb *g = opaque;
    return g->out.size - g->out_at > BACKLOG_BUSY_BYTES ? 0 : GDB_PACKET_MAX;
}

static void client_receive(void *opaque, const uint8_t *data, size_t bytes)
{
    struct gdb *g = opaque;
    if (!g->open)
        return;
    gdb_session_receive(&g->session, data, bytes);
    look_for_stop(g);
}

static void client_writable(void *opaque)
{
    struct gdb *g = opaque;
    flush(g);
    chardev_accept_input(g->chardev);
}

/* True: a guest that ran was stopped. */
static bool close_session(struct gdb *g)
{
    bool ran = g->open && !g->session.done && detach(g);
    if (g->open)
        gdb_session_close(&g->session);
    g->open = false;
    return ran;
}

static void client_opened(void *opaque, bool open)
{
    struct gdb *g = opaque;
    if (close_session(g))
        monitor_cont(g->monitor, NULL);
    g->out.size = g->out_at = 0;
    if (!open)
        return;
    stop_guest(g);
    gdb_session_open(&g->session, &target, g);
    g->open = true;
    g->interrupted = false;
}

static const struct chardev_client client = {
    .can_receive = client_can_receive,
    .receive = client_receive,
    .writable = client_writable,
    .opened = client_opened,
};

/* --- life ------------------------------------------------------------------------------------------------- */

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

int gdb_new(uv_loop_t *loop, struct machine *machine, struct monitor *monitor, struct chardev *chardev,
            struct gdb **out, struct err *err)
{
    struct gdb *g = calloc(1, sizeof(*g));
    uv_async_t *wake = malloc(sizeof(*wake));
    int rc = g && wake ? uv_async_init(loop, wake, on_wake) : -ENOMEM;
    if (rc < 0) {
        free(g);
        free(wake);
        return err_set_errno(err, rc, "cannot set up the debugger's stub");
    }
    g->machine = machine;
    g->monitor = monitor;
    g->chardev = chardev;
    g->wake = wake;
    wake->data = g;
    *out = g;
    chardev_attach(chardev, &client, g);
    return 0;
}

void gdb_free(struct gdb *g, int exit_code)
{
    if (!g)
        return;
    if (g->open && !g->session.done)
        gdb_session_exited(&g->session, exit_code);
    chardev_attach(g->chardev, NULL, NULL);
    close_session(g);
    buf_free(&g->out);
    uv_close((uv_handle_t *)g->wake, free_handle);
    free(g);
}
