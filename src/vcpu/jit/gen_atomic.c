/* Atomics and fences. */
#include "vcpu/jit/gen.h"

/* The host keeps every order but store before load. */
static void fence(struct gen *g, const struct insn *insn)
{
    const uint32_t pred_write = 1u << 24, succ_read = 1u << 21, tso = 8;

    if (insn->raw == 0x0100000f) { /* pause */
        emit_u8(&g->e, 0xf3);
        emit_u8(&g->e, 0x90);
    } else if ((insn->raw & pred_write) && (insn->raw & succ_read) && insn->raw >> 28 != tso) {
        emit_op_imm(&g->e, X_LOCK | 0x83, ALU_OR, op_mem(RSP, 0), 0, 1); /* dearer fences order no more than this */
    }
}

bool gen_atomic(struct gen *g, const struct insn *insn)
{
    if (insn->op != OP_fence)
        return false;
    fence(g, insn);
    return true;
}
