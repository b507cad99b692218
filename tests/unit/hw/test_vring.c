#include "tests/unit/hw/guest_ring.h"

#include "hw/vring.h"

enum { NUM = 8 };

struct world {
    struct ram *ram;
    struct guest_ring guest;
    struct vring_state state;
    struct vring ring;
    struct vring_chain chain;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    w->ram = guest_ram();
    w->guest = guest_ring(w->ram, 0, NUM);
    w->state = (struct vring_state){
        .desc = w->guest.desc, .avail = w->guest.avail, .used = w->guest.used, .num = NUM, .ready = 1
    };
    w->ring = (struct vring){ .ram = w->ram, .state = &w->state, .indirect = true };
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    ram_free(w->ram);
    free(w);
    return 0;
}

static void a_chain_is_handed_out_in_order_and_given_back(void **state)
{
    struct world *w = *state;
    uint32_t id, written;
    char text[16] = "";
    poke(w->ram, GUEST_DATA, 'a' | 'b' << 8, 2);
    poke(w->ram, GUEST_DATA + 0x100, 'c', 1);
    set_desc(&w->guest, 3, GUEST_DATA, 2, D_NEXT, 5);
    set_desc(&w->guest, 5, GUEST_DATA + 0x100, 1, D_NEXT, 0);
    set_desc(&w->guest, 0, GUEST_DATA + 0x200, 4, D_WRITE | D_NEXT, 7);
    set_desc(&w->guest, 7, GUEST_DATA + 0x300, 4, D_WRITE, 0);
    assert_int_equal(vring_peek(&w->ring, &w->chain), VRING_EMPTY);
    publish(&w->guest, 3);
    assert_int_equal(vring_peek(&w->ring, &w->chain), VRING_CHAIN);
    assert_int_equal(vring_peek(&w->ring, &w->chain), VRING_CHAIN); /* looking takes nothing */
    assert_int_equal(w->chain.head, 3);
    assert_int_equal(w->chain.readable, 2);
    assert_int_equal(w->chain.writable, 2);
    assert_int_equal(w->chain.readable_bytes, 3);
    assert_int_equal(w->chain.writable_bytes, 8);
    assert_int_equal(vring_copy_from(&w->ring, &w->chain, 1, text, sizeof(text)), 2);
    assert_memory_equal(text, "bc", 2);
    assert_int_equal(vring_copy_to(&w->ring, &w->chain, 2, "123456789", 9), 6);
    assert_int_equal(peek(w->ram, GUEST_DATA + 0x202, 2), '1' | '2' << 8);
    assert_int_equal(peek(w->ram, GUEST_DATA + 0x300, 4), 0x36353433);
    vring_take(&w->ring);
    assert_int_equal(vring_peek(&w->ring, &w->chain), VRING_EMPTY);
    assert_true(vring_put(&w->ring, 3, 8));
    assert_true(take_used(&w->guest, &id, &written));
    assert_int_equal(id, 3);
    assert_int_equal(written, 8);
    assert_false(take_used(&w->guest, &id, &written));
}

static void indices_wrap(void **state)
{
    struct world *w = *state;
    uint32_t id, written;
    w->state.last_avail = w->state.used_idx = w->state.signalled_used = 0xfffe;
    w->guest.avail_idx = w->guest.used_seen = 0xfffe;
    poke(w->ram, w->guest.used + 2, 0xfffe, 2);
    set_desc(&w->guest, 1, GUEST_DATA, 1, 0, 0);
    for (int i = 0; i < 5; i++) {
        publish(&w->guest, 1);
        assert_int_equal(vring_peek(&w->ring, &w->chain), VRING_CHAIN);
        vring_take(&w->ring);
        assert_true(vring_put(&w->ring, w->chain.head, (uint32_t)i));
        assert_true(take_used(&w->guest, &id, &written));
        assert_int_equal(written, i);
        assert_true(vring_wants_interrupt(&w->ring));
    }
    assert_int_equal(w->state.used_idx, 3);
}

static void an_indirect_table_is_a_chain(void **state)
{
    struct world *w = *state;
    uint64_t table = GUEST_DATA + 0x1000;
    put_desc(w->ram, table, 0, GUEST_DATA, 10, D_NEXT, 2);
    put_desc(w->ram, table, 2, GUEST_DATA + 64, 20, D_WRITE, 0);
    set_desc(&w->guest, 4, table, 3 * 16, D_INDIRECT, 0);
    publish(&w->guest, 4);
    assert_int_equal(vring_peek(&w->ring, &w->chain), VRING_CHAIN);
    assert_int_equal(w->chain.head, 4);
    assert_int_equal(w->chain.readable_bytes, 10);
    assert_int_equal(w->chain.writable_bytes, 20);
}

/* --- hostile rings: each row is one lie ------------------------------------------------------------------- */

static void lie_loop(struct world *w)
{
    set_desc(&w->guest, 0, GUEST_DATA, 1, D_NEXT, 1);
    set_desc(&w->guest, 1, GUEST_DATA, 1, D_NEXT, 0);
    publish(&w->guest, 0);
}

static void lie_next_outside(struct world *w)
{
    set_desc(&w->guest, 0, GUEST_DATA, 1, D_NEXT, NUM);
    publish(&w->guest, 0);
}

static void lie_head_outside(struct world *w)
{
    publish(&w->guest, NUM);
}

static void lie_index_jump(struct world *w)
{
    w->guest.avail_idx = NUM;
    publish(&w->guest, 0);
}

static void lie_buffer_outside(struct world *w)
{
    set_desc(&w->guest, 0, GUEST_RAM_BASE + GUEST_RAM_BYTES - 1, 2, 0, 0);
    publish(&w->guest, 0);
}

static void lie_buffer_wraps(struct world *w)
{
    set_desc(&w->guest, 0, UINT64_MAX - 3, 0xffffffff, D_WRITE, 0);
    publish(&w->guest, 0);
}

static void lie_write_rom(struct world *w)
{
    set_desc(&w->guest, 0, GUEST_ROM_BASE, 16, D_WRITE, 0);
    publish(&w->guest, 0);
}

static void lie_readable_after_writable(struct world *w)
{
    set_desc(&w->guest, 0, GUEST_DATA, 1, D_WRITE | D_NEXT, 1);
    set_desc(&w->guest, 1, GUEST_DATA, 1, 0, 0);
    publish(&w->guest, 0);
}

static void indirect(struct world *w, uint64_t table, uint32_t bytes, unsigned flags)
{
    set_desc(&w->guest, 0, table, bytes, D_INDIRECT | flags, 1);
    publish(&w->guest, 0);
}

static void lie_indirect_odd(struct world *w)
{
    indirect(w, GUEST_DATA, 17, 0);
}

static void lie_indirect_empty(struct world *w)
{
    indirect(w, GUEST_DATA, 0, 0);
}

static void lie_indirect_huge(struct world *w)
{
    indirect(w, GUEST_DATA, 16 * (VRING_SEGMENTS_MAX + 1), 0);
}

static void lie_indirect_outside(struct world *w)
{
    indirect(w, GUEST_RAM_BASE + GUEST_RAM_BYTES, 16, 0);
}

static void lie_indirect_next(struct world *w)
{
    put_desc(w->ram, GUEST_DATA, 0, GUEST_DATA, 1, 0, 0);
    indirect(w, GUEST_DATA, 16, D_NEXT);
}

static void lie_indirect_nested(struct world *w)
{
    put_desc(w->ram, GUEST_DATA, 0, GUEST_DATA, 16, D_INDIRECT, 0);
    indirect(w, GUEST_DATA, 16, 0);
}

static void lie_too_long_together(struct world *w)
{
    for (unsigned i = 0; i < VRING_SEGMENTS_MAX; i++)
        put_desc(w->ram, GUEST_DATA, i, GUEST_DATA, 1, i + 1 < VRING_SEGMENTS_MAX ? D_NEXT : 0, i + 1);
    set_desc(&w->guest, 0, GUEST_DATA, 1, D_NEXT, 1);
    set_desc(&w->guest, 1, GUEST_DATA, 16 * VRING_SEGMENTS_MAX, D_INDIRECT, 0);
    publish(&w->guest, 0);
}

static void lie_indirect_loop(struct world *w)
{
    put_desc(w->ram, GUEST_DATA, 0, GUEST_DATA, 1, D_NEXT, 0);
    indirect(w, GUEST_DATA, 64, 0);
}

static void lie_indirect_not_agreed(struct world *w)
{
    put_desc(w->ram, GUEST_DATA, 0, GUEST_DATA, 1, 0, 0);
    w->ring.indirect = false;
    indirect(w, GUEST_DATA, 16, 0);
}

static void lie_ring_moved_away(struct world *w)
{
    w->state.desc = UINT64_MAX - 15;
    publish(&w->guest, 1);
}

static void lie_avail_moved_away(struct world *w)
{
    w->state.avail = 0x10;
}

static void every_lie_breaks_the_ring_and_nothing_else(void **state)
{
    static void (*const lies[])(struct world *) = {
        lie_loop,
        lie_next_outside,
        lie_head_outside,
        lie_index_jump,
        lie_buffer_outside,
        lie_buffer_wraps,
        lie_write_rom,
        lie_readable_after_writable,
        lie_indirect_odd,
        lie_indirect_empty,
        lie_indirect_huge,
        lie_indirect_outside,
        lie_indirect_next,
        lie_indirect_nested,
        lie_indirect_loop,
        lie_indirect_not_agreed,
        lie_too_long_together,

        lie_ring_moved_away,
        lie_avail_moved_away,
    };
    (void)state;
    for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        void *fresh;
        setup(&fresh);
        struct world *w = fresh;
        lies[i](w);
        if (vring_peek(&w->ring, &w->chain) != VRING_BROKEN)
            fail_msg("lie %u was believed", i);
        assert_non_null(w->ring.why);
        teardown(&fresh);
    }
}

static void the_longest_chains_fit(void **state)
{
    struct world *w = *state;
    for (unsigned i = 0; i < NUM; i++)
        set_desc(&w->guest, i, GUEST_DATA, 1, i + 1 < NUM ? D_NEXT : 0, i + 1);
    publish(&w->guest, 0);
    assert_int_equal(vring_peek(&w->ring, &w->chain), VRING_CHAIN);
    assert_int_equal(w->chain.readable, NUM);
    vring_take(&w->ring);
    uint64_t table = GUEST_DATA + 0x1000;
    for (unsigned i = 0; i < VRING_SEGMENTS_MAX; i++)
        put_desc(w->ram, table, i, GUEST_DATA, 1, D_WRITE | (i + 1 < VRING_SEGMENTS_MAX ? D_NEXT : 0), i + 1);
    set_desc(&w->guest, 0, table, 16 * VRING_SEGMENTS_MAX, D_INDIRECT, 0);
    publish(&w->guest, 0);
    assert_int_equal(vring_peek(&w->ring, &w->chain), VRING_CHAIN);
    assert_int_equal(w->chain.writable, VRING_SEGMENTS_MAX);
}

static void layouts_outside_the_rules_are_refused(void **state)
{
    struct world *w = *state;
    struct vring_state good = w->state;
    assert_true(vring_check_layout(&w->ring));
    const struct vring_state bad[] = {
        { .desc = good.desc + 8, .avail = good.avail, .used = good.used, .num = NUM },
        { .desc = good.desc, .avail = good.avail + 1, .used = good.used, .num = NUM },
        { .desc = good.desc, .avail = good.avail, .used = good.used + 2, .num = NUM },
        { .desc = good.desc, .avail = good.avail, .used = good.used, .num = 3 },
        { .desc = good.desc, .avail = good.avail, .used = good.used, .num = 0 },
        { .desc = good.desc, .avail = good.avail, .used = good.used, .num = 2 * VRING_SIZE_MAX },
        { .desc = good.desc, .avail = good.avail, .used = GUEST_ROM_BASE, .num = NUM },
        { .desc = GUEST_RAM_BASE + GUEST_RAM_BYTES - 16, .avail = good.avail, .used = good.used, .num = NUM },
        { .desc = good.desc, .avail = UINT64_MAX - 1, .used = good.used, .num = NUM },
    };
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        w->state = bad[i];
        if (vring_check_layout(&w->ring))
            fail_msg("layout %u was accepted", i);
    }
}

static void interrupts_can_be_declined(void **state)
{
    struct world *w = *state;
    assert_false(vring_wants_interrupt(&w->ring)); /* nothing was put */
    assert_true(vring_put(&w->ring, 0, 0));
    assert_true(vring_wants_interrupt(&w->ring));
    assert_false(vring_wants_interrupt(&w->ring));
    poke(w->ram, w->guest.avail, 1, 2);
    assert_true(vring_put(&w->ring, 0, 0));
    assert_false(vring_wants_interrupt(&w->ring));
}

static void event_indices_choose_the_interrupt(void **state)
{
    struct world *w = *state;
    w->ring.event_idx = true;
    poke(w->ram, w->guest.avail + 4 + 2 * NUM, 1, 2); /* used_event: after the second */
    assert_true(vring_put(&w->ring, 0, 0));
    assert_false(vring_wants_interrupt(&w->ring));
    assert_true(vring_put(&w->ring, 0, 0));
    assert_true(vring_wants_interrupt(&w->ring));
    assert_true(vring_put(&w->ring, 0, 0));
    assert_false(vring_wants_interrupt(&w->ring));
}

static void an_empty_ring_asks_for_the_very_next_chain(void **state)
{
    struct world *w = *state;
    uint64_t avail_event = w->guest.used + 4 + 8 * NUM;
    w->ring.event_idx = true;
    set_desc(&w->guest, 0, GUEST_DATA, 1, 0, 0);
    publish(&w->guest, 0);
    assert_int_equal(vring_peek(&w->ring, &w->chain), VRING_CHAIN);
    vring_take(&w->ring);
    assert_int_equal(vring_peek(&w->ring, &w->chain), VRING_EMPTY);
    assert_int_equal(peek(w->ram, avail_event, 2), 1);
    publish(&w->guest, 0);
    publish(&w->guest, 0);
    vring_ask_again(&w->ring); /* leaves two behind, wants to hear of a third */
    assert_int_equal(peek(w->ram, avail_event, 2), 3);
}

static void a_ring_that_is_not_ready_is_empty(void **state)
{
    struct world *w = *state;
    publish(&w->guest, 0);
    w->state.ready = 0;
    assert_int_equal(vring_peek(&w->ring, &w->chain), VRING_EMPTY);
    assert_false(vring_wants_interrupt(&w->ring));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_chain_is_handed_out_in_order_and_given_back),
        T(indices_wrap),
        T(an_indirect_table_is_a_chain),
        cmocka_unit_test(every_lie_breaks_the_ring_and_nothing_else),
        T(the_longest_chains_fit),
        T(layouts_outside_the_rules_are_refused),
        T(interrupts_can_be_declined),
        T(event_indices_choose_the_interrupt),
        T(an_empty_ring_asks_for_the_very_next_chain),
        T(a_ring_that_is_not_ready_is_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
