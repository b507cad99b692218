/* Which pages are dirtied again at once, so that to send them now would be in vain: they are left dirty, and go in the last
 * round. A page is hot when it was taken in a round, was dirty again in the next, and is so once more. Nobody looks whether
 * a page that is left dirty is still written: so it is taken every few rounds all the same.
 *
 * By words of 64 pages. Owner: heat_round() and heat_init() whoever begins rounds, between two of them; heat_keep() the one worker
 * that took the word in this round. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { HEAT_TAKEN_EVERY = 4 }; /* rounds */

struct heat_word {
    uint64_t taken, hot; /* in the word's last round; dirty again then */
};

struct heat {
    /* fixed after init */
    uint64_t words;
    struct heat_word *word;
    /* under no lock: between rounds */
    uint64_t round;
    /* atomic */
    _Atomic bool rests;
    _Atomic int64_t may_keep; /* workers count it down */
};

int heat_init(struct heat *heat, uint64_t words);      /* 0 or -ENOMEM */
void heat_free(struct heat *heat);                     /* zeroed is allowed */
void heat_forget(struct heat *heat);                   /* another migration begins */
void heat_round(struct heat *heat, uint64_t may_keep); /* begins; so many pages, about, may be left in it */
/* Until then: all pages are taken, and nothing is learnt from it. As in the last round, or in a train that is sent to measure. */
void heat_rest(struct heat *heat);
/* These pages of a word were dirty and are about to be taken: which of them are better left? */
uint64_t heat_keep(struct heat *heat, uint64_t word, uint64_t dirty);
