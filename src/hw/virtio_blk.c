/* virtio block device (virtio 1.2, 5.2): a disk of the layer below.
 *
 * The notification only reads the rings; the disk's own threads do the work, straight into and out of guest RAM, and give
 * each request back under the device's lock. So at most BLK_REQUESTS are under way, the rest waits in the rings.
 *
 * A pause waits for all of them. One that failed while the machine shall stop for it stays the device's: its head is
 * part of the state, and it is read and tried again where the guest goes on. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hw/devices.h"
#include "hw/virtio.h"

enum { BLK_QUEUE_SIZE = 256, BLK_REQUESTS = 64, BLK_SEGMENTS = BLK_QUEUE_SIZE - 2, BLK_SECTOR = BLOCK_SECTOR_BYTES };
enum { BLK_TRIM_SECTORS_MAX = 1 << 22 }; /* 2 GiB of discard or zeros in one request */
enum { BLK_HEADER_BYTES = 16, BLK_RANGE_BYTES = 16, BLK_ID_BYTES = VIRTIO_BLK_SERIAL_MAX };
enum { BLK_T_IN = 0, BLK_T_OUT = 1, BLK_T_FLUSH = 4, BLK_T_GET_ID = 8, BLK_T_DISCARD = 11, BLK_T_WRITE_ZEROES = 13 };
enum { BLK_S_OK = 0, BLK_S_IOERR = 1, BLK_S_UNSUPP = 2 };
enum { BLK_ZERO_UNMAP = 1 }; /* flags of a range */
enum { BLK_HEADS = 16, BLK_TRACK_SECTORS = 63, BLK_CYLINDERS_MAX = 65535 };
enum {
    CONFIG_CAPACITY = 0,
    CONFIG_SEG_MAX = 12,
    CONFIG_CYLINDERS = 16,
    CONFIG_HEADS = 18,
    CONFIG_TRACK_SECTORS = 19,
    CONFIG_BLK_SIZE = 20,
    CONFIG_MIN_IO = 26,
    CONFIG_WRITEBACK = 32,
    CONFIG_QUEUES = 34,
    CONFIG_DISCARD_SECTORS = 36,
    CONFIG_DISCARD_SEGMENTS = 40,
    CONFIG_DISCARD_ALIGN = 44,
    CONFIG_ZERO_SECTORS = 48,
    CONFIG_ZERO_SEGMENTS = 52,
    CONFIG_ZERO_MAY_UNMAP = 56,
    CONFIG_BYTES = 60,
};
#define BLK_F_SEG_MAX      (UINT64_C(1) << 2)
#define BLK_F_GEOMETRY     (UINT64_C(1) << 4)
#define BLK_F_RO           (UINT64_C(1) << 5)
#define BLK_F_BLK_SIZE     (UINT64_C(1) << 6)
#define BLK_F_FLUSH        (UINT64_C(1) << 9)
#define BLK_F_TOPOLOGY     (UINT64_C(1) << 10)
#define BLK_F_CONFIG_WCE   (UINT64_C(1) << 11)
#define BLK_F_MQ           (UINT64_C(1) << 12)
#define BLK_F_DISCARD      (UINT64_C(1) << 13)
#define BLK_F_WRITE_ZEROES (UINT64_C(1) << 14)
#define BLK_F_ALWAYS       (BLK_F_SEG_MAX | BLK_F_GEOMETRY | BLK_F_BLK_SIZE | BLK_F_TOPOLOGY | BLK_F_MQ)
#define BLK_F_WRITABLE     (BLK_F_FLUSH | BLK_F_CONFIG_WCE | BLK_F_DISCARD | BLK_F_WRITE_ZEROES)

/* What a driver has learnt of the disk: the disk of the other side must be the same in this. */
struct blk_disk {
    uint64_t sectors;
    uint32_t sector_bytes;
    uint8_t queues, readonly;
    uint8_t serial[BLK_ID_BYTES];
    uint8_t spare[6];
};

struct blk_retry {
    uint16_t head;
    uint8_t queue;
    uint8_t spare;
};

struct blk_state {
    struct virtio_state virtio;
    struct blk_disk disk;
    uint8_t writeback; /* the driver's wish */
    uint8_t retries;
    uint8_t spare[6];
    struct blk_retry retry[BLK_REQUESTS]; /* taken, failed, and to be tried again */
    struct blk_disk here;                 /* not sent: what `disk` must be */
};

struct blk;

struct blk_request {
    struct block_request io; /* first */
    struct blk *blk;
    struct blk_request *next; /* while free */
    uint64_t status_gpa;
    uint32_t written; /* when it went well */
    uint16_t head;
    uint8_t queue;
    bool nudge;                                       /* does nothing: whose end is a reason to look at the rings */
    bool write, through;                              /* through: durable before it is given back */
    unsigned filled;                                  /* segments of guest RAM that are being written */
    struct vring_segment segment[VRING_SEGMENTS_MAX]; /* those */
    struct iovec iov[VRING_SEGMENTS_MAX];
};

struct blk {
    struct virtio_backend backend;
    /* fixed after new */
    struct virtio_backend_ops ops; /* features and queues are this disk's */
    struct virtio_blk_options options;
    /* under the device's lock */
    struct blk_state state;
    struct blk_request request[BLK_REQUESTS];
    struct blk_request *free;
    unsigned under_way;
    unsigned waiting; /* for none to be under way: nothing new begins */
    bool stopping;    /* the machine was asked to stop: nothing new begins until it goes on */
    struct cond idle;
};

/* --- state ------------------------------------------------------------------------------------------------- */

static const struct virtio_backend_ops blk_ops;

static const struct field blk_disk_fields[] = {
    FIELD_U64_OF(struct blk_disk, sectors),
    FIELD_U32_OF(struct blk_disk, sector_bytes),
    FIELD_U8_OF(struct blk_disk, queues),
    FIELD_BOOL_OF(struct blk_disk, readonly),
    FIELD_BYTES_OF(struct blk_disk, serial),
    FIELD_DERIVED_OF(struct blk_disk, spare),
    FIELD_TABLE_END,
};

static const struct field blk_retry_fields[] = {
    FIELD_U16_OF(struct blk_retry, head),
    FIELD_U8_MAX_OF(struct blk_retry, queue, VIRTIO_QUEUES_MAX - 1),
    FIELD_DERIVED_OF(struct blk_retry, spare),
    FIELD_TABLE_END,
};

static const struct field blk_fields[] = {
    VIRTIO_STATE_ROW(struct blk_state),
    { "disk", FIELD_STRUCT, offsetof(struct blk_state, disk), 1, 1, 0, 0, blk_disk_fields, sizeof(struct blk_disk) },
    FIELD_BOOL_OF(struct blk_state, writeback),
    FIELD_U8_MAX_OF(struct blk_state, retries, BLK_REQUESTS),
    FIELD_DERIVED_OF(struct blk_state, spare),
    FIELD_STRUCTS_OF(struct blk_state, retry, BLK_REQUESTS, blk_retry_fields),
    FIELD_DERIVED_OF(struct blk_state, here),
    FIELD_TABLE_END,
};

static int blk_match(const struct blk_disk *here, const struct blk_disk *there, struct err *err)
{
    if (there->sectors != here->sectors)
        return err_set(err, -EINVAL, "the disk has %llu sectors of 512 bytes there and %llu here",
                       (unsigned long long)there->sectors, (unsigned long long)here->sectors);
    if (there->sector_bytes != here->sector_bytes)
        return err_set(err, -EINVAL, "the disk is read in units of %u bytes there and %u here", there->sector_bytes,
                       here->sector_bytes);
    if (there->queues != here->queues)
        return err_set(err, -EINVAL, "the disk has num-queues=%u there and %u here", there->queues, here->queues);
    if (there->readonly != here->readonly)
        return err_set(err, -EINVAL, "the disk is %s there and %s here", there->readonly ? "readonly" : "writable",
                       here->readonly ? "readonly" : "writable");
    if (memcmp(there->serial, here->serial, sizeof(here->serial)) != 0) {
        char text[4 * BLK_ID_BYTES + 1];
        err_printable(there->serial, sizeof(there->serial), text, sizeof(text));
        return err_set(err, -EINVAL, "the disk has serial number '%s' there and '%.20s' here", text,
                       (const char *)here->serial);
    }
    return 0;
}

static uint64_t blk_features(const struct blk_disk *disk)
{
    return BLK_F_ALWAYS | (disk->readonly ? BLK_F_RO : BLK_F_WRITABLE);
}

static int blk_validate(const void *object, struct err *err)
{
    const struct blk_state *s = object;
    unsigned retries[VIRTIO_QUEUES_MAX] = { 0 };
    int result = blk_match(&s->here, &s->disk, err);
    if (result == 0) {
        struct virtio_backend_ops ops = blk_ops;
        ops.features = blk_features(&s->here);
        ops.queues = s->here.queues;
        result = virtio_validate(&ops, &s->virtio, err);
    }
    for (unsigned i = 0; result == 0 && i < s->retries; i++) {
        const struct vring_state *queue = &s->virtio.queue[s->retry[i].queue];
        unsigned taken = (uint16_t)(queue->last_avail - queue->used_idx);
        if (!queue->ready || s->retry[i].head >= queue->num || ++retries[s->retry[i].queue] > taken)
            result = err_set(err, -EPROTO, "request %u of queue %u is to be tried again, but was never made",
                             s->retry[i].head, s->retry[i].queue);
    }
    return result;
}

static const struct state_desc blk_desc = {
    .name = "godwit/virtio-blk",
    .version = 1,
    .min_version = 1,
    .object_size = sizeof(struct blk_state),
    .fields = blk_fields,
    .validate = blk_validate,
};

static struct blk *blk_of(struct virtio_backend *backend)
{
    return (struct blk *)backend;
}

/* --- a request's way --------------------------------------------------------------------------------------- */

/* The driver's range of `bytes` at `sector`, in whole units of the disk. */
static bool range_fits(const struct blk *blk, uint64_t sector, uint64_t bytes)
{
    const struct blk_disk *disk = &blk->state.here;
    return bytes % disk->sector_bytes == 0 && sector * BLK_SECTOR % disk->sector_bytes == 0 &&
           sector <= disk->sectors && bytes / BLK_SECTOR <= disk->sectors - sector;
}

/* The guest's memory as the host sees it, but for the first `skip` and the last `keep` bytes. What the disk will write
 * is opened as written to (and marked when that is closed). */
static void map_segments(struct blk *blk, struct blk_request *request, const struct vring_segment *segment,
                         unsigned segments, uint64_t skip, uint64_t bytes, bool fill)
{
    struct ram *ram = blk->backend.ram;
    for (unsigned i = 0; i < segments && bytes > 0; i++) {
        struct vring_segment piece = segment[i];
        uint32_t skipped = skip < piece.bytes ? (uint32_t)skip : piece.bytes;
        skip -= skipped;
        piece.gpa += skipped;
        piece.bytes -= skipped;
        if (piece.bytes > bytes)
            piece.bytes = (uint32_t)bytes;
        if (piece.bytes == 0)
            continue;
        bytes -= piece.bytes;
        uint8_t *host = fill ? ram_write_begin(ram, piece.gpa, piece.bytes) : ram_ptr(ram, piece.gpa, piece.bytes);
        assert(host); /* the ring was checked, and RAM does not move */
        if (fill)
            request->segment[request->filled++] = piece;
        request->iov[request->io.iovs++] = (struct iovec){ host, piece.bytes };
    }
    assert(bytes == 0);
}

static uint64_t status_gpa(const struct vring_chain *chain)
{
    for (unsigned i = chain->readable + chain->writable; i-- > chain->readable;) {
        if (chain->segment[i].bytes > 0)
            return chain->segment[i].gpa + chain->segment[i].bytes - 1;
    }
    assert(!"a chain without room for a status was let in");
    return 0;
}

static bool give_back(struct blk *blk, struct vring *ring, uint16_t head, uint64_t gpa, uint8_t status,
                      uint32_t written)
{
    ram_write(blk->backend.ram, gpa, &status, 1);
    return vring_put(ring, head, written + 1);
}

static bool wants_write_through(const struct blk *blk)
{
    return !virtio_has_feature(&blk->backend, BLK_F_FLUSH) ||
           (virtio_has_feature(&blk->backend, BLK_F_CONFIG_WCE) && !blk->state.writeback);
}

/* A discard or a zeroing: one range. The status of a refusal, or OK. */
static uint8_t begin_range(struct blk *blk, struct vring *ring, const struct vring_chain *chain, bool zero,
                           struct block_request *io)
{
    uint8_t raw[BLK_RANGE_BYTES];
    if (chain->readable_bytes != BLK_HEADER_BYTES + BLK_RANGE_BYTES)
        return BLK_S_UNSUPP;
    vring_copy_from(ring, chain, BLK_HEADER_BYTES, raw, sizeof(raw));
    uint64_t sector = le64_get(raw);
    uint32_t sectors = le32_get(raw + 8), flags = le32_get(raw + 12);
    if (flags & ~(uint32_t)(zero ? BLK_ZERO_UNMAP : 0))
        return BLK_S_UNSUPP;
    if (sectors > BLK_TRIM_SECTORS_MAX || !range_fits(blk, sector, (uint64_t)sectors * BLK_SECTOR))
        return BLK_S_IOERR;
    io->op = zero ? BLOCK_ZERO : BLOCK_DISCARD;
    io->offset = sector * BLK_SECTOR;
    io->bytes = (uint64_t)sectors * BLK_SECTOR;
    io->unmap = flags & BLK_ZERO_UNMAP;
    return BLK_S_OK;
}

/* Fill in what the disk shall do. Anything but OK: refused, and nothing was opened. */
static uint8_t begin_io(struct blk *blk, struct vring *ring, const struct vring_chain *chain, uint32_t type,
                        uint64_t sector, struct blk_request *request)
{
    struct block_request *io = &request->io;
    bool read = type == BLK_T_IN;
    uint64_t bytes = read ? chain->writable_bytes - 1 : chain->readable_bytes - BLK_HEADER_BYTES;
    if (blk->state.here.readonly && (type == BLK_T_OUT || type == BLK_T_DISCARD || type == BLK_T_WRITE_ZEROES))
        return BLK_S_IOERR;
    switch (type) {
    case BLK_T_IN:
    case BLK_T_OUT:
        if (!range_fits(blk, sector, bytes))
            return BLK_S_IOERR;
        io->op = read ? BLOCK_READ : BLOCK_WRITE;
        io->offset = sector * BLK_SECTOR;
        io->bytes = bytes;
        if (read)
            map_segments(blk, request, chain->segment + chain->readable, chain->writable, 0, bytes, true);
        else
            map_segments(blk, request, chain->segment, chain->readable, BLK_HEADER_BYTES, bytes, false);
        request->written = read ? (uint32_t)bytes : 0;
        return BLK_S_OK;
    case BLK_T_FLUSH: io->op = BLOCK_FLUSH; return BLK_S_OK;
    case BLK_T_DISCARD:
    case BLK_T_WRITE_ZEROES: return begin_range(blk, ring, chain, type == BLK_T_WRITE_ZEROES, io);
    default: return BLK_S_UNSUPP;
    }
}

static void blk_done(struct block_request *io, int result);

/* One that is free, still on the list. */
static struct blk_request *fresh_request(struct blk *blk)
{
    struct blk_request *request = blk->free;
    request->io = (struct block_request){ .iov = request->iov, .done = blk_done };
    request->filled = 0;
    request->written = 0;
    request->nudge = request->write = request->through = false;
    return request;
}

static void submit(struct blk *blk, struct blk_request *request)
{
    assert(request == blk->free);
    blk->free = request->next;
    blk->under_way++;
    block_submit(blk->options.block, &request->io);
}

/* A chain that the device has taken: hand it to the disk, or answer it. False: the ring broke. */
static bool begin(struct blk *blk, struct vring *ring, unsigned queue, const struct vring_chain *chain)
{
    uint8_t header[BLK_HEADER_BYTES];
    if (chain->readable_bytes < sizeof(header) || chain->writable_bytes == 0) {
        ring->why = "a request without a header or without room for a status";
        return false;
    }
    vring_copy_from(ring, chain, 0, header, sizeof(header));
    uint32_t type = le32_get(header);
    uint64_t sector = le64_get(header + 8), gpa = status_gpa(chain);
    if (type == BLK_T_GET_ID) {
        uint64_t room = chain->writable_bytes - 1;
        size_t bytes = room < BLK_ID_BYTES ? (size_t)room : BLK_ID_BYTES;
        vring_copy_to(ring, chain, 0, blk->state.here.serial, bytes);
        return give_back(blk, ring, chain->head, gpa, BLK_S_OK, (uint32_t)bytes);
    }
    struct blk_request *request = fresh_request(blk);
    uint8_t status = begin_io(blk, ring, chain, type, sector, request);
    if (status != BLK_S_OK)
        return give_back(blk, ring, chain->head, gpa, status, 0);
    request->head = chain->head;
    request->queue = (uint8_t)queue;
    request->status_gpa = gpa;
    request->write = request->io.op != BLOCK_READ;
    request->through = (request->io.op == BLOCK_WRITE || request->io.op == BLOCK_ZERO) && wants_write_through(blk);
    submit(blk, request);
    return true;
}

static void look_again_soon(struct blk *blk)
{
    struct blk_request *request = fresh_request(blk);
    request->io.op = BLOCK_READ; /* of nothing */
    request->nudge = true;
    submit(blk, request);
}

static bool may_begin(const struct blk *blk, unsigned queue)
{
    return virtio_running(&blk->backend) && !blk->waiting && !blk->stopping && blk->state.virtio.queue[queue].ready;
}

static void blk_poll(struct blk *blk, unsigned queue)
{
    if (!may_begin(blk, queue))
        return;
    struct vring ring = virtio_ring(&blk->backend, queue);
    struct vring_chain chain;
    enum vring_result result = VRING_CHAIN;
    unsigned budget = ring.state->num; /* requests that are answered at once must not keep a vCPU in here */
    while (budget && blk->free && (result = vring_peek(&ring, &chain)) == VRING_CHAIN) {
        vring_take(&ring);
        if (!begin(blk, &ring, queue, &chain)) {
            result = VRING_BROKEN;
            break;
        }
        budget--;
    }
    if (result == VRING_CHAIN && blk->free) /* where none is free, the next one that is done looks here again */
        look_again_soon(blk);
    virtio_interrupt(&blk->backend, &ring);
    if (result == VRING_BROKEN)
        virtio_break(&blk->backend, ring.why);
}

/* --- what comes back --------------------------------------------------------------------------------------- */

static enum virtio_blk_error verdict(const struct blk *blk, const struct blk_request *request, int result)
{
    enum virtio_blk_error on_error = request->write ? blk->options.on_write_error : blk->options.on_read_error;
    if (on_error == BLK_ENOSPC)
        return result == -ENOSPC || result == -EDQUOT ? BLK_STOP : BLK_REPORT;
    return on_error;
}

static void keep_for_later(struct blk *blk, const struct blk_request *request)
{
    struct blk_state *s = &blk->state;
    assert(s->retries < BLK_REQUESTS);
    s->retry[s->retries++] = (struct blk_retry){ .head = request->head, .queue = request->queue };
    if (!blk->stopping && blk->options.stop)
        blk->options.stop(blk->options.opaque);
    blk->stopping = true;
}

static void finish(struct blk *blk, struct blk_request *request, int result)
{
    struct virtio_backend *backend = &blk->backend;
    unsigned queue = request->queue;
    enum virtio_blk_error what = result < 0 ? verdict(blk, request, result) : BLK_IGNORE;
    /* Of a device that broke meanwhile the driver expects nothing, until it has reset it. */
    if (!backend->state->broken && !request->nudge) {
        if (what == BLK_STOP) {
            keep_for_later(blk, request);
        } else {
            struct vring ring = virtio_ring(backend, queue);
            bool well = what == BLK_IGNORE;
            assert(ring.state->ready); /* quiesce() waited for us */
            if (give_back(blk, &ring, request->head, request->status_gpa, well ? BLK_S_OK : BLK_S_IOERR,
                          well ? request->written : 0))
                virtio_interrupt(backend, &ring);
            else
                virtio_break(backend, ring.why);
        }
    }
    request->next = blk->free;
    blk->free = request;
    if (--blk->under_way == 0)
        cond_broadcast(&blk->idle);
}

/* On a thread of the disk. */
static void blk_done(struct block_request *io, int result)
{
    struct blk_request *request = (struct blk_request *)io;
    struct blk *blk = request->blk;
    if (result == 0 && request->through) {
        request->through = false;
        io->op = BLOCK_FLUSH;
        block_submit(blk->options.block, io);
        return;
    }
    trail_as(blk->backend.ops->name);
    for (unsigned i = 0; i < request->filled; i++)
        ram_write_end(blk->backend.ram, request->segment[i].gpa, request->segment[i].bytes);
    virtio_lock(&blk->backend);
    finish(blk, request, result);
    for (unsigned queue = 0; queue < blk->ops.queues; queue++)
        blk_poll(blk, queue);
    virtio_unlock(&blk->backend);
}

/* The lock is held, but not while this waits. */
static void wait_idle(struct blk *blk)
{
    blk->waiting++;
    while (blk->under_way > 0)
        cond_wait(&blk->idle, &blk->backend.dev->lock);
    blk->waiting--;
}

/* --- the device's side ------------------------------------------------------------------------------------- */

static void fill_config(const struct blk *blk, uint8_t *config)
{
    const struct blk_disk *disk = &blk->state.here;
    uint64_t cylinders = disk->sectors / (BLK_HEADS * BLK_TRACK_SECTORS);
    uint32_t trim_align = disk->sector_bytes / BLK_SECTOR;
    le64_put(config + CONFIG_CAPACITY, disk->sectors);
    le32_put(config + CONFIG_SEG_MAX, BLK_SEGMENTS);
    le16_put(config + CONFIG_CYLINDERS, cylinders < BLK_CYLINDERS_MAX ? (uint16_t)cylinders : BLK_CYLINDERS_MAX);
    config[CONFIG_HEADS] = BLK_HEADS;
    config[CONFIG_TRACK_SECTORS] = BLK_TRACK_SECTORS;
    le32_put(config + CONFIG_BLK_SIZE, disk->sector_bytes);
    le16_put(config + CONFIG_MIN_IO, 1);
    config[CONFIG_WRITEBACK] = blk->state.writeback;
    le16_put(config + CONFIG_QUEUES, disk->queues);
    le32_put(config + CONFIG_DISCARD_SECTORS, BLK_TRIM_SECTORS_MAX);
    le32_put(config + CONFIG_DISCARD_SEGMENTS, 1);
    le32_put(config + CONFIG_DISCARD_ALIGN, trim_align);
    le32_put(config + CONFIG_ZERO_SECTORS, BLK_TRIM_SECTORS_MAX);
    le32_put(config + CONFIG_ZERO_SEGMENTS, 1);
    config[CONFIG_ZERO_MAY_UNMAP] = block_options_of(blk->options.block)->discard;
}

static uint32_t blk_config_read(struct virtio_backend *backend, unsigned offset, unsigned size)
{
    uint8_t config[CONFIG_BYTES + 4] = { 0 };
    uint32_t value = 0;
    fill_config(blk_of(backend), config);
    memcpy(&value, config + offset, size);
    return value;
}

static void blk_config_write(struct virtio_backend *backend, unsigned offset, uint32_t value, unsigned size)
{
    (void)size;
    if (offset == CONFIG_WRITEBACK && virtio_has_feature(backend, BLK_F_CONFIG_WCE))
        blk_of(backend)->state.writeback = value & 1;
}

static void blk_notify(struct virtio_backend *backend, unsigned queue)
{
    blk_poll(blk_of(backend), queue);
}

static void blk_reset(struct virtio_backend *backend)
{
    struct blk *blk = blk_of(backend);
    wait_idle(blk);
    blk->state.retries = 0;
    blk->state.writeback = 1;
}

static void blk_quiesce(struct virtio_backend *backend, unsigned queue)
{
    struct blk *blk = blk_of(backend);
    struct blk_state *s = &blk->state;
    unsigned kept = 0;
    wait_idle(blk);
    for (unsigned i = 0; i < s->retries; i++) {
        if (s->retry[i].queue != queue)
            s->retry[kept++] = s->retry[i];
    }
    s->retries = (uint8_t)kept;
}

static void blk_drain(struct virtio_backend *backend)
{
    virtio_lock(backend);
    wait_idle(blk_of(backend));
    virtio_unlock(backend);
}

static void try_again(struct blk *blk)
{
    struct blk_state *s = &blk->state;
    struct blk_retry retry[BLK_REQUESTS];
    unsigned retries = s->retries;
    memcpy(retry, s->retry, sizeof(retry));
    s->retries = 0;
    memset(s->retry, 0, sizeof(s->retry)); /* so that a state has one spelling */
    for (unsigned i = 0; i < retries && virtio_running(&blk->backend); i++) {
        struct vring ring = virtio_ring(&blk->backend, retry[i].queue);
        struct vring_chain chain;
        bool well = vring_reread(&ring, retry[i].head, &chain) && begin(blk, &ring, retry[i].queue, &chain);
        virtio_interrupt(&blk->backend, &ring);
        if (!well)
            virtio_break(&blk->backend, ring.why);
    }
}

static void blk_resume(struct virtio_backend *backend)
{
    struct blk *blk = blk_of(backend);
    virtio_lock(backend);
    blk->stopping = false;
    try_again(blk);
    for (unsigned queue = 0; queue < blk->ops.queues; queue++)
        blk_poll(blk, queue);
    virtio_unlock(backend);
}

static void blk_free(struct virtio_backend *backend)
{
    struct blk *blk = blk_of(backend);
    if (backend->dev) {
        virtio_lock(backend);
        blk->stopping = true;
        wait_idle(blk);
        virtio_unlock(backend);
    }
    cond_destroy(&blk->idle);
    free(blk);
}

static const struct virtio_backend_ops blk_ops = {
    .name = "virtio-blk-device",
    .device_id = VIRTIO_ID_BLOCK,
    .queue_size_max = BLK_QUEUE_SIZE,
    .config_bytes = CONFIG_BYTES,
    .state = &blk_desc,
    .config_read = blk_config_read,
    .config_write = blk_config_write,
    .notify = blk_notify,
    .reset = blk_reset,
    .quiesce = blk_quiesce,
    .drain = blk_drain,
    .resume = blk_resume,
    .free = blk_free,
};

struct virtio_backend *virtio_blk_new(const struct virtio_blk_options *options, struct err *err)
{
    _Static_assert((int)VIRTIO_BLK_QUEUES_MAX <= (int)VIRTIO_QUEUES_MAX, "queues that a virtio device can have");
    struct blk *blk = calloc(1, sizeof(*blk));
    if (!blk) {
        err_set(err, -ENOMEM, "no memory for virtio-blk");
        return NULL;
    }
    assert(options->queues >= 1 && options->queues <= VIRTIO_BLK_QUEUES_MAX);
    blk->options = *options;
    blk->state.here = (struct blk_disk){
        .sectors = block_bytes(options->block) / BLK_SECTOR,
        .sector_bytes = block_sector_bytes(options->block),
        .queues = (uint8_t)options->queues,
        .readonly = block_options_of(options->block)->readonly,
    };
    memcpy(blk->state.here.serial, options->serial, sizeof(blk->state.here.serial));
    blk->state.disk = blk->state.here;
    for (unsigned i = BLK_REQUESTS; i-- > 0;) {
        blk->request[i].blk = blk;
        blk->request[i].next = blk->free;
        blk->free = &blk->request[i];
    }
    cond_init(&blk->idle);
    blk->ops = blk_ops;
    blk->ops.features = blk_features(&blk->state.here);
    blk->ops.queues = options->queues;
    blk->backend.ops = &blk->ops;
    blk->backend.state = &blk->state.virtio;
    return &blk->backend;
}
