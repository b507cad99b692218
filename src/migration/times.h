/* The steps of a hand-over and when each was done, on the clock of the side that did it: what `query-migrate` and a report tell. */
#pragma once
#include <stdint.h>

/* In order. What a side has not done, or not yet, is 0. */
enum handover_mark {
    /* source */
    MARK_STOP_ASKED,   /* the vCPUs are told to pause */
    MARK_STOPPED,      /* the last of them has: the guest's pause begins (event STOP) */
    MARK_PAUSED,       /* devices are drained, disks flushed */
    MARK_RAM_TAKEN,    /* the last round's units are compressed, and with the channel */
    MARK_ROUND_CLOSED, /* its mark is queued, RAM is sealed */
    MARK_STATE_SAVED,  /* device sections are made */
    MARK_SENT,         /* and with the channel; EOF follows */
    MARK_PREPARED,     /* the destination's answer was read */
    MARK_AGREED,       /* digests are equal */
    MARK_RELEASED,     /* the note is written: the guest is not ours any more */
    MARK_GO,           /* GO follows */
    MARK_RUNNING,      /* RUNNING was read */
    /* destination */
    MARK_EOF,           /* read */
    MARK_RAM_LOADED,    /* every unit is stored, the digest right */
    MARK_STATE_LOADED,  /* devices have their state */
    MARK_PREPARED_SENT, /* PREPARED is on its way */
    MARK_SETTLED,       /* code that was made ahead is compared */
    MARK_GO_READ,       /* GO was read */
    MARK_STARTED,       /* disks taken, clock started, vCPUs let go (event RESUME) */
    MARK_FIRST_RUN,     /* the first hart has read its state, and runs */
    HANDOVER_MARKS
};

enum { HANDOVER_DEVICES_MAX = 96 };

struct handover_times {
    int64_t at_ns[HANDOVER_MARKS]; /* clock_now_ns() */
    struct {
        const char *name; /* of the section; static */
        uint32_t instance;
        int64_t ns; /* for saving, or loading it */
    } device[HANDOVER_DEVICES_MAX];
    unsigned devices;
};

extern const char *const handover_mark_names[HANDOVER_MARKS];              /* "stop-asked": for people and JSON */
void handover_mark(struct handover_times *times, enum handover_mark mark); /* now */
void handover_device(struct handover_times *times, const char *name, uint32_t instance, int64_t ns);
