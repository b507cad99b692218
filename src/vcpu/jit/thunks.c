/* The shared pieces: the way in from C, the ways out, and calls of C in between.
 *
 * In generated code RSP is a multiple of 16, and these are called, so they put 8 bytes more on the stack before
 * they call C. A C function sees every guest register in struct hart, and may change any; its arguments wait in
 * struct vcpu, since the argument registers hold guest registers. */
#include "vcpu/jit/thunks.h"

#include <assert.h>

#include "vcpu/jit/gen.h"
#include "vcpu/jit/jit_priv.h"

static const uint8_t saved[] = { RBX, RBP, R12, R13, R14, R15 };
enum { SAVED = sizeof(saved) };

static void push_pop(struct emit *e, unsigned byte, int reg)
{
    if (reg >= R8)
        emit_u8(e, 0x41);
    emit_u8(e, byte + ((unsigned)reg & 7));
}

static void spill(struct emit *e)
{
    for (unsigned x = 0; x < 32; x++)
        if (gen_pinned[x] != HOST_NONE)
            emit_store(e, gen_home(x), gen_pinned[x]);
    emit_op(e, X_66 | X_0F | 0xd6, GEN_COUNT, GEN_FIELD(icount)); /* movq */
}

static void reload(struct emit *e)
{
    for (unsigned x = 0; x < 32; x++)
        if (gen_pinned[x] != HOST_NONE)
            emit_mov(e, gen_pinned[x], gen_home(x));
    emit_op(e, X_F3 | X_0F | 0x7e, GEN_COUNT, GEN_FIELD(icount)); /* movq */
    emit_mov(e, GEN_TLB, GEN_FIELD(tlb));
}

static void call_c(struct emit *e, uintptr_t function)
{
    emit_lea(e, RDI, op_mem(GEN_VCPU, -GEN_VCPU_BIAS));
    emit_mov_imm(e, RAX, (int64_t)function);
    emit_op(e, 0xff, 2, op_reg(RAX));
}

void thunks_jump_far(struct emit *e, const struct code *code)
{
    int32_t table = (int32_t)offsetof(struct tlb, jump);

    emit_mov32(e, RCX, op_reg(RAX)); /* tlb_jump_index() * 2 */
    emit_shift_imm32(e, SHIFT_SHR, RCX, TLB_PAGE_SHIFT - 1);
    emit_alu32(e, ALU_XOR, RCX, op_reg(RAX));
    emit_alu_imm32(e, ALU_AND, op_reg(RCX), 2 * (TLB_JUMP_ENTRIES - 1));
    emit_alu(e, ALU_CMP, RAX, op_index(GEN_TLB, RCX, 3, table));
    emit_jcc_to(e, CC_NE, code->thunks.exit_far);
    emit_op(e, 0xff, 4, op_index(GEN_TLB, RCX, 3, table + (int32_t)offsetof(struct tlb_jump, code)));
}

static void make_enter(struct emit *e, struct code_thunks *thunks)
{
    thunks->enter = e->at; /* (RDI vcpu, RSI code, RDX va) */
    for (unsigned i = 0; i < SAVED; i++)
        push_pop(e, 0x50, saved[i]);
    emit_alu_imm(e, ALU_SUB, op_reg(RSP), 8);
    emit_lea(e, GEN_VCPU, op_mem(RDI, GEN_VCPU_BIAS));
    emit_mov(e, RAX, op_reg(RDX));
    emit_mov(e, RCX, op_reg(RSI));
    reload(e);
    emit_op(e, 0xff, 4, op_reg(RCX)); /* jmp */
}

/* Returns where an exit begins that finds everything in struct hart already. */
static uint8_t *make_exits(struct emit *e, struct code_thunks *thunks)
{
    thunks->exit_link = e->at;
    emit_store(e, GEN_FIELD(jit_site), RAX);
    thunks->exit_at = e->at;
    emit_mov(e, RAX, op_reg(RCX));
    emit_alu(e, ALU_ADD, RAX, GEN_FIELD(page_va));
    uint8_t *out = emit_jmp_short(e);
    thunks->exit_far = e->at; /* is it in the other way? (tlb_jump_find) */
    emit_alu_imm32(e, ALU_XOR, op_reg(RCX), 2);
    emit_alu(e, ALU_CMP, RAX, op_index(GEN_TLB, RCX, 3, (int32_t)offsetof(struct tlb, jump)));
    uint8_t *unknown = emit_jcc_short(e, CC_NE);
    emit_op(e, 0xff, 4, op_index(GEN_TLB, RCX, 3, (int32_t)offsetof(struct tlb, jump[0].code)));
    emit_bind_short(e, unknown);
    emit_bind_short(e, out);
    emit_store(e, GEN_FIELD(hart.pc), RAX);
    spill(e);
    uint8_t *tail = e->at;
    emit_alu_imm(e, ALU_ADD, op_reg(RSP), 8);
    for (unsigned i = SAVED; i-- > 0;)
        push_pop(e, 0x58, saved[i]);
    emit_u8(e, 0xc3);
    return tail;
}

/* RAX: odd or 0 as the TLB's code_page was, or even: the link to be made. */
static void make_across(struct emit *e, struct code *code)
{
    code->thunks.across = e->at;
    emit_op_imm(e, 0xf6, 0, op_reg(RAX), 1, 1); /* test al, 1 */
    uint8_t *elsewhere = emit_jcc_short(e, CC_NE);
    emit_test(e, RAX, RAX);
    emit_jcc_to(e, CC_NE, code->thunks.exit_link);
    emit_bind_short(e, elsewhere);
    emit_mov(e, RAX, op_reg(RCX));
    emit_alu(e, ALU_ADD, RAX, GEN_FIELD(page_va));
    thunks_jump_far(e, code);
}

/* Call C, which says whether generated code goes on. */
static void call_and_return(struct emit *e, uintptr_t function, const uint8_t *tail)
{
    spill(e);
    emit_alu_imm(e, ALU_SUB, op_reg(RSP), 8);
    call_c(e, function);
    emit_op(e, 0x84, RAX, op_reg(RAX)); /* test al, al */
    uint8_t *leave = emit_jcc_short(e, CC_E);
    reload(e);
    emit_alu_imm(e, ALU_ADD, op_reg(RSP), 8);
    emit_u8(e, 0xc3);
    emit_bind_short(e, leave);
    emit_alu_imm(e, ALU_ADD, op_reg(RSP), 16);
    emit_jmp_to(e, tail);
}

static void make_calls(struct emit *e, struct code_thunks *thunks, const uint8_t *tail)
{
    thunks->access = e->at;
    emit_store(e, GEN_FIELD(value), RAX);
    emit_store(e, GEN_FIELD(jit_operand), RDX);
    call_and_return(e, (uintptr_t)jit_access, tail);

    thunks->interp = e->at;
    emit_store(e, GEN_FIELD(jit_operand), RDX);
    call_and_return(e, (uintptr_t)jit_interp, tail);

    thunks->fp = e->at;
    emit_store(e, GEN_FIELD(value), RCX);
    emit_store(e, GEN_FIELD(jit_operand), RDX);
    call_and_return(e, (uintptr_t)jit_fp, tail);
}

/* MXCSR: IE 1, DE 2, ZE 4, OE 8, UE 16, PE 32; fflags: NX 1, UF 2, OF 4, DZ 8, NV 16. */
static void make_flags(struct emit *e, struct code *code)
{
    code->flags = e->at;
    for (unsigned i = 0; i < CODE_FLAGS; i++)
        emit_u8(e, (i & 1) << 4 | (i & 4) << 1 | (i & 8) >> 1 | (i & 16) >> 3 | (i & 32) >> 5);
}

void thunks_make(struct code *code)
{
    struct emit e = { .at = code->writable, .end = code->writable + CODE_HEAD_BYTES };

    code->counts = e.at;
    for (unsigned i = 0; i < CODE_COUNTS; i++) {
        emit_u64(&e, i);
        emit_u64(&e, 0);
    }
    make_flags(&e, code);
    make_enter(&e, &code->thunks);
    uint8_t *tail = make_exits(&e, &code->thunks);

    make_across(&e, code);
    make_calls(&e, &code->thunks, tail);
    assert(!e.full);
    code->used = CODE_HEAD_BYTES;
}
