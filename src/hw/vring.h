/* Split virtqueues (virtio 1.2, 2.7): the only code that touches a guest's rings.
 *
 * Everything in a ring is the guest's word: indices, chains, lengths and addresses are checked here, and a chain
 * that is handed out lies wholly in RAM, loops nowhere, and has its device-readable segments before its
 * device-writable ones. What breaks the rules makes the ring VRING_BROKEN with a reason, never more.
 *
 * Not locked: the device's lock guards ring and state. No pointer into guest RAM outlives a call. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fields.h"
#include "memory/ram.h"

/* A chain is at most as long as its queue (2.7.5.3.1), through an indirect table too. */
enum { VRING_SIZE_MAX = 256, VRING_SEGMENTS_MAX = VRING_SIZE_MAX };

/* Plain data, part of the device's state. */
struct vring_state {
    uint64_t desc, avail, used; /* guest-physical; what the driver wrote, so anything */
    uint32_t legacy_align, legacy_pfn;
    uint16_t num; /* a power of two */
    uint16_t last_avail;
    uint16_t used_idx;
    uint16_t signalled_used; /* used_idx when an interrupt was last considered */
    uint8_t ready;
    uint8_t spare[7];
};
extern const struct field vring_fields[];
int vring_validate(const struct vring_state *state, uint16_t size_max, struct err *err);

struct vring {
    struct ram *ram;
    struct vring_state *state;
    bool event_idx, indirect; /* negotiated features */
    const char *why;          /* after VRING_BROKEN or false: what the guest did */
};

struct vring_segment {
    uint64_t gpa;
    uint32_t bytes;
};

struct vring_chain {
    uint16_t head;
    unsigned readable, writable; /* segments; the readable ones come first */
    uint64_t readable_bytes, writable_bytes;
    struct vring_segment segment[VRING_SEGMENTS_MAX];
};

enum vring_result { VRING_BROKEN = -1, VRING_EMPTY = 0, VRING_CHAIN = 1 };

/* Do the addresses in `state` make a ring that lies in RAM? Asked once, when the driver enables the queue. */
bool vring_check_layout(struct vring *ring);

/* The oldest chain the device has not taken. Empty: the driver will notify about the next one. */
enum vring_result vring_peek(struct vring *ring, struct vring_chain *out);
void vring_take(struct vring *ring); /* the peeked chain is now the device's */
/* A chain that was taken before, once more: the guest may have changed it, so it is checked again. False: it broke. */
bool vring_reread(struct vring *ring, uint16_t head, struct vring_chain *out);

/* The device stops although chains may be left: ask for a notification with the next one. */
void vring_ask_again(struct vring *ring);

/* Copy from the device-readable part or into the device-writable part, from `offset` on; bytes copied. */
size_t vring_copy_from(struct vring *ring, const struct vring_chain *chain, uint64_t offset, void *out, size_t bytes);
size_t vring_copy_to(struct vring *ring, const struct vring_chain *chain, uint64_t offset, const void *data,
                     size_t bytes);

/* Give a taken chain back with `written` bytes in its writable part. False: the ring broke. */
bool vring_put(struct vring *ring, uint16_t head, uint32_t written);

/* Does the driver want an interrupt for what was put since the last time this was asked? */
bool vring_wants_interrupt(struct vring *ring);
