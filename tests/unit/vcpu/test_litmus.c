/* Litmus tests: outcomes that RVWMO (Unprivileged ISA, 17 and A) forbids must never be seen; others are only counted.
 *
 * Every hart walks the same cells in the same order, one instance of the test in each, so that the code is hot. Before each
 * it waits for its neighbour, as long as its patience lasts, and then a little more, each time another bit. Afterwards the host looks at what was read and at what memory holds. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/vcpu/rig.h"

enum {
    CELLS = 3000,
    CELL_BYTES = 256, /* x at 0, y at 64 */
    Y = 64,
    CELLS_AT = 0x100000,
    READ_AT = 0x200000, /* per hart and cell: two words of 8 bytes */
    READ_BYTES = 0x20000,
    STEP_AT = 0x300000, /* per hart: how far it is */
    SPINS = 1000000,    /* of a round, all its cells together: the neighbour may have no CPU */
    ROUNDS = 10,
    ROUNDS_LONG = 300,
    FENCE_RW_RW = 0x33,
    FENCE_W_W = 0x11,
    FENCE_R_R = 0x22,
    FENCE_W_R = 0x12,
    FENCE_TSO = 0x833,
    AQ = 1 << 26,
    RL = 1 << 25,
};

/* What one instance left: registers of each hart, and the cell. */
struct outcome {
    uint64_t a0[RIG_HARTS_MAX], a1[RIG_HARTS_MAX];
    uint32_t x, y;
};

struct litmus {
    const char *name;
    unsigned harts;
    uint32_t code[RIG_HARTS_MAX][8];       /* s0: the cell; a5 = 1, a6 = 2; may use t0; results in a0, a1 */
    bool (*seen)(const struct outcome *o); /* forbidden, or weak and allowed */
};

static unsigned rounds(void)
{
    const char *is_long = getenv("GODWIT_LONG");

    return is_long && *is_long ? ROUNDS_LONG : ROUNDS;
}

/* --- one test's program ------------------------------------------------------------------------------------- */

static uint64_t put_hart(struct rig *rig, const struct litmus *test, unsigned hart)
{
    uint64_t entry = here(rig);

    put_li(rig, s0, RIG_RAM + CELLS_AT);
    put_li(rig, s2, CELLS);
    put_li(rig, s3, RIG_RAM + READ_AT + hart * READ_BYTES);
    put_li(rig, s4, RIG_RAM + STEP_AT + hart * 64);
    put_li(rig, s5, RIG_RAM + STEP_AT + (hart + 1) % test->harts * 64);
    put(rig, as(OP_addi, a5, zero, 1));
    put(rig, as(OP_addi, a6, zero, 2));
    put(rig, as(OP_addi, s6, zero, 0));
    put_li(rig, s7, SPINS);
    uint64_t loop = here(rig);
    put(rig, as(OP_addi, s6, s6, 1));
    put(rig, as(OP_sw, s6, s4, 0));
    put(rig, as(OP_lw, t1, s5, 0)); /* is the neighbour there? */
    put(rig, as(OP_bge, t1, s6, 12));
    put(rig, as(OP_addi, s7, s7, -1));
    put(rig, as(OP_blt, zero, s7, -12));
    put(rig, as(OP_srli, t0, s6, hart % 2 * 4));
    put(rig, as(OP_andi, t0, t0, 15));
    put(rig, as(OP_addi, t0, t0, -1));
    put(rig, as(OP_bge, t0, zero, -4));
    for (unsigned i = 0; i < 8 && test->code[hart][i]; i++)
        put(rig, test->code[hart][i]);
    put(rig, as(OP_sd, a0, s3, 0));
    put(rig, as(OP_sd, a1, s3, 8));
    put(rig, as(OP_addi, s3, s3, 16));
    put(rig, as(OP_addi, s0, s0, CELL_BYTES));
    put(rig, as(OP_addi, s2, s2, -1));
    put(rig, as(OP_bne, s2, zero, (int64_t)(loop - here(rig))));
    put_end(rig);
    return entry;
}

static void run_round(struct rig *rig, const uint64_t entry[], unsigned harts)
{
    memset(ram_ptr(rig->ram, RIG_RAM + CELLS_AT, CELLS * CELL_BYTES), 0, CELLS * CELL_BYTES);
    for (unsigned h = 0; h < harts; h++) {
        poke(rig, RIG_RAM + STEP_AT + h * 64, 0);
        vcpu_hart(rig->vcpu[h])->pc = entry[h];
    }
    unsigned ends = rig->ends;
    rig_resume(rig);
    rig_wait_ends(rig, ends + harts);
    rig_pause(rig);
}

static struct outcome outcome_of(struct rig *rig, unsigned harts, unsigned cell)
{
    struct outcome o = { .x = (uint32_t)peek(rig, RIG_RAM + CELLS_AT + cell * CELL_BYTES),
                         .y = (uint32_t)peek(rig, RIG_RAM + CELLS_AT + cell * CELL_BYTES + Y) };

    for (unsigned h = 0; h < harts; h++) {
        o.a0[h] = peek(rig, RIG_RAM + READ_AT + h * READ_BYTES + cell * 16);
        o.a1[h] = peek(rig, RIG_RAM + READ_AT + h * READ_BYTES + cell * 16 + 8);
    }
    return o;
}

static uint64_t run_litmus(const struct litmus *test)
{
    struct rig *rig = test_calloc(1, sizeof(*rig));
    uint64_t entry[RIG_HARTS_MAX], seen = 0, of = 0;

    rig_new_engine(rig, test->harts, RIG_JIT);
    for (unsigned h = 0; h < test->harts; h++)
        entry[h] = put_hart(rig, test, h);
    rig_load(rig);
    for (unsigned round = rounds(); round; round--) {
        run_round(rig, entry, test->harts);
        for (unsigned cell = 0; cell < CELLS; cell++, of++) {
            struct outcome o = outcome_of(rig, test->harts, cell);

            seen += test->seen(&o);
        }
    }
    fprintf(stderr, "# %s: %" PRIu64 " of %" PRIu64 "\n", test->name, seen, of);
    rig_free(rig);
    test_free(rig);
    return seen;
}

#define FORBIDDEN(...) assert_int_equal(run_litmus(&(struct litmus){ __VA_ARGS__ }), 0)
#define ALLOWED(...)   run_litmus(&(struct litmus){ __VA_ARGS__ })

/* --- the tests ------------------------------------------------------------------------------------------------ */

#define STORE_X    as(OP_sw, a5, s0, 0)
#define STORE_Y    as(OP_sw, a5, s0, Y)
#define STORE_X_2  as(OP_sw, a6, s0, 0)
#define STORE_Y_2  as(OP_sw, a6, s0, Y)
#define FENCE(how) as(OP_fence, 0, 0, how)
#define A0_X       as(OP_lw, a0, s0, 0)
#define A0_Y       as(OP_lw, a0, s0, Y)
#define A1_X       as(OP_lw, a1, s0, 0)
#define A1_Y       as(OP_lw, a1, s0, Y)
#define Y_TO_T0    as(OP_addi, t0, s0, Y)

static bool both_read_0(const struct outcome *o)
{
    return o->a0[0] == 0 && o->a0[1] == 0;
}

static bool both_read_1(const struct outcome *o)
{
    return o->a0[0] == 1 && o->a0[1] == 1;
}

static bool new_then_old(const struct outcome *o)
{
    return o->a0[1] == 1 && o->a1[1] == 0;
}

static bool readers_disagree(const struct outcome *o)
{
    return o->a0[2] == 1 && o->a1[2] == 0 && o->a0[3] == 1 && o->a1[3] == 0;
}

static bool first_stores_win(const struct outcome *o)
{
    return o->x == 1 && o->y == 1;
}

static bool read_2_but_1_stays(const struct outcome *o)
{
    return o->a0[0] == 2 && o->x == 1;
}

static bool own_store_not_seen(const struct outcome *o)
{
    return o->a0[0] == 0;
}

static bool seen_yet_overwritten(const struct outcome *o)
{
    return o->a0[1] == 1 && o->x == 2;
}

static void store_buffering(void **state)
{
    (void)state;
    ALLOWED("SB", 2, { { STORE_X, A0_Y }, { STORE_Y, A0_X } }, both_read_0);
    ALLOWED("SB+fence.tso", 2, { { STORE_X, FENCE(FENCE_TSO), A0_Y }, { STORE_Y, FENCE(FENCE_TSO), A0_X } },
            both_read_0);
    FORBIDDEN("SB+fence rw,rw", 2, { { STORE_X, FENCE(FENCE_RW_RW), A0_Y }, { STORE_Y, FENCE(FENCE_RW_RW), A0_X } },
              both_read_0);
    FORBIDDEN("SB+fence w,r", 2, { { STORE_X, FENCE(FENCE_W_R), A0_Y }, { STORE_Y, FENCE(FENCE_W_R), A0_X } },
              both_read_0);
    FORBIDDEN("SB+amoswap.aqrl", 2,
              { { as(OP_amoswap_w, zero, s0, a5) | AQ | RL, A0_Y },
                { Y_TO_T0, as(OP_amoswap_w, zero, t0, a5) | AQ | RL, A0_X } },
              both_read_0);
}

static void message_passing(void **state)
{
    const uint32_t same_as_s0[] = { as(OP_xor, t0, a0, a0), as(OP_add, t0, t0, s0) };

    (void)state;
    ALLOWED("MP", 2, { { STORE_X, STORE_Y }, { A0_Y, A1_X } }, new_then_old);
    FORBIDDEN("MP+fences", 2, { { STORE_X, FENCE(FENCE_W_W), STORE_Y }, { A0_Y, FENCE(FENCE_R_R), A1_X } },
              new_then_old);
    FORBIDDEN("MP+fence.tso", 2, { { STORE_X, FENCE(FENCE_TSO), STORE_Y }, { A0_Y, FENCE(FENCE_TSO), A1_X } },
              new_then_old);
    FORBIDDEN("MP+fence+addr", 2,
              { { STORE_X, FENCE(FENCE_W_W), STORE_Y }, { A0_Y, same_as_s0[0], same_as_s0[1], as(OP_lw, a1, t0, 0) } },
              new_then_old);
    FORBIDDEN(
        "MP+amoswap.rl+lr.aq", 2,
        { { STORE_X, Y_TO_T0, as(OP_amoswap_w, zero, t0, a5) | RL }, { Y_TO_T0, as(OP_lr_w, a0, t0, 0) | AQ, A1_X } },
        new_then_old);
}

static void load_buffering(void **state)
{
    const uint32_t value[] = { as(OP_xor, t0, a0, a0), as(OP_addi, t0, t0, 1) };

    (void)state;
    ALLOWED("LB", 2, { { A0_X, STORE_Y }, { A0_Y, STORE_X } }, both_read_1);
    FORBIDDEN("LB+fences", 2, { { A0_X, FENCE(FENCE_RW_RW), STORE_Y }, { A0_Y, FENCE(FENCE_RW_RW), STORE_X } },
              both_read_1);
    FORBIDDEN(
        "LB+data", 2,
        { { A0_X, value[0], value[1], as(OP_sw, t0, s0, Y) }, { A0_Y, value[0], value[1], as(OP_sw, t0, s0, 0) } },
        both_read_1);
}

static void independent_reads_of_independent_writes(void **state)
{
    (void)state;
    FORBIDDEN("IRIW+fences", 4,
              { { STORE_X }, { STORE_Y }, { A0_X, FENCE(FENCE_R_R), A1_Y }, { A0_Y, FENCE(FENCE_R_R), A1_X } },
              readers_disagree);
    ALLOWED("IRIW", 4, { { STORE_X }, { STORE_Y }, { A0_X, A1_Y }, { A0_Y, A1_X } }, readers_disagree);
}

static void one_location_has_one_order(void **state)
{
    (void)state;
    FORBIDDEN("CoRR", 2, { { STORE_X }, { A0_X, A1_X } }, new_then_old);
    FORBIDDEN("CoWR", 2, { { STORE_X, A0_X }, { STORE_X_2 } }, read_2_but_1_stays);
    FORBIDDEN("CoWR, own", 2, { { STORE_X, A0_X }, { STORE_X_2 } }, own_store_not_seen);
    FORBIDDEN("CoRR, two sizes", 2, { { STORE_X }, { A0_X, as(OP_lb, a1, s0, 0) } }, new_then_old);
}

static void stores_keep_the_order_of_fences(void **state)
{
    const uint32_t value[] = { as(OP_xor, t0, a0, a0), as(OP_addi, t0, t0, 1) };

    (void)state;
    FORBIDDEN("2+2W+fences", 2, { { STORE_X, FENCE(FENCE_W_W), STORE_Y_2 }, { STORE_Y, FENCE(FENCE_W_W), STORE_X_2 } },
              first_stores_win);
    ALLOWED("2+2W", 2, { { STORE_X, STORE_Y_2 }, { STORE_Y, STORE_X_2 } }, first_stores_win);
    FORBIDDEN("S+fence+data", 2,
              { { STORE_X_2, FENCE(FENCE_W_W), STORE_Y }, { A0_Y, value[0], value[1], as(OP_sw, t0, s0, 0) } },
              seen_yet_overwritten);
}

/* --- atomicity: sums must be exact ------------------------------------------------------------------------------ */

enum { HARTS = 4, INCREMENTS = 20000, LOCKED = 2000, COUNTER_AT = 0x110000, LOCK_AT = 0x110100 };

/* The way an increment of the counter at s0 is done; s8 is the lock, a5 = 1. */
static void put_amo(struct rig *rig, bool d)
{
    put(rig, as(d ? OP_amoadd_d : OP_amoadd_w, zero, s0, a5));
}

static void put_lr_sc(struct rig *rig, bool d)
{
    put(rig, as(d ? OP_lr_d : OP_lr_w, t0, s0, 0));
    put(rig, as(d ? OP_addi : OP_addiw, t0, t0, 1));
    put(rig, as(d ? OP_sc_d : OP_sc_w, t0, s0, t0));
    put(rig, as(OP_bne, t0, zero, -12));
}

static void put_locked(struct rig *rig, bool d)
{
    put(rig, as(OP_amoswap_w, t0, s8, a5) | AQ);
    put(rig, as(OP_bne, t0, zero, -4));
    put(rig, as(d ? OP_ld : OP_lw, t0, s0, 0));
    put(rig, as(OP_addi, t0, t0, 1));
    put(rig, as(d ? OP_sd : OP_sw, t0, s0, 0));
    put(rig, as(OP_amoswap_w, zero, s8, zero) | RL);
}

static uint64_t put_counting(struct rig *rig, void (*put_increment)(struct rig *rig, bool d), bool d, unsigned times)
{
    uint64_t entry = here(rig);

    put_li(rig, s0, RIG_RAM + COUNTER_AT);
    put_li(rig, s8, RIG_RAM + LOCK_AT);
    put_li(rig, s2, times);
    put(rig, as(OP_addi, a5, zero, 1));
    uint64_t loop = here(rig);
    put_increment(rig, d);
    put(rig, as(OP_addi, s2, s2, -1));
    put(rig, as(OP_bne, s2, zero, (int64_t)(loop - here(rig))));
    put_end(rig);
    return entry;
}

/* Four harts, each by its own way, on one counter. */
static void count(void (*const put_increment[HARTS])(struct rig *rig, bool d), bool d, unsigned times)
{
    struct rig *rig = test_calloc(1, sizeof(*rig));
    uint64_t entry[HARTS];

    rig_new_engine(rig, HARTS, RIG_JIT);
    for (unsigned h = 0; h < HARTS; h++)
        entry[h] = put_counting(rig, put_increment[h], d, times);
    rig_load(rig);
    run_round(rig, entry, HARTS);
    assert_int_equal(peek(rig, RIG_RAM + COUNTER_AT), HARTS * times);
    rig_free(rig);
    test_free(rig);
}

static void no_increment_by_amoadd_is_lost(void **state)
{
    (void)state;
    for (unsigned d = 0; d < 2; d++)
        count((void (*[])(struct rig *, bool)){ put_amo, put_amo, put_amo, put_amo }, d, INCREMENTS);
}

static void no_increment_by_lr_and_sc_is_lost(void **state)
{
    (void)state;
    for (unsigned d = 0; d < 2; d++)
        count((void (*[])(struct rig *, bool)){ put_lr_sc, put_lr_sc, put_lr_sc, put_lr_sc }, d, INCREMENTS);
}

static void amos_and_sc_see_each_other(void **state)
{
    (void)state;
    for (unsigned d = 0; d < 2; d++)
        count((void (*[])(struct rig *, bool)){ put_amo, put_lr_sc, put_amo, put_lr_sc }, d, INCREMENTS);
}

static void no_increment_under_a_spin_lock_is_lost(void **state)
{
    (void)state;
    for (unsigned d = 0; d < 2; d++)
        count((void (*[])(struct rig *, bool)){ put_locked, put_locked, put_locked, put_locked }, d, LOCKED);
}

/* --- reservations: in a hot loop, each turn adds its failures to s9 and its successes to s10 ---------------------- */

static void put_turns(struct rig *rig, unsigned times)
{
    put_li(rig, s0, RIG_RAM + COUNTER_AT);
    put_li(rig, s2, times);
    put(rig, as(OP_addi, s1, s0, 64));
}

static void put_fails(struct rig *rig) /* a0: what sc said */
{
    put(rig, as(OP_sltu, a0, zero, a0));
    put(rig, as(OP_add, s9, s9, a0));
}

static void put_succeeds(struct rig *rig)
{
    put(rig, as(OP_sltiu, a0, a0, 1));
    put(rig, as(OP_add, s10, s10, a0));
}

static void sc_fails_without_its_reservation(void **state)
{
    struct rig *rig = test_calloc(1, sizeof(*rig));
    const unsigned turns = 5000;

    (void)state;
    rig_new_engine(rig, 1, RIG_JIT);
    put_turns(rig, turns);
    uint64_t loop = here(rig);
    put(rig, as(OP_lr_d, t0, s0, 0)); /* as it should be */
    put(rig, as(OP_addi, t0, t0, 1));
    put(rig, as(OP_sc_d, a0, s0, t0));
    put_succeeds(rig);
    put(rig, as(OP_sc_d, a0, s0, t0)); /* the first sc took the reservation */
    put_fails(rig);
    put(rig, as(OP_lr_d, t0, s0, 0));
    put(rig, as(OP_sc_d, a0, s1, t0)); /* elsewhere */
    put_fails(rig);
    put(rig, as(OP_sc_d, a0, s0, t0)); /* and that one took it, too */
    put_fails(rig);
    put(rig, as(OP_lr_w, t0, s1, 0));
    put(rig, as(OP_lr_d, t0, s0, 0)); /* only the last counts */
    put(rig, as(OP_sc_w, a0, s1, t0));
    put_fails(rig);
    put(rig, as(OP_lr_d, t0, s0, 0));
    put(rig, as(OP_sd, s2, s0, 0)); /* stored over, another value */
    put(rig, as(OP_sc_d, a0, s0, t0));
    put_fails(rig);
    put(rig, as(OP_sd, t0, s0, 0));
    put(rig, as(OP_addi, s2, s2, -1));
    put(rig, as(OP_bne, s2, zero, (int64_t)(loop - here(rig))));
    put_end(rig);
    /* Stored over needs another value: the counter runs from 1, s2 from turns, so keep them apart. */
    poke(rig, RIG_RAM + COUNTER_AT, 1000000);
    struct hart *hart = rig_run(rig);

    assert_int_equal(hart->x[s10], turns);
    assert_int_equal(hart->x[s9], 5 * turns);
    assert_int_equal(peek(rig, RIG_RAM + COUNTER_AT), 1000000 + turns);
    assert_int_equal(peek(rig, RIG_RAM + COUNTER_AT + 64), 0);
    rig_free(rig);
    test_free(rig);
}

/* Hart 0 holds a reservation, hart 1 stores there, and says so; then hart 0's sc must fail. */
static void sc_fails_after_another_harts_store(void **state)
{
    struct rig *rig = test_calloc(1, sizeof(*rig));
    const unsigned turns = 1500;
    uint64_t entry[2], loop;

    (void)state;
    rig_new_engine(rig, 2, RIG_JIT);
    entry[0] = here(rig);
    put_turns(rig, turns);
    loop = here(rig);
    put(rig, as(OP_lr_w, t0, s0, 0));
    put(rig, as(OP_sw, s2, s1, 0)); /* go */
    put(rig, as(OP_lw, t1, s1, 64));
    put(rig, as(OP_bne, t1, s2, -4)); /* done? */
    put(rig, as(OP_fence, 0, 0, FENCE_RW_RW));
    put(rig, as(OP_sc_w, a0, s0, zero));
    put_fails(rig);
    put(rig, as(OP_addi, s2, s2, -1));
    put(rig, as(OP_bne, s2, zero, (int64_t)(loop - here(rig))));
    put_end(rig);
    entry[1] = here(rig);
    put_turns(rig, turns);
    loop = here(rig);
    put(rig, as(OP_lw, t1, s1, 0));
    put(rig, as(OP_bne, t1, s2, -4));
    put(rig, as(OP_sw, s2, s0, 0)); /* a new value each time */
    put(rig, as(OP_fence, 0, 0, FENCE_RW_RW));
    put(rig, as(OP_sw, s2, s1, 64));
    put(rig, as(OP_addi, s2, s2, -1));
    put(rig, as(OP_bne, s2, zero, (int64_t)(loop - here(rig))));
    put_end(rig);
    rig_load(rig);
    run_round(rig, entry, 2);
    assert_int_equal(rig_hart(rig)->x[s9], turns);
    assert_int_equal(peek(rig, RIG_RAM + COUNTER_AT) & UINT32_MAX, 1);
    rig_free(rig);
    test_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(store_buffering),
        cmocka_unit_test(message_passing),
        cmocka_unit_test(load_buffering),
        cmocka_unit_test(independent_reads_of_independent_writes),
        cmocka_unit_test(one_location_has_one_order),
        cmocka_unit_test(stores_keep_the_order_of_fences),
        cmocka_unit_test(no_increment_by_amoadd_is_lost),
        cmocka_unit_test(no_increment_by_lr_and_sc_is_lost),
        cmocka_unit_test(amos_and_sc_see_each_other),
        cmocka_unit_test(no_increment_under_a_spin_lock_is_lost),
        cmocka_unit_test(sc_fails_without_its_reservation),
        cmocka_unit_test(sc_fails_after_another_harts_store),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
