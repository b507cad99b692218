/* What credentials and channels share of GnuTLS. Only base/tls.c and base/channel_tls.c include this. */
#pragma once
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "base/tls.h"

/* One end of one connection. Not for two threads at once: whoever owns it locks. */
struct tls_session {
    gnutls_session_t handle;
    struct tls_creds *creds; /* a reference */
    char hostname[TLS_NAME_MAX];
    gnutls_typed_vdata_st check[2]; /* what the peer's certificate must be: GnuTLS keeps the pointer */
};

/* hostname: the name that the server's certificate must be for; "" where nobody checks it. Zeroed out before. */
int tls_session_begin(struct tls_session *session, struct tls_creds *creds, const char *hostname, struct err *err);
void tls_session_end(struct tls_session *session); /* also one that never began */
/* Who the peer is, after the handshake: its distinguished name, or its key's user; "": nobody can tell. */
void tls_session_identity(const struct tls_session *session, char *out, size_t out_size);
/* Why a call failed, in words. */
void tls_session_why(const struct tls_session *session, int code, char *out, size_t out_size);
