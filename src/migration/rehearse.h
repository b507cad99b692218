/* A rehearsal: everything that a migration does, to a real destination, which checks all of it, says PREPARED and drops it.
 * The guest stands still for it no longer than its limit, and runs on here.
 *
 * Both ends know from the hello what it is, so no word that comes later can make two guests of one (handover.h). */
#pragma once
#include "migration/incoming.h"
#include "migration/outgoing.h"

/* Somebody must be there who answers, more than once. Before anything begins; main thread. */
int rehearse_possible(struct migration *m, const char *uri, struct err *err);

/* --- source: migrate thread --------------------------------------------------------------------------------- */

/* When the guest must run again: within its limit, so before it. INT64_MAX: nobody sees the pause. */
int64_t rehearse_pause_ns(const struct converge_policy *policy);
/* PREPARED was there and the guest runs again: what a migration would have given. */
void rehearse_report(struct outgoing *o);
/* Until the destination has dropped it, or is gone. */
void rehearse_wait_dropped(struct outgoing *o);

/* --- destination: migrate thread ---------------------------------------------------------------------------- */

/* After a rehearsal, however it ended: does this end wait for the next guest? Then everything is as before the first, but for
 * memory (source_ram_forget()). */
bool rehearse_again(struct incoming *i);
