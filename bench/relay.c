/* A link between two programs, in user space: rate, delay, jitter, stalls, and an exact count of what passed.
 *
 *   relay --to HOST:PORT [--listen HOST:PORT] [--rate MBIT_PER_S] [--rtt MS] [--jitter MS]
 *         [--stall AT_MS:FOR_MS]... [--stall-every MS:FOR_MS] [--seed N] [--log FILE]
 *
 * Prints "listening PORT", then passes every connection on. All connections share one link each way: so many bits a second leave it,
 * each byte half the round-trip time (and up to the jitter, never out of order) after it went in. During a stall nothing enters and
 * nothing leaves; stalls are counted from the first byte. What does not fit waits in the sender's socket, as before a slow network card.
 * On SIGTERM, SIGINT, or when standard input ends, one line of JSON:
 *   {"connections": 1, "there_bytes": N, "back_bytes": N, "first_ns": T, "last_ns": T}
 * there: from who connected to --to. Bytes of payload, without TCP's and IP's headers. Times are CLOCK_MONOTONIC. --log: a line
 * "ns there_bytes back_bytes" every 10 ms in which something passed.
 *
 * One thread: whoever needs more than it can pass, some GB/s, needs a real network. */
#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LINES_MAX = 128, STALLS_MAX = 64, SEGMENTS = 1 << 15, TAKE_MAX = 256 << 10, TAKE_MIN = 1500 };
/* So far ahead of its rate a link takes bytes: what the scheduler may be late without the link standing idle. */
static const int64_t AHEAD_NS = 2000000, LOG_NS = 10000000;
/* And so much unused time it makes up for, as a kernel's token bucket does: what the scheduler was late nevertheless. */
static const int64_t CREDIT_NS = 4000000;
static const uint64_t RING_LEAST = 1 << 20, RING_MOST = 256 << 20;

enum { THERE, BACK, WAYS };

/* One way of the link; all connections share it. */
struct way {
    int64_t free_ns; /* when the last byte that entered has been sent off */
    uint64_t bytes;
};

/* One way of one connection: a ring of bytes, cut into segments that share a due time. */
struct pipe_way {
    uint8_t *ring;
    uint64_t in, out; /* bytes ever entered and left */
    struct segment {
        uint64_t end;
        int64_t due_ns;
    } * segment;
    uint32_t first, last; /* segments: [first, last), modulo SEGMENTS */
    int64_t due_ns;       /* of the newest: order is kept */
    bool ended, told;     /* the sender has; the receiver knows */
    bool full;            /* the receiver's socket */
};

struct line {
    int fd[WAYS]; /* fd[w] is where way w comes from; it goes to fd[!w] */
    struct pipe_way pipe[WAYS];
};

static struct {
    double bits_per_ns;
    int64_t delay_ns, jitter_ns, begun_ns, last_ns;
    struct {
        int64_t at_ns, for_ns;
    } stall[STALLS_MAX];
    unsigned stalls;
    int64_t every_ns, every_for_ns;
    uint64_t ring_bytes, random;
    FILE *log;
    int64_t logged_ns;
} link_is = { .random = 1 };

static struct way way[WAYS];
static struct line line[LINES_MAX];
static unsigned lines, connections;
static struct addrinfo *target;

_Noreturn static void fail(const char *what, const char *name)
{
    fprintf(stderr, "relay: %s %s: %s\n", what, name, strerror(errno));
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* --- the link's clockwork -------------------------------------------------------------------------------------- */

/* The end of the stall that `ns` falls into, or ns itself. */
static int64_t after_stall(int64_t ns)
{
    if (!link_is.begun_ns)
        return ns;
    int64_t since = ns - link_is.begun_ns;
    for (unsigned i = 0; i < link_is.stalls; i++) {
        int64_t end = link_is.stall[i].at_ns + link_is.stall[i].for_ns;
        if (since >= link_is.stall[i].at_ns && since < end)
            since = end;
    }
    if (link_is.every_ns && since >= link_is.every_ns && since % link_is.every_ns < link_is.every_for_ns)
        since += link_is.every_for_ns - since % link_is.every_ns;
    return link_is.begun_ns + since;
}

/* When way w takes its next bytes: not long before they can be sent off. */
static int64_t ready_ns(unsigned w, int64_t now)
{
    int64_t open = after_stall(now);
    if (link_is.bits_per_ns > 0 && way[w].free_ns - AHEAD_NS > open)
        open = way[w].free_ns - AHEAD_NS;
    return open;
}

/* When bytes that enter way w now come out. */
static int64_t enter(unsigned w, uint64_t bytes, int64_t now)
{
    int64_t start = way[w].free_ns > now - CREDIT_NS ? way[w].free_ns : now - CREDIT_NS;
    int64_t sent = after_stall(start);
    if (link_is.bits_per_ns > 0)
        sent += (int64_t)((double)bytes * 8 / link_is.bits_per_ns);
    way[w].free_ns = sent;
    if (sent < now)
        sent = after_stall(now);
    way[w].bytes += bytes;
    link_is.last_ns = now;
    if (link_is.jitter_ns) {
        link_is.random = link_is.random * 6364136223846793005u + 1442695040888963407u;
        sent += (int64_t)((double)(link_is.random >> 11) / (1ull << 53) * (double)link_is.jitter_ns);
    }
    return after_stall(sent + link_is.delay_ns);
}

/* --- one way of one connection ----------------------------------------------------------------------------------- */

static uint64_t room(const struct pipe_way *p)
{
    if ((p->last + 1) % SEGMENTS == p->first)
        return 0;
    return link_is.ring_bytes - (p->in - p->out);
}

static uint64_t take_most(void)
{
    if (link_is.bits_per_ns <= 0)
        return TAKE_MAX;
    uint64_t bytes = (uint64_t)(link_is.bits_per_ns / 8 * (double)AHEAD_NS / 4);
    return bytes < TAKE_MIN ? TAKE_MIN : bytes > TAKE_MAX ? TAKE_MAX : bytes;
}

/* False: the connection broke. */
static bool take_in(struct line *l, unsigned w, int64_t now)
{
    struct pipe_way *p = &l->pipe[w];
    uint64_t at = p->in % link_is.ring_bytes, most = room(p), whole = link_is.ring_bytes - at;

    most = most < whole ? most : whole;
    most = most < take_most() ? most : take_most();
    ssize_t got = recv(l->fd[w], p->ring + at, most, MSG_DONTWAIT);
    if (got < 0)
        return errno == EAGAIN || errno == EINTR;
    if (got == 0) {
        p->ended = true;
        return true;
    }
    if (!link_is.begun_ns)
        link_is.begun_ns = now;
    int64_t due = enter(w, (uint64_t)got, now);
    p->in += (uint64_t)got;
    p->due_ns = due > p->due_ns ? due : p->due_ns;
    p->segment[p->last] = (struct segment){ p->in, p->due_ns };
    p->last = (p->last + 1) % SEGMENTS;
    return true;
}

/* Everything that is due; false: the connection broke. */
static bool give_out(struct line *l, unsigned w, int64_t now)
{
    struct pipe_way *p = &l->pipe[w];

    p->full = false;
    while (p->first != p->last && p->segment[p->first].due_ns <= now) {
        uint64_t at = p->out % link_is.ring_bytes, left = p->segment[p->first].end - p->out;
        uint64_t whole = link_is.ring_bytes - at;
        ssize_t put = send(l->fd[!w], p->ring + at, left < whole ? left : whole, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0) {
            p->full = errno == EAGAIN;
            return p->full;
        }
        p->out += (uint64_t)put;
        if (p->out == p->segment[p->first].end)
            p->first = (p->first + 1) % SEGMENTS;
    }
    if (p->ended && !p->told && p->in == p->out) {
        p->told = true;
        shutdown(l->fd[!w], SHUT_WR);
    }
    return true;
}

static void line_close(struct line *l)
{
    for (unsigned w = 0; w < WAYS; w++) {
        close(l->fd[w]);
        munmap(l->pipe[w].ring, link_is.ring_bytes);
        free(l->pipe[w].segment);
    }
    *l = line[--lines];
}

static void line_open(int from)
{
    int to = socket(target->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (to < 0)
        fail("socket for", "--to");
    if (lines == LINES_MAX || connect(to, target->ai_addr, target->ai_addrlen) < 0) {
        fprintf(stderr, "relay: --to: %s\n", lines == LINES_MAX ? "too many connections" : strerror(errno));
        close(to);
        close(from);
        return;
    }
    struct line *l = &line[lines++];
    *l = (struct line){ .fd = { from, to } };
    for (unsigned w = 0; w < WAYS; w++) {
        setsockopt(l->fd[w], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        void *ring =
            mmap(NULL, link_is.ring_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        l->pipe[w].ring = ring;
        l->pipe[w].segment = calloc(SEGMENTS, sizeof(struct segment));
        if (ring == MAP_FAILED || !l->pipe[w].segment)
            fail("no memory for", "a connection");
    }
    connections++;
}

/* --- the loop ------------------------------------------------------------------------------------------------------ */

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
    (void)number;
    stop = 1;
}

static int64_t sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* What to poll for; returns when to look again anyway. */
static int64_t wishes(struct pollfd *wish, int64_t now)
{
    int64_t wake = INT64_MAX;

    for (unsigned i = 0; i < lines; i++) {
        for (unsigned w = 0; w < WAYS; w++) {
            const struct pipe_way *p = &line[i].pipe[w];
            const struct pipe_way *other = &line[i].pipe[!w];
            short events = other->full ? POLLOUT : 0;
            if (!p->ended && room(p) > 0) {
                int64_t ready = ready_ns(w, now);
                if (ready <= now)
                    events |= POLLIN;
                else
                    wake = sooner(wake, ready);
            }
            if (p->first != p->last && !p->full)
                wake = sooner(wake, p->segment[p->first].due_ns);
            wish[i * 2 + w] = (struct pollfd){ .fd = events ? line[i].fd[w] : -1, .events = events };
        }
    }
    return wake;
}

static void write_log(int64_t now)
{
    static uint64_t there, back;
    if (!link_is.log || now - link_is.logged_ns < LOG_NS || (way[THERE].bytes == there && way[BACK].bytes == back))
        return;
    there = way[THERE].bytes;
    back = way[BACK].bytes;
    link_is.logged_ns = now;
    fprintf(link_is.log, "%" PRId64 " %" PRIu64 " %" PRIu64 "\n", now, there, back);
}

static void run(int listener)
{
    static struct pollfd wish[LINES_MAX * 2 + 2];
    unsigned turn = 0;

    while (!stop) {
        int64_t now = now_ns(), wake = wishes(wish, now);
        unsigned count = lines * 2;
        wish[count] = (struct pollfd){ .fd = listener, .events = POLLIN };
        wish[count + 1] = (struct pollfd){ .fd = STDIN_FILENO, .events = POLLIN };
        int64_t wait = wake == INT64_MAX ? 1000000000 : wake > now ? wake - now : 0;
        struct timespec timeout = { wait / 1000000000, wait % 1000000000 };
        if (ppoll(wish, count + 2, &timeout, NULL) < 0 && errno != EINTR)
            fail("poll", "");
        char byte;
        if (wish[count + 1].revents && read(STDIN_FILENO, &byte, 1) <= 0)
            return;
        bool arrived = wish[count].revents != 0;
        turn++;
        for (unsigned n = lines; n-- > 0;) { /* from the end: closing moves the last one here */
            bool sound = true;
            for (unsigned k = 0; k < WAYS && sound; k++) {
                unsigned w = (turn + k) & 1;
                now = now_ns();
                bool able = !line[n].pipe[w].ended && room(&line[n].pipe[w]) > 0;
                if ((wish[n * 2 + w].revents & ~POLLOUT) && able && ready_ns(w, now) <= now)
                    sound = take_in(&line[n], w, now);
                if (sound)
                    sound = give_out(&line[n], w, now);
            }
            if (!sound || (line[n].pipe[THERE].told && line[n].pipe[BACK].told))
                line_close(&line[n]);
        }
        if (arrived) {
            int from = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
            if (from >= 0)
                line_open(from);
        }
        write_log(now);
    }
}

/* --- options ------------------------------------------------------------------------------------------------------- */

static struct addrinfo *address(const char *text, bool passive)
{
    char host[256];
    const char *colon = strrchr(text, ':');
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = passive ? AI_PASSIVE : 0 }, *found = NULL;

    if (!colon || (size_t)(colon - text) >= sizeof(host)) {
        fprintf(stderr, "relay: %s: HOST:PORT expected\n", text);
        exit(2);
    }
    snprintf(host, sizeof(host), "%.*s", (int)(colon - text), text);
    char *name = host;
    if (name[0] == '[' && name[strlen(name) - 1] == ']') {
        name[strlen(name) - 1] = '\0';
        name++;
    }
    int code = getaddrinfo(name, colon + 1, &hints, &found);
    if (code) {
        fprintf(stderr, "relay: %s: %s\n", text, gai_strerror(code));
        exit(1);
    }
    return found;
}

static double number(const char *text, char **end, const char *what)
{
    double value = strtod(text, end);
    if (*end == text || !(value >= 0) || value > 1e9) {
        fprintf(stderr, "relay: --%s %s: a number from 0 to 1e9 expected\n", what, text);
        exit(2);
    }
    return value;
}

static int64_t ms(const char *text, const char *what)
{
    char *end;
    return (int64_t)(number(text, &end, what) * 1e6);
}

static int64_t ms_colon_ms(const char *text, const char *what, int64_t *second)
{
    char *end;
    int64_t first = (int64_t)(number(text, &end, what) * 1e6);
    if (*end != ':') {
        fprintf(stderr, "relay: --%s %s: MS:MS expected\n", what, text);
        exit(2);
    }
    *second = ms(end + 1, what);
    return first;
}

static int listen_on(const char *text)
{
    struct addrinfo *here = address(text, true);
    struct sockaddr_storage bound;
    socklen_t length = sizeof(bound);
    int on = 1, listener = socket(here->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char port[16];

    if (listener < 0)
        fail("socket for", text);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (link_is.bits_per_ns > 0) { /* 20 ms of the link, so that what waits does so where the sender sees it */
        int bytes = (int)(link_is.bits_per_ns / 8 * 20e6);
        bytes = bytes < 64 << 10 ? 64 << 10 : bytes > 4 << 20 ? 4 << 20 : bytes;
        setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    }
    if (bind(listener, here->ai_addr, here->ai_addrlen) < 0 || listen(listener, 64) < 0 ||
        getsockname(listener, (struct sockaddr *)&bound, &length) < 0)
        fail("listen on", text);
    if (getnameinfo((struct sockaddr *)&bound, length, NULL, 0, port, sizeof(port), NI_NUMERICSERV) == 0)
        printf("listening %s\n", port);
    fflush(stdout);
    freeaddrinfo(here);
    return listener;
}

static void size_ring(void)
{
    uint64_t bytes = RING_LEAST;
    if (link_is.delay_ns > 0) {
        double flight = (double)(link_is.delay_ns + link_is.jitter_ns) * link_is.bits_per_ns / 8;
        bytes = link_is.bits_per_ns > 0 ? (uint64_t)flight + 4 * RING_LEAST : RING_MOST;
    }
    link_is.ring_bytes = (bytes > RING_MOST ? RING_MOST : bytes) & ~UINT64_C(4095);
}

int main(int argc, char **argv)
{
    static const struct option longer[] = { { "to", 1, NULL, 't' },     { "listen", 1, NULL, 'l' },
                                            { "rate", 1, NULL, 'r' },   { "rtt", 1, NULL, 'd' },
                                            { "jitter", 1, NULL, 'j' }, { "stall", 1, NULL, 's' },
                                            { "log", 1, NULL, 'o' },    { "stall-every", 1, NULL, 'e' },
                                            { "seed", 1, NULL, 'x' },   { 0 } };
    const char *listen_at = "127.0.0.1:0", *to = NULL;
    char *end;
    int option;

    while ((option = getopt_long(argc, argv, "", longer, NULL)) != -1) {
        switch (option) {
        case 't': to = optarg; break;
        case 'l': listen_at = optarg; break;
        case 'r': link_is.bits_per_ns = number(optarg, &end, "rate") / 1e3; break;
        case 'd': link_is.delay_ns = ms(optarg, "rtt") / 2; break;
        case 'j': link_is.jitter_ns = ms(optarg, "jitter"); break;
        case 's':
            if (link_is.stalls == STALLS_MAX)
                return 2;
            link_is.stall[link_is.stalls].at_ns = ms_colon_ms(optarg, "stall", &link_is.stall[link_is.stalls].for_ns);
            link_is.stalls++;
            break;
        case 'e': link_is.every_ns = ms_colon_ms(optarg, "stall-every", &link_is.every_for_ns); break;
        case 'x': link_is.random = strtoull(optarg, NULL, 0); break;
        case 'o':
            link_is.log = fopen(optarg, "we");
            if (!link_is.log)
                fail("--log", optarg);
            break;
        default: return 2;
        }
    }
    if (!to || optind < argc || (link_is.every_ns && link_is.every_for_ns >= link_is.every_ns)) {
        fprintf(stderr,
                "usage: relay --to HOST:PORT [--listen HOST:PORT] [--rate MBIT_PER_S] [--rtt MS] [--jitter MS]\n"
                "             [--stall AT_MS:FOR_MS]... [--stall-every MS:FOR_MS] [--seed N] [--log FILE]\n");
        return 2;
    }
    target = address(to, false);
    size_ring();
    prctl(PR_SET_TIMERSLACK, 1000);
    signal(SIGPIPE, SIG_IGN);
    sigaction(SIGTERM, &(struct sigaction){ .sa_handler = on_signal }, NULL);
    sigaction(SIGINT, &(struct sigaction){ .sa_handler = on_signal }, NULL);
    run(listen_on(listen_at));
    printf("{\"connections\": %u, \"there_bytes\": %" PRIu64 ", \"back_bytes\": %" PRIu64 ", \"first_ns\": %" PRId64
           ", \"last_ns\": %" PRId64 "}\n",
           connections, way[THERE].bytes, way[BACK].bytes, link_is.begun_ns, link_is.last_ns);
    if (link_is.log)
        fclose(link_is.log);
    freeaddrinfo(target);
    return 0;
}
