/* Chardevs that are a descriptor. Input and waiting belong to the loop; output is written at once by whoever has it,
 * and what the host does not take waits in a ring that the loop empties.
 *
 * A server takes one peer at a time: while one is there the next ones wait in the backlog. */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include "base/chardev_priv.h"
#include "base/lock.h"

enum { PTY_POLL_MS = 200, LAST_WORDS_MS = 100 };

/* One descriptor as the loop watches it. The handle outlives us by one turn of the loop, hence its own memory. */
struct watch {
    int fd, events;  /* events as armed; 0: not armed */
    uv_poll_t *poll; /* NULL: the kernel cannot poll it (a regular file), it is always ready */
};

struct stream {
    struct chardev chardev;
    /* fixed after new */
    uv_loop_t *loop;
    bool socket, pty;
    char unlink_path[CHARDEV_ADDRESS_MAX];
    void (*restore)(void);
    void (*stop_signals)(void);
    /* owner: the loop's thread */
    struct watch in, out; /* out unused when `in` goes both ways */
    struct watch listener;
    uv_idle_t *idle; /* reads regular files */
    uv_timer_t *pty_timer;
    uv_async_t *wake;
    bool idle_on;
    /* under lock */
    struct lock lock;
    int out_fd; /* -1: nobody there, everything is swallowed */
    uint8_t ring[CHARDEV_QUEUE_MAX];
    size_t head, count;
    bool wants_writable; /* somebody was refused and waits to be told */
};

static void stream_update(struct stream *s);

static struct stream *stream_of(struct chardev *chardev)
{
    return (struct stream *)chardev;
}

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

static void close_handle(void *handle)
{
    if (handle)
        uv_close(handle, free_handle);
}

/* --- output --------------------------------------------------------------------------------------------- */

/* Bytes written, 0 when it would block, -errno. */
static ssize_t write_some(struct stream *s, const uint8_t *data, size_t bytes)
{
    assert(lock_held(&s->lock));
    ssize_t n;
    do
        n = s->socket ? send(s->out_fd, data, bytes, MSG_DONTWAIT | MSG_NOSIGNAL) : write(s->out_fd, data, bytes);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ? 0 : -errno;
    return n;
}

/* Nobody reads any more. That somebody left is for the reading side to find: what they said last is still there. */
static void swallow_from_now_on(struct stream *s)
{
    s->out_fd = -1;
    s->head = s->count = 0;
}

static size_t enqueue(struct stream *s, const uint8_t *data, size_t bytes)
{
    size_t room = sizeof s->ring - s->count, take = bytes < room ? bytes : room;
    for (size_t done = 0; done < take;) {
        size_t at = (s->head + s->count) % sizeof s->ring, piece = sizeof s->ring - at;
        if (piece > take - done)
            piece = take - done;
        memcpy(s->ring + at, data + done, piece);
        s->count += piece;
        done += piece;
    }
    return take;
}

/* False when it failed for good. */
static bool drain_ring(struct stream *s)
{
    while (s->count > 0) {
        size_t piece = sizeof s->ring - s->head;
        if (piece > s->count)
            piece = s->count;
        ssize_t n = write_some(s, s->ring + s->head, piece);
        if (n < 0)
            return false;
        if (n == 0)
            break;
        s->head = (s->head + (size_t)n) % sizeof s->ring;
        s->count -= (size_t)n;
    }
    return true;
}

static size_t stream_write(struct chardev *chardev, const uint8_t *data, size_t bytes)
{
    struct stream *s = stream_of(chardev);
    size_t done = 0;
    bool wake = false;
    lock(&s->lock);
    if (s->out_fd >= 0 && s->count == 0) {
        ssize_t n = 1;
        while (done < bytes && (n = write_some(s, data + done, bytes - done)) > 0)
            done += (size_t)n;
        if (n < 0)
            swallow_from_now_on(s);
    }
    if (s->out_fd < 0) {
        done = bytes;
    } else if (done < bytes) {
        wake = s->count == 0;
        done += enqueue(s, data + done, bytes - done);
        s->wants_writable |= done < bytes;
    }
    unlock(&s->lock);
    if (wake)
        uv_async_send(s->wake);
    return done;
}

static void flush_ring(struct stream *s)
{
    lock(&s->lock);
    if (s->out_fd >= 0 && !drain_ring(s))
        swallow_from_now_on(s);
    bool tell = s->wants_writable && s->count <= sizeof s->ring / 2;
    if (tell)
        s->wants_writable = false;
    unlock(&s->lock);
    stream_update(s);
    if (tell)
        chardev_tell_writable(&s->chardev);
}

/* --- peers come and go ---------------------------------------------------------------------------------- */

static void watch_close(struct watch *watch)
{
    close_handle(watch->poll);
    if (watch->fd >= 0)
        close(watch->fd);
    *watch = (struct watch){ .fd = -1 };
}

static void watch_set(struct stream *s, struct watch *watch, int events, uv_poll_cb ready)
{
    if (!watch->poll || watch->events == events)
        return;
    watch->events = events;
    watch->poll->data = s;
    if (events)
        uv_poll_start(watch->poll, events, ready);
    else
        uv_poll_stop(watch->poll);
}

static int watch_open(struct stream *s, struct watch *watch, int fd)
{
    *watch = (struct watch){ .fd = fd };
    watch->poll = malloc(sizeof *watch->poll);
    if (!watch->poll)
        return -ENOMEM;
    int rc = uv_poll_init(s->loop, watch->poll, fd);
    if (rc == 0)
        return 0;
    free(watch->poll);
    watch->poll = NULL;
    return rc == UV_EPERM ? 0 : rc;
}

static void set_out(struct stream *s, int fd)
{
    lock(&s->lock);
    swallow_from_now_on(s);
    s->out_fd = fd;
    s->wants_writable = false;
    unlock(&s->lock);
}

static void peer_left(struct stream *s)
{
    set_out(s, -1);
    if (s->pty) { /* the same descriptor is good for the next one */
        watch_set(s, &s->in, 0, NULL);
    } else {
        watch_close(&s->in);
    }
    stream_update(s);
    chardev_tell_open(&s->chardev, false);
    chardev_tell_writable(&s->chardev); /* whoever waited for room may now talk to nobody */
}

static void peer_came(struct stream *s)
{
    set_out(s, s->in.fd);
    stream_update(s);
    chardev_tell_open(&s->chardev, true);
}

static void on_listener(uv_poll_t *poll, int status, int events)
{
    struct stream *s = poll->data;
    (void)events;
    if (status < 0 || s->in.fd >= 0)
        return;
    int fd = accept4(s->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (watch_open(s, &s->in, fd) < 0)
        watch_close(&s->in);
    else
        peer_came(s);
}

/* Linux forgets a pseudo terminal's settings when the last one closes it, so every newcomer gets them again. */
static void pty_raw(int master)
{
    struct termios raw;
    if (tcgetattr(master, &raw) < 0)
        return;
    cfmakeraw(&raw);
    tcsetattr(master, TCSANOW, &raw);
}

static void on_pty_timer(uv_timer_t *timer)
{
    struct stream *s = timer->data;
    lock(&s->lock);
    bool here = s->out_fd >= 0;
    unlock(&s->lock);
    struct pollfd pfd = { .fd = s->in.fd, .events = POLLIN };
    if (here || poll(&pfd, 1, 0) < 0 || (pfd.revents & POLLHUP))
        return;
    pty_raw(s->in.fd);
    peer_came(s);
}

/* --- input ---------------------------------------------------------------------------------------------- */

static void input_ended(struct stream *s)
{
    if (s->socket || s->pty) {
        peer_left(s);
        return;
    }
    watch_close(&s->in); /* standard input: output goes on */
    stream_update(s);
}

static void read_input(struct stream *s, bool hung_up)
{
    uint8_t buffer[CHARDEV_READ_BYTES];
    size_t room = chardev_client_room(&s->chardev);
    if (room > 0 && s->in.fd >= 0) {
        ssize_t n = read(s->in.fd, buffer, room < sizeof buffer ? room : sizeof buffer);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR) || (n < 0 && hung_up)) {
            input_ended(s);
            return;
        }
        if (n > 0)
            chardev_deliver(&s->chardev, buffer, (size_t)n);
    }
    stream_update(s);
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct stream *s = poll->data;
    struct watch *watch = poll == s->in.poll ? &s->in : &s->out;
    if (status < 0) { /* an error condition; the poll was stopped */
        watch->events = 0;
        if (watch == &s->out) {
            set_out(s, -1);
            watch_close(&s->out);
            return;
        }
    }
    if (events & UV_WRITABLE)
        flush_ring(s);
    if (poll == s->in.poll && (status < 0 || (events & UV_READABLE)))
        read_input(s, status < 0);
}

static void on_idle(uv_idle_t *idle)
{
    read_input(idle->data, false);
}

static void on_wake(uv_async_t *wake)
{
    struct stream *s = wake->data;
    if (s->chardev.resumed)
        s->chardev.resumed(s->chardev.opaque);
    flush_ring(s);
}

/* Arm exactly what can make progress now. */
static void stream_update(struct stream *s)
{
    lock(&s->lock);
    bool queued = s->count > 0, here = s->out_fd >= 0;
    unlock(&s->lock);
    bool two_way = s->socket || s->pty;
    bool readable = s->in.fd >= 0 && (here || !two_way || s->socket) && chardev_client_room(&s->chardev) > 0;
    int in = (readable ? UV_READABLE : 0) | (two_way && queued ? UV_WRITABLE : 0);
    watch_set(s, &s->in, in, on_ready);
    watch_set(s, &s->out, queued ? UV_WRITABLE : 0, on_ready);
    watch_set(s, &s->listener, s->in.fd < 0 ? UV_READABLE : 0, on_listener);
    bool idle = readable && !s->in.poll;
    if (s->idle && idle != s->idle_on) {
        s->idle_on = idle;
        if (idle)
            uv_idle_start(s->idle, on_idle);
        else
            uv_idle_stop(s->idle);
    }
}

/* --- life ----------------------------------------------------------------------------------------------- */

static void stream_accept_input(struct chardev *chardev)
{
    uv_async_send(stream_of(chardev)->wake);
}

static bool stream_is_open(struct chardev *chardev)
{
    struct stream *s = stream_of(chardev);
    lock(&s->lock);
    bool open = s->out_fd >= 0;
    unlock(&s->lock);
    return open;
}

static void stream_attached(struct chardev *chardev)
{
    stream_update(stream_of(chardev));
}

static void stream_no_signals(struct chardev *chardev)
{
    struct stream *s = stream_of(chardev);
    if (s->stop_signals)
        s->stop_signals();
}

/* The answer to `quit` should still get out, but a peer that does not read must not hold us up. */
static void last_words(struct stream *s)
{
    lock(&s->lock);
    struct pollfd pfd = { .fd = s->out_fd, .events = POLLOUT };
    while (s->out_fd >= 0 && s->count > 0 && poll(&pfd, 1, LAST_WORDS_MS) == 1)
        if (!(pfd.revents & POLLOUT) || !drain_ring(s))
            break;
    unlock(&s->lock);
}

static void stream_free(struct chardev *chardev)
{
    struct stream *s = stream_of(chardev);
    last_words(s);
    watch_close(&s->in);
    watch_close(&s->out);
    watch_close(&s->listener);
    close_handle(s->idle);
    close_handle(s->pty_timer);
    close_handle(s->wake);
    if (s->unlink_path[0])
        unlink(s->unlink_path);
    if (s->restore)
        s->restore();
    lock_destroy(&s->lock);
    free(s);
}

static const struct chardev_kind stream_kind = {
    .write = stream_write,
    .accept_input = stream_accept_input,
    .is_open = stream_is_open,
    .attached = stream_attached,
    .no_signals = stream_no_signals,
    .free = stream_free,
};

static int make_wake(struct stream *s)
{
    s->wake = malloc(sizeof *s->wake);
    if (!s->wake)
        return -ENOMEM;
    int rc = uv_async_init(s->loop, s->wake, on_wake);
    if (rc < 0) {
        free(s->wake);
        s->wake = NULL;
        return rc;
    }
    s->wake->data = s;
    return 0;
}

static int make_idle(struct stream *s)
{
    s->idle = malloc(sizeof *s->idle);
    if (!s->idle)
        return -ENOMEM;
    uv_idle_init(s->loop, s->idle);
    s->idle->data = s;
    return 0;
}

static int make_pty_timer(struct stream *s)
{
    s->pty_timer = malloc(sizeof *s->pty_timer);
    if (!s->pty_timer)
        return -ENOMEM;
    uv_timer_init(s->loop, s->pty_timer);
    s->pty_timer->data = s;
    return uv_timer_start(s->pty_timer, on_pty_timer, PTY_POLL_MS, PTY_POLL_MS);
}

static int stream_handles(struct stream *s, const struct chardev_fds *fds)
{
    int rc = make_wake(s);
    if (rc == 0 && fds->listener >= 0)
        rc = watch_open(s, &s->listener, fds->listener);
    if (rc == 0 && fds->in >= 0)
        rc = watch_open(s, &s->in, fds->in);
    if (rc == 0 && fds->out >= 0 && fds->out != fds->in)
        rc = watch_open(s, &s->out, fds->out);
    if (rc == 0 && s->in.fd >= 0 && !s->in.poll)
        rc = make_idle(s);
    if (rc == 0 && s->pty)
        rc = make_pty_timer(s);
    return rc;
}

int chardev_stream_new(const char *id, const struct chardev_fds *fds, uv_loop_t *loop, struct chardev **out,
                       struct err *err)
{
    struct stream *s = calloc(1, sizeof *s);
    if (!s) {
        close(fds->in);
        if (fds->out != fds->in)
            close(fds->out);
        close(fds->listener);
        return err_set(err, -ENOMEM, "no memory for a chardev");
    }
    s->loop = loop;
    s->socket = fds->socket;
    s->pty = fds->pty;
    s->restore = fds->restore;
    s->stop_signals = fds->no_signals;
    strcpy(s->unlink_path, fds->unlink_path);
    lock_init(&s->lock, LOCK_CHARDEV);
    s->in.fd = fds->in;
    s->out.fd = fds->out != fds->in ? fds->out : -1;
    s->listener.fd = fds->listener;
    s->out_fd = fds->pty ? -1 : fds->out;
    int rc = stream_handles(s, fds);
    if (rc < 0) {
        stream_free(&s->chardev);
        return err_set_errno(err, rc, "cannot watch the descriptor");
    }
    chardev_register(&s->chardev, &stream_kind, id);
    stream_update(s);
    *out = &s->chardev;
    return 0;
}
