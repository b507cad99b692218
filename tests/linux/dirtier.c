/* A program for the Linux guest that keeps writing memory, checks what it wrote, and says what it felt.
 *
 *   dirtier MIB RATE_MIB_S [THREADS]      RATE 0: as fast as it can
 *
 * Every page carries its number and a sequence number, repeated at its end, and text in between; before a page is
 * written again it must still hold what was written last. A heartbeat thread reads the goldfish RTC (the host's clock,
 * through /dev/mem) every millisecond: CLOCK_MONOTONIC stands still while the machine is paused, the RTC does not, so the
 * largest gap between two beats is the pause that the guest felt. Once a second one line:
 *   dirtier: beat=12 gap_ms=1.234 written_mib=51 errors=0
 * gap_ms is the largest gap since the line before. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, RTC_GPA = 0x101000, THREADS_MAX = 64 };

static volatile uint32_t *rtc;
static _Atomic uint64_t bytes_written, errors;
static double rate_bytes_per_s;

struct share {
    pthread_t thread;
    uint8_t *base;
    size_t pages, first;
    uint64_t *expected; /* sequence number of each page */
};

static uint64_t now_ns(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Host time as the guest can see it; without the RTC the monotonic clock, which misses pauses. */
static uint64_t wall_ns(void)
{
    if (!rtc)
        return now_ns(CLOCK_MONOTONIC);
    uint32_t low = rtc[0]; /* reading the low half latches the high one */
    return (uint64_t)rtc[1] << 32 | low;
}

static const char *const words[] = { "the ",  "guest ", "keeps ", "writing ", "while ", "it ",    "travels ", "from ",
                                     "here ", "to ",    "there ", "and ",     "never ", "lands ", "page ",    "\n" };

/* Pages of text, made once: what is measured is memory being written, not text being made up. Every page written
 * differs from every other by its stamps, one in each quarter, and by which text it carries. */
enum { TEXTS = 64 };
static uint8_t texts[TEXTS][PAGE];

static void make_texts(void)
{
    uint64_t random = 1;
    for (unsigned t = 0; t < TEXTS; t++) {
        for (size_t at = 0; at < PAGE - 16;) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            const char *word = words[random >> 60];
            size_t length = strlen(word);
            memcpy(texts[t] + at, word, length);
            at += length;
            if ((random >> 33) % 5 == 0 && at < PAGE - 16) { /* some of it does not compress */
                memcpy(texts[t] + at, &random, 8);
                at += 8;
            }
        }
    }
}

static void write_page(uint8_t *page, uint64_t number, uint64_t sequence)
{
    memcpy(page, texts[(number * 7 + sequence) % TEXTS], PAGE);
    uint64_t *head = (uint64_t *)page, *tail = (uint64_t *)(page + PAGE - 16);
    for (size_t at = PAGE / 4; at < PAGE; at += PAGE / 4)
        *(uint64_t *)(page + at) = number * 0x9e3779b97f4a7c15u + sequence * 0xbf58476d1ce4e5b9u + at;
    head[0] = number;
    head[1] = sequence;
    tail[0] = number;
    tail[1] = sequence;
}

static void check_page(const uint8_t *page, uint64_t number, uint64_t sequence)
{
    const uint64_t *head = (const uint64_t *)page, *tail = (const uint64_t *)(page + PAGE - 16);
    if (sequence == 0 || (head[0] == number && head[1] == sequence && tail[0] == number && tail[1] == sequence))
        return;
    atomic_fetch_add(&errors, 1);
    printf("dirtier: ERROR page %llu: expected %llu, found %llu/%llu and %llu/%llu\n", (unsigned long long)number,
           (unsigned long long)sequence, (unsigned long long)head[0], (unsigned long long)head[1],
           (unsigned long long)tail[0], (unsigned long long)tail[1]);
    fflush(stdout);
}

static void *writer(void *arg)
{
    struct share *share = arg;
    uint64_t begun_ns = now_ns(CLOCK_MONOTONIC), written = 0;
    for (uint64_t sequence = 1;; sequence++) {
        for (size_t i = 0; i < share->pages; i++) {
            uint8_t *page = share->base + i * PAGE;
            check_page(page, share->first + i, share->expected[i]);
            write_page(page, share->first + i, sequence);
            share->expected[i] = sequence;
            written += PAGE;
            atomic_fetch_add_explicit(&bytes_written, PAGE, memory_order_relaxed);
            if (rate_bytes_per_s > 0 && i % 8 == 0) {
                uint64_t due_ns = begun_ns + (uint64_t)((double)written * 1e9 / rate_bytes_per_s);
                struct timespec until = { (time_t)(due_ns / 1000000000u), (long)(due_ns % 1000000000u) };
                if (due_ns > now_ns(CLOCK_MONOTONIC))
                    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
            }
        }
    }
    return NULL;
}

static void heartbeat(void)
{
    uint64_t gap_ns = 0, last_ns = wall_ns(), line_ns = now_ns(CLOCK_MONOTONIC), beat = 0, before = 0;
    struct sched_param real_time = { .sched_priority = 50 };
    sched_setscheduler(0, SCHED_FIFO, &real_time); /* so that writers do not count as pause */
    for (;;) {
        struct timespec beat_every = { 0, 1000000 };
        clock_nanosleep(CLOCK_MONOTONIC, 0, &beat_every, NULL);
        uint64_t seen_ns = wall_ns();
        if (seen_ns - last_ns > gap_ns)
            gap_ns = seen_ns - last_ns;
        last_ns = seen_ns;
        uint64_t guest_ns = now_ns(CLOCK_MONOTONIC);
        if (guest_ns - line_ns < 1000000000u)
            continue;
        uint64_t bytes = atomic_load(&bytes_written);
        printf("dirtier: beat=%llu gap_ms=%.3f written_mib=%llu errors=%llu\n", (unsigned long long)beat++,
               (double)gap_ns / 1e6, (unsigned long long)((bytes - before) >> 20),
               (unsigned long long)atomic_load(&errors));
        fflush(stdout);
        before = bytes;
        gap_ns = 0;
        line_ns = guest_ns;
        last_ns = wall_ns(); /* printing over a slow serial line is not a pause */
    }
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: dirtier MIB RATE_MIB_S [THREADS]\n");
        return 2;
    }
    size_t pages = strtoull(argv[1], NULL, 0) << 8;
    unsigned threads = argc > 3 ? (unsigned)atoi(argv[3]) : 1;
    threads = threads < 1 ? 1 : threads > THREADS_MAX ? THREADS_MAX : threads;
    rate_bytes_per_s = strtod(argv[2], NULL) * 1048576.0 / threads;

    int fd = open("/dev/mem", O_RDONLY | O_SYNC);
    if (fd >= 0) {
        void *map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, RTC_GPA);
        rtc = map == MAP_FAILED ? NULL : map;
    }
    printf("dirtier: ready, %zu pages, rtc %s\n", pages, rtc ? "yes" : "no");
    fflush(stdout);

    uint8_t *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED && pages) {
        perror("dirtier: mmap");
        return 1;
    }
    make_texts();
    struct share shares[THREADS_MAX];
    for (unsigned t = 0; t < threads && pages; t++) {
        size_t from = pages * t / threads, to = pages * (t + 1) / threads;
        shares[t] = (struct share){ .base = memory + from * PAGE, .pages = to - from, .first = from };
        shares[t].expected = calloc(to - from + 1, sizeof(uint64_t));
        pthread_create(&shares[t].thread, NULL, writer, &shares[t]);
    }
    heartbeat();
    return 0;
}
