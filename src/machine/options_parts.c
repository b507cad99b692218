/* The options that describe parts: -device, -object, -global, -chardev, -mon. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/tls_object.h"
#include "machine/options_impl.h"

/* --- -device --------------------------------------------------------------------------------------------- */

int option_slot_take(struct parser *p, int wanted)
{
    if (wanted >= 0) {
        if (p->slot_used[wanted])
            return option_bad(p, "virtio-mmio-bus.%d already has a device", wanted);
        p->slot_used[wanted] = true;
        return wanted;
    }
    for (int slot = MACHINE_SLOTS - 1; slot >= 0; slot--) {
        if (!p->slot_used[slot]) {
            p->slot_used[slot] = true;
            return slot;
        }
    }
    return option_bad(p, "all %d virtio slots are taken", MACHINE_SLOTS);
}

int option_slot_number(struct parser *p, const char *bus, int *out)
{
    static const char name[] = "virtio-mmio-bus.";
    const char *digits = bus + sizeof(name) - 1;
    char *end = NULL;
    unsigned long number = MACHINE_SLOTS;
    if (strncmp(bus, name, sizeof(name) - 1) == 0 && isdigit((unsigned char)*digits))
        number = strtoul(digits, &end, 10); /* what does not fit becomes ULONG_MAX */
    if (number >= MACHINE_SLOTS || *end)
        return option_bad(p, "no bus '%s' (there are virtio-mmio-bus.0 to .%d)", bus, MACHINE_SLOTS - 1);
    *out = (int)number;
    return 0;
}

struct device_words {
    char id[OPTION_ID_MAX], chardev[OPTION_ID_MAX];
    int bus;
};

static int device_words(struct parser *p, const char *model, const char *at, struct device_words *out)
{
    bool console = strcmp(model, "virtconsole") == 0;
    struct part part;
    int result;
    *out = (struct device_words){ .bus = -1 };
    while ((result = part_next(p, &at, &part)) > 0) {
        if (strcmp(part.key, "id") == 0)
            result = option_text(p, out->id, sizeof(out->id), part.value);
        else if (strcmp(part.key, "bus") == 0 && !console)
            result = option_slot_number(p, part.value, &out->bus);
        else if (strcmp(part.key, "bus") == 0 || (strcmp(part.key, "nr") == 0 && console))
            result = 0; /* there is only one port on one bus */
        else if (strcmp(part.key, "chardev") == 0 && console)
            result = option_text(p, out->chardev, sizeof(out->chardev), part.value);
        else if (strcmp(part.key, "rng") == 0 && strcmp(model, "virtio-rng-device") == 0)
            result = 0; /* every rng object is the host's random numbers */
        else
            result = option_bad(p, "%s has no property '%s' here", model, part.key);
        if (result < 0)
            return result;
    }
    return result;
}

int option_device(struct parser *p, const char *argument)
{
    struct machine_config *config = &p->out->machine;
    struct part model;
    struct device_words words;
    int result = part_next(p, &argument, &model);
    if (result <= 0)
        return result < 0 ? result : option_bad(p, "a model is missing");
    if (!model.has_value && strcmp(model.key, "virtio-blk-device") == 0)
        return option_disk_device(p, argument);
    bool rng = strcmp(model.key, "virtio-rng-device") == 0;
    bool serial = strcmp(model.key, "virtio-serial-device") == 0;
    bool console = strcmp(model.key, "virtconsole") == 0;
    if (model.has_value || (!rng && !serial && !console))
        return option_bad(p,
                          "no model '%s' (there are virtio-blk-device, virtio-rng-device, virtio-serial-device, "
                          "virtconsole)",
                          model.key);
    result = device_words(p, model.key, argument, &words);
    if (result < 0)
        return result;

    if (console) {
        if (p->serial_device < 0)
            return option_bad(p, "virtconsole needs a virtio-serial-device of its own before it");
        if (!words.chardev[0])
            return option_bad(p, "virtconsole needs chardev=ID");
        struct machine_slot *slot = &config->slot[p->serial_device];
        p->serial_device = -1;
        return option_text(p, slot->chardev, sizeof(slot->chardev), words.chardev);
    }
    if (serial && p->serial_device >= 0)
        return option_bad(p, "the virtio-serial-device before this one has no virtconsole");
    int number = option_slot_take(p, words.bus);
    if (number < 0)
        return number;
    struct machine_slot *slot = &config->slot[number];
    snprintf(slot->model, sizeof(slot->model), "%s", rng ? "virtio-rng-device" : "virtio-console");
    snprintf(slot->id, sizeof(slot->id), "%s", words.id);
    if (serial)
        p->serial_device = number;
    return 0;
}

int option_devices_done(struct parser *p)
{
    p->option = "device";
    if (p->serial_device >= 0)
        return option_bad(p, "virtio-serial-device needs a virtconsole after it");
    for (unsigned i = 0; i < MACHINE_SLOTS; i++)
        p->out->machine.slot[i].legacy = !p->modern;
    return 0;
}

/* --- -object, -global ------------------------------------------------------------------------------------ */

int option_object(struct parser *p, const char *argument)
{
    struct options *out = p->out;
    struct part part;
    const char *all = argument;
    int result = part_next(p, &argument, &part);
    if (result < 0)
        return result;
    if (result > 0 && !part.has_value && tls_object_known(part.key)) {
        if (out->objects == OPTION_OBJECTS_MAX)
            return option_bad(p, "more than %d of them", OPTION_OBJECTS_MAX);
        return option_text(p, out->object[out->objects++], OPTION_SPEC_MAX, all);
    }
    if (result == 0 || part.has_value || (strcmp(part.key, "rng-random") && strcmp(part.key, "rng-builtin")))
        return option_bad(p,
                          "no object '%s' (there are rng-random, rng-builtin, tls-creds-psk, tls-creds-x509, "
                          "authz-simple, authz-list)",
                          result ? part.key : "");
    while ((result = part_next(p, &argument, &part)) > 0) {
        if (strcmp(part.key, "id") == 0)
            continue;
        if (strcmp(part.key, "filename") != 0)
            return option_bad(p, "no property '%s'", part.key);
        if (strcmp(part.value, "/dev/urandom") != 0 && strcmp(part.value, "/dev/random") != 0)
            return option_bad(p, "filename must be /dev/urandom or /dev/random, not '%s'", part.value);
    }
    return result;
}

static int tunable_add(struct parser *p, const char *name, const char *value)
{
    struct options *out = p->out;
    if (out->tunables == OPTION_TUNABLES_MAX)
        return option_bad(p, "more than %d migration parameters", OPTION_TUNABLES_MAX);
    struct option_tunable *tunable = &out->tunable[out->tunables++];
    snprintf(tunable->option, sizeof(tunable->option), "%s", p->option);
    int result = option_text(p, tunable->name, sizeof(tunable->name), name);
    return result < 0 ? result : option_text(p, tunable->value, sizeof(tunable->value), value);
}

int option_global(struct parser *p, const char *argument)
{
    static const char mmio[] = "virtio-mmio.force-legacy", migration[] = "migration.";
    const char *at = argument;
    struct part part;
    int result = part_next(p, &at, &part);
    if (result < 0)
        return result;
    if (result > 0 && part.has_value && strcmp(part.key, mmio) == 0) {
        bool legacy;
        result = option_bool(p, &part, &legacy);
        p->modern = !legacy;
        return result;
    }
    if (result > 0 && part.has_value && strncmp(part.key, migration, strlen(migration)) == 0)
        return tunable_add(p, part.key + strlen(migration), part.value);
    return option_bad(p, "'%s' is neither %s=on|off nor migration.NAME=VALUE", argument, mmio);
}

/* --- -chardev -------------------------------------------------------------------------------------------- */

struct chardev_words {
    char id[OPTION_ID_MAX];
    char path[OPTION_SPEC_MAX / 2], host[OPTION_ID_MAX * 4], port[OPTION_ID_MAX];
    bool server, wait, wait_given, mux, insecure;
};

static int chardev_words(struct parser *p, const char *kind, const char *at, struct chardev_words *out)
{
    struct part part;
    int result;
    bool ignored;
    bool socket = strcmp(kind, "socket") == 0;
    *out = (struct chardev_words){ .wait = true };
    while ((result = part_next(p, &at, &part)) > 0) {
        if (strcmp(part.key, "id") == 0)
            result = option_text(p, out->id, sizeof(out->id), part.value);
        else if (strcmp(part.key, "path") == 0 && (socket || strcmp(kind, "file") == 0))
            result = option_text(p, out->path, sizeof(out->path), part.value);
        else if (strcmp(part.key, "host") == 0 && socket)
            result = option_text(p, out->host, sizeof(out->host), part.value);
        else if (strcmp(part.key, "port") == 0 && socket)
            result = option_text(p, out->port, sizeof(out->port), part.value);
        else if (strcmp(part.key, "server") == 0 && socket)
            result = option_bool(p, &part, &out->server);
        else if (strcmp(part.key, "wait") == 0 && socket)
            result = option_bool(p, &part, &out->wait), out->wait_given = true;
        else if (strcmp(part.key, "nowait") == 0 && socket)
            result = 0, out->wait = false, out->wait_given = true;
        else if (strcmp(part.key, "insecure") == 0 && socket)
            result = option_bool(p, &part, &out->insecure);
        else if (strcmp(part.key, "mux") == 0)
            result = option_bool(p, &part, &out->mux);
        else if (strcmp(part.key, "signal") == 0 && strcmp(kind, "stdio") == 0)
            result = option_bool(p, &part, &ignored);
        else
            result = option_bad(p, "%s has no property '%s' here", kind, part.key);
        if (result < 0)
            return result;
    }
    return result;
}

static int chardev_socket(struct parser *p, const struct chardev_words *words, struct option_chardev *out)
{
    const char *server = !words->server ? "" : words->wait && words->wait_given ? ",server=on" : ",server=on,wait=off";
    if (!words->path[0] == !words->host[0] && !words->path[0] == !words->port[0])
        return option_bad(p, "socket '%s' needs path= or host= and port=", words->id);
    if (words->path[0])
        snprintf(out->spec, sizeof(out->spec), "unix:%s%s", words->path, server);
    else if (words->port[0])
        snprintf(out->spec, sizeof(out->spec), "tcp:%s:%s%s%s", words->host, words->port, server,
                 words->insecure ? ",insecure=on" : "");
    else
        return option_bad(p, "socket '%s' needs port=", words->id);
    return 0;
}

int option_chardev(struct parser *p, const char *argument)
{
    static const char *const simple[] = { "stdio", "pty", "null" };
    struct options *out = p->out;
    struct part kind;
    struct chardev_words words;
    int result = part_next(p, &argument, &kind);
    if (result <= 0 || kind.has_value)
        return result < 0 ? result : option_bad(p, "a kind must come first: socket, file, stdio, pty or null");
    result = chardev_words(p, kind.key, argument, &words);
    if (result < 0)
        return result;
    if (!words.id[0])
        return option_bad(p, "%s needs id=ID", kind.key);
    for (unsigned i = 0; i < out->chardevs; i++) {
        if (strcmp(out->chardev[i].id, words.id) == 0)
            return option_bad(p, "the id '%s' is used twice", words.id);
    }
    if (out->chardevs == OPTION_CHARDEVS_MAX)
        return option_bad(p, "more than %d of them", OPTION_CHARDEVS_MAX);

    struct option_chardev *chardev = &out->chardev[out->chardevs];
    snprintf(chardev->id, sizeof(chardev->id), "%s", words.id);
    chardev->mux = words.mux;
    out->chardevs++;
    if (strcmp(kind.key, "socket") == 0)
        return chardev_socket(p, &words, chardev);
    if (strcmp(kind.key, "file") == 0) {
        if (!words.path[0])
            return option_bad(p, "file '%s' needs path=", words.id);
        snprintf(chardev->spec, sizeof(chardev->spec), "file:%s", words.path);
        return 0;
    }
    for (unsigned i = 0; i < sizeof(simple) / sizeof(simple[0]); i++) {
        if (strcmp(kind.key, simple[i]) == 0) {
            snprintf(chardev->spec, sizeof(chardev->spec), "%s", simple[i]);
            return 0;
        }
    }
    return option_bad(p, "no kind '%s' (there are socket, file, stdio, pty, null)", kind.key);
}

/* --- -mon, -monitor, -qmp -------------------------------------------------------------------------------- */

int option_monitor_add(struct parser *p, const char *spec, bool qmp)
{
    struct options *out = p->out;
    p->monitor_given = true;
    if (strcmp(spec, "none") == 0)
        return 0;
    if (out->monitors == OPTION_MONITORS_MAX)
        return option_bad(p, "more than %d monitors", OPTION_MONITORS_MAX);
    struct option_monitor *monitor = &out->monitor[out->monitors++];
    monitor->qmp = qmp;
    return option_text(p, monitor->spec, sizeof(monitor->spec), spec);
}

int option_mon(struct parser *p, const char *argument)
{
    char spec[OPTION_ID_MAX + 16] = "";
    bool qmp = false, ignored;
    struct part part;
    int result;
    while ((result = part_next(p, &argument, &part)) > 0) {
        const char *id = !part.has_value ? part.key : strcmp(part.key, "chardev") == 0 ? part.value : NULL;
        if (id) {
            if (strlen(id) >= OPTION_ID_MAX)
                return option_bad(p, "the id '%s' is too long", id);
            snprintf(spec, sizeof(spec), "chardev:%.*s", OPTION_ID_MAX - 1, id);
        } else if (strcmp(part.key, "mode") == 0) {
            qmp = strcmp(part.value, "control") == 0;
            if (!qmp && strcmp(part.value, "readline") != 0)
                return option_bad(p, "mode must be readline or control, not '%s'", part.value);
        } else if (strcmp(part.key, "pretty") == 0) {
            result = option_bool(p, &part, &ignored);
            if (result < 0)
                return result;
        } else {
            return option_bad(p, "no property '%s'", part.key);
        }
    }
    if (result < 0)
        return result;
    return spec[0] ? option_monitor_add(p, spec, qmp) : option_bad(p, "chardev=ID is missing");
}

/* --- -gdb ------------------------------------------------------------------------------------------------ */

/* A socket listens, and the guest does not wait for a debugger, unless the text says otherwise. Nobody but this host
 * may come when no host is named: who comes may do anything. */
int option_gdb(struct parser *p, const char *argument)
{
    static const char *const kinds[] = { "tcp:", "unix:", "chardev:", "stdio", "pty" };
    struct options *out = p->out;
    bool known = false, socket = strncmp(argument, "tcp:", 4) == 0 || strncmp(argument, "unix:", 5) == 0;
    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        known = known || strncmp(argument, kinds[i], strlen(kinds[i])) == 0;
    if (strcmp(argument, "none") == 0) {
        out->gdb[0] = '\0';
        return 0;
    }
    if (!known)
        return option_bad(p, "'%.60s' is none of tcp:HOST:PORT, unix:PATH, stdio, pty, chardev:ID and none", argument);
    const char *host = "", *rest = argument, *server = "";
    if (strncmp(argument, "tcp::", 5) == 0) {
        host = "tcp:127.0.0.1:";
        rest = argument + 5;
    }
    if (socket && !strstr(argument, ",server"))
        server = ",server=on,wait=off";
    if ((size_t)snprintf(out->gdb, sizeof(out->gdb), "%s%s%s", host, rest, server) >= sizeof(out->gdb))
        return option_bad(p, "'%.40s...' is too long", argument);
    return 0;
}
