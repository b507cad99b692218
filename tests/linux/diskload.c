/* A program for the Linux guest that keeps writing a disk, past every cache, and checks what it wrote.
 *
 *   diskload DEVICE MIB RATE_MIB_S
 *
 * Every block of 64 KiB that it writes carries its number and how often it was written; before it is written again it is read, and
 * must still be what was written last. Once a second a flush and one line:
 *   diskload: beat=12 written_mib=20 errors=0 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 64 * 1024, WORDS = BLOCK / 8 };

static double clock_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t word_of(uint64_t block, uint64_t turn, unsigned i)
{
    uint64_t v = (block << 32 ^ turn) * UINT64_C(0x9e3779b97f4a7c15) + i * UINT64_C(0xd1342543de82ef95);
    return (v ^ v >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
}

static int holds(const uint64_t *data, uint64_t block, uint64_t turn)
{
    for (unsigned i = 0; i < WORDS; i++)
        if (data[i] != word_of(block, turn, i))
            return 0;
    return 1;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    uint64_t blocks = (uint64_t)atoi(argv[2]) * (1 << 20) / BLOCK, state = 88172645463325252, written = 0, errors = 0;
    double rate = atof(argv[3]) * (1 << 20), begun = clock_s(), beat_at = begun + 1;
    uint32_t *turn = calloc(blocks, sizeof(*turn));
    uint64_t *data;
    int fd = open(argv[1], O_RDWR | O_DIRECT);
    if (fd < 0 || !turn || posix_memalign((void **)&data, 4096, BLOCK) != 0)
        return 1;
    for (unsigned beat = 1;;) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        uint64_t block = state % blocks;
        off_t at = (off_t)(block * BLOCK);
        if (turn[block] && (pread(fd, data, BLOCK, at) != BLOCK || !holds(data, block, turn[block])))
            errors++;
        turn[block]++;
        for (unsigned i = 0; i < WORDS; i++)
            data[i] = word_of(block, turn[block], i);
        if (pwrite(fd, data, BLOCK, at) != BLOCK)
            errors++;
        written += BLOCK;
        double ahead = begun + (double)written / rate - clock_s();
        if (ahead > 0)
            usleep((useconds_t)(ahead * 1e6));
        else if (ahead < -1)
            begun = clock_s() - (double)written / rate; /* what was missed is not made up for */
        if (clock_s() < beat_at)
            continue;
        if (fsync(fd) != 0)
            errors++;
        printf("diskload: beat=%u written_mib=%llu errors=%llu\n", beat++, (unsigned long long)(written >> 20),
               (unsigned long long)errors);
        fflush(stdout);
        beat_at += 1;
    }
}
