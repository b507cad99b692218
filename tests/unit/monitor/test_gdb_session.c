/* What a debugger asks, and what it hears. */
#include "tests/unit/test.h"

#include "tests/unit/monitor/fake_guest.h"

static struct gdb_session session;
static char heard[2 * GDB_PACKET_MAX];

static int fresh(void **state)
{
    (void)state;
    fake_guest_reset();
    gdb_session_open(&session, &fake_target, NULL);
    session.in.no_acks = true;
    return 0;
}

static int done(void **state)
{
    (void)state;
    gdb_session_close(&session);
    buf_free(&guest.sent);
    return 0;
}

static const char *take_sent(void)
{
    assert_true(guest.sent.size < sizeof(heard));
    if (guest.sent.size > 0)
        memcpy(heard, guest.sent.data, guest.sent.size);
    heard[guest.sent.size] = '\0';
    guest.sent.size = 0;
    return heard;
}

static void say_bytes(const void *data, size_t bytes)
{
    struct buf packet = { 0 };
    gdb_packet_put(&packet, data, bytes);
    gdb_session_receive(&session, packet.data, packet.size);
    buf_free(&packet);
}

/* All that was sent since the last time must be these packets. */
static void assert_hears(const char *first, const char *second)
{
    struct buf wanted = { 0 };
    gdb_packet_put(&wanted, first, strlen(first));
    if (second)
        gdb_packet_put(&wanted, second, strlen(second));
    buf_put_u8(&wanted, '\0');
    assert_string_equal(take_sent(), (char *)wanted.data);
    buf_free(&wanted);
}

static void assert_answer(const char *request, const char *answer)
{
    say_bytes(request, strlen(request));
    assert_hears(answer, NULL);
}

static void assert_silence(const char *request)
{
    say_bytes(request, strlen(request));
    assert_string_equal(take_sent(), "");
}

static void what_is_unknown_gets_the_empty_answer(void **state)
{
    (void)state;
    assert_answer("vMustReplyEmpty", "");
    assert_answer("", "");
    assert_answer("!", "");
    assert_answer("Z2,1000,4", ""); /* watchpoints */
    assert_answer("qTStatus", "");
    assert_answer("ghost", "");
}

static void packets_are_acknowledged_until_nobody_wants_that(void **state)
{
    (void)state;
    session.in.no_acks = false;
    gdb_session_receive(&session, (const uint8_t *)"$qC#b4", 6);
    assert_string_equal(take_sent(), "+$QC1#c5");
    gdb_session_receive(&session, (const uint8_t *)"-", 1);
    assert_string_equal(take_sent(), "$QC1#c5");
    gdb_session_receive(&session, (const uint8_t *)"+$qC#00", 7);
    assert_string_equal(take_sent(), "-");
    gdb_session_receive(&session, (const uint8_t *)"$QStartNoAckMode#b0", 19);
    assert_string_equal(take_sent(), "+$OK#9a");
    gdb_session_receive(&session, (const uint8_t *)"$qC#00", 6);
    assert_string_equal(take_sent(), "$QC1#c5");
}

static void harts_are_threads_from_1_on(void **state)
{
    (void)state;
    assert_answer("qfThreadInfo", "m1,2,3");
    assert_answer("qsThreadInfo", "l");
    assert_answer("qC", "QC1");
    assert_answer("T3", "OK");
    assert_answer("T4", "E22");
    assert_answer("T0", "E22");
    assert_answer("Hg4", "E22");
    assert_answer("Hx1", "E22");
    assert_answer("H", "E22");
    assert_answer("Hg2", "OK");
    assert_answer("qC", "QC2");
    assert_answer("Hg-1", "OK");
    assert_answer("?", "T05thread:2;");
    assert_answer("qThreadExtraInfo,2", "686172742031205b7766695d"); /* hart 1 [wfi] */
    assert_answer("qThreadExtraInfo,9", "E22");
}

static void registers_are_those_of_the_chosen_hart(void **state)
{
    (void)state;
    assert_answer("p5", "0500000000000000");
    assert_answer("Hg2", "OK");
    assert_answer("p5", "0500000001000000");
    assert_answer("P5=8877665544332211", "OK");
    assert_true(guest.reg[1][5] == 0x1122334455667788);
    assert_answer("p5", "8877665544332211");
    assert_answer("P5=887766554433221", "E22");
    assert_answer("P5", "E22");
    assert_answer("p21", "E02"); /* the fake has no more than pc */
    assert_answer("pfffffff", "E22");
    assert_answer("p", "E22");
}

static void all_registers_go_and_come_at_once(void **state)
{
    static char text[2 + (DEBUG_REG_PC + 1) * 16];
    (void)state;
    text[0] = 'G';
    for (unsigned i = 0; i <= DEBUG_REG_PC; i++)
        snprintf(text + 1 + (size_t)i * 16, 17, "%02x00000000000001", i);
    assert_answer(text, "OK");
    assert_true(guest.reg[0][DEBUG_REG_PC] == (UINT64_C(1) << 56 | DEBUG_REG_PC));
    assert_answer("g", text + 1);
    text[sizeof(text) - 2] = '\0';
    assert_answer(text, "E22");
}

static void registers_of_a_guest_that_is_not_there_are_unavailable(void **state)
{
    (void)state;
    guest.refuse = -EPERM;
    assert_answer("p5", "xxxxxxxxxxxxxxxx");
    assert_answer("P5=0000000000000000", "E01");
    assert_answer("m1000,4", "E01");
    assert_answer("vCont;c", "E.the guest is elsewhere");
    assert_false(gdb_session_waiting(&session));
}

static void memory_is_read_and_written(void **state)
{
    static const uint8_t odd[] = "X1003,4:\0#$}";
    (void)state;
    assert_answer("M1000,3:0a0b0c", "OK");
    assert_answer("m1000,4", "0a0b0c00");
    say_bytes(odd, sizeof(odd) - 1);
    assert_hears("OK", NULL);
    assert_answer("m1000,7", "0a0b0c0023247d");
    assert_answer("X1000,0:", "OK");
    assert_answer("m2ffe,4", "0000");
    assert_answer("m3000,4", "E14");
    assert_answer("M2ffe,4:01020304", "E14");
    assert_answer("M1000,3:0a0b", "E22");
    assert_answer("M1000,ffffffffffffffff:", "E22");
    assert_answer("X1000,3:ab", "E22");
    assert_answer("m1000", "E22");
    assert_answer("m1000,4x", "E22");
    assert_answer("m,", "E22");
}

static void an_answer_is_never_longer_than_a_packet(void **state)
{
    (void)state;
    say_bytes("m1000,ffffffffffffffff", 22);
    take_sent();
    assert_in_range(strlen(heard), 1000, GDB_PACKET_MAX);
    say_bytes("qXfer:features:read:target.xml:0,ffffffff", 41);
    take_sent();
    assert_in_range(strlen(heard), 1000, GDB_PACKET_MAX);
}

static void addresses_are_physical_on_demand(void **state)
{
    (void)state;
    assert_answer("qqemu.PhyMemMode", "0");
    assert_answer("m1000,1", "00");
    assert_int_equal(guest.space, DEBUG_VIRTUAL);
    assert_answer("Qqemu.PhyMemMode:1", "OK");
    assert_answer("qqemu.PhyMemMode", "1");
    assert_answer("m1000,1", "00");
    assert_int_equal(guest.space, DEBUG_PHYSICAL);
    assert_answer("Qqemu.PhyMemMode:2", "E22");
}

static void both_kinds_of_breakpoints_are_set_and_cleared(void **state)
{
    (void)state;
    assert_answer("Z0,80000000,4", "OK");
    assert_true(guest.last_point == UINT64_C(0x80000000) << 8);
    assert_answer("Z1,80000002,2", "OK");
    assert_true(guest.last_point == (UINT64_C(0x80000002) << 8 | 1));
    assert_int_equal(guest.points, 2);
    assert_answer("z0,80000000,4", "OK");
    assert_int_equal(guest.points, 1);
    assert_answer("Z0,80000001,2", "E22");
    assert_answer("Z0", "E22");
}

static void resuming_is_answered_by_the_stop(void **state)
{
    (void)state;
    assert_silence("vCont;c");
    assert_true(gdb_session_waiting(&session));
    gdb_session_stopped(&session, 1, GDB_SIGNAL_TRAP, NULL);
    assert_hears("T05thread:2;", NULL);
    gdb_session_stopped(&session, 2, GDB_SIGNAL_TRAP, NULL); /* nobody waits */
    assert_string_equal(take_sent(), "");
    assert_answer("qC", "QC2");
    assert_silence("c");
    gdb_session_stopped(&session, 1, GDB_SIGNAL_INT, "gone");
    assert_hears("O676f6e650a", "T02thread:2;");
    assert_silence("c");
    gdb_session_exited(&session, 3);
    assert_hears("W03", NULL);
}

static void ctrl_c_stops_the_guest_and_says_nothing_yet(void **state)
{
    (void)state;
    assert_silence("vCont;c");
    unsigned stops = guest.stops;
    gdb_session_receive(&session, (const uint8_t *)"\003", 1);
    assert_int_equal(guest.stops, stops + 1);
    assert_string_equal(take_sent(), "");
    assert_true(gdb_session_waiting(&session));
}

static void a_packet_while_the_guest_runs_stops_it_first(void **state)
{
    (void)state;
    assert_silence("vCont;c");
    unsigned stops = guest.stops;
    assert_answer("p5", "0500000000000000");
    assert_int_equal(guest.stops, stops + 1);
    assert_false(gdb_session_waiting(&session));
}

static void assert_modes(const char *request, enum debug_mode a, enum debug_mode b, enum debug_mode c)
{
    unsigned before = guest.resumes;
    assert_silence(request);
    assert_int_equal(guest.resumes, before + 1);
    assert_true(guest.modes[0] == a && guest.modes[1] == b && guest.modes[2] == c);
    gdb_session_stopped(&session, 0, GDB_SIGNAL_TRAP, NULL);
    take_sent();
}

static void each_hart_goes_on_as_it_is_told(void **state)
{
    (void)state;
    assert_answer("vCont?", "vCont;c;C;s;S");
    assert_modes("vCont;c", DEBUG_GO, DEBUG_GO, DEBUG_GO);
    assert_modes("vCont;s:2", DEBUG_STAY, DEBUG_STEP, DEBUG_STAY);
    assert_modes("vCont;s:2;c", DEBUG_GO, DEBUG_STEP, DEBUG_GO);
    assert_modes("vCont;c:1;s:1;S05:3", DEBUG_GO, DEBUG_STAY, DEBUG_STEP);
    assert_modes("vCont;C05:-1", DEBUG_GO, DEBUG_GO, DEBUG_GO);
    assert_modes("s", DEBUG_STEP, DEBUG_GO, DEBUG_GO);
    assert_answer("Hc3", "OK");
    assert_modes("s", DEBUG_STAY, DEBUG_STAY, DEBUG_STEP);
    assert_modes("c4000", DEBUG_GO, DEBUG_STAY, DEBUG_STAY); /* the stop that was reported chose hart 0 */
    assert_true(guest.reg[0][DEBUG_REG_PC] == 0x4000);
    static const char *const bad[] = { "vCont",   "vCont;",     "vCont;t", "vCont;c:9", "vCont;c;", "vCont;s:",
                                       "vCont;C", "vCont;c:1x", "cx",      "C",         "S;" };
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_answer(bad[i], "E22");
}

static void monitor_lines_are_run_and_their_text_is_shown(void **state)
{
    (void)state;
    guest.says = "hello\n";
    say_bytes("qRcmd,696e666f", 14);
    assert_string_equal(guest.line, "info");
    assert_hears("O68656c6c6f0a", "OK");
    guest.says = "";
    assert_answer("qRcmd,", "OK");
    assert_answer("qRcmd,6", "E22");
    assert_answer("qRcmd,zz", "E22");
}

static void a_long_text_comes_in_several_packets(void **state)
{
    static char text[GDB_PACKET_MAX];
    struct gdb_parser parser;
    size_t got = 0, packets = 0;
    (void)state;
    memset(text, 'a', sizeof(text) - 1);
    guest.says = text;
    say_bytes("qRcmd,", 6);
    gdb_parser_init(&parser);
    for (size_t i = 0; i < guest.sent.size; i++) {
        if (gdb_parser_take(&parser, guest.sent.data[i]) != GDB_PACKET)
            continue;
        packets++;
        got += parser.data[0] == 'O' && parser.data[1] != 'K' ? (parser.size - 1) / 2 : 0;
    }
    assert_string_equal(parser.data, "OK");
    assert_int_equal(got, sizeof(text) - 1);
    assert_int_equal(packets, 4);
}

static void the_description_comes_in_pieces_that_fit_together(void **state)
{
    struct buf all = { 0 };
    char request[64];
    (void)state;
    for (bool last = false; !last;) {
        snprintf(request, sizeof(request), "qXfer:features:read:target.xml:%zx,3e8", all.size);
        say_bytes(request, strlen(request));
        take_sent();
        char *end = strrchr(heard, '#');
        assert_true(heard[0] == '$' && (heard[1] == 'm' || heard[1] == 'l') && end);
        last = heard[1] == 'l';
        buf_put(&all, heard + 2, (size_t)(end - heard) - 2);
    }
    assert_null(memchr(all.data, 0, all.size));
    buf_put_u8(&all, '\0');
    const char *xml = (const char *)all.data;
    assert_non_null(strstr(xml, "org.gnu.gdb.riscv.cpu"));
    assert_non_null(strstr(xml, "<reg name=\"pc\" bitsize=\"64\" regnum=\"32\""));
    assert_non_null(strstr(xml, "<reg name=\"ft0\" bitsize=\"64\" regnum=\"33\""));
    assert_non_null(strstr(xml, "<reg name=\"satp\" bitsize=\"64\" regnum=\"449\""));
    assert_non_null(strstr(xml, "<reg name=\"priv\" bitsize=\"64\" regnum=\"4161\""));
    assert_string_equal(xml + strlen(xml) - 10, "</target>\n");
    assert_answer("qXfer:features:read:other.xml:0,100", "E00");
    assert_answer("qXfer:features:read:target.xml:100000,100", "E22");
    assert_answer("qXfer:features:read:target.xml:0", "E22");
    buf_free(&all);
}

static void leaving_is_answered_once_and_nothing_is_heard_after_it(void **state)
{
    (void)state;
    assert_answer("qAttached", "1");
    assert_answer("D", "OK");
    assert_int_equal(guest.detaches, 1);
    assert_silence("g");
}

static void killing_ends_it(void **state)
{
    (void)state;
    assert_silence("k");
    assert_int_equal(guest.kills, 1);
    done(state);
    fresh(state);
    assert_answer("vKill;1", "OK");
    assert_int_equal(guest.kills, 1);
}

static void a_packet_that_is_too_long_is_an_error(void **state)
{
    static char data[GDB_PACKET_MAX + 1];
    (void)state;
    memset(data, 'm', sizeof(data));
    say_bytes(data, sizeof(data));
    assert_hears("E90", NULL);
    assert_answer("qC", "QC1");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, done)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_unknown_gets_the_empty_answer),
        TEST(packets_are_acknowledged_until_nobody_wants_that),
        TEST(harts_are_threads_from_1_on),
        TEST(registers_are_those_of_the_chosen_hart),
        TEST(all_registers_go_and_come_at_once),
        TEST(registers_of_a_guest_that_is_not_there_are_unavailable),
        TEST(memory_is_read_and_written),
        TEST(an_answer_is_never_longer_than_a_packet),
        TEST(addresses_are_physical_on_demand),
        TEST(both_kinds_of_breakpoints_are_set_and_cleared),
        TEST(resuming_is_answered_by_the_stop),
        TEST(ctrl_c_stops_the_guest_and_says_nothing_yet),
        TEST(a_packet_while_the_guest_runs_stops_it_first),
        TEST(each_hart_goes_on_as_it_is_told),
        TEST(monitor_lines_are_run_and_their_text_is_shown),
        TEST(a_long_text_comes_in_several_packets),
        TEST(the_description_comes_in_pieces_that_fit_together),
        TEST(leaving_is_answered_once_and_nothing_is_heard_after_it),
        TEST(killing_ends_it),
        TEST(a_packet_that_is_too_long_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
