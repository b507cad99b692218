/* TLS 1.3 (RFC 8446) over another channel. To whoever reads and writes it is a channel like any other: channel.h.
 *
 * Two threads, one that writes and one that reads, use one session. GnuTLS allows that only while nothing but records of data
 * is sent and received, and no program can promise it: after 2^24 records or so either side changes its keys, and what
 * one end asks for (a KeyUpdate, RFC 8446 section 4.6.3) the other end's *reader* meets and its *writer* has to answer. So every
 * call of GnuTLS is made under the channel's lock. That is right because none of them blocks: what is beneath never does, a
 * call is one record of 16 KiB, a few microseconds, and most channels carry their load in one direction. It is enough
 * because nothing else of the session is touched: waiting looks at descriptors only, and shutdown, which must not wait for
 * anybody, goes to the channel beneath, whose flag and descriptor end every call here.
 *
 * The handshake happens on the first read, write or wait; one thread at a time may use the channel until it is done.
 * channel_tls_handshake() does it with a limit, and with words when it fails.
 *
 * What GnuTLS sends goes to memory first, and from there to the line: it never has to keep a record. A write that the line did not
 * take returns -EAGAIN as it should; its records are made by then, and the same bytes are expected from the next write: they are
 * not sent twice. Other bytes instead come after them on the line.
 *
 * An end without the peer's close_notify is -ECONNRESET, not an end: somebody may have cut the line on purpose. */
#pragma once
#include "base/authz.h"
#include "base/channel.h"
#include "base/tls.h"

enum { CHANNEL_TLS_SECRET_BYTES = 32, CHANNEL_TLS_TAG_BYTES = 32 };

/* Takes `under`, which must be two-way and over descriptors, also when it fails. hostname: tls.h. authz: on a server, who
 * may come; NULL: whoever has credentials. References are taken. */
int channel_tls_new(struct channel *under, struct tls_creds *creds, const char *hostname, struct authz *authz,
                    struct channel **out, struct err *err);

/* Until it is done: 0; -ECANCELED when abort_fd (-1: none) becomes readable or somebody shuts the channel down, -ETIMEDOUT after
 * patience_ms (-1: none) of a peer that does not get on with it, and otherwise what is wrong, in a sentence. */
int channel_tls_handshake(struct channel *channel, int abort_fd, int patience_ms, struct err *err);

bool channel_is_tls(const struct channel *channel);
bool channel_tls_shaken(struct channel *channel); /* the handshake is done */
/* After a handshake that failed: the peer's first byte was none of TLS. The channel beneath can still be talked to. */
bool channel_tls_peer_is_plain(struct channel *channel);
struct channel *channel_tls_under(struct channel *channel); /* stays its own */

/* What only the two ends of this session know: an exporter's value (RFC 8446, section 7.5). Shaken channels only. */
void channel_tls_secret(struct channel *channel, uint8_t out[CHANNEL_TLS_SECRET_BYTES]);
/* Who knows the secret has said this: HMAC-SHA256. */
void channel_tls_tag(const uint8_t secret[CHANNEL_TLS_SECRET_BYTES], const void *text, size_t bytes,
                     uint8_t out[CHANNEL_TLS_TAG_BYTES]);
bool channel_tls_tag_equal(const uint8_t *a, const uint8_t *b); /* in constant time */
