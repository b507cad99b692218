/* How much of one core's LZ4 reaches the wire: the street on all-dirty memory against LZ4 alone on the same bytes.
 *
 *   bench_street [-m MIB] [-n REPEATS] [-u] [-z] [--dump FILE] [FILE...]
 *
 * Memory is filled from the files (this program when none is named), cut into 4 KiB pages; every eighth page is
 * zeroed when -z is given. LZ4 alone compresses 64 KiB blocks in one thread, as `lz4 -b1 -B4` does. The sink takes
 * the wire at once, parses every section, verifies every checksum and counts units against the mark; with -u it also
 * unpacks them and compares with memory. Runs alternate, LZ4 then the street with 1, 2... workers, and medians are
 * told: noise that comes and goes hits all alike. --dump writes memory to a file before the first run, for programs that
 * are to be measured on the same bytes. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <lz4.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "migration/threads/chunk.h"
#include "migration/threads/compress.h"
#include "migration/threads/frame.h"
#include "migration/threads/pipeline.h"

enum { UNIT = 4096, BLOCK = 64 * 1024, WORKERS_MAX = 2, REPEATS_MAX = 101 };

/* --- memory as a source -------------------------------------------------------------------------------- */

struct memory {
    struct source source;
    uint8_t *bytes;
    _Atomic uint64_t *dirty;
};

static struct memory memory;

static uint64_t mem_next(struct source *source, uint64_t word)
{
    while (word < source->words && !atomic_load_explicit(&memory.dirty[word], memory_order_relaxed)) {
        word++;
    }
    return word;
}

static uint64_t mem_take(struct source *source, uint64_t word)
{
    (void)source;
    return atomic_exchange(&memory.dirty[word], 0);
}

static uint64_t mem_revoke_begin(struct source *source)
{
    (void)source;
    return 1;
}

static void mem_revoke_wait(struct source *source, uint64_t token)
{
    (void)source, (void)token;
}

/* Relaxed 64-bit accesses, as guest memory is copied. */
static int mem_copy(struct source *source, uint64_t unit, void *out)
{
    const _Atomic uint64_t *from = (const _Atomic uint64_t *)(const void *)(memory.bytes + unit * UNIT);
    uint64_t *to = __builtin_assume_aligned(out, 64);
    (void)source;
    for (unsigned i = 0; i < UNIT / 8; i++) {
        to[i] = atomic_load_explicit(&from[i], memory_order_relaxed);
    }
    return 0;
}

static uint64_t mem_exists(struct source *source, uint64_t word)
{
    (void)source, (void)word;
    return UINT64_MAX;
}

static const struct source_ops mem_ops = {
    .next = mem_next,
    .take = mem_take,
    .revoke_begin = mem_revoke_begin,
    .revoke_wait = mem_revoke_wait,
    .copy = mem_copy,
    .exists = mem_exists,
};

static void fill_from(const char *path, size_t *at, size_t bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = 0;
    if (fd < 0) {
        fprintf(stderr, "bench_street: %s: %s\n", path, strerror(errno));
        exit(1);
    }
    while (*at < bytes && (got = read(fd, memory.bytes + *at, bytes - *at)) > 0) {
        *at += (size_t)got;
    }
    close(fd);
}

static void make_memory(size_t bytes, char **paths, int count, bool zeros)
{
    static const char *const self = "/proc/self/exe";
    size_t at = 0;

    memory.source = (struct source){ .ops = &mem_ops, .id = 1, .name = "memory", .unit_bytes = UNIT };
    memory.source.units = bytes / UNIT;
    memory.source.words = memory.source.units / CHUNK_UNITS;
    memory.bytes = aligned_alloc(UNIT, bytes);
    memory.dirty = calloc(memory.source.words, sizeof(*memory.dirty));
    if (!memory.bytes || !memory.dirty) {
        fprintf(stderr, "bench_street: no memory\n");
        exit(1);
    }
    while (at < bytes) {
        size_t before = at;
        for (int i = 0; i < count; i++) {
            fill_from(paths[i], &at, bytes);
        }
        if (at == before) {
            fill_from(self, &at, bytes);
        }
    }
    for (size_t unit = 0; zeros && unit < memory.source.units; unit += 8) {
        memset(memory.bytes + unit * UNIT, 0, UNIT);
    }
}

static void dump_memory(const char *path, size_t bytes)
{
    FILE *file = fopen(path, "we");
    if (!file || fwrite(memory.bytes, 1, bytes, file) != bytes || fclose(file) != 0) {
        fprintf(stderr, "bench_street: %s: %s\n", path, strerror(errno));
        exit(1);
    }
}

/* --- the sink as a channel ----------------------------------------------------------------------------- */

struct sink {
    struct channel channel;
    bool unpack;
    size_t have; /* bytes of the section that is under way */
    uint64_t bytes, data, zero, marks;
    _Alignas(64) uint8_t wire[CHUNK_BYTES];
    struct unpacker unpacker;
};

static void require(bool what, const char *why)
{
    if (!what) {
        fprintf(stderr, "bench_street: the sink refuses: %s\n", why);
        abort();
    }
}

static void check_units(struct sink *sink, const struct frame *frame, const uint8_t *payload)
{
    struct unpack unpack;
    uint64_t left = frame->data;
    const uint8_t *run;
    int units;

    unpack_begin(&unpack, &sink->unpacker, frame, payload, UNIT);
    while ((units = unpack_next(&unpack, &run, NULL)) > 0) {
        for (int i = 0; i < units; i++, left &= left - 1) {
            uint64_t unit = frame->first_unit + (unsigned)__builtin_ctzll(left);
            require(memcmp(memory.bytes + unit * UNIT, run + i * UNIT, UNIT) == 0, "a page differs");
        }
    }
    require(units == 0 && !left, "a payload does not unpack");
}

static void check_section(struct sink *sink, const uint8_t *wire)
{
    const uint8_t *head = wire + FRAME_PREFIX_BYTES, *payload = head + FRAME_HEAD_BYTES;
    struct frame frame;

    require(wire[0] == FRAME_SECTION_PART && be32_get(wire + 1) == 1, "section");
    require(frame_get(head, &frame, NULL) == 0 && frame_verify(head, 1, payload, NULL) == 0, "frame");
    require(payload[frame.payload_bytes] == FRAME_SECTION_FOOTER, "footer");
    if (frame.kind == FRAME_MARK) {
        struct source *sources[] = { &memory.source };
        struct frame_counts counts;
        require(frame_mark_get(payload, frame.payload_bytes, sources, 1, &counts, NULL) == 0, "mark");
        require(counts.data == sink->data && counts.zero == sink->zero, "counts");
        sink->data = sink->zero = 0;
        sink->marks++;
        return;
    }
    require(frame_check(&frame, &memory.source, NULL) == 0, "chunk");
    sink->data += (uint64_t)__builtin_popcountll(frame.data);
    sink->zero += (uint64_t)__builtin_popcountll(frame.zero);
    if (sink->unpack) {
        check_units(sink, &frame, payload);
    }
}

/* The writer hands over whole sections most of the time; a batch may end in the middle of one. */
static void swallow(struct sink *sink, const uint8_t *at, size_t bytes)
{
    while (bytes) {
        size_t want = CHUNK_HEAD_BYTES;
        if (sink->have >= CHUNK_HEAD_BYTES) {
            want = be32_get(sink->wire + FRAME_PREFIX_BYTES + 36) + FRAME_AROUND_BYTES;
        } else if (!sink->have && bytes >= CHUNK_HEAD_BYTES) {
            want = be32_get(at + FRAME_PREFIX_BYTES + 36) + FRAME_AROUND_BYTES;
            if (bytes >= want) {
                check_section(sink, at);
                at += want;
                bytes -= want;
                continue;
            }
        }
        require(want <= sizeof(sink->wire), "length");
        size_t part = want - sink->have < bytes ? want - sink->have : bytes;
        memcpy(sink->wire + sink->have, at, part);
        sink->have += part;
        at += part;
        bytes -= part;
        if (sink->have == want && want > CHUNK_HEAD_BYTES) {
            check_section(sink, sink->wire);
            sink->have = 0;
        }
    }
}

static ssize_t sink_writev(struct channel *channel, const struct iovec *iov, int count)
{
    struct sink *sink = (struct sink *)channel;
    ssize_t bytes = 0;
    for (int i = 0; i < count; i++) {
        swallow(sink, iov[i].iov_base, iov[i].iov_len);
        bytes += (ssize_t)iov[i].iov_len;
    }
    sink->bytes += (uint64_t)bytes;
    return bytes;
}

static void sink_shutdown(struct channel *channel)
{
    (void)channel;
}

static const struct channel_ops sink_ops = { .writev = sink_writev, .shutdown = sink_shutdown };
static struct sink sink = { .channel = { .ops = &sink_ops, .can_write = true, .name = "sink" } };

/* --- runs ---------------------------------------------------------------------------------------------- */

struct run {
    double wall[REPEATS_MAX], cpu[REPEATS_MAX]; /* seconds; cpu: of all threads, the street's with its sink */
};

static uint64_t lz4_bytes;

static double cpu_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void run_lz4(struct run *run, unsigned i)
{
    static char out[LZ4_COMPRESSBOUND(BLOCK)];
    size_t total = memory.source.units * UNIT;
    double cpu = cpu_s();
    int64_t start = clock_now_ns();

    lz4_bytes = 0;
    for (size_t at = 0; at < total; at += BLOCK) {
        lz4_bytes += (uint64_t)LZ4_compress_fast((char *)memory.bytes + at, out, BLOCK, sizeof(out), 1);
    }
    run->wall[i] = (double)(clock_now_ns() - start) / 1e9;
    run->cpu[i] = cpu_s() - cpu;
}

static struct pipeline_stats run_street(struct run *run, unsigned i, unsigned workers)
{
    static struct pipeline_tunables tunables = { .codec = CODEC_LZ4, .acceleration = 1 };
    struct source *sources[] = { &memory.source };
    struct pipeline_options options = {
        .workers = workers,
        .sources = sources,
        .source_count = 1,
        .channel = &sink.channel,
        .tunables = &tunables,
    };
    struct pipeline *pipeline;
    struct pipeline_stats stats;
    struct err err = { 0 };

    for (uint64_t word = 0; word < memory.source.words; word++) {
        atomic_store_explicit(&memory.dirty[word], UINT64_MAX, memory_order_relaxed);
    }
    require(pipeline_new(&options, &pipeline, &err) == 0, err.text);
    double cpu = cpu_s();
    int64_t start = clock_now_ns();
    require(pipeline_round(pipeline, true, NULL, &err) == 0, err.text);
    require(pipeline_flush(pipeline, &err) == 0, err.text);
    run->wall[i] = (double)(clock_now_ns() - start) / 1e9;
    run->cpu[i] = cpu_s() - cpu;
    pipeline_stats(pipeline, &stats);
    pipeline_free(pipeline);
    require(stats.units_data + stats.units_zero == memory.source.units, "units are missing");
    return stats;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_mb_per_s(const double *seconds, unsigned count)
{
    double sorted[REPEATS_MAX];
    memcpy(sorted, seconds, count * sizeof(*seconds));
    qsort(sorted, count, sizeof(*sorted), compare);
    return (double)memory.source.units * UNIT / 1e6 / sorted[count / 2];
}

/* The median of the pairs' ratios, not the ratio of the medians: neighbours in time saw the same noise. */
static double median_share(const double *street, const double *alone, unsigned count)
{
    double share[REPEATS_MAX] = { 0 };
    for (unsigned i = 0; i < count; i++) {
        share[i] = alone[i] / street[i] * 100;
    }
    qsort(share, count, sizeof(*share), compare);
    return share[count / 2];
}

int main(int argc, char **argv)
{
    static const struct option longer[] = { { "dump", required_argument, NULL, 'd' }, { 0 } };
    static struct run lz4, street[WORKERS_MAX];
    struct pipeline_stats stats[WORKERS_MAX];
    size_t mib = 128;
    unsigned repeats = 7;
    bool zeros = false;
    const char *dump = NULL;
    int option;

    while ((option = getopt_long(argc, argv, "m:n:uz", longer, NULL)) != -1) {
        switch (option) {
        case 'd': dump = optarg; break;
        case 'm': mib = strtoul(optarg, NULL, 10); break;
        case 'n': repeats = (unsigned)strtoul(optarg, NULL, 10); break;
        case 'u': sink.unpack = true; break;
        case 'z': zeros = true; break;
        default: return 2;
        }
    }
    if (!mib || mib > 65536 || !repeats || repeats > REPEATS_MAX) {
        fprintf(stderr, "bench_street: 1 to 65536 MiB, 1 to %d repeats\n", REPEATS_MAX);
        return 2;
    }
    make_memory(mib << 20, argv + optind, argc - optind, zeros);
    if (dump) {
        dump_memory(dump, mib << 20);
    }
    require(unpacker_init(&sink.unpacker, NULL) == 0, "no memory");
    run_lz4(&lz4, 0);
    for (unsigned i = 0; i < repeats; i++) {
        run_lz4(&lz4, i);
        for (unsigned workers = 1; workers <= WORKERS_MAX; workers++) {
            stats[workers - 1] = run_street(&street[workers - 1], i, workers);
        }
    }
    printf("memory        %zu MiB, %u repeats, medians\n", mib, repeats);
    printf("lz4 alone     %7.0f MB/s  ratio %.3f  %7.0f MB per CPU second\n", median_mb_per_s(lz4.wall, repeats),
           (double)memory.source.units * UNIT / (double)lz4_bytes, median_mb_per_s(lz4.cpu, repeats));
    for (unsigned w = 0; w < WORKERS_MAX; w++) {
        struct pipeline_stats *s = &stats[w];
        double units = (double)memory.source.units;
        printf("street %u      %7.0f MB/s  ratio %.3f  %7.0f MB per CPU second: %.1f %% of lz4 alone, by CPU %.1f %%\n",
               w + 1, median_mb_per_s(street[w].wall, repeats), units * UNIT / (double)s->wire_bytes,
               median_mb_per_s(street[w].cpu, repeats), median_share(street[w].wall, lz4.wall, repeats),
               median_share(street[w].cpu, lz4.cpu, repeats));
        printf("              a page: %.0f ns to copy, test and hash, %.0f ns to compress and frame\n",
               (double)s->copy_ns / units, (double)s->compress_ns / units);
    }
    unpacker_destroy(&sink.unpacker);
    free(memory.bytes);
    free(memory.dirty);
    return 0;
}
