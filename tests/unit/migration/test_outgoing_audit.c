/* Two machines and a migration that is audited: an honest guest moves, a page that changes behind everybody's back
 * ends the move, and the guest runs on where it was. */
#include "tests/unit/test.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "base/clock.h"
#include "machine/board.h"
#include "migration/migration.h"

enum { MIB = 1 << 20, PATIENCE_MS = 60000 };
#define COUNTED (BOARD_RAM_BASE + MIB)
#define PLANTED (BOARD_RAM_BASE + 12 * MIB)

/* Adds one to the first words of 512 pages, for ever. */
static const uint32_t counts[] = {
    0x00001437, /*       lui   s0, 0x1        */
    0x8014041b, /*       addiw s0, s0, -2047  */
    0x01441413, /*       slli  s0, s0, 20     : 0x80100000 */
    0x20000493, /*       li    s1, 512        */
    0x00001a37, /*       lui   s4, 1          */
    0x00040293, /* again: mv   t0, s0         */
    0x00048313, /*       mv    t1, s1         */
    0x0002b383, /* next: ld    t2, 0(t0)      */
    0x00138393, /*       addi  t2, t2, 1      */
    0x0072b023, /*       sd    t2, 0(t0)      */
    0x014282b3, /*       add   t0, t0, s4     */
    0xfff30313, /*       addi  t1, t1, -1     */
    0xfe0316e3, /*       bnez  t1, next       */
    0xfe1ff06f, /*       j     again          */
};

struct side {
    struct chardev *serial;
    struct machine *machine;
    struct migration *migration;
};
static struct side a, b;
static char folder[64], uri[128];
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

static void make_side(struct side *side, bool incoming)
{
    struct err err = { 0 };
    struct machine_config config = { .harts = 1, .ram_bytes = 16 * MIB, .serial = 1, .bios = "none" };
    config.incoming = incoming;
    if (chardev_open("serial0", "null", uv_default_loop(), &side->serial, &err) < 0)
        fail_msg("chardev: %s", err.text);
    struct machine_hosts hosts = { .serial = side->serial };
    if (machine_new(&config, &hosts, &side->machine, &err) < 0)
        fail_msg("machine_new: %s", err.text);
    if (!incoming) {
        assert_true(ram_load(machine_ram(side->machine), BOARD_RAM_BASE, counts, sizeof(counts)));
        if (machine_boot(side->machine, &err) < 0)
            fail_msg("machine_boot: %s", err.text);
    }
    if (migration_new(side->machine, &side->migration, &err) < 0)
        fail_msg("migration_new: %s", err.text);
}

static void drop_side(struct side *side)
{
    migration_free(side->migration);
    machine_free(side->machine);
    chardev_free(side->serial);
    *side = (struct side){ 0 };
}

static void set_audit(const char *pages)
{
    assert_int_equal(param_set_text(migration_params_of(a.migration), "audit", pages, NULL), 0);
}

static void let_it_count(struct side *side)
{
    int64_t until_ns = clock_now_ns() + PATIENCE_MS * (int64_t)NS_PER_MS;
    uint64_t from, now;
    assert_true(ram_read(machine_ram(side->machine), COUNTED, &from, 8));
    do {
        if (clock_now_ns() > until_ns)
            fail_msg("the guest does not run");
        sched_yield();
        assert_true(ram_read(machine_ram(side->machine), COUNTED, &now, 8));
    } while (now < from + 2);
}

static int setup(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/godwit-test-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    setenv("XDG_STATE_HOME", folder, 1);
    snprintf(uri, sizeof(uri), "unix:%s/socket", folder);
    plant = false;
    make_side(&a, false);
    make_side(&b, true);
    migration_on_event(a.migration, on_event, NULL);
    set_audit("1000000");
    assert_int_equal(machine_resume(a.machine, false, NULL), 0);
    let_it_count(&a);
    return 0;
}

static int teardown(void **state)
{
    char command[128];
    (void)state;
    drop_side(&a);
    drop_side(&b);
    snprintf(command, sizeof(command), "rm -r '%s'", folder);
    return system(command);
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
    let_it_count(&b);
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
    let_it_count(&a);
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
    set_audit("0");
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
