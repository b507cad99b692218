/* Commands about migration's parameters and capabilities. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "monitor/monitor_priv.h"

static struct migration_params *params_of(struct call *call)
{
    return migration_params_of(call->monitor->context.migration);
}

/* --- parameters ----------------------------------------------------------------------------------------- */

/* One member of migrate-set-parameters. */
static int set_one(struct migration_params *params, const char *name, struct json_object *value, struct err *err)
{
    const struct param_row *row = param_find(name);
    if (param_find_words(name)) {
        if (value && !json_object_is_type(value, json_type_string))
            return err_set(err, -EINVAL, "Invalid parameter type for '%s', expected: string", name);
        return param_set_text(params, name, value ? json_object_get_string(value) : "", err); /* null: none */
    }
    if (!row)
        return err_set(err, -EINVAL, "Parameter '%s' is unexpected", name);
    bool choice = row->kind == PARAM_CHOICE;
    if (!json_object_is_type(value, choice ? json_type_string : json_type_int))
        return err_set(err, -EINVAL, "Invalid parameter type for '%s', expected: %s", name,
                       choice ? "string" : "integer");
    if (choice)
        return param_set_text(params, name, json_object_get_string(value), err);
    if (json_object_get_int64(value) < 0)
        return err_set(err, -EINVAL, "Parameter '%s' cannot be negative", name);
    return param_set_number(params, name, json_object_get_uint64(value), err);
}

static int set_all(struct migration_params *params, struct json_object *args, struct err *err)
{
    json_object_object_foreach(args, name, value)
    {
        int rc = set_one(params, name, value, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* All or nothing: everything is tried on a copy first. */
int cmd_set_parameters(struct call *call)
{
    struct migration_params trial;
    params_init(&trial);
    int rc = set_all(&trial, call->args, &call->err);
    return rc < 0 ? rc : set_all(params_of(call), call->args, &call->err);
}

int cmd_query_parameters(struct call *call)
{
    call->result = json_object_new_object();
    for (unsigned i = 0; i < param_rows; i++) {
        const struct param_row *row = &param_table[i];
        uint64_t value = param_get(params_of(call), row);
        if (row->kind == PARAM_CHOICE)
            json_put_str(call->result, row->name, row->choices[value]);
        else
            json_put_u64(call->result, row->name, value);
    }
    for (unsigned i = 0; i < text_rows; i++)
        json_put_str(call->result, text_table[i].name, param_get_words(params_of(call), &text_table[i]));
    return 0;
}

void print_parameters(struct call *call)
{
    static const char *const units[] = {
        [PARAM_SIZE] = " bytes", [PARAM_MS] = " ms", [PARAM_SIZE_PER_S] = " bytes/second"
    };
    json_object_object_foreach(call->result, name, value)
    {
        const struct param_row *row = param_find(name);
        const char *unit = row && row->kind < sizeof units / sizeof *units && units[row->kind] ? units[row->kind] : "";
        fprintf(call->out, "%s: %s%s\n", name, json_object_get_string(value), unit);
    }
}

int cmd_set_parameter(struct call *call)
{
    const char *name = json_get_str(call->args, "parameter");
    if (!param_find(name) && !param_find_words(name))
        return err_set(&call->err, -EINVAL, "invalid parameter value: %s", name);
    return param_set_text(params_of(call), name, json_get_str(call->args, "value"), &call->err);
}

int cmd_set_speed(struct call *call)
{
    int64_t value = json_get_int(call->args, "value");
    if (value < 0)
        return err_set(&call->err, -EINVAL, "Parameter 'value' cannot be negative");
    return param_set_number(params_of(call), "max-bandwidth", (uint64_t)value, &call->err);
}

int cmd_set_downtime(struct call *call)
{
    double seconds = json_get_num(call->args, "value");
    if (!(seconds >= 0 && seconds <= 1e6))
        return err_set(&call->err, -EINVAL, "Parameter 'value' is a number of seconds, not negative");
    return param_set_number(params_of(call), "downtime-limit", (uint64_t)llround(seconds * 1e3), &call->err);
}

/* --- capabilities --------------------------------------------------------------------------------------- */

/* Names that tools send although they want nothing: switching off what is not there is no lie. */
static const char *const absent_capabilities[] = {
    "rdma-pin-all",
    "zero-blocks",
    "compress",
    "postcopy-ram",
    "x-colo",
    "release-ram",
    "block",
    "pause-before-switchover",
    "dirty-bitmaps",
    "postcopy-blocktime",
    "late-block-activate",
    "x-ignore-shared",
    "validate-uuid",
    "background-snapshot",
    "zero-copy-send",
    "postcopy-preempt",
    "switchover-ack",
    "dirty-limit",
    "mapped-ram",
};

static int set_capability(struct migration_params *params, const char *name, bool on, struct err *err)
{
    if (capability_find(name))
        return capability_set(params, name, on, err);
    for (size_t i = 0; i < sizeof absent_capabilities / sizeof *absent_capabilities; i++)
        if (!strcmp(absent_capabilities[i], name))
            return on ? err_set(err, -ENOTSUP, "Capability '%s' is not supported", name) : 0;
    return err_set(err, -EINVAL, "Parameter 'capability' does not accept value '%s'", name);
}

static int set_capabilities(struct migration_params *params, struct json_object *list, struct err *err)
{
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *entry = json_object_array_get_idx(list, i);
        const char *name = json_get_str(entry, "capability");
        if (!name || !json_object_is_type(json_get(entry, "state"), json_type_boolean))
            return err_set(err, -EINVAL, "Parameter 'capabilities' is a list of {capability, state}");
        json_object_object_foreach(entry, member, value)
        {
            (void)value;
            if (strcmp(member, "capability") && strcmp(member, "state"))
                return err_set(err, -EINVAL, "Parameter 'capabilities[%zu].%s' is unexpected", i, member);
        }
        int rc = set_capability(params, name, json_get_bool(entry, "state"), err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int cmd_set_capabilities(struct call *call)
{
    struct json_object *list = json_get(call->args, "capabilities");
    struct migration_params trial;
    params_init(&trial);
    int rc = set_capabilities(&trial, list, &call->err);
    return rc < 0 ? rc : set_capabilities(params_of(call), list, &call->err);
}

int cmd_set_capability(struct call *call)
{
    return set_capability(params_of(call), json_get_str(call->args, "capability"), json_get_bool(call->args, "state"),
                          &call->err);
}

int cmd_query_capabilities(struct call *call)
{
    call->result = json_object_new_array();
    for (unsigned i = 0; i < capability_rows; i++) {
        struct json_object *entry = json_object_new_object();
        json_put_bool(entry, "state", capability_get(params_of(call), &capability_table[i]));
        json_put_str(entry, "capability", capability_table[i].name);
        json_object_array_add(call->result, entry);
    }
    return 0;
}

void print_capabilities(struct call *call)
{
    for (size_t i = 0; i < json_object_array_length(call->result); i++) {
        struct json_object *entry = json_object_array_get_idx(call->result, i);
        fprintf(call->out, "%s: %s\n", json_get_str(entry, "capability"), json_get_bool(entry, "state") ? "on" : "off");
    }
}
