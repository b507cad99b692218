/* The auditor against writers that forget, and against honest ones in every state of their honesty. */
#include "tests/unit/test.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "migration/audit.h"
#include "migration/threads/digest.h"

enum { ROM_PAGES = 15, RAM_PAGES = 200, ALL = 1 << 20, WRITERS = 3, ROUNDS = 300, STORES_PER_POLL = 4 };

static const uint64_t ROM = 0x1000, BASE = 0x80000000;

static struct ram *ram;
static struct unit_hash *hashes;
static struct audit audit;
static struct err err;

static struct unit_hash sent(const void *opaque, uint64_t page)
{
    return ((const struct unit_hash *)opaque)[page];
}

static void send(uint64_t page)
{
    _Alignas(64) uint8_t copy[PAGE_BYTES];
    ram_copy_page_out(copy, ram_page_host(ram, page));
    hashes[page] = ram_page_is_zero(copy) ? DIGEST_ZERO : digest_hash(NULL, copy, PAGE_BYTES);
}

/* Clear, wait, then copy. */
static void harvest(void)
{
    struct dirty *dirty = ram->dirty;
    uint64_t words = dirty_words(dirty), *taken = calloc(words, sizeof(*taken));
    for (uint64_t word = 0; (word = dirty_next_word(dirty, DIRTY_MIGRATION, word)) < words; word++)
        taken[word] = dirty_take_word(dirty, DIRTY_MIGRATION, word);
    dirty_revoke_wait(dirty, dirty_revoke_begin(dirty));
    for (uint64_t word = 0; word < words; word++)
        for (uint64_t bits = taken[word]; bits; bits &= bits - 1)
            send(word * DIRTY_WORD_PAGES + (unsigned)__builtin_ctzll(bits));
    free(taken);
}

static int setup(void **state)
{
    (void)state;
    struct ram_options options = { 0 };
    ram = ram_new();
    if (!ram || ram_add(ram, "some.rom", ROM, ROM_PAGES * PAGE_BYTES, true, &options, NULL) < 0 ||
        ram_add(ram, "some.ram", BASE, RAM_PAGES * PAGE_BYTES, false, &options, NULL) < 0 ||
        ram_seal_layout(ram, NULL) < 0)
        return -1;
    hashes = calloc(ram_pages(ram), sizeof(*hashes));
    audit_init(&audit, ram, sent, hashes, NULL, 1);
    err_clear(&err);
    for (uint64_t i = 0; i < RAM_PAGES; i += 3)
        ram_write(ram, BASE + i * PAGE_BYTES, &(uint64_t){ i + 1 }, 8);
    dirty_start(ram->dirty, DIRTY_MIGRATION, true);
    harvest();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    dirty_stop(ram->dirty, DIRTY_MIGRATION);
    free(hashes);
    ram_free(ram);
    return 0;
}

static uint64_t page_of(uint64_t gpa)
{
    return ram_page_of(ram_block_at(ram, gpa, 1), gpa);
}

static void forgetful_store(uint64_t gpa, uint64_t value)
{
    *(volatile uint64_t *)(void *)(ram_page_host(ram, page_of(gpa)) + gpa % PAGE_BYTES) = value;
}

static void assert_truth(uint64_t sample, bool sealed)
{
    if (audit_round(&audit, sample, sealed, &err) != 0)
        fail_msg("an honest writer was accused: %s", err.text);
    assert_int_equal(audit.misses, 0);
}

/* --- misses ------------------------------------------------------------------------------------------------- */

static void a_store_without_a_mark_is_found_and_named(void **state)
{
    (void)state;
    assert_truth(ALL, false);
    assert_int_equal(audit.pages, ROM_PAGES + RAM_PAGES);
    forgetful_store(BASE + 70 * PAGE_BYTES + 8, 1);
    assert_int_equal(audit_round(&audit, ALL, false, &err), -EBADE);
    assert_int_equal(audit.misses, 1);
    assert_non_null(strstr(err.text, "page 70 of some.ram at 0x80046000"));
    assert_non_null(strstr(err.text, "sent as 0000000000000000"));
}

static void a_store_to_a_rom_without_a_mark_is_found(void **state)
{
    (void)state;
    forgetful_store(ROM + (ROM_PAGES - 1) * PAGE_BYTES, 1);
    assert_int_equal(audit_round(&audit, ALL, false, &err), -EBADE);
    assert_non_null(strstr(err.text, "page 14 of some.rom at 0xf000"));
}

static void a_page_that_was_cleared_without_a_mark_is_found(void **state)
{
    (void)state;
    forgetful_store(BASE + 3 * PAGE_BYTES, 0);
    assert_int_equal(audit_round(&audit, ALL, false, &err), -EBADE);
    assert_non_null(strstr(err.text, "now 0000000000000000"));
}

static void every_miss_is_counted_and_the_first_is_named(void **state)
{
    (void)state;
    for (uint64_t i = 10; i < 15; i++)
        forgetful_store(BASE + i * PAGE_BYTES, 77);
    assert_int_equal(audit_round(&audit, ALL, false, &err), -EBADE);
    assert_int_equal(audit.misses, 5);
    assert_non_null(strstr(err.text, "page 10 of"));
}

static void samples_come_to_every_page_in_the_end(void **state)
{
    (void)state;
    forgetful_store(BASE + 199 * PAGE_BYTES, 1);
    int rounds = 0;
    while (audit_round(&audit, 4, false, &err) == 0)
        assert_true(++rounds < 100000);
    assert_int_equal(audit.misses, 1);
    assert_true(audit.pages < 4 * 100000);
}

static void the_sample_is_a_share_of_what_was_sent(void **state)
{
    (void)state;
    assert_int_equal(audit_sample(0, 100000), 0);
    assert_int_equal(audit_sample(5, 100000), 500);
    assert_int_equal(audit_sample(5, 1999), 9);
    assert_int_equal(audit_sample(5, 0), AUDIT_PAGES_MIN);
    assert_true(audit_sample(AUDIT_ALL, 0) == UINT64_MAX);
    assert_true(audit_sample(999, UINT64_MAX) < UINT64_MAX);
}

/* It looks while the guest runs, by default: memory that nobody has touched stays so. */
static void a_look_touches_no_memory_that_was_untouched(void **state)
{
    (void)state;
    static const struct unit_hash zeros[64];
    struct ram *young = ram_new();
    struct audit look;
    assert_int_equal(ram_add(young, "young", BASE, sizeof(zeros) / sizeof(zeros[0]) * PAGE_BYTES, false, NULL, NULL),
                     0);
    assert_int_equal(ram_seal_layout(young, NULL), 0);
    audit_init(&look, young, sent, zeros, NULL, 1);
    uint64_t before = ram_untouched(young, 0), after;
    assert_int_equal(audit_round(&look, ALL, false, &err), 0);
    after = ram_untouched(young, 0);
    int pagemap = young->pagemap;
    ram_free(young);
    if (pagemap < 0)
        skip();
    assert_true(before == UINT64_MAX && after == UINT64_MAX);
}

static void a_miss_names_who_marked_the_page_before(void **state)
{
    struct dirty_writer writer = { .number = 2 };
    (void)state;
    atomic_init(&writer.parked, true);
    dirty_writer_register(ram->dirty, &writer);
    dirty_trail_start(ram->dirty);
    dirty_mark_ahead(ram->dirty, &writer, page_of(BASE + 70 * PAGE_BYTES));
    harvest();
    forgetful_store(BASE + 70 * PAGE_BYTES, 1);
    assert_int_equal(audit_round(&audit, ALL, false, &err), -EBADE);
    assert_non_null(strstr(err.text, "page 70 of some.ram at 0x80046000, last marked by vCPU 2"));
    dirty_trail_stop(ram->dirty);
    dirty_writer_unregister(ram->dirty, &writer);
}

static void a_bit_that_is_left_in_the_last_round_is_a_miss(void **state)
{
    (void)state;
    assert_truth(ALL, true);
    assert_true(ram_write(ram, BASE, "x", 1));
    assert_int_equal(audit_round(&audit, 1, false, &err), 0);
    assert_int_equal(audit_round(&audit, 1, true, &err), -EBADE);
    assert_non_null(strstr(err.text, "after the last harvest"));
}

static void nothing_is_looked_at_when_it_is_off(void **state)
{
    (void)state;
    forgetful_store(BASE, 5);
    assert_truth(0, false);
    assert_truth(0, true);
    assert_int_equal(audit.pages, 0);
}

/* --- no misses ------------------------------------------------------------------------------------------------ */

static void a_marked_page_may_look_like_anything(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < RAM_PAGES; i++)
        assert_true(ram_write(ram, BASE + i * PAGE_BYTES, "news", 4));
    assert_truth(ALL, false);
    harvest();
    assert_truth(ALL, true);
}

static void a_device_may_mark_late(void **state)
{
    (void)state;
    uint64_t gpa = BASE + 20 * PAGE_BYTES;
    uint8_t *data = ram_write_begin(ram, gpa, 64);
    assert_non_null(data);
    memset(data, 0x55, 64);
    assert_truth(ALL, false);
    assert_int_equal(audit.suspects, 1);
    assert_truth(ALL, false); /* it takes its time */
    assert_int_equal(audit.suspects, 1);
    ram_write_end(ram, gpa, 64);
    assert_truth(ALL, false);
    assert_int_equal(audit.suspects, 0);
}

static void a_suspect_is_forgotten_when_it_was_marked_and_sent(void **state)
{
    (void)state;
    uint64_t gpa = BASE + 20 * PAGE_BYTES;
    uint8_t *data = ram_write_begin(ram, gpa, 64);
    memset(data, 0x55, 64);
    assert_truth(ALL, false);
    ram_write_end(ram, gpa, 64);
    harvest();
    assert_truth(1, true);
    assert_int_equal(audit.suspects, 0);
}

static void a_forgetful_writer_cannot_hide_behind_a_slow_device(void **state)
{
    (void)state;
    uint64_t gpa = BASE + 20 * PAGE_BYTES;
    assert_non_null(ram_write_begin(ram, gpa, 8));
    forgetful_store(BASE + 40 * PAGE_BYTES, 3);
    assert_truth(ALL, false); /* who it was cannot be told yet */
    assert_int_equal(audit.suspects, 1);
    ram_write_end(ram, gpa, 8);
    assert_int_equal(audit_round(&audit, 0, false, &err), -EBADE); /* kept, though nothing is sampled any more */
    assert_non_null(strstr(err.text, "page 40 of"));
}

/* A device and a vCPU whose safe point falls into the auditor's look, so that the device can move on right then. */
struct mover {
    struct dirty_writer permission;
    uint64_t gpa;
    bool overlap; /* the next bracket begins before this one ends */
    unsigned moves;
};

static void move_on(void *opaque)
{
    struct mover *mover = opaque;
    uint64_t gpa = BASE + (100 + ++mover->moves % 50) * PAGE_BYTES;
    if (mover->overlap)
        ram_write_begin(ram, gpa, 8);
    ram_write_end(ram, mover->gpa, 8);
    if (!mover->overlap)
        ram_write_begin(ram, gpa, 8);
    mover->gpa = gpa;
    dirty_writer_ack(ram->dirty, &mover->permission, dirty_writer_poll(ram->dirty, &mover->permission));
}

static void start_mover(struct mover *mover, uint64_t gpa, bool overlap)
{
    *mover = (struct mover){ .permission = { .kick = move_on, .opaque = mover }, .gpa = gpa, .overlap = overlap };
    dirty_writer_register(ram->dirty, &mover->permission);
    *(volatile uint64_t *)(void *)ram_write_begin(ram, gpa, 8) = 99; /* its data is there, its mark is to come */
}

static void end_mover(struct mover *mover)
{
    dirty_writer_unregister(ram->dirty, &mover->permission);
    ram_write_end(ram, mover->gpa, 8);
}

static void a_forgetful_writer_cannot_hide_behind_a_busy_device(void **state)
{
    (void)state;
    struct mover mover;
    start_mover(&mover, BASE + 20 * PAGE_BYTES, false);
    forgetful_store(BASE + 40 * PAGE_BYTES, 3);
    int rc = audit_round(&audit, ALL, false, &err); /* during which the device is never seen at rest */
    end_mover(&mover);
    assert_int_equal(mover.moves, 1);
    assert_int_equal(rc, -EBADE);
    assert_int_equal(audit.misses, 1); /* the device's page was marked by then */
    assert_non_null(strstr(err.text, "page 40 of"));
}

static void a_device_that_is_still_at_it_is_not_taken_for_one_that_is_done(void **state)
{
    (void)state;
    struct mover mover;
    uint64_t slow = BASE + 60 * PAGE_BYTES;
    start_mover(&mover, BASE + 20 * PAGE_BYTES, true);
    memset(ram_write_begin(ram, slow, 8), 0x55, 8);
    int rc = audit_round(&audit, ALL, false, &err);
    unsigned suspects = audit.suspects;
    ram_write_end(ram, slow, 8);
    end_mover(&mover);
    assert_int_equal(mover.moves, 1);
    assert_int_equal(rc, 0);
    assert_int_equal(suspects, 2); /* one of them is marked by now, but who is done cannot be told */
    assert_truth(ALL, false);
    assert_int_equal(audit.suspects, 0);
}

static void a_store_that_was_taken_back_lost_nothing(void **state)
{
    (void)state;
    assert_non_null(ram_write_begin(ram, BASE, 8));
    forgetful_store(BASE + 40 * PAGE_BYTES, 3);
    assert_truth(ALL, false);
    forgetful_store(BASE + 40 * PAGE_BYTES, 0);
    ram_write_end(ram, BASE, 8);
    assert_truth(ALL, false);
}

/* --- storms --------------------------------------------------------------------------------------------------- */

struct writer {
    unsigned number;
    bool forgetful;
    struct thread thread;
    struct dirty_writer permission;
    bool tracked[RAM_PAGES]; /* owner: its thread; stands for its write-TLB entries */
    _Atomic uint64_t stores;
};
static struct writer writers[WRITERS + 1]; /* the last one is a device */
static _Atomic bool stop;

static uint32_t next_random(uint32_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 17;
    *random ^= *random << 5;
    return *random;
}

static void safe_point(struct writer *writer)
{
    uint64_t epoch = dirty_writer_poll(ram->dirty, &writer->permission);
    if (epoch == 0)
        return;
    memset(writer->tracked, true, sizeof(writer->tracked));
    dirty_writer_ack(ram->dirty, &writer->permission, epoch);
}

static void hart_storm(void *opaque)
{
    struct writer *writer = opaque;
    uint32_t random = 0x9e3779b9u * (writer->number + 1);
    dirty_writer_unpark(ram->dirty, &writer->permission);
    safe_point(writer);
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        for (int i = 0; i < STORES_PER_POLL; i++) {
            unsigned page = 1 + next_random(&random) % (RAM_PAGES - 1);
            if (writer->forgetful && i == 0)
                page = 0; /* where nobody marks on its behalf */
            else if (writer->tracked[page])
                dirty_mark(ram->dirty, page_of(BASE + (uint64_t)page * PAGE_BYTES));
            writer->tracked[page] = false;
            uint64_t *word = (uint64_t *)(void *)ram_page_host(ram, page_of(BASE + (uint64_t)page * PAGE_BYTES));
            __atomic_store_n(word + writer->number, random, __ATOMIC_RELAXED);
            atomic_fetch_add_explicit(&writer->stores, 1, memory_order_relaxed);
        }
        safe_point(writer);
        sched_yield(); /* so that there are clean pages to look at */
    }
    dirty_writer_park(ram->dirty, &writer->permission);
}

/* Data first, then, after a while, the mark. */
static void device_storm(void *opaque)
{
    struct writer *writer = opaque;
    uint32_t random = 77;
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        uint64_t gpa = BASE + (1 + next_random(&random) % (RAM_PAGES - 1)) * PAGE_BYTES;
        uint64_t *data = (uint64_t *)(void *)ram_write_begin(ram, gpa, PAGE_BYTES);
        for (unsigned i = 0; i < PAGE_BYTES / 8; i++)
            __atomic_store_n(data + i, random + i, __ATOMIC_RELEASE);
        sched_yield();
        ram_write_end(ram, gpa, PAGE_BYTES);
        atomic_fetch_add_explicit(&writer->stores, 1, memory_order_relaxed);
    }
}

static void start_storm(bool one_forgets)
{
    memset(writers, 0, sizeof(writers));
    atomic_store_explicit(&stop, false, memory_order_relaxed);
    for (unsigned i = 0; i <= WRITERS; i++) {
        writers[i].number = i;
        writers[i].forgetful = one_forgets && i == 0;
        if (i < WRITERS) {
            memset(writers[i].tracked, true, sizeof(writers[i].tracked)); /* its first store anywhere is a slow one */
            atomic_init(&writers[i].permission.parked, true);
            dirty_writer_register(ram->dirty, &writers[i].permission);
        }
        assert_int_equal(
            thread_start(&writers[i].thread, "storm", i < WRITERS ? hart_storm : device_storm, &writers[i], NULL), 0);
    }
}

static uint64_t least_stores(void)
{
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i <= WRITERS; i++) {
        uint64_t stores = atomic_load_explicit(&writers[i].stores, memory_order_relaxed);
        least = stores < least ? stores : least;
    }
    return least;
}

/* The stores before the first revocation count too. */
static void await_stores(void)
{
    while (least_stores() < STORES_PER_POLL)
        sched_yield();
}

static void end_storm(void)
{
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    for (unsigned i = 0; i <= WRITERS; i++) {
        thread_join(&writers[i].thread);
        if (i < WRITERS)
            dirty_writer_unregister(ram->dirty, &writers[i].permission);
    }
}

static void an_honest_storm_is_never_accused(void **state)
{
    (void)state;
    start_storm(false);
    await_stores();
    int rc = 0;
    uint64_t seen = 0;
    for (int round = 0; (round < ROUNDS || least_stores() < 1000) && rc == 0; round++) {
        harvest();
        rc = audit_round(&audit, ALL, false, &err);
        seen += audit.suspects;
    }
    end_storm();
    if (rc < 0)
        fail_msg("an honest writer was accused: %s", err.text);
    harvest();
    assert_truth(ALL, true);
    if (getenv("TEST_FIGURES"))
        print_message("  %llu pages looked at, %llu suspicions put off\n", (unsigned long long)audit.pages,
                      (unsigned long long)seen);
}

static void one_that_forgets_is_found_among_honest_ones(void **state)
{
    (void)state;
    start_storm(true);
    await_stores();
    int rc = 0;
    for (int round = 0; round < 100000 && rc == 0; round++) {
        harvest();
        rc = audit_round(&audit, ALL, false, &err);
    }
    end_storm();
    assert_int_equal(rc, -EBADE);
    assert_non_null(strstr(err.text, "page 0 of some.ram"));
}

#define AUDIT_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        AUDIT_TEST(a_store_without_a_mark_is_found_and_named),
        AUDIT_TEST(a_store_to_a_rom_without_a_mark_is_found),
        AUDIT_TEST(a_page_that_was_cleared_without_a_mark_is_found),
        AUDIT_TEST(every_miss_is_counted_and_the_first_is_named),
        AUDIT_TEST(samples_come_to_every_page_in_the_end),
        AUDIT_TEST(the_sample_is_a_share_of_what_was_sent),
        AUDIT_TEST(a_look_touches_no_memory_that_was_untouched),
        AUDIT_TEST(a_miss_names_who_marked_the_page_before),
        AUDIT_TEST(a_bit_that_is_left_in_the_last_round_is_a_miss),
        AUDIT_TEST(nothing_is_looked_at_when_it_is_off),
        AUDIT_TEST(a_marked_page_may_look_like_anything),
        AUDIT_TEST(a_device_may_mark_late),
        AUDIT_TEST(a_suspect_is_forgotten_when_it_was_marked_and_sent),
        AUDIT_TEST(a_forgetful_writer_cannot_hide_behind_a_slow_device),
        AUDIT_TEST(a_forgetful_writer_cannot_hide_behind_a_busy_device),
        AUDIT_TEST(a_device_that_is_still_at_it_is_not_taken_for_one_that_is_done),
        AUDIT_TEST(a_store_that_was_taken_back_lost_nothing),
        AUDIT_TEST(an_honest_storm_is_never_accused),
        AUDIT_TEST(one_that_forgets_is_found_among_honest_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
