/* How late a hart hears of its timer: a thread sleeps to full milliseconds and looks at the clock when it wakes. What it sees is the
 * machine's timer, the interrupt, the kernel's way to the thread, and whatever the host did meanwhile. See bench.h. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench.h"

enum { SLEEPS_MAX = 10000 };
static const uint64_t EVERY_NS = 1000000;

static int in_order(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int wanted(int argc, char **argv, const char *name)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return 1;
    return argc < 2;
}

int main(int argc, char **argv)
{
    static uint64_t late_ns[SLEEPS_MAX];
    struct sched_param real_time = { .sched_priority = 50 };
    uint64_t begun = bench_now_ns(), due = begun, count = 0;

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (sched_setscheduler(0, SCHED_FIFO, &real_time) < 0)
        bench_fail("sched_setscheduler");
    if (wanted(argc, argv, "timer"))
        bench_begin("timer");
    if (wanted(argc, argv, "timer-90%"))
        bench_begin("timer-90%");
    while (count < SLEEPS_MAX && ((double)(due - begun) < bench_least_ns() || count < 10)) {
        due += EVERY_NS;
        struct timespec at = { (time_t)(due / 1000000000), (long)(due % 1000000000) };
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
            ;
        uint64_t now = bench_now_ns();
        late_ns[count++] = now - due;
        if (now - due > EVERY_NS)
            due = now;
    }
    uint64_t took = bench_now_ns() - begun;
    qsort(late_ns, count, sizeof(*late_ns), in_order);
    if (wanted(argc, argv, "timer"))
        bench_end("timer", (double)late_ns[count / 2], (double)late_ns[0], "ns", 1, took, count);
    if (wanted(argc, argv, "timer-90%"))
        bench_end("timer-90%", (double)late_ns[count * 9 / 10], 0, "ns", 1, took, count);
    return 0;
}
