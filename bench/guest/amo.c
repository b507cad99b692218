/* Atomic memory operations and LR/SC: on one thread, and with `2` in the name on two, on a word of each's own or a shared one.
 * The value is nanoseconds per operation over all threads. */
#include "bench.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { OPS = 200000, THREADS = 2 };

static struct word {
    _Alignas(128) _Atomic uint64_t value;
} word[THREADS];

#define REPEAT8(x) x x x x x x x x

static void amo_add(_Atomic uint64_t *value)
{
    for (int i = 0; i < OPS; i += 8) {
        REPEAT8(atomic_fetch_add_explicit(value, 3, memory_order_relaxed);) /* a counter */
    }
}

static void amo_swap(_Atomic uint64_t *value)
{
    uint64_t carried = 0;

    for (int i = 0; i < OPS; i += 8) {
        REPEAT8(carried = atomic_exchange_explicit(value, carried + 3, memory_order_acq_rel);) /* a lock's exchange */
    }
    atomic_fetch_add_explicit(value, carried, memory_order_relaxed);
}

static void lr_sc(_Atomic uint64_t *value)
{
    for (int i = 0; i < OPS; i++) {
#if defined(__riscv)
        uint64_t old, failed;
        __asm__ volatile("1: lr.d %0, (%2)\n   addi %0, %0, 3\n   sc.d %1, %0, (%2)\n   bnez %1, 1b"
                         : "=&r"(old), "=&r"(failed)
                         : "r"(value)
                         : "memory");
#else
        atomic_fetch_add_explicit(value, 3, memory_order_relaxed);
#endif
    }
}

static uint64_t alone(void (*work)(_Atomic uint64_t *))
{
    atomic_store_explicit(&word[0].value, 0, memory_order_relaxed);
    work(&word[0].value);
    return atomic_load_explicit(&word[0].value, memory_order_relaxed);
}

static uint64_t add_round(void)
{
    return alone(amo_add);
}

static uint64_t swap_round(void)
{
    return alone(amo_swap) != 0;
}

static uint64_t lr_sc_round(void)
{
    return alone(lr_sc);
}

struct share {
    void (*work)(_Atomic uint64_t *);
    _Atomic uint64_t *value;
};

static void *share_run(void *opaque)
{
    const struct share *share = opaque;

    for (int i = 0; i < 8; i++)
        share->work(share->value);
    return NULL;
}

static uint64_t together(void (*work)(_Atomic uint64_t *), int same)
{
    pthread_t threads[THREADS];
    struct share shares[THREADS];
    uint64_t sum = 0;

    for (int i = 0; i < THREADS; i++) {
        atomic_store_explicit(&word[i].value, 0, memory_order_relaxed); /* before the threads are */
        shares[i] = (struct share){ work, &word[same ? 0 : i].value };
        if (pthread_create(&threads[i], NULL, share_run, &shares[i]))
            bench_fail("pthread_create");
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++)
        sum += atomic_load_explicit(&word[i].value, memory_order_relaxed);
    return sum;
}

static uint64_t add_apart_round(void)
{
    return together(amo_add, 0);
}

static uint64_t add_same_round(void)
{
    return together(amo_add, 1);
}

static uint64_t lr_sc_apart_round(void)
{
    return together(lr_sc, 0);
}

static uint64_t lr_sc_same_round(void)
{
    return together(lr_sc, 1);
}

static const struct kernel AMO_KERNELS[] = {
    { "amoadd", add_round, OPS * 3, OPS, NULL, NULL },
    { "amoswap", swap_round, 1, OPS, NULL, NULL },
    { "lr/sc", lr_sc_round, OPS * 3, OPS, NULL, NULL },
    { "amoadd-2-apart", add_apart_round, 8 * OPS * 6, 8.0 * OPS *THREADS, NULL, NULL },
    { "amoadd-2-same", add_same_round, 8 * OPS * 6, 8.0 * OPS *THREADS, NULL, NULL },
    { "lr/sc-2-apart", lr_sc_apart_round, 8 * OPS * 6, 8.0 * OPS *THREADS, NULL, NULL },
    { "lr/sc-2-same", lr_sc_same_round, 8 * OPS * 6, 8.0 * OPS *THREADS, NULL, NULL },
    { 0 },
};

int main(int argc, char **argv)
{
    return bench_main(argc, argv, AMO_KERNELS);
}
