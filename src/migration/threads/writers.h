/* All writers of a street: one for the main channel, and one for every data channel if there are any.
 *
 * Without data channels everything goes over the main one, in order. With them frames go over the data channels, each to
 * the one with the least to do, and everything else over the main one: nothing orders the one kind with the other but
 * the end of a round, which is told on every channel. */
#pragma once
#include "migration/threads/frame.h"
#include "migration/threads/write.h"

struct writers {
    /* fixed after start */
    struct writer *all; /* [0] is the main channel's; PIPELINE_CHANNELS_MAX more at most */
    unsigned count;
    struct fault *fault;
    struct write_cap cap;
    /* atomic */
    _Atomic unsigned turn; /* whose it is among those that have equally little to do */
};

struct writer_totals {
    uint64_t wire_bytes, data_bytes; /* of all; of the data channels */
    uint64_t queued_bytes, frozen_ns, rate_wait_ns;
};

/* like: a writer's first group of fields, but for index, channel and cap. */
int writers_start(struct writers *writers, const struct writer *like, struct channel *channel,
                  struct channel *const *data, unsigned data_count, struct err *err);
void writers_push(struct writers *writers, struct chunk *chunk); /* control: over the main channel; any thread */
/* A chunk with so many units of a source; any thread. */
void writers_carry(struct writers *writers, unsigned source, uint64_t data, uint64_t zero, struct chunk *chunk);
/* Those that carry frames, for who measures them. */
const struct writer *writers_carriers(const struct writers *writers, unsigned *count);

void writers_begin_round(struct writers *writers); /* nothing is being pushed */
/* Everything of the round was pushed: the mark behind it on every channel, with what went over that one; on the main
 * channel with the sums, which are told. Adds the marks' bytes to *wire_bytes. -errno when the street has failed. */
int writers_end_round(struct writers *writers, uint32_t round, struct source *const *sources, unsigned source_count,
                      struct frame_counts *sums, uint64_t *wire_bytes, struct err *err);

bool writers_idle(const struct writers *writers);            /* nothing pushed is left; any thread */
int writers_flush(struct writers *writers, struct err *err); /* everything pushed was taken by the channels */
void writers_totals(const struct writers *writers, struct writer_totals *out); /* any thread */
void writers_close(struct writers *writers); /* any thread: as writer_close(), and shuts the channels down */
void writers_join(struct writers *writers);  /* writes what is queued unless the street has failed; zeroed is allowed */
