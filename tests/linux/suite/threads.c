/* Threads: counters by atomic operations of every width, locks of three kinds, a queue with conditions, a hand-over by flags. What
 * is printed does not depend on who ran when. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include "suite.h"

enum { THREADS = 4, ROUNDS = 20000, HANDED = 20000 };

static _Atomic uint64_t wide;
static _Atomic uint32_t word, bits_seen, by_compare;
static _Atomic uint16_t half;
static _Atomic uint8_t octet;
static _Atomic int64_t highest, lowest;
static atomic_flag spin = ATOMIC_FLAG_INIT;
static _Atomic uint32_t ticket_next, ticket_now;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t gate;
static uint64_t under_spin, under_ticket, under_mutex;

static void one_round(unsigned number, unsigned i)
{
    uint32_t seen = atomic_load_explicit(&by_compare, memory_order_relaxed), mine;

    atomic_fetch_add(&wide, 0x100000001u + i);
    atomic_fetch_add_explicit(&word, number + 1, memory_order_relaxed);
    atomic_fetch_sub(&half, 3);
    atomic_fetch_add_explicit(&octet, 7, memory_order_release);
    atomic_fetch_or(&bits_seen, 1u << (i % 13 + number));
    while (!atomic_compare_exchange_weak(&by_compare, &seen, seen * 5 + 1))
        ;
    for (int64_t was = highest;
         was < (int64_t)(i * 3 + number) && !atomic_compare_exchange_strong(&highest, &was, i * 3 + number);)
        ;
    for (int64_t was = lowest;
         was > -(int64_t)(i + number) && !atomic_compare_exchange_strong(&lowest, &was, -(int64_t)(i + number));)
        ;
    if (i % 4 == 0) {
        while (atomic_flag_test_and_set_explicit(&spin, memory_order_acquire))
            sched_yield();
        under_spin = under_spin * 3 + 1;
        atomic_flag_clear_explicit(&spin, memory_order_release);
        pthread_mutex_lock(&mutex);
        under_mutex = under_mutex * 7 + 5;
        pthread_mutex_unlock(&mutex);
    }
    if (i % 64 == 0) {
        mine = atomic_fetch_add_explicit(&ticket_next, 1, memory_order_relaxed);
        while (atomic_load_explicit(&ticket_now, memory_order_acquire) != mine)
            sched_yield();
        under_ticket = under_ticket * 9 + 2;
        atomic_store_explicit(&ticket_now, mine + 1, memory_order_release);
    }
}

static void *count(void *argument)
{
    unsigned number = (unsigned)(uintptr_t)argument;

    pthread_barrier_wait(&gate);
    for (unsigned i = 0; i < ROUNDS; i++)
        one_round(number, i);
    return NULL;
}

static struct {
    uint64_t slot[16];
    unsigned put, got;
} queue;

static void *produce(void *unused)
{
    uint64_t state = 1181783497276652981u;

    for (unsigned i = 0; i < HANDED; i++) {
        uint64_t number = next_number(&state);

        pthread_mutex_lock(&mutex);
        while (queue.put - queue.got == 16)
            pthread_cond_wait(&changed, &mutex);
        queue.slot[queue.put++ % 16] = number;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&mutex);
    }
    return unused;
}

static uint64_t consume(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < HANDED; i++) {
        pthread_mutex_lock(&mutex);
        while (queue.put == queue.got)
            pthread_cond_wait(&changed, &mutex);
        take(&sum, queue.slot[queue.got++ % 16]);
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&mutex);
    }
    return sum;
}

/* Plain words behind a flag: seen by the other side once the flag is. */
static uint64_t parcel[8];
static _Atomic unsigned flag_there, flag_back;

static void *send(void *unused)
{
    for (unsigned i = 1; i <= 3000; i++) {
        for (unsigned k = 0; k < 8; k++)
            parcel[k] = (uint64_t)i * 1000 + k;
        atomic_store_explicit(&flag_there, i, memory_order_release);
        while (atomic_load_explicit(&flag_back, memory_order_acquire) != i)
            sched_yield();
    }
    return unused;
}

static uint64_t receive(void)
{
    uint64_t sum = 0;

    for (unsigned i = 1; i <= 3000; i++) {
        while (atomic_load_explicit(&flag_there, memory_order_acquire) != i)
            sched_yield();
        for (unsigned k = 0; k < 8; k++)
            take(&sum, parcel[k]);
        atomic_store_explicit(&flag_back, i, memory_order_release);
    }
    return sum;
}

static _Thread_local uint64_t own;

static void *keep_own(void *argument)
{
    own = (uint64_t)(uintptr_t)argument;
    for (unsigned i = 0; i < 100000; i++)
        own = own * 0x5851f42d4c957f2du + 1;
    return (void *)(uintptr_t)own;
}

int main(void)
{
    pthread_t thread[THREADS];
    uint64_t sum = 0;
    void *result;

    pthread_barrier_init(&gate, NULL, THREADS);
    for (uintptr_t i = 0; i < THREADS; i++)
        if (pthread_create(&thread[i], NULL, count, (void *)i))
            return 1;
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    take(&sum, wide);
    take(&sum, word + ((uint64_t)half << 32) + ((uint64_t)octet << 48));
    take(&sum, bits_seen + (uint64_t)by_compare);
    take(&sum, (uint64_t)highest * 3 + (uint64_t)lowest);
    take(&sum, under_spin);
    take(&sum, under_ticket);
    take(&sum, under_mutex);
    if (pthread_create(&thread[0], NULL, produce, NULL))
        return 1;
    take(&sum, consume());
    pthread_join(thread[0], NULL);
    if (pthread_create(&thread[0], NULL, send, NULL))
        return 1;
    take(&sum, receive());
    pthread_join(thread[0], NULL);
    for (uintptr_t i = 0; i < THREADS; i++)
        if (pthread_create(&thread[i], NULL, keep_own, (void *)i))
            return 1;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(thread[i], &result);
        take(&sum, (uintptr_t)result);
    }
    return say("threads", sum);
}
