/* RELEASED, written down: what a person finds after a crash in the middle of a hand-over.
 *
 * One small text file per hand-over in doubt, under $XDG_STATE_HOME/godwit, else $HOME/.local/state/godwit, else
 * /tmp/godwit-UID. Written to a new name and renamed, so that it is there whole or not at all. It guards against the
 * death of this process, not of the host: nothing is synced while no disk is involved. */
#pragma once
#include "base/err.h"
#include "migration/message.h"

enum { RELEASED_PATH_MAX = 512 };

/* The folder of the notes, made when it is not there. -errno when it cannot be. */
int released_folder(char *out, size_t out_size);

/* `path` receives where it was written. `word` is RELEASED or REFUSED. */
int released_write(const struct message_key *key, const char *word, const char *peer, char path[RELEASED_PATH_MAX],
                   struct err *err);
void released_forget(char path[RELEASED_PATH_MAX]); /* nothing when path is "" */
