/* A folder with certificates and keys, made in this process: an authority, what it has signed, and what it should not have. */
#pragma once
#include "tests/unit/test.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/tls.h"

struct tls_files {
    char dir[64];
    gnutls_x509_crt_t authority;
    gnutls_x509_privkey_t authority_key;
    unsigned serial;
};

static void tls_files_write(const struct tls_files *files, const char *name, const void *data, size_t bytes)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", files->dir, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

static gnutls_x509_privkey_t tls_files_key(const struct tls_files *files, const char *name)
{
    gnutls_x509_privkey_t key;
    gnutls_datum_t pem;
    assert_int_equal(gnutls_x509_privkey_init(&key), 0);
    assert_int_equal(
        gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0), 0);
    assert_int_equal(gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, &pem), 0);
    tls_files_write(files, name, pem.data, pem.size);
    gnutls_free(pem.data);
    return key;
}

/* host: the name it is for, or NULL; from, until: seconds from now. */
static gnutls_x509_crt_t tls_files_sign(struct tls_files *files, const char *name, gnutls_x509_privkey_t key,
                                        const char *common, const char *host, const char *purpose, int from, int until)
{
    gnutls_x509_crt_t crt;
    gnutls_datum_t pem;
    unsigned char serial = (unsigned char)++files->serial;
    assert_int_equal(gnutls_x509_crt_init(&crt), 0);
    gnutls_x509_crt_set_version(crt, 3);
    gnutls_x509_crt_set_serial(crt, &serial, 1);
    gnutls_x509_crt_set_activation_time(crt, time(NULL) + from);
    gnutls_x509_crt_set_expiration_time(crt, time(NULL) + until);
    gnutls_x509_crt_set_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, common, (unsigned)strlen(common));
    gnutls_x509_crt_set_key(crt, key);
    gnutls_x509_crt_set_basic_constraints(crt, purpose == NULL, -1);
    gnutls_x509_crt_set_key_usage(crt, purpose ? GNUTLS_KEY_DIGITAL_SIGNATURE
                                               : GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN);
    if (host)
        gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME, host, (unsigned)strlen(host), GNUTLS_FSAN_SET);
    if (purpose)
        gnutls_x509_crt_set_key_purpose_oid(crt, purpose, 0);
    assert_int_equal(gnutls_x509_crt_sign2(crt, files->authority ? files->authority : crt,
                                           files->authority ? files->authority_key : key, GNUTLS_DIG_SHA256, 0),
                     0);
    assert_int_equal(gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &pem), 0);
    tls_files_write(files, name, pem.data, pem.size);
    gnutls_free(pem.data);
    return crt;
}

/* who: server or client; anew, whatever was there. */
static void tls_files_issue(struct tls_files *files, const char *who, const char *common, const char *host,
                            const char *purpose, int from, int until)
{
    char cert[32], key_name[32];
    snprintf(cert, sizeof(cert), "%s-cert.pem", who);
    snprintf(key_name, sizeof(key_name), "%s-key.pem", who);
    gnutls_x509_privkey_t key = tls_files_key(files, key_name);
    gnutls_x509_crt_deinit(tls_files_sign(files, cert, key, common, host, purpose, from, until));
    gnutls_x509_privkey_deinit(key);
}

#define TLS_TEST_KEY "qemu:000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0e0f\n"

static void tls_files_make(struct tls_files *files)
{
    *files = (struct tls_files){ .serial = 0 };
    strcpy(files->dir, "/tmp/godwit-tls-XXXXXX");
    assert_non_null(mkdtemp(files->dir));
    files->authority_key = tls_files_key(files, "ca-key.pem");
    files->authority = tls_files_sign(files, "ca-cert.pem", files->authority_key, "authority", NULL, NULL, -60, 3600);
    tls_files_issue(files, "server", "there", "there.test", GNUTLS_KP_TLS_WWW_SERVER, -60, 3600);
    tls_files_issue(files, "client", "here", NULL, GNUTLS_KP_TLS_WWW_CLIENT, -60, 3600);
    tls_files_write(files, "keys.psk", TLS_TEST_KEY, strlen(TLS_TEST_KEY));
}

static void tls_files_remove(struct tls_files *files)
{
    static const char *const names[] = { "ca-key.pem",     "ca-cert.pem",     "ca-crl.pem",     "server-cert.pem",
                                         "server-key.pem", "client-cert.pem", "client-key.pem", "keys.psk" };
    char path[128];
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", files->dir, names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(files->dir), 0);
    gnutls_x509_crt_deinit(files->authority);
    gnutls_x509_privkey_deinit(files->authority_key);
}

static inline struct tls_creds *tls_files_creds(const struct tls_files *files, bool x509, bool server)
{
    struct tls_creds_options options = { .id = "tls0", .x509 = x509, .server = server, .verify_peer = true };
    struct tls_creds *creds = NULL;
    struct err err = { 0 };
    strcpy(options.dir, files->dir);
    if (tls_creds_new(&options, &creds, &err) < 0)
        fail_msg("%s", err.text);
    return creds;
}
