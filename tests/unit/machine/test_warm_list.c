/* The list of hot code as it travels: what is right is made into code, everything else is refused with a sentence. */
#include "tests/unit/test.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <uv.h>

#include "base/clock.h"
#include "machine/board.h"
#include "machine/machine.h"
#include "machine/warm.h"

#define PAGE_AT (BOARD_RAM_BASE + UINT64_C(0x10000))
enum { RET = 0x00008067, RAM_BYTES = 16 << 20, PATIENCE_S = 60 };

static struct chardev *serial;
static struct machine *machine;

static int make_machine(void **state)
{
    (void)state;
    struct machine_config config = {
        .harts = 1, .ram_bytes = RAM_BYTES, .serial = 1, .bios = "none", .incoming = true
    };
    if (chardev_open("serial0", "null", uv_default_loop(), &serial, NULL) < 0)
        return -1;
    struct machine_hosts hosts = { .serial = serial };
    if (machine_new(&config, &hosts, &machine, NULL) < 0)
        return -1;
    return machine_warm_begin(machine, NULL);
}

static int drop_machine(void **state)
{
    (void)state;
    machine_free(machine);
    chardev_free(serial);
    return 0;
}

static void put_page(struct buf *list, uint64_t gpa, unsigned entries, const uint16_t *entry)
{
    buf_put_be64(list, gpa);
    buf_put_be16(list, (uint16_t)entries);
    for (unsigned i = 0; i < entries; i++)
        buf_put_be16(list, entry[i]);
}

static void assert_refused(struct buf *list, const char *why)
{
    struct err err = { 0 };
    assert_int_equal(machine_warm_take(machine, list->data, list->size, &err), -EPROTO);
    if (!strstr(err.text, why))
        fail_msg("\"%s\" says nothing of \"%s\"", err.text, why);
    buf_free(list);
}

static void a_list_that_makes_no_sense_is_refused(void **state)
{
    (void)state;
    static const uint16_t two[] = { 0, 8 }, twice[] = { 8, 8 }, back[] = { 8, 2 }, beyond[] = { 2048 };
    struct buf list = { 0 };
    assert_refused(&list, "0 pages"); /* not even a count */
    buf_put_be32(&list, WARM_PAGES_MAX + 1);
    assert_refused(&list, "the limit is");
    buf_put_be32(&list, 1);
    assert_refused(&list, "cut short");
    buf_put_be32(&list, 1);
    put_page(&list, PAGE_AT, 2, two);
    list.size--;
    assert_refused(&list, "cut short");
    buf_put_be32(&list, 1);
    put_page(&list, PAGE_AT, 2, two);
    buf_put_u8(&list, 0);
    assert_refused(&list, "goes on");
    buf_put_be32(&list, 1);
    put_page(&list, PAGE_AT + 2, 2, two);
    assert_refused(&list, "no page of RAM");
    buf_put_be32(&list, 1);
    put_page(&list, BOARD_RAM_BASE + RAM_BYTES, 2, two);
    assert_refused(&list, "no page of RAM");
    buf_put_be32(&list, 1);
    put_page(&list, UINT64_MAX - 4095, 2, two);
    assert_refused(&list, "no page of RAM");
    buf_put_be32(&list, 2);
    put_page(&list, PAGE_AT, 2, two);
    put_page(&list, PAGE_AT, 2, two);
    assert_refused(&list, "behind");
    buf_put_be32(&list, 1);
    put_page(&list, PAGE_AT, 0, two);
    assert_refused(&list, "0 entries");
    buf_put_be32(&list, 1);
    buf_put_be64(&list, PAGE_AT);
    buf_put_be16(&list, 2049);
    assert_refused(&list, "2049 entries");
    buf_put_be32(&list, 1);
    put_page(&list, PAGE_AT, 2, twice);
    assert_refused(&list, "entry 8");
    buf_put_be32(&list, 1);
    put_page(&list, PAGE_AT, 2, back);
    assert_refused(&list, "entry 2");
    buf_put_be32(&list, 1);
    put_page(&list, PAGE_AT, 1, beyond);
    assert_refused(&list, "entry 2048");
}

static void more_entries_than_the_limit_are_refused(void **state)
{
    (void)state;
    static uint16_t all[2048];
    struct buf list = { 0 };
    unsigned pages = WARM_ENTRIES_MAX / 2048;
    for (unsigned i = 0; i < 2048; i++)
        all[i] = (uint16_t)i;
    buf_put_be32(&list, pages + 1);
    for (unsigned i = 0; i <= pages; i++)
        put_page(&list, PAGE_AT + i * UINT64_C(4096), i < pages ? 2048 : 1, all);
    assert_refused(&list, "1 entries");
}

static struct machine_arrival wait_for_warmed(uint64_t warmed)
{
    struct machine_arrival arrival;
    int64_t until_ns = clock_now_ns() + PATIENCE_S * NS_PER_S;
    do {
        sched_yield();
        machine_arrival(machine, &arrival);
    } while (arrival.warmed < warmed && clock_now_ns() < until_ns);
    assert_int_equal(arrival.warmed, warmed);
    return arrival;
}

static void store(uint64_t gpa, uint32_t word)
{
    assert_true(ram_load(machine_ram(machine), gpa, &word, sizeof(word)));
}

/* What has not arrived is tried again when more has; what changed since is dropped. */
static void code_is_made_when_its_page_is_there_and_dropped_when_it_changed(void **state)
{
    (void)state;
    static const uint16_t first[] = { 0, 64 };
    struct buf list = { 0 };
    if (!machine_jit(machine))
        skip();
    store(PAGE_AT, RET);
    buf_put_be32(&list, 1);
    put_page(&list, PAGE_AT, 2, first);
    assert_int_equal(machine_warm_take(machine, list.data, list.size, NULL), 0);
    buf_free(&list);
    assert_int_equal(wait_for_warmed(1).listed, 2);
    store(PAGE_AT + 128, RET);
    machine_warm_again(machine);
    wait_for_warmed(2);
    store(PAGE_AT, 0x00100513); /* li a0, 1 */
    machine_warm_settle(machine);
    struct machine_arrival arrival;
    machine_arrival(machine, &arrival);
    assert_int_equal(arrival.dropped, 1);
    assert_true(jit_settled(machine_jit(machine)));
    machine_unload(machine); /* a RETRACT: memory will be loaded anew */
    assert_false(jit_settled(machine_jit(machine)));
}

static void what_a_machine_tells_another_understands(void **state)
{
    (void)state;
    struct buf list = { 0 };
    machine_hot_put(machine, &list); /* nothing ran here: an empty list */
    assert_int_equal(list.size, 4);
    assert_int_equal(machine_warm_take(machine, list.data, list.size, NULL), 0);
    buf_free(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_list_that_makes_no_sense_is_refused, make_machine, drop_machine),
        cmocka_unit_test_setup_teardown(more_entries_than_the_limit_are_refused, make_machine, drop_machine),
        cmocka_unit_test_setup_teardown(code_is_made_when_its_page_is_there_and_dropped_when_it_changed, make_machine,
                                        drop_machine),
        cmocka_unit_test_setup_teardown(what_a_machine_tells_another_understands, make_machine, drop_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
