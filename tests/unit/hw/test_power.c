#include "tests/unit/hw/fixture.h"

struct asked {
    unsigned times, code;
    enum power_action action;
};

static void note(void *opaque, enum power_action action, unsigned code)
{
    struct asked *asked = opaque;
    asked->times++;
    asked->action = action;
    asked->code = code;
}

static void each_word_asks_for_its_action(void **state)
{
    (void)state;
    static const struct {
        uint64_t offset, value;
        unsigned times;
        enum power_action action;
        unsigned code;
    } rows[] = {
        { 0, 0x5555, 1, POWER_OFF, 0 },       { 0, 0x7777, 1, POWER_RESET, 0 },         { 0, 0x3333, 1, POWER_FAIL, 0 },
        { 0, 0x123333, 1, POWER_FAIL, 0x12 }, { 0, 0xffff3333, 1, POWER_FAIL, 0xffff }, { 0, 0x1234, 0, POWER_OFF, 0 },
        { 4, 0x5555, 0, POWER_OFF, 0 },
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct asked asked = { 0 };
        struct device *power = power_new(note, &asked, NULL);
        dev_write(power, rows[i].offset, rows[i].value, 4);
        assert_int_equal(dev_read(power, 0, 4), 0);
        assert_int_equal(asked.times, rows[i].times);
        if (asked.times) {
            assert_int_equal(asked.action, rows[i].action);
            assert_int_equal(asked.code, rows[i].code);
        }
        assert_null(power->ops->state);
        dev_free(power);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(each_word_asks_for_its_action) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
