#include "tests/unit/monitor/fakes.h"

#include <signal.h>
#include <sys/wait.h>

#include "monitor/client.h"

/* The client in a child, the monitor in this process. */
static pid_t child;
static char shown[16384], errors[16384];

static int fresh(void **state)
{
    (void)state;
    set_up(MONITOR_QMP);
    assert_heard("QMP");
    close(peer);
    peer = -1;
    return 0;
}

static void catch_output(int fd, const char *name)
{
    char file[128];
    snprintf(file, sizeof file, "%s/%s", folder, name);
    int to = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(to, fd);
    close(to);
}

static void start(const char *arguments)
{
    char text[512], *words[32] = { "migrate" };
    int count = 1;
    const char *monitor_path = path;
    fflush(NULL);
    child = fork();
    if (child != 0)
        return;
    catch_output(1, "out");
    catch_output(2, "err");
    snprintf(text, sizeof text, arguments, monitor_path);
    for (char *word = strtok(text, " "); word; word = strtok(NULL, " "))
        words[count++] = word;
    int code = client_main(count, words);
    fflush(NULL);
    _exit(code);
}

static void read_output(const char *name, char *out, size_t size)
{
    char file[128];
    snprintf(file, sizeof file, "%s/%s", folder, name);
    FILE *in = fopen(file, "r");
    assert_non_null(in);
    out[fread(out, 1, size - 1, in)] = '\0';
    fclose(in);
    unlink(file);
}

/* Exit code; -1 when it never ended. */
static int end(void)
{
    int status;
    for (int turns = 0; turns < 20000; turns++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        if (waitpid(child, &status, WNOHANG) == child) {
            read_output("out", shown, sizeof shown);
            read_output("err", errors, sizeof errors);
            return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
        }
        poll(NULL, 0, 1);
    }
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    return -1;
}

static void wait_for_start(void)
{
    for (int turns = 0; turns < 20000 && !migration.started[0]; turns++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        poll(NULL, 0, 1);
    }
    assert_true(migration.started[0]);
}

static void the_exit_code_says_where_the_guest_is(void **state)
{
    (void)state;
    static const struct {
        enum migration_state state;
        enum migration_where where;
        int error, code;
    } rows[] = {
        { MIGRATION_COMPLETED, GUEST_THERE, 0, CLIENT_MOVED },
        { MIGRATION_FAILED, GUEST_HERE, -EPIPE, CLIENT_FAILED },
        { MIGRATION_FAILED, GUEST_HERE, -ETIME, CLIENT_GAVE_UP },
        { MIGRATION_FAILED, GUEST_HERE, -EREMOTEIO, CLIENT_REFUSED },
        { MIGRATION_FAILED, GUEST_UNKNOWN, -EPIPE, CLIENT_UNKNOWN },
        { MIGRATION_UNRESOLVED, GUEST_UNKNOWN, -EPIPE, CLIENT_UNKNOWN },
        { MIGRATION_CANCELLED, GUEST_HERE, 0, CLIENT_CANCELLED },
        { MIGRATION_NONE, GUEST_HERE, 0, CLIENT_UNKNOWN },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        migration.started[0] = '\0';
        migration.info = (struct migration_info){ 0 };
        start("--monitor %s --progress none tcp:h:1");
        wait_for_start();
        if (rows[i].error)
            err_set(&migration.info.error, rows[i].error, "row %zu", i);
        migration.info.where = rows[i].where;
        migration_moves(rows[i].state);
        int code = end();
        if (code != rows[i].code)
            fail_msg("row %zu exits with %d, not %d: %s", i, code, rows[i].code, errors);
        if (rows[i].error)
            assert_non_null(strstr(errors, migration.info.error.text));
    }
}

static void options_reach_the_source_before_it_starts(void **state)
{
    (void)state;
    start("-m unix:%s --downtime-limit 120 --max-bandwidth 2M --threads 3 --progress none unix:/there");
    wait_for_start();
    migration_moves(MIGRATION_COMPLETED);
    assert_int_equal(end(), CLIENT_MOVED);
    assert_string_equal(migration.started, "unix:/there");
    assert_int_equal(migration.params.downtime_limit_ms, 120);
    assert_int_equal(migration.params.max_bandwidth_bytes_per_s, 2 << 20);
    assert_int_equal(migration.params.threads, 3);
}

static void nothing_starts_when_something_is_wrong(void **state)
{
    (void)state;
    start("--monitor %s --downtime-limit 999999999 tcp:h:1");
    assert_int_equal(end(), CLIENT_NOT_STARTED);
    assert_non_null(strstr(errors, "downtime-limit"));
    migration.start_answer = -EINVAL;
    start("--monitor %s tcp:h:1");
    assert_int_equal(end(), CLIENT_NOT_STARTED);
    start("--monitor %s.not tcp:h:1");
    assert_int_equal(end(), CLIENT_NOT_STARTED);
    assert_non_null(strstr(errors, ".not"));
    static const char *const wrong[] = { "tcp:h:1",
                                         "--monitor %s",
                                         "--monitor %s a b",
                                         "--monitor %s --threads x tcp:h:1",
                                         "--monitor %s --max-bandwidth 5Q tcp:h:1",
                                         "--monitor %s --progress loud tcp:h:1",
                                         "--monitor %s --telepathy tcp:h:1" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        start(wrong[i]);
        assert_int_equal(end(), CLIENT_USAGE);
        assert_non_null(strstr(errors, "usage: "));
    }
    assert_string_equal(migration.started, "");
    start("--help");
    assert_int_equal(end(), 0);
    assert_non_null(strstr(shown, "--downtime-limit"));
}

static void progress_has_a_line_a_round_and_the_end_a_table(void **state)
{
    (void)state;
    start("--monitor %s --progress plain tcp:h:1");
    wait_for_start();
    migration.info.rounds = 1;
    migration.info.ram_total = 1 << 30;
    migration.info.ram_remaining = 1 << 28;
    migration_moves(MIGRATION_ACTIVE);
    for (int i = 0; i < 300; i++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        poll(NULL, 0, 1);
    }
    migration.info.wire_bytes = 1 << 28;
    migration.info.raw_bytes = 3 << 28;
    migration.info.downtime_ms = 34.5;
    migration.info.predicted_downtime_ms = 40;
    migration.report.paused = true;
    migration.report.pause.ns[PAUSE_START] = 1500000;
    migration_moves(MIGRATION_COMPLETED);
    assert_int_equal(end(), CLIENT_MOVED);
    const char *line = strstr(errors, "active   round 1  75%");
    assert_non_null(line);
    assert_null(strstr(line + 1, "active   round 1")); /* once, however often it asked */
    assert_non_null(strstr(shown, "256.0 MiB"));
    assert_non_null(strstr(shown, "compression ratio    3.00"));
    assert_non_null(strstr(shown, "34.5 ms (predicted 40.0 ms"));
    assert_non_null(strstr(shown, "1.500 ms  GO to the first instruction"));
}

static void json_is_one_object_and_nothing_else(void **state)
{
    (void)state;
    start("--monitor %s --json tcp:h:1");
    wait_for_start();
    migration_moves(MIGRATION_COMPLETED);
    assert_int_equal(end(), CLIENT_MOVED);
    struct json_object *info = json_tokener_parse(shown);
    assert_string_equal(json_get_str(info, "status"), "completed");
    assert_ptr_equal(strchr(shown, '\n'), shown + strlen(shown) - 1);
    json_object_put(info);
}

static void ctrl_c_cancels(void **state)
{
    (void)state;
    start("--monitor %s tcp:h:1");
    wait_for_start();
    migration_moves(MIGRATION_ACTIVE);
    kill(child, SIGINT);
    assert_int_equal(end(), CLIENT_CANCELLED);
    assert_int_equal(migration.cancels, 1);
    assert_non_null(strstr(errors, "the guest runs on the source"));
}

static void too_late_to_cancel_is_said_and_the_end_awaited(void **state)
{
    (void)state;
    migration.cancel_answer = -EBUSY;
    start("--monitor %s tcp:h:1");
    wait_for_start();
    migration_moves(MIGRATION_DEVICE);
    kill(child, SIGTERM);
    for (int turns = 0; turns < 20000 && !migration.cancels; turns++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        poll(NULL, 0, 1);
    }
    migration_moves(MIGRATION_COMPLETED);
    assert_int_equal(end(), CLIENT_MOVED);
    assert_non_null(strstr(errors, "too late"));
}

static void a_lost_monitor_leaves_it_unknown(void **state)
{
    (void)state;
    start("--monitor %s tcp:h:1");
    wait_for_start();
    migration_moves(MIGRATION_ACTIVE);
    monitor_free(monitor);
    chardev_free(chardev);
    chardev = NULL;
    monitor = NULL;
    assert_int_equal(end(), CLIENT_UNKNOWN);
    assert_non_null(strstr(errors, "not known where the guest is"));
}

#define client_test(name) cmocka_unit_test_setup_teardown(name, fresh, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        client_test(the_exit_code_says_where_the_guest_is),
        client_test(options_reach_the_source_before_it_starts),
        client_test(nothing_starts_when_something_is_wrong),
        client_test(progress_has_a_line_a_round_and_the_end_a_table),
        client_test(json_is_one_object_and_nothing_else),
        client_test(ctrl_c_cancels),
        client_test(too_late_to_cancel_is_said_and_the_end_awaited),
        client_test(a_lost_monitor_leaves_it_unknown),
    };
    return cmocka_run_group_tests_name("client", tests, NULL, NULL);
}
