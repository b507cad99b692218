/* The source's ear: a thread that reads what the destination says, and what was heard so far. */
#pragma once
#include "base/lock.h"
#include "base/thread.h"
#include "migration/message.h"
#include "migration/report.h"
#include "migration/threads/pipeline.h"
#include "migration/threads/verify.h"

/* What the owner may wait for, and what it may get instead. In order of importance: the first that is true is told. */
enum heard {
    HEARD_ERROR = 1 << 0, /* the destination's sentence, or something that is no message */
    HEARD_RUNNING = 1 << 1,
    HEARD_REFUSED = 1 << 2,
    HEARD_PREPARED = 1 << 3,
    HEARD_RETRACTED = 1 << 4,
    HEARD_ROUND = 1 << 5, /* the round asked for is loaded */
    HEARD_CLOSED = 1 << 6,
    HEARD_INTERRUPT = 1 << 7, /* return_path_interrupt() */
    HEARD_SILENCE = 1 << 8,   /* nothing at all for the time given */
    HEARD_RESULT = 1 << 9,    /* behind RUNNING only */
    HEARD_VERIFIED = 1 << 10, /* taken by whoever waits for it */
};

struct return_path {
    /* fixed after start */
    struct channel *channel;
    struct thread thread;
    bool started;
    /* The peer said ERROR or is gone: on the ear's thread, no lock held. A street that nobody empties must end. */
    void (*lost)(void *opaque, const struct err *why);
    void *opaque;
    _Atomic int32_t peer_waits_permille; /* newest; -1: the peer does not say */
    struct lock lock;
    struct cond changed;
    /* under lock */
    struct message_key key;
    unsigned heard;                      /* of enum heard, but ROUND and SILENCE */
    struct message_loaded loaded, train; /* newest; where the train being measured began */
    double loaded_bytes_per_s;           /* smoothed */
    double burst_bytes_per_s;            /* best train */
    int64_t heard_ns;                    /* when anything came last */
    int64_t prepared_ns, running_ns;     /* when they came */
    int64_t sync_ns;                     /* newest SYNCED */
    uint64_t start_ns;                   /* RUNNING: from GO to the first instruction, on the peer's clock */
    bool runs;                           /* RUNNING: the guest runs there, or waits there paused */
    uint32_t digests;
    struct {
        uint32_t id;
        uint64_t digest[2];
    } digest[PIPELINE_SOURCES_MAX];
    bool devices_told; /* PREPARED: with what the machine's sections look like there */
    uint64_t devices[2];
    struct {
        struct verify_ranges ranges;
        unsigned hashes;
        struct unit_hash hash[VERIFY_HASHES_MAX];
    } verified; /* VERIFIED: the first since HEARD_VERIFIED was taken back, and then it does not change */
    struct report_arrival arrival; /* RESULT */
    struct err why;                /* ERROR, REFUSED, CLOSED */
};

int return_path_start(struct return_path *path, struct channel *channel, const struct message_key *key,
                      void (*lost)(void *opaque, const struct err *why), void *opaque, struct err *err);
void return_path_stop(struct return_path *path);      /* after channel_shutdown(): ends the thread */
void return_path_interrupt(struct return_path *path); /* any thread */
/* A new attempt begins (after RETRACT): what the old one said is void. */
void return_path_new_attempt(struct return_path *path, uint32_t attempt);

/* Wait for one of `wanted`. ERROR, CLOSED and INTERRUPT (which is thereby taken) end every wait, SILENCE after silence_ms (-1: never). The text
 * of ERROR, REFUSED and CLOSED is copied to err. */
enum heard return_path_wait(struct return_path *path, unsigned wanted, uint64_t round, int64_t silence_ms,
                            struct err *err);
/* As above with a deadline (clock_now_ns): 0 when it passed. */
enum heard return_path_wait_until(struct return_path *path, unsigned wanted, int64_t deadline_ns);
