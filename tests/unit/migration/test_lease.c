#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "migration/lease.h"

static char folder[64];
static struct machine_config guest;
static const struct message_key ours = { .id = { 1, 2, 3 }, .attempt = 1 }, others = { .id = { 4 }, .attempt = 1 };

static int make_images(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/godwit-test-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    memset(&guest, 0, sizeof(guest));
    for (guest.drives = 0; guest.drives < 2; guest.drives++) {
        struct machine_drive *drive = &guest.drive[guest.drives];
        snprintf(drive->file, sizeof(drive->file), "%s/disk%u", folder, guest.drives);
        close(open(drive->file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    }
    return 0;
}

static int drop_images(void **state)
{
    (void)state;
    char path[LEASE_PATH_MAX];
    for (unsigned i = 0; i < 2; i++) {
        unlink(guest.drive[i].file);
        snprintf(path, sizeof(path), "%s.lease", guest.drive[i].file);
        unlink(path);
    }
    return rmdir(folder);
}

static void each_hand_over_counts_up_beside_every_disk(void **state)
{
    (void)state;
    char path[LEASE_PATH_MAX];
    struct lease lease;
    struct stat about;
    lease_read(&guest, &lease);
    assert_int_equal(lease.epoch, 0);
    assert_int_equal(lease_count_up(&guest, &ours, "offered"), 1);
    assert_int_equal(lease_count_up(&guest, &ours, "runs"), 2);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(lease_path(&guest.drive[i], path), 0);
        assert_int_equal(stat(path, &about), 0);
        assert_int_equal(about.st_mode & 0777, 0600);
    }
    unlink(path); /* the highest counts */
    lease_read(&guest, &lease);
    assert_int_equal(lease.epoch, 2);
    assert_string_equal(lease.word, "runs");
    assert_int_equal(lease_count_up(&guest, NULL, "started"), 3);
    lease_read(&guest, &lease);
    assert_string_equal(lease.word, "started");
    assert_string_equal(lease.migration, "");
}

static void a_start_from_nothing_makes_no_lease(void **state)
{
    (void)state;
    struct lease lease;
    assert_int_equal(lease_count_up(&guest, NULL, "started"), 0);
    lease_read(&guest, &lease);
    assert_int_equal(lease.epoch, 0);
}

static void a_copy_that_is_older_than_the_lease_may_not_run(void **state)
{
    (void)state;
    struct lease held;
    struct err err = { 0 };
    lease_count_up(&guest, &ours, "offered");
    lease_read(&guest, &held);
    assert_int_equal(lease_check(&held, &guest, &err), 0);
    lease_count_up(&guest, &ours, "back");
    assert_int_equal(lease_check(&held, &guest, &err), -ESTALE);
    assert_non_null(strstr(err.text, "epoch 2 (back)"));
}

/* It ran there, and was handed on: what the first one holds is older still. */
static void whoever_counts_up_later_has_gone_on_with_the_disk(void **state)
{
    (void)state;
    uint64_t epoch = lease_count_up(&guest, &ours, "offered");
    assert_false(lease_went_on(&guest, epoch));
    lease_count_up(&guest, &ours, "runs");
    assert_true(lease_went_on(&guest, epoch));
    assert_false(lease_went_on(&guest, epoch + 1));
    assert_false(lease_went_on(&guest, 0));
    lease_count_up(&guest, &others, "offered");
    lease_count_up(&guest, NULL, "started");
    assert_true(lease_went_on(&guest, epoch));
}

static void what_is_no_lease_forbids_nothing(void **state)
{
    (void)state;
    static const char *const texts[] = { "", "lease\nepoch 9\n", "lease\nepoch -\nword runs\nmigration 01\n" };
    struct lease held, lease;
    struct err err = { 0 };
    char path[LEASE_PATH_MAX];
    lease_count_up(&guest, &ours, "offered");
    lease_read(&guest, &held);
    for (unsigned t = 0; t < 3; t++) {
        for (unsigned i = 0; i < 2; i++) {
            lease_path(&guest.drive[i], path);
            FILE *file = fopen(path, "we");
            assert_non_null(file);
            fprintf(file, "%-127s", texts[t]);
            fclose(file);
        }
        lease_read(&guest, &lease);
        assert_int_equal(lease.epoch, 0);
        assert_int_equal(lease_check(&held, &guest, &err), 0);
    }
    guest.drive[0].readonly = guest.drive[1].readonly = true;
    assert_int_equal(lease_path(&guest.drive[0], path), -ENOENT);
    assert_int_equal(lease_count_up(&guest, &ours, "offered"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_hand_over_counts_up_beside_every_disk, make_images, drop_images),
        cmocka_unit_test_setup_teardown(a_start_from_nothing_makes_no_lease, make_images, drop_images),
        cmocka_unit_test_setup_teardown(a_copy_that_is_older_than_the_lease_may_not_run, make_images, drop_images),
        cmocka_unit_test_setup_teardown(whoever_counts_up_later_has_gone_on_with_the_disk, make_images, drop_images),
        cmocka_unit_test_setup_teardown(what_is_no_lease_forbids_nothing, make_images, drop_images),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
