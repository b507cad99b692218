#include "vcpu/debug.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "vcpu/engine.h"

/* --- breakpoints ----------------------------------------------------------------------------------------- */

static uint64_t filter_bit(uint64_t pc)
{
    return UINT64_C(1) << (pc >> 1 & 63);
}

/* Where pc is, or belongs: they are kept in order. */
static unsigned find_point(const struct debug_points *points, uint64_t pc)
{
    unsigned low = 0, high = points->count;

    while (low < high) {
        unsigned middle = (low + high) / 2;

        if (points->point[middle].pc < pc)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_at(const struct debug_points *points, unsigned i, uint64_t pc)
{
    return i < points->count && points->point[i].pc == pc;
}

bool debug_points_have(const struct debug_points *points, uint64_t pc)
{
    return (points->filter & filter_bit(pc)) && is_at(points, find_point(points, pc), pc);
}

int debug_points_set(struct debug_points *points, uint64_t pc, unsigned kind)
{
    unsigned i = find_point(points, pc);

    assert(kind < DEBUG_KINDS);
    if (pc & 1)
        return -EINVAL;
    if (!is_at(points, i, pc)) {
        if (points->count == DEBUG_POINTS_MAX)
            return -ENOSPC;
        memmove(&points->point[i + 1], &points->point[i], (points->count - i) * sizeof(points->point[0]));
        points->point[i] = (struct debug_point){ .pc = pc };
        points->count++;
        points->filter |= filter_bit(pc);
    }
    points->point[i].kinds |= (uint8_t)(1u << kind);
    return 0;
}

void debug_points_clear(struct debug_points *points, uint64_t pc, unsigned kind)
{
    unsigned i = find_point(points, pc);

    assert(kind < DEBUG_KINDS);
    if (!is_at(points, i, pc))
        return;
    points->point[i].kinds &= (uint8_t) ~(1u << kind);
    if (points->point[i].kinds)
        return;
    points->count--;
    memmove(&points->point[i], &points->point[i + 1], (points->count - i) * sizeof(points->point[0]));
    points->filter = 0;
    for (unsigned k = 0; k < points->count; k++)
        points->filter |= filter_bit(points->point[k].pc);
}

/* --- running, from outside -------------------------------------------------------------------------------- */

/* Under the lock: the thread sits in vcpu_wait_while_paused() and takes the lock before it reads any of this. */
static void arm(struct vcpu *v, enum debug_mode mode)
{
    v->debug_mode = mode;
    v->debug_stop = DEBUG_RUNS;
    v->interrupted = false;
    bool on = v->debugger.points && (mode == DEBUG_STEP || v->debugger.points->count > 0);
    atomic_store_explicit(&v->debug, on, memory_order_relaxed); /* the lock orders it */
}

void debug_attach(struct vcpu *v, const struct debug_client *client)
{
    lock(&v->lock);
    v->debugger = client ? *client : (struct debug_client){ 0 };
    arm(v, DEBUG_GO);
    unlock(&v->lock);
}

void debug_arm(struct vcpu *v, enum debug_mode mode)
{
    lock(&v->lock);
    arm(v, mode);
    unlock(&v->lock);
}

enum debug_stop debug_stopped(struct vcpu *v)
{
    lock(&v->lock);
    enum debug_stop why = v->debug_stop;
    unlock(&v->lock);
    return why;
}

/* --- running, on the vCPU's thread ------------------------------------------------------------------------ */

bool engine_debug_stays(const struct vcpu *v)
{
    assert(lock_held(&v->lock));
    return v->debug_stop != DEBUG_RUNS || v->debug_mode == DEBUG_STAY;
}

static void stop(struct vcpu *v, enum debug_stop why)
{
    lock(&v->lock);
    v->debug_stop = why;
    atomic_store_explicit(&v->pause_requested, true, memory_order_seq_cst);
    unlock(&v->lock);
    vcpu_kick(v); /* to the next safe point, where the pause comes before anything else */
    v->debugger.stopped(v->debugger.opaque);
}

bool engine_debug_stops(struct vcpu *v)
{
    if (v->debug_mode == DEBUG_STEP) {
        if (v->interrupted)
            stop(v, DEBUG_STEPPED);
        return v->interrupted;
    }
    if (!debug_points_have(v->debugger.points, v->hart.pc))
        return false;
    stop(v, DEBUG_BREAKPOINT);
    return true;
}

void engine_debug_ran(struct vcpu *v)
{
    if (v->debug_mode == DEBUG_STEP)
        stop(v, DEBUG_STEPPED);
}

/* --- registers ------------------------------------------------------------------------------------------- */

enum { CSR_FFLAGS = 1, CSR_FCSR = 3, CSR_READ_ONLY = 3 /* of the number's bits 11:10 */ };

/* A CSR access as M mode does it, floating point on. The hart is paused: nobody sees it raised. */
static bool csr_access(struct hart *hart, unsigned csr, uint64_t ticks, const uint64_t *write, uint64_t *read)
{
    bool fp = csr >= CSR_FFLAGS && csr <= CSR_FCSR, off = fp && !(hart->mstatus & MSTATUS_FS);
    uint8_t priv = hart->priv;
    unsigned effects = 0; /* resuming reads everything from the hart again */

    hart->priv = PRIV_M;
    if (off)
        hart->mstatus |= MSTATUS_FS;
    bool done = write ? hart_csr_write(hart, csr, *write, &effects) : hart_csr_read(hart, csr, false, ticks, read);
    hart->priv = priv;
    if (off)
        hart->mstatus &= ~MSTATUS_FS;
    return done;
}

static int read_csr(struct hart *hart, unsigned csr, uint64_t ticks, uint64_t *value)
{
    return csr_access(hart, csr, ticks, NULL, value) ? 0 : -ENOENT;
}

static int write_csr(struct hart *hart, unsigned csr, uint64_t value)
{
    uint64_t old;

    if (read_csr(hart, csr, 0, &old) < 0)
        return -ENOENT;
    if (csr >> 10 == CSR_READ_ONLY)
        return -EACCES;
    return csr_access(hart, csr, 0, &value, NULL) ? 0 : -EACCES;
}

int debug_register_read(struct hart *hart, unsigned number, uint64_t ticks, uint64_t *value)
{
    if (number < DEBUG_REG_PC)
        *value = hart->x[number - DEBUG_REG_X];
    else if (number == DEBUG_REG_PC)
        *value = hart->pc;
    else if (number < DEBUG_REG_CSR)
        *value = hart->f[number - DEBUG_REG_F];
    else if (number < DEBUG_REG_PRIV)
        return read_csr(hart, number - DEBUG_REG_CSR, ticks, value);
    else if (number == DEBUG_REG_PRIV)
        *value = hart->priv;
    else
        return -ENOENT;
    return 0;
}

static int write_priv(struct hart *hart, uint64_t value)
{
    if (value != PRIV_U && value != PRIV_S && value != PRIV_M)
        return -EINVAL;
    hart->priv = (uint8_t)value;
    return 0;
}

int debug_register_write(struct hart *hart, unsigned number, uint64_t value)
{
    if (number == DEBUG_REG_X)
        return 0;
    if (number < DEBUG_REG_PC) {
        hart->x[number - DEBUG_REG_X] = value;
    } else if (number == DEBUG_REG_PC) {
        hart->waiting = hart->waiting && hart->pc == value; /* sent elsewhere it does not sleep there */
        hart->pc = value & ~UINT64_C(1);
    } else if (number < DEBUG_REG_CSR) {
        hart->f[number - DEBUG_REG_F] = value;
        if (hart->mstatus & MSTATUS_FS)
            hart->mstatus |= MSTATUS_FS; /* dirty: the guest's kernel must save it */
    } else if (number < DEBUG_REG_PRIV) {
        return write_csr(hart, number - DEBUG_REG_CSR, value);
    } else {
        return number == DEBUG_REG_PRIV ? write_priv(hart, value) : -ENOENT;
    }
    return 0;
}

/* --- memory ---------------------------------------------------------------------------------------------- */

static bool look(struct vcpu *v, uint64_t va, uint64_t *gpa)
{
    if (v->hart.priv == PRIV_M && ram_block_at(v->ram, va, 1)) {
        *gpa = va;
        return true;
    }
    return mmu_look(v->hart.satp, v->bus, va, gpa);
}

/* *gpa of what lies at `at`; *bytes is cut to its page. */
static bool find_memory(struct vcpu *v, enum debug_space space, uint64_t at, uint64_t *gpa, size_t *bytes)
{
    size_t left = PAGE_BYTES - (at & (PAGE_BYTES - 1));

    *gpa = at;
    if (*bytes > left)
        *bytes = left;
    return space == DEBUG_PHYSICAL || look(v, at, gpa);
}

ssize_t debug_memory_read(struct vcpu *v, enum debug_space space, uint64_t at, void *out, size_t bytes)
{
    size_t done = 0;

    while (done < bytes) {
        size_t piece = bytes - done;
        uint64_t gpa;

        if (!find_memory(v, space, at + done, &gpa, &piece) || !ram_read(v->ram, gpa, (uint8_t *)out + done, piece))
            break;
        done += piece;
    }
    return done > 0 || bytes == 0 ? (ssize_t)done : -EFAULT;
}

ssize_t debug_memory_write(struct vcpu *v, enum debug_space space, uint64_t at, const void *data, size_t bytes)
{
    size_t done = 0;

    trail_as("a debugger");
    while (done < bytes) {
        size_t piece = bytes - done;
        uint64_t gpa;

        if (!find_memory(v, space, at + done, &gpa, &piece) ||
            !ram_write(v->ram, gpa, (const uint8_t *)data + done, piece))
            break;
        done += piece;
    }
    return done > 0 || bytes == 0 ? (ssize_t)done : -EFAULT;
}
