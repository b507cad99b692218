/* The machine's disks: opened from its description, taken before it runs, let go when the guest leaves.
 *
 * Main thread, but for take, let_go and flush: whoever pauses and resumes the machine, with its lock held. */
#pragma once
#include "block/block.h"
#include "machine/machine.h"

struct drives {
    struct block *block[MACHINE_DRIVES_MAX]; /* as in machine_config.drive */
    unsigned count;
};

int drives_open(struct drives *drives, const struct machine_config *config, struct err *err);
void drives_close(struct drives *drives); /* after the devices */
struct block *drives_find(struct drives *drives, const struct machine_config *config, const char *id); /* or NULL */

int drives_take(struct drives *drives, struct err *err); /* all or none; nothing where they are taken */
void drives_let_go(struct drives *drives);
void drives_hurry(struct drives *drives); /* writes are held no more; any thread */
int drives_flush(struct drives *drives, struct err *err);
/* Does another program have each of them? -EINVAL with a sentence about the first that nobody has. */
int drives_taken_elsewhere(struct drives *drives, struct err *err);
