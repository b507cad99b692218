#include "base/authz.h"

#include <fnmatch.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct authz *authz_ref(struct authz *authz)
{
    if (authz)
        atomic_fetch_add_explicit(&authz->refs, 1, memory_order_relaxed); /* who has one may hand out more */
    return authz;
}

void authz_unref(struct authz *authz)
{
    /* acq_rel: what others did with it is done before it is freed */
    if (authz && atomic_fetch_sub_explicit(&authz->refs, 1, memory_order_acq_rel) == 1)
        free(authz);
}

bool authz_allows(const struct authz *authz, const char *identity)
{
    if (!identity || !*identity)
        return false;
    for (unsigned i = 0; i < authz->rules; i++) {
        const struct authz_rule *rule = &authz->rule[i];
        if (rule->glob ? fnmatch(rule->match, identity, 0) == 0 : strcmp(rule->match, identity) == 0)
            return rule->allow;
    }
    return authz->allow_rest;
}
