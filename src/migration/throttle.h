/* Which vCPUs are to dirty less, and how much less: a pure decision, taken anew with every tick.
 *
 * What the harts may dirty together follows from what the link clears. It is shared out by one level: harts below it keep
 * all they want, those above are held to it. Held or not, a hart may touch pages (memory/quota.h) at the share of its usual
 * pace that the policy leaves it. What a hart wants is seen only while it is not held, so each is let go for a tick now
 * and then. Nothing here sleeps, logs, or asks the time. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "memory/quota.h"
#include "migration/converge.h"

/* FREE_TICKS: a hart that was held for so many is let go for one. LATEST: not when the end is near, but after so many in any case. */
enum { THROTTLE_HARTS_MAX = 64, THROTTLE_FREE_TICKS = 40, THROTTLE_FREE_LATEST = 120 };
#define THROTTLE_TICK_NS INT64_C(100000000)

struct throttle_need {
    bool wanted;              /* rounds are not known to be enough without */
    double clear_units_per_s; /* by the link, while the guest runs */
    double fit_units;         /* so many may be left for the pause */
    double left_units;        /* dirty now */
    double sent_share; /* of memory, that can be dirtied anew: all but what the first round has before it; 0: all */
    double share_max;  /* 0 to 1: of its work, that may be taken from a hart */
};

struct throttle_order { /* as quota_set() has it */
    double pages_per_s, work_per_s;
};

struct throttle_hart {
    struct quota_stats before;
    double fresh_per_s, touched_per_s; /* what it wants */
    double doubted_per_s;              /* touched in a free tick, far more than before; 0: nothing strange */
    double held;                       /* share of the last tick */
    double middle_touched;             /* since the tick began, in the middle of it */
    double power;                      /* W(t) ~ t^power about a tick's length, while free; 0: not known */
    unsigned held_ticks;               /* since it was last let go */
};

struct throttle {
    struct throttle_hart hart[THROTTLE_HARTS_MAX];
    struct throttle_order order[THROTTLE_HARTS_MAX];
    uint64_t ticks;                   /* with any hart held back */
    double middle_s;                  /* of the tick that goes on; 0: it was not looked at */
    double behind_units, grows_units; /* sent in the first round and dirty again; and more than the tick before */
};

/* What is known of the need in the middle of a round. `running`: what the round shows so far, its time since it began, and all
 * that is dirty now; `ahead_units`: of these, what the round has still before it, as far as nobody dirtied them anew (of interest
 * in the first round only). Once a tick, before it. In the first round harts are to be held once what was sent and is dirty again does not
 * fit the pause, or will not in a second, and they touch more than the link clears: to wait for its end would cost time only. */
struct throttle_need throttle_need(struct throttle *throttle, const struct converge *converge,
                                   const struct converge_policy *policy, const struct converge_costs *costs,
                                   const struct converge_sample *running, uint64_t ahead_units, double share_max);
/* `now`: the counters of `harts` as they are before the first tick. */
void throttle_init(struct throttle *throttle, const struct quota_stats *now, unsigned harts);
/* About half a tick after the last one, optional: how many distinct pages a hart touches in half of the time, while free, is what it
 * touches in all of it at half of its pace. One that goes over the same pages again and again touches far more than half. */
void throttle_middle(struct throttle *throttle, int64_t elapsed_ns, const struct quota_stats *now, unsigned harts);
/* Is the round to be cut short, since what is left fits already? Every moment costs the held harts work. */
bool throttle_cuts(const struct throttle_need *need);
/* Then it may be cut short as well for a limit that was changed since it began: what is left may fit the new one. */
bool throttle_limit_changed(const struct converge_policy *begun, const struct converge_policy *now);
/* `harts` counters after `elapsed_ns`; the orders are for the time until the next tick. True: some hart has a quota. */
bool throttle_tick(struct throttle *throttle, int64_t elapsed_ns, const struct quota_stats *now, unsigned harts,
                   const struct throttle_need *need);
