/* A destination, and a source that is written by hand: it does what no godwit does. */
#include "tests/unit/migration/two_machines.h"

#include <errno.h>

#include "migration/hello.h"
#include "migration/incoming.h"
#include "migration/sources.h"
#include "migration/threads/frame.h"

static const struct shape small = { .harts = 1, .ram_bytes = 8 * MIB };
static struct channel *line;
static struct message_key key = { .id = { 1 }, .attempt = 1 };

static int meet(unsigned peer_timeout_ms)
{
    char uri[96];
    struct buf out = { 0 }, payload = { 0 };
    struct hello *hello = calloc(1, sizeof(*hello));
    struct message *answer = malloc(sizeof(*answer));
    key.attempt = 1;
    if (make_both(&small) < 0)
        return -1;
    assert_int_equal(param_set_number(migration_params_of(b.migration), "peer-timeout", peer_timeout_ms, NULL), 0);
    snprintf(uri, sizeof(uri), "unix:%s/there", folder);
    assert_int_equal(migration_incoming(b.migration, uri, false, NULL), 0);
    assert_int_equal(channel_connect(uri, -1, &line, NULL), 0);
    hello_fill(hello, HELLO_SOURCE, machine_config_of(a.machine));
    hello_encode(hello, &payload);
    message_put(&out, MESSAGE_HELLO, &key, payload.data, (uint32_t)payload.size);
    assert_int_equal(channel_write_all(line, out.data, out.size, -1, NULL), 0);
    assert_int_equal(message_read(line, false, answer, PATIENCE_MS, NULL), 0);
    assert_int_equal(answer->type, MESSAGE_HELLO);
    buf_free(&out);
    buf_free(&payload);
    free(hello);
    free(answer);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    return meet(PATIENCE_MS);
}

static int setup_impatient(void **state)
{
    (void)state;
    return meet(2000);
}

static int teardown(void **state)
{
    (void)state;
    channel_close(line);
    return drop_both();
}

static const char *why(void)
{
    static struct migration_info info;
    migration_query(b.migration, &info);
    assert_int_equal(info.state, MIGRATION_FAILED);
    return info.error.text;
}

/* What stands in front of the first END: memory of zeroes, and a round with nothing in it. */
static void put_beginning(struct section_writer *writer, struct source *ram)
{
    uint8_t wire[FRAME_AROUND_BYTES + FRAME_MARK_MAX];
    struct frame_counts none = { 0 };
    struct frame frame = { .kind = FRAME_MARK, .round = 1 };
    sections_begin(writer);
    sections_put_start(writer, ram, machine_ram(a.machine));
    frame.payload_bytes = (uint32_t)frame_mark_put(wire + FRAME_PREFIX_BYTES + FRAME_HEAD_BYTES, &ram, 1, &none);
    buf_put(&writer->out, wire, frame_seal(wire, ram->id, &frame));
}

static void put_end(struct section_writer *writer, struct source *ram)
{
    struct machine_section section[MACHINE_SECTIONS_MAX];
    struct section_handover handover = { .run = 0 };
    struct section_digest digest = { .sources = 1, .source[0] = { .id = ram->id } };
    unsigned sections = machine_sections(a.machine, section);
    writer->full_sum = 0;
    sections_put_end(writer, ram, 1);
    sections_put_full(writer, &section_handover_state, 0, &handover);
    for (unsigned i = 0; i < sections; i++)
        sections_put_full(writer, section[i].desc, section[i].instance, section[i].object);
    sections_put_digest(writer, &digest);
    sections_put_eof(writer);
}

static void say(struct section_writer *writer)
{
    assert_int_equal(channel_write_all(line, writer->out.data, writer->out.size, PATIENCE_MS, NULL), 0);
    writer->out.size = 0;
}

/* The next word that is no LOADED. */
static void hear(struct message *message)
{
    do
        assert_int_equal(message_read(line, false, message, PATIENCE_MS, NULL), 0);
    while (message->type == MESSAGE_LOADED);
}

static void a_source_that_takes_its_guest_back_for_ever_is_given_up(void **state)
{
    struct section_writer writer = { 0 };
    struct message *message = malloc(sizeof(*message));
    struct source *ram;
    struct buf retract = { 0 };
    (void)state;

    assert_int_equal(source_ram_new(machine_ram(a.machine), 1, &ram, NULL), 0);
    put_beginning(&writer, ram);
    for (key.attempt = 1; key.attempt <= INCOMING_RECALLS_MAX + 1; key.attempt++) {
        put_end(&writer, ram);
        say(&writer);
        hear(message);
        assert_int_equal(message->type, MESSAGE_PREPARED);
        retract.size = 0;
        message_put(&retract, MESSAGE_RETRACT, &key, NULL, 0);
        assert_int_equal(channel_write_all(line, retract.data, retract.size, PATIENCE_MS, NULL), 0);
        hear(message);
        assert_int_equal(message->type, MESSAGE_RETRACTED);
    }
    hear(message);
    assert_int_equal(message->type, MESSAGE_ERROR);
    channel_shutdown(line);
    assert_true(migration_wait(b.migration, PATIENCE_MS));
    assert_string_equal(why(), "the source took its guest back for the 65th time");
    buf_free(&retract);
    sections_writer_free(&writer);
    source_ram_free(ram);
    free(message);
}

static void a_source_that_falls_silent_in_the_middle_of_an_element_is_given_up(void **state)
{
    struct section_writer writer = { 0 };
    struct source *ram;
    (void)state;

    assert_int_equal(source_ram_new(machine_ram(a.machine), 1, &ram, NULL), 0);
    put_beginning(&writer, ram);
    buf_put_u8(&writer.out, ELEMENT_END);
    buf_put_u8(&writer.out, 0); /* of four bytes */
    say(&writer);
    assert_true(migration_wait(b.migration, PATIENCE_MS));
    assert_non_null(strstr(why(), "nothing came for"));
    sections_writer_free(&writer);
    source_ram_free(ram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_source_that_takes_its_guest_back_for_ever_is_given_up, setup, teardown),
        cmocka_unit_test_setup_teardown(a_source_that_falls_silent_in_the_middle_of_an_element_is_given_up,
                                        setup_impatient, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
