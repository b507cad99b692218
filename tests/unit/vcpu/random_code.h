/* Random programs, in units: a unit is an instruction, or a few that belong together, and can be taken out of a program
 * (nops in its place) without making it run away. The same seed makes the same program.
 *
 * A program is a loop over a body of units, with functions behind it and a pool of constants in its last page:
 *   x2 x3 x4 x8 x9  point into the data area and only move within a unit
 *   x25 x26 x27     count loops: of a function, of the body, the outermost
 * Everything else is free. Which memory the program meets, and who catches its traps, is random_run.h's business. */
#pragma once
#include "tests/unit/vcpu/rig.h"

enum {
    CODE_BYTES = 0x10000,
    POOL_AT = CODE_BYTES - 0x1000,
    POOL_WORDS = 512,
    UNITS_MAX = 2048,
    CODE_FUNCTIONS = 4,
    COUNTER_INNER = 25,
    COUNTER_BODY = 26,
    COUNTER_OUTER = 27,
};

enum unit_kind {
    UNIT_FIXED,    /* the frame: stays */
    UNIT_PLAIN,    /* may go */
    UNIT_VARIABLE, /* one ALU instruction: may go, may be another one in the code's second copy */
};

struct unit {
    uint16_t at, bytes;
    uint8_t kind; /* enum unit_kind */
};

struct random_code {
    uint64_t state;                              /* of the random numbers */
    uint8_t code[CODE_BYTES], other[CODE_BYTES]; /* other: the second copy, of the same shape */
    unsigned bytes;                              /* of code so far */
    struct unit unit[UNITS_MAX];
    unsigned units;
    unsigned start, end;                          /* of the body: first instruction; the ebreak after it */
    unsigned function[CODE_FUNCTIONS], functions; /* where they begin */
    bool calm;                                    /* few traps, no fences: long runs of what is hot */
    bool in_function;                             /* x1 and x5 hold return addresses now */
    unsigned depth;                               /* of branches and loops around what is being made */
};

/* --- random numbers --------------------------------------------------------------------------------------- */

static inline uint64_t any(struct random_code *p) /* splitmix: every seed is good */
{
    uint64_t z = p->state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static inline unsigned below(struct random_code *p, unsigned limit)
{
    return (unsigned)(any(p) >> 33) % limit;
}

static inline bool one_in(struct random_code *p, unsigned n)
{
    return below(p, n) == 0;
}

static const uint64_t edge_integers[] = {
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0x7fffffff,
    0x80000000,
    0xffffffff,
    UINT64_C(1) << 32,
    INT64_MAX,
    UINT64_C(1) << 63,
    UINT64_MAX,
    UINT64_MAX - 1,
    UINT64_C(0xffffffff80000000),
    UINT64_C(0xffffffff7fffffff),
    UINT64_C(0x5555555555555555),
    UINT64_C(0x00ff00ff80017f01),
};
static const uint64_t edge_doubles[] = {
    0,
    UINT64_C(0x8000000000000000),
    UINT64_C(0x3ff0000000000000),
    UINT64_C(0xbff0000000000000),
    UINT64_C(0x7ff0000000000000),
    UINT64_C(0xfff0000000000000),
    UINT64_C(0x7ff8000000000000),
    UINT64_C(0x7ff0000000000001),
    UINT64_C(0xfff8000000001234),
    1,
    UINT64_C(0x000fffffffffffff),
    UINT64_C(0x0010000000000000),
    UINT64_C(0x0010000000000001),
    UINT64_C(0x7fefffffffffffff),
    UINT64_C(0x3ff0000000000001),
    UINT64_C(0x3fefffffffffffff),
    UINT64_C(0x43e0000000000000),
    UINT64_C(0xc3e0000000000000),
    UINT64_C(0x41dfffffffc00000),
    UINT64_C(0x41e0000000000000),
    UINT64_C(0xc1e0000000200000),
    UINT64_C(0x3fe0000000000000),
    UINT64_C(0x4004000000000000),
    UINT64_C(0x3ca0000000000000),
    UINT64_C(0x47efffffe0000000),
    UINT64_C(0x380fffffffffffff),
};
static const uint32_t edge_singles[] = {
    0,          0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001,
    1,          0x007fffff, 0x00800000, 0x00800001, 0x7f7fffff, 0x3f800001, 0x4f000000, 0xcf000000,
    0x5f000000, 0x3f000000, 0x33800000, 0x4effffff, 0x4f7fffff, 0xbf000000, 0x40200000,
};

#define PICK(p, list) ((list)[below(p, sizeof(list) / sizeof((list)[0]))])

static inline uint64_t any_integer(struct random_code *p)
{
    switch (below(p, 4)) {
    case 0: return PICK(p, edge_integers);
    case 1: return PICK(p, edge_integers) + below(p, 3) - 1;
    case 2: return any(p) >> below(p, 64);
    default: return any(p);
    }
}

/* Around the ends of the integer types, and of what a significand holds. */
static inline uint64_t any_limit(struct random_code *p)
{
    static const uint64_t power[] = { 1ull << 24, 1ull << 31, 1ull << 32, 1ull << 53, 1ull << 63 };
    double d = (double)PICK(p, power) + ((double)below(p, 9) - 4) / 2;
    uint64_t bits;

    if (one_in(p, 8))
        d = 0;
    if (one_in(p, 3))
        d = -d;
    if (one_in(p, 4)) {
        float f = (float)d;
        uint32_t word;

        memcpy(&word, &f, 4);
        return UINT64_C(0xffffffff00000000) | (word + below(p, 3) - 1);
    }
    memcpy(&bits, &d, 8);
    return bits;
}

static inline uint64_t any_number(struct random_code *p)
{
    const uint64_t box = UINT64_C(0xffffffff00000000);

    switch (below(p, 8)) {
    case 0:
    case 1: return box | PICK(p, edge_singles);
    case 2: return box | (uint32_t)any(p);
    case 3: return box | (any(p) & 0x807fffff) | (127 - 30 + below(p, 60)) << 23;
    case 4: return any(p); /* a double, or no single at all */
    case 5: return (any(p) & UINT64_C(0x800fffffffffffff)) | (uint64_t)(1023 - 60 + below(p, 120)) << 52;
    case 6: return PICK(p, edge_doubles);
    default: return any_limit(p);
    }
}

/* --- putting instructions down ----------------------------------------------------------------------------- */

static inline void code_put16(struct random_code *p, uint16_t half)
{
    assert_in_range(p->bytes, 0, POOL_AT - 2);
    memcpy(p->code + p->bytes, &half, 2);
    p->bytes += 2;
}

static inline void code_put(struct random_code *p, uint32_t word)
{
    code_put16(p, (uint16_t)word);
    if (insn_is_long((uint16_t)word))
        code_put16(p, (uint16_t)(word >> 16));
}

static inline void code_patch(struct random_code *p, unsigned at, uint32_t word)
{
    memcpy(p->code + at, &word, insn_is_long((uint16_t)word) ? 4 : 2);
}

/* What was put since `from` is a unit. */
static inline void code_unit(struct random_code *p, unsigned from, enum unit_kind kind)
{
    assert_in_range(p->units, 0, UNITS_MAX - 1);
    p->unit[p->units++] = (struct unit){ .at = (uint16_t)from, .bytes = (uint16_t)(p->bytes - from), .kind = kind };
}

static inline uint16_t as_c_j(int distance)
{
    unsigned d = (unsigned)distance;

    return (uint16_t)(0xa001 | (d >> 11 & 1) << 12 | (d >> 4 & 1) << 11 | (d >> 8 & 3) << 9 | (d >> 10 & 1) << 8 |
                      (d >> 6 & 1) << 7 | (d >> 7 & 1) << 6 | (d >> 1 & 7) << 3 | (d >> 5 & 1) << 2);
}

/* rs1: 8..15 */
static inline uint16_t as_c_branch(bool not_zero, unsigned rs1, int distance)
{
    unsigned d = (unsigned)distance;

    return (uint16_t)((not_zero ? 0xe001 : 0xc001) | (d >> 8 & 1) << 12 | (d >> 3 & 3) << 10 | (rs1 - 8) << 7 |
                      (d >> 6 & 3) << 5 | (d >> 1 & 3) << 3 | (d >> 5 & 1) << 2);
}

/* --- registers ---------------------------------------------------------------------------------------------- */

static inline bool is_base(unsigned r)
{
    return r == 2 || r == 3 || r == 4 || r == 8 || r == 9;
}

static inline bool is_free(const struct random_code *p, unsigned r)
{
    return !is_base(r) && !(r >= COUNTER_INNER && r <= COUNTER_OUTER) && !(p->in_function && (r == 1 || r == 5));
}

/* To be written; x0 now and then. */
static inline unsigned any_rd(struct random_code *p)
{
    unsigned r;

    do
        r = below(p, 32);
    while (!is_free(p, r) || (r == 0 && !one_in(p, 2)));
    return r;
}

static inline unsigned any_temp(struct random_code *p)
{
    unsigned r;

    do
        r = 1 + below(p, 31);
    while (!is_free(p, r));
    return r;
}

/* To be read: mostly few registers, so that results meet each other. */
static inline unsigned any_rs(struct random_code *p)
{
    return one_in(p, 3) ? below(p, 32) : 10 + below(p, 8);
}

static inline unsigned any_base(struct random_code *p)
{
    static const uint8_t bases[] = { 2, 3, 4, 8, 9 };

    return PICK(p, bases);
}

static inline int any_imm12(struct random_code *p)
{
    static const int edges[] = { 0, 1, -1, 2047, -2048, 4, 8 };

    return one_in(p, 3) ? PICK(p, edges) : (int)below(p, 4096) - 2048;
}

/* --- single instructions ------------------------------------------------------------------------------------ */

static inline enum op any_op_of(struct random_code *p, enum op_kind kind)
{
    enum op op;

    do
        op = (enum op)below(p, OP_ENCODED);
    while (decode_ops[op].kind != kind);
    return op;
}

/* Any encoded operation between registers with every field that its mask leaves open filled. */
static inline uint32_t fill(struct random_code *p, enum op op, unsigned rd, unsigned rs1, unsigned rs2)
{
    const struct op_info *info = &decode_ops[op];
    uint32_t w = info->match;

    w |= (rd << 7 | rs1 << 15 | rs2 << 20) & ~info->mask;
    if (info->format == FMT_R4)
        w |= below(p, 32) << 27;
    return w;
}

static inline uint32_t any_alu(struct random_code *p)
{
    enum op op = any_op_of(p, KIND_ALU);
    unsigned rd = any_rd(p), rs1 = any_rs(p), rs2 = any_rs(p);

    switch (below(p, 8)) { /* operands that are the result's register: where code generators slip */
    case 0: rs1 = rs2 = rd; break;
    case 1: rs1 = rd; break;
    case 2:
    case 3: rs2 = rd; break;
    default: break;
    }
    switch ((enum op_format)decode_ops[op].format) {
    case FMT_I: return as(op, rd, rs1, any_imm12(p));
    case FMT_U: return as(op, rd, 0, (int64_t)(any(p) & 0xfffff000));
    case FMT_SH5: return as(op, rd, rs1, below(p, 32));
    case FMT_SH6: return as(op, rd, rs1, below(p, 64));
    default: return fill(p, op, rd, rs1, rs2);
    }
}

static inline bool fp_has_mode(enum op op)
{
    return op >= OP_fmadd_s && op <= OP_fcvt_d_s && !(decode_ops[op].mask & 0x7000);
}

static inline bool fp_writes_x(enum op op)
{
    switch (op) {
    case OP_feq_s:
    case OP_flt_s:
    case OP_fle_s:
    case OP_feq_d:
    case OP_flt_d:
    case OP_fle_d:
    case OP_fclass_s:
    case OP_fclass_d:
    case OP_fmv_x_w:
    case OP_fmv_x_d:
    case OP_fcvt_w_s:
    case OP_fcvt_wu_s:
    case OP_fcvt_l_s:
    case OP_fcvt_lu_s:
    case OP_fcvt_w_d:
    case OP_fcvt_wu_d:
    case OP_fcvt_l_d:
    case OP_fcvt_lu_d: return true;
    default: return false;
    }
}

static inline uint32_t any_fp(struct random_code *p, unsigned fs1, unsigned fs2)
{
    static const uint8_t modes[] = { 0, 0, 1, 2, 3, 4, 7, 7, 7, 7 };
    enum op op = (enum op)(OP_fmadd_s + below(p, OP_fcvt_d_s - OP_fmadd_s + 1));
    unsigned rd = fp_writes_x(op) ? any_rd(p) : one_in(p, 4) ? (one_in(p, 2) ? fs1 : fs2) : below(p, 32);
    uint32_t w = fill(p, op, rd, fs1, fs2);

    if (fp_has_mode(op))
        w |= (one_in(p, 200) ? 5u + below(p, 2) : PICK(p, modes)) << 12;
    return w;
}

/* A load or store of integer or floating point registers, off a base. */
static inline uint32_t any_access(struct random_code *p, unsigned base)
{
    static const enum op loads[] = { OP_lb, OP_lbu, OP_lh, OP_lhu, OP_lw, OP_lwu, OP_ld, OP_ld, OP_lw };
    static const uint8_t load_bytes[] = { 1, 1, 2, 2, 4, 4, 8, 8, 4 };
    static const enum op stores[] = { OP_sb, OP_sh, OP_sw, OP_sd };
    unsigned bytes, which, log = below(p, 4);
    int imm = any_imm12(p);

    if (one_in(p, 5)) {
        bytes = log & 1 ? 8 : 4;
        imm = one_in(p, 3) ? imm : imm & -(int)bytes;
        if (one_in(p, 2))
            return as(bytes == 8 ? OP_fld : OP_flw, below(p, 32), base, imm);
        return as(bytes == 8 ? OP_fsd : OP_fsw, below(p, 32), base, imm);
    }
    if (one_in(p, 2)) {
        imm = one_in(p, 3) ? imm : imm & -(1 << log);
        return as(stores[log], any_rs(p), base, imm);
    }
    which = below(p, sizeof(load_bytes));
    imm = one_in(p, 3) ? imm : imm & -(int)load_bytes[which];
    return as(loads[which], any_rd(p), base, imm);
}

/* Any compressed instruction that may stand anywhere; 0 when none was found soon. */
static inline uint16_t any_compressed(struct random_code *p)
{
    for (unsigned i = 0; i < 200; i++) {
        uint16_t c = (uint16_t)any(p);
        struct insn insn;

        if (insn_is_long(c))
            continue;
        insn = decode(c);
        if (insn.op >= OP_ENCODED)
            continue;
        bool fp = insn.op == OP_fld || insn.op == OP_fsd;
        switch ((enum op_kind)decode_ops[insn.op].kind) {
        case KIND_ALU:
            if (is_free(p, insn.rd))
                return c;
            break;
        case KIND_LOAD:
            if (is_free(p, insn.rd) && is_base(insn.rs1))
                return c;
            break;
        case KIND_STORE:
            if (is_base(insn.rs1))
                return c;
            break;
        default:
            if (fp && is_base(insn.rs1))
                return c;
        }
    }
    return 0;
}
