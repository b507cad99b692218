#include "tests/unit/test.h"

#include "base/thread.h"
#include "migration/threads/pool.h"

static void what_was_given_last_is_taken_first(void **state)
{
    struct pool pool;
    (void)state;

    assert_int_equal(pool_new(&pool, 2, 0, NULL), 0);
    struct chunk *a = pool_take(&pool), *b = pool_take(&pool);
    assert_ptr_not_equal(a, b);
    pool_give(&pool, b);
    pool_give(&pool, a);
    assert_ptr_equal(pool_take(&pool), a);
    assert_ptr_equal(pool_take(&pool), b);
    pool_destroy(&pool);
}

struct taker {
    struct pool *pool;
    struct chunk *got;
};

static void take_one(void *opaque)
{
    struct taker *taker = opaque;
    taker->got = pool_take(taker->pool);
}

static void an_empty_pool_is_waited_for_until_it_is_given_to_or_closed(void **state)
{
    struct thread thread;
    struct pool pool;
    struct taker taker = { .pool = &pool };
    (void)state;

    assert_int_equal(pool_new(&pool, 1, 1, NULL), 0); /* three */
    struct chunk *all[] = { pool_take(&pool), pool_take(&pool), pool_take(&pool) };
    assert_int_equal(pool.count, 3);
    assert_int_equal(thread_start(&thread, "taker", take_one, &taker, NULL), 0);
    pool_give(&pool, all[1]);
    thread_join(&thread);
    assert_ptr_equal(taker.got, all[1]);
    assert_int_equal(thread_start(&thread, "taker", take_one, &taker, NULL), 0);
    pool_close(&pool);
    thread_join(&thread);
    assert_null(taker.got);
    pool_give(&pool, all[0]); /* comes home too late */
    assert_null(pool_take(&pool));
    pool_destroy(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_given_last_is_taken_first),
        cmocka_unit_test(an_empty_pool_is_waited_for_until_it_is_given_to_or_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
