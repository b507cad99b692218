/* A bare machine for tests of the engine: RAM at RIG_RAM, a device that ends the run, any number of harts.
 *
 * Programs are put together word by word with as(), from the same table the decoder is made of, and end by storing to
 * RIG_END; the harts are paused then, and the test looks at them. */
#pragma once
#include <errno.h>
#include <stdlib.h>
#include <sched.h>
#include <string.h>

#include "tests/unit/test.h"
#include "vcpu/decode.h"
#include "vcpu/jit/jit.h"
#include "vcpu/vcpu.h"

#define RIG_RAM  UINT64_C(0x80000000)
#define RIG_END  UINT64_C(0x100000)
#define RIG_ODDS UINT64_C(0x110000) /* a device with 4-byte registers that count their accesses */
enum {
    RIG_RAM_BYTES = 4 << 20,
    RIG_HARTS_MAX = 4,
    RIG_WORDS_MAX = 4096,
    RIG_THRESHOLD = 3,
    RIG_SMALL_BYTES = 288 << 10
};

enum {
    zero,
    ra,
    sp,
    gp,
    tp,
    t0,
    t1,
    t2,
    s0,
    s1,
    a0,
    a1,
    a2,
    a3,
    a4,
    a5,
    a6,
    a7,
    s2,
    s3,
    s4,
    s5,
    s6,
    s7,
    s8,
    s9,
    s10,
    s11,
    t3,
    t4,
    t5,
    t6
};

/* fields: rd, rs1, rs2 or imm as the format wants them; branches and jumps: imm is the distance in bytes */
static inline uint32_t as(enum op op, unsigned rd, unsigned rs1, int64_t rs2_or_imm)
{
    uint32_t w = decode_ops[op].match, i = (uint32_t)rs2_or_imm;

    switch ((enum op_format)decode_ops[op].format) {
    case FMT_R:
    case FMT_R4: return w | rd << 7 | rs1 << 15 | (i & 31) << 20;
    case FMT_I:
    case FMT_CSR: return w | rd << 7 | rs1 << 15 | i << 20;
    case FMT_SH5:
    case FMT_SH6: return w | rd << 7 | rs1 << 15 | (i & 63) << 20;
    case FMT_S: return w | rs1 << 15 | rd << 20 | (i & 31) << 7 | (i >> 5 & 127) << 25; /* rd: what is stored */
    case FMT_B: /* rd, rs1 are what is compared */
        return w | rd << 15 | rs1 << 20 | (i >> 11 & 1) << 7 | (i >> 1 & 15) << 8 | (i >> 5 & 63) << 25 | i >> 31 << 31;
    case FMT_U: return w | rd << 7 | (i & 0xfffff000);
    case FMT_J: return w | rd << 7 | (i & 0xff000) | (i >> 11 & 1) << 20 | (i >> 1 & 1023) << 21 | i >> 31 << 31;
    case FMT_NONE: return w;
    }
    return w;
}

struct rig {
    struct ram *ram;
    struct bus bus;
    struct guest_clock clock;
    struct timers *timers;
    struct vcpu *vcpu[RIG_HARTS_MAX];
    unsigned harts;
    struct jit *jit;
    struct lock lock;
    struct cond cond;
    unsigned ends; /* under lock: stores to RIG_END */
    _Atomic uint64_t odd_reads, odd_writes, odd_value;

    uint32_t word[RIG_WORDS_MAX]; /* the program being written */
    unsigned words;
};

static uint64_t rig_read(void *device, uint64_t offset, unsigned size)
{
    struct rig *rig = device;

    (void)offset, (void)size;
    sched_yield(); /* a guest that waits for another hart may read here: the host may have fewer CPUs */
    rig->odd_reads++;
    return UINT64_C(0xfedcba9889abcdef);
}

static void rig_write(void *device, uint64_t offset, uint64_t value, unsigned size)
{
    struct rig *rig = device;

    (void)offset, (void)size;
    rig->odd_writes++;
    rig->odd_value = value;
}

static void rig_end_write(void *device, uint64_t offset, uint64_t value, unsigned size)
{
    struct rig *rig = device;

    (void)offset, (void)value, (void)size;
    lock(&rig->lock);
    rig->ends++;
    cond_broadcast(&rig->cond);
    unlock(&rig->lock);
}

static const struct bus_ops RIG_END_OPS = { rig_read, rig_end_write, 1, 8 };
static const struct bus_ops RIG_ODD_OPS = { rig_read, rig_write, 4, 4 };

/* What runs the guest's code. Tests that hold one engine against another know only this name. */
enum rig_engine {
    RIG_INTERPRETER,
    RIG_JIT,
    RIG_JIT_PLAIN,
    RIG_JIT_SMALL, /* little memory for code */
    RIG_LOCKSTEP,
};

static inline void rig_new_engine(struct rig *rig, unsigned harts, enum rig_engine engine)
{
    struct err err = { 0 };

    memset(rig, 0, sizeof(*rig));
    lock_init(&rig->lock, LOCK_DEVICE);
    cond_init(&rig->cond);
    guest_clock_init(&rig->clock);
    rig->timers = timers_new(&rig->clock, &err);
    rig->ram = ram_new();
    assert_int_equal(ram_add(rig->ram, "ram", RIG_RAM, RIG_RAM_BYTES, false, &(struct ram_options){ 0 }, &err), 0);
    assert_int_equal(ram_seal_layout(rig->ram, &err), 0);
    bus_init(&rig->bus, rig->ram);
    assert_int_equal(bus_add(&rig->bus, "end", RIG_END, 4096, &RIG_END_OPS, rig, &err), 0);
    assert_int_equal(bus_add(&rig->bus, "odd", RIG_ODDS, 4096, &RIG_ODD_OPS, rig, &err), 0);
    if (engine != RIG_INTERPRETER) { /* hosts without a code generator interpret, and these tests compare nothing */
        struct jit_config config = { .ram = rig->ram,
                                     .code_bytes = engine == RIG_JIT_SMALL ? RIG_SMALL_BYTES : 0,
                                     .threshold = RIG_THRESHOLD,
                                     .plain = engine == RIG_JIT_PLAIN,
                                     .lockstep = engine == RIG_LOCKSTEP };
        int result = jit_new(&rig->jit, &config, &err);

        assert_true(result == 0 || result == -ENOTSUP);
    }
    for (rig->harts = 0; rig->harts < harts; rig->harts++) {
        struct vcpu_config config = {
            .index = rig->harts, .bus = &rig->bus, .clock = &rig->clock, .timers = rig->timers, .jit = rig->jit
        };
        struct vcpu *vcpu = vcpu_new(&config, &err);

        assert_non_null(vcpu);
        assert_int_equal(vcpu_start(vcpu, &err), 0);
        vcpu_pause_wait(vcpu);
        hart_reset(vcpu_hart(vcpu), rig->harts, RIG_RAM);
        rig->vcpu[rig->harts] = vcpu;
    }
    guest_clock_start(&rig->clock);
    timers_clock_changed(rig->timers);
}

static inline void rig_new(struct rig *rig, unsigned harts)
{
    const char *engine = getenv("GODWIT_ENGINE"); /* interp or jit */

    rig_new_engine(rig, harts, engine && strcmp(engine, "interp") == 0 ? RIG_INTERPRETER : RIG_JIT);
}

static inline void rig_free(struct rig *rig)
{
    for (unsigned i = 0; i < rig->harts; i++)
        vcpu_free(rig->vcpu[i]);
    jit_free(rig->jit);
    timers_free(rig->timers);
    ram_free(rig->ram);
    cond_destroy(&rig->cond);
    lock_destroy(&rig->lock);
}

static inline struct hart *rig_hart(struct rig *rig)
{
    return vcpu_hart(rig->vcpu[0]);
}

/* --- writing a program ----------------------------------------------------------------------------------- */

static inline void put(struct rig *rig, uint32_t word)
{
    assert_in_range(rig->words, 0, RIG_WORDS_MAX - 1);
    rig->word[rig->words++] = word;
}

/* Any 64-bit constant; the number of instructions depends on the value. */
static inline void put_li(struct rig *rig, unsigned rd, uint64_t value)
{
    put(rig, as(OP_addi, rd, zero, (int64_t)(value >> 55)));
    for (int shift = 44; shift >= 0; shift -= 11) {
        put(rig, as(OP_slli, rd, rd, 11));
        put(rig, as(OP_ori, rd, rd, (int64_t)(value >> shift & 0x7ff)));
    }
}

static inline void put_end(struct rig *rig)
{
    put(rig, as(OP_lui, t6, 0, (int64_t)RIG_END));
    put(rig, as(OP_sw, zero, t6, 0));
    put(rig, as(OP_jal, zero, 0, 0));
}

static inline uint64_t here(const struct rig *rig)
{
    return RIG_RAM + 4 * (uint64_t)rig->words;
}

static inline void rig_load(struct rig *rig)
{
    assert_true(ram_load(rig->ram, RIG_RAM, rig->word, (uint64_t)rig->words * 4));
}

static inline void poke(struct rig *rig, uint64_t gpa, uint64_t value)
{
    assert_true(ram_load(rig->ram, gpa, &value, 8));
}

static inline uint64_t peek(struct rig *rig, uint64_t gpa)
{
    uint64_t value;

    assert_true(ram_read(rig->ram, gpa, &value, 8));
    return value;
}

/* --- running --------------------------------------------------------------------------------------------- */

static inline void rig_wait_ends(struct rig *rig, unsigned ends)
{
    lock(&rig->lock);
    while (rig->ends < ends)
        cond_wait(&rig->cond, &rig->lock);
    unlock(&rig->lock);
}

/* As above, until `deadline_ns` (clock_now_ns time) at most; false: it passed. */
static inline bool rig_wait_ends_until(struct rig *rig, unsigned ends, int64_t deadline_ns)
{
    bool in_time = true;

    lock(&rig->lock);
    while (rig->ends < ends && in_time)
        in_time = cond_wait_until(&rig->cond, &rig->lock, deadline_ns);
    bool ended = rig->ends >= ends;
    unlock(&rig->lock);
    return ended;
}

static inline void rig_pause(struct rig *rig)
{
    for (unsigned i = 0; i < rig->harts; i++)
        vcpu_pause_request(rig->vcpu[i]);
    for (unsigned i = 0; i < rig->harts; i++)
        vcpu_pause_wait(rig->vcpu[i]);
}

static inline void rig_resume(struct rig *rig)
{
    for (unsigned i = 0; i < rig->harts; i++)
        vcpu_resume(rig->vcpu[i]);
}

/* From where hart 0 stands (RIG_RAM after reset) to its store to RIG_END. */
static inline struct hart *rig_run(struct rig *rig)
{
    unsigned ends = rig->ends;

    rig_load(rig);
    rig_resume(rig);
    rig_wait_ends(rig, ends + 1);
    rig_pause(rig);
    return rig_hart(rig);
}
