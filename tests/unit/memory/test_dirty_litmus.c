/* The protocol of dirty.h in the small: writers with a toy write-permission cache, a harvester, a shadow copy.
 *
 * A writer's table of "tracked" bits stands for its write-TLB entries. A store is: entry tracked? then mark the page
 * and drop the bit; then the data. The harvester clears, revokes, waits, copies into the shadow, round after round
 * while the writers storm. In the end the shadow must equal RAM. The same harvester without the wait must lose a
 * store, once by a hand-built interleaving and so for certain. */
#include "tests/unit/test.h"

#include <inttypes.h>
#include <stdio.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "memory/ram.h"

enum { WRITERS = 3, DEVICES = 1, PAGES = 192, ROUNDS = 400, STORES_PER_POLL = 50 };

static const uint64_t BASE = 0x80000000;

struct litmus {
    /* fixed after setup */
    struct ram *ram;
    bool omit_wait; /* the planted fault */
    /* owner: harvester */
    uint64_t (*shadow)[PAGE_BYTES / 8];
    uint64_t copied;
    /* atomic */
    _Atomic bool stop;
};

struct writer {
    struct litmus *litmus;
    unsigned number;
    struct thread thread;
    struct dirty_writer permission;
    _Atomic bool kicked;
    bool tracked[PAGES];    /* owner: writer thread */
    uint64_t stores, parks; /* owner: writer thread */
    /* Called between the check and the store, where the hand-built interleaving stops the world. */
    void (*between)(struct writer *writer);
};

static void kick(void *opaque)
{
    struct writer *writer = opaque;
    atomic_store_explicit(&writer->kicked, true, memory_order_release);
}

/* The safe point: re-arm every entry, then acknowledge the epoch that was read, never a newer one. */
static void safe_point(struct writer *writer)
{
    struct dirty *dirty = writer->litmus->ram->dirty;

    atomic_store_explicit(&writer->kicked, false, memory_order_relaxed);
    uint64_t epoch = dirty_writer_poll(dirty, &writer->permission);
    if (epoch == 0)
        return;
    bool tracking = dirty_tracking(dirty);
    for (unsigned page = 0; page < PAGES; page++)
        writer->tracked[page] = tracking;
    dirty_writer_ack(dirty, &writer->permission, epoch);
}

/* A counter in the page, one word per writer, that only ever rises. */
static void store(struct writer *writer, unsigned page)
{
    if (writer->tracked[page]) {
        dirty_mark(writer->litmus->ram->dirty, page);
        writer->tracked[page] = false;
    }
    if (writer->between)
        writer->between(writer);
    uint64_t *counter = (uint64_t *)(void *)ram_page_host(writer->litmus->ram, page) + writer->number;
    __atomic_store_n(counter, __atomic_load_n(counter, __ATOMIC_RELAXED) + 1, __ATOMIC_RELAXED);
    writer->stores++;
}

static uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static void storm(void *opaque)
{
    struct writer *writer = opaque;
    struct litmus *litmus = writer->litmus;
    uint32_t random = 0x9e3779b9u * (writer->number + 1);

    dirty_writer_unpark(litmus->ram->dirty, &writer->permission);
    safe_point(writer);
    while (!atomic_load_explicit(&litmus->stop, memory_order_relaxed)) {
        for (int i = 0; i < STORES_PER_POLL; i++)
            store(writer, next_random(&random) % PAGES);
        if (next_random(&random) % 16 == 0) {
            dirty_writer_park(litmus->ram->dirty, &writer->permission);
            dirty_writer_unpark(litmus->ram->dirty, &writer->permission);
            writer->parks++;
            safe_point(writer);
        }
        if (atomic_load_explicit(&writer->kicked, memory_order_acquire))
            safe_point(writer);
    }
    dirty_writer_park(litmus->ram->dirty, &writer->permission);
}

/* A device: no permission cache, data first, then the mark, unconditionally. */
static void device_storm(void *opaque)
{
    struct writer *device = opaque;
    struct litmus *litmus = device->litmus;
    uint32_t random = 77;
    uint64_t value = 0;

    while (!atomic_load_explicit(&litmus->stop, memory_order_relaxed)) {
        uint64_t gpa = BASE + (uint64_t)(next_random(&random) % PAGES) * PAGE_BYTES + 8 * device->number;
        value++;
        bool written = ram_write(litmus->ram, gpa, &value, sizeof(value));
        device->stores += written;
    }
}

static void copy_page(struct litmus *litmus, uint64_t page)
{
    ram_copy_page_out(litmus->shadow[page], ram_page_host(litmus->ram, page));
    litmus->copied++;
}

static void harvest_round(struct litmus *litmus)
{
    struct dirty *dirty = litmus->ram->dirty;
    uint64_t taken[PAGES / DIRTY_WORD_PAGES] = { 0 };
    uint64_t words = dirty_words(dirty);

    for (uint64_t word = 0; (word = dirty_next_word(dirty, DIRTY_MIGRATION, word)) < words; word++)
        taken[word] = dirty_take_word(dirty, DIRTY_MIGRATION, word);
    uint64_t token = dirty_revoke_begin(dirty);
    if (!litmus->omit_wait)
        dirty_revoke_wait(dirty, token);
    for (uint64_t word = 0; word < words; word++)
        for (uint64_t bits = taken[word]; bits; bits &= bits - 1)
            copy_page(litmus, word * DIRTY_WORD_PAGES + (unsigned)__builtin_ctzll(bits));
}

/* Only rounds that found something count: on a busy host the writers may not have begun yet. */
static void harvest_rounds(struct litmus *litmus, int rounds)
{
    while (rounds > 0) {
        uint64_t copied = litmus->copied;
        harvest_round(litmus);
        if (litmus->copied > copied)
            rounds--;
        else
            sched_yield();
    }
}

static void setup(struct litmus *litmus)
{
    litmus->ram = ram_new();
    assert_non_null(litmus->ram);
    assert_int_equal(ram_add(litmus->ram, "ram", BASE, PAGES * PAGE_BYTES, false, NULL, NULL), 0);
    assert_int_equal(ram_seal_layout(litmus->ram, NULL), 0);
    litmus->shadow = calloc(PAGES, PAGE_BYTES);
    assert_non_null(litmus->shadow);
}

static void writer_setup(struct writer *writer, struct litmus *litmus, unsigned number)
{
    writer->litmus = litmus;
    writer->number = number;
    writer->permission.kick = kick;
    writer->permission.opaque = writer;
    atomic_store(&writer->permission.parked, true);
    dirty_writer_register(litmus->ram->dirty, &writer->permission);
}

static unsigned stores_lost(const struct litmus *litmus)
{
    unsigned lost = 0;

    for (unsigned page = 0; page < PAGES; page++)
        lost += memcmp(litmus->shadow[page], ram_page_host(litmus->ram, page), PAGE_BYTES) != 0;
    return lost;
}

static void teardown(struct litmus *litmus)
{
    free(litmus->shadow);
    ram_free(litmus->ram);
}

static void no_store_is_lost_while_writers_storm(void **state)
{
    (void)state;
    struct litmus litmus = { 0 };
    static struct writer writer[WRITERS], device[DEVICES];
    uint64_t stores = 0, parks = 0;

    setup(&litmus);
    for (unsigned i = 0; i < WRITERS; i++) {
        writer_setup(&writer[i], &litmus, i);
        assert_int_equal(thread_start(&writer[i].thread, "storm", storm, &writer[i], NULL), 0);
    }
    for (unsigned i = 0; i < DEVICES; i++) {
        device[i].litmus = &litmus;
        device[i].number = WRITERS + i;
        assert_int_equal(thread_start(&device[i].thread, "device", device_storm, &device[i], NULL), 0);
    }
    dirty_start(litmus.ram->dirty, DIRTY_MIGRATION, true);
    harvest_rounds(&litmus, ROUNDS);
    /* Tracking ends and begins in the middle of the storm: what was written in between counts too. */
    dirty_stop(litmus.ram->dirty, DIRTY_MIGRATION);
    dirty_start(litmus.ram->dirty, DIRTY_MIGRATION, true);
    harvest_rounds(&litmus, ROUNDS);

    atomic_store(&litmus.stop, true);
    for (unsigned i = 0; i < DEVICES; i++) {
        thread_join(&device[i].thread);
        stores += device[i].stores;
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        thread_join(&writer[i].thread);
        stores += writer[i].stores;
        parks += writer[i].parks;
    }
    dirty_seal(litmus.ram->dirty);
    harvest_round(&litmus);
    assert_int_equal(dirty_count(litmus.ram->dirty, DIRTY_MIGRATION), 0);
    print_message("%" PRIu64 " stores, %" PRIu64 " parks, %" PRIu64 " page copies in %d rounds\n", stores, parks,
                  litmus.copied, 2 * ROUNDS);
    assert_true(litmus.copied > PAGES * 2); /* else there was no storm to speak of */
    assert_int_equal(stores_lost(&litmus), 0);
    for (unsigned i = 0; i < WRITERS; i++)
        dirty_writer_unregister(litmus.ram->dirty, &writer[i].permission);
    teardown(&litmus);
}

/* --- the interleaving, by hand ------------------------------------------------------------------------ */

/* The page is marked and its entry's bit dropped, the data not yet stored: now the harvester takes the page. */
static void harvest_between(struct writer *writer)
{
    writer->between = NULL;
    harvest_round(writer->litmus);
}

static void the_harvester_that_does_not_wait_loses_a_store(void **state)
{
    (void)state;
    struct litmus litmus = { .omit_wait = true };
    static struct writer writer;

    setup(&litmus);
    writer_setup(&writer, &litmus, 0);
    dirty_start(litmus.ram->dirty, DIRTY_MIGRATION, true);
    harvest_round(&litmus);
    dirty_writer_unpark(litmus.ram->dirty, &writer.permission);
    safe_point(&writer);

    writer.between = harvest_between;
    store(&writer, 17);
    safe_point(&writer);
    dirty_writer_park(litmus.ram->dirty, &writer.permission);
    harvest_round(&litmus); /* the last one, and the page is not in it */
    assert_int_equal(stores_lost(&litmus), 1);
    print_message("lost a store, as it must without the wait\n");
    dirty_writer_unregister(litmus.ram->dirty, &writer.permission);
    teardown(&litmus);
}

/* The same moment with the wait: the harvester is on a thread of its own and must still be waiting when the data is
 * stored, since the writer has not acknowledged. */
struct harvester {
    struct litmus *litmus;
    struct thread thread;
    _Atomic bool done;
};

static struct harvester patient;

static void harvest_thread(void *opaque)
{
    struct harvester *harvester = opaque;

    harvest_round(harvester->litmus);
    atomic_store(&harvester->done, true);
}

static void start_harvest_between(struct writer *writer)
{
    writer->between = NULL;
    assert_int_equal(thread_start(&patient.thread, "harvest", harvest_thread, &patient, NULL), 0);
    while (!atomic_load(&writer->kicked)) /* it has taken the page and raised the epoch */
        ;
    assert_false(atomic_load(&patient.done));
}

static void the_harvester_that_waits_gets_that_store(void **state)
{
    (void)state;
    struct litmus litmus = { 0 };
    static struct writer writer;

    setup(&litmus);
    writer_setup(&writer, &litmus, 0);
    dirty_start(litmus.ram->dirty, DIRTY_MIGRATION, true);
    harvest_round(&litmus);
    dirty_writer_unpark(litmus.ram->dirty, &writer.permission);
    safe_point(&writer);

    patient.litmus = &litmus;
    writer.between = start_harvest_between;
    store(&writer, 17);
    assert_int_equal(litmus.copied, PAGES); /* still waiting for us */
    safe_point(&writer);
    thread_join(&patient.thread);
    assert_int_equal(litmus.copied, PAGES + 1);
    dirty_writer_park(litmus.ram->dirty, &writer.permission);
    harvest_round(&litmus);
    assert_int_equal(stores_lost(&litmus), 0);
    dirty_writer_unregister(litmus.ram->dirty, &writer.permission);
    teardown(&litmus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_harvester_that_does_not_wait_loses_a_store),
        cmocka_unit_test(the_harvester_that_waits_gets_that_store),
        cmocka_unit_test(no_store_is_lost_while_writers_storm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
