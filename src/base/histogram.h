/* Durations by size: power-of-two buckets in microseconds. One thread adds, anybody looks.
 *
 * Bucket 0 is below 1 us, bucket n from 2^(n-1) us to below 2^n us, the last all that is longer. */
#pragma once
#include <stdatomic.h>
#include <stdint.h>

enum { HISTOGRAM_BUCKETS = 24 }; /* the last from 4.2 s on */

struct histogram {
    _Atomic uint64_t count, sum_ns, longest_ns, bucket[HISTOGRAM_BUCKETS];
};
struct histogram_counts { /* the same at one moment */
    uint64_t count, sum_ns, longest_ns, bucket[HISTOGRAM_BUCKETS];
};

unsigned histogram_bucket(uint64_t ns);
uint64_t histogram_from_us(unsigned bucket); /* the least that it holds; 0 for bucket 0 */

/* The one who adds. */
void histogram_add(struct histogram *h, uint64_t ns);
void histogram_clear(struct histogram *h);
/* Any thread: while somebody adds, buckets may be ahead of the count, never behind it. */
void histogram_read(const struct histogram *h, struct histogram_counts *out);
/* `sum` becomes both together; what does not fit into 64 bits stays at their end. */
void histogram_join(struct histogram_counts *sum, const struct histogram_counts *add);
