/* One debugger's session: what each packet of the GDB Remote Serial Protocol asks for, and the answer. Pure: it knows no
 * machine and no line, only a table of functions, so that tests and the fuzzer run it alone.
 *
 * All-stop mode: the debugger resumes the guest, some harts or all, and hears nothing until a stop is reported. Threads
 * are harts: thread N is hart N - 1. Everything is called on one thread. */
#pragma once
#include "base/err.h"
#include "machine/debug.h"
#include "monitor/gdb_packet.h"

/* Functions that fail return -errno: -EBUSY and -EPERM mean that the guest is not the debugger's to touch now. */
struct gdb_target {
    unsigned (*harts)(void *opaque);
    void (*stop)(void *opaque); /* the guest, wherever it is; the session reports nothing by itself */
    int (*resume)(void *opaque, const enum debug_mode *modes, struct err *err); /* one mode for each hart */
    int (*read_register)(void *opaque, unsigned hart, unsigned number, uint64_t *value);
    int (*write_register)(void *opaque, unsigned hart, unsigned number, uint64_t value);
    ssize_t (*read_memory)(void *opaque, unsigned hart, enum debug_space space, uint64_t at, void *out, size_t bytes);
    ssize_t (*write_memory)(void *opaque, unsigned hart, enum debug_space space, uint64_t at, const void *data,
                            size_t bytes);
    int (*point)(void *opaque, uint64_t pc, unsigned kind, bool on);
    const char *(*hart_state)(void *opaque, unsigned hart);           /* "wfi" */
    void (*command)(void *opaque, const char *line, struct buf *out); /* of the monitor; appends what it says */
    void (*detach)(void *opaque);                                     /* breakpoints go, the guest runs on */
    void (*kill)(void *opaque);                                       /* end everything soon */
    void (*send)(void *opaque, const void *data, size_t bytes);       /* takes all of it */
};

struct gdb_session {
    /* fixed after open */
    const struct gdb_target *target;
    void *opaque;
    struct buf xml;
    /* owner */
    struct gdb_parser in;
    struct buf reply, last; /* being made; the last packet that was sent, until it is acknowledged */
    struct buf out;         /* what goes out with one send */
    unsigned hart;          /* Hg: whose registers and memory */
    unsigned step_hart;     /* Hc */
    bool step_all;          /* Hc named no thread */
    bool waiting;           /* the guest was resumed; a stop is to be reported */
    bool physical;          /* addresses are guest-physical */
    bool done;              /* detached or killed: nothing more is understood */
};

void gdb_session_open(struct gdb_session *session, const struct gdb_target *target, void *opaque);
void gdb_session_close(struct gdb_session *session);
void gdb_session_receive(struct gdb_session *session, const uint8_t *data, size_t bytes);
static inline bool gdb_session_waiting(const struct gdb_session *session)
{
    return session->waiting;
}

enum { GDB_SIGNAL_INT = 2, GDB_SIGNAL_TRAP = 5 };
/* The guest has stopped: nothing unless that is waited for. `note` (or NULL) is shown to the person, without a newline. */
void gdb_session_stopped(struct gdb_session *session, unsigned hart, int signal, const char *note);
/* Godwit ends, and the guest with it. */
void gdb_session_exited(struct gdb_session *session, int code);
