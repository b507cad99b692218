#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "machine/options.h"
#include "vcpu/trace.h"

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

static void nothing_given_is_a_machine_with_a_console(void **state)
{
    (void)state;
    assert_parses("");
    assert_int_equal(options.machine.harts, 1);
    assert_int_equal(options.machine.ram_bytes, 128 << 20);
    assert_string_equal(options.machine.bios, "default");
    assert_string_equal(options.serial, "mon:stdio");
    assert_int_equal(options.monitors, 0);
    assert_false(options.machine.incoming);
}

static void traces_are_asked_for_by_name(void **state)
{
    (void)state;
    assert_parses("");
    assert_int_equal(options.trace, 0);
    assert_false(options.perf_map || options.jit_dump || options.trace_help);
    assert_parses("-d in_asm,int -D /tmp/x -perfmap -jitdump");
    assert_int_equal(options.trace, TRACE_IN_ASM | TRACE_INT);
    assert_string_equal(options.trace_path, "/tmp/x");
    assert_true(options.perf_map && options.jit_dump);
    assert_parses("-d help");
    assert_true(options.trace_help);
    assert_true(parse("-d in_asm,everything") < 0);
    assert_non_null(strstr(err.text, "-d: 'everything'"));
}

static void sizes_are_mib_unless_they_say_otherwise(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } rows[] = {
        { "-m 512", 512ULL << 20 },    { "-m 512M", 512ULL << 20 },  { "-m 2G", 2ULL << 30 },
        { "-m 1T", 1ULL << 40 },       { "-m size=1G", 1ULL << 30 }, { "-m 65536K", 64ULL << 20 },
        { "-m 1024m", 1024ULL << 20 },
    };
    (void)state;
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_parses(rows[i].text);
        assert_int_equal(options.machine.ram_bytes, rows[i].bytes);
    }
}

static void a_whole_command_line_for_qemu_is_understood(void **state)
{
    (void)state;
    assert_parses("-M virt,aclint=off -cpu rv64 -accel tcg -smp 4 -m 1G -bios fw.bin -kernel Image -initrd i.gz "
                  "-append console=ttyS0 -display none -nodefaults -no-reboot -no-shutdown -name vm1,debug-threads=on "
                  "-uuid 01234567-89ab-cdef-0123-456789abcdef -pidfile /tmp/p -S "
                  "-chardev socket,id=m0,path=/tmp/m,server=on,wait=off -mon chardev=m0,mode=control "
                  "-serial file:/tmp/s -monitor none -qmp unix:/tmp/q,server=on,wait=off -incoming tcp:0:4444");
    assert_int_equal(options.machine.harts, 4);
    assert_string_equal(options.machine.kernel, "Image");
    assert_string_equal(options.machine.append, "console=ttyS0");
    assert_true(options.machine.no_reboot && options.machine.no_shutdown && options.start_paused);
    assert_string_equal(options.machine.name, "vm1");
    assert_true(options.machine.debug_threads && options.machine.uuid_set);
    assert_int_equal(options.machine.uuid[0], 0x01);
    assert_int_equal(options.machine.uuid[15], 0xef);
    assert_int_equal(options.chardevs, 1);
    assert_string_equal(options.chardev[0].spec, "unix:/tmp/m,server=on,wait=off");
    assert_int_equal(options.monitors, 2);
    assert_string_equal(options.monitor[0].spec, "chardev:m0");
    assert_true(options.monitor[0].qmp && options.monitor[1].qmp);
    assert_string_equal(options.serial, "file:/tmp/s");
    assert_string_equal(options.incoming, "tcp:0:4444");
    assert_true(options.machine.incoming);
}

static void two_dashes_are_as_good_as_one(void **state)
{
    (void)state;
    assert_parses("--smp cpus=2,sockets=1,cores=2,threads=1,maxcpus=2");
    assert_int_equal(options.machine.harts, 2);
}

static void the_first_device_lands_in_the_top_slot(void **state)
{
    (void)state;
    assert_parses("-object rng-random,id=r,filename=/dev/urandom -device virtio-rng-device,rng=r,id=rng0 "
                  "-chardev null,id=c -device virtio-serial-device,id=vs -device virtconsole,chardev=c");
    assert_string_equal(options.machine.slot[7].model, "virtio-rng-device");
    assert_string_equal(options.machine.slot[7].id, "rng0");
    assert_string_equal(options.machine.slot[6].model, "virtio-console");
    assert_string_equal(options.machine.slot[6].chardev, "c");
    assert_string_equal(options.machine.slot[5].model, "");
    assert_true(options.machine.slot[7].legacy); /* as QEMU's default */
}

static void a_bus_names_its_slot(void **state)
{
    (void)state;
    assert_parses("-device virtio-rng-device,bus=virtio-mmio-bus.0 -global virtio-mmio.force-legacy=false");
    assert_string_equal(options.machine.slot[0].model, "virtio-rng-device");
    assert_string_equal(options.machine.slot[7].model, "");
    assert_false(options.machine.slot[0].legacy);
}

static void tunables_keep_the_option_that_set_them(void **state)
{
    (void)state;
    assert_parses("-downtime-limit 50 -max-bandwidth 1.5G -migration-threads 3 -global migration.compression=lz4");
    assert_int_equal(options.tunables, 4);
    assert_string_equal(options.tunable[0].option, "downtime-limit");
    assert_string_equal(options.tunable[0].value, "50");
    assert_string_equal(options.tunable[1].name, "max-bandwidth");
    assert_string_equal(options.tunable[2].name, "threads");
    assert_string_equal(options.tunable[3].name, "compression");
}

static void nographic_shares_the_terminal_only_with_those_not_given(void **state)
{
    (void)state;
    assert_parses("-nographic");
    assert_string_equal(options.serial, "mon:stdio");
    assert_parses("-nographic -monitor unix:/tmp/m");
    assert_string_equal(options.serial, "stdio");
    assert_int_equal(options.monitors, 1);
    assert_parses("-nographic -serial null");
    assert_string_equal(options.serial, "null");
    assert_int_equal(options.monitors, 1);
    assert_string_equal(options.monitor[0].spec, "stdio");
    assert_parses("-nographic -nodefaults");
    assert_string_equal(options.serial, "null");
    assert_int_equal(options.monitors, 0);
    assert_parses("-display none");
    assert_string_equal(options.serial, "null");
}

static void a_debuggers_socket_listens_here_and_nobody_waits(void **state)
{
    (void)state;
    assert_parses("-S");
    assert_string_equal(options.gdb, "");
    assert_parses("-s");
    assert_string_equal(options.gdb, "tcp:127.0.0.1:1234,server=on,wait=off");
    assert_parses("-gdb tcp:0.0.0.0:5");
    assert_string_equal(options.gdb, "tcp:0.0.0.0:5,server=on,wait=off");
    assert_parses("-gdb unix:/tmp/g,server=on");
    assert_string_equal(options.gdb, "unix:/tmp/g,server=on");
    assert_parses("-gdb chardev:g");
    assert_string_equal(options.gdb, "chardev:g");
    assert_parses("-s -gdb none");
    assert_string_equal(options.gdb, "");
}

static void a_double_comma_is_a_comma(void **state)
{
    (void)state;
    assert_parses("-chardev file,id=f,path=/tmp/a,,b -serial chardev:f");
    assert_string_equal(options.chardev[0].spec, "file:/tmp/a,b");
}

/* Each: one sentence, no newline, that starts with the option. */
static void bad_values_give_one_line_that_names_the_option(void **state)
{
    static const struct {
        const char *line, *begins;
    } rows[] = {
        { "-nonsense", "-nonsense:" },
        { "kernel.img", "kernel.img:" },
        { "-m 0", "-m:" },
        { "-m 4M", "-m:" },
        { "-m 2000T", "-m:" },
        { "-m 99999999999999999999", "-m:" },
        { "-m 12X", "-m:" },
        { "-m -5", "-m:" },
        { "-m 512,slots=2", "-m:" },
        { "-m ,", "-m:" },
        { "-m", "-m:" },
        { "-smp 0", "-smp:" },
        { "-smp 65", "-smp:" },
        { "-smp two", "-smp:" },
        { "-smp 2,sockets=2", "-smp:" },
        { "-smp 2,maxcpus=4", "-smp:" },
        { "-M pc", "-M:" },
        { "-machine virt,aia=aplic", "-machine:" },
        { "-M virt,foo=1", "-M:" },
        { "-cpu host", "-cpu:" },
        { "-accel kvm", "-accel:" },
        { "-display gtk", "-display:" },
        { "-uuid 1234", "-uuid:" },
        { "-uuid 01234567-89ab-cdef-0123-456789abcdefff", "-uuid:" },
        { "-name a,b=c", "-name:" },
        { "-device", "-device:" },
        { "-device virtio-blk-device,drive=d", "-device:" },
        { "-device virtconsole,chardev=c", "-device:" },
        { "-device virtio-serial-device", "-device:" },
        { "-device virtio-serial-device -device virtconsole", "-device:" },
        { "-device virtio-rng-device,bus=virtio-mmio-bus.8", "-device:" },
        { "-device virtio-rng-device,bus=virtio-mmio-bus.+1", "-device:" },
        { "-device virtio-rng-device,bus=virtio-mmio-bus.4294967297", "-device:" },
        { "-device virtio-rng-device,bus=virtio-mmio-bus.99999999999999999999", "-device:" },
        { "-device virtio-rng-device,bus=pcie.0", "-device:" },
        { "-device virtio-rng-device,max-bytes=3", "-device:" },
        { "-device virtio-rng-device,bus=virtio-mmio-bus.1 -device virtio-rng-device,bus=virtio-mmio-bus.1",
          "-device:" },
        { "-gdb :1234", "-gdb:" },
        { "-gdb", "-gdb:" },
        { "-gdb file:/tmp/g", "-gdb:" },
        { "-object memory-backend-ram,id=m", "-object:" },
        { "-object rng-random,filename=/etc/passwd", "-object:" },
        { "-global foo=1", "-global:" },
        { "-global virtio-mmio.force-legacy=maybe", "-global:" },
        { "-chardev socket,path=/tmp/x", "-chardev:" },
        { "-chardev socket,id=x", "-chardev:" },
        { "-chardev socket,id=x,host=h", "-chardev:" },
        { "-chardev socket,id=x,path=p,host=h,port=1", "-chardev:" },
        { "-chardev file,id=x", "-chardev:" },
        { "-chardev vc,id=x", "-chardev:" },
        { "-chardev null,id=x,path=p", "-chardev:" },
        { "-chardev null,id=x -chardev null,id=x", "-chardev:" },
        { "-mon mode=control", "-mon:" },
        { "-mon chardev=x,mode=loud", "-mon:" },
        { "-serial null -serial null", "-serial:" },
        { "-initrd i", "-initrd:" },
        { "-append a", "-append:" },
        { "-migrate tcp:h:1 -incoming tcp:h:2", "-migrate:" },
        { "-migrate tcp:h:1 -S", "-migrate:" },
        { "-migrate-on-signal", "-migrate-on-signal:" },
        { "-daemonize -serial stdio", "-daemonize:" },
    };
    (void)state;
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (parse(rows[i].line) >= 0)
            fail_msg("'%s' was accepted", rows[i].line);
        if (strncmp(err.text, rows[i].begins, strlen(rows[i].begins)) != 0 || strchr(err.text, '\n'))
            fail_msg("'%s' says: %s", rows[i].line, err.text);
    }
}

static void more_devices_than_slots_are_refused(void **state)
{
    char line[1024] = "";
    (void)state;
    for (unsigned i = 0; i < MACHINE_SLOTS; i++)
        strcat(line, "-device virtio-rng-device ");
    assert_parses(line);
    strcat(line, "-device virtio-rng-device");
    assert_true(parse(line) < 0);
    assert_non_null(strstr(err.text, "-device: all 8"));
}

static void a_text_that_is_too_long_is_refused(void **state)
{
    char text[MACHINE_TEXT_MAX + 1];
    char *argv[] = { "godwit", "-kernel", text };
    (void)state;
    memset(text, 'a', sizeof(text));
    text[MACHINE_TEXT_MAX] = 0;
    assert_true(options_parse(3, argv, &options, &err) < 0);
    text[MACHINE_TEXT_MAX - 1] = 0;
    err_clear(&err);
    assert_int_equal(options_parse(3, argv, &options, &err), 0);
}

static void help_shows_what_the_table_has(void **state)
{
    char *text;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    (void)state;
    options_help(out);
    fclose(out);
    assert_non_null(strstr(text, "-kernel PATH"));
    assert_non_null(strstr(text, "-incoming URI|defer"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_given_is_a_machine_with_a_console),
        cmocka_unit_test(traces_are_asked_for_by_name),
        cmocka_unit_test(sizes_are_mib_unless_they_say_otherwise),
        cmocka_unit_test(a_whole_command_line_for_qemu_is_understood),
        cmocka_unit_test(two_dashes_are_as_good_as_one),
        cmocka_unit_test(the_first_device_lands_in_the_top_slot),
        cmocka_unit_test(a_bus_names_its_slot),
        cmocka_unit_test(tunables_keep_the_option_that_set_them),
        cmocka_unit_test(nographic_shares_the_terminal_only_with_those_not_given),
        cmocka_unit_test(a_debuggers_socket_listens_here_and_nobody_waits),
        cmocka_unit_test(a_double_comma_is_a_comma),
        cmocka_unit_test(bad_values_give_one_line_that_names_the_option),
        cmocka_unit_test(more_devices_than_slots_are_refused),
        cmocka_unit_test(a_text_that_is_too_long_is_refused),
        cmocka_unit_test(help_shows_what_the_table_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
