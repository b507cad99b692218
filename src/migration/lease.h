/* The lease beside a disk's image: a number that counts up with each hand-over of the guest whose disk it is, its epoch.
 *
 * IMAGE.lease, a small text file, for every image that the guest may write and that is a regular file. It says whose the disk is
 * behind the last hand-over, when the processes are gone that knew; and a copy of the guest that was held for an older epoch
 * is not let run by anybody's word: since then the guest has run elsewhere, and so has its disk.
 *
 * Counted up by a source before each pause, by a destination when it has started the guest, by a source that takes the guest back
 * out of a doubt, and by a guest that is started from nothing where there is a lease. The locks on the images
 * (block/image_lock.h) exclude runners that live; this excludes those that come late.
 *
 * A lease that is not there or cannot be read is none, and forbids nothing: an image on a device, or in a folder that nobody
 * may write. Written in place, all 128 bytes at once: in a sandbox no file can be made. Any thread; not two of one guest at once. */
#pragma once
#include "base/err.h"
#include "machine/machine.h"
#include "migration/message.h"

enum { LEASE_BYTES = 128, LEASE_PATH_MAX = MACHINE_TEXT_MAX + 8, LEASE_WORD_MAX = 16 };

struct lease {
    uint64_t epoch;                           /* 0: there is none. With several disks, the highest */
    char migration[2 * MESSAGE_ID_BYTES + 1]; /* hexadecimal id of who counted up; "": a start from nothing */
    char word[LEASE_WORD_MAX];                /* offered, runs, back, started */
};

/* Where the lease of this drive is; -ENOENT: it has none. */
int lease_path(const struct machine_drive *drive, char path[LEASE_PATH_MAX]);
/* The same, and it is there from now on, empty where it was not: a reader in a sandbox makes no files. */
int lease_make(const struct machine_drive *drive, char path[LEASE_PATH_MAX]);
void lease_read(const struct machine_config *guest, struct lease *out);
/* One more than all leases, into all of them; made where they are not. key NULL: nobody's, and none is made. Returns the epoch, 0
 * when there is none. Takes an fsync for each: not in a pause. */
uint64_t lease_count_up(const struct machine_config *guest, const struct message_key *key, const char *word);
/* May a guest that was held since `held` was read be started? -ESTALE with a sentence when the lease has counted up since. */
int lease_check(const struct lease *held, const struct machine_config *guest, struct err *err);
/* Has somebody counted up since `epoch`? 0: that is not known. */
bool lease_went_on(const struct machine_config *guest, uint64_t epoch);
