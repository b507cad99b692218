#include "tests/unit/hw/fixture.h"

enum { CONTEXTS = 4, PRIORITY = 0, PENDING = 0x1000, ENABLE = 0x2000, CONTEXT = 0x200000 };

struct world {
    struct pins pins;
    struct device *plic;
};

static struct device *make(struct pins *pins, unsigned first_pin)
{
    struct irq_line out[CONTEXTS];
    for (unsigned i = 0; i < CONTEXTS; i++)
        out[i] = pin(pins, first_pin + i);
    struct device *plic = plic_new(CONTEXTS, out, NULL);
    assert_non_null(plic);
    return plic;
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    pins_init(&w->pins);
    w->plic = make(&w->pins, 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    dev_free(w->plic);
    free(w);
    return 0;
}

static void priority(struct device *plic, unsigned source, unsigned value)
{
    dev_write(plic, PRIORITY + 4 * source, value, 4);
}

static void enable(struct device *plic, unsigned context, unsigned source)
{
    uint64_t at = ENABLE + 0x80 * context + 4 * (source / 32);
    dev_write(plic, at, dev_read(plic, at, 4) | UINT64_C(1) << source % 32, 4);
}

static void threshold(struct device *plic, unsigned context, unsigned value)
{
    dev_write(plic, CONTEXT + 0x1000 * context, value, 4);
}

static unsigned claim(struct device *plic, unsigned context)
{
    return (unsigned)dev_read(plic, CONTEXT + 0x1000 * context + 4, 4);
}

static void complete(struct device *plic, unsigned context, unsigned source)
{
    dev_write(plic, CONTEXT + 0x1000 * context + 4, source, 4);
}

static void wire(struct device *plic, unsigned source, bool level)
{
    struct irq_line line = plic_input(plic, source);
    irq_set(&line, level);
}

static bool pending(struct device *plic, unsigned source)
{
    return dev_read(plic, PENDING + 4 * (source / 32), 4) >> source % 32 & 1;
}

static void a_raised_source_reaches_the_contexts_that_enable_it(void **state)
{
    struct world *w = *state;
    priority(w->plic, 10, 1);
    enable(w->plic, 1, 10);
    wire(w->plic, 10, true);
    assert_false(pin_high(&w->pins, 0));
    assert_true(pin_high(&w->pins, 1));
    assert_int_equal(claim(w->plic, 0), 0);
    assert_int_equal(claim(w->plic, 1), 10);
    assert_false(pin_high(&w->pins, 1));
    assert_int_equal(claim(w->plic, 1), 0);
}

static void completion_asks_again_while_the_wire_is_high(void **state)
{
    struct world *w = *state;
    priority(w->plic, 33, 7);
    enable(w->plic, 0, 33);
    wire(w->plic, 33, true);
    assert_int_equal(claim(w->plic, 0), 33);
    assert_false(pending(w->plic, 33));
    complete(w->plic, 0, 33);
    assert_true(pending(w->plic, 33));
    assert_int_equal(claim(w->plic, 0), 33);
    wire(w->plic, 33, false);
    complete(w->plic, 0, 33);
    assert_false(pending(w->plic, 33));
    assert_false(pin_high(&w->pins, 0));
}

static void an_edge_between_claim_and_completion_is_not_lost(void **state)
{
    struct world *w = *state;
    priority(w->plic, 5, 1);
    enable(w->plic, 0, 5);
    wire(w->plic, 5, true);
    assert_int_equal(claim(w->plic, 0), 5);
    wire(w->plic, 5, false);
    wire(w->plic, 5, true);
    assert_false(pin_high(&w->pins, 0)); /* the gateway waits for the completion */
    complete(w->plic, 0, 5);
    assert_true(pin_high(&w->pins, 0));
}

static void a_fallen_wire_takes_no_request_back(void **state)
{
    struct world *w = *state;
    priority(w->plic, 5, 1);
    enable(w->plic, 0, 5);
    wire(w->plic, 5, true);
    wire(w->plic, 5, false);
    assert_int_equal(claim(w->plic, 0), 5);
}

static void the_highest_priority_wins_and_ties_go_to_the_lowest(void **state)
{
    struct world *w = *state;
    const unsigned sources[] = { 40, 7, 3, 95 }, priorities[] = { 5, 2, 2, 6 };
    for (unsigned i = 0; i < 4; i++) {
        priority(w->plic, sources[i], priorities[i]);
        enable(w->plic, 2, sources[i]);
        wire(w->plic, sources[i], true);
    }
    assert_int_equal(claim(w->plic, 2), 95);
    assert_int_equal(claim(w->plic, 2), 40);
    assert_int_equal(claim(w->plic, 2), 3);
    assert_int_equal(claim(w->plic, 2), 7);
    assert_int_equal(claim(w->plic, 2), 0);
}

static void priority_zero_never_interrupts(void **state)
{
    struct world *w = *state;
    enable(w->plic, 0, 9);
    wire(w->plic, 9, true);
    assert_true(pending(w->plic, 9));
    assert_false(pin_high(&w->pins, 0));
    assert_int_equal(claim(w->plic, 0), 0);
    priority(w->plic, 9, 1);
    assert_true(pin_high(&w->pins, 0));
}

static void the_threshold_masks_the_pin_but_not_the_claim(void **state)
{
    struct world *w = *state;
    priority(w->plic, 9, 3);
    enable(w->plic, 0, 9);
    threshold(w->plic, 0, 3);
    wire(w->plic, 9, true);
    assert_false(pin_high(&w->pins, 0));
    threshold(w->plic, 0, 2);
    assert_true(pin_high(&w->pins, 0));
    threshold(w->plic, 0, 7);
    assert_false(pin_high(&w->pins, 0));
    assert_int_equal(claim(w->plic, 0), 9);
}

static void a_completion_of_a_disabled_source_is_ignored(void **state)
{
    struct world *w = *state;
    priority(w->plic, 9, 3);
    enable(w->plic, 0, 9);
    wire(w->plic, 9, true);
    claim(w->plic, 0);
    complete(w->plic, 1, 9);
    complete(w->plic, 0, 0);
    complete(w->plic, 0, 4000000000u);
    assert_false(pin_high(&w->pins, 0));
    complete(w->plic, 0, 9);
    assert_true(pin_high(&w->pins, 0));
}

static void source_zero_and_unknown_registers_do_nothing(void **state)
{
    struct world *w = *state;
    priority(w->plic, 0, 7);
    assert_int_equal(dev_read(w->plic, 0, 4), 0);
    dev_write(w->plic, ENABLE, 0xffffffff, 4);
    assert_int_equal(dev_read(w->plic, ENABLE, 4), 0xfffffffe);
    for (uint64_t at = 0; at < 0x600000; at += 4 * 251) {
        dev_write(w->plic, at, 0xffffffff, 4);
        dev_read(w->plic, at, 4);
    }
    assert_null(plic_input(w->plic, 0).set);
    assert_null(plic_input(w->plic, PLIC_SOURCES).set);
}

static void a_moved_plic_keeps_pending_claims_and_wires(void **state)
{
    struct world *w = *state;
    struct device *there = make(&w->pins, 8);
    for (unsigned source = 1; source <= 3; source++) {
        priority(w->plic, source, source);
        enable(w->plic, 1, source);
        wire(w->plic, source, true);
    }
    assert_int_equal(claim(w->plic, 1), 3);
    dev_move(w->plic, there);
    assert_true(pin_high(&w->pins, 9));
    wire(there, 3, true); /* its device pulls the wire again after its own load: nothing new */
    assert_int_equal(claim(there, 1), 2);
    complete(there, 1, 3);
    assert_int_equal(claim(there, 1), 3);
    dev_free(there);
}

static void impossible_states_are_refused(void **state)
{
    struct world *w = *state;
    const struct {
        size_t at;
        uint8_t value;
    } lies[] = {
        { 3, 8 },          /* priority above 7 */
        { 4 * 96 + 3, 1 }, /* the wire of source 0 */
    };
    struct buf sane = dev_save(w->plic);
    for (unsigned i = 0; i < 2; i++) {
        struct buf bad = { 0 };
        buf_put(&bad, sane.data, sane.size);
        bad.data[lies[i].at] = lies[i].value;
        assert_true(dev_load(w->plic, &bad) < 0);
        buf_free(&bad);
    }
    struct buf bad = { 0 };
    buf_put(&bad, sane.data, sane.size);
    bad.data[4 * 96 + 12 + 3] = 2;     /* source 1 pending */
    bad.data[4 * 96 + 2 * 12 + 3] = 2; /* and claimed */
    assert_true(dev_load(w->plic, &bad) < 0);
    buf_free(&bad);
    buf_free(&sane);
}

static void reset_leaves_nothing_enabled(void **state)
{
    struct world *w = *state;
    priority(w->plic, 9, 3);
    enable(w->plic, 0, 9);
    wire(w->plic, 9, true);
    w->plic->ops->reset(w->plic);
    assert_false(pin_high(&w->pins, 0));
    priority(w->plic, 9, 3);
    enable(w->plic, 0, 9);
    wire(w->plic, 9, false);
    wire(w->plic, 9, true);
    assert_true(pin_high(&w->pins, 0));
}

static void context_counts_have_limits(void **state)
{
    (void)state;
    struct irq_line out[1] = { 0 };
    struct err err = { 0 };
    assert_null(plic_new(0, out, &err));
    assert_null(plic_new(PLIC_CONTEXTS_MAX + 1, out, &err));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_raised_source_reaches_the_contexts_that_enable_it),
        T(completion_asks_again_while_the_wire_is_high),
        T(an_edge_between_claim_and_completion_is_not_lost),
        T(a_fallen_wire_takes_no_request_back),
        T(the_highest_priority_wins_and_ties_go_to_the_lowest),
        T(priority_zero_never_interrupts),
        T(the_threshold_masks_the_pin_but_not_the_claim),
        T(a_completion_of_a_disabled_source_is_ignored),
        T(source_zero_and_unknown_registers_do_nothing),
        T(a_moved_plic_keeps_pending_claims_and_wires),
        T(impossible_states_are_refused),
        T(reset_leaves_nothing_enabled),
        T(context_counts_have_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
