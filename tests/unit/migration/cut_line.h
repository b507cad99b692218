/* Two machines, and a proxy between them that cuts the line at a chosen message. */
#pragma once
#include "tests/unit/migration/two_machines.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "migration/message.h"

#define COUNTER (BOARD_RAM_BASE + MIB)

static const uint32_t counts[] = {
    0x00100297, /* auipc t0, 0x100: COUNTER */
    0x0002b303, /* ld    t1, 0(t0) */
    0x00130313, /* addi  t1, t1, 1 */
    0x0062b023, /* sd    t1, 0(t0) */
    0xff5ff06f, /* j     -12 */
};

/* --- the proxy ------------------------------------------------------------------------------------------------ */

enum { PAIRS_MAX = 8 };
enum cut { CUT_BEFORE, CUT_AFTER, SWALLOW /* that message alone is lost, the line stays */ };

struct proxy {
    /* fixed while it runs */
    int listener, stop[2];
    enum message_type cut_at;
    enum cut cut;
    unsigned cuts;                   /* so many times */
    _Atomic enum message_type twice; /* arrives twice, always; 0: none */
    pthread_t thread;
    /* written by the thread */
    _Atomic unsigned done, lines;
    int end[PAIRS_MAX][2]; /* -1: closed */
};

static struct sockaddr_un address(const char *name)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    snprintf(at.sun_path, sizeof(at.sun_path), "%s/%s", folder, name);
    return at;
}

static bool forward(int to, const uint8_t *data, size_t bytes)
{
    while (bytes) {
        ssize_t sent = send(to, data, bytes, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        data += sent, bytes -= (size_t)sent;
    }
    return true;
}

/* The message begins anywhere in the bytes; a payload that looks like its head would only cut somewhere else. */
static const uint8_t *find(enum message_type type, const uint8_t *data, size_t bytes, size_t *message_bytes)
{
    for (size_t at = 0; at + MESSAGE_HEAD_BYTES <= bytes; at++)
        if (be32_get(data + at) == MESSAGE_MAGIC && be16_get(data + at + 4) == type && be16_get(data + at + 6) == 0) {
            *message_bytes = MESSAGE_HEAD_BYTES + be32_get(data + at + 8) + 8;
            if (*message_bytes > bytes - at)
                *message_bytes = bytes - at;
            return data + at;
        }
    return NULL;
}

static void close_pair(int end[2])
{
    close(end[0]);
    close(end[1]);
    end[0] = end[1] = -1;
}

static void pass_on(struct proxy *p, int end[2], int from)
{
    static uint8_t data[1 << 16];
    ssize_t got = read(end[from], data, sizeof(data));
    if (got <= 0) {
        close_pair(end);
        return;
    }
    size_t bytes = (size_t)got, message_bytes, rest = 0;
    const uint8_t *found = p->done < p->cuts ? find(p->cut_at, data, bytes, &message_bytes) : NULL;
    if (found) {
        p->done++;
        bytes = (size_t)(found - data) + (p->cut == CUT_AFTER ? message_bytes : 0);
        rest = p->cut == SWALLOW ? (size_t)got - bytes - message_bytes : 0;
    }
    const uint8_t *again = p->twice ? find(p->twice, data, bytes, &message_bytes) : NULL;
    size_t first = again ? (size_t)(again - data) + message_bytes : 0;
    bool sent = forward(end[!from], data, first) && forward(end[!from], again, again ? message_bytes : 0) &&
                forward(end[!from], data + first, bytes - first) && forward(end[!from], data + got - rest, rest);
    if (!sent || (found && p->cut != SWALLOW))
        close_pair(end);
}

static void new_pair(struct proxy *p)
{
    struct sockaddr_un to = address("there");
    int *end = p->end[p->lines];
    int here = accept(p->listener, NULL, NULL), there = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(there, (struct sockaddr *)&to, sizeof(to)) != 0 || p->lines == PAIRS_MAX) {
        close(here);
        close(there);
        return;
    }
    end[0] = here;
    end[1] = there;
    p->lines++;
}

static void *proxy_run(void *opaque)
{
    struct proxy *p = opaque;
    for (;;) {
        struct pollfd wait[2 + 2 * PAIRS_MAX] = { { .fd = p->stop[0], .events = POLLIN },
                                                  { .fd = p->listener, .events = POLLIN } };
        unsigned lines = p->lines;
        for (unsigned i = 0; i < 2 * lines; i++)
            wait[2 + i] = (struct pollfd){ .fd = p->end[i / 2][i % 2], .events = POLLIN };
        poll(wait, 2 + 2 * lines, -1);
        if (wait[0].revents)
            break;
        if (wait[1].revents)
            new_pair(p);
        for (unsigned i = 0; i < 2 * lines; i++)
            if (wait[2 + i].revents && p->end[i / 2][0] >= 0)
                pass_on(p, p->end[i / 2], i % 2);
    }
    for (unsigned i = 0; i < p->lines; i++)
        if (p->end[i][0] >= 0)
            close_pair(p->end[i]);
    return NULL;
}

static struct proxy proxy;

static void proxy_start(enum message_type cut_at, enum cut cut, unsigned cuts)
{
    struct sockaddr_un here = address("here");
    proxy = (struct proxy){ .cut_at = cut_at, .cut = cut, .cuts = cuts };
    proxy.listener = socket(AF_UNIX, SOCK_STREAM, 0);
    unlink(here.sun_path);
    assert_int_equal(pipe(proxy.stop), 0);
    assert_int_equal(bind(proxy.listener, (struct sockaddr *)&here, sizeof(here)), 0);
    assert_int_equal(listen(proxy.listener, PAIRS_MAX), 0);
    assert_int_equal(pthread_create(&proxy.thread, NULL, proxy_run, &proxy), 0);
}

static void proxy_end(void)
{
    if (!proxy.listener)
        return;
    assert_int_equal(write(proxy.stop[1], "", 1), 1);
    pthread_join(proxy.thread, NULL);
    close(proxy.listener);
    close(proxy.stop[0]);
    close(proxy.stop[1]);
    proxy.listener = 0;
}

/* --- helpers -------------------------------------------------------------------------------------------------------- */

static int setup(void **state)
{
    (void)state;
    return make_both(
        &(struct shape){ .harts = 1, .ram_bytes = 8 * MIB, .program = counts, .program_bytes = sizeof(counts) });
}

static int teardown(void **state)
{
    (void)state;
    proxy_end();
    return drop_both();
}

static enum migration_state settled(struct side *side)
{
    struct migration_info info;
    assert_true(migration_wait(side->migration, PATIENCE_MS));
    migration_query(side->migration, &info);
    return info.state;
}

static bool runs(struct side *side)
{
    return machine_state(side->machine) == RUN_RUNNING;
}

static uint64_t counter(struct side *side)
{
    uint64_t value;
    assert_true(ram_read(machine_ram(side->machine), COUNTER, &value, 8));
    return value;
}

static void let_it_count(struct side *side)
{
    uint64_t from = counter(side);
    for (int64_t until_ns = clock_now_ns() + PATIENCE_MS * (int64_t)NS_PER_MS; counter(side) < from + 100;) {
        if (clock_now_ns() > until_ns)
            fail_msg("the guest does not run");
        sched_yield();
    }
}

static inline const char *why(struct side *side)
{
    static struct migration_info info;
    migration_query(side->migration, &info);
    return info.error.text;
}

static inline void wait_for_state(struct side *side, enum migration_state state)
{
    for (int64_t until_ns = clock_now_ns() + PATIENCE_MS * (int64_t)NS_PER_MS; settled(side) != state;) {
        struct migration_info info;
        migration_query(side->migration, &info);
        bool over = info.state == MIGRATION_FAILED || info.state == MIGRATION_COMPLETED;
        if ((over && info.state != state) || clock_now_ns() > until_ns) {
            fail_msg("not %s but %s: %s", migration_state_name(state), migration_state_name(info.state), why(side));
        }
        sched_yield();
    }
}

static void start_with_a_cut(enum message_type cut_at, enum cut cut, unsigned cuts)
{
    char uri[96];
    struct err err = { 0 };
    assert_int_equal(machine_resume(a.machine, false, NULL), 0);
    let_it_count(&a);
    snprintf(uri, sizeof(uri), "unix:%s/there", folder);
    if (migration_incoming(b.migration, uri, true, &err) < 0)
        fail_msg("%s", err.text);
    proxy_start(cut_at, cut, cuts);
    snprintf(uri, sizeof(uri), "unix:%s/here", folder);
    assert_int_equal(migration_start(a.migration, uri, NULL), 0);
}

/* And nobody asks again by himself. */
static void move_with_a_cut(enum message_type cut_at, enum cut cut)
{
    param_set_number(migration_params_of(a.migration), "reconnect-time", 0, NULL);
    start_with_a_cut(cut_at, cut, 1);
    settled(&a);
    settled(&b);
    assert_int_equal(proxy.done, 1);
    assert_false(runs(&a) && runs(&b));
}

static void wait_for_runner(struct side *side)
{
    for (int64_t until_ns = clock_now_ns() + PATIENCE_MS * (int64_t)NS_PER_MS; !runs(side);) {
        if (clock_now_ns() > until_ns)
            fail_msg("nobody runs the guest");
        sched_yield();
    }
    let_it_count(side);
}
