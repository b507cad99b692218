#include "tests/unit/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "machine/options.h"

enum { ARGS_MAX = 64 };

static struct options options;
static struct err err;

/* Splits at blanks: no argument of these tests has one. */
static int parse(const char *line)
{
    static char words[4096];
    char *argv[ARGS_MAX] = { "godwit" };
    int argc = 1;
    snprintf(words, sizeof(words), "%s", line);
    for (char *word = strtok(words, " "); word && argc < ARGS_MAX; word = strtok(NULL, " "))
        argv[argc++] = word;
    err_clear(&err);
    return options_parse(argc, argv, &options, &err);
}

static void assert_parses(const char *line)
{
    if (parse(line) < 0)
        fail_msg("'%s': %s", line, err.text);
}

static void a_drive_alone_brings_its_device(void **state)
{
    (void)state;
    assert_parses("-drive file=/tmp/a,,b.img");
    const struct machine_drive *drive = &options.machine.drive[0];
    const struct machine_slot *slot = &options.machine.slot[7];
    assert_int_equal(options.machine.drives, 1);
    assert_string_equal(drive->id, "virtio0");
    assert_string_equal(drive->file, "/tmp/a,b.img");
    assert_int_equal(drive->cache, BLOCK_WRITEBACK);
    assert_false(drive->readonly || drive->discard || drive->format_said);
    assert_string_equal(slot->model, "virtio-blk-device");
    assert_string_equal(slot->disk.drive, "virtio0");
    assert_int_equal(slot->disk.queues, 1);
    assert_int_equal(slot->disk.on_read_error, BLK_REPORT);
    assert_int_equal(slot->disk.on_write_error, BLK_ENOSPC);
    assert_true(slot->legacy);
}

static void an_image_is_made_of_a_size_and_not_without_one(void **state)
{
    (void)state;
    static const char *const bad[] = { "size=0",   "size=",     "size=1",        "size=10X",
                                       "size=1GG", "size=-512", "size=2000000T", "size=99999999999999999999" };
    assert_parses("-drive file=x,create=on,size=3G");
    assert_true(options.machine.drive[0].create && options.machine.drive[0].size_bytes == UINT64_C(3) << 30);
    assert_parses("-drive file=x,create=on,size=1536");
    assert_int_equal(options.machine.drive[0].size_bytes, 1536);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char line[100];
        snprintf(line, sizeof(line), "-drive file=x,create=on,%s", bad[i]);
        assert_int_equal(parse(line), -EINVAL);
        assert_non_null(strstr(err.text, "size must be"));
    }
    assert_int_equal(parse("-drive file=x,create=on"), -EINVAL);
    assert_int_equal(parse("-drive file=x,size=1G"), -EINVAL);
    assert_non_null(strstr(err.text, "belong together"));
}

static void every_word_of_drive_and_device_counts(void **state)
{
    (void)state;
    assert_parses(
        "-device virtio-blk-device,drive=d,id=dev,serial=12345678901234567890,num-queues=4,rerror=stop "
        "-drive file=x,format=raw,if=none,id=d,cache=none,discard=unmap,readonly=on,werror=ignore,rerror=ignore");
    const struct machine_drive *drive = &options.machine.drive[0];
    const struct machine_slot *slot = &options.machine.slot[7];
    assert_int_equal(drive->cache, BLOCK_DIRECT);
    assert_true(drive->readonly && drive->discard && drive->format_said);
    assert_string_equal(slot->id, "dev");
    assert_string_equal(slot->disk.serial, "12345678901234567890");
    assert_int_equal(slot->disk.queues, 4);
    assert_int_equal(slot->disk.on_read_error, BLK_STOP); /* the device has the last word */
    assert_int_equal(slot->disk.on_write_error, BLK_IGNORE);
}

static void blockdev_says_the_same_in_other_words(void **state)
{
    (void)state;
    assert_parses("-blockdev driver=raw,node-name=a,read-only=on,file.driver=file,file.filename=x,file.cache.direct=on,"
                  "discard=unmap -blockdev driver=host_device,node-name=b,filename=/dev/x,cache.no-flush=on "
                  "-device virtio-blk-device,drive=b -device virtio-blk-device,drive=a");
    const struct machine_drive *drive = options.machine.drive;
    assert_string_equal(drive[0].file, "x");
    assert_int_equal(drive[0].cache, BLOCK_DIRECT);
    assert_true(drive[0].readonly && drive[0].discard && drive[0].format_said);
    assert_string_equal(drive[1].file, "/dev/x");
    assert_int_equal(drive[1].cache, BLOCK_UNSAFE);
    assert_false(drive[1].readonly || drive[1].discard);
    assert_string_equal(options.machine.slot[7].disk.drive, "b");
    assert_string_equal(options.machine.slot[6].disk.drive, "a");
}

static void a_blockdev_may_name_another(void **state)
{
    (void)state;
    assert_parses(
        "-blockdev driver=file,node-name=f,filename=top,cache.direct=on -blockdev driver=raw,node-name=r,filename=z "
        "-blockdev driver=qcow2,node-name=base,file.filename=below "
        "-blockdev driver=qcow2,node-name=d,file=f,backing=base,discard=unmap "
        "-device virtio-blk-device,drive=r -device virtio-blk-device,drive=d");
    const struct machine_drive *drive = options.machine.drive;
    assert_int_equal(options.machine.drives, 2);
    assert_string_equal(drive[0].id, "r");
    assert_string_equal(drive[1].id, "d");
    assert_string_equal(drive[1].file, "top");
    assert_int_equal(drive[1].format, BLOCK_FORMAT_QCOW2);
    assert_int_equal(drive[1].cache, BLOCK_DIRECT);
    assert_true(drive[1].discard && drive[1].backing_said);
    assert_string_equal(drive[1].backing, "below");
    assert_int_equal(drive[1].backing_format, BLOCK_FORMAT_QCOW2);
}

static void a_blockdev_may_be_json(void **state)
{
    (void)state;
    assert_parses("-blockdev {\"driver\":\"qcow2\",\"node-name\":\"d\",\"read-only\":true,\"backing\":null,"
                  "\"file\":{\"driver\":\"file\",\"filename\":\"a,b\"}} -device virtio-blk-device,drive=d");
    const struct machine_drive *drive = options.machine.drive;
    assert_string_equal(drive->file, "a,b");
    assert_int_equal(drive->format, BLOCK_FORMAT_QCOW2);
    assert_true(drive->readonly && drive->backing_said);
    assert_string_equal(drive->backing, "");
}

static void several_disks_and_other_devices_share_the_slots(void **state)
{
    (void)state;
    assert_parses("-drive file=1 -device virtio-rng-device -drive file=2,if=none,id=two "
                  "-device virtio-blk-device,drive=two,bus=virtio-mmio-bus.0 -drive file=3");
    const struct machine_slot *slot = options.machine.slot;
    assert_string_equal(slot[7].model, "virtio-rng-device");
    assert_string_equal(slot[0].disk.drive, "two");
    assert_string_equal(slot[6].disk.drive, "virtio0");
    assert_string_equal(slot[5].disk.drive, "virtio2");
    assert_string_equal(slot[4].model, "");
}

static void what_cannot_be_is_refused_with_its_name(void **state)
{
    static const struct {
        const char *line, *words;
    } rows[] = {
        { "-drive id=a", "-drive: the disk 'a' needs a file" },
        { "-drive file=x,if=none,id=a", "-drive: 'a' has no device" },
        { "-drive file=x,format=vmdk", "format must be one of raw, qcow2, not 'vmdk'" },
        { "-drive file=x,if=scsi", "if must be one of none, virtio, not 'scsi'" },
        { "-drive file=x,cache=writethrough", "cache must be one of writeback, none, unsafe" },
        { "-drive file=x,discard=maybe", "discard must be" },
        { "-drive file=x,readonly=perhaps", "readonly must be on or off" },
        { "-drive file=x,werror=panic", "werror must be one of report, stop, ignore, enospc" },
        { "-drive file=x,rerror=enospc", "rerror must be one of report, stop, ignore" },
        { "-drive file=x,snapshot=on", "no property 'snapshot'" },
        { "-drive file=x,id=a -drive file=y,id=a", "the id 'a' is used twice" },
        { "-device virtio-blk-device", "needs drive=ID" },
        { "-device virtio-blk-device,drive=b", "-device: there is no -drive or -blockdev 'b'" },
        { "-device virtio-blk-device,drive=a,num-queues=5", "5 is not within 1 to 4" },
        { "-device virtio-blk-device,drive=a,serial=123456789012345678901", "longer than 20 bytes" },
        { "-device virtio-blk-device,drive=a,scsi=on", "no property 'scsi'" },
        { "-drive file=x,id=a -device virtio-blk-device,drive=a", "the drive 'a' has a device already" },
        { "-blockdev driver=raw,file.filename=x", "node-name=ID is missing" },
        { "-blockdev driver=nbd,node-name=a", "driver must be one of raw, qcow2, file, host_device" },
        { "-blockdev driver=raw,node-name=a", "the disk 'a' needs a file" },
        { "-blockdev driver=qcow2,node-name=a,file=f", "there is no -blockdev 'f' in front of it" },
        { "-blockdev driver=qcow2,node-name=a,filename=x -blockdev driver=raw,node-name=b,file=a",
          "not a driver=file" },
        { "-blockdev driver=raw,node-name=a,filename=x,backing.filename=y", "only driver=qcow2 has a backing image" },
        { "-blockdev {\"driver\":\"raw\"", "begins like a JSON object" },
        { "-blockdev {\"driver\":\"raw\",\"file\":{\"driver\":\"ssh\"}}", "driver must be one of file, host_device" },
        { "-blockdev driver=raw,node-name=a,filename=x,cache.direct=on,cache.no-flush=on", "together" },
        { "-drive file=1 -drive file=2 -drive file=3 -drive file=4 -drive file=5 -drive file=6 -drive file=7 "
          "-drive file=8 -drive file=9",
          "more than 8 disks" },
        { "-drive file=1 -drive file=2 -drive file=3 -drive file=4 -drive file=5 -drive file=6 -drive file=7 "
          "-drive file=8 -device virtio-rng-device",
          "slots are taken" },
    };
    (void)state;
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(parse(rows[i].line), -EINVAL);
        if (!strstr(err.text, rows[i].words))
            fail_msg("'%s': '%s' lacks '%s'", rows[i].line, err.text, rows[i].words);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_drive_alone_brings_its_device),
        cmocka_unit_test(an_image_is_made_of_a_size_and_not_without_one),
        cmocka_unit_test(every_word_of_drive_and_device_counts),
        cmocka_unit_test(blockdev_says_the_same_in_other_words),
        cmocka_unit_test(a_blockdev_may_name_another),
        cmocka_unit_test(a_blockdev_may_be_json),
        cmocka_unit_test(several_disks_and_other_devices_share_the_slots),
        cmocka_unit_test(what_cannot_be_is_refused_with_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
