/* A person at an HMP monitor who types what somebody made up. Each input is a row of pieces: u8 kind, u8 length, bytes: keys
 * as they are; a command of the table with the bytes as its arguments; another state of guest and migration; a terminal that
 * stalls or hangs up. Whatever is typed: no crash, and what is shown is bounded. */
#include "tests/fuzz/monitor.h"

enum { SHOWN_MAX = 4 << 20 };

static void type_command(struct input *in)
{
    const struct command *command = &command_table[take(in, 1) % command_rows];
    const char *name = command->hmp ? command->hmp : "info";
    unsigned how = (unsigned)take(in, 1);
    session_hear(name, strlen(name));
    session_hear(" ", 1);
    if (how & 1) {
        const struct param_row *row = &param_table[take(in, 1) % param_rows];
        session_hear(row->name, strlen(row->name));
        session_hear(" ", 1);
    }
    session_hear(in->data, in->size);
    session_hear("\n", 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, size };
    session_begin(MONITOR_HMP);
    for (unsigned n = 0; in.size && n < PIECES_MAX; n++) {
        enum piece_kind kind = (enum piece_kind)(take(&in, 1) % 4);
        size_t bytes;
        const uint8_t *at = take_bytes(&in, take(&in, 1), &bytes);
        struct input piece = { at, bytes };
        switch (kind) {
        case PIECE_RAW: session_hear(at, bytes); break;
        case PIECE_COMMAND: type_command(&piece); break;
        case PIECE_STATE: session_state(&piece); break;
        case PIECE_STALL: session_stall(&piece); break;
        }
        uv_run(&loop, UV_RUN_NOWAIT);
        FUZZ_CHECK(chardev->said.size <= SHOWN_MAX);
        chardev->said.size = 0;
    }
    session_end();
    return 0;
}
