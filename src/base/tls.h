/* Credentials for TLS 1.3 (RFC 8446): what a migration's two ends know each other by. Read from their folder once, when
 * they are made: no file is opened later, so that a thread in the sandbox can use them.
 *
 * File names, properties and defaults are QEMU's:
 *   x509  ca-cert.pem  ca-crl.pem  server-cert.pem server-key.pem | client-cert.pem client-key.pem
 *   psk   keys.psk, lines of USER:HEXKEY
 * A pre-shared key is used with an exchange of its own for each session, never alone: who learns the key later cannot read
 * what was recorded. Older protocols are not spoken, whatever the priority string says.
 *
 * Fixed once made; any thread may hold and use a reference. */
#pragma once
#include <stdbool.h>

#include "base/err.h"

enum { TLS_ID_MAX = 64, TLS_DIR_MAX = 512, TLS_NAME_MAX = 256, TLS_KEYS_MAX = 1024, TLS_KEYS_FILE_MAX = 1 << 20 };

struct tls_creds;

struct tls_creds_options {
    char id[TLS_ID_MAX];
    char dir[TLS_DIR_MAX];
    char priority[TLS_NAME_MAX]; /* "": GnuTLS's NORMAL */
    char username[TLS_NAME_MAX]; /* psk, client: whose key; "": qemu */
    bool x509;                   /* else psk */
    bool server;
    bool verify_peer;  /* x509: it must show a certificate that our CA has signed */
    bool sanity_check; /* x509: our own certificate must be valid now */
};

/* -errno with a sentence that names the file. */
int tls_creds_new(const struct tls_creds_options *options, struct tls_creds **out, struct err *err);
struct tls_creds *tls_creds_ref(struct tls_creds *creds); /* NULL is NULL */
void tls_creds_unref(struct tls_creds *creds);            /* NULL allowed */
const struct tls_creds_options *tls_creds_options(const struct tls_creds *creds);
