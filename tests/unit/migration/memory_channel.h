/* A channel that reads from memory, and then is at its end. */
#pragma once
#include <string.h>

#include "base/channel.h"

struct memory_channel {
    struct channel channel;
    const uint8_t *data;
    size_t size, at;
};

static ssize_t memory_read(struct channel *channel, void *out, size_t bytes)
{
    struct memory_channel *self = (struct memory_channel *)channel;
    if (bytes > self->size - self->at)
        bytes = self->size - self->at;
    memcpy(out, self->data + self->at, bytes);
    self->at += bytes;
    return (ssize_t)bytes;
}

static int memory_wait(struct channel *channel, short events, int timeout_ms)
{
    (void)channel, (void)events, (void)timeout_ms;
    return 1;
}

static const struct channel_ops memory_ops = { .read = memory_read, .wait = memory_wait };

static inline struct memory_channel memory_channel_over(const void *data, size_t size)
{
    return (struct memory_channel){ .channel = { .ops = &memory_ops, .can_read = true, .name = "memory" },
                                    .data = data,
                                    .size = size };
}
