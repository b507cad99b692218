/* Runs a command again and again until enough time has passed: seconds per run, from fork to its end.
 *
 *   timed NAME COMMAND...        what the command says on its standard output goes into the checksum of the first run
 *
 * BENCH_MS as in bench.h. A command that fails, or that says something else the next time, makes the line read WRONG. */
#include "bench.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

/* Exit code 0 expected; returns a checksum of the output. */
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

int main(int argc, char **argv)
{
    uint64_t begun, warm, now, first, sum, rounds = 0;
    int failed;

    if (argc < 3) {
        fprintf(stderr, "usage: timed NAME COMMAND...\n");
        return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    bench_begin(argv[1]);
    warm = begun = bench_now_ns();
    sum = first = run(argv + 2, &failed);
    now = bench_now_ns();
    while (!failed && sum == first && (double)(now - warm) < bench_least_ns()) {
        sum = run(argv + 2, &failed);
        now = bench_now_ns();
        rounds++;
    }
    if (failed || sum != first) {
        printf("WRONG %s: status %d, output %016" PRIx64 ", first %016" PRIx64 "\n", argv[1], failed, sum, first);
        return 1;
    }
    rounds++;
    bench_end(argv[1], (double)(now - begun) / 1e9 / (double)rounds, "s", first, now - begun, rounds);
    return 0;
}
