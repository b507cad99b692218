/* A difference between the engines, for people. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vcpu/disasm.h"
#include "vcpu/jit/lockstep_priv.h"

static uint32_t raw_at(const struct translation *t, unsigned at)
{
    uint32_t raw = t->source[at / 2];

    if (insn_is_long((uint16_t)raw) && at + 4 <= t->bytes)
        raw |= (uint32_t)t->source[at / 2 + 1] << 16;
    return raw;
}

static void print_code(const struct translation *t, uint64_t pc, FILE *out)
{
    for (unsigned at = 0; at < t->bytes;) {
        char text[DISASM_BYTES_MAX];
        uint32_t raw = raw_at(t, at);
        unsigned length = disasm(raw, pc + at, text, sizeof(text));

        fprintf(out, "  0x%016" PRIx64 ":  %0*" PRIx32 "%*s %s\n", pc + at, (int)(2 * length),
                length == 2 ? raw & 0xffff : raw, (int)(9 - 2 * length), "", text);
        at += length;
    }
}

static void print_word(FILE *out, const char *name, uint64_t before, uint64_t generated, uint64_t interpreted)
{
    fprintf(out, "%c %-12s %016" PRIx64 "  %016" PRIx64 "  %016" PRIx64 "\n", generated == interpreted ? ' ' : '*',
            name, before, generated, interpreted);
}

static void print_harts(const struct hart *before, const struct hart *generated, const struct hart *interpreted,
                        FILE *out)
{
    fprintf(out, "  %-12s %-16s  %-16s  %-16s\n", "register", "before", "generated", "interpreted");
#define WORD(name, member) print_word(out, name, before->member, generated->member, interpreted->member)
    WORD("pc", pc);
    for (unsigned i = 1; i < 32; i++)
        WORD(disasm_x(i), x[i]);
    for (unsigned i = 0; i < 32; i++)
        WORD(disasm_f(i), f[i]);
    WORD("fflags", fflags), WORD("frm", frm), WORD("priv", priv), WORD("mstatus", mstatus), WORD("satp", satp);
    WORD("sscratch", sscratch), WORD("sepc", sepc), WORD("scause", scause), WORD("stval", stval);
    WORD("mscratch", mscratch), WORD("mepc", mepc), WORD("mcause", mcause), WORD("mtval", mtval);
#undef WORD
}

static void print_stores(const char *who, const struct lockstep_run *run, const struct lockstep_run *other, FILE *out)
{
    fprintf(out, "stores, %s: %u\n", who, run->stores);
    for (unsigned i = 0; i < run->stores; i++) {
        const struct lockstep_store *store = &run->store[i], *twin = &other->store[i];
        bool same = i < other->stores && store->host == twin->host && store->bytes == twin->bytes &&
                    store->value == twin->value;

        fprintf(out, "%c 0x%016" PRIx64 ": %0*" PRIx64 "\n", same ? ' ' : '*', store->va, (int)(2 * store->bytes),
                store->value);
    }
}

void lockstep_report(const struct vcpu *v, const struct translation *t, const struct lockstep_run *before,
                     const struct lockstep_run *generated, const struct lockstep_run *interpreted, FILE *out)
{
    uint64_t pc = before->hart.pc;

    fprintf(out,
            "godwit: lock-step: generated code and the interpreter differ (hart %u, after %" PRIu64 " instructions)\n",
            v->index, before->icount);
    fprintf(out, "guest code at 0x%016" PRIx64 ", physical 0x%" PRIx64 "; host code %p to %p\n", pc, t->gpa,
            t->near_entry, t->end);
    print_code(t, pc, out);
    fprintf(out, "ran %" PRIu64 " instructions generated, %" PRIu64 " interpreted\n",
            generated->icount - before->icount, interpreted->icount - before->icount);
    print_harts(&before->hart, &generated->hart, &interpreted->hart, out);
    print_stores("generated", generated, interpreted, out);
    print_stores("interpreted", interpreted, generated, out);
    fflush(out);
}
