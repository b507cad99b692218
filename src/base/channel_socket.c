/* tcp:HOST:PORT, tcp:[IPV6]:PORT (to listen, also with ,insecure=on) and unix:PATH. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/channel_private.h"

/* One peer is wanted, with some connections of its own; a few more may knock before they are accepted. */
enum { BACKLOG = 32, HOST_MAX = 256, PORT_TEXT_MAX = 32 };

static int new_socket_channel(int fd, const char *name, struct channel **out, struct err *err)
{
    struct channel_fd *c;
    int one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* refused on a unix socket: fine */
    int ret = channel_fd_new(fd, fd, true, name, &c, err);
    if (ret == 0) {
        *out = &c->channel;
    }
    return ret;
}

/* A non-blocking connect that abort_fd ends: 0, or -errno. */
static int connect_socket(int fd, const struct sockaddr *address, socklen_t bytes, int abort_fd)
{
    int code = 0;
    socklen_t size = sizeof(code);

    if (connect(fd, address, bytes) == 0) {
        return 0;
    }
    if (errno != EINPROGRESS && errno != EINTR) {
        return -errno;
    }
    int ret = channel_wait_fd(fd, POLLOUT, abort_fd);
    if (ret < 0) {
        return ret;
    }
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size) != 0 ? -errno : -code;
}

/* --- tcp ----------------------------------------------------------------------------------------------- */

static int split(const char *rest, char host[HOST_MAX], char port[PORT_TEXT_MAX], struct err *err)
{
    const char *colon = strrchr(rest, ':');
    size_t length = colon ? (size_t)(colon - rest) : 0;

    if (!colon || !colon[1] || strlen(colon + 1) >= PORT_TEXT_MAX || length >= HOST_MAX) {
        return err_set(err, -EINVAL, "\"tcp:%.300s\" is not tcp:HOST:PORT", rest);
    }
    if (length >= 2 && rest[0] == '[' && rest[length - 1] == ']') {
        rest++;
        length -= 2;
    } else if (memchr(rest, ':', length)) {
        return err_set(err, -EINVAL, "\"tcp:%.300s\": an IPv6 address needs brackets, tcp:[ADDRESS]:PORT", rest);
    }
    memcpy(host, rest, length);
    host[length] = 0;
    strcpy(port, colon + 1);
    return 0;
}

static int lookup(const char *rest, bool listening, struct addrinfo **out, struct err *err)
{
    char host[HOST_MAX] = "", port[PORT_TEXT_MAX] = "";
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = listening ? AI_PASSIVE : 0 };
    int ret = split(rest, host, port, err);

    if (ret < 0) {
        return ret;
    }
    ret = getaddrinfo(*host ? host : NULL, port, &hints, out);
    if (ret) {
        return err_set(err, ret == EAI_SYSTEM ? -errno : -EINVAL, "cannot look up \"%s\" port %s: %s", host, port,
                       gai_strerror(ret));
    }
    return 0;
}

int channel_tcp_connect(const char *rest, const char *uri, int abort_fd, struct channel **out, struct err *err)
{
    struct addrinfo *list;
    int ret = lookup(rest, false, &list, err);

    if (ret < 0) {
        return ret;
    }
    ret = -EADDRNOTAVAIL;
    for (struct addrinfo *at = list; at && ret != -ECANCELED; at = at->ai_next) {
        int fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, at->ai_protocol);
        ret = fd < 0 ? -errno : connect_socket(fd, at->ai_addr, at->ai_addrlen, abort_fd);
        if (ret == 0) {
            freeaddrinfo(list);
            return new_socket_channel(fd, uri, out, err);
        }
        if (fd >= 0) {
            close(fd);
        }
    }
    freeaddrinfo(list);
    return err_set_errno(err, ret, "cannot connect to %s", uri);
}

static void name_bound(struct channel_listener *out)
{
    struct sockaddr_storage address = { 0 };
    socklen_t bytes = sizeof(address);
    char host[64], port[8];

    if (getsockname(out->fd, (struct sockaddr *)&address, &bytes) == 0 &&
        getnameinfo((struct sockaddr *)&address, bytes, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
        bool v6 = address.ss_family == AF_INET6;
        snprintf(out->name, sizeof(out->name), "tcp:%s%s%s:%s", v6 ? "[" : "", host, v6 ? "]" : "", port);
    }
}

static int bind_tcp(const struct addrinfo *at, struct channel_listener *out)
{
    int one = 1, zero = 0;
    int fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, at->ai_protocol);

    if (fd < 0) {
        return -errno;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (at->ai_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero)); /* [::] means everybody */
    }
    if (bind(fd, at->ai_addr, at->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
        int ret = -errno;
        close(fd);
        return ret;
    }
    out->fd = fd;
    return 0;
}

/* Can other hosts reach it? */
static bool is_exposed(const struct addrinfo *at)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)at->ai_addr;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)at->ai_addr;

    if (at->ai_family == AF_INET) {
        return ntohl(v4->sin_addr.s_addr) >> 24 != IN_LOOPBACKNET;
    }
    return at->ai_family != AF_INET6 || !IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

/* Takes ",insecure=on" off the end of an address. */
static int take_insecure(char *rest, bool *insecure, struct err *err)
{
    static const char key[] = "insecure=";
    char *comma = strchr(rest, ',');

    if (!comma) {
        return 0;
    }
    bool on = strcmp(comma + 1, "insecure=on") == 0;
    if (!on && strcmp(comma + 1, "insecure=off") != 0) {
        return err_set(err, -EINVAL, "\"tcp:%.300s\": behind the port there may only be ,%son", rest, key);
    }
    *comma = 0;
    *insecure = *insecure || on;
    return 0;
}

int channel_tcp_listen(const char *rest, const char *uri, bool guarded, struct channel_listener *out, struct err *err)
{
    struct addrinfo *list;
    char address[HOST_MAX + PORT_TEXT_MAX + 32];

    snprintf(address, sizeof(address), "%s", rest);
    int ret = take_insecure(address, &guarded, err);
    ret = ret < 0 ? ret : lookup(address, true, &list, err);
    if (ret < 0) {
        return ret;
    }
    for (struct addrinfo *at = list; at && !guarded; at = at->ai_next) {
        if (is_exposed(at)) {
            freeaddrinfo(list);
            return err_set(
                err, -EPERM,
                "%.200s: other hosts could send a guest there, whoever they are: name a loopback address, set "
                "tls-creds, or add ,insecure=on if that is meant",
                uri);
        }
    }
    ret = -EADDRNOTAVAIL;
    for (struct addrinfo *at = list; at && out->fd < 0; at = at->ai_next) {
        ret = bind_tcp(at, out);
    }
    freeaddrinfo(list);
    if (out->fd < 0) {
        return err_set_errno(err, ret, "cannot listen on %s", uri);
    }
    name_bound(out);
    return 0;
}

int channel_socket_accept(struct channel_listener *listener, int abort_fd, struct channel **out, struct err *err)
{
    for (;;) {
        int ret = channel_wait_fd(listener->fd, POLLIN, abort_fd);
        if (ret < 0) {
            return err_set_errno(err, ret, "stopped waiting on %s", listener->name);
        }
        int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            return new_socket_channel(fd, listener->name, out, err);
        }
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
            return err_set_errno(err, -errno, "cannot accept on %s", listener->name);
        }
    }
}

/* --- unix ---------------------------------------------------------------------------------------------- */

static int unix_address(const char *path, struct sockaddr_un *out, struct err *err)
{
    *out = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (!*path || strlen(path) >= sizeof(out->sun_path)) {
        return err_set(err, -EINVAL, "a unix socket's path has 1 to %zu bytes: \"%.200s\"", sizeof(out->sun_path) - 1,
                       path);
    }
    strcpy(out->sun_path, path);
    return 0;
}

static int unix_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd < 0 ? -errno : fd;
}

int channel_unix_connect(const char *rest, const char *uri, int abort_fd, struct channel **out, struct err *err)
{
    struct sockaddr_un address;
    int ret = unix_address(rest, &address, err);

    if (ret < 0) {
        return ret;
    }
    int fd = unix_socket();
    ret = fd < 0 ? fd : connect_socket(fd, (struct sockaddr *)&address, sizeof(address), abort_fd);
    if (ret < 0) {
        if (fd >= 0) {
            close(fd);
        }
        return err_set_errno(err, ret, "cannot connect to %s", uri);
    }
    return new_socket_channel(fd, uri, out, err);
}

/* A socket that a dead process left behind: nobody answers. A file that is no socket is never removed. */
static bool is_stale(const struct sockaddr_un *address)
{
    struct stat stat;
    int fd = unix_socket();
    bool stale = fd >= 0 && lstat(address->sun_path, &stat) == 0 && S_ISSOCK(stat.st_mode) &&
                 connect(fd, (const struct sockaddr *)address, sizeof(*address)) != 0 && errno == ECONNREFUSED;

    if (fd >= 0) {
        close(fd);
    }
    return stale;
}

int channel_unix_listen(const char *rest, const char *uri, struct channel_listener *out, struct err *err)
{
    struct sockaddr_un address;
    struct stat stat;
    int ret = unix_address(rest, &address, err);

    if (ret < 0) {
        return ret;
    }
    int fd = unix_socket();
    if (fd < 0) {
        return err_set_errno(err, fd, "cannot listen on %s", uri);
    }
    fchmod(fd, 0600); /* before bind: then the path is born with it */
    ret = bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 ? 0 : -errno;
    if (ret == -EADDRINUSE && is_stale(&address) && unlink(address.sun_path) == 0) {
        ret = bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 ? 0 : -errno;
    }
    if (ret == 0 && lstat(address.sun_path, &stat) == 0) {
        strcpy(out->path, address.sun_path);
        out->device = stat.st_dev;
        out->inode = stat.st_ino;
    }
    if (ret == 0 && listen(fd, BACKLOG) != 0) {
        ret = -errno;
    }
    if (ret < 0) {
        close(fd);
        return err_set_errno(err, ret, "cannot listen on %s", uri);
    }
    out->fd = fd;
    return 0;
}
