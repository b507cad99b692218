/* Random programs on two engines: registers, CSRs, instret, traps and memory must be the same, to the last bit.
 *
 * make test runs the same seeds every time; `make stress` (GODWIT_LONG) many more. To hunt: GODWIT_SEED=N begins at seed
 * N, GODWIT_SEEDS=M runs M of them. A difference prints its seed, what differs, and the least program that shows it. */
#include "tests/unit/vcpu/random_compare.h"

#ifdef __SANITIZE_THREAD__ /* thirty times slower */
enum { SEEDS = 40 };
#else
enum { SEEDS = 300 };
#endif
enum { SEEDS_LONG = 20000, BODY_UNITS = 60, TURNS = 150 };

static uint64_t number_from(const char *name, uint64_t missing)
{
    const char *text = getenv(name);

    return text && *text ? strtoull(text, NULL, 0) : missing;
}

static void compare_seeds(struct compare *c, uint64_t first, uint64_t seeds)
{
    struct random_world *w = test_malloc(sizeof(*w));

    for (uint64_t seed = first; seed < first + seeds; seed++) {
        random_world(w, seed, BODY_UNITS, TURNS);
        assert_true(world_is_the_same(c, w));
    }
    test_free(w);
}

static uint64_t wanted_seeds(void)
{
    const char *is_long = getenv("GODWIT_LONG");

    return number_from("GODWIT_SEEDS", is_long && *is_long ? SEEDS_LONG : SEEDS);
}

static void both_engines_leave_the_same_behind(void **state)
{
    struct compare c = { .engine = { RIG_INTERPRETER, RIG_JIT }, .spoiled = -1, .patience_s = RUN_PATIENCE_S };

    (void)state;
    compare_seeds(&c, number_from("GODWIT_SEED", 1), wanted_seeds());
}

/* Each instruction has a longer form for CPUs that lack the shorter, and an atomic one for machines of many harts. */
static void an_older_cpu_and_shared_memory_leave_the_same(void **state)
{
    struct compare c = { .engine = { RIG_INTERPRETER, RIG_JIT_PLAIN }, .spoiled = -1, .patience_s = RUN_PATIENCE_S };

    (void)state;
    compare_seeds(&c, number_from("GODWIT_SEED", 200001), wanted_seeds() / 2 + 1);
}

/* Kicks make an engine leave its code at any block: nothing may get lost or done twice. */
static void kicks_at_any_moment_change_nothing(void **state)
{
    struct compare c = {
        .engine = { RIG_INTERPRETER, RIG_JIT }, .disturb = true, .spoiled = -1, .patience_s = RUN_PATIENCE_S
    };

    (void)state;
    compare_seeds(&c, number_from("GODWIT_SEED", 100001), wanted_seeds() / 3 + 1);
}

/* The test's own eyes: one instruction is another one in the second run. That must be seen, and found. */
static void a_spoiled_instruction_is_found(void **state)
{
    struct compare c = { .engine = { RIG_INTERPRETER, RIG_INTERPRETER }, .patience_s = RUN_PATIENCE_S };
    struct random_world *w = test_malloc(sizeof(*w));
    unsigned found = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 10 && found < 2; seed++) {
        random_world(w, seed, BODY_UNITS, TURNS);
        for (c.spoiled = 0; w->code.unit[c.spoiled].kind != UNIT_VARIABLE; c.spoiled++)
            continue;
        if (!worlds_differ(&c, w)) /* its result is never used, or it never runs */
            continue;
        shrink(&c, w);
        assert_false(w->removed[c.spoiled]);
        assert_in_range(units_left(w), 1, 8);
        found++;
    }
    assert_in_range(found, 1, 2);
    test_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_spoiled_instruction_is_found),
        cmocka_unit_test(both_engines_leave_the_same_behind),
        cmocka_unit_test(an_older_cpu_and_shared_memory_leave_the_same),
        cmocka_unit_test(kicks_at_any_moment_change_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
