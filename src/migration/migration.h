/* Migration: the public face. One object per process, for both directions.
 *
 * Anybody (monitors, main.c, on the main thread) may start, cancel, ask and wait; one owner thread ("migrate")
 * exists while a migration runs, and it alone changes the state. Every call returns at once unless it says wait. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "machine/machine.h"
#include "machine/warm.h"
#include "memory/dirty.h"
#include "migration/eta.h"
#include "migration/params.h"
#include "migration/plan.h"
#include "migration/report.h"
#include "migration/source_disk.h"

/* Spelled as query-migrate spells them. */
enum migration_state {
    MIGRATION_NONE,
    MIGRATION_SETUP,
    MIGRATION_ACTIVE,
    MIGRATION_DEVICE, /* paused: last round, devices, hand-over */
    MIGRATION_COMPLETED,
    MIGRATION_FAILED,
    MIGRATION_CANCELLING,
    MIGRATION_CANCELLED,
    MIGRATION_UNRESOLVED, /* RELEASED was written, the peer is silent: nobody runs here; migrate_resolve ends it */
};
const char *migration_state_name(enum migration_state state);

/* Where the guest is, for exit codes and for a person. */
enum migration_where { GUEST_HERE, GUEST_THERE, GUEST_UNKNOWN, GUEST_IN_FILE };

/* What an outgoing one is for: PURPOSE_REHEARSAL and PURPOSE_PLAN end with the guest here, whatever happens. */
enum migration_purpose { PURPOSE_MOVE, PURPOSE_REHEARSAL, PURPOSE_PLAN };

/* One disk that is copied; bytes of it. */
struct migration_disk {
    char name[BLOCK_NAME_MAX];
    uint64_t total, remaining;   /* remaining: as far as this side knows */
    uint64_t copied, wire_bytes; /* copied: zeros included, and what was copied again */
    int64_t held_ns;             /* auto-converge: writes waited so long, summed up */
};

struct migration_info {
    enum migration_state state;
    enum migration_purpose purpose;
    enum migration_where where;
    bool incoming;
    char uri[256];
    int64_t setup_ms, total_ms;                 /* so far, or in all */
    double downtime_ms;                         /* measured: last guest instruction here to RUNNING from there */
    double expected_downtime_ms;                /* the controller's forecast, now */
    double expected_least_ms, expected_most_ms; /* its band */
    double predicted_downtime_ms;               /* what it said when it stopped */
    double downtime_limit_ms;
    uint64_t rounds;
    uint64_t ram_total, ram_remaining; /* bytes */
    uint64_t pages_data, pages_zero;
    uint64_t wire_bytes, raw_bytes;
    uint64_t data_bytes;       /* of wire_bytes, over data channels */
    double mbps;               /* wire, megabits a second */
    double loaded_bytes_per_s; /* wire bytes acknowledged as loaded, smoothed */
    uint64_t dirty_pages_per_s;
    uint64_t pages_per_s;
    uint64_t codec_pages[CODECS];       /* pages_data by enum codec */
    uint64_t delta_pages;               /* pages_data as deltas: these have no codec */
    uint64_t delta_bytes, delta_misses; /* source only: on the wire; sent whole again while deltas were made */
    enum codec codec;                   /* of the next pages; source only */
    int codec_acceleration;
    uint64_t downtime_bytes;              /* wire bytes sent while paused */
    uint64_t pipeline_bytes;              /* memory the street holds */
    uint64_t audited_pages, audit_misses; /* "audit": clean pages looked at; changed without a mark */
    /* "auto-converge" */
    unsigned throttle_percent;                   /* of the last tick the most held vCPU was held; 0: none was */
    unsigned vcpus;                              /* entries of quota[]; 0 where none was ever held */
    struct quota_stats quota[DIRTY_WRITERS_MAX]; /* since this migration began */
    double
        held_pause_ms; /* of the most paused vCPU: holds beyond 1 ms, which the guest sees as pause beside the pause */
    struct machine_arrival arrival; /* destination: code that was made ahead, how the guest started */
    unsigned disks;                 /* that are copied */
    struct migration_disk disk[MACHINE_DRIVES_MAX];
    bool reconnecting;      /* unresolved, and the source still asks by itself */
    const char *settled_by; /* what ended a doubt: peer, lease, operator; NULL: there was none, or it goes on */
    /* a rehearsal: downtime_ms is what a migration would have had, with the start there as it is expected to be */
    double held_ms;      /* how long the guest stood still for it */
    bool dropped;        /* the destination has said that it dropped the copy */
    unsigned rehearsals; /* destination: that it has dropped, so far */
    struct err error;    /* why it failed, or is unresolved */
};

struct migration;

struct tls_store;

int migration_new(struct machine *machine, struct migration **out, struct err *err);
void migration_free(struct migration *m); /* cancels, waits for its threads */
struct migration_params *migration_params_of(struct migration *m);

/* What the next migration_start() or _rehearse() does with the disks: DISK_SHARED, as ever, or copies. Once: the one after
 * that is as the capability `block` says. -EINVAL with a sentence for DISK_TOP where a disk has nothing below. */
int migration_copy_disks(struct migration *m, enum disk_copy copy, struct err *err);
/* The objects that tls-creds and tls-authz name; main thread. */
struct tls_store *migration_objects(struct migration *m);

/* Outgoing. -EBUSY when one runs; -EINVAL for a bad URI, from states that cannot migrate. Connecting happens on the
 * migrate thread: refused connections show as FAILED. */
int migration_start(struct migration *m, const char *uri, struct err *err);
/* As migration_start(), but the destination drops what it got, and the guest runs on here; COMPLETED then, and GUEST_HERE.
 * -EINVAL also where nobody would answer. */
int migration_rehearse(struct migration *m, const char *uri, struct err *err);
/* As migration_rehearse(), and nothing is moved: migration_plan_of() has the answer when it is COMPLETED. */
int migration_plan(struct migration *m, const char *uri, struct err *err);
void migration_plan_of(struct migration *m, struct plan_result *out); /* the last one; not `ready`: there is none */
int migration_cancel(struct migration *m); /* 0 also when nothing runs; any moment before RELEASED; < 100 ms */

/* Incoming: listen now (so that a bad address is told now), load on the migrate thread. run: start the guest when
 * it has arrived (else it stays paused, -S). */
int migration_incoming(struct migration *m, const char *uri, bool run, struct err *err);
void migration_run_on_arrival(struct migration *m, bool run); /* another mind, at any time before it arrived */
const char *migration_listening(struct migration *m);         /* the bound URI, or "" */

/* ASK: ask the peer once more, now; what comes of it shows in the state, or in the error's text. HERE, THERE: the word of
 * somebody who has looked. On a destination HERE lets the guest run, THERE drops it. */
enum migration_answer { RESOLVE_ASK, RESOLVE_HERE, RESOLVE_THERE };
int migration_resolve(struct migration *m, enum migration_answer answer, struct err *err);

/* May `cont` run the guest? -EPERM or -EBUSY with a sentence while it is, or may be, somewhere else. *force: pass it to
 * machine_resume(); set after migrating to a file, and when an operator resolved that the guest is here. */
int migration_may_resume(struct migration *m, bool *force, struct err *err);

void migration_query(struct migration *m, struct migration_info *out);

/* What it cost, or has cost so far, however it ended. Large: not for a stack. */
struct migration_report {
    /* the pause as the source saw it; of one that was taken back, or broken off, the last */
    bool paused; /* there was one */
    bool disks;  /* the machine has some */
    struct pause_parts pause;
    unsigned taken_back; /* pauses that ended here again */
    int64_t stood_ns;    /* so long the guest stood in them */
    struct report_devices saved;
    /* as the destination told it, or on the destination itself */
    bool arrival_known, arrival_due; /* due: it will tell, in some 100 ms */
    struct report_arrival arrival;
    struct guest_gap gap;     /* source only */
    struct guest_work before; /* source only: while it was copied, until the pause */
    /* copying */
    struct report_rounds rounds;
    uint64_t other_wire_bytes; /* of no round: greetings, device state, words */
    int64_t copying_ns;        /* from the first round to the last pause, or to the end */
    unsigned harts;
    struct stall_counts stall[HART_MAX];
    struct eta eta;                /* while it is ACTIVE */
    enum migration_state ended_in; /* failed, cancelled: what it was doing */
};
void migration_report(struct migration *m, struct migration_report *out);
/* Wait until it is over (not active, not cancelling) or timeout_ms passed; true: over. Not on the main thread. */
bool migration_wait(struct migration *m, int timeout_ms);

/* What an incoming guest needs before it may run here and nobody else may hold: taken after GO, on the migrate thread, no
 * lock held. -errno with a sentence: the guest is REFUSED, and its source takes it back. Set before migration_incoming(). */
void migration_before_start(struct migration *m, int (*take)(void *opaque, struct err *err), void *opaque);

/* What the thread that reads a guest from a stranger gives up after the hello: base/sandbox.h. WHERE_IT_CAN: no word when
 * this host does not have it; MUST: then nothing is loaded. A file or a pipe was this user's own choice: no sandbox. Set
 * before migration_incoming(). */
enum migration_sandbox { MIGRATION_SANDBOX_WHERE_IT_CAN, MIGRATION_SANDBOX_MUST, MIGRATION_SANDBOX_OFF };
void migration_sandbox(struct migration *m, enum migration_sandbox sandbox);

/* State changes and finished rounds; called on the migrate thread with no lock held. */
enum migration_event { MIGRATION_EVENT_STATE, MIGRATION_EVENT_ROUND };
void migration_on_event(struct migration *m,
                        void (*event)(void *opaque, enum migration_event event, enum migration_state state,
                                      uint64_t round),
                        void *opaque);
