/* How fast a disk is from inside the guest: O_DIRECT, in order and at random, with one and with many requests under way.
 *
 *   diskio DEVICE SECONDS [MIB]     one line each: "diskio: NAME VALUE UNIT" */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SEQUENTIAL_BYTES = 1 << 20, RANDOM_BYTES = 4096, THREADS_MAX = 16 };

struct work {
    const char *name;
    bool write, random;
    unsigned threads;
};

static int fd;
static uint64_t disk_bytes;
static double until_s;
static const struct work *now;
static _Atomic uint64_t place, done;

static double clock_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void *worker(void *opaque)
{
    uint64_t bytes = now->random ? RANDOM_BYTES : SEQUENTIAL_BYTES, state = 88172645463325252 + (uintptr_t)opaque;
    void *memory;
    if (posix_memalign(&memory, 4096, bytes) != 0)
        abort();
    memset(memory, 0x5a, bytes);
    while (clock_s() < until_s) {
        uint64_t number = now->random ? next_random(&state) : atomic_fetch_add(&place, 1);
        off_t offset = (off_t)(number % (disk_bytes / bytes) * bytes);
        ssize_t got = now->write ? pwrite(fd, memory, bytes, offset) : pread(fd, memory, bytes, offset);
        if (got != (ssize_t)bytes) {
            printf("diskio: ERROR at %lld\n", (long long)offset);
            exit(1);
        }
        atomic_fetch_add(&done, 1);
    }
    free(memory);
    return NULL;
}

static void run(const struct work *work, double seconds)
{
    pthread_t thread[THREADS_MAX];
    double begun_s = clock_s();
    now = work;
    until_s = begun_s + seconds;
    atomic_store(&place, 0);
    atomic_store(&done, 0);
    for (uintptr_t i = 0; i < work->threads; i++)
        pthread_create(&thread[i], NULL, worker, (void *)i);
    for (unsigned i = 0; i < work->threads; i++)
        pthread_join(thread[i], NULL);
    double rate = (double)atomic_load(&done) / (clock_s() - begun_s);
    printf("diskio: %s %.0f %s\n", work->name, rate, work->random ? "requests/s" : "MiB/s");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const struct work works[] = {
        { "sequential-write", true, false, 1 }, { "sequential-read", false, false, 1 },
        { "random-read-1", false, true, 1 },    { "random-write-1", true, true, 1 },
        { "random-read-16", false, true, 16 },  { "random-write-16", true, true, 16 },
    };
    if (argc < 3)
        return 2;
    fd = open(argv[1], O_RDWR | O_DIRECT);
    disk_bytes = (uint64_t)lseek(fd, 0, SEEK_END);
    if (argc > 3 && (uint64_t)atoi(argv[3]) << 20 < disk_bytes)
        disk_bytes = (uint64_t)atoi(argv[3]) << 20;
    if (fd < 0 || disk_bytes < SEQUENTIAL_BYTES)
        return 1;
    run(&(struct work){ "warm-up", true, false, 1 }, atof(argv[2]));
    for (unsigned i = 0; i < sizeof(works) / sizeof(works[0]); i++)
        run(&works[i], atof(argv[2]));
    return 0;
}
