#include "tests/unit/test.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <uv.h>

#include "base/bytes.h"
#include "machine/board.h"
#include "machine/machine.h"
#include "tests/unit/machine/files.h"

enum { MIB = 1 << 20, PATIENCE_S = 60 };
#define COUNTER (BOARD_RAM_BASE + MIB)

/* Guests: bare programs that start at the bottom of RAM. */
static const uint32_t counts[] = {
    0x00100297, /* auipc t0, 0x100: COUNTER */
    0x0002b303, /* ld    t1, 0(t0) */
    0x00130313, /* addi  t1, t1, 1 */
    0x0062b023, /* sd    t1, 0(t0) */
    0xff5ff06f, /* j     -12 */
};
#define POWER_GUEST(high, low)                                                                                         \
    {                                                                                                                  \
        0x001002b7,                              /* lui  t0, 0x100: the power device */                                \
            0x00000337 | (uint32_t)(high) << 12, /* lui  t1, high */                                                   \
            0x00030313 | (uint32_t)(low) << 20,  /* addi t1, t1, low */                                                \
            0x0062a023,                          /* sw   t1, 0(t0) */                                                  \
            0x0000006f,                          /* j    . */                                                          \
    }
static const uint32_t turns_off[] = POWER_GUEST(0x5, 0x555);
static const uint32_t resets[] = POWER_GUEST(0x7, 0x777);
static const uint32_t fails_with_7[] = POWER_GUEST(0x73, 0x333);

static struct machine_config config;
static struct machine *m;
static struct chardev *serial;
static struct err err;
static char events[64]; /* a letter per event, by the guest in capitals */

static void note_event(void *opaque, enum machine_event event, bool by_guest)
{
    static const char letters[2][6] = { "srewp", "SREWP" }; /* stop resume reset(e) shutdown(w) powerdown */
    size_t used = strlen(events);
    (void)opaque;
    if (used + 1 < sizeof(events))
        events[used] = letters[by_guest][event];
}

static struct machine *machine_of(const struct machine_config *wanted)
{
    struct machine_hosts hosts = { .serial = serial };
    struct machine *made = NULL;
    if (machine_new(wanted, &hosts, &made, &err) < 0)
        fail_msg("machine_new: %s", err.text);
    return made;
}

static void boot(const uint32_t *program, size_t bytes)
{
    char path[128];
    file_write(path, "guest", program, bytes);
    strcpy(config.kernel, path);
    m = machine_of(&config);
    machine_on_event(m, note_event, NULL);
    if (machine_boot(m, &err) < 0)
        fail_msg("machine_boot: %s", err.text);
}

static int setup(void **state)
{
    (void)state;
    config = (struct machine_config){ .harts = 2, .ram_bytes = 16 * MIB, .serial = 1, .bios = "none" };
    memset(events, 0, sizeof(events));
    err_clear(&err);
    m = NULL;
    return chardev_open("serial0", "null", uv_default_loop(), &serial, &err);
}

static int teardown(void **state)
{
    (void)state;
    machine_free(m);
    chardev_free(serial);
    return 0;
}

static uint64_t counter(struct machine *of)
{
    uint64_t value;
    assert_true(ram_read(machine_ram(of), COUNTER, &value, sizeof(value)));
    return value;
}

/* Waits for the guest to count on; false when it does not for a minute. */
static bool counts_on(struct machine *of)
{
    uint64_t from = counter(of);
    int64_t until = clock_now_ns() + PATIENCE_S * NS_PER_S;
    while (counter(of) == from) {
        if (clock_now_ns() > until)
            return false;
        sched_yield();
    }
    return true;
}

static enum machine_request next_request(unsigned *code)
{
    int64_t until = clock_now_ns() + PATIENCE_S * NS_PER_S;
    enum machine_request request;
    while ((request = machine_take_request(m, code)) == REQUEST_NONE && clock_now_ns() < until)
        sched_yield();
    return request;
}

static void a_paused_guest_stands_still_and_so_does_its_clock(void **state)
{
    (void)state;
    boot(counts, sizeof(counts));
    assert_int_equal(machine_state(m), RUN_PRELAUNCH);
    assert_int_equal(guest_clock_ns(machine_clock(m)), 0);
    assert_int_equal(machine_resume(m, false, &err), 0);
    assert_int_equal(machine_state(m), RUN_RUNNING);
    assert_true(counts_on(m));
    machine_pause(m, RUN_PAUSED);
    uint64_t stands_at = counter(m);
    int64_t time = guest_clock_ns(machine_clock(m));
    assert_true(time > 0);
    assert_true(machine_last_pause_ns(m) > machine_last_resume_ns(m));
    for (int64_t until = clock_now_ns() + 20 * NS_PER_MS; clock_now_ns() < until;)
        sched_yield();
    assert_int_equal(counter(m), stands_at);
    assert_int_equal(guest_clock_ns(machine_clock(m)), time);
    assert_int_equal(machine_resume(m, false, &err), 0);
    assert_true(counts_on(m));
    assert_string_equal(events, "rsr");
}

static void pausing_a_paused_guest_only_changes_the_name(void **state)
{
    (void)state;
    boot(counts, sizeof(counts));
    machine_pause(m, RUN_PAUSED);
    machine_pause(m, RUN_FINISH_MIGRATE);
    assert_int_equal(machine_state(m), RUN_FINISH_MIGRATE);
    assert_string_equal(events, "");
}

static void a_hand_over_that_fails_gives_the_guest_back_as_it_was(void **state)
{
    (void)state;
    boot(counts, sizeof(counts));
    assert_int_equal(machine_hand_over(m), RUN_PRELAUNCH);
    machine_hand_back(m);
    assert_int_equal(machine_state(m), RUN_PRELAUNCH);
    assert_int_equal(machine_resume(m, false, &err), 0);
    assert_int_equal(machine_hand_over(m), RUN_RUNNING);
    assert_int_equal(machine_state(m), RUN_FINISH_MIGRATE);
    machine_pause(m, RUN_POSTMIGRATE); /* released, then refused */
    machine_hand_back(m);
    assert_int_equal(machine_state(m), RUN_RUNNING);
    assert_true(counts_on(m));
    assert_string_equal(events, "rsr");
}

static void a_stop_during_a_hand_over_decides_how_the_guest_comes_back(void **state)
{
    (void)state;
    boot(counts, sizeof(counts));
    assert_int_equal(machine_resume(m, false, &err), 0);
    assert_int_equal(machine_hand_over(m), RUN_RUNNING);
    machine_pause(m, RUN_PAUSED);
    assert_int_equal(machine_state(m), RUN_FINISH_MIGRATE); /* so `cont` is refused still */
    assert_int_equal(machine_resume(m, false, &err), -EPERM);
    machine_hand_back(m);
    assert_int_equal(machine_state(m), RUN_PAUSED);
    assert_string_equal(events, "rs");
}

static void a_guest_whose_power_off_is_answered_here_does_not_leave(void **state)
{
    unsigned code;
    (void)state;
    boot(turns_off, sizeof(turns_off));
    assert_int_equal(machine_resume(m, false, &err), 0);
    assert_int_equal(next_request(&code), REQUEST_SHUTDOWN);
    assert_int_equal(machine_hand_over(m), RUN_SHUTDOWN); /* it would arrive without its wish, and hang there */
    assert_int_equal(machine_state(m), RUN_RUNNING);
    assert_int_equal(machine_reset(m, &err), 0);
    assert_int_equal(machine_hand_over(m), RUN_RUNNING);
}

static void a_guest_that_is_elsewhere_runs_only_by_force(void **state)
{
    static const enum run_state held[] = { RUN_INMIGRATE, RUN_FINISH_MIGRATE, RUN_POSTMIGRATE, RUN_SHUTDOWN,
                                           RUN_INTERNAL_ERROR };
    (void)state;
    boot(counts, sizeof(counts));
    for (unsigned i = 0; i < sizeof(held) / sizeof(held[0]); i++) {
        err_clear(&err);
        machine_pause(m, held[i]);
        assert_int_equal(machine_resume(m, false, &err), -EPERM);
        assert_true(strlen(err.text) > 10);
        assert_int_equal(machine_state(m), held[i]);
    }
    assert_int_equal(counter(m), 0);
    machine_pause(m, RUN_POSTMIGRATE);
    assert_int_equal(machine_resume(m, true, &err), 0);
    assert_true(counts_on(m));
}

static void a_guest_that_turns_off_says_so(void **state)
{
    unsigned code;
    (void)state;
    boot(turns_off, sizeof(turns_off));
    assert_int_equal(machine_resume(m, false, &err), 0);
    assert_int_equal(next_request(&code), REQUEST_SHUTDOWN);
    assert_string_equal(events, "rW");
    machine_pause(m, RUN_PAUSED);
}

static void a_guest_that_fails_gives_its_code(void **state)
{
    unsigned code;
    (void)state;
    boot(fails_with_7, sizeof(fails_with_7));
    assert_int_equal(machine_resume(m, false, &err), 0);
    assert_int_equal(next_request(&code), REQUEST_FAIL);
    assert_int_equal(code, 7);
}

static void a_reset_starts_over_from_the_images(void **state)
{
    unsigned code;
    uint32_t first = 0;
    (void)state;
    boot(resets, sizeof(resets));
    assert_int_equal(machine_resume(m, false, &err), 0);
    assert_int_equal(next_request(&code), REQUEST_RESET);
    machine_pause(m, RUN_PAUSED);
    assert_true(ram_write(machine_ram(m), BOARD_RAM_BASE, &(uint32_t){ 0 }, 4));
    char path[128];
    file_write(path, "guest", counts, sizeof(counts));
    assert_int_equal(machine_reset(m, &err), 0);
    assert_true(ram_read(machine_ram(m), BOARD_RAM_BASE, &first, 4));
    assert_int_equal(first, counts[0]);
    assert_int_equal(machine_take_request(m, &code), REQUEST_NONE);
    assert_int_equal(machine_resume(m, false, &err), 0);
    assert_true(counts_on(m));
    assert_int_equal(machine_reset(m, &err), 0); /* while it runs */
    assert_int_equal(machine_state(m), RUN_RUNNING);
    assert_true(counts_on(m));
    assert_string_equal(events, "rsEre");
}

static void a_reset_without_its_files_is_an_error_with_their_name(void **state)
{
    (void)state;
    boot(counts, sizeof(counts));
    assert_int_equal(machine_resume(m, false, &err), 0);
    assert_int_equal(unlink(config.kernel), 0);
    assert_true(machine_reset(m, &err) < 0);
    assert_non_null(strstr(err.text, config.kernel));
    assert_int_equal(machine_state(m), RUN_INTERNAL_ERROR);
}

/* --- state ----------------------------------------------------------------------------------------------- */

static void carry(struct machine *from, struct machine *to)
{
    struct machine_section out[MACHINE_SECTIONS_MAX], in[MACHINE_SECTIONS_MAX];
    unsigned count = machine_sections(from, out);
    assert_int_equal(machine_sections(to, in), count);
    for (unsigned i = 0; i < count; i++) {
        struct buf buf = { 0 };
        assert_string_equal(out[i].desc->name, in[i].desc->name);
        assert_int_equal(out[i].instance, in[i].instance);
        if (out[i].lock)
            lock(out[i].lock);
        state_save(out[i].desc, out[i].object, &buf);
        if (out[i].lock)
            unlock(out[i].lock);
        struct reader reader = reader_of(buf.data, buf.size);
        if (in[i].lock)
            lock(in[i].lock);
        if (state_load(in[i].desc, in[i].object, in[i].desc->version, &reader, &err) < 0)
            fail_msg("%s", err.text);
        if (in[i].lock)
            unlock(in[i].lock);
        buf_free(&buf);
    }
    for (uint64_t page = 0; page < ram_pages(machine_ram(from)); page++) {
        uint64_t copy[PAGE_BYTES / 8];
        if (!ram_page_host(machine_ram(from), page))
            continue;
        ram_copy_page_out(copy, ram_page_host(machine_ram(from), page));
        ram_copy_page_in(ram_page_host(machine_ram(to), page), copy);
    }
    machine_loaded(to);
}

static struct machine *incoming_machine(void)
{
    struct machine_config there = config;
    there.incoming = true;
    there.kernel[0] = 0;
    return machine_of(&there);
}

static void a_guest_goes_on_elsewhere_from_where_it_stood(void **state)
{
    (void)state;
    boot(counts, sizeof(counts));
    struct machine *other = incoming_machine();
    assert_int_equal(machine_state(other), RUN_INMIGRATE);
    assert_int_equal(machine_resume(m, false, &err), 0);
    assert_true(counts_on(m));
    machine_pause(m, RUN_FINISH_MIGRATE);
    carry(m, other);
    uint64_t stood_at = counter(m);
    int64_t time = guest_clock_ns(machine_clock(m));
    assert_int_equal(guest_clock_ns(machine_clock(other)), time);
    assert_int_equal(vcpu_hart(machine_vcpu(other, 0))->pc, vcpu_hart(machine_vcpu(m, 0))->pc);
    assert_int_equal(machine_resume(other, true, &err), 0);
    assert_true(counts_on(other));
    assert_true(counter(other) > stood_at);
    assert_int_equal(counter(m), stood_at);
    assert_true(guest_clock_ns(machine_clock(other)) >= time);
    assert_true(machine_reset(other, &err) < 0);
    assert_non_null(strstr(err.text, "-kernel"));
    assert_int_equal(machine_state(other), RUN_RUNNING);
    machine_free(other);
}

static void what_a_guest_asked_for_is_answered_where_it_arrives(void **state)
{
    unsigned code;
    (void)state;
    boot(fails_with_7, sizeof(fails_with_7));
    struct machine *other = incoming_machine();
    assert_int_equal(machine_resume(m, false, &err), 0);
    for (;;) { /* until the note is there: a pause tells */
        struct machine_section sections[MACHINE_SECTIONS_MAX];
        machine_pause(m, RUN_FINISH_MIGRATE);
        machine_sections(m, sections);
        struct buf buf = { 0 };
        state_save(sections[0].desc, sections[0].object, &buf);
        uint32_t requests = be32_get(buf.data + 8);
        buf_free(&buf);
        if (requests)
            break;
        assert_int_equal(machine_resume(m, true, &err), 0);
        sched_yield();
    }
    assert_int_equal(machine_take_request(m, &code), REQUEST_NONE);
    carry(m, other);
    assert_int_equal(machine_take_request(other, &code), REQUEST_NONE); /* not before it runs */
    assert_int_equal(machine_resume(other, true, &err), 0);
    struct machine *source = m;
    m = other;
    assert_int_equal(next_request(&code), REQUEST_FAIL);
    assert_int_equal(code, 7);
    machine_free(source);
}

static void a_retracted_load_leaves_a_machine_as_new(void **state)
{
    (void)state;
    boot(counts, sizeof(counts));
    struct machine *other = incoming_machine();
    assert_int_equal(machine_resume(m, false, &err), 0);
    assert_true(counts_on(m));
    machine_pause(m, RUN_FINISH_MIGRATE);
    carry(m, other);
    machine_unload(other);
    assert_int_equal(guest_clock_ns(machine_clock(other)), 0);
    assert_int_equal(vcpu_hart(machine_vcpu(other, 0))->pc, 0x1000);
    assert_int_equal(vcpu_hart(machine_vcpu(other, 0))->x[6], 0);
    carry(m, other); /* and may be loaded again */
    machine_free(other);
}

static void sections_come_clock_first_then_harts_then_devices(void **state)
{
    struct machine_section sections[MACHINE_SECTIONS_MAX];
    (void)state;
    boot(counts, sizeof(counts));
    unsigned count = machine_sections(m, sections);
    assert_string_equal(sections[0].desc->name, "godwit/clock");
    for (unsigned hart = 0; hart < 2; hart++) {
        assert_string_equal(sections[1 + hart].desc->name, "godwit/hart");
        assert_int_equal(sections[1 + hart].instance, hart);
    }
    assert_true(count >= 6);
    for (unsigned i = 3; i < count; i++) {
        assert_non_null(sections[i].lock);
        for (unsigned j = i + 1; j < count; j++)
            assert_true(sections[i].instance != sections[j].instance ||
                        strcmp(sections[i].desc->name, sections[j].desc->name) != 0);
    }
}

/* --- description ----------------------------------------------------------------------------------------- */

static void the_description_survives_the_wire(void **state)
{
    struct machine_config copy = { 0 };
    struct buf buf = { 0 };
    (void)state;
    strcpy(config.slot[7].model, "virtio-rng-device");
    config.slot[7].legacy = 1;
    state_save(&machine_config_state, &config, &buf);
    struct reader reader = reader_of(buf.data, buf.size);
    assert_int_equal(state_load(&machine_config_state, &copy, 1, &reader, &err), 0);
    assert_int_equal(machine_config_match(&config, &copy, &err), 0);
    memset(buf.data, 0, 4); /* no harts */
    reader = reader_of(buf.data, buf.size);
    assert_int_equal(state_load(&machine_config_state, &copy, 1, &reader, &err), -EPROTO);
    assert_non_null(strstr(err.text, "harts"));
    buf_free(&buf);
}

static void the_first_difference_is_told_in_a_sentence(void **state)
{
    struct machine_config theirs = config;
    (void)state;
    theirs.ram_bytes = 8 * MIB;
    assert_int_equal(machine_config_match(&config, &theirs, &err), -EINVAL);
    assert_string_equal(err.text, "RAM size differs: 16 MiB here, 8 MiB there");
    theirs = config;
    theirs.harts = 4;
    err_clear(&err);
    assert_int_equal(machine_config_match(&config, &theirs, &err), -EINVAL);
    assert_string_equal(err.text, "the number of harts differs: 2 here, 4 there");
    theirs = config;
    strcpy(theirs.slot[6].model, "virtio-console");
    err_clear(&err);
    assert_int_equal(machine_config_match(&config, &theirs, &err), -EINVAL);
    assert_string_equal(err.text, "virtio slot 6 differs: nothing here, virtio-console there");
    strcpy(theirs.slot[6].model, "\x1b[2J\x9b\x9b\x9b\x9b"); /* both ways to begin a terminal's commands */
    err_clear(&err);
    assert_int_equal(machine_config_match(&config, &theirs, &err), -EINVAL);
    assert_string_equal(err.text, "virtio slot 6 differs: nothing here, \\x1b[2J\\x9b\\x9b\\x9b\\x9b there");
    theirs = config;
    strcpy(theirs.name, "other");
    strcpy(theirs.kernel, "/elsewhere");
    assert_int_equal(machine_config_match(&config, &theirs, &err), 0);
}

static void a_machine_that_cannot_be_is_refused(void **state)
{
    struct machine_hosts hosts = { .serial = serial };
    (void)state;
    config.harts = HART_MAX + 1;
    assert_int_equal(machine_new(&config, &hosts, &m, &err), -EINVAL);
    assert_null(m);
    config.harts = 1;
    strcpy(config.slot[7].model, "virtio-console");
    strcpy(config.slot[7].chardev, "nobody");
    err_clear(&err);
    assert_int_equal(machine_new(&config, &hosts, &m, &err), -ENOENT);
    assert_non_null(strstr(err.text, "nobody"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_paused_guest_stands_still_and_so_does_its_clock),
        TEST(pausing_a_paused_guest_only_changes_the_name),
        TEST(a_hand_over_that_fails_gives_the_guest_back_as_it_was),
        TEST(a_stop_during_a_hand_over_decides_how_the_guest_comes_back),
        TEST(a_guest_whose_power_off_is_answered_here_does_not_leave),
        TEST(a_guest_that_is_elsewhere_runs_only_by_force),
        TEST(a_guest_that_turns_off_says_so),
        TEST(a_guest_that_fails_gives_its_code),
        TEST(a_reset_starts_over_from_the_images),
        TEST(a_reset_without_its_files_is_an_error_with_their_name),
        TEST(a_guest_goes_on_elsewhere_from_where_it_stood),
        TEST(what_a_guest_asked_for_is_answered_where_it_arrives),
        TEST(a_retracted_load_leaves_a_machine_as_new),
        TEST(sections_come_clock_first_then_harts_then_devices),
        TEST(the_description_survives_the_wire),
        TEST(the_first_difference_is_told_in_a_sentence),
        TEST(a_machine_that_cannot_be_is_refused),
    };
    return cmocka_run_group_tests(tests, files_begin, files_end);
}
