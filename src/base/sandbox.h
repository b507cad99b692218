/* What a thread gives up before it looks at bytes of strangers: new files, new programs, new sockets, other processes.
 *
 * The kernel holds a thread to it for the rest of its life, and every thread that it starts from then on; other threads of
 * the process keep what they have. So it keeps a confused reader from being led astray; it does not hold somebody who runs
 * code of his own in this process, for whom all threads are one (docs/security.md). Descriptors that are open stay so.
 * Any thread, for itself. Linux: seccomp(2), landlock(7). */
#pragma once
#include "base/err.h"

enum { SANDBOX_FILES_MAX = 16 };

enum sandbox_kind {
    SANDBOX_READER, /* may still open what is kept; may accept who calls, and start threads */
    SANDBOX_WORKER, /* no files at all */
};

/* What a reader keeps. */
struct sandbox_kept {
    const char *folder;                  /* files in it may be opened, made and removed; NULL: none */
    const char *file[SANDBOX_FILES_MAX]; /* may be opened to read and write, when they are there */
    unsigned files;
    char remove_in[256]; /* from this folder files may be removed; "": none */
};

/* kept: NULL for a worker. 0; -ENOSYS, -EPERM and others with a sentence when this kernel, or who
 * confines us already, does not have it: then the thread is as it was, or held by a part of it. */
int sandbox_enter(enum sandbox_kind kind, const struct sandbox_kept *kept, struct err *err);
