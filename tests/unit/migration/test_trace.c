/* Recorded migrations, replayed (bench/trace.h): what a trace may look like, the best stop among its slices, and that the
 * controller's own stop is near it in all of bench/traces. Run from the top of the tree, as tests/run does. */
#include "tests/unit/test.h"

#include <dirent.h>
#include <unistd.h>

#include "bench/trace.h"

static const char HEAD[] = "godwit trace 1\n# a comment\nlimit-ms 100\ntotal-ms 1050\npause-ms 50\nfixed-ms 10\n";

/* A trace of these lines; what is wrong with it, or "". */
static const char *read_text(struct trace *trace, const char *head, const char *lines)
{
    static char why[256];
    char path[] = "/tmp/godwit-trace-XXXXXX";
    FILE *out = fdopen(mkstemp(path), "w");

    assert_non_null(out);
    fputs(head, out);
    fputs(lines, out);
    assert_int_equal(fclose(out), 0);
    *why = '\0';
    int rc = trace_read(path, trace, why, sizeof(why));
    assert_int_equal(rc < 0, *why != '\0');
    unlink(path);
    return why;
}

static void a_trace_is_read(void **state)
{
    (void)state;
    static struct trace trace;

    assert_string_equal(read_text(&trace, HEAD, "20 0 900 100 5 4000\n40.5 1 400 700 5 8000\n"), "");
    assert_int_equal(trace.slices, 2);
    assert_float_equal(trace.limit_ms, 100, 0);
    assert_float_equal(trace.slice[1].ms, 40.5, 1e-9);
    assert_int_equal(trace.slice[1].left, 400);
    assert_float_equal(trace_page_ms(&trace), 0.1, 1e-9); /* 40 ms for 400 pages */
}

static void a_bad_one_is_refused_with_its_line(void **state)
{
    (void)state;
    static struct trace trace;
    static const char two[] = "20 0 900 100 5 4000\n40 1 400 700 5 8000\n";
    static const struct {
        const char *head, *lines, *why;
    } bad[] = {
        { "godwit trace 2\n", two, "line 1: this is no trace" },
        { HEAD, "20 0 900 100 5\n", "line 7: six numbers" },
        { HEAD, "20 0 900 100 5 4000 7\n", "line 7: six numbers" },
        { HEAD, "20 0 900 100 5 4000\n20 0 900 100 5 4000\n", "line 8: time" },
        { HEAD, "20 1 900 100 5 4000\n30 0 900 100 5 4000\n", "line 8: time" },
        { HEAD, "20 0 900 100 5 4000\n", "missing" },
        { "godwit trace 1\nlimit-s 3\n", two, "line 2: this is no field" },
        { "godwit trace 1\nlimit-ms -3\n", two, "line 2: this is no field" },
        { "godwit trace 1\nlimit-ms 100\n", two, "missing" },
    };

    for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        const char *why = read_text(&trace, bad[i].head, bad[i].lines);
        if (!strstr(why, bad[i].why))
            fail_msg("\"%s\" where \"%s\" was expected", why, bad[i].why);
    }
    char why[256];
    assert_int_equal(trace_read("/nowhere/at/all", &trace, why, sizeof(why)), -1);
    assert_non_null(strstr(why, "/nowhere/at/all"));
}

static void the_best_stop_is_the_first_over_that_keeps_the_limit(void **state)
{
    (void)state;
    static struct trace trace;

    /* At 0.1 ms a page: 100 ms and more, 70 ms, 30 ms but later, 50 ms */
    assert_string_equal(
        read_text(&trace, HEAD, "100 0 901 1 0 1\n200 0 600 2 0 2\n300 0 200 3 0 3\n1000 1 400 4 0 4\n"), "");
    struct trace_stop best = trace_best(&trace);
    assert_float_equal(best.at_ms, 200, 1e-9);
    assert_float_equal(best.pause_ms, 70, 1e-9);
    assert_float_equal(best.total_ms, 270, 1e-9);
    trace.limit_ms = 60;
    assert_float_equal(trace_best(&trace).total_ms, 330, 1e-9);
    trace.limit_ms = 5;
    assert_true(isinf(trace_best(&trace).total_ms));
}

static void the_controller_is_asked_where_rounds_end(void **state)
{
    (void)state;
    static struct trace trace;
    static const char rounds[] = "50 0 50000 10000 0 1\n1000 1 400 20000 0 80000000\n2000 2 400 40000 0 160000000\n"
                                 "3000 2 400 50000 0 200000000\n";

    assert_string_equal(read_text(&trace, HEAD, rounds), "");
    /* After one round it fits, and might be halved; after two it was not. */
    assert_float_equal(trace_controller(&trace).at_ms, 2000, 1e-9);
    trace.limit_ms = 20;
    assert_float_equal(trace_controller(&trace).total_ms, trace.total_ms, 1e-9); /* never: as it was recorded */
}

/* The goal is 1.2 times the best; short migrations are not asked for hundredths of a second. */
static void the_controller_is_near_the_best_in_all_recorded_ones(void **state)
{
    (void)state;
    static struct trace trace;
    DIR *dir = opendir("bench/traces");
    unsigned traces = 0;
    char path[512], why[256];

    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (!strstr(entry->d_name, ".trace"))
            continue;
        snprintf(path, sizeof(path), "bench/traces/%s", entry->d_name);
        if (trace_read(path, &trace, why, sizeof(why)) < 0)
            fail_msg("%s", why);
        struct trace_stop best = trace_best(&trace), stop = trace_controller(&trace);
        if (stop.total_ms > best.total_ms * 1.2 + 300)
            fail_msg("%s: over after %.2f s, and at best %.2f", path, stop.total_ms / 1e3, best.total_ms / 1e3);
        traces++;
    }
    closedir(dir);
    assert_true(traces >= 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_trace_is_read),
        cmocka_unit_test(a_bad_one_is_refused_with_its_line),
        cmocka_unit_test(the_best_stop_is_the_first_over_that_keeps_the_limit),
        cmocka_unit_test(the_controller_is_asked_where_rounds_end),
        cmocka_unit_test(the_controller_is_near_the_best_in_all_recorded_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
