/* Strings: copies and comparisons of every alignment, words counted and sorted, numbers printed and read back. */
#include <stdlib.h>
#include "suite.h"

static char text[40000];

static void write_text(uint64_t *state)
{
    static const char *const words[] = { "alder", "birch", "cedar", "elm",   "fir",   "hazel",
                                         "larch", "oak",   "pine",  "rowan", "willow" };
    size_t n = 0;

    while (n < sizeof(text) - 32) {
        uint64_t number = next_number(state);

        n += (size_t)snprintf(text + n, 32, "%s%c%u%s", words[number % 11], "-_.+"[number >> 8 & 3],
                              (unsigned)(number >> 16 & 255), number >> 30 & 7 ? " " : "\n");
    }
}

static void moves(uint64_t *sum)
{
    static char buffer[4096];

    memset(buffer, '.', sizeof(buffer));
    for (size_t length = 0; length < 200; length++)
        for (size_t from = 0; from < 9; from++) {
            memcpy(buffer + 1000 + from, text + length * 8 + from, length);
            memmove(buffer + 1003, buffer + 1000 + from, length);
            memmove(buffer + 997 + from, buffer + 1003, length);
            buffer[1500] = 0;
            take(sum, strlen(buffer + 990) + (unsigned char)buffer[1000 + length]);
            take(sum,
                 (uint64_t)(memcmp(buffer + 1000, text + length, length) > 0) << 1 | (strcmp(buffer, text + from) > 0));
        }
    take_text(sum, buffer + 990);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void words(uint64_t *sum)
{
    static char copy[sizeof(text)];
    static char *list[8000];
    size_t n = 0;
    char *rest, *word;

    memcpy(copy, text, sizeof(text));
    for (word = strtok_r(copy, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest))
        list[n++] = word;
    qsort(list, n, sizeof(list[0]), by_text);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || strcmp(list[i], list[i - 1]) != 0)
            take_text(sum, list[i]);
    for (const char *at = text; (at = strstr(at, "oak-1")) != NULL; at++)
        take(sum, (uint64_t)(at - text) + strcspn(at, "\n") + strspn(at, "-oak"));
    take(sum, (uint64_t)(strrchr(text, 'w') - text) + (uint64_t)((char *)memchr(text, '+', sizeof(text)) - text));
}

static void numbers(uint64_t *sum, uint64_t *state)
{
    char line[128];

    for (int i = 0; i < 6000; i++) {
        uint64_t bits = next_number(state);
        double value = (double)(int64_t)bits * (i % 3 ? 1e-9 : 0x1p-40), back;

        snprintf(line, sizeof(line), "%.17g|%a|%e|%.3f|%" PRId64 "|%#" PRIx64 "|%08o|%+d|%s", value, value, value / 7,
                 value * 3, (int64_t)bits >> (i & 63), bits, (unsigned)bits, (int)(bits >> 40), i & 1 ? "odd" : "even");
        take_text(sum, line);
        back = strtod(line, NULL);
        take(sum, back == value);
        take(sum, strtoull(strrchr(line, 'x') - 1, NULL, 16) + (uint64_t)strtol(line, NULL, 10));
    }
}

int main(void)
{
    uint64_t sum = 0, state = 2685821657736338717u;

    write_text(&state);
    moves(&sum);
    words(&sum);
    numbers(&sum, &state);
    return say("text", sum);
}
