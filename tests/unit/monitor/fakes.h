/* A machine and a migration made of notes, and a monitor on a real socket in front of them. For test_qmp and test_hmp:
 * the functions here take the place of the library's. */
#pragma once
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include "base/chardev.h"
#include "base/json.h"
#include "base/tls_object.h"
#include "monitor/monitor.h"

struct machine {
    enum run_state state;
    struct machine_config config;
    struct ram ram;
    enum machine_request request;
    int pauses, resumes;
    bool forced;
    struct jit *jit;
};

struct migration {
    struct migration_params params;
    struct migration_info info;
    struct migration_report report;
    struct plan_result plan;
    char started[1024], incoming[1024];
    bool incoming_runs, may_resume_forced;
    int cancels, cancel_answer, start_answer, may_resume_answer;
    int resolved; /* enum migration_answer + 1 */
    enum disk_copy disk_copy;
};

static struct machine machine;
static struct migration migration;
static struct monitor *monitor;
static struct chardev *chardev, *chardev_two; /* the second is a test's own, or NULL */
static uv_loop_t loop;
static char folder[] = "/tmp/godwit-test-XXXXXX", path[64];
static int quits, settled;

/* --- the machine ---------------------------------------------------------------------------------------- */

const char *run_state_name(enum run_state state)
{
    static const char *const names[] = { "prelaunch",      "running",     "paused",   "inmigrate",
                                         "finish-migrate", "postmigrate", "shutdown", "internal-error" };
    return names[state];
}

enum run_state machine_state(struct machine *m)
{
    return m->state;
}

void machine_pause(struct machine *m, enum run_state state)
{
    m->pauses++;
    m->state = state;
    monitor_machine_event(monitor, EVENT_STOP, false);
}

int machine_resume(struct machine *m, bool force, struct err *err)
{
    if (!force && (m->state == RUN_POSTMIGRATE || m->state == RUN_SHUTDOWN))
        return err_set(err, -EPERM, "the fake machine will not run");
    m->resumes++;
    m->forced = force;
    m->state = RUN_RUNNING;
    monitor_machine_event(monitor, EVENT_RESUME, false);
    return 0;
}

const struct machine_config *machine_config_of(const struct machine *m)
{
    return &m->config;
}

struct ram *machine_ram(struct machine *m)
{
    return &m->ram;
}

unsigned machine_harts(const struct machine *m)
{
    return m->config.harts;
}

struct vcpu *machine_vcpu(struct machine *m, unsigned index)
{
    (void)m;
    return (struct vcpu *)(uintptr_t)(index + 1);
}

unsigned machine_devices(struct machine *m, struct device **out, unsigned max)
{
    static const struct device_ops ops = { .name = "ns16550a" };
    static struct device uart = { .ops = &ops, .gpa = 0x10000000, .bytes = 0x100, .irq = 10 };
    (void)m;
    (void)max;
    out[0] = &uart;
    return 1;
}

void machine_request(struct machine *m, enum machine_request request, unsigned code)
{
    (void)code;
    m->request = request;
}

struct jit *machine_jit(struct machine *m)
{
    return m->jit;
}

void jit_stats(struct jit *jit, struct jit_stats *out)
{
    (void)jit;
    *out = (struct jit_stats){ .blocks = 3, .guest_bytes = 100, .host_bytes = 4096, .capacity_bytes = 1 << 20 };
}

void vcpu_stats(struct vcpu *vcpu, struct vcpu_stats *out)
{
    *out = (struct vcpu_stats){ .tid = 1000 + (int)(uintptr_t)vcpu, .code_lookups = 8, .code_jump_hits = 2 };
}

struct hart *vcpu_hart(struct vcpu *vcpu)
{
    static struct hart hart;
    hart.hartid = (uintptr_t)vcpu - 1;
    return &hart;
}

void hart_print(const struct hart *hart, FILE *out)
{
    fprintf(out, "hartid %d\n", (int)hart->hartid);
}

/* --- the migration -------------------------------------------------------------------------------------- */

const char *migration_state_name(enum migration_state state)
{
    static const char *const names[] = { "none",   "setup",      "active",    "device",    "completed",
                                         "failed", "cancelling", "cancelled", "unresolved" };
    return names[state];
}

struct tls_store *migration_objects(struct migration *m)
{
    static struct tls_store *store; /* of the one monitor there is */
    (void)m;
    if (!store)
        assert_int_equal(tls_store_new(&store, NULL), 0);
    return store;
}

struct migration_params *migration_params_of(struct migration *m)
{
    return &m->params;
}

static void migration_moves(enum migration_state state)
{
    migration.info.state = state;
    monitor_migration_event(monitor, MIGRATION_EVENT_STATE, state, 0);
}

int migration_copy_disks(struct migration *m, enum disk_copy copy, struct err *err)
{
    (void)err;
    m->disk_copy = copy;
    return 0;
}

int migration_start(struct migration *m, const char *uri, struct err *err)
{
    if (m->start_answer < 0)
        return err_set(err, m->start_answer, "the fake migration will not start");
    snprintf(m->started, sizeof m->started, "%s", uri);
    snprintf(m->info.uri, sizeof m->info.uri, "%.200s", uri);
    migration_moves(MIGRATION_SETUP);
    return 0;
}

int migration_rehearse(struct migration *m, const char *uri, struct err *err)
{
    m->info.purpose = PURPOSE_REHEARSAL;
    return migration_start(m, uri, err);
}

int migration_plan(struct migration *m, const char *uri, struct err *err)
{
    m->info.purpose = PURPOSE_PLAN;
    return migration_start(m, uri, err);
}

void migration_plan_of(struct migration *m, struct plan_result *out)
{
    *out = m->plan;
}

int migration_cancel(struct migration *m)
{
    m->cancels++;
    if (m->cancel_answer == 0 && m->info.state == MIGRATION_ACTIVE)
        migration_moves(MIGRATION_CANCELLED);
    return m->cancel_answer;
}

int migration_incoming(struct migration *m, const char *uri, bool run, struct err *err)
{
    (void)err;
    snprintf(m->incoming, sizeof m->incoming, "%s", uri);
    m->incoming_runs = run;
    m->info.incoming = true;
    migration_moves(MIGRATION_SETUP);
    return 0;
}

void migration_run_on_arrival(struct migration *m, bool run)
{
    m->incoming_runs = run;
}

int migration_resolve(struct migration *m, enum migration_answer answer, struct err *err)
{
    if (m->info.state != MIGRATION_UNRESOLVED)
        return err_set(err, -EINVAL, "nothing to resolve");
    m->resolved = (int)answer + 1;
    return 0;
}

int migration_may_resume(struct migration *m, bool *force, struct err *err)
{
    *force = m->may_resume_forced;
    return m->may_resume_answer < 0 ? err_set(err, m->may_resume_answer, "the guest is elsewhere") : 0;
}

const char *migration_listening(struct migration *m)
{
    (void)m;
    return "";
}

void migration_report(struct migration *m, struct migration_report *out)
{
    *out = m->report;
    if (!out->eta.reason)
        out->eta.reason = "nobody knows";
}

void migration_query(struct migration *m, struct migration_info *out)
{
    *out = m->info;
}

/* --- the person or program at the socket ---------------------------------------------------------------- */

static int peer;
static char heard[512 * 1024];

static void on_settle(void *opaque)
{
    (void)opaque;
    settled++;
}

static void count_quit(void *opaque)
{
    (void)opaque;
    quits++;
}

static __attribute__((unused)) int dial(void)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

/* Turn the loop until `wanted` has been heard on fd; what was heard is in `heard`. */
static __attribute__((unused)) bool hear_on(int fd, const char *wanted)
{
    size_t bytes = 0;
    heard[0] = '\0';
    for (int turns = 0; turns < 10000; turns++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        ssize_t n = read(fd, heard + bytes, sizeof heard - 1 - bytes);
        bytes += n > 0 ? (size_t)n : 0;
        heard[bytes] = '\0';
        if (strstr(heard, wanted))
            return true;
        if (n <= 0)
            poll(NULL, 0, turns < 100 ? 0 : 1);
    }
    return false;
}

static __attribute__((unused)) void tell(const char *text)
{
    assert_int_equal(write(peer, text, strlen(text)), (ssize_t)strlen(text));
}

static __attribute__((unused)) void assert_heard(const char *wanted)
{
    if (!hear_on(peer, wanted))
        fail_msg("'%s' was not heard, only '%s'", wanted, heard);
}

/* A guest that runs, nothing asked for yet. */
static void set_up_fakes(void)
{
    memset(&machine, 0, sizeof machine);
    memset(&migration, 0, sizeof migration);
    machine.state = RUN_RUNNING;
    machine.config.harts = 2;
    machine.ram.blocks = 1;
    snprintf(machine.ram.block[0].name, RAM_NAME_MAX, "riscv_virt_board.ram");
    machine.ram.block[0].gpa = 0x80000000;
    machine.ram.block[0].bytes = 64 << 20;
    params_init(&migration.params);
    quits = settled = 0;
}

static __attribute__((unused)) void set_up(enum monitor_mode mode)
{
    set_up_fakes();
    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/mon", folder);
    char spec[128];
    snprintf(spec, sizeof spec, "unix:%s,server=on,wait=off", path);
    struct monitor_context context = { .loop = &loop,
                                       .machine = &machine,
                                       .migration = &migration,
                                       .quit = count_quit,
                                       .settle = on_settle,
                                       .run_on_arrival = true,
                                       .version = "0.1" };
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(chardev_open("mon0", spec, &loop, &chardev, NULL), 0);
    assert_int_equal(monitor_new(&context, &monitor, NULL), 0);
    assert_int_equal(monitor_add(monitor, chardev, mode, NULL), 0);
    peer = dial();
}

static __attribute__((unused)) int tear_down(void **state)
{
    (void)state;
    close(peer);
    monitor_free(monitor);
    chardev_free(chardev);
    chardev_free(chardev_two);
    chardev_two = NULL;
    for (int i = 0; i < 3; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    rmdir(folder);
    return uv_loop_close(&loop); /* busy when a handle is left */
}
