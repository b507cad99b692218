/* Failpoints: places, by name, at which a test may have this process killed, stopped, stalled or told of an error, to see
 * what becomes of the guest. Compiled in, and armed by `-fault` alone.
 *
 * failpoint() where nothing is armed is one relaxed load and a branch that is always predicted; none stands where a vCPU
 * runs. Any thread, any lock may be held. Arming is for the main thread, before other threads exist. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"

/* THE table: name, whether an error makes sense there, what is about to happen. In the order of a migration. */
#define FAILPOINTS(X)                                                                                                  \
    X(SOURCE_CONNECT, "source-connect", true, "connects to the destination")                                           \
    X(SOURCE_HELLO, "source-hello", true, "says hello")                                                                \
    X(SOURCE_MET, "source-met", false, "the destination's hello was accepted")                                         \
    X(SOURCE_ROUND, "source-round", true, "begins a round")                                                            \
    X(SOURCE_HARVEST, "source-harvest", false, "has cleared dirty bits of a slice, and will copy its pages")           \
    X(SOURCE_WRITE, "source-write", false, "writes some of the stream")                                                \
    X(SOURCE_LOADED, "source-loaded", false, "the destination has loaded a round")                                     \
    X(SOURCE_PAUSE, "source-pause", true, "pauses the guest")                                                          \
    X(SOURCE_PAUSED, "source-paused", true, "the guest stands still for the last round")                               \
    X(SOURCE_SEALED, "source-sealed", true, "the last round is sent")                                                  \
    X(SOURCE_DEVICES, "source-devices", true, "sends the devices")                                                     \
    X(SOURCE_EOF, "source-eof", true, "sends the end of the stream")                                                   \
    X(SOURCE_ASKED, "source-asked", false, "waits for PREPARED")                                                       \
    X(SOURCE_PREPARED, "source-prepared", false, "has heard PREPARED")                                                 \
    X(SOURCE_NOTE, "source-note", true, "writes RELEASED down")                                                        \
    X(SOURCE_NOTE_NAME, "source-note-name", true, "gives the note its name")                                           \
    X(SOURCE_NOTE_SYNC, "source-note-sync", true, "has the note synced to the disk it is on")                          \
    X(SOURCE_NOTED, "source-noted", false, "RELEASED is written down; lets its images go")                             \
    X(SOURCE_GO, "source-go", false, "says GO")                                                                        \
    X(SOURCE_GONE, "source-gone", false, "has said GO")                                                                \
    X(SOURCE_RUNNING, "source-running", false, "has heard RUNNING")                                                    \
    X(SOURCE_FORGET, "source-forget", false, "takes the note of RELEASED away")                                        \
    X(SOURCE_DONE, "source-done", false, "says DONE")                                                                  \
    X(SOURCE_RETRACT, "source-retract", false, "says RETRACT")                                                         \
    X(SOURCE_RESUME, "source-resume", false, "takes the guest back")                                                   \
    X(SOURCE_DOUBT, "source-doubt", false, "does not know where the guest runs")                                       \
    X(SOURCE_AGAIN, "source-again", true, "connects again, in doubt")                                                  \
    X(SOURCE_RECALL, "source-recall", true, "connects again, to have a prepared guest dropped")                        \
    X(SOURCE_END, "source-end", false, "takes the migration down")                                                     \
    X(TARGET_HELLO, "target-hello", true, "has accepted, and waits for the hello")                                     \
    X(TARGET_MET, "target-met", true, "answers the hello")                                                             \
    X(TARGET_LOAD, "target-load", true, "stores a chunk of pages")                                                     \
    X(TARGET_LOADED, "target-loaded", true, "says what is loaded")                                                     \
    X(TARGET_EOF, "target-eof", true, "has read the end of the stream")                                                \
    X(TARGET_APPLY, "target-apply", true, "gives the devices their state")                                             \
    X(TARGET_APPLIED, "target-applied", true, "the guest is loaded")                                                   \
    X(TARGET_PREPARED, "target-prepared", false, "says PREPARED")                                                      \
    X(TARGET_WAIT, "target-wait", false, "has said PREPARED, and waits for GO")                                        \
    X(TARGET_GO, "target-go", false, "has heard GO")                                                                   \
    X(TARGET_TAKE, "target-take", true, "takes the images and starts the guest")                                       \
    X(TARGET_STARTED, "target-started", false, "the guest was started")                                                \
    X(TARGET_RUNNING, "target-running", false, "says RUNNING")                                                         \
    X(TARGET_TOLD, "target-told", false, "has said RUNNING")                                                           \
    X(TARGET_REFUSE, "target-refuse", false, "says REFUSED")                                                           \
    X(TARGET_UNLOAD, "target-unload", false, "drops what was loaded")                                                  \
    X(TARGET_RETRACTED, "target-retracted", false, "says RETRACTED")                                                   \
    X(TARGET_DOUBT, "target-doubt", false, "is prepared, and its source gone or silent")                               \
    X(TARGET_KNOCK, "target-knock", false, "somebody asks over a new line")                                            \
    X(TARGET_END, "target-end", false, "takes the migration down")

enum failpoint {
#define X(id, name, fails, what) FAILPOINT_##id,
    FAILPOINTS(X)
#undef X
        FAILPOINT_COUNT
};

extern _Atomic bool failpoint_armed;     /* any of them; set once, before there are threads */
int failpoint_met(enum failpoint point); /* slow path of failpoint() */

/* 0, or -EIO where that was asked for. May not return, or not soon. */
static inline int failpoint(enum failpoint point)
{
    /* Relaxed: written before there are other threads. */
    if (__builtin_expect(!atomic_load_explicit(&failpoint_armed, memory_order_relaxed), true))
        return 0;
    return failpoint_met(point);
}

/* As failpoint(), with a sentence that names the point. */
int failpoint_err(enum failpoint point, struct err *err);

/* POINT[:N][:ACTION]: at the N-th time (1 unless said) kill | stop | stall | error. -EINVAL with a sentence. */
int failpoint_arm(const char *text, struct err *err);
void failpoint_help(FILE *out);
