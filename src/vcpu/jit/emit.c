#include "vcpu/jit/emit.h"

#include <assert.h>
#include <string.h>

enum { INSN_BYTES_MAX = 16 };

static bool has_room(struct emit *e)
{
    if (e->end - e->at < INSN_BYTES_MAX)
        e->full = true;
    return !e->full;
}

void emit_u8(struct emit *e, unsigned byte)
{
    if (e->at == e->end)
        e->full = true;
    if (!e->full)
        *e->at++ = (uint8_t)byte;
}

void emit_u32(struct emit *e, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        emit_u8(e, value >> 8 * i & 0xff);
}

void emit_u64(struct emit *e, uint64_t value)
{
    emit_u32(e, (uint32_t)value);
    emit_u32(e, (uint32_t)(value >> 32));
}

/* --- encoding -------------------------------------------------------------------------------------------- */

static void modrm_memory(struct emit *e, unsigned reg, struct operand m)
{
    /* rbp and r13 as a base always carry a displacement; rsp and r12 always an index byte. */
    unsigned base = (unsigned)m.base & 7;
    bool sib = m.index != HOST_NONE || base == RSP;
    unsigned mod = m.disp == 0 && base != RBP ? 0 : m.disp >= -128 && m.disp <= 127 ? 1 : 2;

    assert(m.index != RSP && m.base != HOST_NONE);
    emit_u8(e, mod << 6 | (reg & 7) << 3 | (sib ? 4 : base));
    if (sib)
        emit_u8(e, (unsigned)m.scale << 6 | (m.index == HOST_NONE ? 4u : (unsigned)m.index & 7) << 3 | base);
    if (mod == 1)
        emit_u8(e, (unsigned)m.disp & 0xff);
    else if (mod == 2)
        emit_u32(e, (uint32_t)m.disp);
}

static void modrm(struct emit *e, unsigned reg, struct operand rm)
{
    if (op_is_reg(rm))
        emit_u8(e, 3u << 6 | (reg & 7) << 3 | ((unsigned)rm.reg & 7));
    else
        modrm_memory(e, reg, rm);
}

static bool high(int reg)
{
    return reg >= R8;
}

static void prefixes(struct emit *e, unsigned opcode, int reg, struct operand rm)
{
    bool byte_rex = ((opcode & X_BYTE_REG) && reg >= RSP) || ((opcode & X_BYTE_RM) && op_is_reg(rm) && rm.reg >= RSP);
    unsigned rex = (opcode & X_W ? 8u : 0) | (high(reg) ? 4u : 0) | (high(rm.index) ? 2u : 0) |
                   (high(op_is_reg(rm) ? rm.reg : rm.base) ? 1u : 0);

    if (opcode & X_LOCK)
        emit_u8(e, 0xf0);
    if (opcode & X_66)
        emit_u8(e, 0x66);
    if (opcode & X_F2)
        emit_u8(e, 0xf2);
    if (opcode & X_F3)
        emit_u8(e, 0xf3);
    if (rex || byte_rex)
        emit_u8(e, 0x40 | rex);
    if (opcode & X_MAP)
        emit_u8(e, 0x0f);
    if ((opcode & X_MAP) == X_0F38)
        emit_u8(e, 0x38);
    if ((opcode & X_MAP) == X_0F3A)
        emit_u8(e, 0x3a);
    emit_u8(e, opcode & 0xff);
}

void emit_op(struct emit *e, unsigned opcode, int reg, struct operand rm)
{
    if (!has_room(e))
        return;
    prefixes(e, opcode, reg, rm);
    modrm(e, (unsigned)reg, rm);
}

void emit_op_imm(struct emit *e, unsigned opcode, int reg, struct operand rm, int32_t imm, unsigned bytes)
{
    if (!has_room(e))
        return;
    prefixes(e, opcode, reg, rm);
    modrm(e, (unsigned)reg, rm);
    if (bytes == 1)
        emit_u8(e, (unsigned)imm & 0xff);
    else
        emit_u32(e, (uint32_t)imm);
}

void emit_vex(struct emit *e, unsigned opcode, int reg, int vvvv, struct operand rm)
{
    unsigned map = (opcode & X_MAP) >> 8;
    unsigned pp = opcode & X_66 ? 1 : opcode & X_F3 ? 2 : opcode & X_F2 ? 3 : 0;

    if (!has_room(e))
        return;
    emit_u8(e, 0xc4);
    emit_u8(e, (high(reg) ? 0 : 0x80u) | (high(rm.index) ? 0 : 0x40u) |
                   (high(op_is_reg(rm) ? rm.reg : rm.base) ? 0 : 0x20u) | map);
    emit_u8(e, (opcode & X_W ? 0x80u : 0) | (~(unsigned)vvvv & 15) << 3 | pp);
    emit_u8(e, opcode & 0xff);
    modrm(e, (unsigned)reg, rm);
}

void emit_rip(struct emit *e, unsigned opcode, int reg, const uint8_t *target)
{
    if (!has_room(e))
        return;
    prefixes(e, opcode, reg, op_mem(RAX, 0));
    emit_u8(e, ((unsigned)reg & 7) << 3 | 5);
    emit_u32(e, (uint32_t)(int32_t)(target - (e->at + 4)));
}

/* --- moves ----------------------------------------------------------------------------------------------- */

void emit_mov(struct emit *e, int dst, struct operand src)
{
    if (src.reg != dst)
        emit_op(e, X_W | 0x8b, dst, src);
}

void emit_mov32(struct emit *e, int dst, struct operand src)
{
    emit_op(e, 0x8b, dst, src);
}

void emit_store(struct emit *e, struct operand dst, int src)
{
    if (dst.reg != src)
        emit_op(e, X_W | 0x89, src, dst);
}

void emit_mov_imm(struct emit *e, int dst, int64_t value)
{
    if (value >= 0 && value <= UINT32_MAX) {
        if (high(dst))
            emit_u8(e, 0x41);
        emit_u8(e, 0xb8 + ((unsigned)dst & 7));
        emit_u32(e, (uint32_t)value);
    } else if (value == (int32_t)value) {
        emit_op_imm(e, X_W | 0xc7, 0, op_reg(dst), (int32_t)value, 4);
    } else {
        emit_u8(e, high(dst) ? 0x49 : 0x48);
        emit_u8(e, 0xb8 + ((unsigned)dst & 7));
        emit_u64(e, (uint64_t)value);
    }
}

void emit_store_imm(struct emit *e, struct operand dst, int32_t value)
{
    emit_op_imm(e, X_W | 0xc7, 0, dst, value, 4);
}

void emit_lea(struct emit *e, int dst, struct operand address)
{
    emit_op(e, X_W | 0x8d, dst, address);
}

void emit_movsxd(struct emit *e, int dst, struct operand src)
{
    emit_op(e, X_W | 0x63, dst, src);
}

void emit_setcc(struct emit *e, enum host_cond cc, int reg)
{
    emit_op(e, X_0F | X_BYTE_RM | (0x90u + cc), 0, op_reg(reg));
}

void emit_cmov(struct emit *e, enum host_cond cc, int dst, struct operand src)
{
    emit_op(e, X_W | X_0F | (0x40u + cc), dst, src);
}

/* --- arithmetic ------------------------------------------------------------------------------------------ */

void emit_alu(struct emit *e, enum alu op, int dst, struct operand src)
{
    emit_op(e, X_W | (0x03u + 8 * op), dst, src);
}

void emit_alu32(struct emit *e, enum alu op, int dst, struct operand src)
{
    emit_op(e, 0x03u + 8 * op, dst, src);
}

void emit_alu_to(struct emit *e, enum alu op, struct operand dst, int src)
{
    emit_op(e, X_W | (0x01u + 8 * op), src, dst);
}

static void alu_imm(struct emit *e, unsigned width, enum alu op, struct operand dst, int32_t imm)
{
    if (imm >= -128 && imm <= 127)
        emit_op_imm(e, width | 0x83, (int)op, dst, imm, 1);
    else
        emit_op_imm(e, width | 0x81, (int)op, dst, imm, 4);
}

void emit_alu_imm(struct emit *e, enum alu op, struct operand dst, int32_t imm)
{
    alu_imm(e, X_W, op, dst, imm);
}

void emit_alu_imm32(struct emit *e, enum alu op, struct operand dst, int32_t imm)
{
    alu_imm(e, 0, op, dst, imm);
}

void emit_test(struct emit *e, int a, int b)
{
    emit_op(e, X_W | 0x85, b, op_reg(a));
}

void emit_shift_imm(struct emit *e, enum shift op, int reg, unsigned by)
{
    emit_op_imm(e, X_W | 0xc1, (int)op, op_reg(reg), (int32_t)by, 1);
}

void emit_shift_imm32(struct emit *e, enum shift op, int reg, unsigned by)
{
    emit_op_imm(e, 0xc1, (int)op, op_reg(reg), (int32_t)by, 1);
}

void emit_shift_cl(struct emit *e, enum shift op, int reg, bool wide)
{
    emit_op(e, (wide ? X_W : 0) | 0xd3u, (int)op, op_reg(reg));
}

void emit_read_tsc(struct emit *e)
{
    static const uint8_t code[] = { 0x0f, 0xae, 0xe8, 0x0f, 0x31 };

    for (unsigned i = 0; i < sizeof(code); i++)
        emit_u8(e, code[i]);
}

void emit_nop(struct emit *e, unsigned bytes)
{
    static const uint8_t nops[9][9] = {
        { 0x90 },
        { 0x66, 0x90 },
        { 0x0f, 0x1f, 0x00 },
        { 0x0f, 0x1f, 0x40, 0x00 },
        { 0x0f, 0x1f, 0x44, 0x00, 0x00 },
        { 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00 },
        { 0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00 },
        { 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00 },
        { 0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00 },
    };

    assert(bytes >= 1 && bytes <= 9);
    for (unsigned i = 0; i < bytes; i++)
        emit_u8(e, nops[bytes - 1][i]);
}

/* --- jumps ----------------------------------------------------------------------------------------------- */

static uint8_t *displacement(struct emit *e)
{
    emit_u32(e, 0);
    return e->at - 4;
}

uint8_t *emit_jmp(struct emit *e)
{
    emit_u8(e, 0xe9);
    return displacement(e);
}

uint8_t *emit_jcc(struct emit *e, enum host_cond cc)
{
    emit_u8(e, 0x0f);
    emit_u8(e, 0x80u + cc);
    return displacement(e);
}

uint8_t *emit_call(struct emit *e)
{
    emit_u8(e, 0xe8);
    return displacement(e);
}

void emit_bind(const struct emit *e, uint8_t *site, const uint8_t *target)
{
    int32_t distance = (int32_t)(target - (site + 4));

    if (!e->full)
        memcpy(site, &distance, 4);
}

void emit_jmp_to(struct emit *e, const uint8_t *target)
{
    emit_bind(e, emit_jmp(e), target);
}

void emit_jcc_to(struct emit *e, enum host_cond cc, const uint8_t *target)
{
    emit_bind(e, emit_jcc(e, cc), target);
}

void emit_call_to(struct emit *e, const uint8_t *target)
{
    emit_bind(e, emit_call(e), target);
}

uint8_t *emit_jcc_short(struct emit *e, enum host_cond cc)
{
    emit_u8(e, 0x70u + cc);
    emit_u8(e, 0);
    return e->at - 1;
}

uint8_t *emit_jmp_short(struct emit *e)
{
    emit_u8(e, 0xeb);
    emit_u8(e, 0);
    return e->at - 1;
}

void emit_bind_short(const struct emit *e, uint8_t *site)
{
    if (e->full)
        return;
    assert(e->at - (site + 1) <= 127);
    *site = (uint8_t)(e->at - (site + 1));
}
