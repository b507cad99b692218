/* A disk on an NBD server (the NBD protocol, newstyle), byte for byte what the guest sees. Storage that two hosts share.
 *
 * NBD has no locks: nothing here keeps another program from writing the same export, so the hand-over has to, and does, between
 * two godwits. A server must let both ends connect at once. */
#pragma once
#include "block/block.h"

bool nbd_export_is_uri(const char *file); /* nbd://, nbd+unix:///, nbds://, ... */

/* Connected, not taken. -errno and a sentence with the URI. Blocks until the server has answered. */
int nbd_export_open(const char *uri, const struct block_options *options, struct block_image **out, struct err *err);
