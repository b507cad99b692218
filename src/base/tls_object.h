/* What `-object`, object_add and object-add make for migrations: tls-creds-psk, tls-creds-x509, authz-simple and authz-list,
 * by their ids. Properties and their names are QEMU's. One thread, the control loop's; what it hands out are references,
 * which live on when the object is deleted. */
#pragma once
#include <stdbool.h>

#include "base/authz.h"
#include "base/err.h"
#include "base/tls.h"

enum { TLS_OBJECTS_MAX = 32 };

struct tls_property {
    const char *name, *value; /* of a list's members: "rules.0.match" */
};

struct tls_store;

int tls_store_new(struct tls_store **out, struct err *err);
void tls_store_free(struct tls_store *store); /* NULL allowed */

bool tls_object_known(const char *type); /* one that this file makes */
/* properties without type, with "id". -EINVAL, -EEXIST, or what tls_creds_new() says. */
int tls_store_add(struct tls_store *store, const char *type, const struct tls_property *properties, unsigned count,
                  struct err *err);
/* "tls-creds-psk,id=tls0,dir=/etc/keys,endpoint=client"; ",," stands for a comma. */
int tls_store_add_text(struct tls_store *store, const char *text, struct err *err);
int tls_store_delete(struct tls_store *store, const char *id, struct err *err); /* -ENOENT */

/* References for the caller, or NULL: there is none of that kind. */
struct tls_creds *tls_store_creds(struct tls_store *store, const char *id);
struct authz *tls_store_authz(struct tls_store *store, const char *id);
