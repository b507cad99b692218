#include "vcpu/trace.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/lock.h"
#include "vcpu/decode.h"
#include "vcpu/disasm.h"
#include "vcpu/trace_host.h"

unsigned trace_flags;

static struct {
    /* fixed between start and stop */
    FILE *out;
    const char *path; /* NULL: stderr, which is not ours to close */
    struct lock lock;
} trace;

/* --- the list -------------------------------------------------------------------------------------------- */

static const struct {
    const char *word, *help;
    unsigned flag;
} words[] = {
    { "in_asm", "guest code of each block, when it is decoded", TRACE_IN_ASM },
    { "out_asm", "host code of each translated block", TRACE_OUT_ASM },
    { "int", "traps and interrupts, when they are taken", TRACE_INT },
};
enum { WORDS = sizeof(words) / sizeof(words[0]) };

static int add_word(const char *word, size_t length, unsigned *flags, struct err *err)
{
    for (unsigned i = 0; i < WORDS; i++) {
        if (strlen(words[i].word) != length || memcmp(words[i].word, word, length) != 0)
            continue;
        *flags |= words[i].flag;
        return 0;
    }
    return err_set(err, -EINVAL, "'%.*s' cannot be traced; '-d help' lists what can", (int)length, word);
}

int trace_parse(const char *list, unsigned *flags, struct err *err)
{
    *flags = 0;
    for (const char *at = list;; at++) {
        size_t length = strcspn(at, ",");
        int result = add_word(at, length, flags, err);
        if (result < 0)
            return result;
        at += length;
        if (!*at)
            return 0;
    }
}

void trace_help(FILE *out)
{
    fprintf(out, "-d takes a list of these, with commas between:\n");
    for (unsigned i = 0; i < WORDS; i++)
        fprintf(out, "  %-10s %s\n", words[i].word, words[i].help);
}

/* --- beginning and end ----------------------------------------------------------------------------------- */

int trace_start(unsigned flags, const char *path, struct err *err)
{
    assert(!trace_flags);
    if (!flags)
        return 0;
    trace.path = path[0] ? path : NULL;
    trace.out = trace.path ? fopen(path, "we") : stderr;
    if (!trace.out)
        return err_set_errno(err, -errno, "cannot write %s", path);
    int result = flags & TRACE_OUT_ASM ? trace_host_begin(err) : 0;
    if (result < 0) {
        if (trace.path)
            fclose(trace.out);
        return result;
    }
    lock_init(&trace.lock, LOCK_LEAF);
    trace_flags = flags;
    return 0;
}

int trace_stop(struct err *err)
{
    if (!trace_flags)
        return 0;
    trace_flags = 0;
    bool failed = fflush(trace.out) != 0 || ferror(trace.out);
    int code = failed && errno ? -errno : -EIO;
    if (trace.path && fclose(trace.out) != 0 && !failed) {
        failed = true;
        code = -errno;
    }
    trace_host_end();
    lock_destroy(&trace.lock);
    const char *path = trace.path;
    memset(&trace, 0, sizeof(trace));
    return failed ? err_set_errno(err, code, "not all of the trace could be written to %s", path ? path : "stderr") : 0;
}

/* --- what is said ---------------------------------------------------------------------------------------- */

void trace_block(unsigned hart, uint64_t gpa, const void *source, size_t bytes)
{
    const uint8_t *at = source;
    char text[DISASM_BYTES_MAX];
    lock(&trace.lock);
    fprintf(trace.out, "IN: hart %u, 0x%" PRIx64 ", %zu bytes\n", hart, gpa, bytes);
    for (size_t done = 0; done + 2 <= bytes;) {
        uint16_t half[2] = { 0 };
        memcpy(half, at + done, bytes - done < 4 ? 2 : 4);
        bool is_long = insn_is_long(half[0]);
        uint32_t raw = is_long ? half[0] | (uint32_t)half[1] << 16 : half[0];
        unsigned length = disasm(raw, gpa + done, text, sizeof(text));
        fprintf(trace.out, "  0x%016" PRIx64 ":  %0*" PRIx32 "%*s  %s\n", gpa + done, (int)length * 2, raw,
                8 - (int)length * 2, "", text);
        done += length;
    }
    fputc('\n', trace.out);
    unlock(&trace.lock);
}

void trace_host_code(uint64_t gpa, const void *code, size_t bytes)
{
    lock(&trace.lock);
    fprintf(trace.out, "OUT: of 0x%" PRIx64 ", %zu bytes\n", gpa, bytes);
    trace_host_lines(trace.out, code, bytes, (uint64_t)(uintptr_t)code);
    fputc('\n', trace.out);
    unlock(&trace.lock);
}

/* RISC-V Privileged Architecture, table of mcause values. */
static const char *cause_name(uint64_t cause)
{
    static const char *const exceptions[] = {
        "instruction address misaligned",
        "instruction access fault",
        "illegal instruction",
        "breakpoint",
        "load address misaligned",
        "load access fault",
        "store address misaligned",
        "store access fault",
        "environment call from U",
        "environment call from S",
        NULL,
        "environment call from M",
        "instruction page fault",
        "load page fault",
        NULL,
        "store page fault",
    };
    static const char *const interrupts[] = {
        NULL, "supervisor software interrupt", NULL, "machine software interrupt",
        NULL, "supervisor timer interrupt",    NULL, "machine timer interrupt",
        NULL, "supervisor external interrupt", NULL, "machine external interrupt",
    };
    bool interrupt = cause >> 63;
    const char *const *names = interrupt ? interrupts : exceptions;
    uint64_t number = cause & ~(UINT64_C(1) << 63);
    size_t count = interrupt ? sizeof(interrupts) / sizeof(interrupts[0]) : sizeof(exceptions) / sizeof(exceptions[0]);
    return number < count && names[number] ? names[number] : "reserved";
}

void trace_trap(unsigned hart, uint64_t cause, uint64_t pc, uint64_t tval, unsigned from, unsigned to)
{
    static const char privileges[] = "US?M";
    lock(&trace.lock);
    fprintf(trace.out,
            "TRAP: hart %u, cause 0x%016" PRIx64 " (%s), pc 0x%016" PRIx64 ", tval 0x%016" PRIx64 ", %c to %c\n", hart,
            cause, cause_name(cause), pc, tval, privileges[from & 3], privileges[to & 3]);
    unlock(&trace.lock);
}
