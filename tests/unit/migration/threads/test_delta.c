/* Deltas: one of them, the cache that they are made against, and the street that carries them. */
#include "tests/unit/test.h"

#include <errno.h>

#include "base/clock.h"
#include "migration/threads/delta.h"
#include "migration/threads/load.h"
#include "tests/unit/migration/threads/road.h"

enum { UNITS = 64 * 3, CACHE = UNITS * FAKE_UNIT, MANY = 64 * 12 };

/* --- one delta ------------------------------------------------------------------------------------------- */

static void fill_random(uint8_t *page, uint64_t *seed)
{
    for (unsigned i = 0; i < FAKE_UNIT; i += 8) {
        uint64_t v = fake_random(seed);
        memcpy(page + i, &v, 8);
    }
}

static void what_a_delta_changes_is_what_was_changed(void **state)
{
    struct fake *fake = fake_new(1, 64);
    uint64_t seed = 11;
    (void)state;

    for (unsigned i = 0; i < 2000; i++) {
        uint8_t was[FAKE_UNIT], now[FAKE_UNIT], out[DELTA_BYTES_MAX + 64];
        uint64_t changed = 0;
        struct unit_hash base;
        fill_random(was, &seed);
        memcpy(now, was, FAKE_UNIT);
        for (unsigned lines = (unsigned)(fake_random(&seed) % 24); lines; lines--) {
            unsigned at = (unsigned)(fake_random(&seed) % FAKE_UNIT);
            now[at] ^= (uint8_t)(1 + fake_random(&seed) % 255); /* any byte of a line, the last one of the last too */
            changed |= UINT64_C(1) << at / DELTA_LINE_BYTES;
        }
        if (i == 0) {
            now[FAKE_UNIT - 1] ^= 1, now[0] ^= 1, changed |= UINT64_C(1) << 63 | 1;
        }
        changed = 0;
        for (unsigned line = 0; line < 64; line++) {
            bool same = !memcmp(was + line * 64, now + line * 64, 64);
            changed |= (uint64_t)!same << line;
        }
        base = digest_hash(NULL, was, FAKE_UNIT);
        memset(out, 0xc5, sizeof(out));
        size_t bytes = delta_encode(was, now, FAKE_UNIT, (uint32_t)base.word[0], out);
        for (unsigned c = DELTA_BYTES_MAX; c < sizeof(out); c++) {
            assert_int_equal(out[c], 0xc5);
        }
        unsigned lines = (unsigned)__builtin_popcountll(changed);
        assert_int_equal(bytes, lines > DELTA_LINES_MAX ? 0 : DELTA_HEAD_BYTES + lines * DELTA_LINE_BYTES);
        for (size_t cut = 0; cut < bytes; cut += cut < 20 ? 1 : 50) {
            struct delta_split split = { .begin = out, .at = out, .end = out + cut };
            struct err err = { 0 };
            assert_int_equal(delta_apply(&split, &fake->source, 5, base, was, &err), -EPROTO);
            assert_non_null(strstr(err.text, cut < DELTA_HEAD_BYTES ? "unit 5 is cut short" : "unit 5 has"));
        }
        if (bytes) {
            struct delta_split split = { .begin = out, .at = out, .end = out + bytes };
            assert_int_equal(be64_get(out + 4), changed);
            assert_int_equal(delta_apply(&split, &fake->source, 5, base, was, NULL), 0);
            assert_memory_equal(was, now, FAKE_UNIT);
            assert_ptr_equal(split.at, split.end);
        }
    }
    fake_free(fake);
}

/* --- a chunk by hand ------------------------------------------------------------------------------------- */

/* Two ends without threads: units 0 and 1 were sent, then 8 bytes of each changed and unit 2 is new. */
struct bench {
    struct fake *here, *there;
    struct source *sources[1];
    struct digest sent, loaded;
    struct delta_cache *cache;
    struct compressor compressor;
    struct load_scratch scratch;
    struct chunk chunk;
    uint8_t *raw, out[DELTA_OUT_MAX];
    struct delta_made made;
    struct scanned scanned;
};

static void bench_open(struct bench *b, uint64_t cache_bytes)
{
    memset(b, 0, sizeof(*b));
    b->here = fake_new(1, UNITS);
    b->there = fake_new(1, UNITS);
    b->sources[0] = &b->here->source;
    b->raw = aligned_alloc(64, FRAME_RAW_MAX);
    b->chunk.wire = aligned_alloc(64, CHUNK_BYTES + 64);
    b->scratch.unit = aligned_alloc(64, FAKE_UNIT);
    b->scratch.merged = aligned_alloc(64, FAKE_UNIT);
    assert_int_equal(digest_new(&b->sent, UNITS, NULL, NULL) | digest_new(&b->loaded, UNITS, NULL, NULL), 0);
    assert_int_equal(compressor_init(&b->compressor, NULL) | unpacker_init(&b->scratch.unpacker, NULL), 0);
    assert_int_equal(delta_cache_new(b->sources, 1, cache_bytes, &b->cache, NULL), 0);
}

static void bench_close(struct bench *b)
{
    fake_free(b->here);
    fake_free(b->there);
    digest_destroy(&b->sent);
    digest_destroy(&b->loaded);
    compressor_destroy(&b->compressor);
    unpacker_destroy(&b->scratch.unpacker);
    delta_cache_free(b->cache);
    free(b->raw);
    free(b->chunk.wire);
    free(b->scratch.unit);
    free(b->scratch.merged);
}

/* These units of word 0 into the chunk. `after`: a byte of the guest's page that changes once the page was copied. */
static void make(struct bench *b, enum codec codec, uint64_t units, uint32_t round)
{
    delta_round(b->cache, round, false);
    assert_int_equal(scan_step(b->sources[0], &b->sent, 0, units, b->raw, &b->scanned, NULL), 0);
    digest_apply(&b->sent, &b->scanned.change);
    delta_step(b->cache, 0, 0, &b->sent, &b->scanned, true, b->raw, b->out, &b->made);
    struct frame frame = { .kind = b->made.units ? FRAME_DELTAS : FRAME_CHUNK,
                           .codec = codec,
                           .round = round,
                           .data = b->scanned.data,
                           .zero = b->scanned.zero };
    size_t bytes = compress_chunk(&b->compressor, codec, 1, b->raw, b->made.rest, FAKE_UNIT, chunk_payload(&b->chunk));
    memcpy(chunk_payload(&b->chunk) + bytes, b->out, b->made.bytes);
    frame.payload_bytes = (uint32_t)(bytes + b->made.bytes);
    frame_seal(b->chunk.wire, 1, &frame);
}

static int load(struct bench *b, struct err *err)
{
    err_clear(err);
    b->chunk.source = &b->there->source;
    int ret = frame_get(chunk_head(&b->chunk), &b->chunk.frame, err);
    ret = ret < 0 ? ret : frame_check(&b->chunk.frame, &b->there->source, err);
    return ret < 0 ? ret : load_chunk(&b->there->source, &b->loaded, &b->chunk, &b->scratch, err);
}

static void begin_with_two_deltas(struct bench *b, enum codec codec)
{
    struct err err = { 0 };
    bench_open(b, CACHE);
    fake_fill(b->here, 3);
    for (unsigned unit = 0; unit < 3; unit++) {
        fake_write(b->here, unit, 7, 1 + unit); /* data, each */
    }
    make(b, codec, 3, 1);
    assert_int_equal(b->made.units, 0);
    assert_int_equal(load(b, &err), 0);
    fake_write(b->here, 0, 0, 77);
    fake_write(b->here, 1, 511, 78);
    make(b, codec, 7, 2);
    assert_int_equal(b->made.units, 3);
    assert_int_equal(b->made.rest, 1);
    assert_int_equal(b->made.bytes, 2 * (DELTA_HEAD_BYTES + DELTA_LINE_BYTES) + DELTA_TAIL_BYTES);
}

static void whole_units_and_deltas_of_one_chunk_are_loaded_with_every_codec(void **state)
{
    (void)state;
    for (unsigned codec = CODEC_RAW; codec < CODECS; codec++) {
        struct bench b;
        struct err err = { 0 };
        uint64_t sent[2], loaded[2];
        begin_with_two_deltas(&b, (enum codec)codec);
        assert_int_equal(load(&b, &err), 0);
        assert_memory_equal(b.here->pages, b.there->pages, 3 * FAKE_UNIT);
        digest_get(&b.sent, sent);
        digest_get(&b.loaded, loaded);
        assert_memory_equal(sent, loaded, sizeof(sent)); /* of whole pages, on both sides */
        bench_close(&b);
    }
}

static void seal_again(struct bench *b, uint32_t payload_bytes)
{
    struct frame frame = { 0 };
    struct err err = { 0 };
    assert_int_equal(frame_get(chunk_head(&b->chunk), &frame, &err), 0);
    frame.payload_bytes = payload_bytes;
    frame_seal(b->chunk.wire, 1, &frame);
}

static void what_is_not_right_is_refused_by_unit_and_byte(void **state)
{
    static const char *const words[] = {
        "deltas of units",  "deltas of units",  "deltas in",      "deltas in",       "changes version",
        "bytes of lines",   "cannot have come", "bytes of lines", "behind the last", "changes version, here is none",
        "cannot have come", "deltas in"
    };
    (void)state;
    for (unsigned kind = 0; kind < sizeof(words) / sizeof(words[0]); kind++) {
        struct bench b;
        struct err err = { 0 };
        begin_with_two_deltas(&b, CODEC_RAW);
        uint8_t before[3 * FAKE_UNIT];
        memcpy(before, b.there->pages, sizeof(before));
        uint8_t *payload = chunk_payload(&b.chunk), *deltas = payload + FAKE_UNIT;
        uint32_t bytes = FAKE_UNIT + (uint32_t)b.made.bytes, body = (uint32_t)b.made.bytes - DELTA_TAIL_BYTES;
        uint8_t *tail = payload + bytes - DELTA_TAIL_BYTES;
        switch (kind) {
        case 0: be64_put(tail, 0); break;
        case 1: be64_put(tail, 3 | UINT64_C(1) << 40); break; /* not in the frame's data */
        case 2: be32_put(tail + 8, bytes); break;             /* more than there is */
        case 3: be32_put(tail + 8, 2 * DELTA_HEAD_BYTES - 1); break;
        case 4: deltas[3] ^= 1; break;                   /* base */
        case 5: be64_put(deltas + 4, UINT64_MAX); break; /* more lines than bytes */
        case 6: be32_put(tail + 8, body - 1); break;     /* then the plain half is a byte too long */
        case 7: be64_put(deltas + 4, 3); break;          /* the first takes the second's head along */
        case 8: be64_put(deltas + DELTA_HEAD_BYTES + DELTA_LINE_BYTES + 4, 0); break;
        case 9: digest_replace(&b.loaded, &(struct digest_change){ { 0 } }, 0, DIGEST_ZERO); break; /* never sent */
        case 10: be64_put(tail, 1); break; /* two units in the plain half */
        case 11: be32_put(tail + 8, UINT32_MAX); break;
        }
        seal_again(&b, bytes);
        assert_int_equal(load(&b, &err), -EPROTO);
        char text[ERR_TEXT_MAX];
        snprintf(text, sizeof(text), "%s", err.text);
        char *version = strstr(text, "version ");
        if (kind == 9 && version) { /* whatever it was */
            memmove(version + strlen("version"), strchr(version, ','), strlen(strchr(version, ',')) + 1);
        }
        if (!strstr(text, words[kind]) || !strstr(text, "unit")) {
            fail_msg("kind %u: %s", kind, err.text);
        }
        if (kind == 4 || kind == 5 || kind == 9) {
            assert_non_null(strstr(text, "unit 0"));
            assert_non_null(strstr(text, "byte 4"));
            assert_memory_equal(b.there->pages, before, FAKE_UNIT);
        }
        bench_close(&b);
    }
}

static void a_frame_too_short_for_a_delta_is_refused_before_its_payload_is_read(void **state)
{
    struct err err = { 0 };
    struct bench b;
    (void)state;

    begin_with_two_deltas(&b, CODEC_LZ4);
    for (uint32_t bytes = 0; bytes < FRAME_DELTAS_MIN; bytes++) {
        seal_again(&b, bytes);
        assert_int_equal(load(&b, &err), -EPROTO);
        assert_non_null(strstr(err.text, "cannot have come"));
    }
    for (uint32_t bytes = FRAME_DELTAS_MIN; bytes < 400; bytes++) { /* tails that are something else */
        seal_again(&b, bytes);
        assert_int_equal(load(&b, &err), -EPROTO);
    }
    bench_close(&b);
}

/* --- the cache ------------------------------------------------------------------------------------------- */

/* The guest writes once, as soon as its page was read: whoever reads it again gets what only the next round may send. */
static uint64_t written;

static int copy_and_write(struct source *source, uint64_t unit, void *out)
{
    int ret = fake_copy(source, unit, out);
    fake_of(source)->pages[unit * FAKE_UNIT + 1000] += !(written >> unit & 1);
    written |= UINT64_C(1) << unit;
    return ret;
}

static void the_copy_is_what_was_sent_and_not_what_came_after(void **state)
{
    struct source_ops racing = fake_ops;
    struct err err = { 0 };
    struct bench b;
    (void)state;

    racing.copy = copy_and_write;
    begin_with_two_deltas(&b, CODEC_RAW);
    assert_int_equal(load(&b, &err), 0);
    b.here->source.ops = &racing;
    for (uint32_t round = 3; round < 12; round++) {
        uint64_t sent[2], loaded[2];
        written = round % 2 ? 0 : UINT64_MAX;
        fake_write(b.here, 5, round % 512, round); /* unit 5 is new in round 3 */
        make(&b, CODEC_RAW, 0x23, round);
        assert_int_equal(b.made.units, round == 3 ? 0x03 : 0x23);
        if (load(&b, &err) < 0) {
            fail_msg("round %u: %s", round, err.text);
        }
        digest_get(&b.sent, sent);
        digest_get(&b.loaded, loaded);
        assert_memory_equal(sent, loaded, sizeof(sent));
    }
    b.here->source.ops = &fake_ops;
    make(&b, CODEC_RAW, 0x23, 12);
    assert_int_equal(load(&b, &err), 0);
    assert_memory_equal(b.here->pages, b.there->pages, 2 * FAKE_UNIT);
    assert_memory_equal(b.here->pages + 5 * FAKE_UNIT, b.there->pages + 5 * FAKE_UNIT, FAKE_UNIT);
    bench_close(&b);
}

static void a_unit_that_was_zeros_or_was_given_up_is_sent_whole(void **state)
{
    struct err err = { 0 };
    struct bench b;
    (void)state;

    begin_with_two_deltas(&b, CODEC_RAW);
    assert_int_equal(load(&b, &err), 0);
    uint8_t was[FAKE_UNIT];
    memcpy(was, b.here->pages, FAKE_UNIT);
    memset(b.here->pages, 0, FAKE_UNIT);
    make(&b, CODEC_RAW, 1, 3);
    assert_int_equal(b.scanned.zero, 1);
    assert_int_equal(load(&b, &err), 0);
    memcpy(b.here->pages, was, FAKE_UNIT);
    make(&b, CODEC_RAW, 1, 4);
    assert_int_equal(b.made.units, 0);
    assert_int_equal(load(&b, &err), 0);
    assert_memory_equal(b.here->pages, b.there->pages, 3 * FAKE_UNIT);
    bench_close(&b);
}

/* Room for four of eight units, which take turns: whatever is evicted, what arrives is right. */
static void units_that_are_evicted_between_are_sent_whole(void **state)
{
    struct err err = { 0 };
    struct bench b;
    uint64_t seed = 5, deltas = 0;
    struct delta_stats stats;
    (void)state;

    bench_open(&b, 4 * FAKE_UNIT);
    fill_random(b.here->pages, &seed);
    for (unsigned unit = 1; unit < 8;
         unit++) { /* much alike: somebody else's copy would do for a delta, on the wrong version */
        memcpy(b.here->pages + unit * FAKE_UNIT, b.here->pages, FAKE_UNIT);
        fake_write(b.here, unit, 0, unit);
    }
    for (uint32_t round = 1; round < 200; round++) {
        uint64_t units = round / 10 % 2 ? 0x0f : 0xf0;
        for (unsigned unit = 0; unit < 8; unit++) {
            if (units >> unit & 1) {
                fake_write(b.here, unit, 8 * (unsigned)(fake_random(&seed) % 6), fake_random(&seed));
            }
        }
        make(&b, CODEC_RAW, units, round);
        deltas += (unsigned)__builtin_popcountll(b.made.units);
        if (load(&b, &err) < 0) {
            fail_msg("round %u: %s", round, err.text);
        }
    }
    make(&b, CODEC_RAW, 0xff, 200);
    assert_int_equal(load(&b, &err), 0);
    assert_memory_equal(b.here->pages, b.there->pages, 8 * FAKE_UNIT);
    assert_true(deltas > 300); /* both halves had their turns in it */
    delta_stats(b.cache, &stats);
    assert_int_equal(stats.units - (unsigned)__builtin_popcountll(b.made.units), deltas);
    assert_true(stats.held_bytes < 8 * FAKE_UNIT + 64 * UNITS);
    bench_close(&b);
}

/* All words of a round; each delta's base is the hash of what was sent last. The deltas. */
static unsigned make_all(struct bench *b, uint32_t round)
{
    unsigned deltas = 0;

    delta_round(b->cache, round, false);
    for (uint64_t word = 0; word < b->here->source.words; word++) {
        uint32_t last[CHUNK_UNITS];
        for (unsigned i = 0; i < CHUNK_UNITS; i++) {
            last[i] = (uint32_t)digest_last(&b->sent, word * CHUNK_UNITS + i).word[0];
        }
        assert_int_equal(scan_step(b->sources[0], &b->sent, word, UINT64_MAX, b->raw, &b->scanned, NULL), 0);
        delta_step(b->cache, 0, word, &b->sent, &b->scanned, true, b->raw, b->out, &b->made);
        const uint8_t *at = b->out;
        for (uint64_t left = b->made.units; left; left &= left - 1, deltas++) {
            assert_int_equal(be32_get(at), last[__builtin_ctzll(left)]);
            at += DELTA_HEAD_BYTES + __builtin_popcountll(be64_get(at + 4)) * DELTA_LINE_BYTES;
        }
    }
    return deltas;
}

/* What is sent while deltas are off is no copy: when they are tried again nothing of before may be left. */
static void copies_of_before_are_gone_when_it_is_tried_again(void **state)
{
    struct delta_stats stats;
    unsigned deltas = 0, rounds = 0;
    struct bench b;
    uint64_t seed = 9;
    (void)state;

    bench_open(&b, MANY * FAKE_UNIT);
    fake_free(b.here);
    b.here = fake_new(1, MANY);
    b.sources[0] = &b.here->source;
    digest_destroy(&b.sent);
    assert_int_equal(digest_new(&b.sent, MANY, NULL, NULL), 0);
    delta_cache_free(b.cache);
    assert_int_equal(delta_cache_new(b.sources, 1, MANY * FAKE_UNIT, &b.cache, NULL), 0);
    do {
        for (unsigned unit = 0; unit < MANY; unit++) {
            fill_random(b.here->pages + unit * FAKE_UNIT, &seed);
        }
        make_all(&b, ++rounds);
        delta_stats(b.cache, &stats);
    } while (!stats.off && rounds < 10);
    assert_int_equal(rounds, 2); /* it is seen in the first round with copies, and soon */
    assert_int_equal(stats.misses, MANY * 2 / 3);
    for (unsigned i = 0; i < 8; i++) {
        for (unsigned unit = 0; unit < MANY; unit++) {
            fake_write(b.here, unit, 5, i + 1);
        }
        deltas += make_all(&b, ++rounds);
    }
    assert_true(deltas > 2 * MANY);
    bench_close(&b);
}

/* Giving the copies' memory back takes a while, and in the last round the guest stands. */
static void copies_are_not_given_up_in_the_pause(void **state)
{
    struct delta_stats before, after;
    struct bench b;
    uint64_t seed = 9;
    uint32_t round = 0;
    (void)state;

    bench_open(&b, MANY * FAKE_UNIT);
    fake_free(b.here);
    b.here = fake_new(1, MANY);
    b.sources[0] = &b.here->source;
    digest_destroy(&b.sent);
    assert_int_equal(digest_new(&b.sent, MANY, NULL, NULL), 0);
    delta_cache_free(b.cache);
    assert_int_equal(delta_cache_new(b.sources, 1, MANY * FAKE_UNIT, &b.cache, NULL), 0);
    do {
        for (unsigned unit = 0; unit < MANY; unit++) {
            fill_random(b.here->pages + unit * FAKE_UNIT, &seed);
        }
        make_all(&b, ++round);
        delta_stats(b.cache, &before);
    } while (!before.off && round < 10);
    assert_true(before.off);
    delta_round(b.cache, ++round, true);
    delta_stats(b.cache, &after);
    assert_true(after.off && after.held_bytes == before.held_bytes);
    delta_round(b.cache, ++round, false); /* the pause was taken back */
    delta_stats(b.cache, &after);
    assert_true(after.held_bytes < before.held_bytes);
    bench_close(&b);
}

/* --- the street ------------------------------------------------------------------------------------------ */

struct guest {
    struct road *road;
    pthread_t thread;
    unsigned number;
    _Atomic bool stop;
};

/* 8 bytes of a page at a time, in eight lines and the last; of every eighth page now and then all of it, or zeros. Pages are
 * one writer's each. */
static void *dirty_some(void *opaque)
{
    struct guest *guest = opaque;
    uint64_t seed = guest->number + 100;

    while (!atomic_load(&guest->stop)) {
        struct fake *fake = guest->road->here[fake_random(&seed) % 2];
        uint64_t unit = fake_random(&seed) % (fake->source.units / 2) * 2 + guest->number;
        unsigned what = (unsigned)(fake_random(&seed) % 64);
        if (unit >= fake->source.units) {
            continue;
        }
        for (unsigned i = 0; unit % 8 == 0 && what < 2 && i < 512; i++) {
            fake_write(fake, unit, i, what ? fake_random(&seed) : 0);
        }
        fake_write(fake, unit, what % 2 ? 511 : (unsigned)(fake_random(&seed) % 64), fake_random(&seed));
    }
    return NULL;
}

static void move_with(unsigned workers, unsigned loaders, enum codec codec, uint64_t cache_bytes)
{
    enum { ROUNDS = 12 };
    struct guest guest[2] = { 0 };
    struct pipeline_stats stats;
    struct loader_stats loaded;
    struct round_result result;
    struct road road;
    uint8_t end = ROAD_END;

    road_open_deltas(&road, 64 * 8 + 7, workers, loaders, cache_bytes);
    atomic_store(&road.tunables.codec, codec);
    for (unsigned i = 0; i < 2; i++) {
        guest[i].road = &road;
        guest[i].number = i;
        assert_int_equal(pthread_create(&guest[i].thread, NULL, dirty_some, &guest[i]), 0);
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (uint64_t unit = 1; unit < road.here[0]->source.units;
             unit += 2) { /* however little the guest gets to run */
            fake_write(road.here[0], unit, 9, round);
        }
        assert_int_equal(pipeline_round(road.pipeline, false, &result, NULL), 0);
    }
    for (unsigned i = 0; i < 2; i++) {
        atomic_store(&guest[i].stop, true);
        pthread_join(guest[i].thread, NULL);
    }
    assert_int_equal(pipeline_round(road.pipeline, true, &result, NULL), 0);
    assert_int_equal(pipeline_send(road.pipeline, &end, 1, NULL), 0);
    assert_int_equal(pipeline_flush(road.pipeline, NULL), 0);
    road_join(&road);
    if (road.err.code) {
        fail_msg("%s", road.err.text);
    }
    assert_true(road_arrived_whole(&road));
    pipeline_stats(road.pipeline, &stats);
    loader_stats(road.loader, &loaded);
    assert_true(stats.delta_units > 0);
    assert_true(stats.delta_bytes >= stats.delta_units * DELTA_HEAD_BYTES);
    assert_int_equal(loaded.delta_units, stats.delta_units);
    assert_memory_equal(loaded.codec_units, stats.codec_units, sizeof(stats.codec_units));
    uint64_t by_codec = stats.delta_units;
    for (unsigned i = 0; i < CODECS; i++) {
        by_codec += stats.codec_units[i];
    }
    assert_int_equal(by_codec, stats.units_data);
    road_close(&road);
}

static void a_guest_that_changes_little_arrives_whole_whatever_the_threads(void **state)
{
    (void)state;
    move_with(1, 1, CODEC_RAW, 64 << 20);
    move_with(4, 3, CODEC_LZ4, 64 << 20);
    move_with(2, 4, CODEC_ZSTD, 64 << 20);
    move_with(4, 4, CODEC_RAW, 100 * FAKE_UNIT); /* far fewer copies than units */
}

static void a_second_attempt_begins_with_no_copies(void **state)
{
    struct pipeline_stats stats;
    struct road road;
    (void)state;

    for (unsigned attempt = 0; attempt < 2; attempt++) {
        road_open_deltas(&road, 200, 2, 2, 64 << 20);
        assert_int_equal(pipeline_round(road.pipeline, false, NULL, NULL), 0);
        pipeline_stats(road.pipeline, &stats);
        assert_int_equal(stats.delta_units, 0);
        road_close(&road);
    }
}

static void whole_random_pages_turn_deltas_off_until_it_is_tried_again(void **state)
{
    struct pipeline_stats stats;
    struct road road;
    uint64_t seed = 1, misses = 0;
    (void)state;

    road_open_deltas(&road, 64 * 64, 2, 2, 64 << 20);
    for (unsigned round = 0; round < 8; round++) {
        for (uint64_t unit = 0; unit < 64 * 64; unit++) {
            fill_random(road.here[0]->pages + unit * FAKE_UNIT, &seed);
        }
        fake_mark_all(road.here[0]);
        assert_int_equal(pipeline_round(road.pipeline, false, NULL, NULL), 0);
        pipeline_stats(road.pipeline, &stats);
        assert_int_equal(stats.delta_units, 0);
        if (round == 4) {
            misses = stats.delta_misses;
        }
    }
    assert_true(misses > 0);
    assert_true(stats.delta_misses < 3 * 64 * 64 + 64 * 32); /* of eight rounds: found out, tried again */
    for (unsigned round = 0; round < 12; round++) {          /* now it pays */
        for (uint64_t unit = 0; unit < 64 * 64; unit++) {
            fake_write(road.here[0], unit, 3, round + 1);
        }
        assert_int_equal(pipeline_round(road.pipeline, false, NULL, NULL), 0);
    }
    pipeline_stats(road.pipeline, &stats);
    assert_true(stats.delta_units > 64 * 64);
    road_close(&road);
}

static void chunks_leave_copies_where_they_wait_or_deltas_are_of_use_and_else_a_sample(void **state)
{
    struct delta_keeper fast = { 0 }, slow = { 0 };
    struct bench b;
    unsigned kept = 0, waited = 0;
    (void)state;

    bench_open(&b, CACHE);
    delta_round(b.cache, 1, false);
    for (unsigned i = 0; i < 1000; i++) {
        kept += delta_keeps(&fast, b.cache, i % 16 ? 0 : DELTA_SLOW_NS); /* a long wait now and then is none */
        waited += delta_keeps(&slow, b.cache, 2 * DELTA_SLOW_NS);
    }
    assert_int_equal(kept, 0);
    assert_in_range(waited, 900, 1000);
    delta_round(b.cache, 2, false);
    for (unsigned i = 0; i < 1000; i++) {
        kept += delta_keeps(&fast, b.cache, 0);
    }
    assert_int_equal(kept, DELTA_SAMPLE_CHUNKS);
    for (uint64_t unit = 0; unit < 4; unit++) {
        fake_write(b.here, unit, 0, 1);
    }
    make(&b, CODEC_RAW, 0xf, 3); /* two rounds in which unit after unit leaves a copy, and finds it */
    make(&b, CODEC_RAW, 0xf, 4);
    assert_int_equal(b.made.units, 0xf);
    delta_round(b.cache, 5, false);
    for (unsigned i = 0; i < 1000; i++) {
        kept += delta_keeps(&fast, b.cache, 0);
    }
    assert_int_equal(kept, DELTA_SAMPLE_CHUNKS + 1000);
    delta_round(b.cache, 6, true);
    assert_false(delta_keeps(&fast, b.cache, 0));
    assert_false(delta_keeps(&slow, b.cache, 2 * DELTA_SLOW_NS));
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_delta_changes_is_what_was_changed),
        cmocka_unit_test(whole_units_and_deltas_of_one_chunk_are_loaded_with_every_codec),
        cmocka_unit_test(what_is_not_right_is_refused_by_unit_and_byte),
        cmocka_unit_test(a_frame_too_short_for_a_delta_is_refused_before_its_payload_is_read),
        cmocka_unit_test(the_copy_is_what_was_sent_and_not_what_came_after),
        cmocka_unit_test(a_unit_that_was_zeros_or_was_given_up_is_sent_whole),
        cmocka_unit_test(units_that_are_evicted_between_are_sent_whole),
        cmocka_unit_test(copies_of_before_are_gone_when_it_is_tried_again),
        cmocka_unit_test(copies_are_not_given_up_in_the_pause),
        cmocka_unit_test(a_guest_that_changes_little_arrives_whole_whatever_the_threads),
        cmocka_unit_test(a_second_attempt_begins_with_no_copies),
        cmocka_unit_test(whole_random_pages_turn_deltas_off_until_it_is_tried_again),
        cmocka_unit_test(chunks_leave_copies_where_they_wait_or_deltas_are_of_use_and_else_a_sample),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
