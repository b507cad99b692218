/* RELEASED, written down: what is found after a crash in the middle of a hand-over, by a person or by the next godwit that
 * is to run the same guest.
 *
 * One small text file per hand-over in doubt. In -state-dir, else in PIDFILE.state beside -pidfile: these folders are one
 * guest's, and any RELEASED in them forbids a start. Else in $XDG_STATE_HOME/godwit, $HOME/.local/state/godwit or
 * /tmp/godwit-UID, the first that can be made, which all guests share: there a note forbids the start of a guest with its
 * uuid, its name or one of its disks.
 *
 * Written to a new name and renamed, so that it is there whole or not at all. It survives the death of the process; where
 * the guest has a disk that it may write, it is synced, and survives the host's too. */
#pragma once
#include "base/err.h"
#include "machine/machine.h"
#include "migration/message.h"

enum { RELEASED_PATH_MAX = 512 };

/* The folder of this guest alone, or "" for the one that all share. Main thread, before there is a migration; -EINVAL when
 * it is too long. */
int released_set_folder(const char *folder, struct err *err);
/* The folder of the notes, made when it is not there. -errno when it cannot be. */
int released_folder(char *out, size_t out_size);

/* `path` receives where it was written. `word` is RELEASED or REFUSED. */
int released_write(const struct message_key *key, const char *word, const char *peer,
                   const struct machine_config *guest, char path[RELEASED_PATH_MAX], struct err *err);
/* RELEASED in two steps, of which the second is short: prepare while the guest runs, then commit, or discard what was
 * prepared. `path` as above; "" after a failed prepare, and then commit fails and discard does nothing. */
int released_prepare(const struct message_key *key, const char *word, const char *peer,
                     const struct machine_config *guest, char path[RELEASED_PATH_MAX], struct err *err);
int released_commit(const struct machine_config *guest, char path[RELEASED_PATH_MAX], struct err *err);
void released_discard(char path[RELEASED_PATH_MAX]);
void released_forget(char path[RELEASED_PATH_MAX]); /* nothing when path is "" */

/* Before a guest is started from nothing: -EPERM with a sentence that names the note when one says that it may be running
 * elsewhere. In a folder of its own what a dead process has left half written is removed. */
int released_check(const struct machine_config *guest, struct err *err);
