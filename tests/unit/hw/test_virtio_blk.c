#include "tests/unit/hw/guest_ring.h"
#include "tests/unit/block/fake_image.h"

#include "hw/virtio.h"

enum { NUM = 8, SECTOR = 512, SECTORS = FAKE_BYTES / SECTOR };
enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { OK = 0, IOERR = 1, UNSUPP = 2 };
enum { HEADERS = GUEST_DATA, STATUS = GUEST_DATA + 0x1000, DATA = GUEST_DATA + 0x2000 };
#define F_FLUSH  (UINT64_C(1) << 9)
#define F_WCE    (UINT64_C(1) << 11)
#define FEATURES (VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | F_FLUSH | F_WCE)

struct world {
    struct pins pins;
    struct ram *ram;
    struct fake_image *fake;
    struct block *block;
    struct device *dev;
    struct guest_ring ring;
    struct lock lock;
    unsigned stops; /* under lock */
};

static void asked_to_stop(void *opaque)
{
    struct world *w = opaque;
    lock(&w->lock);
    w->stops++;
    unlock(&w->lock);
}

static unsigned stops(struct world *w)
{
    lock(&w->lock);
    unsigned count = w->stops;
    unlock(&w->lock);
    return count;
}

static struct device *disk_new(struct world *w, struct virtio_blk_options options, unsigned number, bool legacy)
{
    options.block = w->block;
    options.stop = asked_to_stop;
    options.opaque = w;
    options.queues = options.queues ? options.queues : 1;
    struct device *dev =
        virtio_mmio_new(7, w->ram, pin(&w->pins, number), virtio_blk_new(&options, NULL), legacy, NULL);
    assert_non_null(dev);
    return dev;
}

static void bring_up(struct world *w, uint64_t features)
{
    w->ring = guest_ring(w->ram, 0, NUM);
    poke(w->ram, w->ring.avail + 2, 0, 2);
    poke(w->ram, w->ring.used + 2, 0, 2);
    driver_begin(w->dev, features);
    driver_set_queue(w->dev, 0, &w->ring);
    driver_ready(w->dev);
}

static void block_make(struct world *w, const struct block_options *options)
{
    w->fake = fake_image_new();
    assert_int_equal(block_new(&w->fake->image, options, &w->block, NULL), 0);
    assert_int_equal(block_take(w->block, NULL), 0);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    pins_init(&w->pins);
    lock_init(&w->lock, LOCK_LEAF);
    w->ram = guest_ram();
    block_make(w, &(struct block_options){ .name = "disk", .discard = true });
    w->dev = disk_new(w, (struct virtio_blk_options){ .serial = "one-disk" }, 0, false);
    bring_up(w, FEATURES);
    *state = w;
    return 0;
}

static void world_end(struct world *w)
{
    if (w->dev)
        dev_free(w->dev);
    block_free(w->block);
    fake_image_free(w->fake);
}

static int teardown(void **state)
{
    struct world *w = *state;
    world_end(w);
    ram_free(w->ram);
    lock_destroy(&w->lock);
    free(w);
    return 0;
}

static void other_device(struct world *w, struct virtio_blk_options options, uint64_t features)
{
    dev_free(w->dev);
    w->dev = disk_new(w, options, 0, false);
    bring_up(w, features);
}

/* Request `n` of up to NUM / 3: three descriptors from 3 * n on. */
static void make(struct world *w, unsigned n, uint32_t type, uint64_t sector, uint32_t bytes)
{
    uint64_t header = HEADERS + 16 * (uint64_t)n, data = DATA + 0x4000 * (uint64_t)n;
    bool read = type == T_IN || type == T_GET_ID;
    poke(w->ram, header, type, 4);
    poke(w->ram, header + 4, 0, 4);
    poke(w->ram, header + 8, sector, 8);
    poke(w->ram, STATUS + n, 0xff, 1);
    set_desc(&w->ring, 3 * n, header, 16, D_NEXT, bytes ? 3 * n + 1 : 3 * n + 2);
    set_desc(&w->ring, 3 * n + 1, data, bytes, D_NEXT | (read ? D_WRITE : 0), 3 * n + 2);
    set_desc(&w->ring, 3 * n + 2, STATUS + n, 1, D_WRITE, 0);
}

static void ask(struct world *w, unsigned n, uint32_t type, uint64_t sector, uint32_t bytes)
{
    make(w, n, type, sector, bytes);
    publish(&w->ring, 3 * n);
    driver_notify(w->dev, 0);
}

/* The next one that came back: its number, status and length. Waits for the interrupt, and takes it. */
static unsigned answer(struct world *w, unsigned *status, uint32_t *written)
{
    uint32_t id;
    while (!take_used(&w->ring, &id, written)) {
        pin_wait_high(&w->pins, 0);
        mmio_put(w->dev, 0x064, 3);
    }
    *status = (unsigned)peek(w->ram, STATUS + id / 3, 1);
    return id / 3;
}

static unsigned outcome(struct world *w, uint32_t type, uint64_t sector, uint32_t bytes)
{
    unsigned status;
    uint32_t written;
    ask(w, 0, type, sector, bytes);
    assert_int_equal(answer(w, &status, &written), 0);
    assert_int_equal(written, type == T_IN && status == OK ? bytes + 1 : 1);
    return status;
}

static void stand_still(struct world *w)
{
    w->dev->ops->drain(w->dev);
}

static void go_on(struct world *w)
{
    w->dev->ops->resume(w->dev);
}

static void fail_next(struct world *w, int code)
{
    lock(&w->fake->lock);
    w->fake->fail_call = w->fake->calls + 1;
    w->fake->fail_code = code;
    unlock(&w->fake->lock);
}

/* --- requests ---------------------------------------------------------------------------------------------- */

static void a_driver_learns_what_the_disk_is(void **state)
{
    struct world *w = *state;
    assert_int_equal(mmio_get(w->dev, 0x008), 2);
    assert_int_equal(dev_read(w->dev, 0x100, 4), SECTORS);
    assert_int_equal(dev_read(w->dev, 0x104, 4), 0);
    assert_int_equal(dev_read(w->dev, 0x10c, 4), 254);
    assert_int_equal(dev_read(w->dev, 0x112, 1), 16);
    assert_int_equal(dev_read(w->dev, 0x113, 1), 63);
    assert_int_equal(dev_read(w->dev, 0x114, 4), 512);
    assert_int_equal(dev_read(w->dev, 0x120, 1), 1);
    assert_int_equal(dev_read(w->dev, 0x122, 2), 1);
    assert_true(dev_read(w->dev, 0x124, 4) > 0);
    assert_int_equal(dev_read(w->dev, 0x138, 1), 1);
    mmio_put(w->dev, 0x014, 0);
    assert_int_equal(mmio_get(w->dev, 0x010) & 0x7e7e, 0x7e54);
}

static void what_is_written_is_on_the_disk_and_comes_back(void **state)
{
    struct world *w = *state;
    for (unsigned i = 0; i < 4096; i += 8)
        poke(w->ram, DATA + i, UINT64_C(0x0123456789abcdef) * (i + 1), 8);
    assert_int_equal(outcome(w, T_OUT, 5, 4096), OK);
    for (unsigned i = 0; i < 4096; i += 8)
        assert_int_equal(le64_get(w->fake->data + 5 * SECTOR + i), UINT64_C(0x0123456789abcdef) * (i + 1));
    w->fake->data[6 * SECTOR] = 0x77;
    assert_int_equal(outcome(w, T_IN, 5, 4096), OK);
    assert_int_equal(peek(w->ram, DATA + SECTOR, 1), 0x77);
    assert_int_equal(peek(w->ram, DATA + 8, 8), UINT64_C(0x0123456789abcdef) * 9);
    assert_int_equal(outcome(w, T_FLUSH, 0, 0), OK);
    assert_int_equal(w->fake->flushes, 1);
}

static void segments_may_be_cut_anywhere(void **state)
{
    struct world *w = *state;
    unsigned status;
    uint32_t written;
    make(w, 0, T_IN, 2, SECTOR);
    set_desc(&w->ring, 0, HEADERS, 7, D_NEXT, 3);
    set_desc(&w->ring, 3, HEADERS + 7, 9, D_NEXT, 1);
    set_desc(&w->ring, 1, DATA, 100, D_NEXT | D_WRITE, 4);
    set_desc(&w->ring, 4, DATA + 0x100, 0, D_NEXT | D_WRITE, 5);
    set_desc(&w->ring, 5, DATA + 0x200, SECTOR - 100 + 1, D_WRITE, 0); /* the status is its last byte */
    publish(&w->ring, 0);
    driver_notify(w->dev, 0);
    answer(w, &status, &written);
    assert_int_equal(written, SECTOR + 1);
    assert_int_equal(peek(w->ram, DATA + 0x200 + SECTOR - 100, 1), OK);
    assert_int_equal(peek(w->ram, DATA + 99, 1), w->fake->data[2 * SECTOR + 99]);
    assert_int_equal(peek(w->ram, DATA + 0x200, 1), w->fake->data[2 * SECTOR + 100]);
    assert_int_equal(peek(w->ram, DATA + 0x200 + SECTOR - 101, 1), w->fake->data[3 * SECTOR - 1]);
}

static void the_serial_number_is_told(void **state)
{
    struct world *w = *state;
    char serial[21] = { 0 };
    unsigned status;
    uint32_t written;
    ask(w, 0, T_GET_ID, 0, 20);
    answer(w, &status, &written);
    assert_int_equal(status, OK);
    assert_int_equal(written, 21);
    assert_true(ram_read(w->ram, DATA, serial, 20));
    assert_string_equal(serial, "one-disk");
}

static void ranges_outside_the_disk_and_parts_of_sectors_are_errors(void **state)
{
    struct world *w = *state;
    assert_int_equal(outcome(w, T_IN, SECTORS - 1, 2 * SECTOR), IOERR);
    assert_int_equal(outcome(w, T_OUT, SECTORS, SECTOR), IOERR);
    assert_int_equal(outcome(w, T_OUT, UINT64_MAX / SECTOR, SECTOR), IOERR);
    assert_int_equal(outcome(w, T_OUT, UINT64_MAX, SECTOR), IOERR);
    assert_int_equal(outcome(w, T_IN, 0, 100), IOERR);
    assert_int_equal(outcome(w, T_IN, SECTORS - 1, SECTOR), OK);
    assert_int_equal(outcome(w, 77, 0, SECTOR), UNSUPP);
    assert_int_equal(w->fake->calls, 1);
}

static void put_range(struct world *w, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    poke(w->ram, DATA, sector, 8);
    poke(w->ram, DATA + 8, sectors, 4);
    poke(w->ram, DATA + 12, flags, 4);
}

static void ranges_are_discarded_and_zeroed(void **state)
{
    struct world *w = *state;
    static const uint8_t zero[2 * SECTOR];
    w->fake->can_discard = true;
    put_range(w, 4, 2, 0);
    assert_int_equal(outcome(w, T_DISCARD, 0, 16), OK);
    assert_int_equal(w->fake->discards, 1);
    put_range(w, 8, 2, 1);
    assert_int_equal(outcome(w, T_WRITE_ZEROES, 0, 16), OK);
    assert_memory_equal(w->fake->data + 8 * SECTOR, zero, 2 * SECTOR);
    assert_int_not_equal(w->fake->data[10 * SECTOR + 1], 0);
    put_range(w, SECTORS - 1, 2, 0);
    assert_int_equal(outcome(w, T_DISCARD, 0, 16), IOERR);
    assert_int_equal(outcome(w, T_WRITE_ZEROES, 0, 16), IOERR);
    put_range(w, 0, 1, 1); /* a discard has no such flag */
    assert_int_equal(outcome(w, T_DISCARD, 0, 16), UNSUPP);
    put_range(w, 0, 1, 2);
    assert_int_equal(outcome(w, T_WRITE_ZEROES, 0, 16), UNSUPP);
    assert_int_equal(outcome(w, T_DISCARD, 0, 32), UNSUPP); /* more ranges than were offered */
    assert_int_equal(w->fake->discards, 1);
}

static void requests_end_in_the_order_of_the_disk(void **state)
{
    struct world *w = *state;
    unsigned status;
    uint32_t written;
    fake_set_stall(w->fake, true);
    ask(w, 0, T_IN, 0, SECTOR);
    fake_wait_stalled(w->fake, 1);
    fake_let_others_pass(w->fake);
    ask(w, 1, T_IN, 1, SECTOR);
    assert_int_equal(answer(w, &status, &written), 1);
    assert_int_equal(status, OK);
    fake_set_stall(w->fake, false);
    assert_int_equal(answer(w, &status, &written), 0);
    assert_int_equal(status, OK);
}

static void reading_marks_pages_when_the_data_is_there(void **state)
{
    struct world *w = *state;
    const struct ram_block *block = ram_block_by_name(w->ram, "ram");
    fake_set_stall(w->fake, true);
    ask(w, 0, T_IN, 0, SECTOR);
    fake_wait_stalled(w->fake, 1);
    dirty_start(w->ram->dirty, DIRTY_MIGRATION, false);
    fake_set_stall(w->fake, false);
    stand_still(w);
    assert_true(dirty_test(w->ram->dirty, DIRTY_MIGRATION, ram_page_of(block, DATA)));
    assert_true(dirty_test(w->ram->dirty, DIRTY_MIGRATION, ram_page_of(block, STATUS)));
    assert_true(dirty_test(w->ram->dirty, DIRTY_MIGRATION, ram_page_of(block, w->ring.used)));
    assert_false(dirty_test(w->ram->dirty, DIRTY_MIGRATION, ram_page_of(block, HEADERS)));
    dirty_stop(w->ram->dirty, DIRTY_MIGRATION);
}

static void every_queue_serves(void **state)
{
    struct world *w = *state;
    unsigned status;
    uint32_t written;
    dev_free(w->dev);
    w->dev = disk_new(w, (struct virtio_blk_options){ .queues = 3 }, 0, false);
    driver_begin(w->dev, FEATURES | UINT64_C(1) << 12);
    for (unsigned q = 0; q < 3; q++) {
        struct guest_ring ring = guest_ring(w->ram, q, NUM);
        driver_set_queue(w->dev, q, &ring);
    }
    driver_ready(w->dev);
    assert_int_equal(dev_read(w->dev, 0x122, 2), 3);
    for (unsigned q = 3; q-- > 0;) {
        w->ring = guest_ring(w->ram, q, NUM);
        make(w, 0, T_IN, q, SECTOR);
        publish(&w->ring, 0);
        driver_notify(w->dev, q);
        answer(w, &status, &written);
        assert_int_equal(status, OK);
        assert_int_equal(peek(w->ram, DATA + 9, 1), w->fake->data[q * SECTOR + 9]);
    }
}

static void a_legacy_driver_without_flush_has_what_it_wrote_when_it_is_answered(void **state)
{
    struct world *w = *state;
    dev_free(w->dev);
    w->dev = disk_new(w, (struct virtio_blk_options){ 0 }, 0, true);
    w->ring = guest_ring(w->ram, 0, NUM);
    mmio_put(w->dev, 0x070, 3);
    mmio_put(w->dev, 0x028, 4096);
    mmio_put(w->dev, 0x030, 0);
    mmio_put(w->dev, 0x038, NUM);
    mmio_put(w->dev, 0x040, (uint32_t)(w->ring.desc >> 12));
    mmio_put(w->dev, 0x070, 7);
    assert_int_equal(outcome(w, T_OUT, 0, SECTOR), OK);
    assert_int_equal(w->fake->flushes, 1);
    assert_int_equal(outcome(w, T_IN, 0, SECTOR), OK);
    assert_int_equal(w->fake->flushes, 1);
}

static void a_driver_may_switch_the_write_cache_off_and_on(void **state)
{
    struct world *w = *state;
    dev_write(w->dev, 0x120, 0, 1);
    assert_int_equal(dev_read(w->dev, 0x120, 1), 0);
    assert_int_equal(outcome(w, T_OUT, 0, SECTOR), OK);
    assert_int_equal(w->fake->flushes, 1);
    dev_write(w->dev, 0x120, 1, 1);
    assert_int_equal(outcome(w, T_OUT, 0, SECTOR), OK);
    assert_int_equal(w->fake->flushes, 1);
}

static void a_readonly_disk_says_so_and_stays_as_it_is(void **state)
{
    struct world *w = *state;
    world_end(w);
    block_make(w, &(struct block_options){ .name = "disk", .readonly = true });
    w->dev = disk_new(w, (struct virtio_blk_options){ 0 }, 0, false);
    bring_up(w, VIRTIO_F_VERSION_1 | UINT64_C(1) << 5);
    mmio_put(w->dev, 0x014, 0);
    assert_int_equal(mmio_get(w->dev, 0x010) & 0x6a20, 0x20);
    assert_int_equal(outcome(w, T_IN, 0, SECTOR), OK);
    assert_int_equal(outcome(w, T_OUT, 0, SECTOR), IOERR);
    put_range(w, 0, 1, 0);
    assert_int_equal(outcome(w, T_WRITE_ZEROES, 0, 16), IOERR);
    assert_int_equal(w->fake->writes, 0);
}

/* --- what breaks a device ---------------------------------------------------------------------------------- */

static void expect_broken(struct world *w)
{
    assert_int_equal(mmio_get(w->dev, 0x070) & 0x40, 0x40);
    bring_up(w, FEATURES); /* and a reset heals it */
    assert_int_equal(outcome(w, T_IN, 0, SECTOR), OK);
}

static void bad_chains_need_a_reset(void **state)
{
    struct world *w = *state;
    make(w, 0, T_IN, 0, SECTOR);
    set_desc(&w->ring, 1, DATA, SECTOR, D_WRITE | D_NEXT, 1); /* a loop */
    publish(&w->ring, 0);
    driver_notify(w->dev, 0);
    expect_broken(w);

    make(w, 0, T_IN, 0, SECTOR);
    set_desc(&w->ring, 0, HEADERS, 15, D_NEXT, 1); /* a short header */
    publish(&w->ring, 0);
    driver_notify(w->dev, 0);
    expect_broken(w);

    make(w, 0, T_OUT, 0, SECTOR);
    set_desc(&w->ring, 1, DATA, SECTOR, 0, 0); /* no status */
    publish(&w->ring, 0);
    driver_notify(w->dev, 0);
    expect_broken(w);

    make(w, 0, T_OUT, 0, SECTOR);
    set_desc(&w->ring, 2, STATUS, 0, D_WRITE, 0); /* a status of no bytes */
    publish(&w->ring, 0);
    driver_notify(w->dev, 0);
    expect_broken(w);

    make(w, 0, T_OUT, 0, SECTOR);
    set_desc(&w->ring, 1, GUEST_RAM_BASE - SECTOR, 2 * SECTOR, D_NEXT, 2); /* not in RAM */
    publish(&w->ring, 0);
    driver_notify(w->dev, 0);
    expect_broken(w);
}

static void a_device_that_breaks_lets_what_is_under_way_go_in_silence(void **state)
{
    struct world *w = *state;
    uint32_t id, written;
    fake_set_stall(w->fake, true);
    ask(w, 0, T_IN, 0, SECTOR);
    fake_wait_stalled(w->fake, 1);
    publish(&w->ring, 200); /* no such descriptor */
    driver_notify(w->dev, 0);
    assert_int_equal(mmio_get(w->dev, 0x070) & 0x40, 0x40);
    fake_set_stall(w->fake, false);
    stand_still(w);
    assert_false(take_used(&w->ring, &id, &written));
    go_on(w);
    expect_broken(w);
}

/* Resets, or takes the queue back, while a request is with the disk: the register write returns when it is not. */
struct taking {
    struct world *w;
    uint64_t offset;
    pthread_t thread;
};

static void *take_back(void *opaque)
{
    struct taking *t = opaque;
    mmio_put(t->w->dev, 0x030, 0);
    mmio_put(t->w->dev, t->offset, 0);
    return NULL;
}

static void check_taken_back(struct world *w, uint64_t offset)
{
    struct taking taking = { w, offset, 0 };
    uint32_t id, written;
    fake_set_stall(w->fake, true);
    ask(w, 0, T_IN, 3, SECTOR);
    fake_wait_stalled(w->fake, 1);
    assert_int_equal(pthread_create(&taking.thread, NULL, take_back, &taking), 0);
    fake_set_stall(w->fake, false);
    pthread_join(taking.thread, NULL);
    /* From here on nobody writes there any more. */
    poke(w->ram, DATA, 0x1122, 2);
    stand_still(w);
    assert_int_equal(peek(w->ram, DATA, 2), 0x1122);
    go_on(w);
    while (take_used(&w->ring, &id, &written))
        continue;
    bring_up(w, FEATURES);
    assert_int_equal(outcome(w, T_IN, 0, SECTOR), OK);
}

static void a_reset_waits_for_the_disk(void **state)
{
    check_taken_back(*state, 0x070);
}

static void a_queue_that_is_taken_back_waits_for_the_disk(void **state)
{
    check_taken_back(*state, 0x044);
}

/* --- failing disks ----------------------------------------------------------------------------------------- */

static void a_failure_is_reported_and_is_nobody_elses(void **state)
{
    struct world *w = *state;
    fail_next(w, -EIO);
    assert_int_equal(outcome(w, T_IN, 0, SECTOR), IOERR);
    assert_int_equal(outcome(w, T_IN, 0, SECTOR), OK);
    fail_next(w, -EIO);
    assert_int_equal(outcome(w, T_OUT, 0, SECTOR), IOERR);
    assert_int_equal(stops(w), 0);
}

static void a_failure_may_be_ignored(void **state)
{
    struct world *w = *state;
    other_device(w, (struct virtio_blk_options){ .on_write_error = BLK_IGNORE }, FEATURES);
    fail_next(w, -EIO);
    assert_int_equal(outcome(w, T_OUT, 0, SECTOR), OK);
    fail_next(w, -EIO);
    assert_int_equal(outcome(w, T_IN, 0, SECTOR), IOERR);
}

static void a_host_without_room_stops_the_machine_and_all_else_is_reported(void **state)
{
    struct world *w = *state;
    other_device(w, (struct virtio_blk_options){ .on_write_error = BLK_ENOSPC }, FEATURES);
    fail_next(w, -EIO);
    assert_int_equal(outcome(w, T_OUT, 0, SECTOR), IOERR);
    assert_int_equal(stops(w), 0);
    fail_next(w, -ENOSPC);
    ask(w, 0, T_OUT, 0, SECTOR);
    stand_still(w);
    assert_int_equal(stops(w), 1);
    assert_int_equal(peek(w->ram, STATUS, 1), 0xff);
    go_on(w);
    unsigned status;
    uint32_t written;
    assert_int_equal(answer(w, &status, &written), 0);
    assert_int_equal(status, OK);
}

static void what_failed_is_tried_again_where_the_guest_goes_on(void **state)
{
    struct world *w = *state;
    struct virtio_blk_options options = { .on_write_error = BLK_STOP, .serial = "moves" };
    uint32_t id, written;
    unsigned status;
    other_device(w, options, FEATURES);
    struct device *there = disk_new(w, options, 1, false);
    there->ops->drain(there);
    poke(w->ram, DATA + 0x4000, 0x5a5a, 2);
    fail_next(w, -EIO);
    ask(w, 1, T_OUT, 9, SECTOR);
    stand_still(w);
    assert_int_equal(stops(w), 1);
    ask(w, 0, T_IN, 3, SECTOR); /* put off by the pause */
    dev_move(w->dev, there);
    assert_false(take_used(&w->ring, &id, &written));
    there->ops->resume(there);
    there->ops->drain(there);
    assert_true(take_used(&w->ring, &id, &written));
    assert_true(take_used(&w->ring, &id, &written));
    status = (unsigned)(peek(w->ram, STATUS, 1) | peek(w->ram, STATUS + 1, 1));
    assert_int_equal(status, OK);
    assert_int_equal(le16_get(w->fake->data + 9 * SECTOR), 0x5a5a);
    assert_true(pin_high(&w->pins, 1));
    dev_free(there);
}

/* --- pause and move ---------------------------------------------------------------------------------------- */

static void a_pause_waits_for_the_disk_and_begins_nothing(void **state)
{
    struct world *w = *state;
    uint32_t id, written;
    for (unsigned n = 0; n < 2; n++)
        ask(w, n, T_IN, n, SECTOR);
    stand_still(w);
    dirty_seal(w->ram->dirty);
    for (unsigned n = 0; n < 2; n++)
        assert_true(take_used(&w->ring, &id, &written));
    unsigned calls = w->fake->calls;
    dirty_unseal(w->ram->dirty);
    publish(&w->ring, 0);
    driver_notify(w->dev, 0);
    assert_int_equal(w->fake->calls, calls);
    go_on(w);
    stand_still(w);
    assert_true(take_used(&w->ring, &id, &written));
}

static int load_refused(struct world *w, struct virtio_blk_options options)
{
    struct device *there = disk_new(w, options, 1, false);
    struct buf sent = dev_save(w->dev);
    int result = dev_load(there, &sent);
    buf_free(&sent);
    dev_free(there);
    return result;
}

static void another_disk_is_no_place_to_go_on(void **state)
{
    struct world *w = *state;
    struct fake_image *image = w->fake;
    stand_still(w);
    assert_int_equal(load_refused(w, (struct virtio_blk_options){ .serial = "one-disk" }), 0);
    assert_int_equal(load_refused(w, (struct virtio_blk_options){ .serial = "another" }), -EINVAL);
    assert_int_equal(load_refused(w, (struct virtio_blk_options){ .serial = "one-disk", .queues = 2 }), -EINVAL);
    image->image.bytes -= SECTOR;
    assert_int_equal(load_refused(w, (struct virtio_blk_options){ .serial = "one-disk" }), -EINVAL);
    image->image.bytes += SECTOR;
    image->image.sector_bytes = 4096;
    assert_int_equal(load_refused(w, (struct virtio_blk_options){ .serial = "one-disk" }), -EINVAL);
    image->image.sector_bytes = 512;
}

/* retries is the byte behind virtio's state, the disk and writeback: found by counting from the end. */
static void a_stream_cannot_invent_requests(void **state)
{
    struct world *w = *state;
    stand_still(w);
    struct buf sent = dev_save(w->dev);
    size_t retries = sent.size - 64 * 3 - 1;
    assert_int_equal(sent.data[retries - 1], 1); /* writeback */
    assert_int_equal(sent.data[retries], 0);
    sent.data[retries] = 1;
    assert_int_equal(dev_load(w->dev, &sent), -EPROTO);
    sent.data[retries] = 65;
    assert_int_equal(dev_load(w->dev, &sent), -EPROTO);
    buf_free(&sent);
    go_on(w);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_driver_learns_what_the_disk_is),
        T(what_is_written_is_on_the_disk_and_comes_back),
        T(segments_may_be_cut_anywhere),
        T(the_serial_number_is_told),
        T(ranges_outside_the_disk_and_parts_of_sectors_are_errors),
        T(ranges_are_discarded_and_zeroed),
        T(requests_end_in_the_order_of_the_disk),
        T(reading_marks_pages_when_the_data_is_there),
        T(every_queue_serves),
        T(a_legacy_driver_without_flush_has_what_it_wrote_when_it_is_answered),
        T(a_driver_may_switch_the_write_cache_off_and_on),
        T(a_readonly_disk_says_so_and_stays_as_it_is),
        T(bad_chains_need_a_reset),
        T(a_device_that_breaks_lets_what_is_under_way_go_in_silence),
        T(a_reset_waits_for_the_disk),
        T(a_queue_that_is_taken_back_waits_for_the_disk),
        T(a_failure_is_reported_and_is_nobody_elses),
        T(a_failure_may_be_ignored),
        T(a_host_without_room_stops_the_machine_and_all_else_is_reported),
        T(what_failed_is_tried_again_where_the_guest_goes_on),
        T(a_pause_waits_for_the_disk_and_begins_nothing),
        T(another_disk_is_no_place_to_go_on),
        T(a_stream_cannot_invent_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
