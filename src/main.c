/* godwit: the command line becomes a machine, a migration and monitors; then the control loop runs.
 *
 * The main thread owns the machine's life and takes the signals. Others wake it: a guest that powers off, a
 * migration that changed its state. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "config.h" /* written by configure: GODWIT_VERSION */

#include "base/chardev.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/tls_object.h"
#include "machine/machine.h"
#include "machine/options.h"
#include "migration/lease.h"
#include "migration/migration.h"
#include "migration/params.h"
#include "migration/released.h"
#include "monitor/client.h"
#include "monitor/gdb.h"
#include "monitor/monitor.h"
#include "vcpu/jit/perf.h"
#include "vcpu/trace.h"

enum { APP_ENDS_MAX = OPTION_CHARDEVS_MAX * 2 + OPTION_MONITORS_MAX + 5, APP_SIGNALS = 4 };

/* A host end that somebody may take by name. */
struct end {
    char id[OPTION_ID_MAX];
    struct chardev *chardev; /* the serial side of a mux */
    struct chardev *monitor; /* a mux's other side, or NULL */
    bool taken, monitor_taken;
    bool exposed; /* on tcp, for whoever comes */
};

struct app {
    struct options options;
    uv_loop_t *loop;
    struct end end[APP_ENDS_MAX];
    unsigned ends;
    struct machine *machine;
    struct migration *migration;
    struct monitor *monitor;
    struct gdb *gdb; /* NULL: no debugger may come */
    uv_async_t wake;
    uv_signal_t signal[APP_SIGNALS];
    unsigned signals;
    char last_refused[ERR_TEXT_MAX]; /* why somebody who called was sent away, as it was told */
    bool leaving;                    /* the migration of -migrate is under way */
    bool quitting;
    bool pidfile_written;
    int ready_fd; /* -daemonize: the waiting parent; -1 none */
    int exit_code;
};

static void complain(const struct err *err)
{
    fprintf(stderr, "godwit: %s\n", err->text);
}

static void quit(struct app *app, int code)
{
    if (!app->quitting)
        app->exit_code = code;
    app->quitting = true;
    uv_stop(app->loop);
}

static void quit_asked(void *opaque)
{
    quit(opaque, 0);
}

static void take_requests(struct app *app);

static void settle_requests(void *opaque)
{
    take_requests(opaque);
}

/* --- host ends ------------------------------------------------------------------------------------------- */

static struct end *end_find(struct app *app, const char *id)
{
    for (unsigned i = 0; i < app->ends; i++) {
        if (strcmp(app->end[i].id, id) == 0)
            return &app->end[i];
    }
    return NULL;
}

static int end_open(struct app *app, const char *id, const char *spec, bool mux, struct end **out, struct err *err)
{
    struct chardev *back;
    if (app->ends == APP_ENDS_MAX)
        return err_set(err, -ENOSPC, "more than %d host ends", APP_ENDS_MAX);
    int result = chardev_open(id, spec, app->loop, &back, err);
    if (result < 0)
        return result;
    if (strstr(chardev_describe(back), "/dev/pts/"))
        printf("char device redirected to %s (label %s)\n", strstr(chardev_describe(back), "/dev/"), id);
    fflush(stdout);
    struct end *end = &app->end[app->ends];
    *end = (struct end){ .chardev = back, .exposed = chardev_spec_exposed(spec) };
    snprintf(end->id, sizeof(end->id), "%s", id);
    if (mux)
        result = chardev_mux(back, quit_asked, app, &end->chardev, &end->monitor, err);
    if (result < 0)
        return result;
    app->ends++;
    *out = end;
    return 0;
}

/* "chardev:ID" names one that is there; anything else is opened. */
static int end_for(struct app *app, const char *option, const char *id, const char *spec, struct end **out,
                   struct err *err)
{
    if (strncmp(spec, "chardev:", 8) == 0) {
        *out = end_find(app, spec + 8);
        return *out ? 0 : err_set(err, -ENOENT, "-%s: there is no chardev '%s'", option, spec + 8);
    }
    int result = end_open(app, id, spec, chardev_spec_mux(spec), out, err);
    if (result < 0)
        err_prefix(err, "-%s", option);
    return result;
}

static int end_take(struct end *end, const char *option, struct chardev **out, struct err *err)
{
    if (end->taken)
        return err_set(err, -EBUSY, "-%s: the chardev '%s' is in use already", option, end->id);
    end->taken = true;
    *out = end->chardev;
    return 0;
}

static int chardevs_open(struct app *app, struct err *err)
{
    for (unsigned i = 0; i < app->options.chardevs; i++) {
        const struct option_chardev *one = &app->options.chardev[i];
        struct end *end;
        if (end_open(app, one->id, one->spec, one->mux, &end, err) < 0)
            return err_prefix(err, "-chardev %s", one->id);
    }
    return 0;
}

static struct chardev *console_find(void *opaque, const char *id)
{
    struct end *end = end_find(opaque, id);
    struct chardev *chardev = NULL;
    if (end)
        end_take(end, "device", &chardev, NULL);
    return chardev;
}

/* --- monitors -------------------------------------------------------------------------------------------- */

/* A monitor commands the guest, and this process. */
static int monitor_start(struct app *app, const struct end *end, const char *option, struct chardev *chardev,
                         enum monitor_mode mode, struct err *err)
{
    if (end->exposed)
        return err_set(
            err, -EPERM,
            "-%s: a monitor on tcp obeys whoever connects: use unix:PATH, or add insecure=on if that is meant", option);
    return monitor_add(app->monitor, chardev, mode, err);
}

static int monitor_session(struct app *app, const struct option_monitor *option, unsigned number, struct err *err)
{
    const char *what = option->qmp ? "qmp" : "monitor";
    char id[OPTION_ID_MAX];
    struct end *end;
    struct chardev *chardev = NULL;
    snprintf(id, sizeof(id), "compat_monitor%u", number);
    int result = end_for(app, what, id, option->spec, &end, err);
    if (result < 0)
        return result;
    if (end->monitor && !end->monitor_taken) {
        end->monitor_taken = true;
        chardev = end->monitor;
    } else {
        result = end_take(end, what, &chardev, err);
        if (result < 0)
            return result;
    }
    return monitor_start(app, end, what, chardev, option->qmp ? MONITOR_QMP : MONITOR_HMP, err);
}

static int monitors_open(struct app *app, struct err *err)
{
    struct monitor_context context = {
        .loop = app->loop,
        .machine = app->machine,
        .migration = app->migration,
        .quit = quit_asked,
        .settle = settle_requests,
        .opaque = app,
        .run_on_arrival = !app->options.start_paused,
        .version = GODWIT_VERSION,
    };
    int result = monitor_new(&context, &app->monitor, err);
    for (unsigned i = 0; result == 0 && i < app->options.monitors; i++)
        result = monitor_session(app, &app->options.monitor[i], i, err);
    /* A mux whose other side nobody asked for gets a monitor for people. */
    for (unsigned i = 0; result == 0 && i < app->ends; i++) {
        struct end *end = &app->end[i];
        if (end->monitor && !end->monitor_taken) {
            end->monitor_taken = true;
            result = monitor_start(app, end, "serial", end->monitor, MONITOR_HMP, err);
        }
    }
    return result;
}

static int gdb_open(struct app *app, struct err *err)
{
    struct end *end;
    struct chardev *chardev = NULL;
    if (!app->options.gdb[0])
        return 0;
    int result = end_for(app, "gdb", "gdb", app->options.gdb, &end, err);
    if (result == 0)
        result = end_take(end, "gdb", &chardev, err);
    return result < 0 ? result : gdb_new(app->loop, app->machine, app->monitor, chardev, &app->gdb, err);
}

/* --- what wakes the loop --------------------------------------------------------------------------------- */

static void on_request(void *opaque)
{
    struct app *app = opaque;
    uv_async_send(&app->wake);
}

static void on_machine_event(void *opaque, enum machine_event event, bool by_guest)
{
    struct app *app = opaque;
    monitor_machine_event(app->monitor, event, by_guest);
    gdb_wake(app->gdb);
}

static void on_migration_event(void *opaque, enum migration_event event, enum migration_state state, uint64_t round)
{
    struct app *app = opaque;
    monitor_migration_event(app->monitor, event, state, round);
    gdb_wake(app->gdb);
    uv_async_send(&app->wake);
}

static void guest_off(struct app *app, int code)
{
    if (app->options.machine.no_shutdown)
        machine_pause(app->machine, RUN_SHUTDOWN);
    else
        quit(app, code);
}

static void guest_reset(struct app *app)
{
    struct err err = { 0 };
    if (app->options.machine.no_reboot) {
        guest_off(app, 0);
        return;
    }
    if (machine_reset(app->machine, &err) < 0 && err.code != -EBUSY) {
        complain(&err);
        machine_pause(app->machine, RUN_INTERNAL_ERROR);
    }
}

static void take_requests(struct app *app)
{
    for (;;) {
        unsigned code;
        switch (machine_take_request(app->machine, &code)) {
        case REQUEST_NONE: return;
        case REQUEST_POWERDOWN: break; /* virt has no power button: monitors were told, that is all */
        case REQUEST_QUIT: quit(app, 0); break;
        case REQUEST_SHUTDOWN: guest_off(app, 0); break;
        case REQUEST_FAIL: guest_off(app, code & 0xff ? (int)(code & 0xff) : 1); break;
        case REQUEST_RESET: guest_reset(app); break;
        case REQUEST_IO_ERROR: machine_stop_for_disk(app->machine); break;
        }
    }
}

static void look_at_migration(struct app *app)
{
    struct migration_info info;
    migration_query(app->migration, &info);
    if (info.incoming && info.state == MIGRATION_SETUP && strcmp(info.error.text, app->last_refused) != 0) {
        strcpy(app->last_refused, info.error.text);
        if (info.error.code)
            fprintf(stderr, "godwit: still waiting for a guest: %s\n", info.error.text);
    }
    /* Whoever asked through a monitor is told there, and may send another. */
    bool asked_here = app->options.incoming[0] && strcmp(app->options.incoming, "defer") != 0;
    if (info.incoming && info.state == MIGRATION_FAILED && asked_here && machine_state(app->machine) == RUN_INMIGRATE) {
        fprintf(stderr, "godwit: the incoming guest was not loaded: %s\n", info.error.text);
        quit(app, 1);
    }
    if (!app->leaving || info.incoming)
        return;
    if (info.state == MIGRATION_COMPLETED) {
        quit(app, 0);
    } else if (info.state == MIGRATION_FAILED || info.state == MIGRATION_CANCELLED) {
        app->leaving = false;
        fprintf(stderr, "godwit: the guest did not leave%s%s\n", info.error.text[0] ? ": " : "", info.error.text);
    } else if (info.state == MIGRATION_UNRESOLVED) {
        fprintf(stderr, "godwit: it is not known where the guest is: %s\n", info.error.text);
    }
}

static void on_wake(uv_async_t *handle)
{
    struct app *app = handle->data;
    take_requests(app);
    look_at_migration(app);
}

static void leave(struct app *app)
{
    struct err err = { 0 };
    if (app->leaving)
        return;
    app->leaving = true;
    if (migration_start(app->migration, app->options.migrate, &err) < 0) {
        app->leaving = false;
        complain(&err);
    }
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct app *app = handle->data;
    if (number == SIGUSR1)
        leave(app);
    else
        machine_request(app->machine, REQUEST_QUIT, 0);
}

static void signals_watch(struct app *app)
{
    static const int numbers[] = { SIGINT, SIGTERM, SIGHUP, SIGUSR1 };
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error of whoever writes it (EFBIG) */
    for (unsigned i = 0; i < APP_SIGNALS; i++) {
        if (numbers[i] == SIGUSR1 && !app->options.migrate_on_signal)
            continue;
        uv_signal_t *handle = &app->signal[app->signals++];
        uv_signal_init(app->loop, handle);
        handle->data = app;
        uv_signal_start(handle, on_signal, numbers[i]);
    }
}

/* --- going into the background --------------------------------------------------------------------------- */

/* Before any thread is there. The parent waits until the child says that everything is set up. */
static int daemon_fork(struct app *app, struct err *err)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return err_set_errno(err, -errno, "-daemonize: no pipe");
    fflush(NULL);
    pid_t child = fork();
    if (child < 0)
        return err_set_errno(err, -errno, "-daemonize: no process");
    if (child > 0) {
        char ready;
        ssize_t got;
        close(fds[1]);
        do
            got = read(fds[0], &ready, 1);
        while (got < 0 && errno == EINTR);
        _exit(got == 1 ? 0 : 1);
    }
    close(fds[0]);
    setsid();
    app->ready_fd = fds[1];
    return 0;
}

static int daemon_ready(struct app *app, struct err *err)
{
    if (app->ready_fd < 0)
        return 0;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return err_set_errno(err, -errno, "-daemonize");
    fflush(NULL);
    for (int fd = 0; fd <= 2; fd++)
        dup2(null, fd);
    close(null);
    if (write(app->ready_fd, "", 1) != 1)
        return err_set_errno(err, -errno, "-daemonize");
    close(app->ready_fd);
    app->ready_fd = -1;
    return 0;
}

static int pidfile_write(struct app *app, struct err *err)
{
    const char *path = app->options.pidfile;
    if (!path[0])
        return 0;
    FILE *file = fopen(path, "we");
    if (!file)
        return err_set_errno(err, -errno, "-pidfile: cannot write %s", path);
    fprintf(file, "%ld\n", (long)getpid());
    if (fclose(file) != 0)
        return err_set_errno(err, -errno, "-pidfile: cannot write %s", path);
    app->pidfile_written = true;
    return 0;
}

/* --- the whole ------------------------------------------------------------------------------------------- */

static int tunables_set(struct app *app, struct err *err)
{
    for (unsigned i = 0; i < app->options.tunables; i++) {
        const struct option_tunable *one = &app->options.tunable[i];
        if (param_set_text(migration_params_of(app->migration), one->name, one->value, err) < 0)
            return err_prefix(err, "-%s", one->option);
    }
    return 0;
}

static int objects_make(struct app *app, struct err *err)
{
    for (unsigned i = 0; i < app->options.objects; i++) {
        if (tls_store_add_text(migration_objects(app->migration), app->options.object[i], err) < 0)
            return err_prefix(err, "-object");
    }
    return 0;
}

static int machine_make(struct app *app, struct err *err)
{
    struct machine_hosts hosts = { .find_chardev = console_find, .opaque = app };
    struct end *serial = NULL;
    int result = end_for(app, "serial", "serial0", app->options.serial, &serial, err);
    if (result == 0)
        result = end_take(serial, "serial", &hosts.serial, err);
    if (result == 0)
        result = machine_new(&app->options.machine, &hosts, &app->machine, err);
    if (result == 0 && !app->options.incoming[0]) /* its disks are ours now: whoever still holds a copy is late */
        lease_count_up(&app->options.machine, NULL, "started");
    if (result == 0)
        result = migration_new(app->machine, &app->migration, err);
    if (result == 0)
        result = objects_make(app, err);
    if (result == 0)
        result = tunables_set(app, err);
    if (result == 0 && app->options.sandbox[0])
        migration_sandbox(app->migration,
                          strcmp(app->options.sandbox, "on") == 0 ? MIGRATION_SANDBOX_MUST : MIGRATION_SANDBOX_OFF);
    return result;
}

static int guest_start(struct app *app, struct err *err)
{
    const struct options *options = &app->options;
    int result = 0;
    if (!options->incoming[0])
        result = machine_boot(app->machine, err);
    else if (strcmp(options->incoming, "defer") != 0)
        result = migration_incoming(app->migration, options->incoming, !options->start_paused, err);
    if (result == 0)
        result = pidfile_write(app, err);
    if (result == 0)
        result = daemon_ready(app, err);
    if (result < 0 || options->incoming[0])
        return result;
    if (!options->start_paused)
        result = machine_resume(app->machine, false, err);
    if (result == 0 && options->migrate[0] && !options->migrate_on_signal)
        leave(app);
    return result;
}

/* Where hand-overs are written down; and a guest that may be running elsewhere is not started here. */
static int released_read(const struct options *options, struct err *err)
{
    char beside[MACHINE_TEXT_MAX + 8] = "";
    if (options->pidfile[0])
        snprintf(beside, sizeof(beside), "%s.state", options->pidfile);
    if (released_set_folder(options->state_dir[0] ? options->state_dir : beside, err) < 0)
        return err_prefix(err, "-state-dir");
    return options->incoming[0] ? 0 : released_check(&options->machine, err);
}

static int app_start(struct app *app, struct err *err)
{
    int result = app->options.daemonize ? daemon_fork(app, err) : 0;
    if (result == 0)
        result = released_read(&app->options, err);
    if (result < 0)
        return result;
    result = trace_start(app->options.trace, app->options.trace_path, err);
    if (result == 0)
        result = perf_start(app->options.perf_map, app->options.jit_dump, err);
    if (result < 0)
        return result;
    app->loop = uv_default_loop();
    uv_async_init(app->loop, &app->wake, on_wake);
    app->wake.data = app;
    result = chardevs_open(app, err);
    if (result == 0)
        result = machine_make(app, err);
    if (result == 0)
        result = monitors_open(app, err);
    if (result == 0)
        result = gdb_open(app, err);
    if (result < 0)
        return result;
    machine_on_request(app->machine, on_request, app);
    machine_on_event(app->machine, on_machine_event, app);
    migration_on_event(app->migration, on_migration_event, app);
    signals_watch(app);
    return guest_start(app, err);
}

static void traces_end(struct app *app)
{
    struct err err = { 0 };
    bool failed = perf_stop(&err) < 0;
    if (failed)
        complain(&err);
    err_clear(&err);
    if (trace_stop(&err) < 0) {
        complain(&err);
        failed = true;
    }
    if (failed && app->exit_code == 0)
        app->exit_code = 1;
}

static void app_end(struct app *app)
{
    if (app->migration)
        migration_free(app->migration);
    gdb_free(app->gdb, app->exit_code);
    app->gdb = NULL;
    machine_free(app->machine); /* its last events still find the monitor */
    traces_end(app);
    monitor_free(app->monitor);
    for (unsigned i = 0; i < app->ends; i++) {
        chardev_free(app->end[i].monitor);
        chardev_free(app->end[i].chardev);
    }
    for (unsigned i = 0; i < app->signals; i++)
        uv_close((uv_handle_t *)&app->signal[i], NULL);
    if (app->loop) {
        uv_close((uv_handle_t *)&app->wake, NULL);
        uv_run(app->loop, UV_RUN_DEFAULT); /* what was closed is freed on its last turn */
        uv_loop_close(app->loop);
    }
    if (app->pidfile_written)
        unlink(app->options.pidfile);
}

/* jemalloc, when it is linked. */
int mallctl(const char *name, void *old, size_t *old_bytes, void *new, size_t new_bytes) __attribute__((weak));

static void version_print(void)
{
    const char *malloc_version;
    size_t bytes = sizeof(malloc_version);
    printf("godwit emulator version %s\n", GODWIT_VERSION);
    printf("the machine and the monitors are those of QEMU %d.%d\n", MONITOR_QEMU_MAJOR, MONITOR_QEMU_MINOR);
    if (mallctl && mallctl("version", &malloc_version, &bytes, NULL, 0) == 0)
        printf("jemalloc %s\n", malloc_version);
    else
        printf("no jemalloc: the C library's malloc\n");
}

int main(int argc, char **argv)
{
    static struct app app = { .ready_fd = -1 };
    struct err err = { 0 };
    if (argc > 1 && strcmp(argv[1], "migrate") == 0)
        return client_main(argc - 1, argv + 1);
    if (options_parse(argc, argv, &app.options, &err) < 0) {
        complain(&err);
        return 1;
    }
    if (app.options.help || app.options.version || app.options.trace_help || app.options.fault_help) {
        app.options.help         ? options_help(stdout)
        : app.options.version    ? version_print()
        : app.options.trace_help ? trace_help(stdout)
                                 : failpoint_help(stdout);
        return 0;
    }
    if (app_start(&app, &err) < 0) {
        complain(&err);
        app.exit_code = 1;
    } else {
        uv_run(app.loop, UV_RUN_DEFAULT);
    }
    app_end(&app);
    return app.exit_code;
}
