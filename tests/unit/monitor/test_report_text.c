/* A report as members and as text, from figures by hand. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "monitor/report_text.h"

static struct migration_info info;
static struct migration_report *report;
static struct json_object *own;
static char *text;
static size_t bytes;

static int fresh(void **state)
{
    (void)state;
    info = (struct migration_info){ .state = MIGRATION_COMPLETED, .where = GUEST_THERE, .downtime_ms = 12.5 };
    report = calloc(1, sizeof(*report));
    own = json_object_new_object();
    return report && own ? 0 : -1;
}

static int clean(void **state)
{
    (void)state;
    free(report);
    free(text);
    text = NULL;
    json_object_put(own);
    return 0;
}

static const char *shown(void)
{
    FILE *out = open_memstream(&text, &bytes);
    assert_non_null(out);
    report_json(own, &info, report);
    report_text(own, out);
    fclose(out);
    return text;
}

static void assert_line(const char *line)
{
    if (!strstr(text, line))
        fail_msg("'%s' is not in:\n%s", line, text);
}

static void a_move_is_told_part_by_part(void **state)
{
    (void)state;
    report->paused = true;
    for (unsigned i = 0; i < PAUSE_PARTS; i++)
        report->pause.ns[i] = (int64_t)(i + 1) * NS_PER_MS;
    report_add_device(&report->saved, "godwit/uart", 0, 2000);
    report_add_device(&report->saved, "godwit/clock", 0, 1000);
    report->arrival_known = true;
    report->arrival = (struct report_arrival){ .stopped_ns = 100 * NS_PER_MS,
                                               .eof_ns = 103 * NS_PER_MS,
                                               .prepared_ns = 104 * NS_PER_MS,
                                               .go_ns = 106 * NS_PER_MS,
                                               .harts = 1,
                                               .resumed_ns = { 110 * NS_PER_MS },
                                               .after = { 100 * NS_PER_MS, 50000, 80 * NS_PER_MS } };
    report_add_device(&report->arrival.devices, "godwit/uart", 0, 7000);
    report_add_device(&report->arrival.devices, "godwit/uart", 1, 9000);
    report->before = (struct guest_work){ 1000 * NS_PER_MS, 1000000, 900 * NS_PER_MS };
    report->gap = (struct guest_gap){ true, { 11 * NS_PER_MS, 13 * NS_PER_MS }, { 12 * NS_PER_MS, 14 * NS_PER_MS }, 3 };
    shown();
    assert_line("      1.000 ms  stopping the vCPUs\n");
    assert_line("      5.000 ms  devices finish what they do\n"); /* 2, and 3 that no disks took */
    assert_null(strstr(text, "disks:"));
    assert_line("     66.000 ms  in all");
    assert_line("     12.500 ms  by the source");
    assert_line("     10.000 ms  by the destination");
    assert_line("     11.000 ms  by the guest, at least, and at most 13.000 ms");
    assert_line("     12.000 ms  by vCPU 3, which stood longest, and at most 14.000 ms");
    assert_line("      0.002      0.007  godwit/uart, 0\n");
    assert_line("      0.001          -  godwit/clock, 0\n");
    assert_line("          -      0.009  godwit/uart, 1\n");
    assert_line("the guest's first 100 ms there:\n         50 thousand instructions, 50 % of what");
    assert_line("       80.0 ms of host CPU time, 90.0 ms while");
}

static void disks_have_a_line_where_there_are_some(void **state)
{
    (void)state;
    report->paused = report->disks = true;
    report->pause.ns[PAUSE_DISKS] = 3 * NS_PER_MS;
    shown();
    assert_line("      3.000 ms  disks:");
    assert_line("      0.000 ms  devices finish");
    assert_line("      3.000 ms  in all");
}

static void stalls_and_rounds_are_tables(void **state)
{
    (void)state;
    struct report_round rounds[] = {
        { .first = 1,
          .last = 3,
          .units_scanned = 100,
          .units_data = 60,
          .units_zero = 40,
          .units_dirty = 9,
          .wire_bytes = 10240,
          .elapsed_ns = 100 * NS_PER_MS,
          .predicted_ns = 8 * NS_PER_MS,
          .got_ns = 7 * NS_PER_MS },
        { .first = 4, .last = 4, .units_scanned = 9, .units_data = 9 },
    };
    report->harts = 2;
    report->copying_ns = 200 * NS_PER_MS;
    report->stall[1].kind[STALL_HELD] = (struct histogram_counts){
        .count = 5, .sum_ns = 3000000, .longest_ns = 800000, .bucket = { [9] = 2, [10] = 3 }
    };
    report_add_round(&report->rounds, &rounds[0]);
    report_add_round(&report->rounds, &rounds[1]);
    report->other_wire_bytes = 5 << 10;
    shown();
    assert_null(strstr(text, "vCPU 0")); /* nothing kept it */
    assert_line("what kept vCPU 1 from running in 200 ms of copying:\n");
    assert_line("          5 times, 3.000 ms in all, longest 0.800 ms: held back by its quota\n"
                "          2   from 256 us on\n"
                "          3   from 512 us on\n");
    assert_line("      1-3       100        60        40       0         9         10     100.0      0.1       8.0"
                "       7.0\n");
    assert_line("        4         9         9         0       0         0          0       0.0      0.0         -"
                "         -\n");
    assert_line("  5 KiB more on the wire");
}

static void a_failure_says_in_what_and_what_it_cost(void **state)
{
    (void)state;
    info.state = MIGRATION_FAILED;
    report->ended_in = MIGRATION_DEVICE;
    report->taken_back = 2;
    report->stood_ns = 15 * NS_PER_MS;
    shown();
    assert_line("it ended while it was in: device\n");
    assert_line("pauses taken back: 2, in which the guest stood 15.0 ms\n");
    assert_null(strstr(text, "by the source"));
}

static void an_estimate_is_there_while_it_is_copied(void **state)
{
    (void)state;
    info.state = MIGRATION_ACTIVE;
    report->eta = (struct eta){ .kind = ETA_KNOWN, .p50_ns = 3 * NS_PER_S, .p90_ns = INT64_MAX };
    shown();
    assert_line("until it runs there: 3.0 s or much longer\n");
    assert_null(json_get(json_get(own, "eta"), "p90-ms")); /* it is no number */
    assert_true(json_get_num(json_get(own, "eta"), "p50-ms") == 3000);
}

static void a_report_of_another_version_shows_what_it_has(void **state)
{
    (void)state;
    FILE *out = open_memstream(&text, &bytes);
    report_text(NULL, out);
    report_text(own, out);
    json_put(own, "rounds", json_object_new_object());
    json_put_str(own, "stalls", "none");
    json_put(own, "pause", json_object_new_object());
    json_put_int(own, "seen", 3);
    report_text(own, out);
    fclose(out);
    assert_null(strstr(text, "rounds"));
}

#define report_test(name) cmocka_unit_test_setup_teardown(name, fresh, clean)

int main(void)
{
    const struct CMUnitTest tests[] = {
        report_test(a_move_is_told_part_by_part),
        report_test(disks_have_a_line_where_there_are_some),
        report_test(stalls_and_rounds_are_tables),
        report_test(a_failure_says_in_what_and_what_it_cost),
        report_test(an_estimate_is_there_while_it_is_copied),
        report_test(a_report_of_another_version_shows_what_it_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
