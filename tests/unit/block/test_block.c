#include "tests/unit/block/fake_image.h"

#include <pthread.h>
#include <stdatomic.h>

enum { SECTOR = 512 };

struct world {
    struct fake_image *fake;
    struct block *block;
};

/* A request that somebody waits for. */
struct wait {
    struct block_request request; /* first */
    struct lock lock;
    struct cond changed;
    bool ended;
    int result;
    pthread_t thread;
    struct iovec iov[2];
    uint8_t data[FAKE_BYTES];
};

static void wait_done(struct block_request *request, int result)
{
    struct wait *w = (struct wait *)request;
    lock(&w->lock);
    w->ended = true;
    w->result = result;
    w->thread = pthread_self();
    cond_broadcast(&w->changed);
    unlock(&w->lock);
}

static struct wait *wait_new(enum block_op op, uint64_t offset, uint64_t bytes)
{
    struct wait *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    lock_init(&w->lock, LOCK_LEAF);
    cond_init(&w->changed);
    /* In two pieces that do not end with a sector. */
    w->iov[0] = (struct iovec){ w->data, bytes / 3 };
    w->iov[1] = (struct iovec){ w->data + bytes / 3, bytes - bytes / 3 };
    w->request = (struct block_request){ .op = op, .offset = offset, .bytes = bytes, .done = wait_done };
    if (op == BLOCK_READ || op == BLOCK_WRITE) {
        w->request.iov = w->iov;
        w->request.iovs = 2;
    }
    return w;
}

static int wait_end(struct wait *w)
{
    lock(&w->lock);
    while (!w->ended)
        cond_wait(&w->changed, &w->lock);
    unlock(&w->lock);
    return w->result;
}

static void wait_free(struct wait *w)
{
    cond_destroy(&w->changed);
    lock_destroy(&w->lock);
    free(w);
}

static int once(struct block *block, enum block_op op, uint64_t offset, uint64_t bytes, bool unmap)
{
    struct wait *w = wait_new(op, offset, bytes);
    memset(w->data, 0xaa, sizeof(w->data));
    w->request.unmap = unmap;
    block_submit(block, &w->request);
    int result = wait_end(w);
    wait_free(w);
    return result;
}

static void open_with(struct world *w, const struct block_options *options)
{
    w->fake = fake_image_new();
    assert_int_equal(block_new(&w->fake->image, options, &w->block, NULL), 0);
    assert_int_equal(block_take(w->block, NULL), 0);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    open_with(w, &(struct block_options){ .name = "disk", .discard = true });
    *state = w;
    return 0;
}

static void close_world(struct world *w)
{
    block_free(w->block);
    assert_int_equal(w->fake->frees, 1);
    fake_image_free(w->fake);
}

static int teardown(void **state)
{
    close_world(*state);
    free(*state);
    return 0;
}

static void other_kind(struct world *w, const struct block_options *options)
{
    close_world(w);
    open_with(w, options);
}

static void what_was_written_is_read_on_a_thread_of_the_disk(void **state)
{
    struct world *w = *state;
    struct wait *out = wait_new(BLOCK_WRITE, 3 * SECTOR, 5 * SECTOR),
                *in = wait_new(BLOCK_READ, 2 * SECTOR, 8 * SECTOR);
    for (unsigned i = 0; i < 5 * SECTOR; i++)
        out->data[i] = (uint8_t)(i * 7);
    block_submit(w->block, &out->request);
    assert_int_equal(wait_end(out), 0);
    assert_false(pthread_equal(out->thread, pthread_self()));
    block_submit(w->block, &in->request);
    assert_int_equal(wait_end(in), 0);
    assert_memory_equal(in->data + SECTOR, out->data, 5 * SECTOR);
    assert_memory_equal(in->data, w->fake->data + 2 * SECTOR, 8 * SECTOR);
    struct block_stats stats;
    block_stats(w->block, &stats);
    assert_int_equal(stats.reads, 1);
    assert_int_equal(stats.writes, 1);
    assert_int_equal(stats.read_bytes, 8 * SECTOR);
    assert_int_equal(stats.written_bytes, 5 * SECTOR);
    assert_int_equal(stats.failed, 0);
    wait_free(out);
    wait_free(in);
}

static void short_and_interrupted_steps_add_up_to_the_whole(void **state)
{
    struct world *w = *state;
    struct wait *out = wait_new(BLOCK_WRITE, 0, 9 * SECTOR), *in = wait_new(BLOCK_READ, 0, 9 * SECTOR);
    for (unsigned i = 0; i < 9 * SECTOR; i++)
        out->data[i] = (uint8_t)(i * 13);
    w->fake->step_bytes = 700;
    w->fake->interrupts = 3;
    block_submit(w->block, &out->request);
    assert_int_equal(wait_end(out), 0);
    assert_memory_equal(w->fake->data, out->data, 9 * SECTOR);
    assert_int_equal(w->fake->calls, (9 * SECTOR + 699) / 700);
    w->fake->interrupts = 3;
    block_submit(w->block, &in->request);
    assert_int_equal(wait_end(in), 0);
    assert_memory_equal(in->data, out->data, 9 * SECTOR);
    wait_free(out);
    wait_free(in);
}

static void the_nth_failure_is_that_requests_alone(void **state)
{
    struct world *w = *state;
    w->fake->fail_call = 3;
    w->fake->fail_code = -EIO;
    for (unsigned i = 1; i <= 5; i++)
        assert_int_equal(once(w->block, i % 2 ? BLOCK_WRITE : BLOCK_READ, 0, SECTOR, false), i == 3 ? -EIO : 0);
    struct block_stats stats;
    block_stats(w->block, &stats);
    assert_int_equal(stats.failed, 1);
}

static void a_failure_in_the_middle_fails_the_whole(void **state)
{
    struct world *w = *state;
    w->fake->step_bytes = SECTOR;
    w->fake->fail_call = 2;
    w->fake->fail_code = -ENOSPC;
    assert_int_equal(once(w->block, BLOCK_WRITE, 0, 4 * SECTOR, false), -ENOSPC);
    assert_int_equal(w->fake->calls, 2);
}

static void an_image_that_was_cut_short_is_an_error_and_no_endless_loop(void **state)
{
    struct world *w = *state;
    w->fake->cut = 6 * SECTOR;
    assert_int_equal(once(w->block, BLOCK_READ, 4 * SECTOR, 2 * SECTOR, false), 0);
    assert_int_equal(once(w->block, BLOCK_READ, 4 * SECTOR, 4 * SECTOR, false), -EIO);
}

static void nothing_happens_outside_the_disk(void **state)
{
    struct world *w = *state;
    static const enum block_op ops[] = { BLOCK_READ, BLOCK_WRITE, BLOCK_DISCARD, BLOCK_ZERO };
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(once(w->block, ops[i], FAKE_BYTES - SECTOR, 2 * SECTOR, false), -EINVAL);
        assert_int_equal(once(w->block, ops[i], UINT64_MAX - SECTOR + 1, SECTOR, false), -EINVAL);
        assert_int_equal(once(w->block, ops[i], FAKE_BYTES, 0, false), 0);
    }
    assert_int_equal(w->fake->calls + w->fake->discards + w->fake->zeros, 0);
}

static void one_that_stalls_holds_up_neither_its_submitter_nor_the_others(void **state)
{
    struct world *w = *state;
    struct wait *stalled = wait_new(BLOCK_READ, 0, SECTOR);
    fake_set_stall(w->fake, true);
    block_submit(w->block, &stalled->request);
    fake_wait_stalled(w->fake, 1);
    fake_let_others_pass(w->fake);
    assert_int_equal(once(w->block, BLOCK_READ, 0, SECTOR, false), 0);
    assert_int_equal(once(w->block, BLOCK_WRITE, 0, SECTOR, false), 0);
    fake_set_stall(w->fake, false);
    assert_int_equal(wait_end(stalled), 0);
    wait_free(stalled);
}

static void more_requests_than_threads_all_end(void **state)
{
    struct world *w = *state;
    struct wait *wait[5 * BLOCK_THREADS];
    fake_set_stall(w->fake, true);
    for (unsigned i = 0; i < 5 * BLOCK_THREADS; i++) {
        wait[i] = wait_new(BLOCK_READ, i * SECTOR, SECTOR);
        block_submit(w->block, &wait[i]->request);
    }
    fake_wait_stalled(w->fake, BLOCK_THREADS);
    fake_set_stall(w->fake, false);
    for (unsigned i = 0; i < 5 * BLOCK_THREADS; i++) {
        assert_int_equal(wait_end(wait[i]), 0);
        assert_memory_equal(wait[i]->data, w->fake->data + i * SECTOR, SECTOR);
        wait_free(wait[i]);
    }
}

static void after_a_failed_flush_no_later_one_says_that_all_is_well(void **state)
{
    struct world *w = *state;
    struct err err = { 0 };
    assert_int_equal(once(w->block, BLOCK_FLUSH, 0, 0, false), 0);
    w->fake->fail_call = 2;
    w->fake->fail_code = -EIO;
    assert_int_equal(once(w->block, BLOCK_FLUSH, 0, 0, false), -EIO);
    assert_int_equal(once(w->block, BLOCK_FLUSH, 0, 0, false), -EIO);
    assert_int_equal(block_flush(w->block, &err), -EIO);
    assert_non_null(strstr(err.text, "disk 'disk'"));
}

static void a_flush_that_lacked_room_may_be_tried_again(void **state)
{
    struct world *w = *state;
    w->fake->fail_call = 1;
    w->fake->fail_code = -ENOSPC;
    assert_int_equal(once(w->block, BLOCK_FLUSH, 0, 0, false), -ENOSPC);
    assert_int_equal(once(w->block, BLOCK_FLUSH, 0, 0, false), 0);
}

static void an_unsafe_disk_is_flushed_at_hand_over_only(void **state)
{
    struct world *w = *state;
    other_kind(w, &(struct block_options){ .name = "disk", .cache = BLOCK_UNSAFE });
    assert_int_equal(once(w->block, BLOCK_FLUSH, 0, 0, false), 0);
    assert_int_equal(w->fake->flushes, 0);
    assert_int_equal(block_flush(w->block, NULL), 0);
    assert_int_equal(w->fake->flushes, 1);
}

static void a_readonly_disk_is_never_written(void **state)
{
    struct world *w = *state;
    other_kind(w, &(struct block_options){ .name = "disk", .readonly = true, .discard = true });
    w->fake->can_discard = w->fake->can_zero = true;
    assert_int_equal(once(w->block, BLOCK_WRITE, 0, SECTOR, false), -EROFS);
    assert_int_equal(once(w->block, BLOCK_DISCARD, 0, SECTOR, false), -EROFS);
    assert_int_equal(once(w->block, BLOCK_ZERO, 0, SECTOR, true), -EROFS);
    assert_int_equal(once(w->block, BLOCK_FLUSH, 0, 0, false), 0);
    assert_int_equal(once(w->block, BLOCK_READ, 0, SECTOR, false), 0);
    assert_int_equal(w->fake->writes + w->fake->discards + w->fake->zeros + w->fake->flushes, 0);
}

static void a_discard_is_a_hint(void **state)
{
    struct world *w = *state;
    assert_int_equal(once(w->block, BLOCK_DISCARD, 0, SECTOR, false), 0); /* the image cannot */
    w->fake->can_discard = true;
    assert_int_equal(once(w->block, BLOCK_DISCARD, 0, SECTOR, false), 0);
    assert_int_equal(w->fake->discards, 1);
    other_kind(w, &(struct block_options){ .name = "disk" });
    w->fake->can_discard = true;
    assert_int_equal(once(w->block, BLOCK_DISCARD, 0, SECTOR, false), 0); /* the user does not want it */
    assert_int_equal(w->fake->discards, 0);
}

static void zeros_are_written_by_hand_where_the_image_cannot_and_holes_stay_holes(void **state)
{
    struct world *w = *state;
    static const uint8_t zero[40 * SECTOR];
    w->fake->hole = 10 * SECTOR;
    w->fake->hole_bytes = 20 * SECTOR;
    uint8_t before = w->fake->data[15 * SECTOR]; /* a hole that were written would be zero here */
    assert_true(before != 0);
    assert_int_equal(once(w->block, BLOCK_ZERO, 2 * SECTOR, 40 * SECTOR, false), 0);
    assert_memory_equal(w->fake->data + 2 * SECTOR, zero, 8 * SECTOR);
    assert_int_equal(w->fake->data[15 * SECTOR], before);
    assert_memory_equal(w->fake->data + 30 * SECTOR, zero, 12 * SECTOR);
    assert_int_not_equal(w->fake->data[SECTOR + 5], 0);
    assert_int_not_equal(w->fake->data[42 * SECTOR + 5], 0);
    w->fake->can_zero = true;
    assert_int_equal(once(w->block, BLOCK_ZERO, 0, SECTOR, false), 0);
    assert_int_equal(w->fake->zeros, 1);
}

static void an_image_that_another_has_is_not_taken(void **state)
{
    struct world *w = *state;
    struct err err = { 0 };
    block_let_go(w->block);
    assert_false(block_taken(w->block));
    w->fake->taken_away = true;
    assert_int_equal(block_take(w->block, &err), -EBUSY);
    assert_non_null(strstr(err.text, "disk 'disk'"));
    assert_false(block_taken(w->block));
    w->fake->taken_away = false;
    assert_int_equal(block_take(w->block, NULL), 0);
    assert_true(block_taken(w->block));
}

static int grow(struct block_image *image, struct err *err)
{
    (void)err;
    image->bytes += SECTOR;
    return 0;
}

static void an_image_that_changed_its_size_meanwhile_is_not_taken(void **state)
{
    struct world *w = *state;
    struct block_driver grows = fake_driver;
    struct err err = { 0 };
    block_let_go(w->block);
    grows.take = grow;
    w->fake->image.driver = &grows;
    assert_int_equal(block_take(w->block, &err), -ESTALE);
    assert_false(block_taken(w->block));
    assert_int_equal(block_bytes(w->block), FAKE_BYTES);
    w->fake->image.driver = &fake_driver;
}

struct many {
    struct block_request request; /* first */
    _Atomic unsigned *ended, *failed;
};

static void many_done(struct block_request *request, int result)
{
    struct many *one = (struct many *)request;
    atomic_fetch_add(one->failed, result != 0);
    atomic_fetch_add(one->ended, 1);
}

/* Forty of them would take ten seconds, which is the patience for the one reading. */
static void writes_that_are_held_let_others_pass_and_all_go_when_nobody_holds_them(void **state)
{
    enum { MANY = 40 };
    static uint8_t data[SECTOR];
    struct world *w = *state;
    struct many many[MANY];
    struct iovec iov[MANY];
    _Atomic unsigned ended = 0, failed = 0;
    block_hold_writes(w->block, 1);
    for (unsigned i = 0; i < MANY; i++) {
        iov[i] = (struct iovec){ data, SECTOR };
        many[i] = (struct many){ .ended = &ended, .failed = &failed };
        many[i].request = (struct block_request){ .op = BLOCK_WRITE,
                                                  .bytes = SECTOR,
                                                  .offset = (uint64_t)i * SECTOR,
                                                  .iov = &iov[i],
                                                  .iovs = 1,
                                                  .done = many_done };
        block_submit(w->block, &many[i].request);
    }
    assert_int_equal(once(w->block, BLOCK_READ, 0, SECTOR, false), 0);
    assert_int_equal(once(w->block, BLOCK_FLUSH, 0, 0, false), 0);
    assert_true(atomic_load(&ended) < MANY);
    assert_true(block_held_ns(w->block) > 0);
    block_hold_writes(w->block, 0);
    assert_int_equal(once(w->block, BLOCK_WRITE, 0, SECTOR, false), 0);
    close_world(w); /* waits for them */
    assert_int_equal(atomic_load(&ended), MANY);
    assert_int_equal(atomic_load(&failed), 0);
    open_with(w, &(struct block_options){ .name = "disk", .discard = true });
}

static void what_is_copied_beside_requests_keeps_to_the_disk(void **state)
{
    struct world *w = *state;
    static uint8_t data[FAKE_BYTES];
    assert_int_equal(block_copy_in(w->block, FAKE_BYTES - SECTOR, data, 2 * SECTOR), -EINVAL);
    assert_int_equal(block_make_zero(w->block, FAKE_BYTES, SECTOR), -EINVAL);
    w->fake->interrupts = 1;
    w->fake->step_bytes = 1000;
    assert_int_equal(block_copy_out(w->block, SECTOR, data, 8 * SECTOR), 0);
    assert_memory_equal(data, w->fake->data + SECTOR, 8 * SECTOR);
    block_let_go(w->block);
    assert_int_equal(block_copy_in(w->block, 0, data, SECTOR), -EROFS); /* it may be another program's */
    assert_int_equal(block_take(w->block, NULL), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(what_was_written_is_read_on_a_thread_of_the_disk),
        T(short_and_interrupted_steps_add_up_to_the_whole),
        T(the_nth_failure_is_that_requests_alone),
        T(a_failure_in_the_middle_fails_the_whole),
        T(an_image_that_was_cut_short_is_an_error_and_no_endless_loop),
        T(nothing_happens_outside_the_disk),
        T(one_that_stalls_holds_up_neither_its_submitter_nor_the_others),
        T(more_requests_than_threads_all_end),
        T(after_a_failed_flush_no_later_one_says_that_all_is_well),
        T(a_flush_that_lacked_room_may_be_tried_again),
        T(an_unsafe_disk_is_flushed_at_hand_over_only),
        T(a_readonly_disk_is_never_written),
        T(a_discard_is_a_hint),
        T(zeros_are_written_by_hand_where_the_image_cannot_and_holes_stay_holes),
        T(an_image_that_another_has_is_not_taken),
        T(an_image_that_changed_its_size_meanwhile_is_not_taken),
        T(writes_that_are_held_let_others_pass_and_all_go_when_nobody_holds_them),
        T(what_is_copied_beside_requests_keeps_to_the_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
