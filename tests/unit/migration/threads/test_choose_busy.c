/* The choice on a host that is too small: two cores for a vCPU that never sleeps, two workers, the writer, and the
 * destination as well; a link of 1 Gbit/s behind sockets that swallow 6 MB at once, and rounds of a quarter of a second,
 * as in the bench's cell hot200k-1G. Threads take turns as they do under a scheduler, so that what workers and writer
 * measure comes in bursts. Time is the world's own. */
#include "tests/unit/test.h"

#include <math.h>
#include <stdlib.h>

#include "migration/threads/choose.h"
#include "tests/unit/migration/threads/fake.h"

enum {
    STEP_NS = 50000,
    CHUNK = 64,
    POOL_CHUNKS = 32,
    WORKERS = 2,
    THREADS = 6,
    ROUND_CHUNKS = 250, /* 16,000 pages */
    ROUND_TRIP_STEPS = 20,
    SAMPLE_NS = 250000,
};
enum thread_name { VCPU, WORKER, WRITER = WORKER + WORKERS, RECEIVER, LOADER };

struct costs {
    double cpu_ns, bytes, load_ns;
};

struct host {
    double copy_ns;
    struct costs gear[GEARS];
    double link_bytes_per_s, send_buffer, receive_buffer;
    unsigned cores;
    bool vcpu_busy;
};

static const struct host hot200k = {
    .copy_ns = 700,
    .gear = { { 300, 4100, 1500 }, { 4500, 1900, 2500 }, { 6000, 1600, 2500 }, { 11000, 1150, 5000 } },
    .link_bytes_per_s = 125e6,
    .send_buffer = 3e6,
    .receive_buffer = 3e6,
    .cores = 2,
    .vcpu_busy = true,
};

struct parcel {
    unsigned gear;
    double left; /* bytes, or ns of loading */
};

struct maker {
    unsigned gear;
    bool has; /* a chunk under way */
    double left_ns;
    int64_t begun_ns, sampled_ns;
    unsigned units_since, chunks_since;
};

struct busy {
    struct host host;
    struct choose choose;
    int fixed; /* this gear always; -1: as chosen */
    int64_t now_ns;
    uint64_t seed;
    int running[8]; /* by core: thread, or -1 */
    int slice[8];
    struct maker maker[WORKERS];
    struct parcel queue[POOL_CHUNKS * 8]; /* made, in order */
    uint64_t made, written, received, loaded;
    uint64_t quota; /* chunks that this round still hands out */
    double in_send, in_receive, receive_left, load_left_ns;
    /* what a window sees */
    int64_t idle_ns, frozen_ns, since_ns, peer_waited_ns, peer_since_ns;
    double sent;
    bool frozen, disturbed, shifted, peer_lags;
    unsigned units, chunks;
    uint64_t gear_chunks[GEARS];
    double round_bytes;
    int64_t waiting_ns; /* a wait that has not ended is not counted yet */
};

static struct parcel *parcel(struct busy *b, uint64_t number)
{
    return &b->queue[number % (POOL_CHUNKS * 8)];
}

static unsigned gear_of(const struct busy *b)
{
    return b->fixed >= 0 ? (unsigned)b->fixed : b->choose.gear;
}

static bool can_run(const struct busy *b, int thread)
{
    switch (thread) {
    case VCPU: return b->host.vcpu_busy;
    case WRITER: return b->written < b->made && b->in_send < b->host.send_buffer * (b->frozen ? 0.66 : 1);
    case RECEIVER: return b->in_receive > 0 && b->received - b->loaded < POOL_CHUNKS;
    case LOADER: return b->loaded < b->received;
    default: {
        const struct maker *maker = &b->maker[thread - WORKER];
        return maker->has || (b->quota && b->made - b->written < POOL_CHUNKS);
    }
    }
}

static void end_window(struct busy *b)
{
    struct choose_window window = {
        .elapsed_ns = b->now_ns - b->since_ns,
        .idle_ns = b->idle_ns,
        .frozen_ns = b->frozen_ns,
        .sent_bytes = (uint64_t)b->sent,
        .units = b->units,
        .peer_lags = b->peer_lags,
        .one_round = !b->disturbed,
        .steady = !b->disturbed && !b->shifted,
        .workers = WORKERS,
    };
    if (window.elapsed_ns < CHOOSE_WINDOW_NS || b->chunks < CHOOSE_CHUNKS_MIN) {
        return;
    }
    b->since_ns = b->now_ns;
    b->idle_ns = b->frozen_ns = 0;
    b->sent = 0;
    b->units = b->chunks = 0;
    b->disturbed = b->shifted = false;
    choose_next(&b->choose, &window);
}

static void measured(struct busy *b, struct maker *maker)
{
    struct choose *c = &b->choose;
    const struct host *h = &b->host;
    int64_t copy_ns = (int64_t)(CHUNK * h->copy_ns), pack_ns = (int64_t)(CHUNK * h->gear[maker->gear].cpu_ns);
    maker->sampled_ns = b->now_ns;
    b->shifted |= maker->gear != c->gear;
    choose_packed(c, maker->gear, CHUNK, pack_ns, (uint64_t)(CHUNK * h->gear[maker->gear].bytes));
    choose_worked(c, maker->gear, CHUNK, copy_ns, copy_ns + pack_ns, b->now_ns - maker->begun_ns);
    b->units += maker->units_since;
    b->chunks += maker->chunks_since;
    maker->units_since = maker->chunks_since = 0;
    end_window(b);
    unsigned other = choose_probe(c);
    if (other < GEARS) {
        choose_packed(c, other, CHOOSE_PROBE_UNITS, (int64_t)(CHOOSE_PROBE_UNITS * h->gear[other].cpu_ns),
                      (uint64_t)(CHOOSE_PROBE_UNITS * h->gear[other].bytes));
    }
}

static void work(struct busy *b, struct maker *maker)
{
    double left_ns = STEP_NS;
    while (left_ns > 0) {
        if (!maker->has) {
            if (!b->quota || b->made - b->written >= POOL_CHUNKS) {
                return;
            }
            b->quota--;
            maker->has = true;
            maker->gear = gear_of(b);
            maker->begun_ns = b->now_ns;
            maker->left_ns = CHUNK * (b->host.copy_ns + b->host.gear[maker->gear].cpu_ns);
        }
        double part = fmin(left_ns, maker->left_ns);
        left_ns -= part;
        maker->left_ns -= part;
        if (maker->left_ns > 0) {
            return;
        }
        maker->has = false;
        *parcel(b, b->made++) = (struct parcel){ maker->gear, CHUNK * b->host.gear[maker->gear].bytes };
        b->gear_chunks[maker->gear]++;
        b->round_bytes += CHUNK * b->host.gear[maker->gear].bytes;
        maker->units_since += CHUNK;
        maker->chunks_since++;
        if (b->now_ns + STEP_NS - maker->sampled_ns >= SAMPLE_NS) {
            b->now_ns += STEP_NS; /* the chunk ends within this step */
            measured(b, maker);
            b->now_ns -= STEP_NS;
        }
    }
}

static void write_some(struct busy *b)
{
    double left = STEP_NS * 2.0; /* bytes: 2 GB/s */
    if (b->frozen) {
        b->frozen_ns += b->waiting_ns;
    } else {
        b->idle_ns += b->waiting_ns;
    }
    b->waiting_ns = 0;
    b->frozen = false;
    while (b->written < b->made && left > 0) {
        struct parcel *p = parcel(b, b->written);
        double part = fmin(fmin(left, p->left), b->host.send_buffer - b->in_send);
        p->left -= part;
        left -= part;
        b->in_send += part;
        b->sent += part;
        if (p->left > 0) {
            b->frozen = b->in_send >= b->host.send_buffer;
            return;
        }
        b->written++;
        if (b->in_send >= b->host.send_buffer) {
            b->frozen = b->written < b->made;
            return;
        }
    }
}

static void receive_some(struct busy *b)
{
    double left = STEP_NS * 3.0;
    while (left > 0 && b->in_receive > 0 && b->received - b->loaded < POOL_CHUNKS) {
        if (b->receive_left <= 0) {
            b->receive_left = CHUNK * b->host.gear[parcel(b, b->received)->gear].bytes;
        }
        double part = fmin(fmin(left, b->receive_left), b->in_receive);
        b->receive_left -= part;
        b->in_receive -= part;
        left -= part;
        if (b->receive_left <= 0.5) {
            b->receive_left = 0;
            b->received++;
        }
    }
}

static void load_some(struct busy *b)
{
    double left_ns = STEP_NS;
    while (left_ns > 0 && b->loaded < b->received) {
        if (b->load_left_ns <= 0) {
            b->load_left_ns = CHUNK * b->host.gear[parcel(b, b->loaded)->gear].load_ns;
        }
        double part = fmin(left_ns, b->load_left_ns);
        b->load_left_ns -= part;
        left_ns -= part;
        b->loaded += b->load_left_ns <= 0;
    }
}

static void run_thread(struct busy *b, int thread)
{
    switch (thread) {
    case VCPU: break;
    case WRITER: write_some(b); break;
    case RECEIVER: receive_some(b); break;
    case LOADER: load_some(b); break;
    default: work(b, &b->maker[thread - WORKER]);
    }
}

static bool on_a_core(const struct busy *b, int thread)
{
    for (unsigned core = 0; core < b->host.cores; core++) {
        if (b->running[core] == thread) {
            return true;
        }
    }
    return false;
}

static void pick(struct busy *b, unsigned core)
{
    int waiting[THREADS + 1], count = 0;
    b->running[core] = -1;
    for (int thread = 0; thread < THREADS; thread++) {
        if (can_run(b, thread) && !on_a_core(b, thread)) {
            waiting[count++] = thread;
        }
    }
    if (count) {
        b->running[core] = waiting[fake_random(&b->seed) % (unsigned)count];
        b->slice[core] = 10 + (int)(fake_random(&b->seed) % 60); /* 0.5 to 3.5 ms */
    }
}

static void step(struct busy *b)
{
    for (unsigned core = 0; core < b->host.cores; core++) {
        if (b->running[core] < 0 || !can_run(b, b->running[core]) || b->slice[core]-- <= 0) {
            pick(b, core);
        }
        if (b->running[core] >= 0) {
            run_thread(b, b->running[core]);
        }
    }
    if (!can_run(b, WRITER)) {
        b->waiting_ns += STEP_NS;
    }
    if (b->in_receive <= 0) {
        b->peer_waited_ns += STEP_NS;
    }
    double through = fmin(fmin(b->in_send, b->host.link_bytes_per_s * STEP_NS / 1e9),
                          fmax(b->host.receive_buffer - b->in_receive, 0));
    b->in_send -= through;
    b->in_receive += through;
    b->now_ns += STEP_NS;
    if (b->now_ns - b->peer_since_ns >= 10000000) {
        b->peer_lags = b->peer_waited_ns * 20 < b->now_ns - b->peer_since_ns;
        b->peer_since_ns = b->now_ns;
        b->peer_waited_ns = 0;
    }
}

static int64_t pass_round(struct busy *b)
{
    int64_t start_ns = b->now_ns, made_ns = 0;
    uint64_t end = b->loaded + ROUND_CHUNKS;
    b->quota = ROUND_CHUNKS;
    b->disturbed = true;
    b->round_bytes = 0;
    while (b->loaded < end) {
        step(b);
        if (!made_ns && b->made == end) {
            made_ns = b->now_ns - start_ns;
        }
    }
    for (unsigned i = 0; i < ROUND_TRIP_STEPS; i++) {
        step(b);
    }
    choose_carried(&b->choose, (uint64_t)b->round_bytes, made_ns, b->now_ns - start_ns);
    return b->now_ns - start_ns;
}

enum { ROUNDS = 24 };

static double mean_round_ms(const struct host *host, int fixed, uint64_t seed)
{
    struct busy *b = calloc(1, sizeof(*b));
    double sum_ms = 0;

    *b = (struct busy){ .host = *host, .fixed = fixed, .seed = seed };
    choose_init(&b->choose, (1u << CODECS) - 1);
    memset(b->running, 0xff, sizeof(b->running));
    for (unsigned i = 0; i < ROUNDS; i++) {
        sum_ms += (double)pass_round(b) / 1e6;
    }
    free(b);
    return sum_ms / ROUNDS;
}

/* With whatever CPUs are left, and however much the sockets swallow: over six seconds no more than 15 % behind the best
 * codec that somebody who knew could have fixed. */
static void a_link_that_limits_gets_what_packs_most_on_a_host_that_is_busy(void **state)
{
    static const double buffers[] = { 3e6, 10e6 }, slowness[] = { 0.7, 1 };
    (void)state;

    for (unsigned i = 0; i < 8; i++) {
        struct host host = hot200k;
        double best_ms = INFINITY, sum_ms = 0;
        host.vcpu_busy = i & 1;
        host.send_buffer = host.receive_buffer = buffers[i / 2 % 2];
        host.copy_ns *= slowness[i / 4];
        for (unsigned gear = 0; gear < GEARS; gear++) {
            host.gear[gear].cpu_ns *= slowness[i / 4];
            host.gear[gear].load_ns *= slowness[i / 4];
        }
        for (int gear = 0; gear < GEARS; gear++) {
            best_ms = fmin(best_ms, mean_round_ms(&host, gear, 3));
        }
        for (unsigned seed = 1; seed < 5; seed++) {
            double ms = mean_round_ms(&host, -1, seed);
            sum_ms += ms / 4;
            if (ms > 1.2 * best_ms) {
                fail_msg("host %u, seed %u: %.0f ms a round, the best codec takes %.0f", i, seed, ms, best_ms);
            }
        }
        assert_true(sum_ms < 1.15 * best_ms);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_link_that_limits_gets_what_packs_most_on_a_host_that_is_busy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
