/* The Linux guest that migrations are measured on: a writer on each hart, a heartbeat, and a check of everything. See dirty.h.
 *
 * The heartbeat, a real-time thread, reads the goldfish RTC through /dev/mem (kernel option iomem=relaxed) every millisecond: it is
 * the host's clock. CLOCK_MONOTONIC stands still while the machine is paused. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "dirty.h"

enum { RTC_GPA = 0x101000, WRITERS_MAX = 64 };

static volatile uint32_t *rtc;
static struct dirty_options options;
static struct dirty writer[WRITERS_MAX];
static unsigned writers;
static _Atomic int stop; /* relaxed: only told; pthread_join orders the rest */

static uint64_t guest_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t rtc_ns(void)
{
    uint32_t low = rtc[0]; /* reading the low half latches the high one */
    return (uint64_t)rtc[1] << 32 | low;
}

static void sleep_ns(uint64_t ns)
{
    struct timespec t = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
    clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
}

static void *write_pages(void *opaque)
{
    struct dirty *d = opaque;
    double ns_per_page = dirty_ns_per_page(&options, (unsigned)(d - writer), writers);

    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        uint64_t now = guest_ns();
        dirty_step(d, now);
        uint64_t wait = ns_per_page > 0 ? dirty_wait_ns(d, ns_per_page, now) : 0;
        if (wait)
            sleep_ns(wait);
    }
    return NULL;
}

static uint64_t written(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < writers; i++)
        sum += __atomic_load_n(&writer[i].written, __ATOMIC_RELAXED);
    return sum;
}

static uint64_t errors(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < writers; i++)
        sum += __atomic_load_n(&writer[i].errors, __ATOMIC_RELAXED);
    return sum;
}

static void say(const char *text)
{
    size_t at = 0, length = strlen(text);
    while (at < length) {
        ssize_t put = write(STDOUT_FILENO, text + at, length - at);
        if (put < 0 && errno != EINTR)
            exit(1);
        at += put > 0 ? (size_t)put : 0;
    }
}

/* False: a q was typed. */
static int look_at_line(void)
{
    struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
    char typed[64];

    if (poll(&in, 1, 0) != 1)
        return 1;
    ssize_t got = read(STDIN_FILENO, typed, sizeof(typed));
    for (ssize_t i = 0; i < got; i++) {
        if (typed[i] == 'x')
            dirty_spoil(&writer[0]);
        if (typed[i] == 'q')
            return 0;
    }
    return 1;
}

static void heartbeat(void)
{
    uint64_t last = rtc_ns(), gap = 0, at = last, line = guest_ns(), dot = line, n = 0;
    struct sched_param real_time = { .sched_priority = 50 };
    char text[200];

    sched_setscheduler(0, SCHED_FIFO, &real_time); /* so that writers do not count as pause */
    for (;;) {
        sleep_ns(DIRTY_BEAT_NS);
        uint64_t seen = rtc_ns(), now = guest_ns();
        if (seen - last > gap) {
            gap = seen - last;
            at = seen;
        }
        last = seen;
        if (options.dots_ms && now - dot >= options.dots_ms * 1000000) {
            say(".");
            dot = now;
        }
        if (now - line < DIRTY_LINE_NS)
            continue;
        line = now;
        snprintf(text, sizeof(text), "\nD %llu rtc %llu guest %llu gap %llu at %llu pages %llu errors %llu\n",
                 (unsigned long long)n++, (unsigned long long)seen, (unsigned long long)now, (unsigned long long)gap,
                 (unsigned long long)at, (unsigned long long)written(), (unsigned long long)errors());
        say(text);
        gap = 0;
        if (!look_at_line())
            return;
    }
}

/* Text that somebody wrote: its pages are cut from it at different places, as those of the other text are. */
static void read_book(char *text)
{
    FILE *book = fopen("/bench/book", "rb");

    if (!book || fread(text, 1, DIRTY_TEXT, book) != DIRTY_TEXT) {
        printf("FAILED /bench/book is not there, or shorter than %d bytes\n", DIRTY_TEXT);
        exit(1);
    }
    fclose(book);
}

static void begin(uint64_t pages)
{
    uint64_t *memory = mmap(NULL, pages * DIRTY_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint32_t *sequence = calloc(pages + 1, sizeof(*sequence));
    char *text = options.content == DIRTY_TEXTUAL && pages ? malloc(DIRTY_TEXT) : NULL;

    if ((pages && memory == MAP_FAILED) || !sequence) {
        printf("FAILED no memory for %llu pages\n", (unsigned long long)pages);
        exit(1);
    }
    if (text && options.book)
        read_book(text);
    else if (text)
        dirty_text_make(text, DIRTY_TEXT, options.seed);
    for (unsigned i = 0; i < writers; i++) {
        uint64_t from = pages * i / writers, to = pages * (i + 1) / writers;
        writer[i] = (struct dirty){ .options = &options, .text = (void *)text, .base = memory + from * DIRTY_WORDS };
        writer[i].sequence = sequence + from;
        writer[i].pages = to - from;
        writer[i].first_page = from;
        dirty_fill(&writer[i], guest_ns());
    }
}

static void finish(pthread_t *thread)
{
    char text[120];

    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < writers; i++) {
        pthread_join(thread[i], NULL);
        dirty_check_all(&writer[i]);
    }
    for (unsigned i = 0; i < writers; i++)
        if (writer[i].errors)
            printf("\nERROR page %llu holds what was not written last\n", (unsigned long long)writer[i].bad_page);
    for (unsigned i = 0; i < writers; i++)
        printf("\nWRITER %u pages %llu", i, (unsigned long long)writer[i].written);
    fflush(stdout);
    snprintf(text, sizeof(text), "\nEND %s pages %llu errors %llu\n", errors() ? "failed" : "ok",
             (unsigned long long)written(), (unsigned long long)errors());
    say(text);
}

int main(int argc, char **argv)
{
    char args[1024] = "";
    pthread_t thread[WRITERS_MAX];
    struct termios terminal;

    for (int i = 1; i < argc && strlen(args) + strlen(argv[i]) + 2 < sizeof(args); i++) {
        strcat(args, argv[i]);
        strcat(args, " ");
    }
    const char *wrong = dirty_options_read(args, &options);
    int fd = open("/dev/mem", O_RDONLY | O_SYNC);
    void *map = fd >= 0 ? mmap(NULL, DIRTY_PAGE, PROT_READ, MAP_SHARED, fd, RTC_GPA) : MAP_FAILED;
    if (map == MAP_FAILED)
        wrong = "no RTC through /dev/mem: boot with iomem=relaxed";
    if (wrong) {
        printf("FAILED %s\n", wrong);
        return 2;
    }
    rtc = map;
    if (tcgetattr(STDIN_FILENO, &terminal) == 0) {
        terminal.c_lflag &= ~(tcflag_t)(ECHO | ICANON);
        tcsetattr(STDIN_FILENO, TCSANOW, &terminal);
    }
    uint64_t pages = options.bytes_total / DIRTY_PAGE;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    writers = pages == 0 ? 0 : cpus < 1 ? 1 : cpus > WRITERS_MAX ? WRITERS_MAX : (unsigned)cpus;
    begin(pages);
    printf("READY pages %llu writers %u rate %llu\n", (unsigned long long)pages, writers,
           (unsigned long long)options.rate);
    fflush(stdout);
    for (unsigned i = 0; i < writers; i++) {
        if (pthread_create(&thread[i], NULL, write_pages, &writer[i]) != 0) {
            printf("FAILED no thread\n");
            return 1;
        }
    }
    heartbeat();
    finish(thread);
    return 0;
}
