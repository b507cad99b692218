#include "migration/throttle.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static const double HELD_NOT = 0.02;                    /* of a tick: it was as good as free */
static const double DOUBT = 0.4;                        /* so much more than usual is looked at twice */
static const double MIDDLE_FROM = 0.3, MIDDLE_TO = 0.7; /* of a tick: a later look is none */
static const double TELLS = 100;                        /* touches: fewer are noise */
static const double POWER_LEAST = 0.1;
static const double MAKES_UP =
    0.1; /* and so much more, behind a tick in which it was held, is what it was held back from */
static const double LEARN_SHARE = 0.25;
static const double WORK_SPARE = 1.02; /* wake-ups come late, and no two ticks are alike */
static const double CUT_SHARE = 0.85,
                    CUT_S = 0.03;   /* a little is dirtied until the pause: so much of what fits, or of a second */
static const double NEAR_SHARE = 3; /* of what fits: the end is near, and a hart let go now would put it off */
static const double TICKS_PER_S = 1e9 / THROTTLE_TICK_NS;
static const double SENT_LEAST = 0.05, BEYOND = 0.7;
static const double CLEAR_SHARE = 0.5; /* of what the link clears: what is left halves from round to round */

void throttle_init(struct throttle *throttle, const struct quota_stats *now, unsigned harts)
{
    assert(harts <= THROTTLE_HARTS_MAX);
    memset(throttle, 0, sizeof(*throttle));
    for (unsigned i = 0; i < harts; i++)
        throttle->hart[i].before = now[i];
}

/* What a hart wants is what it does while nobody holds it. One tick by itself says little: the host may have stopped the
 * hart before, and it makes up for that, and for what it was held back from. Much more than before is believed at the
 * second look, and the hart stays free for that. */
static void learn_wish(struct throttle_hart *hart, double touched, bool was_held)
{
    double more = touched - hart->touched_per_s;

    if (was_held && more > 0) /* what it makes up for is no wish, or each look would raise what it keeps */
        more = fmax(more - hart->touched_per_s * MAKES_UP, 0);

    if (hart->touched_per_s <= 0) {
        hart->touched_per_s = touched;
    } else if (more <= hart->touched_per_s * DOUBT) {
        hart->touched_per_s += more * LEARN_SHARE;
        hart->doubted_per_s = 0;
    } else if (hart->doubted_per_s > 0) {
        hart->touched_per_s = fmin(hart->doubted_per_s, touched);
        hart->doubted_per_s = 0;
    } else {
        hart->doubted_per_s = touched;
    }
}

/* From two points of a free tick: how its touches rise with time. */
static void learn_power(struct throttle_hart *hart, double touched, double s, double middle_s)
{
    if (middle_s < s * MIDDLE_FROM || middle_s > s * MIDDLE_TO || hart->middle_touched < TELLS || touched < TELLS)
        return;
    double power = fmin(fmax(log(touched / hart->middle_touched) / log(s / middle_s), POWER_LEAST), 1);
    hart->power += hart->power > 0 ? (power - hart->power) * LEARN_SHARE : power;
}

void throttle_middle(struct throttle *throttle, int64_t elapsed_ns, const struct quota_stats *now, unsigned harts)
{
    assert(harts <= THROTTLE_HARTS_MAX);
    throttle->middle_s = (double)elapsed_ns / 1e9;
    for (unsigned i = 0; i < harts; i++)
        throttle->hart[i].middle_touched = (double)(now[i].touched - throttle->hart[i].before.touched);
}

/* Touches a second that it may have in any case: what it would touch in its share of a tick. */
static double kept_of(const struct throttle_hart *hart, double share_max)
{
    return hart->touched_per_s * pow(1 - share_max, hart->power > 0 ? hart->power : 1);
}

static void learn(struct throttle_hart *hart, const struct quota_stats *now, double s, double middle_s)
{
    double fresh = (double)(now->fresh - hart->before.fresh) / s;
    double touched = (double)(now->touched - hart->before.touched) / s;
    bool was_held = hart->held >= HELD_NOT;

    hart->held = (double)(now->held_ns - hart->before.held_ns) / (s * 1e9);
    if (hart->held < HELD_NOT) {
        learn_wish(hart, touched, was_held);
        learn_power(hart, touched * s, s, middle_s);
        hart->fresh_per_s += (fresh - hart->fresh_per_s) / 2;
    }
    hart->fresh_per_s = fmax(hart->fresh_per_s, fresh);
    hart->before = *now;
}

/* What all harts together may dirty: what halves the rest from round to round, and once that is far below what fits, what
 * leaves it there. Nearer to it nothing is given back: only the end of a round counts. */
static double may_dirty(const struct throttle_need *need)
{
    return need->clear_units_per_s * (need->left_units * 2 < need->fit_units ? 1 : CLEAR_SHARE);
}

/* Pages that it would dirty anew if all memory had been sent once. In the first round what is not sent yet cannot become fresh, and
 * a hart that will dirty far too much later looks modest. */
static double wish_of(const struct throttle_hart *hart, const struct throttle_need *need)
{
    double share = need->sent_share > 0 ? fmax(need->sent_share, SENT_LEAST) : 1;

    return share < 1 ? fmax(hart->fresh_per_s, fmin(hart->fresh_per_s / share, hart->touched_per_s))
                     : hart->fresh_per_s;
}

/* Where the sum of all wishes, each cut off at the level, is `together`, which is less than their sum. */
static double level(const struct throttle *throttle, const struct throttle_need *need, unsigned harts, double together)
{
    double share = together / harts;

    for (unsigned turn = 1; turn < harts; turn++) { /* each but the last raises one hart more above its wish */
        double rest = together;
        unsigned above = 0;
        for (unsigned i = 0; i < harts; i++) {
            double wish = wish_of(&throttle->hart[i], need);
            bool below = wish <= share;
            rest -= below ? wish : 0;
            above += !below;
        }
        if (above == 0)
            break;
        share = rest / above;
    }
    return share;
}

static double all_wishes(const struct throttle *throttle)
{
    double touched = 0;

    for (unsigned i = 0; i < THROTTLE_HARTS_MAX; i++)
        touched += throttle->hart[i].touched_per_s;
    return touched;
}

struct throttle_need throttle_need(struct throttle *throttle, const struct converge *converge,
                                   const struct converge_policy *policy, const struct converge_costs *costs,
                                   const struct converge_sample *running, uint64_t ahead_units, double share_max)
{
    bool first = converge->rounds == 0;
    struct converge seen = *converge;
    double sent = (double)(running->units_data + running->units_zero);

    if (first && running->units_data && running->elapsed_ns > 0)
        converge_add(&seen, running);
    struct throttle_need need = {
        .clear_units_per_s = converge_clear_units_per_s(&seen),
        .fit_units = converge_fit_units(&seen, policy, costs),
        .left_units = (double)running->dirty_units,
        .sent_share = first ? sent / fmax(sent + (double)ahead_units, 1) : 1,
        .share_max = share_max,
    };
    double behind = running->dirty_units > ahead_units ? (double)(running->dirty_units - ahead_units) : 0;
    double grows = behind - throttle->behind_units;
    double in_a_second =
        behind + fmax(fmin(grows, throttle->grows_units), 0) * TICKS_PER_S; /* one tick alone says little */
    throttle->behind_units = behind;
    throttle->grows_units = grows;
    need.wanted = !first || throttle->ticks > 0 ||
                  (in_a_second > need.fit_units && all_wishes(throttle) > need.clear_units_per_s);
    return need;
}

bool throttle_cuts(const struct throttle_need *need)
{
    return need->left_units < fmax(need->fit_units * CUT_SHARE, need->fit_units - need->clear_units_per_s * CUT_S);
}

bool throttle_limit_changed(const struct converge_policy *begun, const struct converge_policy *now)
{
    return begun->downtime_limit_ns != now->downtime_limit_ns ||
           begun->switchover_bytes_per_s != now->switchover_bytes_per_s;
}

/* For a tick, to see what it wants. */
static bool let_go(const struct throttle_hart *hart, const struct throttle_need *need)
{
    bool near = need->left_units < need->fit_units * NEAR_SHARE;

    return hart->held_ticks + 1 >= (near ? THROTTLE_FREE_LATEST : THROTTLE_FREE_TICKS);
}

/* The share of the level that it gets. What is dirtied again at once makes a hart look modest while much is left, and less so with every
 * round: who cannot be held to the level then is held as far as the policy allows at once, since all that it dirties until then
 * would only come on top. */
static double pace_of(const struct throttle_hart *hart, const struct throttle_need *need, double share)
{
    bool beyond = hart->touched_per_s * (1 - need->share_max) * BEYOND > share;

    return beyond && hart->touched_per_s > 0 ? 1 : fmax(share, 1);
}

bool throttle_tick(struct throttle *throttle, int64_t elapsed_ns, const struct quota_stats *now, unsigned harts,
                   const struct throttle_need *need)
{
    double wanted = 0, s = (double)elapsed_ns / 1e9;
    bool any = false;

    assert(harts <= THROTTLE_HARTS_MAX && elapsed_ns > 0);
    for (unsigned i = 0; i < harts; i++) {
        learn(&throttle->hart[i], &now[i], s, throttle->middle_s);
        wanted += wish_of(&throttle->hart[i], need);
    }
    throttle->middle_s = 0;
    double together = need->wanted && need->clear_units_per_s > 0 ? may_dirty(need) : INFINITY;
    double share = wanted > together ? level(throttle, need, harts, together) : INFINITY;
    for (unsigned i = 0; i < harts; i++) {
        struct throttle_hart *hart = &throttle->hart[i];
        struct throttle_order *order = &throttle->order[i];
        bool hold = wish_of(hart, need) > share;

        hart->held_ticks = hold && hart->held >= HELD_NOT ? hart->held_ticks + 1 : 0;
        *order = (struct throttle_order){ 0 };
        if (hold && hart->doubted_per_s == 0 && !let_go(hart, need))
            *order = (struct throttle_order){
                .pages_per_s = pace_of(hart, need, share),
                .work_per_s = kept_of(hart, need->share_max) * WORK_SPARE,
            };
        any = any || order->pages_per_s > 0;
    }
    throttle->ticks += any;
    return any;
}
