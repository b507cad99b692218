#include "memory/quota.h"

enum {
    WORK_CREDIT_NS = 10 * 1000 * 1000, /* work that late wake-ups took is made up for */
    WORK_DEBT_NS = 1000 * 1000,      /* more than its due, done before, is forgiven: each 100 ms have their own half */
    PAGE_DEBT_NS = 10 * 1000 * 1000, /* and nobody is held longer for pages that it dirtied before */
};
static const int64_t LENGTH_FIRST_NS = 62500; /* and each class twice the one before */
static const int64_t WORK_NONE_NS = 1000 * 1000 * 1000;

static int64_t worth_ns(double per_s)
{
    return per_s < 1 ? WORK_NONE_NS : per_s > 1e9 ? 1 : (int64_t)(1e9 / per_s);
}

/* Relaxed, both: no data hangs on a quota. A hart that sees one of them alone paces wrongly for one page. */
void quota_set(struct quota *quota, double pages_per_s, double work_per_s)
{
    atomic_store_explicit(&quota->work_ns, worth_ns(work_per_s), memory_order_relaxed);
    atomic_store_explicit(&quota->page_ns, pages_per_s > 0 ? worth_ns(pages_per_s) : 0, memory_order_relaxed);
}

void quota_stats(const struct quota *quota, struct quota_stats *out)
{
    *out = (struct quota_stats){
        .fresh = atomic_load_explicit(&quota->fresh, memory_order_relaxed),
        .touched = atomic_load_explicit(&quota->touched, memory_order_relaxed),
        .held_ns = atomic_load_explicit(&quota->held_ns, memory_order_relaxed),
        .holds = atomic_load_explicit(&quota->holds, memory_order_relaxed),
        .long_ns = atomic_load_explicit(&quota->long_ns, memory_order_relaxed),
        .longest_ns = atomic_load_explicit(&quota->longest_ns, memory_order_relaxed),
        .cut_short = atomic_load_explicit(&quota->cut_short, memory_order_relaxed),
        .page_ns = atomic_load_explicit(&quota->page_ns, memory_order_relaxed),
        .work_ns = atomic_load_explicit(&quota->work_ns, memory_order_relaxed),
    };
    for (unsigned i = 0; i < QUOTA_LENGTHS; i++)
        out->length[i] = atomic_load_explicit(&quota->length[i], memory_order_relaxed);
}

int64_t quota_length_ns(unsigned length)
{
    return length + 1 < QUOTA_LENGTHS ? LENGTH_FIRST_NS << length : INT64_MAX;
}

void quota_since(struct quota_stats *now, const struct quota_stats *base)
{
    now->fresh -= base->fresh;
    now->touched -= base->touched;
    now->held_ns -= base->held_ns;
    now->holds -= base->holds;
    now->long_ns -= base->long_ns;
    now->cut_short -= base->cut_short;
    for (unsigned i = 0; i < QUOTA_LENGTHS; i++)
        now->length[i] -= base->length[i];
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t pay(int64_t due_ns, int64_t worth, int64_t now_ns, int64_t credit_ns, int64_t debt_ns)
{
    int64_t from_ns = due_ns < now_ns - credit_ns ? now_ns - credit_ns : due_ns;

    return least(from_ns + worth, now_ns + debt_ns);
}

void quota_window(struct quota *quota, uint32_t window)
{
    /* Relaxed, all: a longest hold that ends at this very moment may be lost or kept. */
    if (!atomic_load_explicit(&quota->window, memory_order_relaxed))
        atomic_store_explicit(&quota->longest_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&quota->window, window,
                          memory_order_relaxed); /* an event that falls into the wrong one is one */
}

bool quota_count(struct quota *quota, uint64_t page, bool fresh)
{
    uint32_t window = atomic_load_explicit(&quota->window, memory_order_relaxed);

    if (!window)
        return false;
    if (fresh)
        quota_add(&quota->fresh, 1);
    uint64_t *seen = &quota->seen[(page ^ page >> 11) % QUOTA_SEEN], key = page << 16 | (window & 0xffff);
    if (*seen == key && !fresh)
        return false;
    *seen = key;
    quota_add(&quota->touched, 1);
    return true;
}

bool quota_spend(struct quota *quota, bool touch, bool fresh, int64_t now_ns)
{
    int64_t page_ns = atomic_load_explicit(&quota->page_ns, memory_order_relaxed);
    int64_t work_ns = atomic_load_explicit(&quota->work_ns, memory_order_relaxed);

    if (touch)
        quota->work_due_ns = pay(quota->work_due_ns, work_ns, now_ns, WORK_CREDIT_NS, WORK_DEBT_NS);
    if (!fresh || page_ns == 0)
        return false;
    quota->page_due_ns = pay(quota->page_due_ns, page_ns, now_ns, QUOTA_BURST_NS, PAGE_DEBT_NS);
    quota->owes = least(quota->page_due_ns, quota->work_due_ns) - now_ns >= QUOTA_HOLD_MIN_NS;
    return quota->owes;
}

int64_t quota_hold_until(struct quota *quota, int64_t now_ns)
{
    int64_t until_ns = least(quota->page_due_ns, quota->work_due_ns);

    if (!quota->owes || !quota_is_set(quota) || until_ns <= now_ns) {
        quota->owes = false;
        return 0;
    }
    return least(until_ns, now_ns + QUOTA_HOLD_MAX_NS);
}

void quota_held(struct quota *quota, int64_t began_ns, int64_t until_ns, int64_t ended_ns)
{
    uint64_t ns = (uint64_t)(ended_ns - began_ns);

    quota->owes = false; /* what is still due shows at the next fresh page */
    quota_add(&quota->held_ns, ns);
    quota_add(&quota->holds, 1);
    quota_add(&quota->cut_short, ended_ns < until_ns);
    unsigned length = 0;
    while (ns > (uint64_t)quota_length_ns(length))
        length++;
    quota_add(&quota->length[length], 1);
    if (ns > QUOTA_LONG_NS)
        quota_add(&quota->long_ns, ns);
    if (ns > atomic_load_explicit(&quota->longest_ns, memory_order_relaxed))
        atomic_store_explicit(&quota->longest_ns, ns, memory_order_relaxed);
}
