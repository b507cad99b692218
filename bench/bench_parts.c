/* The street's parts one by one, each beside what the machine can do at all, in the same run.
 *
 *   bench_parts [-m MIB] [-n REPEATS] [FILE...]
 *
 * Memory is filled from the files (this program when none is named). Every repetition does each part once over all of it, the limits
 * among them, so that noise hits all alike. One thread, by its CPU time (loopback, which has two: by the clock); medians, and the median
 * of the repetitions' ratios. Scans of dirty maps
 * are in bench_memory, the parts together in bench_street. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <lz4.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "migration/threads/compress.h"
#include "migration/threads/load.h"
#include "migration/threads/scan.h"

enum { UNIT = 4096, CHUNK = CHUNK_UNITS * UNIT, BLOCK = 64 * 1024, REPEATS_MAX = 101, PIECE = 256 << 10 };

static uint8_t *memory, *copy; /* what is sent; where it is loaded */
static uint8_t *zeros;         /* as much */
static struct chunk *chunks;   /* all of memory in wire form */
static const struct digest_key key = { { "a secret" } };
static struct digest there, here; /* the sender's, the loader's */
static struct source source;
static size_t bytes_all, words;
static uint64_t sink; /* results, so that no work is left out */

static void require(bool what, const char *why)
{
    if (!what) {
        fprintf(stderr, "bench_parts: %s: %s\n", why, strerror(errno));
        exit(1);
    }
}

/* --- memory as a source: nothing is tracked ------------------------------------------------------------------------ */

static int mem_copy(struct source *s, uint64_t unit, void *out)
{
    (void)s;
    memcpy(out, memory + unit * UNIT, UNIT);
    return 0;
}

static int mem_store(struct source *s, uint64_t unit, const void *data)
{
    (void)s;
    memcpy(copy + unit * UNIT, data, UNIT);
    return 0;
}

static int mem_zero(struct source *s, uint64_t unit)
{
    (void)s;
    memset(copy + unit * UNIT, 0, UNIT);
    return 0;
}

static const void *mem_peek(struct source *s, uint64_t unit, void *scratch)
{
    (void)s, (void)scratch;
    return copy + unit * UNIT;
}

static uint64_t mem_exists(struct source *s, uint64_t word)
{
    (void)s, (void)word;
    return UINT64_MAX;
}

static const struct source_ops mem_ops = {
    .copy = mem_copy,
    .store = mem_store,
    .zero = mem_zero,
    .peek = mem_peek,
    .exists = mem_exists,
};

/* --- the limits ------------------------------------------------------------------------------------------------------ */

static void limit_memcpy(void)
{
    memcpy(copy, memory, bytes_all);
    __asm__ volatile("" : : "r"(copy) : "memory");
}

static char lz4_out[LZ4_COMPRESSBOUND(BLOCK)];

static void limit_lz4(void)
{
    for (size_t at = 0; at < bytes_all; at += BLOCK)
        sink += (uint64_t)LZ4_compress_fast((char *)memory + at, lz4_out, BLOCK, sizeof(lz4_out), 1);
}

static char *packed; /* blocks of LZ4, each behind its length */

static void limit_unlz4(void)
{
    static char out[BLOCK];
    const char *from = packed;

    for (size_t at = 0; at < bytes_all; at += BLOCK) {
        int length;
        memcpy(&length, from, sizeof(length));
        sink += (uint64_t)LZ4_decompress_safe(from + sizeof(length), out, length, BLOCK);
        from += sizeof(length) + (size_t)length;
    }
}

static void pack(void)
{
    char *to = packed = malloc(bytes_all / BLOCK * (LZ4_COMPRESSBOUND(BLOCK) + sizeof(int)));

    require(packed, "memory");
    for (size_t at = 0; at < bytes_all; at += BLOCK) {
        int length = LZ4_compress_fast((char *)memory + at, to + sizeof(int), BLOCK, LZ4_COMPRESSBOUND(BLOCK), 1);
        memcpy(to, &length, sizeof(length));
        to += sizeof(length) + (size_t)length;
    }
}

static void *drain(void *opaque)
{
    static char piece[PIECE];
    int fd = *(int *)opaque;
    ssize_t got;

    while ((got = recv(fd, piece, sizeof(piece), 0)) > 0)
        sink += (uint64_t)got;
    return NULL;
}

/* One connection over the loopback device: two threads, so two CPUs where there are two. */
static void limit_loopback(void)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof(at);
    int listener = socket(AF_INET, SOCK_STREAM, 0), out = socket(AF_INET, SOCK_STREAM, 0);
    pthread_t thread;

    require(bind(listener, (struct sockaddr *)&at, length) == 0 && listen(listener, 1) == 0 &&
                getsockname(listener, (struct sockaddr *)&at, &length) == 0 &&
                connect(out, (struct sockaddr *)&at, length) == 0,
            "loopback");
    int in = accept(listener, NULL, NULL);
    require(in >= 0 && pthread_create(&thread, NULL, drain, &in) == 0, "loopback");
    for (size_t sent = 0; sent < bytes_all;) {
        ssize_t put = send(out, memory + sent, bytes_all - sent < PIECE ? bytes_all - sent : PIECE, 0);
        require(put > 0, "send");
        sent += (size_t)put;
    }
    shutdown(out, SHUT_WR);
    pthread_join(thread, NULL);
    close(in);
    close(out);
    close(listener);
}

/* --- the parts --------------------------------------------------------------------------------------------------------- */

static uint8_t *raw; /* one chunk's pages, as a worker has them */

static void part_zero_test(void)
{
    for (size_t at = 0; at < bytes_all; at += UNIT)
        sink += unit_is_zero(zeros + at, UNIT);
}

static void part_hash(void)
{
    for (size_t at = 0; at < bytes_all; at += UNIT)
        sink += digest_hash(&key, memory + at, UNIT).word[0];
}

static void part_scan(void)
{
    for (size_t word = 0; word < words; word++) {
        struct scanned scanned;
        require(scan_step(&source, &there, word, UINT64_MAX, raw, &scanned, NULL) == 0, "scan");
        digest_apply(&there, &scanned.change);
        chunks[word].frame.data = scanned.data;
        chunks[word].frame.zero = scanned.zero;
    }
}

static void part_compress(void)
{
    static struct compressor compressor;
    static uint8_t out[COMPRESS_OUT_MAX];

    if (!compressor.lz4_state)
        require(compressor_init(&compressor, NULL) == 0, "compressor");
    for (size_t at = 0; at < bytes_all; at += CHUNK)
        sink += compress_chunk(&compressor, CODEC_LZ4, 1, memory + at, CHUNK_UNITS, UNIT, out);
}

static void part_seal(void)
{
    for (size_t word = 0; word < words; word++)
        chunks[word].wire_bytes = frame_seal(chunks[word].wire, source.id, &chunks[word].frame);
}

static void part_verify(void)
{
    for (size_t word = 0; word < words; word++) {
        struct frame frame;
        require(frame_get(chunk_head(&chunks[word]), &frame, NULL) == 0 && frame_check(&frame, &source, NULL) == 0 &&
                    frame_verify(chunk_head(&chunks[word]), source.id, chunk_payload(&chunks[word]), NULL) == 0,
                "a frame");
        chunks[word].frame = frame;
    }
}

static struct load_scratch scratch;

static void part_unpack(void)
{
    for (size_t word = 0; word < words; word++) {
        struct unpack unpack;
        const uint8_t *run;
        int units;
        unpack_begin(&unpack, &scratch.unpacker, &chunks[word].frame, chunk_payload(&chunks[word]), UNIT);
        while ((units = unpack_next(&unpack, &run, NULL)) > 0)
            sink += run[0];
        require(units == 0, "a payload");
    }
}

static void part_load(void)
{
    for (size_t word = 0; word < words; word++)
        require(load_chunk(&source, &here, &chunks[word], &scratch, NULL) == 0, "a chunk");
}

/* All chunks, made as a worker makes them; the parts after it need them. */
static void make_chunks(void)
{
    struct compressor compressor;

    require(compressor_init(&compressor, NULL) == 0, "compressor");
    for (size_t word = 0; word < words; word++) {
        struct chunk *chunk = &chunks[word];
        struct scanned scanned;
        chunk->wire = (uint8_t *)aligned_alloc(CHUNK_ALIGN, CHUNK_BYTES) + CHUNK_LEAD_BYTES;
        chunk->source = &source;
        require(scan_step(&source, &there, word, UINT64_MAX, raw, &scanned, NULL) == 0, "scan");
        digest_apply(&there, &scanned.change);
        chunk->frame = (struct frame){ .kind = FRAME_CHUNK,
                                       .codec = CODEC_LZ4,
                                       .round = 1,
                                       .first_unit = word * CHUNK_UNITS,
                                       .data = scanned.data,
                                       .zero = scanned.zero };
        chunk->frame.payload_bytes =
            (uint32_t)compress_chunk(&compressor, CODEC_LZ4, 1, raw, scanned.units, UNIT, chunk_payload(chunk));
    }
    compressor_destroy(&compressor);
}

/* --- the table ----------------------------------------------------------------------------------------------------------- */

enum { MEMCPY, LZ4, UNLZ4, LOOPBACK, NONE = -1 };
static struct part {
    const char *name;
    void (*run)(void);
    int limit; /* the row that it is held against */
    double seconds[REPEATS_MAX];
} part[] = {
    [MEMCPY] = { "memcpy", limit_memcpy, NONE, { 0 } },
    [LZ4] = { "LZ4, blocks of 64 KiB", limit_lz4, NONE, { 0 } },
    [UNLZ4] = { "LZ4 back", limit_unlz4, NONE, { 0 } },
    [LOOPBACK] = { "loopback, one connection", limit_loopback, NONE, { 0 } },
    { "zero test, pages of zeros", part_zero_test, MEMCPY, { 0 } },
    { "digest of pages", part_hash, MEMCPY, { 0 } },
    { "scan: copy, zero test, digest", part_scan, MEMCPY, { 0 } },
    { "compress: chunks of 64 pages", part_compress, LZ4, { 0 } },
    { "frame: checksum, head, footer", part_seal, MEMCPY, { 0 } },
    { "frame back: head, checksum", part_verify, MEMCPY, { 0 } },
    { "unpack", part_unpack, UNLZ4, { 0 } },
    { "load: verify, unpack, store, digest", part_load, UNLZ4, { 0 } },
};
enum { PARTS = sizeof(part) / sizeof(*part) };

static double now_s(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values, unsigned count)
{
    double sorted[REPEATS_MAX];
    memcpy(sorted, values, count * sizeof(*values));
    qsort(sorted, count, sizeof(*sorted), compare);
    return sorted[count / 2];
}

static void show(const struct part *p, unsigned repeats)
{
    double share[REPEATS_MAX] = { 0 };

    printf("%-38s %9.0f MB/s", p->name, (double)bytes_all / 1e6 / median(p->seconds, repeats));
    if (p->limit != NONE) {
        for (unsigned i = 0; i < repeats; i++)
            share[i] = part[p->limit].seconds[i] / p->seconds[i];
        printf("  %6.2f of %s", median(share, repeats), part[p->limit].name);
    }
    printf("\n");
}

static void fill(char **paths, int count)
{
    static char self[] = "/proc/self/exe";
    static char *const own[] = { self };

    for (size_t at = 0; at < bytes_all;) {
        size_t before = at;
        for (int i = 0; i < (count ? count : 1); i++) {
            const char *path = count ? paths[i] : own[i];
            int fd = open(path, O_RDONLY | O_CLOEXEC);
            ssize_t got;
            require(fd >= 0, path);
            while (at < bytes_all && (got = read(fd, memory + at, bytes_all - at)) > 0)
                at += (size_t)got;
            close(fd);
        }
        require(at > before, "the files are empty");
    }
}

int main(int argc, char **argv)
{
    size_t mib = 64;
    unsigned repeats = 7;
    int option;

    while ((option = getopt(argc, argv, "m:n:")) != -1) {
        switch (option) {
        case 'm': mib = strtoul(optarg, NULL, 10); break;
        case 'n': repeats = (unsigned)strtoul(optarg, NULL, 10); break;
        default: return 2;
        }
    }
    if (!mib || mib > 4096 || !repeats || repeats > REPEATS_MAX) {
        fprintf(stderr, "bench_parts: 1 to 4096 MiB, 1 to %d repeats\n", REPEATS_MAX);
        return 2;
    }
    bytes_all = mib << 20;
    words = bytes_all / CHUNK;
    source = (struct source){
        .ops = &mem_ops, .id = 1, .name = "memory", .units = bytes_all / UNIT, .words = words, .unit_bytes = UNIT
    };
    memory = aligned_alloc(UNIT, bytes_all);
    copy = aligned_alloc(UNIT, bytes_all);
    zeros = aligned_alloc(UNIT, bytes_all);
    raw = aligned_alloc(UNIT, CHUNK);
    scratch.unit = aligned_alloc(UNIT, UNIT);
    chunks = calloc(words, sizeof(*chunks));
    require(memory && copy && zeros && raw && unpacker_init(&scratch.unpacker, NULL) == 0 && scratch.unit && chunks &&
                digest_new(&there, source.units, &key, NULL) == 0 && digest_new(&here, source.units, &key, NULL) == 0,
            "memory");
    for (size_t at = 0; at < bytes_all; at++)
        ((volatile uint8_t *)zeros)[at] = 0; /* or the kernel's one page of zeros would be read */
    fill(argv + optind, argc - optind);
    pack();
    make_chunks();
    part_seal();
    limit_memcpy(); /* every page of the copy is there before the first time is taken */
    for (unsigned i = 0; i < repeats; i++) {
        for (unsigned p = 0; p < PARTS; p++) {
            clockid_t clock = p == LOOPBACK ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID;
            double start = now_s(clock);
            part[p].run();
            part[p].seconds[i] = now_s(clock) - start;
        }
    }
    uint64_t sums[2][2];
    digest_get(&there, sums[0]);
    digest_get(&here, sums[1]);
    require(memcmp(sums[0], sums[1], sizeof(sums[0])) == 0 && memcmp(memory, copy, bytes_all) == 0,
            "what was loaded differs");
    printf("%zu MiB, %u repeats, medians\n", mib, repeats);
    for (unsigned p = 0; p < PARTS; p++)
        show(&part[p], repeats);
    return sink ? 0 : 1;
}
