#include "tests/unit/test.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vcpu/jit/perf.h"

enum { THREADS = 4, EACH = 200, FILE_BYTES_MAX = 1 << 20 };

static const uint8_t code[] = { 0x90, 0x90, 0xc3 };
static char folder[] = "/tmp/godwit-perf-XXXXXX", map_path[64], dump_path[64];
static uint8_t file_data[FILE_BYTES_MAX];
static struct err err;

/* The dump goes to the present folder: one of its own. */
static int setup(void **state)
{
    (void)state;
    snprintf(map_path, sizeof(map_path), "/tmp/perf-%d.map", (int)getpid());
    snprintf(dump_path, sizeof(dump_path), "jit-%d.dump", (int)getpid());
    return mkdtemp(folder) ? chdir(folder) : -1;
}

static int teardown(void **state)
{
    (void)state;
    unlink(map_path);
    unlink(dump_path);
    return chdir("/") < 0 ? -1 : rmdir(folder);
}

static size_t file_read(const char *path)
{
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    size_t bytes = fread(file_data, 1, sizeof(file_data) - 1, file);
    fclose(file);
    file_data[bytes] = 0;
    return bytes;
}

static uint64_t word(size_t at, unsigned bytes)
{
    uint64_t value = 0;
    memcpy(&value, file_data + at, bytes);
    return value;
}

static void nothing_is_written_that_nobody_asked_for(void **state)
{
    (void)state;
    assert_int_equal(perf_start(false, false, &err), 0);
    assert_false(perf_on());
    assert_int_equal(perf_stop(&err), 0);
    assert_int_not_equal(access(map_path, F_OK), 0);
    assert_int_not_equal(access(dump_path, F_OK), 0);
}

static void the_map_has_a_line_for_each_piece_of_code(void **state)
{
    char want[128];
    (void)state;
    assert_int_equal(perf_start(true, false, &err), 0);
    assert_true(perf_on());
    perf_code(code, sizeof(code), 0x80201000, 0xffffffff80001000);
    snprintf(want, sizeof(want), "%llx 3 guest_ffffffff80001000@80201000\n", (unsigned long long)(uintptr_t)code);
    file_read(map_path); /* while it runs, too */
    assert_string_equal((char *)file_data, want);
    assert_int_equal(perf_stop(&err), 0);
    assert_false(perf_on());
}

/* A page of the dump is mapped as code: the only way in which perf hears of it. */
static bool mapped_as_code(void)
{
    char line[512];
    bool found = false;
    FILE *maps = fopen("/proc/self/maps", "re");
    assert_non_null(maps);
    while (fgets(line, sizeof(line), maps))
        found = found || (strstr(line, " r-xp ") && strstr(line, dump_path));
    fclose(maps);
    return found;
}

static void the_dump_is_as_its_format_says(void **state)
{
    static const char name[] = "guest_1000@80201000";
    (void)state;
    assert_int_equal(perf_start(false, true, &err), 0);
    assert_true(mapped_as_code());
    perf_code(code, sizeof(code), 0x80201000, 0x1000);
    assert_int_equal(perf_stop(&err), 0);
    assert_false(mapped_as_code());

    size_t bytes = file_read(dump_path), load = 40, close = load + 56 + sizeof(name) + sizeof(code);
    assert_int_equal(bytes, close + 16);
    assert_int_equal(word(0, 4), 0x4a695444);
    assert_int_equal(word(4, 4), 1);
    assert_int_equal(word(8, 4), 40);
#if defined(__x86_64__)
    assert_int_equal(word(12, 4), 62);
#endif
    assert_int_equal(word(20, 4), getpid());
    assert_int_equal(word(load, 4), 0); /* JIT_CODE_LOAD */
    assert_int_equal(word(load + 4, 4), close - load);
    assert_true(word(load + 8, 8) >= word(24, 8)); /* the clock goes on */
    assert_int_equal(word(load + 16, 4), getpid());
    assert_int_equal(word(load + 24, 8), (uintptr_t)code);
    assert_int_equal(word(load + 32, 8), (uintptr_t)code);
    assert_int_equal(word(load + 40, 8), sizeof(code));
    assert_int_equal(word(load + 48, 8), 1);
    assert_string_equal((char *)file_data + load + 56, name);
    assert_memory_equal(file_data + load + 56 + sizeof(name), code, sizeof(code));
    assert_int_equal(word(close, 4), 3); /* JIT_CODE_CLOSE */
    assert_int_equal(word(close + 4, 4), 16);
}

static void *tell(void *unused)
{
    for (unsigned i = 0; i < EACH; i++)
        perf_code(code, sizeof(code), i, i);
    return unused;
}

static void records_of_several_threads_stay_whole(void **state)
{
    pthread_t thread[THREADS];
    unsigned loads = 0;
    (void)state;
    assert_int_equal(perf_start(true, true, &err), 0);
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, tell, NULL), 0);
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
    assert_int_equal(perf_stop(&err), 0);
    size_t bytes = file_read(dump_path), at = 40;
    for (; at < bytes && word(at, 4) == 0; at += word(at + 4, 4), loads++)
        assert_int_equal(word(at + 48, 8), loads + 1);
    assert_int_equal(at + 16, bytes);
    assert_int_equal(loads, THREADS * EACH);
}

static void a_folder_that_takes_no_dump_is_an_error(void **state)
{
    (void)state;
    err_clear(&err);
    unlink(dump_path);
    assert_int_equal(mkdir(dump_path, 0700), 0);
    assert_true(perf_start(true, true, &err) < 0);
    assert_non_null(strstr(err.text, dump_path));
    assert_false(perf_on());
    assert_int_equal(rmdir(dump_path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_written_that_nobody_asked_for),
        cmocka_unit_test(the_map_has_a_line_for_each_piece_of_code),
        cmocka_unit_test(the_dump_is_as_its_format_says),
        cmocka_unit_test(records_of_several_threads_stay_whole),
        cmocka_unit_test(a_folder_that_takes_no_dump_is_an_error),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
