/* The source's side of one migration, shared by outgoing.c (the story), outgoing_throttle.c (who is held back), outgoing_stall.c (why it does not fit), outgoing_probe.c (the link without
 * its cap),
 * outgoing_handover.c (who owns the guest) and
 * outgoing_doubt.c (when the peer fell silent). */
#pragma once
#include "base/clock.h"
#include "migration/audit.h"
#include "migration/channels.h"
#include "migration/internal.h"
#include "migration/outgoing_disks.h"
#include "migration/lease.h"
#include "migration/released.h"
#include "migration/sections.h"
#include "migration/throttle.h"

enum { LAST_WORD_MS = 50, ANSWER_MS = 2000 };
enum { OUTGOING_AGAIN = 1 }; /* instead of 0: the pause was taken back, more rounds are to come */
enum { OVERRUNS_MAX = 4 };   /* pauses that may be taken back before the migration gives up */

struct outgoing {
    struct migration *m;
    struct machine *machine;
    struct ram *ram;
    struct source *sources[PIPELINE_SOURCES_MAX]; /* RAM, or a plan's samples; then disks */
    unsigned source_count;
    struct outgoing_disks disks;
    struct channel *channel;
    struct channels data;
    struct pipeline *pipeline;
    struct return_path ear;
    struct message_key key;
    bool one_way, to_file, peer_can_resume, peer_reads_deltas, peer_is_fresh, peer_can_warm;
    bool hot_code_sent;
    bool rehearsal, plan;  /* it is one */
    bool stayed;           /* and has come to its good end */
    bool hears_later;      /* the peer's last words, behind the end that people see */
    struct source *sample; /* a plan's, instead of RAM */
    struct digest_key key_bytes;
    const struct digest_key *digest_key; /* that, when the peer uses it too; else NULL */
    bool peer_verifies;
    uint64_t devices_sum[2]; /* of the sections that were sent last */
    unsigned codecs;         /* mask of 1 << enum codec: what the peer reads; 0: nobody said */

    enum handover_state at;
    bool ran; /* when it was paused for this */
    bool paused, tracking, sealed, retract_sent;
    bool doubted;     /* was UNRESOLVED at some time */
    bool lease_back;  /* it says already that the guest was taken back */
    bool recall_owed; /* `recall` is the key of an EOF that was sent: the peer may be prepared under it, and hold on */
    struct message_key recall;
    struct channel *again; /* the new line, while there is one */
    char released_path[RELEASED_PATH_MAX];
    uint64_t epoch;                    /* of the lease beside the disks, this pause's; 0: there is none */
    char note_path[RELEASED_PATH_MAX]; /* of RELEASED, prepared for this pause */

    struct converge converge;
    struct throttle throttle;
    bool throttling;  /* some hart has a quota */
    bool middle_seen; /* of this tick: throttle_middle() */
    uint64_t throttled_at_round;
    uint32_t window; /* of the counts: one a tick */
    int64_t tick_ns, probed_ns, probe_lost_ns;
    uint64_t all_units;               /* dirty before the first round */
    struct pipeline_stats round_from; /* the running round's start, for the ticks in it */
    int64_t round_from_ns;
    struct converge_policy round_policy;
    int64_t predicted_ns;
    int64_t overrun_at_ns; /* the pause is taken back then; INT64_MAX: never */
    unsigned overruns;
    bool round_open; /* begun as the last one */
    bool peer_tells_result;
    struct {
        int64_t requested, paused, flushed, round, eof, sent, prepared, go, running;
    } time_ns;
    /* outgoing_report.c's */
    int64_t harvest_ns;            /* of the last round: waited for permissions */
    struct pipeline_stats written; /* what is in the report's rows */
    struct guest_work work_before; /* counters when copying began, elapsed_ns is that moment */
    int64_t hart_paused_ns[HART_MAX];
    uint64_t wire_at_pause;
    uint64_t full_sum; /* of the FULL sections sent so far */
    uint32_t next_id;  /* section id of the next one */
    struct audit audit;
    struct err err; /* the first failure */
};

/* For the report. begin: before the first round. round: behind each. stopped: the guest stands. taken_back: it runs on here.
 * away: it runs there, or would have. end: the street has ended, whatever came of it. result: wait a moment for what the
 * destination measured; the migration is over. */
void outgoing_report_begin(struct outgoing *o);
void outgoing_report_round(struct outgoing *o, const struct converge_sample *sample,
                           const struct converge_verdict *verdict);
void outgoing_report_stopped(struct outgoing *o);
void outgoing_report_last_round(struct outgoing *o);
void outgoing_report_taken_back(struct outgoing *o);
bool outgoing_report_away(struct outgoing *o); /* true: the destination will tell more */
void outgoing_report_end(struct outgoing *o);
void outgoing_report_result(struct outgoing *o);

int outgoing_begin_street(struct outgoing *o);
void outgoing_put_devices(struct outgoing *o, struct section_writer *writer); /* the guest stands still */
int outgoing_cancelled(struct outgoing *o);                                   /* 0, or -ECANCELED with its sentence */
int64_t outgoing_silence_ms(struct outgoing *o);
void outgoing_binds(struct outgoing *o, bool paused);
struct converge_policy outgoing_policy(struct outgoing *o); /* as the parameters are now */
uint64_t outgoing_dirty_units(struct outgoing *o);
int outgoing_wait_loaded(struct outgoing *o, uint64_t round); /* until the destination has it, or -errno */
int outgoing_wait(struct outgoing *o, int64_t wait_ns);       /* 0, or -ECANCELED before that */
/* Behind a round that the cap bound: find out what the link gives without. 0 or -errno. */
int outgoing_probe(struct outgoing *o, const struct converge_sample *sample);
void outgoing_digest(struct outgoing *o, struct section_digest *digest);

/* `auto-converge`. begin: before the first round. round: returns when the round that has begun is sent, and meanwhile sets
 * quotas. end: takes them back, whatever happened. */
void outgoing_throttle_begin(struct outgoing *o);
void outgoing_throttle_round(struct outgoing *o);
void outgoing_throttle_end(struct outgoing *o);
bool outgoing_holds_more(struct outgoing *o); /* of held vCPUs' work more will be taken with the next rounds */
/* Before a round that is not the last: pages that are dirtied again at once may be left, until outgoing_throttle_round() is over. */
void outgoing_leave_hot(struct outgoing *o);

/* Behind a round that sent `units` that were not zero, and when RAM is sealed: -EBADE when a page changed and nobody marked it. */
int outgoing_audit(struct outgoing *o, uint64_t units, bool sealed);

/* `verify=full`: PREPARED is there, and both sides stand still. PREPARED when both hold the same (or nobody wants to know), else
 * what came instead, PREPARED_MISMATCH with a sentence that names a page. */
enum handover_event outgoing_verify(struct outgoing *o);
bool outgoing_verifies(const struct outgoing *o);
/* The controller has decided so: -ETIME with a sentence that says what is missing, and what would make it fit. */
int outgoing_give_up(struct outgoing *o, const struct converge_verdict *verdict, uint64_t rounds);

/* Put an event through the hand-over table and perform what it says. */
void outgoing_feed(struct outgoing *o, enum handover_event event);
/* The pause has become far longer than its limit: the guest runs on. OUTGOING_AGAIN, or -ETIME when it was once too
 * often. */
int outgoing_overrun(struct outgoing *o);
/* From the EOF to the end: PREPARED, RELEASED, GO, RUNNING. 0 when the guest is away, OUTGOING_AGAIN. */
int outgoing_hand_over(struct outgoing *o);
/* UNRESOLVED until the peer or an operator says where the guest is; false: this process ends before. */
bool outgoing_in_doubt(struct outgoing *o);
/* The guest is here, and the peer may not know: for reconnect-time, until it does, or this thread is wanted back. After all
 * else has ended; the guest runs meanwhile. */
void outgoing_recall(struct outgoing *o);
/* The hand-over where nobody answers. */
int outgoing_end_one_way(struct outgoing *o);
/* A failure before the end, as an event: the table says whether the guest may run here again. */
void outgoing_fail(struct outgoing *o);
