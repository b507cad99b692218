#include "tests/unit/test.h"

#include "migration/disks.h"

#define MIB (UINT64_C(1) << 20)
#define S   INT64_C(1000000000)

static void a_unit_weighs_as_much_as_its_dearer_stage(void **state)
{
    (void)state;
    struct disks_cost disk = { 0 }, ram = { 0 };
    assert_true(disks_weight(&disk, &ram) == 1);
    disks_cost_add(&ram, 1000, 1000 * 1000, 1000 * 2000);
    assert_true(disks_weight(&disk, &ram) == 1); /* nothing is known of it */
    disks_cost_add(&disk, 1000, 1000 * 4000, 1000 * 2000);
    assert_true(disks_weight(&disk, &ram) == 4); /* it does not compress */
    disks_cost_add(&disk, 1000, 1000 * 4000, 1000 * 2000 * 15);
    assert_true(disks_weight(&disk, &ram) == 8); /* and is slow to read: half of what was new */
    struct disks_cost cheap = { .wire_bytes = 1, .work_ns = 1 };
    assert_true(disks_weight(&cheap, &ram) >= 1.0 / 16); /* nothing is for nothing */
}

static void few_units_say_nothing_about_what_one_costs(void **state)
{
    (void)state;
    struct disks_cost cost = { .wire_bytes = 100, .work_ns = 100 };
    disks_cost_add(&cost, 3, 300000, 300000);
    assert_true(cost.wire_bytes == 100 && cost.work_ns == 100);
}

static void memory_begins_when_the_disks_take_no_longer_than_it_will(void **state)
{
    (void)state;
    assert_false(disks_ram_is_due(1001, 1, 1000));
    assert_true(disks_ram_is_due(1000, 1, 1000));
    assert_false(disks_ram_is_due(1000, 2, 1000));
    assert_true(disks_ram_is_due(500, 2, 1000));
    assert_true(disks_ram_is_due(0, 1, 0)); /* nothing of either: rounds of both end it */
}

/* The link carries 10 MiB/s, and the guest writes 20: what comes of the quota, round by round. */
static void a_disk_that_outruns_the_link_is_held_until_what_is_left_shrinks(void **state)
{
    (void)state;
    const double link = 10 * (double)MIB, wish = 20 * (double)MIB;
    double left = 64 * (double)MIB;
    uint64_t quota = 0;
    unsigned rounds = 0;
    while (left > (double)MIB && rounds++ < 20) {
        double seconds = left / link, rate = quota && (double)quota < wish ? (double)quota : wish, sent = left;
        left = seconds * rate;
        quota = disks_quota((uint64_t)sent, (int64_t)(seconds * (double)S), (uint64_t)left, quota);
    }
    assert_in_range(rounds, 3, 12);
}

static void a_disk_that_keeps_up_is_left_alone(void **state)
{
    (void)state;
    assert_int_equal(disks_quota(64 * MIB, S, 30 * MIB, 0), 0);
    assert_int_equal(disks_quota(64 * MIB, S, MIB / 2, 0), 0);
    assert_true(disks_quota(64 * MIB, S, 40 * MIB, 0) == 32 * MIB);
    assert_true(disks_quota(64 * MIB, S, 30 * MIB, 7 * MIB) == 7 * MIB); /* it works: no change */
    assert_int_equal(disks_quota(MIB, S, 0, 7 * MIB), 0);                /* nothing is left to hold it for */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_unit_weighs_as_much_as_its_dearer_stage),
        cmocka_unit_test(few_units_say_nothing_about_what_one_costs),
        cmocka_unit_test(memory_begins_when_the_disks_take_no_longer_than_it_will),
        cmocka_unit_test(a_disk_that_outruns_the_link_is_held_until_what_is_left_shrinks),
        cmocka_unit_test(a_disk_that_keeps_up_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
