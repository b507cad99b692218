#include "machine/machine.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "machine/boot.h"
#include "machine/debug.h"
#include "machine/machine_impl.h"
#include "machine/warm.h"
#include "vcpu/jit/jit.h"

/* --- making and freeing ---------------------------------------------------------------------------------- */

static void machine_request_note(struct machine *m, enum machine_request request, unsigned code, bool by_guest);

static void machine_guest_power(void *opaque, enum machine_request request, unsigned code)
{
    machine_request_note(opaque, request, code, request != REQUEST_IO_ERROR);
}

static int machine_make_harts(struct machine *m, struct err *err)
{
    for (unsigned i = 0; i < m->config.harts; i++) {
        struct vcpu_config config = {
            .index = i,
            .bus = &m->bus,
            .clock = &m->clock,
            .timers = m->timers,
            .debug_threads = m->config.debug_threads,
            .jit = m->jit,
        };
        m->vcpu[i] = vcpu_new(&config, err);
        if (!m->vcpu[i])
            return err_prefix(err, "hart %u", i);
        hart_reset(vcpu_hart(m->vcpu[i]), i, BOOT_RESET_PC);
    }
    return 0;
}

/* A host that no code can be generated for interprets; that is no error. */
static int machine_make_jit(struct machine *m, struct err *err)
{
    struct jit_config config = { .ram = m->ram, .lockstep = m->config.lockstep };
    int result = m->config.interpret ? 0 : jit_new(&m->jit, &config, err);

    return result == -ENOTSUP && !m->config.lockstep ? 0 : result;
}

static int machine_make(struct machine *m, struct err *err)
{
    m->ram = ram_new();
    if (!m->ram)
        return err_set(err, -ENOMEM, "no memory for the machine");
    int result = board_add_ram(m->ram, &m->config, err);
    if (result < 0)
        return result;
    bus_init(&m->bus, m->ram);
    guest_clock_init(&m->clock);
    m->timers = timers_new(&m->clock, err);
    if (!m->timers)
        return err->code;
    result = machine_make_jit(m, err);
    if (result < 0)
        return result;
    result = machine_make_harts(m, err);
    if (result < 0)
        return result;
    m->board = (struct board){
        .config = &m->config,
        .hosts = &m->hosts,
        .ram = m->ram,
        .bus = &m->bus,
        .clock = &m->clock,
        .timers = m->timers,
        .drives = &m->drives,
        .vcpu = m->vcpu,
        .power = machine_guest_power,
        .opaque = m,
    };
    result = drives_open(&m->drives, &m->config, err);
    if (result == 0)
        result = board_add_devices(&m->board, err);
    for (unsigned i = 0; result == 0 && i < m->config.harts; i++)
        result = vcpu_start(m->vcpu[i], err);
    /* A thread that had not parked yet when it is let go would run on what it derived from an empty hart. */
    for (unsigned i = 0; result == 0 && i < m->config.harts; i++)
        vcpu_pause_wait(m->vcpu[i]);
    return result;
}

static int machine_check(const struct machine_config *config, struct err *err)
{
    if (config->harts < 1 || config->harts > HART_MAX)
        return err_set(err, -EINVAL, "%u harts are not within 1 to %d", config->harts, HART_MAX);
    if (config->ram_bytes < MACHINE_RAM_MIN_BYTES || config->ram_bytes > MACHINE_RAM_MAX_BYTES ||
        config->ram_bytes % PAGE_BYTES)
        return err_set(err, -EINVAL, "a RAM size of %llu bytes is not possible", (unsigned long long)config->ram_bytes);
    return 0;
}

int machine_new(const struct machine_config *config, const struct machine_hosts *hosts, struct machine **out,
                struct err *err)
{
    struct err local = { 0 };
    int result = machine_check(config, err);
    *out = NULL;
    if (result < 0)
        return result;
    struct machine *m = calloc(1, sizeof(*m));
    if (!m)
        return err_set(err, -ENOMEM, "no memory for the machine");
    m->config = *config;
    m->hosts = *hosts;
    lock_init(&m->lock, LOCK_MACHINE);
    atomic_init(&m->state, config->incoming ? RUN_INMIGRATE : RUN_PRELAUNCH);
    result = machine_make(m, err ? err : &local);
    if (result < 0) {
        machine_free(m);
        return result;
    }
    *out = m;
    return 0;
}

void machine_free(struct machine *m)
{
    if (!m)
        return;
    machine_warm_end(m);
    m->event = NULL;
    if (m->ram && m->board.devices)
        machine_pause(m, RUN_PAUSED);
    /* Devices first, while the wires they may pull still lead somewhere. */
    board_free_devices(&m->board);
    drives_close(&m->drives);
    for (unsigned i = 0; i < HART_MAX; i++)
        vcpu_free(m->vcpu[i]);
    jit_free(m->jit);
    if (m->timers)
        timers_free(m->timers);
    if (m->ram)
        ram_free(m->ram);
    lock_destroy(&m->lock);
    free(m);
}

/* Paused. */
static int machine_load_images(struct machine *m, struct err *err)
{
    struct boot_plan plan;
    int result = boot_load(&m->config, m->ram, &plan, err);
    if (result == 0)
        tohost_watch(&m->tohost, &m->board, plan.tohost);
    return result;
}

int machine_boot(struct machine *m, struct err *err)
{
    assert(!m->running && !m->config.incoming);
    ram_want_huge_pages(m->ram);
    int result = machine_load_images(m, err);
    if (result < 0)
        return result;
    machine_reset_parts(m);
    return 0;
}

/* --- looking --------------------------------------------------------------------------------------------- */

const char *run_state_name(enum run_state state)
{
    static const char *const names[] = {
        [RUN_PRELAUNCH] = "prelaunch",
        [RUN_RUNNING] = "running",
        [RUN_PAUSED] = "paused",
        [RUN_INMIGRATE] = "inmigrate",
        [RUN_FINISH_MIGRATE] = "finish-migrate",
        [RUN_POSTMIGRATE] = "postmigrate",
        [RUN_SHUTDOWN] = "shutdown",
        [RUN_INTERNAL_ERROR] = "internal-error",
        [RUN_IO_ERROR] = "io-error",
    };
    return names[state];
}

const struct machine_config *machine_config_of(const struct machine *m)
{
    return &m->config;
}

struct jit *machine_jit(struct machine *m)
{
    return m->jit;
}

struct ram *machine_ram(struct machine *m)
{
    return m->ram;
}

struct guest_clock *machine_clock(struct machine *m)
{
    return &m->clock;
}

unsigned machine_harts(const struct machine *m)
{
    return m->config.harts;
}

struct vcpu *machine_vcpu(struct machine *m, unsigned index)
{
    assert(index < m->config.harts);
    return m->vcpu[index];
}

unsigned machine_devices(struct machine *m, struct device **out, unsigned max)
{
    unsigned count = m->board.devices < max ? m->board.devices : max;
    memcpy(out, m->board.device, count * sizeof(out[0]));
    return count;
}

enum run_state machine_state(struct machine *m)
{
    return (enum run_state)atomic_load_explicit(&m->state, memory_order_acquire);
}

int64_t machine_last_pause_ns(struct machine *m)
{
    return atomic_load_explicit(&m->last_pause_ns, memory_order_relaxed);
}

int64_t machine_last_resume_ns(struct machine *m)
{
    return atomic_load_explicit(&m->last_resume_ns, memory_order_relaxed);
}

/* --- running and pausing --------------------------------------------------------------------------------- */

static void machine_set_state(struct machine *m, enum run_state state)
{
    assert(lock_held(&m->lock));
    atomic_store_explicit(&m->state, (int)state, memory_order_release);
}

static void machine_halt(struct machine *m)
{
    assert(lock_held(&m->lock) && m->running);
    for (unsigned i = 0; i < m->config.harts; i++)
        vcpu_pause_request(m->vcpu[i]);
    for (unsigned i = 0; i < m->config.harts; i++)
        vcpu_pause_wait(m->vcpu[i]);
    drives_hurry(&m->drives); /* no drain waits for a quota */
    atomic_store_explicit(&m->last_pause_ns, clock_now_ns(), memory_order_relaxed);
    if (m->jit)
        jit_unsettle(m->jit);
    guest_clock_stop(&m->clock);
    timers_clock_changed(m->timers);
    for (unsigned i = 0; i < m->board.devices; i++) {
        struct device *device = m->board.device[i];
        if (device->ops->drain)
            device->ops->drain(device);
    }
    machine_note_guest(m);
    m->running = false;
}

static void machine_go(struct machine *m)
{
    assert(lock_held(&m->lock) && !m->running);
    m->running = true;
    /* What a disk failed at is tried again now: an old wish to stop for it is void. */
    atomic_fetch_and_explicit(&m->requests, ~(1u << REQUEST_IO_ERROR), memory_order_relaxed);
    for (unsigned i = 0; i < m->board.devices; i++) {
        struct device *device = m->board.device[i];
        if (device->ops->resume)
            device->ops->resume(device);
    }
    guest_clock_start(&m->clock);
    timers_clock_changed(m->timers);
    atomic_store_explicit(&m->last_resume_ns, clock_now_ns(), memory_order_relaxed);
    for (unsigned i = 0; i < m->config.harts; i++)
        vcpu_resume(m->vcpu[i]);
}

void machine_pause(struct machine *m, enum run_state state)
{
    assert(state != RUN_RUNNING);
    lock(&m->lock);
    bool ran = m->running;
    if (ran)
        machine_halt(m);
    if (machine_state(m) == RUN_FINISH_MIGRATE && state != RUN_POSTMIGRATE)
        m->before = state;
    else
        machine_set_state(m, state);
    if (machine_state(m) == RUN_POSTMIGRATE)
        drives_let_go(&m->drives);
    unlock(&m->lock);
    if (ran)
        machine_emit(m, EVENT_STOP, false);
}

/* Only a guest that runs, or will when its hand-over fails. */
static void machine_stop_as(struct machine *m, enum run_state state)
{
    lock(&m->lock);
    bool ran = m->running;
    if (ran) {
        machine_halt(m);
        machine_set_state(m, state);
    } else if (machine_state(m) == RUN_FINISH_MIGRATE && m->before == RUN_RUNNING) {
        m->before = state;
    }
    unlock(&m->lock);
    if (ran)
        machine_emit(m, EVENT_STOP, false);
}

void machine_stop(struct machine *m)
{
    machine_stop_as(m, RUN_PAUSED);
}

void machine_stop_for_disk(struct machine *m)
{
    machine_stop_as(m, RUN_IO_ERROR);
}

/* With the lock held; 1: it was not running, the caller emits RESUME. Less than 0: it does not run, its disks are not ours. */
static int machine_run(struct machine *m, struct err *err)
{
    bool go = !m->running;
    int result = go ? drives_take(&m->drives, err) : 0;
    if (result < 0)
        return result;
    if (go)
        machine_go(m);
    machine_set_state(m, RUN_RUNNING);
    return go;
}

static void machine_say_resumed(struct machine *m)
{
    machine_emit(m, EVENT_RESUME, false);
    /* what the guest asked for while it was on its way */
    if (m->notify && atomic_load_explicit(&m->requests, memory_order_relaxed))
        m->notify(m->notify_opaque);
}

enum run_state machine_hand_over(struct machine *m)
{
    lock(&m->lock);
    enum run_state found = m->off ? RUN_SHUTDOWN : machine_state(m);
    bool ran = found == RUN_RUNNING;
    if (ran)
        machine_halt(m);
    if (ran || found == RUN_PAUSED || found == RUN_PRELAUNCH) {
        m->before = found;
        machine_set_state(m, RUN_FINISH_MIGRATE);
    }
    unlock(&m->lock);
    if (ran)
        machine_emit(m, EVENT_STOP, false);
    return found;
}

void machine_hand_back(struct machine *m)
{
    lock(&m->lock);
    enum run_state state = machine_state(m);
    bool back = state == RUN_FINISH_MIGRATE || state == RUN_POSTMIGRATE;
    int go = back && m->before == RUN_RUNNING ? machine_run(m, NULL) : 0;
    if (back && go < 1) /* with disks that somebody else has now it is paused, and `cont` says why */
        machine_set_state(m, go < 0 ? RUN_PAUSED : m->before);
    unlock(&m->lock);
    if (go > 0)
        machine_say_resumed(m);
}

int machine_flush_disks(struct machine *m, struct err *err)
{
    return drives_flush(&m->drives, err);
}

int machine_take_disks(struct machine *m, struct err *err)
{
    lock(&m->lock);
    int result = drives_take(&m->drives, err);
    unlock(&m->lock);
    return result;
}

struct block *machine_disk(struct machine *m, unsigned slot)
{
    const struct machine_slot *is = &m->config.slot[slot];
    return is->disk.drive[0] ? drives_find(&m->drives, &m->config, is->disk.drive) : NULL;
}

int machine_take_disk(struct machine *m, unsigned slot, struct err *err)
{
    lock(&m->lock);
    int result = block_take(machine_disk(m, slot), err);
    unlock(&m->lock);
    return result;
}

void machine_let_go_disks(struct machine *m)
{
    lock(&m->lock);
    if (!m->running && machine_state(m) == RUN_INMIGRATE)
        drives_let_go(&m->drives);
    unlock(&m->lock);
}

int machine_disks_shared(struct machine *m, struct err *err)
{
    return drives_taken_elsewhere(&m->drives, err);
}

static int machine_may_run(enum run_state state, struct err *err)
{
    switch (state) {
    case RUN_PRELAUNCH:
    case RUN_RUNNING:
    case RUN_IO_ERROR:
    case RUN_PAUSED: return 0;
    case RUN_FINISH_MIGRATE: return err_set(err, -EPERM, "the guest is being handed over");
    case RUN_INMIGRATE: return err_set(err, -EPERM, "the guest has not arrived yet");
    case RUN_POSTMIGRATE: return err_set(err, -EPERM, "the guest has left: it may be running elsewhere");
    case RUN_SHUTDOWN: return err_set(err, -EPERM, "the guest has powered off: reset it first");
    case RUN_INTERNAL_ERROR: return err_set(err, -EPERM, "the guest cannot go on: reset it first");
    }
    assert(!"a run state that is none");
    return -EPERM;
}

int machine_resume(struct machine *m, bool force, struct err *err)
{
    lock(&m->lock);
    int result = force ? 0 : machine_may_run(machine_state(m), err);
    int go = result == 0 ? machine_run(m, err) : result;
    unlock(&m->lock);
    if (go > 0)
        machine_say_resumed(m);
    return go < 0 ? go : 0;
}

/* --- power ----------------------------------------------------------------------------------------------- */

static void machine_request_note(struct machine *m, enum machine_request request, unsigned code, bool by_guest)
{
    if (request == REQUEST_FAIL)
        atomic_store_explicit(&m->fail_code, code, memory_order_relaxed);
    if (by_guest)
        atomic_fetch_or_explicit(&m->guest_requests, 1u << request, memory_order_relaxed);
    /* release: whoever takes the note sees code and origin */
    atomic_fetch_or_explicit(&m->requests, 1u << request, memory_order_release);
    if (m->notify)
        m->notify(m->notify_opaque);
}

void machine_request(struct machine *m, enum machine_request request, unsigned code)
{
    machine_request_note(m, request, code, false);
}

void machine_on_request(struct machine *m, void (*notify)(void *opaque), void *opaque)
{
    m->notify_opaque = opaque;
    m->notify = notify;
}

/* A guest on its way takes its wishes along (machine_note_guest): they are not for us to answer. */
static bool machine_on_its_way(struct machine *m)
{
    enum run_state state = machine_state(m);
    return state == RUN_INMIGRATE || state == RUN_FINISH_MIGRATE || state == RUN_POSTMIGRATE;
}

/* A reset that will happen; with no_reboot it is an end like the others. */
static bool machine_resets(const struct machine *m, enum machine_request request)
{
    return request == REQUEST_RESET && !m->config.no_reboot;
}

/* Clears the note, but not that of a reset: machine_reset() does, when it is under way. */
static bool machine_take_one(struct machine *m, enum machine_request request, bool *by_guest)
{
    uint32_t bit = 1u << request;
    lock(&m->lock);
    *by_guest = atomic_load_explicit(&m->guest_requests, memory_order_relaxed) & bit;
    bool there = atomic_load_explicit(&m->requests, memory_order_acquire) & bit;
    bool stays = *by_guest || request == REQUEST_RESET || request == REQUEST_IO_ERROR;
    bool take = there && !(machine_on_its_way(m) && stays);
    if (take && !machine_resets(m, request)) {
        atomic_fetch_and_explicit(&m->requests, ~bit, memory_order_relaxed);
        atomic_fetch_and_explicit(&m->guest_requests, ~bit, memory_order_relaxed);
        m->off = m->off || (*by_guest && (request == REQUEST_SHUTDOWN || request == REQUEST_FAIL));
    }
    unlock(&m->lock);
    return take;
}

enum machine_request machine_take_request(struct machine *m, unsigned *code)
{
    static const enum machine_request order[] = { REQUEST_QUIT,  REQUEST_FAIL,      REQUEST_SHUTDOWN,
                                                  REQUEST_RESET, REQUEST_POWERDOWN, REQUEST_IO_ERROR };
    bool by_guest;
    *code = 0;
    for (unsigned i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        enum machine_request request = order[i];
        if (!machine_take_one(m, request, &by_guest))
            continue;
        if (request == REQUEST_FAIL)
            *code = atomic_load_explicit(&m->fail_code, memory_order_relaxed);
        if (!machine_resets(m, request) && request != REQUEST_IO_ERROR)
            machine_emit(m, request == REQUEST_POWERDOWN ? EVENT_POWERDOWN : EVENT_SHUTDOWN, by_guest);
        return request;
    }
    return REQUEST_NONE;
}

void machine_note_guest(struct machine *m)
{
    m->clock_state = (struct machine_clock_state){
        .guest_ns = guest_clock_ns(&m->clock),
        .requests = atomic_load_explicit(&m->guest_requests, memory_order_relaxed),
        .fail_code = atomic_load_explicit(&m->fail_code, memory_order_relaxed),
    };
}

void machine_ask_again(struct machine *m)
{
    atomic_store_explicit(&m->fail_code, m->clock_state.fail_code, memory_order_relaxed);
    atomic_store_explicit(&m->guest_requests, m->clock_state.requests, memory_order_relaxed);
    atomic_fetch_and_explicit(&m->requests, ~(uint32_t)MACHINE_GUEST_REQUESTS, memory_order_relaxed);
    atomic_fetch_or_explicit(&m->requests, m->clock_state.requests, memory_order_release);
}

void machine_on_event(struct machine *m, void (*event)(void *opaque, enum machine_event event, bool by_guest),
                      void *opaque)
{
    m->event_opaque = opaque;
    m->event = event;
}

void machine_emit(struct machine *m, enum machine_event event, bool by_guest)
{
    if (m->event)
        m->event(m->event_opaque, event, by_guest);
}

void machine_reset_parts(struct machine *m)
{
    for (unsigned i = 0; i < m->config.harts; i++)
        hart_reset(vcpu_hart(m->vcpu[i]), i, BOOT_RESET_PC);
    for (unsigned i = 0; i < m->board.devices; i++) {
        struct device *device = m->board.device[i];
        if (device->ops->reset)
            device->ops->reset(device);
    }
}

/* Images of a guest that came from elsewhere are on this side only when the user named them here, too. */
static int machine_may_reset(struct machine *m, struct err *err)
{
    if (machine_on_its_way(m))
        return err_set(err, -EBUSY, "a guest that is on its way cannot be reset (%s)",
                       run_state_name(machine_state(m)));
    if (m->config.incoming && !m->config.kernel[0])
        return err_set(err, -ENOENT,
                       "the guest came from elsewhere, and its kernel is not here: start this side with -kernel to be "
                       "able to reset it");
    return 0;
}

int machine_reset(struct machine *m, struct err *err)
{
    const uint32_t bit = 1u << REQUEST_RESET;
    bool by_guest = false;
    lock(&m->lock);
    bool ran = m->running;
    int result = machine_may_reset(m, err);
    if (result != -EBUSY) {
        by_guest = atomic_fetch_and_explicit(&m->guest_requests, ~bit, memory_order_relaxed) & bit;
        atomic_fetch_and_explicit(&m->requests, ~bit, memory_order_relaxed);
    }
    if (result == 0 && ran)
        machine_halt(m);
    if (result == 0)
        result = machine_load_images(m, err);
    if (result == 0) {
        machine_reset_parts(m);
        m->off = false;
        if (machine_state(m) == RUN_SHUTDOWN || machine_state(m) == RUN_INTERNAL_ERROR)
            machine_set_state(m, RUN_PAUSED);
        if (ran)
            machine_go(m);
    } else if (ran && !m->running) {
        machine_set_state(m, RUN_INTERNAL_ERROR); /* its memory is half overwritten */
    }
    bool broken = ran && !m->running;
    unlock(&m->lock);
    if (result == 0 || broken)
        machine_emit(m, broken ? EVENT_STOP : EVENT_RESET, by_guest);
    return result;
}
