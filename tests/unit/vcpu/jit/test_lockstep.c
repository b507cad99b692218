/* Lock-step: what both engines agree on happens once, and what they do not is found and told. Wrong code is made by
 * changing a constant in the host code of a region, behind godwit's back. */
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/vcpu/random_compare.h"
#include "vcpu/jit/jit_priv.h"

enum { SEEDS = 25, TURNS = 60, TIMES = 20, ADDEND = 0x5a5, PLACE = 0x2d8, OTHER = 8 };

#define DATA_AT (RIG_RAM + 0x10000)

static struct rig rig;

/* TIMES times: a0 grows, is stored, loaded through memory, and a device hears of it. */
static void put_loop(void)
{
    put_li(&rig, s0, DATA_AT);
    put_li(&rig, s2, RIG_ODDS);
    put_li(&rig, s1, TIMES);
    uint64_t loop = here(&rig);
    put(&rig, as(OP_addi, a0, a0, ADDEND));
    put(&rig, as(OP_sd, a0, s0, PLACE));
    put(&rig, as(OP_sb, zero, s0, PLACE + 1));
    put(&rig, as(OP_ld, a1, s0, PLACE)); /* of two stores, and neither is in memory yet */
    put(&rig, as(OP_amoadd_d, a2, s0, s1));
    put(&rig, as(OP_sw, a1, s2, 0));
    put(&rig, as(OP_addi, s1, s1, -1));
    put(&rig, as(OP_bne, s1, zero, (int64_t)(loop - here(&rig))));
    put_end(&rig);
}

static bool there_is_an_engine(void)
{
    rig_new_engine(&rig, 1, RIG_LOCKSTEP);
    if (rig.jit)
        return true;
    rig_free(&rig);
    return false;
}

static void what_both_agree_on_happens_once(void **state)
{
    struct jit_stats stats;
    uint64_t sum = 0;

    (void)state;
    if (!there_is_an_engine())
        skip();
    put_loop();
    struct hart *hart = rig_run(&rig);
    for (unsigned i = 1; i <= TIMES; i++)
        sum += i;
    assert_int_equal(hart->x[a0], TIMES * ADDEND);
    assert_int_equal(hart->x[a1], (TIMES * ADDEND) & ~0xff00);
    assert_int_equal(peek(&rig, DATA_AT + PLACE), (TIMES * ADDEND) & ~0xff00);
    assert_int_equal(peek(&rig, DATA_AT), sum);
    assert_int_equal(rig.odd_writes, TIMES);
    jit_stats(rig.jit, &stats);
    assert_true(stats.lockstep_runs > TIMES / 2 && stats.lockstep_instructions > stats.lockstep_runs);
    assert_int_equal(stats.lockstep_repeats, 0);
    rig_free(&rig);
}

static void random_programs_do_not_notice(void **state)
{
    struct compare c = { .engine = { RIG_INTERPRETER, RIG_LOCKSTEP }, .spoiled = -1, .patience_s = RUN_PATIENCE_S };
    struct random_world *w = test_malloc(sizeof(*w));

    (void)state;
    for (uint64_t seed = 300001; seed < 300001 + SEEDS; seed++) {
        random_world(w, seed, 60, TURNS);
        assert_true(world_is_the_same(&c, w));
    }
    test_free(w);
}

/* Every place in generated code that says `from` now says `to`. */
static unsigned spoil(struct jit *jit, uint32_t from, uint32_t to)
{
    unsigned found = 0;

    for (unsigned i = 0; i < jit->translations; i++) {
        uint8_t *at = code_writable(&jit->code, jit->by_address[i]->near_entry);

        for (; at + 4 <= code_writable(&jit->code, jit->by_address[i]->end); at++)
            if (memcmp(at, &from, 4) == 0) {
                memcpy(at, &to, 4);
                found++;
            }
    }
    return found;
}

/* In a child: once with good code, once with bad. Never returns. */
static void run_spoiled(uint32_t from, uint32_t to, int messages)
{
    dup2(messages, STDERR_FILENO);
    if (!there_is_an_engine())
        _exit(77);
    put_loop();
    rig_run(&rig);
    if (!spoil(rig.jit, from, to))
        _exit(2);
    rig_hart(&rig)->pc = RIG_RAM;
    rig_run(&rig);
    _exit(0);
}

static void assert_caught(uint32_t from, uint32_t to, const char *const *told)
{
    static char text[16384];
    int messages[2], status;
    size_t bytes = 0;
    ssize_t more;

    assert_int_equal(pipe(messages), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        run_spoiled(from, to, messages[1]);
    close(messages[1]);
    while ((more = read(messages[0], text + bytes, sizeof(text) - 1 - bytes)) > 0)
        bytes += (size_t)more;
    text[bytes] = 0;
    close(messages[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip();
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
        fail_msg("ended with %x and said '%s'", (unsigned)status, text);
    for (; *told; told++)
        if (!strstr(text, *told))
            fail_msg("no '%s' in '%s'", *told, text);
}

static void a_wrong_result_is_caught(void **state)
{
    static const char *const told[] = {
        "generated code and the interpreter differ", "addi a0,a0,1445", "\n* a0 ", "\n  s1 ", NULL,
    };

    (void)state;
    assert_caught(ADDEND, ADDEND + 1, told);
}

static void a_store_to_the_wrong_place_is_caught(void **state)
{
    static const char *const told[] = {
        "generated code and the interpreter differ", "sd a0,728(s0)", "\n  a0 ", "\n* 0x00000000800102e0: ", NULL,
    };

    (void)state;
    assert_caught(PLACE, PLACE + OTHER, told);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wrong_result_is_caught),
        cmocka_unit_test(a_store_to_the_wrong_place_is_caught),
        cmocka_unit_test(what_both_agree_on_happens_once),
        cmocka_unit_test(random_programs_do_not_notice),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
