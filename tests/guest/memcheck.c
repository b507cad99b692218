/* The guest that migrations are tried on: it writes memory as fast as it can and knows what must be in it.
 *
 * Every hart owns a share of a region and writes it pass after pass. Before a page is overwritten it must hold
 * exactly what this hart wrote one pass ago, all of its words: so a page that was lost, or arrived twice, late or
 * elsewhere is seen. The pass numbers live in registers and on the stack, not beside the pages.
 *
 * Arguments (-append): mem=64M harts=N   the region, split evenly
 *                      at=0              where it begins, from the start of RAM; 0: behind the program
 *                      rate=0            pages a second and hart, 0 is flat out
 *                      pattern=seq|jump  order in which a pass visits its pages
 *                      fill=full|head    write whole pages, or their first and last words (dirties faster)
 *                      hot=0             bytes of the region that get nine passes of ten
 * Console: r resets the gap, s prints the state line, q checks everything, prints OK and powers off, x spoils a page
 * (to see that the check sees it).
 * Once a second of wall clock: "alive N pass P maxgap_us G", G the longest time between two looks at the wall
 * clock by hart 0, which looks at each page: the longest that this guest was ever not running. */
#include "lib.h"

enum { PAGE_BYTES = 4096, PAGE_WORDS = PAGE_BYTES / 8, RATE_TICK = TICKS_PER_S / 1000, HOT_PASSES = 9 };

enum kind { KIND_RANDOM, KIND_TEXT, KIND_SPARSE, KIND_ZERO };

struct area {
    uint64_t *base;
    uint64_t pages;
    uint64_t first_page; /* its number in the whole region */
    uint64_t pass;       /* every page was last written in this one; 0: never, all are zero */
};

struct share {
    unsigned hart;
    struct area hot, cold;
    uint64_t budget_start, budget_used; /* rate limit: ticks, pages */
    uint64_t last_mtime;
};

static struct {
    unsigned harts;
    uint64_t bytes, hot_bytes, rate;
    bool jump, head_only;
    uint64_t base;
    struct barrier leaving;
    _Bool stop;
} config;

static struct { /* owner: hart 0 */
    uint64_t seconds, last_ns, next_ns, gap_ns, passes;
} alive;

extern char __end[];

/* --- what a page holds --------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
    x ^= x >> 31;
    x *= 0x7fb5d329728ea185;
    x ^= x >> 27;
    return x;
}

/* A quarter random, an eighth sparse, a sixteenth zero on every other pass, the rest like text. */
static enum kind kind_of(uint64_t page, uint64_t pass)
{
    unsigned n = page % 16;

    if (pass == 0)
        return KIND_ZERO;
    return n < 4 ? KIND_RANDOM : n < 6 ? KIND_SPARSE : n == 6 && pass % 2 ? KIND_ZERO : KIND_TEXT;
}

/* Word 0 names page and pass in every page but zero ones. */
static inline uint64_t word_of(enum kind kind, uint64_t page, uint64_t pass, unsigned i)
{
    uint64_t head = page << 32 | (uint32_t)pass;

    if (kind == KIND_ZERO)
        return 0;
    if (i == 0)
        return head;
    if (kind == KIND_RANDOM)
        return mix(head * 0x9e3779b97f4a7c15 + i);
    if (kind == KIND_SPARSE)
        return i % 64 == 63 ? pass : 0;
    return 0x6974646f67207369 + (i % 8) * 0x0101010101010101 + (i % 32 == 0 ? pass : 0);
}

_Noreturn static void mismatch(const struct share *share, uint64_t page, unsigned word, uint64_t expected, uint64_t got)
{
    print("MISMATCH hart %u page %lu word %u expected 0x%lx got 0x%lx\n", share->hart, page, word, expected, got);
    power_off_failed();
}

/* fill=head leaves the middle of a page as the very first pass made it. */
static uint64_t expected_word(enum kind kind, uint64_t page, uint64_t pass, unsigned i)
{
    if (config.head_only && i != 0 && i != PAGE_WORDS - 1)
        return pass == 0 ? 0 : word_of(kind_of(page, 2), page, 2, i);
    return word_of(kind, page, pass, i);
}

static void check_page(const struct share *share, const struct area *area, uint64_t n, uint64_t pass, bool whole)
{
    const volatile uint64_t *at = area->base + n * PAGE_WORDS;
    uint64_t page = area->first_page + n;
    enum kind kind = kind_of(page, pass);
    unsigned step = config.head_only && !whole ? PAGE_WORDS - 1 : 1;

    for (unsigned i = 0; i < PAGE_WORDS; i += step) {
        uint64_t got = at[i], expected = expected_word(kind, page, pass, i);
        if (got != expected)
            mismatch(share, page, i, expected, got);
    }
}

static void write_page(const struct area *area, uint64_t n, uint64_t pass)
{
    volatile uint64_t *at = area->base + n * PAGE_WORDS;
    uint64_t page = area->first_page + n;
    enum kind kind = kind_of(page, pass);
    unsigned step = config.head_only && pass > 1 ? PAGE_WORDS - 1 : 1;

    for (unsigned i = 0; i < PAGE_WORDS; i += step)
        at[i] = expected_word(kind, page, pass, i);
}

/* --- time, rate, console ------------------------------------------------------------------------------- */

static void state_line(void)
{
    print("alive %lu pass %lu maxgap_us %lu\n", alive.seconds, alive.passes, alive.gap_ns / 1000);
}

static void look_at_clock(void)
{
    uint64_t now = rtc_ns();

    if (now > alive.last_ns && now - alive.last_ns > alive.gap_ns)
        alive.gap_ns = now - alive.last_ns;
    alive.last_ns = now;
    if (now < alive.next_ns)
        return;
    alive.seconds++;
    alive.next_ns = now + 1000000000;
    state_line();
}

static void look_at_console(void)
{
    volatile uint64_t *victim = (volatile uint64_t *)config.base + PAGE_WORDS * 5 - 1;

    switch (get_char()) {
    case 'r':
        alive.gap_ns = 0;
        alive.last_ns = rtc_ns();
        print("reset\n");
        break;
    case 's': state_line(); break;
    case 'q': __atomic_store_n(&config.stop, true, __ATOMIC_RELEASE); break;
    case 'x': *victim ^= 1; break;
    default: break;
    }
}

static void keep_rate(struct share *share)
{
    if (config.rate == 0)
        return;
    /* The budget starts anew each second: what a pause made us miss is not caught up with. */
    uint64_t now = mtime();
    if (now - share->budget_start >= TICKS_PER_S) {
        share->budget_start = now;
        share->budget_used = 0;
    }
    share->budget_used++;
    while (share->budget_used * TICKS_PER_S > (mtime() - share->budget_start) * config.rate &&
           mtime() - share->budget_start < TICKS_PER_S) {
        sleep_until(share->hart, mtime() + RATE_TICK);
        if (share->hart == 0) {
            look_at_clock();
            look_at_console();
        }
    }
}

static void look_around(struct share *share, uint64_t n)
{
    uint64_t now = mtime();

    if (now < share->last_mtime) {
        print("MISMATCH hart %u guest time went back from %lu to %lu\n", share->hart, share->last_mtime, now);
        power_off_failed();
    }
    share->last_mtime = now;
    if (share->hart == 0) {
        look_at_clock();
        if (n % 16 == 0)
            look_at_console();
    }
    keep_rate(share);
}

/* --- passes -------------------------------------------------------------------------------------------- */

static uint64_t gcd(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* A step that visits each of n pages once, far from its neighbours. */
static uint64_t stride_for(uint64_t n)
{
    uint64_t stride = n * 5 / 8 | 1;

    while (gcd(stride, n) != 1)
        stride += 2;
    return stride;
}

/* One pass, or its beginning, then every page against what it should be. */
static void final_check(const struct share *share, const struct area *area, uint64_t stride, uint64_t done)
{
    for (uint64_t i = 0; i < area->pages; i++)
        check_page(share, area, i * stride % area->pages, area->pass + (i < done), true);
}

/* False: told to stop; the area has been checked. */
static bool run_pass(struct share *share, struct area *area, const struct area *other)
{
    uint64_t stride = config.jump ? stride_for(area->pages) : 1;

    for (uint64_t i = 0; i < area->pages; i++) {
        if (__atomic_load_n(&config.stop, __ATOMIC_ACQUIRE)) {
            final_check(share, area, stride, i);
            final_check(share, other, 1, 0);
            return false;
        }
        uint64_t n = i * stride % area->pages;
        check_page(share, area, n, area->pass, false);
        write_page(area, n, area->pass + 1);
        look_around(share, i);
    }
    area->pass++;
    if (share->hart == 0)
        alive.passes++;
    return true;
}

static struct share share_of(unsigned hart)
{
    uint64_t pages = config.bytes / PAGE_BYTES / config.harts, hot = config.hot_bytes / PAGE_BYTES / config.harts;
    uint64_t first = hart * pages;
    uint64_t *base = (uint64_t *)(config.base + first * PAGE_BYTES);

    if (hot > pages)
        hot = pages;
    return (struct share){
        .hart = hart,
        .hot = { base, hot, first, 0 },
        .cold = { base + hot * PAGE_WORDS, pages - hot, first + hot, 0 },
        .budget_start = mtime(),
        .last_mtime = mtime(),
    };
}

static void storm(unsigned hart)
{
    struct share share = share_of(hart);
    bool going = true;

    for (uint64_t *at = share.hot.base; at < share.cold.base + share.cold.pages * PAGE_WORDS; at++)
        *(volatile uint64_t *)at = 0;
    if (hart == 0) {
        alive.last_ns = rtc_ns();
        alive.next_ns = alive.last_ns;
    }
    while (going) {
        for (int i = 0; going && share.hot.pages > 0 && i < HOT_PASSES; i++)
            going = run_pass(&share, &share.hot, &share.cold);
        if (going && share.cold.pages > 0)
            going = run_pass(&share, &share.cold, &share.hot);
    }
    barrier_wait(&config.leaving, config.harts);
}

int main(unsigned hart, const void *dtb)
{
    struct boot boot = boot_scan(dtb);
    uint64_t at = arg_number(boot.args, "at", 0);

    config.base = at ? 0x80000000 + at : (uint64_t)__end;
    uint64_t room = 0x80000000 + boot.ram_bytes - config.base;
    config.harts = (unsigned)arg_number(boot.args, "harts", boot.harts);
    config.bytes = arg_number(boot.args, "mem", 64 << 20);
    config.hot_bytes = arg_number(boot.args, "hot", 0);
    config.rate = arg_number(boot.args, "rate", 0);
    config.jump = arg_is(boot.args, "pattern", "jump");
    config.head_only = arg_is(boot.args, "fill", "head");
    if (config.harts == 0 || config.harts > boot.harts || config.base < (uint64_t)__end ||
        config.base - 0x80000000 > boot.ram_bytes || config.bytes > room || config.bytes / PAGE_BYTES < config.harts) {
        print("memcheck: there are %u harts and %lu bytes\n", boot.harts, room);
        power_off_failed();
    }
    print("memcheck: %u harts, %lu MiB at 0x%lx, %lu hot, rate %lu%s%s\n", config.harts, config.bytes >> 20,
          config.base, config.hot_bytes, config.rate, config.jump ? ", jumping" : "",
          config.head_only ? ", heads" : "");
    harts_start(config.harts, storm);
    storm(hart);
    state_line();
    print("OK passes=%lu\n", alive.passes);
    power_off();
}
