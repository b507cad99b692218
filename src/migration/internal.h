/* The migration object's inside, shared by migration.c, outgoing.c and incoming.c and by nobody else. */
#pragma once
#include "base/lock.h"
#include "base/thread.h"
#include "migration/converge.h"
#include "migration/handover.h"
#include "migration/lines.h"
#include "migration/migration.h"
#include "migration/released.h"
#include "migration/return_path.h"

struct outgoing;

enum resolve_wish { WISH_NONE, WISH_HERE, WISH_THERE };

struct migration {
    /* fixed after new */
    struct machine *machine;
    struct source *ram;              /* the one source there is now */
    uint8_t host[REPORT_HOST_BYTES]; /* asked before any thread of ours might not be allowed to */
    int abort_fd;                    /* eventfd: readable while a cancel is wanted; for connect and accept */
    void (*event)(void *opaque, enum migration_event event, enum migration_state state, uint64_t round);
    void *event_opaque;
    struct migration_params params;             /* atomics inside */
    int (*take)(void *opaque, struct err *err); /* see migration_before_start() */
    void *take_opaque;
    enum migration_sandbox sandbox;
    enum disk_copy next_copy; /* the main thread's */

    /* the main thread's: whoever starts, frees and joins */
    struct thread thread;
    struct channel_listener *listener; /* the thread's once it exists */
    struct lines lines;                /* the thread's once it exists */
    struct tls_store *objects;

    _Atomic bool run_on_arrival;

    struct lock lock; /* rank MIGRATION */
    struct cond changed;
    /* under lock; state, where, figures are written by the migrate thread alone */
    enum migration_state state;
    enum migration_where where;
    bool thread_runs;
    bool incoming;
    enum migration_purpose purpose;
    bool one_way;           /* nobody answers: a file, or a pipe */
    bool cancel;            /* wanted by somebody */
    bool quitting;          /* migration_free(): even what is unresolved ends */
    bool last_words;        /* a migration that people see as over is still telling its peer, for a moment */
    bool released;          /* no cancel any more */
    bool cancel_softly;     /* the peer may be prepared: tell it, do not just cut the line */
    bool refused;           /* destination: it said, or will say, REFUSED */
    bool askable;           /* source in doubt: the peer can be asked */
    bool ask;               /* wanted by somebody */
    bool reconnecting;      /* it is asked without anybody's wish */
    const char *settled_by; /* see migration_info */
    enum resolve_wish wish;
    char released_path[RELEASED_PATH_MAX]; /* of a doubt that nobody can be asked about: the operator's word ends it */
    char uri[256], listening[160];
    struct channel *channel; /* while the migrate thread holds it: for shutdown */
    struct pipeline *pipeline;
    struct loader *loader;
    struct return_path *ear;
    struct err error;
    struct migration_report report; /* all but what is read from counters when somebody asks */
    struct eta_model eta;           /* source */
    struct plan_result plan;
    struct migration_info figures; /* what the thread reports as it goes; times in it are final values */
    struct pipeline_stats sent;    /* last known */
    struct loader_stats got;
    struct quota_stats quota_base[DIRTY_WRITERS_MAX]; /* what vCPUs counted before this migration */
    int64_t start_ns, active_ns, end_ns;
    uint64_t rounds;
    struct {
        int64_t start_ns;
        uint64_t units, taken; /* dirty when it began; taken by all before it */
    } round;                   /* of the source that goes on */
    enum disk_copy disk_copy;  /* what travels of the disks */
    struct outgoing *copying;  /* a source with disks to ask about, while its street may be asked too */
    bool ram_waits;            /* disks go first: nothing of memory is marked yet */
    unsigned disks;            /* last known, of so many that are copied */
    struct migration_disk disk[MACHINE_DRIVES_MAX];
    uint32_t counting; /* of stalls, this migration's */

    /* owner: the migrate thread; kept from one migration to the next */
    struct converge_costs costs;
    double bias;
    bool confined; /* incoming: this thread has given up what it does not need */
};

/* Transitions; by the migrate thread (or migration_start before it exists). Tells the listener, no lock held. */
void migration_set_state(struct migration *m, enum migration_state state);
/* Keeps the first error of this migration. */
void migration_set_error(struct migration *m, const struct err *err);
bool migration_cancelled(struct migration *m);
void migration_round_done(struct migration *m, uint64_t rounds);
void migration_set_where(struct migration *m, enum migration_where where);

/* Equal for all processes that read the same CLOCK_MONOTONIC; zeroes: this host does not say. */
void migration_host_id(uint8_t id[REPORT_HOST_BYTES]);

/* Somebody who called was sent away, and people should know why: the state stays SETUP. */
void migration_refused(void *opaque, const struct err *why);

/* Make visible to cancel what it has to shut down, or take it away again. A channel set after a cancel is shut down
 * at once. */
void migration_hold_channel(struct migration *m, struct channel *channel);
void migration_hold_pipeline(struct migration *m, struct pipeline *pipeline);
void migration_hold_loader(struct migration *m, struct loader *loader);

void outgoing_run(struct migration *m); /* the whole story, on the migrate thread */
void incoming_run(struct migration *m);
