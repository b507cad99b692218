/* Who of those that have proven who they are may come: QEMU's authz-simple and authz-list. Pure, but for the counted
 * references, which any thread may take and drop. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>

enum { AUTHZ_RULES_MAX = 64, AUTHZ_TEXT_MAX = 512 };

struct authz_rule {
    char match[AUTHZ_TEXT_MAX];
    bool allow;
    bool glob; /* match is a pattern of the shell: glob(7) */
};

struct authz {
    _Atomic unsigned refs;
    /* fixed after the first reference is shared */
    char id[64];
    bool allow_rest; /* whom no rule names */
    unsigned rules;
    struct authz_rule rule[AUTHZ_RULES_MAX]; /* the first that matches decides */
};

struct authz *authz_ref(struct authz *authz); /* NULL is NULL */
void authz_unref(struct authz *authz);        /* NULL allowed; the last one frees it */
/* identity: a distinguished name, or a user of a key; NULL and "" are nobody. */
bool authz_allows(const struct authz *authz, const char *identity);
