/* A debugger's session against bytes that somebody made up. Each input is a row of pieces: u8 kind, u8 length, bytes. With
 * kind 1 the bytes become a packet of their own, with its sum right, so that mutations get past the check that would
 * stop almost all of them; else they are fed as they are. Whatever comes, answers are whole packets of a bounded size. */
#include <stdlib.h>

#include "tests/unit/monitor/fake_guest.h"

enum { KIND_PACKET = 1, KIND_STOP = 2 };

static void check_answers(void)
{
    struct gdb_parser parser;
    gdb_parser_init(&parser);
    for (size_t i = 0; i < guest.sent.size; i++) {
        switch (gdb_parser_take(&parser, guest.sent.data[i])) {
        case GDB_TOO_LONG:
        case GDB_BAD_SUM:
        case GDB_INTERRUPT: abort();
        default: break;
        }
    }
    if (parser.state != GDB_OUTSIDE)
        abort();
    guest.sent.size = 0;
}

static void piece(struct gdb_session *session, uint8_t kind, const uint8_t *data, size_t bytes)
{
    struct buf packet = { 0 };
    if (kind == KIND_STOP) {
        gdb_session_stopped(session, bytes % FAKE_HARTS, GDB_SIGNAL_TRAP, bytes & 1 ? "a note" : NULL);
    } else if (kind == KIND_PACKET) {
        gdb_packet_put(&packet, data, bytes);
        gdb_session_receive(session, packet.data, packet.size);
    } else {
        gdb_session_receive(session, data, bytes);
    }
    buf_free(&packet);
    check_answers();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct gdb_session session;

    fake_guest_reset();
    gdb_session_open(&session, &fake_target, NULL);
    for (size_t at = 0; at + 2 <= bytes;) {
        size_t length = data[at + 1];
        if (length > bytes - at - 2)
            length = bytes - at - 2;
        piece(&session, data[at] & 3, data + at + 2, length);
        at += 2 + length;
    }
    gdb_session_close(&session);
    return 0;
}
