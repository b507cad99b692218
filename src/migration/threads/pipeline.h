/* The street, which every dirty unit walks once and never turns back:
 *
 *   dirty bit | scan+compress xN -> write x1 per channel | ~~~ | receive -> load xN | guest RAM, disk
 *             |<------ a fixed pool of chunks goes round ------>|
 *
 * This header is all that the migration sees of it. base/ only: every stage runs in a test without a VM.
 * Threads: one owner thread (the migration's) calls everything except where "any thread" is said. Workers and the
 * writer report; they never change the migration's state. The first error of any stage is latched and ends all
 * rounds; "take a free chunk" is the one place that blocks. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/channel.h"
#include "base/err.h"
#include "migration/threads/digest.h"
#include "migration/threads/source.h"

enum codec { CODEC_RAW = 0, CODEC_LZ4 = 1, CODEC_ZSTD = 2 }; /* wire numbers */
enum { CODECS = 3, CODEC_AUTO = 255 };                       /* AUTO never stands on the wire */
enum { PIPELINE_WORKERS_MAX = 64, PIPELINE_SOURCES_MAX = 16, PIPELINE_CHANNELS_MAX = 16 };

/* Live-adjustable; read by the stages with relaxed loads. */
struct pipeline_tunables {
    _Atomic uint64_t max_bytes_per_s; /* true wire bytes; 0: no cap */
    _Atomic uint32_t codec;           /* enum codec, or CODEC_AUTO: what clears most units */
    _Atomic int32_t acceleration;     /* LZ4, 1..; AUTO has its own */
    _Atomic bool uncapped;            /* the last round: the cap does not bind */
    _Atomic int64_t frozen_limit_ns;  /* a channel that takes nothing for so long has failed; 0: wait for ever */
};

struct pipeline_options {
    unsigned workers;        /* 1 .. PIPELINE_WORKERS_MAX */
    struct source **sources; /* by id - 1 */
    unsigned source_count;
    struct channel *channel;
    /* Beside the channel, if there are any, and then all frames go over these; PIPELINE_CHANNELS_MAX at most. */
    struct channel *const *data;
    unsigned data_count;
    struct pipeline_tunables *tunables;
    uint64_t pool_bytes; /* bound on the pipeline's memory; 0: default from workers */
    unsigned codecs;     /* mask of 1 << enum codec: what the peer reads; instead of zstd it gets LZ4. 0: all */
    bool
        peer_is_fresh; /* of the first source what it was never sent is zero there: zero units are news only where they were
                          something else */
    const struct digest_key *key; /* of the digests; outlives the pipeline; NULL: none */
    bool settled;                 /* AUTO is LZ4: nobody waits for what is written, and it may be kept */
    /* Of its time that the peer waits for bytes, 1/1000; below 0, or NULL: it does not say. Outlives the pipeline. */
    const _Atomic int32_t *peer_waits_permille;
    uint64_t delta_cache_bytes; /* what may be kept of units that were sent, for deltas; 0: the peer reads none */
    bool plain_pages;           /* later: QEMU as peer */
};

/* All counters since the start; relaxed atomics inside, any thread may ask. */
struct pipeline_stats {
    uint64_t rounds; /* finished */
    uint64_t units_data, units_zero, units_taken;
    uint64_t raw_bytes;    /* of data units, before compression */
    uint64_t wire_bytes;   /* written to the channels, everything included */
    uint64_t data_bytes;   /* of these, to data channels */
    uint64_t queued_bytes; /* made but not yet written */
    uint64_t frozen_ns, rate_wait_ns, pool_wait_ns, revoke_wait_ns;
    uint64_t copy_ns, compress_ns; /* sums over workers; sampled */
    uint64_t codec_units[CODECS];  /* units_data by codec, but for deltas */
    uint64_t delta_units;          /* of units_data, sent as deltas: they have no codec */
    uint64_t delta_bytes;          /* on the wire, of these */
    uint64_t delta_misses;         /* units that were sent again as a whole while deltas were made */
    enum codec codec;              /* of the next chunk */
    int acceleration;              /* LZ4 */
    uint64_t pool_bytes;           /* memory that the pipeline holds */
};

/* Of one source, likewise. work_ns: what workers needed for its chunks, reading included, summed. */
struct pipeline_source_stats {
    uint64_t units_data, units_zero, wire_bytes, work_ns;
};

struct round_result {
    uint64_t units_data, units_zero; /* of this round */
    uint64_t wire_bytes;
    int64_t elapsed_ns;
};

struct pipeline;

int pipeline_new(const struct pipeline_options *options, struct pipeline **out, struct err *err);

/* One round: every unit that is dirty when its slice is reached is taken at most once. Returns when every chunk of the
 * round is in the writer's queue and the end-of-round mark (round number, unit counts by source) behind it.
 * -errno and the sentence of the first error of any stage. */
int pipeline_round(struct pipeline *p, bool last, struct round_result *out, struct err *err);
/* The same in three steps, for an owner who has something else to do when it takes too long: begin, wait until
 * deadline_ns (clock_now_ns; INT64_MAX: none) for the workers and for the writer to have nothing left, and end, which
 * waits for the workers and puts the mark. wait is false when the deadline passed, true also after a failure. */
int pipeline_round_begin(struct pipeline *p, bool last, struct err *err);
bool pipeline_round_wait(struct pipeline *p, int64_t deadline_ns);
/* Between begin and end: take nothing more, what is dirty is the next round's. What was taken already is still sent. */
void pipeline_round_cut(struct pipeline *p);
/* Begin a round that cuts itself when it has made so many wire bytes, or a little more: a slice of each worker. */
int pipeline_train_begin(struct pipeline *p, uint64_t bytes, struct err *err);
int pipeline_round_end(struct pipeline *p, struct round_result *out, struct err *err);

/* The peer has loaded all of a round that was made in made_ns, loaded_ns after its beginning. */
void pipeline_round_loaded(struct pipeline *p, const struct round_result *round, int64_t loaded_ns);

/* Put bytes (envelope, device sections, hand-over messages) on the wire, copied: in order with the chunks, where there are
 * data channels with the ends of rounds only. */
int pipeline_send(struct pipeline *p, const void *data, size_t bytes, struct err *err);
/* Everything queued so far has been given to the channels. */
int pipeline_flush(struct pipeline *p, struct err *err);

void pipeline_stats(const struct pipeline *p, struct pipeline_stats *out); /* any thread */
void pipeline_source_stats(const struct pipeline *p, unsigned source,
                           struct pipeline_source_stats *out);     /* any thread */
void pipeline_fail(struct pipeline *p, int code, const char *why); /* any thread: cancel; first one wins */
/* The first failure with its sentence, 0 when there was none: what shutting the channel down did to others came later. */
int pipeline_error(struct pipeline *p, struct err *err);
/* The digest of what the sources looked like as sent (see digest.h); no round may be running. */
void pipeline_digest(const struct pipeline *p, unsigned source, uint64_t out[2]);
/* A unit as it was last sent: digest_hash(), DIGEST_ZERO of zeros or when it never was; no round may be running. */
struct unit_hash pipeline_last_hash(const struct pipeline *p, unsigned source, uint64_t unit);
/* Ends all threads. What is queued is written first unless the pipeline has failed: to end one whose peer may be silent,
 * fail it before. Units that were taken stay taken: whoever tries again starts with all of them dirty. The channels stay
 * the caller's. NULL allowed. */
void pipeline_free(struct pipeline *p);

/* --- the other side ----------------------------------------------------------------------------------- */

struct loader_options {
    unsigned workers;
    struct source **sources;
    unsigned source_count;
    struct channel *channel;
    struct channel *const *data; /* as the source has them */
    unsigned data_count;
    uint64_t pool_bytes;
    int silence_ms;               /* a frame that has begun may be silent for so long; 0 or -1: for ever */
    bool confined;                /* workers give up what they do not need: base/sandbox.h */
    const struct digest_key *key; /* as the source has it; outlives the loader */
};

struct loader_stats {
    uint64_t units_data, units_zero, wire_bytes, chunks_loaded, rounds; /* wire_bytes: of loaded frames */
    uint64_t load_ns, pool_wait_ns, pool_bytes;
    uint64_t codec_units[CODECS]; /* units_data by codec, but for deltas */
    uint64_t delta_units;
    uint64_t waited_ns; /* the receive thread waited for bytes */
};

enum { LOADER_ROUNDS_MAX = 1 << 24 }; /* of one migration: rounds of nothing cost a peer nothing */

struct loader;
int loader_new(const struct loader_options *options, struct loader **out, struct err *err);
/* One more, with the next id, before the first frame of any; at most PIPELINE_SOURCES_MAX. The receive thread. */
int loader_add_source(struct loader *l, struct source *source, struct err *err);

/* Frames may come over the data channels from now on; once. Nothing without data channels. */
int loader_receive(struct loader *l, struct err *err);
/* The receive thread (the incoming migration's own) met a START/PART/END header of a source; read the frame that
 * follows (not the footer) from the channel and hand it to a load worker. *mark is set when it was an end-of-round
 * mark: without data channels everything before it has been loaded then and the counts were right, with them
 * loader_round_wait() says when. Frames come in PART sections only (frame.h); the bodies of START and END belong to the
 * caller. An error of a load worker shows at the next frame, at the latest at the mark; the channel still works then, to
 * tell the source why. */
int loader_frame(struct loader *l, uint32_t section_id, bool *mark, struct err *err);
/* Behind a mark: until every channel has ended that round, all of it is stored and the counts are right, timeout_ms at most
 * (-1: for ever). The next round begins when this has closed it. The receive thread. */
int loader_round_wait(struct loader *l, int timeout_ms, bool *closed, struct err *err);
/* Wait for bytes before a frame: 1 when there are some, 0 after timeout_ms, or -errno, which may be a data channel's failure:
 * loader_error() tells. The receive thread. */
int loader_wait(struct loader *l, int timeout_ms);
/* Wait until every frame handed in is stored. */
int loader_barrier(struct loader *l, struct err *err);
/* No frame is taken in while it rests. -EPROTO when there are frames of a round that nothing ended; true waits for what
 * was taken in before. The receive thread. */
int loader_rest(struct loader *l, bool rest, struct err *err);
/* Units loaded so far: what is acknowledged on the return path. Any thread. */
void loader_stats(const struct loader *l, struct loader_stats *out);
void loader_fail(struct loader *l, int code, const char *why); /* any thread: cancel; shuts the channels down */
int loader_error(struct loader *l, struct err *err);           /* as pipeline_error() */
void loader_digest(const struct loader *l, unsigned source, uint64_t out[2]); /* after a barrier */
void loader_free(struct loader *l);                                           /* NULL allowed */
