#include "tests/unit/test.h"

#include <math.h>

#include "migration/threads/choose.h"
#include "tests/unit/migration/threads/fake.h"

/* What there is: contents, CPUs, a link, a peer. Costs are those of a page, measured on one host and rounded. */
struct world {
    double copy_ns;
    struct {
        double cpu_ns, bytes;
    } gear[GEARS];
    unsigned workers;
    double share;            /* of a CPU that a worker gets while it packs */
    double link_bytes_per_s; /* 0: as fast as the writer */
    double peer_ns[GEARS];   /* the destination's time for a page */
    double noise;            /* 0.5: half to one and a half times as fast, from window to window */
    uint64_t cap;
};

static const struct world text = {
    .copy_ns = 700,
    .gear = { { 300, 4100 }, { 4500, 1900 }, { 6000, 1600 }, { 11000, 1150 } },
    .workers = 2,
    .share = 1,
};
static const struct world random_bytes = {
    .copy_ns = 700,
    .gear = { { 300, 4100 }, { 500, 4100 }, { 900, 4100 }, { 2500, 4100 } },
    .workers = 2,
    .share = 1,
};
#define MB 1e6

enum { WRITE_BYTES_PER_NS = 2, BUFFER_BYTES = 4 << 20 };

struct run {
    struct world world;
    struct choose choose;
    double buffered; /* bytes on the road */
    double units;    /* that have arrived */
    unsigned shifts;
    int64_t passed_ns;
    uint64_t seed;
};

static double around_one(struct run *run, double elapsed_ns)
{
    double noise = run->world.noise * sqrt(CHOOSE_WINDOW_NS / elapsed_ns);
    return 1 + noise * (2 * ((double)(fake_random(&run->seed) >> 11) / (double)(1ull << 53)) - 1);
}

static double units_per_s(const struct run *run)
{
    return run->units * 1e9 / (double)run->passed_ns;
}

/* One window in a gear: the workers make units as fast as they can until the road is full, then as fast as it empties. */
static struct choose_window pass_window(struct run *run, unsigned gear)
{
    const struct world *w = &run->world;
    double bytes = w->gear[gear].bytes, write_ns = bytes / WRITE_BYTES_PER_NS;
    double work_ns = (w->copy_ns + w->gear[gear].cpu_ns) / (w->workers * (gear ? w->share : 1));
    double make_ns = fmax(work_ns, write_ns), cap_ns = w->cap ? bytes * 1e9 / (double)w->cap : 0;
    double drain_ns = fmax(w->link_bytes_per_s > 0 ? bytes * 1e9 / w->link_bytes_per_s : 0, w->peer_ns[gear]);
    double elapsed = fmax(CHOOSE_WINDOW_NS, CHOOSE_CHUNKS_MIN * 64 * fmax(fmax(drain_ns, cap_ns), make_ns));
    drain_ns = fmax(drain_ns * around_one(run, elapsed), 1);
    bool peer_lags = w->peer_ns[gear] > (w->link_bytes_per_s > 0 ? bytes * 1e9 / w->link_bytes_per_s : 0);
    bool capped = cap_ns > make_ns;
    double enter_ns = capped ? cap_ns : make_ns, entered = elapsed / enter_ns, frozen_ns = 0;
    double drained = fmin(elapsed / drain_ns, run->buffered / bytes + entered);
    double room = (BUFFER_BYTES - run->buffered) / bytes + drained;
    if (entered > room) {
        frozen_ns = elapsed - room * enter_ns;
        entered = room;
    }
    run->buffered += (entered - drained) * bytes;
    run->units += drained;
    double waited_ns = fmax(elapsed - frozen_ns - entered * write_ns, 0);
    return (struct choose_window){
        .elapsed_ns = (int64_t)elapsed,
        .idle_ns = capped ? 0 : (int64_t)waited_ns,
        .rate_wait_ns = capped ? (int64_t)waited_ns : 0,
        .frozen_ns = (int64_t)frozen_ns,
        .sent_bytes = (uint64_t)(entered * bytes),
        .units = (uint64_t)entered,
        .peer_lags = peer_lags && frozen_ns > 0,
        .one_round = true,
        .steady = true,
        .max_bytes_per_s = w->cap,
        .workers = w->workers,
    };
}

static void measure(struct run *run, unsigned gear)
{
    const struct world *w = &run->world;
    double copy_ns = 64 * w->copy_ns, cpu_ns = 64 * w->gear[gear].cpu_ns;
    double share = gear ? w->share : 1;
    for (unsigned i = 0; i < 20; i++) {
        choose_packed(&run->choose, gear, 64, (int64_t)cpu_ns, (uint64_t)(64 * w->gear[gear].bytes));
        choose_worked(&run->choose, gear, 64, (int64_t)copy_ns, (int64_t)(copy_ns + cpu_ns),
                      (int64_t)((copy_ns + cpu_ns) / share));
        unsigned other = choose_probe(&run->choose);
        if (other < GEARS) {
            assert_int_not_equal(other, run->choose.gear);
            choose_packed(&run->choose, other, CHOOSE_PROBE_UNITS,
                          (int64_t)(CHOOSE_PROBE_UNITS * w->gear[other].cpu_ns),
                          (uint64_t)(CHOOSE_PROBE_UNITS * w->gear[other].bytes));
        }
    }
}

static void pass_s(struct run *run, double seconds)
{
    for (int64_t left_ns = (int64_t)(seconds * 1e9); left_ns > 0;) {
        unsigned gear = run->choose.gear;
        measure(run, gear);
        struct choose_window window = pass_window(run, gear);
        run->shifts += choose_next(&run->choose, &window) != gear;
        run->passed_ns += window.elapsed_ns;
        left_ns -= window.elapsed_ns;
    }
}

static struct run begin(const struct world *world)
{
    struct run run = { .world = *world, .seed = 7 };
    choose_init(&run.choose, (1u << CODECS) - 1);
    return run;
}

static double fixed_units_per_s(const struct world *world, unsigned gear, double seconds)
{
    struct run run = { .world = *world, .seed = 7 };
    while ((double)run.passed_ns < seconds * 1e9) {
        run.passed_ns += pass_window(&run, gear).elapsed_ns;
    }
    return units_per_s(&run);
}

static double best_units_per_s(const struct world *world, double seconds)
{
    double best = 0;
    for (unsigned gear = 0; gear < GEARS; gear++) {
        best = fmax(best, fixed_units_per_s(world, gear, seconds));
    }
    return best;
}

static void what_does_not_compress_is_sent_as_it_is(void **state)
{
    (void)state;
    for (unsigned mb_per_s = 10; mb_per_s < 10000; mb_per_s *= 3) {
        struct world world = random_bytes;
        world.link_bytes_per_s = mb_per_s * MB;
        struct run run = begin(&world);
        pass_s(&run, 2);
        assert_int_equal(run.choose.gear, GEAR_NONE);
    }
}

static void a_slow_link_gets_what_packs_most(void **state)
{
    struct world world = text;
    (void)state;

    world.link_bytes_per_s = 60 * MB;
    struct run run = begin(&world);
    pass_s(&run, 0.2);
    assert_int_equal(run.choose.gear, GEAR_ZSTD);
    pass_s(&run, 1.8);
    assert_int_equal(run.choose.gear, GEAR_ZSTD);
    assert_true(units_per_s(&run) > 0.95 * fixed_units_per_s(&world, GEAR_ZSTD, 2));
}

static void a_fast_link_gets_plain_pages_from_few_cpus_and_packed_ones_from_many(void **state)
{
    struct world world = text;
    (void)state;

    struct run run = begin(&world);
    pass_s(&run, 1);
    assert_int_equal(run.choose.gear, GEAR_NONE);
    world.workers = 16;
    run = begin(&world);
    pass_s(&run, 1);
    assert_int_not_equal(run.choose.gear, GEAR_NONE);
    assert_true(units_per_s(&run) > 0.85 * best_units_per_s(&world, 1));
}

static void a_codec_whose_cost_changes_is_left_and_taken_again(void **state)
{
    struct world world = text;
    (void)state;

    world.link_bytes_per_s = 60 * MB;
    struct run run = begin(&world);
    pass_s(&run, 1);
    assert_int_equal(run.choose.gear, GEAR_ZSTD);
    run.world.gear[GEAR_ZSTD].cpu_ns *= 20;
    pass_s(&run, 1);
    assert_int_equal(gears[run.choose.gear].codec, CODEC_LZ4);
    run.world.gear[GEAR_ZSTD].cpu_ns /= 20;
    pass_s(&run, 10);
    assert_int_equal(run.choose.gear, GEAR_ZSTD);
    for (unsigned gear = 0; gear < GEARS; gear++) { /* the guest's pages are others now */
        run.world.gear[gear].cpu_ns = random_bytes.gear[gear].cpu_ns;
        run.world.gear[gear].bytes = random_bytes.gear[gear].bytes;
    }
    pass_s(&run, 1);
    assert_int_equal(run.choose.gear, GEAR_NONE);
}

static void a_link_that_becomes_faster_is_found_out(void **state)
{
    struct world world = text;
    (void)state;

    world.link_bytes_per_s = 60 * MB;
    struct run run = begin(&world);
    pass_s(&run, 1);
    run.world.link_bytes_per_s = 5000 * MB;
    pass_s(&run, 5);
    assert_int_equal(run.choose.gear, GEAR_NONE);
    run.world.link_bytes_per_s = 60 * MB;
    pass_s(&run, 1);
    assert_int_equal(run.choose.gear, GEAR_ZSTD);
}

static void a_cap_counts_as_the_link_within_100_ms(void **state)
{
    struct run run = begin(&text);
    (void)state;

    pass_s(&run, 1);
    assert_int_equal(run.choose.gear, GEAR_NONE);
    run.world.cap = 50 * 1000 * 1000;
    pass_s(&run, 0.1);
    assert_int_equal(run.choose.gear, GEAR_ZSTD);
    run.world.cap = 0;
    pass_s(&run, 0.1);
    assert_int_equal(run.choose.gear, GEAR_NONE);
}

/* 500 pages at a time, which a socket takes at once: what the link does shows in how long they are on their way. */
static void rounds_that_fit_into_a_socket_still_show_the_link(void **state)
{
    enum { UNITS = 500, ROUND_TRIP_NS = 2000000 };
    struct world world = text;
    (void)state;

    world.link_bytes_per_s = 60 * MB;
    struct run run = begin(&world);
    pass_s(&run, 1);
    assert_int_equal(run.choose.gear, GEAR_ZSTD);
    for (unsigned i = 0; i < 200; i++) {
        unsigned gear = run.choose.gear;
        double bytes = world.gear[gear].bytes * UNITS;
        double made_ns = (world.copy_ns + world.gear[gear].cpu_ns) * UNITS / world.workers;
        double loaded_ns = fmax(made_ns, bytes * 1e9 / world.link_bytes_per_s) + ROUND_TRIP_NS;
        if (i == 0) {
            choose_carried(&run.choose, 1000, 1000, 1000 + ROUND_TRIP_NS);
        }
        measure(&run, gear);
        choose_carried(&run.choose, (uint64_t)bytes, (int64_t)made_ns, (int64_t)loaded_ns);
        struct choose_window window = {
            .elapsed_ns = CHOOSE_WINDOW_NS,
            .sent_bytes = (uint64_t)bytes,
            .idle_ns = CHOOSE_WINDOW_NS - (int64_t)(bytes / WRITE_BYTES_PER_NS),
            .units = UNITS,
            .workers = world.workers,
        };
        choose_next(&run.choose, &window);
    }
    assert_int_equal(run.choose.gear, GEAR_ZSTD);
}

static void a_peer_gets_nothing_that_it_does_not_read(void **state)
{
    struct world world = text;
    (void)state;

    world.link_bytes_per_s = 20 * MB;
    for (unsigned codecs = 1; codecs < 1u << CODECS; codecs += 2) {
        struct run run = begin(&world);
        choose_init(&run.choose, codecs);
        for (unsigned i = 0; i < 50; i++) {
            assert_true(codecs & 1u << gears[run.choose.gear].codec);
            pass_s(&run, 0.02);
        }
    }
}

/* Every link, few CPUs and many, shared ones, peers that unpack slowly, and noise: after ten seconds never more than
 * 5 % behind plain pages, nor 20 % behind the best codec that somebody who knew could have fixed beforehand. */
static void packing_never_costs_more_than_a_twentieth(void **state)
{
    static const unsigned workers[] = { 1, 2, 16 };
    static const double shares[] = { 1, 0.4 }, noises[] = { 0, 0.5 }, peers[] = { 0, 8000 };
    const struct world *contents[] = { &text, &random_bytes };
    (void)state;

    for (unsigned mb_per_s = 3; mb_per_s < 10000; mb_per_s *= 2) {
        for (unsigned i = 0; i < 3 * 2 * 2 * 2 * 2; i++) {
            struct world world = *contents[i % 2];
            world.link_bytes_per_s = mb_per_s * MB;
            world.workers = workers[i / 2 % 3];
            world.share = shares[i / 6 % 2];
            world.noise = noises[i / 12 % 2];
            for (unsigned gear = 0; gear < GEARS; gear++) {
                world.peer_ns[gear] = peers[i / 24 % 2] * (gear ? 1 + gear : 0.7);
            }
            struct run run = begin(&world);
            pass_s(&run, 10);
            double plain = units_per_s(&run) / fixed_units_per_s(&world, GEAR_NONE, 10);
            double best = units_per_s(&run) / best_units_per_s(&world, 10);
            if (plain < 0.95 || best < 0.8 || run.shifts > 50) {
                fail_msg("link %u MB/s, world %u, gear %u, %u shifts: %.3f of plain, %.3f of the best", mb_per_s, i,
                         run.choose.gear, run.shifts, plain, best);
            }
        }
    }
}

static void looking_at_other_codecs_costs_a_hundredth(void **state)
{
    struct choose c;
    int64_t probes_ns = 0;
    (void)state;

    choose_init(&c, (1u << CODECS) - 1);
    for (unsigned i = 0; i < 100000; i++) {
        choose_packed(&c, c.gear, 64, 64 * 1000, 64 * 2000);
        choose_worked(&c, c.gear, 64, 64 * 700, 64 * 1700, 64 * 1700);
        unsigned gear = choose_probe(&c);
        if (gear < GEARS) {
            choose_packed(&c, gear, CHOOSE_PROBE_UNITS, CHOOSE_PROBE_UNITS * 9000, CHOOSE_PROBE_UNITS * 1500);
            probes_ns += CHOOSE_PROBE_UNITS * 9000;
        }
    }
    assert_true(probes_ns > 0);
    assert_true((double)probes_ns <
                0.04 * 100000 * 64 * 1700); /* of the chunks that are measured: one of four or fewer */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_does_not_compress_is_sent_as_it_is),
        cmocka_unit_test(a_slow_link_gets_what_packs_most),
        cmocka_unit_test(a_fast_link_gets_plain_pages_from_few_cpus_and_packed_ones_from_many),
        cmocka_unit_test(a_codec_whose_cost_changes_is_left_and_taken_again),
        cmocka_unit_test(a_link_that_becomes_faster_is_found_out),
        cmocka_unit_test(a_cap_counts_as_the_link_within_100_ms),
        cmocka_unit_test(rounds_that_fit_into_a_socket_still_show_the_link),
        cmocka_unit_test(a_peer_gets_nothing_that_it_does_not_read),
        cmocka_unit_test(packing_never_costs_more_than_a_twentieth),
        cmocka_unit_test(looking_at_other_codecs_costs_a_hundredth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
