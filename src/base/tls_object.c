#include "base/tls_object.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 2048, PROPERTIES_MAX = 3 * AUTHZ_RULES_MAX + 8 };

struct object {
    char id[TLS_ID_MAX];     /* "": free */
    struct tls_creds *creds; /* one of the two */
    struct authz *authz;
};

struct tls_store {
    struct object object[TLS_OBJECTS_MAX];
};

/* --- properties ---------------------------------------------------------------------------------------------------- */

static int bad_property(const char *type, const char *name, struct err *err)
{
    return err_set(err, -EINVAL, "%s has no property '%.64s'", type, name);
}

static int set_text(const char *type, const struct tls_property *property, char *out, size_t out_size, struct err *err)
{
    if (strlen(property->value) >= out_size)
        return err_set(err, -EINVAL, "%s: %s is longer than %zu bytes", type, property->name, out_size - 1);
    strcpy(out, property->value);
    return 0;
}

/* Which of two words it is. */
static int set_choice(const char *type, const struct tls_property *property, const char *no, const char *yes, bool *out,
                      struct err *err)
{
    if (strcmp(property->value, no) != 0 && strcmp(property->value, yes) != 0)
        return err_set(err, -EINVAL, "%s: %s must be %s or %s, not '%.64s'", type, property->name, yes, no,
                       property->value);
    *out = strcmp(property->value, yes) == 0;
    return 0;
}

static bool is_called(const struct tls_property *property, const char *name)
{
    return strcmp(property->name, name) == 0;
}

static int creds_property(struct tls_creds_options *options, const char *type, const struct tls_property *property,
                          struct err *err)
{
    if (is_called(property, "dir"))
        return set_text(type, property, options->dir, sizeof(options->dir), err);
    if (is_called(property, "endpoint"))
        return set_choice(type, property, "client", "server", &options->server, err);
    if (is_called(property, "priority"))
        return set_text(type, property, options->priority, sizeof(options->priority), err);
    if (is_called(property, "verify-peer")) /* psk: it is always verified, by having the key */
        return set_choice(type, property, "off", "on", &options->verify_peer, err);
    if (is_called(property, "sanity-check") && options->x509)
        return set_choice(type, property, "off", "on", &options->sanity_check, err);
    if (is_called(property, "username") && !options->x509)
        return set_text(type, property, options->username, sizeof(options->username), err);
    return bad_property(type, property->name, err);
}

static int creds_new(struct object *object, const char *type, const struct tls_property *properties, unsigned count,
                     struct err *err)
{
    struct tls_creds_options options = { .verify_peer = true, .sanity_check = true };
    options.x509 = strcmp(type, "tls-creds-x509") == 0;
    strcpy(options.id, object->id);
    for (unsigned i = 0; i < count; i++) {
        int rc = is_called(&properties[i], "id") ? 0 : creds_property(&options, type, &properties[i], err);
        if (rc < 0)
            return rc;
    }
    if (!options.dir[0])
        return err_set(err, -EINVAL, "%s '%s' needs dir=", type, options.id);
    return tls_creds_new(&options, &object->creds, err);
}

/* "rules.N.match", ".policy", ".format" */
static int rule_property(struct authz *authz, const char *type, const struct tls_property *property, struct err *err)
{
    char *rest;
    if (strncmp(property->name, "rules.", 6) != 0 || !isdigit((unsigned char)property->name[6]))
        return bad_property(type, property->name, err);
    unsigned long index = strtoul(property->name + 6, &rest, 10);
    if (index > authz->rules || index >= AUTHZ_RULES_MAX)
        return err_set(err, -EINVAL, "%s: %.64s: rules come in order, and there are %d at most", type, property->name,
                       AUTHZ_RULES_MAX);
    struct authz_rule *rule = &authz->rule[index];
    if (index == authz->rules)
        authz->rules++;
    if (strcmp(rest, ".match") == 0)
        return set_text(type, property, rule->match, sizeof(rule->match), err);
    if (strcmp(rest, ".policy") == 0)
        return set_choice(type, property, "deny", "allow", &rule->allow, err);
    if (strcmp(rest, ".format") == 0)
        return set_choice(type, property, "exact", "glob", &rule->glob, err);
    return bad_property(type, property->name, err);
}

static int authz_property(struct authz *authz, bool list, const char *type, const struct tls_property *property,
                          struct err *err)
{
    if (!list && is_called(property, "identity")) {
        authz->rules = 1;
        authz->rule[0].allow = true;
        return set_text(type, property, authz->rule[0].match, sizeof(authz->rule[0].match), err);
    }
    if (list && is_called(property, "policy"))
        return set_choice(type, property, "deny", "allow", &authz->allow_rest, err);
    return list ? rule_property(authz, type, property, err) : bad_property(type, property->name, err);
}

static int authz_new(struct object *object, const char *type, const struct tls_property *properties, unsigned count,
                     struct err *err)
{
    bool list = strcmp(type, "authz-list") == 0;
    struct authz *authz = object->authz = calloc(1, sizeof(*authz));
    if (!authz)
        return err_set(err, -ENOMEM, "no memory for %s", type);
    atomic_init(&authz->refs, 1);
    strcpy(authz->id, object->id);
    for (unsigned i = 0; i < count; i++) {
        int rc = is_called(&properties[i], "id") ? 0 : authz_property(authz, list, type, &properties[i], err);
        if (rc < 0)
            return rc;
    }
    for (unsigned i = 0; i < authz->rules; i++)
        if (!authz->rule[i].match[0])
            return err_set(err, -EINVAL, "%s '%s': rule %u matches nobody", type, authz->id, i);
    return !list && !authz->rules ? err_set(err, -EINVAL, "%s '%s' needs identity=", type, authz->id) : 0;
}

/* --- objects ---------------------------------------------------------------------------------------------------------- */

static bool is_creds(const char *type)
{
    return strcmp(type, "tls-creds-psk") == 0 || strcmp(type, "tls-creds-x509") == 0;
}

bool tls_object_known(const char *type)
{
    return is_creds(type) || strcmp(type, "authz-simple") == 0 || strcmp(type, "authz-list") == 0;
}

int tls_store_new(struct tls_store **out, struct err *err)
{
    *out = calloc(1, sizeof(**out));
    return *out ? 0 : err_set(err, -ENOMEM, "no memory for objects");
}

static void forget(struct object *object)
{
    tls_creds_unref(object->creds);
    authz_unref(object->authz);
    *object = (struct object){ 0 };
}

void tls_store_free(struct tls_store *store)
{
    for (unsigned i = 0; store && i < TLS_OBJECTS_MAX; i++)
        forget(&store->object[i]);
    free(store);
}

/* "" finds a free place. */
static struct object *find(struct tls_store *store, const char *id)
{
    for (unsigned i = 0; i < TLS_OBJECTS_MAX; i++)
        if (strcmp(store->object[i].id, id) == 0)
            return &store->object[i];
    return NULL;
}

int tls_store_add(struct tls_store *store, const char *type, const struct tls_property *properties, unsigned count,
                  struct err *err)
{
    const char *id = "";
    for (unsigned i = 0; i < count; i++)
        if (is_called(&properties[i], "id"))
            id = properties[i].value;
    if (!tls_object_known(type))
        return err_set(err, -EINVAL, "there is no object '%.64s'", type);
    if (!*id || strlen(id) >= TLS_ID_MAX)
        return err_set(err, -EINVAL, "%s needs an id of 1 to %d bytes", type, TLS_ID_MAX - 1);
    if (find(store, id))
        return err_set(err, -EEXIST, "there is an object '%s' already", id);
    struct object *object = find(store, "");
    if (!object)
        return err_set(err, -ENOSPC, "more than %d objects", TLS_OBJECTS_MAX);
    strcpy(object->id, id);
    int rc = is_creds(type) ? creds_new(object, type, properties, count, err)
                            : authz_new(object, type, properties, count, err);
    if (rc < 0)
        forget(object);
    return rc;
}

/* The next piece of a list with commas, ended in place; ",," becomes a comma. */
static char *next_piece(char **at)
{
    char *piece = *at, *to = piece, *from = piece;
    if (!*from)
        return NULL;
    while (*from && !(from[0] == ',' && from[1] != ',')) {
        from += *from == ',';
        *to++ = *from++;
    }
    *at = *from ? from + 1 : from;
    *to = 0;
    return piece;
}

int tls_store_add_text(struct tls_store *store, const char *text, struct err *err)
{
    struct tls_property property[PROPERTIES_MAX];
    char copy[TEXT_MAX], *at = copy;
    unsigned count = 0;
    if (strlen(text) >= sizeof(copy))
        return err_set(err, -EINVAL, "an object's properties have up to %zu bytes", sizeof(copy) - 1);
    strcpy(copy, text);
    const char *type = next_piece(&at);
    if (!type)
        return err_set(err, -EINVAL, "an object needs a type");
    for (char *piece; (piece = next_piece(&at)); count++) {
        char *equals = strchr(piece, '=');
        if (!equals || equals == piece)
            return err_set(err, -EINVAL, "%.64s: '%.64s' is not NAME=VALUE", type, piece);
        if (count == PROPERTIES_MAX)
            return err_set(err, -EINVAL, "%.64s: more than %d properties", type, PROPERTIES_MAX);
        *equals = 0;
        property[count] = (struct tls_property){ .name = piece, .value = equals + 1 };
    }
    return tls_store_add(store, type, property, count, err);
}

int tls_store_delete(struct tls_store *store, const char *id, struct err *err)
{
    struct object *object = *id ? find(store, id) : NULL;
    if (!object)
        return err_set(err, -ENOENT, "there is no object '%.64s'", id);
    forget(object);
    return 0;
}

struct tls_creds *tls_store_creds(struct tls_store *store, const char *id)
{
    struct object *object = *id ? find(store, id) : NULL;
    return object ? tls_creds_ref(object->creds) : NULL;
}

struct authz *tls_store_authz(struct tls_store *store, const char *id)
{
    struct object *object = *id ? find(store, id) : NULL;
    return object ? authz_ref(object->authz) : NULL;
}
