#include "tests/unit/test.h"

#include <string.h>
#include <xxhash.h>

#include "migration/threads/hash.h"

/* What stands on the wire must not depend on the host's registers: the library's plain function is the other side. */
static void wide_registers_find_what_narrow_ones_find(void **state)
{
    static uint8_t bytes[70000];
    (void)state;

    for (unsigned i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    }
    hash_prepare();
    for (size_t length = 0; length <= sizeof(bytes); length += length < 1100 ? 1 : 997) {
        assert_true(hash_bytes(bytes, length, 0) == XXH3_64bits(bytes, length));
        assert_true(hash_bytes(bytes + 3, length < 3 ? 0 : length - 3, length) ==
                    XXH3_64bits_withSeed(bytes + 3, length < 3 ? 0 : length - 3, length));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wide_registers_find_what_narrow_ones_find),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
