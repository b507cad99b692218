/* What a debugger does with the guest: registers, memory, breakpoints, running. */
#include <errno.h>

#include "monitor/gdb_session_priv.h"

enum {
    REGISTER_BYTES = 8,
    G_REGISTERS = DEBUG_REG_PC + 1 /* a `g` packet has x0 .. x31 and pc; others are asked for by number */
};

/* --- registers -------------------------------------------------------------------------------------------- */

/* One that cannot be had now (the guest is on its way here) is not an error but "unavailable". */
static int put_register(struct gdb_session *s, unsigned number)
{
    uint8_t bytes[REGISTER_BYTES];
    uint64_t value;
    int rc = s->target->read_register(s->opaque, s->hart, number, &value);
    if (rc == -EBUSY || rc == -EPERM) {
        gdb_reply_text(s, "xxxxxxxxxxxxxxxx");
        return 0;
    }
    if (rc < 0)
        return rc;
    le64_put(bytes, value);
    gdb_put_hex(&s->reply, bytes, sizeof(bytes));
    return 0;
}

static int take_register(struct gdb_session *s, unsigned number, const char *digits)
{
    uint8_t bytes[REGISTER_BYTES];
    if (!gdb_get_hex(digits, bytes, sizeof(bytes)))
        return -EINVAL;
    return s->target->write_register(s->opaque, s->hart, number, le64_get(bytes));
}

void gdb_read_all(struct gdb_session *s, const char *at)
{
    int rc = 0;
    (void)at;
    for (unsigned i = 0; rc == 0 && i < G_REGISTERS; i++)
        rc = put_register(s, i);
    if (rc < 0)
        gdb_reply_error(s, rc);
}

void gdb_write_all(struct gdb_session *s, const char *at)
{
    int rc = strlen(at) >= (size_t)G_REGISTERS * REGISTER_BYTES * 2 ? 0 : -EINVAL;
    for (unsigned i = 0; rc == 0 && i < G_REGISTERS; i++)
        rc = take_register(s, i, at + (size_t)i * REGISTER_BYTES * 2);
    gdb_reply_result(s, rc);
}

void gdb_read_one(struct gdb_session *s, const char *at)
{
    uint64_t number;
    int rc = gdb_number(&at, &number) && !*at && number < DEBUG_REGS ? 0 : -EINVAL;
    if (rc == 0)
        rc = put_register(s, (unsigned)number);
    if (rc < 0)
        gdb_reply_error(s, rc);
}

void gdb_write_one(struct gdb_session *s, const char *at)
{
    uint64_t number;
    bool good = gdb_number(&at, &number) && number < DEBUG_REGS && gdb_skip(&at, '=');
    gdb_reply_result(s, good ? take_register(s, (unsigned)number, at) : -EINVAL);
}

/* --- memory ----------------------------------------------------------------------------------------------- */

static enum debug_space space_of(const struct gdb_session *s)
{
    return s->physical ? DEBUG_PHYSICAL : DEBUG_VIRTUAL;
}

void gdb_read_memory(struct gdb_session *s, const char *at)
{
    uint8_t bytes[GDB_DATA_MAX];
    uint64_t first, length;
    if (!gdb_range(&at, &first, &length) || *at) {
        gdb_reply_error(s, -EINVAL);
        return;
    }
    if (length > GDB_DATA_MAX)
        length = GDB_DATA_MAX; /* an answer may be short */
    ssize_t got = s->target->read_memory(s->opaque, s->hart, space_of(s), first, bytes, length);
    if (got < 0)
        gdb_reply_error(s, (int)got);
    else
        gdb_put_hex(&s->reply, bytes, (size_t)got);
}

/* All of it, or an error: there is no answer for a part. */
static void write_memory(struct gdb_session *s, uint64_t first, const void *data, size_t bytes)
{
    ssize_t done = 0;
    if (bytes > 0)
        done = s->target->write_memory(s->opaque, s->hart, space_of(s), first, data, bytes);
    gdb_reply_result(s, done < 0 ? (int)done : (size_t)done < bytes ? -EFAULT : 0);
}

void gdb_write_memory(struct gdb_session *s, const char *at)
{
    uint8_t bytes[GDB_DATA_MAX];
    uint64_t first, length;
    bool good = gdb_range(&at, &first, &length) && gdb_skip(&at, ':') && length <= GDB_DATA_MAX &&
                strlen(at) == length * 2 && gdb_get_hex(at, bytes, length);
    if (good)
        write_memory(s, first, bytes, length);
    else
        gdb_reply_error(s, -EINVAL);
}

void gdb_write_binary(struct gdb_session *s, const char *at)
{
    uint64_t first, length;
    bool good =
        gdb_range(&at, &first, &length) && gdb_skip(&at, ':') && length == s->in.size - (size_t)(at - s->in.data);
    if (good)
        write_memory(s, first, at, length);
    else
        gdb_reply_error(s, -EINVAL);
}

/* --- breakpoints ------------------------------------------------------------------------------------------ */

/* Types 0 (software) and 1 (hardware) are one thing here; 2 to 4, watchpoints, are not there: the answer is empty. */
static void breakpoint(struct gdb_session *s, const char *at, bool on)
{
    uint64_t type, pc, kind;
    bool good = gdb_number(&at, &type) && gdb_skip(&at, ',') && gdb_range(&at, &pc, &kind);
    if (!good)
        gdb_reply_error(s, -EINVAL);
    else if (type < DEBUG_KINDS)
        gdb_reply_result(s, s->target->point(s->opaque, pc, (unsigned)type, on));
}

void gdb_set_point(struct gdb_session *s, const char *at)
{
    breakpoint(s, at, true);
}

void gdb_clear_point(struct gdb_session *s, const char *at)
{
    breakpoint(s, at, false);
}

/* --- running ---------------------------------------------------------------------------------------------- */

/* No answer but the stop's, when there is one. */
static void resume(struct gdb_session *s, const enum debug_mode *modes)
{
    struct err err = { 0 };
    if (s->target->resume(s->opaque, modes, &err) < 0)
        gdb_reply_sentence(s, err.text);
    else
        s->waiting = true;
}

/* A signal says nothing to a hart. */
static bool take_action(const char **at, enum debug_mode *mode)
{
    uint64_t signal;
    char action = **at;
    if (action == '\0')
        return false;
    ++*at;
    *mode = action == 's' || action == 'S' ? DEBUG_STEP : DEBUG_GO;
    if (action == 'C' || action == 'S')
        return gdb_number(at, &signal);
    return action == 'c' || action == 's';
}

/* vCont;ACTION[:THREAD];...  The first action that names a hart, or none in particular, is that hart's; harts that no
 * action is for stay. */
void gdb_resume_some(struct gdb_session *s, const char *at)
{
    enum debug_mode modes[HART_MAX], mode;
    bool chosen[HART_MAX] = { false }, any = false, good = true;
    unsigned harts = s->target->harts(s->opaque);
    for (unsigned i = 0; i < HART_MAX; i++)
        modes[i] = DEBUG_STAY;
    while (good && gdb_skip(&at, ';')) {
        int thread = GDB_ALL_THREADS;
        good = take_action(&at, &mode) && (!gdb_skip(&at, ':') || gdb_take_thread(s, &at, &thread));
        for (unsigned i = 0; good && i < harts; i++) {
            bool meant =
                thread == GDB_ALL_THREADS || (thread == GDB_ANY_THREAD ? i == s->step_hart : thread == (int)i + 1);
            if (!meant || chosen[i])
                continue;
            modes[i] = mode;
            chosen[i] = any = true;
        }
    }
    if (!good || *at || !any)
        gdb_reply_error(s, -EINVAL);
    else
        resume(s, modes);
}

/* c [ADDR], s [ADDR], C SIGNAL[;ADDR], S SIGNAL[;ADDR]: from before vCont. */
void gdb_resume_old(struct gdb_session *s, const char *at)
{
    enum debug_mode modes[HART_MAX], mode = DEBUG_GO;
    unsigned harts = s->target->harts(s->opaque);
    uint64_t pc;
    int rc = take_action(&at, &mode) ? 0 : -EINVAL;
    gdb_skip(&at, ';');
    if (rc == 0 && *at)
        rc = gdb_number(&at, &pc) && !*at ? s->target->write_register(s->opaque, s->step_hart, DEBUG_REG_PC, pc)
                                          : -EINVAL;
    if (rc < 0) {
        gdb_reply_error(s, rc);
        return;
    }
    for (unsigned i = 0; i < harts; i++)
        modes[i] = s->step_all ? DEBUG_GO : DEBUG_STAY;
    modes[s->step_hart] = mode;
    resume(s, modes);
}

void gdb_resume_actions(struct gdb_session *s, const char *at)
{
    (void)at;
    gdb_reply_text(s, "vCont;c;C;s;S");
}
