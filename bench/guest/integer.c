/* Integer kernels: what a CPU does in ordinary programs, each with a checksum that is the same on any machine. The first four
 * and `mix` are of CoreMark's kind: a linked list, small matrices, a state machine, a bitwise CRC. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

#define CLEAN __attribute__((noinline, noclone))

/* --- CRC-16, one bit at a time ---------------------------------------------------------------------------------- */

static uint16_t crc16_byte(uint8_t byte, uint16_t crc)
{
    for (int bit = 0; bit < 8; bit++) {
        unsigned carry = (crc ^ byte) & 1u;
        crc = (uint16_t)(crc >> 1);
        if (carry)
            crc ^= 0xa001u;
        byte >>= 1;
    }
    return crc;
}

static CLEAN uint16_t crc16(const void *data, size_t bytes, uint16_t crc)
{
    const uint8_t *at = data;

    while (bytes--)
        crc = crc16_byte(*at++, crc);
    return crc;
}

static uint8_t text[8192];

static void text_begin(void)
{
    uint64_t state = 4711;

    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (uint8_t)bench_random(&state);
}

static uint64_t crc_round(void)
{
    return crc16(text, sizeof(text), 0xffff);
}

/* --- a linked list: find, reverse, merge sort by two keys ----------------------------------------------------------- */

struct node {
    struct node *next;
    int16_t value, index;
};

enum { NODES = 400 };
static struct node nodes[NODES];

static CLEAN struct node *list_build(void)
{
    uint64_t state = 99;

    for (int i = 0; i < NODES; i++) /* neighbours in the list are not neighbours in memory */
        nodes[i * 7 % NODES] = (struct node){ .next = i + 1 < NODES ? &nodes[(i + 1) * 7 % NODES] : NULL,
                                              .value = (int16_t)bench_random(&state),
                                              .index = (int16_t)i };
    return &nodes[0];
}

static CLEAN struct node *list_find(struct node *list, int16_t value)
{
    while (list && (list->value & 0xff) != value)
        list = list->next;
    return list;
}

static CLEAN struct node *list_reverse(struct node *list)
{
    struct node *done = NULL;

    while (list) {
        struct node *next = list->next;
        list->next = done;
        done = list;
        list = next;
    }
    return done;
}

static CLEAN int by_value(const struct node *a, const struct node *b)
{
    return a->value - b->value;
}

static CLEAN int by_index(const struct node *a, const struct node *b)
{
    return a->index - b->index;
}

/* Bottom-up merge sort; the compare is called through a pointer. */
static CLEAN struct node *list_sort(struct node *list, int (*compare)(const struct node *, const struct node *))
{
    for (int width = 1;; width *= 2) {
        struct node *rest = list, *head = NULL, **tail = &head;
        int merges = 0;
        while (rest) {
            struct node *left = rest, *right = rest;
            int left_count = 0, right_count = width;
            merges++;
            while (left_count < width && right) {
                left_count++;
                right = right->next;
            }
            while (left_count > 0 || (right_count > 0 && right)) {
                struct node **from = &left;
                if (left_count == 0 || (right_count > 0 && right && compare(left, right) > 0))
                    from = &right;
                left_count -= from == &left;
                right_count -= from == &right;
                *tail = *from;
                *from = (*from)->next;
                tail = &(*tail)->next;
            }
            rest = right;
        }
        *tail = NULL;
        list = head;
        if (merges <= 1)
            return list;
    }
}

static uint64_t list_round(void)
{
    struct node *list = list_build();
    uint16_t crc = 0;

    for (int16_t value = 0; value < 64; value++) {
        struct node *found = list_find(list, value);
        crc = crc16_byte(found ? (uint8_t)found->index : 0x55, crc);
        list = list_reverse(list);
    }
    list = list_sort(list, by_value);
    for (struct node *node = list; node; node = node->next)
        crc = crc16_byte((uint8_t)node->value, crc);
    list = list_sort(list, by_index);
    for (struct node *node = list; node; node = node->next)
        crc = crc16_byte((uint8_t)(node->value >> 8), crc);
    return crc;
}

/* --- matrices of 16-bit integers ------------------------------------------------------------------------------------ */

enum { SIDE = 24 };
static int16_t matrix_a[SIDE][SIDE], matrix_b[SIDE][SIDE];
static int32_t matrix_c[SIDE][SIDE];

static CLEAN void matrix_add(int16_t add)
{
    for (int row = 0; row < SIDE; row++)
        for (int column = 0; column < SIDE; column++)
            matrix_a[row][column] = (int16_t)(matrix_a[row][column] + add);
}

static CLEAN void matrix_multiply(int shift, int32_t mask)
{
    for (int row = 0; row < SIDE; row++) {
        for (int column = 0; column < SIDE; column++) {
            int32_t sum = 0;
            for (int i = 0; i < SIDE; i++) {
                int32_t product = (int32_t)matrix_a[row][i] * matrix_b[i][column];
                sum += (product >> shift) & mask;
            }
            matrix_c[row][column] = sum;
        }
    }
}

static CLEAN int32_t matrix_sum(int32_t clip)
{
    int32_t total = 0, last = 0, running = 0;

    for (int row = 0; row < SIDE; row++) {
        for (int column = 0; column < SIDE; column++) {
            int32_t now = matrix_c[row][column];
            running += now & 0xffff;
            if (running > clip) {
                total += 10;
                running = 0;
            } else {
                total += now > last;
            }
            last = now;
        }
    }
    return total;
}

static uint64_t matrix_round(void)
{
    uint64_t state = 17, sum = 0;

    for (int row = 0; row < SIDE; row++) {
        for (int column = 0; column < SIDE; column++) {
            matrix_a[row][column] = (int16_t)(bench_random(&state) & 0x3ff);
            matrix_b[row][column] = (int16_t)(bench_random(&state) & 0x3ff);
        }
    }
    for (int16_t add = 1; add <= 4; add++) {
        matrix_add(add);
        matrix_multiply(0, -1);
        sum = bench_mix(sum, (uint64_t)matrix_sum(40000));
        matrix_multiply(2, 0xf);
        sum = bench_mix(sum, (uint64_t)matrix_sum(90000));
        matrix_add((int16_t)-add);
    }
    return sum;
}

/* --- a state machine that reads numbers --------------------------------------------------------------------------------- */

enum state { START, SIGN, INTEGER, POINT, FRACTION, EXPONENT, EXPONENT_SIGN, POWER, INVALID, STATES };

static CLEAN enum state state_next(const char **at, uint32_t *counts)
{
    enum state state = START;

    for (; **at && state != INVALID; (*at)++) {
        char c = **at;
        int digit = c >= '0' && c <= '9';
        if (c == ',') {
            (*at)++;
            break;
        }
        enum state old = state;
        switch (state) {
        case START: state = digit ? INTEGER : c == '+' || c == '-' ? SIGN : c == '.' ? POINT : INVALID; break;
        case SIGN: state = digit ? INTEGER : c == '.' ? POINT : INVALID; break;
        case INTEGER: state = digit ? INTEGER : c == '.' ? FRACTION : c == 'e' ? EXPONENT : INVALID; break;
        case POINT: state = digit ? FRACTION : INVALID; break;
        case FRACTION: state = digit ? FRACTION : c == 'e' ? EXPONENT : INVALID; break;
        case EXPONENT: state = digit ? POWER : c == '+' || c == '-' ? EXPONENT_SIGN : INVALID; break;
        case EXPONENT_SIGN:
        case POWER: state = digit ? POWER : INVALID; break;
        case INVALID:
        case STATES: break;
        }
        counts[old] += state != old;
    }
    if (state == INVALID) {
        while (**at && *(*at)++ != ',')
            ;
    }
    return state;
}

static char numbers[2048];

static void state_begin(void)
{
    static const char *const WORDS[] = { "5012",     "1234",     "-874",     "+122",     "35.54400", ".1234500",
                                         "-110.700", "+0.644",   "5.5e+3",   "-.123e-2", "-87e+8",   "+0.6e-12",
                                         "T0.3e-1F", "-T.T++Tq", "1T3.4e4z", "34.0e-T^" };
    uint64_t state = 5;
    size_t used = 0;

    memset(numbers, 0, sizeof(numbers));
    while (used + 16 < sizeof(numbers)) {
        const char *word = WORDS[bench_random(&state) % 16];
        size_t bytes = strlen(word);
        memcpy(numbers + used, word, bytes);
        numbers[used + bytes] = ',';
        used += bytes + 1;
    }
}

static uint64_t state_round(void)
{
    uint32_t ends[STATES] = { 0 }, counts[STATES] = { 0 };
    uint64_t sum = 0;

    for (int pass = 0; pass < 4; pass++)
        for (const char *at = numbers; *at;)
            ends[state_next(&at, counts)]++;
    for (int i = 0; i < STATES; i++)
        sum = bench_mix(bench_mix(sum, ends[i]), counts[i]);
    return sum;
}

/* --- all of the above in turn ------------------------------------------------------------------------------------------- */

static uint64_t mix_round(void)
{
    uint64_t sum = bench_mix(list_round(), matrix_round());

    sum = bench_mix(sum, state_round());
    return crc16(&sum, sizeof(sum), 0);
}

/* --- SHA-256 ---------------------------------------------------------------------------------------------------------- */

static uint32_t sha_constants[64], sha_start[8];

static uint32_t rotate(uint32_t value, int by)
{
    return value >> by | value << (32 - by);
}

/* The first 32 bits of the fraction of the n-th root (2 or 3) of a prime, in integers only: FIPS 180-4, 4.2.2 and 5.3.3. */
static uint32_t root_fraction(unsigned prime, int n)
{
    unsigned __int128 low = 0, high = (unsigned __int128)1 << 36; /* of root * 2^32; its cube fits */

    while (high - low > 1) {
        unsigned __int128 middle = (low + high) / 2, power = n == 2 ? middle * middle : middle * middle * middle;
        if (power <= (unsigned __int128)prime << 32 * n)
            low = middle;
        else
            high = middle;
    }
    return (uint32_t)low;
}

static void sha_begin(void)
{
    int count = 0;

    for (unsigned candidate = 2; count < 64; candidate++) {
        unsigned divisor = 2;
        while (candidate % divisor)
            divisor++;
        if (divisor != candidate)
            continue;
        if (count < 8)
            sha_start[count] = root_fraction(candidate, 2);
        sha_constants[count++] = root_fraction(candidate, 3);
    }
    text_begin();
}

static CLEAN void sha_block(uint32_t *hash, const uint8_t *block)
{
    uint32_t w[64], s[8];

    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[i * 4] << 24 | (uint32_t)block[i * 4 + 1] << 16 | (uint32_t)block[i * 4 + 2] << 8 |
               block[i * 4 + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] =
            w[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + w[i - 7] + (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
    }
    memcpy(s, hash, sizeof(s));
    for (int i = 0; i < 64; i++) {
        uint32_t t1 = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) +
                      ((s[4] & s[5]) ^ (~s[4] & s[6])) + sha_constants[i] + w[i];
        uint32_t t2 =
            (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        s[7] = s[6];
        s[6] = s[5];
        s[5] = s[4];
        s[4] = s[3] + t1;
        s[3] = s[2];
        s[2] = s[1];
        s[1] = s[0];
        s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        hash[i] += s[i];
}

static uint64_t sha_round(void)
{
    static const uint8_t padding[64] = { 0x80, [61] = sizeof(text) * 8 >> 16, [62] = (uint8_t)(sizeof(text) * 8 >> 8) };
    uint32_t hash[8];

    memcpy(hash, sha_start, sizeof(hash));
    for (size_t at = 0; at < sizeof(text); at += 64)
        sha_block(hash, text + at);
    sha_block(hash, padding);
    return (uint64_t)hash[0] << 32 | hash[7];
}

/* --- a hash table of 64 Ki slots, 1 MiB: insert, look up, delete ------------------------------------------------------ */

enum { SLOTS = 1 << 16, KEYS = 20000 };
static struct slot {
    uint64_t key, value;
} slots[SLOTS];

static CLEAN struct slot *slot_of(uint64_t key)
{
    size_t at = (key * UINT64_C(0x9e3779b97f4a7c15)) >> 48;

    while (slots[at].key != 0 && slots[at].key != key)
        at = (at + 1) % SLOTS;
    return &slots[at];
}

static uint64_t hash_round(void)
{
    uint64_t state = 31, sum = 0;

    memset(slots, 0, sizeof(slots));
    for (int i = 0; i < KEYS; i++) {
        uint64_t key = bench_random(&state) % (2 * KEYS) + 1;
        struct slot *slot = slot_of(key);
        slot->key = key;
        slot->value += key + (uint64_t)i;
    }
    for (uint64_t key = 1; key <= 2 * KEYS; key += 3)
        sum = bench_mix(sum, slot_of(key)->value);
    return sum;
}

/* --- the C library's strings, and its sort ----------------------------------------------------------------------------- */

enum { WORDS = 600, WORD_MAX = 24 };
static char words[WORDS][WORD_MAX];
static char joined[WORDS * WORD_MAX];
static const char *sorted[WORDS];

static void string_begin(void)
{
    uint64_t state = 77;

    for (int i = 0; i < WORDS; i++) {
        size_t bytes = 3 + bench_random(&state) % (WORD_MAX - 4);
        for (size_t at = 0; at < bytes; at++)
            words[i][at] = (char)('a' + bench_random(&state) % 6);
        words[i][bytes] = '\0';
    }
}

static CLEAN int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static uint64_t string_round(void)
{
    uint64_t sum = 0;
    char *end = joined;

    for (int i = 0; i < WORDS; i++) {
        size_t bytes = strlen(words[i]);
        memcpy(end, words[i], bytes);
        end += bytes;
        *end++ = ' ';
        sorted[i] = words[i];
    }
    *end = '\0';
    qsort(sorted, WORDS, sizeof(*sorted), by_text);
    for (int i = 0; i < WORDS; i += 50) {
        const char *found = strstr(joined, sorted[i]);
        sum = bench_mix(sum, found ? (uint64_t)(found - joined) : 0);
    }
    for (char *at = strchr(joined, 'c'); at; at = strchr(at + 1, 'c'))
        sum += (uint64_t)(at - joined);
    memmove(joined + 1, joined, (size_t)(end - joined) - 1);
    return bench_mix(sum, (uint64_t)memcmp(joined, joined + 1, 1));
}

/* --- calls and returns ------------------------------------------------------------------------------------------------------ */

static CLEAN uint64_t fib(uint64_t n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static uint64_t fib_round(void)
{
    return fib(20);
}

/* --- a small interpreter: indirect jumps ------------------------------------------------------------------------------------ */

enum op { PUSH, ADD, MUL, XOR, SHIFT, DUP, SWAP, DEC, LOOP, HALT };

static CLEAN uint64_t interpret(const uint8_t *code, uint64_t count)
{
    uint64_t stack[16] = { 1 }, *top = stack, other;
    const uint8_t *at = code;

    for (;;) {
        switch (*at++) {
        case PUSH: *++top = *at++; break;
        case ADD:
            top--;
            top[0] += top[1];
            break;
        case MUL:
            top--;
            top[0] *= top[1] | 1;
            break;
        case XOR:
            top--;
            top[0] ^= top[1];
            break;
        case SHIFT: top[0] ^= top[0] >> 7; break;
        case DUP:
            top++;
            top[0] = top[-1];
            break;
        case SWAP:
            other = top[0];
            top[0] = top[-1];
            top[-1] = other;
            break;
        case DEC: count--; break;
        case LOOP:
            if (count)
                at = code;
            break;
        default: return *top;
        }
    }
}

static uint64_t bytecode_round(void)
{
    static const uint8_t CODE[] = { PUSH, 3,   ADD,  DUP, SHIFT, MUL, PUSH, 99,   SWAP,
                                    XOR,  DUP, PUSH, 5,   XOR,   ADD, DEC,  LOOP, HALT };
    return interpret(CODE, 2000);
}

/* --- a walk through 8 MiB: misses of the host's caches and of the emulator's translations ------------------------------ */

enum { STOPS = 1 << 17 };
static struct stop {
    uint32_t next, pad[15]; /* a cache line each */
} * stops;

static void chase_begin(void)
{
    uint64_t state = 3;

    stops = malloc(STOPS * sizeof(*stops));
    if (!stops)
        bench_fail("chase: malloc");
    for (uint32_t i = 0; i < STOPS; i++)
        stops[i] = (struct stop){ .next = i };
    for (uint32_t i = STOPS - 1; i > 0; i--) { /* one cycle through all of them (Sattolo) */
        uint32_t j = (uint32_t)(bench_random(&state) % i), other = stops[i].next;
        stops[i].next = stops[j].next;
        stops[j].next = other;
    }
}

static void chase_end(void)
{
    free(stops);
}

static uint64_t chase_round(void)
{
    uint64_t sum = 0;
    uint32_t at = 0;

    for (int i = 0; i < STOPS; i++) {
        sum += (uint64_t)at * (unsigned)(i & 15);
        at = stops[at].next;
    }
    return sum + at;
}

const struct kernel INTEGER_KERNELS[] = {
    { "mix", mix_round, 0xc9c7, 1, state_begin, NULL },
    { "list", list_round, 0x4e53, 1, NULL, NULL },
    { "matrix", matrix_round, 0x34e90c98b56d7fe0, 1, NULL, NULL },
    { "state", state_round, 0x65f575426197a43a, 1, state_begin, NULL },
    { "crc", crc_round, 0x2a54, sizeof(text), text_begin, NULL },
    { "sha256", sha_round, 0x861729a196ba81ca, sizeof(text), sha_begin, NULL },
    { "hash", hash_round, 0x5eb32ecba959ec8d, KEYS, NULL, NULL },
    { "string", string_round, 0x6e9d65355e80bb56, 1, string_begin, NULL },
    { "fib", fib_round, 0x1a6d, 1, NULL, NULL },
    { "bytecode", bytecode_round, 0xa484962e1e43cf89, 2000, NULL, NULL },
    { "chase", chase_round, 0xef9bc7b9f, STOPS, chase_begin, chase_end },
    { 0 },
};
