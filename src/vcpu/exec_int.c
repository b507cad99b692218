/* Integers: RV64I, M, Zba, Zbb, Zbs, branches, jumps, and the pairs that translation made of them. */
#include "vcpu/engine.h"

#define SX32(value) ((uint64_t)(int64_t)(int32_t)(value))
#define S(value)    ((int64_t)(value))
#define IMM         ((uint64_t)u->imm)
#define ALU(name, ...)                                                                                                 \
    OP(name)                                                                                                           \
    {                                                                                                                  \
        XR(rd) = __VA_ARGS__;                                                                                          \
        NEXT;                                                                                                          \
    }

ALU(add, XR(rs1) + XR(rs2))
ALU(sub, XR(rs1) - XR(rs2))
ALU(sll, XR(rs1) << (XR(rs2) & 63))
ALU(slt, S(XR(rs1)) < S(XR(rs2)))
ALU(sltu, XR(rs1) < XR(rs2))
ALU(xor, XR(rs1) ^ XR(rs2))
ALU(srl, XR(rs1) >> (XR(rs2) & 63))
ALU(sra, (uint64_t)(S(XR(rs1)) >> (XR(rs2) & 63)))
ALU(or, XR(rs1) | XR(rs2))
ALU(and, XR(rs1) & XR(rs2))
ALU(addw, SX32(XR(rs1) + XR(rs2)))
ALU(subw, SX32(XR(rs1) - XR(rs2)))
ALU(sllw, SX32((uint32_t)XR(rs1) << (XR(rs2) & 31)))
ALU(srlw, SX32((uint32_t)XR(rs1) >> (XR(rs2) & 31)))
ALU(sraw, SX32((int32_t)XR(rs1) >> (XR(rs2) & 31)))

ALU(addi, XR(rs1) + IMM)
ALU(slti, S(XR(rs1)) < u->imm)
ALU(sltiu, XR(rs1) < IMM)
ALU(xori, XR(rs1) ^ IMM)
ALU(ori, XR(rs1) | IMM)
ALU(andi, XR(rs1) & IMM)
ALU(slli, XR(rs1) << u->imm)
ALU(srli, XR(rs1) >> u->imm)
ALU(srai, (uint64_t)(S(XR(rs1)) >> u->imm))
ALU(addiw, SX32(XR(rs1) + IMM))
ALU(slliw, SX32((uint32_t)XR(rs1) << u->imm))
ALU(srliw, SX32((uint32_t)XR(rs1) >> u->imm))
ALU(sraiw, SX32((int32_t)XR(rs1) >> u->imm))
ALU(auipc, v->page_va + IMM)
ALU(lui, IMM)

OP(PSEUDO_nop)
{
    NEXT;
}
ALU(PSEUDO_li, IMM)
ALU(PSEUDO_mv, XR(rs1))
ALU(PSEUDO_sext_w, SX32(XR(rs1)))
ALU(PSEUDO_slli_srli, XR(rs1) << u->imm >> u->disp)
ALU(PSEUDO_slli_srai, (uint64_t)(S(XR(rs1) << u->imm) >> u->disp))

OP(PSEUDO_addi_addi)
{
    XR(rd) = XR(rs1) + IMM;
    XR(rs2) = XR(rs3) + (uint64_t)(int64_t)u->disp;
    NEXT;
}

/* --- M: division by zero and overflow have answers, not traps -------------------------------------------- */

static inline uint64_t divide(int64_t a, int64_t b)
{
    if (b == 0)
        return UINT64_MAX;
    return b == -1 ? 0 - (uint64_t)a : (uint64_t)(a / b); /* -1: INT64_MIN would overflow */
}

static inline uint64_t remainder_of(int64_t a, int64_t b)
{
    if (b == 0)
        return (uint64_t)a;
    return b == -1 ? 0 : (uint64_t)(a % b);
}

static inline uint64_t divide32(int32_t a, int32_t b)
{
    if (b == 0)
        return UINT64_MAX;
    return b == -1 ? SX32(0 - (uint32_t)a) : SX32(a / b);
}

static inline uint64_t remainder32(int32_t a, int32_t b)
{
    if (b == 0)
        return SX32(a);
    return b == -1 ? 0 : SX32(a % b);
}

static inline uint64_t divide_u32(uint32_t a, uint32_t b)
{
    return b ? SX32(a / b) : UINT64_MAX;
}

static inline uint64_t remainder_u32(uint32_t a, uint32_t b)
{
    return b ? SX32(a % b) : SX32(a);
}

static inline uint64_t multiply_high_su(int64_t a, uint64_t b)
{
    uint64_t high = (uint64_t)((unsigned __int128)(uint64_t)a * b >> 64);

    return a < 0 ? high - b : high;
}

ALU(mul, XR(rs1) * XR(rs2))
ALU(mulh, (uint64_t)((__int128)S(XR(rs1)) * S(XR(rs2)) >> 64))
ALU(mulhsu, multiply_high_su(S(XR(rs1)), XR(rs2)))
ALU(mulhu, (uint64_t)((unsigned __int128)XR(rs1) * XR(rs2) >> 64))
ALU(div, divide(S(XR(rs1)), S(XR(rs2))))
ALU(divu, XR(rs2) ? XR(rs1) / XR(rs2) : UINT64_MAX)
ALU(rem, remainder_of(S(XR(rs1)), S(XR(rs2))))
ALU(remu, XR(rs2) ? XR(rs1) % XR(rs2) : XR(rs1))
ALU(mulw, SX32(XR(rs1) * XR(rs2)))
ALU(divw, divide32((int32_t)XR(rs1), (int32_t)XR(rs2)))
ALU(divuw, divide_u32((uint32_t)XR(rs1), (uint32_t)XR(rs2)))
ALU(remw, remainder32((int32_t)XR(rs1), (int32_t)XR(rs2)))
ALU(remuw, remainder_u32((uint32_t)XR(rs1), (uint32_t)XR(rs2)))

/* --- bit manipulation ------------------------------------------------------------------------------------ */

static inline uint64_t rotate_left(uint64_t value, unsigned by)
{
    return value << (by & 63) | value >> (-by & 63);
}

static inline uint32_t rotate_left32(uint32_t value, unsigned by)
{
    return value << (by & 31) | value >> (-by & 31);
}

static inline uint64_t or_combine(uint64_t value)
{
    /* Fold each byte's bits into its lowest, then spread them over the byte. */
    value |= value >> 4 & UINT64_C(0x0f0f0f0f0f0f0f0f);
    value |= value >> 2 & UINT64_C(0x3f3f3f3f3f3f3f3f);
    value |= value >> 1 & UINT64_C(0x7f7f7f7f7f7f7f7f);
    return (value & UINT64_C(0x0101010101010101)) * 255;
}

#define BIT(n) (UINT64_C(1) << ((n)&63))

ALU(add_uw, XR(rs2) + (uint32_t)XR(rs1))
ALU(sh1add, XR(rs2) + (XR(rs1) << 1))
ALU(sh2add, XR(rs2) + (XR(rs1) << 2))
ALU(sh3add, XR(rs2) + (XR(rs1) << 3))
ALU(sh1add_uw, XR(rs2) + ((uint64_t)(uint32_t)XR(rs1) << 1))
ALU(sh2add_uw, XR(rs2) + ((uint64_t)(uint32_t)XR(rs1) << 2))
ALU(sh3add_uw, XR(rs2) + ((uint64_t)(uint32_t)XR(rs1) << 3))
ALU(slli_uw, (uint64_t)(uint32_t)XR(rs1) << u->imm)
ALU(andn, XR(rs1) & ~XR(rs2))
ALU(orn, XR(rs1) | ~XR(rs2))
ALU(xnor, ~(XR(rs1) ^ XR(rs2)))
ALU(max, S(XR(rs1)) > S(XR(rs2)) ? XR(rs1) : XR(rs2))
ALU(maxu, XR(rs1) > XR(rs2) ? XR(rs1) : XR(rs2))
ALU(min, S(XR(rs1)) < S(XR(rs2)) ? XR(rs1) : XR(rs2))
ALU(minu, XR(rs1) < XR(rs2) ? XR(rs1) : XR(rs2))
ALU(rol, rotate_left(XR(rs1), XR(rs2) & 63))
ALU(ror, rotate_left(XR(rs1), 64 - (XR(rs2) & 63)))
ALU(rori, rotate_left(XR(rs1), 64 - (unsigned)u->imm))
ALU(rolw, SX32(rotate_left32((uint32_t)XR(rs1), XR(rs2) & 31)))
ALU(rorw, SX32(rotate_left32((uint32_t)XR(rs1), 32 - (XR(rs2) & 31))))
ALU(roriw, SX32(rotate_left32((uint32_t)XR(rs1), 32 - (unsigned)u->imm)))
ALU(clz, XR(rs1) ? (uint64_t)__builtin_clzll(XR(rs1)) : 64)
ALU(ctz, XR(rs1) ? (uint64_t)__builtin_ctzll(XR(rs1)) : 64)
ALU(cpop, (uint64_t)__builtin_popcountll(XR(rs1)))
ALU(clzw, (uint32_t)XR(rs1) ? (uint64_t)__builtin_clz((uint32_t)XR(rs1)) : 32)
ALU(ctzw, (uint32_t)XR(rs1) ? (uint64_t)__builtin_ctz((uint32_t)XR(rs1)) : 32)
ALU(cpopw, (uint64_t)__builtin_popcount((uint32_t)XR(rs1)))
ALU(sext_b, (uint64_t)(int64_t)(int8_t)XR(rs1))
ALU(sext_h, (uint64_t)(int64_t)(int16_t)XR(rs1))
ALU(zext_h, (uint16_t)XR(rs1))
ALU(orc_b, or_combine(XR(rs1)))
ALU(rev8, __builtin_bswap64(XR(rs1)))
ALU(bclr, XR(rs1) & ~BIT(XR(rs2)))
ALU(bext, XR(rs1) >> (XR(rs2) & 63) & 1)
ALU(binv, XR(rs1) ^ BIT(XR(rs2)))
ALU(bset, XR(rs1) | BIT(XR(rs2)))
ALU(bclri, XR(rs1) & ~BIT(u->imm))
ALU(bexti, XR(rs1) >> u->imm & 1)
ALU(binvi, XR(rs1) ^ BIT(u->imm))
ALU(bseti, XR(rs1) | BIT(u->imm))

/* --- branches and jumps ---------------------------------------------------------------------------------- */

#define BRANCH(name, condition)                                                                                        \
    OP(name)                                                                                                           \
    {                                                                                                                  \
        if (condition)                                                                                                 \
            GO_LINK(u->left - 1);                                                                                      \
        NEXT;                                                                                                          \
    }

BRANCH(beq, XR(rs1) == XR(rs2))
BRANCH(bne, XR(rs1) != XR(rs2))
BRANCH(blt, S(XR(rs1)) < S(XR(rs2)))
BRANCH(bge, S(XR(rs1)) >= S(XR(rs2)))
BRANCH(bltu, XR(rs1) < XR(rs2))
BRANCH(bgeu, XR(rs1) >= XR(rs2))
BRANCH(PSEUDO_beqz, XR(rs1) == 0)
BRANCH(PSEUDO_bnez, XR(rs1) != 0)
BRANCH(PSEUDO_bltz, S(XR(rs1)) < 0)
BRANCH(PSEUDO_bgez, S(XR(rs1)) >= 0)

/* The pair's first immediate lies in raw, since imm shares its place with the link. */
#define IMM_FIRST ((uint64_t)(int64_t)(int32_t)u->raw)
#define ADDI_BRANCH(name, condition)                                                                                   \
    OP(name)                                                                                                           \
    {                                                                                                                  \
        XR(rd) = XR(rs1) + IMM_FIRST;                                                                                  \
        if (condition)                                                                                                 \
            GO_LINK(u->left - 1);                                                                                      \
        NEXT;                                                                                                          \
    }

ADDI_BRANCH(PSEUDO_addi_beq, XR(rs2) == XR(rs3))
ADDI_BRANCH(PSEUDO_addi_bne, XR(rs2) != XR(rs3))
ADDI_BRANCH(PSEUDO_addi_blt, S(XR(rs2)) < S(XR(rs3)))
ADDI_BRANCH(PSEUDO_addi_bge, S(XR(rs2)) >= S(XR(rs3)))
ADDI_BRANCH(PSEUDO_addi_bltu, XR(rs2) < XR(rs3))
ADDI_BRANCH(PSEUDO_addi_bgeu, XR(rs2) >= XR(rs3))

OP(PSEUDO_andi_beqz)
{
    XR(rd) = XR(rs1) & IMM_FIRST;
    if (XR(rd) == 0)
        GO_LINK(u->left - 1);
    NEXT;
}

OP(PSEUDO_andi_bnez)
{
    XR(rd) = XR(rs1) & IMM_FIRST;
    if (XR(rd) != 0)
        GO_LINK(u->left - 1);
    NEXT;
}

OP(PSEUDO_j)
{
    GO_LINK(0);
}

OP(PSEUDO_jal_near)
{
    XR(rd) = v->page_va + u->off + u->length;
    GO_LINK(0);
}

OP(PSEUDO_goto_next)
{
    GO_LINK(0);
}

OP(PSEUDO_goto_far)
{
    GO_VIRTUAL(v->page_va + (uint64_t)(int64_t)u->disp, 0);
}

OP(jal)
{
    uint64_t target = v->page_va + (uint64_t)(int64_t)u->disp;

    XR(rd) = v->page_va + u->off + u->length;
    v->hart.x[0] = 0;
    GO_VIRTUAL(target, 0);
}

OP(jalr)
{
    uint64_t target = (XR(rs1) + IMM) & ~UINT64_C(1);

    XR(rd) = v->page_va + u->off + u->length;
    GO_VIRTUAL(target, 0);
}

OP(PSEUDO_jr)
{
    GO_VIRTUAL((XR(rs1) + IMM) & ~UINT64_C(1), 0);
}

OP(PSEUDO_call_far)
{
    uint64_t base = v->page_va + IMM;

    XR(rs1) = base;
    XR(rd) = v->page_va + u->off + u->length;
    v->hart.x[0] = 0;
    GO_VIRTUAL((base + (uint64_t)(int64_t)u->disp) & ~UINT64_C(1), 0);
}
