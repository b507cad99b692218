/* Runs a command and says how long it took, from fork to its end, or what the command says of itself.
 *
 *   timed NAME COMMAND...                       again and again until BENCH_MS have passed: seconds per run
 *   timed -u UNIT -p PREFIX -n FIELD [-d FIELD] NAME COMMAND...
 *                                               until it says, on either output, a line that begins with PREFIX: that FIELD of
 *                                               the line, counted from 1 and between colons, divided by the other, in UNIT
 *
 * A command that fails, that says something else the next time, or whose line is missing makes the line read WRONG. */
#include "bench.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* *failed: its wait status. Returns a checksum of the output. */
static uint64_t run(char **command, int *failed)
{
    int ends[2], status;
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    char bytes[65536];
    ssize_t got;

    if (pipe(ends) < 0)
        bench_fail("pipe");
    pid_t pid = fork();
    if (pid < 0)
        bench_fail("fork");
    if (pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execvp(command[0], command);
        perror(command[0]);
        _exit(127);
    }
    close(ends[1]);
    while ((got = read(ends[0], bytes, sizeof(bytes))) != 0) {
        if (got < 0 && errno != EINTR)
            bench_fail("read");
        for (ssize_t i = 0; i < got; i++)
            sum = (sum ^ (unsigned char)bytes[i]) * UINT64_C(0x100000001b3);
    }
    close(ends[0]);
    if (waitpid(pid, &status, 0) < 0)
        bench_fail("waitpid");
    *failed = status;
    return sum;
}

/* The number in a field of the line; NaN where there is none. */
static double field_of(const char *line, int field)
{
    while (line && --field > 0) {
        line = strchr(line, ':');
        line = line ? line + 1 : NULL;
    }
    return line ? strtod(line, NULL) : NAN;
}

static int until_line(char **argv, const char *unit, const char *prefix, int field, int divisor)
{
    char line[1024] = "";
    int ends[2];

    bench_begin(argv[0]);
    uint64_t begun = bench_now_ns();
    if (pipe(ends) < 0)
        bench_fail("pipe");
    pid_t pid = fork();
    if (pid < 0)
        bench_fail("fork");
    if (pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        execvp(argv[1], argv + 1);
        _exit(127);
    }
    close(ends[1]);
    FILE *said = fdopen(ends[0], "r");
    if (!said)
        bench_fail("fdopen");
    double value = NAN;
    while (isnan(value) && fgets(line, sizeof(line), said))
        if (strncmp(line, prefix, strlen(prefix)) == 0)
            value = field_of(line, field) / (divisor ? field_of(line, divisor) : 1);
    uint64_t took_ns = bench_now_ns() - begun;
    kill(pid, SIGKILL); /* what else it would measure is not wanted */
    waitpid(pid, NULL, 0);
    fclose(said);
    if (!(value > 0)) {
        printf("WRONG %s: no number in a line that begins with %s; the last: %s\n", argv[0], prefix, line);
        return 1;
    }
    bench_end(argv[0], value, 0, unit, 0, took_ns, 1);
    return 0;
}

static int repeat(char **argv)
{
    uint64_t rounds = 1;
    int failed;

    bench_begin(argv[0]);
    uint64_t begun = bench_now_ns(), first = run(argv + 1, &failed), sum = first, now = bench_now_ns();
    while (!failed && sum == first && (double)(now - begun) < bench_least_ns()) {
        sum = run(argv + 1, &failed);
        now = bench_now_ns();
        rounds++;
    }
    if (failed || sum != first) {
        printf("WRONG %s: status %d, output %016" PRIx64 ", first %016" PRIx64 "\n", argv[0], failed, sum, first);
        return 1;
    }
    bench_end(argv[0], (double)(now - begun) / 1e9 / (double)rounds, 0, "s", first, now - begun, rounds);
    return 0;
}

int main(int argc, char **argv)
{
    const char *unit = "s", *prefix = NULL;
    int field = 1, divisor = 0, option;

    setvbuf(stdout, NULL, _IOLBF, 0);
    while ((option = getopt(argc, argv, "+u:p:n:d:")) != -1) {
        switch (option) {
        case 'u': unit = optarg; break;
        case 'p': prefix = optarg; break;
        case 'n': field = atoi(optarg); break;
        case 'd': divisor = atoi(optarg); break;
        default: return 1;
        }
    }
    if (argc - optind < 2) {
        fprintf(stderr, "usage: timed [-u UNIT -p PREFIX -n FIELD [-d FIELD]] NAME COMMAND...\n");
        return 1;
    }
    return prefix ? until_line(argv + optind, unit, prefix, field, divisor) : repeat(argv + optind);
}
