/* Command lines that somebody made up: words between NULs. Nothing is opened or made here; what is wrong is one sentence. */
#include "machine/options.h"
#include "tests/fuzz/fuzz.h"

enum { WORDS_MAX = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct options options; /* large */
    struct err err = { 0 };
    char *words[WORDS_MAX + 1] = { "godwit" }, *copy = malloc(size + 1);
    int count = 1;
    memcpy(copy, data, size);
    copy[size] = '\0';
    for (size_t at = 0; at < size && count < WORDS_MAX; at += strlen(copy + at) + 1)
        words[count++] = copy + at;
    bool faults = false;
    for (int i = 1; i < count; i++) /* armed as they are read, and for all inputs that follow */
        faults = faults || strstr(words[i], "fault");
    if (!faults && options_parse(count, words, &options, &err) < 0)
        FUZZ_CHECK(err.text[0]);
    free(copy);
    return 0;
}
