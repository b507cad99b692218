/* Two machines, `verify=full`, and faults that nothing else sees: a page that changed behind everybody's back on either side
 * keeps the guest where it is, and is named. */
#include "tests/unit/migration/two_machines.h"

#include <errno.h>

#include "migration/outgoing.h"

#define PLANTED (BOARD_RAM_BASE + 12 * MIB)

static char uri[128];
static enum planted { NOWHERE, HERE, THERE, DEVICES } plant;
static uint64_t planted_at;

/* The store of a writer that forgets, and a bit that flips in memory: past RAM's own functions. More than once when a pause is taken
 * back: so it is set, and not turned. */
static void flip(struct side *side, uint64_t gpa)
{
    struct ram_block *block = ram_block_at(machine_ram(side->machine), gpa, 8);
    __atomic_fetch_or((uint64_t *)(void *)(block->host + (gpa - block->gpa)), 1, __ATOMIC_RELAXED);
}

/* On the migrate thread of either side: the source's guest stands, or all of it is loaded. */
static void on_event(void *opaque, enum migration_event event, enum migration_state state, uint64_t round)
{
    struct side *side = opaque;
    (void)round;
    if (event == MIGRATION_EVENT_STATE && state == MIGRATION_DEVICE && plant == DEVICES && side == &b) {
        /* Everything was sent, and the source waits for PREPARED. */
        lock(&a.migration->lock);
        struct outgoing *o = (struct outgoing *)(void *)((char *)a.migration->ear - offsetof(struct outgoing, ear));
        o->devices_sum[1] ^= 1;
        unlock(&a.migration->lock);
    } else if (event == MIGRATION_EVENT_STATE && state == MIGRATION_DEVICE && plant == (side == &a ? HERE : THERE))
        flip(side, planted_at);
}

static int setup(void **state)
{
    (void)state;
    if (make_both(&(struct shape){ .harts = 1, .ram_bytes = 16 * MIB }) < 0)
        return -1;
    snprintf(uri, sizeof(uri), "unix:%s/socket", folder);
    plant = NOWHERE;
    planted_at = PLANTED;
    migration_on_event(a.migration, on_event, &a);
    migration_on_event(b.migration, on_event, &b);
    set(&a, "audit", "0");
    set(&a, "verify", "full");
    assert_int_equal(machine_resume(a.machine, false, NULL), 0);
    let_it_walk(&a);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return drop_both();
}

static struct migration_info move(void)
{
    struct err err = { 0 };
    struct migration_info info;
    if (migration_incoming(b.migration, uri, true, &err) < 0)
        fail_msg("incoming: %s", err.text);
    if (migration_start(a.migration, uri, &err) < 0)
        fail_msg("migrate: %s", err.text);
    assert_true(migration_wait(a.migration, PATIENCE_MS));
    migration_query(a.migration, &info);
    return info;
}

static void assert_refused(const char *where, const char *by)
{
    struct migration_info info = move();
    assert_int_equal(info.state, MIGRATION_FAILED);
    if (!strstr(info.error.text, where) || !strstr(info.error.text, by))
        fail_msg("%s", info.error.text);
    assert_int_equal(info.where, GUEST_HERE);
    assert_int_equal(machine_state(a.machine), RUN_RUNNING);
    assert_true(migration_wait(b.migration, PATIENCE_MS));
    assert_int_not_equal(machine_state(b.machine), RUN_RUNNING);
    assert_int_equal(written_down(), 0);
    let_it_walk(&a);
}

static void what_is_equal_goes(void **state)
{
    (void)state;
    struct migration_info info = move();
    if (info.state != MIGRATION_COMPLETED)
        fail_msg("%s: %s", migration_state_name(info.state), info.error.text);
    assert_staircase(&b);
}

static void a_writer_that_forgot_to_mark_is_found_in_the_pause(void **state)
{
    (void)state;
    plant = HERE;
    assert_refused("page 3072 of riscv_virt_board.ram at 0x80c00000", "nobody since the migration began");
}

static void a_bit_that_flips_after_loading_is_found(void **state)
{
    (void)state;
    plant = THERE;
    assert_refused("page 3072 of riscv_virt_board.ram at 0x80c00000", "last marked by");
}

static void a_rehearsal_finds_it_too_and_the_next_guest_is_welcome(void **state)
{
    struct err err = { 0 };
    struct migration_info info;
    (void)state;
    plant = THERE;
    if (migration_incoming(b.migration, uri, true, &err) < 0 || migration_rehearse(a.migration, uri, &err) < 0)
        fail_msg("%s", err.text);
    assert_true(migration_wait(a.migration, PATIENCE_MS));
    migration_query(a.migration, &info);
    assert_int_equal(info.state, MIGRATION_FAILED);
    assert_non_null(strstr(info.error.text, "page 3072 of"));
    assert_int_equal(machine_state(a.machine), RUN_RUNNING);
    plant = NOWHERE;
    if (migration_start(a.migration, uri, &err) < 0)
        fail_msg("%s", err.text);
    assert_true(migration_wait(a.migration, PATIENCE_MS));
    migration_query(a.migration, &info);
    if (info.state != MIGRATION_COMPLETED)
        fail_msg("%s: %s", migration_state_name(info.state), info.error.text);
    assert_staircase(&b);
}

static void the_last_writer_of_the_page_is_named(void **state)
{
    (void)state;
    plant = THERE;
    planted_at = WALKED + 5 * PAGE_BYTES + 64; /* beside the counter that the guest keeps there */
    assert_refused("page 261 of riscv_virt_board.ram at 0x80105000", "last marked by vCPU 0");
}

static void devices_that_are_not_what_was_sent_keep_the_guest_here(void **state)
{
    (void)state;
    set(&a, "verify", "digest");
    plant = DEVICES;
    assert_refused("the devices' state that the destination has loaded is not what was sent", "");
}

/* docs/reliability.md says so: the digest knows what was loaded, and not what became of it. */
static void the_digest_alone_does_not_see_it(void **state)
{
    uint64_t value = 0;
    (void)state;
    set(&a, "verify", "digest");
    plant = THERE;
    struct migration_info info = move();
    assert_int_equal(info.state, MIGRATION_COMPLETED);
    assert_true(ram_read(machine_ram(b.machine), PLANTED, &value, 8));
    assert_int_equal(value, 1);
}

/* --- a store lost to a missing wait ------------------------------------------------------------------------------ */

/* A vCPU that stores to one page while it is harvested, and comes to its safe point when a harvester waits for it, or behind that
 * store when none does. All of it on the one worker's thread: no luck is needed. */
static struct {
    struct source_ops honest, ops;
    struct dirty_writer writer;
    uint64_t page;
    uint64_t *host;
    bool waits, permitted, runs, done;
} late;

static void late_kick(void *opaque)
{
    (void)opaque;
}

static void late_safe_point(void)
{
    struct dirty *dirty = machine_ram(a.machine)->dirty;
    uint64_t epoch = dirty_writer_poll(dirty, &late.writer);
    if (!epoch)
        return;
    late.permitted = false;
    dirty_writer_ack(dirty, &late.writer, epoch);
}

static void late_store(void)
{
    if (!late.permitted)
        dirty_mark_ahead(machine_ram(a.machine)->dirty, &late.writer, late.page);
    late.permitted = true;
    __atomic_fetch_add(late.host, 1, __ATOMIC_RELAXED);
}

static uint64_t late_take(struct source *source, uint64_t word)
{
    if (word == late.page / CHUNK_UNITS && !late.done) {
        dirty_writer_unpark(machine_ram(a.machine)->dirty, &late.writer);
        late.runs = true;
        late_safe_point();
        late_store(); /* it has permission from here on */
    }
    return late.honest.take(source, word);
}

static void late_revoke_wait(struct source *source, uint64_t token)
{
    struct dirty *dirty = machine_ram(a.machine)->dirty;
    bool forgotten = late.runs && !late.waits; /* the planted fault: all are waited for but this one */
    if (late.runs && late.waits)
        late_safe_point();
    if (forgotten)
        dirty_writer_park(dirty, &late.writer);
    late.honest.revoke_wait(source, token);
    if (forgotten)
        dirty_writer_unpark(dirty, &late.writer); /* and goes on with its permission */
}

static int late_copy(struct source *source, uint64_t unit, void *out)
{
    int rc = late.honest.copy(source, unit, out);
    if (unit == late.page && late.runs) {
        late_store();
        late_safe_point();
        dirty_writer_park(machine_ram(a.machine)->dirty, &late.writer);
        late.runs = false;
        late.done = true;
    }
    return rc;
}

static int late_setup(void **state)
{
    int rc = setup(state);
    if (rc < 0)
        return rc;
    memset(&late, 0, sizeof(late));
    struct ram *ram = machine_ram(a.machine);
    const struct ram_block *block = ram_block_at(ram, PLANTED, 8);
    late.page = ram_page_of(block, PLANTED);
    late.host = (uint64_t *)(void *)(block->host + (PLANTED - block->gpa));
    late.writer = (struct dirty_writer){ .kick = late_kick, .number = 7 };
    atomic_store(&late.writer.parked, true);
    dirty_writer_register(ram->dirty, &late.writer);
    late.honest = late.ops = *a.migration->ram->ops;
    late.ops.take = late_take;
    late.ops.revoke_wait = late_revoke_wait;
    late.ops.copy = late_copy;
    late.ops.blank = NULL; /* every page is copied */
    a.migration->ram->ops = &late.ops;
    set(&a, "threads", "1");
    return 0;
}

static int late_teardown(void **state)
{
    dirty_writer_unregister(machine_ram(a.machine)->dirty, &late.writer);
    return teardown(state);
}

static void a_harvest_that_waits_loses_no_store(void **state)
{
    uint64_t value = 0;
    (void)state;
    late.waits = true;
    set(&a, "audit", "1000");
    struct migration_info info = move();
    if (info.state != MIGRATION_COMPLETED)
        fail_msg("%s: %s", migration_state_name(info.state), info.error.text);
    assert_true(late.done && ram_read(machine_ram(b.machine), PLANTED, &value, 8));
    assert_int_equal(value, 2);
}

static void a_store_lost_to_a_missing_wait_is_found_by_verify(void **state)
{
    (void)state;
    assert_refused("page 3072 of riscv_virt_board.ram at 0x80c00000", "last marked by vCPU 7");
}

static void a_store_lost_to_a_missing_wait_is_found_by_the_auditor(void **state)
{
    (void)state;
    set(&a, "verify", "digest");
    set(&a, "audit", "1000");
    assert_refused(
        "the auditor found a page that changed without a mark: page 3072 of riscv_virt_board.ram at 0x80c00000",
        "last marked by vCPU 7");
}

static void a_store_lost_to_a_missing_wait_is_not_the_digests_to_see(void **state)
{
    (void)state;
    set(&a, "verify", "digest");
    struct migration_info info = move();
    assert_int_equal(info.state, MIGRATION_COMPLETED);
}

/* And somebody who asks for that on the way to a file hears that nobody is there to ask. */
static void a_file_cannot_be_asked(void **state)
{
    struct err err = { 0 };
    struct migration_info info;
    char file[128];
    (void)state;
    snprintf(file, sizeof(file), "file:%s/guest", folder);
    assert_int_equal(migration_start(a.migration, file, &err), 0);
    assert_true(migration_wait(a.migration, PATIENCE_MS));
    migration_query(a.migration, &info);
    assert_int_equal(info.state, MIGRATION_FAILED);
    assert_non_null(strstr(info.error.text, "verify=full"));
    let_it_walk(&a);
}

#define VERIFY_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

#define LATE_TEST(test) cmocka_unit_test_setup_teardown(test, late_setup, late_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        VERIFY_TEST(what_is_equal_goes),
        VERIFY_TEST(a_writer_that_forgot_to_mark_is_found_in_the_pause),
        VERIFY_TEST(a_bit_that_flips_after_loading_is_found),
        VERIFY_TEST(a_rehearsal_finds_it_too_and_the_next_guest_is_welcome),
        VERIFY_TEST(the_last_writer_of_the_page_is_named),
        VERIFY_TEST(devices_that_are_not_what_was_sent_keep_the_guest_here),
        VERIFY_TEST(the_digest_alone_does_not_see_it),
        VERIFY_TEST(a_file_cannot_be_asked),
        LATE_TEST(a_harvest_that_waits_loses_no_store),
        LATE_TEST(a_store_lost_to_a_missing_wait_is_found_by_verify),
        LATE_TEST(a_store_lost_to_a_missing_wait_is_found_by_the_auditor),
        LATE_TEST(a_store_lost_to_a_missing_wait_is_not_the_digests_to_see),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
