#include "tests/unit/test.h"

#include "base/clock.h"
#include "migration/threads/rate.h"

/* Write as fast as the bucket lets us, for a while of pretended time; returns the bytes. */
static uint64_t drive(struct rate *rate, int64_t *now_ns, int64_t for_ns)
{
    int64_t end = *now_ns + for_ns;
    uint64_t sent = 0;

    while (*now_ns < end) {
        uint64_t piece = rate_piece(rate);
        int64_t wait = rate_take(rate, piece, *now_ns);
        if (wait == 0) {
            sent += piece;
        } else {
            *now_ns += wait;
        }
    }
    return sent;
}

static void the_cap_holds_over_a_second(void **state)
{
    static const uint64_t caps[] = { 100 * 1000, 32 * 1024 * 1024, UINT64_C(1250000000), UINT64_C(12500000000) };
    (void)state;

    for (unsigned i = 0; i < sizeof(caps) / sizeof(caps[0]); i++) {
        struct rate rate;
        int64_t now = 12345;
        rate_init(&rate, now);
        rate_set(&rate, caps[i], now);
        uint64_t sent = drive(&rate, &now, 10 * NS_PER_S);
        uint64_t want = caps[i] * 10;
        assert_true(sent <= want + rate.burst_bytes + RATE_PIECE_MAX);
        assert_true(sent >= want - want / 100);
    }
}

static void idle_time_is_not_made_up_for(void **state)
{
    struct rate rate;
    int64_t now = 0;
    uint64_t cap = 100 * 1000 * 1000;
    (void)state;

    rate_init(&rate, now);
    rate_set(&rate, cap, now);
    now += 60 * NS_PER_S;
    uint64_t sent = drive(&rate, &now, NS_PER_S / 10);
    assert_true(sent <= cap / 10 + cap / 100 + RATE_PIECE_MAX);
}

static void no_cap_never_waits(void **state)
{
    struct rate rate;
    (void)state;

    rate_init(&rate, 0);
    assert_true(rate_take(&rate, UINT64_C(1) << 60, 0) == 0);
    assert_true(rate_piece(&rate) == UINT64_MAX);
}

static void a_new_cap_binds_at_once(void **state)
{
    struct rate rate;
    int64_t now = 0;
    (void)state;

    rate_init(&rate, now);
    rate_set(&rate, UINT64_C(10000000000), now);
    drive(&rate, &now, NS_PER_S);
    rate_set(&rate, 1000 * 1000, now);
    assert_true(drive(&rate, &now, NS_PER_S) <= 1000 * 1000 + 2 * rate.burst_bytes);
    rate_set(&rate, 0, now);
    assert_true(rate_take(&rate, 1 << 30, now) == 0);
}

static void what_was_given_back_may_be_taken_again(void **state)
{
    struct rate rate;
    (void)state;

    rate_init(&rate, 0);
    rate_set(&rate, 100 * 1000 * 1000, 0);
    int64_t now = NS_PER_S;
    uint64_t piece = rate_piece(&rate);
    while (rate_take(&rate, piece, now) == 0) {
    }
    rate_give_back(&rate, piece);
    assert_true(rate_take(&rate, piece, now) == 0);
    assert_true(rate_take(&rate, piece, now) > 0);
}

static void the_wait_that_is_told_is_enough_and_not_too_long(void **state)
{
    struct rate rate;
    (void)state;

    rate_init(&rate, 0);
    rate_set(&rate, 333333, 0);
    int64_t wait = rate_take(&rate, 4096, 0);
    assert_true(wait > 0);
    assert_true(rate_take(&rate, 4096, wait - 1) > 0);
    assert_true(rate_take(&rate, 4096, wait) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cap_holds_over_a_second),
        cmocka_unit_test(idle_time_is_not_made_up_for),
        cmocka_unit_test(no_cap_never_waits),
        cmocka_unit_test(a_new_cap_binds_at_once),
        cmocka_unit_test(what_was_given_back_may_be_taken_again),
        cmocka_unit_test(the_wait_that_is_told_is_enough_and_not_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
