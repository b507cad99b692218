#include "tests/unit/monitor/fakes.h"

static int fresh(void **state)
{
    (void)state;
    set_up(MONITOR_QMP);
    return 0;
}

static int negotiated(void **state)
{
    fresh(state);
    tell("{\"execute\":\"qmp_capabilities\"}");
    assert_heard("{\"return\": {}}\r\n");
    return 0;
}

/* One request, and the whole line of its answer; events before it stay in `heard`. */
static struct json_object *ask(const char *request)
{
    tell(request);
    for (int i = 0; i < 3; i++) {
        static char line[sizeof heard];
        bool answered = hear_on(peer, "\r\n");
        assert_true(answered);
        for (char *at = heard, *end; (end = strstr(at, "\r\n")); at = end + 2) {
            snprintf(line, sizeof line, "%.*s", (int)(end - at), at);
            struct json_object *message = json_tokener_parse(line);
            if (json_get(message, "return") || json_get(message, "error"))
                return message;
            json_object_put(message);
        }
    }
    fail_msg("no answer to %s", request);
    return NULL;
}

static struct json_object *ask_ok(const char *request)
{
    struct json_object *message = ask(request), *value = json_object_get(json_get(message, "return"));
    if (!value)
        fail_msg("%s: %s", request, heard);
    json_object_put(message);
    return value;
}

static void do_ok(const char *request)
{
    json_object_put(ask_ok(request));
}

static void assert_error(const char *request, const char *class, const char *text)
{
    struct json_object *message = ask(request), *error = json_get(message, "error");
    if (!error)
        fail_msg("%s was done", request);
    assert_string_equal(json_get_str(error, "class"), class);
    if (!strstr(json_get_str(error, "desc"), text))
        fail_msg("%s: '%s' does not say '%s'", request, json_get_str(error, "desc"), text);
    json_object_put(message);
}

/* --- the wire ------------------------------------------------------------------------------------------- */

static void the_greeting_names_a_version_that_tools_know(void **state)
{
    (void)state;
    assert_heard(
        "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 0, \"major\": 10}, \"package\": \"godwit "
        "0.1\"}, \"capabilities\": []}}\r\n");
}

static void nothing_is_done_before_negotiation(void **state)
{
    (void)state;
    assert_error("{\"execute\":\"stop\"}", "CommandNotFound", "qmp_capabilities");
    assert_int_equal(machine.pauses, 0);
    monitor_machine_event(monitor, EVENT_RESET, false);
    assert_error("{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\"]}}", "GenericError", "none");
    assert_error("{\"execute\":\"qmp_capabilities\",\"arguments\":{\"x\":1}}", "GenericError", "'x' is unexpected");
    do_ok("{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[]}}");
    assert_null(strstr(heard, "RESET")); /* events before negotiation are nobody's */
    assert_error("{\"execute\":\"qmp_capabilities\"}", "CommandNotFound", "already complete");
}

static void any_id_comes_back(void **state)
{
    (void)state;
    tell("{\"execute\":\"query-name\",\"id\":{\"a\":[1,\"\xc3\xbc\"]}}");
    assert_heard("{\"return\": {}, \"id\": {\"a\": [1, \"\\u00fc\"]}}\r\n");
    tell("{\"execute\":\"nonsense\",\"id\":7}");
    assert_heard(
        "{\"id\": 7, \"error\": {\"class\": \"CommandNotFound\", \"desc\": \"The command nonsense has not been "
        "found\"}}\r\n");
}

static void a_bad_line_is_answered_and_forgotten(void **state)
{
    (void)state;
    assert_error("{bad json}\n", "GenericError", "JSON parse error");
    do_ok("{'execute':'query-status'}"); /* single quotes are in people's recipes */
    assert_error("[1,2]", "GenericError", "must be a JSON object");
    assert_error("{\"x\":1}", "GenericError", "'x' is unexpected");
    assert_error("{}", "GenericError", "'execute'");
    assert_error("{\"execute\":1}", "GenericError", "must be a string");
    assert_error("{\"execute\":\"stop\",\"arguments\":[]}", "GenericError", "must be an object");
    assert_error("{\"execute\":\"stop\",\"foo\":1}", "GenericError", "'foo' is unexpected");
    assert_int_equal(machine.pauses, 0);
}

static void several_requests_may_come_at_once(void **state)
{
    (void)state;
    tell("{\"execute\":\"stop\",\"id\":1}{\"execute\":\"cont\",\"id\":2}\n\n{\"execute\":\"stop\",\"id\":3}");
    assert_heard("\"id\": 3}");
    assert_int_equal(machine.pauses, 2);
    assert_int_equal(machine.resumes, 1);
}

static void arguments_are_checked_before_anything_happens(void **state)
{
    (void)state;
    static const struct {
        const char *request, *text;
    } rows[] = {
        { "{\"execute\":\"stop\",\"arguments\":{\"x\":1}}", "Parameter 'x' is unexpected" },
        { "{\"execute\":\"migrate\",\"arguments\":{\"uri\":1}}", "Invalid parameter type for 'uri', expected: string" },
        { "{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"tcp:h:1\",\"y\":1}}", "Parameter 'y' is unexpected" },
        { "{\"execute\":\"migrate\"}", "Parameter 'uri' is missing" },
        { "{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"tcp:h:1\",\"blk\":1}}", "'blk'" },
        { "{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"tcp:h:1\",\"channels\":[]}}", "mutually exclusive" },
        { "{\"execute\":\"migrate-continue\"}", "Parameter 'state' is missing" },
        { "{\"execute\":\"migrate-continue\",\"arguments\":{\"state\":\"pre-switchover\"}}", "does not pause" },
        { "{\"execute\":\"human-monitor-command\"}", "Parameter 'command-line' is missing" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_error(rows[i].request, "GenericError", rows[i].text);
    assert_int_equal(machine.pauses, 0);
    assert_string_equal(migration.started, "");
}

static void every_command_of_the_list_exists(void **state)
{
    (void)state;
    struct json_object *list = ask_ok("{\"execute\":\"query-commands\"}");
    assert_true(json_object_array_length(list) > 25);
    bool found = false;
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        char request[128];
        const char *name = json_get_str(json_object_array_get_idx(list, i), "name");
        assert_non_null(name);
        found |= !strcmp(name, "query-migrate");
        snprintf(request, sizeof request, "{\"execute\":\"%s\",\"arguments\":{\"bogus\":1}}", name);
        struct json_object *message = ask(request), *error = json_get(message, "error");
        assert_non_null(error);
        if (strcmp(name, "qmp_capabilities"))
            assert_string_equal(json_get_str(error, "class"), "GenericError");
        json_object_put(message);
    }
    assert_true(found);
    json_object_put(list);
}

static void a_reader_that_does_not_read_stops_us_listening_and_loses_no_answer(void **state)
{
    (void)state;
    enum { REQUESTS = 2000 };
    char request[64];
    int sent = 0, answers = 0, turns = 0;
    bool stalled = false;
    while (sent < REQUESTS && !stalled) {
        int length = snprintf(request, sizeof request, "{\"execute\":\"query-commands\",\"id\":%d}", sent);
        stalled = write(peer, request, (size_t)length) != length;
        sent += !stalled;
        uv_run(&loop, UV_RUN_NOWAIT);
    }
    assert_true(sent > 10);
    for (; turns < 100000 && answers < sent; turns++) {
        static char part[65537];
        uv_run(&loop, UV_RUN_NOWAIT);
        ssize_t n = read(peer, part, sizeof part - 1);
        for (ssize_t i = 0; i < n; i++)
            answers += part[i] == '\n';
    }
    assert_int_equal(answers, sent);
}

static void a_new_client_starts_from_the_greeting(void **state)
{
    (void)state;
    tell("{\"execute\":\"query-st"); /* cut off */
    close(peer);
    peer = dial();
    assert_heard("{\"QMP\":");
    assert_error("{\"execute\":\"query-status\"}", "CommandNotFound", "qmp_capabilities");
}

/* --- running and ending --------------------------------------------------------------------------------- */

static void stop_and_cont_tell_before_they_answer(void **state)
{
    (void)state;
    tell("{\"execute\":\"stop\"}");
    assert_heard("\"return\"");
    assert_true(strstr(heard, "\"event\": \"STOP\"") < strstr(heard, "\"return\""));
    assert_non_null(strstr(heard, "{\"timestamp\": {\"seconds\": "));
    struct json_object *status = ask_ok("{\"execute\":\"query-status\"}");
    assert_string_equal(json_get_str(status, "status"), "paused");
    assert_false(json_get_bool(status, "running"));
    json_object_put(status);
    do_ok("{\"execute\":\"stop\"}"); /* again is fine */
    tell("{\"execute\":\"cont\"}");
    assert_heard("\"return\"");
    assert_true(strstr(heard, "\"event\": \"RESUME\"") < strstr(heard, "\"return\""));
    assert_int_equal(machine.pauses, 1);
}

static void a_guest_in_hand_over_is_not_ours_to_run_or_stop(void **state)
{
    (void)state;
    machine.state = RUN_FINISH_MIGRATE;
    assert_error("{\"execute\":\"cont\"}", "GenericError", "not finalized");
    assert_error("{\"execute\":\"stop\"}", "GenericError", "not finalized");
    assert_error("{\"execute\":\"system_reset\"}", "GenericError", "no guest to reset");
    machine.state = RUN_RUNNING;
    migration.info.state = MIGRATION_DEVICE;
    assert_error("{\"execute\":\"stop\"}", "GenericError", "not finalized");
    machine.state = RUN_POSTMIGRATE;
    migration.info.state = MIGRATION_COMPLETED;
    migration.may_resume_answer = -EPERM;
    assert_error("{\"execute\":\"cont\"}", "GenericError", "elsewhere");
    assert_int_equal(machine.pauses + machine.resumes, 0);
    migration.may_resume_answer = 0; /* it went into a file */
    migration.may_resume_forced = true;
    do_ok("{\"execute\":\"cont\"}");
    assert_true(machine.forced);
}

static void an_expected_guest_runs_or_waits_as_was_said_last(void **state)
{
    (void)state;
    machine.state = RUN_INMIGRATE;
    do_ok("{\"execute\":\"stop\"}");
    do_ok("{\"execute\":\"migrate-incoming\",\"arguments\":{\"uri\":\"tcp:127.0.0.1:0\"}}");
    assert_string_equal(migration.incoming, "tcp:127.0.0.1:0");
    assert_false(migration.incoming_runs);
    do_ok("{\"execute\":\"cont\"}"); /* another mind: it runs when it arrives */
    assert_true(migration.incoming_runs);
    do_ok("{\"execute\":\"stop\"}");
    assert_false(migration.incoming_runs);
    assert_int_equal(machine.resumes, 0);
}

static void quit_tells_answers_and_then_ends(void **state)
{
    (void)state;
    tell("{\"execute\":\"quit\",\"id\":9}{\"execute\":\"stop\"}");
    assert_heard("{\"return\": {}, \"id\": 9}\r\n");
    assert_true(strstr(heard, "\"event\": \"SHUTDOWN\", \"data\": {\"guest\": false, \"reason\": \"host-qmp-quit\"}") <
                strstr(heard, "\"return\""));
    assert_int_equal(quits, 1);
    assert_int_equal(machine.pauses, 0); /* nothing after quit */
}

static void power_and_reset(void **state)
{
    (void)state;
    tell("{\"execute\":\"system_powerdown\"}");
    assert_heard("\"return\"");
    assert_non_null(strstr(heard, "\"event\": \"POWERDOWN\"}"));
    do_ok("{\"execute\":\"system_reset\"}");
    assert_int_equal(machine.request, REQUEST_RESET);
    assert_int_equal(settled, 1); /* done before the next command is looked at */
    monitor_machine_event(monitor, EVENT_RESET, true);
    monitor_machine_event(monitor, EVENT_SHUTDOWN, true);
    assert_heard("\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-shutdown\"}}\r\n");
    assert_non_null(
        strstr(heard, "\"event\": \"RESET\", \"data\": {\"guest\": true, \"reason\": \"guest-reset\"}}\r\n"));
}

/* --- migration ------------------------------------------------------------------------------------------ */

static void an_address_comes_as_uri_or_as_a_channel(void **state)
{
    (void)state;
    static const struct {
        const char *arguments, *uri;
    } rows[] = {
        { "\"uri\":\"tcp:host:44\",\"detach\":true", "tcp:host:44" },
        { "\"channels\":[{\"channel-type\":\"main\",\"addr\":{\"transport\":\"socket\",\"type\":\"inet\",\"host\":"
          "\"h\","
          "\"port\":\"1\"}}]",
          "tcp:h:1" },
        { "\"channels\":[{\"channel-type\":\"main\",\"addr\":{\"transport\":\"socket\",\"type\":\"inet\",\"host\":\"::"
          "1\","
          "\"port\":\"1\"}}]",
          "tcp:[::1]:1" },
        { "\"channels\":[{\"channel-type\":\"main\",\"addr\":{\"transport\":\"socket\",\"type\":\"unix\",\"path\":"
          "\"/x\"}}]",
          "unix:/x" },
        { "\"channels\":[{\"channel-type\":\"main\",\"addr\":{\"transport\":\"file\",\"filename\":\"/"
          "y\",\"offset\":0}}]",
          "file:/y" },
        { "\"channels\":[{\"channel-type\":\"main\",\"addr\":{\"transport\":\"exec\",\"args\":[\"ssh\",\"it's\"]}}]",
          "exec:'ssh' 'it'\\''s'" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char request[512];
        snprintf(request, sizeof request, "{\"execute\":\"migrate\",\"arguments\":{%s}}", rows[i].arguments);
        do_ok(request);
        assert_string_equal(migration.started, rows[i].uri);
    }
    migration.started[0] = '\0';
    assert_error("{\"execute\":\"migrate\",\"arguments\":{\"channels\":[]}}", "GenericError", "exactly one");
    assert_error(
        "{\"execute\":\"migrate\",\"arguments\":{\"channels\":[{\"channel-type\":\"main\",\"addr\":{\"transport\":"
        "\"rdma\"}}]}}",
        "GenericError", "rdma");
    machine.state = RUN_INMIGRATE;
    assert_error("{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"tcp:h:1\"}}", "GenericError", "incoming");
    machine.state = RUN_POSTMIGRATE;
    assert_error("{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"tcp:h:1\"}}", "GenericError", "previous migration");
    assert_string_equal(migration.started, "");
}

static void events_of_a_migration_come_only_when_asked_for(void **state)
{
    (void)state;
    do_ok("{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"tcp:h:1\"}}");
    assert_null(strstr(heard, "MIGRATION"));
    do_ok("{\"execute\":\"migrate-set-capabilities\",\"arguments\":{\"capabilities\":[{\"capability\":\"events\","
          "\"state\":"
          "true}]}}");
    migration_moves(MIGRATION_ACTIVE);
    monitor_migration_event(monitor, MIGRATION_EVENT_ROUND, MIGRATION_ACTIVE, 3);
    assert_heard("\"event\": \"MIGRATION_PASS\", \"data\": {\"pass\": 3}}\r\n");
    assert_non_null(strstr(heard, "\"event\": \"MIGRATION\", \"data\": {\"status\": \"active\"}}\r\n"));
}

static void the_last_events_are_told_when_the_migration_is_gone(void **state)
{
    (void)state;
    monitor_migration_event(monitor, MIGRATION_EVENT_ROUND, MIGRATION_ACTIVE, 1); /* nobody has asked yet */
    atomic_store(&migration.params.capability_events, true);
    monitor_migration_event(monitor, MIGRATION_EVENT_ROUND, MIGRATION_ACTIVE, 2);
    atomic_store(&migration.params.capability_events, false);
    assert_heard("\"event\": \"MIGRATION_PASS\", \"data\": {\"pass\": 2}}\r\n");
    assert_null(strstr(heard, "\"pass\": 1}"));
}

static void query_migrate_has_the_members_of_its_state(void **state)
{
    (void)state;
    static const struct {
        enum migration_state state;
        bool ram, downtime, expected, error;
    } rows[] = {
        { MIGRATION_SETUP, false, false, false, false },   { MIGRATION_ACTIVE, true, false, true, false },
        { MIGRATION_DEVICE, true, false, true, false },    { MIGRATION_COMPLETED, true, true, false, false },
        { MIGRATION_FAILED, false, false, false, true },   { MIGRATION_CANCELLED, false, false, false, false },
        { MIGRATION_UNRESOLVED, true, false, true, true },
    };
    struct json_object *info = ask_ok("{\"execute\":\"query-migrate\"}");
    assert_int_equal(json_object_object_length(info), 0);
    json_object_put(info);
    err_set(&migration.info.error, -EREMOTEIO, "not here");
    migration.info.downtime_ms = 12.6;
    migration.info.wire_bytes = 1000;
    migration.info.downtime_bytes = 100;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        migration.info.state = rows[i].state;
        info = ask_ok("{\"execute\":\"query-migrate\"}");
        assert_string_equal(json_get_str(info, "status"), migration_state_name(rows[i].state));
        assert_int_equal(json_get(info, "ram") != NULL, rows[i].ram);
        assert_int_equal(json_get(info, "downtime") != NULL, rows[i].downtime);
        assert_int_equal(json_get(info, "expected-downtime") != NULL, rows[i].expected);
        assert_int_equal(json_get(info, "error-desc") != NULL, rows[i].error);
        if (rows[i].downtime)
            assert_int_equal(json_get_int(info, "downtime"), 13);
        if (rows[i].ram)
            assert_int_equal(json_get_int(json_get(info, "ram"), "precopy-bytes"), 900);
        struct json_object *own = json_get(info, "__org.godwit_report");
        assert_string_equal(json_get_str(own, "where"), "here");
        assert_string_equal(json_get_str(own, "reason"), "refused");
        json_object_put(info);
    }
}

static void parameters_are_set_all_or_none(void **state)
{
    (void)state;
    do_ok("{\"execute\":\"migrate-set-parameters\",\"arguments\":{\"downtime-limit\":50,\"max-bandwidth\":1000000,"
          "\"compression\":\"none\"}}");
    struct json_object *now = ask_ok("{\"execute\":\"query-migrate-parameters\"}");
    assert_int_equal(json_get_int(now, "downtime-limit"), 50);
    assert_int_equal(json_get_int(now, "max-bandwidth"), 1000000);
    assert_string_equal(json_get_str(now, "compression"), "none");
    json_object_put(now);
    static const struct {
        const char *bad, *text;
    } rows[] = {
        { "\"x-nonsense\":1", "Parameter 'x-nonsense' is unexpected" },
        { "\"max-bandwidth\":\"1\"", "Invalid parameter type for 'max-bandwidth', expected: integer" },
        { "\"max-bandwidth\":-1", "negative" },
        { "\"compression\":3", "expected: string" },
        { "\"compression\":\"bzip9\"", "bzip9" },
        { "\"threads\":100000", "threads" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char request[256];
        snprintf(request, sizeof request,
                 "{\"execute\":\"migrate-set-parameters\",\"arguments\":{\"downtime-limit\":77,%s}}", rows[i].bad);
        assert_error(request, "GenericError", rows[i].text);
        now = ask_ok("{\"execute\":\"query-migrate-parameters\"}");
        assert_int_equal(json_get_int(now, "downtime-limit"), 50);
        json_object_put(now);
    }
    do_ok("{\"execute\":\"migrate_set_downtime\",\"arguments\":{\"value\":0.2}}");
    do_ok("{\"execute\":\"migrate_set_speed\",\"arguments\":{\"value\":4096}}");
    now = ask_ok("{\"execute\":\"query-migrate-parameters\"}");
    assert_int_equal(json_get_int(now, "downtime-limit"), 200);
    assert_int_equal(json_get_int(now, "max-bandwidth"), 4096);
    json_object_put(now);
}

static void a_capability_that_is_not_there_is_refused_by_name(void **state)
{
    (void)state;
    assert_error(
        "{\"execute\":\"migrate-set-capabilities\",\"arguments\":{\"capabilities\":[{\"capability\":\"events\","
        "\"state\":true},{\"capability\":\"postcopy-ram\",\"state\":true}]}}",
        "GenericError", "postcopy-ram");
    assert_error("{\"execute\":\"migrate-set-capabilities\",\"arguments\":{\"capabilities\":[{\"capability\":\"zzz\","
                 "\"state\":false}]}}",
                 "GenericError", "'zzz'");
    assert_error(
        "{\"execute\":\"migrate-set-capabilities\",\"arguments\":{\"capabilities\":[{\"capability\":\"events\","
        "\"state\":true,\"x\":1}]}}",
        "GenericError", "is unexpected");
    assert_error("{\"execute\":\"migrate-set-capabilities\",\"arguments\":{\"capabilities\":[7]}}", "GenericError",
                 "list");
    assert_false(atomic_load(&migration.params.capability_events)); /* not even the good half */
    do_ok("{\"execute\":\"migrate-set-capabilities\",\"arguments\":{\"capabilities\":[{\"capability\":\"postcopy-ram\","
          "\"state\":false},{\"capability\":\"return-path\",\"state\":true}]}}");
    struct json_object *list = ask_ok("{\"execute\":\"query-migrate-capabilities\"}");
    bool on = false;
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *entry = json_object_array_get_idx(list, i);
        on |= !strcmp(json_get_str(entry, "capability"), "return-path") && json_get_bool(entry, "state");
    }
    assert_true(on);
    json_object_put(list);
}

static void doubt_is_ended_by_a_word(void **state)
{
    (void)state;
    assert_error("{\"execute\":\"__org.godwit_migrate-resolve\"}", "GenericError", "nothing to resolve");
    migration.info.state = MIGRATION_UNRESOLVED;
    do_ok("{\"execute\":\"__org.godwit_migrate-resolve\"}");
    assert_int_equal(migration.resolved, RESOLVE_ASK + 1);
    do_ok("{\"execute\":\"__org.godwit_migrate-resolve\",\"arguments\":{\"answer\":\"here\"}}");
    assert_int_equal(migration.resolved, RESOLVE_HERE + 1);
    assert_error("{\"execute\":\"__org.godwit_migrate-resolve\",\"arguments\":{\"answer\":\"yes\"}}", "GenericError",
                 "'yes'");
    migration.cancel_answer = -EBUSY;
    assert_error("{\"execute\":\"migrate_cancel\"}", "GenericError", "too late");
}

/* --- questions ------------------------------------------------------------------------------------------ */

static void questions_are_answered(void **state)
{
    (void)state;
    struct json_object *cpus = ask_ok("{\"execute\":\"query-cpus-fast\"}");
    assert_int_equal(json_object_array_length(cpus), 2);
    assert_int_equal(json_get_int(json_object_array_get_idx(cpus, 1), "thread-id"), 1002);
    json_object_put(cpus);
    struct json_object *jit = ask_ok("{\"execute\":\"x-query-jit\"}");
    assert_false(json_get_bool(jit, "enabled"));
    assert_null(json_get(jit, "code"));
    assert_int_equal(json_get_int(json_object_array_get_idx(json_get(jit, "cpus"), 1), "code-lookups"), 8);
    assert_non_null(strstr(json_get_str(jit, "human-readable-text"), "only interprets"));
    json_object_put(jit);
    struct json_object *chardevs = ask_ok("{\"execute\":\"query-chardev\"}");
    assert_int_equal(json_object_array_length(chardevs), 1);
    assert_string_equal(json_get_str(json_object_array_get_idx(chardevs, 0), "label"), "mon0");
    json_object_put(chardevs);
    struct json_object *uuid = ask_ok("{\"execute\":\"query-uuid\"}");
    assert_string_equal(json_get_str(uuid, "UUID"), "00000000-0000-0000-0000-000000000000");
    json_object_put(uuid);
    struct json_object *text = ask_ok("{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"info "
                                      "status\"}}");
    assert_string_equal(json_object_get_string(text), "VM status: running\r\n");
    json_object_put(text);
    /* without -d, but there is no prompt to wait at */
    text = ask_ok("{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"migrate tcp:h:1\"}}");
    assert_string_equal(json_object_get_string(text), "");
    assert_string_equal(migration.started, "tcp:h:1");
    json_object_put(text);
}

#define qmp_test(name) cmocka_unit_test_setup_teardown(name, negotiated, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_greeting_names_a_version_that_tools_know, fresh, tear_down),
        cmocka_unit_test_setup_teardown(nothing_is_done_before_negotiation, fresh, tear_down),
        qmp_test(any_id_comes_back),
        qmp_test(a_bad_line_is_answered_and_forgotten),
        qmp_test(several_requests_may_come_at_once),
        qmp_test(arguments_are_checked_before_anything_happens),
        qmp_test(every_command_of_the_list_exists),
        qmp_test(a_reader_that_does_not_read_stops_us_listening_and_loses_no_answer),
        qmp_test(a_new_client_starts_from_the_greeting),
        qmp_test(stop_and_cont_tell_before_they_answer),
        qmp_test(a_guest_in_hand_over_is_not_ours_to_run_or_stop),
        qmp_test(an_expected_guest_runs_or_waits_as_was_said_last),
        qmp_test(quit_tells_answers_and_then_ends),
        qmp_test(power_and_reset),
        qmp_test(an_address_comes_as_uri_or_as_a_channel),
        qmp_test(events_of_a_migration_come_only_when_asked_for),
        qmp_test(the_last_events_are_told_when_the_migration_is_gone),
        qmp_test(query_migrate_has_the_members_of_its_state),
        qmp_test(parameters_are_set_all_or_none),
        qmp_test(a_capability_that_is_not_there_is_refused_by_name),
        qmp_test(doubt_is_ended_by_a_word),
        qmp_test(questions_are_answered),
    };
    return cmocka_run_group_tests_name("qmp", tests, NULL, NULL);
}
