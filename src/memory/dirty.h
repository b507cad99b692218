/* Dirty tracking. The one dangerous protocol, in one sentence: clear, wait for every vCPU, then copy.
 *
 * One bit per 4 KiB page and client in 64-bit atomic words, and one summary bit per word. Pages are numbered by
 * ram.h across all blocks. A vCPU's write-TLB entry IS the cached permission "this page is already marked", so
 * after bits were cleared, every vCPU must give its write entries up (revoke) before the pages may be read.
 *
 *   harvester:  dirty_take_word()...  token = dirty_revoke_begin()  dirty_revoke_wait(token)  copy the pages
 *   vCPU:       at its safe point: dirty_writer_poll() says "re-arm", it re-arms its TLB, dirty_writer_ack()
 *   vCPU:       slow path of a store: mark, drop "tracked" in that entry, retry the store
 *   others:     ram_write_begin / data / ram_write_end, which marks after the data, unconditionally
 *
 * Marking is one function for everybody. Never look before you mark: on x86 the look overtakes the data store. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/lock.h"
#include "memory/quota.h"
#include "memory/trail.h"

enum dirty_client { DIRTY_MIGRATION, DIRTY_DISPLAY, DIRTY_CODE, DIRTY_CLIENTS };

enum { DIRTY_WRITERS_MAX = 64, DIRTY_WORD_PAGES = 64, DIRTY_RANGES_MAX = 8 };

/* One per vCPU thread: how it takes part in revocation. Lives in the vCPU; registered before its thread starts, with
 * `parked` already true (the caller's to set) when that thread is not about to poll soon: revokers wait for it. */
struct dirty_writer {
    void (*kick)(void *opaque); /* make it reach a safe point soon; called by the revoker, no lock held */
    void *opaque;
    unsigned number;        /* below DIRTY_WRITERS_MAX, its own: what quotas are set and asked by */
    _Atomic uint64_t acked; /* highest epoch whose re-arm is done */
    _Atomic bool parked;    /* blocked somewhere: holds no host pointer, will poll before it writes again */
    struct quota quota;     /* of pages that it newly dirties for MIGRATION */
};

struct dirty;

struct dirty *dirty_new(uint64_t pages, struct err *err);
void dirty_free(struct dirty *dirty);
uint64_t dirty_pages(const struct dirty *dirty);
uint64_t dirty_words(const struct dirty *dirty); /* DIRTY_WORD_PAGES pages each, the last may be short */

/* Say which pages exist (ram_seal_layout does, one range per block, starting on a word); dirty_start(all) marks only
 * those, so that no harvester ever meets a hole between blocks. None said: all exist. */
void dirty_add_range(struct dirty *dirty, uint64_t page, uint64_t count);

/* --- writers ------------------------------------------------------------------------------------------ */

/* Is any client tracking, so that write entries must be created "tracked"? vCPU: after polling its epoch. */
bool dirty_tracking(const struct dirty *dirty);
bool dirty_client_on(const struct dirty *dirty, enum dirty_client client);

/* Mark for every client that tracks; word first, then summary; asserts that RAM is not sealed. Any thread. */
void dirty_mark(struct dirty *dirty, uint64_t page);
void dirty_mark_range(struct dirty *dirty, uint64_t page, uint64_t count);

/* The same in front of a store by a registered writer that polls before it does anything else: it needs no barrier, and no
 * second mark where there is one. Never for data that is written already. True: the writer has used up its quota, and is to
 * come to a safe point, where quota_hold_until() says for how long it is held. */
bool dirty_mark_ahead(struct dirty *dirty, struct dirty_writer *writer, uint64_t page);

/* A harvester's wish, not a store: marks whether the client tracks or not, and while RAM is sealed too. */
void dirty_mark_client(struct dirty *dirty, enum dirty_client client, uint64_t page, uint64_t count);

/* CODE is not switched on and off: pages are watched one by one, and every mark of a watched page marks CODE too. Proof
 * against a vCPU's earlier write entries is a revoke that begins later (see vcpu/jit/pages.c). Any thread. */
void dirty_watch(struct dirty *dirty, uint64_t page);
void dirty_unwatch(struct dirty *dirty, uint64_t page);
bool dirty_watched(const struct dirty *dirty, uint64_t page);

/* It counts as having acknowledged, so it must not hold any write permission yet: while a client tracks, its first store
 * to each page marks. */
void dirty_writer_register(struct dirty *dirty, struct dirty_writer *writer);
void dirty_writer_unregister(struct dirty *dirty, struct dirty_writer *writer);

/* At a safe point, by the vCPU itself: the epoch to re-arm for, or 0 when nothing changed since the last ack.
 * Re-arm every write entry (set its tracked bit, or clear it when nobody tracks), then ack this very value. */
uint64_t dirty_writer_poll(struct dirty *dirty, struct dirty_writer *writer);
void dirty_writer_ack(struct dirty *dirty, struct dirty_writer *writer, uint64_t epoch);

/* Around every blocking wait of a vCPU. After unpark: poll, re-arm, ack, before the next guest store.
 * Dekker with the revoker: sequentially consistent on both sides. */
void dirty_writer_park(struct dirty *dirty, struct dirty_writer *writer);
void dirty_writer_unpark(struct dirty *dirty, struct dirty_writer *writer);

/* --- who marked (trail.h) ------------------------------------------------------------------------------- */

void dirty_trail_start(struct dirty *dirty); /* forget, and note from now on who marks which page */
void dirty_trail_stop(struct dirty *dirty);
struct trail_text dirty_last_marker(const struct dirty *dirty, uint64_t page);

/* --- quotas (quota.h) --------------------------------------------------------------------------------- */

/* Of the writer with this number; one that is not there is passed over. Any thread. */
void dirty_quota_set(struct dirty *dirty, unsigned number, double pages_per_s, double work_per_s);
void dirty_quota_window(struct dirty *dirty, uint32_t window); /* of all: count in this one from now on; 0: do not */
void dirty_quota_clear(struct dirty *dirty);                   /* none any more, for nobody */
/* Of all writers, by number; zeroes for those that are not there. Returns the highest number and one. Any thread. */
unsigned dirty_quota_stats(struct dirty *dirty, struct quota_stats out[DIRTY_WRITERS_MAX]);

/* --- harvesters --------------------------------------------------------------------------------------- */

/* Tracking on: flag, revoke, and mark everything (all = true); or wait, and nothing is marked. Off: flag, revoke. Only a
 * start without marks waits for vCPUs. Not from a vCPU thread. */
void dirty_start(struct dirty *dirty, enum dirty_client client, bool all);
void dirty_stop(struct dirty *dirty, enum dirty_client client);

/* The next word at or after `word` that may hold a bit (by summary), or dirty_words() when none. */
uint64_t dirty_next_word(const struct dirty *dirty, enum dirty_client client, uint64_t word);

/* Clear and return a word's bits: clears the summary bit first, then exchanges the word. The pages may be read
 * only after a revoke that began later has been waited for. */
uint64_t dirty_take_word(struct dirty *dirty, enum dirty_client client, uint64_t word);
bool dirty_test(const struct dirty *dirty, enum dirty_client client, uint64_t page);
uint64_t dirty_count(const struct dirty *dirty, enum dirty_client client); /* bits set; a scan over summaries */

uint64_t dirty_revoke_begin(struct dirty *dirty); /* raises the epoch, kicks; returns the token */
bool dirty_revoke_done(struct dirty *dirty, uint64_t token);
void dirty_revoke_wait(struct dirty *dirty, uint64_t token);

/* After the last harvest, devices drained: until unseal a mark is a bug and asserts. */
void dirty_seal(struct dirty *dirty);
void dirty_unseal(struct dirty *dirty);
