/* `tohost`: how bare-metal test programs say what became of them (the host-target interface of RISC-V's test suites).
 *
 * A 64-bit word of RAM, found by its symbol, whose stores are looked at:
 *   odd           the end: value 1 passed, else test number value >> 1 failed
 *   0x0101 << 48  device 1, command 1: print the low byte, on the serial line
 *   other values  taken and not answered
 * Where the value was taken the word becomes 0 again; after an end it stays. */
#pragma once
#include <stdbool.h>

#include "machine/board.h"

struct tohost {
    /* fixed while harts run */
    struct board *board;
    uint64_t gpa;
};

enum tohost_kind { TOHOST_NOTHING, TOHOST_PASSED, TOHOST_FAILED, TOHOST_PRINT, TOHOST_TAKEN };

/* Pure. *argument: the exit code (1 to 255) of FAILED, the byte of PRINT. */
enum tohost_kind tohost_decode(uint64_t value, unsigned *argument);

/* Watch the word at gpa, or nothing (0). Every vCPU paused. `t` and `board` live as long as the bus. */
void tohost_watch(struct tohost *t, struct board *board, uint64_t gpa);
