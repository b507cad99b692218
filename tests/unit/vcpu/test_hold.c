/* Harts that dirty more than their quota, held: who is, who is not, and that a hold keeps nobody waiting. */
#include "tests/unit/vcpu/rig.h"

enum { SWEEP = 0x100000, SWEEP_PAGES = 256, TIGHT = 1 /* page a second: every fresh page is followed by a hold */ };

static const uint64_t TRAPS = RIG_RAM + 0x3000, COUNT = RIG_RAM + 0x4000, STILL = RIG_RAM + 0x5000;

/* Hart 0 writes every page of the sweep over and over; the others one page of their own. */
static void put_writers(struct rig *rig)
{
    put(rig, as(OP_csrrs, a0, zero, 0xf14));
    put_li(rig, s0, RIG_RAM + SWEEP);
    put_li(rig, s1, STILL);
    put_li(rig, s2, RIG_RAM + SWEEP + SWEEP_PAGES * 4096);
    put_li(rig, s3, 4096);
    put(rig, as(OP_bne, a0, zero, 24));
    put(rig, as(OP_addi, t0, s0, 0)); /* start: */
    put(rig, as(OP_sd, t0, t0, 0));   /* next: */
    put(rig, as(OP_add, t0, t0, s3));
    put(rig, as(OP_bne, t0, s2, -8));
    put(rig, as(OP_jal, zero, 0, -16));
    put(rig, as(OP_addi, a1, a1, 1)); /* the others: */
    put(rig, as(OP_sd, a1, s1, 0));
    put(rig, as(OP_jal, zero, 0, -8));
}

static struct rig *make(unsigned harts, void (*program)(struct rig *))
{
    struct rig *rig = test_calloc(1, sizeof(*rig));

    rig_new(rig, harts);
    program(rig);
    rig_load(rig);
    dirty_start(rig->ram->dirty, DIRTY_MIGRATION, false);
    dirty_quota_window(rig->ram->dirty, 1);
    return rig;
}

static void drop(struct rig *rig)
{
    dirty_stop(rig->ram->dirty, DIRTY_MIGRATION);
    rig_free(rig);
    test_free(rig);
}

/* Pages are fresh again. */
static void harvest(struct rig *rig)
{
    struct dirty *dirty = rig->ram->dirty;

    for (uint64_t word = dirty_next_word(dirty, DIRTY_MIGRATION, 0); word < dirty_words(dirty);
         word = dirty_next_word(dirty, DIRTY_MIGRATION, word + 1))
        dirty_take_word(dirty, DIRTY_MIGRATION, word);
    dirty_revoke_wait(dirty, dirty_revoke_begin(dirty));
}

static struct quota_stats stats_of(struct rig *rig, unsigned hart)
{
    struct quota_stats stats[DIRTY_WRITERS_MAX];

    assert_int_equal(dirty_quota_stats(rig->ram->dirty, stats), rig->harts);
    return stats[hart];
}

static void only_the_hart_with_fresh_pages_is_held(void **state)
{
    (void)state;
    struct rig *rig = make(2, put_writers);

    rig_resume(rig);
    while (stats_of(rig, 0).fresh < SWEEP_PAGES) /* no quota yet */
        harvest(rig);
    assert_int_equal(stats_of(rig, 0).holds, 0);
    dirty_quota_set(rig->ram->dirty, 0, TIGHT, 0);
    dirty_quota_set(rig->ram->dirty, 1, 1000000, 0); /* one page by each harvest is far below */
    while (stats_of(rig, 0).holds < 100 || stats_of(rig, 1).fresh < 10)
        harvest(rig);
    assert_int_equal(stats_of(rig, 1).holds, 0);
    assert_true(stats_of(rig, 0).held_ns > 0);

    /* a page that is marked already costs nothing: without a harvest the sweep is free */
    uint64_t fresh, holds;
    do {
        fresh = stats_of(rig, 0).fresh;
        holds = stats_of(rig, 0).holds;
        rig_pause(rig);
        rig_resume(rig);
    } while (stats_of(rig, 0).fresh != fresh || dirty_count(rig->ram->dirty, DIRTY_MIGRATION) < SWEEP_PAGES);
    assert_true(stats_of(rig, 0).holds >= holds);

    /* taken back, nobody is held, however fresh */
    dirty_quota_clear(rig->ram->dirty);
    rig_pause(rig);
    holds = stats_of(rig, 0).holds;
    fresh = stats_of(rig, 0).fresh;
    rig_resume(rig);
    while (stats_of(rig, 0).fresh < fresh + SWEEP_PAGES)
        harvest(rig);
    assert_int_equal(stats_of(rig, 0).holds, holds);
    assert_int_equal(stats_of(rig, 0).page_ns, 0);
    drop(rig);
}

static void a_pause_ends_a_hold_and_loses_no_store(void **state)
{
    (void)state;
    struct rig *rig = make(1, put_writers);

    dirty_quota_set(rig->ram->dirty, 0, TIGHT, 0);
    rig_resume(rig);
    while (stats_of(rig, 0).cut_short < 20) { /* a kick that a held hart did not hear would leave this at 0 */
        harvest(rig);
        rig_pause(rig);
        rig_resume(rig);
    }
    rig_pause(rig);
    for (uint64_t page = 0; page < SWEEP_PAGES; page++) {
        uint64_t gpa = RIG_RAM + SWEEP + page * 4096, found = peek(rig, gpa);
        assert_true(found == gpa || found == 0);
    }
    drop(rig);
}

/* Its timer, every 100 us, counts; the sweep goes on between. */
static void put_ticking(struct rig *rig)
{
    uint64_t start = here(rig);

    while (here(rig) < TRAPS)
        put(rig, as(OP_addi, zero, zero, 0));
    put(rig, as(OP_ld, a2, s4, 0));
    put(rig, as(OP_addi, a2, a2, 1));
    put(rig, as(OP_sd, a2, s4, 0));
    put(rig, as(OP_csrrs, a3, zero, 0xc01));
    put(rig, as(OP_addi, a3, a3, 1000)); /* ticks of 100 ns */
    put(rig, as(OP_csrrw, zero, a3, 0x14d));
    put(rig, as(OP_mret, 0, 0, 0));
    assert_true(start < TRAPS);
}

static void put_interrupted(struct rig *rig)
{
    put_li(rig, s4, COUNT);
    put_li(rig, t0, TRAPS);
    put(rig, as(OP_csrrw, zero, t0, 0x305));
    put_li(rig, t0, UINT64_C(1) << 63);
    put(rig, as(OP_csrrs, zero, t0, 0x30a)); /* menvcfg.STCE */
    put_li(rig, t0, 1000);
    put(rig, as(OP_csrrw, zero, t0, 0x14d)); /* stimecmp */
    put(rig, as(OP_addi, t0, zero, 32));
    put(rig, as(OP_csrrs, zero, t0, 0x304)); /* mie.STIE */
    put(rig, as(OP_csrrsi, zero, 8, 0x300)); /* mstatus.MIE */
    put_writers(rig);
    put_ticking(rig);
}

static void interrupts_come_through_while_a_hart_is_held(void **state)
{
    (void)state;
    struct rig *rig = make(1, put_interrupted);
    uint64_t ticks = 0;

    dirty_quota_set(rig->ram->dirty, 0, TIGHT, 0);
    rig_resume(rig);
    while (ticks < 50 || stats_of(rig, 0).holds < 50 || stats_of(rig, 0).cut_short == 0) {
        harvest(rig);
        ticks = peek(rig, COUNT);
    }
    rig_pause(rig);
    drop(rig);
}

static void a_hart_that_is_held_holds_up_no_harvest(void **state)
{
    (void)state;
    struct rig *rig = make(2, put_writers);

    dirty_quota_set(rig->ram->dirty, 0, TIGHT, 0);
    dirty_quota_set(rig->ram->dirty, 1, TIGHT, 0);
    rig_resume(rig);
    for (int i = 0; i < 500 || stats_of(rig, 0).holds < 50; i++)
        harvest(rig);
    rig_pause(rig);
    drop(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_hart_with_fresh_pages_is_held),
        cmocka_unit_test(a_pause_ends_a_hold_and_loses_no_store),
        cmocka_unit_test(interrupts_come_through_while_a_hart_is_held),
        cmocka_unit_test(a_hart_that_is_held_holds_up_no_harvest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
