#include "base/channel_tls.h"

#include <assert.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/channel_private.h"
#include "base/clock.h"
#include "base/lock.h"
#include "base/tls_priv.h"

enum {
    RECORD_BYTES = 16384,  /* RFC 8446, section 5.1 */
    AHEAD_BYTES = 65536,   /* read and written at once: some records for one system call */
    RECORD_HANDSHAKE = 22, /* RFC 8446, section 5.1: what a stream of TLS can begin with */
    RECORD_ALERT = 21,
    WHY_MAX = 200,
};
#define SECRET_LABEL "EXPORTER-godwit-migration"

struct channel_tls {
    struct channel channel; /* first */
    /* fixed after new */
    struct channel *under;
    struct authz *authz; /* a reference */
    /* atomic */
    _Atomic bool down;
    /* under lock */
    struct lock lock; /* rank CHANNEL */
    struct tls_session session;
    bool agreed; /* GnuTLS is done with the handshake; it may not have been sent yet */
    bool shaken;
    bool met; /* the first byte of the peer was seen */
    bool peer_is_plain;
    int failed;       /* -errno: it stays so; why has the words */
    int under_failed; /* what the channel beneath said, in the call that is being made: -EAGAIN, or -errno */
    uint8_t secret[CHANNEL_TLS_SECRET_BYTES];
    char why[WHY_MAX];
    uint8_t ahead[AHEAD_BYTES]; /* read beneath, not yet by GnuTLS */
    size_t ahead_at, ahead_end;
    uint8_t peeked; /* a byte that was read to see whether there is one */
    bool has_peeked;
    uint8_t plain[AHEAD_BYTES]; /* what is being sent */
    size_t owed_at, owed;       /* of it: on its way, but the caller has not been told */
    struct buf wire;            /* the same as records, and what else GnuTLS says */
    size_t wire_at;             /* of it: taken by the line */
    bool slow;                  /* it did not take all last time */
    bool said_goodbye;
};

static struct channel_tls *tls_of(struct channel *channel)
{
    return (struct channel_tls *)channel;
}

/* --- what GnuTLS sends and receives through; the lock is held ---------------------------------------------------- */

/* Never short of room: a record that GnuTLS has to keep and a KeyUpdate that it has to answer do not go together there
 * (3.7), whatever the number of threads. */
static ssize_t push(gnutls_transport_ptr_t opaque, const giovec_t *iov, int count)
{
    struct channel_tls *c = opaque;
    size_t before = c->wire.size;
    for (int i = 0; i < count; i++)
        buf_put(&c->wire, iov[i].iov_base, iov[i].iov_len);
    return (ssize_t)(c->wire.size - before);
}

/* What waits to be sent, to the line: 0 all of it, -EAGAIN, or the line's failure. */
static int flush(struct channel_tls *c)
{
    while (c->wire_at < c->wire.size) {
        struct iovec iov = { .iov_base = c->wire.data + c->wire_at, .iov_len = c->wire.size - c->wire_at };
        ssize_t taken = c->under->ops->writev(c->under, &iov, 1);
        if (taken < 0)
            return (int)taken;
        c->wire_at += (size_t)taken;
    }
    c->wire.size = c->wire_at = 0;
    return 0;
}

static ssize_t pull(gnutls_transport_ptr_t opaque, void *out, size_t bytes)
{
    struct channel_tls *c = opaque;
    if (c->ahead_at == c->ahead_end) {
        ssize_t got = c->under->ops->read(c->under, c->ahead, sizeof(c->ahead));
        if (got == 0)
            return 0;
        if (got < 0) {
            c->under_failed = (int)got;
            gnutls_transport_set_errno(c->session.handle, got == -EAGAIN ? EAGAIN : EIO);
            return -1;
        }
        c->ahead_at = 0;
        c->ahead_end = (size_t)got;
        if (!c->met)
            c->peer_is_plain = c->ahead[0] != RECORD_HANDSHAKE && c->ahead[0] != RECORD_ALERT;
        c->met = true;
    }
    size_t left = c->ahead_end - c->ahead_at;
    bytes = bytes < left ? bytes : left;
    memcpy(out, c->ahead + c->ahead_at, bytes);
    c->ahead_at += bytes;
    return (ssize_t)bytes;
}

static int pull_wait(gnutls_transport_ptr_t opaque, unsigned ms)
{
    struct channel_tls *c = opaque;
    (void)ms; /* nothing here blocks */
    return c->ahead_at != c->ahead_end || c->under->ops->wait(c->under, POLLIN, 0) == 1;
}

/* --- the session; the lock is held ------------------------------------------------------------------------------- */

static int fail(struct channel_tls *c, int code, const char *why)
{
    c->failed = code;
    snprintf(c->why, sizeof(c->why), "%s", why);
    return code;
}

static int errno_of(int code)
{
    switch (code) {
    case GNUTLS_E_PREMATURE_TERMINATION: return -ECONNRESET;
    case GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR:
    case GNUTLS_E_CERTIFICATE_REQUIRED:
    case GNUTLS_E_NO_CERTIFICATE_FOUND:
    case GNUTLS_E_FATAL_ALERT_RECEIVED: return -EACCES;
    case GNUTLS_E_MEMORY_ERROR: return -ENOMEM;
    default: return -EPROTO;
    }
}

/* -EAGAIN; the channel's own failure, which is none of TLS; or what has ended this session for good. */
static int judge(struct channel_tls *c, int code)
{
    char why[WHY_MAX];
    if (code == GNUTLS_E_AGAIN || code == GNUTLS_E_INTERRUPTED)
        return -EAGAIN;
    if (code == GNUTLS_E_PULL_ERROR && c->under_failed && c->under_failed != -EAGAIN)
        return c->under_failed;
    if (!c->shaken && c->peer_is_plain)
        return fail(c, -EPROTO, "the peer does not speak TLS: is tls-creds set there?");
    if (!c->shaken && code == GNUTLS_E_PREMATURE_TERMINATION)
        return fail(c, -ECONNRESET, "the peer hung up in the handshake");
    tls_session_why(&c->session, code, why, sizeof(why));
    fail(c, errno_of(code), why);
    if (code != GNUTLS_E_FATAL_ALERT_RECEIVED && code != GNUTLS_E_PREMATURE_TERMINATION)
        gnutls_alert_send_appropriate(c->session.handle, code);
    flush(c); /* if the line takes it */
    return c->failed;
}

static int admit(struct channel_tls *c)
{
    char identity[AUTHZ_TEXT_MAX], shown[AUTHZ_TEXT_MAX], why[WHY_MAX];
    if (!c->authz)
        return 0;
    tls_session_identity(&c->session, identity, sizeof(identity));
    if (authz_allows(c->authz, identity))
        return 0;
    gnutls_alert_send(c->session.handle, GNUTLS_AL_FATAL, GNUTLS_A_ACCESS_DENIED);
    flush(c);
    err_printable(identity, strlen(identity), shown, sizeof(shown));
    snprintf(why, sizeof(why), "%.40s does not allow '%.120s'", c->authz->id, shown);
    return fail(c, -EACCES, why);
}

/* As far as it goes now: 0 when it is done, -EAGAIN, or a failure. */
static int shake(struct channel_tls *c)
{
    if (c->failed)
        return c->failed;
    if (c->shaken)
        return 0;
    int rc, flushed;
    do {
        c->under_failed = 0;
        rc = c->agreed ? 0 : gnutls_handshake(c->session.handle);
    } while (rc == GNUTLS_E_WARNING_ALERT_RECEIVED || rc == GNUTLS_E_INTERRUPTED ||
             (rc == GNUTLS_E_AGAIN && !c->under_failed));
    if (rc < 0 && rc != GNUTLS_E_AGAIN)
        return judge(c, rc);
    c->agreed = rc == 0;
    flushed = flush(c);
    if (flushed < 0 || rc < 0)
        return flushed < 0 ? flushed : judge(c, rc);
    rc = gnutls_prf_rfc5705(c->session.handle, strlen(SECRET_LABEL), SECRET_LABEL, 0, NULL, sizeof(c->secret),
                            (char *)c->secret);
    if (rc < 0)
        return judge(c, rc);
    rc = admit(c);
    c->shaken = rc == 0;
    return rc;
}

static ssize_t receive(struct channel_tls *c, void *out, size_t bytes)
{
    ssize_t got;
    do {
        c->under_failed = 0;
        got = gnutls_record_recv(c->session.handle, out, bytes);
        /* A message that is no data, KeyUpdate say, comes as "again" although there may be more to read. */
    } while (got == GNUTLS_E_WARNING_ALERT_RECEIVED || got == GNUTLS_E_INTERRUPTED ||
             (got == GNUTLS_E_AGAIN && !c->under_failed));
    return got < 0 ? judge(c, (int)got) : got;
}

/* --- the channel ----------------------------------------------------------------------------------------------- */

static bool is_down(struct channel_tls *c)
{
    return atomic_load_explicit(&c->down, memory_order_acquire);
}

static ssize_t tls_read(struct channel *channel, void *out, size_t bytes)
{
    struct channel_tls *c = tls_of(channel);
    if (is_down(c))
        return -ECANCELED;
    if (bytes == 0)
        return 0;
    lock(&c->lock);
    ssize_t got = c->has_peeked ? 0 : shake(c);
    if (got == 0 && c->has_peeked) {
        *(uint8_t *)out = c->peeked;
        c->has_peeked = false;
        /* The rest of its record is in memory. */
        got = bytes > 1 && gnutls_record_check_pending(c->session.handle)
                  ? gnutls_record_recv(c->session.handle, (uint8_t *)out + 1, bytes - 1)
                  : 0;
        got = got > 0 ? got + 1 : 1;
    } else if (got == 0) {
        got = receive(c, out, bytes);
    }
    unlock(&c->lock);
    return got;
}

/* The next of iov from *skip on, into out: how many. */
static size_t gather(const struct iovec *iov, int count, size_t skip, uint8_t *out, size_t room)
{
    size_t used = 0;
    for (int i = 0; i < count && used < room; i++) {
        size_t bytes = iov[i].iov_len;
        if (skip >= bytes) {
            skip -= bytes;
            continue;
        }
        bytes = bytes - skip < room - used ? bytes - skip : room - used;
        memcpy(out + used, (const uint8_t *)iov[i].iov_base + skip, bytes);
        used += bytes;
        skip = 0;
    }
    return used;
}

/* How many of the first bytes are those that are on their way already. */
static size_t told_again(struct channel_tls *c, const struct iovec *iov, int count)
{
    size_t same = 0;
    for (int i = 0; i < count && same < c->owed; i++) {
        size_t bytes = iov[i].iov_len < c->owed - same ? iov[i].iov_len : c->owed - same;
        if (bytes && memcmp(iov[i].iov_base, c->plain + c->owed_at + same, bytes) != 0) {
            c->owed = 0; /* the caller has thought better of it; they are on the line all the same */
            return 0;
        }
        same += bytes;
    }
    c->owed_at += same;
    c->owed -= same;
    return same;
}

/* What is in c->plain, as records; the line may not take all of it at once. */
static int encrypt(struct channel_tls *c, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t sent = gnutls_record_send(c->session.handle, c->plain + done, bytes - done);
        if (sent < 0 && sent != GNUTLS_E_INTERRUPTED)
            return judge(c, (int)sent);
        done += sent > 0 ? (size_t)sent : 0;
    }
    return 0;
}

static ssize_t send_all(struct channel_tls *c, const struct iovec *iov, int count)
{
    int rc = flush(c);
    size_t total = 0;
    if (rc == 0 && c->owed) {
        total = told_again(c, iov, count);
        if (c->owed)
            return (ssize_t)total;
    }
    /* Some records for one system call; where the line is full one at a time, so that its progress shows. */
    size_t room = c->slow ? RECORD_BYTES : sizeof(c->plain);
    for (size_t bytes; rc == 0 && (bytes = gather(iov, count, total, c->plain, room)) > 0;) {
        rc = encrypt(c, bytes);
        if (rc == 0 && (rc = flush(c)) == 0)
            total += bytes;
        c->owed = rc == -EAGAIN ? bytes : 0;
        c->owed_at = 0;
    }
    c->slow = rc == -EAGAIN;
    return total || rc == 0 ? (ssize_t)total : rc;
}

static ssize_t tls_writev(struct channel *channel, const struct iovec *iov, int count)
{
    struct channel_tls *c = tls_of(channel);
    if (is_down(c))
        return -ECANCELED;
    lock(&c->lock);
    ssize_t taken = shake(c);
    if (taken == 0)
        taken = send_all(c, iov, count);
    unlock(&c->lock);
    return taken;
}

/* What has to happen beneath before another try: a handshake first sends what it has to. The lock is held. */
static short events_beneath(struct channel_tls *c, short events)
{
    if (c->shaken || c->failed)
        return events;
    return c->wire_at < c->wire.size ? POLLOUT : POLLIN;
}

static int tls_wait(struct channel *channel, short events, int timeout_ms)
{
    struct channel_tls *c = tls_of(channel);
    if (is_down(c))
        return -ECANCELED;
    lock(&c->lock);
    bool here = c->failed ||
                (events & POLLIN && c->shaken &&
                 (c->has_peeked || c->ahead_at != c->ahead_end || gnutls_record_check_pending(c->session.handle) > 0));
    short beneath = events_beneath(c, events);
    unlock(&c->lock);
    return here ? 1 : c->under->ops->wait(c->under, beneath, timeout_ms);
}

/* Is there something to read, its end, or a failure? One byte is read to know. */
static bool tls_look(struct channel *channel, struct channel **under, short *events)
{
    struct channel_tls *c = tls_of(channel);
    *under = c->under;
    *events = POLLIN;
    if (is_down(c))
        return true;
    lock(&c->lock);
    ssize_t rc = c->has_peeked ? 1 : shake(c);
    if (rc == 0) {
        rc = receive(c, &c->peeked, 1);
        c->has_peeked = rc > 0;
    }
    *events = events_beneath(c, POLLIN);
    unlock(&c->lock);
    return rc != -EAGAIN;
}

static void tls_shutdown(struct channel *channel)
{
    struct channel_tls *c = tls_of(channel);
    atomic_store_explicit(&c->down, true, memory_order_release);
    c->under->ops->shutdown(c->under);
}

/* close_notify: 0, -EAGAIN or a failure. */
static int say_goodbye(struct channel_tls *c)
{
    lock(&c->lock);
    int rc = c->failed;
    if (rc == 0 && c->shaken) {
        int code = c->said_goodbye ? 0 : gnutls_bye(c->session.handle, GNUTLS_SHUT_WR);
        c->said_goodbye = true;
        rc = code < 0 ? judge(c, code) : flush(c);
    }
    unlock(&c->lock);
    return rc;
}

static int tls_finish(struct channel *channel, struct err *err)
{
    struct channel_tls *c = tls_of(channel);
    int rc;
    while ((rc = say_goodbye(c)) == -EAGAIN) {
        rc = c->under->ops->wait(c->under, POLLOUT, -1);
        if (rc < 0)
            break;
    }
    if (rc < 0)
        return err_set_errno(err, rc, "cannot end %s", channel->name);
    return c->under->ops->finish(c->under, err);
}

static bool tls_fate(struct channel *channel, char *out, size_t size)
{
    struct channel_tls *c = tls_of(channel);
    lock(&c->lock);
    bool failed = c->failed;
    if (failed)
        snprintf(out, size, "TLS: %s", c->why);
    unlock(&c->lock);
    return failed || (c->under->ops->fate && c->under->ops->fate(c->under, out, size));
}

static void tls_close(struct channel *channel)
{
    struct channel_tls *c = tls_of(channel);
    if (c->session.handle && !is_down(c))
        say_goodbye(c); /* if the line takes it at once: nobody waits any more */
    tls_session_end(&c->session);
    authz_unref(c->authz);
    channel_close(c->under);
    lock_destroy(&c->lock);
    gnutls_memset(c->secret, 0, sizeof(c->secret));
    gnutls_memset(c->plain, 0, sizeof(c->plain));
    buf_free(&c->wire);
    free(c);
}

static const struct channel_ops tls_ops = {
    .writev = tls_writev,
    .read = tls_read,
    .wait = tls_wait,
    .look = tls_look,
    .shutdown = tls_shutdown,
    .finish = tls_finish,
    .close = tls_close,
    .fate = tls_fate,
};

/* --- made, and shaken ---------------------------------------------------------------------------------------------- */

int channel_tls_new(struct channel *under, struct tls_creds *creds, const char *hostname, struct authz *authz,
                    struct channel **out, struct err *err)
{
    struct channel_tls *c = calloc(1, sizeof(*c));
    int rc = 0;
    assert(c);
    if (under->stream_local || !under->can_read || !under->can_write)
        rc = err_set(err, -EINVAL, "TLS: nobody answers at %.100s to shake hands with: clear tls-creds", under->name);
    if (rc == 0)
        rc = tls_session_begin(&c->session, creds, hostname, err);
    if (rc < 0) {
        free(c);
        channel_close(under);
        return rc;
    }
    c->channel = *under;
    c->channel.ops = &tls_ops;
    c->under = under;
    c->authz = authz_ref(authz);
    lock_init(&c->lock, LOCK_CHANNEL);
    gnutls_transport_set_ptr(c->session.handle, c);
    gnutls_transport_set_vec_push_function(c->session.handle, push);
    gnutls_transport_set_pull_function(c->session.handle, pull);
    gnutls_transport_set_pull_timeout_function(c->session.handle, pull_wait);
    *out = &c->channel;
    return 0;
}

/* Until the channel beneath is ready for the handshake to go on. */
static int wait_to_shake(struct channel_tls *c, int abort_fd, int64_t until_ns)
{
    lock(&c->lock);
    short events = events_beneath(c, POLLIN);
    unlock(&c->lock);
    int64_t left_ns = until_ns == INT64_MAX ? -1 : until_ns - clock_now_ns();
    if (until_ns != INT64_MAX && left_ns <= 0)
        return -ETIMEDOUT;
    int left_ms = left_ns < 0 ? -1 : (int)((left_ns + NS_PER_MS - 1) / NS_PER_MS);
    int rc = channel_fd_wait_abort(c->under, events, abort_fd, left_ms);
    return rc < 0 ? rc : 0;
}

int channel_tls_handshake(struct channel *channel, int abort_fd, int patience_ms, struct err *err)
{
    struct channel_tls *c = tls_of(channel);
    int64_t until_ns = patience_ms < 0 ? INT64_MAX : clock_now_ns() + (int64_t)patience_ms * NS_PER_MS;
    for (;;) {
        lock(&c->lock);
        int rc = shake(c);
        bool failed = c->failed;
        unlock(&c->lock);
        if (rc == -EAGAIN)
            rc = wait_to_shake(c, abort_fd, until_ns);
        else if (rc == 0)
            return 0;
        if (failed)
            return err_set(err, rc, "%s: TLS: %s", channel->name, c->why);
        if (rc == -ETIMEDOUT)
            return err_set(err, rc, "%s: TLS: no handshake after %d ms: does the peer speak TLS?", channel->name,
                           patience_ms);
        if (rc < 0)
            return err_set_errno(err, rc, "%s: TLS: the handshake was broken off", channel->name);
    }
}

bool channel_is_tls(const struct channel *channel)
{
    return channel && channel->ops == &tls_ops;
}

bool channel_tls_shaken(struct channel *channel)
{
    struct channel_tls *c = tls_of(channel);
    lock(&c->lock);
    bool shaken = c->shaken;
    unlock(&c->lock);
    return shaken;
}

bool channel_tls_peer_is_plain(struct channel *channel)
{
    struct channel_tls *c = tls_of(channel);
    lock(&c->lock);
    bool plain = c->failed && c->peer_is_plain;
    unlock(&c->lock);
    return plain;
}

struct channel *channel_tls_under(struct channel *channel)
{
    return tls_of(channel)->under;
}

/* --- what binds lines together -------------------------------------------------------------------------------------- */

void channel_tls_secret(struct channel *channel, uint8_t out[CHANNEL_TLS_SECRET_BYTES])
{
    struct channel_tls *c = tls_of(channel);
    lock(&c->lock);
    assert(c->shaken);
    memcpy(out, c->secret, CHANNEL_TLS_SECRET_BYTES);
    unlock(&c->lock);
}

void channel_tls_tag(const uint8_t secret[CHANNEL_TLS_SECRET_BYTES], const void *text, size_t bytes,
                     uint8_t out[CHANNEL_TLS_TAG_BYTES])
{
    int rc = gnutls_hmac_fast(GNUTLS_MAC_SHA256, secret, CHANNEL_TLS_SECRET_BYTES, text, bytes, out);
    assert(rc == 0); /* a digest that every GnuTLS has */
    (void)rc;
}

bool channel_tls_tag_equal(const uint8_t *a, const uint8_t *b)
{
    return gnutls_memcmp(a, b, CHANNEL_TLS_TAG_BYTES) == 0;
}
