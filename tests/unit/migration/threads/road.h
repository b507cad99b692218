/* Both ends of the street on one socketpair, and one more for each data channel: a pipeline here, a loader with its receive
 * thread there.
 *
 * Beside frames the receive thread understands 0x00 (the end) and 0x55 be32 (a word that pipeline_send() put between
 * frames; they must come in order, 1 2 3...). */
#pragma once
#include <assert.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/channel.h"
#include "migration/threads/frame.h"
#include "migration/threads/pipeline.h"
#include "tests/unit/migration/threads/fake.h"

enum { ROAD_SOURCES = 2, ROAD_END = 0x00, ROAD_WORD = 0x55 };

struct road {
    struct fake *here[ROAD_SOURCES], *there[ROAD_SOURCES];
    struct source *sources_here[ROAD_SOURCES], *sources_there[ROAD_SOURCES];
    struct channel *out, *in;
    struct channel *data_out[PIPELINE_CHANNELS_MAX], *data_in[PIPELINE_CHANNELS_MAX];
    unsigned channels; /* data channels */
    struct pipeline_tunables tunables;
    struct pipeline *pipeline;
    struct loader *loader;
    pthread_t receiver;
    bool receiving;
    /* owner: receive thread, until it is joined */
    struct err err;
    uint32_t words;
    /* atomic */
    _Atomic unsigned marks;
};

static inline struct channel *road_channel(int fd)
{
    struct channel *channel = NULL;
    char uri[32];
    snprintf(uri, sizeof(uri), "fd:%d", fd);
    int ret = channel_connect(uri, -1, &channel, NULL);
    assert(ret == 0);
    (void)ret;
    return channel;
}

static inline int road_receive_one(struct road *road, bool *end)
{
    uint8_t head[5];
    bool mark = false;
    int ret = channel_read_all(road->in, head, 1, -1, &road->err);

    *end = ret == 0 && head[0] == ROAD_END;
    if (ret < 0 || *end) {
        return ret;
    }
    ret = channel_read_all(road->in, head + 1, 4, -1, &road->err);
    if (ret == 0 && head[0] == ROAD_WORD) {
        return be32_get(head + 1) == ++road->words ? 0 : err_set(&road->err, -EPROTO, "words came out of order");
    }
    if (ret == 0 && head[0] != FRAME_SECTION_PART) {
        return err_set(&road->err, -EPROTO, "section type %02x", head[0]);
    }
    uint32_t id = be32_get(head + 1);
    ret = ret < 0 ? ret : loader_frame(road->loader, id, &mark, &road->err);
    ret = ret < 0 ? ret : channel_read_all(road->in, head, 5, -1, &road->err);
    if (ret == 0 && (head[0] != FRAME_SECTION_FOOTER || be32_get(head + 1) != id)) {
        return err_set(&road->err, -EPROTO, "wrong footer");
    }
    for (bool closed = !mark; ret == 0 && !closed;) {
        ret = loader_round_wait(road->loader, -1, &closed, &road->err);
    }
    if (ret == 0 && mark) {
        atomic_fetch_add(&road->marks, 1);
    }
    return ret;
}

static inline void *road_receive(void *opaque)
{
    struct road *road = opaque;
    bool end = false;

    while (!end && road_receive_one(road, &end) == 0) {
    }
    return NULL;
}

static inline void road_pair(struct channel **out, struct channel **in)
{
    int pair[2], ret = socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    assert(ret == 0);
    (void)ret;
    *out = road_channel(pair[0]);
    *in = road_channel(pair[1]);
}

/* workers 0: nobody sends. loaders 0: nobody reads. codecs, settled, cache_bytes: as in struct pipeline_options. */
static inline void road_open_all(struct road *road, uint64_t units, unsigned workers, unsigned loaders, unsigned codecs,
                                 bool settled, unsigned channels, uint64_t cache_bytes)
{
    int ret;
    *road = (struct road){ .channels = channels };
    road_pair(&road->out, &road->in);
    for (unsigned i = 0; i < channels; i++) {
        road_pair(&road->data_out[i], &road->data_in[i]);
    }
    for (unsigned i = 0; i < ROAD_SOURCES; i++) {
        uint64_t count = i ? units / 3 + 1 : units;
        road->here[i] = fake_new(i + 1, count);
        road->there[i] = fake_new(i + 1, count);
        road->sources_here[i] = &road->here[i]->source;
        road->sources_there[i] = &road->there[i]->source;
        fake_fill(road->here[i], i + 5);
    }
    atomic_store(&road->tunables.codec, CODEC_LZ4);
    atomic_store(&road->tunables.acceleration, 1);
    struct pipeline_options options = {
        .workers = workers,
        .sources = road->sources_here,
        .source_count = ROAD_SOURCES,
        .channel = road->out,
        .data = road->data_out,
        .data_count = channels,
        .tunables = &road->tunables,
        .codecs = codecs,
        .settled = settled,
        .delta_cache_bytes = cache_bytes,
    };
    ret = workers ? pipeline_new(&options, &road->pipeline, NULL) : 0;
    assert(ret == 0);
    if (loaders) {
        struct loader_options loading = {
            .workers = loaders,
            .sources = road->sources_there,
            .source_count = ROAD_SOURCES,
            .channel = road->in,
            .data = road->data_in,
            .data_count = channels,
        };
        ret = loader_new(&loading, &road->loader, NULL);
        assert(ret == 0);
        ret = loader_receive(road->loader, NULL);
        assert(ret == 0);
        ret = pthread_create(&road->receiver, NULL, road_receive, road);
        assert(ret == 0);
        road->receiving = true;
    }
}

static inline void road_open_wide(struct road *road, uint64_t units, unsigned workers, unsigned loaders,
                                  unsigned codecs, bool settled, unsigned channels)
{
    road_open_all(road, units, workers, loaders, codecs, settled, channels, 0);
}

static inline void road_open_for(struct road *road, uint64_t units, unsigned workers, unsigned loaders, unsigned codecs,
                                 bool settled)
{
    road_open_wide(road, units, workers, loaders, codecs, settled, 0);
}

static inline void road_open(struct road *road, uint64_t units, unsigned workers, unsigned loaders)
{
    road_open_for(road, units, workers, loaders, 0, false);
}

static inline void road_open_deltas(struct road *road, uint64_t units, unsigned workers, unsigned loaders,
                                    uint64_t cache_bytes)
{
    road_open_all(road, units, workers, loaders, 0, false, 0, cache_bytes);
}

static inline void road_join(struct road *road)
{
    if (road->receiving) {
        pthread_join(road->receiver, NULL);
        road->receiving = false;
    }
}

static inline void road_close(struct road *road)
{
    if (road->pipeline) {
        pipeline_fail(road->pipeline, -ECANCELED, "the test is over");
    }
    pipeline_free(road->pipeline);
    if (road->loader) {
        loader_fail(road->loader, -ECANCELED, "the test is over");
    }
    road_join(road);
    loader_free(road->loader);
    channel_close(road->out);
    channel_close(road->in);
    for (unsigned i = 0; i < road->channels; i++) {
        channel_close(road->data_out[i]);
        channel_close(road->data_in[i]);
    }
    for (unsigned i = 0; i < ROAD_SOURCES; i++) {
        fake_free(road->here[i]);
        fake_free(road->there[i]);
    }
}

static inline bool road_arrived_whole(const struct road *road)
{
    for (unsigned i = 0; i < ROAD_SOURCES; i++) {
        uint64_t sent[2], loaded[2];
        pipeline_digest(road->pipeline, i, sent);
        loader_digest(road->loader, i, loaded);
        if (!fake_same(road->here[i], road->there[i]) || memcmp(sent, loaded, sizeof(sent)) != 0) {
            return false;
        }
    }
    return true;
}
