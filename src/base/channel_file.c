/* file:PATH and fd:N. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/channel_private.h"

int channel_file_open(const char *rest, const char *uri, bool writing, struct channel **out, struct err *err)
{
    struct channel_fd *c;
    /* A guest's memory is nobody else's business: 0600. */
    int fd = writing ? open(rest, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : open(rest, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return err_set_errno(err, -errno, "cannot open \"%s\"", rest);
    }
    int ret = channel_fd_new(writing ? -1 : fd, writing ? fd : -1, false, uri, &c, err);
    if (ret == 0) {
        c->channel.stream_local = true;
        *out = &c->channel;
    }
    return ret;
}

static bool access_allows(int flags, bool writing)
{
    int access = flags & O_ACCMODE;
    return access == O_RDWR || access == (writing ? O_WRONLY : O_RDONLY);
}

int channel_fd_open(const char *rest, const char *uri, bool writing, struct channel **out, struct err *err)
{
    struct channel_fd *c;
    struct stat stat;
    char *end;

    errno = 0;
    long fd = *rest >= '0' && *rest <= '9' ? strtol(rest, &end, 10) : -1;
    if (fd < 0 || fd > INT32_MAX || errno || *end) {
        return err_set(err, -EINVAL, "\"%s\" is no descriptor number", rest);
    }
    int flags = fcntl((int)fd, F_GETFL);
    if (flags < 0 || fstat((int)fd, &stat) != 0) {
        return err_set_errno(err, -errno, "descriptor %ld", fd);
    }
    bool is_socket = S_ISSOCK(stat.st_mode);
    if (!is_socket && !access_allows(flags, writing)) {
        return err_set(err, -EINVAL, "descriptor %ld is not open for %s", fd, writing ? "writing" : "reading");
    }
    int ret = channel_fd_new(is_socket || !writing ? (int)fd : -1, is_socket || writing ? (int)fd : -1, is_socket, uri,
                             &c, err);
    if (ret == 0) {
        c->channel.stream_local = S_ISREG(stat.st_mode);
        *out = &c->channel;
    }
    return ret;
}
