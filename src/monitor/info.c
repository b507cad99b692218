/* Questions about the machine. Asking changes nothing. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "memory/ram.h"
#include "monitor/monitor_priv.h"

static struct machine *machine_of(struct call *call)
{
    return call->monitor->context.machine;
}

int cmd_query_status(struct call *call)
{
    enum run_state state = machine_state(machine_of(call));
    call->result = json_object_new_object();
    json_put_str(call->result, "status", run_state_name(state));
    json_put_bool(call->result, "singlestep", false);
    json_put_bool(call->result, "running", state == RUN_RUNNING);
    return 0;
}

void print_status(struct call *call)
{
    const char *status = json_get_str(call->result, "status");
    bool running = json_get_bool(call->result, "running");
    bool plain = !strcmp(status, "running") || !strcmp(status, "paused");
    fprintf(call->out, plain ? "VM status: %s\n" : "VM status: %s (%s)\n", running ? "running" : "paused", status);
}

int cmd_query_version(struct call *call)
{
    call->result = monitor_version(call->monitor);
    return 0;
}

void print_version(struct call *call)
{
    struct json_object *qemu = json_get(call->result, "qemu");
    fprintf(call->out, "%d.%d.%d %s\n", (int)json_get_int(qemu, "major"), (int)json_get_int(qemu, "minor"),
            (int)json_get_int(qemu, "micro"), json_get_str(call->result, "package"));
}

int cmd_query_name(struct call *call)
{
    const char *name = machine_config_of(machine_of(call))->name;
    call->result = json_object_new_object();
    if (name[0])
        json_put_str(call->result, "name", name);
    return 0;
}

void print_name(struct call *call)
{
    const char *name = json_get_str(call->result, "name");
    if (name)
        fprintf(call->out, "%s\n", name);
}

int cmd_query_uuid(struct call *call)
{
    const uint8_t *u = machine_config_of(machine_of(call))->uuid;
    char text[37], *at = text;
    for (int i = 0; i < 16; i++)
        at += snprintf(at, 4, i == 3 || i == 5 || i == 7 || i == 9 ? "%02x-" : "%02x", u[i]);
    call->result = json_object_new_object();
    json_put_str(call->result, "UUID", text);
    return 0;
}

void print_uuid(struct call *call)
{
    fprintf(call->out, "%s\n", json_get_str(call->result, "UUID"));
}

int cmd_query_cpus(struct call *call)
{
    call->result = json_object_new_array();
    for (unsigned i = 0; i < machine_harts(machine_of(call)); i++) {
        struct vcpu_stats stats;
        struct json_object *cpu = json_object_new_object(), *props = json_object_new_object();
        char path[48];
        vcpu_stats(machine_vcpu(machine_of(call), i), &stats);
        snprintf(path, sizeof path, "/machine/soc0/harts[%u]", i);
        json_put_int(cpu, "thread-id", stats.tid);
        json_put_int(props, "core-id", i);
        json_put(cpu, "props", props);
        json_put_str(cpu, "qom-path", path);
        json_put_int(cpu, "cpu-index", i);
        json_put_str(cpu, "target", "riscv64");
        json_object_array_add(call->result, cpu);
    }
    return 0;
}

void print_cpus(struct call *call)
{
    for (size_t i = 0; i < json_object_array_length(call->result); i++) {
        struct json_object *cpu = json_object_array_get_idx(call->result, i);
        fprintf(call->out, "%c CPU #%d: thread_id=%d\n", i ? ' ' : '*', (int)json_get_int(cpu, "cpu-index"),
                (int)json_get_int(cpu, "thread-id"));
    }
}

int cmd_query_target(struct call *call)
{
    call->result = json_object_new_object();
    json_put_str(call->result, "arch", "riscv64");
    return 0;
}

int cmd_query_events(struct call *call)
{
    static const char *const names[] = { "STOP",      "RESUME",    "RESET",         "SHUTDOWN",
                                         "POWERDOWN", "MIGRATION", "MIGRATION_PASS" };
    call->result = json_object_new_array();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct json_object *entry = json_object_new_object();
        json_put_str(entry, "name", names[i]);
        json_object_array_add(call->result, entry);
    }
    return 0;
}

static void list_chardev(void *list, struct chardev *chardev)
{
    struct json_object *entry = json_object_new_object();
    json_put_bool(entry, "frontend-open", chardev_is_open(chardev));
    json_put_str(entry, "filename", chardev_describe(chardev));
    json_put_str(entry, "label", chardev_id(chardev));
    json_object_array_add(list, entry);
}

int cmd_query_chardev(struct call *call)
{
    call->result = json_object_new_array();
    chardev_walk(list_chardev, call->result);
    return 0;
}

void print_chardev(struct call *call)
{
    for (size_t i = 0; i < json_object_array_length(call->result); i++) {
        struct json_object *entry = json_object_array_get_idx(call->result, i);
        fprintf(call->out, "%s: filename=%s\n", json_get_str(entry, "label"), json_get_str(entry, "filename"));
    }
}

int cmd_query_kvm(struct call *call)
{
    call->result = json_object_new_object();
    json_put_bool(call->result, "enabled", false);
    json_put_bool(call->result, "present", false);
    return 0;
}

void print_kvm(struct call *call)
{
    fprintf(call->out, "kvm support: not compiled\n");
}

int cmd_query_machines(struct call *call)
{
    struct json_object *virt = json_object_new_object();
    json_put_bool(virt, "hotpluggable-cpus", false);
    json_put_str(virt, "name", "virt");
    json_put_bool(virt, "numa-mem-supported", false);
    json_put_str(virt, "default-cpu-type", "rv64-riscv-cpu");
    json_put_bool(virt, "is-default", true);
    json_put_int(virt, "cpu-max", HART_MAX);
    json_put_bool(virt, "deprecated", false);
    json_put_str(virt, "default-ram-id", "riscv_virt_board.ram");
    call->result = json_object_new_array();
    json_object_array_add(call->result, virt);
    return 0;
}

/* --- for people only ------------------------------------------------------------------------------------ */

static void print_harts(struct call *call, unsigned first, unsigned count)
{
    for (unsigned i = first; i < first + count; i++) {
        fprintf(call->out, "\nCPU#%u\n", i);
        hart_print(vcpu_hart(machine_vcpu(machine_of(call), i)), call->out);
    }
}

/* Registers can be read while the hart is paused. We may pause a running guest for a moment only when no migration
 * does so too: it would find the guest running again in the middle of its hand-over. */
int cmd_info_registers(struct call *call)
{
    struct machine *machine = machine_of(call);
    struct migration_info info;
    int64_t index = json_get_int(call->args, "vcpu");
    unsigned harts = machine_harts(machine);
    bool all = json_get_bool(call->args, "all"), running = machine_state(machine) == RUN_RUNNING;
    if (index < 0 || index >= harts)
        return err_set(&call->err, -EINVAL, "There is no hart %" PRId64 ": this machine has %u", index, harts);
    migration_query(call->monitor->context.migration, &info);
    bool migrating = info.state == MIGRATION_SETUP || info.state == MIGRATION_ACTIVE ||
                     info.state == MIGRATION_DEVICE || info.state == MIGRATION_CANCELLING;
    if (running && migrating)
        return err_set(&call->err, -EBUSY, "The guest runs and is being migrated: its registers cannot be read now");
    if (running) {
        atomic_store_explicit(&call->monitor->muted, true, memory_order_relaxed);
        machine_pause(machine, RUN_PAUSED);
    }
    print_harts(call, all ? 0 : (unsigned)index, all ? harts : 1);
    int rc = 0;
    if (running) {
        rc = machine_resume(machine, false, &call->err);
        atomic_store_explicit(&call->monitor->muted, false, memory_order_relaxed);
    }
    return rc;
}

/* jemalloc, when it is linked in. */
extern int mallctl(const char *name, void *old, size_t *old_bytes, void *value, size_t bytes) __attribute__((weak));

static size_t heap_figure(const char *name)
{
    size_t value = 0, bytes = sizeof value;
    return mallctl(name, &value, &bytes, NULL, 0) == 0 ? value : 0;
}

static void print_heap(FILE *out)
{
    if (!mallctl) {
        fprintf(out, "heap: the C library's (built without jemalloc), no figures\n");
        return;
    }
    uint64_t epoch = 1;
    size_t bytes = sizeof epoch;
    mallctl("epoch", &epoch, &bytes, &epoch, sizeof epoch); /* figures are a snapshot that this renews */
    static const char *const names[] = { "allocated", "active", "metadata", "resident", "mapped", "retained" };
    fprintf(out, "heap (jemalloc):\n");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[32];
        snprintf(path, sizeof path, "stats.%s", names[i]);
        fprintf(out, "  %-10s %10zu KiB\n", names[i], heap_figure(path) >> 10);
    }
}

static void print_process(FILE *out)
{
    char line[128];
    FILE *status = fopen("/proc/self/status", "re");
    if (!status)
        return;
    fprintf(out, "process:\n");
    while (fgets(line, sizeof line, status))
        if (!strncmp(line, "VmRSS:", 6) || !strncmp(line, "VmHWM:", 6) || !strncmp(line, "VmSize:", 7))
            fprintf(out, "  %s", line);
    fclose(status);
}

int cmd_info_memory(struct call *call)
{
    const struct ram *ram = machine_ram(machine_of(call));
    struct migration_info info;
    fprintf(call->out, "guest:\n");
    for (unsigned i = 0; i < ram->blocks; i++)
        fprintf(call->out, "  %016" PRIx64 " %10" PRIu64 " KiB %s %s\n", ram->block[i].gpa, ram->block[i].bytes >> 10,
                ram->block[i].rom ? "rom" : "ram", ram->block[i].name);
    migration_query(call->monitor->context.migration, &info);
    fprintf(call->out, "migration pipeline: %" PRIu64 " KiB\n", info.pipeline_bytes >> 10);
    print_heap(call->out);
    print_process(call->out);
    return 0;
}

int cmd_info_qtree(struct call *call)
{
    struct device *devices[MACHINE_DEVICES_MAX];
    unsigned count = machine_devices(machine_of(call), devices, MACHINE_DEVICES_MAX);
    fprintf(call->out, "bus: main-system-bus\n");
    for (unsigned i = 0; i < count; i++) {
        const struct device *dev = devices[i];
        fprintf(call->out, "  dev: %s, id \"%s\"\n    mmio %016" PRIx64 "/%016" PRIx64 "\n", dev->ops->name, dev->id,
                dev->gpa, dev->bytes);
        if (dev->irq)
            fprintf(call->out, "    irq %u\n", dev->irq);
    }
    return 0;
}

int cmd_info_mtree(struct call *call)
{
    const struct ram *ram = machine_ram(machine_of(call));
    struct device *devices[MACHINE_DEVICES_MAX];
    unsigned count = machine_devices(machine_of(call), devices, MACHINE_DEVICES_MAX);
    struct {
        uint64_t gpa, bytes;
        const char *kind, *name;
    } row[RAM_BLOCKS_MAX + MACHINE_DEVICES_MAX], swap;
    unsigned rows = 0;
    for (unsigned i = 0; i < ram->blocks; i++, rows++) {
        row[rows].gpa = ram->block[i].gpa;
        row[rows].bytes = ram->block[i].bytes;
        row[rows].kind = ram->block[i].rom ? "rom" : "ram";
        row[rows].name = ram->block[i].name;
    }
    for (unsigned i = 0; i < count; i++) {
        if (devices[i]->bytes == 0)
            continue;
        row[rows].gpa = devices[i]->gpa;
        row[rows].bytes = devices[i]->bytes;
        row[rows].kind = "i/o";
        row[rows++].name = devices[i]->ops->name;
    }
    for (unsigned i = 0; i < rows; i++) /* a handful: by insertion */
        for (unsigned k = i; k > 0 && row[k].gpa < row[k - 1].gpa; k--) {
            swap = row[k];
            row[k] = row[k - 1];
            row[k - 1] = swap;
        }
    fprintf(call->out, "address-space: memory\n");
    for (unsigned i = 0; i < rows; i++)
        fprintf(call->out, "  %016" PRIx64 "-%016" PRIx64 " (%s): %s\n", row[i].gpa, row[i].gpa + row[i].bytes - 1,
                row[i].kind, row[i].name);
    return 0;
}
