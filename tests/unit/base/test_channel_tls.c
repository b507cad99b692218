#include "tests/unit/base/tls_files.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "base/channel_tls.h"

enum { PATIENCE_MS = 60000, MUCH = 1 << 20 };

static struct tls_files files;

static int set_up(void **state)
{
    (void)state;
    tls_files_make(&files);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tls_files_remove(&files);
    return 0;
}

/* Two ends of one line. */
struct ends {
    struct channel *client, *server;
    int client_rc, server_rc;
    struct err client_err, server_err;
};

static struct channel *over_fd(int fd)
{
    char uri[32];
    struct channel *channel;
    snprintf(uri, sizeof(uri), "fd:%d", fd);
    assert_int_equal(channel_connect(uri, -1, &channel, NULL), 0);
    return channel;
}

static struct channel *wrap(int fd, struct tls_creds *creds, const char *hostname, struct authz *authz)
{
    struct channel *channel;
    struct err err = { 0 };
    if (channel_tls_new(over_fd(fd), creds, hostname, authz, &channel, &err) < 0)
        fail_msg("%s", err.text);
    return channel;
}

static void pair_of(int fd[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
}

/* One after the other, as far as each comes, until both are done or have failed. */
static void shake(struct ends *e)
{
    e->client_rc = e->server_rc = -ETIMEDOUT;
    for (int i = 0; i < 100 && (e->client_rc == -ETIMEDOUT || e->server_rc == -ETIMEDOUT); i++) {
        err_clear(&e->client_err);
        e->client_rc = channel_tls_handshake(e->client, -1, 0, &e->client_err);
        err_clear(&e->server_err);
        e->server_rc = channel_tls_handshake(e->server, -1, 0, &e->server_err);
    }
}

static void open_ends_with(struct ends *e, struct tls_creds *client, struct tls_creds *server, const char *hostname,
                           struct authz *authz)
{
    int fd[2];
    *e = (struct ends){ .client = NULL };
    pair_of(fd);
    e->client = wrap(fd[0], client, hostname, NULL);
    e->server = wrap(fd[1], server, "", authz);
    tls_creds_unref(client); /* the channels have references of their own */
    tls_creds_unref(server);
    shake(e);
}

static void open_ends(struct ends *e, bool x509)
{
    open_ends_with(e, tls_files_creds(&files, x509, false), tls_files_creds(&files, x509, true), "there.test", NULL);
    assert_int_equal(e->client_rc, 0);
    assert_int_equal(e->server_rc, 0);
}

static void close_ends(struct ends *e)
{
    channel_close(e->client);
    channel_close(e->server);
}

/* --- talking ------------------------------------------------------------------------------------------------------ */

static void talk(struct channel *a, struct channel *b)
{
    char got[8] = { 0 };
    assert_int_equal(channel_write_all(a, "hello", 5, PATIENCE_MS, NULL), 0);
    assert_int_equal(channel_read_all(b, got, 5, PATIENCE_MS, NULL), 0);
    assert_string_equal(got, "hello");
    assert_int_equal(channel_read(b, got, 1), -EAGAIN);
    assert_int_equal(channel_wait(b, POLLIN, 0), 0);
}

static void both_kinds_shake_hands_and_talk(void **state)
{
    (void)state;
    for (int x509 = 0; x509 < 2; x509++) {
        struct ends e;
        open_ends(&e, x509);
        talk(e.client, e.server);
        talk(e.server, e.client);
        close_ends(&e);
    }
}

static uint8_t pattern(size_t at)
{
    return (uint8_t)(at * 31 + (at >> 8) * 7 + (at >> 16));
}

/* Whatever the line takes, and however much is offered next time. */
static void what_a_full_line_did_not_take_comes_once_and_whole(void **state)
{
    (void)state;
    static uint8_t data[MUCH], got[MUCH];
    struct ends e;
    size_t sent = 0, come = 0, tries = 0, frozen = 0;
    open_ends(&e, false);
    for (size_t i = 0; i < MUCH; i++)
        data[i] = pattern(i);
    while (come < MUCH) {
        size_t most = ++tries % 3 == 0 ? 700 : tries % 3 == 1 ? 40000 : MUCH;
        size_t bytes = most < MUCH - sent ? most : MUCH - sent, half = bytes / 3;
        struct iovec iov[3] = { { data + sent, half }, { NULL, 0 }, { data + sent + half, bytes - half } };
        ssize_t taken = bytes ? channel_writev(e.client, iov, 3) : 0;
        if (taken == -EAGAIN) {
            frozen++;
            taken = 0;
        }
        assert_true(taken >= 0 && (size_t)taken <= bytes);
        sent += (size_t)taken;
        ssize_t read = channel_read(e.server, got + come, tries % 2 ? 1000 : 50000);
        assert_true(read > 0 || read == -EAGAIN);
        come += read > 0 ? (size_t)read : 0;
    }
    assert_int_equal(sent, MUCH);
    assert_true(frozen > 3); /* the line was full, more than once */
    assert_memory_equal(got, data, MUCH);
    close_ends(&e);
}

static void a_caller_who_thinks_better_of_it_sends_something_else_behind(void **state)
{
    (void)state;
    static uint8_t first[MUCH], got[2 * MUCH];
    struct ends e;
    size_t come = 0;
    ssize_t taken;
    open_ends(&e, false);
    memset(first, 'a', sizeof(first));
    do {
        struct iovec iov = { first, 16384 };
        taken = channel_writev(e.client, &iov, 1);
    } while (taken > 0);
    assert_int_equal(taken, -EAGAIN);
    bool written = false;
    while (!written || come == 0 || got[come - 1] != 'b') {
        struct iovec iov = { "b", 1 };
        written = written || channel_writev(e.client, &iov, 1) == 1;
        ssize_t read = channel_read(e.server, got + come, sizeof(got) - come);
        come += read > 0 ? (size_t)read : 0;
    }
    for (size_t i = 0; i + 1 < come; i++)
        assert_int_equal(got[i], 'a');
    assert_int_equal((come - 1) % 16384, 0); /* no record was lost, doubled or cut */
    close_ends(&e);
}

static void half_a_record_is_nothing_to_read(void **state)
{
    (void)state;
    struct ends e;
    struct channel_ready ready;
    uint8_t byte, record[64];
    int to_client[2], to_server[2];
    *(&e) = (struct ends){ .client = NULL };
    pair_of(to_client);
    pair_of(to_server);
    struct tls_creds *client = tls_files_creds(&files, false, false), *server = tls_files_creds(&files, false, true);
    e.client = wrap(to_client[0], client, "", NULL);
    e.server = wrap(to_server[0], server, "", NULL);
    tls_creds_unref(client);
    tls_creds_unref(server);
    /* Everything passes through our hands. */
    struct channel *here = over_fd(to_client[1]), *there = over_fd(to_server[1]);
    uint8_t passing[4096];
    e.client_rc = e.server_rc = -ETIMEDOUT;
    for (int i = 0; i < 100 && (e.client_rc || e.server_rc); i++) {
        e.client_rc = channel_tls_handshake(e.client, -1, 0, NULL);
        for (ssize_t n; (n = channel_read(here, passing, sizeof(passing))) > 0;)
            channel_write_all(there, passing, (size_t)n, 0, NULL);
        e.server_rc = channel_tls_handshake(e.server, -1, 0, NULL);
        for (ssize_t n; (n = channel_read(there, passing, sizeof(passing))) > 0;)
            channel_write_all(here, passing, (size_t)n, 0, NULL);
    }
    assert_int_equal(e.client_rc | e.server_rc, 0);
    struct iovec iov = { "xy", 2 };
    assert_int_equal(channel_writev(e.client, &iov, 1), 2);
    ssize_t bytes = channel_read(here, record, sizeof(record));
    assert_true(bytes > 8);
    assert_int_equal(channel_write_all(there, record, 8, 0, NULL), 0);
    assert_int_equal(channel_wait_any(NULL, &e.server, 1, -1, 0, &ready), -ETIMEDOUT);
    assert_int_equal(channel_write_all(there, record + 8, (size_t)bytes - 8, 0, NULL), 0);
    assert_int_equal(channel_wait_any(NULL, &e.server, 1, -1, PATIENCE_MS, &ready), 0);
    assert_true(ready.channel[0]);
    assert_int_equal(channel_wait(e.server, POLLIN, 0), 1); /* what was looked at can still be read */
    assert_int_equal(channel_read(e.server, passing, sizeof(passing)), 2);
    assert_memory_equal(passing, "xy", 2);

    /* One bit on the way: nothing of the record is believed. */
    struct err err = { 0 };
    assert_int_equal(channel_writev(e.client, &iov, 1), 2);
    bytes = channel_read(here, record, sizeof(record));
    record[7] ^= 1;
    assert_int_equal(channel_write_all(there, record, (size_t)bytes, 0, NULL), 0);
    err_set(&err, channel_read_all(e.server, &byte, 1, PATIENCE_MS, NULL), "refused");
    assert_int_equal(channel_explain(e.server, &err), -EPROTO);
    assert_non_null(strstr(err.text, "TLS:"));
    channel_close(here);
    channel_close(there);
    close_ends(&e);
}

static void only_the_two_ends_know_the_secret(void **state)
{
    (void)state;
    uint8_t secret[3][CHANNEL_TLS_SECRET_BYTES];
    struct ends e, other;
    open_ends(&e, true);
    open_ends(&other, true);
    channel_tls_secret(e.client, secret[0]);
    channel_tls_secret(e.server, secret[1]);
    channel_tls_secret(other.client, secret[2]);
    assert_memory_equal(secret[0], secret[1], sizeof(secret[0]));
    assert_memory_not_equal(secret[0], secret[2], sizeof(secret[0]));
    close_ends(&e);
    close_ends(&other);
}

/* --- ends ------------------------------------------------------------------------------------------------------------ */

static void a_goodbye_is_an_end_and_a_cut_is_not(void **state)
{
    (void)state;
    char byte;
    struct ends e;
    struct err err = { 0 };
    open_ends(&e, false);
    assert_int_equal(channel_finish(e.client, NULL), 0); /* half-closes: the other direction stays */
    assert_int_equal(channel_read(e.server, &byte, 1), 0);
    assert_int_equal(channel_read(e.server, &byte, 1), 0);
    talk(e.server, e.client);
    close_ends(&e);

    open_ends(&e, false);
    channel_close(e.client);
    e.client = NULL;
    assert_int_equal(channel_read(e.server, &byte, 1), 0);
    close_ends(&e);

    open_ends(&e, false);
    talk(e.client, e.server);
    channel_shutdown(channel_tls_under(e.client));
    err_set(&err, channel_read_all(e.server, &byte, 1, PATIENCE_MS, NULL), "no more");
    assert_int_equal(channel_explain(e.server, &err), -ECONNRESET);
    assert_non_null(strstr(err.text, "without a goodbye"));
    close_ends(&e);
}

struct waiter {
    struct channel *channel;
    bool shakes, writes;
    int abort_fd, rc;
    _Atomic bool begun;
};

static void *wait_run(void *opaque)
{
    struct waiter *w = opaque;
    static uint8_t block[65536];
    atomic_store(&w->begun, true);
    if (w->shakes)
        w->rc = channel_tls_handshake(w->channel, w->abort_fd, -1, NULL);
    else if (!w->writes)
        w->rc = channel_read_all(w->channel, block, 1, -1, NULL);
    else
        do
            w->rc = channel_write_all(w->channel, block, sizeof(block), -1, NULL);
        while (w->rc == 0);
    return NULL;
}

static void shutdown_from_elsewhere_ends_everything(void **state)
{
    (void)state;
    for (int what = 0; what < 4; what++) { /* the handshake, by abort_fd and by shutdown; a read; a write */
        struct ends e;
        pthread_t thread;
        int fd[2], abort_fd = eventfd(0, EFD_CLOEXEC);
        struct waiter w = { .shakes = what < 2, .writes = what == 3, .abort_fd = what == 0 ? abort_fd : -1 };
        if (w.shakes) { /* nobody ever answers at the other end */
            struct tls_creds *creds = tls_files_creds(&files, false, false);
            pair_of(fd);
            w.channel = wrap(fd[0], creds, "", NULL);
            tls_creds_unref(creds);
        } else {
            open_ends(&e, false);
            w.channel = e.client;
        }
        assert_int_equal(pthread_create(&thread, NULL, wait_run, &w), 0);
        while (!atomic_load(&w.begun))
            sched_yield();
        if (what == 0)
            eventfd_write(abort_fd, 1);
        else
            channel_shutdown(w.channel);
        pthread_join(thread, NULL);
        assert_int_equal(w.rc, -ECANCELED);
        if (w.shakes) {
            channel_close(w.channel);
            close(fd[1]);
        } else {
            close_ends(&e);
        }
        close(abort_fd);
    }
}

/* --- who is refused --------------------------------------------------------------------------------------------------- */

/* The server does not want the client: it has the reason, and the client an alert, now or when it first reads. */
static void assert_client_refused(struct ends *e, int code, const char *reason)
{
    char byte;
    assert_int_equal(e->server_rc, code);
    if (!strstr(e->server_err.text, reason))
        fail_msg("'%s' says nothing of %s", e->server_err.text, reason);
    if (e->client_rc == 0) {
        err_set(&e->client_err, channel_read_all(e->client, &byte, 1, PATIENCE_MS, NULL), "no answer");
        channel_explain(e->client, &e->client_err);
    }
    if (!strstr(e->client_err.text, "TLS: the peer refuses: "))
        fail_msg("the client hears '%s'", e->client_err.text);
    close_ends(e);
}

/* And the other way round. */
static void assert_server_refused(struct ends *e, const char *reason)
{
    assert_int_equal(e->client_rc, -EACCES);
    if (!strstr(e->client_err.text, reason))
        fail_msg("'%s' says nothing of %s", e->client_err.text, reason);
    assert_int_equal(e->server_rc, -EACCES);
    assert_non_null(strstr(e->server_err.text, "TLS: the peer refuses: "));
    close_ends(e);
}

static void who_has_another_key_or_another_name_is_refused(void **state)
{
    (void)state;
    static const char *const others[] = { "qemu:ff0102030405060708090a0b0c0d0e0f\n",
                                          "eve:000102030405060708090a0b0c0d0e0f\n" };
    for (int i = 0; i < 2; i++) {
        struct ends e;
        struct tls_creds *server = tls_files_creds(&files, false, true), *client;
        struct tls_creds_options options = { .id = "tls0", .username = "qemu" };
        strcpy(options.dir, files.dir);
        strcpy(options.username, i ? "eve" : "qemu");
        tls_files_write(&files, "keys.psk", others[i], strlen(others[i]));
        assert_int_equal(tls_creds_new(&options, &client, NULL), 0);
        tls_files_write(&files, "keys.psk", TLS_TEST_KEY, strlen(TLS_TEST_KEY));
        open_ends_with(&e, client, server, "", NULL);
        assert_true(e.server_rc < 0 && e.server_rc != -ETIMEDOUT);
        assert_non_null(strstr(e.server_err.text, "TLS: "));
        assert_int_equal(e.client_rc, -EACCES);
        assert_non_null(strstr(e.client_err.text, "the peer refuses: "));
        close_ends(&e);
    }
}

static void certificates_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    struct ends e;
    open_ends_with(&e, tls_files_creds(&files, true, false), tls_files_creds(&files, true, true), "elsewhere.test",
                   NULL);
    assert_server_refused(&e, "name in the certificate does not match");

    tls_files_issue(&files, "server", "there", "there.test", GNUTLS_KP_TLS_WWW_SERVER, -7200, -3600);
    open_ends_with(&e, tls_files_creds(&files, true, false), tls_files_creds(&files, true, true), "there.test", NULL);
    assert_server_refused(&e, "expired");

    tls_files_issue(&files, "server", "there", "there.test", GNUTLS_KP_TLS_WWW_CLIENT, -60, 3600);
    open_ends_with(&e, tls_files_creds(&files, true, false), tls_files_creds(&files, true, true), "there.test", NULL);
    assert_server_refused(&e, "purpose");
    tls_files_issue(&files, "server", "there", "there.test", GNUTLS_KP_TLS_WWW_SERVER, -60, 3600);

    tls_files_issue(&files, "client", "here", NULL, GNUTLS_KP_TLS_WWW_CLIENT, -7200, -3600);
    open_ends_with(&e, tls_files_creds(&files, true, false), tls_files_creds(&files, true, true), "there.test", NULL);
    assert_client_refused(&e, -EACCES, "expired");
    tls_files_issue(&files, "client", "here", NULL, GNUTLS_KP_TLS_WWW_CLIENT, -60, 3600);

    struct tls_files strangers;
    tls_files_make(&strangers);
    open_ends_with(&e, tls_files_creds(&strangers, true, false), tls_files_creds(&files, true, true), "there.test",
                   NULL);
    assert_server_refused(&e, "NOT trusted"); /* the client is the first to look: it knows another authority */
    char path[128];
    snprintf(path, sizeof(path), "%s/client-cert.pem", strangers.dir);
    unlink(path);
    struct tls_creds_options careless = { .id = "tls0", .x509 = true };
    struct tls_creds *client;
    strcpy(careless.dir, strangers.dir);
    assert_int_equal(tls_creds_new(&careless, &client, NULL), 0);
    open_ends_with(&e, client, tls_files_creds(&files, true, true), "", NULL);
    assert_client_refused(&e, -EACCES, "certificate");
    tls_files_remove(&strangers);
}

static void authz_lets_in_whom_it_names(void **state)
{
    (void)state;
    struct authz *authz = calloc(1, sizeof(*authz));
    struct ends e;
    atomic_init(&authz->refs, 1);
    strcpy(authz->id, "movers");
    authz->rules = 1;
    authz->rule[0] = (struct authz_rule){ .match = "CN=here", .allow = true };
    open_ends_with(&e, tls_files_creds(&files, true, false), tls_files_creds(&files, true, true), "there.test", authz);
    assert_int_equal(e.server_rc, 0);
    talk(e.client, e.server);
    close_ends(&e);
    strcpy(authz->rule[0].match, "CN=somebody else");
    open_ends_with(&e, tls_files_creds(&files, true, false), tls_files_creds(&files, true, true), "there.test", authz);
    assert_client_refused(&e, -EACCES, "movers does not allow 'CN=here'");
    open_ends_with(&e, tls_files_creds(&files, false, false), tls_files_creds(&files, false, true), "", authz);
    assert_client_refused(&e, -EACCES, "movers does not allow 'qemu'");
    authz_unref(authz);
}

static void a_plain_peer_is_told_apart(void **state)
{
    (void)state;
    for (int server = 0; server < 2; server++) {
        struct tls_creds *creds = tls_files_creds(&files, false, server);
        struct err err = { 0 };
        int fd[2];
        pair_of(fd);
        struct channel *tls = wrap(fd[0], creds, "", NULL), *plain = over_fd(fd[1]);
        tls_creds_unref(creds);
        assert_int_equal(channel_write_all(plain, "GDWT and more that is no TLS at all", 36, 0, NULL), 0);
        assert_int_equal(channel_tls_handshake(tls, -1, PATIENCE_MS, &err), -EPROTO);
        assert_non_null(strstr(err.text, "the peer does not speak TLS"));
        assert_true(channel_tls_peer_is_plain(tls));
        channel_close(tls);
        channel_close(plain);
    }
}

static void a_silent_peer_is_left_when_patience_ends(void **state)
{
    (void)state;
    struct tls_creds *creds = tls_files_creds(&files, false, false);
    struct err err = { 0 };
    int fd[2];
    pair_of(fd);
    struct channel *tls = wrap(fd[0], creds, "", NULL);
    assert_int_equal(channel_tls_handshake(tls, -1, 1, &err), -ETIMEDOUT);
    assert_non_null(strstr(err.text, "no handshake after 1 ms"));
    channel_close(tls);
    close(fd[1]);
    tls_creds_unref(creds);
}

/* --- another program at the other end ----------------------------------------------------------------------------------- */

struct other {
    int fd;
    const char *priority;
    size_t bytes;
    int rc;
};

enum { UPDATES_MAX = 6 }; /* more than eight in a second are refused by whoever receives them */

/* Sends everything back, and wants new keys from both sides now and then. */
static void *echo_run(void *opaque)
{
    struct other *o = opaque;
    static char block[20000];
    gnutls_psk_client_credentials_t creds;
    gnutls_datum_t key = { .data = (unsigned char *)strchr(TLS_TEST_KEY, ':') + 1, .size = 64 };
    gnutls_session_t session;
    int updates = 0;
    gnutls_psk_allocate_client_credentials(&creds);
    gnutls_psk_set_client_credentials(creds, "qemu", &key, GNUTLS_PSK_KEY_HEX);
    gnutls_init(&session, GNUTLS_CLIENT);
    gnutls_priority_set_direct(session, o->priority, NULL);
    gnutls_credentials_set(session, GNUTLS_CRD_PSK, creds);
    gnutls_transport_set_int(session, o->fd);
    do
        o->rc = gnutls_handshake(session);
    while (o->rc < 0 && !gnutls_error_is_fatal(o->rc));
    for (size_t done = 0, turn = 0; o->rc == 0 && done < o->bytes; turn++) {
        ssize_t got = gnutls_record_recv(session, block, sizeof(block));
        if (got == GNUTLS_E_AGAIN || got == GNUTLS_E_INTERRUPTED)
            continue;
        for (ssize_t sent = 0, n; got > 0 && sent < got; sent += n)
            if ((n = gnutls_record_send(session, block + sent, (size_t)(got - sent))) < 0)
                got = n;
        if (got > 0 && turn % 50 == 49 && updates < UPDATES_MAX) {
            o->rc = gnutls_session_key_update(session, GNUTLS_KU_PEER);
            updates++;
        }
        if (got <= 0)
            o->rc = got < 0 ? (int)got : GNUTLS_E_PREMATURE_TERMINATION;
        done += got > 0 ? (size_t)got : 0;
    }
    gnutls_deinit(session);
    gnutls_psk_free_client_credentials(creds);
    close(o->fd);
    return NULL;
}

struct feeder {
    struct channel *channel;
    size_t bytes;
    int rc;
};

static void *feed_run(void *opaque)
{
    struct feeder *f = opaque;
    static uint8_t block[30000];
    for (size_t done = 0; f->rc == 0 && done < f->bytes; done += sizeof(block)) {
        for (size_t i = 0; i < sizeof(block); i++)
            block[i] = pattern(done + i);
        f->rc = channel_write_all(f->channel, block, sizeof(block), PATIENCE_MS, NULL);
    }
    return NULL;
}

static void keys_change_under_two_threads(void **state)
{
    (void)state;
    static uint8_t got[65536];
    struct other other = { .priority = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+ECDHE-PSK", .bytes = 30000 * 400 };
    struct tls_creds *creds = tls_files_creds(&files, false, true);
    pthread_t peer, writer;
    int fd[2];
    pair_of(fd);
    other.fd = fd[1];
    struct feeder feeder = { .channel = wrap(fd[0], creds, "", NULL), .bytes = other.bytes };
    assert_int_equal(pthread_create(&peer, NULL, echo_run, &other), 0);
    assert_int_equal(channel_tls_handshake(feeder.channel, -1, PATIENCE_MS, NULL), 0);
    assert_int_equal(pthread_create(&writer, NULL, feed_run, &feeder), 0);
    size_t come = 0, wrong = 0;
    int rc = 0;
    while (rc >= 0 && come < other.bytes) {
        ssize_t n = channel_read(feeder.channel, got, sizeof(got));
        for (ssize_t i = 0; i < n; i++)
            wrong += got[i] != pattern(come + (size_t)i);
        come += n > 0 ? (size_t)n : 0;
        rc = n == -EAGAIN ? channel_wait(feeder.channel, POLLIN, PATIENCE_MS) : n > 0 ? 0 : -EPIPE;
    }
    if (rc < 0)
        channel_shutdown(feeder.channel);
    pthread_join(writer, NULL);
    pthread_join(peer, NULL);
    struct err err = { 0 };
    err_set_errno(&err, rc < 0 ? rc : -EIO, "after %zu bytes, the other end: %d", come, other.rc);
    channel_explain(feeder.channel, &err);
    if (rc < 0)
        fail_msg("%s", err.text);
    assert_int_equal(wrong, 0);
    assert_int_equal(feeder.rc, 0);
    assert_int_equal(other.rc, 0);
    channel_close(feeder.channel);
    tls_creds_unref(creds);
}

static void older_protocols_are_not_spoken(void **state)
{
    (void)state;
    struct other other = { .priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2:+ECDHE-PSK" };
    struct tls_creds *creds = tls_files_creds(&files, false, true);
    pthread_t peer;
    int fd[2];
    pair_of(fd);
    other.fd = fd[1];
    struct channel *channel = wrap(fd[0], creds, "", NULL);
    assert_int_equal(pthread_create(&peer, NULL, echo_run, &other), 0);
    assert_int_equal(channel_tls_handshake(channel, -1, PATIENCE_MS, NULL), -EPROTO);
    channel_close(channel);
    pthread_join(peer, NULL);
    assert_true(other.rc < 0);
    tls_creds_unref(creds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_kinds_shake_hands_and_talk),
        cmocka_unit_test(what_a_full_line_did_not_take_comes_once_and_whole),
        cmocka_unit_test(a_caller_who_thinks_better_of_it_sends_something_else_behind),
        cmocka_unit_test(half_a_record_is_nothing_to_read),
        cmocka_unit_test(only_the_two_ends_know_the_secret),
        cmocka_unit_test(a_goodbye_is_an_end_and_a_cut_is_not),
        cmocka_unit_test(shutdown_from_elsewhere_ends_everything),
        cmocka_unit_test(who_has_another_key_or_another_name_is_refused),
        cmocka_unit_test(certificates_that_do_not_fit_are_refused),
        cmocka_unit_test(authz_lets_in_whom_it_names),
        cmocka_unit_test(a_plain_peer_is_told_apart),
        cmocka_unit_test(a_silent_peer_is_left_when_patience_ends),
        cmocka_unit_test(keys_change_under_two_threads),
        cmocka_unit_test(older_protocols_are_not_spoken),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
