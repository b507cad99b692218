/* Streams that are right, and streams that lie in one place each. */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migration/sections.h"
#include "migration/sources.h"
#include "tests/unit/migration/memory_channel.h"

/* --- a machine's worth of sections --------------------------------------------------------------------------- */

struct part {
    uint8_t on;
    uint32_t count;
};
static const struct field part_fields[] = {
    FIELD_BOOL_OF(struct part, on),
    FIELD_U32_MAX_OF(struct part, count, 100),
    FIELD_TABLE_END,
};
static const struct state_desc part_state = {
    .name = "test/part", .version = 2, .min_version = 1, .object_size = sizeof(struct part), .fields = part_fields
};

static struct section_collector *collector_of(struct part *part, unsigned parts)
{
    struct machine_section section[4];
    for (unsigned i = 0; i < parts; i++)
        section[i] = (struct machine_section){ .desc = &part_state, .instance = i, .object = &part[i] };
    struct section_collector *c;
    assert_int_equal(sections_collect_table(section, parts, &c, NULL), 0);
    return c;
}

static void put_all(struct section_writer *writer, const struct part *part, unsigned parts)
{
    struct section_handover handover = { .run = 1, .paused_ns = 77 };
    struct section_digest digest = { .sources = 1, .source[0] = { .id = 1, .digest = { 3, 4 } } };
    *writer = (struct section_writer){ .next_id = SECTION_FULL_ID_FIRST };
    sections_put_full(writer, &section_handover_state, 0, &handover);
    for (unsigned i = 0; i < parts; i++)
        sections_put_full(writer, &part_state, i, &part[i]);
    sections_put_digest(writer, &digest);
}

static int read_all(struct section_collector *c, const struct buf *stream, struct err *err)
{
    struct memory_channel memory = memory_channel_over(stream->data, stream->size);
    while (memory.at < memory.size) {
        struct section_head head;
        uint8_t type;
        int rc = channel_read_all(&memory.channel, &type, 1, -1, err);
        if (rc == 0 && type != ELEMENT_FULL)
            return err_set(err, -EPROTO, "type %u", type);
        if (rc == 0)
            rc = sections_read_head(&memory.channel, type, &head, err);
        if (rc == 0)
            rc = sections_collect(c, &memory.channel, &head, NULL, err);
        if (rc == 0)
            rc = sections_read_footer(&memory.channel, &head, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static void sections_that_were_saved_load_again(void **state)
{
    (void)state;
    struct part sent[2] = { { 1, 42 }, { 0, 99 } }, got[2] = { 0 };
    struct section_writer writer;
    put_all(&writer, sent, 2);
    struct section_collector *c = collector_of(got, 2);
    assert_int_equal(read_all(c, &writer.out, NULL), 0);
    assert_int_equal(sections_complete(c, NULL), 0);
    assert_int_equal(got[0].count, 0); /* nothing is loaded before all is checked */
    assert_int_equal(c->handover.run, 1);
    assert_int_equal(c->handover.paused_ns, 77);
    assert_int_equal(c->digest.source[0].digest[1], 4);
    assert_int_equal(sections_apply(c, NULL), 0);
    assert_int_equal(got[0].count, 42);
    assert_int_equal(got[1].count, 99);
    sections_collect_free(c);
    sections_writer_free(&writer);
}

static void what_was_loaded_is_confirmed_and_a_difference_is_named(void **state)
{
    (void)state;
    static const struct digest_key key = { { "secret" } };
    struct part sent[2] = { { 1, 2 }, { 0, 4 } }, loaded[2] = { { 0 } };
    struct section_collector *c = collector_of(loaded, 2);
    struct section_writer writer;
    struct err err = { 0 };
    uint64_t theirs[2], ours[2] = { 0, 0 };
    put_all(&writer, sent, 2);
    assert_int_equal(read_all(c, &writer.out, &err), 0);
    assert_int_equal(sections_complete(c, &err), 0);
    assert_int_equal(sections_apply(c, &err), 0);
    assert_int_equal(sections_confirm(c, &key, theirs, &err), 0);
    for (unsigned i = 0; i < 2; i++) {
        struct buf one = { 0 };
        state_save(&part_state, &sent[i], &one);
        sections_sum(&key, &part_state, i, part_state.version, one.data, one.size, ours);
        buf_free(&one);
    }
    assert_memory_equal(ours, theirs, sizeof(ours));
    loaded[1].count = 5;
    assert_int_equal(sections_confirm(c, &key, theirs, &err), -EPROTO);
    assert_non_null(strstr(err.text, "section test/part, instance 1: byte"));
    sections_writer_free(&writer);
    sections_collect_free(c);
}

static void a_missing_section_is_named(void **state)
{
    (void)state;
    struct part sent[1] = { { 1, 42 } }, got[2] = { 0 };
    struct section_writer writer;
    struct err err = { 0 };
    put_all(&writer, sent, 1);
    struct section_collector *c = collector_of(got, 2);
    assert_int_equal(read_all(c, &writer.out, NULL), 0);
    assert_int_equal(sections_complete(c, &err), -EPROTO);
    assert_non_null(strstr(err.text, "test/part, instance 1"));
    assert_int_equal(got[0].count, 0);
    sections_collect_free(c);
    sections_writer_free(&writer);
}

static void a_section_that_comes_twice_is_refused(void **state)
{
    (void)state;
    struct part sent[1] = { { 1, 42 } }, got[1] = { 0 };
    struct section_writer writer;
    struct err err = { 0 };
    put_all(&writer, sent, 1);
    sections_put_full(&writer, &part_state, 0, &sent[0]);
    struct section_collector *c = collector_of(got, 1);
    assert_int_equal(read_all(c, &writer.out, &err), -EPROTO);
    assert_non_null(strstr(err.text, "twice"));
    sections_collect_free(c);
    sections_writer_free(&writer);
}

static void an_unknown_section_and_a_newer_version_are_refused_by_name(void **state)
{
    (void)state;
    struct part sent[2] = { { 1, 42 }, { 1, 1 } }, got[1] = { 0 };
    struct section_writer writer;
    struct err err = { 0 };
    put_all(&writer, sent, 2);
    struct section_collector *c = collector_of(got, 1);
    assert_int_equal(read_all(c, &writer.out, &err), -EPROTO);
    assert_non_null(strstr(err.text, "test/part, instance 1"));
    sections_collect_free(c);
    sections_writer_free(&writer);

    struct state_desc newer = part_state;
    newer.version = 3;
    writer = (struct section_writer){ .next_id = 20 };
    sections_put_full(&writer, &newer, 0, &sent[0]);
    c = collector_of(got, 1);
    err_clear(&err);
    assert_int_equal(read_all(c, &writer.out, &err), -EPROTO);
    assert_non_null(strstr(err.text, "version 3"));
    sections_collect_free(c);
    sections_writer_free(&writer);
}

static void every_flipped_bit_and_every_cut_is_noticed(void **state)
{
    (void)state;
    struct part sent[2] = { { 1, 42 }, { 0, 64 } };
    struct section_writer writer;
    put_all(&writer, sent, 2);
    for (size_t bit = 0; bit < writer.out.size * 8; bit++) {
        struct part got[2] = { 0 };
        struct section_collector *c = collector_of(got, 2);
        struct err err = { 0 };
        writer.out.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        int rc = read_all(c, &writer.out, &err);
        if (rc == 0)
            rc = sections_complete(c, &err);
        if (rc == 0)
            rc = sections_apply(c, &err);
        writer.out.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        /* The digest of RAM itself is compared by the caller, who knows what was loaded. */
        const struct section_source_digest *row = &c->digest.source[0];
        bool of_ram = c->digest.sources != 1 || row->id != 1 || row->digest[0] != 3 || row->digest[1] != 4;
        assert_true(rc == -EPROTO || rc == -EPIPE || of_ram);
        if (rc < 0)
            assert_true(err.text[0]);
        sections_collect_free(c);
    }
    for (size_t size = 0; size < writer.out.size; size++) {
        struct part got[2] = { 0 };
        struct section_collector *c = collector_of(got, 2);
        struct buf cut = { .data = writer.out.data, .size = size };
        int rc = read_all(c, &cut, NULL);
        if (rc == 0)
            rc = sections_complete(c, NULL);
        assert_true(rc < 0);
        sections_collect_free(c);
    }
    sections_writer_free(&writer);
}

static void a_length_beyond_the_limit_is_refused_before_it_is_used(void **state)
{
    (void)state;
    struct section_head head = { .type = ELEMENT_FULL, .id = 20, .name = "test/part", .version = 2 };
    uint8_t length[4];
    be32_put(length, SECTION_FULL_MAX + 1);
    struct memory_channel memory = memory_channel_over(length, 4);
    struct part got[1] = { 0 };
    struct section_collector *c = collector_of(got, 1);
    struct err err = { 0 };
    assert_int_equal(sections_collect(c, &memory.channel, &head, NULL, &err), -EPROTO);
    assert_non_null(strstr(err.text, "limit"));
    sections_collect_free(c);
}

/* All parts together may else take a MiB each before the first of them is looked at. */
static void a_section_longer_than_its_state_is_refused_before_it_is_read(void **state)
{
    (void)state;
    struct section_head head = { .type = ELEMENT_FULL, .id = 20, .name = "test/part", .version = 2 };
    uint8_t bytes[16] = { 0 };
    struct part got[1] = { 0 };
    struct section_collector *c = collector_of(got, 1);
    struct err err = { 0 };
    be32_put(bytes, (uint32_t)state_wire_bytes(&part_state, 2) + 1);
    struct memory_channel memory = memory_channel_over(bytes, sizeof(bytes));
    assert_int_equal(sections_collect(c, &memory.channel, &head, NULL, &err), -EPROTO);
    assert_string_equal(err.text, "section test/part, instance 0: length 6, but version 2 has 5 bytes");
    assert_int_equal(memory.at, 4);
    assert_null(c->arrived[0].data.data);
    sections_collect_free(c);
}

static void a_name_has_a_length_and_can_be_printed(void **state)
{
    static const struct {
        uint8_t length, byte;
        const char *why;
    } bad[] = {
        { 0, 'n', "a name of 0 bytes, the limit is 64" },
        { SECTION_NAME_MAX + 1, 'n', "a name of 65 bytes, the limit is 64" },
        { 255, 'n', "a name of 255 bytes, the limit is 64" },
        { 3, '\0', "byte 0x00 in a name" },
        { 3, 0x1b, "byte 0x1b in a name" },
        { 3, 0x7f, "byte 0x7f in a name" },
    };
    (void)state;
    for (unsigned i = 0; i <= sizeof(bad) / sizeof(bad[0]); i++) {
        bool good = i == sizeof(bad) / sizeof(bad[0]);
        uint8_t bytes[4 + 1 + 255 + 8] = { 0 };
        struct section_head head;
        struct err err = { 0 };
        bytes[4] = good ? SECTION_NAME_MAX : bad[i].length;
        memset(bytes + 5, good ? 'n' : bad[i].byte, 255);
        struct memory_channel memory = memory_channel_over(bytes, sizeof(bytes));
        assert_int_equal(sections_read_head(&memory.channel, ELEMENT_FULL, &head, &err), good ? 0 : -EPROTO);
        if (!good)
            assert_non_null(strstr(err.text, bad[i].why));
    }
}

/* The other end stays, and says nothing more. */
static void a_silence_in_the_middle_of_an_element_has_a_limit(void **state)
{
    (void)state;
    struct part sent[1] = { { 1, 42 } };
    struct section_writer writer;
    put_all(&writer, sent, 1);
    for (size_t size = 2; size < 5; size++) {
        int ends[2];
        char uri[32];
        struct channel *line;
        struct section_head head;
        struct err err = { 0 };
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        snprintf(uri, sizeof(uri), "fd:%d", ends[0]);
        assert_int_equal(channel_connect(uri, -1, &line, NULL), 0);
        line->silence_ms = 1;
        assert_int_equal(write(ends[1], writer.out.data + 1, size), (ssize_t)size);
        assert_int_equal(sections_read_head(line, ELEMENT_FULL, &head, &err), -ETIMEDOUT);
        assert_non_null(strstr(err.text, "nothing came for 1 ms in the middle"));
        channel_close(line);
        close(ends[1]);
    }
    sections_writer_free(&writer);
}

static void stream_version_2_is_refused_by_name(void **state)
{
    (void)state;
    uint8_t stream[8];
    struct err err = { 0 };
    be32_put(stream, STREAM_MAGIC);
    be32_put(stream + 4, 2);
    struct memory_channel memory = memory_channel_over(stream, 8);
    assert_int_equal(sections_read_begin(&memory.channel, false, &err), -EPROTO);
    assert_string_equal(err.text, "stream version 2 is not supported, 3 is");
}

static void the_beginning_is_read_back_and_another_machine_refused(void **state)
{
    (void)state;
    struct section_writer writer;
    sections_begin(&writer);
    struct memory_channel memory = memory_channel_over(writer.out.data, writer.out.size);
    assert_int_equal(sections_read_begin(&memory.channel, false, NULL), 0);
    assert_int_equal(memory.at, memory.size);
    writer.out.data[writer.out.size - 1] ^= 1;
    memory = memory_channel_over(writer.out.data, writer.out.size);
    assert_int_equal(sections_read_begin(&memory.channel, false, NULL), -EPROTO);
    sections_writer_free(&writer);
}

static struct ram *blocks(uint64_t pages)
{
    struct ram_options options = { 0 };
    struct ram *ram = ram_new();
    assert_int_equal(ram_add(ram, "rom", 0x1000, PAGE_BYTES, true, &options, NULL), 0);
    assert_int_equal(ram_add(ram, "ram", 0x80000000, pages * PAGE_BYTES, false, &options, NULL), 0);
    assert_int_equal(ram_seal_layout(ram, NULL), 0);
    return ram;
}

static void a_block_table_must_be_ours_to_the_byte(void **state)
{
    (void)state;
    struct ram *ours = blocks(64), *smaller = blocks(63);
    struct source *source;
    struct section_writer writer = { .next_id = 20 };
    struct section_head head;
    struct err err = { 0 };
    assert_int_equal(source_ram_new(ours, 1, &source, NULL), 0);
    sections_put_start(&writer, source, ours);
    struct memory_channel memory = memory_channel_over(writer.out.data + 1, writer.out.size - 1);
    assert_int_equal(sections_read_head(&memory.channel, ELEMENT_START, &head, NULL), 0);
    assert_string_equal(head.name, "godwit/ram");
    assert_int_equal(sections_read_blocks(&memory.channel, &head, ours, NULL), 0);
    assert_int_equal(sections_read_footer(&memory.channel, &head, NULL), 0);
    assert_int_equal(memory.at, memory.size);

    memory = memory_channel_over(writer.out.data + 1, writer.out.size - 1);
    assert_int_equal(sections_read_head(&memory.channel, ELEMENT_START, &head, NULL), 0);
    assert_int_equal(sections_read_blocks(&memory.channel, &head, smaller, &err), -EPROTO);
    assert_non_null(strstr(err.text, "block ram has"));
    sections_writer_free(&writer);
    source_ram_free(source);
    ram_free(ours);
    ram_free(smaller);
}

static int disk_read_back(const struct section_disk *disk, struct section_disk *out, struct err *err)
{
    struct section_writer writer = { .next_id = 20 };
    struct section_head head;
    sections_put_disk(&writer, 2, disk);
    struct memory_channel memory = memory_channel_over(writer.out.data + 1, writer.out.size - 1);
    assert_int_equal(sections_read_head(&memory.channel, ELEMENT_START, &head, NULL), 0);
    assert_string_equal(head.name, SECTION_DISK_NAME);
    int rc = sections_read_disk(&memory.channel, &head, out, err);
    if (rc == 0)
        assert_int_equal(sections_read_footer(&memory.channel, &head, NULL), 0);
    sections_writer_free(&writer);
    return rc;
}

static void a_disk_is_announced_with_all_that_it_is_and_nothing_that_it_cannot_be(void **state)
{
    (void)state;
    const struct section_disk good = { .name = "root", .slot = 7, .bytes = 5 << 20, .copy = DISK_TOP };
    struct section_disk out, bad;
    struct err err = { 0 };
    assert_int_equal(disk_read_back(&good, &out, NULL), 0);
    assert_string_equal(out.name, "root");
    assert_true(out.slot == 7 && out.bytes == 5 << 20 && out.copy == DISK_TOP);
    for (unsigned i = 0; i < 5; i++) {
        bad = good;
        bad.slot = i == 0 ? MACHINE_SLOTS : bad.slot;
        bad.bytes = i == 1 ? 0 : i == 2 ? 1000 : i == 3 ? UINT64_MAX - 511 : bad.bytes;
        bad.copy = i == 4 ? 3 : bad.copy;
        assert_int_equal(disk_read_back(&bad, &out, &err), -EPROTO);
        assert_non_null(strstr(err.text, "no such disk"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sections_that_were_saved_load_again),
        cmocka_unit_test(what_was_loaded_is_confirmed_and_a_difference_is_named),
        cmocka_unit_test(a_missing_section_is_named),
        cmocka_unit_test(a_section_that_comes_twice_is_refused),
        cmocka_unit_test(an_unknown_section_and_a_newer_version_are_refused_by_name),
        cmocka_unit_test(every_flipped_bit_and_every_cut_is_noticed),
        cmocka_unit_test(a_length_beyond_the_limit_is_refused_before_it_is_used),
        cmocka_unit_test(a_section_longer_than_its_state_is_refused_before_it_is_read),
        cmocka_unit_test(a_name_has_a_length_and_can_be_printed),
        cmocka_unit_test(a_silence_in_the_middle_of_an_element_has_a_limit),
        cmocka_unit_test(stream_version_2_is_refused_by_name),
        cmocka_unit_test(the_beginning_is_read_back_and_another_machine_refused),
        cmocka_unit_test(a_block_table_must_be_ours_to_the_byte),
        cmocka_unit_test(a_disk_is_announced_with_all_that_it_is_and_nothing_that_it_cannot_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
