/* What two godwits say to each other, against bytes that somebody made up: messages, the hello in both roles, what a
 * destination reports, and the source's ear. Each input is a row of messages: u8 flags, be16 payload bytes, and with them
 * type and payload; with flag 1 the envelope around it is right, so that the payload is read. Whatever comes: a value or a
 * sentence, and what was understood is said again in the same bytes. */
#include "migration/hello.h"
#include "migration/report.h"
#include "migration/return_path.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/migration/memory_channel.h"

enum { FLAG_RIGHT = 1 };

static const struct message_key key = { .id = { 1, 2, 3 }, .attempt = 1 };

static void put_one(struct input *in, struct buf *out)
{
    unsigned flags = (unsigned)take(in, 1), type = (unsigned)take(in, 1) % 24;
    size_t bytes;
    const uint8_t *data = take_bytes(in, take(in, 2) % 4096, &bytes);
    if (flags & FLAG_RIGHT)
        message_put(out, type, &key, data, (uint32_t)bytes);
    else
        buf_put(out, data, bytes);
}

static void try_hello(const struct message *message, enum hello_role role)
{
    static struct hello hello, again; /* large */
    static struct message said;
    struct err err = { 0 };
    if (hello_decode(message, role, &hello, &err) < 0) {
        FUZZ_CHECK(err.text[0]);
        return;
    }
    struct buf out = { 0 };
    hello_encode(&hello, &out);
    FUZZ_CHECK(out.size <= MESSAGE_PAYLOAD_MAX);
    said = *message;
    said.bytes = (uint32_t)out.size;
    memcpy(said.payload, out.data, out.size);
    FUZZ_CHECK(hello_decode(&said, role, &again, NULL) == 0);
    FUZZ_CHECK(memcmp(&hello, &again, sizeof(hello)) == 0);
    buf_free(&out);
}

static void try_payload(const struct message *message)
{
    static struct report_arrival arrival, again;
    struct message_loaded loaded;
    char sentence[MESSAGE_SENTENCE_MAX + 1];
    struct buf out = { 0 };

    try_hello(message, HELLO_SOURCE);
    try_hello(message, HELLO_DESTINATION);
    message_loaded_decode(message, &loaded);
    message_sentence(message, sentence, sizeof(sentence));
    for (const char *at = sentence; *at; at++)
        FUZZ_CHECK((uint8_t)*at >= 0x20 && *at != 0x7f); /* nothing that a terminal would obey */

    struct reader in = reader_of(message->payload, message->bytes);
    if (report_arrival_decode(&in, &arrival) == 0) {
        report_arrival_encode(&arrival, &out);
        struct reader back = reader_of(out.data, out.size);
        FUZZ_CHECK(report_arrival_decode(&back, &again) == 0);
        FUZZ_CHECK(memcmp(&arrival, &again, sizeof(arrival)) == 0);
    }
    buf_free(&out);
}

static void ignore(void *opaque, const struct err *why)
{
    FUZZ_CHECK(why->text[0]);
    (void)opaque;
}

/* The source's thread that listens; it ends with the bytes. */
static void try_ear(const struct buf *bytes)
{
    static struct return_path path;
    struct memory_channel line = memory_channel_over(bytes->data, bytes->size);
    FUZZ_CHECK(return_path_start(&path, &line.channel, &key, ignore, NULL, NULL) == 0);
    return_path_stop(&path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct message message; /* large */
    struct input in = { data, size };
    struct buf bytes = { 0 };
    while (in.size)
        put_one(&in, &bytes);
    struct memory_channel line = memory_channel_over(bytes.data ? (void *)bytes.data : "", bytes.size);
    struct err err = { 0 };
    int rc;
    while ((rc = message_read(&line.channel, false, &message, 0, &err)) == 0)
        try_payload(&message);
    FUZZ_CHECK(err.text[0]);
    if (bytes.size)
        try_ear(&bytes);
    buf_free(&bytes);
    return 0;
}
