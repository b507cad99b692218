#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/json.h"
#include "monitor/qmp_client.h"

struct qmp_client {
    int fd;
    struct json_reader reader;
    char bytes[4096];
    size_t at, count; /* read but not yet parsed */
    int64_t next_id;
};

static int connect_unix(const char *path, struct err *err)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof address.sun_path)
        return err_set(err, -ENAMETOOLONG, "monitor path '%s' is too long", path);
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    int code = -errno;
    if (fd >= 0)
        close(fd);
    return err_set_errno(err, code, "monitor '%s'", path);
}

static int connect_tcp(const char *text, struct err *err)
{
    char host[256];
    char *colon = strlen(text) < sizeof host ? strrchr(strcpy(host, text), ':') : NULL;
    if (!colon)
        return err_set(err, -EINVAL, "monitor 'tcp:%s' should be tcp:HOST:PORT", text);
    *colon = '\0';
    char *name = host;
    if (name[0] == '[' && colon[-1] == ']') {
        colon[-1] = '\0';
        name++;
    }
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list;
    int bad = getaddrinfo(name[0] ? name : NULL, colon + 1, &hints, &list), fd = -1, code = -ECONNREFUSED;
    if (bad)
        return err_set(err, -EINVAL, "monitor 'tcp:%s': %s", text, gai_strerror(bad));
    for (struct addrinfo *at = list; at && fd < 0; at = at->ai_next) {
        fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, at->ai_protocol);
        if (fd >= 0 && connect(fd, at->ai_addr, at->ai_addrlen) < 0) {
            code = -errno;
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    return fd >= 0 ? fd : err_set_errno(err, code, "monitor 'tcp:%s'", text);
}

/* Fill the buffer; 0 or -errno. */
static int receive(struct qmp_client *client, struct err *err)
{
    struct pollfd pfd = { .fd = client->fd, .events = POLLIN };
    int ready;
    do
        ready = poll(&pfd, 1, QMP_CLIENT_MS);
    while (ready < 0 && errno == EINTR);
    if (ready == 0)
        return err_set(err, -EPIPE, "the monitor did not answer for %d s (another client may hold it)",
                       QMP_CLIENT_MS / 1000);
    ssize_t n = recv(client->fd, client->bytes, sizeof client->bytes, 0);
    if (n <= 0)
        return n == 0 ? err_set(err, -EPIPE, "the monitor closed the connection")
                      : err_set_errno(err, -EPIPE, "the monitor's connection");
    client->at = 0;
    client->count = (size_t)n;
    return 0;
}

static int next_message(struct qmp_client *client, struct json_object **out, struct err *err)
{
    for (;;) {
        const char *data = client->bytes + client->at;
        size_t bytes = client->count - client->at;
        int rc = json_reader_next(&client->reader, &data, &bytes, out, err);
        client->at = client->count - bytes;
        if (rc > 0)
            return 0;
        if (rc < 0)
            return err_prefix(err, "the monitor does not speak QMP");
        rc = receive(client, err);
        if (rc < 0)
            return rc;
    }
}

static int send_all(struct qmp_client *client, const char *text, struct err *err)
{
    for (size_t done = 0, bytes = strlen(text); done < bytes;) {
        ssize_t n = send(client->fd, text + done, bytes - done, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            return err_set_errno(err, -EPIPE, "the monitor's connection");
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* 1: this is the answer; 0: an event, or somebody else's; negative: an error answer. */
static int take_answer(struct json_object *message, int64_t id, struct json_object **result, struct err *err)
{
    struct json_object *value = json_get(message, "return"), *error = json_get(message, "error");
    if ((!value && !error) || json_get_int(message, "id") != id)
        return 0;
    if (error) {
        const char *text = json_get_str(error, "desc");
        return err_set(err, -EREMOTEIO, "%s", text ? text : "the monitor refused without a reason");
    }
    if (result)
        *result = json_object_get(value);
    return 1;
}

int qmp_client_call(struct qmp_client *client, const char *command, struct json_object *args,
                    struct json_object **result, struct err *err)
{
    int64_t id = client->next_id++;
    struct json_object *request = json_object_new_object();
    json_put_str(request, "execute", command);
    if (args)
        json_put(request, "arguments", json_object_get(args));
    json_put_int(request, "id", id);
    struct buf line = { 0 };
    json_write(request, &line);
    buf_put(&line, "\r\n", 3); /* with its NUL */
    int rc = send_all(client, (const char *)line.data, err);
    buf_free(&line);
    json_object_put(request);
    while (rc == 0) {
        struct json_object *message = NULL;
        rc = next_message(client, &message, err);
        if (rc == 0)
            rc = take_answer(message, id, result, err);
        json_object_put(message);
    }
    return rc < 0 ? rc : 0;
}

static int greet(struct qmp_client *client, struct err *err)
{
    struct json_object *hello = NULL;
    int rc = next_message(client, &hello, err);
    if (rc == 0 && !json_get(hello, "QMP"))
        rc = err_set(err, -EPROTO, "the monitor does not speak QMP");
    json_object_put(hello);
    return rc < 0 ? rc : qmp_client_call(client, "qmp_capabilities", NULL, NULL, err);
}

int qmp_client_connect(const char *address, struct qmp_client **out, struct err *err)
{
    *out = NULL;
    int fd = !strncmp(address, "tcp:", 4) ? connect_tcp(address + 4, err)
                                          : connect_unix(strncmp(address, "unix:", 5) ? address : address + 5, err);
    if (fd < 0)
        return fd;
    struct qmp_client *client = calloc(1, sizeof *client);
    if (!client) {
        close(fd);
        return err_set(err, -ENOMEM, "no memory for a monitor connection");
    }
    client->fd = fd;
    client->next_id = 1;
    json_reader_init(&client->reader);
    int rc = greet(client, err);
    if (rc < 0)
        qmp_client_close(client);
    else
        *out = client;
    return rc;
}

void qmp_client_close(struct qmp_client *client)
{
    if (!client)
        return;
    close(client->fd);
    json_reader_free(&client->reader);
    free(client);
}
