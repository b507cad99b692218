/* What the engine of generated code has to say of itself. Figures are a moment old, and asking stops nobody. */
#include <inttypes.h>
#include <stdlib.h>

#include "monitor/monitor_priv.h"

static struct json_object *code_figures(struct jit *jit)
{
    struct json_object *code = json_object_new_object();
    struct jit_stats stats;
    jit_stats(jit, &stats);
    json_put_u64(code, "blocks", stats.blocks);
    json_put_u64(code, "guest-bytes", stats.guest_bytes);
    json_put_u64(code, "host-bytes", stats.host_bytes);
    json_put_u64(code, "capacity-bytes", stats.capacity_bytes);
    json_put_u64(code, "flushes", stats.flushes);
    json_put_u64(code, "killed", stats.killed);
    json_put_u64(code, "fences", stats.fences);
    json_put_u64(code, "pages-compared", stats.compared);
    json_put_u64(code, "links", stats.links);
    json_put_u64(code, "crossing-links", stats.crossing);
    json_put_u64(code, "translate-ns", stats.translate_ns);
    json_put_u64(code, "lockstep-runs", stats.lockstep_runs);
    json_put_u64(code, "lockstep-instructions", stats.lockstep_instructions);
    json_put_u64(code, "lockstep-repeats", stats.lockstep_repeats);
    return code;
}

static struct json_object *cpu_figures(struct vcpu *vcpu, unsigned index)
{
    struct json_object *cpu = json_object_new_object();
    struct vcpu_stats stats;
    vcpu_stats(vcpu, &stats);
    json_put_int(cpu, "cpu-index", index);
    json_put_u64(cpu, "instructions", stats.instructions);
    json_put_u64(cpu, "code-lookups", stats.code_lookups);
    json_put_u64(cpu, "jump-hits", stats.code_jump_hits);
    json_put_u64(cpu, "code-runs", stats.code_runs);
    json_put_u64(cpu, "interpreter-runs", stats.block_runs);
    json_put_u64(cpu, "promotions", stats.promotions);
    json_put_u64(cpu, "tlb-refills", stats.tlb_refills);
    json_put_u64(cpu, "slow-stores", stats.slow_stores);
    return cpu;
}

static uint64_t get(struct json_object *from, const char *name)
{
    return (uint64_t)json_get_int(from, name);
}

static void print_code(struct json_object *code, FILE *out)
{
    uint64_t blocks = get(code, "blocks"), guest = get(code, "guest-bytes"), host = get(code, "host-bytes");
    fprintf(out, "generated code: %" PRIu64 " KiB of %" PRIu64 " KiB, %" PRIu64 " flushes\n", host >> 10,
            get(code, "capacity-bytes") >> 10, get(code, "flushes"));
    fprintf(out, "  blocks:      %" PRIu64 ", of %" PRIu64 " guest bytes, %.1f host bytes for each of them\n", blocks,
            guest, guest ? (double)host / (double)guest : 0);
    fprintf(out, "  links:       %" PRIu64 ", %" PRIu64 " of them to other pages\n", get(code, "links"),
            get(code, "crossing-links"));
    fprintf(out, "  changed:     %" PRIu64 " blocks; %" PRIu64 " fence.i, %" PRIu64 " pages compared\n",
            get(code, "killed"), get(code, "fences"), get(code, "pages-compared"));
    fprintf(out, "  translating: %.1f ms\n", (double)get(code, "translate-ns") / 1e6);
    if (get(code, "lockstep-runs"))
        fprintf(out,
                "  lock-step:   %" PRIu64 " runs of %" PRIu64 " instructions compared, %" PRIu64 " of them again\n",
                get(code, "lockstep-runs"), get(code, "lockstep-instructions"), get(code, "lockstep-repeats"));
}

static void print_cpu(struct json_object *cpu, FILE *out)
{
    uint64_t lookups = get(cpu, "code-lookups"), hits = get(cpu, "jump-hits");
    fprintf(out, "CPU#%" PRIu64 ": %" PRIu64 " instructions\n", get(cpu, "cpu-index"), get(cpu, "instructions"));
    fprintf(out, "  lookups:     %" PRIu64 ", %.1f%% known by address\n", lookups,
            lookups ? 100 * (double)hits / (double)lookups : 0);
    fprintf(out, "  runs:        %" PRIu64 " of generated code, %" PRIu64 " of the interpreter\n",
            get(cpu, "code-runs"), get(cpu, "interpreter-runs"));
    fprintf(out, "  promotions:  %" PRIu64 "\n", get(cpu, "promotions"));
    fprintf(out, "  TLB refills: %" PRIu64 ", slow stores %" PRIu64 "\n", get(cpu, "tlb-refills"),
            get(cpu, "slow-stores"));
}

static void print_figures(struct json_object *result, FILE *out)
{
    struct json_object *code = json_get(result, "code"), *cpus = json_get(result, "cpus");
    if (code)
        print_code(code, out);
    else
        fprintf(out, "generated code: none, this machine only interprets\n");
    for (size_t i = 0; i < json_object_array_length(cpus); i++)
        print_cpu(json_object_array_get_idx(cpus, i), out);
}

/* QEMU's programs know this command as a text for people, and get one. */
static void put_text(struct json_object *result)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return;
    print_figures(result, out);
    if (fclose(out) == 0)
        json_put_str(result, "human-readable-text", text);
    free(text);
}

int cmd_query_jit(struct call *call)
{
    struct machine *machine = call->monitor->context.machine;
    struct jit *jit = machine_jit(machine);
    struct json_object *cpus = json_object_new_array();
    call->result = json_object_new_object();
    json_put_bool(call->result, "enabled", jit != NULL);
    if (jit)
        json_put(call->result, "code", code_figures(jit));
    for (unsigned i = 0; i < machine_harts(machine); i++)
        json_object_array_add(cpus, cpu_figures(machine_vcpu(machine, i), i));
    json_put(call->result, "cpus", cpus);
    put_text(call->result);
    return 0;
}

void print_jit(struct call *call)
{
    print_figures(call->result, call->out);
}
