/* What the link gives when no cap binds, as the pause will have it. Under a cap the acknowledgements do not tell: the bytes come
 * evenly. So now and then a round is nearly empty, and the next one a short train without the cap; what both take, told by the
 * destination's "loaded", differs by the train. What went out too early is waited for then. */
#include "migration/outgoing.h"

enum { PROBES_FIRST = 3 };                                      /* one says how fast, but not how sure that is */
enum { TRAIN_NS = 15 * 1000000, TRAIN_BYTES_MIN = 256 * 1024 }; /* so much of the cap in one train */

struct train {
    uint64_t bytes;
    int64_t elapsed_ns;
};

static int send_train(struct outgoing *o, uint64_t bytes, struct train *train)
{
    struct pipeline_stats before, after;
    int64_t start_ns = clock_now_ns();
    pipeline_stats(o->pipeline, &before);
    int rc = pipeline_train_begin(o->pipeline, bytes, &o->err);
    if (rc == 0)
        rc = pipeline_round_end(o->pipeline, NULL, &o->err);
    if (rc == 0)
        rc = outgoing_wait_loaded(o, before.rounds + 1);
    pipeline_stats(o->pipeline, &after);
    train->bytes = after.wire_bytes - before.wire_bytes;
    train->elapsed_ns = clock_now_ns() - start_ns;
    return rc;
}

static int probe_once(struct outgoing *o, uint64_t cap)
{
    struct train none = { 0 }, some = { 0 };
    int64_t start_ns = clock_now_ns();
    uint64_t bytes = cap / NS_PER_S * TRAIN_NS + cap % NS_PER_S * TRAIN_NS / NS_PER_S;
    /* Half of its time before it, half behind: over no second is the cap passed by more than half a train. */
    int rc = outgoing_wait(o, TRAIN_NS / 2);
    outgoing_binds(o, true);
    if (rc == 0)
        rc = send_train(o, 0, &none);
    if (rc == 0)
        rc = send_train(o, bytes > TRAIN_BYTES_MIN ? bytes : TRAIN_BYTES_MIN, &some);
    outgoing_binds(o, false);
    if (rc < 0)
        return rc;
    converge_trip(&o->converge, none.elapsed_ns);
    if (some.bytes > none.bytes && some.elapsed_ns > none.elapsed_ns)
        converge_train(&o->converge, some.bytes - none.bytes, some.elapsed_ns - none.elapsed_ns);
    double owed_ns = (double)(none.bytes + some.bytes) * 1e9 / (double)cap;
    rc = outgoing_wait(o, (int64_t)owed_ns - TRAIN_NS / 2 - none.elapsed_ns - some.elapsed_ns);
    int64_t lost_ns = clock_now_ns() - start_ns - (int64_t)owed_ns;
    o->probe_lost_ns = lost_ns > 0 ? lost_ns : 0;
    return rc;
}

int outgoing_probe(struct outgoing *o, const struct converge_sample *sample)
{
    struct converge_policy policy = outgoing_policy(o);
    uint64_t cap = policy.max_bytes_per_s;
    bool capped = cap && !policy.switchover_bytes_per_s && sample->rate_wait_ns > sample->elapsed_ns / 10;
    if (!capped || o->one_way || policy.guest_paused)
        return 0;
    if (o->probed_ns && clock_now_ns() - o->probed_ns < converge_train_every_ns(o->probe_lost_ns))
        return 0;

    int rc = probe_once(o, cap);
    for (unsigned i = 1; i < PROBES_FIRST && rc == 0 && !o->probed_ns; i++)
        rc = probe_once(o, cap);
    o->probed_ns = clock_now_ns();
    return rc;
}
