#include "machine/options.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/failpoint.h"
#include "machine/boot.h"
#include "machine/options_impl.h"
#include "vcpu/trace.h"

/* --- helpers --------------------------------------------------------------------------------------------- */

int option_bad(struct parser *p, const char *format, ...)
{
    char text[ERR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return err_set(p->err, -EINVAL, "-%s: %s", p->option, text);
}

int option_text(struct parser *p, char *out, size_t out_size, const char *text)
{
    if (strlen(text) >= out_size)
        return option_bad(p, "'%.40s...' is longer than %zu bytes", text, out_size - 1);
    strcpy(out, text);
    return 0;
}

int option_number(struct parser *p, const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end)
        return option_bad(p, "'%s' is not a number", text);
    if (errno || value < min || value > max)
        return option_bad(p, "%s is not within %llu to %llu", text, (unsigned long long)min, (unsigned long long)max);
    *out = value;
    return 0;
}

int option_bool(struct parser *p, const struct part *part, bool *out)
{
    static const char *const words[2][3] = { { "off", "false", "no" }, { "on", "true", "yes" } };
    *out = true;
    if (!part->has_value)
        return 0;
    for (unsigned value = 0; value < 2; value++) {
        for (unsigned i = 0; i < 3; i++) {
            if (strcmp(part->value, words[value][i]) == 0) {
                *out = value;
                return 0;
            }
        }
    }
    return option_bad(p, "%s must be on or off, not '%s'", part->key, part->value);
}

int part_next(struct parser *p, const char **at, struct part *out)
{
    const char *c = *at;
    char *into = out->key;
    size_t used = 0, room = sizeof(out->key);
    *out = (struct part){ 0 };
    if (!*c)
        return 0;
    for (; *c && !(c[0] == ',' && c[1] != ','); c++) {
        if (*c == '=' && !out->has_value) {
            out->has_value = true;
            into = out->value;
            used = 0;
            room = sizeof(out->value);
            continue;
        }
        if (used + 1 >= room)
            return option_bad(p, "'%.40s...' is too long", *at);
        into[used++] = *c;
        c += *c == ','; /* the second of two */
    }
    *at = *c ? c + 1 : c;
    return 1;
}

/* "512" means MiB, as QEMU has it. */
static int ram_size(struct parser *p, const char *text, uint64_t *out)
{
    static const char suffixes[] = "kmgt";
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || errno)
        return option_bad(p, "'%s' is not a size", text);
    unsigned shift = 20;
    const char *suffix = *end ? strchr(suffixes, tolower((unsigned char)*end)) : NULL;
    if (suffix) {
        shift = 10 * (unsigned)(suffix - suffixes + 1);
        end++;
    }
    if (*end)
        return option_bad(p, "'%s' is not a size", text);
    if (value > MACHINE_RAM_MAX_BYTES >> shift || value << shift < MACHINE_RAM_MIN_BYTES)
        return option_bad(p, "%s is not within %llu MiB to %llu GiB", text, MACHINE_RAM_MIN_BYTES >> 20,
                          MACHINE_RAM_MAX_BYTES >> 30);
    *out = value << shift;
    if (*out % (UINT64_C(1) << 20))
        return option_bad(p, "%s is not a whole number of MiB", text);
    return 0;
}

/* A path for the machine; commas are part of it. */
#define PATH_OPTION(function, member)                                                                                  \
    static int function(struct parser *p, const char *argument)                                                        \
    {                                                                                                                  \
        return option_text(p, p->out->member, sizeof(p->out->member), argument);                                       \
    }
PATH_OPTION(bios, machine.bios)
PATH_OPTION(kernel, machine.kernel)
PATH_OPTION(initrd, machine.initrd)
PATH_OPTION(append, machine.append)
PATH_OPTION(mem_path, machine.mem_path)
PATH_OPTION(pidfile, pidfile)
PATH_OPTION(state_dir, state_dir)
PATH_OPTION(incoming, incoming)
PATH_OPTION(migrate, migrate)
PATH_OPTION(trace_path, trace_path)

#define FLAG_OPTION(function, member)                                                                                  \
    static int function(struct parser *p, const char *argument)                                                        \
    {                                                                                                                  \
        (void)argument;                                                                                                \
        p->out->member = true;                                                                                         \
        return 0;                                                                                                      \
    }
FLAG_OPTION(no_reboot, machine.no_reboot)
FLAG_OPTION(no_shutdown, machine.no_shutdown)
FLAG_OPTION(start_paused, start_paused)
FLAG_OPTION(daemonize, daemonize)
FLAG_OPTION(nodefaults, nodefaults)
FLAG_OPTION(migrate_on_signal, migrate_on_signal)
FLAG_OPTION(perf_map, perf_map)
FLAG_OPTION(jit_dump, jit_dump)
FLAG_OPTION(help, help)
FLAG_OPTION(version, version)

/* --- machine --------------------------------------------------------------------------------------------- */

static int machine_option(struct parser *p, const char *argument)
{
    /* What QEMU's virt can be told and what it must say to be this machine. */
    static const char *const only[][2] = { { "aia", "none" },    { "acpi", "off" },      { "aclint", "off" },
                                           { "usb", "off" },     { "iommu-sys", "off" }, { "accel", "tcg" },
                                           { "graphics", "off" } };
    struct part part;
    int result;
    bool first = true;
    while ((result = part_next(p, &argument, &part)) > 0) {
        const char *type = !part.has_value && first ? part.key : strcmp(part.key, "type") == 0 ? part.value : NULL;
        first = false;
        if (type) {
            if (strcmp(type, "virt") != 0)
                return option_bad(p, "no machine '%s' (there is virt)", type);
            continue;
        }
        bool known = false;
        for (unsigned i = 0; i < sizeof(only) / sizeof(only[0]) && !known; i++) {
            known = strcmp(part.key, only[i][0]) == 0;
            if (known && strcmp(part.value, only[i][1]) != 0)
                return option_bad(p, "%s can only be %s, not '%s'", part.key, only[i][1], part.value);
        }
        if (!known)
            return option_bad(p, "virt has no property '%s' here", part.key);
    }
    return result;
}

static int one_of(struct parser *p, const char *argument, const char *const *words)
{
    char list[256] = "";
    size_t used = 0;
    for (; *words; words++) {
        if (strcmp(argument, *words) == 0)
            return 0;
        used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", used ? ", " : "", *words);
    }
    return option_bad(p, "'%s' is not one of: %s", argument, list);
}

static int cpu(struct parser *p, const char *argument)
{
    return one_of(p, argument, (const char *const[]){ "rv64", NULL });
}

static int accel(struct parser *p, const char *argument)
{
    struct machine_config *config = &p->out->machine;
    struct part part = { 0 };
    int result = part_next(p, &argument, &part);
    if (result < 0)
        return result;
    if (part.has_value)
        return option_bad(p, "the engine comes first: jit, interp or tcg");
    result = one_of(p, part.key, (const char *const[]){ "jit", "interp", "tcg", NULL });
    config->interpret = result == 0 && strcmp(part.key, "interp") == 0;
    config->lockstep = false;
    while (result == 0 && (result = part_next(p, &argument, &part)) > 0) {
        if (strcmp(part.key, "lockstep") == 0 && !config->interpret)
            result = option_bool(p, &part, &config->lockstep);
        else if (strcmp(part.key, "thread") == 0 && !config->interpret) /* each hart has its own, always */
            result = one_of(p, part.value, (const char *const[]){ "multi", NULL });
        else
            result = option_bad(p, "no property '%s'", part.key);
    }
    return result;
}

static int memory(struct parser *p, const char *argument)
{
    struct part part;
    int result;
    bool seen = false;
    while ((result = part_next(p, &argument, &part)) > 0) {
        if (part.has_value ? strcmp(part.key, "size") != 0 : seen)
            return option_bad(p, "no property '%s' (there is size)", part.key);
        seen = true;
        result = ram_size(p, part.has_value ? part.value : part.key, &p->out->machine.ram_bytes);
        if (result < 0)
            return result;
    }
    return result == 0 && !seen ? option_bad(p, "a size is missing") : result;
}

static int smp(struct parser *p, const char *argument)
{
    uint64_t cpus = 0, sockets = 1, cores = 0, threads = 1, max = 0;
    struct part part;
    int result;
    while ((result = part_next(p, &argument, &part)) > 0) {
        uint64_t *into = !part.has_value || strcmp(part.key, "cpus") == 0 ? &cpus
                         : strcmp(part.key, "sockets") == 0               ? &sockets
                         : strcmp(part.key, "cores") == 0                 ? &cores
                         : strcmp(part.key, "threads") == 0               ? &threads
                         : strcmp(part.key, "maxcpus") == 0               ? &max
                                                                          : NULL;
        if (!into)
            return option_bad(p, "no property '%s'", part.key);
        result = option_number(p, part.has_value ? part.value : part.key, 1, HART_MAX, into);
        if (result < 0)
            return result;
    }
    if (result < 0)
        return result;
    if (sockets != 1 || threads != 1)
        return option_bad(p, "sockets and threads can only be 1");
    if (!cpus)
        cpus = cores ? cores : max;
    if (!cpus)
        return option_bad(p, "a number is missing");
    if ((cores && cores != cpus) || (max && max != cpus))
        return option_bad(p, "cores and maxcpus must be equal to cpus, which is %llu", (unsigned long long)cpus);
    p->out->machine.harts = (uint32_t)cpus;
    return 0;
}

static int name(struct parser *p, const char *argument)
{
    struct machine_config *config = &p->out->machine;
    struct part part;
    int result;
    while ((result = part_next(p, &argument, &part)) > 0) {
        if (!part.has_value || strcmp(part.key, "guest") == 0)
            result = option_text(p, config->name, sizeof(config->name), part.has_value ? part.value : part.key);
        else if (strcmp(part.key, "debug-threads") == 0)
            result = option_bool(p, &part, &config->debug_threads);
        else
            result = option_bad(p, "no property '%s'", part.key);
        if (result < 0)
            return result;
    }
    return result;
}

static int uuid(struct parser *p, const char *argument)
{
    struct machine_config *config = &p->out->machine;
    unsigned digits = 0;
    uint8_t bytes[16] = { 0 };
    for (const char *c = argument; *c; c++) {
        bool dash = c - argument == 8 || c - argument == 13 || c - argument == 18 || c - argument == 23;
        if (dash ? *c != '-' : !isxdigit((unsigned char)*c) || digits == 32)
            return option_bad(p, "'%s' is not a UUID", argument);
        if (dash)
            continue;
        unsigned value = isdigit((unsigned char)*c) ? *c - '0' : tolower((unsigned char)*c) - 'a' + 10;
        bytes[digits / 2] |= digits % 2 ? value : value << 4;
        digits++;
    }
    if (digits != 32)
        return option_bad(p, "'%s' is not a UUID", argument);
    memcpy(config->uuid, bytes, sizeof(bytes));
    config->uuid_set = true;
    return 0;
}

/* --- host ends ------------------------------------------------------------------------------------------- */

static int nographic(struct parser *p, const char *argument)
{
    (void)argument;
    p->nographic = true;
    return 0;
}

static int display(struct parser *p, const char *argument)
{
    p->display_none = true;
    return one_of(p, argument, (const char *const[]){ "none", NULL });
}

static int none_only(struct parser *p, const char *argument)
{
    return one_of(p, argument, (const char *const[]){ "none", NULL });
}

static int rtc_base(struct parser *p, const char *argument)
{
    return one_of(p, argument, (const char *const[]){ "base=utc", "base=utc,clock=host", NULL });
}

static int serial(struct parser *p, const char *argument)
{
    if (p->serial_given)
        return option_bad(p, "this machine has one serial line, and it was given already");
    p->serial_given = true;
    if (strncmp(argument, "mon:", 4) == 0)
        p->monitor_given = true;
    return option_text(p, p->out->serial, sizeof(p->out->serial), argument);
}

static int monitor(struct parser *p, const char *argument)
{
    return option_monitor_add(p, argument, false);
}

static int qmp(struct parser *p, const char *argument)
{
    return option_monitor_add(p, argument, true);
}

static int tunable(struct parser *p, const char *param, const char *argument)
{
    char text[OPTION_SPEC_MAX];
    if ((size_t)snprintf(text, sizeof(text), "migration.%s=%s", param, argument) >= sizeof(text))
        return option_bad(p, "'%.40s...' is too long", argument);
    return option_global(p, text);
}

static int gdb_usual(struct parser *p, const char *argument)
{
    (void)argument;
    return option_gdb(p, "tcp::1234");
}

static int downtime_limit(struct parser *p, const char *argument)
{
    return tunable(p, "downtime-limit", argument);
}

static int max_bandwidth(struct parser *p, const char *argument)
{
    return tunable(p, "max-bandwidth", argument);
}

static int migration_threads(struct parser *p, const char *argument)
{
    return tunable(p, "threads", argument);
}

static int sandbox(struct parser *p, const char *argument)
{
    if (strcmp(argument, "on") != 0 && strcmp(argument, "off") != 0)
        return option_bad(p, "'%s' is neither on nor off", argument);
    snprintf(p->out->sandbox, sizeof(p->out->sandbox), "%s", argument);
    return 0;
}

static int trace(struct parser *p, const char *argument)
{
    struct err err = { 0 };
    p->out->trace_help = p->out->trace_help || strcmp(argument, "help") == 0 || strcmp(argument, "?") == 0;
    if (p->out->trace_help || trace_parse(argument, &p->out->trace, &err) == 0)
        return 0;
    return option_bad(p, "%s", err.text);
}

static int fault(struct parser *p, const char *argument)
{
    struct err err = { 0 };
    p->out->fault_help = p->out->fault_help || strcmp(argument, "help") == 0 || strcmp(argument, "?") == 0;
    if (p->out->fault_help || failpoint_arm(argument, &err) == 0)
        return 0;
    return option_bad(p, "%s", err.text);
}

/* --- the table ------------------------------------------------------------------------------------------- */

struct option_row {
    const char *name;
    const char *argument; /* how help shows it; NULL: takes none */
    int (*parse)(struct parser *p, const char *argument);
    const char *help; /* NULL: another name, or accepted for scripts' sake only; not shown */
};

static int nothing(struct parser *p, const char *argument)
{
    (void)p, (void)argument;
    return 0;
}

static const struct option_row option_table[] = {
    { "M", "virt", machine_option, "the machine (also -machine)" },
    { "machine", "virt", machine_option, NULL },
    { "accel", "jit[,lockstep=on]|interp", accel,
      "generated code (the default; also tcg), compared; or interpreter alone" },
    { "cpu", "rv64", cpu, "the harts' model" },
    { "m", "SIZE[M|G]", memory, "guest RAM, in MiB unless it says otherwise (default 128M)" },
    { "smp", "N", smp, "number of harts (default 1)" },
    { "bios", "PATH|default|none", bios, "firmware (default: OpenSBI where the distribution has it)" },
    { "kernel", "PATH", kernel, "kernel: RISC-V Image or ELF" },
    { "initrd", "PATH", initrd, "initial RAM disk" },
    { "append", "TEXT", append, "the kernel's command line" },
    { "drive", "file=PATH[,KEY=VALUE]", option_drive,
      "a disk: format=raw,if=virtio|none,id=,cache=,discard=,readonly=" },
    { "blockdev", "driver=raw,node-name=ID,...", option_blockdev, "the same as -drive if=none, in other words" },
    { "device", "MODEL[,KEY=VALUE]", option_device,
      "virtio-blk-device,drive=ID | virtio-rng-device | virtio-serial-device | virtconsole,chardev=ID" },
    { "object", "KIND,id=ID[,...]", option_object,
      "rng-random | tls-creds-psk | tls-creds-x509 | authz-simple | authz-list" },
    { "global", "NAME=VALUE", option_global, "virtio-mmio.force-legacy=off, or migration.PARAMETER=VALUE" },
    { "mem-path", "PATH", mem_path, "guest RAM from a folder of huge pages" },
    { "nographic", NULL, nographic, "serial line and monitor on this terminal: Ctrl-a c switches, Ctrl-a x quits" },
    { "display", "none", display, "there is no display" },
    { "vga", "none", none_only, NULL },
    { "net", "none", none_only, NULL },
    { "nic", "none", none_only, NULL },
    { "parallel", "none", none_only, NULL },
    { "rtc", "base=utc", rtc_base, NULL },
    { "no-user-config", NULL, nothing, NULL },
    { "serial", "SPEC", serial, "stdio | file:PATH | unix:PATH | pty | null | none | mon:stdio | chardev:ID" },
    { "chardev", "KIND,id=ID[,...]", option_chardev, "socket | file | stdio | pty | null, for others to name" },
    { "monitor", "SPEC", monitor, "a monitor for people" },
    { "qmp", "SPEC", qmp, "a monitor for programs" },
    { "mon", "chardev=ID[,mode=control]", option_mon, "a monitor on a chardev" },
    { "nodefaults", NULL, nodefaults, "no serial line or monitor that was not asked for" },
    { "no-reboot", NULL, no_reboot, "end when the guest resets" },
    { "no-shutdown", NULL, no_shutdown, "stay, paused, when the guest powers off" },
    { "S", NULL, start_paused, "do not start the guest; 'cont' does" },
    { "gdb", "SPEC", option_gdb, "let a debugger come: tcp:HOST:PORT | unix:PATH | stdio | pty | chardev:ID" },
    { "s", NULL, gdb_usual, "the same as -gdb tcp::1234" },
    { "name", "NAME", name, "of the guest" },
    { "uuid", "UUID", uuid, "of the guest" },
    { "sandbox", "on|off", sandbox, "what reads an incoming guest can open no files (default: where this host can)" },
    { "pidfile", "PATH", pidfile, "write the process id there" },
    { "state-dir", "PATH", state_dir, "this guest's folder for notes of hand-overs (default: PIDFILE.state)" },
    { "daemonize", NULL, daemonize, "go on in the background once everything is set up" },
    { "incoming", "URI|defer", incoming,
      "wait for a guest: tcp:HOST:PORT[,insecure=on] unix:PATH exec:COMMAND fd:N file:PATH" },
    { "migrate", "URI", migrate, "send the guest there as soon as it runs, then exit" },
    { "migrate-on-signal", NULL, migrate_on_signal, "with -migrate: not before SIGUSR1" },
    { "downtime-limit", "MS", downtime_limit, "the pause a migration may cause" },
    { "max-bandwidth", "SIZE", max_bandwidth, "bytes a second a migration may send (0: no limit)" },
    { "migration-threads", "N", migration_threads, "workers of a migration" },
    { "d", "LIST|help", trace, "say what the engine does: in_asm, out_asm, int" },
    { "fault", "POINT[:N][:ACTION]|help", fault, "for tests: kill, stop, stall or error at a step of a migration" },
    { "D", "PATH", trace_path, "and say it to this file" },
    { "perfmap", NULL, perf_map, "name generated code for perf in /tmp/perf-PID.map" },
    { "jitdump", NULL, jit_dump, "and dump it for 'perf inject --jit' to jit-PID.dump" },
    { "help", NULL, help, "this text" },
    { "h", NULL, help, NULL },
    { "version", NULL, version, "the version" },
};
enum { OPTION_ROWS = sizeof(option_table) / sizeof(option_table[0]) };

void options_help(FILE *out)
{
    fprintf(out, "usage: godwit [options]        run a guest, or wait for one\n"
                 "       godwit migrate ...      drive a running one, see 'godwit migrate -help'\n\n");
    for (unsigned i = 0; i < OPTION_ROWS; i++) {
        const struct option_row *row = &option_table[i];
        char left[64];
        if (!row->help)
            continue;
        snprintf(left, sizeof(left), "-%s %s", row->name, row->argument ? row->argument : "");
        fprintf(out, "  %-34s %s\n", left, row->help);
    }
}

/* Who gets the terminal when nobody said; the rules of QEMU's -nographic, which is our only way of being. */
static int options_defaults(struct parser *p)
{
    struct options *out = p->out;
    bool terminal = !out->nodefaults && !out->daemonize && (p->nographic || !p->display_none);
    if (!p->serial_given)
        strcpy(out->serial, !terminal ? "null" : p->monitor_given ? "stdio" : "mon:stdio");
    else if (terminal && p->nographic && !p->monitor_given && strcmp(out->serial, "stdio") != 0)
        return option_monitor_add(p, "stdio", false);
    return 0;
}

/* What options mean together. */
static int options_check(struct parser *p)
{
    const struct machine_config *config = &p->out->machine;
    const struct options *out = p->out;
    p->option = "accel";
    if (config->lockstep && config->harts > 1)
        return option_bad(p, "lockstep=on compares what one hart does, and this machine has %u: use -smp 1",
                          config->harts);
    p->option = "initrd";
    if (config->initrd[0] && !config->kernel[0])
        return option_bad(p, "needs -kernel");
    p->option = "append";
    if (config->append[0] && !config->kernel[0])
        return option_bad(p, "needs -kernel");
    p->option = "migrate";
    if (out->migrate[0] && out->incoming[0])
        return option_bad(p, "a guest that has yet to come cannot be sent on; use the monitor for that");
    if (out->migrate[0] && out->start_paused && !out->migrate_on_signal)
        return option_bad(p, "does not go with -S: the guest would leave before it ran");
    p->option = "migrate-on-signal";
    if (out->migrate_on_signal && !out->migrate[0])
        return option_bad(p, "needs -migrate");
    p->option = "daemonize";
    if (out->daemonize && (strcmp(out->serial, "stdio") == 0 || strncmp(out->serial, "mon:", 4) == 0))
        return option_bad(p, "there is no terminal in the background for -serial %s", out->serial);
    if (out->daemonize && strcmp(out->gdb, "stdio") == 0)
        return option_bad(p, "there is no terminal in the background for -gdb stdio");
    return 0;
}

static const struct option_row *option_find(const char *argument)
{
    if (argument[0] != '-')
        return NULL;
    argument += argument[1] == '-' ? 2 : 1;
    for (unsigned i = 0; i < OPTION_ROWS; i++) {
        if (strcmp(option_table[i].name, argument) == 0)
            return &option_table[i];
    }
    return NULL;
}

int options_parse(int argc, char **argv, struct options *out, struct err *err)
{
    struct parser p = { .out = out, .err = err, .serial_device = -1 };
    memset(out, 0, sizeof(*out));
    out->machine.harts = 1;
    out->machine.ram_bytes = MACHINE_RAM_DEFAULT_BYTES;
    out->machine.serial = 1;
    strcpy(out->machine.bios, "default");

    for (int i = 1; i < argc; i++) {
        const struct option_row *row = option_find(argv[i]);
        if (!row)
            return err_set(err, -EINVAL, "%s: there is no such option, see -help", argv[i]);
        p.option = row->name;
        const char *argument = NULL;
        if (row->argument) {
            if (i + 1 == argc)
                return option_bad(&p, "needs %s after it", row->argument);
            argument = argv[++i];
        }
        int result = row->parse(&p, argument);
        if (result < 0)
            return result;
    }
    int result = option_drives_done(&p);
    if (result == 0)
        result = option_devices_done(&p);
    if (result == 0)
        result = options_defaults(&p);
    out->machine.incoming = out->incoming[0] != 0;
    return result < 0 ? result : options_check(&p);
}
