#include "tests/unit/block/fake_image.h"

#include "migration/source_disk.h"
#include "migration/threads/scan.h"

enum { UNIT = 4096, UNITS = FAKE_BYTES / UNIT };

/* A disk on a scripted image, and one request of its guest. */
struct world {
    struct fake_image *fake;
    struct block *block;
    struct source *source;
    struct block_request request;
    struct iovec iov;
    uint8_t data[FAKE_BYTES];
    struct lock lock;
    struct cond changed;
    bool ended;
    int result;
    uint64_t dirty_when_told;
};

static void told(struct block_request *request, int result)
{
    struct world *w = (struct world *)((char *)request - offsetof(struct world, request));
    lock(&w->lock);
    w->ended = true;
    w->result = result;
    w->dirty_when_told = w->source->ops->dirty(w->source);
    cond_broadcast(&w->changed);
    unlock(&w->lock);
}

static void submit(struct world *w, enum block_op op, uint64_t offset, uint64_t bytes)
{
    w->ended = false;
    memset(w->data, 0xbb, sizeof(w->data));
    w->iov = (struct iovec){ w->data, bytes };
    w->request = (struct block_request){ .op = op, .offset = offset, .bytes = bytes, .done = told, .unmap = true };
    if (op == BLOCK_READ || op == BLOCK_WRITE) {
        w->request.iov = &w->iov;
        w->request.iovs = 1;
    }
    block_submit(w->block, &w->request);
}

static int wait_told(struct world *w)
{
    lock(&w->lock);
    while (!w->ended)
        cond_wait(&w->changed, &w->lock);
    unlock(&w->lock);
    return w->result;
}

static int once(struct world *w, enum block_op op, uint64_t offset, uint64_t bytes)
{
    submit(w, op, offset, bytes);
    return wait_told(w);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    w->fake = fake_image_new();
    lock_init(&w->lock, LOCK_LEAF);
    cond_init(&w->changed);
    assert_int_equal(
        block_new(&w->fake->image, &(struct block_options){ .name = "disk", .discard = true }, &w->block, NULL), 0);
    assert_int_equal(block_take(w->block, NULL), 0);
    assert_int_equal(source_disk_new(w->block, 2, DISK_FULL, &w->source, NULL), 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    source_disk_free(w->source);
    block_free(w->block);
    fake_image_free(w->fake);
    cond_destroy(&w->changed);
    lock_destroy(&w->lock);
    free(w);
    return 0;
}

/* As a worker does it: take, then read. */
static uint64_t harvest(struct world *w, uint8_t *out)
{
    uint64_t units = w->source->ops->take(w->source, 0);
    assert_int_equal(w->source->ops->fetch(w->source, 0, units, out), 0);
    return units;
}

static uint8_t copy[FAKE_BYTES] __attribute__((aligned(4096)));

static void everything_travels_once_and_is_what_the_image_has(void **state)
{
    struct world *w = *state;
    assert_int_equal(source_disk_track(w->source, NULL), 0);
    assert_int_equal(w->source->ops->dirty(w->source), UNITS);
    assert_true(harvest(w, copy) == (1 << UNITS) - 1);
    assert_memory_equal(copy, w->fake->data, FAKE_BYTES);
    assert_int_equal(w->source->ops->dirty(w->source), 0);
    assert_int_equal(w->source->ops->next(w->source, 0), 1);
}

static void a_hole_is_neither_marked_nor_read(void **state)
{
    struct world *w = *state;
    w->fake->hole = 3 * UNIT - 100;
    w->fake->hole_bytes = 5 * UNIT;
    assert_int_equal(source_disk_track(w->source, NULL), 0);
    assert_int_equal(w->source->ops->dirty(w->source), UNITS - 4); /* of 2 and of 7 a piece is data */
    assert_true(w->source->ops->take(w->source, 0) == (0xffff & ~(0xf << 3)));
    assert_true(w->source->ops->blank(w->source, 0) == 0xf << 3);
    assert_int_equal(once(w, BLOCK_WRITE, 4 * UNIT, 512), 0);
    assert_true(w->source->ops->take(w->source, 0) == 1 << 4);
}

static void what_the_guest_writes_is_dirty_before_it_hears_that_it_is_written(void **state)
{
    struct world *w = *state;
    w->fake->hole_bytes = FAKE_BYTES;
    w->fake->can_discard = w->fake->can_zero = true;
    assert_int_equal(source_disk_track(w->source, NULL), 0);
    assert_int_equal(once(w, BLOCK_READ, 0, UNIT), 0);
    assert_int_equal(once(w, BLOCK_FLUSH, 0, 0), 0);
    assert_int_equal(w->dirty_when_told, 0);
    assert_int_equal(once(w, BLOCK_WRITE, UNIT - 512, 1024), 0);
    assert_int_equal(w->dirty_when_told, 2);
    assert_int_equal(once(w, BLOCK_DISCARD, 4 * UNIT, UNIT), 0);
    assert_int_equal(w->dirty_when_told, 3);
    assert_int_equal(once(w, BLOCK_ZERO, 6 * UNIT, UNIT), 0);
    assert_int_equal(w->dirty_when_told, 4);
    w->fake->fail_call = w->fake->calls + 1;
    w->fake->fail_code = -EIO;
    assert_int_equal(once(w, BLOCK_WRITE, 8 * UNIT, UNIT), -EIO); /* nobody knows what of it was done */
    assert_int_equal(w->dirty_when_told, 5);
    assert_true(w->source->ops->take(w->source, 0) == 0x153);
}

/* The write's first half is there, and its second not yet, when the unit is taken and read. */
static void a_reading_that_a_write_tore_is_made_good_by_the_next_round(void **state)
{
    struct world *w = *state;
    struct fake_image *fake = w->fake;
    assert_int_equal(source_disk_track(w->source, NULL), 0);
    harvest(w, copy);
    fake->step_bytes = UNIT / 2;
    fake_set_stall(fake, true);
    submit(w, BLOCK_WRITE, 5 * UNIT, UNIT);
    fake_wait_stalled(fake, 1);
    lock(&fake->lock);
    fake->releases++; /* the first step goes, the second stalls */
    cond_broadcast(&fake->changed);
    while (fake->writes < 1 || fake->stalled < 1)
        cond_wait(&fake->changed, &fake->lock);
    unlock(&fake->lock);
    fake_let_others_pass(fake);
    assert_int_equal(w->source->ops->take(w->source, 0), 0); /* this round has nothing of it */
    assert_int_equal(w->source->ops->copy(w->source, 5, copy), 0);
    assert_true(copy[0] == 0xbb && copy[UNIT - 1] != 0xbb); /* torn */
    fake_set_stall(fake, false);
    assert_int_equal(wait_told(w), 0);
    assert_true(harvest(w, copy) == 1 << 5);
    assert_true(copy[0] == 0xbb && copy[UNIT - 1] == 0xbb);
}

static void a_write_that_is_under_way_when_tracking_begins_is_marked_when_it_ends(void **state)
{
    struct world *w = *state;
    fake_set_stall(w->fake, true);
    submit(w, BLOCK_WRITE, 9 * UNIT, UNIT);
    fake_wait_stalled(w->fake, 1);
    fake_let_others_pass(w->fake);
    assert_int_equal(source_disk_track(w->source, NULL), 0);
    harvest(w, copy); /* as it was before that write */
    assert_true(copy[9 * UNIT] != 0xbb);
    fake_set_stall(w->fake, false);
    assert_int_equal(wait_told(w), 0);
    assert_true(harvest(w, copy) == 1 << 9);
    assert_int_equal(copy[0], 0xbb);
}

static void whoever_ends_the_tracking_leaves_the_disk_as_it_was(void **state)
{
    struct world *w = *state;
    assert_int_equal(source_disk_track(w->source, NULL), 0);
    source_disk_free(w->source);
    assert_int_equal(source_disk_new(w->block, 2, DISK_FULL, &w->source, NULL), 0);
    assert_int_equal(once(w, BLOCK_WRITE, 0, UNIT), 0);
    assert_int_equal(w->dirty_when_told, 0);
    assert_int_equal(source_disk_track(w->source, NULL), 0); /* and another may begin */
    assert_int_equal(w->source->ops->dirty(w->source), UNITS);
}

static void a_disk_that_cannot_be_read_says_so_and_a_short_end_is_filled_with_zeros(void **state)
{
    struct world *w = *state;
    struct digest digest;
    struct scanned scanned;
    struct err err = { 0 };
    assert_int_equal(source_disk_track(w->source, NULL), 0);
    assert_int_equal(digest_new(&digest, UNITS, NULL, NULL), 0);
    w->fake->fail_call = w->fake->calls + 1;
    w->fake->fail_code = -EIO;
    assert_int_equal(scan_step(w->source, &digest, 0, 0x7, copy, &scanned, &err), -EIO);
    assert_non_null(strstr(err.text, "disk 'disk'"));
    digest_destroy(&digest);

    source_disk_free(w->source);
    w->fake->image.bytes = FAKE_BYTES - UNIT + 512;
    assert_int_equal(source_disk_new(w->block, 2, DISK_FULL, &w->source, NULL), 0);
    assert_int_equal(w->source->units, UNITS);
    memset(copy, 1, UNIT);
    assert_int_equal(w->source->ops->copy(w->source, UNITS - 1, copy), 0);
    assert_memory_equal(copy, w->fake->data + FAKE_BYTES - UNIT, 512);
    for (unsigned i = 512; i < UNIT; i++)
        assert_int_equal(copy[i], 0);
    w->fake->image.bytes = FAKE_BYTES;
}

static void zeros_between_data_leave_no_gap_in_what_is_sent(void **state)
{
    struct world *w = *state;
    struct digest digest;
    struct scanned scanned;
    assert_int_equal(source_disk_track(w->source, NULL), 0);
    assert_int_equal(digest_new(&digest, UNITS, NULL, NULL), 0);
    memset(w->fake->data + UNIT, 0, UNIT);
    memset(w->fake->data + 5 * UNIT, 0, UNIT);
    assert_int_equal(scan_step(w->source, &digest, 0, 0x6f, copy, &scanned, NULL), 0);
    assert_true(scanned.data == 0x4d && scanned.zero == 0x22 && scanned.units == 4);
    assert_memory_equal(copy, w->fake->data, UNIT);
    assert_memory_equal(copy + UNIT, w->fake->data + 2 * UNIT, 2 * UNIT);
    assert_memory_equal(copy + 3 * UNIT, w->fake->data + 6 * UNIT, UNIT);
    digest_destroy(&digest);
}

static int go_on(void *opaque)
{
    (void)opaque;
    return 0;
}

static int stop(void *opaque)
{
    (void)opaque;
    return -ECANCELED;
}

static void an_image_that_is_loaded_is_empty_first_and_then_what_was_stored(void **state)
{
    static const uint8_t zeros[FAKE_BYTES];
    struct world *w = *state;
    uint8_t scratch[UNIT];
    memset(copy, 7, sizeof(copy));
    assert_int_equal(source_disk_prepare(w->source, go_on, NULL, NULL), 0);
    assert_memory_equal(w->fake->data, zeros, FAKE_BYTES);
    assert_int_equal(w->source->ops->store_run(w->source, 2, 3, copy), 0);
    assert_int_equal(w->fake->data[2 * UNIT - 1], 0);
    assert_memory_equal(w->fake->data + 2 * UNIT, copy, 3 * UNIT);
    assert_int_equal(w->fake->data[5 * UNIT], 0);
    unsigned writes = w->fake->writes;
    assert_int_equal(w->source->ops->zero(w->source, 9), 0); /* it is */
    assert_int_equal(w->fake->writes, writes);
    assert_int_equal(w->source->ops->zero(w->source, 3), 0);
    assert_memory_equal(w->fake->data + 3 * UNIT, zeros, UNIT);
    assert_memory_equal(w->source->ops->peek(w->source, 4, scratch), copy, UNIT);
    w->fake->fail_call = w->fake->calls + 1;
    w->fake->fail_code = -ENOSPC;
    assert_int_equal(w->source->ops->store(w->source, 1, copy), -ENOSPC);
}

static void emptying_ends_when_nobody_wants_it_any_more(void **state)
{
    struct world *w = *state;
    assert_int_equal(source_disk_prepare(w->source, stop, NULL, NULL), -ECANCELED);
}

static void an_image_without_one_below_has_nothing_that_could_be_left_out(void **state)
{
    struct world *w = *state;
    struct err err = { 0 };
    source_disk_free(w->source);
    assert_int_equal(source_disk_new(w->block, 2, DISK_TOP, &w->source, NULL), 0);
    assert_int_equal(source_disk_track(w->source, &err), -EOPNOTSUPP);
    assert_non_null(strstr(err.text, "has no backing file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(everything_travels_once_and_is_what_the_image_has, setup, teardown),
        cmocka_unit_test_setup_teardown(a_hole_is_neither_marked_nor_read, setup, teardown),
        cmocka_unit_test_setup_teardown(what_the_guest_writes_is_dirty_before_it_hears_that_it_is_written, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_reading_that_a_write_tore_is_made_good_by_the_next_round, setup, teardown),
        cmocka_unit_test_setup_teardown(a_write_that_is_under_way_when_tracking_begins_is_marked_when_it_ends, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(whoever_ends_the_tracking_leaves_the_disk_as_it_was, setup, teardown),
        cmocka_unit_test_setup_teardown(a_disk_that_cannot_be_read_says_so_and_a_short_end_is_filled_with_zeros, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(zeros_between_data_leave_no_gap_in_what_is_sent, setup, teardown),
        cmocka_unit_test_setup_teardown(an_image_that_is_loaded_is_empty_first_and_then_what_was_stored, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(emptying_ends_when_nobody_wants_it_any_more, setup, teardown),
        cmocka_unit_test_setup_teardown(an_image_without_one_below_has_nothing_that_could_be_left_out, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
