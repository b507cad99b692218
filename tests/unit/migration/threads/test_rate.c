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

/* Sent in each of so many milliseconds, by a writer that wakes late whenever the host likes. */
static void drive_late(struct rate *rate, int64_t *now_ns, uint64_t *sent, unsigned ms)
{
    int64_t from_ns = *now_ns;
    unsigned dice = 12345;

    for (unsigned at; (at = (unsigned)((*now_ns - from_ns) / NS_PER_MS)) < ms;) {
        uint64_t piece = rate_piece(rate);
        int64_t wait = rate_take(rate, piece, *now_ns);
        if (wait == 0) {
            sent[at] += piece;
            continue;
        }
        dice = dice * 1103515245 + 12345;
        bool late = dice >> 16 & 1;
        *now_ns += wait + (late ? (int64_t)(dice >> 7) % (4 * NS_PER_MS) : 0);
    }
}

static void over_any_second_the_cap_holds_within_two_per_cent(void **state)
{
    enum { MS = 4000 };
    static const uint64_t caps[] = { 1000 * 1000, 104857600, UINT64_C(1250000000) };
    (void)state;

    for (unsigned i = 0; i < sizeof(caps) / sizeof(caps[0]); i++) {
        uint64_t *sent = test_calloc(MS, sizeof(*sent)), sum = 0;
        struct rate rate;
        int64_t now = 777;
        rate_init(&rate, now);
        rate_set(&rate, caps[i], now);
        drive_late(&rate, &now, sent, MS);
        for (unsigned ms = 0; ms < MS; ms++) {
            sum += sent[ms] - (ms >= 1000 ? sent[ms - 1000] : 0);
            if (ms < 1000)
                continue;
            assert_true(sum <= caps[i] + caps[i] / 50);
            assert_true(sum >= caps[i] - caps[i] / 50);
        }
        test_free(sent);
    }
}

/* Both ways: what was saved up for the old one, or is waited for by it, does not count. The writer asks again after 50 ms. */
static void a_change_is_felt_within_a_hundred_milliseconds(void **state)
{
    enum { MS = 1100, ASKS_MS = 50 };
    static const uint64_t cap[2][2] = { { 500 * 1000 * 1000, 2 * 1000 * 1000 }, { 100 * 1000, 500 * 1000 * 1000 } };
    (void)state;

    for (unsigned i = 0; i < 2; i++) {
        uint64_t *sent = test_calloc(2 * MS, sizeof(*sent)), sum = 0;
        struct rate rate;
        int64_t now = 0;
        rate_init(&rate, now);
        rate_set(&rate, cap[i][0], now);
        drive(&rate, &now, NS_PER_S);
        int64_t changed_ns = now, wait;
        while ((wait = rate_take(&rate, rate_piece(&rate), now)) == 0)
            continue;
        now += wait < ASKS_MS * NS_PER_MS ? wait : ASKS_MS * NS_PER_MS;
        rate_set(&rate, cap[i][1], now);
        unsigned late_ms = (unsigned)((now - changed_ns) / NS_PER_MS);
        drive_late(&rate, &now, sent + late_ms, MS);
        for (unsigned ms = 100; ms < MS; ms++)
            sum += sent[ms];
        assert_true(sum <= cap[i][1] + cap[i][1] / 50 && sum >= cap[i][1] - cap[i][1] / 50);
        test_free(sent);
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
        cmocka_unit_test(over_any_second_the_cap_holds_within_two_per_cent),
        cmocka_unit_test(a_change_is_felt_within_a_hundred_milliseconds),
        cmocka_unit_test(idle_time_is_not_made_up_for),
        cmocka_unit_test(no_cap_never_waits),
        cmocka_unit_test(a_new_cap_binds_at_once),
        cmocka_unit_test(what_was_given_back_may_be_taken_again),
        cmocka_unit_test(the_wait_that_is_told_is_enough_and_not_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
