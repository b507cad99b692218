#include "migration/threads/steer.h"

#include "base/clock.h"

static uint64_t get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static struct steer_counts counts_now(const struct steer *steer)
{
    struct steer_counts now = { .at_ns = clock_now_ns() };

    for (unsigned i = 0; i < steer->writer_count; i++) {
        const struct writer *writer = &steer->writers[i];
        now.sent_bytes += get(&writer->wire_bytes);
        now.idle_ns += get(&writer->idle_ns) / steer->writer_count;
        now.frozen_ns += get(&writer->frozen_ns) / steer->writer_count;
        now.rate_wait_ns += get(&writer->rate_wait_ns) / steer->writer_count;
    }
    return now;
}

void steer_init(struct steer *steer, const struct pipeline_options *options)
{
    *steer = (struct steer){
        .tunables = options->tunables,
        .workers = options->workers,
        .codecs = options->codecs ? options->codecs | 1u << CODEC_RAW : (1u << CODECS) - 1,
        .settled = options->settled,
        .peer_waits_permille = options->peer_waits_permille,
    };
    lock_init(&steer->lock, LOCK_LEAF);
    choose_init(&steer->choose, steer->codecs);
    atomic_init(&steer->gear, steer->choose.gear);
}

void steer_follow(struct steer *steer, const struct writer *writers, unsigned count)
{
    steer->writers = writers;
    steer->writer_count = count;
    steer->since = counts_now(steer);
}

void steer_destroy(struct steer *steer)
{
    lock_destroy(&steer->lock);
}

/* What the peer reads of it. */
static enum codec readable(const struct steer *steer, enum codec codec)
{
    if (codec == CODEC_ZSTD && !(steer->codecs & 1u << codec)) {
        codec = CODEC_LZ4;
    }
    return steer->codecs & 1u << codec ? codec : CODEC_RAW;
}

unsigned steer_pick(struct steer *steer, struct gear *out)
{
    uint32_t wanted = atomic_load_explicit(&steer->tunables->codec, memory_order_relaxed);

    if (wanted == CODEC_AUTO && !steer->settled) {
        unsigned gear = atomic_load_explicit(&steer->gear, memory_order_relaxed); /* a number, nothing behind it */
        *out = gears[gear];
        return gear;
    }
    out->codec = readable(steer, wanted == CODEC_AUTO ? CODEC_LZ4 : (enum codec)wanted);
    out->acceleration = atomic_load_explicit(&steer->tunables->acceleration, memory_order_relaxed);
    steer_disturb(steer);
    return GEARS;
}

void steer_disturb(struct steer *steer)
{
    /* Looked at first: all workers come by, and a line that nobody writes is in every cache. */
    if (!atomic_load_explicit(&steer->disturbed, memory_order_relaxed)) {
        atomic_store_explicit(&steer->disturbed, true, memory_order_relaxed);
    }
}

void steer_round_begins(struct steer *steer)
{
    atomic_store_explicit(&steer->broken, true, memory_order_relaxed);
}

static bool peer_lags(const struct steer *steer)
{
    const _Atomic int32_t *told = steer->peer_waits_permille;
    int32_t permille = told ? atomic_load_explicit(told, memory_order_relaxed) : -1;

    return permille >= 0 && permille < STEER_PEER_LAGS_PERMILLE;
}

/* Under lock. */
static void end_window(struct steer *steer)
{
    struct steer_counts now = counts_now(steer), was = steer->since;
    struct choose_window window = {
        .elapsed_ns = now.at_ns - was.at_ns,
        .idle_ns = (int64_t)(now.idle_ns - was.idle_ns),
        .frozen_ns = (int64_t)(now.frozen_ns - was.frozen_ns),
        .rate_wait_ns = (int64_t)(now.rate_wait_ns - was.rate_wait_ns),
        .sent_bytes = now.sent_bytes - was.sent_bytes,
        .units = steer->units,
        .max_bytes_per_s = get(&steer->tunables->max_bytes_per_s),
        .workers = steer->workers,
        .peer_lags = peer_lags(steer),
    };

    if (window.elapsed_ns < CHOOSE_WINDOW_NS || steer->chunks < CHOOSE_CHUNKS_MIN) {
        return;
    }
    window.one_round = !atomic_exchange_explicit(&steer->broken, false, memory_order_relaxed);
    window.steady = !atomic_exchange_explicit(&steer->disturbed, false, memory_order_relaxed) && window.one_round;
    steer->since = now;
    /* Zeros take their time too, and are not what a codec is held to. */
    window.steady = window.steady && steer->zeros <= steer->units;
    steer->units = steer->zeros = steer->chunks = 0;
    atomic_store_explicit(&steer->gear, choose_next(&steer->choose, &window), memory_order_relaxed);
}

void steer_measured(struct steer *steer, const struct steer_sample *sample)
{
    lock(&steer->lock);
    if (sample->gear != steer->choose.gear) {
        steer_disturb(steer); /* chunks of the gear before */
    }
    choose_packed(&steer->choose, sample->gear, sample->units, sample->pack_ns, sample->wire_bytes);
    choose_worked(&steer->choose, sample->gear, sample->units, sample->copy_ns, sample->copy_ns + sample->pack_ns,
                  sample->wall_ns);
    steer->units += sample->units_since;
    steer->zeros += sample->zeros_since;
    steer->chunks += sample->chunks_since;
    end_window(steer);
    unlock(&steer->lock);
}

void steer_carried(struct steer *steer, uint64_t bytes, int64_t made_ns, int64_t loaded_ns)
{
    lock(&steer->lock);
    choose_carried(&steer->choose, bytes, made_ns, loaded_ns);
    unlock(&steer->lock);
}

unsigned steer_probe(struct steer *steer)
{
    lock(&steer->lock);
    unsigned gear = choose_probe(&steer->choose);
    unlock(&steer->lock);
    return gear;
}

void steer_probed(struct steer *steer, unsigned gear, int64_t cpu_ns, uint64_t wire_bytes)
{
    lock(&steer->lock);
    choose_packed(&steer->choose, gear, CHOOSE_PROBE_UNITS, cpu_ns, wire_bytes);
    unlock(&steer->lock);
}
