#include "migration/released.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "migration/lease.h"

enum { NOTE_MAX = 16 * 1024 };

/* Written by the main thread before there are others. */
static char own_folder[RELEASED_PATH_MAX - 64];

int released_set_folder(const char *folder, struct err *err)
{
    if (strlen(folder) >= sizeof(own_folder))
        return err_set(err, -EINVAL, "the folder's name is longer than %zu bytes", sizeof(own_folder) - 1);
    strcpy(own_folder, folder);
    return 0;
}

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

static int shared_folder(char *out, size_t out_size, bool make)
{
    const char *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (xdg && xdg[0] == '/')
        snprintf(out, out_size, "%s/godwit", xdg);
    else if (home && home[0] == '/')
        snprintf(out, out_size, "%s/.local/state/godwit", home);
    else
        out[0] = '\0';
    if (out[0] && strlen(out) < out_size - 1 && (make ? make_folders(out) == 0 : access(out, F_OK) == 0))
        return 0;
    snprintf(out, out_size, "/tmp/godwit-%u", (unsigned)geteuid());
    return make ? make_folders(out) : 0;
}

static int state_folder(char *out, size_t out_size, bool make)
{
    if (!own_folder[0])
        return shared_folder(out, out_size, make);
    snprintf(out, out_size, "%s", own_folder);
    return make ? make_folders(out) : 0;
}

int released_folder(char *out, size_t out_size)
{
    return state_folder(out, out_size, true);
}

/* --- writing ---------------------------------------------------------------------------------------------------- */

static int write_whole(const char *path, const char *text, size_t bytes, bool sync)
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
    if (rc == 0 && sync && fsync(fd) < 0)
        rc = -errno;
    if (close(fd) < 0 && rc == 0)
        rc = -errno;
    return rc;
}

/* The name is as durable as what it names. */
static int sync_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return rc;
}

static bool has_disk(const struct machine_config *guest)
{
    for (unsigned i = 0; i < guest->drives; i++)
        if (!guest->drive[i].readonly)
            return true;
    return false;
}

/* What the guest is known by, one line each: compared as text. */
static void put_guest(FILE *out, const struct machine_config *guest)
{
    if (guest->uuid_set) {
        fputs("uuid ", out);
        for (int i = 0; i < 16; i++)
            fprintf(out, "%02x", guest->uuid[i]);
        fputc('\n', out);
    }
    if (guest->name[0])
        fprintf(out, "name %s\n", guest->name);
    for (unsigned i = 0; i < guest->drives; i++) {
        char *path = guest->drive[i].readonly ? NULL : realpath(guest->drive[i].file, NULL);
        if (path)
            fprintf(out, "disk %s\n", path);
        free(path);
    }
}

static int put_note(const struct message_key *key, const char *id, const char *word, const char *peer,
                    const struct machine_config *guest, char **text, size_t *bytes)
{
    FILE *out = open_memstream(text, bytes);
    if (!out)
        return -errno;
    fprintf(out, "%s\nmigration %s\nattempt %u\npeer %.256s\npid %d\ntime_ns %lld\n", word, id, key->attempt, peer,
            (int)getpid(), (long long)clock_realtime_ns());
    if (guest) {
        struct lease lease;
        lease_read(guest, &lease);
        if (lease.epoch)
            fprintf(out, "epoch %llu\n", (unsigned long long)lease.epoch);
        put_guest(out, guest);
    }
    return fclose(out) == 0 ? 0 : -ENOMEM;
}

static bool is_released(const char *word)
{
    return strcmp(word, "RELEASED") == 0;
}

static void temporary_name(char out[RELEASED_PATH_MAX + 8], const char *path)
{
    snprintf(out, RELEASED_PATH_MAX + 8, "%s.new", path);
}

int released_prepare(const struct message_key *key, const char *word, const char *peer,
                     const struct machine_config *guest, char path[RELEASED_PATH_MAX], struct err *err)
{
    char folder[RELEASED_PATH_MAX - 64], temporary[RELEASED_PATH_MAX + 8], *text = NULL;
    bool released = is_released(word); /* two names: both ends may live in one home */
    size_t bytes = 0;
    path[0] = '\0';
    int rc = state_folder(folder, sizeof(folder), true);
    if (rc < 0)
        return err_set_errno(err, rc, "no folder to write the hand-over down in: %s", folder);

    char id[2 * MESSAGE_ID_BYTES + 1];
    for (int i = 0; i < MESSAGE_ID_BYTES; i++)
        snprintf(id + 2 * i, 3, "%02x", key->id[i]);
    snprintf(path, RELEASED_PATH_MAX, "%s/%s-%s", folder, released ? "released" : "refused", id);
    temporary_name(temporary, path);
    rc = released ? failpoint(FAILPOINT_SOURCE_NOTE) : 0;
    if (rc == 0)
        rc = put_note(key, id, word, peer, released ? guest : NULL, &text, &bytes);
    if (rc == 0)
        rc = write_whole(temporary, text, bytes, released && has_disk(guest));
    free(text);
    if (rc < 0) {
        unlink(temporary);
        err_set_errno(err, rc, "writing %s", path);
        path[0] = '\0';
    }
    return rc;
}

/* Gives what was prepared its name, which a disk's guest has to find after the host's death too. */
static int put_name(const char *path, const char *temporary, bool sync)
{
    char folder[RELEASED_PATH_MAX];
    int rc = failpoint(FAILPOINT_SOURCE_NOTE_NAME);
    if (rc == 0 && rename(temporary, path) < 0)
        rc = -errno;
    if (rc < 0 || !sync)
        return rc;
    snprintf(folder, sizeof(folder), "%.*s", (int)(strrchr(path, '/') - path), path);
    rc = failpoint(FAILPOINT_SOURCE_NOTE_SYNC);
    return rc < 0 ? rc : sync_folder(folder);
}

int released_commit(const struct machine_config *guest, char path[RELEASED_PATH_MAX], struct err *err)
{
    char temporary[RELEASED_PATH_MAX + 8];
    temporary_name(temporary, path);
    if (!path[0])
        return err_set_errno(err, -ENOENT, "nothing was written down");
    int rc = put_name(path, temporary, has_disk(guest));
    if (rc < 0) {
        unlink(temporary);
        err_set_errno(err, rc, "writing %s", path); /* it may have its name: the caller forgets it */
    }
    return rc;
}

void released_discard(char path[RELEASED_PATH_MAX])
{
    char temporary[RELEASED_PATH_MAX + 8];
    temporary_name(temporary, path);
    if (path[0])
        unlink(temporary);
    path[0] = '\0';
}

int released_write(const struct message_key *key, const char *word, const char *peer,
                   const struct machine_config *guest, char path[RELEASED_PATH_MAX], struct err *err)
{
    char temporary[RELEASED_PATH_MAX + 8];
    int rc = released_prepare(key, word, peer, guest, path, err);
    if (rc < 0 || is_released(word))
        return rc < 0 ? rc : released_commit(guest, path, err);
    temporary_name(temporary, path);
    if (rename(temporary, path) == 0)
        return 0;
    rc = err_set_errno(err, -errno, "writing %s", path);
    unlink(temporary);
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

/* --- reading ---------------------------------------------------------------------------------------------------- */

/* The rest of the line that begins with `key`, into `out`; "" when there is none. */
static void note_line(const char *text, const char *key, char *out, size_t out_size)
{
    size_t bytes = strlen(key);
    out[0] = '\0';
    for (const char *at = text; at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL)
        if (strncmp(at, key, bytes) == 0 && at[bytes] == ' ') {
            err_printable(at + bytes + 1, strcspn(at + bytes + 1, "\n"), out, out_size);
            return;
        }
}

/* Does one of the lines that name the guest stand in the note? */
static bool names_guest(const char *text, const struct machine_config *guest)
{
    char *ours = NULL, *rest = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&ours, &bytes);
    if (!out)
        return true; /* rather once too often than twice running */
    put_guest(out, guest);
    fclose(out);
    bool found = false;
    for (char *line = strtok_r(ours, "\n", &rest); line && !found; line = strtok_r(NULL, "\n", &rest)) {
        size_t length = strlen(line);
        for (const char *at = text; at && !found; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL)
            found = strcspn(at, "\n") == length && strncmp(at, line, length) == 0;
    }
    free(ours);
    return found;
}

static int read_note(const char *path, char text[NOTE_MAX])
{
    FILE *file = fopen(path, "re");
    if (!file)
        return -errno;
    size_t got = fread(text, 1, NOTE_MAX - 1, file);
    text[got] = '\0';
    int rc = ferror(file) ? -EIO : 0;
    fclose(file);
    return rc;
}

static int look_at_note(const char *path, const struct machine_config *guest, struct err *err)
{
    char text[NOTE_MAX] = "", peer[280], pid[16];
    int rc = read_note(path, text);
    if (rc == -ENOENT)
        return 0; /* its hand-over has just ended */
    if (rc == 0 && !own_folder[0] && !names_guest(text, guest))
        return 0;
    if (rc < 0)
        return err_set_errno(err, rc, "%s may say that this guest runs elsewhere, and cannot be read", path);
    note_line(text, "peer", peer, sizeof(peer));
    note_line(text, "pid", pid, sizeof(pid));
    return err_set(
        err, -EPERM,
        "the guest may be running elsewhere: %s says that process %s released it to %s. Look there; only if it "
        "does not run there, and never did, remove that file and start it here",
        path, pid, peer);
}

int released_check(const struct machine_config *guest, struct err *err)
{
    char folder[RELEASED_PATH_MAX - 64], path[RELEASED_PATH_MAX + NAME_MAX];
    int rc = state_folder(folder, sizeof(folder), false);
    DIR *dir = rc == 0 ? opendir(folder) : NULL;
    if (!dir)
        return rc < 0 || errno == ENOENT ? rc : err_set_errno(err, -errno, "%s cannot be read", folder);
    for (struct dirent *entry; rc == 0 && (entry = readdir(dir));) {
        size_t length = strlen(entry->d_name);
        bool half = length > 4 && strcmp(entry->d_name + length - 4, ".new") == 0;
        if (strncmp(entry->d_name, "released-", 9) != 0)
            continue;
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        if (!half)
            rc = look_at_note(path, guest, err);
        else if (own_folder[0])
            unlink(path); /* GO is never said before the note has its name */
    }
    closedir(dir);
    return rc;
}
