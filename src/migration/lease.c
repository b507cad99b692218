#include "migration/lease.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int lease_path(const struct machine_drive *drive, char path[LEASE_PATH_MAX])
{
    struct stat about;
    char *image = drive->readonly ? NULL : realpath(drive->file, NULL);
    int rc = !image || stat(image, &about) < 0 || !S_ISREG(about.st_mode) ? -ENOENT : 0;
    if (rc == 0 && (size_t)snprintf(path, LEASE_PATH_MAX, "%s.lease", image) >= LEASE_PATH_MAX)
        rc = -ENOENT;
    free(image);
    return rc;
}

int lease_make(const struct machine_drive *drive, char path[LEASE_PATH_MAX])
{
    int rc = lease_path(drive, path);
    int fd = rc == 0 ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
    if (fd >= 0)
        close(fd);
    return rc == 0 && fd < 0 ? -ENOENT : rc;
}

static void id_text(const struct message_key *key, char out[2 * MESSAGE_ID_BYTES + 1])
{
    out[0] = '\0';
    for (int i = 0; key && i < MESSAGE_ID_BYTES; i++)
        snprintf(out + 2 * i, 3, "%02x", key->id[i]);
}

/* One file; epoch 0 when it is none, or is not understood. */
static void read_one(const char *path, struct lease *out)
{
    static const char begins[] = "lease\nepoch ";
    char text[LEASE_BYTES + 1] = "";
    memset(out, 0, sizeof(*out));
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t got = fd < 0 ? -1 : pread(fd, text, LEASE_BYTES, 0);
    if (fd >= 0)
        close(fd);
    char *end = text + sizeof(begins) - 1;
    if (got == LEASE_BYTES && strncmp(text, begins, sizeof(begins) - 1) == 0 && *end >= '0' && *end <= '9')
        out->epoch = strtoull(end, &end, 10);
    if (sscanf(end, "\nword %15[a-z]\nmigration %32[0-9a-f]", out->word, out->migration) < 1)
        memset(out, 0, sizeof(*out));
}

void lease_read(const struct machine_config *guest, struct lease *out)
{
    char path[LEASE_PATH_MAX];
    struct lease one;
    memset(out, 0, sizeof(*out));
    for (unsigned i = 0; i < guest->drives; i++) {
        if (lease_path(&guest->drive[i], path) < 0)
            continue;
        read_one(path, &one);
        if (one.epoch > out->epoch)
            *out = one;
    }
}

static int write_one(const char *path, bool make, const char text[LEASE_BYTES])
{
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | (make ? O_CREAT : 0), 0600);
    if (fd < 0 && make) /* where no file may be made */
        fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    int rc = pwrite(fd, text, LEASE_BYTES, 0) == LEASE_BYTES && fsync(fd) == 0 ? 0 : -EIO;
    close(fd);
    return rc;
}

uint64_t lease_count_up(const struct machine_config *guest, const struct message_key *key, const char *word)
{
    char path[LEASE_PATH_MAX], text[LEASE_BYTES + 1], id[2 * MESSAGE_ID_BYTES + 1];
    struct lease now;
    bool written = false;
    lease_read(guest, &now);
    if (!key && now.epoch == 0)
        return 0;
    id_text(key, id);
    memset(text, ' ', sizeof(text));
    int length =
        snprintf(text, sizeof(text), "lease\nepoch %" PRIu64 "\nword %s\nmigration %s\n", now.epoch + 1, word, id);
    text[length] = ' ';
    text[LEASE_BYTES - 1] = '\n';
    for (unsigned i = 0; i < guest->drives; i++)
        if (lease_path(&guest->drive[i], path) == 0)
            written |= write_one(path, key, text) == 0;
    return written ? now.epoch + 1 : 0;
}

int lease_check(const struct lease *held, const struct machine_config *guest, struct err *err)
{
    struct lease now;
    lease_read(guest, &now);
    if (held->epoch == 0 || now.epoch <= held->epoch)
        return 0;
    return err_set(err, -ESTALE,
                   "the lease beside the disk is at epoch %" PRIu64
                   " (%s), and this copy of the guest was loaded for epoch %" PRIu64
                   ": the guest has been started elsewhere since",
                   now.epoch, now.word, held->epoch);
}

bool lease_went_on(const struct machine_config *guest, uint64_t epoch)
{
    struct lease now;
    lease_read(guest, &now);
    return epoch && now.epoch > epoch;
}
