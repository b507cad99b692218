/* Chardev specifications, in the two spellings that people's scripts have:
 *   -serial, -monitor, -qmp:  unix:PATH,server=on,wait=off   tcp:HOST:PORT,server,nowait   stdio
 *   -chardev:                 socket,path=PATH,server=on,wait=off   socket,host=HOST,port=PORT   file,path=PATH */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/chardev_priv.h"

enum { SPEC_TEXT_MAX = 1024 };

/* Take the next piece up to a single comma; a doubled one stands for itself. NULL at the end. */
static char *next_piece(char **at)
{
    if (!*at)
        return NULL;
    char *piece = *at, *out = piece, *in = piece;
    for (; *in; in++) {
        if (*in == ',') {
            if (in[1] != ',')
                break;
            in++;
        }
        *out++ = *in;
    }
    *at = *in ? in + 1 : NULL;
    *out = '\0';
    return piece;
}

static int copy(char *out, size_t size, const char *text, const char *what, struct err *err)
{
    if (strlen(text) >= size)
        return err_set(err, -ENAMETOOLONG, "chardev %s is longer than %zu characters", what, size - 1);
    strcpy(out, text);
    return 0;
}

static int parse_bool(const char *name, const char *value, bool *out, struct err *err)
{
    if (!value || !strcmp(value, "on") || !strcmp(value, "yes") || !strcmp(value, "true"))
        *out = true;
    else if (!strcmp(value, "off") || !strcmp(value, "no") || !strcmp(value, "false"))
        *out = false;
    else
        return err_set(err, -EINVAL, "chardev option '%s' is 'on' or 'off', not '%s'", name, value);
    return 0;
}

/* HOST:PORT with [IPV6]:PORT allowed. */
static int parse_host_port(struct chardev_spec *spec, const char *text, struct err *err)
{
    char host[CHARDEV_ADDRESS_MAX];
    if (strlen(text) >= sizeof host)
        return err_set(err, -ENAMETOOLONG, "chardev address '%.40s...' is too long", text);
    const char *colon = strrchr(text, ':');
    if (!colon || !colon[1])
        return err_set(err, -EINVAL, "chardev address 'tcp:%s' has no port: tcp:HOST:PORT is wanted", text);
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    size_t length = strlen(host);
    if (length >= 2 && host[0] == '[' && host[length - 1] == ']') {
        memmove(host, host + 1, length - 2);
        host[length - 2] = '\0';
    }
    strcpy(spec->host, host);
    return copy(spec->port, sizeof spec->port, colon + 1, "port", err);
}

static int parse_option(struct chardev_spec *spec, char *piece, struct err *err)
{
    char *value = strchr(piece, '=');
    if (value)
        *value++ = '\0';
    bool is_socket = spec->type == CHARDEV_UNIX || spec->type == CHARDEV_TCP;
    bool ignored;
    if (!strcmp(piece, "mux"))
        return parse_bool(piece, value, &spec->mux, err);
    if (!strcmp(piece, "id") && value)
        return 0; /* the caller's */
    if (is_socket && !strcmp(piece, "server"))
        return parse_bool(piece, value, &spec->server, err);
    if (is_socket && !strcmp(piece, "wait"))
        return parse_bool(piece, value, &spec->wait, err);
    if (is_socket && !strcmp(piece, "nowait") && !value) {
        spec->wait = false;
        return 0;
    }
    if (spec->type == CHARDEV_TCP && !strcmp(piece, "insecure"))
        return parse_bool(piece, value, &spec->insecure, err);
    if (spec->type == CHARDEV_TCP && (!strcmp(piece, "nodelay") || !strcmp(piece, "delay")))
        return parse_bool(piece, value, &ignored, err); /* small writes go at once in any case */
    if (is_socket && !strcmp(piece, "path") && value) {
        spec->type = CHARDEV_UNIX;
        return copy(spec->path, sizeof spec->path, value, "path", err);
    }
    if (is_socket && !strcmp(piece, "host") && value) {
        spec->type = CHARDEV_TCP;
        return copy(spec->host, sizeof spec->host, value, "host", err);
    }
    if (is_socket && !strcmp(piece, "port") && value) {
        spec->type = CHARDEV_TCP;
        return copy(spec->port, sizeof spec->port, value, "port", err);
    }
    if (spec->type == CHARDEV_FILE && !strcmp(piece, "path") && value)
        return copy(spec->path, sizeof spec->path, value, "path", err);
    if (spec->type == CHARDEV_FILE && !strcmp(piece, "append"))
        return parse_bool(piece, value, &spec->append, err);
    if (spec->type == CHARDEV_STDIO && !strcmp(piece, "signal"))
        return parse_bool(piece, value, &spec->signal, err);
    return err_set(err, -EINVAL, "chardev option '%s' is not known here", piece);
}

static int parse_kind(struct chardev_spec *spec, const char *kind, struct err *err)
{
    static const struct {
        const char *name;
        enum chardev_type type;
    } plain[] = {
        { "null", CHARDEV_NULL }, { "none", CHARDEV_NULL },   { "stdio", CHARDEV_STDIO },
        { "pty", CHARDEV_PTY },   { "socket", CHARDEV_UNIX }, { "file", CHARDEV_FILE },
    };
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (!strcmp(kind, plain[i].name)) {
            spec->type = plain[i].type;
            return 0;
        }
    if (!strncmp(kind, "file:", 5)) {
        spec->type = CHARDEV_FILE;
        return copy(spec->path, sizeof spec->path, kind + 5, "path", err);
    }
    if (!strncmp(kind, "unix:", 5)) {
        spec->type = CHARDEV_UNIX;
        return copy(spec->path, sizeof spec->path, kind + 5, "path", err);
    }
    if (!strncmp(kind, "tcp:", 4)) {
        spec->type = CHARDEV_TCP;
        return parse_host_port(spec, kind + 4, err);
    }
    return err_set(err, -EINVAL, "chardev '%s' is not known: stdio, file:, unix:, tcp:, pty, null or none are", kind);
}

static int check(const struct chardev_spec *spec, const char *text, struct err *err)
{
    if (spec->type == CHARDEV_FILE && !spec->path[0])
        return err_set(err, -EINVAL, "chardev '%s' has no path", text);
    if (spec->type == CHARDEV_UNIX && !spec->path[0])
        return err_set(err, -EINVAL, "chardev '%s' has neither a path nor a host and port", text);
    if (spec->type == CHARDEV_UNIX && (spec->host[0] || spec->port[0]))
        return err_set(err, -EINVAL, "chardev '%s' has both a path and a host or port", text);
    if (spec->type == CHARDEV_TCP && spec->path[0])
        return err_set(err, -EINVAL, "chardev '%s' has both a path and a host or port", text);
    if (spec->type == CHARDEV_TCP && !spec->port[0])
        return err_set(err, -EINVAL, "chardev '%s' has no port", text);
    bool number = strspn(spec->port, "0123456789") == strlen(spec->port); /* else a service's name */
    if (spec->type == CHARDEV_TCP && number && (strlen(spec->port) > 9 || strtoul(spec->port, NULL, 10) > UINT16_MAX))
        return err_set(err, -EINVAL, "chardev '%s': port %s is not within 0 to %d", text, spec->port, UINT16_MAX);
    return 0;
}

int chardev_spec_parse(const char *text, struct chardev_spec *out, struct err *err)
{
    char buffer[SPEC_TEXT_MAX];
    *out = (struct chardev_spec){ .wait = true, .signal = true };
    if (!strncmp(text, "mon:", 4)) {
        out->mux = true;
        text += 4;
    }
    if (strlen(text) >= sizeof buffer)
        return err_set(err, -EINVAL, "chardev '%.40s...' is longer than %d characters", text, SPEC_TEXT_MAX - 1);
    strcpy(buffer, text);
    char *at = buffer, *piece = next_piece(&at);
    int rc = parse_kind(out, piece, err);
    while (rc == 0 && (piece = next_piece(&at)))
        rc = parse_option(out, piece, err);
    if (rc < 0)
        return err_prefix(err, "'%s'", text);
    return check(out, text, err);
}

bool chardev_spec_exposed(const char *text)
{
    struct chardev_spec spec;
    return chardev_spec_parse(text, &spec, NULL) == 0 && spec.type == CHARDEV_TCP && spec.server && !spec.insecure;
}

bool chardev_spec_mux(const char *text)
{
    struct chardev_spec spec;
    return chardev_spec_parse(text, &spec, NULL) == 0 && spec.mux;
}
