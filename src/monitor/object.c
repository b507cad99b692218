/* Commands about objects: what migrations over TLS need. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/tls_object.h"
#include "monitor/monitor_priv.h"

enum { NAME_MAX_BYTES = 32, PROPERTIES_MAX = 3 * AUTHZ_RULES_MAX + 8 };

static struct tls_store *store_of(struct call *call)
{
    return migration_objects(call->monitor->context.migration);
}

struct properties {
    struct tls_property list[PROPERTIES_MAX];
    char name[PROPERTIES_MAX][NAME_MAX_BYTES]; /* of members of lists */
    unsigned count;
};

static int add_property(struct properties *out, const char *name, struct json_object *value, struct err *err)
{
    if (out->count == PROPERTIES_MAX)
        return err_set(err, -EINVAL, "More than %d properties", PROPERTIES_MAX);
    const char *text = NULL;
    if (json_object_is_type(value, json_type_boolean))
        text = json_object_get_boolean(value) ? "on" : "off";
    else if (json_object_is_type(value, json_type_string))
        text = json_object_get_string(value);
    if (!text)
        return err_set(err, -EINVAL, "Invalid parameter type for '%.64s', expected: string", name);
    out->list[out->count++] = (struct tls_property){ .name = name, .value = text };
    return 0;
}

/* "rules": a list of objects, whose members are rules.N.NAME. */
static int add_list(struct properties *out, const char *name, struct json_object *list, struct err *err)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < json_object_array_length(list); i++) {
        struct json_object *entry = json_object_array_get_idx(list, i);
        if (!json_object_is_type(entry, json_type_object))
            return err_set(err, -EINVAL, "Parameter '%.64s' is a list of objects", name);
        json_object_object_foreach(entry, member, value)
        {
            if (rc < 0 || out->count == PROPERTIES_MAX)
                return rc < 0 ? rc : err_set(err, -EINVAL, "More than %d properties", PROPERTIES_MAX);
            char *full = out->name[out->count];
            if (snprintf(full, NAME_MAX_BYTES, "%s.%zu.%s", name, i, member) >= NAME_MAX_BYTES)
                return err_set(err, -EINVAL, "Parameter '%.64s' is unexpected", member);
            rc = add_property(out, full, value, err);
        }
    }
    return rc;
}

int cmd_object_add(struct call *call)
{
    const char *type = json_get_str(call->args, "qom-type");
    struct properties properties;
    properties.count = 0;
    if (!type)
        return err_set(&call->err, -EINVAL, "Parameter 'qom-type' is missing");
    json_object_object_foreach(call->args, name, value)
    {
        int rc = 0;
        if (json_object_is_type(value, json_type_array))
            rc = add_list(&properties, name, value, &call->err);
        else if (strcmp(name, "qom-type") != 0)
            rc = add_property(&properties, name, value, &call->err);
        if (rc < 0)
            return rc;
    }
    return tls_store_add(store_of(call), type, properties.list, properties.count, &call->err);
}

int cmd_hmp_object_add(struct call *call)
{
    return tls_store_add_text(store_of(call), json_get_str(call->args, "object"), &call->err);
}

int cmd_object_del(struct call *call)
{
    return tls_store_delete(store_of(call), json_get_str(call->args, "id"), &call->err);
}
