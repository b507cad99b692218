/* The hello between two godwits, before the envelope: who we are, what we can, what the machine looks like.
 *
 * The source speaks first. The destination answers with its own hello or with one sentence that says why not, and
 * the source shows that sentence. Pure encoding here; outgoing.c and incoming.c do the talking. */
#pragma once
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "machine/machine.h"
#include "migration/message.h"
#include "migration/threads/pipeline.h"

enum { HELLO_PROTOCOL = 1, HELLO_PROTOCOL_MIN = 1 };
enum hello_role { HELLO_SOURCE = 1, HELLO_DESTINATION = 2 };
enum hello_capability {
    HELLO_CAN_LZ4 = 1 << 0,
    HELLO_CAN_RETRACT = 1 << 1,
    HELLO_CAN_RESUME = 1 << 2,
    HELLO_CAN_ZSTD = 1 << 3,
    HELLO_CAN_HEAR_WAITS = 1 << 4, /* a source: LOADED may say how long the destination waited for bytes */
    HELLO_CAN_DELTAS = 1 << 5,     /* a destination: chunks may hold deltas */
    HELLO_CAN_CHANNELS = 1 << 6,   /* a destination: takes data channels */
    HELLO_IS_FRESH = 1 << 7,       /* a destination: its memory is zero but for what it will be sent */
    HELLO_CAN_WARM = 1 << 8,       /* a destination: it makes code of a list of hot code before the guest runs */
    HELLO_CAN_REHEARSE = 1 << 9,
    HELLO_CAN_PROBE = 1 << 10,
    HELLO_CAN_HEAR_RESULT = 1 << 11, /* a source: it listens for RESULT; a destination: it will say it */
    HELLO_CAN_KEY = 1 << 13, /* a source: its hello ends in a key for digests; a destination: it takes the key, and says
                                   in PREPARED what its devices look like */
    HELLO_CAN_VERIFY = 1 << 14, /* a destination: it answers VERIFY while it is prepared */
    HELLO_DISKS = 1 << 15,      /* a destination: it can be sent disks; a source: it will send its disks */
    /* What a source has come for, if not to hand its guest over. */
    HELLO_REHEARSAL = 1 << 24, /* load and check everything, then drop it */
    HELLO_PROBE = 1 << 25,     /* load samples of its pages into nothing (plan.h) */
};

struct hello {
    uint16_t protocol;
    uint8_t role;                  /* enum hello_role */
    uint64_t capabilities;         /* enum hello_capability; unknown bits are ignored */
    uint32_t unit_bytes;           /* of RAM */
    uint32_t channels;             /* a source's data channels; 1: none, everything comes over this one */
    struct machine_config machine; /* the guest-visible part */
    struct digest_key key;         /* a source that says HELLO_CAN_KEY: this migration's secret */
};

void hello_fill(struct hello *hello, enum hello_role role, const struct machine_config *machine);
void hello_encode(const struct hello *hello, struct buf *out);
unsigned hello_codecs(const struct hello *hello); /* mask of 1 << enum codec: what the speaker reads */
/* Strict: -EPROTO with a sentence; `role` is the one the sender must have. */
int hello_decode(const struct message *message, enum hello_role role, struct hello *out, struct err *err);
