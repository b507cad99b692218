/* Two machines in one process, a folder for their sockets and notes, and a guest that writes memory all the time. */
#pragma once
#include "tests/unit/test.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "base/clock.h"
#include "machine/board.h"
#include "migration/migration.h"

enum { MIB = 1 << 20, PATIENCE_MS = 60000, WALKED_PAGES = 1024 };
#define WALKED (BOARD_RAM_BASE + MIB)

/* Adds one to the first word of each of 1024 pages, in order, for ever: at any moment the counters are a staircase of
 * one step, and a page that travelled stale or twice breaks it. */
static const uint32_t walks[] = {
    0x02051e63, /*       bnez  a0, sleep      : one hart walks, the others sleep */
    0x00001437, /*       lui   s0, 0x1        */
    0x8014041b, /*       addiw s0, s0, -2047  */
    0x01441413, /*       slli  s0, s0, 20     : 0x80100000 */
    0x40000493, /*       li    s1, 1024       */
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
    0x10500073, /* sleep: wfi                 */
    0xffdff06f, /*       j     sleep          */
};

/* What both machines are made of. */
struct shape {
    unsigned harts;
    uint64_t ram_bytes;
    const uint32_t *program; /* at the start of RAM; NULL: walks */
    size_t program_bytes;
};

struct side {
    struct chardev *serial;
    struct machine *machine;
    struct migration *migration;
};

static struct side a, b;
static char folder[64];

static inline void make_side(struct side *side, bool incoming, const struct shape *shape)
{
    struct err err = { 0 };
    struct machine_config config = {
        .harts = shape->harts, .ram_bytes = shape->ram_bytes, .serial = 1, .bios = "none"
    };
    const void *program = shape->program ? shape->program : walks;
    size_t program_bytes = shape->program ? shape->program_bytes : sizeof(walks);

    config.incoming = incoming;
    if (chardev_open("serial0", "null", uv_default_loop(), &side->serial, &err) < 0)
        fail_msg("chardev: %s", err.text);
    struct machine_hosts hosts = { .serial = side->serial };
    if (machine_new(&config, &hosts, &side->machine, &err) < 0)
        fail_msg("machine_new: %s", err.text);
    if (!incoming) {
        assert_true(ram_load(machine_ram(side->machine), BOARD_RAM_BASE, program, program_bytes));
        if (machine_boot(side->machine, &err) < 0)
            fail_msg("machine_boot: %s", err.text);
    }
    if (migration_new(side->machine, &side->migration, &err) < 0)
        fail_msg("migration_new: %s", err.text);
}

static inline void drop_side(struct side *side)
{
    migration_free(side->migration);
    machine_free(side->machine);
    chardev_free(side->serial);
    *side = (struct side){ 0 };
}

/* A guest in `a`, which does not run yet; `b` waits for one. */
static inline int make_both(const struct shape *shape)
{
    strcpy(folder, "/tmp/godwit-test-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    setenv("XDG_STATE_HOME", folder, 1);
    make_side(&a, false, shape);
    make_side(&b, true, shape);
    return 0;
}

static inline int drop_both(void)
{
    char command[128];
    drop_side(&a);
    drop_side(&b);
    snprintf(command, sizeof(command), "rm -r '%s'", folder);
    return system(command);
}

static inline void set(struct side *side, const char *name, const char *value)
{
    assert_int_equal(param_set_text(migration_params_of(side->migration), name, value, NULL), 0);
}

/* --- the guest that walks --------------------------------------------------------------------------------------- */

static inline uint64_t page_counter(struct side *side, unsigned page)
{
    uint64_t value;
    assert_true(ram_read(machine_ram(side->machine), WALKED + (uint64_t)page * PAGE_BYTES, &value, 8));
    return value;
}

static inline void let_it_walk(struct side *side)
{
    int64_t until_ns = clock_now_ns() + PATIENCE_MS * (int64_t)NS_PER_MS;
    uint64_t from = page_counter(side, WALKED_PAGES - 1);
    while (page_counter(side, WALKED_PAGES - 1) < from + 2) {
        if (clock_now_ns() > until_ns)
            fail_msg("the guest does not run");
        sched_yield();
    }
}

/* Pauses it first. */
static inline void assert_staircase(struct side *side)
{
    machine_pause(side->machine, RUN_PAUSED);
    unsigned steps = 0;
    for (unsigned page = 1; page < WALKED_PAGES; page++) {
        uint64_t before = page_counter(side, page - 1), here = page_counter(side, page);
        if (here == before)
            continue;
        steps++;
        assert_int_equal(here + 1, before);
    }
    assert_true(steps <= 1);
}

/* Notes of hand-overs in doubt, of both machines. */
static inline unsigned written_down(void)
{
    char command[160];
    snprintf(command, sizeof(command), "exit $(ls '%s/godwit' 2>/dev/null | wc -l)", folder);
    return (unsigned)WEXITSTATUS(system(command));
}
