#include "block/image_lock.h"

#include <errno.h>
#include <fcntl.h>

enum { LOCK_DOES = 100, LOCK_FORBIDS = 200, LOCK_BYTES = 4 };
enum { USE_READ, USE_WRITE };

static int set(int fd, short type, off_t start, off_t bytes)
{
    struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = bytes };
    int result;
    do
        result = fcntl(fd, F_OFD_SETLK, &lock);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : 0;
}

/* 1: somebody else has a lock there. */
static int held_elsewhere(int fd, off_t start)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = 1 };
    return fcntl(fd, F_OFD_GETLK, &lock) < 0 ? -errno : lock.l_type != F_UNLCK;
}

static int look(int fd, off_t start, const char *path, const char *sentence, struct err *err)
{
    int held = held_elsewhere(fd, start);
    if (held < 0)
        return err_set_errno(err, held, "%s: who else has it cannot be seen", path);
    return held ? err_set(err, -EBUSY, "%s: %s", path, sentence) : 0;
}

int image_lock_take(int fd, bool writes, const char *path, struct err *err)
{
    int result = set(fd, F_RDLCK, LOCK_DOES + USE_READ, 1);
    if (result == 0 && writes)
        result = set(fd, F_RDLCK, LOCK_DOES + USE_WRITE, 1);
    if (result == 0)
        result = set(fd, F_RDLCK, LOCK_FORBIDS + USE_WRITE, 1);
    if (result == -EAGAIN || result == -EACCES)
        result = err_set(err, -EBUSY, "%s: another program has it for itself", path);
    else if (result < 0)
        result = err_set_errno(err, result, "%s: it cannot be locked against other programs", path);
    if (result == 0)
        result = look(fd, LOCK_DOES + USE_WRITE, path, "another program is writing it", err);
    if (result == 0 && writes)
        result = look(fd, LOCK_FORBIDS + USE_WRITE, path, "another program uses it and must not find it changed", err);
    if (result == 0)
        result = look(fd, LOCK_FORBIDS + USE_READ, path, "another program has it for itself", err);
    if (result < 0)
        image_lock_let_go(fd);
    return result;
}

void image_lock_let_go(int fd)
{
    /* Nothing is left to be done where this fails: closing lets go as well. */
    set(fd, F_UNLCK, LOCK_DOES, LOCK_BYTES);
    set(fd, F_UNLCK, LOCK_FORBIDS, LOCK_BYTES);
}

bool image_lock_elsewhere(int fd)
{
    return held_elsewhere(fd, LOCK_FORBIDS + USE_WRITE) == 1;
}
