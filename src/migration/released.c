#include "migration/released.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/failpoint.h"

/* Like mkdir -p, for the two or three levels that may be missing. */
static int make_folders(char *path)
{
    for (char *at = path + 1;; at++) {
        if (*at != '/' && *at != '\0')
            continue;
        char kept = *at;
        *at = '\0';
        int rc = mkdir(path, 0700);
        int code = rc < 0 && errno != EEXIST ? -errno : 0;
        *at = kept;
        if (code < 0 && code != -EROFS && code != -EACCES) /* a folder above ours may be closed to us */
            return code;
        if (kept == '\0')
            return code;
    }
}

static int state_folder(char *out, size_t out_size)
{
    const char *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (xdg && xdg[0] == '/')
        snprintf(out, out_size, "%s/godwit", xdg);
    else if (home && home[0] == '/')
        snprintf(out, out_size, "%s/.local/state/godwit", home);
    else
        out[0] = '\0';
    if (out[0] && strlen(out) < out_size - 1 && make_folders(out) == 0)
        return 0;
    snprintf(out, out_size, "/tmp/godwit-%u", (unsigned)geteuid());
    return make_folders(out);
}

static int write_whole(const char *path, const char *text, size_t bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    int rc = 0;
    ssize_t written = write(fd, text, bytes);
    if (written < 0)
        rc = -errno;
    else if ((size_t)written != bytes)
        rc = -ENOSPC;
    if (close(fd) < 0 && rc == 0)
        rc = -errno;
    return rc;
}

int released_write(const struct message_key *key, const char *word, const char *peer, char path[RELEASED_PATH_MAX],
                   struct err *err)
{
    char folder[RELEASED_PATH_MAX - 64], temporary[RELEASED_PATH_MAX + 8], text[512];
    int rc = state_folder(folder, sizeof(folder));
    if (rc < 0)
        return err_set_errno(err, rc, "no folder to write the hand-over down in: %s", folder);

    char id[2 * MESSAGE_ID_BYTES + 1];
    for (int i = 0; i < MESSAGE_ID_BYTES; i++)
        snprintf(id + 2 * i, 3, "%02x", key->id[i]);
    bool released = strcmp(word, "RELEASED") == 0; /* two names: both ends may live in one home */
    snprintf(path, RELEASED_PATH_MAX, "%s/%s-%s", folder, released ? "released" : "refused", id);
    snprintf(temporary, sizeof(temporary), "%s.new", path);
    int bytes = snprintf(text, sizeof(text), "%s\nmigration %s\nattempt %u\npeer %.256s\npid %d\ntime_ns %lld\n", word,
                         id, key->attempt, peer, (int)getpid(), (long long)clock_realtime_ns());
    rc = released ? failpoint(FAILPOINT_SOURCE_NOTE) : 0;
    if (rc == 0)
        rc = write_whole(temporary, text, (size_t)bytes);
    if (rc == 0 && released)
        rc = failpoint(FAILPOINT_SOURCE_NOTE_NAME);
    if (rc == 0 && rename(temporary, path) < 0)
        rc = -errno;
    if (rc == 0)
        return 0;
    unlink(temporary);
    err_set_errno(err, rc, "writing %s", path);
    path[0] = '\0';
    return rc;
}

void released_forget(char path[RELEASED_PATH_MAX])
{
    if (path[0])
        failpoint(FAILPOINT_SOURCE_FORGET);
    if (path[0])
        unlink(path);
    path[0] = '\0';
}
