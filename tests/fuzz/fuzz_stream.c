/* A whole stream into a destination, and a mutator that knows what a stream is made of. Each input is u8 flags and the
 * stream: as a file, or with flag 1 over a line that is two-way, where it begins with a hello and ends with words; with flag 4
 * the destination listens, and every CALL_MAGIC is another connection: data channels, samples and rehearsals before it. The
 * destination is a machine of its own that arrives paused, without a sandbox, in this process. Whatever comes, the
 * migration is over with a sentence or with a guest that stands still, and nothing of it is left.
 *
 * An input of nothing, as the corpus begins, becomes a real stream: that of a machine which saves itself once. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/clock.h"
#include "machine/board.h"
#include "migration/hello.h"
#include "migration/migration.h"
#include "tests/fuzz/stream.h"

enum {
    FLAG_TWO_WAY = 1,
    FLAG_JIT = 2,
    FLAG_LISTENS = 4,
    LINES_MAX = 6,
    QUIET_MS = 100,      /* one that waits for somebody else to call is called off then */
    PATIENCE_MS = 15000, /* a destination that has not ended by then hangs */
    LINE_BYTES = 4 << 20,
};

/* Under AFL++ nobody calls the mutator. */
__attribute__((weak)) size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

/* --- the notes' folder -------------------------------------------------------------------------------------------- */

static char folder[] = "/tmp/godwit-fuzz-XXXXXX";

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status, (void)kind, (void)where;
    return remove(path);
}

static void remove_folder(void)
{
    nftw(folder, remove_one, 4, FTW_DEPTH | FTW_PHYS);
}

static void make_folder(void)
{
    static bool made;
    if (made)
        return;
    made = true;
    FUZZ_CHECK(mkdtemp(folder) && setenv("XDG_STATE_HOME", folder, 1) == 0);
    atexit(remove_folder);
}

/* --- a real stream ------------------------------------------------------------------------------------------------ */

enum { CALLS_CHANNELS, CALLS_PROBE, CALLS_REHEARSAL, CALLS };
static struct buf file_stream[2], line_stream; /* plain and packed; between a hello and the words at the end */
static struct buf calls[CALLS];                /* several connections */

static void save_one(const char *compression, struct buf *out)
{
    static int fd = -1;
    struct fuzz_machine m;
    struct migration *migration;
    struct err err = { 0 };
    char path[64], uri[80];
    uint8_t page[PAGE_BYTES];

    fuzz_machine_new(&m, false, false, false);
    for (unsigned i = 0; i < 3; i++) {
        for (unsigned at = 0; at < PAGE_BYTES; at++)
            page[at] = (uint8_t)(at * (i + 1) >> 5);
        FUZZ_CHECK(ram_load(machine_ram(m.machine), BOARD_RAM_BASE + i * 70 * PAGE_BYTES, page, sizeof(page)));
    }
    FUZZ_CHECK(migration_new(m.machine, &migration, NULL) == 0);
    FUZZ_CHECK(param_set_text(migration_params_of(migration), "compression", compression, NULL) == 0);
    fuzz_file(&fd, path, "", 0);
    snprintf(uri, sizeof(uri), "file:%s", path);
    FUZZ_CHECK(migration_start(migration, uri, &err) == 0 && migration_wait(migration, 60000));
    static struct migration_info info; /* large */
    migration_query(migration, &info);
    FUZZ_CHECK(info.state == MIGRATION_COMPLETED);
    off_t size = lseek(fd, 0, SEEK_END);
    buf_put_u8(out, 0);
    FUZZ_CHECK(pread(fd, buf_grow(out, (size_t)size), (size_t)size, 0) == size);
    migration_free(migration);
    fuzz_machine_free(&m);
}

static void put_hello(struct buf *out, const struct message_key *key, unsigned channels, uint64_t why)
{
    static struct hello hello; /* large */
    struct fuzz_machine m;
    struct buf payload = { 0 };
    fuzz_machine_new(&m, true, false, false);
    hello_fill(&hello, HELLO_SOURCE, machine_config_of(m.machine));
    fuzz_machine_free(&m);
    hello.channels = channels;
    hello.capabilities |= why;
    hello_encode(&hello, &payload);
    message_put(out, MESSAGE_HELLO, key, payload.data, (uint32_t)payload.size);
    buf_free(&payload);
}

static void put_channel(struct buf *out, const struct message_key *key, unsigned number, unsigned count)
{
    uint8_t payload[8];
    be32_put(payload, number);
    be32_put(payload + 4, count);
    buf_put_be32(out, CALL_MAGIC);
    message_put(out, MESSAGE_CHANNEL, key, payload, sizeof(payload));
}

static bool is_mark(const struct piece *piece)
{
    return piece->kind == PIECE_PART && piece->body.size > 4 && piece->body.data[4] == FRAME_MARK;
}

/* Pieces of a real stream: frames or all the others, marks anyway. */
static void put_some(struct buf *out, const struct pieces *real, bool frames, bool others)
{
    for (unsigned i = 0; i < real->count; i++)
        if (is_mark(&real->piece[i]) || (real->piece[i].kind == PIECE_PART ? frames : others))
            put_piece(out, &real->piece[i]);
}

static void put_move(struct buf *out, const struct message_key *key, const struct buf *stream)
{
    put_hello(out, key, 1, 0);
    buf_put(out, stream->data + 1, stream->size - 1);
    message_put(out, MESSAGE_GO, key, NULL, 0);
    message_put(out, MESSAGE_DONE, key, NULL, 0);
}

static void make_calls(const struct message_key *key)
{
    static struct pieces real;
    pieces_of(file_stream[1].data + 1, file_stream[1].size - 1, &real);
    for (unsigned i = 0; i < CALLS; i++)
        buf_put_u8(&calls[i], FLAG_LISTENS);

    put_hello(&calls[CALLS_CHANNELS], key, 2, 0);
    put_some(&calls[CALLS_CHANNELS], &real, false, true);
    message_put(&calls[CALLS_CHANNELS], MESSAGE_GO, key, NULL, 0);
    message_put(&calls[CALLS_CHANNELS], MESSAGE_DONE, key, NULL, 0);
    put_channel(&calls[CALLS_CHANNELS], key, 1, 2);
    put_some(&calls[CALLS_CHANNELS], &real, true, false);
    put_channel(&calls[CALLS_CHANNELS], key, 2, 2);
    put_some(&calls[CALLS_CHANNELS], &real, false, false);

    put_hello(&calls[CALLS_PROBE], key, 1, HELLO_PROBE);
    put_some(&calls[CALLS_PROBE], &real, true, false);
    buf_put_u8(&calls[CALLS_PROBE], ELEMENT_EOF);
    put_hello(&calls[CALLS_REHEARSAL], key, 1, HELLO_REHEARSAL);
    buf_put(&calls[CALLS_REHEARSAL], file_stream[1].data + 1, file_stream[1].size - 1);
    for (unsigned i = CALLS_PROBE; i < CALLS; i++) {
        buf_put_be32(&calls[i], CALL_MAGIC);
        put_move(&calls[i], key, &file_stream[1]);
    }
    pieces_free(&real);
}

static void make_streams(void)
{
    struct message_key key = { .id = { 7 }, .attempt = 1 };
    if (line_stream.size)
        return;
    make_folder();
    save_one("none", &file_stream[0]);
    save_one("lz4", &file_stream[1]);

    make_calls(&key);
    buf_put_u8(&line_stream, FLAG_TWO_WAY);
    put_move(&line_stream, &key, &file_stream[1]);
}

/* --- the destination ---------------------------------------------------------------------------------------------- */

/* All that fits into a line that nobody reads from at this end. */
static void fill(int fd, const uint8_t *data, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t put = send(fd, data + done, bytes - done, MSG_NOSIGNAL);
        if (put <= 0)
            break;
        done += (size_t)put;
    }
}

/* Every call, in order. A data channel stays open: its end is an error of its own. The lines, as many as there are, are closed
 * by the caller. */
static unsigned call(const char *path, const uint8_t *data, size_t bytes, int lines[LINES_MAX])
{
    static const uint8_t magic[] = { 'G', 'W', 'C', 'L' };
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    int room = LINE_BYTES;
    unsigned count = 0;
    snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
    for (const uint8_t *at = data, *end = data + bytes; at && count < LINES_MAX; count++) {
        const uint8_t *next = memmem(at, (size_t)(end - at), magic, sizeof(magic));
        size_t now = (size_t)((next ? next : end) - at);
        int fd = lines[count] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
        if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0)
            fill(fd, at, now);
        if (now < 6 || be32_get(at) != MESSAGE_MAGIC || be16_get(at + 4) != MESSAGE_CHANNEL)
            shutdown(fd, SHUT_WR);
        at = next ? next + sizeof(magic) : NULL;
    }
    return count;
}

static int fill_line(const uint8_t *data, size_t bytes)
{
    int ends[2], room = LINE_BYTES;
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    setsockopt(ends[0], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
    setsockopt(ends[1], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
    fill(ends[0], data, bytes);
    shutdown(ends[0], SHUT_WR);
    /* Its number goes to the destination; ours stays open for the answers until the next one. */
    static int kept = -1;
    if (kept >= 0)
        close(kept);
    kept = ends[0];
    return ends[1];
}

static unsigned long ran, arrived;

/* Depth, to be looked at: a mutator that brings no guest through has become useless. */
static void say_arrived(void)
{
    fprintf(stderr, "of %lu streams %lu brought a guest\n", ran, arrived);
}

static void check_end(struct fuzz_machine *m, struct migration *migration)
{
    static struct migration_info info; /* large */
    migration_query(migration, &info);
    if (ran++ == 0)
        atexit(say_arrived);
    arrived += info.state == MIGRATION_COMPLETED;
    FUZZ_CHECK(info.state == MIGRATION_COMPLETED || info.error.text[0]);
    FUZZ_CHECK(machine_state(m->machine) != RUN_RUNNING);
    FUZZ_CHECK(info.state != MIGRATION_COMPLETED || machine_state(m->machine) == RUN_PAUSED ||
               machine_state(m->machine) == RUN_SHUTDOWN || machine_state(m->machine) == RUN_PRELAUNCH);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    struct fuzz_machine m;
    struct migration *migration;
    struct err err = { 0 };
    char path[64], uri[80];
    int line[LINES_MAX];
    unsigned lines = 0;
    if (size < 2)
        return 0;
    make_folder();
    fuzz_machine_new(&m, true, false, data[0] & FLAG_JIT);
    FUZZ_CHECK(migration_new(m.machine, &migration, &err) == 0);
    migration_sandbox(migration, MIGRATION_SANDBOX_OFF);
    FUZZ_CHECK(param_set_text(migration_params_of(migration), "peer-timeout", "100", NULL) == 0);
    FUZZ_CHECK(param_set_text(migration_params_of(migration), "threads", "1", NULL) == 0);
    if (data[0] & FLAG_LISTENS) {
        snprintf(path, sizeof(path), "%s/in", folder);
        snprintf(uri, sizeof(uri), "unix:%s", path);
    } else if (data[0] & FLAG_TWO_WAY) {
        snprintf(uri, sizeof(uri), "fd:%d", fill_line(data + 1, size - 1));
    } else {
        fuzz_file(&fd, path, data + 1, size - 1);
        snprintf(uri, sizeof(uri), "file:%s", path);
    }
    FUZZ_CHECK(migration_incoming(migration, uri, false, &err) == 0);
    if (data[0] & FLAG_LISTENS)
        lines = call(path, data + 1, size - 1, line);
    if (lines && !migration_wait(migration, QUIET_MS))
        migration_cancel(migration);
    FUZZ_CHECK(migration_wait(migration, PATIENCE_MS));
    check_end(&m, migration);
    migration_free(migration);
    while (lines)
        close(line[--lines]);
    fuzz_machine_free(&m);
    return 0;
}

/* --- the mutator -------------------------------------------------------------------------------------------------- */

static uint64_t dice;

static uint64_t roll(uint64_t below)
{
    dice = dice * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return below ? (dice >> 33) % below : 0;
}

static void mutate_bytes(struct buf *body, size_t from, size_t most)
{
    if (body->size < from)
        return;
    size_t bytes = body->size - from, room = bytes + 16 < most ? bytes + 16 : most;
    uint8_t *work = malloc(room + 1);
    bytes = bytes < room ? bytes : room;
    memcpy(work, body->data ? body->data + from : work, bytes);
    size_t now = LLVMFuzzerMutate ? LLVMFuzzerMutate(work, bytes, room ? room : 1) : bytes;
    body->size = from;
    buf_put(body, work, now);
    free(work);
}

/* One number of a field's width, to something at an edge; nothing moves. */
static void mutate_number(struct buf *body)
{
    static const uint64_t edges[] = {
        0,   1,   2,   7,   8,    15,   16,        31,         32,        63,         64,
        127, 128, 255, 256, 4095, 4096, INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX, BOARD_RAM_BASE
    };
    size_t width = (size_t)1 << roll(4);
    if (body->size < width)
        return;
    size_t at = roll(body->size - width + 1);
    uint64_t value = roll(2) ? edges[roll(sizeof(edges) / sizeof(edges[0]))] : dice;
    for (size_t i = 0; i < width; i++)
        body->data[at + i] = (uint8_t)(value >> 8 * (width - 1 - i));
}

static void mutate_head(struct section_head *head, const struct pieces *p)
{
    const struct section_head *other = &p->piece[roll(p->count)].head;
    switch (roll(4)) {
    case 0: head->id = other->id; break;
    case 1: head->instance = (uint32_t)roll(9); break;
    case 2: head->version = (uint32_t)roll(4); break;
    default:
        if (other->name[0] && head->name[0])
            memcpy(head->name, other->name, sizeof(head->name));
    }
}

static void mutate_piece(struct piece *piece, const struct pieces *p)
{
    size_t fixed = piece->kind == PIECE_PART && roll(2) ? FRAME_HEAD_BYTES : 0;
    uint64_t what = roll(8);
    if (what == 0 && piece->kind == PIECE_MESSAGE)
        piece->type = (uint16_t)roll(24);
    else if (what == 0)
        mutate_head(&piece->head, p);
    else if (what <= 4)
        mutate_number(&piece->body);
    else
        mutate_bytes(&piece->body, fixed, SECTION_FULL_MAX);
    if (piece->kind == PIECE_PART && piece->body.size > 13)
        piece->body.data[12] = piece->body.data[13] = 0; /* few units exist */
}

static void remove_piece(struct pieces *p, unsigned at)
{
    buf_free(&p->piece[at].body);
    memmove(&p->piece[at], &p->piece[at + 1], (p->count - at - 1) * sizeof(p->piece[0]));
    p->count--;
}

static void insert_piece(struct pieces *p, unsigned at, const struct piece *piece)
{
    if (p->count == PIECES_MAX)
        return;
    struct piece copy;
    piece_copy(&copy, piece);
    memmove(&p->piece[at + 1], &p->piece[at], (p->count - at) * sizeof(p->piece[0]));
    p->piece[at] = copy;
    p->count++;
}

static void mutate(struct pieces *p)
{
    unsigned at = (unsigned)roll(p->count), to = (unsigned)roll(p->count + 1);
    switch (roll(12)) {
    case 0:
        if (p->count > 1)
            remove_piece(p, at);
        break;
    case 1: insert_piece(p, to, &p->piece[at]); break;
    case 2: { /* moved */
        struct piece piece;
        piece_copy(&piece, &p->piece[at]);
        remove_piece(p, at);
        insert_piece(p, to > p->count ? p->count : to, &piece);
        buf_free(&piece.body);
        break;
    }
    case 3: { /* one of a real stream */
        static struct pieces real;
        const struct buf *of = roll(2) ? &line_stream : &file_stream[0];
        pieces_of(of->data + 1, of->size - 1, &real);
        insert_piece(p, to, &real.piece[roll(real.count)]);
        pieces_free(&real);
        break;
    }
    default: mutate_piece(&p->piece[at], p);
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    static struct pieces pieces;
    struct buf out = { 0 };
    dice = seed;
    make_streams();
    uint8_t flags = size ? data[0] : 0;
    if (size < 64) { /* from nothing: a real one */
        const struct buf *real = roll(2) ? &calls[roll(CALLS)] : roll(3) ? &line_stream : &file_stream[roll(2)];
        pieces_of(real->data + 1, real->size - 1, &pieces);
        flags = real->data[0] | (uint8_t)(roll(4) ? 0 : FLAG_JIT);
    } else {
        pieces_of(data + 1, size - 1, &pieces);
    }
    for (uint64_t n = size < 64 ? 0 : 1 + roll(4); n && pieces.count; n--)
        mutate(&pieces);
    buf_put_u8(&out, flags);
    pieces_put(&pieces, roll(8) != 0, &out);
    pieces_free(&pieces);
    size_t now = out.size;
    if (roll(32) == 0 && now > 2) /* cut anywhere */
        now = 2 + roll(now - 2);
    if (now > max_size)
        now = max_size;
    memcpy(data, out.data, now);
    buf_free(&out);
    return now;
}
