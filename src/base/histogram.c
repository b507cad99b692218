#include "base/histogram.h"

unsigned histogram_bucket(uint64_t ns)
{
    uint64_t us = ns / 1000;
    unsigned bucket = us ? 64 - (unsigned)__builtin_clzll(us) : 0;

    return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

uint64_t histogram_from_us(unsigned bucket)
{
    return bucket ? UINT64_C(1) << (bucket - 1) : 0;
}

static void more(_Atomic uint64_t *sum, uint64_t add, memory_order order)
{
    atomic_store_explicit(sum, atomic_load_explicit(sum, memory_order_relaxed) + add, order);
}

void histogram_add(struct histogram *h, uint64_t ns)
{
    more(&h->bucket[histogram_bucket(ns)], 1, memory_order_relaxed);
    more(&h->sum_ns, ns, memory_order_relaxed);
    if (ns > atomic_load_explicit(&h->longest_ns, memory_order_relaxed))
        atomic_store_explicit(&h->longest_ns, ns, memory_order_relaxed);
    more(&h->count, 1, memory_order_release); /* whoever sees the count sees its bucket */
}

void histogram_clear(struct histogram *h)
{
    atomic_store_explicit(&h->count, 0, memory_order_relaxed);
    atomic_store_explicit(&h->sum_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&h->longest_ns, 0, memory_order_relaxed);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        atomic_store_explicit(&h->bucket[i], 0, memory_order_relaxed);
}

void histogram_read(const struct histogram *h, struct histogram_counts *out)
{
    out->count = atomic_load_explicit(&h->count, memory_order_acquire); /* of histogram_add() */
    out->sum_ns = atomic_load_explicit(&h->sum_ns, memory_order_relaxed);
    out->longest_ns = atomic_load_explicit(&h->longest_ns, memory_order_relaxed);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        out->bucket[i] = atomic_load_explicit(&h->bucket[i], memory_order_relaxed);
}

static void join(uint64_t *sum, uint64_t add)
{
    *sum = *sum + add < *sum ? UINT64_MAX : *sum + add;
}

void histogram_join(struct histogram_counts *sum, const struct histogram_counts *add)
{
    join(&sum->count, add->count);
    join(&sum->sum_ns, add->sum_ns);
    sum->longest_ns = add->longest_ns > sum->longest_ns ? add->longest_ns : sum->longest_ns;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        join(&sum->bucket[i], add->bucket[i]);
}
