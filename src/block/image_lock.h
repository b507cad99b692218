/* Locks on an image, so that no two programs write it: open file description locks (fcntl(2)) on single bytes.
 *
 * What a program does with the image it says by a shared lock on byte 100 + n, and what it forbids others by one on
 * byte 200 + n: n is 0 for reading what is consistent, 1 for writing. Both are set first and others' looked for after,
 * so of two that come at once at most one succeeds. Other emulators and image tools keep to these bytes; the image's
 * contents do not matter, and bytes past its end can be locked as well. */
#pragma once
#include <stdbool.h>

#include "base/err.h"

/* Everybody who has it forbids others to write it. -EBUSY: another program has it, in a way that excludes this one. */
int image_lock_take(int fd, bool writes, const char *path, struct err *err);
void image_lock_let_go(int fd);
bool image_lock_elsewhere(int fd); /* somebody else forbids writing, so has it */
