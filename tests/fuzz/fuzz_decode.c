/* Instruction words that somebody made up: each means something or nothing, and its text fits. */
#include "tests/fuzz/fuzz.h"
#include "vcpu/decode.h"
#include "vcpu/disasm.h"

static void try_text(uint32_t raw, uint64_t pc, size_t room, unsigned length)
{
    char text[DISASM_BYTES_MAX + 1];
    memset(text, 0x7f, sizeof(text));
    FUZZ_CHECK(disasm(raw, pc, text, room) == length);
    FUZZ_CHECK(text[room] == 0x7f); /* nothing behind it */
    FUZZ_CHECK(room == 0 || memchr(text, 0, room));
}

static void try_word(uint32_t raw, uint64_t pc, size_t room)
{
    struct insn insn = decode(raw);
    bool is_long = insn_is_long((uint16_t)raw);
    FUZZ_CHECK(insn.op < OP_COUNT && insn.length == (is_long ? 4 : 2));
    FUZZ_CHECK(insn.rd < 32 && insn.rs1 < 32 && insn.rs2 < 32 && insn.rs3 < 32);
    if (!is_long) {
        uint32_t equal = decode_expand((uint16_t)raw);
        struct insn other = decode(equal);
        FUZZ_CHECK(equal ? other.op == insn.op && other.imm == insn.imm && other.rd == insn.rd
                         : insn.op == OP_PSEUDO_illegal);
    }
    try_text(raw, pc, DISASM_BYTES_MAX, insn.length);
    try_text(raw, pc, room % (DISASM_BYTES_MAX + 1), insn.length);
    disasm_csr(raw >> 20);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, size };
    while (in.size) {
        uint32_t raw = (uint32_t)take(&in, 4);
        uint64_t pc = take(&in, 8);
        try_word(raw, pc, take(&in, 1));
    }
    return 0;
}
