/* Messages between two godwits: the hello before the envelope, the return path, and the hand-over after EOF.
 *
 *   be32 magic  be16 type  be16 reserved  be32 payload bytes  be32 attempt  16 bytes migration id
 *   payload     be64 XXH3 of the payload, seeded with that of the 32 bytes before it
 *
 * Whoever reads compares id and attempt: any other attempt's message is ignored, not an error, since a late one may
 * still be on its way when the next attempt begins. */
#pragma once
#include <stdint.h>

#include "base/bytes.h"
#include "base/channel.h"
#include "base/err.h"
#include "migration/threads/verify.h"

#define MESSAGE_MAGIC UINT32_C(0x47445754) /* "GDWT" */
enum { MESSAGE_PAYLOAD_MAX = 64 * 1024, MESSAGE_ID_BYTES = 16, MESSAGE_HEAD_BYTES = 32, MESSAGE_SENTENCE_MAX = 400 };

enum message_type {
    MESSAGE_HELLO = 1,    /* both ways: hello.h */
    MESSAGE_REFUSAL = 2,  /* destination, instead of its hello: a sentence */
    MESSAGE_LOADED = 3,   /* struct message_loaded */
    MESSAGE_PREPARED = 4, /* be32 count, then per source be32 id and two be64 of digest */
    MESSAGE_RUNNING = 5,  /* be64 ns from GO's arrival to the first instruction, u8 whether the guest runs */
    MESSAGE_REFUSED = 6,  /* after GO: it does not run here and never will; a sentence */
    MESSAGE_ERROR = 7,    /* destination, before PREPARED: a sentence */
    MESSAGE_GO = 8,
    MESSAGE_RETRACT = 9,
    MESSAGE_RETRACTED = 10, /* destination: the guest that was loaded is gone again */
    MESSAGE_RESUME =
        11,            /* source, in doubt, first on a new line: say again what you are (PREPARED, RUNNING, REFUSED) */
    MESSAGE_DONE = 12, /* source: RUNNING or REFUSED was heard, nobody will ask again */
    MESSAGE_CHANNEL = 13,  /* both ways, first on a data channel: be32 its number from 1, be32 how many there are */
    MESSAGE_RESULT = 20,   /* destination, some 100 ms behind RUNNING, to a source that can hear it:
                             report_arrival_encode(). Decides nothing */
    MESSAGE_VERIFY = 23,   /* source, to a prepared destination that can: what does it hold? message_verify_encode() */
    MESSAGE_VERIFIED = 24, /* the answer: the same, and a hash for each range; none when it cannot say */
    MESSAGE_SYNCED = 27,   /* destination, to a source that sends disks: be64 ns that making them durable took last */
};

struct message_key { /* whose message it is */
    uint8_t id[MESSAGE_ID_BYTES];
    uint32_t attempt;
};

struct message {
    uint16_t type;
    struct message_key key;
    uint32_t bytes;
    uint8_t payload[MESSAGE_PAYLOAD_MAX];
};

bool message_key_equal(const struct message_key *a, const struct message_key *b);

/* Append one message to `out`. */
void message_put(struct buf *out, enum message_type type, const struct message_key *key, const void *payload,
                 uint32_t bytes);
/* Append one that carries a sentence; cut at MESSAGE_SENTENCE_MAX. */
void message_put_sentence(struct buf *out, enum message_type type, const struct message_key *key, const char *sentence);

/* Read one. `magic_seen`: the caller has read the four bytes of the magic. -EPIPE at the end of the stream between
 * two messages, -EPROTO when it is not a message. */
int message_read(struct channel *channel, bool magic_seen, struct message *out, int timeout_ms, struct err *err);
/* The sentence a message carries, made printable. */
void message_sentence(const struct message *message, char *out, size_t out_size);

struct message_loaded {
    uint64_t units;      /* loaded since the start */
    uint64_t wire_bytes; /* of the frames they came in */
    uint64_t rounds;     /* end-of-round marks met and checked */
    uint64_t now_ns;     /* the destination's clock, only for differences */
    uint64_t waited_ns;  /* of that clock's time its receive thread waited for bytes; MESSAGE_UNTOLD: it does not say */
};
/* Without waited_ns where the source's hello does not ask for it. */
enum { MESSAGE_LOADED_BYTES = 40, MESSAGE_LOADED_BYTES_SHORT = 32 };
#define MESSAGE_UNTOLD UINT64_MAX
void message_loaded_encode(const struct message_loaded *loaded, uint8_t out[MESSAGE_LOADED_BYTES]);
int message_loaded_decode(const struct message *message, struct message_loaded *out);

/* The question, which is also the answer's head: be32 source, be64 first unit, be32 units of a range, be32 ranges. */
void message_verify_encode(const struct verify_ranges *ranges, struct buf *out);
int message_verify_decode(const struct message *message, struct verify_ranges *out); /* -EPROTO */
void message_verified_encode(const struct verify_ranges *ranges, const struct unit_hash *hash, unsigned hashes,
                             struct buf *out);
/* hash: VERIFY_HASHES_MAX. How many there are, or -EPROTO. */
int message_verified_decode(const struct message *message, struct verify_ranges *out, struct unit_hash *hash);
