/* The vCPU's thread and what others may do to it: start, kick, pause, pull its wires.
 *
 * A kick is: say what is wanted, raise exit_request, spoil the inline compare, and wake the thread if it sleeps. All
 * flags are sequentially consistent against `sleeping`, so either the sleeper sees the request or the kicker sees the
 * sleeper (and then signals under the lock, which the sleeper holds until it waits). */
#include "vcpu/vcpu.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "vcpu/engine.h"
#include "vcpu/jit/jit.h"

/* --- kicks and wires ------------------------------------------------------------------------------------- */

void vcpu_kick(struct vcpu *v)
{
    atomic_fetch_add_explicit(&v->kicks, 1, memory_order_relaxed);
    atomic_store_explicit(&v->exit_request, true, memory_order_seq_cst);
    atomic_store_explicit(&v->entry_generation, 0, memory_order_release);
    if (atomic_load_explicit(&v->sleeping, memory_order_seq_cst)) {
        lock(&v->lock);
        cond_signal(&v->wake);
        unlock(&v->lock);
    }
}

static void kick_opaque(void *opaque)
{
    vcpu_kick(opaque);
}

static void timer_fires(void *opaque)
{
    struct vcpu *v = opaque;

    atomic_store_explicit(&v->timer_due, true, memory_order_seq_cst);
    vcpu_kick(v);
}

static void set_pin(void *opaque, unsigned number, bool level)
{
    struct vcpu *v = opaque;
    uint64_t bit = IRQ_BIT(number);

    if (level) {
        if (!(atomic_fetch_or_explicit(&v->hart.pins, bit, memory_order_seq_cst) & bit))
            vcpu_kick(v);
    } else {
        atomic_fetch_and_explicit(&v->hart.pins, ~bit, memory_order_seq_cst);
    }
}

struct irq_line vcpu_irq(struct vcpu *v, unsigned irq)
{
    assert(irq < 64);
    return (struct irq_line){ .set = set_pin, .opaque = v, .number = irq };
}

/* --- waiting, on the vCPU's thread ------------------------------------------------------------------------ */

int64_t vcpu_learn_lead_ns(int64_t lead_ns, int64_t late_ns)
{
    static const int64_t step_max_ns = 500; /* what else the host had to do says little about the next time */
    int64_t more_ns = late_ns - lead_ns;

    if (more_ns < 0)
        lead_ns += more_ns / 2;
    else
        lead_ns += more_ns / 64 < step_max_ns ? more_ns / 64 : step_max_ns;
    return lead_ns < VCPU_LEAD_MAX_NS ? lead_ns : VCPU_LEAD_MAX_NS;
}

static void wait_for_kick_or_host_time(struct vcpu *v, int64_t deadline_ns)
{
    int64_t lead_ns = v->lead_ns;

    lock(&v->lock);
    atomic_store_explicit(&v->sleeping, true, memory_order_seq_cst);
    while (!atomic_load_explicit(&v->exit_request, memory_order_seq_cst)) {
        if (deadline_ns == TIMER_NEVER) {
            cond_wait(&v->wake, &v->lock);
            continue;
        }
        int64_t until_ns = guest_clock_reaches_ns(v->clock, deadline_ns - lead_ns);
        if (clock_now_ns() >= until_ns)
            break;
        if (!cond_wait_until(&v->wake, &v->lock, until_ns))
            v->lead_ns = vcpu_learn_lead_ns(lead_ns, clock_now_ns() - until_ns);
    }
    atomic_store_explicit(&v->sleeping, false, memory_order_seq_cst);
    unlock(&v->lock);
}

/* Until a kick, or until stimecmp if that ends wfi. The clock runs: it stops only when every vCPU has paused. */
static void wait_for_kick_or_timer(struct vcpu *v, int64_t deadline_ns)
{
    wait_for_kick_or_host_time(v, deadline_ns);
    while (deadline_ns != TIMER_NEVER && guest_clock_ns(v->clock) < deadline_ns &&
           !atomic_load_explicit(&v->exit_request, memory_order_seq_cst))
        ; /* some microseconds, the lead at most */
}

/* A hart that sleeps waits for stimecmp itself: one wake-up, where the timers' thread and its kick would be two. */
void vcpu_sleep(struct vcpu *v)
{
    int64_t began = clock_now_ns();
    int64_t deadline_ns = v->hart.mie & IRQ_BIT(IRQ_S_TIMER) ? engine_timer_ns(v) : TIMER_NEVER;

    engine_sync_counters(v, 0);
    dirty_writer_park(v->dirty, &v->writer);
    if (deadline_ns != TIMER_NEVER)
        timer_set_ns(v->timer, TIMER_NEVER);
    wait_for_kick_or_timer(v, deadline_ns);
    if (deadline_ns != TIMER_NEVER && guest_clock_ns(v->clock) < deadline_ns)
        timer_set_ns(v->timer, deadline_ns);
    else if (deadline_ns != TIMER_NEVER)
        atomic_store_explicit(&v->timer_due, true, memory_order_relaxed); /* and the safe point asks the clock */
    dirty_writer_unpark(v->dirty, &v->writer);                            /* and the safe point polls next */
    engine_stat(&v->sleeps_ns, (uint64_t)(clock_now_ns() - began));
}

bool vcpu_wait_while_paused(struct vcpu *v)
{
    bool waited = false;

    dirty_writer_park(v->dirty, &v->writer);
    lock(&v->lock);
    while (atomic_load_explicit(&v->pause_requested, memory_order_relaxed) &&
           !atomic_load_explicit(&v->quit, memory_order_relaxed)) {
        waited = true;
        v->paused = true;
        cond_broadcast(&v->settled);
        cond_wait(&v->wake, &v->lock);
    }
    v->paused = false;
    unlock(&v->lock);
    dirty_writer_unpark(v->dirty, &v->writer);
    return waited;
}

static void run_thread(void *opaque)
{
    struct vcpu *v = opaque;

    atomic_store_explicit(&v->tid, (int)gettid(), memory_order_relaxed);
    prctl(PR_SET_TIMERSLACK, 1); /* the kernel may add 50 us otherwise; where it refuses, timers are as late as that */
    dirty_writer_unpark(v->dirty, &v->writer); /* parked since new; the first safe point polls */
    engine_run(v);
    dirty_writer_park(v->dirty, &v->writer); /* for good */
}

/* --- pausing, from outside -------------------------------------------------------------------------------- */

void vcpu_pause_request(struct vcpu *v)
{
    lock(&v->lock);
    atomic_store_explicit(&v->pause_requested, true, memory_order_seq_cst);
    unlock(&v->lock);
    vcpu_kick(v);
}

void vcpu_pause_wait(struct vcpu *v)
{
    lock(&v->lock);
    while (v->thread.started && !v->paused)
        cond_wait(&v->settled, &v->lock);
    unlock(&v->lock);
}

void vcpu_resume(struct vcpu *v)
{
    lock(&v->lock);
    if (!engine_debug_stays(v)) {
        atomic_store_explicit(&v->pause_requested, false, memory_order_seq_cst);
        v->paused = false; /* a later pause_wait must not be content with this pause */
        cond_broadcast(&v->wake);
    }
    unlock(&v->lock);
}

struct hart *vcpu_hart(struct vcpu *v)
{
    return &v->hart;
}

/* --- making and ending ------------------------------------------------------------------------------------ */

static void *map_pages(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

static int allocate_tables(struct vcpu *v, struct err *err)
{
    int code = block_cache_init(&v->blocks, err);

    if (code < 0)
        return code;
    v->tlbs = map_pages(TLB_COUNT * sizeof(*v->tlbs));
    v->jumps = map_pages((size_t)TLB_COUNT * JUMP_ENTRIES * sizeof(*v->jumps));
    if (!v->tlbs || !v->jumps)
        return err_set(err, -ENOMEM, "no memory for vCPU %u's translation tables", v->index);
    return 0;
}

struct vcpu *vcpu_new(const struct vcpu_config *config, struct err *err)
{
    struct vcpu *v = aligned_alloc(64, (sizeof(*v) + 63) & ~(size_t)63);

    assert(config->index < HART_MAX && config->bus->ram->dirty);
    if (!v) {
        err_set(err, -ENOMEM, "no memory for vCPU %u", config->index);
        return NULL;
    }
    memset(v, 0, sizeof(*v));
    v->index = config->index;
    v->bus = config->bus;
    v->ram = config->bus->ram;
    v->dirty = v->ram->dirty;
    v->clock = config->clock;
    v->hart.hartid = config->index;
    v->pause_requested = true;
    lock_init(&v->lock, LOCK_VCPU);
    cond_init(&v->wake);
    cond_init(&v->settled);
    v->writer.kick = kick_opaque;
    v->writer.opaque = v;
    v->writer.number = v->index;
    dirty_writer_register(v->dirty, &v->writer);
    dirty_writer_park(v->dirty, &v->writer); /* until the thread runs */
    v->timer = timer_new(config->timers, timer_fires, v);
    if (!v->timer)
        err_set(err, -ENOMEM, "no memory for vCPU %u's timer", config->index);
    if (!v->timer || allocate_tables(v, err) < 0) {
        vcpu_free(v);
        return NULL;
    }
    engine_select_space(v);
    engine_select_mode(v);
    if (config->jit) {
        v->blocks.heat = jit_threshold(config->jit);
        jit_attach(config->jit, v);
    }
    return v;
}

int vcpu_start(struct vcpu *v, struct err *err)
{
    char name[16];

    snprintf(name, sizeof(name), "vcpu/%u", v->index);
    int code = thread_start(&v->thread, name, run_thread, v, err);
    if (code == 0)
        vcpu_pause_wait(v); /* a resume before it has paused once would find a hart that nobody has read */
    return code;
}

void vcpu_free(struct vcpu *v)
{
    if (!v)
        return;
    if (v->thread.started) {
        lock(&v->lock);
        atomic_store_explicit(&v->quit, true, memory_order_seq_cst);
        cond_broadcast(&v->wake);
        unlock(&v->lock);
        vcpu_kick(v);
        thread_join(&v->thread);
    }
    if (v->jit)
        jit_detach(v->jit, v);
    timer_free(v->timer);
    dirty_writer_unregister(v->dirty, &v->writer);
    block_cache_free(&v->blocks);
    if (v->tlbs)
        munmap(v->tlbs, TLB_COUNT * sizeof(*v->tlbs));
    if (v->jumps)
        munmap(v->jumps, (size_t)TLB_COUNT * JUMP_ENTRIES * sizeof(*v->jumps));
    cond_destroy(&v->settled);
    cond_destroy(&v->wake);
    lock_destroy(&v->lock);
    free(v);
}

static int64_t thread_cpu_ns(const struct vcpu *v)
{
    struct timespec ts;
    clockid_t id;

    if (!v->thread.started || pthread_getcpuclockid(v->thread.handle, &id) != 0 || clock_gettime(id, &ts) != 0)
        return 0;
    return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

void vcpu_stats(struct vcpu *v, struct vcpu_stats *out)
{
    *out = (struct vcpu_stats){
        .instructions = atomic_load_explicit(&v->icount, memory_order_relaxed),
        .sleeps_ns = atomic_load_explicit(&v->sleeps_ns, memory_order_relaxed),
        .tlb_refills = atomic_load_explicit(&v->tlb_refills, memory_order_relaxed),
        .slow_stores = atomic_load_explicit(&v->slow_stores, memory_order_relaxed),
        .kicks = atomic_load_explicit(&v->kicks, memory_order_relaxed),
        .code_lookups = atomic_load_explicit(&v->code_lookups, memory_order_relaxed),
        .code_jump_hits = atomic_load_explicit(&v->code_jump_hits, memory_order_relaxed),
        .code_runs = atomic_load_explicit(&v->code_runs, memory_order_relaxed),
        .block_runs = atomic_load_explicit(&v->block_runs, memory_order_relaxed),
        .promotions = atomic_load_explicit(&v->promotions, memory_order_relaxed),
        .cpu_ns = thread_cpu_ns(v),
        .ran_ns = atomic_load_explicit(&v->ran_ns, memory_order_relaxed),
        .tid = atomic_load_explicit(&v->tid, memory_order_relaxed),
    };
}
