#include "vcpu/decode.h"

#include <assert.h>
#include <pthread.h>

const struct op_info decode_ops[OP_ENCODED] = {
#define X(name, mnemonic, format, match, mask, kind) { mnemonic, match, mask, FMT_##format, KIND_##kind },
    OPS(X)
#undef X
};

/* Rows by major opcode (bits 6:2) and funct3 (bits 14:12), so that a look-up walks a handful. A row whose mask leaves
 * these bits open stands in several lists. */
enum { LISTS = 256, LIST_ROWS_MAX = 48 };
static struct {
    uint8_t rows;
    uint8_t row[LIST_ROWS_MAX];
} lists[LISTS];
_Static_assert(OP_ENCODED <= 256, "rows are numbered by a byte");

static void make_lists(void)
{
    const uint32_t key_mask = 0x707f;

    for (unsigned key = 0; key < LISTS; key++) {
        uint32_t bits = (key >> 3) << 2 | 3 | (key & 7) << 12;

        for (unsigned op = 0; op < OP_ENCODED; op++) {
            if ((bits ^ decode_ops[op].match) & decode_ops[op].mask & key_mask)
                continue;
            assert(lists[key].rows < LIST_ROWS_MAX);
            lists[key].row[lists[key].rows++] = (uint8_t)op;
        }
    }
}

static inline uint32_t bits(uint32_t word, unsigned high, unsigned low)
{
    return (word >> low) & ((2u << (high - low)) - 1);
}

static inline int32_t sext(uint32_t value, unsigned width)
{
    return (int32_t)(value << (32 - width)) >> (32 - width);
}

static int64_t immediate(uint32_t w, enum op_format format)
{
    switch (format) {
    case FMT_I: return (int32_t)w >> 20;
    case FMT_S: return sext(bits(w, 31, 25) << 5 | bits(w, 11, 7), 12);
    case FMT_B:
        return sext(bits(w, 31, 31) << 12 | bits(w, 7, 7) << 11 | bits(w, 30, 25) << 5 | bits(w, 11, 8) << 1, 13);
    case FMT_U: return (int32_t)(w & 0xfffff000);
    case FMT_J:
        return sext(bits(w, 31, 31) << 20 | bits(w, 19, 12) << 12 | bits(w, 20, 20) << 11 | bits(w, 30, 21) << 1, 21);
    case FMT_SH5: return bits(w, 24, 20);
    case FMT_SH6: return bits(w, 25, 20);
    case FMT_CSR: return bits(w, 31, 20);
    case FMT_R:
    case FMT_R4:
    case FMT_NONE: break;
    }
    return 0;
}

struct insn decode(uint32_t raw)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct insn insn = { .op = OP_PSEUDO_illegal, .raw = raw, .length = 4 };
    uint32_t w = raw;

    pthread_once(&once, make_lists);
    if (!insn_is_long((uint16_t)raw)) {
        insn.length = 2;
        insn.raw = raw & 0xffff;
        w = decode_expand((uint16_t)raw);
        if (!w)
            return insn;
    }
    unsigned key = bits(w, 6, 2) << 3 | bits(w, 14, 12);
    for (unsigned i = 0; i < lists[key].rows; i++) {
        enum op op = lists[key].row[i];

        if ((w & decode_ops[op].mask) != decode_ops[op].match)
            continue;
        insn.op = op;
        insn.rd = bits(w, 11, 7);
        insn.rs1 = bits(w, 19, 15);
        insn.rs2 = bits(w, 24, 20);
        insn.rs3 = bits(w, 31, 27);
        insn.rm = bits(w, 14, 12);
        insn.imm = immediate(w, decode_ops[op].format);
        break;
    }
    return insn;
}

/* --- compressed: put together as the word it stands for ------------------------------------------------- */

static uint32_t make_i(uint32_t opcode, unsigned funct3, unsigned rd, unsigned rs1, int32_t imm)
{
    return opcode | rd << 7 | funct3 << 12 | rs1 << 15 | (uint32_t)imm << 20;
}

static uint32_t make_s(uint32_t opcode, unsigned funct3, unsigned rs1, unsigned rs2, uint32_t imm)
{
    return opcode | bits(imm, 4, 0) << 7 | funct3 << 12 | rs1 << 15 | rs2 << 20 | bits(imm, 11, 5) << 25;
}

static uint32_t make_r(uint32_t match, unsigned rd, unsigned rs1, unsigned rs2)
{
    return match | rd << 7 | rs1 << 15 | rs2 << 20;
}

static uint32_t make_b(unsigned funct3, unsigned rs1, int32_t imm)
{
    uint32_t u = (uint32_t)imm;

    return 0x63 | bits(u, 11, 11) << 7 | bits(u, 4, 1) << 8 | funct3 << 12 | rs1 << 15 | bits(u, 10, 5) << 25 |
           bits(u, 12, 12) << 31;
}

static uint32_t make_j(unsigned rd, int32_t imm)
{
    uint32_t u = (uint32_t)imm;

    return 0x6f | rd << 7 | bits(u, 19, 12) << 12 | bits(u, 11, 11) << 20 | bits(u, 10, 1) << 21 |
           bits(u, 20, 20) << 31;
}

enum {
    OPCODE_LOAD = 0x03,
    OPCODE_LOAD_FP = 0x07,
    OPCODE_IMM = 0x13,
    OPCODE_IMM_32 = 0x1b,
    OPCODE_STORE = 0x23,
    OPCODE_STORE_FP = 0x27,
    OPCODE_LUI = 0x37,
    OPCODE_JALR = 0x67
};

static uint32_t expand_0(uint16_t c)
{
    unsigned rd = 8 + bits(c, 4, 2), rs1 = 8 + bits(c, 9, 7);
    uint32_t imm_w = bits(c, 12, 10) << 3 | bits(c, 6, 6) << 2 | bits(c, 5, 5) << 6;
    uint32_t imm_d = bits(c, 12, 10) << 3 | bits(c, 6, 5) << 6;
    uint32_t imm_sp = bits(c, 12, 11) << 4 | bits(c, 10, 7) << 6 | bits(c, 6, 6) << 2 | bits(c, 5, 5) << 3;

    switch (bits(c, 15, 13)) {
    case 0: return imm_sp ? make_i(OPCODE_IMM, 0, rd, 2, (int32_t)imm_sp) : 0;
    case 1: return make_i(OPCODE_LOAD_FP, 3, rd, rs1, (int32_t)imm_d);
    case 2: return make_i(OPCODE_LOAD, 2, rd, rs1, (int32_t)imm_w);
    case 3: return make_i(OPCODE_LOAD, 3, rd, rs1, (int32_t)imm_d);
    case 5: return make_s(OPCODE_STORE_FP, 3, rs1, rd, imm_d);
    case 6: return make_s(OPCODE_STORE, 2, rs1, rd, imm_w);
    case 7: return make_s(OPCODE_STORE, 3, rs1, rd, imm_d);
    default: return 0;
    }
}

static uint32_t expand_alu(uint16_t c)
{
    static const uint32_t match[8] = { 0x40000033, 0x00004033, 0x00006033, 0x00007033, /* sub xor or and */
                                       0x4000003b, 0x0000003b, 0,          0 };        /* subw addw */
    unsigned rd = 8 + bits(c, 9, 7), rs2 = 8 + bits(c, 4, 2);
    uint32_t shift = bits(c, 12, 12) << 5 | bits(c, 6, 2);

    switch (bits(c, 11, 10)) {
    case 0: return make_i(OPCODE_IMM, 5, rd, rd, (int32_t)shift);
    case 1: return make_i(OPCODE_IMM, 5, rd, rd, (int32_t)(shift | 0x400));
    case 2: return make_i(OPCODE_IMM, 7, rd, rd, sext(shift, 6));
    default: break;
    }
    uint32_t word = match[bits(c, 12, 12) << 2 | bits(c, 6, 5)];
    return word ? make_r(word, rd, rd, rs2) : 0;
}

static uint32_t expand_1(uint16_t c)
{
    unsigned rd = bits(c, 11, 7);
    int32_t imm = sext(bits(c, 12, 12) << 5 | bits(c, 6, 2), 6);
    int32_t imm_sp = sext(
        bits(c, 12, 12) << 9 | bits(c, 6, 6) << 4 | bits(c, 5, 5) << 6 | bits(c, 4, 3) << 7 | bits(c, 2, 2) << 5, 10);
    int32_t imm_j = sext(bits(c, 12, 12) << 11 | bits(c, 11, 11) << 4 | bits(c, 10, 9) << 8 | bits(c, 8, 8) << 10 |
                             bits(c, 7, 7) << 6 | bits(c, 6, 6) << 7 | bits(c, 5, 3) << 1 | bits(c, 2, 2) << 5,
                         12);
    int32_t imm_b = sext(
        bits(c, 12, 12) << 8 | bits(c, 11, 10) << 3 | bits(c, 6, 5) << 6 | bits(c, 4, 3) << 1 | bits(c, 2, 2) << 5, 9);

    switch (bits(c, 15, 13)) {
    case 0: return make_i(OPCODE_IMM, 0, rd, rd, imm);
    case 1: return rd ? make_i(OPCODE_IMM_32, 0, rd, rd, imm) : 0;
    case 2: return make_i(OPCODE_IMM, 0, rd, 0, imm);
    case 3:
        if (rd == 2)
            return imm_sp ? make_i(OPCODE_IMM, 0, 2, 2, imm_sp) : 0;
        return imm ? OPCODE_LUI | rd << 7 | (uint32_t)imm << 12 : 0;
    case 4: return expand_alu(c);
    case 5: return make_j(0, imm_j);
    case 6: return make_b(0, 8 + bits(c, 9, 7), imm_b);
    default: return make_b(1, 8 + bits(c, 9, 7), imm_b);
    }
}

static uint32_t expand_jump_or_add(uint16_t c)
{
    unsigned rd = bits(c, 11, 7), rs2 = bits(c, 6, 2);

    if (!bits(c, 12, 12)) {
        if (rs2)
            return make_r(0x33, rd, 0, rs2);              /* c.mv */
        return rd ? make_i(OPCODE_JALR, 0, 0, rd, 0) : 0; /* c.jr */
    }
    if (rs2)
        return make_r(0x33, rd, rd, rs2);                                /* c.add */
    return rd ? make_i(OPCODE_JALR, 0, 1, rd, 0) : UINT32_C(0x00100073); /* c.jalr, c.ebreak */
}

static uint32_t expand_2(uint16_t c)
{
    unsigned rd = bits(c, 11, 7), rs2 = bits(c, 6, 2);
    uint32_t load_w = bits(c, 12, 12) << 5 | bits(c, 6, 4) << 2 | bits(c, 3, 2) << 6;
    uint32_t load_d = bits(c, 12, 12) << 5 | bits(c, 6, 5) << 3 | bits(c, 4, 2) << 6;
    uint32_t store_w = bits(c, 12, 9) << 2 | bits(c, 8, 7) << 6;
    uint32_t store_d = bits(c, 12, 10) << 3 | bits(c, 9, 7) << 6;

    switch (bits(c, 15, 13)) {
    case 0: return make_i(OPCODE_IMM, 1, rd, rd, (int32_t)(bits(c, 12, 12) << 5 | bits(c, 6, 2)));
    case 1: return make_i(OPCODE_LOAD_FP, 3, rd, 2, (int32_t)load_d);
    case 2: return rd ? make_i(OPCODE_LOAD, 2, rd, 2, (int32_t)load_w) : 0;
    case 3: return rd ? make_i(OPCODE_LOAD, 3, rd, 2, (int32_t)load_d) : 0;
    case 4: return expand_jump_or_add(c);
    case 5: return make_s(OPCODE_STORE_FP, 3, 2, rs2, store_d);
    case 6: return make_s(OPCODE_STORE, 2, 2, rs2, store_w);
    default: return make_s(OPCODE_STORE, 3, 2, rs2, store_d);
    }
}

uint32_t decode_expand(uint16_t raw)
{
    switch (raw & 3) {
    case 0: return expand_0(raw);
    case 1: return expand_1(raw);
    case 2: return expand_2(raw);
    default: return 0;
    }
}
