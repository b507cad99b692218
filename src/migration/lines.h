/* How a migration calls and is called: plain, or, where tls-creds is set, over TLS 1.3 and nothing else.
 *
 * The first line of a migration, the main channel, gives it a secret that only its two ends know. Every further line, a data
 * channel or one that replaces a lost line, begins with a message that carries a tag: who says it knows that secret, and is
 * an end of this very line. So nobody with credentials of his own, or of another migration, can splice a line in, and nobody
 * in the middle can lead one elsewhere. Both sides say it, and each says it differently. */
#pragma once
#include "base/bytes.h"
#include "base/channel_tls.h"
#include "base/tls_object.h"
#include "migration/message.h"
#include "migration/params.h"

struct lines {
    /* fixed by lines_begin() */
    struct tls_creds *creds; /* NULL: plain */
    struct authz *authz;
    char hostname[TLS_NAME_MAX];
    bool incoming;
    /* owner: the migrate thread */
    bool bound;
    uint8_t secret[CHANNEL_TLS_SECRET_BYTES]; /* of the main channel */
};

/* What the parameters say now, on their thread, while no migrate thread is there. Forgets what it was before. -EINVAL with
 * a sentence: an object that is not there, or not for this side. */
int lines_begin(struct lines *lines, struct tls_store *objects, const struct migration_params *params, const char *uri,
                bool incoming, struct err *err);
void lines_end(struct lines *lines); /* zeroed is allowed */

/* From here on lines is the migrate thread's; NULL is plain. */

/* As channel_connect(), and a handshake of patience_ms at most. */
int lines_connect(struct lines *lines, const char *uri, int abort_fd, int patience_ms, struct channel **out,
                  struct err *err);
/* The next who calls. Nothing is known of him yet: the handshake is made as bytes come. */
int lines_accept(struct lines *lines, struct channel_listener *listener, int abort_fd, struct channel **out,
                 struct err *err);
/* The next who has proven himself and says something. Others are sent away meanwhile, and `refused` is told why: at most 16
 * at a time, each for patience_ms (-1: no limit, where there is one line only). */
int lines_answer(struct lines *lines, struct channel_listener *listener, int abort_fd, int patience_ms,
                 struct channel **out, void (*refused)(void *opaque, const struct err *why), void *opaque,
                 struct err *err);
/* This one is the main channel. */
void lines_bind(struct lines *lines, struct channel *main);

/* Append a message that is the first on its line, with its tag where there is TLS. */
void lines_put(const struct lines *lines, struct channel *line, struct buf *out, enum message_type type,
               const struct message_key *key, const void *payload, uint32_t bytes);
/* By how much lines_put() makes a payload longer. */
unsigned lines_tag_bytes(const struct lines *lines);
/* Is it from the other end of our main channel? Then the tag is taken off its payload. */
bool lines_check(const struct lines *lines, struct channel *line, struct message *message);
