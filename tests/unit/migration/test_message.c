#include "tests/unit/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "migration/hello.h"
#include "migration/message.h"
#include "tests/unit/migration/memory_channel.h"

static const struct message_key key = { .id = { 1, 2, 3 }, .attempt = 7 };

static struct message *read_one(const struct buf *wire, int expected, struct err *err)
{
    struct message *message = calloc(1, sizeof(*message));
    assert_non_null(message);
    struct memory_channel memory = memory_channel_over(wire->data, wire->size);
    assert_int_equal(message_read(&memory.channel, false, message, -1, err), expected);
    return message;
}

static void a_message_arrives_as_it_was_sent(void **state)
{
    (void)state;
    struct buf wire = { 0 };
    message_put(&wire, MESSAGE_LOADED, &key, "payload", 7);
    struct message *message = read_one(&wire, 0, NULL);
    assert_int_equal(message->type, MESSAGE_LOADED);
    assert_int_equal(message->bytes, 7);
    assert_memory_equal(message->payload, "payload", 7);
    assert_true(message_key_equal(&message->key, &key));
    message->key.attempt++;
    assert_false(message_key_equal(&message->key, &key));
    free(message);
    buf_free(&wire);
}

static void every_flipped_bit_is_noticed(void **state)
{
    (void)state;
    struct buf wire = { 0 };
    struct message *message = calloc(1, sizeof(*message));
    message_put(&wire, MESSAGE_GO, &key, "word", 4);
    for (size_t bit = 0; bit < wire.size * 8; bit++) {
        wire.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        struct memory_channel memory = memory_channel_over(wire.data, wire.size);
        int rc = message_read(&memory.channel, false, message, -1, NULL);
        assert_true(rc == -EPROTO || rc == -EPIPE); /* a longer length runs into the end */
        wire.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    free(message);
    buf_free(&wire);
}

static void a_payload_beyond_the_limit_is_refused_before_it_is_read(void **state)
{
    (void)state;
    struct buf wire = { 0 };
    struct err err = { 0 };
    message_put(&wire, MESSAGE_GO, &key, NULL, 0);
    be32_put(wire.data + 8, MESSAGE_PAYLOAD_MAX + 1);
    free(read_one(&wire, -EPROTO, &err));
    assert_non_null(strstr(err.text, "limit"));
    buf_free(&wire);
}

static void a_peers_sentence_cannot_move_the_cursor(void **state)
{
    (void)state;
    struct buf wire = { 0 };
    char text[64];
    message_put_sentence(&wire, MESSAGE_ERROR, &key, "no\x1b[2J\nway");
    struct message *message = read_one(&wire, 0, NULL);
    message_sentence(message, text, sizeof(text));
    assert_string_equal(text, "no\\x1b[2J\\x0away");
    char small[6];
    message_sentence(message, small, sizeof(small));
    assert_string_equal(small, "no"); /* half an escape would be none */
    free(message);
    buf_free(&wire);
}

static void what_is_loaded_is_told_exactly(void **state)
{
    (void)state;
    struct message_loaded in = { 1, UINT64_MAX, 3, 4, 5 }, out;
    uint8_t payload[MESSAGE_LOADED_BYTES];
    struct buf wire = { 0 };
    message_loaded_encode(&in, payload);
    message_put(&wire, MESSAGE_LOADED, &key, payload, sizeof(payload));
    struct message *message = read_one(&wire, 0, NULL);
    assert_int_equal(message_loaded_decode(message, &out), 0);
    assert_memory_equal(&in, &out, sizeof(in));
    message->bytes--;
    assert_int_equal(message_loaded_decode(message, &out), -EPROTO);
    message->bytes = MESSAGE_LOADED_BYTES_SHORT; /* an older destination's */
    assert_int_equal(message_loaded_decode(message, &out), 0);
    assert_int_equal(out.now_ns, in.now_ns);
    assert_true(out.waited_ns == MESSAGE_UNTOLD);
    free(message);
    buf_free(&wire);
}

/* --- the hello ------------------------------------------------------------------------------------------------ */

static struct message *hello_message(enum hello_role role, uint64_t ram_bytes)
{
    struct hello *hello = calloc(1, sizeof(*hello));
    struct machine_config *config = calloc(1, sizeof(*config));
    struct buf payload = { 0 }, wire = { 0 };
    config->harts = 2;
    config->ram_bytes = ram_bytes;
    config->serial = 1;
    hello_fill(hello, role, config);
    hello_encode(hello, &payload);
    message_put(&wire, MESSAGE_HELLO, &key, payload.data, (uint32_t)payload.size);
    struct message *message = read_one(&wire, 0, NULL);
    buf_free(&payload);
    buf_free(&wire);
    free(hello);
    free(config);
    return message;
}

static void a_hello_carries_the_machine(void **state)
{
    (void)state;
    struct hello *hello = calloc(1, sizeof(*hello));
    struct message *message = hello_message(HELLO_SOURCE, 64 << 20);
    assert_int_equal(hello_decode(message, HELLO_SOURCE, hello, NULL), 0);
    assert_int_equal(hello->machine.harts, 2);
    assert_int_equal(hello->machine.ram_bytes, 64 << 20);
    assert_int_equal(hello->protocol, HELLO_PROTOCOL);
    assert_int_equal(hello_codecs(hello), (1u << CODECS) - 1);
    hello->capabilities &= ~(uint64_t)HELLO_CAN_ZSTD; /* an older peer's */
    assert_int_equal(hello_codecs(hello), 1u << CODEC_RAW | 1u << CODEC_LZ4);
    free(message);
    free(hello);
}

static void two_sources_are_told_so(void **state)
{
    (void)state;
    struct hello *hello = calloc(1, sizeof(*hello));
    struct err err = { 0 };
    struct message *message = hello_message(HELLO_SOURCE, 64 << 20);
    assert_int_equal(hello_decode(message, HELLO_DESTINATION, hello, &err), -EPROTO);
    assert_non_null(strstr(err.text, "a source too"));
    free(message);
    free(hello);
}

static void a_hello_cut_anywhere_is_refused_and_a_longer_one_is_not(void **state)
{
    (void)state;
    struct hello *hello = calloc(1, sizeof(*hello));
    struct message *message = hello_message(HELLO_SOURCE, 64 << 20);
    uint32_t whole = message->bytes;
    for (message->bytes = 0; message->bytes < whole; message->bytes++) {
        struct err err = { 0 };
        assert_int_equal(hello_decode(message, HELLO_SOURCE, hello, &err), -EPROTO);
        assert_true(err.text[0]);
    }
    message->bytes = whole + 9; /* what a later protocol appends */
    assert_int_equal(hello_decode(message, HELLO_SOURCE, hello, NULL), 0);
    free(message);
    free(hello);
}

static void the_key_travels_in_a_sources_hello(void **state)
{
    (void)state;
    struct hello *hello = calloc(1, sizeof(*hello));
    struct message *message = hello_message(HELLO_SOURCE, 64 << 20);
    memset(message->payload + message->bytes - DIGEST_KEY_BYTES, 0x5a, DIGEST_KEY_BYTES);
    assert_int_equal(hello_decode(message, HELLO_SOURCE, hello, NULL), 0);
    assert_int_equal(hello->key.secret[0], 0x5a);
    assert_int_equal(hello->key.secret[DIGEST_KEY_BYTES - 1], 0x5a);
    struct err err = { 0 };
    message->payload[message->bytes - DIGEST_KEY_BYTES - 1] ^= 1; /* it says another length */
    assert_int_equal(hello_decode(message, HELLO_SOURCE, hello, &err), -EPROTO);
    assert_non_null(strstr(err.text, "key"));
    free(message);
    free(hello);
}

static void a_question_and_its_answer_arrive_as_they_were_sent(void **state)
{
    (void)state;
    static struct unit_hash hash[VERIFY_HASHES_MAX], heard[VERIFY_HASHES_MAX];
    const struct verify_ranges ranges = { 3, UINT64_C(1) << 40, 1, VERIFY_HASHES_MAX };
    struct verify_ranges told;
    struct buf payload = { 0 };
    struct message *message = calloc(1, sizeof(*message));
    for (unsigned i = 0; i < VERIFY_HASHES_MAX; i++)
        hash[i] = (struct unit_hash){ { i, ~UINT64_C(0) / (i + 1) } };
    message_verify_encode(&ranges, &payload);
    memcpy(message->payload, payload.data, message->bytes = (uint32_t)payload.size);
    assert_int_equal(message_verify_decode(message, &told), 0);
    assert_true(told.source == 3 && told.first == ranges.first && told.step == 1 && told.count == ranges.count);
    assert_int_equal(message_verified_decode(message, &told, heard), 0); /* no hash: the peer cannot say */
    message->bytes--;
    assert_int_equal(message_verify_decode(message, &told), -EPROTO);

    payload.size = 0;
    message_verified_encode(&ranges, hash, VERIFY_HASHES_MAX, &payload);
    memcpy(message->payload, payload.data, message->bytes = (uint32_t)payload.size);
    assert_int_equal(message_verified_decode(message, &told, heard), VERIFY_HASHES_MAX);
    assert_memory_equal(heard, hash, sizeof(hash));
    assert_int_equal(message_verify_decode(message, &told), -EPROTO);
    message->bytes -= 1; /* half a hash */
    assert_int_equal(message_verified_decode(message, &told, heard), -EPROTO);
    message->bytes += 1 + sizeof(hash[0]); /* one too many */
    assert_int_equal(message_verified_decode(message, &told, heard), -EPROTO);
    free(message);
    buf_free(&payload);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_arrives_as_it_was_sent),
        cmocka_unit_test(every_flipped_bit_is_noticed),
        cmocka_unit_test(a_payload_beyond_the_limit_is_refused_before_it_is_read),
        cmocka_unit_test(a_peers_sentence_cannot_move_the_cursor),
        cmocka_unit_test(what_is_loaded_is_told_exactly),
        cmocka_unit_test(a_hello_carries_the_machine),
        cmocka_unit_test(two_sources_are_told_so),
        cmocka_unit_test(a_hello_cut_anywhere_is_refused_and_a_longer_one_is_not),
        cmocka_unit_test(the_key_travels_in_a_sources_hello),
        cmocka_unit_test(a_question_and_its_answer_arrive_as_they_were_sent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
