#include "tests/unit/test.h"

#include "machine/tohost.h"

static void a_verdict_is_odd_and_codes_fit_an_exit_status(void **state)
{
    static const struct {
        uint64_t value;
        enum tohost_kind kind;
        unsigned argument;
    } want[] = {
        { 0, TOHOST_NOTHING, 0 },
        { 1, TOHOST_PASSED, 0 },
        { 3, TOHOST_FAILED, 1 },
        { 2 * 255 + 1, TOHOST_FAILED, 255 },
        { 2 * 256 + 1, TOHOST_FAILED, 255 },
        { UINT64_MAX, TOHOST_FAILED, 255 },
        { 2, TOHOST_TAKEN, 0 },
        { UINT64_C(0x80001000), TOHOST_TAKEN, 0 },
        { UINT64_C(0x0101) << 48 | 'x', TOHOST_PRINT, 'x' },
        { UINT64_C(0x0101) << 48 | 'y', TOHOST_PRINT, 'y' },
        { UINT64_C(0x0100) << 48 | 'x', TOHOST_TAKEN, 0 },
    };
    (void)state;
    for (unsigned i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        unsigned argument;
        assert_int_equal(tohost_decode(want[i].value, &argument), want[i].kind);
        assert_int_equal(argument, want[i].argument);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_verdict_is_odd_and_codes_fit_an_exit_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
