/* Signals: handlers that return, that repair what they were called for, that jump out; a stack of their own; masks; timers that hit
 * arithmetic in the middle; children that are stopped, continued and killed. */
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include "suite.h"

enum { PAGE = 4096, PAGES = 64 };

static volatile sig_atomic_t came, ticks;
static unsigned char *pages;
static sigjmp_buf out;
static char own_stack[65536];
static volatile int on_own_stack;

static void counted(int number, siginfo_t *info, void *context)
{
    (void)info, (void)context;
    came += number == SIGUSR1 ? 1 : 100;
}

static void ticked(int number, siginfo_t *info, void *context)
{
    volatile double disturb = number; /* and the registers of floating point with it */

    (void)info, (void)context;
    for (int i = 0; i < 50; i++)
        disturb = disturb * 1.5 + i;
    ticks++;
}

/* Opens the page that was missing: the store is repeated. */
static void opened(int number, siginfo_t *info, void *context)
{
    uintptr_t page = (uintptr_t)info->si_addr & -(uintptr_t)PAGE;

    (void)context;
    if (number != SIGSEGV || page < (uintptr_t)pages || page >= (uintptr_t)pages + PAGES * PAGE ||
        mprotect((void *)page, PAGE, PROT_READ | PROT_WRITE))
        _exit(3);
    came++;
}

static void jumped(int number, siginfo_t *info, void *context)
{
    char here;

    (void)info, (void)context;
    on_own_stack += &here >= own_stack && &here < own_stack + sizeof(own_stack);
    siglongjmp(out, number == SIGSEGV ? 1 : 2);
}

static void handle(int number, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags };

    sigemptyset(&action.sa_mask);
    if (sigaction(number, &action, NULL))
        exit(4);
}

static void faults(uint64_t *sum)
{
    stack_t stack = { .ss_sp = own_stack, .ss_size = sizeof(own_stack) };
    volatile int times = 0;

    handle(SIGSEGV, opened, 0);
    came = 0;
    for (int i = 0; i < PAGES * 4; i++) {
        pages[i * 7919 % (PAGES * PAGE)] += (unsigned char)i;
        take(sum, (uint64_t)came);
    }
    for (int i = 0; i < PAGES * PAGE; i += 97)
        take(sum, pages[i]);
    sigaltstack(&stack, NULL);
    handle(SIGSEGV, jumped, SA_ONSTACK);
    handle(SIGILL, jumped, SA_ONSTACK);
    mprotect(pages, PAGE, PROT_READ);
    take(sum, (uint64_t)sigsetjmp(out, 1));
    if (++times < 200) {
        if (times % 4 == 0)
            __builtin_trap();
        pages[times] = 1;
        exit(5);
    }
    take(sum, (uint64_t)on_own_stack);
}

static void masks(uint64_t *sum)
{
    sigset_t set, waiting;

    handle(SIGUSR1, counted, 0);
    handle(SIGUSR2, counted, 0);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    came = 0;
    for (int i = 0; i < 300; i++) {
        sigprocmask(SIG_BLOCK, &set, NULL);
        raise(SIGUSR1);
        raise(SIGUSR2);
        sigpending(&waiting);
        take(sum, (uint64_t)came * 4 + (uint64_t)sigismember(&waiting, SIGUSR1) * 2 +
                      (uint64_t)sigismember(&waiting, SIGUSR2));
        sigprocmask(SIG_UNBLOCK, &set, NULL);
        take(sum, (uint64_t)came);
    }
}

/* Arithmetic goes on under timer signals as if there were none. */
static void timers(uint64_t *sum)
{
    struct itimerval often = { { 0, 1000 }, { 0, 1000 } }, never = { { 0, 0 }, { 0, 0 } };
    uint64_t state = 1865811235122147685u, own = 0;
    double part = 1;

    handle(SIGALRM, ticked, SA_RESTART);
    setitimer(ITIMER_REAL, &often, NULL);
    for (long i = 0; i < 400000 || ticks < 20; i++) {
        if (i >= 400000) {
            __asm__ volatile("" ::: "memory"); /* only waits for the last ticks */
            continue;
        }
        part = part * 0.75 + (double)(next_number(&state) >> 40) / 3;
        take_double(&own, part);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    take(sum, own);
}

static int child(unsigned number)
{
    volatile double part = number;

    if (number % 3 == 0)
        raise(SIGSTOP);
    for (int i = 0; i < 20000; i++)
        part = part * 0.5 + i;
    if (number % 4 == 1)
        abort();
    return (int)((unsigned)part % 100 + number);
}

static int children(uint64_t *sum)
{
    for (unsigned i = 0; i < 16; i++) {
        pid_t pid = fork();
        int status;

        if (pid < 0)
            return -1;
        if (pid == 0) {
            struct sigaction usual = { .sa_handler = SIG_DFL };

            sigaction(SIGABRT, &usual, NULL);
            _exit(child(i));
        }
        if (waitpid(pid, &status, WUNTRACED) != pid)
            return -1;
        if (WIFSTOPPED(status)) {
            take(sum, (uint64_t)WSTOPSIG(status));
            if (kill(pid, SIGCONT) || waitpid(pid, &status, 0) != pid)
                return -1;
        }
        take(sum, WIFSIGNALED(status) ? 1000 + (uint64_t)WTERMSIG(status) : (uint64_t)WEXITSTATUS(status));
    }
    return 0;
}

int main(void)
{
    uint64_t sum = 0;

    pages = mmap(NULL, PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED)
        return 1;
    handle(SIGTRAP, jumped, SA_ONSTACK);
    faults(&sum);
    masks(&sum);
    timers(&sum);
    if (children(&sum))
        return 1;
    return say("signals", sum);
}
