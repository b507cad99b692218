/* The list of hot code, sent and received: a FULL section of its own between frames, which godwits agree on in their hellos. */
#pragma once
#include "migration/incoming.h"
#include "migration/outgoing.h"

/* While the first round is sent: watch for a moment what runs, and tell it. Once a migration, and not to everybody. */
int outgoing_hot_code(struct outgoing *o);
/* Its head was read: is it ours? */
bool incoming_is_hot_code(const struct section_head *head);
int incoming_hot_code(struct incoming *i, const struct section_head *head);
