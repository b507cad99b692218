#include "base/queue.h"

#include <assert.h>
#include <stdlib.h>

void queue_init(struct queue *queue, size_t capacity)
{
    assert(capacity > 0);
    lock_init(&queue->lock, LOCK_QUEUE);
    cond_init(&queue->readable);
    cond_init(&queue->writable);
    queue->slots = calloc(capacity, sizeof(*queue->slots));
    assert(queue->slots);
    queue->capacity = capacity;
    queue->head = queue->count = 0;
    queue->closed = false;
}

void queue_destroy(struct queue *queue)
{
    free(queue->slots);
    queue->slots = NULL;
    cond_destroy(&queue->readable);
    cond_destroy(&queue->writable);
    lock_destroy(&queue->lock);
}

bool queue_push(struct queue *queue, void *item)
{
    assert(item);
    lock(&queue->lock);
    while (queue->count == queue->capacity && !queue->closed)
        cond_wait(&queue->writable, &queue->lock);
    bool open = !queue->closed;
    if (open) {
        queue->slots[(queue->head + queue->count++) % queue->capacity] = item;
        cond_signal(&queue->readable);
    }
    unlock(&queue->lock);
    return open;
}

static void *take_first(struct queue *queue)
{
    void *item = queue->slots[queue->head];
    queue->head = (queue->head + 1) % queue->capacity;
    queue->count--;
    cond_signal(&queue->writable);
    return item;
}

void *queue_pop(struct queue *queue)
{
    lock(&queue->lock);
    while (queue->count == 0 && !queue->closed)
        cond_wait(&queue->readable, &queue->lock);
    void *item = queue->count > 0 ? take_first(queue) : NULL;
    unlock(&queue->lock);
    return item;
}

void *queue_try_pop(struct queue *queue)
{
    lock(&queue->lock);
    void *item = queue->count > 0 ? take_first(queue) : NULL;
    unlock(&queue->lock);
    return item;
}

void queue_close(struct queue *queue)
{
    lock(&queue->lock);
    queue->closed = true;
    cond_broadcast(&queue->readable);
    cond_broadcast(&queue->writable);
    unlock(&queue->lock);
}

size_t queue_count(struct queue *queue)
{
    lock(&queue->lock);
    size_t count = queue->count;
    unlock(&queue->lock);
    return count;
}
