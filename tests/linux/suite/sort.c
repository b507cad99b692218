/* Sorting and structures on the heap: the library's sort and three of our own, a tree of pointers, a table of hashes. */
#include <stdlib.h>
#include "suite.h"

enum { N = 60000 };

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static void quick(int64_t *list, long low, long high)
{
    while (low < high) {
        int64_t middle = list[low + (high - low) / 2];
        long i = low, k = high;

        while (i <= k) {
            while (list[i] < middle)
                i++;
            while (list[k] > middle)
                k--;
            if (i <= k) {
                int64_t other = list[i];

                list[i++] = list[k];
                list[k--] = other;
            }
        }
        quick(list, low, k);
        low = i;
    }
}

static void sift(int64_t *list, size_t at, size_t n)
{
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        int64_t other = list[at];

        if (child + 1 < n && list[child + 1] > list[child])
            child++;
        if (list[child] <= other)
            return;
        list[at] = list[child];
        list[child] = other;
    }
}

static void heap(int64_t *list, size_t n)
{
    for (size_t i = n / 2; i-- > 0;)
        sift(list, i, n);
    while (n-- > 1) {
        int64_t last = list[n];

        list[n] = list[0];
        list[0] = last;
        sift(list, 0, n);
    }
}

static void merge(int64_t *list, int64_t *space, size_t n)
{
    size_t half = n / 2, i = 0, k = half, to = 0;

    if (n < 2)
        return;
    merge(list, space, half);
    merge(list + half, space, n - half);
    while (i < half && k < n)
        space[to++] = list[k] < list[i] ? list[k++] : list[i++];
    while (i < half)
        space[to++] = list[i++];
    memcpy(list, space, to * sizeof(*list));
}

struct node {
    struct node *side[2];
    int64_t key;
    unsigned seen;
};

static struct node *put(struct node *tree, int64_t key, int *ok)
{
    struct node **at = &tree;

    while (*at && (*at)->key != key)
        at = &(*at)->side[key > (*at)->key];
    if (!*at) {
        *at = calloc(1, sizeof(**at));
        if (!*at) {
            *ok = 0;
            return tree;
        }
        (*at)->key = key;
    }
    (*at)->seen++;
    return tree;
}

static void drop(struct node *tree, uint64_t *sum)
{
    if (!tree)
        return;
    drop(tree->side[0], sum);
    take(sum, (uint64_t)tree->key * 8 + tree->seen);
    drop(tree->side[1], sum);
    free(tree);
}

int main(void)
{
    static int64_t from[N], list[N], space[N];
    struct node *tree = NULL;
    uint64_t sum = 0, state = 6364136223846793005u;
    int ok = 1;

    for (size_t i = 0; i < N; i++)
        from[i] = (int64_t)next_number(&state) >> (i % 5 * 12);
    for (int way = 0; way < 4; way++) {
        memcpy(list, from, sizeof(list));
        if (way == 0)
            qsort(list, N, sizeof(list[0]), by_value);
        else if (way == 1)
            quick(list, 0, N - 1);
        else if (way == 2)
            heap(list, N);
        else
            merge(list, space, N);
        for (size_t i = 0; i < N; i++)
            take(&sum, (uint64_t)list[i]);
    }
    for (size_t i = 0; i < N; i++)
        tree = put(tree, from[i] % 10007, &ok);
    drop(tree, &sum);
    return say("sort", sum) || !ok;
}
