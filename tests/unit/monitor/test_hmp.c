#include "tests/unit/monitor/fakes.h"

#define PROMPT "(qemu) "

static int at_prompt(void **state)
{
    (void)state;
    set_up(MONITOR_HMP);
    assert_heard(PROMPT);
    return 0;
}

/* One line typed; what it showed, without echo and prompt. */
static const char *type(const char *line)
{
    char typed[512];
    snprintf(typed, sizeof typed, "%s\n", line);
    tell(typed);
    assert_heard(PROMPT);
    char *end = strstr(heard, PROMPT), *start = strstr(heard, "\r\n");
    *end = '\0';
    return start ? start + 2 : "";
}

static void assert_shows(const char *line, const char *expected)
{
    const char *shown = type(line);
    if (strcmp(shown, expected))
        fail_msg("'%s' shows '%s', not '%s'", line, shown, expected);
}

static void assert_mentions(const char *line, const char *word)
{
    const char *shown = type(line);
    if (!strstr(shown, word))
        fail_msg("'%s' shows '%s', which lacks '%s'", line, shown, word);
}

/* --- the line ------------------------------------------------------------------------------------------- */

static void a_person_is_greeted_with_the_prompt_that_scripts_wait_for(void **state)
{
    (void)state;
    assert_non_null(strstr(heard, "QEMU 10.0.0 monitor (godwit 0.1) - type 'help' for more information\r\n(qemu) "));
}

static void typing_is_echoed_and_can_be_corrected(void **state)
{
    (void)state;
    tell("wrong\x15infx\x7fo  status\r\n");
    assert_heard("VM status: running\r\n(qemu) ");
    assert_int_equal(strncmp(heard, "wrong", 5), 0);
    assert_null(strstr(heard, "unknown"));
    assert_shows("", "");
    tell("half\x03");
    assert_heard("\r\n(qemu) ");
    assert_shows("info status", "VM status: running\r\n");
}

static void a_return_and_its_line_feed_are_one_line(void **state)
{
    (void)state;
    tell("info status\r\ninfo name\r\n");
    assert_heard("info name\r\n(qemu) ");
    int prompts = 0;
    for (const char *at = heard; (at = strstr(at, PROMPT)); at++)
        prompts++;
    assert_int_equal(prompts, 2);
}

static void cursor_up_brings_back_what_was_typed(void **state)
{
    (void)state;
    type("info status");
    type("info kvm");
    tell("\033[A\033[A\r");
    assert_heard("VM status: running\r\n(qemu) ");
    tell("\033[A\033[A\033[B\r"); /* back down to the newest */
    assert_heard("VM status: running\r\n(qemu) ");
    tell("\033[A\033[B\033[C\033[3~\r"); /* and to the empty line; other keys do nothing */
    assert_heard("\r\n(qemu) ");
    assert_null(strstr(heard, "VM status: running\r\n(qemu)"));
}

static void an_overlong_line_is_cut_not_overrun(void **state)
{
    (void)state;
    char line[3000];
    memset(line, 'a', sizeof line - 1);
    line[sizeof line - 1] = '\0';
    tell(line);
    tell(line);
    tell("\n");
    assert_heard("\r\n(qemu) ");
    assert_non_null(strstr(heard, "unknown command: 'aaa"));
}

/* --- commands ------------------------------------------------------------------------------------------- */

static void what_is_not_known_is_said_as_scripts_expect(void **state)
{
    (void)state;
    assert_shows("foo bar", "unknown command: 'foo'\r\n");
    assert_shows("info foo", "unknown command: 'info foo'\r\n");
    assert_shows("migrate", "migrate: string expected\r\nTry \"help migrate\" for more information\r\n");
    assert_shows("migrate -x tcp:h:1",
                 "migrate: unsupported option -x\r\nTry \"help migrate\" for more information\r\n");
    assert_mentions("stop now", "stop: extraneous characters at the end of line");
    assert_mentions("migrate_set_capability events maybe", "'on' or 'off' expected");
    assert_mentions("migrate_set_downtime soon", "number expected");
    assert_mentions("info registers zero", "integer expected");
    assert_shows("migrate_set_parameter foo 1", "Error: invalid parameter value: foo\r\n");
    assert_string_equal(migration.started, "");
    assert_int_equal(machine.pauses, 0);
}

static void the_short_names_work(void **state)
{
    (void)state;
    assert_shows("s", "");
    assert_int_equal(machine.state, RUN_PAUSED);
    assert_shows("info status", "VM status: paused\r\n");
    assert_shows("c", "");
    assert_int_equal(machine.state, RUN_RUNNING);
    machine.state = RUN_PRELAUNCH;
    assert_shows("info status", "VM status: paused (prelaunch)\r\n");
    assert_mentions("?", "migrate_cancel -- ");
    assert_mentions("help migrate", "migrate [-d] [-rehearse] uri [-b] [-i] -- ");
    assert_mentions("help info", "info status -- ");
    assert_mentions("info", "info migrate_parameters -- ");
    tell("q\n");
    for (int i = 0; i < 2000 && !quits; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    assert_int_equal(quits, 1);
}

static void every_command_has_help(void **state)
{
    (void)state;
    char *all = strdup(type("help"));
    int lines = 0;
    for (char *line = strtok(all, "\r\n"); line; line = strtok(NULL, "\r\n"), lines++) {
        char word[64], *dash = strstr(line, " -- ");
        assert_non_null(dash);
        assert_true(strlen(dash) > 6);
        snprintf(word, sizeof word, "help %.*s", (int)strcspn(line, strncmp(line, "info ", 5) ? " |" : "|-["), line);
        if (!strncmp(line, "info ", 5))
            *strchr(word + 10, ' ') = '\0';
        assert_mentions(word, " -- ");
    }
    assert_true(lines > 25);
    free(all);
}

static void tunables_take_what_people_type(void **state)
{
    (void)state;
    assert_shows("migrate_set_speed 32", "");
    assert_mentions("info migrate_parameters", "max-bandwidth: 33554432 bytes/second\r\n");
    assert_shows("migrate_set_speed 1g", "");
    assert_mentions("info migrate_parameters", "max-bandwidth: 1073741824 bytes/second\r\n");
    assert_shows("migrate_set_parameter max-bandwidth 100", "");
    assert_mentions("info migrate_parameters", "max-bandwidth: 104857600 bytes/second\r\n");
    assert_shows("migrate_set_downtime 0.05", "");
    assert_mentions("info migrate_parameters", "downtime-limit: 50 ms\r\n");
    assert_shows("migrate_set_parameter compression none", "");
    assert_mentions("info migrate_parameters", "compression: none\r\n");
    assert_shows("migrate_set_capability events on", "");
    assert_mentions("info migrate_capabilities", "events: on\r\n");
    assert_mentions("migrate_set_capability postcopy-ram on", "Error: Capability 'postcopy-ram' is not supported");
}

static void questions_show_text(void **state)
{
    (void)state;
    snprintf(machine.config.name, sizeof machine.config.name, "bird");
    assert_shows("info name", "bird\r\n");
    assert_shows("info cpus", "* CPU #0: thread_id=1001\r\n  CPU #1: thread_id=1002\r\n");
    assert_mentions("info version", "10.0.0 godwit 0.1\r\n");
    assert_mentions("info qtree", "ns16550a");
    assert_mentions("info mtree", "0000000080000000-0000000083ffffff (ram): riscv_virt_board.ram\r\n");
    assert_mentions("info memory", "riscv_virt_board.ram");
    assert_mentions("info memory", "VmRSS:");
    assert_shows("info migrate", "");
    assert_mentions("system_powerdown", "no power button");
}

static void the_engine_says_what_it_made_or_that_it_only_interprets(void **state)
{
    static char some_jit;

    (void)state;
    assert_mentions("info jit", "generated code: none, this machine only interprets\r\nCPU#0");
    machine.jit = (void *)&some_jit;
    assert_mentions("info jit", "generated code: 4 KiB of 1024 KiB, 0 flushes\r\n");
    assert_mentions("info jit", "3, of 100 guest bytes, 41.0 host bytes");
    assert_mentions("info jit", "CPU#1: 0 instructions\r\n  lookups:     8, 25.0% known by address\r\n");
}

static void registers_are_read_in_a_pause_that_nobody_notices(void **state)
{
    (void)state;
    assert_mentions("info registers", "hartid 0\r\n");
    assert_int_equal(machine.state, RUN_RUNNING);
    assert_int_equal(machine.pauses, 1);
    assert_int_equal(machine.resumes, 1);
    assert_mentions("info registers -a", "hartid 1\r\n");
    assert_mentions("info registers 1", "hartid 1\r\n");
    assert_mentions("info registers 2", "Error: There is no hart 2");
    migration.info.state = MIGRATION_ACTIVE; /* its hand-over must not meet our resume */
    int pauses = machine.pauses;
    assert_mentions("info registers", "Error: ");
    assert_int_equal(machine.pauses, pauses);
    machine.state = RUN_PAUSED;
    assert_mentions("info registers", "hartid 0\r\n");
    assert_int_equal(machine.pauses, pauses);
}

/* --- migration in the foreground ------------------------------------------------------------------------ */

static void a_detached_migrate_gives_the_prompt_at_once(void **state)
{
    (void)state;
    assert_shows("migrate -d \"exec:cat > /dev/null\"", "");
    assert_string_equal(migration.started, "exec:cat > /dev/null");
    migration.start_answer = -EBUSY;
    assert_shows("migrate tcp:h:1", "Error: the fake migration will not start\r\n");
}

static void a_flag_that_is_a_word_is_no_row_of_letters(void **state)
{
    (void)state;
    assert_shows("migrate -d -rehearse tcp:h:1", "");
    assert_string_equal(migration.started, "tcp:h:1");
    assert_int_equal(migration.info.purpose, PURPOSE_REHEARSAL);
    assert_mentions("migrate -rehears tcp:h:1", "unsupported option -r");
}

/* What a plan says, to a person who waits and to one who asks again. */
static void a_plan_is_told_with_its_advice(void **state)
{
    (void)state;
    param_set_number(&migration.params, "progress-interval", 50, NULL);
    migration.plan = (struct plan_result){
        .in = { .points = 1, .curve = { { 10, 256 } }, .harts = 1, .share = { 1 }, .data_pages = 25600 },
        .forecast = { .reason = "the guest dirties memory as fast as it is sent" },
        .advices = 2,
        .advice = { { .change = CHANGE_CAP, .value = 200 << 20, .then = { .total_ms = 4000, .pause_ms = 90 } },
                    { .change = CHANGE_LIMIT, .value = 700, .then = { .total_ms = 3000, .pause_ms = 600 } } },
    };
    tell("migrate_plan tcp:h:1\n");
    assert_heard("Migration: setup");
    assert_int_equal(migration.info.purpose, PURPOSE_PLAN);
    migration.plan.ready = true;
    migration_moves(MIGRATION_COMPLETED);
    assert_heard(PROMPT);
    static const char *const says[] = { "dirtied within 10 ms 1.0 MiB",
                                        "it will not end: the guest dirties memory as fast as it is sent",
                                        "what would help: raise max-bandwidth to 200M: then 4.0 s, downtime 90.0 ms",
                                        "or: set downtime-limit to 700: then 3.0 s" };
    for (size_t i = 0; i < sizeof says / sizeof *says; i++)
        if (!strstr(heard, says[i]))
            fail_msg("'%s' is not in '%s'", says[i], heard);
    migration.plan.forecast = (struct forecast){
        .ends = true, .ends_of = 1, .reason = "", .total_ms = { 1500, 2500 }, .pause_ms = { 12, 15 }, .rounds = 3
    };
    assert_mentions("info migrate", "it will end: total 1.5 s (p90 2.5 s), downtime 12.0 ms (p90 15.0 ms");
}

static void a_foreground_migrate_shows_progress_and_then_the_prompt(void **state)
{
    (void)state;
    param_set_number(&migration.params, "progress-interval", 50, NULL);
    tell("migrate tcp:h:1\n");
    assert_heard("Migration: setup");
    migration.info.ram_total = 1000;
    migration.info.ram_remaining = 250;
    migration_moves(MIGRATION_ACTIVE);
    assert_heard("[  75 % ]");
    assert_null(strstr(heard, PROMPT));
    tell("info status\n"); /* typed ahead: waits its turn */
    int second = dial();   /* in the backlog: one person at a time on this socket */
    close(second);
    migration.info.total_ms = 4200;
    migration.info.downtime_ms = 12.3;
    migration_moves(MIGRATION_COMPLETED);
    assert_heard("VM status: running\r\n(qemu) ");
    assert_non_null(strstr(heard, "Migration completed in 4200 ms, downtime 12.3 ms"));
    assert_mentions("info migrate", "Migration status: completed\r\n");
}

static void ctrl_c_cancels_the_migration_it_waits_for(void **state)
{
    (void)state;
    param_set_number(&migration.params, "progress-interval", 50, NULL);
    tell("migrate tcp:h:1\n");
    assert_heard("Migration: setup");
    migration_moves(MIGRATION_ACTIVE);
    assert_heard("Migration: active");
    tell("\x03");
    assert_heard("Migration cancelled\r\n(qemu) ");
    assert_int_equal(migration.cancels, 1);
}

static void whoever_leaves_does_not_end_the_migration(void **state)
{
    (void)state;
    tell("migrate tcp:h:1\n");
    assert_heard("\r\n");
    migration_moves(MIGRATION_ACTIVE);
    close(peer);
    peer = dial();
    assert_heard(PROMPT);
    assert_int_equal(migration.cancels, 0);
    assert_mentions("info migrate", "Migration status: active\r\n");
}

static void two_monitors_do_not_wait_for_each_other(void **state)
{
    (void)state;
    char spec[128];
    snprintf(spec, sizeof spec, "unix:%s2,server=on,wait=off", path);
    assert_int_equal(chardev_open("mon1", spec, &loop, &chardev_two, NULL), 0);
    assert_int_equal(monitor_add(monitor, chardev_two, MONITOR_HMP, NULL), 0);
    tell("migrate tcp:h:1\n");
    assert_heard("\r\n");
    int first = peer;
    path[strlen(path) + 1] = '\0';
    path[strlen(path)] = '2';
    peer = dial();
    assert_heard(PROMPT);
    assert_shows("info status", "VM status: running\r\n");
    migration_moves(MIGRATION_FAILED);
    err_set(&migration.info.error, -ECONNREFUSED, "nobody listens");
    assert_true(hear_on(first, "Migration failed: nobody listens\r\n(qemu) "));
    close(first);
}

static void the_end_comes_while_somebody_waits(void **state)
{
    (void)state;
    tell("migrate tcp:h:1\n");
    assert_heard("\r\n");
    /* tear_down frees the monitor with the timer running: nothing may be left */
}

#define hmp_test(name) cmocka_unit_test_setup_teardown(name, at_prompt, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        hmp_test(a_person_is_greeted_with_the_prompt_that_scripts_wait_for),
        hmp_test(typing_is_echoed_and_can_be_corrected),
        hmp_test(a_return_and_its_line_feed_are_one_line),
        hmp_test(cursor_up_brings_back_what_was_typed),
        hmp_test(an_overlong_line_is_cut_not_overrun),
        hmp_test(what_is_not_known_is_said_as_scripts_expect),
        hmp_test(the_short_names_work),
        hmp_test(every_command_has_help),
        hmp_test(tunables_take_what_people_type),
        hmp_test(questions_show_text),
        hmp_test(the_engine_says_what_it_made_or_that_it_only_interprets),
        hmp_test(registers_are_read_in_a_pause_that_nobody_notices),
        hmp_test(a_detached_migrate_gives_the_prompt_at_once),
        hmp_test(a_flag_that_is_a_word_is_no_row_of_letters),
        hmp_test(a_plan_is_told_with_its_advice),
        hmp_test(a_foreground_migrate_shows_progress_and_then_the_prompt),
        hmp_test(ctrl_c_cancels_the_migration_it_waits_for),
        hmp_test(whoever_leaves_does_not_end_the_migration),
        hmp_test(two_monitors_do_not_wait_for_each_other),
        hmp_test(the_end_comes_while_somebody_waits),
    };
    return cmocka_run_group_tests_name("hmp", tests, NULL, NULL);
}
