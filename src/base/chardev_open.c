/* Opening the descriptors behind a chardev: files, sockets, pseudo terminals, standard input and output. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "base/chardev_priv.h"

/* --- standard input and output -------------------------------------------------------------------------- */

/* There is one terminal, and it must be given back as it was found, also by exit(). Owner: the loop's thread. */
static struct {
    bool taken, at_exit, changed;
    struct termios before;
    int flags[2]; /* of descriptors whose flags we had to change; -1: untouched */
} terminal = { .flags = { -1, -1 } };

static void terminal_restore(void)
{
    if (terminal.changed)
        tcsetattr(0, TCSANOW, &terminal.before);
    for (int fd = 0; fd < 2; fd++)
        if (terminal.flags[fd] >= 0)
            fcntl(fd, F_SETFL, terminal.flags[fd]);
    terminal.flags[0] = terminal.flags[1] = -1;
    terminal.changed = terminal.taken = false;
}

static void terminal_raw(bool signals)
{
    if (!terminal.changed && tcgetattr(0, &terminal.before) < 0)
        return;
    struct termios raw = terminal.before;
    raw.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    raw.c_oflag |= OPOST;
    raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN);
    if (!signals)
        raw.c_lflag &= ~(tcflag_t)ISIG;
    raw.c_cflag &= ~(tcflag_t)(CSIZE | PARENB);
    raw.c_cflag |= CS8;
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    terminal.changed = true;
    tcsetattr(0, TCSANOW, &raw);
}

static void terminal_no_signals(void)
{
    if (terminal.changed)
        terminal_raw(false);
}

/* Our own open file description, so that O_NONBLOCK stays ours and does not surprise the shell that started us. */
static int own_description(int fd, int mode)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode)) { /* a second description of a file would have its own offset */
        char path[32];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        int own = open(path, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (own >= 0)
            return own;
        terminal.flags[fd] = fcntl(fd, F_GETFL);
    }
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return own < 0 ? -errno : own;
}

static int open_stdio(const struct chardev_spec *spec, struct chardev_fds *fds, struct err *err)
{
    if (terminal.taken)
        return err_set(err, -EBUSY, "standard input and output are used by another chardev already");
    fds->in = own_description(0, O_RDONLY);
    if (fds->in < 0)
        return err_set_errno(err, fds->in, "standard input");
    fds->out = own_description(1, O_WRONLY);
    if (fds->out < 0) {
        int code = fds->out;
        close(fds->in);
        return err_set_errno(err, code, "standard output");
    }
    terminal.taken = true;
    if (!terminal.at_exit && atexit(terminal_restore) == 0)
        terminal.at_exit = true;
    if (isatty(0))
        terminal_raw(spec->signal);
    signal(SIGPIPE, SIG_IGN); /* `godwit | head` must not end the guest */
    fds->restore = terminal_restore;
    fds->no_signals = terminal_no_signals;
    return 0;
}

/* --- files and pseudo terminals ------------------------------------------------------------------------- */

static int open_file(const struct chardev_spec *spec, struct chardev_fds *fds, struct err *err)
{
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | (spec->append ? O_APPEND : O_TRUNC);
    fds->out = open(spec->path, flags, 0666);
    if (fds->out < 0)
        return err_set_errno(err, -errno, "chardev file '%s'", spec->path);
    return 0;
}

static int open_pty(struct chardev_fds *fds, char *describe, size_t describe_size, struct err *err)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (master < 0)
        return err_set_errno(err, -errno, "chardev pty");
    char name[64];
    int slave = -1;
    if (grantpt(master) < 0 || unlockpt(master) < 0 || ptsname_r(master, name, sizeof name) != 0 ||
        (slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0) {
        int code = -errno;
        close(master);
        return err_set_errno(err, code, "chardev pty");
    }
    close(slave); /* opened and closed once: from now on "nobody there" shows as a hang-up */
    fcntl(master, F_SETFL, O_NONBLOCK | O_RDWR);
    fds->in = fds->out = master;
    fds->pty = true;
    snprintf(describe, describe_size, "pty:%s", name);
    return 0;
}

/* --- sockets -------------------------------------------------------------------------------------------- */

static int unix_address(const char *path, struct sockaddr_un *out, struct err *err)
{
    *out = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof out->sun_path)
        return err_set(err, -ENAMETOOLONG, "unix socket path '%s' is longer than %zu characters", path,
                       sizeof out->sun_path - 1);
    strcpy(out->sun_path, path);
    return 0;
}

/* A path that a dead process left behind is taken over; one that somebody listens on is not. */
static int claim_path(const struct sockaddr_un *address, struct err *err)
{
    struct stat st;
    if (lstat(address->sun_path, &st) < 0)
        return 0;
    if (!S_ISSOCK(st.st_mode))
        return err_set(err, -EADDRINUSE, "unix socket path '%s' exists and is not a socket", address->sun_path);
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0)
        return err_set_errno(err, -errno, "unix socket");
    int rc = connect(probe, (const struct sockaddr *)address, sizeof *address);
    int code = errno;
    close(probe);
    if (rc == 0 || code != ECONNREFUSED)
        return err_set(err, -EADDRINUSE, "unix socket path '%s' is in use by another process", address->sun_path);
    if (unlink(address->sun_path) < 0)
        return err_set_errno(err, -errno, "unix socket path '%s'", address->sun_path);
    return 0;
}

static int open_unix(const struct chardev_spec *spec, struct chardev_fds *fds, struct err *err)
{
    struct sockaddr_un address;
    int rc = unix_address(spec->path, &address, err);
    if (rc == 0 && spec->server)
        rc = claim_path(&address, err);
    if (rc < 0)
        return rc;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_set_errno(err, -errno, "unix socket");
    if (spec->server)
        fchmod(fd, 0600); /* before bind: then the path is born with it */
    if (spec->server)
        rc = bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 1) < 0 ? -errno : 0;
    else
        rc = connect(fd, (struct sockaddr *)&address, sizeof address) < 0 ? -errno : 0;
    if (rc < 0) {
        close(fd);
        return err_set_errno(err, rc, spec->server ? "cannot listen on '%s'" : "cannot connect to '%s'", spec->path);
    }
    if (spec->server) {
        fds->listener = fd;
        strcpy(fds->unlink_path, spec->path);
    } else {
        fds->in = fds->out = fd;
    }
    return 0;
}

static int try_tcp(const struct addrinfo *at, bool server, int *out)
{
    int fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, at->ai_protocol);
    if (fd < 0)
        return -errno;
    int one = 1, rc;
    if (server) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        rc = bind(fd, at->ai_addr, at->ai_addrlen) < 0 || listen(fd, 1) < 0 ? -errno : 0;
    } else {
        rc = connect(fd, at->ai_addr, at->ai_addrlen) < 0 ? -errno : 0;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    if (rc < 0)
        close(fd);
    else
        *out = fd;
    return rc;
}

static void bound_port(int fd, char *port, size_t size)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &length) == 0)
        getnameinfo((struct sockaddr *)&address, length, NULL, 0, port, (socklen_t)size, NI_NUMERICSERV);
}

static bool is_loopback(const struct sockaddr *address)
{
    const struct in6_addr *six = &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
    const struct in_addr *four = &((const struct sockaddr_in *)(const void *)address)->sin_addr;
    return address->sa_family == AF_INET6 ? IN6_IS_ADDR_LOOPBACK(six) : ntohl(four->s_addr) >> 24 == IN_LOOPBACKNET;
}

/* Nobody asks who comes to a chardev, and nothing is encrypted. */
static int may_listen(const struct chardev_spec *spec, const struct addrinfo *list, struct err *err)
{
    for (const struct addrinfo *at = list; at && spec->server && !spec->insecure; at = at->ai_next)
        if (!is_loopback(at->ai_addr))
            return err_set(err, -EPERM,
                           "'tcp:%s:%s' would let other hosts in, unasked and unencrypted: listen on 127.0.0.1 or on a "
                           "unix socket, or add insecure=on if that is meant",
                           spec->host, spec->port);
    return 0;
}

static int open_tcp(const struct chardev_spec *spec, struct chardev_fds *fds, char *describe, size_t describe_size,
                    struct err *err)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = spec->server ? AI_PASSIVE : 0 }, *list;
    int bad = getaddrinfo(spec->host[0] ? spec->host : NULL, spec->port, &hints, &list);
    if (bad)
        return err_set(err, -EINVAL, "address 'tcp:%s:%s': %s", spec->host, spec->port, gai_strerror(bad));
    int rc = may_listen(spec, list, err), fd = -1;
    if (rc < 0) {
        freeaddrinfo(list);
        return rc;
    }
    rc = -EADDRNOTAVAIL;
    for (struct addrinfo *at = list; at && fd < 0; at = at->ai_next)
        rc = try_tcp(at, spec->server, &fd);
    freeaddrinfo(list);
    if (fd < 0)
        return err_set_errno(err, rc, spec->server ? "cannot listen on 'tcp:%s:%s'" : "cannot connect to 'tcp:%s:%s'",
                             spec->host, spec->port);
    char port[16];
    strcpy(port, spec->port);
    if (spec->server) {
        bound_port(fd, port, sizeof port);
        fds->listener = fd;
    } else {
        fds->in = fds->out = fd;
    }
    snprintf(describe, describe_size, strchr(spec->host, ':') ? "tcp:[%s]:%s%s" : "tcp:%s:%s%s", spec->host, port,
             spec->server ? ",server=on" : "");
    return 0;
}

/* wait=on: nothing else exists yet that could be kept waiting. */
static int wait_for_peer(struct chardev_fds *fds, const char *describe, struct err *err)
{
    int fd = accept4(fds->listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return err_set_errno(err, -errno, "waiting for a connection on %s", describe);
    fds->in = fds->out = fd;
    return 0;
}

int chardev_fds_open(const struct chardev_spec *spec, struct chardev_fds *fds, char *describe, size_t describe_size,
                     struct err *err)
{
    *fds = (struct chardev_fds){ .in = -1, .out = -1, .listener = -1 };
    int rc = -EINVAL;
    switch (spec->type) {
    case CHARDEV_STDIO: snprintf(describe, describe_size, "stdio"); return open_stdio(spec, fds, err);
    case CHARDEV_FILE: snprintf(describe, describe_size, "file:%s", spec->path); return open_file(spec, fds, err);
    case CHARDEV_PTY: return open_pty(fds, describe, describe_size, err);
    case CHARDEV_UNIX:
        snprintf(describe, describe_size, "unix:%s%s", spec->path, spec->server ? ",server=on" : "");
        rc = open_unix(spec, fds, err);
        break;
    case CHARDEV_TCP: rc = open_tcp(spec, fds, describe, describe_size, err); break;
    case CHARDEV_NULL: break;
    }
    fds->socket = true;
    if (rc == 0 && spec->server && spec->wait && (rc = wait_for_peer(fds, describe, err)) < 0) {
        close(fds->listener);
        if (fds->unlink_path[0])
            unlink(fds->unlink_path);
    }
    return rc;
}
