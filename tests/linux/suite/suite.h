/* What the programs of the suite share. Each computes something whose result does not depend on the machine, and prints it as one
 * line. They are compiled by the guest's gcc inside the guest and by the host's beside it: tests/system/test_suite.py. */
#ifndef SUITE_H
#define SUITE_H
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* A checksum that takes in a word (the finalizer of splitmix64: every bit of the word counts). */
static inline void take(uint64_t *sum, uint64_t word)
{
    uint64_t z = (*sum ^ word) + 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    *sum = z ^ (z >> 31);
}

/* Its bits, to the last. Not for NaNs, whose bits are each machine's own. */
static inline void take_double(uint64_t *sum, double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof(bits));
    take(sum, bits);
}

static inline void take_text(uint64_t *sum, const char *text)
{
    for (; *text; text++)
        take(sum, (unsigned char)*text);
}

/* Numbers in no order, the same everywhere. */
static inline uint64_t next_number(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static inline int say(const char *name, uint64_t sum)
{
    return printf("%s %016" PRIx64 "\n", name, sum) < 0;
}

#endif
