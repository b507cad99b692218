#include "machine/tohost.h"

#include "base/bytes.h"
#include "base/chardev.h"

enum { TOHOST_CODE_MAX = 255, TOHOST_PRINT_COMMAND = 0x0101, TOHOST_PAYLOAD_BITS = 48 };

enum tohost_kind tohost_decode(uint64_t value, unsigned *argument)
{
    *argument = 0;
    if (value == 0)
        return TOHOST_NOTHING;
    if (value >> TOHOST_PAYLOAD_BITS == TOHOST_PRINT_COMMAND) {
        *argument = value & 0xff;
        return TOHOST_PRINT;
    }
    if (value == 1)
        return TOHOST_PASSED;
    if (value % 2 == 0)
        return TOHOST_TAKEN;
    *argument = value >> 1 > TOHOST_CODE_MAX ? TOHOST_CODE_MAX : (unsigned)(value >> 1);
    return TOHOST_FAILED;
}

/* A full output queue loses the byte: the writer does not wait for the host's terminal. */
static void tohost_print(struct tohost *t, uint8_t byte)
{
    chardev_write(t->board->hosts->serial, &byte, 1);
}

static void tohost_stored(void *opaque)
{
    static const uint8_t zero[8];
    struct tohost *t = opaque;
    struct board *board = t->board;
    uint8_t word[8];
    unsigned argument;
    ram_read(board->ram, t->gpa, word, sizeof(word));
    switch (tohost_decode(le64_get(word), &argument)) {
    case TOHOST_NOTHING: return;
    case TOHOST_PASSED: board->power(board->opaque, REQUEST_SHUTDOWN, 0); return;
    case TOHOST_FAILED: board->power(board->opaque, REQUEST_FAIL, argument); return;
    case TOHOST_PRINT: tohost_print(t, (uint8_t)argument); break;
    case TOHOST_TAKEN: break;
    }
    trail_as("tohost");
    ram_write(board->ram, t->gpa, zero, sizeof(zero));
}

void tohost_watch(struct tohost *t, struct board *board, uint64_t gpa)
{
    *t = (struct tohost){ .board = board, .gpa = gpa };
    board->bus->watch = (struct bus_watch){ .gpa = gpa, .stored = gpa ? tohost_stored : NULL, .opaque = t };
}
