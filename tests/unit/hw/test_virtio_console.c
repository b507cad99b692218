#include "tests/unit/hw/guest_ring.h"
#include "tests/unit/hw/fake_chardev.h"

#include "hw/virtio.h"

enum { RX, TX, NUM = 8 };
#define FEATURES (VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX)

struct world {
    struct pins pins;
    struct ram *ram;
    struct chardev chardev, other;
    struct device *dev;
    struct guest_ring rx, tx;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    pins_init(&w->pins);
    w->ram = guest_ram();
    w->rx = guest_ring(w->ram, RX, NUM);
    w->tx = guest_ring(w->ram, TX, NUM);
    fake_open(&w->chardev);
    fake_open(&w->other);
    w->dev = virtio_mmio_new(7, w->ram, pin(&w->pins, 0), virtio_console_new(&w->chardev, NULL), false, NULL);
    assert_non_null(w->dev);
    driver_begin(w->dev, FEATURES);
    driver_set_queue(w->dev, RX, &w->rx);
    driver_set_queue(w->dev, TX, &w->tx);
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

static void print(struct world *w, struct device *dev, const char *text)
{
    assert_true(ram_write(w->ram, GUEST_DATA, text, strlen(text)));
    set_desc(&w->tx, 1, GUEST_DATA, (uint32_t)strlen(text), 0, 0);
    publish(&w->tx, 1);
    driver_notify(dev, TX);
}

static void offer(struct world *w, unsigned index, uint32_t bytes)
{
    set_desc(&w->rx, index, GUEST_DATA + 0x1000 * (index + 1), bytes, D_WRITE, 0);
    publish(&w->rx, index);
}

static void what_the_guest_writes_comes_out(void **state)
{
    struct world *w = *state;
    uint32_t id, written;
    print(w, w->dev, "hello");
    assert_string_equal(w->chardev.out, "hello");
    assert_true(take_used(&w->tx, &id, &written));
    assert_int_equal(id, 1);
    assert_int_equal(written, 0);
    assert_true(pin_high(&w->pins, 0));
    assert_int_equal(mmio_get(w->dev, 0x008), 3);
    assert_int_equal(mmio_get(w->dev, 0x104), 1);
}

static void a_full_host_end_holds_the_buffer_back(void **state)
{
    struct world *w = *state;
    uint32_t id, written;
    w->chardev.room = 2;
    print(w, w->dev, "abcdef");
    assert_string_equal(w->chardev.out, "ab");
    assert_false(take_used(&w->tx, &id, &written));
    driver_notify(w->dev, TX);
    fake_make_room(&w->chardev, 1);
    assert_false(take_used(&w->tx, &id, &written));
    fake_make_room(&w->chardev, 100);
    assert_string_equal(w->chardev.out, "abcdef");
    assert_true(take_used(&w->tx, &id, &written));
    assert_false(take_used(&w->tx, &id, &written));
}

static void input_fills_the_drivers_buffers(void **state)
{
    struct world *w = *state;
    uint32_t id, written;
    assert_int_equal(fake_type(&w->chardev, "early"), 0);
    unsigned accepted = w->chardev.accepted;
    offer(w, 0, 4);
    driver_notify(w->dev, RX);
    assert_true(w->chardev.accepted > accepted);
    assert_int_equal(fake_type(&w->chardev, "keyboard"), 4);
    assert_true(take_used(&w->rx, &id, &written));
    assert_int_equal(id, 0);
    assert_int_equal(written, 4);
    assert_int_equal(peek(w->ram, GUEST_DATA + 0x1000, 4), 0x6279656b);
    assert_true(pin_high(&w->pins, 0));
    assert_int_equal(fake_type(&w->chardev, "oard"), 0);
}

static void input_that_was_on_its_way_is_delivered_after_the_pause(void **state)
{
    struct world *w = *state;
    uint32_t id, written;
    offer(w, 0, 16);
    w->dev->ops->drain(w->dev);
    struct buf before = dev_save(w->dev);
    assert_int_equal(fake_type(&w->chardev, "x"), 0);
    w->chardev.client->receive(w->chardev.opaque, (const uint8_t *)"late", 4);
    struct buf after = dev_save(w->dev);
    assert_memory_equal(before.data, after.data, before.size);
    assert_false(take_used(&w->rx, &id, &written));
    w->dev->ops->resume(w->dev);
    assert_true(take_used(&w->rx, &id, &written));
    assert_int_equal(written, 4);
    buf_free(&before);
    buf_free(&after);
}

static void an_empty_buffer_does_not_stop_the_flow(void **state)
{
    struct world *w = *state;
    uint32_t id, written;
    offer(w, 0, 0);
    offer(w, 1, 8);
    driver_notify(w->dev, RX);
    assert_int_equal(fake_type(&w->chardev, "z"), 1);
    assert_true(take_used(&w->rx, &id, &written));
    assert_int_equal(written, 0);
    assert_true(take_used(&w->rx, &id, &written));
    assert_int_equal(id, 1);
    assert_int_equal(written, 1);
}

static void half_sent_output_goes_on_elsewhere_without_a_repeat(void **state)
{
    struct world *w = *state;
    uint32_t id, written;
    struct device *there =
        virtio_mmio_new(7, w->ram, pin(&w->pins, 1), virtio_console_new(&w->other, NULL), false, NULL);
    w->chardev.room = 3;
    print(w, w->dev, "abcdef");
    w->dev->ops->drain(w->dev);
    there->ops->drain(there);
    fake_make_room(&w->chardev, 100);
    assert_string_equal(w->chardev.out, "abc");
    dev_move(w->dev, there);
    there->ops->resume(there);
    assert_string_equal(w->other.out, "def");
    assert_true(take_used(&w->tx, &id, &written));
    assert_true(pin_high(&w->pins, 1));
    dev_free(there);
}

static void a_megabyte_at_once_is_too_much(void **state)
{
    struct world *w = *state;
    for (unsigned i = 0; i < 3; i++)
        set_desc(&w->tx, i, GUEST_RAM_BASE, GUEST_RAM_BYTES / 2, i < 2 ? D_NEXT : 0, i + 1);
    publish(&w->tx, 0);
    driver_notify(w->dev, TX);
    assert_int_equal(w->chardev.out_bytes, 0);
    assert_int_equal(mmio_get(w->dev, 0x070) & 0x40, 0x40);
    assert_int_equal(fake_type(&w->chardev, "x"), 0);
}

static void a_bad_receive_ring_is_found_by_input(void **state)
{
    struct world *w = *state;
    set_desc(&w->rx, 0, 0x42, 100, D_WRITE, 0);
    publish(&w->rx, 0);
    assert_int_equal(fake_type(&w->chardev, "x"), 0);
    assert_int_equal(mmio_get(w->dev, 0x070) & 0x40, 0x40);
}

static void an_emergency_write_needs_no_driver(void **state)
{
    struct world *w = *state;
    mmio_put(w->dev, 0x070, 0);
    dev_write(w->dev, 0x108, '!', 4);
    assert_string_equal(w->chardev.out, "!");
}

static void a_reset_forgets_half_sent_output(void **state)
{
    struct world *w = *state;
    w->chardev.room = 2;
    print(w, w->dev, "abcdef");
    mmio_put(w->dev, 0x070, 0);
    fake_make_room(&w->chardev, 100);
    assert_string_equal(w->chardev.out, "ab");
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(what_the_guest_writes_comes_out),        T(a_full_host_end_holds_the_buffer_back),
        T(input_fills_the_drivers_buffers),        T(input_that_was_on_its_way_is_delivered_after_the_pause),
        T(an_empty_buffer_does_not_stop_the_flow), T(half_sent_output_goes_on_elsewhere_without_a_repeat),
        T(a_megabyte_at_once_is_too_much),         T(a_bad_receive_ring_is_found_by_input),
        T(an_emergency_write_needs_no_driver),     T(a_reset_forgets_half_sent_output),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
