/* Two machines and a migration that is audited: an honest guest moves, a page that changes behind everybody's back
 * ends the move, and the guest runs on where it was. */
#include "tests/unit/migration/two_machines.h"

#include <errno.h>

#define PLANTED (BOARD_RAM_BASE + 12 * MIB)

static char uri[128];
static bool plant;

/* On the migrate thread, after a round: the store of a writer that forgets. */
static void on_event(void *opaque, enum migration_event event, enum migration_state state, uint64_t round)
{
    (void)opaque, (void)state;
    if (event != MIGRATION_EVENT_ROUND || !plant)
        return;
    struct ram *ram = machine_ram(a.machine);
    struct ram_block *block = ram_block_at(ram, PLANTED, PAGE_BYTES);
    __atomic_store_n((uint64_t *)(void *)(block->host + (PLANTED - block->gpa)), round, __ATOMIC_RELAXED);
}

static int setup(void **state)
{
    (void)state;
    if (make_both(&(struct shape){ .harts = 1, .ram_bytes = 16 * MIB }) < 0)
        return -1;
    snprintf(uri, sizeof(uri), "unix:%s/socket", folder);
    plant = false;
    migration_on_event(a.migration, on_event, NULL);
    set(&a, "audit", "1000");
    assert_int_equal(machine_resume(a.machine, false, NULL), 0);
    let_it_walk(&a);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return drop_both();
}

static struct migration_info moved_to(const char *where)
{
    struct err err = { 0 };
    struct migration_info info;
    if (migration_start(a.migration, where, &err) < 0)
        fail_msg("migrate: %s", err.text);
    assert_true(migration_wait(a.migration, PATIENCE_MS));
    migration_query(a.migration, &info);
    return info;
}

static void listen_for_it(void)
{
    struct err err = { 0 };
    if (migration_incoming(b.migration, uri, true, &err) < 0)
        fail_msg("incoming: %s", err.text);
}

static void an_honest_guest_moves_under_audit(void **state)
{
    (void)state;
    listen_for_it();
    struct migration_info info = moved_to(uri);
    if (info.state != MIGRATION_COMPLETED)
        fail_msg("%s: %s", migration_state_name(info.state), info.error.text);
    assert_true(info.audited_pages >= 2 * 16 * MIB / PAGE_BYTES); /* every page, after a round and in the pause */
    assert_int_equal(info.audit_misses, 0);
    let_it_walk(&b);
}

static void a_forgotten_mark_ends_the_move_and_the_guest_runs_on(void **state)
{
    (void)state;
    plant = true;
    listen_for_it();
    struct migration_info info = moved_to(uri);
    assert_int_equal(info.state, MIGRATION_FAILED);
    assert_int_equal(info.error.code, -EBADE);
    assert_non_null(strstr(info.error.text, "at 0x80c00000"));
    assert_int_equal(info.audit_misses, 1);
    assert_int_equal(info.where, GUEST_HERE);
    assert_int_equal(machine_state(a.machine), RUN_RUNNING);
    let_it_walk(&a);
    plant = false;
    char file[128];
    snprintf(file, sizeof(file), "file:%s/guest", folder); /* and may try again */
    info = moved_to(file);
    if (info.state != MIGRATION_COMPLETED)
        fail_msg("%s: %s", migration_state_name(info.state), info.error.text);
}

static void nobody_looks_when_it_is_off(void **state)
{
    (void)state;
    set(&a, "audit", "0");
    listen_for_it();
    struct migration_info info = moved_to(uri);
    assert_int_equal(info.state, MIGRATION_COMPLETED);
    assert_int_equal(info.audited_pages, 0);
}

#define AUDIT_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        AUDIT_TEST(an_honest_guest_moves_under_audit),
        AUDIT_TEST(a_forgotten_mark_ends_the_move_and_the_guest_runs_on),
        AUDIT_TEST(nobody_looks_when_it_is_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
