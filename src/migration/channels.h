/* Data channels: further connections to the same address, each bound to the migration that it belongs to.
 *
 * When the hellos on the main channel are said the source opens as many as its hello named, and each begins with a CHANNEL
 * message: the migration's id, the channel's number, how many there are. The destination answers each with the same, or with
 * REFUSAL; it goes on when all have come. Whoever does not know the id is sent away; over TLS, whoever cannot show that he is
 * the other end of the main channel too (lines.h). On the migrate thread. */
#pragma once
#include "base/channel.h"
#include "migration/lines.h"
#include "migration/message.h"
#include "migration/params.h"
#include "migration/threads/pipeline.h"

/* How many the parameters want for this address, 0 for none: everything over the main channel then. -EINVAL where an
 * address is one connection. Any thread. */
int channels_wanted(struct migration_params *params, const char *uri, struct err *err);

struct channels {
    struct channel *data[PIPELINE_CHANNELS_MAX];
    unsigned count;
};

/* lines: NULL is plain.
 * The source: opens them and waits until the destination has accepted each, patience_ms for an answer. A REFUSAL that comes over
 * the main channel instead is its sentence. -ECANCELED when abort_fd is readable. What was opened until then stays in out. */
int channels_connect(struct lines *lines, const char *uri, struct channel *main, int abort_fd,
                     const struct message_key *key, unsigned count, int patience_ms, struct channels *out,
                     struct err *err);
/* The destination: waits for all of them, patience_ms together. Anything on the main channel ends it. */
int channels_gather(struct lines *lines, struct channel_listener *listener, struct channel *main, int abort_fd,
                    const struct message_key *key, unsigned count, int patience_ms, struct channels *out,
                    struct err *err);
void channels_close(struct channels *channels); /* zeroed is allowed */
