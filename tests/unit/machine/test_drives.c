#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <uv.h>

#include "block/image_lock.h"
#include "machine/machine.h"
#include "tests/unit/machine/files.h"

enum { MIB = 1 << 20 };

static struct machine_config config;
static struct chardev *serial;
static struct machine *m;
static struct err err;
static int outside; /* another program's end of the image */

static int machine_of(struct machine **out)
{
    struct machine_hosts hosts = { .serial = serial };
    err_clear(&err);
    return machine_new(&config, &hosts, out, &err);
}

static bool locked(void)
{
    return image_lock_elsewhere(outside);
}

static int setup(void **state)
{
    static const uint8_t nothing[MIB];
    (void)state;
    config = (struct machine_config){ .harts = 1, .ram_bytes = 16 * MIB, .serial = 1, .bios = "none", .drives = 1 };
    strcpy(config.drive[0].id, "d");
    file_write(config.drive[0].file, "disk", nothing, sizeof(nothing));
    config.slot[7] = (struct machine_slot){ .model = "virtio-blk-device", .disk = { .drive = "d", .queues = 1 } };
    outside = open(config.drive[0].file, O_RDWR | O_CLOEXEC);
    assert_true(outside >= 0);
    assert_int_equal(chardev_open("serial0", "null", uv_default_loop(), &serial, &err), 0);
    assert_int_equal(machine_of(&m), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    machine_free(m);
    close(outside);
    chardev_free(serial);
    return 0;
}

static void a_machine_has_its_disks_from_the_beginning_to_the_end(void **state)
{
    struct machine *second;
    (void)state;
    assert_true(locked());
    assert_int_equal(machine_of(&second), -EBUSY);
    assert_non_null(strstr(err.text, "disk 'd'"));
    machine_free(m);
    m = NULL;
    assert_false(locked());
    assert_int_equal(machine_of(&m), 0);
}

static void one_that_waits_for_a_guest_takes_its_disks_when_that_runs(void **state)
{
    struct machine *there;
    (void)state;
    config.incoming = true;
    assert_int_equal(machine_of(&there), 0); /* although the image is somebody's */
    assert_int_equal(machine_disks_shared(there, &err), 0);
    assert_int_equal(machine_resume(there, true, &err), -EBUSY);
    assert_int_equal(machine_state(there), RUN_INMIGRATE);
    machine_pause(m, RUN_POSTMIGRATE);
    assert_false(locked());
    err_clear(&err);
    assert_int_equal(machine_disks_shared(there, &err), -EINVAL);
    assert_non_null(strstr(err.text, "disk 'd' is not the source's"));
    err_clear(&err);
    assert_int_equal(machine_resume(there, true, &err), 0);
    assert_true(locked());
    assert_int_equal(machine_resume(m, true, &err), -EBUSY); /* even by force: there it runs */
    assert_int_equal(machine_state(m), RUN_POSTMIGRATE);
    machine_free(there);
}

static void a_guest_that_arrives_paused_has_its_disks_too(void **state)
{
    struct machine *there;
    (void)state;
    machine_pause(m, RUN_POSTMIGRATE);
    config.incoming = true;
    assert_int_equal(machine_of(&there), 0);
    assert_false(locked());
    assert_int_equal(machine_take_disks(there, &err), 0);
    machine_pause(there, RUN_PAUSED);
    assert_true(locked());
    machine_free(there);
}

static void a_guest_that_comes_back_takes_its_disks_back(void **state)
{
    (void)state;
    assert_int_equal(machine_resume(m, false, &err), 0);
    machine_hand_over(m);
    assert_int_equal(machine_flush_disks(m, &err), 0);
    assert_true(locked());
    machine_pause(m, RUN_POSTMIGRATE);
    assert_false(locked());
    machine_hand_back(m);
    assert_true(locked());
    assert_int_equal(machine_state(m), RUN_RUNNING);
}

static void one_whose_disks_are_gone_meanwhile_stays_paused_until_they_are_back(void **state)
{
    (void)state;
    assert_int_equal(machine_resume(m, false, &err), 0);
    machine_hand_over(m);
    machine_pause(m, RUN_POSTMIGRATE);
    assert_int_equal(image_lock_take(outside, true, "disk", NULL), 0);
    machine_hand_back(m);
    assert_int_equal(machine_state(m), RUN_PAUSED);
    assert_int_equal(machine_resume(m, false, &err), -EBUSY);
    assert_non_null(strstr(err.text, "another program is writing it"));
    image_lock_let_go(outside);
    err_clear(&err);
    assert_int_equal(machine_resume(m, false, &err), 0);
    assert_int_equal(machine_state(m), RUN_RUNNING);
    assert_true(locked());
}

static void a_failing_disk_stops_a_guest_that_runs_and_no_other(void **state)
{
    unsigned code;
    (void)state;
    assert_int_equal(machine_resume(m, false, &err), 0);
    machine_request(m, REQUEST_IO_ERROR, 0);
    assert_int_equal(machine_take_request(m, &code), REQUEST_IO_ERROR);
    machine_stop_for_disk(m);
    assert_int_equal(machine_state(m), RUN_IO_ERROR);
    assert_string_equal(run_state_name(RUN_IO_ERROR), "io-error");
    assert_int_equal(machine_resume(m, false, &err), 0);

    machine_hand_over(m);
    machine_request(m, REQUEST_IO_ERROR, 0);
    assert_int_equal(machine_take_request(m, &code), REQUEST_NONE); /* it is tried again where the guest goes on */
    machine_pause(m, RUN_POSTMIGRATE);
    machine_stop_for_disk(m);
    assert_int_equal(machine_state(m), RUN_POSTMIGRATE);
    machine_hand_back(m);
    assert_int_equal(machine_take_request(m, &code), REQUEST_NONE);
    assert_int_equal(machine_state(m), RUN_RUNNING);
}

static void a_device_without_its_drive_is_refused(void **state)
{
    struct machine *other;
    (void)state;
    machine_pause(m, RUN_POSTMIGRATE);
    strcpy(config.slot[7].disk.drive, "e");
    assert_int_equal(machine_of(&other), -ENOENT);
    assert_non_null(strstr(err.text, "there is no drive 'e'"));
    assert_false(locked());
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_machine_has_its_disks_from_the_beginning_to_the_end),
        T(one_that_waits_for_a_guest_takes_its_disks_when_that_runs),
        T(a_guest_that_arrives_paused_has_its_disks_too),
        T(a_guest_that_comes_back_takes_its_disks_back),
        T(one_whose_disks_are_gone_meanwhile_stays_paused_until_they_are_back),
        T(a_failing_disk_stops_a_guest_that_runs_and_no_other),
        T(a_device_without_its_drive_is_refused),
    };
    return cmocka_run_group_tests(tests, files_begin, files_end);
}
