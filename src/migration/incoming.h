/* The destination's side of one migration, shared by incoming.c (the story) and incoming_handover.c (who owns the guest). */
#pragma once
#include "migration/channels.h"
#include "migration/internal.h"
#include "migration/lease.h"
#include "migration/released.h"
#include "migration/sections.h"

enum { INCOMING_RECALLS_MAX = 64 }; /* a source takes its guest back a handful of times, then gives up */

struct incoming {
    struct migration *m;
    struct machine *machine;
    struct ram *ram;
    struct source *sources[PIPELINE_SOURCES_MAX]; /* RAM first; disks as the stream announces them */
    unsigned source_count;
    struct incoming_disks *disks; /* NULL: none are copied */
    struct channel *channel;      /* what memory comes over; the loader's as long as there is one */
    struct channels data;
    unsigned data_wanted;  /* data channels that the source has announced */
    struct channel *line;  /* what words go over: the channel, a later one, or NULL */
    struct channel *knock; /* somebody who has not yet said who he is */
    int64_t knock_until_ns;
    struct loader *loader;
    struct section_collector *collector;
    struct message *message;
    struct message_key key;
    unsigned recalls; /* how often the source has taken its guest back */
    bool one_way, peer_can_resume, peer_hears_waits, peer_hears_result;
    bool probe;     /* samples for a plan, no guest */
    bool rehearsal; /* what is loaded is dropped again, and never runs */
    bool peer_sends_disks;
    bool hot_code_seen;
    struct digest_key key_bytes;
    const struct digest_key *digest_key; /* that, when the source gave one; else NULL */
    uint64_t devices_sum[2];             /* of the sections as they were loaded */
    int64_t asked_ns;                    /* VERIFY was answered last; 0: never */

    enum handover_state at;
    struct {
        bool started, ended, open_round;
        uint64_t rounds;
    } progress[PIPELINE_SOURCES_MAX];
    uint64_t told_units, told_rounds; /* in the last LOADED */
    int64_t told_ns, go_ns;
    struct report_arrival arrival; /* incoming_result.c's, but for moments as they come */
    int64_t measure_at_ns;         /* the guest's first 100 ms are over then; 0: they are not waited for */
    struct guest_work work_before;
    bool machine_touched;
    bool in_doubt; /* UNRESOLVED is what people see */
    bool done;     /* the source has heard how it ended */
    char refused_path[RELEASED_PATH_MAX];
    struct lease lease; /* beside the disks, when the guest was loaded */
    struct err err;
};

int incoming_timeout_ms(struct incoming *i);
int incoming_say_loaded(struct incoming *i); /* how far it is */
int incoming_say(struct incoming *i, enum message_type type, const void *payload, uint32_t bytes);
void incoming_say_sentence(struct incoming *i, enum message_type type, const char *sentence);

void incoming_stop_listening(struct incoming *i); /* nobody is waited for any more: the address is free for the next */

/* Disks that are copied (incoming_disks.c). start: behind its section's head. round: one is loaded; syncing goes on beside the
 * load. all: no more are to come: are those that must? say: what that takes, if there is news. durable: all is loaded, and on the images when it returns. end: after the loader;
 * the images of a guest that did not come are let go. 0 or -errno. */
int incoming_disk_start(struct incoming *i, const struct section_head *head);
int incoming_disks_all(struct incoming *i);
void incoming_disks_round(struct incoming *i);
void incoming_disks_say(struct incoming *i);
int incoming_disks_durable(struct incoming *i);
void incoming_disks_end(struct incoming *i);

/* Put an event through the hand-over table and perform what it says. */
void incoming_feed(struct incoming *i, enum handover_event event);
/* All is loaded: say PREPARED and hold the guest, to an end or back to loading. False: this process ends while in doubt. */
bool incoming_hold(struct incoming *i);
/* The guest was let go: from now on its first 100 ms are measured. */
void incoming_result_begin(struct incoming *i);
/* They are over, or are not waited for any longer: write down what they were, and tell the source. Nothing when it was done. */
void incoming_result(struct incoming *i);
/* A source took the guest back: the moments of this attempt were another one's. */
void incoming_result_reset(struct incoming *i);

/* It has ended: until the source knows how, for a limited time. */
void incoming_linger(struct incoming *i);
