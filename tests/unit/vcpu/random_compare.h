/* Two engines on one random program: what differs, which program it was, and the least of it that still differs. */
#pragma once
#include <stdlib.h>

#include "tests/unit/vcpu/random_run.h"

struct compare {
    enum rig_engine engine[2];
    bool disturb; /* the second one is kicked all the time */
    int spoiled;  /* this unit is another one in the second run; -1: none */
    int patience_s;
    char why[1024];
};

static inline void say(struct compare *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static inline void say(struct compare *c, const char *format, ...)
{
    size_t used = strlen(c->why);
    va_list args;

    va_start(args, format);
    vsnprintf(c->why + used, sizeof(c->why) - used, format, args);
    va_end(args);
}

/* --- what differs ---------------------------------------------------------------------------------------------- */

static inline void compare_word(struct compare *c, const char *name, uint64_t a, uint64_t b)
{
    if (a != b)
        say(c, "  %s: %" PRIx64 " and %" PRIx64 "\n", name, a, b);
}

static inline void compare_harts(struct compare *c, const struct hart *a, const struct hart *b)
{
    char name[8];

    for (unsigned i = 0; i < 32; i++) {
        snprintf(name, sizeof(name), "x%u", i);
        compare_word(c, name, a->x[i], b->x[i]);
        snprintf(name, sizeof(name), "f%u", i);
        compare_word(c, name, a->f[i], b->f[i]);
        compare_word(c, "mhpmcounter", a->mhpmcounter[i], b->mhpmcounter[i]);
    }
#define SAME(member) compare_word(c, #member, a->member, b->member)
    SAME(priv), SAME(fflags), SAME(frm), SAME(mstatus), SAME(mepc), SAME(mcause), SAME(mtval), SAME(mscratch);
    SAME(sepc), SAME(scause), SAME(stval), SAME(sscratch), SAME(satp), SAME(mtvec), SAME(stvec), SAME(mip_soft);
    SAME(medeleg), SAME(mideleg), SAME(mie), SAME(menvcfg), SAME(senvcfg), SAME(stimecmp);
    SAME(mcounteren), SAME(scounteren), SAME(mcountinhibit);
#undef SAME
}

static inline const char *region_of(uint64_t offset)
{
    return offset >= LOG                            ? "trap log (cause, pc, value, instret, status, number)"
           : offset >= DATA                         ? "data"
           : offset >= TABLES                       ? "page tables"
           : offset >= CODE                         ? "code"
           : offset >= AREA && offset < AREA + 4096 ? "the handler's area (4: instret at the end, 5: traps)"
                                                    : "elsewhere";
}

static inline void compare_memory(struct compare *c, struct rig *a, struct rig *b)
{
    const uint64_t *one = (const void *)ram_ptr(a->ram, RIG_RAM, RIG_RAM_BYTES);
    const uint64_t *two = (const void *)ram_ptr(b->ram, RIG_RAM, RIG_RAM_BYTES);
    const char *last = NULL;
    unsigned said = 0;

    if (!memcmp(one, two, RIG_RAM_BYTES))
        return;
    for (uint64_t i = 0; i < RIG_RAM_BYTES / 8 && said < 12; i++) {
        if (one[i] == two[i])
            continue;
        if (last != region_of(i * 8))
            say(c, "  in %s\n", last = region_of(i * 8));
        say(c, "    %06" PRIx64 ": %016" PRIx64 " and %016" PRIx64 "\n", i * 8, one[i], two[i]);
        said++;
    }
}

/* Runs the world on both engines; true: they differ, and `why` says how. */
static inline bool worlds_differ(struct compare *c, const struct random_world *w)
{
    static struct rig rig[2];
    bool ended[2];

    c->why[0] = 0;
    for (unsigned i = 0; i < 2; i++) {
        rig_new_engine(&rig[i], 1, c->engine[i]);
        ended[i] = run_world(&rig[i], w, i ? c->spoiled : -1, i && c->disturb, c->patience_s);
    }
    if (!ended[0] || !ended[1]) {
        say(c, "  did not end within %d s: %s%s, at pc %" PRIx64 " and %" PRIx64 "\n", c->patience_s,
            ended[0] ? "" : "the first ", ended[1] ? "" : "the second", rig_hart(&rig[0])->pc, rig_hart(&rig[1])->pc);
    } else {
        compare_harts(c, rig_hart(&rig[0]), rig_hart(&rig[1]));
        compare_word(c, "device reads", rig[0].odd_reads, rig[1].odd_reads);
        compare_word(c, "device writes", rig[0].odd_writes, rig[1].odd_writes);
        compare_memory(c, &rig[0], &rig[1]);
    }
    for (unsigned i = 0; i < 2; i++)
        rig_free(&rig[i]);
    return c->why[0];
}

/* --- which program ----------------------------------------------------------------------------------------------- */

static inline void print_unit(FILE *out, const struct random_code *p, const struct unit *unit)
{
    for (unsigned at = unit->at, end = at + unit->bytes; at < end;) {
        uint32_t raw;
        memcpy(&raw, p->code + at, 4);
        struct insn insn = decode(raw);
        const char *name = insn.op < OP_ENCODED ? decode_ops[insn.op].mnemonic : "illegal";

        fprintf(out, "%c %05x  %0*x%*s %-10s rd %-2u rs1 %-2u rs2 %-2u rm %u imm %" PRId64 "\n",
                at == unit->at ? '*' : ' ', CODE + at, insn.length * 2, insn.raw, 8 - insn.length * 2, "", name,
                insn.rd, insn.rs1, insn.rs2, insn.rm, insn.imm);
        at += insn.length;
    }
}

static inline void print_world(FILE *out, const struct random_world *w)
{
    fprintf(out, "seed %" PRIu64 ", %u turns, %s, begins at %05x, loops (x25..x27) and returns stay\n", w->seed,
            w->turns, w->paged ? "Sv39" : "no paging", CODE + w->code.start);
    for (unsigned i = 0; i < w->code.units; i++)
        if (!w->removed[i])
            print_unit(out, &w->code, &w->code.unit[i]);
}

/* --- the least of it ----------------------------------------------------------------------------------------------- */

static inline unsigned units_left(const struct random_world *w)
{
    unsigned left = 0;

    for (unsigned i = 0; i < w->code.units; i++)
        left += !w->removed[i] && w->code.unit[i].kind != UNIT_FIXED;
    return left;
}

/* Without the units first .. first+count-1 too, if it differs all the same. */
static inline bool try_without(struct compare *c, struct random_world *w, unsigned first, unsigned count)
{
    bool was[UNITS_MAX];
    unsigned changed = 0;

    memcpy(was, w->removed, sizeof(was));
    for (unsigned i = first; i < first + count && i < w->code.units; i++)
        if (w->code.unit[i].kind != UNIT_FIXED && !w->removed[i]) {
            w->removed[i] = true;
            changed++;
        }
    if (changed && worlds_differ(c, w))
        return true;
    memcpy(w->removed, was, sizeof(was));
    return false;
}

/* Halves, quarters, ... single units; twice over the single ones, since one may have held another in place. */
static inline void shrink(struct compare *c, struct random_world *w)
{
    int patience_s = c->patience_s;

    c->patience_s = 3;
    for (unsigned size = w->code.units / 2; size >= 1; size /= 2)
        for (unsigned first = 0; first < w->code.units; first += size)
            try_without(c, w, first, size);
    for (unsigned i = 0; i < w->code.units; i++)
        try_without(c, w, i, 1);
    for (unsigned turns = 1; turns < w->turns; turns *= 2) {
        struct random_world *shorter = test_malloc(sizeof(*shorter));

        *shorter = *w;
        shorter->turns = turns;
        shorter->x[COUNTER_OUTER] = turns;
        bool enough = worlds_differ(c, shorter);
        if (enough)
            *w = *shorter;
        test_free(shorter);
        if (enough)
            break;
    }
    c->patience_s = patience_s;
    worlds_differ(c, w); /* say why, of what is left */
}

/* False: they differ, and stderr has the story. */
static inline bool world_is_the_same(struct compare *c, struct random_world *w)
{
    if (!worlds_differ(c, w))
        return true;
    fprintf(stderr, "seed %" PRIu64 " differs:\n%sthe least that does:\n", w->seed, c->why);
    shrink(c, w);
    print_world(stderr, w);
    fprintf(stderr, "%s", c->why);
    return false;
}
