/* What the dirtiers share, bare metal (tests/guest/dirtier.c) and Linux (bench/guest/dirtier.c): which page is written when, what
 * is put into it, and what must be in it. Needs nothing: no C library.
 *
 * Options are words NAME=VALUE, numbers with K, M or G:
 *   w=64M             bytes that are written over and over (the working set)
 *   rate=0            pages a second of guest time, all writers together; 0: as fast as it can
 *   hot=0             percent of the rate that the last writer has, the others share the rest; 0: all alike
 *   bytes=4096        of each page: 8, 64 or 4096
 *   pattern=uniform   seq, uniform, zipf (rank r is written in proportion to 1/r; ranks are scattered over the memory)
 *   content=text      random, text, counters, zero; same: a page is one word over and over; book: text that somebody wrote, from
 *                     /bench/book (Linux only)
 *   phase=0           seconds: so long the whole of w, then so long an eighth of it, and so on; 0: always the whole
 *   dots=1            milliseconds of guest time between the beats on the serial line; 0: none
 *   wait=spin         bare metal between pages: spin, or sleep (QEMU before 10.2 loses a guest's armed timer when it moves it, and
 *                     the guest would sleep for ever)
 *   seed=1
 *
 * Every page begins with its number and a sequence number, which is also kept elsewhere; before a page is written again its first
 * word, the last that is written, and one anywhere are compared with what was written last. At the end all are.
 * Missed work is not made up for, beyond 10 ms: a pause and a slow host are seen as pages that were not written.
 *
 * What they print, in lines without a full stop, since the beats are full stops:
 *   READY pages N ...
 *   D n rtc NS guest NS gap NS at NS pages N errors N     every 100 ms of guest time: gap is the longest time between two beats
 *                                                         since the line before, on the host's clock, and at when it ended
 *   WRITER n pages N                                      of each, before the END
 *   END ok|failed pages N errors N                        after a q on the serial line; an x spoils a word */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DIRTY_PAGE = 4096, DIRTY_WORDS = DIRTY_PAGE / 8, DIRTY_TEXT = 4 << 20, DIRTY_OCTAVES = 40 };
enum dirty_pattern { DIRTY_SEQ, DIRTY_UNIFORM, DIRTY_ZIPF };
enum dirty_content { DIRTY_RANDOM, DIRTY_TEXTUAL, DIRTY_COUNTERS, DIRTY_ZERO, DIRTY_SAME };

static const uint64_t DIRTY_BEAT_NS = 1000000, DIRTY_LINE_NS = 100000000, DIRTY_LATE_NS = 10000000;

struct dirty_options {
    uint64_t bytes_total, rate, hot, phase_s, dots_ms, seed;
    unsigned bytes;
    enum dirty_pattern pattern;
    enum dirty_content content;
    bool sleeps, book;
};

/* One writer and its pages. Owner: the writer, after dirty_fill(). */
struct dirty {
    const struct dirty_options *options;
    const uint64_t *text; /* DIRTY_TEXT bytes, where content=text */
    uint64_t *base;
    uint32_t *sequence; /* of each page */
    uint64_t pages, first_page;
    uint64_t random, at, stride;
    uint64_t due_ns, begun_ns;
    uint64_t written; /* pages; read by others, relaxed */
    uint64_t errors, bad_page;
    double octave_sum[DIRTY_OCTAVES]; /* of 1/r over ranks below 2^(n+1) */
};

static inline uint64_t dirty_mix(uint64_t x)
{
    x ^= x >> 31;
    x *= 0x7fb5d329728ea185;
    x ^= x >> 27;
    return x;
}

static inline uint64_t dirty_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

/* --- options ------------------------------------------------------------------------------------------------------- */

/* The value of NAME= among blank-separated words, or NULL. */
static inline const char *dirty_value(const char *args, const char *name)
{
    while (*args) {
        const char *word = args, *n = name;
        while (*n && *word == *n)
            word++, n++;
        if (!*n && *word == '=')
            return word + 1;
        while (*args && *args != ' ')
            args++;
        while (*args == ' ')
            args++;
    }
    return NULL;
}

static inline uint64_t dirty_number(const char *args, const char *name, uint64_t missing)
{
    const char *at = dirty_value(args, name);
    uint64_t value = 0;

    if (!at || *at < '0' || *at > '9')
        return missing;
    for (; *at >= '0' && *at <= '9'; at++)
        value = value * 10 + (uint64_t)(*at - '0');
    return *at == 'K' ? value << 10 : *at == 'M' ? value << 20 : *at == 'G' ? value << 30 : value;
}

/* Which of `count` words NAME= is; `missing` where it is not there; -1 for another word. */
static inline int dirty_choice(const char *args, const char *name, const char *const *words, int count, int missing)
{
    const char *at = dirty_value(args, name);

    for (int i = 0; at && i < count; i++) {
        const char *a = at, *b = words[i];
        while (*b && *a == *b)
            a++, b++;
        if (!*b && (*a == ' ' || !*a))
            return i;
    }
    return at ? -1 : missing;
}

/* NULL, or what is wrong. */
static inline const char *dirty_options_read(const char *args, struct dirty_options *o)
{
    static const char *const patterns[] = { "seq", "uniform", "zipf" };
    static const char *const waits[] = { "spin", "sleep" };
    static const char *const contents[] = { "random", "text", "counters", "zero", "same", "book" };
    int wait = dirty_choice(args, "wait", waits, 2, 0);
    int pattern = dirty_choice(args, "pattern", patterns, 3, DIRTY_UNIFORM);
    int content = dirty_choice(args, "content", contents, 6, DIRTY_TEXTUAL);

    o->bytes_total = dirty_number(args, "w", 64 << 20);
    o->rate = dirty_number(args, "rate", 0);
    o->hot = dirty_number(args, "hot", 0);
    o->phase_s = dirty_number(args, "phase", 0);
    o->dots_ms = dirty_number(args, "dots", 1);
    o->seed = dirty_number(args, "seed", 1);
    o->bytes = (unsigned)dirty_number(args, "bytes", DIRTY_PAGE);
    if (pattern < 0)
        return "pattern is seq, uniform or zipf";
    if (content < 0)
        return "content is random, text, counters, zero, same or book";
    if (wait < 0)
        return "wait is spin or sleep";
    if (o->bytes != 8 && o->bytes != 64 && o->bytes != DIRTY_PAGE)
        return "bytes is 8, 64 or 4096";
    if (o->hot >= 100 || (o->hot && !o->rate))
        return "hot is a percentage below 100 of a rate";
    if (o->bytes_total > (uint64_t)DIRTY_PAGE << 32)
        return "w is too large";
    o->pattern = (enum dirty_pattern)pattern;
    o->book = content == 5; /* only the text is another */
    o->content = o->book ? DIRTY_TEXTUAL : (enum dirty_content)content;
    o->sleeps = wait == 1;
    return NULL;
}

/* --- text ---------------------------------------------------------------------------------------------------------- */

static const char *const dirty_words[] = {
    "the",   "of",    "and",  "to",   "in",   "a",    "is",    "that", "for",  "it",   "was",   "as",    "with",
    "be",    "by",    "on",   "not",  "he",   "this", "are",   "or",   "his",  "from", "at",    "which", "but",
    "have",  "an",    "had",  "they", "you",  "were", "their", "one",  "all",  "we",   "can",   "her",   "has",
    "there", "been",  "if",   "more", "when", "will", "would", "who",  "so",   "no",   "she",   "other", "its",
    "may",   "these", "what", "them", "than", "some", "him",   "time", "into", "only", "could", "new",   "then",
};
static const char *const dirty_parts[] = {
    "ab", "con", "dis", "en",  "ex",   "in",  "mo",  "per", "pre", "pro",  "re",   "sub",  "tra", "un", "ver", "ci",
    "da", "fer", "gen", "ho",  "ist",  "ju",  "kin", "lo",  "mer", "nat",  "or",   "plan", "qua", "ro", "sen", "ter",
    "ul", "vi",  "war", "yes", "ance", "ble", "ing", "ity", "ly",  "ment", "ness", "tion", "ous", "al", "ed",  "er",
};

/* Words as often as in English, the frequent ones real and the others made of its syllables: LZ4 and zstd shrink it about as they do
 * English, and no two pages of it are alike. Made once; pages are cut from it at different places. */
static inline void dirty_text_make(char *text, size_t bytes, uint64_t seed)
{
    enum { COMMON = sizeof(dirty_words) / sizeof(*dirty_words), PARTS = sizeof(dirty_parts) / sizeof(*dirty_parts) };
    uint64_t random = dirty_mix(seed * 0x9e3779b97f4a7c15 + 1) | 1;
    size_t at = 0;

    while (at < bytes) {
        uint64_t dice = dirty_random(&random);
        unsigned parts = dice % 100 < 45 ? 0 : 2 + dice / 128 % 3;
        /* the smaller of two throws: the first words of the list are the frequent ones */
        unsigned a = dice / 1024 % COMMON, b = dice / 1048576 % COMMON;
        const char *from = dirty_words[a < b ? a : b];
        /* a word of one topic comes again soon: seldom ones are drawn from a slowly moving window */
        uint64_t rare = dirty_mix((at >> 12) * 131 + dice / 4096 % 220);
        for (unsigned p = 0; p < (parts ? parts : 1); p++) {
            if (parts)
                from = dirty_parts[(rare >> (p * 8) & 0xff) % PARTS];
            for (const char *c = from; *c && at < bytes; c++)
                text[at++] = *c;
        }
        if (at < bytes)
            text[at++] = dice >> 60 == 0 ? '\n' : dice >> 60 == 1 ? ',' : ' ';
    }
}

/* --- what a page holds --------------------------------------------------------------------------------------------- */

static inline uint64_t dirty_word(const struct dirty *d, uint64_t page, uint32_t sequence, unsigned i)
{
    uint64_t tag = page << 32 | sequence;

    switch (d->options->content) {
    case DIRTY_ZERO: return 0;
    case DIRTY_SAME: return tag;
    case DIRTY_RANDOM: return i ? dirty_mix(tag * 0x9e3779b97f4a7c15 + i) : tag;
    case DIRTY_COUNTERS: return i ? page * DIRTY_WORDS + i + sequence : tag;
    default: return i ? d->text[dirty_mix(tag * 0x9e3779b97f4a7c15) % (DIRTY_TEXT / 8 - DIRTY_WORDS) + i] : tag;
    }
}

static inline void dirty_check_word(struct dirty *d, uint64_t n, unsigned i)
{
    uint32_t sequence = i < d->options->bytes / 8 ? d->sequence[n] : 0;
    volatile const uint64_t *page = d->base + n * DIRTY_WORDS;

    if (page[i] != dirty_word(d, d->first_page + n, sequence, i)) {
        d->bad_page = d->first_page + n;
        d->errors++;
    }
}

static inline void dirty_write(struct dirty *d, uint64_t n, uint32_t sequence, unsigned bytes)
{
    volatile uint64_t *page = d->base + n * DIRTY_WORDS;
    uint64_t number = d->first_page + n;

    if (d->options->content == DIRTY_TEXTUAL && bytes > 8) {
        uint64_t tag = number << 32 | sequence;
        const uint64_t *from = d->text + dirty_mix(tag * 0x9e3779b97f4a7c15) % (DIRTY_TEXT / 8 - DIRTY_WORDS);
        page[0] = tag;
        for (unsigned i = 1; i < bytes / 8; i++)
            page[i] = from[i];
        return;
    }
    for (unsigned i = 0; i < bytes / 8; i++)
        page[i] = dirty_word(d, number, sequence, i);
}

/* --- which page is next -------------------------------------------------------------------------------------------- */

static inline uint64_t dirty_gcd(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* The writer's fields are set: options, text, base, sequence, pages, first_page. */
static inline void dirty_fill(struct dirty *d, uint64_t now_ns)
{
    double sum = 0;

    d->random = dirty_mix(d->options->seed * 0x9e3779b97f4a7c15 + d->first_page + 1) | 1;
    d->stride = d->pages * 5 / 8 | 1;
    while (dirty_gcd(d->stride, d->pages) != 1)
        d->stride += 2;
    for (uint64_t rank = 1, octave = 0; d->options->pattern == DIRTY_ZIPF && octave < DIRTY_OCTAVES; octave++) {
        for (; rank < (2ull << octave) && rank <= d->pages; rank++)
            sum += 1 / (double)rank;
        d->octave_sum[octave] = sum;
    }
    for (uint64_t n = 0; n < d->pages; n++) {
        d->sequence[n] = 0;
        dirty_write(d, n, 0, DIRTY_PAGE);
    }
    d->due_ns = d->begun_ns = now_ns;
}

/* From 0. The octave first, then a rank of it, which is refused as often as it is rarer than the octave's first. */
static inline uint64_t dirty_zipf(struct dirty *d, uint64_t pages)
{
    for (;;) {
        double throw =
            (double)(dirty_random(&d->random) >> 11) / (double)(1ull << 53) * d->octave_sum[DIRTY_OCTAVES - 1];
        unsigned octave = 0;
        while (d->octave_sum[octave] < throw)
            octave++;
        for (;;) {
            uint64_t dice = dirty_random(&d->random), least = 1ull << octave, rank = least + (dice >> 20) % least;
            if ((double)(dice & 0xfffff) / (1 << 20) * (double)rank >= (double)least || rank > d->pages)
                continue;
            if (rank <= pages)
                return rank - 1;
            break; /* a phase that uses fewer pages */
        }
    }
}

static inline uint64_t dirty_next(struct dirty *d, uint64_t now_ns)
{
    uint64_t pages = d->pages, phase_ns = d->options->phase_s * 1000000000;

    if (phase_ns && (now_ns - d->begun_ns) / phase_ns % 2)
        pages = pages / 8 ? pages / 8 : 1;
    switch (d->options->pattern) {
    case DIRTY_SEQ: return d->at = d->at + 1 < pages ? d->at + 1 : 0;
    case DIRTY_ZIPF: return dirty_zipf(d, pages) * d->stride % d->pages;
    default: return dirty_random(&d->random) % pages;
    }
}

/* --- working --------------------------------------------------------------------------------------------------------- */

/* One page. */
static inline void dirty_step(struct dirty *d, uint64_t now_ns)
{
    uint64_t n = dirty_next(d, now_ns);
    unsigned words = d->options->bytes / 8;

    dirty_check_word(d, n, 0);
    dirty_check_word(d, n, words - 1);
    dirty_check_word(d, n, (unsigned)(d->random >> 40) % DIRTY_WORDS);
    d->sequence[n]++;
    dirty_write(d, n, d->sequence[n], d->options->bytes);
    __atomic_store_n(&d->written, d->written + 1, __ATOMIC_RELAXED); /* a counter that another thread shows */
}

/* Guest time between two pages of one of `writers`; 0: it does not wait. */
static inline double dirty_ns_per_page(const struct dirty_options *o, unsigned writer, unsigned writers)
{
    double share = 1.0 / writers;

    if (o->hot && writers > 1)
        share = writer == writers - 1 ? (double)o->hot / 100 : (double)(100 - o->hot) / 100 / (writers - 1);
    return o->rate ? 1e9 / ((double)o->rate * share) : 0;
}

/* After a page: how long to wait for the next one, by guest time. `rate` is this writer's. Runs ahead by up to a millisecond, since
 * guests' timers are no finer. */
static inline uint64_t dirty_wait_ns(struct dirty *d, double ns_per_page, uint64_t now_ns)
{
    d->due_ns += (uint64_t)ns_per_page;
    if (d->due_ns + DIRTY_LATE_NS < now_ns)
        d->due_ns = now_ns - DIRTY_LATE_NS;
    return d->due_ns > now_ns + 1000000 ? d->due_ns - now_ns : 0;
}

/* Every word of every page. */
static inline void dirty_check_all(struct dirty *d)
{
    for (uint64_t n = 0; n < d->pages; n++)
        for (unsigned i = 0; i < DIRTY_WORDS; i++)
            dirty_check_word(d, n, i);
}

static inline void dirty_spoil(struct dirty *d)
{
    if (d->pages)
        *(volatile uint64_t *)(d->base + d->pages / 2 * DIRTY_WORDS + 7) ^= 1;
}
