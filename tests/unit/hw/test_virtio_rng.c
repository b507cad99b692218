#include "tests/unit/hw/guest_ring.h"

#include "hw/virtio.h"

enum { NUM = 8 };
#define FEATURES (VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC)

struct world {
    struct pins pins;
    struct ram *ram;
    struct device *dev;
    struct guest_ring ring;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    pins_init(&w->pins);
    w->ram = guest_ram();
    w->ring = guest_ring(w->ram, 0, NUM);
    w->dev = virtio_mmio_new(7, w->ram, pin(&w->pins, 0), virtio_rng_new(NULL), false, NULL);
    assert_non_null(w->dev);
    driver_begin(w->dev, FEATURES);
    driver_set_queue(w->dev, 0, &w->ring);
    driver_ready(w->dev);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    dev_free(w->dev);
    ram_free(w->ram);
    free(w);
    return 0;
}

static void buffers_are_filled_and_given_back(void **state)
{
    struct world *w = *state;
    uint32_t id, written;
    uint8_t zero[64] = { 0 }, random[64];
    set_desc(&w->ring, 2, GUEST_DATA, 32, D_WRITE | D_NEXT, 5);
    set_desc(&w->ring, 5, GUEST_DATA + 32, 32, D_WRITE, 0);
    publish(&w->ring, 2);
    driver_notify(w->dev, 0);
    assert_true(take_used(&w->ring, &id, &written));
    assert_int_equal(id, 2);
    assert_int_equal(written, 64);
    assert_true(ram_read(w->ram, GUEST_DATA, random, sizeof(random)));
    assert_memory_not_equal(random, zero, 32);
    assert_memory_not_equal(random + 32, zero, 32);
    assert_int_equal(peek(w->ram, GUEST_DATA + 64, 8), 0);
    assert_true(pin_high(&w->pins, 0));
    assert_int_equal(mmio_get(w->dev, 0x008), 4);
}

static void a_huge_buffer_gets_a_part(void **state)
{
    struct world *w = *state;
    uint32_t id, written;
    set_desc(&w->ring, 0, GUEST_DATA, 0x80000, D_WRITE, 0);
    publish(&w->ring, 0);
    driver_notify(w->dev, 0);
    assert_true(take_used(&w->ring, &id, &written));
    assert_true(written > 0 && written <= 4096);
    assert_int_equal(peek(w->ram, GUEST_DATA + written, 8), 0);
}

static void a_looping_ring_needs_reset(void **state)
{
    struct world *w = *state;
    uint32_t id, written;
    set_desc(&w->ring, 0, GUEST_DATA, 8, D_WRITE | D_NEXT, 0);
    publish(&w->ring, 0);
    driver_notify(w->dev, 0);
    assert_false(take_used(&w->ring, &id, &written));
    assert_int_equal(mmio_get(w->dev, 0x070) & 0x40, 0x40);
    assert_true(pin_high(&w->pins, 0));
}

static void a_buffer_for_reading_comes_back_empty(void **state)
{
    struct world *w = *state;
    uint32_t id, written;
    set_desc(&w->ring, 0, GUEST_DATA, 8, 0, 0);
    publish(&w->ring, 0);
    driver_notify(w->dev, 0);
    assert_true(take_used(&w->ring, &id, &written));
    assert_int_equal(written, 0);
}

static void work_put_off_by_a_pause_is_done_at_resume_even_elsewhere(void **state)
{
    struct world *w = *state;
    uint32_t id, written;
    struct device *there = virtio_mmio_new(7, w->ram, pin(&w->pins, 1), virtio_rng_new(NULL), false, NULL);
    w->dev->ops->drain(w->dev);
    there->ops->drain(there);
    set_desc(&w->ring, 0, GUEST_DATA, 8, D_WRITE, 0);
    publish(&w->ring, 0);
    driver_notify(w->dev, 0);
    dev_move(w->dev, there);
    assert_false(take_used(&w->ring, &id, &written));
    there->ops->resume(there);
    assert_true(take_used(&w->ring, &id, &written));
    assert_int_equal(written, 8);
    assert_true(pin_high(&w->pins, 1));
    dev_free(there);
}

static void filling_marks_pages_dirty(void **state)
{
    struct world *w = *state;
    const struct ram_block *block = ram_block_by_name(w->ram, "ram");
    set_desc(&w->ring, 0, GUEST_DATA, 8, D_WRITE, 0);
    publish(&w->ring, 0);
    dirty_start(w->ram->dirty, DIRTY_MIGRATION, false);
    driver_notify(w->dev, 0);
    assert_true(dirty_test(w->ram->dirty, DIRTY_MIGRATION, ram_page_of(block, GUEST_DATA)));
    assert_true(dirty_test(w->ram->dirty, DIRTY_MIGRATION, ram_page_of(block, w->ring.used)));
    assert_false(dirty_test(w->ram->dirty, DIRTY_MIGRATION, ram_page_of(block, w->ring.desc)));
    dirty_stop(w->ram->dirty, DIRTY_MIGRATION);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(buffers_are_filled_and_given_back),
        T(a_huge_buffer_gets_a_part),
        T(a_looping_ring_needs_reset),
        T(a_buffer_for_reading_comes_back_empty),
        T(work_put_off_by_a_pause_is_done_at_resume_even_elsewhere),
        T(filling_marks_pages_dirty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
