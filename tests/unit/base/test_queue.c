#include "tests/unit/test.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "base/queue.h"
#include "base/thread.h"

enum { ITEMS = 5000, WORKERS = 3 };

static unsigned item[WORKERS * ITEMS]; /* things to push: only their addresses matter */

static void what_went_in_first_comes_out_first(void **state)
{
    (void)state;
    struct queue queue;
    queue_init(&queue, 3);
    /* More than it holds, so that it goes round. */
    for (unsigned i = 0; i < 10; i++) {
        assert_true(queue_push(&queue, &item[2 * i]));
        assert_true(queue_push(&queue, &item[2 * i + 1]));
        assert_int_equal(queue_count(&queue), 2);
        assert_ptr_equal(queue_pop(&queue), &item[2 * i]);
        assert_ptr_equal(queue_try_pop(&queue), &item[2 * i + 1]);
        assert_null(queue_try_pop(&queue));
    }
    queue_destroy(&queue);
}

static void a_closed_queue_takes_nothing_and_gives_what_is_left(void **state)
{
    (void)state;
    struct queue queue;
    queue_init(&queue, 3);
    assert_true(queue_push(&queue, &item[0]));
    assert_true(queue_push(&queue, &item[1]));
    queue_close(&queue);
    queue_close(&queue);
    assert_false(queue_push(&queue, &item[2]));
    assert_ptr_equal(queue_pop(&queue), &item[0]);
    assert_ptr_equal(queue_pop(&queue), &item[1]);
    assert_null(queue_pop(&queue));
    assert_null(queue_try_pop(&queue));
    queue_destroy(&queue);
}

struct traffic {
    struct queue queue;
    _Atomic int tid;                  /* of one of the workers */
    _Atomic unsigned next;            /* which worker am I */
    _Atomic unsigned pushed, refused; /* by all */
    _Atomic unsigned popped;          /* counted before the pop */
    _Atomic bool overfull;            /* more inside than its capacity */
    _Atomic unsigned char seen[WORKERS * ITEMS];
};

static struct traffic traffic;

static void traffic_init(size_t capacity)
{
    traffic = (struct traffic){ 0 };
    queue_init(&traffic.queue, capacity);
}

/* Relaxed throughout: the join orders everything for the main thread. */
static void push_mine(void *opaque)
{
    (void)opaque;
    atomic_store_explicit(&traffic.tid, (int)gettid(), memory_order_relaxed);
    unsigned me = atomic_fetch_add_explicit(&traffic.next, 1, memory_order_relaxed);
    for (unsigned i = 0; i < ITEMS; i++) {
        if (!queue_push(&traffic.queue, &item[me * ITEMS + i]))
            atomic_fetch_add_explicit(&traffic.refused, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&traffic.pushed, 1, memory_order_relaxed);
        if (queue_count(&traffic.queue) > traffic.queue.capacity)
            atomic_store_explicit(&traffic.overfull, true, memory_order_relaxed);
    }
}

static void pop_all(void *opaque)
{
    (void)opaque;
    atomic_store_explicit(&traffic.tid, (int)gettid(), memory_order_relaxed);
    for (;;) {
        unsigned *got = queue_pop(&traffic.queue);
        if (!got)
            return;
        atomic_fetch_add_explicit(&traffic.seen[got - item], 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&traffic.popped, 1, memory_order_relaxed);
    }
}

static void start(struct thread *thread, void (*run)(void *opaque))
{
    *thread = (struct thread){ 0 };
    assert_int_equal(thread_start(thread, "traffic", run, NULL, NULL), 0);
}

static void nothing_is_lost_or_doubled_between_many_threads(void **state)
{
    (void)state;
    static const size_t capacities[] = { 1, 2, 64 };
    for (unsigned c = 0; c < sizeof(capacities) / sizeof(capacities[0]); c++) {
        struct thread in[WORKERS], out[WORKERS];
        traffic_init(capacities[c]);
        for (unsigned i = 0; i < WORKERS; i++) {
            start(&in[i], push_mine);
            start(&out[i], pop_all);
        }
        for (unsigned i = 0; i < WORKERS; i++)
            thread_join(&in[i]);
        queue_close(&traffic.queue);
        for (unsigned i = 0; i < WORKERS; i++)
            thread_join(&out[i]);
        assert_int_equal(atomic_load(&traffic.popped), WORKERS * ITEMS);
        assert_false(atomic_load(&traffic.overfull));
        for (unsigned i = 0; i < WORKERS * ITEMS; i++)
            assert_int_equal(atomic_load(&traffic.seen[i]), 1);
        queue_destroy(&traffic.queue);
    }
}

/* With nobody else popping, each pop makes room for exactly one push more. */
static void a_full_queue_blocks_the_pusher(void **state)
{
    (void)state;
    struct thread pusher;
    traffic_init(2);
    start(&pusher, push_mine);
    for (unsigned i = 0; i < ITEMS; i++) {
        /* Looked at before the pop: what was pushed by then fitted beside the i that were taken out. */
        assert_true(atomic_load(&traffic.pushed) <= i + traffic.queue.capacity);
        assert_ptr_equal(queue_pop(&traffic.queue), &item[i]);
    }
    thread_join(&pusher);
    queue_destroy(&traffic.queue);
}

static pid_t tid_of_worker(void)
{
    int tid;
    while ((tid = atomic_load_explicit(&traffic.tid, memory_order_relaxed)) == 0)
        sched_yield();
    return tid;
}

/* Until that thread sleeps: only then does closing have somebody to wake. */
static void wait_for_sleep(pid_t tid)
{
    char path[64], state = 0;
    snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)tid);
    while (state != 'S') {
        sched_yield();
        FILE *file = fopen(path, "r");
        assert_non_null(file);
        if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
            state = 0;
        fclose(file);
    }
}

static void closing_frees_a_pusher_that_waits_for_room(void **state)
{
    (void)state;
    struct thread pusher;
    traffic_init(1);
    assert_true(queue_push(&traffic.queue, &item[0]));
    start(&pusher, push_mine);
    wait_for_sleep(tid_of_worker());
    queue_close(&traffic.queue);
    thread_join(&pusher);
    assert_int_equal(atomic_load(&traffic.refused), ITEMS);
    assert_ptr_equal(queue_pop(&traffic.queue), &item[0]);
    queue_destroy(&traffic.queue);
}

static void closing_frees_everybody_who_waits_for_an_item(void **state)
{
    (void)state;
    struct thread out[WORKERS];
    traffic_init(1);
    for (unsigned i = 0; i < WORKERS; i++)
        start(&out[i], pop_all);
    wait_for_sleep(tid_of_worker());
    queue_close(&traffic.queue);
    for (unsigned i = 0; i < WORKERS; i++)
        thread_join(&out[i]);
    assert_int_equal(atomic_load(&traffic.popped), 0);
    queue_destroy(&traffic.queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_went_in_first_comes_out_first),
        cmocka_unit_test(a_closed_queue_takes_nothing_and_gives_what_is_left),
        cmocka_unit_test(nothing_is_lost_or_doubled_between_many_threads),
        cmocka_unit_test(a_full_queue_blocks_the_pusher),
        cmocka_unit_test(closing_frees_a_pusher_that_waits_for_room),
        cmocka_unit_test(closing_frees_everybody_who_waits_for_an_item),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
