/* What a kernel does for a process: system calls, page faults, processes, pipes, switches. One hart. */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    PAGE = 4096,
    CALLS = 2000,
    PAGES = 512,
    PROCESSES = 5,
    PINGS = 200,
    YIELDS = 500,
    SIGNALS = 500,
    PROTECTS = 200
};

static const char TINY[] = "/bench/tiny"; /* tiny.c, static */

static uint64_t syscall_round(void)
{
    uint64_t sum = 0;

    for (int i = 0; i < CALLS; i++)
        sum += (uint64_t)syscall(SYS_getpid);
    return sum == (uint64_t)getpid() * CALLS;
}

static int zero_fd, null_fd;

static void files_begin(void)
{
    zero_fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (zero_fd < 0 || null_fd < 0)
        bench_fail("/dev/zero, /dev/null");
}

static void files_end(void)
{
    close(zero_fd);
    close(null_fd);
}

static uint64_t copy_round(void) /* a system call that moves data to and from the caller */
{
    char bytes[1024];

    for (int i = 0; i < CALLS / 4; i++)
        if (read(zero_fd, bytes, sizeof(bytes)) != sizeof(bytes) ||
            write(null_fd, bytes, sizeof(bytes)) != sizeof(bytes))
            bench_fail("copy");
    return 1;
}

static uint64_t fault_round(void)
{
    uint64_t sum = 0;
    char *map = mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (map == MAP_FAILED)
        bench_fail("fault: mmap");
    madvise(map, (size_t)PAGES * PAGE, MADV_NOHUGEPAGE); /* refused where there are none: as good */
    for (size_t i = 0; i < PAGES; i++) {
        sum += (uint64_t)(unsigned char)map[i * PAGE]; /* the zero page, then a page of its own */
        map[i * PAGE] = 1;
    }
    munmap(map, (size_t)PAGES * PAGE);
    return sum + 1;
}

static uint64_t protect_round(void) /* one page's rights taken and given back: translations to forget */
{
    volatile char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (page == MAP_FAILED)
        bench_fail("protect: mmap");
    for (int i = 0; i < PROTECTS; i++) {
        *page = (char)i;
        if (mprotect((void *)(uintptr_t)page, PAGE, PROT_READ) < 0 ||
            mprotect((void *)(uintptr_t)page, PAGE, PROT_READ | PROT_WRITE) < 0)
            bench_fail("mprotect");
    }
    munmap((void *)(uintptr_t)page, PAGE);
    return 1;
}

static uint64_t wait_for_child(pid_t child)
{
    int status;

    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            bench_fail("waitpid");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 7) {
        errno = ECHILD;
        bench_fail("a child did not end as it should");
    }
    return 7;
}

static uint64_t fork_round(void)
{
    uint64_t sum = 0;

    for (int i = 0; i < PROCESSES; i++) {
        pid_t child = fork();
        if (child < 0)
            bench_fail("fork");
        if (child == 0)
            _exit(7);
        sum += wait_for_child(child);
    }
    return sum;
}

static uint64_t exec_round(void)
{
    uint64_t sum = 0;

    for (int i = 0; i < PROCESSES; i++) {
        pid_t child = fork();
        if (child < 0)
            bench_fail("fork");
        if (child == 0) {
            execl(TINY, TINY, (char *)NULL);
            _exit(1);
        }
        sum += wait_for_child(child);
    }
    return sum;
}

/* --- a process that echoes what comes through a pipe --------------------------------------------------------------------- */

static int there[2], back[2];
static pid_t echo;

static void pipe_begin(void)
{
    if (pipe(there) < 0 || pipe(back) < 0)
        bench_fail("pipe");
    echo = fork();
    if (echo < 0)
        bench_fail("fork");
    if (echo > 0) {
        close(there[0]);
        close(back[1]);
        return;
    }
    close(there[1]);
    close(back[0]);
    char bytes[64];
    while (read(there[0], bytes, sizeof(bytes)) == sizeof(bytes))
        if (write(back[1], bytes, sizeof(bytes)) != sizeof(bytes))
            break;
    _exit(7);
}

static uint64_t pipe_round(void)
{
    char bytes[64] = "ping";

    for (int i = 0; i < PINGS; i++)
        if (write(there[1], bytes, sizeof(bytes)) != sizeof(bytes) ||
            read(back[0], bytes, sizeof(bytes)) != sizeof(bytes))
            bench_fail("pipe");
    return (uint64_t)bytes[0];
}

static void pipe_end(void)
{
    close(there[1]);
    close(back[0]);
    wait_for_child(echo);
}

/* --- two threads that give way to each other -------------------------------------------------------------------------------- */

static atomic_int yielder_ends;
static pthread_t yielder;

static void *yield_for_ever(void *unused)
{
    (void)unused;
    while (!atomic_load_explicit(&yielder_ends, memory_order_relaxed)) /* only a flag */
        sched_yield();
    return NULL;
}

static void yield_begin(void)
{
    atomic_store_explicit(&yielder_ends, 0, memory_order_relaxed);
    if (pthread_create(&yielder, NULL, yield_for_ever, NULL))
        bench_fail("pthread_create");
}

static uint64_t yield_round(void)
{
    for (int i = 0; i < YIELDS; i++)
        sched_yield();
    return 1;
}

static void yield_end(void)
{
    atomic_store_explicit(&yielder_ends, 1, memory_order_relaxed);
    pthread_join(yielder, NULL);
}

/* --- signals ------------------------------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t caught;

static void on_signal(int number)
{
    (void)number;
    caught++;
}

static void signal_begin(void)
{
    struct sigaction action = { .sa_handler = on_signal };

    if (sigaction(SIGUSR1, &action, NULL) < 0)
        bench_fail("sigaction");
}

static uint64_t signal_round(void)
{
    caught = 0;
    for (int i = 0; i < SIGNALS; i++)
        raise(SIGUSR1);
    return (uint64_t)caught;
}

static const struct kernel SYS_KERNELS[] = {
    { "syscall", syscall_round, 1, CALLS, NULL, NULL },
    { "read+write", copy_round, 1, CALLS / 2, files_begin, files_end },
    { "page-fault", fault_round, 1, (double)PAGES * 2, NULL, NULL },
    { "mprotect", protect_round, 1, PROTECTS * 2, NULL, NULL },
    { "fork", fork_round, 7 * PROCESSES, PROCESSES, NULL, NULL },
    { "fork+exec", exec_round, 7 * PROCESSES, PROCESSES, NULL, NULL },
    { "pipe", pipe_round, 'p', PINGS, pipe_begin, pipe_end },
    { "switch", yield_round, 1, YIELDS * 2, yield_begin, yield_end },
    { "signal", signal_round, SIGNALS, SIGNALS, signal_begin, NULL },
    { 0 },
};

int main(int argc, char **argv)
{
    return bench_main(argc, argv, SYS_KERNELS);
}
