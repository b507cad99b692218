/* The codec of the next chunk, for all workers: what they measure is put together here, and choose.c decides. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/lock.h"
#include "migration/threads/choose.h"
#include "migration/threads/write.h"

enum {
    STEER_SAMPLE_NS = 250000,      /* a worker measures one chunk in so long: the CPU clock is a system call */
    STEER_PEER_LAGS_PERMILLE = 50, /* a peer that waits for bytes less than this does not keep up */
};

struct steer_counts { /* of the writers, at one moment: bytes of all, times of one of them in the mean */
    int64_t at_ns;
    uint64_t sent_bytes, idle_ns, frozen_ns, rate_wait_ns;
};

struct steer {
    /* fixed after follow */
    const struct writer *writers; /* that carry chunks */
    unsigned writer_count;
    const struct pipeline_tunables *tunables;
    unsigned workers;
    unsigned codecs; /* mask of 1 << enum codec: what the peer reads */
    bool settled;    /* CODEC_AUTO is LZ4 */
    const _Atomic int32_t *peer_waits_permille;
    struct lock lock;
    /* under lock */
    struct choose choose;
    struct steer_counts since;     /* the window's beginning */
    uint64_t units, zeros, chunks; /* in it */
    /* atomic */
    _Atomic unsigned gear;
    _Atomic bool disturbed; /* this window says nothing about a gear as a whole */
    _Atomic bool broken;    /* nor about the link: a round began in it */
};

/* What a worker measured: one chunk, and how many units, data and zero, it made since it measured the last one. */
struct steer_sample {
    unsigned gear;
    unsigned units; /* data units of the chunk */
    uint64_t wire_bytes;
    int64_t copy_ns, pack_ns; /* CPU time */
    int64_t wall_ns;
    uint64_t units_since, zeros_since, chunks_since;
};

void steer_init(struct steer *steer, const struct pipeline_options *options);
/* Whose counters tell what the link carries; once, before the first sample. */
void steer_follow(struct steer *steer, const struct writer *writers, unsigned count);
void steer_destroy(struct steer *steer);
/* The codec of the next chunk: the user's, or the one that was chosen. The gear, GEARS when nobody chooses. Any thread. */
unsigned steer_pick(struct steer *steer, struct gear *out);
void steer_disturb(struct steer *steer);      /* not everything is as it was chosen; any thread */
void steer_round_begins(struct steer *steer); /* any thread */
void steer_measured(struct steer *steer, const struct steer_sample *sample);                 /* any worker */
void steer_carried(struct steer *steer, uint64_t bytes, int64_t made_ns, int64_t loaded_ns); /* choose_carried() */
unsigned steer_probe(struct steer *steer); /* see choose_probe(); any worker */
void steer_probed(struct steer *steer, unsigned gear, int64_t cpu_ns, uint64_t wire_bytes);
