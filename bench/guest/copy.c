/* Memory moved, filled and searched, by the C library's functions: small pieces at all alignments, and more than the host's caches'
 * first levels hold. One hart. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

enum { LARGE = 1 << 20, SMALL_CALLS = 4096, LARGE_CALLS = 4, ROOM = 1 << 16, SMALL_MAX = 64 };

static char *from, *to;

static void fill(void)
{
    uint64_t random = 4711;

    from = aligned_alloc(64, LARGE + 64);
    to = aligned_alloc(64, LARGE + 64);
    if (!from || !to)
        bench_fail("memory");
    for (size_t i = 0; i < LARGE; i++)
        from[i] = (char)(1 + bench_random(&random) % 255); /* no zero: strlen goes to the end */
    from[LARGE] = 0;
    memset(to, 0, LARGE + 64);
}

static void empty(void)
{
    free(from);
    free(to);
}

static uint64_t sum_of(const char *bytes, size_t count)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < count; i += 997)
        sum = bench_mix(sum, (unsigned char)bytes[i]);
    return sum;
}

/* The compiler must not know what is called, nor how much of it. */
static void *(*volatile call_memcpy)(void *, const void *, size_t) = memcpy;
static void *(*volatile call_memmove)(void *, const void *, size_t) = memmove;
static void *(*volatile call_memset)(void *, int, size_t) = memset;
static int (*volatile call_memcmp)(const void *, const void *, size_t) = memcmp;
static size_t (*volatile call_strlen)(const char *) = strlen;

static uint64_t memcpy_small(void) /* 1 to 64 bytes */
{
    uint64_t random = 1;

    for (int i = 0; i < SMALL_CALLS; i++) {
        uint64_t dice = bench_random(&random);
        call_memcpy(to + (dice & (ROOM - 1)), from + (dice >> 20 & (ROOM - 1)), 1 + (dice >> 40) % SMALL_MAX);
    }
    return sum_of(to, ROOM);
}

static uint64_t memset_small(void)
{
    uint64_t random = 2;

    for (int i = 0; i < SMALL_CALLS; i++) {
        uint64_t dice = bench_random(&random);
        call_memset(to + (dice & (ROOM - 1)), (int)(dice >> 20 & 255), 1 + (dice >> 40) % SMALL_MAX);
    }
    return sum_of(to, ROOM);
}

static uint64_t memcpy_large(void)
{
    for (int i = 0; i < LARGE_CALLS; i++)
        call_memcpy(to, from, LARGE);
    return sum_of(to, LARGE);
}

static uint64_t memcpy_skewed(void) /* source and destination are aligned differently */
{
    for (int i = 0; i < LARGE_CALLS; i++)
        call_memcpy(to + 3, from, LARGE);
    return sum_of(to + 3, LARGE);
}

static uint64_t memmove_large(void) /* onto itself, from behind */
{
    call_memcpy(to, from, LARGE);
    for (int i = 1; i < LARGE_CALLS; i++)
        call_memmove(to + 8, to, LARGE);
    return sum_of(to, LARGE);
}

static uint64_t memset_large(void)
{
    for (int i = 0; i < LARGE_CALLS; i++)
        call_memset(to, 17 + i, LARGE);
    return sum_of(to, LARGE);
}

static uint64_t memcmp_large(void)
{
    uint64_t sum = 1;

    call_memcpy(to, from, LARGE);
    for (int i = 1; i < LARGE_CALLS; i++)
        sum += call_memcmp(to, from, LARGE) == 0;
    return sum;
}

static uint64_t strlen_large(void)
{
    uint64_t sum = 0;

    for (int i = 0; i < LARGE_CALLS; i++)
        sum += call_strlen(from);
    return sum;
}

static const struct kernel COPY_KERNELS[] = {
    { "memcpy-1..64", memcpy_small, 0, SMALL_CALLS, fill, empty },
    { "memset-1..64", memset_small, 0, SMALL_CALLS, fill, empty },
    { "memcpy-1M", memcpy_large, 0, LARGE_CALLS, fill, empty },
    { "memcpy-1M-skewed", memcpy_skewed, 0, LARGE_CALLS, fill, empty },
    { "memmove-1M", memmove_large, 0, LARGE_CALLS, fill, empty },
    { "memset-1M", memset_large, 0, LARGE_CALLS, fill, empty },
    { "memcmp-1M", memcmp_large, LARGE_CALLS, LARGE_CALLS, fill, empty },
    { "strlen-1M", strlen_large, (uint64_t)LARGE *LARGE_CALLS, LARGE_CALLS, fill, empty },
    { 0 },
};

int main(int argc, char **argv)
{
    return bench_main(argc, argv, COPY_KERNELS);
}
