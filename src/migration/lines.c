#include "migration/lines.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

enum { CROWD_MAX = 16, LAST_WORD_MS = 1000 };

/* --- what the parameters say ---------------------------------------------------------------------------------------- */

void lines_end(struct lines *lines)
{
    tls_creds_unref(lines->creds);
    authz_unref(lines->authz);
    *lines = (struct lines){ 0 };
}

/* The host of tcp:HOST:PORT; "" of others. */
static void host_of(const char *uri, char *out, size_t out_size)
{
    const char *host = strncmp(uri, "tcp:", 4) == 0 ? uri + 4 : "";
    const char *colon = strrchr(host, ':');
    size_t length = colon ? (size_t)(colon - host) : 0;
    if (length >= 2 && host[0] == '[' && host[length - 1] == ']') {
        host++;
        length -= 2;
    }
    snprintf(out, out_size, "%.*s", (int)length, host);
}

int lines_begin(struct lines *lines, struct tls_store *objects, const struct migration_params *params, const char *uri,
                bool incoming, struct err *err)
{
    lines_end(lines);
    lines->incoming = incoming;
    if (!params->tls_creds[0])
        return 0;
    lines->creds = tls_store_creds(objects, params->tls_creds);
    if (!lines->creds)
        return err_set(err, -EINVAL,
                       "tls-creds: there are no credentials '%s': -object tls-creds-x509 or tls-creds-psk",
                       params->tls_creds);
    if (tls_creds_options(lines->creds)->server != incoming)
        return err_set(err, -EINVAL, "tls-creds: '%s' has endpoint=%s, and %s needs endpoint=%s", params->tls_creds,
                       incoming ? "client" : "server", incoming ? "who waits for a guest" : "who sends one",
                       incoming ? "server" : "client");
    if (strncmp(uri, "file:", 5) == 0)
        return err_set(err, -EINVAL, "tls-creds is set, and a file has nobody to shake hands with: clear tls-creds");
    if (incoming && params->tls_authz[0] && !(lines->authz = tls_store_authz(objects, params->tls_authz)))
        return err_set(err, -EINVAL, "tls-authz: there is no list '%s': -object authz-list or authz-simple",
                       params->tls_authz);
    if (params->tls_hostname[0])
        snprintf(lines->hostname, sizeof(lines->hostname), "%s", params->tls_hostname);
    else
        host_of(uri, lines->hostname, sizeof(lines->hostname));
    return 0;
}

/* --- calling and being called ---------------------------------------------------------------------------------------- */

int lines_connect(struct lines *lines, const char *uri, int abort_fd, int patience_ms, struct channel **out,
                  struct err *err)
{
    struct channel *line;
    int rc = channel_connect(uri, abort_fd, &line, err);
    if (rc == 0 && lines && lines->creds) {
        rc = channel_tls_new(line, lines->creds, lines->hostname, NULL, &line, err);
        if (rc == 0 && (rc = channel_tls_handshake(line, abort_fd, patience_ms, err)) < 0)
            channel_close(line);
    }
    if (rc == 0)
        *out = line;
    return rc;
}

int lines_accept(struct lines *lines, struct channel_listener *listener, int abort_fd, struct channel **out,
                 struct err *err)
{
    struct channel *line;
    int rc = channel_accept(listener, abort_fd, &line, err);
    if (rc == 0 && lines && lines->creds)
        rc = channel_tls_new(line, lines->creds, "", lines->authz, &line, err);
    if (rc == 0)
        *out = line;
    return rc;
}

/* --- who comes first: anybody ------------------------------------------------------------------------------------------ */

struct crowd {
    struct lines *lines;
    struct channel_listener *listener;
    int abort_fd, patience_ms;
    void (*refused)(void *opaque, const struct err *why);
    void *opaque;
    struct channel *line[CROWD_MAX]; /* NULL: free */
    int64_t until_ns[CROWD_MAX];
    bool leaving[CROWD_MAX]; /* it was told to go, and may still be reading that */
    struct err last;         /* why */
};

static void drop(struct crowd *c, unsigned at)
{
    channel_close(c->line[at]);
    c->line[at] = NULL;
    c->leaving[at] = false;
}

/* Who speaks no TLS is told so in plain words; to others GnuTLS has said it with an alert. The line is closed when it was read:
 * closing with unread bytes would take that away from under his eyes. */
static void send_away(struct crowd *c, unsigned at, int code)
{
    struct channel *line = c->line[at];
    err_clear(&c->last);
    if (code == -ETIMEDOUT)
        err_set(&c->last, code, "%s: TLS: somebody called and did not say who he is", line->name);
    else
        err_set(&c->last, code, "%s: somebody who called was sent away", line->name);
    channel_explain(line, &c->last);
    if (channel_tls_peer_is_plain(line)) {
        struct buf out = { 0 };
        struct message_key nobody = { .attempt = 0 };
        message_put_sentence(&out, MESSAGE_REFUSAL, &nobody, "only TLS is spoken here, and tls-creds is not set there");
        channel_write_all(channel_tls_under(line), out.data, out.size, 0, NULL);
        buf_free(&out);
    }
    c->leaving[at] = true;
    c->until_ns[at] = clock_now_ns() + LAST_WORD_MS * NS_PER_MS;
    if (c->refused)
        c->refused(c->opaque, &c->last);
}

static void see_off(struct crowd *c, unsigned at)
{
    uint8_t ignored[4096];
    ssize_t got = channel_read(channel_tls_under(c->line[at]), ignored, sizeof(ignored));
    if (got <= 0 && got != -EAGAIN)
        drop(c, at);
}

/* Whoever has waited longest makes room. */
static void let_in(struct crowd *c)
{
    unsigned at = 0;
    for (unsigned i = 0; i < CROWD_MAX && c->line[at]; i++)
        if (!c->line[i] || c->until_ns[i] < c->until_ns[at])
            at = i;
    if (c->line[at])
        drop(c, at);
    if (lines_accept(c->lines, c->listener, c->abort_fd, &c->line[at], NULL) == 0)
        c->until_ns[at] = c->patience_ms < 0 ? INT64_MAX : clock_now_ns() + (int64_t)c->patience_ms * NS_PER_MS;
}

/* Ends the patience with some; when the next one's does, in ms. */
static int expire(struct crowd *c)
{
    int64_t now_ns = clock_now_ns(), wake_ns = INT64_MAX;
    for (unsigned i = 0; i < CROWD_MAX; i++) {
        if (c->line[i] && c->until_ns[i] <= now_ns) {
            if (!c->leaving[i])
                send_away(c, i, -ETIMEDOUT);
            drop(c, i);
        }
        if (c->line[i] && c->until_ns[i] < wake_ns)
            wake_ns = c->until_ns[i];
    }
    return wake_ns == INT64_MAX ? -1 : (int)((wake_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS);
}

/* One look: 1 with somebody who is to be heard, 0 nobody yet, -errno. */
static int look(struct crowd *c, struct channel **out, struct err *err)
{
    struct channel *waited[CROWD_MAX];
    struct channel_ready ready;
    int left_ms = expire(c);
    for (unsigned i = 0; i < CROWD_MAX; i++)
        waited[i] = c->leaving[i] ? channel_tls_under(c->line[i]) : c->line[i];
    int rc = channel_wait_any(c->listener, waited, CROWD_MAX, c->abort_fd, left_ms, &ready);
    if (rc < 0)
        return rc == -ETIMEDOUT ? 0 : err_set_errno(err, rc, "%s", channel_listener_name(c->listener));
    if (ready.abort)
        return err_set(err, -ECANCELED, "migration cancelled");
    for (unsigned i = 0; i < CROWD_MAX; i++) {
        if (!ready.channel[i])
            continue;
        if (c->leaving[i]) {
            see_off(c, i);
        } else if (channel_tls_shaken(c->line[i])) {
            *out = c->line[i];
            c->line[i] = NULL;
            return 1;
        } else {
            send_away(c, i, -EACCES);
        }
    }
    if (ready.peer)
        let_in(c);
    return 0;
}

static bool anybody(const struct crowd *c)
{
    for (unsigned i = 0; i < CROWD_MAX; i++)
        if (c->line[i])
            return true;
    return false;
}

int lines_answer(struct lines *lines, struct channel_listener *listener, int abort_fd, int patience_ms,
                 struct channel **out, void (*refused)(void *opaque, const struct err *why), void *opaque,
                 struct err *err)
{
    if (!lines->creds)
        return channel_accept(listener, abort_fd, out, err);
    struct crowd c = {
        .lines = lines,
        .listener = listener,
        .abort_fd = abort_fd,
        .patience_ms = patience_ms,
        .refused = refused,
        .opaque = opaque,
    };
    bool one = !channel_listener_is_socket(listener);
    int rc = 0;
    if (one && (rc = lines_accept(lines, listener, abort_fd, &c.line[0], err)) == 0)
        c.until_ns[0] = patience_ms < 0 ? INT64_MAX : clock_now_ns() + (int64_t)patience_ms * NS_PER_MS;
    while (rc == 0) {
        rc = look(&c, out, err);
        if (rc == 0 && one && !anybody(&c)) /* nobody else can come */
            rc = err_set(err, c.last.code, "%s", c.last.text);
    }
    for (unsigned i = 0; i < CROWD_MAX; i++)
        channel_close(c.line[i]);
    return rc < 0 ? rc : 0;
}

/* --- lines that belong together -------------------------------------------------------------------------------------- */

void lines_bind(struct lines *lines, struct channel *main)
{
    lines->bound = channel_is_tls(main) && channel_tls_shaken(main);
    if (lines->bound)
        channel_tls_secret(main, lines->secret);
}

/* Of one message, said by the source or by the destination, on this line. */
static void tag_of(const struct lines *lines, struct channel *line, bool by_source, enum message_type type,
                   const struct message_key *key, const void *payload, uint32_t bytes,
                   uint8_t out[CHANNEL_TLS_TAG_BYTES])
{
    uint8_t secret[CHANNEL_TLS_SECRET_BYTES];
    struct buf text = { 0 };
    channel_tls_secret(line, secret);
    buf_put(&text, secret, sizeof(secret));
    buf_put_u8(&text, by_source);
    buf_put_be16(&text, (uint16_t)type);
    buf_put(&text, key->id, sizeof(key->id));
    buf_put_be32(&text, key->attempt);
    if (bytes)
        buf_put(&text, payload, bytes);
    channel_tls_tag(lines->secret, text.data, text.size, out);
    buf_free(&text);
}

unsigned lines_tag_bytes(const struct lines *lines)
{
    return lines && lines->creds ? CHANNEL_TLS_TAG_BYTES : 0;
}

void lines_put(const struct lines *lines, struct channel *line, struct buf *out, enum message_type type,
               const struct message_key *key, const void *payload, uint32_t bytes)
{
    if (!lines || !lines->creds) {
        message_put(out, type, key, payload, bytes);
        return;
    }
    uint8_t tag[CHANNEL_TLS_TAG_BYTES];
    struct buf signed_payload = { 0 };
    assert(lines->bound);
    tag_of(lines, line, !lines->incoming, type, key, payload, bytes, tag);
    if (bytes)
        buf_put(&signed_payload, payload, bytes);
    buf_put(&signed_payload, tag, sizeof(tag));
    message_put(out, type, key, signed_payload.data, (uint32_t)signed_payload.size);
    buf_free(&signed_payload);
}

bool lines_check(const struct lines *lines, struct channel *line, struct message *message)
{
    uint8_t tag[CHANNEL_TLS_TAG_BYTES];
    if (!lines || !lines->creds)
        return true;
    if (!lines->bound || message->bytes < sizeof(tag))
        return false;
    uint32_t bytes = message->bytes - (uint32_t)sizeof(tag);
    tag_of(lines, line, lines->incoming, (enum message_type)message->type, &message->key, message->payload, bytes, tag);
    message->bytes = bytes;
    return channel_tls_tag_equal(tag, message->payload + bytes);
}
