#include "base/tls.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/tls_priv.h"

/* RFC 8446 alone, and psk_dhe_ke alone of its two ways to use a key (4.2.9). */
#define ONLY_TLS13   ":-VERS-ALL:+VERS-TLS1.3"
#define ONLY_PSK     ":+ECDHE-PSK:+DHE-PSK:-PSK"
#define DEFAULT_USER "qemu"

struct key {
    char user[TLS_NAME_MAX];
    gnutls_datum_t bytes;
};

struct tls_creds {
    _Atomic unsigned refs;
    /* fixed after new */
    struct tls_creds_options options;
    gnutls_certificate_credentials_t certificates; /* x509 */
    gnutls_psk_client_credentials_t one_key;       /* psk, client */
    gnutls_psk_server_credentials_t all_keys;      /* psk, server */
    struct key *key;
    unsigned keys;
};

/* --- files ------------------------------------------------------------------------------------------------------ */

static void path_of(const struct tls_creds *creds, const char *name, char *out, size_t out_size)
{
    snprintf(out, out_size, "%s/%s", creds->options.dir, name);
}

/* All of it, with a NUL behind; freed with gnutls_free(). -ENOENT without a word: not every file must be there. */
static int file_read(const char *path, gnutls_datum_t *out, struct err *err)
{
    *out = (gnutls_datum_t){ 0 };
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? -ENOENT : err_set_errno(err, -errno, "TLS: cannot read %s", path);
    struct stat stat;
    int rc = fstat(fd, &stat) < 0 ? err_set_errno(err, -errno, "TLS: cannot read %s", path) : 0;
    if (rc == 0 && (!S_ISREG(stat.st_mode) || stat.st_size > TLS_KEYS_FILE_MAX))
        rc = err_set(err, -EINVAL, "TLS: %s is no file of up to %d bytes", path, TLS_KEYS_FILE_MAX);
    if (rc == 0 && !(out->data = gnutls_malloc((size_t)stat.st_size + 1)))
        rc = err_set(err, -ENOMEM, "TLS: no memory for %s", path);
    while (rc == 0 && out->size < (unsigned)stat.st_size) {
        ssize_t got = read(fd, out->data + out->size, (size_t)stat.st_size - out->size);
        if (got <= 0)
            rc = err_set_errno(err, got < 0 ? -errno : -EIO, "TLS: cannot read %s", path);
        else
            out->size += (unsigned)got;
    }
    close(fd);
    if (rc == 0 && out->data)
        out->data[out->size] = 0;
    return rc;
}

static void file_forget(gnutls_datum_t *file)
{
    if (file->data)
        gnutls_memset(file->data, 0, file->size);
    gnutls_free(file->data);
    *file = (gnutls_datum_t){ 0 };
}

static int missing(const char *path, struct err *err)
{
    return err_set(err, -ENOENT, "TLS: there is no %s", path);
}

/* --- certificates ------------------------------------------------------------------------------------------------ */

static int bad_file(const char *path, int code, struct err *err)
{
    return err_set(err, -EINVAL, "TLS: %s: %s", path, gnutls_strerror(code));
}

static int load_authority(struct tls_creds *creds, struct err *err)
{
    char path[TLS_DIR_MAX + 32];
    gnutls_datum_t file;
    path_of(creds, "ca-cert.pem", path, sizeof(path));
    int rc = file_read(path, &file, err);
    if (rc == -ENOENT)
        return creds->options.verify_peer ? missing(path, err) : 0;
    if (rc == 0 && (rc = gnutls_certificate_set_x509_trust_mem(creds->certificates, &file, GNUTLS_X509_FMT_PEM)) <= 0)
        rc = bad_file(path, rc < 0 ? rc : GNUTLS_E_NO_CERTIFICATE_FOUND, err);
    file_forget(&file);
    if (rc < 0)
        return rc;

    path_of(creds, "ca-crl.pem", path, sizeof(path));
    rc = file_read(path, &file, err);
    if (rc == -ENOENT)
        return 0;
    if (rc == 0 && (rc = gnutls_certificate_set_x509_crl_mem(creds->certificates, &file, GNUTLS_X509_FMT_PEM)) < 0)
        rc = bad_file(path, rc, err);
    file_forget(&file);
    return rc < 0 ? rc : 0;
}

/* Our own: a peer would only say that it does not like it. */
static int check_dates(const char *path, const gnutls_datum_t *file, struct err *err)
{
    gnutls_x509_crt_t certificate;
    int rc = gnutls_x509_crt_init(&certificate);
    if (rc < 0)
        return bad_file(path, rc, err);
    rc = gnutls_x509_crt_import(certificate, file, GNUTLS_X509_FMT_PEM);
    time_t now = time(NULL);
    if (rc < 0)
        rc = bad_file(path, rc, err);
    else if (gnutls_x509_crt_get_expiration_time(certificate) < now)
        rc = err_set(err, -EINVAL, "TLS: the certificate %s has expired", path);
    else if (gnutls_x509_crt_get_activation_time(certificate) > now)
        rc = err_set(err, -EINVAL, "TLS: the certificate %s is not yet valid", path);
    gnutls_x509_crt_deinit(certificate);
    return rc;
}

static int load_own(struct tls_creds *creds, struct err *err)
{
    const char *who = creds->options.server ? "server" : "client";
    char name[32], path[TLS_DIR_MAX + 32], key_path[TLS_DIR_MAX + 32];
    gnutls_datum_t file, key = { 0 };
    snprintf(name, sizeof(name), "%s-cert.pem", who);
    path_of(creds, name, path, sizeof(path));
    snprintf(name, sizeof(name), "%s-key.pem", who);
    path_of(creds, name, key_path, sizeof(key_path));
    int rc = file_read(path, &file, err);
    if (rc == -ENOENT) /* a client may have none; it is the server who asks for one */
        return creds->options.server ? missing(path, err) : 0;
    if (rc == 0 && (rc = file_read(key_path, &key, err)) == -ENOENT)
        rc = missing(key_path, err);
    if (rc == 0 && creds->options.sanity_check)
        rc = check_dates(path, &file, err);
    if (rc == 0 &&
        (rc = gnutls_certificate_set_x509_key_mem(creds->certificates, &file, &key, GNUTLS_X509_FMT_PEM)) < 0)
        rc = err_set(err, -EINVAL, "TLS: %s and %s: %s", path, key_path, gnutls_strerror(rc));
    file_forget(&file);
    file_forget(&key);
    return rc < 0 ? rc : 0;
}

static int load_certificates(struct tls_creds *creds, struct err *err)
{
    int rc = gnutls_certificate_allocate_credentials(&creds->certificates);
    if (rc < 0)
        return err_set(err, -ENOMEM, "TLS: %s", gnutls_strerror(rc));
    rc = load_authority(creds, err);
    return rc < 0 ? rc : load_own(creds, err);
}

/* --- keys ---------------------------------------------------------------------------------------------------------- */

/* The name and the key in one line of keys.psk; the key goes to creds. */
static int add_key(struct tls_creds *creds, const char *path, unsigned number, char *line, struct err *err)
{
    char *colon = strrchr(line, ':');
    if (!colon || colon == line || (size_t)(colon - line) >= TLS_NAME_MAX || !colon[1])
        return err_set(err, -EINVAL, "TLS: %s, line %u is not USER:HEXKEY", path, number);
    if (creds->keys == TLS_KEYS_MAX)
        return err_set(err, -EINVAL, "TLS: %s has more than %d keys", path, TLS_KEYS_MAX);
    struct key *key = &creds->key[creds->keys];
    memcpy(key->user, line, (size_t)(colon - line));
    gnutls_datum_t hex = { .data = (unsigned char *)colon + 1, .size = (unsigned)strlen(colon + 1) };
    if (gnutls_hex_decode2(&hex, &key->bytes) < 0)
        return err_set(err, -EINVAL, "TLS: %s, line %u: the key is not written in hexadecimal digits", path, number);
    creds->keys++;
    if (key->bytes.size < 16)
        return err_set(err, -EINVAL, "TLS: %s, line %u: a key of %u bits can be guessed: 128 are the least", path,
                       number, key->bytes.size * 8);
    return 0;
}

static int read_keys(struct tls_creds *creds, char *path, size_t path_size, struct err *err)
{
    gnutls_datum_t file;
    path_of(creds, "keys.psk", path, path_size);
    int rc = file_read(path, &file, err);
    if (rc == -ENOENT)
        return missing(path, err);
    creds->key = calloc(TLS_KEYS_MAX, sizeof(*creds->key));
    assert(creds->key);
    unsigned number = 0;
    char *rest = (char *)file.data, *line;
    while (rc == 0 && (line = strsep(&rest, "\n"))) {
        size_t length = strlen(line);
        number++;
        while (length && isspace((unsigned char)line[length - 1]))
            line[--length] = 0;
        if (length && line[0] != '#')
            rc = add_key(creds, path, number, line, err);
    }
    file_forget(&file);
    if (rc == 0 && !creds->keys)
        rc = err_set(err, -EINVAL, "TLS: there is no key in %s", path);
    return rc;
}

static const struct key *find_key(const struct tls_creds *creds, const char *user)
{
    for (unsigned i = 0; i < creds->keys; i++)
        if (strcmp(creds->key[i].user, user) == 0)
            return &creds->key[i];
    return NULL;
}

/* GnuTLS asks for the key of the user that a client has named; it frees what it is given. */
static int give_key(gnutls_session_t handle, const char *user, gnutls_datum_t *out)
{
    const struct tls_session *session = gnutls_session_get_ptr(handle);
    const struct key *key = find_key(session->creds, user);
    if (!key || !(out->data = gnutls_malloc(key->bytes.size)))
        return -1;
    memcpy(out->data, key->bytes.data, key->bytes.size);
    out->size = key->bytes.size;
    return 0;
}

static int load_keys(struct tls_creds *creds, struct err *err)
{
    char path[TLS_DIR_MAX + 32];
    int rc = read_keys(creds, path, sizeof(path), err);
    if (rc < 0)
        return rc;
    if (creds->options.server) {
        rc = gnutls_psk_allocate_server_credentials(&creds->all_keys);
        if (rc == 0)
            gnutls_psk_set_server_credentials_function(creds->all_keys, give_key);
    } else {
        const char *user = creds->options.username;
        const struct key *key = find_key(creds, user);
        if (!key)
            return err_set(err, -ENOENT, "TLS: %s has no key of '%s'", path, user);
        rc = gnutls_psk_allocate_client_credentials(&creds->one_key);
        if (rc == 0)
            rc = gnutls_psk_set_client_credentials(creds->one_key, user, &key->bytes, GNUTLS_PSK_KEY_RAW);
    }
    return rc < 0 ? err_set(err, -ENOMEM, "TLS: %s", gnutls_strerror(rc)) : 0;
}

/* --- credentials ------------------------------------------------------------------------------------------------------ */

static void priority_of(const struct tls_creds *creds, char *out, size_t out_size)
{
    snprintf(out, out_size, "%s%s%s", creds->options.priority[0] ? creds->options.priority : "NORMAL", ONLY_TLS13,
             creds->options.x509 ? "" : ONLY_PSK);
}

static int check_priority(const struct tls_creds *creds, struct err *err)
{
    char text[TLS_NAME_MAX + 64];
    gnutls_priority_t priority;
    priority_of(creds, text, sizeof(text));
    int rc = gnutls_priority_init(&priority, text, NULL);
    if (rc < 0)
        return err_set(err, -EINVAL, "TLS: the priority '%s' makes no sense: %s", creds->options.priority,
                       gnutls_strerror(rc));
    gnutls_priority_deinit(priority);
    return 0;
}

int tls_creds_new(const struct tls_creds_options *options, struct tls_creds **out, struct err *err)
{
    struct tls_creds *creds = calloc(1, sizeof(*creds));
    if (!creds)
        return err_set(err, -ENOMEM, "no memory for credentials");
    creds->options = *options;
    if (!options->username[0])
        strcpy(creds->options.username, DEFAULT_USER);
    atomic_init(&creds->refs, 1);
    int rc = check_priority(creds, err);
    if (rc == 0)
        rc = options->x509 ? load_certificates(creds, err) : load_keys(creds, err);
    if (rc < 0) {
        tls_creds_unref(creds);
        return rc;
    }
    *out = creds;
    return 0;
}

struct tls_creds *tls_creds_ref(struct tls_creds *creds)
{
    if (creds)
        atomic_fetch_add_explicit(&creds->refs, 1, memory_order_relaxed); /* who has one may hand out more */
    return creds;
}

void tls_creds_unref(struct tls_creds *creds)
{
    /* acq_rel: what others did with it is done before it is freed */
    if (!creds || atomic_fetch_sub_explicit(&creds->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (creds->certificates)
        gnutls_certificate_free_credentials(creds->certificates);
    if (creds->one_key)
        gnutls_psk_free_client_credentials(creds->one_key);
    if (creds->all_keys)
        gnutls_psk_free_server_credentials(creds->all_keys);
    for (unsigned i = 0; i < creds->keys; i++)
        file_forget(&creds->key[i].bytes);
    free(creds->key);
    free(creds);
}

const struct tls_creds_options *tls_creds_options(const struct tls_creds *creds)
{
    return &creds->options;
}

/* --- sessions ---------------------------------------------------------------------------------------------------------- */

static int use_certificates(struct tls_session *session)
{
    const struct tls_creds *creds = session->creds;
    int rc = gnutls_credentials_set(session->handle, GNUTLS_CRD_CERTIFICATE, creds->certificates);
    if (rc < 0 || !creds->options.verify_peer)
        return rc;
    const char *purpose = creds->options.server ? GNUTLS_KP_TLS_WWW_CLIENT : GNUTLS_KP_TLS_WWW_SERVER;
    session->check[0] =
        (gnutls_typed_vdata_st){ .type = GNUTLS_DT_KEY_PURPOSE_OID, .data = (unsigned char *)(uintptr_t)purpose };
    session->check[1] =
        (gnutls_typed_vdata_st){ .type = GNUTLS_DT_DNS_HOSTNAME, .data = (unsigned char *)session->hostname };
    gnutls_session_set_verify_cert2(session->handle, session->check, creds->options.server ? 1 : 2, 0);
    if (creds->options.server)
        gnutls_certificate_server_set_request(session->handle, GNUTLS_CERT_REQUIRE);
    return 0;
}

int tls_session_begin(struct tls_session *session, struct tls_creds *creds, const char *hostname, struct err *err)
{
    char priority[TLS_NAME_MAX + 64];
    /* No tickets: nobody resumes a session, and what the server says of its own accord is nothing that a client waits for. */
    unsigned flags = GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS | (creds->options.server ? GNUTLS_SERVER : GNUTLS_CLIENT);
    if (creds->options.x509 && creds->options.verify_peer && !creds->options.server && !*hostname)
        return err_set(err, -EINVAL,
                       "TLS: a certificate is checked against a name, and there is none: set tls-hostname");
    if (strlen(hostname) >= sizeof(session->hostname))
        return err_set(err, -EINVAL, "TLS: the name '%.40s...' is too long", hostname);
    strcpy(session->hostname, hostname);
    session->creds = tls_creds_ref(creds);
    priority_of(creds, priority, sizeof(priority));
    int rc = gnutls_init(&session->handle, flags);
    if (rc == 0)
        rc = gnutls_priority_set_direct(session->handle, priority, NULL);
    if (rc == 0 && creds->options.x509)
        rc = use_certificates(session);
    else if (rc == 0)
        rc = gnutls_credentials_set(session->handle, GNUTLS_CRD_PSK,
                                    creds->options.server ? (void *)creds->all_keys : (void *)creds->one_key);
    if (rc < 0) {
        tls_session_end(session);
        return err_set(err, -EINVAL, "TLS: no session: %s", gnutls_strerror(rc));
    }
    gnutls_session_set_ptr(session->handle, session);
    gnutls_handshake_set_timeout(session->handle, GNUTLS_INDEFINITE_TIMEOUT); /* whoever waits knows for how long */
    return 0;
}

void tls_session_end(struct tls_session *session)
{
    if (session->handle)
        gnutls_deinit(session->handle);
    session->handle = NULL;
    tls_creds_unref(session->creds);
    session->creds = NULL;
}

void tls_session_identity(const struct tls_session *session, char *out, size_t out_size)
{
    unsigned count = 0;
    gnutls_x509_crt_t certificate;
    out[0] = 0;
    if (!session->creds->options.x509) {
        const char *user = gnutls_psk_server_get_username(session->handle);
        snprintf(out, out_size, "%s", user ? user : "");
        return;
    }
    const gnutls_datum_t *chain = gnutls_certificate_get_peers(session->handle, &count);
    if (!chain || !count || gnutls_x509_crt_init(&certificate) < 0)
        return;
    size_t size = out_size;
    if (gnutls_x509_crt_import(certificate, &chain[0], GNUTLS_X509_FMT_DER) < 0 ||
        gnutls_x509_crt_get_dn(certificate, out, &size) < 0)
        out[0] = 0; /* too long is nobody as well */
    gnutls_x509_crt_deinit(certificate);
}

static void why_not_trusted(gnutls_session_t handle, char *out, size_t out_size)
{
    gnutls_datum_t text = { 0 };
    unsigned status = gnutls_session_get_verify_cert_status(handle);
    if (gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0) < 0) {
        snprintf(out, out_size, "the peer's certificate is not trusted");
        return;
    }
    size_t length = text.size;
    while (length && (text.data[length - 1] == ' ' || text.data[length - 1] == '.' || text.data[length - 1] == 0))
        length--;
    snprintf(out, out_size, "the peer's certificate: %.*s", (int)length, (char *)text.data);
    gnutls_free(text.data);
}

void tls_session_why(const struct tls_session *session, int code, char *out, size_t out_size)
{
    const char *alert;
    switch (code) {
    case GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR: why_not_trusted(session->handle, out, out_size); return;
    case GNUTLS_E_FATAL_ALERT_RECEIVED:
    case GNUTLS_E_WARNING_ALERT_RECEIVED:
        alert = gnutls_alert_get_name(gnutls_alert_get(session->handle));
        snprintf(out, out_size, "the peer refuses: %s", alert ? alert : "an alert without a name");
        return;
    case GNUTLS_E_PREMATURE_TERMINATION: snprintf(out, out_size, "the line was cut without a goodbye"); return;
    case GNUTLS_E_CERTIFICATE_REQUIRED:
    case GNUTLS_E_NO_CERTIFICATE_FOUND: snprintf(out, out_size, "the peer has shown no certificate"); return;
    default: break;
    }
    bool other_key = !session->creds->options.x509 &&
                     (code == GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER || code == GNUTLS_E_INSUFFICIENT_CREDENTIALS);
    snprintf(out, out_size, "%s%s", gnutls_strerror(code),
             other_key ? " Has the peer another key, or none of ours?" : "");
}
