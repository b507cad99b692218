#include "tests/unit/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vcpu/trace.h"

static char path[64], text[4096];
static struct err err;

static void trace_begin(unsigned flags)
{
    err_clear(&err);
    strcpy(path, "/tmp/godwit-trace-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(trace_start(flags, path, &err), 0);
}

/* Everything that was said, in `text`. */
static void trace_end(void)
{
    assert_int_equal(trace_stop(&err), 0);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    text[fread(text, 1, sizeof(text) - 1, file)] = 0;
    fclose(file);
    unlink(path);
}

static void a_list_becomes_flags_and_what_is_none_is_named(void **state)
{
    unsigned flags = 77;
    (void)state;
    assert_int_equal(trace_parse("in_asm", &flags, &err), 0);
    assert_int_equal(flags, TRACE_IN_ASM);
    assert_int_equal(trace_parse("int,in_asm", &flags, &err), 0);
    assert_int_equal(flags, TRACE_IN_ASM | TRACE_INT);
    static const char *const bad[] = { "", "in", "in_asm,", ",int", "in_asm,mmu", "in_asm,,int" };
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        err_clear(&err);
        assert_int_equal(trace_parse(bad[i], &flags, &err), -EINVAL);
    }
    err_clear(&err);
    assert_int_equal(trace_parse("in_asm,mmu", &flags, &err), -EINVAL);
    assert_non_null(strstr(err.text, "'mmu'"));
}

static void blocks_are_told_one_instruction_a_line(void **state)
{
    static const uint16_t code[] = { 0x0513, 0x0050, 0x8082, 0xffff }; /* addi; c.jr; half of something long */
    (void)state;
    assert_false(trace_on(TRACE_IN_ASM));
    trace_begin(TRACE_IN_ASM);
    assert_true(trace_on(TRACE_IN_ASM));
    assert_false(trace_on(TRACE_INT));
    trace_block(3, 0x80000000, code, sizeof(code));
    trace_end();
    assert_string_equal(text, "IN: hart 3, 0x80000000, 8 bytes\n"
                              "  0x0000000080000000:  00500513  addi a0,zero,5\n"
                              "  0x0000000080000004:  8082      jalr zero,0(ra)\n"
                              "  0x0000000080000006:  0000ffff  .4byte 0x0000ffff\n\n");
}

static void traps_are_told_with_their_names(void **state)
{
    (void)state;
    trace_begin(TRACE_INT);
    trace_trap(1, 13, 0x1234, 0x5678, 0, 1);
    trace_trap(0, UINT64_C(1) << 63 | 7, 0x10, 0, 1, 3);
    trace_trap(0, 99, 0, 0, 3, 3);
    trace_end();
    assert_non_null(strstr(text, "hart 1, cause 0x000000000000000d (load page fault), pc 0x0000000000001234, tval "
                                 "0x0000000000005678, U to S\n"));
    assert_non_null(strstr(text, "(machine timer interrupt), pc 0x0000000000000010"));
    assert_non_null(strstr(text, "(reserved)"));
}

static void host_code_is_told_to_its_last_byte(void **state)
{
#if defined(GODWIT_CAPSTONE) && defined(__x86_64__)
    static const uint8_t code[] = { 0x48, 0x01, 0xd8, 0xc3, 0x06 }; /* add, ret, and a byte that is no instruction */
    char want[64];
    (void)state;
    trace_begin(TRACE_OUT_ASM);
    trace_host_code(0x80001000, code, sizeof(code));
    trace_end();
    assert_non_null(strstr(text, "OUT: of 0x80001000, 5 bytes\n"));
    snprintf(want, sizeof(want), "  0x%016llx:  addq %%rbx, %%rax\n", (unsigned long long)(uintptr_t)code);
    assert_non_null(strstr(text, want));
    snprintf(want, sizeof(want), "  0x%016llx:  .byte 0x06\n", (unsigned long long)(uintptr_t)code + 4);
    assert_non_null(strstr(text, want));
#else
    unsigned flags;
    (void)state;
    err_clear(&err);
    assert_true(trace_parse("out_asm", &flags, &err) < 0 || flags == TRACE_OUT_ASM);
#endif
}

static void a_file_that_cannot_be_written_is_named(void **state)
{
    (void)state;
    err_clear(&err);
    assert_true(trace_start(TRACE_INT, "/nowhere/at/all", &err) < 0);
    assert_non_null(strstr(err.text, "/nowhere/at/all"));
    assert_false(trace_on(TRACE_INT));
    err_clear(&err);
    if (access("/dev/full", W_OK) != 0)
        return;
    assert_int_equal(trace_start(TRACE_INT, "/dev/full", &err), 0);
    trace_trap(0, 2, 0, 0, 0, 3);
    assert_true(trace_stop(&err) < 0);
    assert_non_null(strstr(err.text, "/dev/full"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_list_becomes_flags_and_what_is_none_is_named),
        cmocka_unit_test(blocks_are_told_one_instruction_a_line),
        cmocka_unit_test(traps_are_told_with_their_names),
        cmocka_unit_test(host_code_is_told_to_its_last_byte),
        cmocka_unit_test(a_file_that_cannot_be_written_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
