#include "hw/vring.h"

#include <assert.h>
#include <errno.h>

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4, DESC_BYTES = 16 };
enum { AVAIL_IDX = 2, AVAIL_RING = 4, USED_IDX = 2, USED_RING = 4, USED_ELEMENT_BYTES = 8 };
enum { AVAIL_NO_INTERRUPT = 1 };
enum { ASK_AGAIN_TRIES = 4 };

/* clang-format off */
const struct field vring_fields[] = {
    FIELD_U64_OF(struct vring_state, desc),
    FIELD_U64_OF(struct vring_state, avail),
    FIELD_U64_OF(struct vring_state, used),
    FIELD_U32_OF(struct vring_state, legacy_align),
    FIELD_U32_OF(struct vring_state, legacy_pfn),
    FIELD_U16_MAX_OF(struct vring_state, num, VRING_SIZE_MAX),
    FIELD_U16_OF(struct vring_state, last_avail),
    FIELD_U16_OF(struct vring_state, used_idx),
    FIELD_U16_OF(struct vring_state, signalled_used),
    FIELD_BOOL_OF(struct vring_state, ready),
    FIELD_DERIVED_OF(struct vring_state, spare),
    FIELD_TABLE_END,
};
/* clang-format on */

int vring_validate(const struct vring_state *s, uint16_t size_max, struct err *err)
{
    if (s->num > size_max || (s->num & (s->num - 1)))
        return err_set(err, -EPROTO, "queue size %u is not a power of two up to %u", s->num, size_max);
    if (s->ready && !s->num)
        return err_set(err, -EPROTO, "a ready queue has no size");
    if ((uint16_t)(s->last_avail - s->used_idx) > s->num)
        return err_set(err, -EPROTO, "available index %u and used index %u are more than %u apart", s->last_avail,
                       s->used_idx, s->num);
    return 0;
}

static bool broke(struct vring *ring, const char *why)
{
    ring->why = why;
    return false;
}

/* --- ring memory ------------------------------------------------------------------------------------------- */

static bool read_u16(struct vring *ring, uint64_t gpa, uint16_t *value)
{
    uint8_t bytes[2];
    if (!ram_read(ring->ram, gpa, bytes, sizeof(bytes)))
        return broke(ring, "the ring is not in RAM");
    *value = le16_get(bytes);
    return true;
}

static bool write_u16(struct vring *ring, uint64_t gpa, uint16_t value)
{
    uint8_t bytes[2];
    le16_put(bytes, value);
    return ram_write(ring->ram, gpa, bytes, sizeof(bytes)) || broke(ring, "the ring is not in writable RAM");
}

/* Driver and device each write one index and then read the other's wish: without a full fence between the two, both
 * may decide that the other one will look. */
static void publish_then_look(void)
{
#ifdef __SANITIZE_THREAD__ /* which knows no fences */
    static _Atomic unsigned fence;
    atomic_fetch_add_explicit(&fence, 1, memory_order_seq_cst);
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

static uint64_t used_event_gpa(const struct vring_state *s)
{
    return s->avail + AVAIL_RING + 2 * (uint64_t)s->num;
}

static uint64_t avail_event_gpa(const struct vring_state *s)
{
    return s->used + USED_RING + USED_ELEMENT_BYTES * (uint64_t)s->num;
}

static bool in_ram(struct vring *ring, uint64_t gpa, uint64_t bytes, bool writable)
{
    const struct ram_block *block = ram_block_at(ring->ram, gpa, bytes);
    return block && !(writable && block->rom);
}

bool vring_check_layout(struct vring *ring)
{
    const struct vring_state *s = ring->state;
    uint64_t num = s->num;
    if (!num || num > VRING_SIZE_MAX || (num & (num - 1)))
        return broke(ring, "the queue's size is not a power of two within the limit");
    if (s->desc % 16 || s->avail % 2 || s->used % 4)
        return broke(ring, "a part of the ring is misaligned");
    if (!in_ram(ring, s->desc, DESC_BYTES * num, false) || !in_ram(ring, s->avail, AVAIL_RING + 2 * num + 2, false) ||
        !in_ram(ring, s->used, USED_RING + USED_ELEMENT_BYTES * num + 2, true))
        return broke(ring, "a part of the ring is not in RAM");
    return true;
}

/* --- chains ------------------------------------------------------------------------------------------------ */

struct desc {
    uint64_t gpa;
    uint32_t bytes;
    uint16_t flags, next;
};

static bool read_desc(struct vring *ring, uint64_t table, uint32_t index, struct desc *out)
{
    uint8_t raw[DESC_BYTES];
    if (!ram_read(ring->ram, table + DESC_BYTES * (uint64_t)index, raw, sizeof(raw)))
        return broke(ring, "a descriptor is not in RAM");
    *out = (struct desc){ le64_get(raw), le32_get(raw + 8), le16_get(raw + 12), le16_get(raw + 14) };
    return true;
}

static bool add_segment(struct vring *ring, struct vring_chain *chain, const struct desc *desc)
{
    bool writable = desc->flags & DESC_WRITE;
    unsigned segments = chain->readable + chain->writable;
    if (!writable && chain->writable)
        return broke(ring, "a readable descriptor follows a writable one");
    if (segments == VRING_SEGMENTS_MAX)
        return broke(ring, "a chain has too many descriptors");
    if (desc->bytes && !in_ram(ring, desc->gpa, desc->bytes, writable))
        return broke(ring, "a buffer is not in RAM");
    chain->segment[segments] = (struct vring_segment){ desc->gpa, desc->bytes };
    if (writable) {
        chain->writable++;
        chain->writable_bytes += desc->bytes;
    } else {
        chain->readable++;
        chain->readable_bytes += desc->bytes;
    }
    if (chain->readable_bytes + chain->writable_bytes > UINT32_MAX)
        return broke(ring, "a chain is longer than 4 GiB");
    return true;
}

/* Walk one table, the ring's own or an indirect one, of `count` descriptors. More steps than descriptors: a loop. */
static bool walk(struct vring *ring, struct vring_chain *chain, uint64_t table, uint32_t count, uint32_t index,
                 struct desc *indirect)
{
    for (uint32_t steps = 0; steps < count; steps++) {
        struct desc desc;
        if (index >= count)
            return broke(ring, "a descriptor's number is outside its table");
        if (!read_desc(ring, table, index, &desc))
            return false;
        if (desc.flags & DESC_INDIRECT) {
            if (!indirect || !ring->indirect)
                return broke(ring, "an indirect descriptor where none is allowed");
            if (desc.flags & DESC_NEXT)
                return broke(ring, "an indirect descriptor has a successor");
            *indirect = desc;
            return true;
        }
        if (!add_segment(ring, chain, &desc))
            return false;
        if (!(desc.flags & DESC_NEXT))
            return true;
        index = desc.next;
    }
    return broke(ring, "a chain loops");
}

static bool read_chain(struct vring *ring, struct vring_chain *chain)
{
    const struct vring_state *s = ring->state;
    struct desc indirect = { 0 };
    chain->readable = chain->writable = 0;
    chain->readable_bytes = chain->writable_bytes = 0;
    if (!walk(ring, chain, s->desc, s->num, chain->head, &indirect))
        return false;
    if (!(indirect.flags & DESC_INDIRECT))
        return true;
    if (indirect.bytes == 0 || indirect.bytes % DESC_BYTES || indirect.bytes / DESC_BYTES > VRING_SEGMENTS_MAX)
        return broke(ring, "an indirect table has an impossible length");
    return walk(ring, chain, indirect.gpa, indirect.bytes / DESC_BYTES, 0, NULL);
}

/* New chains, up to and including the driver's index; more than the ring holds is a lie. */
static bool count_available(struct vring *ring, uint16_t *available)
{
    uint16_t idx;
    if (!read_u16(ring, ring->state->avail + AVAIL_IDX, &idx))
        return false;
    *available = (uint16_t)(idx - ring->state->last_avail);
    return *available <= ring->state->num || broke(ring, "the available index jumped");
}

/* `ring` has nothing: say that the very next chain is worth a notification, and look once more. */
static bool wait_for_driver(struct vring *ring, uint16_t *available)
{
    if (!ring->event_idx)
        return true;
    if (!write_u16(ring, avail_event_gpa(ring->state), ring->state->last_avail))
        return false;
    publish_then_look();
    return count_available(ring, available);
}

enum vring_result vring_peek(struct vring *ring, struct vring_chain *out)
{
    const struct vring_state *s = ring->state;
    uint16_t available;
    if (!s->ready || !s->num)
        return VRING_EMPTY;
    if (!count_available(ring, &available))
        return VRING_BROKEN;
    if (!available && !wait_for_driver(ring, &available))
        return VRING_BROKEN;
    if (!available)
        return VRING_EMPTY;
    if (!read_u16(ring, s->avail + AVAIL_RING + 2 * (uint64_t)(s->last_avail & (s->num - 1)), &out->head))
        return VRING_BROKEN;
    return read_chain(ring, out) ? VRING_CHAIN : VRING_BROKEN;
}

void vring_take(struct vring *ring)
{
    ring->state->last_avail++;
}

bool vring_reread(struct vring *ring, uint16_t head, struct vring_chain *out)
{
    out->head = head;
    return read_chain(ring, out);
}

void vring_ask_again(struct vring *ring)
{
    uint16_t idx, seen;
    if (!ring->event_idx || !ring->state->ready)
        return; /* without event indices the driver always notifies */
    /* The driver may add while we write; one that outruns every try hurts its own device only. */
    for (int i = 0; i < ASK_AGAIN_TRIES; i++) {
        if (!read_u16(ring, ring->state->avail + AVAIL_IDX, &idx) ||
            !write_u16(ring, avail_event_gpa(ring->state), idx))
            return;
        publish_then_look();
        if (!read_u16(ring, ring->state->avail + AVAIL_IDX, &seen) || seen == idx)
            return;
    }
}

/* --- buffers ----------------------------------------------------------------------------------------------- */

static size_t copy_segments(struct vring *ring, const struct vring_segment *segment, unsigned segments, uint64_t offset,
                            uint8_t *out, const uint8_t *data, size_t bytes)
{
    size_t done = 0;
    for (unsigned i = 0; i < segments && done < bytes; i++, segment++) {
        if (offset >= segment->bytes) {
            offset -= segment->bytes;
            continue;
        }
        size_t piece = segment->bytes - offset < bytes - done ? segment->bytes - offset : bytes - done;
        bool copied = out ? ram_read(ring->ram, segment->gpa + offset, out + done, piece)
                          : ram_write(ring->ram, segment->gpa + offset, data + done, piece);
        if (!copied)
            return done; /* cannot be: read_chain checked it, and RAM does not move */
        done += piece;
        offset = 0;
    }
    return done;
}

size_t vring_copy_from(struct vring *ring, const struct vring_chain *chain, uint64_t offset, void *out, size_t bytes)
{
    return copy_segments(ring, chain->segment, chain->readable, offset, out, NULL, bytes);
}

size_t vring_copy_to(struct vring *ring, const struct vring_chain *chain, uint64_t offset, const void *data,
                     size_t bytes)
{
    return copy_segments(ring, chain->segment + chain->readable, chain->writable, offset, NULL, data, bytes);
}

/* --- giving back ------------------------------------------------------------------------------------------- */

bool vring_put(struct vring *ring, uint16_t head, uint32_t written)
{
    struct vring_state *s = ring->state;
    uint8_t element[USED_ELEMENT_BYTES];
    assert(s->ready && s->num);
    le32_put(element, head);
    le32_put(element + 4, written);
    uint64_t slot = s->used + USED_RING + USED_ELEMENT_BYTES * (uint64_t)(s->used_idx & (s->num - 1));
    if (!ram_write(ring->ram, slot, element, sizeof(element)))
        return broke(ring, "the ring is not in writable RAM");
    /* ram_write releases: the driver that sees the index sees the element and the data. */
    s->used_idx++;
    return write_u16(ring, s->used + USED_IDX, s->used_idx);
}

bool vring_wants_interrupt(struct vring *ring)
{
    struct vring_state *s = ring->state;
    uint16_t before = s->signalled_used, event, flags;
    if (!s->ready || s->used_idx == before)
        return false;
    publish_then_look();
    s->signalled_used = s->used_idx;
    if (ring->event_idx) {
        if (!read_u16(ring, used_event_gpa(s), &event))
            return false;
        /* Did the used index pass the event index since we last asked? (2.7.7.1, modulo 2^16) */
        return (uint16_t)(s->used_idx - event - 1) < (uint16_t)(s->used_idx - before);
    }
    return read_u16(ring, s->avail, &flags) && !(flags & AVAIL_NO_INTERRUPT);
}
