/* Packets of the remote protocol out of bytes, and back. */
#include "tests/unit/test.h"

#include <string.h>

#include "monitor/gdb_packet.h"

static struct gdb_parser parser;

static int fresh(void **state)
{
    (void)state;
    gdb_parser_init(&parser);
    return 0;
}

/* The last event that these bytes make. */
static enum gdb_event feed(const void *data, size_t bytes)
{
    enum gdb_event event = GDB_NONE;
    for (size_t i = 0; i < bytes; i++)
        event = gdb_parser_take(&parser, ((const uint8_t *)data)[i]);
    return event;
}

static enum gdb_event feed_text(const char *text)
{
    return feed(text, strlen(text));
}

static void a_packet_is_what_stands_between_dollar_and_sum(void **state)
{
    (void)state;
    assert_int_equal(feed_text("$g#67"), GDB_PACKET);
    assert_string_equal(parser.data, "g");
    assert_int_equal(feed_text("$#00"), GDB_PACKET);
    assert_int_equal(parser.size, 0);
    assert_int_equal(feed_text("noise$Hg0#DF"), GDB_PACKET);
    assert_string_equal(parser.data, "Hg0");
}

static void signs_and_interrupts_stand_between_packets_only(void **state)
{
    (void)state;
    assert_int_equal(feed("\003", 1), GDB_INTERRUPT);
    assert_int_equal(feed("+", 1), GDB_ACK);
    assert_int_equal(feed("-", 1), GDB_NAK);
    assert_int_equal(feed("$+\003-#5b", 7), GDB_PACKET);
    assert_memory_equal(parser.data, "+\003-", 3);
}

static void a_wrong_sum_is_seen_unless_nobody_acknowledges(void **state)
{
    (void)state;
    assert_int_equal(feed_text("$g#68"), GDB_BAD_SUM);
    assert_int_equal(feed_text("$g#6x"), GDB_BAD_SUM);
    assert_int_equal(feed_text("$g#67"), GDB_PACKET);
    parser.no_acks = true;
    assert_int_equal(feed_text("$g#zz"), GDB_PACKET);
}

static void a_packet_that_lost_its_end_does_not_spoil_the_next(void **state)
{
    (void)state;
    assert_int_equal(feed_text("$m80000000,4$g#67"), GDB_PACKET);
    assert_string_equal(parser.data, "g");
}

static void every_byte_survives_the_way(void **state)
{
    struct buf packet = { 0 };
    uint8_t all[256];
    (void)state;
    for (unsigned i = 0; i < sizeof(all); i++)
        all[i] = (uint8_t)i;
    gdb_packet_put(&packet, all, sizeof(all));
    assert_int_equal(feed(packet.data, packet.size), GDB_PACKET);
    assert_int_equal(parser.size, sizeof(all));
    assert_memory_equal(parser.data, all, sizeof(all));
    buf_free(&packet);
}

static void the_longest_packet_fits_and_one_byte_more_is_refused(void **state)
{
    static char data[GDB_PACKET_MAX + 1];
    struct buf packet = { 0 };
    (void)state;
    memset(data, 'a', sizeof(data));
    assert_int_equal(gdb_packet_fits(data, sizeof(data), 0), GDB_PACKET_MAX);
    gdb_packet_put(&packet, data, GDB_PACKET_MAX);
    assert_int_equal(feed(packet.data, packet.size), GDB_PACKET);
    assert_int_equal(parser.size, GDB_PACKET_MAX);
    packet.size = 0;
    gdb_packet_put(&packet, data, GDB_PACKET_MAX + 1);
    assert_int_equal(feed(packet.data, packet.size), GDB_TOO_LONG);
    assert_int_equal(feed_text("$g#67"), GDB_PACKET); /* and after that all is well */
    memset(data, '#', sizeof(data));                  /* two bytes each on their way */
    assert_int_equal(gdb_packet_fits(data, sizeof(data), 1), (GDB_PACKET_MAX - 1) / 2);
    buf_free(&packet);
}

static void numbers_and_digits_are_read_to_their_end_and_no_further(void **state)
{
    const char *at = "ffffffffffffffff,1G";
    uint64_t first, length;
    uint8_t bytes[4];
    (void)state;
    assert_true(gdb_range(&at, &first, &length));
    assert_true(first == UINT64_MAX && length == 1);
    assert_string_equal(at, "G");
    at = "10000000000000000";
    assert_false(gdb_number(&at, &first));
    at = "";
    assert_false(gdb_number(&at, &first));
    at = "5";
    assert_false(gdb_range(&at, &first, &length));
    assert_true(gdb_get_hex("0aFf10e7", bytes, 4));
    assert_memory_equal(bytes, "\x0a\xff\x10\xe7", 4);
    assert_false(gdb_get_hex("0aFf10e", bytes, 4));
    assert_false(gdb_get_hex("0aFg10e7", bytes, 4));
}

#define TEST(name) cmocka_unit_test_setup(name, fresh)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_packet_is_what_stands_between_dollar_and_sum),
        TEST(signs_and_interrupts_stand_between_packets_only),
        TEST(a_wrong_sum_is_seen_unless_nobody_acknowledges),
        TEST(a_packet_that_lost_its_end_does_not_spoil_the_next),
        TEST(every_byte_survives_the_way),
        TEST(the_longest_packet_fits_and_one_byte_more_is_refused),
        TEST(numbers_and_digits_are_read_to_their_end_and_no_further),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
