#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vcpu/decode.h"
#include "vcpu/disasm.h"

static const char *text_of(uint32_t raw, uint64_t pc)
{
    static char text[DISASM_BYTES_MAX];
    disasm(raw, pc, text, sizeof(text));
    return text;
}

static void instructions_look_as_an_assembler_writes_them(void **state)
{
    static const struct {
        uint32_t raw;
        const char *text;
    } want[] = {
        { 0x00500513, "addi a0,zero,5" },         { 0xff843583, "ld a1,-8(s0)" },
        { 0x00b43c23, "sd a1,24(s0)" },           { 0xfe0518e3, "bne a0,zero,0x7ffffff0" },
        { 0x0000006f, "jal zero,0x80000000" },    { 0x12345537, "lui a0,0x12345" },
        { 0x00008067, "jalr zero,0(ra)" },        { 0x30529073, "csrrw zero,mtvec,t0" },
        { 0x3a08d073, "csrrwi zero,pmpcfg0,17" }, { 0x12000073, "sfence.vma zero,zero" },
        { 0x0ff0000f, "fence iorw,iorw" },        { 0x0e00a52f, "amoswap.w.aqrl a0,zero,(ra)" },
        { 0x100523af, "lr.w t2,(a0)" },           { 0x00c5f553, "fadd.s fa0,fa1,fa2" },
        { 0xc2059553, "fcvt.w.d a0,fa1,rtz" },    { 0x0040a00f, "cbo.zero (ra)" },
        { 0x00008082, "jalr zero,0(ra)" }, /* c.jr */
        { 0x00000000, ".2byte 0x0000" },          { 0xffffffff, ".4byte 0xffffffff" },
    };
    (void)state;
    for (unsigned i = 0; i < sizeof(want) / sizeof(want[0]); i++)
        assert_string_equal(text_of(want[i].raw, 0x80000000), want[i].text);
}

static void a_short_buffer_is_filled_and_ended(void **state)
{
    char whole[DISASM_BYTES_MAX], part[DISASM_BYTES_MAX];
    (void)state;
    disasm(0x100523af, 0, whole, sizeof(whole));
    for (size_t size = 1; size <= strlen(whole) + 1; size++) {
        memset(part, '#', sizeof(part));
        assert_int_equal(disasm(0x100523af, 0, part, size), 4);
        assert_int_equal(strlen(part), size - 1);
        assert_memory_equal(part, whole, size - 1);
        assert_int_equal(part[size], '#');
    }
    disasm(0x100523af, 0, NULL, 0);
}

static uint32_t fill_of(unsigned round)
{
    return round == 0 ? 0 : round == 1 ? UINT32_MAX : (uint32_t)(round * UINT64_C(0x9e3779b97f4a7c15) >> 32);
}

static void every_row_of_the_table_has_a_text_of_its_own(void **state)
{
    (void)state;
    for (unsigned op = 0; op < OP_ENCODED; op++) {
        size_t name = strlen(decode_ops[op].mnemonic);
        for (unsigned round = 0; round < 256; round++) {
            char text[2 * DISASM_BYTES_MAX];
            assert_int_equal(disasm(decode_ops[op].match | (fill_of(round) & ~decode_ops[op].mask), UINT64_MAX - 1,
                                    text, sizeof(text)),
                             4);
            assert_in_range(strlen(text), name, DISASM_BYTES_MAX - 1);
            assert_memory_equal(text, decode_ops[op].mnemonic, name);
            /* operands, but for those that have none */
            if (decode_ops[op].format != FMT_NONE && op != OP_fence_i)
                assert_non_null(strchr(text, ' '));
        }
    }
}

/* --- against binutils ------------------------------------------------------------------------------------ */

/* What the reference writes in its own way: an encoding that it calls reserved, or by a CSR's name that we lack. */
static bool comparable(enum op op, uint32_t word)
{
    unsigned rm = word >> 12 & 7;
    bool has_rm =
        ((decode_ops[op].match & 0x7f) == 0x53 && !(decode_ops[op].mask & 0x7000)) || decode_ops[op].format == FMT_R4;
    if (has_rm && (rm == 5 || rm == 6))
        return false;
    if (op == OP_fence) /* no reserved fields, no empty sets */
        return (word & 0xf00fff80) == 0 && (word >> 20 & 15) && (word >> 24 & 15);
    if (op == OP_fence_i)
        return (word & 0xffff8f80) == 0;
    if (decode_ops[op].format == FMT_CSR)
        return disasm_csr(word >> 20) != NULL;
    return true;
}

/* Exact conversions have no use for a rounding mode: the reference knows them with the mode 0 only, and hides it. */
static bool hides_mode(enum op op)
{
    return op == OP_fcvt_d_s || op == OP_fcvt_d_w || op == OP_fcvt_d_wu;
}

enum { WORDS_MAX = OP_ENCODED * 64, LINE_BYTES = 256 };
static uint32_t words[WORDS_MAX];
static unsigned word_count;

static void make_words(void)
{
    for (unsigned op = 0; op < OP_ENCODED; op++) {
        unsigned taken = 0;
        for (unsigned round = 0; taken < 24 && round < 20000; round++) {
            uint32_t word = decode_ops[op].match | (fill_of(round) & ~decode_ops[op].mask);
            if (op == OP_fence)
                word &= 0x0ff0007f;
            else if (op == OP_fence_i)
                word = decode_ops[op].match;
            else if (hides_mode((enum op)op))
                word &= ~UINT32_C(0x7000);
            if (!comparable((enum op)op, word))
                continue;
            words[word_count++] = word;
            taken++;
        }
        assert_true(taken > 0);
    }
}

static void squeeze(char *text)
{
    char *to = text, *comment = strchr(text, '#'), *symbol = strchr(text, '<');
    if (comment)
        *comment = 0;
    if (symbol)
        *symbol = 0;
    for (const char *from = text; *from; from++)
        if (*from != '\n' &&
            !((*from == ' ' || *from == '\t') && (from[1] == 0 || from[1] == '\n' || strchr(" \t", from[1]))))
            *to++ = *from == '\t' ? ' ' : *from;
    *to = 0;
}

/* Ours as the reference has it: targets without 0x, no rounding mode where it hides it. */
static void ours_of(uint32_t word, uint64_t pc, char text[LINE_BYTES])
{
    struct insn insn = decode(word);
    disasm(word, pc, text, LINE_BYTES);
    char *hex = strstr(text, "0x"), *mode = strstr(text, ",rne");
    if (hex && (insn.op == OP_jal || decode_ops[insn.op].format == FMT_B))
        memmove(hex, hex + 2, strlen(hex + 2) + 1);
    if (mode && hides_mode(insn.op))
        *mode = 0;
}

static void every_row_reads_as_binutils_reads_it(void **state)
{
    char folder[] = "/tmp/godwit-disasm-XXXXXX", command[512], line[LINE_BYTES], ours[LINE_BYTES];
    unsigned compared = 0, wrong = 0;
    (void)state;
    if (system(
            "riscv64-linux-gnu-as --version >/dev/null 2>&1 && riscv64-linux-gnu-objdump --version >/dev/null 2>&1")) {
        print_message("needs riscv64-linux-gnu-as and -objdump\n");
        skip();
    }
    make_words();
    assert_non_null(mkdtemp(folder));
    snprintf(command, sizeof(command), "%s/words.s", folder);
    FILE *source = fopen(command, "we");
    assert_non_null(source);
    for (unsigned i = 0; i < word_count; i++)
        fprintf(source, ".insn 0x%08x\n", words[i]);
    assert_int_equal(fclose(source), 0);
    snprintf(command, sizeof(command),
             "cd %s && riscv64-linux-gnu-as -march=rv64gc_zba_zbb_zbs_zicbom_zicboz_svinval -o words.o words.s && "
             "riscv64-linux-gnu-objdump -d -z -M no-aliases --no-show-raw-insn words.o",
             folder);
    FILE *listing = popen(command, "re");
    assert_non_null(listing);
    while (fgets(line, sizeof(line), listing)) {
        unsigned long long pc;
        int at = 0;
        if (sscanf(line, " %llx: %n", &pc, &at) != 1 || at == 0 || compared >= word_count)
            continue;
        squeeze(line + at);
        ours_of(words[compared], pc, ours);
        assert_int_equal(pc, 4 * compared);
        if (strcmp(line + at, ours) != 0 && wrong++ < 40)
            print_error("0x%08x: '%s', binutils has '%s'\n", words[compared], ours, line + at);
        compared++;
    }
    assert_int_equal(pclose(listing), 0);
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
    assert_int_equal(compared, word_count);
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(instructions_look_as_an_assembler_writes_them),
        cmocka_unit_test(a_short_buffer_is_filled_and_ended),
        cmocka_unit_test(every_row_of_the_table_has_a_text_of_its_own),
        cmocka_unit_test(every_row_reads_as_binutils_reads_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
