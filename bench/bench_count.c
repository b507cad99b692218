/* Fixed work for counting instructions (bench/compare.sh --instructions): the same every time, whatever the host does meanwhile.
 *
 *   bench_count                 prints the kernels' names
 *   bench_count KERNEL ROUNDS   does so many rounds of it
 *
 * What two runs differ by that differ in their rounds alone is the rounds' own: start and end cancel out. Work that came out wrong
 * ends with exit code 1. Nothing here is timed. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "migration/threads/compress.h"
#include "migration/threads/load.h"
#include "migration/threads/scan.h"
#include "vcpu/jit/jit.h"
#include "vcpu/vcpu.h"

enum { UNIT = 4096, CHUNK = CHUNK_UNITS * UNIT, WORDS = 4, BYTES = WORDS * CHUNK, ROUNDS_MAX = 256 };

static void require(bool what, const char *why)
{
    if (!what) {
        fprintf(stderr, "bench_count: %s\n", why);
        exit(1);
    }
}

/* Same numbers everywhere: xorshift64. */
static uint64_t random_next(void)
{
    static uint64_t state = 0x9e3779b97f4a7c15;

    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

/* --- the street: 1 MiB that is text, counters, noise and zeros by turns ---------------------------------------------- */

static _Alignas(UNIT) uint8_t memory[BYTES], copy[BYTES], raw[CHUNK];
static struct source source;
static const struct digest_key key = { { "a secret" } };
static struct digest there, here;
static struct chunk chunks[WORDS];
static _Alignas(CHUNK_ALIGN) uint8_t wires[WORDS][CHUNK_BYTES];
static struct compressor compressor;
static struct load_scratch scratch;

static int mem_copy(struct source *s, uint64_t unit, void *out)
{
    (void)s;
    memcpy(out, memory + unit * UNIT, UNIT);
    return 0;
}

static int mem_store(struct source *s, uint64_t unit, const void *data)
{
    (void)s;
    memcpy(copy + unit * UNIT, data, UNIT);
    return 0;
}

static int mem_zero(struct source *s, uint64_t unit)
{
    (void)s;
    memset(copy + unit * UNIT, 0, UNIT);
    return 0;
}

static const void *mem_peek(struct source *s, uint64_t unit, void *room)
{
    (void)s, (void)room;
    return copy + unit * UNIT;
}

static uint64_t mem_exists(struct source *s, uint64_t word)
{
    (void)s, (void)word;
    return UINT64_MAX;
}

static const struct source_ops MEM_OPS = {
    .copy = mem_copy,
    .store = mem_store,
    .zero = mem_zero,
    .peek = mem_peek,
    .exists = mem_exists,
};

static void fill_page(uint8_t *page, unsigned kind)
{
    static const char words[8][9] = { "page of ", "a guest ", "memory, ", "was the ",
                                      "dirty, a", "round of", "links to", " migrate" };

    for (size_t at = 0; kind < 3 && at < UNIT; at += 8) {
        uint64_t dice = random_next();
        const void *from = kind == 0 ? (const void *)words[dice % 8] : kind == 1 ? (const void *)&at : &dice;
        memcpy(page + at, from, 8);
    }
}

static void street_begin(void)
{
    source = (struct source){
        .ops = &MEM_OPS, .id = 1, .name = "memory", .units = BYTES / UNIT, .words = WORDS, .unit_bytes = UNIT
    };
    for (unsigned page = 0; page < BYTES / UNIT; page++)
        fill_page(memory + (size_t)page * UNIT, page % 4);
    scratch.unit = aligned_alloc(UNIT, UNIT);
    require(scratch.unit && unpacker_init(&scratch.unpacker, NULL) == 0 && compressor_init(&compressor, NULL) == 0 &&
                digest_new(&there, source.units, &key, NULL) == 0 && digest_new(&here, source.units, &key, NULL) == 0,
            "no memory");
    for (unsigned i = 0; i < WORDS; i++) {
        chunks[i].wire = wires[i] + CHUNK_LEAD_BYTES;
        chunks[i].source = &source;
    }
}

static void scan_round(uint64_t word)
{
    struct scanned scanned;

    require(scan_step(&source, &there, word, UINT64_MAX, raw, &scanned, NULL) == 0, "scan");
    digest_apply(&there, &scanned.change);
    chunks[word].frame = (struct frame){ .kind = FRAME_CHUNK,
                                         .codec = CODEC_LZ4,
                                         .round = 1,
                                         .first_unit = word * CHUNK_UNITS,
                                         .data = scanned.data,
                                         .zero = scanned.zero };
}

static void pack_round(uint64_t word)
{
    struct chunk *chunk = &chunks[word];
    unsigned units = (unsigned)__builtin_popcountll(chunk->frame.data);

    chunk->frame.payload_bytes =
        (uint32_t)compress_chunk(&compressor, CODEC_LZ4, 1, raw, units, UNIT, chunk_payload(chunk));
    chunk->wire_bytes = frame_seal(chunk->wire, source.id, &chunk->frame);
}

static void load_round(uint64_t word)
{
    struct frame frame;

    require(frame_get(chunk_head(&chunks[word]), &frame, NULL) == 0 && frame_check(&frame, &source, NULL) == 0,
            "a frame");
    chunks[word].frame = frame;
    require(load_chunk(&source, &here, &chunks[word], &scratch, NULL) == 0, "a chunk");
}

/* Each kernel repeats its own step and does the others once. */
static void street(unsigned scans, unsigned packs, unsigned loads)
{
    uint64_t sums[2][2];

    street_begin();
    for (uint64_t word = 0; word < WORDS; word++) {
        for (unsigned i = 0; i < scans; i++)
            scan_round(word);
        for (unsigned i = 0; i < packs; i++)
            pack_round(word);
        for (unsigned i = 0; i < loads; i++)
            load_round(word);
    }
    digest_get(&there, sums[0]);
    digest_get(&here, sums[1]);
    require(memcmp(memory, copy, BYTES) == 0 && memcmp(sums[0], sums[1], sizeof(sums[0])) == 0,
            "what was loaded differs");
}

static void kernel_scan(unsigned rounds)
{
    street(rounds, 1, 1);
}

static void kernel_pack(unsigned rounds)
{
    street(1, rounds, 1);
}

static void kernel_load(unsigned rounds)
{
    street(1, 1, rounds);
}

/* --- the engine: one hart in machine mode ------------------------------------------------------------------------------ */

static const uint64_t RAM_AT = 0x80000000, RAM_SIZE = 8 << 20, DATA_AT = 0x80600000, EXIT_AT = 0x100000;

/* a0: times, a1: 4 KiB of data, a4: 16 bytes */
static const uint32_t LOOP[] = {
    0x000022b7, /*        lui  t0, 2             floating point on */
    0x3002a073, /*        csrs mstatus, t0                         */
    0x1ff57293, /* next:  andi t0, a0, 511                         */
    0x00329293, /*        slli t0, t0, 3                           */
    0x00b282b3, /*        add  t0, t0, a1                          */
    0x0002b303, /*        ld   t1, 0(t0)                           */
    0x00664633, /*        xor  a2, a2, t1                          */
    0x00d61393, /*        slli t2, a2, 13                          */
    0x00764633, /*        xor  a2, a2, t2                          */
    0x00765393, /*        srli t2, a2, 7                           */
    0x00764633, /*        xor  a2, a2, t2                          */
    0x00064463, /*        bltz a2, other                           */
    0x00360613, /*        addi a2, a2, 3                           */
    0x02a60e33, /* other: mul  t3, a2, a0                          */
    0x02a65eb3, /*        divu t4, a2, a0                          */
    0x00c2b023, /*        sd   a2, 0(t0)                           */
    0x01c29123, /*        sh   t3, 2(t0)                           */
    0x0032cf03, /*        lbu  t5, 3(t0)                           */
    0x01ee86bb, /*        addw a3, t4, t5                          */
    0xd2257053, /*        fcvt.d.l ft0, a0                         */
    0x0a0070c3, /*        fmadd.d  ft1, ft0, ft0, ft1              */
    0x00173427, /*        fsd  ft1, 8(a4)                          */
    0x00d73faf, /*        amoadd.d t6, a3, (a4)                    */
    0x01c000ef, /*        jal  ra, leaf                            */
    0xfff50513, /*        addi a0, a0, -1                          */
    0xfa0512e3, /*        bnez a0, next                            */
    0x001002b7, /*        lui  t0, 0x100                           */
    0x0002a023, /*        sw   zero, 0(t0)                         */
    0x10500073, /*        wfi                    no spinning until  */
    0xffdff06f, /*        j    .-4               it is paused       */
    0x00178793, /* leaf:  addi a5, a5, 1                           */
    0x00008067, /*        ret                                      */
};

static struct end {
    struct lock lock;
    struct cond cond;
    bool reached;
} end;

static uint64_t end_read(void *device, uint64_t offset, unsigned size)
{
    (void)device, (void)offset, (void)size;
    return 0;
}

static void end_write(void *device, uint64_t offset, uint64_t value, unsigned size)
{
    (void)device, (void)offset, (void)value, (void)size;
    lock(&end.lock);
    end.reached = true;
    cond_broadcast(&end.cond);
    unlock(&end.lock);
}

static const struct bus_ops END_OPS = { end_read, end_write, 1, 8 };

/* Runs the code; exit code 1 when there should be generated code and was none. */
static void engine(const uint32_t *code, size_t bytes, uint64_t times, unsigned threshold)
{
    struct guest_clock clock;
    struct bus bus;
    struct err err = { 0 };
    struct jit *jit = NULL;
    struct ram *ram = ram_new();

    guest_clock_init(&clock);
    lock_init(&end.lock, LOCK_DEVICE);
    cond_init(&end.cond);
    struct timers *timers = timers_new(&clock, &err);
    require(timers && ram_add(ram, "ram", RAM_AT, RAM_SIZE, false, &(struct ram_options){ 0 }, &err) == 0 &&
                ram_seal_layout(ram, &err) == 0,
            err.text);
    bus_init(&bus, ram);
    require(bus_add(&bus, "end", EXIT_AT, 0x1000, &END_OPS, NULL, &err) == 0, err.text);
    require(ram_load(ram, RAM_AT, code, bytes), "the code does not fit");
    if (threshold)
        require(jit_new(&jit, &(struct jit_config){ .ram = ram, .threshold = threshold }, &err) == 0, err.text);
    struct vcpu_config config = { .bus = &bus, .clock = &clock, .timers = timers, .jit = jit };
    struct vcpu *vcpu = vcpu_new(&config, &err);
    require(vcpu && vcpu_start(vcpu, &err) == 0, err.text);
    vcpu_pause_wait(vcpu);
    struct hart *hart = vcpu_hart(vcpu);
    hart_reset(hart, 0, RAM_AT);
    hart->x[10] = times;
    hart->x[11] = DATA_AT;
    hart->x[14] = DATA_AT + UNIT;
    vcpu_resume(vcpu);
    lock(&end.lock);
    while (!end.reached)
        cond_wait(&end.cond, &end.lock);
    unlock(&end.lock);
    vcpu_pause_request(vcpu);
    vcpu_pause_wait(vcpu);
    if (jit) {
        struct jit_stats stats;
        jit_stats(jit, &stats);
        require(stats.blocks > 0, "no code was generated");
    }
    vcpu_free(vcpu);
    jit_free(jit);
    timers_free(timers);
    ram_free(ram);
}

enum {
    TIMES = 20000,
    TIMES_GENERATED = 100000,
    HOT = 50,
    PAGE_WORDS = UNIT / 4,
    PAGES_MAX = ROUNDS_MAX * 2,
    END = 26,
    END_WORDS = 4
};

static void kernel_interpret(unsigned rounds)
{
    engine(LOOP, sizeof(LOOP), (uint64_t)rounds * TIMES, 0);
}

static void kernel_generated(unsigned rounds)
{
    engine(LOOP, sizeof(LOOP), (uint64_t)rounds * TIMES_GENERATED, HOT);
}

/* --- code generation: pages of instructions that each run three times --------------------------------------------------- */

static uint32_t reg(void) /* not those that the page needs itself, nor ra, sp, gp, tp */
{
    static const uint8_t some[] = { 5, 6, 7, 8, 9, 12, 13, 15, 16, 17, 18, 19, 20, 21, 22, 23 };

    return some[random_next() >> 32 & 15];
}

/* One instruction of the base set, M or D; `room`: how many instructions a branch may leap over. */
static uint32_t instruction(unsigned room)
{
    static const uint32_t on_two[] = { 0x33,       0x40000033, 0x4033, 0x6033,     0x7033,
                                       0x1033,     0x5033,     0x2033, 0x3033,     0x3b,
                                       0x4000003b, 0x02000033, 0x103b, 0x40005033, 0x0200003b };
    static const uint32_t on_immediate[] = { 0x13, 0x4013, 0x6013, 0x7013, 0x2013, 0x3013, 0x1b };
    static const uint32_t load[] = { 0x3003, 0x2003, 0x6003, 0x1003, 0x4003, 0x3007 };
    static const uint32_t store[] = { 0x3023, 0x2023, 0x1023, 0x0023, 0x3027 };
    static const uint32_t branch[] = { 0x0063, 0x1063, 0x4063, 0x5063, 0x6063, 0x7063 };
    static const uint32_t on_doubles[] = { 0x02007053, 0x0a007053, 0x12007053, 0x22000053 };
    uint64_t dice = random_next();
    uint32_t base = 11 << 15, offset = (dice >> 8 & 0xf8), leap = 2 + (dice >> 8 & 3);

    switch (dice >> 48 & 15) {
    case 0: /* to load is as frequent as to add */
    case 1:
    case 2: return load[dice % 6] | reg() << 7 | base | offset << 20;
    case 3:
    case 4: return store[dice % 5] | reg() << 20 | base | (offset & 31) << 7 | offset >> 5 << 25;
    case 5:
    case 6:
        if (room > leap)
            return branch[dice % 6] | reg() << 15 | reg() << 20 | (leap * 4 & 0x1e) << 7;
        return 0x13;
    case 7: return on_doubles[dice % 4] | reg() << 7 | reg() << 15 | reg() << 20;
    case 8:
    case 9:
    case 10:
    case 11: return on_immediate[dice % 7] | reg() << 7 | reg() << 15 | (uint32_t)(dice >> 20 & 0xfff) << 20;
    default: return on_two[dice % 15] | reg() << 7 | reg() << 15 | reg() << 20;
    }
}

static void code_page(uint32_t *word)
{
    enum { BEFORE = 3, BEHIND = 2, BODY = PAGE_WORDS - BEFORE - BEHIND };
    uint32_t back = (uint32_t) - (BODY + 1) * 4;

    word[0] = 0x000022b7; /* lui  t0, 2       */
    word[1] = 0x3002a073; /* csrs mstatus, t0 */
    word[2] = 0x00300f93; /* li   t6, 3       */
    for (unsigned i = 0; i < BODY; i++)
        word[BEFORE + i] = instruction(BODY - i);
    word[PAGE_WORDS - 2] = 0xffff8f93; /* addi t6, t6, -1  */
    word[PAGE_WORDS - 1] =
        0x000f9063 | (back >> 12 & 1) << 31 | (back >> 5 & 0x3f) << 25 | (back >> 1 & 0xf) << 8 | (back >> 11 & 1) << 7;
}

static void kernel_generate(unsigned rounds)
{
    static uint32_t code[PAGES_MAX * PAGE_WORDS + END_WORDS];
    unsigned pages = rounds * 2;

    for (unsigned page = 0; page < pages; page++)
        code_page(code + (size_t)page * PAGE_WORDS);
    memcpy(code + (size_t)pages * PAGE_WORDS, &LOOP[END], END_WORDS * sizeof(*LOOP));
    engine(code, ((size_t)pages * PAGE_WORDS + END_WORDS) * sizeof(*code), 1, 1);
}

static const struct {
    const char *name;
    void (*run)(unsigned rounds);
} KERNELS[] = {
    { "scan", kernel_scan },           { "pack", kernel_pack },         { "load", kernel_load },
    { "interpret", kernel_interpret }, { "generate", kernel_generate }, { "generated", kernel_generated },
};

int main(int argc, char **argv)
{
    unsigned rounds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 0;

    for (unsigned i = 0; i < sizeof(KERNELS) / sizeof(*KERNELS); i++) {
        if (argc == 1)
            printf("%s\n", KERNELS[i].name);
        else if (strcmp(argv[1], KERNELS[i].name) == 0 && rounds && rounds <= ROUNDS_MAX)
            return KERNELS[i].run(rounds), 0;
    }
    if (argc > 1)
        fprintf(stderr, "bench_count: a kernel, and 1 to %d rounds\n", ROUNDS_MAX);
    return argc > 1 ? 2 : 0;
}
