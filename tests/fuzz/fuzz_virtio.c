/* A hostile guest against virtio-mmio, rings, entropy, console and disk (which fails at times): register writes, ring memory, host input, pauses and
 * moves, in an order that the fuzzer chooses. Nothing may crash, hang, or survive a save and load changed.
 *
 *   clang -std=gnu11 -D_GNU_SOURCE -Isrc -I. -g -O1 -fsanitize=fuzzer,address,undefined -pthread \
 *       tests/fuzz/fuzz_virtio.c src/hw/v*.c src/base/{err,lock,bytes,fields,clock,timer,thread}.c \
 *       src/memory/{ram,dirty}.c src/block/block.c
 */
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hw/devices.h"
#include "hw/virtio.h"
#include "memory/ram.h"

enum { BASE = 0x80000000, BYTES = 64 * 1024, RING_BYTES = 0x2000, STEPS_MAX = 256 };

struct chardev {
    const struct chardev_client *client;
    void *opaque;
    size_t room;
};

void chardev_attach(struct chardev *chardev, const struct chardev_client *client, void *opaque)
{
    chardev->client = client;
    chardev->opaque = opaque;
}

size_t chardev_write(struct chardev *chardev, const void *data, size_t bytes)
{
    (void)data;
    size_t taken = bytes < chardev->room ? bytes : chardev->room;
    chardev->room -= taken;
    return taken;
}

void chardev_accept_input(struct chardev *chardev)
{
    (void)chardev;
}

/* A disk of 16 KiB in memory; every FAIL_EVERY-th call fails. Called by the disk's threads. */
enum { DISK_BYTES = 16 * 1024, FAIL_EVERY = 5 };

static struct disk {
    struct block_image image;
    _Atomic unsigned calls;
    uint8_t data[DISK_BYTES];
} the_disk;

static bool disk_fails(void)
{
    return atomic_fetch_add_explicit(&the_disk.calls, 1, memory_order_relaxed) % FAIL_EVERY == FAIL_EVERY - 1;
}

static ssize_t disk_read(struct block_image *image, uint64_t offset, const struct iovec *iov, unsigned iovs)
{
    (void)image;
    assert(iovs > 0 && offset + iov[0].iov_len <= DISK_BYTES);
    memset(iov[0].iov_base, the_disk.data[offset], iov[0].iov_len);
    return disk_fails() ? -EIO : (ssize_t)iov[0].iov_len;
}

static ssize_t disk_write(struct block_image *image, uint64_t offset, const struct iovec *iov, unsigned iovs)
{
    uint8_t sum = 0;
    (void)image;
    assert(iovs > 0 && offset + iov[0].iov_len <= DISK_BYTES);
    for (size_t i = 0; i < iov[0].iov_len; i++)
        sum ^= ((const uint8_t *)iov[0].iov_base)[i];
    atomic_fetch_add_explicit(&the_disk.calls, sum % 2, memory_order_relaxed); /* it was read */
    return disk_fails() ? -ENOSPC : (ssize_t)iov[0].iov_len;
}

static int disk_flush(struct block_image *image)
{
    (void)image;
    return disk_fails() ? -ENOSPC : 0;
}

static void disk_free(struct block_image *image)
{
    (void)image;
}

/* The fuzzer's bytes; zeros when they run out. */
struct input {
    const uint8_t *data;
    size_t size;
};

static uint32_t take(struct input *in, unsigned bytes)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < bytes && in->size; i++, in->data++, in->size--)
        value |= (uint32_t)*in->data << 8 * i;
    return value;
}

static struct virtio_backend *disk_new(uint32_t kind, struct block **block)
{
    static const struct block_driver driver = {
        .name = "fuzz",
        .read = disk_read,
        .write = disk_write,
        .flush = disk_flush,
        .free = disk_free,
    };
    struct block_options how = { .name = "disk", .discard = true, .readonly = (kind & 0x70) == 0x70 };
    the_disk.image = (struct block_image){ .driver = &driver, .bytes = DISK_BYTES, .sector_bytes = 512 };
    assert(block_new(&the_disk.image, &how, block, NULL) == 0 && block_take(*block, NULL) == 0);
    struct virtio_blk_options options = {
        .block = *block,
        .queues = 2,
        .on_read_error = kind >> 4 & 1 ? BLK_STOP : BLK_REPORT,
        .on_write_error = kind >> 5 & 1 ? BLK_ENOSPC : BLK_IGNORE,
    };
    return virtio_blk_new(&options, NULL);
}

static struct ram *the_ram(void)
{
    static struct ram *ram;
    if (!ram) {
        struct ram_options options = { 0 };
        ram = ram_new();
        assert(ram && ram_add(ram, "ram", BASE, BYTES, false, &options, NULL) == 0 && ram_seal_layout(ram, NULL) == 0);
    }
    memset(ram->block[0].host, 0, BYTES);
    return ram;
}

static void put(struct device *dev, uint64_t offset, uint32_t value)
{
    dev->ops->bus->write(dev, offset, value, 4);
}

/* An honest bring-up, so that the fuzzer need not find one: queue q at BASE + q * RING_BYTES, `num` long. */
static void bring_up(struct device *dev, bool legacy, uint32_t num, uint32_t features)
{
    put(dev, 0x070, 0);
    put(dev, 0x070, 3);
    put(dev, 0x024, 0);
    put(dev, 0x020, features);
    put(dev, 0x024, 1);
    put(dev, 0x020, 1);
    put(dev, 0x070, 11);
    put(dev, 0x028, 4096);
    for (uint32_t q = 0; q < 2; q++) {
        uint32_t desc = (uint32_t)(BASE + (uint64_t)q * RING_BYTES);
        put(dev, 0x030, q);
        put(dev, 0x038, num);
        if (legacy) {
            put(dev, 0x040, desc >> 12);
            continue;
        }
        put(dev, 0x080, desc);
        put(dev, 0x090, desc + 0x800);
        put(dev, 0x0a0, desc + 0x1000);
        put(dev, 0x044, 1);
    }
    put(dev, 0x070, 15);
}

static void move_to_itself(struct device *dev)
{
    struct buf before = { 0 }, after = { 0 };
    void *object = dev->ops->state_object(dev);
    state_save(dev->ops->state, object, &before);
    struct reader in = reader_of(before.data, before.size);
    assert(state_load(dev->ops->state, object, dev->ops->state->version, &in, NULL) == 0);
    dev->ops->loaded(dev);
    state_save(dev->ops->state, object, &after);
    assert(before.size == after.size && memcmp(before.data, after.data, before.size) == 0);
    buf_free(&before);
    buf_free(&after);
}

static void load_lies(struct device *dev, struct input *in)
{
    struct buf bytes = { 0 };
    void *object = dev->ops->state_object(dev);
    state_save(dev->ops->state, object, &bytes);
    for (unsigned n = take(in, 1) % 8; n; n--)
        bytes.data[take(in, 2) % bytes.size] = (uint8_t)take(in, 1);
    struct reader reader = reader_of(bytes.data, bytes.size);
    if (state_load(dev->ops->state, object, dev->ops->state->version, &reader, NULL) == 0)
        dev->ops->loaded(dev);
    buf_free(&bytes);
}

static void poke(struct ram *ram, struct input *in)
{
    uint32_t at = take(in, 2), bytes = 1 + take(in, 1) % 16;
    uint8_t data[16];
    for (unsigned i = 0; i < bytes; i++)
        data[i] = (uint8_t)take(in, 1);
    ram_write(ram, BASE + at, data, bytes);
}

static void poke_desc(struct ram *ram, struct input *in)
{
    uint8_t raw[16];
    uint32_t queue = take(in, 1) % 3; /* 2: an indirect table */
    uint64_t at = BASE + (uint64_t)queue * RING_BYTES + 16 * (take(in, 1) % 16);
    le64_put(raw, BASE + (uint64_t)take(in, 2));
    le32_put(raw + 8, take(in, 2));
    le16_put(raw + 12, (uint16_t)(take(in, 1) % 8));
    le16_put(raw + 14, (uint16_t)(take(in, 1) % 18));
    ram_write(ram, at, raw, sizeof(raw));
}

/* What a disk's request begins with, where poke_desc() may point. */
static void poke_header(struct ram *ram, struct input *in)
{
    static const uint8_t types[] = { 0, 1, 4, 8, 11, 13 };
    uint8_t raw[32] = { 0 };
    le32_put(raw, types[take(in, 1) % 6]);
    le64_put(raw + 8, take(in, 1));
    le64_put(raw + 16, take(in, 1));
    le32_put(raw + 24, take(in, 1));
    ram_write(ram, (uint64_t)BASE + 0x6000 + 256 * (uint64_t)(take(in, 1) % 16), raw, sizeof(raw));
}

static void type(struct chardev *chardev, struct input *in)
{
    static const uint8_t text[1024] = "text";
    if (!chardev->client)
        return;
    size_t room = chardev->client->can_receive(chardev->opaque), bytes = take(in, 2) % sizeof(text);
    /* Sometimes the way was closed after can_receive had opened it. */
    if (take(in, 1) % 4 == 0 || bytes <= room)
        chardev->client->receive(chardev->opaque, text, bytes);
}

static void step(struct device *dev, struct ram *ram, struct chardev *chardev, bool legacy, bool *drained,
                 struct input *in)
{
    unsigned what = take(in, 1) % 11;
    if (*drained && (what <= 5 || what == 10))
        what = 9; /* no hart runs: no register access, no store */
    switch (what) {
    case 0: put(dev, take(in, 1) * 4, take(in, 4)); break;
    case 1: dev->ops->bus->read(dev, take(in, 2) & 0xfff, 1U << take(in, 1) % 3); break;
    case 2: poke(ram, in); break;
    case 3: poke_desc(ram, in); break;
    case 4: /* publish: index and head */
        ram_write(ram, BASE + (uint64_t)(take(in, 1) % 2) * RING_BYTES + 0x800 + 2 * (take(in, 1) % 20),
                  &(uint8_t[2]){ (uint8_t)take(in, 1) }, 2);
        break;
    case 5: put(dev, 0x050, take(in, 1) % 3); break;
    case 6: type(chardev, in); break;
    case 7:
        chardev->room = take(in, 2);
        if (chardev->client)
            chardev->client->writable(chardev->opaque);
        break;
    case 8: /* while RAM is sealed a write by a drained device asserts */
        if (*drained) {
            dirty_unseal(ram->dirty);
            dev->ops->resume(dev);
        } else {
            dev->ops->drain(dev);
            dirty_seal(ram->dirty);
        }
        *drained = !*drained;
        break;
    case 10: poke_header(ram, in); break;
    default:
        if (!*drained)
            bring_up(dev, legacy, 16, take(in, 4));
        else if (take(in, 1) % 2)
            move_to_itself(dev);
        else
            load_lies(dev, in);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, size };
    struct chardev chardev = { .room = 100 };
    struct ram *ram = the_ram();
    uint32_t kind = take(&in, 1);
    bool legacy = kind & 1, drained = false;
    struct block *block = NULL;
    struct virtio_backend *backend = kind & 8   ? disk_new(kind, &block)
                                     : kind & 2 ? virtio_rng_new(NULL)
                                                : virtio_console_new(&chardev, NULL);
    struct device *dev = virtio_mmio_new(0, ram, (struct irq_line){ 0 }, backend, legacy, NULL);
    bring_up(dev, legacy, 16, UINT32_C(0x30000000));
    for (unsigned steps = 0; in.size && steps < STEPS_MAX; steps++)
        step(dev, ram, &chardev, legacy, &drained, &in);
    if (drained)
        dirty_unseal(ram->dirty);
    dev->ops->free(dev);
    block_free(block);
    return 0;
}
