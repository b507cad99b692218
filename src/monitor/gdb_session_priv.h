/* What the session's two files share. Private to gdb_session.c (bytes, answers, threads, questions) and gdb_guest.c
 * (registers, memory, breakpoints, running). */
#pragma once
#include "monitor/gdb_session.h"

enum {
    GDB_DATA_MAX = GDB_PACKET_MAX / 2 - 32, /* bytes that fit as hexadecimal digits beside a command */
    GDB_TEXT_MAX = 128,
    GDB_ANY_THREAD = 0,
    GDB_ALL_THREADS = -1,
};

void gdb_reply_text(struct gdb_session *s, const char *text);
void gdb_reply_error(struct gdb_session *s, int code);            /* -errno; takes the place of what was there */
void gdb_reply_result(struct gdb_session *s, int result);         /* OK, or the error */
void gdb_reply_sentence(struct gdb_session *s, const char *text); /* an error that a person may read */
void gdb_reply_stop(struct gdb_session *s, int signal);

/* *thread: one of the two above, or a hart's number + 1. False: no such thread. */
bool gdb_take_thread(struct gdb_session *s, const char **at, int *thread);

/* Each takes what stands behind its name in the packet. */
typedef void gdb_run(struct gdb_session *s, const char *at);
gdb_run gdb_read_all, gdb_write_all, gdb_read_one, gdb_write_one, gdb_read_memory, gdb_write_memory, gdb_write_binary,
    gdb_set_point, gdb_clear_point, gdb_resume_old, gdb_resume_some, gdb_resume_actions;
