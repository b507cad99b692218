/* Dirty tracking with real harts storming: a harvester copies what is marked, and at the end has everything. */
#include <stdlib.h>

#include "tests/unit/vcpu/rig.h"

enum { HARTS = 3, STORM = 0x100000, STORM_PAGES = 512, ROUNDS = 60 };

struct harvest {
    struct rig *rig;
    uint8_t *shadow;
    uint64_t pages; /* copied */
    bool no_revoke; /* the planted mistake */
};

/* Every hart walks the storm area by a random sequence and writes by all means there are. */
static void put_storm(struct rig *rig)
{
    put_li(rig, s0, RIG_RAM + STORM);
    put_li(rig, s1, 6364136223846793005);
    put_li(rig, s2, (STORM_PAGES - 1) << 12);
    put_li(rig, s3, RIG_ODDS);
    put(rig, as(OP_csrrs, a0, zero, 0xf14)); /* hart id: seed, and its own column of each page */
    put(rig, as(OP_slli, s4, a0, 9));
    put(rig, as(OP_add, s0, s0, s4));
    put(rig, as(OP_addi, a0, a0, 7));
    uint64_t loop = here(rig);
    put(rig, as(OP_mul, a0, a0, s1));
    put(rig, as(OP_addi, a0, a0, 1442));
    put(rig, as(OP_srli, t0, a0, 30));
    put(rig, as(OP_and, t0, t0, s2));
    put(rig, as(OP_add, t0, t0, s0));
    put(rig, as(OP_sd, a0, t0, 0));
    put(rig, as(OP_addi, t1, t0, 16));
    put(rig, as(OP_amoadd_d, zero, t1, a0));
    put(rig, as(OP_addi, t1, t0, 24));
    put(rig, as(OP_lr_d, t2, t1, zero));
    put(rig, as(OP_sc_d, t2, t1, a0));
    put(rig, as(OP_sh, a0, t0, 33));    /* misaligned */
    put(rig, as(OP_sd, a0, t0, 0x400)); /* where harts meet */
    put(rig, as(OP_srli, t1, a0, 60));
    put(rig, as(OP_bne, t1, zero, 16)); /* now and then: */
    put(rig, as(OP_lw, t1, s3, 0));     /* a device, where the hart counts as parked */
    put(rig, as(OP_addi, t1, t0, 64));
    put(rig, as(OP_cbo_zero, 0, t1, 4));
    put(rig, as(OP_jal, zero, 0, (int64_t)(loop - here(rig))));
}

static void copy_word(struct harvest *harvest, uint64_t word, uint64_t bits)
{
    for (; bits; bits &= bits - 1) {
        uint64_t page = word * DIRTY_WORD_PAGES + (unsigned)__builtin_ctzll(bits);
        const uint8_t *host = ram_page_host(harvest->rig->ram, page);

        assert_non_null(host);
        ram_copy_page_out(harvest->shadow + page * PAGE_BYTES, host);
        harvest->pages++;
    }
}

static void harvest_round(struct harvest *harvest)
{
    struct dirty *dirty = harvest->rig->ram->dirty;
    uint64_t words = dirty_words(dirty);

    for (uint64_t word = dirty_next_word(dirty, DIRTY_MIGRATION, 0); word < words;
         word = dirty_next_word(dirty, DIRTY_MIGRATION, word + 1)) {
        uint64_t bits = dirty_take_word(dirty, DIRTY_MIGRATION, word);

        if (!bits)
            continue;
        if (!harvest->no_revoke)
            dirty_revoke_wait(dirty, dirty_revoke_begin(dirty));
        copy_word(harvest, word, bits);
    }
}

static uint64_t pages_that_differ(struct harvest *harvest)
{
    const uint8_t *host = harvest->rig->ram->block[0].host;
    uint64_t wrong = 0;

    for (uint64_t page = 0; page < RIG_RAM_BYTES / PAGE_BYTES; page++)
        wrong += memcmp(host + page * PAGE_BYTES, harvest->shadow + page * PAGE_BYTES, PAGE_BYTES) != 0;
    return wrong;
}

/* Has every hart met the slow path? The host may have given one of them no time yet. */
static bool all_storm(struct rig *rig)
{
    struct vcpu_stats stats;

    for (unsigned i = 0; i < rig->harts; i++) {
        vcpu_stats(rig->vcpu[i], &stats);
        if (stats.instructions < 10000 || stats.slow_stores == 0)
            return false;
    }
    return true;
}

static uint64_t storm(bool no_revoke)
{
    struct rig *rig = test_calloc(1, sizeof(*rig));
    struct harvest harvest = { .rig = rig, .no_revoke = no_revoke };

    rig_new(rig, HARTS);
    /* Aligned as ram_copy_page_out() wants it. */
    harvest.shadow = aligned_alloc(PAGE_BYTES, RIG_RAM_BYTES);
    assert_non_null(harvest.shadow);
    put_storm(rig);
    rig_load(rig);
    rig_resume(rig);
    dirty_start(rig->ram->dirty, DIRTY_MIGRATION, true);
    for (int round = 0; round < ROUNDS || !all_storm(rig); round++)
        harvest_round(&harvest);
    assert_true(harvest.pages > STORM_PAGES);
    rig_pause(rig);
    harvest.no_revoke = false;
    harvest_round(&harvest);
    dirty_seal(rig->ram->dirty);
    uint64_t wrong = pages_that_differ(&harvest);
    dirty_unseal(rig->ram->dirty);

    rig_resume(rig); /* and once tracking is off, nobody marks any more */
    dirty_stop(rig->ram->dirty, DIRTY_MIGRATION);
    rig_pause(rig);
    rig_free(rig);
    free(harvest.shadow);
    test_free(rig);
    return wrong;
}

static void a_storm_of_stores_is_harvested_whole(void **state)
{
    (void)state;
    assert_int_equal(storm(false), 0);
}

/* The test of the test: without waiting for the harts it must see pages go missing. */
static void a_harvest_that_does_not_wait_is_caught(void **state)
{
    (void)state;
    uint64_t wrong = 0;

    for (int i = 0; i < 20 && !wrong; i++)
        wrong = storm(true);
    assert_true(wrong > 0);
}

static void a_sleeping_hart_holds_up_no_harvest(void **state)
{
    struct rig *rig = test_calloc(1, sizeof(*rig));

    (void)state;
    rig_new(rig, 2);
    put(rig, as(OP_wfi, 0, 0, 0));
    put(rig, as(OP_jal, zero, 0, -4));
    rig_load(rig);
    rig_resume(rig);
    dirty_start(rig->ram->dirty, DIRTY_MIGRATION, false);
    for (int i = 0; i < 1000; i++)
        dirty_revoke_wait(rig->ram->dirty, dirty_revoke_begin(rig->ram->dirty));
    dirty_stop(rig->ram->dirty, DIRTY_MIGRATION);
    rig_free(rig);
    test_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_storm_of_stores_is_harvested_whole),
        cmocka_unit_test(a_harvest_that_does_not_wait_is_caught),
        cmocka_unit_test(a_sleeping_hart_holds_up_no_harvest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
