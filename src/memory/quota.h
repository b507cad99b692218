/* How many pages a vCPU may newly dirty, and how it is held back in short pieces when it dirties more. Pure: time is
 * handed in.
 *
 * Two paces. A *fresh* page is one whose mark was not set yet: `page_ns` is the time that one fresh page is worth. A *touch*
 * is a fresh page, or else its first mark in a window of time: it stands for the work that the hart gets done, whatever the
 * state of the map, and however often harvests take permissions back. `work_ns` is the time that one touch is worth at the
 * pace that the hart may have in any case: one that is behind with its work is not held, however fresh its pages are. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    QUOTA_SEEN = 2048, /* pages that a hart remembers to have touched; another in the same slot makes it forget one */
    QUOTA_HOLD_MIN_NS = 200 * 1000,    /* less debt than this is not worth a sleep */
    QUOTA_HOLD_MAX_NS = 800 * 1000,    /* one hold; the hart looks around between two */
    QUOTA_LONG_NS = 1000 * 1000,       /* a hold that the host made longer than this is a pause */
    QUOTA_BURST_NS = 50 * 1000 * 1000, /* so much unused quota is kept for later */
    QUOTA_LENGTHS = 12                 /* classes of holds by their length */
};

struct quota {
    /* atomic: whoever sets the quota; the hart may see it a moment late */
    _Atomic int64_t page_ns; /* 0: no quota */
    _Atomic int64_t work_ns;
    _Atomic uint32_t window; /* touches count once in each; 0: nothing is counted */

    /* atomic: the hart adds, others look */
    _Atomic uint64_t fresh, touched;                      /* marks */
    _Atomic uint64_t held_ns, holds, long_ns, longest_ns; /* long_ns: of holds beyond QUOTA_LONG_NS, all of them */
    _Atomic uint64_t cut_short;                           /* holds that a kick ended before their time */
    _Atomic uint64_t length[QUOTA_LENGTHS];

    /* owner: the hart */
    int64_t page_due_ns, work_due_ns; /* what was dirtied and touched so far is paid for then */
    bool owes;                        /* hold at the next safe point */
    uint64_t seen[QUOTA_SEEN];        /* page and window, see quota_count() */
};

/* A reading: whoever reports holds takes its figures from here. Counters since the process began but `longest_ns`, which is
 * since counting began (quota_window()); quota_since() takes two readings apart. */
struct quota_stats {
    uint64_t fresh, touched;
    uint64_t held_ns, holds; /* all holds: time, and how many */
    uint64_t long_ns;        /* of held_ns: holds beyond QUOTA_LONG_NS. The guest may see them: they are pause */
    uint64_t longest_ns;     /* one hold */
    uint64_t cut_short;      /* holds that a kick ended before their time */
    uint64_t
        length[QUOTA_LENGTHS]; /* holds by length: [i] of those up to quota_length_ns(i), beyond the class before */
    int64_t page_ns, work_ns;  /* the quota as it is now: ns per fresh page (0: none) and per touch */
};

int64_t quota_length_ns(unsigned length); /* a class's upper end: 62.5 us, 125 us, 250 us ...; INT64_MAX: the last */
void quota_since(struct quota_stats *now, const struct quota_stats *base); /* now -= base, what counts */

/* Fresh pages a second, 0: as many as it likes; and touches a second that are never held, 0: none. Any thread. */
void quota_set(struct quota *quota, double pages_per_s, double work_per_s);
void quota_stats(const struct quota *quota, struct quota_stats *out); /* any thread */

void quota_window(struct quota *quota, uint32_t window); /* the next one, or 0; any thread */

/* On the hart's thread. A mark was asked for, of a page; counted, if anybody wants to know. True: a touch. */
bool quota_count(struct quota *quota, uint64_t page, bool fresh);
/* And paid for. True: reach a safe point soon, to be held there. */
bool quota_spend(struct quota *quota, bool touch, bool fresh, int64_t now_ns);
/* At a safe point: when the hold ends, or 0 when there is none (any more). */
int64_t quota_hold_until(struct quota *quota, int64_t now_ns);
/* It was held; `ended_ns` may be before `until_ns`, and on a busy host is later. */
void quota_held(struct quota *quota, int64_t began_ns, int64_t until_ns, int64_t ended_ns);

static inline void quota_add(_Atomic uint64_t *sum, uint64_t more) /* the one who adds */
{
    atomic_store_explicit(sum, atomic_load_explicit(sum, memory_order_relaxed) + more, memory_order_relaxed);
}

static inline bool quota_is_set(const struct quota *quota)
{
    return atomic_load_explicit(&quota->page_ns, memory_order_relaxed) != 0;
}
