/* A host whose pages are not of 4 KiB: what it says of its pages is not of ours. */
#include "tests/unit/test.h"

#include <unistd.h>

#include "memory/ram.h"

enum { BLOCK_PAGES = 70 };
static const uint64_t BASE = 0x80000000;

static long page_bytes; /* 0: as the host has them */

/* In place of the C library's, whose own name for it is this: sanitizers ask for more than pages, and before they have begun. */
long __sysconf(int name);

__attribute__((no_sanitize_thread, no_sanitize_address)) long sysconf(int name)
{
    return name == _SC_PAGESIZE && page_bytes ? page_bytes : __sysconf(name);
}

/* What is known to be untouched without a look, after one page was written. */
static uint64_t known_to_be_untouched(void)
{
    struct ram *ram = ram_new();
    uint64_t word = 7;
    assert_non_null(ram);
    assert_int_equal(ram_add(ram, "a", BASE, BLOCK_PAGES * PAGE_BYTES, false, NULL, NULL), 0);
    assert_int_equal(ram_seal_layout(ram, NULL), 0);
    assert_true(ram_write(ram, BASE + 3 * PAGE_BYTES, &word, 8));
    uint64_t untouched = ram_untouched(ram, 0);
    bool told = ram->pagemap >= 0;
    ram_free(ram);
    if (page_bytes == PAGE_BYTES && !told)
        skip();
    return untouched;
}

static void a_host_with_pages_like_ours_is_believed(void **state)
{
    (void)state;
    page_bytes = PAGE_BYTES;
    assert_true(known_to_be_untouched() == ~(UINT64_C(1) << 3));
    page_bytes = 0;
}

static void a_host_with_other_pages_is_not_asked(void **state)
{
    static const long others[] = { 16384, 65536, 8192, -1 };
    (void)state;
    for (unsigned i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        page_bytes = others[i];
        assert_true(known_to_be_untouched() == 0);
    }
    page_bytes = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_host_with_pages_like_ours_is_believed),
        cmocka_unit_test(a_host_with_other_pages_is_not_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
