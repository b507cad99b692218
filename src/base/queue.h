/* A bounded queue of pointers between threads. Multi producer, multi consumer.
 *
 * Whoever popped a thing owns it; after queue_push() you may not look at it again. Closing ends it for both
 * sides: pushes fail at once, pops drain what is left and then return NULL. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "base/lock.h"

struct queue {
    struct lock lock;
    struct cond readable, writable;
    /* under lock */
    void **slots;
    size_t capacity, head, count;
    bool closed;
};

void queue_init(struct queue *queue, size_t capacity);
void queue_destroy(struct queue *queue);
bool queue_push(struct queue *queue, void *item); /* waits for room; false: closed, the item is still yours */
void *queue_pop(struct queue *queue);             /* waits; NULL: closed and empty */
void *queue_try_pop(struct queue *queue);         /* NULL: nothing there now */
void queue_close(struct queue *queue);            /* any thread, any number of times */
size_t queue_count(struct queue *queue);
