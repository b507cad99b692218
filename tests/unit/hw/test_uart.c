#include "tests/unit/hw/fixture.h"
#include "tests/unit/hw/fake_chardev.h"

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR, FCR = IIR };
enum { IRQ };

struct world {
    struct pins pins;
    struct guest_time time;
    struct chardev chardev;
    struct device *uart;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    pins_init(&w->pins);
    time_init(&w->time);
    fake_open(&w->chardev);
    w->uart = uart_new(pin(&w->pins, IRQ), &w->chardev, w->time.timers, NULL);
    assert_non_null(w->uart);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    dev_free(w->uart);
    timers_free(w->time.timers);
    free(w);
    return 0;
}

static uint8_t get(struct world *w, unsigned reg)
{
    return (uint8_t)dev_read(w->uart, reg, 1);
}

static void put(struct world *w, unsigned reg, uint8_t value)
{
    dev_write(w->uart, reg, value, 1);
}

static void what_is_written_comes_out(void **state)
{
    struct world *w = *state;
    for (const char *c = "hello"; *c; c++)
        put(w, DATA, (uint8_t)*c);
    assert_string_equal(w->chardev.out, "hello");
    assert_int_equal(get(w, LSR), 0x60);
}

static void the_divisor_latch_hides_data_and_ier(void **state)
{
    struct world *w = *state;
    put(w, IER, 0x05);
    put(w, LCR, 0x83);
    put(w, DATA, 0x34);
    put(w, IER, 0x12);
    assert_int_equal(get(w, DATA), 0x34);
    assert_int_equal(get(w, IER), 0x12);
    put(w, LCR, 0x03);
    assert_int_equal(get(w, IER), 0x05);
    assert_int_equal(w->chardev.out_bytes, 0);
    put(w, SCR, 0xa5);
    assert_int_equal(get(w, SCR), 0xa5);
}

static void enabling_thre_raises_it_again_after_iir_cleared_it(void **state)
{
    struct world *w = *state;
    assert_int_equal(get(w, IIR), 0x01);
    put(w, IER, 0x02);
    assert_true(pin_high(&w->pins, IRQ));
    assert_int_equal(get(w, IIR), 0x02);
    assert_false(pin_high(&w->pins, IRQ));
    assert_int_equal(get(w, IIR), 0x01);
    put(w, IER, 0x02); /* already enabled: no edge */
    assert_int_equal(get(w, IIR), 0x01);
    put(w, IER, 0x00);
    put(w, IER, 0x02);
    assert_int_equal(get(w, IIR), 0x02);
}

static void a_sent_byte_raises_thre(void **state)
{
    struct world *w = *state;
    put(w, IER, 0x02);
    get(w, IIR);
    put(w, DATA, 'x');
    assert_true(pin_high(&w->pins, IRQ));
    assert_int_equal(get(w, IIR), 0x02);
}

static void a_full_host_end_keeps_thre_low_and_loses_nothing(void **state)
{
    struct world *w = *state;
    put(w, FCR, 0x01);
    put(w, IER, 0x02);
    get(w, IIR);
    w->chardev.room = 2;
    for (const char *c = "abcdef"; *c; c++)
        put(w, DATA, (uint8_t)*c);
    assert_string_equal(w->chardev.out, "ab");
    assert_int_equal(get(w, LSR) & 0x60, 0);
    assert_int_equal(get(w, IIR), 0xc1); /* what "b" raised, writing "c" took back */
    fake_make_room(&w->chardev, 1);
    assert_int_equal(get(w, LSR) & 0x60, 0);
    assert_false(pin_high(&w->pins, IRQ));
    fake_make_room(&w->chardev, 100);
    assert_string_equal(w->chardev.out, "abcdef");
    assert_int_equal(get(w, LSR) & 0x60, 0x60);
    assert_true(pin_high(&w->pins, IRQ));
}

static void input_is_bounded_by_the_fifo(void **state)
{
    struct world *w = *state;
    assert_int_equal(fake_type(&w->chardev, "ab"), 1);
    assert_int_equal(get(w, DATA), 'a');
    put(w, FCR, 0x01);
    assert_int_equal(fake_type(&w->chardev, "0123456789abcdefgh"), 16);
    assert_int_equal(fake_type(&w->chardev, "x"), 0);
    unsigned accepted = w->chardev.accepted;
    assert_int_equal(get(w, DATA), '0');
    assert_true(w->chardev.accepted > accepted);
    assert_int_equal(fake_type(&w->chardev, "gh"), 1);
    for (const char *c = "123456789abcdefg"; *c; c++)
        assert_int_equal(get(w, DATA), *c);
    assert_int_equal(get(w, LSR) & 1, 0);
}

static void the_trigger_level_raises_data_available(void **state)
{
    struct world *w = *state;
    put(w, FCR, 0x81); /* 8 bytes */
    put(w, IER, 0x01);
    fake_type(&w->chardev, "1234567");
    assert_false(pin_high(&w->pins, IRQ));
    fake_type(&w->chardev, "8");
    assert_true(pin_high(&w->pins, IRQ));
    assert_int_equal(get(w, IIR), 0xc4);
    get(w, DATA);
    assert_int_equal(get(w, IIR), 0xc1);
    assert_false(pin_high(&w->pins, IRQ));
}

static void bytes_below_the_trigger_time_out(void **state)
{
    struct world *w = *state;
    put(w, FCR, 0xc1);
    put(w, IER, 0x01);
    fake_type(&w->chardev, "1");
    assert_int_equal(get(w, IIR), 0xc1); /* the clock stands still */
    time_start(&w->time);
    pin_wait_high(&w->pins, IRQ);
    assert_int_equal(get(w, IIR), 0xcc);
    assert_int_equal(get(w, DATA), '1');
    assert_false(pin_high(&w->pins, IRQ));
}

static void loopback_joins_both_ends(void **state)
{
    struct world *w = *state;
    put(w, MCR, 0x1a); /* loop, OUT2, RTS: a driver's presence test */
    assert_int_equal(get(w, MSR) & 0xf0, 0x90);
    assert_int_equal(fake_type(&w->chardev, "no"), 0);
    put(w, DATA, 'L');
    assert_int_equal(w->chardev.out_bytes, 0);
    put(w, IER, 0x04);
    put(w, DATA, 'M'); /* without FIFOs the first byte is overrun */
    assert_int_equal(get(w, IIR), 0x06);
    assert_int_equal(get(w, LSR) & 0x03, 0x03);
    assert_int_equal(get(w, LSR) & 0x02, 0);
    assert_int_equal(get(w, DATA), 'M');
    put(w, MCR, 0x0b);
    assert_int_equal(get(w, MSR) & 0xf0, 0xb0);
}

static void modem_changes_interrupt_until_read(void **state)
{
    struct world *w = *state;
    put(w, IER, 0x08);
    put(w, MCR, 0x10); /* all inputs drop */
    assert_int_equal(get(w, IIR), 0x00);
    assert_int_equal(get(w, MSR), 0x0b);
    assert_int_equal(get(w, MSR), 0x00);
    assert_false(pin_high(&w->pins, IRQ));
}

static void clearing_fifos_empties_them(void **state)
{
    struct world *w = *state;
    put(w, FCR, 0x01);
    w->chardev.room = 0;
    put(w, DATA, 'x');
    fake_type(&w->chardev, "y");
    put(w, FCR, 0x07);
    assert_int_equal(get(w, LSR), 0x60);
    fake_make_room(&w->chardev, 10);
    assert_int_equal(w->chardev.out_bytes, 0);
}

static void a_drained_uart_refuses_input_and_holds_output(void **state)
{
    struct world *w = *state;
    put(w, FCR, 0x01);
    w->chardev.room = 0;
    put(w, DATA, 'o');
    w->uart->ops->drain(w->uart);
    struct buf before = dev_save(w->uart);
    assert_int_equal(fake_type(&w->chardev, "x"), 0);
    w->chardev.client->receive(w->chardev.opaque, (const uint8_t *)"i", 1); /* it was on its way */
    fake_make_room(&w->chardev, 10);
    struct buf after = dev_save(w->uart);
    assert_memory_equal(before.data, after.data, before.size);
    assert_int_equal(w->chardev.out_bytes, 0);
    w->uart->ops->resume(w->uart);
    assert_string_equal(w->chardev.out, "o");
    assert_int_equal(get(w, DATA), 'i');
    buf_free(&before);
    buf_free(&after);
}

static void a_moved_uart_goes_on(void **state)
{
    struct world *w = *state;
    struct chardev other;
    fake_open(&other);
    struct device *there = uart_new(pin(&w->pins, 1), &other, w->time.timers, NULL);
    put(w, FCR, 0xc1);
    put(w, IER, 0x01);
    put(w, LCR, 0x1b);
    w->chardev.room = 0;
    put(w, DATA, 'T');
    fake_type(&w->chardev, "in");
    w->uart->ops->drain(w->uart);
    dev_move(w->uart, there);
    there->ops->resume(there);
    assert_string_equal(other.out, "T");
    time_start(&w->time);
    pin_wait_high(&w->pins, 1); /* the receive timeout travelled */
    assert_int_equal(dev_read(there, DATA, 1), 'i');
    assert_int_equal(dev_read(there, DATA, 1), 'n');
    assert_int_equal(dev_read(there, LCR, 1), 0x1b);
    dev_free(there);
}

static void counts_beyond_the_fifo_are_refused(void **state)
{
    struct world *w = *state;
    struct buf sane = dev_save(w->uart);
    for (size_t i = 0; i < sane.size; i++) { /* every byte at its largest: loads, or is refused, and never more */
        struct buf bad = { 0 };
        buf_put(&bad, sane.data, sane.size);
        bad.data[i] = 0xff;
        dev_load(w->uart, &bad);
        get(w, DATA);
        put(w, DATA, 'x');
        buf_free(&bad);
        assert_int_equal(dev_load(w->uart, &sane), 0);
    }
    struct buf bad = { 0 };
    buf_put(&bad, sane.data, sane.size);
    bad.data[11] = 2; /* rx_count, with FIFOs off */
    assert_true(dev_load(w->uart, &bad) < 0);
    buf_free(&bad);
    buf_free(&sane);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(what_is_written_comes_out),
        T(the_divisor_latch_hides_data_and_ier),
        T(enabling_thre_raises_it_again_after_iir_cleared_it),
        T(a_sent_byte_raises_thre),
        T(a_full_host_end_keeps_thre_low_and_loses_nothing),
        T(input_is_bounded_by_the_fifo),
        T(the_trigger_level_raises_data_available),
        T(bytes_below_the_trigger_time_out),
        T(loopback_joins_both_ends),
        T(modem_changes_interrupt_until_read),
        T(clearing_fifos_empties_them),
        T(a_drained_uart_refuses_input_and_holds_output),
        T(a_moved_uart_goes_on),
        T(counts_beyond_the_fifo_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
