/* Code that a program writes itself: a page that is writable, then executable, again and again; code changed in place; code that one
 * thread writes and others run; the same code by two addresses. */
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
#include "suite.h"

enum { PAGE = 4096, OTHERS = 2, TURNS = 400 };

typedef int32_t (*function)(int32_t value);

/* value * 1 + number, 0 <= number < 2048. Returns the bytes written. */
static size_t write_adder(unsigned char *at, unsigned number)
{
#if defined __riscv /* addiw a0, a0, number; ret */
    uint32_t code[] = { 0x0005051bu | (uint32_t)number << 20, 0x00008067u };
#elif defined __aarch64__ /* add w0, w0, number; ret */
    uint32_t code[] = { 0x11000000u | (uint32_t)number << 10, 0xd65f03c0u };
#elif defined __x86_64__  /* lea eax, [rdi + number]; ret */
    unsigned char code[] = { 0x8d, 0x87, (unsigned char)number, (unsigned char)(number >> 8), 0, 0, 0xc3 };
#else
#error "no code known for this machine"
#endif

    memcpy(at, code, sizeof(code));
    return sizeof(code);
}

static int again(unsigned char *page, unsigned number, size_t at)
{
    size_t n;

    if (mprotect(page, PAGE, PROT_READ | PROT_WRITE))
        return -1;
    n = write_adder(page + at, number);
    if (mprotect(page, PAGE, PROT_READ | PROT_EXEC))
        return -1;
    __builtin___clear_cache((char *)page + at, (char *)page + at + n);
    return 0;
}

static int32_t call(const unsigned char *at, int32_t value)
{
    function code;
    const void *address = at;

    memcpy(&code, &address, sizeof(code));
    return code(value);
}

static pthread_barrier_t before, after;
static unsigned char *shared;
static size_t shared_at;

static void *run_what_is_written(void *argument)
{
    uint64_t *sum = argument;

    for (unsigned i = 0; i < TURNS; i++) {
        pthread_barrier_wait(&before);
        for (int32_t k = 0; k < 40; k++)
            take(sum, (uint64_t)call(shared + shared_at, k));
        pthread_barrier_wait(&after);
    }
    return NULL;
}

static int in_threads(uint64_t *sum)
{
    pthread_t thread[OTHERS];
    uint64_t seen[OTHERS] = { 0 };

    pthread_barrier_init(&before, NULL, OTHERS + 1);
    pthread_barrier_init(&after, NULL, OTHERS + 1);
    for (int i = 0; i < OTHERS; i++)
        if (pthread_create(&thread[i], NULL, run_what_is_written, &seen[i]))
            return -1;
    for (unsigned i = 0; i < TURNS; i++) {
        shared_at = i % 3 * 64;
        if (again(shared, i * 5 % 2048, shared_at))
            return -1;
        pthread_barrier_wait(&before);
        take(sum, (uint64_t)call(shared + shared_at, 1000));
        pthread_barrier_wait(&after);
    }
    for (int i = 0; i < OTHERS; i++) {
        pthread_join(thread[i], NULL);
        take(sum, seen[i]);
    }
    return 0;
}

/* Written by one mapping of a file, run by another. */
static int by_two_addresses(uint64_t *sum)
{
    int file = memfd_create("code", 0);
    unsigned char *write, *run;

    if (file < 0 || ftruncate(file, PAGE))
        return -1;
    write = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    run = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, file, 0);
    if (write == MAP_FAILED || run == MAP_FAILED)
        return -1;
    for (unsigned i = 0; i < 1000; i++) {
        size_t at = i % 7 * 128, n = write_adder(write + at, i);

        __builtin___clear_cache((char *)run + at, (char *)run + at + n);
        for (int32_t k = 0; k < 60; k++)
            take(sum, (uint64_t)call(run + at, k));
        take(sum, run[PAGE / 2 + i % 7]);
        write[PAGE / 2 + i] = (unsigned char)i; /* data beside code */
    }
    return 0;
}

int main(void)
{
    unsigned char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t sum = 0;

    if (page == MAP_FAILED)
        return 1;
    for (unsigned i = 0; i < 1000; i++) {
        if (again(page, i, i % 5 * 16))
            return 1;
        for (int32_t k = 0; k < 60; k++)
            take(&sum, (uint64_t)call(page + i % 5 * 16, (int32_t)i - k));
    }
    shared = page;
    if (in_threads(&sum) || by_two_addresses(&sum))
        return 1;
    return say("selfmod", sum);
}
