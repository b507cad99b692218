#include <stdio.h>

#include "tests/unit/test.h"
#include "vcpu/decode.h"
#include "vcpu/engine.h"

static void every_instruction_decodes_to_itself(void **state)
{
    (void)state;
    for (unsigned op = 0; op < OP_ENCODED; op++) {
        const struct op_info *info = &decode_ops[op];
        uint32_t free_bits = ~info->mask;

        assert_int_equal(info->match & free_bits, 0);
        /* Operands of all ones, all zeros, and some in between mean the same instruction. */
        for (uint64_t i = 0; i < 64; i++) {
            uint32_t fill = i == 0 ? 0 : i == 1 ? UINT32_MAX : (uint32_t)(i * UINT64_C(0x9e3779b97f4a7c15) >> 32);
            struct insn insn = decode(info->match | (fill & free_bits));

            if (insn.op != op)
                fail_msg("%s decodes as %s", info->mnemonic,
                         insn.op < OP_ENCODED ? decode_ops[insn.op].mnemonic : "nothing");
        }
    }
}

static void no_two_rows_of_the_table_overlap(void **state)
{
    (void)state;
    for (unsigned a = 0; a < OP_ENCODED; a++)
        for (unsigned b = a + 1; b < OP_ENCODED; b++)
            if (!((decode_ops[a].match ^ decode_ops[b].match) & decode_ops[a].mask & decode_ops[b].mask))
                fail_msg("%s and %s", decode_ops[a].mnemonic, decode_ops[b].mnemonic);
}

static void every_instruction_and_pseudo_has_a_handler(void **state)
{
    (void)state;
    for (unsigned op = 0; op < OP_COUNT; op++)
        assert_non_null((void *)(uintptr_t)engine_handlers[op]);
}

static void words_that_are_no_instruction_are_illegal(void **state)
{
    static const uint32_t bad[] = {
        0x00000000,             /* all zeros: compressed */
        0xffffffff,             /* all ones */
        0x0000707f, 0x00007003, /* a load of no size */
        0x00002063,             /* a branch on no condition */
        0x0000702f,             /* an AMO of no size */
        0x40001033,             /* sll with sub's bit */
        0x02000073,
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(decode(bad[i]).op, OP_PSEUDO_illegal);
    assert_int_equal(decode(0).length, 2);
    assert_int_equal(decode(UINT32_MAX).length, 4);
}

static void immediates_are_put_together_and_extended(void **state)
{
    static const struct {
        uint32_t word;
        enum op op;
        int64_t imm;
    } row[] = {
        { 0xfff00513, OP_addi, -1 },                                 /* li a0, -1 */
        { 0x7ff00513, OP_addi, 2047 },   { 0xfea12c23, OP_sw, -8 },  /* sw a0, -8(sp) */
        { 0x00a12423, OP_sw, 8 },        { 0xfe000ee3, OP_beq, -4 }, /* beq x0, x0, . - 4 */
        { 0x7e000fe3, OP_beq, 4094 },    { 0xffdff06f, OP_jal, -4 },      { 0x7ffff06f, OP_jal, 0xffffe },
        { 0xfffff537, OP_lui, -4096 },   { 0x03f51513, OP_slli, 63 },     { 0x43f55513, OP_srai, 63 },
        { 0x41f5551b, OP_sraiw, 31 },    { 0xc0102573, OP_csrrs, 0xc01 }, /* rdtime a0 */
        { 0xfff02573, OP_csrrs, 0xfff },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        struct insn insn = decode(row[i].word);

        assert_int_equal(insn.op, row[i].op);
        assert_int_equal(insn.imm, row[i].imm);
    }
}

/* Pairs from the assembler: a compressed instruction and the long one it stands for. */
static void compressed_instructions_are_their_long_forms(void **state)
{
    static const struct {
        uint16_t c;
        uint32_t word;
    } row[] = {
        { 0x0001, 0x00000013 }, /* nop */
        { 0x1141, 0xff010113 }, /* addi sp, sp, -16 */
        { 0x7139, 0xfc010113 }, /* addi16sp -64 */
        { 0x0808, 0x01010513 }, /* addi4spn a0, 16 */
        { 0x4501, 0x00000513 }, /* li a0, 0 */
        { 0x557d, 0xfff00513 }, /* li a0, -1 */
        { 0x2501, 0x0005051b }, /* sext.w a0, a0 */
        { 0x6785, 0x000017b7 }, /* lui a5, 1 */
        { 0x77fd, 0xfffff7b7 }, /* lui a5, -1 */
        { 0x8082, 0x00008067 }, /* ret */
        { 0x9782, 0x000780e7 }, /* jalr a5 */
        { 0x9002, 0x00100073 }, /* ebreak */
        { 0x852e, 0x00b00533 }, /* mv a0, a1 */
        { 0x952e, 0x00b50533 }, /* add a0, a0, a1 */
        { 0x8d0d, 0x40b50533 }, /* sub a0, a0, a1 */
        { 0x8d2d, 0x00b54533 }, /* xor */
        { 0x8d4d, 0x00b56533 }, /* or */
        { 0x8d6d, 0x00b57533 }, /* and */
        { 0x9d2d, 0x00b5053b }, /* addw */
        { 0x9d0d, 0x40b5053b }, /* subw */
        { 0x8905, 0x00157513 }, /* andi a0, a0, 1 */
        { 0x9101, 0x02055513 }, /* srli a0, a0, 32 */
        { 0x957d, 0x43f55513 }, /* srai a0, a0, 63 */
        { 0x1502, 0x02051513 }, /* slli a0, a0, 32 */
        { 0x4108, 0x00052503 }, /* lw a0, 0(a0) */
        { 0x6508, 0x00853503 }, /* ld a0, 8(a0) */
        { 0xc148, 0x00a52223 }, /* sw a0, 4(a0) */
        { 0xe508, 0x00a53423 }, /* sd a0, 8(a0) */
        { 0x2108, 0x00053507 }, /* fld fa0, 0(a0) */
        { 0xa108, 0x00a53027 }, /* fsd fa0, 0(a0) */
        { 0x60e2, 0x01813083 }, /* ld ra, 24(sp) */
        { 0xec06, 0x00113c23 }, /* sd ra, 24(sp) */
        { 0x4532, 0x00c12503 }, /* lw a0, 12(sp) */
        { 0xc62a, 0x00a12623 }, /* sw a0, 12(sp) */
        { 0xa001, 0x0000006f }, /* j . */
        { 0xbffd, 0xfffff06f }, /* j . - 2 */
        { 0xc101, 0x00050063 }, /* beqz a0, . */
        { 0xfd7d, 0xfe051fe3 }, /* bnez a0, . - 2 */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++)
        if (decode_expand(row[i].c) != row[i].word)
            fail_msg("%04x is %08x, not %08x", row[i].c, decode_expand(row[i].c), row[i].word);
}

static void reserved_compressed_encodings_are_illegal(void **state)
{
    static const uint16_t bad[] = {
        0x0000,
        0x0004 /* addi4spn 0 */,
        0x2001 /* addiw x0 */,
        0x6101 /* addi16sp 0 */,
        0x6081 /* lui 0 */,
        0x4002 /* lwsp x0 */,
        0x6002 /* ldsp x0 */,
        0x8002 /* jr x0 */,
        0x9c41,
        0x9c61,
        0x8000,
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(decode(bad[i]).op, OP_PSEUDO_illegal);
        assert_int_equal(decode(bad[i]).raw, bad[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_instruction_decodes_to_itself),
        cmocka_unit_test(no_two_rows_of_the_table_overlap),
        cmocka_unit_test(every_instruction_and_pseudo_has_a_handler),
        cmocka_unit_test(words_that_are_no_instruction_are_illegal),
        cmocka_unit_test(immediates_are_put_together_and_extended),
        cmocka_unit_test(compressed_instructions_are_their_long_forms),
        cmocka_unit_test(reserved_compressed_encodings_are_illegal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
