/* What further connections bring: the street over loopback TCP to a loader in a process of its own, over one connection and over
 * several, in turn; and what the kernel asks for sending with and without a copy.
 *
 *   bench_channels [-m MIB] [-n REPEATS] [-w WORKERS] [-c none|lz4] [-z | -t [-p PRIORITY]]
 *
 * Memory is this program, again and again, xored with a counter, so that it does not repeat; all of it is sent in one round, the
 * last, until the other side has said that it is loaded. Fresh memory there each time. -z: 256 KiB pieces through one socket
 * instead, by sendmsg() plain and with MSG_ZEROCOPY, every completion waited for; CPU time of sender and receiver together.
 * -t: over TLS with a pre-shared key, beside the same in plain; -p: GnuTLS's words for which cipher. */
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/errqueue.h> /* needs struct timespec */

#include "base/bytes.h"
#include "base/channel_tls.h"
#include "base/clock.h"
#include "migration/threads/frame.h"
#include "migration/threads/pipeline.h"

enum { UNIT = 4096, REPEATS_MAX = 101, PIECE = 256 * 1024, VARIANTS = 4 };

static const unsigned data_channels[VARIANTS] = { 0, 1, 2, 4 };

static void require(bool what, const char *why)
{
    if (!what) {
        fprintf(stderr, "bench_channels: %s\n", why);
        exit(1);
    }
}

/* --- memory as a source ---------------------------------------------------------------------------------- */

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

static int mem_copy(struct source *source, uint64_t unit, void *out)
{
    (void)source;
    memcpy(out, memory.bytes + unit * UNIT, UNIT);
    return 0;
}

static int mem_store(struct source *source, uint64_t unit, const void *data)
{
    (void)source;
    memcpy(memory.bytes + unit * UNIT, data, UNIT);
    return 0;
}

static int mem_zero(struct source *source, uint64_t unit)
{
    (void)source, (void)unit;
    return 0;
}

static const void *mem_peek(struct source *source, uint64_t unit, void *scratch)
{
    (void)source, (void)scratch;
    return memory.bytes + unit * UNIT;
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
    .store = mem_store,
    .zero = mem_zero,
    .peek = mem_peek,
    .exists = mem_exists,
};

static uint8_t *fresh(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(at != MAP_FAILED, "no memory");
    return at;
}

static void make_memory(size_t bytes)
{
    memory.source = (struct source){ .ops = &mem_ops, .id = 1, .name = "memory", .unit_bytes = UNIT };
    memory.source.units = bytes / UNIT;
    memory.source.words = memory.source.units / CHUNK_UNITS;
    memory.bytes = fresh(bytes);
    memory.dirty = calloc(memory.source.words, sizeof(*memory.dirty));
    FILE *self = fopen("/proc/self/exe", "re");
    require(memory.dirty && self, "no memory, or no program");
    for (size_t at = 0; at < bytes;) {
        size_t got = fread(memory.bytes + at, 1, bytes - at, self);
        at += got;
        if (got == 0) {
            rewind(self);
        }
    }
    fclose(self);
    for (size_t unit = 0; unit < memory.source.units; unit++) {
        memory.bytes[unit * UNIT] ^= (uint8_t)unit;
        memory.bytes[unit * UNIT + 1] ^= (uint8_t)(unit >> 8);
    }
}

/* --- TLS ---------------------------------------------------------------------------------------------------- */

static struct tls_creds *client_creds, *server_creds; /* NULL: plain */

static void make_keys(const char *priority)
{
    struct tls_creds_options options = { .id = "bench" };
    char dir[] = "/tmp/bench-channels-XXXXXX", path[64];
    struct err err = { 0 };

    require(mkdtemp(dir) != NULL, "no folder for a key");
    snprintf(path, sizeof(path), "%s/keys.psk", dir);
    FILE *keys = fopen(path, "w");
    require(keys && fputs("qemu:000102030405060708090a0b0c0d0e0f\n", keys) >= 0 && fclose(keys) == 0, path);
    snprintf(options.dir, sizeof(options.dir), "%s", dir);
    snprintf(options.priority, sizeof(options.priority), "%s", priority);
    require(tls_creds_new(&options, &client_creds, &err) == 0, err.text);
    options.server = true;
    require(tls_creds_new(&options, &server_creds, &err) == 0, err.text);
    unlink(path);
    rmdir(dir);
}

static struct channel *secured(struct channel *line, bool tls, struct tls_creds *creds)
{
    struct err err = { 0 };
    if (tls) {
        require(channel_tls_new(line, creds, "", NULL, &line, &err) == 0 &&
                    channel_tls_handshake(line, -1, 10000, &err) == 0,
                err.text);
    }
    return line;
}

/* --- the other side ---------------------------------------------------------------------------------------- */

static void load_all(struct channel_listener *listener, unsigned count, unsigned workers, bool tls)
{
    struct source *sources[] = { &memory.source };
    struct channel *main_channel, *data[PIPELINE_CHANNELS_MAX];
    struct loader *loader;
    struct err err = { 0 };
    uint8_t around[FRAME_PREFIX_BYTES];
    bool mark, closed = false;

    memory.bytes = fresh(memory.source.units * UNIT);
    require(channel_accept(listener, -1, &main_channel, NULL) == 0, "accept");
    main_channel = secured(main_channel, tls, server_creds);
    for (unsigned i = 0; i < count; i++) {
        require(channel_accept(listener, -1, &data[i], NULL) == 0, "accept");
        data[i] = secured(data[i], tls, server_creds);
    }
    struct loader_options options = {
        .workers = workers,
        .sources = sources,
        .source_count = 1,
        .channel = main_channel,
        .data = data,
        .data_count = count,
    };
    require(loader_new(&options, &loader, &err) == 0 && loader_receive(loader, &err) == 0, err.text);
    while (!closed) {
        require(channel_read_all(main_channel, around, sizeof(around), -1, &err) == 0, err.text);
        require(loader_frame(loader, be32_get(around + 1), &mark, &err) == 0, err.text);
        while (mark && !closed) {
            require(loader_round_wait(loader, -1, &closed, &err) == 0, err.text);
        }
        require(channel_read_all(main_channel, around, FRAME_FOOTER_BYTES, -1, &err) == 0, err.text);
    }
    require(channel_write_all(main_channel, "k", 1, -1, NULL) == 0, "answer");
    loader_free(loader);
    _exit(0);
}

/* --- runs -------------------------------------------------------------------------------------------------- */

static double cpu_s(void)
{
    struct rusage own, children;
    getrusage(RUSAGE_SELF, &own);
    getrusage(RUSAGE_CHILDREN, &children);
    return (double)(own.ru_utime.tv_sec + own.ru_stime.tv_sec + children.ru_utime.tv_sec + children.ru_stime.tv_sec) +
           (double)(own.ru_utime.tv_usec + own.ru_stime.tv_usec + children.ru_utime.tv_usec +
                    children.ru_stime.tv_usec) /
               1e6;
}

struct run {
    double wall[REPEATS_MAX], cpu[REPEATS_MAX];
};

static void end_child(pid_t child)
{
    int status;
    require(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "the loader failed");
}

static void run_street(struct run *run, unsigned i, unsigned count, unsigned workers, enum codec codec, bool tls)
{
    struct pipeline_tunables tunables = { .codec = codec, .acceleration = 1 };
    struct source *sources[] = { &memory.source };
    struct channel *main_channel, *data[PIPELINE_CHANNELS_MAX];
    struct channel_listener *listener;
    struct pipeline *pipeline;
    struct err err = { 0 };
    uint8_t byte;

    for (uint64_t word = 0; word < memory.source.words; word++) {
        atomic_store_explicit(&memory.dirty[word], UINT64_MAX, memory_order_relaxed);
    }
    require(channel_listen("tcp:127.0.0.1:0", &listener, &err) == 0, err.text);
    double cpu = cpu_s();
    pid_t child = fork();
    if (child == 0) {
        load_all(listener, count, workers, tls);
    }
    const char *uri = channel_listener_name(listener);
    require(child > 0 && channel_connect(uri, -1, &main_channel, &err) == 0, err.text);
    main_channel = secured(main_channel, tls, client_creds);
    for (unsigned c = 0; c < count; c++) {
        require(channel_connect(uri, -1, &data[c], &err) == 0, err.text);
        data[c] = secured(data[c], tls, client_creds);
    }
    struct pipeline_options options = {
        .workers = workers,
        .sources = sources,
        .source_count = 1,
        .channel = main_channel,
        .data = data,
        .data_count = count,
        .tunables = &tunables,
    };
    require(pipeline_new(&options, &pipeline, &err) == 0, err.text);
    int64_t start = clock_now_ns();
    require(pipeline_round(pipeline, true, NULL, &err) == 0, err.text);
    require(channel_read_all(main_channel, &byte, 1, -1, &err) == 0, err.text);
    run->wall[i] = (double)(clock_now_ns() - start) / 1e9;
    pipeline_free(pipeline);
    for (unsigned c = 0; c < count; c++) {
        channel_close(data[c]);
    }
    end_child(child);
    channel_close(main_channel);
    channel_listener_close(listener);
    run->cpu[i] = cpu_s() - cpu;
}

/* --- sending without a copy ---------------------------------------------------------------------------------- */

static uint64_t copied; /* completions that say that the kernel copied after all */

static void reap(int fd, uint32_t *pending, bool all)
{
    while (*pending && (all || *pending > 64)) {
        char control[128];
        struct msghdr message = { .msg_control = control, .msg_controllen = sizeof(control) };
        if (recvmsg(fd, &message, MSG_ERRQUEUE) < 0) {
            struct pollfd wait = { .fd = fd };
            require(errno == EAGAIN && poll(&wait, 1, 10000) == 1, "no completion");
            continue;
        }
        const struct cmsghdr *at = CMSG_FIRSTHDR(&message);
        const struct sock_extended_err *what = (const void *)CMSG_DATA(at);
        require(what->ee_origin == SO_EE_ORIGIN_ZEROCOPY, "an error");
        uint32_t done = what->ee_data - what->ee_info + 1;
        copied += what->ee_code & SO_EE_CODE_ZEROCOPY_COPIED ? done : 0;
        *pending -= done;
    }
}

static void run_send(struct run *run, unsigned i, bool zero_copy)
{
    struct sockaddr_in here = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof(here);
    size_t total = memory.source.units * UNIT;
    int listener = socket(AF_INET, SOCK_STREAM, 0), out = socket(AF_INET, SOCK_STREAM, 0), on = 1;

    require(bind(listener, (struct sockaddr *)&here, length) == 0 && listen(listener, 1) == 0 &&
                getsockname(listener, (struct sockaddr *)&here, &length) == 0,
            "cannot listen");
    double cpu = cpu_s();
    int64_t start = clock_now_ns();
    pid_t child = fork();
    if (child == 0) {
        static uint8_t into[PIECE];
        int in = accept(listener, NULL, NULL);
        for (size_t left = total; left;) {
            ssize_t got = read(in, into, sizeof(into));
            require(got > 0, "the stream ended");
            left -= (size_t)got;
        }
        _exit(0);
    }
    require(child > 0 && connect(out, (struct sockaddr *)&here, length) == 0, "cannot connect");
    require(!zero_copy || setsockopt(out, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)) == 0, "no MSG_ZEROCOPY here");
    uint32_t pending = 0;
    for (size_t at = 0; at < total;) {
        ssize_t sent = send(out, memory.bytes + at, total - at < PIECE ? total - at : PIECE,
                            MSG_NOSIGNAL | (zero_copy ? MSG_ZEROCOPY : 0));
        if (sent < 0 && errno == ENOBUFS && pending) {
            reap(out, &pending, true);
            continue;
        }
        require(sent > 0, strerror(errno));
        at += (size_t)sent;
        pending += zero_copy;
        reap(out, &pending, false);
    }
    reap(out, &pending, true);
    end_child(child);
    run->wall[i] = (double)(clock_now_ns() - start) / 1e9;
    run->cpu[i] = cpu_s() - cpu;
    close(out);
    close(listener);
}

/* --- telling it ------------------------------------------------------------------------------------------------ */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct spread {
    double low, median, high;
};

static struct spread spread_of(const double *of, unsigned count)
{
    double sorted[REPEATS_MAX] = { 0 };
    memcpy(sorted, of, count * sizeof(*of));
    qsort(sorted, count, sizeof(*sorted), compare);
    return (struct spread){ sorted[0], sorted[count / 2], sorted[count - 1] };
}

/* Pairs: neighbours in time saw the same noise. */
static struct spread ratio_of(const double *than, const double *is, unsigned count)
{
    double ratio[REPEATS_MAX] = { 0 };
    for (unsigned i = 0; i < count; i++) {
        ratio[i] = than[i] / is[i];
    }
    return spread_of(ratio, count);
}

static void tell(const char *name, const struct run *run, const struct run *first, unsigned repeats)
{
    double mb = (double)memory.source.units * UNIT / 1e6;
    struct spread wall = spread_of(run->wall, repeats), cpu = spread_of(run->cpu, repeats);
    struct spread ratio = ratio_of(first->wall, run->wall, repeats);
    printf("%-24s %6.0f MB/s [%.0f .. %.0f]  %6.0f MB per CPU second  faster than the first: %.2f [%.2f .. %.2f]\n",
           name, mb / wall.median, mb / wall.high, mb / wall.low, mb / cpu.median, ratio.median, ratio.low, ratio.high);
}

int main(int argc, char **argv)
{
    static struct run runs[VARIANTS];
    size_t mib = 256;
    unsigned repeats = 9, workers = 2;
    enum codec codec = CODEC_RAW;
    const char *priority = "";
    bool send_only = false, tls = false;
    int option;

    while ((option = getopt(argc, argv, "m:n:w:c:ztp:")) != -1) {
        switch (option) {
        case 'm': mib = strtoul(optarg, NULL, 10); break;
        case 'n': repeats = (unsigned)strtoul(optarg, NULL, 10); break;
        case 'w': workers = (unsigned)strtoul(optarg, NULL, 10); break;
        case 'c': codec = strcmp(optarg, "lz4") == 0 ? CODEC_LZ4 : CODEC_RAW; break;
        case 'z': send_only = true; break;
        case 't': tls = true; break;
        case 'p': priority = optarg; break;
        default: return 2;
        }
    }
    if (!mib || mib > 65536 || !repeats || repeats > REPEATS_MAX || !workers || workers > PIPELINE_WORKERS_MAX) {
        fprintf(stderr, "bench_channels: 1 to 65536 MiB, 1 to %d repeats, 1 to %d workers\n", REPEATS_MAX,
                PIPELINE_WORKERS_MAX);
        return 2;
    }
    make_memory(mib << 20);
    if (tls) {
        make_keys(priority);
    }
    unsigned variants = send_only ? 2 : VARIANTS;
    for (unsigned i = 0; i < repeats; i++) {
        for (unsigned v = 0; v < variants; v++) {
            if (send_only) {
                run_send(&runs[v], i, v == 1);
            } else if (tls) { /* plain and TLS, over one connection and beside two */
                run_street(&runs[v], i, v / 2 * 2, workers, codec, v % 2);
            } else {
                run_street(&runs[v], i, data_channels[v], workers, codec, false);
            }
        }
    }
    for (unsigned v = 0; v < variants; v++) {
        char name[32];
        snprintf(name, sizeof(name), "main and %u data channels", data_channels[v]);
        if (tls) {
            snprintf(name, sizeof(name), "%s%s", v / 2 ? "2 data channels" : "one connection", v % 2 ? ", TLS" : "");
            tell(name, &runs[v], &runs[v / 2 * 2], repeats);
            continue;
        }
        const char *sends = v ? "send, MSG_ZEROCOPY" : "send";
        tell(send_only ? sends : v ? name : "one connection", &runs[v], &runs[0], repeats);
    }
    if (send_only) {
        printf("the kernel copied %llu of these pieces after all\n", (unsigned long long)copied);
    }
    return 0;
}
