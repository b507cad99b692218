/* The bare-metal guest that migrations are measured on; what it does and prints: bench/guest/dirty.h. A share of the pages for each
 * hart; hart 0 is the heart as well, and looks at the clocks after each page. */
#include "lib.h"
#include "../../bench/guest/dirty.h"

extern char __end[];

static struct dirty_options options;
static struct dirty writer[HARTS_MAX];
static unsigned harts;
static struct barrier filled, leaving;
static _Bool stop;

static struct { /* owner: hart 0 */
    uint64_t last, gap, at, beat, line, dot, lines;
} heart;

/* The CSR, not the timer's register: it is read after each page. */
static uint64_t guest_ns(void)
{
    return csr_read(time) * (1000000000 / TICKS_PER_S);
}

static uint64_t written(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < harts; i++)
        sum += __atomic_load_n(&writer[i].written, __ATOMIC_RELAXED);
    return sum;
}

static uint64_t errors(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < harts; i++)
        sum += __atomic_load_n(&writer[i].errors, __ATOMIC_RELAXED);
    return sum;
}

static void look_at_line(void)
{
    switch (get_char()) {
    case 'q': __atomic_store_n(&stop, true, __ATOMIC_RELEASE); break;
    case 'x': dirty_spoil(&writer[0]); break;
    default: break;
    }
}

static void beat(uint64_t now)
{
    if (now - heart.beat < DIRTY_BEAT_NS)
        return;
    uint64_t seen = rtc_ns();
    if (seen - heart.last > heart.gap) {
        heart.gap = seen - heart.last;
        heart.at = seen;
    }
    heart.last = seen;
    heart.beat = now;
    if (options.dots_ms && now - heart.dot >= options.dots_ms * 1000000) {
        put_char('.');
        heart.dot = now;
    }
    look_at_line();
    if (now - heart.line < DIRTY_LINE_NS)
        return;
    heart.line = now;
    print("\nD %lu rtc %lu guest %lu gap %lu at %lu pages %lu errors %lu\n", heart.lines++, seen, now, heart.gap,
          heart.at, written(), errors());
    heart.gap = 0;
}

/* The heart beats while its hart waits for its next page. */
static void wait_ns(unsigned hart, uint64_t now, uint64_t ns)
{
    uint64_t until = now + ns;

    while (now < until && !__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        uint64_t next = hart == 0 && heart.beat + DIRTY_BEAT_NS < until ? heart.beat + DIRTY_BEAT_NS : until;
        if (next > now && options.sleeps)
            sleep_until(hart, mtime() + (next - now) / (1000000000 / TICKS_PER_S) + 1);
        now = guest_ns();
        if (hart == 0)
            beat(now);
    }
}

static void work(unsigned hart)
{
    struct dirty *d = &writer[hart];
    double ns_per_page = dirty_ns_per_page(&options, hart, harts);

    dirty_fill(d, guest_ns());
    barrier_wait(&filled, harts);
    if (hart == 0)
        print("READY pages %lu writers %u rate %lu\n", options.bytes_total / DIRTY_PAGE, harts, options.rate);
    d->due_ns = d->begun_ns = guest_ns();
    heart.last = hart == 0 ? rtc_ns() : heart.last;
    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
        uint64_t now = guest_ns(), wait = DIRTY_BEAT_NS;
        if (d->pages) {
            dirty_step(d, now);
            wait = ns_per_page > 0 ? dirty_wait_ns(d, ns_per_page, now) : 0;
        }
        if (hart == 0)
            beat(now);
        if (wait)
            wait_ns(hart, now, wait);
    }
    dirty_check_all(d);
    barrier_wait(&leaving, harts);
}

int main(unsigned hart, const void *dtb)
{
    struct boot boot = boot_scan(dtb);
    const char *wrong = dirty_options_read(boot.args, &options);
    uint64_t pages = options.bytes_total / DIRTY_PAGE;
    uint64_t text = ((uint64_t)__end + 4095) & ~4095ull,
             sequences = text + (options.content == DIRTY_TEXTUAL ? DIRTY_TEXT : 0);
    uint64_t base = (sequences + pages * sizeof(uint32_t) + 4095) & ~4095ull;

    if (!wrong && options.book)
        wrong = "content=book needs a file: Linux only";
    if (!wrong && base + pages * DIRTY_PAGE > 0x80000000 + boot.ram_bytes)
        wrong = "w does not fit into memory";
    if (wrong) {
        print("FAILED %s\n", wrong);
        power_off_failed();
    }
    harts = boot.harts;
    if (options.content == DIRTY_TEXTUAL)
        dirty_text_make((char *)text, DIRTY_TEXT, options.seed);
    for (unsigned i = 0; i < harts; i++) {
        writer[i].options = &options;
        writer[i].text = (const uint64_t *)text;
        writer[i].first_page = pages * i / harts;
        writer[i].pages = pages * (i + 1) / harts - writer[i].first_page;
        writer[i].base = (uint64_t *)base + writer[i].first_page * DIRTY_WORDS;
        writer[i].sequence = (uint32_t *)sequences + writer[i].first_page;
    }
    harts_start(harts, work);
    work(hart);
    for (unsigned i = 0; i < harts; i++)
        if (writer[i].errors)
            print("\nERROR page %lu holds what was not written last\n", writer[i].bad_page);
    for (unsigned i = 0; i < harts; i++)
        print("\nWRITER %u pages %lu", i, writer[i].written);
    print("\nEND %s pages %lu errors %lu\n", errors() ? "failed" : "ok", written(), errors());
    power_off();
}
